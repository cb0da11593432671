//! [`BlobMulti`]: one object per key.
//!
//! S3 makes a PUT, a completed upload and a DELETE visible in one step, so what is left to do here is to know how each
//! of them ended. None is repeated unless the server said that it did nothing: a second delivery of a write that was
//! applied could undo what others have done since (BM-6).

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::{Atomicity, BlobInfo, BlobMulti, ErrorKind, ExternalError, Fault};

use crate::download::Value;
use crate::upload::len_u64;
use crate::wire::{Sent, Wire};

/// The blobs of a place.
///
/// A value lies in one object, byte by byte and readable for every tool; its checksum lies beside it in the metadata.
#[derive(Clone, Debug)]
pub struct S3Blob {
    wire: Arc<Wire>,
}

impl S3Blob {
    pub(crate) fn new(wire: Arc<Wire>) -> Self {
        Self { wire }
    }

    async fn fetch(
        &self,
        deadline: Instant,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<Value>, Fault> {
        let name = self.wire.names.blob(key)?;
        let fetch = async {
            match self.wire.fetch(&name, range).await {
                Ok(found) => Ok(found.map(|found| found.value)),
                Err(failure) => Err(failure.not_applied()),
            }
        };
        self.wire.call(deadline, &Sent::default(), fetch).await
    }

    /// The keys that start with `prefix`, with the lengths of their values.
    async fn list(&self, deadline: Instant, prefix: &str) -> Result<Vec<BlobInfo>, Fault> {
        let names = &self.wire.names;
        let start = names.blob_prefix(prefix);
        let list = async {
            // No key starts so, and a name that is too long is more than a server wants to read.
            let Some(start) = &start else {
                return Ok(Vec::new());
            };
            let found = self.wire.list(start).await;
            found.map_err(|failure| failure.not_applied())
        };
        let found = self.wire.call(deadline, &Sent::default(), list).await?;
        // Names that are no key's were put there by somebody else.
        let lines = found.into_iter().filter_map(|object| {
            let key = names.blob_key(&object.name)?;
            key.starts_with(prefix)
                .then(|| BlobInfo::new(key, object.len_bytes))
        });
        Ok(lines.collect())
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl BlobMulti for S3Blob {
    async fn get(&self, deadline: Instant, key: &str) -> Result<Option<Vec<u8>>, ExternalError> {
        let found = self.fetch(deadline, key, 0..u64::MAX).await?;
        Ok(found.map(Value::into_vec))
    }

    async fn list_keys(&self, deadline: Instant) -> Result<Vec<String>, ExternalError> {
        let found = self.list(deadline, "").await?;
        Ok(found.into_iter().map(|line| line.key).collect())
    }

    async fn set(
        &self,
        deadline: Instant,
        key: &str,
        value: Bytes,
        _atomic: Atomicity,
    ) -> Result<(), ExternalError> {
        let name = self.wire.names.blob(key)?;
        let max = self.wire.config.value_len_bytes_max;
        if len_u64(&value) > max {
            let message = format!(
                "a value of {} bytes, and at most {max} are allowed",
                value.len()
            );
            return Err(Fault::not_applied(ErrorKind::InvalidInput, message).into());
        }
        let sent = Sent::default();
        let store = self.wire.store(&name, value, &sent);
        Ok(self.wire.call(deadline, &sent, store).await?)
    }

    async fn delete(&self, deadline: Instant, key: &str) -> Result<(), ExternalError> {
        let name = self.wire.names.blob(key)?;
        let sent = Sent::default();
        let remove = self.wire.remove(&name, &sent);
        Ok(self.wire.call(deadline, &sent, remove).await?)
    }

    async fn get_bytes(
        &self,
        deadline: Instant,
        key: &str,
    ) -> Result<Option<Bytes>, ExternalError> {
        let found = self.fetch(deadline, key, 0..u64::MAX).await?;
        Ok(found.map(Value::into_bytes))
    }

    async fn get_range(
        &self,
        deadline: Instant,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, ExternalError> {
        let found = self.fetch(deadline, key, range).await?;
        Ok(found.map(Value::into_bytes))
    }

    async fn list_prefix(
        &self,
        deadline: Instant,
        prefix: &str,
    ) -> Result<Vec<BlobInfo>, ExternalError> {
        Ok(self.list(deadline, prefix).await?)
    }
}
