//! The frame store itself, on any [`Disk`]: what is in memory, and how frames are read and written.
//!
//! A write takes a fresh slot, fills it without holding a lock, and is then made visible in one step. What it replaced
//! is given back once the group that replaces it is durable, so that a crash always finds the older frame where the
//! older group says it is. The groups are made durable in [`commit`](crate::commit).

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use larder_traits::blob_store::{BlobGuid, BlobStoreError};
use larder_traits::{ErrorKind, Fault};

use crate::disk::{Disk, Read, Write};
use crate::error::{Failure, corrupt, stopped};
use crate::format::{Blob, CHUNKS_MAX, Digest, StoreId};
use crate::log::Log;
use crate::shape::{Plan, Shape};
use crate::slots::Slots;
use crate::stats::{Recovery, Stats};

/// A commit waits a moment for writes of up to so many frames that are under way: one sync for all of them is far less
/// than one for each.
const SHORT_WRITE_MAX: usize = 4;

/// A frame to be written.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) guid: BlobGuid,
    pub(crate) frame: &'a [u8],
    pub(crate) registered: Option<u32>,
}

/// A frame to be read.
pub(crate) struct Target<'a> {
    pub(crate) guid: BlobGuid,
    pub(crate) frame: &'a mut [u8],
    pub(crate) registered: Option<u32>,
}

/// A store of frames on a disk.
pub(crate) struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) shape: Shape,
    growth: (usize, usize),
    pub(crate) state: Mutex<State>,
    /// A group became durable, or the store was stopped.
    pub(crate) changed: Condvar,
    /// No short write is under way any more that a commit waits for.
    pub(crate) arrived: Condvar,
    /// Held while the file grows.
    growing: Mutex<()>,
    /// Held by the one thread that commits, over its I/O.
    pub(crate) log: Mutex<Log>,
    pub(crate) recovery: Recovery,
}

/// What changes. The lock on it is held for no I/O.
pub(crate) struct State {
    pub(crate) slots: Slots,
    pub(crate) filling: Group,
    /// The number of the group that is filling; each group has the next.
    pub(crate) filling_no: u64,
    /// The last group that is durable.
    pub(crate) durable_no: u64,
    /// Whether a thread commits now.
    pub(crate) is_led: bool,
    /// How many short writes are under way, by whether they began before or after the last commit looked.
    pub(crate) under_way: [u32; 2],
    /// Which of the two counts those that begin now.
    pub(crate) beginning: usize,
    /// Why nothing more is promised (BS-12).
    pub(crate) stopped: Option<Failure>,
    /// Slots whose write failed. They are not used again before the next open.
    given_up: usize,
    pub(crate) commits: u64,
    pub(crate) snapshots: u64,
}

/// Changes that become durable together.
#[derive(Default)]
pub(crate) struct Group {
    /// The new slot of each blob, or that it is gone.
    pub(crate) changes: BTreeMap<BlobGuid, Option<u32>>,
    /// What is given back once the group is durable.
    pub(crate) retired: Vec<u32>,
}

impl State {
    pub(crate) fn new(slots: Slots) -> Self {
        Self {
            slots,
            filling: Group::default(),
            filling_no: 1,
            durable_no: 0,
            is_led: false,
            under_way: [0; 2],
            beginning: 0,
            stopped: None,
            given_up: 0,
            commits: 0,
            snapshots: 0,
        }
    }

    fn check(&self) -> Result<(), Failure> {
        self.stopped
            .as_ref()
            .map_or(Ok(()), |why| Err(stopped(why)))
    }

    fn used(&self) -> usize {
        self.slots.len() - self.slots.free_count()
    }

    /// Notes a change in the group that is filling. `old` is what the blob was in before.
    fn note(&mut self, guid: BlobGuid, new: Option<u32>, old: Option<u32>) {
        let superseded = self.filling.changes.insert(guid, new).flatten();
        match (superseded, old) {
            // No group that is durable or on its way knows of this slot.
            (Some(never_committed), _) => self.slots.release(never_committed),
            (None, Some(old)) => self.filling.retired.push(old),
            (None, None) => {}
        }
    }
}

