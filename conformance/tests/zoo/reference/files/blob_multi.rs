//! `BlobMulti` on plain files.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use larder_conformance::{BoxError, Caps, Suite, blob_multi};
use larder_traits::{Atomicity, BlobMulti, BlobMultiCaps, ExternalError};

use super::super::blob_multi::{invalid, too_late};
use super::{Files, Flaw, World, failed};

#[derive(Debug)]
pub(crate) struct Store(Arc<Files>);

const KEY_LEN_BYTES_MAX: usize = 1_024;
const VALUE_LEN_BYTES_MAX: usize = 1 << 20;

fn in_time(deadline: Instant) -> Result<(), ExternalError> {
    if Instant::now() > deadline {
        return Err(too_late());
    }
    Ok(())
}

fn admit(deadline: Instant, key: &str) -> Result<(), ExternalError> {
    in_time(deadline)?;
    if key.is_empty() || key.len() > KEY_LEN_BYTES_MAX {
        return Err(invalid("the length of the key"));
    }
    Ok(())
}

#[async_trait]
impl BlobMulti for Store {
    async fn get(&self, deadline: Instant, key: &str) -> Result<Option<Vec<u8>>, ExternalError> {
        admit(deadline, key)?;
        Ok(self.0.get(key.as_bytes()).map_err(failed)?)
    }

    async fn list_keys(&self, deadline: Instant) -> Result<Vec<String>, ExternalError> {
        in_time(deadline)?;
        let keys = self.0.keys().map_err(failed)?;
        let text = |key: Vec<u8>| String::from_utf8_lossy(&key).into_owned();
        Ok(keys.into_iter().map(text).collect())
    }

    async fn set(
        &self,
        deadline: Instant,
        key: &str,
        value: Bytes,
        atomic: Atomicity,
    ) -> Result<(), ExternalError> {
        admit(deadline, key)?;
        if value.len() > VALUE_LEN_BYTES_MAX {
            return Err(invalid("the length of the value"));
        }
        let key = key.as_bytes();
        let set = match atomic {
            Atomicity::AllowNonAtomic => self.0.put_carelessly(key, &value),
            Atomicity::RequireAtomic => self.0.put(key, &value),
        };
        Ok(set.map_err(failed)?)
    }

    async fn delete(&self, deadline: Instant, key: &str) -> Result<(), ExternalError> {
        admit(deadline, key)?;
        Ok(self.0.delete(key.as_bytes()).map_err(failed)?)
    }
}

impl blob_multi::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        Ok(Store(self.place(place)?))
    }
}

pub(crate) fn suite(caps: Caps, flaw: Flaw) -> Suite {
    let caps = caps.with_blob_multi(
        BlobMultiCaps::LEAST
            .with_key_len_bytes_max(KEY_LEN_BYTES_MAX)
            .with_value_len_bytes_max(1 << 20),
    );
    blob_multi::suite_with(move |env| async move { World::new(&env, caps, flaw) })
}
