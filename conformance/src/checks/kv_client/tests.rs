//! The checks of `KvClient` on a store that keeps every clause, and on some that break one.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::{Caps, Clock, ErrorKind, Fault, KvCaps, KvClient, KvClientError, TestClock};

use crate::check::Verdict;
use crate::fixture::{BoxError, Env, Fixture};
use crate::kv_client::{Open, suite_with};
use crate::model::kv_client::{Entries, check_key, check_value};
use crate::run::Options;

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    EmptyAsAbsent,
    ZeroTtlForEver,
    TtlCutTo32Bits,
    OldTimerFires,
    SlidingTtl,
    ManyAsSet,
    ManyShowsExpired,
    ManyLimited,
    DeletesRange,
    TextKeys,
    LateBound,
    PrivateCache,
    OpensAfterShutdown,
}

const CAPS: Caps = Caps::LEAST.with_kv_client(
    KvCaps::LEAST
        .with_empty_key(true)
        .with_ttl_granularity(Duration::ZERO)
        .with_multi_snapshot(true),
);

type Shared = Arc<Mutex<Entries>>;

struct Place {
    flaw: Flaw,
    clock: Arc<TestClock>,
    places: Mutex<HashMap<String, Shared>>,
}

impl Fixture for Place {
    async fn new(_env: &Env) -> Result<Self, BoxError> {
        Err("made with a flaw only".into())
    }

    fn caps(&self) -> Caps {
        CAPS
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Some(Arc::clone(&self.clock))
    }
}

