//! The file: whose it is, of which version, and how it becomes one of ours.
//!
//! A file of another program is refused before anything is written to it, and so is one of a newer version. One of an
//! older version is brought up to date in the transaction that finds it so.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use larder_traits::{Durability, ErrorKind, Fault};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::config::SqliteConfig;
use crate::error::{is_busy, native, waited};
use crate::state::State;

/// Marks our files, in the header that SQLite keeps for this.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"Lard");

/// What takes a file from each version to the next; an empty file has version 0. Only ever appended to.
const STEPS: &[&str] = &[V1];

/// Rows of a stash are kept by key. Those that a consolidation has merged have a negative `number`; the others stand in
/// `stash_unfolded` as well, by time, which is where a consolidation finds what it has to do and nothing else.
/// Payloads of objects lie in a table of their own, so that reading metadata never touches them.
const V1: &str = "
    CREATE TABLE larder_state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        epoch INTEGER NOT NULL,
        version INTEGER NOT NULL,
        number INTEGER NOT NULL,
        recent BLOB NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE stash_collections (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        since INTEGER,
        upper INTEGER,
        crc INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE stash_rows (
        collection INTEGER NOT NULL,
        key BLOB NOT NULL,
        number INTEGER NOT NULL,
        value BLOB NOT NULL,
        time INTEGER NOT NULL,
        diff INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        PRIMARY KEY (collection, key, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX stash_unfolded ON stash_rows (collection, time) WHERE number >= 0;

    CREATE TABLE kv_entries (
        key BLOB PRIMARY KEY,
        value BLOB NOT NULL,
        expires INTEGER,
        crc INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX kv_expiry ON kv_entries (expires) WHERE expires IS NOT NULL;

    CREATE TABLE hv_rows (
        id TEXT PRIMARY KEY,
        number INTEGER NOT NULL,
        redirect INTEGER NOT NULL,
        about BLOB NOT NULL,
        expires INTEGER,
        crc INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX hv_expiry ON hv_rows (expires) WHERE expires IS NOT NULL;
    CREATE TABLE hv_payloads (
        number INTEGER PRIMARY KEY,
        payload BLOB NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE change_log (
        id BLOB PRIMARY KEY,
        writer BLOB NOT NULL,
        change BLOB NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX change_writer ON change_log (writer);
    CREATE TABLE change_leases (
        writer BLOB PRIMARY KEY,
        until INTEGER NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// Statements that one connection keeps prepared; all that this crate has.
const STATEMENTS_KEPT: usize = 64;

/// What SQLite takes as a time to wait is a positive `int` of milliseconds, and the library panics above that.
const BUSY_WAIT_MAX: Duration = Duration::from_millis(2_147_483_647);
const _: () = assert!(BUSY_WAIT_MAX.as_millis() == i32::MAX.unsigned_abs() as u128);

/// How long to wait before trying again for what another connection has.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// The same file for SQLite as for the caller, whatever becomes of the current folder: some relative paths mean a
/// database in memory to SQLite, or a URI.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    std::path::absolute(path).map_err(|e| {
        let message = "the path names no file";
        Fault::not_applied(ErrorKind::InvalidInput, message).because(e)
    })
}

/// Opens the connection that writes; the file is one of ours and of this version when it returns. Also returns the
/// epoch that the handle belongs to.
pub(crate) fn open_writer(config: &SqliteConfig) -> Result<(Connection, i64), Fault> {
    let deadline = Instant::now().checked_add(config.wait);
    loop {
        match try_open_writer(config) {
            Ok(opened) => return opened,
            Err(e) if !is_busy(&e) => return Err(native(e)),
            Err(_) if deadline.is_some_and(|at| at <= Instant::now()) => {
                return Err(waited().not_applied());
            }
            Err(_) => sleep(BUSY_PAUSE),
        }
    }
}

/// Opens a connection that reads. The file was made one of ours by [`open_writer`] before.
pub(crate) fn open_reader(config: &SqliteConfig) -> Result<Connection, Fault> {
    let open = || {
        let conn = connect(config, OpenFlags::empty())?;
        conn.busy_timeout(config.wait.min(BUSY_WAIT_MAX))?;
        conn.pragma_update(None, "query_only", true)?;
        rusqlite::vtab::array::load_module(&conn)?;
        Ok(conn)
    };
    open().map_err(native)
}

/// The outer error is SQLite's own, which may be a passing one; the inner one is a refusal of the file.
fn try_open_writer(config: &SqliteConfig) -> rusqlite::Result<Result<(Connection, i64), Fault>> {
    let mut conn = connect(config, OpenFlags::SQLITE_OPEN_CREATE)?;
    // The writer waits in a loop of its own, in which it can answer callers that wait no longer.
    conn.busy_timeout(Duration::ZERO)?;

    // Look before anything is written: the file may belong to somebody else.
    let look = conn.transaction()?;
    let version = identify(&look)?;
    drop(look);
    if let Err(refusal) = version {
        return Ok(Err(refusal));
    }
    let mode: String = conn.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0))?;
    if mode != "wal" {
        let message = "the file system of the file does not allow a write-ahead log";
        return Ok(Err(Fault::not_applied(ErrorKind::Unsupported, message)));
    }

    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = match identify(&tx)? {
        Ok(version) => version,
        Err(refusal) => return Ok(Err(refusal)),
    };
    migrate(&tx, version, STEPS)?;
    let mut state = match State::load(&tx) {
        Ok(state) => state,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if config.exclusive {
        state.epoch += 1;
        state.save(&tx)?;
    }
    tx.commit()?;
    Ok(Ok((conn, state.epoch)))
}

fn connect(config: &SqliteConfig, extra: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
    let conn = Connection::open_with_flags(&config.path, flags)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let synchronous = match config.caps.durability {
        Durability::Power => "FULL",
        Durability::Process => "NORMAL",
        Durability::None => "OFF",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    // Where a plain sync stops at the drive's cache, this one does not; elsewhere it means nothing.
    conn.pragma_update(None, "fullfsync", true)?;
    conn.pragma_update(None, "checkpoint_fullfsync", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    // A mapped file that somebody cuts short would be a signal and not an error.
    let _off: Option<i64> = conn
        .query_row("PRAGMA mmap_size = 0", [], |row| row.get(0))
        .ok();
    conn.query_row("PRAGMA journal_size_limit = 67108864", [], |_| Ok(()))?;
    Ok(conn)
}

/// The version of our file, 0 for an empty one; or why it is not for us.
fn identify(conn: &Connection) -> rusqlite::Result<Result<usize, Fault>> {
    let id: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let things: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    let refused = |kind, message: String| Ok(Err(Fault::not_applied(kind, message)));
    match (id, usize::try_from(version)) {
        (0, Ok(0)) if things == 0 => Ok(Ok(0)),
        (APPLICATION_ID, Ok(version)) if (1..=STEPS.len()).contains(&version) => Ok(Ok(version)),
        (APPLICATION_ID, Ok(newer)) if newer > STEPS.len() => {
            let ours = STEPS.len();
            let message =
                format!("the file has version {newer}, and this program knows up to {ours}");
            refused(ErrorKind::Unsupported, message)
        }
        (APPLICATION_ID, _) => refused(
            ErrorKind::Corrupt,
            format!("the file claims to have version {version}"),
        ),
        _ => refused(
            ErrorKind::InvalidInput,
            "the file is a SQLite file of another program".to_owned(),
        ),
    }
}

fn migrate(conn: &Connection, version: usize, steps: &[&str]) -> rusqlite::Result<()> {
    for step in &steps[version..] {
        conn.execute_batch(step)?;
    }
    if version == 0 {
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        State::new().save(conn)?;
    }
    if version < steps.len() {
        let now = i64::try_from(steps.len()).expect("there are a few steps");
        conn.pragma_update(None, "user_version", now)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_taken_once_and_in_order() {
        let conn = Connection::open_in_memory().unwrap();
        let steps = [V1, "CREATE TABLE second (x)", "ALTER TABLE second ADD y"];
        migrate(&conn, 0, &steps[..1]).unwrap();
        let state = State::load(&conn).unwrap();
        migrate(&conn, 1, &steps).unwrap();
        migrate(&conn, 3, &steps).unwrap();
        conn.execute("INSERT INTO second VALUES (1, 2)", [])
            .unwrap();
        assert_eq!(State::load(&conn).unwrap().epoch, state.epoch);
        let version: i64 = conn
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        assert_eq!(version, 3);
    }

    #[test]
    fn the_first_version_is_as_it_was_published() {
        // Pinned: a step that has been published must never change.
        let sum = crate::checksum::Sum::new().bytes(V1.as_bytes()).get();
        assert_eq!((sum, APPLICATION_ID), (PINNED, 0x4C61_7264));
    }

    const PINNED: i64 = 3_791_698_504;
}
