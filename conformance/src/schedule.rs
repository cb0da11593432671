//! Every order in which concurrent tasks can take their steps.
//!
//! A race shows in some orders and not in others, and an ordinary executor picks one by chance. This one runs a handful
//! of tasks on the calling thread and lets each poll be a step; which task takes the next one is a choice, and an
//! [`Explorer`] goes through the choices depth-first, one [`Run`] for each list of them, until there is none left. Where
//! there are too many, it draws a sample from a seed. The same choices give the same run.
//!
//! A step ends where a task waits. Code that stands on stores waits where they do, and [`Stepped`] makes a store wait
//! once before each call, so that a call is one step and everything can come between two.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
//! use larder_conformance::schedule::{Explorer, step};
//!
//! let mut lost = 0;
//! let mut explorer = Explorer::all();
//! while let Some(run) = explorer.next_run() {
//!     let counter = Arc::new(AtomicU32::new(0));
//!     for _ in 0..2 {
//!         let counter = Arc::clone(&counter);
//!         run.spawn(async move {
//!             let seen = counter.load(SeqCst);
//!             step().await;
//!             counter.store(seen + 1, SeqCst);
//!         });
//!     }
//!     run.go();
//!     lost += u32::from(counter.load(SeqCst) != 2);
//! }
//! assert_eq!((explorer.runs(), lost), (6, 4));
//! ```
//!
//! Time stands still while anybody can take a step, and then leaps to whoever wakes up first: a pause is long beside any
//! number of steps.

mod stepped;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_traits::TestClock;

pub use stepped::Stepped;

/// Gives the next step to whoever is chosen, oneself included.
pub fn step() -> impl Future<Output = ()> + Send {
    Step { is_taken: false }
}

struct Step {
    is_taken: bool,
}

impl Future for Step {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.is_taken {
            return Poll::Ready(());
        }
        self.is_taken = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code of others runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Goes through the orders, one run for each.
#[derive(Debug)]
pub struct Explorer {
    choices: Arc<Mutex<Choices>>,
    mode: Mode,
    runs: usize,
}

#[derive(Clone, Debug)]
enum Mode {
    All,
    Sample { seed: u64, runs: usize },
    Replay,
}

/// The choices of one run, and where they come from.
#[derive(Debug, Default)]
struct Choices {
    /// Which of how many was taken at each choice that there was.
    trail: Vec<(usize, usize)>,
    /// How many of them this run has made.
    made: usize,
    /// What a new choice takes: the first, or what chance says.
    random: Option<u64>,
}

impl Choices {
    fn choose(&mut self, of: usize) -> usize {
        if of < 2 {
            return 0;
        }
        if self.made == self.trail.len() {
            let chosen = match &mut self.random {
                None => 0,
                Some(state) => {
                    *state = crate::seed::hash(&state.to_le_bytes());
                    usize::try_from(*state >> 33).unwrap_or_default() % of
                }
            };
            self.trail.push((chosen, of));
        }
        let (chosen, was) = self.trail[self.made];
        assert!(
            was == of || was == usize::MAX,
            "choice {} was among {was} before and is among {of} now: something decides that no choice does",
            self.made
        );
        self.trail[self.made] = (chosen.min(of - 1), of);
        self.made += 1;
        chosen.min(of - 1)
    }

    /// The next list of choices in depth-first order.
    fn advance(&mut self) -> bool {
        while let Some((chosen, of)) = self.trail.pop() {
            if chosen + 1 < of {
                self.trail.push((chosen + 1, of));
                return true;
            }
        }
        false
    }
}

impl Explorer {
    /// Every order there is.
    #[must_use]
    pub fn all() -> Self {
        Self::of(Mode::All)
    }

    /// So many orders, drawn by this seed.
    #[must_use]
    pub fn sample(seed: u64, runs: usize) -> Self {
        Self::of(Mode::Sample { seed, runs })
    }

    /// One order again, by what [`Run::choices`] told of it.
    #[must_use]
    pub fn replay(choices: &[usize]) -> Self {
        let explorer = Self::of(Mode::Replay);
        // Among how many they were is seen when they are made.
        lock(&explorer.choices).trail = choices.iter().map(|it| (*it, usize::MAX)).collect();
        explorer
    }

    fn of(mode: Mode) -> Self {
        Self {
            choices: Arc::default(),
            mode,
            runs: 0,
        }
    }

    /// A run in the next order; `None` after the last.
    pub fn next_run(&mut self) -> Option<Run> {
        let mut choices = lock(&self.choices);
        choices.made = 0;
        let is_over = match self.mode {
            Mode::All => self.runs > 0 && !choices.advance(),
            Mode::Sample { seed, runs } => {
                choices.trail.clear();
                let run = u64::try_from(self.runs).unwrap_or_default();
                choices.random = Some(crate::seed::hash(&run.to_le_bytes()) ^ seed);
                self.runs == runs
            }
            Mode::Replay => self.runs == 1,
        };
        if is_over {
            return None;
        }
        drop(choices);
        self.runs += 1;
        Some(Run::new(Arc::clone(&self.choices)))
    }

    /// How many runs there were.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs
    }
}

/// One run: its tasks, and the order in which they take their steps. Clones share everything.
#[derive(Clone)]
pub struct Run {
    choices: Arc<Mutex<Choices>>,
    tasks: Arc<Mutex<Tasks>>,
    ready: Arc<Mutex<BTreeSet<usize>>>,
}

