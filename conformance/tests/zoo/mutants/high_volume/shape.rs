//! Metadata and ids.

use std::time::Duration;

use larder_traits::{ExpirationPolicy, ObjectContext, ObjectId};

use super::m;
use crate::mutants::Mutant;
use crate::reference::high_volume::len_u64;

/// Changes what is stored of the metadata.
macro_rules! stamped {
    ($s:ident, |$stored:ident| $body:expr) => {
        $s.stamp = Box::new(|place, _, metadata, payload| {
            let mut $stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
            $body;
            Ok($stored)
        })
    };
}

pub(super) fn shape() -> Vec<Mutant> {
    vec![
        m(
            "hv-filename-dropped",
            "HV-9",
            &[],
            "the file name is lost",
            |s| stamped!(s, |stored| stored.filename = None),
        ),
        m(
            "hv-origin-dropped",
            "HV-9",
            &[],
            "the origin is lost",
            |s| stamped!(s, |stored| stored.origin = None),
        ),
        m(
            "hv-compression-dropped",
            "HV-9",
            &[],
            "the compression is lost",
            |s| stamped!(s, |stored| stored.compression = None),
        ),
        m(
            "hv-custom-empty-dropped",
            "HV-9",
            &[],
            "custom entries without a value are lost",
            |s| {
                stamped!(s, |stored| stored
                    .custom
                    .retain(|_, value| !value.is_empty()));
            },
        ),
        m(
            "hv-created-seconds",
            "HV-9",
            &[],
            "the time of creation is kept to the second",
            |s| {
                stamped!(s, |stored| stored.time_created =
                    stored.time_created.map(super::to_seconds));
            },
        ),
        m(
            "hv-created-now",
            "HV-9",
            &[],
            "the time of creation that the caller gives is replaced",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut anew = metadata.clone();
                    anew.time_created = None;
                    Ok(anew.stamped(place.clock_now(), len_u64(payload))?)
                });
            },
        ),
        m(
            "hv-policy-seconds",
            "HV-9",
            &["HV-8"],
            "the length of a policy is kept to the second",
            |s| {
                stamped!(s, |stored| {
                    let whole = |after: Duration| Duration::from_secs(after.as_secs());
                    stored.expiration_policy = match stored.expiration_policy {
                        ExpirationPolicy::TimeToLive(after) => {
                            ExpirationPolicy::TimeToLive(whole(after))
                        }
                        ExpirationPolicy::TimeToIdle(after) => {
                            ExpirationPolicy::TimeToIdle(whole(after))
                        }
                        other => other,
                    };
                });
            },
        ),
        m(
            "hv-idle-as-live",
            "HV-9",
            &["HV-8"],
            "TimeToIdle comes back as TimeToLive",
            |s| {
                stamped!(s, |stored| {
                    if let ExpirationPolicy::TimeToIdle(after) = stored.expiration_policy {
                        stored.expiration_policy = ExpirationPolicy::TimeToLive(after);
                    }
                });
            },
        ),
        m(
            "hv-ids-joined",
            "HV-9",
            &[],
            "the parts of an id are joined by slashes and not escaped",
            |s| {
                s.id = Box::new(|id| {
                    let parts = id
                        .context
                        .scopes
                        .iter()
                        .flat_map(|scope| [&*scope.name, &*scope.value]);
                    let parts = std::iter::once(&*id.context.use_case)
                        .chain(parts)
                        .chain([&*id.key]);
                    let joined = parts.collect::<Vec<_>>().join("/");
                    Ok(ObjectId::new(ObjectContext::new("", Vec::new()), joined))
                });
            },
        ),
        m(
            "hv-ids-scopes-sorted",
            "HV-9",
            &[],
            "the order of an id's scopes does not count",
            |s| {
                s.id = Box::new(|id| {
                    let mut id = id.clone();
                    id.context.scopes.sort();
                    Ok(id)
                });
            },
        ),
        m(
            "hv-ids-scope-names",
            "HV-9",
            &[],
            "the names of an id's scopes do not count",
            |s| {
                s.id = Box::new(|id| {
                    let mut id = id.clone();
                    id.context
                        .scopes
                        .iter_mut()
                        .for_each(|scope| scope.name.clear());
                    Ok(id)
                });
            },
        ),
        m(
            "hv-ids-use-case",
            "HV-9",
            &[],
            "the use case of an id does not count",
            |s| {
                s.id = Box::new(|id| {
                    let mut id = id.clone();
                    id.context.use_case.clear();
                    Ok(id)
                });
            },
        ),
    ]
}
