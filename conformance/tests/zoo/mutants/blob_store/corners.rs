//! Wrong only in a corner: for frames of a certain look, once a blob was deleted or rewritten, on a second open, or
//! after a log was carried over.

use std::sync::atomic::Ordering::SeqCst;

use larder_conformance::{Caps, Engine};
use larder_traits::{BlobGuid, BlobStoreCaps, Durability, ErrorKind, Fault, PAGE_SIZE};

use super::{DURABLE, SECTOR, m, with_caps};
use crate::mutants::Mutant;
use crate::mutants::files::f;
use crate::reference::blob_store::{CAPS, Packed};
use crate::reference::files::{self, CutFlaw, SlotFlaw};
use crate::reference::lock;

/// What a store in files declares that is about processes only.
const PROCESS: Caps = files::CAPS.with_durability(Durability::Process);

const LOCKED: Caps = CAPS.with_blob_store(BlobStoreCaps::LEAST.with_exclusive(true));

pub(super) fn corners() -> Vec<Mutant> {
    [looks(), again(), reads(), locks(), logs(), slots()]
        .into_iter()
        .flatten()
        .collect()
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn looks() -> Vec<Mutant> {
    vec![
        m(
            "bs-twin-by-its-ends",
            "BS-2",
            &["BS-1", "BS-7"],
            "equal frames are kept once, and frames count as equal whose first and last sectors are",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let ends = [&src[..SECTOR], &src[PAGE_SIZE - SECTOR..]].concat();
                    let name = BlobGuid::from_u128(files::hash(&ends).into());
                    let kept = lock(&place.notes)
                        .entry(name)
                        .or_insert_with(|| Packed::new(src))
                        .clone();
                    lock(&place.frames).insert(guid, kept);
                    Ok(())
                });
            },
        ),
        m(
            "bs-hole-by-its-first-sector",
            "BS-1",
            &["BS-2", "BS-7"],
            "a frame that begins with a sector of zeros is kept as one of zeros",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    if is_zero(&src[..SECTOR]) {
                        return place.write(guid, &[0]);
                    }
                    place.write(guid, src)
                });
            },
        ),
    ]
}

fn again() -> Vec<Mutant> {
    /// The note of the slot that was freed last.
    const FREED: BlobGuid = BlobGuid::from_u128(0);
    vec![
        m(
            "bs-freed-slot-not-cleared",
            "BS-2",
            &["BS-1", "BS-7"],
            "the zeros that a frame ends with are not written, so in the slot of a deleted blob that one's end stays",
            |s| {
                s.delete = Box::new(|place, guid| {
                    if let Some(frame) = lock(&place.frames).remove(&guid) {
                        lock(&place.notes).insert(FREED, frame);
                    }
                    Ok(())
                });
                s.write = Box::new(|place, guid, src| {
                    let mut frame = src.to_vec();
                    if !place.has(guid)?
                        && let Some(freed) = lock(&place.notes).remove(&FREED)
                    {
                        let mut slot = vec![0; PAGE_SIZE];
                        freed.unpack(&mut slot);
                        let sectors = src.chunks(SECTOR);
                        let zeros = sectors.rev().take_while(|sector| is_zero(sector)).count();
                        let end = PAGE_SIZE - zeros * SECTOR;
                        frame[end..].copy_from_slice(&slot[end..]);
                    }
                    place.write(guid, &frame)
                });
            },
        ),
        with_caps(
            DURABLE,
            "bs-flush-error-told-once",
            "BS-12",
            &["BS-9"],
            "that a flush failed is told to the next one as well, and forgotten then",
            |s| {
                s.fails.flush = |place, trouble| {
                    place.counter.store(1, SeqCst);
                    Err(trouble.after().into())
                };
                s.flush = Box::new(|place| {
                    if place.counter.swap(0, SeqCst) == 0 {
                        return Ok(());
                    }
                    Err(Fault::unknown(ErrorKind::Unavailable, "an earlier flush failed").into())
                });
            },
        )
        .awaiting(Engine::Fault),
    ]
}

