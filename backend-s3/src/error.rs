//! Native errors to kinds, and what each says about a request: whether it certainly had no effect, and whether it is
//! worth another one.

use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::result::ConnectorError;
use larder_traits::{ErrorKind, Fault};

/// The code for a condition that did not hold.
const UNMET: &str = "PreconditionFailed";

/// Our own code for an answer that takes no notice of a range.
const NO_PART: &str = "no part";

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

impl Meaning {
    /// A failure without an answer that means this.
    fn because(self, detail: String) -> Failure {
        Failure {
            kind: self.kind,
            harmless: self.harmless,
            again: self.again,
            code: None,
            status: None,
            detail,
        }
    }
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
        let meant = match &e {
            SdkError::ConstructionFailure(_) => {
                of_credentials(&e).unwrap_or(refused(ErrorKind::Internal))
            }
            SdkError::DispatchFailure(_) if never_connected(&e) => BUSY,
            SdkError::DispatchFailure(_) => of_credentials(&e).unwrap_or(DOUBTFUL),
            _ => match status {
                Some(status) if !(200..300).contains(&status) => meaning(status, code.as_deref()),
                _ => DOUBTFUL,
            },
        };
        Self {
            code,
            status,
            ..meant.because(chain(&e))
        }
    }

    /// A request that could not be made, whatever the server is like.
    pub(crate) fn of_request(e: &(dyn Error + 'static)) -> Self {
        refused(ErrorKind::Internal).because(chain(e))
    }

    /// There were no credentials to sign with.
    pub(crate) fn of_credentials(e: &CredentialsError) -> Self {
        let meant = of_credentials(e).unwrap_or(refused(ErrorKind::Internal));
        meant.because(chain(e))
    }

    /// A connection that broke off before there was an answer, or never came about.
    pub(crate) fn of_connection(e: &ConnectorError) -> Self {
        let meant = if never_connected(e) { BUSY } else { DOUBTFUL };
        meant.because(chain(e))
    }

    /// An answer with a status that is none of success.
    pub(crate) fn of_answer(status: u16, code: Option<String>, detail: String) -> Self {
        let meant = meaning(status, code.as_deref());
        Self {
            code,
            status: Some(status),
            ..meant.because(detail)
        }
    }

    /// An answer that is none, or not the one that was asked for.
    pub(crate) fn garbled(detail: impl Into<String>) -> Self {
        DOUBTFUL.because(detail.into())
    }

    /// The object is no longer the version that was asked for. Nothing is wrong with the one that it is now.
    pub(crate) fn unmet(detail: impl Into<String>) -> Self {
        Self {
            code: Some(UNMET.into()),
            ..Self::garbled(detail)
        }
    }

    /// The whole object came where a part of it was asked for, and would come again.
    pub(crate) fn no_part() -> Self {
        Self {
            code: Some(NO_PART.into()),
            again: false,
            ..Self::garbled("the whole object, where a part of it was asked for")
        }
    }

    pub(crate) fn is_no_part(&self) -> bool {
        self.is(NO_PART)
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
        self.status == Some(412) || self.is(UNMET)
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
        // Amazon says so, under 400, of a request that did not arrive in time; Ceph, under 408, of one that its disks
        // may still be working on.
        "RequestTimeout" if status == 408 => return DOUBTFUL,
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
        408 => DOUBTFUL,
        409 | 425 | 429 => BUSY,
        412 => refused(ErrorKind::Conflict),
        501 => refused(ErrorKind::Unsupported),
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

/// What it means that there were no credentials to sign with, if that is what happened: nothing was sent.
fn of_credentials(e: &(dyn Error + 'static)) -> Option<Meaning> {
    sources(e).find_map(|e| match e.downcast_ref::<CredentialsError>()? {
        // Whoever gives them out cannot be reached, and that may pass.
        CredentialsError::ProviderTimedOut(_) => Some(BUSY),
        _ => Some(refused(ErrorKind::PermissionDenied)),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_sdk_s3::operation::put_object::PutObjectError;

    use super::*;

    /// Failure: while whoever gives out credentials could not be reached, calls said that permission was denied, for
    /// good. Cause: every error of a provider was taken for a refusal. Fix: its silence is told apart.
    #[test]
    fn credentials_that_are_late_are_asked_for_again() {
        let late = CredentialsError::provider_timed_out(Duration::from_secs(5));
        let none = CredentialsError::not_loaded("nobody here");
        for (e, kind, again) in [
            (late, ErrorKind::Unavailable, true),
            (none, ErrorKind::PermissionDenied, false),
        ] {
            let e = SdkError::<PutObjectError, HttpResponse>::construction_failure(e);
            let failure = Failure::of(e);
            assert_eq!((failure.kind, failure.again), (kind, again), "{failure}");
            assert!(failure.harmless, "{failure}");
        }
    }

    #[test]
    fn a_status_alone_says_enough() {
        let cases = [
            (429, ErrorKind::Unavailable, true, true),
            (408, ErrorKind::Unavailable, false, true),
            (404, ErrorKind::Unavailable, true, false),
            (412, ErrorKind::Conflict, true, false),
            (500, ErrorKind::Unavailable, false, true),
            (501, ErrorKind::Unsupported, true, false),
            (503, ErrorKind::Unavailable, false, true),
            (507, ErrorKind::NoSpace, true, false),
            (999, ErrorKind::Unavailable, false, true),
        ];
        for (status, kind, harmless, again) in cases {
            let found = meaning(status, None);
            let found = (found.kind, found.harmless, found.again);
            assert_eq!(found, (kind, harmless, again), "{status}");
        }
    }
}
