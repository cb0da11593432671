//! The suite on memory.

use std::sync::Arc;

use larder_conformance::{
    BoxError, Caps, Env, Fixture, backend, blob_multi, blob_store, high_volume, kv_client, stash,
};
use larder_mem::{
    MemBlobMulti, MemBlobStore, MemConfig, MemHighVolume, MemKvClient, MemPlace, MemStash,
};
use larder_traits::{TestClock, stash::StashDriver};

struct World {
    prefix: String,
    clock: Arc<TestClock>,
    /// A place is gone with its last handle.
    held: std::sync::Mutex<Vec<MemPlace>>,
}

impl World {
    fn place(&self, place: &str) -> Result<MemPlace, BoxError> {
        let config = MemConfig::named(format!("{}//{place}", self.prefix));
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
        larder_mem::CAPS
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(Arc::clone(&self.clock))
    }

    async fn settle(&self) {}
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
    kv_client: MemKvClient = kv_client
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
);
