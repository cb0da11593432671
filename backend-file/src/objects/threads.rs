//! The threads on which everything happens that blocks, and how calls get there and back.
//!
//! They are the handle's own, they are few, and they end with it. What a call leaves behind when it is dropped is
//! cleared away here too, and [`Threads::settled`] waits for that.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use larder_traits::{ErrorKind, Fault};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::plain::{lost, waited};

/// A deadline beyond what the platform's clock can express is this far away.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// How long a thread without work stays.
const IDLE_MAX: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// What a job knows of the call that it works for.
pub(crate) struct Call<'a> {
    /// When the call has waited long enough for its turn.
    pub(crate) deadline: Instant,
    is_gone: &'a dyn Fn() -> bool,
}

impl Call<'_> {
    /// A call that nobody waits for, and that therefore is never gone.
    pub(crate) fn nobodys(wait: Duration) -> Self {
        Self {
            deadline: after(wait),
            is_gone: &|| false,
        }
    }

    /// Whether its future was dropped.
    pub(crate) fn is_gone(&self) -> bool {
        (self.is_gone)()
    }
}

/// The threads of a handle; they end when the last clone is dropped and nothing is left to do.
#[derive(Clone)]
pub(crate) struct Threads {
    shared: Arc<Shared>,
    _open: Arc<Open>,
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.filled.notify_all();
    }
}

struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    /// Tells those who wait for jobs to end that some have.
    ended: watch::Sender<()>,
    permits: Arc<Semaphore>,
    wait: Duration,
    threads_max: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(u64, Job)>,
    last_ticket: u64,
    /// The tickets of jobs that have not ended.
    under_way: BTreeSet<u64>,
    /// Those among them that change something, and whose calls were dropped.
    abandoned: BTreeSet<u64>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Threads {
    pub(crate) fn new(
        threads_max: NonZeroUsize,
        in_flight_max: NonZeroUsize,
        wait: Duration,
    ) -> Self {
        let permits = in_flight_max.get().min(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            ended: watch::Sender::new(()),
            permits: Arc::new(Semaphore::new(permits)),
            wait,
            threads_max: threads_max.get(),
        });
        let _open = Arc::new(Open(Arc::clone(&shared)));
        Self { shared, _open }
    }

    /// Runs `work`, which changes something, on one of the threads. If the call is dropped before it is taken up, it
    /// does not run at all; if it is dropped later, [`undisturbed`](Self::undisturbed) waits for it to end.
    pub(crate) async fn run<R, F>(&self, work: F) -> Result<R, Fault>
    where
        F: FnOnce(&Call<'_>) -> Result<R, Fault> + Send + 'static,
        R: Send + 'static,
    {
        let answer = self.answer(work, true).await;
        answer.unwrap_or_else(|| Err(lost().now_unknown()))
    }

    /// As [`run`](Self::run), for work that changes nothing that anybody could see.
    pub(crate) async fn look<R, F>(&self, work: F) -> Result<R, Fault>
    where
        F: FnOnce(&Call<'_>) -> Result<R, Fault> + Send + 'static,
        R: Send + 'static,
    {
        let answer = self.answer(work, false).await;
        answer.unwrap_or_else(|| Err(lost()))
    }

    /// `None` where the answer is lost.
    async fn answer<R, F>(&self, work: F, is_change: bool) -> Option<Result<R, Fault>>
    where
        F: FnOnce(&Call<'_>) -> Result<R, Fault> + Send + 'static,
        R: Send + 'static,
    {
        let (deadline, permit) = match self.admit().await {
            Ok(admitted) => admitted,
            Err(refusal) => return Some(Err(refusal)),
        };
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let is_gone = || answer.is_closed();
            if is_gone() {
                return;
            }
            let result = if deadline <= Instant::now() {
                Err(waited())
            } else {
                let is_gone = &is_gone;
                work(&Call { deadline, is_gone })
            };
            // Room for the next one before the answer, so that whoever has it finds room.
            drop(permit);
            drop(answer.send(result));
        };
        let ticket = match self.push(Box::new(job)) {
            Ok(ticket) => ticket,
            Err((fault, _dropped)) => return Some(Err(fault)),
        };
        let mut on_drop = Abandon {
            shared: &self.shared,
            ticket: is_change.then_some(ticket),
        };
        let answer = answered.await.ok();
        on_drop.ticket = None;
        answer
    }

    /// Begins `work` before anybody waits for it; it does not run if the answer is dropped before it is taken up.
    pub(crate) fn ahead<R, F>(&self, work: F) -> oneshot::Receiver<Result<R, Fault>>
    where
        F: FnOnce() -> Result<R, Fault> + Send + 'static,
        R: Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            if !answer.is_closed() {
                drop(answer.send(work()));
            }
        };
        // Where no thread can be started, the answer is lost with the job, which whoever waits for it sees.
        drop(self.push(Box::new(job)));
        answered
    }

    /// Runs `work`, for which nobody waits: at once on one of the threads, else as soon as one of them is free.
    pub(crate) fn clear_away(&self, work: impl FnOnce() + Send + 'static) {
        if IS_OURS.get() {
            work();
        } else if let Err((_no_thread, job)) = self.push(Box::new(work)) {
            job();
        }
    }

    /// Runs `work`, for which nobody waits, when its turn comes.
    pub(crate) fn later(&self, work: impl FnOnce() + Send + 'static) {
        // Where no thread can be started, one of those that run will do it; without any, nobody asked for it.
        drop(self.push(Box::new(work)));
    }

    /// Waits until all that was begun before has ended.
    pub(crate) async fn settled(&self) {
        let last = self.shared.lock().last_ticket;
        self.ended(last, |state| &state.under_way).await;
    }

    /// Waits until no call that was dropped before changes anything any more.
    pub(crate) async fn undisturbed(&self) {
        let last = self.shared.lock().abandoned.last().copied();
        if let Some(last) = last {
            self.ended(last, |state| &state.abandoned).await;
        }
    }

    /// Waits until none of these jobs up to the `last` one runs or is to run.
    async fn ended(&self, last: u64, jobs: fn(&State) -> &BTreeSet<u64>) {
        let mut ended = self.shared.ended.subscribe();
        loop {
            ended.mark_unchanged();
            let first = jobs(&self.shared.lock()).first().copied();
            if first.is_none_or(|first| first > last) || ended.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits for a place among the calls in flight (C-4).
    ///
    /// There is no timer in this: places are held by jobs that run or wait for a thread, and none of them waits for
    /// anything but the medium and a lock, the latter within its own deadline.
    async fn admit(&self) -> Result<(Instant, OwnedSemaphorePermit), Fault> {
        let deadline = after(self.shared.wait);
        let permit = Arc::clone(&self.shared.permits).acquire_owned().await;
        let permit = permit.map_err(|_never_closed| lost())?;
        if deadline <= Instant::now() {
            return Err(waited());
        }
        Ok((deadline, permit))
    }

    /// Queues a job, and starts a thread for it if all of them are busy and there may be more.
    fn push(&self, job: Job) -> Result<u64, (Fault, Job)> {
        let mut state = self.shared.lock();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        state.under_way.insert(ticket);
        state.jobs.push_back((ticket, job));
        if state.jobs.len() <= state.idle || state.threads == self.shared.threads_max {
            drop(state);
            self.shared.filled.notify_one();
            return Ok(ticket);
        }
        state.threads += 1;
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("larder-files".to_owned());
        let Err(e) = thread.spawn(move || Worker(shared).run()) else {
            return Ok(ticket);
        };
        state.threads -= 1;
        if state.threads > 0 {
            return Ok(ticket);
        }
        state.under_way.remove(&ticket);
        let Some((_, job)) = state.jobs.pop_back() else {
            return Ok(ticket);
        };
        drop(state);
        let message = "no thread could be started";
        let fault = Fault::not_applied(ErrorKind::Unavailable, message).because(e);
        Err((fault, job))
    }
}

impl Shared {
    /// Poison means nothing here: no code of others runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread, counted for as long as it runs.
struct Worker(Arc<Shared>);

/// A job that runs, which has ended when this is dropped, also by a panic.
struct Running<'a>(&'a Shared, u64);

impl Worker {
    fn run(self) {
        IS_OURS.set(true);
        while let Some((ticket, job)) = self.next() {
            let _running = Running(&self.0, ticket);
            // A defect in one job must not leave those behind it without a thread; its caller sees that the answer is
            // lost.
            drop(panic::catch_unwind(AssertUnwindSafe(job)));
        }
    }

    /// The next job; `None` when there will be none, or has been none for long.
    fn next(&self) -> Option<(u64, Job)> {
        let mut state = self.0.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            let woken = self.0.filled.wait_timeout(state, IDLE_MAX);
            let (guard, waited) = woken.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                return None;
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
    }
}

/// Marks the job of a call that is dropped before it was answered.
struct Abandon<'a> {
    shared: &'a Shared,
    ticket: Option<u64>,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else {
            return;
        };
        let mut state = self.shared.lock();
        let queued = state.jobs.binary_search_by_key(&ticket, |(it, _)| *it);
        let withdrawn = queued.ok().and_then(|at| state.jobs.remove(at));
        if withdrawn.is_some() {
            state.under_way.remove(&ticket);
        } else if state.under_way.contains(&ticket) {
            state.abandoned.insert(ticket);
        }
        drop(state);
        // What it holds may take the lock when it is dropped.
        drop(withdrawn);
        self.shared.ended.send_replace(());
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way.remove(&self.1);
        state.abandoned.remove(&self.1);
        drop(state);
        self.0.ended.send_replace(());
    }
}

