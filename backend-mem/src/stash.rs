//! [`StashDriver`]: for each collection a map from rows to the sums of their differences.
//!
//! Rows of equal bytes are summed as they arrive. So every change of a collection is "add so much to that sum", and
//! what undoes it is the same with the sign turned, which is how a commit that is refused half-way goes back.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::stash::driver::{check_bounds, check_name};
use larder_traits::stash::{
    CollectionId, Diff, Frontiers, RawRow, Rows, Snapshot, StashDriver, StashError, StashOp,
    Timestamp,
};

use crate::native::{MemPlace, lock};

/// The collections of a place; a `Stash` by its driver. A commit is one transaction, whatever is in it (ST-12).
#[derive(Clone, Debug)]
pub struct MemStash(pub(crate) MemPlace);

#[async_trait]
impl StashDriver for MemStash {
    async fn open(&self, name: &str) -> Result<CollectionId, StashError> {
        check_name(name, &self.0.config.caps.stash)?;
        Ok(lock(&self.0.shared.collections).open(name))
    }

    async fn names(&self) -> Result<Vec<(String, CollectionId)>, StashError> {
        let collections = lock(&self.0.shared.collections);
        let names = collections.ids.iter();
        Ok(names.map(|(name, id)| (name.clone(), *id)).collect())
    }

    async fn discard(&self, name: &str) -> Result<bool, StashError> {
        let mut collections = lock(&self.0.shared.collections);
        let Some(id) = collections.ids.remove(name) else {
            return Ok(false);
        };
        collections.by_id.remove(&id);
        Ok(true)
    }

    async fn snapshot(&self, id: CollectionId, rows: Rows<'_>) -> Result<Snapshot, StashError> {
        let collections = lock(&self.0.shared.collections);
        let collection = collections.by_id.get(&id);
        let collection = collection.ok_or(StashError::NoCollection { id })?;
        Ok(Snapshot {
            frontiers: collection.frontiers.clone(),
            rows: collection.rows(rows),
        })
    }

    async fn commit(&self, ops: Vec<StashOp>) -> Result<(), StashError> {
        check_bounds(&ops, &self.0.config.caps.stash)?;
        lock(&self.0.shared.collections).commit(ops)
    }
}

/// All collections of a place.
#[derive(Default)]
pub(crate) struct Collections {
    /// Only grows, so that an id is never given again (ST-1).
    last_id: u64,
    ids: BTreeMap<String, CollectionId>,
    by_id: BTreeMap<CollectionId, Collection>,
}

/// What a commit has done to the collection of that id, in order.
enum Done {
    /// The frontiers were these before.
    Moved(CollectionId, Frontiers),
    /// So much was added to the sum of this row.
    Added(CollectionId, Slot, i128),
}

impl Collections {
    pub(crate) fn row_count(&self) -> usize {
        self.by_id.values().map(|it| it.sums.len()).sum()
    }

    fn open(&mut self, name: &str) -> CollectionId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        self.last_id += 1;
        let id = CollectionId::new(self.last_id);
        self.ids.insert(name.to_owned(), id);
        self.by_id.insert(id, Collection::default());
        id
    }

    fn commit(&mut self, ops: Vec<StashOp>) -> Result<(), StashError> {
        let mut done = Vec::new();
        let all = ops.into_iter().try_for_each(|op| self.apply(op, &mut done));
        if all.is_err() {
            self.undo(done);
        }
        all
    }

    fn apply(&mut self, op: StashOp, done: &mut Vec<Done>) -> Result<(), StashError> {
        let id = op.id();
        let collection = self.by_id.get_mut(&id);
        let collection = collection.ok_or(StashError::NoCollection { id })?;
        done.push(Done::Moved(id, collection.frontiers.clone()));
        collection.frontiers.admit(&op)?;
        let mut add = |collection: &mut Collection, slot: Slot, by| {
            collection.add(slot.clone(), by);
            done.push(Done::Added(id, slot, by));
        };
        match op {
            StashOp::Update { rows, .. } => {
                for RawRow {
                    key,
                    value,
                    time,
                    diff,
                } in rows
                {
                    add(collection, (key, value, time), i128::from(diff));
                }
            }
            StashOp::Consolidate { .. } => {
                for ((key, value, time), sum) in collection.unfolded() {
                    add(collection, (key.clone(), value.clone(), time), -sum);
                    if !collection.frontiers.since.is_empty() {
                        add(collection, (key, value, FOLDED), sum);
                    }
                }
                if collection.overflows > 0 {
                    return Err(StashError::DiffOverflow);
                }
            }
            StashOp::Seal { .. } | StashOp::Compact { .. } | StashOp::ExpectUpper { .. } => {}
        }
        Ok(())
    }

    fn undo(&mut self, done: Vec<Done>) {
        for step in done.into_iter().rev() {
            let (Done::Moved(id, _) | Done::Added(id, ..)) = &step;
            let collection = self.by_id.get_mut(id);
            let collection = collection.expect("a commit creates and drops no collection");
            match step {
                Done::Moved(_, frontiers) => collection.frontiers = frontiers,
                Done::Added(_, slot, by) => collection.add(slot, -by),
            }
        }
    }
}

