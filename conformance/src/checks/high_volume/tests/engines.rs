//! The concurrent checks: against the model behind a medium that can be waited for and can fail, and against stores
//! that go wrong where only such checks look.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder_traits::{Classify, ExpirationPolicy, LateLanding};
use tokio::sync::{Semaphore, oneshot};

use super::*;
use crate::fixture::{FaultKind, Faults};

/// What a store does wrong when calls meet, are dropped or fail, or when time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trick {
    None,
    /// A put is two writes.
    TornPut,
    /// A dropped put lands later all the same.
    Detached,
    /// What a call holds is lost when the call is dropped.
    LeakedPermit,
    /// The turn of a waiter that has gone is nobody's.
    LostTurn,
    /// A lost answer is said to have had no effect.
    FalseNotApplied,
    /// A failed read is an absent row.
    SilentRead,
    /// A failed read is half a payload.
    ShortBody,
    /// A swap that is made again is lost.
    OwnWinLost,
    /// Join waits for what has failed.
    StuckJoin,
    /// At times a handle answers with what it saw last.
    StaleRead,
    /// `put_non_tombstone` looks first and then puts.
    LookThenPut,
    /// The extension of an idle row writes back what was read.
    BlindBump,
    /// Each access extends.
    WritePerRead,
    /// Under Manual rows end after some years.
    InventedEnd,
    /// No time at all is some time.
    RoundedUp,
    /// A clock of its own.
    OtherClock,
}

/// A switch between a store and its medium.
#[derive(Debug, Default)]
struct Switch(Mutex<Armed>);

/// The calls so far, the call that is to go wrong and how, and whether it was made.
type Armed = (u64, Option<(u64, FaultKind)>, bool);

impl Faults for Switch {
    fn arm(&self, nth: u64, kind: FaultKind) {
        *lock(&self.0) = (0, Some((nth, kind)), false);
    }

    fn disarm(&self) -> bool {
        std::mem::take(&mut *lock(&self.0)).2
    }
}

impl Switch {
    fn call(&self) -> Option<FaultKind> {
        let mut state = lock(&self.0);
        state.0 += 1;
        let (nth, kind) = state.1?;
        let met = state.0 == nth;
        state.2 |= met;
        met.then_some(kind)
    }
}

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turns(Mutex<(bool, VecDeque<oneshot::Sender<()>>)>);

struct Turn(Arc<Turns>);

impl Turns {
    async fn take(self: &Arc<Self>) -> Turn {
        loop {
            let wait = {
                let mut turns = lock(&self.0);
                if !turns.0 {
                    turns.0 = true;
                    return Turn(Arc::clone(self));
                }
                let (wake, wait) = oneshot::channel();
                turns.1.push_back(wake);
                wait
            };
            drop(wait.await);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = lock(&self.0.0);
        turns.0 = false;
        if let Some(next) = turns.1.pop_front() {
            // Whether anybody still waits there is not asked.
            let _nobody = next.send(());
        }
    }
}

#[derive(Debug)]
struct Remote {
    store: Arc<Store>,
    trick: Trick,
    medium: Arc<Switch>,
    permits: Arc<Semaphore>,
    turns: Arc<Turns>,
    /// The swaps that were made, each with its row.
    swaps: Mutex<Vec<String>>,
    reads: AtomicUsize,
    last: Mutex<BTreeMap<ObjectId, Option<(Metadata, Bytes)>>>,
}

fn unavailable() -> BackendError {
    Fault::not_applied(ErrorKind::Unavailable, "the medium fails").into()
}

impl Remote {
    fn is(&self, trick: Trick) -> bool {
        self.trick == trick
    }

