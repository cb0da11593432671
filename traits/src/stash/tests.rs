//! The blanket impl over a driver of a few lines, and the provided peeks over an implementor of nothing but the
//! required methods.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::driver::{check_bounds, check_name, fold};
use super::*;
use crate::{Classify, ErrorKind, Fault, Outcome};

mod model;
mod provided;

/// Nothing in here ever waits, so one poll is enough.
fn run<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a future of these tests waited"),
    }
}

fn at(time: Timestamp) -> Antichain<Timestamp> {
    Antichain::from_elem(time)
}

/// A driver as small as one can be.
#[derive(Debug, Default)]
struct Tiny {
    state: Mutex<State>,
    /// What was asked of it, one letter a call: rows of one key, all rows, none, a commit.
    calls: Mutex<String>,
    /// Answers with all rows when it is asked for those of a key.
    sloppy: bool,
}

#[derive(Clone, Debug, Default)]
struct State {
    ids: u64,
    names: BTreeMap<String, CollectionId>,
    collections: BTreeMap<CollectionId, (Frontiers, Vec<RawRow>)>,
}

impl Tiny {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn called(&self, what: char) {
        self.calls.lock().unwrap().push(what);
    }

    fn take_calls(&self) -> String {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// The rows as they are stored.
    fn raw(&self, id: CollectionId) -> Vec<RawRow> {
        self.state().collections[&id].1.clone()
    }
}

#[async_trait]
impl StashDriver for Tiny {
    async fn open(&self, name: &str) -> Result<CollectionId, StashError> {
        let mut state = self.state();
        if let Some(id) = state.names.get(name) {
            return Ok(*id);
        }
        state.ids += 1;
        let id = CollectionId::new(state.ids);
        state.names.insert(name.to_owned(), id);
        state.collections.insert(id, Default::default());
        Ok(id)
    }

    async fn names(&self) -> Result<Vec<(String, CollectionId)>, StashError> {
        Ok(self
            .state()
            .names
            .iter()
            .rev()
            .map(|(name, id)| (name.clone(), *id))
            .collect())
    }

    async fn discard(&self, name: &str) -> Result<bool, StashError> {
        let mut state = self.state();
        let id = state.names.remove(name);
        Ok(id.is_some_and(|id| state.collections.remove(&id).is_some()))
    }

    async fn snapshot(&self, id: CollectionId, rows: Rows<'_>) -> Result<Snapshot, StashError> {
        let state = self.state();
        let (frontiers, stored) = state
            .collections
            .get(&id)
            .ok_or(StashError::NoCollection { id })?;
        let rows = match rows {
            Rows::None => {
                self.called('n');
                Vec::new()
            }
            Rows::Key(key) => {
                self.called('k');
                stored
                    .iter()
                    .filter(|row| row.key == key || self.sloppy)
                    .cloned()
                    .collect()
            }
            Rows::All => {
                self.called('a');
                stored.clone()
            }
        };
        Ok(Snapshot {
            frontiers: frontiers.clone(),
            rows,
        })
    }

