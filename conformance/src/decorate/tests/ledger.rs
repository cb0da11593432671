//! A store of every contract that keeps nothing but the names of the methods that reached it.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_traits::stash::{Frontiers, Rows, Snapshot, StashOp};
use larder_traits::{
    AlignedBlobBuf, Atomicity, Backend, BackendError, BlobGuid, BlobInfo, BlobMulti, BlobStore,
    BlobStoreError, Change, ChangeId, ChangeLog, ClientStream, CollectionId, ErrorKind,
    ExternalError, Fault, GetResponse, HighVolumeBackend, KvClientError, KvDriver, Metadata,
    ObjectId, PayloadStream, StashDriver, StashError, TieredGet, TieredMetadata, TieredWrite,
    Tombstone, WriterId,
};

/// Shared by its clones.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(Arc<Mutex<Vec<&'static str>>>);

impl Ledger {
    fn note(&self, method: &'static str) {
        self.0.lock().unwrap().push(method);
    }

    /// The methods called since the last time.
    pub(super) fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A payload of ten bytes in chunks of four.
fn payload() -> PayloadStream {
    let chunks = [&b"0123"[..], b"4567", b"89"];
    stream::iter(chunks.map(|chunk| Ok(Bytes::from_static(chunk)))).boxed()
}

#[async_trait]
impl BlobMulti for Ledger {
    async fn get(&self, deadline: Instant, _: &str) -> Result<Option<Vec<u8>>, ExternalError> {
        let _ = deadline;
        self.note("get");
        Ok(None)
    }
    async fn list_keys(&self, _: Instant) -> Result<Vec<String>, ExternalError> {
        self.note("list_keys");
        Ok(Vec::new())
    }
    async fn set(
        &self,
        deadline: Instant,
        _: &str,
        _: Bytes,
        _: Atomicity,
    ) -> Result<(), ExternalError> {
        if deadline < Instant::now() {
            return Err(Fault::not_applied(ErrorKind::Timeout, "too late").into());
        }
        self.note("set");
        Ok(())
    }
    async fn delete(&self, _: Instant, _: &str) -> Result<(), ExternalError> {
        self.note("delete");
        Ok(())
    }
    async fn get_bytes(&self, _: Instant, _: &str) -> Result<Option<Bytes>, ExternalError> {
        self.note("get_bytes");
        Ok(None)
    }
    async fn get_range(
        &self,
        _: Instant,
        _: &str,
        _: Range<u64>,
    ) -> Result<Option<Bytes>, ExternalError> {
        self.note("get_range");
        Ok(None)
    }
    async fn list_prefix(&self, _: Instant, _: &str) -> Result<Vec<BlobInfo>, ExternalError> {
        self.note("list_prefix");
        Ok(Vec::new())
    }
}

#[async_trait]
impl Backend for Ledger {
    fn name(&self) -> &'static str {
        "ledger"
    }
    async fn put_object(
        &self,
        _: &ObjectId,
        _: &Metadata,
        stream: ClientStream,
    ) -> Result<(), BackendError> {
        let chunks: Vec<Bytes> = stream.try_collect().await.map_err(BackendError::Client)?;
        drop(chunks);
        self.note("put_object");
        Ok(())
    }
    async fn get_object(&self, _: &ObjectId) -> Result<GetResponse, BackendError> {
        self.note("get_object");
        Ok(Some((Metadata::default(), payload())))
    }
    async fn get_metadata(&self, _: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        self.note("get_metadata");
        Ok(None)
    }
    async fn delete_object(&self, _: &ObjectId) -> Result<(), BackendError> {
        self.note("delete_object");
        Ok(())
    }
    async fn join(&self) {
        self.note("join");
    }
}

#[async_trait]
impl HighVolumeBackend for Ledger {
    async fn put_non_tombstone(
        &self,
        _: &ObjectId,
        _: &Metadata,
        _: Bytes,
    ) -> Result<Option<Tombstone>, BackendError> {
        self.note("put_non_tombstone");
        Ok(None)
    }
    async fn get_tiered_object(&self, _: &ObjectId) -> Result<TieredGet, BackendError> {
        self.note("get_tiered_object");
        Ok(TieredGet::Object(Metadata::default(), payload()))
    }
    async fn get_tiered_metadata(&self, _: &ObjectId) -> Result<TieredMetadata, BackendError> {
        self.note("get_tiered_metadata");
        Ok(TieredMetadata::NotFound)
    }
    async fn delete_non_tombstone(&self, _: &ObjectId) -> Result<Option<Tombstone>, BackendError> {
        self.note("delete_non_tombstone");
        Ok(None)
    }
    async fn compare_and_write(
        &self,
        _: &ObjectId,
        _: Option<&ObjectId>,
        _: TieredWrite,
    ) -> Result<bool, BackendError> {
        self.note("compare_and_write");
        Ok(true)
    }
    async fn fence(&self, _: &ObjectId) -> Result<(), BackendError> {
        self.note("fence");
        Ok(())
    }
    async fn extend_expiry(
        &self,
        _: &ObjectId,
        _: &ObjectId,
        _: SystemTime,
    ) -> Result<bool, BackendError> {
        self.note("extend_expiry");
        Ok(true)
    }
}

