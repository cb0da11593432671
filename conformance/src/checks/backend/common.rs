//! C: what is common to all contracts, asked of `Backend`; what concerns its calls serves both contracts of objects.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{join_all, try_join, try_join_all, try_join3};
use larder_traits::{
    BackendError, Classify, Durability, ErrorKind, ExpirationPolicy, Metadata, ObjectId,
    Outcome as Effect,
};
use proptest::prelude::{Rng, RngExt};
use proptest::test_runner::TestRng;

use super::objects::{chunks, far, id, id_of_len, len_max, name};
use super::{cancel, faults, lin, time, work};
use crate::backend::{Handle, World};
use crate::check::{Check, Engine, Level, Outcome, Stop, describe};
use crate::checks::{
    busy_neighbours, dropped_neighbours, exchange, failing_neighbours, many_handles, pattern,
    refused,
};
use crate::cx::{Cx, brief};
use crate::engine::damage;
use crate::engine::meeting::Harm;
use crate::fixture;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "C-1.1",
        "every provoked error has a kind and an outcome that holds",
    )
    .kills("false NotApplied")
    .engines(&[Engine::Fault])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            faults::every_error(cx, &a, &b).await
        })
    }),
    Check::new(
        "C-1.2",
        "one native error before and after the commit point",
    )
    .kills("outcome from native error")
    .engines(&[Engine::Fault])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            faults::either_side(cx, &a, &b).await
        })
    }),
    Check::new("C-1.3", "error texts and conversions").level(Level::Untestable(
        "a source rule, held by the repository's own tidy check",
    )),
    failing_neighbours().run(|cx| Box::pin(lin::harmed(cx, Harm::Failure))),
    Check::new("C-2.1", "a place opened eight times at once is one place")
        .kills("truncating open, private cache")
        .run(|cx| Box::pin(c_2_1(cx))),
    Check::new(
        "C-2.2",
        "of two handles one is dropped and the other goes on",
    )
    .kills("close destroys shared state")
    .run(|cx| Box::pin(c_2_2(cx))),
    many_handles("C-2.3").run(|cx| Box::pin(c_2_3(cx))),
    busy_neighbours("C-2.4").run(|cx| Box::pin(c_2_4(cx))),
    Check::new("C-3.1", "random and extreme arguments to every method")
        .kills("panic, overflow")
        .run(|cx| Box::pin(c_3_1(cx))),
    Check::new(
        "C-3.2",
        "files with flipped bits, zeroed sectors and cut ends are opened and used",
    )
    .kills("panic, hang")
    .engines(&[Engine::Fault, Engine::Power])
    .run(|cx| Box::pin(c_3_2(cx))),
    Check::new("C-4.1", "the declared bounds, and one beyond each")
        .kills("silent cut, late check")
        .run(|cx| Box::pin(c_4_1(cx))),
    Check::new("C-4.2", "more calls at once than may be in flight all end")
        .kills("deadlock")
        .run(|cx| Box::pin(c_4_2(cx))),
    Check::new("C-5.1", "the clock goes a year ahead, and an hour back")
        .kills("hidden clock, underflow")
        .level(Level::Declared)
        .engines(&[Engine::Time])
        .gate(time::own_clock)
        .run(|cx| {
            Box::pin(async move {
                let (a, b) = cx.open_two("p").await?;
                time::ahead_and_back(cx, &a, &b).await
            })
        }),
    Check::new("C-6.1", "every method dropped at every await")
        .kills("torn value, poisoned store")
        .engines(&[Engine::Cancel])
        .run(|cx| {
            Box::pin(async move {
                let (a, b) = cx.open_two("p").await?;
                cancel::swept(cx, &a, &b).await
            })
        }),
    Check::new(
        "C-6.2",
        "more calls dropped than a pool holds, then one more",
    )
    .kills("leaked permit, lock")
    .engines(&[Engine::Cancel])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            cancel::leaks(cx, &a, &b).await
        })
    }),
    Check::new(
        "C-6.3",
        "a write that was dropped does not land after a later one",
    )
    .kills("false Fenced")
    .level(Level::Declared)
    .engines(&[Engine::Cancel])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            cancel::late(cx, &a, &b).await
        })
    }),
    Check::new(
        "C-6.4",
        "one of several waiting calls is dropped, and the others end",
    )
    .kills("lost wake-up")
    .engines(&[Engine::Cancel])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            cancel::queued(cx, &a, &b).await
        })
    }),
    dropped_neighbours().run(|cx| Box::pin(lin::harmed(cx, Harm::Drop))),
];

