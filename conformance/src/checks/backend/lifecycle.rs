//! BK-3 to BK-6: deletes, and what a store does besides answering.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use larder_traits::{Caps, Durability, Metadata};

use super::objects::{id, name};
use super::{faults, work};
use crate::backend::World;
use crate::check::{Check, Engine, Gate, Level, Outcome};
use crate::checks::outlives_power;
use crate::cx::Cx;
use crate::engine::kill::{self, End};
use crate::engine::power;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BK-3.1",
        "delete of an absent object is Ok, and removes that object alone",
    )
    .kills("error on absent, prefix delete")
    .run(|cx| Box::pin(bk_3_1(cx))),
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
    Check::new("BK-6.1", "the memory that 256 MiB through put and get take")
        .kills("collected stream")
        .level(Level::Report)
        .engines(&[Engine::Report]),
];

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
