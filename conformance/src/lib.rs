//! wip
#![allow(clippy::future_not_send, reason = "checks run on a thread of their own and never move")]
mod catalogue;
mod check;
mod checks;
mod contract;
mod cx;
mod engine;
mod fixture;
pub mod lin;
pub mod harness;
mod profile;
mod report;
mod run;
mod seed;
pub mod backend;
pub mod blob_multi;
pub mod blob_store;
pub mod high_volume;
pub mod kv_client;
pub mod model;
pub mod stash;

pub use catalogue::catalogue;
pub use check::{CheckInfo, Engine, Failure, Gate, Level, Symptom, Verdict};
pub use contract::{Clause, Contract, clauses};
pub use fixture::{BoxError, Env, FaultKind, Faults, Fixture, Probe};
pub use larder_traits::Caps;
pub use profile::Profile;
pub use report::{Record, Report, explain_failure};
pub use run::{Options, Suite, Trial};
pub use seed::random as random_seed;
