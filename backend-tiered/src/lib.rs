//! [`TieredStorage`]: one object store out of two and a change log.
//!
//! Small objects lie inline in a [`HighVolumeBackend`](larder_traits::HighVolumeBackend), large ones in a long-term
//! [`Backend`](larder_traits::Backend) behind a redirect. An object can so be in two places, and a change to it takes
//! several steps; a crash, a dropped call, a lost answer or another writer can come between any two of them. What
//! holds all the same are the clauses TS-1 to TS-9. The shape is that of the two-tier storage of an object service.
//!
//! | file | the protocol of |
//! |---|---|
//! | `put.rs`, `peek.rs` | a put: which way a payload goes, upload first, redirect last |
//! | `get.rs` | a read: one look-up, and another one only where a payload is missing |
//! | `delete.rs` | a delete |
//! | `swap.rs` | the one step that readers can see, and what follows from each answer to it |
//! | `remove.rs` | removing payloads that nothing refers to any more |
//! | `recover.rs` | finishing what a writer left that is gone |
//! | `audit.rs` | looking for what no log knows of |
//!
//! Beneath them stand `lease.rs` (the change log as one writer uses it), `revision.rs` (names of payloads) and
//! `runtime.rs` (work that outlives its caller).

mod audit;
mod config;
mod delete;
mod error;
mod get;
mod lease;
mod native;
mod peek;
mod put;
mod recover;
mod remove;
mod revision;
mod runtime;
mod storage;
mod swap;

pub use audit::{AuditOptions, AuditReport};
pub use config::TieredConfig;
pub use recover::RecoverReport;
pub use revision::{REVISION_LEN_BYTES, Revision};
pub use runtime::{Runtime, TokioRuntime};
pub use storage::TieredStorage;
