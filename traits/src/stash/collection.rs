//! What a collection holds, and what names it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What keys and values have to be (ST-2). Implemented by every type that is all of this.
///
/// Rows are stored in a format that describes itself ([`codec`](super::codec)). Three things are expected of the type:
///
/// * *Values may evolve*: adding a field that has a serde default, removing one or moving one still reads old rows.
/// * *Keys encode canonically*: `a == b` exactly when the encodings are equal. So keys hold nothing whose order of
///   iteration is left to chance, and a key type does not grow fields: rows are found by the key's bytes, and those
///   would be others.
/// * *`Ord` is the order*: every answer is sorted by it, after decoding.
pub trait Data:
    Ord + Clone + fmt::Debug + Send + Sync + Serialize + DeserializeOwned + 'static
{
}

impl<T: Ord + Clone + fmt::Debug + Send + Sync + Serialize + DeserializeOwned + 'static> Data
    for T
{
}

/// Names one collection within one stash. Given by the driver, and never given again after a drop (ST-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionId(u64);

impl CollectionId {
    /// For drivers: the id with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number that a driver stores.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A handle to one collection: an id and the types of its keys and values.
///
/// It is `Copy`, holds no connection, and stays valid when the stash is closed and opened again (ST-1). Handles of
/// one collection may be used side by side.
pub struct StashCollection<K, V> {
    id: CollectionId,
    // The handle owns no `K` and no `V`, so it may travel wherever it likes.
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> StashCollection<K, V> {
    /// For implementors: the handle of the collection with this id. The types have to be those of its rows.
    #[must_use]
    pub const fn new(id: CollectionId) -> Self {
        Self {
            id,
            types: PhantomData,
        }
    }

    /// The collection's id.
    #[must_use]
    pub const fn id(self) -> CollectionId {
        self.id
    }
}

// All by hand, because a derive would ask the same of `K` and `V`.
impl<K, V> Clone for StashCollection<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for StashCollection<K, V> {}

impl<K, V> PartialEq for StashCollection<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl<K, V> Eq for StashCollection<K, V> {}

impl<K, V> Hash for StashCollection<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl<K, V> fmt::Debug for StashCollection<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StashCollection").field(&self.id.0).finish()
    }
}
