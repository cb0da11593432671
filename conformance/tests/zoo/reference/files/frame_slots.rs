//! `BlobStore` on a file of slots: each flush writes frames to slots that nothing names, and then an index anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use larder_conformance::{BoxError, Caps, Suite};
use larder_traits::{
    AlignedBlobBuf, BlobGuid, BlobStore, BlobStoreError, ErrorKind, Fault, PAGE_SIZE,
};

use super::super::lock;
use super::{failed, frames, hash, sync_folder};

/// A frame and its sum.
const SLOT: usize = PAGE_SIZE + 8;

/// A name, and the number of its slot.
const ENTRY: usize = 16 + 8;

/// As long as many more frames would take.
const GAP: Duration = Duration::from_millis(3);

/// In what a store of slots is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotFlaw {
    None,
    /// A blob that is deleted again frees its slot again.
    FreedTwice,
    /// Whether a slot is free is told by the number of blobs when the place is opened.
    Counted,
    /// The slots that a flush frees are used by it.
    GivenAway,
    /// The index is written first.
    IndexFirst,
    /// The sum is over the first half of a frame.
    HalfChecked,
    /// The sum is not over the name, and the index has none.
    OfAnyone,
    /// A blob that was written and deleted since the last flush stays in the index as it was.
    NettedOut,
    /// The index is not written if its names are those of the old one.
    SameNames,
    /// Of the index the first names are read.
    OneBlock,
    /// Which slots are free is kept as well, as it was before each flush.
    FreeBeforeTheFlush,
    /// A damaged index is taken for none.
    DamagedIsNew,
    /// An index is believed to be as long as its sum at least.
    ShortPanics,
}

#[derive(Debug, Default)]
struct Slots {
    index: BTreeMap<BlobGuid, u64>,
    /// Used again from the end on.
    free: Vec<u64>,
    /// The first slot that was never used.
    next: u64,
    /// Where deleted blobs were.
    deleted: BTreeMap<BlobGuid, u64>,
    /// What is not flushed; `None` is a delete.
    changes: BTreeMap<BlobGuid, Option<Vec<u8>>>,
    /// What was written and then deleted since the last flush.
    netted: BTreeSet<BlobGuid>,
    /// Whether a flush has failed.
    is_over: bool,
}

#[derive(Debug)]
pub(crate) struct Store {
    flaw: SlotFlaw,
    index: PathBuf,
    file: File,
    slots: Mutex<Slots>,
    /// Held by the kernel as long as the file is open.
    _lock: File,
}

fn offset(slot: u64) -> u64 {
    slot.saturating_mul(u64::try_from(SLOT).expect("a length fits 64 bits"))
}

fn corrupt(message: &str) -> BlobStoreError {
    Fault::not_applied(ErrorKind::Corrupt, message.to_owned()).into()
}

impl Slots {
    fn take(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            let slot = self.next;
            self.next = slot.saturating_add(1);
            slot
        })
    }
}

