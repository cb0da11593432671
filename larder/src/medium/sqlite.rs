//! `sqlite:///path` and `sqlite:path`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use larder_sqlite::{SqliteConfig, SqlitePlace};
use larder_traits::{
    Backend, Caps, ChangeLog, Clock, Contract, HighVolumeBackend, KvDriver, StashDriver,
};

use super::{Medium, Opened, child_path, local};
use crate::keys::Keys;
use crate::open_error::OpenError;

#[derive(Clone, Debug)]
struct Sqlite {
    path: PathBuf,
    /// All settings but the path, which stands above.
    config: SqliteConfig,
}

pub(super) fn configure(path: &str, mut keys: Keys) -> Result<Arc<dyn Medium>, OpenError> {
    let why = "a file is sqlite:///path, or sqlite:path below the working folder";
    let file = local("sqlite", path, why)?;
    let mut config = SqliteConfig::new(file);
    config = keys.set("wait_ms", config, |config, milliseconds| {
        config.with_wait(Duration::from_millis(milliseconds))
    })?;
    config = keys.set("readers_max", config, SqliteConfig::with_readers_max)?;
    config = keys.set("in_flight_max", config, SqliteConfig::with_in_flight_max)?;
    config = keys.set("exclusive", config, SqliteConfig::with_exclusive)?;
    config = keys.set(
        "stash_name_len_bytes_max",
        config,
        SqliteConfig::with_stash_name_len_bytes_max,
    )?;
    config = keys.set(
        "stash_row_len_bytes_max",
        config,
        SqliteConfig::with_stash_row_len_bytes_max,
    )?;
    config = keys.set(
        "stash_batch_rows_max",
        config,
        SqliteConfig::with_stash_batch_rows_max,
    )?;
    config = keys.set(
        "payload_len_bytes_max",
        config,
        SqliteConfig::with_payload_len_bytes_max,
    )?;
    config = keys.set(
        "id_len_bytes_max",
        config,
        SqliteConfig::with_id_len_bytes_max,
    )?;
    config = keys.set(
        "kv_key_len_bytes_max",
        config,
        SqliteConfig::with_kv_key_len_bytes_max,
    )?;
    config = keys.set(
        "kv_value_len_bytes_max",
        config,
        SqliteConfig::with_kv_value_len_bytes_max,
    )?;
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

    fn child(&self, name: &str) -> Arc<dyn Medium> {
        Arc::new(Self {
            path: child_path(&self.path, name),
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
            Contract::ChangeLog,
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
