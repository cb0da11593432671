//! Wrong for few objects and few streams, or after calls in a certain order. All that is common is right.

use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use futures_util::{FutureExt, StreamExt, stream};
use larder_conformance::model::high_volume::Row;
use larder_traits::{BackendError, ErrorKind, Fault, Metadata};

use super::m;
use crate::mutants::Mutant;
use crate::reference::high_volume::{Path, Read, Store, collect, len_u64, pieces};
use crate::reference::lock;

pub(super) fn seldom() -> Vec<Mutant> {
    [objects(), streams(), orders()]
        .into_iter()
        .flatten()
        .collect()
}

/// What the put that comes next was told of its object.
fn told(s: &mut Store) -> Arc<Mutex<Option<(Metadata, Metadata)>>> {
    let told = Arc::new(Mutex::new(None));
    let next = Arc::clone(&told);
    s.stamp = Box::new(move |place, path, metadata, payload| {
        let stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
        if path == Path::Put {
            *lock(&next) = Some((metadata.clone(), stored.clone()));
        }
        Ok(stored)
    });
    told
}

fn objects() -> Vec<Mutant> {
    vec![
        m(
            "bk-custom-merged",
            "BK-1",
            &["BK-2", "HV-9"],
            "a put over an object keeps those of the old custom entries that it has none for",
            |s| {
                s.put = Box::new(|place, id, mut row| {
                    if let (Some(Row::Inline(old, _)), Row::Inline(new, _)) =
                        (place.live(id), &mut row)
                    {
                        for (name, value) in old.custom {
                            new.custom.entry(name).or_insert(value);
                        }
                    }
                    place.write(id, row);
                    Ok(())
                });
            },
        ),
        m(
            "bk-custom-named-as-field",
            "HV-9",
            &["BK-2"],
            "fields and custom entries are headers without a prefix, so that an entry named as a field becomes it",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    let Metadata {
                        custom,
                        content_type,
                        origin,
                        filename,
                        ..
                    } = &mut stored;
                    for (name, field) in [
                        ("content-type", content_type),
                        ("origin", origin),
                        ("filename", filename),
                    ] {
                        if let Some(value) = custom.remove(name) {
                            *field = Some(value);
                        }
                    }
                    Ok(stored)
                });
            },
        ),
    ]
}

fn streams() -> Vec<Mutant> {
    vec![
        m(
            "bk-stops-at-told-size",
            "BK-2",
            &["BK-1", "HV-9"],
            "a put that is told a size reads so many bytes of its stream, and neither more nor an error behind them",
            |s| {
                let told = told(s);
                s.collect = Box::new(move |_, _, stream, max| {
                    let size = lock(&told).take().and_then(|(asked, _)| asked.size);
                    let Some(size) = size.and_then(|size| usize::try_from(size).ok()) else {
                        return collect(stream, max).boxed();
                    };
                    let mut left = size;
                    let upto = stream.map(move |piece| {
                        piece.map(|mut piece| {
                            piece.truncate(left);
                            left -= piece.len();
                            (piece, left == 0)
                        })
                    });
                    let mut is_over = size == 0;
                    let upto = upto.take_while(move |piece| {
                        let goes_on = !is_over;
                        is_over |= matches!(piece, Ok((_, true)));
                        ready(goes_on)
                    });
                    collect(upto.map(|piece| piece.map(|(piece, _)| piece)).boxed(), max).boxed()
                });
            },
        ),
        m(
            "bk-failed-stream-leaves-metadata",
            "BK-1",
            &["BK-2"],
            "metadata is written before the stream is read, and stays with the old payload where that fails",
            |s| {
                let told = told(s);
                s.collect = Box::new(move |place, id, stream, max| {
                    let stored = lock(&told).take().map(|(_, stored)| stored);
                    async move {
                        let ended = collect(stream, max).await;
                        if let (Err(BackendError::Client(_)), Some(mut stored)) = (&ended, stored)
                            && let Some(Row::Inline(old, payload)) = place.live(&id)
                        {
                            stored.size = old.size;
                            place.write(&id, Row::Inline(stored, payload));
                        }
                        ended
                    }
                    .boxed()
                });
            },
        ),
        m(
            "bk-empty-stream-keeps-payload",
            "BK-1",
            &["BK-2"],
            "a put replaces the payload with its first chunk; where none comes the old one stays under the new metadata",
            |s| {
                s.put = Box::new(|place, id, row| {
                    let row = match (place.live(id), row) {
                        (Some(Row::Inline(old, kept)), Row::Inline(mut new, payload))
                            if payload.is_empty() =>
                        {
                            new.size = old.size;
                            Row::Inline(new, kept)
                        }
                        (_, row) => row,
                    };
                    place.write(id, row);
                    Ok(())
                });
            },
        ),
        m(
            "bk-unread-body-keeps-connection",
            "C-6",
            &["BK-2", "C-4"],
            "a body gives its connection back when it was read to its end, and of eight one that is dropped before never does",
            |s| {
                const CONNECTIONS: usize = 8;
                let taken = Arc::new(AtomicUsize::new(0));
                let taking = Arc::clone(&taken);
                s.plain = Box::new(move |_, read, row| match row {
                    Row::Inline(..)
                        if read == Read::Object && taken.load(SeqCst) >= CONNECTIONS =>
                    {
                        let why = "no connection has become free";
                        Err(Fault::not_applied(ErrorKind::Timeout, why).into())
                    }
                    Row::Inline(metadata, payload) => Ok(Some((metadata, payload))),
                    Row::Redirect(redirect) => {
                        Err(BackendError::UnexpectedTombstone(Box::new(redirect)))
                    }
                });
                s.stream = Box::new(move |payload, medium| {
                    taking.fetch_add(1, SeqCst);
                    let given_back = Arc::clone(&taking);
                    let end = stream::once(async move {
                        given_back.fetch_sub(1, SeqCst);
                        None
                    });
                    pieces(&payload, medium)
                        .chain(end.filter_map(ready))
                        .boxed()
                });
            },
        ),
    ]
}

fn orders() -> Vec<Mutant> {
    vec![m(
        "bk-deadline-outlives-delete",
        "HV-8",
        &["BK-3", "BK-1", "BK-2"],
        "a delete leaves the deadline of the object in an index, and at that time an object made anew under Manual is removed",
        |s| {
            s.put = Box::new(|place, id, row| {
                let is_there = place.live(id).is_some();
                let has_end = matches!(&row, Row::Inline(it, _) if it.time_expires.is_some());
                if is_there || has_end {
                    lock(&place.notes).remove(id);
                }
                place.write(id, row);
                Ok(())
            });
            s.delete = Box::new(|place, id| {
                if let Some(row @ Row::Inline(..)) = place.live(id) {
                    lock(&place.notes).insert(id.clone(), row);
                }
                place.remove(id);
                Ok(())
            });
            s.read = Box::new(|place, _, id| {
                let now = place.clock_now();
                let is_due = lock(&place.notes)
                    .get(id)
                    .is_some_and(|row| row.is_expired(now));
                if is_due {
                    lock(&place.notes).remove(id);
                    place.remove(id);
                }
                place.access(id)
            });
        },
    )]
}
