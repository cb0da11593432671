//! The other checkers, and how they are stopped: both are loops without a budget, so the budget lives in the object
//! under test, which they cannot go on without asking.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use super::histories::{Kind, Operation};
use crate::harness::{Result, thread_cpu_time};

/// What one verdict may cost a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    time: Duration,
    calls: u64,
}

impl Budget {
    pub(super) const fn new(time: Duration, calls: u64) -> Self {
        Self { time, calls }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.time)?;
        if self.calls < u64::MAX {
            write!(f, " and {} steps", self.calls)?;
        }
        Ok(())
    }
}

thread_local! {
    static LEFT: Cell<Option<(Duration, u64)>> = const { Cell::new(None) };
}

/// What is thrown to get out of a peer.
struct Stopped;

/// Called by the object under test for every step that a peer takes.
fn spend() {
    /// How many steps may pass between two looks at the clock.
    const STEPS_PER_LOOK: u64 = 64;
    LEFT.with(|left| {
        if let Some((deadline, steps)) = left.get() {
            if steps == 0 || steps.is_multiple_of(STEPS_PER_LOOK) && thread_cpu_time() > deadline {
                left.set(None);
                resume_unwind(Box::new(Stopped));
            }
            left.set(Some((deadline, steps - 1)));
        }
    });
}

/// The verdict, or none if the budget ended first.
fn within(budget: Budget, judge: impl FnOnce() -> bool) -> Option<bool> {
    LEFT.set(Some((thread_cpu_time() + budget.time, budget.calls)));
    let verdict = catch_unwind(AssertUnwindSafe(judge));
    LEFT.set(None);
    match verdict {
        Ok(verdict) => Some(verdict),
        Err(thrown) if thrown.is::<Stopped>() => None,
        Err(thrown) => resume_unwind(thrown),
    }
}

/// Calls and returns in the order of their stamps. A call whose outcome is unknown has no return, and a read that
/// nobody was told the answer of says nothing.
fn events(operations: &[Operation]) -> Vec<(u64, bool, &Operation)> {
    let mut events = Vec::new();
    for it in operations {
        if it.unknown && matches!(it.kind, Kind::Read(_)) {
            continue;
        }
        events.push((it.call, true, it));
        if !it.unknown {
            events.push((it.ret, false, it));
        }
    }
    events.sort_by_key(|(stamp, ..)| *stamp);
    events
}

pub(super) type TodcHistory = History<Kind>;

struct Register;

impl Specification for Register {
    type State = u32;
    type Operation = Kind;

    fn init() -> u32 {
        0
    }

    fn apply(operation: &Kind, state: &u32) -> (bool, u32) {
        spend();
        match *operation {
            Kind::Write(value) => (true, value),
            Kind::Delete => (true, 0),
            Kind::Read(value) => (value == *state, *state),
        }
    }
}

pub(super) fn for_todc(operations: &[Operation]) -> TodcHistory {
    let actions = events(operations).into_iter().map(|(_, called, it)| {
        let client = usize::try_from(it.client).expect("the platforms supported have 32 bits");
        let action = if called {
            Action::Call(it.kind)
        } else {
            Action::Response(it.kind)
        };
        (client, action)
    });
    History::from_actions(actions.collect())
}

pub(super) fn todc(history: TodcHistory, budget: Budget) -> Option<bool> {
    within(budget, || WGLChecker::<Register>::is_linearizable(history))
}

pub(super) type StaterightHistory = LinearizabilityTester<u32, Cells>;

/// The sequential register of `stateright`; writes answer [`WRITTEN`].
#[derive(Clone, Debug)]
pub(super) struct Cells(u32);

const WRITTEN: u32 = u32::MAX;

impl SequentialSpec for Cells {
    type Op = Kind;
    type Ret = u32;

    fn invoke(&mut self, operation: &Kind) -> u32 {
        spend();
        match *operation {
            Kind::Write(value) => self.0 = value,
            Kind::Delete => self.0 = 0,
            Kind::Read(_) => return self.0,
        }
        WRITTEN
    }
}

pub(super) fn for_stateright(operations: &[Operation]) -> Result<StaterightHistory> {
    let mut tester = LinearizabilityTester::new(Cells(0));
    for (_, called, it) in events(operations) {
        match (called, it.kind) {
            (true, kind) => tester.on_invoke(it.client, kind)?,
            (false, Kind::Read(value)) => tester.on_return(it.client, value)?,
            (false, _) => tester.on_return(it.client, WRITTEN)?,
        };
    }
    Ok(tester)
}

pub(super) fn stateright(history: &StaterightHistory, budget: Budget) -> Option<bool> {
    within(budget, || history.is_consistent())
}
