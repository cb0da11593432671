//! `BlobMulti`, `Backend` and, where the store has conditional writes, `HighVolumeBackend` on any S3: for an application
//! whose data outlives its machines.
//!
//! A place is a prefix of a bucket. Requests are made with the parts of Amazon's SDK, or with all of it, tuned for stores
//! other than Amazon's; what it cannot know is decided here: which requests may be made twice, how long one may take,
//! and whether what arrived is what was stored.
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//!
//! use larder_s3::{S3Config, S3Place};
//! use larder_traits::{Atomicity, BlobMulti};
//!
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! let config = S3Config::new("pantry")
//!     .with_endpoint("http://127.0.0.1:9000")
//!     .with_prefix("jam")
//!     .with_credentials("access", "secret");
//! let blobs = S3Place::open(config).await?.blob_multi();
//! let soon = Instant::now() + Duration::from_secs(10);
//! blobs.set(soon, "plum", "jam".into(), Atomicity::RequireAtomic).await?;
//! assert_eq!(blobs.get(soon, "plum").await?.as_deref(), Some(&b"jam"[..]));
//! # Ok(())
//! # }
//! ```

mod backend;
mod blob_multi;
mod config;
mod download;
mod envelope;
mod error;
mod high_volume;
mod history;
mod idle;
mod key;
mod keys;
mod listing;
mod mark;
mod native;
mod probe;
mod sign;
mod sum;
mod thin;
mod upload;
mod wire;
mod xml;

pub use backend::S3Backend;
pub use blob_multi::S3Blob;
pub use config::{ChecksumMode, S3Config};
pub use high_volume::S3HighVolume;
pub use native::S3Place;
