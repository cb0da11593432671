//! The checks of drops, faults, time and concurrency, on a store with a medium that makes its callers wait and can
//! fail, and on broken ones of that kind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::stash::driver::{check_bounds, check_name};
use larder_traits::stash::{Frontiers, RawRow, Rows, Snapshot, StashDriver, StashOp};
use larder_traits::{
    Caps, Clock, CollectionId, ErrorKind, Fault, LateLanding, StashCaps, StashError, TestClock,
};
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use crate::check::{Symptom, Verdict};
use crate::fixture::{BoxError, Env, FaultKind, Faults, Fixture};
use crate::model::stash::Stashes;
use crate::run::Options;
use crate::stash::{Open, suite_with};

/// What is wrong with the store, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    /// A dropped commit goes on by itself, and nothing else was declared.
    LandsLate,
    /// The same, within the declared bound.
    LandsLateAsDeclared,
    /// The same, and the declared bound is too short.
    LandsLaterThanDeclared,
    /// The steps of a commit become visible one by one.
    StepByStep,
    /// The rows of an update become visible one by one.
    RowByRow,
    /// A call that is dropped takes its permit with it.
    LeaksPermits,
    /// A lost answer is told as if nothing had happened.
    FalseNotApplied,
    /// A lost answer makes the commit happen once more.
    BlindRetry,
    /// A lost creation makes another collection of the name.
    CreatesTwice,
    /// A read that failed has no rows.
    FailsAsEmpty,
    /// The error of a read is `Unknown`.
    ReadsAreUnknown,
    /// A refusal is `Unavailable`.
    RefusalsAreUnavailable,
    /// A refused seal is applied a while later.
    RefusedSealsLand,
    /// Every handle looks at the frontiers at every other call only.
    CachedFrontiers,
    /// A seal takes effect when it is asked for another time.
    SealsBehind,
    /// Once without space, always without.
    StuckWhenFull,
    /// Without space, it says only that the medium is away.
    FullAsAway,
    /// What is a year old is gone.
    HiddenClock,
}

#[derive(Debug, Default)]
struct Armed {
    /// How many calls are still to go well, and what happens then.
    next: Option<(u64, FaultKind)>,
    /// For good, until it is disarmed.
    for_good: bool,
    met: bool,
}

#[derive(Debug)]
struct Medium {
    state: Mutex<Stashes<Bytes, Bytes>>,
    armed: Mutex<Armed>,
    stuck: Mutex<bool>,
    behind: Mutex<Option<StashOp>>,
    permits: Semaphore,
    clock: Arc<TestClock>,
    flaw: Flaw,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Medium {
    /// One call to the medium; what is wrong with it, if anything.
    fn call(&self) -> Option<FaultKind> {
        let mut armed = lock(&self.armed);
        let (left, kind) = armed.next.as_mut()?;
        if *left > 1 {
            *left -= 1;
            return None;
        }
        let kind = *kind;
        armed.met = true;
        if !armed.for_good {
            armed.next = None;
        }
        Some(kind)
    }

    /// A call that stores nothing.
    fn asks(&self) -> Result<(), StashError> {
        if lock(&self.armed).for_good {
            return Ok(());
        }
        match self.call() {
            None => Ok(()),
            Some(_) => Err(Fault::not_applied(ErrorKind::Unavailable, "no answer").into()),
        }
    }

    fn commit(&self, ops: &[StashOp]) -> Result<(), StashError> {
        let steps = ops.iter().map(|op| (op.id(), op.clone().into()));
        lock(&self.state).commit(steps)
    }

    /// The call that stores.
    fn stores(&self, ops: &[StashOp]) -> Result<(), StashError> {
        let full = lock(&self.armed).for_good;
        if *lock(&self.stuck) {
            return Err(Fault::not_applied(ErrorKind::NoSpace, "still no space").into());
        }
        let fault = self.call();
        if full && fault.is_some() {
            *lock(&self.stuck) = self.flaw == Flaw::StuckWhenFull;
            let kind = match self.flaw {
                Flaw::FullAsAway => ErrorKind::Unavailable,
                _ => ErrorKind::NoSpace,
            };
            return Err(Fault::not_applied(kind, "no space").into());
        }
        match fault {
            Some(FaultKind::ErrorBefore) => {
                Err(Fault::unknown(ErrorKind::Unavailable, "no answer").into())
            }
            Some(_) => {
                self.commit(ops)?;
                match self.flaw {
                    Flaw::FalseNotApplied => {
                        Err(Fault::not_applied(ErrorKind::Unavailable, "no answer").into())
                    }
                    Flaw::BlindRetry => self.commit(ops),
                    _ => Err(Fault::unknown(ErrorKind::Unavailable, "no answer").into()),
                }
            }
            None => self.commit(ops),
        }
    }
}

/// Gives a permit back, unless it is leaked.
struct Permit<'a>(&'a Medium, bool);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.1 || self.0.flaw != Flaw::LeaksPermits {
            self.0.permits.add_permits(1);
        }
    }
}

