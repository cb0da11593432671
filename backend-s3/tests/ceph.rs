//! The suite on a real server: Ceph's object gateway, with a proxy before it that makes it fail.
//!
//! `cargo xtask test` starts one, and so does `cargo xtask services up ceph`, which prints the variable that names it.
//! Where there is none, the checks are ignored and say so.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use larder_conformance::proxy::Proxy;
use larder_conformance::{
    BoxError, Caps, Env, Faults, Fixture, backend, blob_multi, harness, high_volume,
};
use larder_s3::{S3Backend, S3Blob, S3Config, S3HighVolume, S3Place};
use larder_traits::TestClock;

/// The address of the gateway. Its user is the one of `cargo xtask services`.
const VARIABLE: &str = "LARDER_TEST_CEPH";
const ACCESS_KEY: &str = "larder-access";
const SECRET_KEY: &str = "larder-secret";
const BUCKET: &str = "larder-conformance";

struct World {
    /// What the names of this world start with, so that worlds share the bucket and nothing else.
    prefix: String,
    proxy: Arc<Proxy>,
    clock: Arc<TestClock>,
    opened: Mutex<Vec<S3Place>>,
}

fn config(endpoint: &str) -> S3Config {
    S3Config::new(BUCKET)
        .with_endpoint(endpoint)
        .with_credentials(ACCESS_KEY, SECRET_KEY)
        .with_page_keys_max(500)
        .with_in_flight_max(const { NonZeroUsize::new(32).expect("it is not zero") })
        // The least that the gateway accepts, and a value that has three parts.
        .with_part_len_bytes(const { NonZeroUsize::new(5 << 20).expect("it is not zero") })
        .with_value_len_bytes_max(11 << 20)
        .with_object_len_bytes_max(11 << 20)
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
        let config = config(&self.endpoint())
            .with_prefix(format!("{}/{place}", self.prefix))
            .with_conditional_writes(conditions)
            .with_clock(Arc::<TestClock>::clone(&self.clock));
        let place = S3Place::open(config).await?;
        let mut opened = self.opened.lock().map_err(|e| e.to_string())?;
        opened.push(place.clone());
        Ok(place)
    }
}

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        let endpoint = std::env::var(VARIABLE)?;
        create_bucket(&endpoint).await?;
        let addr = endpoint.strip_prefix("http://").unwrap_or(&endpoint);
        let proxy = Arc::new(Proxy::start(addr.parse()?).await?);
        Ok(Self {
            prefix: env.prefix.clone(),
            proxy,
            clock: Arc::default(),
            opened: Mutex::default(),
        })
    }

    fn caps(&self) -> Caps {
        config(&self.endpoint()).caps()
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

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::<Proxy>::clone(&self.proxy))
    }
}

/// Creating it again does nothing.
async fn create_bucket(endpoint: &str) -> Result<(), BoxError> {
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
    let client = aws_sdk_s3::Client::from_conf(config);
    client.create_bucket().bucket(BUCKET).send().await?;
    Ok(())
}

impl blob_multi::Open for World {
    type Store = S3Blob;

    async fn open(&self, place: &str) -> Result<S3Blob, BoxError> {
        self.blobs(place).await
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
        config(&self.0.endpoint()).row_caps()
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

fn main() -> ExitCode {
    const WHY: &str =
        "no Ceph here: `cargo xtask services up ceph` starts one, or says what is missing";
    if std::env::var_os(VARIABLE).is_some() {
        let suites = vec![
            blob_multi::suite::<World>(),
            backend::suite::<World>(),
            high_volume::suite::<Rows>(),
        ];
        return harness::main(env!("CARGO_PKG_NAME"), suites);
    }
    let contracts = ["blob_multi", "backend", "high_volume"];
    let ignored = contracts.map(|contract| {
        let name = format!("{contract}::on_ceph");
        libtest_mimic::Trial::ignorable_test(name, || {
            Ok(libtest_mimic::Completion::ignored_with(WHY))
        })
    });
    let arguments = libtest_mimic::Arguments::from_args();
    libtest_mimic::run(&arguments, ignored.into()).exit_code()
}
