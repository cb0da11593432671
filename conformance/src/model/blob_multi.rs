//! `BlobMulti` as a state machine: a map, and the domains of its keys and values.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use larder_traits::blob_multi::{KEY_LEN_BYTES_MAX, slice_of};
use larder_traits::{BlobInfo, BlobMultiCaps};

/// BM-10: what a store must do with a key.
#[expect(
    clippy::exhaustive_enums,
    reason = "these are the three cases of the clause"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDomain {
    /// It has to work: one of the base alphabet, up to the length that is declared.
    Base,
    /// It works exactly, or is refused as `InvalidInput`.
    Optional,
    /// It is refused as `InvalidInput`.
    Refused,
}

impl KeyDomain {
    /// The domain in which `key` lies for a store that declares `caps`.
    #[must_use]
    pub fn of(key: &str, caps: &BlobMultiCaps) -> Self {
        let len_max = caps.key_len_bytes_max.min(KEY_LEN_BYTES_MAX);
        if key.is_empty() || key.len() > len_max {
            Self::Refused
        } else if key.bytes().all(is_base) {
            Self::Base
        } else {
            Self::Optional
        }
    }
}

/// BM-10: whether a byte is of the alphabet that every backend accepts.
#[must_use]
pub fn is_base(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!-_.*'()/".contains(&byte)
}

/// BM-11: whether a store that declares `caps` accepts a value of that length.
#[must_use]
pub fn accepts_value(len_bytes: usize, caps: &BlobMultiCaps) -> bool {
    u64::try_from(len_bytes).is_ok_and(|len_bytes| len_bytes <= caps.value_len_bytes_max)
}

/// One place of blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blobs(BTreeMap<String, Bytes>);

impl Blobs {
    /// BM-1
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.0.get(key)
    }

    /// BM-1: the bytes of the value that lie in `range`.
    #[must_use]
    pub fn get_range(&self, key: &str, range: Range<u64>) -> Option<Bytes> {
        let value = self.0.get(key)?;
        Some(slice_of(value, range))
    }

    /// BM-2, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// BM-2, sorted.
    #[must_use]
    pub fn list_prefix(&self, prefix: &str) -> Vec<BlobInfo> {
        let len = |value: &Bytes| u64::try_from(value.len()).unwrap_or(u64::MAX);
        self.0
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| BlobInfo::new(key, len(value)))
            .collect()
    }

    /// BM-3
    pub fn set(&mut self, key: &str, value: Bytes) {
        self.0.insert(key.to_owned(), value);
    }

    /// BM-5; whether it was there.
    pub fn delete(&mut self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }
}
