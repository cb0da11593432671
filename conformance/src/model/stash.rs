//! `Stash` as a state machine: lists of updates between two frontiers.
//!
//! Written from the clauses alone. It keeps each update as it came and thinks again at every question, which is slow
//! and has little room for mistakes.

use std::collections::BTreeMap;

use bytes::Bytes;
use larder_traits::stash::{RawRow, StashOp};
use larder_traits::{Antichain, CollectionId, Diff, StashError, Timestamp};

/// An update: a pair, when, and how much.
pub type Update<K, V> = ((K, V), Timestamp, Diff);

/// One collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection<K, V> {
    since: Antichain<Timestamp>,
    upper: Antichain<Timestamp>,
    rows: Vec<Update<K, V>>,
}

impl<K, V> Default for Collection<K, V> {
    fn default() -> Self {
        Self {
            since: Antichain::from_elem(Timestamp::MIN),
            upper: Antichain::from_elem(Timestamp::MIN),
            rows: Vec::new(),
        }
    }
}

/// How far a frontier is, on a line that has room for the empty one behind all times.
fn place(frontier: &Antichain<Timestamp>) -> i128 {
    frontier
        .as_option()
        .map_or(i128::MAX, |time| i128::from(*time))
}

/// Sums over what is equal, sorted, without zeros.
fn sums<T: Ord>(
    rows: impl Iterator<Item = (T, Diff)>,
) -> impl Iterator<Item = Result<(T, Diff), StashError>> {
    let mut sums = BTreeMap::<T, i128>::new();
    for (row, diff) in rows {
        *sums.entry(row).or_default() += i128::from(diff);
    }
    let sums = sums.into_iter().filter(|(_, sum)| *sum != 0);
    sums.map(|(row, sum)| match Diff::try_from(sum) {
        Ok(diff) => Ok((row, diff)),
        Err(_too_large) => Err(StashError::DiffOverflow),
    })
}

/// The one value of a key (ST-11).
fn one<V>(values: Vec<(V, Diff)>) -> Result<Option<V>, StashError> {
    if let Some((_, diff)) = values.iter().find(|(_, diff)| *diff != 1) {
        return Err(StashError::UnexpectedMultiplicity { diff: *diff });
    }
    if values.len() > 1 {
        return Err(StashError::DuplicateKey);
    }
    Ok(values.into_iter().next().map(|(value, _)| value))
}

impl<K: Ord + Clone, V: Ord + Clone> Collection<K, V> {
    /// ST-9
    #[must_use]
    pub fn since(&self) -> &Antichain<Timestamp> {
        &self.since
    }

    /// ST-9
    #[must_use]
    pub fn upper(&self) -> &Antichain<Timestamp> {
        &self.upper
    }

    /// The updates as they are kept at the moment.
    #[must_use]
    pub fn rows(&self) -> &[Update<K, V>] {
        &self.rows
    }

    /// ST-5
    ///
    /// # Errors
    ///
    /// `TimeBeforeUpper`; then nothing was added.
    pub fn update_many(
        &mut self,
        entries: impl IntoIterator<Item = Update<K, V>>,
    ) -> Result<(), StashError> {
        let entries: Vec<_> = entries.into_iter().collect();
        for (_, time, _) in &entries {
            if i128::from(*time) < place(&self.upper) {
                return Err(StashError::TimeBeforeUpper {
                    time: *time,
                    upper: self.upper.clone(),
                });
            }
        }
        self.rows.extend(entries);
        Ok(())
    }

    /// ST-6
    ///
    /// # Errors
    ///
    /// `SealBeforeUpper`
    pub fn seal(&mut self, upper: Antichain<Timestamp>) -> Result<(), StashError> {
        if place(&upper) < place(&self.upper) {
            return Err(StashError::SealBeforeUpper {
                new: upper,
                upper: self.upper.clone(),
            });
        }
        self.upper = upper;
        Ok(())
    }

    /// ST-7
    ///
    /// # Errors
    ///
    /// `CompactBeforeSince`, `CompactPastUpper`
    pub fn compact(&mut self, since: Antichain<Timestamp>) -> Result<(), StashError> {
        if place(&since) < place(&self.since) {
            return Err(StashError::CompactBeforeSince {
                new: since,
                since: self.since.clone(),
            });
        }
        if place(&since) > place(&self.upper) {
            return Err(StashError::CompactPastUpper {
                new: since,
                upper: self.upper.clone(),
            });
        }
        self.since = since;
        Ok(())
    }

