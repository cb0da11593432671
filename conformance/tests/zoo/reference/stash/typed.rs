//! The trait with its types over a driver of bytes.
//!
//! Without a [`Wrong`] everything is left to the impl that every driver has. A wrong one does it itself, since generic
//! methods cannot be exchanged one by one as the driver's steps can.

use std::collections::BTreeMap;
use std::hash::Hash;

use async_trait::async_trait;
use larder_traits::stash::codec;
use larder_traits::stash::driver::{RawRow, Rows, StashOp, fold};
use larder_traits::{
    Antichain, AntichainRef, Data, Diff, ErrorKind, Fault, Stash, StashCollection, StashDriver,
    StashError, Timestamp,
};
use serde_json::Value;

use super::{Answer, Driver};

/// What the layer of types gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Rows come in the order of their bytes.
    ByteOrder,
    /// `peek` comes in the order of the bytes.
    PeekByteOrder,
    /// Rows come in the order of their times.
    TimeOrder,
    /// Rows whose sum is zero are shown.
    ZerosShown,
    /// Sums wrap around.
    SumWraps,
    /// Times are not advanced to `since`.
    NotAdvanced,
    /// Rows are summed before their times are advanced, and not after.
    SummedBeforeAdvancing,
    /// An empty `since` reads as no rows.
    SinceEmptyIsEmpty,
    /// `iter_key` comes in the order of the times.
    KeyTimeOrder,
    /// `iter_key` does not advance times to `since`.
    KeyNotAdvanced,
    /// `peek` includes what is not sealed.
    PeekUnsealed,
    /// `peek` leaves out the last sealed time.
    PeekBoundExcluded,
    /// `peek` is not summed over time.
    PeekPerTime,
    /// The time of a peek is `upper`.
    PeekTimeIsUpper,
    /// The time of a peek of nothing sealed is `since`.
    PeekTimeUnchecked,
    /// The time of a peek is an error once all is sealed.
    PeekTimeNoEnd,
    /// `peek_one` keeps the last of several values.
    OneLastWins,
    /// `peek_one` and `peek_key_one` take any multiplicity.
    OneAnyMultiplicity,
    /// `peek_key_one` takes the first of several values.
    KeyOneFirstWins,
    /// `peek_key_one` of an absent key is an error.
    KeyOneAbsentFails,
    /// Each row of an update is encoded and committed by itself.
    RowByRow,
    /// Fields are stored without their names.
    PositionalCodec,
    /// What does not survive its encoding is stored all the same.
    UnprovenCodec,
    /// The items of a seal batch are ordered by collection and time.
    BatchSorted,
    /// Of several items for one collection in a batch, the last counts.
    BatchLastWins,
    /// An empty batch is an error.
    BatchEmptyFails,
    /// Rows are summed by their bytes, and not by what these mean.
    SummedByBytes,
    /// `peek` is refused when a sum leaves 64 bits on its way from one time to the next.
    PeekSumsOnTheWay,
    /// `peek` ends before the greatest time there is.
    PeekEndExcluded,
    /// `peek_key_one` passes over what has a negative multiplicity.
    KeyOneNegativePassedOver,
}

/// A handle with types.
#[derive(Debug)]
pub(crate) struct Typed {
    driver: Driver,
    wrong: Option<Wrong>,
}

