//! Stores each call to which is a step of its own.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::{
    Backend, BackendError, Change, ChangeId, ChangeLog, ClientStream, Fault, GetResponse,
    HighVolumeBackend, Metadata, ObjectId, ObjectListing, ObjectPage, TieredGet, TieredMetadata,
    TieredWrite, Tombstone, WriterId,
};

use super::step;

/// The store beneath, with a wait before each call to it: whoever stands on it can be overtaken there.
#[derive(Debug)]
pub struct Stepped<S>(Arc<S>);

impl<S> Stepped<S> {
    /// The store `inner`, one step at a time.
    pub fn new(inner: S) -> Self {
        Self(Arc::new(inner))
    }
}

impl<S> Clone for Stepped<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Backend> Backend for Stepped<S> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Result<(), BackendError> {
        step().await;
        self.0.put_object(id, metadata, stream).await
    }

    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        step().await;
        self.0.get_object(id).await
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        step().await;
        self.0.get_metadata(id).await
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        step().await;
        self.0.delete_object(id).await
    }

    async fn join(&self) {
        self.0.join().await;
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: ObjectListing> ObjectListing for Stepped<S> {
    async fn list_objects(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ObjectPage, BackendError> {
        step().await;
        self.0.list_objects(after, limit).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: HighVolumeBackend> HighVolumeBackend for Stepped<S> {
    async fn put_non_tombstone(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<Option<Tombstone>, BackendError> {
        step().await;
        self.0.put_non_tombstone(id, metadata, payload).await
    }

    async fn get_tiered_object(&self, id: &ObjectId) -> Result<TieredGet, BackendError> {
        step().await;
        self.0.get_tiered_object(id).await
    }

    async fn get_tiered_metadata(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError> {
        step().await;
        self.0.get_tiered_metadata(id).await
    }

    async fn delete_non_tombstone(&self, id: &ObjectId) -> Result<Option<Tombstone>, BackendError> {
        step().await;
        self.0.delete_non_tombstone(id).await
    }

    async fn compare_and_write(
        &self,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Result<bool, BackendError> {
        step().await;
        self.0.compare_and_write(id, current, write).await
    }

    async fn fence(&self, id: &ObjectId) -> Result<(), BackendError> {
        step().await;
        self.0.fence(id).await
    }

    async fn extend_expiry(
        &self,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        step().await;
        self.0.extend_expiry(id, target, at).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: ChangeLog> ChangeLog for Stepped<S> {
    async fn record(&self, writer: WriterId, change: &Change) -> Result<(), Fault> {
        step().await;
        self.0.record(writer, change).await
    }

    async fn complete(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
        step().await;
        self.0.complete(writer, id).await
    }

    async fn changes(&self, writer: WriterId) -> Result<Vec<Change>, Fault> {
        step().await;
        self.0.changes(writer).await
    }

    async fn renew(&self, writer: WriterId, until: SystemTime) -> Result<(), Fault> {
        step().await;
        self.0.renew(writer, until).await
    }

    async fn claim(
        &self,
        writer: WriterId,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<Change>, Fault> {
        step().await;
        self.0.claim(writer, now, limit).await
    }
}
