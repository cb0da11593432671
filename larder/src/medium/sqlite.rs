//! `sqlite:///path` and `sqlite:path`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use larder_sqlite::{SqliteConfig, SqlitePlace};
use larder_traits::{
    Backend, Caps, ChangeLog, Clock, Contract, HighVolumeBackend, KvDriver, StashDriver,
};

use super::{Medium, Opened};
use crate::keys::Keys;
use crate::open_error::OpenError;

#[derive(Clone, Debug)]
struct Sqlite {
    path: PathBuf,
    /// All settings but the path, which stands above.
    config: SqliteConfig,
}

pub(super) fn configure(path: &str, mut keys: Keys) -> Result<Arc<dyn Medium>, OpenError> {
    let file = match path.strip_prefix("//") {
        Some(local) if local.starts_with('/') => local,
        None if !path.is_empty() => path,
        _ => {
            return Err(OpenError::Malformed {
                url: format!("sqlite:{path}"),
                why: "a file is sqlite:///path, or sqlite:path below the working folder",
            });
        }
    };
    let mut config = SqliteConfig::new(file);
    if let Some(milliseconds) = keys.take("wait_ms")? {
        config = config.with_wait(Duration::from_millis(milliseconds));
    }
    if let Some(max) = keys.take::<NonZeroUsize>("readers_max")? {
        config = config.with_readers_max(max);
    }
    if let Some(max) = keys.take::<NonZeroUsize>("in_flight_max")? {
        config = config.with_in_flight_max(max);
    }
    if let Some(exclusive) = keys.take("exclusive")? {
        config = config.with_exclusive(exclusive);
    }
    if let Some(max) = keys.take("stash_name_len_bytes_max")? {
        config = config.with_stash_name_len_bytes_max(max);
    }
    if let Some(max) = keys.take("stash_row_len_bytes_max")? {
        config = config.with_stash_row_len_bytes_max(max);
    }
    if let Some(max) = keys.take("stash_batch_rows_max")? {
        config = config.with_stash_batch_rows_max(max);
    }
    if let Some(max) = keys.take("payload_len_bytes_max")? {
        config = config.with_payload_len_bytes_max(max);
    }
    if let Some(max) = keys.take("id_len_bytes_max")? {
        config = config.with_id_len_bytes_max(max);
    }
    if let Some(max) = keys.take("kv_key_len_bytes_max")? {
        config = config.with_kv_key_len_bytes_max(max);
    }
    if let Some(max) = keys.take("kv_value_len_bytes_max")? {
        config = config.with_kv_value_len_bytes_max(max);
    }
    keys.finish()?;
    let path = file.into();
    Ok(Arc::new(Sqlite { path, config }))
}

/// The path with `suffix` at the end of its file's name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[async_trait]
impl Medium for Sqlite {
    fn scheme(&self) -> &'static str {
        "sqlite"
    }

    /// A file beside this one. Slashes of a name are written otherwise than the step to a child.
    fn child(&self, name: &str) -> Arc<dyn Medium> {
        Arc::new(Self {
            path: beside(&self.path, &format!("~{}", name.replace('/', "+"))),
            config: self.config.clone(),
        })
    }

    fn erase(&self) -> io::Result<()> {
        // The log and its index go first: without them the file is a whole, older one.
        for suffix in ["-wal", "-shm", ""] {
            match fs::remove_file(beside(&self.path, suffix)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Box<dyn Opened>, OpenError> {
        let config = self.config.clone().with_path(&self.path).with_clock(clock);
        Ok(Box::new(SqlitePlace::open(config).await?))
    }
}

#[async_trait]
impl Opened for SqlitePlace {
    fn scheme(&self) -> &'static str {
        "sqlite"
    }

    fn caps(&self) -> Caps {
        Self::caps(self)
    }

    fn offers(&self) -> &'static [Contract] {
        &[
            Contract::Stash,
            Contract::HighVolume,
            Contract::Backend,
            Contract::KvClient,
        ]
    }

    async fn stash(&self) -> Result<Arc<dyn StashDriver>, OpenError> {
        Ok(Arc::new(Self::stash(self)))
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
