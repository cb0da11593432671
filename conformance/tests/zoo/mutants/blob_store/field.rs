//! As stores in the field have been wrong: by a hint that was taken for an answer, by a cache that one way in does not tell,
//! by a bound of a transfer, or by what a flush makes of two changes of one blob.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_conformance::{Caps, Engine};
use larder_traits::{BlobGuid, Durability, ErrorKind, Fault, PAGE_SIZE};

use super::{DURABLE, SECTOR, m, with_caps};
use crate::mutants::Mutant;
use crate::mutants::files::f;
use crate::reference::blob_store::{Packed, Place, flush_failed};
use crate::reference::files::{self, Flaw, FrameFlaw, SlotFlaw};
use crate::reference::lock;

/// What a store in files declares that is about processes only.
const PROCESS: Caps = files::CAPS.with_durability(Durability::Process);

pub(super) fn field() -> Vec<Mutant> {
    [
        looks(),
        batches(),
        names(),
        ranges(),
        flushes(),
        slots(),
        handles(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The sum of the words of a frame.
fn sum(frame: &[u8]) -> u64 {
    let words = frame.chunks_exact(8);
    words.fold(0, |sum: u64, word| {
        let word = word.try_into().expect("eight bytes are a word");
        sum.wrapping_add(u64::from_le_bytes(word))
    })
}

fn looks() -> Vec<Mutant> {
    vec![
        m(
            "bs-unchanged-by-its-sum",
            "BS-2",
            &["BS-1", "BS-7"],
            "a frame counts as unchanged if the sum of its words is, in whatever order they are",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let mut old = vec![0; PAGE_SIZE];
                    if place.read(guid, &mut old).is_ok() && sum(&old) == sum(src) {
                        return Ok(());
                    }
                    place.write(guid, src)
                });
            },
        ),
        m(
            "bs-own-last-unchanged",
            "BS-2",
            &["BS-1"],
            "a handle does not write the frame that it has written last, whatever another one has written since",
            |s| {
                let own = Arc::new(Mutex::new(BTreeMap::new()));
                let deleted = Arc::clone(&own);
                s.write = Box::new(move |place, guid, src| {
                    let before = lock(&own).insert(guid, src.to_vec());
                    if before.as_deref() == Some(src) && place.has(guid)? {
                        return Ok(());
                    }
                    place.write(guid, src)
                });
                s.delete = Box::new(move |place, guid| {
                    lock(&deleted).remove(&guid);
                    place.delete(guid)
                });
            },
        ),
    ]
}

fn batches() -> Vec<Mutant> {
    vec![
        m(
            "bs-data-sync-first-wins",
            "BS-8",
            &["BS-7"],
            "of a name that stands in a batch with a data sync twice, the first frame wins",
            |s| {
                s.synced_batch = Some(Box::new(|place, writes| {
                    let backwards: Vec<_> = writes.iter().rev().copied().collect();
                    place.write_all(&backwards)
                }));
            },
        ),
        m(
            "bs-data-sync-carried-over-by-the-flush",
            "BS-8",
            &["BS-2", "BS-5", "BS-7"],
            "a flush carries over what batches with a data sync left, whatever has become of these blobs since",
            |s| {
                s.synced_batch = Some(Box::new(|place, writes| {
                    let left = writes.iter().map(|(guid, src)| (*guid, Packed::new(src)));
                    lock(&place.notes).extend(left);
                    place.write_all(writes)
                }));
                s.flush = Box::new(|place| {
                    let left = std::mem::take(&mut *lock(&place.notes));
                    lock(&place.frames).extend(left);
                    Ok(())
                });
            },
        ),
        m(
            "bs-batch-buffer-once",
            "BS-7",
            &["BS-2"],
            "a batch has one entry for each buffer, and of several blobs that get the frame of one the first does",
            |s| {
                s.batch = Some(Box::new(|place, writes| {
                    let mut buffers = BTreeSet::new();
                    let mut once = writes.to_vec();
                    once.retain(|(_, src)| buffers.insert(src.as_ptr().addr()));
                    place.write_all(&once)
                }));
            },
        ),
    ]
}

/// What a filter keeps of a name.
fn bit(guid: BlobGuid) -> u64 {
    files::hash(&guid.to_bytes()) % 1024
}

