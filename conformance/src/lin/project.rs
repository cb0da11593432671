//! From a history to the objects the search works on: one per key, or all keys as one where a snapshot is declared.
//!
//! Linearizability is local: a history of many keys is linearizable exactly if each key's part is, so every key is searched by
//! itself. A call that touches several keys becomes one read per key with the stamps of the call, which is precisely the
//! promise of a list or a multi-get without a snapshot.

use super::entry::{Entry, OPEN};
use super::history::{Answer, Call, History, InputError, NewRow, Op, Row};
use super::memo::Quick;
use super::models::{ABSENT, Cas, CasOp, Cell, CellOp, Model, Whole, WholeOp};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// One object under test and what was done to it.
pub(super) struct Object<M, O> {
    /// The key, `None` for all keys together.
    pub(super) key: Option<String>,
    pub(super) model: M,
    pub(super) entries: Vec<Entry<O>>,
    /// Why no verdict can be given, if it cannot.
    pub(super) unfit: Option<String>,
}

/// Gives texts numbers, in the order in which they come.
#[derive(Default)]
struct Numbers<'a> {
    known: HashMap<&'a str, u32, Quick>,
}

impl<'a> Numbers<'a> {
    fn of(&mut self, text: &'a str) -> u32 {
        let fresh = u32::try_from(self.known.len()).expect("fewer than 2^32 values in one history");
        *self.known.entry(text).or_insert(fresh)
    }

    fn len(&self) -> u32 {
        u32::try_from(self.known.len()).expect("fewer than 2^32 values in one history")
    }
}

fn entry<O>(call: &Call, source: usize, op: O) -> Entry<O> {
    Entry {
        call: call.call,
        end: call.end(),
        source,
        after: None,
        op,
    }
}

fn wrong(history: &History, source: usize, what: impl Into<String>) -> InputError {
    InputError::at(history.line_of(source), what)
}

fn name(op: &Op) -> &'static str {
    match op {
        Op::Set { .. } => "set",
        Op::Get { .. } => "get",
        Op::Delete { .. } => "delete",
        Op::List => "list",
        Op::GetMulti { .. } => "get_multi",
        Op::PutNonTombstone { .. } => "put_non_tombstone",
        Op::DeleteNonTombstone { .. } => "delete_non_tombstone",
        Op::CompareAndWrite { .. } => "compare_and_write",
    }
}

fn foreign(history: &History, source: usize, model: &str) -> InputError {
    wrong(
        history,
        source,
        format!(
            "`{}` is no operation of the model `{model}`",
            name(&history.calls[source].op)
        ),
    )
}

fn mismatch(history: &History, source: usize) -> InputError {
    let Call { op, result, .. } = &history.calls[source];
    let told = result
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    wrong(
        history,
        source,
        format!("`{}` cannot be answered with {told}", name(op)),
    )
}

/// Stamps must leave room for "never", and an answer needs the moment it came.
fn sound_stamps(history: &History) -> Result<(), InputError> {
    for (source, call) in history.calls.iter().enumerate() {
        if call.ret.unwrap_or(call.call) < call.call {
            return Err(wrong(history, source, "it returned before it was called"));
        }
        if call.call == OPEN || call.ret == Some(OPEN) {
            return Err(wrong(
                history,
                source,
                format!("a stamp must be below {OPEN}"),
            ));
        }
        if call.result.is_some() && call.ret.is_none() {
            return Err(wrong(
                history,
                source,
                "an answer without the stamp of its return",
            ));
        }
    }
    Ok(())
}

/// Every key that the history names, in order.
fn keys(history: &History) -> Vec<&str> {
    let mut keys: HashSet<&str, Quick> = history.initial.keys().map(String::as_str).collect();
    for call in &history.calls {
        match &call.op {
            Op::Set { key, .. }
            | Op::Get { key }
            | Op::Delete { key }
            | Op::PutNonTombstone { key, .. }
            | Op::DeleteNonTombstone { key }
            | Op::CompareAndWrite { key, .. } => {
                keys.insert(key);
            }
            Op::GetMulti { keys: several } => keys.extend(several.iter().map(String::as_str)),
            Op::List => {}
        }
        if let Some(Answer::Keys(named)) = &call.result {
            keys.extend(named.iter().map(String::as_str));
        }
    }
    let mut keys: Vec<&str> = keys.into_iter().collect();
    keys.sort_unstable();
    keys
}

