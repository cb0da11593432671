//! What a backend implements: a stash of bytes with two verbs.
//!
//! A write is one [`commit`](StashDriver::commit) and a read is one [`snapshot`](StashDriver::snapshot). That is
//! why every operation of [`Stash`](super::Stash) is atomic and every peek one moment: there is nothing in between
//! that could be interrupted. The rules about frontiers exist once, in [`Frontiers::admit`].

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{CollectionId, Diff, StashError, Timestamp, rows};
use crate::frontier::{Antichain, AntichainRef};
use crate::{ErrorKind, Fault, StashCaps};

/// A stash of bytes. Object-safe, and every one of them is a [`Stash`](super::Stash).
///
/// `&self`, so that an `Arc` of a driver can be shared. Its names differ from those of `Stash`, because a type that
/// is both would make equal ones ambiguous.
///
/// # Cancel safety
///
/// A dropped call leaves the driver usable, and a dropped commit is applied whole or not at all (C-6).
#[async_trait]
pub trait StashDriver: Debug + Send + Sync {
    /// Loads or creates the collection of this name (ST-1).
    ///
    /// A new one has no rows and the frontiers [`Frontiers::new`]. Ids are never used again, also after
    /// [`discard`](Self::discard).
    ///
    /// # Atomicity
    ///
    /// Callers that race to create it get one id (ST-1).
    ///
    /// # Errors
    ///
    /// Kind `InvalidInput`: the name is longer than the configured bound (C-4).
    async fn open(&self, name: &str) -> Result<CollectionId, StashError>;

    /// All collections with their ids, in any order.
    ///
    /// # Errors
    ///
    /// Only those of the medium.
    async fn names(&self) -> Result<Vec<(String, CollectionId)>, StashError>;

    /// Drops the collection of this name with all its rows; `false` if there is none.
    ///
    /// # Durability
    ///
    /// After `Ok` it does not come back.
    ///
    /// # Errors
    ///
    /// Only those of the medium.
    async fn discard(&self, name: &str) -> Result<bool, StashError>;

    /// The frontiers, and the rows asked for.
    ///
    /// Rows come as they are stored, in any order, merged or not; their times need not be advanced to `since`.
    ///
    /// # Consistency
    ///
    /// Frontiers and rows are of one moment (ST-11).
    ///
    /// # Errors
    ///
    /// [`StashError::NoCollection`].
    async fn snapshot(&self, id: CollectionId, rows: Rows<'_>) -> Result<Snapshot, StashError>;

    /// Applies all operations, in order, each seeing what those before it did.
    ///
    /// A driver does this within one transaction: read the frontiers of each collection concerned, pass each
    /// operation to [`Frontiers::admit`], carry it out if it was admitted, and write the frontiers back. It adds no
    /// rules of its own but its bounds ([`check_bounds`]).
    ///
    /// # Atomicity
    ///
    /// One transaction: the first operation that is refused undoes all (ST-12). A medium that cannot do that
    /// declares it.
    ///
    /// # Durability
    ///
    /// After `Ok` everything is durable (ST-5). A driver that repeats a commit after a lost answer makes sure that
    /// it is not applied twice (ST-13).
    ///
    /// # Errors
    ///
    /// The refusals of [`Frontiers::admit`], [`StashError::NoCollection`], [`StashError::DiffOverflow`] from a
    /// consolidation; kind `InvalidInput` for rows or batches above the configured bounds (C-4).
    async fn commit(&self, ops: Vec<StashOp>) -> Result<(), StashError>;
}

const _: Option<&dyn StashDriver> = None;

/// Which rows a snapshot shall contain.
#[expect(
    clippy::exhaustive_enums,
    reason = "every driver has to answer each of them"
)]
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// The frontiers alone.
    None,
    /// The rows whose key has exactly these bytes. Found by an index, not by a scan (ST-4).
    Key(&'a [u8]),
    /// All rows.
    All,
}

/// One stored update. Ordered by key, value, time, diff, all of them as bytes or numbers.
#[expect(
    clippy::exhaustive_structs,
    reason = "drivers build and take apart rows"
)]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawRow {
    /// The encoded key.
    pub key: Bytes,
    /// The encoded value.
    pub value: Bytes,
    /// When the update happens.
    pub time: Timestamp,
    /// By how much it changes the multiplicity.
    pub diff: Diff,
}

