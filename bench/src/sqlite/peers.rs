//! Two embedded key-value stores, each in the form that its documentation gives for durable writes from many threads.

use std::ops::Range;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use redb::{Durability, ReadableDatabase, TableDefinition};
use tempfile::TempDir;

use super::key;
use crate::harness::Result;

pub(super) const VALUE_LEN: usize = 256;

/// Not all the same, so that nobody's compression makes less of it than others write.
pub(super) fn value(n: usize) -> Vec<u8> {
    let mut state = n as u64 | 1 << 40;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(VALUE_LEN / 8).flatten().collect()
}

/// One writer at a time, and each commit synced: `Durability::Immediate`, which is its default and the only one that
/// lasts. Readers never wait.
pub(super) struct Redb {
    db: redb::Database,
    _folder: TempDir,
}

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("kv");

impl Redb {
    pub(super) fn new(disk: &TempDir) -> Result<Self> {
        let folder = tempfile::tempdir_in(disk.path())?;
        let db = redb::Database::create(folder.path().join("db"))?;
        Ok(Self {
            db,
            _folder: folder,
        })
    }

    pub(super) fn put(&self, key: &str, value: &[u8]) -> Result {
        let mut tx = self.db.begin_write()?;
        tx.set_durability(Durability::Immediate)?;
        tx.open_table(TABLE)?.insert(key.as_bytes(), value)?;
        tx.commit()?;
        Ok(())
    }

    pub(super) fn put_all(&self, numbers: Range<usize>) -> Result {
        let tx = self.db.begin_write()?;
        {
            let mut table = tx.open_table(TABLE)?;
            for n in numbers {
                table.insert(key(n).as_bytes(), &value(n)[..])?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let tx = self.db.begin_read()?;
        let found = tx.open_table(TABLE)?.get(key.as_bytes())?;
        Ok(found.map(|it| it.value().to_vec()))
    }
}

/// Threads insert into one keyspace, and each syncs the journal before it says that its own write is done.
pub(super) struct Fjall {
    db: Database,
    kv: Keyspace,
    _folder: TempDir,
}

impl Fjall {
    pub(super) fn new(disk: &TempDir) -> Result<Self> {
        let folder = tempfile::tempdir_in(disk.path())?;
        let db = Database::builder(folder.path().join("db")).open()?;
        let kv = db.keyspace("kv", KeyspaceCreateOptions::default)?;
        Ok(Self {
            db,
            kv,
            _folder: folder,
        })
    }

    pub(super) fn put(&self, key: &str, value: &[u8]) -> Result {
        self.kv.insert(key, value)?;
        self.db.persist(PersistMode::SyncData)?;
        Ok(())
    }

    pub(super) fn put_all(&self, numbers: Range<usize>) -> Result {
        for n in numbers {
            self.kv.insert(key(n), value(n))?;
        }
        self.db.persist(PersistMode::SyncData)?;
        Ok(())
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.kv.get(key)?.map(|it| it.to_vec()))
    }
}
