//! [`KvDriver`]: one table from bytes to bytes whose entries may end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::kv_client::zero_ttl;
use larder_traits::{Fault, KvClientError, KvDriver};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params};

use crate::checksum::Sum;
use crate::error::{bounded, corrupt, native};
use crate::native::SqlitePlace;
use crate::time::{millis_reached, millis_until};
use crate::writer::{SWEPT_MAX, Sweep, Tx, Undo};

/// The key-value entries of a file; a `KvClient` by its driver.
///
/// The empty key is a key like any other (KV-2). An entry with a time to live is dead from its deadline on (KV-3); a
/// deadline beyond what the file can hold is none.
#[derive(Clone, Debug)]
pub struct SqliteKvClient(pub(crate) SqlitePlace);

impl SqliteKvClient {
    /// The handle that this one was made from, to be [closed](SqlitePlace::close) for example (KV-8).
    #[must_use]
    pub fn place(&self) -> &SqlitePlace {
        &self.0
    }

    fn check_key(&self, key: &[u8]) -> Result<(), Fault> {
        let max = self.0.config().caps.kv_client.key_len_bytes_max;
        bounded("bytes of a key", key.len(), max)
    }
}

#[async_trait]
impl KvDriver for SqliteKvClient {
    async fn write(
        &self,
        key: &[u8],
        value: &[u8],
        ttl_secs: Option<u64>,
    ) -> Result<(), KvClientError> {
        if ttl_secs == Some(0) {
            return Err(zero_ttl());
        }
        self.check_key(key)?;
        let max = self.0.config().caps.kv_client.value_len_bytes_max;
        bounded("bytes of a value", value.len(), max)?;
        let (key, value) = (key.to_vec(), value.to_vec());
        let write = move |tx: &Tx<'_>| Ok(put(tx, &key, &value, ttl_secs)?);
        self.0.write(Undo::Everything, write).await
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError> {
        self.check_key(key)?;
        let key = key.to_vec();
        let config = Arc::clone(self.0.config());
        let look = move |conn: &Connection| Ok(get(conn, &key, config.clock.now())?);
        self.0.read(look).await
    }

    async fn read_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
        keys.iter().try_for_each(|key| self.check_key(key))?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.to_vec();
        let config = Arc::clone(self.0.config());
        let look = move |conn: &Connection| Ok(get_many(conn, &keys, config.clock.now())?);
        self.0.read(look).await
    }

    async fn remove(&self, key: &[u8]) -> Result<(), KvClientError> {
        self.check_key(key)?;
        let key = key.to_vec();
        let remove = move |tx: &Tx<'_>| {
            let sql = "DELETE FROM kv_entries WHERE key = ?1";
            let mut statement = tx.conn().prepare_cached(sql).map_err(native)?;
            statement.execute(params![key]).map_err(native)?;
            Ok(())
        };
        self.0.write(Undo::Everything, remove).await
    }
}

fn entry_sum(key: &[u8], value: &[u8], expires: Option<i64>) -> Sum {
    Sum::new().bytes(key).bytes(value).maybe(expires)
}

fn put(tx: &Tx<'_>, key: &[u8], value: &[u8], ttl_secs: Option<u64>) -> Result<(), Fault> {
    let now = tx.now();
    let deadline = ttl_secs.and_then(|secs| now.checked_add(Duration::from_secs(secs)));
    let expires = deadline.and_then(millis_until);
    let sql = "INSERT INTO kv_entries (key, value, expires, crc) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (key) DO UPDATE SET value = ?2, expires = ?3, crc = ?4";
    let crc = entry_sum(key, value, expires).get();
    let mut statement = tx.conn().prepare_cached(sql).map_err(native)?;
    let values = params![key, value, expires, crc];
    statement.execute(values).map_err(native)?;
    if tx.is_first_sweep(Sweep::Kv) {
        sweep(tx.conn(), now)?;
    }
    Ok(())
}

/// Removes some of what has expired, the oldest first. An index knows them, so that nothing to do costs nothing.
fn sweep(conn: &Connection, now: SystemTime) -> Result<(), Fault> {
    let sql = "DELETE FROM kv_entries WHERE key IN (
                   SELECT key FROM kv_entries INDEXED BY kv_expiry
                   WHERE expires IS NOT NULL AND expires <= ?1 ORDER BY expires LIMIT ?2)";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let limit = i64::try_from(SWEPT_MAX).unwrap_or(i64::MAX);
    let values = params![millis_reached(now), limit];
    statement.execute(values).map_err(native)?;
    Ok(())
}

fn get(conn: &Connection, key: &[u8], now: SystemTime) -> Result<Option<Bytes>, Fault> {
    let sql = "SELECT value, expires, crc FROM kv_entries WHERE key = ?1";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let mut rows = statement.query(params![key]).map_err(native)?;
    match rows.next().map_err(native)? {
        Some(row) => live(row, key, now),
        None => Ok(None),
    }
}

/// One statement over all keys; each row names the place of its key in the input.
fn get_many(
    conn: &Connection,
    keys: &[Bytes],
    now: SystemTime,
) -> Result<Vec<Option<Bytes>>, Fault> {
    let sql = "SELECT entry.value, entry.expires, entry.crc, wanted.rowid
               FROM rarray(?1) AS wanted CROSS JOIN kv_entries AS entry
               ON entry.key = wanted.value";
    let wanted: Vec<Value> = keys.iter().map(|key| Value::Blob(key.to_vec())).collect();
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let mut rows = statement.query(params![Rc::new(wanted)]).map_err(native)?;
    let mut values = vec![None; keys.len()];
    while let Some(row) = rows.next().map_err(native)? {
        let place: i64 = row.get(3).map_err(native)?;
        let place = usize::try_from(place)
            .ok()
            .and_then(|n| n.checked_sub(FIRST_PLACE));
        let found = place.and_then(|place| Some((keys.get(place)?, values.get_mut(place)?)));
        let (key, value) = found.ok_or_else(|| corrupt("an answer to no question"))?;
        *value = live(row, key, now)?;
    }
    Ok(values)
}

/// The number that the first key of an array has.
const FIRST_PLACE: usize = 1;

/// The value of an entry that is alive.
fn live(row: &Row<'_>, key: &[u8], now: SystemTime) -> Result<Option<Bytes>, Fault> {
    let value = row.get_ref(0).map_err(native)?;
    let value = value
        .as_blob()
        .map_err(|_other_type| corrupt("a value is no bytes"))?;
    let expires: Option<i64> = row.get(1).map_err(native)?;
    entry_sum(key, value, expires).check(row.get(2).map_err(native)?)?;
    if expires.is_some_and(|at| at <= millis_reached(now)) {
        return Ok(None);
    }
    Ok(Some(Bytes::copy_from_slice(value)))
}
