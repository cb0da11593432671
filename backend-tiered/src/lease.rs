//! The change log as one writer uses it: its lease, and an [`Entry`] for each change under way (TS-7).
//!
//! A step is recorded before it is taken, and no record is made without a lease that has at least half of its time
//! left. Who claims a change finds the next record refused, so a writer that has slept through its lease learns of it
//! before its swap. One that sleeps through it between that record and the swap is met by what recovery does: see
//! `recover.rs`. What is open in this process is known by name: `recover` leaves it alone.
//!
//! What recovery claims it claims as a writer of its own, with a lease of its own. A writer that has slept through its
//! lease would otherwise find its change in the log under its own name, after whoever had claimed it has died and its
//! own recovery has claimed it back.

use std::collections::HashSet;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use larder_traits::{
    Change, ChangeId, ChangeLog, Classify, Clock, ErrorKind, Fault, ObjectId, Outcome, Step,
    WriterId,
};

use crate::native::Core;
use crate::revision::unique;

/// The log, and what this writer knows of its own lease and changes.
pub(crate) struct Journal {
    pub(crate) log: Arc<dyn ChangeLog>,
    pub(crate) writer: WriterId,
    clock: Arc<dyn Clock>,
    lease: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Until when the log is known to grant the lease.
    until: Option<SystemTime>,
    /// How often the lease may have ended before it was extended: others may have claimed what was recorded before.
    lapses: u64,
    open: HashSet<ChangeId>,
}

impl Journal {
    pub(crate) fn new(log: Arc<dyn ChangeLog>, clock: Arc<dyn Clock>, lease: Duration) -> Self {
        Self {
            log,
            writer: WriterId::from_bytes(unique(clock.now())),
            clock,
            lease,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is one insertion or assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Extends the lease unless it has at least half of its time left.
    pub(crate) async fn hold(&self) -> Result<(), Fault> {
        let now = self.clock.now();
        let enough = now.checked_add(self.lease / 2);
        let until = self.lock().until;
        if enough.is_some_and(|enough| until.is_some_and(|until| until >= enough)) {
            return Ok(());
        }
        let wanted = now.checked_add(self.lease).unwrap_or(now);
        self.log.renew(self.writer, wanted).await?;
        let mut state = self.lock();
        // By now: the call may have taken longer than the lease had left.
        let latest = self.latest_now();
        state.lapses += u64::from(state.until.is_some_and(|until| until <= latest));
        state.until = state.until.max(Some(wanted));
        Ok(())
    }

    /// As [`hold`](Self::hold), for a writer that has recorded anything; nothing of any other is in the log.
    pub(crate) async fn keep(&self) -> Result<(), Fault> {
        let has_lease = self.lock().until.is_some();
        if has_lease { self.hold().await } else { Ok(()) }
    }

    /// One beat of the heart; if it fails, the next one may not, and every record asks again.
    pub(crate) async fn beat(&self) {
        drop(self.hold().await);
    }

    fn lapses(&self) -> u64 {
        self.lock().lapses
    }

    /// What the clock of another process may show: the clocks of those that share a log differ by less than a quarter
    /// of a lease.
    fn latest_now(&self) -> SystemTime {
        let now = self.clock.now();
        now.checked_add(self.lease / 4).unwrap_or(now)
    }

    /// Whether the lease may have ended since it had lapsed so often. If not, nobody has claimed anything since then.
    fn may_have_lapsed_since(&self, lapses: u64) -> bool {
        let latest = self.latest_now();
        let state = self.lock();
        state.lapses != lapses || state.until.is_none_or(|until| until <= latest)
    }

    /// Whether the log has a change of this name for this writer.
    async fn has(&self, core: &Core, id: ChangeId) -> Result<bool, Fault> {
        let own = core.insist(|| self.log.changes(self.writer)).await?;
        Ok(own.iter().any(|own| own.id == id))
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Journal")
            .field("writer", &self.writer)
            .field("until", &state.until)
            .field("open", &state.open.len())
            .finish_non_exhaustive()
    }
}

/// A change under way.
///
/// Let go of without [`close`](Self::close) it stays in the log, for recovery. If it was begun here and nothing but an
/// upload has happened yet, which is what a dropped caller leaves, its payload is removed in the background first,
/// unless there is enough under way.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) core: Arc<Core>,
    /// In whose name the log has it.
    pub(crate) journal: Arc<Journal>,
    pub(crate) change: Change,
    /// How often the lease had lapsed when the change was last known to be this writer's; `None` before it is recorded.
    lapses: Option<u64>,
    /// Whether the log may have the swap on record. Whoever claims it then may make the swap.
    may_swap: bool,
    /// Whether somebody may have claimed the change with the swap on record, made the swap and struck the change out,
    /// before the log took it for a new one.
    may_be_swapped: bool,
    is_armed: bool,
}

impl Entry {
    /// Records the first step of a change.
    pub(crate) async fn begin(
        core: &Arc<Core>,
        object: &ObjectId,
        step: Step,
        created: Option<ObjectId>,
        replaced: Option<ObjectId>,
    ) -> Result<Self, Fault> {
        let id = ChangeId::from_bytes(unique(core.now()));
        let mut change = Change::new(id, object.clone(), step);
        (change.created, change.replaced) = (created, replaced);
        core.journal.lock().open.insert(id);
        let mut entry = Self::new(core, &core.journal, change.clone());
        entry.is_armed = true;
        entry.record(&change).await?;
        Ok(entry)
    }

