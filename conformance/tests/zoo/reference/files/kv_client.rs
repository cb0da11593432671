//! `KvClient` on plain files: each value with the moment of its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use larder_conformance::{BoxError, Caps, Env, Fixture, Suite, kv_client};
use larder_traits::{
    Clock, ErrorKind, Fault, KvCaps, KvClientError, KvDriver, SystemClock, TtlRestart,
};
use tempfile::TempDir;

use super::super::lock;
use super::{Files, Flaw, failed};

/// What is wrong with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KvFlaw {
    /// That of the files, if any.
    Files(Flaw),
    /// A time to live begins anew with the process, although it is declared to run on.
    TtlRestarts,
    /// A time to live is known to the process only.
    TtlInMemory,
}

#[derive(Debug)]
pub(crate) struct Store {
    files: Arc<Files>,
    flaw: KvFlaw,
}

/// No time to live.
const FOR_EVER: u64 = u64::MAX;

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(FOR_EVER)
}

impl Store {
    /// When the value that was written then is dead.
    fn deadline(&self, key: &[u8], written: u64, ttl: u64) -> u64 {
        match self.flaw {
            KvFlaw::TtlRestarts => written.max(millis(self.files.opened)).saturating_add(ttl),
            KvFlaw::TtlInMemory => {
                let known = lock(&self.files.deadlines).get(key).copied();
                known.unwrap_or(FOR_EVER)
            }
            KvFlaw::Files(_) => written.saturating_add(ttl),
        }
    }
}

#[async_trait]
impl KvDriver for Store {
    async fn write(
        &self,
        key: &[u8],
        value: &[u8],
        ttl_secs: Option<u64>,
    ) -> Result<(), KvClientError> {
        if ttl_secs == Some(0) {
            let why = "a time to live of 0";
            return Err(Fault::not_applied(ErrorKind::InvalidInput, why).into());
        }
        let written = millis(SystemClock::default().now());
        let ttl = ttl_secs.map_or(FOR_EVER, |secs| secs.saturating_mul(1_000));
        let deadline = written.saturating_add(ttl);
        lock(&self.files.deadlines).insert(key.to_vec(), deadline);
        let bytes = [&written.to_le_bytes()[..], &ttl.to_le_bytes(), value].concat();
        Ok(self.files.put(key, &bytes).map_err(failed)?)
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError> {
        let Some(bytes) = self.files.get(key).map_err(failed)? else {
            return Ok(None);
        };
        let damaged = || Fault::not_applied(ErrorKind::Corrupt, "a damaged value");
        let (written, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (ttl, value) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (written, ttl) = (u64::from_le_bytes(*written), u64::from_le_bytes(*ttl));
        let is_alive = millis(SystemClock::default().now()) < self.deadline(key, written, ttl);
        Ok(is_alive.then(|| Bytes::copy_from_slice(value)))
    }

    async fn read_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
        let mut values = Vec::new();
        for key in keys {
            values.push(self.read(key).await?);
        }
        Ok(values)
    }

    async fn remove(&self, key: &[u8]) -> Result<(), KvClientError> {
        Ok(self.files.delete(key).map_err(failed)?)
    }
}

struct World {
    folder: TempDir,
    caps: Caps,
    flaw: KvFlaw,
}

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self {
            folder: env.tempdir()?,
            caps: super::CAPS,
            flaw: KvFlaw::Files(Flaw::None),
        })
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl kv_client::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        let folder: PathBuf = self.folder.path().canonicalize()?;
        let flaw = match self.flaw {
            KvFlaw::Files(flaw) => flaw,
            _ => Flaw::None,
        };
        Ok(Store {
            files: Files::open(folder.join(place.replace('/', "~")), flaw)?,
            flaw: self.flaw,
        })
    }
}

pub(crate) fn suite(caps: Caps, flaw: KvFlaw) -> Suite {
    let declared = KvCaps::LEAST.with_ttl_restart(TtlRestart::Deadline);
    let caps = caps.with_kv_client(declared);
    kv_client::suite_with(move |env| async move {
        let folder = env.tempdir()?;
        Ok(World { folder, caps, flaw })
    })
}
