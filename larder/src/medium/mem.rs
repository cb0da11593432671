//! `mem:` and `mem:name`.

use std::sync::Arc;

use async_trait::async_trait;
use larder_mem::{MemConfig, MemPlace};
use larder_traits::{
    Backend, BlobMulti, BlobStore, Caps, ChangeLog, Clock, Contract, HighVolumeBackend, KvDriver,
    StashDriver,
};

use super::{Medium, Opened};
use crate::keys::Keys;
use crate::open_error::OpenError;

#[derive(Clone, Debug)]
struct Mem {
    name: Option<String>,
    /// The bounds; the name stands above.
    config: MemConfig,
}

pub(super) fn configure(path: &str, mut keys: Keys) -> Result<Arc<dyn Medium>, OpenError> {
    let mut config = MemConfig::private();
    config = keys.set(
        "blob_value_len_bytes_max",
        config,
        MemConfig::with_blob_value_len_bytes_max,
    )?;
    config = keys.set(
        "stash_name_len_bytes_max",
        config,
        MemConfig::with_stash_name_len_bytes_max,
    )?;
    config = keys.set(
        "stash_row_len_bytes_max",
        config,
        MemConfig::with_stash_row_len_bytes_max,
    )?;
    config = keys.set(
        "stash_batch_rows_max",
        config,
        MemConfig::with_stash_batch_rows_max,
    )?;
    config = keys.set(
        "payload_len_bytes_max",
        config,
        MemConfig::with_payload_len_bytes_max,
    )?;
    config = keys.set("id_len_bytes_max", config, MemConfig::with_id_len_bytes_max)?;
    config = keys.set(
        "kv_key_len_bytes_max",
        config,
        MemConfig::with_kv_key_len_bytes_max,
    )?;
    config = keys.set(
        "kv_value_len_bytes_max",
        config,
        MemConfig::with_kv_value_len_bytes_max,
    )?;
    keys.finish()?;
    let name = (!path.is_empty()).then(|| path.to_owned());
    Ok(Arc::new(Mem { name, config }))
}

#[async_trait]
impl Medium for Mem {
    fn scheme(&self) -> &'static str {
        "mem"
    }

    /// A private place cannot be opened twice, and a child must be: it has a name in any case.
    fn child(&self, name: &str) -> Arc<dyn Medium> {
        let parent = self.name.as_deref().unwrap_or_default();
        Arc::new(Self {
            name: Some(format!("{parent}//{name}")),
            config: self.config.clone(),
        })
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Box<dyn Opened>, OpenError> {
        let mut config = self.config.clone().with_clock(clock);
        if let Some(name) = &self.name {
            config = config.with_name(name);
        }
        Ok(Box::new(MemPlace::open(config)))
    }
}

#[async_trait]
impl Opened for MemPlace {
    fn scheme(&self) -> &'static str {
        "mem"
    }

    fn caps(&self) -> Caps {
        Self::caps(self)
    }

    fn offers(&self) -> &'static [Contract] {
        &Contract::ALL
    }

    async fn blob_multi(&self) -> Result<Arc<dyn BlobMulti>, OpenError> {
        Ok(Arc::new(Self::blob_multi(self)))
    }

    async fn stash(&self) -> Result<Arc<dyn StashDriver>, OpenError> {
        Ok(Arc::new(Self::stash(self)))
    }

    async fn blob_store(&self) -> Result<Arc<dyn BlobStore>, OpenError> {
        Ok(Arc::new(Self::blob_store(self)))
    }

    async fn backend(&self) -> Result<Arc<dyn Backend>, OpenError> {
        Ok(Arc::new(Self::high_volume(self)))
    }

    async fn high_volume(&self) -> Result<Arc<dyn HighVolumeBackend>, OpenError> {
        Ok(Arc::new(Self::high_volume(self)))
    }

    async fn kv_client(&self) -> Result<Arc<dyn KvDriver>, OpenError> {
        Ok(Arc::new(Self::kv_client(self)))
    }

    async fn change_log(&self) -> Result<Arc<dyn ChangeLog>, OpenError> {
        Ok(Arc::new(Self::change_log(self)))
    }
}
