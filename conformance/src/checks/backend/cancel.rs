//! C-6 for both contracts of objects: calls that are dropped on the way.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, StreamExt, stream};
use larder_traits::{
    BackendError, Classify, ErrorKind, LateLanding, Metadata, ObjectId, Outcome as Effect,
};
use tokio::sync::Semaphore;

use super::calls::{Call, Case, States, Subject, cases, make_all, object, row_after, to_a};
use super::objects::name;
use crate::check::{Outcome, Stop};
use crate::cx::{Cx, brief};
use crate::engine::cancel::{poll_then_drop, sweep};
use crate::engine::time::REAL_WAIT_MAX;
use crate::fixture;
use crate::model::high_volume::Row;

/// How long many calls may take all together.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a dropped call left behind, to be looked at again later.
struct Left {
    id: ObjectId,
    what: String,
    states: States,
    /// Whether the call was not polled at all, so that it never began.
    unborn: bool,
}

async fn see<W, S>(cx: &Cx<W>, handle: &S, id: &ObjectId, what: &str) -> Result<Option<Row>, Stop>
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let what = format!("a read after {what}");
    let seen = cx.within(cx.soon(), &what, handle.see(id)).await?;
    seen.map_err(|e| Stop::error(what, &e))
}

/// Both handles still take writes.
async fn goes_on<W, S>(cx: &Cx<W>, bound: Duration, what: &str, pair: [&S; 2]) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let id = name("witness");
    for (nth, (writer, reader)) in [(pair[0], pair[1]), (pair[1], pair[0])]
        .into_iter()
        .enumerate()
    {
        let (metadata, payload) = object(&format!("{what} {nth}"), 20);
        let write = [Call::Put(metadata, payload)];
        let expected = row_after(&id, &write);
        let both = async {
            make_all(writer, &id, &write).await?;
            reader.see(&id).await.map_err(|e| Stop::error("a read", &e))
        };
        let what = format!("a write and a read of another row after {what}");
        let seen = cx.within(bound, &what, both).await??;
        cx.eq(what, &seen, &expected)?;
    }
    Ok(())
}

/// C-6.1.
pub(in crate::checks) async fn swept<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let left = RefCell::new(Vec::new());
    for (nth, case) in cases::<S, W>(cx).iter().enumerate() {
        let left = &left;
        sweep(|polls| async move {
            let id = name(&format!("swept-{nth}-{polls}"));
            case.prepare(a, &id).await?;
            let what = format!("{}, dropped at its poll {polls}", case.what());
            let states = case.states(&id);
            let ended = poll_then_drop(polls, a.make(&id, &case.call)).await;
            let is_over = ended.is_some();
            if let Some(answer) = ended {
                let answer = answer.map_err(|e| Stop::error(case.what(), &e))?;
                cx.eq(case.what(), &answer, &states.answer)?;
            }
            for reader in [b, a] {
                let seen = see(cx, reader, &id, &what).await?;
                match polls {
                    0 => cx.eq(&what, &seen, &states.old)?,
                    _ if is_over => cx.eq(case.what(), &seen, &states.new)?,
                    _ => states.either(&what, &seen)?,
                }
            }
            goes_on(cx, cx.soon(), &what, [a, b]).await?;
            if !is_over {
                left.borrow_mut().push(Left {
                    id,
                    what,
                    states,
                    unborn: polls == 0,
                });
            }
            Ok(is_over)
        })
        .await?;
    }
    cx.settle().await;
    let left = left.into_inner();
    for Left {
        id,
        what,
        states,
        unborn,
    } in &left
    {
        let what = format!("{what}, and some time later");
        let (seen_a, seen_b) = (see(cx, a, id, &what).await?, see(cx, b, id, &what).await?);
        cx.eq(format!("{what}, through either handle"), &seen_a, &seen_b)?;
        if *unborn {
            cx.eq(what, &seen_a, &states.old)?;
        } else {
            states.either(&what, &seen_a)?;
        }
    }
    for Left { id, what, .. } in &left {
        let (metadata, payload) = object("after", 100);
        let write = [Call::Put(metadata, payload)];
        make_all(b, id, &write).await?;
        let what = format!("a put on the row of {what}");
        let seen = see(cx, a, id, &what).await?;
        cx.eq(what, &seen, &row_after(id, &write))?;
    }
    Ok(())
}

/// Polls a call, whatever it says.
async fn poll_once<T>(call: &mut Pin<Box<impl Future<Output = T> + ?Sized>>) -> Option<T> {
    poll_fn(|context| {
        Poll::Ready(match call.as_mut().poll(context) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        })
    })
    .await
}

