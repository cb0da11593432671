//! Checking [`BlobMulti`].

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_traits::{Atomicity, BlobInfo, BlobMulti, Classify, ErrorKind, ExternalError};

use crate::check::{Stop, describe};
use crate::checks;
use crate::contract::Contract;
use crate::cx::{Cx, Log, brief, show};
use crate::fixture::{BoxError, Env, Faults, Fixture};
use crate::run::{self, Suite};

/// How long the calls of a check may take that are not about deadlines.
const AMPLE: Duration = Duration::from_secs(60);

/// How often a call is made that a store answers with `Unavailable`, which says that a later one may succeed.
const TRIES: u32 = 12;

/// Opens stores of this contract in a world.
pub trait Open: Fixture {
    /// The store, or a `Box<dyn BlobMulti>`.
    type Store: BlobMulti + 'static;

    /// A handle on the place of that name: 1 to 20 bytes of `a-z 0-9 /`. The same name is the same place.
    fn open(&self, place: &str) -> impl Future<Output = Result<Self::Store, BoxError>> + Send;

    /// Power: stores whose medium cannot be used, each with the words for why: wrong credentials, a bucket that does
    /// not exist, a port that nobody listens on (BM-13). One that `open` refuses already need not be among them.
    fn unusable(
        &self,
    ) -> impl Future<Output = Result<Vec<(&'static str, Self::Store)>, BoxError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Power: media whose answers look like a success and are none, each with the words for how: an error inside an
    /// answer of 200, a body cut short, noise (BM-13, C-3). One is armed as [`Fixture::faults`] is; `ErrorBefore` is a
    /// call that was not served, `ErrorAfter` one that was, and both get such an answer.
    fn garbled(&self) -> Vec<(&'static str, Arc<dyn Faults>)> {
        Vec::new()
    }

    /// Power: what lies beside the place of that name, and among its objects, without being a key of it (BM-8, BM-10).
    fn foreign(&self, _place: &str) -> Option<Arc<dyn Foreign>> {
        None
    }
}

/// The surroundings of a place, seen without the store under check.
pub trait Foreign: Send + Sync {
    /// Puts there what a careless store could take for its own: a file or an object beside the place, one with the
    /// place's name as the prefix of its own, one that looks like a temporary of somebody else.
    fn plant(&self) -> BoxFuture<'_, Result<(), BoxError>>;

