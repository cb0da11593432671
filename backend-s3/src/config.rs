//! What a place is opened with: which bucket on which server, whose credentials, how patient, which bounds.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use larder_traits::{
    BlobMultiCaps, Caps, Clock, ClockSource, Durability, ErrorKind, Fault, HighVolumeCaps,
    LateLanding, SystemClock,
};

use crate::error::invalid;
use crate::key::{ID_LEN_BYTES_MAX, KEY_LEN_BYTES_MAX, Names};

/// The most parts that S3 accepts in an upload.
pub(crate) const PARTS_MAX: u64 = 10_000;

/// When checksums as S3 knows them are added to requests, and those of answers verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChecksumMode {
    /// Where S3 demands one. What every store understands, and the default: values carry a checksum of Larder's own.
    #[default]
    WhenRequired,
    /// Wherever S3 knows one. Many stores other than Amazon's refuse such requests.
    WhenSupported,
}

/// Which bucket on which server a place lies in, and what its handles go by.
///
/// Nothing is read from the environment unless [`with_credentials_from_env`](Self::with_credentials_from_env) asks for
/// it. `Debug` shows no secret.
#[derive(Clone)]
pub struct S3Config {
    pub(crate) endpoint: Option<String>,
    pub(crate) region: String,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) path_style: Option<bool>,
    pub(crate) credentials: Option<SharedCredentialsProvider>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) connect_timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) call_timeout: Duration,
    pub(crate) pool_idle_timeout: Duration,
    pub(crate) attempts_max: u32,
    pub(crate) in_flight_max: NonZeroUsize,
    pub(crate) fan_out_max: NonZeroUsize,
    pub(crate) part_len_bytes: u64,
    pub(crate) page_keys_max: i32,
    pub(crate) checksums: ChecksumMode,
    pub(crate) payload_signing: Option<bool>,
    pub(crate) value_len_bytes_max: u64,
    pub(crate) row_len_bytes_max: u64,
    pub(crate) object_len_bytes_max: u64,
    pub(crate) durability: Durability,
    pub(crate) conditional_writes: bool,
}

