//! The checker's judge: every permutation, no cleverness, and none of its code.
//!
//! It works on whole histories with the values spelled out, knows nothing of keys as separate objects, prunes nothing but orders
//! that break the stamps, and reads the truth table of HV-5 cell by cell. Good for about ten operations.

use super::history::{Answer, History, NewRow, Op, Row};
use super::{Call, ModelName};
use std::collections::{BTreeMap, BTreeSet};

type Map = BTreeMap<String, Row>;

enum Act {
    Call(Call),
    ReadOne { key: String, told: Option<Row> },
    Exists { key: String },
    Expire { key: String, value: String },
}

struct Atom {
    call: u64,
    /// `None`: may come at any later time, or never.
    end: Option<u64>,
    after: Option<usize>,
    act: Act,
}

pub(super) fn linearizable(history: &History, model: ModelName) -> bool {
    let atoms = atoms(history, model);
    place(
        &atoms,
        &mut vec![false; atoms.len()],
        &history.initial.clone().into_iter().collect(),
    )
}

fn atoms(history: &History, model: ModelName) -> Vec<Atom> {
    let mut keys: BTreeSet<String> = history.initial.keys().cloned().collect();
    for call in &history.calls {
        match &call.op {
            Op::Set { key, .. } | Op::Get { key } | Op::Delete { key } => {
                keys.insert(key.clone());
            }
            Op::GetMulti { keys: several } => keys.extend(several.iter().cloned()),
            _ => {}
        }
        if let Some(Answer::Keys(named)) = &call.result {
            keys.extend(named.iter().cloned());
        }
    }
    let mut atoms = Vec::new();
    for call in &history.calls {
        let end = call.result.as_ref().and(call.ret);
        let mut add = |act| {
            atoms.push(Atom {
                call: call.call,
                end,
                after: None,
                act,
            })
        };
        match (&call.op, &call.result) {
            (Op::List, Some(Answer::Keys(named))) if model != ModelName::Map => {
                for key in &keys {
                    let key = key.clone();
                    add(if named.contains(&key) {
                        Act::Exists { key }
                    } else {
                        Act::ReadOne { key, told: None }
                    });
                }
            }
            (Op::GetMulti { keys }, Some(Answer::Values(values))) if model != ModelName::Map => {
                for (key, value) in keys.iter().zip(values) {
                    add(Act::ReadOne {
                        key: key.clone(),
                        told: value.clone().map(Row::Inline),
                    });
                }
            }
            (
                Op::Set {
                    key,
                    value,
                    ttl: Some(ttl),
                },
                _,
            ) => {
                add(Act::Call(call.clone()));
                let act = Act::Expire {
                    key: key.clone(),
                    value: value.clone(),
                };
                let after = Some(atoms.len() - 1);
                let end = end.map(|end| end + ttl.ttl + ttl.granularity);
                atoms.push(Atom {
                    call: call.call + ttl.ttl,
                    end,
                    after,
                    act,
                });
            }
            (_, None) if matches!(call.op, Op::Get { .. } | Op::List | Op::GetMulti { .. }) => {}
            _ => add(Act::Call(call.clone())),
        }
    }
    atoms
}

fn place(atoms: &[Atom], done: &mut Vec<bool>, state: &Map) -> bool {
    if atoms
        .iter()
        .zip(&*done)
        .all(|(atom, done)| *done || atom.end.is_none())
    {
        return true;
    }
    for next in 0..atoms.len() {
        let atom = &atoms[next];
        let overtaken =
            |(other, done): (&Atom, &bool)| !*done && other.end.is_some_and(|end| end < atom.call);
        if done[next]
            || atom.after.is_some_and(|before| !done[before])
            || atoms.iter().zip(&*done).any(overtaken)
        {
            continue;
        }
        if let Some(after) = apply(state, &atom.act) {
            done[next] = true;
            if place(atoms, done, &after) {
                return true;
            }
            done[next] = false;
        }
    }
    false
}