    async fn commit(&self, ops: Vec<StashOp>) -> Result<(), StashError> {
        self.called('c');
        let mut state = self.state();
        let mut next = state.clone();
        for op in ops {
            let id = op.id();
            let (frontiers, rows) = next
                .collections
                .get_mut(&id)
                .ok_or(StashError::NoCollection { id })?;
            frontiers.admit(&op)?;
            match op {
                StashOp::Update { rows: new, .. } => rows.extend(new),
                StashOp::Consolidate { .. } => {
                    *rows = fold(std::mem::take(rows), frontiers.since.borrow())?
                }
                StashOp::Seal { .. } | StashOp::Compact { .. } | StashOp::ExpectUpper { .. } => {}
            }
        }
        *state = next;
        Ok(())
    }
}

fn open<K: Data, V: Data>(stash: &mut impl Stash) -> StashCollection<K, V> {
    run(stash.collection("c")).unwrap()
}

type Words = StashCollection<String, i64>;

fn word(key: &str, value: i64, time: Timestamp, diff: Diff) -> ((String, i64), Timestamp, Diff) {
    ((key.to_owned(), value), time, diff)
}

#[test]
fn a_new_collection_is_empty_and_cannot_be_peeked() {
    let mut stash = Tiny::default();
    let c: Words = open(&mut stash);
    assert_eq!(run(stash.since(c)).unwrap(), at(i64::MIN));
    assert_eq!(run(stash.upper(c)).unwrap(), at(i64::MIN));
    assert_eq!(run(stash.iter(c)).unwrap(), []);
    assert_eq!(run(stash.iter_key(c, &"x".to_owned())).unwrap(), []);
    assert!(matches!(
        run(stash.peek_timestamp(c)),
        Err(StashError::NothingSealed { .. })
    ));
    assert!(matches!(
        run(stash.peek(c)),
        Err(StashError::NothingSealed { .. })
    ));
    assert_eq!(open::<String, i64>(&mut stash), c);
}

#[test]
fn rows_are_sorted_by_the_types_and_not_by_their_bytes() {
    let mut stash = Tiny::default();
    let c: StashCollection<i16, Reverse<i16>> = open(&mut stash);
    let rows = [200, 1, -1].map(|n| ((n, Reverse(n)), 0, 1));
    run(stash.update_many(c, rows)).unwrap();
    run(stash.update_many(c, [200, 1, -1].map(|n| ((1, Reverse(n)), 0, 1)))).unwrap();
    let keys: Vec<_> = run(stash.iter(c))
        .unwrap()
        .into_iter()
        .map(|((k, v), ..)| (k, v.0))
        .collect();
    assert_eq!(keys, [(-1, -1), (1, 200), (1, 1), (1, -1), (200, 200)]);
    let values: Vec<_> = run(stash.iter_key(c, &1))
        .unwrap()
        .into_iter()
        .map(|(v, _, d)| (v.0, d))
        .collect();
    assert_eq!(values, [(200, 1), (1, 2), (-1, 1)]);
}

#[test]
fn reads_advance_times_sum_and_drop_zero() {
    let mut stash = Tiny::default();
    let c: Words = open(&mut stash);
    let rows = [
        word("a", 1, 0, 1),
        word("a", 1, 2, 1),
        word("a", 1, 5, -2),
        word("b", 1, 1, 3),
        word("b", 1, 4, -3),
        word("c", 1, 9, -7),
        word("d", 1, 9, 0),
    ];
    run(stash.update_many(c, rows)).unwrap();
    run(stash.seal(c, at(6).borrow())).unwrap();
    run(stash.compact(c, at(4).borrow())).unwrap();
    let expected = [word("a", 1, 4, 2), word("a", 1, 5, -2), word("c", 1, 9, -7)];
    for _ in 0..3 {
        assert_eq!(run(stash.iter(c)).unwrap(), expected);
        assert_eq!(
            run(stash.iter_key(c, &"a".to_owned())).unwrap(),
            [(1, 4, 2), (1, 5, -2)]
        );
        assert_eq!(run(stash.peek_timestamp(c)).unwrap(), 5);
        assert_eq!(run(stash.peek(c)).unwrap(), []);
        run(stash.consolidate(c)).unwrap();
    }
    assert_eq!(stash.raw(c.id()).len(), 3);

    run(stash.seal(c, Antichain::new().borrow())).unwrap();
    assert_eq!(run(stash.peek_timestamp(c)).unwrap(), i64::MAX);
    assert_eq!(run(stash.peek(c)).unwrap(), [("c".to_owned(), 1, -7)]);
    run(stash.compact(c, Antichain::new().borrow())).unwrap();
    assert!(matches!(run(stash.iter(c)), Err(StashError::SinceEmpty)));
    assert!(matches!(
        run(stash.iter_key(c, &"a".to_owned())),
        Err(StashError::SinceEmpty)
    ));
    assert!(matches!(
        run(stash.peek(c)),
        Err(StashError::NothingSealed { .. })
    ));
    run(stash.consolidate(c)).unwrap();
    assert_eq!(stash.raw(c.id()), []);
}

#[test]
fn only_the_final_sum_has_to_fit() {
    let mut stash = Tiny::default();
    let c: Words = open(&mut stash);
    let key = "a".to_owned();
    run(stash.update_many(c, [i64::MAX, i64::MAX, 5].map(|diff| word("a", 1, 0, diff)))).unwrap();
    run(stash.seal(c, at(1).borrow())).unwrap();
    assert!(matches!(run(stash.iter(c)), Err(StashError::DiffOverflow)));
    assert!(matches!(
        run(stash.iter_key(c, &key)),
        Err(StashError::DiffOverflow)
    ));
    assert!(matches!(run(stash.peek(c)), Err(StashError::DiffOverflow)));
    let before = stash.raw(c.id());
    assert!(matches!(
        run(stash.consolidate(c)),
        Err(StashError::DiffOverflow)
    ));
    assert_eq!(stash.raw(c.id()), before);

    // At another time it does not help; at the same one it does.
    run(stash.update(c, (key.clone(), 1), 1, -i64::MAX)).unwrap();
    assert!(matches!(run(stash.iter(c)), Err(StashError::DiffOverflow)));
    run(stash.seal(c, at(2).borrow())).unwrap();
    run(stash.compact(c, at(1).borrow())).unwrap();
    assert!(matches!(run(stash.iter(c)), Err(StashError::DiffOverflow)));
    run(stash.update(c, (key.clone(), 1), 2, -5)).unwrap();
    run(stash.seal(c, at(3).borrow())).unwrap();
    run(stash.compact(c, at(2).borrow())).unwrap();
    assert_eq!(run(stash.iter(c)).unwrap(), [word("a", 1, 2, i64::MAX)]);
    run(stash.consolidate(c)).unwrap();
    assert_eq!(run(stash.peek(c)).unwrap(), [(key, 1, i64::MAX)]);
}

#[test]
fn peeks_of_one_value() {
    let mut stash = Tiny::default();
    let c: Words = open(&mut stash);
    let [a, b] = ["a", "b"].map(str::to_owned);
    run(stash.update_many(
        c,
        [word("a", 1, 0, 1), word("b", 2, 0, 1), word("b", 3, 1, 1)],
    ))
    .unwrap();
    run(stash.seal(c, at(1).borrow())).unwrap();
    assert_eq!(
        run(stash.peek_one(c)).unwrap(),
        BTreeMap::from([(a.clone(), 1), (b.clone(), 2)])
    );
    assert_eq!(run(stash.peek_key_one(c, &b)).unwrap(), Some(2));
    assert_eq!(run(stash.peek_key_one(c, &"c".to_owned())).unwrap(), None);

    run(stash.seal(c, at(2).borrow())).unwrap();
    assert!(matches!(
        run(stash.peek_one(c)),
        Err(StashError::DuplicateKey)
    ));
    assert!(matches!(
        run(stash.peek_key_one(c, &b)),
        Err(StashError::DuplicateKey)
    ));
    assert_eq!(run(stash.peek_key_one(c, &a)).unwrap(), Some(1));

    run(stash.update_many(c, [word("b", 3, 2, -1), word("a", 1, 2, 1)])).unwrap();
    run(stash.seal(c, at(3).borrow())).unwrap();
    assert!(matches!(
        run(stash.peek_one(c)),
        Err(StashError::UnexpectedMultiplicity { diff: 2 })
    ));
    assert!(matches!(
        run(stash.peek_key_one(c, &a)),
        Err(StashError::UnexpectedMultiplicity { diff: 2 })
    ));
    assert_eq!(run(stash.peek_key_one(c, &b)).unwrap(), Some(2));
}

#[test]
fn each_operation_is_one_call_of_the_driver() {
    let mut stash = Tiny::default();
    let c: Words = open(&mut stash);
    let key = "a".to_owned();
    let mut calls = |run_it: &mut dyn FnMut(&mut Tiny)| {
        run_it(&mut stash);
        stash.take_calls()
    };
    assert_eq!(
        calls(&mut |s| run(s.update_many(c, [word("a", 1, 0, 1), word("b", 1, 0, 1)])).unwrap()),
        "c"
    );
    assert_eq!(
        calls(&mut |s| run(s.seal_batch(&[(c, at(1)), (c, at(2))])).unwrap()),
        "c"
    );
    assert_eq!(
        calls(&mut |s| run(s.compact_batch(&[(c, at(0)), (c, at(1))])).unwrap()),
        "c"
    );
    assert_eq!(
        calls(&mut |s| run(s.consolidate_batch(&[c, c])).unwrap()),
        "c"
    );
    assert_eq!(calls(&mut |s| drop(run(s.iter(c)).unwrap())), "a");
    assert_eq!(calls(&mut |s| drop(run(s.iter_key(c, &key)).unwrap())), "k");
    assert_eq!(calls(&mut |s| drop(run(s.peek(c)).unwrap())), "a");
    assert_eq!(calls(&mut |s| drop(run(s.peek_one(c)).unwrap())), "a");
    assert_eq!(
        calls(&mut |s| assert_eq!(run(s.peek_key_one(c, &key)).unwrap(), Some(1))),
        "k"
    );
    assert_eq!(
        calls(&mut |s| assert_eq!(run(s.peek_timestamp(c)).unwrap(), 1)),
        "n"
    );
    assert_eq!(
        calls(&mut |s| run(s.seal_batch::<String, i64>(&[])).unwrap()),
        ""
    );
    assert_eq!(calls(&mut |s| run(s.update_many(c, [])).unwrap()), "c");
}

#[test]
fn a_refused_batch_has_no_effect_at_all() {
    let mut stash = Tiny::default();
    let c: Words = open(&mut stash);
    let refused = run(stash.seal_batch(&[(c, at(5)), (c, at(4))])).unwrap_err();
    assert!(
        matches!(refused, StashError::SealBeforeUpper { .. }),
        "{refused:?}"
    );
    assert_eq!(run(stash.upper(c)).unwrap(), at(i64::MIN));
    run(stash.seal(c, at(5).borrow())).unwrap();
    let refused = run(stash.update_many(c, [word("a", 1, 5, 1), word("a", 1, 4, 1)])).unwrap_err();
    assert!(
        matches!(refused, StashError::TimeBeforeUpper { time: 4, .. }),
        "{refused:?}"
    );
    assert_eq!(refused.outcome(), Outcome::NotApplied);
    assert_eq!(run(stash.iter(c)).unwrap(), []);
}

#[test]
fn frontiers_admit_by_the_table() {
    let id = CollectionId::new(1);
    let row = |time| RawRow {
        key: Bytes::new(),
        value: Bytes::new(),
        time,
        diff: 1,
    };
    let update = |time| StashOp::Update {
        id,
        rows: vec![row(50), row(time)],
    };
    let seal = |upper| StashOp::Seal { id, upper };
    let compact = |since| StashOp::Compact { id, since };
    let expect = |upper| StashOp::ExpectUpper { id, upper };
    let start = || Frontiers {
        since: at(3),
        upper: at(7),
    };
    let ok = |op: StashOp, since, upper| {
        let mut frontiers = start();
        frontiers.admit(&op).unwrap();
        assert_eq!(frontiers, Frontiers { since, upper }, "{op:?}");
    };
    ok(update(7), at(3), at(7));
    ok(update(i64::MAX), at(3), at(7));
    ok(StashOp::Update { id, rows: vec![] }, at(3), at(7));
    ok(seal(at(7)), at(3), at(7));
    ok(seal(at(8)), at(3), at(8));
    ok(seal(Antichain::new()), at(3), Antichain::new());
    ok(compact(at(3)), at(3), at(7));
    ok(compact(at(7)), at(7), at(7));
    ok(StashOp::Consolidate { id }, at(3), at(7));
    ok(expect(at(7)), at(3), at(7));

    let refused = |op: StashOp| {
        let mut frontiers = start();
        let refusal = frontiers.admit(&op).unwrap_err();
        assert_eq!(frontiers, start());
        assert_eq!(refusal.outcome(), Outcome::NotApplied);
        refusal
    };
    assert!(
        matches!(refused(update(6)), StashError::TimeBeforeUpper { time: 6, upper } if upper == at(7))
    );
    assert!(
        matches!(refused(seal(at(6))), StashError::SealBeforeUpper { new, upper } if (&new, &upper) == (&at(6), &at(7)))
    );
    assert!(
        matches!(refused(compact(at(2))), StashError::CompactBeforeSince { since, .. } if since == at(3))
    );
    assert!(
        matches!(refused(compact(at(8))), StashError::CompactPastUpper { upper, .. } if upper == at(7))
    );
    assert!(matches!(
        refused(compact(Antichain::new())),
        StashError::CompactPastUpper { .. }
    ));
    assert!(
        matches!(refused(expect(at(6))), StashError::UpperMismatch { upper, .. } if upper == at(7))
    );
    assert!(matches!(
        refused(expect(Antichain::new())),
        StashError::UpperMismatch { .. }
    ));

    let mut sealed = Frontiers {
        since: at(3),
        upper: Antichain::new(),
    };
    assert!(matches!(
        sealed.admit(&update(i64::MAX)),
        Err(StashError::TimeBeforeUpper { .. })
    ));
    assert!(matches!(
        sealed.admit(&seal(at(i64::MAX))),
        Err(StashError::SealBeforeUpper { .. })
    ));
    sealed.admit(&compact(Antichain::new())).unwrap();
    assert!(matches!(
        sealed.admit(&compact(at(i64::MAX))),
        Err(StashError::CompactBeforeSince { .. })
    ));
    assert!(matches!(
        sealed.peek_timestamp(),
        Err(StashError::NothingSealed { .. })
    ));
}

#[test]
fn folding_is_idempotent_and_keeps_what_is_after_since() {
    let row = |value: &'static str, time, diff| RawRow {
        key: Bytes::new(),
        value: value.into(),
        time,
        diff,
    };
    let rows = vec![
        row("b", 9, 1),
        row("a", 1, i64::MAX),
        row("a", 2, i64::MAX),
        row("a", 3, -i64::MAX),
        row("b", 8, -1),
        row("b", 2, 1),
        row("b", 4, -1),
        row("c", 9, 2),
        row("c", 9, 3),
    ];
    let once = fold(rows.clone(), at(4).borrow()).unwrap();
    assert_eq!(
        once,
        [
            row("a", 4, i64::MAX),
            row("b", 8, -1),
            row("b", 9, 1),
            row("c", 9, 5)
        ]
    );
    assert_eq!(fold(once.clone(), at(4).borrow()).unwrap(), once);
    assert!(matches!(
        fold(rows.clone(), at(2).borrow()),
        Err(StashError::DiffOverflow)
    ));
    assert_eq!(fold(rows, Antichain::new().borrow()).unwrap(), []);
}

