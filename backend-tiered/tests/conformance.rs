//! The suite on the combination of two places in memory.

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::decorate::{Faulty, Switch};
use larder_conformance::{BoxError, Caps, Env, Faults, Fixture, Probe, backend};
use larder_mem::{MemConfig, MemPlace};
use larder_tiered::{TieredConfig, TieredStorage};
use larder_traits::{Backend, Clock, TestClock};

struct World {
    prefix: String,
    clock: Arc<TestClock>,
    threshold_bytes: usize,
    switch: Switch,
    /// A place is gone with its last handle, and background work is waited for on all.
    held: Mutex<Vec<(MemPlace, TieredStorage)>>,
}

/// The three parts of a place.
const PARTS: [&str; 3] = ["high", "long", "log"];

/// One of them, with bounds small enough for the quick profile to write more than them.
fn part(prefix: &str, place: &str, part: &str) -> MemConfig {
    MemConfig::named(format!("{prefix}//{place}//{part}")).with_payload_len_bytes_max(2 << 20)
}

/// What the parts of a place hold: rows, payloads, and changes under way.
struct Rows(String);

impl Probe for Rows {
    fn rows(&self, place: &str) -> BoxFuture<'_, Result<u64, BoxError>> {
        let held = PARTS.map(|name| MemPlace::open(part(&self.0, place, name)).held());
        let count: usize = held.iter().map(|held| held.rows + held.changes).sum();
        ready(u64::try_from(count).map_err(BoxError::from)).boxed()
    }
}

impl World {
    fn part(&self, place: &str, name: &str) -> MemConfig {
        let clock = Arc::<TestClock>::clone(&self.clock) as Arc<dyn Clock>;
        part(&self.prefix, place, name).with_clock(clock)
    }

    fn config(&self) -> TieredConfig {
        let caps = self.part("any", "any").caps();
        TieredConfig::new(caps, caps)
            .with_clock(Arc::<TestClock>::clone(&self.clock) as Arc<dyn Clock>)
            .with_threshold_bytes(self.threshold_bytes)
            .with_grace(Duration::ZERO)
            .with_backoff(Duration::from_millis(1))
    }
}

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self {
            prefix: env.prefix.clone(),
            clock: Arc::default(),
            // Each check runs with one of them, and over its runs with all.
            threshold_bytes: match env.seed % 3 {
                0 => 0,
                1 => 500,
                _ => 100_000,
            },
            switch: Switch::new(),
            held: Mutex::default(),
        })
    }

    fn caps(&self) -> Caps {
        self.config().caps()
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(Arc::clone(&self.clock))
    }

    async fn settle(&self) {
        let all: Vec<_> = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.iter().map(|(_, storage)| storage.clone()).collect()
        };
        for storage in all {
            storage.join().await;
        }
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::new(self.switch.clone()))
    }

    fn probe(&self) -> Option<Arc<dyn Probe>> {
        Some(Arc::new(Rows(self.prefix.clone())))
    }
}

impl backend::Open for World {
    type Store = TieredStorage;

    async fn open(&self, place: &str) -> Result<TieredStorage, BoxError> {
        let [high, long, log] = PARTS.map(|name| MemPlace::open(self.part(place, name)));
        let storage = TieredStorage::new(
            Faulty::new("high", high.high_volume(), &self.switch),
            Faulty::new("long", long.high_volume(), &self.switch),
            Faulty::new("log", log.change_log(), &self.switch),
            self.config(),
        )?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend([high, long, log].map(|place| (place, storage.clone())));
        Ok(storage)
    }
}

larder_conformance::main!(backend: World);
