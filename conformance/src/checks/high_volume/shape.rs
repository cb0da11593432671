//! HV-8 and HV-9: what is kept of a row, and for how long.

use std::time::Duration;

use bytes::Bytes;
use larder_traits::{Caps, ErrorKind, ExpirationPolicy, Metadata, TieredWrite, Tombstone};

use super::bench::{Bench, Call};
use super::lin;
use crate::check::{Check, Engine, Gate, Level, Outcome};
use crate::checks::backend::calls::Subject;
use crate::checks::backend::objects::{alike_ids, far, len_max, metadata_ladder, name};
use crate::checks::backend::shape::{impossible, roomy, uneven};
use crate::checks::backend::{access, time};
use crate::checks::{contents, pattern, refused};
use crate::cx::Cx;
use crate::high_volume::World;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "HV-8.1",
        "alive before the deadline and dead at it, in every call; no time at all",
    )
    .kills("a path without expiry")
    .engines(&[Engine::Time])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            time::deadlines(cx, &a, &b).await
        })
    }),
    Check::new(
        "HV-8.2",
        "a row under Manual has no deadline and lives on, one of a long life for long",
    )
    .kills("invented expiry")
    .engines(&[Engine::Time])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            time::no_deadline(cx, &a, &b).await
        })
    }),
    Check::new(
        "HV-8.3",
        "accesses to an idle object extend it, after the debounce only",
    )
    .kills("write per read")
    .engines(&[Engine::Time])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            time::idle(cx, &a, &b).await
        })
    }),
    Check::new("HV-8.4", "accesses against overwrites, deletes and expiry")
        .kills("blind bump")
        .engines(&[Engine::Lin])
        .run(|cx| {
            Box::pin(async move {
                let (a, b) = cx.open_two("p").await?;
                access::revived(cx, &a, &b).await
            })
        }),
    Check::new(
        "HV-8.5",
        "extend_expiry moves deadlines ahead where it is declared, and is Unsupported elsewhere",
    )
    .kills("a shortened deadline, another redirect's deadline, an Ok without an effect")
    .level(Level::Declared)
    .run(|cx| Box::pin(hv_8_5(cx))),
    Check::new(
        "HV-8.6",
        "a deadline that is given is kept, and one that cannot be is refused",
    )
    .kills("a deadline computed over a given one, a row that never dies")
    .run(|cx| Box::pin(hv_8_6(cx))),
    Check::new(
        "HV-8.7",
        "extensions against writes: what has replaced a redirect is there, whenever the redirect was extended",
    )
    .kills("an extension that writes back what it has read")
    .gate(extends)
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(lin::extensions(cx))),
    Check::new(
        "HV-9.1",
        "all fields come back, and the true size, whichever call has written",
    )
    .kills("dropped field")
    .run(|cx| Box::pin(hv_9_1(cx))),
    Check::new(
        "HV-9.2",
        "ids that are nearly the same are different rows and different targets",
    )
    .kills("joined keys")
    .run(|cx| Box::pin(hv_9_2(cx))),
    Check::new(
        "HV-9.3",
        "odd payloads, and three hundred that differ little, come back whichever call has written",
    )
    .kills("a change that is not seen, a payload taken for something else, a counter that wraps")
    .run(|cx| Box::pin(hv_9_3(cx))),
];

fn extends(caps: &Caps) -> Gate {
    if caps.high_volume.extend_expiry {
        Gate::Run
    } else {
        Gate::Ignore("does not declare that redirects are extended")
    }
}

fn point(tombstone: Tombstone) -> Call {
    Call::Swap(None, TieredWrite::Tombstone(tombstone))
}

/// Every way of writing an inline row on an absent one.
fn inserts(metadata: &Metadata, payload: &Bytes) -> [Call; 3] {
    let (metadata, payload) = (metadata.clone(), payload.clone());
    [
        Call::Put(metadata.clone(), payload.clone()),
        Call::PutInline(metadata.clone(), payload.clone()),
        Call::Swap(None, TieredWrite::Object(metadata, payload)),
    ]
}

async fn hv_8_5(cx: &Cx<dyn World>) -> Outcome {
    let mut bench = Bench::new(cx).await?;
    let day = Duration::from_secs(86_400);
    let target = name("target");
    let mut dying = Tombstone::new(target.clone(), ExpirationPolicy::TimeToLive(day));
    dying.time_expires = Some(far());
    let (mut metadata, payload) = bench.object(1, 50);
    metadata.time_expires = Some(far());
    let states = [
        None,
        Some(Call::Put(metadata, payload)),
        Some(point(bench.redirect(&target, 0))),
        Some(point(dying)),
    ];
    let asked = [
        (&target, far() + day),
        (&target, far() - day),
        (&name("other"), far() + day * 2),
        (&target, far() + day),
        (&target, far() + day * 3),
    ];
    if !cx.caps.high_volume.extend_expiry {
        let handle = cx.open_as("extending", "p").await?;
        for state in states {
            let id = bench.fresh();
            if let Some(call) = &state {
                bench.ask("to begin with", &id, call).await?;
            }
            let result = handle.try_extend(&id, &target, far() + day).await;
            let what = "extend_expiry, which is not declared";
            refused(what, result, ErrorKind::Unsupported)?;
            bench.look(what, &id).await?;
        }
        return Ok(());
    }
    for state in states {
        let id = bench.fresh();
        if let Some(call) = &state {
            bench.ask("to begin with", &id, call).await?;
        }
        for (target, at) in asked {
            let call = Call::Extend(target.clone(), at);
            bench.judge("of a declared extension", &id, &call).await?;
        }
    }
    extended_life(&mut bench).await
}

