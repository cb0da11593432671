//! C-6: calls that are dropped. The checks stand in the table of `common`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use larder_traits::stash::{Append, Rows as Wanted, StashDriver, StashDriverExt};
use larder_traits::{Diff, LateLanding, StashError, Timestamp};
use proptest::prelude::*;

use super::methods::{Beyond, READS, Read, Scene, Watched, Write, find, there, watch, writes};
use super::{Names, at, row};
use crate::check::{Outcome, Stop};
use crate::cx::{Cx, brief};
use crate::engine::canary;
use crate::engine::cancel::{POLLS_MAX, poll_then_drop};
use crate::stash::{Handle, World};

/// How soon every handle answers after a drop.
const ANSWERS: Duration = Duration::from_secs(1);

/// How soon calls that nothing is in the way of have ended, many of them at once.
const ENDS: Duration = Duration::from_secs(10);

/// Polls a call so often and drops it; its answer, if it came to one.
async fn dropped<T>(
    cx: &Cx<dyn World>,
    polls: usize,
    call: impl Future<Output = T>,
) -> Result<Option<T>, Stop> {
    let what = format!("a call that is to be dropped after {polls} polls, among others that were");
    cx.within(ENDS, what, poll_then_drop(polls, call)).await
}

pub(super) async fn c_6_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let driver = cx.driver_if_any("p").await?;
    let mut watched = Vec::new();
    for write in writes(&driver) {
        for polls in 0..POLLS_MAX {
            let scene = Scene::new(&mut b, &format!("{write:?} {polls}")).await?;
            let answer = dropped(cx, polls, write.call(&mut a, &driver, &scene)).await?;
            let how = format!("with {polls} polls");
            let after = Watched::after(cx, scene, write, answer.as_ref(), polls > 0, &how);
            for handle in [&mut a, &mut b] {
                let what = format!("reads on {} after {}", handle.name(), after.story);
                cx.within(ANSWERS, what, after.look(handle)).await??;
            }
            watched.push(after);
            if answer.is_some() {
                break;
            }
        }
    }
    reads_dropped(cx, &mut a, &mut b).await?;
    let made = creations_dropped(cx, &mut a, &mut b, &driver).await?;
    cx.settle().await;
    watch(&mut [&mut a, &mut b], &watched, Duration::ZERO).await?;
    for (name, c) in made {
        one_and_new(cx, &name, c, [&mut b, &mut a]).await?;
    }
    still_works(cx, &mut a, &mut b, "at each poll").await
}

async fn reads_dropped(cx: &Cx<dyn World>, a: &mut Handle, b: &mut Handle) -> Outcome {
    let scene = Scene::new(b, "reads").await?;
    for read in READS {
        let right = read.right(&scene);
        for polls in 0..POLLS_MAX {
            let answer = dropped(cx, polls, read.call(a, &scene)).await?;
            for handle in [&mut *a, &mut *b] {
                let what = format!("{read:?} after one that was dropped with {polls} polls");
                let next = there(async || read.call(handle, &scene).await);
                let next = cx.within(ANSWERS, what.clone(), next).await??;
                cx.eq(what, &next.as_deref(), &Some(&right[..]))?;
            }
            if let Some(answer) = answer {
                cx.eq(format!("{read:?}"), &answer?, &right)?;
                break;
            }
        }
    }
    Ok(())
}

/// Collections whose making was dropped; the first of them was never begun.
async fn creations_dropped(
    cx: &Cx<dyn World>,
    a: &mut Handle,
    b: &mut Handle,
    driver: &Beyond,
) -> Result<Vec<(String, Names)>, Stop> {
    let mut made = Vec::new();
    for polls in 0..POLLS_MAX {
        let name = format!("made {polls}");
        let answer = dropped(cx, polls, a.collection::<String, String>(&name)).await?;
        cx.log()
            .push(format!("-- a creation with {polls} polls --"));
        if let Some(driver) = driver.as_ref().filter(|_| polls == 0) {
            let names = driver.collections().await;
            let names = names.map_err(|e| Stop::error("collections()", &e))?;
            let there = names.iter().any(|(found, _)| *found == name);
            let what = "collections() after a creation that was never polled";
            cx.require(!there, what, brief(&names), "not that name")?;
        }
        let what = format!("collection({name:?}) after a dropped one");
        let call = there(async || b.collection::<String, String>(&name).await);
        let c = cx.within(ANSWERS, what, call).await??;
        let c = c.ok_or_else(|| Stop::fail("collection", "NoCollection", "a collection"))?;
        one_and_new(cx, &name, c, [&mut *a, &mut *b]).await?;
        made.push((name, c));
        if let Some(answer) = answer {
            cx.eq("the id of one name", &answer?.id(), &c.id())?;
            break;
        }
    }
    Ok(made)
}

