//! The bodies of the checks that drop calls: C-6.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use larder_traits::{Change, Fault, LateLanding};
use proptest::prelude::*;

use super::cases::{Case, Method, Seen};
use super::{at, change, for_ever, id, writer};
use crate::change_log::{Handle, World};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::engine::cancel::{POLLS_MAX, poll_then_drop};

/// How soon every handle has to answer after a call was dropped.
const PROMPTLY: Duration = Duration::from_secs(1);

/// Fails unless what is seen may be: the old, until once the new was seen.
fn judge(what: &str, seen: Seen, may_be_old: &mut bool, may_be_new: bool) -> Outcome {
    let is_old = seen.may_be_old && *may_be_old;
    let is_new = seen.may_be_new && may_be_new;
    if is_old || is_new {
        *may_be_old &= seen.may_be_old;
        return Ok(());
    }
    let observed = if seen.may_be_old {
        "without effect"
    } else {
        "with effect"
    };
    let expected = match (*may_be_old, may_be_new) {
        (true, _) => "without effect: it was never begun",
        (false, _) => "with effect: it was seen, or acknowledged",
    };
    Err(Stop::fail(what, observed, expected))
}

pub(super) async fn c_6_1(cx: &Cx<dyn World>) -> Outcome {
    for method in Method::ALL {
        let (a, b) = cx.open_two(method.place()).await?;
        a.renew(writer(7_000), for_ever()).await?;
        let mut cases = Vec::new();
        let mut number = 0;
        for is_there in [true, false] {
            for polls in 0..POLLS_MAX {
                number += 1;
                let case =
                    Case::prepare(&a, method, number, is_there, cx.caps.late_landing).await?;
                let line = format!("{method:?}, {is_there}: dropped after {polls} polls");
                cx.log().push(line);
                let answer = poll_then_drop(polls, case.call(&a)).await;
                let is_done = answer.is_some();
                let what = format!("after {method:?} was dropped at its poll {polls}");
                if let Some(result) = answer {
                    let answer = result.map_err(|e| Stop::error(format!("{method:?}"), &e))?;
                    case.judge(&what, &answer)?;
                }
                let (mut may_be_old, may_be_new) = (!is_done, polls > 0);
                // The other handle first, and a record beside it: no lock may stay behind.
                for reader in [&b, &a] {
                    let seen = cx
                        .within(PROMPTLY, &what, case.look(&what, reader))
                        .await??;
                    judge(&what, seen, &mut may_be_old, may_be_new)?;
                    let (by, beside) = (writer(7_000), change(7_000, number));
                    let record = reader.record(by, &beside);
                    cx.within(PROMPTLY, &what, record).await??;
                    reader.complete(by, beside.id).await?;
                }
                case.close(&a).await?;
                cases.push((case, may_be_old, may_be_new));
                if is_done {
                    break;
                }
            }
        }
        cx.settle().await;
        for (case, may_be_old, may_be_new) in &mut cases {
            for reader in [&a, &b] {
                let what = format!("{method:?}, dropped, later");
                let seen = case.look(&what, reader).await?;
                judge(&what, seen, may_be_old, *may_be_new)?;
            }
        }
    }
    lasting_leases(cx).await
}

/// C-6.1: a lease that lasts goes on lasting while it is renewed, also by a call that is dropped.
async fn lasting_leases(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("lasting").await?;
    let (heir, end) = (writer(9_000), 5_000);
    for (polls, number) in (1..POLLS_MAX).zip(0..) {
        let (by, own) = (writer(number), change(number, 0));
        a.renew(by, at(end)).await?;
        a.record(by, &own).await?;
        let renewed = poll_then_drop(polls, a.try_renew(by, for_ever())).await;
        for reader in [&b, &a] {
            let what = format!("a claim after a renewal was dropped at its poll {polls}");
            let taken = reader.claim(heir, at(end - 1), usize::MAX).await?;
            cx.eq(what, &taken, &Vec::new())?;
        }
        if renewed.is_some() {
            break;
        }
    }
    cx.settle().await;
    let taken = b.claim(heir, at(end - 1), usize::MAX).await?;
    cx.eq("a claim later", &taken, &Vec::new())
}

