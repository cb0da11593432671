use std::collections::BTreeSet;
use std::io;

use super::{Call, Fault, SimDisk, SimDiskOptions, Step};

fn disk(len: u64) -> SimDisk {
    SimDisk::new(SimDiskOptions::new(1), len)
}

fn states(disk: &SimDisk) -> BTreeSet<Vec<u8>> {
    let states = disk.crash_states(10_000, 3);
    assert!(states.is_exhaustive());
    let all: Vec<Vec<u8>> = states.map(|disk| disk.visible()).collect();
    let distinct: BTreeSet<Vec<u8>> = all.iter().cloned().collect();
    assert_eq!(all.len(), distinct.len(), "each of them once");
    distinct
}

#[test]
fn what_was_synced_stays_and_the_rest_may_be_there_in_any_part() {
    let disk = disk(2_048);
    disk.write_all_at(&[1; 2_048], 0).unwrap();
    disk.sync().unwrap();
    disk.write_all_at(&[2; 1_000], 100).unwrap();
    assert_eq!(disk.pending_sectors(), 3);
    let states = states(&disk);
    assert_eq!(states.len(), 8);
    for state in &states {
        assert!(state[..100].iter().chain(&state[1_100..]).all(|b| *b == 1));
        for sector in [100..512, 512..1_024, 1_024..1_100] {
            let sector = &state[sector];
            assert!(sector.iter().all(|byte| *byte == sector[0]), "torn within");
        }
    }
    disk.sync().unwrap();
    assert_eq!(disk.crash_states(10, 0).count(), 1);
    assert_eq!(disk.durable(), disk.visible());
}

#[test]
fn of_two_writes_to_one_sector_either_may_land() {
    let disk = disk(1_024);
    disk.write_all_at(&[1; 512], 0).unwrap();
    disk.write_all_at(&[2; 1_024], 0).unwrap();
    let states = states(&disk);
    let firsts: BTreeSet<(u8, u8)> = states.iter().map(|s| (s[0], s[512])).collect();
    let all = [(0, 0), (1, 0), (2, 0), (0, 2), (1, 2), (2, 2)];
    assert_eq!(firsts, all.into_iter().collect());
}

#[test]
fn a_length_is_volatile_and_what_was_cut_off_does_not_come_back() {
    let disk = disk(512);
    disk.write_all_at(&[1; 512], 0).unwrap();
    disk.sync().unwrap();
    disk.write_all_at(&[2; 512], 512).unwrap();
    let seen: Vec<usize> = states(&disk).iter().map(Vec::len).collect();
    assert_eq!(seen, [512, 1_024, 1_024]);
    disk.set_len(0).unwrap();
    disk.grow(1_024).unwrap();
    for state in states(&disk) {
        let is_old = state.first() == Some(&1);
        let is_zeros = state.iter().all(|byte| *byte == 0);
        assert!(is_old || is_zeros, "{} bytes", state.len());
    }
    assert_eq!(disk.visible(), [0; 1_024]);
}

#[test]
fn a_failed_sync_forgets_and_the_next_one_reports_success() {
    let mut lost = 0;
    let mut reverted = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(SimDiskOptions::new(seed), 2_048);
        disk.write_all_at(&[7; 2_048], 0).unwrap();
        disk.arm(Step::Sync, 1, Fault::Io);
        assert_eq!(disk.sync().unwrap_err().raw_os_error(), Some(5));
        assert_eq!(disk.disarm(), 1);
        disk.sync().unwrap();
        let durable = disk.durable();
        lost += usize::from(durable.contains(&0));
        reverted += usize::from(disk.visible().contains(&0));
        assert_eq!(disk.crash(1).visible(), durable, "nothing is volatile");
        // A write makes the sector dirty anew.
        disk.write_all_at(&[7; 2_048], 0).unwrap();
        disk.sync().unwrap();
        assert_eq!(disk.durable(), [7; 2_048]);
    }
    assert!(lost > 40 && reverted > 20 && reverted < 50);
}

#[test]
fn each_fault_does_what_it_says() {
    let disk = disk(4_096);
    let code = |result: io::Result<usize>| result.unwrap_err().raw_os_error();
    for (fault, number) in [
        (Fault::Io, 5),
        (Fault::NoSpace, 28),
        (Fault::Interrupted, 4),
        (Fault::WouldBlock, 11),
    ] {
        disk.arm(Step::Write, 1, fault);
        assert_eq!(code(disk.write_at(&[1; 512], 0)), Some(number));
        assert_eq!(disk.pending_sectors(), 0);
    }
    disk.arm(Step::Any, 2, Fault::Short);
    assert_eq!(disk.write_at(&[1; 1_024], 0).unwrap(), 1_024);
    assert!(disk.read_at(&mut [0; 1_024], 0).unwrap() < 1_024);
    disk.sync().unwrap();

    disk.arm(Step::Read, 1, Fault::BitFlip);
    let mut read = [0; 512];
    disk.read_exact_at(&mut read, 0).unwrap();
    let wrong: u32 = read.iter().map(|byte| (byte ^ 1).count_ones()).sum();
    assert_eq!(wrong, 1);
    assert_eq!(disk.visible()[..512], [1; 512]);

    disk.arm(Step::Write, 1, Fault::Lost);
    disk.write_all_at(&[9; 512], 0).unwrap();
    assert!(!disk.visible().contains(&9));
    disk.arm(Step::Write, 1, Fault::Misdirected);
    disk.write_all_at(&[9; 512], 0).unwrap();
    let bytes = disk.visible();
    assert!(bytes.contains(&9) && bytes[0] == 1);
    disk.flip_bit(3, 7);
    assert_eq!((disk.visible()[3], disk.durable()[3]), (0x81, 0x81));
    assert_eq!(disk.disarm(), 8);
}

