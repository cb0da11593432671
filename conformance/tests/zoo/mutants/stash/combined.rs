//! Wrong only where two features meet: each is right by itself, and one of them was made without the other in mind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::{Caps, Engine};
use larder_traits::stash::driver::{
    Frontiers, RawRow, Rows, Snapshot, StashOp, check_bounds, fold,
};
use larder_traits::{Antichain, CollectionId, Durability, ErrorKind, Fault, StashError, Timestamp};

use super::field::{commit, consolidates};
use super::{m, with_caps};
use crate::mutants::Mutant;
use crate::mutants::files::f;
use crate::reference::files::{self, RowFlaw, hash};
use crate::reference::medium::Trouble;
use crate::reference::stash::typed::Wrong;
use crate::reference::stash::{Answer, CAPS, Driver, Place, State};
use crate::reference::{gap, lock};

/// What a stash in files declares that is about processes only.
const PROCESS: Caps = files::CAPS.with_durability(Durability::Process);

pub(super) fn combined() -> Vec<Mutant> {
    [
        names(),
        dropped(),
        fenced(),
        appends(),
        keys(),
        sums(),
        consolidations(),
        bounds(),
        opened_again(),
        meeting(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Where lists of names keep what they are to say of a name. No name that a caller gives begins so.
fn hidden(name: &str) -> String {
    format!("\0\0{name}")
}

fn shown(state: &State) -> Vec<(String, CollectionId)> {
    let names = state.names.iter();
    let shown = names.filter(|(name, _)| !name.starts_with("\0\0"));
    shown.map(|(name, id)| (name.clone(), *id)).collect()
}

fn names() -> Vec<Mutant> {
    vec![
        m(
            "st-names-keep-the-first-id",
            "ST-1",
            &[],
            "the list of names has ids of its own, which a name keeps when it is dropped and created again",
            |s| {
                s.open = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let id = state.open(name);
                    state.names.entry(hidden(name)).or_insert(id);
                    Ok(id)
                });
                s.names = Box::new(|place| {
                    let state = lock(&place.state);
                    let listed = |(name, id): (String, CollectionId)| {
                        let first = state.names.get(&hidden(&name)).copied();
                        (name, first.unwrap_or(id))
                    };
                    Ok(shown(&state).into_iter().map(listed).collect())
                });
            },
        ),
        m(
            "st-names-cached-by-count",
            "C-2",
            &["ST-1"],
            "a handle keeps the list of names as long as there are as many and it changes none itself",
            |s| {
                let kept = Arc::new(Mutex::new(Vec::new()));
                let (opens, discards) = (Arc::clone(&kept), Arc::clone(&kept));
                s.names = Box::new(move |place| {
                    let names = shown(&lock(&place.state));
                    let mut kept = lock(&kept);
                    if kept.len() != names.len() {
                        *kept = names;
                    }
                    Ok(kept.clone())
                });
                s.open = Box::new(move |place, name| {
                    let mut state = lock(&place.state);
                    if !state.names.contains_key(name) {
                        lock(&opens).clear();
                    }
                    Ok(state.open(name))
                });
                s.discard = Box::new(move |place, name| {
                    lock(&discards).clear();
                    Ok(lock(&place.state).discard(name))
                });
            },
        ),
    ]
}

fn dropped() -> Vec<Mutant> {
    vec![
        m(
            "st-drop-by-text-of-id",
            "ST-1",
            &["ST-3"],
            "a drop removes all rows whose names begin with the id as a text, so dropping collection 1 empties 10 and 11",
            |s| {
                s.discard = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let Some(id) = state.names.get(name).copied() else {
                        return Ok(false);
                    };
                    let text = id.get().to_string();
                    for (other, collection) in &mut state.collections {
                        if other.get().to_string().starts_with(&text) {
                            collection.rows.clear();
                        }
                    }
                    Ok(state.discard(name))
                });
            },
        ),
        m(
            "st-drop-keeps-frontiers",
            "ST-1",
            &["ST-9"],
            "frontiers are kept by the name of their collection, and a drop leaves them to the next one of that name",
            |s| {
                s.discard = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    if let Some(id) = state.names.get(name).copied() {
                        let Frontiers { since, upper } = state.snapshot(id, Rows::None)?.frontiers;
                        let kept =
                            vec![StashOp::Seal { id, upper }, StashOp::Compact { id, since }];
                        lock(&place.notes).insert(hash(name.as_bytes()), kept);
                    }
                    Ok(state.discard(name))
                });
                s.open = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let is_new = !state.names.contains_key(name);
                    let id = state.open(name);
                    if is_new
                        && let Some(kept) = lock(&place.notes).remove(&hash(name.as_bytes()))
                        && let Some(collection) = state.collections.get_mut(&id)
                    {
                        for op in &kept {
                            collection.frontiers.admit(op)?;
                        }
                    }
                    Ok(id)
                });
            },
        ),
        m(
            "st-append-half-where-one-is-dropped",
            "ST-12",
            &["ST-1", "C-1"],
            "a commit does what it is to do to the collections that are there, and then says which one is not",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    let is_there = |id: &CollectionId| state.collections.contains_key(id);
                    let there = ops.iter().filter(|op| is_there(&op.id()));
                    let there: Vec<_> = there.cloned().collect();
                    let gone = ops.iter().map(StashOp::id).find(|id| !is_there(id));
                    let mut next = state.clone();
                    next.commit(&there, rules)?;
                    *state = next;
                    gone.map_or(Ok(()), |id| Err(StashError::NoCollection { id }))
                });
            },
        ),
    ]
}

