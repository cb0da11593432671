//! The store on a simulated disk, with small frames and a small log, so that a state costs next to nothing.

mod crash;
mod damage;
mod faults;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use larder_conformance::sim_disk::{SimDisk, SimDiskOptions};
use larder_traits::blob_store::{BlobGuid, BlobStoreError};
use larder_traits::{Classify, ErrorKind};

use crate::disk::{Disk, Read, Write};
use crate::error::Failure;
use crate::format::StoreId;
use crate::recovery;
use crate::shape::Plan;
use crate::store::{Source, Store, Target};

/// A frame is one sector, and a snapshot is due after six sectors of log.
pub(crate) const PLAN: Plan = Plan {
    frame_len: 4096,
    log_sectors: 16,
    growth: (2, 4),
};

/// A simulated disk as the store sees it.
pub(crate) struct Medium(pub(crate) Arc<SimDisk>);

impl Disk for Medium {
    fn len_bytes(&self) -> u64 {
        self.0.len()
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        self.0.grow(len)
    }

    fn read(&self, reads: &mut [Read<'_>]) -> Vec<io::Result<()>> {
        let read = |read: &mut Read<'_>| self.0.read_exact_at(read.into, read.at);
        reads.iter_mut().map(read).collect()
    }

    fn write(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()> {
        for write in writes {
            self.0.write_all_at(write.from, write.at)?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

pub(crate) fn blank_disk() -> SimDisk {
    SimDisk::new(SimDiskOptions::new(1), 0)
}

/// Opens the store on a disk, and keeps the disk at hand.
pub(crate) fn open(disk: &Arc<SimDisk>) -> Result<Store, Failure> {
    let medium = Arc::new(Medium(Arc::clone(disk)));
    recovery::open(medium, &PLAN, || StoreId(*b"a simulated one!"))
}

/// The frame of a tag, which is like no other.
pub(crate) fn frame(tag: u64) -> [u8; 4096] {
    let mut frame = [0; 4096];
    let mut chance = Chance(tag);
    for word in frame.chunks_exact_mut(8) {
        word.copy_from_slice(&chance.next().to_le_bytes());
    }
    frame[..8].copy_from_slice(&tag.to_le_bytes());
    frame
}

/// What each blob holds.
pub(crate) type Blobs = BTreeMap<u64, u64>;

pub(crate) fn guid(name: u64) -> BlobGuid {
    BlobGuid::from_u128(name.into())
}

/// Writes all of these at once.
pub(crate) fn put(store: &Store, blobs: &[(u64, u64)]) -> Result<(), BlobStoreError> {
    let frames: Vec<_> = blobs.iter().map(|(_, tag)| frame(*tag)).collect();
    let sources = blobs.iter().zip(&frames).map(|((name, _), frame)| Source {
        guid: guid(*name),
        frame,
        registered: None,
    });
    store.write(&sources.collect::<Vec<_>>())
}

/// The tag of the frame that a blob holds; `None` if there is no such blob.
pub(crate) fn get(store: &Store, name: u64) -> Result<Option<u64>, BlobStoreError> {
    let mut buffer = [0; 4096];
    let target = Target {
        guid: guid(name),
        frame: &mut buffer,
        registered: None,
    };
    match store.read(target) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    }
    let tag = u64::from_le_bytes(buffer[..8].try_into().expect("eight bytes"));
    assert_eq!(buffer, frame(tag), "blob {name} is torn");
    Ok(Some(tag))
}

/// All that a store holds, as it lists it and as it reads it.
pub(crate) fn all(store: &Store) -> Blobs {
    try_all(store).expect("a blob that is listed can be read")
}

pub(crate) fn try_all(store: &Store) -> Result<Blobs, BlobStoreError> {
    let mut names = store.list();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "a blob is listed twice");
    let read = |guid: BlobGuid| {
        let name = u64::try_from(u128::from_be_bytes(guid.to_bytes())).expect("a small name");
        let tag = get(store, name)?;
        Ok((name, tag.expect("a blob that is listed is there")))
    };
    names.into_iter().map(read).collect()
}

/// One thing that a caller does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Put(Vec<(u64, u64)>),
    Delete(u64),
    Flush,
    /// The handle is dropped and the store opened again.
    Reopen,
}

/// What the store has to hold. It is stricter than the contract: what is recovered is the state at one flush.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) now: Blobs,
    /// At the last flush that was acknowledged.
    pub(crate) flushed: Blobs,
    /// At a flush that was begun and not acknowledged.
    pub(crate) begun: Option<Blobs>,
}

impl Model {
    pub(crate) fn may_recover_to(&self, found: &Blobs) -> bool {
        *found == self.flushed || self.begun.as_ref() == Some(found)
    }

