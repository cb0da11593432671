//! The concurrent checks of `KvClient` on a store whose calls wait and whose medium can fail, and on broken variants.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::{
    Caps, Clock, Durability, ErrorKind, Fault, KvCaps, KvClient, KvClientError, LateLanding,
    SystemClock, TestClock, TtlRestart,
};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::check::Verdict;
use crate::fixture::{BoxError, Env, FaultKind, Faults, Fixture};
use crate::kv_client::{Open, suite_with};
use crate::model::kv_client::{Entries, check_key, check_value};
use crate::run::Options;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// Reads of a handle lag behind the writes of others.
    StaleRead,
    /// `get_multi` looks at its keys one by one.
    MultiOneByOne,
    /// A read extends what it finds.
    ReadRevives,
    /// The time is looked at in reads only, and puts count from the last look.
    StaleClock,
    /// `get_multi` shows what has ended.
    MultiShowsEnded,
    /// A timer of real time removes whatever is there.
    OldTimer,
    /// The clock must not go back.
    ClockGoesAhead,
    /// A time to live starts again when the place is opened.
    OpenRestarts,
    /// Half of a value is there before the other half.
    HalfFirst,
    /// A dropped call keeps its permit.
    LeakedPermit,
    /// A dropped put lands later.
    LandsLate,
    /// The lock is handed to a waiter that is gone.
    LostWakeUp,
    /// Every error is said to be without effect.
    FalseNotApplied,
    /// A read that failed found nothing.
    FailureAsNone,
    /// A silent medium is waited for.
    NoTimer,
}

const CAPS: Caps = Caps::LEAST
    .with_durability(Durability::Process)
    .with_late_landing(LateLanding::Fenced)
    .with_in_flight_max(Some(8))
    .with_kv_client(
        KvCaps::LEAST
            .with_empty_key(true)
            .with_ttl_granularity(Duration::ZERO)
            .with_ttl_restart(TtlRestart::Deadline)
            .with_multi_snapshot(true),
    );

const BOUND: Duration = Duration::from_millis(60);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands between the store and its entries.
#[derive(Default)]
struct Medium {
    armed: Mutex<Option<(u64, FaultKind)>>,
    met: AtomicU64,
}

impl Medium {
    /// The fault of this call, if it is its turn.
    fn turn(&self) -> Option<FaultKind> {
        let mut armed = locked(&self.armed);
        let (nth, kind) = armed.as_mut()?;
        *nth -= 1;
        if *nth > 0 {
            return None;
        }
        let kind = *kind;
        *armed = None;
        self.met.fetch_add(1, Ordering::SeqCst);
        Some(kind)
    }
}

impl Faults for Medium {
    fn arm(&self, nth: u64, kind: FaultKind) {
        self.met.store(0, Ordering::SeqCst);
        *locked(&self.armed) = Some((nth, kind));
    }

    fn disarm(&self) -> bool {
        *locked(&self.armed) = None;
        self.met.load(Ordering::SeqCst) > 0
    }
}

/// A lock that wakes its waiters in turn, those too that are gone.
#[derive(Default)]
struct Careless {
    state: Mutex<(bool, VecDeque<oneshot::Sender<()>>)>,
}

struct Held<'a>(&'a Careless);

impl Careless {
    async fn take(&self) -> Held<'_> {
        let waiting = {
            let mut state = locked(&self.state);
            if state.0 {
                let (send, receive) = oneshot::channel();
                state.1.push_back(send);
                Some(receive)
            } else {
                state.0 = true;
                None
            }
        };
        if let Some(waiting) = waiting {
            drop(waiting.await);
        }
        Held(self)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = locked(&self.0.state);
        match state.1.pop_front() {
            Some(next) => {
                let _is_there = next.send(()).is_ok();
            }
            None => state.0 = false,
        }
    }
}

