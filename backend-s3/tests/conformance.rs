//! The suite on the hermetic server, with a proxy before it that makes it fail.
//!
//! Pages of 32 keys and parts of 16 KiB: what a real place does for large data happens here for small ones. Pages of two
//! keys are in `native`.

mod powers;
mod server;

use std::num::NonZeroUsize;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::proxy::Proxy;
use larder_conformance::{BoxError, Caps, Env, Faults, Fixture, backend, blob_multi, high_volume};
use larder_s3::{S3Backend, S3Blob, S3Config, S3HighVolume, S3Place};
use larder_traits::TestClock;

use powers::Places;
use server::{ACCESS_KEY, BUCKET, SECRET_KEY, Server, Store};

/// A server of its own, and a proxy before it.
struct World {
    server: Server,
    proxy: Arc<Proxy>,
    places: Places,
}

fn config(endpoint: &str, place: &str) -> S3Config {
    S3Config::new(BUCKET)
        .with_endpoint(endpoint)
        .with_prefix(place)
        .with_credentials(ACCESS_KEY, SECRET_KEY)
        .with_payload_signing(false)
        .with_page_keys_max(32)
        .with_in_flight_max(NonZeroUsize::new(32).expect("it is not zero"))
        .with_part_len_bytes(NonZeroUsize::new(16 << 10).expect("it is not zero"))
        // Small enough for the quick profile to write one that is too large.
        .with_value_len_bytes_max(1 << 20)
        .with_object_len_bytes_max(1 << 20)
        .with_row_len_bytes_max(1 << 20)
}

impl World {
    fn endpoint(&self) -> String {
        format!("http://{}", self.proxy.addr())
    }

    /// Blobs have no use for conditions, and what tries them costs requests.
    async fn blobs(&self, place: &str) -> Result<S3Blob, BoxError> {
        Ok(self.place(place, false).await?.blob_multi())
    }

    async fn place(&self, place: &str, conditions: bool) -> Result<S3Place, BoxError> {
        let config = config(&self.endpoint(), place).with_conditional_writes(conditions);
        self.places.open(config).await
    }
}

impl Fixture for World {
    async fn new(_: &Env) -> Result<Self, BoxError> {
        let server = Server::start().await?;
        let proxy = Arc::new(Proxy::start(server.addr()).await?);
        Ok(Self {
            server,
            proxy,
            places: Places::default(),
        })
    }

    fn caps(&self) -> Caps {
        config(&self.endpoint(), "p").caps()
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(self.places.clock())
    }

    async fn settle(&self) {
        self.places.settle().await;
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::<Proxy>::clone(&self.proxy))
    }
}

impl blob_multi::Open for World {
    type Store = S3Blob;

    async fn open(&self, place: &str) -> Result<S3Blob, BoxError> {
        self.blobs(place).await
    }

    /// Each was opened while all was well; what `open` itself says is looked at in `native`.
    async fn unusable(&self) -> Result<Vec<(&'static str, S3Blob)>, BoxError> {
        let revoked = Server::start().await?;
        let in_vain = S3Place::open(config(&revoked.endpoint(), "p")).await?;
        revoked.store.with_quirks(|quirks| quirks.revoked = true);
        let bare = Server::start().await?;
        let nowhere = S3Place::open(config(&bare.endpoint(), "p")).await?;
        bare.store.remove_bucket(BUCKET);
        let gone = Server::start().await?;
        let unheard = S3Place::open(config(&gone.endpoint(), "p")).await?;
        gone.kill();
        // The first two go on for as long as the process does.
        std::mem::forget((revoked, bare));
        Ok(vec![
            ("credentials that were taken back", in_vain.blob_multi()),
            ("a bucket that was removed", nowhere.blob_multi()),
            ("a port that nobody listens on", unheard.blob_multi()),
        ])
    }

    fn garbled(&self) -> Vec<(&'static str, Arc<dyn Faults>)> {
        powers::garbled(&self.proxy)
    }

    fn foreign(&self, place: &str) -> Option<Arc<dyn blob_multi::Foreign>> {
        let store = Arc::clone(&self.server.store);
        Some(Arc::new(Beside {
            store,
            place: place.to_owned(),
        }))
    }
}

/// What lies around a place in its bucket.
struct Beside {
    store: Arc<Store>,
    place: String,
}

impl blob_multi::Foreign for Beside {
    fn plant(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        for name in powers::foreign_names(&self.place) {
            let body = format!("foreign {name}");
            self.store.plant(BUCKET, &name, body);
        }
        async { Ok(()) }.boxed()
    }

    fn look(&self) -> BoxFuture<'_, Result<String, BoxError>> {
        let planted = powers::foreign_names(&self.place);
        let own = format!("{}/!blobs/", self.place);
        let mut seen = String::new();
        for (name, stored) in self.store.objects(BUCKET) {
            if planted.contains(&name) || !name.starts_with(&own) {
                let body = String::from_utf8_lossy(&stored.body);
                seen.push_str(&format!("{name} {} {body}\n", stored.etag));
            }
        }
        async { Ok(seen) }.boxed()
    }
}

impl backend::Open for World {
    type Store = S3Backend;

    async fn open(&self, place: &str) -> Result<S3Backend, BoxError> {
        Ok(self.place(place, true).await?.backend())
    }
}

/// The same world with what is declared for rows.
struct Rows(World);

impl Fixture for Rows {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self(World::new(env).await?))
    }

    fn caps(&self) -> Caps {
        config(&self.0.endpoint(), "p").row_caps()
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        self.0.clock()
    }

    async fn settle(&self) {
        self.0.settle().await;
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        self.0.faults()
    }
}

impl high_volume::Open for Rows {
    type Store = S3HighVolume;

    async fn open(&self, place: &str) -> Result<S3HighVolume, BoxError> {
        Ok(self.0.place(place, true).await?.high_volume())
    }
}

larder_conformance::main!(blob_multi: World, backend: World, high_volume: Rows);
