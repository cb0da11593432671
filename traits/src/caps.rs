//! What a backend declares of itself where a contract leaves it the choice.
//!
//! A declaration is a promise that the suite holds a backend to, in both directions: what is declared works, and what
//! is not declared answers `Unsupported` or shows the weaker behaviour that the clause states. Start from
//! [`Caps::LEAST`] and add:
//!
//! ```
//! use larder_traits::{BlobMultiCaps, Caps, Durability, LateLanding};
//!
//! const CAPS: Caps = Caps::LEAST
//!     .with_durability(Durability::Power)
//!     .with_late_landing(LateLanding::Fenced)
//!     .with_blob_multi(BlobMultiCaps::LEAST.with_list_snapshot(true));
//! assert!(CAPS.durability >= Durability::Process);
//! ```

use std::time::Duration;

/// What an acknowledged write survives (BM-9, ST-13, BS-3, BK-4, KV-9). A later variant includes the earlier ones.
#[expect(
    clippy::exhaustive_enums,
    reason = "these are the losses that a clause names"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Nothing: it lives as long as the process.
    None,
    /// The loss of the process.
    Process,
    /// The loss of power.
    Power,
}

/// Whether a call that was dropped, or ended `Unknown`, may still take effect after a later acknowledged call
/// (C-6, BM-12).
#[expect(
    clippy::exhaustive_enums,
    reason = "these are the three values that the clause names"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LateLanding {
    /// Never: the later call wins for good.
    Fenced,
    /// It may, and within the bound if there is one.
    MayLandLate(Option<Duration>),
}

/// Who decides that an entry has expired (C-5).
#[expect(
    clippy::exhaustive_enums,
    reason = "these are the two values that the clause names"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClockSource {
    /// This side, by the [`Clock`](crate::Clock) given at construction.
    Injected,
    /// The server, by its own clock, within so much of what other handles see.
    Server {
        /// How far two handles may disagree on what has expired.
        skew: Duration,
    },
}

/// What becomes of a time to live when the store is closed and opened again (KV-9).
#[expect(
    clippy::exhaustive_enums,
    reason = "these are the two values that the clause names"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TtlRestart {
    /// It is an absolute deadline and runs on.
    Deadline,
    /// It starts anew.
    Restarts,
}

/// The least that may be declared as the longest value or payload (C-4). Below it a store could not be told from one
/// that refuses everything.
pub const VALUE_LEN_BYTES_LEAST: usize = 256 << 10;

