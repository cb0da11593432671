//! [`StashDriver`]: rows by key, and an index of those that no consolidation has merged yet.
//!
//! Rows that were merged are stored at the earliest of all times. They read as if at `since`, as every earlier time
//! does, and need not be touched again when `since` moves on. What a consolidation has to do is therefore in the index
//! of the rows that were not merged, and is found there by time: it never looks at the rest (ST-8).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::LazyLock;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use larder_traits::Fault;
use larder_traits::stash::driver::{check_bounds, check_name};
use larder_traits::stash::{
    CollectionId, Diff, Frontiers, RawRow, Rows, Snapshot, StashDriver, StashError, StashOp,
    Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use crate::checksum::{Parts, Sum};
use crate::error::{corrupt, fenced, native};
use crate::native::SqlitePlace;
use crate::state::State;
use crate::writer::{Tx, Undo};

/// The collections of a file; a `Stash` by its driver. A commit is one transaction, whatever is in it (ST-12).
#[derive(Clone, Debug)]
pub struct SqliteStash(pub(crate) SqlitePlace);

impl SqliteStash {
    /// Reads, unless the handle was fenced (ST-14).
    async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<R, StashError> + Send + 'static,
    ) -> Result<R, StashError> {
        let epoch = self.0.epoch();
        let checked = move |conn: &Connection| {
            if State::load_epoch(conn)? != epoch {
                return Err(fenced().not_applied().into());
            }
            work(conn)
        };
        self.0.read(checked).await
    }
}

#[async_trait]
impl StashDriver for SqliteStash {
    async fn open(&self, name: &str) -> Result<CollectionId, StashError> {
        check_name(name, &self.0.config().caps.stash)?;
        let name = name.to_owned();
        let look = {
            let name = name.clone();
            move |conn: &Connection| id_of(conn, &name)
        };
        match self.read(look).await? {
            Some(id) => Ok(id),
            None => {
                self.0
                    .write(Undo::Itself, move |tx| create(tx.conn(), &name))
                    .await
            }
        }
    }

    async fn names(&self) -> Result<Vec<(String, CollectionId)>, StashError> {
        let look = |conn: &Connection| {
            let sql = "SELECT id, name, since, upper, crc FROM stash_collections";
            let mut statement = conn.prepare_cached(sql).map_err(native)?;
            let mut rows = statement.query([]).map_err(native)?;
            let mut names = Vec::new();
            while let Some(row) = rows.next().map_err(native)? {
                let collection = Collection::read(row)?;
                names.push((
                    collection.name,
                    CollectionId::new(collection.id.unsigned_abs()),
                ));
            }
            Ok(names)
        };
        self.read(look).await
    }

    async fn discard(&self, name: &str) -> Result<bool, StashError> {
        let name = name.to_owned();
        let discard = move |tx: &Tx<'_>| {
            let conn = tx.conn();
            let Some(id) = id_of(conn, &name)? else {
                return Ok(false);
            };
            let id = number_of(id)?;
            for sql in [
                "DELETE FROM stash_rows WHERE collection = ?1",
                "DELETE FROM stash_collections WHERE id = ?1",
            ] {
                execute(conn, sql, params![id])?;
            }
            Ok(true)
        };
        self.0.write(Undo::Everything, discard).await
    }

    async fn snapshot(&self, id: CollectionId, rows: Rows<'_>) -> Result<Snapshot, StashError> {
        let key = match rows {
            Rows::Key(key) => Some(key.to_vec()),
            Rows::None | Rows::All => None,
        };
        let all = matches!(rows, Rows::All);
        let look = move |conn: &Connection| {
            let collection = Collection::load(conn, id)?;
            let rows = match &key {
                Some(key) => rows_of_key(conn, collection.id, key)?,
                None if all => all_rows(conn, collection.id)?,
                None => Vec::new(),
            };
            Ok(Snapshot {
                frontiers: collection.frontiers,
                rows,
            })
        };
        self.read(look).await
    }

    async fn commit(&self, ops: Vec<StashOp>) -> Result<(), StashError> {
        check_bounds(&ops, &self.0.config().caps.stash)?;
        // The second step of several, and the sums of a consolidation, may be refused after something was written.
        let undo = match ops[..] {
            [StashOp::Consolidate { .. }] | [_, _, ..] => Undo::Itself,
            [_] | [] => Undo::Everything,
        };
        self.0.write(undo, move |tx| commit(tx, ops)).await
    }
}

/// A row of `stash_collections`.
struct Collection {
    id: i64,
    name: String,
    frontiers: Frontiers,
}

