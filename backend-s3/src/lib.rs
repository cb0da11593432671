//! `BlobMulti`, `Backend` and `HighVolumeBackend` on any S3.
