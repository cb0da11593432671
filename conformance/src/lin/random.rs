//! Random histories: the checker against every permutation, and large good histories against false alarms.

use super::brute;
use super::checker::{Budget, Finding, search};
use super::entry::Taken;
use super::history::{Answer, Call, History, NewRow, Op, Row, Ttl};
use super::models::Model;
use super::project::{Object, cells, rows, whole};
use super::{Limits, ModelName, Report, Verdict, check};
use std::collections::BTreeMap;

/// Small, seeded, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.below(sides) == 0
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        let position =
            usize::try_from(self.below(items.len() as u64)).expect("it is below a length");
        items[position].clone()
    }
}

/// How a history is rolled.
#[derive(Clone, Copy)]
struct Shape {
    model: ModelName,
    clients: u32,
    calls: usize,
    keys: u64,
    /// One call in so many has an unknown outcome.
    unknown: u64,
    /// Values are written once each.
    unique: bool,
}

struct Roll<'a> {
    dice: &'a mut Dice,
    shape: Shape,
    written: u64,
}

impl Roll<'_> {
    fn key(&mut self) -> String {
        ["a", "b", "c"][usize::try_from(self.dice.below(self.shape.keys)).expect("three keys")]
            .to_owned()
    }

    fn fresh(&mut self) -> String {
        self.written += 1;
        let number = if self.shape.unique {
            self.written
        } else {
            self.dice.below(2)
        };
        format!("v{number}")
    }

    fn known(&mut self) -> String {
        format!("v{}", self.written.saturating_sub(self.dice.below(5)))
    }

    fn op(&mut self) -> Op {
        let key = self.key();
        match (self.shape.model, self.dice.below(20)) {
            (ModelName::Cas, 0..2) => Op::Set {
                key,
                value: self.fresh(),
                ttl: None,
            },
            (ModelName::Cas, 2..4) => Op::Delete { key },
            (ModelName::Cas, 4..7) => Op::PutNonTombstone {
                key,
                value: self.fresh(),
            },
            (ModelName::Cas, 7..9) => Op::DeleteNonTombstone { key },
            (ModelName::Cas, 9..15) => {
                let current = if self.dice.one_in(2) {
                    None
                } else {
                    Some(self.known())
                };
                let write = match self.dice.below(5) {
                    0 => NewRow::Delete,
                    1 => NewRow::Object(self.fresh()),
                    _ => NewRow::Redirect(if self.dice.one_in(6) {
                        self.known()
                    } else {
                        self.fresh()
                    }),
                };
                Op::CompareAndWrite {
                    key,
                    current,
                    write,
                }
            }
            (ModelName::Kv, 0..5) => {
                let ttl = Ttl::new(1 + self.dice.below(6), self.dice.below(4));
                Op::Set {
                    key,
                    value: self.fresh(),
                    ttl: self.shape.unique.then_some(ttl),
                }
            }
            (ModelName::Register | ModelName::Kv | ModelName::Map, 0..7) => Op::Set {
                key,
                value: self.fresh(),
                ttl: None,
            },
            (ModelName::Register | ModelName::Kv | ModelName::Map, 7..10) => Op::Delete { key },
            (ModelName::Register | ModelName::Kv, 10..13) | (ModelName::Map, 10..14) => Op::List,
            (ModelName::Register | ModelName::Kv, 13) | (ModelName::Map, 14..17) => Op::GetMulti {
                keys: if self.shape.keys == 1 {
                    vec![key]
                } else {
                    vec!["a".to_owned(), "b".to_owned()]
                },
            },
            _ => Op::Get { key },
        }
    }

    /// A history that some order explains, with the answers of a store that does each call at one moment of its interval.
    fn good(&mut self) -> History {
        let mut clocks = vec![0; usize::try_from(self.shape.clients).expect("few clients")];
        let mut moments = Vec::new();
        let mut calls = Vec::new();
        let pace = if self.shape.calls > 10 { 3 } else { 4 };
        while calls.len() < self.shape.calls {
            let client = self.dice.below(u64::from(self.shape.clients));
            let clock = &mut clocks[usize::try_from(client).expect("few clients")];
            let begin = *clock + self.dice.below(pace);
            let end = begin + self.dice.below(6);
            *clock = end + self.dice.below(2);
            let op = self.op();
            let unknown = self.dice.one_in(self.shape.unknown);
            let moment = 8 * begin
                + self.dice.below(8 * (end - begin) + 1)
                + if unknown { self.dice.below(60) } else { 0 };
            if let Op::Set {
                key,
                value,
                ttl: Some(ttl),
            } = &op
            {
                let earliest = moment.max(8 * (begin + ttl.ttl));
                let latest = 8 * (end + ttl.ttl + ttl.granularity) + if unknown { 100 } else { 0 };
                let moment = earliest + self.dice.below(latest.saturating_sub(earliest) + 1);
                moments.push((moment, 1, usize::MAX, key.clone(), value.clone()));
            }
            if !unknown || self.dice.one_in(2) {
                moments.push((moment, 0, calls.len(), String::new(), String::new()));
            }
            let client = u32::try_from(client).expect("few clients");
            calls.push(Call {
                client,
                call: begin,
                ret: Some(end),
                op,
                result: if unknown { None } else { Some(Answer::Done) },
            });
        }
        moments.sort();
        let mut state: BTreeMap<String, Row> = BTreeMap::new();
        if self.dice.one_in(3) {
            state.insert("a".to_owned(), Row::Inline("begin".to_owned()));
        }
        let initial = state.clone();
        for (_, _, position, key, value) in moments {
            if let Some(call) = calls.get_mut(position) {
                let (answer, after) = brute::perform(&state, &call.op);
                call.result = call.result.take().map(|_| answer);
                state = after;
            } else if state.get(&key) == Some(&Row::Inline(value)) {
                state.remove(&key);
            }
        }
        let mut history = History::new(calls);
        history.initial = initial;
        history
    }

    /// Changes one answer to another one that the operation could have given.
    fn corrupt(&mut self, history: &mut History) {
        let answered: Vec<usize> = (0..history.calls.len())
            .filter(|&position| history.calls[position].result.is_some())
            .collect();
        if answered.is_empty() {
            return;
        }
        let position = self.dice.pick(&answered);
        let value = self.known();
        let call = &mut history.calls[position];
        call.result = call.result.take().map(|answer| match answer {
            Answer::Row(Some(_)) if value == "v0" => Answer::Row(None),
            Answer::Row(_) => Answer::Row(Some(Row::Inline(value))),
            Answer::Keys(mut keys) if keys.len() > 1 => Answer::Keys(keys.drain(..1).collect()),
            Answer::Keys(_) => Answer::Keys(vec!["a".to_owned()]),
            Answer::Values(mut values) => {
                values[0] = Some(value);
                Answer::Values(values)
            }
            Answer::Blocked(None) => Answer::Blocked(Some(value)),
            Answer::Blocked(Some(_)) => Answer::Blocked(None),
            Answer::Swapped(swapped) => Answer::Swapped(!swapped),
            Answer::Done => Answer::Done,
        });
    }
}

