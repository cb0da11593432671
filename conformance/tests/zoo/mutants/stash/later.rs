//! As stores in the field have been wrong later on: by what was left over for the next opening, for a collection that is
//! gone, for a writer that was replaced, or where commits meet.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::FutureExt;
use larder_conformance::{Caps, Engine};
use larder_traits::stash::driver::{Rows, Snapshot, StashOp};
use larder_traits::{Durability, ErrorKind, Fault, StashError};

use super::field::commit;
use super::{m, with_caps};
use crate::mutants::Mutant;
use crate::mutants::files::f;
use crate::reference::files::{self, Flaw, RowFlaw};
use crate::reference::stash::{CAPS, Collection, Driver, Place};
use crate::reference::{Due, gap, lock, stands_still};

/// What a stash in files declares that is about processes only.
const PROCESS: Caps = files::CAPS.with_durability(Durability::Process);

/// A stash that is there again when it is opened again. Nobody takes the process or the power away.
const DURABLE: Caps = CAPS.with_durability(Durability::Power);

pub(super) fn later() -> Vec<Mutant> {
    [
        opened_again(),
        dropped(),
        fenced(),
        meeting(),
        killed(),
        neighbours(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Does something before the first handle and after the last one.
fn at_first_open(s: &mut Driver, act: impl FnOnce(&Place)) {
    if s.place.counter.fetch_add(1, SeqCst) == 0 {
        act(&s.place);
    }
    s.close = Box::new(|place| {
        place.counter.fetch_sub(1, SeqCst);
    });
}

fn opened_again() -> Vec<Mutant> {
    vec![
        with_caps(
            DURABLE,
            "st-catalog-first-page",
            "ST-1",
            &["ST-13", "C-2"],
            "when the stash is opened the first page of names is read, and who asks for one of the others gets a new collection",
            |s| {
                at_first_open(s, |place| {
                    let mut state = lock(&place.state);
                    let mut ids: Vec<_> = state.names.values().copied().collect();
                    ids.sort();
                    ids.truncate(64);
                    state.names.retain(|_, id| ids.contains(id));
                });
            },
        ),
        with_caps(
            DURABLE,
            "st-rows-of-a-dropped-name",
            "ST-1",
            &["ST-13", "C-2"],
            "rows are found by the name of their collection when the stash is opened, also those of one that was dropped",
            |s| {
                at_first_open(s, |place| {
                    let mut state = lock(&place.state);
                    let names = state.names.clone();
                    let mut notes = lock(&place.notes);
                    for (name, id) in names {
                        let left = notes.remove(&files::hash(name.as_bytes()));
                        let collection = state.collections.get_mut(&id);
                        if let (Some(left), Some(collection)) = (left, collection) {
                            for op in left {
                                if let StashOp::Update { rows, .. } = op {
                                    collection.rows.extend(rows);
                                }
                            }
                        }
                    }
                });
                s.discard = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let id = state.names.get(name).copied();
                    let rows = id.and_then(|id| state.collections.get(&id)).cloned();
                    if let (Some(id), Some(Collection { rows, .. })) = (id, rows) {
                        let left = vec![StashOp::Update { id, rows }];
                        lock(&place.notes).insert(files::hash(name.as_bytes()), left);
                    }
                    Ok(state.discard(name))
                });
            },
        ),
        with_caps(
            DURABLE,
            "st-refused-is-in-the-log",
            "ST-5",
            &["ST-13", "ST-12", "C-1"],
            "an update is logged before it is compared with upper, and one that was refused is there when the log is read again",
            |s| {
                /// Where the log is.
                const LOG: u64 = 0;
                at_first_open(s, |place| {
                    let log = lock(&place.notes).remove(&LOG);
                    let mut state = lock(&place.state);
                    for op in log.unwrap_or_default() {
                        if let Some(collection) = state.collections.get_mut(&op.id())
                            && let StashOp::Update { rows, .. } = op
                        {
                            collection.rows.extend(rows);
                        }
                    }
                });
                s.commit = Box::new(|place, ops, rules| {
                    let ended = commit(place, ops, rules);
                    if ended.is_err() {
                        let mut notes = lock(&place.notes);
                        notes.entry(LOG).or_default().extend_from_slice(ops);
                    }
                    ended
                });
            },
        ),
    ]
}

fn dropped() -> Vec<Mutant> {
    /// Leaves out what is about collections that are not there.
    fn skipping(s: &mut Driver, skips: fn(&StashOp) -> bool) {
        s.commit = Box::new(move |place, ops, rules| {
            let there: BTreeSet<_> = lock(&place.state).collections.keys().copied().collect();
            let is_due = |op: &&StashOp| there.contains(&op.id()) || !skips(op);
            let ops: Vec<_> = ops.iter().filter(is_due).cloned().collect();
            commit(place, &ops, rules)
        });
    }
    vec![
        m(
            "st-dropped-consolidates",
            "ST-1",
            &["ST-8"],
            "a consolidation of a dropped collection finds no rows and is Ok",
            |s| skipping(s, |op| matches!(op, StashOp::Consolidate { .. })),
        ),
        m(
            "st-dropped-moves",
            "ST-1",
            &["ST-6", "ST-7"],
            "a seal or a compaction of a dropped collection changes no row of the table and is Ok",
            |s| {
                skipping(s, |op| {
                    matches!(op, StashOp::Seal { .. } | StashOp::Compact { .. })
                });
            },
        ),
    ]
}

/// Refuses the calls of an older writer where that is called for.
fn fences(s: &mut Driver, is_over: fn(mine: u64, last: u64) -> bool, reads: bool) {
    let mine = s.epoch;
    let refused = move |place: &Place| {
        if is_over(mine, place.epoch.load(SeqCst)) {
            let fault = Fault::not_applied(ErrorKind::Conflict, "a newer writer");
            return Err(StashError::from(fault));
        }
        Ok(())
    };
    s.fenced = || None;
    s.open = Box::new(move |place, name| {
        refused(place)?;
        Ok(lock(&place.state).open(name))
    });
    s.snapshot = Box::new(move |place, id, rows| {
        if reads {
            refused(place)?;
        }
        lock(&place.state).snapshot(id, rows)
    });
    s.names = Box::new(move |place| {
        refused(place)?;
        Ok(lock(&place.state).names.clone().into_iter().collect())
    });
    s.discard = Box::new(move |place, name| {
        refused(place)?;
        Ok(lock(&place.state).discard(name))
    });
    s.commit = Box::new(move |place, ops, rules| {
        refused(place)?;
        commit(place, ops, rules)
    });
}

fn fenced() -> Vec<Mutant> {
    vec![
        m(
            "st-exclusive-one-writer-back",
            "ST-14",
            &[],
            "who opens exclusively leaves a note of the writer before, and the one before that goes on",
            |s| fences(s, |mine, last| mine + 1 == last, true),
        ),
        m(
            "st-exclusive-reads-go-on",
            "ST-14",
            &[],
            "the older writer may still read",
            |s| fences(s, |mine, last| mine != last, false),
        ),
    ]
}

fn meeting() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "st-locks-in-the-order-of-the-call",
            "ST-14",
            &["ST-12"],
            "a commit locks its collections one by one, in the order in which it names them, and gives up where two wait for each other",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        let mut held: Vec<Due<_>> = Vec::new();
                        let mut ids: Vec<_> = ops.iter().map(|op| op.id().get()).collect();
                        let mut seen = BTreeSet::new();
                        ids.retain(|id| seen.insert(*id));
                        for id in ids {
                            let mut waits = 0;
                            while lock(&place.notes).contains_key(&id) {
                                waits += 1;
                                if waits > 200 {
                                    let why = "a deadlock was found";
                                    let fault = Fault::not_applied(ErrorKind::Unavailable, why);
                                    return Err(fault.into());
                                }
                                tokio::time::sleep(Duration::from_millis(1)).await;
                            }
                            lock(&place.notes).insert(id, Vec::new());
                            held.push(Due::new(move || {
                                lock(&place.notes).remove(&id);
                            }));
                            if seen.len() > 1 {
                                gap().await;
                            }
                        }
                        let ended = commit(place, &ops, rules);
                        drop(held);
                        ended
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-rows-after-frontiers",
            "ST-11",
            &["ST-14", "ST-3"],
            "a read takes the frontiers, and the rows a moment later, which may have been folded beyond them",
            |s| {
                s.slow_snapshot = Some(Box::new(|place, id, which| {
                    async move {
                        let Snapshot { frontiers, rows } =
                            lock(&place.state).snapshot(id, Rows::None)?;
                        if matches!(which, Rows::None) {
                            return Ok(Snapshot { frontiers, rows });
                        }
                        gap().await;
                        let rows = lock(&place.state).snapshot(id, which)?.rows;
                        Ok(Snapshot { frontiers, rows })
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-gives-up-on-a-busy-place",
            "ST-14",
            &[],
            "a commit that finds a newer version is tried again some times, and fails then",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        for _ in 0..8 {
                            let version = place.counter.load(SeqCst);
                            gap().await;
                            let next = version.wrapping_add(1);
                            let is_mine = place
                                .counter
                                .compare_exchange(version, next, SeqCst, SeqCst)
                                .is_ok();
                            if is_mine {
                                return commit(place, &ops, rules);
                            }
                        }
                        Err(Fault::not_applied(ErrorKind::Unavailable, "the place is busy").into())
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Lin);
    mutants.into_iter().map(awaiting).collect()
}

fn killed() -> Vec<Mutant> {
    vec![
        f(
            "st-file-removed-first",
            "ST-13",
            &["ST-5"],
            "a commit removes the file of the one before, and then puts its own there",
            || files::stash(PROCESS, RowFlaw::Files(Flaw::RemovedFirst)),
        ),
        f(
            "st-file-drop-split",
            "ST-13",
            &["ST-1"],
            "a drop removes the rows and frontiers of a collection by one commit, and its name by another",
            || files::stash(PROCESS, RowFlaw::DropSplit),
        ),
        f(
            "st-file-creation-split",
            "ST-1",
            &["ST-13"],
            "a collection gets its name by one commit and its frontiers by another, and without any it is sealed for ever",
            || files::stash(PROCESS, RowFlaw::CreationSplit),
        ),
    ]
    .into_iter()
    .map(|mutant| mutant.awaiting(Engine::Kill))
    .collect()
}

fn neighbours() -> Vec<Mutant> {
    vec![
        m(
            "st-close-ends-commits-of-others",
            "C-2",
            &["ST-14"],
            "handles share a connection, and the end of one of them ends the commits that others have under way",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        if !stands_still(&place.counter).await {
                            let why = "the connection was closed";
                            return Err(Fault::not_applied(ErrorKind::Closed, why).into());
                        }
                        commit(place, &ops, rules)
                    }
                    .boxed()
                }));
                s.close = Box::new(|place| {
                    place.counter.fetch_add(1, SeqCst);
                });
            },
        ),
        m(
            "st-open-clears-laid",
            "C-2",
            &["ST-14", "ST-11"],
            "commits wait to be written together, and whoever opens the stash begins with none that wait",
            |s| {
                lock(&s.place.notes).clear();
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        let ticket = place.counter.fetch_add(1, SeqCst);
                        lock(&place.notes).insert(ticket, ops);
                        gap().await;
                        let laid = lock(&place.notes).remove(&ticket);
                        laid.map_or(Ok(()), |ops| commit(place, &ops, rules))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-open-begins-new-snapshots",
            "C-2",
            &["ST-14", "ST-3"],
            "a read that is under way while the stash is opened once more finds no rows",
            |s| {
                s.place.counter.fetch_add(1, SeqCst);
                s.slow_snapshot = Some(Box::new(|place, id, which| {
                    async move {
                        let is_same = stands_still(&place.counter).await;
                        let mut found = lock(&place.state).snapshot(id, which)?;
                        if !is_same {
                            found.rows.clear();
                        }
                        Ok(found)
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
