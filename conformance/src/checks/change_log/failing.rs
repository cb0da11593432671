//! The bodies of the checks on a medium that fails: C-1.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use larder_traits::{Classify, ErrorKind, Outcome as Effect};

use super::cases::{Case, Method};
use super::{change, writer};
use crate::change_log::{Handle, World};
use crate::check::{Outcome, Stop, describe};
use crate::checks::of_the_medium;
use crate::cx::Cx;
use crate::engine::fault::{self, each_met, enough};
use crate::fixture::{FaultKind, Faults};

/// How long what claims to have had no effect is watched, for each method.
const WATCHED: Duration = Duration::from_millis(200);

/// What the checks of this file share: a failing medium, the handle that meets it, and one that looks.
struct Bench<'a> {
    cx: &'a Cx<dyn World>,
    faults: Arc<dyn Faults>,
    a: Handle,
    b: Handle,
    /// Calls that said they had no effect.
    unchanged: Mutex<Vec<Case>>,
    made: AtomicU64,
    met: AtomicU64,
}

impl<'a> Bench<'a> {
    async fn new(cx: &'a Cx<dyn World>, method: Method) -> Result<Self, Stop> {
        let faults = cx.faults()?;
        let (a, b) = cx.open_two(method.place()).await?;
        Ok(Self {
            cx,
            faults,
            a,
            b,
            unchanged: Mutex::default(),
            made: AtomicU64::new(0),
            met: AtomicU64::new(0),
        })
    }

    /// Every call to the medium that this method makes goes wrong once.
    async fn each(&self, method: Method, kind: FaultKind, is_there: bool) -> Outcome {
        let attempt = |nth| self.attempt(method, kind, is_there, nth);
        let met = each_met(&*self.faults, kind, attempt).await?;
        self.met.fetch_add(met, Ordering::Relaxed);
        Ok(())
    }

    /// One call whose `nth` call to the medium goes wrong; whether it did.
    async fn attempt(
        &self,
        method: Method,
        kind: FaultKind,
        is_there: bool,
        nth: u64,
    ) -> Result<bool, Stop> {
        // What comes before the call in question is not to fail.
        self.faults.disarm();
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let case =
            Case::prepare(&self.a, method, number, is_there, self.cx.caps.late_landing).await?;
        self.cx.log().push(format!("{kind:?} at call {nth}"));
        self.faults.arm(nth, kind);
        let answer = case.call(&self.a).await;
        let met = self.faults.disarm();
        let what = format!("{method:?} with {kind:?} at its call {nth} to the medium");
        let outcome = match &answer {
            Ok(answer) => {
                case.judge(&what, answer)?;
                None
            }
            Err(e) => {
                of_the_medium(&what, e)?;
                let is_read = method == Method::Changes;
                let is_right = e.kind() != ErrorKind::Conflict
                    && (!is_read || e.outcome() == Effect::NotApplied);
                let expected = "no conflict, since nobody else is there; of a read, NotApplied";
                self.cx.require(is_right, &what, describe(e), expected)?;
                Some(e.outcome())
            }
        };
        // The handle that failed may not go its own way.
        let mut may_be_old = outcome.is_some();
        for handle in [&self.b, &self.a] {
            let seen = case.look(&what, handle).await?;
            let may_be_new = outcome != Some(Effect::NotApplied);
            let is_right = (seen.may_be_old && may_be_old) || (seen.may_be_new && may_be_new);
            may_be_old &= seen.may_be_old;
            let observed = if seen.may_be_old {
                "no effect"
            } else {
                "an effect"
            };
            let expected = match outcome {
                None => "the effect of what was Ok",
                Some(Effect::NotApplied) => "no effect of what was NotApplied",
                Some(_) => "one of both, on each handle the same",
            };
            self.cx.require(is_right, &what, observed, expected)?;
        }
        case.close(&self.a).await?;
        if outcome == Some(Effect::NotApplied) {
            let unchanged = &self.unchanged;
            let mut unchanged = unchanged.lock().unwrap_or_else(PoisonError::into_inner);
            unchanged.push(case);
        }
        Ok(met)
    }

