//! Concurrent calls, judged for linearizability.
//!
//! A run is cut into short epochs: a few clients make a few calls each at the same time, then all wait for each other
//! and every key is read once. Each epoch is judged by itself and starts from what the last one was seen to leave.
//! Short epochs see more than long ones: the more calls overlap, the more orders explain a wrong answer.

use std::collections::BTreeMap;
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use larder_traits::LateLanding;
use proptest::prelude::*;
use proptest::test_runner::TestRng;

use crate::check::{Outcome, Stop, Symptom};
use crate::cx::Cx;
use crate::engine::cancel::dropped_after;
use crate::engine::meeting::{Harm, meetings};
use crate::fixture::World;
use crate::lin::{self, Answer, Call, History, Limits, ModelName, Op, Row};

/// What became of one call.
#[derive(Debug)]
pub(crate) enum Performed {
    /// It was answered.
    Answered(Answer),
    /// It may have had an effect, or may still have one. The client stops here.
    Unknown,
    /// It failed and certainly had no effect.
    NotApplied,
}

/// A store as clients of an epoch use it.
#[async_trait]
pub(crate) trait Driver: Send + Sync + 'static {
    /// Makes one call on the handle of `client`. An error of outcome `NotApplied` and one of a read is
    /// [`Performed::NotApplied`].
    async fn perform(&self, client: u32, op: &Op) -> Performed;

    /// Where what is wrong by itself is noted.
    fn wrong(&self) -> &Wrong;
}

/// The first answer that is wrong by itself, whatever else was called.
#[derive(Default)]
pub(crate) struct Wrong(Mutex<Option<Stop>>);

impl Wrong {
    pub(crate) fn note(&self, stop: Stop) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(stop);
    }

    /// Fails if anything was noted.
    pub(crate) fn found(&self) -> Outcome {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.take().map_or(Ok(()), Err)
    }
}

/// The shape of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) model: ModelName,
    pub(crate) clients: u32,
    pub(crate) calls: usize,
    pub(crate) keys: Vec<String>,
}

/// The least share of calls that must overlap another one for a run to say anything, in percent.
const OVERLAP_PERCENT_MIN: usize = 20;

/// The largest share of calls without an answer, in percent.
const UNKNOWN_PERCENT_MAX: usize = 10;

/// The calls of one client, and after how many polls each is dropped, if it is.
type Script = Vec<(Op, Option<usize>)>;

/// More clients than any plan has.
const ELSE: u32 = 1_000;

/// How many epochs a check runs at least, however long they take.
const EPOCHS_MIN: usize = 10;

/// Runs epochs until the profile's number is reached, or a quarter of the time is over that a check has, which may run two
/// plans: a server that is slow does not hang. `script` makes the calls of one client in one epoch; `tag` is
/// different for every script and makes its values unique.
pub(crate) async fn run<W, S>(
    cx: &Cx<W>,
    plan: &Plan,
    driver: Arc<dyn Driver>,
    script: S,
) -> Outcome
where
    W: World + ?Sized,
    S: FnMut(&mut TestRng, &str) -> Vec<Op>,
{
    let ended = epochs(cx, plan, &driver, script).await;
    driver.wrong().found().and(ended)
}

