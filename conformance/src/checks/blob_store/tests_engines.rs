//! The concurrent checks of `BlobStore`, and those on a medium that fails, on a store that keeps its clauses and on
//! broken variants.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use larder_traits::{
    AlignedBlobBuf, BlobGuid, BlobStore, BlobStoreCaps, BlobStoreError, Caps, Durability,
    ErrorKind, Fault, PAGE_SIZE,
};

use crate::blob_store::{Open, suite_with};
use crate::check::Verdict;
use crate::fixture::{BoxError, Env, FaultKind, Faults, Fixture};
use crate::run::Options;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A frame is replaced in two steps.
    Torn,
    /// A read finds the place of a frame, and reads it later.
    ReusedPlace,
    /// Some reads find what was there before the last write.
    StaleRead,
    /// A list is made in two steps, by position.
    ListByPosition,
    /// A flush clears the hint a little after it has returned.
    LateClear,
    /// Every error is said to be without effect.
    FalseNotApplied,
    BatchBackwards,
    /// A failed write stops the store for good.
    Poisoned,
    /// A failed flush may be tried again.
    FlushAgain,
    /// A read that failed found nothing.
    FailureAsNotFound,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Medium {
    armed: Mutex<Option<(u64, FaultKind)>>,
    met: AtomicBool,
}

impl Medium {
    /// One call to the medium.
    fn call<T>(&self, effect: impl FnOnce() -> T) -> Result<T, FaultKind> {
        let mut armed = locked(&self.armed);
        if let Some((nth, kind)) = armed.as_mut() {
            *nth -= 1;
            if *nth == 0 {
                let kind = *kind;
                *armed = None;
                self.met.store(true, Ordering::SeqCst);
                if kind == FaultKind::ErrorAfter {
                    effect();
                }
                return Err(kind);
            }
        }
        drop(armed);
        Ok(effect())
    }
}

impl Faults for Medium {
    fn arm(&self, nth: u64, kind: FaultKind) {
        self.met.store(false, Ordering::SeqCst);
        *locked(&self.armed) = Some((nth, kind));
    }

    fn disarm(&self) -> bool {
        *locked(&self.armed) = None;
        self.met.load(Ordering::SeqCst)
    }
}

type Half = Arc<Vec<u8>>;

#[derive(Default)]
struct Inner {
    names: BTreeMap<BlobGuid, usize>,
    places: Vec<(Half, Half)>,
    free: Vec<usize>,
    before: HashMap<BlobGuid, (Half, Half)>,
}

impl Inner {
    fn place(&mut self, guid: BlobGuid) -> usize {
        if let Some(at) = self.names.get(&guid) {
            return *at;
        }
        let at = self.free.pop().unwrap_or(self.places.len());
        if at == self.places.len() {
            self.places.push((Arc::default(), Arc::default()));
        }
        self.names.insert(guid, at);
        at
    }
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    dirty: AtomicBool,
}

struct Place {
    flaw: Flaw,
    medium: Arc<Medium>,
    places: Mutex<HashMap<String, Arc<Shared>>>,
}

impl Fixture for Place {
    async fn new(_env: &Env) -> Result<Self, BoxError> {
        Err("made with a flaw only".into())
    }

    fn caps(&self) -> Caps {
        Caps::LEAST
            .with_durability(Durability::Power)
            .with_blob_store(BlobStoreCaps::LEAST.with_exclusive(true))
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::<Medium>::clone(&self.medium) as Arc<dyn Faults>)
    }
}

impl Open for Place {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        let shared = Arc::clone(locked(&self.places).entry(place.to_owned()).or_default());
        Ok(Store {
            flaw: self.flaw,
            medium: Arc::clone(&self.medium),
            shared,
            is_stopped: AtomicBool::new(false),
            reads: AtomicU64::new(0),
        })
    }
}

struct Store {
    flaw: Flaw,
    medium: Arc<Medium>,
    shared: Arc<Shared>,
    is_stopped: AtomicBool,
    reads: AtomicU64,
}

