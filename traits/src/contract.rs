//! The contracts by name.

use std::fmt;

/// A contract, where programs have to name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Contract {
    /// [`BlobMulti`](crate::BlobMulti)
    BlobMulti,
    /// [`Stash`](crate::Stash)
    Stash,
    /// [`BlobStore`](crate::BlobStore)
    BlobStore,
    /// [`HighVolumeBackend`](crate::HighVolumeBackend), which includes [`Backend`](crate::Backend)
    HighVolume,
    /// [`Backend`](crate::Backend)
    Backend,
    /// [`KvClient`](crate::KvClient)
    KvClient,
    /// [`ChangeLog`](crate::ChangeLog)
    ChangeLog,
}

impl Contract {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::BlobMulti,
        Self::Stash,
        Self::BlobStore,
        Self::HighVolume,
        Self::Backend,
        Self::KvClient,
        Self::ChangeLog,
    ];

    /// Its name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BlobMulti => "blob-multi",
            Self::Stash => "stash",
            Self::BlobStore => "blob-store",
            Self::HighVolume => "high-volume",
            Self::Backend => "backend",
            Self::KvClient => "kv-client",
            Self::ChangeLog => "change-log",
        }
    }

    /// The contract of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|contract| contract.name() == name)
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
