//! [`BlobMulti`]: one map from keys to bytes.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::MutexGuard;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::blob_multi::slice_of;
use larder_traits::{Atomicity, BlobInfo, BlobMulti, ExternalError, Fault};

use crate::error::{bounded, empty_key, in_time};
use crate::native::{MemPlace, lock};

/// The blobs of a place. Any key of up to 1,024 bytes of UTF-8 works exactly (BM-10).
#[derive(Clone, Debug)]
pub struct MemBlobMulti(pub(crate) MemPlace);

impl MemBlobMulti {
    fn check_key(&self, key: &str) -> Result<(), Fault> {
        if key.is_empty() {
            return Err(empty_key());
        }
        let max = self.0.config.caps.blob_multi.key_len_bytes_max;
        bounded("bytes of a key", key.len(), max)
    }

    /// The map, if the deadline leaves time for it: asked again once the lock is there, since waiting for it takes
    /// time, and nothing after that does (BM-7).
    fn blobs(
        &self,
        deadline: Instant,
    ) -> Result<MutexGuard<'_, BTreeMap<String, Bytes>>, ExternalError> {
        in_time(deadline)?;
        let blobs = lock(&self.0.shared.blobs);
        in_time(deadline)?;
        Ok(blobs)
    }
}

#[async_trait]
impl BlobMulti for MemBlobMulti {
    async fn get(&self, deadline: Instant, key: &str) -> Result<Option<Vec<u8>>, ExternalError> {
        Ok(self.get_bytes(deadline, key).await?.map(Vec::from))
    }

    async fn list_keys(&self, deadline: Instant) -> Result<Vec<String>, ExternalError> {
        Ok(self.blobs(deadline)?.keys().cloned().collect())
    }

    async fn set(
        &self,
        deadline: Instant,
        key: &str,
        value: Bytes,
        _atomic: Atomicity,
    ) -> Result<(), ExternalError> {
        self.check_key(key)?;
        let max = self.0.config.caps.blob_multi.value_len_bytes_max;
        bounded("bytes of a value", value.len(), max)?;
        // The old value goes once the lock is free: letting go of 64 MiB takes time.
        let replaced = self.blobs(deadline)?.insert(key.to_owned(), value);
        drop(replaced);
        Ok(())
    }

    async fn delete(&self, deadline: Instant, key: &str) -> Result<(), ExternalError> {
        self.check_key(key)?;
        let removed = self.blobs(deadline)?.remove(key);
        drop(removed);
        Ok(())
    }

    async fn get_bytes(
        &self,
        deadline: Instant,
        key: &str,
    ) -> Result<Option<Bytes>, ExternalError> {
        self.check_key(key)?;
        Ok(self.blobs(deadline)?.get(key).cloned())
    }

    async fn get_range(
        &self,
        deadline: Instant,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, ExternalError> {
        let value = self.get_bytes(deadline, key).await?;
        Ok(value.map(|value| slice_of(&value, range)))
    }

    async fn list_prefix(
        &self,
        deadline: Instant,
        prefix: &str,
    ) -> Result<Vec<BlobInfo>, ExternalError> {
        let blobs = self.blobs(deadline)?;
        let from_prefix = blobs.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let found = from_prefix.take_while(|(key, _)| key.starts_with(prefix));
        Ok(found
            .map(|(key, value)| BlobInfo::new(key, len_u64(value)))
            .collect())
    }
}

fn len_u64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length in memory fits 64 bits")
}