impl Store {
    fn goes(&self) -> Result<(), BlobStoreError> {
        if self.is_stopped.load(Ordering::SeqCst) {
            let fault = Fault::not_applied(ErrorKind::Unavailable, "open the store again");
            return Err(fault.into());
        }
        Ok(())
    }

    fn failed(&self) -> BlobStoreError {
        if self.flaw == Flaw::Poisoned {
            self.is_stopped.store(true, Ordering::SeqCst);
        }
        match self.flaw {
            Flaw::FalseNotApplied => Fault::not_applied(ErrorKind::Unavailable, "failed").into(),
            _ => Fault::unknown(ErrorKind::Unavailable, "failed").into(),
        }
    }

    fn change(&self, effect: impl FnOnce(&Shared)) -> Result<(), BlobStoreError> {
        self.goes()?;
        let effect = || {
            effect(&self.shared);
            self.shared.dirty.store(true, Ordering::SeqCst);
        };
        self.medium.call(effect).map_err(|_kind| self.failed())
    }

    fn set(&self, guid: BlobGuid, src: &AlignedBlobBuf) {
        let (first, second) = src.split_at(PAGE_SIZE / 2);
        let (first, second) = (Arc::new(first.to_vec()), Arc::new(second.to_vec()));
        let mut inner = locked(&self.shared.inner);
        let at = inner.place(guid);
        let old = inner.places[at].clone();
        inner.before.insert(guid, old);
        inner.places[at].0 = first;
        if self.flaw == Flaw::Torn {
            drop(inner);
            thread::yield_now();
            inner = locked(&self.shared.inner);
        }
        inner.places[at].1 = second;
    }
}

impl BlobStore for Store {
    fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<(), BlobStoreError> {
        let called = self.medium.call(|| ());
        if called.is_err() {
            return Err(match self.flaw {
                Flaw::FailureAsNotFound => BlobStoreError::not_found(guid),
                _ => Fault::not_applied(ErrorKind::Unavailable, "failed").into(),
            });
        }
        let mut inner = locked(&self.shared.inner);
        let at = *inner
            .names
            .get(&guid)
            .ok_or_else(|| BlobStoreError::not_found(guid))?;
        if self.flaw == Flaw::ReusedPlace {
            drop(inner);
            thread::sleep(Duration::from_micros(50));
            inner = locked(&self.shared.inner);
        }
        let is_third = self.reads.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        let (mut first, mut second) = inner.places[at].clone();
        if self.flaw == Flaw::StaleRead && is_third {
            let before = inner.before.get(&guid);
            if let Some(before) = before.filter(|before| !before.0.is_empty()) {
                (first, second) = before.clone();
            }
        }
        drop(inner);
        dst[..PAGE_SIZE / 2].copy_from_slice(&first);
        dst[PAGE_SIZE / 2..].copy_from_slice(&second);
        Ok(())
    }

    fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<(), BlobStoreError> {
        self.change(|_| self.set(guid, src))
    }

    fn delete_blob(&self, guid: BlobGuid) -> Result<(), BlobStoreError> {
        self.change(|shared| {
            let mut inner = locked(&shared.inner);
            if let Some(at) = inner.names.remove(&guid) {
                inner.free.push(at);
            }
            inner.before.remove(&guid);
        })
    }

    fn list_blobs(&self) -> Result<Vec<BlobGuid>, BlobStoreError> {
        let called = self.medium.call(|| ());
        called.map_err(|_kind| Fault::not_applied(ErrorKind::Unavailable, "failed"))?;
        let inner = locked(&self.shared.inner);
        if self.flaw != Flaw::ListByPosition {
            return Ok(inner.names.keys().copied().collect());
        }
        let half = inner.names.len() / 2;
        let mut list: Vec<_> = inner.names.keys().copied().take(half).collect();
        drop(inner);
        thread::sleep(Duration::from_micros(50));
        let inner = locked(&self.shared.inner);
        list.extend(inner.names.keys().copied().skip(half));
        Ok(list)
    }

