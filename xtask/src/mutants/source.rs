//! `cargo xtask mutants --source PACKAGE`: changed lines of a backend, with the suite as the only one to notice.
//!
//! The zoo holds what somebody thought of. This takes a sample of what nobody did.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::{Result, answer, cargo, root};

/// How many are tried of all that there are.
const SAMPLE: usize = 60;

/// One seed, so that two runs try the same ones as long as the source is the same.
const SEED: &str = "larder 20261121";

/// What the suite is not about. What a backend prints about itself is no behaviour; the listing of objects belongs to no
/// contract; how a config stands by default, and which of its knobs the worlds of the suite do not turn, is the backend's
/// own affair. All of it is tested beside the code.
const NOT_ASKED: &[&str] = &[
    "impl Debug for",
    "impl fmt::Debug for",
    "impl Display for",
    "/config.rs:",
    "impl ObjectListing for",
];

/// Survivors that were looked at and change nothing that a caller could see.
const EQUIVALENT: &str = "conformance/equivalent-changes.toml";

/// How many times longer than the unchanged backend a changed one may take before it is given up, and counts as killed.
const PATIENCE: &str = "5";

/// A changed line, as cargo-mutants lists it.
#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    file: String,
    span: Span,
}

#[derive(Debug, Deserialize)]
struct Span {
    start: Position,
}

#[derive(Debug, Deserialize)]
struct Position {
    line: usize,
    column: usize,
}

/// What a change is called for as long as its line is the same, wherever in the file that is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    file: String,
    change: String,
    line: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Equivalents {
    equivalent: Vec<Equivalent>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Equivalent {
    file: String,
    change: String,
    line: String,
    why: String,
}

#[derive(Debug, Deserialize)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    scenario: serde_json::Value,
    summary: String,
}

pub(super) fn run(package: &str) -> Result {
    let candidates = list(package)?;
    let equivalents = equivalents(&candidates)?;
    let chosen = sample(&candidates);
    answer(&format!(
        "{} of {} changes of {package}, with the suite as the only test",
        chosen.len(),
        candidates.len()
    ));
    let all = root().join("target").join("larder").join("source-mutants");
    let folder = all.join(package);
    // What an earlier run left must not be taken for this one's.
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let config = folder.join("mutants.toml");
    fs::write(&config, only(&chosen)).map_err(|e| format!("{}: {e}", config.display()))?;
    let (config, output) = (config.display().to_string(), folder.display().to_string());
    // The copy is another one each time. What it builds of others' code stays.
    let built = all.join("target").display().to_string();
    let arguments = [
        "mutants",
        "--package",
        package,
        "--config",
        &config,
        "--output",
        &output,
        "--jobs",
        "1",
        "--timeout-multiplier",
        PATIENCE,
        "--",
        "--test",
        "conformance",
    ];
    let env = [
        ("LARDER_PROFILE", "quick"),
        // One failure is enough.
        ("LARDER_FAIL_FAST", "1"),
        ("CARGO_TARGET_DIR", &built),
    ];
    // Survivors make it fail, and they are told below.
    let (_, _) = cargo::lines(&arguments, &env, false)?;
    let outcomes = folder.join("mutants.out").join("outcomes.json");
    report(&outcomes, &candidates, &equivalents)
}

/// All that cargo-mutants can think of, but for changes that no contract is about: its name for each, and ours.
fn list(package: &str) -> std::result::Result<BTreeMap<String, Change>, String> {
    let arguments = ["mutants", "--list", "--json", "--package", package];
    let (lines, success) = cargo::lines(&arguments, &[], true)?;
    if !success {
        return Err("cargo mutants cannot list: `cargo install cargo-mutants --locked`".into());
    }
    let mut all: Vec<Listed> = serde_json::from_str(&lines.concat())
        .map_err(|e| format!("the list of mutants does not read: {e}"))?;
    all.retain(|listed| !NOT_ASKED.iter().any(|it| listed.name.contains(it)));
    let mut sources = BTreeMap::new();
    let mut changes = BTreeMap::new();
    for listed in all {
        if !sources.contains_key(&listed.file) {
            let source = fs::read_to_string(root().join(&listed.file))
                .map_err(|e| format!("{}: {e}", listed.file))?;
            sources.insert(listed.file.clone(), source);
        }
        let change = Change::of(&listed, &sources[&listed.file]);
        changes.insert(listed.name, change);
    }
    Ok(changes)
}

impl Change {
    fn of(listed: &Listed, source: &str) -> Self {
        let Position { line, column } = listed.span.start;
        let place = format!("{}:{line}:{column}: ", listed.file);
        let change = listed.name.strip_prefix(&place).unwrap_or(&listed.name);
        let text = source.lines().nth(line.saturating_sub(1));
        Self {
            file: listed.file.clone(),
            change: change.to_owned(),
            line: text.unwrap_or_default().trim().to_owned(),
        }
    }

    fn key(&self) -> String {
        format!("{}: {}: {}", self.file, self.change, self.line)
    }
}