/// The text of a row of a store that knows no redirects.
fn plain<'a>(
    history: &'a History,
    source: usize,
    row: Option<&'a Row>,
) -> Result<Option<&'a str>, InputError> {
    match row {
        None => Ok(None),
        Some(Row::Inline(value)) => Ok(Some(value)),
        Some(Row::Redirect(_)) => Err(wrong(
            history,
            source,
            "only the model `cas` knows redirects",
        )),
    }
}

fn initial_value<'a>(history: &'a History, key: &str) -> Result<Option<&'a str>, InputError> {
    match history.initial.get(key) {
        None => Ok(None),
        Some(Row::Inline(value)) => Ok(Some(value)),
        Some(Row::Redirect(_)) => Err(InputError::at(
            1,
            format!("initial {key:?}: only the model `cas` knows redirects"),
        )),
    }
}

/// One key of a register or key-value store, while its operations are collected.
#[derive(Default)]
struct CellParts<'a> {
    numbers: Numbers<'a>,
    entries: Vec<Entry<CellOp>>,
    initial: u32,
    mortal: BTreeSet<u32>,
}

impl<'a> CellParts<'a> {
    /// The number of a value; 0 is kept for absence.
    fn value(&mut self, value: Option<&'a str>) -> u32 {
        value.map_or(ABSENT, |value| self.numbers.of(value) + 1)
    }

    fn finish(self, key: &str) -> Object<Cell, CellOp> {
        let mut written: HashMap<u32, u32, Quick> = HashMap::default();
        if !self.mortal.is_empty() {
            *written.entry(self.initial).or_insert(0) += 1;
            for entry in &self.entries {
                if let CellOp::Write(value) = entry.op {
                    *written.entry(value).or_insert(0) += 1;
                }
            }
        }
        let twice = self
            .mortal
            .iter()
            .find(|value| written.get(value).is_some_and(|times| *times > 1));
        let text = |number: u32| {
            self.numbers
                .known
                .iter()
                .find(|(_, known)| **known + 1 == number)
                .map_or("", |(text, _)| text)
        };
        Object {
            key: Some(key.to_owned()),
            unfit: twice.map(|&value| {
                format!("key {key:?}: {:?} has a lifetime and was written twice, so its end cannot be told", text(value))
            }),
            model: Cell { initial: self.initial, slots: usize::try_from(self.numbers.len() + 1).unwrap_or(usize::MAX) },
            entries: self.entries,
        }
    }
}

/// The keys of a register, or of a key-value store with lifetimes if `mortal`.
pub(super) fn cells(
    history: &History,
    mortal: bool,
) -> Result<Vec<Object<Cell, CellOp>>, InputError> {
    sound_stamps(history)?;
    let keys = keys(history);
    let places = keys
        .iter()
        .enumerate()
        .map(|(place, key)| (*key, place))
        .collect();
    let mut cells = Cells {
        history,
        mortal,
        places,
        parts: Vec::with_capacity(keys.len()),
    };
    for key in &keys {
        let mut part = CellParts::default();
        let share = history.calls.len() / keys.len();
        part.entries.reserve(share);
        part.numbers.known.reserve(share / 2);
        part.initial = part.value(initial_value(history, key)?);
        cells.parts.push(part);
    }
    for (source, call) in history.calls.iter().enumerate() {
        cells.add(source, call)?;
    }
    Ok(keys
        .iter()
        .zip(cells.parts)
        .map(|(key, part)| part.finish(key))
        .collect())
}

struct Cells<'a> {
    history: &'a History,
    mortal: bool,
    places: HashMap<&'a str, usize, Quick>,
    parts: Vec<CellParts<'a>>,
}

