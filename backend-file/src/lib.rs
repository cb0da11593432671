//! `BlobStore` on io_uring, and long-term objects on plain files.

mod disk;
mod objects;
mod plain;

pub use objects::{FileBackend, OBJECTS_CAPS, ObjectsConfig};
