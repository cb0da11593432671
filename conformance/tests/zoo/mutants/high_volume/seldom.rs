//! Wrong for few values and few names, or after calls in a certain order. All that is common is right.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use larder_conformance::model::high_volume::Row;
use larder_traits::{Metadata, ObjectId, Tombstone};

use super::m;
use crate::mutants::Mutant;
use crate::reference::high_volume::{Place, len_u64};
use crate::reference::lock;

pub(super) fn seldom() -> Vec<Mutant> {
    [names(), orders(), times()].into_iter().flatten().collect()
}

fn names() -> Vec<Mutant> {
    vec![
        m(
            "hv-swap-by-target-prefix",
            "HV-5",
            &["HV-7", "HV-9"],
            "a redirect whose target begins with the one that is expected counts as that one",
            |s| {
                s.swap = Box::new(|place, id, current, new| {
                    let live = place.redirect(id).map(|live| live.target);
                    match (live, current) {
                        (Some(live), Some(old))
                            if live.to_string().starts_with(&old.to_string()) =>
                        {
                            place.swap(id, Some(&live), new)
                        }
                        _ => place.swap(id, current, new),
                    }
                });
            },
        ),
        m(
            "hv-ids-empty-scopes",
            "HV-9",
            &[],
            "scopes without a value are left out of an id",
            |s| {
                let admit = std::mem::replace(&mut s.id, Box::new(|id| Ok(id.clone())));
                s.id = Box::new(move |id| {
                    let mut id = admit(id)?;
                    id.context.scopes.retain(|scope| !scope.value.is_empty());
                    Ok(id)
                });
            },
        ),
    ]
}

/// Whether the object lies where a redirect to `target` was overwritten by a plain put.
fn was_redirect_to(place: &Place, id: &ObjectId, target: &ObjectId) -> bool {
    let is_inline = matches!(place.live(id), Some(Row::Inline(..)));
    let column = lock(&place.notes).get(id).cloned();
    is_inline && matches!(column, Some(Row::Redirect(left)) if left.target == *target)
}

fn orders() -> Vec<Mutant> {
    vec![
        m(
            "hv-target-column-stays",
            "HV-5",
            &["HV-10", "HV-7"],
            "a plain put over a redirect leaves its target in a column of its own, and swaps compare with that",
            |s| {
                s.put = Box::new(|place, id, row| {
                    if let Some(redirect) = place.redirect(id) {
                        lock(&place.notes).insert(id.clone(), Row::Redirect(redirect));
                    }
                    place.write(id, row);
                    Ok(())
                });
                s.delete = Box::new(|place, id| {
                    lock(&place.notes).remove(id);
                    place.remove(id);
                    Ok(())
                });
                s.delete_inline = Box::new(|place, id| {
                    let redirect = place.delete_inline(id);
                    lock(&place.notes).remove(id);
                    redirect
                });
                s.swap = Box::new(|place, id, current, new| {
                    let answer = match (current, &new) {
                        (Some(old), Some(Row::Redirect(_))) if was_redirect_to(place, id, old) => {
                            place.swap(id, None, new)
                        }
                        _ => place.swap(id, current, new),
                    };
                    if !matches!(place.live(id), Some(Row::Inline(..))) {
                        lock(&place.notes).remove(id);
                    }
                    answer
                });
            },
        ),
        m(
            "hv-put-tells-first-redirect",
            "HV-1",
            &["HV-7", "C-2"],
            "a handle that an inline put has told of a redirect tells of it again, though it was swapped since",
            |s| {
                let told = Arc::new(Mutex::new(BTreeMap::<ObjectId, Tombstone>::new()));
                s.put_inline = Box::new(move |place, id, row| {
                    let mut told = lock(&told);
                    let Some(redirect) = place.put_inline(id, row) else {
                        told.remove(id);
                        return None;
                    };
                    Some(told.entry(id.clone()).or_insert(redirect).clone())
                });
            },
        ),
    ]
}

/// What is left of a moment in 32 bits of seconds.
fn in_32_bits(at: SystemTime) -> SystemTime {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let secs = since.as_secs() & 0xffff_ffff;
    SystemTime::UNIX_EPOCH + Duration::new(secs, since.subsec_nanos())
}

fn times() -> Vec<Mutant> {
    vec![
        m(
            "hv-deadline-32-bits",
            "HV-8",
            &["HV-9"],
            "the deadline of an object is kept in 32 bits of seconds, and wraps in the year 2106",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    stored.time_expires = stored.time_expires.map(in_32_bits);
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-swap-keeps-later-deadline",
            "HV-8",
            &["HV-5"],
            "a redirect that is swapped for another one hands its deadline on where that is later",
            |s| {
                s.swap = Box::new(|place, id, current, mut new| {
                    if let (Some(live), Some(old), Some(Row::Redirect(new))) =
                        (place.redirect(id), current, &mut new)
                        && live.target == *old
                        && new.time_expires.is_some()
                    {
                        new.time_expires = new.time_expires.max(live.time_expires);
                    }
                    place.swap(id, current, new)
                });
            },
        ),
        m(
            "hv-access-touches-created",
            "HV-9",
            &["HV-8", "BK-2"],
            "an access that moves the deadline of an object writes it anew, and it counts as created then",
            |s| {
                s.read = Box::new(|place, _, id| {
                    let found = place.access(id);
                    let now = place.clock_now();
                    let mut rows = lock(&place.rows);
                    if let (Some(Row::Inline(before, _)), Some(Row::Inline(after, _))) =
                        (&found, rows.get_mut(id))
                        && before.time_expires != after.time_expires
                        && let Ok(anew) = Metadata::new().stamped(now, 0)
                    {
                        after.time_created = anew.time_created;
                    }
                    drop(rows);
                    found
                });
            },
        ),
    ]
}