/// Whether a handle of that epoch has been replaced.
type IsReplaced = fn(&Place, u64) -> bool;

/// Leaves it to each step to ask whether its handle was replaced; all but `commit` do at once.
fn asks_itself(s: &mut Driver, is_replaced: IsReplaced) -> impl Fn(&Place) -> Answer<()> + use<> {
    s.fenced = || None;
    let epoch = s.epoch;
    let ask = move |place: &Place| -> Answer<()> {
        if is_replaced(place, epoch) {
            return Err(Fault::not_applied(ErrorKind::Conflict, "a newer writer").into());
        }
        Ok(())
    };
    s.open = Box::new(move |place, name| {
        ask(place)?;
        Ok(lock(&place.state).open(name))
    });
    s.names = Box::new(move |place| {
        ask(place)?;
        Ok(shown(&lock(&place.state)))
    });
    s.discard = Box::new(move |place, name| {
        ask(place)?;
        Ok(lock(&place.state).discard(name))
    });
    s.snapshot = Box::new(move |place, id, rows| {
        ask(place)?;
        lock(&place.state).snapshot(id, rows)
    });
    ask
}

/// Whether nothing is changed by it.
fn is_idle(state: &State, op: &StashOp) -> bool {
    let Some(collection) = state.collections.get(&op.id()) else {
        return false;
    };
    match op {
        StashOp::Update { rows, .. } => rows.is_empty(),
        StashOp::Seal { upper, .. } => *upper == collection.frontiers.upper,
        StashOp::Compact { since, .. } => *since == collection.frontiers.since,
        StashOp::Consolidate { .. } => collection.rows.is_empty(),
        StashOp::ExpectUpper { .. } => false,
    }
}