async fn epochs<W, S>(cx: &Cx<W>, plan: &Plan, driver: &Arc<dyn Driver>, mut script: S) -> Outcome
where
    W: World + ?Sized,
    S: FnMut(&mut TestRng, &str) -> Vec<Op>,
{
    let until = Instant::now() + cx.patience() / 4;
    let mut rng = cx.rng();
    let mut initial = read_all(plan, driver.as_ref()).await?.1;
    let (mut calls, mut overlapping, mut unknown) = (0, 0, 0);
    // Writes without an answer may land in a later epoch, so they stay part of every one that follows.
    let mut open: Vec<Call> = Vec::new();
    for epoch in 0..cx.lin_epochs() {
        let scripts: Vec<Script> = (0..plan.clients)
            .map(|client| {
                let ops = script(&mut rng, &format!("{epoch}.{client}"));
                ops.into_iter().map(|op| (op, None)).collect()
            })
            .collect();
        let started = Instant::now();
        let mut made = clients(&mut rng, driver, scripts, started).await?;
        let opened = still_open(&made);
        if opened.iter().any(mortal) {
            // When a lifetime began that nobody was told of cannot be carried over.
            cx.settle().await;
        }
        made.extend(open.iter().cloned());
        let (reads, seen) = read_all_since(plan, driver.as_ref(), 0, started).await?;
        made.extend(reads);
        let mut history = History::default();
        history.initial = initial;
        history.calls = made;
        let report = judge(epoch, &history, plan.model)?;
        calls += report.calls - open.len();
        overlapping += report.overlapping;
        unknown += report.unknown - open.len();
        open.extend(opened.into_iter().filter(|call| !mortal(call)));
        initial = seen;
        let is_late = Instant::now() > until;
        if epoch >= EPOCHS_MIN && (is_late || unknown * 100 > calls * UNKNOWN_PERCENT_MAX) {
            break;
        }
    }
    if unknown * 100 > calls * UNKNOWN_PERCENT_MAX {
        return Err(Stop::Inconclusive(format!(
            "{unknown} of {calls} calls had no answer"
        )));
    }
    if overlapping * 100 < calls * OVERLAP_PERCENT_MIN {
        return Err(Stop::Inconclusive(format!(
            "only {overlapping} of {calls} calls overlapped another one"
        )));
    }
    Ok(())
}

/// As [`run`], while something befalls some of the calls of each epoch. Each has a place of its own, which `open` opens.
pub(crate) async fn run_harmed<W, D, O, S>(
    cx: &Cx<W>,
    plan: &Plan,
    harm: Harm,
    mut open: O,
    mut script: S,
) -> Outcome
where
    W: World + ?Sized,
    D: Driver,
    O: AsyncFnMut(String) -> Result<Arc<D>, Stop>,
    S: FnMut(&mut TestRng, &str) -> Vec<Op>,
{
    /// The calls of a client in a short epoch.
    const SHORT: usize = 2;
    let mut rng = cx.rng();
    let mut epoch = 0;
    meetings(cx, "history", harm, async |mut meeting| {
        epoch += 1;
        let driver: Arc<dyn Driver> = open(meeting.place.clone()).await?;
        // Half of the places are not empty: what is there already can be lost, or be taken for absent.
        if rng.random() {
            for op in script(&mut rng, &format!("{epoch}.first")) {
                driver.perform(0, &op).await;
            }
        }
        let (_, initial) = read_all(plan, driver.as_ref()).await?;
        // Most of what can go wrong at a new place does at its first calls.
        let is_short = rng.random();
        // Where nobody reads meanwhile, more writes meet, and what they leave is looked at in the end.
        let reads = !rng.random_ratio(1, 3);
        let scripts: Vec<Script> = (0..plan.clients)
            .map(|client| {
                let mut ops = script(&mut rng, &format!("{epoch}.{client}"));
                ops.retain(|op| reads || !is_read(op));
                ops.truncate(if is_short { SHORT } else { ops.len() });
                ops.into_iter().map(|op| (op, meeting.polls())).collect()
            })
            .collect();
        meeting.arm();
        let started = Instant::now();
        let made = clients(&mut rng, &driver, scripts, started).await;
        let met = meeting.disarm();
        let mut made = driver.wrong().found().and(made)?;
        // By the handles of two clients, to whom not the same has happened.
        for client in [0, 1] {
            let looked = read_all_since(plan, driver.as_ref(), client, started).await;
            let (reads, _) = driver.wrong().found().and(looked)?;
            made.extend(reads);
        }
        let mut history = History::default();
        history.initial = initial;
        history.calls = made;
        judge(epoch, &history, plan.model)?;
        if harm == Harm::Drop && cx.caps.late_landing == LateLanding::Fenced {
            fenced(epoch, &history, plan)?;
        }
        Ok(met)
    })
    .await
}

