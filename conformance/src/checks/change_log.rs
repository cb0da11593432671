//! The checks of `ChangeLog`.

mod cases;
mod changes;
mod common;
mod concurrent;
mod dropped;
mod failing;
mod leases;
mod meetings;
mod outside;
mod random;
mod work;

use std::time::{Duration, SystemTime};

use larder_traits::{
    Change, ChangeId, ErrorKind, Fault, ObjectContext, ObjectId, Scope, Step, WriterId,
};

use crate::change_log::World;
use crate::check::{Check, Outcome};

pub(crate) static TABLES: &[&[Check<dyn World>]] = &[
    common::CHECKS,
    changes::CHECKS,
    leases::CHECKS,
    outside::CHECKS,
];

/// A time as the suite names them: so many milliseconds after one of these years.
fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(millis)
}

/// Later than any time that the suite asks about.
fn for_ever() -> SystemTime {
    at(1_000 * 86_400 * 365 * 100)
}

/// Sixteen bytes that are those of no other number, and look random.
fn spread(tag: &str, number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&super::pattern(&format!("{tag} {number}"), 16));
    bytes
}

fn id(number: u64) -> ChangeId {
    ChangeId::from_bytes(spread("change", number))
}

fn writer(number: u64) -> WriterId {
    WriterId::from_bytes(spread("writer", number))
}

fn object(key: impl Into<String>) -> ObjectId {
    let scopes = vec![Scope::new("org", "17"), Scope::new("project", "a/b")];
    ObjectId::new(ObjectContext::new("attachments", scopes), key)
}

/// The change `number` as it is recorded for the `version`th time: each time about something else.
fn change(number: u64, version: u64) -> Change {
    let name = |what: &str| object(format!("{what} {number}.{version}"));
    let steps = [Step::Upload, Step::Swap, Step::Remove];
    let step = usize::try_from((number + version) % 3).map_or(Step::Upload, |at| steps[at]);
    let mut change = Change::new(id(number), name("object"), step);
    change.created = (version % 4 != 1).then(|| name("created"));
    change.replaced = (version % 4 > 1).then(|| name("replaced"));
    change
}

/// Fails unless the call was refused since the change belongs to another writer.
fn conflict(what: &str, result: Result<(), Fault>) -> Outcome {
    super::refused(what, result, ErrorKind::Conflict)
}
