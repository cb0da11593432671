//! What a [`TieredStorage`](crate::TieredStorage) goes by: what its tiers declare, where the threshold lies, how long
//! its leases are.

use std::sync::Arc;
use std::time::Duration;

use larder_traits::{Caps, Clock, ClockSource, Fault, HighVolumeCaps, LateLanding, SystemClock};

use crate::error::invalid;
use crate::revision::REVISION_LEN_BYTES;
use crate::runtime::{Runtime, TokioRuntime};

/// The threshold by default (TS-1).
const THRESHOLD_BYTES: usize = 1 << 20;

/// The configuration of a [`TieredStorage`](crate::TieredStorage).
#[derive(Clone, Debug)]
pub struct TieredConfig {
    pub(crate) high: Caps,
    pub(crate) long: Caps,
    pub(crate) threshold_bytes: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) lease: Duration,
    pub(crate) grace: Duration,
    pub(crate) backoff: Duration,
    pub(crate) attempts_max: u32,
    pub(crate) lookups_max: u32,
    pub(crate) cleanups_max: usize,
    pub(crate) recover_parallel: usize,
}

impl TieredConfig {
    /// The defaults for tiers that declare `high` and `long`.
    ///
    /// What they declare decides what can be concluded from an answer that was lost (TS-6), which ids fit, and what
    /// the whole declares in turn. Background work runs on the tokio runtime in which this is called.
    #[must_use]
    pub fn new(high: Caps, long: Caps) -> Self {
        let inline_max = high.high_volume.payload_len_bytes_max;
        let inline_max = usize::try_from(inline_max).unwrap_or(usize::MAX);
        Self {
            high,
            long,
            threshold_bytes: THRESHOLD_BYTES.min(inline_max),
            clock: Arc::new(SystemClock::default()),
            runtime: Arc::new(TokioRuntime::current()),
            lease: Duration::from_secs(30),
            grace: Duration::from_secs(10),
            backoff: Duration::from_millis(20),
            attempts_max: 5,
            lookups_max: 8,
            cleanups_max: 4_096,
            recover_parallel: 16,
        }
    }

    /// The longest payload that is kept inline, in bytes (TS-1); 1 MiB by default, or the longest that the
    /// high-volume tier takes. It may be 0.
    #[must_use]
    pub fn with_threshold_bytes(self, threshold_bytes: usize) -> Self {
        Self {
            threshold_bytes,
            ..self
        }
    }

    /// The clock that settles deadlines and leases (C-5); the machine's by default. The tiers must go by it too.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// What runs the work that outlives its caller.
    #[must_use]
    pub fn with_runtime(self, runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, ..self }
    }

    /// How long a writer that shows no sign of life keeps its changes to itself (TS-7); 30 s by default.
    ///
    /// It is extended while a change is under way. Make it longer than a process may be stopped: one that is stopped
    /// for longer right before its swap is recovered as if it were gone, and finds its put undone (see *Limits* of the
    /// package).
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// How long a payload stays after nothing refers to it any more, for readers who found it in time and still
    /// stream; 10 s by default. `join` waits for it.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// The pause before a failed step is tried again, doubled each time; 20 ms by default.
    #[must_use]
    pub fn with_backoff(self, backoff: Duration) -> Self {
        Self { backoff, ..self }
    }

    /// How often a step is tried in all before it is left to the caller or to recovery; 5 by default, at least 1.
    #[must_use]
    pub fn with_attempts_max(self, attempts_max: u32) -> Self {
        Self {
            attempts_max: attempts_max.max(1),
            ..self
        }
    }

    /// How many removals may be under way in the background; what comes on top waits in the log for
    /// [`recover`](crate::TieredStorage::recover). 4,096 by default.
    #[must_use]
    pub fn with_cleanups_max(self, cleanups_max: usize) -> Self {
        Self {
            cleanups_max,
            ..self
        }
    }

    /// How many changes are recovered at the same time; 16 by default, at least 1.
    #[must_use]
    pub fn with_recover_parallel(self, recover_parallel: usize) -> Self {
        Self {
            recover_parallel: recover_parallel.max(1),
            ..self
        }
    }

    /// What the whole declares.
    ///
    /// It survives what both tiers survive; the change log has to survive as much. A dropped call may land late, since
    /// a step that has begun is finished without its caller.
    #[must_use]
    pub fn caps(&self) -> Caps {
        let (high, long) = (&self.high, &self.long);
        let clock = match (high.clock, long.clock) {
            (ClockSource::Injected, ClockSource::Injected) => ClockSource::Injected,
            (one, other) => ClockSource::Server {
                skew: skew(one).max(skew(other)),
            },
        };
        let in_flight_max = [high.in_flight_max, long.in_flight_max];
        Caps::LEAST
            .with_durability(high.durability.min(long.durability))
            .with_late_landing(LateLanding::MayLandLate(None))
            .with_clock(clock)
            .with_in_flight_max(in_flight_max.into_iter().flatten().min())
            .with_high_volume(
                HighVolumeCaps::LEAST
                    .with_payload_len_bytes_max(long.high_volume.payload_len_bytes_max)
                    .with_id_len_bytes_max(self.id_len_bytes_max()),
            )
    }

    /// An id must leave room for the name of its payload, in both tiers.
    pub(crate) fn id_len_bytes_max(&self) -> usize {
        let high = self.high.high_volume.id_len_bytes_max;
        let long = self.long.high_volume.id_len_bytes_max;
        high.min(long).saturating_sub(REVISION_LEN_BYTES)
    }

    pub(crate) fn check(&self) -> Result<(), Fault> {
        let inline_max = self.high.high_volume.payload_len_bytes_max;
        if u64::try_from(self.threshold_bytes).map_or(true, |threshold| threshold > inline_max) {
            return Err(invalid(
                "the threshold is above the longest payload of the high-volume tier",
            ));
        }
        if self.lease < Duration::from_millis(100) {
            return Err(invalid("a lease below 100 ms cannot be kept"));
        }
        Ok(())
    }
}

fn skew(clock: ClockSource) -> Duration {
    match clock {
        ClockSource::Injected => Duration::ZERO,
        ClockSource::Server { skew } => skew,
    }
}
