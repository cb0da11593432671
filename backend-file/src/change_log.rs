//! [`ChangeLog`] on one plain file.
//!
//! Each call is appended to the file and synced before it is answered; calls that come while a sync runs share the
//! next one. Any number of handles and processes may be at one log: each reads what the others have appended before it
//! decides, under a lock that the operating system frees when its holder ends.
//!
//! A crash may leave a torn record at the end, of a call that nobody was told of; it is dropped. Whatever else is not
//! as it was written is reported, and nothing is dropped on account of it.

mod frame;
mod log;
mod state;

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use larder_traits::{Caps, Change, ChangeId, ChangeLog, Durability, Fault, LateLanding, WriterId};
use tokio::sync::oneshot;

use crate::objects::threads::{Call, Threads};
use crate::plain::{Medium, lost};
use log::{Batch, Failure, Log};
use state::{Entry, State};

/// How many calls may be queued or running on a handle before further ones wait.
const IN_FLIGHT_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// The shortest wait that makes sense.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// Which file a change log is in, and what the handle goes by there.
#[derive(Clone, Debug)]
pub struct ChangeLogConfig {
    path: PathBuf,
    wait: Duration,
    durability: Durability,
}

impl ChangeLogConfig {
    /// The file at `path`, which is created where it is missing; its folder is not. Beside it lie its lock, under the
    /// same name with `.lock` behind it, and for moments a new version of it, with `.new`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            wait: Duration::from_secs(10),
            durability: Durability::Power,
        }
    }

    /// The same configuration of the file at `path`.
    #[must_use]
    pub fn with_path(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path, ..self }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long a call waits for its turn; 10 s by default, and never less than 10 ms. After that it ends as `Timeout`,
    /// `NotApplied`.
    #[must_use]
    pub fn with_wait(self, wait: Duration) -> Self {
        let wait = wait.max(WAIT_MIN);
        Self { wait, ..self }
    }

    /// What an acknowledged call survives; [`Durability::Power`] by default. It must be no less than that of the stores
    /// which the log speaks of. Below `Power` nothing is synced, and a loss of power may ruin the log.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// What logs with this configuration declare.
    #[must_use]
    pub fn caps(&self) -> Caps {
        Caps::LEAST
            .with_durability(self.durability)
            .with_late_landing(LateLanding::Fenced)
            .with_in_flight_max(Some(IN_FLIGHT_MAX.get()))
    }
}

/// A change log in a file.
///
/// Cheap to clone; the clones share a thread, which ends with the last of them. After a sync has failed the handle
/// answers every call with `Unavailable`: what the medium lost then, no later sync would report.
#[derive(Clone)]
pub struct FileChangeLog {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    threads: Threads,
    /// Calls that wait for the next sync.
    waiting: Mutex<Waiting>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Waiting {
    calls: VecDeque<(u64, Box<dyn Ask>)>,
    last_ticket: u64,
}

impl FileChangeLog {
    /// Opens the log, and creates it where it is missing.
    ///
    /// # Errors
    ///
    /// All `NotApplied`. `InvalidInput`: the file belongs to another program, and is left as it is. `Unsupported`: it
    /// was written by a newer version. `Corrupt`: it is damaged. `Timeout`: others held its lock for all of the wait.
    /// `Unavailable`, `PermissionDenied`, `NoSpace`: what the operating system says of it.
    pub async fn open(config: ChangeLogConfig) -> Result<Self, Fault> {
        let medium = Medium::new(config.durability >= Durability::Power);
        Self::open_on(config, medium).await
    }

    async fn open_on(config: ChangeLogConfig, medium: Medium) -> Result<Self, Fault> {
        let threads = Threads::new(NonZeroUsize::MIN, IN_FLIGHT_MAX, config.wait);
        let path = config.path.clone();
        let open = move |call: &Call<'_>| Log::open(&path, medium, call);
        let log = threads.look(open).await?;
        let inner = Inner {
            path: config.path,
            threads,
            waiting: Mutex::default(),
            log: Mutex::new(log),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Lets `work` decide by the state of the log, and answers when what it changes is durable. `lost` is
    /// what a call is told whose answer is lost.
    async fn ask<R, F>(&self, lost: Fault, work: F) -> Result<R, Fault>
    where
        F: FnOnce(&mut State) -> Result<(R, Option<Entry>), Fault> + Send + 'static,
        R: Send + 'static,
    {
        let (answer, mut answered) = oneshot::channel();
        let ticket = self.inner.push(Box::new(Asked {
            work: Some(work),
            found: None,
            wrote: false,
            answer,
        }));
        let inner = Arc::clone(&self.inner);
        let turn = move |call: &Call<'_>| {
            let mut log = inner.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.run(call, || Calls::take(&inner))
        };
        // The job of an earlier call may have taken this one along; then there is nothing left for this job to do.
        if let Err(refusal) = self.inner.threads.look(turn).await
            && self.inner.withdraw(ticket)
        {
            return Err(refusal);
        }
        match answered.try_recv() {
            Ok(answer) => answer,
            // It is with a job that has not ended.
            Err(_none_yet) => answered.await.unwrap_or(Err(lost)),
        }
    }
}

impl Inner {
    fn push(&self, call: Box<dyn Ask>) -> u64 {
        let mut waiting = self.waiting();
        waiting.last_ticket += 1;
        let ticket = waiting.last_ticket;
        waiting.calls.push_back((ticket, call));
        ticket
    }

