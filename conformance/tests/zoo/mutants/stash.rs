//! Broken `Stash`es.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use larder_conformance::{Caps, Contract};
use larder_traits::stash::driver::{Frontiers, Rows, StashOp};
use larder_traits::{Antichain, CollectionId, ErrorKind, Fault, StashError};

use super::Mutant;
use crate::reference::lock;
use crate::reference::stash::typed::Wrong;
use crate::reference::stash::{Bend, CAPS, apply, suite};

mod bystanders;
mod collections;
mod combined;
mod concurrent;
mod corners;
mod dropped;
mod failing;
mod field;
mod frontiers;
mod later;
mod neighbours;
mod rows;

pub(crate) fn all() -> Vec<Mutant> {
    [
        collections(),
        typed(),
        rows::reads(),
        rows::updates(),
        frontiers::frontiers(),
        frontiers::consolidation(),
        batches(),
        handles(),
        bounds(),
        concurrent::concurrent(),
        dropped::dropped(),
        bystanders::bystanders(),
        failing::failing(),
        neighbours::neighbours(),
        corners::corners(),
        field::field(),
        later::later(),
        combined::combined(),
        collections::collections(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn with_caps(
    caps: Caps,
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    Mutant {
        id,
        contract: Contract::Stash,
        breaks,
        also,
        about,
        awaits: None,
        hangs: false,
        panics: false,
        suite: Box::new(move || suite(caps, bend)),
    }
}

fn m(
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    with_caps(CAPS, id, breaks, also, about, bend)
}

fn collections() -> Vec<Mutant> {
    vec![
        m(
            "st-upper-from-zero",
            "ST-1",
            &["ST-9", "ST-5"],
            "the upper frontier of a new collection is 0",
            |s| {
                s.open = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let new = !state.names.contains_key(name);
                    let id = state.open(name);
                    if let Some(collection) = state.collections.get_mut(&id).filter(|_| new) {
                        collection.frontiers.upper = Antichain::from_elem(0);
                    }
                    Ok(id)
                });
            },
        ),
        m(
            "st-since-from-zero",
            "ST-1",
            &["ST-9", "ST-3"],
            "both frontiers of a new collection are 0",
            |s| {
                s.open = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let new = !state.names.contains_key(name);
                    let id = state.open(name);
                    if let Some(collection) = state.collections.get_mut(&id).filter(|_| new) {
                        let (since, upper) = (Antichain::from_elem(0), Antichain::from_elem(0));
                        collection.frontiers = Frontiers { since, upper };
                    }
                    Ok(id)
                });
            },
        ),
        m(
            "st-open-recreates",
            "ST-1",
            &["C-2", "ST-14"],
            "loading a collection by its name empties it",
            |s| {
                s.open = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let id = state.open(name);
                    if let Some(collection) = state.collections.get_mut(&id) {
                        collection.rows.clear();
                    }
                    Ok(id)
                });
            },
        ),
        m(
            "st-open-duplicates",
            "ST-1",
            &["C-2", "ST-14"],
            "each handle makes a collection of its own of one name",
            |s| {
                let mine = Mutex::new(BTreeMap::new());
                s.open = Box::new(move |place, name| {
                    let mut mine = lock(&mine);
                    if let Some(id) = mine.get(name) {
                        return Ok(*id);
                    }
                    let mut state = lock(&place.state);
                    state.names.remove(name);
                    let id = state.open(name);
                    mine.insert(name.to_owned(), id);
                    Ok(id)
                });
            },
        ),
        m(
            "st-name-case",
            "ST-1",
            &[],
            "names that differ in case only are one collection",
            |s| {
                s.name = Box::new(|name| Ok(name.to_lowercase()));
            },
        ),
        m(
            "st-name-cut",
            "ST-1",
            &["C-4"],
            "a name is cut after 63 bytes",
            |s| {
                s.name = Box::new(|name| Ok(name.chars().take(63).collect()));
            },
        ),
        m(
            "st-name-trimmed",
            "ST-1",
            &[],
            "blanks around a name are dropped",
            |s| {
                s.name = Box::new(|name| Ok(name.trim().to_owned()));
            },
        ),
        m(
            "st-names-bounded",
            "ST-1",
            &[],
            "from the 256th collection on the ids start over",
            |s| {
                s.open = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    if state.next >= 256 && !state.names.contains_key(name) {
                        let id = CollectionId::new(state.next % 256);
                        state.next += 1;
                        state.names.insert(name.to_owned(), id);
                        return Ok(id);
                    }
                    Ok(state.open(name))
                });
            },
        ),
        m(
            "st-id-of-connection",
            "ST-1",
            &[],
            "a collection is known to the handle that opened it only",
            |s| {
                let opened = Arc::new(Mutex::new(BTreeSet::new()));
                let known = Arc::clone(&opened);
                s.open = Box::new(move |place, name| {
                    let id = lock(&place.state).open(name);
                    lock(&opened).insert(id);
                    Ok(id)
                });
                s.snapshot = Box::new(move |place, id, rows| {
                    if !lock(&known).contains(&id) {
                        return Err(StashError::NoCollection { id });
                    }
                    lock(&place.state).snapshot(id, rows)
                });
            },
        ),
        m(
            "st-drop-keeps-rows",
            "ST-1",
            &[],
            "a collection that is dropped and created again has its old rows",
            |s| {
                s.discard = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let Some(id) = state.names.remove(name) else {
                        return Ok(false);
                    };
                    state.names.insert(format!("\0{name}"), id);
                    Ok(true)
                });
                s.open = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    if let Some(id) = state.names.remove(&format!("\0{name}")) {
                        state.names.insert(name.to_owned(), id);
                    }
                    Ok(state.open(name))
                });
                s.names = Box::new(|place| {
                    let state = lock(&place.state);
                    let shown = |name: &&String| !name.starts_with('\0');
                    Ok(state
                        .names
                        .iter()
                        .filter(|(name, _)| shown(name))
                        .map(|(n, id)| (n.clone(), *id))
                        .collect())
                });
            },
        ),
        m(
            "st-drop-reuses-id",
            "ST-1",
            &[],
            "the id of a dropped collection is given to the next one",
            |s| {
                s.discard = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let id = state.names.get(name).map(|id| id.get());
                    let dropped = state.discard(name);
                    state.next = id.unwrap_or(state.next);
                    Ok(dropped)
                });
            },
        ),
        m(
            "st-drop-prefix",
            "ST-1",
            &[],
            "dropping a collection drops those whose names start with its name",
            |s| {
                s.discard = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let names: Vec<_> = state
                        .names
                        .keys()
                        .filter(|n| n.starts_with(name))
                        .cloned()
                        .collect();
                    let existed = state.names.contains_key(name);
                    for name in &names {
                        state.discard(name);
                    }
                    Ok(existed)
                });
            },
        ),
        m(
            "st-drop-still-listed",
            "ST-1",
            &[],
            "a dropped collection is still among the names",
            |s| {
                s.discard = Box::new(|place, name| {
                    let mut state = lock(&place.state);
                    let Some(id) = state.names.get(name).copied() else {
                        return Ok(false);
                    };
                    Ok(state.collections.remove(&id).is_some())
                });
            },
        ),
        m(
            "st-drop-absent-true",
            "ST-1",
            &[],
            "dropping a collection that is not there says that it was",
            |s| {
                s.discard = Box::new(|place, name| {
                    lock(&place.state).discard(name);
                    Ok(true)
                });
            },
        ),
        m(
            "st-dropped-takes-updates",
            "ST-1",
            &["C-1"],
            "an update of a dropped collection is Ok without effect",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    let mut next = state.clone();
                    let there: Vec<_> = ops
                        .iter()
                        .filter(|op| next.collections.contains_key(&op.id()))
                        .cloned()
                        .collect();
                    next.commit(&there, rules)?;
                    *state = next;
                    Ok(())
                });
            },
        ),
    ]
}