    fn flush(&self) -> Result<(), BlobStoreError> {
        self.goes()?;
        // The data goes out first, and a sync makes it durable.
        let out = self.medium.call(|| ());
        out.map_err(|_kind| Fault::not_applied(ErrorKind::NoSpace, "failed"))?;
        let shared = Arc::clone(&self.shared);
        let late = self.flaw == Flaw::LateClear;
        // Of various lengths, so that on any machine some end beside the writes that follow.
        let turn = self.reads.fetch_add(1, Ordering::Relaxed) % 12;
        let pause = Duration::from_micros(200) * u32::try_from(turn + 1).expect("up to twelve");
        let sync = || {
            let clear = move || shared.dirty.store(false, Ordering::SeqCst);
            if late {
                thread::spawn(move || {
                    thread::sleep(pause);
                    clear();
                });
            } else {
                clear();
            }
        };
        self.medium.call(sync).map_err(|_kind| {
            if self.flaw != Flaw::FlushAgain {
                self.is_stopped.store(true, Ordering::SeqCst);
            }
            Fault::unknown(ErrorKind::Unavailable, "the sync failed").into()
        })
    }

    fn write_blobs(&self, writes: &[(BlobGuid, &AlignedBlobBuf)]) -> Result<(), BlobStoreError> {
        let mut writes = writes.to_vec();
        if self.flaw == Flaw::BatchBackwards {
            writes.reverse();
        }
        for (guid, src) in writes {
            self.write_blob(guid, src)?;
        }
        Ok(())
    }

    fn needs_flush(&self) -> bool {
        self.shared.dirty.load(Ordering::SeqCst)
    }

    fn has_blob(&self, guid: BlobGuid) -> Result<bool, BlobStoreError> {
        Ok(locked(&self.shared.inner).names.contains_key(&guid))
    }
}

/// How one check ended on a store with this flaw.
fn verdict(flaw: Flaw, check: &str) -> Verdict {
    let suite = suite_with(move |_env| async move {
        Ok(Place {
            flaw,
            medium: Arc::default(),
            places: Mutex::default(),
        })
    });
    let mut options = Options::new();
    options.seed = 13;
    options.only = Some(check.to_owned());
    let mut trials = suite.trials().iter();
    let trial = trials.find(|trial| options.selects(trial));
    let trial = trial.expect("a check of this id");
    let seeds = if flaw == Flaw::None { 1 } else { 10 };
    trial.run_until_failed(&options, seeds).verdict
}

#[test]
fn a_store_that_keeps_its_clauses_passes() {
    let checks = [
        "C-1.1", "C-1.2", "BS-2.1", "BS-2.2", "BS-2.3", "BS-2.5", "BS-6.2", "BS-7.2", "BS-9.3",
        "BS-12.1", "BS-15.2", "BS-15.3",
    ];
    for check in checks {
        let verdict = verdict(Flaw::None, check);
        assert!(matches!(verdict, Verdict::Pass), "{check}: {verdict:?}");
    }
}

#[test]
fn each_flaw_is_found_by_the_check_that_is_there_for_it() {
    let flaws = [
        (Flaw::Torn, "BS-2.1"),
        (Flaw::StaleRead, "BS-2.1"),
        (Flaw::StaleRead, "BS-2.2"),
        (Flaw::ReusedPlace, "BS-2.3"),
        (Flaw::ListByPosition, "BS-6.2"),
        (Flaw::LateClear, "BS-9.3"),
        (Flaw::FalseNotApplied, "C-1.2"),
        (Flaw::BatchBackwards, "BS-7.2"),
        (Flaw::Poisoned, "BS-15.2"),
        (Flaw::FlushAgain, "BS-12.1"),
        (Flaw::FailureAsNotFound, "BS-15.3"),
        (Flaw::FailureAsNotFound, "C-1.1"),
    ];
    for (flaw, check) in flaws {
        let verdict = verdict(flaw, check);
        assert!(
            matches!(verdict, Verdict::Fail(_)),
            "{flaw:?} at {check}: {verdict:?}"
        );
    }
}
