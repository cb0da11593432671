//! Wrong only where two features meet: each is right by itself, and one of them was made without the other in mind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;

use larder_conformance::{Caps, Engine};
use larder_traits::{
    AlignedBlobBuf, BlobGuid, BlobStoreError, Classify as _, Durability, ErrorKind, Fault,
    PAGE_SIZE,
};

use super::{DURABLE, SECTOR, m, with_caps};
use crate::mutants::Mutant;
use crate::mutants::files::f;
use crate::reference::blob_store::{Answer, Packed, Place, Store, Writes};
use crate::reference::files::{self, SlotFlaw};
use crate::reference::{blocking_gap, lock};

/// What a store in files declares that is about processes only.
const PROCESS: Caps = files::CAPS.with_durability(Durability::Process);

pub(super) fn combined() -> Vec<Mutant> {
    [
        ranges(),
        reads(),
        lists(),
        batches(),
        failing(),
        opened_again(),
        meeting(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What stands in the notes where only the name counts.
fn mark() -> Packed {
    Packed::new(&[0])
}

/// The names that stand in a batch more than once.
fn twice(writes: &Writes<'_>) -> BTreeSet<BlobGuid> {
    let mut seen = BTreeSet::new();
    let again = writes.iter().filter(|(guid, _)| !seen.insert(*guid));
    again.map(|(guid, _)| *guid).collect()
}

/// Refuses, as a handle does of which a flush failed.
fn usable(s: &Store) -> impl Fn(&Place) -> Answer<()> + Send + Sync + use<> {
    let opened_after = s.opened_after;
    move |place| {
        if opened_after == place.failed_flushes.load(SeqCst) {
            return Ok(());
        }
        let why = "a flush failed; open the store again";
        Err(Fault::not_applied(ErrorKind::Unavailable, why).into())
    }
}

/// One write of a batch, as a single one is.
fn write_one(place: &Place, guid: BlobGuid, src: &AlignedBlobBuf) -> Answer<()> {
    let begun = place.medium.block(|| ());
    begun.map_err(|trouble| trouble.before())?;
    let written = place.medium.block(|| place.write(guid, src));
    written.unwrap_or_else(|trouble| Err(trouble.at_commit().into()))
}

fn half_a_batch(e: BlobStoreError) -> BlobStoreError {
    Fault::unknown(e.kind(), "half a batch").because(e).into()
}

fn ranges() -> Vec<Mutant> {
    vec![
        m(
            "bs-range-of-zeros-not-found",
            "BS-1",
            &["BS-4", "BS-2"],
            "a frame of zeros takes no room, and a range of it is looked for where frames are kept",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    if lock(&place.frames).get(&guid).is_some_and(Packed::is_zero) {
                        return Err(BlobStoreError::not_found(guid));
                    }
                    place.range(guid, offset, dst)
                });
            },
        ),
        m(
            "bs-range-holes-not-filled",
            "BS-1",
            &["BS-2"],
            "sectors of zeros are holes, and what a range has of them is not filled",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    let mut frame = vec![0; PAGE_SIZE];
                    place.read(guid, &mut frame)?;
                    let end = offset + dst.len();
                    for (at, sector) in frame.chunks(SECTOR).enumerate() {
                        let start = at * SECTOR;
                        let (from, to) = (start.max(offset), end.min(start + SECTOR));
                        if from < to && sector.iter().any(|&byte| byte != 0) {
                            dst[from - offset..to - offset].copy_from_slice(&frame[from..to]);
                        }
                    }
                    Ok(())
                });
            },
        ),
    ]
}

fn reads() -> Vec<Mutant> {
    vec![m(
        "bs-reads-ahead-not-told-of-batches",
        "BS-2",
        &["BS-1", "BS-7", "BS-8"],
        "many reads in one call read the next blob ahead, and batches do not tell where that frame is kept",
        |s| {
            s.many = Some(Box::new(|place, reads| {
                let last = reads.iter().map(|(guid, _)| *guid).max();
                let answers = reads.iter_mut().map(|(guid, dst)| {
                    let kept = lock(&place.notes).remove(&*guid);
                    match kept {
                        Some(kept) => {
                            kept.unpack(dst);
                            Ok(())
                        }
                        None => place.read(*guid, dst),
                    }
                });
                let answers = answers.collect();
                let frames = lock(&place.frames);
                let mut rest = frames.iter().filter(|(guid, _)| Some(**guid) > last);
                if let Some((next, frame)) = rest.next() {
                    lock(&place.notes).insert(*next, frame.clone());
                }
                answers
            }));
            s.read = Box::new(|place, guid, dst| {
                let kept = lock(&place.notes).remove(&guid);
                match kept {
                    Some(kept) => {
                        kept.unpack(dst);
                        Ok(())
                    }
                    None => place.read(guid, dst),
                }
            });
            s.write = Box::new(|place, guid, src| {
                lock(&place.notes).remove(&guid);
                place.write(guid, src)
            });
            s.delete = Box::new(|place, guid| {
                lock(&place.notes).remove(&guid);
                place.delete(guid)
            });
            let usable = usable(s);
            s.batch = Some(Box::new(move |place, writes| {
                usable(place)?;
                place.write_all(writes)
            }));
        },
    )]
}