macro_rules! wrong {
    ($($id:literal, $breaks:literal, $also:expr, $about:literal, $wrong:ident;)+) => {
        vec![$(m($id, $breaks, $also, $about, |s| s.wrong = Some(Wrong::$wrong))),+]
    };
}

fn typed() -> Vec<Mutant> {
    wrong![
        "st-byte-order", "ST-2", &["ST-3"], "rows come in the order of their bytes", ByteOrder;
        "st-peek-byte-order", "ST-2", &["ST-11"], "a peek comes in the order of the bytes", PeekByteOrder;
        "st-positional-codec", "ST-2", &[], "fields are stored without their names, so a type cannot grow", PositionalCodec;
        "st-unproven-codec", "ST-2", &[], "`Some(None)` is stored, and read back as `None`", UnprovenCodec;
        "st-time-order", "ST-3", &[], "rows come in the order of their times", TimeOrder;
        "st-zeros-shown", "ST-3", &["ST-4"], "rows whose sum is zero are shown", ZerosShown;
        "st-sum-wraps", "ST-3", &["ST-5", "ST-8"], "a sum beyond 64 bits wraps around", SumWraps;
        "st-not-advanced", "ST-7", &["ST-3"], "early rows show at their own times until they are consolidated", NotAdvanced;
        "st-summed-too-early", "ST-7", &["ST-3", "ST-4"], "rows are summed before their times are advanced to since", SummedBeforeAdvancing;
        "st-since-empty-reads", "ST-3", &["ST-4"], "with an empty since, no rows are answered instead of an error", SinceEmptyIsEmpty;
        "st-key-time-order", "ST-4", &[], "the rows of one key come in the order of their times", KeyTimeOrder;
        "st-key-not-advanced", "ST-4", &["ST-7"], "the rows of one key show at their own times", KeyNotAdvanced;
        "st-peek-unsealed", "ST-11", &[], "a peek shows what is not sealed", PeekUnsealed;
        "st-peek-bound-excluded", "ST-11", &[], "a peek leaves out the last sealed time", PeekBoundExcluded;
        "st-peek-per-time", "ST-11", &[], "a peek has one line for each time", PeekPerTime;
        "st-peek-at-upper", "ST-10", &[], "the time of a peek is upper itself", PeekTimeIsUpper;
        "st-peek-fresh", "ST-10", &[], "a collection of which nothing is sealed has a time to peek at", PeekTimeUnchecked;
        "st-peek-no-end", "ST-10", &["ST-11"], "a collection that is sealed for ever has no time to peek at", PeekTimeNoEnd;
        "st-one-last-wins", "ST-11", &[], "of two values of a key, `peek_one` answers with the last", OneLastWins;
        "st-one-any-multiplicity", "ST-11", &[], "a multiplicity other than 1 passes for one", OneAnyMultiplicity;
        "st-key-one-first-wins", "ST-11", &[], "of two values of a key, `peek_key_one` answers with the first", KeyOneFirstWins;
        "st-key-one-absent-fails", "ST-11", &[], "`peek_key_one` of an absent key is an error", KeyOneAbsentFails;
        "st-row-by-row", "ST-5", &["ST-2"], "each row of an update is encoded and committed by itself", RowByRow;
        "st-batch-sorted", "ST-12", &[], "the items of a batch are made in the order of their times", BatchSorted;
        "st-batch-last-wins", "ST-12", &[], "of two items for one collection, the last alone is made", BatchLastWins;
        "st-batch-empty-fails", "ST-12", &[], "a batch of nothing is an error", BatchEmptyFails;
    ]
}