impl Collection {
    fn load(conn: &Connection, id: CollectionId) -> Result<Self, StashError> {
        let sql = "SELECT id, name, since, upper, crc FROM stash_collections WHERE id = ?1";
        let missing = || StashError::NoCollection { id };
        let number = number_of(id)?;
        let mut statement = conn.prepare_cached(sql).map_err(native)?;
        let mut rows = statement.query(params![number]).map_err(native)?;
        let row = rows.next().map_err(native)?.ok_or_else(missing)?;
        Ok(Self::read(row)?)
    }

    fn read(row: &Row<'_>) -> Result<Self, Fault> {
        let get = |at| row.get::<_, Option<i64>>(at).map_err(native);
        let collection = Self {
            id: row.get(0).map_err(native)?,
            name: row.get(1).map_err(native)?,
            frontiers: Frontiers {
                since: get(2)?.into(),
                upper: get(3)?.into(),
            },
        };
        collection.sum().check(row.get(4).map_err(native)?)?;
        Ok(collection)
    }

    fn store(&self, conn: &Connection) -> Result<(), Fault> {
        let sql = "INSERT INTO stash_collections (id, name, since, upper, crc)
                   VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (id) DO UPDATE SET since = ?3, upper = ?4, crc = ?5";
        let since = self.frontiers.since.as_option();
        let upper = self.frontiers.upper.as_option();
        let crc = self.sum().get();
        execute(conn, sql, params![self.id, self.name, since, upper, crc])
    }

    fn sum(&self) -> Sum {
        let named = Sum::new().number(self.id).bytes(self.name.as_bytes());
        let Frontiers { since, upper } = &self.frontiers;
        named
            .maybe(since.as_option().copied())
            .maybe(upper.as_option().copied())
    }
}

fn execute(conn: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<(), Fault> {
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    statement.execute(values).map_err(native)?;
    Ok(())
}

/// The id as it is stored. One that cannot be stored was never given to a collection.
fn number_of(id: CollectionId) -> Result<i64, StashError> {
    i64::try_from(id.get()).map_err(|_beyond| StashError::NoCollection { id })
}

fn id_of(conn: &Connection, name: &str) -> Result<Option<CollectionId>, StashError> {
    let sql = "SELECT id FROM stash_collections WHERE name = ?1";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let id = statement.query_row(params![name], |row| row.get::<_, i64>(0));
    let Some(id) = id.optional().map_err(native)? else {
        return Ok(None);
    };
    let id = u64::try_from(id).map_err(|_negative| corrupt("a collection's id is negative"))?;
    Ok(Some(CollectionId::new(id)))
}

/// Racing creators come here one after the other, and the later ones find what the first one made (ST-1).
fn create(conn: &Connection, name: &str) -> Result<CollectionId, StashError> {
    if let Some(id) = id_of(conn, name)? {
        return Ok(id);
    }
    // The id is needed for the checksum, and SQLite sees to it that it was never given before.
    let sql = "INSERT INTO stash_collections (name, crc) VALUES (?1, 0)";
    execute(conn, sql, params![name])?;
    let id = conn.last_insert_rowid();
    let collection = Collection {
        id,
        name: name.to_owned(),
        frontiers: Frontiers::new(),
    };
    collection.store(conn)?;
    let id = u64::try_from(id).map_err(|_negative| corrupt("a collection's id is negative"))?;
    Ok(CollectionId::new(id))
}

fn row_sum(collection: i64, key: &[u8], value: &[u8], time: Timestamp, diff: Diff) -> Sum {
    sum_into(Sum::new(), collection, (key, value, time, diff))
}

fn sum_into<P: Parts>(
    sum: Sum<P>,
    collection: i64,
    (key, value, time, diff): (&[u8], &[u8], Timestamp, Diff),
) -> Sum<P> {
    let of_row = sum.number(collection).bytes(key).bytes(value);
    of_row.number(time).number(diff)
}

fn all_rows(conn: &Connection, collection: i64) -> Result<Vec<RawRow>, Fault> {
    let sql = "SELECT key, value, time, diff, crc FROM stash_rows WHERE collection = ?1";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let mut rows = statement.query(params![collection]).map_err(native)?;
    let mut out: Vec<RawRow> = Vec::new();
    let mut memory = BytesMut::new();
    while let Some(row) = rows.next().map_err(native)? {
        out.push(pack_row(row, collection, &mut memory)?);
    }
    Ok(out)
}

/// How much memory rows share at most. It stays for as long as any of them is in use.
const SHARED_LEN_BYTES: usize = 1 << 16;

/// A row of many, in `memory` that it shares with others: to allocate for each would cost more than the rest of reading
/// it. It is copied once, as its checksum is taken, so that this is one pass over one piece.
fn pack_row(row: &Row<'_>, collection: i64, memory: &mut BytesMut) -> Result<RawRow, Fault> {
    let (key, value) = (blob(row, 0)?, blob(row, 1)?);
    let (time, diff) = (integer(row, 2)?, integer(row, 3)?);
    let len = 5 * size_of::<u64>() + key.len() + value.len();
    if memory.capacity() < len {
        *memory = BytesMut::with_capacity(SHARED_LEN_BYTES.max(len));
    }
    let sum = sum_into(Sum::kept_in(memory), collection, (key, value, time, diff));
    sum.check(integer(row, 4)?)?;
    let mut packed = memory.split().freeze();
    packed.advance(2 * size_of::<u64>());
    let key = packed.split_to(key.len());
    packed.advance(size_of::<u64>());
    packed.truncate(value.len());
    Ok(RawRow {
        key,
        value: packed,
        time,
        diff,
    })
}

fn rows_of_key(conn: &Connection, collection: i64, key: &[u8]) -> Result<Vec<RawRow>, Fault> {
    let sql = "SELECT NULL, value, time, diff, crc FROM stash_rows
               WHERE collection = ?1 AND key = ?2";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let mut rows = statement.query(params![collection, key]).map_err(native)?;
    let key = Bytes::copy_from_slice(key);
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(native)? {
        out.push(copy_row(row, collection, key.clone())?);
    }
    Ok(out)
}

fn blob<'a>(row: &'a Row<'_>, at: usize) -> Result<&'a [u8], Fault> {
    let value = row.get_ref(at).map_err(native)?;
    value
        .as_blob()
        .map_err(|_other_type| corrupt("a column of bytes holds something else"))
}

fn integer(row: &Row<'_>, at: usize) -> Result<i64, Fault> {
    let value = row.get_ref(at).map_err(native)?;
    value
        .as_i64()
        .map_err(|_other_type| corrupt("a column of numbers holds something else"))
}

/// A row whose value is kept in memory of its own.
fn copy_row(row: &Row<'_>, collection: i64, key: Bytes) -> Result<RawRow, Fault> {
    let value = Bytes::copy_from_slice(blob(row, 1)?);
    let (time, diff) = (integer(row, 2)?, integer(row, 3)?);
    row_sum(collection, &key, &value, time, diff).check(integer(row, 4)?)?;
    Ok(RawRow {
        key,
        value,
        time,
        diff,
    })
}

fn insert(conn: &Connection, collection: i64, number: i64, row: &RawRow) -> Result<(), Fault> {
    let sql = "INSERT INTO stash_rows (collection, key, number, value, time, diff, crc)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let RawRow {
        key,
        value,
        time,
        diff,
    } = row;
    let (key, value) = (&key[..], &value[..]);
    let crc = row_sum(collection, key, value, *time, *diff).get();
    let values = params![collection, key, number, value, time, diff, crc];
    execute(conn, sql, values)
}

