//! The bodies of the checks on a medium that fails: C-1 and KV-8.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_traits::{Classify, ErrorKind, KvClientError, Outcome as Effect};

use super::bytes;
use super::dropped::Method;
use crate::check::{Outcome, Stop, describe};
use crate::checks::{of_the_medium, pattern};
use crate::cx::Cx;
use crate::engine::canary::{self, Canary};
use crate::engine::fault::{self, each_met, enough};
use crate::fixture::{FaultKind, Faults};
use crate::kv_client::{Handle, World, show_value};

/// How long what claims to have had no effect is watched.
const WATCHED: Duration = Duration::from_secs(1);

/// Keys that are there all the time, for which `get_multi` asks along with the one in question. A store that asks several
/// shards finds some of them in others.
const BYSTANDERS: [&str; 5] = ["0", "1", "2", "3", "a bystander"];

/// Keys whose call said that it had no effect, and what they held before it.
type Unchanged = Vec<(String, Option<Vec<u8>>)>;

/// What the checks of this file share: a failing medium, the handle that meets it, and one that looks.
struct Bench<'a> {
    cx: &'a Cx<dyn World>,
    faults: Arc<dyn Faults>,
    a: Handle,
    b: Handle,
    unchanged: Mutex<Unchanged>,
    met: AtomicU64,
}

impl<'a> Bench<'a> {
    async fn new(cx: &'a Cx<dyn World>) -> Result<Self, Stop> {
        let faults = cx.faults()?;
        let (a, b) = cx.open_two("p").await?;
        for key in BYSTANDERS {
            a.put(key, format!("value of {key}")).await?;
        }
        Ok(Self {
            cx,
            faults,
            a,
            b,
            unchanged: Mutex::default(),
            met: AtomicU64::new(0),
        })
    }

    /// Every call to the medium that this method makes goes wrong once.
    async fn each(&self, method: Method, kind: FaultKind, is_there: bool) -> Outcome {
        let attempt = |nth| self.attempt(method, kind, is_there, nth, None);
        let met = each_met(&*self.faults, kind, attempt).await?;
        self.met.fetch_add(met, Ordering::Relaxed);
        Ok(())
    }

    /// One call whose `nth` call to the medium goes wrong; whether it did.
    async fn attempt(
        &self,
        method: Method,
        kind: FaultKind,
        is_there: bool,
        nth: u64,
        bound: Option<Duration>,
    ) -> Result<bool, Stop> {
        let key = format!("{method:?} {kind:?} {is_there} {nth}");
        let old = is_there.then(|| pattern(&format!("old {key}"), 900));
        let new = pattern(&format!("new {key}"), 400);
        // What comes before the call in question is not to fail.
        self.faults.disarm();
        if let Some(old) = &old {
            self.a.put(&key, old).await?;
        }
        self.cx.log().push(format!("{kind:?} at call {nth}"));
        self.faults.arm(nth, kind);
        let called = self.called(method, &key, &new);
        let answer = match bound {
            None => Some(called.await),
            Some(bound) => canary::within(bound, called).await,
        };
        let met = self.faults.disarm();
        let what = format!("{method:?} with {kind:?} at its call {nth} to the medium");
        let Some(answer) = answer else {
            return Err(Stop::fail(
                what,
                format!("no answer in {:?}", bound.unwrap_or_default()),
                "Timeout within the configured bound",
            ));
        };
        if let (Err(e), Some(_)) = (&answer, bound) {
            let is_timeout =
                matches!(e, KvClientError::Timeout(_)) && e.kind() == ErrorKind::Timeout;
            self.cx.require(is_timeout, &what, describe(e), "Timeout")?;
        }
        self.judge(&what, method, &key, old, &new, answer).await?;
        Ok(met)
    }