fn batches() -> Vec<Mutant> {
    vec![
        m(
            "st-batch-by-kind",
            "ST-12",
            &[],
            "a commit makes its updates first, then its seals, then its compactions",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut ops = ops.to_vec();
                    ops.sort_by_key(|op| match op {
                        StashOp::ExpectUpper { .. } => 0,
                        StashOp::Update { .. } => 1,
                        StashOp::Seal { .. } => 2,
                        _ => 3,
                    });
                    let mut state = lock(&place.state);
                    let mut next = state.clone();
                    next.commit(&ops, rules)?;
                    *state = next;
                    Ok(())
                });
            },
        ),
        m(
            "st-batch-prefix-applied",
            "ST-12",
            &[],
            "a batch is declared to be atomic, and the items before the failed one stay",
            |s| {
                s.commit = Box::new(|place, ops, rules| lock(&place.state).commit(ops, rules));
            },
        ),
        m(
            "st-batch-reads-first",
            "ST-12",
            &[],
            "the frontiers are read once at the start of a batch, so a second item does not see the first",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    let mut next = state.clone();
                    for op in ops {
                        let mut frontiers = state.snapshot(op.id(), Rows::None)?.frontiers;
                        frontiers.admit(op)?;
                        next.commit(std::slice::from_ref(op), rules)
                            .or_else(|_late| {
                                // What the stale frontiers allowed is written over what came before.
                                let id = op.id();
                                let found = next.collections.get_mut(&id);
                                let collection = found.ok_or(StashError::NoCollection { id })?;
                                collection.frontiers = frontiers.clone();
                                apply(collection, op)
                            })?;
                    }
                    *state = next;
                    Ok(())
                });
            },
        ),
        m(
            "st-batch-error-swallowed",
            "ST-12",
            &["ST-6", "ST-5"],
            "an item that is refused is skipped, and the batch is Ok",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    for op in ops {
                        let refused = state.commit(std::slice::from_ref(op), rules);
                        if ops.len() == 1 {
                            refused?;
                        }
                    }
                    Ok(())
                });
            },
        ),
        m(
            "st-append-any-upper",
            "ST-12",
            &["ST-13"],
            "an append does not compare upper",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::ExpectUpper { .. } => Ok(()),
                    _ => frontiers.admit(op),
                });
            },
        ),
        m(
            "st-append-upper-at-least",
            "ST-12",
            &["ST-13"],
            "an append takes an upper beyond the expected one for a match",
            |s| {
                s.rules.admit = Box::new(|frontiers, op| match op {
                    StashOp::ExpectUpper { upper, .. } if *upper <= frontiers.upper => Ok(()),
                    _ => frontiers.admit(op),
                });
            },
        ),
    ]
}

