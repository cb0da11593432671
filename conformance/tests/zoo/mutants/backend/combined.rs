//! Wrong only where two things meet that are right by themselves: a stream and a drop, a body and the end of its object, a
//! join and a call, metadata and a replacement, a name and an empty part.

use std::future::ready;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, stream};
use larder_conformance::Engine;
use larder_conformance::model::high_volume::Row;
use larder_traits::{BackendError, ErrorKind, Fault, Metadata, ObjectId};
use tokio::sync::Semaphore;

use super::{m, stored};
use crate::mutants::Mutant;
use crate::reference::high_volume::{Answer, Place, Read, Store, collect, invalid, len_u64};
use crate::reference::medium::PATIENCE;
use crate::reference::{Due, gap, lock, stands_still};

pub(super) fn combined() -> Vec<Mutant> {
    [
        streams(),
        slots(),
        bodies(),
        joins(),
        replacements(),
        names(),
        neighbours(),
        again(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn streams() -> Vec<Mutant> {
    vec![
        m(
            "bk-dropped-stream-stored",
            "BK-1",
            &["C-6", "BK-2"],
            "when a put is dropped while its stream goes on, what came before is stored",
            |s| {
                s.collect = Box::new(|place, id, mut stream, max| {
                    async move {
                        let came = Mutex::new(BytesMut::new());
                        let left = Due::new(|| {
                            let came = std::mem::take(&mut *lock(&came));
                            if !came.is_empty() {
                                place.write(&id, stored(came.freeze()));
                            }
                        });
                        let ended = loop {
                            match stream.next().await {
                                None => break Ok(()),
                                Some(Err(e)) => break Err(BackendError::Client(e)),
                                Some(Ok(piece)) => lock(&came).extend_from_slice(&piece),
                            }
                            if lock(&came).len() > max {
                                break Err(invalid("a payload above the bound"));
                            }
                        };
                        left.call_off();
                        ended.map(|()| lock(&came).split().freeze())
                    }
                    .boxed()
                });
            },
        )
        .awaiting(Engine::Cancel),
        m(
            "bk-uploads-of-one-id-mix",
            "BK-1",
            &["BK-2", "HV-7"],
            "an upload is kept by the id of its object, so that two of one object at a time go into one another",
            |s| {
                s.collect = Box::new(|place, id, mut stream, max| {
                    async move {
                        lock(&place.notes).insert(id.clone(), stored(Bytes::new()));
                        while let Some(piece) = stream.next().await {
                            let piece = piece.map_err(BackendError::Client)?;
                            let uploaded = upload(&place, &id);
                            if uploaded.len() + piece.len() > max {
                                return Err(invalid("a payload above the bound"));
                            }
                            let uploaded = [uploaded, piece].concat().into();
                            lock(&place.notes).insert(id.clone(), stored(uploaded));
                            gap().await;
                        }
                        Ok(upload(&place, &id))
                    }
                    .boxed()
                });
            },
        )
        .awaiting(Engine::Lin),
        m(
            "bk-upload-seen-empty",
            "BK-1",
            &["BK-2", "HV-7"],
            "a put makes an empty object where none is, and takes it away again only if its stream fails",
            |s| {
                s.collect = Box::new(|place, id, stream, max| {
                    async move {
                        let is_there = lock(&place.rows).contains_key(&id);
                        if is_there {
                            return collect(stream, max).await;
                        }
                        let placed = stored(Bytes::new());
                        place.write(&id, placed.clone());
                        let taken_away = Due::new(|| {
                            if place.live(&id) == Some(placed) {
                                place.remove(&id);
                            }
                        });
                        let payload = collect(stream, max).await?;
                        taken_away.call_off();
                        Ok(payload)
                    }
                    .boxed()
                });
            },
        )
        .awaiting(Engine::Lin),
    ]
}

/// What has been uploaded of an object so far.
fn upload(place: &Place, id: &ObjectId) -> Bytes {
    match lock(&place.notes).get(id) {
        Some(Row::Inline(_, payload)) => payload.clone(),
        _ => Bytes::new(),
    }
}

/// Reads streams in one of eight slots, which one that ended as `keeps` says does not give back.
fn in_slots(s: &mut Store, keeps: fn(Option<&Answer<Bytes>>) -> bool) {
    let slots = Arc::new(Semaphore::new(8));
    s.collect = Box::new(move |_, _, stream, max| {
        let slots = Arc::clone(&slots);
        async move {
            let slot = tokio::time::timeout(PATIENCE, slots.acquire()).await;
            let Ok(Ok(slot)) = slot else {
                let why = "no slot has become free";
                return Err(Fault::not_applied(ErrorKind::Timeout, why).into());
            };
            slot.forget();
            let dropped = Due::new(|| {
                if !keeps(None) {
                    slots.add_permits(1);
                }
            });
            let ended = collect(stream, max).await;
            dropped.call_off();
            if !keeps(Some(&ended)) {
                slots.add_permits(1);
            }
            ended
        }
        .boxed()
    });
}

fn slots() -> Vec<Mutant> {
    vec![
        m(
            "bk-drop-of-upload-keeps-slot",
            "C-6",
            &["C-4", "BK-1"],
            "a put that is dropped while its stream goes on does not give its slot back, and of eight none is left",
            |s| in_slots(s, |ended| ended.is_none()),
        )
        .awaiting(Engine::Cancel),
        m(
            "bk-failed-stream-keeps-slot",
            "BK-1",
            &["C-4", "C-6"],
            "a put whose stream fails does not give its slot back, and of eight none is left",
            |s| in_slots(s, |ended| matches!(ended, Some(Err(BackendError::Client(_))))),
        ),
    ]
}

/// A body that ends, without an error, before its next piece if `is_over` says so of the row by then.
fn cut_short(s: &mut Store, is_over: fn(&Place, &ObjectId) -> bool) {
    let asked = Arc::new(Mutex::new(None::<ObjectId>));
    let id = Arc::clone(&asked);
    s.read = Box::new(move |place, read, id| {
        if matches!(read, Read::Object | Read::TieredObject) {
            *lock(&asked) = Some(id.clone());
        }
        place.access(id)
    });
    let place = Arc::clone(&s.place);
    s.stream = Box::new(move |payload, _| {
        let (place, id) = (Arc::clone(&place), lock(&id).clone());
        let pieces: Vec<_> = payload
            .chunks(64 << 10)
            .map(|piece| payload.slice_ref(piece))
            .collect();
        let goes_on = move |(number, _): &(usize, Bytes)| {
            let ends = id.as_ref().is_some_and(|id| is_over(&place, id));
            ready(*number == 0 || !ends)
        };
        stream::iter(pieces.into_iter().enumerate())
            .take_while(goes_on)
            .map(|(_, piece)| Ok(piece))
            .boxed()
    });
}

fn bodies() -> Vec<Mutant> {
    vec![
        m(
            "bk-body-ends-at-delete",
            "BK-2",
            &["BK-1", "BK-3"],
            "a body that is being read ends where its object is deleted, without an error",
            |s| cut_short(s, |place, id| !lock(&place.rows).contains_key(id)),
        ),
        m(
            "bk-body-ends-at-expiry",
            "BK-2",
            &["HV-8"],
            "a body that is being read ends where its object does, without an error",
            |s| {
                cut_short(s, |place, id| {
                    let now = place.clock_now();
                    let rows = lock(&place.rows);
                    rows.get(id).is_some_and(|row| row.is_expired(now))
                });
            },
        )
        .awaiting(Engine::Time),
    ]
}

fn joins() -> Vec<Mutant> {
    fn counted(s: &mut Store) {
        s.is_idle = |place| place.counter.load(SeqCst) == 0;
        s.collect = Box::new(move |place, _, stream, max| {
            async move {
                place.counter.fetch_add(1, SeqCst);
                let is_over = Due::new(|| {
                    place.counter.fetch_sub(1, SeqCst);
                });
                let dropped = Due::new(|| {
                    place.counter.fetch_add(1, SeqCst);
                });
                let ended = collect(stream, max).await;
                dropped.call_off();
                is_over.settle();
                ended
            }
            .boxed()
        });
    }
    vec![
        m(
            "bk-join-waits-for-dropped-stream",
            "BK-5",
            &["C-6", "BK-1"],
            "an upload counts as work in the background until its stream has ended, and one that is dropped never ends",
            counted,
        )
        .awaiting(Engine::Cancel)
        .hanging(),
    ]
}

fn replacements() -> Vec<Mutant> {
    vec![
        m(
            "bk-created-of-first",
            "BK-1",
            &["HV-9", "BK-2"],
            "an object that is replaced keeps the time of its creation, unless the put gives another one",
            |s| {
                s.put = Box::new(|place, id, mut row| {
                    let now = place.clock_now();
                    if let (Some(Row::Inline(old, _)), Row::Inline(new, _)) =
                        (place.live(id), &mut row)
                        && let Some(created) = new.time_created
                        && now
                            .duration_since(created)
                            .is_ok_and(|since| since < Duration::from_millis(1))
                    {
                        new.time_created = old.time_created;
                    }
                    place.write(id, row);
                    Ok(())
                });
            },
        ),
        m(
            "bk-manual-keeps-old-end",
            "HV-8",
            &["BK-1", "HV-9"],
            "an object under Manual that replaces one with an end gets that end",
            |s| {
                s.put = Box::new(|place, id, mut row| {
                    if let (Some(Row::Inline(old, _)), Row::Inline(new, _)) =
                        (place.live(id), &mut row)
                    {
                        new.time_expires = new.time_expires.or(old.time_expires);
                    }
                    place.write(id, row);
                    Ok(())
                });
            },
        ),
        // As where an object of no bytes is what stands for a folder.
        m(
            "bk-empty-object-is-a-folder",
            "HV-9",
            &["BK-2"],
            "an object of no bytes is taken for a folder, and has neither a media type nor entries of its own",
            |s| {
                s.stamp = Box::new(|place, _, metadata: &Metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    if payload.is_empty() {
                        stored.content_type = Some("application/x-directory".to_owned());
                        stored.custom.clear();
                    }
                    Ok(stored)
                });
            },
        ),
    ]
}

fn names() -> Vec<Mutant> {
    vec![
        m(
            "bk-delete-of-empty-key-empties-context",
            "BK-3",
            &["HV-9"],
            "an object with an empty key lies where its context does, and a delete of it removes all objects there",
            |s| {
                s.delete = Box::new(|place, id| {
                    if id.key.is_empty() {
                        lock(&place.rows).retain(|other, _| other.context != id.context);
                    }
                    place.remove(id);
                    Ok(())
                });
            },
        ),
        // As with tags, of which an object has ten at most.
        m(
            "bk-custom-ten-entries",
            "HV-9",
            &["BK-2"],
            "of an object's custom entries the first ten are kept",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    while stored.custom.len() > 10 {
                        stored.custom.pop_last();
                    }
                    Ok(stored)
                });
            },
        ),
    ]
}

