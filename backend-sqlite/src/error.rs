//! Native errors to kinds; nothing else decides kinds.
//!
//! The outcome is decided by the place in the code: all that fails before `COMMIT` is undone and `NotApplied`, and a
//! failed `COMMIT` is looked into by the [writer](crate::writer).

use larder_traits::{ChangeId, ErrorKind, Fault};
use rusqlite::ErrorCode;
use rusqlite::ffi;

/// The kind of a native error.
pub(crate) fn kind_of(e: &rusqlite::Error) -> ErrorKind {
    use rusqlite::Error as E;
    match e {
        E::SqliteFailure(native, _) => kind_of_code(*native),
        // Our statements are fixed, so what does not fit them is the file.
        E::SqlInputError { .. }
        | E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..)
        | E::QueryReturnedNoRows => ErrorKind::Corrupt,
        E::NulError(_) | E::InvalidPath(_) => ErrorKind::InvalidInput,
        _ => ErrorKind::Internal,
    }
}

fn kind_of_code(native: ffi::Error) -> ErrorKind {
    let damaged = [
        ffi::SQLITE_IOERR_SHORT_READ,
        ffi::SQLITE_IOERR_DATA,
        ffi::SQLITE_IOERR_CORRUPTFS,
        ffi::SQLITE_ERROR,
    ];
    match native.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => ErrorKind::Timeout,
        ErrorCode::DiskFull => ErrorKind::NoSpace,
        ErrorCode::PermissionDenied
        | ErrorCode::ReadOnly
        | ErrorCode::AuthorizationForStatementDenied => ErrorKind::PermissionDenied,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => ErrorKind::Corrupt,
        ErrorCode::SystemIoFailure | ErrorCode::Unknown
            if damaged.contains(&native.extended_code) =>
        {
            ErrorKind::Corrupt
        }
        ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::OutOfMemory
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::SchemaChanged => ErrorKind::Unavailable,
        ErrorCode::TooBig => ErrorKind::InvalidInput,
        // The constraints are kept by what we write, so a row that breaks one was damaged.
        ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

/// Whether another connection has what this one needs, for a moment.
pub(crate) fn is_busy(e: &rusqlite::Error) -> bool {
    matches!(
        e.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

/// A native error before the commit point.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is given to `map_err` all over this crate"
)]
pub(crate) fn native(e: rusqlite::Error) -> Fault {
    Failure::of(&e).not_applied()
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

    pub(crate) fn of(e: &rusqlite::Error) -> Self {
        let kind = kind_of(e);
        let message = match kind {
            ErrorKind::Timeout => "other writers held the file for all of the wait",
            ErrorKind::NoSpace => "the disk is full",
            ErrorKind::PermissionDenied => "the file may not be written or read",
            ErrorKind::Corrupt => "the file is damaged, or is no SQLite file",
            ErrorKind::InvalidInput => "SQLite does not accept this",
            ErrorKind::Unavailable => "the file cannot be used at the moment",
            _ => "SQLite failed in a way that it should not",
        };
        Self {
            kind,
            message,
            detail: e.to_string(),
        }
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

/// Its turn did not come within the wait (C-4, ST-14).
pub(crate) fn waited() -> Failure {
    let message = "the call did not get its turn within the configured wait";
    Failure::new(ErrorKind::Timeout, message)
}

/// The handle was closed on this side (KV-8).
pub(crate) fn closed() -> Failure {
    Failure::new(ErrorKind::Closed, "the handle was closed")
}

/// A handle that was opened exclusively took the file over (ST-14).
pub(crate) fn fenced() -> Failure {
    let message = "the file was taken over by a handle that was opened exclusively";
    Failure::new(ErrorKind::Conflict, message)
}

/// A thread ended that should not have, and took the answer with it.
pub(crate) fn lost() -> Fault {
    Fault::unknown(ErrorKind::Internal, "a thread of the handle ended")
}

/// What is stored is not what was written.
pub(crate) fn corrupt(message: &'static str) -> Fault {
    Fault::not_applied(ErrorKind::Corrupt, message)
}

/// Refuses what is longer than a bound (C-4).
pub(crate) fn bounded(what: &str, len: usize, max: impl TryInto<u64>) -> Result<(), Fault> {
    // A number beyond 64 bits bounds nothing, nor does it on the other side.
    let max = max.try_into().unwrap_or(u64::MAX);
    if u64::try_from(len).unwrap_or(u64::MAX) <= max {
        return Ok(());
    }
    let message = format!("{what}: {len}, and at most {max} are allowed");
    Err(Fault::not_applied(ErrorKind::InvalidInput, message))
}

/// A writer came back to a change that was claimed after its lease had ended (TS-7).
pub(crate) fn claimed(id: ChangeId) -> Fault {
    let message = format!("the change {id} belongs to another writer");
    Fault::not_applied(ErrorKind::Conflict, message)
}
