//! `BlobStore` on io_uring, and long-term objects on plain files.

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