    /// The answer of a read, where the method is one.
    async fn called(
        &self,
        method: Method,
        key: &str,
        new: &[u8],
    ) -> Result<Option<Option<Bytes>>, KvClientError> {
        let name = key.as_bytes();
        match method {
            Method::Put => self.a.try_put(name, new).await.map(|()| None),
            Method::PutWithTtl => {
                let put = self.a.try_put_with_ttl(name, new, 86_400);
                put.await.map(|()| None)
            }
            Method::Delete => self.a.try_delete(name).await.map(|()| None),
            Method::Get => self.a.try_get(name).await.map(Some),
            Method::GetMulti => {
                // The key in question stands in their midst.
                let mut keys: Vec<Bytes> = BYSTANDERS.iter().map(bytes).collect();
                let at = BYSTANDERS.len() / 2;
                keys.insert(at, bytes(name));
                let mut many = self.a.try_get_multi(&keys).await?;
                // No answer at all is not the right one either, nor is a wrong one for another key.
                let lost = || Some(Bytes::from_static(b"no answer for the key"));
                if many.len() != keys.len() {
                    return Ok(Some(lost()));
                }
                let answer = many.remove(at);
                let others = BYSTANDERS.map(|key| Some(bytes(format!("value of {key}"))));
                let wrong = many.into_iter().zip(others).find(|(seen, is)| seen != is);
                Ok(Some(match wrong {
                    None => answer,
                    Some((None, _)) => Some(Bytes::from_static(b"None for another key")),
                    Some((seen, _)) => seen,
                }))
            }
        }
    }

    async fn judge(
        &self,
        what: &str,
        method: Method,
        key: &str,
        old: Option<Vec<u8>>,
        new: &[u8],
        answer: Result<Option<Option<Bytes>>, KvClientError>,
    ) -> Outcome {
        let cx = self.cx;
        let e = match answer {
            Ok(Some(seen)) => {
                let old = old.as_ref().map(bytes);
                let expected = format!("an error, or {}", show_value(old.as_ref()));
                return cx.require(seen == old, what, show_value(seen.as_ref()), expected);
            }
            Ok(None) => {
                let after = method.after(old.as_deref(), new);
                let what = format!("{what}, which was Ok");
                for handle in [&self.b, &self.a] {
                    handle.expect(&what, key, after.as_deref()).await?;
                }
                return Ok(());
            }
            Err(e) => e,
        };
        of_the_medium(what, &e)?;
        if method.is_read() {
            let expected = "an error of a read is NotApplied";
            cx.require(
                e.outcome() == Effect::NotApplied,
                what,
                describe(&e),
                expected,
            )?;
        }
        let after = method.after(old.as_deref(), new);
        // The handle that failed may not go its own way.
        for handle in [&self.b, &self.a] {
            let shown = handle.get(key).await?.map(Vec::from);
            if e.outcome() == Effect::Unknown {
                cx.require(
                    shown == old || shown == after,
                    format!("{what}, which was Unknown: the value"),
                    show_value(shown.as_ref().map(bytes).as_ref()),
                    "the old one or the new one, whole",
                )?;
            } else {
                let what = format!("{what}, which was NotApplied: the value");
                cx.eq(what, &shown, &old)?;
            }
        }
        if e.outcome() == Effect::Unknown {
            return Ok(());
        }
        let mut unchanged = self
            .unchanged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        unchanged.push((key.to_owned(), old));
        Ok(())
    }

    /// Watches for a while that nothing arrives of what was NotApplied, and that something was met at all.
    async fn watch(&self) -> Outcome {
        let unchanged = {
            let mut unchanged = self
                .unchanged
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *unchanged)
        };
        let keys: Vec<Bytes> = unchanged.iter().map(|(key, _)| bytes(key)).collect();
        let (mut looks, started) = (0, Instant::now());
        while !keys.is_empty() && started.elapsed() < WATCHED {
            looks += 1;
            let handle = if looks % 2 == 0 { &self.a } else { &self.b };
            let many = handle.get_multi(&keys).await?;
            for ((key, old), seen) in unchanged.iter().zip(many) {
                let what = format!("{key:?}, whose call was NotApplied, within {WATCHED:?}");
                self.cx.eq(what, &seen.map(Vec::from), old)?;
            }
            tokio::time::sleep(WATCHED / 10).await;
        }
        // Nothing is left behind that would stop the next call.
        self.a.put("after", "all of them").await?;
        self.b
            .expect("after all faults", "after", Some(b"all of them"))
            .await?;
        enough(self.met.load(Ordering::Relaxed))
    }
}

