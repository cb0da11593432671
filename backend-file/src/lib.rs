//! `BlobStore` on io_uring, and long-term objects on plain files.
//!
//! [`FileBlobStore`] is a frame store in one file: the [`BlobStore`](larder_traits::BlobStore) contract, which comes from
//! the buffer manager of the storage engine *holt*, with code and a format of its own. A frame goes to a fresh slot when
//! it is written; a flush appends one record, which names the frames by their hashes, and makes both durable with one
//! sync that all waiting threads share. Reads are checked against those hashes. Where io_uring or direct I/O is not to be
//! had, the same file is driven by what there is, and [`FileBlobStore::engine`] says so.
//!
//! ```
//! use larder_file::{FileBlobStore, FileConfig};
//! use larder_traits::{BlobGuid, BlobStore};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let store = FileBlobStore::open(FileConfig::new(folder.path().join("frames")))?;
//! let mut frame = store.alloc_blob_buf_zeroed();
//! frame[..5].copy_from_slice(b"hello");
//! store.write_blob(BlobGuid::from_u128(1), &frame)?;
//! store.flush()?;
//! store.read_blob(BlobGuid::from_u128(1), &mut frame)?;
//! assert_eq!(&frame[..5], b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: `shape.rs` and `format.rs` for what the file looks like, `store.rs` for reads and writes, `commit.rs`
//! and `log.rs` for what makes them durable, `recovery.rs` for what an open does.

mod blob_store;
mod change_log;
mod commit;
mod config;
pub mod disk;
mod error;
mod format;
mod log;
mod native;
mod objects;
mod plain;
pub mod pool;
mod recovery;
mod scratch;
mod shape;
#[cfg(test)]
mod sim;
mod slots;
mod stats;
mod store;

pub use blob_store::FileBlobStore;
pub use change_log::{ChangeLogConfig, FileChangeLog};
pub use config::{CAPS, FileConfig};
pub use native::{FilePlace, FilePlaceConfig};
pub use objects::{FileBackend, OBJECTS_CAPS, ObjectsConfig};
pub use stats::{Recovery, Stats};
