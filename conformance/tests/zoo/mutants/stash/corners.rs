//! Wrong only in a corner: after the stash was opened again, on a second time, for values at an end of their range, in
//! one commit over several collections, or between two steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::{Caps, Engine};
use larder_traits::stash::driver::{RawRow, Rows, Snapshot, StashOp, check_bounds, fold};
use larder_traits::{Antichain, CollectionId, Durability, ErrorKind, Fault, StashError, Timestamp};

use super::{m, with_caps};
use crate::mutants::Mutant;
use crate::mutants::files::f;
use crate::reference::files::{self, RowFlaw};
use crate::reference::stash::{Answer, CAPS, Place, Rules, apply};
use crate::reference::{Due, gap, lock};

/// What a stash in files declares that is about processes only.
const PROCESS: Caps = files::CAPS.with_durability(Durability::Process);

/// A stash that is there again when it is opened again. Nobody takes the process or the power away.
const DURABLE: Caps = CAPS.with_durability(Durability::Power);

pub(super) fn corners() -> Vec<Mutant> {
    [
        opened_again(),
        second_times(),
        ends(),
        together(),
        between(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn commit(place: &Place, ops: &[StashOp], rules: &Rules) -> Answer<()> {
    let mut state = lock(&place.state);
    let mut next = state.clone();
    next.commit(ops, rules)?;
    *state = next;
    Ok(())
}

/// The log of what was committed.
const LOG: u64 = 0;
/// There if this session has committed something.
const WROTE: u64 = 1;
/// There if the log has been carried over and was not cut.
const NOT_CUT: u64 = 2;

fn opened_again() -> Vec<Mutant> {
    vec![
        f(
            "st-file-empty-is-new",
            "ST-9",
            &["ST-1", "ST-6", "ST-7", "ST-13", "C-2"],
            "the frontiers are found by the rows, so a collection without rows is a new one once the stash is opened again",
            || files::stash(PROCESS, RowFlaw::EmptyIsNew),
        ),
        with_caps(
            DURABLE,
            "st-log-cut-by-the-next-commit",
            "ST-13",
            &["ST-5", "ST-14", "C-2"],
            "the log is cut by the first commit after it was carried over, so if there was none it is carried over again",
            |s| {
                if s.place.counter.fetch_add(1, SeqCst) == 0 {
                    let mut notes = lock(&s.place.notes);
                    if notes.remove(&NOT_CUT).is_some() {
                        let mut state = lock(&s.place.state);
                        for op in notes.remove(&LOG).unwrap_or_default() {
                            if let StashOp::Update { id, rows } = op
                                && let Some(collection) = state.collections.get_mut(&id)
                            {
                                collection.rows.extend(rows);
                            }
                        }
                    }
                }
                s.commit = Box::new(|place, ops, rules| {
                    commit(place, ops, rules)?;
                    let mut notes = lock(&place.notes);
                    if notes.insert(WROTE, Vec::new()).is_none() {
                        notes.remove(&LOG);
                    }
                    notes.entry(LOG).or_default().extend_from_slice(ops);
                    Ok(())
                });
                s.close = Box::new(|place| {
                    if place.counter.fetch_sub(1, SeqCst) > 1 {
                        return;
                    }
                    let mut notes = lock(&place.notes);
                    if notes.remove(&WROTE).is_none() && notes.contains_key(&LOG) {
                        notes.insert(NOT_CUT, Vec::new());
                    }
                });
            },
        ),
        f(
            "st-file-ids-from-the-greatest",
            "ST-1",
            &[],
            "when the stash is opened the next id is the one after the greatest that is there, dropped ones or not",
            || files::stash(PROCESS, RowFlaw::IdsFromTheGreatest),
        ),
        m(
            "st-names-cached",
            "ST-1",
            &["C-2", "ST-14"],
            "a handle remembers the ids of names, also once another handle has dropped the collection and made it again",
            |s| {
                let cache = Arc::new(Mutex::new(BTreeMap::<String, CollectionId>::new()));
                let known = Arc::clone(&cache);
                s.open = Box::new(move |place, name| {
                    let mut cache = lock(&cache);
                    let open = || lock(&place.state).open(name);
                    Ok(*cache.entry(name.to_owned()).or_insert_with(open))
                });
                s.discard = Box::new(move |place, name| {
                    lock(&known).remove(name);
                    Ok(lock(&place.state).discard(name))
                });
            },
        ),
        m(
            "st-exclusive-comes-back",
            "ST-14",
            &[],
            "the older writer is refused once, connects anew because of that, and goes on",
            |s| {
                s.fenced = || None;
                let joined = Arc::new(AtomicU64::new(s.epoch));
                let refused = move |place: &Place| {
                    let epoch = place.epoch.load(SeqCst);
                    if joined.swap(epoch, SeqCst) == epoch {
                        return Ok(());
                    }
                    let fault = Fault::not_applied(ErrorKind::Conflict, "a newer writer");
                    Err(StashError::from(fault))
                };
                let [opening, reading] = [refused.clone(), refused.clone()];
                s.open = Box::new(move |place, name| {
                    opening(place)?;
                    Ok(lock(&place.state).open(name))
                });
                s.snapshot = Box::new(move |place, id, rows| {
                    reading(place)?;
                    lock(&place.state).snapshot(id, rows)
                });
                s.commit = Box::new(move |place, ops, rules| {
                    refused(place)?;
                    commit(place, ops, rules)
                });
            },
        ),
    ]
}

fn second_times() -> Vec<Mutant> {
    vec![
        m(
            "st-consolidate-changed-only",
            "ST-8",
            &[],
            "a consolidation folds what was written since the last one, and not what was compacted since then",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    let mut notes = lock(&place.notes);
                    let (mut next, mut written) = (state.clone(), notes.clone());
                    for op in ops {
                        let id = op.id();
                        match op {
                            StashOp::Consolidate { .. } => {
                                let found = next.collections.get_mut(&id);
                                let collection = found.ok_or(StashError::NoCollection { id })?;
                                let since = collection.frontiers.since.clone();
                                let written = written.remove(&id.get()).unwrap_or_default();
                                let written: BTreeSet<_> =
                                    written.iter().flat_map(rows_of).collect();
                                let is_due = |row: &RawRow| {
                                    since.is_empty() || written.contains(&(&row.key, &row.value))
                                };
                                let rows = std::mem::take(&mut collection.rows);
                                let (due, rest): (Vec<_>, _) = rows.into_iter().partition(is_due);
                                collection.rows = rest;
                                collection.rows.extend(fold(due, since.borrow())?);
                            }
                            StashOp::Update { .. } => {
                                next.commit(std::slice::from_ref(op), rules)?;
                                written.entry(id.get()).or_default().push(op.clone());
                            }
                            _ => next.commit(std::slice::from_ref(op), rules)?,
                        }
                    }
                    (*state, *notes) = (next, written);
                    Ok(())
                });
            },
        ),
        m(
            "st-overflow-takes-the-rows-along",
            "ST-8",
            &["C-1", "ST-3", "ST-5"],
            "a consolidation deletes rows and then inserts their sum, and is not undone where that does not fit",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let committed = commit(place, ops, rules);
                    if let (Err(StashError::DiffOverflow), [StashOp::Consolidate { id }]) =
                        (&committed, ops)
                        && let Some(collection) = lock(&place.state).collections.get_mut(id)
                        && let Some(since) = collection.frontiers.since.as_option()
                    {
                        let group = |row: &RawRow| {
                            let (key, value, time) = named(row);
                            (key, value, time.max(*since))
                        };
                        let mut sums = BTreeMap::<_, i128>::new();
                        for row in &collection.rows {
                            *sums.entry(group(row)).or_default() += i128::from(row.diff);
                        }
                        let fits = |row: &RawRow| i64::try_from(sums[&group(row)]).is_ok();
                        collection.rows.retain(fits);
                    }
                    committed
                });
            },
        ),
        m(
            "st-zero-removes",
            "ST-5",
            &["ST-3", "ST-4"],
            "a difference of zero is taken for the row's removal",
            |s| {
                s.rules.apply = Box::new(|collection, op| {
                    if let StashOp::Update { rows, .. } = op {
                        let zeros: Vec<_> = rows.iter().filter(|row| row.diff == 0).collect();
                        let same = |old: &RawRow| zeros.iter().any(|it| named(it) == named(old));
                        collection.rows.retain(|old| !same(old));
                    }
                    apply(collection, op)
                });
            },
        ),
    ]
}

