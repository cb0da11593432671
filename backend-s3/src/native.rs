//! [`S3Place`]: a prefix of a bucket, opened.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_traits::{Caps, Fault};

use crate::backend::S3Backend;
use crate::blob_multi::S3Blob;
use crate::config::S3Config;
use crate::high_volume::S3HighVolume;
use crate::key::Folder;
use crate::wire::{Sent, Wire};

/// A prefix of a bucket, opened. Handles of all contracts come from it and share its connections and its bounds.
///
/// Clones are the same place. Dropping the last one closes its connections.
#[derive(Clone)]
pub struct S3Place {
    wire: Arc<Wire>,
}

impl S3Place {
    /// Opens the place: asks the server whether the bucket can be listed with these credentials. A prefix need not
    /// exist, since it is part of names and nothing else.
    ///
    /// # Errors
    ///
    /// `NotFound` for a bucket that does not exist, `PermissionDenied` for credentials that are not accepted,
    /// `Unavailable` for a server that cannot be reached or makes no sense, and for one that leaves open whether it
    /// keeps the conditions of writes (see [`S3Config::with_conditional_writes`]), `Timeout` for one that stays silent
    /// until [`S3Config::with_call_timeout`], `InvalidInput` for a configuration that can never work. Always
    /// `NotApplied`.
    pub async fn open(config: S3Config) -> Result<Self, Fault> {
        let wire = Arc::new(Wire::new(config)?);
        let deadline = wire.deadline();
        let prefix = wire.names.folder(Folder::Blobs);
        let look = async {
            let page = wire.page(&prefix, None, 1).await;
            page.map(drop).map_err(|failure| failure.not_applied())
        };
        wire.call(deadline, &Sent::default(), look).await?;
        if wire.config.conditional_writes {
            let probe = async {
                let found = wire.probe().await;
                found.map_err(|failure| failure.not_applied())
            };
            if let Some(found) = wire.call(deadline, &Sent::default(), probe).await? {
                wire.found_conditions(found);
            }
        }
        Ok(Self { wire })
    }

    /// What the place was opened with.
    #[must_use]
    pub fn config(&self) -> &S3Config {
        &self.wire.config
    }

    /// What is declared for the blobs and the objects of this place.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.wire.config.caps()
    }

    /// Whether the store was seen to keep the conditions of writes when the place was opened. Without them there is
    /// no [`high_volume`](Self::high_volume), and no `TimeToIdle` in [`backend`](Self::backend).
    #[must_use]
    pub fn has_conditional_writes(&self) -> bool {
        self.wire.has_conditions()
    }

    /// What is declared for the rows of this place; `None` where the store lacks conditional writes.
    #[must_use]
    pub fn row_caps(&self) -> Option<Caps> {
        self.has_conditional_writes()
            .then(|| self.wire.config.row_caps())
    }

    /// The blobs of the place.
    #[must_use]
    pub fn blob_multi(&self) -> S3Blob {
        S3Blob::new(Arc::clone(&self.wire))
    }

    /// The objects of the place, streamed both ways.
    #[must_use]
    pub fn backend(&self) -> S3Backend {
        S3Backend::new(Arc::clone(&self.wire))
    }

    /// The rows of the place. Where the store lacks conditional writes every call is `Unsupported`.
    #[must_use]
    pub fn high_volume(&self) -> S3HighVolume {
        S3HighVolume::new(Arc::clone(&self.wire))
    }

    /// Gives up the uploads below the prefix that were begun more than `age` ago, and returns how many: what processes
    /// have left behind that were killed, or that never heard whether an upload was completed. They take room and show
    /// nowhere else. A day is a good age; it must be longer than any upload takes, since the one that is swept fails.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); some uploads may be gone then.
    pub async fn sweep_uploads(&self, age: Duration) -> Result<u64, Fault> {
        let wire = &self.wire;
        let sweep = async {
            let mut swept = 0;
            for folder in [Folder::Blobs, Folder::Objects] {
                let found = wire.sweep(&wire.names.folder(folder), age).await;
                swept += found.map_err(|failure| failure.not_applied())?;
            }
            Ok(swept)
        };
        wire.call(wire.deadline(), &Sent::default(), sweep).await
    }

    /// Waits until what ended calls have left to be cleaned up is cleaned up, or was given up.
    pub async fn settled(&self) {
        self.wire.settled().await;
    }
}

impl fmt::Debug for S3Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3Place").field(&self.wire.config).finish()
    }
}

impl Wire {
    /// When a call that has no deadline of its own gives up.
    pub(crate) fn deadline(&self) -> Instant {
        let now = Instant::now();
        let far = Duration::from_secs(365 * 24 * 60 * 60);
        now + self.config.call_timeout.min(far)
    }
}
