//! What the tests of the protocols share: combinators as values, worlds of two tiers and a log in memory, and clients
//! whose calls end up in a history.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of this"
)]
#![allow(
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "nobody else sees these"
)]
#![allow(
    clippy::unwrap_used,
    reason = "in a test a panic is the answer, and nobody holds these locks when one comes"
)]

pub mod backlogs;
pub mod calm;
pub mod checks;
pub mod joins;
pub mod puts;
pub mod recoveries;
pub mod stopped;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use larder_conformance::decorate::{Faulty, Switch};
use larder_conformance::lin::{
    self, Answer, Call, History, Limits, ModelName, Op, Row, Ttl, Verdict,
};
use larder_conformance::schedule::{Run, Stepped, step};
use larder_mem::{MemConfig, MemPlace};
use larder_tiered::{Runtime, TieredConfig, TieredStorage};
use larder_traits::{
    Backend, BackendError, Caps, ChangeLog, Classify, ClientStream, Clock, ErrorKind,
    ExpirationPolicy, Fault, GetResponse, HighVolumeBackend, LateLanding, Metadata, ObjectContext,
    ObjectId, ObjectListing, Outcome, TestClock, TieredGet, TieredMetadata, TieredWrite, Tombstone,
    WriterId,
};

/// Payloads up to this are small.
pub const THRESHOLD_BYTES: usize = 16;

pub const LEASE: Duration = Duration::from_secs(30);

/// What is under test: a store of objects that can be recovered.
#[async_trait]
pub trait Combinator: Backend {
    async fn recover(&self) -> Result<(), Fault>;
}

#[async_trait]
impl Combinator for TieredStorage {
    async fn recover(&self) -> Result<(), Fault> {
        Self::recover(self).await.map(drop)
    }
}

pub type Made = Arc<dyn Combinator>;

/// What a combinator is made of.
pub struct Parts {
    pub high: Arc<dyn HighVolumeBackend>,
    pub long: Arc<dyn Backend>,
    pub log: Arc<dyn ChangeLog>,
    pub high_caps: Caps,
    pub long_caps: Caps,
    pub clock: Arc<TestClock>,
    pub run: Run,
    pub grace: Duration,
}

/// Makes a combinator.
pub type Make<'a> = &'a (dyn Fn(Parts) -> Made + Sync);

/// The one that this crate is about.
pub fn shipped(parts: Parts) -> Made {
    let config = TieredConfig::new(parts.high_caps, parts.long_caps)
        .with_clock(parts.clock)
        .with_runtime(Arc::new(Steps(parts.run)))
        .with_threshold_bytes(THRESHOLD_BYTES)
        .with_lease(LEASE)
        .with_grace(parts.grace);
    let made = TieredStorage::new(parts.high, parts.long, parts.log, config);
    Arc::new(made.expect("the configuration is sound"))
}

/// The scheduler as a runtime.
#[derive(Debug)]
pub struct Steps(pub Run);

impl Runtime for Steps {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn_background(task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }
}

/// A high-volume tier that has no fence, and declares what its world says.
#[derive(Debug)]
struct Fenceless<S>(S);

#[async_trait]
impl<S: Backend> Backend for Fenceless<S> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Result<(), BackendError> {
        self.0.put_object(id, metadata, stream).await
    }
    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        self.0.get_object(id).await
    }
    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        self.0.get_metadata(id).await
    }
    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        self.0.delete_object(id).await
    }
    async fn join(&self) {
        self.0.join().await;
    }
}

