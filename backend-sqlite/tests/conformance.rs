//! The suite on a file.

mod failing_vfs;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use failing_vfs::{NoSpace, Switch};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::{
    BoxError, Caps, Env, Faults, Fixture, Probe, backend, change_log, high_volume, kv_client, stash,
};
use larder_sqlite::{
    SqliteChangeLog, SqliteConfig, SqliteHighVolume, SqliteKvClient, SqlitePlace, SqliteStash,
};
use larder_traits::{TestClock, stash::StashDriver};
use tempfile::TempDir;

/// A folder, in which a place is a file.
struct World {
    folder: Arc<TempDir>,
    clock: Arc<TestClock>,
    opened: Mutex<Vec<SqlitePlace>>,
    switch: Arc<Switch>,
}

fn config(folder: &TempDir, place: &str) -> SqliteConfig {
    let config = SqliteConfig::new(folder.path().join(place.replace('/', "~") + ".db"));
    // Small enough for the quick profile to write one that is too large, and to have more calls than there is room for
    // without waiting for the disk thousands of times.
    config
        .with_in_flight_max(const { NonZeroUsize::new(64).expect("it is not zero") })
        .with_kv_value_len_bytes_max(1 << 20)
        .with_payload_len_bytes_max(1 << 20)
}

/// So many of the places that were opened last are waited for in any case.
const KEPT: usize = 64;

impl World {
    async fn place(&self, place: &str, exclusive: bool) -> Result<SqlitePlace, BoxError> {
        let config = config(&self.folder, place).with_exclusive(exclusive);
        let config = config.with_clock(Arc::<TestClock>::clone(&self.clock));
        let place = SqlitePlace::open(config).await?;
        let mut opened = self.opened.lock().map_err(|e| e.to_string())?;
        // Failure: at the standard profile C-1.4 and C-6.5 ended in their watchdogs, with thousands of threads. Cause:
        // all places that a check had ever opened were kept open for `settle`. Fix: of those of long ago only the ones
        // that it would wait for.
        let mut later = opened.len();
        opened.retain(|place| {
            later -= 1;
            later < KEPT || place.settled().now_or_never().is_none()
        });
        opened.push(place.clone());
        Ok(place)
    }
}

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        let folder = env.tempdir()?;
        Ok(Self {
            switch: Switch::of(folder.path()),
            folder: Arc::new(folder),
            clock: Arc::default(),
            opened: Mutex::default(),
        })
    }

    fn caps(&self) -> Caps {
        config(&self.folder, "any").caps()
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(Arc::clone(&self.clock))
    }

    async fn settle(&self) {
        let opened = self.opened.lock().expect("nothing panics with it").clone();
        for place in opened {
            place.settled().await;
        }
    }

    fn probe(&self) -> Option<Arc<dyn Probe>> {
        Some(Arc::new(Rows(Arc::clone(&self.folder))))
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::<Switch>::clone(&self.switch))
    }
}

/// What lies in the file of a place, dead or alive.
struct Rows(Arc<TempDir>);

impl Probe for Rows {
    fn rows(&self, place: &str) -> BoxFuture<'_, Result<u64, BoxError>> {
        let config = config(&self.0, place);
        async move {
            let held = SqlitePlace::open(config).await?.held().await?;
            Ok(held.stash_rows + held.kv_entries + held.rows + held.payloads + held.changes)
        }
        .boxed()
    }
}

macro_rules! opens {
    ($($contract:ident: $store:ty = $open:ident),+) => {$(
        impl $contract::Open for World {
            type Store = $store;
            async fn open(&self, place: &str) -> Result<$store, BoxError> {
                Ok(self.place(place, false).await?.$open())
            }
        }
    )+};
}

opens!(
    backend: SqliteHighVolume = high_volume,
    high_volume: SqliteHighVolume = high_volume,
    change_log: SqliteChangeLog = change_log
);

impl kv_client::Open for World {
    type Store = SqliteKvClient;

    async fn open(&self, place: &str) -> Result<SqliteKvClient, BoxError> {
        Ok(self.place(place, false).await?.kv_client())
    }

    async fn shutdown(&self, store: &SqliteKvClient) -> Result<bool, BoxError> {
        store.place().close().await;
        Ok(true)
    }
}

impl stash::Open for World {
    type Store = SqliteStash;

    async fn open(&self, place: &str) -> Result<SqliteStash, BoxError> {
        Ok(self.place(place, false).await?.stash())
    }

    async fn driver(&self, place: &str) -> Result<Option<Arc<dyn StashDriver>>, BoxError> {
        Ok(Some(Arc::new(self.place(place, false).await?.stash())))
    }

    async fn open_exclusive(&self, place: &str) -> Result<Option<SqliteStash>, BoxError> {
        Ok(Some(self.place(place, true).await?.stash()))
    }

    fn no_space(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::new(NoSpace(Arc::clone(&self.switch))))
    }
}

larder_conformance::main!(
    stash: World,
    backend: World,
    high_volume: World,
    kv_client: World,
    change_log: World,
);
