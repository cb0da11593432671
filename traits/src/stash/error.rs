//! What a [`Stash`](super::Stash) answers when it refuses or fails.

use super::{CollectionId, Diff, Timestamp};
use crate::frontier::Antichain;
use crate::{Classify, ErrorKind, Fault, Outcome};

/// The error of every `Stash` and `StashDriver` method (C-1).
///
/// The refusals name what was asked and what stood against it. A refused call had no effect, so their outcome is
/// always `NotApplied`. The last three variants carry a [`Fault`], which knows its own kind and outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StashError {
    /// An update's time is already sealed (ST-5). Kind `InvalidInput`: `upper` only grows.
    #[error("time {time} lies before the upper frontier {upper}")]
    TimeBeforeUpper {
        /// The time of the first update that was refused.
        time: Timestamp,
        /// The frontier that it lies before.
        upper: Antichain<Timestamp>,
    },
    /// A seal would take `upper` back (ST-6). Kind `InvalidInput`.
    #[error("cannot seal up to {new}: the upper frontier is already {upper}")]
    SealBeforeUpper {
        /// The frontier asked for.
        new: Antichain<Timestamp>,
        /// The frontier that is there.
        upper: Antichain<Timestamp>,
    },
    /// A compaction would take `since` back (ST-7). Kind `InvalidInput`.
    #[error("cannot compact to {new}: the since frontier is already {since}")]
    CompactBeforeSince {
        /// The frontier asked for.
        new: Antichain<Timestamp>,
        /// The frontier that is there.
        since: Antichain<Timestamp>,
    },
    /// A compaction would reach into what is not sealed yet (ST-7). Kind `InvalidInput`; allowed after a seal.
    #[error("cannot compact to {new}: sealed only up to {upper}")]
    CompactPastUpper {
        /// The frontier asked for.
        new: Antichain<Timestamp>,
        /// The frontier that it may not pass.
        upper: Antichain<Timestamp>,
    },
    /// The collection was compacted to the empty frontier: nothing can be read from it any more (ST-3). Kind
    /// `InvalidInput`.
    #[error("the since frontier is empty: nothing can be read any more")]
    SinceEmpty,
    /// There is no sealed time that can still be told apart (ST-10). Kind `InvalidInput`; allowed after a seal.
    #[error("nothing to peek: the since frontier {since} is not before the upper frontier {upper}")]
    NothingSealed {
        /// How far the collection is compacted.
        since: Antichain<Timestamp>,
        /// How far it is sealed.
        upper: Antichain<Timestamp>,
    },
    /// Two values of one key, where one was asked for (ST-11). Kind `InvalidInput`; use `peek`.
    #[error("a key has more than one value")]
    DuplicateKey,
    /// A multiplicity that is not 1, where 1 was asked for (ST-11). Kind `InvalidInput`; use `peek`.
    #[error("a key's value has the multiplicity {diff} instead of 1")]
    UnexpectedMultiplicity {
        /// The multiplicity that was found.
        diff: Diff,
    },
    /// The differences of equal rows add up to more than an `i64` holds (ST-5). Kind `InvalidInput`; an update of
    /// the opposite sign heals it.
    #[error("the sum of a row's differences does not fit 64 bits")]
    DiffOverflow,
    /// An `append` expected another upper frontier: somebody else was there first. Kind `Conflict`; read again and
    /// decide anew.
    #[error("expected the upper frontier {expected}, found {upper}")]
    UpperMismatch {
        /// What the caller expected.
        expected: Antichain<Timestamp>,
        /// What is there.
        upper: Antichain<Timestamp>,
    },
    /// The handle's collection was dropped (ids are never used again), or never was in this stash. Kind
    /// `NotFound`; open it again by its name.
    #[error("no collection with the id {id}")]
    NoCollection {
        /// The id of the handle.
        id: CollectionId,
    },
    /// A key or value that will not encode (kind `InvalidInput`) or a stored row that does not decode (kind
    /// `Corrupt`) (ST-2).
    #[error("a row will not encode or decode")]
    Codec(#[source] Fault),
    /// An exclusive writer was replaced by a newer one (ST-14). Kind `Conflict`; this handle is of no use any more.
    #[error("fenced by another writer")]
    Fenced(#[source] Fault),
    /// The medium or the backend failed.
    #[error(transparent)]
    Backend(Fault),
}

/// A fault of kind `Conflict` means fencing here; all others are the backend's.
impl From<Fault> for StashError {
    fn from(fault: Fault) -> Self {
        match fault.kind() {
            ErrorKind::Conflict => Self::Fenced(fault),
            _ => Self::Backend(fault),
        }
    }
}

impl Classify for StashError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TimeBeforeUpper { .. }
            | Self::SealBeforeUpper { .. }
            | Self::CompactBeforeSince { .. }
            | Self::CompactPastUpper { .. }
            | Self::SinceEmpty
            | Self::NothingSealed { .. }
            | Self::DuplicateKey
            | Self::UnexpectedMultiplicity { .. }
            | Self::DiffOverflow => ErrorKind::InvalidInput,
            Self::UpperMismatch { .. } => ErrorKind::Conflict,
            Self::NoCollection { .. } => ErrorKind::NotFound,
            Self::Codec(fault) | Self::Fenced(fault) | Self::Backend(fault) => fault.kind(),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Codec(fault) | Self::Fenced(fault) | Self::Backend(fault) => fault.outcome(),
            _ => Outcome::NotApplied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn a_fault_becomes_fenced_or_the_backends() {
        let fenced = StashError::from(Fault::not_applied(ErrorKind::Conflict, "newer writer"));
        assert!(matches!(fenced, StashError::Fenced(_)));
        assert_eq!(
            (fenced.kind(), fenced.outcome()),
            (ErrorKind::Conflict, Outcome::NotApplied)
        );
        assert_eq!(fenced.source().unwrap().to_string(), "newer writer");

        let broken = StashError::from(Fault::unknown(ErrorKind::Unavailable, "gone"));
        assert!(matches!(broken, StashError::Backend(_)));
        assert_eq!(
            (broken.kind(), broken.outcome()),
            (ErrorKind::Unavailable, Outcome::Unknown)
        );
        assert_eq!(broken.to_string(), "gone");
        assert!(broken.source().is_none());
    }

    #[test]
    fn refusals_are_never_applied() {
        let id = CollectionId::new(3);
        let refusal = StashError::NoCollection { id };
        assert_eq!(
            (refusal.kind(), refusal.outcome()),
            (ErrorKind::NotFound, Outcome::NotApplied)
        );
        let refusal = StashError::UpperMismatch {
            expected: Antichain::from_elem(1),
            upper: Antichain::new(),
        };
        assert_eq!(
            (refusal.kind(), refusal.outcome()),
            (ErrorKind::Conflict, Outcome::NotApplied)
        );
        assert_eq!(
            refusal.to_string(),
            "expected the upper frontier {1}, found {}"
        );
        assert_eq!(StashError::SinceEmpty.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn an_error_is_small_and_travels_between_threads() {
        fn travels<T: Send + Sync + 'static>() {}
        travels::<StashError>();
        assert!(size_of::<StashError>() <= 40, "{}", size_of::<StashError>());
    }
}
