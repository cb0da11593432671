//! What stores of this kind have had wrong in the field: with ends that move, swaps that look like repeats, and headers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use larder_conformance::model::high_volume::Row;
use larder_traits::{ErrorKind, ExpirationPolicy, Fault, Metadata, ObjectId};

use super::m;
use crate::mutants::Mutant;
use crate::reference::high_volume::{Place, Read, len_u64};
use crate::reference::lock;

pub(super) fn field() -> Vec<Mutant> {
    [swaps(), idle(), extensions(), shape(), handles()]
        .into_iter()
        .flatten()
        .collect()
}

fn swaps() -> Vec<Mutant> {
    vec![
        m(
            "hv-swap-to-itself-unlooked",
            "HV-5",
            &["HV-6"],
            "a swap of a redirect for one to the same target has nothing to do, and is won whatever is there",
            |s| {
                s.swap = Box::new(|place, id, current, new| match (current, &new) {
                    (Some(old), Some(Row::Redirect(new))) if new.target == *old => true,
                    _ => place.swap(id, current, new),
                });
            },
        ),
        m(
            "hv-swap-empty-object-deletes",
            "HV-5",
            &["HV-2", "HV-9"],
            "an object of no bytes that is swapped in is taken for a delete",
            |s| {
                s.swap = Box::new(
                    |place, id, current, new| match (place.redirect(id), current) {
                        (Some(live), Some(old)) if live.target == *old => {
                            let is_empty =
                                matches!(&new, Some(Row::Inline(_, payload)) if payload.is_empty());
                            place.swap(id, current, new.filter(|_| !is_empty))
                        }
                        _ => place.swap(id, current, new),
                    },
                );
            },
        ),
        m(
            "hv-repeat-later-is-conflict",
            "HV-6",
            &["HV-5"],
            "a redirect is its own only if its end is the same too, so that a repeat that comes later is a conflict",
            |s| {
                s.swap = Box::new(|place, id, current, new| match (place.redirect(id), &new) {
                    (Some(live), Some(Row::Redirect(new)))
                        if live.target == new.target
                            && live.expiration_policy == new.expiration_policy
                            && live.time_expires != new.time_expires
                            && current != Some(&live.target) =>
                    {
                        false
                    }
                    _ => place.swap(id, current, new),
                });
            },
        ),
        m(
            "hv-repeat-extends",
            "HV-5",
            &["HV-6", "HV-8"],
            "a repeat of a swap that was won moves the end of its redirect to where a new one would have it",
            |s| {
                s.swap = Box::new(|place, id, current, new| {
                    let own = place.redirect(id);
                    let later = match (&own, &new) {
                        (Some(live), Some(Row::Redirect(new)))
                            if live.target == new.target
                                && live.expiration_policy == new.expiration_policy =>
                        {
                            new.time_expires
                        }
                        _ => None,
                    };
                    let won = place.swap(id, current, new);
                    if let (Some(own), Some(later)) = (own, later) {
                        place.extend(id, &own.target, later);
                    }
                    won
                });
            },
        ),
        m(
            "hv-dead-redirect-named",
            "HV-8",
            &["HV-10", "BK-2"],
            "`get_object` of a redirect that has ended is an error that names it",
            |s| {
                s.read = Box::new(|place, read, id| {
                    let row = lock(&place.rows).get(id).cloned();
                    match row {
                        Some(row @ Row::Redirect(_)) if read == Read::Object => Some(row),
                        _ => place.access(id),
                    }
                });
            },
        ),
        m(
            "hv-equal-put-keeps-end",
            "HV-1",
            &["HV-8", "HV-9"],
            "an inline put of the payload that is there already is not made, and its metadata not looked at",
            |s| {
                s.put_inline = Box::new(|place, id, row| {
                    if let (Some(Row::Inline(_, old)), Row::Inline(_, new)) = (place.live(id), &row)
                        && old == *new
                    {
                        return None;
                    }
                    place.put_inline(id, row)
                });
            },
        ),
    ]
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn idle_of(row: Option<&Row>) -> Option<(Duration, SystemTime)> {
    let Some(Row::Inline(metadata, _)) = row else {
        return None;
    };
    let ExpirationPolicy::TimeToIdle(idle) = metadata.expiration_policy else {
        return None;
    };
    Some((idle, metadata.time_expires?))
}

type Bumps = Arc<Mutex<BTreeMap<ObjectId, (SystemTime, Duration)>>>;

fn idle() -> Vec<Mutant> {
    vec![
        m(
            "hv-idle-debounce-without-cap",
            "HV-8",
            &[],
            "an access waits for a quarter of the idle time, also where that is more than a day",
            |s| {
                s.read = Box::new(|place, _, id| {
                    let found = place.live(id);
                    let Some((idle, end)) = idle_of(found.as_ref()) else {
                        return place.access(id);
                    };
                    let wanted = place.clock_now().checked_add(idle);
                    let gain = wanted.and_then(|wanted| wanted.duration_since(end).ok());
                    match gain {
                        Some(gain) if idle / 4 > DAY && gain < idle / 4 => found,
                        _ => place.access(id),
                    }
                });
            },
        ),
        m(
            "hv-idle-extended-once",
            "HV-8",
            &[],
            "a row has one bit that says that its end was moved, and is not moved again",
            |s| {
                s.read = Box::new(|place, _, id| {
                    let before = place.live(id);
                    let mut moved = lock(&place.notes);
                    // A row that was written anew has its bit cleared: its time of creation tells.
                    let is_moved = match (moved.get(id), &before) {
                        (Some(Row::Inline(old, _)), Some(Row::Inline(new, _))) => {
                            old.time_created == new.time_created && old.size == new.size
                        }
                        _ => false,
                    };
                    if is_moved {
                        return before;
                    }
                    let found = place.access(id);
                    let after = place.live(id);
                    if let Some(row) = after.filter(|after| before.as_ref() != Some(after)) {
                        moved.insert(id.clone(), row);
                    }
                    found
                });
            },
        ),
        m(
            "hv-idle-debounce-by-name",
            "HV-8",
            &["C-2"],
            "a handle remembers by the name of a row when it moved its end last, and does not ask whether that is the same row",
            |s| {
                let bumps: Bumps = Arc::default();
                s.read = Box::new(move |place, _, id| {
                    let now = place.clock_now();
                    let before = place.live(id);
                    let mut bumps = lock(&bumps);
                    if let Some((at, wait)) = bumps.get(id)
                        && now.duration_since(*at).is_ok_and(|since| since < *wait)
                    {
                        return before;
                    }
                    let found = place.access(id);
                    if let Some((idle, _)) = idle_of(before.as_ref())
                        && place.live(id) != before
                    {
                        bumps.insert(id.clone(), (now, (idle / 4).min(DAY)));
                    }
                    found
                });
            },
        ),
        m(
            "hv-policy-millis-32-bits",
            "HV-8",
            &["HV-9"],
            "an end is computed from 32 bits of milliseconds, so that one after 50 days comes too early",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    let (ExpirationPolicy::TimeToLive(span) | ExpirationPolicy::TimeToIdle(span)) =
                        metadata.expiration_policy
                    else {
                        return Ok(stored);
                    };
                    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                    let lost = Duration::from_millis(millis - (millis & 0xffff_ffff));
                    if metadata.time_expires.is_none() {
                        let cut = |end: SystemTime| end.checked_sub(lost);
                        stored.time_expires = stored.time_expires.and_then(cut);
                    }
                    Ok(stored)
                });
            },
        ),
    ]
}

