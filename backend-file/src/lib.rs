//! `BlobStore` on io_uring, and long-term objects on plain files.

mod disk;