    /// A change that is open, and that the log may not have yet.
    fn new(core: &Arc<Core>, journal: &Arc<Journal>, change: Change) -> Self {
        Self {
            core: Arc::clone(core),
            journal: Arc::clone(journal),
            lapses: None,
            may_swap: change.step == Step::Swap,
            may_be_swapped: false,
            change,
            is_armed: false,
        }
    }

    /// A change that the log has already in this name; `None` where somebody here is at it.
    pub(crate) fn adopt(core: &Arc<Core>, journal: &Arc<Journal>, change: Change) -> Option<Self> {
        let lapses = {
            let mut state = journal.lock();
            state.open.insert(change.id).then_some(state.lapses)?
        };
        let mut entry = Self::new(core, journal, change);
        entry.lapses = Some(lapses);
        Some(entry)
    }

    /// The same, with what the log says of it by now.
    pub(crate) fn found(mut self, change: Change) -> Self {
        self.may_swap = change.step == Step::Swap;
        self.change = change;
        self
    }

    async fn record(&mut self, change: &Change) -> Result<(), Fault> {
        let (core, journal) = (Arc::clone(&self.core), Arc::clone(&self.journal));
        core.insist(|| journal.hold()).await?;
        let lapses = journal.lapses();
        // Whoever claimed the change may have brought it to its end already. Then the log has none of this name, and
        // would take it for a new one.
        if self.lapses.is_some_and(|known| known != lapses)
            && !journal.has(&core, self.change.id).await?
        {
            return Err(claimed());
        }
        let could_swap = self.may_swap;
        self.may_swap |= change.step == Step::Swap;
        let may_have_landed = AtomicBool::new(false);
        let record = || async {
            let recorded = journal.log.record(journal.writer, change).await;
            if let Err(fault) = &recorded
                && fault.outcome() == Outcome::Unknown
            {
                may_have_landed.store(true, Relaxed);
            }
            recorded
        };
        let recorded = core.insist(record).await;
        let is_unsure = may_have_landed.load(Relaxed);
        if recorded.is_err() && !is_unsure {
            // Refused each time, it is not on record.
            self.may_swap = could_swap;
        }
        // The same may have happened on the way to the log, or between two attempts.
        let is_lapsed = self.lapses.is_some() && journal.may_have_lapsed_since(lapses);
        if is_lapsed {
            self.may_be_swapped |= could_swap || self.may_swap && is_unsure;
        }
        recorded?;
        if is_lapsed {
            return Err(claimed());
        }
        self.lapses = Some(lapses);
        Ok(())
    }

    /// Records the next step; on an error the log may have the old step or this one.
    pub(crate) async fn advance(
        &mut self,
        step: Step,
        created: Option<ObjectId>,
        replaced: Option<ObjectId>,
    ) -> Result<(), Fault> {
        let mut change = Change::new(self.change.id, self.change.object.clone(), step);
        (change.created, change.replaced) = (created, replaced);
        self.record(&change).await?;
        self.change = change;
        Ok(())
    }

    /// Makes sure that the change is still this writer's.
    pub(crate) async fn confirm(&mut self) -> Result<(), Fault> {
        let change = self.change.clone();
        self.record(&change).await
    }

    /// Whether nobody can have claimed the change so far. It costs nothing unless the lease has ended since the last
    /// record; where the log cannot be asked, it is taken for claimed.
    pub(crate) async fn is_unclaimed(&self) -> bool {
        let Self { core, journal, .. } = self;
        let is_held = |known: u64| !journal.may_have_lapsed_since(known);
        self.lapses.is_some_and(is_held)
            || matches!(journal.has(core, self.change.id).await, Ok(true))
    }

    /// Whether this writer has begun the change itself: what it claims from others has another name.
    pub(crate) fn is_own(&self) -> bool {
        Arc::ptr_eq(&self.journal, &self.core.journal)
    }

    /// Whether the log may have the swap on record.
    pub(crate) fn may_swap(&self) -> bool {
        self.may_swap
    }

    /// Whether somebody else may have made the swap, though the log has the change for this writer.
    pub(crate) fn may_be_swapped(&self) -> bool {
        self.may_be_swapped
    }

    /// Strikes the change out; if that fails, recovery finds nothing left to do. Whether it was not another's by now, as
    /// far as the log tells: it does not know a change any more that another has struck out.
    pub(crate) async fn close(mut self) -> bool {
        let journal = Arc::clone(&self.journal);
        let complete = || journal.log.complete(journal.writer, self.change.id);
        let completed = self.core.insist(complete).await;
        self.is_armed = false;
        !completed.is_err_and(|fault| fault.kind() == ErrorKind::Conflict)
    }

    /// Leaves the change in the log as it is.
    pub(crate) fn leave(mut self) {
        self.is_armed = false;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let is_upload = mem::take(&mut self.is_armed) && self.change.step == Step::Upload;
        // Beyond the bound it stays in the log as it is, and recovery sees to it.
        if is_upload && !self.core.is_cleanup_full() {
            let left = Self {
                core: Arc::clone(&self.core),
                journal: Arc::clone(&self.journal),
                change: self.change.clone(),
                lapses: self.lapses,
                may_swap: self.may_swap,
                may_be_swapped: self.may_be_swapped,
                is_armed: false,
            };
            self.core.background.spawn(async move {
                left.discard_upload().await;
            });
            return;
        }
        self.journal.lock().open.remove(&self.change.id);
    }
}

fn claimed() -> Fault {
    let why = "the lease had ended, and the change may have been claimed";
    Fault::not_applied(ErrorKind::Conflict, why)
}