/// The names of eight handles.
pub(in crate::checks) const EIGHT: [&str; 8] = ["h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7"];

async fn c_2_1(cx: &Cx<dyn World>) -> Outcome {
    let first = cx.open_as("first", "p").await?;
    first
        .put(&name("before"), &Metadata::new(), "before")
        .await?;
    let eight = try_join_all(EIGHT.map(|handle| cx.open_as(handle, "p"))).await?;
    shared_place(cx, &first, &eight).await
}

/// C-2.1, for handles that were opened at once, after `first` had put an object named `before`.
pub(in crate::checks) async fn shared_place<W: fixture::World + ?Sized>(
    cx: &Cx<W>,
    first: &Handle,
    eight: &[Handle],
) -> Outcome {
    for (nth, handle) in eight.iter().enumerate() {
        let id = name(&format!("of-{nth}"));
        handle
            .put(&id, &Metadata::new(), format!("written by {nth}"))
            .await?;
    }
    for reader in eight.iter().chain([first]) {
        let found = reader
            .get(&name("before"))
            .await?
            .map(|object| object.payload);
        let expected = Some(Bytes::from_static(b"before"));
        cx.eq("what was there before eight opens", &found, &expected)?;
        for nth in 0..eight.len() {
            let found = reader.get(&name(&format!("of-{nth}"))).await?;
            let expected = Some(Bytes::from(format!("written by {nth}")));
            let what = format!("what handle {nth} of eight wrote");
            cx.eq(what, &found.map(|object| object.payload), &expected)?;
        }
    }
    // Each has read everything by now; a change must reach them all the same.
    for (nth, handle) in eight.iter().enumerate() {
        let id = name("changing");
        handle
            .put(&id, &Metadata::new(), format!("change {nth}"))
            .await?;
        for reader in eight {
            let found = reader.get(&id).await?.map(|object| object.payload);
            let expected = Some(Bytes::from(format!("change {nth}")));
            cx.eq("an object that another handle changed", &found, &expected)?;
        }
        handle.delete(&name(&format!("of-{nth}"))).await?;
        let head = eight[(nth + 3) % eight.len()]
            .metadata(&name(&format!("of-{nth}")))
            .await?;
        cx.eq("an object that another handle deleted", &head, &None)?;
    }
    Ok(())
}

async fn c_2_3(cx: &Cx<dyn World>) -> Outcome {
    one_of_many(cx, async |name| cx.open_as(name, "p").await).await
}

