//! BK-3 to BK-6: deletes, and what a store does besides answering.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use larder_traits::{Caps, ClientError, Durability, Metadata};

use super::objects::{id, name};
use super::{faults, work};
use crate::backend::World;
use crate::check::{Check, Engine, Gate, Level, Outcome, Stop};
use crate::checks::{outlives_power, pattern};
use crate::cx::Cx;
use crate::engine::kill::{self, End};
use crate::engine::{cost, power};
use crate::profile::Profile;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BK-3.1",
        "delete of an absent object is Ok, and removes that object alone",
    )
    .kills("error on absent, prefix delete")
    .run(|cx| Box::pin(bk_3_1(cx))),
    Check::new(
        "BK-3.2",
        "what was deleted or replaced leaves nothing behind",
    )
    .kills("leaked payload")
    .run(|cx| Box::pin(bk_3_2(cx))),
    Check::new(
        "BK-4.1",
        "puts and deletes outlive the store that was dropped, and the process that was left or killed",
    )
    .kills("acknowledged in memory")
    .level(Level::Declared)
    .gate(durable)
    .engines(&[Engine::Kill])
    .run(|cx| Box::pin(bk_4_1(cx))),
    Check::new(
        "BK-4.2",
        "puts and deletes outlive a loss of power, where that is declared",
    )
    .kills("missing sync")
    .level(Level::Declared)
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(bk_4_2(cx))),
    Check::new("BK-5.1", "join ends where the work in the background fails")
        .kills("endless loop")
        .engines(&[Engine::Fault])
        .run(|cx| Box::pin(faults::join_ends(cx))),
    Check::new(
        "BK-5.2",
        "join ends on a fresh store and on a busy one, which stays usable",
    )
    .kills("a join that waits for work that is yet to come")
    .run(|cx| Box::pin(bk_5_2(cx))),
    Check::new("BK-6.1", "the memory that a large payload takes on its way in and out")
        .kills("collected stream")
        .level(Level::Report)
        .engines(&[Engine::Report])
        .run(|cx| Box::pin(bk_6_1(cx))),
];

/// What this process has in memory, in bytes, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

async fn bk_6_1(cx: &Cx<dyn World>) -> Outcome {
    const CHUNK: usize = 256 << 10;
    const LEN_MAX: u64 = 256 << 20;
    let Some(before) = resident() else {
        return Err(Stop::Ignored(
            "needs a system that tells what memory is in use".into(),
        ));
    };
    let len = match cx.profile {
        Profile::Quick => LEN_MAX >> 4,
        Profile::Standard | Profile::Soak => LEN_MAX,
    };
    let len = len.min(cx.caps.high_volume.payload_len_bytes_max);
    let most = Arc::new(AtomicU64::new(before));
    let seen = {
        let most = Arc::clone(&most);
        move || {
            most.fetch_max(resident().unwrap_or_default(), Ordering::Relaxed);
        }
    };
    let a = cx.open_as("a", "p").await?;
    let (chunk, id) = (Bytes::from(pattern("a chunk", CHUNK)), name("large"));
    let count = usize::try_from(len).unwrap_or(usize::MAX) / CHUNK;
    let chunks = {
        let seen = seen.clone();
        stream::iter(0..count).map(move |_| {
            seen();
            Ok(chunk.clone())
        })
    };
    let metadata = Metadata::new();
    let put = a.try_put_stream(&id, &metadata, "a large payload", chunks.boxed());
    put.await
        .map_err(|e| Stop::error("a put of a large payload", &e))?;
    let found = a.store().get_object(&id).await;
    let found = found.map_err(|e| Stop::error("a get of a large payload", &e))?;
    let Some((_, mut payload)) = found else {
        return Err(Stop::fail(
            "a get of a large payload",
            "None",
            "the payload",
        ));
    };
    while let Some(chunk) = payload.next().await {
        seen();
        chunk.map_err(|e| Stop::error("a large payload", &e))?;
    }
    let most = most.load(Ordering::Relaxed).saturating_sub(before);
    Err(cost::told(format!(
        "{} MiB came to be in memory while {} MiB went in and out, with whatever else this process did",
        most >> 20,
        len >> 20
    )))
}

async fn bk_3_2(cx: &Cx<dyn World>) -> Outcome {
    const OBJECTS: usize = 30;
    let (a, b) = cx.open_two("p").await?;
    let none = cx.rows("p").await?;
    for round in 0..3 {
        for at in 0..OBJECTS {
            // Of other lengths each time: a store may keep short payloads in another place than long ones.
            let len = [0, 40, 9_000, 70_000][(at + round) % 4];
            let payload = pattern(&format!("{at} {round}"), len);
            let handle = if at % 2 == 0 { &a } else { &b };
            let id = name(&format!("k{at}"));
            handle.put(&id, &Metadata::new(), payload).await?;
        }
    }
    let held = cx.rows("p").await?.saturating_sub(none);
    let least = u64::try_from(OBJECTS).unwrap_or(u64::MAX);
    for at in 0..OBJECTS {
        let handle = if at % 3 == 0 { &a } else { &b };
        handle.delete(&name(&format!("k{at}"))).await?;
    }
    cx.settle().await;
    let left = cx.rows("p").await?.saturating_sub(none);
    cx.require(
        held >= least && left <= least / 5,
        format!("the rows of {OBJECTS} objects, each put three times and then deleted"),
        format!("{held}, and {left} after the deletes"),
        format!("at least {least}, and next to none after the deletes"),
    )
}

