//! The suite on memory.

use std::future::ready;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::{
    BoxError, Caps, Env, Fixture, Probe, backend, blob_multi, blob_store, change_log, high_volume,
    kv_client, stash,
};
use larder_mem::{
    MemBlobMulti, MemBlobStore, MemChangeLog, MemConfig, MemHighVolume, MemKvClient, MemPlace,
    MemStash,
};
use larder_traits::{TestClock, stash::StashDriver};

struct World {
    prefix: String,
    clock: Arc<TestClock>,
    /// A place is gone with its last handle.
    held: std::sync::Mutex<Vec<MemPlace>>,
}

/// A place of the world with that prefix, with bounds small enough for the quick profile to write more than them; each of
/// them another than by default, so that one which is not kept is noticed.
fn named(prefix: &str, place: &str) -> MemConfig {
    MemConfig::named(format!("{prefix}//{place}"))
        .with_blob_value_len_bytes_max(4 << 20)
        .with_stash_name_len_bytes_max(500)
        .with_stash_row_len_bytes_max(200 << 10)
        .with_stash_batch_rows_max(20_000)
        .with_id_len_bytes_max(1_500)
        .with_kv_key_len_bytes_max(9_000)
        .with_kv_value_len_bytes_max(1 << 20)
        .with_payload_len_bytes_max(1 << 20)
}

/// What a place holds, dead or alive.
struct Rows(String);

impl Probe for Rows {
    fn rows(&self, place: &str) -> BoxFuture<'_, Result<u64, BoxError>> {
        let held = MemPlace::open(named(&self.0, place)).held();
        // A check asks of one contract, so the others have nothing there.
        let values = held.blobs + held.frames + held.stash_rows + held.kv_entries;
        let count = u64::try_from(values + held.rows + held.changes);
        ready(count.map_err(BoxError::from)).boxed()
    }
}

impl World {
    fn place(&self, place: &str) -> Result<MemPlace, BoxError> {
        let config = named(&self.prefix, place);
        let place = MemPlace::open(config.with_clock(Arc::<TestClock>::clone(&self.clock)));
        let mut held = self.held.lock().map_err(|e| e.to_string())?;
        held.push(place.clone());
        Ok(place)
    }
}

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self {
            prefix: env.prefix.clone(),
            clock: Arc::default(),
            held: std::sync::Mutex::default(),
        })
    }

    fn caps(&self) -> Caps {
        named(&self.prefix, "any").caps()
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(Arc::clone(&self.clock))
    }

    async fn settle(&self) {}

    fn probe(&self) -> Option<Arc<dyn Probe>> {
        Some(Arc::new(Rows(self.prefix.clone())))
    }
}

macro_rules! opens {
    ($($contract:ident: $store:ty = $open:ident),+) => {$(
        impl $contract::Open for World {
            type Store = $store;
            async fn open(&self, place: &str) -> Result<$store, BoxError> {
                Ok(self.place(place)?.$open())
            }
        }
    )+};
}

opens!(
    blob_multi: MemBlobMulti = blob_multi,
    blob_store: MemBlobStore = blob_store,
    backend: MemHighVolume = high_volume,
    high_volume: MemHighVolume = high_volume,
    kv_client: MemKvClient = kv_client,
    change_log: MemChangeLog = change_log
);

impl stash::Open for World {
    type Store = MemStash;

    async fn open(&self, place: &str) -> Result<MemStash, BoxError> {
        Ok(self.place(place)?.stash())
    }

    async fn driver(&self, place: &str) -> Result<Option<Arc<dyn StashDriver>>, BoxError> {
        Ok(Some(Arc::new(self.place(place)?.stash())))
    }
}

larder_conformance::main!(
    blob_multi: World,
    stash: World,
    blob_store: World,
    backend: World,
    high_volume: World,
    kv_client: World,
    change_log: World,
);
