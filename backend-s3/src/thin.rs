//! Requests without the machinery of the SDK around them, which takes longer than all else that a small one needs.
//!
//! What is asked for often goes this way: an object read, written, looked at and removed, and pages of listings. How
//! often it is asked for is decided by the callers, as for the SDK, which still moves parts of uploads. Both have the
//! same connections, and signatures, checksums and the address of the bucket are made by the SDK's own crates.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_s3::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat, SdkBody};
use aws_smithy_checksums::ChecksumAlgorithm;
use aws_smithy_checksums::body::validate::ChecksumBody;
use aws_smithy_checksums::http::CHECKSUM_ALGORITHMS_IN_PRIORITY_ORDER;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_types::base64;
use aws_smithy_types::endpoint::EndpointAuthScheme;
use bytes::Bytes;
use larder_traits::{Clock, ErrorKind, Fault, SystemClock};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::{ChecksumMode, S3Config};
use crate::error::Failure;
use crate::keys::Keys;
use crate::sign::Scope;
use crate::xml;

/// What stands for itself in a query; all else is escaped, as signatures demand.
const IN_QUERIES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const IN_PATHS: &AsciiSet = &IN_QUERIES.remove(b'/');

/// How much of an answer with an error is read, and of one in which nothing of interest can be.
const REMARK_LEN_BYTES_MAX: usize = 64 << 10;

/// How far a server's clock has to be from ours for a refusal to be a matter of time.
const SKEW_SECS_MIN: u64 = 4 * 60;

/// One request, but for what all of them have.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// What follows the address of the bucket, escaped and in order.
    pub(crate) target: String,
    /// By their names in small letters, each of them once.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn of_object(method: &'static str, name: &str) -> Self {
        let path = utf8_percent_encode(name, IN_PATHS);
        Self {
            method,
            target: format!("/{path}"),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// A GET of the bucket itself, with a query of these names and values.
    pub(crate) fn of_bucket(query: &[(&str, &str)]) -> Self {
        let mut query = query.to_vec();
        query.sort_unstable();
        let mut target = String::from("/");
        for (at, (name, value)) in query.into_iter().enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            target.extend(utf8_percent_encode(value, IN_QUERIES));
        }
        Self {
            method: "GET",
            target,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }
}

/// Where the bucket is, and who asks.
pub(crate) struct Thin {
    /// Without a slash at its end.
    address: String,
    scope: Scope,
    keys: Option<Keys>,
    signs_payloads: bool,
    /// How many seconds the server's clock is ahead of ours, as far as that has mattered.
    ahead: AtomicI64,
}

impl Thin {
    /// # Errors
    ///
    /// `InvalidInput` where the SDK knows no address for the bucket.
    pub(crate) fn new(config: &S3Config) -> Result<Self, Fault> {
        let nowhere = |e: Box<dyn std::error::Error + Send + Sync>| {
            Fault::not_applied(ErrorKind::InvalidInput, "the bucket has no address").because(e)
        };
        let params = Params::builder()
            .bucket(&config.bucket)
            .region(&config.region)
            .set_endpoint(config.endpoint_url())
            .force_path_style(config.is_path_style())
            .disable_s3_express_session_auth(true)
            .build()
            .map_err(|e| nowhere(e.into()))?;
        let resolver = DefaultResolver::new();
        let found = futures_util::FutureExt::now_or_never(resolver.resolve_endpoint(&params));
        let endpoint = found.expect("the rules are at hand").map_err(nowhere)?;
        let scheme = endpoint.auth_schemes().first();
        let named =
            |name| scheme.and_then(|scheme: &EndpointAuthScheme| scheme.get(name)?.as_string());
        if scheme.is_some_and(|scheme| scheme.name() != "sigv4") {
            return Err(nowhere(
                "its requests are signed in a way that is not known here".into(),
            ));
        }
        let address = endpoint.url().trim_end_matches('/').to_owned();
        let region = named("signingRegion").unwrap_or(&config.region);
        let scope = Scope::new(&address, region, named("signingName").unwrap_or("s3"));
        Ok(Self {
            address,
            scope,
            keys: config.credentials.clone().map(Keys::new),
            signs_payloads: config.signs_payloads(),
            ahead: AtomicI64::new(0),
        })
    }

