//! What is read, and what an update stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use larder_traits::stash::driver::{Frontiers, RawRow, Rows, StashOp, fold};
use larder_traits::{ErrorKind, Fault, StashError};

use super::m;
use crate::mutants::Mutant;
use crate::reference::lock;
use crate::reference::stash::apply;

/// Changes what a snapshot shows.
macro_rules! shown {
    ($s:ident, |$snapshot:ident, $which:ident| $body:expr) => {
        $s.snapshot = Box::new(|place, id, $which| {
            let mut $snapshot = lock(&place.state).snapshot(id, $which)?;
            $body;
            Ok($snapshot)
        })
    };
}

pub(super) fn reads() -> Vec<Mutant> {
    vec![
        m(
            "st-unsealed-hidden",
            "ST-3",
            &["ST-4"],
            "rows that are not sealed are hidden",
            |s| {
                shown!(s, |snapshot, _which| {
                    let upper = snapshot.frontiers.upper.clone();
                    snapshot.rows.retain(|row| !upper.less_equal(&row.time));
                });
            },
        ),
        m(
            "st-negative-hidden",
            "ST-3",
            &["ST-5", "ST-11"],
            "retractions are left out",
            |s| {
                shown!(s, |snapshot, _which| snapshot
                    .rows
                    .retain(|row| row.diff > 0));
            },
        ),
        m(
            "st-key-unsealed-hidden",
            "ST-4",
            &["ST-11"],
            "the rows of one key are shown as far as they are sealed",
            |s| {
                shown!(s, |snapshot, which| if matches!(which, Rows::Key(_)) {
                    let upper = snapshot.frontiers.upper.clone();
                    snapshot.rows.retain(|row| !upper.less_equal(&row.time));
                });
            },
        ),
        m(
            "st-key-first-row",
            "ST-4",
            &["ST-11"],
            "of a key one row for each value is found",
            |s| {
                shown!(s, |snapshot, which| if matches!(which, Rows::Key(_)) {
                    let mut seen = BTreeSet::new();
                    snapshot.rows.retain(|row| seen.insert(row.value.clone()));
                });
            },
        ),
        m(
            "st-key-index-stale",
            "ST-4",
            &["ST-8"],
            "the index by key is not told of what was consolidated away",
            |s| {
                // The index is a second list that updates go to and consolidations do not.
                let index: Mutex<Vec<RawRow>> = Mutex::default();
                let index = Arc::new(index);
                let reading = Arc::clone(&index);
                s.rules.apply = Box::new(move |collection, op| {
                    if let StashOp::Consolidate { .. } = op {
                        let since = collection.frontiers.since.borrow();
                        let folded = fold(collection.rows.clone(), since)?;
                        let gone = collection.rows.iter().filter(|row| !folded.contains(row));
                        lock(&index).extend(gone.cloned());
                    }
                    apply(collection, op)
                });
                s.snapshot = Box::new(move |place, id, rows| {
                    let mut snapshot = lock(&place.state).snapshot(id, rows)?;
                    if let Rows::Key(key) = rows {
                        let stale = lock(&reading);
                        snapshot
                            .rows
                            .extend(stale.iter().filter(|row| row.key == key).cloned());
                    }
                    Ok(snapshot)
                });
            },
        ),
        m(
            "st-rows-shared",
            "ST-2",
            &["ST-1", "ST-3"],
            "equal rows of two collections are one row",
            |s| {
                s.snapshot = Box::new(|place, id, rows| {
                    let state = lock(&place.state);
                    let mut snapshot = state.snapshot(id, rows)?;
                    let others = state.collections.iter().filter(|(other, _)| **other != id);
                    let foreign: Vec<_> = others
                        .flat_map(|(_, collection)| &collection.rows)
                        .collect();
                    let twins: Vec<RawRow> = snapshot
                        .rows
                        .iter()
                        .flat_map(|row| {
                            let same = |other: &&&RawRow| {
                                (&other.key, &other.value, other.time)
                                    == (&row.key, &row.value, row.time)
                            };
                            foreign
                                .iter()
                                .filter(same)
                                .map(|other| (*other).clone())
                                .collect::<Vec<_>>()
                        })
                        .collect();
                    snapshot.rows.extend(twins);
                    Ok(snapshot)
                });
            },
        ),
        m(
            "st-dropped-reads-empty",
            "ST-1",
            &["C-1"],
            "a handle of a dropped collection reads no rows",
            |s| {
                s.snapshot = Box::new(|place, id, rows| {
                    let state = lock(&place.state);
                    state.snapshot(id, rows).or_else(|_gone| {
                        Ok(larder_traits::stash::Snapshot {
                            frontiers: Frontiers::new(),
                            rows: Vec::new(),
                        })
                    })
                });
            },
        ),
    ]
}

