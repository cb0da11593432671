//! Bits turn over at rest: every read is right or an error, and nothing acknowledged is missing without a word.

use std::io;
use std::sync::{Arc, Mutex};

use larder_conformance::sim_disk::SimDisk;
use larder_traits::{Classify, ErrorKind};

use crate::disk::{Disk, Read, Write};
use crate::format::StoreId;
use crate::recovery;

use super::{Medium, Model, Op, PLAN, Run, blank_disk, get, is_thorough, open};

/// Where the log begins: behind two superblocks and two roots.
const PLAN_HEAD: u64 = 4 * 4096;

/// A store with two snapshots, a log in its second lap, deleted blobs and a batch at its end.
fn used() -> Run {
    let mut run = Run::start(blank_disk(), Model::default());
    for tag in 0..19 {
        assert!(run.step(&Op::Put(vec![(tag % 7, 100 + tag)])));
        if tag % 5 == 0 {
            assert!(run.step(&Op::Delete((tag + 1) % 7)));
        }
        assert!(run.step(&Op::Flush));
    }
    assert!(run.step(&Op::Put(vec![(1, 200), (2, 201), (8, 202)])));
    assert!(run.step(&Op::Flush));
    assert!(run.store().stats().snapshots >= 2);
    run
}

/// Which bits are tried: all bytes, or every so many of them, each in another bit.
fn bits(disk: &SimDisk, step: usize) -> impl Iterator<Item = (u64, u32)> + use<> {
    let step = if is_thorough() { 1 } else { step };
    let bit = |at: u64| u32::try_from(at % 8).expect("below 8");
    (0..disk.len())
        .step_by(step)
        .map(move |at| (at, bit(at / 3)))
}

/// How a damaged disk was met.
#[derive(Debug, Default)]
struct Seen {
    refused: usize,
    corrupt: usize,
    told: usize,
    intact: usize,
}

/// Opens the damaged disk and judges all of it.
fn judge(disk: SimDisk, model: &Model, may_tell: bool, what: &str, seen: &mut Seen) {
    let disk = Arc::new(disk);
    let store = match open(&disk) {
        Ok(store) => store,
        Err(e) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::Unsupported];
            assert!(kinds.contains(&e.kind), "{what}: {:?}", e.not_applied());
            seen.refused += 1;
            return;
        }
    };
    let recovery = store.recovery;
    let is_told = may_tell && (recovery.is_tail_torn || recovery.dropped_groups > 0);
    for name in 0..10 {
        let expected = model.flushed.get(&name).copied();
        match get(&store, name) {
            Ok(found) if found == expected => seen.intact += 1,
            // Only the group at the end, of which nobody can tell whether it was acknowledged.
            Ok(_) if is_told => seen.told += 1,
            Ok(found) => {
                panic!("{what}: blob {name} is {found:?} and not {expected:?}, {recovery:?}")
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Corrupt, "{what}");
                seen.corrupt += 1;
            }
        }
    }
}

#[test]
fn one_flipped_bit_anywhere_in_a_closed_store_loses_nothing_in_silence() {
    let mut run = used();
    run.store = None;
    let mut seen = Seen::default();
    for (at, bit) in bits(&run.disk, 61) {
        let damaged = run.disk.fork();
        damaged.flip_bit(at, bit);
        judge(
            damaged,
            &run.model,
            false,
            &format!("bit {bit} of byte {at}"),
            &mut seen,
        );
    }
    assert!(seen.refused > 0 && seen.corrupt > 0, "{seen:?}");
}

#[test]
fn one_flipped_bit_anywhere_in_a_killed_store_loses_nothing_in_silence() {
    let run = used();
    let disk = run.disk.crash(1);
    let mut seen = Seen::default();
    for (at, bit) in bits(&disk, 61) {
        let damaged = disk.fork();
        damaged.flip_bit(at, bit);
        judge(
            damaged,
            &run.model,
            true,
            &format!("bit {bit} of byte {at}"),
            &mut seen,
        );
    }
    assert!(
        seen.refused > 0 && seen.corrupt > 0 && seen.told > 0,
        "{seen:?}"
    );
}

