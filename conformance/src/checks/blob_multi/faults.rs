//! What errors say, and what they leave behind: calls to a medium that fails. The checks stand in the tables of their
//! clauses; those about time are in `slow`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_traits::{Atomicity, Classify, ErrorKind, ExternalError, Outcome as Effect};

use super::deadlines::{CLOSE, WATCH};
use super::methods::{Method, READS, Told, WRITES, Watched, only_known_keys, watch};
use super::{fill, get_is};
use crate::blob_multi::{Handle, World};
use crate::check::{Outcome, Stop, describe};
use crate::checks::{of_the_medium, pattern};
use crate::cx::Cx;
use crate::engine::fault::{self, each_met, enough};
use crate::fixture::{FaultKind, Faults};
use crate::model::blob_multi::Blobs;

/// How long a call may take that meets no more than an error.
const ENDS: Duration = Duration::from_secs(20);

/// Longer than any call with a short deadline takes that comes back at all.
pub(super) const NEVER: Duration = Duration::from_secs(5);

/// The deadline of calls that hang: short, for each of them is waited for.
pub(super) const HANG_FOR: Duration = Duration::from_millis(150);

/// Two handles, a medium that can be made to fail, and what was done to which key.
pub(super) struct Bench<'a> {
    pub(super) cx: &'a Cx<dyn World>,
    pub(super) a: Handle,
    pub(super) b: Handle,
    pub(super) faults: Arc<dyn Faults>,
    /// How the medium goes wrong, in words.
    words: &'static str,
    /// A place of keys that no faulty call writes.
    pub(super) still: Handle,
    pub(super) model: Blobs,
    watched: Mutex<Vec<Watched>>,
}

/// One call that may have met a fault, and how it ended.
pub(super) struct Attempt {
    pub(super) method: Method,
    pub(super) key: String,
    /// What was there before, and what is there after if the call had its effect.
    old: Option<Bytes>,
    new: Option<Bytes>,
    story: String,
    pub(super) result: Result<Told, ExternalError>,
    pub(super) deadline: Instant,
    pub(super) back: Instant,
    met: bool,
}

impl<'a> Bench<'a> {
    pub(super) async fn new(cx: &'a Cx<dyn World>) -> Result<Self, Stop> {
        let faults = cx.faults()?;
        Self::with(cx, "p", faults, "a failure").await
    }

    async fn with(
        cx: &'a Cx<dyn World>,
        place: &str,
        faults: Arc<dyn Faults>,
        words: &'static str,
    ) -> Result<Self, Stop> {
        let (a, b) = cx.open_two(place).await?;
        let still = cx.open_as("s", "still").await?;
        let mut model = Blobs::default();
        for (key, len) in [("k", 5_000), ("k/x", 10), ("l", 0)] {
            fill(&still, &mut model, key, "still", len).await?;
        }
        Ok(Self {
            cx,
            a,
            b,
            faults,
            words,
            still,
            model,
            watched: Mutex::default(),
        })
    }

    /// Makes one call, with the fault at the `nth` call to the medium that it makes.
    pub(super) async fn attempt(
        &self,
        method: Method,
        kind: FaultKind,
        nth: u64,
        lens: (Option<usize>, usize),
    ) -> Result<Attempt, Stop> {
        // What is set up first must not meet the fault.
        self.faults.disarm();
        let is_read = READS.contains(&method);
        let key = if is_read {
            "k".to_owned()
        } else {
            let was = lens.0.map_or("absent".into(), |len| len.to_string());
            format!("{}/{kind:?}/{was}-{}/{nth}", method.word(), lens.1)
        };
        let old = lens
            .0
            .map(|len| Bytes::from(pattern(&format!("old {key}"), len)));
        let new = Bytes::from(pattern(&format!("new {key}"), lens.1));
        let handle = if is_read { &self.still } else { &self.a };
        if let Some(old) = old.as_ref().filter(|_| !is_read) {
            self.b.set(&key, old.clone()).await?;
        }
        let what = format!(
            "{} with {kind:?} at call {nth}: {}",
            method.word(),
            self.words
        );
        self.cx.log().push(format!("-- {what} --"));
        let (bound, ends) = if kind == FaultKind::Hang {
            (HANG_FOR, NEVER)
        } else {
            (ENDS * 2, ENDS)
        };
        self.faults.arm(nth, kind);
        let deadline = Instant::now() + bound;
        let call = method.call(handle, deadline, &key, &new);
        let result = self.cx.within(ends, &what, call).await;
        let back = Instant::now();
        let met = self.faults.disarm();
        let result = result?;
        let story = match &result {
            Ok(_) => format!("{what}, which said Ok"),
            Err(e) => format!("{what}, which said {}", describe(e)),
        };
        Ok(Attempt {
            method,
            old: if is_read { None } else { old },
            new: if is_read { None } else { method.leaves(&new) },
            key,
            story,
            result,
            deadline,
            back,
            met,
        })
    }