    /// ST-8
    ///
    /// # Errors
    ///
    /// `DiffOverflow`
    pub fn consolidate(&mut self) -> Result<(), StashError> {
        let Some(since) = self.since.as_option().copied() else {
            self.rows.clear();
            return Ok(());
        };
        let early = self.rows.iter().filter(|(_, time, _)| *time <= since);
        let folded = sums(early.map(|(pair, _, diff)| (pair.clone(), *diff)));
        let folded: Vec<_> = folded.collect::<Result<_, _>>()?;
        self.rows.retain(|(_, time, _)| *time > since);
        let folded = folded.into_iter().map(|(pair, diff)| (pair, since, diff));
        self.rows.extend(folded);
        Ok(())
    }

    /// Refuses an append unless `upper` is this.
    ///
    /// # Errors
    ///
    /// `UpperMismatch`
    pub fn expect_upper(&self, expected: &Antichain<Timestamp>) -> Result<(), StashError> {
        if place(expected) == place(&self.upper) {
            return Ok(());
        }
        Err(StashError::UpperMismatch {
            expected: expected.clone(),
            upper: self.upper.clone(),
        })
    }

    fn advanced(&self) -> Result<impl Iterator<Item = (&K, &V, Timestamp, Diff)>, StashError> {
        let since = self.since.as_option().copied();
        let since = since.ok_or(StashError::SinceEmpty)?;
        let rows = self.rows.iter();
        Ok(rows.map(move |((key, value), time, diff)| (key, value, (*time).max(since), *diff)))
    }

    /// ST-3
    ///
    /// # Errors
    ///
    /// `SinceEmpty`, `DiffOverflow`
    pub fn iter(&self) -> Result<Vec<Update<K, V>>, StashError> {
        let rows = self.advanced()?;
        sums(rows.map(|(key, value, time, diff)| ((key.clone(), value.clone(), time), diff)))
            .map(|row| row.map(|((key, value, time), diff)| ((key, value), time, diff)))
            .collect()
    }

    /// ST-4
    ///
    /// # Errors
    ///
    /// `SinceEmpty`, `DiffOverflow`
    pub fn iter_key(&self, key: &K) -> Result<Vec<(V, Timestamp, Diff)>, StashError> {
        let rows = self.advanced()?.filter(|(of, ..)| *of == key);
        sums(rows.map(|(_, value, time, diff)| ((value.clone(), time), diff)))
            .map(|row| row.map(|((value, time), diff)| (value, time, diff)))
            .collect()
    }

    /// ST-10
    ///
    /// # Errors
    ///
    /// `NothingSealed`
    pub fn peek_timestamp(&self) -> Result<Timestamp, StashError> {
        if place(&self.since) >= place(&self.upper) {
            return Err(StashError::NothingSealed {
                since: self.since.clone(),
                upper: self.upper.clone(),
            });
        }
        // `upper` lies behind `since`, so it is not the first time of all.
        Ok(match self.upper.as_option() {
            Some(upper) => *upper - 1,
            None => Timestamp::MAX,
        })
    }

    /// ST-11
    ///
    /// # Errors
    ///
    /// `NothingSealed`, `DiffOverflow`
    pub fn peek(&self) -> Result<Vec<(K, V, Diff)>, StashError> {
        let at = self.peek_timestamp()?;
        let sealed = self.rows.iter().filter(|(_, time, _)| *time <= at);
        sums(sealed.map(|(pair, _, diff)| (pair.clone(), *diff)))
            .map(|row| row.map(|((key, value), diff)| (key, value, diff)))
            .collect()
    }

    /// ST-11
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek), `DuplicateKey`, `UnexpectedMultiplicity`
    pub fn peek_one(&self) -> Result<BTreeMap<K, V>, StashError> {
        let mut by_key = BTreeMap::<K, Vec<(V, Diff)>>::new();
        for (key, value, diff) in self.peek()? {
            by_key.entry(key).or_default().push((value, diff));
        }
        let mut answer = BTreeMap::new();
        for (key, values) in by_key {
            if let Some(value) = one(values)? {
                answer.insert(key, value);
            }
        }
        Ok(answer)
    }

    /// ST-11
    ///
    /// # Errors
    ///
    /// Those of [`peek_timestamp`](Self::peek_timestamp), and of [`peek_one`](Self::peek_one) as far as this key is
    /// concerned
    pub fn peek_key_one(&self, key: &K) -> Result<Option<V>, StashError> {
        let at = self.peek_timestamp()?;
        let rows = self.rows.iter();
        let sealed = rows.filter(|((of, _), time, _)| of == key && *time <= at);
        let values = sums(sealed.map(|((_, value), _, diff)| (value.clone(), *diff)));
        one(values.collect::<Result<_, _>>()?)
    }
}

