//! Five storage contracts, and the words they are spoken in.
//!
//! This crate is what a backend implements and an application programs against. It contains no runtime, no I/O and
//! no backend; the one clock that it reads is [`SystemClock`]. Every guarantee in its docs carries the id of the clause
//! that states it, such as BM-4, and `larder-conformance` has a check for each.
//!
//! | contract | what it is | taken from |
//! |---|---|---|
//! | [`BlobMulti`] | linearizable blobs with deadlines | Materialize's persistence layer |
//! | [`Stash`] | durable, small, time-varying collections | Materialize's catalog |
//! | [`BlobStore`] | fixed frames for a page cache, synchronous | holt |
//! | [`Backend`], [`HighVolumeBackend`] | streamed objects; small objects and redirects | Sentry's objectstore |
//! | [`KvClient`] | linearizable key-value with time to live | d-engine |
//!
//! The signatures are theirs, so that code written against one of those systems finds its feet here; the words and
//! the code are not.
//!
//! # Common to all
//!
//! * **Every error answers two questions** (C-1): its [`ErrorKind`], and its [`Outcome`], which says whether the call
//!   may have had an effect. See [`Classify`].
//! * **Opening a place twice is normal** (C-2): every handle sees what the others did. A medium that must be exclusive
//!   says so and refuses.
//! * **Nothing panics** on input, on a medium's answer or on a corrupt file (C-3).
//! * **Bounds are declared** (C-4), and above one the answer is `InvalidInput` before any effect. See [`Caps`].
//! * **Wall time is injected** (C-5): see [`Clock`]. Deadlines of calls are [`std::time::Instant`].
//! * **Every future may be dropped** at any await (C-6): the store stays usable, nothing leaks, no value is torn, and
//!   the dropped call's outcome is `Unknown`.
//!
//! # For implementors
//!
//! [`BlobMulti`], [`BlobStore`], [`Backend`] and [`HighVolumeBackend`] are object-safe and implemented directly.
//! `Stash` and `KvClient` have generic methods; implement [`StashDriver`] and [`KvDriver`] beneath them, and a blanket
//! impl does the rest. A provided method may be slower than one of your own, but never weaker.

pub mod backend;
pub mod blob_multi;
pub mod blob_store;
pub mod caps;
pub mod change_log;
pub mod clock;
pub mod contract;
pub mod error;
pub mod frame;
pub mod frontier;
pub mod high_volume;
pub mod kv_client;
pub mod object;
pub mod stash;

pub use backend::{
    Backend, BackendError, ClientError, ClientStream, GetResponse, ObjectListing, ObjectPage,
    PayloadStream,
};
pub use blob_multi::{Atomicity, BlobInfo, BlobMulti, ExternalError};
pub use blob_store::{BlobGuid, BlobStore, BlobStoreError};
pub use caps::{
    BlobMultiCaps, BlobStoreCaps, Caps, ClockSource, Durability, HighVolumeCaps, KvCaps,
    LateLanding, StashCaps, TtlRestart,
};
pub use change_log::{Change, ChangeId, ChangeLog, Step, WriterId};
pub use clock::{Clock, SystemClock, TestClock};
pub use contract::Contract;
pub use error::{Classify, ErrorKind, Fault, Outcome};
pub use frame::{AlignedBlobBuf, FRAME_ALIGN, Frame, FrameHome, FramePool, PAGE_SIZE};
pub use frontier::{Antichain, AntichainRef};
pub use high_volume::{HighVolumeBackend, TieredGet, TieredMetadata, TieredWrite};
pub use kv_client::{KvClient, KvClientError, KvDriver};
pub use object::{
    Compression, ExpirationPolicy, Metadata, ObjectContext, ObjectId, Scope, Tombstone,
};
pub use stash::{
    Append, AppendTo, CollectionId, Data, Diff, Stash, StashCollection, StashDriver,
    StashDriverExt, StashError, Timestamp,
};