fn names() -> Vec<Mutant> {
    vec![
        m(
            "bs-has-by-filter",
            "BS-6",
            &[],
            "`has_blob` asks a filter, which says of some absent names that they may be there",
            |s| {
                s.has = Box::new(|place, guid| {
                    let names = place.list()?;
                    Ok(names.into_iter().any(|name| bit(name) == bit(guid)))
                });
            },
        ),
        m(
            "bs-has-by-half",
            "BS-6",
            &[],
            "`has_blob` looks whether a name begins as the one that is asked for",
            |s| {
                s.has = Box::new(|place, guid| {
                    let half = |guid: BlobGuid| guid.to_bytes()[..8].to_vec();
                    let names = place.list()?;
                    Ok(names.into_iter().any(|name| half(name) == half(guid)))
                });
            },
        ),
        m(
            "bs-list-cached-by-count",
            "BS-6",
            &["C-2"],
            "a list is kept as long as there are as many blobs as before",
            |s| {
                let kept = Mutex::new(Vec::<BlobGuid>::new());
                s.list = Box::new(move |place| {
                    let names = place.list()?;
                    let mut kept = lock(&kept);
                    if kept.len() != names.len() {
                        *kept = names;
                    }
                    Ok(kept.clone())
                });
            },
        ),
    ]
}

fn ranges() -> Vec<Mutant> {
    /// The most bytes of one transfer.
    const TRANSFER: usize = 128 << 10;
    vec![
        m(
            "bs-range-of-one-transfer",
            "BS-1",
            &["BS-2"],
            "of a range that is longer than a transfer, the first transfer is filled",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    let len = dst.len().min(TRANSFER);
                    place.range(guid, offset, &mut dst[..len])
                });
            },
        ),
        m(
            "bs-range-until-the-boundary",
            "BS-1",
            &["BS-2"],
            "a range that goes over a multiple of what a transfer takes is filled up to there",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    let end = offset / TRANSFER * TRANSFER + TRANSFER;
                    let len = dst.len().min(end - offset);
                    place.range(guid, offset, &mut dst[..len])
                });
            },
        ),
        m(
            "bs-range-of-nothing-at-the-end",
            "BS-1",
            &["C-4"],
            "a range of no bytes behind the last one is refused",
            |s| {
                s.within = |offset, len| {
                    offset < PAGE_SIZE && offset.checked_add(len).is_some_and(|it| it <= PAGE_SIZE)
                };
            },
        ),
        m(
            "bs-range-to-an-odd-address",
            "BS-1",
            &["BS-2"],
            "a range is read to where memory is aligned, and the bytes before that are not filled",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    let before = dst.as_ptr().addr().wrapping_neg() % 16;
                    let before = before.min(dst.len());
                    place.range(guid, offset + before, &mut dst[before..])
                });
            },
        ),
        m(
            "bs-range-not-told-of-batches",
            "BS-1",
            &["BS-2", "BS-7", "BS-8"],
            "a range is taken from the frame that was read last, of which a batch with a data sync is not told",
            |s| {
                s.read = Box::new(|place, guid, dst| {
                    place.read(guid, dst)?;
                    lock(&place.notes).insert(guid, Packed::new(dst));
                    Ok(())
                });
                s.write = Box::new(|place, guid, src| {
                    lock(&place.notes).remove(&guid);
                    place.write(guid, src)
                });
                s.delete = Box::new(|place, guid| {
                    lock(&place.notes).remove(&guid);
                    place.delete(guid)
                });
                s.synced_batch = Some(Box::new(Place::write_all));
                s.range = Box::new(|place, guid, offset, dst| {
                    let kept = lock(&place.notes).get(&guid).cloned();
                    let Some(kept) = kept else {
                        return place.range(guid, offset, dst);
                    };
                    let mut frame = vec![0; PAGE_SIZE];
                    kept.unpack(&mut frame);
                    dst.copy_from_slice(&frame[offset..offset + dst.len()]);
                    Ok(())
                });
            },
        ),
        m(
            "bs-range-ends-share-a-sector",
            "BS-1",
            &["BS-2"],
            "a range is cut into whole sectors, and what is left over at its end comes from the buffer of what was left over at its start",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    place.range(guid, offset, dst)?;
                    let end = offset + dst.len();
                    let (first, last) = (offset / SECTOR, end / SECTOR);
                    let is_cut = offset % SECTOR != 0 && end % SECTOR != 0;
                    if is_cut && last > first + 1 {
                        let rest = end % SECTOR;
                        let at = dst.len() - rest;
                        place.range(guid, first * SECTOR, &mut dst[at..])?;
                    }
                    Ok(())
                });
            },
        ),
    ]
}