/// Replaces how updates are stored.
macro_rules! stored {
    ($s:ident, |$collection:ident, $rows:ident| $body:expr) => {
        $s.rules.apply = Box::new(|$collection, op| match op {
            StashOp::Update { rows: $rows, .. } => {
                $body;
                Ok(())
            }
            _ => apply($collection, op),
        })
    };
}

/// `number` cut to 32 bits and back.
fn narrow(number: i64) -> i64 {
    let bytes = number.to_le_bytes();
    i64::from(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

pub(super) fn updates() -> Vec<Mutant> {
    vec![
        m(
            "st-prefix-applied",
            "ST-5",
            &[],
            "the rows before the first one that is sealed are applied",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    if let [StashOp::Update { id, rows }] = ops {
                        let upper = state.snapshot(*id, Rows::None)?.frontiers.upper;
                        let open = rows.iter().take_while(|row| upper.less_equal(&row.time));
                        let rows = open.cloned().collect();
                        state.commit(&[StashOp::Update { id: *id, rows }], rules)?;
                    }
                    let mut next = state.clone();
                    if let [StashOp::Update { id, rows }] = ops {
                        let upper = next.snapshot(*id, Rows::None)?.frontiers.upper;
                        if rows.iter().all(|row| upper.less_equal(&row.time)) {
                            return Ok(());
                        }
                    }
                    next.commit(ops, rules)?;
                    *state = next;
                    Ok(())
                });
            },
        ),
        m(
            "st-last-time-checked",
            "ST-5",
            &[],
            "of an update, the last row's time alone is compared with upper",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Update { id, rows } => {
                        let rows = rows.last().cloned().into_iter().collect();
                        frontiers.admit(&StashOp::Update { id: *id, rows })
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-time-narrow",
            "ST-5",
            &["ST-3", "ST-11"],
            "times are kept in 32 bits",
            |s| {
                stored!(s, |collection, rows| collection.rows.extend(
                    rows.iter().map(|row| RawRow {
                        time: narrow(row.time),
                        ..row.clone()
                    })
                ));
            },
        ),
        m(
            "st-diff-narrow",
            "ST-5",
            &["ST-3"],
            "differences are kept in 32 bits",
            |s| {
                stored!(s, |collection, rows| collection.rows.extend(
                    rows.iter().map(|row| RawRow {
                        diff: narrow(row.diff),
                        ..row.clone()
                    })
                ));
            },
        ),
        m(
            "st-time-float",
            "ST-5",
            &["ST-3", "ST-11"],
            "times pass through a number with 53 bits",
            |s| {
                stored!(s, |collection, rows| collection.rows.extend(
                    rows.iter().map(|row| {
                        let time = match row.time.unsigned_abs() {
                            0..=0x001f_ffff_ffff_ffff => row.time,
                            _ => row.time & !0x3ff,
                        };
                        RawRow {
                            time,
                            ..row.clone()
                        }
                    })
                ));
            },
        ),
        m(
            "st-duplicates-ignored",
            "ST-5",
            &["ST-3"],
            "of equal rows in one update, one counts",
            |s| {
                stored!(s, |collection, rows| {
                    let mut seen = BTreeSet::new();
                    collection
                        .rows
                        .extend(rows.iter().filter(|row| seen.insert(*row)).cloned());
                });
            },
        ),
        m(
            "st-insert-or-ignore",
            "ST-5",
            &["ST-3"],
            "an update of a row that is there already is dropped",
            |s| {
                stored!(s, |collection, rows| {
                    for row in rows {
                        let same = |old: &RawRow| {
                            (&old.key, &old.value, old.time) == (&row.key, &row.value, row.time)
                        };
                        if !collection.rows.iter().any(same) {
                            collection.rows.push(row.clone());
                        }
                    }
                });
            },
        ),
        m(
            "st-insert-or-replace",
            "ST-5",
            &["ST-3"],
            "an update of a row that is there already replaces its difference",
            |s| {
                stored!(s, |collection, rows| {
                    for row in rows {
                        collection.rows.retain(|old| {
                            (&old.key, &old.value, old.time) != (&row.key, &row.value, row.time)
                        });
                        collection.rows.push(row.clone());
                    }
                });
            },
        ),
        m(
            "st-time-not-in-key",
            "ST-3",
            &["ST-5"],
            "rows that differ in time only are merged at the earliest",
            |s| {
                stored!(s, |collection, rows| {
                    for row in rows {
                        let same =
                            |old: &&mut RawRow| (&old.key, &old.value) == (&row.key, &row.value);
                        match collection.rows.iter_mut().find(same) {
                            Some(old) => old.diff = old.diff.saturating_add(row.diff),
                            None => collection.rows.push(row.clone()),
                        }
                    }
                });
            },
        ),
        m(
            "st-sum-saturates",
            "ST-5",
            &["ST-3", "ST-8"],
            "a sum beyond 64 bits stays at the greatest number",
            |s| {
                stored!(s, |collection, rows| {
                    for row in rows {
                        let same = |old: &&mut RawRow| {
                            (&old.key, &old.value, old.time) == (&row.key, &row.value, row.time)
                        };
                        match collection.rows.iter_mut().find(same) {
                            Some(old) => old.diff = old.diff.saturating_add(row.diff),
                            None => collection.rows.push(row.clone()),
                        }
                    }
                });
            },
        ),
        m(
            "st-sum-eager-error",
            "ST-5",
            &["ST-3"],
            "an update is refused when a sum leaves 64 bits on its way",
            |s| {
                s.rules.apply = Box::new(|collection, op| {
                    apply(collection, op)?;
                    if let StashOp::Update { .. } = op {
                        let mut sums = BTreeMap::new();
                        for row in &collection.rows {
                            let sum: &mut i64 =
                                sums.entry((&row.key, &row.value, row.time)).or_default();
                            *sum = sum.checked_add(row.diff).ok_or(StashError::DiffOverflow)?;
                        }
                    }
                    Ok(())
                });
            },
        ),
        m(
            "st-parameter-limit",
            "ST-5",
            &["C-4"],
            "an update of more than 999 rows fails",
            |s| {
                s.bounds = Box::new(|_, ops| {
                    let long = |op: &StashOp| matches!(op, StashOp::Update { rows, .. } if rows.len() > 999);
                    if ops.iter().any(long) {
                        return Err(
                            Fault::not_applied(ErrorKind::Internal, "too many parameters").into(),
                        );
                    }
                    Ok(ops)
                });
            },
        ),
        m(
            "st-parameter-limit-cut",
            "ST-5",
            &["C-4"],
            "of an update the rows beyond 5,000 are lost",
            |s| {
                stored!(s, |collection, rows| collection
                    .rows
                    .extend(rows.iter().take(5000).cloned()));
            },
        ),
        m(
            "st-empty-update-fails",
            "ST-5",
            &[],
            "an update of nothing is an error",
            |s| {
                s.bounds = Box::new(|_, ops| {
                    let empty = |op: &StashOp| matches!(op, StashOp::Update { rows, .. } if rows.is_empty());
                    if ops.iter().any(empty) {
                        return Err(Fault::not_applied(ErrorKind::InvalidInput, "no rows").into());
                    }
                    Ok(ops)
                });
            },
        ),
        m(
            "st-empty-upper-is-least",
            "ST-5",
            &["ST-6"],
            "a collection that is sealed for ever takes updates",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Update { .. } if frontiers.upper.is_empty() => Ok(()),
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-sealed-update-unknown",
            "ST-5",
            &["C-1"],
            "an update before upper is refused as Unknown",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| {
                    frontiers.admit(op).map_err(|e| match e {
                        StashError::TimeBeforeUpper { .. } => {
                            Fault::unknown(ErrorKind::InvalidInput, "sealed").into()
                        }
                        other => other,
                    })
                });
            },
        ),
    ]
}
