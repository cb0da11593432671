//! HV-8 and HV-9, as far as they speak of objects.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_traits::{Clock, ErrorKind, ExpirationPolicy, Metadata};

use super::objects::{alike_ids, far, metadata_ladder, name, roomy_metadata};
use super::{access, time};
use crate::backend::{Handle, Object, World};
use crate::check::{Check, Engine, Outcome};
use crate::checks::{pattern, refused};
use crate::cx::Cx;
use crate::fixture;

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
        "an object under Manual has no deadline and lives on, one of a long life for long",
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
        "HV-8.6",
        "a deadline that is given is kept, and one that cannot be is refused",
    )
    .kills("a deadline computed over a given one, an object that never dies")
    .run(|cx| Box::pin(hv_8_6(cx))),
    Check::new(
        "HV-9.1",
        "all fields of the metadata come back, and the true size",
    )
    .kills("dropped field")
    .run(|cx| Box::pin(hv_9_1(cx))),
    Check::new(
        "HV-9.2",
        "ids that are nearly the same are different objects",
    )
    .kills("joined keys")
    .run(|cx| Box::pin(hv_9_2(cx))),
];

/// Metadata whose times contradict each other or cannot be kept, and what is wrong with each.
pub(in crate::checks) fn impossible() -> Vec<(&'static str, Metadata)> {
    let minute = Duration::from_secs(60);
    let before_1970 = SystemTime::UNIX_EPOCH.checked_sub(minute);
    let mut manual = Metadata::new();
    manual.time_expires = Some(far());
    let endless = Metadata::with_policy(ExpirationPolicy::TimeToLive(Duration::MAX));
    let idle = Metadata::with_policy(ExpirationPolicy::TimeToIdle(Duration::MAX));
    let mut long_dead = Metadata::with_policy(ExpirationPolicy::TimeToLive(minute));
    long_dead.time_expires = before_1970;
    let mut ancient = Metadata::new();
    ancient.time_created = before_1970;
    vec![
        ("a deadline under Manual", manual),
        ("a time to live beyond all time", endless),
        ("an idle time beyond all time", idle),
        ("a deadline before 1970", long_dead),
        ("a creation before 1970", ancient),
    ]
}

/// Metadata with times that are not of whole milliseconds, and what is stored of it.
pub(in crate::checks) fn uneven() -> Vec<(Metadata, Metadata)> {
    let policies = [
        ExpirationPolicy::TimeToLive(Duration::from_secs(60)),
        ExpirationPolicy::TimeToIdle(Duration::from_secs(3_600)),
    ];
    let pairs = policies.into_iter().flat_map(|policy| {
        [0, 1, 999_999, 123_456_789].map(|nanos| {
            let mut given = Metadata::with_policy(policy);
            given.time_created = Some(far() - Duration::from_nanos(nanos));
            given.time_expires = Some(far() + Duration::from_nanos(nanos));
            let stored = given.stamped(far(), 0).unwrap_or_default();
            (given, stored)
        })
    });
    pairs.collect()
}

async fn hv_8_6(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    for (nth, (given, mut stored)) in uneven().into_iter().enumerate() {
        let id = name(&format!("given-{nth}"));
        a.put(&id, &given, "payload").await?;
        stored.size = Some(7);
        cx.eq(
            "metadata with a given deadline",
            &b.metadata(&id).await?,
            &Some(stored),
        )?;
    }
    let old = name("old");
    let before = {
        a.put(&old, &Metadata::new(), "old").await?;
        a.get(&old).await?
    };
    for (what, metadata) in impossible() {
        for id in [&old, &name("absent")] {
            let result = a.try_put(id, &metadata, vec!["new".into()]).await;
            refused(
                &format!("a put with {what}"),
                result,
                ErrorKind::InvalidInput,
            )?;
        }
        let what = format!("after a refused put with {what}");
        cx.eq(&what, &b.get(&old).await?, &before)?;
        cx.eq(&what, &b.get(&name("absent")).await?, &None)?;
    }
    Ok(())
}

