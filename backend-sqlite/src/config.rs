//! What a handle is opened with: which file, whose clock, how durable, which bounds.
//!
//! What is declared and what is enforced is one number: the bounds are kept as the [`Caps`] that declare them.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larder_traits::{
    Caps, Clock, ClockSource, Durability, HighVolumeCaps, KvCaps, LateLanding, StashCaps,
    SystemClock, TtlRestart,
};

/// How many calls of one handle may be in flight by default.
const IN_FLIGHT_MAX: usize = 4096;

/// The shortest wait that makes sense.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// What is declared for handles with the default settings; see [`SqliteConfig::caps`] for others.
pub const CAPS: Caps = Caps::LEAST
    .with_durability(Durability::Power)
    .with_late_landing(LateLanding::Fenced)
    .with_clock(ClockSource::Injected)
    .with_in_flight_max(Some(IN_FLIGHT_MAX))
    .with_stash(
        StashCaps::LEAST
            .with_batch_atomic(true)
            .with_exclusive(true)
            .with_name_len_bytes_max(1 << 10)
            .with_row_len_bytes_max(1 << 20)
            .with_batch_rows_max(1_000_000),
    )
    .with_high_volume(
        HighVolumeCaps::LEAST
            .with_payload_len_bytes_max(16 << 20)
            .with_id_len_bytes_max(2 << 10)
            .with_fence(true)
            .with_extend_expiry(true),
    )
    .with_kv_client(
        KvCaps::LEAST
            .with_empty_key(true)
            .with_key_len_bytes_max(64 << 10)
            .with_value_len_bytes_max(16 << 20)
            .with_ttl_granularity(Duration::from_millis(1))
            .with_multi_snapshot(true)
            .with_ttl_restart(TtlRestart::Deadline),
    );

/// Which file a handle is on, and what the handle goes by there.
///
/// All settings belong to the handle, not to the file. A row that one handle was allowed to write can be read by all.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    pub(crate) path: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) wait: Duration,
    pub(crate) readers_max: NonZeroUsize,
    pub(crate) in_flight_max: NonZeroUsize,
    pub(crate) exclusive: bool,
    pub(crate) caps: Caps,
}

impl SqliteConfig {
    /// The file at `path`, which is created where it is missing; its folder is not.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            clock: Arc::new(SystemClock::default()),
            wait: Duration::from_secs(10),
            readers_max: const { NonZeroUsize::new(4).expect("four is not zero") },
            in_flight_max: const { NonZeroUsize::new(IN_FLIGHT_MAX).expect("it is not zero") },
            exclusive: false,
            caps: CAPS,
        }
    }

    /// The same configuration on the file at `path`.
    #[must_use]
    pub fn with_path(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path, ..self }
    }

    /// The file.
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
    /// `Process` leaves the sync of the log to the operating system: after a loss of power the last writes may be
    /// missing, while the file stays sound. `None` syncs nothing at all: a loss of power may ruin the file. Either is
    /// what the handle declares then.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.caps.durability = durability;
        self
    }

    /// How long a call waits for its turn: for a place in the queue, and for writers on other handles and in other
    /// processes; 10 s by default, and never less than 10 ms, since a call cannot be run without waiting for a thread.
    /// After that it ends as `Timeout`, `NotApplied`.
    #[must_use]
    pub fn with_wait(self, wait: Duration) -> Self {
        let wait = wait.max(WAIT_MIN);
        Self { wait, ..self }
    }

    /// The most threads that read; they are started as they are needed; 4 by default.
    #[must_use]
    pub fn with_readers_max(self, readers_max: NonZeroUsize) -> Self {
        Self {
            readers_max,
            ..self
        }
    }

    /// How many calls may be queued or running on the handle and its clones before further ones wait (C-4); 4,096 by
    /// default.
    #[must_use]
    pub fn with_in_flight_max(mut self, in_flight_max: NonZeroUsize) -> Self {
        self.in_flight_max = in_flight_max;
        self.caps.in_flight_max = Some(in_flight_max.get());
        self
    }

    /// Takes the file over (ST-14): from this open on, every handle that was opened before it, in whatever process
    /// and mode, is refused with `Conflict`. Off by default. Handles that are opened later share the file again.
    #[must_use]
    pub fn with_exclusive(self, exclusive: bool) -> Self {
        Self { exclusive, ..self }
    }

    /// The longest name of a stash collection, in bytes of UTF-8; 1 KiB by default.
    #[must_use]
    pub fn with_stash_name_len_bytes_max(mut self, max: usize) -> Self {
        self.caps.stash.name_len_bytes_max = max;
        self
    }

    /// The longest encoded key, and the longest encoded value, of a stash row; 1 MiB by default.
    #[must_use]
    pub fn with_stash_row_len_bytes_max(mut self, max: usize) -> Self {
        self.caps.stash.row_len_bytes_max = max;
        self
    }

    /// The most rows in one stash update; 1,000,000 by default.
    #[must_use]
    pub fn with_stash_batch_rows_max(mut self, max: usize) -> Self {
        self.caps.stash.batch_rows_max = max;
        self
    }

    /// The longest payload of an object; 16 MiB by default.
    #[must_use]
    pub fn with_payload_len_bytes_max(mut self, max: u64) -> Self {
        self.caps.high_volume.payload_len_bytes_max = max;
        self
    }

    /// The longest text form of an object id, be it a row's or a redirect's target; 2 KiB by default.
    #[must_use]
    pub fn with_id_len_bytes_max(mut self, max: usize) -> Self {
        self.caps.high_volume.id_len_bytes_max = max;
        self
    }

    /// The longest key of `KvClient`; 64 KiB by default.
    #[must_use]
    pub fn with_kv_key_len_bytes_max(mut self, max: usize) -> Self {
        self.caps.kv_client.key_len_bytes_max = max;
        self
    }

    /// The longest value of `KvClient`; 16 MiB by default.
    #[must_use]
    pub fn with_kv_value_len_bytes_max(mut self, max: usize) -> Self {
        self.caps.kv_client.value_len_bytes_max = max;
        self
    }

    /// What handles with this configuration declare.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.caps
    }
}