#[derive(Debug)]
struct Driver {
    medium: Arc<Medium>,
    seen: Mutex<BTreeMap<CollectionId, (Frontiers, u32)>>,
}

const CAPS: StashCaps = StashCaps::LEAST
    .with_batch_atomic(true)
    .with_batch_rows_max(2_000);

impl Driver {
    async fn permit(&self) -> Permit<'_> {
        let permit = self.medium.permits.acquire().await;
        permit.expect("nobody closes it").forget();
        Permit(&self.medium, false)
    }

    fn broken_up(&self, op: StashOp) -> Vec<StashOp> {
        match op {
            StashOp::Update { id, rows } if self.medium.flaw == Flaw::RowByRow => rows
                .into_iter()
                .map(|row| StashOp::Update {
                    id,
                    rows: vec![row],
                })
                .collect(),
            op => vec![op],
        }
    }

    async fn twisted(&self, ops: Vec<StashOp>) -> Result<(), StashError> {
        let medium = &self.medium;
        match medium.flaw {
            Flaw::StepByStep | Flaw::RowByRow => {
                for op in ops.into_iter().flat_map(|op| self.broken_up(op)) {
                    medium.stores(&[op])?;
                    yield_now().await;
                }
                Ok(())
            }
            Flaw::LandsLate | Flaw::LandsLateAsDeclared | Flaw::LandsLaterThanDeclared => {
                let (medium, caller) = (Arc::clone(medium), Arc::new(()));
                let waits = Arc::downgrade(&caller);
                let by = match medium.flaw {
                    Flaw::LandsLaterThanDeclared => Duration::from_millis(600),
                    _ => Duration::from_millis(150),
                };
                let late = tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    if waits.strong_count() == 0 {
                        tokio::time::sleep(by).await;
                    }
                    medium.stores(&ops)
                });
                let done = late.await.expect("the task does not panic");
                drop(caller);
                done
            }
            Flaw::SealsBehind if matches!(ops[..], [StashOp::Seal { .. }]) => {
                let before = lock(&medium.behind).replace(ops[0].clone());
                before.map_or(Ok(()), |op| medium.stores(&[op]))
            }
            Flaw::RefusedSealsLand | Flaw::RefusalsAreUnavailable => {
                let done = medium.stores(&ops);
                let Err(StashError::SealBeforeUpper { .. }) = done else {
                    return done;
                };
                if medium.flaw == Flaw::RefusalsAreUnavailable {
                    return Err(Fault::not_applied(ErrorKind::Unavailable, "try later").into());
                }
                let medium = Arc::clone(medium);
                let id = ops[0].id();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    let upper = larder_traits::Antichain::from_elem(77);
                    medium.commit(&[StashOp::Seal { id, upper }])
                });
                done
            }
            _ => medium.stores(&ops),
        }
    }
}

#[async_trait]
impl StashDriver for Driver {
    async fn open(&self, name: &str) -> Result<CollectionId, StashError> {
        check_name(name, &CAPS)?;
        let mut permit = self.permit().await;
        yield_now().await;
        let full = lock(&self.medium.armed).for_good;
        let fault = if full { None } else { self.medium.call() };
        let lost = Fault::unknown(ErrorKind::Unavailable, "no answer");
        let id = match fault {
            None => lock(&self.medium.state).open(name),
            Some(FaultKind::ErrorBefore) => return Err(lost.into()),
            Some(_) => {
                lock(&self.medium.state).open(name);
                if self.medium.flaw == Flaw::CreatesTwice {
                    return Ok(lock(&self.medium.state).open(&format!("{name} again")));
                }
                return Err(lost.into());
            }
        };
        permit.1 = true;
        Ok(id)
    }