    /// Watches for a while that nothing arrives of what was NotApplied; how many faults were met.
    async fn watch(&self) -> Result<u64, Stop> {
        let unchanged = {
            let unchanged = &self.unchanged;
            let mut unchanged = unchanged.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *unchanged)
        };
        let (mut looks, started) = (0, Instant::now());
        while !unchanged.is_empty() && started.elapsed() < WATCHED {
            looks += 1;
            let handle = if looks % 2 == 0 { &self.a } else { &self.b };
            for case in &unchanged {
                let what = "a call that was NotApplied, later";
                let seen = case.look(what, handle).await?;
                let expected = "no effect";
                self.cx
                    .require(seen.may_be_old, what, "an effect", expected)?;
            }
            tokio::time::sleep(WATCHED / 4).await;
        }
        // Nothing is left behind that would stop the next call.
        let (by, after) = (writer(9_999), change(9_999, 0));
        self.a.record(by, &after).await?;
        self.b.expect("after all faults", by, &[after]).await?;
        Ok(self.met.load(Ordering::Relaxed))
    }
}

pub(super) async fn c_1_1(cx: &Cx<dyn World>) -> Outcome {
    let mut met = 0;
    for method in Method::ALL {
        let bench = Bench::new(cx, method).await?;
        for is_there in [true, false] {
            bench.each(method, FaultKind::ErrorBefore, is_there).await?;
        }
        met += bench.watch().await?;
    }
    enough(met)
}

pub(super) async fn c_1_2(cx: &Cx<dyn World>) -> Outcome {
    let mut met = 0;
    for method in Method::ALL {
        let bench = Bench::new(cx, method).await?;
        for is_there in [true, false] {
            // The same error at the same call, once in front of its effect and once behind it.
            for kind in [FaultKind::ErrorBefore, FaultKind::ErrorAfter] {
                bench.each(method, kind, is_there).await?;
            }
        }
        met += bench.watch().await?;
    }
    enough(met)
}

pub(super) async fn cl_6_3(cx: &Cx<dyn World>) -> Outcome {
    let faults = cx.faults()?;
    let (a, b) = cx.open_two("p").await?;
    let owner = writer(1);
    let patience = fault::patience(async || a.record(owner, &change(0, 0)).await).await?;
    let mut met = 0;
    // A change that is recorded and completed, and one that is completed and recorded again.
    for records in [true, false] {
        met += each_met(&*faults, FaultKind::ErrorAfter, async |nth| {
            let [old, new] = [0, 1].map(|version| change(2 * nth + u64::from(records), version));
            // What comes before the call in question is not to fail.
            faults.disarm();
            if !records {
                a.record(owner, &old).await?;
            }
            let call = async {
                match records {
                    true => a.try_record(owner, &old).await,
                    false => a.try_complete(owner, old.id).await,
                }
            };
            let is_seen = async || {
                let listed = b.try_changes(owner).await;
                listed.is_ok_and(|listed| listed.iter().any(|it| it.id == old.id) == records)
            };
            let over = async || {
                let ended = match records {
                    true => b.try_complete(owner, old.id).await,
                    false => b.try_record(owner, &new).await,
                };
                ended.is_ok()
            };
            let stays = async || {
                for handle in [&b, &a] {
                    let listed = handle.changes(owner).await?;
                    let found = listed.into_iter().find(|it| it.id == old.id);
                    let expected = (!records).then(|| new.clone());
                    let what = format!("what came over a change whose answer {nth} was lost");
                    cx.eq(what, &found, &expected)?;
                }
                Ok(())
            };
            fault::seen_once(&*faults, nth, patience, call, is_seen, over, stays).await
        })
        .await?;
    }
    enough(met)
}
