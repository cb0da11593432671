//! A stash and operations on it as bytes: numbers of eight bytes, and lengths before everything else.

use bytes::Bytes;
use larder_traits::stash::driver::{Frontiers, RawRow, StashOp};
use larder_traits::{Antichain, CollectionId, Timestamp};

use super::super::super::stash::{Collection, State};

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn signed(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn len(&mut self, len: usize) {
        self.number(u64::try_from(len).expect("a length fits 64 bits"));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.len(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn frontier(&mut self, frontier: &Antichain<Timestamp>) {
        self.len(frontier.elements().len());
        for time in frontier.elements() {
            self.signed(*time);
        }
    }

    fn rows(&mut self, rows: &[RawRow]) {
        self.len(rows.len());
        for row in rows {
            self.bytes(&row.key);
            self.bytes(&row.value);
            self.signed(row.time);
            self.signed(row.diff);
        }
    }
}

/// `None` where it is not what a writer wrote.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn word(&mut self) -> Option<[u8; 8]> {
        let (word, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(*word)
    }

    fn number(&mut self) -> Option<u64> {
        self.word().map(u64::from_le_bytes)
    }

    fn signed(&mut self) -> Option<i64> {
        self.word().map(i64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn id(&mut self) -> Option<CollectionId> {
        self.number().map(CollectionId::new)
    }

    fn frontier(&mut self) -> Option<Antichain<Timestamp>> {
        match self.number()? {
            0 => Some(Antichain::new()),
            _ => self.signed().map(Antichain::from_elem),
        }
    }

    fn row(&mut self) -> Option<RawRow> {
        Some(RawRow {
            key: Bytes::copy_from_slice(self.bytes()?),
            value: Bytes::copy_from_slice(self.bytes()?),
            time: self.signed()?,
            diff: self.signed()?,
        })
    }

    fn rows(&mut self) -> Option<Vec<RawRow>> {
        let count = self.number()?;
        (0..count).map(|_| self.row()).collect()
    }
}

pub(super) fn state_to(state: &State) -> Vec<u8> {
    let mut to = Writer::default();
    to.number(state.next);
    to.len(state.names.len());
    for (name, id) in &state.names {
        to.bytes(name.as_bytes());
        to.number(id.get());
    }
    to.len(state.collections.len());
    for (id, collection) in &state.collections {
        to.number(id.get());
        to.frontier(&collection.frontiers.since);
        to.frontier(&collection.frontiers.upper);
        to.rows(&collection.rows);
    }
    to.0
}

pub(super) fn state_from(bytes: &[u8]) -> Option<State> {
    let mut from = Reader(bytes);
    let mut state = State {
        next: from.number()?,
        ..State::default()
    };
    for _ in 0..from.number()? {
        let name = from.text()?;
        state.names.insert(name, from.id()?);
    }
    for _ in 0..from.number()? {
        let id = from.id()?;
        let frontiers = Frontiers {
            since: from.frontier()?,
            upper: from.frontier()?,
        };
        let rows = from.rows()?;
        state.collections.insert(id, Collection { frontiers, rows });
    }
    Some(state)
}

pub(super) fn ops_to(ops: &[StashOp]) -> Vec<u8> {
    let mut to = Writer::default();
    to.len(ops.len());
    for op in ops {
        let (kind, frontier, rows) = match op {
            StashOp::Update { rows, .. } => (0, None, Some(rows)),
            StashOp::Seal { upper, .. } => (1, Some(upper), None),
            StashOp::Compact { since, .. } => (2, Some(since), None),
            StashOp::Consolidate { .. } => (3, None, None),
            StashOp::ExpectUpper { upper, .. } => (4, Some(upper), None),
        };
        to.number(kind);
        to.number(op.id().get());
        to.frontier(frontier.unwrap_or(&Antichain::new()));
        to.rows(rows.map_or(&[], Vec::as_slice));
    }
    to.0
}

pub(super) fn ops_from(bytes: &[u8]) -> Option<Vec<StashOp>> {
    let mut from = Reader(bytes);
    let count = from.number()?;
    (0..count)
        .map(|_| {
            let (kind, id) = (from.number()?, from.id()?);
            let (frontier, rows) = (from.frontier()?, from.rows()?);
            Some(match kind {
                0 => StashOp::Update { id, rows },
                1 => StashOp::Seal {
                    id,
                    upper: frontier,
                },
                2 => StashOp::Compact {
                    id,
                    since: frontier,
                },
                3 => StashOp::Consolidate { id },
                _ => StashOp::ExpectUpper {
                    id,
                    upper: frontier,
                },
            })
        })
        .collect()
}
