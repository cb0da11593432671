//! [`Backend`]: whole objects, streamed.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;

use crate::{Classify, ErrorKind, Fault, Metadata, ObjectId, Outcome, Tombstone};

const _: Option<&dyn Backend> = None;
const _: Option<&dyn ObjectListing> = None;

/// The payload of a put, as the caller provides it.
pub type ClientStream = BoxStream<'static, Result<Bytes, ClientError>>;

/// The payload of a get. A body that ends early is an error in the stream, never a short end (BK-2).
pub type PayloadStream = BoxStream<'static, Result<Bytes, BackendError>>;

/// The answer of [`Backend::get_object`]: `None` where the object is absent or expired.
pub type GetResponse = Option<(Metadata, PayloadStream)>;

/// An error that the caller's own stream produced during a put. The object is as it was before.
#[derive(Debug, thiserror::Error)]
#[error("the payload stream of the caller failed")]
pub struct ClientError(#[source] Box<dyn Error + Send + Sync>);

impl ClientError {
    /// The caller's error, to be handed back by the put that met it.
    #[must_use]
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }

    /// The caller's error again.
    #[must_use]
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.0
    }
}

/// The error of [`Backend`] and [`HighVolumeBackend`](crate::HighVolumeBackend).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The backend refused or failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The caller's stream failed (kind `InvalidInput`, `NotApplied`). Nothing is wrong with the store.
    #[error(transparent)]
    Client(ClientError),
    /// A plain call met a redirect, which only the tiered calls can answer (kind `Conflict`, `NotApplied`; HV-10).
    #[error("the row is a redirect to {}", .0.target)]
    UnexpectedTombstone(Box<Tombstone>),
}

impl Classify for BackendError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Fault(fault) => fault.kind(),
            Self::Client(_) => ErrorKind::InvalidInput,
            Self::UnexpectedTombstone(_) => ErrorKind::Conflict,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Fault(fault) => fault.outcome(),
            Self::Client(_) | Self::UnexpectedTombstone(_) => Outcome::NotApplied,
        }
    }
}

/// A store of whole objects with metadata, streamed both ways.
///
/// The shape is that of the storage backends of Sentry's objectstore. As a long-term tier an implementor holds large
/// payloads; with [`HighVolumeBackend`](crate::HighVolumeBackend) on top it holds small ones and redirects.
///
/// # Atomicity
///
/// A put replaces the whole object with its metadata: readers, a crash, a failing client stream and a dropped call
/// see the old object or the new one (BK-1).
///
/// # Durability
///
/// On `Ok` a put or a delete survives what [`Caps::durability`](crate::Caps::durability) names (BK-4).
///
/// # Consistency
///
/// An object whose deadline has come is absent for every call; the deadline is judged by the injected clock (HV-8,
/// C-5). See [`Metadata`] for what a put fills in.
///
/// # Cancel safety
///
/// A dropped future leaves the store usable and no object torn. The outcome of the dropped call is `Unknown`; whether
/// it may still land later is declared in [`Caps::late_landing`](crate::Caps::late_landing) (C-6).
///
/// # Errors
///
/// [`BackendError::Fault`] of any kind. Above a declared bound: `InvalidInput`, before any effect (C-4).
#[async_trait]
pub trait Backend: Debug + Send + Sync {
    /// A short fixed name for logs and metrics, such as `file`.
    fn name(&self) -> &'static str;

    /// Creates or replaces the object `id` (BK-1). Payloads are passed on as they come; memory stays bounded (BK-6).
    ///
    /// # Errors
    ///
    /// As the trait says; and [`BackendError::Client`] with the caller's own error when `stream` fails, the old object
    /// intact. After `Unknown` the new object may be there: look, or put again.
    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Result<(), BackendError>;

    /// Returns the object's metadata and its payload, all of one version however long the reading takes (BK-2).
    ///
    /// # Errors
    ///
    /// As the trait says, from the call or from the stream; always `NotApplied`.
    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError>;

    /// Returns the object's metadata without its payload (BK-2).
    ///
    /// # Errors
    ///
    /// As the trait says; always `NotApplied`.
    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError>;

    /// Removes the object `id`, and it alone; `Ok` also where it is absent (BK-3).
    ///
    /// # Errors
    ///
    /// As the trait says. After `Unknown`, delete again.
    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError>;

    /// Waits until the work that earlier calls left in the background has ended. It always ends, also when that work
    /// fails (BK-5).
    async fn join(&self);
}

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectPage {
    /// Objects, each with its whole id as it was given to the put.
    pub ids: Vec<ObjectId>,
    /// Where the listing goes on; `None` at its end. Only the backend that made it can read it.
    pub next: Option<String>,
}

impl ObjectPage {
    /// A page with these objects, after which the listing goes on at `next`.
    #[must_use]
    pub fn new(ids: Vec<ObjectId>, next: Option<String>) -> Self {
        Self { ids, next }
    }
}

/// A [`Backend`] that can name what it holds. Optional: whoever looks for payloads that nothing refers to needs it, and
/// nobody else does.
///
/// # Consistency
///
/// An object that is there from the first page to the last is named exactly once. One that is put or deleted
/// meanwhile may be named or not. Nothing that is not an object of this place shows. An object that has expired may be
/// named for as long as it takes up space. The order is the backend's own.
#[async_trait]
pub trait ObjectListing: Backend {
    /// Names up to `limit` objects, from the beginning or from where the last page's `next` says.
    ///
    /// A page may be shorter than `limit`, and even empty, without being the last. A `limit` of 0 is taken as 1.
    ///
    /// # Errors
    ///
    /// As [`Backend`] says; always `NotApplied`. `InvalidInput` for an `after` that no page of this backend gave.
    async fn list_objects(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ObjectPage, BackendError>;
}

macro_rules! forward {
    ($($pointer:ty),+) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: Backend + ?Sized> Backend for $pointer {
            fn name(&self) -> &'static str {
                (**self).name()
            }
            async fn put_object(
                &self,
                id: &ObjectId,
                metadata: &Metadata,
                stream: ClientStream,
            ) -> Result<(), BackendError> {
                (**self).put_object(id, metadata, stream).await
            }
            async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
                (**self).get_object(id).await
            }
            async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
                (**self).get_metadata(id).await
            }
            async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
                (**self).delete_object(id).await
            }
            async fn join(&self) {
                (**self).join().await;
            }
        }

        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: ObjectListing + ?Sized> ObjectListing for $pointer {
            async fn list_objects(
                &self,
                after: Option<&str>,
                limit: usize,
            ) -> Result<ObjectPage, BackendError> {
                (**self).list_objects(after, limit).await
            }
        }
    )+};
}

forward!(Box<T>, Arc<T>, &T);