#[test]
fn bounds_are_checked_before_any_effect() {
    let caps = crate::StashCaps::LEAST
        .with_name_len_bytes_max(3)
        .with_row_len_bytes_max(2)
        .with_batch_rows_max(2);
    let row = |key: &'static str, value: &'static str| RawRow {
        key: key.into(),
        value: value.into(),
        time: 0,
        diff: 1,
    };
    let id = CollectionId::new(1);
    let update = |rows| [StashOp::Consolidate { id }, StashOp::Update { id, rows }];
    check_name("abc", &caps).unwrap();
    check_bounds(&update(vec![row("aa", ""), row("", "bb")]), &caps).unwrap();
    for e in [
        check_name("abcd", &caps).unwrap_err(),
        check_bounds(&update(vec![row("aaa", "")]), &caps).unwrap_err(),
        check_bounds(&update(vec![row("", "bbb")]), &caps).unwrap_err(),
        check_bounds(&update(vec![row("", ""); 3]), &caps).unwrap_err(),
    ] {
        assert_eq!(
            (e.kind(), e.outcome()),
            (ErrorKind::InvalidInput, Outcome::NotApplied)
        );
    }
}

/// A driver that returns more than the key's rows does not lead the reader astray.
#[test]
fn rows_of_other_keys_are_ignored() {
    let mut stash = Tiny {
        sloppy: true,
        ..Tiny::default()
    };
    let c: Words = open(&mut stash);
    run(stash.update_many(c, [word("a", 1, 0, 1), word("b", 2, 0, 1)])).unwrap();
    run(stash.seal(c, at(1).borrow())).unwrap();
    assert_eq!(
        run(stash.iter_key(c, &"b".to_owned())).unwrap(),
        [(2, 0, 1)]
    );
    assert_eq!(
        run(stash.peek_key_one(c, &"a".to_owned())).unwrap(),
        Some(1)
    );
    assert_eq!(run(stash.peek_key_one(c, &"c".to_owned())).unwrap(), None);
}