/// How many rows one statement inserts. What a statement costs beside its rows is more than a row costs.
const ROWS_AT_ONCE: usize = 32;

fn insert_all(tx: &Tx<'_>, collection: i64, rows: &[RawRow]) -> Result<(), Fault> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let start =
            "INSERT INTO stash_rows (collection, key, number, value, time, diff, crc) VALUES";
        let row = " (?, ?, ?, ?, ?, ?, ?)";
        format!("{start}{}", [row; ROWS_AT_ONCE].join(","))
    });
    // A difference of 0 adds nothing to any sum.
    let rows: Vec<&RawRow> = rows.iter().filter(|row| row.diff != 0).collect();
    let (many, rest) = rows.as_chunks::<ROWS_AT_ONCE>();
    for many in many {
        let mut statement = tx.conn().prepare_cached(&SQL).map_err(native)?;
        let mut at = 0;
        let mut bind = |value: &dyn ToSql| {
            at += 1;
            statement.raw_bind_parameter(at, value).map_err(native)
        };
        for row in many {
            let (key, value) = (&row.key[..], &row.value[..]);
            let crc = row_sum(collection, key, value, row.time, row.diff).get();
            bind(&collection)?;
            bind(&key)?;
            bind(&tx.number())?;
            bind(&value)?;
            bind(&row.time)?;
            bind(&row.diff)?;
            bind(&crc)?;
        }
        statement.raw_execute().map_err(native)?;
    }
    for row in rest {
        insert(tx.conn(), collection, tx.number(), row)?;
    }
    Ok(())
}

