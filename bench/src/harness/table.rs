//! What a bench found: for people as text, for programs as JSON.

use std::fmt;

use serde::Serialize;

use super::Result;
use super::rounds::median;

/// One run of one bench.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    schema: u32,
    pub(super) bench: String,
    machine: String,
    pub(super) ratios: Vec<Ratio>,
    pub(super) figures: Vec<Figure>,
    #[serde(skip)]
    pub(super) notes: Vec<String>,
}

/// How many times as good ours is as another one: above 1 is better.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Ratio {
    pub(crate) work: String,
    pub(crate) against: String,
    /// The median of the rounds.
    pub(crate) ratio: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) rounds: usize,
    pub(crate) goal: Option<f64>,
}

impl Ratio {
    /// From the ratio of each round.
    pub(crate) fn of(work: &str, against: &str, rounds: Vec<f64>, goal: Option<f64>) -> Self {
        Self {
            work: work.to_owned(),
            against: against.to_owned(),
            ratio: median(&rounds),
            min: rounds.iter().copied().fold(f64::INFINITY, f64::min),
            max: rounds.iter().copied().fold(0.0, f64::max),
            rounds: rounds.len(),
            goal,
        }
    }

    /// Whether the goal is met, if there is one.
    pub(super) fn met(&self) -> Option<bool> {
        self.goal.map(|goal| self.ratio >= goal)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            work,
            against,
            rounds,
            ..
        } = self;
        let (ratio, min, max) = (short(self.ratio), short(self.min), short(self.max));
        write!(
            f,
            "{work} against {against}: {ratio} ({min} to {max}, {rounds} rounds)"
        )
    }
}

/// An absolute value. It holds for one machine at one time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) work: String,
    pub(crate) contender: String,
    /// The median of the rounds.
    pub(crate) median: f64,
    /// Half of all operations took no longer, where single operations were timed.
    pub(crate) p50: Option<f64>,
    /// 99 of 100 operations took no longer.
    pub(crate) p99: Option<f64>,
    pub(crate) unit: String,
}

impl Figure {
    pub(crate) fn new(work: &str, contender: &str, median: f64, unit: &str) -> Self {
        Self {
            work: work.to_owned(),
            contender: contender.to_owned(),
            median,
            p50: None,
            p99: None,
            unit: unit.to_owned(),
        }
    }
}

impl Table {
    pub(super) fn new(bench: &str, machine: String) -> Self {
        Self {
            schema: 1,
            bench: bench.to_owned(),
            machine,
            ratios: Vec::new(),
            figures: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub(super) fn render(&self) -> String {
        let mut text = format!("{}: {}\n", self.bench, self.machine);
        if !self.ratios.is_empty() {
            text += "\nratios of ours to others: the median of the rounds, above 1 is better\n";
            text += &columns(
                &[
                    "work", "against", "ratio", "min", "max", "rounds", "goal", "",
                ],
                self.ratios.iter().map(|it| {
                    let verdict = match it.met() {
                        None => "",
                        Some(true) => "met",
                        Some(false) => "MISSED",
                    };
                    vec![
                        it.work.clone(),
                        it.against.clone(),
                        short(it.ratio),
                        short(it.min),
                        short(it.max),
                        it.rounds.to_string(),
                        it.goal.map_or_else(String::new, short),
                        verdict.to_owned(),
                    ]
                }),
            );
        }
        if !self.figures.is_empty() {
            text += "\nfigures, for orientation\n";
            text += &columns(
                &["work", "contender", "median", "p50", "p99", "unit"],
                self.figures.iter().map(|it| {
                    vec![
                        it.work.clone(),
                        it.contender.clone(),
                        short(it.median),
                        it.p50.map_or_else(String::new, short),
                        it.p99.map_or_else(String::new, short),
                        it.unit.clone(),
                    ]
                }),
            );
        }
        for note in &self.notes {
            text += &format!("\n* {note}");
        }
        text
    }
}

/// Three digits that matter, and no fewer than stand before the point.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.095 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Lines in columns as wide as their widest cell; numbers stand right.
fn columns(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines = vec![head.iter().map(|cell| (*cell).to_owned()).collect()];
    lines.extend(rows);
    let width = |column: usize| {
        let cells = lines
            .iter()
            .map(|line: &Vec<String>| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut out = String::from(" ");
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // The first two columns of every table here are names.
            out += &match column {
                0 | 1 => format!(" {cell:width$} "),
                _ => format!(" {cell:>width$} "),
            };
        }
        text += out.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_documented_fields_and_no_others() {
        let mut table = Table::new("file", "machine".into());
        table.ratios.push(Ratio::of(
            "batch-32",
            "holt",
            vec![2.0, 1.0, 4.0],
            Some(1.5),
        ));
        table
            .figures
            .push(Figure::new("batch-32", "holt", 1000.0, "MB/s"));
        table.notes.push("for people".into());
        let json = table.json().expect("numbers and texts");
        let written: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        let expected = serde_json::json!({
            "schema": 1, "bench": "file", "machine": "machine",
            "ratios": [{"work": "batch-32", "against": "holt", "ratio": 2.0, "min": 1.0, "max": 4.0, "rounds": 3, "goal": 1.5}],
            "figures": [{"work": "batch-32", "contender": "holt", "median": 1000.0, "p50": null, "p99": null, "unit": "MB/s"}],
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn a_goal_is_met_by_the_median_and_a_miss_is_shown() {
        let mut table = Table::new("file", "machine".into());
        let rounds = vec![1.0, 1.4, 9.0];
        table
            .ratios
            .push(Ratio::of("a", "holt", rounds.clone(), Some(1.5)));
        table.ratios.push(Ratio::of("b", "holt", rounds, Some(1.4)));
        let text = table.render();
        assert_eq!(text.matches("MISSED").count(), 1, "{text}");
        assert_eq!(text.matches(" met").count(), 1, "{text}");
    }
}
