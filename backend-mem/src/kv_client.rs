//! [`KvDriver`]: one map from bytes to bytes whose entries may end.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::kv_client::zero_ttl;
use larder_traits::{Fault, KvClientError, KvDriver};

use crate::error::bounded;
use crate::native::{Expires, MemPlace, lock};

/// The key-value entries of a place; a `KvClient` by its driver.
///
/// The empty key is a key like any other (KV-2). An entry with a time to live is dead from its deadline on (KV-3); a
/// deadline beyond all time is none.
#[derive(Clone, Debug)]
pub struct MemKvClient(pub(crate) MemPlace);

/// One value and its end.
pub(crate) struct Entry {
    value: Bytes,
    deadline: Option<SystemTime>,
}

impl Expires for Entry {
    fn deadline(&self) -> Option<SystemTime> {
        self.deadline
    }
}

impl MemKvClient {
    fn check_key(&self, key: &[u8]) -> Result<(), Fault> {
        let max = self.0.config.caps.kv_client.key_len_bytes_max;
        bounded("bytes of a key", key.len(), max)
    }
}

#[async_trait]
impl KvDriver for MemKvClient {
    async fn write(
        &self,
        key: &[u8],
        value: &[u8],
        ttl_secs: Option<u64>,
    ) -> Result<(), KvClientError> {
        if ttl_secs == Some(0) {
            return Err(zero_ttl());
        }
        self.check_key(key)?;
        let max = self.0.config.caps.kv_client.value_len_bytes_max;
        bounded("bytes of a value", value.len(), max)?;
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));

        let mut entries = lock(&self.0.shared.entries);
        let now = self.0.now();
        let deadline = ttl_secs.and_then(|secs| now.checked_add(Duration::from_secs(secs)));
        entries.put(key, Entry { value, deadline }, now);
        Ok(())
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError> {
        self.check_key(key)?;
        let mut entries = lock(&self.0.shared.entries);
        let entry = entries.live(key, self.0.now());
        Ok(entry.map(|entry| entry.value.clone()))
    }

    async fn read_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
        keys.iter().try_for_each(|key| self.check_key(key))?;
        let mut entries = lock(&self.0.shared.entries);
        let now = self.0.now();
        let mut value_of = |key| entries.live(key, now).map(|entry| entry.value.clone());
        Ok(keys.iter().map(|key| value_of(&key[..])).collect())
    }

    async fn remove(&self, key: &[u8]) -> Result<(), KvClientError> {
        self.check_key(key)?;
        lock(&self.0.shared.entries).remove(key);
        Ok(())
    }
}