    /// Makes a request, and returns the answer if it is one of success.
    pub(crate) async fn ask(
        &self,
        http: &SharedHttpConnector,
        request: Request,
    ) -> Result<HttpResponse, Failure> {
        let keys = match &self.keys {
            Some(keys) => Some(keys.get().await.map_err(|e| Failure::of_credentials(&e))?),
            None => None,
        };
        let request = self.prepared(request, keys.as_ref());
        let request = request.map_err(|e| Failure::of_request(&*e))?;
        let answer = http.call(request).await;
        let answer = answer.map_err(|e| Failure::of_connection(&e))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(self.refused(answer).await)
    }

    /// The request as it goes out: addressed and signed.
    fn prepared(
        &self,
        request: Request,
        keys: Option<&Credentials>,
    ) -> Result<HttpRequest, Box<dyn std::error::Error + Send + Sync>> {
        let address = format!("{}{}", self.address, request.target);
        let mut prepared = HttpRequest::new(SdkBody::empty());
        if let Some(keys) = keys {
            let with_body = self.signs_payloads || request.body.is_empty();
            let signed = self.scope.sign(&request, keys, self.now(), with_body)?;
            for (name, value) in signed {
                prepared.headers_mut().try_insert(name, value)?;
            }
        }
        for (name, value) in request.headers {
            prepared.headers_mut().try_insert(name, value)?;
        }
        prepared
            .headers_mut()
            .try_insert("user-agent", concat!("larder/", env!("CARGO_PKG_VERSION")))?;
        if request.method == "PUT" {
            // Of an empty body nothing else would tell the length, and some servers insist.
            let len = request.body.len().to_string();
            prepared.headers_mut().try_insert("content-length", len)?;
        }
        prepared.set_method(request.method)?;
        prepared.set_uri(address)?;
        *prepared.body_mut() = SdkBody::from(request.body);
        Ok(prepared)
    }

    /// What an answer without success says.
    async fn refused(&self, answer: HttpResponse) -> Failure {
        let status = answer.status().as_u16();
        let late = matches!(status, 400 | 401 | 403) && self.learns_time(&answer);
        let id = answer
            .headers()
            .get("x-amz-request-id")
            .unwrap_or("none")
            .to_owned();
        let body = read_body(answer.into_body(), REMARK_LEN_BYTES_MAX).await;
        let (mut code, mut message) = (None, String::new());
        // Whatever it says more than its status, if anything.
        drop(xml::read(
            body.as_deref().unwrap_or_default(),
            "Error",
            |depth, name, text| {
                match (depth, name) {
                    (1, "Code") => code = Some(text.to_owned()),
                    (1, "Message") => message = text.to_owned(),
                    _ => {}
                }
                Ok(())
            },
        ));
        let detail = format!(
            "the status {status}, the code {}, the request {id}: {message}",
            code.as_deref().unwrap_or("none")
        );
        let mut failure = Failure::of_answer(status, code, detail);
        // The next one is signed for the server's time; and what broke off may have said more.
        failure.again |= late || body.is_err();
        failure
    }

    /// The time that requests are signed for.
    fn now(&self) -> SystemTime {
        let now = SystemClock::default().now();
        let ahead = self.ahead.load(Ordering::Relaxed);
        let distance = Duration::from_secs(ahead.unsigned_abs());
        let there = if ahead < 0 {
            now.checked_sub(distance)
        } else {
            now.checked_add(distance)
        };
        there.unwrap_or(now)
    }

    /// Whether the server's clock turns out to be minutes from what was thought, and is followed from now on.
    fn learns_time(&self, answer: &HttpResponse) -> bool {
        let date = answer.headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        let Some(theirs) = date.map(|date| date.secs()) else {
            return false;
        };
        let ours = DateTime::from(SystemClock::default().now()).secs();
        let ahead = theirs.saturating_sub(ours);
        let thought = self.ahead.load(Ordering::Relaxed);
        if ahead.abs_diff(thought) < SKEW_SECS_MIN {
            return false;
        }
        self.ahead.store(ahead, Ordering::Relaxed);
        true
    }
}

