//! Native errors to kinds; nothing else decides kinds.
//!
//! The outcome is decided by the place in the code: a write that fails has not taken effect, since its slot was fresh
//! and is given up, and of a flush that fails nobody knows how far it came.

use std::io;
use std::path::Path;

use larder_traits::{ErrorKind, Fault};

/// The kind of a native error.
pub(crate) fn kind_of(error: &io::Error) -> ErrorKind {
    use io::ErrorKind as E;
    match error.kind() {
        E::StorageFull | E::QuotaExceeded | E::FileTooLarge => ErrorKind::NoSpace,
        E::PermissionDenied | E::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        // The file is shorter than what was written to it.
        E::UnexpectedEof => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}

/// One failure that several calls are told of, since a [`Fault`] is for one.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    message: &'static str,
    detail: String,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: &'static str) -> Self {
        Self {
            kind,
            message,
            detail: String::new(),
        }
    }

    pub(crate) fn of(error: &io::Error, message: &'static str) -> Self {
        Self {
            kind: kind_of(error),
            message,
            detail: error.to_string(),
        }
    }

    pub(crate) fn with_detail(self, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { detail, ..self }
    }

    pub(crate) fn not_applied(&self) -> Fault {
        self.reasoned(Fault::not_applied(self.kind, self.message))
    }

    pub(crate) fn unknown(&self) -> Fault {
        self.reasoned(Fault::unknown(self.kind, self.message))
    }

    fn reasoned(&self, fault: Fault) -> Fault {
        if self.detail.is_empty() {
            return fault;
        }
        fault.because(self.detail.clone())
    }
}

/// What is stored is not what was written.
pub(crate) fn corrupt(message: &'static str, detail: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Corrupt, message).with_detail(detail)
}

/// An earlier flush failed, and nothing more is promised until the store is opened anew (BS-12).
pub(crate) fn stopped(why: &Failure) -> Failure {
    let message = "an earlier flush failed, so the store refuses work until it is opened anew";
    let detail = if why.detail.is_empty() {
        why.message.to_owned()
    } else {
        format!("{}: {}", why.message, why.detail)
    };
    Failure::new(ErrorKind::Unavailable, message).with_detail(detail)
}

/// Why a file could not be opened.
pub(crate) fn opening(error: &io::Error, path: &Path) -> Failure {
    use io::ErrorKind as E;
    let (kind, message) = match error.kind() {
        E::ResourceBusy => (ErrorKind::Conflict, "the store is open elsewhere"),
        E::NotFound => (ErrorKind::NotFound, "there is no such file or folder"),
        E::InvalidInput | E::IsADirectory | E::NotADirectory => {
            (ErrorKind::InvalidInput, "this cannot be a store's file")
        }
        _ => (kind_of(error), "the file could not be opened"),
    };
    Failure::new(kind, message).with_detail(format!("{}: {error}", path.display()))
}