#[test]
fn rows_that_differ_in_bytes_alone_are_summed_when_read() {
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    struct Old {
        name: String,
    }
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    struct New {
        name: String,
        #[serde(default)]
        size: u32,
    }
    let mut stash = Tiny::default();
    let old: StashCollection<u8, Old> = open(&mut stash);
    run(stash.update(old, (1, Old { name: "x".into() }), 0, 1)).unwrap();
    let new: StashCollection<u8, New> = open(&mut stash);
    let grown = New {
        name: "x".into(),
        size: 0,
    };
    assert_eq!(run(stash.iter(new)).unwrap(), [((1, grown.clone()), 0, 1)]);
    run(stash.update(new, (1, grown.clone()), 0, 1)).unwrap();
    run(stash.seal(new, at(1).borrow())).unwrap();
    run(stash.consolidate(new)).unwrap();
    assert_eq!(stash.raw(new.id()).len(), 2);
    assert_eq!(run(stash.iter(new)).unwrap(), [((1, grown.clone()), 0, 2)]);
    assert_eq!(run(stash.peek(new)).unwrap(), [(1, grown, 2)]);
}

#[test]
fn what_does_not_encode_or_decode_is_an_error() {
    let mut stash = Tiny::default();
    let c: StashCollection<u8, Option<Option<u8>>> = open(&mut stash);
    let refused = run(stash.update_many(c, [((1, Some(Some(1))), 0, 1), ((2, Some(None)), 0, 1)]))
        .unwrap_err();
    assert!(matches!(refused, StashError::Codec(_)));
    assert_eq!(
        (refused.kind(), refused.outcome()),
        (ErrorKind::InvalidInput, Outcome::NotApplied)
    );
    assert_eq!(run(stash.iter(c)).unwrap(), []);

    run(stash.update(c, (1, None), 0, 1)).unwrap();
    run(stash.seal(c, at(1).borrow())).unwrap();
    let other: StashCollection<u8, String> = open(&mut stash);
    for e in [
        run(stash.iter(other)).map(drop).unwrap_err(),
        run(stash.iter_key(other, &1)).map(drop).unwrap_err(),
        run(stash.peek(other)).map(drop).unwrap_err(),
    ] {
        assert!(matches!(e, StashError::Codec(_)));
        assert_eq!(
            (e.kind(), e.outcome()),
            (ErrorKind::Corrupt, Outcome::NotApplied)
        );
    }
}

