//! An opened place, from which the traits are had.

use std::sync::Arc;

use larder_traits::{
    Backend, BlobMulti, BlobStore, Caps, ChangeLog, Clock, Contract, HighVolumeBackend, KvDriver,
    StashDriver, SystemClock,
};

use crate::medium::Opened;
use crate::open_error::OpenError;

/// What an application decides that no URL can say.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    clock: Arc<dyn Clock>,
}

impl OpenOptions {
    /// The machine's own clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// The clock that decides expiry (C-5), for backends that decide it on this side.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// An opened place. Each contract that it offers is had as a trait object; all of them are handles on this one place.
///
/// [`StashDriver`] is a [`Stash`](crate::Stash) and [`KvDriver`] is a [`KvClient`](crate::KvClient), and so is an
/// `Arc` of either. A contract that the backend does not offer is [`OpenError::NotOffered`].
#[derive(Debug)]
pub struct Store {
    opened: Box<dyn Opened>,
}

impl Store {
    pub(crate) fn new(opened: Box<dyn Opened>) -> Self {
        Self { opened }
    }

    /// The scheme of the backend.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.opened.scheme()
    }

    /// What the backend declares, with the bounds of this configuration.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.opened.caps()
    }

    /// What the backend declares for `contract`. A bound may differ from one contract to the next, where a medium has
    /// more than one way to keep things.
    #[must_use]
    pub fn caps_of(&self, contract: Contract) -> Caps {
        self.opened.caps_of(contract)
    }

    /// The contracts that the backend offers.
    #[must_use]
    pub fn offers(&self) -> &'static [Contract] {
        self.opened.offers()
    }
}

macro_rules! handles {
    ($($(#[$doc:meta])* $method:ident -> $object:ty;)+) => {
        impl Store {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// [`OpenError::NotOffered`], or [`OpenError::Failed`] where the medium refuses or fails.
                pub async fn $method(&self) -> Result<Arc<$object>, OpenError> {
                    self.opened.$method().await
                }
            )+
        }
    };
}

handles! {
    /// The place as linearizable blobs with deadlines.
    blob_multi -> dyn BlobMulti;
    /// The place as durable, time-varying collections.
    stash -> dyn StashDriver;
    /// The place as frames for a page cache.
    blob_store -> dyn BlobStore;
    /// The place as streamed objects.
    backend -> dyn Backend;
    /// The place as small objects and redirects.
    high_volume -> dyn HighVolumeBackend;
    /// The place as linearizable key-value with time to live.
    kv_client -> dyn KvDriver;
    /// The place as the change log of a combinator.
    change_log -> dyn ChangeLog;
}
