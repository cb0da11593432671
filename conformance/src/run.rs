//! Running checks: each on a thread and a runtime of its own, under a watchdog.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_traits::Caps;

use crate::check::{Check, CheckInfo, Failure, Gate, Level, Stop, Symptom, Verdict};
use crate::contract::Contract;
use crate::cx::{Cx, Start};
use crate::engine::kill::Orders;
use crate::fixture::{BoxError, Env, Factory, World};
use crate::profile::Profile;
use crate::report::{Record, Report};
use crate::{seed, watchdog};

#[cfg(test)]
mod tests;

/// How often a check is tried again with another seed that was inconclusive, or came upon an answer that was late.
const RETRIES: u32 = 2;

/// How a run is to be done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How thorough.
    pub profile: Profile,
    /// The seed from which every check's own is derived.
    pub seed: u64,
    /// Only the check of this id, or the checks of this clause.
    pub only: Option<String>,
}

impl Options {
    /// A quick run of every check, on a seed that nobody chose.
    #[must_use]
    pub fn new() -> Self {
        Self {
            profile: Profile::Quick,
            seed: seed::random(),
            only: None,
        }
    }

    /// What the environment says: `LARDER_PROFILE`, `LARDER_SEED`, `LARDER_CHECK`.
    ///
    /// # Errors
    ///
    /// A line that names the variable that does not read.
    pub fn from_env() -> Result<Self, String> {
        let mut options = Self::new();
        let var = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(name) = var("LARDER_PROFILE") {
            options.profile = Profile::by_name(&name).ok_or_else(|| {
                format!("LARDER_PROFILE={name}: expected quick, standard or soak")
            })?;
        }
        if let Some(seed) = var("LARDER_SEED") {
            options.seed = seed
                .parse()
                .map_err(|e| format!("LARDER_SEED={seed}: {e}"))?;
        }
        options.only = var("LARDER_CHECK");
        Ok(options)
    }