fn neighbours() -> Vec<Mutant> {
    vec![
        m(
            "bk-close-ends-puts-of-others",
            "C-2",
            &["BK-1"],
            "handles share a pool of connections, and the end of one of them ends the puts that others have under way",
            |s| {
                s.slow_put = Some(Box::new(|place, id, row| {
                    async move {
                        if !stands_still(&place.counter).await {
                            let why = "the pool was closed";
                            return Err(Fault::not_applied(ErrorKind::Closed, why).into());
                        }
                        place.write(&id, row);
                        Ok(())
                    }
                    .boxed()
                }));
                s.close = Box::new(|place| {
                    place.counter.fetch_add(1, SeqCst);
                });
            },
        ),
        // As the sweep of unfinished uploads at a start, where others are at work.
        m(
            "bk-open-sweeps-uploads",
            "C-2",
            &["BK-1"],
            "opening a place sweeps its uploads, those under way among them, and such a put takes its own for done",
            |s| {
                lock(&s.place.notes).clear();
                s.slow_put = Some(Box::new(|place, id, row| {
                    async move {
                        lock(&place.notes).insert(id.clone(), row);
                        gap().await;
                        if let Some(row) = lock(&place.notes).remove(&id) {
                            place.write(&id, row);
                        }
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bk-close-cuts-bodies-of-others",
            "C-2",
            &["BK-1", "BK-2"],
            "a get that is under way while a handle is closed finds nothing",
            |s| {
                s.slow_read = Some(Box::new(|place, _, id| {
                    async move {
                        let is_same = stands_still(&place.counter).await;
                        Ok(is_same.then(|| place.access(&id)).flatten())
                    }
                    .boxed()
                }));
                s.close = Box::new(|place| {
                    place.counter.fetch_add(1, SeqCst);
                });
            },
        ),
    ]
}

fn again() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "bk-put-again-over-newer",
            "BK-1",
            &["C-1", "HV-7"],
            "a put whose answer was lost is made again after a pause, over what others have put meanwhile",
            |s| {
                s.slow_put = Some(Box::new(|place, id, row| {
                    async move {
                        let sent = place.medium.timed_again(|| {
                            let _step = lock(&place.step);
                            place.write(&id, row.clone());
                        });
                        sent.await.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bk-delete-again-over-newer",
            "BK-1",
            &["C-1", "HV-7", "BK-3"],
            "a delete whose answer was lost is made again after a pause, over what others have put meanwhile",
            |s| {
                s.slow_delete = Some(Box::new(|place, id| {
                    async move {
                        let sent = place.medium.timed_again(|| {
                            let _step = lock(&place.step);
                            place.remove(&id);
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