impl<'a> Cells<'a> {
    fn part(&mut self, key: &str) -> &mut CellParts<'a> {
        &mut self.parts[self.places[key]]
    }

    fn read(&mut self, source: usize, call: &Call, key: &str, value: Option<&'a str>) {
        let part = self.part(key);
        let op = CellOp::Read(part.value(value));
        part.entries.push(entry(call, source, op));
    }

    fn add(&mut self, source: usize, call: &'a Call) -> Result<(), InputError> {
        match (&call.op, &call.result) {
            (Op::Set { ttl: Some(_), .. }, _) if !self.mortal => {
                return Err(wrong(
                    self.history,
                    source,
                    "a register has no `ttl`; the model `kv` has",
                ));
            }
            (Op::Set { key, value, ttl }, None | Some(Answer::Done)) => {
                let part = self.part(key);
                let number = part.value(Some(value));
                part.entries
                    .push(entry(call, source, CellOp::Write(number)));
                if let Some(ttl) = ttl {
                    part.mortal.insert(number);
                    part.entries.push(Entry {
                        call: call.call.saturating_add(ttl.ttl),
                        end: call
                            .end()
                            .saturating_add(ttl.ttl)
                            .saturating_add(ttl.granularity),
                        source,
                        after: Some(part.entries.len() - 1),
                        op: CellOp::Expire(number),
                    });
                }
            }
            (Op::Delete { key }, None | Some(Answer::Done)) => {
                self.part(key)
                    .entries
                    .push(entry(call, source, CellOp::Write(ABSENT)));
            }
            (Op::Get { .. } | Op::GetMulti { .. } | Op::List, None) => {}
            (Op::Get { key }, Some(Answer::Row(row))) => {
                let value = plain(self.history, source, row.as_ref())?;
                self.read(source, call, key, value);
            }
            (Op::GetMulti { keys }, Some(Answer::Values(values))) if keys.len() == values.len() => {
                for (key, value) in keys.iter().zip(values) {
                    self.read(source, call, key, value.as_deref());
                }
            }
            (Op::List, Some(Answer::Keys(named))) => {
                let named: BTreeSet<usize> =
                    named.iter().map(|key| self.places[key.as_str()]).collect();
                for (place, part) in self.parts.iter_mut().enumerate() {
                    let op = if named.contains(&place) {
                        CellOp::Exists
                    } else {
                        CellOp::Read(ABSENT)
                    };
                    part.entries.push(entry(call, source, op));
                }
            }
            (
                Op::Set { .. }
                | Op::Get { .. }
                | Op::Delete { .. }
                | Op::List
                | Op::GetMulti { .. },
                Some(_),
            ) => {
                return Err(mismatch(self.history, source));
            }
            _ => {
                return Err(foreign(
                    self.history,
                    source,
                    if self.mortal { "kv" } else { "register" },
                ));
            }
        }
        Ok(())
    }
}

/// The numbers of one row's contents, inline data odd and redirects even.
#[derive(Default)]
struct CasParts<'a> {
    inline: Numbers<'a>,
    redirects: Numbers<'a>,
    entries: Vec<Entry<CasOp>>,
    initial: u32,
}

impl<'a> CasParts<'a> {
    fn object(&mut self, value: &'a str) -> u32 {
        self.inline.of(value) * 2 + 1
    }

    fn redirect(&mut self, target: &'a str) -> u32 {
        self.redirects.of(target) * 2 + 2
    }

    fn row(&mut self, row: Option<&'a Row>) -> u32 {
        match row {
            None => ABSENT,
            Some(Row::Inline(value)) => self.object(value),
            Some(Row::Redirect(target)) => self.redirect(target),
        }
    }

