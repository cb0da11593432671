//! Stores in plain files that are broken by the loss of the process, or by that of power, and by nothing less.

use larder_conformance::{Caps, Contract, Engine, Suite};
use larder_traits::Durability;

use super::Mutant;
use crate::reference::files::{self, CAPS, CutFlaw, Flaw, FrameFlaw, KvFlaw, LogFlaw, RowFlaw};

/// What a store declares that is about processes only.
const PROCESS: Caps = CAPS.with_durability(Durability::Process);

pub(crate) fn all() -> Vec<Mutant> {
    [
        killed(),
        killed_frames(),
        killed_rows(),
        killed_logs(),
        restarted(),
        damaged(),
        cut_off(),
        cut_off_frames(),
        cut_off_rows(),
        cut_off_logs(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(super) fn f(
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
        Some("st") => Contract::Stash,
        Some("cl") => Contract::ChangeLog,
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
        panics: false,
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
            || files::kv_client(PROCESS, KvFlaw::Files(Flaw::WriteBehind)),
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
        // Seen in holt, pull request 15: the log goes before what it says has come through.
        f(
            "bs-file-log-cut-early",
            "BS-11",
            &["BS-9"],
            "a log is cut before the frames that it tells of are written",
            || files::frame_log(PROCESS, CutFlaw::CutEarly),
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

fn killed_rows() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Kill);
    vec![
        f(
            "st-file-write-later",
            "ST-13",
            &["ST-5"],
            "commits are written a moment after they were acknowledged",
            || files::stash(PROCESS, RowFlaw::Files(Flaw::WriteLater)),
        ),
        f(
            "st-file-in-pieces",
            "ST-13",
            &[],
            "a commit goes over the one before in pieces",
            || files::stash(PROCESS, RowFlaw::Files(Flaw::InPieces)),
        ),
        f(
            "st-file-frontiers-pending",
            "ST-13",
            &["ST-6", "ST-7"],
            "a seal or a compaction that comes alone is written with the next update",
            || files::stash(PROCESS, RowFlaw::FrontiersPending),
        ),
        f(
            "st-file-batch-split",
            "ST-12",
            &["ST-13"],
            "the items of a batch are committed one after the other, and declared to be one",
            || files::stash(PROCESS, RowFlaw::BatchSplit),
        ),
        f(
            "st-file-update-split",
            "ST-13",
            &["ST-5"],
            "the rows of an update are committed in two halves",
            || files::stash(PROCESS, RowFlaw::UpdateSplit),
        ),
        f(
            "st-file-consolidation-split",
            "ST-13",
            &["ST-8"],
            "a consolidation removes rows by one commit and puts the folded ones back by another",
            || files::stash(PROCESS, RowFlaw::ConsolidationSplit),
        ),
        // Seen in etcd, issue 13766: index and data in two commits.
        f(
            "st-file-index-later",
            "ST-13",
            &["ST-4"],
            "the index of the keys is committed after the rows",
            || files::stash(PROCESS, RowFlaw::IndexLater),
        ),
        f(
            "st-file-log-done-again",
            "ST-13",
            &[],
            "a log that a killed process left is carried out, whether it was done or not",
            || files::stash(PROCESS, RowFlaw::LogDoneAgain),
        ),
        f(
            "st-file-drops-in-memory",
            "ST-13",
            &[],
            "a dropped collection is dropped for this process only",
            || files::stash(PROCESS, RowFlaw::DropsInMemory),
        ),
    ]
    .into_iter()
    .map(awaiting)
    .collect()
}

fn killed_logs() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Kill);
    vec![
        f(
            "cl-file-write-behind",
            "CL-7",
            &[],
            "what the log was told is written when it is dropped",
            || files::change_log(PROCESS, LogFlaw::Files(Flaw::WriteBehind)),
        ),
        f(
            "cl-file-in-pieces",
            "CL-7",
            &[],
            "the log goes over what it was before in pieces",
            || files::change_log(PROCESS, LogFlaw::Files(Flaw::InPieces)),
        ),
        f(
            "cl-file-leases-in-memory",
            "CL-7",
            &["CL-4"],
            "leases are known to the process only",
            || files::change_log(PROCESS, LogFlaw::LeasesInMemory),
        ),
        f(
            "cl-file-claims-pending",
            "CL-7",
            &["CL-5"],
            "who claimed a change is written with what comes next",
            || files::change_log(PROCESS, LogFlaw::ClaimsPending),
        ),
        f(
            "cl-file-completes-pending",
            "CL-7",
            &["CL-2"],
            "that a change was struck out is written with what comes next",
            || files::change_log(PROCESS, LogFlaw::CompletesPending),
        ),
        f(
            "cl-file-claim-split",
            "CL-7",
            &["CL-5"],
            "the changes of a claim are committed one after the other",
            || files::change_log(PROCESS, LogFlaw::ClaimSplit),
        ),
    ]
    .into_iter()
    .map(awaiting)
    .collect()
}

/// What shows once the files are damaged.
fn damaged() -> Vec<Mutant> {
    vec![
        f(
            "bs-file-unchecked",
            "BS-13",
            &[],
            "a frame is handed out as it is found",
            || files::blob_store(PROCESS, FrameFlaw::Unchecked),
        ),
        // Seen in holt, pull request 15: what is appended after a torn end is stranded.
        f(
            "bs-file-log-torn-end",
            "BS-13",
            &[],
            "a log is appended to behind an end that was torn, and read up to there",
            || files::frame_log(PROCESS, CutFlaw::TornEndStays),
        ),
        f(
            "bs-file-damage-is-absent",
            "BS-13",
            &["BS-4"],
            "a damaged frame is taken for an absent one",
            || files::blob_store(PROCESS, FrameFlaw::DamageIsAbsent),
        ),
        f(
            "bs-file-damage-is-zeros",
            "BS-13",
            &[],
            "a damaged frame is handed out as zeros",
            || files::blob_store(PROCESS, FrameFlaw::DamageIsZeros),
        ),
        f(
            "bs-file-damage-wrong-kind",
            "BS-13",
            &["C-1"],
            "a damaged frame is an internal error",
            || files::blob_store(PROCESS, FrameFlaw::DamageIsInternal),
        ),
        f(
            "bs-file-damage-panics",
            "C-3",
            &["BS-13"],
            "what was once written is trusted to be whole",
            || files::blob_store(PROCESS, FrameFlaw::DamagePanics),
        )
        .panicking(),
    ]
}

/// What shows once the place is opened by another process, or anew by the same one.
fn restarted() -> Vec<Mutant> {
    vec![
        // Seen in etcd, issue 9395: a time to live begins anew with each leader.
        f(
            "kv-file-ttl-restarts",
            "KV-9",
            &["KV-3"],
            "a time to live begins anew with the process, and is declared to run on",
            || files::kv_client(PROCESS, KvFlaw::TtlRestarts),
        ),
        f(
            "kv-file-ttl-in-memory",
            "KV-9",
            &["KV-3"],
            "a time to live is known to the process only, and a value that outlives it stays for ever",
            || files::kv_client(PROCESS, KvFlaw::TtlInMemory),
        ),
    ]
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
            || files::kv_client(CAPS, KvFlaw::Files(Flaw::FileNotSynced)),
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
        f(
            "bs-file-takes-back-the-last",
            "BS-11",
            &[],
            "a write that fails takes back the change before it",
            || files::blob_store(CAPS, FrameFlaw::TakesBackTheLast),
        ),
        f(
            "bs-file-leaves-its-frame",
            "BS-11",
            &[],
            "a write that fails leaves its frame in the place of the change before it",
            || files::blob_store(CAPS, FrameFlaw::LeavesItsFrame),
        ),
        f(
            "bs-file-in-place",
            "BS-11",
            &["BS-3", "BS-8"],
            "a flush overwrites old frames at a stroke, and syncs them",
            || files::blob_store(CAPS, FrameFlaw::Files(Flaw::InPlace)),
        ),
        f(
            "bs-file-delete-not-synced",
            "BS-5",
            &["BS-3", "BS-11"],
            "a flush does not sync the folder after its deletes",
            || files::blob_store(CAPS, FrameFlaw::Files(Flaw::DeleteNotSynced)),
        ),
    ]
    .into_iter()
    .chain(cut_short())
    .map(awaiting)
    .collect()
}

