//! What the errors of a tier mean for the whole.
//!
//! The one commit point of every operation is its swap of the row. An error before it says `NotApplied`, whatever the
//! tier said of its own part: an upload that may have landed is nothing that a reader could ever see.

use larder_traits::{BackendError, Classify, ErrorKind, Fault};

/// An error before the commit point. The error of a caller's own stream stays what it is.
pub(crate) fn before_commit(error: BackendError, what: &'static str) -> BackendError {
    match error {
        BackendError::Client(_) => error,
        _ => Fault::not_applied(error.kind(), what).because(error).into(),
    }
}

/// An error of the change log before the commit point.
pub(crate) fn unlogged(fault: Fault) -> BackendError {
    Fault::not_applied(fault.kind(), "the change could not be recorded")
        .because(fault)
        .into()
}

/// An error past the commit point, or of a call of which nobody knows on which side it fell.
pub(crate) fn past_commit(error: BackendError, what: &'static str) -> BackendError {
    Fault::unknown(error.kind(), what).because(error).into()
}

/// Whether the same call may go well if it is made again.
pub(crate) fn is_passing(error: &impl Classify) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Conflict
    )
}

pub(crate) fn invalid(why: &'static str) -> Fault {
    Fault::not_applied(ErrorKind::InvalidInput, why)
}

/// A step ended in a panic. What it was about stays in the log.
pub(crate) fn panicked() -> BackendError {
    Fault::unknown(ErrorKind::Internal, "a step panicked").into()
}