#[async_trait]
impl<S: HighVolumeBackend> HighVolumeBackend for Fenceless<S> {
    async fn put_non_tombstone(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<Option<Tombstone>, BackendError> {
        self.0.put_non_tombstone(id, metadata, payload).await
    }
    async fn get_tiered_object(&self, id: &ObjectId) -> Result<TieredGet, BackendError> {
        self.0.get_tiered_object(id).await
    }
    async fn get_tiered_metadata(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError> {
        self.0.get_tiered_metadata(id).await
    }
    async fn delete_non_tombstone(&self, id: &ObjectId) -> Result<Option<Tombstone>, BackendError> {
        self.0.delete_non_tombstone(id).await
    }
    async fn compare_and_write(
        &self,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Result<bool, BackendError> {
        self.0.compare_and_write(id, current, write).await
    }
    async fn extend_expiry(
        &self,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        self.0.extend_expiry(id, target, at).await
    }
}

/// Two tiers and a log, which outlive whoever works on them.
pub struct World {
    pub clock: Arc<TestClock>,
    pub high: MemPlace,
    pub long: MemPlace,
    pub log: MemPlace,
    /// Makes all three misbehave.
    pub switch: Switch,
    /// What the high-volume tier can say of late writes where it has no fence.
    pub fenceless: Option<LateLanding>,
    /// Whether each call to the log is a step too.
    pub log_steps: bool,
    pub grace: Duration,
}

impl World {
    pub fn new() -> Self {
        let clock = Arc::new(TestClock::new());
        let place = || {
            let theirs = Arc::<TestClock>::clone(&clock) as Arc<dyn Clock>;
            MemPlace::open(MemConfig::private().with_clock(theirs))
        };
        Self {
            high: place(),
            long: place(),
            log: place(),
            clock,
            switch: Switch::new(),
            fenceless: None,
            log_steps: true,
            grace: Duration::ZERO,
        }
    }

    pub fn fenceless(late: LateLanding) -> Self {
        Self {
            fenceless: Some(late),
            ..Self::new()
        }
    }

    /// A writer of its own on these tiers.
    pub fn open(&self, run: &Run, make: Make<'_>) -> Made {
        run.set_clock(Arc::clone(&self.clock));
        let high = Faulty::new("high", self.high.high_volume(), &self.switch);
        let long = Faulty::new("long", self.long.high_volume(), &self.switch);
        let log = Faulty::new("log", self.log.change_log(), &self.switch);
        let mut high_caps = self.high.caps();
        let high: Arc<dyn HighVolumeBackend> = match self.fenceless {
            None => Arc::new(Stepped::new(high)),
            Some(late) => {
                high_caps = high_caps.with_late_landing(late);
                high_caps.high_volume = high_caps.high_volume.with_fence(false);
                Arc::new(Stepped::new(Fenceless(high)))
            }
        };
        let log: Arc<dyn ChangeLog> = match self.log_steps {
            true => Arc::new(Stepped::new(log)),
            false => Arc::new(log),
        };
        make(Parts {
            high,
            long: Arc::new(Stepped::new(long)),
            log,
            high_caps,
            long_caps: self.long.caps(),
            clock: Arc::clone(&self.clock),
            run: run.clone(),
            grace: self.grace,
        })
    }

    /// A process after the last one, its leases long over: recovers, and tells the object that is there then.
    pub fn recovered(&self, run: &Run, make: Make<'_>) -> Result<Made, String> {
        self.clock.advance(LEASE * 2);
        let made = self.open(run, make);
        recover(run, &made)?;
        Ok(made)
    }

    /// Lets the long-term tier clear away what has ended.
    pub fn sweep(&self) {
        let long = self.long.high_volume();
        let listed = now(long.list_objects(None, 10_000));
        for payload in listed.map(|page| page.ids).unwrap_or_default() {
            // Whoever meets what has ended removes it.
            drop(now(long.get_metadata(&payload)));
        }
    }

    /// TS-7, of what is there now: each payload is referred to by one live redirect, no redirect points to nothing, and
    /// the log is empty. With `or_recorded` a payload may be in the log instead.
    pub fn in_order(&self, or_recorded: bool) -> Result<(), String> {
        self.in_order_at(&["k", "l"], or_recorded)
    }

    /// The same where these are the keys that there are.
    pub fn in_order_at(&self, keys: &[impl AsRef<str>], or_recorded: bool) -> Result<(), String> {
        let listed =
            now(self.long.high_volume().list_objects(None, 10_000)).map_err(|e| format!("{e}"))?;
        let listed: BTreeSet<ObjectId> = listed.ids.into_iter().collect();
        let mut referred = BTreeSet::new();
        for key in keys {
            let row = now(self
                .high
                .high_volume()
                .get_tiered_metadata(&id(key.as_ref())));
            if let Ok(TieredMetadata::Tombstone(there)) = row
                && !referred.insert(there.target)
            {
                return Err("two redirects to one payload".into());
            }
        }
        if let Some(missing) = referred.difference(&listed).next() {
            return Err(format!("a redirect to {missing}, which is not there"));
        }
        // Far ahead, where no lease is left.
        let nobody = WriterId::from_bytes([0xff; 16]);
        let end = self.clock.now() + LEASE * 1_000;
        let changes = now(self.log.change_log().claim(nobody, end, 10_000));
        let changes = changes.map_err(|e| format!("{e}"))?;
        let recorded: HashSet<ObjectId> = changes
            .iter()
            .flat_map(|change| [change.created.clone(), change.replaced.clone()])
            .flatten()
            .collect();
        for orphan in listed.difference(&referred) {
            if !(or_recorded && recorded.contains(orphan)) {
                return Err(format!("an orphan, {orphan}; in the log: {changes:?}"));
            }
        }
        if !or_recorded && let Some(change) = changes.first() {
            return Err(format!("left in the log: {change:?}"));
        }
        Ok(())
    }
}

/// Recovers what there is, and waits for the work that this leaves.
pub fn recover(run: &Run, store: &Made) -> Result<(), String> {
    let store = Arc::clone(store);
    let recovered = run.finish(async move {
        let recovered = store.recover().await;
        store.join().await;
        recovered
    });
    recovered.map_err(|e| format!("recover: {e}"))
}

/// The answer of a call that waits for nothing.
pub fn now<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("memory waits for nothing")
}

pub fn id(key: &str) -> ObjectId {
    ObjectId::new(ObjectContext::new("test", Vec::new()), key)
}

/// What a client does to the one key that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    PutSmall,
    PutLarge,
    Get,
    /// A get of the metadata, in which each put leaves its value.
    Look,
    Delete,
}

/// Where the metadata of an object has its value.
const VALUE: &str = "value";

impl Does {
    pub const ALL: [Self; 5] = [
        Self::PutSmall,
        Self::PutLarge,
        Self::Get,
        Self::Look,
        Self::Delete,
    ];