struct Inner {
    entries: Mutex<Entries>,
    /// What was there before the last write.
    before: Mutex<Entries>,
    permits: Semaphore,
    turn: tokio::sync::Mutex<()>,
    careless: Careless,
    /// When a read last looked at the clock.
    looked: Mutex<Option<SystemTime>>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            before: Mutex::default(),
            permits: Semaphore::new(8),
            turn: tokio::sync::Mutex::default(),
            careless: Careless::default(),
            looked: Mutex::default(),
        }
    }
}

struct Place {
    flaw: Flaw,
    clock: Option<Arc<TestClock>>,
    medium: Arc<Medium>,
    places: Mutex<HashMap<String, Arc<Inner>>>,
}

impl Fixture for Place {
    async fn new(_env: &Env) -> Result<Self, BoxError> {
        Err("made with a flaw only".into())
    }

    fn caps(&self) -> Caps {
        CAPS
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        self.clock.clone()
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::<Medium>::clone(&self.medium) as Arc<dyn Faults>)
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

impl Open for Place {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        let inner = Arc::clone(locked(&self.places).entry(place.to_owned()).or_default());
        let store = Store {
            flaw: self.flaw,
            clock: self.clock.clone(),
            medium: Arc::clone(&self.medium),
            inner,
            reads: AtomicU64::new(0),
        };
        if self.flaw == Flaw::OpenRestarts {
            let now = store.now();
            let mut entries = locked(&store.inner.entries);
            if let Some(kept) = entries.get(b"kept", now).cloned() {
                entries.put_with_ttl(b"kept", kept, 100_000, now)?;
            }
        }
        Ok(store)
    }

    fn call_bound(&self) -> Option<Duration> {
        Some(BOUND)
    }
}

struct Store {
    flaw: Flaw,
    clock: Option<Arc<TestClock>>,
    medium: Arc<Medium>,
    inner: Arc<Inner>,
    reads: AtomicU64,
}

/// A call that may go ahead.
struct Admitted<'a> {
    permit: Option<SemaphorePermit<'a>>,
    leaks: bool,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if let (Some(permit), true) = (self.permit.take(), self.leaks) {
            permit.forget();
        }
    }
}

/// Lands a value later when it is dropped.
struct Late(Option<(Arc<Inner>, Bytes, Bytes)>);

impl Drop for Late {
    fn drop(&mut self) {
        if let Some((inner, key, value)) = self.0.take() {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                locked(&inner.entries).put(&key, value);
            });
        }
    }
}

impl Store {
    fn now(&self) -> SystemTime {
        let now = match &self.clock {
            Some(clock) => clock.now(),
            None => SystemClock::default().now(),
        };
        if self.flaw == Flaw::ClockGoesAhead {
            let mut looked = locked(&self.inner.looked);
            let last = looked.replace(now).unwrap_or(now);
            drop(looked);
            now.duration_since(last).expect("time goes ahead");
        }
        now
    }

    /// One call to the medium.
    async fn call<T>(
        &self,
        is_write: bool,
        effect: impl FnOnce() -> T + Send,
    ) -> Result<T, KvClientError> {
        tokio::task::yield_now().await;
        let failed = |kind| -> KvClientError {
            if is_write && self.flaw != Flaw::FalseNotApplied {
                Fault::unknown(kind, "the medium failed").into()
            } else {
                Fault::not_applied(kind, "the medium failed").into()
            }
        };
        match self.medium.turn() {
            None => Ok(effect()),
            Some(FaultKind::ErrorBefore) => Err(failed(ErrorKind::Unavailable)),
            Some(FaultKind::ErrorAfter) => {
                effect();
                Err(failed(ErrorKind::Unavailable))
            }
            Some(FaultKind::Hang) => {
                if self.flaw == Flaw::NoTimer {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(BOUND).await;
                Err(failed(ErrorKind::Timeout))
            }
        }
    }

    async fn admit(&self) -> Result<Admitted<'_>, KvClientError> {
        let permit = self.inner.permits.acquire().await.expect("never closed");
        let admitted = Admitted {
            permit: Some(permit),
            leaks: self.flaw == Flaw::LeakedPermit,
        };
        if self.flaw == Flaw::LostWakeUp {
            let _held = self.inner.careless.take().await;
            self.call(false, || ()).await?;
        } else {
            let _held = self.inner.turn.lock().await;
            self.call(false, || ()).await?;
        }
        Ok(admitted)
    }

