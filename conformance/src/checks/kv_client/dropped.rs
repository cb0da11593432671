//! The bodies of the checks that drop calls: C-6.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use larder_traits::{KvClientError, LateLanding};
use proptest::prelude::*;

use super::bytes;
use crate::check::{Outcome, Stop};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::engine::cancel::{POLLS_MAX, poll_then_drop};
use crate::engine::time;
use crate::kv_client::{Handle, World, show_value};

/// How soon every handle has to answer after a call was dropped.
const PROMPTLY: Duration = Duration::from_secs(1);
const LONG_SECS: u64 = 86_400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Put,
    PutWithTtl,
    Get,
    GetMulti,
    Delete,
}

impl Method {
    pub(super) const ALL: [Self; 5] = [
        Self::Put,
        Self::PutWithTtl,
        Self::Get,
        Self::GetMulti,
        Self::Delete,
    ];

    pub(super) fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::GetMulti)
    }

    /// What the key holds after this call, over `old`.
    pub(super) fn after(self, old: Option<&[u8]>, new: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Put | Self::PutWithTtl => Some(new.to_vec()),
            Self::Get | Self::GetMulti => old.map(<[u8]>::to_vec),
            Self::Delete => None,
        }
    }

    /// One such call; the answer of a read is let go of.
    fn call<'a>(
        self,
        handle: &'a Handle,
        key: &'a str,
        value: &'a [u8],
    ) -> BoxFuture<'a, Result<(), KvClientError>> {
        let name = key.as_bytes();
        match self {
            Self::Put => handle.try_put(name, value).boxed(),
            Self::PutWithTtl => handle.try_put_with_ttl(name, value, LONG_SECS).boxed(),
            Self::Get => async move { handle.try_get(name).await.map(drop) }.boxed(),
            Self::GetMulti => {
                async move { handle.try_get_multi(&[bytes(name)]).await.map(drop) }.boxed()
            }
            Self::Delete => handle.try_delete(name).boxed(),
        }
    }
}

type State = Option<Vec<u8>>;

fn shown(state: &State) -> String {
    let value = state.as_ref().map(bytes);
    show_value(value.as_ref())
}

/// A key that a dropped call was about, and what it may hold: the first state, then the second.
struct Watched {
    key: String,
    states: [State; 2],
    /// The first state that may still be seen: what a call brought about does not go away again.
    from: usize,
}

impl Watched {
    /// Both handles answer promptly, with both reads, and with one of the states.
    async fn look(&mut self, cx: &Cx<dyn World>, what: &str, readers: [&Handle; 2]) -> Outcome {
        for reader in readers {
            let key = bytes(&self.key);
            let asked = format!("{what}: get({:?})", self.key);
            let single = cx.within(PROMPTLY, &asked, reader.get(&key)).await??;
            self.judge(&asked, single.map(Vec::from))?;
            let asked = format!("{what}: get_multi([{:?}])", self.key);
            let keys = [key];
            let many = cx.within(PROMPTLY, &asked, reader.get_multi(&keys));
            let seen = many.await??.into_iter().next().flatten();
            self.judge(&asked, seen.map(Vec::from))?;
        }
        Ok(())
    }

    fn judge(&mut self, what: &str, seen: State) -> Outcome {
        let allowed = &self.states[self.from..];
        let Some(at) = allowed.iter().position(|state| *state == seen) else {
            let allowed: Vec<String> = allowed.iter().map(shown).collect();
            return Err(Stop::fail(what, shown(&seen), allowed.join(" or ")));
        };
        self.from += at;
        Ok(())
    }
}

