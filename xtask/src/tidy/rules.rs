//! The rules. Each says what it found, and where.

use std::collections::BTreeSet;

use super::{Member, Source, read};
use crate::{Result, root};

/// The packages of this workspace that a package may depend on. `xtask` stands outside the house.
fn may_know(package: &str) -> Option<&'static [&'static str]> {
    const TRAITS: &[&str] = &["larder-traits"];
    const BACKENDS: &[&str] = &[
        "larder-traits",
        "larder-mem",
        "larder-sqlite",
        "larder-file",
        "larder-s3",
        "larder-tiered",
    ];
    match package {
        "larder-traits" | "xtask" => Some(&[]),
        "larder-conformance" | "larder-mem" | "larder-sqlite" | "larder-file" | "larder-s3"
        | "larder-tiered" => Some(TRAITS),
        "larder" => Some(BACKENDS),
        "larder-cli" => Some(&["larder", "larder-conformance"]),
        // It measures them all.
        "larder-bench" => None,
        _ => Some(&[]),
    }
}

/// Runtimes and clients of media, none of which the contracts may name.
const NOT_IN_TRAITS: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "rusqlite",
    "io-uring",
    "aws-sdk-s3",
];

pub(super) fn who_knows_whom(members: &[Member], found: &mut Vec<String>) {
    let ours: BTreeSet<&str> = members
        .iter()
        .map(|member| member.package.as_str())
        .collect();
    for member in members {
        let package = member.package.as_str();
        let needs = dependencies(member, "dependencies");
        let tests_with = dependencies(member, "dev-dependencies");
        if let Some(allowed) = may_know(package) {
            for other in needs.iter().filter(|name| ours.contains(name.as_str())) {
                if !allowed.contains(&other.as_str()) {
                    found.push(format!("{package} must not know {other}"));
                }
            }
        }
        // A backend is tested by the suite, and the suite by stores of its own.
        for other in tests_with
            .iter()
            .filter(|name| ours.contains(name.as_str()))
        {
            let suite = other == "larder-conformance" && member.folder.starts_with("backend-");
            // A combinator has no medium of its own and is tested on one that is simple enough to be looked into.
            let suite = suite || (package, other.as_str()) == ("larder-tiered", "larder-mem");
            let known = may_know(package).is_none_or(|allowed| allowed.contains(&other.as_str()));
            if !suite && !known {
                found.push(format!("the tests of {package} must not know {other}"));
            }
        }
        if package == "larder-traits" {
            for other in needs
                .iter()
                .filter(|it| NOT_IN_TRAITS.contains(&it.as_str()))
            {
                found.push(format!("the contracts must not name {other}"));
            }
        }
    }
}

fn dependencies(member: &Member, section: &str) -> Vec<String> {
    let table = member.manifest.get(section).and_then(toml::Value::as_table);
    table.map_or_else(Vec::new, |table| table.keys().cloned().collect())
}

/// What every backend has; `ls src` of two backends is their comparison.
const BACKEND_FILES: &[&str] = &[
    "README.md",
    "src/lib.rs",
    "src/config.rs",
    "src/error.rs",
    "src/native.rs",
    "tests/conformance.rs",
    "tests/native.rs",
];

const BACKEND_README: &[&str] = &[
    "## What `Ok` means",
    "## Setup",
    "## Config",
    "## Limits",
    "## Several processes",
    "## Format",
];

const BACKEND_LIB_LINES_MAX: usize = 60;

pub(super) fn mirrored_names(members: &[Member], found: &mut Vec<String>) -> Result {
    for member in members
        .iter()
        .filter(|it| it.folder.starts_with("backend-"))
    {
        let folder = root().join(&member.folder);
        for file in BACKEND_FILES {
            if !folder.join(file).is_file() {
                found.push(format!("{} has no {file}", member.folder));
            }
        }
        let readme = read(&folder.join("README.md"))?;
        for heading in BACKEND_README {
            if !readme.lines().any(|line| line == *heading) {
                found.push(format!(
                    "{}/README.md has no heading `{heading}`",
                    member.folder
                ));
            }
        }
        let lines = read(&folder.join("src/lib.rs"))?.lines().count();
        if lines > BACKEND_LIB_LINES_MAX {
            found.push(format!(
                "{}/src/lib.rs has {lines} lines, and at most {BACKEND_LIB_LINES_MAX} are allowed",
                member.folder
            ));
        }
    }
    Ok(())
}

