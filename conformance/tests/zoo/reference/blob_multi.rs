//! `BlobMulti` over the suite's own model.

use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::model::blob_multi::Blobs;
use larder_conformance::{BoxError, Caps, Env, Faults, Fixture, Suite, blob_multi};
use larder_traits::blob_multi::slice_of;
use larder_traits::{
    Atomicity, BlobInfo, BlobMulti, BlobMultiCaps, ErrorKind, ExternalError, Fault, LateLanding,
};

use super::group::Group;
use super::medium::{Medium, Trouble};
use super::{Due, Pace, behind, lock};

pub(crate) type Answer<T> = Result<T, ExternalError>;

/// What the plain reference declares.
pub(crate) const CAPS: Caps = Caps::LEAST
    .with_late_landing(LateLanding::Fenced)
    .with_blob_multi(
        BlobMultiCaps::LEAST
            .with_key_len_bytes_max(1024)
            .with_value_len_bytes_max((8 << 20) + 1)
            .with_list_snapshot(true),
    );

pub(crate) fn invalid(why: &'static str) -> ExternalError {
    Fault::not_applied(ErrorKind::InvalidInput, why).into()
}

pub(crate) fn too_late() -> ExternalError {
    Fault::not_applied(ErrorKind::Timeout, "the deadline has passed").into()
}

/// What all handles of one name share.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) blobs: Mutex<Blobs>,
    /// A mutant's own memory.
    pub(crate) notes: Mutex<BTreeMap<String, Bytes>>,
    pub(crate) counter: AtomicU64,
    pub(crate) medium: Arc<Medium>,
    /// What the calls of stores wait for that make one at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// What they meet in where the medium is asked for several of them together.
    pub(crate) group: Arc<Group>,
}

impl Place {
    pub(crate) fn get(&self, key: &str) -> Answer<Option<Bytes>> {
        Ok(lock(&self.blobs).get(key).cloned())
    }

    pub(crate) fn list(&self) -> Answer<Vec<String>> {
        Ok(lock(&self.blobs).keys().map(str::to_owned).collect())
    }

    pub(crate) fn set(&self, key: &str, value: Bytes) -> Answer<()> {
        lock(&self.blobs).set(key, value);
        Ok(())
    }

    pub(crate) fn delete(&self, key: &str) -> Answer<()> {
        lock(&self.blobs).delete(key);
        Ok(())
    }

    pub(crate) fn clear(&self) {
        *lock(&self.blobs) = Blobs::default();
    }
}

/// A call, as the step that judges deadlines sees it.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    Get,
    Range,
    List,
    Prefix,
    Set(&'a str, &'a Bytes),
    Delete(&'a str),
}

