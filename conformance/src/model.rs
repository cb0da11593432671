//! The contracts as pure state machines: what a store must answer, with no lock, no I/O and no time of their own.
//!
//! The model engine runs a store side by side with one of these, and the zoo's reference stores are one of these behind
//! a lock.

pub mod blob_multi;
pub mod blob_store;
pub mod change_log;
pub mod high_volume;
pub mod kv_client;
pub mod stash;
