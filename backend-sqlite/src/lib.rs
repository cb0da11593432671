//! `Stash`, `HighVolumeBackend`, `KvClient` and a `ChangeLog` on one SQLite file: for an application that has one disk
//! and no server.
//!
//! One thread owns the connection that writes. It runs each write inside a transaction that has the write lock from
//! its first statement on, and lets the calls that are waiting share one: all of them are answered after the same sync
//! of the log. A few other threads read, each call in one transaction, which is one moment. Callers await and never
//! block the executor.
//!
//! ```
//! use larder_sqlite::{SqliteConfig, SqlitePlace};
//! use larder_traits::KvClient;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let place = SqlitePlace::open(SqliteConfig::new(folder.path().join("pantry.db"))).await?;
//! let kv = place.kv_client();
//! kv.put("jam", "plum").await?;
//! assert_eq!(kv.get("jam").await?.as_deref(), Some(&b"plum"[..]));
//! # Ok(())
//! # }
//! ```

mod change_log;
mod checksum;
mod config;
mod error;
mod high_volume;
mod kv_client;
mod native;
mod queue;
mod reader;
mod schema;
mod stash;
mod state;
mod time;
mod writer;

pub use change_log::SqliteChangeLog;
pub use config::{CAPS, SqliteConfig};
pub use high_volume::SqliteHighVolume;
pub use kv_client::SqliteKvClient;
pub use native::{Held, SqlitePlace};
pub use stash::SqliteStash;