fn judge(history: &History, model: ModelName) -> Report {
    check(history, model, Limits::default()).expect("the history belongs to the model")
}

fn saved(history: &History) -> String {
    let mut text = Vec::new();
    history.write(&mut text).expect("memory takes any text");
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// Compares with brute force on `rounds` histories and tells how many were good and bad.
fn compare(model: ModelName, rounds: u64) -> (u64, u64) {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..rounds {
        let mut dice = Dice(
            seed.wrapping_mul(0x0100_0001)
                .wrapping_add(u64::from(model as u8)),
        );
        let keys = if model == ModelName::Map || dice.one_in(4) {
            2
        } else {
            1
        };
        let calls = usize::try_from(2 + dice.below(8)).expect("at most nine");
        let unknown = dice.pick(&[3, 8, 1_000_000]);
        let unique = !dice.one_in(4);
        let clients = dice.pick(&[2, 3, 3, 7]);
        let shape = Shape {
            model,
            clients,
            calls,
            keys,
            unknown,
            unique,
        };
        let corrupted = !dice.one_in(3);
        let mut roll = Roll {
            dice: &mut dice,
            shape,
            written: 0,
        };
        let mut history = roll.good();
        if corrupted {
            roll.corrupt(&mut history);
            if roll.dice.one_in(2) {
                roll.corrupt(&mut history);
            }
        }
        let expected = brute::linearizable(&history, model);
        assert!(
            corrupted || expected,
            "the generator made a bad history, seed {seed}:\n{}",
            saved(&history)
        );
        match judge(&history, model).verdict {
            Verdict::Linearizable => assert!(
                expected,
                "missed a violation, seed {seed}:\n{}",
                saved(&history)
            ),
            Verdict::Violation(witness) => {
                assert!(
                    !expected,
                    "false alarm, seed {seed}:\n{}\n{witness}",
                    saved(&history)
                );
                shows_a_violation(&history, model, &witness);
            }
            Verdict::Inconclusive { why } => panic!("gave up on a few calls, seed {seed}: {why}"),
        }
        if expected { good += 1 } else { bad += 1 }
    }
    (good, bad)
}

/// The calls of the witness, taken alone, must be a violation for the judge as well.
fn shows_a_violation(history: &History, model: ModelName, witness: &super::Witness) {
    let mut part = History::new(Vec::new());
    part.initial.clone_from(&history.initial);
    part.calls = witness
        .calls
        .iter()
        .map(|call| history.calls[call.line - 1].clone())
        .collect();
    assert!(
        !brute::linearizable(&part, model),
        "the witness shows nothing:\n{}\n{witness}",
        saved(history)
    );
    assert!(
        witness.impossible().is_some(),
        "no call fits nowhere:\n{witness}"
    );
}

#[test]
fn agrees_with_every_permutation_on_registers() {
    let (good, bad) = compare(ModelName::Register, 8_000);
    assert!(good > 2_000 && bad > 1_500, "{good} good, {bad} bad");
}

#[test]
fn agrees_with_every_permutation_on_lifetimes() {
    let (good, bad) = compare(ModelName::Kv, 8_000);
    assert!(good > 2_000 && bad > 1_500, "{good} good, {bad} bad");
}

#[test]
fn agrees_with_every_permutation_on_compare_and_write() {
    let (good, bad) = compare(ModelName::Cas, 8_000);
    assert!(good > 2_000 && bad > 1_500, "{good} good, {bad} bad");
}

#[test]
fn agrees_with_every_permutation_on_snapshots() {
    let (good, bad) = compare(ModelName::Map, 4_000);
    assert!(good > 1_000 && bad > 700, "{good} good, {bad} bad");
}

fn long(
    model: ModelName,
    seed: u64,
    clients: u32,
    calls: usize,
    unknown: u64,
    unique: bool,
) -> History {
    let mut dice = Dice(seed ^ 0x5EED);
    let keys = if model == ModelName::Map { 3 } else { 1 };
    let shape = Shape {
        model,
        clients,
        calls,
        keys,
        unknown,
        unique,
    };
    Roll {
        dice: &mut dice,
        shape,
        written: 0,
    }
    .good()
}

#[test]
fn good_epochs_are_never_blamed_and_never_too_hard() {
    for model in ModelName::ALL {
        let (clients, calls) = if model == ModelName::Map {
            (3, 36)
        } else {
            (5, 80)
        };
        for seed in 0..200 {
            for unknown in [20, 1_000_000] {
                let history = long(model, seed, clients, calls, unknown, true);
                let report = judge(&history, model);
                assert!(
                    matches!(report.verdict, Verdict::Linearizable),
                    "{model} {seed}: {report}{}",
                    saved(&history)
                );
            }
        }
    }
}

#[test]
fn long_good_histories_cost_a_few_steps_per_call() {
    for model in [ModelName::Register, ModelName::Kv, ModelName::Cas] {
        for seed in 0..5 {
            let history = long(model, seed, 8, 4_000, 1_000_000, true);
            let report = judge(&history, model);
            assert!(
                matches!(report.verdict, Verdict::Linearizable),
                "{model} {seed}: {report}"
            );
            assert!(
                report.steps < 2 * 4_000,
                "{model} {seed}: {} steps",
                report.steps
            );
        }
    }
}

#[test]
fn corrupted_epochs_are_decided() {
    for model in ModelName::ALL {
        let (clients, calls) = if model == ModelName::Map {
            (3, 36)
        } else {
            (5, 80)
        };
        let mut bad = 0;
        for seed in 0..200 {
            match judge(&corrupted(model, seed, clients, calls), model).verdict {
                Verdict::Linearizable => {}
                Verdict::Violation(_) => bad += 1,
                Verdict::Inconclusive { why } => panic!("{model} {seed}: {why}"),
            }
        }
        assert!(bad > 60, "{model}: only {bad} of 200 were found");
    }
}

fn corrupted(model: ModelName, seed: u64, clients: u32, calls: usize) -> History {
    let unique = !seed.is_multiple_of(3) || model == ModelName::Kv;
    let unknown = if seed.is_multiple_of(2) {
        20
    } else {
        1_000_000
    };
    let mut history = long(model, seed, clients, calls, unknown, unique);
    let shape = Shape {
        model,
        clients,
        calls,
        keys: 1,
        unknown,
        unique,
    };
    let written = u64::try_from(calls / 2).expect("few calls");
    Roll {
        dice: &mut Dice(seed),
        shape,
        written,
    }
    .corrupt(&mut history);
    history
}

/// A model without any of the shortcuts: what is left is the plain search of Wing, Gong and Lowe.
struct Bare<'a, M>(&'a M);