    /// Everything around the place that is not the place's own, names and contents, in words that are the same as long
    /// as nothing there is.
    fn look(&self) -> BoxFuture<'_, Result<String, BoxError>>;
}

/// Stores that cannot be used, each with the words for why.
pub(crate) type Unusable = Vec<(&'static str, Arc<dyn BlobMulti>)>;

pub(crate) trait World: crate::fixture::World {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Arc<dyn BlobMulti>, BoxError>>;
    fn unusable(&self) -> BoxFuture<'_, Result<Unusable, BoxError>>;
    fn garbled(&self) -> Vec<(&'static str, Arc<dyn Faults>)>;
    fn foreign(&self, place: &str) -> Option<Arc<dyn Foreign>>;
}

impl<P: Open> World for P {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Arc<dyn BlobMulti>, BoxError>> {
        async move { Ok(Arc::new(Open::open(self, place).await?) as Arc<dyn BlobMulti>) }.boxed()
    }

    fn unusable(&self) -> BoxFuture<'_, Result<Unusable, BoxError>> {
        async move {
            let stores = Open::unusable(self).await?;
            let erase = |(why, store)| (why, Arc::new(store) as Arc<dyn BlobMulti>);
            Ok(stores.into_iter().map(erase).collect())
        }
        .boxed()
    }

    fn garbled(&self) -> Vec<(&'static str, Arc<dyn Faults>)> {
        Open::garbled(self)
    }

    fn foreign(&self, place: &str) -> Option<Arc<dyn Foreign>> {
        Open::foreign(self, place)
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
    Suite::new(Contract::BlobMulti, checks::blob_multi::TABLES, &factory)
}

impl Cx<dyn World> {
    /// A handle on the place, whose calls stand in the log under `name`.
    pub(crate) async fn open_as(&self, name: &'static str, place: &str) -> Result<Handle, Stop> {
        self.log().push(format!("{name} = open({place:?})"));
        match self.world().open(place).await {
            Ok(store) => Ok(self.handle(name, store)),
            Err(e) => Err(Stop::fail(
                format!("open({place:?})"),
                e.to_string(),
                "a store",
            )),
        }
    }

    /// A handle on a store, whose calls stand in the log under `name`.
    pub(crate) fn handle(&self, name: &'static str, store: Arc<dyn BlobMulti>) -> Handle {
        Handle {
            name,
            store,
            log: Arc::clone(self.log()),
            one_in: self.profile.one_in(self.world().is_remote()),
            choices: Arc::default(),
        }
    }

    /// Two handles on one place.
    pub(crate) async fn open_two(&self, place: &str) -> Result<(Handle, Handle), Stop> {
        Ok((
            self.open_as("a", place).await?,
            self.open_as("b", place).await?,
        ))
    }
}

/// A store under check: its calls are logged, and their errors are failures unless they are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    name: &'static str,
    store: Arc<dyn BlobMulti>,
    log: Arc<Log>,
    /// Of many alike things one in so many is looked at.
    one_in: usize,
    choices: Arc<AtomicUsize>,
}

/// The log line's end of an answer.
fn answer<T>(result: &Result<T, ExternalError>, show: impl FnOnce(&T) -> String) -> String {
    match result {
        Ok(value) => show(value),
        Err(e) => format!("Err({})", describe(e)),
    }
}

fn show_value(value: &Option<impl AsRef<[u8]>>) -> String {
    match value {
        Some(value) => format!("Some({})", show(value.as_ref())),
        None => "None".into(),
    }
}

impl Handle {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The store itself, for calls that no log may slow down.
    pub(crate) fn store(&self) -> Arc<dyn BlobMulti> {
        Arc::clone(&self.store)
    }

    pub(crate) fn ample() -> Instant {
        Instant::now() + AMPLE
    }

    /// Those of `keys` that are read where all is compared: each one, but on a server a few, and others every time.
    pub(crate) fn some_of<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        const FEW: usize = 8;
        let keys: Vec<&str> = keys.collect();
        let step = (keys.len() / FEW).clamp(1, self.one_in);
        let first = self.choices.fetch_add(1, Ordering::Relaxed) % step;
        keys.into_iter().skip(first).step_by(step).collect()
    }

    fn line(&self, call: &str, answer: &str) {
        self.log.push(format!("{}.{call} -> {answer}", self.name));
    }

    pub(crate) async fn try_get(
        &self,
        deadline: Instant,
        key: &str,
    ) -> Result<Option<Vec<u8>>, ExternalError> {
        let result = self.store.get(deadline, key).await;
        self.line(&format!("get({})", name(key)), &answer(&result, show_value));
        result
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Stop> {
        let result = patient(|| self.try_get(Self::ample(), key)).await;
        result.map_err(|e| Stop::error(format!("get({})", name(key)), &e))
    }

    pub(crate) async fn try_get_bytes(
        &self,
        deadline: Instant,
        key: &str,
    ) -> Result<Option<Bytes>, ExternalError> {
        let result = self.store.get_bytes(deadline, key).await;
        let call = format!("get_bytes({})", name(key));
        self.line(&call, &answer(&result, show_value));
        result
    }

    pub(crate) async fn get_bytes(&self, key: &str) -> Result<Option<Bytes>, Stop> {
        let result = patient(|| self.try_get_bytes(Self::ample(), key)).await;
        result.map_err(|e| Stop::error(format!("get_bytes({})", name(key)), &e))
    }

    pub(crate) async fn try_get_range(
        &self,
        deadline: Instant,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, ExternalError> {
        let call = format!("get_range({}, {range:?})", name(key));
        let result = self.store.get_range(deadline, key, range).await;
        self.line(&call, &answer(&result, show_value));
        result
    }

    pub(crate) async fn get_range(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, Stop> {
        let call = format!("get_range({}, {range:?})", name(key));
        let result = patient(|| self.try_get_range(Self::ample(), key, range.clone())).await;
        result.map_err(|e| Stop::error(call, &e))
    }

    /// The keys, sorted, duplicates kept.
    pub(crate) async fn try_list(&self, deadline: Instant) -> Result<Vec<String>, ExternalError> {
        let mut result = self.store.list_keys(deadline).await;
        if let Ok(keys) = &mut result {
            keys.sort();
        }
        let shown = answer(&result, |keys| match keys.len() {
            0..=12 => brief(keys),
            n => format!("{n} keys"),
        });
        self.line("list_keys()", &shown);
        result
    }

    /// The keys, sorted, duplicates kept.
    pub(crate) async fn list(&self) -> Result<Vec<String>, Stop> {
        let result = patient(|| self.try_list(Self::ample())).await;
        result.map_err(|e| Stop::error("list_keys()", &e))
    }

    /// The keys that start with `prefix`, with their lengths, sorted, duplicates kept.
    pub(crate) async fn try_list_prefix(
        &self,
        deadline: Instant,
        prefix: &str,
    ) -> Result<Vec<BlobInfo>, ExternalError> {
        let mut result = self.store.list_prefix(deadline, prefix).await;
        if let Ok(found) = &mut result {
            found.sort();
        }
        let shown = answer(&result, |found| match found.len() {
            0..=6 => brief(found),
            n => format!("{n} keys"),
        });
        self.line(&format!("list_prefix({})", name(prefix)), &shown);
        result
    }

    /// The keys that start with `prefix`, with their lengths, sorted, duplicates kept.
    pub(crate) async fn list_prefix(&self, prefix: &str) -> Result<Vec<BlobInfo>, Stop> {
        let result = patient(|| self.try_list_prefix(Self::ample(), prefix)).await;
        result.map_err(|e| Stop::error(format!("list_prefix({})", name(prefix)), &e))
    }

    pub(crate) async fn try_set(
        &self,
        deadline: Instant,
        key: &str,
        value: impl Into<Bytes> + Send,
        atomic: Atomicity,
    ) -> Result<(), ExternalError> {
        let value = value.into();
        let call = format!("set({}, {}, {atomic:?})", name(key), show(&value));
        let result = self.store.set(deadline, key, value, atomic).await;
        self.line(&call, &answer(&result, |()| "Ok".into()));
        result
    }

    pub(crate) async fn set_with(
        &self,
        key: &str,
        value: impl Into<Bytes> + Send,
        atomic: Atomicity,
    ) -> Result<(), Stop> {
        let value = value.into();
        let result = patient(|| self.try_set(Self::ample(), key, value.clone(), atomic)).await;
        result.map_err(|e| Stop::error(format!("set({})", name(key)), &e))
    }

    pub(crate) async fn set(&self, key: &str, value: impl Into<Bytes> + Send) -> Result<(), Stop> {
        self.set_with(key, value, Atomicity::RequireAtomic).await
    }

    pub(crate) async fn try_delete(
        &self,
        deadline: Instant,
        key: &str,
    ) -> Result<(), ExternalError> {
        let result = self.store.delete(deadline, key).await;
        let call = format!("delete({})", name(key));
        self.line(&call, &answer(&result, |()| "Ok".into()));
        result
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<(), Stop> {
        let result = patient(|| self.try_delete(Self::ample(), key)).await;
        result.map_err(|e| Stop::error(format!("delete({})", name(key)), &e))
    }
}

/// Makes a call again where that is what a caller would do. Every call of this contract may be repeated.
pub(crate) async fn patient<T, F>(call: impl Fn() -> F) -> Result<T, ExternalError>
where
    F: Future<Output = Result<T, ExternalError>>,
{
    let mut tries = 1;
    loop {
        let result = call().await;
        let again = matches!(&result, Err(e) if e.kind() == ErrorKind::Unavailable);
        if !again || tries == TRIES {
            return result;
        }
        tries += 1;
        tokio::task::yield_now().await;
    }
}

/// A key as failures show it: quoted, and its length beside the start of a long one.
pub(crate) fn name(key: &str) -> String {
    const CHARS_MAX: usize = 40;
    match key.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{:?}… ({} B)", &key[..at], key.len()),
        None => format!("{key:?}"),
    }
}