    pub const WRITES: [Self; 3] = [Self::PutSmall, Self::PutLarge, Self::Delete];

    fn op(self, value: &str) -> Op {
        let key = "k".to_owned();
        match self {
            Self::PutSmall | Self::PutLarge => Op::Set {
                key,
                value: value.to_owned(),
                ttl: None,
            },
            Self::Get | Self::Look => Op::Get { key },
            Self::Delete => Op::Delete { key },
        }
    }
}

/// What the row holds before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Absent,
    Inline,
    Redirect,
}

impl Start {
    pub const ALL: [Self; 3] = [Self::Redirect, Self::Inline, Self::Absent];

    pub fn prepare(self, run: &Run, store: &Made, metadata: &Metadata) {
        let does = match self {
            Self::Absent => return,
            Self::Inline => Does::PutSmall,
            Self::Redirect => Does::PutLarge,
        };
        let (store, metadata) = (Arc::clone(store), metadata.clone());
        run.finish(async move {
            let put = perform(&store, does, "init", &metadata).await;
            put.expect("nothing is in the way of the first put");
            store.join().await;
        });
    }

    pub fn history(self, calls: Vec<Call>) -> History {
        let history = History::new(calls);
        match self {
            Self::Absent => history,
            Self::Inline | Self::Redirect => history.begun_with("k", Row::inline("init")),
        }
    }
}

/// The payload of a value: padded where it is to be large.
pub fn payload(value: &str, is_large: bool) -> Bytes {
    let len = if is_large { THRESHOLD_BYTES + 4 } else { 0 };
    format!("{value:#<len$}").into()
}

fn value_of(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    text.trim_end_matches('#').to_owned()
}

/// A payload in two pieces, with a step between them.
fn streamed(payload: Bytes) -> ClientStream {
    let half = payload.len() / 2;
    let pieces = [payload.slice(..half), payload.slice(half..)];
    stream::iter(pieces.into_iter().enumerate())
        .then(|(nth, piece)| async move {
            if nth > 0 && !piece.is_empty() {
                step().await;
            }
            Ok(piece)
        })
        .boxed()
}

/// One call; for a get what was found.
pub async fn perform(
    store: &Made,
    does: Does,
    value: &str,
    metadata: &Metadata,
) -> Result<Option<String>, BackendError> {
    let id = id("k");
    match does {
        Does::PutSmall | Does::PutLarge => {
            let is_large = does == Does::PutLarge;
            let payload = payload(value, is_large);
            let stream = match is_large {
                true => streamed(payload),
                false => stream::iter([Ok(payload)]).boxed(),
            };
            let mut metadata = metadata.clone();
            metadata.custom.insert(VALUE.into(), value.into());
            store.put_object(&id, &metadata, stream).await?;
            Ok(None)
        }
        Does::Look => {
            let found = store.get_metadata(&id).await?;
            Ok(found.map(|it| it.custom.get(VALUE).cloned().unwrap_or_default()))
        }
        Does::Get => match store.get_object(&id).await? {
            None => Ok(None),
            Some((_, payload)) => {
                let whole: Vec<Bytes> = payload.try_collect().await?;
                Ok(Some(value_of(&whole.concat())))
            }
        },
        Does::Delete => {
            store.delete_object(&id).await?;
            Ok(None)
        }
    }
}

/// The calls of all clients, in any number of runs one after another.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<Logged>>>, Arc<AtomicU64>);

struct Logged {
    call: Call,
    error: Option<String>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for made in self.0.lock().unwrap().iter() {
            let Call {
                client,
                call,
                ret,
                op,
                result,
                ..
            } = &made.call;
            writeln!(
                f,
                "  {client}: {op} [{call}, {ret:?}] -> {result:?} {:?}",
                made.error
            )?;
        }
        Ok(())
    }
}

impl Calls {
    fn stamp(&self) -> u64 {
        self.1.fetch_add(1, Ordering::SeqCst)
    }

