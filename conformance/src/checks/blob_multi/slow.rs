//! BM-7.2 and BM-7.4: deadlines on a medium that does not answer. The checks stand in the table of `deadlines`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{join, join_all};
use larder_traits::{Atomicity, Classify, ErrorKind, ExternalError, Outcome as Effect};
use tokio::task::JoinHandle;

use super::deadlines::{CLOSE, late_by};
use super::faults::{Attempt, Bench, NEVER};
use super::methods::{Method, READS, Told, WRITES, Watched, value_of, watch};
use crate::blob_multi::{Handle, World};
use crate::check::{Outcome, Stop, describe};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::engine::canary::Canary;
use crate::engine::fault::{each_met, enough};
use crate::fixture::{FaultKind, Faults};

/// The deadline of the calls that wait.
const WAIT: Duration = Duration::from_millis(200);

/// What the calls set that wait.
static SHORT: Bytes = Bytes::from_static(b"short");

/// The deadline of a call that another one comes to wait beside.
const HELD_UP: Duration = Duration::from_millis(100);

pub(super) async fn bm_7_2(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    let canary = &Canary::start();
    let mut met = 0;
    for method in WRITES.into_iter().chain(READS) {
        let bench = &bench;
        met += each_met(bench.faults.as_ref(), FaultKind::Hang, |nth| async move {
            let lens = (Some(500), 800);
            let attempt = bench.attempt(method, FaultKind::Hang, nth, lens).await?;
            in_time(&attempt, canary)?;
            bench.judge(&attempt).await?;
            Ok(attempt.met())
        })
        .await?;
    }
    enough(met)?;
    bench.watch().await
}

fn in_time(attempt: &Attempt, canary: &Canary) -> Outcome {
    let word = attempt.method.word();
    let late = attempt.back.saturating_duration_since(attempt.deadline);
    late_by(canary, &format!("{word} that gets no answer"), late)?;
    match &attempt.result {
        Err(e) if attempt.back >= attempt.deadline && e.kind() != ErrorKind::Timeout => {
            Err(Stop::fail(
                format!("{word} that got no answer before its deadline"),
                describe(e),
                "kind Timeout",
            ))
        }
        _ => Ok(()),
    }
}

/// Lets call after call to the medium fail, until it is dropped.
struct Storm {
    met: Arc<AtomicU64>,
    task: JoinHandle<()>,
    faults: Arc<dyn Faults>,
}

