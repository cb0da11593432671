//! What a running check holds: a world, a log of its calls, and its share of chance.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_traits::{Caps, TestClock};
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::check::{CheckInfo, Outcome, Stop};
use crate::engine::canary::{self, Canary};
use crate::engine::kill::Orders;
use crate::fixture::{Env, Factory, Faults, Folders, World};
use crate::profile::Profile;

/// How many calls a failure shows.
const HISTORY_LINES_MAX: usize = 60;

/// The calls of one world, in order, for the failure that may come.
#[derive(Debug, Default)]
pub(crate) struct Log {
    lines: Mutex<VecDeque<String>>,
}

impl Log {
    pub(crate) fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == HISTORY_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

/// What one run of one check starts from.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    /// The suite's name in a program that has several of one contract.
    pub(crate) label: String,
    /// Whether the world turned out to be on a server.
    pub(crate) is_remote: Arc<AtomicBool>,
    /// What to do as the victim, in the process that will be killed.
    pub(crate) orders: Option<Arc<Orders>>,
}

/// The context of one run of one check.
pub(crate) struct Cx<W: ?Sized> {
    world: Box<W>,
    factory: Factory<W>,
    env: Env,
    start: Start,
    info: CheckInfo,
    log: Arc<Log>,
    pub(crate) caps: Caps,
    pub(crate) profile: Profile,
}

impl<W: World + ?Sized> Cx<W> {
    pub(crate) async fn new(
        factory: Factory<W>,
        info: CheckInfo,
        start: Start,
    ) -> Result<Self, Stop> {
        let env = match &start.orders {
            Some(orders) => orders.env(start.seed),
            None => Env {
                prefix: crate::seed::private_name(),
                seed: start.seed,
                folders: Arc::default(),
            },
        };
        Self::in_env(factory, info, start, env).await
    }

    async fn in_env(
        factory: Factory<W>,
        info: CheckInfo,
        start: Start,
        env: Env,
    ) -> Result<Self, Stop> {
        let world = factory(env.clone())
            .await
            .map_err(|e| Stop::Inconclusive(format!("the fixture could not be made: {e}")))?;
        start.is_remote.store(world.is_remote(), Ordering::Relaxed);
        Ok(Self {
            caps: world.caps(),
            world,
            factory,
            env,
            profile: start.profile,
            start,
            info,
            log: Arc::default(),
        })
    }

    /// Another world, empty as this one was, with a log of its own.
    pub(crate) async fn fresh(&self) -> Result<Self, Stop> {
        let factory = Arc::clone(&self.factory);
        let start = Start {
            orders: None,
            ..self.start.clone()
        };
        Self::new(factory, self.info, start).await
    }

    /// Another world of the same name, which takes its folders from there.
    pub(crate) async fn moved(&self, folders: Folders) -> Result<Self, Stop> {
        let env = Env {
            folders: Arc::new(folders),
            ..self.env.clone()
        };
        let factory = Arc::clone(&self.factory);
        Self::in_env(factory, self.info, self.start.clone(), env).await
    }

    pub(crate) fn start(&self) -> &Start {
        &self.start
    }

    pub(crate) fn info(&self) -> &CheckInfo {
        &self.info
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn world(&self) -> &W {
        &self.world
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub(crate) fn seed(&self) -> u64 {
        self.env.seed
    }

    /// The check's own chance: the same seed gives the same numbers.
    pub(crate) fn rng(&self) -> TestRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.env.seed.to_le_bytes());
        TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
    }

    /// How many operations a model check performs in all.
    pub(crate) fn model_operations(&self) -> usize {
        self.profile.model_operations(self.world.is_remote())
    }

    /// How long the whole check may take.
    pub(crate) fn patience(&self) -> Duration {
        self.profile.watchdog(self.world.is_remote())
    }

    /// How soon a call ends that nothing is in the way of: at once, and a server has its own pace.
    pub(crate) fn soon(&self) -> Duration {
        Duration::from_secs(if self.world.is_remote() { 10 } else { 1 })
    }

