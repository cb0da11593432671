//! Wrong only where two things meet that are right by themselves: an extension and a swap, a fence and a write that is
//! late, an end and what is written over it, a bound and the path on which it is reached.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use larder_conformance::model::high_volume::Row;
use larder_conformance::{Caps, Engine};
use larder_traits::{ExpirationPolicy, LateLanding, ObjectId, Tombstone};
use tokio::task::yield_now;

use super::{m, raw, with_caps};
use crate::mutants::Mutant;
use crate::reference::high_volume::{Answer, CAPS, Path, Place, Read, invalid, len_u64};
use crate::reference::late::{Heeds, lands_late};
use crate::reference::medium::Trouble;
use crate::reference::{Due, gap, lock, stands_still};

pub(super) fn combined() -> Vec<Mutant> {
    [
        extensions(),
        fences(),
        ends(),
        paths(),
        neighbours(),
        again(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The moment to which an extension moves the end, as it is stored.
fn stored(place: &Place, target: &ObjectId, at: SystemTime) -> Answer<SystemTime> {
    let policy = ExpirationPolicy::TimeToLive(Duration::ZERO);
    let mut asked = Tombstone::new(target.clone(), policy);
    asked.time_expires = Some(at);
    let stored = asked.stamped(place.clock_now())?;
    Ok(stored.time_expires.unwrap_or(at))
}

fn extensions() -> Vec<Mutant> {
    vec![
        m(
            "hv-extend-writes-back",
            "HV-8",
            &["HV-7", "HV-5"],
            "an extension reads the redirect, and a moment later writes it back with its new end, whatever is there by then",
            |s| {
                s.slow_extend = Some(Box::new(|place, id, target, at| {
                    async move {
                        let at = stored(&place, &target, at)?;
                        let live = place.redirect(&id).filter(|live| live.target == target);
                        let Some(mut live) = live else {
                            return Ok(false);
                        };
                        if live.time_expires.is_some_and(|end| end < at) {
                            live.time_expires = Some(at);
                            let written = Due::new(|| place.write(&id, Row::Redirect(live)));
                            gap().await;
                            written.settle();
                        }
                        Ok(true)
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Lin),
        m(
            "hv-drop-of-extend-loses-redirect",
            "C-6",
            &["HV-8", "HV-2"],
            "an extension under a lock takes the redirect out and puts it back; one that is dropped does not put it back",
            |s| {
                s.one_at_a_time = true;
                s.slow_extend = Some(Box::new(|place, id, target, at| {
                    async move {
                        let at = stored(&place, &target, at)?;
                        let _turn = place.turn.lock().await;
                        let live = place.redirect(&id).filter(|live| live.target == target);
                        let Some(live) = live else {
                            return Ok(false);
                        };
                        place.remove(&id);
                        yield_now().await;
                        place.write(&id, Row::Redirect(live));
                        Ok(place.extend(&id, &target, at))
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Cancel),
        m(
            "hv-extend-again-is-false",
            "HV-8",
            &["C-1", "HV-6"],
            "an extension whose answer was lost is made again, and says that the redirect has gone since its end did not move",
            |s| {
                s.slow_extend = Some(Box::new(|place, id, target, at| {
                    async move {
                        let at = stored(&place, &target, at)?;
                        let extend = || {
                            let _step = lock(&place.step);
                            let before = raw(&place, &id);
                            let is_there = place.extend(&id, &target, at);
                            (is_there, raw(&place, &id) != before)
                        };
                        match place.medium.timed(extend).await {
                            Ok((is_there, _)) => return Ok(is_there),
                            Err(Trouble::Lost) => {}
                            Err(trouble) => return Err(trouble.at_commit().into()),
                        }
                        match place.medium.timed(extend).await {
                            Ok((is_there, is_moved)) => Ok(is_there && is_moved),
                            Err(trouble) => Err(trouble.after().into()),
                        }
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Fault),
    ]
}

/// What was dropped may come at any time, and a fence is there against it.
const LATE: Caps = CAPS.with_late_landing(LateLanding::MayLandLate(None));

fn fences() -> Vec<Mutant> {
    let mutants = vec![
        with_caps(
            LATE,
            "hv-fence-reads-only",
            "HV-6",
            &["C-6", "HV-7"],
            "a fence reads the row, and what was dropped before it lands after it",
            |s| lands_late(s, Heeds::Nothing, Heeds::Nothing),
        ),
        with_caps(
            LATE,
            "hv-fence-of-own-handle",
            "HV-6",
            &["C-6", "HV-7", "C-2"],
            "a fence holds up what its own handle has dropped, and not what another one has",
            |s| {
                let fences = Arc::default();
                let heeds = Heeds::OwnHandle(Arc::clone(&fences));
                lands_late(s, heeds.clone(), heeds);
                s.fence = Box::new(move |_| {
                    fences.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    Ok(())
                });
            },
        ),
        with_caps(
            LATE,
            "hv-fence-of-swaps-only",
            "HV-6",
            &["C-6", "HV-7"],
            "a fence holds up swaps that were dropped, and not puts",
            |s| {
                lands_late(s, Heeds::Nothing, Heeds::All);
                s.fence = Box::new(|place| {
                    let _step = lock(&place.step);
                    place
                        .counter
                        .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    Ok(())
                });
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Cancel);
    mutants.into_iter().map(awaiting).collect()
}

/// The end of a redirect that lies in the row, dead or alive.
fn end_of(row: Option<Row>) -> Option<SystemTime> {
    match row {
        Some(Row::Redirect(redirect)) => redirect.time_expires,
        _ => None,
    }
}

/// Gives an object that has no end this one.
fn ending(row: Row, end: Option<SystemTime>) -> Row {
    match row {
        Row::Inline(mut metadata, payload) => {
            metadata.time_expires = metadata.time_expires.or(end);
            Row::Inline(metadata, payload)
        }
        redirect @ Row::Redirect(_) => redirect,
    }
}

fn ends() -> Vec<Mutant> {
    vec![
        m(
            "hv-put-over-dead-redirect-inherits-end",
            "HV-1",
            &["HV-8", "HV-9"],
            "an inline put over a redirect that has ended, and was not cleared away, keeps its end where the object has none",
            |s| {
                s.put_inline = Box::new(|place, id, row| {
                    let end = end_of(raw(place, id));
                    place.put_inline(id, ending(row, end))
                });
            },
        ),
        m(
            "hv-swap-object-inherits-end",
            "HV-5",
            &["HV-8", "HV-9"],
            "an object that is swapped in for a redirect keeps the end of the redirect where it has none",
            |s| {
                s.swap = Box::new(|place, id, current, new| {
                    let end = end_of(place.live(id));
                    place.swap(id, current, new.map(|row| ending(row, end)))
                });
            },
        ),
        m(
            "hv-redirect-past-its-end-lives",
            "HV-8",
            &["HV-5", "HV-2"],
            "a redirect that is written with an end which has come already is kept without one",
            |s| {
                s.stamp_redirect = Box::new(|place, tombstone| {
                    let now = place.clock_now();
                    let mut stored = tombstone.stamped(now)?;
                    if tombstone.time_expires.is_some_and(|end| end <= now) {
                        stored.time_expires = None;
                    }
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-plain-get-is-no-access",
            "HV-8",
            &["BK-2"],
            "`get_object` reads an object with a time to idle, and does not extend it",
            |s| {
                s.read = Box::new(|place, read, id| match read {
                    Read::Object => place.live(id),
                    _ => place.access(id),
                });
            },
        ),
    ]
}

fn paths() -> Vec<Mutant> {
    vec![
        m(
            "hv-swap-bound-ignored",
            "C-4",
            &["HV-5"],
            "an object above the declared bound is stored where it is swapped in",
            |s| {
                s.fit = Box::new(|_, _, payload| Ok(payload));
                s.stamp = Box::new(|place, path, metadata, payload| {
                    let is_above = len_u64(payload) > CAPS.high_volume.payload_len_bytes_max;
                    if is_above && path != Path::Swap {
                        return Err(invalid("a payload above the bound"));
                    }
                    Ok(metadata.stamped(place.clock_now(), len_u64(payload))?)
                });
            },
        ),
        m(
            "hv-swap-custom-dropped",
            "HV-9",
            &["HV-5"],
            "an object that is swapped in loses its custom entries",
            |s| {
                s.stamp = Box::new(|place, path, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    if path == Path::Swap {
                        stored.custom.clear();
                    }
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-nothing-expected-needs-absence",
            "HV-5",
            &["HV-6"],
            "an object or a delete that expects no redirect is refused where an inline object is",
            |s| {
                s.swap = Box::new(|place, id, current, new| {
                    let is_inline = matches!(place.live(id), Some(Row::Inline(..)));
                    if current.is_none() && is_inline && !matches!(new, Some(Row::Redirect(_))) {
                        return false;
                    }
                    place.swap(id, current, new)
                });
            },
        ),
    ]
}

fn neighbours() -> Vec<Mutant> {
    vec![
        m(
            "hv-close-ends-swaps-of-others",
            "C-2",
            &["HV-6", "HV-7"],
            "handles share a session, and a swap that is under way while one of them ends has lost",
            |s| {
                s.slow_swap = Some(Box::new(|place, id, current, new| {
                    async move {
                        let goes_on = stands_still(&place.counter).await;
                        let _step = lock(&place.step);
                        Ok(goes_on && place.swap(&id, current.as_ref(), new))
                    }
                    .boxed()
                }));
                s.close = Box::new(|place| {
                    place.counter.fetch_add(1, SeqCst);
                });
            },
        ),
        m(
            "hv-open-lists-for-a-moment-too-little",
            "C-2",
            &["HV-7", "HV-1"],
            "whoever opens the place builds the index of redirects anew, and a swap meanwhile does not come to be in it",
            |s| {
                // The number of the opening is that of the index.
                s.place.counter.fetch_add(1, SeqCst);
                s.slow_swap = Some(Box::new(|place, id, current, new| {
                    async move {
                        if !stands_still(&place.counter).await {
                            return Ok(true);
                        }
                        let _step = lock(&place.step);
                        Ok(place.swap(&id, current.as_ref(), new))
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

fn again() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "hv-swap-again-after-removal",
            "HV-7",
            &["HV-6", "C-1"],
            "a swap whose answer was lost is made again after a pause, as if the row were still what it expects",
            |s| {
                s.slow_swap = Some(Box::new(|place, id, current, new| {
                    async move {
                        let sent = place.medium.timed_again(|| {
                            let _step = lock(&place.step);
                            place.swap(&id, current.as_ref(), new.clone())
                        });
                        sent.await.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-put-inline-again-after-delete",
            "HV-7",
            &["HV-3", "C-1"],
            "an object in place of no redirect whose answer was lost is put again after a pause, be it deleted meanwhile",
            |s| {
                s.slow_put_inline = Some(Box::new(|place, id, row| {
                    async move {
                        let sent = place.medium.timed_again(|| {
                            let _step = lock(&place.step);
                            place.put_inline(&id, row.clone())
                        });
                        sent.await.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}
