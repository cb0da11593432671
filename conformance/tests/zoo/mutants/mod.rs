//! Broken stores. Each names the clause that it breaks, and counts as found only by a check of that clause.
//!
//! They are written from the clauses and from the catalogue of what a suite has to find, never from the checks. Two
//! mutants never have one cause: a second store that breaks the same step in the same way would prove nothing.

use larder_conformance::{Contract, Engine, Suite};

pub(crate) mod backend;
pub(crate) mod blob_multi;
pub(crate) mod blob_store;
pub(crate) mod change_log;
pub(crate) mod files;
pub(crate) mod high_volume;
pub(crate) mod kv_client;
pub(crate) mod panics;
pub(crate) mod stash;

/// A store that breaks a clause.
pub(crate) struct Mutant {
    /// Never used again for another one, since the committed score names it.
    pub(crate) id: &'static str,
    pub(crate) contract: Contract,
    /// The clause that it breaks.
    pub(crate) breaks: &'static str,
    /// Clauses that it breaks by the same act.
    pub(crate) also: &'static [&'static str],
    /// What is wrong with it.
    pub(crate) about: &'static str,
    /// The engine that it takes to see it.
    pub(crate) awaits: Option<Engine>,
    /// Whether a call of it that never ends is what is wrong with it.
    pub(crate) hangs: bool,
    /// Whether a panic is.
    pub(crate) panics: bool,
    pub(crate) suite: Box<dyn Fn() -> Suite + Send + Sync>,
}

impl Mutant {
    fn awaiting(mut self, engine: Engine) -> Self {
        self.awaits = Some(engine);
        self
    }

    fn hanging(mut self) -> Self {
        self.hangs = true;
        self
    }

    fn panicking(mut self) -> Self {
        self.panics = true;
        self
    }

    pub(crate) fn is_about(&self, clause: &str) -> bool {
        self.breaks == clause || self.also.contains(&clause)
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Mutant> {
    let mut all = blob_multi::all();
    all.extend(stash::all());
    all.extend(blob_store::all());
    all.extend(high_volume::all());
    all.extend(backend::all());
    all.extend(kv_client::all());
    all.extend(change_log::all());
    all.extend(files::all());
    all.extend(panics::all());
    all
}
