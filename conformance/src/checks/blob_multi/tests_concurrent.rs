//! The checks of dropped calls, of failing media and of time: a store over a medium that fails on request passes them,
//! and each of its broken variants fails the one that is there for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::{
    Atomicity, BlobMulti, BlobMultiCaps, Caps, Clock, ErrorKind, ExternalError, Fault, LateLanding,
    TestClock,
};
use tokio::sync::Semaphore;

use crate::blob_multi::{Open, suite_with};
use crate::check::Verdict;
use crate::fixture::{BoxError, Env, FaultKind, Faults, Fixture};
use crate::model::blob_multi::{Blobs, KeyDomain};
use crate::run::Options;

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    /// Makes failed calls to the medium again in time, which it may.
    Retries,
    NotAppliedAlways,
    ReadsAreUnknown,
    FailureIsAbsence,
    FailureIsEmptyList,
    FailureIsInvalid,
    AckedBeforeTheMedium,
    DeletesFirst,
    NoTimer,
    WaitsOutsideTimer,
    RetriesOutsideTimer,
    TimeoutIsUnavailable,
    FailureIsTimeout,
    Zombie,
    DropLandsLate,
    TearsOnDrop,
    LocksForDropped,
    LeaksPermits,
    WakesTheDropped,
    DeadlineByWallClock,
    ForgetsInTheFuture,
    AcceptsGarbage,
    PanicsOnGarbage,
}

/// A medium that serves calls one step at a time, and badly when it is told to.
#[derive(Debug, Default)]
struct Medium {
    map: Mutex<Blobs>,
    armed: Mutex<Option<(u64, FaultKind)>>,
    met: AtomicBool,
    garbage: AtomicBool,
    /// Of [`Flaw::LocksForDropped`].
    locked: AtomicBool,
    /// Of [`Flaw::LeaksPermits`].
    taken: AtomicU64,
}

/// What a call to the medium comes to.
enum Served {
    Well,
    Garbage,
}

impl Medium {
    fn map(&self) -> MutexGuard<'_, Blobs> {
        self.map.lock().unwrap()
    }

    /// One call, with its effect; `Err(true)` if it failed after that.
    async fn serve(&self, effect: impl FnOnce(&mut Blobs) + Send) -> Result<Served, bool> {
        tokio::task::yield_now().await;
        let kind = {
            let mut armed = self.armed.lock().unwrap();
            match armed.as_mut() {
                Some((1, kind)) => {
                    let kind = *kind;
                    *armed = None;
                    self.met.store(true, Ordering::SeqCst);
                    Some(kind)
                }
                Some((nth, _)) => {
                    *nth -= 1;
                    None
                }
                None => None,
            }
        };
        if kind != Some(FaultKind::ErrorBefore) {
            effect(&mut self.map());
        }
        let garbage = self.garbage.load(Ordering::SeqCst);
        match kind {
            None => {}
            Some(_) if garbage => return Ok(Served::Garbage),
            Some(FaultKind::ErrorBefore) => return Err(false),
            Some(FaultKind::ErrorAfter) => return Err(true),
            Some(FaultKind::Hang) => std::future::pending().await,
        }
        tokio::task::yield_now().await;
        Ok(Served::Well)
    }
}

struct Switch {
    medium: Arc<Medium>,
    garbage: bool,
}

impl Faults for Switch {
    fn arm(&self, nth: u64, kind: FaultKind) {
        self.medium.met.store(false, Ordering::SeqCst);
        self.medium.garbage.store(self.garbage, Ordering::SeqCst);
        *self.medium.armed.lock().unwrap() = Some((nth, kind));
    }

    fn disarm(&self) -> bool {
        *self.medium.armed.lock().unwrap() = None;
        self.medium.met.swap(false, Ordering::SeqCst)
    }
}

/// All places are one, but for the name before each key.
#[derive(Debug)]
struct World {
    medium: Arc<Medium>,
    clock: Arc<TestClock>,
    flaw: Flaw,
    caps: Caps,
}

const CAPS: Caps = Caps::LEAST
    .with_late_landing(LateLanding::Fenced)
    .with_in_flight_max(Some(4))
    .with_blob_multi(BlobMultiCaps::LEAST.with_list_snapshot(true));

