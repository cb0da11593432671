//! What is done to a place that will be cut off: updates, seals, compactions and consolidations, alone and in batches.

use std::collections::BTreeSet;

use async_trait::async_trait;
use larder_traits::{Antichain, StashError, Timestamp};

use super::{Names, at, row};
use crate::check::{Outcome, Stop, describe};
use crate::cx::{Cx, brief};
use crate::engine::work::{Crew, Told, Worker};
use crate::model::stash::{Collection, Update};
use crate::stash::{Handle, World};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Add,
    Replace,
    AddOther,
    AddOne,
    Seal,
    SealBoth,
    CompactBoth,
    ConsolidateBoth,
}

/// What follows each other again and again.
const ALL: &[Kind] = &[
    Kind::Add,
    Kind::Replace,
    Kind::SealBoth,
    Kind::AddOther,
    Kind::CompactBoth,
    Kind::ConsolidateBoth,
    Kind::Seal,
    Kind::AddOne,
];

const FRONTIERS: &[Kind] = &[
    Kind::AddOne,
    Kind::SealBoth,
    Kind::CompactBoth,
    Kind::ConsolidateBoth,
    Kind::Seal,
];

/// A worker with two collections of its own.
struct Books {
    handle: Handle,
    worker: u64,
    collections: [Names; 2],
    batch_atomic: bool,
    kinds: &'static [Kind],
}

/// What a collection holds, as it is read.
type State = (
    Antichain<Timestamp>,
    Antichain<Timestamp>,
    Vec<Update<String, String>>,
);

/// One step on one collection.
enum Step {
    Update(Vec<Update<String, String>>),
    Seal(Timestamp),
    Compact(Timestamp),
    Consolidate,
}

fn time(n: u64) -> Timestamp {
    Timestamp::try_from(n).expect("nobody works that long") + 1
}

impl Books {
    fn kind(&self, n: u64) -> Kind {
        let kinds = u64::try_from(self.kinds.len()).expect("a few");
        self.kinds[usize::try_from(n % kinds).expect("it is below a length")]
    }

    /// What operation `n` does to each of the collections.
    fn steps(&self, n: u64) -> [Option<Step>; 2] {
        let t = time(n);
        // Rows as long as pages, so that a batch of them is not written at a stroke.
        let value = |n: u64| format!("{n} {}", "v".repeat(3_000));
        let key = |k: &str| format!("{} {k}", self.worker);
        let added = |k: &str| row(&key(k), &value(n), t, 1);
        match self.kind(n) {
            Kind::Add => [Some(Step::Update(vec![added("a"), added("b")])), None],
            Kind::Replace => {
                let taken = row(&key("a"), &value(n - 1), t, -1);
                [Some(Step::Update(vec![taken, added("c")])), None]
            }
            Kind::AddOther => {
                let rows = vec![added("a"), added("b"), added("c")];
                [None, Some(Step::Update(rows))]
            }
            Kind::AddOne => [None, Some(Step::Update(vec![added("d")]))],
            Kind::Seal => [Some(Step::Seal(t)), None],
            Kind::SealBoth => [Some(Step::Seal(t)), Some(Step::Seal(t))],
            Kind::CompactBoth => {
                let mut before = (0..n).rev();
                let sealed = before.find(|n| self.kind(*n) == Kind::SealBoth);
                let since = sealed.map_or(Timestamp::MIN, time);
                [Some(Step::Compact(since)), Some(Step::Compact(since))]
            }
            Kind::ConsolidateBoth => [Some(Step::Consolidate), Some(Step::Consolidate)],
        }
    }

    /// What a collection holds after the first `done` operations.
    fn after(&self, done: u64, which: usize) -> Result<State, Stop> {
        let model = || -> Result<State, StashError> {
            let mut model = Collection::default();
            for n in 0..done {
                match self.steps(n).into_iter().nth(which).flatten() {
                    Some(Step::Update(rows)) => model.update_many(rows)?,
                    Some(Step::Seal(t)) => model.seal(at(t))?,
                    Some(Step::Compact(t)) => model.compact(at(t))?,
                    Some(Step::Consolidate) => model.consolidate()?,
                    None => {}
                }
            }
            Ok((model.since().clone(), model.upper().clone(), model.iter()?))
        };
        model().map_err(|e| Stop::Inconclusive(format!("the work is wrong: {}", describe(&e))))
    }

