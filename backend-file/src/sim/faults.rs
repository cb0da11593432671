//! The disk fails while the store runs: what is told is true, and what was flushed stays.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use larder_conformance::sim_disk::{Fault, Step};
use larder_traits::{Classify, ErrorKind, Outcome};

use crate::disk::{Disk, Read, Write};
use crate::format::StoreId;
use crate::recovery;

use super::{
    Chance, Model, Op, PLAN, Run, all, blank_disk, check_crashed, get, guid, is_thorough, put,
};

#[test]
fn a_failed_flush_stops_the_store_and_the_next_open_tells_the_truth() {
    let wanted = if is_thorough() { 10_000 } else { 200 };
    for seed in 0..wanted {
        let mut chance = Chance(seed);
        let mut run = Run::start(blank_disk(), Model::default());
        for tag in 0..1 + chance.below(12) {
            assert!(run.step(&Op::Put(vec![(1, 10 + tag), (2 + tag % 3, 50 + tag)])));
            assert!(run.step(&Op::Flush));
        }
        run.step(&Op::Put(vec![(1, 300), (4, 301)]));
        run.step(&Op::Delete(2));
        let fault = [Fault::Io, Fault::NoSpace][usize::try_from(chance.below(2)).expect("0 or 1")];
        run.disk.arm(Step::Any, 1 + chance.below(4), fault);
        if run.step(&Op::Flush) {
            // It hit the snapshot, or nothing at all.
            run.disk.disarm();
            check_crashed(run.disk.crash(0), &run.model, &|| format!("seed {seed}"));
            continue;
        }
        for again in [run.store().flush(), run.store().flush()] {
            let again = again.expect_err("a failed flush is not retried into a success");
            assert_eq!(again.kind, ErrorKind::Unavailable);
        }
        let refused = put(run.store(), &[(5, 500)]).expect_err("no work before the next open");
        assert_eq!(refused.outcome(), Outcome::NotApplied);
        run.store()
            .delete(guid(1))
            .expect_err("no work before the next open");
        assert_eq!(get(run.store(), 1).ok(), Some(Some(300)), "reads go on");
        run.disk.disarm();

        // The process ends and starts again; the power does not go before it has seen what is there.
        run.store = None;
        let run = Run::start(run.disk.fork(), run.model);
        // What the disk forgot when its sync failed was written anew, so the loss of power cannot take it back.
        for left in run.disk.crash_states(4, seed) {
            check_crashed(left, &run.model, &|| format!("seed {seed}, reopened"));
        }
    }
}

/// A page cache that calls its pages clean once their sync has failed: reads show them, and no sync writes them any more.
#[derive(Default)]
struct Cache(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    seen: Vec<u8>,
    durable: Vec<u8>,
    dirty: Vec<Range<usize>>,
    /// The sync that will fail, counted from 1; 0 for none.
    failing: u32,
}

fn range(at: u64, len: usize) -> Range<usize> {
    let at = usize::try_from(at).expect("a small disk");
    at..at + len
}

impl Disk for Cache {
    fn len_bytes(&self) -> u64 {
        u64::try_from(self.0.lock().expect("no panics").seen.len()).expect("a small disk")
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        let mut pages = self.0.lock().expect("no panics");
        let len = range(len, 0).end;
        pages.seen.resize(len, 0);
        pages.durable.resize(len, 0);
        Ok(())
    }