/// The keys and values of the rows that the operation writes.
fn rows_of(op: &StashOp) -> Vec<(&Bytes, &Bytes)> {
    let StashOp::Update { rows, .. } = op else {
        return Vec::new();
    };
    rows.iter().map(|row| (&row.key, &row.value)).collect()
}

fn ends() -> Vec<Mutant> {
    /// How many rows of a key the mutants' index reads at a time.
    const PAGE: usize = 256;
    /// How many bytes of a key their index keeps.
    const INDEXED: usize = 64;
    fn indexed(key: &[u8]) -> &[u8] {
        &key[..key.len().min(INDEXED)]
    }
    vec![
        m(
            "st-frontier-last-is-empty",
            "ST-6",
            &["ST-3", "ST-5", "ST-7", "ST-9", "ST-10", "ST-11"],
            "an empty frontier is kept as the last time there is, and that one is read back as empty",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| {
                    frontiers.admit(op)?;
                    let last = Antichain::from_elem(Timestamp::MAX);
                    for frontier in [&mut frontiers.since, &mut frontiers.upper] {
                        if *frontier == last {
                            *frontier = Antichain::new();
                        }
                    }
                    Ok(())
                });
            },
        ),
        m(
            "st-key-one-page",
            "ST-4",
            &["ST-11"],
            "of a key of many rows the first page is found",
            |s| {
                s.snapshot = Box::new(|place, id, which| {
                    let mut snapshot = lock(&place.state).snapshot(id, which)?;
                    if matches!(which, Rows::Key(_)) {
                        snapshot.rows.truncate(PAGE);
                    }
                    Ok(snapshot)
                });
            },
        ),
        m(
            "st-key-index-cut",
            "ST-4",
            &["ST-11"],
            "the index keeps the first bytes of a key, and of several keys that begin alike it finds the first",
            |s| {
                s.snapshot = Box::new(|place, id, which| {
                    let state = lock(&place.state);
                    let mut snapshot = state.snapshot(id, which)?;
                    if let Rows::Key(key) = which
                        && let Some(collection) = state.collections.get(&id)
                    {
                        let alike = |row: &&RawRow| indexed(&row.key) == indexed(key);
                        let first = collection.rows.iter().find(alike);
                        snapshot
                            .rows
                            .retain(|_| first.is_some_and(|row| row.key == key));
                    }
                    Ok(snapshot)
                });
            },
        ),
    ]
}