fn to_bytes(index: &BTreeMap<BlobGuid, u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (guid, slot) in index {
        bytes.extend_from_slice(&guid.to_bytes());
        bytes.extend_from_slice(&slot.to_le_bytes());
    }
    let sum = hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// The index that these bytes are, if they are whole.
fn from_bytes(bytes: &[u8], flaw: SlotFlaw) -> Option<BTreeMap<BlobGuid, u64>> {
    if flaw == SlotFlaw::ShortPanics {
        let _len = bytes.len().checked_sub(8).expect("an index has a sum");
    }
    let (entries, sum) = bytes.split_last_chunk::<8>()?;
    let is_whole = flaw == SlotFlaw::OfAnyone || u64::from_le_bytes(*sum) == hash(entries);
    let entry = |entry: &[u8]| {
        let (guid, slot) = entry.split_first_chunk::<16>()?;
        let slot = u64::from_le_bytes(slot.try_into().ok()?);
        Some((BlobGuid::from_bytes(*guid), slot))
    };
    let block = if flaw == SlotFlaw::OneBlock {
        64
    } else {
        usize::MAX
    };
    let index = entries.chunks_exact(ENTRY).take(block).map(entry);
    is_whole.then(|| index.collect()).flatten()
}

impl Store {
    fn open(folder: &Path, flaw: SlotFlaw) -> Result<Self, BoxError> {
        fs::create_dir_all(folder)?;
        let held = File::create(folder.with_extension("lock"))?;
        let refused = || Fault::not_applied(ErrorKind::Conflict, "the place is open already");
        held.try_lock().map_err(|_e| refused())?;
        sync_folder(folder.parent().expect("a place is in a folder"))?;
        let path = folder.join("index");
        let index = match fs::read(&path) {
            Ok(bytes) => {
                let none = || (flaw == SlotFlaw::DamagedIsNew).then(BTreeMap::new);
                let index = from_bytes(&bytes, flaw).or_else(none);
                index.ok_or_else(|| corrupt("a damaged index"))?
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(e.into()),
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(folder.join("slots"))?;
        let used: BTreeSet<_> = index.values().copied().collect();
        let (free, next) = match flaw {
            SlotFlaw::Counted => (Vec::new(), u64::try_from(used.len())?),
            SlotFlaw::FreeBeforeTheFlush => {
                let free = fs::read(folder.join("free")).unwrap_or_default();
                let number = |word: &[u8; 8]| u64::from_le_bytes(*word);
                let free: Vec<_> = free.as_chunks::<8>().0.iter().map(number).collect();
                let last = used.last().max(free.iter().max());
                let next = last.map_or(0, |last| last.saturating_add(1));
                (free, next)
            }
            _ => {
                let next = used.last().map_or(0, |last| last.saturating_add(1));
                // An index that nobody checks may name any slot there is.
                let free = (0..next.min(1 << 20)).filter(|slot| !used.contains(slot));
                (free.collect(), next)
            }
        };
        let slots = Slots {
            index,
            free,
            next,
            ..Slots::default()
        };
        Ok(Self {
            flaw,
            index: path,
            file,
            slots: Mutex::new(slots),
            _lock: held,
        })
    }

    fn sum(&self, guid: BlobGuid, frame: &[u8]) -> [u8; 8] {
        let sum = match self.flaw {
            SlotFlaw::HalfChecked => hash(&frame[..PAGE_SIZE / 2]),
            _ => hash(frame),
        };
        let name = match self.flaw {
            SlotFlaw::OfAnyone => 0,
            _ => hash(&guid.to_bytes()),
        };
        (sum ^ name).to_le_bytes()
    }

    fn stored(&self, guid: BlobGuid, slot: u64) -> Result<Vec<u8>, BlobStoreError> {
        let mut bytes = vec![0; SLOT];
        let read = self.file.read_exact_at(&mut bytes, offset(slot));
        read.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => corrupt("a slot that is cut off"),
            _ => Fault::not_applied(ErrorKind::Unavailable, "a slot cannot be read")
                .because(e)
                .into(),
        })?;
        let sum = bytes.split_off(PAGE_SIZE);
        if sum != self.sum(guid, &bytes) {
            return Err(corrupt("a damaged frame"));
        }
        Ok(bytes)
    }

    fn write_slots(&self, frames: &[(BlobGuid, u64, &Vec<u8>)]) -> io::Result<()> {
        for (guid, slot, frame) in frames {
            let bytes = [&frame[..], &self.sum(*guid, frame)].concat();
            self.file.write_all_at(&bytes, offset(*slot))?;
        }
        self.file.sync_all()
    }

    fn write_index(&self, index: &BTreeMap<BlobGuid, u64>) -> io::Result<()> {
        let fresh = self.index.with_extension("fresh");
        let mut file = File::create(&fresh)?;
        file.write_all(&to_bytes(index))?;
        file.sync_all()?;
        fs::rename(fresh, &self.index)?;
        sync_folder(self.index.parent().expect("an index is in a folder"))
    }

    fn write_back(&self, slots: &mut Slots) -> io::Result<()> {
        if self.flaw == SlotFlaw::FreeBeforeTheFlush {
            let free = slots.free.iter().flat_map(|slot| slot.to_le_bytes());
            fs::write(self.index.with_file_name("free"), free.collect::<Vec<_>>())?;
        }
        let changes = slots.changes.clone();
        let mut index = slots.index.clone();
        let mut freed = Vec::new();
        for guid in changes.keys() {
            if slots.netted.contains(guid) {
                continue;
            }
            let was = index.remove(guid);
            let is_twice = self.flaw == SlotFlaw::FreedTwice && changes[guid].is_none();
            let again = slots.deleted.get(guid).copied().filter(|_| is_twice);
            freed.extend(was.or(again));
            slots.deleted.extend(was.map(|slot| (*guid, slot)));
        }
        if self.flaw == SlotFlaw::GivenAway {
            slots.free.append(&mut freed);
        }
        let mut frames = Vec::new();
        for (guid, change) in &changes {
            if let Some(frame) = change {
                let slot = slots.take();
                index.insert(*guid, slot);
                frames.push((*guid, slot, frame));
            }
        }
        if self.flaw == SlotFlaw::IndexFirst {
            self.write_index(&index)?;
            std::thread::sleep(GAP);
            self.write_slots(&frames)?;
        } else {
            self.write_slots(&frames)?;
            if self.flaw == SlotFlaw::GivenAway {
                std::thread::sleep(GAP);
            }
            if self.flaw != SlotFlaw::SameNames || !index.keys().eq(slots.index.keys()) {
                self.write_index(&index)?;
            }
        }
        // They are in the index of the medium, and in no other.
        for guid in std::mem::take(&mut slots.netted) {
            index.remove(&guid);
        }
        slots.free.append(&mut freed);
        slots.index = index;
        slots.changes.clear();
        Ok(())
    }

    fn usable(&self) -> Result<std::sync::MutexGuard<'_, Slots>, BlobStoreError> {
        let slots = lock(&self.slots);
        if slots.is_over {
            let message = "a flush failed; open the store again";
            return Err(Fault::not_applied(ErrorKind::Unavailable, message).into());
        }
        Ok(slots)
    }
}

