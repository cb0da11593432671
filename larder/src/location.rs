//! A place by its URL: parsed and checked, but not opened.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use larder_traits::{ErrorKind, Fault};

use crate::keys::decode;
use crate::medium::{self, Medium};
use crate::open_error::OpenError;
use crate::store::{OpenOptions, Store};

/// A URL that was understood to the last key. Making one touches nothing.
#[derive(Clone)]
pub struct Location(Arc<dyn Medium>);

impl Location {
    /// Reads a URL such as `mem:name?kv_value_len_bytes_max=1024`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] of kind `InvalidInput`, or `Unsupported` for a backend that was not built in.
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        let (scheme, rest) = url.split_once(':').ok_or_else(|| OpenError::Malformed {
            url: url.to_owned(),
            why: "it has no scheme, such as `mem:`",
        })?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        medium::configure(scheme, &decode(path)?, query).map(Self)
    }

    /// The scheme of this place's backend.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.0.scheme()
    }

    /// A place apart from this one, of the same configuration, for a `name` of `a-z 0-9 /`. Different names are
    /// different places, and so are the children of different parents.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self(self.0.child(name))
    }

    /// Removes the place and all that is in it, for tests that made it. Nobody may have it open.
    ///
    /// # Errors
    ///
    /// [`OpenError::Failed`] where the medium refuses or fails; a part may be gone by then.
    pub fn erase(&self) -> Result<(), OpenError> {
        self.0.erase().map_err(|e| {
            let fault = Fault::unknown(ErrorKind::Unavailable, "the place cannot be removed");
            OpenError::Failed(fault.because(e))
        })
    }

    /// Opens the place.
    ///
    /// # Errors
    ///
    /// [`OpenError::Failed`] where the medium refuses or fails.
    pub async fn open(&self, options: &OpenOptions) -> Result<Store, OpenError> {
        let opened = self.0.open(options.clock()).await?;
        Ok(Store::new(opened))
    }
}

impl FromStr for Location {
    type Err = OpenError;

    fn from_str(url: &str) -> Result<Self, OpenError> {
        Self::parse(url)
    }
}

impl fmt::Debug for Location {
    /// The scheme alone: secrets may stand in the rest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({}:…)", self.scheme())
    }
}

#[cfg(all(test, feature = "mem"))]
mod tests {
    use super::*;

    fn why(url: &str) -> String {
        Location::parse(url)
            .expect_err("the URL is wrong")
            .to_string()
    }

    #[test]
    fn what_a_url_gets_wrong_is_said_in_one_line() {
        assert_eq!(
            why("nem:x"),
            "no backend has the scheme `nem`; did you mean `mem`?"
        );
        assert_eq!(
            why("postgres://h"),
            "no backend has the scheme `postgres`; it must be one of mem, sqlite, file, s3, tiered"
        );
        assert_eq!(
            why("/some/path"),
            "`/some/path` is not a store's URL: it has no scheme, such as `mem:`"
        );
        assert_eq!(
            why("mem:?kv_value_len_byte_max=1"),
            "`mem:` knows no key `kv_value_len_byte_max`; did you mean `kv_value_len_bytes_max`?"
        );
        assert_eq!(
            why("mem:?id_len_bytes_max=many"),
            "`id_len_bytes_max=many`: invalid digit found in string"
        );
        assert_eq!(
            why("mem:?id_len_bytes_max=1&id_len_bytes_max=2"),
            "`id_len_bytes_max=2`: the key stands there twice"
        );
        assert_eq!(
            why("mem:%FF"),
            "`%FF` is not a store's URL: its percent-encoding is not that of UTF-8"
        );
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_file_is_opened_shared_by_its_path_and_erased_with_its_log() {
        use crate::KvClient;

        let folder = tempfile::tempdir().unwrap();
        let url = format!(
            "sqlite://{}/s.db?kv_key_len_bytes_max=8",
            folder.path().display()
        );
        let child = Location::parse(&url).unwrap().child("p/1");
        let store = child.open(&OpenOptions::new()).await.unwrap();
        let again = child.open(&OpenOptions::new()).await.unwrap();
        assert_eq!(store.caps().kv_client.key_len_bytes_max, 8);
        store
            .kv_client()
            .await
            .unwrap()
            .put("k", "v")
            .await
            .unwrap();
        let read = again.kv_client().await.unwrap().get("k").await.unwrap();
        assert_eq!(read.as_deref(), Some(&b"v"[..]));
        assert!(store.blob_multi().await.is_err(), "not offered");
        drop((store, again));
        child.erase().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(why("sqlite://host/x").contains("sqlite:///path"));
        assert!(why("sqlite:").contains("sqlite:///path"));
    }

    #[tokio::test]
    async fn children_are_places_of_their_own_and_open_twice() {
        use crate::KvClient;

        let mut found = 0;
        let parents = ["mem:", "mem:a", "mem:a//p"].map(|url| Location::parse(url).unwrap());
        let mut stores = Vec::new();
        for parent in &parents {
            for name in ["p", "p1", "p/1"] {
                let child = parent.child(name);
                let store = child.open(&OpenOptions::new()).await.unwrap();
                let kv = store.kv_client().await.unwrap();
                assert_eq!(kv.get("who").await.unwrap(), None);
                kv.put("who", format!("{found}")).await.unwrap();
                stores.push((child, kv));
                found += 1;
            }
        }
        for (at, (child, _held)) in stores.iter().enumerate() {
            let again = child.open(&OpenOptions::new()).await.unwrap();
            let kv = again.kv_client().await.unwrap();
            assert_eq!(kv.get("who").await.unwrap().unwrap(), format!("{at}"));
        }
    }

    /// Failure: no place on S3 could be verified. Cause: the names of its children had characters that no prefix may
    /// have. Fix: others.
    #[cfg(feature = "s3")]
    #[tokio::test]
    async fn a_child_of_a_place_on_s3_has_a_prefix_that_may_be() {
        for place in ["s3://bucket", "s3://bucket/p"] {
            let url = format!("{place}?endpoint=http://127.0.0.1:1&region=r&anonymous=true");
            let child = Location::parse(&url).unwrap().child("t0").child("p/1");
            let opened = child.open(&OpenOptions::default()).await;
            // Nobody listens there, and that is all there is to say.
            if let Err(e) = opened {
                assert_ne!(
                    larder_traits::Classify::kind(&e),
                    ErrorKind::InvalidInput,
                    "{e}"
                );
            }
        }
    }
}