pub(super) async fn c_6_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut watched = Vec::new();
    for method in Method::ALL {
        for is_there in [true, false] {
            for polls in 0..POLLS_MAX {
                let key = format!("{method:?} {is_there} {polls}");
                let old = is_there.then(|| pattern(&format!("old {key}"), 5_000));
                if let Some(old) = &old {
                    a.put(&key, old).await?;
                }
                let new = pattern(&format!("new {key}"), 3_000);
                cx.log().push(format!("{key}: dropped after {polls} polls"));
                let answer = poll_then_drop(polls, method.call(&a, &key, &new)).await;
                let is_done = answer.is_some();
                if let Some(result) = answer {
                    result.map_err(|e| Stop::error(format!("{method:?}"), &e))?;
                }
                let after = method.after(old.as_deref(), &new);
                let states = match (polls, is_done) {
                    (0, _) => [old.clone(), old],
                    (_, true) => [after.clone(), after],
                    (_, false) => [old, after],
                };
                let mut entry = Watched {
                    key,
                    states,
                    from: 0,
                };
                let what = format!("after {method:?} was dropped at its poll {polls}");
                // The other handle first, and a write beside it: no lock may stay behind.
                entry.look(cx, &what, [&b, &a]).await?;
                cx.within(PROMPTLY, &what, a.put("beside a", &new))
                    .await??;
                cx.within(PROMPTLY, &what, b.put("beside b", &new))
                    .await??;
                watched.push(entry);
                if is_done {
                    break;
                }
            }
        }
    }
    cx.settle().await;
    for entry in &mut watched {
        entry.look(cx, "later", [&a, &b]).await?;
        let what = format!("a put of {:?} later", entry.key);
        cx.within(PROMPTLY, what, b.put(&entry.key, "last"))
            .await??;
        a.expect("a put over it", &entry.key, Some(b"last")).await?;
    }
    Ok(())
}

/// More drops than any usual pool has places.
const DROPS_MIN: usize = 64;
const DROPS_MAX: usize = 4_096;

pub(super) async fn c_6_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.put("k", "old").await?;
    let drops = 2 * cx.caps.in_flight_max.unwrap_or_default();
    let drops = drops.clamp(DROPS_MIN, DROPS_MAX);
    for polls in [1, 2, 3, 5] {
        for at in 0..drops {
            let method = Method::ALL[at % Method::ALL.len()];
            let handle = if at % 7 == 6 { &b } else { &a };
            // An answer, where it came to one, is as good as any.
            drop(poll_then_drop(polls, method.call(handle, "k", b"new")).await);
        }
        all_answer(cx, &format!("after {drops} drops, one by one"), [&a, &b]).await?;
    }
    // As many at once, each begun, and then all dropped together.
    let mut begun: Vec<_> = (0..drops)
        .map(|at| Method::ALL[at % Method::ALL.len()].call(&a, "k", b"new"))
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
    let calls = (0..count).map(|at| {
        let key = format!("together {at}");
        let (a, b) = (&a, &b);
        async move {
            a.put(&key, "v").await?;
            b.expect("put beside many", &key, Some(b"v")).await
        }
    });
    let ended = cx.within(10 * PROMPTLY, "as many calls as allowed", join_all(calls));
    ended.await?.into_iter().collect()
}

async fn all_answer(cx: &Cx<dyn World>, what: &str, handles: [&Handle; 2]) -> Outcome {
    for handle in handles {
        for method in Method::ALL {
            let asked = format!("{method:?} {what}");
            let answer = cx.within(PROMPTLY, &asked, method.call(handle, "k", b"new"));
            answer.await?.map_err(|e| Stop::error(asked, &e))?;
        }
    }
    Ok(())
}

/// A write that was dropped and one that was acknowledged after it.
#[derive(Clone, Copy, Debug)]
struct Pair {
    dropped: Method,
    later: Method,
}

const PAIRS: [Pair; 4] = [
    Pair {
        dropped: Method::Put,
        later: Method::Put,
    },
    Pair {
        dropped: Method::Put,
        later: Method::Delete,
    },
    Pair {
        dropped: Method::Delete,
        later: Method::Put,
    },
    Pair {
        dropped: Method::PutWithTtl,
        later: Method::PutWithTtl,
    },
];

pub(super) async fn c_6_3(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    // What the later write left, and what the dropped one would.
    let mut kept: Vec<(String, State, State)> = Vec::new();
    for pair in PAIRS {
        for same in [false, true] {
            for polls in 1..POLLS_MAX {
                let key = format!("{:?} {:?} {same} {polls}", pair.dropped, pair.later);
                let first = pattern(&format!("dropped {key}"), 2_000);
                let second = pattern(&format!("later {key}"), 700);
                a.put(&key, "old").await?;
                cx.log().push(format!("{key}: dropped after {polls} polls"));
                let call = pair.dropped.call(&a, &key, &first);
                let is_done = poll_then_drop(polls, call).await.is_some();
                let handle = if same { &a } else { &b };
                let later = pair.later.call(handle, &key, &second);
                let result = cx.within(PROMPTLY, "the later write", later).await?;
                result.map_err(|e| Stop::error("the later write", &e))?;
                let left = pair.later.after(Some(b"old"), &second);
                let stale = pair.dropped.after(Some(b"old"), &first);
                kept.push((key, left, stale));
                if is_done {
                    break;
                }
            }
        }
    }
    cx.settle().await;
    match cx.caps.late_landing {
        LateLanding::Fenced => stays(cx, [&a, &b], &kept).await,
        LateLanding::MayLandLate(bound) => whole_and_then_quiet(cx, [&b, &a], &kept, bound).await,
    }
}

