//! C-6.3 and BM-12: writes that were given up, and what was acknowledged after them. The checks stand in the tables of
//! their clauses.

use std::time::Duration;

use bytes::Bytes;
use larder_traits::{Atomicity, Classify, LateLanding, Outcome as Effect};

use super::deadlines::WATCH;
use super::faults::Bench;
use super::methods::{Method, WRITES, Watched, recovered, value_of, watch};
use crate::blob_multi::{Handle, World};
use crate::check::{Outcome, Stop};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::engine::canary;
use crate::engine::cancel::{POLLS_MAX, poll_then_drop};
use crate::engine::fault::{each_met, enough};
use crate::engine::time::REAL_WAIT_MAX;
use crate::fixture::FaultKind;

/// A key on which a write was given up and a later one acknowledged.
struct Landing {
    key: String,
    earlier: Option<Bytes>,
    later: Option<Bytes>,
    /// A torn earlier value is possible too.
    torn: bool,
    story: String,
}

impl Landing {
    fn watched(&self, fenced: bool) -> Watched {
        let allowed = match (fenced, self.torn) {
            (true, _) => vec![self.later.clone()],
            (false, true) => Vec::new(),
            (false, false) => vec![self.later.clone(), self.earlier.clone()],
        };
        Watched {
            key: self.key.clone(),
            allowed,
            story: format!("{}, and a later write that was acknowledged", self.story),
        }
    }
}

/// Judges what is there, and comes to be there, against what is declared.
async fn landed(cx: &Cx<dyn World>, handles: &[&Handle], landings: &[Landing]) -> Outcome {
    let declared = cx.caps.late_landing;
    let fenced = declared == LateLanding::Fenced;
    let mut keys: Vec<Watched> = landings
        .iter()
        .map(|landing| landing.watched(fenced))
        .collect();
    watch(handles, &keys, Duration::ZERO).await?;
    if let LateLanding::MayLandLate(Some(bound)) = declared {
        if bound > REAL_WAIT_MAX {
            let why = format!("declared: late by up to {bound:?}, longer than this check waits");
            return Err(Stop::Ignored(why));
        }
        canary::pass(bound).await;
        for watched in &mut keys {
            watched.look(handles[0]).await?;
            watched.allowed = vec![value_of(handles[0], &watched.key).await?];
            watched.story = format!("{}, and {bound:?} of waiting", watched.story);
        }
    }
    cx.settle().await;
    let time = if declared == LateLanding::MayLandLate(None) {
        Duration::ZERO
    } else {
        WATCH
    };
    watch(handles, &keys, time).await?;
    // Whoever opens the place now may find what the earlier write had begun, and has nothing to finish or to undo.
    let late = cx.open_as("late", "p").await?;
    for watched in &keys {
        watched.look(&late).await?;
    }
    Ok(())
}

/// The later write: a set or a delete, by the same handle or the other; what it leaves.
async fn later(a: &Handle, b: &Handle, at: usize, key: &str) -> Result<Option<Bytes>, Stop> {
    let handle = if at.is_multiple_of(2) { b } else { a };
    let deadline = Handle::ample();
    if at % 4 == 3 {
        recovered("a later delete", || handle.try_delete(deadline, key)).await?;
        return Ok(None);
    }
    let value = Bytes::from(pattern(&format!("later {key}"), 400));
    let set = || handle.try_set(deadline, key, value.clone(), Atomicity::RequireAtomic);
    recovered("a later set", set).await?;
    Ok(Some(value))
}

pub(super) async fn c_6_3(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut landings = Vec::new();
    for (offset, method) in WRITES.into_iter().enumerate() {
        // From four directions each: later sets and deletes, by either handle.
        for way in 0..4 {
            for polls in 1..POLLS_MAX {
                let key = format!("{}/{way}/{polls}", method.word());
                b.set(&key, pattern(&key, 300)).await?;
                let new = Bytes::from(pattern(&format!("dropped {key}"), 20_000));
                let call = method.call(&a, Handle::ample(), &key, &new);
                if poll_then_drop(polls, call).await.is_some() {
                    break;
                }
                cx.log()
                    .push(format!("-- a call dropped after {polls} polls --"));
                if offset % 2 == 1 {
                    tokio::task::yield_now().await;
                }
                landings.push(Landing {
                    later: later(&a, &b, way, &key).await?,
                    key,
                    earlier: method.leaves(&new),
                    torn: method.may_tear(),
                    story: format!("{} dropped after {polls} polls", method.word()),
                });
            }
        }
    }
    landed(cx, &[&a, &b], &landings).await
}

pub(super) async fn bm_12(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    let (mut landings, mut count) = (Vec::new(), 0);
    let mut met = 0;
    let fenced = cx.caps.late_landing == LateLanding::Fenced;
    let kinds = [
        FaultKind::Hang,
        FaultKind::ErrorBefore,
        FaultKind::ErrorAfter,
    ];
    for kind in kinds {
        for method in WRITES {
            // One old value and one new length each time: the ways differ in what comes later.
            for way in 0..4 {
                met += unknown_then_later(&bench, method, kind, way, &mut landings).await?;
                if kind == FaultKind::Hang && way == 1 {
                    break;
                }
            }
        }
        count += landings.len();
        if !fenced {
            // Later ones would take so long that these have landed before anybody looks.
            landed(cx, &[&bench.a, &bench.b], &landings).await?;
            landings.clear();
        }
    }
    enough(met)?;
    if count == 0 {
        return Err(Stop::Inconclusive("no write ended as Unknown".into()));
    }
    landed(cx, &[&bench.a, &bench.b], &landings).await
}

async fn unknown_then_later(
    bench: &Bench<'_>,
    method: Method,
    kind: FaultKind,
    way: usize,
    landings: &mut Vec<Landing>,
) -> Result<u64, Stop> {
    let found = std::sync::Mutex::new(Vec::new());
    let met = each_met(bench.faults.as_ref(), kind, |nth| {
        let found = &found;
        async move {
            let lens = (Some(100 + way), 9_000 + way);
            let attempt = bench.attempt(method, kind, nth, lens).await?;
            let unknown = matches!(&attempt.result, Err(e) if e.outcome() == Effect::Unknown);
            if unknown {
                // A hang stands at the head of two ways only, so it takes the two kinds of later writes.
                let way = if kind == FaultKind::Hang {
                    way * 3
                } else {
                    way
                };
                let later = later(&bench.a, &bench.b, way, &attempt.key).await?;
                let watched = attempt.watched();
                let landing = Landing {
                    key: watched.key,
                    earlier: attempt.effect(),
                    later,
                    torn: method.may_tear(),
                    story: watched.story,
                };
                let mut found = found
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                found.push(landing);
            }
            Ok(attempt.met())
        }
    })
    .await?;
    landings.extend(
        found
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    );
    Ok(met)
}
