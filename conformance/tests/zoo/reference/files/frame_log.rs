//! `BlobStore` on a log, to which each flush appends what has changed, and a file of all frames that is written anew when
//! the log has become long.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use larder_conformance::{BoxError, Caps, Suite};
use larder_traits::{
    AlignedBlobBuf, BlobGuid, BlobStore, BlobStoreError, ErrorKind, Fault, PAGE_SIZE,
};

use super::super::lock;
use super::{failed, frames, hash, sync_folder};

/// Name and kind, their sum, the frame, its sum.
const HEADER: usize = 16 + 1;
const RECORD: usize = HEADER + 8 + PAGE_SIZE + 8;

/// A log of so many records is cut, once what it says is in the other file.
const RECORDS_MAX: usize = 4;

/// In what a log is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutFlaw {
    None,
    /// An end that a crash has torn stays where it is, and what is appended after it is not found again.
    TornEndStays,
    /// The log is cut first, and the frames are written after that.
    CutEarly,
    /// When both are read, what the file of all frames says is taken, and not what the log says.
    FramesWin,
    /// A delete in the log takes back what the log wrote, and nothing from the file of all frames.
    DeletesOfLogOnly,
    /// The file of all frames is written anew from what the log says alone.
    LogOnlyCarried,
    /// Before an end that a crash has torn, the last whole record is left out too.
    OneRecordLess,
}

/// What the log says of a blob.
#[derive(Clone, Debug)]
enum Known {
    Frame(Vec<u8>),
    Deleted,
    Damaged,
}

#[derive(Debug)]
pub(crate) struct Store {
    flaw: CutFlaw,
    log: PathBuf,
    flushed: Mutex<BTreeMap<BlobGuid, Known>>,
    changes: Mutex<BTreeMap<BlobGuid, Known>>,
    /// Held by the kernel as long as the file is open.
    _lock: File,
}

fn sum(bytes: &[u8]) -> [u8; 8] {
    hash(bytes).to_le_bytes()
}

fn record(guid: BlobGuid, known: &Known) -> Vec<u8> {
    let (kind, frame) = match known {
        Known::Frame(frame) => (1, frame.clone()),
        _ => (0, vec![0; PAGE_SIZE]),
    };
    let mut bytes = guid.to_bytes().to_vec();
    bytes.push(kind);
    let sum_of_header = sum(&bytes);
    bytes.extend_from_slice(&sum_of_header);
    bytes.extend_from_slice(&frame);
    bytes.extend_from_slice(&sum(&frame));
    bytes
}

