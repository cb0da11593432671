//! Stores in plain files that are broken by the loss of the process, or by that of power, and by nothing less.

use larder_conformance::{Caps, Contract, Engine, Suite};
use larder_traits::Durability;

use super::Mutant;
use crate::reference::files::{self, CAPS, Flaw, FrameFlaw};

/// What a store declares that is about processes only.
const PROCESS: Caps = CAPS.with_durability(Durability::Process);

pub(crate) fn all() -> Vec<Mutant> {
    [killed(), killed_frames(), cut_off(), cut_off_frames()]
        .into_iter()
        .flatten()
        .collect()
}

fn f(
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    make: impl Fn() -> Suite + Send + Sync + 'static,
) -> Mutant {
    let contract = match id.split('-').next() {
        Some("bm") => Contract::BlobMulti,
        Some("bs") => Contract::BlobStore,
        Some("bk") => Contract::Backend,
        _ => Contract::KvClient,
    };
    Mutant {
        id,
        contract,
        breaks,
        also,
        about,
        awaits: None,
        hangs: false,
        // The process that is killed finds the mutant by its name.
        suite: Box::new(move || make().named(id)),
    }
}

fn killed() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Kill);
    vec![
        f(
            "bm-file-write-behind",
            "BM-9",
            &[],
            "sets and deletes are written when the store is dropped",
            || files::blob_multi(PROCESS, Flaw::WriteBehind),
        ),
        f(
            "bm-file-write-later",
            "BM-9",
            &[],
            "sets and deletes are written a moment after they were acknowledged",
            || files::blob_multi(PROCESS, Flaw::WriteLater),
        ),
        f(
            "bm-file-deletes-in-memory",
            "BM-9",
            &["BM-5"],
            "deletes are known to the process only",
            || files::blob_multi(PROCESS, Flaw::DeletesInMemory),
        ),
        f(
            "bm-file-in-pieces",
            "BM-4",
            &["BM-9"],
            "a value goes over the old one in pieces",
            || files::blob_multi(PROCESS, Flaw::InPieces),
        ),
        f(
            "bm-file-temporaries-listed",
            "BM-2",
            &["BM-9"],
            "a list shows what a killed process was writing",
            || files::blob_multi(PROCESS, Flaw::TemporariesListed),
        ),
        f(
            "bm-file-leftovers-restored",
            "BM-9",
            &["BM-4"],
            "what a killed process was writing is taken for whole",
            || files::blob_multi(PROCESS, Flaw::LeftoversRestored),
        ),
        f(
            "bm-file-neighbours-rewritten",
            "BM-4",
            &["BM-9"],
            "a non-atomic set rewrites the values beside it",
            || files::blob_multi(PROCESS, Flaw::NeighboursRewritten),
        ),
        f(
            "kv-file-write-behind",
            "KV-9",
            &[],
            "puts and deletes are written when the client is dropped",
            || files::kv_client(PROCESS, Flaw::WriteBehind),
        ),
        f(
            "bk-file-in-pieces",
            "BK-1",
            &["BK-4"],
            "an object goes over the old one in pieces",
            || files::backend(PROCESS, Flaw::InPieces),
        ),
        f(
            "bk-file-write-later",
            "BK-4",
            &[],
            "puts and deletes are written a moment after they were acknowledged",
            || files::backend(PROCESS, Flaw::WriteLater),
        ),
    ]
    .into_iter()
    .map(awaiting)
    .collect()
}

fn killed_frames() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Kill);
    vec![
        f(
            "bs-file-flush-behind",
            "BS-11",
            &["BS-3"],
            "a flush hands its work over and returns",
            || files::blob_store(PROCESS, FrameFlaw::FlushBehind),
        ),
        f(
            "bs-file-in-pieces",
            "BS-11",
            &[],
            "a frame goes over the old one in pieces",
            || files::blob_store(PROCESS, FrameFlaw::Files(Flaw::InPieces)),
        ),
        f(
            "bs-file-stale-lock",
            "BS-14",
            &[],
            "the lock of a killed process stays",
            || files::blob_store(PROCESS, FrameFlaw::StaleLock),
        ),
        f(
            "bs-file-lock-of-process",
            "BS-14",
            &[],
            "the lock is known to its process only",
            || files::blob_store(PROCESS, FrameFlaw::LockOfProcess),
        ),
    ]
    .into_iter()
    .map(awaiting)
    .collect()
}

