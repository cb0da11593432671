//! Worlds on a real server: one that has a single endpoint has a proxy before it that makes it fail, one that has several
//! opens its handles on them by turns.

#![allow(
    dead_code,
    reason = "each test that includes this uses another part of it"
)]

#[path = "../powers/mod.rs"]
mod powers;

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::proxy::Proxy;
use larder_conformance::{
    BoxError, Caps, Env, Faults, Fixture, Suite, backend, blob_multi, harness, high_volume,
};
use larder_s3::{S3Backend, S3Blob, S3Config, S3HighVolume, S3Place};
use larder_traits::{Durability, TestClock};
use libtest_mimic::{Arguments, Completion, Trial};

use powers::Places;

/// A server as `cargo xtask services` starts it.
pub(crate) trait Server: Send + Sync + 'static {
    /// Its name there.
    const NAME: &'static str;
    /// The variable that says where it is: endpoints, with commas between them.
    const VARIABLE: &'static str;
    const ACCESS_KEY: &'static str;
    const SECRET_KEY: &'static str;
    /// What it is set up to keep.
    const DURABILITY: Durability;

    /// Where it is; empty where none was started.
    fn endpoints() -> Vec<String> {
        let endpoints = std::env::var(Self::VARIABLE).unwrap_or_default();
        let endpoints = endpoints.split(',').filter(|it| !it.is_empty());
        endpoints.map(str::to_owned).collect()
    }
}

/// Ceph's object gateway.
pub(crate) struct Ceph;

impl Server for Ceph {
    const NAME: &'static str = "ceph";
    const VARIABLE: &'static str = "LARDER_TEST_CEPH";
    const ACCESS_KEY: &'static str = "larder-access";
    const SECRET_KEY: &'static str = "larder-secret";
    const DURABILITY: Durability = Durability::Power;
}

/// One node of Garage.
pub(crate) struct Garage;

impl Server for Garage {
    const NAME: &'static str = "garage";
    const VARIABLE: &'static str = "LARDER_TEST_GARAGE";
    const ACCESS_KEY: &'static str = "GK6c6172646572000000000001";
    const SECRET_KEY: &'static str =
        "6c61726465720000000000000000000000000000000000000000000000000001";
    // As it is by default, it does not wait for the disk.
    const DURABILITY: Durability = Durability::Process;
}

/// Three nodes of Garage, each with a copy of everything.
pub(crate) struct GarageCluster;

impl Server for GarageCluster {
    const VARIABLE: &'static str = "LARDER_TEST_GARAGE_CLUSTER";
    const NAME: &'static str = Garage::NAME;
    const ACCESS_KEY: &'static str = Garage::ACCESS_KEY;
    const SECRET_KEY: &'static str = Garage::SECRET_KEY;
    const DURABILITY: Durability = Garage::DURABILITY;
}

const BUCKET: &str = "larder-conformance";

pub(crate) struct World<S> {
    /// The server itself.
    endpoints: Vec<String>,
    /// How many places were opened.
    opened: AtomicUsize,
    /// What the names of this world start with, so that worlds share the bucket and nothing else.
    prefix: String,
    /// Where there is a single endpoint: a fault is armed in one place, for whichever handle comes upon it.
    proxy: Option<Arc<Proxy>>,
    places: Places,
    server: PhantomData<S>,
}

/// A place of this server, with nothing in it that is not needed to reach it.
pub(crate) fn plain<S: Server>(endpoint: &str, bucket: &str) -> S3Config {
    S3Config::new(bucket)
        .with_endpoint(endpoint)
        .with_credentials(S::ACCESS_KEY, S::SECRET_KEY)
}

fn config<S: Server>(endpoint: &str) -> S3Config {
    plain::<S>(endpoint, BUCKET)
        .with_durability(S::DURABILITY)
        .with_page_keys_max(500)
        .with_in_flight_max(const { NonZeroUsize::new(32).expect("it is not zero") })
        // The shortest parts that such servers accept, and values of two parts that the quick profile still writes.
        .with_part_len_bytes(const { NonZeroUsize::new(5 << 20).expect("it is not zero") })
        .with_value_len_bytes_max(8 << 20)
        .with_object_len_bytes_max(8 << 20)
        .with_row_len_bytes_max(1 << 20)
}

