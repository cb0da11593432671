//! Making groups durable: one thread commits for all that wait, and the next group fills in the meantime.
//!
//! A commit is one record and one sync: the frames were written when they were handed in, and the record carries their
//! hashes, so that recovery can tell a group whose frames did not all arrive. Every so often the log is summed up in a
//! snapshot.

use std::sync::PoisonError;
use std::time::Duration;

use larder_traits::ErrorKind;

use crate::disk::{SECTOR_LEN_BYTES, Write};
use crate::error::{Failure, stopped};
use crate::format::{
    Blob, Change, Digest, Kind, Root, chunk_blobs_max, chunks_digest, encode_chunk,
};
use crate::log::{Base, Log};
use crate::scratch::Scratch;
use crate::shape::Shape;
use crate::store::{Group, State, Store};

/// How long a commit waits for short writes that are under way, about as long as a device takes for a few dozen frames.
const GATHER_MAX: Duration = Duration::from_millis(3);

/// How many chunks of a snapshot are in memory at once.
const CHUNKS_AT_ONCE: usize = 4;

/// A group on its way, with what is needed to end it.
struct Taken {
    no: u64,
    changes: Vec<Change>,
    retired: Vec<u32>,
    /// All blobs as they are after the group, where a snapshot is due.
    snapshot: Option<Vec<Blob>>,
}

