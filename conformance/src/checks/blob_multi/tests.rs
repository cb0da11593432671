//! The checks pass on a plain store behind the model, and each of a handful of broken ones fails the check that is
//! there for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::blob_multi::{KEY_LEN_BYTES_MAX, slice_of};
use larder_traits::{
    Atomicity, BlobInfo, BlobMulti, BlobMultiCaps, Caps, ErrorKind, ExternalError, Fault,
    LateLanding,
};

use crate::blob_multi::{Open, suite_with};
use crate::check::Verdict;
use crate::fixture::{BoxError, Env, Fixture};
use crate::model::blob_multi::{Blobs, KeyDomain, accepts_value};
use crate::run::Options;

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    /// Refuses every key beyond the base alphabet, which it may.
    BaseKeysOnly,
    /// Answers odd names with absence and takes them for nothing to delete, which it may.
    OddKeysAbsent,
    EmptyIsAbsent,
    CStrings,
    CutAtAMebibyte,
    RangeOffByOne,
    RangePastTheEndPanics,
    ListPages,
    ListTwice,
    ListSlips,
    ListInHalves,
    ListDelimits,
    SizeOfFirstValue,
    NoTruncate,
    SharedTemporary,
    DeleteThenPut,
    InPlace,
    /// Every seventh call is refused as `Unavailable`, which it may.
    AtTimesUnavailable,
    OneContent,
    TemporaryShown,
    TemporaryBySuffix,
    DeleteTakesPrefix,
    DeleteAbsentIsNotFound,
    DeletesTenAtOnce,
    NegativeCache,
    ValueCache,
    ListCache,
    LostUpdate,
    EffectBeforeDeadline,
    PastDeadlineLands,
    PastDeadlineOfReads,
    MillisOverflow,
    JoinedPlaces,
    OpenTruncates,
    CloseTruncates,
    NormalisesSlashes,
    NormalisesDots,
    FoldsCase,
    TrimsKeys,
    DecodesPercent,
    EscapesPlace,
    EmptyKeyIsAKey,
    LateLengthCheck,
    CutsLongKeys,
    OddKeyIsInternal,
}

type Map = Arc<Mutex<Blobs>>;

/// All places of one world, and what a broken store keeps for all its handles.
#[derive(Debug, Default)]
struct Shared {
    places: Mutex<HashMap<String, Map>>,
    temporary: Mutex<HashMap<String, Bytes>>,
    calls: AtomicUsize,
}

impl Shared {
    fn map(&self, place: &str) -> Map {
        let mut places = self.places.lock().unwrap();
        Arc::clone(places.entry(place.to_owned()).or_default())
    }
}

#[derive(Debug)]
struct World {
    shared: Arc<Shared>,
    flaw: Flaw,
}

const CAPS: Caps = Caps::LEAST
    .with_late_landing(LateLanding::Fenced)
    .with_blob_multi(
        BlobMultiCaps::LEAST
            .with_key_len_bytes_max(KEY_LEN_BYTES_MAX)
            .with_value_len_bytes_max(2 << 20)
            .with_list_snapshot(true),
    );

impl Fixture for World {
    async fn new(_env: &Env) -> Result<Self, BoxError> {
        unreachable!("worlds of this test are made with their flaw")
    }

    fn caps(&self) -> Caps {
        CAPS
    }
}

impl Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        let map = self.shared.map(place);
        if self.flaw == Flaw::OpenTruncates {
            *map.lock().unwrap() = Blobs::default();
        }
        Ok(Store {
            place: place.to_owned(),
            map,
            shared: Arc::clone(&self.shared),
            cache: Mutex::default(),
            listed: Mutex::default(),
            permits: tokio::sync::Semaphore::new(2),
            flaw: self.flaw,
        })
    }
}

#[derive(Debug)]
struct Store {
    place: String,
    map: Map,
    shared: Arc<Shared>,
    cache: Mutex<BTreeMap<String, Option<Bytes>>>,
    listed: Mutex<Option<Vec<String>>>,
    permits: tokio::sync::Semaphore,
    flaw: Flaw,
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.flaw == Flaw::CloseTruncates {
            *self.map.lock().unwrap() = Blobs::default();
        }
    }
}

fn refusal(kind: ErrorKind, text: &'static str) -> ExternalError {
    Fault::not_applied(kind, text).into()
}

