//! The thread that writes: transactions, and how the calls that wait share them.
//!
//! A transaction has the write lock of the file from its first statement on, so that it never fails half-way for
//! another writer, and the calls are taken from the queue only once the lock is held. That order is what makes a
//! dropped call harmless (C-6): a call that was not taken is withdrawn, and one that was taken is committed before the
//! lock is free, hence before any write that is made later, through whatever handle or process.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use larder_traits::{Classify, ErrorKind, Fault};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::config::SqliteConfig;
use crate::error::{Failure, closed, fenced, is_busy, native, waited};
use crate::queue::Queue;
use crate::schema::BUSY_PAUSE;
use crate::state::{Mark, State, Trace};

/// The most calls in one transaction.
const JOBS_MAX: usize = 256;

/// How long a transaction takes in further calls. The sync at its end is paid once for all of them.
const FILLING_MAX: Duration = Duration::from_millis(50);

/// Other handles and processes take the lock in the pauses between two transactions. A writer that is never idle
/// leaves a long one now and then, long enough for each of them to look.
const CROWDED_MAX: Duration = Duration::from_millis(100);
const COURTESY: Duration = Duration::from_millis(3);

/// The transaction that a call runs in.
pub(crate) struct Tx<'a> {
    conn: &'a Connection,
    config: &'a SqliteConfig,
    state: RefCell<State>,
    touched: Cell<bool>,
    kv_swept: Cell<bool>,
    high_volume_swept: Cell<bool>,
}

impl Tx<'_> {
    pub(crate) fn conn(&self) -> &Connection {
        self.conn
    }

    /// The time on the handle's clock, asked with the lock held.
    pub(crate) fn now(&self) -> SystemTime {
        self.config.clock.now()
    }

    /// A number above 0 that was never given before.
    pub(crate) fn number(&self) -> i64 {
        let mut state = self.state.borrow_mut();
        state.number += 1;
        state.number
    }

    /// Makes the transaction a real commit also where no call writes.
    pub(crate) fn touch(&self) {
        self.touched.set(true);
    }

    /// Whether this is the first call of the transaction that asks for `what` to be swept.
    pub(crate) fn is_first_sweep(&self, what: Sweep) -> bool {
        let swept = match what {
            Sweep::Kv => &self.kv_swept,
            Sweep::HighVolume => &self.high_volume_swept,
        };
        !swept.replace(true)
    }
}

/// What has expired entries.
#[derive(Clone, Copy)]
pub(crate) enum Sweep {
    Kv,
    HighVolume,
}

/// How many expired entries one transaction removes at most. Not fewer than the calls in it, so that they never pile
/// up.
pub(crate) const SWEPT_MAX: usize = JOBS_MAX;

/// What is to be answered.
pub(crate) enum Verdict {
    /// What the call found and did stands.
    Stands,
    /// Nothing of it happened.
    NotApplied(Failure),
    /// It may have happened.
    Unknown(Failure),
}

/// What has to be undone where a call fails, which is a question of when it may.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undo {
    /// The call may refuse after it has written. It has a savepoint, for which SQLite copies each page that it changes.
    Itself,
    /// It decides before it writes. If it fails after that, then by the medium or by a damaged file, and everybody who
    /// shares its transaction is told so.
    Everything,
}

/// A call on its way to the writer.
pub(crate) trait Job: Send {
    fn deadline(&self) -> Instant;
    fn undo(&self) -> Undo;
    /// Runs the call; an error means that what it did has to be undone.
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), ErrorKind>;
    fn finish(self: Box<Self>, verdict: &Verdict);
}

/// A [`Job`] made of a closure and the way back to the caller.
pub(crate) struct Write<F, R, E> {
    pub(crate) deadline: Instant,
    pub(crate) undo: Undo,
    pub(crate) work: Option<F>,
    pub(crate) found: Option<Result<R, E>>,
    pub(crate) answer: oneshot::Sender<Result<R, E>>,
    /// Given back before the answer, so that whoever has an answer finds its place free again.
    pub(crate) permit: OwnedSemaphorePermit,
}