pub(crate) type DeadlineStep =
    Box<dyn Fn(&Arc<Place>, Instant, &Call<'_>) -> Answer<()> + Send + Sync>;
type KeyStep = Box<dyn Fn(&str) -> Answer<String> + Send + Sync>;
type ValueStep = Box<dyn Fn(&Place, &str, Bytes) -> Answer<Bytes> + Send + Sync>;
type GetStep = Box<dyn Fn(&Place, &str) -> Answer<Option<Bytes>> + Send + Sync>;
type RangeStep = Box<dyn Fn(&Place, &str, Range<u64>) -> Answer<Option<Bytes>> + Send + Sync>;
type ListStep = Box<dyn Fn(&Place) -> Answer<Vec<String>> + Send + Sync>;
type PrefixStep = Box<dyn Fn(&Place, &str) -> Answer<Vec<BlobInfo>> + Send + Sync>;
type SetStep = Box<dyn Fn(&Place, &str, Bytes, Atomicity) -> Answer<()> + Send + Sync>;
type SlowGetStep =
    Box<dyn Fn(Arc<Place>, String) -> BoxFuture<'static, Answer<Option<Bytes>>> + Send + Sync>;
type SlowListStep =
    Box<dyn Fn(Arc<Place>) -> BoxFuture<'static, Answer<Vec<String>>> + Send + Sync>;
type SlowSetStep =
    Box<dyn Fn(Arc<Place>, Instant, String, Bytes) -> BoxFuture<'static, Answer<()>> + Send + Sync>;
type SlowDeleteStep =
    Box<dyn Fn(Arc<Place>, Instant, String) -> BoxFuture<'static, Answer<()>> + Send + Sync>;
type SlowRangeStep = Box<
    dyn Fn(Arc<Place>, String, Range<u64>) -> BoxFuture<'static, Answer<Option<Bytes>>>
        + Send
        + Sync,
>;
type SlowPrefixStep =
    Box<dyn Fn(Arc<Place>, String) -> BoxFuture<'static, Answer<Vec<BlobInfo>>> + Send + Sync>;
type DeleteStep = Box<dyn Fn(&Place, &str) -> Answer<()> + Send + Sync>;
type CloseStep = Box<dyn Fn(&Place) + Send + Sync>;

/// What is made of a medium that fails.
#[derive(Clone, Copy)]
pub(crate) struct Fails {
    /// `None`: what was asked for is taken for absent.
    pub(crate) read: fn(Trouble) -> Option<ExternalError>,
    pub(crate) stage: fn(Trouble) -> Answer<()>,
    pub(crate) commit: fn(Trouble) -> Answer<()>,
    /// After the commit, when what is left over is cleared away.
    pub(crate) tidy: fn(Trouble) -> Answer<()>,
    /// The deadline has come; for a write, whether it had been sent.
    pub(crate) late: fn(bool) -> ExternalError,
}

pub(crate) const FAILS: Fails = Fails {
    read: |trouble| Some(trouble.before().into()),
    stage: |trouble| Err(trouble.before().into()),
    commit: |trouble| Err(trouble.at_commit().into()),
    tidy: |_| Ok(()),
    late: |sent| {
        if sent {
            Trouble::Late.after().into()
        } else {
            too_late()
        }
    },
};

/// One handle, as a list of steps that can be exchanged.
pub(crate) struct Store {
    pub(crate) world: Arc<Shared>,
    pub(crate) place: Arc<Place>,
    pub(crate) pace: Pace,
    pub(crate) deadline: DeadlineStep,
    /// Why the medium cannot be used, where it cannot.
    unusable: Option<ErrorKind>,
    /// Whether a call takes an unusable medium for an empty one.
    pub(crate) excuses: fn(&Call<'_>) -> bool,
    /// Refuses keys, or changes them.
    pub(crate) key: KeyStep,
    /// Refuses values, or changes them.
    pub(crate) value: ValueStep,
    pub(crate) get: GetStep,
    /// `get_bytes`, where it is not `get`.
    pub(crate) bytes: Option<GetStep>,
    pub(crate) range: RangeStep,
    pub(crate) list: ListStep,
    pub(crate) prefix: PrefixStep,
    pub(crate) set: SetStep,
    /// In place of `get`, `list` and `set`, for those that take several steps: medium, deadline and all.
    pub(crate) slow_get: Option<SlowGetStep>,
    pub(crate) slow_list: Option<SlowListStep>,
    pub(crate) slow_set: Option<SlowSetStep>,
    /// In place of `set`, where it need not be atomic.
    pub(crate) slow_relaxed: Option<SlowSetStep>,
    /// In place of `delete`, `range` and `prefix`, likewise.
    pub(crate) slow_delete: Option<SlowDeleteStep>,
    pub(crate) slow_range: Option<SlowRangeStep>,
    pub(crate) slow_prefix: Option<SlowPrefixStep>,
    /// Whether calls wait for each other.
    pub(crate) one_at_a_time: bool,
    /// Whether a call ends at its deadline.
    pub(crate) timer: bool,
    pub(crate) fails: Fails,
    pub(crate) delete: DeleteStep,
    pub(crate) close: CloseStep,
}

impl Store {
    fn new(world: Arc<Shared>, place: Arc<Place>, caps: BlobMultiCaps) -> Self {
        Self {
            world,
            place,
            pace: Pace::Ready,
            deadline: Box::new(|_, deadline, _| {
                if deadline <= Instant::now() {
                    return Err(too_late());
                }
                Ok(())
            }),
            unusable: None,
            excuses: |_| false,
            key: Box::new(move |key| match key.len() {
                0 => Err(invalid("the empty key")),
                len if len > caps.key_len_bytes_max => Err(invalid("a key above the bound")),
                _ => Ok(key.to_owned()),
            }),
            value: Box::new(move |_, _, value| {
                let len = u64::try_from(value.len()).unwrap_or(u64::MAX);
                if len > caps.value_len_bytes_max {
                    return Err(invalid("a value above the bound"));
                }
                Ok(value)
            }),
            get: Box::new(Place::get),
            bytes: None,
            range: Box::new(|place, key, range| {
                Ok(place.get(key)?.map(|value| slice_of(&value, range)))
            }),
            list: Box::new(Place::list),
            prefix: Box::new(|place, prefix| Ok(lock(&place.blobs).list_prefix(prefix))),
            set: Box::new(|place, key, value, _| place.set(key, value)),
            slow_get: None,
            slow_list: None,
            slow_set: None,
            slow_relaxed: None,
            slow_delete: None,
            slow_range: None,
            slow_prefix: None,
            one_at_a_time: false,
            timer: true,
            fails: FAILS,
            delete: Box::new(Place::delete),
            close: Box::new(|_| {}),
        }
    }

    async fn enter(&self, deadline: Instant, call: Call<'_>) -> Answer<()> {
        self.pace.pause().await;
        (self.deadline)(&self.place, deadline, &call)?;
        match self.unusable {
            Some(kind) if !(self.excuses)(&call) => {
                Err(Fault::not_applied(kind, "the medium cannot be used").into())
            }
            _ => Ok(()),
        }
    }

    /// This call's turn, where calls wait for each other.
    async fn turn(&self, deadline: Instant) -> Answer<Option<tokio::sync::MutexGuard<'_, ()>>> {
        if !self.one_at_a_time {
            return Ok(None);
        }
        let turn = self.place.turn.lock().await;
        if deadline <= Instant::now() {
            return Err(too_late());
        }
        Ok(Some(turn))
    }

    async fn timed<T>(
        &self,
        deadline: Instant,
        sent: &AtomicBool,
        call: impl Future<Output = Answer<T>> + Send,
    ) -> Answer<T> {
        if !self.timer {
            return call.await;
        }
        let ended = tokio::time::timeout_at(deadline.into(), call).await;
        ended.unwrap_or_else(|_late| Err((self.fails.late)(sent.load(Relaxed))))
    }

    /// One call to the medium.
    async fn read<T: Default + Send>(
        &self,
        deadline: Instant,
        look: impl FnOnce() -> Answer<T> + Send,
    ) -> Answer<T> {
        let call = async {
            let _turn = self.turn(deadline).await?;
            match self.place.medium.call(look).await {
                Ok(answer) => answer,
                Err(trouble) => (self.fails.read)(trouble).map_or_else(|| Ok(T::default()), Err),
            }
        };
        self.timed(deadline, &AtomicBool::new(false), call).await
    }

    /// The call to the medium that commits; and if it `stages`, one before it and one after it.
    async fn write(
        &self,
        deadline: Instant,
        stages: bool,
        effect: impl FnOnce() -> Answer<()> + Send,
    ) -> Answer<()> {
        let sent = AtomicBool::new(false);
        let medium = &self.place.medium;
        let call = async {
            let _turn = self.turn(deadline).await?;
            if stages {
                if let Err(trouble) = medium.call(|| ()).await {
                    (self.fails.stage)(trouble)?;
                }
                self.pace.pause().await;
            }
            sent.store(true, Relaxed);
            match medium.call(effect).await {
                Ok(answer) => answer?,
                Err(trouble) => return (self.fails.commit)(trouble),
            }
            if stages {
                self.pace.pause().await;
                if let Err(trouble) = medium.call(|| ()).await {
                    (self.fails.tidy)(trouble)?;
                }
            }
            Ok(())
        };
        self.timed(deadline, &sent, call).await
    }

    async fn found(&self, deadline: Instant, key: String, get: &GetStep) -> Answer<Option<Bytes>> {
        match &self.slow_get {
            Some(get) => get(Arc::clone(&self.place), key).await,
            None => self.read(deadline, || get(&self.place, &key)).await,
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("place", &self.place.name)
            .finish_non_exhaustive()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        (self.close)(&self.place);
    }
}

#[async_trait]
impl BlobMulti for Store {
    async fn get(&self, deadline: Instant, key: &str) -> Answer<Option<Vec<u8>>> {
        self.enter(deadline, Call::Get).await?;
        let key = (self.key)(key)?;
        let found = self.found(deadline, key, &self.get).await?;
        Ok(found.map(Vec::from))
    }

    async fn list_keys(&self, deadline: Instant) -> Answer<Vec<String>> {
        self.enter(deadline, Call::List).await?;
        match &self.slow_list {
            Some(list) => {
                let list = list(Arc::clone(&self.place));
                self.timed(deadline, &AtomicBool::new(false), list).await
            }
            None => self.read(deadline, || (self.list)(&self.place)).await,
        }
    }

    async fn set(
        &self,
        deadline: Instant,
        key: &str,
        value: Bytes,
        atomic: Atomicity,
    ) -> Answer<()> {
        self.enter(deadline, Call::Set(key, &value)).await?;
        let key = (self.key)(key)?;
        let value = (self.value)(&self.place, &key, value)?;
        let relaxed = self
            .slow_relaxed
            .as_ref()
            .filter(|_| atomic == Atomicity::AllowNonAtomic);
        match relaxed.or(self.slow_set.as_ref()) {
            Some(set) => set(Arc::clone(&self.place), deadline, key, value).await,
            None => {
                let effect = || (self.set)(&self.place, &key, value, atomic);
                self.write(deadline, true, effect).await
            }
        }
    }

    async fn delete(&self, deadline: Instant, key: &str) -> Answer<()> {
        self.enter(deadline, Call::Delete(key)).await?;
        let key = (self.key)(key)?;
        if let Some(delete) = &self.slow_delete {
            return delete(Arc::clone(&self.place), deadline, key).await;
        }
        let effect = || (self.delete)(&self.place, &key);
        self.write(deadline, false, effect).await
    }

    async fn get_bytes(&self, deadline: Instant, key: &str) -> Answer<Option<Bytes>> {
        self.enter(deadline, Call::Get).await?;
        let key = (self.key)(key)?;
        let get = self.bytes.as_ref().unwrap_or(&self.get);
        self.found(deadline, key, get).await
    }

    async fn get_range(
        &self,
        deadline: Instant,
        key: &str,
        range: Range<u64>,
    ) -> Answer<Option<Bytes>> {
        self.enter(deadline, Call::Range).await?;
        let key = (self.key)(key)?;
        if let Some(slow) = &self.slow_range {
            let found = slow(Arc::clone(&self.place), key, range);
            return self.timed(deadline, &AtomicBool::new(false), found).await;
        }
        let look = || (self.range)(&self.place, &key, range);
        self.read(deadline, look).await
    }

    async fn list_prefix(&self, deadline: Instant, prefix: &str) -> Answer<Vec<BlobInfo>> {
        self.enter(deadline, Call::Prefix).await?;
        if let Some(slow) = &self.slow_prefix {
            let listed = slow(Arc::clone(&self.place), prefix.to_owned());
            return self.timed(deadline, &AtomicBool::new(false), listed).await;
        }
        let look = || (self.prefix)(&self.place, prefix);
        self.read(deadline, look).await
    }
}

/// The places of one world, by name.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) places: Mutex<BTreeMap<String, Arc<Place>>>,
    /// What lies beside the places and is nobody's: names and contents.
    pub(crate) foreign: Mutex<BTreeMap<String, String>>,
    medium: Arc<Medium>,
}

/// The surroundings of one place.
struct Surroundings {
    shared: Arc<Shared>,
    place: String,
}

impl blob_multi::Foreign for Surroundings {
    fn plant(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        let names = ["-neighbour", "/.tmp-0", "/upload.part"];
        let planted = names.map(|name| (format!("{}{name}", self.place), "not yours".to_owned()));
        lock(&self.shared.foreign).extend(planted);
        ready(Ok(())).boxed()
    }

    fn look(&self) -> BoxFuture<'_, Result<String, BoxError>> {
        ready(Ok(format!("{:?}", lock(&self.shared.foreign)))).boxed()
    }
}

