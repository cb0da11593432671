//! How late this machine is by itself. No bound on time is judged below that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// How long the task sleeps at a time.
const NAP: Duration = Duration::from_millis(5);

/// A task that only wakes up, and how late it was at worst: what the machine adds to every time that is measured.
///
/// It is on the executor of the check, since that is where the calls are that it is compared with.
#[derive(Debug)]
pub(crate) struct Canary {
    late_nanos: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Canary {
    pub(crate) fn start() -> Self {
        let late_nanos = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&late_nanos);
        let task = tokio::spawn(async move {
            loop {
                let asleep = Instant::now();
                tokio::time::sleep(NAP).await;
                let late = asleep.elapsed().saturating_sub(NAP);
                let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
                seen.fetch_max(late, Ordering::Relaxed);
            }
        });
        Self { late_nanos, task }
    }

    /// By how much it was late, where a bound cannot be judged: the machine alone may have taken up half of it.
    pub(crate) fn excuses(&self, bound: Duration) -> Option<Duration> {
        let late = Duration::from_nanos(self.late_nanos.load(Ordering::Relaxed));
        Some(late).filter(|late| *late > bound / 2)
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.task.abort();
    }
}
