//! Why a place could not be opened.

use larder_traits::{Classify, ErrorKind, Fault, Outcome};

/// What was wrong with a URL, or with the place that it names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The text is not of the form `scheme:rest?key=value&…`.
    #[error("`{url}` is not a store's URL: {why}")]
    Malformed {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No backend has this scheme.
    #[error("no backend has the scheme `{scheme}`{hint}")]
    UnknownScheme {
        /// What was given.
        scheme: String,
        /// What may have been meant.
        hint: Hint,
    },
    /// The backend of this scheme is a feature that this program was built without.
    #[error("`{scheme}:` needs the feature `{scheme}`, which this program was built without")]
    NotBuilt {
        /// The scheme, and the feature's name.
        scheme: &'static str,
    },
    /// The backend knows no such key.
    #[error("`{scheme}:` knows no key `{key}`{hint}")]
    UnknownKey {
        /// The backend's scheme.
        scheme: &'static str,
        /// The key that was given.
        key: String,
        /// What may have been meant.
        hint: Hint,
    },
    /// The value of a key does not read.
    #[error("`{key}={value}`: {why}")]
    InvalidValue {
        /// The key.
        key: String,
        /// The value that was given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The backend does not offer this contract.
    #[error("`{scheme}:` does not offer {what}")]
    NotOffered {
        /// The backend's scheme.
        scheme: &'static str,
        /// What was asked for.
        what: &'static str,
    },
    /// The medium refused or failed.
    #[error(transparent)]
    Failed(#[from] Fault),
}

impl Classify for OpenError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed { .. }
            | Self::UnknownScheme { .. }
            | Self::UnknownKey { .. }
            | Self::InvalidValue { .. } => ErrorKind::InvalidInput,
            Self::NotBuilt { .. } | Self::NotOffered { .. } => ErrorKind::Unsupported,
            Self::Failed(fault) => fault.kind(),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Failed(fault) => fault.outcome(),
            _ => Outcome::NotApplied,
        }
    }
}

/// What a mistyped word may have meant; shows as the end of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint(String);

impl Hint {
    /// The known word that is nearest to `given`, or all of them where none is near.
    pub(crate) fn of(given: &str, known: &[&str]) -> Self {
        let nearest = known
            .iter()
            .map(|word| (strsim::damerau_levenshtein(given, word), word))
            .filter(|(distance, word)| *distance * 3 <= word.len().max(3))
            .min();
        Self(match nearest {
            Some((_, word)) => format!("; did you mean `{word}`?"),
            None if known.is_empty() => "; it knows none".into(),
            None => format!("; it must be one of {}", known.join(", ")),
        })
    }
}

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