impl Open for Place {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = places.entry(place.to_owned()).or_default();
        Ok(Store {
            flaw: self.flaw,
            clock: Arc::clone(&self.clock),
            entries: Arc::clone(entries),
            cache: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    async fn shutdown(&self, store: &Store) -> Result<bool, BoxError> {
        store.closed.store(true, Ordering::SeqCst);
        Ok(true)
    }
}

struct Store {
    flaw: Flaw,
    clock: Arc<TestClock>,
    entries: Shared,
    cache: Mutex<BTreeMap<Bytes, Option<Bytes>>>,
    closed: AtomicBool,
}

impl Store {
    /// The key as this store takes it, once the call may go ahead.
    fn admit(&self, key: &[u8]) -> Result<Bytes, KvClientError> {
        if self.closed.load(Ordering::SeqCst) && self.flaw != Flaw::OpensAfterShutdown {
            return Err(Fault::not_applied(ErrorKind::Closed, "shut down").into());
        }
        check_key(&CAPS.kv_client, key)?;
        Ok(match self.flaw {
            Flaw::TextKeys => String::from_utf8_lossy(key).into_owned().into(),
            _ => Bytes::copy_from_slice(key),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &[u8], value: &[u8], ttl: Option<u64>) -> Result<(), KvClientError> {
        let key = self.admit(key)?;
        let value = Bytes::copy_from_slice(value);
        if self.flaw == Flaw::LateBound {
            self.lock().put(&key, value.clone());
        }
        check_value(&CAPS.kv_client, &value)?;
        let now = self.clock.now();
        match ttl {
            Some(0) if self.flaw == Flaw::ZeroTtlForEver => self.lock().put(&key, value),
            Some(ttl) if self.flaw == Flaw::TtlCutTo32Bits => {
                let cut = (ttl & u64::from(u32::MAX)).max(1);
                self.lock().put_with_ttl(&key, value, cut, now)?;
            }
            Some(ttl) => self.lock().put_with_ttl(&key, value, ttl, now)?,
            None if self.flaw == Flaw::OldTimerFires => {
                // The plain put keeps what was left of the old time: about a hundred seconds, for all it knows.
                let had = self.lock().get(&key, now).is_some();
                if had {
                    self.lock().put_with_ttl(&key, value, 100, now)?;
                } else {
                    self.lock().put(&key, value);
                }
            }
            None => self.lock().put(&key, value),
        }
        Ok(())
    }

    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError> {
        let key = self.admit(key)?;
        let now = self.clock.now();
        let found = self.lock().get(&key, now).cloned();
        match self.flaw {
            Flaw::EmptyAsAbsent => Ok(found.filter(|value| !value.is_empty())),
            Flaw::SlidingTtl => {
                if let Some(value) = &found {
                    self.lock().put_with_ttl(&key, value.clone(), 60, now)?;
                }
                Ok(found)
            }
            Flaw::PrivateCache => {
                let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(cache.entry(key).or_insert(found).clone())
            }
            _ => Ok(found),
        }
    }
}

#[async_trait]
impl KvClient for Store {
    async fn put(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl AsRef<[u8]> + Send,
    ) -> Result<(), KvClientError> {
        self.write(key.as_ref(), value.as_ref(), None)
    }

    async fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl AsRef<[u8]> + Send,
        ttl_secs: u64,
    ) -> Result<(), KvClientError> {
        self.write(key.as_ref(), value.as_ref(), Some(ttl_secs))
    }

    async fn get(&self, key: impl AsRef<[u8]> + Send) -> Result<Option<Bytes>, KvClientError> {
        self.read(key.as_ref())
    }

    async fn get_multi(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
        self.admit(b"any")?;
        for key in keys {
            self.admit(key)?;
        }
        let now = match self.flaw {
            Flaw::ManyShowsExpired => std::time::SystemTime::UNIX_EPOCH,
            _ => self.clock.now(),
        };
        if self.flaw == Flaw::ManyAsSet {
            let set: std::collections::BTreeSet<_> = keys.iter().cloned().collect();
            let keys: Vec<_> = set.into_iter().collect();
            return Ok(self.lock().get_multi(&keys, now));
        }
        if matches!(self.flaw, Flaw::SlidingTtl | Flaw::PrivateCache) {
            return keys.iter().map(|key| self.read(key)).collect();
        }
        let keys: Result<Vec<_>, _> = keys.iter().map(|key| self.admit(key)).collect();
        // All at once, as it is declared. One by one, `KV-5.3` of the store without a flaw failed in one run of many.
        let mut many = self.lock().get_multi(&keys?, now);
        for (at, found) in many.iter_mut().enumerate() {
            let is_empty = found.as_ref().is_some_and(Bytes::is_empty);
            match self.flaw {
                Flaw::ManyLimited if at >= 999 => *found = None,
                Flaw::EmptyAsAbsent if is_empty => *found = None,
                _ => {}
            }
        }
        Ok(many)
    }

    async fn delete(&self, key: impl AsRef<[u8]> + Send) -> Result<(), KvClientError> {
        let key = self.admit(key.as_ref())?;
        let now = self.clock.now();
        self.lock().delete(&key, now);
        if self.flaw == Flaw::DeletesRange {
            let mut next = key.to_vec();
            next.push(0);
            self.lock().delete(&next, now);
        }
        Ok(())
    }
}

/// The checks that such a store fails, of all or of one; none may be inconclusive.
fn failed(flaw: Flaw, only: Option<&str>) -> Vec<&'static str> {
    let suite = suite_with(move |_env| async move {
        Ok(Place {
            flaw,
            clock: Arc::default(),
            places: Mutex::default(),
        })
    });
    let mut options = Options::new();
    options.seed = 7;
    let mut failed = Vec::new();
    options.only = only.map(str::to_owned);
    for trial in suite.trials().iter().filter(|trial| options.selects(trial)) {
        // One check is asked for to see it fail, and some flaws show only where calls meet.
        let seeds = if only.is_some() { 10 } else { 1 };
        match trial.run_until_failed(&options, seeds).verdict {
            Verdict::Fail(_) => failed.push(trial.info().id),
            Verdict::Inconclusive(why) => panic!("{}: {why}", trial.info().id),
            Verdict::Pass | Verdict::Ignored(_) => {}
        }
    }
    failed
}

#[test]
fn a_store_that_keeps_every_clause_passes() {
    assert_eq!(failed(Flaw::None, None), Vec::<&str>::new());
}

#[test]
fn each_flaw_is_found_by_the_check_that_is_there_for_it() {
    let flaws = [
        (Flaw::EmptyAsAbsent, "KV-1.1"),
        (Flaw::ZeroTtlForEver, "KV-3.3"),
        (Flaw::TtlCutTo32Bits, "KV-3.3"),
        (Flaw::OldTimerFires, "KV-4.3"),
        (Flaw::SlidingTtl, "KV-3.5"),
        (Flaw::ManyAsSet, "KV-5.1"),
        (Flaw::ManyShowsExpired, "KV-3.5"),
        (Flaw::ManyLimited, "KV-5.2"),
        (Flaw::DeletesRange, "KV-6.1"),
        (Flaw::TextKeys, "KV-2.1"),
        (Flaw::LateBound, "C-4.1"),
        (Flaw::PrivateCache, "C-2.1"),
        (Flaw::OpensAfterShutdown, "KV-8.1"),
    ];
    for (flaw, check) in flaws {
        let found = failed(flaw, Some(check));
        assert_eq!(found, [check], "{flaw:?}");
    }
}
