//! The bodies of the concurrent checks: KV-5.3 and KV-7.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use larder_traits::{Clock, ClockSource, TestClock};
use proptest::prelude::*;
use proptest::test_runner::TestRng;

use super::clients::Clients;
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::engine::lin::{self, Driver, Performed, Plan};
use crate::engine::meeting::Harm;
use crate::engine::time;
use crate::kv_client::World;
use crate::lin::{Call, History, Limits, ModelName, Op, Ttl, Verdict, check};

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("k{at}")).collect()
}

async fn run(
    cx: &Cx<dyn World>,
    place: &str,
    handles: usize,
    plan: &Plan,
    script: impl FnMut(&mut TestRng, &str) -> Vec<Op> + Send,
) -> Outcome {
    let clients = Clients::open(cx, place, handles).await?;
    lin::run(cx, plan, clients, script).await
}

pub(super) async fn kv_7_1(cx: &Cx<dyn World>) -> Outcome {
    let plan = Plan {
        model: ModelName::Register,
        clients: 4,
        calls: 12,
        keys: names(2),
    };
    for (place, handles) in [("one", 1), ("each", 4)] {
        run(cx, place, handles, &plan, |rng, tag| {
            lin::register_script(&plan, rng, tag)
        })
        .await?;
    }
    Ok(())
}

pub(super) async fn harmed(cx: &Cx<dyn World>, harm: Harm) -> Outcome {
    let plan = Plan {
        model: ModelName::Register,
        clients: 4,
        calls: 6,
        keys: names(2),
    };
    let open = async |place: String| Clients::open(cx, &place, 2).await;
    lin::run_harmed(cx, &plan, harm, open, |rng, tag| {
        lin::register_script(&plan, rng, tag)
    })
    .await
}

pub(super) async fn kv_5_3(cx: &Cx<dyn World>) -> Outcome {
    let each = Plan {
        model: ModelName::Register,
        clients: 4,
        calls: 10,
        keys: names(3),
    };
    // Without a snapshot a key that is asked for twice may be answered twice differently.
    run(cx, "each", 4, &each, |rng, tag| {
        batches(&each, rng, tag, true)
    })
    .await?;
    if !cx.caps.kv_client.multi_snapshot {
        return Ok(());
    }
    let all = Plan {
        model: ModelName::Map,
        clients: 3,
        calls: 12,
        keys: names(3),
    };
    for (place, handles) in [("all, one", 1), ("all, each", 3)] {
        let place = place.replace(", ", "/");
        run(cx, &place, handles, &all, |rng, tag| {
            batches(&all, rng, tag, false)
        })
        .await?;
    }
    Ok(())
}

/// Puts, few deletes, and reads of several keys in any order.
fn batches(plan: &Plan, rng: &mut TestRng, tag: &str, twice: bool) -> Vec<Op> {
    let any = |rng: &mut TestRng| plan.keys[rng.random_range(0..plan.keys.len())].clone();
    (0..plan.calls)
        .map(|at| match rng.random_range(0..100) {
            0..45 => {
                let turn = rng.random_range(0..plan.keys.len());
                let mut keys = plan.keys.clone();
                keys.rotate_left(turn);
                if rng.random() {
                    keys.reverse();
                }
                if twice && rng.random() {
                    keys.push(any(rng));
                }
                Op::GetMulti { keys }
            }
            45..50 => Op::Get { key: any(rng) },
            50..90 => Op::Set {
                key: any(rng),
                value: format!("{tag}.{at}"),
                ttl: None,
            },
            _ => Op::Delete { key: any(rng) },
        })
        .collect()
}

/// The stamps of a history in which entries end.
///
/// Where a test clock decides, its time is stretched and added to the real time. A stamp taken before a call is then
/// never later than the call was, and one taken after it never earlier, whoever moves the clock meanwhile.
struct Stamps {
    started: Instant,
    clock: Option<(Arc<TestClock>, SystemTime)>,
}

/// How much longer than a nanosecond of real time one of the test clock is in a history: an epoch, which takes some
/// milliseconds, is over before the shortest move of the clock.
const STRETCH: u64 = 1_000;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

impl Stamps {
    fn start(clock: Option<&Arc<TestClock>>) -> Self {
        Self {
            started: Instant::now(),
            clock: clock.map(|clock| (Arc::clone(clock), clock.now())),
        }
    }

    fn real(&self) -> u64 {
        nanos(self.started.elapsed())
    }

    fn moved(&self) -> u64 {
        self.clock.as_ref().map_or(0, |(clock, start)| {
            let moved = clock.now().duration_since(*start).unwrap_or_default();
            nanos(moved).saturating_mul(STRETCH)
        })
    }

    fn before(&self) -> u64 {
        let moved = self.moved();
        moved + self.real()
    }

    fn after(&self) -> u64 {
        let real = self.real();
        self.moved() + real
    }

