//! The checks of the suite that need a medium which fails: only from within can each step be made to.

use larder_conformance::{
    BoxError, Env, Faults, Fixture, Options, Verdict, backend, explain_failure,
};
use larder_traits::TestClock;

use super::*;
use crate::plain::watch::Watch;

struct World {
    folder: TempDir,
    clock: Arc<TestClock>,
    watch: Arc<Watch>,
}

impl World {
    fn config(&self) -> ObjectsConfig {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let config = ObjectsConfig::new(self.folder.path().join("place"));
        config.with_clock(clock).with_payload_len_bytes_max(1 << 20)
    }
}

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self {
            folder: env.tempdir()?,
            clock: Arc::default(),
            watch: Arc::default(),
        })
    }

    fn caps(&self) -> Caps {
        self.config().caps()
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(Arc::clone(&self.clock))
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::clone(&self.watch) as Arc<dyn Faults>)
    }
}

impl backend::Open for World {
    type Store = FileBackend;

    async fn open(&self, _only: &str) -> Result<FileBackend, BoxError> {
        let mut medium = Medium::new(true);
        medium.watch = Arc::clone(&self.watch);
        Ok(FileBackend::open_on(self.config(), medium).await?)
    }
}

/// Runs one check, which has to pass.
fn check(id: &str) {
    let mut options = Options::new();
    options.only = Some(id.to_owned());
    let report = backend::suite::<World>().run(&options, |_| {});
    let [record] = &report.records[..] else {
        panic!("{id} is one check");
    };
    let failure = explain_failure(record, "this test").unwrap_or_default();
    assert!(
        matches!(record.verdict, Verdict::Pass),
        "{id}: {:?} {failure}",
        record.verdict.reason()
    );
}

#[test]
fn every_error_has_a_kind_and_an_outcome_that_holds() {
    check("C-1.1");
}

#[test]
fn a_step_that_fails_and_one_that_took_effect_all_the_same_are_told_apart() {
    check("C-1.2");
}

#[test]
fn a_body_that_is_cut_short_is_an_error() {
    check("BK-2.2");
}

#[test]
fn join_ends_where_the_work_behind_it_fails() {
    check("BK-5.1");
}
