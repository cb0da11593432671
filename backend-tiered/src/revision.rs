//! Names of payloads in the long-term tier.
//!
//! A payload is named by the object it belongs to and a UUIDv7 that no other payload has: the object's id with one
//! more scope at its end. The scope has a fixed name and a value of fixed form, and it is the last one, so the object
//! can be read back from the name, and two names are equal only if both parts are.

use std::time::{Duration, SystemTime};

use larder_traits::{ObjectId, Scope};
use uuid::{NoContext, Timestamp, Uuid};

/// The name of the scope that makes an id a revision.
const SCOPE: &str = "larder-rev";

/// How many bytes the text form of a payload's name is longer than that of its object.
pub const REVISION_LEN_BYTES: usize = ";=".len() + SCOPE.len() + uuid::fmt::Simple::LENGTH;

/// What the name of a payload tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revision {
    /// The object that the payload belongs to.
    pub object: ObjectId,
    /// When its upload began, by the clock of its writer.
    pub created: SystemTime,
}

impl Revision {
    /// Reads the name of a payload; `None` if it is none.
    #[must_use]
    pub fn parse(name: &ObjectId) -> Option<Self> {
        let (last, scopes) = name.context.scopes.split_last()?;
        if last.name != SCOPE {
            return None;
        }
        let id = Uuid::try_parse(&last.value).ok()?;
        // Of the ways to write a UUID only one makes a name.
        if id.simple().to_string() != last.value {
            return None;
        }
        // Only version 7 has this time; the others are none of ours.
        let (seconds, nanos) = (id.get_version_num() == 7)
            .then(|| id.get_timestamp())
            .flatten()?
            .to_unix();
        let mut object = name.clone();
        object.context.scopes = scopes.to_vec();
        let since = Duration::new(seconds, nanos);
        let created = SystemTime::UNIX_EPOCH.checked_add(since)?;
        Some(Self { object, created })
    }
}

/// A name that no payload has had or will have.
pub(crate) fn new(object: &ObjectId, now: SystemTime) -> ObjectId {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let at = Timestamp::from_unix(NoContext, since.as_secs(), since.subsec_nanos());
    let id = Uuid::new_v7(at);
    let mut name = object.clone();
    let scope = Scope::new(SCOPE, id.simple().to_string());
    name.context.scopes.push(scope);
    name
}

/// Sixteen bytes that nobody else has, for changes and writers.
pub(crate) fn unique(now: SystemTime) -> [u8; 16] {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let at = Timestamp::from_unix(NoContext, since.as_secs(), since.subsec_nanos());
    Uuid::new_v7(at).into_bytes()
}

#[cfg(test)]
mod tests {
    use larder_traits::{Clock, ObjectContext, TestClock};

    use super::*;

    fn id(scopes: &[(&str, &str)], key: &str) -> ObjectId {
        let scopes = scopes.iter().map(|(n, v)| Scope::new(*n, *v)).collect();
        ObjectId::new(ObjectContext::new("use", scopes), key)
    }

    #[test]
    fn a_name_tells_its_object_and_its_time_and_is_never_used_again() {
        let now = TestClock::new().now() + Duration::from_millis(1_234);
        let uuid = "0198f0c25a1c7a3bb0a1c2d3e4f50617";
        let objects = [
            id(&[], ""),
            id(&[], "k"),
            id(&[("org", "17")], "k"),
            id(&[(SCOPE, "")], "k"),
            id(&[(SCOPE, uuid)], "k"),
            id(&[(SCOPE, uuid), ("org", "17")], &format!("k/{uuid}")),
        ];
        let mut names = Vec::new();
        for object in &objects {
            for _ in 0..1_000 {
                let name = new(object, now);
                let parsed = Revision::parse(&name).unwrap();
                assert_eq!((&parsed.object, parsed.created), (object, now));
                let longer = name.to_string().len() - object.to_string().len();
                assert_eq!(longer, REVISION_LEN_BYTES);
                names.push(name);
            }
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_is_no_name_of_a_payload_is_not_read_as_one() {
        for scopes in [
            &[][..],
            &[("org", "17")],
            &[(SCOPE, "")],
            &[(SCOPE, "0198f0c2-5a1c-7a3b-b0a1-c2d3e4f50617")],
            &[(SCOPE, "0198F0C25A1C7A3BB0A1C2D3E4F50617")],
            &[(SCOPE, "0198f0c25a1c4a3bb0a1c2d3e4f50617")],
            &[(SCOPE, "0198f0c25a1c7a3bb0a1c2d3e4f50617"), ("org", "17")],
        ] {
            assert_eq!(Revision::parse(&id(scopes, "k")), None, "{scopes:?}");
        }
    }
}
