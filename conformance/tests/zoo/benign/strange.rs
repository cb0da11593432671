//! Oddities of stashes, frames and logs: in what is left open of orders, numbers, buffers and answers, and in how calls wait.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use larder_conformance::Caps;
use larder_traits::AlignedBlobBuf;
use larder_traits::stash::driver::{StashOp, fold};
use tokio::sync::Semaphore;

use super::seldom::count_changes;
use super::{Benign, bs, cl, may_land_late, st};
use crate::reference::blob_store::Packed;
use crate::reference::{Due, blob_store, change_log, gap, lock, stash};

pub(super) fn all() -> Vec<Benign> {
    [stashes(), frames(), logs()]
        .into_iter()
        .flatten()
        .collect()
}

fn commit(place: &stash::Place, ops: &[StashOp], rules: &stash::Rules) -> stash::Answer<()> {
    let mut state = lock(&place.state);
    let mut next = state.clone();
    next.commit(ops, rules)?;
    *state = next;
    Ok(())
}

fn stashes() -> Vec<Benign> {
    const CAPS: Caps = stash::CAPS;
    vec![
        st("finishes-what-was-dropped", CAPS, |s| {
            s.slow_commit = Some(Box::new(|place, ops, rules| {
                async move {
                    let answer = Mutex::new(Ok(()));
                    let done = Due::new(|| *lock(&answer) = commit(place, &ops, rules));
                    gap().await;
                    done.settle();
                    answer.into_inner().unwrap_or_else(PoisonError::into_inner)
                }
                .boxed()
            }));
        }),
        st("ids-counted-down", CAPS, |s| {
            s.open = Box::new(|place, name| {
                let mut state = lock(&place.state);
                if !state.names.contains_key(name) {
                    let used = place.counter.fetch_add(1, SeqCst);
                    state.next = u64::MAX - 1 - used;
                }
                Ok(state.open(name))
            });
        }),
        st("names-in-another-order-each-time", CAPS, |s| {
            s.names = Box::new(|place| {
                let names = lock(&place.state).names.clone();
                let mut names: Vec<_> = names.into_iter().rev().collect();
                rotate(&mut names, place.counter.fetch_add(1, Relaxed));
                Ok(names)
            });
        }),
        st("consolidates-all-at-once", CAPS, |s| {
            s.commit = Box::new(|place, ops, rules| {
                commit(place, ops, rules)?;
                let folds = |op: &StashOp| matches!(op, StashOp::Consolidate { .. });
                if ops.iter().any(folds) {
                    for collection in lock(&place.state).collections.values_mut() {
                        let since = collection.frontiers.since.borrow();
                        // A sum that does not fit is for a reader to find out.
                        if let Ok(rows) = fold(collection.rows.clone(), since) {
                            collection.rows = rows;
                        }
                    }
                }
                Ok(())
            });
        }),
        st("drops-what-changes-nothing", CAPS, |s| {
            s.rules.apply = Box::new(|collection, op| {
                stash::apply(collection, op)?;
                collection.rows.retain(|row| row.diff != 0);
                Ok(())
            });
        }),
        st("two-in-flight", CAPS.with_in_flight_max(Some(2)), |s| {
            let permits = Arc::new(Semaphore::new(2));
            s.slow_commit = Some(Box::new(move |place, ops, rules| {
                let permits = Arc::clone(&permits);
                async move {
                    let _permit = permits.acquire().await;
                    gap().await;
                    let ended = place.medium.timed(|| commit(place, &ops, rules)).await;
                    ended.unwrap_or_else(|trouble| Err(trouble.at_commit().into()))
                }
                .boxed()
            }));
        }),
    ]
}

/// So that they begin with another one than the last time.
fn rotate<T>(found: &mut [T], times: u64) {
    if let Ok(times) = usize::try_from(times)
        && !found.is_empty()
    {
        found.rotate_left(times % found.len());
    }
}

