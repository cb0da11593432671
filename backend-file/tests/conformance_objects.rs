//! The suite on a folder of objects.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::{BoxError, Caps, Env, Fixture, Probe, backend};
use larder_file::{FileBackend, ObjectsConfig};
use larder_traits::{Backend, TestClock};
use tempfile::TempDir;

/// A folder, in which a place is a folder.
struct World {
    folder: Arc<TempDir>,
    clock: Arc<TestClock>,
    opened: Mutex<Vec<FileBackend>>,
}

fn path_of(folder: &TempDir, place: &str) -> PathBuf {
    folder.path().join(place.replace('/', "~"))
}

fn config(folder: &TempDir, place: &str) -> ObjectsConfig {
    // Small enough for the quick profile to write one that is too large.
    ObjectsConfig::new(path_of(folder, place)).with_payload_len_bytes_max(1 << 20)
}

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self {
            folder: Arc::new(env.tempdir()?),
            clock: Arc::default(),
            opened: Mutex::default(),
        })
    }

    fn caps(&self) -> Caps {
        config(&self.folder, "any").caps()
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(Arc::clone(&self.clock))
    }

    async fn settle(&self) {
        let opened = self.opened.lock().expect("nothing panics with it").clone();
        for handle in opened {
            handle.join().await;
        }
    }

    fn probe(&self) -> Option<Arc<dyn Probe>> {
        Some(Arc::new(Files(Arc::clone(&self.folder))))
    }
}

/// The files of a place, objects and those on their way in.
struct Files(Arc<TempDir>);

fn count(folder: &Path) -> io::Result<u64> {
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files += match entry.file_type()?.is_dir() {
            true => count(&entry.path())?,
            false => 1,
        };
    }
    Ok(files)
}

impl Probe for Files {
    fn rows(&self, place: &str) -> BoxFuture<'_, Result<u64, BoxError>> {
        let path = path_of(&self.0, place);
        async move { Ok(count(&path.join("objects"))? + count(&path.join("tmp"))?) }.boxed()
    }
}

impl backend::Open for World {
    type Store = FileBackend;

    async fn open(&self, place: &str) -> Result<FileBackend, BoxError> {
        let config = config(&self.folder, place).with_clock(Arc::<TestClock>::clone(&self.clock));
        let handle = FileBackend::open(config).await?;
        let mut opened = self.opened.lock().map_err(|e| e.to_string())?;
        opened.push(handle.clone());
        Ok(handle)
    }
}

larder_conformance::main!(backend: World);
