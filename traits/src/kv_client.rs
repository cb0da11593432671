//! [`KvClient`]: linearizable key-value with time to live, and [`KvDriver`], the object-safe trait beneath it.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Classify, ErrorKind, Fault, Outcome};

const _: Option<&dyn KvDriver> = None;

/// The error of [`KvClient`].
///
/// A backend makes a [`Fault`] and lets [`From`] choose the variant; code that reacts to an error asks
/// [`Classify::kind`] and [`Classify::outcome`], or matches on the variant, which says the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvClientError {
    /// The client was shut down on this side (kind `Closed`). Open another.
    #[error("the client is closed")]
    ChannelClosed(#[source] Fault),
    /// The configured bound has passed (kind `Timeout`). A write is `Unknown` then.
    #[error("the call took longer than its bound")]
    Timeout(#[source] Fault),
    /// The server could not be reached, and nothing was sent (kind `Unavailable`, `NotApplied`). Try again.
    #[error("the server could not be reached")]
    NetworkError(#[source] Fault),
    /// The call was sent, and then the connection broke (kind `Unavailable`, `Unknown`). Look before you repeat.
    #[error("the connection broke after the call was sent")]
    ConnectionLost(#[source] Fault),
    /// The engine refused the call or failed in it (any other kind).
    #[error("the engine refused or failed")]
    ServerError(#[source] Fault),
    /// The arguments can never be accepted; nothing was sent (kind `InvalidInput`, `NotApplied`).
    #[error("the arguments are invalid")]
    InvalidArgument(#[source] Fault),
}

impl KvClientError {
    fn fault(&self) -> &Fault {
        match self {
            Self::ChannelClosed(fault)
            | Self::Timeout(fault)
            | Self::NetworkError(fault)
            | Self::ConnectionLost(fault)
            | Self::ServerError(fault)
            | Self::InvalidArgument(fault) => fault,
        }
    }
}

impl From<Fault> for KvClientError {
    fn from(fault: Fault) -> Self {
        match (fault.kind(), fault.outcome()) {
            (ErrorKind::Closed, _) => Self::ChannelClosed(fault),
            (ErrorKind::Timeout, _) => Self::Timeout(fault),
            (ErrorKind::Unavailable, Outcome::NotApplied) => Self::NetworkError(fault),
            (ErrorKind::Unavailable, Outcome::Unknown) => Self::ConnectionLost(fault),
            (ErrorKind::InvalidInput, _) => Self::InvalidArgument(fault),
            _ => Self::ServerError(fault),
        }
    }
}

impl Classify for KvClientError {
    fn kind(&self) -> ErrorKind {
        self.fault().kind()
    }

    fn outcome(&self) -> Outcome {
        self.fault().outcome()
    }
}

/// A linearizable map from bytes to bytes whose entries may expire.
///
/// The shape is that of the client of d-engine, a Raft-replicated store: one interface for a server far away and
/// for an engine in the same process.
///
/// Not object-safe, since its methods are generic over what can be seen as bytes:
///
/// ```compile_fail,E0038
/// fn f(_: &dyn larder_traits::KvClient) {}
/// ```
///
/// A backend implements [`KvDriver`] instead and is a `KvClient` by that; `Box<dyn KvDriver>` is one too.
///
/// # Keys and values
///
/// Arbitrary bytes, NUL and 0xFF included. The empty key is a key like any other or `InvalidInput`, as
/// [`KvCaps::empty_key`](crate::KvCaps::empty_key) declares (KV-2). Above the declared bounds the answer is
/// `InvalidInput`, before any effect (C-4).
///
/// # Consistency
///
/// Calls on one key are linearizable through any mix of handles, also over changes of leader and partitions (KV-7).
///
/// # Durability
///
/// On `Ok` a write survives what [`Caps::durability`](crate::Caps::durability) names (KV-9).
///
/// # Cancel safety
///
/// A dropped future leaves the client usable; the dropped call's outcome is `Unknown`, and whether it may still land
/// after a later acknowledged call is declared in [`Caps::late_landing`](crate::Caps::late_landing) (C-6).
///
/// # Errors
///
/// All methods (KV-8): [`ChannelClosed`](KvClientError::ChannelClosed), promptly, after a shutdown;
/// [`Timeout`](KvClientError::Timeout) within the configured bound when the server is silent;
/// [`NetworkError`](KvClientError::NetworkError) when nothing was sent,
/// [`ConnectionLost`](KvClientError::ConnectionLost) when something was: a lost acknowledgement is never
/// `NotApplied`. [`InvalidArgument`](KvClientError::InvalidArgument) before anything is sent.
#[async_trait]
pub trait KvClient: Send + Sync {
    /// Stores `value` under `key` with no end, also where the entry before it had one (KV-1, KV-4).
    ///
    /// # Errors
    ///
    /// As the trait says.
    async fn put(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl AsRef<[u8]> + Send,
    ) -> Result<(), KvClientError>;

    /// Stores `value` under `key` for `ttl_secs` seconds, and lets go of any older time to live (KV-3, KV-4).
    ///
    /// The entry is alive before the time is over and gone, for every method and every handle, no later than the
    /// declared [granularity](crate::KvCaps::ttl_granularity) after it, swept or not. Reads do not refresh it. An
    /// end beyond what the medium can express is kept for ever or refused as `InvalidArgument`; it never overflows.
    ///
    /// # Errors
    ///
    /// As the trait says; and `InvalidArgument` for `ttl_secs` = 0, which some stores read as "for ever" and others
    /// as "at once" (KV-3).
    async fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl AsRef<[u8]> + Send,
        ttl_secs: u64,
    ) -> Result<(), KvClientError>;

    /// Returns the last acknowledged value, or `None` where the key is absent or expired. An empty value is `Some` of
    /// no bytes (KV-1).
    ///
    /// # Errors
    ///
    /// As the trait says; always `NotApplied`.
    async fn get(&self, key: impl AsRef<[u8]> + Send) -> Result<Option<Bytes>, KvClientError>;

    /// Returns the values of `keys` in their order, a key that stands there twice answered twice (KV-5).
    ///
    /// No keys give no values. Thousands of keys in one call are in order.
    ///
    /// # Consistency
    ///
    /// Each key is linearizable by itself; whether all are of one moment is declared in
    /// [`KvCaps::multi_snapshot`](crate::KvCaps::multi_snapshot).
    ///
    /// # Errors
    ///
    /// As the trait says; always `NotApplied`.
    async fn get_multi(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError>;

    /// Removes `key`, and that key alone; `Ok` also where it is absent (KV-6).
    ///
    /// # Errors
    ///
    /// As the trait says.
    async fn delete(&self, key: impl AsRef<[u8]> + Send) -> Result<(), KvClientError>;
}

/// What a key-value backend implements: [`KvClient`] in bytes, and object-safe.
///
/// Each method keeps the clauses of the `KvClient` method it stands under. The names differ from those above so that
/// a type in scope of both traits has no ambiguous calls.
#[async_trait]
pub trait KvDriver: Debug + Send + Sync {
    /// Stores `value` under `key`, for `ttl_secs` seconds or for ever (KV-1, KV-3, KV-4).
    ///
    /// `Some(0)` does not arrive here through [`KvClient`]; a driver refuses it all the same.
    ///
    /// # Errors
    ///
    /// As [`KvClient::put_with_ttl`].
    async fn write(
        &self,
        key: &[u8],
        value: &[u8],
        ttl_secs: Option<u64>,
    ) -> Result<(), KvClientError>;

    /// Returns the live value of `key` (KV-1).
    ///
    /// # Errors
    ///
    /// As [`KvClient::get`].
    async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError>;

    /// Returns the live values of `keys`, in order, one for each (KV-5).
    ///
    /// # Errors
    ///
    /// As [`KvClient::get_multi`].
    async fn read_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError>;

    /// Removes `key` (KV-6).
    ///
    /// # Errors
    ///
    /// As [`KvClient::delete`].
    async fn remove(&self, key: &[u8]) -> Result<(), KvClientError>;
}

/// The refusal of a time to live of zero (KV-3), for drivers and for direct implementors of [`KvClient`].
#[must_use]
pub fn zero_ttl() -> KvClientError {
    Fault::not_applied(ErrorKind::InvalidInput, "a time to live of 0 s").into()
}

#[async_trait]
impl<D: KvDriver + ?Sized> KvClient for D {
    async fn put(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl AsRef<[u8]> + Send,
    ) -> Result<(), KvClientError> {
        self.write(key.as_ref(), value.as_ref(), None).await
    }

    async fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl AsRef<[u8]> + Send,
        ttl_secs: u64,
    ) -> Result<(), KvClientError> {
        if ttl_secs == 0 {
            return Err(zero_ttl());
        }
        self.write(key.as_ref(), value.as_ref(), Some(ttl_secs))
            .await
    }

    async fn get(&self, key: impl AsRef<[u8]> + Send) -> Result<Option<Bytes>, KvClientError> {
        self.read(key.as_ref()).await
    }

    async fn get_multi(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
        self.read_many(keys).await
    }

    async fn delete(&self, key: impl AsRef<[u8]> + Send) -> Result<(), KvClientError> {
        self.remove(key.as_ref()).await
    }
}

macro_rules! forward {
    ($($pointer:ty),+) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<D: KvDriver + ?Sized> KvDriver for $pointer {
            async fn write(&self, key: &[u8], value: &[u8], ttl_secs: Option<u64>) -> Result<(), KvClientError> {
                (**self).write(key, value, ttl_secs).await
            }
            async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError> {
                (**self).read(key).await
            }
            async fn read_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
                (**self).read_many(keys).await
            }
            async fn remove(&self, key: &[u8]) -> Result<(), KvClientError> {
                (**self).remove(key).await
            }
        }
    )+};
}

forward!(Box<D>, Arc<D>, &D);