impl Fixture for World {
    async fn new(_env: &Env) -> Result<Self, BoxError> {
        unreachable!("worlds of this test are made with their flaw")
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(Arc::clone(&self.clock))
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(self.switch(false))
    }
}

impl World {
    fn switch(&self, garbage: bool) -> Arc<dyn Faults> {
        let medium = Arc::clone(&self.medium);
        Arc::new(Switch { medium, garbage })
    }
}

impl Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        Ok(Store {
            place: format!("{place}//"),
            medium: Arc::clone(&self.medium),
            clock: Arc::clone(&self.clock),
            opened: self.clock.now(),
            permits: Arc::new(Semaphore::new(4)),
            queue: Arc::default(),
            flaw: self.flaw,
        })
    }

    fn garbled(&self) -> Vec<(&'static str, Arc<dyn Faults>)> {
        vec![("noise", self.switch(true))]
    }
}

#[derive(Debug)]
struct Store {
    place: String,
    medium: Arc<Medium>,
    clock: Arc<TestClock>,
    opened: std::time::SystemTime,
    permits: Arc<Semaphore>,
    queue: Arc<Queue>,
    flaw: Flaw,
}

/// A lock whose holder wakes the one who waits longest, and who may be gone by then.
#[derive(Debug, Default)]
struct Queue {
    held: AtomicBool,
    waiting: Mutex<Vec<Arc<tokio::sync::Notify>>>,
}

impl Queue {
    async fn enter(&self) {
        if !self.held.swap(true, Ordering::SeqCst) {
            return;
        }
        let turn = Arc::new(tokio::sync::Notify::new());
        self.waiting.lock().unwrap().push(Arc::clone(&turn));
        turn.notified().await;
    }

    fn leave(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        if waiting.is_empty() {
            self.held.store(false, Ordering::SeqCst);
        } else {
            waiting.remove(0).notify_one();
        }
    }
}

/// How a step failed.
enum Failed {
    /// Before or, if so, at the commit point.
    Medium {
        committed: bool,
    },
    Garbage {
        committed: bool,
    },
}

type Step = Result<(), Failed>;