fn apply(state: &Map, act: &Act) -> Option<Map> {
    let mut after = state.clone();
    let fits = match act {
        Act::ReadOne { key, told } => state.get(key) == told.as_ref(),
        Act::Exists { key } => state.contains_key(key),
        Act::Expire { key, value } => {
            if state.get(key) == Some(&Row::Inline(value.clone())) {
                after.remove(key);
            }
            true
        }
        Act::Call(call) => {
            let (answer, changed) = perform(state, &call.op);
            after = changed;
            call.result.as_ref().is_none_or(|told| same(told, &answer))
        }
    };
    fits.then_some(after)
}

fn same(told: &Answer, right: &Answer) -> bool {
    match (told, right) {
        (Answer::Keys(told), Answer::Keys(right)) => {
            told.iter().collect::<BTreeSet<_>>() == right.iter().collect()
        }
        _ => told == right,
    }
}

/// Does one operation alone, as a store that keeps the contract would; lifetimes apart.
pub(super) fn perform(state: &Map, op: &Op) -> (Answer, Map) {
    let mut after = state.clone();
    let text = |row: Option<&Row>| match row {
        Some(Row::Inline(value)) => Some(value.clone()),
        _ => None,
    };
    let answer = match op {
        Op::Set { key, value, .. } => {
            after.insert(key.clone(), Row::Inline(value.clone()));
            Answer::Done
        }
        Op::Delete { key } => {
            after.remove(key);
            Answer::Done
        }
        Op::Get { key } => Answer::Row(state.get(key).cloned()),
        Op::List => Answer::Keys(state.keys().cloned().collect()),
        Op::GetMulti { keys } => {
            Answer::Values(keys.iter().map(|key| text(state.get(key))).collect())
        }
        Op::PutNonTombstone { key, value } => match state.get(key) {
            Some(Row::Redirect(target)) => Answer::Blocked(Some(target.clone())),
            _ => {
                after.insert(key.clone(), Row::Inline(value.clone()));
                Answer::Blocked(None)
            }
        },
        Op::DeleteNonTombstone { key } => match state.get(key) {
            Some(Row::Redirect(target)) => Answer::Blocked(Some(target.clone())),
            _ => {
                after.remove(key);
                Answer::Blocked(None)
            }
        },
        Op::CompareAndWrite {
            key,
            current,
            write,
        } => {
            let (swapped, writes) = cell(state.get(key), current.as_ref(), write);
            if writes {
                match write {
                    NewRow::Redirect(target) => {
                        after.insert(key.clone(), Row::Redirect(target.clone()))
                    }
                    NewRow::Object(value) => after.insert(key.clone(), Row::Inline(value.clone())),
                    NewRow::Delete => after.remove(key),
                };
            }
            Answer::Swapped(swapped)
        }
    };
    (answer, after)
}

/// One cell of the truth table: the answer, and whether the row is written.
fn cell(row: Option<&Row>, current: Option<&String>, write: &NewRow) -> (bool, bool) {
    match (current, write, row) {
        (None, NewRow::Redirect(_), None | Some(Row::Inline(_))) => (true, true),
        (None, NewRow::Redirect(new), Some(Row::Redirect(there))) => (new == there, false),
        (None, NewRow::Object(_) | NewRow::Delete, None | Some(Row::Inline(_))) => (true, true),
        (None, NewRow::Object(_) | NewRow::Delete, Some(Row::Redirect(_))) => (false, false),
        (Some(_), NewRow::Redirect(_), None | Some(Row::Inline(_))) => (false, false),
        (Some(old), NewRow::Redirect(_), Some(Row::Redirect(there))) if old == there => {
            (true, true)
        }
        (Some(_), NewRow::Redirect(new), Some(Row::Redirect(there))) => (new == there, false),
        (Some(_), NewRow::Object(_), None) => (false, false),
        (Some(_), NewRow::Object(_), Some(Row::Inline(_))) => (true, false),
        (Some(_), NewRow::Delete, None) => (true, false),
        (Some(_), NewRow::Delete, Some(Row::Inline(_))) => (true, false),
        (Some(old), NewRow::Object(_) | NewRow::Delete, Some(Row::Redirect(there))) => {
            (old == there, old == there)
        }
    }
}