impl S3Config {
    /// The bucket of that name, with no prefix, at Amazon's `us-east-1` until an endpoint or a region is given.
    #[must_use]
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".into(),
            bucket: bucket.into(),
            prefix: String::new(),
            path_style: None,
            credentials: None,
            clock: Arc::new(SystemClock::default()),
            connect_timeout: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(15),
            call_timeout: Duration::from_secs(60),
            pool_idle_timeout: Duration::from_secs(15),
            attempts_max: 6,
            in_flight_max: const { NonZeroUsize::new(256).expect("it is not zero") },
            fan_out_max: const { NonZeroUsize::new(8).expect("it is not zero") },
            part_len_bytes: 8 << 20,
            page_keys_max: 1_000,
            checksums: ChecksumMode::WhenRequired,
            payload_signing: None,
            value_len_bytes_max: 1 << 30,
            row_len_bytes_max: 16 << 20,
            object_len_bytes_max: 1 << 40,
            durability: Durability::Power,
            conditional_writes: true,
        }
    }

    /// The server, such as `http://127.0.0.1:9000`; Amazon's for the region by default.
    #[must_use]
    pub fn with_endpoint(self, endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: Some(endpoint.into()),
            ..self
        }
    }

    /// The region that requests are signed for; `us-east-1` by default.
    #[must_use]
    pub fn with_region(self, region: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            ..self
        }
    }

    /// What the names of all objects of the place start with, such as `pantry/1`; nothing by default. One prefix may
    /// lie below another: their places stay apart (BM-8).
    #[must_use]
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            ..self
        }
    }

    /// Whether the bucket stands in the path of an address, or in its host name. By default in the path where an
    /// endpoint is given, and in the host name at Amazon.
    #[must_use]
    pub fn with_path_style(self, path_style: bool) -> Self {
        Self {
            path_style: Some(path_style),
            ..self
        }
    }

    /// An access key and its secret. Without credentials requests are not signed.
    #[must_use]
    pub fn with_credentials(self, access_key: &str, secret_key: &str) -> Self {
        let credentials = Credentials::new(access_key, secret_key, None, None, "larder");
        self.with_credentials_provider(credentials)
    }

    /// An access key, its secret and the token of a session.
    #[must_use]
    pub fn with_session(self, access_key: &str, secret_key: &str, token: &str) -> Self {
        let token = Some(token.to_owned());
        let credentials = Credentials::new(access_key, secret_key, token, None, "larder");
        self.with_credentials_provider(credentials)
    }

    /// Where credentials come from, such as the default chain of the crate `aws-config`.
    #[must_use]
    pub fn with_credentials_provider(self, provider: impl ProvideCredentials + 'static) -> Self {
        Self {
            credentials: Some(SharedCredentialsProvider::new(provider)),
            ..self
        }
    }

    /// The credentials in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, where it is set, `AWS_SESSION_TOKEN`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if one of the first two is not set.
    pub fn with_credentials_from_env(self) -> Result<Self, Fault> {
        let needed = |name: &'static str| {
            std::env::var(name).map_err(|e| {
                let message = format!("the variable {name} is not set");
                Fault::not_applied(ErrorKind::InvalidInput, message).because(e)
            })
        };
        let access = needed("AWS_ACCESS_KEY_ID")?;
        let secret = needed("AWS_SECRET_ACCESS_KEY")?;
        Ok(match std::env::var("AWS_SESSION_TOKEN") {
            Ok(token) => self.with_session(&access, &secret, &token),
            Err(_) => self.with_credentials(&access, &secret),
        })
    }

    /// The clock that decides expiry (C-5); the machine's by default.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// How long a connection may take to come about; 3 s by default.
    #[must_use]
    pub fn with_connect_timeout(self, connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            ..self
        }
    }

    /// How long one request may take, plus a second for each MiB that it carries; 15 s by default. After that another
    /// one is made where that is safe, as long as the call has time.
    #[must_use]
    pub fn with_attempt_timeout(self, attempt_timeout: Duration) -> Self {
        Self {
            attempt_timeout,
            ..self
        }
    }

    /// How long `open` may take, and what calls without a deadline of their own may take beside the time that their
    /// streams need; 60 s by default.
    #[must_use]
    pub fn with_call_timeout(self, call_timeout: Duration) -> Self {
        Self {
            call_timeout,
            ..self
        }
    }

    /// How long a connection is kept that nobody uses; 15 s by default. Keep it below the server's own, or requests
    /// meet connections that are being closed.
    #[must_use]
    pub fn with_pool_idle_timeout(self, pool_idle_timeout: Duration) -> Self {
        Self {
            pool_idle_timeout,
            ..self
        }
    }

    /// The most requests that are made for one step of a call; 6 by default, at least 1.
    #[must_use]
    pub fn with_attempts_max(self, attempts_max: u32) -> Self {
        Self {
            attempts_max: attempts_max.max(1),
            ..self
        }
    }

    /// How many calls may be in flight on the handle and its clones before further ones wait (C-4); 256 by default.
    #[must_use]
    pub fn with_in_flight_max(self, in_flight_max: NonZeroUsize) -> Self {
        Self {
            in_flight_max,
            ..self
        }
    }

    /// How many parts of one value are on their way at a time; 8 by default.
    #[must_use]
    pub fn with_fan_out_max(self, fan_out_max: NonZeroUsize) -> Self {
        Self {
            fan_out_max,
            ..self
        }
    }

    /// The length above which values travel in parts of this length; 8 MiB by default. Amazon refuses parts below
    /// 5 MiB.
    #[must_use]
    pub fn with_part_len_bytes(self, part_len_bytes: NonZeroUsize) -> Self {
        Self {
            part_len_bytes: u64::try_from(part_len_bytes.get()).unwrap_or(u64::MAX),
            ..self
        }
    }

    /// The most keys that are asked for in one page of a listing; 1,000 by default, which is also the most that S3
    /// gives.
    #[must_use]
    pub fn with_page_keys_max(self, page_keys_max: u16) -> Self {
        Self {
            page_keys_max: i32::from(page_keys_max.clamp(1, 1_000)),
            ..self
        }
    }

    /// When checksums as S3 knows them are added and verified.
    #[must_use]
    pub fn with_checksums(self, checksums: ChecksumMode) -> Self {
        Self { checksums, ..self }
    }

    /// Whether the bodies of uploads are hashed into the signature, which costs as much as all the rest of an upload.
    /// By default where the connection is not encrypted.
    #[must_use]
    pub fn with_payload_signing(self, payload_signing: bool) -> Self {
        Self {
            payload_signing: Some(payload_signing),
            ..self
        }
    }

    /// The longest value of `BlobMulti`; 1 GiB by default.
    #[must_use]
    pub fn with_value_len_bytes_max(self, value_len_bytes_max: u64) -> Self {
        Self {
            value_len_bytes_max,
            ..self
        }
    }

    /// The longest payload of a row of `HighVolumeBackend`; 16 MiB by default.
    #[must_use]
    pub fn with_row_len_bytes_max(self, row_len_bytes_max: u64) -> Self {
        Self {
            row_len_bytes_max,
            ..self
        }
    }

    /// The longest payload of an object of `Backend`; 1 TiB by default.
    #[must_use]
    pub fn with_object_len_bytes_max(self, object_len_bytes_max: u64) -> Self {
        Self {
            object_len_bytes_max,
            ..self
        }
    }

    /// Whether `open` finds out if the store keeps the conditions of writes, which takes five small writes and a delete
    /// below the prefix. By default it does; a place of blobs alone, or one that may only be read, has no use for it.
    #[must_use]
    pub fn with_conditional_writes(self, conditional_writes: bool) -> Self {
        Self {
            conditional_writes,
            ..self
        }
    }

    /// What the server behind the endpoint is trusted to keep: [`Durability::Power`] by default, as Amazon promises.
    /// It is declared and nothing else; no request can ask for more.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// What is declared for the blobs and the objects of this configuration. A row of a `HighVolumeBackend` is
    /// shorter: see [`row_caps`](Self::row_caps).
    #[must_use]
    pub fn caps(&self) -> Caps {
        Caps::LEAST
            .with_durability(self.durability)
            .with_late_landing(LateLanding::MayLandLate(None))
            .with_clock(ClockSource::Injected)
            .with_in_flight_max(Some(self.in_flight_max.get()))
            .with_blob_multi(
                BlobMultiCaps::LEAST
                    .with_key_len_bytes_max(KEY_LEN_BYTES_MAX)
                    .with_value_len_bytes_max(self.value_len_bytes_max),
            )
            .with_high_volume(
                HighVolumeCaps::LEAST
                    .with_payload_len_bytes_max(self.object_len_bytes_max)
                    .with_id_len_bytes_max(ID_LEN_BYTES_MAX),
            )
    }

    /// What is declared for the rows of this configuration, on a store with conditional writes.
    #[must_use]
    pub fn row_caps(&self) -> Caps {
        let caps = self.caps();
        caps.with_high_volume(
            caps.high_volume
                .with_payload_len_bytes_max(self.row_len_bytes_max)
                .with_fence(true)
                .with_extend_expiry(true),
        )
    }

    /// The part length for a value of `len_bytes`: the configured one, or more where there would be too many parts.
    pub(crate) fn part_len_for(&self, len_bytes: u64) -> u64 {
        self.part_len_bytes
            .max(len_bytes.div_ceil(PARTS_MAX))
            .max(1)
    }

    /// How long a request may take that carries so much.
    pub(crate) fn attempt_timeout_for(&self, len_bytes: u64) -> Duration {
        self.attempt_timeout
            .saturating_add(Duration::from_secs(len_bytes >> 20))
    }

    pub(crate) fn signs_payloads(&self) -> bool {
        self.payload_signing.unwrap_or_else(|| !self.is_encrypted())
    }

    /// The endpoint, with the slash at its end that the SDK sets a bucket behind.
    pub(crate) fn endpoint_url(&self) -> Option<String> {
        let endpoint = self.endpoint.as_ref()?;
        Some(format!("{}/", endpoint.trim_end_matches('/')))
    }

    pub(crate) fn is_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.endpoint
            .as_ref()
            .is_none_or(|endpoint| endpoint.to_ascii_lowercase().starts_with("https://"))
    }

    /// Refuses what could never work, before anything is sent.
    pub(crate) fn check(&self) -> Result<Names, Fault> {
        if self.bucket.is_empty() || self.bucket.contains('/') {
            return Err(invalid("a bucket has a name, without slashes"));
        }
        let is_url = |url: &String| {
            let lower = url.to_ascii_lowercase();
            lower.starts_with("http://") || lower.starts_with("https://")
        };
        if self.endpoint.as_ref().is_some_and(|url| !is_url(url)) {
            return Err(invalid("an endpoint starts with http:// or https://"));
        }
        Names::new(&self.prefix)
    }
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = self.credentials.as_ref().map(|_| "(given)");
        // Somebody may have put a password in front of the host.
        let endpoint = self.endpoint.as_ref().map(|endpoint| {
            match endpoint.split_once("://").zip(endpoint.rsplit_once('@')) {
                Some(((scheme, _), (_, host))) => format!("{scheme}://***@{host}"),
                None => endpoint.clone(),
            }
        });
        f.debug_struct("S3Config")
            .field("endpoint", &endpoint)
            .field("region", &self.region)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("path_style", &self.path_style)
            .field("credentials", &credentials)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("call_timeout", &self.call_timeout)
            .field("in_flight_max", &self.in_flight_max)
            .field("fan_out_max", &self.fan_out_max)
            .field("part_len_bytes", &self.part_len_bytes)
            .field("page_keys_max", &self.page_keys_max)
            .field("checksums", &self.checksums)
            .finish_non_exhaustive()
    }
}
