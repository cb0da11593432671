//! A store named by a URL, as the suite wants it: worlds of its own below the place that the user named.

use std::collections::HashMap;
use std::future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder::{
    Backend, BlobMulti, BlobStore, Caps, ChangeLog, Clock, ClockSource, Contract, Durability,
    HighVolumeBackend, KvDriver, Location, OpenError, OpenOptions, StashDriver, Store, TestClock,
};
use larder_conformance::{
    BoxError, Env, Fixture, Suite, backend, blob_multi, blob_store, change_log, high_volume,
    kv_client, stash,
};

use crate::places::Places;

/// One world: everything in it lies below a random name.
pub(crate) struct UrlWorld {
    clock: Arc<TestClock>,
    caps: Caps,
    /// Places that would be gone with their last handle are held until the check has ended.
    held: Mutex<HashMap<String, Store>>,
    /// Every place that was opened. They are removed when the check has ended, after what is held of them.
    places: Places,
}

impl UrlWorld {
    /// A world below `location`, whose stores declare `caps`. Nothing is opened yet.
    pub(crate) fn make(location: &Location, caps: Caps, env: &Env) -> Self {
        Self {
            clock: Arc::new(TestClock::new()),
            caps,
            held: Mutex::default(),
            places: Places::of(location, &env.prefix),
        }
    }

    async fn store(&self, place: &str) -> Result<Store, OpenError> {
        let location = self.places.note(place);
        if self.caps.durability == Durability::None {
            let holder = open(&location, &self.clock).await?;
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.entry(place.to_owned()).or_insert(holder);
        }
        open(&location, &self.clock).await
    }
}

async fn open(location: &Location, clock: &Arc<TestClock>) -> Result<Store, OpenError> {
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    location.open(&OpenOptions::new().with_clock(clock)).await
}

impl Fixture for UrlWorld {
    async fn new(_env: &Env) -> Result<Self, BoxError> {
        Err("a world of a URL is made from its location".into())
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    async fn settle(&self) {
        // A map behind a lock does nothing behind the caller's back, so there is nothing to wait for.
        if self.places.scheme() != "mem" {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        (self.caps.clock == ClockSource::Injected).then(|| Arc::clone(&self.clock))
    }
}

macro_rules! opens {
    ($($contract:ident: $object:ty),+ $(,)?) => {$(
        impl $contract::Open for UrlWorld {
            type Store = Arc<$object>;

            async fn open(&self, place: &str) -> Result<Self::Store, BoxError> {
                Ok(self.store(place).await?.$contract().await?)
            }
        }
    )+};
}

opens! {
    blob_multi: dyn BlobMulti,
    blob_store: dyn BlobStore,
    backend: dyn Backend,
    high_volume: dyn HighVolumeBackend,
    kv_client: dyn KvDriver,
    change_log: dyn ChangeLog,
}

impl stash::Open for UrlWorld {
    type Store = Arc<dyn StashDriver>;

    async fn open(&self, place: &str) -> Result<Self::Store, BoxError> {
        Ok(self.store(place).await?.stash().await?)
    }

    async fn driver(&self, place: &str) -> Result<Option<Arc<dyn StashDriver>>, BoxError> {
        Ok(Some(self.store(place).await?.stash().await?))
    }
}

/// The checks of `contract` on the store at `location`, which declares `caps` for it.
pub(crate) fn suite(location: &Location, contract: Contract, caps: Caps) -> Option<Suite> {
    let location = location.clone();
    let make = move |env: Env| future::ready(Ok(UrlWorld::make(&location, caps, &env)));
    Some(match contract {
        Contract::BlobMulti => blob_multi::suite_with(make),
        Contract::Stash => stash::suite_with(make),
        Contract::BlobStore => blob_store::suite_with(make),
        Contract::HighVolume => high_volume::suite_with(make),
        Contract::Backend => backend::suite_with(make),
        Contract::KvClient => kv_client::suite_with(make),
        Contract::ChangeLog => change_log::suite_with(make),
        // A contract that this program does not know yet.
        _ => return None,
    })
}
