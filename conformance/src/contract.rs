//! The clauses that the contracts consist of.

use std::sync::LazyLock;

pub use larder_traits::Contract;

/// One numbered guarantee, in the words of `docs/CONTRACTS.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Clause {
    /// Its id, such as `BM-3`. Ids are never used again.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Whether a backend declares it, or part of it.
    pub declared: bool,
    /// What it says.
    pub text: String,
}

/// Every clause, in the order of the page.
#[must_use]
pub fn clauses() -> &'static [Clause] {
    static CLAUSES: LazyLock<Vec<Clause>> = LazyLock::new(|| parse(include_str!("CONTRACTS.md")));
    &CLAUSES
}

fn parse(page: &str) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            let (id, title) = heading.split_once(' ').unwrap_or((heading, ""));
            let (title, declared) = match title.strip_suffix(" (declared)") {
                Some(title) => (title, true),
                None => (title, false),
            };
            clauses.push(Clause {
                id: id.into(),
                title: title.into(),
                declared,
                text: String::new(),
            });
            inside = true;
        } else if line.starts_with("## ") {
            inside = false;
        } else if let Some(clause) = clauses.last_mut().filter(|_| inside) {
            clause.text.push_str(line);
            clause.text.push('\n');
        }
    }
    for clause in &mut clauses {
        clause.text = clause.text.trim().into();
    }
    clauses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_parses_into_clauses_with_texts() {
        let clauses = clauses();
        assert_eq!(clauses.len(), 89);
        assert!(clauses.iter().all(|clause| !clause.text.is_empty()));
        let first = clauses.first().unwrap();
        assert_eq!(first.id, "C-1");
        assert!(clauses.iter().any(|c| c.id == "BM-12" && c.declared));
    }
}
