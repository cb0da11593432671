//! What a run found, for people and for programs.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use larder_traits::Caps;
use serde::Serialize;

use crate::check::{Engine, Failure, Level, Symptom, Verdict};
use crate::contract::Contract;
use crate::lin::Witness;
use crate::run::{Ended, Options, Trial};

/// How one check ended on one backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// The contract in whose table the check stands.
    pub contract: Contract,
    /// The check's id.
    pub id: &'static str,
    /// The clause that it checks.
    pub clause: &'static str,
    /// What it looks at.
    pub title: &'static str,
    /// What its clause asks of a backend.
    pub level: Level,
    /// The engines that it needs.
    pub engines: &'static [Engine],
    /// Whether it was ignored because it has nothing to look at: the backend does not declare what it is about, or no
    /// check could see it. An ignored check that is not excused lacked a power of the fixture or of the machine.
    pub excused: bool,
    /// How it ended.
    pub verdict: Verdict,
    /// That it was listed as failing on this server, however it ended.
    pub known: Option<Known>,
    /// How long it took.
    pub took: Duration,
    /// The seed of the run; with the id it replays the check.
    pub seed: u64,
    /// What the backend declared, where it was opened at all.
    pub caps: Option<Caps>,
}

/// That a check is known to fail on a server, for a defect of the server's own ([`Suite::known`](crate::Suite::known)).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Known {
    /// Why.
    pub why: String,
    /// What the store did, where it failed this time as well.
    pub failure: Option<Box<Failure>>,
}

impl Record {
    pub(crate) fn new(trial: &Trial, ended: Ended, options: &Options, took: Duration) -> Self {
        let mut verdict = ended.verdict;
        let known = trial.known().map(|why| {
            let mut known = Known {
                why: why.to_owned(),
                failure: None,
            };
            match verdict.clone() {
                Verdict::Fail(failure) if failure.symptom == Symptom::Answer => {
                    verdict = Verdict::Ignored(format!("known to fail: {why}"));
                    known.failure = Some(failure);
                }
                _ => {}
            }
            known
        });
        Self {
            contract: trial.info().contract,
            id: trial.info().id,
            clause: trial.info().clause,
            title: trial.info().title,
            level: trial.info().level,
            engines: trial.info().engines,
            excused: ended.is_excused,
            verdict,
            known,
            took,
            seed: options.seed,
            caps: ended.caps,
        }
    }

    /// What the store did, where it failed, known or not.
    fn failure(&self) -> Option<&Failure> {
        match (&self.verdict, &self.known) {
            (Verdict::Fail(failure), _) => Some(failure),
            (_, Some(known)) => known.failure.as_deref(),
            _ => None,
        }
    }

    /// The record as it stands in reports.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let line = CheckLine {
            id: self.id,
            clause: self.clause,
            title: self.title,
            level: self.level.name(),
            engines: self.engines.iter().map(|engine| engine.name()).collect(),
            excused: self.excused,
            verdict: self.verdict.name(),
            reason: self.verdict.reason(),
            seconds: self.took.as_secs_f64(),
            seed: self.seed,
            known: self.known.as_ref().map(|known| known.why.as_str()),
            failure: self.failure().map(FailureLine::from),
        };
        serde_json::to_value(line).unwrap_or_default()
    }

    /// Writes the record below `folder`, as `<contract>/<id>.json`.
    ///
    /// # Errors
    ///
    /// Whatever the file system answers.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        let folder = folder.join(self.contract.name());
        fs::create_dir_all(&folder)?;
        let mut json = self.to_json();
        if let (Some(object), Some(caps)) = (json.as_object_mut(), self.caps) {
            object.insert("caps".into(), format!("{caps:?}").into());
        }
        fs::write(folder.join(format!("{}.json", self.id)), json.to_string())
    }
}

#[derive(Serialize)]
struct CheckLine<'a> {
    id: &'a str,
    clause: &'a str,
    title: &'a str,
    level: &'a str,
    engines: Vec<&'a str>,
    excused: bool,
    verdict: &'a str,
    reason: Option<String>,
    seconds: f64,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureLine<'a>>,
}

#[derive(Serialize)]
struct FailureLine<'a> {
    what: &'a str,
    observed: &'a str,
    expected: &'a str,
    history: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<&'a Witness>,
}

impl<'a> From<&'a Failure> for FailureLine<'a> {
    fn from(failure: &'a Failure) -> Self {
        Self {
            what: &failure.what,
            observed: &failure.observed,
            expected: &failure.expected,
            history: &failure.history,
            timeline: failure.timeline.as_deref(),
        }
    }
}

/// A failure as a compiler would print it, down to the command that replays it.
pub(crate) struct Explained<'a> {
    pub(crate) record: &'a Record,
    pub(crate) failure: &'a Failure,
    pub(crate) replay: &'a str,
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            record, failure, ..
        } = self;
        writeln!(f, "error[{}]: {}", record.id, record.title)?;
        writeln!(f, "  --> clause {} of {}", record.clause, record.contract)?;
        writeln!(f, "   |  {}", failure.what)?;
        writeln!(f, "   = observed: {}", failure.observed)?;
        writeln!(f, "   = expected: {}", failure.expected)?;
        if !failure.history.is_empty() {
            writeln!(f, "   = the calls, the last one last:")?;
            for line in &failure.history {
                writeln!(f, "       {line}")?;
            }
        }
        write!(f, "   = replay: {}", self.replay)
    }
}

/// How one contract fared on one backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The contract that was checked.
    pub contract: Contract,
    /// The seed of the run.
    pub seed: u64,
    /// One record for each check, in the order of the table.
    pub records: Vec<Record>,
}

impl Report {
    pub(crate) fn new(contract: Contract, options: &Options, records: Vec<Record>) -> Self {
        Self {
            contract,
            seed: options.seed,
            records,
        }
    }

    /// The records of the checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&Record, &Failure)> {
        self.records
            .iter()
            .filter_map(|record| match &record.verdict {
                Verdict::Fail(failure) => Some((record, failure.as_ref())),
                _ => None,
            })
    }
}

/// A failed check's text, with the command that replays it.
#[must_use]
pub fn explain_failure(record: &Record, replay: &str) -> Option<String> {
    match &record.verdict {
        Verdict::Fail(failure) => Some(
            Explained {
                record,
                failure,
                replay,
            }
            .to_string(),
        ),
        _ => None,
    }
}