/// An iterator that may not be shared between threads is drained before anything is awaited.
#[test]
fn entries_need_not_be_shared_between_threads() {
    let mut stash = Tiny::default();
    let c: Words = open(&mut stash);
    let left = std::cell::Cell::new(3);
    let entries = std::iter::from_fn(move || {
        left.set(left.get() - 1);
        (left.get() >= 0).then(|| word("a", left.get(), 0, 1))
    });
    run(stash.update_many(c, entries)).unwrap();
    assert_eq!(run(stash.iter(c)).unwrap().len(), 3);
}

#[test]
fn appends_are_one_transaction_over_collections_of_different_types() {
    let stash = Tiny::default();
    let mut handle = &stash;
    let words: Words = run(handle.collection("words")).unwrap();
    let flags: StashCollection<u8, bool> = run(handle.collection("flags")).unwrap();
    let build = |expected: Timestamp, to: Timestamp| {
        let mut append = Append::new();
        // Named in the wrong order on purpose.
        append
            .collection(words)
            .compact(at(to))
            .seal(at(to))
            .expect_upper(at(expected))
            .update([word("a", 1, expected.max(0), 1)])
            .unwrap()
            .update([word("b", 1, expected.max(0), 1)])
            .unwrap();
        append
            .collection(flags)
            .update([((1, true), 0, 1)])
            .unwrap();
        append
    };
    stash.take_calls();
    run(stash.append(build(i64::MIN, 5))).unwrap();
    assert_eq!(stash.take_calls(), "c");
    assert_eq!(
        run(handle.iter(words)).unwrap(),
        [word("a", 1, 5, 1), word("b", 1, 5, 1)]
    );
    assert_eq!(run(handle.iter(flags)).unwrap(), [((1, true), 0, 1)]);

    // The same again, as after a lost answer.
    let again = run(stash.append(build(i64::MIN, 5))).unwrap_err();
    assert!(matches!(&again, StashError::UpperMismatch { upper, .. } if *upper == at(5)));
    assert_eq!(
        (again.kind(), again.outcome()),
        (ErrorKind::Conflict, Outcome::NotApplied)
    );

    // A refusal of the second item undoes the first one.
    let mut append = build(5, 6);
    append
        .collection(flags)
        .seal(at(9))
        .update([((1, true), 9, 1)])
        .unwrap();
    append
        .collection(flags)
        .update([((1, true), 8, 1)])
        .unwrap();
    assert!(matches!(
        run(stash.append(append)),
        Err(StashError::TimeBeforeUpper { time: 8, .. })
    ));
    assert_eq!(run(handle.upper(words)).unwrap(), at(5));
    assert_eq!(run(handle.iter(flags)).unwrap(), [((1, true), 0, 1)]);

    run(stash.append(Append::new())).unwrap();
    let mut nothing = Append::new();
    nothing.collection(flags);
    assert_eq!(
        nothing.clone().into_ops(),
        [StashOp::Update {
            id: flags.id(),
            rows: vec![]
        }]
    );
    run(stash.append(nothing)).unwrap();
}