fn cut_off_rows() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Power);
    vec![
        f(
            "st-file-folder-not-synced",
            "ST-13",
            &[],
            "the folder is not synced after a commit's rename",
            || files::stash(CAPS, RowFlaw::Files(Flaw::FolderNotSynced)),
        ),
        f(
            "st-file-in-place",
            "ST-13",
            &[],
            "a commit overwrites the one before at a stroke, and syncs it",
            || files::stash(CAPS, RowFlaw::Files(Flaw::InPlace)),
        ),
        f(
            "st-file-frontiers-not-synced",
            "ST-13",
            &["ST-6", "ST-7"],
            "a seal or a compaction that comes alone is not synced",
            || files::stash(CAPS, RowFlaw::FrontiersNotSynced),
        ),
        f(
            "st-file-consolidation-not-synced",
            "ST-13",
            &["ST-8"],
            "a consolidation is not synced, and takes what was there before along",
            || files::stash(CAPS, RowFlaw::ConsolidationNotSynced),
        ),
        f(
            "st-file-every-other-synced",
            "ST-13",
            &["ST-5"],
            "every other commit is synced",
            || files::stash(CAPS, RowFlaw::EveryOtherSynced),
        ),
        f(
            "st-file-log-cut-early",
            "ST-13",
            &[],
            "the log of a commit is removed before what it describes was synced",
            || files::stash(CAPS, RowFlaw::LogCutEarly),
        ),
        f(
            "st-file-drop-not-synced",
            "ST-13",
            &["ST-1"],
            "the drop of a collection is not synced",
            || files::stash(CAPS, RowFlaw::DropNotSynced),
        ),
    ]
    .into_iter()
    .map(awaiting)
    .collect()
}

fn cut_off_logs() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Power);
    vec![
        f(
            "cl-file-folder-not-synced",
            "CL-7",
            &[],
            "the folder is not synced after a rename",
            || files::change_log(CAPS, LogFlaw::Files(Flaw::FolderNotSynced)),
        ),
        f(
            "cl-file-renewal-not-synced",
            "CL-7",
            &["CL-4"],
            "a renewal is not synced, since the next one will come",
            || files::change_log(CAPS, LogFlaw::RenewalNotSynced),
        ),
        f(
            "cl-file-claim-not-synced",
            "CL-7",
            &["CL-5"],
            "a claim is not synced",
            || files::change_log(CAPS, LogFlaw::ClaimNotSynced),
        ),
    ]
    .into_iter()
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
