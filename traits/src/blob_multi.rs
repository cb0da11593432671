//! [`BlobMulti`]: linearizable blobs with deadlines.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Classify, ErrorKind, Fault, Outcome};

const _: Option<&dyn BlobMulti> = None;

/// The length up to which every backend accepts keys of the base alphabet (BM-10).
pub const BASE_KEY_LEN_BYTES_MAX: usize = 255;

/// The length above which every backend refuses a key as `InvalidInput` (BM-10).
pub const KEY_LEN_BYTES_MAX: usize = 1024;

/// What a [`BlobMulti::set`] that is interrupted may leave behind (BM-4).
///
/// A set that *returns* `Ok` is complete and durable either way, and readers never see a mixture of a set that is
/// still running. A backend may treat both alike.
#[expect(
    clippy::exhaustive_enums,
    reason = "a third degree would be a change of the contract"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Atomicity {
    /// A crash or a failure on the way leaves the old value or the new one.
    RequireAtomic,
    /// A crash or a failure on the way may leave this key, and no other, torn.
    AllowNonAtomic,
}

/// The error of [`BlobMulti`]. Ask it for its [`kind`](Classify::kind) and its [`outcome`](Classify::outcome).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ExternalError(#[from] Fault);

impl ExternalError {
    /// The fault this error was made from, for code that carries it on in an error type of its own.
    #[must_use]
    pub fn into_fault(self) -> Fault {
        self.0
    }
}

impl Classify for ExternalError {
    fn kind(&self) -> ErrorKind {
        self.0.kind()
    }

    fn outcome(&self) -> Outcome {
        self.0.outcome()
    }
}

/// One line of [`BlobMulti::list_prefix`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct BlobInfo {
    /// The key, exactly as it was given to `set`.
    pub key: String,
    /// The length of the value.
    pub len_bytes: u64,
}

impl BlobInfo {
    /// A key and the length of its value.
    #[must_use]
    pub fn new(key: impl Into<String>, len_bytes: u64) -> Self {
        Self {
            key: key.into(),
            len_bytes,
        }
    }
}

/// A linearizable map from keys to bytes, each call bounded by a deadline.
///
/// The shape is that of the blob store under the persistence layer of Materialize. A *place* (a directory, a bucket
/// and prefix, a database) holds one map; every handle that is opened on the place sees the same one (C-2) and none
/// sees another place's keys, also where one place's name is a prefix of the other's (BM-8).
///
/// # Keys and values
///
/// Every backend accepts keys of 1 to 255 bytes of `A-Z a-z 0-9 ! - _ . * ' ( ) /`, with `.`, `..`, `//` and leading
/// or trailing `/` and `.` among them; none of these escapes the place. The empty key is `InvalidInput`. Any other
/// UTF-8 of up to 1,024 bytes either works exactly, distinct from its case and normalisation variants, or is refused
/// as `InvalidInput` (BM-10). A value is any bytes from none to the declared maximum (BM-11).
///
/// # Consistency
///
/// Calls on one key are linearizable through any mix of handles (BM-6).
///
/// # Deadlines
///
/// A deadline is an absolute instant and spans queueing, waiting for pools and locks, and every retry (BM-7). One that
/// has passed before the call is `Timeout`, `NotApplied`, without any effect ever. One that passes on the way ends
/// the call within 250 ms, as `Timeout`; a write past its commit point is then `Unknown`. A deadline may lie any
/// distance ahead.
///
/// # Cancel safety
///
/// A dropped future leaves the store usable and never tears a value. The outcome of the dropped call is `Unknown`;
/// whether it may still land after a later acknowledged call is declared in
/// [`Caps::late_landing`](crate::Caps::late_landing) (C-6), and the same holds for calls that ended `Unknown` (BM-12).
///
/// # Errors
///
/// All methods: `Timeout` as above; `InvalidInput` for a key or a value outside the domain, `NotApplied` before any
/// effect (C-4); `PermissionDenied`, `NotFound` (the place itself is missing) or `Unavailable` when the medium cannot
/// be used, never `None` or an empty list in their stead (BM-13). A write whose acknowledgement was lost is `Ok` or
/// `Unknown`, never `NotApplied`.
#[async_trait]
pub trait BlobMulti: Debug + Send + Sync {
    /// Returns the whole last value of `key`, or `None` where the key is absent. An empty value is `Some` of no bytes
    /// (BM-1).
    ///
    /// # Errors
    ///
    /// As the trait says; always `NotApplied`.
    async fn get(&self, deadline: Instant, key: &str) -> Result<Option<Vec<u8>>, ExternalError>;

    /// Returns every key of the place once, as it was given to [`set`](Self::set), in no particular order (BM-2).
    ///
    /// However many there are: pages are the backend's affair. Nothing internal shows: no temporary file, lock or
    /// upload in progress.
    ///
    /// # Consistency
    ///
    /// The presence of each key in the answer is linearizable by itself. Whether the answer is one snapshot of all
    /// keys is declared in [`BlobMultiCaps::list_snapshot`](crate::BlobMultiCaps::list_snapshot) (BM-6).
    ///
    /// # Errors
    ///
    /// As the trait says; always `NotApplied`.
    async fn list_keys(&self, deadline: Instant) -> Result<Vec<String>, ExternalError>;

