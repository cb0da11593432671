//! Batches and flushes.

use std::sync::atomic::Ordering::SeqCst;

use larder_conformance::Caps;
use larder_traits::{BlobGuid, BlobStoreCaps, Durability, ErrorKind, Fault};

use super::{m, with_caps};
use crate::mutants::Mutant;
use crate::reference::blob_store::{CAPS, Packed};
use crate::reference::lock;

pub(super) fn batches() -> Vec<Mutant> {
    /// How many transfers the mutants' ring takes at a time.
    const DEPTH: usize = 16;
    vec![
        m(
            "bs-batch-first-wins",
            "BS-7",
            &[],
            "of a name that stands in a batch twice, the first frame wins",
            |s| {
                s.batch = Some(Box::new(|place, writes| {
                    let backwards: Vec<_> = writes.iter().rev().copied().collect();
                    place.write_all(&backwards)
                }));
            },
        ),
        m(
            "bs-batch-twice-dropped",
            "BS-7",
            &[],
            "a name that stands in a batch twice is not written at all",
            |s| {
                s.batch = Some(Box::new(|place, writes| {
                    let count =
                        |guid: &BlobGuid| writes.iter().filter(|(other, _)| other == guid).count();
                    let once: Vec<_> = writes
                        .iter()
                        .filter(|(guid, _)| count(guid) == 1)
                        .copied()
                        .collect();
                    place.write_all(&once)
                }));
            },
        ),
        m(
            "bs-batch-overflow",
            "BS-7",
            &["BS-2"],
            "the frames beyond the depth of the queue are dropped",
            |s| {
                s.batch = Some(Box::new(|place, writes| {
                    place.write_all(&writes[..writes.len().min(DEPTH)])
                }));
            },
        ),
        m(
            "bs-batch-wraps",
            "BS-7",
            &["BS-2"],
            "the ring wraps, and later frames land under earlier names",
            |s| {
                s.batch = Some(Box::new(|place, writes| {
                    let name = |at: usize| writes[at % DEPTH.min(writes.len())].0;
                    writes
                        .iter()
                        .enumerate()
                        .try_for_each(|(at, (_, src))| place.write(name(at), src))
                }));
            },
        ),
        m(
            "bs-batch-empty-fails",
            "BS-7",
            &[],
            "an empty batch is an error",
            |s| {
                s.batch = Some(Box::new(|place, writes| {
                    if writes.is_empty() {
                        return Err(Fault::not_applied(ErrorKind::InvalidInput, "no frames").into());
                    }
                    place.write_all(writes)
                }));
            },
        ),
        m(
            "bs-batch-one-frame",
            "BS-7",
            &["BS-2"],
            "all blobs of a batch get its last frame",
            |s| {
                s.batch = Some(Box::new(|place, writes| {
                    let Some((_, last)) = writes.last() else {
                        return Ok(());
                    };
                    writes
                        .iter()
                        .try_for_each(|(guid, _)| place.write(*guid, last))
                }));
            },
        ),
        m(
            "bs-batch-new-only",
            "BS-7",
            &["BS-2"],
            "a batch does not replace blobs that are there",
            |s| {
                s.batch = Some(Box::new(|place, writes| {
                    let new = |guid: &BlobGuid| !lock(&place.frames).contains_key(guid);
                    let new: Vec<_> = writes
                        .iter()
                        .filter(|(guid, _)| new(guid))
                        .copied()
                        .collect();
                    place.write_all(&new)
                }));
            },
        ),
        m(
            "bs-data-sync-invisible",
            "BS-8",
            &["BS-2", "BS-7"],
            "a batch with a data sync is seen after the next flush",
            |s| {
                s.synced_batch = Some(Box::new(|place, writes| {
                    lock(&place.notes)
                        .extend(writes.iter().map(|(guid, src)| (*guid, Packed::new(src))));
                    Ok(())
                }));
                s.flush = Box::new(|place| {
                    let synced = std::mem::take(&mut *lock(&place.notes));
                    lock(&place.frames).extend(synced);
                    Ok(())
                });
            },
        ),
        m(
            "bs-data-sync-first-only",
            "BS-8",
            &["BS-7", "BS-2"],
            "of a batch with a data sync the first frame is written",
            |s| {
                s.synced_batch = Some(Box::new(|place, writes| {
                    place.write_all(&writes[..writes.len().min(1)])
                }));
            },
        ),
    ]
}