fn together() -> Vec<Mutant> {
    vec![
        m(
            "st-cancelled-before-it-is-checked",
            "ST-5",
            &[],
            "an update is summed up before its times are compared with upper, and what cancels out is not compared",
            |s| {
                s.bounds = Box::new(|_, mut ops| {
                    check_bounds(&ops, &CAPS.stash)?;
                    for op in &mut ops {
                        if let StashOp::Update { rows, .. } = op {
                            let mut sums = BTreeMap::<_, i128>::new();
                            for row in &*rows {
                                *sums.entry(named(row)).or_default() += i128::from(row.diff);
                            }
                            let gone = |row: &RawRow| sums[&named(row)] == 0;
                            *rows = rows.iter().filter(|row| !gone(row)).cloned().collect();
                        }
                    }
                    Ok(ops)
                });
            },
        ),
        m(
            "st-append-summed-over-collections",
            "ST-12",
            &["ST-1", "ST-2", "ST-5"],
            "a commit sums equal rows up, also those that go to different collections",
            |s| {
                s.bounds = Box::new(|_, mut ops| {
                    check_bounds(&ops, &CAPS.stash)?;
                    if ops.iter().all(|op| op.id() == ops[0].id()) {
                        return Ok(ops);
                    }
                    let mut seen = BTreeMap::new();
                    for op in &ops {
                        if let StashOp::Update { id, rows } = op {
                            for row in rows {
                                let (_, sum) = seen.entry(named(row)).or_insert((*id, 0_i64));
                                *sum = sum.saturating_add(row.diff);
                            }
                        }
                    }
                    for op in &mut ops {
                        if let StashOp::Update { id, rows } = op {
                            let whole = std::mem::take(rows);
                            for mut row in whole {
                                // Whoever comes first gets all of it.
                                if let Some((first, sum)) = seen.get_mut(&named(&row))
                                    && first == id
                                {
                                    row.diff = std::mem::take(sum);
                                    rows.push(row);
                                }
                            }
                        }
                    }
                    Ok(ops)
                });
            },
        ),
        m(
            "st-append-of-nothing-does-not-seal",
            "ST-12",
            &["ST-6", "ST-7", "ST-9"],
            "an append that brings no rows compares upper, and is done then",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let compares = |op: &&StashOp| matches!(op, StashOp::ExpectUpper { .. });
                    let brings = |op: &StashOp| matches!(op, StashOp::Update { rows, .. } if !rows.is_empty());
                    let compared: Vec<_> = ops.iter().filter(compares).cloned().collect();
                    if compared.is_empty() || ops.iter().any(brings) {
                        return commit(place, ops, rules);
                    }
                    commit(place, &compared, rules)
                });
            },
        ),
    ]
}

