//! [`FilePlace`]: a folder that holds all that this crate keeps in files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use larder_traits::{BlobStoreError, Caps, Clock, ErrorKind, Fault};

use crate::{
    ChangeLogConfig, FileBackend, FileBlobStore, FileChangeLog, FileConfig, ObjectsConfig,
};

/// What lies in the folder, each made when it is first asked for.
const FRAMES: &str = "frames.larder";
const OBJECTS: &str = "objects";
const CHANGES: &str = "changes.log";

/// Which folder a place is, and how what is in it is opened.
#[derive(Clone, Debug)]
pub struct FilePlaceConfig {
    folder: PathBuf,
    frames: FileConfig,
    objects: ObjectsConfig,
    changes: ChangeLogConfig,
}

impl FilePlaceConfig {
    /// The folder, which is created where it is missing; the one that it lies in is not, since a name that was mistyped
    /// is the likelier explanation.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self {
            frames: FileConfig::new(folder.join(FRAMES)),
            objects: ObjectsConfig::new(folder.join(OBJECTS)),
            changes: ChangeLogConfig::new(folder.join(CHANGES)),
            folder,
        }
    }

    /// The same configuration of another folder.
    #[must_use]
    pub fn with_folder(self, folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self {
            frames: self.frames.with_path(folder.join(FRAMES)),
            objects: self.objects.with_path(folder.join(OBJECTS)),
            changes: self.changes.with_path(folder.join(CHANGES)),
            folder,
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How the frame store is opened; its path is that of this place.
    #[must_use]
    pub fn with_frames(self, frames: FileConfig) -> Self {
        let frames = frames.with_path(self.folder.join(FRAMES));
        Self { frames, ..self }
    }

    /// How the objects are opened; their path is that of this place.
    #[must_use]
    pub fn with_objects(self, objects: ObjectsConfig) -> Self {
        let objects = objects.with_path(self.folder.join(OBJECTS));
        Self { objects, ..self }
    }

    /// How the change log is opened; its path is that of this place.
    #[must_use]
    pub fn with_changes(self, changes: ChangeLogConfig) -> Self {
        let changes = changes.with_path(self.folder.join(CHANGES));
        Self { changes, ..self }
    }

    /// The clock that decides the expiry of objects (C-5); the machine's by default.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        let objects = self.objects.with_clock(clock);
        Self { objects, ..self }
    }

    /// What places with this configuration declare.
    #[must_use]
    pub fn caps(&self) -> Caps {
        let frames = self.frames.caps();
        self.objects.caps().with_blob_store(frames.blob_store)
    }

    /// What the change logs of such places declare: they take whatever the objects there are called.
    #[must_use]
    pub fn change_log_caps(&self) -> Caps {
        let objects = self.objects.caps().high_volume;
        self.changes.caps().with_high_volume(objects)
    }
}

/// A folder that holds frames, objects and a change log, as far as they were asked for.
///
/// Places on one folder may be open any number of times, here and in other processes; the frame store in it may be open
/// in one of them (BS-14).
#[derive(Debug)]
pub struct FilePlace {
    config: FilePlaceConfig,
    /// A frame store is open once, so all who ask for it get this one.
    frames: Mutex<Option<FileBlobStore>>,
}

impl FilePlace {
    /// Opens the folder, and makes it where it is missing.
    ///
    /// # Errors
    ///
    /// All `NotApplied`: `NotFound` where the folder that it lies in is missing, `InvalidInput` where something else has
    /// its name, `PermissionDenied`, `NoSpace` or `Unavailable` as the operating system says.
    pub fn open(config: FilePlaceConfig) -> Result<Self, Fault> {
        let folder = &config.folder;
        match fs::create_dir(folder) {
            Err(_) if folder.is_dir() => {}
            Err(e) => return Err(refused(folder, e)),
            Ok(()) => {}
        }
        let frames = Mutex::default();
        Ok(Self { config, frames })
    }

    /// What the place declares.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.config.caps()
    }

    /// What its change log declares.
    #[must_use]
    pub fn change_log_caps(&self) -> Caps {
        self.config.change_log_caps()
    }

    /// The frame store, which stays open as long as this place or a handle on the store is there. Blocks while it is
    /// recovered, as all of its calls block.
    ///
    /// # Errors
    ///
    /// Those of [`FileBlobStore::open`].
    pub fn blob_store(&self) -> Result<FileBlobStore, BlobStoreError> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*frames {
            return Ok(store.clone());
        }
        let store = FileBlobStore::open(self.config.frames.clone())?;
        Ok(frames.insert(store).clone())
    }

    /// The objects.
    ///
    /// # Errors
    ///
    /// Those of [`FileBackend::open`].
    pub async fn backend(&self) -> Result<FileBackend, Fault> {
        FileBackend::open(self.config.objects.clone()).await
    }

    /// The change log.
    ///
    /// # Errors
    ///
    /// Those of [`FileChangeLog::open`].
    pub async fn change_log(&self) -> Result<FileChangeLog, Fault> {
        FileChangeLog::open(self.config.changes.clone()).await
    }

    /// Removes what a place makes in `folder`, and the folder if nothing else is in it. Nobody may have it open.
    ///
    /// # Errors
    ///
    /// What the operating system says; a part may be gone by then.
    pub fn erase(folder: &Path) -> io::Result<()> {
        gone(fs::remove_file(folder.join(FRAMES)))?;
        gone(fs::remove_dir_all(folder.join(OBJECTS)))?;
        for suffix in ["", ".new", ".lock"] {
            gone(fs::remove_file(folder.join(format!("{CHANGES}{suffix}"))))?;
        }
        gone(fs::remove_dir(folder))
    }
}

fn refused(folder: &Path, e: io::Error) -> Fault {
    let kind = match e.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull => ErrorKind::NoSpace,
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => ErrorKind::InvalidInput,
        _ => ErrorKind::Unavailable,
    };
    let text = format!("the folder {} cannot be opened", folder.display());
    Fault::not_applied(kind, text).because(e)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