fn lists() -> Vec<Mutant> {
    /// How many names of the index are read at a time.
    const PAGE: usize = 64;
    vec![
        m(
            "bs-list-page-of-deleted",
            "BS-6",
            &["BS-5"],
            "a list reads the index in pages, deleted names included, and one of which no name is left is taken for the end",
            |s| {
                s.delete = Box::new(|place, guid| {
                    if place.has(guid)? {
                        lock(&place.notes).insert(guid, mark());
                    }
                    place.delete(guid)
                });
                s.write = Box::new(|place, guid, src| {
                    lock(&place.notes).remove(&guid);
                    place.write(guid, src)
                });
                s.list = Box::new(|place| {
                    let names: BTreeSet<_> = place.list()?.into_iter().collect();
                    let mut index: Vec<_> = lock(&place.notes).keys().copied().collect();
                    index.extend(&names);
                    index.sort();
                    let mut found: Vec<BlobGuid> = Vec::new();
                    for page in index.chunks(PAGE) {
                        let before = found.len();
                        found.extend(page.iter().filter(|guid| names.contains(*guid)));
                        if found.len() == before {
                            break;
                        }
                    }
                    Ok(found)
                });
            },
        ),
        m(
            "bs-data-sync-listed-by-the-flush",
            "BS-6",
            &["BS-8"],
            "a data sync leaves the names to the next flush, and until then new blobs of such a batch are read but not listed",
            |s| {
                s.synced_batch = Some(Box::new(|place, writes| {
                    for (guid, src) in writes {
                        if !place.has(*guid)? {
                            lock(&place.notes).insert(*guid, mark());
                        }
                        place.write(*guid, src)?;
                    }
                    Ok(())
                }));
                s.write = Box::new(|place, guid, src| {
                    lock(&place.notes).remove(&guid);
                    place.write(guid, src)
                });
                s.flush = Box::new(|place| {
                    lock(&place.notes).clear();
                    Ok(())
                });
                s.list = Box::new(|place| {
                    let mut names = place.list()?;
                    let later = lock(&place.notes);
                    names.retain(|guid| !later.contains_key(guid));
                    Ok(names)
                });
            },
        ),
        m(
            "bs-list-of-a-batch-twice",
            "BS-6",
            &["BS-7"],
            "a name that stands in a batch twice is listed twice",
            |s| {
                let usable = usable(s);
                s.batch = Some(Box::new(move |place, writes| {
                    usable(place)?;
                    let twice = twice(writes).into_iter().map(|guid| (guid, mark()));
                    lock(&place.notes).extend(twice);
                    place.write_all(writes)
                }));
                s.write = Box::new(|place, guid, src| {
                    lock(&place.notes).remove(&guid);
                    place.write(guid, src)
                });
                s.delete = Box::new(|place, guid| {
                    lock(&place.notes).remove(&guid);
                    place.delete(guid)
                });
                s.list = Box::new(|place| {
                    let mut names = place.list()?;
                    names.extend(lock(&place.notes).keys());
                    Ok(names)
                });
            },
        ),
    ]
}

fn batches() -> Vec<Mutant> {
    vec![m(
        "bs-batch-twice-deleted-once",
        "BS-5",
        &["BS-7", "BS-4"],
        "a name that stands in a batch twice has two entries, of which a delete removes the last",
        |s| {
            let usable = usable(s);
            s.batch = Some(Box::new(move |place, writes| {
                usable(place)?;
                let twice = twice(writes);
                let first = writes.iter().rev().filter(|(it, _)| twice.contains(it));
                let first = first.map(|(guid, src)| (*guid, Packed::new(src)));
                lock(&place.notes).extend(first);
                place.write_all(writes)
            }));
            s.write = Box::new(|place, guid, src| {
                lock(&place.notes).remove(&guid);
                place.write(guid, src)
            });
            s.delete = Box::new(|place, guid| {
                let first = lock(&place.notes).remove(&guid);
                match first {
                    Some(first) => drop(lock(&place.frames).insert(guid, first)),
                    None => place.delete(guid)?,
                }
                Ok(())
            });
        },
    )]
}