async fn bk_3_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let gone = name("k1");
    a.delete(&gone).await?;
    b.delete(&gone).await?;
    let mut others: Vec<_> = ["k", "k10", "k1/x", "k1/", "K1", "k1 ", "k1.", "/k1"]
        .map(name)
        .into();
    others.extend([
        id("attachments", &[], "k1"),
        id("attachments", &[("org", "17"), ("project", "1")], "k1"),
        id("attachments", &[("org", "1")], "k1"),
        id("attachments", &[("org", "17/k1")], "k1"),
        id("attachment", &[("org", "17")], "k1"),
    ]);
    let write = Metadata::new();
    for (nth, other) in others.iter().enumerate() {
        a.put(other, &write, format!("payload of {nth}")).await?;
    }
    for round in 0..2 {
        b.put(&gone, &write, vec![7; 100 * round]).await?;
        // Each has read it, so that what a handle remembers would show.
        for handle in [&a, &b] {
            let there =
                handle.metadata(&gone).await?.is_some() && handle.get(&gone).await?.is_some();
            cx.eq(
                "an object that was put where one was deleted",
                &there,
                &true,
            )?;
        }
        a.delete(&gone).await?;
        a.delete(&gone).await?;
        b.delete(&gone).await?;
        for handle in [&a, &b] {
            cx.eq("get of a deleted object", &handle.get(&gone).await?, &None)?;
            let head = handle.metadata(&gone).await?;
            cx.eq("get_metadata of a deleted object", &head, &None)?;
            for (nth, other) in others.iter().enumerate() {
                let found = handle.get(other).await?.map(|object| object.payload);
                let expected = Some(Bytes::from(format!("payload of {nth}")));
                cx.eq(
                    format!("{other} after {gone} was deleted"),
                    &found,
                    &expected,
                )?;
            }
        }
    }
    let c = cx.open_as("c", "p").await?;
    cx.eq(
        "get of a deleted object, new handle",
        &c.get(&gone).await?,
        &None,
    )
}

async fn bk_5_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let bound = Duration::from_secs(20);
    cx.within(bound, "join of a fresh store", a.store().join())
        .await?;
    let ids: Vec<_> = (0..20).map(|n| name(&format!("{n}"))).collect();
    let none = Metadata::new();
    let busy = join_all(ids.iter().map(|id| a.put(id, &none, "payload")));
    let joins = join_all((0..8).map(|_| a.store().join()));
    let both = futures_util::future::join(busy, joins);
    let (puts, _) = cx
        .within(bound, "eight joins among twenty puts", both)
        .await?;
    puts.into_iter().collect::<Outcome>()?;
    cx.within(bound, "join after twenty puts", b.store().join())
        .await?;
    for id in &ids {
        let there = a.get(id).await?.is_some();
        cx.eq("an object put before a join", &there, &true)?;
        b.delete(id).await?;
    }
    cx.within(bound, "join after twenty deletes", a.store().join())
        .await?;
    // Puts that did not come to their end are no work that is left.
    for (nth, id) in ids.iter().enumerate().take(6) {
        let broken = ClientError::new(std::io::Error::other("the caller's stream broke"));
        let pieces = (0..nth).map(|at| Ok(Bytes::from(pattern(&format!("{at}"), 9_000))));
        let pieces = stream::iter(pieces.collect::<Vec<_>>());
        let what = "a put whose stream breaks, or goes on and is dropped";
        if nth % 2 == 0 {
            let breaks = pieces.chain(stream::iter([Err(broken)])).boxed();
            drop(a.try_put_stream(id, &none, what, breaks).await);
        } else {
            let hangs = pieces.chain(stream::pending()).boxed();
            let put = a.try_put_stream(id, &none, what, hangs);
            drop(tokio::time::timeout(Duration::from_millis(10), put).await);
        }
        for handle in [&a, &b] {
            cx.within(bound, format!("join after {what}"), handle.store().join())
                .await?;
        }
    }
    a.put(&ids[0], &Metadata::new(), "after").await?;
    let found = b.get(&ids[0]).await?.map(|object| object.payload);
    cx.eq(
        "an object put after a join",
        &found,
        &Some(Bytes::from_static(b"after")),
    )
}

pub(super) fn durable(caps: &Caps) -> Gate {
    if caps.durability == Durability::None {
        Gate::Ignore("declares that nothing outlives the process")
    } else {
        Gate::Run
    }
}

async fn bk_4_1(cx: &Cx<dyn World>) -> Outcome {
    let ends = [End::Dropped(5), End::Left(5), End::Killed];
    kill::survives(cx, |cx| Box::pin(work::hire(cx)), &ends).await
}

async fn bk_4_2(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire(cx))).await
}
