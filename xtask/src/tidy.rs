//! `cargo xtask tidy`: tests of the repository itself. What is a rule in a document is held here.
//!
//! That every clause has a check and every check a clause is a test of `larder-conformance`, where both are at hand.

mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use crate::{COMMANDS, Result, answer, no_arguments, root};

/// One crate of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    /// The folder below the root.
    pub(crate) folder: String,
    /// The name of the package.
    pub(crate) package: String,
    manifest: toml::Table,
}

/// The crates of the workspace, as the root manifest lists them.
pub(crate) fn members() -> std::result::Result<Vec<Member>, String> {
    let workspace = manifest(&root().join("Cargo.toml"))?;
    let folders = workspace
        .get("workspace")
        .and_then(|table| table.get("members"))
        .and_then(toml::Value::as_array)
        .ok_or("Cargo.toml lists no members")?;
    folders
        .iter()
        .filter_map(toml::Value::as_str)
        .map(|folder| {
            let manifest = manifest(&root().join(folder).join("Cargo.toml"))?;
            let package = manifest
                .get("package")
                .and_then(|table| table.get("name"))
                .and_then(toml::Value::as_str)
                .ok_or_else(|| format!("{folder}/Cargo.toml names no package"))?
                .to_owned();
            Ok(Member {
                folder: folder.to_owned(),
                package,
                manifest,
            })
        })
        .collect()
}

fn manifest(path: &Path) -> std::result::Result<toml::Table, String> {
    read(path)?
        .parse()
        .map_err(|e| format!("{}: {e}", path.display()))
}

fn read(path: &Path) -> std::result::Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

pub(crate) fn run(rest: &[String]) -> Result {
    no_arguments("tidy", rest)?;
    let members = members()?;
    let mut found = Vec::new();
    rules::who_knows_whom(&members, &mut found);
    rules::mirrored_names(&members, &mut found)?;
    rules::contracts_page(&mut found)?;
    rules::readme_commands(COMMANDS, &mut found)?;
    let sources = sources(&members)?;
    rules::combinator_clauses(&sources, &mut found)?;
    rules::lengths(&sources, &mut found);
    rules::errors_are_not_read(&sources, &mut found);
    if found.is_empty() {
        answer(&format!(
            "tidy: {} crates and {} source files are in order",
            members.len(),
            sources.len()
        ));
        return Ok(());
    }
    Err(format!("tidy found:\n  {}", found.join("\n  ")))
}

/// One Rust file, by its path below the root.
#[derive(Debug)]
pub(crate) struct Source {
    path: String,
    text: String,
}

fn sources(members: &[Member]) -> std::result::Result<Vec<Source>, String> {
    let mut found = Vec::new();
    for member in members {
        walk(&root().join(&member.folder), &mut found)?;
    }
    let root = root();
    found
        .into_iter()
        .map(|path: PathBuf| {
            let text = read(&path)?;
            let path = path.strip_prefix(&root).unwrap_or(&path);
            Ok(Source {
                path: path.display().to_string(),
                text,
            })
        })
        .collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry
            .map_err(|e| format!("{}: {e}", folder.display()))?
            .path();
        if path.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}