/// A row without its multiplicity: key, value, time.
type Slot = (Bytes, Bytes, Timestamp);

/// The time under which consolidated rows are stored. They read as if at `since`, as every earlier time does, and need
/// not be touched again when `since` moves on: that is what keeps a consolidation as cheap as what has changed (ST-8).
const FOLDED: Timestamp = Timestamp::MIN;

#[derive(Default)]
struct Collection {
    frontiers: Frontiers,
    /// In 128 bits, so that a sum may pass through anything (ST-5). Never 0.
    sums: BTreeMap<Slot, i128>,
    /// The rows that are not folded, by time: those that `since` has passed are the first.
    by_time: BTreeSet<(Timestamp, Bytes, Bytes)>,
    /// How many sums do not fit 64 bits.
    overflows: usize,
}

impl Collection {
    fn add(&mut self, slot: Slot, by: i128) {
        let old = self.sums.remove(&slot).unwrap_or(0);
        let new = old + by;
        self.overflows += usize::from(Diff::try_from(new).is_err());
        self.overflows -= usize::from(Diff::try_from(old).is_err());
        let (key, value, time) = slot.clone();
        if new == 0 {
            self.by_time.remove(&(time, key, value));
            return;
        }
        if time != FOLDED {
            self.by_time.insert((time, key, value));
        }
        self.sums.insert(slot, new);
    }

    /// The rows that a consolidation has to move, or to remove where `since` is empty (ST-8).
    fn unfolded(&self) -> Vec<(Slot, i128)> {
        let Some(since) = self.frontiers.since.as_option() else {
            return self
                .sums
                .iter()
                .map(|(slot, sum)| (slot.clone(), *sum))
                .collect();
        };
        let passed = self.by_time.iter().take_while(|(time, ..)| time <= since);
        let slots = passed.map(|(time, key, value)| (key.clone(), value.clone(), *time));
        slots
            .map(|slot| {
                let sum = self.sums[&slot];
                (slot, sum)
            })
            .collect()
    }

    fn rows(&self, which: Rows<'_>) -> Vec<RawRow> {
        let mut out = Vec::new();
        match which {
            Rows::None => {}
            Rows::All => self.sums.iter().for_each(|row| self.push(row, &mut out)),
            Rows::Key(key) => {
                let first = (Bytes::copy_from_slice(key), Bytes::new(), Timestamp::MIN);
                let from_key = self.sums.range(first..);
                let of_key = from_key.take_while(|((k, ..), _)| k == key);
                of_key.for_each(|row| self.push(row, &mut out));
            }
        }
        out
    }

    /// A sum beyond 64 bits is told in several rows, and whoever adds them up finds out (ST-5).
    fn push(&self, ((key, value, time), sum): (&Slot, &i128), out: &mut Vec<RawRow>) {
        let since = self.frontiers.since.as_option().copied();
        let mut rest = *sum;
        while rest != 0 {
            let part = rest.clamp(Diff::MIN.into(), Diff::MAX.into());
            rest -= part;
            out.push(RawRow {
                key: key.clone(),
                value: value.clone(),
                time: since.map_or(*time, |since| since.max(*time)),
                diff: Diff::try_from(part).expect("clamped to 64 bits"),
            });
        }
    }
}
