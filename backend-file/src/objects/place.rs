//! The folder: how it is told from others, how it is laid out, and how a handle opens it.
//!
//! | name | what |
//! |---|---|
//! | `LARDER-OBJECTS` | the mark: that the folder is one of objects, and of which version |
//! | `objects/00` … `objects/ff` | the objects, each folder made when the first object comes into it and never removed |
//! | `tmp` | objects on their way in, which are in no listing |
//!
//! The mark is made last and by a rename, so where it is the rest is, durably. Folders are made durable by a sync of
//! the folder that they lie in, each before anything is made beneath it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use larder_traits::{Caps, ErrorKind, Fault};
use twox_hash::XxHash3_64;

use super::config::ObjectsConfig;
use super::name::{self, Name};
use super::threads::{Call, Threads};
use crate::plain::{Medium, corrupt, failed, kind_of, lock, unique};

const MARK: &str = "LARDER-OBJECTS";
const MAGIC: [u8; 8] = *b"LARDEROF";
const VERSION: u32 = 1;

/// The mark of a folder that is being made begins with this.
const UNFINISHED: &str = ".larder-objects-";

/// What a handle shares with its clones and with everything it has under way.
pub(super) struct Place {
    pub(super) config: ObjectsConfig,
    pub(super) medium: Medium,
    pub(super) threads: Threads,
    /// The folder of folders of objects.
    objects: PathBuf,
    tmp: PathBuf,
    /// Which folders of objects this handle knows to be durable, a bit each.
    durable: [AtomicU64; 4],
    /// A sync of a folder has failed. What it was to make durable may be lost without another sync saying so.
    doubtful: AtomicBool,
}

/// A folder of objects, open.
pub(super) struct Shard {
    pub(super) dir: File,
    pub(super) path: PathBuf,
}

/// A file on its way in, which is removed unless it arrives. As long as it is open it is locked, by which those who
/// clear up after a crash know that somebody is still at it.
pub(super) struct Temp {
    place: Arc<Place>,
    file: Option<File>,
    path: PathBuf,
    has_arrived: bool,
}

impl Place {
    /// Opens the folder, and makes it where it is missing.
    pub(super) fn open(
        mut config: ObjectsConfig,
        threads: Threads,
        medium: Medium,
        call: &Call<'_>,
    ) -> Result<Self, Fault> {
        config.path = std::path::absolute(&config.path).map_err(|e| {
            let message = "the path is none that a folder can have";
            Fault::not_applied(ErrorKind::InvalidInput, message).because(e)
        })?;
        let root = config.path.clone();
        let place = Self {
            objects: root.join("objects"),
            tmp: root.join("tmp"),
            config,
            medium,
            threads,
            durable: Default::default(),
            doubtful: AtomicBool::new(false),
        };
        if !place.has_mark()? {
            place.make()?;
        }
        // Another handle may have made it a moment ago, and the mark counts only once it is durable.
        let sync = |path: &Path| place.medium.sync_dir_at(path);
        sync(&root).map_err(failed("the folder could not be synced"))?;
        place.check_case()?;
        place.see_shards()?;
        place.clear_tmp(call)?;
        Ok(place)
    }

    pub(super) const fn caps(&self) -> Caps {
        self.config.caps
    }