/// Fails unless each call that was dropped had its effect before every write that was made later, or had none (C-6).
///
/// A read that was made later may still come first. Of those only the last ones are held against the writes: once they
/// were made, nothing else was.
fn fenced(epoch: usize, history: &History, plan: &Plan) -> Outcome {
    /// Of more that were dropped at one place not all ways in which they may have ended are tried.
    const DROPPED_MAX: usize = 8;
    let is_dropped = |call: &Call| call.result.is_none() && call.ret.is_some();
    let mut held = history.clone();
    let last = held.calls.split_off(held.calls.len() - plan.keys.len());
    let dropped: Vec<_> = held.calls.iter().filter(|it| is_dropped(it)).collect();
    let (first, dropped) = (dropped.iter().filter_map(|it| it.ret).min(), dropped.len());
    let Some(first) = first.filter(|_| dropped <= DROPPED_MAX) else {
        return Ok(());
    };
    held.calls.retain(|it| !is_read(&it.op) || it.call < first);
    held.calls.extend(last);
    for ways in 0..1_u32 << dropped {
        let mut nth = 0;
        let mut told = held.clone();
        told.calls.retain_mut(|call| {
            if !is_dropped(call) {
                return true;
            }
            nth += 1;
            call.result = Some(match call.op {
                Op::CompareAndWrite { .. } => Answer::Swapped(true),
                Op::PutNonTombstone { .. } | Op::DeleteNonTombstone { .. } => Answer::Blocked(None),
                _ => Answer::Done,
            });
            ways & 1 << (nth - 1) != 0
        });
        match verdict(&told, plan.model)?.verdict {
            lin::Verdict::Linearizable => return Ok(()),
            lin::Verdict::Inconclusive { why } => return Err(Stop::Inconclusive(why)),
            lin::Verdict::Violation(_) => {}
        }
    }
    let mut stop = Stop::fail(
        format!("the calls of epoch {epoch}, made at the same time"),
        "answers that are explained only if a dropped call had its effect after a later write",
        "what is declared: that it had its effect before each write that was made later, or had none",
    );
    if let Stop::Fail(failure) = &mut stop {
        failure.history = saved(history);
    }
    Err(stop)
}

fn verdict(history: &History, model: ModelName) -> Result<lin::Report, Stop> {
    lin::check(history, model, Limits::default())
        .map_err(|e| Stop::Inconclusive(format!("the suite wrote a bad history: {e}")))
}

/// Fails unless there is an order of the calls.
fn judge(epoch: usize, history: &History, model: ModelName) -> Result<lin::Report, Stop> {
    let report = verdict(history, model)?;
    match &report.verdict {
        lin::Verdict::Linearizable => Ok(report),
        lin::Verdict::Inconclusive { why } => Err(Stop::Inconclusive(why.clone())),
        lin::Verdict::Violation(witness) => Err(violation(epoch, history, witness)),
    }
}

/// The calls without an answer, as the next epoch sees them: begun before it.
fn still_open(made: &[Call]) -> Vec<Call> {
    let unanswered = made.iter().filter(|call| call.result.is_none());
    unanswered
        .map(|call| Call {
            call: 0,
            ..call.clone()
        })
        .collect()
}

fn mortal(call: &Call) -> bool {
    matches!(call.op, Op::Set { ttl: Some(_), .. })
}

/// The lines of a history, with one before them that says what they are.
fn saved(history: &History) -> Vec<String> {
    let mut saved = Vec::new();
    if history.write(&mut saved).is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&saved);
    let title = "the whole epoch, as `larder check` reads it:";
    iter::once(title)
        .chain(text.lines())
        .map(str::to_owned)
        .collect()
}

fn violation(epoch: usize, history: &History, witness: &lin::Witness) -> Stop {
    let mut lines: Vec<String> = witness.to_string().lines().map(str::to_owned).collect();
    lines.extend(saved(history));
    let mut stop = Stop::fail(
        format!("the calls of epoch {epoch}, made at the same time"),
        "answers that no order of the calls explains",
        "an order of the calls, each between its call and its answer, that gives these answers",
    );
    if let Stop::Fail(failure) = &mut stop {
        failure.history = lines;
        failure.timeline = Some(Box::new(witness.clone()));
    }
    stop
}

