//! Deadlines.

use std::time::Duration;

use larder_conformance::Engine;
use larder_conformance::model::high_volume::Row;
use larder_traits::{ExpirationPolicy, Tombstone};

use super::{m, raw, raw_redirect};
use crate::mutants::Mutant;
use crate::reference::high_volume::{Read, len_u64};
use crate::reference::lock;

pub(super) fn expiry() -> Vec<Mutant> {
    vec![
        m(
            "hv-swap-ignores-expiry",
            "HV-5",
            &["HV-8"],
            "a swap takes an expired redirect for a live one",
            |s| {
                s.swap = Box::new(|place, id, current, new| {
                    match (raw_redirect(place, id), current, &new) {
                        (Some(dead), None, Some(Row::Redirect(new)))
                            if dead.target != new.target =>
                        {
                            false
                        }
                        (Some(dead), Some(old), Some(_)) if dead.target == *old => {
                            place.write(id, new.expect("there is one"));
                            true
                        }
                        _ => place.swap(id, current, new),
                    }
                });
            },
        ),
        m(
            "hv-swap-same-dead-target",
            "HV-5",
            &["HV-8"],
            "an expired redirect to the write's own target counts as won",
            |s| {
                s.swap =
                    Box::new(
                        |place, id, current, new| match (raw_redirect(place, id), &new) {
                            (Some(dead), Some(Row::Redirect(new))) if dead.target == new.target => {
                                true
                            }
                            _ => place.swap(id, current, new),
                        },
                    );
            },
        ),
        m(
            "hv-swap-dead-inline",
            "HV-5",
            &["HV-8"],
            "an expired inline object counts as one that replaced the redirect",
            |s| {
                s.swap =
                    Box::new(
                        |place, id, current, new| match (raw(place, id), current, &new) {
                            (Some(Row::Inline(..)), Some(_), Some(Row::Inline(..))) => true,
                            _ => place.swap(id, current, new),
                        },
                    );
            },
        ),
        m(
            "hv-get-dead-inline",
            "HV-8",
            &["HV-2", "HV-5"],
            "an expired object is still read",
            |s| {
                s.read = Box::new(|place, read, id| match (read, raw(place, id)) {
                    (Read::TieredObject, Some(row @ Row::Inline(..))) => Some(row),
                    _ => place.access(id),
                });
            },
        ),
        m(
            "hv-get-dead-redirect",
            "HV-8",
            &["HV-2", "HV-3", "HV-5"],
            "an expired redirect is still followed",
            |s| {
                s.read = Box::new(|place, _, id| match raw(place, id) {
                    Some(row @ Row::Redirect(_)) => Some(row),
                    _ => place.access(id),
                });
            },
        ),
        m(
            "hv-metadata-dead",
            "HV-8",
            &["HV-3", "HV-5"],
            "the metadata of an expired row is still read",
            |s| {
                s.read = Box::new(|place, read, id| match read {
                    Read::TieredMetadata => raw(place, id),
                    _ => place.access(id),
                });
            },
        ),
        m(
            "hv-deadline-excluded",
            "HV-8",
            &["HV-2"],
            "a row lives through the millisecond of its deadline",
            |s| {
                s.read = Box::new(|place, _, id| {
                    let now = place.clock_now() - Duration::from_millis(1);
                    raw(place, id).filter(|row| !row.is_expired(now))
                });
            },
        ),
        m(
            "hv-redirect-deadline-dropped",
            "HV-8",
            &["HV-2", "HV-9", "HV-5"],
            "the deadline that a redirect is given is replaced by one from its policy",
            |s| {
                s.stamp_redirect = Box::new(|place, redirect| {
                    let given = Tombstone::new(redirect.target.clone(), redirect.expiration_policy);
                    redirect.stamped(place.clock_now())?;
                    Ok(given.stamped(place.clock_now())?)
                });
            },
        ),
        m(
            "hv-object-deadline-dropped",
            "HV-8",
            &["HV-9"],
            "the deadline that an object is given is replaced by one from its policy",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let given = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    let mut policy = metadata.clone();
                    policy.time_expires = None;
                    let computed = policy
                        .stamped(place.clock_now(), len_u64(payload))?
                        .time_expires;
                    let mut stored = given;
                    stored.time_expires = computed;
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-deadline-seconds",
            "HV-8",
            &["HV-9"],
            "deadlines are kept to the second",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    stored.time_expires = stored.time_expires.map(super::to_seconds);
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-manual-deadline-kept",
            "HV-8",
            &[],
            "a deadline under Manual is accepted",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut relaxed = metadata.clone();
                    if relaxed.expiration_policy == ExpirationPolicy::Manual {
                        relaxed.time_expires = None;
                    }
                    Ok(relaxed.stamped(place.clock_now(), len_u64(payload))?)
                });
            },
        ),
        m(
            "hv-manual-redirect-deadline-kept",
            "HV-8",
            &["HV-5"],
            "a redirect with a deadline under Manual is accepted",
            |s| {
                s.stamp_redirect = Box::new(|place, redirect| {
                    let mut relaxed = redirect.clone();
                    if relaxed.expiration_policy == ExpirationPolicy::Manual {
                        relaxed.time_expires = None;
                    }
                    Ok(relaxed.stamped(place.clock_now())?)
                });
            },
        ),
        m(
            "hv-manual-gets-deadline",
            "HV-8",
            &["HV-9"],
            "an object under Manual gets a deadline far away",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let now = place.clock_now();
                    let mut stored = metadata.stamped(now, len_u64(payload))?;
                    stored.time_expires = stored
                        .time_expires
                        .or(Some(now + Duration::from_secs(1 << 33)));
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-extend-shortens",
            "HV-8",
            &[],
            "`extend_expiry` moves a deadline back",
            |s| {
                s.extend = Box::new(|place, id, target, at| {
                    let live = place.extend(id, target, at);
                    if let Some(Row::Redirect(redirect)) =
                        lock(&place.rows).get_mut(id).filter(|_| live)
                    {
                        redirect.time_expires = redirect.time_expires.map(|_| at);
                    }
                    Ok(live)
                });
            },
        ),
        m(
            "hv-extend-any-target",
            "HV-8",
            &[],
            "`extend_expiry` extends a redirect to another target",
            |s| {
                s.extend = Box::new(|place, id, _, at| {
                    Ok(place
                        .redirect(id)
                        .is_some_and(|live| place.extend(id, &live.target, at)))
                });
            },
        ),
        m(
            "hv-extend-revives",
            "HV-8",
            &[],
            "`extend_expiry` brings an expired redirect back",
            |s| {
                s.extend = Box::new(|place, id, target, at| {
                    if let Some(Row::Redirect(redirect)) = lock(&place.rows).get_mut(id)
                        && redirect.target == *target
                    {
                        redirect.time_expires = redirect.time_expires.max(Some(at));
                        return Ok(true);
                    }
                    Ok(false)
                });
            },
        ),
        m(
            "hv-extend-manual",
            "HV-8",
            &[],
            "`extend_expiry` gives a deadline to a redirect that has none",
            |s| {
                s.extend = Box::new(|place, id, target, at| {
                    let live = place.extend(id, target, at);
                    if let Some(Row::Redirect(redirect)) =
                        lock(&place.rows).get_mut(id).filter(|_| live)
                    {
                        redirect.time_expires = redirect.time_expires.max(Some(at));
                    }
                    Ok(live)
                });
            },
        ),
        m(
            "hv-idle-not-extended",
            "HV-8",
            &[],
            "an access does not extend a time to idle",
            |s| {
                s.read = Box::new(|place, _, id| place.live(id));
            },
        )
        .awaiting(Engine::Time),
        m(
            "hv-idle-sets-deadline",
            "HV-8",
            &[],
            "an access sets the deadline anew, also where that is earlier",
            |s| {
                s.read = Box::new(|place, _, id| {
                    let found = place.live(id);
                    let now = place.clock_now();
                    if let Some(Row::Inline(metadata, _)) =
                        lock(&place.rows).get_mut(id).filter(|_| found.is_some())
                        && let ExpirationPolicy::TimeToIdle(idle) = metadata.expiration_policy
                    {
                        metadata.time_expires = now.checked_add(idle);
                    }
                    found
                });
            },
        ),
        m(
            "hv-access-extends-live",
            "HV-8",
            &["HV-9", "BK-2"],
            "an access extends a time to live",
            |s| {
                s.read = Box::new(|place, _, id| {
                    let found = place.access(id);
                    let now = place.clock_now();
                    if let Some(Row::Inline(metadata, _)) =
                        lock(&place.rows).get_mut(id).filter(|_| found.is_some())
                        && let ExpirationPolicy::TimeToLive(live) = metadata.expiration_policy
                    {
                        metadata.time_expires = metadata.time_expires.max(now.checked_add(live));
                    }
                    found
                });
            },
        ),
        m(
            "hv-access-extends-redirect",
            "HV-8",
            &[],
            "an access extends a redirect with a time to idle",
            |s| {
                s.read = Box::new(|place, _, id| {
                    let found = place.access(id);
                    let now = place.clock_now();
                    if let Some(Row::Redirect(redirect)) =
                        lock(&place.rows).get_mut(id).filter(|_| found.is_some())
                        && let ExpirationPolicy::TimeToIdle(idle) = redirect.expiration_policy
                    {
                        redirect.time_expires = redirect.time_expires.max(now.checked_add(idle));
                    }
                    found
                });
            },
        ),
        m(
            "hv-access-revives",
            "HV-8",
            &["HV-2"],
            "an access to a dead object with a time to idle brings it back",
            |s| {
                s.read = Box::new(|place, _, id| {
                    let now = place.clock_now();
                    if let Some(Row::Inline(metadata, _)) = lock(&place.rows).get_mut(id)
                        && let ExpirationPolicy::TimeToIdle(idle) = metadata.expiration_policy
                        && metadata.is_expired(now)
                    {
                        metadata.time_expires = now.checked_add(idle);
                    }
                    place.access(id)
                });
            },
        ),
    ]
}
