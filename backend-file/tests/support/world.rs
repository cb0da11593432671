//! The fixture: a folder of stores, on one engine or the other.

use std::path::PathBuf;
use std::sync::Arc;

use larder_conformance::{BoxError, Caps, Env, Faults, Fixture, blob_store};
use larder_file::{CAPS, FileBlobStore, FileConfig};
use tempfile::TempDir;

use super::switch::Switch;

/// A folder, in which a place is a folder with a file.
pub(crate) struct World<const RING: bool> {
    folder: TempDir,
    switch: Arc<Switch>,
}

impl<const RING: bool> World<RING> {
    fn place(&self, place: &str) -> PathBuf {
        self.folder.path().join(place.replace('/', "~"))
    }
}

impl<const RING: bool> Fixture for World<RING> {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self {
            folder: env.tempdir()?,
            switch: Arc::default(),
        })
    }

    fn caps(&self) -> Caps {
        CAPS
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        let switch = Arc::clone(&self.switch);
        Some(switch)
    }
}

impl<const RING: bool> blob_store::Open for World<RING> {
    type Store = FileBlobStore;

    async fn open(&self, place: &str) -> Result<FileBlobStore, BoxError> {
        let folder = self.place(place);
        std::fs::create_dir_all(&folder)?;
        let config = FileConfig::new(folder.join("frames"))
            .with_ring(RING)
            .with_pool_frames(8);
        let switch = Arc::clone(&self.switch);
        let open = move || FileBlobStore::open_through(config, |disk| switch.before(disk));
        Ok(tokio::task::spawn_blocking(open).await??)
    }

    fn folder(&self, place: &str) -> Option<PathBuf> {
        Some(self.place(place))
    }
}
