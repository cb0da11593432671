//! Worlds that give the suite stores and nothing else, as an author's are on the first day: no check may need more
//! than it says that it needs.

use larder_conformance::{
    BoxError, Caps, Contract, Env, Fixture, backend, blob_multi, blob_store, change_log,
    high_volume, kv_client, stash,
};
use larder_traits::{Clock as _, SystemClock};

use super::{Benign, benign};
use crate::reference;

/// A world without its powers.
struct Bare<W>(W);

impl<W: Fixture> Fixture for Bare<W> {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        let world = W::new(env).await?;
        if let Some(clock) = world.clock() {
            // Nobody moves it any more, so it is that of the system.
            clock.set(SystemClock::default().now());
            reference::let_run(&clock);
        }
        Ok(Self(world))
    }

    fn caps(&self) -> Caps {
        self.0.caps()
    }
}

macro_rules! opens {
    ($($contract:ident),+) => {$(
        impl<W: $contract::Open> $contract::Open for Bare<W> {
            type Store = W::Store;

            async fn open(&self, place: &str) -> Result<W::Store, BoxError> {
                self.0.open(place).await
            }
        }
    )+};
}

opens!(
    backend,
    blob_multi,
    blob_store,
    change_log,
    high_volume,
    kv_client,
    stash
);

pub(super) fn all() -> Vec<Benign> {
    const ID: &str = "without-powers";
    vec![
        benign(ID, Contract::BlobMulti, || {
            blob_multi::suite::<Bare<reference::blob_multi::World>>()
        }),
        benign(ID, Contract::Stash, || {
            stash::suite::<Bare<reference::stash::World>>()
        }),
        benign(ID, Contract::BlobStore, || {
            blob_store::suite::<Bare<reference::blob_store::World>>()
        }),
        benign(ID, Contract::HighVolume, || {
            high_volume::suite::<Bare<reference::high_volume::World>>()
        }),
        benign(ID, Contract::Backend, || {
            backend::suite::<Bare<reference::high_volume::World>>()
        }),
        benign(ID, Contract::KvClient, || {
            kv_client::suite::<Bare<reference::kv_client::World>>()
        }),
        benign(ID, Contract::ChangeLog, || {
            change_log::suite::<Bare<reference::change_log::World>>()
        }),
    ]
}
