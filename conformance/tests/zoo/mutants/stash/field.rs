//! As stores in the field have been wrong: by a column that was given too little room, by a comparison with NULL, by a cache
//! that was asked too little, or by what shows only beyond a page.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use larder_traits::stash::driver::{
    RawRow, Rows, Snapshot, StashOp, check_bounds, check_name, fold,
};
use larder_traits::{Antichain, CollectionId, Diff, ErrorKind, Fault, StashError, Timestamp};

use super::m;
use crate::mutants::Mutant;
use crate::reference::lock;
use crate::reference::stash::typed::Wrong;
use crate::reference::stash::{Answer, CAPS, Collection, Driver, Place, Rules, apply};

pub(super) fn field() -> Vec<Mutant> {
    [names(), rows(), sums(), nulls(), ends(), many(), handles()]
        .into_iter()
        .flatten()
        .collect()
}

pub(super) fn commit(place: &Place, ops: &[StashOp], rules: &Rules) -> Answer<()> {
    let mut state = lock(&place.state);
    let mut next = state.clone();
    next.commit(ops, rules)?;
    *state = next;
    Ok(())
}

/// Exchanges what a consolidation does to the rows.
pub(super) fn consolidates(s: &mut Driver, merge: fn(&mut Collection) -> Answer<()>) {
    s.rules.apply = Box::new(move |collection, op| match op {
        StashOp::Consolidate { .. } => merge(collection),
        _ => apply(collection, op),
    });
}

/// What `%` and `_` stand for in SQL.
fn is_like(name: &[u8], pattern: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'%', rest)), None) => is_like(name, rest),
        (Some((b'%', rest)), Some((_, others))) => is_like(name, rest) || is_like(others, pattern),
        (Some((b'_', rest)), Some((_, others))) => is_like(others, rest),
        (Some((same, rest)), Some((it, others))) => same == it && is_like(others, rest),
        _ => false,
    }
}

fn names() -> Vec<Mutant> {
    vec![
        m(
            "st-name-until-nul",
            "ST-1",
            &[],
            "the name of a collection ends at its first NUL",
            |s| {
                s.name = Box::new(|name| {
                    check_name(name, &CAPS.stash)?;
                    let kept = name.split('\0').next();
                    Ok(kept.unwrap_or_default().to_owned())
                });
            },
        ),
        m(
            "st-name-composed",
            "ST-1",
            &[],
            "letters and accents of a name are joined, as some file systems do",
            |s| {
                s.name = Box::new(|name| {
                    check_name(name, &CAPS.stash)?;
                    let pairs = [("e\u{301}", "\u{e9}"), ("a\u{30a}", "\u{e5}")];
                    let join = |name: String, (from, to): (&str, &str)| name.replace(from, to);
                    Ok(pairs.into_iter().fold(name.to_owned(), join))
                });
            },
        ),
        m(
            "st-drop-like",
            "ST-1",
            &[],
            "the name of a collection that is dropped is a pattern, in which an underscore is any letter",
            |s| {
                s.discard = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let like = |it: &&String| is_like(it.as_bytes(), name.as_bytes());
                    let all: Vec<_> = state.names.keys().filter(like).cloned().collect();
                    let is_there = state.names.contains_key(name);
                    for name in all {
                        state.discard(&name);
                    }
                    Ok(is_there)
                });
            },
        ),
        m(
            "st-names-one-page",
            "ST-1",
            &[],
            "the list of collections is the first hundred",
            |s| {
                s.names = Box::new(|place| {
                    let names = lock(&place.state).names.clone();
                    Ok(names.into_iter().take(100).collect())
                });
            },
        ),
    ]
}

/// Adds up the rows that are equal once their keys and values are seen this way; the first of them stands for all.
fn merged(rows: Vec<RawRow>, seen: impl Fn(&Bytes) -> Vec<u8>) -> Vec<RawRow> {
    let mut first = BTreeMap::<_, RawRow>::new();
    for row in rows {
        let name = (seen(&row.key), seen(&row.value), row.time);
        match first.get_mut(&name) {
            Some(first) => first.diff = first.diff.saturating_add(row.diff),
            None => drop(first.insert(name, row)),
        }
    }
    first.into_values().filter(|row| row.diff != 0).collect()
}