/// One name is one collection on both handles, and it is as new.
async fn one_and_new(
    cx: &Cx<dyn World>,
    name: &str,
    c: Names,
    handles: [&mut Handle; 2],
) -> Outcome {
    for handle in handles {
        let again: Names = handle.collection(name).await?;
        cx.eq(format!("the id of {name:?}"), &again.id(), &c.id())?;
        let rows = handle.iter(again).await?;
        cx.eq(format!("the rows of {name:?}"), &rows, &Vec::new())?;
        let first = at(Timestamp::MIN);
        let upper = handle.upper(again).await?;
        cx.eq(format!("upper of {name:?}"), &upper, &first)?;
        let since = handle.since(again).await?;
        cx.eq(format!("since of {name:?}"), &since, &first)?;
    }
    Ok(())
}

/// Twice the size of the pool, or of the largest that is usual.
fn many(cx: &Cx<dyn World>) -> usize {
    const POOL: usize = 32;
    const POOL_MAX: usize = 1_000;
    cx.caps.in_flight_max.unwrap_or(POOL).clamp(POOL, POOL_MAX) * 2
}

type Call<'a> = Pin<Box<dyn Future<Output = Result<(), StashError>> + 'a>>;

/// Polls a call once; itself, if it is not over by that.
async fn begun(mut call: Call<'_>) -> Result<Call<'_>, Result<(), StashError>> {
    poll_fn(|context| {
        Poll::Ready(match call.as_mut().poll(context) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        })
    })
    .await
    .map_or(Ok(call), Err)
}

async fn add(driver: Arc<dyn StashDriver>, c: Names, key: String) -> Result<(), StashError> {
    let mut append = Append::new();
    append.collection(c).update([((key, "v".into()), 100, 1)])?;
    driver.append(append).await
}

async fn peruse(driver: Arc<dyn StashDriver>, c: Names) -> Result<(), StashError> {
    driver.snapshot(c.id(), Wanted::All).await.map(drop)
}

/// Updates that can wait side by side: many on a driver, or one on each handle. `reads` mixes reads among them.
fn side_by_side<'a>(
    driver: &Beyond,
    handles: &'a mut [Handle],
    c: Names,
    keys: &[String],
    reads: bool,
) -> Vec<Call<'a>> {
    if let Some(driver) = driver {
        let calls = keys.iter().enumerate().map(|(n, key)| -> Call<'a> {
            let driver = Arc::clone(driver);
            if reads && n % 3 == 2 {
                Box::pin(peruse(driver, c))
            } else {
                Box::pin(add(driver, c, key.clone()))
            }
        });
        return calls.collect();
    }
    let calls = handles.iter_mut().zip(keys).enumerate();
    calls
        .map(|(n, (handle, key))| -> Call<'a> {
            let key = key.clone();
            Box::pin(async move {
                let result = if reads && n % 3 == 2 {
                    handle.iter(c).await.map(drop)
                } else {
                    handle.update(c, (key, "v".into()), 100, 1).await
                };
                result.map_err(|failed| failed.error)
            })
        })
        .collect()
}

/// Handles for calls at the same time, where there is no driver.
async fn several(cx: &Cx<dyn World>, driver: &Beyond) -> Result<Vec<Handle>, Stop> {
    const HANDLES: usize = 8;
    let mut handles = Vec::new();
    if driver.is_none() {
        for _ in 0..HANDLES {
            handles.push(cx.open_as("one of several", "p").await?);
        }
    }
    Ok(handles)
}

