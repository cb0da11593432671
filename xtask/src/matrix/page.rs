//! The matrix as it stands in `docs/BACKENDS.md`.

use std::collections::{BTreeMap, BTreeSet};

use super::levels::{Grant, Level, grant};
use super::{BACKENDS, Found, Line, Lines};

const BEGIN: &str = "<!-- the matrix: written by `cargo xtask conformance --all` -->";
const END: &str = "<!-- the end of the matrix -->";

/// Contracts in the order of the traits, by the name of their folder.
const CONTRACTS: &[(&str, &str)] = &[
    ("blob-multi", "BlobMulti"),
    ("stash", "Stash"),
    ("blob-store", "BlobStore"),
    ("backend", "Backend"),
    ("high-volume", "HighVolumeBackend"),
    ("kv-client", "KvClient"),
    ("change-log", "ChangeLog"),
];

/// The clauses in their order, each with its title.
pub(super) type Titles = Vec<(String, String)>;

/// The headings of `docs/CONTRACTS.md`.
pub(super) fn titles(contracts: &str) -> Titles {
    let headings = contracts
        .lines()
        .filter_map(|line| line.strip_prefix("### "));
    headings
        .filter_map(|heading| heading.split_once(' '))
        .map(|(id, title)| {
            let title = title.strip_suffix(" (declared)").unwrap_or(title);
            (id.to_owned(), title.to_owned())
        })
        .collect()
}

/// The page with another matrix between its two marks.
pub(super) fn replace(page: &str, matrix: &str) -> Result<String, String> {
    let marks = || format!("docs/BACKENDS.md has no `{BEGIN}` and `{END}` after it");
    let (before, rest) = page.split_once(BEGIN).ok_or_else(marks)?;
    let (_, after) = rest.split_once(END).ok_or_else(marks)?;
    Ok(format!("{before}{BEGIN}\n\n{matrix}\n{END}{after}"))
}

/// Reasons, each with the number by which cells name it.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn number(&mut self, reason: &str) -> usize {
        let known = self.0.iter().position(|it| it == reason);
        1 + known.unwrap_or_else(|| {
            self.0.push(reason.to_owned());
            self.0.len() - 1
        })
    }
}

pub(super) fn render(found: &Found, titles: &Titles, profile: &str) -> String {
    let mut text = format!("Profile `{profile}`. {}\n\n", power(found));
    text.push_str(&level_table(found));
    let mut notes = Notes::default();
    for (contract, name) in CONTRACTS {
        let columns: Vec<(&str, &Lines)> = BACKENDS
            .iter()
            .filter_map(|backend| {
                let key = (backend.name, (*contract).to_owned());
                Some((backend.name, found.get(&key)?))
            })
            .collect();
        if !columns.is_empty() {
            text.push_str(&clause_table(name, &columns, titles, &mut notes));
        }
    }
    if !notes.0.is_empty() {
        text.push_str("\nWhy a check did not run:\n\n");
        for (at, reason) in notes.0.iter().enumerate() {
            text.push_str(&format!("{}. {reason}\n", at + 1));
        }
    }
    text
}

/// A cut that no machine made is missing everywhere, and a reader has to know.
fn power(found: &Found) -> &'static str {
    let has_power = |name| BACKENDS.iter().any(|it| it.name == name && it.has_power);
    let mut cuts = found
        .iter()
        .filter(|((name, _), _)| has_power(*name))
        .flat_map(|(_, lines)| lines.values())
        .filter(|line| line.engines == ["power"] && line.must_run());
    if cuts.all(|line| line.verdict != "ignored") {
        "The power was cut where its loss is declared to be survived."
    } else {
        "The power was not cut: that takes Linux, root, `/dev/fuse` and loop devices."
    }
}

fn level_table(found: &Found) -> String {
    let mut text = "| backend | contract |".to_owned();
    for level in Level::ALL {
        text.push_str(&format!(" {} |", level.name()));
    }
    text.push_str(&format!("\n|---|---|{}\n", "---|".repeat(Level::ALL.len())));
    for backend in BACKENDS {
        for (contract, name) in CONTRACTS {
            let key = (backend.name, (*contract).to_owned());
            let Some(lines) = found.get(&key) else {
                continue;
            };
            text.push_str(&format!("| {} | `{name}` |", backend.name));
            for level in Level::ALL {
                text.push_str(&format!(" {} |", granted(&grant(level, lines))));
            }
            text.push('\n');
        }
    }
    text
}

fn granted(grant: &Grant) -> String {
    match grant {
        Grant::Granted => "yes".into(),
        Grant::NotOffered => "not offered".into(),
        Grant::NoChecks => "".into(),
        Grant::Missed(clauses) => {
            let clauses: Vec<&str> = clauses.iter().map(String::as_str).collect();
            format!("no: {}", clauses.join(", "))
        }
    }
}

