//! The suite on a change log in a file.

use std::path::PathBuf;

use larder_conformance::{BoxError, Caps, Env, Fixture, change_log};
use larder_file::{FilePlace, FilePlaceConfig};
use larder_traits::ChangeLog;
use tempfile::TempDir;

/// A folder, in which a place is a folder.
struct World(TempDir);

impl World {
    fn config(&self, place: &str) -> FilePlaceConfig {
        let folder: PathBuf = self.0.path().join(place.replace('/', "~"));
        FilePlaceConfig::new(folder)
    }
}

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self(env.tempdir()?))
    }

    fn caps(&self) -> Caps {
        self.config("any").change_log_caps()
    }
}

impl change_log::Open for World {
    type Store = Box<dyn ChangeLog>;

    async fn open(&self, place: &str) -> Result<Self::Store, BoxError> {
        let place = FilePlace::open(self.config(place))?;
        // The folder is the suite's affair, and its name has to be durable for what lies in it.
        std::fs::File::open(self.0.path())?.sync_all()?;
        Ok(Box::new(place.change_log().await?))
    }
}

larder_conformance::main!(change_log: World);