    /// A time to live in stamps, as the history knows it once all of it is over.
    fn ttl(&self, cx: &Cx<dyn World>, secs: u64) -> Ttl {
        let granularity = nanos(cx.caps.kv_client.ttl_granularity);
        let ttl = nanos(Duration::from_secs(secs));
        if self.clock.is_some() {
            let stretched = granularity.saturating_mul(STRETCH);
            // The real time that passes while the clock stands still counts for nothing.
            return Ttl::new(ttl * STRETCH, stretched.saturating_add(self.real()));
        }
        let blur = nanos(blur(cx));
        Ttl::new(ttl.saturating_sub(blur), granularity + 2 * blur)
    }
}

/// By how much the store's clock and ours may be apart in real time.
fn blur(cx: &Cx<dyn World>) -> Duration {
    let skew = match cx.caps.clock {
        ClockSource::Server { skew } => skew,
        ClockSource::Injected => Duration::ZERO,
    };
    skew + Duration::from_millis(50)
}

/// What a client of a history with ends does.
#[derive(Clone, Debug)]
enum Step {
    Call { op: Op, ttl_secs: Option<u64> },
    Pass(Duration),
    Until(Duration),
    Yield(u32),
}

/// A call and the time to live that it gave.
type Timed = (Call, Option<u64>);

async fn steps(
    client: u32,
    script: Vec<Step>,
    clients: Arc<Clients>,
    stamps: Arc<Stamps>,
) -> Vec<Timed> {
    let mut made = Vec::new();
    for step in script {
        let (op, ttl_secs) = match step {
            Step::Call { op, ttl_secs } => (op, ttl_secs),
            Step::Pass(by) => {
                if let Some((clock, _)) = &stamps.clock {
                    clock.advance(by);
                }
                continue;
            }
            Step::Until(moment) => {
                tokio::time::sleep_until((stamps.started + moment).into()).await;
                continue;
            }
            Step::Yield(times) => {
                for _ in 0..times {
                    tokio::task::yield_now().await;
                }
                continue;
            }
        };
        let call = stamps.before();
        // A stamp taken early is still before the call, and lets calls overlap that are over in no time.
        tokio::task::yield_now().await;
        let performed = match &op {
            Op::Set { key, value, .. } => clients.put(client, key, value, ttl_secs).await,
            other => clients.perform(client, other).await,
        };
        let ret = stamps.after();
        let (result, ret) = match performed {
            Performed::Answered(answer) => (Some(answer), Some(ret)),
            Performed::Unknown => (None, None),
            Performed::NotApplied => continue,
        };
        let is_last = result.is_none();
        let call = Call {
            client,
            call,
            ret,
            op,
            result,
        };
        made.push((call, ttl_secs));
        if is_last {
            break;
        }
    }
    made
}

/// What all epochs together rest on.
#[derive(Default)]
struct Tally {
    calls: usize,
    overlapping: usize,
    unknown: usize,
}

impl Tally {
    /// Inconclusive where there was too little to judge, by the measure of the other concurrent checks.
    fn enough(&self) -> Outcome {
        const OVERLAP_PERCENT_MIN: usize = 20;
        const UNKNOWN_PERCENT_MAX: usize = 10;
        let Self {
            calls,
            overlapping,
            unknown,
        } = self;
        if unknown * 100 > calls * UNKNOWN_PERCENT_MAX {
            let why = format!("{unknown} of {calls} calls had no answer");
            return Err(Stop::Inconclusive(why));
        }
        if overlapping * 100 < calls * OVERLAP_PERCENT_MIN {
            let why = format!("only {overlapping} of {calls} calls overlapped another one");
            return Err(Stop::Inconclusive(why));
        }
        Ok(())
    }
}

