//! The power goes: at every call to the disk of every short history, and at random in longer ones.

use larder_conformance::sim_disk::{Fault, SimDisk, Step};

use super::{Chance, Model, Op, Run, blank_disk, check_crashed, is_thorough};

/// What a short history is made of.
fn alphabet() -> Vec<Op> {
    vec![
        Op::Put(vec![(1, 0)]),
        Op::Put(vec![(2, 0)]),
        Op::Put(vec![(1, 0), (2, 0), (3, 0)]),
        Op::Delete(1),
        Op::Flush,
        Op::Reopen,
    ]
}

/// Every history of up to `len` operations.
fn short_histories(len: usize) -> Vec<Vec<Op>> {
    let mut histories: Vec<Vec<Op>> = vec![vec![]];
    let mut last = histories.clone();
    for _ in 0..len {
        let longer = last.iter().flat_map(|history| {
            alphabet().into_iter().map(move |op| {
                let mut history = history.clone();
                history.push(op);
                history
            })
        });
        last = longer.collect();
        histories.extend(last.clone());
    }
    // Each write has a frame of its own.
    for history in &mut histories {
        for (at, op) in (0..).zip(history) {
            if let Op::Put(blobs) = op {
                for (blob, tag) in blobs.iter_mut().zip(100 * (at + 1)..) {
                    blob.1 = tag;
                }
            }
        }
    }
    histories
}

/// The disk of a store that was used for so many flushes, and what it holds.
fn used(flushes: u64) -> (SimDisk, Model) {
    let mut run = Run::start(blank_disk(), Model::default());
    for tag in 0..flushes {
        assert!(run.step(&Op::Put(vec![(1, 10 + tag), (2 + tag % 3, 50 + tag)])));
        assert!(run.step(&Op::Flush));
    }
    let Run { disk, store, model } = run;
    let disk = disk.crash(1);
    drop(store);
    (disk, model)
}

#[test]
fn every_short_history_survives_a_crash_at_every_call() {
    let (len, limit) = if is_thorough() { (3, 16) } else { (2, 2) };
    let mut states = 0_u64;
    // Blank, with one record, with a snapshot due at the next flush, and past the first lap of the log.
    let starts = [(blank_disk(), Model::default()), used(1), used(5), used(17)];
    for (start, (disk, model)) in starts.iter().enumerate() {
        for (at, history) in short_histories(len).iter().enumerate() {
            let seed = u64::try_from(1_000 * start + at).expect("a small number");
            states += cut_everywhere(disk, model, history, limit, seed);
        }
    }
    println!("{states} states after crashes in short histories");
    assert!(states > if is_thorough() { 100_000 } else { 1_000 });
}

fn cut_everywhere(disk: &SimDisk, model: &Model, history: &[Op], limit: usize, seed: u64) -> u64 {
    let mut states = 0;
    for nth in 1.. {
        let fork = disk.fork();
        fork.arm(Step::Any, nth, Fault::PowerOff);
        let mut run = Run::start(fork, model.clone());
        let is_through = history.iter().all(|op| run.step(op)) && !run.disk.is_off();
        for left in run.disk.crash_states(limit, seed ^ nth) {
            let what = || format!("{history:?} cut at call {nth}");
            check_crashed(left, &run.model, &what);
            states += 1;
        }
        if is_through {
            break;
        }
    }
    states
}

/// A group that was dropped at an open stays dropped, also if its very frames are written again to the very same slots:
/// what was seen once must not be taken back by a crash without a flush.
#[test]
fn a_dropped_group_does_not_come_back() {
    let mut run = Run::start(blank_disk(), Model::default());
    assert!(run.step(&Op::Put(vec![(1, 10), (2, 20)])));
    assert!(run.step(&Op::Flush));
    let batch = Op::Put(vec![(1, 11), (2, 21), (3, 31)]);
    assert!(run.step(&batch));
    run.disk.arm(Step::Sync, 1, Fault::PowerOff);
    assert!(!run.step(&Op::Flush));
    let mut dropped = 0;
    for left in run.disk.crash_states(400, 7) {
        let mut again = Run::start(left, run.model.clone());
        if again.store().recovery.dropped_groups == 0 {
            continue;
        }
        dropped += 1;
        assert!(again.step(&batch));
        check_crashed(again.disk.crash(1), &again.model, &|| {
            "written again".into()
        });
    }
    assert!(dropped > 0, "no group was ever dropped");
}

