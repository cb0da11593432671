//! A `HashMap` as a store of blobs: the least that keeps the contract.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::{
    Atomicity, BlobMulti, BlobMultiCaps, Caps, ErrorKind, ExternalError, Fault, LateLanding,
};

/// What this store declares. Each line is checked.
pub(crate) const CAPS: Caps = Caps::LEAST
    .with_late_landing(LateLanding::Fenced)
    .with_blob_multi(
        BlobMultiCaps::LEAST
            .with_value_len_bytes_max(16 << 20)
            .with_list_snapshot(true),
    );

#[derive(Debug, Default)]
pub(crate) struct HashMapBlob(Mutex<HashMap<String, Bytes>>);

impl HashMapBlob {
    /// The map, if there is still time once the lock is there. Nothing after that takes any.
    fn blobs(&self, deadline: Instant) -> Result<MutexGuard<'_, HashMap<String, Bytes>>, Fault> {
        // Nothing below can panic half-way through a change, so a poisoned map is whole all the same.
        let blobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if Instant::now() < deadline {
            return Ok(blobs);
        }
        Err(Fault::not_applied(
            ErrorKind::Timeout,
            "the deadline has passed",
        ))
    }
}

fn check(key: &str) -> Result<(), Fault> {
    match key.len() {
        0 => Err(Fault::not_applied(
            ErrorKind::InvalidInput,
            "the key is empty",
        )),
        len if len > CAPS.blob_multi.key_len_bytes_max => Err(Fault::not_applied(
            ErrorKind::InvalidInput,
            "the key is too long",
        )),
        _ => Ok(()),
    }
}

#[async_trait]
impl BlobMulti for HashMapBlob {
    async fn get(&self, deadline: Instant, key: &str) -> Result<Option<Vec<u8>>, ExternalError> {
        check(key)?;
        Ok(self.blobs(deadline)?.get(key).map(|value| value.to_vec()))
    }

    async fn list_keys(&self, deadline: Instant) -> Result<Vec<String>, ExternalError> {
        Ok(self.blobs(deadline)?.keys().cloned().collect())
    }

    async fn set(
        &self,
        deadline: Instant,
        key: &str,
        value: Bytes,
        _: Atomicity,
    ) -> Result<(), ExternalError> {
        check(key)?;
        if u64::try_from(value.len()).is_ok_and(|len| len > CAPS.blob_multi.value_len_bytes_max) {
            let why = "the value is too long";
            return Err(Fault::not_applied(ErrorKind::InvalidInput, why).into());
        }
        self.blobs(deadline)?.insert(key.to_owned(), value);
        Ok(())
    }

    async fn delete(&self, deadline: Instant, key: &str) -> Result<(), ExternalError> {
        check(key)?;
        self.blobs(deadline)?.remove(key);
        Ok(())
    }
}