    fn apply(&self, key: &[u8], value: Option<&[u8]>, ttl: Option<u64>) {
        let now = match self.flaw {
            Flaw::StaleClock => locked(&self.inner.looked).unwrap_or_else(|| self.now()),
            _ => self.now(),
        };
        let mut entries = locked(&self.inner.entries);
        locked(&self.inner.before).clone_from(&entries);
        let value = value.map(Bytes::copy_from_slice);
        match (value, ttl) {
            (None, _) => drop(entries.delete(key, now)),
            (Some(value), None) => entries.put(key, value),
            (Some(value), Some(ttl)) => {
                let put = entries.put_with_ttl(key, value, ttl, now);
                put.expect("a ttl of 0 was refused");
            }
        }
        drop(entries);
        if let (Flaw::OldTimer, Some(ttl @ 1..3)) = (self.flaw, ttl) {
            let (inner, key) = (Arc::clone(&self.inner), key.to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(ttl)).await;
                locked(&inner.entries).delete(&key, SystemTime::UNIX_EPOCH);
            });
        }
    }

    async fn write(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        ttl: Option<u64>,
    ) -> Result<(), KvClientError> {
        check_key(&CAPS.kv_client, key)?;
        check_value(&CAPS.kv_client, value.unwrap_or_default())?;
        if ttl == Some(0) {
            return Err(larder_traits::kv_client::zero_ttl());
        }
        let mut admitted = self.admit().await?;
        if let (Flaw::HalfFirst, Some(value)) = (self.flaw, value) {
            let half = Bytes::copy_from_slice(&value[..value.len() / 2]);
            locked(&self.inner.entries).put(key, half);
        }
        let lands_late = value.filter(|_| self.flaw == Flaw::LandsLate);
        let mut late = Late(lands_late.map(|value| {
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            (Arc::clone(&self.inner), key, value)
        }));
        let result = self.call(true, || self.apply(key, value, ttl)).await;
        late.0 = None;
        admitted.leaks = false;
        result
    }

    fn find(&self, key: &[u8], now: SystemTime) -> Option<Bytes> {
        let is_third = self.reads.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        let mut entries = locked(&self.inner.entries);
        if self.flaw == Flaw::StaleRead && is_third {
            return locked(&self.inner.before).get(key, now).cloned();
        }
        let found = entries.get(key, now).cloned()?;
        if self.flaw == Flaw::ReadRevives {
            let put = entries.put_with_ttl(key, found.clone(), 60, now);
            put.expect("a minute is a time to live");
        }
        Some(found)
    }
}

#[async_trait]
impl KvClient for Store {
    async fn put(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl AsRef<[u8]> + Send,
    ) -> Result<(), KvClientError> {
        let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
        self.write(&key, Some(&value), None).await
    }

    async fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl AsRef<[u8]> + Send,
        ttl_secs: u64,
    ) -> Result<(), KvClientError> {
        let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
        self.write(&key, Some(&value), Some(ttl_secs)).await
    }

    async fn get(&self, key: impl AsRef<[u8]> + Send) -> Result<Option<Bytes>, KvClientError> {
        let key = key.as_ref().to_vec();
        check_key(&CAPS.kv_client, &key)?;
        let read = async {
            let mut admitted = self.admit().await?;
            let found = self.call(false, || {
                let now = self.now();
                if self.flaw == Flaw::StaleClock {
                    *locked(&self.inner.looked) = Some(now);
                }
                self.find(&key, now)
            });
            let found = found.await;
            admitted.leaks = false;
            found
        };
        match read.await {
            Err(_) if self.flaw == Flaw::FailureAsNone => Ok(None),
            result => result,
        }
    }

    async fn get_multi(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
        for key in keys {
            check_key(&CAPS.kv_client, key)?;
        }
        let mut admitted = self.admit().await?;
        let now = match self.flaw {
            Flaw::MultiShowsEnded => SystemTime::UNIX_EPOCH,
            _ => self.now(),
        };
        let mut found = Vec::new();
        if self.flaw == Flaw::MultiOneByOne {
            for key in keys {
                found.push(self.find(key, now));
                tokio::task::yield_now().await;
            }
        } else {
            let entries = || locked(&self.inner.entries).get_multi(keys, now);
            found = self.call(false, entries).await?;
        }
        admitted.leaks = false;
        Ok(found)
    }

    async fn delete(&self, key: impl AsRef<[u8]> + Send) -> Result<(), KvClientError> {
        let key = key.as_ref().to_vec();
        self.write(&key, None, None).await
    }
}

