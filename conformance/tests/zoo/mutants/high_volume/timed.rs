//! Wrong only once time passes, or jumps.

use std::time::{Duration, SystemTime};

use larder_conformance::Engine;
use larder_conformance::model::high_volume::Row;
use larder_traits::{ExpirationPolicy, Metadata, ObjectId};

use super::{m, raw};
use crate::mutants::Mutant;
use crate::reference::high_volume::{Place, Read, Store, len_u64};
use crate::reference::lock;

pub(super) fn timed() -> Vec<Mutant> {
    [ends(), accesses()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Time))
        .collect()
}

/// Notes by the clock when an object was written.
fn noting_when_written(s: &mut Store) {
    let fit = std::mem::replace(&mut s.fit, Box::new(|_, _, payload| Ok(payload)));
    s.fit = Box::new(move |place, id, payload| {
        let mut note = Metadata::new();
        note.time_created = Some(place.clock_now());
        lock(&place.notes).insert(id.clone(), Row::Inline(note, payload.clone()));
        fit(place, id, payload)
    });
}

fn written(place: &Place, id: &ObjectId) -> Option<SystemTime> {
    match lock(&place.notes).get(id) {
        Some(Row::Inline(note, _)) => note.time_created,
        _ => None,
    }
}

fn ends() -> Vec<Mutant> {
    vec![
        m(
            "hv-plain-get-dead",
            "HV-8",
            &["BK-2"],
            "`get_object` answers with an object that has expired",
            |s| {
                s.read = Box::new(|place, read, id| match (read, raw(place, id)) {
                    (Read::Object, Some(row @ Row::Inline(..))) => {
                        place.access(id);
                        Some(row)
                    }
                    _ => place.access(id),
                });
            },
        ),
        m(
            "hv-plain-metadata-dead",
            "HV-8",
            &["BK-2"],
            "`get_metadata` answers for an object that has expired",
            |s| {
                s.read = Box::new(|place, read, id| match (read, raw(place, id)) {
                    (Read::Metadata, Some(row @ Row::Inline(..))) => {
                        place.access(id);
                        Some(row)
                    }
                    _ => place.access(id),
                });
            },
        ),
        m(
            "hv-no-time-is-for-ever",
            "HV-8",
            &[],
            "an object with a time to live of nothing has no deadline",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    let none = ExpirationPolicy::TimeToLive(Duration::ZERO);
                    if metadata.expiration_policy == none && metadata.time_expires.is_none() {
                        stored.time_expires = None;
                    }
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-manual-ends",
            "HV-8",
            &["C-5"],
            "an object under Manual is gone five years after it was written",
            |s| {
                noting_when_written(s);
                s.read = Box::new(|place, _, id| {
                    let now = place.clock_now();
                    let years = Duration::from_secs(5 * 365 * 24 * 3600);
                    let over = written(place, id).is_some_and(|at| at + years <= now);
                    place.access(id).filter(|row| match row {
                        Row::Inline(metadata, _) => {
                            !over || metadata.expiration_policy != ExpirationPolicy::Manual
                        }
                        Row::Redirect(_) => true,
                    })
                });
            },
        ),
        m(
            "hv-clock-back-loses",
            "C-5",
            &["HV-8"],
            "an object that was written later than the clock says now is taken for damaged, and not found",
            |s| {
                noting_when_written(s);
                s.read = Box::new(|place, _, id| {
                    let now = place.clock_now();
                    let later = written(place, id).is_some_and(|at| at > now);
                    place.access(id).filter(|row| match row {
                        Row::Inline(..) => !later,
                        Row::Redirect(_) => true,
                    })
                });
            },
        ),
    ]
}

fn accesses() -> Vec<Mutant> {
    /// Sets the deadline of an idle object that is read, if the access asks for one.
    macro_rules! accessed {
        ($s:ident, |$metadata:ident, $idle:ident, $now:ident| $later:expr) => {
            $s.read = Box::new(|place, _, id| {
                let found = place.live(id);
                let $now = place.clock_now();
                if let Some(Row::Inline($metadata, _)) =
                    lock(&place.rows).get_mut(id).filter(|_| found.is_some())
                    && let ExpirationPolicy::TimeToIdle($idle) = $metadata.expiration_policy
                {
                    let present = $metadata.time_expires;
                    $metadata.time_expires = present.max($later);
                }
                found
            })
        };
    }
    vec![
        m(
            "hv-idle-without-debounce",
            "HV-8",
            &[],
            "every access to an idle object writes a new deadline",
            |s| accessed!(s, |metadata, idle, now| now.checked_add(idle)),
        ),
        m(
            "hv-idle-too-patient",
            "HV-8",
            &[],
            "an access extends an idle object only when three quarters of its time are over",
            |s| {
                accessed!(s, |metadata, idle, now| {
                    let late = metadata.time_expires.is_some_and(|at| now + idle / 4 >= at);
                    if late { now.checked_add(idle) } else { None }
                });
            },
        ),
        m(
            "hv-idle-adds-up",
            "HV-8",
            &[],
            "an access adds the idle time to the deadline",
            |s| {
                accessed!(s, |metadata, idle, now| {
                    let due = metadata.deadline_after_access(now);
                    due.and(metadata.time_expires)
                        .and_then(|at| at.checked_add(idle))
                });
            },
        ),
        m(
            "hv-idle-extends-by-a-quarter",
            "HV-8",
            &[],
            "an access extends an idle object by the quarter of its time that it waited for, and no more",
            |s| {
                accessed!(s, |metadata, idle, now| {
                    let due = metadata.deadline_after_access(now);
                    due.and(metadata.time_expires)
                        .and_then(|at| at.checked_add(idle / 4))
                });
            },
        ),
    ]
}