impl<F, R, E> Job for Write<F, R, E>
where
    F: FnOnce(&Tx<'_>) -> Result<R, E> + Send,
    R: Send,
    E: From<Fault> + Classify + Send,
{
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn undo(&self) -> Undo {
        self.undo
    }

    fn run(&mut self, tx: &Tx<'_>) -> Result<(), ErrorKind> {
        let work = self.work.take().expect("a job is run once");
        let found = self.found.insert(work(tx));
        found.as_ref().map(|_| ()).map_err(Classify::kind)
    }

    fn finish(self: Box<Self>, verdict: &Verdict) {
        drop(self.permit);
        let answer = match (verdict, self.found) {
            (Verdict::Stands, Some(found)) => found,
            (Verdict::Stands, None) => Err(crate::error::lost().into()),
            (Verdict::Unknown(failure), Some(Ok(_))) => Err(failure.unknown().into()),
            (Verdict::NotApplied(failure) | Verdict::Unknown(failure), _) => {
                Err(failure.not_applied().into())
            }
        };
        // Nobody listens where the call was dropped meanwhile.
        let _dropped = self.answer.send(answer);
    }
}

pub(crate) type Jobs = Queue<Box<dyn Job>>;

pub(crate) struct Writer {
    conn: Connection,
    config: Arc<SqliteConfig>,
    epoch: i64,
    jobs: Arc<Jobs>,
    /// All jobs up to this ticket that were taken are answered.
    done: watch::Sender<u64>,
    marks: (RandomState, u64),
}

/// A batch that was run and is not committed yet.
struct Batch {
    jobs: Vec<Box<dyn Job>>,
    /// Why all of it is undone already.
    broken: Option<Failure>,
}

impl Writer {
    pub(crate) fn new(
        (conn, epoch): (Connection, i64),
        config: Arc<SqliteConfig>,
        jobs: Arc<Jobs>,
        done: watch::Sender<u64>,
    ) -> Self {
        Self {
            conn,
            config,
            epoch,
            jobs,
            done,
            marks: (RandomState::new(), 0),
        }
    }

    /// Runs until the queue is closed.
    pub(crate) fn run(&mut self) {
        let mut crowded_since = Instant::now();
        while self.jobs.wait() {
            if self.begin() {
                self.transaction();
            }
            self.all_answered();
            if self.jobs.is_empty() {
                crowded_since = Instant::now();
            } else if crowded_since.elapsed() > CROWDED_MAX {
                sleep(COURTESY);
                crowded_since = Instant::now();
            }
        }
    }

    /// Takes the write lock of the file, for as long as anybody waits for it.
    fn begin(&self) -> bool {
        // Left over only where it could not be ended before.
        self.roll_back();
        loop {
            match self.execute("BEGIN IMMEDIATE") {
                Ok(()) => return true,
                Err(e) if is_busy(&e) => {
                    let now = Instant::now();
                    for late in self.jobs.take_if(|job| job.deadline() <= now) {
                        late.finish(&Verdict::NotApplied(waited()));
                    }
                    self.all_answered();
                    if self.jobs.is_empty() {
                        return false;
                    }
                    sleep(BUSY_PAUSE);
                }
                Err(e) => {
                    let verdict = Verdict::NotApplied(Failure::of(&e));
                    for job in self.jobs.take_if(|_| true) {
                        job.finish(&verdict);
                    }
                    return false;
                }
            }
        }
    }

    /// One transaction, from the lock to the answers.
    fn transaction(&mut self) {
        let changes_before = self.conn.total_changes();
        let state = State::load(&self.conn);
        let state = state.and_then(|state| {
            let ours = state.epoch == self.epoch;
            ours.then_some(state).ok_or_else(|| fenced().not_applied())
        });
        let state = match state {
            Ok(state) => state,
            Err(refusal) => {
                self.roll_back();
                let failure = match refusal.kind() {
                    ErrorKind::Conflict => fenced(),
                    kind => Failure::new(kind, "the state of the file cannot be read"),
                };
                for job in self.jobs.take_if(|_| true) {
                    job.finish(&Verdict::NotApplied(failure.clone()));
                }
                return;
            }
        };
        let version = state.version;
        let tx = Tx {
            conn: &self.conn,
            config: &self.config,
            state: RefCell::new(state),
            touched: Cell::new(false),
            kv_swept: Cell::new(false),
            high_volume_swept: Cell::new(false),
        };
        let batch = self.run_jobs(&tx);
        let changed = tx.touched.get() || self.conn.total_changes() != changes_before;
        let state = tx.state.into_inner();
        let verdict = match batch.broken {
            Some(failure) => {
                self.roll_back();
                Verdict::NotApplied(failure)
            }
            None if changed => self.commit(state, version),
            None => {
                self.roll_back();
                Verdict::Stands
            }
        };
        for job in batch.jobs {
            job.finish(&verdict);
        }
    }

    /// Tells that no job that was taken is still under way.
    fn all_answered(&self) {
        self.done.send_replace(self.jobs.last_taken());
    }

    /// Takes and runs jobs. Each that fails is undone by itself.
    fn run_jobs(&self, tx: &Tx<'_>) -> Batch {
        let began = Instant::now();
        let mut batch = Batch {
            jobs: Vec::new(),
            broken: None,
        };
        while batch.jobs.len() < JOBS_MAX
            && (batch.jobs.is_empty() || began.elapsed() < FILLING_MAX)
            && batch.broken.is_none()
        {
            let Some(mut job) = self.jobs.pop() else {
                break;
            };
            if job.deadline() <= Instant::now() {
                job.finish(&Verdict::NotApplied(waited()));
                continue;
            }
            let ran = self.run_job(&mut *job, tx);
            batch.jobs.push(job);
            batch.broken = ran.err();
        }
        batch
    }

    /// An error means that the whole transaction has to be undone.
    fn run_job(&self, job: &mut dyn Job, tx: &Tx<'_>) -> Result<(), Failure> {
        let step = |sql| self.execute(sql).map_err(|e| Failure::of(&e));
        let undone = |kind| Failure::new(kind, "the transaction of the call was undone");
        let by_itself = job.undo() == Undo::Itself;
        if by_itself {
            step("SAVEPOINT job")?;
        }
        let changes_before = self.conn.total_changes();
        let ran = job.run(tx);
        if self.conn.is_autocommit() {
            // Some failures of the medium make SQLite undo everything by itself.
            return Err(undone(ran.err().unwrap_or(ErrorKind::Internal)));
        }
        match ran {
            Err(_) if by_itself => step("ROLLBACK TO job")?,
            Err(kind) if self.conn.total_changes() != changes_before => return Err(undone(kind)),
            Err(_) | Ok(()) => {}
        }
        if by_itself {
            step("RELEASE job")?;
        }
        Ok(())
    }

    fn commit(&mut self, mut state: State, version: i64) -> Verdict {
        let mark = self.next_mark();
        state.advance(mark);
        if let Err(e) = state.save(&self.conn) {
            self.roll_back();
            return Verdict::NotApplied(Failure::of(&e));
        }
        // Commit point: past this line a failure may still have taken effect.
        match self.execute("COMMIT") {
            Ok(()) => Verdict::Stands,
            Err(e) => self.settle(mark, version, &e),
        }
    }

    /// Finds out what became of a commit that failed (ST-13).
    ///
    /// The mark of the commit is in the file or it is not. If it is not, the commit that is made here takes the place
    /// in the log that the failed one would have had, so that no recovery can bring that back; if it is, this commit
    /// makes it as durable as itself. Only where this one fails as well does the outcome stay unknown.
    fn settle(&mut self, mark: Mark, version: i64, e: &rusqlite::Error) -> Verdict {
        let failure = Failure::of(e);
        self.roll_back();
        let next = self.next_mark();
        let look = || -> Result<Trace, Fault> {
            self.begin_within(self.config.wait).map_err(native)?;
            let mut state = State::load(&self.conn)?;
            let trace = state.trace(mark, version);
            state.advance(next);
            state.save(&self.conn).map_err(native)?;
            self.execute("COMMIT").map_err(native)?;
            Ok(trace)
        };
        let trace = look();
        self.roll_back();
        match trace {
            Ok(Trace::Landed) => Verdict::Stands,
            Ok(Trace::Missing) => Verdict::NotApplied(failure),
            Ok(Trace::Lost) | Err(_) => Verdict::Unknown(failure),
        }
    }

    /// Takes the write lock of the file on the writer's own behalf.
    fn begin_within(&self, wait: Duration) -> rusqlite::Result<()> {
        let began = Instant::now();
        loop {
            match self.execute("BEGIN IMMEDIATE") {
                Err(e) if is_busy(&e) && began.elapsed() < wait => sleep(BUSY_PAUSE),
                done => return done,
            }
        }
    }

    /// Ends the transaction without a trace, if there still is one.
    fn roll_back(&self) {
        if !self.conn.is_autocommit() {
            // If this fails too, the next `BEGIN` fails and says why.
            let _failed = self.execute("ROLLBACK");
        }
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn next_mark(&mut self) -> Mark {
        let (random, count) = &mut self.marks;
        *count += 1;
        random.hash_one(*count).to_le_bytes()
    }
}

/// Answers all that still wait, however the thread ends.
impl Drop for Writer {
    fn drop(&mut self) {
        for job in self.jobs.close() {
            job.finish(&Verdict::NotApplied(closed()));
        }
    }
}
