//! [`BlobStore`]: the frame store on a file.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use larder_traits::blob_store::{BlobGuid, BlobStore, BlobStoreError};
use larder_traits::frame::AlignedBlobBuf;

use crate::config::FileConfig;
use crate::disk::{self, Disk, Engine, Opened};
use crate::error::opening;
use crate::format::StoreId;
use crate::pool::Slab;
use crate::recovery;
use crate::shape::Plan;
use crate::stats::{Recovery, Stats};
use crate::store::{Source, Store, Target};

/// A store of frames in one file.
///
/// A write is on its way to the medium when it returns, and is promised by the next flush. A handle can be cloned; the
/// clones share the open file, which is let go when the last of them is dropped. What was not flushed then is lost.
#[derive(Clone)]
pub struct FileBlobStore {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    slab: Arc<Slab>,
    engine: Engine,
}

impl FileBlobStore {
    /// Opens the file, and lays it out if it is new. It blocks until the store is recovered.
    ///
    /// # Errors
    ///
    /// * `Conflict`: another handle has the file open, in this process or another (BS-14). This takes up to 300 ms, in
    ///   which a process that was just killed may let go of it.
    /// * `NotFound`: there is no such file or folder.
    /// * `PermissionDenied`: the file may not be read and written.
    /// * `Corrupt`: it is no frame store, or so damaged that something that was acknowledged is missing (BS-13).
    /// * `Unsupported`: it has a newer format.
    /// * `NoSpace`: there is no room for an empty store.
    /// * `Unavailable`: the medium failed.
    ///
    /// The outcome is `NotApplied`: nothing that the file held is lost by an attempt to open it.
    pub fn open(config: FileConfig) -> Result<Self, BlobStoreError> {
        Self::open_through(config, |disk| disk)
    }

    /// Opens the file as [`open`](Self::open) does, with a disk of the caller's between the store and the file: one that
    /// counts or delays or fails, for tests.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a configuration belongs to one open, as in all backends"
    )]
    pub fn open_through(
        config: FileConfig,
        wrap: impl FnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>,
    ) -> Result<Self, BlobStoreError> {
        let opened = open_disk(&config);
        let Opened {
            disk, slab, engine, ..
        } = opened.map_err(|e| opening(&e, &config.path).not_applied())?;
        let store = recovery::open(wrap(disk), &Plan::default(), new_id)
            .map_err(|failure| failure.not_applied())?;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                slab,
                engine,
            }),
        })
    }

    /// What reads and writes the file, and why not something better.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// How much the store holds, and what that takes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.store.stats()
    }

    /// What the open found, and what it dropped.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.inner.store.recovery
    }

    fn source<'a>(&self, guid: BlobGuid, src: &'a AlignedBlobBuf) -> Source<'a> {
        Source {
            guid,
            frame: src,
            registered: self.inner.slab.registered_slot(src),
        }
    }

    fn target<'a>(&self, guid: BlobGuid, dst: &'a mut AlignedBlobBuf) -> Target<'a> {
        let registered = self.inner.slab.registered_slot(dst);
        Target {
            guid,
            frame: dst,
            registered,
        }
    }
}

/// How long a file may stay locked after the process that had it was killed: the kernel lets go of a ring's file once
/// the last of its transfers has ended, and that is after the process has.
const LOCK_LINGERS_MAX: Duration = Duration::from_millis(300);

fn open_disk(config: &FileConfig) -> io::Result<Opened> {
    let started = Instant::now();
    loop {
        match disk::open(&config.path, &config.disk) {
            Err(e)
                if e.kind() == io::ErrorKind::ResourceBusy
                    && started.elapsed() < LOCK_LINGERS_MAX =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// 128 bits that no other store has: two hashes with keys that the system drew.
fn new_id() -> StoreId {
    let keys = RandomState::new();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&keys.hash_one(0_u8).to_le_bytes());
    id[8..].copy_from_slice(&keys.hash_one(1_u8).to_le_bytes());
    StoreId(id)
}

/// `read_blob_range` is the provided one: a frame is checked as a whole, so it has to be read as a whole.
impl BlobStore for FileBlobStore {
    fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<(), BlobStoreError> {
        self.inner.store.read(self.target(guid, dst))
    }

    fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<(), BlobStoreError> {
        self.inner.store.write(&[self.source(guid, src)])
    }

    fn delete_blob(&self, guid: BlobGuid) -> Result<(), BlobStoreError> {
        self.inner.store.delete(guid)
    }

    fn list_blobs(&self) -> Result<Vec<BlobGuid>, BlobStoreError> {
        Ok(self.inner.store.list())
    }

    fn flush(&self) -> Result<(), BlobStoreError> {
        let flushed = self.inner.store.flush();
        flushed.map_err(|failure| failure.unknown().into())
    }

    fn alloc_blob_buf_zeroed(&self) -> AlignedBlobBuf {
        self.inner.slab.lease_zeroed()
    }

    fn alloc_blob_buf_uninit(&self) -> AlignedBlobBuf {
        self.inner.slab.lease_recycled()
    }

    /// Beyond the contract, the batch is atomic at a crash: all of it is recovered or none. Only a batch of more than
    /// 12,951 blobs is made of several such groups.
    fn write_blobs(&self, writes: &[(BlobGuid, &AlignedBlobBuf)]) -> Result<(), BlobStoreError> {
        let sources = writes.iter().map(|(guid, src)| self.source(*guid, src));
        let sources: Vec<_> = sources.collect();
        self.inner.store.write(&sources)
    }

    /// The flush that has to follow costs one sync however much the bytes were hurried before, so nothing is.
    fn write_blobs_with_data_sync(
        &self,
        writes: &[(BlobGuid, &AlignedBlobBuf)],
    ) -> Result<(), BlobStoreError> {
        self.write_blobs(writes)
    }

    fn needs_flush(&self) -> bool {
        self.inner.store.needs_flush()
    }

    fn has_blob(&self, guid: BlobGuid) -> Result<bool, BlobStoreError> {
        Ok(self.inner.store.has(guid))
    }

    fn read_blobs(
        &self,
        reads: &mut [(BlobGuid, &mut AlignedBlobBuf)],
    ) -> Vec<Result<(), BlobStoreError>> {
        let targets = reads.iter_mut().map(|(guid, dst)| self.target(*guid, dst));
        self.inner.store.read_all(targets.collect())
    }
}

impl fmt::Debug for FileBlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBlobStore")
            .field("engine", &self.inner.engine)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