/// What did not pass, and why; of all checks or of one.
fn not_passed(flaw: Flaw, has_clock: bool, only: Option<&str>) -> Vec<(&'static str, String)> {
    let suite = suite_with(move |_env| async move {
        Ok(Place {
            flaw,
            clock: has_clock.then(Arc::default),
            medium: Arc::default(),
            places: Mutex::default(),
        })
    });
    let mut options = Options::new();
    options.seed = 11;
    options.only = only.map(str::to_owned);
    let mut found = Vec::new();
    for trial in suite.trials().iter().filter(|trial| options.selects(trial)) {
        let seeds = if flaw == Flaw::None { 1 } else { 10 };
        let verdict = trial.run_until_failed(&options, seeds).verdict;
        if matches!(verdict, Verdict::Fail(_) | Verdict::Inconclusive(_)) {
            let why = format!("{}: {:?}", verdict.name(), verdict);
            found.push((trial.info().id, why));
        }
    }
    found
}

#[test]
fn a_store_whose_calls_wait_and_whose_medium_fails_passes() {
    assert_eq!(not_passed(Flaw::None, true, None), []);
}

#[test]
fn a_store_without_a_test_clock_passes_in_real_time() {
    std::thread::scope(|scope| {
        for check in ["KV-3.1", "KV-3.2", "KV-3.4", "KV-4.1", "KV-7.2", "KV-9.2"] {
            scope.spawn(move || assert_eq!(not_passed(Flaw::None, false, Some(check)), []));
        }
    });
}

#[test]
fn each_flaw_is_found_by_the_check_that_is_there_for_it() {
    let flaws = [
        (Flaw::StaleRead, true, "KV-7.1"),
        (Flaw::MultiOneByOne, true, "KV-5.3"),
        (Flaw::ReadRevives, true, "KV-7.2"),
        (Flaw::ReadRevives, true, "KV-3.4"),
        (Flaw::ReadRevives, false, "KV-3.4"),
        (Flaw::StaleClock, true, "KV-3.1"),
        (Flaw::StaleClock, false, "KV-3.1"),
        (Flaw::MultiShowsEnded, true, "KV-3.2"),
        (Flaw::MultiShowsEnded, false, "KV-7.2"),
        (Flaw::OldTimer, true, "KV-4.1"),
        (Flaw::OldTimer, false, "KV-4.1"),
        (Flaw::ClockGoesAhead, true, "C-5.1"),
        (Flaw::OpenRestarts, true, "KV-9.2"),
        (Flaw::HalfFirst, true, "C-6.1"),
        (Flaw::LeakedPermit, true, "C-6.2"),
        (Flaw::LandsLate, true, "C-6.3"),
        (Flaw::LostWakeUp, true, "C-6.4"),
        (Flaw::FalseNotApplied, true, "C-1.1"),
        (Flaw::FalseNotApplied, true, "C-1.2"),
        (Flaw::FalseNotApplied, true, "KV-8.3"),
        (Flaw::FailureAsNone, true, "C-1.1"),
        (Flaw::NoTimer, true, "KV-8.2"),
    ];
    std::thread::scope(|scope| {
        for (flaw, has_clock, check) in flaws {
            scope.spawn(move || {
                let found = not_passed(flaw, has_clock, Some(check));
                let is_failed = found.iter().any(|(_, why)| why.starts_with("fail"));
                assert!(is_failed, "{flaw:?} at {check}: {found:?}");
            });
        }
    });
}