fn handles() -> Vec<Mutant> {
    vec![
        m(
            "st-frontier-cache",
            "ST-9",
            &["C-2", "ST-14"],
            "a handle remembers frontiers until it moves them itself",
            |s| {
                let cache = Arc::new(Mutex::new(BTreeMap::<CollectionId, Frontiers>::new()));
                let forget = Arc::clone(&cache);
                s.snapshot = Box::new(move |place, id, rows| {
                    let mut snapshot = lock(&place.state).snapshot(id, rows)?;
                    let mut cache = lock(&cache);
                    snapshot.frontiers = cache.entry(id).or_insert(snapshot.frontiers).clone();
                    Ok(snapshot)
                });
                s.commit = Box::new(move |place, ops, rules| {
                    let mut state = lock(&place.state);
                    let mut next = state.clone();
                    next.commit(ops, rules)?;
                    for op in ops {
                        lock(&forget).remove(&op.id());
                    }
                    *state = next;
                    Ok(())
                });
            },
        ),
        m(
            "st-private-state",
            "ST-14",
            &["C-2", "ST-9", "ST-13"],
            "a handle loads everything when it is opened, and writes everything back at each commit",
            |s| {
                let loaded = Arc::new(Mutex::new(lock(&s.place.state).clone()));
                let (reading, opening) = (Arc::clone(&loaded), Arc::clone(&loaded));
                s.open = Box::new(move |place, name| {
                    let mut mine = lock(&opening);
                    let id = mine.open(name);
                    *lock(&place.state) = mine.clone();
                    Ok(id)
                });
                s.snapshot = Box::new(move |_, id, rows| lock(&reading).snapshot(id, rows));
                s.commit = Box::new(move |place, ops, rules| {
                    let mut mine = lock(&loaded);
                    let mut next = mine.clone();
                    next.commit(ops, rules)?;
                    *mine = next.clone();
                    *lock(&place.state) = next;
                    Ok(())
                });
            },
        ),
        m(
            "st-open-truncates",
            "C-2",
            &["ST-14", "ST-1"],
            "opening the stash drops all rows",
            |s| {
                lock(&s.place.state)
                    .collections
                    .values_mut()
                    .for_each(|c| c.rows.clear());
            },
        ),
        m(
            "st-close-clears",
            "C-2",
            &["ST-14", "ST-1"],
            "closing one handle drops all rows under the others",
            |s| {
                s.close = Box::new(|place| {
                    lock(&place.state)
                        .collections
                        .values_mut()
                        .for_each(|c| c.rows.clear());
                });
            },
        ),
        m(
            "st-locked",
            "ST-14",
            &["C-2"],
            "while another handle is open, a commit fails for the lock",
            |s| {
                s.place.counter.fetch_add(1, Relaxed);
                s.commit = Box::new(|place, ops, rules| {
                    if place.counter.load(Relaxed) > 1 {
                        return Err(Fault::not_applied(ErrorKind::Unavailable, "locked").into());
                    }
                    lock(&place.state).commit(ops, rules)
                });
                s.close = Box::new(|place| {
                    place.counter.fetch_sub(1, Relaxed);
                });
            },
        ),
        m(
            "st-exclusive-not-fenced",
            "ST-14",
            &[],
            "exclusive opening is declared, and the older writer goes on",
            |s| {
                s.fenced = || None;
            },
        ),
        m(
            "st-exclusive-wrong-kind",
            "ST-14",
            &["C-1"],
            "the older writer is told that the store is unavailable",
            |s| {
                s.fenced =
                    || Some(Fault::not_applied(ErrorKind::Unavailable, "connection reset").into());
            },
        ),
        m(
            "st-exclusive-late",
            "ST-14",
            &[],
            "the older writer gets its error after its commit was applied",
            |s| {
                s.fenced = || None;
                let epoch = s.epoch;
                s.commit = Box::new(move |place, ops, rules| {
                    let mut state = lock(&place.state);
                    let mut next = state.clone();
                    next.commit(ops, rules)?;
                    *state = next;
                    if place.epoch.load(Relaxed) != epoch {
                        return Err(
                            Fault::not_applied(ErrorKind::Conflict, "a newer writer").into()
                        );
                    }
                    Ok(())
                });
            },
        ),
        m(
            "st-lost-rows",
            "ST-14",
            &["ST-5"],
            "a commit reads, waits and writes back without a transaction",
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut next = lock(&place.state).clone();
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    next.commit(ops, rules)?;
                    *lock(&place.state) = next;
                    Ok(())
                });
            },
        ),
    ]
}

