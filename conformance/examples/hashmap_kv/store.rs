//! A `HashMap` as a key-value store: the least that keeps the contract.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::{
    Caps, Clock, Fault, KvCaps, KvClientError, KvDriver, LateLanding, SystemClock, TtlRestart,
    kv_client::zero_ttl,
};

/// What this store declares. Each line is checked.
pub(crate) const CAPS: Caps = Caps::LEAST
    .with_late_landing(LateLanding::Fenced)
    .with_kv_client(
        KvCaps::LEAST
            .with_empty_key(true)
            .with_ttl_granularity(Duration::ZERO)
            .with_multi_snapshot(true)
            .with_ttl_restart(TtlRestart::Deadline),
    );

/// A value, and the moment from which on it is gone.
type Entry = (Bytes, Option<SystemTime>);

#[derive(Debug, Default)]
pub(crate) struct HashMapKv(Mutex<HashMap<Vec<u8>, Entry>>);

impl HashMapKv {
    fn entries(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Entry>> {
        // Nothing below can panic half-way through a change, so a poisoned map is whole all the same.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded(what: &'static str, len: usize, max: usize) -> Result<(), Fault> {
    if len <= max {
        return Ok(());
    }
    Err(Fault::not_applied(
        larder_traits::ErrorKind::InvalidInput,
        what,
    ))
}

fn check_key(key: &[u8]) -> Result<(), Fault> {
    bounded(
        "the key is too long",
        key.len(),
        CAPS.kv_client.key_len_bytes_max,
    )
}

fn live(entries: &HashMap<Vec<u8>, Entry>, key: &[u8]) -> Option<Bytes> {
    let (value, end) = entries.get(key)?;
    let now = SystemClock::default().now();
    end.is_none_or(|end| now < end).then(|| value.clone())
}

#[async_trait]
impl KvDriver for HashMapKv {
    async fn write(
        &self,
        key: &[u8],
        value: &[u8],
        ttl_secs: Option<u64>,
    ) -> Result<(), KvClientError> {
        if ttl_secs == Some(0) {
            return Err(zero_ttl());
        }
        check_key(key)?;
        bounded(
            "the value is too long",
            value.len(),
            CAPS.kv_client.value_len_bytes_max,
        )?;
        // An end beyond what the clock can show is no end.
        let now = SystemClock::default().now();
        let end = ttl_secs.and_then(|secs| now.checked_add(Duration::from_secs(secs)));
        let entry = (Bytes::copy_from_slice(value), end);
        self.entries().insert(key.to_vec(), entry);
        Ok(())
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError> {
        check_key(key)?;
        Ok(live(&self.entries(), key))
    }

    async fn read_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
        keys.iter().try_for_each(|key| check_key(key))?;
        let entries = self.entries();
        Ok(keys.iter().map(|key| live(&entries, key)).collect())
    }

    async fn remove(&self, key: &[u8]) -> Result<(), KvClientError> {
        check_key(key)?;
        self.entries().remove(key);
        Ok(())
    }
}
