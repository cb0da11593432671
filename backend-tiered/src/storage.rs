//! [`TieredStorage`]: the contract, on top of the protocols.

use std::sync::Arc;

use async_trait::async_trait;
use larder_traits::{
    Backend, BackendError, Caps, ChangeLog, ClientStream, Fault, GetResponse, HighVolumeBackend,
    Metadata, ObjectId, ObjectListing,
};

use crate::audit::{AuditOptions, AuditReport, audit};
use crate::config::TieredConfig;
use crate::lease::Journal;
use crate::native::Core;
use crate::recover::{RecoverReport, recover};
use crate::runtime::Background;
use crate::{delete, get, put};

/// Small objects in a high-volume tier, large ones in a long-term tier, and no write lost between them.
///
/// Any number of these may work on the same tiers at the same time, in one process or in several, if they share the
/// change log. The rows of the high-volume tier belong to them alone, and so do the names of payloads in the long-term
/// tier. Clones share everything.
///
/// # Atomicity
///
/// Each write is one swap of a row: readers see the old object or the new one (BK-1). Of two writes at the same time
/// the later one stays, and both are `Ok` (TS-3).
///
/// # Durability
///
/// What both tiers survive, if the log survives as much. A process that is gone leaves changes in the log, which
/// [`recover`](Self::recover) brings to their end once its lease has ended (TS-7). Call it when the storage is opened,
/// and from time to time after that.
///
/// # Cancel safety
///
/// A put that is dropped while its payload is uploaded has no effect. A swap that has begun is brought to its end
/// without its caller, so a dropped call may land late (C-6, TS-8).
///
/// # Errors
///
/// As [`Backend`] says. An error of a write is `Unknown` only where the swap was not answered and the row does not
/// tell; the payload is then removed, or stays on record until that is safe (TS-6). So is that of a writer which was
/// stopped for longer than its lease: its change was claimed, and its swap made or undone by another. A payload that is
/// missing, though its redirect is there, is `Unavailable` after a bounded number of looks (TS-2).
#[derive(Clone, Debug)]
pub struct TieredStorage(Arc<Core>);

impl TieredStorage {
    /// A storage on these tiers. Nothing is touched.
    ///
    /// `log` must be durable wherever the tiers are: a log that forgets leaves payloads that nobody knows of.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a configuration that contradicts itself or the tiers.
    pub fn new(
        high: impl HighVolumeBackend + 'static,
        long: impl Backend + 'static,
        log: impl ChangeLog + 'static,
        config: TieredConfig,
    ) -> Result<Self, Fault> {
        config.check()?;
        let log: Arc<dyn ChangeLog> = Arc::new(log);
        let journal = || {
            let (log, clock) = (Arc::clone(&log), Arc::clone(&config.clock));
            Arc::new(Journal::new(log, clock, config.lease))
        };
        let (journal, claims) = (journal(), journal());
        Ok(Self(Arc::new(Core {
            high: Arc::new(high),
            long: Arc::new(long),
            journal,
            claims,
            background: Background::new(Arc::clone(&config.runtime)),
            config,
        })))
    }

    /// What it declares.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.0.config.caps()
    }

    /// Brings to their end the changes of writers whose lease has ended, and those that this writer has left (TS-7).
    ///
    /// It never touches what another writer is at, as far as its lease tells. Several may run at the same time, and
    /// one that is interrupted is taken up by the next.
    ///
    /// # Errors
    ///
    /// Those of the change log. What was begun is in the log, and the next call goes on with it.
    pub async fn recover(&self) -> Result<RecoverReport, Fault> {
        recover(&self.0).await
    }

    /// Looks through the long-term tier for payloads that nothing refers to, and reports or removes them.
    ///
    /// `listing` names what is in the long-term tier. Recover first: this leaves alone what the log still has.
    ///
    /// # Errors
    ///
    /// Those of the listing, of the look at a row, and of the log; what was removed until then stays removed.
    pub async fn audit(
        &self,
        listing: &dyn ObjectListing,
        options: AuditOptions,
    ) -> Result<AuditReport, BackendError> {
        audit(&self.0, listing, options).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Backend for TieredStorage {
    fn name(&self) -> &'static str {
        "tiered"
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Result<(), BackendError> {
        put::put(&self.0, id, metadata, stream).await
    }

    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        get::get(&self.0, id).await
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        get::get_metadata(&self.0, id).await
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        delete::delete(&self.0, id).await
    }

    /// Waits for the removals under way too, and so for the grace of readers.
    async fn join(&self) {
        self.0.background.join().await;
        self.0.high.join().await;
        self.0.long.join().await;
    }
}