/// Much metadata comes back whole, or is refused as above a bound before anything has happened (C-4).
pub(in crate::checks) async fn roomy<W>(cx: &Cx<W>, a: &Handle, b: &Handle) -> Outcome
where
    W: fixture::World + ?Sized,
{
    let mut small = Metadata::new();
    small.time_created = Some(far());
    for (nth, metadata) in roomy_metadata().into_iter().enumerate() {
        let id = name(&format!("roomy-{nth}"));
        a.put(&id, &small, "small").await?;
        let put = a.try_put(&id, &metadata, vec!["roomy".into()]).await;
        let what = format!("a put with much metadata, number {nth}");
        let mut stored = match &put {
            Ok(()) => metadata,
            Err(_) => {
                refused(&what, put, ErrorKind::InvalidInput)?;
                small.clone()
            }
        };
        stored.size = Some(5);
        let seen = b.metadata(&id).await?;
        cx.eq(format!("the metadata after {what}"), &seen, &Some(stored))?;
    }
    Ok(())
}

async fn hv_9_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    roomy(cx, &a, &b).await?;
    let ladder = metadata_ladder();
    let mut kept = Vec::new();
    // Each over an absent object and over one with each other's fields, so that nothing is merged.
    for (nth, metadata) in ladder.iter().enumerate() {
        let id = name(&format!("fields-{nth}"));
        for (other, earlier) in ladder.iter().enumerate().chain([(nth, metadata)]) {
            // The last one is about its texts, and meets two of the others only.
            if nth.max(other) == ladder.len() - 1 && nth.min(other) > 1 && nth != other {
                continue;
            }
            a.put(&id, earlier, "earlier").await?;
            let payload = Bytes::from(pattern("fields", 10 * other));
            b.put(&id, metadata, payload.clone()).await?;
            let mut stored = metadata.clone();
            stored.size = u64::try_from(payload.len()).ok();
            for handle in [&a, &b] {
                let what = format!("metadata number {nth} over number {other}");
                let head = handle.metadata(&id).await?;
                cx.eq(&what, &head, &Some(stored.clone()))?;
                let object = handle.get(&id).await?;
                let expected = Object {
                    metadata: stored.clone(),
                    payload: payload.clone(),
                };
                cx.eq(&what, &object, &Some(expected))?;
            }
            if other == nth {
                kept.push((id.clone(), payload));
            }
        }
    }
    let c = cx.open_as("c", "p").await?;
    for (nth, metadata) in ladder.iter().enumerate() {
        let id = name(&format!("fields-{nth}"));
        let payload = kept
            .iter()
            .rfind(|(other, _)| *other == id)
            .map(|(_, payload)| payload);
        let mut stored = metadata.clone();
        stored.size = payload.and_then(|payload| u64::try_from(payload.len()).ok());
        let what = format!("metadata number {nth} through a new handle");
        cx.eq(what, &c.metadata(&id).await?, &Some(stored))?;
    }
    let Ok(clock) = cx.clock() else { return Ok(()) };
    clock.advance(Duration::from_nanos(1_234_567));
    let id = name("stamped");
    let metadata = Metadata::with_policy(ExpirationPolicy::TimeToLive(Duration::from_secs(5)));
    let stored = metadata.stamped(clock.now(), 3).ok();
    a.put(&id, &metadata, "abc").await?;
    clock.advance(Duration::from_secs(1));
    cx.eq(
        "metadata with times filled in",
        &b.metadata(&id).await?,
        &stored,
    )?;
    // Over that one: the times are those of the last put.
    let stored = metadata.stamped(clock.now(), 5).ok();
    b.put(&id, &metadata, "other").await?;
    clock.advance(Duration::from_secs(1));
    let what = "metadata with times filled in, of an object over another";
    cx.eq(what, &a.metadata(&id).await?, &stored)
}

async fn hv_9_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let ids = alike_ids(&cx.caps);
    for (nth, id) in ids.iter().enumerate() {
        cx.eq(format!("{id} before it is put"), &b.get(id).await?, &None)?;
        a.put(id, &Metadata::new(), format!("payload of {nth}"))
            .await?;
    }
    let c = cx.open_as("c", "p").await?;
    for (nth, id) in ids.iter().enumerate() {
        for handle in [&b, &c] {
            let found = handle.get(id).await?.map(|object| object.payload);
            let expected = Some(Bytes::from(format!("payload of {nth}")));
            cx.eq(format!("{id} among others like it"), &found, &expected)?;
        }
    }
    for (nth, id) in ids.iter().enumerate() {
        b.delete(id).await?;
        for (other, id) in ids.iter().enumerate().skip(nth.saturating_sub(4)).take(9) {
            let there = a.metadata(id).await?.is_some();
            let what = format!("{id} is there, {} of {} deleted", nth + 1, ids.len());
            cx.eq(what, &there, &(other > nth))?;
        }
    }
    Ok(())
}