impl<M: Model> Model for Bare<'_, M> {
    type State = M::State;
    type Op = M::Op;

    const UNCONDITIONAL: bool = false;
    const CLUSTERS: bool = false;

    fn slots(&self) -> usize {
        0
    }

    fn initial(&self) -> M::State {
        self.0.initial()
    }

    fn shows(&self, _state: &M::State, _slots: &mut Vec<usize>) {}

    fn apply(&self, state: &M::State, op: &M::Op) -> Option<M::State> {
        self.0.apply(state, op)
    }

    fn pure(&self, _op: &M::Op) -> bool {
        false
    }

    fn blind(&self, _op: &M::Op) -> bool {
        false
    }

    fn sees(&self, _op: &M::Op, _slots: &mut Vec<usize>) {}

    fn loose(&self, _op: &M::Op) -> bool {
        false
    }

    fn makes(&self, _op: &M::Op) -> Option<usize> {
        None
    }

    fn ties(&self, _op: &M::Op) -> Option<usize> {
        None
    }

    fn leaves(&self, _before: &M::State, _after: &M::State) -> Option<usize> {
        None
    }
}

/// Compares the search with itself, its shortcuts taken away.
fn compare_with_bare<M: Model>(objects: &[Object<M, M::Op>], seed: u64) -> (u64, u64) {
    let (mut good, mut bad) = (0, 0);
    let budget = Budget {
        steps: 300_000,
        memory_bytes: 64 * 1024 * 1024,
    };
    for object in objects {
        let taken = Taken::whole(&object.entries, 0..object.entries.len());
        let quick = search(&object.model, &object.entries, &taken, budget).finding;
        let bare = search(&Bare(&object.model), &object.entries, &taken, budget).finding;
        match (quick, bare) {
            (Finding::Fits(_), Finding::Fits(_)) => good += 1,
            (Finding::Misfit, Finding::Misfit) => bad += 1,
            // The bare search may be too slow, never the other.
            (Finding::Fits(_) | Finding::Misfit, Finding::GaveUp(_)) => {}
            (quick, bare) => panic!("seed {seed}: {quick:?}, without shortcuts {bare:?}"),
        }
    }
    (good, bad)
}

#[test]
fn the_shortcuts_change_no_verdict_on_epochs() {
    for model in ModelName::ALL {
        let (mut good, mut bad) = (0, 0);
        for seed in 0..500 {
            let calls = if model == ModelName::Map { 18 } else { 30 };
            let history = corrupted(model, seed, 4, calls);
            let found = match model {
                ModelName::Register => {
                    compare_with_bare(&cells(&history, false).expect("it is a register's"), seed)
                }
                ModelName::Kv => {
                    compare_with_bare(&cells(&history, true).expect("it is a store's"), seed)
                }
                ModelName::Cas => compare_with_bare(&rows(&history).expect("they are rows"), seed),
                ModelName::Map => {
                    compare_with_bare(&[whole(&history).expect("it is a map's")], seed)
                }
            };
            good += found.0;
            bad += found.1;
        }
        assert!(good > 100 && bad > 100, "{model}: {good} good, {bad} bad");
    }
}
