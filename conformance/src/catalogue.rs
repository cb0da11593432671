//! Every check of the suite, without a store to run it on.

use larder_traits::Contract;

use crate::check::{Check, CheckInfo, Level};
use crate::checks;

/// What is known of every check, contract by contract and clause by clause.
#[must_use]
pub fn catalogue() -> Vec<CheckInfo> {
    let mut all = Vec::new();
    list(Contract::BlobMulti, checks::blob_multi::TABLES, &mut all);
    list(Contract::Stash, checks::stash::TABLES, &mut all);
    list(Contract::BlobStore, checks::blob_store::TABLES, &mut all);
    list(Contract::HighVolume, checks::high_volume::TABLES, &mut all);
    list(Contract::HighVolume, checks::backend::OBJECTS, &mut all);
    list(Contract::Backend, checks::backend::TABLES, &mut all);
    list(Contract::KvClient, checks::kv_client::TABLES, &mut all);
    list(Contract::ChangeLog, checks::change_log::TABLES, &mut all);
    all
}

fn list<W: ?Sized>(contract: Contract, tables: &[&'static [Check<W>]], all: &mut Vec<CheckInfo>) {
    for check in tables.iter().flat_map(|table| table.iter()) {
        let untestable = matches!(check.level, Level::Untestable(_));
        debug_assert!(
            check.run.is_some() || untestable,
            "{} has no body",
            check.id
        );
        all.push(check.info(contract));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clauses;

    /// The contract of a combinator, whose checks come with it.
    const LATER: &str = "TS-";

    #[test]
    fn every_clause_has_a_check_and_every_check_a_clause() {
        let clauses: BTreeSet<&str> = clauses().iter().map(|c| c.id.as_str()).collect();
        let checked: BTreeSet<&str> = catalogue().iter().map(|check| check.clause).collect();
        let unknown: Vec<_> = checked.difference(&clauses).collect();
        assert!(unknown.is_empty(), "checks of no clause: {unknown:?}");
        let unchecked: Vec<_> = clauses
            .difference(&checked)
            .filter(|clause| !clause.starts_with(LATER))
            .collect();
        assert!(
            unchecked.is_empty(),
            "clauses without a check: {unchecked:?}"
        );
    }

    #[test]
    fn ids_are_used_once_in_a_contract_and_every_check_says_what_it_is_for() {
        let mut seen = BTreeSet::new();
        for check in catalogue() {
            let id = (check.contract, check.id);
            assert!(seen.insert(id), "{id:?} stands there twice");
            assert!(!check.title.is_empty(), "{id:?} has no title");
            let untestable = matches!(check.level, Level::Untestable(_));
            assert!(
                untestable || !check.kills.is_empty(),
                "{id:?} kills nothing"
            );
            assert!(!check.engines.is_empty(), "{id:?} has no engine");
        }
    }
}