    /// Takes a call back; tells whether it was still there.
    fn withdraw(&self, ticket: u64) -> bool {
        let mut waiting = self.waiting();
        let before = waiting.calls.len();
        waiting.calls.retain(|(other, _)| *other != ticket);
        waiting.calls.len() < before
    }

    /// Poison means nothing here: no code of others runs under the lock but the dropping of a call.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits.
trait Ask: Send {
    fn decide(&mut self, state: &mut State) -> Option<Entry>;
    fn answer(self: Box<Self>, outcome: &Result<(), Failure>);
}

struct Asked<R, F> {
    work: Option<F>,
    found: Option<Result<R, Fault>>,
    wrote: bool,
    answer: oneshot::Sender<Result<R, Fault>>,
}

impl<R, F> Ask for Asked<R, F>
where
    F: FnOnce(&mut State) -> Result<(R, Option<Entry>), Fault> + Send,
    R: Send,
{
    fn decide(&mut self, state: &mut State) -> Option<Entry> {
        // Whoever was dropped before its turn has no effect.
        if self.answer.is_closed() {
            return None;
        }
        let decided = self.work.take()?(state);
        let (found, entry) = match decided {
            Ok((found, entry)) => (Ok(found), entry),
            Err(refusal) => (Err(refusal), None),
        };
        self.found = Some(found);
        self.wrote = entry.is_some();
        entry
    }

    fn answer(self: Box<Self>, outcome: &Result<(), Failure>) {
        let answer = match (outcome, self.found) {
            (Ok(()), Some(found)) => found,
            (Err(failure), _) if self.wrote => Err(failure.fault()),
            // It may have seen what was not to last.
            (Err(failure), _) => Err(failure.not_applied()),
            (Ok(()), None) => return,
        };
        // Where nobody is there any more, nobody needs to know.
        drop(self.answer.send(answer));
    }
}

/// All calls that waited when a turn came.
struct Calls(Vec<Box<dyn Ask>>);

impl Calls {
    fn take(inner: &Inner) -> Option<Self> {
        let calls = std::mem::take(&mut inner.waiting().calls);
        let calls: Vec<_> = calls.into_iter().map(|(_, call)| call).collect();
        (!calls.is_empty()).then_some(Self(calls))
    }
}

impl Batch for Calls {
    fn decide(&mut self, state: &mut State) -> Vec<Entry> {
        let mut entries = Vec::new();
        for call in &mut self.0 {
            if let Some(entry) = call.decide(state) {
                // The next one decides by what this one did.
                state.apply(entry.clone());
                entries.push(entry);
            }
        }
        entries
    }

    fn answer(self, outcome: Result<(), Failure>) {
        for call in self.0 {
            call.answer(&outcome);
        }
    }
}

#[async_trait]
impl ChangeLog for FileChangeLog {
    async fn record(&self, writer: WriterId, change: &Change) -> Result<(), Fault> {
        let change = change.clone();
        let record = move |state: &mut State| Ok(((), state.record(writer, change)?));
        self.ask(lost().now_unknown(), record).await
    }

    async fn complete(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
        let complete = move |state: &mut State| Ok(((), state.complete(writer, id)?));
        self.ask(lost().now_unknown(), complete).await
    }

    async fn changes(&self, writer: WriterId) -> Result<Vec<Change>, Fault> {
        let look = move |state: &mut State| Ok((state.changes_of(writer), None));
        self.ask(lost(), look).await
    }

    async fn renew(&self, writer: WriterId, until: SystemTime) -> Result<(), Fault> {
        let renew = move |state: &mut State| Ok(((), state.renew(writer, until.into())));
        self.ask(lost().now_unknown(), renew).await
    }

    async fn claim(
        &self,
        writer: WriterId,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<Change>, Fault> {
        let claim = move |state: &mut State| Ok(state.claim(writer, now.into(), limit));
        self.ask(lost().now_unknown(), claim).await
    }
}

impl fmt::Debug for FileChangeLog {
    /// Which file it is, and nothing of what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileChangeLog")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
