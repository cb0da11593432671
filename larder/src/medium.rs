//! What the facade asks of each backend: one file here for each feature, and nothing else knows the backend.

#[cfg(any(feature = "file", feature = "sqlite"))]
use std::ffi::OsString;
use std::fmt;
use std::io;
#[cfg(any(feature = "file", feature = "sqlite"))]
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use larder_traits::{
    Backend, BlobMulti, BlobStore, Caps, ChangeLog, Clock, Contract, HighVolumeBackend, KvDriver,
    StashDriver,
};

use crate::keys::Keys;
use crate::open_error::{Hint, OpenError};

#[cfg(feature = "file")]
mod file;
#[cfg(feature = "mem")]
mod mem;
#[cfg(feature = "s3")]
mod s3;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "tiered")]
mod tiered;

/// A place that was configured and not opened.
#[async_trait]
pub(crate) trait Medium: fmt::Debug + Send + Sync {
    /// See `Location::scheme`.
    fn scheme(&self) -> &'static str;

    /// See `Location::child`.
    fn child(&self, name: &str) -> Arc<dyn Medium>;

    /// See `Location::erase`. What is gone with its last handle needs no erasing.
    fn erase(&self) -> io::Result<()> {
        Ok(())
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Box<dyn Opened>, OpenError>;
}

/// An opened place. A method that stays as it is here means that the contract is not offered.
#[async_trait]
pub(crate) trait Opened: fmt::Debug + Send + Sync {
    fn scheme(&self) -> &'static str;

    fn caps(&self) -> Caps;

    /// What is declared for one contract, where that is not the same for all.
    fn caps_of(&self, _contract: Contract) -> Caps {
        self.caps()
    }

    /// The contracts whose methods are overridden.
    fn offers(&self) -> &'static [Contract];

    async fn blob_multi(&self) -> Result<Arc<dyn BlobMulti>, OpenError> {
        Err(self.lacks("blob-multi"))
    }

    async fn stash(&self) -> Result<Arc<dyn StashDriver>, OpenError> {
        Err(self.lacks("stash"))
    }

    async fn blob_store(&self) -> Result<Arc<dyn BlobStore>, OpenError> {
        Err(self.lacks("blob-store"))
    }

    async fn backend(&self) -> Result<Arc<dyn Backend>, OpenError> {
        Err(self.lacks("backend"))
    }

    async fn high_volume(&self) -> Result<Arc<dyn HighVolumeBackend>, OpenError> {
        Err(self.lacks("high-volume"))
    }

    async fn kv_client(&self) -> Result<Arc<dyn KvDriver>, OpenError> {
        Err(self.lacks("kv-client"))
    }

    async fn change_log(&self) -> Result<Arc<dyn ChangeLog>, OpenError> {
        Err(self.lacks("change-log"))
    }

    fn lacks(&self, what: &'static str) -> OpenError {
        OpenError::NotOffered {
            scheme: self.scheme(),
            what,
        }
    }
}

/// Every scheme there is, built in or not; each is the name of its feature.
const SCHEMES: &[&str] = &["mem", "sqlite", "file", "s3", "tiered"];

/// The path in `scheme:///path`, or in `scheme:path` below the working folder.
#[cfg(any(feature = "file", feature = "sqlite"))]
fn local<'a>(scheme: &str, path: &'a str, why: &'static str) -> Result<&'a str, OpenError> {
    match path.strip_prefix("//") {
        Some(local) if local.starts_with('/') => Ok(local),
        None if !path.is_empty() => Ok(path),
        _ => Err(OpenError::Malformed {
            url: format!("{scheme}:{path}"),
            why,
        }),
    }
}

/// A path beside this one. Slashes of a name are written otherwise than the step to a child.
#[cfg(any(feature = "file", feature = "sqlite"))]
fn child_path(path: &Path, name: &str) -> PathBuf {
    let mut child = OsString::from(path);
    child.push(format!("~{}", name.replace('/', "+")));
    child.into()
}

/// Hands the parts of a URL to the backend of its scheme.
pub(crate) fn configure(
    scheme: &str,
    path: &str,
    query: &str,
) -> Result<Arc<dyn Medium>, OpenError> {
    let Some(&scheme) = SCHEMES.iter().find(|known| **known == scheme) else {
        return Err(OpenError::UnknownScheme {
            scheme: scheme.to_owned(),
            hint: Hint::of(scheme, SCHEMES),
        });
    };
    let keys = Keys::read(scheme, query)?;
    match scheme {
        #[cfg(feature = "mem")]
        "mem" => mem::configure(path, keys),
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite::configure(path, keys),
        #[cfg(feature = "file")]
        "file" => file::configure(path, keys),
        #[cfg(feature = "s3")]
        "s3" => s3::configure(path, keys),
        #[cfg(feature = "tiered")]
        "tiered" => tiered::configure(path, keys),
        // Only a backend that was built in can tell what the rest of the URL means.
        _ => {
            let _unread = (path, keys);
            Err(OpenError::NotBuilt { scheme })
        }
    }
}