/// C-2.3, by handles of either contract.
pub(in crate::checks) async fn one_of_many<W: fixture::World + ?Sized>(
    cx: &Cx<W>,
    open: impl AsyncFn(&'static str) -> Result<Handle, Stop>,
) -> Outcome {
    let id = name("k");
    let first = open("first").await?;
    let mut last = "of the first".to_owned();
    first.put(&id, &Metadata::new(), last.clone()).await?;
    let check = async |what: &str, handle: &Handle, last: &str| {
        let found = handle.get(&id).await?.map(|object| object.payload);
        cx.eq(what, &found, &Some(Bytes::from(last.to_owned())))
    };
    for nth in 0..cx.times(130, 20) {
        let handle = open("one of many").await?;
        check("an object through one of many", &handle, &last).await?;
        // Some write.
        if nth % 5 == 0 {
            last = format!("{nth}");
            handle.put(&id, &Metadata::new(), last.clone()).await?;
        }
    }
    for handle in [&first, &open("late").await?] {
        check("an object after many came and went", handle, &last).await?;
        handle.put(&id, &Metadata::new(), last.clone()).await?;
    }
    Ok(())
}

async fn c_2_4(cx: &Cx<dyn World>) -> Outcome {
    busy(cx, async |name| cx.open_as(name, "p").await).await
}

/// C-2.4, by handles of either contract.
pub(in crate::checks) async fn busy<W: fixture::World + ?Sized>(
    cx: &Cx<W>,
    open: impl AsyncFn(&'static str) -> Result<Handle, Stop>,
) -> Outcome {
    let (a, b) = (open("a").await?, open("b").await?);
    let plain = Metadata::new();
    let check = async |what: &str, handle: &Handle, key: &str, payload: Option<&Bytes>| {
        let found = handle.get(&name(key)).await?.map(|object| object.payload);
        cx.eq(what, &found, &payload.cloned())
    };
    let stays = Bytes::from(pattern("stays", 5_000));
    a.put(&name("stays"), &plain, stays.clone()).await?;
    let mut idle = open("idle").await?;
    for round in 0..cx.times(40, 6) {
        // Now and then over what an earlier round has put.
        let [long, short, goes] =
            ["long", "short", "goes"].map(|word| format!("{word}{}", round % 4));
        b.put(&name(&goes), &plain, "here").await?;
        let [by_a, by_b] = [70_000, 300].map(|len| Bytes::from(pattern(&format!("{round}"), len)));
        let ids = [&long, &short, &goes].map(|key| name(key));
        let writes = try_join3(
            a.put_chunks(
                &ids[0],
                &plain,
                vec![by_a.slice(..30_000), by_a.slice(30_000..)],
            ),
            b.put(&ids[1], &plain, by_b.clone()),
            a.delete(&ids[2]),
        );
        let what = "while handles come and go";
        let reads = try_join(
            check(what, &a, "stays", Some(&stays)),
            check(what, &b, "never", None),
        );
        // All of them go on meanwhile: an open or a close may have to wait for one of them.
        let others = exchange(round, idle, open("fresh"));
        let (_, _, fresh) = try_join3(writes, reads, others).await?;
        idle = fresh;
        let what = "after handles came and went";
        for handle in [&a, &b, &idle] {
            check(what, handle, &long, Some(&by_a)).await?;
            check(what, handle, &short, Some(&by_b)).await?;
            check(what, handle, &goes, None).await?;
        }
    }
    Ok(())
}

async fn c_2_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let payload = |handle: &Handle, key: &str| {
        let (handle, id) = (handle.clone(), name(key));
        async move { Ok::<_, Stop>(handle.get(&id).await?.map(|object| object.payload)) }
    };
    a.put(&name("by-a"), &Metadata::new(), "a").await?;
    b.put(&name("by-b"), &Metadata::new(), "b").await?;
    drop(a);
    let (by_a, by_b) = (
        Some(Bytes::from_static(b"a")),
        Some(Bytes::from_static(b"b")),
    );
    cx.eq(
        "what a dropped handle wrote",
        &payload(&b, "by-a").await?,
        &by_a,
    )?;
    b.put(&name("later"), &Metadata::new(), "b").await?;
    let c = cx.open_as("c", "p").await?;
    for (key, expected) in [("by-a", &by_a), ("by-b", &by_b), ("later", &by_b)] {
        let what = format!("{key} through a handle opened after another was dropped");
        cx.eq(what, &payload(&c, key).await?, expected)?;
    }
    drop(c);
    b.delete(&name("later")).await?;
    cx.eq(
        "by-b through the handle that stayed",
        &payload(&b, "by-b").await?,
        &by_b,
    )?;
    if cx.caps.durability >= Durability::Process {
        drop(b);
        let d = cx.open_as("d", "p").await?;
        for (key, expected) in [("by-a", &by_a), ("by-b", &by_b), ("later", &None)] {
            let what = format!("{key} through a handle opened after all were dropped");
            cx.eq(what, &payload(&d, key).await?, expected)?;
        }
    }
    Ok(())
}

/// A random id: mostly of odd characters, at times empty or far too long.
pub(in crate::checks) fn random_id(rng: &mut TestRng) -> ObjectId {
    let scopes: Vec<(String, String)> = (0..rng.next_u32() % 4)
        .map(|_| (random_text(rng), random_text(rng)))
        .collect();
    let scopes: Vec<(&str, &str)> = scopes.iter().map(|(n, v)| (&**n, &**v)).collect();
    id(&random_text(rng), &scopes, &random_text(rng))
}

fn random_text(rng: &mut TestRng) -> String {
    const ODD: [char; 16] = [
        '\0',
        '/',
        '\\',
        '.',
        '%',
        ';',
        '=',
        ' ',
        '\n',
        '\'',
        '"',
        'a',
        'Z',
        '\u{e9}',
        '\u{fffd}',
        '\u{10ffff}',
    ];
    let len = [0, 1, 2, 5, 17, 300, 3_000][usize::from(rng.next_u32().to_le_bytes()[0] % 7)];
    (0..len)
        .map(|_| ODD[usize::from(rng.next_u32().to_le_bytes()[0] % 16)])
        .collect()
}

/// Random metadata: times and spans from one end of their range to the other.
pub(in crate::checks) fn random_metadata(rng: &mut TestRng) -> Metadata {
    let spans = [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_millis(u64::from(rng.next_u32())),
        Duration::from_secs(u64::from(u32::MAX) + 1),
        Duration::from_millis(i64::MAX.unsigned_abs()),
        Duration::MAX,
    ];
    let span = spans[usize::from(rng.next_u32().to_le_bytes()[0] % 6)];
    let mut time = || match rng.next_u32() % 4 {
        0 => None,
        1 => SystemTime::UNIX_EPOCH.checked_add(span),
        2 => SystemTime::UNIX_EPOCH.checked_sub(span),
        _ => Some(far()),
    };
    let (created, expires) = (time(), time());
    let mut metadata = match rng.next_u32() % 3 {
        0 => Metadata::new(),
        1 => Metadata::with_policy(ExpirationPolicy::TimeToLive(span)),
        _ => Metadata::with_policy(ExpirationPolicy::TimeToIdle(span)),
    };
    (metadata.time_created, metadata.time_expires) = (created, expires);
    metadata.size = rng.next_u32().is_multiple_of(2).then(|| rng.next_u64());
    metadata.content_type = Some(random_text(rng));
    metadata.filename = Some(random_text(rng));
    metadata.custom.insert(random_text(rng), random_text(rng));
    metadata
}

/// An extreme call may be answered either way, but not with an error that says the wrong thing.
pub(in crate::checks) fn classified<T: Debug>(
    what: &str,
    result: &Result<T, BackendError>,
    is_read: bool,
) -> Outcome {
    let Err(e) = result else { return Ok(()) };
    let certain = is_read || e.kind() == ErrorKind::InvalidInput;
    if certain && e.outcome() != Effect::NotApplied {
        return Err(Stop::fail(what, describe(e), "NotApplied"));
    }
    Ok(())
}

async fn c_3_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    extremes(cx, &a, &b).await
}

