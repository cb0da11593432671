//! Broken `BlobStore`s.

use std::collections::BTreeSet;

use larder_conformance::{Caps, Contract};
use larder_traits::{BlobGuid, BlobStoreError, ErrorKind, Fault};

use super::Mutant;
use crate::reference::blob_store::{Bend, CAPS, DURABLE, Packed, suite};
use crate::reference::lock;

mod batches;
mod combined;
mod concurrent;
mod corners;
mod failing;
mod field;
mod handles;
mod neighbours;
mod reads;

pub(crate) fn all() -> Vec<Mutant> {
    [
        frames(),
        guids(),
        deletes(),
        lists(),
        batches::batches(),
        batches::flushes(),
        handles::buffers(),
        handles::handles(),
        handles::neighbours(),
        concurrent::concurrent(),
        failing::failing(),
        neighbours::neighbours(),
        reads::reads(),
        reads::ranges(),
        reads::beside_others(),
        corners::corners(),
        field::field(),
        combined::combined(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn with_caps(
    caps: Caps,
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    Mutant {
        id,
        contract: Contract::BlobStore,
        breaks,
        also,
        about,
        awaits: None,
        hangs: false,
        panics: false,
        suite: Box::new(move || suite(caps, bend)),
    }
}

fn m(
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    with_caps(CAPS, id, breaks, also, about, bend)
}

/// The bytes that a direct transfer moves at a time.
const SECTOR: usize = 4096;

fn frames() -> Vec<Mutant> {
    vec![
        m(
            "bs-zeros-absent",
            "BS-1",
            &["BS-4", "BS-2"],
            "a frame of zeros reads as absent",
            |s| {
                s.read = Box::new(|place, guid, dst| {
                    if lock(&place.frames).get(&guid).is_some_and(Packed::is_zero) {
                        return Err(BlobStoreError::not_found(guid));
                    }
                    place.read(guid, dst)
                });
            },
        ),
        m(
            "bs-short-fill",
            "BS-1",
            &["BS-2"],
            "a read leaves the last sector of its buffer as it was",
            |s| {
                s.read = Box::new(|place, guid, dst| {
                    let kept = dst[dst.len() - SECTOR..].to_vec();
                    place.read(guid, dst)?;
                    let at = dst.len() - SECTOR;
                    dst[at..].copy_from_slice(&kept);
                    Ok(())
                });
            },
        ),
        m(
            "bs-last-byte-lost",
            "BS-1",
            &["BS-2"],
            "the last byte of a frame is used for a mark",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let mut marked = src.to_vec();
                    *marked.last_mut().expect("a frame is not empty") = 1;
                    place.write(guid, &marked)
                });
            },
        ),
        m(
            "bs-zero-sectors-skipped",
            "BS-1",
            &["BS-2"],
            "sectors of zeros are not written, so those of the old frame stay",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let mut merged = src.to_vec();
                    let mut old = vec![0; src.len()];
                    if place.read(guid, &mut old).is_ok() {
                        for (new, old) in merged.chunks_mut(SECTOR).zip(old.chunks(SECTOR)) {
                            if new.iter().all(|&byte| byte == 0) {
                                new.copy_from_slice(old);
                            }
                        }
                    }
                    place.write(guid, &merged)
                });
            },
        ),
        m(
            "bs-zeros-not-filled",
            "BS-1",
            &[],
            "sectors of zeros are not copied into the reader's buffer",
            |s| {
                s.read = Box::new(|place, guid, dst| {
                    let before = dst.to_vec();
                    place.read(guid, dst)?;
                    for (new, before) in dst.chunks_mut(SECTOR).zip(before.chunks(SECTOR)) {
                        if new.iter().all(|&byte| byte == 0) {
                            new.copy_from_slice(before);
                        }
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bs-same-header-unchanged",
            "BS-2",
            &["BS-1"],
            "a frame whose first sector is that of the old one counts as unchanged",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let mut old = vec![0; src.len()];
                    if place.read(guid, &mut old).is_ok() && old[..SECTOR] == src[..SECTOR] {
                        return Ok(());
                    }
                    place.write(guid, src)
                });
            },
        ),
        m(
            "bs-write-once",
            "BS-2",
            &["BS-1"],
            "a second write of a blob is dropped",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    if place.has(guid)? {
                        Ok(())
                    } else {
                        place.write(guid, src)
                    }
                });
            },
        ),
    ]
}

