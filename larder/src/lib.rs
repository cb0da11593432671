//! Storage contracts, and the backends that keep them.
//!
//! Pick backends as features and name a place by a URL; what you get are the traits of `larder-traits`, which this
//! crate re-exports, and nothing of the backend shows.
//!
//! ```
//! # #[cfg(feature = "mem")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use larder::KvClient;
//!
//! let store = larder::open("mem:sessions").await?;
//! let sessions = store.kv_client().await?;
//! sessions.put_with_ttl("abc", "user 17", 3600).await?;
//! assert_eq!(sessions.get("abc").await?.as_deref(), Some(&b"user 17"[..]));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "mem"))]
//! # fn main() {}
//! ```
//!
//! | feature | URL | offers |
//! |---|---|---|
//! | `mem` (default) | `mem:` (private), `mem:name` (shared in the process) | all contracts; nothing survives the process |
//! | `sqlite` | `sqlite:///path` | `Stash`, `HighVolumeBackend`, `Backend`, `KvClient`; survives power |
//! | `file` | `file:///folder` | `BlobStore`, `Backend`; survives power |
//! | `s3` | `s3://bucket/prefix?endpoint=URL` | `BlobMulti`, `Backend`, and `HighVolumeBackend` where the server keeps the conditions of writes; credentials come from `AWS_ACCESS_KEY_ID` and its kin |
//! | `tiered` | `tiered:?high_volume=URL&long_term=URL` | `Backend` over two places, with a change log; survives what both do |
//!
//! Everything that can be configured fits into the URL as `?key=value`. A key that a backend does not know is an
//! error and never ignored. Who wants a typed configuration instead uses the backend's own crate, re-exported as a
//! module of this one.

mod keys;
mod location;
mod medium;
mod open_error;
mod store;

pub use larder_traits::*;
pub use location::Location;
pub use open_error::{Hint, OpenError};
pub use store::{OpenOptions, Store};

#[cfg(feature = "file")]
pub use larder_file as file;
#[cfg(feature = "mem")]
pub use larder_mem as mem;
#[cfg(feature = "s3")]
pub use larder_s3 as s3;
#[cfg(feature = "sqlite")]
pub use larder_sqlite as sqlite;
#[cfg(feature = "tiered")]
pub use larder_tiered as tiered;

/// Opens the place that `url` names.
///
/// # Errors
///
/// [`OpenError`], which says in one line what is wrong with the URL or why the place cannot be opened.
pub async fn open(url: &str) -> Result<Store, OpenError> {
    Location::parse(url)?.open(&OpenOptions::new()).await
}
