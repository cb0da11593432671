//! What a handle is opened with: which folder, whose clock, how durable, which bounds.
//!
//! What is declared and what is enforced is one number: the bounds are kept as the [`Caps`] that declare them.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larder_traits::{
    Caps, Clock, ClockSource, Durability, HighVolumeCaps, LateLanding, SystemClock,
};

/// How many calls of one handle may be in flight by default.
const IN_FLIGHT_MAX: usize = 4096;

/// The shortest wait that makes sense.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// What is declared for handles with the default settings; see [`ObjectsConfig::caps`] for others.
pub const OBJECTS_CAPS: Caps = Caps::LEAST
    .with_durability(Durability::Power)
    .with_late_landing(LateLanding::Fenced)
    .with_clock(ClockSource::Injected)
    .with_in_flight_max(Some(IN_FLIGHT_MAX))
    .with_high_volume(
        HighVolumeCaps::LEAST
            .with_payload_len_bytes_max(1 << 40)
            .with_id_len_bytes_max(2 << 10),
    );

/// Which folder a handle is on, and what the handle goes by there.
///
/// All settings belong to the handle, not to the folder. An object that one handle was allowed to write can be read by
/// all.
#[derive(Clone, Debug)]
pub struct ObjectsConfig {
    pub(super) path: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) wait: Duration,
    pub(super) threads_max: NonZeroUsize,
    pub(super) in_flight_max: NonZeroUsize,
    pub(super) metadata_len_bytes_max: usize,
    pub(super) caps: Caps,
}

impl ObjectsConfig {
    /// The folder at `path`, which is created where it is missing, with those above it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            clock: Arc::new(SystemClock::default()),
            wait: Duration::from_secs(10),
            threads_max: const { NonZeroUsize::new(8).expect("eight is not zero") },
            in_flight_max: const { NonZeroUsize::new(IN_FLIGHT_MAX).expect("it is not zero") },
            metadata_len_bytes_max: 1 << 20,
            caps: OBJECTS_CAPS,
        }
    }

    /// The same configuration on the folder at `path`.
    #[must_use]
    pub fn with_path(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path, ..self }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The clock that decides expiry (C-5); the machine's by default.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// What an acknowledged write survives, and no more than that; [`Durability::Power`] by default.
    ///
    /// With `Process` and `None` nothing is synced: after a loss of power the last objects may be missing, or be
    /// `Corrupt`, and never wrong. Either is what the handle declares then.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.caps.durability = durability;
        self
    }

    /// How long a call waits for its turn: for a place in the queue, and for other calls on the same object; 10 s by
    /// default, and never less than 10 ms, since a call cannot be run without waiting for a thread. After that it ends
    /// as `Timeout`, `NotApplied`.
    #[must_use]
    pub fn with_wait(self, wait: Duration) -> Self {
        let wait = wait.max(WAIT_MIN);
        Self { wait, ..self }
    }

    /// The most threads that read and write; they are started as they are needed; 8 by default.
    #[must_use]
    pub fn with_threads_max(self, threads_max: NonZeroUsize) -> Self {
        Self {
            threads_max,
            ..self
        }
    }

    /// How many calls may be queued or running on the handle and its clones before further ones wait (C-4); 4,096 by
    /// default. A put that waits for its caller's stream, and a get whose caller reads nothing, do not count.
    #[must_use]
    pub fn with_in_flight_max(mut self, in_flight_max: NonZeroUsize) -> Self {
        self.in_flight_max = in_flight_max;
        self.caps.in_flight_max = Some(in_flight_max.get());
        self
    }

    /// The longest payload of an object; 1 TiB by default.
    #[must_use]
    pub fn with_payload_len_bytes_max(mut self, max: u64) -> Self {
        self.caps.high_volume.payload_len_bytes_max = max;
        self
    }

    /// The longest text form of an object id; 2 KiB by default.
    #[must_use]
    pub fn with_id_len_bytes_max(mut self, max: usize) -> Self {
        self.caps.high_volume.id_len_bytes_max = max;
        self
    }

    /// The longest encoded metadata of an object; 1 MiB by default.
    #[must_use]
    pub fn with_metadata_len_bytes_max(self, max: usize) -> Self {
        Self {
            metadata_len_bytes_max: max,
            ..self
        }
    }

    /// What handles with this configuration declare.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.caps
    }
}