async fn proxy(endpoint: &str) -> Result<Proxy, BoxError> {
    let addr = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    Ok(Proxy::start(addr.parse()?).await?)
}

fn through(proxy: &Proxy) -> String {
    format!("http://{}", proxy.addr())
}

impl<S: Server> World<S> {
    /// The endpoint that is spoken to without the proxy.
    fn endpoint(&self) -> &str {
        self.endpoints.first().map_or("", String::as_str)
    }

    /// Blobs have no use for conditions, and what tries them costs requests.
    async fn blobs(&self, place: &str) -> Result<S3Blob, BoxError> {
        Ok(self.place(place, false).await?.blob_multi())
    }

    async fn place(&self, place: &str, conditions: bool) -> Result<S3Place, BoxError> {
        let endpoint = match &self.proxy {
            Some(proxy) => through(proxy),
            None => {
                let opened = self.opened.fetch_add(1, Ordering::Relaxed);
                self.endpoints[opened % self.endpoints.len()].clone()
            }
        };
        let config = config::<S>(&endpoint)
            .with_prefix(format!("{}/{place}", self.prefix))
            .with_conditional_writes(conditions);
        self.places.open(config).await
    }
}

impl<S: Server> Fixture for World<S> {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        let endpoints = S::endpoints();
        let endpoint = endpoints.first().ok_or("there is no server")?;
        make_bucket(&client::<S>(endpoint), BUCKET).await?;
        let proxy = match endpoints.as_slice() {
            [endpoint] => Some(Arc::new(proxy(endpoint).await?)),
            _ => None,
        };
        Ok(Self {
            endpoints,
            opened: AtomicUsize::new(0),
            prefix: env.prefix.clone(),
            proxy,
            places: Places::default(),
            server: PhantomData,
        })
    }

    fn caps(&self) -> Caps {
        config::<S>(self.endpoint()).caps()
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(self.places.clock())
    }

    async fn settle(&self) {
        self.places.settle().await;
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        let proxy = self.proxy.as_ref()?;
        Some(Arc::<Proxy>::clone(proxy))
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn child(&self) -> bool {
        true
    }
}