impl Store {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.place)
    }

    fn checked(&self, key: &str) -> Result<(), ExternalError> {
        if KeyDomain::of(key, &CAPS.blob_multi) == KeyDomain::Base {
            return Ok(());
        }
        Err(Fault::not_applied(ErrorKind::InvalidInput, "not a key").into())
    }

    fn error(&self, kind: ErrorKind, unknown: bool) -> ExternalError {
        let kind = match self.flaw {
            Flaw::FailureIsInvalid => ErrorKind::InvalidInput,
            Flaw::FailureIsTimeout => ErrorKind::Timeout,
            Flaw::TimeoutIsUnavailable if kind == ErrorKind::Timeout => ErrorKind::Unavailable,
            _ => kind,
        };
        if unknown && self.flaw != Flaw::NotAppliedAlways {
            Fault::unknown(kind, "the medium failed").into()
        } else {
            Fault::not_applied(kind, "the medium failed").into()
        }
    }

    /// One call to the medium, made again if it failed and this store does so.
    async fn step(
        &self,
        commits: bool,
        effect: impl FnOnce(&mut Blobs) + Clone + Send + Sync,
    ) -> Step {
        let mut tries = match self.flaw {
            Flaw::Retries => 3,
            Flaw::RetriesOutsideTimer => 20,
            _ => 1,
        };
        loop {
            tries -= 1;
            match self.medium.serve(effect.clone()).await {
                Ok(Served::Well) => return Ok(()),
                Ok(Served::Garbage) => match self.flaw {
                    Flaw::AcceptsGarbage => return Ok(()),
                    Flaw::PanicsOnGarbage => panic!("an answer that cannot be read"),
                    _ => return Err(Failed::Garbage { committed: commits }),
                },
                Err(_) if tries > 0 => tokio::time::sleep(Duration::from_millis(40)).await,
                Err(_) => return Err(Failed::Medium { committed: commits }),
            }
        }
    }

    async fn look(&self) -> Result<(), ExternalError> {
        self.step(false, |_| {}).await.map_err(|failed| {
            let unknown = self.flaw == Flaw::ReadsAreUnknown;
            match failed {
                Failed::Medium { .. } => self.error(ErrorKind::Unavailable, unknown),
                Failed::Garbage { .. } => self.error(ErrorKind::Corrupt, unknown),
            }
        })
    }

    async fn read(&self, key: &str) -> Result<Option<Bytes>, ExternalError> {
        let looked = self.look().await;
        if looked.is_err() && self.flaw == Flaw::FailureIsAbsence {
            return Ok(None);
        }
        looked?;
        Ok(self.medium.map().get(&self.key(key)).cloned())
    }

    /// A look at what is there, and then the write itself.
    async fn write(&self, key: &str, value: Option<Bytes>) -> Result<(), ExternalError> {
        let key = self.key(key);
        self.look().await?;
        let zombie = |late: Change| {
            let medium = Arc::clone(&self.medium);
            OnDrop(Some(Box::new(move || {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    late(&mut medium.map());
                });
            })))
        };
        let change = |value: Option<Bytes>| {
            let key = key.clone();
            move |map: &mut Blobs| match value {
                Some(value) => map.set(&key, value),
                None => {
                    map.delete(&key);
                }
            }
        };
        if self.flaw == Flaw::DeletesFirst {
            let deleted = self.step(false, change(None)).await;
            deleted.map_err(|_failed| self.error(ErrorKind::Unavailable, true))?;
        }
        if self.flaw == Flaw::TearsOnDrop && value.is_some() {
            let half = value.as_ref().map(|value| value.slice(..value.len() / 2));
            drop(self.step(false, change(half)).await);
        }
        let dropped = zombie(Box::new(change(value.clone())));
        let dropped = match self.flaw {
            Flaw::DropLandsLate => Some(dropped),
            _ => dropped.forget(),
        };
        let late: Change = Box::new(change(value.clone()));
        let changed = self.step(true, change(value)).await;
        dropped.and_then(OnDrop::forget);
        if changed.is_err() && self.flaw == Flaw::Zombie {
            drop(zombie(late));
        }
        match changed {
            Ok(()) => Ok(()),
            Err(_) if self.flaw == Flaw::AckedBeforeTheMedium => Ok(()),
            Err(Failed::Medium { committed }) => Err(self.error(ErrorKind::Unavailable, committed)),
            Err(Failed::Garbage { committed }) => Err(self.error(ErrorKind::Corrupt, committed)),
        }
    }

    /// One call: in the queue, within the deadline.
    async fn call<T>(
        &self,
        deadline: Instant,
        is_write: bool,
        body: impl Future<Output = Result<T, ExternalError>> + Send,
    ) -> Result<T, ExternalError> {
        let late = |unknown| Err(self.error(ErrorKind::Timeout, unknown));
        let now = if self.flaw == Flaw::DeadlineByWallClock {
            let passed = self.clock.now().duration_since(self.opened);
            Instant::now() + passed.unwrap_or_default()
        } else {
            Instant::now()
        };
        if deadline <= now {
            return late(false);
        }
        let begun = AtomicBool::new(false);
        let queued = async {
            let permit = match self.flaw {
                Flaw::WaitsOutsideTimer => None,
                _ => Some(self.permits.acquire().await.expect("nobody closes it")),
            };
            self.leaky().await;
            begun.store(true, Ordering::SeqCst);
            let answer = body.await;
            self.left();
            drop(permit);
            answer
        };
        let outer = match self.flaw {
            Flaw::WaitsOutsideTimer => Some(self.permits.acquire().await.expect("as above")),
            _ => None,
        };
        let answer = match self.flaw {
            Flaw::NoTimer | Flaw::RetriesOutsideTimer => queued.await,
            _ => {
                let until = tokio::time::Instant::from_std(deadline);
                let timed = tokio::time::timeout_at(until, queued).await;
                timed.unwrap_or_else(|_| late(is_write && begun.load(Ordering::SeqCst)))
            }
        };
        drop(outer);
        answer
    }

    /// What some stores take, and give back at the end of calls that come to one.
    async fn leaky(&self) {
        match self.flaw {
            Flaw::LocksForDropped => {
                while self.medium.locked.swap(true, Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            Flaw::LeaksPermits => {
                while self.medium.taken.load(Ordering::SeqCst) >= 32 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                self.medium.taken.fetch_add(1, Ordering::SeqCst);
            }
            Flaw::WakesTheDropped => self.queue.enter().await,
            _ => {}
        }
    }

    fn left(&self) {
        match self.flaw {
            Flaw::LocksForDropped => self.medium.locked.store(false, Ordering::SeqCst),
            Flaw::LeaksPermits => {
                self.medium.taken.fetch_sub(1, Ordering::SeqCst);
            }
            Flaw::WakesTheDropped => self.queue.leave(),
            _ => {}
        }
    }
}

type Change = Box<dyn FnOnce(&mut Blobs) + Send>;

/// What happens if it is dropped, unless it is forgotten.
struct OnDrop(Option<Box<dyn FnOnce() + Send>>);

impl OnDrop {
    fn forget(mut self) -> Option<Self> {
        self.0 = None;
        None
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

#[async_trait]
impl BlobMulti for Store {
    async fn get(&self, deadline: Instant, key: &str) -> Result<Option<Vec<u8>>, ExternalError> {
        self.checked(key)?;
        if self.flaw == Flaw::ForgetsInTheFuture
            && self.clock.now() > self.opened + Duration::from_secs(30 * 24 * 3_600)
        {
            return Ok(None);
        }
        let value = self.call(deadline, false, self.read(key)).await?;
        Ok(value.map(Vec::from))
    }

    async fn list_keys(&self, deadline: Instant) -> Result<Vec<String>, ExternalError> {
        let list = async {
            let looked = self.look().await;
            if looked.is_err() && self.flaw == Flaw::FailureIsEmptyList {
                return Ok(Vec::new());
            }
            looked?;
            let map = self.medium.map();
            let keys = map.keys().filter_map(|key| key.strip_prefix(&self.place));
            Ok(keys.map(str::to_owned).collect())
        };
        self.call(deadline, false, list).await
    }

    async fn set(
        &self,
        deadline: Instant,
        key: &str,
        value: Bytes,
        _atomic: Atomicity,
    ) -> Result<(), ExternalError> {
        self.checked(key)?;
        self.call(deadline, true, self.write(key, Some(value)))
            .await
    }

    async fn delete(&self, deadline: Instant, key: &str) -> Result<(), ExternalError> {
        self.checked(key)?;
        self.call(deadline, true, self.write(key, None)).await
    }
}

fn verdict(flaw: Flaw, caps: Caps, id: &str) -> Verdict {
    let suite = suite_with(move |_env| async move {
        Ok(World {
            medium: Arc::default(),
            clock: Arc::default(),
            flaw,
            caps,
        })
    });
    let mut options = Options::new();
    options.only = Some(id.to_owned());
    let trial = suite.trials().iter().find(|trial| options.selects(trial));
    let trial = trial.expect("the check is there");
    let declares_it = caps.late_landing == LateLanding::MayLandLate(None);
    let sound = matches!(flaw, Flaw::Nothing | Flaw::Retries) || declares_it;
    trial
        .run_until_failed(&options, if sound { 1 } else { 10 })
        .verdict
}

const BOUND: Caps =
    CAPS.with_late_landing(LateLanding::MayLandLate(Some(Duration::from_millis(100))));

/// The verdicts of checks that mostly wait, all at once.
fn at_once(cases: Vec<(Flaw, Caps, &'static str)>) -> Vec<(Flaw, &'static str, Verdict)> {
    let threads: Vec<_> = cases
        .into_iter()
        .map(|(flaw, caps, id)| std::thread::spawn(move || (flaw, id, verdict(flaw, caps, id))))
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect()
}

const ALL: [&str; 20] = [
    "C-1.1", "C-1.2", "C-3.2", "C-5.1", "C-6.1", "C-6.2", "C-6.3", "C-6.4", "BM-2.4", "BM-4.1",
    "BM-4.4", "BM-6.1", "BM-6.4", "BM-7.2", "BM-7.4", "BM-7.5", "BM-12.1", "BM-12.2", "BM-13.1",
    "BM-13.3",
];

#[test]
fn a_faithful_store_over_a_failing_medium_passes() {
    let every = |flaw, caps| ALL.map(|id| (flaw, caps, id));
    let mut cases = every(Flaw::Nothing, CAPS).to_vec();
    cases.extend(every(Flaw::Retries, CAPS));
    cases.extend(["C-6.3", "BM-12.1", "BM-12.2"].map(|id| (Flaw::Nothing, BOUND, id)));
    // A few at a time, for some of them look at the time.
    for some in cases.chunks(15) {
        for (flaw, id, verdict) in at_once(some.to_vec()) {
            match verdict {
                Verdict::Pass => {}
                Verdict::Ignored(why) if why.starts_with("declared") => {}
                other => panic!("{flaw:?}: {id} ended as {other:?}"),
            }
        }
    }
}

#[test]
fn each_broken_store_fails_the_check_that_is_there_for_it() {
    let late = CAPS.with_late_landing(LateLanding::MayLandLate(None));
    let broken = [
        (Flaw::NotAppliedAlways, CAPS, "C-1.1"),
        (Flaw::NotAppliedAlways, CAPS, "C-1.2"),
        (Flaw::NotAppliedAlways, CAPS, "BM-13.1"),
        (Flaw::NotAppliedAlways, CAPS, "BM-7.2"),
        (Flaw::ReadsAreUnknown, CAPS, "C-1.1"),
        (Flaw::FailureIsAbsence, CAPS, "C-1.1"),
        (Flaw::FailureIsAbsence, CAPS, "BM-13.3"),
        (Flaw::FailureIsEmptyList, CAPS, "C-1.1"),
        (Flaw::FailureIsInvalid, CAPS, "C-1.1"),
        (Flaw::AckedBeforeTheMedium, CAPS, "C-1.2"),
        (Flaw::AckedBeforeTheMedium, CAPS, "BM-4.4"),
        (Flaw::DeletesFirst, CAPS, "BM-4.4"),
        (Flaw::DeletesFirst, CAPS, "BM-4.1"),
        (Flaw::TearsOnDrop, CAPS, "BM-4.4"),
        (Flaw::NoTimer, CAPS, "BM-7.2"),
        (Flaw::WaitsOutsideTimer, CAPS, "BM-7.4"),
        (Flaw::RetriesOutsideTimer, CAPS, "BM-7.4"),
        (Flaw::TimeoutIsUnavailable, CAPS, "BM-7.2"),
        (Flaw::FailureIsTimeout, CAPS, "BM-7.5"),
        (Flaw::Zombie, CAPS, "BM-12.1"),
        (Flaw::Zombie, BOUND, "BM-12.2"),
        (Flaw::DropLandsLate, CAPS, "C-6.3"),
        (Flaw::DropLandsLate, BOUND, "C-6.3"),
        (Flaw::TearsOnDrop, late, "C-6.1"),
        (Flaw::LocksForDropped, CAPS, "C-6.1"),
        (Flaw::LocksForDropped, CAPS, "C-6.2"),
        (Flaw::LeaksPermits, CAPS, "C-6.2"),
        (Flaw::WakesTheDropped, CAPS, "C-6.4"),
        (Flaw::DeadlineByWallClock, CAPS, "C-5.1"),
        (Flaw::ForgetsInTheFuture, CAPS, "C-5.1"),
        (Flaw::AcceptsGarbage, CAPS, "BM-13.3"),
        (Flaw::PanicsOnGarbage, CAPS, "C-3.2"),
    ];
    // What a store does late it may do late, if it says so.
    let benign = [(Flaw::DropLandsLate, late, "C-6.3")];
    for some in broken.chunks(17) {
        for (flaw, id, verdict) in at_once(some.to_vec()) {
            let failed = matches!(verdict, Verdict::Fail(_));
            assert!(failed, "{id} on {flaw:?} ended as {verdict:?}");
        }
    }
    for (flaw, id, verdict) in at_once(benign.to_vec()) {
        let passed = matches!(verdict, Verdict::Pass);
        assert!(passed, "{id} on {flaw:?} ended as {verdict:?}");
    }
}