impl Store {
    fn map(&self) -> MutexGuard<'_, Blobs> {
        self.map.lock().unwrap()
    }

    fn in_time(&self, deadline: Instant) -> Result<(), ExternalError> {
        let now = Instant::now();
        if self.flaw == Flaw::AtTimesUnavailable && deadline > now {
            let calls = self.shared.calls.fetch_add(1, Ordering::Relaxed);
            if calls % 7 == 3 {
                return Err(refusal(ErrorKind::Unavailable, "not at the moment"));
            }
        }
        if self.flaw == Flaw::MillisOverflow {
            let left = deadline.saturating_duration_since(now).as_millis();
            i32::try_from(left).expect("nobody waits that long");
        }
        if deadline <= now {
            return Err(refusal(ErrorKind::Timeout, "the deadline has passed"));
        }
        Ok(())
    }

    /// The map and the key in it that `key` stands for.
    fn named(&self, key: &str) -> Result<(Map, String), ExternalError> {
        let domain = KeyDomain::of(key, &CAPS.blob_multi);
        let refuse = match domain {
            KeyDomain::Base => false,
            KeyDomain::Optional => self.flaw == Flaw::BaseKeysOnly,
            KeyDomain::Refused if key.is_empty() => self.flaw != Flaw::EmptyKeyIsAKey,
            KeyDomain::Refused => self.flaw != Flaw::CutsLongKeys,
        };
        if refuse {
            return Err(refusal(ErrorKind::InvalidInput, "not a key"));
        }
        if self.flaw == Flaw::OddKeyIsInternal && key.contains('\0') {
            return Err(refusal(ErrorKind::Internal, "an embedded NUL"));
        }
        let mut place = self.place.clone();
        let mut key = match self.flaw {
            Flaw::NormalisesSlashes => key.replace("//", "/"),
            Flaw::NormalisesDots => key.replace("/./", "/"),
            Flaw::FoldsCase => key.to_lowercase(),
            Flaw::TrimsKeys => key.trim().to_owned(),
            Flaw::DecodesPercent => key.replace("%20", " "),
            Flaw::CutsLongKeys => key.chars().take(KEY_LEN_BYTES_MAX).collect(),
            _ => key.to_owned(),
        };
        if self.flaw == Flaw::JoinedPlaces {
            key = format!("{place}/{key}");
            place = "joined".into();
        } else if self.flaw == Flaw::EscapesPlace && key.starts_with("../") {
            let below = place.rsplit_once('/').map(|(parent, _)| parent.to_owned());
            if let Some((parent, rest)) = below.zip(key.strip_prefix("../")) {
                (place, key) = (parent, rest.to_owned());
            }
        }
        Ok((self.shared.map(&place), key))
    }

    /// Overwrites the start of a temporary, and leaves what another writer has put behind it.
    fn overwrite(&self, temporary: &str, part: &Bytes) {
        let mut files = self.shared.temporary.lock().unwrap();
        let file = files.entry(temporary.to_owned()).or_default();
        let rest = file.slice(part.len().min(file.len())..);
        *file = [part.clone(), rest].concat().into();
    }

    async fn write(&self, key: &str, value: Bytes) -> Result<(), ExternalError> {
        let (map, key) = self.named(key)?;
        let mut value = value;
        match self.flaw {
            Flaw::CStrings => {
                let end = value.iter().position(|&byte| byte == 0);
                value.truncate(end.unwrap_or(value.len()));
            }
            Flaw::CutAtAMebibyte => value.truncate(1 << 20),
            Flaw::NoTruncate => {
                let old = map.lock().unwrap().get(&key).cloned().unwrap_or_default();
                let kept = slice_of(&old, u64::try_from(value.len()).unwrap()..u64::MAX);
                value = [value, kept].concat().into();
            }
            Flaw::SharedTemporary | Flaw::TemporaryBySuffix => {
                let stem = key.split('.').next().unwrap_or_default();
                let by_suffix = self.flaw == Flaw::TemporaryBySuffix;
                let name = format!("{}.tmp", if by_suffix { stem } else { &key });
                // Each half of the value is written by itself into a file that another writer has open too.
                for half in [..value.len() / 2, ..value.len()] {
                    let part = value.slice(half);
                    self.overwrite(&name, &part);
                    tokio::task::yield_now().await;
                }
                let file = self.shared.temporary.lock().unwrap().remove(&name);
                value = file.unwrap_or_default();
            }
            Flaw::DeleteThenPut | Flaw::InPlace => {
                map.lock().unwrap().delete(&key);
                if self.flaw == Flaw::InPlace {
                    let half = value.slice(..value.len() / 2);
                    map.lock().unwrap().set(&key, half);
                }
                tokio::task::yield_now().await;
            }
            Flaw::LostUpdate => {
                let mut copy = map.lock().unwrap().clone();
                tokio::task::yield_now().await;
                copy.set(&key, value);
                *map.lock().unwrap() = copy;
                return Ok(());
            }
            _ => {}
        }
        map.lock().unwrap().set(&key, value);
        if self.flaw == Flaw::TemporaryShown && key.ends_with("/x") {
            map.lock().unwrap().set(&format!("{key}.tmp"), Bytes::new());
        }
        Ok(())
    }

    fn read(&self, key: &str) -> Result<Option<Bytes>, ExternalError> {
        let (map, key) = match self.named(key) {
            Err(_) if self.flaw == Flaw::OddKeysAbsent && key.len() == 1 => return Ok(None),
            named => named?,
        };
        if matches!(self.flaw, Flaw::NegativeCache | Flaw::ValueCache) {
            let mut cache = self.cache.lock().unwrap();
            let cached = cache.get(&key).cloned();
            let value = cached.unwrap_or_else(|| map.lock().unwrap().get(&key).cloned());
            if value.is_none() == (self.flaw == Flaw::NegativeCache) {
                cache.insert(key, value.clone());
            }
            return Ok(value);
        }
        let value = map.lock().unwrap().get(&key).cloned();
        Ok(value.filter(|value| !(self.flaw == Flaw::EmptyIsAbsent && value.is_empty())))
    }
}

