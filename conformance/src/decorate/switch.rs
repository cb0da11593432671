//! What is to go wrong next, and what was called so far.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::fixture::{FaultKind, Faults};

/// The number of calls that are remembered; of more, the oldest are forgotten, so that a long run stays bounded.
const CALLS_MAX: usize = 100_000;

/// Makes every store that was wrapped with it misbehave, counts their calls and remembers them.
///
/// Clones share everything. Of the faults at most one is armed at a time: arming another replaces it, and
/// [`disarm`](Faults::disarm) takes it away and says whether it was met. A delay, the choice of methods and the
/// [`Report`] stay until they are changed.
#[derive(Clone, Default)]
pub struct Switch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the threads whose call hangs.
    disarmed: Condvar,
}

#[derive(Default)]
struct State {
    armed: Option<Armed>,
    /// Counts how often a fault was taken away, which is what hanging threads wait for.
    epoch: u64,
    /// `None`: calls of all methods are counted.
    only: Option<Vec<&'static str>>,
    delay: Duration,
    report: Report,
    count: u64,
    calls: VecDeque<Call>,
    late: Vec<Late>,
}

/// One call of a method of a store that was wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Call {
    /// The label of the store.
    pub store: &'static str,
    /// The method.
    pub method: &'static str,
    /// What it was about, as text: a key, an object, a name, a collection; empty where it was about the whole store.
    pub subject: String,
}

/// `label.method subject`.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.store, self.method)?;
        if self.subject.is_empty() {
            return Ok(());
        }
        write!(f, " {}", self.subject)
    }
}

/// What a failed write that had no effect says of its outcome. Either is the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Report {
    /// `NotApplied`: the store knows.
    #[default]
    Honest,
    /// `Unknown`: the store cannot tell.
    Vague,
}

/// How a payload that is cut short ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamEnd {
    /// With an error, as the contract demands (BK-2).
    Error,
    /// As if it were complete, which no store may do.
    Silent,
}

/// What a call is about to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Kind(FaultKind),
    HangAfter,
    Late,
    Short(u64, StreamEnd),
}

/// What a call can do to the store, which decides what it may say of its failure and which faults can meet it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Read,
    /// A read that answers a payload.
    Stream,
    Write,
}

#[derive(Debug)]
struct Armed {
    /// The call that is meant, counted from 1; 0 for every call.
    nth: u64,
    /// How many calls were counted since it was armed.
    seen: u64,
    trouble: Trouble,
    met: bool,
}

/// A write that was answered and has yet to be done.
struct Late {
    store: &'static str,
    subject: String,
    work: BoxFuture<'static, ()>,
}

/// What the switch says to one call.
pub(super) struct Turn {
    pub(super) trouble: Option<Trouble>,
    pub(super) delay: Duration,
    pub(super) report: Report,
    epoch: u64,
}

impl Switch {
    /// A switch at rest.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on every call goes wrong in this way, until the switch is disarmed or armed otherwise.
    pub fn arm_all(&self, kind: FaultKind) {
        self.set(0, Trouble::Kind(kind));
    }

    /// The `nth` call that writes, counted from 1, takes effect and is never answered.
    ///
    /// [`FaultKind::Hang`] is the call that is never answered and has no effect.
    pub fn hang_after(&self, nth: u64) {
        self.set(nth, Trouble::HangAfter);
    }

    /// The `nth` call that writes, counted from 1, is answered `Unknown` at once; its effect comes with the next
    /// [`deliver`](Self::deliver).
    ///
    /// Such a write has left the reach of its caller: a deadline that it was given no longer holds it back. A
    /// [`fence`](larder_traits::HighVolumeBackend::fence) that succeeds takes it out of the world, as it must (HV-6).
    pub fn late(&self, nth: u64) {
        self.set(nth, Trouble::Late);
    }

    /// The payload of the `nth` call that answers one, counted from 1, ends after `len_bytes`, in this way. A payload
    /// that is no longer than that ends as it is.
    pub fn short_stream(&self, nth: u64, len_bytes: u64, end: StreamEnd) {
        self.set(nth, Trouble::Short(len_bytes, end));
    }

    /// Every call waits so long before it does anything; zero takes the delay away.
    pub fn delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// What failed writes say that had no effect.
    pub fn report(&self, report: Report) {
        self.lock().report = report;
    }

