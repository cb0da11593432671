//! `file:///folder` and `file:folder`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use larder_file::{ChangeLogConfig, FileConfig, FilePlace, FilePlaceConfig, ObjectsConfig};
use larder_traits::{Backend, BlobStore, Caps, ChangeLog, Clock, Contract};

use super::{Medium, Opened, child_path, local};
use crate::keys::Keys;
use crate::open_error::OpenError;

#[derive(Clone, Debug)]
struct File {
    config: FilePlaceConfig,
}

pub(super) fn configure(path: &str, mut keys: Keys) -> Result<Arc<dyn Medium>, OpenError> {
    let why = "a folder is file:///path, or file:path below the working folder";
    let folder = local("file", path, why)?;
    let mut frames = FileConfig::new(folder);
    frames = keys.set("ring", frames, FileConfig::with_ring)?;
    frames = keys.set("direct", frames, FileConfig::with_direct)?;
    frames = keys.set("pool_frames", frames, FileConfig::with_pool_frames)?;
    let mut objects = ObjectsConfig::new(folder);
    let mut changes = ChangeLogConfig::new(folder);
    if let Some(wait) = keys.take("wait_ms")?.map(Duration::from_millis) {
        objects = objects.with_wait(wait);
        changes = changes.with_wait(wait);
    }
    objects = keys.set("threads_max", objects, ObjectsConfig::with_threads_max)?;
    objects = keys.set("in_flight_max", objects, ObjectsConfig::with_in_flight_max)?;
    objects = keys.set(
        "payload_len_bytes_max",
        objects,
        ObjectsConfig::with_payload_len_bytes_max,
    )?;
    objects = keys.set(
        "id_len_bytes_max",
        objects,
        ObjectsConfig::with_id_len_bytes_max,
    )?;
    keys.finish()?;
    let config = FilePlaceConfig::new(folder)
        .with_frames(frames)
        .with_objects(objects)
        .with_changes(changes);
    Ok(Arc::new(File { config }))
}

#[async_trait]
impl Medium for File {
    fn scheme(&self) -> &'static str {
        "file"
    }

    fn child(&self, name: &str) -> Arc<dyn Medium> {
        let folder = child_path(self.config.folder(), name);
        let config = self.config.clone().with_folder(folder);
        Arc::new(Self { config })
    }

    fn erase(&self) -> io::Result<()> {
        FilePlace::erase(self.config.folder())
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Box<dyn Opened>, OpenError> {
        let config = self.config.clone().with_clock(clock);
        Ok(Box::new(FilePlace::open(config)?))
    }
}

#[async_trait]
impl Opened for FilePlace {
    fn scheme(&self) -> &'static str {
        "file"
    }

    fn caps(&self) -> Caps {
        Self::caps(self)
    }

    fn caps_of(&self, contract: Contract) -> Caps {
        match contract {
            Contract::ChangeLog => self.change_log_caps(),
            _ => self.caps(),
        }
    }

    fn offers(&self) -> &'static [Contract] {
        &[Contract::BlobStore, Contract::Backend, Contract::ChangeLog]
    }

    async fn blob_store(&self) -> Result<Arc<dyn BlobStore>, OpenError> {
        let store = Self::blob_store(self);
        Ok(Arc::new(
            store.map_err(|e| OpenError::Failed(e.into_fault()))?,
        ))
    }

    async fn backend(&self) -> Result<Arc<dyn Backend>, OpenError> {
        Ok(Arc::new(Self::backend(self).await?))
    }

    async fn change_log(&self) -> Result<Arc<dyn ChangeLog>, OpenError> {
        Ok(Arc::new(Self::change_log(self).await?))
    }
}
