//! Every fault that this backend can make; nothing else decides kinds.
//!
//! All of them are `NotApplied`: each call decides and acts under one lock, and can no longer fail once it acts.

use std::time::Instant;

use larder_traits::{ChangeId, ErrorKind, Fault};

/// Refuses what is longer than a bound (C-4).
pub(crate) fn bounded(what: &str, len: usize, max: impl TryInto<u64>) -> Result<(), Fault> {
    // A number beyond 64 bits bounds nothing, nor does it on the other side.
    let max = max.try_into().unwrap_or(u64::MAX);
    if u64::try_from(len).unwrap_or(u64::MAX) <= max {
        return Ok(());
    }
    let message = format!("{what}: {len}, and at most {max} are allowed");
    Err(Fault::not_applied(ErrorKind::InvalidInput, message))
}

/// The one key that no `BlobMulti` takes (BM-10).
pub(crate) fn empty_key() -> Fault {
    Fault::not_applied(ErrorKind::InvalidInput, "the key is empty")
}

/// Refuses a call whose deadline has come (BM-7).
pub(crate) fn in_time(deadline: Instant) -> Result<(), Fault> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(Fault::not_applied(
        ErrorKind::Timeout,
        "the deadline has passed",
    ))
}

/// A writer came back to a change that was claimed after its lease had ended (TS-7).
pub(crate) fn claimed(id: ChangeId) -> Fault {
    let message = format!("the change {id} belongs to another writer");
    Fault::not_applied(ErrorKind::Conflict, message)
}
