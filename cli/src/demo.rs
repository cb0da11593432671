//! `larder demo`: the suite on a store that keeps its contract and on one that does not.
//!
//! The broken one is broken in the commonest way: it remembers what it has read and does not hear of what others write. One
//! client alone never notices, which is why such a store passes the tests that people write by hand.

use std::collections::HashMap;
use std::future;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use larder::blob_multi::slice_of;
use larder::{Atomicity, BlobInfo, BlobMulti, Caps, Contract, ExternalError, Location, TestClock};
use larder_conformance::{BoxError, Env, Fixture, Options, Suite, blob_multi};

use crate::fixture::{self, UrlWorld};
use crate::report::{Book, Environment, Run, Started};
use crate::verify::progress_bar;
use crate::{DemoArguments, Problem, answer};

/// How long the broken store believes what it has read.
const STALE: Duration = Duration::from_millis(50);

/// What the page says of a demo that went as it should.
const NOTE: &str = "Both stores ran the same checks, and the suite told them apart. The stale one remembers what it has \
    read and does not hear of what other handles write; where a picture is drawn below, the red call is an answer that \
    was out of date when it was given.";

pub(crate) fn run(arguments: &DemoArguments) -> Result<(), Problem> {
    let started = Started::now();
    let mut options = Options::new();
    if let Some(seed) = arguments.seed {
        options.seed = seed;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let [correct, stale] = stores()?;
    let suites = [
        ("correct", "a map behind a lock", correct),
        (
            "stale",
            "the same, each handle behind a cache of 50 ms",
            stale,
        ),
    ];
    let bar = progress_bar(suites.iter().map(|(_, _, suite)| suite), &options, false);
    let mut runs = Vec::new();
    for (name, about, suite) in suites {
        bar.set_message(name);
        runs.push(Run {
            store: name.to_owned(),
            about: Some(about),
            report: suite.run(&options, |_record| bar.inc(1)),
        });
    }
    bar.finish_and_clear();
    let mut book = Book {
        title: "Larder demo: a correct store and a stale one",
        note: None,
        runs,
        environment: Environment::of(&started, &options),
        profile: options.profile,
        replay: |_, run, _| format!("larder demo --seed {}", run.report.seed),
    };
    let judged = judge(&book);
    book.note = judged.is_ok().then_some(NOTE);
    let page = book.write(&arguments.report)?;
    answer(&verdict(
        &book,
        &options,
        judged.is_ok(),
        &page.display().to_string(),
    ))?;
    judged
}

/// Six lines.
fn verdict(book: &Book, options: &Options, told_apart: bool, page: &str) -> String {
    let mut lines = vec![format!(
        "larder demo: the {} suite on two stores, seed {}",
        Contract::BlobMulti,
        options.seed
    )];
    for run in &book.runs {
        lines.push(format!(
            "  {:8} {:9} {} ({})",
            run.store,
            run.counts().verdict(),
            run.counts().line(),
            run.about.unwrap_or_default()
        ));
    }
    lines.push(format!("  evidence {}", evidence(book)));
    let apart = if told_apart {
        "the suite told them apart"
    } else {
        "the suite did not tell them apart"
    };
    lines.push(format!("  verdict  {apart}"));
    lines.push(format!("report: {page}"));
    lines.join("\n") + "\n"
}

/// The call that fits nowhere, if there is one, else the first failure.
fn evidence(book: &Book) -> String {
    let failures = || book.runs.iter().flat_map(|run| run.report.failures());
    let drawn = failures().find_map(|(record, failure)| {
        let call = failure.timeline.as_ref()?.impossible()?;
        let result = call.result.as_deref().unwrap_or("no answer");
        let (client, op) = (call.client, &call.op);
        Some(format!(
            "{}: client {client} called {op}, got {result}, and no order of the calls explains it",
            record.id
        ))
    });
    let told = || {
        failures()
            .next()
            .map(|(record, failure)| format!("{}: {}", record.id, failure.what))
    };
    drawn.or_else(told).unwrap_or_else(|| "none".into())
}

/// The suite on the correct store, and on the stale one.
pub(crate) fn stores() -> Result<[Suite; 2], Problem> {
    let location = Location::parse("mem:").map_err(|e| Problem::Usage(e.to_string()))?;
    let caps = larder::mem::CAPS;
    let correct = fixture::suite(&location, Contract::BlobMulti, caps)
        .ok_or_else(|| Problem::Untested("this program has no suite for the demo".into()))?;
    let stale = blob_multi::suite_with(move |env: Env| {
        let world = UrlWorld::make(&location, caps, &env);
        future::ready(Ok(StaleWorld(world)))
    });
    Ok([correct, stale])
}

/// The correct store must hold, and the stale one must be caught by the clause that it breaks.
fn judge(book: &Book) -> Result<(), Problem> {
    let [correct, stale] = &book.runs[..] else {
        return Err(Problem::Undecided);
    };
    if correct.counts().fail > 0 {
        return Err(Problem::Violated);
    }
    let caught = stale
        .report
        .failures()
        .any(|(record, _)| record.clause == "BM-6");
    if caught && correct.counts().inconclusive == 0 {
        return Ok(());
    }
    Err(Problem::Undecided)
}

/// A world whose stores are stale.
struct StaleWorld(UrlWorld);

impl Fixture for StaleWorld {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self(UrlWorld::new(env).await?))
    }

    fn caps(&self) -> Caps {
        self.0.caps()
    }

    async fn settle(&self) {
        self.0.settle().await;
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        self.0.clock()
    }
}