fn frames() -> Vec<Benign> {
    const CAPS: Caps = blob_store::CAPS;
    vec![
        bs("uninit-buffers-of-other-bytes", CAPS, |s| {
            s.uninit = Box::new(|_| {
                let mut buffer = AlignedBlobBuf::zeroed();
                buffer.fill(0xa5);
                buffer
            });
        }),
        bs("lists-in-another-order-each-time", CAPS, |s| {
            s.list = Box::new(|place| {
                let mut names = place.list()?;
                rotate(&mut names, place.counter.fetch_add(1, Relaxed));
                Ok(names)
            });
        }),
        bs("scribbles-over-failed-ranges", CAPS, |s| {
            s.range = Box::new(|place, guid, offset, dst| {
                dst.fill(0xee);
                place.range(guid, offset, dst)
            });
        }),
        bs("scribbles-where-one-of-many-is-absent", CAPS, |s| {
            s.many = Some(Box::new(|place, reads| {
                let read = |(guid, dst): &mut (_, &mut AlignedBlobBuf)| {
                    dst.fill(0xee);
                    place.read(*guid, dst)
                };
                reads.iter_mut().map(read).collect()
            }));
        }),
        // A frame that is there already is no change. What counts is counted once it is there, or a flush that comes between
        // would forget it.
        bs("equal-frames-ask-for-no-flush", blob_store::DURABLE, |s| {
            count_changes(s);
            s.write = Box::new(|place, guid, src| {
                let is_there = lock(&place.frames).get(&guid) == Some(&Packed::new(src));
                place.write(guid, src)?;
                place.counter.fetch_add(u64::from(!is_there), SeqCst);
                Ok(())
            });
        }),
    ]
}

fn logs() -> Vec<Benign> {
    const CAPS: Caps = change_log::CAPS;
    vec![
        cl("lists-in-another-order-each-time", CAPS, |s| {
            s.list = Box::new(|log, writer| {
                let mut own = log.book.of(writer);
                rotate(&mut own, log.counter);
                log.counter += 1;
                Ok(own)
            });
        }),
        cl("finishes-dropped-claims", CAPS, |s| {
            s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                async move {
                    let taken = Mutex::new(Vec::new());
                    let claim = Due::new(|| {
                        *lock(&taken) = lock(&place.log).book.claim(writer, now, limit);
                    });
                    gap().await;
                    claim.settle();
                    Ok(taken.into_inner().unwrap_or_else(PoisonError::into_inner))
                }
                .boxed()
            }));
        }),
        // Failure: C-6.1 saw changes with the old owner and with the new one, after a claim was dropped. Cause: it asks for
        // the one list and then for the other, and what is left of the claim landed between them. Fix: where both have
        // the changes it asks for both again; it can land once only.
        cl("dropped-claims-land-soon", may_land_late(CAPS, None), |s| {
            s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                async move {
                    let late = Arc::clone(&place);
                    let left = Due::new(move || {
                        drop(tokio::spawn(async move {
                            tokio::task::yield_now().await;
                            lock(&late.log).book.claim(writer, now, limit)
                        }));
                    });
                    gap().await;
                    left.call_off();
                    Ok(lock(&place.log).book.claim(writer, now, limit))
                }
                .boxed()
            }));
        }),
        // It works on what it read, and again where somebody was faster.
        cl("claims-optimistically", CAPS, |s| {
            s.record = Box::new(|log, writer, change| {
                log.counter += 1;
                log.book.record(writer, change)
            });
            s.complete = Box::new(|log, writer, id| {
                log.counter += 1;
                log.book.complete(writer, id)
            });
            s.renew = Box::new(|log, writer, until| {
                log.counter += 1;
                log.book.renew(writer, until);
                Ok(())
            });
            s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                async move {
                    loop {
                        let (read, mut next) = {
                            let log = lock(&place.log);
                            (log.counter, log.book.clone())
                        };
                        let taken = next.claim(writer, now, limit);
                        gap().await;
                        let claimed = place.medium.timed(|| {
                            let mut log = lock(&place.log);
                            let is_last = log.counter == read;
                            if is_last {
                                log.counter += 1;
                                log.book = next;
                            }
                            is_last
                        });
                        if claimed.await.map_err(|trouble| trouble.at_commit())? {
                            return Ok(taken);
                        }
                    }
                }
                .boxed()
            }));
        }),
        cl("two-in-flight", CAPS.with_in_flight_max(Some(2)), |s| {
            let permits = Arc::new(Semaphore::new(2));
            s.slow_record = Some(Box::new(move |place, writer, change| {
                let permits = Arc::clone(&permits);
                async move {
                    let _permit = permits.acquire().await;
                    gap().await;
                    let record = || lock(&place.log).book.record(writer, &change);
                    let ended = place.medium.timed(record).await;
                    ended.unwrap_or_else(|trouble| Err(trouble.at_commit()))
                }
                .boxed()
            }));
        }),
    ]
}
