//! Frontiers and consolidation.

use std::collections::{BTreeMap, BTreeSet};

use larder_traits::stash::driver::{RawRow, StashOp, fold};
use larder_traits::{Antichain, ErrorKind, Fault, StashError};

use super::m;
use crate::mutants::Mutant;
use crate::reference::lock;
use crate::reference::stash::{Collection, apply};

pub(super) fn frontiers() -> Vec<Mutant> {
    vec![
        m(
            "st-seal-regresses",
            "ST-6",
            &["ST-9"],
            "a seal may take upper back",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Seal { upper, .. } => {
                        frontiers.upper.clone_from(upper);
                        Ok(())
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-seal-lower-ignored",
            "ST-6",
            &[],
            "a seal that would take upper back is Ok without effect",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Seal { upper, .. } if *upper < frontiers.upper => Ok(()),
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-seal-equal-refused",
            "ST-6",
            &[],
            "a seal at upper is an error",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Seal { upper, .. } if *upper == frontiers.upper => {
                        Err(StashError::SealBeforeUpper {
                            new: upper.clone(),
                            upper: upper.clone(),
                        })
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-seal-empty-refused",
            "ST-6",
            &[],
            "the empty frontier is taken for a step back",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Seal { upper, .. } if upper.is_empty() => {
                        let upper = frontiers.upper.clone();
                        Err(StashError::SealBeforeUpper {
                            new: Antichain::new(),
                            upper,
                        })
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-seal-drops-later",
            "ST-6",
            &["ST-3"],
            "a seal drops the rows beyond it",
            |s| {
                s.rules.apply = Box::new(|collection, op| {
                    if let StashOp::Seal { upper, .. } = op {
                        collection.rows.retain(|row| !upper.less_equal(&row.time));
                    }
                    apply(collection, op)
                });
            },
        ),
        m(
            "st-compact-past-upper",
            "ST-7",
            &["ST-9"],
            "a compaction may go past upper",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Compact { since, .. } if *since >= frontiers.since => {
                        frontiers.since.clone_from(since);
                        Ok(())
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-compact-regresses",
            "ST-7",
            &["ST-9"],
            "a compaction may take since back",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Compact { since, .. } if *since <= frontiers.upper => {
                        frontiers.since.clone_from(since);
                        Ok(())
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-compact-upper-refused",
            "ST-7",
            &[],
            "a compaction to upper itself is an error",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Compact { since, .. }
                        if *since == frontiers.upper && *since != frontiers.since =>
                    {
                        let upper = frontiers.upper.clone();
                        Err(StashError::CompactPastUpper {
                            new: since.clone(),
                            upper,
                        })
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-compact-equal-refused",
            "ST-7",
            &[],
            "a compaction to since is an error",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Compact { since, .. } if *since == frontiers.since => {
                        Err(StashError::CompactBeforeSince {
                            new: since.clone(),
                            since: since.clone(),
                        })
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-compact-deletes",
            "ST-7",
            &["ST-3"],
            "a compaction deletes the rows before since",
            |s| {
                s.rules.apply = Box::new(|collection, op| {
                    if let StashOp::Compact { since, .. } = op {
                        collection.rows.retain(|row| since.less_equal(&row.time));
                    }
                    apply(collection, op)
                });
            },
        ),
        m(
            "st-refusal-unnamed",
            "ST-6",
            &["C-1"],
            "a seal before upper is refused with the wrong kind",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| {
                    frontiers.admit(op).map_err(|e| match e {
                        StashError::SealBeforeUpper { .. } => {
                            Fault::not_applied(ErrorKind::Internal, "constraint failed").into()
                        }
                        other => other,
                    })
                });
            },
        ),
        m(
            "st-upper-excluded",
            "ST-5",
            &["ST-6"],
            "an update at upper itself is refused",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::Update { rows, .. }
                        if rows
                            .iter()
                            .any(|row| frontiers.upper.as_option() == Some(&row.time)) =>
                    {
                        let upper = frontiers.upper.clone();
                        let time = upper.as_option().copied().unwrap_or_default();
                        Err(StashError::TimeBeforeUpper { time, upper })
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-seal-all",
            "ST-6",
            &["ST-9", "ST-1", "ST-12"],
            "sealing a collection seals the others as far",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    let mut next = state.clone();
                    next.commit(ops, rules)?;
                    for op in ops {
                        if let StashOp::Seal { upper, .. } = op {
                            for collection in next.collections.values_mut() {
                                let old = collection.frontiers.upper.clone();
                                collection.frontiers.upper = old.max(upper.clone());
                            }
                        }
                    }
                    *state = next;
                    Ok(())
                });
            },
        ),
        m(
            "st-compact-all",
            "ST-7",
            &["ST-9", "ST-1", "ST-12"],
            "compacting a collection compacts the others as far as they are sealed",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    let mut next = state.clone();
                    next.commit(ops, rules)?;
                    for op in ops {
                        if let StashOp::Compact { since, .. } = op {
                            for Collection { frontiers, .. } in next.collections.values_mut() {
                                let as_far = since.clone().min(frontiers.upper.clone());
                                frontiers.since = frontiers.since.clone().max(as_far);
                            }
                        }
                    }
                    *state = next;
                    Ok(())
                });
            },
        ),
    ]
}

