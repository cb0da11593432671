//! `BlobStore` on io_uring, and long-term objects on plain files.

mod change_log;
mod disk;
mod objects;
mod plain;

pub use change_log::{ChangeLogConfig, FileChangeLog};
pub use objects::{FileBackend, OBJECTS_CAPS, ObjectsConfig};