/// With a clock: an extended redirect outlives its first deadline and ends at its new one, and a dead one is not
/// brought back.
async fn extended_life(bench: &mut Bench<'_>) -> Outcome {
    if !bench.is_clocked() {
        return Ok(());
    }
    let second = Duration::from_secs(1);
    let target = name("target");
    for policy in [
        ExpirationPolicy::TimeToLive(second * 10),
        ExpirationPolicy::TimeToIdle(second * 10),
    ] {
        let id = bench.fresh();
        let redirect = point(Tombstone::new(target.clone(), policy));
        bench.ask("to begin with", &id, &redirect).await?;
        let later = Call::Extend(target.clone(), bench.now() + second * 20);
        bench.judge("of a live redirect", &id, &later).await?;
        bench.advance(second * 20 - Duration::from_millis(1));
        bench.look("its first deadline", &id).await?;
        bench.advance(Duration::from_millis(1));
        bench.look("its second deadline", &id).await?;
        let revive = Call::Extend(target.clone(), bench.now() + second * 30);
        bench.judge("of a dead redirect", &id, &revive).await?;
    }
    Ok(())
}

async fn hv_8_6(cx: &Cx<dyn World>) -> Outcome {
    let mut bench = Bench::new(cx).await?;
    let payload = Bytes::from_static(b"payload");
    let tombstone = |metadata: &Metadata| {
        let mut tombstone = Tombstone::new(name("target"), metadata.expiration_policy);
        tombstone.time_expires = metadata.time_expires;
        point(tombstone)
    };
    for (given, _) in uneven() {
        for call in inserts(&given, &payload)
            .into_iter()
            .chain([tombstone(&given)])
        {
            let id = bench.fresh();
            bench.judge("with a given deadline", &id, &call).await?;
        }
    }
    for (what, metadata) in impossible() {
        let of_redirect = metadata
            .time_created
            .is_none()
            .then(|| tombstone(&metadata));
        for call in inserts(&metadata, &payload).into_iter().chain(of_redirect) {
            let id = bench.fresh();
            bench
                .judge(&format!("with {what}, on an absent row"), &id, &call)
                .await?;
            let (old, payload) = bench.object(0, 20);
            bench
                .ask("to begin with", &id, &Call::Put(old, payload))
                .await?;
            bench
                .judge(&format!("with {what}, on an inline row"), &id, &call)
                .await?;
        }
    }
    Ok(())
}

async fn hv_9_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("roomy").await?;
    roomy(cx, a.plain(), b.plain()).await?;
    let mut bench = Bench::new(cx).await?;
    let ladder = metadata_ladder();
    let reads = [Call::Get, Call::Metadata];
    for (nth, metadata) in ladder.iter().enumerate() {
        let payload = Bytes::from(pattern("fields", [0, 3_000, 7][nth % 3]));
        let a = name("target");
        let swap = TieredWrite::Object(metadata.clone(), payload.clone());
        let over_redirect = Call::Swap(Some(a.clone()), swap);
        let earlier = ladder[(nth + 1) % ladder.len()].clone();
        for (at, call) in inserts(metadata, &payload)
            .into_iter()
            .chain([over_redirect])
            .enumerate()
        {
            for on_inline in [false, true] {
                let id = bench.fresh();
                let before = match (at, on_inline) {
                    // The last one writes over a redirect only.
                    (3, true) => continue,
                    (3, false) => Some(point(bench.redirect(&a, nth))),
                    (_, true) => Some(Call::Put(earlier.clone(), "earlier".into())),
                    (_, false) => None,
                };
                if let Some(before) = before {
                    bench.ask("to begin with", &id, &before).await?;
                }
                let what = format!("with metadata number {nth}");
                bench.judge(&what, &id, &call).await?;
                for read in &reads {
                    bench.ask(&what, &id, read).await?;
                }
            }
        }
    }
    same_payload(&mut bench).await?;
    for (nth, target) in alike_ids(&cx.caps).into_iter().enumerate() {
        let id = bench.fresh();
        let redirect = point(bench.redirect(&target, nth));
        bench.judge("with an odd target", &id, &redirect).await?;
    }
    for _ in 0..2 {
        bench.reopen().await?;
        bench.look_at_all().await?;
    }
    stamped(&mut bench).await
}

