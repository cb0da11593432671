//! Worlds of a `BlobStore` that keeps the frames of a place in a folder, and is open once.

use std::path::{Path, PathBuf};

use larder_conformance::{BoxError, Caps, Env, Fixture, Suite, blob_store};
use larder_traits::{BlobStore, BlobStoreCaps};
use tempfile::TempDir;

struct World<F> {
    folder: TempDir,
    caps: Caps,
    open: F,
}

impl<F> World<F> {
    fn folder_of(&self, place: &str) -> PathBuf {
        self.folder.path().join(place.replace('/', "~"))
    }
}

impl<F: Send + Sync + 'static> Fixture for World<F> {
    async fn new(_env: &Env) -> Result<Self, BoxError> {
        Err("a world is made by its suite".into())
    }

    fn caps(&self) -> Caps {
        self.caps
    }
}

impl<S, F> blob_store::Open for World<F>
where
    S: BlobStore + 'static,
    F: Fn(&Path) -> Result<S, BoxError> + Send + Sync + 'static,
{
    type Store = S;

    async fn open(&self, place: &str) -> Result<S, BoxError> {
        (self.open)(&self.folder_of(place))
    }

    fn folder(&self, place: &str) -> Option<PathBuf> {
        Some(self.folder_of(place))
    }
}

/// The suite on stores that `open` opens in a folder.
pub(super) fn suite<S, F>(caps: Caps, open: F) -> Suite
where
    S: BlobStore + 'static,
    F: Fn(&Path) -> Result<S, BoxError> + Copy + Send + Sync + 'static,
{
    let caps = caps.with_blob_store(BlobStoreCaps::LEAST.with_exclusive(true));
    blob_store::suite_with(move |env| async move {
        let folder = env.tempdir()?;
        Ok(World { folder, caps, open })
    })
}
