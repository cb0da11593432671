//! C-6: calls that are dropped. The checks stand in the table of `common`; what lands late is in `landing`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use larder_traits::{Classify, ErrorKind, ExternalError, Outcome as Effect};
use proptest::prelude::*;

use super::methods::{Method, READS, Told, WRITES, Watched, only_known_keys, recovered, watch};
use super::{fill, get_is, list_is};
use crate::blob_multi::{Handle, World};
use crate::check::{Outcome, Stop};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::engine::cancel::{poll_then_drop, sweep};
use crate::model::blob_multi::Blobs;

/// How soon calls that nothing is in the way of have ended, many of them at once.
const ENDS: Duration = Duration::from_secs(10);

/// The drops of C-6.1 and what they may have left.
struct Drops<'a> {
    cx: &'a Cx<dyn World>,
    a: Handle,
    b: Handle,
    watched: Mutex<Vec<Watched>>,
}

pub(super) async fn c_6_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let watched = Mutex::default();
    let drops = Drops { cx, a, b, watched };
    let (new, old) = (pattern("new", 70_000), pattern("old", 5_000));
    let (new, old) = (Bytes::from(new), Bytes::from(old));
    for method in WRITES {
        for old in [None, Some(&old)] {
            sweep(|polls| drops.write(method, polls, old, &new)).await?;
        }
    }
    let reads = cx.open_as("reads", "q").await?;
    let mut model = Blobs::default();
    for (key, len) in [("k", 70_000), ("k/x", 10), ("l", 0)] {
        fill(&reads, &mut model, key, "6.1", len).await?;
    }
    for method in READS {
        sweep(|polls| read_dropped(cx, &reads, method, polls, &model)).await?;
    }
    cx.settle().await;
    let watched = drops
        .watched
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    watch(&[&drops.a, &drops.b], &watched, Duration::ZERO).await?;
    only_known_keys(&drops.b, &watched).await?;
    for (writer, reader) in [(&drops.a, &drops.b), (&drops.b, &drops.a)] {
        writer.set("after_all", writer.name()).await?;
        let seen = reader.get("after_all").await?;
        cx.eq("get(\"after_all\")", &seen, &Some(writer.name().into()))?;
    }
    Ok(())
}

impl Drops<'_> {
    /// Drops a write after so many polls; whether it ran to its end.
    async fn write(
        &self,
        method: Method,
        polls: usize,
        old: Option<&Bytes>,
        new: &Bytes,
    ) -> Result<bool, Stop> {
        let was = if old.is_some() { "there" } else { "absent" };
        let key = format!("{}/{was}/{polls}", method.word());
        if let Some(old) = old {
            self.b.set(&key, old.clone()).await?;
        }
        let call = method.call(&self.a, Handle::ample(), &key, new);
        let answer = poll_then_drop(polls, call).await;
        let story = format!(
            "{} {}",
            method.word(),
            told(self.cx, polls, answer.as_ref())
        );
        let old = old.cloned();
        let new = method.leaves(new);
        let allowed = match &answer {
            // The call was never begun.
            None if polls == 0 => vec![old],
            Some(Ok(_)) => vec![new],
            Some(Err(e)) if e.outcome() == Effect::NotApplied => vec![old],
            // Torn or not, it answers.
            None | Some(Err(_)) if method.may_tear() => Vec::new(),
            None | Some(Err(_)) => vec![old, new],
        };
        let watched = Watched {
            key,
            allowed,
            story,
        };
        for handle in [&self.a, &self.b] {
            let what = format!("a get on handle {} after {}", handle.name(), watched.story);
            let look = watched.look(handle);
            self.cx.within(self.cx.soon(), what, look).await??;
        }
        let mut all = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(watched);
        Ok(answer.is_some())
    }
}

/// Logs how a call that was polled so often ended, and says it.
fn told(cx: &Cx<dyn World>, polls: usize, answer: Option<&Result<Told, ExternalError>>) -> String {
    let story = match answer {
        None => format!("dropped after {polls} polls"),
        Some(Ok(_)) => "that was answered with Ok".into(),
        Some(Err(e)) => format!("that failed as {:?}", e.outcome()),
    };
    cx.log().push(format!("-- a call {story} --"));
    story
}

async fn read_dropped(
    cx: &Cx<dyn World>,
    handle: &Handle,
    method: Method,
    polls: usize,
    model: &Blobs,
) -> Result<bool, Stop> {
    let none = Bytes::new();
    let call = method.call(handle, Handle::ample(), "k", &none);
    let answer = poll_then_drop(polls, call).await;
    let story = told(cx, polls, answer.as_ref());
    if let Some(Ok(told)) = &answer {
        method.right(told, "k", model)?;
    }
    let what = format!("the next {} after one {story}", method.word());
    let next = async {
        let call = || method.call(handle, Handle::ample(), "k", &none);
        let told = recovered(method.word(), call).await?;
        method.right(&told, "k", model)
    };
    cx.within(cx.soon(), what, next).await??;
    Ok(answer.is_some())
}

