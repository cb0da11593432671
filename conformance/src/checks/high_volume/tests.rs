//! The checks against the model itself, and against stores that break a clause each.

mod engines;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use larder_traits::{
    Backend, BackendError, Caps, ClientStream, Clock, ErrorKind, Fault, GetResponse,
    HighVolumeBackend, HighVolumeCaps, Metadata, ObjectId, PayloadStream, TestClock, TieredGet,
    TieredMetadata, TieredWrite, Tombstone,
};

use crate::check::Verdict;
use crate::fixture::{BoxError, Env, Fixture};
use crate::model::high_volume::{Row, Rows};
use crate::run::{Options, Suite};
use crate::{backend, high_volume};

/// What a store does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// An Ok of a fence that is not declared.
    FalseFence,
    /// Swaps on a row that has died take it for alive.
    SwapIgnoresExpiry,
    /// `Some(old)`, `Object` on an absent row is `true`.
    LostObject,
    /// A repeated swap to the same target writes again.
    SecondWrite,
    /// The comparison and the write are two steps.
    TwoSteps,
    /// Plain calls overwrite nothing but show a redirect as an absent object.
    RedirectAsAbsent,
    /// Put-unless-redirect that puts.
    BlindPut,
    /// An id is its parts without separators.
    JoinedKeys,
    /// The size is whatever the caller says.
    TrustedSize,
    /// What a broken stream had delivered is kept.
    PartialObject,
    /// Payloads of a certain kind lose their last byte.
    ShortTail,
    /// The handle remembers what it has read.
    Cache,
    /// The bound of payloads is found out after the write.
    LateBound,
    /// Expiry is forgotten by the metadata calls.
    ImmortalHead,
    /// Removing a row removes those whose text form begins with its own.
    PrefixDelete,
}

#[derive(Debug)]
struct Shared {
    rows: Mutex<Rows>,
    clock: Arc<TestClock>,
    flaw: Flaw,
}

#[derive(Debug)]
struct Store {
    shared: Arc<Shared>,
    cache: Mutex<BTreeMap<ObjectId, Metadata>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const LEN_MAX: usize = 1 << 17;
const ID_LEN_MAX: usize = 600;

fn invalid(why: &'static str) -> BackendError {
    Fault::not_applied(ErrorKind::InvalidInput, why).into()
}

fn body(payload: &Bytes) -> PayloadStream {
    let pieces: Vec<_> = payload.chunks(50_000).map(Bytes::copy_from_slice).collect();
    stream::iter(pieces.into_iter().map(Ok)).boxed()
}

impl Store {
    fn is(&self, flaw: Flaw) -> bool {
        self.shared.flaw == flaw
    }