    /// What was found after a crash is what is durable from now on.
    pub(crate) fn recovered(&mut self, found: Blobs) {
        self.now.clone_from(&found);
        self.flushed = found;
        self.begun = None;
    }
}

/// A store with its disk and its model.
pub(crate) struct Run {
    pub(crate) disk: Arc<SimDisk>,
    pub(crate) store: Option<Store>,
    pub(crate) model: Model,
}

impl Run {
    /// The store on that disk, which holds one of the states that the model allows. There is none if the disk is off
    /// before it can be opened and looked at.
    pub(crate) fn start(disk: SimDisk, mut model: Model) -> Self {
        let disk = Arc::new(disk);
        let opened = open(&disk).ok();
        let store = opened.and_then(|store| match try_all(&store) {
            Ok(found) => {
                assert!(
                    model.may_recover_to(&found),
                    "found {found:?} for {model:?}"
                );
                model.recovered(found);
                Some(store)
            }
            Err(e) => {
                assert!(disk.is_off(), "{e}");
                None
            }
        });
        Self { disk, store, model }
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open")
    }

    /// Does one thing. `false` if the store is of no more use: its disk is off, or a flush failed.
    pub(crate) fn step(&mut self, op: &Op) -> bool {
        if self.store.is_none() {
            return false;
        }
        match op {
            Op::Put(blobs) => {
                if put(self.store(), blobs).is_ok() {
                    self.model.now.extend(blobs.iter().copied());
                }
            }
            Op::Delete(name) => {
                if self.store().delete(guid(*name)).is_ok() {
                    self.model.now.remove(name);
                }
            }
            Op::Flush => {
                self.model.begun = Some(self.model.now.clone());
                if self.store().flush().is_err() {
                    return false;
                }
                self.model.flushed = self.model.begun.take().unwrap_or_default();
            }
            Op::Reopen => {
                self.store = None;
                self.model.now = self.model.flushed.clone();
                self.store = open(&self.disk).ok();
            }
        }
        self.store.is_some() && !self.disk.is_off()
    }
}

/// Opens what a crash left, compares it with the model, and goes on using it.
pub(crate) fn check_crashed(disk: SimDisk, model: &Model, what: &dyn Fn() -> String) {
    let disk = Arc::new(disk);
    let store = match open(&disk) {
        Ok(store) => store,
        Err(e) => panic!("{}: it does not open: {:?}", what(), e.not_applied()),
    };
    let found = all(&store);
    assert!(
        model.may_recover_to(&found),
        "{}: found {found:?} in {:?}, expected {:?} or {:?}",
        what(),
        store.recovery,
        model.flushed,
        model.begun,
    );
    // What was recovered is durable, and what is written now is another group.
    let mut expected = found;
    put(&store, &[(1, 901), (9, 909)]).expect("the store goes on");
    store.flush().expect("the store goes on");
    expected.extend([(1, 901), (9, 909)]);
    let crashed = Arc::new(disk.crash(0));
    drop(store);
    let store = open(&crashed).expect("it opens again");
    assert_eq!(all(&store), expected, "{}, and after a flush", what());
}

/// Numbers that follow from a seed.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Whether there is time for much.
pub(crate) fn is_thorough() -> bool {
    std::env::var("LARDER_PROFILE").is_ok_and(|profile| profile != "quick")
}
