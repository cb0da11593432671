//! `Backend` and `HighVolumeBackend` over an ordered map of rows and a test clock.

use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use larder_conformance::model::high_volume::Row;
use larder_conformance::{
    BoxError, Caps, Env, Faults, Fixture, Probe, Suite, backend, high_volume,
};
use larder_traits::{
    Backend, BackendError, ClientStream, Clock, ClockSource, ErrorKind, ExpirationPolicy, Fault,
    GetResponse, HighVolumeBackend, HighVolumeCaps, LateLanding, Metadata, ObjectId, PayloadStream,
    TestClock, TieredGet, TieredMetadata, TieredWrite, Tombstone,
};

use super::group::Group;
use super::medium::{Medium, Trouble};
use super::{Pace, lock};

pub(crate) type Answer<T> = Result<T, BackendError>;

/// What the plain reference declares.
pub(crate) const CAPS: Caps = Caps::LEAST
    .with_late_landing(LateLanding::Fenced)
    .with_high_volume(
        HighVolumeCaps::LEAST
            .with_payload_len_bytes_max(2 << 20)
            .with_id_len_bytes_max(2048)
            .with_fence(true)
            .with_extend_expiry(true),
    );

pub(crate) fn invalid(why: &'static str) -> BackendError {
    Fault::not_applied(ErrorKind::InvalidInput, why).into()
}

pub(crate) fn len_u64(payload: &Bytes) -> u64 {
    u64::try_from(payload.len()).expect("a length in memory fits 64 bits")
}

/// What all handles of one name share.
#[derive(Debug)]
pub(crate) struct Place {
    /// Held for each step, so that one which looks and then writes is one step for all others (HV-7).
    pub(crate) step: Mutex<()>,
    pub(crate) rows: Mutex<BTreeMap<ObjectId, Row>>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) counter: AtomicU64,
    /// A mutant's own memory.
    pub(crate) notes: Mutex<BTreeMap<ObjectId, Row>>,
    pub(crate) medium: Arc<Medium>,
    /// What the calls of stores wait for that make one at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// What they meet in where the medium is asked for several of them together.
    pub(crate) group: Arc<Group>,
}

impl Place {
    /// A place of one row and nothing else, to judge a swap on what was there a while ago.
    pub(crate) fn aside(&self, id: &ObjectId, row: Option<Row>) -> Self {
        Self {
            step: Mutex::default(),
            rows: Mutex::new(row.into_iter().map(|row| (id.clone(), row)).collect()),
            clock: Arc::clone(&self.clock),
            counter: AtomicU64::default(),
            notes: Mutex::default(),
            medium: Arc::default(),
            turn: tokio::sync::Mutex::default(),
            group: Arc::default(),
        }
    }

    pub(crate) fn clock_now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(crate) fn live(&self, id: &ObjectId) -> Option<Row> {
        let now = self.clock.now();
        lock(&self.rows)
            .get(id)
            .filter(|row| !row.is_expired(now))
            .cloned()
    }

    pub(crate) fn redirect(&self, id: &ObjectId) -> Option<Tombstone> {
        match self.live(id) {
            Some(Row::Redirect(tombstone)) => Some(tombstone),
            _ => None,
        }
    }

    pub(crate) fn write(&self, id: &ObjectId, row: Row) {
        lock(&self.rows).insert(id.clone(), row);
    }

    pub(crate) fn remove(&self, id: &ObjectId) {
        lock(&self.rows).remove(id);
    }

    /// The live row; and if it is an object with a time to idle, the access extends it.
    pub(crate) fn access(&self, id: &ObjectId) -> Option<Row> {
        let found = self.live(id);
        if let Some(Row::Inline(metadata, _)) = lock(&self.rows).get_mut(id)
            && let Some(later) = metadata.deadline_after_access(self.clock.now())
        {
            metadata.time_expires = Some(later);
        }
        found
    }

    pub(crate) fn put_inline(&self, id: &ObjectId, row: Row) -> Option<Tombstone> {
        let redirect = self.redirect(id);
        if redirect.is_none() {
            self.write(id, row);
        }
        redirect
    }