    /// Whether the folder bears the mark of this version; refuses one with another.
    fn has_mark(&self) -> Result<bool, Fault> {
        let mark = match fs::read(self.config.path.join(MARK)) {
            Ok(mark) => mark,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                let message = "the path leads to a file and not to a folder";
                return Err(Fault::not_applied(ErrorKind::InvalidInput, message).because(e));
            }
            Err(e) => return Err(failed("the mark of the folder could not be read")(e)),
        };
        if mark == mark_of(VERSION) {
            return Ok(true);
        }
        let version = mark.get(8..12).and_then(|it| <[u8; 4]>::try_from(it).ok());
        match version.map(u32::from_le_bytes) {
            Some(version) if version > VERSION && mark == mark_of(version) => {
                let message = "the folder was made by a newer version";
                Err(Fault::not_applied(ErrorKind::Unsupported, message))
            }
            _ => Err(corrupt("the mark of the folder is damaged")),
        }
    }

    /// Makes what is missing of the folder; the mark last.
    fn make(&self) -> Result<(), Fault> {
        let root = &self.config.path;
        let unmade = || failed("the folder could not be made");
        self.make_with_parents(root).map_err(unmade())?;
        self.refuse_foreign()?;
        for folder in [&self.objects, &self.tmp] {
            self.medium.make_dir(folder).map_err(unmade())?;
            self.medium.sync_dir_at(folder).map_err(unmade())?;
        }
        self.medium.sync_dir_at(root).map_err(unmade())?;
        let mut name = String::from(UNFINISHED);
        for byte in unique()? {
            name.push_str(&format!("{byte:02x}"));
        }
        let unfinished = root.join(name);
        let made = (|| {
            let file = self.medium.create_new(&unfinished)?;
            self.medium
                .write_at(&file, &unfinished, &mark_of(VERSION), 0)?;
            self.medium.sync_file(&file, &unfinished)?;
            // All marks are alike, so it does not matter who comes last.
            self.medium.rename(&unfinished, &root.join(MARK))
        })();
        if made.is_err() {
            // What is left of it is known by its name, and is in nobody's way.
            drop(fs::remove_file(&unfinished));
        }
        made.map_err(unmade())
    }

    /// Makes a folder and those above it. Each is durable before anything is made in it, so that a folder that is there
    /// lies on durable ones, whoever made it.
    fn make_with_parents(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        if let Err(e) = self.medium.make_dir(path) {
            if e.kind() != io::ErrorKind::NotFound {
                return Err(e);
            }
            self.make_with_parents(parent)?;
            self.medium.make_dir(path)?;
        }
        match self.medium.sync_dir_at(parent) {
            // One that may not be read was not made here, and is the business of whoever made it.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }

    /// Refuses a folder that holds something and bears no mark.
    fn refuse_foreign(&self) -> Result<(), Fault> {
        let unread = || failed("the folder could not be read");
        for entry in fs::read_dir(&self.config.path).map_err(unread())? {
            let name = entry.map_err(unread())?.file_name();
            let name = name.to_string_lossy();
            // Another opener may be at it, or have been interrupted.
            let is_ours =
                name == MARK || name == "objects" || name == "tmp" || name.starts_with(UNFINISHED);
            if !is_ours {
                let message = "the folder holds files of others and no objects";
                return Err(Fault::not_applied(ErrorKind::InvalidInput, message));
            }
        }
        let objects = fs::read_dir(&self.objects);
        if objects.is_ok_and(|mut entries| entries.next().is_some()) && !self.has_mark()? {
            return Err(corrupt("the folder holds objects and has lost its mark"));
        }
        Ok(())
    }

    /// Refuses a file system on which two names that differ in case are one.
    fn check_case(&self) -> Result<(), Fault> {
        let other = self.config.path.join(MARK.to_lowercase());
        match fs::symlink_metadata(other) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed("the folder could not be looked at")(e)),
            Ok(_same) => {
                let message = "the file system does not tell names apart that differ in case";
                Err(Fault::not_applied(ErrorKind::Unsupported, message))
            }
        }
    }

    /// Notes which folders of objects are there, and makes them durable all at once.
    fn see_shards(&self) -> Result<(), Fault> {
        let mut seen = Vec::new();
        let entries = match fs::read_dir(&self.objects) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(corrupt("the folder has a mark and no objects"));
            }
            Err(e) => return Err(failed("the folder of objects could not be read")(e)),
        };
        for entry in entries {
            let entry = entry.map_err(failed("the folder of objects could not be read"))?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|it| u8::from_str_radix(it, 16).ok());
            seen.extend(number.filter(|number| *name == *name::folder(*number)));
        }
        let synced = self.medium.sync_dir_at(&self.objects);
        synced.map_err(failed("the folder of objects could not be synced"))?;
        for shard in seen {
            self.set_durable(shard);
        }
        Ok(())
    }

    /// Removes the files on their way in whose writers are gone.
    fn clear_tmp(&self, call: &Call<'_>) -> Result<(), Fault> {
        let unread = || failed("the folder of files on their way could not be read");
        self.medium.make_dir(&self.tmp).map_err(unread())?;
        for entry in fs::read_dir(&self.tmp).map_err(unread())? {
            let path = entry.map_err(unread())?.path();
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(unread()(e)),
            };
            // Whoever is at it holds the lock. A failure to remove it costs room and nothing else.
            if file.try_lock().is_ok() {
                drop(self.medium.remove(&path));
            }
            if call.is_gone() {
                break;
            }
        }
        Ok(())
    }

    fn is_durable(&self, shard: u8) -> bool {
        let bits = self.durable[usize::from(shard / 64)].load(Ordering::Acquire);
        bits & (1 << (shard % 64)) != 0
    }

    fn set_durable(&self, shard: u8) {
        self.durable[usize::from(shard / 64)].fetch_or(1 << (shard % 64), Ordering::AcqRel);
    }

    /// Where the file of an object lies, or would lie.
    pub(super) fn path_of(&self, name: &Name) -> PathBuf {
        self.shard_path(name.shard).join(&name.file)
    }

    pub(super) fn shard_path(&self, shard: u8) -> PathBuf {
        self.objects.join(name::folder(shard))
    }

    /// Opens a folder of objects; `None` where no object ever came into it.
    pub(super) fn shard(&self, shard: u8) -> Result<Option<Shard>, Fault> {
        let path = self.shard_path(shard);
        match File::open(&path) {
            Ok(dir) => Ok(Some(Shard { dir, path })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("a folder of objects could not be opened")(e)),
        }
    }

    /// Opens a folder of objects that is made where it is missing, and is durable.
    pub(super) fn durable_shard(&self, shard: u8) -> Result<Shard, Fault> {
        let unmade = || failed("a folder of objects could not be made");
        if self.is_durable(shard)
            && let Some(found) = self.shard(shard)?
        {
            return Ok(found);
        }
        let path = self.shard_path(shard);
        self.medium.make_dir(&path).map_err(unmade())?;
        self.medium
            .sync_dir_at(&self.objects)
            .map_err(|e| self.doubt(e).not_applied())?;
        self.set_durable(shard);
        let dir = File::open(&path).map_err(unmade())?;
        Ok(Shard { dir, path })
    }

    /// Makes what happened in a folder of objects durable, for a caller past its commit point.
    pub(super) fn sync(&self, shard: &Shard) -> Result<(), Fault> {
        let synced = self.medium.sync_dir(&shard.dir, &shard.path);
        synced.map_err(|e| self.doubt(e).unknown())
    }

    /// A sync of a folder failed. The kernel may have given up what it could not write, and the next sync would not say
    /// so: from here on nothing is promised by this handle.
    fn doubt(&self, e: io::Error) -> Doubt {
        self.doubtful.store(true, Ordering::Release);
        Doubt(e)
    }

    /// Refuses writes after a sync has failed.
    pub(super) fn check_writable(&self) -> Result<(), Fault> {
        if self.doubtful.load(Ordering::Acquire) {
            let message = "a sync has failed; open the folder again when its medium is sound";
            return Err(Fault::not_applied(ErrorKind::Unavailable, message));
        }
        Ok(())
    }

    /// Makes a file for an object on its way in.
    pub(super) fn temp(self: &Arc<Self>, call: &Call<'_>) -> Result<Temp, Fault> {
        let unmade = || failed("a file for an object could not be made");
        loop {
            let mut name = String::new();
            for byte in unique()? {
                name.push_str(&format!("{byte:02x}"));
            }
            let path = self.tmp.join(name);
            let file = match self.medium.create_new(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(unmade()(e)),
            };
            let mut temp = Temp {
                place: Arc::clone(self),
                file: None,
                path,
                has_arrived: false,
            };
            lock(&file, call)?;
            // Somebody who clears up may have come between, and taken it for left behind.
            if fs::symlink_metadata(&temp.path).is_ok() {
                temp.file = Some(file);
                return Ok(temp);
            }
        }
    }
}