/// One call of each method, about one change of one writer.
fn call(handle: &Handle, method: Method, number: u64) -> BoxFuture<'_, Result<(), Fault>> {
    let (by, other) = (writer(number), writer(number + 1_000));
    match method {
        Method::Record => async move { handle.try_record(by, &change(number, 4)).await }.boxed(),
        Method::Complete => async move { handle.try_complete(by, id(number)).await }.boxed(),
        Method::Changes => async move { handle.try_changes(by).await.map(drop) }.boxed(),
        Method::Renew => async move { handle.try_renew(by, for_ever()).await }.boxed(),
        // At a time when everybody has a lease.
        Method::Claim => async move { handle.try_claim(other, at(0), 3).await.map(drop) }.boxed(),
    }
}

/// More drops than any usual pool has places.
const DROPS_MIN: usize = 64;
const DROPS_MAX: usize = 4_096;

pub(super) async fn c_6_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.renew(writer(1), for_ever()).await?;
    let drops = 2 * cx.caps.in_flight_max.unwrap_or_default();
    let drops = drops.clamp(DROPS_MIN, DROPS_MAX);
    for polls in [1, 2, 3, 5] {
        for at in 0..drops {
            let method = Method::ALL[at % Method::ALL.len()];
            let handle = if at % 7 == 6 { &b } else { &a };
            // An answer, where it came to one, is as good as any.
            drop(poll_then_drop(polls, call(handle, method, 1)).await);
        }
        all_answer(cx, &format!("after {drops} drops, one by one"), [&a, &b]).await?;
    }
    // As many at once, each begun, and then all dropped together.
    let mut begun: Vec<_> = (0..drops)
        .map(|at| call(&a, Method::ALL[at % Method::ALL.len()], 1))
        .collect();
    for call in &mut begun {
        poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
    }
    drop(begun);
    all_answer(cx, &format!("after {drops} drops at once"), [&a, &b]).await?;
    cx.settle().await;
    all_answer(cx, "after the drops, later", [&a, &b]).await?;
    // As many as may be in flight, and not one less.
    let count = cx.caps.in_flight_max.unwrap_or(16).min(DROPS_MAX);
    let numbers = 0..u64::try_from(count).unwrap_or_default();
    let calls = numbers.map(|n| {
        let (a, b, by) = (&a, &b, writer(20_000 + n));
        async move {
            let own = change(20_000 + n, 0);
            a.record(by, &own).await?;
            b.expect("recorded beside many", by, &[own]).await
        }
    });
    let ended = cx.within(10 * PROMPTLY, "as many calls as allowed", join_all(calls));
    ended.await?.into_iter().collect()
}

async fn all_answer(cx: &Cx<dyn World>, what: &str, handles: [&Handle; 2]) -> Outcome {
    for handle in handles {
        for method in Method::ALL {
            let asked = format!("{method:?} {what}");
            let answer = cx.within(PROMPTLY, &asked, call(handle, method, 1)).await?;
            answer.map_err(|e| Stop::error(asked, &e))?;
        }
    }
    Ok(())
}

pub(super) async fn c_6_3(cx: &Cx<dyn World>) -> Outcome {
    if cx.caps.late_landing != LateLanding::Fenced {
        let why = "declares that a dropped call may land late (C-6)";
        return Err(Stop::Ignored(why.into()));
    }
    let (a, b) = cx.open_two("p").await?;
    let owner = writer(1);
    a.renew(owner, for_ever()).await?;
    let (mut number, mut left) = (0, Vec::new());
    for (dropped, later) in [
        (Method::Record, Method::Record),
        (Method::Record, Method::Complete),
        (Method::Complete, Method::Record),
    ] {
        for same in [false, true] {
            for polls in 1..POLLS_MAX {
                number += 1;
                a.record(owner, &change(number, 0)).await?;
                let line = format!("{dropped:?} of {number}: dropped after {polls} polls");
                cx.log().push(line);
                let stale = change(number, 1);
                let call = match dropped {
                    Method::Record => a.try_record(owner, &stale).boxed(),
                    _ => a.try_complete(owner, stale.id).boxed(),
                };
                let is_done = poll_then_drop(polls, call).await.is_some();
                let handle = if same { &a } else { &b };
                let what = "a call after a dropped one";
                match later {
                    Method::Record => {
                        let latest = change(number, 2);
                        let call = handle.record(owner, &latest);
                        cx.within(PROMPTLY, what, call).await??;
                        left.push(latest);
                    }
                    _ => {
                        let call = handle.complete(owner, id(number));
                        cx.within(PROMPTLY, what, call).await??;
                    }
                }
                if is_done {
                    break;
                }
            }
        }
    }
    let claims = claims_dropped(cx).await?;
    for _ in 0..2 {
        cx.settle().await;
        for reader in [&a, &b] {
            let what = "after dropped calls, each with an acknowledged one behind it (Fenced)";
            reader.expect(what, owner, &left).await?;
        }
        for (handle, seen) in &claims {
            let what = "after a dropped claim, and a call that was answered after it (Fenced)";
            handle.expect(what, owner, seen).await?;
        }
    }
    Ok(())
}