#[async_trait]
impl BlobMulti for Store {
    async fn get(&self, deadline: Instant, key: &str) -> Result<Option<Vec<u8>>, ExternalError> {
        if self.flaw != Flaw::PastDeadlineOfReads {
            self.in_time(deadline)?;
        }
        Ok(self.read(key)?.map(Vec::from))
    }

    async fn list_keys(&self, deadline: Instant) -> Result<Vec<String>, ExternalError> {
        self.in_time(deadline)?;
        let mut keys: Vec<String> = self.map().keys().map(str::to_owned).collect();
        match self.flaw {
            Flaw::ListPages => keys.truncate(1_000),
            Flaw::ListSlips => {
                // Pages by position, which moves when keys before it come and go.
                let mut paged: Vec<String> = Vec::new();
                loop {
                    let page: Vec<String> = {
                        let map = self.map();
                        let rest = map.keys().skip(paged.len());
                        rest.take(100).map(str::to_owned).collect()
                    };
                    if page.is_empty() {
                        break;
                    }
                    paged.extend(page);
                    tokio::task::yield_now().await;
                }
                keys = paged;
            }
            Flaw::ListInHalves => {
                keys.retain(|key| key.as_str() < "b");
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                let map = self.map();
                let rest = map.keys().filter(|key| *key >= "b");
                keys.extend(rest.map(str::to_owned));
            }
            Flaw::ListTwice if keys.len() > 1_000 => keys.push(keys[999].clone()),
            Flaw::ListDelimits => keys.retain(|key| !key.contains("//")),
            Flaw::JoinedPlaces => {
                let map = self.shared.map("joined");
                let prefix = format!("{}/", self.place);
                let all = map.lock().unwrap().list_prefix(&prefix);
                keys = all
                    .into_iter()
                    .map(|found| found.key[prefix.len()..].into())
                    .collect();
            }
            Flaw::ListCache => {
                keys = self.listed.lock().unwrap().get_or_insert(keys).clone();
            }
            _ => {}
        }
        Ok(keys)
    }