#[derive(Default)]
struct Tasks {
    all: BTreeMap<usize, Task>,
    next: usize,
    sleepers: BTreeMap<(Duration, usize), Waker>,
    now: Duration,
    clock: Option<Arc<TestClock>>,
    steps: usize,
    is_dead: bool,
}

struct Task {
    future: BoxFuture<'static, ()>,
    is_client: bool,
}

struct Ready {
    task: usize,
    ready: Arc<Mutex<BTreeSet<usize>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        lock(&self.ready).insert(self.task);
    }
}

impl Run {
    fn new(choices: Arc<Mutex<Choices>>) -> Self {
        Self {
            choices,
            tasks: Arc::default(),
            ready: Arc::default(),
        }
    }

    /// The clock that goes as time leaps.
    pub fn set_clock(&self, clock: Arc<TestClock>) {
        lock(&self.tasks).clock = Some(clock);
    }

    /// Adds a client, for whose end [`go`](Self::go) waits.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.add(task.boxed(), true);
    }

    /// Adds a task for whose end nobody waits.
    pub fn spawn_background(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.add(task.boxed(), false);
    }

    fn add(&self, future: BoxFuture<'static, ()>, is_client: bool) {
        let mut tasks = lock(&self.tasks);
        if tasks.is_dead {
            drop(tasks);
            // What it owns may add tasks in turn.
            drop(future);
            return;
        }
        let id = tasks.next;
        tasks.next += 1;
        tasks.all.insert(id, Task { future, is_client });
        lock(&self.ready).insert(id);
    }

    /// Waits until nobody can take a step, and then for so long.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let tasks = Arc::clone(&self.tasks);
        let mut key = None;
        std::future::poll_fn(move |context| {
            let mut tasks = lock(&tasks);
            match key {
                None => {
                    let id = tasks.next;
                    tasks.next += 1;
                    let until = tasks.now.saturating_add(duration);
                    key = Some((until, id));
                    tasks.sleepers.insert((until, id), context.waker().clone());
                    Poll::Pending
                }
                Some((until, _)) if until <= tasks.now => Poll::Ready(()),
                Some(key) => {
                    tasks.sleepers.insert(key, context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .boxed()
    }

    /// Lets tasks take steps until no client is left.
    ///
    /// # Panics
    ///
    /// Where clients are left that nothing can wake any more.
    pub fn go(&self) {
        while self.has_clients() {
            assert!(self.one(true), "clients wait for what never comes");
        }
    }

    /// Lets tasks take so many steps, clients or not. Whether nothing is left that could take one.
    pub fn go_steps(&self, steps: usize) -> bool {
        (0..steps).any(|_| !self.one(true))
    }

    /// Runs `work` to its end, and beside it whatever else there is, in one fixed order: no choices are made.
    ///
    /// # Panics
    ///
    /// Where `work` waits for what never comes.
    pub fn finish<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let answer = Arc::new(Mutex::new(None));
        let given = Arc::clone(&answer);
        self.spawn(async move {
            let answer = work.await;
            *lock(&given) = Some(answer);
        });
        loop {
            if let Some(answer) = lock(&answer).take() {
                return answer;
            }
            assert!(self.one(false), "work that waits for what never comes");
        }
    }

    /// Ends all tasks where they stand, and those that are added later at once.
    pub fn crash(&self) {
        let all = {
            let mut tasks = lock(&self.tasks);
            tasks.is_dead = true;
            tasks.sleepers.clear();
            std::mem::take(&mut tasks.all)
        };
        // Outside the lock: what they own may add tasks.
        drop(all);
    }

    /// How many steps were taken.
    #[must_use]
    pub fn steps(&self) -> usize {
        lock(&self.tasks).steps
    }

    /// The choices so far, for [`Explorer::replay`].
    #[must_use]
    pub fn choices(&self) -> Vec<usize> {
        let choices = lock(&self.choices);
        let made = &choices.trail[..choices.made];
        made.iter().map(|(chosen, _)| *chosen).collect()
    }

    fn has_clients(&self) -> bool {
        lock(&self.tasks).all.values().any(|task| task.is_client)
    }

    /// One step, or one leap in time. Whether there was one to take.
    fn one(&self, is_choice: bool) -> bool {
        let ready: Vec<usize> = {
            let tasks = lock(&self.tasks);
            let mut ready = lock(&self.ready);
            // A task that has ended may be woken again.
            ready.retain(|id| tasks.all.contains_key(id));
            ready.iter().copied().collect()
        };
        if ready.is_empty() {
            return self.leap();
        }
        let chosen = match is_choice {
            true => lock(&self.choices).choose(ready.len()),
            false => 0,
        };
        let id = ready[chosen];
        lock(&self.ready).remove(&id);
        let Some(mut task) = lock(&self.tasks).all.remove(&id) else {
            return false;
        };
        let waker = Waker::from(Arc::new(Ready {
            task: id,
            ready: Arc::clone(&self.ready),
        }));
        let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut tasks = lock(&self.tasks);
        tasks.steps += 1;
        if polled.is_pending() && !tasks.is_dead {
            tasks.all.insert(id, task);
        } else {
            drop(tasks);
            drop(task);
        }
        true
    }

    fn leap(&self) -> bool {
        let mut tasks = lock(&self.tasks);
        let Some(((until, _), waker)) = tasks.sleepers.pop_first() else {
            return false;
        };
        let by = until.saturating_sub(tasks.now);
        tasks.now = tasks.now.max(until);
        if let Some(clock) = &tasks.clock {
            clock.advance(by);
        }
        drop(tasks);
        waker.wake();
        true
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("choices", &self.choices())
            .field("steps", &self.steps())
            .finish_non_exhaustive()
    }
}