#[test]
fn a_full_disk_takes_what_fits() {
    let mut options = SimDiskOptions::new(1);
    options.capacity_bytes = Some(1_000);
    let disk = SimDisk::new(options, 0);
    assert_eq!(disk.write_at(&[1; 2_000], 0).unwrap(), 1_000);
    let full = disk.write_at(&[1; 1], 1_000).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert!(disk.grow(1_001).is_err());
    assert_eq!(disk.len(), 1_000);
}

#[test]
fn what_is_not_aligned_is_refused_where_that_is_asked_for() {
    let mut options = SimDiskOptions::new(1);
    options.align_bytes = 512;
    let disk = SimDisk::new(options, 4_096);
    for (offset, len) in [(1, 512), (0, 511)] {
        let refused = disk.write_at(&vec![0; len], offset).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
    disk.arm(Step::Write, 1, Fault::Short);
    let written = disk.write_at(&[1; 2_048], 0).unwrap();
    assert!(written < 2_048 && written.is_multiple_of(512));
}

#[test]
fn the_power_goes_at_the_step_that_was_named() {
    let disk = disk(1_024);
    disk.write_all_at(&[1; 1_024], 0).unwrap();
    disk.arm(Step::Any, 2, Fault::PowerOff);
    disk.sync().unwrap();
    disk.write_all_at(&[2; 1_024], 0).unwrap_err();
    assert!(disk.is_off());
    disk.sync().unwrap_err();
    disk.read_at(&mut [0], 0).unwrap_err();
    assert_eq!(disk.steps(Step::Any), 3);
    assert_eq!(states(&disk).len(), 4);
    let after = disk.crash(2);
    assert!(!after.is_off());
    after.sync().unwrap();
}

#[test]
fn submitted_calls_complete_in_the_order_of_the_seed() {
    let orders: BTreeSet<Vec<u64>> = (0..20).map(completion_order).collect();
    assert!(orders.len() > 10);
    assert_eq!(completion_order(4), completion_order(4));
}

fn completion_order(seed: u64) -> Vec<u64> {
    let disk = SimDisk::new(SimDiskOptions::new(seed), 4_096);
    for at in 0..6 {
        let data = vec![1; 512];
        let offset = at * 512;
        disk.submit(Call::Write { offset, data });
    }
    disk.submit(Call::Sync);
    let mut order = Vec::new();
    while let Some(completion) = disk.complete() {
        completion.result.unwrap();
        order.push(completion.ticket.0);
    }
    // The sync covers what completed before it and nothing else.
    let before = order.iter().position(|ticket| *ticket == 6).unwrap();
    let durable = disk.durable();
    let covered = (0..6).filter(|at| durable[at * 512] == 1).count();
    assert_eq!(covered, before);
    order
}

#[test]
fn what_is_in_the_air_may_have_landed() {
    let disk = disk(1_024);
    for offset in [0, 512] {
        let data = vec![3; 512];
        disk.submit(Call::Write { offset, data });
    }
    assert_eq!(states(&disk).len(), 4);
    disk.arm(Step::Write, 1, Fault::PowerOff);
    while let Some(completion) = disk.complete() {
        completion.result.unwrap_err();
    }
    assert_eq!(states(&disk).len(), 4);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut options = SimDiskOptions::new(seed);
        options.short_per_mille = 200;
        options.flip_on_write_per_mille = 100;
        options.misdirected_write_per_mille = 100;
        options.lost_write_per_mille = 100;
        options.sync_error_per_mille = 300;
        let disk = SimDisk::new(options, 16_384);
        for n in 0..60_u8 {
            let offset = u64::from(n) * 397 % 12_000;
            disk.write_all_at(&[n; 1_500], offset).unwrap();
            if n % 7 == 0 {
                // It fails now and then.
                let _either = disk.sync();
            }
        }
        let states = disk.crash_states(50, seed);
        assert!(!states.is_exhaustive());
        states.map(|disk| disk.visible()).collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
    let distinct: BTreeSet<Vec<u8>> = run(5).into_iter().collect();
    assert!(distinct.len() > 15, "{}", distinct.len());
}

#[test]
fn two_of_one_state_do_not_touch_each_other() {
    let disk = disk(1_024);
    let other = disk.fork();
    other.write_all_at(&[1; 1_024], 0).unwrap();
    assert_eq!(disk.visible(), [0; 1_024]);
    let after = other.crash(1);
    after.write_all_at(&[2; 10], 0).unwrap();
    assert_eq!(other.visible(), [1; 1_024]);
    let shared: &(dyn Send + Sync) = &after;
    drop(Box::new(shared));
}
