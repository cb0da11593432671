//! `KvClient` on plain files. It knows no time: what has a time to live stays for good.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use larder_conformance::{BoxError, Caps, Suite, kv_client};
use larder_traits::{KvClientError, KvDriver};

use super::{Files, Flaw, World, failed};

#[derive(Debug)]
pub(crate) struct Store(Arc<Files>);

#[async_trait]
impl KvDriver for Store {
    async fn write(
        &self,
        key: &[u8],
        value: &[u8],
        _ttl_secs: Option<u64>,
    ) -> Result<(), KvClientError> {
        Ok(self.0.put(key, value).map_err(failed)?)
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError> {
        Ok(self.0.get(key).map_err(failed)?.map(Bytes::from))
    }

    async fn read_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
        let mut values = Vec::new();
        for key in keys {
            values.push(self.read(key).await?);
        }
        Ok(values)
    }

    async fn remove(&self, key: &[u8]) -> Result<(), KvClientError> {
        Ok(self.0.delete(key).map_err(failed)?)
    }
}

impl kv_client::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        Ok(Store(self.place(place)?))
    }
}

pub(crate) fn suite(caps: Caps, flaw: Flaw) -> Suite {
    kv_client::suite_with(move |env| async move { World::new(&env, caps, flaw) })
}