#[async_trait]
impl KvDriver for Ledger {
    async fn write(&self, _: &[u8], _: &[u8], _: Option<u64>) -> Result<(), KvClientError> {
        self.note("write");
        Ok(())
    }
    async fn read(&self, _: &[u8]) -> Result<Option<Bytes>, KvClientError> {
        self.note("read");
        Ok(None)
    }
    async fn read_many(&self, _: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
        self.note("read_many");
        Ok(Vec::new())
    }
    async fn remove(&self, _: &[u8]) -> Result<(), KvClientError> {
        self.note("remove");
        Ok(())
    }
}

#[async_trait]
impl StashDriver for Ledger {
    async fn open(&self, _: &str) -> Result<CollectionId, StashError> {
        self.note("open");
        Ok(CollectionId::new(1))
    }
    async fn names(&self) -> Result<Vec<(String, CollectionId)>, StashError> {
        self.note("names");
        Ok(Vec::new())
    }
    async fn discard(&self, _: &str) -> Result<bool, StashError> {
        self.note("discard");
        Ok(false)
    }
    async fn snapshot(&self, _: CollectionId, rows: Rows<'_>) -> Result<Snapshot, StashError> {
        self.note(match rows {
            Rows::None => "snapshot of none",
            Rows::Key(b"k") => "snapshot of k",
            Rows::Key(_) => "snapshot of another key",
            Rows::All => "snapshot",
        });
        Ok(Snapshot {
            frontiers: Frontiers::new(),
            rows: Vec::new(),
        })
    }
    async fn commit(&self, _: Vec<StashOp>) -> Result<(), StashError> {
        self.note("commit");
        Ok(())
    }
}

#[async_trait]
impl ChangeLog for Ledger {
    async fn record(&self, _: WriterId, _: &Change) -> Result<(), Fault> {
        self.note("record");
        Ok(())
    }
    async fn complete(&self, _: WriterId, _: ChangeId) -> Result<(), Fault> {
        self.note("complete");
        Ok(())
    }
    async fn changes(&self, _: WriterId) -> Result<Vec<Change>, Fault> {
        self.note("changes");
        Ok(Vec::new())
    }
    async fn renew(&self, _: WriterId, _: SystemTime) -> Result<(), Fault> {
        self.note("renew");
        Ok(())
    }
    async fn claim(&self, _: WriterId, _: SystemTime, _: usize) -> Result<Vec<Change>, Fault> {
        self.note("claim");
        Ok(Vec::new())
    }
}

impl BlobStore for Ledger {
    fn read_blob(&self, _: BlobGuid, _: &mut AlignedBlobBuf) -> Result<(), BlobStoreError> {
        self.note("read_blob");
        Ok(())
    }
    fn write_blob(&self, _: BlobGuid, _: &AlignedBlobBuf) -> Result<(), BlobStoreError> {
        self.note("write_blob");
        Ok(())
    }
    fn delete_blob(&self, _: BlobGuid) -> Result<(), BlobStoreError> {
        self.note("delete_blob");
        Ok(())
    }
    fn list_blobs(&self) -> Result<Vec<BlobGuid>, BlobStoreError> {
        self.note("list_blobs");
        Ok(Vec::new())
    }
    fn flush(&self) -> Result<(), BlobStoreError> {
        self.note("flush");
        Ok(())
    }
    fn write_blobs(&self, writes: &[(BlobGuid, &AlignedBlobBuf)]) -> Result<(), BlobStoreError> {
        assert!(writes.iter().all(|(_, frame)| frame[0] == 7));
        self.note("write_blobs");
        Ok(())
    }
    fn write_blobs_with_data_sync(
        &self,
        _: &[(BlobGuid, &AlignedBlobBuf)],
    ) -> Result<(), BlobStoreError> {
        self.note("write_blobs_with_data_sync");
        Ok(())
    }
    fn needs_flush(&self) -> bool {
        false
    }
    fn has_blob(&self, _: BlobGuid) -> Result<bool, BlobStoreError> {
        self.note("has_blob");
        Ok(false)
    }
}
