//! Wrong only while several calls run at once.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use larder_conformance::Engine;
use larder_traits::{AlignedBlobBuf, BlobGuid, BlobStoreError, PAGE_SIZE};

use super::{DURABLE, m, with_caps};
use crate::mutants::Mutant;
use crate::reference::blob_store::{Packed, flush_failed};
use crate::reference::{blocking_gap, lock};

pub(super) fn concurrent() -> Vec<Mutant> {
    [frames(), lists()]
        .into_iter()
        .flatten()
        // What the late hint hides shows for certain only when the power goes.
        .map(|mutant| match mutant.id {
            "bs-hint-cleared-late" => mutant.awaiting(Engine::Power),
            _ => mutant.awaiting(Engine::Lin),
        })
        .collect()
}

const HALF: usize = PAGE_SIZE / 2;

/// The note of the frame that was written last where none had been.
const SLOT: BlobGuid = BlobGuid::from_u128(0);

fn frames() -> Vec<Mutant> {
    vec![
        m(
            "bs-torn-in-place",
            "BS-2",
            &["BS-1"],
            "a write goes over the old frame, one half after the other",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let old = lock(&place.frames).get(&guid).cloned();
                    if let Some(old) = old {
                        let mut mixed = AlignedBlobBuf::zeroed();
                        old.unpack(&mut mixed);
                        mixed[..HALF].copy_from_slice(&src[..HALF]);
                        place.write(guid, &mixed)?;
                        blocking_gap();
                    }
                    place.write(guid, src)
                });
            },
        ),
        m(
            "bs-read-in-halves",
            "BS-2",
            &["BS-1"],
            "a read takes the frame in two halves",
            |s| {
                s.read = Box::new(|place, guid, dst| {
                    place.read(guid, dst)?;
                    blocking_gap();
                    let frame = lock(&place.frames).get(&guid).cloned();
                    if let Some(frame) = frame {
                        let mut later = AlignedBlobBuf::zeroed();
                        frame.unpack(&mut later);
                        dst[HALF..].copy_from_slice(&later[HALF..]);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bs-replace-gap",
            "BS-2",
            &["BS-4"],
            "a write removes the old frame and then puts the new one there",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let frame = Packed::new(src);
                    if lock(&place.frames).remove(&guid).is_some() {
                        blocking_gap();
                    }
                    lock(&place.frames).insert(guid, frame);
                    Ok(())
                });
            },
        ),
        m(
            "bs-slot-used-again",
            "BS-2",
            &["BS-1", "BS-4"],
            "a read finds out where its frame lies, and reads there a moment later, when it may be another one's",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    // The slot that was freed last is the first that a new frame is given.
                    let frame = Packed::new(src);
                    let mut frames = lock(&place.frames);
                    if !frames.contains_key(&guid) {
                        lock(&place.notes).insert(SLOT, frame.clone());
                    }
                    frames.insert(guid, frame);
                    Ok(())
                });
                s.read = Box::new(|place, guid, dst| {
                    if !place.has(guid)? {
                        return Err(BlobStoreError::not_found(guid));
                    }
                    blocking_gap();
                    let frames = lock(&place.frames);
                    let slot = frames.get(&guid).cloned();
                    let slot = slot.or_else(|| lock(&place.notes).get(&SLOT).cloned());
                    drop(frames);
                    slot.ok_or_else(|| BlobStoreError::not_found(guid))?
                        .unpack(dst);
                    Ok(())
                });
            },
        ),
    ]
}

fn lists() -> Vec<Mutant> {
    vec![
        m(
            "bs-list-by-offset",
            "BS-6",
            &[],
            "a list goes on at the number of blobs that it has seen, whatever came or went before them meanwhile",
            |s| {
                s.list = Box::new(|place| {
                    let mut guids = Vec::new();
                    loop {
                        let page: Vec<_> = place
                            .list()?
                            .into_iter()
                            .skip(guids.len())
                            .take(1 + guids.len())
                            .collect();
                        if page.is_empty() {
                            return Ok(guids);
                        }
                        guids.extend(page);
                        blocking_gap();
                    }
                });
            },
        ),
        with_caps(
            DURABLE,
            "bs-hint-cleared-late",
            "BS-9",
            &[],
            "a flush that is done says so a moment later, and so for the writes that came after it too",
            |s| {
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
                    std::thread::sleep(Duration::from_millis(1));
                    place.counter.store(0, SeqCst);
                    Ok(())
                });
                s.fails.flush = |place, trouble| {
                    place.counter.store(1, SeqCst);
                    flush_failed(place, trouble)
                };
                s.needs_flush = Box::new(|place| place.counter.load(SeqCst) != 0);
            },
        ),
    ]
}