impl Typed {
    pub(crate) fn new(driver: Driver) -> Self {
        let wrong = driver.wrong;
        Self { driver, wrong }
    }

    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == Some(wrong)
    }

    fn encode<T: Data>(&self, value: &T) -> Answer<Vec<u8>> {
        let json = |positional: bool| {
            let value = serde_json::to_value(value).map_err(|e| {
                Fault::not_applied(ErrorKind::InvalidInput, "does not encode").because(e)
            })?;
            let value = if positional {
                without_names(value)
            } else {
                value
            };
            Ok(value.to_string().into_bytes())
        };
        match self.wrong {
            Some(Wrong::PositionalCodec) => json(true).map_err(StashError::Codec),
            Some(Wrong::UnprovenCodec) => json(false).map_err(StashError::Codec),
            _ => codec::encode(value).map_err(StashError::Codec),
        }
    }

    fn decode<T: Data>(&self, bytes: &[u8]) -> Answer<T> {
        match self.wrong {
            Some(Wrong::PositionalCodec | Wrong::UnprovenCodec) => serde_json::from_slice(bytes)
                .map_err(|e| Fault::not_applied(ErrorKind::Corrupt, "does not decode").because(e))
                .map_err(StashError::Codec),
            _ => codec::decode(bytes).map_err(StashError::Codec),
        }
    }

    fn encode_row<K: Data, V: Data>(
        &self,
        ((key, value), time, diff): ((K, V), Timestamp, Diff),
    ) -> Answer<RawRow> {
        Ok(RawRow {
            key: self.encode(&key)?.into(),
            value: self.encode(&value)?.into(),
            time,
            diff,
        })
    }

    /// The rows as `iter` answers with them, as far as nothing is wrong with that.
    async fn rows<K: Data, V: Data>(
        &self,
        collection: StashCollection<K, V>,
        advance: bool,
    ) -> Answer<Vec<((K, V), Timestamp, Diff)>> {
        let snapshot = self.driver.snapshot(collection.id(), Rows::All).await?;
        let since = match snapshot.frontiers.since.as_option() {
            Some(since) => *since,
            None if self.is(Wrong::SinceEmptyIsEmpty) => return Ok(Vec::new()),
            None => return Err(StashError::SinceEmpty),
        };
        if self.is(Wrong::SummedByBytes) {
            let mut apart = Vec::new();
            for row in fold(snapshot.rows, snapshot.frontiers.since.borrow())? {
                let data: (K, V) = (self.decode(&row.key)?, self.decode(&row.value)?);
                apart.push((data, row.time, row.diff));
            }
            apart.sort();
            return Ok(apart);
        }
        let mut rows = Vec::new();
        for row in snapshot.rows {
            let data: (K, V) = (self.decode(&row.key)?, self.decode(&row.value)?);
            let early = self.is(Wrong::SummedBeforeAdvancing) || !advance;
            let time = if early { row.time } else { row.time.max(since) };
            rows.push(((data, time), row.diff));
        }
        let mut rows: Vec<_> = self
            .summed(rows)?
            .into_iter()
            .map(|((d, t), n)| (d, t, n))
            .collect();
        if self.is(Wrong::SummedBeforeAdvancing) {
            rows.iter_mut()
                .for_each(|(_, time, _)| *time = (*time).max(since));
        }
        Ok(rows)
    }

    fn summed<T: Ord>(&self, rows: Vec<(T, Diff)>) -> Answer<Vec<(T, Diff)>> {
        let mut sums = BTreeMap::<T, i128>::new();
        for (row, diff) in rows {
            *sums.entry(row).or_default() += i128::from(diff);
        }
        let mut out = Vec::new();
        for (row, sum) in sums {
            let diff = match Diff::try_from(sum) {
                Ok(diff) => diff,
                Err(_too_large) if self.is(Wrong::SumWraps) => wrapped(sum),
                Err(_too_large) => return Err(StashError::DiffOverflow),
            };
            if diff != 0 || self.is(Wrong::ZerosShown) {
                out.push((row, diff));
            }
        }
        Ok(out)
    }

    /// One commit, unless there is nothing to commit.
    async fn commit(&self, ops: Vec<StashOp>) -> Answer<()> {
        if ops.is_empty() {
            if self.is(Wrong::BatchEmptyFails) {
                return Err(Fault::not_applied(ErrorKind::InvalidInput, "an empty batch").into());
            }
            return Ok(());
        }
        self.driver.commit(self.batch(ops)).await
    }

    fn batch(&self, mut ops: Vec<StashOp>) -> Vec<StashOp> {
        if self.is(Wrong::BatchSorted) {
            let time = |op: &StashOp| match op {
                StashOp::Seal {
                    upper: frontier, ..
                }
                | StashOp::Compact {
                    since: frontier, ..
                } => frontier.clone(),
                _ => Antichain::new(),
            };
            ops.sort_by_key(|op| (op.id(), time(op)));
        }
        if self.is(Wrong::BatchLastWins) {
            let last: BTreeMap<_, _> = ops.into_iter().map(|op| (op.id(), op)).collect();
            ops = last.into_values().collect();
        }
        ops
    }
}

/// Records as lists of their fields.
fn without_names(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Array(
            fields
                .into_iter()
                .map(|(_, value)| without_names(value))
                .collect(),
        ),
        Value::Array(values) => Value::Array(values.into_iter().map(without_names).collect()),
        other => other,
    }
}

/// The lowest 64 bits.
fn wrapped(sum: i128) -> Diff {
    let bytes = sum.to_le_bytes();
    Diff::from_le_bytes(bytes[..8].try_into().expect("8 of 16 bytes are 8 bytes"))
}

#[async_trait]
impl Stash for Typed {
    async fn collection<K, V>(&mut self, name: &str) -> Answer<StashCollection<K, V>>
    where
        K: Data,
        V: Data,
    {
        Stash::collection(&mut self.driver, name).await
    }

