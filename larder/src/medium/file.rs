//! `file:///folder` and `file:folder`.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use larder_file::{
    ChangeLogConfig, FileBackend, FileBlobStore, FileChangeLog, FileConfig, ObjectsConfig,
};
use larder_traits::{Backend, BlobStore, Caps, ChangeLog, Clock, Contract, ErrorKind, Fault};

use super::{Medium, Opened};
use crate::keys::Keys;
use crate::open_error::OpenError;

/// What lies in the folder, each made when it is first asked for.
const FRAMES: &str = "frames.larder";
const OBJECTS: &str = "objects";
const CHANGES: &str = "changes.log";

#[derive(Clone, Debug)]
struct File {
    folder: PathBuf,
    /// All settings but the paths, which follow from the folder.
    frames: FileConfig,
    objects: ObjectsConfig,
    changes_wait: Option<Duration>,
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
    let changes_wait = keys.take("wait_ms")?.map(Duration::from_millis);
    if let Some(wait) = changes_wait {
        objects = objects.with_wait(wait);
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
    let folder = folder.into();
    Ok(Arc::new(File {
        folder,
        frames,
        objects,
        changes_wait,
    }))
}

impl File {
    fn caps(&self) -> Caps {
        self.objects
            .caps()
            .with_blob_store(self.frames.caps().blob_store)
    }

    fn changes(&self) -> ChangeLogConfig {
        let config = ChangeLogConfig::new(self.folder.join(CHANGES));
        match self.changes_wait {
            Some(wait) => config.with_wait(wait),
            None => config,
        }
    }
}

/// Makes the folder; the one it is in must be there, since a name that was mistyped is the likelier explanation.
fn made(folder: &Path) -> Result<(), Fault> {
    let refused = |e: io::Error| {
        let kind = match e.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::StorageFull => ErrorKind::NoSpace,
            io::ErrorKind::NotADirectory => ErrorKind::InvalidInput,
            _ => ErrorKind::Unavailable,
        };
        let text = format!("the folder {} cannot be opened", folder.display());
        Fault::not_applied(kind, text).because(e)
    };
    match fs::create_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(refused(io::ErrorKind::NotADirectory.into()))
        }
        made => made.map_err(refused),
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[async_trait]
impl Medium for File {
    fn scheme(&self) -> &'static str {
        "file"
    }

    /// A folder beside this one. Slashes of a name are written otherwise than the step to a child.
    fn child(&self, name: &str) -> Arc<dyn Medium> {
        let mut folder = self.folder.clone().into_os_string();
        folder.push(format!("~{}", name.replace('/', "+")));
        let folder = folder.into();
        Arc::new(Self {
            folder,
            ..self.clone()
        })
    }

    /// Removes what a place makes and nothing else: a folder with anything else in it stays.
    fn erase(&self) -> io::Result<()> {
        gone(fs::remove_file(self.folder.join(FRAMES)))?;
        gone(fs::remove_dir_all(self.folder.join(OBJECTS)))?;
        for suffix in ["", ".new", ".lock"] {
            gone(fs::remove_file(
                self.folder.join(format!("{CHANGES}{suffix}")),
            ))?;
        }
        gone(fs::remove_dir(&self.folder))
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Box<dyn Opened>, OpenError> {
        made(&self.folder)?;
        let mut file = self.clone();
        file.frames = file.frames.with_path(self.folder.join(FRAMES));
        file.objects = file
            .objects
            .with_path(self.folder.join(OBJECTS))
            .with_clock(clock);
        Ok(Box::new(OpenedFile {
            file,
            frames: Mutex::default(),
        }))
    }
}

#[derive(Debug)]
struct OpenedFile {
    file: File,
    /// A frame store is open once, so all who ask for it get this one (BS-14).
    frames: Mutex<Option<FileBlobStore>>,
}

#[async_trait]
impl Opened for OpenedFile {
    fn scheme(&self) -> &'static str {
        "file"
    }

    fn caps(&self) -> Caps {
        self.file.caps()
    }

    fn offers(&self) -> &'static [Contract] {
        &[Contract::BlobStore, Contract::Backend]
    }

    /// Blocks while the store is recovered, as all of its calls block.
    async fn blob_store(&self) -> Result<Arc<dyn BlobStore>, OpenError> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match &*frames {
            Some(store) => store.clone(),
            None => {
                let opened = FileBlobStore::open(self.file.frames.clone());
                let store = opened.map_err(|e| OpenError::Failed(e.into_fault()))?;
                frames.insert(store).clone()
            }
        };
        Ok(Arc::new(store))
    }

    async fn backend(&self) -> Result<Arc<dyn Backend>, OpenError> {
        Ok(Arc::new(
            FileBackend::open(self.file.objects.clone()).await?,
        ))
    }

    async fn change_log(&self) -> Result<Arc<dyn ChangeLog>, OpenError> {
        Ok(Arc::new(FileChangeLog::open(self.file.changes()).await?))
    }
}