/// More than a group has room for, and more than one chunk of a snapshot.
#[test]
fn more_changes_than_a_group_has_room_for_are_made_durable_in_several() {
    let mut run = Run::start(blank_disk(), Model::default());
    let big: Vec<_> = (0..450).map(|name| (name, 1_000 + name)).collect();
    assert!(run.step(&Op::Put(big)));
    for name in 100..350 {
        assert!(run.step(&Op::Delete(name)));
    }
    assert!(run.step(&Op::Flush));
    let stats = run.store().stats();
    assert!(stats.commits >= 4 && stats.snapshots >= 1, "{stats:?}");
    assert_eq!(stats.blobs, 200);
    check_crashed(run.disk.crash(0), &run.model, &|| "a large batch".into());
    // The next snapshot replaces one of several chunks, whose slots are free from then on.
    for tag in 0..20 {
        assert!(run.step(&Op::Put(vec![(0, 5_000 + tag)])));
        assert!(run.step(&Op::Flush));
    }
    check_crashed(run.disk.crash(0), &run.model, &|| {
        "snapshots of many blobs".into()
    });
    assert!(run.step(&Op::Reopen));
    assert_eq!(super::all(run.store()), run.model.flushed);
    let stats = run.store().stats();
    let used = stats.slots - stats.free_slots;
    assert!(used <= stats.blobs + 2 * 5, "slots are lost: {stats:?}");
}

#[test]
fn random_histories_survive_crash_after_crash() {
    let wanted = if is_thorough() { 40_000 } else { 1_000 };
    let mut states = 0_u64;
    for seed in 1.. {
        states += random_history(seed);
        if states >= wanted {
            break;
        }
    }
    println!("{states} states after crashes in random histories");
}

fn random_op(chance: &mut Chance, tag: u64) -> Op {
    match chance.below(12) {
        0..5 => Op::Put(vec![(chance.below(6), tag)]),
        5 | 6 => {
            let count = 1 + chance.below(5);
            let blobs = (0..count).map(|at| (chance.below(6), tag + at));
            Op::Put(blobs.collect())
        }
        7 => Op::Delete(chance.below(6)),
        8..11 => Op::Flush,
        _ => Op::Reopen,
    }
}

/// A store that lives through several losses of power.
fn random_history(seed: u64) -> u64 {
    let mut chance = Chance(seed);
    let mut disk = blank_disk();
    let mut model = Model::default();
    let mut states = 0;
    let mut tag = 1_000;
    for _ in 0..6 {
        disk.arm(Step::Any, 1 + chance.below(60), Fault::PowerOff);
        let mut run = Run::start(disk, model);
        for _ in 0..40 {
            tag += 10;
            let op = random_op(&mut chance, tag);
            if !run.step(&op) {
                break;
            }
            if run.store.is_some() && chance.below(8) == 0 && !run.disk.is_off() {
                let store = run.store();
                for name in 0..6 {
                    let found = super::get(store, name).ok();
                    let expected = run.model.now.get(&name).copied();
                    assert!(
                        run.disk.is_off() || found == Some(expected),
                        "seed {seed}: blob {name} is {found:?} and not {expected:?}"
                    );
                }
            }
        }
        for left in run.disk.crash_states(4, chance.next()) {
            check_crashed(left, &run.model, &|| format!("seed {seed}"));
            states += 1;
        }
        // One of them is the one that happened. The next round opens it, and may be cut off while it does.
        disk = run.disk.crash(chance.next());
        model = run.model;
    }
    states
}