    /// Inserts `key` or replaces its whole value, leaving no trace of the old one (BM-3).
    ///
    /// # Atomicity
    ///
    /// See [`Atomicity`] (BM-4).
    ///
    /// # Durability
    ///
    /// On `Ok` the value survives what [`Caps::durability`](crate::Caps::durability) names (BM-9).
    ///
    /// # Errors
    ///
    /// As the trait says. After `Unknown` the value may be there, or arrive: read, or set again.
    async fn set(
        &self,
        deadline: Instant,
        key: &str,
        value: Bytes,
        atomic: Atomicity,
    ) -> Result<(), ExternalError>;

    /// Removes `key`, and that key alone; `Ok` also where it is absent (BM-5).
    ///
    /// # Durability
    ///
    /// As for [`set`](Self::set) (BM-9).
    ///
    /// # Errors
    ///
    /// As the trait says. After `Unknown`, delete again.
    async fn delete(&self, deadline: Instant, key: &str) -> Result<(), ExternalError>;

    /// [`get`](Self::get) without the copy, on backends that can do without it (BM-1).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    async fn get_bytes(
        &self,
        deadline: Instant,
        key: &str,
    ) -> Result<Option<Bytes>, ExternalError> {
        Ok(self.get(deadline, key).await?.map(Bytes::from))
    }

    /// Returns the bytes of `key` that lie in `range`, or `None` where the key is absent (BM-1).
    ///
    /// The range is cut at the end of the value: what lies past it, and a range that ends before it starts, is
    /// answered by no bytes.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    async fn get_range(
        &self,
        deadline: Instant,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, ExternalError> {
        let value = self.get_bytes(deadline, key).await?;
        Ok(value.map(|value| slice_of(&value, range)))
    }

    /// Returns every key that starts with `prefix`, with the length of its value, in no particular order (BM-2).
    ///
    /// # Consistency
    ///
    /// Each line is linearizable by itself: the key was there with a value of that length at some moment of the call.
    ///
    /// # Errors
    ///
    /// As [`list_keys`](Self::list_keys).
    async fn list_prefix(
        &self,
        deadline: Instant,
        prefix: &str,
    ) -> Result<Vec<BlobInfo>, ExternalError> {
        let mut found = Vec::new();
        for key in self.list_keys(deadline).await? {
            if !key.starts_with(prefix) {
                continue;
            }
            // A key that is gone by now was deleted during this call, and its absence is the later truth.
            if let Some(value) = self.get_bytes(deadline, &key).await? {
                found.push(BlobInfo::new(key, len_u64(&value)));
            }
        }
        Ok(found)
    }
}

/// The part of `value` that lies in `range`, cut at the end of the value: the rule of [`BlobMulti::get_range`] for
/// backends that hold the whole value.
#[must_use]
pub fn slice_of(value: &Bytes, range: Range<u64>) -> Bytes {
    let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(value.len());
    let (start, end) = (cut(range.start), cut(range.end));
    value.slice(start..end.max(start))
}

fn len_u64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length in memory fits 64 bits")
}

macro_rules! forward {
    ($($pointer:ty),+) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: BlobMulti + ?Sized> BlobMulti for $pointer {
            async fn get(&self, deadline: Instant, key: &str) -> Result<Option<Vec<u8>>, ExternalError> {
                (**self).get(deadline, key).await
            }
            async fn list_keys(&self, deadline: Instant) -> Result<Vec<String>, ExternalError> {
                (**self).list_keys(deadline).await
            }
            async fn set(
                &self,
                deadline: Instant,
                key: &str,
                value: Bytes,
                atomic: Atomicity,
            ) -> Result<(), ExternalError> {
                (**self).set(deadline, key, value, atomic).await
            }
            async fn delete(&self, deadline: Instant, key: &str) -> Result<(), ExternalError> {
                (**self).delete(deadline, key).await
            }
            async fn get_bytes(&self, deadline: Instant, key: &str) -> Result<Option<Bytes>, ExternalError> {
                (**self).get_bytes(deadline, key).await
            }
            async fn get_range(
                &self,
                deadline: Instant,
                key: &str,
                range: Range<u64>,
            ) -> Result<Option<Bytes>, ExternalError> {
                (**self).get_range(deadline, key, range).await
            }
            async fn list_prefix(&self, deadline: Instant, prefix: &str) -> Result<Vec<BlobInfo>, ExternalError> {
                (**self).list_prefix(deadline, prefix).await
            }
        }
    )+};
}

forward!(Box<T>, Arc<T>, &T);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_the_end_of_the_value() {
        let value = Bytes::from_static(b"0123456789");
        assert_eq!(&slice_of(&value, 2..5)[..], b"234");
        assert_eq!(&slice_of(&value, 8..u64::MAX)[..], b"89");
        assert_eq!(&slice_of(&value, 10..11)[..], b"");
        #[expect(clippy::reversed_empty_ranges, reason = "the case under test")]
        let reversed = slice_of(&value, 5..2);
        assert!(reversed.is_empty());
    }
}
