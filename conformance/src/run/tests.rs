//! What becomes of a check that is known to fail.

use larder_traits::Caps;

use super::{Options, Suite, factory};
use crate::check::{Check, Stop, Verdict};
use crate::contract::Contract;
use crate::fixture::{BoxError, Env, Fixture, World};
use crate::report::Record;

/// A world without anything in it.
struct Nothing;

impl Fixture for Nothing {
    async fn new(_: &Env) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn caps(&self) -> Caps {
        Caps::LEAST
    }
}

const CHECKS: &[Check<dyn World>] = &[
    Check::new("BM-6.1", "passes").run(|_| Box::pin(async { Ok(()) })),
    Check::new("BM-6.4", "fails")
        .run(|_| Box::pin(async { Err(Stop::fail("a list", "no key", "a key")) })),
    Check::new("BM-6.40", "panics").run(|_| Box::pin(async { panic!("something else") })),
    Check::new("BM-6.5", "cannot tell")
        .run(|_| Box::pin(async { Err(Stop::Inconclusive("too little".into())) })),
];

fn suite() -> Suite {
    let factory = factory(
        |_| async { Ok(Nothing) },
        |world| Box::new(world) as Box<dyn World>,
    );
    Suite::new(Contract::BlobMulti, &[CHECKS], &factory)
}

fn record(suite: &Suite, id: &str) -> Record {
    let mut options = Options::new();
    options.only = Some(id.into());
    let mut records = suite.run(&options, |_| {}).records;
    assert_eq!(records.len(), 1, "{id}");
    records.remove(0)
}

#[test]
fn a_check_that_is_known_to_fail_and_does_is_ignored_and_keeps_what_was_seen() {
    let record = record(&suite().known("BM-6.4", "the index loses keys"), "BM-6.4");
    let why = "known to fail: the index loses keys";
    assert!(matches!(&record.verdict, Verdict::Ignored(it) if it == why));
    // Only what is not declared is excused.
    assert!(!record.excused);
    let failure = record.known.as_ref().unwrap().failure.as_ref().unwrap();
    assert_eq!(failure.observed, "no key");
    let json = record.to_json();
    assert_eq!(json["verdict"], "ignored");
    assert_eq!(json["known"], "the index loses keys");
    assert_eq!(json["failure"]["observed"], "no key");
}

#[test]
fn a_check_that_is_known_to_fail_and_passes_is_a_pass_that_says_so() {
    let record = record(&suite().known("BM-6.1", "on Mondays"), "BM-6.1");
    assert!(matches!(record.verdict, Verdict::Pass));
    assert_eq!(record.to_json()["known"], "on Mondays");
}

#[test]
fn no_other_check_and_no_other_end_is_excused() {
    let listed = suite().known("BM-6.1", "on Mondays");
    let other = record(&listed, "BM-6.4");
    assert!(matches!(other.verdict, Verdict::Fail(_)) && other.known.is_none());
    assert_eq!(other.to_json().get("known"), None);
    let panics = suite().known("BM-6.40", "on Mondays");
    assert!(matches!(
        record(&panics, "BM-6.40").verdict,
        Verdict::Fail(_)
    ));
    let unclear = suite().known("BM-6.5", "on Mondays");
    assert!(matches!(
        record(&unclear, "BM-6.5").verdict,
        Verdict::Inconclusive(_)
    ));
}

#[test]
#[should_panic(expected = "no check of blob-multi has that id")]
fn a_check_that_nobody_has_cannot_be_known() {
    drop(suite().known("BM-6.6", "it is not there"));
}

#[test]
#[should_panic(expected = "no check of blob-multi has that id")]
fn a_clause_cannot_be_known() {
    drop(suite().known("BM-6", "all of it"));
}

#[test]
#[should_panic(expected = "why is BM-6.4 known to fail?")]
fn what_is_known_has_a_reason() {
    drop(suite().known("BM-6.4", ""));
}