pub(super) async fn c_6_2(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let driver = cx.driver_if_any("p").await?;
    let mut handles = several(cx, &driver).await?;
    let scene = Scene::new(&mut b, "scene").await?;
    let writes: Vec<Write> = writes(&driver)
        .into_iter()
        .filter(|write| *write != Write::Discard)
        .collect();
    // One after the other, at each of the first polls. What becomes of them is of no interest.
    for n in 0..many(cx) {
        let polls = n % 4;
        let which = n / 4 % (writes.len() + READS.len());
        if let Some(write) = writes.get(which) {
            drop(dropped(cx, polls, write.call(&mut a, &driver, &scene)).await?);
        } else {
            let read: Read = READS[which - writes.len()];
            drop(dropped(cx, polls, read.call(&mut a, &scene)).await?);
        }
    }
    still_works(cx, &mut a, &mut b, "one by one").await?;
    // All under way at the same time, so that most of them wait in whatever queue there is.
    for round in 0..3 {
        let keys: Vec<String> = (0..many(cx)).map(|n| format!("{round} {n}")).collect();
        let mut running = Vec::new();
        for call in side_by_side(&driver, &mut handles, scene.ids[0], &keys, true) {
            running.extend(begun(call).await);
        }
        if round > 0 {
            tokio::task::yield_now().await;
        }
        // Those that came first go last in one round, so that the queue is empty when they do.
        if round == 2 {
            running.reverse();
        }
        drop(running);
        still_works(cx, &mut a, &mut b, "at once").await?;
    }
    // Nor is any of them there twice.
    cx.settle().await;
    let rows = a.iter(scene.ids[0]).await?;
    match rows
        .iter()
        .find(|(_, time, diff)| *time == 100 && *diff != 1)
    {
        Some(double) => Err(Stop::fail(
            "a row of a dropped update",
            brief(double),
            "once, or not at all",
        )),
        None => Ok(()),
    }
}

async fn still_works(cx: &Cx<dyn World>, a: &mut Handle, b: &mut Handle, how: &str) -> Outcome {
    let mut handles = [a, b];
    for turn in 0..2 {
        let [writer, reader] = &mut handles;
        let calls = async {
            let c: Names = writer
                .collection(&format!("{} {how}", writer.name()))
                .await?;
            let upper = writer.upper(c).await?;
            let time = upper.as_option().map_or(0, |time| (*time).max(0));
            writer.update(c, ("k".into(), "v".into()), time, 1).await?;
            writer.seal(c, at(time + 1)).await?;
            writer.compact(c, at(time)).await?;
            writer.consolidate(c).await?;
            let rows = vec![("k".to_owned(), "v".to_owned(), time + 1)];
            cx.eq(
                "a peek after calls were dropped",
                &reader.peek(c).await?,
                &rows,
            )
        };
        let what = format!("calls after {} were dropped {how}", many(cx));
        cx.within(ENDS, what, calls).await??;
        if turn == 0 {
            handles.reverse();
        }
    }
    Ok(())
}

/// A scene after a drop and an acknowledged call, which nothing may change from now on.
struct Ended {
    scene: Scene,
    found: super::methods::Found,
    story: String,
}

pub(super) async fn c_6_3(cx: &Cx<dyn World>) -> Outcome {
    const WATCH: Duration = Duration::from_secs(1);
    const BOUND_MAX: Duration = Duration::from_secs(10);
    let bound = match cx.caps.late_landing {
        LateLanding::Fenced => Duration::ZERO,
        LateLanding::MayLandLate(Some(bound)) if bound <= BOUND_MAX => bound,
        LateLanding::MayLandLate(Some(bound)) => {
            let why = format!("declared: late within {bound:?}, for which no check waits");
            return Err(Stop::Ignored(why));
        }
        LateLanding::MayLandLate(None) => {
            return Err(Stop::Ignored("declared: late, and within no bound".into()));
        }
    };
    let (mut a, mut b) = cx.open_two("p").await?;
    let driver = cx.driver_if_any("p").await?;
    let (mut ended, mut waiting) = (Vec::new(), false);
    for write in writes(&driver) {
        for polls in 0..POLLS_MAX {
            let scene = Scene::new(&mut b, &format!("{write:?} {polls}")).await?;
            let answer = dropped(cx, polls, write.call(&mut a, &driver, &scene)).await?;
            let story = format!("{write:?}, dropped after {polls} polls");
            cx.log().push(format!("-- {story} --"));
            acknowledged(&mut b, &scene).await?;
            if answer.is_some() {
                // Nothing was dropped.
                break;
            }
            waiting |= polls > 0;
            let found = find(&mut b, &scene).await?;
            ended.push(Ended {
                scene,
                found,
                story,
            });
        }
    }
    if !bound.is_zero() {
        canary::pass(bound).await;
        for ended in &mut ended {
            ended.found = find(&mut a, &ended.scene).await?;
        }
    }
    cx.settle().await;
    if waiting {
        tokio::time::sleep(WATCH).await;
    }
    for ended in &ended {
        for handle in [&mut a, &mut b] {
            let what = if bound.is_zero() {
                format!("{}, then an acknowledged update, then time", ended.story)
            } else {
                format!("{}, and later than the declared {bound:?}", ended.story)
            };
            cx.eq(what, &find(handle, &ended.scene).await?, &ended.found)?;
        }
    }
    Ok(())
}

