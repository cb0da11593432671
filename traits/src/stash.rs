//! `Stash`: durable, small, time-varying collections.
//!
//! A collection is a multiset of updates `((key, value), time, diff)` with two frontiers, `since <= upper`. Times
//! before `upper` are sealed: no update at such a time can be added any more. Times before `since` are compacted:
//! their updates can no longer be told apart and read as if they had happened at `since`. Think of megabytes, not of
//! gigabytes.
//!
//! [`Stash`] has generic methods, so it cannot be a trait object. Backends implement [`StashDriver`] instead, which
//! knows bytes only and can be one, and every driver is a `Stash`, also behind a box or an `Arc`. What goes beyond
//! the original trait and could not be atomic on top of it is in [`StashDriverExt`]. Implement `Stash` itself only
//! for a wrapper around another `Stash`.
//!
//! The trait is the interface of Materialize's former crate for its durable metadata, method by method.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;

use async_trait::async_trait;

use crate::frontier::{Antichain, AntichainRef};

pub use append::{Append, AppendTo, StashDriverExt};
pub use collection::{CollectionId, Data, StashCollection};
pub use driver::{Frontiers, RawRow, Rows, Snapshot, StashDriver, StashOp};
pub use error::StashError;

mod append;
mod blanket;
pub mod codec;
mod collection;
pub mod driver;
mod error;
mod rows;
#[cfg(test)]
mod tests;

/// A point in a collection's time. What it counts is the caller's affair.
pub type Timestamp = i64;

/// By how much an update changes the multiplicity of a `(key, value)` pair. Any number, also 0 and negative ones.
pub type Diff = i64;

/// How often the provided peeks start over when compactions keep overtaking them.
const PEEK_ATTEMPTS_MAX: u32 = 16;

/// A durable store of any number of named collections.
///
/// Every method may fail with an error of the medium ([`StashError::Backend`]), of whatever kind and outcome, with
/// [`StashError::Fenced`] if the stash was opened exclusively and a newer writer took over (ST-14), and with
/// [`StashError::NoCollection`] if the handle's collection was dropped. The refusals named at each method had no
/// effect.
///
/// # Atomicity
///
/// Every single call is atomic, also across a crash (ST-13). A batch is atomic per item (ST-12).
///
/// # Durability
///
/// A change that was answered with `Ok` survives the loss of the process, and of power, as far as the backend
/// declares it (ST-13).
///
/// # Consistency
///
/// Handles of one place may interleave freely: nothing is lost or doubled (ST-14).
///
/// # Cancel safety
///
/// A dropped call leaves the stash usable; its outcome is unknown (C-6).
///
/// # Not a trait object
///
/// ```compile_fail,E0038
/// fn refused(_: &dyn larder_traits::stash::Stash) {}
/// ```
///
/// Use a driver:
///
/// ```
/// use larder_traits::stash::{Stash, StashDriver};
///
/// fn is_a_stash<S: Stash>() {}
/// is_a_stash::<Box<dyn StashDriver>>();
/// ```
#[async_trait]
pub trait Stash: Debug + Send {
    /// Loads or creates the collection of this name (ST-1).
    ///
    /// A new one has no rows and both frontiers at `i64::MIN`. The same name is the same collection on every handle;
    /// callers that race to create it get the same one. `K` and `V` have to stay the same types, or later shapes of
    /// `V`, for as long as the collection lives (ST-2).
    ///
    /// # Errors
    ///
    /// Kind `InvalidInput`: the name is longer than the backend's bound (C-4).
    async fn collection<K, V>(&mut self, name: &str) -> Result<StashCollection<K, V>, StashError>
    where
        K: Data,
        V: Data;

    /// All rows, in the order of `(key, value, time)` (ST-3).
    ///
    /// Times are advanced to at least `since`. Equal `(key, value, time)` are summed and zero sums left out; negative
    /// sums are shown. Rows that are not sealed yet are among them.
    ///
    /// # Consistency
    ///
    /// The rows are those of one moment.
    ///
    /// # Errors
    ///
    /// [`StashError::SinceEmpty`], [`StashError::DiffOverflow`], [`StashError::Codec`] (a row that does not decode).
    async fn iter<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Vec<((K, V), Timestamp, Diff)>, StashError>
    where
        K: Data,
        V: Data;

