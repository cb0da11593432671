//! Checking [`BlobStore`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_traits::{AlignedBlobBuf, BlobGuid, BlobStore, BlobStoreError, Classify, ErrorKind};

use crate::check::{Stop, describe};
use crate::checks;
use crate::checks::blob_store::content::{self, Content};
use crate::contract::Contract;
use crate::cx::{Cx, Log};
use crate::fixture::{BoxError, Env, Fixture};
use crate::run::{self, Suite};

/// Opens stores of this contract in a world.
///
/// The suite calls a store on threads of its own that belong to a `tokio` runtime.
pub trait Open: Fixture {
    /// The store, or a `Box<dyn BlobStore>`.
    type Store: BlobStore + 'static;

    /// A handle on the place of that name: 1 to 20 bytes of `a-z 0-9 /`. The same name is the same place.
    fn open(&self, place: &str) -> impl Future<Output = Result<Self::Store, BoxError>> + Send;

    /// Power: the folder in whose files, or in those of its subfolders, the place keeps its frames as they were
    /// written. The suite damages them there while no handle is open (BS-13).
    fn folder(&self, _place: &str) -> Option<PathBuf> {
        None
    }
}

pub(crate) trait World: crate::fixture::World {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Arc<dyn BlobStore>, BoxError>>;
    fn folder(&self, place: &str) -> Option<PathBuf>;
}

impl<P: Open> World for P {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Arc<dyn BlobStore>, BoxError>> {
        async move { Ok(Arc::new(Open::open(self, place).await?) as Arc<dyn BlobStore>) }.boxed()
    }

    fn folder(&self, place: &str) -> Option<PathBuf> {
        Open::folder(self, place)
    }
}

/// The checks of this contract on the worlds of `P`.
#[must_use]
pub fn suite<P: Open>() -> Suite {
    suite_with(|env: Env| async move { P::new(&env).await })
}

/// The checks of this contract on worlds that `make` makes.
pub fn suite_with<P, M, F>(make: M) -> Suite
where
    P: Open,
    M: Fn(Env) -> F + Send + Sync + 'static,
    F: Future<Output = Result<P, BoxError>> + Send + 'static,
{
    let factory = run::factory(make, |world: P| Box::new(world) as Box<dyn World>);
    Suite::new(Contract::BlobStore, checks::blob_store::TABLES, &factory)
}

/// How long a place may take to let go of its lock after its handle was dropped.
const RELEASE_MAX: Duration = Duration::from_secs(5);

impl Cx<dyn World> {
    pub(crate) async fn try_open_as(
        &self,
        name: &'static str,
        place: &str,
    ) -> Result<Handle, BoxError> {
        let result = self.world().open(place).await;
        let shown = result.as_ref().err().map(ToString::to_string);
        let shown = shown.map_or_else(String::new, |e| format!(" -> Err({e})"));
        self.log().push(format!("{name} = open({place:?}){shown}"));
        Ok(Handle {
            name,
            store: result?,
            log: Arc::clone(self.log()),
        })
    }

    /// A handle on the place, whose calls stand in the log under `name`.
    pub(crate) async fn open_as(&self, name: &'static str, place: &str) -> Result<Handle, Stop> {
        let result = self.try_open_as(name, place).await;
        result.map_err(|e| Stop::fail(format!("open({place:?})"), e.to_string(), "a store"))
    }

    pub(crate) async fn open(&self, place: &str) -> Result<Handle, Stop> {
        self.open_as("a", place).await
    }

    /// Two handles on one place; the same one twice where the place is open once only (BS-14).
    pub(crate) async fn open_two(&self, place: &str) -> Result<(Handle, Handle), Stop> {
        let a = self.open_as("a", place).await?;
        let b = self.second(&a, place).await?;
        Ok((a, b))
    }

    /// Drops all handles on the place and opens it again.
    pub(crate) async fn reopen(
        &self,
        place: &str,
        old: impl IntoIterator<Item = Handle>,
    ) -> Result<(Handle, Handle), Stop> {
        for handle in old {
            self.log().push(format!("drop({})", handle.name));
        }
        let started = Instant::now();
        let a = loop {
            match self.try_open_as("a", place).await {
                Ok(a) => break a,
                // A handle may let go of its place a little after it was dropped.
                Err(_) if started.elapsed() < RELEASE_MAX => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(e) => {
                    let what = format!("open({place:?}) after all handles were dropped");
                    return Err(Stop::fail(what, e.to_string(), "a store"));
                }
            }
        };
        let b = self.second(&a, place).await?;
        Ok((a, b))
    }