const WRITES: [Method; 3] = [Method::Put, Method::PutWithTtl, Method::Delete];

pub(super) async fn c_1_1(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    for method in Method::ALL {
        for is_there in [true, false] {
            bench.each(method, FaultKind::ErrorBefore, is_there).await?;
        }
        bench.each(method, FaultKind::ErrorAfter, true).await?;
    }
    bench.watch().await
}

pub(super) async fn c_1_2(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    for method in WRITES {
        for is_there in [true, false] {
            // The same error at the same call, once in front of its effect and once behind it.
            for kind in [FaultKind::ErrorBefore, FaultKind::ErrorAfter] {
                bench.each(method, kind, is_there).await?;
            }
        }
    }
    bench.watch().await
}

pub(super) async fn kv_8_3(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    for method in WRITES {
        for is_there in [true, false] {
            bench.each(method, FaultKind::ErrorAfter, is_there).await?;
        }
    }
    bench.watch().await
}

pub(super) async fn kv_8_2(cx: &Cx<dyn World>) -> Outcome {
    /// By how much a call may be later than its bound.
    const SLACK: Duration = Duration::from_millis(250);
    /// More silence than this a check does not wait through.
    const TIME_MAX: Duration = Duration::from_secs(30);
    let bench = Bench::new(cx).await?;
    let Some(bound) = cx.world().call_bound() else {
        return Err(Stop::Ignored("needs the power call_bound()".into()));
    };
    let (bench, canary) = (&bench, &Canary::start());
    let started = Instant::now();
    for method in Method::ALL {
        let attempt = |nth| async move {
            if nth > 1 && started.elapsed() > TIME_MAX {
                return Ok(false);
            }
            let kind = FaultKind::Hang;
            let attempted = bench.attempt(method, kind, true, nth, Some(bound + SLACK));
            match attempted.await {
                Err(Stop::Fail(failure)) => Err(match canary.excuses(SLACK, Duration::MAX) {
                    Some(why) => Stop::Inconclusive(format!("{why}: {}", failure.what)),
                    None => Stop::Fail(failure),
                }),
                other => other,
            }
        };
        let met = each_met(&*bench.faults, FaultKind::Hang, attempt).await?;
        bench.met.fetch_add(met, Ordering::Relaxed);
    }
    bench.watch().await
}

pub(super) async fn kv_7_4(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    let Bench { faults, a, b, .. } = &bench;
    let patience = fault::patience(async || a.put("healthy", "1").await).await?;
    // Over what is written comes another value, or it is deleted; and another value over what is deleted.
    let cases = [
        (Method::Put, true),
        (Method::PutWithTtl, true),
        (Method::Delete, true),
        (Method::Put, false),
        (Method::PutWithTtl, false),
    ];
    let mut met = 0;
    for (case, (method, by_put)) in cases.into_iter().enumerate() {
        met += each_met(&**faults, FaultKind::ErrorAfter, async |nth| {
            let key = format!("k{case}n{nth}");
            // What comes before the call in question is not to fail.
            faults.disarm();
            a.put(&key, "old").await?;
            let call = bench.called(method, &key, b"new");
            let is_seen = async || match b.try_get(key.as_bytes()).await {
                Ok(Some(value)) => value == "new" && method != Method::Delete,
                Ok(None) => method == Method::Delete,
                Err(_) => false,
            };
            let over = async || {
                let ended = match by_put {
                    true => b.try_put(key.as_bytes(), b"later").await,
                    false => b.try_delete(key.as_bytes()).await,
                };
                ended.is_ok()
            };
            let later = by_put.then_some(&b"later"[..]);
            let stays = async || {
                let what = format!("over {method:?} whose answer {nth} was lost");
                b.expect(&what, &key, later).await?;
                a.expect(&what, &key, later).await
            };
            fault::seen_once(&**faults, nth, patience, call, is_seen, over, stays).await
        })
        .await?;
    }
    enough(met)
}