fn rows() -> Vec<Mutant> {
    /// How many bytes of a column an index keeps.
    const INDEXED: usize = 768;
    vec![
        m(
            "st-consolidated-without-case",
            "ST-8",
            &["ST-2", "ST-5"],
            "a consolidation compares keys and values as text, without regard to case",
            |s| {
                consolidates(s, |it| {
                    let rows = fold(std::mem::take(&mut it.rows), it.frontiers.since.borrow())?;
                    it.rows = merged(rows, |bytes| bytes.to_ascii_lowercase());
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidated-by-prefix",
            "ST-8",
            &["ST-2", "ST-5"],
            "a consolidation compares keys and values by an index, which keeps their first bytes",
            |s| {
                consolidates(s, |it| {
                    let rows = fold(std::mem::take(&mut it.rows), it.frontiers.since.borrow())?;
                    it.rows = merged(rows, |bytes| bytes[..bytes.len().min(INDEXED)].to_vec());
                    Ok(())
                });
            },
        ),
        m(
            "st-key-index-until-zero",
            "ST-4",
            &["ST-11"],
            "the index keeps a key up to its first zero, and of several keys that are the same so far it finds the first",
            |s| {
                fn until_zero(key: &[u8]) -> &[u8] {
                    let end = key.iter().position(|byte| *byte == 0);
                    &key[..end.unwrap_or(key.len())]
                }
                s.snapshot = Box::new(|place, id, which| {
                    let state = lock(&place.state);
                    let mut snapshot = state.snapshot(id, which)?;
                    if let Rows::Key(key) = which
                        && let Some(collection) = state.collections.get(&id)
                    {
                        let same = |row: &&RawRow| until_zero(&row.key) == until_zero(key);
                        let first = collection.rows.iter().find(same);
                        let is_found = first.is_some_and(|row| row.key == key);
                        snapshot.rows.retain(|_| is_found);
                    }
                    Ok(snapshot)
                });
            },
        ),
        m(
            "st-row-bound-of-both",
            "C-4",
            &["ST-5"],
            "the bound on a key and that on a value are kept for both together",
            |s| {
                s.bounds = Box::new(|_, ops| {
                    check_bounds(&ops, &CAPS.stash)?;
                    let max = CAPS.stash.row_len_bytes_max;
                    let long = |row: &RawRow| row.key.len() + row.value.len() > max;
                    let is_long = |op: &StashOp| matches!(op, StashOp::Update { rows, .. } if rows.iter().any(long));
                    if ops.iter().any(is_long) {
                        let fault = Fault::not_applied(ErrorKind::InvalidInput, "a long row");
                        return Err(fault.into());
                    }
                    Ok(ops)
                });
            },
        ),
        m(
            "st-update-of-a-packet",
            "ST-5",
            &["C-4"],
            "an update is sent as one packet of a mebibyte, and the rows beyond that are lost",
            |s| {
                s.bounds = Box::new(|_, mut ops| {
                    check_bounds(&ops, &CAPS.stash)?;
                    for op in &mut ops {
                        if let StashOp::Update { rows, .. } = op {
                            let mut len = 0;
                            rows.retain(|row| {
                                len += row.key.len() + row.value.len();
                                len <= 1 << 20
                            });
                        }
                    }
                    Ok(ops)
                });
            },
        ),
    ]
}

type Named = (Bytes, Bytes, Timestamp);

fn sums() -> Vec<Mutant> {
    /// How many rows a consolidation takes at a time.
    const CHUNK: usize = 256;
    vec![
        m(
            "st-consolidate-in-chunks",
            "ST-8",
            &["ST-5", "ST-3"],
            "a consolidation takes some rows at a time, and what it finds in the later ones replaces what it made of the earlier",
            |s| {
                consolidates(s, |it| {
                    let since = it.frontiers.since.borrow();
                    let mut folded = BTreeMap::<Named, RawRow>::new();
                    for chunk in std::mem::take(&mut it.rows).chunks(CHUNK) {
                        for row in fold(chunk.to_vec(), since)? {
                            folded.insert((row.key.clone(), row.value.clone(), row.time), row);
                        }
                    }
                    it.rows = folded.into_values().collect();
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-sums-on-the-way",
            "ST-8",
            &["ST-5", "ST-3"],
            "a consolidation is refused when a sum leaves 64 bits on its way",
            |s| {
                consolidates(s, |it| {
                    let Some(since) = it.frontiers.since.as_option() else {
                        it.rows.clear();
                        return Ok(());
                    };
                    let mut sums = BTreeMap::<Named, Diff>::new();
                    for row in &it.rows {
                        let name = (row.key.clone(), row.value.clone(), row.time.max(*since));
                        let sum = sums.entry(name).or_default();
                        *sum = sum.checked_add(row.diff).ok_or(StashError::DiffOverflow)?;
                    }
                    it.rows = fold(std::mem::take(&mut it.rows), it.frontiers.since.borrow())?;
                    Ok(())
                });
            },
        ),
        m(
            "st-diff-least-overflows",
            "ST-8",
            &["ST-5", "ST-3"],
            "a consolidation takes sums for their absolute values, and the least number there is has none",
            |s| {
                consolidates(s, |it| {
                    let rows = fold(it.rows.clone(), it.frontiers.since.borrow())?;
                    if rows.iter().any(|row| row.diff.checked_abs().is_none()) {
                        return Err(StashError::DiffOverflow);
                    }
                    it.rows = rows;
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-drops-new-retractions",
            "ST-8",
            &["ST-5", "ST-3"],
            "a consolidation folds what is new by itself first, and a retraction without its row in there is dropped as done",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let ended = commit(place, ops, rules);
                    if ended.is_ok() {
                        let state = lock(&place.state);
                        for op in ops {
                            let id = op.id();
                            if let StashOp::Consolidate { .. } = op
                                && let Some(collection) = state.collections.get(&id)
                            {
                                // How many rows are not new.
                                let rows = collection.rows.clone();
                                let old = vec![StashOp::Update { id, rows }];
                                lock(&place.notes).insert(id.get(), old);
                            }
                        }
                    }
                    ended
                });
                let place = Arc::clone(&s.place);
                let inner = std::mem::replace(&mut s.bounds, Box::new(|_, ops| Ok(ops)));
                s.bounds = Box::new(move |_, ops| {
                    let ops = inner(&place, ops)?;
                    if let [StashOp::Consolidate { id }] = &ops[..] {
                        let mut state = lock(&place.state);
                        let old = match lock(&place.notes).get(&id.get()).map(|it| &it[..]) {
                            Some([StashOp::Update { rows, .. }]) => rows.len(),
                            _ => 0,
                        };
                        if let Some(collection) = state.collections.get_mut(id)
                            && !collection.frontiers.since.is_empty()
                            && old > 0
                        {
                            let since = collection.frontiers.since.borrow();
                            let new = fold(collection.rows[old..].to_vec(), since)?;
                            collection.rows.truncate(old);
                            collection
                                .rows
                                .extend(new.into_iter().filter(|row| row.diff > 0));
                        }
                    }
                    Ok(ops)
                });
            },
        ),
    ]
}

/// Rules in which a frontier that is empty is NULL, which is neither more nor less than anything.
fn nulls() -> Vec<Mutant> {
    vec![
        m(
            "st-append-null-matches",
            "ST-12",
            &["ST-13"],
            "an append compares upper in SQL, where an empty one is not unequal to any other",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::ExpectUpper { upper, .. }
                        if upper.is_empty() || frontiers.upper.is_empty() =>
                    {
                        Ok(())
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-seal-from-null",
            "ST-6",
            &["ST-9"],
            "a seal is refused if upper is greater in SQL, where an empty one is not",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Seal { upper, .. } if frontiers.upper.is_empty() => {
                        frontiers.upper.clone_from(upper);
                        Ok(())
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-compact-from-null",
            "ST-7",
            &["ST-9"],
            "a compaction is refused if since is greater in SQL, where an empty one is not",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Compact { since, .. } if frontiers.since.is_empty() => {
                        frontiers.since.clone_from(since);
                        Ok(())
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-compact-null-past-upper",
            "ST-7",
            &["ST-9"],
            "a compaction is refused if it goes past upper in SQL, where the empty frontier does not",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Compact { since, .. } if since.is_empty() => {
                        frontiers.since.clone_from(since);
                        Ok(())
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
    ]
}

fn ends() -> Vec<Mutant> {
    vec![
        m(
            "st-upper-kept-as-the-last-time",
            "ST-6",
            &["ST-9", "ST-10"],
            "upper is kept as the last sealed time, which for the least upper is the last time there is",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| {
                    frontiers.admit(op)?;
                    if let StashOp::Seal { upper, .. } = op
                        && *upper == Antichain::from_elem(Timestamp::MIN)
                    {
                        frontiers.upper = Antichain::new();
                    }
                    Ok(())
                });
            },
        ),
        m(
            "st-empty-update-of-the-sealed",
            "ST-5",
            &[],
            "an update of nothing is refused once the collection is sealed for ever",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Update { rows, .. }
                        if rows.is_empty() && frontiers.upper.is_empty() =>
                    {
                        let upper = frontiers.upper.clone();
                        let time = Timestamp::MAX;
                        Err(StashError::TimeBeforeUpper { time, upper })
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-values-summed-by-their-bytes",
            "ST-2",
            &["ST-3"],
            "rows are summed by their bytes, so values that are equal but were written by another shape of the type show apart",
            |s| s.wrong = Some(Wrong::SummedByBytes),
        ),
    ]
}

fn many() -> Vec<Mutant> {
    /// How many rows are read at a time.
    const PAGE: usize = 256;
    vec![
        m(
            "st-iter-goes-on-after-the-key",
            "ST-3",
            &["ST-11"],
            "all rows are read in pages, the next one from the key on that is greater than the last, whose rest is left out",
            |s| {
                s.snapshot = Box::new(|place, id, which| {
                    let mut snapshot = lock(&place.state).snapshot(id, which)?;
                    if matches!(which, Rows::All) {
                        let mut rows = std::mem::take(&mut snapshot.rows);
                        rows.sort();
                        while !rows.is_empty() {
                            let rest = rows.split_off(rows.len().min(PAGE));
                            let last = rows.last().map(|row| row.key.clone());
                            snapshot.rows.append(&mut rows);
                            let is_further = |row: &RawRow| Some(&row.key) > last.as_ref();
                            rows = rest.into_iter().filter(is_further).collect();
                        }
                    }
                    Ok(snapshot)
                });
            },
        ),
        m(
            "st-collections-in-a-word",
            "ST-12",
            &["ST-6", "ST-7", "ST-9"],
            "the collections that a commit moves are bits of a 64-bit word, and of two that have one bit the first is moved",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    let mut next = state.clone();
                    next.commit(ops, rules)?;
                    let mut bits = BTreeMap::new();
                    for id in ops.iter().map(StashOp::id) {
                        let first = *bits.entry(id.get() % 64).or_insert(id);
                        if first != id
                            && let Some(collection) = next.collections.get_mut(&id)
                        {
                            let before = state.snapshot(id, Rows::None)?.frontiers;
                            collection.frontiers = before;
                        }
                    }
                    *state = next;
                    Ok(())
                });
            },
        ),
        m(
            "st-rows-cached-by-count",
            "C-2",
            &["ST-14", "ST-3"],
            "a handle keeps all rows that it read as long as frontiers and the number of rows are what they were",
            |s| {
                let cache = Arc::new(Mutex::new(BTreeMap::<CollectionId, Snapshot>::new()));
                let forget = Arc::clone(&cache);
                s.snapshot = Box::new(move |place, id, which| {
                    let read = lock(&place.state).snapshot(id, which)?;
                    if !matches!(which, Rows::All) {
                        return Ok(read);
                    }
                    let mut cache = lock(&cache);
                    let is_same = |it: &&Snapshot| {
                        it.frontiers == read.frontiers && it.rows.len() == read.rows.len()
                    };
                    if let Some(kept) = cache.get(&id).filter(is_same) {
                        return Ok(kept.clone());
                    }
                    cache.insert(id, read.clone());
                    Ok(read)
                });
                s.commit = Box::new(move |place, ops, rules| {
                    lock(&forget).clear();
                    commit(place, ops, rules)
                });
            },
        ),
    ]
}

fn handles() -> Vec<Mutant> {
    vec![m(
        "st-handles-leak",
        "C-2",
        &["ST-3"],
        "there are 126 marks for readers, and a handle that is closed keeps its own",
        |s| {
            let opened = s
                .place
                .counter
                .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if opened >= 126 {
                s.snapshot = Box::new(|_, _, _| {
                    let why = "all marks of readers are taken";
                    Err(Fault::not_applied(ErrorKind::Unavailable, why).into())
                });
            }
        },
    )]
}
