//! `BlobStore` on io_uring, and long-term objects on plain files.

mod change_log;
pub mod disk;
mod objects;
mod plain;
pub mod pool;

pub use change_log::{ChangeLogConfig, FileChangeLog};
pub use objects::{FileBackend, OBJECTS_CAPS, ObjectsConfig};