/// One history: the scripts at the same time, then time for every end, and a last look at each key.
async fn history(
    cx: &Cx<dyn World>,
    clients: &Arc<Clients>,
    clock: Option<&Arc<TestClock>>,
    scripts: Vec<Vec<Step>>,
    keys: &[String],
    tally: &mut Tally,
) -> Outcome {
    let stamps = Arc::new(Stamps::start(clock));
    let reader = u32::try_from(scripts.len()).expect("a few clients");
    let tasks: Vec<_> = (0_u32..)
        .zip(scripts)
        .map(|(client, script)| {
            let (clients, stamps) = (Arc::clone(clients), Arc::clone(&stamps));
            tokio::spawn(steps(client, script, clients, stamps))
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        let calls = task.await;
        made.extend(calls.map_err(|e| Stop::fail("a call", e.to_string(), "no panic (C-3)"))?);
    }
    let look = |key: &String| Step::Call {
        op: Op::Get { key: key.clone() },
        ttl_secs: None,
    };
    let longest = clock.map_or(WAITED_SECS, |_| MOVED_SECS[MOVED_SECS.len() - 1]);
    let ended = Duration::from_secs(longest) + cx.caps.kv_client.ttl_granularity;
    let over = ended + 2 * blur(cx) + Duration::from_millis(500);
    if clock.is_some() || over <= time::REAL_WAIT_MAX {
        time::pass(cx, over).await?;
    }
    let mut last: Vec<Step> = keys.iter().map(look).collect();
    last.push(Step::Call {
        op: Op::GetMulti {
            keys: keys.to_vec(),
        },
        ttl_secs: None,
    });
    made.extend(steps(reader, last, Arc::clone(clients), Arc::clone(&stamps)).await);
    clients.wrong().found()?;
    for (call, ttl_secs) in &mut made {
        if let (Op::Set { ttl, .. }, Some(secs)) = (&mut call.op, *ttl_secs) {
            *ttl = Some(stamps.ttl(cx, secs));
        }
    }
    let history = History::new(made.into_iter().map(|(call, _)| call).collect());
    let report = check(&history, ModelName::Kv, Limits::default())
        .map_err(|e| Stop::Inconclusive(format!("the suite wrote a bad history: {e}")))?;
    tally.calls += report.calls;
    tally.overlapping += report.overlapping;
    tally.unknown += report.unknown;
    match report.verdict {
        Verdict::Linearizable => Ok(()),
        Verdict::Inconclusive { why } => Err(Stop::Inconclusive(why)),
        Verdict::Violation(witness) => {
            let mut stop = Stop::fail(
                "calls made at the same time, on entries of which some end",
                "answers that no order of the calls and of the ends explains",
                "an order of the calls, each between its call and its answer, that gives these answers",
            );
            if let Stop::Fail(failure) = &mut stop {
                failure.history = witness.to_string().lines().map(str::to_owned).collect();
            }
            Err(stop)
        }
    }
}

/// The times to live where the clock is moved.
const MOVED_SECS: [u64; 3] = [1, 2, 3];
/// The time to live where time passes by itself.
const WAITED_SECS: u64 = 1;

fn any_call(rng: &mut TestRng, keys: &[String], value: String, secs: &[u64]) -> Step {
    let key = keys[rng.random_range(0..keys.len())].clone();
    let mut ttl_secs = None;
    let op = match rng.random_range(0..100) {
        0..40 => Op::Get { key },
        40..50 => Op::GetMulti {
            keys: keys.to_vec(),
        },
        50..93 => {
            let mortal = rng.random_range(0..3) > 0;
            ttl_secs = mortal.then(|| secs[rng.random_range(0..secs.len())]);
            Op::Set {
                key,
                value,
                ttl: None,
            }
        }
        _ => Op::Delete { key },
    };
    Step::Call { op, ttl_secs }
}

pub(super) async fn kv_7_2(cx: &Cx<dyn World>) -> Outcome {
    let clients = Clients::open(cx, "p", 4).await?;
    let mut rng = cx.rng();
    let mut tally = Tally::default();
    let clock = cx.clock().ok();
    match clock.filter(|_| cx.caps.clock == ClockSource::Injected) {
        Some(clock) => {
            for epoch in 0..cx.lin_epochs() {
                // Keys of its own, since nobody could say when an entry of an earlier epoch ends.
                let keys: Vec<String> = (0..2).map(|at| format!("{epoch}.{at}")).collect();
                let scripts = (0..3)
                    .map(|client| moved(&mut rng, &keys, &format!("{epoch}.{client}")))
                    .collect();
                history(cx, &clients, Some(&clock), scripts, &keys, &mut tally).await?;
            }
        }
        None => {
            let keys = names(16);
            let scripts = (0..4)
                .map(|client| waited(&mut rng, &keys, client))
                .collect();
            history(cx, &clients, None, scripts, &keys, &mut tally).await?;
        }
    }
    tally.enough()
}

/// A script that moves the clock itself, between its calls and beside those of the others.
fn moved(rng: &mut TestRng, keys: &[String], tag: &str) -> Vec<Step> {
    let mut script = Vec::new();
    for at in 0..10 {
        script.push(Step::Yield(rng.random_range(0..3)));
        if rng.random_range(0..4) == 0 {
            let millis = [300, 500, 1_000, 2_000][rng.random_range(0..4)];
            script.push(Step::Pass(Duration::from_millis(millis)));
        }
        script.push(any_call(rng, keys, format!("{tag}.{at}"), &MOVED_SECS));
    }
    script
}

/// A script in real time: each tick a call or two, at the same moment as the others.
fn waited(rng: &mut TestRng, keys: &[String], client: u32) -> Vec<Step> {
    const TICK: Duration = Duration::from_millis(80);
    let mut script = Vec::new();
    for tick in 0..40 {
        script.push(Step::Until(TICK * tick));
        for at in 0..rng.random_range(1..3) {
            let value = format!("{client}.{tick}.{at}");
            script.push(any_call(rng, keys, value, &[WAITED_SECS]));
        }
    }
    script
}

pub(super) async fn kv_7_3(_cx: &Cx<dyn World>) -> Outcome {
    Err(Stop::Ignored("needs the power server()".into()))
}
