//! Whether a cut finds what is wrong with a store: small stores with one flaw each, and one without.

use std::collections::BTreeMap;

use super::{Fault, SimDisk, SimDiskOptions, Step};

const COPY_LEN: usize = 1_024;
const SLOTS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A write is acknowledged before it is synced.
    MissingSync,
    /// The only copy is overwritten.
    InPlace,
    /// The copy is believed as it is found.
    NoChecksum,
    /// A sync that failed is tried again.
    SyncRetried,
}

/// Two copies of each slot: the older one is overwritten, and the newer one that is whole counts.
struct Store<'a> {
    disk: &'a SimDisk,
    flaw: Flaw,
    versions: [u64; SLOTS],
}

impl<'a> Store<'a> {
    fn open(disk: &'a SimDisk, flaw: Flaw) -> Self {
        let mut store = Self {
            disk,
            flaw,
            versions: [0; SLOTS],
        };
        for slot in 0..SLOTS {
            store.versions[slot] = store.newest(slot).map_or(0, |(version, _)| version);
        }
        store
    }

    fn copies(&self) -> u64 {
        if self.flaw == Flaw::InPlace { 1 } else { 2 }
    }

    fn place(slot: usize, copy: u64) -> u64 {
        (slot as u64 * 2 + copy) * COPY_LEN as u64
    }

    fn newest(&self, slot: usize) -> Option<(u64, u8)> {
        (0..self.copies())
            .filter_map(|copy| {
                let mut bytes = [0; COPY_LEN];
                let place = Self::place(slot, copy);
                self.disk.read_exact_at(&mut bytes, place).unwrap();
                let version = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                let value = bytes[COPY_LEN - 1];
                let is_whole = bytes == frame(version, value) || self.flaw == Flaw::NoChecksum;
                (version > 0 && is_whole).then_some((version, value))
            })
            .max()
    }

    fn put(&mut self, slot: usize, value: u8) -> std::io::Result<()> {
        let version = self.versions[slot] + 1;
        let place = Self::place(slot, version % self.copies());
        self.disk.write_all_at(&frame(version, value), place)?;
        match self.flaw {
            Flaw::MissingSync => {}
            Flaw::SyncRetried => self.disk.sync().or_else(|_| self.disk.sync())?,
            _ => self.disk.sync()?,
        }
        self.versions[slot] = version;
        Ok(())
    }
}

/// Every byte follows from the two, which stands for a checksum.
fn frame(version: u64, value: u8) -> [u8; COPY_LEN] {
    let mut bytes = [value; COPY_LEN];
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    let sum = version.to_le_bytes()[0]
        .wrapping_mul(31)
        .wrapping_add(value);
    bytes[8..COPY_LEN / 2].fill(sum);
    bytes
}

const WORK: [(usize, u8); 4] = [(0, 1), (1, 2), (0, 3), (0, 4)];

/// Cuts the work off at each step in turn and opens every disk that may be left; how many were looked at, and the first
/// thing that is wrong.
fn explore(flaw: Flaw, also: Option<Fault>) -> (usize, Option<String>) {
    let mut looked_at = 0;
    for step in 1.. {
        let disk = SimDisk::new(SimDiskOptions::new(step), 2 * 2 * COPY_LEN as u64);
        let mut store = Store::open(&disk, flaw);
        disk.arm(Step::Any, step, Fault::PowerOff);
        if let Some(fault) = also {
            disk.arm(Step::Sync, 2, fault);
        }
        let mut acknowledged = BTreeMap::new();
        let mut open = None;
        for (slot, value) in WORK {
            open = Some((slot, value));
            if store.put(slot, value).is_err() {
                break;
            }
            acknowledged.insert(slot, value);
            open = None;
        }
        let is_over = !disk.is_off();
        for state in disk.crash_states(1_000, step) {
            looked_at += 1;
            let after = Store::open(&state, flaw);
            for slot in 0..SLOTS {
                let found = after.newest(slot).map(|(_, value)| value);
                let may_be_open = open.filter(|(at, _)| *at == slot).map(|(_, value)| value);
                let is_right = found == acknowledged.get(&slot).copied()
                    || (found.is_some() && found == may_be_open);
                if !is_right {
                    let wrong = format!("cut {step}: slot {slot} holds {found:?}");
                    return (looked_at, Some(wrong));
                }
            }
        }
        if is_over {
            break;
        }
    }
    (looked_at, None)
}

#[test]
fn nothing_is_found_in_a_store_that_is_right() {
    let (looked_at, wrong) = explore(Flaw::None, None);
    assert_eq!(wrong, None);
    assert!(looked_at > 20, "{looked_at} states");
    let (_, wrong) = explore(Flaw::None, Some(Fault::Io));
    assert_eq!(wrong, None);
}

#[test]
fn a_missing_sync_is_found() {
    explore(Flaw::MissingSync, None).1.unwrap();
}

#[test]
fn an_overwrite_in_place_is_found() {
    explore(Flaw::InPlace, None).1.unwrap();
}

#[test]
fn a_missing_checksum_is_found() {
    explore(Flaw::NoChecksum, None).1.unwrap();
}

#[test]
fn a_sync_that_is_tried_again_is_found() {
    assert_eq!(explore(Flaw::SyncRetried, None).1, None);
    explore(Flaw::SyncRetried, Some(Fault::Io)).1.unwrap();
}