/// Twice the size of the pool, or of the largest that is usual.
fn many(cx: &Cx<dyn World>) -> usize {
    const POOL: usize = 32;
    const POOL_MAX: usize = 1_000;
    cx.caps.in_flight_max.unwrap_or(POOL).clamp(POOL, POOL_MAX) * 2
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Told, ExternalError>> + Send + 'a>>;

/// Polls a call once; itself, if it is not over by that.
async fn begun(mut call: Running<'_>) -> Result<Running<'_>, Result<Told, ExternalError>> {
    poll_fn(|context| {
        Poll::Ready(match call.as_mut().poll(context) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        })
    })
    .await
    .map_or(Ok(call), Err)
}

/// The methods in turn; `at` also makes the key.
fn nth(at: usize) -> (Method, String) {
    let all = WRITES.iter().chain(&READS);
    let method = *all.clone().nth(at % all.count()).expect("a rest is less");
    (method, format!("n{}", at % 5))
}

pub(super) async fn c_6_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let value = Bytes::from(pattern("6.2", 3_000));
    a.set("k", value.clone()).await?;
    // One after the other, at each of the first polls.
    for at in 0..many(cx) {
        let (method, key) = nth(at / 4);
        let call = method.call(&a, Handle::ample(), &key, &value);
        drop(poll_then_drop(at % 4, call).await);
    }
    still_works(cx, &a, &b, "one by one").await?;
    // All under way at the same time, so that most of them wait in whatever queue there is.
    for round in 0..3 {
        let mut running = Vec::new();
        for at in 0..many(cx) {
            let (method, key) = nth(at);
            let (handle, value) = (a.clone(), value.clone());
            let call: Running<'_> =
                Box::pin(async move { method.call(&handle, Handle::ample(), &key, &value).await });
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
        still_works(cx, &a, &b, "at once").await?;
    }
    Ok(())
}

async fn still_works(cx: &Cx<dyn World>, a: &Handle, b: &Handle, how: &str) -> Outcome {
    for (writer, reader) in [(a, b), (b, a)] {
        let value = pattern(&format!("{} {how}", writer.name()), 900);
        let calls = async {
            writer.set("k", value.clone()).await?;
            let seen = reader.get("k").await?;
            cx.eq("get(\"k\")", &seen, &Some(value.clone()))?;
            writer.delete("k").await?;
            let listed = reader.list().await?;
            let gone = listed.iter().all(|key| key != "k");
            cx.require(gone, "list_keys()", format!("{listed:?}"), "no \"k\"")
        };
        let what = format!("calls after {} were dropped {how}", many(cx));
        cx.within(ENDS, what, calls).await??;
    }
    Ok(())
}

/// A set under way, and what it sets.
struct Queued<'a> {
    call: Running<'a>,
    key: String,
    value: Bytes,
}

pub(super) async fn c_6_4(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut rng = cx.rng();
    let mut keys = Vec::new();
    for round in 0..cx.times(24, 6) {
        // A few, or so many that they queue.
        let count = if round % 2 == 0 { 5 } else { many(cx) / 2 + 8 };
        // Each on its own key, or all on one.
        let own = round % 4 < 2;
        let key_of = |at| format!("r{round}/{}", if own { at } else { 0 });
        keys.extend((0..count).map(key_of));
        let mut running = begin(&a, (0..count).map(key_of)).await?;
        for _ in 0..round % 3 {
            tokio::task::yield_now().await;
        }
        if round % 6 == 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if running.len() > 1 {
            let victim = match round % 3 {
                0 => 0,
                _ => rng.random_range(0..running.len()),
            };
            drop(running.remove(victim));
        }
        for (key, value) in others_end(cx, running).await? {
            if own {
                get_is(&b, &key, Some(&value)).await?;
            }
        }
    }
    cx.settle().await;
    keys.sort();
    keys.dedup();
    for key in &keys {
        b.set(key, "again").await?;
    }
    list_is(&a, keys).await
}

/// Begins a set of each key; those that were not over at once.
async fn begin(
    handle: &Handle,
    keys: impl Iterator<Item = String>,
) -> Result<Vec<Queued<'_>>, Stop> {
    let mut running = Vec::new();
    for (at, key) in keys.enumerate() {
        let value = Bytes::from(pattern(&key, 200 + at));
        let call: Running<'_> = {
            let (key, value) = (key.clone(), value.clone());
            let deadline = Handle::ample();
            Box::pin(async move { WRITES[at % 2].call(handle, deadline, &key, &value).await })
        };
        match begun(call).await {
            Ok(call) => running.push(Queued { call, key, value }),
            Err(answer) => drop(in_its_turn(answer)?),
        }
    }
    Ok(running)
}

/// A store may be out of reach for a moment; whether the call had its effect.
fn in_its_turn(answer: Result<Told, ExternalError>) -> Result<bool, Stop> {
    match answer {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::Unavailable => Ok(false),
        Err(e) => Err(Stop::error("a set beside others, one of them dropped", &e)),
    }
}

/// Waits for all of them; what was set.
async fn others_end(
    cx: &Cx<dyn World>,
    running: Vec<Queued<'_>>,
) -> Result<Vec<(String, Bytes)>, Stop> {
    let what = format!("the other {} calls, after one was dropped", running.len());
    let ends = running
        .into_iter()
        .map(|queued| async { (queued.call.await, queued.key, queued.value) });
    let mut set = Vec::new();
    for (answer, key, value) in cx.within(ENDS, what, join_all(ends)).await? {
        if in_its_turn(answer)? {
            set.push((key, value));
        }
    }
    Ok(set)
}
