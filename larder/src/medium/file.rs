//! `file:///folder` and `file:folder`.

use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use larder_file::{ChangeLogConfig, FileConfig, FilePlace, FilePlaceConfig, ObjectsConfig};
use larder_traits::{Backend, BlobStore, Caps, ChangeLog, Clock, Contract};

use super::{Medium, Opened};
use crate::keys::Keys;
use crate::open_error::OpenError;

#[derive(Clone, Debug)]
struct File {
    config: FilePlaceConfig,
}

pub(super) fn configure(path: &str, mut keys: Keys) -> Result<Arc<dyn Medium>, OpenError> {
    let folder = match path.strip_prefix("//") {
        Some(local) if local.starts_with('/') => local,
        None if !path.is_empty() => path,
        _ => {
            return Err(OpenError::Malformed {
                url: format!("file:{path}"),
                why: "a folder is file:///path, or file:path below the working folder",
            });
        }
    };
    let mut frames = FileConfig::new(folder);
    if let Some(ring) = keys.take("ring")? {
        frames = frames.with_ring(ring);
    }
    if let Some(direct) = keys.take("direct")? {
        frames = frames.with_direct(direct);
    }
    if let Some(pool) = keys.take("pool_frames")? {
        frames = frames.with_pool_frames(pool);
    }
    let mut objects = ObjectsConfig::new(folder);
    let mut changes = ChangeLogConfig::new(folder);
    if let Some(wait) = keys.take("wait_ms")?.map(Duration::from_millis) {
        objects = objects.with_wait(wait);
        changes = changes.with_wait(wait);
    }
    if let Some(max) = keys.take::<NonZeroUsize>("threads_max")? {
        objects = objects.with_threads_max(max);
    }
    if let Some(max) = keys.take::<NonZeroUsize>("in_flight_max")? {
        objects = objects.with_in_flight_max(max);
    }
    if let Some(max) = keys.take("payload_len_bytes_max")? {
        objects = objects.with_payload_len_bytes_max(max);
    }
    if let Some(max) = keys.take("id_len_bytes_max")? {
        objects = objects.with_id_len_bytes_max(max);
    }
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

    /// A folder beside this one. Slashes of a name are written otherwise than the step to a child.
    fn child(&self, name: &str) -> Arc<dyn Medium> {
        let mut folder = OsString::from(self.config.folder());
        folder.push(format!("~{}", name.replace('/', "+")));
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

    fn offers(&self) -> &'static [Contract] {
        &[Contract::BlobStore, Contract::Backend]
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
