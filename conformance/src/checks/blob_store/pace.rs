//! How long writers and readers of a blob store go on beside each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::blob_store::World;
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::profile::Profile;

/// The longest that writers go on; a medium that syncs slowly does fewer writes.
pub(super) fn time_max(cx: &Cx<dyn World>) -> Duration {
    match cx.profile {
        Profile::Quick => Duration::from_secs(2),
        Profile::Standard => Duration::from_secs(20),
        Profile::Soak => Duration::from_secs(600),
    }
}

/// Of all reads, how many must have met a write, for a run to say anything.
const MEETINGS_MIN: u64 = 20;

/// How long the writers of a run go on, and what the readers meet meanwhile.
pub(super) struct Pace {
    started: Instant,
    rounds: u64,
    /// How many rounds there are at most for the sake of `passed`.
    rounds_max: u64,
    until: Duration,
    meetings: AtomicU64,
    passed: AtomicU64,
}

impl Pace {
    pub(super) fn of(cx: &Cx<dyn World>, rounds: u64) -> Arc<Self> {
        Self::up_to(cx, rounds, rounds)
    }

    /// The same, and several times as many rounds where few reads have been passed by a write.
    pub(super) fn of_many(cx: &Cx<dyn World>, rounds: u64) -> Arc<Self> {
        Self::up_to(cx, rounds, 8 * rounds)
    }

    fn up_to(cx: &Cx<dyn World>, rounds: u64, rounds_max: u64) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            rounds,
            rounds_max,
            until: time_max(cx),
            meetings: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        })
    }

    /// Whether a writer goes on: to the end of its rounds, and beyond it while readers have met too little.
    pub(super) fn goes_on(&self, round: u64, ended: &AtomicBool) -> bool {
        let is_met = self.meetings.load(Ordering::Relaxed) >= 2 * MEETINGS_MIN;
        let is_passed = self.passed.load(Ordering::Relaxed) >= 2 * MEETINGS_MIN;
        let is_done = round >= self.rounds && is_met && (is_passed || round >= self.rounds_max);
        !(is_done || ended.load(Ordering::SeqCst) || self.started.elapsed() > self.until)
    }

    /// Writes came and went while a read was under way: only then can it be seen where a store reads in two steps.
    pub(super) fn passed(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn met(&self) {
        self.meetings.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn enough(&self, what: &str) -> Outcome {
        let meetings = self.meetings.load(Ordering::Relaxed);
        if meetings < MEETINGS_MIN {
            let why = format!("only {meetings} {what} met a write");
            return Err(Stop::Inconclusive(why));
        }
        Ok(())
    }
}