fn stamp(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// All clients at once, each on a task of its own.
async fn clients(
    rng: &mut TestRng,
    driver: &Arc<dyn Driver>,
    scripts: Vec<Script>,
    started: Instant,
) -> Result<Vec<Call>, Stop> {
    let barrier = Arc::new(tokio::sync::Barrier::new(scripts.len()));
    let mut tasks = Vec::new();
    for (client, script) in (0_u32..).zip(scripts) {
        let (driver, barrier) = (Arc::clone(driver), Arc::clone(&barrier));
        let pauses: Vec<(u32, u32)> = script
            .iter()
            .map(|_| (rng.random_range(0..4), rng.random_range(0..2)))
            .collect();
        tasks.push(tokio::spawn(async move {
            barrier.wait().await;
            client_run(client, &script, &pauses, driver.as_ref(), started).await
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        let made = task.await.map_err(|e| {
            let mut stop = Stop::fail("a call", format!("a panic: {e}"), "an answer (C-3)");
            if let Stop::Fail(failure) = &mut stop {
                failure.symptom = Symptom::Panic;
            }
            stop
        })?;
        all.extend(made);
    }
    Ok(all)
}

async fn client_run(
    client: u32,
    script: &[(Op, Option<usize>)],
    pauses: &[(u32, u32)],
    driver: &dyn Driver,
    started: Instant,
) -> Vec<Call> {
    let mut made = Vec::new();
    let mut dropped = 0;
    for ((op, polls), (before, inside)) in script.iter().zip(pauses) {
        pause(*before).await;
        let call = stamp(started);
        // A stamp taken early is still before the call, and lets calls overlap that are over in no time.
        pause(*inside).await;
        let performed = dropped_after(*polls, driver.perform(client, op)).await;
        let ret = stamp(started);
        let last = matches!(performed, Some(Performed::Unknown));
        let is_dropped = performed.is_none();
        let (result, ret) = match performed {
            Some(Performed::Answered(answer)) => (Some(answer), Some(ret)),
            Some(Performed::Unknown) => (None, None),
            None if !is_read(op) => (None, Some(ret)),
            Some(Performed::NotApplied) | None => continue,
        };
        made.push(Call {
            // Whoever has dropped a call goes on as somebody else, since the call may go on as well.
            client: client + dropped * ELSE,
            call,
            ret,
            op: op.clone(),
            result,
        });
        dropped += u32::from(is_dropped);
        if last {
            break;
        }
    }
    made
}

pub(crate) fn is_read(op: &Op) -> bool {
    matches!(op, Op::Get { .. } | Op::GetMulti { .. } | Op::List)
}

/// Lets others run, or time pass: a different mix of calls meets each time.
async fn pause(kind: u32) {
    match kind {
        0 => {}
        1 => tokio::task::yield_now().await,
        2 => std::hint::spin_loop(),
        _ => {
            let until = Instant::now() + Duration::from_micros(20);
            while Instant::now() < until {
                tokio::task::yield_now().await;
            }
        }
    }
}

type Seen = BTreeMap<String, Row>;

async fn read_all(plan: &Plan, driver: &dyn Driver) -> Result<(Vec<Call>, Seen), Stop> {
    read_all_since(plan, driver, 0, Instant::now()).await
}

/// Reads every key once, after all clients: what an epoch leaves, and what the next one starts from.
async fn read_all_since(
    plan: &Plan,
    driver: &dyn Driver,
    client: u32,
    started: Instant,
) -> Result<(Vec<Call>, Seen), Stop> {
    let (mut calls, mut seen) = (Vec::new(), Seen::new());
    for key in &plan.keys {
        let op = Op::Get { key: key.clone() };
        let call = stamp(started);
        let performed = driver.perform(client, &op).await;
        let ret = Some(stamp(started));
        let Performed::Answered(answer) = performed else {
            return Err(Stop::Inconclusive(format!(
                "the read of {key:?} between two epochs failed"
            )));
        };
        if let Answer::Row(Some(row)) = &answer {
            seen.insert(key.clone(), row.clone());
        }
        calls.push(Call {
            client: plan.clients,
            call,
            ret,
            op,
            result: Some(answer),
        });
    }
    Ok((calls, seen))
}

/// Sets, gets and few deletes of the plan's keys: the script of a register.
pub(crate) fn register_script(plan: &Plan, rng: &mut TestRng, tag: &str) -> Vec<Op> {
    (0..plan.calls)
        .map(|at| {
            let key = plan.keys[rng.random_range(0..plan.keys.len())].clone();
            match rng.random_range(0..100) {
                0..45 => Op::Get { key },
                45..87 => Op::Set {
                    key,
                    value: format!("{tag}.{at}"),
                    ttl: None,
                },
                _ => Op::Delete { key },
            }
        })
        .collect()
}
