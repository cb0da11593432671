//! Linearizability: whether concurrent calls can be explained by doing them one at a time.
//!
//! Clients call a store at the same time and write down when they called, when the answer came and what it was. The store is
//! linearizable if every call can be given one moment between its two stamps, so that doing the calls in the order of
//! these moments gives exactly the answers written down. Finding such an order, or proving that there is none, is what this
//! module does. A call with an unknown outcome may have its moment at any later time, or never.
//!
//! The search is that of Wing and Gong with Lowe's memo, see [`check`]; a history is a value or a file, see [`History`].
//!
//! * `history`, `line`: histories and their JSON lines.
//! * `project`: a history cut into objects, one per key where that is possible.
//! * `models`: the objects as state machines.
//! * `entry`: intervals, and what is decided of unknown outcomes before the search.
//! * `checker`, `memo`: the search.
//! * `witness`, `lanes`: the smallest history that shows a violation, and its picture for terminals.

mod checker;
mod entry;
mod history;
mod lanes;
mod line;
mod memo;
mod models;
mod project;
mod witness;

#[cfg(test)]
mod brute;
#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_format;

pub use history::{Answer, Call, History, InputError, LINE_BYTES_MAX, NewRow, Op, Row, Ttl};
pub use witness::{Place, Witness, WitnessCall};

use checker::{Budget, Finding};
use entry::Taken;
use models::Model;
use project::Object;
use serde::Serialize;
use std::fmt;
use std::io::BufRead;
use std::str::FromStr;

/// What a history is judged against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ModelName {
    /// Each key a register that can be deleted; `list` and `get_multi` are linearizable per key.
    Register,
    /// The same, with values whose lifetime ends.
    Kv,
    /// Each key a row that is absent, inline or a redirect, with compare-and-write by the truth table of HV-5.
    Cas,
    /// All keys one object, so that `list` and `get_multi` are snapshots. The search grows fast with keys and clients: for
    /// short histories of few keys.
    Map,
}

/// What a check may cost. The budgets count per key, so that a verdict on one key does not depend on the others.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// How many operations the search may place in vain, that is place and take back.
    pub steps: u64,
    /// What the search may keep in memory beside the history.
    pub memory_bytes: usize,
}

/// The verdict on a history.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
#[non_exhaustive]
pub enum Verdict {
    /// Some order explains every answer.
    Linearizable,
    /// No order does.
    Violation(Box<Witness>),
    /// Neither was shown.
    Inconclusive {
        /// What stood in the way.
        why: String,
    },
}

/// A verdict, and what it rests on.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The model judged against.
    pub model: ModelName,
    /// How many calls the history has.
    pub calls: usize,
    /// How many of them have an unknown outcome.
    pub unknown: usize,
    /// How many of them overlap another call that touches the same key. Without overlap there was little to judge.
    pub overlapping: usize,
    /// How many objects were searched: the keys, or one for the whole map.
    pub objects: usize,
    /// How many times the search placed an operation, the making of the witness included.
    pub steps: u64,
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 2_000_000,
            memory_bytes: 256 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// The same limits with another step budget.
    #[must_use]
    pub const fn with_steps(mut self, steps: u64) -> Self {
        self.steps = steps;
        self
    }

    /// The same limits with another memory cap.
    #[must_use]
    pub const fn with_memory_bytes(mut self, memory_bytes: usize) -> Self {
        self.memory_bytes = memory_bytes;
        self
    }
}

impl ModelName {
    /// Every model, for usage texts.
    pub const ALL: [Self; 4] = [Self::Register, Self::Kv, Self::Cas, Self::Map];
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Register => "register",
            Self::Kv => "kv",
            Self::Cas => "cas",
            Self::Map => "map",
        })
    }
}

impl FromStr for ModelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|model| model.to_string() == text);
        found.ok_or_else(|| format!("no model {text:?}; there are register, kv, cas and map"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            model,
            calls,
            unknown,
            overlapping,
            objects,
            ..
        } = self;
        let objects = match (model, objects) {
            (ModelName::Map, _) => "all keys as one".to_owned(),
            (_, 1) => "1 key".to_owned(),
            (_, count) => format!("{count} keys"),
        };
        let judged = format!(
            "{calls} calls, {objects}, {overlapping} overlapping, {unknown} unknown, model {model}"
        );
        match &self.verdict {
            Verdict::Linearizable => writeln!(f, "linearizable: {judged}"),
            Verdict::Inconclusive { why } => writeln!(f, "inconclusive: {why} ({judged})"),
            Verdict::Violation(witness) => write!(f, "not linearizable: {judged}\n\n{witness}"),
        }
    }
}