/// Whether a redirect to `target` is what lies there.
fn is_redirect(place: &Place, id: &ObjectId, target: &ObjectId) -> bool {
    place
        .redirect(id)
        .is_some_and(|live| live.target == *target)
}

fn extensions() -> Vec<Mutant> {
    vec![
        m(
            "hv-extend-absent-true",
            "HV-8",
            &[],
            "an extension of a redirect that has gone altogether is true, since nothing has to be extended",
            |s| {
                s.extend = Box::new(|place, id, target, at| {
                    let is_gone = place.live(id).is_none();
                    Ok(is_gone || place.extend(id, target, at))
                });
            },
        ),
        m(
            "hv-extend-changes-policy",
            "HV-8",
            &["HV-2", "HV-3"],
            "an extension writes the redirect anew, with the time that is left as its policy",
            |s| {
                s.extend = Box::new(|place, id, target, at| {
                    let extended = place.extend(id, target, at);
                    let now = place.clock_now();
                    if extended
                        && let Some(Row::Redirect(row)) = lock(&place.rows).get_mut(id)
                        && let Some(left) = row
                            .time_expires
                            .and_then(|end| end.duration_since(now).ok())
                    {
                        row.expiration_policy = ExpirationPolicy::TimeToLive(left);
                    }
                    Ok(extended)
                });
            },
        ),
        m(
            "hv-extend-one-at-a-time",
            "HV-8",
            &["HV-7"],
            "an extension that is not later than the one before it says that the redirect has gone",
            |s| {
                s.extend = Box::new(|place, id, target, at| {
                    let end = place.redirect(id).and_then(|live| live.time_expires);
                    let extended = place.extend(id, target, at);
                    let is_moved = place.redirect(id).and_then(|live| live.time_expires) != end;
                    Ok(extended && (is_moved || end.is_none() || !is_redirect(place, id, target)))
                });
            },
        ),
    ]
}

