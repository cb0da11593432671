//! Work that outlives its caller.
//!
//! A step that has begun is brought to its end whether or not somebody still waits for it (TS-8). It runs inside its
//! caller for as long as there is one, and is handed over to a [`Runtime`] when the caller is dropped. Whatever runs
//! there is counted, so that `join` can wait for it, and a panic in it ends there.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_traits::BackendError;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::error::panicked;

/// Where background work runs, and how it waits.
///
/// What it is given may be dropped at any await, as all of a process is when it ends: recovery finishes it then.
pub trait Runtime: Debug + Send + Sync {
    /// Runs `task` to its end, beside whatever else runs.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Waits so long.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// A tokio runtime, with its timers.
///
/// Callers may be polled by any other executor. Made where there is none, it uses the one of whoever spawns, and drops
/// what is spawned where there is none either.
#[derive(Clone, Debug)]
pub struct TokioRuntime(Option<Handle>);

impl TokioRuntime {
    /// The runtime in which this is called.
    #[must_use]
    pub fn current() -> Self {
        Self(Handle::try_current().ok())
    }
}

impl Runtime for TokioRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let handle = self.0.clone().or_else(|| Handle::try_current().ok());
        if let Some(handle) = handle {
            drop(handle.spawn(task));
        }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        // The pause belongs to this runtime, whoever waits for it.
        let _entered = self.0.as_ref().map(Handle::enter);
        tokio::time::sleep(duration).boxed()
    }
}

/// The background work of one opened storage.
#[derive(Clone)]
pub(crate) struct Background {
    runtime: Arc<dyn Runtime>,
    tasks: Arc<Tasks>,
}

#[derive(Default)]
struct Tasks {
    numbers: Mutex<Numbers>,
    ended: Notify,
}

#[derive(Default)]
struct Numbers {
    next: u64,
    running: BTreeSet<u64>,
}

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // A set of numbers is whole at any time.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One running task; it ends with this value, also where a runtime drops it.
struct Running {
    tasks: Arc<Tasks>,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.lock().running.remove(&self.number);
        self.tasks.ended.notify_waiters();
    }
}

impl Background {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self {
            runtime,
            tasks: Arc::default(),
        }
    }

    /// How many tasks run.
    pub(crate) fn len(&self) -> usize {
        self.tasks.lock().running.len()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let number = {
            let mut numbers = self.tasks.lock();
            let number = numbers.next;
            numbers.next += 1;
            numbers.running.insert(number);
            number
        };
        let running = Running {
            tasks: Arc::clone(&self.tasks),
            number,
        };
        self.runtime.spawn(
            async move {
                // What a panic leaves undone is in the log.
                drop(AssertUnwindSafe(task).catch_unwind().await);
                drop(running);
            }
            .boxed(),
        );
    }

    /// Waits for the tasks that run now, and for those that they have started by their end.
    pub(crate) async fn join(&self) {
        // A step that lost its caller may leave a swap to be resolved, that may leave a removal, which leaves nothing.
        for _ in 0..3 {
            let before = self.tasks.lock().next;
            loop {
                let mut ended = pin!(self.tasks.ended.notified());
                ended.as_mut().enable();
                if self.tasks.lock().running.range(..before).next().is_none() {
                    break;
                }
                ended.await;
            }
        }
    }

    /// Runs `step` inside its caller, or without one if that is dropped in the middle.
    pub(crate) fn complete<T: Send + 'static>(
        &self,
        step: impl Future<Output = Result<T, BackendError>> + Send + 'static,
    ) -> Completing<T> {
        Completing {
            step: AssertUnwindSafe(step).catch_unwind().boxed(),
            state: State::New,
            background: self.clone(),
        }
    }
}

impl Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background")
            .field("running", &self.len())
            .finish_non_exhaustive()
    }
}

type Caught<T> = Result<Result<T, BackendError>, Box<dyn Any + Send>>;

/// A step that comes to its end.
pub(crate) struct Completing<T: Send + 'static> {
    step: BoxFuture<'static, Caught<T>>,
    state: State,
    background: Background,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Begun,
    Ended,
}

impl<T: Send + 'static> Future for Completing<T> {
    type Output = Result<T, BackendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.state = State::Begun;
        let Poll::Ready(ended) = self.step.as_mut().poll(context) else {
            return Poll::Pending;
        };
        self.state = State::Ended;
        Poll::Ready(ended.unwrap_or_else(|_| Err(panicked())))
    }
}

impl<T: Send + 'static> Drop for Completing<T> {
    fn drop(&mut self) {
        if self.state != State::Begun {
            return;
        }
        let nothing = std::future::pending().boxed();
        let rest = std::mem::replace(&mut self.step, nothing);
        self.background.spawn(rest.map(drop));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    /// BK-5: the longest chain is a step that lost its caller, the resolution of its swap, and a removal.
    #[tokio::test]
    async fn join_waits_for_what_the_tasks_under_way_leave_behind() {
        let background = Background::new(Arc::new(TokioRuntime::current()));
        let ended = Arc::new(AtomicUsize::new(0));
        let task = |then: Option<BoxFuture<'static, ()>>| {
            let (background, ended) = (background.clone(), Arc::clone(&ended));
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if let Some(then) = then {
                    background.spawn(then);
                }
                ended.fetch_add(1, SeqCst);
            }
            .boxed()
        };
        background.spawn(task(Some(task(Some(task(None))))));
        background.join().await;
        assert_eq!((ended.load(SeqCst), background.len()), (3, 0));
    }
}