    fn finish(mut self, key: &str) -> Object<Cas, CasOp> {
        let slots = self.inline.len().max(self.redirects.len()) * 2 + 3;
        let mut makers: BTreeMap<u32, u32> = BTreeMap::from([(self.initial, 1)]);
        let model = Cas {
            initial: self.initial,
            slots: usize::try_from(slots).unwrap_or(usize::MAX),
        };
        for entry in self.entries.iter().filter(|entry| !model.pure(&entry.op)) {
            if let CasOp::Write(row)
            | CasOp::Unless { write: row, .. }
            | CasOp::Swap { write: row, .. } = entry.op
            {
                *makers.entry(row).or_insert(0) += 1;
            }
        }
        for entry in &mut self.entries {
            if let CasOp::Swap { write, only, .. } = &mut entry.op {
                *only = makers.get(write) == Some(&1);
            }
        }
        Object {
            key: Some(key.to_owned()),
            model,
            entries: self.entries,
            unfit: None,
        }
    }
}

/// The rows of a store with compare-and-write.
pub(super) fn rows(history: &History) -> Result<Vec<Object<Cas, CasOp>>, InputError> {
    sound_stamps(history)?;
    let keys = keys(history);
    let places: HashMap<&str, usize, Quick> = keys
        .iter()
        .enumerate()
        .map(|(place, key)| (*key, place))
        .collect();
    let mut parts: Vec<CasParts<'_>> = keys.iter().map(|_| CasParts::default()).collect();
    for (part, key) in parts.iter_mut().zip(&keys) {
        part.initial = part.row(history.initial.get(*key));
    }
    for (source, call) in history.calls.iter().enumerate() {
        let key = match &call.op {
            Op::Set { ttl: Some(_), .. } => {
                return Err(wrong(
                    history,
                    source,
                    "the model `cas` has no `ttl`; record rows that do not expire",
                ));
            }
            Op::Set { key, .. }
            | Op::Get { key }
            | Op::Delete { key }
            | Op::PutNonTombstone { key, .. }
            | Op::DeleteNonTombstone { key }
            | Op::CompareAndWrite { key, .. } => key.as_str(),
            Op::List | Op::GetMulti { .. } => return Err(foreign(history, source, "cas")),
        };
        let part = &mut parts[places[key]];
        let Some(op) = cas_op(part, call) else {
            return Err(mismatch(history, source));
        };
        if let Some(op) = op {
            part.entries.push(entry(call, source, op));
        }
    }
    Ok(keys
        .iter()
        .zip(parts)
        .map(|(key, part)| part.finish(key))
        .collect())
}

/// The operation for the search: `None` if the answer does not belong to it, `Some(None)` if it says nothing.
fn cas_op<'a>(part: &mut CasParts<'a>, call: &'a Call) -> Option<Option<CasOp>> {
    let blocked = |part: &mut CasParts<'a>, result: &'a Option<Answer>| match result {
        None => Some(None),
        Some(Answer::Blocked(None)) => Some(Some(ABSENT)),
        Some(Answer::Blocked(Some(target))) => Some(Some(part.redirect(target))),
        Some(_) => None,
    };
    Some(Some(match (&call.op, &call.result) {
        (Op::Set { value, .. }, None | Some(Answer::Done)) => CasOp::Write(part.object(value)),
        (Op::Delete { .. }, None | Some(Answer::Done)) => CasOp::Write(ABSENT),
        (Op::Get { .. }, None) => return Some(None),
        (Op::Get { .. }, Some(Answer::Row(row))) => CasOp::Read(part.row(row.as_ref())),
        (Op::PutNonTombstone { value, .. }, result) => CasOp::Unless {
            write: part.object(value),
            blocked: blocked(part, result)?,
        },
        (Op::DeleteNonTombstone { .. }, result) => CasOp::Unless {
            write: ABSENT,
            blocked: blocked(part, result)?,
        },
        (Op::CompareAndWrite { current, write, .. }, result) => {
            let swapped = match result {
                None => None,
                Some(Answer::Swapped(swapped)) => Some(*swapped),
                Some(_) => return None,
            };
            let current = current
                .as_deref()
                .map_or(ABSENT, |target| part.redirect(target));
            let write = match write {
                NewRow::Redirect(target) => part.redirect(target),
                NewRow::Object(value) => part.object(value),
                NewRow::Delete => ABSENT,
            };
            CasOp::Swap {
                current,
                write,
                swapped,
                only: false,
            }
        }
        _ => return None,
    }))
}