/// C-3.1, the plain calls.
pub(in crate::checks) async fn extremes<W: fixture::World + ?Sized>(
    cx: &Cx<W>,
    a: &Handle,
    b: &Handle,
) -> Outcome {
    let mut rng = cx.rng();
    let witness = name("witness");
    a.put(&witness, &Metadata::new(), "intact").await?;
    let expected = b.get(&witness).await?;
    for _ in 0..60 {
        let (id, metadata) = (random_id(&mut rng), random_metadata(&mut rng));
        let payload = Bytes::from(pattern("extreme", rng.random_range(0..3_000)));
        let pieces = match rng.next_u32() % 3 {
            0 => vec![payload],
            1 => Vec::new(),
            _ => chunks(&payload, 7, true),
        };
        // Straight to the store: the log would be full of noise.
        let store = a.store();
        let shown = brief(&id);
        let stream = crate::backend::client_stream(pieces);
        let put = store.put_object(&id, &metadata, stream).await;
        classified(&format!("put_object({shown})"), &put, false)?;
        let head = store.get_metadata(&id).await;
        classified(&format!("get_metadata({shown})"), &head, true)?;
        match store.get_object(&id).await {
            Ok(Some((_, stream))) => {
                let body = crate::backend::collect(stream).await;
                classified(&format!("the body of {shown}"), &body, true)?;
            }
            Ok(None) => {}
            Err(e) => classified::<()>(&format!("get_object({shown})"), &Err(e), true)?,
        }
        let delete = store.delete_object(&id).await;
        classified(&format!("delete_object({shown})"), &delete, false)?;
        store.join().await;
        let what = format!("another object after extreme calls on {shown}");
        cx.eq(what, &b.get(&witness).await?, &expected)?;
    }
    Ok(())
}

