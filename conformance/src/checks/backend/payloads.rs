//! BK-2: what is read is the last object, whole.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use larder_traits::{Classify, Clock, ExpirationPolicy, Metadata, Outcome as Effect};

use super::faults;
use super::objects::{chunks, far, len_max, name};
use crate::backend::{Object, World, collect};
use crate::check::{Check, Engine, Outcome, Stop, describe};
use crate::checks::{contents, pattern};
use crate::cx::Cx;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BK-2.1",
        "payloads of all lengths, put in pieces of all lengths, come back whole",
    )
    .kills("chunk arithmetic")
    .run(|cx| Box::pin(bk_2_1(cx))),
    Check::new(
        "BK-2.2",
        "a body that is cut short is an error in the stream",
    )
    .kills("truncation")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(faults::cut_short(cx))),
    Check::new(
        "BK-2.3",
        "objects alive to their last millisecond are there, and are absent from their deadline on",
    )
    .kills("a dead object served, by one call or the other")
    .run(|cx| Box::pin(bk_2_3(cx))),
    Check::new(
        "BK-2.4",
        "a body whose object comes to its end while it is read is whole, or ends in an error",
    )
    .kills("truncation")
    .engines(&[Engine::Time])
    .run(|cx| Box::pin(bk_2_4(cx))),
];

/// Lengths on both sides of the usual boundaries.
fn lengths(max: usize) -> Vec<usize> {
    let mut lengths = vec![0, 1, 2, 1_023, 1_024, 4_095, 4_096, 4_097];
    for edge in [1 << 16, 1 << 20, 8 << 20] {
        lengths.extend([edge - 1, edge, edge + 1]);
    }
    lengths.retain(|len| *len <= max);
    if !lengths.contains(&max) {
        lengths.push(max);
    }
    lengths
}

/// The ways in which a payload is handed over.
fn cuts(payload: &Bytes) -> Vec<(&'static str, Vec<Bytes>)> {
    let mut cuts = vec![("in one piece", vec![payload.clone()])];
    if payload.is_empty() {
        cuts.push(("in no piece", Vec::new()));
        cuts.push(("in empty pieces", vec![Bytes::new(); 3]));
    } else if payload.len() <= 5_000 {
        cuts.push(("byte by byte", chunks(payload, 1, false)));
        cuts.push((
            "in pieces of 1,000 with empty ones between",
            chunks(payload, 1_000, true),
        ));
    } else if payload.len() <= (1 << 16) + 1 {
        cuts.push(("in pieces of 4,096", chunks(payload, 4_096, false)));
        cuts.push((
            "in 10,000 pieces",
            chunks(payload, payload.len().div_ceil(10_000), true),
        ));
    } else {
        cuts.push((
            "in uneven pieces with empty ones between",
            chunks(payload, 99_991, true),
        ));
    }
    cuts
}

async fn bk_2_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut metadata = Metadata::new();
    metadata.time_created = Some(far());
    let mut kept = Vec::new();
    let mut lengths = lengths(len_max(&cx.caps, cx.profile));
    // Up and down, so that each object lies over a shorter one and over a longer one.
    lengths.sort_by_key(|len| len % 7);
    for (at, len) in lengths.into_iter().enumerate() {
        let payload = Bytes::from(pattern(&format!("{at}"), len));
        let mut expected = metadata.clone();
        expected.size = u64::try_from(len).ok();
        let expected = Some(Object {
            metadata: expected,
            payload: payload.clone(),
        });
        let own = name(&format!("length-{len}"));
        for (nth, (how, pieces)) in cuts(&payload).into_iter().enumerate() {
            let (writer, reader) = if nth % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let what = format!("{len} B put {how}");
            for id in [&own, &name("changing")] {
                writer.put_chunks(id, &metadata, pieces.clone()).await?;
                cx.eq(&what, &reader.get(id).await?, &expected)?;
                let head = expected.as_ref().map(|object| object.metadata.clone());
                cx.eq(
                    format!("metadata of {what}"),
                    &reader.metadata(id).await?,
                    &head,
                )?;
            }
        }
        kept.push((own, expected));
    }
    for (at, payload) in contents::odd(cx).into_iter().enumerate() {
        let id = name(&format!("odd-{}", at % 2));
        let payload = Bytes::from(payload);
        if payload.len() <= len_max(&cx.caps, cx.profile) {
            a.put(&id, &metadata, payload.clone()).await?;
            let found = b.get(&id).await?.map(|object| object.payload);
            cx.eq("an odd payload", &found, &Some(payload))?;
        }
    }
    let c = cx.open_as("c", "p").await?;
    for (id, expected) in kept {
        cx.eq(
            format!("{id} through a new handle"),
            &c.get(&id).await?,
            &expected,
        )?;
    }
    Ok(())
}