    fn now(&self) -> SystemTime {
        self.shared.clock.now()
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, Rows> {
        lock(&self.shared.rows)
    }

    fn id(&self, id: &ObjectId) -> Result<ObjectId, BackendError> {
        if id.to_string().len() > ID_LEN_MAX {
            return Err(invalid("the id is too long"));
        }
        if self.is(Flaw::JoinedKeys) {
            let mut joined = id.context.use_case.clone();
            for scope in &id.context.scopes {
                joined += &scope.name;
                joined += &scope.value;
            }
            return Ok(crate::checks::backend::objects::id(
                "",
                &[],
                &(joined + &id.key),
            ));
        }
        Ok(id.clone())
    }

    fn store(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        mut payload: Bytes,
    ) -> Result<(), BackendError> {
        if self.is(Flaw::ShortTail) && payload.len() == 4_097 {
            payload.truncate(4_096);
        }
        let len = payload.len();
        let now = self.now();
        let mut rows = self.rows();
        rows.put_object(now, id, metadata, payload)?;
        if self.is(Flaw::TrustedSize)
            && metadata
                .size
                .is_some_and(|size| usize::try_from(size) != Ok(len))
        {
            // The model cannot be made to lie; the truth about another payload is as wrong.
            rows.put_object(now, id, metadata, Bytes::from_static(b"another"))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for Store {
    fn name(&self) -> &'static str {
        "test"
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        mut stream: ClientStream,
    ) -> Result<(), BackendError> {
        let id = self.id(id)?;
        let mut payload = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => payload.extend_from_slice(&chunk),
                Err(e) => {
                    if self.is(Flaw::PartialObject) && !payload.is_empty() {
                        self.store(&id, metadata, payload.freeze())?;
                    }
                    return Err(BackendError::Client(e));
                }
            }
            if payload.len() > LEN_MAX && !self.is(Flaw::LateBound) {
                return Err(invalid("the payload is too long"));
            }
        }
        let len = payload.len();
        self.store(&id, metadata, payload.freeze())?;
        if len > LEN_MAX {
            return Err(invalid("the payload is too long"));
        }
        Ok(())
    }

    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        let id = self.id(id)?;
        match self.rows().get_object(self.now(), &id) {
            Ok(found) => Ok(found.map(|(metadata, payload)| (metadata, body(&payload)))),
            Err(_) if self.is(Flaw::RedirectAsAbsent) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        let id = self.id(id)?;
        if self.is(Flaw::Cache)
            && let Some(found) = lock(&self.cache).get(&id)
        {
            return Ok(Some(found.clone()));
        }
        let now = match self.is(Flaw::ImmortalHead) {
            true => SystemTime::UNIX_EPOCH,
            false => self.now(),
        };
        let found = self.rows().get_metadata(now, &id)?;
        if let Some(found) = &found {
            lock(&self.cache).insert(id, found.clone());
        }
        Ok(found)
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        let id = self.id(id)?;
        let mut rows = self.rows();
        rows.delete_object(&id);
        if self.is(Flaw::PrefixDelete) {
            let prefix = id.to_string();
            let others: Vec<_> = rows.rows().map(|(other, _)| other.clone()).collect();
            for other in others
                .iter()
                .filter(|other| other.to_string().starts_with(&prefix))
            {
                rows.delete_object(other);
            }
        }
        Ok(())
    }

    async fn join(&self) {}
}

#[async_trait]
impl HighVolumeBackend for Store {
    async fn put_non_tombstone(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<Option<Tombstone>, BackendError> {
        let id = self.id(id)?;
        if payload.len() > LEN_MAX {
            return Err(invalid("the payload is too long"));
        }
        if self.is(Flaw::BlindPut) {
            self.store(&id, metadata, payload)?;
            return Ok(None);
        }
        Ok(self
            .rows()
            .put_non_tombstone(self.now(), &id, metadata, payload)?)
    }

    async fn get_tiered_object(&self, id: &ObjectId) -> Result<TieredGet, BackendError> {
        let id = self.id(id)?;
        Ok(match self.rows().get_tiered_object(self.now(), &id) {
            Some(Row::Inline(metadata, payload)) => TieredGet::Object(metadata, body(&payload)),
            Some(Row::Redirect(tombstone)) => TieredGet::Tombstone(tombstone),
            None => TieredGet::NotFound,
        })
    }

    async fn get_tiered_metadata(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError> {
        let id = self.id(id)?;
        Ok(self.rows().get_tiered_metadata(self.now(), &id))
    }

    async fn delete_non_tombstone(&self, id: &ObjectId) -> Result<Option<Tombstone>, BackendError> {
        let id = self.id(id)?;
        Ok(self.rows().delete_non_tombstone(self.now(), &id))
    }

    async fn compare_and_write(
        &self,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Result<bool, BackendError> {
        let id = self.id(id)?;
        let mut now = self.now();
        if matches!(&write, TieredWrite::Object(_, payload) if payload.len() > LEN_MAX) {
            return Err(invalid("the payload is too long"));
        }
        if self.is(Flaw::SwapIgnoresExpiry) && self.rows().row(now, &id).is_none() {
            now -= Duration::from_secs(3_600);
        }
        if self.is(Flaw::LostObject)
            && current.is_some()
            && matches!(write, TieredWrite::Object(..))
            && self.rows().row(now, &id).is_none()
        {
            return Ok(true);
        }
        if self.is(Flaw::SecondWrite)
            && let TieredWrite::Tombstone(new) = &write
        {
            let live = self.rows().row(now, &id).cloned();
            if matches!(live, Some(Row::Redirect(live)) if live.target == new.target) {
                self.rows().delete_object(&id);
                self.rows().compare_and_write(now, &id, None, write)?;
                return Ok(true);
            }
        }
        if self.is(Flaw::TwoSteps) {
            let mut trial = self.rows().clone();
            let won = trial.compare_and_write(now, &id, current, write.clone())?;
            tokio::task::yield_now().await;
            if let (true, TieredWrite::Tombstone(_)) = (won, &write) {
                let before = trial.row(now, &id) == self.rows().row(now, &id);
                if !before {
                    self.rows().delete_object(&id);
                    self.rows().compare_and_write(now, &id, None, write)?;
                }
                return Ok(won);
            }
        }
        Ok(self.rows().compare_and_write(now, &id, current, write)?)
    }

    async fn fence(&self, _: &ObjectId) -> Result<(), BackendError> {
        if self.is(Flaw::FalseFence) {
            return Ok(());
        }
        Err(Fault::not_applied(ErrorKind::Unsupported, "no fence").into())
    }

    async fn extend_expiry(
        &self,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        let id = self.id(id)?;
        Ok(self.rows().extend_expiry(self.now(), &id, target, at)?)
    }
}

struct World {
    flaw: Flaw,
    /// Whether the suite may move the clock.
    is_clocked: bool,
    clock: Arc<TestClock>,
    places: Mutex<BTreeMap<String, Arc<Shared>>>,
}

impl Fixture for World {
    async fn new(_: &Env) -> Result<Self, BoxError> {
        Ok(Self {
            flaw: Flaw::None,
            is_clocked: true,
            clock: Arc::default(),
            places: Mutex::default(),
        })
    }

    fn caps(&self) -> Caps {
        Caps::LEAST.with_high_volume(
            HighVolumeCaps::LEAST
                .with_payload_len_bytes_max(1 << 17)
                .with_id_len_bytes_max(ID_LEN_MAX)
                .with_extend_expiry(true),
        )
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        self.is_clocked.then(|| Arc::clone(&self.clock))
    }

    async fn settle(&self) {}
}

impl World {
    fn store(&self, place: &str) -> Store {
        let mut places = lock(&self.places);
        let shared = places.entry(place.to_owned()).or_insert_with(|| {
            Arc::new(Shared {
                rows: Mutex::default(),
                clock: Arc::clone(&self.clock),
                flaw: self.flaw,
            })
        });
        Store {
            shared: Arc::clone(shared),
            cache: Mutex::default(),
        }
    }
}

impl high_volume::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        Ok(self.store(place))
    }
}

impl backend::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        Ok(self.store(place))
    }
}

async fn flawed(env: Env, flaw: Flaw) -> Result<World, BoxError> {
    let mut world = World::new(&env).await?;
    world.flaw = flaw;
    Ok(world)
}

fn high_volume_suite(flaw: Flaw) -> Suite {
    high_volume::suite_with(move |env| flawed(env, flaw))
}

fn backend_suite(flaw: Flaw) -> Suite {
    backend::suite_with(move |env| flawed(env, flaw))
}

/// The clauses whose checks failed; a check that could not tell fails the test.
fn failed(suite: &Suite, only: &[&str]) -> Vec<String> {
    let mut options = Options::new();
    options.seed = 7;
    let mut failed = Vec::new();
    for trial in suite.trials() {
        if !only.is_empty() && !only.contains(&trial.info().clause) {
            continue;
        }
        let record = trial.run(&options);
        match &record.verdict {
            Verdict::Fail(failure) => {
                println!(
                    "{}: {} {} {}",
                    trial.info().id,
                    failure.what,
                    failure.observed,
                    failure.expected
                );
                failed.push(trial.info().clause.to_owned());
            }
            Verdict::Inconclusive(why) => panic!("{}: {why}", trial.info().id),
            _ => println!(
                "{}: {:?} {:?}",
                trial.info().id,
                record.verdict.name(),
                record.verdict.reason()
            ),
        }
    }
    failed.dedup();
    failed
}

#[test]
fn the_model_passes_both_suites() {
    assert_eq!(failed(&high_volume_suite(Flaw::None), &[]), [""; 0]);
    assert_eq!(failed(&backend_suite(Flaw::None), &[]), [""; 0]);
}

/// The checks of time, most of which need a clock too.
const TIMED: [&str; 5] = ["C-5.1", "HV-8.1", "HV-8.2", "HV-8.3", "HV-8.4"];

#[test]
fn without_a_clock_the_rest_is_checked() {
    let suite = high_volume::suite_with(|env| async move {
        let mut world = World::new(&env).await?;
        world.is_clocked = false;
        Ok(world)
    });
    // Its clock stands still, so that nothing ever ends.
    assert_eq!(failed(&suite, &[]), ["HV-8"]);
    let ignored = suite.trials().iter().filter(|trial| {
        let verdict = trial.run(&Options::new()).verdict;
        verdict.reason().is_some_and(|why| why.contains("clock()"))
    });
    let ids: Vec<_> = ignored.map(|trial| trial.info().id).collect();
    let dying = [
        "HV-1.2", "HV-2.2", "HV-3.3", "HV-4.2", "HV-5.2", "HV-10.2", "BK-2.3", "BK-2.4",
    ];
    let ids: Vec<_> = ids.into_iter().filter(|id| !TIMED.contains(id)).collect();
    assert_eq!(ids, dying);
}

#[test]
fn no_id_stands_twice_in_one_suite() {
    for suite in [high_volume_suite(Flaw::None), backend_suite(Flaw::None)] {
        let mut ids: Vec<_> = suite.trials().iter().map(|trial| trial.info().id).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
    }
}

#[test]
fn each_flaw_fails_its_own_clause() {
    let flaws = [
        (Flaw::FalseFence, "HV-6"),
        (Flaw::SwapIgnoresExpiry, "HV-5"),
        (Flaw::LostObject, "HV-5"),
        (Flaw::SecondWrite, "HV-6"),
        (Flaw::TwoSteps, "HV-7"),
        (Flaw::RedirectAsAbsent, "HV-10"),
        (Flaw::BlindPut, "HV-1"),
        (Flaw::JoinedKeys, "HV-9"),
        (Flaw::TrustedSize, "HV-9"),
        (Flaw::PartialObject, "BK-1"),
        (Flaw::ShortTail, "BK-2"),
        (Flaw::Cache, "BK-3"),
        (Flaw::LateBound, "C-4"),
        (Flaw::ImmortalHead, "BK-2"),
        (Flaw::PrefixDelete, "BK-3"),
    ];
    for (flaw, clause) in flaws {
        let found = failed(&high_volume_suite(flaw), &[clause]);
        assert_eq!(found, [clause], "{flaw:?}");
    }
}
