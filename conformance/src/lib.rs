//! Tells of any implementation of a storage contract which clauses it keeps, and the shortest history that breaks one.
//!
//! The author of a backend writes a [`Fixture`], which makes empty worlds, and an `Open` for each contract offered; the
//! suite does the rest. In `tests/conformance.rs`, with `harness = false` for it in `Cargo.toml`:
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex};
//! # use larder_traits::{KvClientError, KvDriver};
//! use larder_conformance::{BoxError, Caps, Env, Fixture, kv_client};
//! # #[derive(Debug, Default)]
//! # struct MyStore;
//! # #[async_trait::async_trait]
//! # impl KvDriver for MyStore {
//! #     async fn write(&self, _: &[u8], _: &[u8], _: Option<u64>) -> Result<(), KvClientError> { Ok(()) }
//! #     async fn read(&self, _: &[u8]) -> Result<Option<bytes::Bytes>, KvClientError> { Ok(None) }
//! #     async fn read_many(&self, _: &[bytes::Bytes]) -> Result<Vec<Option<bytes::Bytes>>, KvClientError> { Ok(vec![]) }
//! #     async fn remove(&self, _: &[u8]) -> Result<(), KvClientError> { Ok(()) }
//! # }
//!
//! #[derive(Default)]
//! struct Place(Mutex<HashMap<String, Arc<MyStore>>>);
//!
//! impl Fixture for Place {
//!     async fn new(_: &Env) -> Result<Self, BoxError> {
//!         Ok(Self::default())
//!     }
//!     fn caps(&self) -> Caps {
//!         Caps::LEAST // what the store declares; every item is checked
//!     }
//! }
//! impl kv_client::Open for Place {
//!     type Store = Arc<MyStore>;
//!     async fn open(&self, place: &str) -> Result<Self::Store, BoxError> {
//!         let mut stores = self.0.lock().map_err(|e| e.to_string())?;
//!         Ok(Arc::clone(stores.entry(place.into()).or_default()))
//!     }
//! }
//! larder_conformance::main!(kv_client: Place);
//! ```
//!
//! Every check is then a test of its own. What a check needs beyond the contract, such as a clock to turn or a medium
//! that can be made to fail, is a *power*: a method of [`Fixture`] or of an `Open` with a default. A check that lacks one
//! is ignored and names it. A program that wants the results as values runs a [`Suite`].
//!
//! A check that fails for a defect of the server behind the store is listed by [`Suite::known`], with the reason. It runs,
//! and a wrong answer counts as ignored and not as a pass; the [`Record`] keeps what was seen.
//!
//! [`lin`] judges histories of concurrent calls and can be used by itself; [`decorate`] and [`proxy`] make stores and
//! servers fail on purpose; [`schedule`] runs tasks in every order there is.

#![allow(
    clippy::future_not_send,
    reason = "checks run on a thread of their own and never move"
)]

pub mod backend;
pub mod blob_multi;
pub mod blob_store;
mod catalogue;
pub mod change_log;
mod check;
mod checks;
mod contract;
mod cx;
pub mod decorate;
mod engine;
mod fixture;
pub mod harness;
pub mod high_volume;
pub mod kv_client;
pub mod lin;
pub mod model;
mod profile;
pub mod proxy;
mod report;
mod run;
pub mod schedule;
mod seed;
pub mod sim_disk;
pub mod stash;
mod watchdog;

pub use catalogue::catalogue;
pub use check::{CheckInfo, Engine, Failure, Gate, Level, Symptom, Verdict};
pub use contract::{Clause, Contract, clauses};
pub use fixture::{BoxError, Env, FaultKind, Faults, Fixture, Probe};
pub use larder_traits::Caps;
pub use profile::Profile;
pub use report::{Known, Record, Report, explain_failure};
pub use run::{Options, Suite, Trial};
pub use seed::random as random_seed;