type Named = (Vec<u8>, Vec<u8>, Timestamp);

/// A row but for its difference.
fn named(row: &RawRow) -> Named {
    (row.key.to_vec(), row.value.to_vec(), row.time)
}

fn between() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "st-iter-in-two-reads",
            "ST-14",
            &["ST-3", "ST-4", "ST-8", "ST-11"],
            "all rows are read in two reads, between which a consolidation may move them",
            |s| {
                s.slow_snapshot = Some(Box::new(|place, id, which| {
                    async move {
                        let Snapshot { frontiers, rows } =
                            lock(&place.state).snapshot(id, which)?;
                        if !matches!(which, Rows::All) {
                            return Ok(Snapshot { frontiers, rows });
                        }
                        let half = rows.len() / 2;
                        gap().await;
                        let later = lock(&place.state).snapshot(id, which)?.rows;
                        let first = rows.into_iter().take(half);
                        let rows = first.chain(later.into_iter().skip(half)).collect();
                        Ok(Snapshot { frontiers, rows })
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-update-behind-a-seal",
            "ST-5",
            &["ST-6", "ST-11", "ST-14"],
            "an update compares its times with upper, and writes a moment later, sealed meanwhile or not",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        let [StashOp::Update { id, rows }] = &ops[..] else {
                            return commit(place, &ops, rules);
                        };
                        lock(&place.state).clone().commit(&ops, rules)?;
                        let written = Due::new(|| {
                            // One that was dropped meanwhile has no rows.
                            if let Some(collection) = lock(&place.state).collections.get_mut(id) {
                                collection.rows.extend_from_slice(rows);
                            }
                        });
                        gap().await;
                        written.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-append-compared-then-written",
            "ST-12",
            &["ST-14", "ST-13"],
            "an append compares upper, and commits a moment later what the frontiers still allow",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        let compares = |op: &StashOp| matches!(op, StashOp::ExpectUpper { .. });
                        if !ops.iter().any(compares) {
                            return commit(place, &ops, rules);
                        }
                        lock(&place.state).clone().commit(&ops, rules)?;
                        let rest: Vec<_> = ops.into_iter().filter(|op| !compares(op)).collect();
                        let mut answer = Ok(());
                        let written = Due::new(|| answer = commit(place, &rest, rules));
                        gap().await;
                        written.settle();
                        answer
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Lin);
    mutants.into_iter().map(awaiting).collect()
}
