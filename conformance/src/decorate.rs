//! Stores that misbehave on demand: [`Faulty`] around any store of any contract, and the [`Switch`] that tells it when.
//!
//! The decorated store stands for a medium: the tiers under a combinator of two stores, or a server seen by its client.
//! It keeps its contract while it fails. An error that it makes up is classified as the contract demands: failed reads
//! are always `NotApplied`, and failed writes never claim to have had no effect when they had one. What it breaks on
//! purpose says so: a payload that ends early without an error ([`StreamEnd::Silent`]) is a store with a defect.
//!
//! ```
//! use std::sync::Arc;
//! use larder_conformance::decorate::{Faulty, Switch};
//! use larder_conformance::{FaultKind, Faults};
//! use larder_traits::{ChangeLog, Classify, Outcome, WriterId};
//!
//! # async fn f(log: Arc<dyn ChangeLog>, writer: WriterId) {
//! let switch = Switch::new();
//! let log = Faulty::new("log", log, &switch);
//! switch.arm(1, FaultKind::ErrorBefore);
//! let refused = log.changes(writer).await.unwrap_err();
//! assert_eq!(refused.outcome(), Outcome::NotApplied);
//! assert!(switch.disarm());
//! assert_eq!(switch.calls()[0].method, "changes");
//! # }
//! ```

mod blob_multi;
mod blob_store;
mod call;
mod change_log;
mod kv_driver;
mod objects;
mod stash_driver;
mod switch;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use switch::{Call, Report, StreamEnd, Switch};

/// A store that does what its [`Switch`] says and otherwise passes every call on to the store beneath it.
///
/// It implements whichever contracts that store does. Several may share a switch, which then counts their calls as one
/// sequence; each has a label, by which the list of calls tells them apart.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: Arc<S>,
    label: &'static str,
    switch: Switch,
    /// A flush failed, and no write can be trusted before the store is opened anew (BS-12).
    poisoned: AtomicBool,
}

impl<S> Faulty<S> {
    /// The store `inner`, called `label` in the list of calls and misbehaving as `switch` says.
    pub fn new(label: &'static str, inner: S, switch: &Switch) -> Self {
        Self {
            inner: Arc::new(inner),
            label,
            switch: switch.clone(),
            poisoned: AtomicBool::new(false),
        }
    }

    /// The store beneath, which never misbehaves, to look at what is really there.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// What makes it misbehave.
    #[must_use]
    pub fn switch(&self) -> &Switch {
        &self.switch
    }
}
