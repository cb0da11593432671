//! `cargo xtask conformance --all`: the suite on every embedded backend, and what came of it in `docs/BACKENDS.md`.
//!
//! The suite runs through each backend's own tests, since only those give it all that the backend can be looked at with:
//! a clock to turn, a medium that fails, a power to cut.

mod levels;
mod page;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Result, answer, cargo, root, say};

/// A backend, and the test binaries that are the suite on it.
struct Backend {
    name: &'static str,
    package: &'static str,
    tests: &'static [&'static str],
    /// Whether it keeps files of its own that shall survive the loss of power, so that it is worth cutting.
    has_power: bool,
}

const BACKENDS: &[Backend] = &[
    Backend {
        name: "mem",
        package: "larder-mem",
        tests: &["conformance"],
        has_power: false,
    },
    Backend {
        name: "sqlite",
        package: "larder-sqlite",
        tests: &["conformance"],
        has_power: true,
    },
    Backend {
        name: "file",
        package: "larder-file",
        tests: &[
            "conformance",
            "conformance_positioned",
            "conformance_objects",
            "conformance_change_log",
        ],
        has_power: true,
    },
    Backend {
        name: "tiered",
        package: "larder-tiered",
        tests: &["conformance"],
        has_power: false,
    },
    Backend {
        name: "s3",
        package: "larder-s3",
        tests: &["conformance"],
        has_power: false,
    },
];

/// The test binaries, one after the other: two of one backend write to one folder.
const TESTS: &[&str] = &[
    "conformance",
    "conformance_positioned",
    "conformance_objects",
    "conformance_change_log",
];

/// What the suite wrote down of one check.
#[derive(Clone, Debug, Deserialize)]
struct Line {
    id: String,
    clause: String,
    level: String,
    engines: Vec<String>,
    /// Whether it had nothing to look at, by what is declared or by what its clause is about.
    excused: bool,
    verdict: String,
    reason: Option<String>,
    /// Why it is listed as failing on this server, however it ended.
    known: Option<String>,
    /// What the backend declared, as it prints itself; none where it was not opened.
    caps: Option<String>,
}

impl Line {
    fn is_pass(&self) -> bool {
        self.verdict == "pass"
    }

    /// Whether a backend that declares this has to pass it.
    fn must_run(&self) -> bool {
        !self.excused && matches!(self.level.as_str(), "must" | "declared")
    }

    /// How little good it says, to choose between two runs of one check.
    fn badness(&self) -> usize {
        const ALL: [&str; 4] = ["pass", "ignored", "inconclusive", "fail"];
        let at = ALL.iter().position(|name| *name == self.verdict);
        at.unwrap_or(ALL.len())
    }
}

/// What is known of one contract on one backend, check by check.
type Lines = BTreeMap<String, Line>;

