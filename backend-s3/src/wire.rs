//! What all handles of a place share: the client, the bounds, and how a request is made and repeated.
//!
//! The SDK's own retries and timeouts are off. It cannot know which requests may be made twice: a write that was
//! applied and whose answer was lost must not be applied again over somebody else's. So repeating is decided here and
//! by the callers, and a deadline spans everything, bodies too, by dropping what is still running.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::http::{
    HttpConnectorSettings, SharedHttpConnector, http_client_fn,
};
use larder_traits::Fault;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout, timeout_at};

use crate::config::{ChecksumMode, S3Config};
use crate::error::{Failure, timed_out, timed_out_on_the_way};
use crate::key::Names;
use crate::mark::Nonces;
use crate::probe::Conditions;
use crate::thin::{Request, Thin};

/// The first pause between two requests of one step, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// After so many requests in a row without an answer the connections are given up, since those that idle may have
/// died with the ones that were tried.
const SILENT_MAX: u32 = 3;

/// Whether a write is past its commit point: a request that may take effect has been sent.
#[derive(Debug, Default)]
pub(crate) struct Sent(AtomicBool);

impl Sent {
    pub(crate) fn set(&self, sent: bool) {
        self.0.store(sent, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) struct Wire {
    pub(crate) config: S3Config,
    pub(crate) names: Names,
    pub(crate) nonces: Nonces,
    /// How the store takes conditions of writes, if it does; found out when the place is opened.
    conditions: OnceLock<Conditions>,
    link: RwLock<Link>,
    thin: Thin,
    /// Requests without an answer since the last one with any.
    silent: AtomicU32,
    /// Whether the last whole value that was read was longer than a part.
    long: AtomicBool,
    calls: Semaphore,
    /// How many tasks clean up behind calls that have ended.
    tasks: watch::Sender<usize>,
}

/// Connections, and the SDK on top of them.
#[derive(Clone)]
struct Link {
    http: SharedHttpConnector,
    sdk: Client,
}

impl Wire {
    pub(crate) fn new(config: S3Config) -> Result<Self, Fault> {
        let names = config.check()?;
        Ok(Self {
            link: RwLock::new(Link::new(&config)),
            thin: Thin::new(&config)?,
            names,
            nonces: Nonces::new(),
            conditions: OnceLock::new(),
            silent: AtomicU32::new(0),
            long: AtomicBool::new(false),
            calls: Semaphore::new(config.in_flight_max.get().min(Semaphore::MAX_PERMITS)),
            tasks: watch::Sender::new(0),
            config,
        })
    }

    fn link(&self) -> Link {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
        link.clone()
    }

    /// The SDK, for what is not asked for often.
    pub(crate) fn sdk(&self) -> Client {
        self.link().sdk
    }

    /// Makes a request without the SDK, and returns the answer if it is one of success.
    pub(crate) async fn ask(&self, request: Request) -> Result<HttpResponse, Failure> {
        let http = self.link().http;
        self.thin.ask(&http, request).await
    }

    pub(crate) fn found_conditions(&self, found: Conditions) {
        // It is found out once, by `open`.
        self.conditions.get_or_init(|| found);
    }

    pub(crate) fn has_conditions(&self) -> bool {
        self.conditions.get().is_some()
    }

    /// Whether the next whole value that is read is likely to be longer than a part, as the last one was.
    pub(crate) fn expects_long(&self) -> bool {
        self.long.load(Ordering::Relaxed)
    }

    pub(crate) fn found_long(&self, long: bool) {
        self.long.store(long, Ordering::Relaxed);
    }

    /// An ETag as this store takes it in a condition of a write.
    pub(crate) fn as_condition<'a>(&self, etag: &'a str) -> &'a str {
        match self.conditions.get() {
            Some(Conditions::Unquoted) => etag.trim_matches('"'),
            Some(Conditions::Quoted) | None => etag,
        }
    }

    /// Runs `call` within the bound on calls in flight and until `deadline`, past which nothing of it goes on (BM-7).
    pub(crate) async fn call<T>(
        &self,
        deadline: Instant,
        sent: &Sent,
        call: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        if deadline <= Instant::now() {
            return Err(timed_out());
        }
        let in_turn = async {
            let _permit = self.calls.acquire().await.expect("it is never closed");
            call.await
        };
        match timeout_at(deadline.into(), in_turn).await {
            Ok(result) => result,
            Err(_) if sent.get() => Err(timed_out_on_the_way()),
            Err(_) => Err(timed_out()),
        }
    }

