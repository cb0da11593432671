//! The resource: places in memory, and the process-wide registry of the named ones.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use larder_traits::{Caps, ObjectId};

use crate::blob_store::Frames;
use crate::change_log::Changes;
use crate::config::MemConfig;
use crate::high_volume::Row;
use crate::kv_client::Entry;
use crate::stash::Collections;
use crate::{MemBlobMulti, MemBlobStore, MemChangeLog, MemHighVolume, MemKvClient, MemStash};

/// One place, with a world of its own for each contract.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) blobs: Mutex<BTreeMap<String, Bytes>>,
    pub(crate) frames: Mutex<Frames>,
    pub(crate) collections: Mutex<Collections>,
    pub(crate) entries: Mutex<Expiring<Bytes, Entry>>,
    pub(crate) rows: Mutex<Expiring<ObjectId, Row>>,
    pub(crate) changes: Mutex<Changes>,
}

/// The named places that somebody has a handle on. Weak, so that a place lives exactly as long as its handles.
static NAMED: Mutex<BTreeMap<String, Weak<Shared>>> = Mutex::new(BTreeMap::new());

/// A handle on a place, from which those of the single contracts are made.
///
/// All of them are cheap to clone, and a place lives as long as any handle on it.
#[derive(Clone)]
pub struct MemPlace {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Arc<MemConfig>,
}

/// How many things a place holds physically; what a call could see of them may be fewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// Values of `BlobMulti`.
    pub blobs: usize,
    /// Frames of `BlobStore`.
    pub frames: usize,
    /// Rows of all stash collections, merged as far as they are.
    pub stash_rows: usize,
    /// Entries of `KvClient`, expired ones included.
    pub kv_entries: usize,
    /// Objects and redirects, expired ones included.
    pub rows: usize,
    /// Changes in the change log.
    pub changes: usize,
}

impl MemPlace {
    /// Opens the place that `config` names, creating it where nobody holds a handle on it (C-2).
    #[must_use]
    pub fn open(config: MemConfig) -> Self {
        let shared = match &config.name {
            None => Arc::default(),
            Some(name) => named(name),
        };
        Self {
            shared,
            config: Arc::new(config),
        }
    }

    /// What the handles made from this one declare.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.config.caps
    }

    /// How much the place holds at the moment, for tests that look for leaks.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            blobs: lock(&self.shared.blobs).len(),
            frames: lock(&self.shared.frames).len(),
            stash_rows: lock(&self.shared.collections).row_count(),
            kv_entries: lock(&self.shared.entries).len(),
            rows: lock(&self.shared.rows).len(),
            changes: lock(&self.shared.changes).len(),
        }
    }

    /// The place as a `BlobMulti`.
    #[must_use]
    pub fn blob_multi(&self) -> MemBlobMulti {
        MemBlobMulti(self.clone())
    }

    /// The place as a `Stash`.
    #[must_use]
    pub fn stash(&self) -> MemStash {
        MemStash(self.clone())
    }

    /// The place as a `BlobStore`.
    #[must_use]
    pub fn blob_store(&self) -> MemBlobStore {
        MemBlobStore(self.clone())
    }

    /// The place as a `KvClient`.
    #[must_use]
    pub fn kv_client(&self) -> MemKvClient {
        MemKvClient(self.clone())
    }

    /// The place as a `Backend` and `HighVolumeBackend`.
    #[must_use]
    pub fn high_volume(&self) -> MemHighVolume {
        MemHighVolume(self.clone())
    }

    /// The place as a `ChangeLog`.
    #[must_use]
    pub fn change_log(&self) -> MemChangeLog {
        MemChangeLog(self.clone())
    }

    /// The time on this handle's clock. Asked under the lock of the map that it is asked for, so that a call has one
    /// moment and not two.
    pub(crate) fn now(&self) -> SystemTime {
        self.config.clock.now()
    }
}

impl fmt::Debug for MemPlace {
    /// Which place it is, and nothing of what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemPlace")
            .field("name", &self.config.name)
            .finish_non_exhaustive()
    }
}

fn named(name: &str) -> Arc<Shared> {
    let mut places = lock(&NAMED);
    if let Some(shared) = places.get(name).and_then(Weak::upgrade) {
        return shared;
    }
    places.retain(|_, place| place.strong_count() > 0);
    let shared = Arc::default();
    places.insert(name.to_owned(), Arc::downgrade(&shared));
    shared
}

/// Takes a lock that is held for one look or one change, and never over an await.
///
/// Poison means nothing here. The only code of others that runs under a lock is the clock, which is asked before
/// anything is changed, and the freeing of buffers, which does not panic. So a panic leaves every map consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has a deadline, or none.
pub(crate) trait Expires {
    fn deadline(&self) -> Option<SystemTime>;
}

/// How many entries each write looks at in search of expired ones.
const SWEPT_PER_WRITE: usize = 4;

/// A map whose entries end by themselves.
///
/// Whoever meets an expired entry removes it. So expired and absent are the same for every call, and what was seen to
/// be gone stays gone, also if the clock is set back. Entries that nobody asks for again are found by the writes, each
/// of which looks at the next few, round and round: what is left over stays below a fixed share of what is written.
pub(crate) struct Expiring<K, V> {
    entries: BTreeMap<K, V>,
    /// The last entry that was looked at.
    swept: Option<K>,
}

impl<K, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            swept: None,
        }
    }
}

impl<K: Ord + Clone, V: Expires> Expiring<K, V> {
    /// The entry of `key`, if it is there and alive at `now`.
    pub(crate) fn live<Q>(&mut self, key: &Q, now: SystemTime) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        if self.entries.get(key).is_some_and(|it| is_dead(it, now)) {
            self.entries.remove(key);
        }
        self.entries.get_mut(key)
    }

    /// Creates or replaces the entry of `key`; the deadline of the old one goes with it.
    pub(crate) fn put(&mut self, key: K, entry: V, now: SystemTime) {
        self.sweep(now);
        self.entries.insert(key, entry);
    }

    /// Removes the entry of `key`, if there is one.
    pub(crate) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.entries.remove(key);
    }

    /// The entries behind `after`, or from the first one on, dead or alive.
    pub(crate) fn iter_after(&self, after: Option<K>) -> impl Iterator<Item = (&K, &V)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((after, Bound::Unbounded))
    }

    /// How many entries there are, dead or alive.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn sweep(&mut self, now: SystemTime) {
        for _ in 0..SWEPT_PER_WRITE {
            let after = match self.swept.take() {
                Some(key) => Bound::Excluded(key),
                None => Bound::Unbounded,
            };
            // At the end of the map, the next write starts over.
            let Some((key, entry)) = self.entries.range((after, Bound::Unbounded)).next() else {
                return;
            };
            let (key, dead) = (key.clone(), is_dead(entry, now));
            if dead {
                self.entries.remove(&key);
            }
            self.swept = Some(key);
        }
    }
}

/// Dead from the deadline on, not only after it.
fn is_dead(entry: &impl Expires, now: SystemTime) -> bool {
    entry.deadline().is_some_and(|at| at <= now)
}
