//! [`BlobStore`]: one map from names to frames, copied in and out.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_traits::blob_store::{BlobGuid, BlobStore, BlobStoreError};
use larder_traits::frame::{AlignedBlobBuf, FramePool};

use crate::native::{MemPlace, lock};

/// How many used frames a place keeps for the next buffers: 32 MiB of them.
const IDLE_FRAMES_MAX: usize = 64;

/// The frames of a place.
///
/// Nothing becomes durable here, and a flush only says that there is nothing left to do. Since there is nothing to
/// protect on a medium, a place may be open any number of times (BS-14 asks exclusiveness of durable stores).
#[derive(Clone, Debug)]
pub struct MemBlobStore(pub(crate) MemPlace);

/// All frames, and whether any changed since the last flush.
pub(crate) struct Frames {
    /// Shared, so that a reader copies its frame after the lock; a write puts another frame in its place.
    frames: BTreeMap<BlobGuid, Arc<AlignedBlobBuf>>,
    changed: bool,
    pool: Arc<FramePool>,
}

impl Frames {
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            frames: BTreeMap::new(),
            changed: false,
            pool: FramePool::new(IDLE_FRAMES_MAX),
        }
    }
}

impl MemBlobStore {
    fn pool(&self) -> Arc<FramePool> {
        Arc::clone(&lock(&self.0.shared.frames).pool)
    }
}

impl BlobStore for MemBlobStore {
    fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<(), BlobStoreError> {
        let frame = lock(&self.0.shared.frames).frames.get(&guid).cloned();
        let frame = frame.ok_or_else(|| BlobStoreError::not_found(guid))?;
        dst.copy_from_slice(&frame);
        Ok(())
    }

    fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<(), BlobStoreError> {
        let mut frame = self.pool().lease_recycled();
        frame.copy_from_slice(src);
        let mut frames = lock(&self.0.shared.frames);
        let replaced = frames.frames.insert(guid, Arc::new(frame));
        frames.changed = true;
        // The old frame goes once the lock is free, by whoever is the last to read it.
        drop(frames);
        drop(replaced);
        Ok(())
    }

    fn delete_blob(&self, guid: BlobGuid) -> Result<(), BlobStoreError> {
        let mut frames = lock(&self.0.shared.frames);
        frames.frames.remove(&guid);
        frames.changed = true;
        Ok(())
    }

    fn list_blobs(&self) -> Result<Vec<BlobGuid>, BlobStoreError> {
        Ok(lock(&self.0.shared.frames).frames.keys().copied().collect())
    }

    fn flush(&self) -> Result<(), BlobStoreError> {
        lock(&self.0.shared.frames).changed = false;
        Ok(())
    }

    fn alloc_blob_buf_zeroed(&self) -> AlignedBlobBuf {
        self.pool().lease_zeroed()
    }

    fn alloc_blob_buf_uninit(&self) -> AlignedBlobBuf {
        self.pool().lease_recycled()
    }

    fn needs_flush(&self) -> bool {
        lock(&self.0.shared.frames).changed
    }

    fn has_blob(&self, guid: BlobGuid) -> Result<bool, BlobStoreError> {
        Ok(lock(&self.0.shared.frames).frames.contains_key(&guid))
    }
}