impl Store {
    /// Waits until every change that was made before the call is durable.
    pub(crate) fn flush(&self) -> Result<(), Failure> {
        let mut state = self.lock();
        if let Some(why) = &state.stopped {
            return Err(stopped(why));
        }
        let is_empty = state.filling.changes.is_empty();
        let wanted = state.filling_no - u64::from(is_empty);
        loop {
            if state.durable_no >= wanted {
                return Ok(());
            }
            if let Some(why) = &state.stopped {
                return Err(why.clone());
            }
            if state.is_led {
                let changed = self.changed.wait(state);
                state = changed.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.is_led = true;
            drop(state);
            Leading(self).commit();
            state = self.lock();
        }
    }

    /// Notes at the end of a store's life that all of its groups are durable, so that the next open may trust them
    /// without looking.
    fn close(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let log = self.log.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.stopped.is_none() && !log.is_marked {
            // If it cannot be written, the next open takes a closer look.
            drop(log.append(&*self.disk, &self.shape, Kind::Mark, &[]));
        }
    }

    /// Waits for the short writes that began before this commit: their threads are likely to ask for a flush next, and
    /// would each need a sync of their own. Writes that begin meanwhile are not waited for.
    fn gather(&self) {
        let mut state = self.lock();
        let before = state.beginning;
        if state.under_way[before] > 0 {
            state.beginning = 1 - before;
            let is_missing = |state: &mut State| state.under_way[before] > 0;
            drop(
                self.arrived
                    .wait_timeout_while(state, GATHER_MAX, is_missing),
            );
        }
    }

    fn take_group(&self, log: &Log) -> Taken {
        let mut state = self.lock();
        let group = std::mem::take(&mut state.filling);
        let no = state.filling_no;
        state.filling_no += 1;
        let Group { changes, retired } = group;
        let change = |(guid, slot): (_, Option<u32>)| match slot {
            None => Change::Delete(guid),
            Some(_) => {
                let blob = state.slots.find(guid);
                Change::Put(blob.expect("a blob that was put last in a group is there"))
            }
        };
        let changes: Vec<Change> = changes.into_iter().map(change).collect();
        let is_due = log.is_due_after(&self.shape, changes.len());
        let snapshot = is_due.then(|| state.slots.iter().collect());
        Taken {
            no,
            changes,
            retired,
            snapshot,
        }
    }

    /// Writes a snapshot of `blobs`, which are all that are there after the last record.
    ///
    /// An error means that the log goes on as before, unless it stopped the store.
    pub(crate) fn write_snapshot(
        &self,
        log: &mut Log,
        mut blobs: Vec<Blob>,
    ) -> Result<(), SnapshotError> {
        // In the order of the file, which is also the order in which recovery puts them back.
        blobs.sort_unstable_by_key(|blob| blob.slot);
        let chunks = self.take_chunks(self.shape.chunks(blobs.len()))?;
        let written = self.write_chunks(log.seq, &blobs, &chunks);
        // The chunks have to be there before the root that speaks of them.
        let synced = written.and_then(|sums| match self.disk.sync() {
            Ok(()) => Ok(sums),
            Err(e) => Err(SnapshotError::Stop(Failure::of(&e, "a sync failed"))),
        });
        let sums = synced.inspect_err(|_| release(&mut self.lock(), &chunks))?;
        let root = Root {
            seq: log.seq,
            epoch: log.epoch,
            log_pos: log.pos,
            blobs: u64::try_from(blobs.len()).expect("a count of blobs fits 64 bits"),
            last: log.last,
            chunks_digest: chunks_digest(self.shape.id, &sums),
            chunks,
        };
        let older = 1 - log.newest;
        let sector = &mut log.buffer[..SECTOR_LEN_BYTES];
        root.encode(self.shape.id, sector);
        // Commit point: past this line a failure may still have taken effect.
        let mut write = std::iter::once(Write {
            at: Shape::root_at(older),
            from: sector,
            registered: None,
        });
        let written = self.disk.write_and_sync(&mut write);
        written.map_err(|e| {
            SnapshotError::Stop(Failure::of(&e, "a snapshot could not be written or synced"))
        })?;
        let new = Base {
            seq: root.seq,
            log_pos: root.log_pos,
            chunks: root.chunks,
        };
        let replaced = std::mem::replace(&mut log.bases[older], new);
        log.newest = older;
        let mut state = self.lock();
        release(&mut state, &replaced.chunks);
        state.snapshots += 1;
        Ok(())
    }

    /// Slots for the chunks, from those that writes leave free.
    fn take_chunks(&self, count: usize) -> Result<Vec<u32>, SnapshotError> {
        for is_grown in [false, true] {
            let mut state = self.lock();
            let slots = std::iter::from_fn(|| state.slots.take());
            let chunks: Vec<u32> = slots.take(count).collect();
            if chunks.len() == count {
                return Ok(chunks);
            }
            release(&mut state, &chunks);
            let wanted = state.slots.len() + count;
            drop(state);
            if is_grown || self.grow(wanted).is_err() {
                break;
            }
        }
        Err(SnapshotError::Later)
    }

    fn write_chunks(
        &self,
        seq: u64,
        blobs: &[Blob],
        slots: &[u32],
    ) -> Result<Vec<Digest>, SnapshotError> {
        let mut sums = Vec::with_capacity(slots.len());
        let count = slots.len().min(CHUNKS_AT_ONCE);
        let frame_len = self.shape.frame_len;
        let mut frames: Vec<_> = (0..count).map(|_| Scratch::zeroed(frame_len)).collect();
        let per_chunk = chunk_blobs_max(self.shape.frame_len);
        let parts: Vec<_> = blobs.chunks(per_chunk).zip(slots).collect();
        for parts in parts.chunks(CHUNKS_AT_ONCE) {
            for ((part, _), frame) in parts.iter().zip(&mut frames) {
                sums.push(encode_chunk(self.shape.id, seq, sums.len(), part, frame));
            }
            let mut writes = parts.iter().zip(&frames).map(|((_, slot), frame)| Write {
                at: self.shape.slot_at(**slot),
                from: frame,
                registered: None,
            });
            if self.disk.write(&mut writes).is_err() {
                return Err(SnapshotError::Later);
            }
        }
        Ok(sums)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

fn release(state: &mut State, slots: &[u32]) {
    for slot in slots {
        state.slots.release(*slot);
    }
}

/// Why there is no new snapshot.
pub(crate) enum SnapshotError {
    /// It did not come far enough to matter, and is tried again after the next group.
    Later,
    /// Nobody knows what is on the medium.
    Stop(Failure),
}

/// The one thread that commits. Whatever happens to it, others are let go on.
struct Leading<'a>(&'a Store);

impl Leading<'_> {
    fn commit(&self) {
        let store = self.0;
        let mut log = store.log.lock().unwrap_or_else(PoisonError::into_inner);
        store.gather();
        let group = store.take_group(&log);
        let appended = log.append(&*store.disk, &store.shape, Kind::Group, &group.changes);
        let mut state = store.lock();
        if let Err(failure) = appended {
            state.stopped = Some(failure);
            return;
        }
        state.durable_no = group.no;
        state.commits += 1;
        release(&mut state, &group.retired);
        drop(state);
        // Those who waited for this group need not wait for the snapshot.
        store.changed.notify_all();
        let Some(blobs) = group.snapshot else {
            return;
        };
        if let Err(SnapshotError::Stop(failure)) = store.write_snapshot(&mut log, blobs) {
            store.lock().stopped = Some(failure);
        }
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if std::thread::panicking() && state.stopped.is_none() {
            let message = "a flush ended in a panic";
            state.stopped = Some(Failure::new(ErrorKind::Internal, message));
        }
        state.is_led = false;
        drop(state);
        self.0.changed.notify_all();
    }
}