/// Reads a history from JSON lines and judges it.
///
/// # Errors
///
/// The first line that is no part of a history, or no operation of the model, with its number; or what the reader failed with.
pub fn check_jsonl(reader: impl BufRead, model: ModelName) -> Result<Report, InputError> {
    check(&History::read(reader)?, model, Limits::default())
}

/// Judges a history.
///
/// The same history and limits give the same verdict: the search knows no chance and no clock. A violation on one
/// key is a violation of the whole, whatever became of the other keys.
///
/// The search follows Wing and Gong, "Testing and verifying concurrent objects" (1993), improved by Lowe, "Testing for
/// linearizability" (2017): place calls one by one in some order that respects the stamps, go back where none fits, and
/// never try the same configuration twice.
///
/// # Errors
///
/// A call that is no operation of the model, an answer that does not belong to its operation, or stamps in the wrong order.
pub fn check(history: &History, model: ModelName, limits: Limits) -> Result<Report, InputError> {
    let mut judge = Judge {
        history,
        limits,
        report: Report {
            model,
            calls: history.calls.len(),
            unknown: history
                .calls
                .iter()
                .filter(|call| call.result.is_none())
                .count(),
            overlapping: 0,
            objects: 0,
            steps: 0,
            verdict: Verdict::Linearizable,
        },
        overlapping: vec![false; history.calls.len()],
    };
    match model {
        ModelName::Register => judge.all(&project::cells(history, false)?),
        ModelName::Kv => judge.all(&project::cells(history, true)?),
        ModelName::Cas => judge.all(&project::rows(history)?),
        ModelName::Map => judge.all(&[project::whole(history)?]),
    }
    judge.report.overlapping = judge
        .overlapping
        .iter()
        .filter(|overlaps| **overlaps)
        .count();
    Ok(judge.report)
}

struct Judge<'a> {
    history: &'a History,
    limits: Limits,
    report: Report,
    overlapping: Vec<bool>,
}

impl Judge<'_> {
    fn all<M: Model>(&mut self, objects: &[Object<M, M::Op>]) {
        self.report.objects = objects.len();
        for object in objects {
            self.mark_overlaps(object);
        }
        for object in objects {
            self.one(object);
            if matches!(self.report.verdict, Verdict::Violation(_)) {
                return;
            }
        }
    }

    fn one<M: Model>(&mut self, object: &Object<M, M::Op>) {
        if let Some(why) = &object.unfit {
            self.report.verdict = Verdict::Inconclusive { why: why.clone() };
            return;
        }
        let budget = Budget {
            steps: self.limits.steps,
            memory_bytes: self.limits.memory_bytes,
        };
        let everything = Taken::whole(&object.entries, 0..object.entries.len());
        let searched = checker::search(&object.model, &object.entries, &everything, budget);
        self.report.steps += searched.steps;
        match searched.finding {
            Finding::Fits(_) => {}
            Finding::GaveUp(why) => {
                let why = object
                    .key
                    .as_ref()
                    .map_or_else(|| why.clone(), |key| format!("key {key:?}: {why}"));
                self.report.verdict = Verdict::Inconclusive { why };
            }
            Finding::Misfit => {
                let explained = witness::explain(&object.model, &object.entries, budget);
                self.report.steps += explained.steps;
                let witness = Witness::of(
                    self.history,
                    object.key.clone(),
                    &object.entries,
                    &explained,
                );
                self.report.verdict = Verdict::Violation(Box::new(witness));
            }
        }
    }

    fn mark_overlaps<M: Model>(&mut self, object: &Object<M, M::Op>) {
        let mut calls: Vec<_> = object
            .entries
            .iter()
            .filter(|entry| entry.after.is_none())
            .collect();
        calls.sort_by_key(|entry| (entry.call, entry.end));
        let mut longest: Option<&entry::Entry<M::Op>> = None;
        for entry in calls {
            if let Some(earlier) = longest
                .filter(|earlier| entry.call <= earlier.end && entry.source != earlier.source)
            {
                self.overlapping[earlier.source] = true;
                self.overlapping[entry.source] = true;
            }
            if longest.is_none_or(|earlier| earlier.end < entry.end) {
                longest = Some(entry);
            }
        }
    }
}