    /// The rows of one key, in the order of `(value, time)`; none if the key is unknown (ST-4).
    ///
    /// Otherwise like [`iter`](Self::iter). The cost follows the key's rows, not those of the collection.
    ///
    /// # Errors
    ///
    /// Those of [`iter`](Self::iter), and [`StashError::Codec`] for a key that does not encode.
    async fn iter_key<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
        key: &K,
    ) -> Result<Vec<(V, Timestamp, Diff)>, StashError>
    where
        K: Data,
        V: Data;

    /// Adds updates, all or none (ST-5). No updates at all is `Ok`.
    ///
    /// Sums are exact, whatever they pass through on the way; one that does not fit 64 bits in the end is an error
    /// when it is read or consolidated.
    ///
    /// # Durability
    ///
    /// After `Ok` the updates are durable (ST-5).
    ///
    /// # Errors
    ///
    /// [`StashError::TimeBeforeUpper`] if any time lies before `upper`; [`StashError::Codec`] for a row that does
    /// not encode; kind `InvalidInput` above the backend's bounds (C-4). After an error of outcome `Unknown` a
    /// repetition may add the updates twice: look first, or use [`StashDriverExt::append`], which compares `upper`.
    async fn update_many<K, V, I>(
        &mut self,
        collection: StashCollection<K, V>,
        entries: I,
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
        I: IntoIterator<Item = ((K, V), Timestamp, Diff)> + Send,
        I::IntoIter: Send;

    /// Advances `upper`: all times before it are final (ST-6).
    ///
    /// The same frontier again changes nothing. The empty one seals for ever. Rows are not touched.
    ///
    /// # Errors
    ///
    /// [`StashError::SealBeforeUpper`].
    async fn seal<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
        upper: AntichainRef<'_, Timestamp>,
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data;

    /// Advances `since`: rows before it read from now on as if they had happened at it (ST-7).
    ///
    /// Logical only; [`consolidate`](Self::consolidate) is what frees space. The same frontier again changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`StashError::CompactBeforeSince`], [`StashError::CompactPastUpper`].
    async fn compact<'a, K, V>(
        &'a mut self,
        collection: StashCollection<K, V>,
        since: AntichainRef<'a, Timestamp>,
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data;

    /// Physically merges the rows with times up to `since` (ST-8). With an empty `since` all rows go.
    ///
    /// # Consistency
    ///
    /// Never changes what any read answers. Twice is the same as once.
    ///
    /// # Errors
    ///
    /// [`StashError::DiffOverflow`].
    async fn consolidate<'a, K, V>(
        &'a mut self,
        collection: StashCollection<K, V>,
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data;

    /// How far the collection is compacted (ST-9).
    ///
    /// # Errors
    ///
    /// Only those of the trait.
    async fn since<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Antichain<Timestamp>, StashError>
    where
        K: Data,
        V: Data;

    /// How far the collection is sealed (ST-9).
    ///
    /// # Errors
    ///
    /// Only those of the trait.
    async fn upper<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Antichain<Timestamp>, StashError>
    where
        K: Data,
        V: Data;

    /// The last sealed time: `upper - 1`, or `i64::MAX` if `upper` is empty (ST-10).
    ///
    /// # Errors
    ///
    /// [`StashError::NothingSealed`] unless `since < upper`, so also for a new collection. Kind `Unavailable` if
    /// other handles kept moving the frontiers.
    async fn peek_timestamp<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Timestamp, StashError>
    where
        K: Data,
        V: Data,
    {
        for _ in 0..PEEK_ATTEMPTS_MAX {
            let since_before = self.since(collection).await?;
            let upper = self.upper(collection).await?;
            let since = self.since(collection).await?;
            // `since` only grows. If its later value lies before `upper`, so did the one of the moment between; if
            // its earlier value does not, neither did that one. Otherwise it moved meanwhile: look again.
            if since < upper || since_before >= upper {
                return Frontiers { since, upper }.peek_timestamp();
            }
        }
        Err(rows::overtaken())
    }

    /// The sealed contents: what is there at [`peek_timestamp`](Self::peek_timestamp), in the order of
    /// `(key, value)`, summed over time, without zero sums (ST-11).
    ///
    /// # Consistency
    ///
    /// One snapshot, whatever other handles write meanwhile (ST-11).
    ///
    /// # Errors
    ///
    /// Those of [`peek_timestamp`](Self::peek_timestamp) and of [`iter`](Self::iter).
    async fn peek<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Vec<(K, V, Diff)>, StashError>
    where
        K: Data,
        V: Data,
    {
        for _ in 0..PEEK_ATTEMPTS_MAX {
            let at = self.peek_timestamp(collection).await?;
            let all = self.iter(collection).await?;
            // Sealed rows change by compaction alone. If that has not gone past `at`, the rows up to it are those
            // of `at`.
            if self.since(collection).await?.less_equal(&at) {
                return rows::sealed_at(at, all).map(rows::flat);
            }
        }
        Err(rows::overtaken())
    }

    /// The sealed contents as a map from keys to their one value (ST-11).
    ///
    /// # Consistency
    ///
    /// As for [`peek`](Self::peek).
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek), [`StashError::DuplicateKey`], [`StashError::UnexpectedMultiplicity`].
    async fn peek_one<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<BTreeMap<K, V>, StashError>
    where
        K: Data + Hash,
        V: Data,
    {
        rows::one_value_each(self.peek(collection).await?)
    }

    /// The one sealed value of a key, or `None` if the key is absent (ST-11).
    ///
    /// # Consistency
    ///
    /// As for [`peek`](Self::peek).
    ///
    /// # Errors
    ///
    /// Those of [`peek_timestamp`](Self::peek_timestamp) and of [`iter_key`](Self::iter_key),
    /// [`StashError::DuplicateKey`], [`StashError::UnexpectedMultiplicity`].
    async fn peek_key_one<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
        key: &K,
    ) -> Result<Option<V>, StashError>
    where
        K: Data,
        V: Data,
    {
        for _ in 0..PEEK_ATTEMPTS_MAX {
            let at = self.peek_timestamp(collection).await?;
            let all = self.iter_key(collection, key).await?;
            if self.since(collection).await?.less_equal(&at) {
                return rows::one_value(rows::sealed_at(at, all)?);
            }
        }
        Err(rows::overtaken())
    }

    /// Adds one update (ST-5); [`update_many`](Self::update_many) with one entry.
    ///
    /// # Durability
    ///
    /// After `Ok` the update is durable (ST-5).
    ///
    /// # Errors
    ///
    /// Those of [`update_many`](Self::update_many).
    async fn update<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
        data: (K, V),
        time: Timestamp,
        diff: Diff,
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
    {
        self.update_many(collection, [(data, time, diff)]).await
    }

    /// Seals several collections, as if one after the other (ST-12). An empty batch is `Ok`.
    ///
    /// # Atomicity
    ///
    /// Each item by itself. After an error the items before it may have been applied, unless the backend declares
    /// whole batches to be atomic. Every [`StashDriver`] that commits transactions makes them so.
    ///
    /// # Errors
    ///
    /// Those of [`seal`](Self::seal) for the item that failed. If the items before it took effect, the error is a
    /// [`StashError::Backend`] of that kind and of outcome `Unknown`, and the item's own error is its source.
    async fn seal_batch<K, V>(
        &mut self,
        seals: &[(StashCollection<K, V>, Antichain<Timestamp>)],
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
    {
        for (index, (collection, upper)) in seals.iter().enumerate() {
            let sealed = self.seal(*collection, upper.borrow()).await;
            sealed.map_err(|e| rows::after_items(index, e))?;
        }
        Ok(())
    }

    /// Compacts several collections, as if one after the other (ST-12). An empty batch is `Ok`.
    ///
    /// # Atomicity
    ///
    /// As for [`seal_batch`](Self::seal_batch).
    ///
    /// # Errors
    ///
    /// Those of [`compact`](Self::compact), in the way of [`seal_batch`](Self::seal_batch).
    async fn compact_batch<K, V>(
        &mut self,
        compactions: &[(StashCollection<K, V>, Antichain<Timestamp>)],
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
    {
        for (index, (collection, since)) in compactions.iter().enumerate() {
            let compacted = self.compact(*collection, since.borrow()).await;
            compacted.map_err(|e| rows::after_items(index, e))?;
        }
        Ok(())
    }

    /// Consolidates several collections, as if one after the other (ST-12). An empty batch is `Ok`.
    ///
    /// # Atomicity
    ///
    /// As for [`seal_batch`](Self::seal_batch).
    ///
    /// # Errors
    ///
    /// Those of [`consolidate`](Self::consolidate), in the way of [`seal_batch`](Self::seal_batch).
    async fn consolidate_batch<K, V>(
        &mut self,
        collections: &[StashCollection<K, V>],
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
    {
        for (index, collection) in collections.iter().enumerate() {
            let consolidated = self.consolidate(*collection).await;
            consolidated.map_err(|e| rows::after_items(index, e))?;
        }
        Ok(())
    }
}
