//! How late this machine is by itself. No bound on time is judged below that.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::watchdog::slowdown;

/// How long the task sleeps at a time.
const NAP: Duration = Duration::from_millis(5);

/// A machine that is slower than usual by less than this counts as idle: no two runs take exactly as long.
const SLOWDOWN_MIN: f64 = 1.5;

/// A task that only wakes up, and how late it was at worst: what the machine adds to every time that is measured.
///
/// It is on the executor of the check, since that is where the calls are that it is compared with. What sleeps most of
/// the time is woken before what computes, so on a machine that is crowded and not stuck the canary sees little; there
/// a piece of work on the thread that judges is the better one.
#[derive(Debug)]
pub(crate) struct Canary {
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Seen {
    started: Instant,
    late_nanos: AtomicU64,
    /// When it went to sleep last: how late it is now, it does not know itself yet.
    asleep_nanos: AtomicU64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Seen {
    fn late_now(&self) -> Duration {
        let asleep = Duration::from_nanos(self.asleep_nanos.load(Ordering::Relaxed));
        let asleep_for = self.started.elapsed().saturating_sub(asleep);
        asleep_for.saturating_sub(NAP)
    }

    fn late_at_worst(&self) -> Duration {
        let late = Duration::from_nanos(self.late_nanos.load(Ordering::Relaxed));
        late.max(self.late_now())
    }
}

impl Canary {
    pub(crate) fn start() -> Self {
        let seen = Arc::new(Seen {
            started: Instant::now(),
            late_nanos: AtomicU64::new(0),
            asleep_nanos: AtomicU64::new(0),
        });
        let sleeper = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let asleep = nanos(sleeper.started.elapsed());
                sleeper.asleep_nanos.store(asleep, Ordering::Relaxed);
                tokio::time::sleep(NAP).await;
                let late = nanos(sleeper.late_now());
                sleeper.late_nanos.fetch_max(late, Ordering::Relaxed);
            }
        });
        Self { seen, task }
    }

    /// Why a call that took so long cannot be held against its bound, if the machine alone may have taken it there.
    pub(crate) fn excuses(&self, bound: Duration, took: Duration) -> Option<String> {
        let late = self.seen.late_at_worst();
        if late > bound / 2 {
            return Some(format!("the machine was late by {late:?} itself"));
        }
        let slowdown = slowdown();
        let is_crowded = slowdown >= SLOWDOWN_MIN && took.div_f64(slowdown) <= bound;
        is_crowded.then(|| format!("the machine takes {slowdown:.1} times as long as it has to"))
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets `call` take so long and no longer, in the time of a machine that does nothing else; `None` if that was too
/// short.
pub(crate) async fn within<T>(bound: Duration, call: impl Future<Output = T>) -> Option<T> {
    /// So much of the bound is not worth another look.
    const ENOUGH: f64 = 0.95;
    let mut call = pin!(call);
    let mut left = bound;
    while left > bound.mul_f64(1.0 - ENOUGH) {
        let since = Instant::now();
        if let Ok(ended) = tokio::time::timeout(left, call.as_mut()).await {
            return Some(ended);
        }
        let slowdown = slowdown();
        let spent = if slowdown < SLOWDOWN_MIN {
            left
        } else {
            since.elapsed().div_f64(slowdown)
        };
        left = left.saturating_sub(spent);
    }
    None
}

/// Lets so much time pass, and more on a machine that is slow: what is to be over by then is as slow as the machine.
pub(crate) async fn pass(by: Duration) {
    let _never: Option<()> = within(by, std::future::pending()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_canary_that_has_not_woken_yet_is_late_all_the_same() {
        // Failure: a call that was late with all else on its executor was held against its store.
        // Cause: the canary tells how late it was once it is awake, and the check had been woken before it.
        // Fix: the sleep that is going on counts.
        let canary = Canary::start();
        tokio::spawn(async {
            std::thread::sleep(Duration::from_millis(400));
        })
        .await
        .expect("the task sleeps");
        let bound = Duration::from_millis(250);
        assert!(canary.excuses(bound, 2 * bound).is_some());
    }

    #[tokio::test]
    async fn what_ends_is_heard_and_what_never_does_is_given_up() {
        let bound = Duration::from_millis(30);
        assert_eq!(within(bound, async { 7 }).await, Some(7));
        assert_eq!(within(bound, std::future::pending::<u8>()).await, None);
    }
}
