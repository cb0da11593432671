//! What a store is opened with: which file, which engine, how many buffers.

use std::path::{Path, PathBuf};

use larder_traits::{BlobStoreCaps, Caps, Durability, LateLanding};

use crate::disk::DiskOptions;

/// What a frame store declares.
pub const CAPS: Caps = Caps::LEAST
    .with_durability(Durability::Power)
    .with_late_landing(LateLanding::Fenced)
    .with_blob_store(BlobStoreCaps::LEAST.with_exclusive(true));

/// Which file a store is in, and what it goes by there.
///
/// All settings belong to the handle, not to the file.
#[derive(Clone, Debug)]
pub struct FileConfig {
    pub(crate) path: PathBuf,
    pub(crate) disk: DiskOptions,
}

impl FileConfig {
    /// The file at `path`, which is created where it is missing; its folder is not.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            disk: DiskOptions::default(),
        }
    }

    /// The same configuration on the file at `path`.
    #[must_use]
    pub fn with_path(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path, ..self }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a missing file is created; it is by default.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.disk.create = create;
        self
    }

    /// Whether io_uring is used where the machine allows it; it is by default. Positioned reads and writes otherwise.
    #[must_use]
    pub fn with_ring(mut self, ring: bool) -> Self {
        self.disk.ring = ring;
        self
    }

    /// Whether the page cache is passed by where the file system allows it; it is by default.
    #[must_use]
    pub fn with_direct(mut self, direct: bool) -> Self {
        self.disk.direct = direct;
        self
    }

    /// How many frames of 512 KiB the store's pool of buffers keeps, registered with the kernel as far as it allows;
    /// 64 by default. Buffers beyond that are plain heap.
    #[must_use]
    pub fn with_pool_frames(mut self, frames: u32) -> Self {
        self.disk.frames = frames;
        self
    }

    /// What stores with this configuration declare.
    #[must_use]
    pub fn caps(&self) -> Caps {
        CAPS
    }
}