/// A store that has something to flush. That nothing survives the loss of power here is no matter: no check of these
/// mutants' clause takes the power away.
const DURABLE: Caps = CAPS
    .with_durability(Durability::Power)
    .with_blob_store(BlobStoreCaps::LEAST.with_exclusive(true));

/// Makes `needs_flush` exact as far as a counter of changes can, and leaves one kind of change out.
macro_rules! dirty {
    ($s:ident, write: $write:literal, delete: $delete:literal, batch: $batch:literal, synced: $synced:literal) => {{
        $s.write = Box::new(|place, guid, src| {
            place.counter.fetch_add($write, SeqCst);
            place.write(guid, src)
        });
        $s.delete = Box::new(|place, guid| {
            place.counter.fetch_add($delete, SeqCst);
            place.delete(guid)
        });
        $s.batch = Some(Box::new(|place, writes| {
            place.counter.fetch_add($batch, SeqCst);
            place.write_all(writes)
        }));
        $s.synced_batch = Some(Box::new(|place, writes| {
            place.counter.fetch_add($synced, SeqCst);
            place.write_all(writes)
        }));
        $s.flush = Box::new(|place| {
            place.counter.store(0, SeqCst);
            Ok(())
        });
        $s.needs_flush = Box::new(|place| place.counter.load(SeqCst) > 0);
    }};
}

pub(super) fn flushes() -> Vec<Mutant> {
    vec![
        with_caps(
            DURABLE,
            "bs-dirty-not-by-delete",
            "BS-9",
            &[],
            "a delete does not ask for a flush",
            |s| {
                dirty!(s, write: 1, delete: 0, batch: 1, synced: 1);
            },
        ),
        with_caps(
            DURABLE,
            "bs-dirty-not-by-batch",
            "BS-9",
            &[],
            "a batch does not ask for a flush",
            |s| {
                dirty!(s, write: 1, delete: 1, batch: 0, synced: 1);
            },
        ),
        with_caps(
            DURABLE,
            "bs-dirty-not-by-data-sync",
            "BS-9",
            &["BS-8"],
            "a batch with a data sync does not ask for a flush",
            |s| {
                dirty!(s, write: 1, delete: 1, batch: 1, synced: 0);
            },
        ),
        with_caps(
            DURABLE,
            "bs-dirty-not-by-write",
            "BS-9",
            &[],
            "a single write does not ask for a flush",
            |s| {
                dirty!(s, write: 0, delete: 1, batch: 1, synced: 1);
            },
        ),
        m(
            "bs-flush-resurrects",
            "BS-5",
            &["BS-6", "BS-4"],
            "a flush brings back what was deleted since the last one",
            |s| {
                s.delete = Box::new(|place, guid| {
                    if let Some(old) = lock(&place.frames).get(&guid) {
                        lock(&place.notes).insert(guid, old.clone());
                    }
                    place.delete(guid)
                });
                s.flush = Box::new(|place| {
                    for (guid, old) in std::mem::take(&mut *lock(&place.notes)) {
                        lock(&place.frames).entry(guid).or_insert(old);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bs-flush-rolls-back",
            "BS-2",
            &["BS-3", "BS-1", "BS-7"],
            "a flush writes the oldest pending frame of a blob last",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    lock(&place.notes)
                        .entry(guid)
                        .or_insert_with(|| Packed::new(src));
                    place.write(guid, src)
                });
                s.flush = Box::new(|place| {
                    for (guid, first) in std::mem::take(&mut *lock(&place.notes)) {
                        if let Some(frame) = lock(&place.frames).get_mut(&guid) {
                            *frame = first;
                        }
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bs-data-sync-counted",
            "BS-8",
            &["BS-9"],
            "a flush right after a data sync is skipped, with what was written in between",
            |s| {
                // The write that races in between is held back until a flush that is not skipped.
                s.synced_batch = Some(Box::new(|place, writes| {
                    place.counter.store(1, SeqCst);
                    place.write_all(writes)
                }));
                s.write = Box::new(|place, guid, src| {
                    if place.counter.load(SeqCst) == 1 {
                        lock(&place.notes).insert(guid, Packed::new(src));
                    }
                    place.write(guid, src)
                });
                s.flush = Box::new(|place| {
                    if place.counter.swap(0, SeqCst) == 1 {
                        let held = std::mem::take(&mut *lock(&place.notes));
                        held.keys()
                            .for_each(|guid| drop(lock(&place.frames).remove(guid)));
                    }
                    Ok(())
                });
            },
        ),
    ]
}
