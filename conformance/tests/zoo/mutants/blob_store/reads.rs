//! Many reads in one call, and parts of frames.

use larder_conformance::Engine;
use larder_traits::{AlignedBlobBuf, BlobGuid, BlobStoreError, ErrorKind, Fault, PAGE_SIZE};

use super::{SECTOR, m};
use crate::mutants::Mutant;
use crate::reference::blob_store::{Answer, Place, within};
use crate::reference::{blocking_gap, lock};

/// How many transfers the mutants' ring takes at a time.
const DEPTH: usize = 16;

pub(super) fn reads() -> Vec<Mutant> {
    vec![
        m(
            "bs-reads-one-fails-all",
            "BS-1",
            &["BS-4"],
            "of many reads in one call all fail if one blob is absent",
            |s| {
                s.many = Some(Box::new(|place, reads| {
                    let results = reads
                        .iter_mut()
                        .map(|(guid, dst)| place.read(*guid, dst))
                        .collect::<Vec<_>>();
                    let absent = reads
                        .iter()
                        .zip(&results)
                        .find(|(_, result)| result.is_err());
                    match absent.map(|((guid, _), _)| *guid) {
                        Some(absent) => results
                            .iter()
                            .map(|_| Err(BlobStoreError::not_found(absent)))
                            .collect(),
                        None => results,
                    }
                }));
            },
        ),
        m(
            "bs-reads-stop-at-absent",
            "BS-1",
            &["BS-4"],
            "many reads in one call end at the first blob that is absent, and the rest are Ok",
            |s| {
                s.many = Some(Box::new(|place, reads| {
                    let mut is_over = false;
                    let read = |(guid, dst): &mut (_, &mut AlignedBlobBuf)| {
                        if is_over {
                            return Ok(());
                        }
                        let result = place.read(*guid, dst);
                        is_over = result.is_err();
                        result
                    };
                    reads.iter_mut().map(read).collect()
                }));
            },
        ),
        m(
            "bs-reads-in-order-of-names",
            "BS-1",
            &["BS-2"],
            "many reads in one call are sorted, and their frames land in the buffers as they come",
            |s| {
                s.many = Some(Box::new(|place, reads| {
                    let mut names: Vec<_> = reads.iter().map(|(guid, _)| *guid).collect();
                    names.sort_unstable();
                    let reads = reads.iter_mut().zip(names);
                    reads
                        .map(|((_, dst), guid)| place.read(guid, dst))
                        .collect()
                }));
            },
        ),
        m(
            "bs-reads-answers-backwards",
            "BS-1",
            &["BS-4"],
            "many reads in one call fill the right buffers, and the answers come as the last ended first",
            |s| {
                s.many = Some(Box::new(|place, reads| {
                    let read = reads.iter_mut().map(|(guid, dst)| place.read(*guid, dst));
                    let mut answers: Vec<_> = read.collect();
                    answers.reverse();
                    answers
                }));
            },
        ),
        m(
            "bs-reads-twice-once",
            "BS-1",
            &[],
            "of a name that is asked for twice in one call, only the first buffer is filled",
            |s| {
                s.many = Some(Box::new(|place, reads| {
                    let mut seen = Vec::new();
                    let read = |(guid, dst): &mut (_, &mut AlignedBlobBuf)| {
                        if seen.contains(guid) {
                            return Ok(());
                        }
                        seen.push(*guid);
                        place.read(*guid, dst)
                    };
                    reads.iter_mut().map(read).collect()
                }));
            },
        ),
        m(
            "bs-reads-absent-left-out",
            "BS-1",
            &["BS-4"],
            "many reads in one call have no answer for a blob that is absent",
            |s| {
                s.many = Some(Box::new(|place, reads| {
                    let read = reads.iter_mut().map(|(guid, dst)| place.read(*guid, dst));
                    read.filter(Result::is_ok).collect()
                }));
            },
        ),
        m(
            "bs-reads-overflow",
            "BS-1",
            &[],
            "reads beyond the depth of the queue are Ok, and nobody reads",
            |s| {
                s.many = Some(Box::new(|place, reads| {
                    let read = |(at, (guid, dst)): (usize, &mut (_, &mut AlignedBlobBuf))| match at
                    {
                        0..DEPTH => place.read(*guid, dst),
                        _ => Ok(()),
                    };
                    reads.iter_mut().enumerate().map(read).collect()
                }));
            },
        ),
    ]
}

/// The frame of a blob, or why there is none.
fn frame(place: &Place, guid: BlobGuid) -> Answer<Vec<u8>> {
    let mut frame = vec![0; PAGE_SIZE];
    place.read(guid, &mut frame)?;
    Ok(frame)
}