    async fn set(
        &self,
        deadline: Instant,
        key: &str,
        value: Bytes,
        _atomic: Atomicity,
    ) -> Result<(), ExternalError> {
        if self.flaw == Flaw::EffectBeforeDeadline {
            self.write(key, value.clone()).await?;
        }
        if self.flaw == Flaw::PastDeadlineLands && self.in_time(deadline).is_err() {
            let (map, key) = self.named(key)?;
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                map.lock().unwrap().set(&key, value);
            });
            return Err(refusal(ErrorKind::Timeout, "the deadline has passed"));
        }
        self.in_time(deadline)?;
        if !accepts_value(value.len(), &CAPS.blob_multi) {
            if self.flaw == Flaw::LateLengthCheck {
                let cut = value.slice(..9);
                self.write(key, cut).await?;
            }
            return Err(refusal(ErrorKind::InvalidInput, "too long a value"));
        }
        self.write(key, value).await
    }

    async fn delete(&self, deadline: Instant, key: &str) -> Result<(), ExternalError> {
        self.in_time(deadline)?;
        let (map, key) = match self.named(key) {
            Err(_) if self.flaw == Flaw::OddKeysAbsent && key.len() == 1 => return Ok(()),
            named => named?,
        };
        if self.flaw == Flaw::DeletesTenAtOnce {
            let permit = self.permits.try_acquire();
            tokio::task::yield_now().await;
            if permit.is_err() {
                return Ok(());
            }
        }
        let gone = map.lock().unwrap().get(&key).cloned();
        let was_there = map.lock().unwrap().delete(&key);
        if self.flaw == Flaw::OneContent {
            let keys: Vec<String> = map.lock().unwrap().keys().map(str::to_owned).collect();
            for key in keys {
                let same = map.lock().unwrap().get(&key) == gone.as_ref();
                if same {
                    map.lock().unwrap().delete(&key);
                }
            }
        }
        if self.flaw == Flaw::DeleteTakesPrefix && was_there {
            let below = map.lock().unwrap().list_prefix(&format!("{key}/"));
            below.iter().for_each(|found| {
                map.lock().unwrap().delete(&found.key);
            });
        }
        if self.flaw == Flaw::DeleteAbsentIsNotFound && !was_there {
            return Err(refusal(ErrorKind::NotFound, "no such key"));
        }
        Ok(())
    }

    async fn get_range(
        &self,
        deadline: Instant,
        key: &str,
        range: std::ops::Range<u64>,
    ) -> Result<Option<Bytes>, ExternalError> {
        self.in_time(deadline)?;
        let value = self.read(key)?;
        Ok(value.map(|value| match self.flaw {
            Flaw::RangeOffByOne => slice_of(&value, range.start..range.end.saturating_add(1)),
            Flaw::RangePastTheEndPanics => value
                .slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()),
            _ => slice_of(&value, range),
        }))
    }

    async fn list_prefix(
        &self,
        deadline: Instant,
        prefix: &str,
    ) -> Result<Vec<BlobInfo>, ExternalError> {
        self.in_time(deadline)?;
        let mut found = Vec::new();
        for key in self.list_keys(deadline).await? {
            let Some(value) = self.read(&key)?.filter(|_| key.starts_with(prefix)) else {
                continue;
            };
            let mut len = u64::try_from(value.len()).unwrap();
            if self.flaw == Flaw::SizeOfFirstValue {
                let mut cache = self.cache.lock().unwrap();
                let first = cache
                    .entry(key.clone())
                    .or_insert_with(|| Some(value.clone()));
                len = u64::try_from(first.as_ref().map_or(0, Bytes::len)).unwrap();
            }
            found.push(BlobInfo::new(key, len));
        }
        Ok(found)
    }
}

fn verdicts(flaw: Flaw, only: Option<&str>) -> Vec<(&'static str, Verdict)> {
    let suite = suite_with(move |_env| async move {
        let shared = Arc::default();
        Ok(World { shared, flaw })
    });
    let mut options = Options::new();
    options.only = only.map(str::to_owned);
    suite
        .trials()
        .iter()
        .filter(|trial| options.selects(trial))
        .map(|trial| {
            // One check is asked for to see it fail, and some flaws show only where calls meet.
            let seeds = if only.is_some() { 10 } else { 1 };
            let record = trial.run_until_failed(&options, seeds);
            (record.id, record.verdict)
        })
        .collect()
}