fn fenced() -> Vec<Mutant> {
    /// Whose note is there as long as the writer that it is about has not been closed.
    const ALIVE: StashOp = StashOp::Consolidate {
        id: CollectionId::new(0),
    };
    vec![
        m(
            "st-exclusive-idle-calls-go-on",
            "ST-14",
            &[],
            "that there is a newer writer is found out by writing, and a call that changes nothing is Ok without it",
            |s| {
                let ask = asks_itself(s, |place, epoch| epoch != place.epoch.load(Relaxed));
                s.commit = Box::new(move |place, ops, rules| {
                    let changes_nothing = {
                        let state = lock(&place.state);
                        ops.iter().all(|op| is_idle(&state, op))
                    };
                    if changes_nothing {
                        return Ok(());
                    }
                    ask(place)?;
                    commit(place, ops, rules)
                });
            },
        ),
        m(
            "st-exclusive-ends-with-its-handle",
            "ST-14",
            &[],
            "an exclusive handle holds a lock, and once it is closed the older writer goes on",
            |s| {
                let ask = asks_itself(s, |place, epoch| {
                    let notes = lock(&place.notes);
                    let mut newer = notes.range(epoch.saturating_add(1)..);
                    newer.any(|(_, notes)| !notes.is_empty())
                });
                s.commit = Box::new(move |place, ops, rules| {
                    ask(place)?;
                    commit(place, ops, rules)
                });
                let epoch = s.epoch;
                let mut notes = lock(&s.place.notes);
                // The first handle of an epoch is the one that was opened exclusively.
                if epoch > 0 && !notes.contains_key(&epoch) {
                    notes.insert(epoch, vec![ALIVE]);
                    s.close = Box::new(move |place| {
                        lock(&place.notes).insert(epoch, Vec::new());
                    });
                }
            },
        ),
    ]
}

fn appends() -> Vec<Mutant> {
    vec![
        m(
            "st-append-rows-by-collection",
            "ST-12",
            &["ST-5"],
            "the rows of a commit are kept by their collection, and those of a second update of one replace those of the first",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut last = BTreeMap::new();
                    for (at, op) in ops.iter().enumerate() {
                        if let StashOp::Update { id, .. } = op {
                            last.insert(*id, at);
                        }
                    }
                    let kept = ops.iter().enumerate().filter(|(at, op)| match op {
                        StashOp::Update { id, .. } => last[id] == *at,
                        _ => true,
                    });
                    let kept: Vec<_> = kept.map(|(_, op)| op.clone()).collect();
                    commit(place, &kept, rules)
                });
            },
        ),
        m(
            "st-append-null-never-matches",
            "ST-12",
            &["ST-13"],
            "an append compares upper in SQL, where an empty one is not equal to any, itself included",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::ExpectUpper { upper, .. } if upper.is_empty() => {
                        Err(StashError::UpperMismatch {
                            expected: upper.clone(),
                            upper: frontiers.upper.clone(),
                        })
                    }
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-append-retried-as-safe",
            "ST-13",
            &["C-1", "ST-12"],
            "a commit that compares upper counts as safe to be made again where its answer was lost, and meets itself",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        let medium = &place.medium;
                        let compares = |op: &StashOp| matches!(op, StashOp::ExpectUpper { .. });
                        let is_safe = ops.iter().any(compares);
                        let begun = medium.timed(|| ()).await;
                        begun.map_err(|trouble| trouble.before())?;
                        let ended = match medium.timed(|| commit(place, &ops, rules)).await {
                            Err(Trouble::Lost | Trouble::Late) if is_safe => {
                                medium.timed(|| commit(place, &ops, rules)).await
                            }
                            ended => ended,
                        };
                        ended.unwrap_or_else(|trouble| Err(trouble.at_commit().into()))
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Fault),
    ]
}