async fn stays(
    cx: &Cx<dyn World>,
    readers: [&Handle; 2],
    kept: &[(String, State, State)],
) -> Outcome {
    for reader in readers {
        for (key, left, _) in kept {
            let what = "after a dropped write, then an acknowledged one, and time (Fenced)";
            reader.expect(what, key, left.as_deref()).await?;
        }
    }
    cx.settle().await;
    let keys: Vec<_> = kept.iter().map(|(key, ..)| bytes(key)).collect();
    let many = readers[0].get_multi(&keys).await?;
    for ((key, left, _), seen) in kept.iter().zip(many) {
        let what = format!("{key:?}, looked at again (Fenced)");
        cx.eq(what, &seen.map(Vec::from), left)?;
    }
    Ok(())
}

async fn whole_and_then_quiet(
    cx: &Cx<dyn World>,
    readers: [&Handle; 2],
    kept: &[(String, State, State)],
    bound: Option<Duration>,
) -> Outcome {
    let mut last: Vec<State> = Vec::new();
    for (key, left, stale) in kept {
        let seen = readers[0].get(key).await?.map(Vec::from);
        cx.require(
            seen == *left || seen == *stale,
            format!("{key:?} after a dropped write and an acknowledged one"),
            shown(&seen),
            format!("{} or {}", shown(left), shown(stale)),
        )?;
        last.push(seen);
    }
    let Some(bound) = bound else { return Ok(()) };
    if bound > time::REAL_WAIT_MAX {
        let why = format!("declares that writes land up to {bound:?} late, more than is waited");
        return Err(Stop::Ignored(why));
    }
    tokio::time::sleep(bound).await;
    for (seen, (key, ..)) in last.iter_mut().zip(kept) {
        *seen = readers[0].get(key).await?.map(Vec::from);
    }
    let started = Instant::now();
    while started.elapsed() < PROMPTLY {
        tokio::time::sleep(PROMPTLY / 5).await;
        for (seen, (key, ..)) in last.iter().zip(kept) {
            let what = format!("{key:?}, longer after a drop than {bound:?}, the declared bound");
            cx.eq(what, &readers[1].get(key).await?.map(Vec::from), seen)?;
        }
    }
    Ok(())
}

pub(super) async fn c_6_4(cx: &Cx<dyn World>) -> Outcome {
    const QUEUED_MIN: usize = 24;
    const QUEUED_MAX: usize = 1_000;
    const ENDED: Duration = Duration::from_secs(5);
    let (a, b) = cx.open_two("p").await?;
    let mut rng = cx.rng();
    let count = cx.caps.in_flight_max.unwrap_or_default() + 10;
    let count = count.clamp(QUEUED_MIN, QUEUED_MAX);
    for round in 0..12 {
        // In turn for one key, for as many keys as there are calls, and for both.
        let keys: Vec<String> = (0..count)
            .map(|at| match round % 3 {
                0 => "one".into(),
                1 => format!("{round} {at}"),
                _ if at % 2 == 0 => "one".into(),
                _ => format!("{round} {at}"),
            })
            .collect();
        let value = format!("of round {round}");
        let mut calls: Vec<_> = (0..count)
            .zip(&keys)
            .map(|(at, key)| {
                let handle = if at % 5 == 4 { &b } else { &a };
                let method = Method::ALL[(at + round) % Method::ALL.len()];
                Some(method.call(handle, key, value.as_bytes()))
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
        let key = format!("after {round}");
        cx.within(PROMPTLY, "a call after them", b.put(&key, "v"))
            .await??;
        a.expect("a call after them", &key, Some(b"v")).await?;
    }
    Ok(())
}