impl blob_multi::Open for StaleWorld {
    type Store = Stale;

    async fn open(&self, place: &str) -> Result<Stale, BoxError> {
        Ok(Stale {
            inner: blob_multi::Open::open(&self.0, place).await?,
            cache: Mutex::default(),
        })
    }
}

type Value = Option<Vec<u8>>;

/// A handle that remembers what it has read. It forgets what it writes itself, and knows nothing of other handles.
#[derive(Debug)]
struct Stale {
    inner: Arc<dyn BlobMulti>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    values: HashMap<String, (Instant, Value)>,
    /// Own writes so far: a read that met one is not remembered, so that a handle alone is never stale.
    writes: u64,
}

impl Stale {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, key: &str) {
        let mut cache = self.cache();
        cache.writes += 1;
        cache.values.remove(key);
    }
}

#[async_trait]
impl BlobMulti for Stale {
    async fn get(&self, deadline: Instant, key: &str) -> Result<Value, ExternalError> {
        let writes = {
            let cache = self.cache();
            match cache.values.get(key) {
                Some((read, value)) if read.elapsed() < STALE && deadline > Instant::now() => {
                    return Ok(value.clone());
                }
                _ => cache.writes,
            }
        };
        let value = self.inner.get(deadline, key).await?;
        let mut cache = self.cache();
        if cache.writes == writes {
            cache
                .values
                .insert(key.to_owned(), (Instant::now(), value.clone()));
        }
        Ok(value)
    }

    async fn list_keys(&self, deadline: Instant) -> Result<Vec<String>, ExternalError> {
        self.inner.list_keys(deadline).await
    }

    async fn set(
        &self,
        deadline: Instant,
        key: &str,
        value: Bytes,
        atomic: Atomicity,
    ) -> Result<(), ExternalError> {
        self.forget(key);
        let set = self.inner.set(deadline, key, value, atomic).await;
        self.forget(key);
        set
    }

    async fn delete(&self, deadline: Instant, key: &str) -> Result<(), ExternalError> {
        self.forget(key);
        let deleted = self.inner.delete(deadline, key).await;
        self.forget(key);
        deleted
    }

    async fn get_bytes(
        &self,
        deadline: Instant,
        key: &str,
    ) -> Result<Option<Bytes>, ExternalError> {
        Ok(self.get(deadline, key).await?.map(Bytes::from))
    }

    async fn get_range(
        &self,
        deadline: Instant,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, ExternalError> {
        let value = self.get_bytes(deadline, key).await?;
        Ok(value.map(|value| slice_of(&value, range)))
    }

    async fn list_prefix(
        &self,
        deadline: Instant,
        prefix: &str,
    ) -> Result<Vec<BlobInfo>, ExternalError> {
        self.inner.list_prefix(deadline, prefix).await
    }
}
