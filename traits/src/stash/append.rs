//! What goes beyond the original trait: appends across collections, dropping and listing them.
//!
//! These are methods of the driver beneath, because a body on top of [`Stash`](super::Stash) could not be atomic.

use std::marker::PhantomData;

use async_trait::async_trait;

use super::blanket::{commit_some, encode_rows};
use super::{
    CollectionId, Data, Diff, RawRow, StashCollection, StashDriver, StashError, StashOp, Timestamp,
};
use crate::frontier::Antichain;

/// One transaction over any number of collections, whatever their types.
///
/// ```
/// use larder_traits::frontier::Antichain;
/// use larder_traits::stash::{Append, StashCollection, StashDriver, StashDriverExt, StashError};
///
/// async fn rename(
///     stash: &dyn StashDriver,
///     names: StashCollection<u64, String>,
///     history: StashCollection<String, u64>,
/// ) -> Result<(), StashError> {
///     let mut append = Append::new();
///     append
///         .collection(names)
///         .expect_upper(Antichain::from_elem(5))
///         .update([((7, "old".into()), 5, -1), ((7, "new".into()), 5, 1)])?
///         .seal(Antichain::from_elem(6));
///     append
///         .collection(history)
///         .update([(("old".into(), 7), 5, 1)])?;
///     stash.append(append).await
/// }
/// # let _ = rename;
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "an append does nothing until it is given to `StashDriverExt::append`"]
pub struct Append {
    items: Vec<Item>,
}

#[derive(Clone, Debug)]
struct Item {
    id: CollectionId,
    expect_upper: Option<Antichain<Timestamp>>,
    rows: Vec<RawRow>,
    seal: Option<Antichain<Timestamp>>,
    compact: Option<Antichain<Timestamp>>,
}

impl Append {
    /// An append of nothing.
    pub const fn new() -> Self {
        Self { items: Vec::new() }
    }

    /// Adds an item for this collection and returns it to be filled. Items are applied in the order in which they
    /// were added; a second one for the same collection sees what the first one did.
    pub fn collection<K: Data, V: Data>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> AppendTo<'_, K, V> {
        let item = self.items.push_mut(Item {
            id: collection.id(),
            expect_upper: None,
            rows: Vec::new(),
            seal: None,
            compact: None,
        });
        AppendTo {
            item,
            types: PhantomData,
        }
    }

    /// The steps of the commit: for each item `[ExpectUpper, Update, Seal, Compact]`, as far as it has them.
    ///
    /// An item of none of them becomes an update without rows, which checks that the collection is there.
    #[must_use]
    pub fn into_ops(self) -> Vec<StashOp> {
        let mut ops = Vec::with_capacity(self.items.len() * 4);
        for Item {
            id,
            expect_upper,
            rows,
            seal,
            compact,
        } in self.items
        {
            let expect_upper = expect_upper.map(|upper| StashOp::ExpectUpper { id, upper });
            let seal = seal.map(|upper| StashOp::Seal { id, upper });
            let compact = compact.map(|since| StashOp::Compact { id, since });
            let others = expect_upper.is_some() || seal.is_some() || compact.is_some();
            let update = (!rows.is_empty() || !others).then_some(StashOp::Update { id, rows });
            ops.extend([expect_upper, update, seal, compact].into_iter().flatten());
        }
        ops
    }
}

/// One item of an [`Append`]. In whichever order its parts are named, they are applied in this one: compare
/// `upper`, write, seal, compact.
#[derive(Debug)]
pub struct AppendTo<'a, K, V> {
    item: &'a mut Item,
    types: PhantomData<fn(K, V)>,
}

impl<K: Data, V: Data> AppendTo<'_, K, V> {
    /// Refuses the whole append unless the upper frontier is exactly this. It is what makes a repetition after an
    /// error of outcome `Unknown` safe, if the append also seals.
    pub fn expect_upper(&mut self, upper: Antichain<Timestamp>) -> &mut Self {
        self.item.expect_upper = Some(upper);
        self
    }

    /// Adds updates, to those already added (ST-5).
    ///
    /// # Errors
    ///
    /// [`StashError::Codec`] of kind `InvalidInput` for a row that does not encode; then none of this call's
    /// updates are in the append.
    pub fn update(
        &mut self,
        entries: impl IntoIterator<Item = ((K, V), Timestamp, Diff)>,
    ) -> Result<&mut Self, StashError> {
        let rows = encode_rows(entries)?;
        self.item.rows.extend(rows);
        Ok(self)
    }

    /// Advances `upper` after the updates (ST-6). The last call counts.
    pub fn seal(&mut self, upper: Antichain<Timestamp>) -> &mut Self {
        self.item.seal = Some(upper);
        self
    }

    /// Advances `since` after the seal (ST-7). The last call counts.
    pub fn compact(&mut self, since: Antichain<Timestamp>) -> &mut Self {
        self.item.compact = Some(since);
        self
    }
}

/// What every driver can do beyond [`Stash`](super::Stash).
#[async_trait]
pub trait StashDriverExt: StashDriver {
    /// Compares, writes, seals and compacts in one transaction. An append of nothing is `Ok`.
    ///
    /// # Atomicity
    ///
    /// All of it or nothing, over all its collections, as far as the backend declares atomic batches (ST-12).
    ///
    /// # Durability
    ///
    /// After `Ok` everything is durable (ST-5).
    ///
    /// # Errors
    ///
    /// [`StashError::UpperMismatch`] and the refusals of `update_many`, `seal` and `compact`, all of outcome
    /// `NotApplied`. After `Unknown`, repeat an append that expects an upper frontier and seals beyond it: if the
    /// first one took effect, the answer is `UpperMismatch`.
    async fn append(&self, append: Append) -> Result<(), StashError> {
        commit_some(self, append.into_ops()).await
    }

    /// Drops a collection with all its rows; `false` if there is none of this name.
    ///
    /// Its id is never used again: handles that are still around get [`StashError::NoCollection`], also when a new
    /// collection of this name is created.
    ///
    /// # Durability
    ///
    /// After `Ok` it does not come back.
    ///
    /// # Errors
    ///
    /// Only those of the medium.
    async fn drop_collection(&self, name: &str) -> Result<bool, StashError> {
        self.discard(name).await
    }

    /// All collections with their ids, sorted by name.
    ///
    /// # Errors
    ///
    /// Only those of the medium.
    async fn collections(&self) -> Result<Vec<(String, CollectionId)>, StashError> {
        let mut names = self.names().await?;
        names.sort();
        Ok(names)
    }
}

impl<D: StashDriver + ?Sized> StashDriverExt for D {}