pub(super) fn ranges() -> Vec<Mutant> {
    vec![
        m(
            "bs-range-from-the-start",
            "BS-1",
            &[],
            "a range begins where its frame begins, whatever was asked for",
            |s| s.range = Box::new(|place, guid, _, dst| place.range(guid, 0, dst)),
        ),
        m(
            "bs-range-from-the-sector",
            "BS-1",
            &[],
            "a range begins at the sector that its first byte is in",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    let start = offset - offset % SECTOR;
                    place.range(guid, start.min(PAGE_SIZE - dst.len()), dst)
                });
            },
        ),
        m(
            "bs-range-whole-sectors",
            "BS-1",
            &[],
            "the bytes of a range after its last whole sector are not filled",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    let end = offset + dst.len();
                    let whole = (end - end % SECTOR).saturating_sub(offset);
                    place.range(guid, offset, &mut dst[..whole])
                });
            },
        ),
        m(
            "bs-range-last-byte",
            "BS-1",
            &[],
            "a range that ends with its frame lacks the last byte",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    let is_last = !dst.is_empty() && offset + dst.len() == PAGE_SIZE;
                    let len = dst.len() - usize::from(is_last);
                    place.range(guid, offset, &mut dst[..len])
                });
            },
        ),
        m(
            "bs-range-of-flushed",
            "BS-1",
            &["BS-2"],
            "a range is taken from the frame of the last flush",
            |s| {
                s.flush = Box::new(|place| {
                    let frames = lock(&place.frames).clone();
                    *lock(&place.notes) = frames;
                    Ok(())
                });
                s.range = Box::new(|place, guid, offset, dst| {
                    let flushed = lock(&place.notes).get(&guid).cloned();
                    let mut frame = frame(place, guid)?;
                    if let Some(flushed) = flushed {
                        flushed.unpack(&mut frame);
                    }
                    dst.copy_from_slice(&frame[offset..offset + dst.len()]);
                    Ok(())
                });
            },
        ),
        m(
            "bs-range-absent-zeros",
            "BS-4",
            &["BS-1"],
            "a range of an absent blob is zeros",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    place.range(guid, offset, dst).or_else(|_absent| {
                        dst.fill(0);
                        Ok(())
                    })
                });
            },
        ),
        m(
            "bs-range-empty-always",
            "BS-4",
            &["BS-1"],
            "a range of no bytes is Ok, whether or not there is such a blob",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| match dst.len() {
                    0 => Ok(()),
                    _ => place.range(guid, offset, dst),
                });
            },
        ),
        m(
            "bs-range-cut",
            "C-4",
            &["BS-1"],
            "a range that ends past the end of a frame is filled as far as the frame goes",
            |s| {
                s.within = |_, _| true;
                s.range = Box::new(|place, guid, offset, dst| {
                    let offset = offset.min(PAGE_SIZE);
                    let len = dst.len().min(PAGE_SIZE - offset);
                    place.range(guid, offset, &mut dst[..len])
                });
            },
        ),
        m(
            "bs-range-overflow",
            "C-4",
            &["BS-1"],
            "the end of a range is a sum that wraps",
            |s| {
                s.within = |offset, len| offset.wrapping_add(len) <= PAGE_SIZE;
                s.range =
                    Box::new(
                        |place, guid, offset, dst| match offset.checked_add(dst.len()) {
                            Some(_) => place.range(guid, offset, dst),
                            None => Ok(()),
                        },
                    );
            },
        ),
        m(
            "bs-range-end-excluded",
            "C-4",
            &["BS-1"],
            "a range that ends with its frame is refused",
            |s| s.within = |offset, len| offset.saturating_add(len) < PAGE_SIZE,
        ),
        m(
            "bs-range-asked-late",
            "C-4",
            &["BS-1"],
            "whether a range is within a frame is asked of blobs that are there only",
            |s| {
                s.within = |_, _| true;
                s.range = Box::new(|place, guid, offset, dst| {
                    frame(place, guid)?;
                    if within(offset, dst.len()) {
                        return place.range(guid, offset, dst);
                    }
                    let why = "the range ends past the end of a frame";
                    Err(Fault::not_applied(ErrorKind::InvalidInput, why).into())
                });
            },
        ),
        m(
            "bs-failed-range-is-done",
            "BS-15",
            &["C-1", "BS-1"],
            "a read of a range that failed is Ok, and the buffer is what it was",
            |s| s.fails.range = |_| None,
        )
        .awaiting(Engine::Fault),
    ]
}

pub(super) fn beside_others() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "bs-range-in-pieces",
            "BS-2",
            &["BS-1"],
            "a range is read in two pieces, and a write may come between them",
            |s| {
                s.range = Box::new(|place, guid, offset, dst| {
                    let half = dst.len() / 2;
                    let (first, second) = dst.split_at_mut(half);
                    place.range(guid, offset, first)?;
                    blocking_gap();
                    place.range(guid, offset + half, second)
                });
            },
        ),
        m(
            "bs-reads-share-a-buffer",
            "BS-2",
            &["BS-1"],
            "many reads in one call go through one buffer, which another call uses at the same time",
            |s| {
                s.many = Some(Box::new(|place, reads| {
                    let slot = BlobGuid::from_u128(0);
                    let notes = || lock(&place.notes);
                    let read = |(guid, dst): &mut (_, &mut AlignedBlobBuf)| {
                        let found = lock(&place.frames).get(guid).cloned();
                        let found = found.ok_or_else(|| BlobStoreError::not_found(*guid))?;
                        notes().insert(slot, found.clone());
                        blocking_gap();
                        notes().get(&slot).unwrap_or(&found).unpack(dst);
                        Ok(())
                    };
                    reads.iter_mut().map(read).collect()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Lin);
    mutants.into_iter().map(awaiting).collect()
}