fn keys() -> Vec<Mutant> {
    /// How many rows are read at a time.
    const PAGE: usize = 256;
    vec![
        m(
            "st-page-that-cancels-out-is-the-end",
            "ST-3",
            &["ST-11"],
            "all rows are read in pages, each of which is summed up, and one of which nothing is left is taken for the end",
            |s| {
                s.snapshot = Box::new(|place, id, which| {
                    let mut snapshot = lock(&place.state).snapshot(id, which)?;
                    if matches!(which, Rows::All) {
                        let since = snapshot.frontiers.since.clone();
                        let mut rows = std::mem::take(&mut snapshot.rows);
                        rows.sort();
                        for page in rows.chunks(PAGE) {
                            let page = page.to_vec();
                            // A sum that does not fit is for the reader to find out.
                            let summed = fold(page.clone(), since.borrow()).unwrap_or(page);
                            if summed.is_empty() {
                                break;
                            }
                            snapshot.rows.extend(summed);
                        }
                    }
                    Ok(snapshot)
                });
            },
        ),
        m(
            "st-key-gone-stays-gone",
            "ST-4",
            &["ST-8", "ST-11"],
            "a key of which a consolidation left no row is marked in the index as gone, and the mark outlives later updates",
            |s| {
                fn keys(state: &State, id: CollectionId) -> BTreeSet<Bytes> {
                    let collection = state.collections.get(&id);
                    let rows = collection.map(|it| &it.rows[..]).unwrap_or_default();
                    rows.iter().map(|row| row.key.clone()).collect()
                }
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    let mut next = state.clone();
                    let mut marks = Vec::new();
                    for op in ops {
                        let before = keys(&next, op.id());
                        next.commit(std::slice::from_ref(op), rules)?;
                        let after = keys(&next, op.id());
                        marks.extend(before.difference(&after).map(|key| (op.id(), key.clone())));
                    }
                    let mut notes = lock(&place.notes);
                    for (id, key) in marks {
                        let row = RawRow {
                            key,
                            value: Bytes::new(),
                            time: 0,
                            diff: 0,
                        };
                        let rows = vec![row];
                        let gone = StashOp::Update { id, rows };
                        notes.entry(id.get()).or_default().push(gone);
                    }
                    *state = next;
                    Ok(())
                });
                s.snapshot = Box::new(|place, id, which| {
                    let mut snapshot = lock(&place.state).snapshot(id, which)?;
                    if let Rows::Key(key) = which
                        && let Some(marks) = lock(&place.notes).get(&id.get())
                        && marks.iter().any(|op| match op {
                            StashOp::Update { rows, .. } => rows.iter().any(|row| row.key == key),
                            _ => false,
                        })
                    {
                        snapshot.rows.clear();
                    }
                    Ok(snapshot)
                });
            },
        ),
        m(
            "st-key-fails-for-another",
            "ST-4",
            &["ST-5", "ST-11"],
            "the rows of a key are taken out of all that are summed up, and a sum of another key that does not fit is an error",
            |s| {
                s.snapshot = Box::new(|place, id, which| {
                    let state = lock(&place.state);
                    if let Rows::Key(_) = which {
                        let Snapshot { frontiers, rows } = state.snapshot(id, Rows::All)?;
                        fold(rows, frontiers.since.borrow())?;
                    }
                    state.snapshot(id, which)
                });
            },
        ),
    ]
}

fn sums() -> Vec<Mutant> {
    vec![
        m(
            "st-peek-sums-on-the-way",
            "ST-11",
            &["ST-5"],
            "a peek sums up from one time to the next, and is refused where a sum leaves 64 bits on its way",
            |s| s.wrong = Some(Wrong::PeekSumsOnTheWay),
        ),
        m(
            "st-peek-end-excluded",
            "ST-11",
            &["ST-10", "ST-6"],
            "a peek is of the times before the next one, and after the greatest there is there is no next one",
            |s| s.wrong = Some(Wrong::PeekEndExcluded),
        ),
        m(
            "st-key-one-negative-passed-over",
            "ST-11",
            &[],
            "`peek_key_one` passes over values that were taken away more often than they were added",
            |s| s.wrong = Some(Wrong::KeyOneNegativePassedOver),
        ),
    ]
}

/// As a number of 53 bits has it.
fn as_float(sum: i64) -> i64 {
    let magnitude = sum.unsigned_abs();
    let beyond = 11_u32.saturating_sub(magnitude.leading_zeros());
    let half = (1_u64 << beyond) / 2;
    let kept = i64::try_from((magnitude + half) >> beyond << beyond);
    match kept {
        Ok(kept) if sum < 0 => -kept,
        Ok(kept) => kept,
        Err(_too_large) if sum < 0 => i64::MIN,
        Err(_too_large) => i64::MAX,
    }
}

/// What a handle has written: how often each row.
type Own = BTreeMap<CollectionId, BTreeMap<RawRow, usize>>;

fn own_of(own: &mut Own, id: CollectionId, rows: &[RawRow]) {
    let rows_of = own.entry(id).or_default();
    for row in rows {
        *rows_of.entry(row.clone()).or_default() += 1;
    }
}