    async fn iter<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Answer<Vec<((K, V), Timestamp, Diff)>>
    where
        K: Data,
        V: Data,
    {
        let Some(wrong) = self.wrong else {
            return Stash::iter(&mut self.driver, collection).await;
        };
        let mut rows = self.rows(collection, wrong != Wrong::NotAdvanced).await?;
        match wrong {
            Wrong::ByteOrder => rows.sort_by_cached_key(|((key, value), time, _)| {
                (self.encode(key).ok(), self.encode(value).ok(), *time)
            }),
            Wrong::TimeOrder => rows.sort_by_key(|(_, time, _)| *time),
            _ => {}
        }
        Ok(rows)
    }

    async fn iter_key<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
        key: &K,
    ) -> Answer<Vec<(V, Timestamp, Diff)>>
    where
        K: Data,
        V: Data,
    {
        let Some(wrong) = self.wrong else {
            return Stash::iter_key(&mut self.driver, collection, key).await;
        };
        self.encode(key)?;
        let rows = self
            .rows(collection, wrong != Wrong::KeyNotAdvanced)
            .await?;
        let of_key = rows.into_iter().filter(|((k, _), _, _)| k == key);
        let mut rows: Vec<_> = of_key
            .map(|((_, value), time, diff)| (value, time, diff))
            .collect();
        if wrong == Wrong::KeyTimeOrder {
            rows.sort_by_key(|(_, time, _)| *time);
        }
        Ok(rows)
    }

    async fn update_many<K, V, I>(
        &mut self,
        collection: StashCollection<K, V>,
        entries: I,
    ) -> Answer<()>
    where
        K: Data,
        V: Data,
        I: IntoIterator<Item = ((K, V), Timestamp, Diff)> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let id = collection.id();
        if !self.is(Wrong::RowByRow) {
            let rows = entries.into_iter().map(|entry| self.encode_row(entry));
            let rows = rows.collect::<Answer<_>>()?;
            return self.driver.commit(vec![StashOp::Update { id, rows }]).await;
        }
        for entry in entries {
            let rows = vec![self.encode_row(entry)?];
            self.driver
                .commit(vec![StashOp::Update { id, rows }])
                .await?;
        }
        Ok(())
    }

    async fn seal<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
        upper: AntichainRef<'_, Timestamp>,
    ) -> Answer<()>
    where
        K: Data,
        V: Data,
    {
        Stash::seal(&mut self.driver, collection, upper).await
    }

    async fn compact<'a, K, V>(
        &'a mut self,
        collection: StashCollection<K, V>,
        since: AntichainRef<'a, Timestamp>,
    ) -> Answer<()>
    where
        K: Data,
        V: Data,
    {
        Stash::compact(&mut self.driver, collection, since).await
    }

    async fn consolidate<'a, K, V>(&'a mut self, collection: StashCollection<K, V>) -> Answer<()>
    where
        K: Data,
        V: Data,
    {
        Stash::consolidate(&mut self.driver, collection).await
    }

    async fn since<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Answer<Antichain<Timestamp>>
    where
        K: Data,
        V: Data,
    {
        Stash::since(&mut self.driver, collection).await
    }

    async fn upper<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Answer<Antichain<Timestamp>>
    where
        K: Data,
        V: Data,
    {
        Stash::upper(&mut self.driver, collection).await
    }

    async fn peek_timestamp<K, V>(&mut self, collection: StashCollection<K, V>) -> Answer<Timestamp>
    where
        K: Data,
        V: Data,
    {
        let frontiers = self
            .driver
            .snapshot(collection.id(), Rows::None)
            .await?
            .frontiers;
        let at = frontiers.peek_timestamp();
        match (
            self.wrong,
            frontiers.upper.as_option(),
            frontiers.since.as_option(),
        ) {
            (Some(Wrong::PeekTimeIsUpper), Some(upper), _) if at.is_ok() => Ok(*upper),
            (Some(Wrong::PeekTimeUnchecked), _, Some(since)) if at.is_err() => Ok(*since),
            (Some(Wrong::PeekTimeNoEnd), None, _) => Err(StashError::NothingSealed {
                since: frontiers.since,
                upper: frontiers.upper,
            }),
            _ => at,
        }
    }

    async fn peek<K, V>(&mut self, collection: StashCollection<K, V>) -> Answer<Vec<(K, V, Diff)>>
    where
        K: Data,
        V: Data,
    {
        let Some(wrong) = self.wrong else {
            return Stash::peek(&mut self.driver, collection).await;
        };
        let frontiers = self
            .driver
            .snapshot(collection.id(), Rows::None)
            .await?
            .frontiers;
        let at = frontiers.peek_timestamp()?;
        let mut rows = self.rows(collection, true).await?;
        rows.retain(|(_, time, _)| match wrong {
            Wrong::PeekUnsealed => true,
            Wrong::PeekBoundExcluded => *time < at,
            Wrong::PeekEndExcluded => *time < at.saturating_add(1),
            _ => *time <= at,
        });
        if wrong == Wrong::PeekSumsOnTheWay {
            // They come in the order of their times.
            let mut sums = BTreeMap::<_, Diff>::new();
            for (data, _, diff) in &rows {
                let sum = sums.entry(data).or_default();
                *sum = sum.checked_add(*diff).ok_or(StashError::DiffOverflow)?;
            }
        }
        let rows: Vec<_> = rows
            .into_iter()
            .map(|(data, time, diff)| ((data, time), diff))
            .collect();
        let mut rows: Vec<_> = if wrong == Wrong::PeekPerTime {
            rows.into_iter()
                .map(|((data, _), diff)| (data, diff))
                .collect()
        } else {
            self.summed(
                rows.into_iter()
                    .map(|((data, _), diff)| (data, diff))
                    .collect(),
            )?
        };
        if wrong == Wrong::PeekByteOrder {
            rows.sort_by_cached_key(|((key, value), _)| {
                (self.encode(key).ok(), self.encode(value).ok())
            });
        }
        Ok(rows
            .into_iter()
            .map(|((key, value), diff)| (key, value, diff))
            .collect())
    }

    async fn peek_one<K, V>(&mut self, collection: StashCollection<K, V>) -> Answer<BTreeMap<K, V>>
    where
        K: Data + Hash,
        V: Data,
    {
        let mut map = BTreeMap::new();
        for (key, value, diff) in self.peek(collection).await? {
            if diff != 1 && !self.is(Wrong::OneAnyMultiplicity) {
                return Err(StashError::UnexpectedMultiplicity { diff });
            }
            if map.insert(key, value).is_some() && !self.is(Wrong::OneLastWins) {
                return Err(StashError::DuplicateKey);
            }
        }
        Ok(map)
    }

    async fn peek_key_one<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
        key: &K,
    ) -> Answer<Option<V>>
    where
        K: Data,
        V: Data,
    {
        if self.wrong.is_none() {
            return Stash::peek_key_one(&mut self.driver, collection, key).await;
        }
        self.encode(key)?;
        let mut one = None;
        for (found, value, diff) in self.peek(collection).await? {
            if found != *key || diff < 0 && self.is(Wrong::KeyOneNegativePassedOver) {
                continue;
            }
            if diff != 1 && !self.is(Wrong::OneAnyMultiplicity) {
                return Err(StashError::UnexpectedMultiplicity { diff });
            }
            if one.is_some() && self.is(Wrong::KeyOneFirstWins) {
                continue;
            }
            if one.replace(value).is_some() {
                return Err(StashError::DuplicateKey);
            }
        }
        if one.is_none() && self.is(Wrong::KeyOneAbsentFails) {
            return Err(Fault::not_applied(ErrorKind::NotFound, "no such key").into());
        }
        Ok(one)
    }

    async fn seal_batch<K, V>(
        &mut self,
        seals: &[(StashCollection<K, V>, Antichain<Timestamp>)],
    ) -> Answer<()>
    where
        K: Data,
        V: Data,
    {
        let op =
            |(collection, upper): &(StashCollection<K, V>, Antichain<Timestamp>)| StashOp::Seal {
                id: collection.id(),
                upper: upper.clone(),
            };
        self.commit(seals.iter().map(op).collect()).await
    }

    async fn compact_batch<K, V>(
        &mut self,
        compactions: &[(StashCollection<K, V>, Antichain<Timestamp>)],
    ) -> Answer<()>
    where
        K: Data,
        V: Data,
    {
        let op = |(collection, since): &(StashCollection<K, V>, Antichain<Timestamp>)| {
            StashOp::Compact {
                id: collection.id(),
                since: since.clone(),
            }
        };
        self.commit(compactions.iter().map(op).collect()).await
    }

    async fn consolidate_batch<K, V>(&mut self, collections: &[StashCollection<K, V>]) -> Answer<()>
    where
        K: Data,
        V: Data,
    {
        let op = |collection: &StashCollection<K, V>| StashOp::Consolidate {
            id: collection.id(),
        };
        self.commit(collections.iter().map(op).collect()).await
    }
}