/// How far a collection is compacted and sealed. `since <= upper`.
#[expect(
    clippy::exhaustive_structs,
    reason = "drivers load and store frontiers"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontiers {
    /// Times before it can no longer be told apart.
    pub since: Antichain<Timestamp>,
    /// Times before it are final.
    pub upper: Antichain<Timestamp>,
}

impl Frontiers {
    /// The frontiers of a new collection: both at `i64::MIN` (ST-1).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            since: Antichain::from_elem(Timestamp::MIN),
            upper: Antichain::from_elem(Timestamp::MIN),
        }
    }

    /// Decides whether an operation is allowed, and moves the frontiers if it seals or compacts.
    ///
    /// Called for each operation of a commit, in order, inside the transaction, with the frontiers of the
    /// operation's collection as they were read there. A refusal leaves the frontiers as they are.
    ///
    /// # Errors
    ///
    /// * `Update`: [`StashError::TimeBeforeUpper`] for the first row that is sealed already (ST-5).
    /// * `Seal`: [`StashError::SealBeforeUpper`] (ST-6).
    /// * `Compact`: [`StashError::CompactBeforeSince`], [`StashError::CompactPastUpper`] (ST-7).
    /// * `ExpectUpper`: [`StashError::UpperMismatch`].
    /// * `Consolidate`: never.
    pub fn admit(&mut self, op: &StashOp) -> Result<(), StashError> {
        match op {
            StashOp::Update { rows, .. } => {
                match rows.iter().find(|row| !self.upper.less_equal(&row.time)) {
                    Some(RawRow { time, .. }) => Err(StashError::TimeBeforeUpper {
                        time: *time,
                        upper: self.upper.clone(),
                    }),
                    None => Ok(()),
                }
            }
            StashOp::Seal { upper: new, .. } if *new < self.upper => {
                Err(StashError::SealBeforeUpper {
                    new: new.clone(),
                    upper: self.upper.clone(),
                })
            }
            StashOp::Seal { upper: new, .. } => {
                self.upper.clone_from(new);
                Ok(())
            }
            StashOp::Compact { since: new, .. } if *new < self.since => {
                Err(StashError::CompactBeforeSince {
                    new: new.clone(),
                    since: self.since.clone(),
                })
            }
            StashOp::Compact { since: new, .. } if *new > self.upper => {
                Err(StashError::CompactPastUpper {
                    new: new.clone(),
                    upper: self.upper.clone(),
                })
            }
            StashOp::Compact { since: new, .. } => {
                self.since.clone_from(new);
                Ok(())
            }
            StashOp::Consolidate { .. } => Ok(()),
            StashOp::ExpectUpper {
                upper: expected, ..
            } if *expected != self.upper => Err(StashError::UpperMismatch {
                expected: expected.clone(),
                upper: self.upper.clone(),
            }),
            StashOp::ExpectUpper { .. } => Ok(()),
        }
    }

    /// The time of a peek (ST-10).
    ///
    /// # Errors
    ///
    /// [`StashError::NothingSealed`] unless `since < upper`.
    pub fn peek_timestamp(&self) -> Result<Timestamp, StashError> {
        let last = match self.upper.as_option() {
            None => Some(Timestamp::MAX),
            Some(upper) => upper.checked_sub(1),
        };
        last.filter(|_| self.since < self.upper)
            .ok_or_else(|| StashError::NothingSealed {
                since: self.since.clone(),
                upper: self.upper.clone(),
            })
    }
}

impl Default for Frontiers {
    fn default() -> Self {
        Self::new()
    }
}

/// What a collection holds at one moment.
#[expect(clippy::exhaustive_structs, reason = "drivers build snapshots")]
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The frontiers.
    pub frontiers: Frontiers,
    /// The rows that were asked for.
    pub rows: Vec<RawRow>,
}