/// A failed sync of a folder; the caller knows on which side of its commit point it was.
struct Doubt(io::Error);

impl Doubt {
    const MESSAGE: &str = "a folder of objects could not be synced";

    fn not_applied(self) -> Fault {
        Fault::not_applied(kind_of(&self.0), Self::MESSAGE).because(self.0)
    }

    fn unknown(self) -> Fault {
        Fault::unknown(kind_of(&self.0), Self::MESSAGE).because(self.0)
    }
}

impl Temp {
    pub(super) fn write_at(&self, from: &[u8], at: u64) -> io::Result<()> {
        self.place
            .medium
            .write_at(self.file()?, &self.path, from, at)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.place.medium.sync_file(self.file()?, &self.path)
    }

    /// Moves the file to its place, from which moment on it is an object.
    pub(super) fn arrive(&mut self, to: &Path) -> io::Result<()> {
        self.place.medium.rename(&self.path, to)?;
        self.has_arrived = true;
        Ok(())
    }

    fn file(&self) -> io::Result<&File> {
        let gone = || io::Error::other("the file was never opened");
        self.file.as_ref().ok_or_else(gone)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.has_arrived {
            return;
        }
        let (place, path) = (Arc::clone(&self.place), std::mem::take(&mut self.path));
        let file = self.file.take();
        self.place.threads.clear_away(move || {
            // One that stays behind is removed by the next opener.
            drop(place.medium.remove(&path));
            drop(file);
        });
    }
}

/// The content of a mark.
fn mark_of(version: u32) -> Vec<u8> {
    let mut mark = Vec::from(MAGIC);
    mark.extend(version.to_le_bytes());
    let sum = XxHash3_64::oneshot(&mark);
    mark.extend(sum.to_le_bytes());
    mark
}