    /// Calls that come after an object was put which ends by itself.
    pub fn begun_with_mortal() -> Self {
        let calls = Self::default();
        let (before, after) = (calls.stamp(), calls.stamp());
        let op = Op::Set {
            key: "k".into(),
            value: "init".into(),
            ttl: Some(Ttl::new(u64::MAX / 4, 0)),
        };
        let call = Call::answered(98, before, after, op, Answer::Done);
        calls.0.lock().unwrap().push(Logged { call, error: None });
        calls
    }

    /// The object ends in the middle of this.
    pub fn mortal_ends(&self, end: impl FnOnce()) {
        let before = self.stamp();
        end();
        let after = self.stamp();
        // Put at 0, it lived until `before` for certain, and until `after` at most.
        if let Op::Set { ttl, .. } = &mut self.0.lock().unwrap()[0].call.op {
            *ttl = Some(Ttl::new(before, after - before));
        }
    }

    /// Lets a client make one call in this run. Until it ends it counts as one whose outcome is unknown.
    pub fn make(&self, run: &Run, client: u32, store: &Made, does: Does, metadata: &Metadata) {
        run.spawn(self.call(client, store, does, metadata));
    }

    pub fn call(
        &self,
        client: u32,
        store: &Made,
        does: Does,
        metadata: &Metadata,
    ) -> BoxFuture<'static, ()> {
        let (calls, store) = (self.clone(), Arc::clone(store));
        let metadata = metadata.clone();
        async move {
            let value = format!("v{client}");
            let op = does.op(&value);
            let at = {
                let mut all = calls.0.lock().unwrap();
                let call = Call::unknown(client, calls.stamp(), None, op);
                all.push(Logged { call, error: None });
                all.len() - 1
            };
            let ended = perform(&store, does, &value, &metadata).await;
            let mut all = calls.0.lock().unwrap();
            let made = &mut all[at];
            made.call.ret = Some(calls.stamp());
            match ended {
                Ok(found) => {
                    let answer = match does {
                        Does::Get | Does::Look => Answer::Row(found.map(Row::inline)),
                        _ => Answer::Done,
                    };
                    made.call.result = Some(answer);
                }
                Err(e) => {
                    let said = format!("{:?} {:?}: {e}", e.kind(), e.outcome());
                    made.error = Some(said);
                    if e.outcome() == Outcome::NotApplied {
                        // It is no part of the history at all.
                        made.call.client = u32::MAX;
                    }
                }
            }
        }
        .boxed()
    }

    /// A get at the end, by nobody in particular.
    pub fn last_look(&self, run: &Run, store: &Made) {
        let look = self.call(99, store, Does::Get, &Metadata::new());
        run.finish(look);
    }

    /// Whether a client's call was answered.
    pub fn is_answered(&self, client: u32) -> bool {
        let all = self.0.lock().unwrap();
        let of = |made: &&Logged| made.call.client == client;
        // An answer that says that nothing was done takes the call out of the history.
        all.iter()
            .find(of)
            .is_none_or(|made| made.call.ret.is_some())
    }

    /// A client's call may count as itself and a delete after it.
    pub fn may_be_taken_out(&self, client: u32) {
        let mut all = self.0.lock().unwrap();
        let of = |made: &&Logged| made.call.client == client;
        let begun = all.iter().find(of).map(|made| made.call.call);
        let begun = begun.expect("it is in the history");
        let call = Call::unknown(client, begun, None, Does::Delete.op(""));
        all.push(Logged { call, error: None });
    }

    /// The errors that clients have seen.
    pub fn errors(&self) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter().filter_map(|made| made.error.clone()).collect()
    }

    /// Whether every call was answered with success.
    pub fn all_done(&self) -> bool {
        self.0
            .lock()
            .unwrap()
            .iter()
            .all(|made| made.call.result.is_some())
    }

    /// Whether some order of the calls explains their answers.
    pub fn explained(&self, start: Start, model: ModelName) -> Result<(), String> {
        let calls: Vec<Call> = {
            let all = self.0.lock().unwrap();
            let in_history = all.iter().filter(|made| {
                let is_get = matches!(made.call.op, Op::Get { .. });
                made.call.client != u32::MAX && (made.call.result.is_some() || !is_get)
            });
            in_history.map(|made| made.call.clone()).collect()
        };
        let history = start.history(calls);
        let report = lin::check(&history, model, Limits::default());
        match report.map_err(|e| e.to_string())?.verdict {
            Verdict::Linearizable => Ok(()),
            Verdict::Violation(witness) => Err(format!("no order explains this:\n{witness}")),
            other => Err(format!("{other:?}")),
        }
    }
}

/// Metadata of an object that ends by itself.
pub fn mortal(life: Duration) -> Metadata {
    Metadata::with_policy(ExpirationPolicy::TimeToLive(life))
}

pub fn is_unavailable(e: &BackendError) -> bool {
    e.kind() == ErrorKind::Unavailable
}