fn commit(tx: &Tx<'_>, ops: Vec<StashOp>) -> Result<(), StashError> {
    let conn = tx.conn();
    let mut collections: BTreeMap<CollectionId, Collection> = BTreeMap::new();
    for op in ops {
        let collection = match collections.entry(op.id()) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => free.insert(Collection::load(conn, op.id())?),
        };
        let before = collection.frontiers.clone();
        collection.frontiers.admit(&op)?;
        if collection.frontiers != before {
            collection.store(conn)?;
        }
        match op {
            StashOp::Update { rows, .. } => {
                insert_all(tx, collection.id, &rows)?;
            }
            StashOp::Consolidate { .. } => consolidate(tx, collection)?,
            StashOp::Seal { .. } | StashOp::Compact { .. } | StashOp::ExpectUpper { .. } => {}
        }
    }
    Ok(())
}

/// The time under which merged rows are stored.
const FOLDED: Timestamp = Timestamp::MIN;

/// Merges the rows that `since` has passed into those that were merged before, key by key (ST-8).
fn consolidate(tx: &Tx<'_>, collection: &Collection) -> Result<(), StashError> {
    let (conn, id) = (tx.conn(), collection.id);
    let Some(since) = collection.frontiers.since.as_option() else {
        execute(
            conn,
            "DELETE FROM stash_rows WHERE collection = ?1",
            params![id],
        )?;
        return Ok(());
    };
    let sql = "SELECT key, number FROM stash_rows INDEXED BY stash_unfolded
               WHERE collection = ?1 AND number >= 0 AND time <= ?2";
    let mut passed: BTreeMap<Vec<u8>, Vec<i64>> = BTreeMap::new();
    {
        let mut statement = conn.prepare_cached(sql).map_err(native)?;
        let mut rows = statement.query(params![id, since]).map_err(native)?;
        while let Some(row) = rows.next().map_err(native)? {
            let number = row.get(1).map_err(native)?;
            match passed.get_mut(blob(row, 0)?) {
                Some(numbers) => numbers.push(number),
                None => {
                    passed.insert(blob(row, 0)?.to_vec(), vec![number]);
                }
            }
        }
    }
    for (key, numbers) in passed {
        fold_key(tx, id, &key, &numbers)?;
    }
    Ok(())
}

/// What the rows of one key and value add up to.
#[derive(Default)]
struct Folded {
    /// The merged row that there is already.
    row: Option<(i64, Diff)>,
    sum: i128,
}

fn fold_key(tx: &Tx<'_>, id: i64, key: &[u8], numbers: &[i64]) -> Result<(), StashError> {
    let conn = tx.conn();
    let mut folded: BTreeMap<Bytes, Folded> = BTreeMap::new();
    let mut add = |number: i64, row: RawRow| {
        let folded = folded.entry(row.value).or_default();
        folded.sum += i128::from(row.diff);
        if number < 0 {
            folded.row = Some((number, row.diff));
        }
    };
    let key = Bytes::copy_from_slice(key);
    {
        let sql = "SELECT number, value, time, diff, crc FROM stash_rows
                   WHERE collection = ?1 AND key = ?2 AND number < 0";
        let mut statement = conn.prepare_cached(sql).map_err(native)?;
        let mut rows = statement.query(params![id, &key[..]]).map_err(native)?;
        while let Some(row) = rows.next().map_err(native)? {
            let read = copy_row(row, id, key.clone())?;
            add(row.get(0).map_err(native)?, read);
        }
        let sql = "DELETE FROM stash_rows WHERE collection = ?1 AND key = ?2 AND number = ?3
                   RETURNING number, value, time, diff, crc";
        let mut statement = conn.prepare_cached(sql).map_err(native)?;
        for number in numbers {
            let values = params![id, &key[..], number];
            let mut rows = statement.query(values).map_err(native)?;
            let gone = || corrupt("an index names a row that is not there");
            let row = rows.next().map_err(native)?.ok_or_else(gone)?;
            let read = copy_row(row, id, key.clone())?;
            add(*number, read);
            // To the end, which is when the row is gone for good.
            rows.next().map_err(native)?;
        }
    }
    for (value, Folded { row, sum }) in folded {
        let diff = Diff::try_from(sum).map_err(|_beyond| StashError::DiffOverflow)?;
        if row.is_some_and(|(_, before)| before == diff) {
            continue;
        }
        let number = match row {
            Some((number, _)) => {
                let sql =
                    "DELETE FROM stash_rows WHERE collection = ?1 AND key = ?2 AND number = ?3";
                execute(conn, sql, params![id, &key[..], number])?;
                number
            }
            None => -tx.number(),
        };
        if diff != 0 {
            let row = RawRow {
                key: key.clone(),
                value,
                time: FOLDED,
                diff,
            };
            insert(conn, id, number, &row)?;
        }
    }
    Ok(())
}
