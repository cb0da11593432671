//! Bits turn over at rest: every read is right or an error, and nothing acknowledged is missing without a word.

use std::sync::Arc;

use larder_conformance::sim_disk::SimDisk;
use larder_traits::{Classify, ErrorKind};

use super::{Model, Op, Run, blank_disk, get, is_thorough, open};

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