/// A change of one collection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "these are the changes that there are"
)]
pub enum Step<K, V> {
    /// ST-5
    Update(Vec<Update<K, V>>),
    /// ST-6
    Seal(Antichain<Timestamp>),
    /// ST-7
    Compact(Antichain<Timestamp>),
    /// ST-8
    Consolidate,
    /// Nothing, unless `upper` differs.
    ExpectUpper(Antichain<Timestamp>),
}

/// A driver's step; the collection that it is for is told by [`StashOp::id`].
impl From<StashOp> for Step<Bytes, Bytes> {
    fn from(op: StashOp) -> Self {
        match op {
            StashOp::Update { rows, .. } => {
                let update = |row: RawRow| ((row.key, row.value), row.time, row.diff);
                Self::Update(rows.into_iter().map(update).collect())
            }
            StashOp::Seal { upper, .. } => Self::Seal(upper),
            StashOp::Compact { since, .. } => Self::Compact(since),
            StashOp::Consolidate { .. } => Self::Consolidate,
            StashOp::ExpectUpper { upper, .. } => Self::ExpectUpper(upper),
        }
    }
}

/// All collections of one place, of one pair of types; for a driver, both are `Bytes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stashes<K, V> {
    last_id: u64,
    ids: BTreeMap<String, CollectionId>,
    collections: BTreeMap<CollectionId, Collection<K, V>>,
}

impl<K, V> Default for Stashes<K, V> {
    fn default() -> Self {
        Self {
            last_id: 0,
            ids: BTreeMap::new(),
            collections: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Stashes<K, V> {
    /// ST-1: loads or creates.
    pub fn open(&mut self, name: &str) -> CollectionId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        self.last_id += 1;
        let id = CollectionId::new(self.last_id);
        self.ids.insert(name.to_owned(), id);
        self.collections.insert(id, Collection::default());
        id
    }

    /// The id of this name, if there is such a collection.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<CollectionId> {
        self.ids.get(name).copied()
    }

    /// All names, sorted, with their ids.
    pub fn names(&self) -> impl Iterator<Item = (&str, CollectionId)> {
        self.ids.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// Drops a collection; whether there was one. Its id is never given again.
    pub fn discard(&mut self, name: &str) -> bool {
        let id = self.ids.remove(name);
        id.is_some_and(|id| self.collections.remove(&id).is_some())
    }

    /// The collection of this id.
    ///
    /// # Errors
    ///
    /// `NoCollection`
    pub fn get(&self, id: CollectionId) -> Result<&Collection<K, V>, StashError> {
        let found = self.collections.get(&id);
        found.ok_or(StashError::NoCollection { id })
    }

    /// One step, whole or not at all.
    ///
    /// # Errors
    ///
    /// What the step is refused with.
    pub fn apply(&mut self, id: CollectionId, step: Step<K, V>) -> Result<(), StashError> {
        let found = self.collections.get_mut(&id);
        let collection = found.ok_or(StashError::NoCollection { id })?;
        match step {
            Step::Update(rows) => collection.update_many(rows),
            Step::Seal(upper) => collection.seal(upper),
            Step::Compact(since) => collection.compact(since),
            Step::Consolidate => collection.consolidate(),
            Step::ExpectUpper(upper) => collection.expect_upper(&upper),
        }
    }

    /// Steps in order, all or none (ST-12, for a store that declares it, and `append`).
    ///
    /// # Errors
    ///
    /// What the first step that is refused is refused with.
    pub fn commit(
        &mut self,
        steps: impl IntoIterator<Item = (CollectionId, Step<K, V>)>,
    ) -> Result<(), StashError> {
        let mut after = self.clone();
        for (id, step) in steps {
            after.apply(id, step)?;
        }
        *self = after;
        Ok(())
    }
}