fn clause_table(
    name: &str,
    columns: &[(&str, &Lines)],
    titles: &Titles,
    notes: &mut Notes,
) -> String {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let mut text = format!("\n### `{name}`\n\n| clause | | {} |\n", names.join(" | "));
    text.push_str(&format!("|---|---|{}\n", "---|".repeat(columns.len())));
    for (clause, title) in titles {
        let of_clause = |lines: &Lines| -> Vec<Line> {
            let lines = lines.values();
            lines
                .filter(|line| line.clause == *clause)
                .cloned()
                .collect()
        };
        let cells: Vec<Vec<Line>> = columns.iter().map(|(_, lines)| of_clause(lines)).collect();
        if cells.iter().all(Vec::is_empty) {
            continue;
        }
        let cells: Vec<String> = cells.iter().map(|lines| cell(lines, notes)).collect();
        text.push_str(&format!("| {clause} | {title} | {} |\n", cells.join(" | ")));
    }
    text
}

/// What can be said of a clause on a backend: the worst of its checks, and why some did not run.
fn cell(lines: &[Line], notes: &mut Notes) -> String {
    let must: Vec<&Line> = lines.iter().filter(|line| line.must_run()).collect();
    if must.is_empty() {
        // Where only a measurement or a rule about sources is left, there is nothing to offer either.
        let by_declaration = lines
            .iter()
            .any(|line| line.level != "untestable" && line.excused);
        return if by_declaration { "not offered" } else { "" }.into();
    }
    let failed: Vec<&str> = must
        .iter()
        .filter(|line| line.verdict == "fail")
        .map(|line| line.id.as_str())
        .collect();
    if !failed.is_empty() {
        return format!("**fails** {}", failed.join(", "));
    }
    let open: Vec<&Line> = must
        .iter()
        .copied()
        .filter(|line| !line.is_pass())
        .collect();
    let mut reasons = BTreeMap::new();
    for line in &open {
        let reason = line
            .reason
            .as_deref()
            .unwrap_or("for no reason that was told");
        let number = notes.number(&match line.verdict.as_str() {
            "ignored" => reason.to_owned(),
            other => format!("{other}: {reason}"),
        });
        let ids: &mut BTreeSet<&str> = reasons.entry(number).or_default();
        ids.insert(line.id.as_str());
    }
    let told: Vec<String> = reasons
        .iter()
        .map(|(number, ids)| {
            let ids: Vec<&str> = ids
                .iter()
                .map(|id| id.rsplit('.').next().unwrap_or(id))
                .collect();
            format!(".{} [{number}]", ids.join(" ."))
        })
        .collect();
    match (open.len(), must.len()) {
        (0, _) => "holds".into(),
        (some, all) if some == all => format!("ignored: {}", told.join(", ")),
        _ => format!("holds, but {}", told.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::*;

    fn excused(id: &str) -> Line {
        let mut line = line(id, "kill", "ignored");
        line.excused = true;
        line
    }

    #[test]
    fn a_cell_tells_the_worst_and_why_something_did_not_run() {
        let mut notes = Notes::default();
        let pass = || line("BM-4.1", "lin", "pass");
        let absent = || line("BM-4.4", "fault", "ignored");
        assert_eq!(cell(&[pass(), excused("BM-4.5")], &mut notes), "holds");
        assert_eq!(cell(&[excused("BM-4.5")], &mut notes), "not offered");
        assert_eq!(cell(&[pass(), absent()], &mut notes), "holds, but .4 [1]");
        assert_eq!(cell(&[absent()], &mut notes), "ignored: .4 [1]");
        let failed = line("BM-4.2", "seq", "fail");
        assert_eq!(
            cell(&[pass(), absent(), failed], &mut notes),
            "**fails** BM-4.2"
        );
        assert_eq!(notes.0, ["needs the power faults()"]);
    }

    #[test]
    fn a_matrix_takes_the_place_of_the_one_before() {
        let page = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let once = replace(&page, "new\n").unwrap();
        assert_eq!(once, format!("above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n"));
        assert_eq!(replace(&once, "new\n").unwrap(), once);
        assert!(replace("no marks", "new").is_err());
    }

    #[test]
    fn the_page_has_its_marks_and_every_contract_of_the_matrix_is_known() {
        let root = crate::root();
        let page = std::fs::read_to_string(root.join("docs/BACKENDS.md")).unwrap();
        assert!(replace(&page, "").is_ok());
        let contracts = std::fs::read_to_string(root.join("docs/CONTRACTS.md")).unwrap();
        let titles = titles(&contracts);
        assert!(titles.contains(&("BM-6".into(), "Linearizable".into())));
    }
}
