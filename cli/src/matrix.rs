//! The matrix on the terminal: a line for each clause of each contract.

use std::fmt::Write;
use std::time::Duration;

use larder_conformance::{Record, Report, Verdict, clauses};

/// How many checks ended in each way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) pass: usize,
    pub(crate) fail: usize,
    pub(crate) ignored: usize,
    pub(crate) inconclusive: usize,
    /// How many of them are known to fail, whether they did or not.
    pub(crate) known: usize,
}

impl Counts {
    pub(crate) fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut counts = Self::default();
        for record in records {
            counts.known += usize::from(record.known.is_some());
            match record.verdict {
                Verdict::Pass => counts.pass += 1,
                Verdict::Fail(_) => counts.fail += 1,
                Verdict::Ignored(_) => counts.ignored += 1,
                // What a program does not know it cannot call green.
                _ => counts.inconclusive += 1,
            }
        }
        counts
    }

    pub(crate) fn line(self) -> String {
        let mut parts = vec![
            format!("{} passed", self.pass),
            format!("{} failed", self.fail),
        ];
        if self.inconclusive > 0 {
            parts.push(format!("{} inconclusive", self.inconclusive));
        }
        parts.push(format!("{} ignored", self.ignored));
        parts.join(", ")
    }

    /// What can be said of a clause in a word.
    fn word(self) -> &'static str {
        match self {
            Self { fail: 1.., .. } => "FAIL",
            Self {
                inconclusive: 1.., ..
            }
            | Self { known: 1.., .. } => "unclear",
            Self { pass: 1.., .. } => "holds",
            Self { ignored: 1.., .. } => "ignored",
            Self { .. } => "-",
        }
    }

    /// The same for pages, where words are not columns and need not shout.
    pub(crate) fn verdict(self) -> &'static str {
        match self.word() {
            "FAIL" => "violated",
            "-" => "nothing ran",
            word => word,
        }
    }
}

/// The matrix of one contract on one store.
pub(crate) fn render(url: &str, report: &Report, color: bool) -> String {
    let mut text = String::new();
    let took: Duration = report.records.iter().map(|record| record.took).sum();
    let counts = Counts::of(&report.records);
    push(
        &mut text,
        format_args!(
            "\n{url}  {}: {} ({:.2} s)\n",
            report.contract,
            counts.line(),
            took.as_secs_f64()
        ),
    );
    for clause in clauses() {
        let of_clause = || report.records.iter().filter(|r| r.clause == clause.id);
        if of_clause().next().is_none() {
            continue;
        }
        let counts = Counts::of(of_clause());
        let took: Duration = of_clause().map(|record| record.took).sum();
        let word = counts.word();
        let (on, off) = match (color, word) {
            (true, "FAIL") => ("\x1b[1;31m", "\x1b[0m"),
            (true, "holds") => ("\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[2m", "\x1b[0m"),
            (false, _) => ("", ""),
        };
        push(
            &mut text,
            format_args!(
                "  {:6} {on}{word:8}{off} {:3} of {:2} checks {:7.3} s  {}\n",
                clause.id,
                counts.pass,
                of_clause().count(),
                took.as_secs_f64(),
                clause.title
            ),
        );
    }
    text
}

/// The reasons why checks did not run, each with their ids, without those that wait for an engine.
pub(crate) fn reasons(reports: &[&Report]) -> String {
    let mut text = String::new();
    for report in reports {
        for record in &report.records {
            let word = match record.verdict {
                Verdict::Ignored(_) => "ignored",
                Verdict::Inconclusive(_) => "inconclusive",
                _ => continue,
            };
            let why = record.verdict.reason().unwrap_or_default();
            push(
                &mut text,
                format_args!("  {word} {} {}: {why}\n", report.contract, record.id),
            );
        }
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line)
        .expect("writing to a string does not fail");
}
