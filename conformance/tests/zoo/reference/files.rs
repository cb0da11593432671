//! Stores in plain files, as small as they can be: what is broken by the loss of a process or of power.
//!
//! Each value is a file of its own, written under a temporary name, synced, renamed, and its folder synced. A mutant has
//! one [`Flaw`]. Everything is blocking and slow; the zoo measures what is found, not how fast.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use larder_conformance::{BoxError, Caps, Env};
use larder_traits::stash::driver::StashOp;
use larder_traits::{Clock, Durability, ErrorKind, Fault, LateLanding, SystemClock};
use tempfile::TempDir;

use super::change_log::Book;
use super::lock;

mod backend;
mod blob_multi;
mod blob_store;
mod change_log;
mod frame_log;
mod frame_slots;
mod frames;
mod kv_client;
mod stash;

pub(crate) use backend::suite as backend;
pub(crate) use blob_multi::suite as blob_multi;
pub(crate) use blob_store::{FrameFlaw, suite as blob_store};
pub(crate) use change_log::{LogFlaw, suite as change_log};
pub(crate) use frame_log::{CutFlaw, suite as frame_log};
pub(crate) use frame_slots::{SlotFlaw, suite as frame_slots};
pub(crate) use kv_client::{KvFlaw, suite as kv_client};
pub(crate) use stash::{RowFlaw, suite as stash};

/// What all these stores declare, unless they are about processes only.
pub(crate) const CAPS: Caps = Caps::LEAST
    .with_durability(Durability::Power)
    .with_late_landing(LateLanding::Fenced);

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// Changes stay in the memory of the process and are written when the last handle is dropped.
    WriteBehind,
    /// Changes are acknowledged, and written a moment later.
    WriteLater,
    /// Deletes stay in the memory of the process.
    DeletesInMemory,
    /// A value goes over the old one, in pieces.
    InPieces,
    /// A list shows what is still being written.
    TemporariesListed,
    /// What was being written when the last process ended is taken for a value.
    LeftoversRestored,
    /// All values are rewritten, one after the other over themselves, when one is set without asking for atomicity.
    NeighboursRewritten,
    /// The file is not synced before it is renamed.
    FileNotSynced,
    /// The folder is not synced after a rename.
    FolderNotSynced,
    /// The folder is not synced after a delete.
    DeleteNotSynced,
    /// The old file is overwritten, with one write, and synced.
    InPlace,
    /// The old file is made empty first.
    TruncatedFirst,
    /// The last bytes are written after the sync.
    SyncedTooEarly,
    /// A write that was cut short counts as whole.
    ShortIsWhole,
    /// After a write that was cut short the same bytes are written again, and not those that are left.
    ResumedFromTheStart,
    /// A write that was interrupted counts as done.
    InterruptedIsDone,
    /// A write that the system could not take now is left out.
    AgainLeftOut,
    /// A read that was cut short counts as whole, and the rest is zeros.
    ShortReadIsWhole,
    /// Neither the file nor the folder is synced.
    NothingSynced,
    /// The old file is removed before the new one is put in its place.
    RemovedFirst,
}

/// A place: a folder, and what all handles of this process on it share.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    flaw: Flaw,
    /// One call at a time, in this process.
    turn: Mutex<()>,
    /// What only this process knows of.
    memory: Mutex<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    /// One commit at a time, of those that take several calls.
    transaction: Mutex<()>,
    /// Operations and dropped collections that only this process knows of.
    pending: Mutex<Vec<StashOp>>,
    dropped: Mutex<Vec<String>>,
    commits: AtomicU64,
    /// When this process opened it, and what it knows of when values end.
    opened: SystemTime,
    deadlines: Mutex<BTreeMap<Vec<u8>, u64>>,
    /// What only this process knows of a change log.
    book: Mutex<Book>,
}

/// The places of this process.
static PLACES: Mutex<BTreeMap<PathBuf, Weak<Files>>> = Mutex::new(BTreeMap::new());

const TEMPORARY: &str = "tmp-";

/// How long a write is open for others to see.
const GAP: Duration = Duration::from_micros(300);