    /// One request that carries `len_bytes`, within the time that it is given.
    pub(crate) async fn attempt<T>(
        &self,
        len_bytes: u64,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let bound = self.config.attempt_timeout_for(len_bytes);
        if let Ok(result) = timeout(bound, request).await {
            self.silent.store(0, Ordering::Relaxed);
            return result;
        }
        if self.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_MAX {
            self.silent.store(0, Ordering::Relaxed);
            let fresh = Link::new(&self.config);
            *self.link.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        Err(Failure::silent())
    }

    /// Makes a request until it succeeds or is not worth another one. Only for what has no effect that anybody sees.
    pub(crate) async fn repeat<T, F>(
        &self,
        len_bytes: u64,
        request: impl Fn() -> F + Send,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let mut tries = 0;
        loop {
            let result = self.attempt(len_bytes, request()).await;
            match result {
                Err(failure) if self.is_worth_another(&failure, &mut tries).await => {}
                result => return result,
            }
        }
    }

    /// Makes a request that takes effect when it arrives. It is repeated only where the server said that it did
    /// nothing, and `sent` says whether one may have arrived.
    pub(crate) async fn commit<T, F>(
        &self,
        len_bytes: u64,
        sent: &Sent,
        request: impl Fn() -> F + Send,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let mut tries = 0;
        loop {
            // Commit point: past this line a failure may still have taken effect.
            sent.set(true);
            let result = self.attempt(len_bytes, request()).await;
            match result {
                Err(failure) if failure.harmless => {
                    sent.set(false);
                    if !self.is_worth_another(&failure, &mut tries).await {
                        return Err(failure);
                    }
                }
                result => return result,
            }
        }
    }

    /// Whether another request is to be made after this failure, after a pause that has passed by then.
    pub(crate) async fn is_worth_another(&self, failure: &Failure, tries: &mut u32) -> bool {
        *tries += 1;
        if !failure.again || *tries >= self.config.attempts_max {
            return false;
        }
        let pause = PAUSE_MIN
            .saturating_mul(1 << (*tries - 1).min(16))
            .min(PAUSE_MAX);
        let jitter = u64::try_from(pause.as_micros() / 2).unwrap_or(u64::MAX);
        sleep(pause / 2 + Duration::from_micros(self.nonces.below(jitter.max(1)))).await;
        true
    }

    /// Runs something in the background that [`settled`](Self::settled) waits for; not where no runtime is left.
    pub(crate) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        self.tasks.send_modify(|running| *running += 1);
        let running = Running(Arc::clone(self));
        runtime.spawn(async move {
            work.await;
            drop(running);
        });
    }

    /// Waits until nothing runs in the background.
    pub(crate) async fn settled(&self) {
        let mut running = self.tasks.subscribe();
        // An error would say that the sender is gone, and it is here.
        drop(running.wait_for(|running| *running == 0).await);
    }
}

/// One task in the background, until it ends in whatever way.
struct Running(Arc<Wire>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.tasks.send_modify(|running| *running -= 1);
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

impl Link {
    fn new(config: &S3Config) -> Self {
        let http = connector(config);
        let sdk = sdk(config, http.clone());
        Self { http, sdk }
    }
}

/// Connections of its own.
fn connector(config: &S3Config) -> SharedHttpConnector {
    let settings = HttpConnectorSettings::builder().connect_timeout(config.connect_timeout);
    let builder = Connector::builder()
        .connector_settings(settings.build())
        .pool_idle_timeout(config.pool_idle_timeout);
    SharedHttpConnector::new(if config.is_encrypted() {
        let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        builder.tls_provider(ring).build()
    } else {
        builder.build_http()
    })
}

/// The SDK on these connections.
fn sdk(config: &S3Config, http: SharedHttpConnector) -> Client {
    let (requests, responses) = match config.checksums {
        ChecksumMode::WhenRequired => (
            RequestChecksumCalculation::WhenRequired,
            ResponseChecksumValidation::WhenRequired,
        ),
        ChecksumMode::WhenSupported => (
            RequestChecksumCalculation::WhenSupported,
            ResponseChecksumValidation::WhenSupported,
        ),
    };
    let mut builder = Builder::new()
        .behavior_version_latest()
        .http_client(http_client_fn(move |_, _| http.clone()))
        .region(Region::new(config.region.clone()))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(requests)
        .response_checksum_validation(responses)
        .force_path_style(config.is_path_style())
        .disable_s3_express_session_auth(true);
    builder.set_endpoint_url(config.endpoint_url());
    builder = match &config.credentials {
        Some(credentials) => builder.credentials_provider(credentials.clone()),
        None => builder.allow_no_auth(),
    };
    Client::from_conf(builder.build())
}
