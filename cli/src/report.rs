//! What a run leaves behind: `report.html` for people, `junit.xml` and `report.json` for programs.

mod declared;
mod html;
mod junit;
#[cfg(test)]
mod tests;
mod timeline;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use larder::{Clock, SystemClock};
use larder_conformance::{Options, Profile, Record, Report};
use serde_json::{Map, Value, json};

use crate::Problem;
use crate::matrix::Counts;

/// The suite of one contract on one store.
#[derive(Debug)]
pub(crate) struct Run {
    /// The store, as the user named it.
    pub(crate) store: String,
    /// What there is to know about the store beside its name.
    pub(crate) about: Option<&'static str>,
    /// What the suite found.
    pub(crate) report: Report,
}

/// Everything that one call of the program did.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) title: &'static str,
    /// What a reader should know beforehand.
    pub(crate) note: Option<&'static str>,
    pub(crate) runs: Vec<Run>,
    pub(crate) environment: Environment,
    pub(crate) profile: Profile,
    /// The command that repeats one check.
    pub(crate) replay: fn(&Self, &Run, &Record) -> String,
}

/// Where and how the suite ran, as name and value.
#[derive(Clone, Debug)]
pub(crate) struct Environment(Vec<(&'static str, String)>);

/// Reads the clocks when the run begins, so that the environment can tell when it was and how long it took.
#[derive(Debug)]
pub(crate) struct Started {
    at: SystemTime,
    since: Instant,
}

impl Started {
    pub(crate) fn now() -> Self {
        Self {
            at: SystemClock::default().now(),
            since: Instant::now(),
        }
    }
}

impl Environment {
    pub(crate) fn of(started: &Started, options: &Options) -> Self {
        let build = if cfg!(debug_assertions) {
            "unoptimized"
        } else {
            "optimized"
        };
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let mut lines = vec![
            ("seed", options.seed.to_string()),
            ("profile", options.profile.name().to_owned()),
            ("larder", format!("{} ({build})", env!("CARGO_PKG_VERSION"))),
            ("os", std::env::consts::OS.to_owned()),
            ("arch", std::env::consts::ARCH.to_owned()),
            ("cpus", cpus.to_string()),
            ("started", utc(started.at)),
            (
                "took",
                format!("{:.1} s", started.since.elapsed().as_secs_f64()),
            ),
        ];
        // Only Linux tells its version in a file; elsewhere the line is left out.
        if let Ok(kernel) = fs::read_to_string("/proc/sys/kernel/osrelease") {
            lines.insert(4, ("kernel", kernel.trim().to_owned()));
        }
        Self(lines)
    }

    fn lines(&self) -> &[(&'static str, String)] {
        &self.0
    }

    fn started(&self) -> Option<&str> {
        let line = self.0.iter().find(|(name, _)| *name == "started");
        line.map(|(_, value)| value.as_str())
    }
}

/// A moment as RFC 3339 writes it. The days are turned into a date by eras of 400 years that begin in March, so that the
/// leap day is the last day of its year.
fn utc(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.unwrap_or(Duration::ZERO).as_secs();
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

impl Run {
    pub(crate) fn counts(&self) -> Counts {
        Counts::of(&self.report.records)
    }

    fn took(&self) -> Duration {
        self.report.records.iter().map(|record| record.took).sum()
    }

    fn of_clause<'a>(&'a self, clause: &'a str) -> impl Iterator<Item = &'a Record> + Clone {
        let records = self.report.records.iter();
        records.filter(move |record| record.clause == clause)
    }
}

impl Book {
    pub(crate) fn counts(&self) -> Counts {
        Counts::of(self.runs.iter().flat_map(|run| &run.report.records))
    }

    pub(crate) fn to_json(&self) -> Value {
        let runs: Vec<_> = self
            .runs
            .iter()
            .map(|run| {
                let checks: Vec<_> = run.report.records.iter().map(Record::to_json).collect();
                json!({ "url": run.store, "contract": run.report.contract.name(), "checks": checks })
            })
            .collect();
        let environment: Map<String, Value> = self
            .environment
            .lines()
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
            .collect();
        json!({ "schema": 1, "environment": environment, "runs": runs })
    }

    /// Writes the three files, and answers where the one for people is.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf, Problem> {
        let page = folder.join("report.html");
        write(
            &folder.join("report.json"),
            &format!("{:#}\n", self.to_json()),
        )?;
        write(&folder.join("junit.xml"), &junit::render(self))?;
        write(&page, &html::render(self))?;
        Ok(page)
    }

    fn replay(&self, run: &Run, record: &Record) -> String {
        (self.replay)(self, run, record)
    }
}

fn write(path: &Path, text: &str) -> Result<(), Problem> {
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, text))
        .map_err(|e| Problem::Untested(format!("cannot write {}: {e}", path.display())))
}
