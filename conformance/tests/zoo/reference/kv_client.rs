//! `KvClient` over an ordered map and a test clock.

use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::{BoxError, Caps, Env, Faults, Fixture, Probe, Suite, kv_client};
use larder_traits::kv_client::zero_ttl;
use larder_traits::{
    Clock, ClockSource, ErrorKind, Fault, KvCaps, KvClient, KvClientError, LateLanding, TestClock,
};

use super::group::Group;
use super::medium::{Medium, PATIENCE, Trouble};
use super::{Pace, lock};

pub(crate) type Answer<T> = Result<T, KvClientError>;

/// What the plain reference declares.
pub(crate) const CAPS: Caps = Caps::LEAST
    .with_late_landing(LateLanding::Fenced)
    .with_kv_client(
        KvCaps::LEAST
            .with_empty_key(true)
            .with_value_len_bytes_max(2 << 20)
            .with_ttl_granularity(Duration::ZERO)
            .with_multi_snapshot(true),
    );

pub(crate) fn invalid(why: &'static str) -> KvClientError {
    Fault::not_applied(ErrorKind::InvalidInput, why).into()
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) value: Bytes,
    /// From this moment on it is gone.
    pub(crate) expires: Option<SystemTime>,
}

/// What all handles of one name share.
#[derive(Debug)]
pub(crate) struct Place {
    /// Held for each step, so that one which looks at several keys, or looks and then writes, is one step for others.
    pub(crate) step: Mutex<()>,
    pub(crate) entries: Mutex<BTreeMap<Vec<u8>, Entry>>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) counter: AtomicU64,
    /// Whether the line is closed, for clients that share one.
    pub(crate) line_closed: Arc<AtomicBool>,
    /// A mutant's own memory.
    pub(crate) notes: Mutex<BTreeMap<Vec<u8>, Bytes>>,
    pub(crate) medium: Arc<Medium>,
    /// What the calls of stores wait for that make one at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// What they meet in where the medium is asked for several of them together.
    pub(crate) group: Arc<Group>,
}

impl Place {
    pub(crate) fn write(&self, key: &[u8], value: Bytes, ttl_secs: Option<u64>) {
        let after = |secs| self.clock.now().checked_add(Duration::from_secs(secs));
        // An end that the clock cannot express lies beyond all time, so the entry is kept for ever.
        let expires = ttl_secs.and_then(after);
        lock(&self.entries).insert(key.to_vec(), Entry { value, expires });
    }

    pub(crate) fn read(&self, key: &[u8]) -> Option<Bytes> {
        let now = self.clock.now();
        alive(&lock(&self.entries), key, now)
    }

    /// All of one moment.
    pub(crate) fn read_many(&self, keys: &[Bytes]) -> Vec<Option<Bytes>> {
        let now = self.clock.now();
        let entries = lock(&self.entries);
        keys.iter().map(|key| alive(&entries, key, now)).collect()
    }

    pub(crate) fn remove(&self, key: &[u8]) {
        lock(&self.entries).remove(key);
    }
}

fn alive(entries: &BTreeMap<Vec<u8>, Entry>, key: &[u8], now: SystemTime) -> Option<Bytes> {
    let entry = entries.get(key)?;
    let alive = entry.expires.is_none_or(|at| now < at);
    alive.then(|| entry.value.clone())
}

/// A call, as the step that judges arguments sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call<'a> {
    Write(&'a [u8], &'a [u8]),
    Read(&'a [u8]),
    Remove(&'a [u8]),
}

impl<'a> Call<'a> {
    pub(crate) fn key(self) -> &'a [u8] {
        match self {
            Self::Write(key, _) | Self::Read(key) | Self::Remove(key) => key,
        }
    }

    pub(crate) fn value(self) -> &'a [u8] {
        match self {
            Self::Write(_, value) => value,
            Self::Read(_) | Self::Remove(_) => &[],
        }
    }
}