impl Store {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        shape: Shape,
        plan: &Plan,
        state: State,
        log: Log,
        recovery: Recovery,
    ) -> Self {
        Self {
            disk,
            shape,
            growth: plan.growth,
            state: Mutex::new(state),
            changed: Condvar::new(),
            arrived: Condvar::new(),
            growing: Mutex::new(()),
            log: Mutex::new(log),
            recovery,
        }
    }

    /// Nothing under the lock can be left half done by a panic but what the next open finds out.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self) -> StoreId {
        self.shape.id
    }

    /// Reads one frame.
    pub(crate) fn read(&self, target: Target<'_>) -> Result<(), BlobStoreError> {
        let mut results = self.read_all(vec![target]);
        results.pop().expect("each target has a result")
    }

    /// Reads frames, each with a result of its own.
    pub(crate) fn read_all(&self, targets: Vec<Target<'_>>) -> Vec<Result<(), BlobStoreError>> {
        let pins = Pins::new(self, targets.iter().map(|target| target.guid));
        let mut reads = Vec::with_capacity(targets.len());
        let mut hashers = Vec::with_capacity(targets.len());
        for (target, blob) in targets.into_iter().zip(&pins.blobs) {
            if let Some(blob) = blob {
                hashers.push(self.id().frame_hasher(target.guid, blob.slot));
                reads.push(Read {
                    at: self.shape.slot_at(blob.slot),
                    into: target.frame,
                    registered: target.registered,
                });
            }
        }
        let mut show = |index: usize, part: &[u8]| hashers[index].update(part);
        let answers = match reads.len() {
            0 => Vec::new(),
            _ => self.disk.read_and_show(&mut reads, &mut show),
        };
        let mut answers = answers.into_iter().zip(hashers);
        let judge = |(blob, guid): (&Option<Blob>, &BlobGuid)| {
            let Some(blob) = blob else {
                return Err(BlobStoreError::not_found(*guid));
            };
            let (answer, hasher) = answers.next().expect("each read has an answer");
            answer.map_err(|e| Failure::of(&e, "the frame could not be read").not_applied())?;
            if hasher.digest() == blob.digest {
                return Ok(());
            }
            let message = "what is stored is not the frame that was written";
            let detail = format!("blob {guid} in slot {}", blob.slot);
            Err(corrupt(message, detail).not_applied().into())
        };
        pins.blobs.iter().zip(&pins.guids).map(judge).collect()
    }

    /// Writes frames, all visible at once. The last of one name wins.
    pub(crate) fn write(&self, sources: &[Source<'_>]) -> Result<(), BlobStoreError> {
        let sources = last_of_each(sources);
        for (at, part) in sources.chunks(self.shape.group_max()).enumerate() {
            self.write_part(part).map_err(|failure| match at {
                0 => failure.not_applied(),
                _ => failure.unknown(),
            })?;
        }
        Ok(())
    }

    fn write_part(&self, sources: &[Source<'_>]) -> Result<(), Failure> {
        let slots = self.take_slots(sources.len())?;
        let mut filler = Filler {
            store: self,
            sources,
            slots: &slots.slots,
            at: 0,
            digests: Vec::with_capacity(sources.len()),
        };
        let written = self.disk.write(&mut filler);
        // A disk that draws no further than it has to leaves the last digest to do.
        while filler.digests.len() < sources.len() && written.is_ok() {
            filler.next();
        }
        let digests = filler.digests;
        written.map_err(|e| Failure::of(&e, "the frames could not be written"))?;
        let mut state = self.room_in_group(sources.len())?;
        for ((source, slot), digest) in sources.iter().zip(slots.keep(&mut state)).zip(digests) {
            let blob = Blob {
                guid: source.guid,
                slot,
                digest,
            };
            let old = state.slots.bind(blob);
            state.note(source.guid, Some(slot), old);
        }
        Ok(())
    }

    /// Removes a blob.
    pub(crate) fn delete(&self, guid: BlobGuid) -> Result<(), BlobStoreError> {
        let mut state = self.room_in_group(1).map_err(|e| e.not_applied())?;
        if let Some(old) = state.slots.unbind(guid) {
            state.note(guid, None, Some(old));
        }
        Ok(())
    }

    pub(crate) fn list(&self) -> Vec<BlobGuid> {
        self.lock().slots.iter().map(|blob| blob.guid).collect()
    }

    pub(crate) fn has(&self, guid: BlobGuid) -> bool {
        self.lock().slots.find(guid).is_some()
    }

    pub(crate) fn needs_flush(&self) -> bool {
        let state = self.lock();
        let is_filled = !state.filling.changes.is_empty();
        let is_on_its_way = state.durable_no + 1 < state.filling_no;
        is_filled || is_on_its_way || state.stopped.is_some()
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            blobs: state.slots.blobs(),
            slots: state.slots.len(),
            free_slots: state.slots.free_count(),
            given_up_slots: state.given_up,
            file_len_bytes: self.disk.len_bytes(),
            index_len_bytes: state.slots.memory_len_bytes(),
            unflushed_changes: state.filling.changes.len(),
            commits: state.commits,
            snapshots: state.snapshots,
        }
    }

    /// The state, once so many changes more fit the group that is filling.
    fn room_in_group(&self, changes: usize) -> Result<MutexGuard<'_, State>, Failure> {
        loop {
            let state = self.lock();
            state.check()?;
            if state.filling.changes.len() + changes <= self.shape.group_max() {
                return Ok(state);
            }
            drop(state);
            self.flush()?;
        }
    }

    /// Takes the lowest free slots, and leaves as many as the next snapshot will need.
    fn take_slots(&self, count: usize) -> Result<Taken<'_>, Failure> {
        loop {
            let mut state = self.lock();
            state.check()?;
            let used = state.used() + count;
            let kept = self.shape.chunks(used);
            if kept > CHUNKS_MAX {
                let message = "the store holds as many blobs as its format has room for";
                return Err(Failure::new(ErrorKind::NoSpace, message));
            }
            if state.slots.free_count() >= count + kept {
                let slots = std::iter::from_fn(|| state.slots.take()).take(count);
                let slots = slots.collect();
                let counted = (count <= SHORT_WRITE_MAX).then_some(state.beginning);
                if let Some(at) = counted {
                    state.under_way[at] += 1;
                }
                return Ok(Taken {
                    store: self,
                    slots,
                    counted,
                });
            }
            drop(state);
            self.grow(used + kept)?;
        }
    }

    /// Makes the file long enough for so many slots. A full medium is met here, before a slot is taken.
    pub(crate) fn grow(&self, slots: usize) -> Result<(), Failure> {
        let _one_at_a_time = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.lock().slots.len();
        if old >= slots {
            return Ok(());
        }
        let (least, most) = self.growth;
        let mut new = slots.max(old + old.clamp(least, most));
        if u32::try_from(new).is_err() {
            let message = "the file has as many slots as its format has room for";
            return Err(Failure::new(ErrorKind::NoSpace, message));
        }
        let mut grown = self.disk.grow(self.shape.len_with(new));
        if grown.is_err() && new > slots {
            // There may still be room for what is needed now.
            new = slots;
            grown = self.disk.grow(self.shape.len_with(new));
        }
        grown.map_err(|e| Failure::of(&e, "the file could not be made longer"))?;
        self.lock().slots.grow_to(new);
        Ok(())
    }
}

