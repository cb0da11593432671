//! What a check is, and how it ends.

use std::fmt;

use futures_util::future::LocalBoxFuture;
use larder_traits::{Caps, Classify};

use crate::contract::Contract;
use crate::cx::Cx;

/// How a check goes about finding the fault it looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// A fixed list of calls, one after the other.
    Sequential,
    /// Random lists of calls against a pure model, shrunk when they disagree.
    Model,
    /// Concurrent calls, judged for linearizability.
    Lin,
    /// Calls dropped at every await.
    Cancel,
    /// Errors, delays and lost answers, injected.
    Fault,
    /// Processes that end without warning.
    Kill,
    /// Power that goes off, on a simulated or recorded disk.
    Power,
    /// Time that passes.
    Time,
    /// A measurement, told and not judged.
    Report,
}

impl Engine {
    /// Its name in the names of checks.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sequential => "seq",
            Self::Model => "model",
            Self::Lin => "lin",
            Self::Cancel => "cancel",
            Self::Fault => "fault",
            Self::Kill => "kill",
            Self::Power => "power",
            Self::Time => "time",
            Self::Report => "report",
        }
    }
}

/// What a clause asks of a backend, and so what a check's verdict means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// Every backend.
    Must,
    /// What the backend declares, in both directions.
    Declared,
    /// Nothing: measured and shown.
    Report,
    /// Nothing that a check could see, for this reason.
    Untestable(&'static str),
}

impl Level {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Declared => "declared",
            Self::Report => "report",
            Self::Untestable(_) => "untestable",
        }
    }
}

/// Whether a check applies to a backend that declares these capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gate {
    /// It does.
    Run,
    /// It does not, for this reason.
    Ignore(&'static str),
}

/// How a check ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The store did what the clause says wherever this check looked.
    Pass,
    /// It did not, and here is what it did.
    Fail(Box<Failure>),
    /// The check does not apply, or lacks a power; for this reason.
    Ignored(String),
    /// The check ran and could not tell; for this reason. Never a pass.
    Inconclusive(String),
}

impl Verdict {
    /// Its name in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "fail",
            Self::Ignored(_) => "ignored",
            Self::Inconclusive(_) => "inconclusive",
        }
    }

    /// Why, in one line, where there is something to say.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Pass => None,
            Self::Fail(failure) => Some(failure.what.clone()),
            Self::Ignored(why) | Self::Inconclusive(why) => Some(why.clone()),
        }
    }
}

/// How a failure showed itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Symptom {
    /// An answer that the clause does not allow.
    Answer,
    /// A panic.
    Panic,
    /// A call that did not end.
    Hang,
    /// An answer that came later than the clause allows. A machine can be late too, so it counts only if it comes again.
    Late,
}

/// What is known of a check without running it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CheckInfo {
    /// The contract in whose table it stands.
    pub contract: Contract,
    /// Its id, such as `BM-3.1`. Ids are never used again.
    pub id: &'static str,
    /// The clause that it checks, such as `BM-3`.
    pub clause: &'static str,
    /// What it looks at, in one line.
    pub title: &'static str,
    /// The kinds of broken store that it is there to find.
    pub kills: &'static str,
    /// What the clause asks of a backend.
    pub level: Level,
    /// The engines that it needs.
    pub engines: &'static [Engine],
}

/// What a store did against a clause.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// How it showed.
    pub symptom: Symptom,
    /// What was looked at, in one line.
    pub what: String,
    /// What was seen.
    pub observed: String,
    /// What the clause asks for.
    pub expected: String,
    /// The calls that led there, the last one last; for the model engine, minimal.
    pub history: Vec<String>,
    /// The same as data, where the calls were concurrent: who called when, and which call fits nowhere.
    pub timeline: Option<Box<crate::lin::Witness>>,
}

/// How a check leaves early.
#[derive(Debug)]
pub(crate) enum Stop {
    Fail(Box<Failure>),
    Ignored(String),
    Inconclusive(String),
}

impl Stop {
    pub(crate) fn fail(
        what: impl Into<String>,
        observed: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Fail(Box::new(Failure {
            symptom: Symptom::Answer,
            what: what.into(),
            observed: observed.into(),
            expected: expected.into(),
            history: Vec::new(),
            timeline: None,
        }))
    }

    /// An answer that came later than the clause allows.
    pub(crate) fn late(
        what: impl Into<String>,
        observed: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        match Self::fail(what, observed, expected) {
            Self::Fail(mut failure) => {
                failure.symptom = Symptom::Late;
                Self::Fail(failure)
            }
            other => other,
        }
    }

    /// A call failed that the clause wants to succeed.
    pub(crate) fn error(what: impl Into<String>, error: &dyn Classify) -> Self {
        Self::fail(what, describe(error), "no error")
    }
}

/// An error as failures show it: kind and outcome first, then the chain of texts.
pub(crate) fn describe(error: &dyn Classify) -> String {
    let mut text = format!("{}, {:?}: {error}", error.kind(), error.outcome());
    let mut source = error.source();
    while let Some(error) = source {
        let line = error.to_string();
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        source = error.source();
    }
    text
}

/// The answer of a check's body.
pub(crate) type Outcome = Result<(), Stop>;

/// A check's body. It runs on a thread of its own and never moves, so it need not be `Send`.
pub(crate) type RunFn<W> = for<'a> fn(&'a Cx<W>) -> LocalBoxFuture<'a, Outcome>;

/// One line of a contract's table.
///
/// ```text
/// Check::new("BM-3.1", "every length over every length").kills("missing truncate").run(|cx| Box::pin(bm_3_1(cx)))
/// ```
pub(crate) struct Check<W: ?Sized + 'static> {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) kills: &'static str,
    pub(crate) level: Level,
    pub(crate) engines: &'static [Engine],
    pub(crate) gate: fn(&Caps) -> Gate,
    pub(crate) run: Option<RunFn<W>>,
}

impl<W: ?Sized + 'static> Check<W> {
    pub(crate) const fn new(id: &'static str, title: &'static str) -> Self {
        Self {
            id,
            title,
            kills: "",
            level: Level::Must,
            engines: &[Engine::Sequential],
            gate: |_| Gate::Run,
            run: None,
        }
    }

    /// The kinds of broken store that this check is there to find.
    pub(crate) const fn kills(mut self, kills: &'static str) -> Self {
        self.kills = kills;
        self
    }

    pub(crate) const fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    pub(crate) const fn engines(mut self, engines: &'static [Engine]) -> Self {
        self.engines = engines;
        self
    }

    pub(crate) const fn gate(mut self, gate: fn(&Caps) -> Gate) -> Self {
        self.gate = gate;
        self
    }

    pub(crate) const fn run(mut self, run: RunFn<W>) -> Self {
        self.run = Some(run);
        self
    }

    pub(crate) fn info(&self, contract: Contract) -> CheckInfo {
        CheckInfo {
            contract,
            id: self.id,
            clause: self.id.split('.').next().unwrap_or(self.id),
            title: self.title,
            kills: self.kills,
            level: self.level,
            engines: self.engines,
        }
    }
}

impl<W: ?Sized> fmt::Debug for Check<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("id", &self.id)
            .field("title", &self.title)
            .finish_non_exhaustive()
    }
}
