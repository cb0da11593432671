//! Wrong only once a call was dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::{ErrorKind, Fault};
use tokio::task::yield_now;

use super::{cut, m, with_caps};
use crate::mutants::Mutant;
use crate::reference::blob_multi::{CAPS, lands_late, too_late};
use crate::reference::{Due, lock};

/// The calls that may be in flight on the stores that leak them.
const PERMITS: usize = 8;

pub(super) fn dropped() -> Vec<Mutant> {
    [leaks(), halves()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Cancel))
        .collect()
}

fn leaks() -> Vec<Mutant> {
    vec![
        with_caps(
            CAPS.with_in_flight_max(Some(PERMITS)),
            "bm-drop-keeps-permit",
            "C-6",
            &["C-4"],
            "the permit of a set that is dropped is not given back",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let limit = u64::try_from(PERMITS).expect("8 fits");
                        let free = |taken| (taken < limit).then_some(taken + 1);
                        while place.counter.fetch_update(SeqCst, SeqCst, free).is_err() {
                            if deadline <= Instant::now() {
                                return Err(too_late());
                            }
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        yield_now().await;
                        let set = place.set(&key, value);
                        place.counter.fetch_sub(1, SeqCst);
                        set
                    }
                    .boxed()
                }));
            },
        )
        .hanging(),
        m(
            "bm-drop-poisons",
            "C-6",
            &[],
            "a handle on which a set was dropped is of no more use",
            |s| {
                let broken = Arc::new(AtomicBool::new(false));
                s.slow_set = Some(Box::new(move |place, _, key, value| {
                    let broken = Arc::clone(&broken);
                    async move {
                        if broken.load(SeqCst) {
                            let why = "a call before this one was not finished";
                            return Err(Fault::not_applied(ErrorKind::Internal, why).into());
                        }
                        let breaks = Due::new(|| broken.store(true, SeqCst));
                        yield_now().await;
                        breaks.call_off();
                        place.set(&key, value)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-drop-lands-late",
            "C-6",
            &["BM-12"],
            "a set that is dropped goes on in the background, and is declared fenced",
            lands_late,
        ),
    ]
}

fn halves() -> Vec<Mutant> {
    vec![
        m(
            "bm-drop-writes-half",
            "BM-4",
            &["C-6"],
            "what a dropped set had received so far becomes the value",
            |s| {
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        let half = cut(&value, value.len() / 2);
                        let received = Due::new(|| drop(place.set(&key, half)));
                        yield_now().await;
                        received.call_off();
                        place.set(&key, value)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-drop-loses-old",
            "BM-4",
            &["C-6"],
            "a set under a lock removes the old value first; one that is dropped leaves none",
            |s| {
                s.one_at_a_time = true;
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        let _turn = place.turn.lock().await;
                        place.delete(&key)?;
                        yield_now().await;
                        place.set(&key, value)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-drop-loses-place-in-queue",
            "C-6",
            &[],
            "sets are served by number, and the number of a waiting one that is dropped is never passed over",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let number = place.counter.fetch_add(1, SeqCst);
                        let serving = || lock(&place.notes).get("served").map_or(0, super::len_u64);
                        while serving() != number {
                            if deadline <= Instant::now() {
                                return Err(too_late());
                            }
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        let next = Due::new(|| {
                            let mut notes = lock(&place.notes);
                            let served = notes.entry("served".into()).or_default();
                            *served = [served, &b"."[..]].concat().into();
                        });
                        yield_now().await;
                        let set = place.set(&key, value);
                        next.settle();
                        set
                    }
                    .boxed()
                }));
            },
        )
        .hanging(),
    ]
}