pub(crate) type AdmitStep = Box<dyn Fn(&Place, Call<'_>) -> Answer<()> + Send + Sync>;
type KeyStep = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;
type WriteStep = Box<dyn Fn(&Place, &[u8], Bytes, Option<u64>) -> Answer<()> + Send + Sync>;
type ReadStep = Box<dyn Fn(&Place, &[u8]) -> Answer<Option<Bytes>> + Send + Sync>;
type ManyStep = Box<dyn Fn(&Place, &[Bytes]) -> Answer<Vec<Option<Bytes>>> + Send + Sync>;
type RemoveStep = Box<dyn Fn(&Place, &[u8]) -> Answer<()> + Send + Sync>;
type CloseStep = Box<dyn Fn(&Place) + Send + Sync>;
type SlowWriteStep = Box<
    dyn Fn(Arc<Place>, Vec<u8>, Bytes, Option<u64>) -> BoxFuture<'static, Answer<()>> + Send + Sync,
>;
type SlowRemoveStep =
    Box<dyn Fn(Arc<Place>, Vec<u8>) -> BoxFuture<'static, Answer<()>> + Send + Sync>;
type SlowReadStep =
    Box<dyn Fn(Arc<Place>, Vec<u8>) -> BoxFuture<'static, Answer<Option<Bytes>>> + Send + Sync>;
type SlowManyStep = Box<
    dyn Fn(Arc<Place>, Vec<Bytes>) -> BoxFuture<'static, Answer<Vec<Option<Bytes>>>> + Send + Sync,
>;

/// What is made of a medium that fails.
#[derive(Clone, Copy)]
pub(crate) struct Fails {
    /// `None`: what was asked for is taken for absent.
    pub(crate) read: fn(Trouble) -> Option<KvClientError>,
    /// The look-up before a write.
    pub(crate) stage: fn(Trouble) -> Answer<()>,
    pub(crate) write: fn(Trouble) -> Answer<()>,
    pub(crate) remove: fn(Trouble) -> Answer<()>,
}

pub(crate) const FAILS: Fails = Fails {
    read: |trouble| Some(trouble.before().into()),
    stage: |trouble| Err(trouble.before().into()),
    write: |trouble| Err(trouble.at_commit().into()),
    remove: |trouble| Err(trouble.at_commit().into()),
};

/// The bounds as the reference judges them.
pub(crate) fn admit(caps: KvCaps, call: Call<'_>) -> Answer<()> {
    if call.key().is_empty() && !caps.empty_key {
        return Err(invalid("the empty key"));
    }
    if call.key().len() > caps.key_len_bytes_max {
        return Err(invalid("a key above the bound"));
    }
    if call.value().len() > caps.value_len_bytes_max {
        return Err(invalid("a value above the bound"));
    }
    Ok(())
}

/// One handle, as a list of steps that can be exchanged.
pub(crate) struct Store {
    pub(crate) place: Arc<Place>,
    pub(crate) pace: Pace,
    pub(crate) closed: Arc<AtomicBool>,
    /// The error of a call on a client that was shut down; `None` where it answers all the same.
    pub(crate) after_shutdown: fn() -> Option<Fault>,
    /// The error for a time to live of 0; `None` where it is written all the same.
    pub(crate) zero_ttl: fn() -> Option<KvClientError>,
    pub(crate) admit: AdmitStep,
    pub(crate) key: KeyStep,
    pub(crate) write: WriteStep,
    pub(crate) read: ReadStep,
    pub(crate) many: ManyStep,
    pub(crate) remove: RemoveStep,
    pub(crate) close: CloseStep,
    /// In place of `write`, `read` and `many`, for those that take several steps: medium, patience and all.
    pub(crate) slow_write: Option<SlowWriteStep>,
    pub(crate) slow_read: Option<SlowReadStep>,
    pub(crate) slow_many: Option<SlowManyStep>,
    /// In place of `remove`, likewise.
    pub(crate) slow_remove: Option<SlowRemoveStep>,
    /// Whether calls wait for each other.
    pub(crate) one_at_a_time: bool,
    /// Whether a call ends when the medium stays silent.
    pub(crate) timer: bool,
    pub(crate) fails: Fails,
}

impl Store {
    fn new(place: Arc<Place>, caps: KvCaps) -> Self {
        Self {
            place,
            pace: Pace::Ready,
            closed: Arc::default(),
            after_shutdown: || Some(Fault::not_applied(ErrorKind::Closed, "shut down")),
            zero_ttl: || Some(zero_ttl()),
            admit: Box::new(move |_, call| admit(caps, call)),
            key: Box::new(<[u8]>::to_vec),
            write: Box::new(|place, key, value, ttl| {
                place.write(key, value, ttl);
                Ok(())
            }),
            read: Box::new(|place, key| Ok(place.read(key))),
            many: Box::new(|place, keys| Ok(place.read_many(keys))),
            remove: Box::new(|place, key| {
                place.remove(key);
                Ok(())
            }),
            close: Box::new(|_| {}),
            slow_write: None,
            slow_read: None,
            slow_many: None,
            slow_remove: None,
            one_at_a_time: false,
            timer: true,
            fails: FAILS,
        }
    }

    /// This call's turn, where calls wait for each other.
    async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if self.one_at_a_time {
            Some(self.place.turn.lock().await)
        } else {
            None
        }
    }

    /// One call to the medium, with nothing between it and others while it lasts.
    async fn ask<T: Send>(&self, effect: impl FnOnce() -> T + Send) -> Result<T, Trouble> {
        let place = &self.place;
        let effect = || {
            let _step = lock(&place.step);
            effect()
        };
        if self.timer {
            place.medium.timed(effect).await
        } else {
            place.medium.call(effect).await
        }
    }

    async fn look<T: Send>(
        &self,
        look: impl FnOnce() -> Answer<T> + Send,
        absent: impl FnOnce() -> T + Send,
    ) -> Answer<T> {
        let _turn = self.turn().await;
        match self.ask(look).await {
            Ok(answer) => answer,
            Err(trouble) => (self.fails.read)(trouble).map_or_else(|| Ok(absent()), Err),
        }
    }

    async fn change(
        &self,
        effect: impl FnOnce() -> Answer<()> + Send,
        failed: fn(Trouble) -> Answer<()>,
    ) -> Answer<()> {
        let _turn = self.turn().await;
        if let Err(trouble) = self.ask(|| ()).await {
            (self.fails.stage)(trouble)?;
        }
        self.pace.pause().await;
        match self.ask(effect).await {
            Ok(answer) => answer,
            Err(trouble) => failed(trouble),
        }
    }

    async fn enter(&self) -> Answer<()> {
        self.pace.pause().await;
        if !self.closed.load(Relaxed) {
            return Ok(());
        }
        (self.after_shutdown)().map_or(Ok(()), |fault| Err(fault.into()))
    }

    async fn write(&self, key: &[u8], value: &[u8], ttl_secs: Option<u64>) -> Answer<()> {
        self.enter().await?;
        if ttl_secs == Some(0)
            && let Some(e) = (self.zero_ttl)()
        {
            return Err(e);
        }
        (self.admit)(&self.place, Call::Write(key, value))?;
        let value = Bytes::copy_from_slice(value);
        let key = (self.key)(key);
        if let Some(write) = &self.slow_write {
            return write(Arc::clone(&self.place), key, value, ttl_secs).await;
        }
        let effect = || (self.write)(&self.place, &key, value, ttl_secs);
        self.change(effect, self.fails.write).await
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        (self.close)(&self.place);
    }
}