async fn bk_2_3(cx: &Cx<dyn World>) -> Outcome {
    let clock = cx.clock()?;
    let (a, b) = cx.open_two("p").await?;
    let ten = Duration::from_secs(10);
    let lives = [
        (ExpirationPolicy::TimeToLive(ten), false),
        (ExpirationPolicy::TimeToLive(ten * 1_000), true),
        (ExpirationPolicy::TimeToIdle(ten), false),
        (ExpirationPolicy::TimeToIdle(ten * 1_000), true),
    ];
    for (nth, (policy, given)) in lives.into_iter().enumerate() {
        let id = name(&format!("dying-{nth}"));
        let mut metadata = Metadata::with_policy(policy);
        metadata.time_expires = given.then(|| clock.now() + ten);
        a.put(&id, &metadata, "alive").await?;
        // An access to an idle object would extend it, so its last millisecond is left alone.
        if matches!(policy, ExpirationPolicy::TimeToLive(_)) {
            clock.advance(ten - Duration::from_millis(1));
            for handle in [&a, &b] {
                let found = handle.get(&id).await?.map(|object| object.payload);
                let expected = Some(Bytes::from_static(b"alive"));
                let what = format!("{policy:?}, a millisecond before its deadline");
                cx.eq(&what, &found, &expected)?;
                let there = handle.metadata(&id).await?.is_some();
                cx.eq(format!("metadata of {what}"), &there, &true)?;
            }
            clock.advance(Duration::from_millis(1));
        } else {
            clock.advance(ten);
        }
        for later in [Duration::ZERO, Duration::from_secs(30 * 86_400)] {
            clock.advance(later);
            let what = format!("{policy:?}, {later:?} after its deadline");
            for handle in [&b, &a] {
                let head = handle.metadata(&id).await?;
                cx.eq(format!("metadata of {what}"), &head, &None)?;
                cx.eq(&what, &handle.get(&id).await?, &None)?;
            }
        }
        b.delete(&id).await?;
        b.put(&id, &Metadata::new(), "new").await?;
        clock.advance(ten * 2);
        let found = a.get(&id).await?.map(|object| object.payload);
        cx.eq(
            "an object put where one died",
            &found,
            &Some(Bytes::from_static(b"new")),
        )?;
    }
    Ok(())
}

async fn bk_2_4(cx: &Cx<dyn World>) -> Outcome {
    let clock = cx.clock()?;
    let (a, b) = cx.open_two("p").await?;
    let ten = Duration::from_secs(10);
    let old = Bytes::from(pattern("old", len_max(&cx.caps, cx.profile).min(1_000_003)));
    let policies = [
        ExpirationPolicy::TimeToLive(ten),
        ExpirationPolicy::TimeToIdle(ten),
    ];
    for (nth, policy) in policies.into_iter().enumerate() {
        let id = name(&format!("ending-{nth}"));
        let metadata = Metadata::with_policy(policy);
        a.put_chunks(&id, &metadata, chunks(&old, 65_536, false))
            .await?;
        let opened = b.store().get_object(&id).await;
        let Some((_, mut body)) =
            opened.map_err(|e| Stop::error(format!("get_object({id})"), &e))?
        else {
            return Err(Stop::fail("get_object of an object", "None", "the object"));
        };
        let first = body.next().await;
        // Past what an access may have given it.
        clock.advance(ten * 3);
        for handle in [&a, &b] {
            let what = format!("{policy:?}, after its deadline");
            cx.eq(what, &handle.metadata(&id).await?, &None)?;
        }
        match collect(stream::iter(first).chain(body).boxed()).await {
            Ok(payload) => cx.eq("a body that was begun before the end", &payload, &old)?,
            Err(e) => cx.require(
                e.outcome() == Effect::NotApplied,
                "the error of a body whose object came to its end",
                describe(&e),
                "NotApplied, as of every read",
            )?,
        }
    }
    Ok(())
}