/// The suite embeds the page, and a package cannot embed what lies outside of it.
pub(super) fn contracts_page(found: &mut Vec<String>) -> Result {
    let page = read(&root().join("docs/CONTRACTS.md"))?;
    let embedded = read(&root().join("conformance/src/CONTRACTS.md"))?;
    if page != embedded {
        found.push(
            "conformance/src/CONTRACTS.md is not docs/CONTRACTS.md any more: copy it there".into(),
        );
    }
    Ok(())
}

/// The clauses of the combinator are checked by its own tests, whose docs name them.
pub(super) fn combinator_clauses(sources: &[Source], found: &mut Vec<String>) -> Result {
    let page = read(&root().join("docs/CONTRACTS.md"))?;
    let clauses = page
        .lines()
        .filter_map(|line| line.strip_prefix("### TS-"))
        .filter_map(|rest| rest.split(' ').next());
    for clause in clauses {
        let name = format!("TS-{clause}");
        let is_named = |source: &&Source| {
            let mut names = source.text.match_indices(&name);
            source.path.starts_with("backend-tiered/tests/")
                && names.any(|(at, _)| {
                    !source.text[at + name.len()..].starts_with(|c: char| c.is_ascii_digit())
                })
        };
        if !sources.iter().any(|source| is_named(&source)) {
            found.push(format!("no test in backend-tiered/tests names {name}"));
        }
    }
    Ok(())
}

/// What the documents tell a reader to type must exist.
pub(super) fn readme_commands(commands: &[(&str, &str)], found: &mut Vec<String>) -> Result {
    for page in ["README.md", "CONTRIBUTING.md", "docs/TESTING.md"] {
        let text = read(&root().join(page))?;
        for typed in text.match_indices("cargo xtask ") {
            let rest = &text[typed.0 + typed.1.len()..];
            let word: String = rest
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                .collect();
            if !commands.iter().any(|(name, _)| *name == word) {
                found.push(format!(
                    "{page} names `cargo xtask {word}`, which does not exist"
                ));
            }
        }
    }
    Ok(())
}

const FILE_LINES_MAX: usize = 800;

pub(super) fn lengths(sources: &[Source], found: &mut Vec<String>) {
    for source in sources {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!(
                "{} has {lines} lines, and at most {FILE_LINES_MAX} are allowed",
                source.path
            ));
        }
    }
}

/// C-1: nobody decides by an error's text, and no native error becomes one of ours by itself.
pub(super) fn errors_are_not_read(sources: &[Source], found: &mut Vec<String>) {
    let forbidden = [
        (
            "to_string().contains(",
            "an error's text is for people, not for code",
        ),
        (
            "From<io::Error>",
            "only the place of the failure knows its outcome",
        ),
        (
            "From<std::io::Error>",
            "only the place of the failure knows its outcome",
        ),
        (
            "From<anyhow::Error>",
            "only the place of the failure knows its outcome",
        ),
        (
            "From<rusqlite::Error>",
            "only the place of the failure knows its outcome",
        ),
    ];
    // The suite and the program read files of their own, whose errors are no contract's.
    let of_a_contract = |source: &&Source| {
        let crates = ["traits/src/", "larder/src/", "backend-"];
        crates.iter().any(|it| source.path.starts_with(it)) && source.path.contains("/src/")
    };
    for source in sources.iter().filter(of_a_contract) {
        for (words, why) in forbidden {
            if let Some(at) = source.text.find(words) {
                let line = source.text[..at].lines().count();
                found.push(format!("{}:{line}: `{words}`: {why} (C-1)", source.path));
            }
        }
    }
}