async fn c_4_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    bounds(cx, &a, &b).await
}

/// C-4.1, the plain calls. A payload bound beyond what the profile writes is left alone.
pub(in crate::checks) async fn bounds<W: fixture::World + ?Sized>(
    cx: &Cx<W>,
    a: &Handle,
    b: &Handle,
) -> Outcome {
    let caps = cx.caps.high_volume;
    let none = Metadata::new();
    let id_max = caps.id_len_bytes_max;
    for escaped in [false, true] {
        let (most, beyond) = (id_of_len(id_max, escaped), id_of_len(id_max + 1, escaped));
        a.put(&most, &none, "most").await?;
        let found = b.get(&most).await?.map(|object| object.payload);
        let expected = Some(Bytes::from_static(b"most"));
        cx.eq(format!("an id of {id_max} B"), &found, &expected)?;
        let result = a.try_put(&beyond, &none, vec!["beyond".into()]).await;
        refused(
            "a put under an id beyond the bound",
            result,
            ErrorKind::InvalidInput,
        )?;
        // A read may say so too, or that there is nothing.
        if let Ok(Some(object)) = b.try_get(&beyond).await {
            return Err(Stop::fail(
                "an id beyond the bound",
                brief(&object),
                "nothing there",
            ));
        }
        let found = b.get(&most).await?.map(|object| object.payload);
        cx.eq("an id at the bound, after one beyond it", &found, &expected)?;
    }
    let Some(max) = payload_max(cx) else {
        return Err(too_much(cx));
    };
    let most = Bytes::from(pattern("most", max));
    let beyond = Bytes::from(pattern("beyond", max + 1));
    let id = name("payload");
    a.put_chunks(&id, &none, chunks(&most, 60_000, false))
        .await?;
    let old = b.get(&id).await?;
    let whole = old.as_ref().is_some_and(|object| object.payload == most);
    cx.require(
        whole,
        format!("a payload of {max} B"),
        brief(&old),
        "all of it",
    )?;
    let ways = [
        vec![beyond.clone()],
        chunks(&beyond, 60_000, false),
        vec![most.clone(), Bytes::new(), beyond.slice(max..)],
    ];
    for pieces in ways {
        for target in [&id, &name("absent")] {
            let what = format!("a payload of {} B in {} pieces", max + 1, pieces.len());
            let result = a.try_put(target, &none, pieces.clone()).await;
            refused(&what, result, ErrorKind::InvalidInput)?;
            let expected = if *target == id { &old } else { &None };
            cx.eq(
                format!("what was there, after {what}"),
                &b.get(target).await?,
                expected,
            )?;
        }
    }
    a.put(&id, &none, most.clone()).await?;
    cx.eq(
        "a payload at the bound in one piece",
        &b.get(&id).await?.map(|o| o.payload),
        &Some(most),
    )
}