    /// Whether these options select a check.
    #[must_use]
    pub fn selects(&self, trial: &Trial) -> bool {
        self.only
            .as_deref()
            .is_none_or(|only| only == trial.info.id || only == trial.info.clause)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// One check on one backend, ready to run.
#[derive(Clone)]
pub struct Trial {
    info: CheckInfo,
    label: String,
    /// Why it is known to fail, where it is.
    known: Option<String>,
    body: Body,
}

type Body = Arc<dyn Fn(Start) -> Ended + Send + Sync>;

/// How one run of a check's body ended.
pub(crate) struct Ended {
    pub(crate) verdict: Verdict,
    /// What the backend declared, where it was opened at all.
    pub(crate) caps: Option<Caps>,
    /// Whether the check has nothing to look at here, by what is declared or by what its clause is about.
    pub(crate) is_excused: bool,
}

impl Ended {
    fn new(verdict: Verdict, caps: Option<Caps>) -> Self {
        Self {
            verdict,
            caps,
            is_excused: false,
        }
    }

    fn excused(why: String, caps: Option<Caps>) -> Self {
        Self {
            verdict: Verdict::Ignored(why),
            caps,
            is_excused: true,
        }
    }
}

impl Trial {
    /// Why the check is listed as failing here ([`Suite::known`]), where it is.
    pub(crate) fn known(&self) -> Option<&str> {
        self.known.as_deref()
    }

    /// What is known of the check without running it.
    #[must_use]
    pub fn info(&self) -> &CheckInfo {
        &self.info
    }

    /// Its name in test runners: `blob_multi::seq::BM-3.1_every_length_over_every_length`.
    #[must_use]
    pub fn name(&self) -> String {
        let engine = self.info.engines.first().map_or("none", |e| e.name());
        let mut title: String = self
            .info
            .title
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        while title.contains("__") {
            title = title.replace("__", "_");
        }
        let module = self.info.contract.name().replace('-', "_");
        format!(
            "{module}::{engine}::{}_{}",
            self.info.id,
            title.trim_matches('_')
        )
    }

    /// Runs the check, again with other seeds where it could not tell or where the machine may have been late and not the
    /// store, and says how it ended.
    ///
    /// A wrong answer of a check that is [known](Suite::known) to give one counts as ignored.
    #[must_use]
    pub fn run(&self, options: &Options) -> Record {
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let seed = seed::of_check(options.seed, self.info.id, attempt);
            let start = Start {
                seed,
                profile: options.profile,
                label: self.label.clone(),
                is_remote: Arc::default(),
                orders: None,
            };
            let ended = watched(&self.body, start);
            let is_open = match &ended.verdict {
                Verdict::Inconclusive(_) => true,
                Verdict::Fail(failure) => failure.symptom == Symptom::Late,
                _ => false,
            };
            if !is_open || attempt == RETRIES {
                return Record::new(self, ended, options, started.elapsed());
            }
            attempt += 1;
        }
    }

    /// Runs the check's part of the process that will be killed.
    pub(crate) fn obey(&self, orders: Orders) -> Verdict {
        let start = Start {
            seed: orders.seed,
            profile: orders.profile(),
            label: self.label.clone(),
            is_remote: Arc::default(),
            orders: Some(Arc::new(orders)),
        };
        (self.body)(start).verdict
    }
}

#[cfg(test)]
impl Trial {
    /// Runs the check on up to `seeds` seeds, until it fails: a flaw that shows only where calls meet need not show on
    /// the first.
    pub(crate) fn run_until_failed(&self, options: &Options, seeds: u64) -> Record {
        let mut options = options.clone();
        let mut record = self.run(&options);
        for seed in 1..seeds {
            if matches!(record.verdict, Verdict::Fail(_)) {
                break;
            }
            options.seed = seed;
            record = self.run(&options);
        }
        record
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// Runs `body` on a thread that may be given up: a store that blocks for ever must not take the suite with it.
fn watched(body: &Body, start: Start) -> Ended {
    let (send, receive) = mpsc::channel();
    let body = Arc::clone(body);
    let (profile, is_remote) = (start.profile, Arc::clone(&start.is_remote));
    let bound = || profile.watchdog(is_remote.load(Ordering::Relaxed));
    let spawned = thread::Builder::new()
        .name("larder-check".into())
        .spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| body(start)));
            let ended = ended.unwrap_or_else(|panic| Ended::new(panicked(panic.as_ref()), None));
            // Nobody listens any more only if the watchdog has spoken.
            drop(send.send(ended));
        });
    if let Err(e) = spawned {
        let why = format!("no thread for the check: {e}");
        return Ended::new(Verdict::Inconclusive(why), None);
    }
    let answer = watchdog::wait(&receive, bound).ok().flatten();
    answer.unwrap_or_else(|| {
        let verdict = Verdict::Fail(Box::new(Failure {
            symptom: Symptom::Hang,
            what: "the check came to no end".into(),
            observed: format!("no answer after {:?}", bound()),
            expected: "every call ends".into(),
            history: Vec::new(),
            timeline: None,
        }));
        Ended::new(verdict, None)
    })
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Verdict {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".into());
    Verdict::Fail(Box::new(Failure {
        symptom: Symptom::Panic,
        what: "a panic".into(),
        observed: text,
        expected: "a classified error (C-3)".into(),
        history: Vec::new(),
        timeline: None,
    }))
}

/// The checks of one contract, on one backend.
#[derive(Clone, Debug)]
pub struct Suite {
    contract: Contract,
    trials: Vec<Trial>,
}

impl Suite {
    pub(crate) fn new<W: World + ?Sized + 'static>(
        contract: Contract,
        tables: &[&'static [Check<W>]],
        factory: &Factory<W>,
    ) -> Self {
        let empty = Self {
            contract,
            trials: Vec::new(),
        };
        empty.and(tables, factory)
    }

    /// The same suite with the checks of `tables`, run in the worlds of `factory`.
    pub(crate) fn and<W: World + ?Sized + 'static>(
        mut self,
        tables: &[&'static [Check<W>]],
        factory: &Factory<W>,
    ) -> Self {
        let checks = tables.iter().flat_map(|table| table.iter());
        self.trials.extend(checks.map(|check| Trial {
            info: check.info(self.contract),
            label: String::new(),
            known: None,
            body: body(check, check.info(self.contract), Arc::clone(factory)),
        }));
        self
    }