fn after(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait.min(FAR)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    #[tokio::test]
    async fn a_call_that_was_dropped_before_its_turn_does_not_run() {
        let threads = Threads::new(NonZeroUsize::MIN, TWO, Duration::from_secs(5));
        let (open, gate) = mpsc::channel::<()>();
        let ran = Arc::new(AtomicUsize::new(0));
        let busy = {
            let threads = threads.clone();
            tokio::spawn(async move { threads.run(move |_| Ok(gate.recv().is_err())).await })
        };
        while threads.shared.lock().threads == 0 {
            tokio::task::yield_now().await;
        }
        let counted = Arc::clone(&ran);
        let mut second = Box::pin(threads.run(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }));
        let waits = std::future::poll_fn(|context| {
            std::task::Poll::Ready(second.as_mut().poll(context).is_pending())
        });
        assert!(waits.await);
        drop(second);
        drop(open);
        assert!(busy.await.unwrap().unwrap());
        threads.settled().await;
        assert_eq!(ran.load(Ordering::SeqCst), 0);
        assert_eq!(threads.run(|_| Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_change_whose_call_was_dropped_is_waited_for_and_a_look_is_not() {
        let threads = Threads::new(TWO, TWO, Duration::from_secs(5));
        for is_change in [true, false] {
            let (open, gate) = mpsc::channel::<()>();
            let (begun, begins) = oneshot::channel();
            let work = move |call: &Call<'_>| {
                begun.send(()).expect("the test waits for it");
                gate.recv().expect_err("the gate is opened by dropping it");
                Ok(call.is_gone())
            };
            let theirs = threads.clone();
            let call = tokio::spawn(async move {
                if is_change {
                    theirs.run(work).await
                } else {
                    theirs.look(work).await
                }
            });
            begins.await.unwrap();
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
            let soon = Duration::from_millis(50);
            let waits = tokio::time::timeout(soon, threads.undisturbed()).await;
            assert_eq!(waits.is_err(), is_change);
            drop(open);
            threads.undisturbed().await;
            threads.settled().await;
        }
        assert!(threads.shared.lock().abandoned.is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_costs_the_others_nothing() {
        let threads = Threads::new(TWO, TWO, Duration::from_secs(5));
        for _ in 0..5 {
            let panics = threads.run(|_| -> Result<(), Fault> { panic!("on purpose") });
            assert!(panics.await.is_err());
        }
        threads.settled().await;
        assert_eq!(threads.run(|_| Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn the_threads_end_with_the_last_handle() {
        let threads = Threads::new(TWO, TWO, Duration::from_secs(5));
        let shared = Arc::clone(&threads.shared);
        threads.run(|_| Ok(())).await.unwrap();
        drop(threads.clone());
        assert!(!shared.lock().closed);
        drop(threads);
        while shared.lock().threads > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