/// C-6.2.
pub(in crate::checks) async fn leaks<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let drops = cx
        .caps
        .in_flight_max
        .map_or(64, |max| max + cx.times(64, 4));
    for (nth, case) in cases::<S, W>(cx).iter().enumerate() {
        let id = name(&format!("leaking-{nth}"));
        case.prepare(a, &id).await?;
        for nth in 0..drops {
            // A call that waits for what another one took with it is never polled again.
            let call = poll_then_drop(1 + nth % 5, a.make(&id, &case.call));
            let what = format!("{} after {nth} dropped ones", case.what());
            drop(cx.within(PATIENCE, what, call).await?);
        }
        let mut waiting: Vec<_> = (0..drops).map(|_| a.make(&id, &case.call)).collect();
        for call in &mut waiting {
            poll_once(call).await;
        }
        drop(waiting);
        let what = format!("{} times {}, dropped", 2 * drops, case.what());
        goes_on(cx, PATIENCE, &what, [a, b]).await?;
        let again = a.make(&id, &case.call);
        let what = format!("the same call after {what}");
        let ended = cx.within(PATIENCE, &what, again).await?;
        ended.map_err(|e| Stop::error(what, &e))?;
    }
    Ok(())
}

/// What is acknowledged after a call was dropped: a state that the dropped call would change if it came late.
fn later(case: &Case) -> Vec<Vec<Call>> {
    let (metadata, payload) = object("acknowledged", 700);
    match &case.call {
        Call::Swap(Some(_), _) | Call::Extend(..) => vec![vec![Call::Delete, to_a()]],
        Call::DeleteInline | Call::Delete => vec![vec![Call::Put(metadata, payload)]],
        _ => vec![
            vec![Call::Put(metadata, payload)],
            // On the way over a state of its own, so that the effect of the dropped call cannot pass for it.
            vec![
                Call::Put(metadata_of("passing"), Bytes::new()),
                Call::Delete,
            ],
        ],
    }
}

fn metadata_of(tag: &str) -> Metadata {
    object(tag, 0).0
}

/// A row on which a call was dropped and another one acknowledged.
struct Overtaken {
    id: ObjectId,
    what: String,
    acknowledged: Option<Row>,
    /// What the dropped call makes of that if it comes late.
    landed: Option<Row>,
}

/// C-6.3.
pub(in crate::checks) async fn late<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let all = RefCell::new(Vec::new());
    let writes = cases::<S, W>(cx);
    let writes = writes
        .iter()
        .filter(|case| !case.call.is_read() && !matches!(case.call, Call::Fence));
    for (nth, case) in writes.enumerate() {
        for (variant, acknowledged) in later(case).iter().enumerate() {
            let all = &all;
            sweep(|polls| async move {
                let id = name(&format!("late-{nth}-{variant}-{polls}"));
                case.prepare(a, &id).await?;
                let ended = poll_then_drop(polls, a.make(&id, &case.call)).await;
                let is_over = ended.is_some();
                let acked = make_all(b, &id, acknowledged);
                let what = format!("a call after {}, dropped", case.what());
                cx.within(PATIENCE, &what, acked).await??;
                let calls = || case.before.iter().chain(acknowledged);
                all.borrow_mut().push(Overtaken {
                    acknowledged: row_after(&id, calls()),
                    landed: row_after(&id, calls().chain([&case.call])),
                    what: format!(
                        "{}, dropped at its poll {polls}, then {acknowledged:?}",
                        case.what()
                    ),
                    id,
                });
                Ok(is_over)
            })
            .await?;
        }
    }
    let all = all.into_inner();
    match cx.caps.late_landing {
        LateLanding::Fenced => {
            cx.settle().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            for row in &all {
                for handle in [a, b] {
                    let seen = see(cx, handle, &row.id, &row.what).await?;
                    cx.eq(&row.what, &seen, &row.acknowledged)?;
                }
            }
            Ok(())
        }
        LateLanding::MayLandLate(bound) => within_bound(cx, bound, a, b, &all).await,
    }
}

