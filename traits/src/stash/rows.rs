//! Sums over rows, typed and raw.
//!
//! Every sum is formed in 128 bits and checked once at its end. So the order in which updates arrived, or in which
//! a medium returns them, cannot decide whether a sum fits (ST-5). 2^64 rows of 64 bits each cannot overflow it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Diff, StashError, Timestamp};
use crate::{Classify, ErrorKind, Fault};

/// Sorts, sums what is equal, and leaves out zero sums.
pub(super) fn consolidate<T: Ord>(mut rows: Vec<(T, Diff)>) -> Result<Vec<(T, Diff)>, StashError> {
    // As a driver that keeps its rows by key mostly returns them, and then nothing has to be moved.
    if rows.iter().all(|(_, diff)| *diff != 0) && rows.is_sorted_by(|a, b| a.0 < b.0) {
        return Ok(rows);
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let mut out = Vec::with_capacity(rows.len());
    let mut rows = rows.into_iter().peekable();
    while let Some((row, diff)) = rows.next() {
        let mut sum = i128::from(diff);
        while let Some((_, diff)) = rows.next_if(|(next, _)| next.cmp(&row) == Ordering::Equal) {
            sum += i128::from(diff);
        }
        match Diff::try_from(sum) {
            Ok(0) => {}
            Ok(diff) => out.push((row, diff)),
            Err(_) => return Err(StashError::DiffOverflow),
        }
    }
    Ok(out)
}

/// What is there at the time `at`: the rows up to it, summed over time.
pub(super) fn sealed_at<T: Ord>(
    at: Timestamp,
    rows: Vec<(T, Timestamp, Diff)>,
) -> Result<Vec<(T, Diff)>, StashError> {
    let sealed = rows.into_iter().filter(|(_, time, _)| *time <= at);
    consolidate(sealed.map(|(row, _, diff)| (row, diff)).collect())
}

/// The shape in which `peek` answers.
pub(super) fn flat<K, V>(rows: Vec<((K, V), Diff)>) -> Vec<(K, V, Diff)> {
    rows.into_iter()
        .map(|((key, value), diff)| (key, value, diff))
        .collect()
}

/// The one value of each key, with the multiplicity 1 (ST-11).
pub(super) fn one_value_each<K: Ord, V>(
    rows: Vec<(K, V, Diff)>,
) -> Result<BTreeMap<K, V>, StashError> {
    let mut map = BTreeMap::new();
    for (key, value, diff) in rows {
        if diff != 1 {
            return Err(StashError::UnexpectedMultiplicity { diff });
        }
        if map.insert(key, value).is_some() {
            return Err(StashError::DuplicateKey);
        }
    }
    Ok(map)
}

/// The one value of one key, with the multiplicity 1 (ST-11).
pub(super) fn one_value<V>(rows: Vec<(V, Diff)>) -> Result<Option<V>, StashError> {
    let mut one = None;
    for (value, diff) in rows {
        if diff != 1 {
            return Err(StashError::UnexpectedMultiplicity { diff });
        }
        if one.replace(value).is_some() {
            return Err(StashError::DuplicateKey);
        }
    }
    Ok(one)
}

/// A provided peek gave up.
pub(super) fn overtaken() -> StashError {
    let why = "other handles moved the frontiers during every attempt to peek";
    Fault::not_applied(ErrorKind::Unavailable, why).into()
}

/// The error of a batch whose item `index` failed with `e`. Items before it stand, so the call as a whole cannot
/// claim to have had no effect.
pub(super) fn after_items(index: usize, e: StashError) -> StashError {
    if index == 0 {
        return e;
    }
    let what = format!("item {index} of a batch failed after those before it had been applied");
    StashError::Backend(Fault::unknown(e.kind(), what).because(e))
}