/// The whole body, which is not longer than that.
pub(crate) async fn read_body(body: SdkBody, len_max: usize) -> Result<Vec<u8>, Failure> {
    let hint = body
        .content_length()
        .and_then(|len| usize::try_from(len).ok());
    let mut whole = Vec::with_capacity(hint.unwrap_or(0).min(len_max));
    let mut body = ByteStream::new(body);
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|e| Failure::garbled(format!("a body that broke off: {e}")))?;
        if bytes.len() > len_max - whole.len() {
            return Err(Failure::garbled("an answer without an end"));
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

/// Reads what nobody asked for. Only a connection whose answer was read can be used again.
pub(crate) async fn skip_body(answer: HttpResponse) -> Result<(), Failure> {
    read_body(answer.into_body(), REMARK_LEN_BYTES_MAX)
        .await
        .map(drop)
}

impl ChecksumMode {
    /// A request for an object, which asks for the checksum that the server keeps of it.
    pub(crate) fn asked(self, request: Request) -> Request {
        match self {
            Self::WhenRequired => request,
            Self::WhenSupported => request.header("x-amz-checksum-mode", "ENABLED"),
        }
    }

    /// The body of the answer, held against the checksum that came with it.
    pub(crate) fn checked(self, answer: HttpResponse) -> SdkBody {
        if self == Self::WhenRequired {
            return answer.into_body();
        }
        let found = CHECKSUM_ALGORITHMS_IN_PRIORITY_ORDER
            .iter()
            .find_map(|name| {
                let algorithm: ChecksumAlgorithm = name.parse().ok()?;
                let checksum = algorithm.into_impl();
                let header = answer.headers().get(checksum.header_name())?;
                // One of a value in parts is no base64, and is none of its bytes either.
                Some((checksum, base64::decode(header).ok()?))
            });
        match found {
            None => answer.into_body(),
            Some((checksum, sum)) => {
                let body = ChecksumBody::new(answer.into_body(), checksum, sum.into());
                SdkBody::from_body_1_x(body)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::StatusCode;

    use super::*;

    fn config() -> S3Config {
        S3Config::new("pantry").with_session("access", "secret", "token")
    }

    fn thin(config: S3Config) -> Thin {
        Thin::new(&config).unwrap()
    }

    fn answer(status: u16, body: impl Into<SdkBody>) -> HttpResponse {
        HttpResponse::new(StatusCode::try_from(status).unwrap(), body.into())
    }

    /// Failure: behind an endpoint with a path no bucket was found. Cause: to the SDK's rules the bucket goes on where
    /// the endpoint ends. Fix: an endpoint ends in a slash, for the SDK too.
    #[test]
    fn a_bucket_has_the_address_that_the_sdk_gives_it() {
        let at = |endpoint: &str| config().with_endpoint(endpoint);
        let cases = [
            (at("http://127.0.0.1:9000"), "http://127.0.0.1:9000/pantry"),
            (at("http://127.0.0.1:9000/"), "http://127.0.0.1:9000/pantry"),
            (
                at("https://jam.example/s3"),
                "https://jam.example/s3/pantry",
            ),
            (at("http://[::1]:9000"), "http://[::1]:9000/pantry"),
            (
                at("https://jam.example:9000").with_path_style(false),
                "https://pantry.jam.example:9000",
            ),
            (config(), "https://pantry.s3.us-east-1.amazonaws.com"),
            (
                config().with_region("cn-north-1"),
                "https://pantry.s3.cn-north-1.amazonaws.com.cn",
            ),
            (
                config().with_path_style(true),
                "https://s3.us-east-1.amazonaws.com/pantry",
            ),
        ];
        for (config, address) in cases {
            assert_eq!(thin(config).address, address);
        }
        for region in ["", "a b"] {
            let e = Thin::new(&config().with_region(region)).err().unwrap();
            assert_eq!(larder_traits::Classify::kind(&e), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_request_is_signed_with_all_that_it_says() {
        let keys = Credentials::new("access", "secret", Some("token".into()), None, "test");
        let put = || {
            Request::of_object("PUT", "jam/!blobs/a b+é")
                .header("if-match", "\"1\"")
                .body("plum".into())
        };
        for signing in [false, true] {
            let thin = thin(config().with_payload_signing(signing).with_region("here"));
            let made = thin.prepared(put(), Some(&keys)).unwrap();
            let path = "https://pantry.s3.here.amazonaws.com/jam/%21blobs/a%20b%2B%C3%A9";
            assert_eq!((made.method(), made.uri()), ("PUT", path));
            assert_eq!(made.body().bytes(), Some(&b"plum"[..]));
            let header = |name| made.headers().get(name).unwrap();
            assert_eq!(header("x-amz-security-token"), "token");
            let sum = header("x-amz-content-sha256");
            assert_eq!(sum == "UNSIGNED-PAYLOAD", !signing, "{sum}");
            let signature = header("authorization");
            for part in [
                "Credential=access/",
                "/here/s3/aws4_request",
                "SignedHeaders=host;if-match;x-amz-content-sha256;x-amz-date;x-amz-security-token,",
            ] {
                assert!(signature.contains(part), "{signature}");
            }
        }
        // Who has no credentials does not sign.
        let made = thin(S3Config::new("pantry")).prepared(put(), None).unwrap();
        assert_eq!(made.headers().get("authorization"), None);
        let query = Request::of_bucket(&[("prefix", "a/b&c"), ("token", "=+ é")]);
        assert_eq!(query.target, "/?prefix=a%2Fb%26c&token=%3D%2B%20%C3%A9");
    }

    #[tokio::test]
    async fn what_an_error_says_is_read_and_nothing_is_made_up() {
        let thin = thin(config());
        let told = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>plum &amp; jam</Message></Error>";
        let failure = thin.refused(answer(503, told)).await;
        assert_eq!(
            (failure.status, failure.harmless, failure.again),
            (Some(503), true, true)
        );
        assert!(failure.is("SlowDown"), "{failure}");
        let told = "the status 503, the code SlowDown, the request none: plum & jam";
        assert_eq!(failure.to_string(), told);
        let deep = "<Error><Other><Code>SlowDown</Code></Other></Error>";
        for body in ["", "plum", "<html>SlowDown</html>", deep] {
            let failure = thin.refused(answer(503, body)).await;
            assert_eq!(
                (failure.code.as_deref(), failure.harmless),
                (None, false),
                "{body}"
            );
        }
        let failure = thin
            .refused(answer(404, "x".repeat(REMARK_LEN_BYTES_MAX + 1)))
            .await;
        assert_eq!((failure.code.as_deref(), failure.again), (None, true));
    }

    #[test]
    fn the_time_is_learned_where_it_matters() {
        let thin = thin(config());
        let learned = |secs_ahead: i64| {
            let ours = DateTime::from(SystemClock::default().now()).secs();
            let theirs = DateTime::from_secs(ours + secs_ahead);
            let mut refusal = answer(403, "");
            let date = theirs.fmt(DateTimeFormat::HttpDate).unwrap();
            refusal.headers_mut().insert("date", date);
            thin.learns_time(&refusal)
        };
        assert!(!learned(100));
        assert!(learned(-3_600));
        assert!(thin.now() < SystemClock::default().now() - Duration::from_secs(3_500));
        assert!(!learned(-3_500), "that is known by now");
        assert!(learned(0));
        for odd in ["", "tomorrow"] {
            let mut refusal = answer(403, "");
            refusal.headers_mut().insert("date", odd);
            assert!(!thin.learns_time(&refusal));
        }
    }

    #[tokio::test]
    async fn a_body_is_held_against_its_checksum() {
        let with = |header: &'static str, sum: &'static str| {
            let mut answer = answer(200, "Hello world");
            answer.headers_mut().insert(header, sum);
            answer
        };
        let cases = [
            (with("x-amz-checksum-crc32", "i9aeUg=="), true),
            (with("x-amz-checksum-crc32", "i9aeUQ=="), false),
            // One of a value in parts.
            (with("x-amz-checksum-crc32", "i9aeUQ==-2"), true),
            (with("x-amz-checksum-plum", "i9aeUQ=="), true),
        ];
        for (answer, good) in cases {
            let body = ChecksumMode::WhenSupported.checked(answer);
            assert_eq!(read_body(body, 100).await.is_ok(), good);
        }
        let wrong = with("x-amz-checksum-crc32", "i9aeUQ==");
        let body = ChecksumMode::WhenRequired.checked(wrong);
        assert!(read_body(body, 100).await.is_ok());
    }
}
