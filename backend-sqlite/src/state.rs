//! The one row that every write transaction reads first and writes last.
//!
//! It holds the *epoch*, by which an exclusive handle fences those before it (ST-14); the number of the last commit,
//! with the *marks* of the latest ones, by which a writer that lost the answer to a commit finds out whether it took
//! place (ST-13); and the source of numbers that are never used again.

use larder_traits::Fault;
use rusqlite::{Connection, params};

use crate::checksum::Sum;
use crate::error::{corrupt, native};

/// A random name for one commit.
pub(crate) type Mark = [u8; 8];

/// How many commits back a lost answer can be found.
const MARKS_KEPT: usize = 32;

pub(crate) struct State {
    pub(crate) epoch: i64,
    /// How many commits there have been.
    pub(crate) version: i64,
    /// The last number that was given out.
    pub(crate) number: i64,
    /// The marks of the last commits, the latest first.
    recent: Vec<u8>,
}

/// What became of a commit whose answer was lost.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    Landed,
    Missing,
    /// Too many others came after it.
    Lost,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            epoch: 1,
            version: 0,
            number: 0,
            recent: Vec::new(),
        }
    }

    pub(crate) fn load(conn: &Connection) -> Result<Self, Fault> {
        let sql = "SELECT epoch, version, number, recent, crc FROM larder_state WHERE id = 1";
        let mut statement = conn.prepare_cached(sql).map_err(native)?;
        let (state, crc) = statement
            .query_row([], |row| {
                let state = Self {
                    epoch: row.get(0)?,
                    version: row.get(1)?,
                    number: row.get(2)?,
                    recent: row.get(3)?,
                };
                Ok((state, row.get(4)?))
            })
            .map_err(native)?;
        state.sum().check(crc)?;
        // Far from the ends of their range, or something else is wrong.
        if state.version.min(state.number) < 0 || state.version.max(state.number) > i64::MAX / 2 {
            return Err(corrupt("a counter of the file is out of range"));
        }
        Ok(state)
    }

    /// Only the epoch, for calls that read.
    pub(crate) fn load_epoch(conn: &Connection) -> Result<i64, Fault> {
        Ok(Self::load(conn)?.epoch)
    }

    pub(crate) fn save(&self, conn: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO larder_state (id, epoch, version, number, recent, crc)
                   VALUES (1, ?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (id) DO UPDATE SET epoch = ?1, version = ?2, number = ?3, recent = ?4, crc = ?5";
        let crc = self.sum().get();
        let values = params![self.epoch, self.version, self.number, self.recent, crc];
        conn.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    /// Counts one more commit, of this mark.
    pub(crate) fn advance(&mut self, mark: Mark) {
        self.version += 1;
        self.recent.splice(0..0, mark);
        self.recent.truncate(MARKS_KEPT * mark.len());
    }

    /// What became of the commit of this mark that was made upon `version`.
    pub(crate) fn trace(&self, mark: Mark, version: i64) -> Trace {
        let since = usize::try_from(self.version - version);
        if self.recent.chunks_exact(mark.len()).any(|it| it == mark) {
            Trace::Landed
        } else if since.is_ok_and(|commits| commits < MARKS_KEPT) {
            Trace::Missing
        } else {
            Trace::Lost
        }
    }

    fn sum(&self) -> Sum {
        let numbers = Sum::new().number(self.epoch).number(self.version);
        numbers.number(self.number).bytes(&self.recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_traced_as_far_back_as_marks_are_kept() {
        let mut state = State::new();
        let mark = |n: u64| n.to_le_bytes();
        for n in 0..100 {
            let before = state.version;
            assert_eq!(state.trace(mark(n), before), Trace::Missing);
            state.advance(mark(n));
            assert_eq!(state.trace(mark(n), before), Trace::Landed);
        }
        assert_eq!(state.recent.len(), MARKS_KEPT * 8);
        assert_eq!(state.trace(mark(68), 68), Trace::Landed);
        assert_eq!(state.trace(mark(67), 67), Trace::Lost);
        assert_eq!(state.trace(mark(999), 69), Trace::Missing);
    }
}
