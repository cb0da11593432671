//! Reading an object (TS-2, TS-5, TS-9).
//!
//! 1. Look at the row: an object is the answer, and so is nothing.
//! 2. Follow a redirect. The payload is of one revision and never changes, so that is the answer.
//! 3. If the payload is missing, the row was overwritten between the two: look again, a bounded number of times.
//!
//! An access extends the life of a payload with `TimeToIdle`, by the long-term tier's own rule and at its pace. The
//! redirect follows the payload and never goes ahead of it.

use std::sync::Arc;

use larder_traits::{
    BackendError, ErrorKind, Fault, GetResponse, Metadata, ObjectId, TieredGet, TieredMetadata,
    Tombstone,
};

use crate::native::Core;

pub(crate) async fn get(core: &Arc<Core>, id: &ObjectId) -> Result<GetResponse, BackendError> {
    core.check_id(id)?;
    let mut misses = Misses::default();
    loop {
        let redirect = match core.high.get_tiered_object(id).await? {
            TieredGet::Object(metadata, payload) => return Ok(Some((metadata, payload))),
            TieredGet::NotFound => return Ok(None),
            TieredGet::Tombstone(redirect) => redirect,
        };
        if let Some((metadata, payload)) = core.long.get_object(&redirect.target).await? {
            let metadata = core.follow(id, &redirect, metadata).await;
            return Ok(Some((metadata, payload)));
        }
        if misses.has_ended(core, redirect).await? {
            return Ok(None);
        }
    }
}

pub(crate) async fn get_metadata(
    core: &Arc<Core>,
    id: &ObjectId,
) -> Result<Option<Metadata>, BackendError> {
    core.check_id(id)?;
    let mut misses = Misses::default();
    loop {
        let redirect = match core.high.get_tiered_metadata(id).await? {
            TieredMetadata::Object(metadata) => return Ok(Some(metadata)),
            TieredMetadata::NotFound => return Ok(None),
            TieredMetadata::Tombstone(redirect) => redirect,
        };
        if let Some(metadata) = core.long.get_metadata(&redirect.target).await? {
            return Ok(Some(core.follow(id, &redirect, metadata).await));
        }
        if misses.has_ended(core, redirect).await? {
            return Ok(None);
        }
    }
}

/// The redirects whose payload was not there.
#[derive(Default)]
struct Misses {
    count: u32,
    last: Option<ObjectId>,
}

impl Misses {
    /// Whether the object is gone, its deadline having come. If not, the row is worth another look: also where the
    /// deadline of this redirect has come, since it may have been overwritten before that (TS-5). A redirect that is
    /// still the same is given some time first.
    async fn has_ended(&mut self, core: &Core, redirect: Tombstone) -> Result<bool, BackendError> {
        let is_same = self.last.as_ref() == Some(&redirect.target);
        if is_same && redirect.is_expired(core.now()) {
            return Ok(true);
        }
        self.count += 1;
        if self.count >= core.config.lookups_max {
            let why = "the payload of the object is missing";
            return Err(Fault::not_applied(ErrorKind::Unavailable, why).into());
        }
        if is_same {
            core.pause(self.count).await;
        }
        self.last = Some(redirect.target);
        Ok(false)
    }
}

impl Core {
    /// Lets the redirect follow its payload's deadline, and tells the one that holds for both.
    async fn follow(
        &self,
        id: &ObjectId,
        redirect: &Tombstone,
        mut metadata: Metadata,
    ) -> Metadata {
        let Some(ends) = redirect.time_expires else {
            return metadata;
        };
        // An answer may show the deadline from before the access, and only one that is there can be followed.
        if metadata.deadline_after_access(self.now()).is_some()
            && let Ok(Some(later)) = self.long.get_metadata(&redirect.target).await
        {
            metadata.time_expires = later.time_expires;
        }
        if let Some(later) = metadata.time_expires.filter(|later| *later > ends) {
            let follow = self.high.extend_expiry(id, &redirect.target, later);
            if !matches!(follow.await, Ok(true)) {
                metadata.time_expires = Some(ends);
            }
        }
        metadata
    }
}