    async fn names(&self) -> Result<Vec<(String, CollectionId)>, StashError> {
        let state = lock(&self.medium.state);
        Ok(state
            .names()
            .map(|(name, id)| (name.to_owned(), id))
            .collect())
    }

    async fn discard(&self, name: &str) -> Result<bool, StashError> {
        yield_now().await;
        Ok(lock(&self.medium.state).discard(name))
    }

    async fn snapshot(&self, id: CollectionId, rows: Rows<'_>) -> Result<Snapshot, StashError> {
        let mut permit = self.permit().await;
        yield_now().await;
        let asked = self.medium.asks();
        let failed = asked.is_err();
        match self.medium.flaw {
            Flaw::FailsAsEmpty => {}
            Flaw::ReadsAreUnknown if failed => {
                return Err(Fault::unknown(ErrorKind::Unavailable, "no answer").into());
            }
            _ => asked?,
        }
        permit.1 = true;
        let state = lock(&self.medium.state);
        let c = state.get(id)?;
        let mut frontiers = Frontiers {
            since: c.since().clone(),
            upper: c.upper().clone(),
        };
        if self.medium.flaw == Flaw::CachedFrontiers {
            let mut seen = lock(&self.seen);
            let (kept, turn) = seen.entry(id).or_insert_with(|| (frontiers.clone(), 0));
            *turn += 1;
            if (*turn).is_multiple_of(2) {
                *kept = frontiers.clone();
            }
            frontiers = kept.clone();
        }
        let aged = self.medium.flaw == Flaw::HiddenClock
            && self.medium.clock.now() > TestClock::new().now() + Duration::from_secs(9_999_999);
        let wanted = |key: &Bytes| match rows {
            _ if aged || failed => false,
            Rows::None => false,
            Rows::Key(wanted) => key == wanted,
            Rows::All => true,
        };
        let found = c.rows().iter().filter(|((key, _), ..)| wanted(key));
        let rows = found.map(|((key, value), time, diff)| RawRow {
            key: key.clone(),
            value: value.clone(),
            time: *time,
            diff: *diff,
        });
        Ok(Snapshot {
            frontiers,
            rows: rows.collect(),
        })
    }

    async fn commit(&self, ops: Vec<StashOp>) -> Result<(), StashError> {
        check_bounds(&ops, &CAPS)?;
        let mut permit = self.permit().await;
        yield_now().await;
        self.medium.asks()?;
        yield_now().await;
        let done = self.twisted(ops).await;
        yield_now().await;
        permit.1 = true;
        done
    }
}

#[derive(Debug)]
struct World {
    medium: Arc<Medium>,
}

struct Switch {
    medium: Arc<Medium>,
    for_good: bool,
}

impl Faults for Switch {
    fn arm(&self, nth: u64, kind: FaultKind) {
        *lock(&self.medium.armed) = Armed {
            next: Some((nth, kind)),
            for_good: self.for_good,
            met: false,
        };
    }

    fn disarm(&self) -> bool {
        std::mem::take(&mut *lock(&self.medium.armed)).met
    }
}

impl Fixture for World {
    async fn new(_: &Env) -> Result<Self, BoxError> {
        Ok(Self::of(Flaw::Nothing))
    }

    fn caps(&self) -> Caps {
        let late = match self.medium.flaw {
            Flaw::LandsLateAsDeclared => LateLanding::MayLandLate(Some(Duration::from_millis(400))),
            Flaw::LandsLaterThanDeclared => {
                LateLanding::MayLandLate(Some(Duration::from_millis(2)))
            }
            _ => LateLanding::Fenced,
        };
        Caps::LEAST.with_stash(CAPS).with_late_landing(late)
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(Arc::clone(&self.medium.clock))
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::new(self.switch(false)))
    }
}