/// The trait itself and not the driver beneath it, so that a mutant can get the refusals wrong that the driver's
/// blanket impl makes.
#[async_trait]
impl KvClient for Store {
    async fn put(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl AsRef<[u8]> + Send,
    ) -> Answer<()> {
        let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
        self.write(&key, &value, None).await
    }

    async fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl AsRef<[u8]> + Send,
        ttl_secs: u64,
    ) -> Answer<()> {
        let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
        self.write(&key, &value, Some(ttl_secs)).await
    }

    async fn get(&self, key: impl AsRef<[u8]> + Send) -> Answer<Option<Bytes>> {
        let key = key.as_ref().to_vec();
        self.enter().await?;
        (self.admit)(&self.place, Call::Read(&key))?;
        let key = (self.key)(&key);
        if let Some(read) = &self.slow_read {
            return read(Arc::clone(&self.place), key).await;
        }
        let look = || (self.read)(&self.place, &key);
        self.look(look, || None).await
    }

    async fn get_multi(&self, keys: &[Bytes]) -> Answer<Vec<Option<Bytes>>> {
        self.enter().await?;
        keys.iter()
            .try_for_each(|key| (self.admit)(&self.place, Call::Read(key)))?;
        let keys: Vec<_> = keys
            .iter()
            .map(|key| Bytes::from((self.key)(key)))
            .collect();
        if let Some(many) = &self.slow_many {
            return many(Arc::clone(&self.place), keys).await;
        }
        let look = || (self.many)(&self.place, &keys);
        self.look(look, || vec![None; keys.len()]).await
    }

    async fn delete(&self, key: impl AsRef<[u8]> + Send) -> Answer<()> {
        let key = key.as_ref().to_vec();
        self.enter().await?;
        (self.admit)(&self.place, Call::Remove(&key))?;
        let key = (self.key)(&key);
        if let Some(remove) = &self.slow_remove {
            return remove(Arc::clone(&self.place), key).await;
        }
        let effect = || (self.remove)(&self.place, &key);
        self.change(effect, self.fails.remove).await
    }
}