fn bounds() -> Vec<Mutant> {
    const CAPS_ST: larder_traits::StashCaps = CAPS.stash;
    vec![
        m(
            "st-name-bound-ignored",
            "C-4",
            &["ST-1"],
            "a name above the bound is accepted",
            |s| {
                s.name = Box::new(|name| Ok(name.to_owned()));
            },
        ),
        m(
            "st-row-bound-cut",
            "C-4",
            &["ST-5"],
            "a value above the bound is dropped from its update",
            |s| {
                s.bounds = Box::new(|_, mut ops| {
                    for op in &mut ops {
                        if let StashOp::Update { rows, .. } = op {
                            let max = CAPS_ST.row_len_bytes_max;
                            rows.retain(|row| row.key.len() <= max && row.value.len() <= max);
                        }
                    }
                    Ok(ops)
                });
            },
        ),
        m(
            "st-rows-bound-ignored",
            "C-4",
            &["ST-5"],
            "an update above the declared rows is applied",
            |s| {
                s.bounds = Box::new(|_, ops| {
                    let caps = CAPS_ST.with_batch_rows_max(usize::MAX);
                    larder_traits::stash::driver::check_bounds(&ops, &caps).map(|()| ops)
                });
            },
        ),
        m(
            "st-rows-bound-late",
            "C-4",
            &["ST-5"],
            "an update above the declared rows is refused after as many were applied",
            |s| {
                s.bounds = Box::new(|place, ops| {
                    if let [StashOp::Update { id, rows }] = &*ops
                        && rows.len() > CAPS_ST.batch_rows_max
                        && let Some(collection) = lock(&place.state).collections.get_mut(id)
                    {
                        collection
                            .rows
                            .extend_from_slice(&rows[..CAPS_ST.batch_rows_max]);
                    }
                    larder_traits::stash::driver::check_bounds(&ops, &CAPS_ST).map(|()| ops)
                });
            },
        ),
        m(
            "st-rows-bound-excluded",
            "C-4",
            &["ST-5"],
            "an update of exactly the declared rows is refused",
            |s| {
                s.bounds = Box::new(|_, ops| {
                    let caps = CAPS_ST.with_batch_rows_max(CAPS_ST.batch_rows_max - 1);
                    larder_traits::stash::driver::check_bounds(&ops, &caps).map(|()| ops)
                });
            },
        ),
        m(
            "st-bound-unknown",
            "C-4",
            &["C-1"],
            "an update above the bound is refused as Unknown",
            |s| {
                s.bounds = Box::new(|_, ops| {
                    larder_traits::stash::driver::check_bounds(&ops, &CAPS_ST)
                        .map(|()| ops)
                        .map_err(|_known| {
                            Fault::unknown(ErrorKind::InvalidInput, "too much").into()
                        })
                });
            },
        ),
        m(
            "st-bound-wrong-kind",
            "C-4",
            &["C-1"],
            "an update above the bound is refused as lack of space",
            |s| {
                s.bounds = Box::new(|_, ops| {
                    larder_traits::stash::driver::check_bounds(&ops, &CAPS_ST)
                        .map(|()| ops)
                        .map_err(|_kind| Fault::not_applied(ErrorKind::NoSpace, "too much").into())
                });
            },
        ),
    ]
}