    /// A call that goes to the medium and comes back.
    async fn around<T>(
        &self,
        is_read: bool,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        let turn = match self.is(Trick::LostTurn) {
            true => Some(self.turns.take().await),
            false => None,
        };
        let leaks = self.is(Trick::LeakedPermit);
        if leaks && let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
        tokio::task::yield_now().await;
        let answer = match self.medium.call() {
            None => call.await,
            Some(FaultKind::ErrorBefore) => Err(unavailable()),
            Some(FaultKind::Hang) => std::future::pending().await,
            Some(FaultKind::ErrorAfter) => {
                drop(call.await);
                let unsure = Fault::unknown(ErrorKind::Unavailable, "the answer is lost");
                match is_read || self.is(Trick::FalseNotApplied) {
                    true => Err(unavailable()),
                    false => Err(unsure.into()),
                }
            }
        };
        tokio::task::yield_now().await;
        if leaks {
            self.permits.add_permits(1);
        }
        drop(turn);
        answer
    }

    /// The metadata that is stored for a put.
    fn bent(&self, metadata: &Metadata) -> Metadata {
        let mut bent = metadata.clone();
        bent.expiration_policy = match metadata.expiration_policy {
            ExpirationPolicy::Manual if self.is(Trick::InventedEnd) => {
                ExpirationPolicy::TimeToLive(Duration::from_secs(86_400 * 365 * 8))
            }
            ExpirationPolicy::TimeToLive(Duration::ZERO) if self.is(Trick::RoundedUp) => {
                ExpirationPolicy::TimeToLive(Duration::from_secs(1))
            }
            other => other,
        };
        bent
    }