/// One step of a commit. It owns its data, because a driver may carry it out on another thread.
#[expect(clippy::exhaustive_enums, reason = "no driver may skip an operation")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StashOp {
    /// Add these rows. There may be none.
    Update {
        /// The collection.
        id: CollectionId,
        /// What to add.
        rows: Vec<RawRow>,
    },
    /// Move `upper` there.
    Seal {
        /// The collection.
        id: CollectionId,
        /// The new upper frontier.
        upper: Antichain<Timestamp>,
    },
    /// Move `since` there.
    Compact {
        /// The collection.
        id: CollectionId,
        /// The new since frontier.
        since: Antichain<Timestamp>,
    },
    /// Physically merge the rows with times up to `since`; see [`fold`]. The cost has to follow the rows that were
    /// changed or compacted since the last time, not those of the collection (ST-8).
    Consolidate {
        /// The collection.
        id: CollectionId,
    },
    /// Refuse the commit unless `upper` is exactly this.
    ExpectUpper {
        /// The collection.
        id: CollectionId,
        /// The upper frontier that is expected.
        upper: Antichain<Timestamp>,
    },
}

impl StashOp {
    /// The collection that the operation is about.
    #[must_use]
    pub const fn id(&self) -> CollectionId {
        match self {
            Self::Update { id, .. }
            | Self::Seal { id, .. }
            | Self::Compact { id, .. }
            | Self::Consolidate { id }
            | Self::ExpectUpper { id, .. } => *id,
        }
    }
}

/// Merges stored rows physically, for [`StashOp::Consolidate`] (ST-8).
///
/// Advances times to `since`, sums rows of equal bytes and time, drops zero sums, and returns the rest in the order
/// of bytes. With an empty `since` nothing is left. Idempotent, and invisible to every read: rows that are equal
/// only once they are decoded stay apart here and are summed when they are read.
///
/// It may be given a part of a collection's rows, as long as that contains all rows of each key and value in it.
///
/// # Errors
///
/// [`StashError::DiffOverflow`] if a sum does not fit 64 bits.
pub fn fold(
    rows: Vec<RawRow>,
    since: AntichainRef<'_, Timestamp>,
) -> Result<Vec<RawRow>, StashError> {
    let Some(since) = since.as_option() else {
        return Ok(Vec::new());
    };
    let advanced = rows
        .into_iter()
        .map(|row| ((row.key, row.value, row.time.max(*since)), row.diff));
    let folded = rows::consolidate(advanced.collect())?;
    Ok(folded
        .into_iter()
        .map(|((key, value, time), diff)| RawRow {
            key,
            value,
            time,
            diff,
        })
        .collect())
}

/// Refuses a collection's name above the bound (C-4), for [`StashDriver::open`].
///
/// # Errors
///
/// Kind `InvalidInput`, outcome `NotApplied`.
pub fn check_name(name: &str, caps: &StashCaps) -> Result<(), StashError> {
    within("name in bytes", name.len(), caps.name_len_bytes_max)
}

/// Refuses keys, values and updates above the bounds (C-4), for [`StashDriver::commit`] before its transaction.
///
/// # Errors
///
/// Kind `InvalidInput`, outcome `NotApplied`.
pub fn check_bounds(ops: &[StashOp], caps: &StashCaps) -> Result<(), StashError> {
    for op in ops {
        if let StashOp::Update { rows, .. } = op {
            within("update in rows", rows.len(), caps.batch_rows_max)?;
            for row in rows {
                within("key in bytes", row.key.len(), caps.row_len_bytes_max)?;
                within("value in bytes", row.value.len(), caps.row_len_bytes_max)?;
            }
        }
    }
    Ok(())
}

fn within(what: &str, len: usize, max: usize) -> Result<(), StashError> {
    if len <= max {
        return Ok(());
    }
    let message = format!("the length of the {what} is {len}, above the bound of {max}");
    Err(Fault::not_applied(ErrorKind::InvalidInput, message).into())
}

macro_rules! forward {
    ($driver:ty) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<D: StashDriver + ?Sized> StashDriver for $driver {
            async fn open(&self, name: &str) -> Result<CollectionId, StashError> {
                (**self).open(name).await
            }

            async fn names(&self) -> Result<Vec<(String, CollectionId)>, StashError> {
                (**self).names().await
            }

            async fn discard(&self, name: &str) -> Result<bool, StashError> {
                (**self).discard(name).await
            }

            async fn snapshot(
                &self,
                id: CollectionId,
                rows: Rows<'_>,
            ) -> Result<Snapshot, StashError> {
                (**self).snapshot(id, rows).await
            }

            async fn commit(&self, ops: Vec<StashOp>) -> Result<(), StashError> {
                (**self).commit(ops).await
            }
        }
    };
}

forward!(&D);
forward!(Box<D>);
forward!(Arc<D>);
