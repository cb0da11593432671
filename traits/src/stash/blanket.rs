//! Every driver is a stash: types on top of bytes.

use std::collections::BTreeMap;
use std::hash::Hash;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Data, Diff, RawRow, Rows, Snapshot, Stash, StashCollection, StashDriver, StashError, StashOp,
    Timestamp, codec, rows,
};
use crate::frontier::{Antichain, AntichainRef};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<D: StashDriver + ?Sized> Stash for D {
    async fn collection<K, V>(&mut self, name: &str) -> Result<StashCollection<K, V>, StashError>
    where
        K: Data,
        V: Data,
    {
        self.open(name).await.map(StashCollection::new)
    }

    async fn iter<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Vec<((K, V), Timestamp, Diff)>, StashError>
    where
        K: Data,
        V: Data,
    {
        let Snapshot { frontiers, rows } = self.snapshot(collection.id(), Rows::All).await?;
        advanced(frontiers.since.borrow(), rows, decode_pair)
    }

    async fn iter_key<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
        key: &K,
    ) -> Result<Vec<(V, Timestamp, Diff)>, StashError>
    where
        K: Data,
        V: Data,
    {
        let encoded = encode(key)?;
        let Snapshot { frontiers, rows } =
            self.snapshot(collection.id(), Rows::Key(&encoded)).await?;
        advanced(frontiers.since.borrow(), rows, |row| {
            decode_value_of(key, &encoded, row)
        })
    }

    async fn update_many<K, V, I>(
        &mut self,
        collection: StashCollection<K, V>,
        entries: I,
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
        I: IntoIterator<Item = ((K, V), Timestamp, Diff)> + Send,
        I::IntoIter: Send,
    {
        // Drained before the first await, so that the iterator need not be shared between threads. An empty batch
        // goes to the driver as well: it may have to say that the collection is gone.
        let rows = encode_rows(entries)?;
        self.commit(vec![StashOp::Update {
            id: collection.id(),
            rows,
        }])
        .await
    }

    async fn seal<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
        upper: AntichainRef<'_, Timestamp>,
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
    {
        self.commit(vec![seal_op(collection, upper)]).await
    }

    async fn compact<'a, K, V>(
        &'a mut self,
        collection: StashCollection<K, V>,
        since: AntichainRef<'a, Timestamp>,
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
    {
        self.commit(vec![compact_op(collection, since)]).await
    }

    async fn consolidate<'a, K, V>(
        &'a mut self,
        collection: StashCollection<K, V>,
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
    {
        self.commit(vec![StashOp::Consolidate {
            id: collection.id(),
        }])
        .await
    }

    async fn since<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Antichain<Timestamp>, StashError>
    where
        K: Data,
        V: Data,
    {
        Ok(self
            .snapshot(collection.id(), Rows::None)
            .await?
            .frontiers
            .since)
    }

    async fn upper<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Antichain<Timestamp>, StashError>
    where
        K: Data,
        V: Data,
    {
        Ok(self
            .snapshot(collection.id(), Rows::None)
            .await?
            .frontiers
            .upper)
    }

    async fn peek_timestamp<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Timestamp, StashError>
    where
        K: Data,
        V: Data,
    {
        self.snapshot(collection.id(), Rows::None)
            .await?
            .frontiers
            .peek_timestamp()
    }

    async fn peek<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Vec<(K, V, Diff)>, StashError>
    where
        K: Data,
        V: Data,
    {
        let snapshot = self.snapshot(collection.id(), Rows::All).await?;
        sealed(snapshot, decode_pair).map(rows::flat)
    }

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

    async fn peek_key_one<K, V>(
        &mut self,
        collection: StashCollection<K, V>,
        key: &K,
    ) -> Result<Option<V>, StashError>
    where
        K: Data,
        V: Data,
    {
        let encoded = encode(key)?;
        let snapshot = self.snapshot(collection.id(), Rows::Key(&encoded)).await?;
        rows::one_value(sealed(snapshot, |row| decode_value_of(key, &encoded, row))?)
    }

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

    async fn seal_batch<K, V>(
        &mut self,
        seals: &[(StashCollection<K, V>, Antichain<Timestamp>)],
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
    {
        let ops = seals
            .iter()
            .map(|(collection, upper)| seal_op(*collection, upper.borrow()));
        commit_some(self, ops.collect()).await
    }

    async fn compact_batch<K, V>(
        &mut self,
        compactions: &[(StashCollection<K, V>, Antichain<Timestamp>)],
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
    {
        let ops = compactions
            .iter()
            .map(|(collection, since)| compact_op(*collection, since.borrow()));
        commit_some(self, ops.collect()).await
    }

    async fn consolidate_batch<K, V>(
        &mut self,
        collections: &[StashCollection<K, V>],
    ) -> Result<(), StashError>
    where
        K: Data,
        V: Data,
    {
        let ops = collections.iter().map(|collection| StashOp::Consolidate {
            id: collection.id(),
        });
        commit_some(self, ops.collect()).await
    }
}

/// A batch is one commit, hence atomic as a whole. A batch of nothing has no effect that would need one.
pub(super) async fn commit_some<D: StashDriver + ?Sized>(
    driver: &D,
    ops: Vec<StashOp>,
) -> Result<(), StashError> {
    if ops.is_empty() {
        return Ok(());
    }
    driver.commit(ops).await
}

fn seal_op<K, V>(collection: StashCollection<K, V>, upper: AntichainRef<'_, Timestamp>) -> StashOp {
    StashOp::Seal {
        id: collection.id(),
        upper: upper.to_owned(),
    }
}

fn compact_op<K, V>(
    collection: StashCollection<K, V>,
    since: AntichainRef<'_, Timestamp>,
) -> StashOp {
    StashOp::Compact {
        id: collection.id(),
        since: since.to_owned(),
    }
}

fn encode<T: Data>(value: &T) -> Result<Bytes, StashError> {
    codec::encode(value)
        .map(Bytes::from)
        .map_err(StashError::Codec)
}

fn decode<T: Data>(bytes: &[u8]) -> Result<T, StashError> {
    codec::decode(bytes).map_err(StashError::Codec)
}

pub(super) fn encode_rows<K: Data, V: Data>(
    entries: impl IntoIterator<Item = ((K, V), Timestamp, Diff)>,
) -> Result<Vec<RawRow>, StashError> {
    let encode_row = |((key, value), time, diff)| {
        Ok(RawRow {
            key: encode::<K>(&key)?,
            value: encode::<V>(&value)?,
            time,
            diff,
        })
    };
    entries.into_iter().map(encode_row).collect()
}

fn decode_pair<K: Data, V: Data>(row: &RawRow) -> Result<Option<(K, V)>, StashError> {
    Ok(Some((decode(&row.key)?, decode(&row.value)?)))
}

/// The value of a row that was found by its key's bytes, unless it has another key. Equal bytes need no decoding:
/// they were proved to be this key's when it was encoded.
fn decode_value_of<K: Data, V: Data>(
    key: &K,
    encoded: &Bytes,
    row: &RawRow,
) -> Result<Option<V>, StashError> {
    if row.key != *encoded && decode::<K>(&row.key)? != *key {
        return Ok(None);
    }
    decode(&row.value).map(Some)
}

/// All rows, decoded, with their times advanced to `since`, sorted and summed (ST-3).
fn advanced<T: Ord>(
    since: AntichainRef<'_, Timestamp>,
    raw: Vec<RawRow>,
    decode: impl Fn(&RawRow) -> Result<Option<T>, StashError>,
) -> Result<Vec<(T, Timestamp, Diff)>, StashError> {
    let since = *since.as_option().ok_or(StashError::SinceEmpty)?;
    let mut decoded = Vec::with_capacity(raw.len());
    for row in raw {
        if let Some(data) = decode(&row)? {
            decoded.push(((data, row.time.max(since)), row.diff));
        }
    }
    let rows = rows::consolidate(decoded)?;
    Ok(rows
        .into_iter()
        .map(|((data, time), diff)| (data, time, diff))
        .collect())
}

/// The sealed rows, decoded, sorted and summed over time (ST-11). Rows that are not sealed are not even decoded.
fn sealed<T: Ord>(
    snapshot: Snapshot,
    decode: impl Fn(&RawRow) -> Result<Option<T>, StashError>,
) -> Result<Vec<(T, Diff)>, StashError> {
    let at = snapshot.frontiers.peek_timestamp()?;
    let mut decoded = Vec::with_capacity(snapshot.rows.len());
    // `since <= at`, so advancing a time to `since` cannot take it past `at`.
    for row in snapshot.rows.into_iter().filter(|row| row.time <= at) {
        if let Some(data) = decode(&row)? {
            decoded.push((data, row.diff));
        }
    }
    rows::consolidate(decoded)
}
