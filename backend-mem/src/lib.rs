//! All five storage contracts in memory: the executable specification.
//!
//! Simple enough to be read in one sitting, and correct under real concurrency. Each contract is one map behind one
//! lock, and every call takes its lock once, decides, acts and lets go, with nothing in between that could wait or be
//! interrupted. That is why every call is linearizable, every list is a snapshot, and a dropped call either happened
//! or never will.
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use larder_mem::{MemConfig, MemPlace};
//! use larder_traits::{Atomicity, BlobMulti};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let place = MemPlace::open(MemConfig::named("pantry"));
//! let deadline = Instant::now() + Duration::from_secs(1);
//! place.blob_multi().set(deadline, "jam", "plum".into(), Atomicity::RequireAtomic).await?;
//!
//! // The same name is the same place, for as long as anybody holds a handle on it.
//! let other = MemPlace::open(MemConfig::named("pantry")).blob_multi();
//! assert_eq!(other.get(deadline, "jam").await?, Some(b"plum".to_vec()));
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here survives the process: see [`CAPS`] for what is declared.

mod blob_multi;
mod blob_store;
mod change_log;
mod config;
mod error;
mod high_volume;
mod kv_client;
mod native;
mod stash;

pub use blob_multi::MemBlobMulti;
pub use blob_store::MemBlobStore;
pub use change_log::MemChangeLog;
pub use config::{CAPS, MemConfig};
pub use high_volume::MemHighVolume;
pub use kv_client::MemKvClient;
pub use native::{Held, MemPlace};
pub use stash::MemStash;