    /// Another handle beside `a`; `a` itself where the place is open once only (BS-14).
    async fn second(&self, a: &Handle, place: &str) -> Result<Handle, Stop> {
        if self.caps.blob_store.exclusive {
            Ok(a.named("b"))
        } else {
            self.open_as("b", place).await
        }
    }
}

/// A store under check: its calls are logged, and their errors are failures unless they are asked for.
#[derive(Clone)]
pub(crate) struct Handle {
    name: &'static str,
    store: Arc<dyn BlobStore>,
    log: Arc<Log>,
}

/// The log line's end of an answer.
fn answer<T>(result: &Result<T, BlobStoreError>, show: impl FnOnce(&T) -> String) -> String {
    match result {
        Ok(value) => show(value),
        Err(e) => format!("Err({})", describe(e)),
    }
}

impl Handle {
    pub(crate) fn store(&self) -> &Arc<dyn BlobStore> {
        &self.store
    }

    /// The same handle under another name.
    pub(crate) fn named(&self, name: &'static str) -> Self {
        Self {
            name,
            ..self.clone()
        }
    }

    fn line(&self, call: &str, answer: &str) {
        self.log.push(format!("{}.{call} -> {answer}", self.name));
    }

    /// Reads into `dst`, and says what was found.
    fn read_into(
        &self,
        guid: BlobGuid,
        dst: &mut AlignedBlobBuf,
    ) -> Result<Content, BlobStoreError> {
        let result = self.store.read_blob(guid, dst).map(|()| Content::of(dst));
        let shown = answer(&result, ToString::to_string);
        self.line(&format!("read_blob({guid})"), &shown);
        result
    }

    pub(crate) fn try_read_into(
        &self,
        guid: BlobGuid,
        dst: &mut AlignedBlobBuf,
    ) -> Result<(), BlobStoreError> {
        self.read_into(guid, dst).map(drop)
    }

    /// Reads into a buffer full of 0xAA, and says what was found.
    pub(crate) fn try_read(&self, guid: BlobGuid) -> Result<Content, BlobStoreError> {
        let mut dst = AlignedBlobBuf::zeroed();
        dst.fill(0xAA);
        self.read_into(guid, &mut dst)
    }

    /// Reads all of these in one call, each into a buffer full of 0xAA, by turns the store's own and plain heap.
    pub(crate) fn read_all(
        &self,
        names: &[BlobGuid],
    ) -> Result<Vec<Result<Content, BlobStoreError>>, Stop> {
        let buf = |at: usize| match at % 2 {
            0 => AlignedBlobBuf::zeroed(),
            _ => self.store.alloc_blob_buf_uninit(),
        };
        let mut bufs: Vec<AlignedBlobBuf> = (0..names.len()).map(buf).collect();
        for buf in &mut bufs {
            buf.fill(0xAA);
        }
        let mut reads: Vec<_> = names.iter().copied().zip(&mut bufs).collect();
        let answers = self.store.read_blobs(&mut reads);
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        let shown = format!("{} answers, {failed} of them errors", answers.len());
        self.line(&format!("read_blobs of {}", names.len()), &shown);
        if answers.len() != names.len() {
            let expected = format!("{} answers", names.len());
            return Err(Stop::fail("read_blobs", shown, expected));
        }
        let seen = answers.into_iter().zip(&bufs);
        Ok(seen
            .map(|(answer, buf)| answer.map(|()| Content::of(buf)))
            .collect())
    }

    pub(crate) fn try_read_range(
        &self,
        guid: BlobGuid,
        offset: usize,
        dst: &mut [u8],
    ) -> Result<(), BlobStoreError> {
        let call = format!("read_blob_range({guid}, {offset}, {} bytes)", dst.len());
        let result = self.store.read_blob_range(guid, offset, dst);
        self.line(&call, &answer(&result, |()| "Ok".into()));
        result
    }