/// Changes all texts of what is stored.
fn texts(metadata: &mut Metadata, change: fn(&str) -> String) {
    let fields = [
        &mut metadata.content_type,
        &mut metadata.origin,
        &mut metadata.filename,
    ];
    for text in fields.into_iter().flatten() {
        *text = change(text);
    }
    for text in metadata.custom.values_mut() {
        *text = change(text);
    }
}

fn shape() -> Vec<Mutant> {
    vec![
        m(
            "hv-texts-trimmed",
            "HV-9",
            &["BK-2"],
            "metadata travels in headers, and spaces at the ends of its texts are lost",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    texts(&mut stored, |text| text.trim().to_owned());
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-texts-decoded",
            "HV-9",
            &["BK-2"],
            "what is not ASCII travels encoded, with percent signs; a text that holds such a sign itself comes back decoded",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    texts(&mut stored, |text| {
                        text.replace("%20", " ")
                            .replace("%2F", "/")
                            .replace("%25", "%")
                    });
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-custom-2-kib",
            "HV-9",
            &["BK-2"],
            "custom entries go as far as 2 KiB in all, and those behind are left out",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    let mut len = 0;
                    stored.custom.retain(|name, value| {
                        len += name.len() + value.len();
                        len <= 2048
                    });
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-ids-long-cut",
            "HV-9",
            &["HV-7", "C-4"],
            "of an id above 255 bytes the first 255 make up the key of the row",
            |s| {
                let admit = std::mem::replace(&mut s.id, Box::new(|id| Ok(id.clone())));
                s.id = Box::new(move |id| {
                    let mut id = admit(id)?;
                    while id.to_string().len() > 255 && id.key.pop().is_some() {}
                    Ok(id)
                });
            },
        ),
        m(
            "hv-ids-case",
            "HV-9",
            &["HV-7"],
            "ids that differ in case only are one row",
            |s| {
                let admit = std::mem::replace(&mut s.id, Box::new(|id| Ok(id.clone())));
                s.id = Box::new(move |id| {
                    let mut id = admit(id)?;
                    id.key = id.key.to_lowercase();
                    Ok(id)
                });
            },
        ),
    ]
}

fn handles() -> Vec<Mutant> {
    vec![m(
        "hv-handles-leak",
        "C-2",
        &["HV-2"],
        "each handle enters itself into a table of a hundred, and nobody strikes it out",
        |s| {
            let opened = s
                .place
                .counter
                .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if opened >= 100 {
                s.id = Box::new(|_| {
                    let why = "the table of handles is full";
                    Err(Fault::not_applied(ErrorKind::Unavailable, why).into())
                });
            }
        },
    )]
}