/// Claims that are dropped, each in a place of its own, and what their owner had left after a later call.
async fn claims_dropped(cx: &Cx<dyn World>) -> Result<Vec<(Handle, Vec<Change>)>, Stop> {
    let (owner, heir) = (writer(1), writer(2));
    let mut left = Vec::new();
    for polls in 1..POLLS_MAX {
        let (a, b) = cx.open_two(&format!("claim{polls}")).await?;
        a.record(owner, &change(1, 0)).await?;
        cx.log().push(format!("Claim: dropped after {polls} polls"));
        let claim = a.try_claim(heir, at(0), usize::MAX);
        let is_done = poll_then_drop(polls, claim).await.is_some();
        let what = "a call after a dropped claim";
        let beside = change(2, 0);
        let record = b.record(owner, &beside);
        cx.within(PROMPTLY, what, record).await??;
        let seen = cx.within(PROMPTLY, what, b.changes(owner)).await??;
        left.push((b, seen));
        if is_done {
            break;
        }
    }
    Ok(left)
}

pub(super) async fn c_6_4(cx: &Cx<dyn World>) -> Outcome {
    const QUEUED_MIN: usize = 24;
    const QUEUED_MAX: usize = 1_000;
    const ENDED: Duration = Duration::from_secs(5);
    let (a, b) = cx.open_two("p").await?;
    let mut rng = cx.rng();
    let count = cx.caps.in_flight_max.unwrap_or_default() + 10;
    let count = count.clamp(QUEUED_MIN, QUEUED_MAX);
    // So that the claims take nothing from anybody.
    let numbers = (0..u64::try_from(count).unwrap_or_default()).chain([9_000]);
    let leases = numbers.map(|number| a.renew(writer(number), for_ever()));
    let leased = join_all(leases).await;
    leased.into_iter().collect::<Outcome>()?;
    for round in 0..12 {
        let mut calls: Vec<_> = (0..count)
            .map(|at| {
                let handle = if at % 5 == 4 { &b } else { &a };
                let method = Method::ALL[(at + round) % Method::ALL.len()];
                // In turn about one change, and about as many as there are calls.
                let number = if round % 2 == 0 { 0 } else { at };
                let number = u64::try_from(number).unwrap_or_default();
                Some(call(handle, method, number))
            })
            .collect();
        let mut answers = Vec::new();
        for polls in 0..=round % 3 {
            for (at, call) in calls.iter_mut().enumerate() {
                let Some(waiting) = call else { continue };
                let polled = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await;
                if let Poll::Ready(answer) = polled {
                    answers.push(answer);
                    *call = None;
                } else if polls == round % 3 && (at == round || rng.random_range(0..4) == 0) {
                    *call = None;
                }
            }
            tokio::task::yield_now().await;
        }
        let left = calls.into_iter().flatten();
        let what = format!("calls that wait beside dropped ones, round {round}");
        answers.extend(cx.within(ENDED, what, join_all(left)).await?);
        for answer in answers {
            answer.map_err(|e| Stop::error("a call beside dropped ones", &e))?;
        }
        let after = change(9_000, u64::try_from(round).unwrap_or_default());
        let record = b.record(writer(9_000), &after);
        cx.within(PROMPTLY, "a call after them", record).await??;
        let what = "a call after them";
        a.expect(what, writer(9_000), &[after]).await?;
    }
    Ok(())
}