impl World {
    fn of(flaw: Flaw) -> Self {
        let medium = Arc::new(Medium {
            state: Mutex::default(),
            armed: Mutex::default(),
            stuck: Mutex::default(),
            behind: Mutex::default(),
            permits: Semaphore::new(4),
            clock: Arc::default(),
            flaw,
        });
        Self { medium }
    }

    fn handle(&self) -> Driver {
        Driver {
            medium: Arc::clone(&self.medium),
            seen: Mutex::default(),
        }
    }

    fn switch(&self, for_good: bool) -> Switch {
        let medium = Arc::clone(&self.medium);
        Switch { medium, for_good }
    }
}

impl Open for World {
    type Store = Driver;

    async fn open(&self, _: &str) -> Result<Driver, BoxError> {
        Ok(self.handle())
    }

    async fn driver(&self, _: &str) -> Result<Option<Arc<dyn StashDriver>>, BoxError> {
        Ok(Some(Arc::new(self.handle())))
    }

    fn no_space(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::new(self.switch(true)))
    }
}

const CHECKS: [&str; 11] = [
    "C-1.1", "C-1.2", "C-5.1", "C-6.1", "C-6.2", "C-6.3", "C-6.4", "ST-9.2", "ST-12.2", "ST-13.3",
    "ST-13.5",
];

fn verdict(flaw: Flaw, id: &str) -> Verdict {
    let suite = suite_with(move |_| async move { Ok(World::of(flaw)) });
    let mut options = Options::new();
    options.only = Some(id.to_owned());
    let mut trials = suite.trials().iter().filter(|trial| options.selects(trial));
    let trial = trials.next().expect("there is a check of that id");
    let sound = matches!(flaw, Flaw::Nothing | Flaw::LandsLateAsDeclared);
    trial
        .run_until_failed(&options, if sound { 1 } else { 10 })
        .verdict
}

#[test]
fn a_store_on_a_failing_medium_passes() {
    for id in CHECKS {
        let verdict = verdict(Flaw::Nothing, id);
        assert!(matches!(verdict, Verdict::Pass), "{id}: {verdict:#?}");
    }
    let verdict = verdict(Flaw::LandsLateAsDeclared, "C-6.3");
    assert!(matches!(verdict, Verdict::Pass), "{verdict:#?}");
}

#[test]
fn a_store_that_is_broken_beside_others_fails_where_it_is() {
    let broken = [
        (Flaw::FalseNotApplied, "C-1.1"),
        (Flaw::FalseNotApplied, "C-1.2"),
        (Flaw::FailsAsEmpty, "C-1.1"),
        (Flaw::ReadsAreUnknown, "C-1.1"),
        (Flaw::RefusalsAreUnavailable, "C-1.1"),
        (Flaw::RefusedSealsLand, "C-1.1"),
        (Flaw::HiddenClock, "C-5.1"),
        (Flaw::StepByStep, "C-6.1"),
        (Flaw::RowByRow, "C-6.1"),
        (Flaw::LeaksPermits, "C-6.2"),
        (Flaw::LandsLate, "C-6.3"),
        (Flaw::LandsLaterThanDeclared, "C-6.3"),
        (Flaw::LeaksPermits, "C-6.4"),
        (Flaw::CachedFrontiers, "ST-9.2"),
        (Flaw::SealsBehind, "ST-9.2"),
        (Flaw::StepByStep, "ST-12.2"),
        (Flaw::BlindRetry, "ST-13.3"),
        (Flaw::CreatesTwice, "ST-13.3"),
        (Flaw::StuckWhenFull, "ST-13.5"),
        (Flaw::FullAsAway, "ST-13.5"),
    ];
    let mut survivors = Vec::new();
    std::thread::scope(|scope| {
        let each = broken.map(|(flaw, id)| scope.spawn(move || (flaw, id, verdict(flaw, id))));
        for each in each {
            let (flaw, id, verdict) = each.join().expect("a check does not panic");
            // None of them panics, and the checks bound the calls that wait for a lost permit.
            let seen =
                matches!(&verdict, Verdict::Fail(failure) if failure.symptom == Symptom::Answer);
            if !seen {
                survivors.push(format!("{flaw:?} at {id}: {verdict:?}"));
            }
        }
    });
    assert!(survivors.is_empty(), "{survivors:#?}");
}
