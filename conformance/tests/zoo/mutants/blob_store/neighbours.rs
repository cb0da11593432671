//! Wrong only where the medium fails one of several calls that run at once. A call that is alone knows what became of it.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use larder_conformance::Engine;
use larder_traits::BlobGuid;

use super::m;
use crate::mutants::Mutant;
use crate::reference::blob_store::Packed;
use crate::reference::medium::Trouble;
use crate::reference::{blocking_gap, lock};

/// The note of what is laid down to be written.
const STAGED: BlobGuid = BlobGuid::from_u128(0);

/// How long a store takes to do something about a failure.
const PAUSE: Duration = Duration::from_millis(5);

const TROUBLES: [Trouble; 3] = [Trouble::Refused, Trouble::Lost, Trouble::Late];

pub(super) fn neighbours() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "bs-retry-from-shared-buffer",
            "BS-2",
            &["C-1", "BS-1", "BS-15"],
            "a write that was refused is made again from the buffer that all writes are laid down in",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let frame = Packed::new(src);
                    lock(&place.notes).insert(STAGED, frame.clone());
                    let write = |frame| drop(lock(&place.frames).insert(guid, frame));
                    let again = match place.medium.block(|| write(frame.clone())) {
                        Ok(()) => return Ok(()),
                        Err(Trouble::Lost) => return Err(Trouble::Lost.at_commit().into()),
                        Err(_) => {
                            std::thread::sleep(PAUSE);
                            lock(&place.notes).get(&STAGED).cloned().unwrap_or(frame)
                        }
                    };
                    let written = place.medium.block(|| write(again));
                    written.map_err(|trouble| trouble.after().into())
                });
            },
        ),
        m(
            "bs-undo-by-old-frame",
            "BS-2",
            &["C-1", "BS-15"],
            "a write that failed puts the frame back that was there when it began, over what others wrote meanwhile",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let before = lock(&place.frames).get(&guid).cloned();
                    blocking_gap();
                    let written = place.medium.block(|| place.write(guid, src));
                    written.unwrap_or_else(|trouble| {
                        std::thread::sleep(PAUSE);
                        let mut frames = lock(&place.frames);
                        match before {
                            Some(frame) => frames.insert(guid, frame),
                            None => frames.remove(&guid),
                        };
                        Err(trouble.at_commit().into())
                    })
                });
            },
        ),
        m(
            "bs-error-told-to-another",
            "C-1",
            &["BS-2", "BS-15", "BS-7"],
            "the last error of the medium is kept for all, and told to the first write that looks for its own",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let written = place.medium.block(|| place.write(guid, src));
                    if let Err(trouble) = written {
                        let at = TROUBLES.iter().position(|it| *it == trouble);
                        let code = at.and_then(|at| u64::try_from(at + 1).ok());
                        place.counter.store(code.unwrap_or_default(), SeqCst);
                        std::thread::sleep(PAUSE);
                    }
                    blocking_gap();
                    let code = usize::try_from(place.counter.swap(0, SeqCst)).ok();
                    match code.and_then(|code| TROUBLES.get(code.checked_sub(1)?)) {
                        Some(trouble) => Err(trouble.at_commit().into()),
                        None => Ok(()),
                    }
                });
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}