    /// How many epochs a linearizability check runs.
    pub(crate) fn lin_epochs(&self) -> usize {
        self.profile.lin_epochs(self.world.is_remote())
    }

    /// Says of one after the other of many alike cases whether it is run: in this process every one, on a server some, and
    /// others on another seed.
    pub(crate) fn sample(&self) -> impl FnMut() -> bool {
        let one_in = self.profile.one_in(self.world.is_remote());
        let mut nth = usize::try_from(self.seed() % 1_000).unwrap_or_default();
        move || {
            nth += 1;
            (nth - 1).is_multiple_of(one_in)
        }
    }

    /// How often something is repeated that takes `all` times in this process: on a server not more than `few`.
    pub(crate) fn times(&self, all: usize, few: usize) -> usize {
        match self.profile.one_in(self.world.is_remote()) {
            1 => all,
            _ => few,
        }
    }

    /// The test clock, or the reason why this check cannot run.
    pub(crate) fn clock(&self) -> Result<Arc<TestClock>, Stop> {
        self.world
            .clock()
            .ok_or_else(|| Stop::Ignored("needs the power clock()".into()))
    }

    /// How many rows the place holds, dead or alive, or the reason why this check cannot run.
    pub(crate) async fn rows(&self, place: &str) -> Result<u64, Stop> {
        let probe = self.world.probe();
        let probe = probe.ok_or_else(|| Stop::Ignored("needs the power probe()".into()))?;
        let rows = probe.rows(place).await;
        rows.map_err(|e| Stop::Inconclusive(format!("the probe failed: {e}")))
    }

    /// The switch that makes the medium fail, or the reason why this check cannot run.
    pub(crate) fn faults(&self) -> Result<Arc<dyn Faults>, Stop> {
        self.world
            .faults()
            .ok_or_else(|| Stop::Ignored("needs the power faults()".into()))
    }

    pub(crate) async fn settle(&self) {
        self.world.settle().await;
    }

    /// Fails the check unless the two are equal.
    pub(crate) fn eq<T: PartialEq + Debug>(
        &self,
        what: impl Into<String>,
        observed: &T,
        expected: &T,
    ) -> Outcome {
        if observed == expected {
            Ok(())
        } else {
            Err(Stop::fail(what, brief(observed), brief(expected)))
        }
    }

    /// Fails the check unless `holds`.
    pub(crate) fn require(
        &self,
        holds: bool,
        what: impl Into<String>,
        observed: impl Into<String>,
        expected: impl Into<String>,
    ) -> Outcome {
        if holds {
            Ok(())
        } else {
            Err(Stop::fail(what, observed, expected))
        }
    }

    /// Lets `call` take so long and no longer; a call that does not end is a failure, unless the machine stood still for
    /// so long itself. On a machine that is slow, it is longer.
    pub(crate) async fn within<T>(
        &self,
        bound: Duration,
        what: impl Into<String>,
        call: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        let canary = Canary::start();
        let ended = canary::within(bound, call).await;
        ended.ok_or_else(|| {
            let observed = format!("no answer after {bound:?}");
            match canary.excuses(bound, Duration::MAX) {
                Some(why) => {
                    let what = what.into();
                    Stop::Inconclusive(format!("{what}: {observed}, but {why}"))
                }
                None => Stop::fail(what, observed, "an answer"),
            }
        })
    }
}

/// A value as failures show it: its debug form, cut to a line.
pub(crate) fn brief(value: &impl Debug) -> String {
    const CHARS_MAX: usize = 400;
    let text = format!("{value:?}");
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text,
    }
}

/// Bytes as failures show them: the text where it is short, else a length and a hash to tell two apart.
pub(crate) fn show(bytes: &[u8]) -> String {
    const LEN_MAX: usize = 24;
    if bytes.len() <= LEN_MAX {
        return format!("b\"{}\"", bytes.escape_ascii());
    }
    format!(
        "{} B b\"{}…\" #{:08x}",
        bytes.len(),
        bytes[..8].escape_ascii(),
        crate::seed::hash(bytes) >> 32
    )
}
