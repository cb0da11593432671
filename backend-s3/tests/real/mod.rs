//! Ceph's object gateway, with a proxy before it that makes it fail.

#![allow(
    dead_code,
    reason = "each test that includes this uses another part of it"
)]

#[path = "../powers/mod.rs"]
mod powers;

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::proxy::Proxy;
use larder_conformance::{
    BoxError, Caps, Env, Faults, Fixture, Suite, backend, blob_multi, harness, high_volume,
};
use larder_s3::{S3Backend, S3Blob, S3Config, S3HighVolume, S3Place};
use larder_traits::TestClock;
use libtest_mimic::{Arguments, Completion, Trial};

use powers::Places;

/// The variable that names the gateway, and the user that `cargo xtask services` makes there.
const VARIABLE: &str = "LARDER_TEST_CEPH";
pub(crate) const ACCESS_KEY: &str = "larder-access";
pub(crate) const SECRET_KEY: &str = "larder-secret";

/// Where the gateway is, if one was started.
pub(crate) fn endpoint() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|it| !it.is_empty())
}

const BUCKET: &str = "larder-conformance";

pub(crate) struct World {
    /// The gateway itself.
    endpoint: String,
    /// What the names of this world start with, so that worlds share the bucket and nothing else.
    prefix: String,
    proxy: Arc<Proxy>,
    places: Places,
}

fn config(endpoint: &str) -> S3Config {
    S3Config::new(BUCKET)
        .with_endpoint(endpoint)
        .with_credentials(ACCESS_KEY, SECRET_KEY)
        .with_page_keys_max(500)
        .with_in_flight_max(const { NonZeroUsize::new(32).expect("it is not zero") })
        // The shortest parts that the gateway accepts, and values of two parts that the quick profile still writes.
        .with_part_len_bytes(const { NonZeroUsize::new(5 << 20).expect("it is not zero") })
        .with_value_len_bytes_max(8 << 20)
        .with_object_len_bytes_max(8 << 20)
        .with_row_len_bytes_max(1 << 20)
}

async fn proxy(endpoint: &str) -> Result<Proxy, BoxError> {
    let addr = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    Ok(Proxy::start(addr.parse()?).await?)
}

impl World {
    fn through_proxy(&self) -> String {
        format!("http://{}", self.proxy.addr())
    }

    /// Blobs have no use for conditions, and what tries them costs requests.
    async fn blobs(&self, place: &str) -> Result<S3Blob, BoxError> {
        Ok(self.place(place, false).await?.blob_multi())
    }

    async fn place(&self, place: &str, conditions: bool) -> Result<S3Place, BoxError> {
        let config = config(&self.through_proxy())
            .with_prefix(format!("{}/{place}", self.prefix))
            .with_conditional_writes(conditions);
        self.places.open(config).await
    }
}

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        let endpoint = endpoint().ok_or("there is no gateway")?;
        // Creating it again does nothing.
        let create = client(&endpoint).create_bucket().bucket(BUCKET);
        create.send().await?;
        Ok(Self {
            prefix: env.prefix.clone(),
            proxy: Arc::new(proxy(&endpoint).await?),
            endpoint,
            places: Places::default(),
        })
    }

    fn caps(&self) -> Caps {
        config(&self.endpoint).caps()
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

    fn is_remote(&self) -> bool {
        true
    }

    fn child(&self) -> bool {
        true
    }
}

/// Amazon's client, without anything of ours.
pub(crate) fn client(endpoint: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test");
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

impl blob_multi::Open for World {
    type Store = S3Blob;

    async fn open(&self, place: &str) -> Result<S3Blob, BoxError> {
        self.blobs(place).await
    }

    /// Each was opened while all was well; wrong credentials are refused by `open`.
    async fn unusable(&self) -> Result<Vec<(&'static str, S3Blob)>, BoxError> {
        let bucket = format!("larder-gone-{}", std::process::id());
        let client = client(&self.endpoint);
        client.create_bucket().bucket(&bucket).send().await?;
        let removed = S3Config::new(&bucket)
            .with_endpoint(&self.endpoint)
            .with_credentials(ACCESS_KEY, SECRET_KEY);
        let nowhere = S3Place::open(removed).await?;
        client.delete_bucket().bucket(&bucket).send().await?;
        let short = proxy(&self.endpoint).await?;
        let behind = config(&format!("http://{}", short.addr()));
        let unheard = S3Place::open(behind).await?;
        drop(short);
        Ok(vec![
            ("a bucket that was removed", nowhere.blob_multi()),
            ("a port that nobody listens on", unheard.blob_multi()),
        ])
    }

    fn garbled(&self) -> Vec<(&'static str, Arc<dyn Faults>)> {
        powers::garbled(&self.proxy)
    }

    fn foreign(&self, place: &str) -> Option<Arc<dyn blob_multi::Foreign>> {
        Some(Arc::new(Beside {
            client: client(&self.endpoint),
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

impl backend::Open for World {
    type Store = S3Backend;

    async fn open(&self, place: &str) -> Result<S3Backend, BoxError> {
        Ok(self.place(place, true).await?.backend())
    }
}

/// The same world with what is declared for rows.
pub(crate) struct Rows(World);

impl Fixture for Rows {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self(World::new(env).await?))
    }

    fn caps(&self) -> Caps {
        config(&self.0.endpoint).row_caps()
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

impl high_volume::Open for Rows {
    type Store = S3HighVolume;

    async fn open(&self, place: &str) -> Result<S3HighVolume, BoxError> {
        Ok(self.0.place(place, true).await?.high_volume())
    }
}

/// The `main` of the suite on the gateway, or of nothing but the reason why there is none.
pub(crate) fn main(suites: Vec<Suite>) -> ExitCode {
    if endpoint().is_some() {
        return harness::main(env!("CARGO_PKG_NAME"), suites);
    }
    let ignored = suites.iter().map(|suite| {
        let contract = suite.contract().name().replace('-', "_");
        absent(&format!("{contract}::on_ceph"))
    });
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, ignored.collect()).exit_code()
}

/// What stands for tests that need the gateway, where there is none.
pub(crate) fn absent(name: &str) -> Trial {
    Trial::ignorable_test(name, || {
        let why =
            "no ceph here: `cargo xtask services up ceph` starts one, or says what is missing";
        Ok(Completion::ignored_with(why))
    })
}