    fn read(&self, reads: &mut [Read<'_>]) -> Vec<io::Result<()>> {
        let pages = self.0.lock().expect("no panics");
        let read = |read: &mut Read<'_>| {
            let seen = pages.seen.get(range(read.at, read.into.len()));
            read.into
                .copy_from_slice(seen.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        };
        reads.iter_mut().map(read).collect()
    }

    fn write(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()> {
        for write in writes {
            let mut pages = self.0.lock().expect("no panics");
            let range = range(write.at, write.from.len());
            pages.seen[range.clone()].copy_from_slice(write.from);
            pages.dirty.push(range);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let pages = &mut *self.0.lock().expect("no panics");
        let dirty = std::mem::take(&mut pages.dirty);
        if pages.failing > 0 {
            pages.failing -= 1;
            if pages.failing == 0 {
                return Err(io::ErrorKind::Other.into());
            }
        }
        for range in dirty {
            pages.durable[range.clone()].copy_from_slice(&pages.seen[range]);
        }
        Ok(())
    }
}

impl Cache {
    /// What a loss of power leaves.
    fn cut_off(&self) -> Self {
        let durable = self.0.lock().expect("no panics").durable.clone();
        Self(Mutex::new(Pages {
            seen: durable.clone(),
            durable,
            ..Pages::default()
        }))
    }
}

/// Failure: a store whose first open had failed was opened at the second attempt and used, and was no store any more
/// after a loss of power. Cause: the sync of the superblocks had failed, the next open found them in the cache, and
/// nobody wrote them again. Fix: an open that finds no record, which would vouch for what came before it, writes them
/// again.
#[test]
fn superblocks_that_are_only_in_the_cache_are_written_again() {
    let open = |cache: &Arc<Cache>| {
        let disk: Arc<dyn Disk> = Arc::<Cache>::clone(cache);
        recovery::open(disk, &PLAN, || StoreId([3; 16]))
    };
    for failing in 1..=2 {
        let cache = Arc::<Cache>::default();
        cache.0.lock().expect("no panics").failing = failing;
        assert!(open(&cache).is_err(), "sync {failing} failed");
        let store = open(&cache).expect("it opens");
        put(&store, &[(1, 10)]).expect("it works");
        store.flush().expect("it works");
        let left = Arc::new(cache.cut_off());
        drop(store);
        let store = open(&left).unwrap_or_else(|e| panic!("sync {failing}: {:?}", e.not_applied()));
        assert_eq!(all(&store), [(1, 10)].into());
    }
}

/// Failure: after a loss of power, and with one snapshot damaged, a store did not open, which is to survive either.
/// Cause: the sync of the other snapshot's root had failed, the next open found the root in the cache and went on from
/// it, and nobody wrote it again; what the older snapshot on the medium needs was overwritten in the meantime. Fix: an
/// open that finds no record after a root writes that root again.
#[test]
fn a_root_that_is_only_in_the_cache_is_written_again() {
    let open = |cache: &Arc<Cache>| {
        let disk: Arc<dyn Disk> = Arc::<Cache>::clone(cache);
        recovery::open(disk, &PLAN, || StoreId([3; 16]))
    };
    let cache = Arc::<Cache>::default();
    let mut store = open(&cache).expect("it opens");
    let mut held = super::Blobs::new();
    let mut next = 0;
    let mut work = |store: &crate::store::Store, held: &mut super::Blobs| {
        next += 1;
        let blob = (next % 7, 100 + next);
        put(store, &[blob]).expect("it works");
        held.extend([blob]);
        store.flush()
    };
    while store.stats().snapshots < 2 {
        work(&store, &mut held).expect("it works");
    }
    // The first sync is that of the group, the second that of the chunks, and the third that of the root.
    loop {
        let before = store.stats().snapshots;
        cache.0.lock().expect("no panics").failing = 3;
        work(&store, &mut held).expect("the group itself is durable");
        if store.needs_flush() {
            break;
        }
        assert_eq!(
            store.stats().snapshots,
            before,
            "the sync should have failed"
        );
    }
    drop(store);
    store = open(&cache).expect("it opens again");
    assert_eq!(all(&store), held);
    for _ in 0..4 {
        work(&store, &mut held).expect("it works");
    }
    let left = cache.cut_off();
    drop(store);
    for root in 0..2 {
        let damaged = Arc::new(left.cut_off());
        {
            let mut pages = damaged.0.lock().expect("no panics");
            let at = usize::try_from(crate::shape::Shape::root_at(root)).expect("it is near");
            pages.seen[at + 40] ^= 1;
        }
        let store = open(&damaged);
        let store = store.unwrap_or_else(|e| panic!("root {root} damaged: {:?}", e.not_applied()));
        assert_eq!(all(&store), held, "root {root} damaged");
    }
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_written_again_before_it_is_trusted() {
    let open = |cache: &Arc<Cache>| {
        let disk: Arc<dyn Disk> = Arc::<Cache>::clone(cache);
        recovery::open(disk, &PLAN, || StoreId([3; 16])).expect("it opens")
    };
    let cache = Arc::<Cache>::default();
    let store = open(&cache);
    put(&store, &[(1, 10), (2, 20)]).expect("it works");
    store.flush().expect("it works");
    put(&store, &[(1, 11), (3, 31)]).expect("it works");
    cache.0.lock().expect("no panics").failing = 1;
    store.flush().expect_err("the sync failed");
    drop(store);

    // The process starts again and sees what is in the cache.
    let store = open(&cache);
    let found = all(&store);
    assert_eq!(found, [(1, 11), (2, 20), (3, 31)].into());
    drop(store);
    // Then the power goes.
    let left = Arc::new(cache.cut_off());
    assert_eq!(all(&open(&left)), found, "what was seen is taken back");
}

#[test]
fn a_failed_write_changes_nothing_and_its_slot_is_left_alone() {
    let mut run = Run::start(blank_disk(), Model::default());
    run.step(&Op::Put(vec![(1, 10), (2, 20)]));
    run.step(&Op::Flush);
    for fault in [Fault::Io, Fault::NoSpace] {
        for nth in 1..=3 {
            let given_up = run.store().stats().given_up_slots;
            run.disk.arm(Step::Write, nth, fault);
            let failed = put(run.store(), &[(1, 11), (2, 21), (3, 31)]);
            let failed = failed.expect_err("a write of the batch failed");
            assert_eq!(failed.outcome(), Outcome::NotApplied);
            assert_eq!(all(run.store()), run.model.now);
            assert_eq!(run.store().stats().given_up_slots, given_up + 3);
        }
    }
    run.step(&Op::Put(vec![(1, 12), (3, 32)]));
    assert!(run.step(&Op::Flush));
    assert!(run.step(&Op::Reopen));
    assert_eq!(all(run.store()), run.model.flushed);
    assert_eq!(run.store().stats().given_up_slots, 0);
}

#[test]
fn a_full_disk_is_met_when_growing_and_costs_nothing() {
    let mut run = Run::start(blank_disk(), Model::default());
    run.step(&Op::Put(vec![(1, 10)]));
    run.step(&Op::Flush);
    run.disk.arm(Step::Grow, 1, Fault::NoSpace);
    run.disk.arm(Step::Grow, 2, Fault::NoSpace);
    let big: Vec<_> = (1..20).map(|name| (name, 100 + name)).collect();
    let full = put(run.store(), &big).expect_err("there is no room");
    assert_eq!(
        (full.kind(), full.outcome()),
        (ErrorKind::NoSpace, Outcome::NotApplied)
    );
    assert_eq!(all(run.store()), run.model.now);
    // With less room than it would like, the store takes what it needs.
    run.disk.arm(Step::Grow, 1, Fault::NoSpace);
    assert!(run.step(&Op::Put(big)));
    assert!(run.step(&Op::Flush));
    assert_eq!(all(run.store()), run.model.flushed);
    check_crashed(run.disk.crash(0), &run.model, &|| "a full disk".into());
}

#[test]
fn a_disk_that_lies_is_found_out_or_harmless() {
    let wanted = if is_thorough() { 10_000 } else { 200 };
    let mut found_out = 0;
    for seed in 0..wanted {
        let mut chance = Chance(seed);
        let mut run = Run::start(blank_disk(), Model::default());
        let faults = [Fault::BitFlip, Fault::Lost, Fault::Misdirected];
        let fault = faults[usize::try_from(chance.below(3)).expect("below 3")];
        run.disk.arm(Step::Write, 1 + chance.below(40), fault);
        let mut ever: Vec<(u64, u64)> = Vec::new();
        for tag in 0..12 {
            let blobs = vec![
                (chance.below(4), 100 + 2 * tag),
                (chance.below(4), 101 + 2 * tag),
            ];
            ever.extend(&blobs);
            run.step(&Op::Put(blobs));
            run.step(&Op::Flush);
            if chance.below(6) == 0 {
                run.step(&Op::Reopen);
            }
        }
        run.step(&Op::Reopen);
        let Some(store) = &run.store else {
            found_out += 1;
            continue;
        };
        for name in 0..4 {
            // A whole frame that this very blob once had, or an error.
            match get(store, name) {
                Ok(Some(tag)) => assert!(ever.contains(&(name, tag)), "seed {seed}, {fault:?}"),
                Ok(None) => {}
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Corrupt);
                    found_out += 1;
                }
            }
        }
    }
    assert!(found_out > 0, "no lie was ever found out");
}