/// The places of one world, by name.
#[derive(Debug, Default)]
struct Shared {
    places: Mutex<BTreeMap<String, Arc<Place>>>,
    clock: Arc<TestClock>,
    medium: Arc<Medium>,
}

impl Shared {
    fn place(&self, name: &str) -> Arc<Place> {
        let mut places = lock(&self.places);
        let place = places.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Place {
                step: Mutex::default(),
                entries: Mutex::default(),
                clock: Arc::clone(&self.clock),
                counter: AtomicU64::default(),
                line_closed: Arc::default(),
                notes: Mutex::default(),
                medium: Arc::clone(&self.medium),
                turn: tokio::sync::Mutex::default(),
                group: Arc::default(),
            })
        });
        Arc::clone(place)
    }
}

impl Probe for Shared {
    fn rows(&self, place: &str) -> BoxFuture<'_, Result<u64, BoxError>> {
        let rows = lock(&self.place(place).entries).len();
        ready(u64::try_from(rows).map_err(BoxError::from)).boxed()
    }
}

/// How a handle differs from the plain reference; called at each open.
pub(crate) type Bend = fn(&mut Store);

pub(crate) struct World {
    shared: Arc<Shared>,
    caps: Caps,
    bend: Bend,
}

impl World {
    fn with(caps: Caps, bend: Bend) -> Self {
        let shared: Arc<Shared> = Arc::default();
        if caps.clock != ClockSource::Injected {
            super::let_run(&shared.clock);
        }
        Self { shared, caps, bend }
    }
}

impl Fixture for World {
    async fn new(_env: &Env) -> Result<Self, BoxError> {
        Ok(Self::with(CAPS, |_| {}))
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        (self.caps.clock == ClockSource::Injected).then(|| Arc::clone(&self.shared.clock))
    }

    async fn settle(&self) {
        tokio::time::sleep(super::SETTLED).await;
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::clone(&self.shared.medium) as Arc<dyn Faults>)
    }

    fn probe(&self) -> Option<Arc<dyn Probe>> {
        Some(Arc::clone(&self.shared) as Arc<dyn Probe>)
    }
}

impl kv_client::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        let mut store = Store::new(self.shared.place(place), self.caps.kv_client);
        (self.bend)(&mut store);
        Ok(store)
    }

    async fn shutdown(&self, store: &Store) -> Result<bool, BoxError> {
        store.closed.store(true, Relaxed);
        Ok(true)
    }

    fn call_bound(&self) -> Option<Duration> {
        Some(PATIENCE)
    }
}

/// The suite of this contract on stores that declare `caps` and are bent by `bend`.
pub(crate) fn suite(caps: Caps, bend: Bend) -> Suite {
    kv_client::suite_with(move |_env| async move { Ok(World::with(caps, bend)) })
}