    /// What an access does to an idle row beside what the model does.
    async fn bump(&self, id: &ObjectId) {
        if !self.is(Trick::BlindBump) && !self.is(Trick::WritePerRead) {
            return;
        }
        let now = self.store.now();
        let Some(Row::Inline(mut metadata, payload)) = self.store.rows().row(now, id).cloned()
        else {
            return;
        };
        let ExpirationPolicy::TimeToIdle(idle) = metadata.expiration_policy else {
            return;
        };
        if self.is(Trick::BlindBump) {
            let Some(later) = metadata.deadline_after_access(now) else {
                return;
            };
            metadata.time_expires = Some(later);
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        } else {
            metadata.time_expires = metadata.time_expires.max(now.checked_add(idle));
        }
        drop(self.store.rows().put_object(now, id, &metadata, payload));
    }
}

#[async_trait]
impl Backend for Remote {
    fn name(&self) -> &'static str {
        "remote"
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Result<(), BackendError> {
        let metadata = self.bent(metadata);
        if self.is(Trick::Detached) {
            let (store, id) = (Arc::clone(&self.store), id.clone());
            let put = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                store.put_object(&id, &metadata, stream).await
            });
            return put.await.unwrap_or_else(|_| Err(unavailable()));
        }
        if self.is(Trick::TornPut) {
            let whole = crate::backend::collect(
                stream
                    .map(|piece| piece.map_err(BackendError::Client))
                    .boxed(),
            )
            .await?;
            let half = whole.slice(..whole.len() / 2);
            self.store.store(id, &metadata, half)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
            return self.store.store(id, &metadata, whole);
        }
        let put = self.store.put_object(id, &metadata, stream);
        self.around(false, put).await
    }

    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        self.bump(id).await;
        let got = self.around(true, self.store.get_object(id)).await;
        let (metadata, payload) = match got {
            Ok(Some((metadata, stream))) => (metadata, crate::backend::collect(stream).await?),
            Err(_) if self.is(Trick::SilentRead) => return Ok(None),
            Err(e) if self.is(Trick::ShortBody) && e.kind() == ErrorKind::Unavailable => {
                let Some((metadata, stream)) = self.store.get_object(id).await? else {
                    return Ok(None);
                };
                let whole = crate::backend::collect(stream).await?;
                return Ok(Some((metadata, body(&whole.slice(..whole.len() / 2)))));
            }
            other => {
                if self.is(Trick::StaleRead) && matches!(other, Ok(None)) {
                    lock(&self.last).insert(id.clone(), None);
                }
                return other;
            }
        };
        if self.is(Trick::StaleRead) {
            let new = Some((metadata.clone(), payload.clone()));
            let old = lock(&self.last).insert(id.clone(), new);
            if self.reads.fetch_add(1, Ordering::Relaxed) % 6 == 5
                && let Some(old) = old
            {
                return Ok(old.map(|(metadata, payload)| (metadata, body(&payload))));
            }
        }
        Ok(Some((metadata, body(&payload))))
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        self.bump(id).await;
        self.around(true, self.store.get_metadata(id)).await
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        self.around(false, self.store.delete_object(id)).await
    }

    async fn join(&self) {
        if self.is(Trick::StuckJoin) && lock(&self.medium.0).2 {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl HighVolumeBackend for Remote {
    async fn put_non_tombstone(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<Option<Tombstone>, BackendError> {
        let metadata = self.bent(metadata);
        if self.is(Trick::LookThenPut) {
            if let TieredMetadata::Tombstone(found) = self.store.get_tiered_metadata(id).await? {
                return Ok(Some(found));
            }
            tokio::task::yield_now().await;
            self.store.store(id, &metadata, payload)?;
            return Ok(None);
        }
        let put = self.store.put_non_tombstone(id, &metadata, payload);
        self.around(false, put).await
    }

    async fn get_tiered_object(&self, id: &ObjectId) -> Result<TieredGet, BackendError> {
        self.bump(id).await;
        self.around(true, self.store.get_tiered_object(id)).await
    }

    async fn get_tiered_metadata(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError> {
        self.bump(id).await;
        self.around(true, self.store.get_tiered_metadata(id)).await
    }

    async fn delete_non_tombstone(&self, id: &ObjectId) -> Result<Option<Tombstone>, BackendError> {
        let delete = self.store.delete_non_tombstone(id);
        self.around(false, delete).await
    }

    async fn compare_and_write(
        &self,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Result<bool, BackendError> {
        let text = format!("{id} {current:?} {write:?}");
        let write = match write {
            TieredWrite::Object(metadata, payload) => {
                TieredWrite::Object(self.bent(&metadata), payload)
            }
            other => other,
        };
        let swap = self.store.compare_and_write(id, current, write);
        let answer = self.around(false, swap).await;
        if self.is(Trick::OwnWinLost) {
            let mut swaps = lock(&self.swaps);
            if swaps.contains(&text) {
                return Ok(false);
            }
            swaps.push(text);
        }
        answer
    }

    async fn fence(&self, id: &ObjectId) -> Result<(), BackendError> {
        self.store.fence(id).await
    }

    async fn extend_expiry(
        &self,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        let extend = self.store.extend_expiry(id, target, at);
        self.around(false, extend).await
    }
}

struct Far {
    near: World,
    shown: Arc<TestClock>,
    trick: Trick,
    medium: Arc<Switch>,
    permits: Arc<Semaphore>,
    turns: Arc<Turns>,
}

impl Far {
    fn remote(&self, place: &str) -> Remote {
        Remote {
            store: Arc::new(self.near.store(place)),
            trick: self.trick,
            medium: Arc::clone(&self.medium),
            permits: Arc::clone(&self.permits),
            turns: Arc::clone(&self.turns),
            swaps: Mutex::default(),
            reads: AtomicUsize::new(0),
            last: Mutex::default(),
        }
    }

    async fn with(env: Env, flaw: Flaw, trick: Trick) -> Result<Self, BoxError> {
        let near = flawed(env, flaw).await?;
        let shown = match trick {
            Trick::OtherClock => Arc::default(),
            _ => Arc::clone(&near.clock),
        };
        Ok(Self {
            near,
            shown,
            trick,
            medium: Arc::default(),
            permits: Arc::new(Semaphore::new(8)),
            turns: Arc::default(),
        })
    }
}

impl Fixture for Far {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Self::with(env.clone(), Flaw::None, Trick::None).await
    }

    fn caps(&self) -> Caps {
        self.near.caps().with_late_landing(LateLanding::Fenced)
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        self.near.is_clocked.then(|| Arc::clone(&self.shown))
    }

    async fn settle(&self) {}

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::<Switch>::clone(&self.medium))
    }
}

impl high_volume::Open for Far {
    type Store = Remote;

    async fn open(&self, place: &str) -> Result<Remote, BoxError> {
        Ok(self.remote(place))
    }
}

impl backend::Open for Far {
    type Store = Remote;

    async fn open(&self, place: &str) -> Result<Remote, BoxError> {
        Ok(self.remote(place))
    }
}

fn both(flaw: Flaw, trick: Trick) -> [Suite; 2] {
    [
        high_volume::suite_with(move |env| Far::with(env, flaw, trick)),
        backend::suite_with(move |env| Far::with(env, flaw, trick)),
    ]
}

/// Whether the check fails on the store, in either suite that has it.
fn fails(suite: &Suite, id: &str) -> bool {
    let mut options = Options::new();
    options.seed = 11;
    let trial = suite.trials().iter().find(|trial| trial.info().id == id);
    trial.is_some_and(|trial| {
        let verdict = trial.run_until_failed(&options, 10).verdict;
        println!("{id}: {verdict:?}");
        matches!(verdict, Verdict::Fail(_))
    })
}

#[test]
fn the_model_passes_behind_a_medium() {
    for suite in both(Flaw::None, Trick::None) {
        assert_eq!(failed(&suite, &[]), [""; 0]);
    }
}

#[test]
fn without_a_test_clock_real_time_passes() {
    let suite = high_volume::suite_with(|env| async move {
        let mut far = Far::with(env, Flaw::None, Trick::None).await?;
        far.near.is_clocked = false;
        let clock = Arc::downgrade(&far.near.clock);
        tokio::spawn(async move {
            let started = std::time::Instant::now();
            let begin = TestClock::new().now();
            while let Some(clock) = clock.upgrade() {
                clock.set(begin + started.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Ok::<_, BoxError>(far)
    });
    assert_eq!(failed(&suite, &["HV-8"]), [""; 0]);
}

#[test]
fn each_trick_fails_its_own_check() {
    let tricks = [
        (
            Flaw::None,
            Trick::TornPut,
            &["C-6.1", "BK-1.3", "BK-1.1"][..],
        ),
        (Flaw::None, Trick::Detached, &["C-6.3"]),
        (Flaw::None, Trick::LeakedPermit, &["C-6.2"]),
        (Flaw::None, Trick::LostTurn, &["C-6.4"]),
        (Flaw::None, Trick::FalseNotApplied, &["C-1.2"]),
        (Flaw::None, Trick::SilentRead, &["BK-2.2", "C-1.1"]),
        (Flaw::None, Trick::ShortBody, &["BK-2.2"]),
        (Flaw::None, Trick::StuckJoin, &["BK-5.1"]),
        (Flaw::None, Trick::StaleRead, &["BK-1.1"]),
        (Flaw::None, Trick::BlindBump, &["HV-8.4"]),
        (Flaw::None, Trick::WritePerRead, &["HV-8.3"]),
        (Flaw::None, Trick::InventedEnd, &["HV-8.2"]),
        (Flaw::None, Trick::RoundedUp, &["HV-8.1"]),
        (Flaw::None, Trick::OtherClock, &["C-5.1", "HV-8.1"]),
    ];
    for (flaw, trick, ids) in tricks {
        let [tiered, plain] = both(flaw, trick);
        for id in ids {
            assert!(fails(&tiered, id), "{trick:?}: {id}");
            assert!(fails(&plain, id), "{trick:?}: {id} of a plain backend");
        }
    }
    let tiered = [
        (Flaw::TwoSteps, Trick::None, "HV-7.1"),
        (Flaw::None, Trick::LookThenPut, "HV-7.3"),
        (Flaw::None, Trick::OwnWinLost, "HV-6.3"),
    ];
    for (flaw, trick, id) in tiered {
        assert!(
            fails(&both(flaw, trick)[0], id),
            "{flaw:?}, {trick:?}: {id}"
        );
    }
}
