//! What somebody would write who needs one of these operations and knows SQLite: prepared statements, one connection,
//! the pragmas that ours has.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use larder_traits::stash::codec;
use rusqlite::{Connection, params};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::harness::Result;

pub(super) struct ByHand {
    conn: Connection,
    folder: TempDir,
}

type Rows = Vec<((String, String), i64, i64)>;

const TABLES: &str = "
    CREATE TABLE stash (key BLOB NOT NULL, value BLOB NOT NULL, time INTEGER NOT NULL, diff INTEGER NOT NULL) STRICT;
    CREATE INDEX stash_key ON stash (key);
    CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE objects (id TEXT PRIMARY KEY, about BLOB NOT NULL, payload BLOB NOT NULL) STRICT;
";

impl ByHand {
    pub(super) fn new(disk: &TempDir) -> Result<Self> {
        let folder = tempfile::tempdir_in(disk.path())?;
        let conn = open(&folder.path().join("db"))?;
        conn.execute_batch(TABLES)?;
        Ok(Self { conn, folder })
    }

    pub(super) fn update(&self, key: &str, value: &str, time: i64, diff: i64) -> Result {
        let (key, value) = (encode(key)?, encode(value)?);
        let mut insert = self.conn.prepare_cached(INSERT)?;
        insert.execute(params![key, value, time, diff])?;
        Ok(())
    }

    pub(super) fn update_many(&mut self, rows: &Rows) -> Result {
        let tx = self.conn.transaction()?;
        {
            let mut insert = tx.prepare_cached(INSERT)?;
            for ((key, value), time, diff) in rows {
                let (key, value) = (encode(key)?, encode(value)?);
                insert.execute(params![key, value, time, diff])?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    pub(super) fn iter(&self) -> Result<Rows> {
        let mut select = self
            .conn
            .prepare_cached("SELECT key, value, time, diff FROM stash")?;
        let mut found = select.query([])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let key = codec::decode(row.get_ref(0)?.as_blob()?)?;
            let value = codec::decode(row.get_ref(1)?.as_blob()?)?;
            rows.push(((key, value), row.get(2)?, row.get(3)?));
        }
        Ok(rows)
    }

    pub(super) fn put(&self, key: &str, value: &[u8]) -> Result {
        let mut put = self.conn.prepare_cached(PUT)?;
        put.execute(params![key.as_bytes(), value])?;
        Ok(())
    }

    pub(super) fn put_all(&mut self, entries: impl Iterator<Item = (String, Vec<u8>)>) -> Result {
        let tx = self.conn.transaction()?;
        {
            let mut put = tx.prepare_cached(PUT)?;
            for (key, value) in entries {
                put.execute(params![key.as_bytes(), value])?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// Another connection to the same file.
    pub(super) fn reader(&self) -> Result<Reader> {
        let conn = open(&self.folder.path().join("db"))?;
        Ok(Reader(conn))
    }

    /// An object, unless there is one: the condition that a store of objects and redirects has to ask.
    pub(super) fn put_object(&self, id: &str, payload: &[u8]) -> Result {
        let mut put = self.conn.prepare_cached(PUT_OBJECT)?;
        put.execute(params![id, &b"{}"[..], payload])?;
        Ok(())
    }

    /// Several of them in one transaction, which is what sharing a commit can come to at best.
    pub(super) fn put_objects(&mut self, ids: &[String], payload: &[u8]) -> Result {
        let tx = self.conn.transaction()?;
        {
            let mut put = tx.prepare_cached(PUT_OBJECT)?;
            for id in ids {
                put.execute(params![id, &b"{}"[..], payload])?;
            }
        }
        tx.commit()?;
        Ok(())
    }
}

/// A connection that reads, for a thread of its own.
pub(super) struct Reader(Connection);

impl Reader {
    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let mut get = self
            .0
            .prepare_cached("SELECT value FROM kv WHERE key = ?1")?;
        let mut found = get.query(params![key.as_bytes()])?;
        let value = found.next()?.map(|row| row.get(0)).transpose()?;
        Ok(value)
    }
}

/// The same on a thread of its own, to which callers that must not block send what they want: what the way there and
/// back costs, and nothing else.
pub(super) struct OnThread {
    jobs: mpsc::Sender<Job>,
}

struct Job {
    row: (String, String),
    answer: oneshot::Sender<std::result::Result<(), String>>,
}

impl OnThread {
    pub(super) fn new(disk: &TempDir) -> Result<Self> {
        let hand = ByHand::new(disk)?;
        let (jobs, to_do) = mpsc::channel::<Job>();
        // It ends with the sender.
        let _detached = thread::spawn(move || {
            for Job { row, answer } in to_do {
                let done = hand.update(&row.0, &row.1, 1, 1);
                // Nobody listens where the bench has failed.
                let _gone = answer.send(done.map_err(|e| e.to_string()));
            }
        });
        Ok(Self { jobs })
    }

    pub(super) async fn update(&self, key: String, value: String) -> Result {
        let (answer, answered) = oneshot::channel();
        let row = (key, value);
        self.jobs
            .send(Job { row, answer })
            .map_err(|_gone| "the thread is gone")?;
        Ok(answered.await??)
    }
}

const PUT: &str = "INSERT OR REPLACE INTO kv (key, value) VALUES (?1, ?2)";
const PUT_OBJECT: &str = "INSERT INTO objects (id, about, payload) VALUES (?1, ?2, ?3)
                          ON CONFLICT (id) DO UPDATE SET about = ?2, payload = ?3";

const INSERT: &str = "INSERT INTO stash (key, value, time, diff) VALUES (?1, ?2, ?3, ?4)";

/// A text in the encoding of ours. Ours proves each encoding by decoding it; nobody would do that by hand.
fn encode(text: &str) -> Result<Vec<u8>> {
    let mut bytes = match u8::try_from(text.len())? {
        len @ 0..32 => vec![0xA0 | len],
        len => vec![0xD9, len],
    };
    bytes.extend_from_slice(text.as_bytes());
    Ok(bytes)
}

fn open(path: &Path) -> Result<Connection> {
    let conn = Connection::open(path)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err("the disk cannot keep a write-ahead log".into());
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "fullfsync", true)?;
    conn.pragma_update(None, "checkpoint_fullfsync", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(conn)
}
