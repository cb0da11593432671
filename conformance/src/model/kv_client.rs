//! `KvClient` as a state machine: a map whose entries may end.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_traits::kv_client::zero_ttl;
use larder_traits::{ErrorKind, Fault, KvCaps, KvClientError};

/// One place of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries(BTreeMap<Bytes, Entry>);

/// A value, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    value: Bytes,
    /// `None` for ever, also where the end lies beyond what can be expressed (KV-3).
    ends: Option<SystemTime>,
}

impl Entry {
    fn is_alive(&self, now: SystemTime) -> bool {
        self.ends.is_none_or(|end| now < end)
    }
}

/// What a store may show of a key at a moment (KV-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Life<'a> {
    /// This value.
    Alive(&'a Bytes),
    /// This value, or nothing: its time is over, and the granularity is not.
    Ending(&'a Bytes),
    /// Nothing.
    Gone,
}

impl Entries {
    /// KV-1, KV-4: the value stays for ever, whatever was there before.
    pub fn put(&mut self, key: &[u8], value: Bytes) {
        let key = Bytes::copy_from_slice(key);
        self.0.insert(key, Entry { value, ends: None });
    }

    /// KV-3, KV-4: the value stays for so many seconds from `now`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a time to live of 0; nothing has changed then.
    pub fn put_with_ttl(
        &mut self,
        key: &[u8],
        value: Bytes,
        ttl_secs: u64,
        now: SystemTime,
    ) -> Result<(), KvClientError> {
        if ttl_secs == 0 {
            return Err(zero_ttl());
        }
        let ends = now.checked_add(Duration::from_secs(ttl_secs));
        self.0
            .insert(Bytes::copy_from_slice(key), Entry { value, ends });
        Ok(())
    }

    /// KV-1, KV-3: the live value of `key`, by a clock without granularity.
    #[must_use]
    pub fn get(&self, key: &[u8], now: SystemTime) -> Option<&Bytes> {
        let entry = self.0.get(key)?;
        entry.is_alive(now).then_some(&entry.value)
    }

    /// KV-5: in the order of `keys`, one for each.
    #[must_use]
    pub fn get_multi(&self, keys: &[Bytes], now: SystemTime) -> Vec<Option<Bytes>> {
        keys.iter().map(|key| self.get(key, now).cloned()).collect()
    }

    /// KV-6; whether a live value was there.
    pub fn delete(&mut self, key: &[u8], now: SystemTime) -> bool {
        self.0.remove(key).is_some_and(|entry| entry.is_alive(now))
    }

    /// KV-3: what a store of this granularity may show.
    #[must_use]
    pub fn life(&self, key: &[u8], now: SystemTime, granularity: Duration) -> Life<'_> {
        let Some(entry) = self.0.get(key) else {
            return Life::Gone;
        };
        if entry.is_alive(now) {
            return Life::Alive(&entry.value);
        }
        let over = entry.ends.and_then(|end| end.checked_add(granularity));
        if over.is_some_and(|over| over <= now) {
            Life::Gone
        } else {
            Life::Ending(&entry.value)
        }
    }

    /// Lets go of what has ended. It changes no answer (KV-3).
    pub fn sweep(&mut self, now: SystemTime) {
        self.0.retain(|_, entry| entry.is_alive(now));
    }

    /// How many entries are kept, ended ones that were not swept included (KV-4).
    #[must_use]
    pub fn rows(&self) -> usize {
        self.0.len()
    }
}

/// KV-2, C-4: whether these capabilities take the key.
///
/// # Errors
///
/// `InvalidArgument` for a key over its bound, and for an empty one where that is not declared.
pub fn check_key(caps: &KvCaps, key: &[u8]) -> Result<(), KvClientError> {
    if key.is_empty() && !caps.empty_key {
        return Err(Fault::not_applied(ErrorKind::InvalidInput, "an empty key").into());
    }
    if key.len() > caps.key_len_bytes_max {
        return Err(Fault::not_applied(ErrorKind::InvalidInput, "the key is too long").into());
    }
    Ok(())
}

/// C-4: whether these capabilities take the value.
///
/// # Errors
///
/// `InvalidArgument` for a value over its bound.
pub fn check_value(caps: &KvCaps, value: &[u8]) -> Result<(), KvClientError> {
    if value.len() > caps.value_len_bytes_max {
        return Err(Fault::not_applied(ErrorKind::InvalidInput, "the value is too long").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn after(secs: u64) -> SystemTime {
        START + Duration::from_secs(secs)
    }

    #[test]
    fn an_entry_ends_on_time_and_an_overwrite_lets_go_of_the_end() {
        let mut entries = Entries::default();
        entries.put_with_ttl(b"k", "v".into(), 5, START).unwrap();
        assert!(entries.get(b"k", after(4)).is_some());
        assert!(entries.get(b"k", after(5)).is_none());
        let second = Duration::from_secs(1);
        assert!(matches!(
            entries.life(b"k", after(5), second),
            Life::Ending(_)
        ));
        assert_eq!(entries.life(b"k", after(6), second), Life::Gone);
        entries.put(b"k", "w".into());
        assert!(entries.get(b"k", after(500)).is_some());
        assert!(!entries.delete(b"x", START) && entries.delete(b"k", START));
    }

    #[test]
    fn zero_is_refused_and_the_longest_time_is_for_ever() {
        let mut entries = Entries::default();
        assert!(entries.put_with_ttl(b"k", "v".into(), 0, START).is_err());
        assert_eq!(entries.rows(), 0);
        entries
            .put_with_ttl(b"k", "v".into(), u64::MAX, START)
            .unwrap();
        assert!(entries.get(b"k", after(1 << 40)).is_some());
    }
}
