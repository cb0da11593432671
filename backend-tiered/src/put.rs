//! Putting an object (TS-1, TS-3, TS-4).
//!
//! A small one is one conditional write to its row. Only where that meets a redirect, there is more to do:
//!
//! 1. Record that the redirect is about to be replaced.
//! 2. Swap it for the object.
//! 3. Remove the payload that it referred to.
//!
//! A large one goes to long-term storage first, and nobody sees it before its redirect is there:
//!
//! 1. Record the upload of a payload under a name of its own, and upload it, inside the caller: with the caller's
//!    stream goes the upload, and what there is of it is removed.
//! 2. Look at the row, record the swap, and swap; from here on whether or not there is a caller.
//! 3. Remove the payload that was replaced, or one's own if somebody else was later.
//!
//! A swap of one redirect for another is made by recovery where its writer was stopped for too long. One that found no
//! redirect is undone by it, so a writer that goes on after that has swapped in a redirect to a payload that is gone or
//! about to go. It has noticed by its clock, before it answers, and takes the redirect out again.

use std::sync::Arc;

use bytes::Bytes;
use larder_traits::{
    BackendError, ClientStream, ErrorKind, Fault, Metadata, ObjectId, Step, TieredMetadata,
    TieredWrite, Tombstone,
};

use crate::delete::unlink;
use crate::error::{before_commit, past_commit, unlogged};
use crate::lease::Entry;
use crate::native::Core;
use crate::peek::{Peeked, peek};
use crate::revision;
use crate::swap::Swapped;

pub(crate) async fn put(
    core: &Arc<Core>,
    id: &ObjectId,
    metadata: &Metadata,
    stream: ClientStream,
) -> Result<(), BackendError> {
    core.check_id(id)?;
    match peek(stream, core.config.threshold_bytes).await? {
        Peeked::Small(payload) => small(core, id, metadata, payload).await,
        Peeked::Large(stream) => large(core, id, metadata, stream).await,
    }
}

async fn small(
    core: &Arc<Core>,
    id: &ObjectId,
    metadata: &Metadata,
    payload: Bytes,
) -> Result<(), BackendError> {
    let size = u64::try_from(payload.len()).expect("a length in memory fits 64 bits");
    let metadata = metadata.stamped(core.now(), size)?;
    let put = core.high.put_non_tombstone(id, &metadata, payload.clone());
    let Some(redirect) = put.await? else {
        return Ok(());
    };
    let replace = replace(Arc::clone(core), id.clone(), redirect, metadata, payload);
    core.background.complete(replace).await
}

/// Puts a small object where a redirect is.
async fn replace(
    core: Arc<Core>,
    id: ObjectId,
    redirect: Tombstone,
    metadata: Metadata,
    payload: Bytes,
) -> Result<(), BackendError> {
    let old = Some(redirect.target.clone());
    let entry = Entry::begin(&core, &id, Step::Swap, None, old.clone());
    let mut entry = entry.await.map_err(unlogged)?;
    let write = TieredWrite::Object(metadata.clone(), payload.clone());
    match core
        .leased(core.displace(&mut entry, &redirect, &write))
        .await
    {
        Swapped::Won | Swapped::Lost => {
            entry.discard(None, old).await;
            Ok(())
        }
        Swapped::Vanished => {
            entry.discard(None, old).await;
            // A redirect that is there now was put after this call began, and stays.
            let put = core.high.put_non_tombstone(&id, &metadata, payload);
            put.await.map(drop)
        }
        Swapped::Refused(e) => {
            entry.close().await;
            Err(e)
        }
        Swapped::Over(e) => {
            entry.discard(None, old).await;
            Err(e)
        }
        Swapped::Open(e) => {
            core.background.spawn(entry.resolve_later());
            Err(e)
        }
    }
}