    pub(crate) fn delete_inline(&self, id: &ObjectId) -> Option<Tombstone> {
        let redirect = self.redirect(id);
        if redirect.is_none() {
            self.remove(id);
        }
        redirect
    }

    /// The table of HV-5; `new` is `None` for a delete.
    pub(crate) fn swap(&self, id: &ObjectId, current: Option<&ObjectId>, new: Option<Row>) -> bool {
        let write = |new: Option<Row>| {
            match new {
                Some(row) => self.write(id, row),
                None => self.remove(id),
            }
            true
        };
        match (self.live(id), current, new) {
            (Some(Row::Redirect(live)), _, Some(Row::Redirect(new)))
                if live.target == new.target =>
            {
                true
            }
            (Some(Row::Redirect(live)), Some(old), new) if live.target == *old => write(new),
            (Some(Row::Redirect(_)), _, _) => false,
            (_, None, new) => write(new),
            (_, Some(_), Some(Row::Redirect(_))) | (None, Some(_), Some(Row::Inline(..))) => false,
            (None, Some(_), None) | (Some(Row::Inline(..)), Some(_), _) => true,
        }
    }

    pub(crate) fn extend(&self, id: &ObjectId, target: &ObjectId, at: SystemTime) -> bool {
        let live = self.redirect(id).is_some_and(|live| live.target == *target);
        if live
            && let Some(Row::Redirect(tombstone)) = lock(&self.rows).get_mut(id)
            && tombstone.time_expires.is_some()
        {
            tombstone.time_expires = tombstone.time_expires.max(Some(at));
        }
        live
    }
}

/// By which call an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    Put,
    PutInline,
    Swap,
}

/// By which call a row is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Object,
    Metadata,
    TieredObject,
    TieredMetadata,
}

type IdStep = Box<dyn Fn(&ObjectId) -> Answer<ObjectId> + Send + Sync>;
type FitStep = Box<dyn Fn(&Place, &ObjectId, Bytes) -> Answer<Bytes> + Send + Sync>;
type StampStep = Box<dyn Fn(&Place, Path, &Metadata, &Bytes) -> Answer<Metadata> + Send + Sync>;
type StampRedirectStep = Box<dyn Fn(&Place, &Tombstone) -> Answer<Tombstone> + Send + Sync>;
type CollectStep = Box<
    dyn Fn(Arc<Place>, ObjectId, ClientStream, usize) -> BoxFuture<'static, Answer<Bytes>>
        + Send
        + Sync,
>;
type PutStep = Box<dyn Fn(&Place, &ObjectId, Row) -> Answer<()> + Send + Sync>;
type DeleteStep = Box<dyn Fn(&Place, &ObjectId) -> Answer<()> + Send + Sync>;
type ReadStep = Box<dyn Fn(&Place, Read, &ObjectId) -> Option<Row> + Send + Sync>;
type PlainStep = Box<dyn Fn(&Place, Read, Row) -> Answer<Option<(Metadata, Bytes)>> + Send + Sync>;
type StreamStep = Box<dyn Fn(Bytes, &Arc<Medium>) -> PayloadStream + Send + Sync>;
type PutInlineStep = Box<dyn Fn(&Place, &ObjectId, Row) -> Option<Tombstone> + Send + Sync>;
type DeleteInlineStep = Box<dyn Fn(&Place, &ObjectId) -> Option<Tombstone> + Send + Sync>;
type SwapStep =
    Box<dyn Fn(&Place, &ObjectId, Option<&ObjectId>, Option<Row>) -> bool + Send + Sync>;
type FenceStep = Box<dyn Fn(&Place) -> Answer<()> + Send + Sync>;
type ExtendStep =
    Box<dyn Fn(&Place, &ObjectId, &ObjectId, SystemTime) -> Answer<bool> + Send + Sync>;
type CloseStep = Box<dyn Fn(&Place) + Send + Sync>;
type SlowReadStep = Box<
    dyn Fn(Arc<Place>, Read, ObjectId) -> BoxFuture<'static, Answer<Option<Row>>> + Send + Sync,