fn cut_off() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Power);
    vec![
        f(
            "bm-file-not-synced",
            "BM-9",
            &[],
            "the file is renamed before it was synced",
            || files::blob_multi(CAPS, Flaw::FileNotSynced),
        ),
        f(
            "bm-file-folder-not-synced",
            "BM-9",
            &[],
            "the folder is not synced after a rename",
            || files::blob_multi(CAPS, Flaw::FolderNotSynced),
        ),
        f(
            "bm-file-delete-not-synced",
            "BM-9",
            &["BM-5"],
            "the folder is not synced after a delete",
            || files::blob_multi(CAPS, Flaw::DeleteNotSynced),
        ),
        f(
            "bm-file-in-place",
            "BM-9",
            &["BM-4"],
            "the old value is overwritten at a stroke, and synced",
            || files::blob_multi(CAPS, Flaw::InPlace),
        ),
        f(
            "bm-file-truncated-first",
            "BM-9",
            &["BM-4"],
            "the old file is made empty, written at a stroke, and synced",
            || files::blob_multi(CAPS, Flaw::TruncatedFirst),
        ),
        f(
            "bm-file-synced-too-early",
            "BM-9",
            &[],
            "the last bytes are written after the sync",
            || files::blob_multi(CAPS, Flaw::SyncedTooEarly),
        ),
        f(
            "kv-file-not-synced",
            "KV-9",
            &[],
            "the file is renamed before it was synced",
            || files::kv_client(CAPS, Flaw::FileNotSynced),
        ),
        f(
            "bk-file-folder-not-synced",
            "BK-4",
            &[],
            "the folder is not synced after a rename",
            || files::backend(CAPS, Flaw::FolderNotSynced),
        ),
    ]
    .into_iter()
    .map(awaiting)
    .collect()
}

fn cut_off_frames() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Power);
    vec![
        f(
            "bs-file-not-synced",
            "BS-3",
            &["BS-11", "BS-8"],
            "a flush renames files before they were synced",
            || files::blob_store(CAPS, FrameFlaw::Files(Flaw::FileNotSynced)),
        ),
        f(
            "bs-file-folder-not-synced",
            "BS-3",
            &["BS-11", "BS-8"],
            "a flush does not sync the folder after its renames",
            || files::blob_store(CAPS, FrameFlaw::Files(Flaw::FolderNotSynced)),
        ),
        f(
            "bs-file-data-sync-is-flush",
            "BS-8",
            &["BS-3"],
            "a flush right after a data-sync does nothing",
            || files::blob_store(CAPS, FrameFlaw::DataSyncIsFlush),
        ),
        f(
            "bs-file-flush-skipped",
            "BS-8",
            &["BS-3"],
            "a flush after a data-sync leaves out what was written between the two",
            || files::blob_store(CAPS, FrameFlaw::FlushSkipped),
        ),
    ]
    .into_iter()
    .chain(cut_short())
    .map(awaiting)
    .collect()
}

/// Wrong only where a transfer is cut short or interrupted.
fn cut_short() -> Vec<Mutant> {
    let of = |flaw| files::blob_store(CAPS, FrameFlaw::Files(flaw));
    vec![
        f(
            "bs-file-short-is-whole",
            "BS-15",
            &[],
            "a write that was cut short counts as whole",
            move || of(Flaw::ShortIsWhole),
        ),
        f(
            "bs-file-resumed-from-the-start",
            "BS-15",
            &[],
            "after a write that was cut short the first bytes are written once more",
            move || of(Flaw::ResumedFromTheStart),
        ),
        f(
            "bs-file-interrupted-is-done",
            "BS-15",
            &[],
            "a write that was interrupted counts as done",
            move || of(Flaw::InterruptedIsDone),
        ),
        f(
            "bs-file-again-left-out",
            "BS-15",
            &[],
            "a write that the system could not take now is left out",
            move || of(Flaw::AgainLeftOut),
        ),
        f(
            "bs-file-short-read-is-whole",
            "BS-15",
            &[],
            "a read that was cut short counts as whole, and the rest is zeros",
            move || of(Flaw::ShortReadIsWhole),
        ),
    ]
}