impl Storm {
    fn start(faults: &Arc<dyn Faults>) -> Self {
        let met = Arc::new(AtomicU64::new(0));
        let (seen, faults) = (Arc::clone(&met), Arc::clone(faults));
        faults.arm(1, FaultKind::ErrorBefore);
        let medium = Arc::clone(&faults);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if medium.disarm() {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
                medium.arm(1, FaultKind::ErrorBefore);
            }
        });
        Self { met, task, faults }
    }

    /// The next call to the medium fails, however soon it comes.
    fn gust(&self) {
        if self.faults.disarm() {
            self.met.fetch_add(1, Ordering::Relaxed);
        }
        self.faults.arm(1, FaultKind::ErrorBefore);
    }

    async fn stop(mut self) -> u64 {
        self.task.abort();
        // Once it is over, nobody arms the medium again.
        drop((&mut self.task).await);
        let last = u64::from(self.faults.disarm());
        self.met.load(Ordering::Relaxed) + last
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn bm_7_4(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    for key in ["k", "old"] {
        bench.a.set(key, pattern(key, 3_000)).await?;
    }
    let canary = &Canary::start();
    let storm = Storm::start(&bench.faults);
    for round in 0..2 {
        for method in WRITES.into_iter().chain(READS) {
            let handle = if round == 0 { &bench.a } else { &bench.b };
            storm.gust();
            let beside = "failures one after the other";
            drop(back_in_time(&bench, handle, method, canary, "old", beside).await?);
        }
    }
    enough(storm.stop().await)?;
    for key in [&bench.a, &bench.b].into_iter().flat_map(own_keys) {
        bench.a.set(&key, waiting(&key)).await?;
    }
    let held = hold(&bench).await?;
    // All at once, so that they wait for each other as well.
    let (bench, beside) = (&bench, "calls without an answer");
    let calls = WRITES.into_iter().chain(READS).flat_map(|method| {
        [&bench.a, &bench.b]
            .map(|handle| back_in_time(bench, handle, method, canary, "old", beside))
    });
    // And writes of keys of their own, of which one can say later what they did.
    let writes = [&bench.a, &bench.b].into_iter().flat_map(|handle| {
        let writes = WRITES.into_iter().zip(own_keys(handle));
        writes.map(move |(method, key)| async move {
            let result = back_in_time(bench, handle, method, canary, &key, beside).await?;
            Ok::<_, Stop>(after_waiting(method, key, &result))
        })
    });
    let (calls, writes) = join(join_all(calls), join_all(writes)).await;
    for ended in calls {
        drop(ended?);
    }
    let waited = writes.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut released = Vec::new();
    for (key, until, task) in held {
        let ended = bench.cx.within(NEVER, "a call that gets no answer", task);
        let back = ended.await?.map_err(super::set::in_task)?;
        late_by(
            canary,
            "a call that gets no answer",
            back.saturating_duration_since(until),
        )?;
        released.push(key);
    }
    // And now all is well again.
    for (writer, reader) in [(&bench.a, &bench.b), (&bench.b, &bench.a)] {
        let value = Bytes::from(pattern(writer.name(), 700));
        for key in released.iter().map(String::as_str).chain(["k", "after"]) {
            let deadline = Handle::ample();
            let set = || writer.try_set(deadline, key, value.clone(), Atomicity::RequireAtomic);
            super::methods::recovered("a set", set).await?;
            let set = Watched {
                key: key.to_owned(),
                allowed: vec![Some(value.clone())],
                story: "a set that was acknowledged".into(),
            };
            watch(&[reader, writer], &[set], Duration::ZERO).await?;
        }
    }
    // Whoever waited has had its turn by now, and what was told to be without effect has none.
    for watched in &waited {
        for handle in [&bench.a, &bench.b] {
            watched.look(handle).await?;
        }
    }
    value_of(&bench.still, "k").await.map(drop)
}

/// A key for each write that waits through this handle.
fn own_keys(handle: &Handle) -> [String; 3] {
    WRITES.map(|method| format!("waits/{}/{}", method.word(), handle.name()))
}

/// What is under such a key before its write.
fn waiting(key: &str) -> Bytes {
    pattern(key, 900).into()
}

/// What may be under the key of a write that had to wait.
fn after_waiting(method: Method, key: String, result: &Result<Told, ExternalError>) -> Watched {
    let (old, new) = (Some(waiting(&key)), method.leaves(&SHORT));
    let (allowed, how) = match result {
        Ok(_) => (vec![new], "Ok".to_owned()),
        Err(e) if e.outcome() == Effect::NotApplied => (vec![old], describe(e)),
        Err(e) if method.may_tear() => (Vec::new(), describe(e)),
        Err(e) => (vec![old, new], describe(e)),
    };
    let story = format!("{} that had to wait and said {how}", method.word());
    Watched {
        key,
        allowed,
        story,
    }
}

pub(super) async fn bm_7_6(cx: &Cx<dyn World>) -> Outcome {
    const LONG: Duration = Duration::from_secs(20);
    let bench = Bench::new(cx).await?;
    bench.a.set("k", pattern("k", 5_000)).await?;
    let mut met = 0;
    for method in WRITES.into_iter().chain(READS) {
        for second in [&bench.a, &bench.b] {
            let word = method.word();
            cx.log()
                .push(format!("-- {word} beside {word} without an answer --"));
            bench.faults.arm(1, FaultKind::Hang);
            let value = Bytes::from_static(b"of either");
            let short = method.call(&bench.a, Instant::now() + HELD_UP, "k", &value);
            let long = async {
                // The first one has reached the medium by now, and waits there.
                tokio::time::sleep(HELD_UP / 4).await;
                let deadline = Instant::now() + LONG;
                let result = method.call(second, deadline, "k", &value).await;
                (result, deadline, Instant::now())
            };
            let both = futures_util::future::join(short, long);
            let what = format!("{word} beside {word} that gets no answer");
            let ended = bench.cx.within(LONG + NEVER, &what, both).await?;
            let (_, (result, deadline, back)) = ended;
            met += u64::from(bench.faults.disarm());
            not_early(what, &result, deadline, back)?;
        }
    }
    enough(met)
}

/// Fails unless a call with a short deadline is back soon after it, and an answer in time is no Timeout.
async fn back_in_time(
    bench: &Bench<'_>,
    handle: &Handle,
    method: Method,
    canary: &Canary,
    key: &str,
    beside: &str,
) -> Result<Result<Told, ExternalError>, Stop> {
    let what = format!("{} beside {beside}", method.word());
    let deadline = Instant::now() + WAIT;
    let call = method.call(handle, deadline, key, &SHORT);
    let result = bench.cx.within(WAIT + NEVER, &what, call).await?;
    let back = Instant::now();
    late_by(canary, &what, back.saturating_duration_since(deadline))?;
    not_early(what, &result, deadline, back)?;
    Ok(result)
}

/// Fails if a call ended as a Timeout before its deadline.
fn not_early<T>(
    what: String,
    result: &Result<T, ExternalError>,
    deadline: Instant,
    back: Instant,
) -> Outcome {
    match result {
        Err(e) if e.kind() == ErrorKind::Timeout && back + CLOSE < deadline => Err(Stop::fail(
            what,
            format!("{} {:?} before its deadline", describe(e), deadline - back),
            "Timeout only once the deadline has passed",
        )),
        _ => Ok(()),
    }
}

/// The key of a call that waits for the medium, its deadline, and when it was back.
type Held = (String, Instant, JoinHandle<Instant>);

/// Fills the pool with calls that the medium leaves without an answer.
async fn hold(bench: &Bench<'_>) -> Result<Vec<Held>, Stop> {
    const HOLDERS: usize = 8;
    const HOLDERS_MAX: usize = 64;
    const HELD_FOR: Duration = Duration::from_millis(1_500);
    let count = bench
        .cx
        .caps
        .in_flight_max
        .unwrap_or(HOLDERS)
        .min(HOLDERS_MAX);
    let mut held = Vec::new();
    let until = Instant::now() + HELD_FOR;
    for at in 0..count {
        let key = format!("held/{at}");
        bench.faults.arm(1, FaultKind::Hang);
        let (handle, name) = (bench.a.clone(), key.clone());
        let task = tokio::spawn(async move {
            let set = handle.try_set(until, &name, "held", Atomicity::RequireAtomic);
            drop(set.await);
            Instant::now()
        });
        held.push((key, until, task));
        if !met_soon(bench.faults.as_ref()).await {
            // Those before it hold all that there is.
            break;
        }
    }
    if held.iter().all(|(_, _, task)| task.is_finished()) {
        return Err(Stop::Inconclusive("no call could be held up".into()));
    }
    Ok(held)
}

/// Whether the fault that is armed is met before long; it is not armed any more.
async fn met_soon(faults: &dyn Faults) -> bool {
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(3)).await;
        if faults.disarm() {
            return true;
        }
        faults.arm(1, FaultKind::Hang);
    }
    faults.disarm()
}