    /// The same suite under a name, by which [`harness::victims`](crate::harness::victims) finds it again where a program
    /// has several of one contract.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        for trial in &mut self.trials {
            name.clone_into(&mut trial.label);
        }
        self
    }

    /// The same suite, in which the check of this id is known to fail, for a defect of the server behind the store that
    /// nothing on this side can mend.
    ///
    /// The check runs all the same. Where it passes, it passes. A wrong answer makes it [`Verdict::Ignored`] with `why`, and
    /// [`Record::known`] keeps what was seen; a panic or a hang is a failure as ever. Whatever it did, nobody may conclude
    /// from it that the store keeps the clause.
    ///
    /// # Panics
    ///
    /// If the suite has no check of that very id, as it has none of a clause's, or if no reason is given.
    #[must_use]
    pub fn known(mut self, id: &str, why: &str) -> Self {
        assert!(!why.is_empty(), "why is {id} known to fail?");
        let mut trials = self.trials.iter_mut();
        let Some(trial) = trials.find(|trial| trial.info.id == id) else {
            panic!(
                "{id} is known to fail, and no check of {} has that id",
                self.contract
            );
        };
        trial.known = Some(why.to_owned());
        self
    }

    /// The contract that is checked.
    #[must_use]
    pub fn contract(&self) -> Contract {
        self.contract
    }

    /// Its checks, clause by clause.
    #[must_use]
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// Runs the checks that `options` select, one after the other, and tells `progress` of each as it ends.
    #[must_use]
    pub fn run(&self, options: &Options, mut progress: impl FnMut(&Record)) -> Report {
        let mut records = Vec::new();
        for trial in self.trials.iter().filter(|trial| options.selects(trial)) {
            let record = trial.run(options);
            progress(&record);
            records.push(record);
        }
        Report::new(self.contract, options, records)
    }
}

fn body<W: World + ?Sized + 'static>(
    check: &'static Check<W>,
    info: CheckInfo,
    factory: Factory<W>,
) -> Body {
    Arc::new(move |start| {
        if let Level::Untestable(why) = check.level {
            return Ended::excused(format!("untestable: {why}"), None);
        }
        let Some(run) = check.run else {
            let why = "this check has no body";
            return Ended::new(Verdict::Inconclusive(why.into()), None);
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(e) => {
                let why = format!("no runtime: {e}");
                return Ended::new(Verdict::Inconclusive(why), None);
            }
        };
        let ended = runtime.block_on(async {
            let cx = match Cx::new(Arc::clone(&factory), info, start).await {
                Ok(cx) => cx,
                Err(stop) => return Ended::new(verdict(Err(stop), &[]), None),
            };
            if let Gate::Ignore(why) = (check.gate)(&cx.caps) {
                return Ended::excused(why.into(), Some(cx.caps));
            }
            let ended = AssertUnwindSafe(run(&cx)).catch_unwind().await;
            let verdict = match ended {
                Ok(outcome) => verdict(outcome, &cx.log().lines()),
                Err(panic) => with_history(panicked(panic.as_ref()), &cx.log().lines()),
            };
            Ended::new(verdict, Some(cx.caps))
        });
        // A store may have left a blocking call behind; it must not hold the suite up.
        runtime.shutdown_timeout(Duration::from_millis(100));
        ended
    })
}

fn verdict(outcome: Result<(), Stop>, history: &[String]) -> Verdict {
    match outcome {
        Ok(()) => Verdict::Pass,
        Err(Stop::Fail(failure)) => with_history(Verdict::Fail(failure), history),
        Err(Stop::Ignored(why)) => Verdict::Ignored(why),
        Err(Stop::Inconclusive(why)) => Verdict::Inconclusive(why),
    }
}

fn with_history(verdict: Verdict, history: &[String]) -> Verdict {
    match verdict {
        Verdict::Fail(mut failure) if failure.history.is_empty() => {
            failure.history = history.to_vec();
            Verdict::Fail(failure)
        }
        other => other,
    }
}

/// A factory that makes worlds with `make` and hands them out with their type erased by `erase`.
pub(crate) fn factory<P, W, M, F>(make: M, erase: fn(P) -> Box<W>) -> Factory<W>
where
    P: 'static,
    W: ?Sized + 'static,
    M: Fn(Env) -> F + Send + Sync + 'static,
    F: Future<Output = Result<P, BoxError>> + Send + 'static,
{
    Arc::new(move |env| -> BoxFuture<'static, Result<Box<W>, BoxError>> {
        let made = make(env);
        async move { Ok(erase(made.await?)) }.boxed()
    })
}
