//! What every error answers: which kind of thing went wrong, and whether the call may have had an effect (C-1).
//!
//! Each contract keeps an error type of its own, and all of them are built from one [`Fault`]. There is no way to
//! make a `Fault` without saying its [`Outcome`], and no conversion from `io::Error` or the like: the place in the
//! code where a call failed knows whether the commit point lay behind it, and the native error does not.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// Whether a failed call may have had an effect (C-1).
#[expect(
    clippy::exhaustive_enums,
    reason = "there is no third answer, and callers must handle both"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Certainly no effect, now or later. Repeating the call blindly is safe. Failed reads are always this.
    NotApplied,
    /// The effect may be there, may be missing, or may still arrive. Look before you act on either.
    Unknown,
}

/// What went wrong, as far as a caller can act on it (C-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing named by the call does not exist, where the contract makes that an error.
    NotFound,
    /// Another writer holds, fenced or changed what the call needed.
    Conflict,
    /// The arguments can never be accepted: malformed, or over a declared bound (C-4). Do not repeat the call.
    InvalidInput,
    /// This backend does not offer the operation. Do not repeat the call.
    Unsupported,
    /// The deadline, or the bound set in the configuration, has passed.
    Timeout,
    /// The medium or the server cannot be used at the moment. A later call may succeed.
    Unavailable,
    /// The credentials or the permissions do not allow the call.
    PermissionDenied,
    /// What is stored is not what was written. Nothing was guessed in its place.
    Corrupt,
    /// The medium is full.
    NoSpace,
    /// The store was shut down on this side.
    Closed,
    /// A defect in the backend. Report it.
    Internal,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::InvalidInput => "invalid input",
            Self::Unsupported => "unsupported",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::PermissionDenied => "permission denied",
            Self::Corrupt => "corrupt",
            Self::NoSpace => "no space",
            Self::Closed => "closed",
            Self::Internal => "internal",
        })
    }
}

/// The two questions that every error of every contract answers (C-1).
///
/// ```
/// use larder_traits::{Classify, ErrorKind, Outcome};
///
/// fn may_repeat_blindly(e: &dyn Classify) -> bool {
///     e.outcome() == Outcome::NotApplied && matches!(e.kind(), ErrorKind::Timeout | ErrorKind::Unavailable)
/// }
/// # let _ = may_repeat_blindly;
/// ```
pub trait Classify: Error {
    /// What went wrong.
    fn kind(&self) -> ErrorKind;
    /// Whether the call may have had an effect.
    fn outcome(&self) -> Outcome;
}

type Source = Box<dyn Error + Send + Sync>;

/// The one error that a backend makes; every contract's error type is built from it.
///
/// One pointer wide. Its text is for people and for logs, never for code: match on [`Classify::kind`].
pub struct Fault(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    message: Cow<'static, str>,
    source: Option<Source>,
}

impl Fault {
    /// An error before the commit point: the call certainly had no effect and never will have one.
    #[must_use]
    pub fn not_applied(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(kind, Outcome::NotApplied, message.into())
    }

    /// An error at or past the commit point, or one of which nobody can tell on which side it fell.
    #[must_use]
    pub fn unknown(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(kind, Outcome::Unknown, message.into())
    }

    /// The same error with the one beneath it attached, for [`Error::source`].
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error for a caller that had already passed the commit point. There is no way back.
    #[must_use]
    pub fn now_unknown(mut self) -> Self {
        self.0.outcome = Outcome::Unknown;
        self
    }

    fn new(kind: ErrorKind, outcome: Outcome, message: Cow<'static, str>) -> Self {
        Self(Box::new(Inner {
            kind,
            outcome,
            message,
            source: None,
        }))
    }
}

impl Classify for Fault {
    fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    fn outcome(&self) -> Outcome {
        self.0.outcome
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Fault");
        s.field("kind", &self.0.kind)
            .field("outcome", &self.0.outcome)
            .field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            s.field("source", source);
        }
        s.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_keeps_what_it_was_told() {
        let e = Fault::not_applied(ErrorKind::NoSpace, "the disk is full")
            .because(std::io::Error::other("ENOSPC"));
        assert_eq!(
            (e.kind(), e.outcome()),
            (ErrorKind::NoSpace, Outcome::NotApplied)
        );
        assert_eq!(e.to_string(), "the disk is full");
        assert_eq!(e.source().unwrap().to_string(), "ENOSPC");
        assert_eq!(e.now_unknown().outcome(), Outcome::Unknown);
    }

    #[test]
    fn a_fault_is_one_pointer_and_travels_between_threads() {
        fn travels<T: Send + Sync + 'static>() {}
        travels::<Fault>();
        assert_eq!(size_of::<Fault>(), size_of::<usize>());
    }
}