/// The declared bound of payloads, if it is within what the profile writes.
pub(in crate::checks) fn payload_max<W: fixture::World + ?Sized>(cx: &Cx<W>) -> Option<usize> {
    let max = usize::try_from(cx.caps.high_volume.payload_len_bytes_max).ok()?;
    (max <= cx.profile.value_len_bytes_max()).then_some(max)
}

/// Why the bound of payloads was not looked at.
pub(in crate::checks) fn too_much<W: fixture::World + ?Sized>(cx: &Cx<W>) -> Stop {
    Stop::Ignored(format!(
        "the bound of ids holds; that of payloads, {} bytes, is more than this profile writes",
        cx.caps.high_volume.payload_len_bytes_max
    ))
}

async fn c_4_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    crowd(cx, &a, &b).await
}

/// C-4.2, the plain calls.
pub(in crate::checks) async fn crowd<W: fixture::World + ?Sized>(
    cx: &Cx<W>,
    a: &Handle,
    b: &Handle,
) -> Outcome {
    let calls = cx.caps.in_flight_max.unwrap_or(64) + 50;
    let id = |nth: usize| name(&format!("{}", nth % 7));
    let payload = Bytes::from(pattern("long", len_max(&cx.caps, cx.profile).min(200_000)));
    let bodies = bodies_left(a, &payload, cx.times(calls, 30));
    cx.within(
        Duration::from_secs(40),
        "gets of which the bodies are left",
        bodies,
    )
    .await??;
    let all = join_all((0..calls).map(|nth| async move {
        match nth % 4 {
            0 => a.try_get(&id(nth)).await.map(drop),
            1 => a.try_metadata(&id(nth)).await.map(drop),
            2 => {
                let pieces = vec![Bytes::from(pattern("crowd", nth)), Bytes::new()];
                a.try_put(&id(nth), &Metadata::new(), pieces).await
            }
            _ => a.try_delete(&id(nth)).await,
        }
    }));
    let bound = Duration::from_secs(40);
    for result in cx
        .within(bound, format!("{calls} calls at once"), all)
        .await?
    {
        match result {
            Err(e) if (e.kind(), e.outcome()) != (ErrorKind::Timeout, Effect::NotApplied) => {
                return Err(Stop::error(format!("one of {calls} calls at once"), &e));
            }
            _ => {}
        }
    }
    a.put(&id(0), &Metadata::new(), "after").await?;
    let found = b.get(&id(0)).await?.map(|object| object.payload);
    cx.eq(
        "an object put after the crowd",
        &found,
        &Some(Bytes::from_static(b"after")),
    )
}

/// Gets whose bodies are dropped: before anything of them was read, after some pieces, with nothing left but the end.
async fn bodies_left(a: &Handle, payload: &Bytes, gets: usize) -> Outcome {
    let id = name("long");
    a.put(&id, &Metadata::new(), payload.clone()).await?;
    for nth in 0..gets {
        let found = a.store().get_object(&id).await;
        let Some((_, mut body)) = found.map_err(|e| Stop::error("get_object", &e))? else {
            return Err(Stop::fail("get_object of an object", "None", "the object"));
        };
        let wanted = [0, 1, payload.len() / 2, payload.len()][nth % 4];
        let mut read = 0;
        while read < wanted {
            match body.next().await {
                Some(Ok(piece)) => read += piece.len(),
                Some(Err(e)) => return Err(Stop::error("a body", &e)),
                None => break,
            }
        }
    }
    Ok(())
}

async fn c_3_2(cx: &Cx<dyn World>) -> Outcome {
    damage::ends(cx, |cx| Box::pin(work::hire(cx))).await
}
