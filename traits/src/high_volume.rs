//! [`HighVolumeBackend`]: small objects and redirects, written under conditions.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Backend, BackendError, ErrorKind, Fault, Metadata, ObjectId, PayloadStream, Tombstone,
};

const _: Option<&dyn HighVolumeBackend> = None;

/// What a row of the high-volume tier holds, with its payload (HV-2).
#[expect(
    clippy::exhaustive_enums,
    reason = "a row has three states, and routing must handle each"
)]
pub enum TieredGet {
    /// The object lies here.
    Object(Metadata, PayloadStream),
    /// The object lies elsewhere.
    Tombstone(Tombstone),
    /// There is no such row, or it has expired.
    NotFound,
}

impl fmt::Debug for TieredGet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(metadata, _) => f.debug_tuple("Object").field(metadata).finish(),
            Self::Tombstone(tombstone) => f.debug_tuple("Tombstone").field(tombstone).finish(),
            Self::NotFound => f.write_str("NotFound"),
        }
    }
}

/// What a row of the high-volume tier holds, without its payload (HV-3).
#[expect(
    clippy::exhaustive_enums,
    reason = "a row has three states, and routing must handle each"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TieredMetadata {
    /// The object lies here.
    Object(Metadata),
    /// The object lies elsewhere.
    Tombstone(Tombstone),
    /// There is no such row, or it has expired.
    NotFound,
}

/// What [`HighVolumeBackend::compare_and_write`] leaves in the row (HV-5).
#[expect(
    clippy::exhaustive_enums,
    reason = "a backend that did not know a write could not refuse it by the table"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TieredWrite {
    /// A redirect.
    Tombstone(Tombstone),
    /// An inline object.
    Object(Metadata, Bytes),
    /// Nothing.
    Delete,
}

