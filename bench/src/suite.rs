//! What a run of the conformance suite costs on a store that costs nothing: memory.
//!
//! Every check is timed by the wall and by the CPU. What the wall has beyond the CPU is waiting: for the ends of
//! lifetimes, for calls that have to hang, for a core that somebody else has. On a machine with nothing else to do it is
//! the checks' own.

use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_conformance::{
    BoxError, Caps, Env, Fixture, Options, Profile, Suite, Verdict, backend, blob_multi,
    blob_store, high_volume, kv_client, stash,
};
use larder_mem::{
    MemBlobMulti, MemBlobStore, MemConfig, MemHighVolume, MemKvClient, MemPlace, MemStash,
};
use larder_traits::TestClock;
use larder_traits::stash::StashDriver;

use crate::harness::{Bench, Figure, Result, Stopwatch, median};

const MEM: &str = "mem";

pub(crate) fn run(bench: &mut Bench) -> Result {
    // The suite reports a panic of a store as what it is; the standard hook would print each of them as well.
    std::panic::set_hook(Box::new(|_| {}));
    for (profile, rounds) in [
        (Profile::Quick, bench.either(3, 1)),
        (Profile::Standard, bench.either(1, 0)),
    ] {
        let mut walls = Vec::new();
        let mut shares = Vec::new();
        let mut slowest = Vec::new();
        for seed in 0..rounds {
            let run = run_once(profile, u64::try_from(seed)?)?;
            walls.push(run.wall.as_secs_f64());
            shares.push(run.waiting.as_secs_f64() / run.wall.as_secs_f64() * 100.0);
            slowest = run.slowest;
        }
        if walls.is_empty() {
            bench.note(format!(
                "the profile {} takes longer than a quick bench may",
                profile.name()
            ));
            continue;
        }
        let work = format!("profile {}, all contracts of mem", profile.name());
        bench.figure(Figure::new(&work, MEM, median(&walls), "s"));
        bench.figure(Figure::new(&work, MEM, median(&shares), "% waiting"));
        bench.note(format!(
            "{work}: the longest checks were {}",
            slowest.join(", ")
        ));
    }
    Ok(())
}

/// One run of the whole suite.
struct Run {
    wall: Duration,
    waiting: Duration,
    slowest: Vec<String>,
}

fn run_once(profile: Profile, seed: u64) -> Result<Run> {
    const SHOWN: usize = 5;
    let mut options = Options::new();
    options.profile = profile;
    options.seed = seed;
    let mut checks = Vec::new();
    for suite in suites() {
        for trial in suite.trials() {
            let watch = Stopwatch::start();
            let record = trial.run(&options);
            if matches!(record.verdict, Verdict::Fail(_)) {
                return Err(format!("{} fails on memory with seed {seed}", trial.name()).into());
            }
            let sample = watch.stop(1);
            checks.push((sample.wall, sample.cpu, trial.name()));
        }
    }
    checks.sort_by_key(|(wall, ..)| std::cmp::Reverse(*wall));
    Ok(Run {
        wall: checks.iter().map(|(wall, ..)| *wall).sum(),
        waiting: checks
            .iter()
            .map(|(wall, cpu, _)| wall.saturating_sub(*cpu))
            .sum(),
        slowest: checks
            .iter()
            .take(SHOWN)
            .map(|(wall, _, name)| format!("{name} ({:.2} s)", wall.as_secs_f64()))
            .collect(),
    })
}

fn suites() -> Vec<Suite> {
    vec![
        blob_multi::suite::<World>(),
        stash::suite::<World>(),
        blob_store::suite::<World>(),
        backend::suite::<World>(),
        high_volume::suite::<World>(),
        kv_client::suite::<World>(),
    ]
}

/// Places in memory, on a clock that is turned by hand.
struct World {
    prefix: String,
    clock: Arc<TestClock>,
    /// A place is gone with its last handle.
    held: Mutex<Vec<MemPlace>>,
}

impl World {
    fn config(&self, place: &str) -> MemConfig {
        MemConfig::named(format!("{}//{place}", self.prefix))
            .with_blob_value_len_bytes_max(4 << 20)
            .with_kv_value_len_bytes_max(1 << 20)
            .with_payload_len_bytes_max(1 << 20)
    }

    fn place(&self, place: &str) -> std::result::Result<MemPlace, BoxError> {
        let clock = Arc::<TestClock>::clone(&self.clock);
        let place = MemPlace::open(self.config(place).with_clock(clock));
        let mut held = self.held.lock().map_err(|e| e.to_string())?;
        held.push(place.clone());
        Ok(place)
    }
}

impl Fixture for World {
    async fn new(env: &Env) -> std::result::Result<Self, BoxError> {
        ready(Ok(Self {
            prefix: env.prefix.clone(),
            clock: Arc::default(),
            held: Mutex::default(),
        }))
        .await
    }

    fn caps(&self) -> Caps {
        self.config("any").caps()
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(Arc::clone(&self.clock))
    }

    async fn settle(&self) {}
}

macro_rules! opens {
    ($($contract:ident: $store:ty = $open:ident),+) => {$(
        impl $contract::Open for World {
            type Store = $store;
            async fn open(&self, place: &str) -> std::result::Result<$store, BoxError> {
                Ok(self.place(place)?.$open())
            }
        }
    )+};
}

opens!(
    blob_multi: MemBlobMulti = blob_multi,
    blob_store: MemBlobStore = blob_store,
    backend: MemHighVolume = high_volume,
    high_volume: MemHighVolume = high_volume,
    kv_client: MemKvClient = kv_client
);

impl stash::Open for World {
    type Store = MemStash;

    async fn open(&self, place: &str) -> std::result::Result<MemStash, BoxError> {
        Ok(self.place(place)?.stash())
    }

    async fn driver(
        &self,
        place: &str,
    ) -> std::result::Result<Option<Arc<dyn StashDriver>>, BoxError> {
        Ok(Some(Arc::new(self.place(place)?.stash())))
    }
}
