//! Wrong only where the medium fails.

use larder_conformance::Engine;
use larder_traits::{AlignedBlobBuf, BlobStoreError, PAGE_SIZE};

use super::{DURABLE, m, with_caps};
use crate::mutants::Mutant;
use crate::reference::blob_store::Packed;
use crate::reference::lock;
use crate::reference::medium::Trouble;

pub(super) fn failing() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "bs-failed-read-not-found",
            "BS-15",
            &["C-1", "BS-4"],
            "a blob that could not be read is not there",
            |s| s.fails.read = |_, guid| Some(BlobStoreError::not_found(guid)),
        ),
        m(
            "bs-failed-read-is-done",
            "BS-15",
            &["C-1", "BS-1"],
            "a read that failed is Ok, and the buffer is what it was",
            |s| s.fails.read = |_, _| None,
        ),
        m(
            "bs-lost-write-not-applied",
            "C-1",
            &["BS-7", "BS-15"],
            "a write whose answer was lost is said to have had no effect",
            |s| s.fails.write = |trouble| Err(trouble.before().into()),
        ),
        m(
            "bs-refused-write-is-done",
            "C-1",
            &["BS-2", "BS-7", "BS-15"],
            "a write that the medium refused is Ok",
            |s| {
                s.fails.write = |trouble| match trouble {
                    Trouble::Refused => Ok(()),
                    _ => Err(trouble.at_commit().into()),
                };
            },
        ),
        with_caps(
            DURABLE,
            "bs-flush-goes-on",
            "BS-12",
            &[],
            "after a flush that failed the store goes on, and the next flush is Ok",
            |s| s.fails.flush = |_, trouble| Err(trouble.after().into()),
        ),
        with_caps(
            DURABLE,
            "bs-flush-failed-not-applied",
            "BS-12",
            &["C-1"],
            "a flush that failed is said to have had no effect, and may be tried again",
            |s| s.fails.flush = |_, trouble| Err(trouble.before().into()),
        ),
        m(
            "bs-half-write",
            "BS-15",
            &["C-1", "BS-2", "BS-7"],
            "a write goes over the old frame in two halves, and stops where the second one fails",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let mut frames = lock(&place.frames);
                    if let Some(old) = frames.get(&guid) {
                        let mut mixed = AlignedBlobBuf::zeroed();
                        old.unpack(&mut mixed);
                        let half = PAGE_SIZE / 2;
                        mixed[..half].copy_from_slice(&src[..half]);
                        frames.insert(guid, Packed::new(&mixed));
                    }
                    let rest = place
                        .medium
                        .block(|| drop(frames.insert(guid, Packed::new(src))));
                    rest.map_err(|trouble| trouble.after().into())
                });
            },
        ),
        m(
            "bs-batch-passes-over",
            "BS-7",
            &["C-1", "BS-2", "BS-15"],
            "a batch passes over the frame that could not be written, and is Ok",
            |s| {
                s.batch = Some(Box::new(|place, writes| {
                    for (guid, src) in writes {
                        if let Ok(written) = place.medium.block(|| place.write(*guid, src)) {
                            written?;
                        }
                    }
                    Ok(())
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}