fn reads() -> Vec<Mutant> {
    vec![
        m(
            "bs-reads-close-ranks",
            "BS-1",
            &["BS-2", "BS-4"],
            "many reads in one call answer in order, but fill the first buffers with the frames that there are",
            |s| {
                s.many = Some(Box::new(|place, reads| {
                    let mut answers = Vec::new();
                    let mut found = Vec::new();
                    for (guid, _) in reads.iter() {
                        let mut frame = vec![0; PAGE_SIZE];
                        let read = place.read(*guid, &mut frame);
                        if read.is_ok() {
                            found.push(frame);
                        }
                        answers.push(read);
                    }
                    for ((_, dst), frame) in reads.iter_mut().zip(found) {
                        dst.copy_from_slice(&frame);
                    }
                    answers
                }));
            },
        ),
        m(
            "bs-reads-run-where-it-was",
            "BS-2",
            &["BS-1", "BS-5"],
            "many reads of names that follow each other are one long read from where these blobs were first written",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let first = || Packed::new(src);
                    lock(&place.notes).entry(guid).or_insert_with(first);
                    place.write(guid, src)
                });
                s.delete = Box::new(|place, guid| {
                    lock(&place.notes).remove(&guid);
                    place.delete(guid)
                });
                s.many = Some(Box::new(|place, reads| {
                    let number = |guid: &BlobGuid| u128::from_be_bytes(guid.to_bytes());
                    let names: Vec<_> = reads.iter().map(|(guid, _)| number(guid)).collect();
                    let follows =
                        |name: u128| name.checked_sub(1).is_some_and(|it| names.contains(&it));
                    let read =
                        |(guid, dst): &mut (BlobGuid, &mut larder_traits::AlignedBlobBuf)| {
                            place.read(*guid, dst)?;
                            let was = lock(&place.notes).get(guid).cloned();
                            if let Some(was) = was.filter(|_| follows(number(guid))) {
                                was.unpack(dst);
                            }
                            Ok(())
                        };
                    reads.iter_mut().map(read).collect()
                }));
            },
        ),
    ]
}

fn locks() -> Vec<Mutant> {
    vec![
        with_caps(
            LOCKED,
            "bs-lock-freed-by-a-refusal",
            "BS-14",
            &["C-2"],
            "a second open that is refused takes the lock of the first along when it cleans up, and a third one succeeds",
            |s| {
                let is_held = s.place.handles.load(SeqCst) > 0;
                // Set by the open that is about to be refused.
                let was_refused = s.place.counter.swap(is_held.into(), SeqCst) > 0;
                s.locks = !(is_held && was_refused);
            },
        ),
        with_caps(
            LOCKED,
            "bs-lock-only-once",
            "BS-14",
            &["C-2"],
            "who closes the place removes the file of its lock, and who opens it again locks what nobody else finds",
            |s| {
                let is_held = s.place.handles.load(SeqCst) > 0;
                let opens = s.place.counter.fetch_add((!is_held).into(), SeqCst);
                s.locks = !is_held || opens < 2;
            },
        ),
    ]
}

fn logs() -> Vec<Mutant> {
    let of = |flaw| move || files::frame_log(PROCESS, flaw);
    vec![
        f(
            "bs-file-log-under-the-frames",
            "BS-3",
            &["BS-2", "BS-11", "C-2"],
            "what the file of all frames says is preferred to the log, which is newer",
            of(CutFlaw::FramesWin),
        ),
        f(
            "bs-file-log-deletes-its-own",
            "BS-5",
            &["BS-3", "BS-6", "BS-11"],
            "a delete in the log is about what stands in the log, and not about the file of all frames",
            of(CutFlaw::DeletesOfLogOnly),
        ),
        f(
            "bs-file-log-carried-over-alone",
            "BS-3",
            &["BS-11", "BS-2", "BS-6", "C-2"],
            "the file of all frames is written anew from the log, and what only the old file had is lost",
            of(CutFlaw::LogOnlyCarried),
        ),
        f(
            "bs-file-log-one-record-less",
            "BS-13",
            &["BS-11", "BS-3"],
            "before an end that was torn, the last record that is whole is not believed either",
            of(CutFlaw::OneRecordLess),
        ),
    ]
}

fn slots() -> Vec<Mutant> {
    let of = |flaw| move || files::frame_slots(PROCESS, flaw);
    vec![
        f(
            "bs-file-slot-freed-twice",
            "BS-5",
            &["BS-2", "BS-3", "BS-11"],
            "deleting a blob a second time frees its slot a second time, and two blobs get it",
            of(SlotFlaw::FreedTwice),
        ),
        f(
            "bs-file-slots-counted",
            "BS-3",
            &["BS-2", "BS-11", "C-2"],
            "when the place is opened the slots beyond the number of blobs are taken for free, gaps or not",
            of(SlotFlaw::Counted),
        ),
        f(
            "bs-file-slot-half-checked",
            "BS-13",
            &[],
            "the checksum of a frame is over its first half",
            of(SlotFlaw::HalfChecked),
        ),
        f(
            "bs-file-slot-of-anyone",
            "BS-13",
            &["BS-2", "BS-11"],
            "the checksum of a frame does not say whose it is, and the index has none",
            of(SlotFlaw::OfAnyone),
        ),
        f(
            "bs-file-slot-given-away",
            "BS-11",
            &["BS-3"],
            "the slots that a flush frees are used by the same flush, while the old index still names them",
            of(SlotFlaw::GivenAway),
        )
        .awaiting(Engine::Kill),
        f(
            "bs-file-slot-index-first",
            "BS-11",
            &["BS-3"],
            "the index is written before the frames that it names",
            of(SlotFlaw::IndexFirst),
        )
        .awaiting(Engine::Kill),
    ]
}
