//! Which slot holds which blob, which slots are free, and who is reading where.
//!
//! All of it is memory. Per slot there are a name, a digest and a word of state, and per blob four bytes in a hash table
//! that compares through the slot: under 64 bytes a blob, however the table happens to be filled.
//!
//! A slot is *free*, *held* (taken by a write that is under way, or by a chunk of a snapshot), or *bound* to a blob. A
//! slot that is given back while somebody reads it stays held until the last reader is gone.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use larder_traits::blob_store::BlobGuid;
use twox_hash::XxHash3_64;

use crate::format::{Blob, Digest, wide};

/// The slot is given back when its last reader is gone.
const LEAVING: u32 = 1 << 31;

/// The slots of a file.
pub(crate) struct Slots {
    guids: Vec<BlobGuid>,
    digests: Vec<[u8; 16]>,
    /// How many readers a slot has, and [`LEAVING`].
    readers: Vec<u32>,
    /// A bit for each slot; set where it is free.
    free: Vec<u64>,
    free_count: usize,
    /// No word before this one has a bit set.
    lowest: usize,
    index: HashTable<u32>,
    seed: u64,
}

fn hash(seed: u64, guid: BlobGuid) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, guid.as_bytes())
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self {
            guids: Vec::new(),
            digests: Vec::new(),
            readers: Vec::new(),
            free: Vec::new(),
            free_count: 0,
            lowest: 0,
            index: HashTable::new(),
            // Names may be chosen by strangers; the seed keeps them from choosing where they land.
            seed: RandomState::new().hash_one(0_u8),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.guids.len()
    }

    pub(crate) fn free_count(&self) -> usize {
        self.free_count
    }

    pub(crate) fn blobs(&self) -> usize {
        self.index.len()
    }

    /// Bytes of memory held, for as many slots as there are.
    pub(crate) fn memory_len_bytes(&self) -> usize {
        let table = self.index.capacity() * 8 / 7 * (size_of::<u32>() + 1);
        let slots = self.guids.capacity() * size_of::<BlobGuid>()
            + self.digests.capacity() * size_of::<[u8; 16]>()
            + self.readers.capacity() * size_of::<u32>();
        slots + table + self.free.capacity() * size_of::<u64>()
    }

    /// There are `len` slots from now on, the new ones free.
    pub(crate) fn grow_to(&mut self, len: usize) {
        let old = self.len();
        if len <= old {
            return;
        }
        self.guids.reserve_exact(len - old);
        self.digests.reserve_exact(len - old);
        self.readers.reserve_exact(len - old);
        self.guids.resize(len, BlobGuid::from_bytes([0; 16]));
        self.digests.resize(len, [0; 16]);
        self.readers.resize(len, 0);
        self.free.resize(len.div_ceil(64), 0);
        for slot in old..len {
            self.set_free(slot);
        }
    }

    /// Room in the index for so many blobs, so that filling it does not move it.
    pub(crate) fn reserve_blobs(&mut self, blobs: usize) {
        let Self {
            index, guids, seed, ..
        } = self;
        index.reserve(blobs, |slot| hash(*seed, guids[wide(*slot)]));
    }

    /// Takes the lowest free slot.
    pub(crate) fn take(&mut self) -> Option<u32> {
        while let Some(word) = self.free.get(self.lowest) {
            if *word != 0 {
                let bit = wide(word.trailing_zeros());
                let slot = self.lowest * 64 + bit;
                self.clear_free(slot);
                return u32::try_from(slot).ok();
            }
            self.lowest += 1;
        }
        None
    }

    /// Takes this very slot, which recovery found in use; `false` if it is not there or not free.
    pub(crate) fn take_this(&mut self, slot: u32) -> bool {
        let slot = wide(slot);
        let is_free = slot < self.len() && self.free[slot / 64] & (1 << (slot % 64)) != 0;
        if is_free {
            self.clear_free(slot);
        }
        is_free
    }

    /// Gives a held slot back, at once or after its last reader.
    pub(crate) fn release(&mut self, slot: u32) {
        let slot = wide(slot);
        if self.readers[slot] == 0 {
            self.set_free(slot);
        } else {
            self.readers[slot] |= LEAVING;
        }
    }

    /// The slot of a blob and the digest of its frame.
    pub(crate) fn find(&self, guid: BlobGuid) -> Option<Blob> {
        let found = self.index.find(hash(self.seed, guid), |slot| {
            self.guids[wide(*slot)] == guid
        });
        found.map(|slot| self.blob(*slot))
    }

    fn blob(&self, slot: u32) -> Blob {
        Blob {
            guid: self.guids[wide(slot)],
            slot,
            digest: u128::from_le_bytes(self.digests[wide(slot)]),
        }
    }

    /// All blobs, in no particular order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = Blob> {
        self.index.iter().map(|slot| self.blob(*slot))
    }

    /// Binds a held slot to a blob. Returns the slot that the blob had before, which is held from now on.
    pub(crate) fn bind(&mut self, blob: Blob) -> Option<u32> {
        self.guids[wide(blob.slot)] = blob.guid;
        self.digests[wide(blob.slot)] = Digest::to_le_bytes(blob.digest);
        let Self {
            index, guids, seed, ..
        } = self;
        let code = hash(*seed, blob.guid);
        match index.find_mut(code, |slot| guids[wide(*slot)] == blob.guid) {
            Some(slot) => Some(std::mem::replace(slot, blob.slot)),
            None => {
                index.insert_unique(code, blob.slot, |slot| hash(*seed, guids[wide(*slot)]));
                None
            }
        }
    }

    /// Forgets a blob. Returns its slot, which is held from now on.
    pub(crate) fn unbind(&mut self, guid: BlobGuid) -> Option<u32> {
        let Self {
            index, guids, seed, ..
        } = self;
        let code = hash(*seed, guid);
        let entry = index.find_entry(code, |slot| guids[wide(*slot)] == guid);
        entry.ok().map(|entry| entry.remove().0)
    }

    /// Keeps a slot from being used for something else while it is read.
    pub(crate) fn pin(&mut self, slot: u32) {
        self.readers[wide(slot)] += 1;
    }

    pub(crate) fn unpin(&mut self, slot: u32) {
        let slot = wide(slot);
        self.readers[slot] -= 1;
        if self.readers[slot] == LEAVING {
            self.readers[slot] = 0;
            self.set_free(slot);
        }
    }

    fn set_free(&mut self, slot: usize) {
        debug_assert!(
            self.free[slot / 64] & (1 << (slot % 64)) == 0,
            "a slot is given back once"
        );
        self.free[slot / 64] |= 1 << (slot % 64);
        self.free_count += 1;
        self.lowest = self.lowest.min(slot / 64);
    }

    fn clear_free(&mut self, slot: usize) {
        self.free[slot / 64] &= !(1 << (slot % 64));
        self.free_count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(guid: u128, slot: u32) -> Blob {
        Blob {
            guid: BlobGuid::from_u128(guid),
            slot,
            digest: guid + 1_000,
        }
    }

    #[test]
    fn the_lowest_free_slot_is_taken_first() {
        let mut slots = Slots::new();
        assert_eq!(slots.take(), None);
        slots.grow_to(130);
        for expected in 0..130 {
            assert_eq!(slots.take(), Some(expected));
        }
        assert_eq!((slots.take(), slots.free_count()), (None, 0));
        slots.release(129);
        slots.release(64);
        slots.release(3);
        assert_eq!(slots.take(), Some(3));
        assert_eq!(slots.take(), Some(64));
        slots.grow_to(131);
        assert_eq!(slots.take(), Some(129));
        assert_eq!(slots.take(), Some(130));
        assert!(!slots.take_this(130) && !slots.take_this(131));
        slots.release(130);
        assert!(slots.take_this(130));
    }

    #[test]
    fn a_slot_with_readers_is_given_back_by_the_last() {
        let mut slots = Slots::new();
        slots.grow_to(1);
        assert_eq!(slots.take(), Some(0));
        slots.pin(0);
        slots.pin(0);
        slots.release(0);
        assert_eq!(slots.take(), None);
        slots.unpin(0);
        assert_eq!(slots.take(), None);
        slots.unpin(0);
        assert_eq!(slots.take(), Some(0));
        slots.pin(0);
        slots.unpin(0);
        assert_eq!(slots.take(), None, "reading alone frees nothing");
    }

    #[test]
    fn binding_replaces_and_unbinding_forgets() {
        let mut slots = Slots::new();
        slots.grow_to(10);
        for _ in 0..4 {
            slots.take();
        }
        assert_eq!(slots.bind(blob(7, 0)), None);
        assert_eq!(slots.bind(blob(8, 1)), None);
        assert_eq!(slots.bind(blob(7, 2)), Some(0));
        assert_eq!(slots.find(BlobGuid::from_u128(7)), Some(blob(7, 2)));
        assert_eq!(slots.find(BlobGuid::from_u128(9)), None);
        assert_eq!(slots.unbind(BlobGuid::from_u128(8)), Some(1));
        assert_eq!(slots.unbind(BlobGuid::from_u128(8)), None);
        assert_eq!(slots.iter().collect::<Vec<_>>(), [blob(7, 2)]);
    }

    #[test]
    fn a_blob_takes_less_than_64_bytes_of_memory() {
        // Just past a power of two, where a hash table has the most room to spare.
        for blobs in [100_000, 114_689, 229_377] {
            let mut slots = Slots::new();
            slots.grow_to(blobs);
            for at in 0..blobs {
                let slot = slots.take().unwrap();
                slots.bind(blob(u128::try_from(at).unwrap(), slot));
            }
            let each = slots.memory_len_bytes() / blobs;
            assert!(each < 64, "{each} bytes a blob for {blobs} blobs");
        }
    }
}