impl BlobStore for Store {
    fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<(), BlobStoreError> {
        // Held while the slot is read, or it might be another one's by then.
        let slots = self.usable()?;
        let frame = match (slots.changes.get(&guid), slots.index.get(&guid)) {
            (Some(Some(frame)), _) => frame.clone(),
            (None, Some(slot)) => self.stored(guid, *slot)?,
            _ => return Err(BlobStoreError::not_found(guid)),
        };
        dst.copy_from_slice(&frame);
        Ok(())
    }

    fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<(), BlobStoreError> {
        let mut slots = self.usable()?;
        slots.netted.remove(&guid);
        slots.changes.insert(guid, Some(src.to_vec()));
        Ok(())
    }

    fn delete_blob(&self, guid: BlobGuid) -> Result<(), BlobStoreError> {
        let mut slots = self.usable()?;
        let was = slots.changes.insert(guid, None);
        if self.flaw == SlotFlaw::NettedOut && matches!(was, Some(Some(_))) {
            slots.netted.insert(guid);
        }
        Ok(())
    }

    fn list_blobs(&self) -> Result<Vec<BlobGuid>, BlobStoreError> {
        let slots = self.usable()?;
        let mut guids: BTreeSet<_> = slots.index.keys().copied().collect();
        for (guid, change) in &slots.changes {
            match change {
                Some(_) => guids.insert(*guid),
                None => guids.remove(guid),
            };
        }
        Ok(guids.into_iter().collect())
    }

    fn flush(&self) -> Result<(), BlobStoreError> {
        let mut slots = self.usable()?;
        let written = self.write_back(&mut slots);
        slots.is_over = written.is_err();
        Ok(written.map_err(failed)?)
    }

    fn needs_flush(&self) -> bool {
        let slots = lock(&self.slots);
        slots.is_over || !slots.changes.is_empty()
    }
}

pub(crate) fn suite(caps: Caps, flaw: SlotFlaw) -> Suite {
    frames::suite(caps, move |folder| Store::open(folder, flaw))
}