/// Amazon's client, without anything of ours.
pub(crate) fn client<S: Server>(endpoint: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let credentials = Credentials::new(S::ACCESS_KEY, S::SECRET_KEY, None, None, "test");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(credentials)
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// Makes a bucket where there is none yet. Worlds are made at once, and some servers are not glad to be asked twice.
pub(crate) async fn make_bucket(client: &Client, bucket: &str) -> Result<(), BoxError> {
    match client.create_bucket().bucket(bucket).send().await {
        Ok(_) => Ok(()),
        Err(e) => match e.into_service_error() {
            e if e.is_bucket_already_owned_by_you() => Ok(()),
            e => Err(e.into()),
        },
    }
}

impl<S: Server> blob_multi::Open for World<S> {
    type Store = S3Blob;

    async fn open(&self, place: &str) -> Result<S3Blob, BoxError> {
        self.blobs(place).await
    }

    /// Each was opened while all was well; wrong credentials are refused by `open`.
    async fn unusable(&self) -> Result<Vec<(&'static str, S3Blob)>, BoxError> {
        let bucket = format!("larder-gone-{}", std::process::id());
        let client = client::<S>(self.endpoint());
        make_bucket(&client, &bucket).await?;
        let nowhere = S3Place::open(plain::<S>(self.endpoint(), &bucket)).await?;
        client.delete_bucket().bucket(&bucket).send().await?;
        let short = proxy(self.endpoint()).await?;
        let unheard = S3Place::open(config::<S>(&through(&short))).await?;
        drop(short);
        Ok(vec![
            ("a bucket that was removed", nowhere.blob_multi()),
            ("a port that nobody listens on", unheard.blob_multi()),
        ])
    }

    fn garbled(&self) -> Vec<(&'static str, Arc<dyn Faults>)> {
        let proxy = self.proxy.as_ref();
        proxy.map(powers::garbled).unwrap_or_default()
    }

    fn foreign(&self, place: &str) -> Option<Arc<dyn blob_multi::Foreign>> {
        Some(Arc::new(Beside {
            client: client::<S>(self.endpoint()),
            place: format!("{}/{place}", self.prefix),
        }))
    }
}

/// What lies around a place in its bucket.
struct Beside {
    client: Client,
    place: String,
}

impl blob_multi::Foreign for Beside {
    fn plant(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        async {
            for name in powers::foreign_names(&self.place) {
                let body = format!("foreign {name}").into_bytes().into();
                let put = self
                    .client
                    .put_object()
                    .bucket(BUCKET)
                    .key(&name)
                    .body(body);
                put.send().await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn look(&self) -> BoxFuture<'_, Result<String, BoxError>> {
        async {
            let mut seen = String::new();
            for name in powers::foreign_names(&self.place) {
                let get = self.client.get_object().bucket(BUCKET).key(&name);
                let found = get.send().await?;
                let etag = found.e_tag().unwrap_or_default().to_owned();
                let body = found.body.collect().await?.into_bytes();
                let body = String::from_utf8_lossy(&body).into_owned();
                seen.push_str(&format!("{name} {etag} {body}\n"));
            }
            Ok(seen)
        }
        .boxed()
    }
}

impl<S: Server> backend::Open for World<S> {
    type Store = S3Backend;

    async fn open(&self, place: &str) -> Result<S3Backend, BoxError> {
        Ok(self.place(place, true).await?.backend())
    }
}

/// The same world with what is declared for rows.
pub(crate) struct Rows<S>(World<S>);

impl<S: Server> Fixture for Rows<S> {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self(World::new(env).await?))
    }

    fn caps(&self) -> Caps {
        config::<S>(self.0.endpoint()).row_caps()
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

    fn is_remote(&self) -> bool {
        true
    }

    fn child(&self) -> bool {
        true
    }
}

impl<S: Server> high_volume::Open for Rows<S> {
    type Store = S3HighVolume;

    async fn open(&self, place: &str) -> Result<S3HighVolume, BoxError> {
        Ok(self.0.place(place, true).await?.high_volume())
    }
}

/// The suite with all these checks known to fail, for one reason.
pub(crate) fn known(suite: Suite, ids: &[&str], why: &str) -> Suite {
    ids.iter().fold(suite, |suite, id| suite.known(id, why))
}

/// Without conditions there is no idle time (see the README), and these checks put an object that has one.
pub(crate) fn without_idle_times(suite: Suite) -> Suite {
    let ids = [
        "C-5.1", "BK-2.3", "BK-5.1", "HV-8.1", "HV-8.2", "HV-8.3", "HV-8.4", "HV-8.6", "HV-9.1",
    ];
    known(
        suite,
        &ids,
        "Garage ignores the conditions that an idle time stands on",
    )
}

/// The `main` of the suite on the server, or of nothing but the reason why there is none.
pub(crate) fn main<S: Server>(suites: Vec<Suite>) -> ExitCode {
    if !S::endpoints().is_empty() {
        return harness::main(env!("CARGO_PKG_NAME"), suites);
    }
    let ignored = suites.iter().map(|suite| {
        let contract = suite.contract().name().replace('-', "_");
        absent::<S>(&format!("{contract}::on_{}", S::NAME))
    });
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, ignored.collect()).exit_code()
}

/// What stands for tests that need the server, where there is none.
pub(crate) fn absent<S: Server>(name: &str) -> Trial {
    Trial::ignorable_test(name, || {
        let name = S::NAME;
        let why = format!(
            "no {name} here: `cargo xtask services up {name}` starts one, or says what is missing"
        );
        Ok(Completion::ignored_with(why))
    })
}