fn guids() -> Vec<Mutant> {
    vec![
        m(
            "bs-guid-low-half",
            "BS-1",
            &["BS-6", "BS-2"],
            "blobs are told apart by the low half of their names",
            |s| {
                s.guid = Box::new(|guid| {
                    let mut bytes = guid.to_bytes();
                    bytes[..8].fill(0);
                    BlobGuid::from_bytes(bytes)
                });
            },
        ),
        m(
            "bs-guid-high-half",
            "BS-1",
            &["BS-6", "BS-2"],
            "blobs are told apart by the high half of their names",
            |s| {
                s.guid = Box::new(|guid| {
                    let mut bytes = guid.to_bytes();
                    bytes[8..].fill(0);
                    BlobGuid::from_bytes(bytes)
                });
            },
        ),
        m(
            "bs-guid-folded",
            "BS-1",
            &["BS-6", "BS-2"],
            "the halves of a name are folded into one",
            |s| {
                s.guid = Box::new(|guid| {
                    let number = u128::from_be_bytes(guid.to_bytes());
                    BlobGuid::from_u128((number >> 64) ^ (number & u128::from(u64::MAX)))
                });
            },
        ),
        m(
            "bs-guid-version-bits",
            "BS-1",
            &["BS-6", "BS-2"],
            "the bits that mark a UUID's version are set",
            |s| {
                s.guid = Box::new(|guid| {
                    let mut bytes = guid.to_bytes();
                    bytes[6] = (bytes[6] & 0x0f) | 0x40;
                    BlobGuid::from_bytes(bytes)
                });
            },
        ),
        m(
            "bs-guid-zero-reserved",
            "BS-1",
            &["BS-6"],
            "the name of zeros marks a free slot and is not listed",
            |s| {
                s.list = Box::new(|place| {
                    Ok(place
                        .list()?
                        .into_iter()
                        .filter(|guid| *guid != BlobGuid::from_u128(0))
                        .collect())
                });
            },
        ),
        m(
            "bs-guid-max-refused",
            "BS-1",
            &["BS-6", "BS-2"],
            "the name of ones is refused",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    if guid == BlobGuid::from_u128(u128::MAX) {
                        return Err(Fault::not_applied(ErrorKind::InvalidInput, "reserved").into());
                    }
                    place.write(guid, src)
                });
            },
        ),
    ]
}