fn flushes() -> Vec<Mutant> {
    vec![
        with_caps(
            DURABLE,
            "bs-dirty-until-deleted",
            "BS-9",
            &[],
            "a delete takes back the write that waits for a flush, and with it asks for none, flushed before that or not",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    place.write(guid, src)?;
                    lock(&place.notes).insert(guid, Packed::new(&[0]));
                    Ok(())
                });
                s.delete = Box::new(|place, guid| {
                    if lock(&place.notes).remove(&guid).is_none() {
                        lock(&place.notes).insert(guid, Packed::new(&[0]));
                    }
                    place.delete(guid)
                });
                s.flush = Box::new(|place| {
                    lock(&place.notes).clear();
                    Ok(())
                });
                s.fails.flush = |place, trouble| {
                    place.counter.store(1, SeqCst);
                    flush_failed(place, trouble)
                };
                s.needs_flush = Box::new(|place| {
                    place.counter.load(SeqCst) != 0 || !lock(&place.notes).is_empty()
                });
            },
        ),
        with_caps(
            DURABLE,
            "bs-flush-takes-what-came-for-done",
            "BS-3",
            &["BS-8", "BS-11", "C-2"],
            "a flush writes what there was when it began, and takes what came meanwhile for written too",
            |s| {
                // The notes are what is on the medium. What was not flushed is gone with the handle.
                s.write = Box::new(|place, guid, src| {
                    place.write(guid, src)?;
                    place.counter.store(1, SeqCst);
                    Ok(())
                });
                s.delete = Box::new(|place, guid| {
                    place.delete(guid)?;
                    place.counter.store(1, SeqCst);
                    Ok(())
                });
                s.flush = Box::new(|place| {
                    if place.counter.load(SeqCst) == 0 {
                        return Ok(());
                    }
                    let written = lock(&place.frames).clone();
                    std::thread::sleep(Duration::from_millis(1));
                    *lock(&place.notes) = written;
                    place.counter.store(0, SeqCst);
                    Ok(())
                });
                s.close = Box::new(|place| {
                    let written = lock(&place.notes).clone();
                    *lock(&place.frames) = written;
                });
            },
        )
        .awaiting(Engine::Lin),
        with_caps(
            DURABLE,
            "bs-flush-once-for-two",
            "BS-3",
            &["BS-8", "BS-11"],
            "of two flushes at a time the second waits for the first, and has nothing to do then, whatever came between",
            |s| {
                let running = Arc::new(Mutex::new(()));
                s.flush = Box::new(move |place| {
                    let Ok(turn) = running.try_lock() else {
                        // The one that runs does it all.
                        drop(lock(&running));
                        return Ok(());
                    };
                    let written = lock(&place.frames).clone();
                    std::thread::sleep(Duration::from_millis(1));
                    *lock(&place.notes) = written;
                    drop(turn);
                    Ok(())
                });
                s.close = Box::new(|place| {
                    let written = lock(&place.notes).clone();
                    *lock(&place.frames) = written;
                });
            },
        )
        .awaiting(Engine::Lin),
    ]
}

fn slots() -> Vec<Mutant> {
    let of = |flaw| move || files::frame_slots(PROCESS, flaw);
    vec![
        f(
            "bs-file-slot-netted-out",
            "BS-5",
            &["BS-3", "BS-6", "BS-11", "C-2"],
            "a blob that was written and deleted since the last flush is left out by the next, also one that was flushed before",
            of(SlotFlaw::NettedOut),
        ),
        f(
            "bs-file-slot-same-names",
            "BS-3",
            &["BS-11", "C-2"],
            "the index is not written anew if the names are the same, though their slots are others",
            of(SlotFlaw::SameNames),
        ),
        f(
            "bs-file-slot-index-one-block",
            "BS-3",
            &["BS-6", "BS-11", "C-2"],
            "of the index the first block of 64 names is read when the place is opened",
            of(SlotFlaw::OneBlock),
        ),
        f(
            "bs-file-removed-first",
            "BS-11",
            &["BS-3"],
            "a flush removes the old frame of a blob, and then puts the new one there",
            || files::blob_store(PROCESS, FrameFlaw::Files(Flaw::RemovedFirst)),
        )
        .awaiting(Engine::Kill),
    ]
}

fn handles() -> Vec<Mutant> {
    vec![m(
        "bs-handles-leak",
        "C-2",
        &["BS-1"],
        "there are 64 rings, one for each handle, and closing it frees none",
        |s| {
            let opened = s.place.counter.fetch_add(1, SeqCst);
            if opened >= 64 {
                s.read = Box::new(|_, _, _| {
                    let why = "there is no ring left";
                    Err(Fault::not_applied(ErrorKind::Unavailable, why).into())
                });
            }
        },
    )]
}