    /// What blob `guid` holds; `Absent` where the store says `NotFound`.
    pub(crate) fn content(&self, guid: BlobGuid) -> Result<Content, Stop> {
        let what = || format!("read_blob({guid})");
        match self.try_read(guid) {
            Ok(content) => Ok(content),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                checks::refused::<()>(&what(), Err(e), ErrorKind::NotFound)?;
                Ok(Content::Absent)
            }
            Err(e) => Err(Stop::error(what(), &e)),
        }
    }

    /// Fails unless blob `guid` is the frame of `tag`, or absent where that is `None`.
    pub(crate) fn expect(&self, what: &str, guid: BlobGuid, tag: Option<u64>) -> Result<(), Stop> {
        let expected = tag.map_or(Content::Absent, Content::Frame);
        let seen = self.content(guid)?;
        if seen == expected {
            return Ok(());
        }
        let what = format!("{what}: {}.read_blob({guid})", self.name);
        Err(Stop::fail(what, seen.to_string(), expected.to_string()))
    }

    fn write_shown(
        &self,
        guid: BlobGuid,
        src: &AlignedBlobBuf,
        shown: &Content,
    ) -> Result<(), BlobStoreError> {
        let result = self.store.write_blob(guid, src);
        let call = format!("write_blob({guid}, {shown})");
        self.line(&call, &answer(&result, |()| "Ok".into()));
        result
    }

    pub(crate) fn try_write(&self, guid: BlobGuid, tag: u64) -> Result<(), BlobStoreError> {
        self.write_shown(guid, &content::frame(tag), &Content::Frame(tag))
    }

    /// Writes the frame of `tag`.
    pub(crate) fn write(&self, guid: BlobGuid, tag: u64) -> Result<(), Stop> {
        let result = self.try_write(guid, tag);
        result.map_err(|e| Stop::error(format!("write_blob({guid})"), &e))
    }

    /// Writes a buffer as it is.
    pub(crate) fn write_buf(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<(), Stop> {
        let result = self.write_shown(guid, src, &Content::of(src));
        result.map_err(|e| Stop::error(format!("write_blob({guid})"), &e))
    }

    pub(crate) fn try_write_all(
        &self,
        how: Batch,
        writes: &[(BlobGuid, &AlignedBlobBuf)],
    ) -> Result<(), BlobStoreError> {
        let result = match how {
            Batch::Plain => self.store.write_blobs(writes),
            Batch::DataSync => self.store.write_blobs_with_data_sync(writes),
        };
        let call = match writes.len() {
            0..=4 => {
                let writes: Vec<String> = writes
                    .iter()
                    .map(|(guid, src)| format!("({guid}, {})", Content::of(src)))
                    .collect();
                format!("{}([{}])", how.name(), writes.join(", "))
            }
            n => format!("{}({n} frames)", how.name()),
        };
        self.line(&call, &answer(&result, |()| "Ok".into()));
        result
    }

    pub(crate) fn write_all(
        &self,
        how: Batch,
        writes: &[(BlobGuid, &AlignedBlobBuf)],
    ) -> Result<(), Stop> {
        let result = self.try_write_all(how, writes);
        let what = format!("{} of {} frames", how.name(), writes.len());
        result.map_err(|e| Stop::error(what, &e))
    }

    pub(crate) fn try_delete(&self, guid: BlobGuid) -> Result<(), BlobStoreError> {
        let result = self.store.delete_blob(guid);
        let shown = answer(&result, |()| "Ok".into());
        self.line(&format!("delete_blob({guid})"), &shown);
        result
    }

    pub(crate) fn delete(&self, guid: BlobGuid) -> Result<(), Stop> {
        let result = self.try_delete(guid);
        result.map_err(|e| Stop::error(format!("delete_blob({guid})"), &e))
    }

    /// The names, sorted, duplicates kept.
    pub(crate) fn list(&self) -> Result<Vec<BlobGuid>, Stop> {
        let mut result = self.store.list_blobs();
        if let Ok(guids) = &mut result {
            guids.sort();
        }
        let shown = answer(&result, |guids| match guids.len() {
            0..=6 => format!("{guids:?}"),
            n => format!("{n} blobs"),
        });
        self.line("list_blobs()", &shown);
        result.map_err(|e| Stop::error("list_blobs()", &e))
    }

    pub(crate) fn has(&self, guid: BlobGuid) -> Result<bool, Stop> {
        let result = self.store.has_blob(guid);
        let shown = answer(&result, ToString::to_string);
        self.line(&format!("has_blob({guid})"), &shown);
        result.map_err(|e| Stop::error(format!("has_blob({guid})"), &e))
    }

    pub(crate) fn flush(&self) -> Result<(), Stop> {
        let result = self.store.flush();
        self.line("flush()", &answer(&result, |()| "Ok".into()));
        result.map_err(|e| Stop::error("flush()", &e))
    }

    pub(crate) fn needs_flush(&self) -> bool {
        let needs = self.store.needs_flush();
        self.line("needs_flush()", &needs.to_string());
        needs
    }
}

/// The two ways to write a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    Plain,
    DataSync,
}

impl Batch {
    pub(crate) const BOTH: [Self; 2] = [Self::Plain, Self::DataSync];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "write_blobs",
            Self::DataSync => "write_blobs_with_data_sync",
        }
    }
}