#[test]
fn dropped_collections_leave_stale_handles_behind() {
    let mut stash = Tiny::default();
    let c: Words = open(&mut stash);
    let other: Words = run(stash.collection("b")).unwrap();
    let names = [("b".to_owned(), other.id()), ("c".to_owned(), c.id())];
    assert_eq!(run(stash.collections()).unwrap(), names);
    assert!(run(stash.drop_collection("c")).unwrap());
    assert!(!run(stash.drop_collection("c")).unwrap());
    let again: Words = open(&mut stash);
    assert_ne!(again, c);
    for e in [
        run(stash.iter(c)).map(drop).unwrap_err(),
        run(stash.update_many(c, [])).unwrap_err(),
        run(stash.consolidate(c)).unwrap_err(),
    ] {
        assert!(matches!(e, StashError::NoCollection { id } if id == c.id()));
        assert_eq!(
            (e.kind(), e.outcome()),
            (ErrorKind::NotFound, Outcome::NotApplied)
        );
    }
}

#[test]
fn a_shared_or_boxed_driver_is_the_same_stash() {
    let shared: Arc<dyn StashDriver> = Arc::new(Tiny::default());
    let mut boxed: Box<dyn StashDriver> = Box::new(Arc::clone(&shared));
    let mut handle = Arc::clone(&shared);
    let c: Words = open(&mut handle);
    run(boxed.update(c, ("a".into(), 1), 0, 1)).unwrap();
    let mut borrowed: &dyn StashDriver = &*shared;
    assert_eq!(run(borrowed.iter(c)).unwrap(), [word("a", 1, 0, 1)]);
    assert!(run(shared.drop_collection("c")).unwrap());
}