#[test]
fn a_faithful_store_passes_and_may_refuse_odd_keys() {
    for flaw in [
        Flaw::Nothing,
        Flaw::BaseKeysOnly,
        Flaw::OddKeysAbsent,
        Flaw::AtTimesUnavailable,
    ] {
        for (id, verdict) in verdicts(flaw, None) {
            match verdict {
                Verdict::Pass => {}
                Verdict::Ignored(why) => {
                    let known = ["untestable", "needs ", "declared", "the loss of "];
                    let known = known.iter().any(|start| why.starts_with(start));
                    assert!(known, "{id}: {why}");
                }
                Verdict::Fail(failure) => panic!("{flaw:?} fails {id}: {failure:?}"),
                Verdict::Inconclusive(why) => panic!("{flaw:?}: {id} could not tell: {why}"),
            }
        }
    }
}

#[test]
fn each_broken_store_fails_the_check_that_is_there_for_it() {
    let broken = [
        (Flaw::EmptyIsAbsent, "BM-1.1"),
        (Flaw::CStrings, "BM-1.2"),
        (Flaw::CutAtAMebibyte, "BM-1.3"),
        (Flaw::RangeOffByOne, "BM-1.4"),
        (Flaw::RangePastTheEndPanics, "C-3.1"),
        (Flaw::NoTruncate, "BM-2.1"),
        (Flaw::ListPages, "BM-2.2"),
        (Flaw::ListTwice, "BM-2.2"),
        (Flaw::ListDelimits, "BM-2.3"),
        (Flaw::TemporaryShown, "BM-8.1"),
        (Flaw::SizeOfFirstValue, "BM-2.6"),
        (Flaw::NoTruncate, "BM-3.1"),
        (Flaw::SharedTemporary, "BM-4.2"),
        (Flaw::DeleteThenPut, "BM-4.2"),
        (Flaw::InPlace, "BM-4.2"),
        (Flaw::TemporaryBySuffix, "BM-4.3"),
        (Flaw::DeleteTakesPrefix, "BM-5.1"),
        (Flaw::DeleteAbsentIsNotFound, "BM-5.1"),
        (Flaw::OneContent, "BM-5.1"),
        (Flaw::DeletesTenAtOnce, "BM-5.2"),
        (Flaw::NegativeCache, "BM-6.2"),
        (Flaw::ValueCache, "BM-6.2"),
        (Flaw::ListCache, "BM-6.2"),
        (Flaw::LostUpdate, "BM-6.3"),
        (Flaw::EffectBeforeDeadline, "BM-7.1"),
        (Flaw::PastDeadlineLands, "BM-7.1"),
        (Flaw::PastDeadlineOfReads, "BM-7.1"),
        (Flaw::MillisOverflow, "BM-7.3"),
        (Flaw::JoinedPlaces, "BM-8.1"),
        (Flaw::OpenTruncates, "C-2.1"),
        (Flaw::ListCache, "C-2.1"),
        (Flaw::CloseTruncates, "C-2.2"),
        (Flaw::NormalisesSlashes, "BM-10.1"),
        (Flaw::NormalisesDots, "BM-10.1"),
        (Flaw::FoldsCase, "BM-10.1"),
        (Flaw::FoldsCase, "BM-10.2"),
        (Flaw::TrimsKeys, "BM-10.2"),
        (Flaw::DecodesPercent, "BM-10.2"),
        (Flaw::EmptyKeyIsAKey, "BM-10.2"),
        (Flaw::CutsLongKeys, "BM-10.2"),
        (Flaw::EscapesPlace, "BM-10.3"),
        (Flaw::LateLengthCheck, "BM-11.1"),
        (Flaw::LateLengthCheck, "C-4.1"),
        (Flaw::CutsLongKeys, "C-4.1"),
        (Flaw::OddKeyIsInternal, "C-3.1"),
        (Flaw::OddKeyIsInternal, "BM-10.2"),
        (Flaw::ListSlips, "BM-2.4"),
        (Flaw::DeleteThenPut, "BM-4.1"),
        (Flaw::InPlace, "BM-4.1"),
        (Flaw::ValueCache, "BM-6.1"),
        (Flaw::NegativeCache, "BM-6.1"),
        (Flaw::LostUpdate, "BM-6.1"),
        (Flaw::DeleteThenPut, "BM-6.4"),
        (Flaw::ListCache, "BM-6.4"),
        (Flaw::ListInHalves, "BM-6.4"),
    ];
    for (flaw, id) in broken {
        let found = verdicts(flaw, Some(id));
        let failed = matches!(found[..], [(_, Verdict::Fail(_))]);
        assert!(failed, "{id} on {flaw:?} ended as {found:?}");
    }
}