/// Replaces what a consolidation does.
macro_rules! consolidating {
    ($s:ident, |$collection:ident| $body:expr) => {
        $s.rules.apply = Box::new(|$collection, op| match op {
            StashOp::Consolidate { .. } => $body,
            _ => apply($collection, op),
        })
    };
}

fn folded(collection: &Collection) -> Result<Vec<RawRow>, StashError> {
    fold(collection.rows.clone(), collection.frontiers.since.borrow())
}

pub(super) fn consolidation() -> Vec<Mutant> {
    vec![
        m(
            "st-consolidate-past-since",
            "ST-8",
            &["ST-3"],
            "rows beyond since are folded as well",
            |s| {
                consolidating!(s, |collection| {
                    let far = collection.frontiers.upper.clone();
                    let all = collection.rows.iter().map(|row| row.time).max();
                    let to = all
                        .filter(|_| !far.is_empty())
                        .map_or(far, Antichain::from_elem);
                    collection.rows = fold(collection.rows.clone(), to.borrow())?;
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-drops-unsealed",
            "ST-8",
            &["ST-3"],
            "a consolidation drops what is not sealed",
            |s| {
                consolidating!(s, |collection| {
                    let upper = collection.frontiers.upper.clone();
                    collection.rows = folded(collection)?;
                    collection.rows.retain(|row| !upper.less_equal(&row.time));
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-drops-negative",
            "ST-8",
            &["ST-3", "ST-5"],
            "a consolidation drops negative sums",
            |s| {
                consolidating!(s, |collection| {
                    collection.rows = folded(collection)?;
                    collection.rows.retain(|row| row.diff > 0);
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-doubles",
            "ST-8",
            &["ST-3"],
            "a consolidation adds the folded rows to the old ones",
            |s| {
                consolidating!(s, |collection| {
                    let folded = folded(collection)?;
                    let late = collection
                        .rows
                        .iter()
                        .filter(|row| !folded.contains(row))
                        .cloned();
                    collection.rows = late.chain(folded.clone()).collect();
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-by-key",
            "ST-8",
            &["ST-3"],
            "a consolidation keeps one value for each key",
            |s| {
                consolidating!(s, |collection| {
                    let mut seen = BTreeSet::new();
                    collection.rows = folded(collection)?;
                    collection
                        .rows
                        .retain(|row| seen.insert((row.key.clone(), row.time)));
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-empty-keeps",
            "ST-8",
            &[],
            "with an empty since, the rows are kept",
            |s| {
                consolidating!(s, |collection| {
                    if !collection.frontiers.since.is_empty() {
                        collection.rows = folded(collection)?;
                    }
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-wraps",
            "ST-8",
            &["ST-5", "ST-3", "ST-4"],
            "a sum beyond 64 bits wraps when it is consolidated",
            |s| {
                consolidating!(s, |collection| {
                    let since = collection.frontiers.since.as_option().copied();
                    let mut sums = BTreeMap::new();
                    for row in collection.rows.drain(..) {
                        let time = since.map_or(row.time, |since| row.time.max(since));
                        let sum: &mut i64 = sums.entry((row.key, row.value, time)).or_default();
                        *sum = sum.wrapping_add(row.diff);
                    }
                    let rows = sums
                        .into_iter()
                        .filter(|(_, diff)| *diff != 0 && since.is_some());
                    collection.rows = rows
                        .map(|((key, value, time), diff)| RawRow {
                            key,
                            value,
                            time,
                            diff,
                        })
                        .collect();
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-advances-since",
            "ST-8",
            &["ST-9", "ST-3"],
            "a consolidation compacts up to upper first",
            |s| {
                consolidating!(s, |collection| {
                    collection
                        .frontiers
                        .since
                        .clone_from(&collection.frontiers.upper);
                    collection.rows = folded(collection)?;
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-all",
            "ST-8",
            &["ST-1", "ST-3", "ST-12"],
            "consolidating a collection folds the others at its since",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    let mut next = state.clone();
                    next.commit(ops, rules)?;
                    for op in ops {
                        if let StashOp::Consolidate { id } = op {
                            let found = next.collections.get(id).map(|c| c.frontiers.since.clone());
                            let since = found.ok_or(StashError::NoCollection { id: *id })?;
                            for collection in next.collections.values_mut() {
                                collection.rows = fold(collection.rows.clone(), since.borrow())?;
                            }
                        }
                    }
                    *state = next;
                    Ok(())
                });
            },
        ),
    ]
}