impl Shared {
    pub(crate) fn place(&self, name: &str) -> Arc<Place> {
        let mut places = lock(&self.places);
        let place = places.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Place {
                name: name.to_owned(),
                medium: Arc::clone(&self.medium),
                ..Place::default()
            })
        });
        Arc::clone(place)
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
    fn opened(&self, place: &str) -> Store {
        let place = self.shared.place(place);
        let mut store = Store::new(Arc::clone(&self.shared), place, self.caps.blob_multi);
        (self.bend)(&mut store);
        store
    }
}

impl Fixture for World {
    async fn new(_env: &Env) -> Result<Self, BoxError> {
        Ok(Self {
            shared: Arc::default(),
            caps: CAPS,
            bend: |_| {},
        })
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::clone(&self.shared.medium) as Arc<dyn Faults>)
    }
}

impl blob_multi::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        Ok(self.opened(place))
    }

    async fn unusable(&self) -> Result<Vec<(&'static str, Store)>, BoxError> {
        let reasons = [
            ("wrong credentials", ErrorKind::PermissionDenied),
            ("no such bucket", ErrorKind::NotFound),
            ("a closed port", ErrorKind::Unavailable),
        ];
        let stores = reasons.into_iter().map(|(why, kind)| {
            let mut store = self.opened("unusable");
            store.unusable = Some(kind);
            (why, store)
        });
        Ok(stores.collect())
    }

    fn foreign(&self, place: &str) -> Option<Arc<dyn blob_multi::Foreign>> {
        Some(Arc::new(Surroundings {
            shared: Arc::clone(&self.shared),
            place: place.to_owned(),
        }))
    }
}

/// A dropped set goes on in the background.
pub(crate) fn lands_late(s: &mut Store) {
    s.slow_set = Some(Box::new(|place, _, key, value| {
        async move {
            let (late, to, what) = (Arc::clone(&place), key.clone(), value.clone());
            let left = Due::new(move || behind(move || late.set(&to, what)));
            tokio::task::yield_now().await;
            left.call_off();
            place.set(&key, value)
        }
        .boxed()
    }));
}

/// The suite of this contract on stores that declare `caps` and are bent by `bend`.
pub(crate) fn suite(caps: Caps, bend: Bend) -> Suite {
    blob_multi::suite_with(move |_env| async move {
        Ok(World {
            shared: Arc::default(),
            caps,
            bend,
        })
    })
}