async fn large(
    core: &Arc<Core>,
    id: &ObjectId,
    metadata: &Metadata,
    stream: ClientStream,
) -> Result<(), BackendError> {
    // Redirect and payload get their deadline here, and it is one and the same (TS-9).
    let metadata = metadata.stamped(core.now(), 0)?;
    let payload = revision::new(id, core.now());
    let mut redirect = Tombstone::new(payload.clone(), metadata.expiration_policy);
    redirect.time_expires = metadata.time_expires;
    let entry = Entry::begin(core, id, Step::Upload, Some(payload.clone()), None);
    let entry = entry.await.map_err(unlogged)?;
    let upload = core.long.put_object(&payload, &metadata, stream);
    // An entry that is dropped at this step, by an error or with the caller, takes the payload with it.
    if let Err(e) = core.leased(upload).await {
        return Err(before_commit(e, "the payload could not be stored"));
    }
    let install = install(Arc::clone(core), entry, redirect);
    core.background.complete(install).await
}

/// Makes an uploaded payload the object.
async fn install(
    core: Arc<Core>,
    mut entry: Entry,
    redirect: Tombstone,
) -> Result<(), BackendError> {
    let new = Some(redirect.target.clone());
    let row = match core.look(&entry.change.object).await {
        Ok(row) => row,
        Err(e) => return Err(before_commit(e, "the row could not be read")),
    };
    let seen = match row {
        TieredMetadata::Tombstone(seen) => Some(seen),
        TieredMetadata::Object(_) | TieredMetadata::NotFound => None,
    };
    let mut old = seen.as_ref().map(|seen| seen.target.clone());
    let recorded = entry.advance(Step::Swap, new.clone(), old.clone()).await;
    if let Err(fault) = recorded {
        return Err(entry.give_up(unlogged(fault)).await);
    }
    let mut swapped = match &seen {
        Some(seen) => {
            let write = TieredWrite::Tombstone(redirect.clone());
            core.leased(core.displace(&mut entry, seen, &write)).await
        }
        None => core.leased(core.occupy(&mut entry, &redirect)).await,
    };
    if matches!(swapped, Swapped::Vanished) {
        // The object that was there has been deleted or has ended. Its payload is nobody's any more; a new entry for
        // it, since this one is about another swap from here on.
        if let Some(old) = old.take() {
            core.discard_payload(&entry.change.object, old).await;
        }
        let recorded = entry.advance(Step::Swap, new.clone(), None).await;
        if let Err(fault) = recorded {
            // Whoever has claimed the change may have made the swap before the row was emptied.
            entry.discard(new, None).await;
            let why = "another writer may have made the swap";
            return Err(past_commit(fault.into(), why));
        }
        swapped = core.leased(core.occupy(&mut entry, &redirect)).await;
    }
    match swapped {
        Swapped::Won if old.is_some() => {
            entry.discard(None, old).await;
            Ok(())
        }
        Swapped::Won => {
            let id = entry.change.object.clone();
            let is_unclaimed = entry.is_unclaimed().await;
            // Claimed or not, there is nothing left to do that the log has to know.
            if entry.close().await && is_unclaimed {
                return Ok(());
            }
            Err(take_out(core, id, redirect).await)
        }
        Swapped::Lost => {
            entry.discard(new, old).await;
            Ok(())
        }
        Swapped::Refused(e) => Err(entry.give_up(e).await),
        Swapped::Over(e) => {
            entry.discard(new, old).await;
            Err(e)
        }
        Swapped::Open(e) => {
            core.background.spawn(entry.resolve_later());
            Err(e)
        }
        Swapped::Vanished => unreachable!("a swap that expects nothing cannot miss it"),
    }
}

/// Removes a redirect whose payload recovery has removed or is about to remove.
///
/// Readers have found the object until then, or `Unavailable`; after it they find nothing.
async fn take_out(core: Arc<Core>, id: ObjectId, redirect: Tombstone) -> BackendError {
    let stopped = Fault::unknown(
        ErrorKind::Conflict,
        "the writer was stopped for longer than its lease, and its change was claimed",
    );
    match unlink(core, id, redirect).await {
        Ok(()) => stopped.into(),
        Err(e) => past_commit(e, "a redirect without its payload could not be removed"),
    }
}