fn deletes() -> Vec<Mutant> {
    vec![
        m(
            "bs-absent-zeros",
            "BS-4",
            &["BS-5"],
            "an absent blob reads as zeros",
            |s| {
                s.read = Box::new(|place, guid, dst| {
                    place.read(guid, dst).or_else(|_absent| {
                        dst.fill(0);
                        Ok(())
                    })
                });
            },
        ),
        m(
            "bs-absent-wrong-kind",
            "BS-4",
            &["C-1"],
            "the read of an absent blob is Unavailable",
            |s| {
                s.read = Box::new(|place, guid, dst| {
                    place.read(guid, dst).map_err(|_absent| {
                        Fault::not_applied(ErrorKind::Unavailable, "short read").into()
                    })
                });
            },
        ),
        m(
            "bs-absent-unknown",
            "BS-4",
            &["C-1"],
            "the read of an absent blob has an outcome that is not known",
            |s| {
                s.read = Box::new(|place, guid, dst| {
                    place.read(guid, dst).map_err(|_absent| {
                        Fault::unknown(ErrorKind::NotFound, "no such blob").into()
                    })
                });
            },
        ),
        m(
            "bs-delete-absent-fails",
            "BS-5",
            &[],
            "deleting an absent blob is an error",
            |s| {
                s.delete = Box::new(|place, guid| {
                    if !place.has(guid)? {
                        return Err(BlobStoreError::not_found(guid));
                    }
                    place.delete(guid)
                });
            },
        ),
        m(
            "bs-delete-zeroes",
            "BS-4",
            &["BS-5", "BS-6"],
            "a delete writes zeros over the frame and keeps the entry",
            |s| {
                s.delete = Box::new(|place, guid| {
                    if place.has(guid)? {
                        place.write(guid, &[0])
                    } else {
                        Ok(())
                    }
                });
            },
        ),
        m(
            "bs-tombstone-wins",
            "BS-5",
            &["BS-2"],
            "a deleted blob cannot be written again",
            |s| {
                s.delete = Box::new(|place, guid| {
                    lock(&place.notes).insert(guid, Packed::new(&[0]));
                    place.delete(guid)
                });
                s.write = Box::new(|place, guid, src| {
                    if lock(&place.notes).contains_key(&guid) {
                        Ok(())
                    } else {
                        place.write(guid, src)
                    }
                });
            },
        ),
        m(
            "bs-rewrite-shows-old",
            "BS-5",
            &["BS-2"],
            "a blob that is written again after a delete shows its old frame",
            |s| {
                s.delete = Box::new(|place, guid| {
                    if let Some(old) = lock(&place.frames).get(&guid) {
                        lock(&place.notes).insert(guid, old.clone());
                    }
                    place.delete(guid)
                });
                s.write = Box::new(|place, guid, src| {
                    place.write(guid, src)?;
                    if let Some(old) = lock(&place.notes).remove(&guid) {
                        lock(&place.frames).insert(guid, old);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bs-slot-reused",
            "BS-4",
            &["BS-2", "BS-5"],
            "the slot of a deleted blob is reused, and its old name reads the new frame",
            |s| {
                s.delete = Box::new(|place, guid| {
                    if place.has(guid)? {
                        lock(&place.notes).insert(guid, Packed::new(&[0]));
                    }
                    place.delete(guid)
                });
                s.write = Box::new(|place, guid, src| {
                    let mut freed = lock(&place.notes);
                    freed.remove(&guid);
                    freed.values_mut().for_each(|slot| *slot = Packed::new(src));
                    place.write(guid, src)
                });
                s.read = Box::new(|place, guid, dst| {
                    match lock(&place.notes).get(&guid).filter(|slot| !slot.is_zero()) {
                        Some(slot) => {
                            slot.unpack(dst);
                            Ok(())
                        }
                        None => place.read(guid, dst),
                    }
                });
            },
        ),
    ]
}

fn lists() -> Vec<Mutant> {
    vec![
        m(
            "bs-list-twice",
            "BS-6",
            &[],
            "a blob that was overwritten is listed twice",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    if place.has(guid)? {
                        lock(&place.notes).insert(guid, Packed::new(&[0]));
                    }
                    place.write(guid, src)
                });
                s.list = Box::new(|place| {
                    let mut guids = place.list()?;
                    let twice = lock(&place.notes)
                        .keys()
                        .filter(|guid| guids.contains(guid))
                        .copied()
                        .collect::<Vec<_>>();
                    guids.extend(twice);
                    Ok(guids)
                });
            },
        ),
        m(
            "bs-list-ghost",
            "BS-6",
            &["BS-5"],
            "deleted blobs are still listed",
            |s| {
                s.delete = Box::new(|place, guid| {
                    if place.has(guid)? {
                        lock(&place.notes).insert(guid, Packed::new(&[0]));
                    }
                    place.delete(guid)
                });
                s.list = Box::new(|place| {
                    let mut guids: BTreeSet<_> = place.list()?.into_iter().collect();
                    guids.extend(lock(&place.notes).keys());
                    Ok(guids.into_iter().collect())
                });
            },
        ),
        m(
            "bs-list-one-page",
            "BS-6",
            &["BS-1"],
            "the list ends after 64 blobs",
            |s| {
                s.list = Box::new(|place| {
                    let mut guids = place.list()?;
                    guids.truncate(64);
                    Ok(guids)
                });
            },
        ),
        m(
            "bs-list-flushed-only",
            "BS-6",
            &[],
            "blobs are listed once they are flushed",
            |s| {
                s.flush = Box::new(|place| {
                    let flushed = place
                        .list()?
                        .into_iter()
                        .map(|guid| (guid, Packed::new(&[0])));
                    *lock(&place.notes) = flushed.collect();
                    Ok(())
                });
                s.list = Box::new(|place| {
                    let flushed = lock(&place.notes);
                    Ok(place
                        .list()?
                        .into_iter()
                        .filter(|guid| flushed.contains_key(guid))
                        .collect())
                });
            },
        ),
        m(
            "bs-list-omits-zeros",
            "BS-6",
            &["BS-1"],
            "blobs of zeros are not listed",
            |s| {
                s.list = Box::new(|place| {
                    let frames = lock(&place.frames);
                    Ok(frames
                        .iter()
                        .filter(|(_, frame)| !frame.is_zero())
                        .map(|(guid, _)| *guid)
                        .collect())
                });
            },
        ),
        m(
            "bs-has-after-delete",
            "BS-6",
            &["BS-5"],
            "a deleted blob still exists for `has_blob`",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    lock(&place.notes).insert(guid, Packed::new(&[0]));
                    place.write(guid, src)
                });
                s.has = Box::new(|place, guid| Ok(lock(&place.notes).contains_key(&guid)));
            },
        ),
        m(
            "bs-has-not-batched",
            "BS-6",
            &["BS-7"],
            "`has_blob` does not know of what came in a batch",
            |s| {
                s.batch = Some(Box::new(|place, writes| {
                    for (guid, src) in writes {
                        lock(&place.notes).insert(*guid, Packed::new(&[0]));
                        place.write(*guid, src)?;
                    }
                    Ok(())
                }));
                s.has = Box::new(|place, guid| {
                    Ok(place.has(guid)? && !lock(&place.notes).contains_key(&guid))
                });
            },
        ),
        m(
            "bs-has-absent-fails",
            "BS-6",
            &[],
            "`has_blob` of an absent blob is an error",
            |s| {
                s.has = Box::new(|place, guid| {
                    if place.has(guid)? {
                        Ok(true)
                    } else {
                        Err(BlobStoreError::not_found(guid))
                    }
                });
            },
        ),
        m(
            "bs-has-omits-zeros",
            "BS-6",
            &["BS-1"],
            "blobs of zeros do not exist for `has_blob`",
            |s| {
                s.has = Box::new(|place, guid| {
                    Ok(lock(&place.frames)
                        .get(&guid)
                        .is_some_and(|frame| !frame.is_zero()))
                });
            },
        ),
        m(
            "bs-list-byte-order",
            "BS-6",
            &["BS-1"],
            "names are listed with their bytes in the other order",
            |s| {
                s.list = Box::new(|place| {
                    let turned = |guid: BlobGuid| {
                        let mut bytes = guid.to_bytes();
                        bytes.reverse();
                        BlobGuid::from_bytes(bytes)
                    };
                    Ok(place.list()?.into_iter().map(turned).collect())
                });
            },
        ),
        m(
            "bs-list-not-again",
            "BS-6",
            &["BS-5"],
            "a blob that is written again after a delete is not listed",
            |s| {
                s.delete = Box::new(|place, guid| {
                    if place.has(guid)? {
                        lock(&place.notes).insert(guid, Packed::new(&[0]));
                    }
                    place.delete(guid)
                });
                s.list = Box::new(|place| {
                    let deleted = lock(&place.notes);
                    Ok(place
                        .list()?
                        .into_iter()
                        .filter(|guid| !deleted.contains_key(guid))
                        .collect())
                });
            },
        ),
    ]
}
