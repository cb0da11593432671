//! What a handle is opened with: which place, whose clock, which bounds.
//!
//! The bounds are kept as the [`Caps`] that declare them, so what is declared and what is enforced is one number.

use std::sync::Arc;
use std::time::Duration;

use larder_traits::blob_multi::KEY_LEN_BYTES_MAX;
use larder_traits::{
    BlobMultiCaps, Caps, Clock, ClockSource, Durability, HighVolumeCaps, KvCaps, LateLanding,
    StashCaps, SystemClock, TtlRestart,
};

/// What is declared for handles with the default bounds; see [`MemConfig::caps`] for others.
pub const CAPS: Caps = Caps::LEAST
    .with_durability(Durability::None)
    .with_late_landing(LateLanding::Fenced)
    .with_clock(ClockSource::Injected)
    .with_blob_multi(
        BlobMultiCaps::LEAST
            .with_key_len_bytes_max(KEY_LEN_BYTES_MAX)
            .with_value_len_bytes_max(64 << 20)
            .with_list_snapshot(true),
    )
    .with_stash(
        StashCaps::LEAST
            .with_batch_atomic(true)
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
            .with_ttl_granularity(Duration::ZERO)
            .with_multi_snapshot(true)
            .with_ttl_restart(TtlRestart::Deadline),
    );

/// Which place a handle is on, and what the handle goes by there.
///
/// Clock and bounds belong to the handle, not to the place: two handles on one place may have different ones. A row
/// that one handle was allowed to write can be read by all.
#[derive(Clone, Debug)]
pub struct MemConfig {
    pub(crate) name: Option<String>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) caps: Caps,
}

impl MemConfig {
    /// A place of its own, shared only by clones of what it is opened as.
    #[must_use]
    pub fn private() -> Self {
        Self {
            name: None,
            clock: Arc::new(SystemClock::default()),
            caps: CAPS,
        }
    }

    /// The place of this name in this process. Any text is a name, and names are compared as they are.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self::private().with_name(name)
    }

    /// The same configuration on the place of this name.
    #[must_use]
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..self
        }
    }

    /// The clock that decides expiry (C-5); the machine's by default.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The longest value of `BlobMulti`; 64 MiB by default.
    #[must_use]
    pub fn with_blob_value_len_bytes_max(mut self, max: u64) -> Self {
        self.caps.blob_multi.value_len_bytes_max = max;
        self
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