>;
type SlowPutStep =
    Box<dyn Fn(Arc<Place>, ObjectId, Row) -> BoxFuture<'static, Answer<()>> + Send + Sync>;
type SlowDeleteStep =
    Box<dyn Fn(Arc<Place>, ObjectId) -> BoxFuture<'static, Answer<()>> + Send + Sync>;
type SlowExtendStep = Box<
    dyn Fn(Arc<Place>, ObjectId, ObjectId, SystemTime) -> BoxFuture<'static, Answer<bool>>
        + Send
        + Sync,
>;
type SlowPutInlineStep = Box<
    dyn Fn(Arc<Place>, ObjectId, Row) -> BoxFuture<'static, Answer<Option<Tombstone>>>
        + Send
        + Sync,
>;
type SlowDeleteInlineStep = Box<
    dyn Fn(Arc<Place>, ObjectId) -> BoxFuture<'static, Answer<Option<Tombstone>>> + Send + Sync,
>;
type SlowSwapStep = Box<
    dyn Fn(Arc<Place>, ObjectId, Option<ObjectId>, Option<Row>) -> BoxFuture<'static, Answer<bool>>
        + Send
        + Sync,
>;

/// What is made of a medium that fails.
#[derive(Clone, Copy)]
pub(crate) struct Fails {
    /// `None`: the row is taken for absent.
    pub(crate) read: fn(Trouble) -> Option<BackendError>,
    pub(crate) stage: fn(Trouble) -> Answer<()>,
    pub(crate) commit: fn(Trouble) -> BackendError,
}

pub(crate) const FAILS: Fails = Fails {
    read: |trouble| Some(trouble.before().into()),
    stage: |trouble| Err(trouble.before().into()),
    commit: |trouble| trouble.at_commit().into(),
};

/// One handle, as a list of steps that can be exchanged.
pub(crate) struct Store {
    pub(crate) place: Arc<Place>,
    pub(crate) pace: Pace,
    max: usize,
    /// Refuses ids, or changes them.
    pub(crate) id: IdStep,
    /// Refuses payloads, or changes them.
    pub(crate) fit: FitStep,
    pub(crate) stamp: StampStep,
    pub(crate) stamp_redirect: StampRedirectStep,
    /// Reads a client's stream to its end.
    pub(crate) collect: CollectStep,
    pub(crate) put: PutStep,
    pub(crate) delete: DeleteStep,
    pub(crate) read: ReadStep,
    /// What a plain call answers for a live row.
    pub(crate) plain: PlainStep,
    pub(crate) stream: StreamStep,
    pub(crate) put_inline: PutInlineStep,
    pub(crate) delete_inline: DeleteInlineStep,
    pub(crate) swap: SwapStep,
    pub(crate) fence: FenceStep,
    pub(crate) extend: ExtendStep,
    pub(crate) close: CloseStep,
    /// In place of the steps of these names, for those that take several: medium, patience and all.
    pub(crate) slow_read: Option<SlowReadStep>,
    pub(crate) slow_put: Option<SlowPutStep>,
    pub(crate) slow_put_inline: Option<SlowPutInlineStep>,
    pub(crate) slow_delete_inline: Option<SlowDeleteInlineStep>,
    pub(crate) slow_swap: Option<SlowSwapStep>,
    pub(crate) slow_delete: Option<SlowDeleteStep>,
    pub(crate) slow_extend: Option<SlowExtendStep>,
    /// Whether calls wait for each other.
    pub(crate) one_at_a_time: bool,
    pub(crate) fails: Fails,
    /// Whether the work in the background counts as over.
    pub(crate) is_idle: fn(&Place) -> bool,
}

pub(crate) fn unsupported() -> BackendError {
    Fault::not_applied(ErrorKind::Unsupported, "not offered").into()
}

/// The payload in pieces of 64 KiB, each fetched when it is asked for.
pub(crate) fn pieces(payload: &Bytes, medium: &Arc<Medium>) -> PayloadStream {
    let pieces: Vec<_> = payload
        .chunks(64 << 10)
        .map(|piece| payload.slice_ref(piece))
        .collect();
    let medium = Arc::clone(medium);
    let fetch = move |piece| {
        let medium = Arc::clone(&medium);
        async move {
            let fetched = medium.timed(|| piece).await;
            fetched.map_err(|trouble| trouble.before().into())
        }
    };
    stream::iter(pieces).then(fetch).boxed()
}

