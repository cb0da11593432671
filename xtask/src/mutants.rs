//! `cargo xtask mutants`: the suite against its zoo. A broken store that passes is a hole in the suite.

mod source;

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;

use crate::{Result, answer, cargo, root};

/// What the zoo writes when it is asked to.
#[derive(Debug, Deserialize)]
struct Summary {
    killed: usize,
    total: usize,
    benign_passed: usize,
    benign_total: usize,
    survivors: Vec<Survivor>,
    /// On how many seeds a broken store was run until it was killed, where it was more than one.
    seeds: BTreeMap<String, u32>,
    /// By the rule of the score, what was not killed on all of its seeds: on how many it was, and of how many.
    missed: BTreeMap<String, (u32, u32)>,
    classes: Classes,
    replicas: Vec<Replica>,
}

/// How many broken stores of each class there are for each contract: killed, there, and to be there.
#[derive(Debug, Deserialize)]
struct Classes {
    columns: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    class: String,
    counts: Vec<(usize, usize, usize)>,
}

/// A defect that was seen in the field.
#[derive(Debug, Deserialize)]
struct Replica {
    seen: String,
    killed: bool,
}

#[derive(Debug, Deserialize)]
struct Survivor {
    id: String,
    contract: String,
    breaks: String,
}

pub(crate) fn run(rest: &[String]) -> Result {
    let (mut json, mut profile) = (false, None);
    let mut rest = rest.iter();
    while let Some(argument) = rest.next() {
        match (argument.as_str(), rest.as_slice()) {
            ("--json", _) => json = true,
            ("--source", [package]) => return source::run(package),
            ("--profile", [_, ..]) => profile = rest.next(),
            (other, _) => {
                return Err(format!(
                    "mutants takes --json, --profile PROFILE or --source PACKAGE, not `{other}`"
                ));
            }
        }
    }
    let path = root().join("target").join("larder").join("mutants.json");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    // A summary of an earlier run must not be taken for this one's.
    drop(fs::remove_file(&path));
    let path_text = path.display().to_string();
    let mut arguments = vec!["test", "-p", "larder-conformance", "--test", "zoo"];
    let mut env = vec![("LARDER_ZOO_SUMMARY", path_text.as_str())];
    if let Some(profile) = profile {
        env.push(("LARDER_ZOO_PROFILE", profile));
        arguments.extend(["--", "killed::"]);
    }
    let (_, success) = cargo::lines(&arguments, &env, json)?;
    let text = fs::read_to_string(&path)
        .map_err(|e| format!("the zoo left no summary at {path_text}: {e}"))?;
    let summary: Summary =
        serde_json::from_str(&text).map_err(|e| format!("the zoo's summary does not read: {e}"))?;
    if json {
        answer(text.trim());
    } else {
        for it in &summary.survivors {
            answer(&format!(
                "survived: {} of {} ({})",
                it.id, it.contract, it.breaks
            ));
        }
        for (id, seeds) in &summary.seeds {
            answer(&format!("killed on seed {seeds} only: {id}"));
        }
        for (id, (killed, of)) in &summary.missed {
            answer(&format!("killed on {killed} of {of} seeds: {id}"));
        }
        tell_classes(&summary.classes);
        let lost = summary.replicas.iter().filter(|replica| !replica.killed);
        for replica in lost.clone() {
            answer(&format!(
                "not killed here: what was seen in {}",
                replica.seen
            ));
        }
        let replicas = summary.replicas.len();
        answer(&format!(
            "{} of {replicas} defects that were seen in the field killed",
            replicas - lost.count()
        ));
        let rule = profile.map_or(String::new(), |profile| {
            format!(" by the rule of the score at {profile}")
        });
        answer(&format!(
            "{} of {} broken stores killed{rule}",
            summary.killed, summary.total
        ));
        if profile.is_none() {
            answer(&format!(
                "{} of {} legal oddities passed",
                summary.benign_passed, summary.benign_total
            ));
        }
    }
    let all = summary.killed == summary.total && summary.benign_passed == summary.benign_total;
    if success && all && summary.survivors.is_empty() {
        return Ok(());
    }
    Err("the zoo is not held".into())
}

/// A table: killed of those that are there, and how many there are to be.
fn tell_classes(classes: &Classes) {
    let line = |name: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>13}")).collect();
        answer(&format!("{name:<36}{cells}"));
    };
    line("class (killed/all, goal)", &classes.columns);
    for row in &classes.rows {
        let cells: Vec<_> = row
            .counts
            .iter()
            .map(|(killed, all, goal)| format!("{killed}/{all}, {goal}"))
            .collect();
        line(&row.class, &cells);
    }
}
