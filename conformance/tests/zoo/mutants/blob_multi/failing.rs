//! Wrong only where the medium fails.

use std::time::Duration;

use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::{ErrorKind, Fault};

use super::m;
use crate::mutants::Mutant;
use crate::reference::behind;
use crate::reference::blob_multi::too_late;
use crate::reference::medium::Trouble;

pub(super) fn failing() -> Vec<Mutant> {
    [answers(), deadlines()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Fault))
        .collect()
}

fn answers() -> Vec<Mutant> {
    vec![
        m(
            "bm-lost-answer-not-applied",
            "BM-13",
            &["C-1"],
            "a write whose answer was lost is said to have had no effect",
            |s| s.fails.commit = |trouble| Err(trouble.before().into()),
        ),
        m(
            "bm-refused-is-done",
            "BM-13",
            &["C-1", "BM-3", "BM-4", "BM-5", "BM-6"],
            "a write that the medium refused is Ok",
            |s| {
                s.fails.commit = |trouble| match trouble {
                    Trouble::Refused => Ok(()),
                    _ => Err(trouble.at_commit().into()),
                }
            },
        ),
        m(
            "bm-tidying-fails-the-set",
            "BM-13",
            &["C-1"],
            "a set that is done is said to have had no effect, because what it left could not be cleared away",
            |s| s.fails.tidy = |trouble| Err(trouble.before().into()),
        ),
        m(
            "bm-failed-read-absent",
            "BM-13",
            &["C-1", "BM-1", "BM-2", "BM-6"],
            "what could not be read is absent",
            |s| s.fails.read = |_| None,
        ),
        m(
            "bm-failed-read-unknown",
            "C-1",
            &["BM-13"],
            "a read that failed is Unknown",
            |s| s.fails.read = |trouble| Some(trouble.after().into()),
        ),
        m(
            "bm-failure-as-closed",
            "C-1",
            &["BM-13"],
            "a read that the medium did not answer is told as if the store had been shut down",
            |s| {
                s.fails.read = |_| {
                    let told = "no connection";
                    Some(Fault::not_applied(ErrorKind::Closed, told).into())
                }
            },
        ),
        m(
            "bm-half-replace",
            "BM-4",
            &["C-1", "BM-13", "BM-6"],
            "a set removes the old value and then writes the new one, and stops where one of the two fails",
            |s| {
                s.one_at_a_time = true;
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let _turn = place.turn.lock().await;
                        let medium = &place.medium;
                        let steps = async {
                            match medium.call(|| place.delete(&key)).await {
                                Ok(removed) => removed?,
                                Err(trouble) => return Err(trouble.at_commit().into()),
                            }
                            match medium.call(|| place.set(&key, value)).await {
                                Ok(set) => set,
                                Err(trouble) => Err(trouble.after().into()),
                            }
                        };
                        let ended = tokio::time::timeout_at(deadline.into(), steps).await;
                        ended.unwrap_or_else(|_late| Err(Trouble::Late.after().into()))
                    }
                    .boxed()
                }));
            },
        ),
        // Seen in opendal, issue 3956: what was on its way when a call failed is not part of the next try.
        m(
            "bm-retry-without-content",
            "BM-13",
            &["BM-1", "BM-3", "BM-4"],
            "a set that failed is made again by the store itself, without the half that was on its way",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let left = value.slice(..value.len() / 2);
                        let tries = async {
                            let medium = &place.medium;
                            if let Ok(set) = medium.call(|| place.set(&key, value)).await {
                                return set;
                            }
                            match medium.call(|| place.set(&key, left)).await {
                                Ok(set) => set,
                                Err(trouble) => Err(trouble.after().into()),
                            }
                        };
                        let ended = tokio::time::timeout_at(deadline.into(), tries).await;
                        ended.unwrap_or_else(|_late| Err(Trouble::Late.after().into()))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-retry-after-next-write",
            "BM-12",
            &["C-1", "BM-13"],
            "a set whose answer was lost is Unknown, and is sent again a little later all the same",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let again = value.clone();
                        let sent = place.medium.call(|| place.set(&key, value));
                        let ended = tokio::time::timeout_at(deadline.into(), sent).await;
                        let trouble = match ended {
                            Ok(Ok(set)) => return set,
                            Ok(Err(Trouble::Refused)) => {
                                return Err(Trouble::Refused.before().into());
                            }
                            Ok(Err(trouble)) => trouble,
                            Err(_late) => Trouble::Late,
                        };
                        behind(move || place.set(&key, again));
                        Err(trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

fn deadlines() -> Vec<Mutant> {
    vec![
        m(
            "bm-no-timer",
            "BM-7",
            &["C-6"],
            "nobody watches the deadline while the medium is silent",
            |s| s.timer = false,
        )
        .hanging(),
        m(
            "bm-hang-not-applied",
            "BM-7",
            &["C-1", "BM-13", "BM-12"],
            "a write that came to no answer by its deadline is said to have had no effect, and has it a little later",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let again = value.clone();
                        let sent = place.medium.call(|| place.set(&key, value));
                        match tokio::time::timeout_at(deadline.into(), sent).await {
                            Ok(ended) => ended.unwrap_or_else(|e| Err(e.at_commit().into())),
                            Err(_late) => {
                                let behind = async move {
                                    tokio::time::sleep(Duration::from_millis(100)).await;
                                    place.set(&key, again)
                                };
                                drop(tokio::spawn(behind));
                                Err(too_late())
                            }
                        }
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-hang-read-unknown",
            "BM-7",
            &["C-1"],
            "a call that came to no answer by its deadline is Unknown, a read too",
            |s| s.fails.late = |_| Trouble::Late.after().into(),
        ),
        m(
            "bm-hang-wrong-kind",
            "BM-7",
            &[],
            "a call that came to no answer by its deadline is Unavailable",
            |s| {
                s.fails.late = |sent| {
                    let trouble = Trouble::Lost;
                    if sent {
                        trouble.after().into()
                    } else {
                        trouble.before().into()
                    }
                };
            },
        ),
        m(
            "bm-refused-is-timeout",
            "BM-7",
            &["C-1"],
            "whatever goes wrong is a timeout",
            |s| {
                s.fails.read = |_| Some(Fault::not_applied(ErrorKind::Timeout, "no luck").into());
                s.fails.stage = |_| Err(Fault::not_applied(ErrorKind::Timeout, "no luck").into());
                s.fails.commit = |_| Err(Fault::unknown(ErrorKind::Timeout, "no luck").into());
            },
        ),
        m(
            "bm-retry-past-deadline",
            "BM-7",
            &[],
            "a set that was refused is tried again a second later, whatever its deadline says",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let again = value.clone();
                        let sent = place.medium.call(|| place.set(&key, value));
                        match tokio::time::timeout_at(deadline.into(), sent).await {
                            Err(_late) => Err(Trouble::Late.after().into()),
                            Ok(Ok(set)) => set,
                            Ok(Err(Trouble::Refused)) => {
                                tokio::time::sleep(Duration::from_secs(1)).await;
                                place.set(&key, again)
                            }
                            Ok(Err(trouble)) => Err(trouble.at_commit().into()),
                        }
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
