//! Broken `HighVolumeBackend`s.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_conformance::model::high_volume::Row;
use larder_conformance::{Caps, Contract};
use larder_traits::{
    BackendError, ErrorKind, Fault, HighVolumeCaps, Metadata, ObjectId, Tombstone,
};

use super::Mutant;
use crate::reference::high_volume::{
    Bend, CAPS, Place, Read, invalid, len_u64, suite, unsupported,
};
use crate::reference::lock;

mod bystanders;
mod combined;
mod concurrent;
mod dropped;
mod expiry;
mod failing;
mod field;
mod neighbours;
mod seldom;
mod shape;
mod swaps;
mod timed;

pub(crate) fn all() -> Vec<Mutant> {
    [
        inline(),
        tiered(),
        swaps::swaps(),
        expiry::expiry(),
        shape::shape(),
        plain(),
        extras(),
        handles(),
        bounds(),
        concurrent::concurrent(),
        dropped::dropped(),
        bystanders::bystanders(),
        failing::failing(),
        neighbours::neighbours(),
        seldom::seldom(),
        field::field(),
        combined::combined(),
        timed::timed(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn with_caps(
    caps: Caps,
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    Mutant {
        id,
        contract: Contract::HighVolume,
        breaks,
        also,
        about,
        awaits: None,
        hangs: false,
        panics: false,
        suite: Box::new(move || suite(caps, bend)),
    }
}

fn m(
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    with_caps(CAPS, id, breaks, also, about, bend)
}

/// The row as it lies there, dead or alive.
fn raw(place: &Place, id: &ObjectId) -> Option<Row> {
    lock(&place.rows).get(id).cloned()
}

fn raw_redirect(place: &Place, id: &ObjectId) -> Option<Tombstone> {
    match raw(place, id) {
        Some(Row::Redirect(tombstone)) => Some(tombstone),
        _ => None,
    }
}

fn inline() -> Vec<Mutant> {
    vec![
        m(
            "hv-put-blind",
            "HV-1",
            &[],
            "an inline put overwrites a live redirect",
            |s| {
                s.put_inline = Box::new(|place, id, row| {
                    place.write(id, row);
                    None
                });
            },
        ),
        m(
            "hv-put-blind-told",
            "HV-1",
            &[],
            "an inline put tells of the redirect, and overwrites it",
            |s| {
                s.put_inline = Box::new(|place, id, row| {
                    let redirect = place.redirect(id);
                    place.write(id, row);
                    redirect
                });
            },
        ),
        m(
            "hv-put-skipped-untold",
            "HV-1",
            &[],
            "an inline put on a redirect does nothing and says that it stored",
            |s| {
                s.put_inline = Box::new(|place, id, row| {
                    place.put_inline(id, row);
                    None
                });
            },
        ),
        m(
            "hv-put-if-absent",
            "HV-1",
            &[],
            "an inline put does not replace an inline object",
            |s| {
                s.put_inline = Box::new(|place, id, row| {
                    if place.live(id).is_some() {
                        return place.redirect(id);
                    }
                    place.put_inline(id, row)
                });
            },
        ),
        m(
            "hv-put-tells-itself",
            "HV-1",
            &[],
            "an inline put on a redirect names the row instead of the target",
            |s| {
                s.put_inline = Box::new(|place, id, row| {
                    let redirect = place.put_inline(id, row)?;
                    Some(Tombstone::new(id.clone(), redirect.expiration_policy))
                });
            },
        ),
        m(
            "hv-put-expired-redirect",
            "HV-1",
            &["HV-8"],
            "an expired redirect still forbids an inline put",
            |s| {
                s.put_inline = Box::new(|place, id, row| {
                    raw_redirect(place, id).or_else(|| place.put_inline(id, row))
                });
            },
        ),
        m(
            "hv-delete-redirect",
            "HV-4",
            &[],
            "an inline delete removes a live redirect, and tells of it",
            |s| {
                s.delete_inline = Box::new(|place, id| {
                    let redirect = place.redirect(id);
                    place.remove(id);
                    redirect
                });
            },
        ),
        m(
            "hv-delete-redirect-untold",
            "HV-4",
            &[],
            "an inline delete on a redirect says that the row is gone",
            |s| {
                s.delete_inline = Box::new(|place, id| {
                    place.delete_inline(id);
                    None
                });
            },
        ),
        m(
            "hv-delete-inline-kept",
            "HV-4",
            &[],
            "an inline delete keeps an inline object",
            |s| {
                s.delete_inline = Box::new(|place, id| place.redirect(id));
            },
        ),
        m(
            "hv-delete-expired-redirect",
            "HV-4",
            &["HV-8"],
            "an inline delete tells of an expired redirect",
            |s| {
                s.delete_inline = Box::new(|place, id| {
                    raw_redirect(place, id).or_else(|| place.delete_inline(id))
                });
            },
        ),
    ]
}

fn tiered() -> Vec<Mutant> {
    vec![
        m(
            "hv-get-redirect-absent",
            "HV-2",
            &[],
            "a redirect reads as no row",
            |s| {
                s.read = Box::new(|place, read, id| {
                    place
                        .access(id)
                        .filter(|row| read != Read::TieredObject || matches!(row, Row::Inline(..)))
                });
            },
        ),
        m(
            "hv-get-redirect-as-object",
            "HV-2",
            &[],
            "a redirect reads as an object without bytes",
            |s| {
                s.read = Box::new(|place, read, id| match (read, place.access(id)?) {
                    (Read::TieredObject, Row::Redirect(_)) => {
                        Some(Row::Inline(Metadata::new(), Bytes::new()))
                    }
                    (_, row) => Some(row),
                });
            },
        ),
        m(
            "hv-get-empty-absent",
            "HV-2",
            &["BK-2"],
            "an inline object without bytes reads as no row",
            |s| {
                s.read = Box::new(|place, _, id| {
                    place
                        .access(id)
                        .filter(|row| !matches!(row, Row::Inline(_, payload) if payload.is_empty()))
                });
            },
        ),
        m(
            "hv-metadata-redirect-absent",
            "HV-3",
            &[],
            "the metadata of a redirect reads as no row",
            |s| {
                s.read = Box::new(|place, read, id| {
                    place.access(id).filter(|row| {
                        read != Read::TieredMetadata || matches!(row, Row::Inline(..))
                    })
                });
            },
        ),
        m(
            "hv-metadata-redirect-as-object",
            "HV-3",
            &[],
            "the metadata of a redirect reads as that of an object",
            |s| {
                s.read = Box::new(|place, read, id| match (read, place.access(id)?) {
                    (Read::TieredMetadata, Row::Redirect(redirect)) => Some(Row::Inline(
                        Metadata::with_policy(redirect.expiration_policy),
                        Bytes::new(),
                    )),
                    (_, row) => Some(row),
                });
            },
        ),
        m(
            "hv-metadata-not-deleted",
            "HV-3",
            &["HV-4", "HV-5"],
            "the metadata of a row outlives it",
            |s| {
                s.read = Box::new(|place, read, id| match (read, place.access(id)) {
                    (Read::TieredMetadata, None) => lock(&place.notes).get(id).cloned(),
                    (_, found) => {
                        if let Some(row) = &found {
                            lock(&place.notes).insert(id.clone(), row.clone());
                        }
                        found
                    }
                });
            },
        ),
        m(
            "hv-redirect-target-cut",
            "HV-2",
            &["HV-3", "HV-5", "HV-9"],
            "the context of a redirect's target is taken from the row",
            |s| {
                s.read = Box::new(|place, _, id| {
                    let mut row = place.access(id)?;
                    if let Row::Redirect(redirect) = &mut row {
                        redirect.target.context.clone_from(&id.context);
                    }
                    Some(row)
                });
            },
        ),
    ]
}

fn to_seconds(at: SystemTime) -> SystemTime {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn plain() -> Vec<Mutant> {
    vec![
        m(
            "hv-plain-get-absent",
            "HV-10",
            &[],
            "`get_object` of a redirect is absent",
            |s| {
                s.plain = Box::new(|_, _, row| match row {
                    Row::Inline(metadata, payload) => Ok(Some((metadata, payload))),
                    Row::Redirect(_) => Ok(None),
                });
            },
        ),
        m(
            "hv-plain-metadata-of-redirect",
            "HV-10",
            &[],
            "`get_metadata` of a redirect answers with what the redirect knows",
            |s| {
                s.plain = Box::new(|_, read, row| match row {
                    Row::Inline(metadata, payload) => Ok(Some((metadata, payload))),
                    Row::Redirect(redirect) if read == Read::Metadata => Ok(Some((
                        Metadata::with_policy(redirect.expiration_policy),
                        Bytes::new(),
                    ))),
                    Row::Redirect(redirect) => {
                        Err(BackendError::UnexpectedTombstone(Box::new(redirect)))
                    }
                });
            },
        ),
        m(
            "hv-plain-get-unnamed",
            "HV-10",
            &["C-1"],
            "`get_object` of a redirect is an error that does not name it",
            |s| {
                s.plain = Box::new(|_, _, row| match row {
                    Row::Inline(metadata, payload) => Ok(Some((metadata, payload))),
                    Row::Redirect(_) => {
                        Err(Fault::not_applied(ErrorKind::Internal, "no payload").into())
                    }
                });
            },
        ),
        m(
            "hv-plain-put-refused",
            "HV-10",
            &[],
            "`put_object` on a redirect is refused",
            |s| {
                s.put = Box::new(|place, id, row| match place.put_inline(id, row) {
                    Some(redirect) => Err(BackendError::UnexpectedTombstone(Box::new(redirect))),
                    None => Ok(()),
                });
            },
        ),
        m(
            "hv-plain-put-skipped",
            "HV-10",
            &[],
            "`put_object` on a redirect is Ok, and the redirect stays",
            |s| {
                s.put = Box::new(|place, id, row| {
                    place.put_inline(id, row);
                    Ok(())
                });
            },
        ),
        m(
            "hv-plain-delete-skipped",
            "HV-10",
            &[],
            "`delete_object` leaves a redirect",
            |s| {
                s.delete = Box::new(|place, id| {
                    place.delete_inline(id);
                    Ok(())
                });
            },
        ),
    ]
}

fn extras() -> Vec<Mutant> {
    const LEAST: Caps = CAPS.with_high_volume(
        HighVolumeCaps::LEAST
            .with_payload_len_bytes_max(2 << 20)
            .with_id_len_bytes_max(2048),
    );
    vec![
        with_caps(
            LEAST,
            "hv-fence-undeclared",
            "HV-6",
            &[],
            "a fence that is not declared is Ok without effect",
            |s| {
                s.fence = Box::new(|_| Ok(()));
            },
        ),
        m(
            "hv-fence-unsupported",
            "HV-6",
            &[],
            "a fence is declared, and Unsupported",
            |s| {
                s.fence = Box::new(|_| Err(unsupported()));
            },
        ),
        with_caps(
            LEAST,
            "hv-extend-undeclared",
            "HV-8",
            &[],
            "an extension that is not declared is Ok without effect",
            |s| {
                s.extend = Box::new(|_, _, _, _| Ok(true));
            },
        ),
        m(
            "hv-extend-unsupported",
            "HV-8",
            &[],
            "an extension is declared, and Unsupported",
            |s| {
                s.extend = Box::new(|_, _, _, _| Err(unsupported()));
            },
        ),
        m(
            "hv-extend-without-effect",
            "HV-8",
            &[],
            "an extension is declared, and moves nothing",
            |s| {
                s.extend = Box::new(|place, id, target, _| {
                    Ok(place
                        .redirect(id)
                        .is_some_and(|live| live.target == *target))
                });
            },
        ),
        with_caps(
            LEAST,
            "hv-fence-wrong-kind",
            "HV-6",
            &["C-1"],
            "a fence that is not declared is an internal error",
            |s| {
                s.fence = Box::new(|_| {
                    Err(Fault::not_applied(ErrorKind::Internal, "not implemented").into())
                });
            },
        ),
    ]
}

fn handles() -> Vec<Mutant> {
    vec![
        m(
            "hv-read-cache",
            "C-2",
            &["HV-7", "HV-5"],
            "a handle remembers the rows that it read until it writes itself",
            |s| {
                let cache = Arc::new(Mutex::new(BTreeMap::<ObjectId, Option<Row>>::new()));
                let caches: [_; 5] = std::array::from_fn(|_| Arc::clone(&cache));
                let [put, delete, put_inline, delete_inline, swap] = caches;
                s.read = Box::new(move |place, _, id| {
                    lock(&cache)
                        .entry(id.clone())
                        .or_insert_with(|| place.access(id))
                        .clone()
                });
                s.put = Box::new(move |place, id, row| {
                    lock(&put).remove(id);
                    place.write(id, row);
                    Ok(())
                });
                s.delete = Box::new(move |place, id| {
                    lock(&delete).remove(id);
                    place.remove(id);
                    Ok(())
                });
                s.put_inline = Box::new(move |place, id, row| {
                    lock(&put_inline).remove(id);
                    place.put_inline(id, row)
                });
                s.delete_inline = Box::new(move |place, id| {
                    lock(&delete_inline).remove(id);
                    place.delete_inline(id)
                });
                s.swap = Box::new(move |place, id, current, new| {
                    lock(&swap).remove(id);
                    place.swap(id, current, new)
                });
            },
        ),
        m(
            "hv-open-truncates",
            "C-2",
            &["HV-7", "BK-2"],
            "opening a place empties it",
            |s| lock(&s.place.rows).clear(),
        ),
        m(
            "hv-close-clears",
            "C-2",
            &["HV-7", "BK-2"],
            "closing one handle removes the place under the others",
            |s| {
                s.close = Box::new(|place| lock(&place.rows).clear());
            },
        ),
        m(
            "hv-own-last-swap-is-won",
            "HV-6",
            &["HV-5", "HV-7"],
            "a handle takes the swap that it has won last for a repeated one, whatever others have made of the row since",
            |s| {
                let won = Arc::new(Mutex::new(BTreeMap::new()));
                let forgets = |won: &Arc<Mutex<BTreeMap<ObjectId, _>>>| {
                    let won = Arc::clone(won);
                    move |id: &ObjectId| drop(lock(&won).remove(id))
                };
                let [put, delete, put_inline, delete_inline] = [(); 4].map(|()| forgets(&won));
                s.put = Box::new(move |place, id, row| {
                    put(id);
                    place.write(id, row);
                    Ok(())
                });
                s.delete = Box::new(move |place, id| {
                    delete(id);
                    place.remove(id);
                    Ok(())
                });
                s.put_inline = Box::new(move |place, id, row| {
                    put_inline(id);
                    place.put_inline(id, row)
                });
                s.delete_inline = Box::new(move |place, id| {
                    delete_inline(id);
                    place.delete_inline(id)
                });
                s.swap = Box::new(move |place, id, current, new| {
                    let swap = (current.cloned(), new.clone());
                    let mut won = lock(&won);
                    if won.get(id) == Some(&swap) {
                        return true;
                    }
                    won.remove(id);
                    let is_won = place.swap(id, current, new);
                    if is_won {
                        won.insert(id.clone(), swap);
                    }
                    is_won
                });
            },
        ),
        m(
            "hv-swap-on-first-handle",
            "C-2",
            &["HV-7", "HV-5"],
            "a swap through a second handle wins and is not stored",
            |s| {
                if s.place.counter.fetch_add(1, SeqCst) % 2 == 1 {
                    s.swap = Box::new(|place, id, current, new| {
                        let before = raw(place, id);
                        let answer = place.swap(id, current, new);
                        match before {
                            Some(row) => place.write(id, row),
                            None => place.remove(id),
                        }
                        answer
                    });
                }
            },
        ),
    ]
}

fn bounds() -> Vec<Mutant> {
    const MAX: u64 = CAPS.high_volume.payload_len_bytes_max;
    vec![
        m(
            "hv-payload-bound-late",
            "C-4",
            &["HV-1"],
            "a payload above the bound is refused after the old row was removed",
            |s| {
                s.fit = Box::new(|place, id, payload| {
                    if len_u64(&payload) > MAX {
                        place.remove(id);
                        return Err(invalid("a payload above the bound"));
                    }
                    Ok(payload)
                });
            },
        ),
        m(
            "hv-payload-bound-cut",
            "C-4",
            &["HV-1", "BK-2"],
            "a payload above the bound is cut to it",
            |s| {
                s.fit = Box::new(|_, _, payload| {
                    let max = usize::try_from(MAX).expect("the bound is small");
                    Ok(payload.slice(..payload.len().min(max)))
                });
            },
        ),
        m(
            "hv-payload-bound-excluded",
            "C-4",
            &["HV-1", "BK-2", "HV-5"],
            "a payload of exactly the bound is refused",
            |s| {
                s.fit = Box::new(|_, _, payload| {
                    if len_u64(&payload) >= MAX {
                        return Err(invalid("a payload at the bound"));
                    }
                    Ok(payload)
                });
            },
        ),
        m(
            "hv-id-bound-cut",
            "C-4",
            &["HV-9"],
            "an id above the bound is cut to it",
            |s| {
                s.id = Box::new(|id| {
                    let mut id = id.clone();
                    while id.to_string().len() > CAPS.high_volume.id_len_bytes_max
                        && id.key.pop().is_some()
                    {}
                    Ok(id)
                });
            },
        ),
        m(
            "hv-id-bound-wrong-kind",
            "C-4",
            &["C-1"],
            "an id above the bound is an internal error",
            |s| {
                s.id = Box::new(|id| {
                    if id.to_string().len() > CAPS.high_volume.id_len_bytes_max {
                        return Err(
                            Fault::not_applied(ErrorKind::Internal, "row key too long").into()
                        );
                    }
                    Ok(id.clone())
                });
            },
        ),
    ]
}