    /// Fails if an answer was wrong, an error of a kind that tells the caller a lie, or an outcome false as far as one
    /// can see now. What may still come is looked at by [`Self::watch`].
    pub(super) async fn judge(&self, attempt: &Attempt) -> Outcome {
        if let Err(e) = &attempt.result {
            kind_of_a_failure(attempt, e)?;
        }
        if READS.contains(&attempt.method) {
            return match &attempt.result {
                Ok(told) => attempt.method.right(told, &attempt.key, &self.model),
                Err(e) if e.outcome() == Effect::NotApplied => Ok(()),
                Err(_) => Err(Stop::fail(
                    "a read",
                    attempt.story.clone(),
                    "an error of a read is NotApplied",
                )),
            };
        }
        let watched = attempt.watched();
        for handle in [&self.b, &self.a] {
            watched.look(handle).await?;
        }
        let mut all = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(watched);
        Ok(())
    }

    /// Lets each call to the medium of one method go wrong in turn; how often it did.
    pub(super) async fn each(
        &self,
        method: Method,
        kind: FaultKind,
        lens: (Option<usize>, usize),
    ) -> Result<u64, Stop> {
        each_met(self.faults.as_ref(), kind, |nth| async move {
            let attempt = self.attempt(method, kind, nth, lens).await?;
            self.judge(&attempt).await?;
            Ok(attempt.met)
        })
        .await
    }

    /// What was refused stays without effect, what is unknown stays whole, and nobody else's keys appear.
    pub(super) async fn watch(&self) -> Outcome {
        let keys = {
            let mut all = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *all)
        };
        watch(&[&self.a, &self.b], &keys, WATCH).await?;
        only_known_keys(&self.b, &keys).await
    }
}

impl Attempt {
    pub(super) fn met(&self) -> bool {
        self.met
    }

    /// What is under the key if the call had its effect.
    pub(super) fn effect(&self) -> Option<Bytes> {
        self.new.clone()
    }

    /// What may be under the key now.
    pub(super) fn watched(&self) -> Watched {
        let (old, new) = (self.old.clone(), self.new.clone());
        let allowed = match &self.result {
            Ok(_) => vec![new],
            Err(e) if e.outcome() == Effect::NotApplied => vec![old],
            Err(_) if self.method.may_tear() => Vec::new(),
            Err(_) => vec![old, new],
        };
        Watched {
            key: self.key.clone(),
            allowed,
            story: self.story.clone(),
        }
    }
}

/// C-1, and BM-7: a failure of the medium is none of the arguments, and no deadline that has passed unless one has.
fn kind_of_a_failure(attempt: &Attempt, e: &ExternalError) -> Outcome {
    let early = attempt.back + CLOSE < attempt.deadline;
    if early && e.kind() == ErrorKind::Timeout {
        let expected = "Timeout only once the deadline has passed (BM-7)";
        return Err(Stop::fail(attempt.story.clone(), describe(e), expected));
    }
    of_the_medium(&attempt.story, e)
}

const ERRORS: [FaultKind; 2] = [FaultKind::ErrorBefore, FaultKind::ErrorAfter];

/// A value over one of another length, and over none.
const OVER: (Option<usize>, usize) = (Some(5_000), 9_000);
const FIRST: (Option<usize>, usize) = (None, 3_000);

pub(super) async fn c_1_1(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    let mut met = 0;
    for kind in ERRORS {
        for method in WRITES.into_iter().chain(READS) {
            met += bench.each(method, kind, OVER).await?;
        }
        met += bench.each(WRITES[0], kind, FIRST).await?;
    }
    for method in WRITES {
        met += bench.each(method, FaultKind::Hang, OVER).await?;
    }
    enough(met)?;
    cx.settle().await;
    bench.watch().await
}

pub(super) async fn c_1_2(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    let mut met = 0;
    for method in WRITES {
        for lens in [OVER, FIRST] {
            for kind in ERRORS {
                met += bench.each(method, kind, lens).await?;
            }
        }
    }
    enough(met)?;
    bench.watch().await?;
    // The outcome was right about the effect; now it is acted upon.
    for method in WRITES {
        for kind in ERRORS {
            let attempt = bench.attempt(method, kind, 1, (Some(50), 60)).await?;
            bench.judge(&attempt).await?;
            let new = attempt.new.clone().unwrap_or_default();
            let again = || method.call(&bench.a, Handle::ample(), &attempt.key, &new);
            super::methods::recovered("the same call again", again).await?;
            let done = Watched {
                key: attempt.key.clone(),
                allowed: vec![attempt.new.clone()],
                story: format!("{}, and the same again", attempt.story),
            };
            done.look(&bench.b).await?;
        }
    }
    Ok(())
}

