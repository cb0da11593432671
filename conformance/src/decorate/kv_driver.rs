//! [`KvDriver`] that misbehaves, and a [`KvClient`](larder_traits::KvClient) by that. Keys are listed with their bytes
//! escaped.

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::{KvClientError, KvDriver};

use super::Faulty;
use super::call::What;
use super::switch::Effect::{Read, Write};

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: KvDriver + 'static> KvDriver for Faulty<S> {
    async fn write(
        &self,
        key: &[u8],
        value: &[u8],
        ttl_secs: Option<u64>,
    ) -> Result<(), KvClientError> {
        let what = What::new("write", Write, key.escape_ascii());
        let (key, value) = (key.to_vec(), value.to_vec());
        self.call(what, move |inner, _| async move {
            inner.write(&key, &value, ttl_secs).await
        })
        .await
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError> {
        let what = What::new("read", Read, key.escape_ascii());
        let key = key.to_vec();
        self.call(what, move |inner, _| async move { inner.read(&key).await })
            .await
    }

    async fn read_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
        let listed: Vec<String> = keys.iter().map(|k| k.escape_ascii().to_string()).collect();
        let what = What::new("read_many", Read, listed.join(", "));
        let keys = keys.to_vec();
        self.call(
            what,
            move |inner, _| async move { inner.read_many(&keys).await },
        )
        .await
    }

    async fn remove(&self, key: &[u8]) -> Result<(), KvClientError> {
        let what = What::new("remove", Write, key.escape_ascii());
        let key = key.to_vec();
        self.call(
            what,
            move |inner, _| async move { inner.remove(&key).await },
        )
        .await
    }
}
