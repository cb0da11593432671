//! KV-7 to KV-9: other clients, a server that is away, and a restart.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use larder_traits::{Caps, Classify, Durability, ErrorKind, KvClientError, Outcome as Effect};

use super::{bytes, concurrent, ends, failing, work};
use crate::check::{Check, Engine, Gate, Level, Outcome, Stop, describe};
use crate::checks::seen_once;
use crate::cx::Cx;
use crate::engine::kill::{self, End};
use crate::engine::power;
use crate::kv_client::{Handle, World};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "KV-7.1",
        "each key is a register, with a handle for each client",
    )
    .kills("stale read")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(concurrent::kv_7_1(cx))),
    Check::new(
        "KV-7.2",
        "histories with times to live are those of a register that ends",
    )
    .kills("revival")
    .engines(&[Engine::Lin, Engine::Time])
    .run(|cx| Box::pin(concurrent::kv_7_2(cx))),
    Check::new(
        "KV-7.3",
        "a leader that was paused or cut off does not answer from its past",
    )
    .kills("old leader serves")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(concurrent::kv_7_3(cx))),
    seen_once("KV-7.4").run(|cx| Box::pin(failing::kv_7_4(cx))),
    Check::new(
        "KV-8.1",
        "calls in flight at a shutdown, and every call after it, end as ChannelClosed in a second",
    )
    .kills("hang")
    .run(|cx| Box::pin(kv_8_1(cx))),
    Check::new(
        "KV-8.2",
        "a server that stays silent leads to Timeout within the bound",
    )
    .kills("no timer")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(failing::kv_8_2(cx))),
    Check::new(
        "KV-8.3",
        "a put or delete whose answer is lost is Ok or Unknown",
    )
    .kills("false NotApplied")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(failing::kv_8_3(cx))),
    Check::new(
        "KV-9.1",
        "what was acknowledged is there after the process was dropped, left or killed, as declared",
    )
    .kills("acked in memory")
    .level(Level::Declared)
    .engines(&[Engine::Kill])
    .gate(durable)
    .run(|cx| Box::pin(kv_9_1(cx))),
    Check::new(
        "KV-9.3",
        "what was acknowledged is there after the power went, where that is declared",
    )
    .kills("missing sync")
    .level(Level::Declared)
    .engines(&[Engine::Power])
    .gate(crate::checks::outlives_power)
    .run(|cx| Box::pin(kv_9_3(cx))),
    Check::new(
        "KV-9.2",
        "a time to live over a restart is as declared, and the dead stay dead",
    )
    .kills("ttl restarts")
    .level(Level::Declared)
    .engines(&[Engine::Time])
    .gate(durable)
    .run(|cx| Box::pin(ends::kv_9_2(cx))),
];

fn durable(caps: &Caps) -> Gate {
    if caps.durability == Durability::None {
        Gate::Ignore("declares that nothing outlives the process")
    } else {
        Gate::Run
    }
}

/// How soon a call has to end once its client was shut down.
const PROMPTLY: Duration = Duration::from_secs(1);

fn closed(cx: &Cx<dyn World>, what: &str, e: &KvClientError) -> Outcome {
    cx.require(
        matches!(e, KvClientError::ChannelClosed(_)) && e.kind() == ErrorKind::Closed,
        what,
        describe(e),
        "ChannelClosed",
    )
}

/// Judges one call after the shutdown, and says whether it claims to have had no effect.
async fn after<T>(
    cx: &Cx<dyn World>,
    what: &str,
    call: impl Future<Output = Result<T, KvClientError>>,
) -> Result<Effect, Stop> {
    match cx.within(PROMPTLY, what, call).await? {
        Ok(_) => Err(Stop::fail(what, "Ok", "ChannelClosed")),
        Err(e) => {
            closed(cx, what, &e)?;
            Ok(e.outcome())
        }
    }
}

async fn kv_8_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.put("old", "value").await?;
    let flights = (0..24).map(|at| tokio::spawn(in_flight(a.clone(), at)));
    let flights: Vec<_> = flights.collect();
    tokio::task::yield_now().await;
    cx.shutdown(&a).await?;
    let ended = Instant::now();
    for (at, flight) in join_all(flights).await.into_iter().enumerate() {
        let what = format!("call {at} in flight at the shutdown");
        let (result, at) = flight.map_err(|e| Stop::fail(&what, e.to_string(), "no panic"))?;
        let late = at.saturating_duration_since(ended);
        cx.require(
            late <= PROMPTLY,
            &what,
            format!("an end after {late:?}"),
            "within 1 s",
        )?;
        if let Err(e) = result {
            closed(cx, &what, &e)?;
        }
    }

    let read = "get after a shutdown";
    let get = after(cx, read, a.try_get(b"old")).await?;
    cx.eq(format!("outcome of {read}"), &get, &Effect::NotApplied)?;
    let read = "get_multi after a shutdown";
    let many = after(cx, read, a.try_get_multi(&[bytes("old")])).await?;
    cx.eq(format!("outcome of {read}"), &many, &Effect::NotApplied)?;
    let put = after(cx, "put after a shutdown", a.try_put(b"new 1", b"x")).await?;
    let call = a.try_put_with_ttl(b"new 2", b"x", 3_600);
    let ttl = after(cx, "put_with_ttl after a shutdown", call).await?;
    let delete = after(cx, "delete after a shutdown", a.try_delete(b"old")).await?;

    // The other client is none of the shut one's business, and sees whether its errors told the truth.
    for (key, outcome) in [("new 1", put), ("new 2", ttl)] {
        if outcome == Effect::NotApplied {
            b.expect("a put that was NotApplied", key, None).await?;
        }
    }
    if delete == Effect::NotApplied {
        b.expect("after a delete that was NotApplied", "old", Some(b"value"))
            .await?;
    }
    b.put("later", "value").await?;
    let c = cx.open_as("c", "p").await?;
    c.expect(
        "a client opened after the shutdown",
        "later",
        Some(b"value"),
    )
    .await
}

/// One of the calls in flight, and when it ended. One that does not end is given up after a while.
async fn in_flight(a: Handle, at: usize) -> (Result<(), KvClientError>, Instant) {
    let key = format!("flight {at}");
    let call = async {
        match at % 4 {
            0 => a.try_get(b"old").await.map(drop),
            1 => a.try_put(key.as_bytes(), b"x").await,
            2 => a.try_get_multi(&[bytes("old")]).await.map(drop),
            _ => a.try_delete(key.as_bytes()).await,
        }
    };
    let result = tokio::time::timeout(4 * PROMPTLY, call).await;
    (result.unwrap_or(Ok(())), Instant::now())
}

async fn kv_9_1(cx: &Cx<dyn World>) -> Outcome {
    let mut ends = vec![End::Dropped(5), End::Left(5)];
    ends.extend(kill::kills(cx));
    kill::survives(cx, |cx| Box::pin(work::hire(cx)), &ends).await
}

async fn kv_9_3(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire(cx))).await
}
