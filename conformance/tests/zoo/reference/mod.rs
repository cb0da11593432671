//! Correct stores, as plain as they can be: what the mutants bend and the oddities vary.
//!
//! A store is a set of replaceable steps over a shared place. A mutant replaces one step, and everything else stays as
//! correct as it was; so a check that fails on a mutant fails for the one reason that the mutant names.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_traits::TestClock;

pub(crate) mod blob_multi;
pub(crate) mod blob_store;
pub(crate) mod change_log;
pub(crate) mod files;
pub(crate) mod group;
pub(crate) mod high_volume;
pub(crate) mod kv_client;
pub(crate) mod late;
pub(crate) mod medium;
pub(crate) mod stash;

/// Locks, whatever happened to an earlier holder: the zoo's stores hold no invariant that a panic could break.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a store's future gets ready.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Pace {
    /// At the first poll.
    #[default]
    Ready,
    /// At the second.
    Yield,
    /// After 0 to 5 ms.
    Jitter,
}

impl Pace {
    pub(crate) async fn pause(self) {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        match self {
            Self::Ready => {}
            Self::Yield => tokio::task::yield_now().await,
            Self::Jitter => {
                // A multiplicative hash spreads the calls over the pauses. Most do not pause, or a check of
                // thousands of calls would take minutes.
                let call = CALLS
                    .fetch_add(1, Relaxed)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    >> 32;
                match call % 64 {
                    millis @ 1..=5 => tokio::time::sleep(Duration::from_millis(millis)).await,
                    _ => tokio::task::yield_now().await,
                }
            }
        }
    }
}

/// After so long, nothing that a dropped call left behind is still going on.
pub(crate) const SETTLED: Duration = Duration::from_millis(100);

/// A step of a call that was begun and has to be done, even if the call is dropped before it gets there.
///
/// A store whose call takes several steps is wrong only between them: a dropped call still leaves it whole.
pub(crate) struct Due<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Due<F> {
    pub(crate) fn new(step: F) -> Self {
        Self(Some(step))
    }

    /// Does it now.
    pub(crate) fn settle(self) {
        drop(self);
    }

    /// Leaves it undone, as what is there for a dropped call only.
    pub(crate) fn call_off(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Due<F> {
    fn drop(&mut self) {
        if let Some(step) = self.0.take() {
            step();
        }
    }
}

/// Does `rest` a little later, behind everybody's back, as what is left of a call that was dropped. Nobody waits for the
/// answer.
pub(crate) fn behind<T: Send + 'static>(rest: impl FnOnce() -> T + Send + 'static) {
    drop(tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(40)).await;
        rest()
    }));
}

/// Lets that clock run as that of a server does, as long as there is one who may look at it.
pub(crate) fn let_run(clock: &Arc<TestClock>) {
    const TICK: Duration = Duration::from_millis(2);
    let clock = Arc::downgrade(clock);
    std::thread::spawn(move || {
        let mut last = Instant::now();
        while let Some(clock) = clock.upgrade() {
            let now = Instant::now();
            clock.advance(now - last);
            last = now;
            drop(clock);
            std::thread::sleep(TICK);
        }
    });
}

/// The time between two steps that should have been one: long enough for others to come between, now and then.
pub(crate) async fn gap() {
    static GAPS: AtomicU64 = AtomicU64::new(0);
    tokio::task::yield_now().await;
    if GAPS.fetch_add(1, Relaxed).is_multiple_of(4) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The same on a thread that may block.
pub(crate) fn blocking_gap() {
    static GAPS: AtomicU64 = AtomicU64::new(0);
    if GAPS.fetch_add(1, Relaxed).is_multiple_of(4) {
        std::thread::sleep(Duration::from_micros(200));
    } else {
        std::thread::yield_now();
    }
}

/// Whether a counter stands still over such a time.
pub(crate) async fn stands_still(counter: &AtomicU64) -> bool {
    let before = counter.load(SeqCst);
    gap().await;
    counter.load(SeqCst) == before
}