fn consolidations() -> Vec<Mutant> {
    vec![
        m(
            "st-consolidate-times-unsigned",
            "ST-8",
            &["ST-3", "ST-7"],
            "a consolidation compares times as the index has them, where those before zero come last",
            |s| {
                consolidates(s, |it| {
                    let Some(since) = it.frontiers.since.as_option() else {
                        it.rows.clear();
                        return Ok(());
                    };
                    if *since == Timestamp::MIN {
                        // Nothing was compacted yet.
                        return Ok(());
                    }
                    let mut rows = it.rows.clone();
                    for row in &mut rows {
                        if row.time.cast_unsigned() <= since.cast_unsigned() {
                            row.time = *since;
                        }
                    }
                    it.rows = fold(rows, Antichain::from_elem(Timestamp::MIN).borrow())?;
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-sums-floats",
            "ST-8",
            &["ST-5", "ST-3"],
            "a consolidation sums up what it merges in numbers with 53 bits",
            |s| {
                consolidates(s, |it| {
                    let mut rows = fold(it.rows.clone(), it.frontiers.since.borrow())?;
                    let before: BTreeSet<_> = it.rows.iter().collect();
                    for row in &mut rows {
                        // What was there alone is left as it is.
                        if !before.contains(&*row) {
                            row.diff = as_float(row.diff);
                        }
                    }
                    it.rows = rows;
                    Ok(())
                });
            },
        ),
        m(
            "st-consolidate-age-panics",
            "C-3",
            &["ST-8"],
            "a consolidation asks how far a row lies before since, however far that is",
            |s| {
                consolidates(s, |it| {
                    if let Some(since) = it.frontiers.since.as_option() {
                        let before = it.rows.iter().filter(|row| row.time < *since);
                        let ages = before.map(|row| since.checked_sub(row.time));
                        let _oldest = ages.map(|age| age.expect("an age")).max();
                    }
                    it.rows = fold(std::mem::take(&mut it.rows), it.frontiers.since.borrow())?;
                    Ok(())
                });
            },
        )
        .panicking(),
        m(
            "st-consolidate-own-rows",
            "ST-8",
            &["C-2", "ST-14"],
            "a handle keeps a list of the rows that it wrote, and consolidates these and no others",
            |s| {
                let own = Mutex::new(Own::new());
                s.commit = Box::new(move |place, ops, rules| {
                    let mut state = lock(&place.state);
                    let (mut next, mut own) = (state.clone(), lock(&own));
                    let mut later = own.clone();
                    for op in ops {
                        let id = op.id();
                        let mut others = Vec::new();
                        if let (StashOp::Consolidate { .. }, Some(collection)) =
                            (op, next.collections.get_mut(&id))
                        {
                            let mut mine = later.remove(&id).unwrap_or_default();
                            let is_others = |row: &mut RawRow| match mine.get_mut(&*row) {
                                Some(count) if *count > 0 => {
                                    *count -= 1;
                                    false
                                }
                                _ => true,
                            };
                            others = collection.rows.extract_if(.., is_others).collect();
                        }
                        next.commit(std::slice::from_ref(op), rules)?;
                        match op {
                            StashOp::Update { rows, .. } => own_of(&mut later, id, rows),
                            StashOp::Consolidate { .. } => {
                                if let Some(collection) = next.collections.get_mut(&id) {
                                    own_of(&mut later, id, &collection.rows);
                                    collection.rows.append(&mut others);
                                }
                            }
                            _ => {}
                        }
                    }
                    *own = later;
                    *state = next;
                    Ok(())
                });
            },
        ),
    ]
}

fn refused(why: &'static str) -> StashError {
    Fault::not_applied(ErrorKind::InvalidInput, why).into()
}

fn bounds() -> Vec<Mutant> {
    /// How many operations the statement of a commit has parameters for.
    const PARAMETERS: usize = 499;
    vec![
        m(
            "st-rows-bound-of-all-items",
            "C-4",
            &["ST-12"],
            "the bound on the rows of an update is kept for those of all updates of a commit together",
            |s| {
                s.bounds = Box::new(|_, ops| {
                    check_bounds(&ops, &CAPS.stash)?;
                    let rows = ops.iter().map(|op| match op {
                        StashOp::Update { rows, .. } => rows.len(),
                        _ => 0,
                    });
                    if rows.sum::<usize>() > CAPS.stash.batch_rows_max {
                        return Err(refused("too many rows"));
                    }
                    Ok(ops)
                });
            },
        ),
        m(
            "st-batch-parameter-limit",
            "ST-12",
            &["C-4"],
            "a batch is one statement, which has parameters for 499 items",
            |s| {
                s.bounds = Box::new(|_, ops| {
                    check_bounds(&ops, &CAPS.stash)?;
                    if ops.len() > PARAMETERS {
                        return Err(refused("too many parameters"));
                    }
                    Ok(ops)
                });
            },
        ),
        m(
            "st-name-bound-in-characters",
            "C-4",
            &["ST-1"],
            "the bound on a name is in bytes, and is kept for its characters",
            |s| {
                s.name = Box::new(|name| {
                    if name.chars().count() > CAPS.stash.name_len_bytes_max {
                        return Err(refused("a long name"));
                    }
                    Ok(name.to_owned())
                });
            },
        ),
        with_caps(
            CAPS.with_stash(CAPS.stash.with_batch_atomic(false)),
            "st-half-batch-not-applied",
            "C-1",
            &["ST-12"],
            "a batch keeps what came before the item that was refused, and says that there was no effect",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    let one = |op: &StashOp| state.commit(std::slice::from_ref(op), rules);
                    ops.iter().try_for_each(one)
                });
            },
        ),
    ]
}