/// The payload that is there already, with other metadata: all that was told is new.
async fn same_payload(bench: &mut Bench<'_>) -> Outcome {
    let ladder = metadata_ladder();
    let payload = Bytes::from(pattern("the same", 3_000));
    for first in 0..bench.cx.times(6, 2) {
        let id = bench.fresh();
        for (nth, metadata) in ladder.iter().enumerate() {
            // Twice by one call, then by the next one.
            let call = inserts(metadata, &payload)[(first + nth / 2) % 3].clone();
            let what = format!("with metadata number {nth} over the same payload");
            bench.judge(&what, &id, &call).await?;
        }
    }
    Ok(())
}

/// With a clock: what is left out is filled in from it, by every call that writes.
async fn stamped(bench: &mut Bench<'_>) -> Outcome {
    if !bench.is_clocked() {
        return Ok(());
    }
    let second = Duration::from_secs(1);
    let metadata = Metadata::with_policy(ExpirationPolicy::TimeToLive(second * 5));
    let redirect = Tombstone::new(name("target"), ExpirationPolicy::TimeToIdle(second * 5));
    let calls = inserts(&metadata, &Bytes::from_static(b"abc"));
    for call in calls.into_iter().chain([point(redirect)]) {
        bench.advance(Duration::from_nanos(1_234_567));
        let id = bench.fresh();
        bench.ask("with times to be filled in", &id, &call).await?;
        bench.advance(second);
        bench.look("times were filled in", &id).await?;
        // The same once more, at another time, and then over what was there: its times are those of the last.
        if let Call::Put(..) | Call::PutInline(..) = call {
            bench.judge("once more, later", &id, &call).await?;
        }
        for again in inserts(&metadata, &Bytes::from_static(b"other")) {
            bench.advance(second);
            bench.ask("over one, later", &id, &again).await?;
            bench.look("times were filled in again", &id).await?;
        }
    }
    Ok(())
}

async fn hv_9_3(cx: &Cx<dyn World>) -> Outcome {
    let mut bench = Bench::new(cx).await?;
    let len_max = len_max(&cx.caps, cx.profile);
    let (metadata, _) = bench.object(1, 0);
    let (id, target) = (bench.fresh(), name("target"));
    let redirect = point(bench.redirect(&target, 0));
    let near = contents::successors(cx, len_max);
    for (at, payload) in near.into_iter().chain(contents::odd(cx)).enumerate() {
        if payload.len() > len_max {
            continue;
        }
        let [put, put_inline, swap] = inserts(&metadata, &payload.into());
        let calls = match at % 7 {
            0..3 => vec![put],
            3 | 4 => vec![put_inline],
            5 => vec![swap],
            // Through a redirect, and out of it.
            _ => match swap {
                Call::Swap(_, write) => {
                    vec![redirect.clone(), Call::Swap(Some(target.clone()), write)]
                }
                other => vec![other],
            },
        };
        for call in &calls {
            bench.ask("over the row before", &id, call).await?;
        }
        bench.look(&format!("number {at} of a row"), &id).await?;
    }
    Ok(())
}

async fn hv_9_2(cx: &Cx<dyn World>) -> Outcome {
    let near = cx.times(3, 1);
    let mut bench = Bench::new(cx).await?;
    let ids = alike_ids(&cx.caps);
    let next = |nth: usize, by: usize| ids[(nth + by) % ids.len()].clone();
    for (nth, id) in ids.iter().enumerate() {
        bench.look("others like it were written", id).await?;
        let call = if nth % 2 == 0 {
            let (metadata, _) = bench.object(0, 0);
            Call::PutInline(metadata, format!("payload of {nth}").into())
        } else {
            point(bench.redirect(&next(nth, 1), 0))
        };
        bench.judge("among rows like it", id, &call).await?;
    }
    for id in &ids {
        bench.look("all were written", id).await?;
    }
    for (nth, id) in ids.iter().enumerate().filter(|(nth, _)| nth % 2 == 1) {
        // Its own target is the next id; none of those about it may pass for that.
        for by in (2..=1 + near).chain(ids.len() - near..=ids.len()) {
            let call = Call::Swap(Some(next(nth, by)), TieredWrite::Delete);
            bench
                .ask("of a redirect to a target like it", id, &call)
                .await?;
            let write = TieredWrite::Tombstone(bench.redirect(&next(nth, by), 0));
            bench
                .ask(
                    "of a redirect to a target like it",
                    id,
                    &Call::Swap(None, write),
                )
                .await?;
        }
        bench
            .look("swaps that named targets like its own", id)
            .await?;
    }
    for (nth, id) in ids.iter().enumerate() {
        bench.ask("among rows like it", id, &Call::Delete).await?;
        for by in (0..=near).chain(ids.len() - near..ids.len()) {
            bench
                .look("rows like it were removed", &next(nth, by))
                .await?;
        }
    }
    Ok(())
}
