//! What kinds of defects the zoo holds, and how many of each it is to hold at least.

use larder_conformance::Contract;

use crate::mutants::Mutant;

/// What goes wrong, by the clauses that say it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Values,
    Names,
    Batches,
    Visibility,
    Atomicity,
    Time,
    Errors,
    Bounds,
}

pub(crate) const CLASSES: [Class; 8] = [
    Class::Values,
    Class::Names,
    Class::Batches,
    Class::Visibility,
    Class::Atomicity,
    Class::Time,
    Class::Errors,
    Class::Bounds,
];

/// The columns of the table: both kinds of backends for objects are one.
pub(crate) const COLUMNS: [&str; 6] = ["BM", "ST", "BS", "HV", "KV", "CL"];

impl Class {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Values => "values and absence",
            Self::Names => "names, listing, isolation",
            Self::Batches => "preconditions, frontiers, batches",
            Self::Visibility => "visibility, lost updates",
            Self::Atomicity => "atomicity, durability, recovery",
            Self::Time => "time, expiry, deadlines",
            Self::Errors => "errors, lost answers, declarations",
            Self::Bounds => "cancellation, leaks, bounds",
        }
    }

    /// How many there are to be in each column.
    pub(crate) fn goals(self) -> [usize; 6] {
        match self {
            Self::Values => [6, 4, 5, 4, 4, 4],
            Self::Names => [7, 4, 4, 3, 4, 4],
            Self::Batches => [0, 12, 3, 8, 2, 2],
            Self::Visibility => [6, 5, 6, 4, 4, 4],
            Self::Atomicity => [8, 7, 10, 2, 3, 3],
            Self::Time => [5, 0, 0, 4, 6, 6],
            Self::Errors => [7, 6, 4, 2, 5, 5],
            Self::Bounds => [4, 4, 4, 1, 2, 2],
        }
    }

    pub(crate) fn of(mutant: &Mutant) -> Self {
        if OF_ERRORS.contains(&mutant.id) {
            return Self::Errors;
        }
        match mutant.breaks {
            "BM-1" | "BM-3" | "BM-11" | "ST-2" | "ST-3" | "ST-4" | "BS-1" | "BS-4" | "BS-5"
            | "HV-2" | "HV-3" | "BK-2" | "BK-3" | "KV-1" | "CL-1" => Self::Values,
            "BM-2" | "BM-5" | "BM-8" | "BM-10" | "ST-1" | "BS-6" | "HV-9" | "KV-2" | "KV-6"
            | "CL-2" => Self::Names,
            "ST-5" | "ST-6" | "ST-7" | "ST-8" | "ST-9" | "ST-10" | "ST-12" | "BS-7" | "BS-8"
            | "BS-9" | "HV-1" | "HV-4" | "HV-5" | "HV-10" | "KV-5" | "CL-3" | "CL-5" => {
                Self::Batches
            }
            "BM-6" | "ST-11" | "ST-14" | "BS-2" | "HV-6" | "HV-7" | "KV-7" | "CL-6" | "C-2" => {
                Self::Visibility
            }
            "BM-4" | "BM-9" | "ST-13" | "BS-3" | "BS-11" | "BS-12" | "BS-13" | "BK-1" | "BK-4"
            | "KV-9" | "CL-7" => Self::Atomicity,
            "BM-7" | "HV-8" | "KV-3" | "KV-4" | "CL-4" | "C-5" => Self::Time,
            "C-4" | "C-6" | "BS-10" | "BK-5" | "BK-6" => Self::Bounds,
            _ => Self::Errors,
        }
    }
}

/// Mutants of clauses that are about something else besides what is answered or declared.
const OF_ERRORS: [&str; 7] = [
    "st-blind-retry",
    "st-lost-commit-not-applied",
    "st-exclusive-not-fenced",
    "st-exclusive-wrong-kind",
    "st-exclusive-late",
    "st-refusal-unnamed",
    "st-sealed-update-unknown",
];

/// Where in the table a contract is.
pub(crate) fn column(contract: Contract) -> usize {
    match contract {
        Contract::BlobMulti => 0,
        Contract::Stash => 1,
        Contract::BlobStore => 2,
        Contract::KvClient => 4,
        Contract::ChangeLog => 5,
        _ => 3,
    }
}

/// Defects that were seen in the field: where they were reported, and the mutants that have them.
///
/// Those of the combinator of two tiers are in the zoo of its own crate.
pub(crate) const REPLICAS: &[(&str, &[&str])] = &[
    ("opendal#1036", &["bm-no-truncate"]),
    ("opendal#3956", &["bm-retry-without-content"]),
    ("opendal#8071", &["bm-list-one-page", "bm-list-page-seam"]),
    ("opendal#7721", &["bm-key-backslash"]),
    (
        "materialize, temporaries that collide",
        &["bm-stem-temporary"],
    ),
    (
        "materialize, temporaries that are listed",
        &["bm-list-temporary"],
    ),
    ("object_store#661", &["bm-file-not-synced"]),
    ("object_store#183", &["bm-torn-in-place"]),
    ("minio#5380", &["bm-list-flaps"]),
    ("commonware#4165", &["bm-drop-lands-late"]),
    ("materialize#17813", &["st-blind-retry"]),
    ("etcd#13766", &["st-file-index-later"]),
    (
        "holt#15, the log is cut too early",
        &["bs-file-log-cut-early"],
    ),
    (
        "holt#15, appended after a torn end",
        &["bs-file-log-torn-end"],
    ),
    ("holt#38", &["bs-file-in-place"]),
    ("nomt#288", &["bs-file-short-is-whole"]),
    ("objectstore#462", &["hv-swap-ignores-expiry"]),
    ("objectstore#569", &["hv-get-dead-inline"]),
    ("slatedb#766", &["hv-own-win-is-conflict"]),
    ("minio#21526", &["hv-swap-on-absent"]),
    ("rustfs#1659", &["hv-two-creators"]),
    ("d-engine#371", &["hv-check-then-swap"]),
    ("d-engine#381", &["kv-cut-off-leader"]),
    ("d-engine#329", &["kv-file-write-behind"]),
    ("etcd#20418", &["kv-pause-serves-old"]),
    ("etcd#9395", &["kv-file-ttl-restarts"]),
    ("dragonfly#6874", &["kv-read-in-flight-outlives"]),
    ("sqlx#4393", &["st-drop-leaves-transaction"]),
];