/// All keys as one object, for stores that declare a list and a multi-get to be one snapshot.
pub(super) fn whole(history: &History) -> Result<Object<Whole, WholeOp>, InputError> {
    sound_stamps(history)?;
    let keys = keys(history);
    let places = keys
        .iter()
        .enumerate()
        .map(|(place, key)| (*key, place))
        .collect();
    let mut parts = WholeParts {
        history,
        places,
        values: HashMap::default(),
        entries: Vec::new(),
    };
    let mut initial = Vec::with_capacity(keys.len());
    for (place, key) in keys.iter().enumerate() {
        initial.push(parts.slot(place, initial_value(history, key)?));
    }
    for (source, call) in history.calls.iter().enumerate() {
        parts.add(source, call)?;
    }
    let slots = keys.len() + parts.values.len();
    Ok(Object {
        key: None,
        model: Whole { initial, slots },
        entries: parts.entries,
        unfit: None,
    })
}

struct WholeParts<'a> {
    history: &'a History,
    places: HashMap<&'a str, usize, Quick>,
    /// The slots below the number of keys are the absence of each key.
    values: HashMap<(usize, &'a str), u32, Quick>,
    entries: Vec<Entry<WholeOp>>,
}

impl<'a> WholeParts<'a> {
    fn slot(&mut self, place: usize, value: Option<&'a str>) -> u32 {
        let number = |position: usize| {
            u32::try_from(position).expect("fewer than 2^32 values in one history")
        };
        let fresh = number(self.places.len() + self.values.len());
        value.map_or_else(
            || number(place),
            |value| *self.values.entry((place, value)).or_insert(fresh),
        )
    }

    fn shown(&mut self, key: &str, value: Option<&'a str>) -> (usize, u32) {
        let place = self.places[key];
        (place, self.slot(place, value))
    }

    fn write(&mut self, key: &str, value: Option<&'a str>) -> WholeOp {
        let (key, slot) = self.shown(key, value);
        WholeOp::Write { key, slot }
    }

    fn add(&mut self, source: usize, call: &'a Call) -> Result<(), InputError> {
        let op = match (&call.op, &call.result) {
            (Op::Set { ttl: Some(_), .. }, _) => {
                return Err(wrong(
                    self.history,
                    source,
                    "the model `map` has no `ttl`; the model `kv` has",
                ));
            }
            (Op::Set { key, value, .. }, None | Some(Answer::Done)) => self.write(key, Some(value)),
            (Op::Delete { key }, None | Some(Answer::Done)) => self.write(key, None),
            (Op::Get { .. } | Op::GetMulti { .. } | Op::List, None) => return Ok(()),
            (Op::Get { key }, Some(Answer::Row(row))) => {
                let value = plain(self.history, source, row.as_ref())?;
                WholeOp::Read(vec![self.shown(key, value)])
            }
            (Op::GetMulti { keys }, Some(Answer::Values(values))) if keys.len() == values.len() => {
                WholeOp::Read(
                    keys.iter()
                        .zip(values)
                        .map(|(key, value)| self.shown(key, value.as_deref()))
                        .collect(),
                )
            }
            (Op::List, Some(Answer::Keys(named))) => {
                let mut present = vec![false; self.places.len()];
                for key in named {
                    present[self.places[key.as_str()]] = true;
                }
                WholeOp::List(present)
            }
            (
                Op::Set { .. }
                | Op::Get { .. }
                | Op::Delete { .. }
                | Op::List
                | Op::GetMulti { .. },
                Some(_),
            ) => {
                return Err(mismatch(self.history, source));
            }
            _ => return Err(foreign(self.history, source, "map")),
        };
        self.entries.push(entry(call, source, op));
        Ok(())
    }
}