/// The sources without those that a later one of the same name replaces.
fn last_of_each<'a>(sources: &[Source<'a>]) -> Vec<Source<'a>> {
    let mut seen = HashSet::with_capacity(sources.len());
    let last = sources
        .iter()
        .rev()
        .filter(|source| seen.insert(source.guid));
    let mut last: Vec<_> = last.copied().collect();
    last.reverse();
    last
}

/// Slots that were taken for a write. Unless they are kept they are given up.
struct Taken<'a> {
    store: &'a Store,
    slots: Vec<u32>,
    /// Which count of short writes this one is in.
    counted: Option<usize>,
}

impl Taken<'_> {
    fn keep(mut self, state: &mut State) -> Vec<u32> {
        self.arrive(state);
        std::mem::take(&mut self.slots)
    }

    /// A commit need not wait for this write any more.
    fn arrive(&mut self, state: &mut State) {
        if let Some(at) = self.counted.take() {
            state.under_way[at] -= 1;
            if state.under_way[at] == 0 {
                self.store.arrived.notify_all();
            }
        }
    }
}

impl Drop for Taken<'_> {
    /// A slot that could not be written is likely not to be writable the next time either, and it would be the first
    /// to be taken again.
    fn drop(&mut self) {
        if !self.slots.is_empty() {
            let store = self.store;
            let mut state = store.lock();
            state.given_up += self.slots.len();
            self.arrive(&mut state);
        }
    }
}

/// Hands frames to the disk, and hashes each while the disk is at work on it.
struct Filler<'a> {
    store: &'a Store,
    sources: &'a [Source<'a>],
    slots: &'a [u32],
    at: usize,
    digests: Vec<Digest>,
}

impl<'a> Iterator for Filler<'a> {
    type Item = Write<'a>;

    fn next(&mut self) -> Option<Write<'a>> {
        if let Some(last) = self.at.checked_sub(1)
            && self.digests.len() < self.at
        {
            let source = &self.sources[last];
            let id = self.store.id();
            let digest = id.frame_digest(source.guid, self.slots[last], source.frame);
            self.digests.push(digest);
        }
        let source = self.sources.get(self.at)?;
        let slot = self.slots[self.at];
        self.at += 1;
        Some(Write {
            at: self.store.shape.slot_at(slot),
            from: source.frame,
            registered: source.registered,
        })
    }
}

/// Slots that nobody may use for something else while they are read.
struct Pins<'a> {
    store: &'a Store,
    guids: Vec<BlobGuid>,
    blobs: Vec<Option<Blob>>,
}

impl<'a> Pins<'a> {
    fn new(store: &'a Store, guids: impl Iterator<Item = BlobGuid>) -> Self {
        let guids: Vec<_> = guids.collect();
        let mut state = store.lock();
        let pin = |guid: &BlobGuid| {
            let blob = state.slots.find(*guid)?;
            state.slots.pin(blob.slot);
            Some(blob)
        };
        let blobs = guids.iter().map(pin).collect();
        drop(state);
        Self {
            store,
            guids,
            blobs,
        }
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        let mut state = self.store.lock();
        for blob in self.blobs.iter().flatten() {
            state.slots.unpin(blob.slot);
        }
    }
}

impl From<Failure> for Fault {
    /// Only where the call certainly had no effect; the other way is written out.
    fn from(failure: Failure) -> Self {
        failure.not_applied()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