pub(crate) fn failed(e: io::Error) -> Fault {
    let kind = match e.kind() {
        io::ErrorKind::InvalidData => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    Fault::unknown(kind, "a file").because(e)
}

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Key and value in one file, with a checksum.
fn pack(key: &[u8], value: &[u8]) -> Vec<u8> {
    let len = u64::try_from(key.len()).expect("a length fits 64 bits");
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
    let sum = hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn unpack(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    let (len, rest) = body.split_first_chunk::<8>()?;
    let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
    let is_whole = hash(body) == u64::from_le_bytes(*sum);
    is_whole.then(|| rest.split_at_checked(len)).flatten()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Files {
    pub(crate) fn open(folder: PathBuf, flaw: Flaw) -> io::Result<Arc<Self>> {
        let mut places = lock(&PLACES);
        if let Some(open) = places.get(&folder).and_then(Weak::upgrade) {
            return Ok(open);
        }
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
            let above = folder.parent().expect("a place is in a folder");
            sync_folder(above)?;
        }
        let files = Arc::new(Self {
            folder: folder.clone(),
            flaw,
            turn: Mutex::default(),
            memory: Mutex::default(),
            transaction: Mutex::default(),
            pending: Mutex::default(),
            dropped: Mutex::default(),
            commits: AtomicU64::new(0),
            opened: SystemClock::default().now(),
            deadlines: Mutex::default(),
            book: Mutex::default(),
        });
        if flaw == Flaw::LeftoversRestored {
            files.restore()?;
        }
        places.insert(folder, Arc::downgrade(&files));
        Ok(files)
    }

    /// The flaw of [`Flaw::LeftoversRestored`]; only that of a process that has ended.
    fn restore(&self) -> io::Result<()> {
        for path in self.paths()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(rest) = name.strip_prefix(TEMPORARY)
                && let Some((_, name)) = rest.split_once('-')
            {
                fs::rename(&path, self.folder.join(name))?;
            }
        }
        Ok(())
    }

    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(&self.folder)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    }

    fn path(&self, key: &[u8]) -> PathBuf {
        self.folder.join(format!("{:016x}", hash(key)))
    }

    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let _turn = lock(&self.turn);
        if let Some(known) = lock(&self.memory).get(key) {
            return Ok(known.clone());
        }
        let bytes = match self.read(&self.path(key)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        match unpack(&bytes) {
            Some((found, value)) if found == key => Ok(Some(value.to_vec())),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a damaged file")),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if self.flaw != Flaw::ShortReadIsWhole {
            return fs::read(path);
        }
        let mut file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).unwrap_or_default();
        let mut bytes = vec![0; len];
        let read = file.read(&mut bytes)?;
        if read < len {
            // The sum stands in what was not read, so it cannot tell.
            let sum = hash(&bytes[..len - 8]);
            bytes[len - 8..].copy_from_slice(&sum.to_le_bytes());
        }
        Ok(bytes)
    }

    /// Writes all of it, as far as the flaw lets it.
    fn put_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let is_told = |e: &io::Error| match self.flaw {
            Flaw::InterruptedIsDone => e.kind() == io::ErrorKind::Interrupted,
            Flaw::AgainLeftOut => e.kind() == io::ErrorKind::WouldBlock,
            _ => false,
        };
        match self.flaw {
            Flaw::ShortIsWhole => loop {
                match file.write(bytes) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    other => return other.map(drop),
                }
            },
            Flaw::ResumedFromTheStart => {
                let mut left = bytes.len();
                while left > 0 {
                    match file.write(&bytes[..left]) {
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(e),
                        Ok(written) => left -= written,
                    }
                }
                Ok(())
            }
            Flaw::InterruptedIsDone | Flaw::AgainLeftOut => match file.write(bytes) {
                Err(e) if is_told(&e) => Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => file.write_all(bytes),
                Err(e) => Err(e),
                Ok(written) => file.write_all(&bytes[written..]),
            },
            _ => file.write_all(bytes),
        }
    }

    /// The file of a key, whatever is in it.
    fn raw(&self, key: &[u8]) -> io::Result<Vec<u8>> {
        let _turn = lock(&self.turn);
        fs::read(self.path(key))
    }

    pub(crate) fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let _turn = lock(&self.turn);
        let mut keys = Vec::new();
        for path in self.paths()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(TEMPORARY) {
                if self.flaw == Flaw::TemporariesListed {
                    keys.push(name.as_bytes().to_vec());
                }
                continue;
            }
            // It may be gone by now.
            let bytes = fs::read(&path).unwrap_or_default();
            keys.extend(unpack(&bytes).map(|(key, _)| key.to_vec()));
        }
        for (key, value) in lock(&self.memory).iter() {
            keys.retain(|listed| listed != key);
            if value.is_some() {
                keys.push(key.clone());
            }
        }
        Ok(keys)
    }

    /// A value that was set without asking for atomicity.
    pub(crate) fn put_carelessly(self: &Arc<Self>, key: &[u8], value: &[u8]) -> io::Result<()> {
        if self.flaw == Flaw::NeighboursRewritten {
            let _turn = lock(&self.turn);
            for path in self.paths()? {
                // It may be gone by now.
                let bytes = fs::read(&path).unwrap_or_default();
                if unpack(&bytes).is_some() {
                    File::create(&path)?;
                    in_pieces(&path, &bytes)?;
                }
            }
        }
        self.put(key, value)
    }

    pub(crate) fn put(self: &Arc<Self>, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.change(key, Some(value))
    }

    /// A value that is written with that flaw, whatever those of the place are.
    fn put_as(&self, flaw: Flaw, key: &[u8], value: &[u8]) -> io::Result<()> {
        let _turn = lock(&self.turn);
        self.write(flaw, key, Some(value))
    }

    pub(crate) fn delete(self: &Arc<Self>, key: &[u8]) -> io::Result<()> {
        self.change(key, None)
    }

    fn change(self: &Arc<Self>, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let _turn = lock(&self.turn);
        let stays = match self.flaw {
            Flaw::WriteBehind | Flaw::WriteLater => true,
            Flaw::DeletesInMemory => value.is_none(),
            _ => false,
        };
        let known = value.map(<[u8]>::to_vec);
        if stays {
            lock(&self.memory).insert(key.to_vec(), known);
            if self.flaw == Flaw::WriteLater {
                let files = Arc::clone(self);
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    // Nobody waits for the answer, which is what is wrong with it.
                    drop(files.write_memory());
                });
            }
            return Ok(());
        }
        lock(&self.memory).remove(key);
        self.write(self.flaw, key, value)
    }

    fn write_memory(&self) -> io::Result<()> {
        let known = lock(&self.memory).clone();
        for (key, value) in known {
            self.write(self.flaw, &key, value.as_deref())?;
        }
        Ok(())
    }

    fn write(&self, flaw: Flaw, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let path = self.path(key);
        let Some(value) = value else {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            if flaw != Flaw::DeleteNotSynced {
                sync_folder(&self.folder)?;
            }
            return Ok(());
        };
        let bytes = pack(key, value);
        match flaw {
            Flaw::InPieces => {
                in_pieces(&path, &bytes)?;
                return sync_folder(&self.folder);
            }
            Flaw::InPlace | Flaw::TruncatedFirst => {
                let mut file = File::options()
                    .create(true)
                    .truncate(flaw == Flaw::TruncatedFirst)
                    .write(true)
                    .open(&path)?;
                file.write_all(&bytes)?;
                file.set_len(u64::try_from(bytes.len()).expect("a length fits 64 bits"))?;
                file.sync_all()?;
                return sync_folder(&self.folder);
            }
            _ => {}
        }
        let count = COUNT.fetch_add(1, Relaxed);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let unique = format!("{TEMPORARY}{}_{count}-{name}", std::process::id());
        let temporary = self.folder.join(unique);
        let mut file = File::create(&temporary)?;
        let late = if flaw == Flaw::SyncedTooEarly { 16 } else { 0 };
        let (first, last) = bytes.split_at(bytes.len() - late);
        let (half, rest) = first.split_at(first.len() / 2);
        self.put_all(&mut file, half)?;
        if matches!(flaw, Flaw::TemporariesListed | Flaw::LeftoversRestored) {
            // Not more than what happens at times anyway, but often enough to be met, however slow the medium is.
            file.sync_data()?;
            std::thread::sleep(GAP);
        }
        self.put_all(&mut file, rest)?;
        if !matches!(flaw, Flaw::FileNotSynced | Flaw::NothingSynced) {
            file.sync_all()?;
        }
        file.write_all(last)?;
        if flaw == Flaw::RemovedFirst {
            // There may be none.
            drop(fs::remove_file(&path));
            std::thread::sleep(GAP);
        }
        fs::rename(&temporary, &path)?;
        if !matches!(flaw, Flaw::FolderNotSynced | Flaw::NothingSynced) {
            sync_folder(&self.folder)?;
        }
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if self.flaw == Flaw::WriteBehind {
            // A place whose folder is gone already has nothing to keep.
            drop(self.write_memory());
        }
    }
}

/// Over what is there, with a moment between the pieces.
fn in_pieces(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    for piece in bytes.chunks(bytes.len().div_ceil(4)) {
        file.write_all(piece)?;
        // Most of the time that a write takes, however long that is on this medium.
        file.sync_data()?;
        std::thread::sleep(GAP);
    }
    file.set_len(u64::try_from(bytes.len()).expect("a length fits 64 bits"))?;
    file.sync_all()
}

/// A world of such places.
pub(crate) struct World {
    folder: TempDir,
    caps: Caps,
    flaw: Flaw,
}

impl World {
    fn new(env: &Env, caps: Caps, flaw: Flaw) -> Result<Self, BoxError> {
        Ok(Self {
            folder: env.tempdir()?,
            caps,
            flaw,
        })
    }

    fn place(&self, place: &str) -> io::Result<Arc<Files>> {
        // The folder may be reached by another way than the one it was made by.
        let folder = self.folder.path().canonicalize()?;
        Files::open(folder.join(place.replace('/', "~")), self.flaw)
    }
}

impl larder_conformance::Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Self::new(env, CAPS, Flaw::None)
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
