//! Native errors to kinds, and what each says about a request: whether it certainly had no effect, and whether it is
//! worth another one.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use larder_traits::{ErrorKind, Fault};

/// A request that did not succeed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    /// It certainly had no effect and never will have one.
    pub(crate) harmless: bool,
    /// Another request may succeed.
    pub(crate) again: bool,
    /// The code that the server gave, where it gave one.
    pub(crate) code: Option<String>,
    /// The status of the answer, where there was one.
    pub(crate) status: Option<u16>,
    detail: String,
}

/// What a code or a status means.
struct Meaning {
    kind: ErrorKind,
    harmless: bool,
    again: bool,
}

const fn refused(kind: ErrorKind) -> Meaning {
    Meaning {
        kind,
        harmless: true,
        again: false,
    }
}

/// The server says that it did nothing, and would later.
const BUSY: Meaning = Meaning {
    kind: ErrorKind::Unavailable,
    harmless: true,
    again: true,
};

/// Nobody can tell.
const DOUBTFUL: Meaning = Meaning {
    kind: ErrorKind::Unavailable,
    harmless: false,
    again: true,
};

impl Failure {
    /// A failure of the SDK.
    pub(crate) fn of<E>(e: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let status = e.raw_response().map(|raw| raw.status().as_u16());
        let code = e.code().map(str::to_owned);
        let meaning = match &e {
            SdkError::ConstructionFailure(_) if mentions_credentials(&e) => {
                refused(ErrorKind::PermissionDenied)
            }
            SdkError::ConstructionFailure(_) => refused(ErrorKind::Internal),
            SdkError::DispatchFailure(_) if never_connected(&e) => BUSY,
            SdkError::DispatchFailure(_) if mentions_credentials(&e) => {
                refused(ErrorKind::PermissionDenied)
            }
            _ => match status {
                Some(status) if !(200..300).contains(&status) => meaning(status, code.as_deref()),
                _ => DOUBTFUL,
            },
        };
        Self {
            kind: meaning.kind,
            harmless: meaning.harmless,
            again: meaning.again,
            code,
            status,
            detail: chain(&e),
        }
    }

    /// An answer that is none, or not the one that was asked for.
    pub(crate) fn garbled(detail: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Unavailable,
            harmless: false,
            again: true,
            code: None,
            status: None,
            detail: detail.into(),
        }
    }

    /// What arrived is not what was stored.
    pub(crate) fn corrupt(detail: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Corrupt,
            ..Self::garbled(detail)
        }
    }

    /// No answer came within the time that one request is given.
    pub(crate) fn silent() -> Self {
        Self::garbled("the server did not answer in time")
    }

    pub(crate) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// A condition of the request did not hold.
    pub(crate) fn is_unmet(&self) -> bool {
        self.status == Some(412) || self.is("PreconditionFailed")
    }

    pub(crate) fn not_applied(&self) -> Fault {
        Fault::not_applied(self.kind, self.message()).because(self.to_string())
    }

    pub(crate) fn unknown(&self) -> Fault {
        Fault::unknown(self.kind, self.message()).because(self.to_string())
    }

    fn message(&self) -> &'static str {
        match self.kind {
            ErrorKind::NotFound => "the bucket does not exist, or lies elsewhere",
            ErrorKind::Conflict => "another writer was faster",
            ErrorKind::InvalidInput => "the server does not accept this",
            ErrorKind::Unsupported => "the server does not offer this",
            ErrorKind::PermissionDenied => "the credentials do not allow the request",
            ErrorKind::Corrupt => "what arrived is not what was stored",
            ErrorKind::NoSpace => "the server is full",
            ErrorKind::Internal => "the server refused a request that it should accept",
            _ => "the server cannot be used at the moment",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// What an answer with an error means.
fn meaning(status: u16, code: Option<&str>) -> Meaning {
    match code.unwrap_or_default() {
        "NoSuchBucket" | "PermanentRedirect" | "TemporaryRedirect" => {
            return refused(ErrorKind::NotFound);
        }
        "SlowDown"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "RequestTimeout"
        | "ThrottlingException"
        | "Throttling"
        | "OperationAborted"
        | "ConditionalRequestConflict" => return BUSY,
        "QuotaExceeded" | "InsufficientStorage" | "InsufficientCapacity" => {
            return refused(ErrorKind::NoSpace);
        }
        "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "AuthorizationHeaderMalformed" => {
            return refused(ErrorKind::PermissionDenied);
        }
        "EntityTooLarge" | "KeyTooLongError" | "EntityTooSmall" => {
            return refused(ErrorKind::InvalidInput);
        }
        // The server says so for headers that it knows and does not implement.
        "NotImplemented" => return refused(ErrorKind::Unsupported),
        _ => {}
    }
    match status {
        301 | 302 | 307 | 308 => refused(ErrorKind::NotFound),
        401 | 403 => refused(ErrorKind::PermissionDenied),
        408 | 409 | 425 | 429 => BUSY,
        412 => refused(ErrorKind::Conflict),
        507 => refused(ErrorKind::NoSpace),
        // That there is no such key is looked for by who can mean it; otherwise it is no answer of S3 at all.
        404 => Meaning {
            kind: ErrorKind::Unavailable,
            harmless: true,
            again: false,
        },
        400..=499 => refused(ErrorKind::Internal),
        _ => DOUBTFUL,
    }
}

/// Whether the request failed before a connection was there: nothing of it can have arrived.
fn never_connected(e: &(dyn Error + 'static)) -> bool {
    sources(e).any(|e| {
        e.downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect)
    })
}

fn mentions_credentials(e: &(dyn Error + 'static)) -> bool {
    sources(e).any(|e| {
        e.downcast_ref::<aws_credential_types::provider::error::CredentialsError>()
            .is_some()
    })
}

fn sources<'a>(e: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(e), |&e| e.source())
}

/// The whole chain in one line. The SDK keeps secrets out of its errors.
fn chain(e: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = sources(e).map(ToString::to_string).collect();
    words.dedup();
    words.join(": ")
}

/// The deadline came before anything was sent, or the call was a read.
pub(crate) fn timed_out() -> Fault {
    Fault::not_applied(ErrorKind::Timeout, "the deadline has passed")
}

/// The deadline came while a write was on its way.
pub(crate) fn timed_out_on_the_way() -> Fault {
    let message = "the deadline has passed while the write was on its way";
    Fault::unknown(ErrorKind::Timeout, message)
}

pub(crate) fn invalid(message: &'static str) -> Fault {
    Fault::not_applied(ErrorKind::InvalidInput, message)
}