/// Why the changes of this package that were found to be none are none.
fn equivalents(
    candidates: &BTreeMap<String, Change>,
) -> std::result::Result<BTreeMap<Change, String>, String> {
    let unreadable = |e: String| format!("{EQUIVALENT}: {e}");
    let text =
        fs::read_to_string(root().join(EQUIVALENT)).map_err(|e| unreadable(e.to_string()))?;
    let listed: Equivalents = toml::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    let files: BTreeSet<&str> = candidates.values().map(|it| it.file.as_str()).collect();
    let mut found = BTreeMap::new();
    for it in listed.equivalent {
        let change = Change {
            file: it.file,
            change: it.change,
            line: it.line,
        };
        if !files.contains(change.file.as_str()) {
            // Of another package, or of a file that is gone.
            if root().join(&change.file).is_file() {
                continue;
            }
            return Err(unreadable(format!("no such file: {}", change.file)));
        }
        if !candidates.values().any(|candidate| *candidate == change) {
            return Err(unreadable(format!("no such change: {}", change.key())));
        }
        found.insert(change, it.why);
    }
    Ok(found)
}

/// A sample that follows from the seed and from the changed lines alone, and not from where in their files they are.
fn sample(candidates: &BTreeMap<String, Change>) -> Vec<&str> {
    let mut changes: Vec<_> = candidates.iter().collect();
    changes.sort_by_key(|(_, change)| hash(&format!("{SEED} {}", change.key())));
    changes.truncate(SAMPLE);
    let mut names: Vec<&str> = changes.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

/// FNV-1a with a last stir, so that names that differ at their ends only come far apart.
fn hash(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

/// A configuration by which cargo-mutants tries these and no others.
fn only(names: &[&str]) -> String {
    let patterns: Vec<String> = names
        .iter()
        .map(|name| format!("^{}$", escape(name)))
        .collect();
    // A list of strings reads the same in JSON and in TOML.
    format!("examine_re = {}\n", serde_json::json!(patterns))
}

/// The name as a regular expression that nothing else matches.
fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for c in name.chars() {
        // Not all punctuation: `\<` is the beginning of a word.
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn report(
    path: &Path,
    candidates: &BTreeMap<String, Change>,
    equivalents: &BTreeMap<Change, String>,
) -> Result {
    let unreadable = |e: String| format!("{}: {e}", path.display());
    let text = fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
    let outcomes: Outcomes = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    let (mut killed, mut hung, mut unviable, mut equivalent) = (0, 0, 0, 0);
    let (mut survived, mut wronged) = (0, 0);
    for outcome in outcomes.outcomes {
        let mutant = outcome.scenario.get("Mutant").and_then(|it| it.get("name"));
        let Some(name) = mutant.and_then(serde_json::Value::as_str) else {
            if outcome.summary != "Success" {
                return Err("the unchanged backend does not pass the suite".into());
            }
            continue;
        };
        let why = candidates.get(name).and_then(|it| equivalents.get(it));
        match (outcome.summary.as_str(), why) {
            ("CaughtMutant" | "Timeout", Some(_)) => {
                wronged += 1;
                answer(&format!("killed, and said to be equivalent: {name}"));
            }
            ("CaughtMutant", None) => killed += 1,
            ("Timeout", None) => hung += 1,
            ("Unviable", _) => unviable += 1,
            (_, Some(why)) => {
                equivalent += 1;
                answer(&format!("equivalent: {name}: {why}"));
            }
            (_, None) => {
                survived += 1;
                answer(&format!("survived: {name}"));
            }
        }
    }
    answer(&format!(
        "{} killed, {hung} of them by coming to no end; {survived} survived, {equivalent} are equivalent, \
         {unviable} do not compile",
        killed + hung
    ));
    match (killed + hung, survived + wronged) {
        (1.., 0) => Ok(()),
        _ => Err(
            "each survivor is a hole in the suite, dead code or equivalent: docs/TESTING.md".into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(n: usize) -> Change {
        Change {
            file: "src/a.rs".into(),
            change: "replace x".into(),
            line: format!("let x = {n};"),
        }
    }

    #[test]
    fn a_sample_is_the_same_each_time_and_follows_no_line_number() {
        let all = |from: usize| -> BTreeMap<String, Change> {
            let name = |n| format!("src/a.rs:{:04}:1: replace x", from + n);
            (0..500).map(|n| (name(n), change(n))).collect()
        };
        let (here, moved) = (all(0), all(40));
        let chosen: BTreeSet<_> = sample(&here).into_iter().map(|name| &here[name]).collect();
        assert_eq!(chosen.len(), SAMPLE);
        let same: BTreeSet<_> = sample(&moved)
            .into_iter()
            .map(|name| &moved[name])
            .collect();
        assert_eq!(same, chosen);
        let first_half = (0..250).filter(|&n| chosen.contains(&change(n)));
        assert!((15..=45).contains(&first_half.count()));
    }

    #[test]
    fn a_change_is_called_by_its_line_and_not_by_its_place() {
        let listed = Listed {
            name: "src/a.rs:2:5: replace < with <= in f".into(),
            file: "src/a.rs".into(),
            span: Span {
                start: Position { line: 2, column: 5 },
            },
        };
        let change = Change::of(&listed, "fn f() {\n    a < b\n}\n");
        assert_eq!(change.key(), "src/a.rs: replace < with <= in f: a < b");
    }

    #[test]
    fn the_list_of_equivalents_reads() {
        let text = fs::read_to_string(root().join(EQUIVALENT)).expect("it is committed");
        let list: Equivalents =
            toml::from_str(&text).expect("it has a file, a change, a line, a why");
        assert!(list.equivalent.iter().all(|it| !it.why.is_empty()));
    }

    #[test]
    fn a_name_matches_itself_and_nothing_else() {
        assert_eq!(
            escape("a.rs:1:2: replace + with - in A<B>::c -> (x)"),
            r"a\.rs:1:2: replace \+ with \- in A<B>::c \-> \(x\)"
        );
    }
}