pub(crate) async fn collect(mut stream: ClientStream, max: usize) -> Answer<Bytes> {
    let mut payload = BytesMut::new();
    while let Some(piece) = stream.next().await {
        payload.extend_from_slice(&piece.map_err(BackendError::Client)?);
        if payload.len() > max {
            return Err(invalid("a payload above the bound"));
        }
    }
    Ok(payload.freeze())
}

impl Store {
    fn new(place: Arc<Place>, caps: HighVolumeCaps) -> Self {
        let max = usize::try_from(caps.payload_len_bytes_max).expect("the zoo's bounds are small");
        Self {
            place,
            pace: Pace::Ready,
            max,
            id: Box::new(move |id| {
                if id.to_string().len() > caps.id_len_bytes_max {
                    return Err(invalid("an id above the bound"));
                }
                Ok(id.clone())
            }),
            fit: Box::new(move |_, _, payload| {
                if payload.len() > max {
                    return Err(invalid("a payload above the bound"));
                }
                Ok(payload)
            }),
            stamp: Box::new(|place, _, metadata, payload| {
                Ok(metadata.stamped(place.clock.now(), len_u64(payload))?)
            }),
            stamp_redirect: Box::new(|place, tombstone| Ok(tombstone.stamped(place.clock.now())?)),
            collect: Box::new(|_, _, stream, max| collect(stream, max).boxed()),
            put: Box::new(|place, id, row| {
                place.write(id, row);
                Ok(())
            }),
            delete: Box::new(|place, id| {
                place.remove(id);
                Ok(())
            }),
            read: Box::new(|place, _, id| place.access(id)),
            plain: Box::new(|_, _, row| match row {
                Row::Inline(metadata, payload) => Ok(Some((metadata, payload))),
                Row::Redirect(tombstone) => {
                    Err(BackendError::UnexpectedTombstone(Box::new(tombstone)))
                }
            }),
            stream: Box::new(|payload, medium| pieces(&payload, medium)),
            put_inline: Box::new(Place::put_inline),
            delete_inline: Box::new(Place::delete_inline),
            swap: Box::new(Place::swap),
            fence: Box::new(move |_| {
                if caps.fence {
                    Ok(())
                } else {
                    Err(unsupported())
                }
            }),
            extend: Box::new(move |place, id, target, at| {
                if !caps.extend_expiry {
                    return Err(unsupported());
                }
                // Any policy but `Manual` lets the deadline be judged and cut as every other one is.
                let policy = ExpirationPolicy::TimeToLive(std::time::Duration::ZERO);
                let mut asked = Tombstone::new(target.clone(), policy);
                asked.time_expires = Some(at);
                let at = asked.stamped(place.clock.now())?.time_expires.unwrap_or(at);
                Ok(place.extend(id, target, at))
            }),
            close: Box::new(|_| {}),
            slow_read: None,
            slow_put: None,
            slow_put_inline: None,
            slow_delete_inline: None,
            slow_swap: None,
            slow_delete: None,
            slow_extend: None,
            one_at_a_time: false,
            fails: FAILS,
            is_idle: |_| true,
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
        place.medium.timed(effect).await
    }

    /// A call to the medium that prepares, and the one that commits.
    async fn change<T: Send>(&self, effect: impl FnOnce() -> T + Send) -> Answer<T> {
        let _turn = self.turn().await;
        if let Err(trouble) = self.ask(|| ()).await {
            (self.fails.stage)(trouble)?;
        }
        self.pace.pause().await;
        let ended = self.ask(effect).await;
        ended.map_err(|trouble| (self.fails.commit)(trouble))
    }

    fn object(
        &self,
        path: Path,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Answer<Row> {
        let payload = (self.fit)(&self.place, id, payload)?;
        Ok(Row::Inline(
            (self.stamp)(&self.place, path, metadata, &payload)?,
            payload,
        ))
    }

    async fn found(&self, read: Read, id: &ObjectId) -> Answer<Option<Row>> {
        self.pace.pause().await;
        let id = (self.id)(id)?;
        if let Some(read_slowly) = &self.slow_read {
            return read_slowly(Arc::clone(&self.place), read, id).await;
        }
        let _turn = self.turn().await;
        match self.ask(|| (self.read)(&self.place, read, &id)).await {
            Ok(found) => Ok(found),
            Err(trouble) => (self.fails.read)(trouble).map_or(Ok(None), Err),
        }
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

#[async_trait]
impl Backend for Store {
    fn name(&self) -> &'static str {
        "zoo"
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Answer<()> {
        self.pace.pause().await;
        let id = (self.id)(id)?;
        // What the metadata alone can be refused for is refused before the payload is asked for.
        (self.stamp)(&self.place, Path::Put, metadata, &Bytes::new())?;
        let payload = (self.collect)(Arc::clone(&self.place), id.clone(), stream, self.max).await?;
        let row = self.object(Path::Put, &id, metadata, payload)?;
        if let Some(put) = &self.slow_put {
            return put(Arc::clone(&self.place), id, row).await;
        }
        self.change(|| (self.put)(&self.place, &id, row)).await?
    }

    async fn get_object(&self, id: &ObjectId) -> Answer<GetResponse> {
        let Some(row) = self.found(Read::Object, id).await? else {
            return Ok(None);
        };
        let found = (self.plain)(&self.place, Read::Object, row)?;
        Ok(found.map(|(metadata, payload)| (metadata, (self.stream)(payload, &self.place.medium))))
    }

    async fn get_metadata(&self, id: &ObjectId) -> Answer<Option<Metadata>> {
        let Some(row) = self.found(Read::Metadata, id).await? else {
            return Ok(None);
        };
        Ok((self.plain)(&self.place, Read::Metadata, row)?.map(|(metadata, _)| metadata))
    }

    async fn delete_object(&self, id: &ObjectId) -> Answer<()> {
        self.pace.pause().await;
        let id = (self.id)(id)?;
        if let Some(delete) = &self.slow_delete {
            return delete(Arc::clone(&self.place), id).await;
        }
        self.change(|| (self.delete)(&self.place, &id)).await?
    }

    async fn join(&self) {
        while !(self.is_idle)(&self.place) {
            tokio::time::sleep(super::SETTLED).await;
        }
    }
}

#[async_trait]
impl HighVolumeBackend for Store {
    async fn put_non_tombstone(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Answer<Option<Tombstone>> {
        self.pace.pause().await;
        let id = (self.id)(id)?;
        let row = self.object(Path::PutInline, &id, metadata, payload)?;
        if let Some(put) = &self.slow_put_inline {
            return put(Arc::clone(&self.place), id, row).await;
        }
        let effect = || (self.put_inline)(&self.place, &id, row);
        self.change(effect).await
    }

    async fn get_tiered_object(&self, id: &ObjectId) -> Answer<TieredGet> {
        Ok(match self.found(Read::TieredObject, id).await? {
            Some(Row::Inline(metadata, payload)) => {
                TieredGet::Object(metadata, (self.stream)(payload, &self.place.medium))
            }
            Some(Row::Redirect(tombstone)) => TieredGet::Tombstone(tombstone),
            None => TieredGet::NotFound,
        })
    }

    async fn get_tiered_metadata(&self, id: &ObjectId) -> Answer<TieredMetadata> {
        Ok(match self.found(Read::TieredMetadata, id).await? {
            Some(Row::Inline(metadata, _)) => TieredMetadata::Object(metadata),
            Some(Row::Redirect(tombstone)) => TieredMetadata::Tombstone(tombstone),
            None => TieredMetadata::NotFound,
        })
    }

    async fn delete_non_tombstone(&self, id: &ObjectId) -> Answer<Option<Tombstone>> {
        self.pace.pause().await;
        let id = (self.id)(id)?;
        if let Some(delete) = &self.slow_delete_inline {
            return delete(Arc::clone(&self.place), id).await;
        }
        let effect = || (self.delete_inline)(&self.place, &id);
        self.change(effect).await
    }

    async fn compare_and_write(
        &self,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Answer<bool> {
        self.pace.pause().await;
        let id = (self.id)(id)?;
        let new = match write {
            TieredWrite::Tombstone(tombstone) => Some(Row::Redirect((self.stamp_redirect)(
                &self.place,
                &tombstone,
            )?)),
            TieredWrite::Object(metadata, payload) => {
                Some(self.object(Path::Swap, &id, &metadata, payload)?)
            }
            TieredWrite::Delete => None,
        };
        if let Some(swap) = &self.slow_swap {
            return swap(Arc::clone(&self.place), id, current.cloned(), new).await;
        }
        let effect = || (self.swap)(&self.place, &id, current, new);
        self.change(effect).await
    }

    async fn fence(&self, id: &ObjectId) -> Answer<()> {
        self.pace.pause().await;
        (self.id)(id)?;
        // Nothing is ever on its way here: a call that failed or was dropped has ended.
        (self.fence)(&self.place)
    }

    async fn extend_expiry(
        &self,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Answer<bool> {
        self.pace.pause().await;
        let id = (self.id)(id)?;
        if let Some(extend) = &self.slow_extend {
            return extend(Arc::clone(&self.place), id, target.clone(), at).await;
        }
        let effect = || (self.extend)(&self.place, &id, target, at);
        self.change(effect).await?
    }
}

/// How a handle differs from the plain reference; called at each open.
pub(crate) type Bend = fn(&mut Store);

/// Counts what a place holds, dead or alive.
#[derive(Default)]
struct Rows(Mutex<BTreeMap<String, Arc<Place>>>);

impl Probe for Rows {
    fn rows(&self, place: &str) -> BoxFuture<'_, Result<u64, BoxError>> {
        let rows = lock(&self.0)
            .get(place)
            .map_or(0, |place| lock(&place.rows).len());
        ready(u64::try_from(rows).map_err(BoxError::from)).boxed()
    }
}

pub(crate) struct World {
    places: Arc<Rows>,
    clock: Arc<TestClock>,
    medium: Arc<Medium>,
    caps: Caps,
    bend: Bend,
}

impl World {
    fn with(caps: Caps, bend: Bend) -> Self {
        let clock = Arc::default();
        if caps.clock != ClockSource::Injected {
            super::let_run(&clock);
        }
        Self {
            places: Arc::default(),
            clock,
            medium: Arc::default(),
            caps,
            bend,
        }
    }

    fn opened(&self, place: &str) -> Store {
        let mut places = lock(&self.places.0);
        let place = places.entry(place.to_owned()).or_insert_with(|| {
            Arc::new(Place {
                step: Mutex::default(),
                rows: Mutex::default(),
                clock: Arc::clone(&self.clock),
                counter: AtomicU64::default(),
                notes: Mutex::default(),
                medium: Arc::clone(&self.medium),
                turn: tokio::sync::Mutex::default(),
                group: Arc::default(),
            })
        });
        let mut store = Store::new(Arc::clone(place), self.caps.high_volume);
        (self.bend)(&mut store);
        store
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
        (self.caps.clock == ClockSource::Injected).then(|| Arc::clone(&self.clock))
    }

    async fn settle(&self) {
        tokio::time::sleep(super::SETTLED).await;
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::clone(&self.medium) as Arc<dyn Faults>)
    }

    fn probe(&self) -> Option<Arc<dyn Probe>> {
        Some(Arc::clone(&self.places) as Arc<dyn Probe>)
    }
}

impl backend::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        Ok(self.opened(place))
    }
}

impl high_volume::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        Ok(self.opened(place))
    }
}

/// The suite of this contract on stores that declare `caps` and are bent by `bend`.
pub(crate) fn suite(caps: Caps, bend: Bend) -> Suite {
    high_volume::suite_with(move |_env| async move { Ok(World::with(caps, bend)) })
}

/// The same stores, checked as plain backends.
pub(crate) fn plain_suite(caps: Caps, bend: Bend) -> Suite {
    backend::suite_with(move |_env| async move { Ok(World::with(caps, bend)) })
}