/// Adds the records of a log up to its end, or to where that is torn; how long it is up to there.
fn replay(bytes: &[u8], known: &mut BTreeMap<BlobGuid, Known>) -> Result<usize, BlobStoreError> {
    let mut len = 0;
    let mut records = bytes.chunks_exact(RECORD).peekable();
    while let Some(record) = records.next() {
        let (header, rest) = record.split_at(HEADER);
        let (sum_of_header, rest) = rest.split_at(8);
        let (frame, sum_of_frame) = rest.split_at(PAGE_SIZE);
        let is_last = records.peek().is_none();
        if sum_of_header != sum(header) {
            if is_last {
                break;
            }
            return Err(Fault::not_applied(ErrorKind::Corrupt, "a damaged record").into());
        }
        let name: [u8; 16] = header[..16]
            .try_into()
            .expect("a header begins with a name");
        let it = if sum_of_frame == sum(frame) {
            match header[16] {
                1 => Known::Frame(frame.to_vec()),
                _ => Known::Deleted,
            }
        } else if is_last {
            break;
        } else {
            Known::Damaged
        };
        known.insert(name.into(), it);
        len += RECORD;
    }
    Ok(len)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

impl Store {
    fn open(folder: &Path, flaw: CutFlaw) -> Result<Self, BoxError> {
        fs::create_dir_all(folder)?;
        let held = File::create(folder.with_extension("lock"))?;
        let refused = || Fault::not_applied(ErrorKind::Conflict, "the place is open already");
        held.try_lock().map_err(|_e| refused())?;
        let log = folder.join("log");
        let mut flushed = BTreeMap::new();
        replay(&read(&log.with_extension("frames"))?, &mut flushed)?;
        let bytes = read(&log)?;
        let mut logged = BTreeMap::new();
        let mut len = replay(&bytes, &mut logged)?;
        match flaw {
            CutFlaw::FramesWin => {
                logged.append(&mut flushed);
                flushed = logged;
            }
            CutFlaw::DeletesOfLogOnly => {
                logged.retain(|_, known| !matches!(known, Known::Deleted));
                flushed.append(&mut logged);
            }
            CutFlaw::OneRecordLess if len > 0 && len < bytes.len() => {
                len -= RECORD;
                replay(&bytes[..len], &mut flushed)?;
            }
            _ => flushed.append(&mut logged),
        }
        if len < bytes.len() && flaw != CutFlaw::TornEndStays {
            let file = File::options().write(true).open(&log)?;
            file.set_len(u64::try_from(len)?)?;
            file.sync_all()?;
        }
        Ok(Self {
            flaw,
            flushed: Mutex::new(flushed),
            changes: Mutex::default(),
            log,
            _lock: held,
        })
    }

    fn known(&self, guid: BlobGuid) -> Option<Known> {
        let changed = lock(&self.changes).get(&guid).cloned();
        changed.or_else(|| lock(&self.flushed).get(&guid).cloned())
    }

    fn append(&self, changes: &BTreeMap<BlobGuid, Known>) -> io::Result<()> {
        let mut file = File::options().create(true).append(true).open(&self.log)?;
        for (guid, known) in changes {
            file.write_all(&record(*guid, known))?;
        }
        file.sync_all()?;
        self.sync_folder()
    }

    /// Moves what the log says into the file of all frames, which is `flushed`, once it says much.
    fn checkpoint(&self, flushed: &BTreeMap<BlobGuid, Known>) -> io::Result<()> {
        let log = File::options().write(true).open(&self.log)?;
        let records = usize::try_from(log.metadata()?.len()).unwrap_or(usize::MAX) / RECORD;
        let is_damaged = |known: &Known| matches!(known, Known::Damaged);
        if self.flaw == CutFlaw::TornEndStays
            || records < RECORDS_MAX
            || flushed.values().any(is_damaged)
        {
            return Ok(());
        }
        let cut = || {
            log.set_len(0)?;
            log.sync_all()
        };
        if self.flaw == CutFlaw::CutEarly {
            cut()?;
            // As long as many more frames would take.
            std::thread::sleep(Duration::from_millis(3));
        }
        let (fresh, frames) = (
            self.log.with_extension("fresh"),
            self.log.with_extension("frames"),
        );
        let mut file = File::create(&fresh)?;
        let mut logged = BTreeMap::new();
        if self.flaw == CutFlaw::LogOnlyCarried {
            // It has been written by this very store.
            drop(replay(&read(&self.log)?, &mut logged));
        }
        let is_carried = |guid| self.flaw != CutFlaw::LogOnlyCarried || logged.contains_key(guid);
        for (guid, known) in flushed {
            if matches!(known, Known::Frame(_)) && is_carried(guid) {
                file.write_all(&record(*guid, known))?;
            }
        }
        file.sync_all()?;
        fs::rename(fresh, frames)?;
        self.sync_folder()?;
        cut()
    }

    fn sync_folder(&self) -> io::Result<()> {
        sync_folder(self.log.parent().expect("a log is in a folder"))
    }
}

impl BlobStore for Store {
    fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<(), BlobStoreError> {
        match self.known(guid) {
            Some(Known::Frame(frame)) => dst.copy_from_slice(&frame),
            Some(Known::Damaged) => {
                return Err(Fault::not_applied(ErrorKind::Corrupt, "a damaged frame").into());
            }
            _ => return Err(BlobStoreError::not_found(guid)),
        }
        Ok(())
    }

    fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<(), BlobStoreError> {
        lock(&self.changes).insert(guid, Known::Frame(src.to_vec()));
        Ok(())
    }

    fn delete_blob(&self, guid: BlobGuid) -> Result<(), BlobStoreError> {
        lock(&self.changes).insert(guid, Known::Deleted);
        Ok(())
    }

    fn list_blobs(&self) -> Result<Vec<BlobGuid>, BlobStoreError> {
        let mut all = lock(&self.flushed).clone();
        all.extend(lock(&self.changes).clone());
        all.retain(|_, known| !matches!(known, Known::Deleted));
        Ok(all.into_keys().collect())
    }

    fn flush(&self) -> Result<(), BlobStoreError> {
        let mut changes = lock(&self.changes);
        self.append(&changes).map_err(failed)?;
        let mut flushed = lock(&self.flushed);
        flushed.append(&mut changes);
        Ok(self.checkpoint(&flushed).map_err(failed)?)
    }

    fn needs_flush(&self) -> bool {
        !lock(&self.changes).is_empty()
    }
}

pub(crate) fn suite(caps: Caps, flaw: CutFlaw) -> Suite {
    frames::suite(caps, move |folder| Store::open(folder, flaw))
}