/// A [`Backend`] whose rows are absent, inline objects or redirects, and which writes them under conditions.
///
/// The shape is that of the high-volume tier of Sentry's objectstore: small objects lie in the row, large ones
/// elsewhere under a name that the row redirects to. A redirect must never be overwritten by a writer who did not see
/// it, since its payload would be lost; hence the conditions. An expired row counts as absent in every call (HV-8).
///
/// # Consistency
///
/// Every call on one id is atomic and linearizable, through any mix of handles (HV-7).
///
/// # Durability, cancel safety
///
/// As [`Backend`] says.
///
/// # Plain calls on a redirect
///
/// `get_object` and `get_metadata` are
/// [`UnexpectedTombstone`](BackendError::UnexpectedTombstone); `put_object` and `delete_object` act on the row,
/// unconditionally (HV-10).
///
/// # Errors
///
/// As [`Backend`] says. A condition that does not hold is an answer, not an error.
#[async_trait]
pub trait HighVolumeBackend: Backend {
    /// Stores an inline object unless a live redirect is there (HV-1).
    ///
    /// `None`: stored. `Some`: untouched, and this is the redirect, so that the caller can route without asking again.
    ///
    /// # Errors
    ///
    /// As the trait says. After `Unknown` the object may be there: look, or put again.
    async fn put_non_tombstone(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<Option<Tombstone>, BackendError>;

    /// Returns the row, telling its three states apart (HV-2).
    ///
    /// # Errors
    ///
    /// As the trait says; always `NotApplied`.
    async fn get_tiered_object(&self, id: &ObjectId) -> Result<TieredGet, BackendError>;

    /// Returns the row without its payload, which is not fetched from the medium either (HV-3).
    ///
    /// # Errors
    ///
    /// As the trait says; always `NotApplied`.
    async fn get_tiered_metadata(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError>;

    /// Removes the row unless a live redirect is there (HV-4).
    ///
    /// `None`: the row is gone, or was absent. `Some`: untouched, and this is the redirect.
    ///
    /// # Errors
    ///
    /// As the trait says. After `Unknown`, call again.
    async fn delete_non_tombstone(&self, id: &ObjectId) -> Result<Option<Tombstone>, BackendError>;

    /// Writes the row if its redirect is the one that the caller saw (HV-5).
    ///
    /// `current` is that redirect's target, or `None` for "no live redirect". The answer and the effect:
    ///
    /// | `current`, `write` | absent or expired | inline | redirect to `current` | redirect to `write`'s own target | other redirect |
    /// |---|---|---|---|---|---|
    /// | `None`, `Tombstone` | write, true | write, true | – | true, untouched | false |
    /// | `Some`, `Tombstone` | false | false | write, true | true, untouched | false |
    /// | `Some`, `Object` | false | true, untouched | write, true | – | false |
    /// | `Some`, `Delete` | true | true, untouched | write, true | – | false |
    /// | `None`, `Object` or `Delete` | write, true | write, true | – | – | false |
    ///
    /// `false` always leaves the row untouched. A redirect to the write's own target counts as that also where its
    /// policy differs.
    ///
    /// # Atomicity
    ///
    /// The comparison and the write are one step for every other call (HV-7). A repeat answers by the table, and a row
    /// that is still as the first call left it is not written again (HV-6).
    ///
    /// # Errors
    ///
    /// As the trait says. After `Unknown` the write may land later, also on a row that has meanwhile become absent or
    /// inline again: repeat until the answer is certain, or [`fence`](Self::fence).
    async fn compare_and_write(
        &self,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Result<bool, BackendError>;

    /// After `Ok`, no write to `id` that ended `Unknown` before this call, or was dropped before it, lands any more
    /// (HV-6).
    ///
    /// # Errors
    ///
    /// As the trait says, and `Unsupported` where the medium has no such means, which is what the provided body
    /// answers; declared in [`HighVolumeCaps::fence`](crate::HighVolumeCaps::fence).
    async fn fence(&self, id: &ObjectId) -> Result<(), BackendError> {
        let _ = id;
        Err(unsupported("this backend has no fence"))
    }

    /// Moves the deadline of the redirect to `target` to `at`, unless it is that late already (HV-8).
    ///
    /// `true`: the live redirect to `target` ends at `at` or later, or never. `false`: there is no live redirect to
    /// `target`, and nothing was written. A deadline is never shortened.
    ///
    /// # Errors
    ///
    /// As the trait says, and `Unsupported` from the provided body; declared in
    /// [`HighVolumeCaps::extend_expiry`](crate::HighVolumeCaps::extend_expiry).
    async fn extend_expiry(
        &self,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        let _ = (id, target, at);
        Err(unsupported("this backend extends no deadlines"))
    }
}

fn unsupported(why: &'static str) -> BackendError {
    Fault::not_applied(ErrorKind::Unsupported, why).into()
}

macro_rules! forward {
    ($($pointer:ty),+) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: HighVolumeBackend + ?Sized> HighVolumeBackend for $pointer {
            async fn put_non_tombstone(
                &self,
                id: &ObjectId,
                metadata: &Metadata,
                payload: Bytes,
            ) -> Result<Option<Tombstone>, BackendError> {
                (**self).put_non_tombstone(id, metadata, payload).await
            }
            async fn get_tiered_object(&self, id: &ObjectId) -> Result<TieredGet, BackendError> {
                (**self).get_tiered_object(id).await
            }
            async fn get_tiered_metadata(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError> {
                (**self).get_tiered_metadata(id).await
            }
            async fn delete_non_tombstone(&self, id: &ObjectId) -> Result<Option<Tombstone>, BackendError> {
                (**self).delete_non_tombstone(id).await
            }
            async fn compare_and_write(
                &self,
                id: &ObjectId,
                current: Option<&ObjectId>,
                write: TieredWrite,
            ) -> Result<bool, BackendError> {
                (**self).compare_and_write(id, current, write).await
            }
            async fn fence(&self, id: &ObjectId) -> Result<(), BackendError> {
                (**self).fence(id).await
            }
            async fn extend_expiry(
                &self,
                id: &ObjectId,
                target: &ObjectId,
                at: SystemTime,
            ) -> Result<bool, BackendError> {
                (**self).extend_expiry(id, target, at).await
            }
        }
    )+};
}

forward!(Box<T>, Arc<T>, &T);
