//! Where in the file what lies, and how the file grows.

use larder_traits::frame::PAGE_SIZE;

use crate::disk::SECTOR_LEN_BYTES;
use crate::format::{StoreId, Superblock, chunk_blobs_max, record_entries_max};

/// How many sectors stand before the log: two superblocks and two roots.
const HEAD_SECTORS: u64 = 4;
/// A record is written from one buffer of this many sectors.
const RECORD_SECTORS_MAX: u64 = 128;

pub(crate) fn sector_len() -> u64 {
    u64::try_from(SECTOR_LEN_BYTES).expect("a sector's length fits 64 bits")
}

/// The measures of a new file, and how it grows. Those of a real one are the default; simulated ones are small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) frame_len: usize,
    pub(crate) log_sectors: u64,
    /// The least and the most slots by which the file grows; in between it doubles.
    pub(crate) growth: (usize, usize),
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            frame_len: PAGE_SIZE,
            // With the head, 4 MiB.
            log_sectors: 1024 - HEAD_SECTORS,
            // 32 MiB and 1 GiB.
            growth: (64, 2048),
        }
    }
}

/// The measures of a file, as its superblock has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) id: StoreId,
    pub(crate) frame_len: usize,
    pub(crate) log_at: u64,
    pub(crate) log_sectors: u64,
    pub(crate) slots_at: u64,
}

impl Shape {
    /// The measures of a new file.
    pub(crate) fn planned(id: StoreId, plan: &Plan) -> Self {
        let log_at = HEAD_SECTORS * sector_len();
        let log_end = log_at + plan.log_sectors * sector_len();
        let frame_len = u64::try_from(plan.frame_len).expect("a frame's length fits 64 bits");
        Self {
            id,
            frame_len: plan.frame_len,
            log_at,
            log_sectors: plan.log_sectors,
            slots_at: log_end.next_multiple_of(frame_len),
        }
    }

    pub(crate) fn superblock(&self) -> Superblock {
        Superblock {
            id: self.id,
            frame_len: u32::try_from(self.frame_len).expect("a frame is at most 512 KiB long"),
            log_at: self.log_at,
            log_sectors: self.log_sectors,
            slots_at: self.slots_at,
        }
    }

    /// The measures in a superblock, if they make sense.
    pub(crate) fn of(superblock: &Superblock) -> Option<Self> {
        let frame_len = usize::try_from(superblock.frame_len).ok()?;
        let plan = Plan {
            frame_len,
            log_sectors: superblock.log_sectors,
            ..Plan::default()
        };
        let makes_sense = (SECTOR_LEN_BYTES..=PAGE_SIZE).contains(&frame_len)
            && frame_len.is_multiple_of(SECTOR_LEN_BYTES)
            && (16..1 << 32).contains(&superblock.log_sectors);
        if !makes_sense {
            return None;
        }
        let shape = Self::planned(superblock.id, &plan);
        let fits = (shape.log_at, shape.slots_at) == (superblock.log_at, superblock.slots_at);
        fits.then_some(shape)
    }

    fn frame_len_bytes(&self) -> u64 {
        u64::try_from(self.frame_len).expect("a frame's length fits 64 bits")
    }

    /// Where a slot begins.
    pub(crate) fn slot_at(&self, slot: u32) -> u64 {
        self.slots_at + u64::from(slot) * self.frame_len_bytes()
    }

    /// How long a file with so many slots is.
    pub(crate) fn len_with(&self, slots: usize) -> u64 {
        let slots = u64::try_from(slots).expect("slots are counted in 32 bits");
        self.slots_at + slots * self.frame_len_bytes()
    }

    /// How many whole slots a file of that length has.
    pub(crate) fn slots_in(&self, len: u64) -> usize {
        let slots = len.saturating_sub(self.slots_at) / self.frame_len_bytes();
        usize::try_from(slots.min(u64::from(u32::MAX))).expect("pointers have at least 32 bits")
    }

    /// Where the superblock's copy or the root of that number stands.
    pub(crate) fn superblock_at(copy: u64) -> u64 {
        copy * sector_len()
    }

    pub(crate) fn root_at(root: usize) -> u64 {
        let root = u64::try_from(root).expect("there are two roots");
        (2 + root) * sector_len()
    }

    /// Where a sector of the log stands, whatever lap it is of.
    pub(crate) fn log_sector_at(&self, pos: u64) -> u64 {
        self.log_at + pos % self.log_sectors * sector_len()
    }

    /// The longest record. An eighth of the log, so that the log always holds what came after the older of two
    /// snapshots; see [`Self::checkpoint_after`].
    pub(crate) fn record_sectors_max(&self) -> u64 {
        (self.log_sectors / 8).min(RECORD_SECTORS_MAX)
    }

    pub(crate) fn record_len_max(&self) -> usize {
        let len = self.record_sectors_max() * sector_len();
        usize::try_from(len).expect("a record is at most 512 KiB long")
    }

    /// The most changes in one group.
    pub(crate) fn group_max(&self) -> usize {
        let sectors = usize::try_from(self.record_sectors_max());
        record_entries_max(sectors.expect("a record has at most 128 sectors"))
    }

    /// How much of the log is written after a snapshot before the next one is due. Three eighths and a longest record
    /// are half of the log at most, so two such stretches fit, and a damaged snapshot costs nothing.
    pub(crate) fn checkpoint_after(&self) -> u64 {
        self.log_sectors * 3 / 8
    }

    /// How many chunks a snapshot of so many blobs has.
    pub(crate) fn chunks(&self, blobs: usize) -> usize {
        blobs.div_ceil(chunk_blobs_max(self.frame_len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(log_sectors: u64) -> Shape {
        let plan = Plan {
            log_sectors,
            ..Plan::default()
        };
        Shape::planned(StoreId([1; 16]), &plan)
    }

    #[test]
    fn a_real_file_has_the_measures_of_the_document() {
        let shape = Shape::planned(StoreId([1; 16]), &Plan::default());
        assert_eq!((shape.log_at, shape.log_sectors), (16_384, 1_020));
        assert_eq!(shape.slots_at, 4 << 20);
        assert_eq!(
            (shape.record_sectors_max(), shape.group_max()),
            (127, 12_951)
        );
        assert_eq!(shape.slot_at(3), (4 << 20) + 3 * 524_288);
        assert_eq!(shape.slots_in(shape.len_with(7) + 5), 7);
        assert_eq!(shape.slots_in(5), 0);
    }

    #[test]
    fn the_log_holds_what_came_after_the_older_of_two_snapshots() {
        for sectors in 16..5_000 {
            let shape = shape(sectors);
            // The longest record that makes a snapshot due, and a mark.
            let stretch = shape.checkpoint_after() - 1 + shape.record_sectors_max() + 1;
            assert!(2 * stretch <= sectors, "a log of {sectors} sectors");
        }
    }

    #[test]
    fn a_superblock_that_makes_no_sense_is_no_shape() {
        let good = shape(1_020).superblock();
        assert_eq!(Shape::of(&good).unwrap().slots_at, 4 << 20);
        let bad = [
            Superblock {
                frame_len: 0,
                ..good
            },
            Superblock {
                frame_len: 4_097,
                ..good
            },
            Superblock {
                frame_len: 1 << 20,
                ..good
            },
            Superblock { log_at: 0, ..good },
            Superblock {
                log_sectors: 15,
                ..good
            },
            Superblock {
                log_sectors: u64::MAX,
                ..good
            },
            Superblock {
                slots_at: 0,
                ..good
            },
        ];
        for bad in bad {
            assert!(Shape::of(&bad).is_none(), "{bad:?}");
        }
    }
}
