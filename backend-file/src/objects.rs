//! [`Backend`] on plain files: long-term objects, a file each.
//!
//! A put writes its payload to a file outside the objects as it comes, and moves the finished file to its place; a get
//! opens the file once. So a reader, a crash and a dropped call see one version or the other, whole (BK-1, BK-2). Every
//! byte of a file is under a checksum, which is compared before anything of its block is handed out.
//!
//! Any number of handles and processes may be at one folder. They meet in the locks of its files and folders, which
//! the operating system frees when a process ends, however it ends. What blocks runs on threads of the handle's own.
//!
//! ```
//! use futures_util::{StreamExt, TryStreamExt, stream};
//! use larder_file::{FileBackend, ObjectsConfig};
//! use larder_traits::{Backend, Metadata, ObjectContext, ObjectId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let cellar = FileBackend::open(ObjectsConfig::new(folder.path().join("cellar"))).await?;
//! let id = ObjectId::new(ObjectContext::new("preserves", Vec::new()), "plum jam");
//! let jars = stream::iter(["first ", "second"].map(|it| Ok(it.into()))).boxed();
//! cellar.put_object(&id, &Metadata::new(), jars).await?;
//! let (metadata, payload) = cellar.get_object(&id).await?.expect("it was put a moment ago");
//! assert_eq!(metadata.size, Some(12));
//! assert_eq!(payload.try_collect::<Vec<_>>().await?.concat(), b"first second");
//! # Ok(())
//! # }
//! ```

mod config;
mod format;
mod get;
mod list;
mod name;
mod place;
mod put;
pub(crate) mod threads;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use larder_traits::{
    Backend, BackendError, Caps, ClientStream, Fault, GetResponse, Metadata, ObjectId,
    ObjectListing, ObjectPage,
};

pub use config::{OBJECTS_CAPS, ObjectsConfig};

use crate::plain::Medium;
use place::Place;
use put::{Upload, bounded};
use threads::Threads;

/// The objects of a folder.
///
/// Cheap to clone; the clones share their threads, which end with the last of them. Opening the folder again, here or
/// in another process, gives a handle that sees the same (C-2).
///
/// Reading an object and reading its metadata both count as an access that extends a `TimeToIdle` deadline (HV-8); the
/// answer shows the deadline as it is after the access. The file of an expired object is removed when the object is
/// asked for, and by [`sweep`](Self::sweep).
///
/// After a sync of a folder has failed, the handle refuses writes with `Unavailable`: what the medium lost then, no
/// later sync would report. Reads go on.
#[derive(Clone)]
pub struct FileBackend {
    place: Arc<Place>,
}

impl FileBackend {
    /// Opens the folder, and creates it where it is missing (C-2). Removes what processes left behind that were killed
    /// in the middle of a put.
    ///
    /// # Errors
    ///
    /// All `NotApplied`. `InvalidInput`: the folder holds something else, which is left as it is, or is a file.
    /// `Unsupported`: it was made by a newer version, or the file system does not tell the case of names. `Corrupt`: it
    /// is damaged. `Unavailable`, `PermissionDenied`, `NoSpace`: what the operating system says of it.
    pub async fn open(config: ObjectsConfig) -> Result<Self, Fault> {
        let medium = Medium::new(config.caps.durability >= larder_traits::Durability::Power);
        Self::open_on(config, medium).await
    }

    async fn open_on(config: ObjectsConfig, medium: Medium) -> Result<Self, Fault> {
        let threads = Threads::new(config.threads_max, config.in_flight_max, config.wait);
        let theirs = threads.clone();
        let open = threads.look(move |call| Place::open(config, theirs, medium, call));
        // Making a folder twice is making it once, so whatever became of it, nothing is lost.
        let place = open.await?;
        Ok(Self {
            place: Arc::new(place),
        })
    }

    /// What the handle declares.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.place.caps()
    }

    /// Removes the files of all objects that have expired, and tells how many. For those that nobody asks for: run it
    /// from time to time. It reads the first page of each file.
    ///
    /// # Errors
    ///
    /// What the operating system says of a folder; some may have been removed by then.
    pub async fn sweep(&self) -> Result<u64, Fault> {
        let mut removed = 0;
        for shard in 0..=u8::MAX {
            let place = Arc::clone(&self.place);
            let sweep = self
                .place
                .threads
                .run(move |call| get::sweep(&place, shard, call));
            removed += sweep.await?;
        }
        Ok(removed)
    }

    /// The text form under which `id` is stored.
    fn text_of(&self, id: &ObjectId) -> Result<String, Fault> {
        let max = self.caps().high_volume.id_len_bytes_max;
        let text = id.to_string();
        let (len, max) = (format::as_u64(text.len()), format::as_u64(max));
        bounded("bytes of an object id's text", len, max)?;
        Ok(text)
    }
}

#[async_trait]
impl Backend for FileBackend {
    fn name(&self) -> &'static str {
        "file"
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        mut stream: ClientStream,
    ) -> Result<(), BackendError> {
        let mut upload = Upload::new(&self.place, self.text_of(id)?, metadata)?;
        while let Some(chunk) = stream.next().await {
            let mut chunk = chunk.map_err(BackendError::Client)?;
            upload.admit(chunk.len())?;
            while !chunk.is_empty() {
                upload.fill(&mut chunk);
                if upload.is_full() {
                    let write = move |call: &threads::Call<'_>| {
                        let mut upload = upload;
                        upload.write(call)?;
                        Ok(upload)
                    };
                    // Nothing of it can be seen yet, whatever went wrong.
                    upload = self.place.threads.look(write).await?;
                }
            }
        }
        drop(stream);
        let finish = move |call: &threads::Call<'_>| upload.finish(call);
        Ok(self.place.threads.run(finish).await?)
    }

    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        let (id, place) = (self.text_of(id)?, Arc::clone(&self.place));
        let get = move |call: &threads::Call<'_>| {
            let Some(found) = get::access(&place, &id, call)? else {
                return Ok(None);
            };
            let metadata = found.metadata.clone();
            let mut body = found.into_body(&place);
            if body.is_short() {
                body.read()?;
            }
            Ok(Some((metadata, body)))
        };
        self.place.threads.undisturbed().await;
        let found = self.place.threads.look(get).await?;
        Ok(found.map(|(metadata, body)| (metadata, body.into_stream())))
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        let (id, place) = (self.text_of(id)?, Arc::clone(&self.place));
        let get = move |call: &threads::Call<'_>| {
            let found = get::access(&place, &id, call)?;
            Ok(found.map(|found| found.metadata))
        };
        self.place.threads.undisturbed().await;
        Ok(self.place.threads.look(get).await?)
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        let (id, place) = (self.text_of(id)?, Arc::clone(&self.place));
        let delete = move |call: &threads::Call<'_>| put::delete(&place, &id, call);
        Ok(self.place.threads.run(delete).await?)
    }

    async fn join(&self) {
        self.place.threads.settled().await;
    }
}

/// A page costs a look at all names of the folders that it takes from, of which there are 256. Ids too long for the name
/// of a file are read from their objects, and one that is damaged there is `Corrupt`.
#[async_trait]
impl ObjectListing for FileBackend {
    async fn list_objects(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ObjectPage, BackendError> {
        let (after, place) = (after.map(str::to_owned), Arc::clone(&self.place));
        let list =
            move |call: &threads::Call<'_>| list::page(&place, after.as_deref(), limit, call);
        Ok(self.place.threads.look(list).await?)
    }
}

impl fmt::Debug for FileBackend {
    /// Which folder it is, and nothing of what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBackend")
            .field("path", &self.place.config.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