pub(super) async fn bm_4_4(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    let mut met = 0;
    let set = Method::Set(Atomicity::RequireAtomic);
    for old in [None, Some(0), Some(10), Some(70_000)] {
        for new in [0, 5_000, 70_000] {
            for kind in ERRORS {
                met += bench.each(set, kind, (old, new)).await?;
            }
        }
    }
    met += bench.each(set, FaultKind::Hang, OVER).await?;
    for kind in ERRORS {
        met += bench
            .each(Method::Set(Atomicity::AllowNonAtomic), kind, OVER)
            .await?;
    }
    enough(met)?;
    cx.settle().await;
    bench.watch().await?;
    // What half a replacement has left behind does not stand in the way of a whole one.
    let late = cx.open_as("late", "p").await?;
    for key in bench.b.list().await? {
        bench.a.set(&key, key.clone()).await?;
        super::get_is(&late, &key, Some(key.as_bytes())).await?;
    }
    Ok(())
}

pub(super) async fn bm_7_5(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    let mut met = 0;
    for kind in ERRORS {
        for method in WRITES.into_iter().chain(READS) {
            met += each_kind(&bench, method, kind).await?;
        }
    }
    enough(met)
}

/// As [`Bench::each`], with an eye on the kinds alone.
async fn each_kind(bench: &Bench<'_>, method: Method, kind: FaultKind) -> Result<u64, Stop> {
    each_met(bench.faults.as_ref(), kind, |nth| async move {
        let attempt = bench.attempt(method, kind, nth, OVER).await?;
        if let Err(e) = &attempt.result {
            kind_of_a_failure(&attempt, e)?;
        }
        Ok(attempt.met)
    })
    .await
}

pub(super) async fn bm_13_1(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    let mut met = 0;
    for method in WRITES {
        for lens in [OVER, FIRST, (Some(70_000), 0)] {
            met += bench.each(method, FaultKind::ErrorAfter, lens).await?;
        }
    }
    enough(met)?;
    bench.watch().await
}

pub(super) async fn bm_13_3(cx: &Cx<dyn World>) -> Outcome {
    garbled(cx, WATCH).await
}

pub(super) async fn c_3_2(cx: &Cx<dyn World>) -> Outcome {
    garbled(cx, Duration::ZERO).await
}

/// Answers that are none: as errors they are judged, and a panic or a call without an end fails any check.
async fn garbled(cx: &Cx<dyn World>, time: Duration) -> Outcome {
    let media = cx.world().garbled();
    if media.is_empty() {
        return Err(Stop::Ignored("needs the power garbled()".into()));
    }
    for (at, (words, faults)) in media.into_iter().enumerate() {
        let bench = Bench::with(cx, &format!("p{at}"), faults, words).await?;
        let mut met = 0;
        for kind in ERRORS {
            for method in WRITES.into_iter().chain(READS) {
                met += bench.each(method, kind, OVER).await?;
            }
        }
        enough(met)?;
        if time > Duration::ZERO {
            bench.watch().await?;
        }
    }
    Ok(())
}

pub(super) async fn bm_6_5(cx: &Cx<dyn World>) -> Outcome {
    const ATOMIC: Atomicity = Atomicity::RequireAtomic;
    let faults = cx.faults()?;
    let (a, b) = cx.open_two("p").await?;
    let patience = fault::patience(async || a.set("healthy", "1").await).await?;
    let soon = || Instant::now() + ENDS;
    // Over what is set comes another value, or it is deleted; and another value over what is deleted.
    let cases = [
        (Some(ATOMIC), true),
        (Some(Atomicity::AllowNonAtomic), true),
        (None, true),
        (Some(ATOMIC), false),
    ];
    let mut met = 0;
    for (case, (how, by_set)) in cases.into_iter().enumerate() {
        met += each_met(&*faults, FaultKind::ErrorAfter, async |nth| {
            let key = format!("k{case}n{nth}");
            // What comes before the call in question is not to fail.
            faults.disarm();
            a.set(&key, "old").await?;
            let call = async {
                match how {
                    Some(atomic) => a.try_set(soon(), &key, "new", atomic).await,
                    None => a.try_delete(soon(), &key).await,
                }
            };
            let is_seen = async || match b.try_get(soon(), &key).await {
                Ok(Some(value)) => value == b"new" && how.is_some(),
                Ok(None) => how.is_none(),
                Err(_) => false,
            };
            let over = async || {
                let ended = match by_set {
                    true => b.try_set(soon(), &key, "later", ATOMIC).await,
                    false => b.try_delete(soon(), &key).await,
                };
                ended.is_ok()
            };
            let later = by_set.then_some(&b"later"[..]);
            let stays = async || {
                get_is(&b, &key, later).await?;
                get_is(&a, &key, later).await
            };
            fault::seen_once(&*faults, nth, patience, call, is_seen, over, stays).await
        })
        .await?;
    }
    enough(met)
}