/// Writes to both collections at a time that none of the writes seals.
async fn acknowledged(handle: &mut Handle, scene: &Scene) -> Outcome {
    for c in scene.ids {
        let rows = vec![row("acknowledged", "v", 50, 1)];
        match there(async || handle.update_many(c, rows.clone()).await).await? {
            Some(()) => {}
            None => handle_gone(handle, c).await?,
        }
    }
    Ok(())
}

/// A dropped discard may have gone through; then the collection is gone for reads too.
async fn handle_gone(handle: &mut Handle, c: Names) -> Outcome {
    match there(async || handle.iter(c).await).await? {
        None => Ok(()),
        Some(rows) => Err(Stop::fail(
            "iter of a collection that an update has found to be gone",
            brief(&rows),
            "NoCollection",
        )),
    }
}

pub(super) async fn c_6_4(cx: &Cx<dyn World>) -> Outcome {
    const ROUNDS: usize = 18;
    let mut b = cx.open_as("b", "p").await?;
    let driver = cx.driver_if_any("p").await?;
    let mut handles = several(cx, &driver).await?;
    let mut rng = cx.rng();
    let c: Names = b.collection("c").await?;
    let (mut all, mut victims): (Vec<String>, Vec<String>) = Default::default();
    for round in 0..ROUNDS {
        // A few, or so many that they queue.
        let count = if round % 2 == 0 { 5 } else { many(cx) / 2 + 8 };
        let keys: Vec<String> = (0..count).map(|n| format!("r{round} {n}")).collect();
        let calls = side_by_side(&driver, &mut handles, c, &keys, false);
        let mut running = Vec::new();
        for (call, key) in calls.into_iter().zip(keys) {
            match begun(call).await {
                Ok(call) => running.push((call, key.clone())),
                Err(answer) => answer.map_err(|e| Stop::error("an update beside others", &e))?,
            }
            all.push(key);
        }
        for _ in 0..round % 3 {
            tokio::task::yield_now().await;
        }
        if round % 6 == 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if running.len() > 1 {
            // The one at the head of the queue most often: it is the one whose turn others wait for.
            let head = round % 3 == 0;
            let victim = if head {
                0
            } else {
                rng.random_range(0..running.len())
            };
            let (call, key) = running.remove(victim);
            drop(call);
            victims.push(key);
        }
        let what = format!("the others of {count} calls, of which one was dropped");
        let others = join_all(running.into_iter().map(|(call, _)| call));
        for answer in cx.within(ENDS, what, others).await? {
            answer.map_err(|e| Stop::error("an update beside others, one of them dropped", &e))?;
        }
    }
    cx.settle().await;
    let found: Vec<(String, Diff)> = b
        .iter(c)
        .await?
        .into_iter()
        .map(|((key, _), _, diff)| (key, diff))
        .collect();
    for key in &all {
        let sum = found
            .iter()
            .find(|(of, _)| of == key)
            .map_or(0, |(_, diff)| *diff);
        let maybe = victims.contains(key);
        cx.require(
            sum == 1 || maybe && sum == 0,
            format!("how often the row {key:?} is there"),
            sum.to_string(),
            if maybe {
                "once, or not at all: it was dropped"
            } else {
                "once"
            },
        )?;
    }
    Ok(())
}