/// Backend and contract, as the suite names them.
type Found = BTreeMap<(&'static str, String), Lines>;

pub(crate) fn run(rest: &[String]) -> Result {
    let runs = match rest {
        [] => true,
        // After a run whose matrix is to be drawn in another way.
        [flag] if flag == "--written" => false,
        [other, ..] => {
            return Err(format!("conformance --all takes --written, not `{other}`"));
        }
    };
    let profile = variable("LARDER_PROFILE").unwrap_or_else(|| "standard".into());
    let mut found = Found::new();
    for has_power in [false, true] {
        for test in TESTS {
            let backends: Vec<&Backend> = BACKENDS
                .iter()
                .filter(|it| it.has_power == has_power && it.tests.contains(test))
                .collect();
            if backends.is_empty() {
                continue;
            }
            if runs {
                run_test(&backends, test, has_power, &profile)?;
            }
            collect(&backends, test, &mut found)?;
        }
    }
    let path = root().join("docs").join("BACKENDS.md");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let contracts = root().join("docs").join("CONTRACTS.md");
    let titles =
        fs::read_to_string(&contracts).map_err(|e| format!("{}: {e}", contracts.display()))?;
    let matrix = page::render(&found, &page::titles(&titles), &profile);
    let text = page::replace(&text, &matrix)?;
    fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    answer("the matrix is in docs/BACKENDS.md");
    judge(&found)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Runs a test binary of each of these backends. One call of cargo for all of them compiles the suite once.
fn run_test(backends: &[&Backend], test: &str, has_power: bool, profile: &str) -> Result {
    let mut arguments = vec!["test", "--no-fail-fast", "--test", test];
    for backend in BACKENDS.iter().filter(|it| it.has_power == has_power) {
        arguments.extend(["--package", backend.package]);
    }
    if has_power {
        arguments.extend(["--features", "larder-conformance/power"]);
    }
    for backend in backends {
        let folder = folder(backend);
        // What an earlier run wrote must not be taken for this one's.
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
    }
    let (_, success) = cargo::lines(&arguments, &[("LARDER_PROFILE", profile)], true)?;
    if !success {
        say(&format!("{test}: not everything passed"));
    }
    Ok(())
}

/// Reads what the backends wrote down.
fn collect(backends: &[&Backend], test: &str, found: &mut Found) -> Result {
    for backend in backends {
        let read = read(&folder(backend))?;
        if read.is_empty() {
            return Err(format!("{}: {test} left no results", backend.package));
        }
        for (contract, lines) in read {
            merge(found.entry((backend.name, contract)).or_default(), lines);
        }
    }
    Ok(())
}

fn folder(backend: &Backend) -> PathBuf {
    target().join("larder/conformance").join(backend.package)
}

fn target() -> PathBuf {
    variable("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |it| root().join(it))
}

/// A folder for each contract, and in it a file for each check.
fn read(folder: &Path) -> std::result::Result<BTreeMap<String, Lines>, String> {
    let mut found: BTreeMap<String, Lines> = BTreeMap::new();
    for contract in entries(folder)? {
        let name = contract.file_name().unwrap_or_default().to_string_lossy();
        for file in entries(&contract)? {
            let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            let line: Line =
                serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
            let lines = found.entry(name.clone().into_owned()).or_default();
            lines.insert(line.id.clone(), line);
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> std::result::Result<Vec<PathBuf>, String> {
    let unreadable = |e: std::io::Error| format!("{}: {e}", folder.display());
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    entries
        .map(|entry| Ok(entry.map_err(unreadable)?.path()))
        .collect()
}

/// Two runs of one check, such as on two engines of one backend, count as the worse of them.
fn merge(into: &mut Lines, lines: Lines) {
    for (id, line) in lines {
        match into.get(&id) {
            Some(old) if old.badness() >= line.badness() => {}
            _ => drop(into.insert(id, line)),
        }
    }
}

/// A matrix with a red cell is written like any other, and the command that wrote it fails.
fn judge(found: &Found) -> Result {
    let mut wrong = Vec::new();
    for ((backend, contract), lines) in found {
        for line in lines.values().filter(|line| line.verdict == "fail") {
            wrong.push(format!("{backend} {contract} {}", line.id));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("failed: {}", wrong.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A check that every backend has to pass, on one engine.
    pub(super) fn line(id: &str, engine: &str, verdict: &str) -> Line {
        Line {
            id: id.to_owned(),
            clause: id.split('.').next().unwrap_or(id).to_owned(),
            level: "must".into(),
            engines: vec![engine.to_owned()],
            excused: false,
            verdict: verdict.to_owned(),
            reason: (verdict != "pass").then(|| "needs the power faults()".to_owned()),
            known: None,
            caps: Some("Caps { durability: Power, clock: Injected }".to_owned()),
        }
    }

    #[test]
    fn of_two_runs_of_a_check_the_worse_counts() {
        let lines = |verdict| Lines::from([("BS-1.1".to_owned(), line("BS-1.1", "seq", verdict))]);
        for (first, second, expected) in [
            ("pass", "fail", "fail"),
            ("fail", "pass", "fail"),
            ("pass", "ignored", "ignored"),
            ("inconclusive", "ignored", "inconclusive"),
        ] {
            let mut merged = lines(first);
            merge(&mut merged, lines(second));
            assert_eq!(merged["BS-1.1"].verdict, expected);
        }
    }
}