    /// Faults count and meet the calls of these methods only; with none named, of all. The list of calls and
    /// [`count`](Self::count) take no notice.
    pub fn only(&self, methods: &[&'static str]) {
        self.lock().only = (!methods.is_empty()).then(|| methods.to_vec());
    }

    /// Does what [`late`](Self::late) has put off, in the order in which it was called. How many writes that were.
    ///
    /// Their results are seen by nobody. A write that is dropped while it is being delivered is not done again.
    pub async fn deliver(&self) -> usize {
        let mut done = 0;
        loop {
            // One by one, so that dropping this call loses no more than the one under way.
            let next = {
                let mut state = self.lock();
                (!state.late.is_empty()).then(|| state.late.remove(0))
            };
            let Some(late) = next else { return done };
            late.work.await;
            done += 1;
        }
    }

    /// How many writes wait for [`deliver`](Self::deliver).
    #[must_use]
    pub fn undelivered(&self) -> usize {
        self.lock().late.len()
    }

    /// The calls so far, the oldest first, and at most the last 100,000 of them.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.iter().cloned().collect()
    }

    /// How many calls there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lock().count
    }

    /// Forgets the calls so far, and counts from none again. What is armed keeps its own count.
    pub fn forget_calls(&self) {
        let mut state = self.lock();
        state.calls.clear();
        state.count = 0;
    }

    fn set(&self, nth: u64, trouble: Trouble) {
        let mut state = self.lock();
        state.armed = Some(Armed {
            nth,
            seen: 0,
            trouble,
            met: false,
        });
        state.epoch += 1;
        drop(state);
        self.0.disarmed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete when the lock is let go, also by a panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call and says what it shall meet.
    pub(super) fn enter(&self, call: Call, effect: Effect) -> Turn {
        let mut state = self.lock();
        let counted = match &state.only {
            Some(only) => only.contains(&call.method),
            None => true,
        };
        let trouble = match &mut state.armed {
            Some(armed) if counted => armed.meet(effect),
            _ => None,
        };
        state.count += 1;
        if state.calls.len() == CALLS_MAX {
            state.calls.pop_front();
        }
        state.calls.push_back(call);
        Turn {
            trouble,
            delay: state.delay,
            report: state.report,
            epoch: state.epoch,
        }
    }

    /// Keeps a write for later.
    pub(super) fn keep(&self, store: &'static str, subject: String, work: BoxFuture<'static, ()>) {
        let late = Late {
            store,
            subject,
            work,
        };
        self.lock().late.push(late);
    }

    /// Lets go of the kept writes to one subject, which a fence has ruled out.
    pub(super) fn rule_out(&self, store: &'static str, subject: &str) {
        let ruled_out: Vec<Late> = {
            let mut state = self.lock();
            let late = |late: &mut Late| late.store == store && late.subject == subject;
            state.late.extract_if(.., late).collect()
        };
        // Outside the lock: what a write owns may be the last handle of anything.
        drop(ruled_out);
    }

    /// Blocks this thread until what was armed at that turn is taken away.
    pub(super) fn hang(&self, turn: &Turn) {
        let same = |state: &mut State| state.epoch == turn.epoch;
        let freed = self.0.disarmed.wait_while(self.lock(), same);
        drop(freed.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Armed {
    fn meet(&mut self, effect: Effect) -> Option<Trouble> {
        let concerned = match self.trouble {
            Trouble::Kind(_) => true,
            Trouble::HangAfter | Trouble::Late => effect == Effect::Write,
            Trouble::Short(..) => effect == Effect::Stream,
        };
        if !concerned {
            return None;
        }
        self.seen += 1;
        let met = self.nth == 0 || self.nth == self.seen;
        self.met |= met;
        met.then_some(self.trouble)
    }
}

impl Faults for Switch {
    fn arm(&self, nth: u64, kind: FaultKind) {
        // The nth call is counted from 1, and a zeroth never comes.
        self.set(nth.max(1), Trouble::Kind(kind));
    }

    fn disarm(&self) -> bool {
        let mut state = self.lock();
        let armed = state.armed.take();
        state.epoch += 1;
        drop(state);
        self.0.disarmed.notify_all();
        armed.is_some_and(|armed| armed.met)
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Switch")
            .field("armed", &state.armed)
            .field("count", &state.count)
            .field("undelivered", &state.late.len())
            .finish_non_exhaustive()
    }
}
