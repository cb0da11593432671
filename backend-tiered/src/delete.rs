//! Deleting an object.
//!
//! One conditional delete of its row. Only where that meets a redirect, there is more to do:
//!
//! 1. Record that the redirect is about to be removed.
//! 2. Swap it for nothing.
//! 3. Remove the payload that it referred to.

use std::sync::Arc;

use larder_traits::{BackendError, ObjectId, Step, TieredWrite, Tombstone};

use crate::error::unlogged;
use crate::lease::Entry;
use crate::native::Core;
use crate::swap::Swapped;

pub(crate) async fn delete(core: &Arc<Core>, id: &ObjectId) -> Result<(), BackendError> {
    core.check_id(id)?;
    let Some(redirect) = core.high.delete_non_tombstone(id).await? else {
        return Ok(());
    };
    let unlink = unlink(Arc::clone(core), id.clone(), redirect);
    core.background.complete(unlink).await
}

/// Removes a redirect that was seen in the row.
pub(crate) async fn unlink(
    core: Arc<Core>,
    id: ObjectId,
    redirect: Tombstone,
) -> Result<(), BackendError> {
    let old = Some(redirect.target.clone());
    let entry = Entry::begin(&core, &id, Step::Swap, None, old.clone());
    let mut entry = entry.await.map_err(unlogged)?;
    let swap = core.displace(&mut entry, &redirect, &TieredWrite::Delete);
    match core.leased(swap).await {
        // Where another object is there by now, it was put after the look at the one that was to be deleted.
        Swapped::Won | Swapped::Lost | Swapped::Vanished => {
            entry.discard(None, old).await;
            Ok(())
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