    async fn seen(&mut self, which: usize) -> Result<State, Stop> {
        let c = self.collections[which];
        let since = self.handle.since(c).await?;
        let upper = self.handle.upper(c).await?;
        let rows = self.handle.iter(c).await?;
        self.each_key_reads(c, &rows).await?;
        Ok((since, upper, rows))
    }

    /// What is found by a key is what is found without one: a store may have an index of its own for it.
    async fn each_key_reads(&mut self, c: Names, rows: &[Update<String, String>]) -> Outcome {
        let mut keys: BTreeSet<String> = rows.iter().map(|((key, _), ..)| key.clone()).collect();
        keys.insert("absent".into());
        for key in keys {
            let of_key = rows.iter().filter(|((of, _), ..)| *of == key);
            let expected: Vec<_> = of_key
                .map(|((_, value), time, diff)| (value.clone(), *time, *diff))
                .collect();
            let found = self.handle.iter_key(c, &key).await?;
            if found != expected {
                let what = format!("iter_key of {key:?} after a cut, beside iter");
                return Err(Stop::fail(what, brief(&found), brief(&expected)));
            }
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl Worker for Books {
    async fn perform(&mut self, n: u64) -> Result<bool, Stop> {
        let [a, b] = self.collections;
        let t = time(n);
        match self.steps(n) {
            [Some(Step::Seal(_)), Some(_)] => {
                self.handle.seal_batch(&[(a, at(t)), (b, at(t))]).await?;
            }
            [Some(Step::Compact(since)), Some(_)] => {
                let items = [(a, at(since)), (b, at(since))];
                self.handle.compact_batch(&items).await?;
            }
            [Some(Step::Consolidate), Some(_)] => self.handle.consolidate_batch(&[a, b]).await?,
            steps => {
                for (c, step) in self.collections.into_iter().zip(steps) {
                    match step {
                        Some(Step::Update(rows)) if rows.len() == 1 => {
                            for (data, time, diff) in rows {
                                self.handle.update(c, data, time, diff).await?;
                            }
                        }
                        Some(Step::Update(rows)) => self.handle.update_many(c, rows).await?,
                        Some(Step::Seal(t)) => self.handle.seal(c, at(t)).await?,
                        Some(Step::Compact(t)) => self.handle.compact(c, at(t)).await?,
                        Some(Step::Consolidate) => self.handle.consolidate(c).await?,
                        None => {}
                    }
                }
            }
        }
        Ok(true)
    }

    async fn judge(&mut self, told: Told) -> Result<u64, Stop> {
        let mut fitting = Vec::new();
        for which in 0..self.collections.len() {
            let seen = self.seen(which).await?;
            let mut fits = Vec::new();
            for done in told.durable..=told.begun {
                if self.after(done, which)? == seen {
                    fits.push(done);
                }
            }
            if fits.is_empty() {
                let what = format!(
                    "collection {which} of a worker of whose operations {} are durable and {} had begun",
                    told.durable, told.begun
                );
                let expected = brief(&self.after(told.durable, which)?);
                let expected = format!("{expected}, or that with what had begun, as a whole");
                return Err(Stop::fail(what, brief(&seen), expected));
            }
            fitting.push(fits);
        }
        let both = |done: &&u64| fitting.iter().all(|fits| fits.contains(done));
        if let Some(done) = fitting.iter().flatten().filter(both).max() {
            return Ok(*done);
        }
        if self.batch_atomic {
            return Err(Stop::fail(
                "a batch of two collections",
                format!("states after {fitting:?} operations"),
                "one state of both, since whole batches are declared to be atomic",
            ));
        }
        // Batches are of calls that may be made again.
        for n in told.durable..told.begun {
            self.perform(n).await?;
        }
        Ok(told.begun)
    }
}

async fn crew(cx: &Cx<dyn World>, kinds: &'static [Kind]) -> Result<Crew, Stop> {
    let mut crew = Crew::new();
    for (worker, name) in (0..).zip(["a", "b", "c"]) {
        let mut handle = cx.open_as(name, "p").await?;
        let a = handle.collection(&format!("{worker} a")).await?;
        let b = handle.collection(&format!("{worker} b")).await?;
        crew.push(Box::new(Books {
            handle,
            worker,
            collections: [a, b],
            batch_atomic: cx.caps.stash.batch_atomic,
            kinds,
        }));
    }
    Ok(crew)
}

pub(super) async fn hire(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, ALL).await
}

/// Those who mostly move frontiers.
pub(super) async fn hire_frontiers(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, FRONTIERS).await
}