fn failing() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "bs-failed-has-is-no",
            "C-1",
            &["BS-15", "BS-6"],
            "`has_blob` says no where it could not look",
            |s| s.fails.has = |_| Ok(false),
        ),
        m(
            "bs-failed-list-is-empty",
            "C-1",
            &["BS-15", "BS-6"],
            "names that could not be read are none",
            |s| s.fails.list = |_| Ok(Vec::new()),
        ),
        m(
            "bs-refused-write-is-listed",
            "BS-6",
            &["C-1", "BS-15"],
            "a write enters its name before it writes, and where the medium refuses that the name stays",
            |s| {
                s.begin = Box::new(|place, guid| {
                    lock(&place.notes).insert(guid, mark());
                });
                s.write = Box::new(|place, guid, src| {
                    lock(&place.notes).remove(&guid);
                    place.write(guid, src)
                });
                s.delete = Box::new(|place, guid| {
                    lock(&place.notes).remove(&guid);
                    place.delete(guid)
                });
                s.list = Box::new(|place| {
                    let mut names: BTreeSet<_> = place.list()?.into_iter().collect();
                    names.extend(lock(&place.notes).keys());
                    Ok(names.into_iter().collect())
                });
            },
        ),
        m(
            "bs-refused-write-frees-the-old",
            "BS-15",
            &["C-1", "BS-2"],
            "a write frees the slot of the old frame before it writes, and where the medium refuses that neither is there",
            |s| {
                s.begin = Box::new(|place, guid| {
                    let old = lock(&place.frames).remove(&guid);
                    lock(&place.notes).extend(old.map(|old| (guid, old)));
                });
            },
        ),
        m(
            "bs-batch-goes-on-where-it-stopped",
            "BS-7",
            &["BS-15"],
            "a batch of the names of one that failed goes on where that one stopped, whatever was written before there since",
            |s| {
                let usable = usable(s);
                let stopped = Mutex::new((Vec::new(), 0));
                s.batch = Some(Box::new(move |place, writes| {
                    usable(place)?;
                    let names: Vec<_> = writes.iter().map(|(guid, _)| *guid).collect();
                    let mut stopped = lock(&stopped);
                    let start = if stopped.0 == names { stopped.1 } else { 0 };
                    for (at, (guid, src)) in writes.iter().enumerate().skip(start) {
                        if let Err(e) = write_one(place, *guid, src) {
                            *stopped = (names, at);
                            return Err(if at == 0 { e } else { half_a_batch(e) });
                        }
                    }
                    *stopped = (Vec::new(), 0);
                    Ok(())
                }));
            },
        ),
        m(
            "bs-half-batch-not-applied",
            "C-1",
            &["BS-7"],
            "a batch that stops at a frame that the medium refuses says of the whole what is true of that frame",
            |s| {
                let usable = usable(s);
                s.batch = Some(Box::new(move |place, writes| {
                    usable(place)?;
                    let mut writes = writes.iter();
                    writes.try_for_each(|(guid, src)| write_one(place, *guid, src))
                }));
            },
        ),
        with_caps(
            DURABLE,
            "bs-flush-failed-batches-go-on",
            "BS-12",
            &[],
            "after a flush that failed single writes are refused, and batches are not",
            |s| {
                s.batches_go_on = true;
                s.batch = Some(Box::new(|place, writes| {
                    for (at, (guid, src)) in writes.iter().enumerate() {
                        let written = write_one(place, *guid, src);
                        written.map_err(|e| if at == 0 { e } else { half_a_batch(e) })?;
                    }
                    Ok(())
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}

fn opened_again() -> Vec<Mutant> {
    let of = |flaw| move || files::frame_slots(PROCESS, flaw);
    vec![
        f(
            "bs-file-slot-free-before-the-flush",
            "BS-3",
            &["BS-2", "BS-11", "BS-13", "C-2"],
            "which slots are free is written down at the start of a flush, and those that the flush takes are free again once the place is opened again",
            of(SlotFlaw::FreeBeforeTheFlush),
        ),
        f(
            "bs-file-slot-damaged-index-is-new",
            "BS-13",
            &["BS-4", "BS-6"],
            "an index that is damaged is taken for that of a place without blobs",
            of(SlotFlaw::DamagedIsNew),
        ),
        f(
            "bs-file-slot-short-index-panics",
            "C-3",
            &["BS-13"],
            "an index is cut into what it says and its sum, however short it is",
            of(SlotFlaw::ShortPanics),
        )
        .panicking(),
    ]
}

fn meeting() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "bs-flush-deletes-what-came-back",
            "BS-2",
            &["BS-5", "BS-3"],
            "a flush carries out the deletes that there were when it began, also of what was written again meanwhile",
            |s| {
                s.delete = Box::new(|place, guid| {
                    lock(&place.notes).insert(guid, mark());
                    place.delete(guid)
                });
                s.write = Box::new(|place, guid, src| {
                    lock(&place.notes).remove(&guid);
                    place.write(guid, src)
                });
                s.flush = Box::new(|place| {
                    let deleted: BTreeMap<_, _> = std::mem::take(&mut *lock(&place.notes));
                    blocking_gap();
                    let mut deleted = deleted.into_keys();
                    deleted.try_for_each(|guid| place.delete(guid))
                });
            },
        ),
        m(
            "bs-range-of-the-deleted-is-zeros",
            "BS-2",
            &["BS-1", "BS-4"],
            "a range looks where its blob is and reads there a moment later, which is zeros where that was deleted meanwhile",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    if !place.has(guid)? {
                        return Err(BlobStoreError::not_found(guid));
                    }
                    blocking_gap();
                    place.range(guid, offset, dst).or_else(|_deleted| {
                        dst.fill(0);
                        Ok(())
                    })
                });
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Lin);
    mutants.into_iter().map(awaiting).collect()
}
