//! `cargo xtask mutants --source PACKAGE`: changed lines of a backend, with the suite as the only one to notice.
//!
//! The zoo holds what somebody thought of. This takes a sample of what nobody did.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Result, answer, cargo, root};

/// How many are tried of all that there are.
const SAMPLE: usize = 60;

/// One seed, so that two runs try the same ones as long as the source is the same.
const SEED: &str = "larder 20261121";

/// What a backend prints about itself is no behaviour.
const NOT_BEHAVIOUR: &[&str] = &["impl Debug for", "impl fmt::Debug for", "impl Display for"];

#[derive(Debug, Deserialize)]
struct Candidate {
    name: String,
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
    let chosen = sample(&candidates);
    answer(&format!(
        "{} of {} mutants of {package}, with the suite as the only test",
        chosen.len(),
        candidates.len()
    ));
    let folder = root().join("target").join("larder").join("source-mutants");
    let folder = folder.join(package);
    // What an earlier run left must not be taken for this one's.
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let config = folder.join("mutants.toml");
    fs::write(&config, only(&chosen)).map_err(|e| format!("{}: {e}", config.display()))?;
    let (config, output) = (config.display().to_string(), folder.display().to_string());
    let arguments = [
        "mutants",
        "--package",
        package,
        "--config",
        &config,
        "--output",
        &output,
        "--timeout",
        "150",
        "--",
        "--test",
        "conformance",
    ];
    // Survivors make it fail, and they are told below.
    let (_, _) = cargo::lines(&arguments, &[("LARDER_PROFILE", "quick")], false)?;
    report(&folder.join("mutants.out").join("outcomes.json"))
}

/// All that cargo-mutants can think of, but for changes that no contract is about.
fn list(package: &str) -> std::result::Result<Vec<String>, String> {
    let arguments = ["mutants", "--list", "--json", "--package", package];
    let (lines, success) = cargo::lines(&arguments, &[], true)?;
    if !success {
        return Err("cargo mutants cannot list: `cargo install cargo-mutants --locked`".into());
    }
    let all: Vec<Candidate> = serde_json::from_str(&lines.concat())
        .map_err(|e| format!("the list of mutants does not read: {e}"))?;
    let names = all.into_iter().map(|candidate| candidate.name);
    Ok(names
        .filter(|name| !NOT_BEHAVIOUR.iter().any(|it| name.contains(it)))
        .collect())
}

/// A sample that follows from the seed and from the names alone.
fn sample(names: &[String]) -> Vec<&str> {
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable_by_key(|name| hash(&format!("{SEED} {name}")));
    names.truncate(SAMPLE);
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

fn report(path: &Path) -> Result {
    let unreadable = |e: String| format!("{}: {e}", path.display());
    let text = fs::read_to_string(PathBuf::from(path)).map_err(|e| unreadable(e.to_string()))?;
    let outcomes: Outcomes = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    let (mut killed, mut unviable, mut survivors) = (0, 0, Vec::new());
    for outcome in outcomes.outcomes {
        let mutant = outcome.scenario.get("Mutant").and_then(|it| it.get("name"));
        let Some(name) = mutant.and_then(serde_json::Value::as_str) else {
            continue;
        };
        match outcome.summary.as_str() {
            "CaughtMutant" | "Timeout" => killed += 1,
            "Unviable" => unviable += 1,
            _ => survivors.push(name.to_owned()),
        }
    }
    for name in &survivors {
        answer(&format!("survived: {name}"));
    }
    answer(&format!(
        "{killed} killed, {} survived, {unviable} do not compile",
        survivors.len()
    ));
    if survivors.is_empty() && killed > 0 {
        return Ok(());
    }
    Err("each survivor is a hole in the suite, dead code or equivalent: docs/TESTING.md".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_same_each_time_and_does_not_follow_the_order() {
        let names: Vec<String> = (0..500)
            .map(|n| format!("src/a.rs:{n}: replace x"))
            .collect();
        let chosen = sample(&names);
        assert_eq!(chosen.len(), SAMPLE);
        let mut other = names.clone();
        other.reverse();
        assert_eq!(sample(&other), chosen);
        let first_half = names[..250]
            .iter()
            .filter(|name| chosen.contains(&name.as_str()));
        assert!((15..=45).contains(&first_half.count()));
    }

    #[test]
    fn a_name_matches_itself_and_nothing_else() {
        assert_eq!(
            escape("a.rs:1:2: replace + with - in A<B>::c -> (x)"),
            r"a\.rs:1:2: replace \+ with \- in A<B>::c \-> \(x\)"
        );
    }
}