macro_rules! caps {
    (
        $(#[$doc:meta])*
        pub struct $name:ident {
            $($(#[$field_doc:meta])* $field:ident / $with:ident : $ty:ty = $least:expr,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $ty,)+
        }

        impl $name {
            /// The least that can be declared.
            pub const LEAST: Self = Self { $($field: $least,)+ };

            $(
                $(#[$field_doc])*
                #[must_use]
                pub const fn $with(mut self, $field: $ty) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

caps! {
    /// What a backend declares: for all its contracts, and for each. Sections of contracts that it does not offer mean
    /// nothing.
    pub struct Caps {
        /// What an acknowledged write survives.
        durability / with_durability: Durability = Durability::None,
        /// Whether an abandoned write may land late.
        late_landing / with_late_landing: LateLanding = LateLanding::MayLandLate(None),
        /// Who decides expiry.
        clock / with_clock: ClockSource = ClockSource::Injected,
        /// How many calls may be in flight on one handle before further ones wait (C-4); `None` where nothing is bounded.
        in_flight_max / with_in_flight_max: Option<usize> = None,
        /// `BlobMulti`.
        blob_multi / with_blob_multi: BlobMultiCaps = BlobMultiCaps::LEAST,
        /// `Stash`.
        stash / with_stash: StashCaps = StashCaps::LEAST,
        /// `BlobStore`.
        blob_store / with_blob_store: BlobStoreCaps = BlobStoreCaps::LEAST,
        /// `Backend` and `HighVolumeBackend`.
        high_volume / with_high_volume: HighVolumeCaps = HighVolumeCaps::LEAST,
        /// `KvClient`.
        kv_client / with_kv_client: KvCaps = KvCaps::LEAST,
    }
}

caps! {
    /// What a [`BlobMulti`](crate::BlobMulti) declares.
    pub struct BlobMultiCaps {
        /// The longest key, in bytes of UTF-8; at least 255 and at most 1,024 (BM-10).
        key_len_bytes_max / with_key_len_bytes_max: usize = crate::blob_multi::BASE_KEY_LEN_BYTES_MAX,
        /// The longest value; at least [`VALUE_LEN_BYTES_LEAST`] (BM-11).
        value_len_bytes_max / with_value_len_bytes_max: u64 = 1 << 20,
        /// Whether `list_keys` answers with one snapshot of all keys (BM-6).
        list_snapshot / with_list_snapshot: bool = false,
    }
}

caps! {
    /// What a [`Stash`](crate::Stash) declares.
    pub struct StashCaps {
        /// Whether a whole batch applies or none of it (ST-12).
        batch_atomic / with_batch_atomic: bool = false,
        /// Whether the store can be opened in the mode that fences older writers (ST-14).
        exclusive / with_exclusive: bool = false,
        /// The longest name of a collection, in bytes of UTF-8; at least 32 (C-4).
        name_len_bytes_max / with_name_len_bytes_max: usize = 255,
        /// The longest encoded key, and the longest encoded value; at least 1,024 (C-4).
        row_len_bytes_max / with_row_len_bytes_max: usize = 1 << 16,
        /// The most rows in one update; at least 100 (C-4).
        batch_rows_max / with_batch_rows_max: usize = 10_000,
    }
}

caps! {
    /// What a [`BlobStore`](crate::BlobStore) declares.
    pub struct BlobStoreCaps {
        /// Whether the place can be open once only, a second opener being refused (BS-14). Durable stores are.
        exclusive / with_exclusive: bool = false,
    }
}

caps! {
    /// What a [`Backend`](crate::Backend) and a [`HighVolumeBackend`](crate::HighVolumeBackend) declare.
    pub struct HighVolumeCaps {
        /// The longest payload; at least [`VALUE_LEN_BYTES_LEAST`] (C-4): of a row for a high-volume backend, of an object for a plain one.
        payload_len_bytes_max / with_payload_len_bytes_max: u64 = 1 << 20,
        /// The longest text form of an object id, in bytes; at least 256 (C-4).
        id_len_bytes_max / with_id_len_bytes_max: usize = 512,
        /// Whether `fence` works (HV-6).
        fence / with_fence: bool = false,
        /// Whether `extend_expiry` works (HV-8).
        extend_expiry / with_extend_expiry: bool = false,
    }
}

caps! {
    /// What a [`KvClient`](crate::KvClient) declares.
    pub struct KvCaps {
        /// Whether the empty key is a key like any other; if not, it is `InvalidInput` (KV-2).
        empty_key / with_empty_key: bool = false,
        /// The longest key, in bytes; at least 64 (C-4).
        key_len_bytes_max / with_key_len_bytes_max: usize = 1024,
        /// The longest value; at least [`VALUE_LEN_BYTES_LEAST`] (C-4).
        value_len_bytes_max / with_value_len_bytes_max: usize = 1 << 20,
        /// How long after its time to live an entry may still show (KV-3).
        ttl_granularity / with_ttl_granularity: Duration = Duration::from_secs(1),
        /// Whether `get_multi` answers with one snapshot of all its keys (KV-5).
        multi_snapshot / with_multi_snapshot: bool = false,
        /// What a restart does to a time to live (KV-9).
        ttl_restart / with_ttl_restart: TtlRestart = TtlRestart::Restarts,
    }
}