/// HV-6.5.
pub(in crate::checks) async fn fenced<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    /// How long what was dropped is waited for.
    const WATCHED: Duration = Duration::from_millis(300);
    let mut writes = cases::<S, W>(cx);
    writes.retain(|case| !case.call.is_read() && !matches!(case.call, Call::Fence));
    // By another handle than the one whose calls were dropped, and then by the same: the one fence may help the other.
    for (who, fencing) in [b, a].into_iter().take(cx.times(2, 1)).enumerate() {
        let all = &RefCell::new(Vec::new());
        for (nth, case) in writes.iter().enumerate() {
            sweep(|polls| async move {
                let id = name(&format!("fenced-{nth}-{who}-{polls}"));
                case.prepare(a, &id).await?;
                let ended = poll_then_drop(polls, a.make(&id, &case.call)).await;
                let what = format!("{}, dropped at its poll {polls}, and a fence", case.what());
                let fence = make_all(fencing, &id, &[Call::Fence]);
                cx.within(PATIENCE, &what, fence).await??;
                let seen = see(cx, b, &id, &what).await?;
                case.states(&id).either(&what, &seen)?;
                all.borrow_mut().push((id, what, seen));
                Ok(ended.is_some())
            })
            .await?;
        }
        cx.settle().await;
        tokio::time::sleep(WATCHED).await;
        for (id, what, first) in all.take() {
            for handle in [a, b] {
                let what = format!("{what}, and some time later");
                let seen = see(cx, handle, &id, &what).await?;
                cx.eq(what, &seen, &first)?;
            }
        }
    }
    Ok(())
}

async fn within_bound<W, S>(
    cx: &Cx<W>,
    bound: Option<Duration>,
    a: &S,
    b: &S,
    all: &[Overtaken],
) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    match bound {
        Some(bound) if bound > REAL_WAIT_MAX => {
            let why = format!("the declared bound of {bound:?} is too long to be waited for");
            return Err(Stop::Ignored(why));
        }
        Some(bound) => tokio::time::sleep(bound).await,
        None => cx.settle().await,
    }
    let mut first = Vec::new();
    for row in all {
        let seen = see(cx, b, &row.id, &row.what).await?;
        let known = seen == row.acknowledged || seen == row.landed;
        let expected = format!("{}, or {}", brief(&row.acknowledged), brief(&row.landed));
        cx.require(known, &row.what, brief(&seen), expected)?;
        first.push(seen);
    }
    if bound.is_none() {
        return Ok(());
    }
    cx.settle().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    for (row, first) in all.iter().zip(&first) {
        let seen = see(cx, a, &row.id, &row.what).await?;
        let what = format!("{}, after the bound and once more later", row.what);
        cx.eq(what, &seen, first)?;
    }
    Ok(())
}

/// A put whose stream waits at its second piece until the gate is closed for good.
fn stalled<S: Subject>(
    handle: &S,
    id: &ObjectId,
    gate: &Arc<Semaphore>,
) -> BoxFuture<'static, Result<(), BackendError>> {
    let (store, id, gate) = (handle.plain().clone(), id.clone(), Arc::clone(gate));
    let rest = stream::once(async move {
        // It has no permits; what ends the wait is that it is closed.
        drop(gate.acquire().await);
        Ok(Bytes::from_static(b"second"))
    });
    let first = stream::iter([Ok(Bytes::from_static(b"first "))]);
    let stream = first.chain(rest).boxed();
    async move {
        let metadata = metadata_of("stalled");
        store
            .try_put_stream(&id, &metadata, "a stream that stalls", stream)
            .await
    }
    .boxed()
}

/// C-6.4.
pub(in crate::checks) async fn queued<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let stalls = cx.caps.in_flight_max.unwrap_or(4).min(64);
    let all = cases::<S, W>(cx);
    for round in 0..cx.times(4, 2) {
        let gate = Arc::new(Semaphore::new(0));
        let id = name(&format!("queue-{round}"));
        let mut calls: Vec<BoxFuture<'static, Result<(), BackendError>>> = Vec::new();
        for _ in 0..stalls {
            calls.push(stalled(a, &id, &gate));
        }
        for nth in 0..24 {
            let (handle, id) = ([a, b][nth % 2 * (round % 2)].clone(), id.clone());
            let call = all[(nth + 7 * round) % all.len()].call.clone();
            calls.push(async move { handle.make(&id, &call).await.map(drop) }.boxed());
        }
        let mut waiting = Vec::new();
        for (nth, mut call) in calls.into_iter().enumerate() {
            if poll_once(&mut call).await.is_none() {
                waiting.push((nth, call));
            }
            tokio::task::yield_now().await;
        }
        // Of those that wait their turn every third one leaves, and of those that hold everything up the first.
        waiting.retain(|(nth, _)| *nth != 0 && (*nth < stalls || nth % 3 != round % 3));
        gate.close();
        let bound = PATIENCE * 2;
        let what = "the calls that waited in line with some that were dropped";
        let rest = join_all(waiting.into_iter().map(|(_, call)| call));
        for result in cx.within(bound, what, rest).await? {
            match result {
                Err(e) if (e.kind(), e.outcome()) != (ErrorKind::Timeout, Effect::NotApplied) => {
                    return Err(Stop::error(what, &e));
                }
                _ => {}
            }
        }
        goes_on(cx, PATIENCE, what, [a, b]).await?;
    }
    Ok(())
}