fn opened_again() -> Vec<Mutant> {
    let of = |flaw| move || files::stash(PROCESS, flaw);
    vec![
        f(
            "st-file-ids-by-the-names",
            "ST-1",
            &["ST-13", "C-2"],
            "when the stash is opened the collections are numbered in the order of their names, whatever their ids were",
            of(RowFlaw::IdsByTheNames),
        ),
        f(
            "st-file-empty-is-not-moved",
            "ST-9",
            &["ST-6", "ST-7", "ST-13", "C-2"],
            "when the stash is opened an empty frontier is taken for one that was never moved",
            of(RowFlaw::EmptyIsNotMoved),
        ),
        f(
            "st-file-upper-from-the-rows",
            "ST-9",
            &["ST-5", "ST-13", "C-2"],
            "when the stash is opened upper is beyond all rows that are there, sealed or not",
            of(RowFlaw::UpperFromTheRows),
        ),
    ]
}

fn meeting() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "st-key-rows-moved-while-read",
            "ST-4",
            &["ST-8", "ST-11", "ST-14"],
            "the index says which rows a key has, and those that a consolidation has merged a moment later are left out",
            |s| {
                s.slow_snapshot = Some(Box::new(|place, id, which| {
                    async move {
                        let mut found = lock(&place.state).snapshot(id, which)?;
                        if matches!(which, Rows::Key(_)) {
                            gap().await;
                            let there = lock(&place.state).snapshot(id, which)?.rows;
                            found.rows.retain(|row| there.contains(row));
                        }
                        Ok(found)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-consolidate-removes-equal-rows",
            "ST-14",
            &["ST-8", "ST-5"],
            "a consolidation removes the rows that it has merged by what they say, and so those that came meanwhile and say the same",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        let [StashOp::Consolidate { id }] = &ops[..] else {
                            return commit(place, &ops, rules);
                        };
                        let _turn = place.turn.lock().await;
                        let Snapshot { frontiers, rows } =
                            lock(&place.state).snapshot(*id, Rows::All)?;
                        let merged = fold(rows.clone(), frontiers.since.borrow())?;
                        gap().await;
                        let mut state = lock(&place.state);
                        let gone = StashError::NoCollection { id: *id };
                        let collection = state.collections.get_mut(id).ok_or(gone)?;
                        let rows: BTreeSet<_> = rows.into_iter().collect();
                        collection.rows.retain(|row| !rows.contains(row));
                        collection.rows.extend(merged);
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Lin);
    mutants.into_iter().map(awaiting).collect()
}