#[test]
fn a_zeroed_sector_of_a_closed_store_loses_nothing_in_silence() {
    let mut run = used();
    run.store = None;
    let mut seen = Seen::default();
    for start in (0..run.disk.len()).step_by(512) {
        let mut bytes = run.disk.visible();
        let start = usize::try_from(start).expect("a small disk");
        let is_blank = bytes[start..start + 512].iter().all(|byte| *byte == 0);
        bytes[start..start + 512].fill(0);
        if is_blank {
            continue;
        }
        let damaged =
            SimDisk::from_bytes(larder_conformance::sim_disk::SimDiskOptions::new(1), &bytes);
        judge(
            damaged,
            &run.model,
            false,
            &format!("zeros at {start}"),
            &mut seen,
        );
    }
    assert!(seen.refused > 0 && seen.corrupt > 0, "{seen:?}");
}

#[test]
fn a_store_cut_short_says_so() {
    let mut run = used();
    run.store = None;
    let mut seen = Seen::default();
    for len in (0..run.disk.len()).step_by(4096) {
        let damaged = run.disk.fork();
        damaged.set_len(len).expect("a disk can be cut short");
        if len == 0 {
            // Nothing tells it from a new one.
            continue;
        }
        judge(
            damaged,
            &run.model,
            false,
            &format!("cut at {len}"),
            &mut seen,
        );
    }
    assert!(seen.refused > 0 && seen.corrupt > 0, "{seen:?}");
}

/// A disk with a sector that cannot be read until it is written.
struct BadSector {
    disk: Medium,
    at: Mutex<Option<u64>>,
}

impl BadSector {
    fn is_met(&self, at: u64, len: usize) -> bool {
        let len = u64::try_from(len).expect("a length fits 64 bits");
        let bad = *self.at.lock().expect("no panics");
        bad.is_some_and(|bad| (at..at + len).contains(&bad))
    }
}

impl Disk for BadSector {
    fn len_bytes(&self) -> u64 {
        self.disk.len_bytes()
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        self.disk.grow(len)
    }

    fn read(&self, reads: &mut [Read<'_>]) -> Vec<io::Result<()>> {
        let bad: Vec<bool> = reads
            .iter()
            .map(|read| self.is_met(read.at, read.into.len()))
            .collect();
        let answers = self.disk.read(reads).into_iter().zip(bad);
        let answer = |(answer, is_bad)| match is_bad {
            true => Err(io::Error::other("a bad sector")),
            false => answer,
        };
        answers.map(answer).collect()
    }

    fn write(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()> {
        let mut healing = writes.inspect(|write| {
            if self.is_met(write.at, write.from.len()) {
                *self.at.lock().expect("no panics") = None;
            }
        });
        self.disk.write(&mut healing)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

/// Failure: a store with a sector that could not be read in one of its two superblocks or roots did not open, and one
/// whose snapshots could not be read was called `Corrupt`. Cause: both copies were read in one transfer, and a chunk that
/// could not be read was taken for one that is damaged. Fix: each copy is read by itself, and what the medium said of
/// what it could not read is the answer where it is missed.
#[test]
fn a_sector_that_cannot_be_read_is_no_damage_and_one_of_a_pair_is_not_missed() {
    let mut run = used();
    run.store = None;
    let (mut refused, mut unread) = (0, 0);
    for at in (0..run.disk.len()).step_by(4096) {
        let disk = Arc::new(BadSector {
            disk: Medium(Arc::new(run.disk.fork())),
            at: Mutex::new(Some(at)),
        });
        let opened = recovery::open(Arc::<BadSector>::clone(&disk), &PLAN, || StoreId([9; 16]));
        let store = match opened {
            Ok(store) => store,
            Err(e) => {
                assert_eq!(e.kind, ErrorKind::Unavailable, "bad sector at {at}");
                assert!(at >= PLAN_HEAD, "bad sector at {at}, one of a pair");
                refused += 1;
                continue;
            }
        };
        for name in 0..10 {
            match get(&store, name) {
                Ok(tag) => assert_eq!(tag, run.model.flushed.get(&name).copied(), "{at}"),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Unavailable, "bad sector at {at}");
                    unread += 1;
                }
            }
        }
        if at < PLAN_HEAD {
            assert!(
                disk.at.lock().expect("no panics").is_none(),
                "{at} is healed"
            );
        }
    }
    assert!(refused > 0 && unread > 0, "{refused} and {unread}");
}
