//! [`ChangeLog`]: a table of changes with their owners, and one of leases.
//!
//! It is as durable as the handle: a log for stores that survive more than it does would be none.

use std::time::SystemTime;

use async_trait::async_trait;
use larder_traits::stash::codec;
use larder_traits::{Change, ChangeId, ChangeLog, Fault, WriterId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::checksum::Sum;
use crate::error::{claimed, corrupt, native};
use crate::native::SqlitePlace;
use crate::time::{millis_reached, millis_until};
use crate::writer::{Tx, Undo};

/// The change log of a file.
#[derive(Clone, Debug)]
pub struct SqliteChangeLog(pub(crate) SqlitePlace);

#[async_trait]
impl ChangeLog for SqliteChangeLog {
    async fn record(&self, writer: WriterId, change: &Change) -> Result<(), Fault> {
        let change = change.clone();
        let record = move |tx: &Tx<'_>| {
            check_owner(tx.conn(), writer, change.id)?;
            store(tx.conn(), writer, &change)
        };
        self.0.write(Undo::Itself, record).await
    }

    async fn complete(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
        let complete = move |tx: &Tx<'_>| {
            check_owner(tx.conn(), writer, id)?;
            let sql = "DELETE FROM change_log WHERE id = ?1";
            execute(tx.conn(), sql, params![id.into_bytes()])
        };
        self.0.write(Undo::Everything, complete).await
    }

    async fn changes(&self, writer: WriterId) -> Result<Vec<Change>, Fault> {
        let look = move |conn: &Connection| {
            let sql = "SELECT id, writer, change, crc FROM change_log WHERE writer = ?1";
            select(conn, sql, params![writer.into_bytes()])
        };
        self.0.read(look).await
    }

    async fn renew(&self, writer: WriterId, until: SystemTime) -> Result<(), Fault> {
        // Not a moment less than what was asked for.
        let until = millis_until(until).unwrap_or(i64::MAX);
        let renew = move |tx: &Tx<'_>| {
            let conn = tx.conn();
            if lease_of(conn, writer)?.is_some_and(|lease| lease >= until) {
                return Ok(());
            }
            let sql = "INSERT INTO change_leases (writer, until, crc) VALUES (?1, ?2, ?3)
                       ON CONFLICT (writer) DO UPDATE SET until = ?2, crc = ?3";
            let crc = lease_sum(writer, until).get();
            execute(conn, sql, params![writer.into_bytes(), until, crc])
        };
        self.0.write(Undo::Everything, renew).await
    }

    async fn claim(
        &self,
        writer: WriterId,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<Change>, Fault> {
        let now = millis_reached(now);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let claim = move |tx: &Tx<'_>| {
            let conn = tx.conn();
            let sql = "SELECT id, change_log.writer, change, change_log.crc FROM change_log
                       LEFT JOIN change_leases ON change_leases.writer = change_log.writer
                       WHERE change_log.writer <> ?1 AND (until IS NULL OR until <= ?2)
                       LIMIT ?3";
            let abandoned = select(conn, sql, params![writer.into_bytes(), now, limit])?;
            for change in &abandoned {
                store(conn, writer, change)?;
            }
            Ok(abandoned)
        };
        self.0.write(Undo::Itself, claim).await
    }
}

fn execute(conn: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<(), Fault> {
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    statement.execute(values).map_err(native)?;
    Ok(())
}

/// Refuses a writer that is not, or no longer, the owner of the change `id`.
fn check_owner(conn: &Connection, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
    let sql = "SELECT writer FROM change_log WHERE id = ?1";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let owner = statement.query_row(params![id.into_bytes()], |row| row.get(0));
    let owner: Option<Vec<u8>> = owner.optional().map_err(native)?;
    match owner {
        Some(owner) if owner != writer.into_bytes() => Err(claimed(id)),
        _ => Ok(()),
    }
}

fn store(conn: &Connection, writer: WriterId, change: &Change) -> Result<(), Fault> {
    let sql = "INSERT INTO change_log (id, writer, change, crc) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (id) DO UPDATE SET writer = ?2, change = ?3, crc = ?4";
    let (id, writer) = (change.id.into_bytes(), writer.into_bytes());
    let change = codec::encode(change)?;
    let crc = change_sum(&id, &writer, &change).get();
    execute(conn, sql, params![id, writer, change, crc])
}

fn change_sum(id: &[u8], writer: &[u8], change: &[u8]) -> Sum {
    Sum::new().bytes(id).bytes(writer).bytes(change)
}

fn lease_sum(writer: WriterId, until: i64) -> Sum {
    Sum::new().bytes(&writer.into_bytes()).number(until)
}

fn lease_of(conn: &Connection, writer: WriterId) -> Result<Option<i64>, Fault> {
    let sql = "SELECT until, crc FROM change_leases WHERE writer = ?1";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let lease = statement.query_row(params![writer.into_bytes()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get(1)?))
    });
    let Some((until, crc)) = lease.optional().map_err(native)? else {
        return Ok(None);
    };
    lease_sum(writer, until).check(crc)?;
    Ok(Some(until))
}

fn select(
    conn: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<Change>, Fault> {
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let mut rows = statement.query(values).map_err(native)?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next().map_err(native)? {
        changes.push(read(row)?);
    }
    Ok(changes)
}

fn read(row: &Row<'_>) -> Result<Change, Fault> {
    let [id, writer, change] = [0, 1, 2].map(|at| row.get::<_, Vec<u8>>(at).map_err(native));
    let (id, writer, change) = (id?, writer?, change?);
    change_sum(&id, &writer, &change).check(row.get(3).map_err(native)?)?;
    let decoded: Change = codec::decode(&change)?;
    if decoded.id.into_bytes()[..] != id[..] {
        return Err(corrupt("a change is stored under another name"));
    }
    Ok(decoded)
}
