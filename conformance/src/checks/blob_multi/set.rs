//! BM-3 and BM-4: values that are replaced.

use futures_util::future::try_join_all;
use larder_traits::Atomicity;
use proptest::prelude::*;

use super::{all_is, concurrent, faults, fill, get_is, list_is, places, value_len_max, work};
use crate::blob_multi::{Handle, World};
use crate::check::{Check, Engine, Outcome, Stop};
use crate::checks::{contents, outlives_power, pattern};
use crate::cx::{Cx, show};
use crate::engine::{kill, power};
use crate::model::blob_multi::Blobs;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BM-3.1",
        "every length over every length, equal bytes, and set again after delete",
    )
    .kills("missing truncate, tombstone wins")
    .run(|cx| Box::pin(bm_3_1(cx))),
    Check::new(
        "BM-3.2",
        "each of three hundred values over the one before, from which most differ little",
    )
    .kills("a change that is not seen, an append, a counter that wraps")
    .run(|cx| Box::pin(bm_3_2(cx))),
    Check::new(
        "BM-3.3",
        "a long value that comes, shrinks and goes leaves the keys alone that are spelled like parts of it",
    )
    .kills("parts among the keys")
    .run(|cx| Box::pin(bm_3_3(cx))),
    Check::new(
        "BM-4.1",
        "readers of a running set see the old value or the new one, never none",
    )
    .kills("in-place write, delete then put")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(concurrent::bm_4_1(cx))),
    Check::new(
        "BM-4.2",
        "of two writers of one key with values of unequal lengths, one wins whole",
    )
    .kills("shared temporary")
    .run(|cx| Box::pin(bm_4_2(cx))),
    Check::new(
        "BM-4.3",
        "writers of keys that differ in a suffix do not meet",
    )
    .kills("colliding temporaries")
    .run(|cx| Box::pin(bm_4_3(cx))),
    Check::new(
        "BM-4.4",
        "after a set that failed at any step: the old value or the new",
    )
    .kills("half replace")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(faults::bm_4_4(cx))),
    Check::new(
        "BM-4.5",
        "a non-atomic set that is killed tears its own key at most; a complete one is there",
    )
    .kills("neighbour torn")
    .gate(places::survives_process)
    .engines(&[Engine::Kill])
    .run(|cx| Box::pin(bm_4_5(cx))),
    Check::new(
        "BM-4.6",
        "after a large set that was killed at any step: the old value or the new",
    )
    .kills("half replace")
    .gate(places::survives_process)
    .engines(&[Engine::Kill])
    .run(|cx| Box::pin(bm_4_6(cx))),
    Check::new(
        "BM-4.7",
        "a non-atomic set that is cut off tears its own key at most; a complete one is durable",
    )
    .kills("neighbour torn")
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(bm_4_7(cx))),
];

const BOTH: [Atomicity; 2] = [Atomicity::RequireAtomic, Atomicity::AllowNonAtomic];

async fn bm_3_1(cx: &Cx<dyn World>) -> Outcome {
    const LENGTHS: [usize; 4] = [0, 3, 4_097, 70_000];
    let (a, b) = cx.open_two("p").await?;
    let mut keys = Vec::new();
    for atomic in BOTH {
        for old_len in LENGTHS {
            for new_len in LENGTHS {
                let key = format!("{old_len}-{new_len}-{atomic:?}");
                let old = pattern(&format!("old {key}"), old_len);
                let new = pattern(&format!("new {key}"), new_len);
                replaced(&a, &b, &key, atomic, &old, &new).await?;
                keys.push(key);
            }
        }
    }
    list_is(&a, keys.clone()).await?;
    let late = cx.open_as("c", "p").await?;
    for key in keys {
        // The last step of each was to set it to its own name.
        get_is(&late, &key, Some(key.as_bytes())).await?;
    }
    Ok(())
}

/// `old`, then `new`, then `new` again, then nothing, then `old` and something else, each seen through both handles.
async fn replaced(
    a: &Handle,
    b: &Handle,
    key: &str,
    atomic: Atomicity,
    old: &[u8],
    new: &[u8],
) -> Outcome {
    let steps = [
        Some(old),
        Some(new),
        Some(new),
        None,
        Some(new),
        None,
        Some(old),
    ];
    for (at, value) in steps.into_iter().enumerate() {
        let (writer, reader) = if at % 2 == 0 { (a, b) } else { (b, a) };
        match value {
            Some(value) => writer.set_with(key, value.to_vec(), atomic).await?,
            None => writer.delete(key).await?,
        }
        get_is(reader, key, value).await?;
        get_is(writer, key, value).await?;
    }
    b.set_with(key, key.to_owned(), atomic).await?;
    get_is(a, key, Some(key.as_bytes())).await
}

async fn bm_3_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let values = contents::successors(cx, value_len_max(cx));
    for (at, value) in values.into_iter().enumerate() {
        let (writer, reader) = if at % 3 == 0 { (&b, &a) } else { (&a, &b) };
        writer
            .set_with("k", value.clone(), BOTH[at / 2 % 2])
            .await?;
        get_is(reader, "k", Some(&value)).await?;
        if at % 5 == 0 {
            get_is(writer, "k", Some(&value)).await?;
        }
    }
    list_is(&a, ["k"]).await
}

async fn bm_3_3(cx: &Cx<dyn World>) -> Outcome {
    const PARTS: [&str; 18] = [
        "k/0",
        "k/1",
        "k/2",
        "k.0",
        "k.1",
        "k-0",
        "k-1",
        "k_1",
        "k1",
        "k/0000",
        "k/00000001",
        "k.part0",
        "k.part1",
        "k/part/1",
        "k/parts/0",
        "k.00000000",
        "k!1",
        "0/k",
    ];
    let mut lengths = vec![70_000, 300_001];
    if !cx.world().is_remote() {
        lengths.push((2 << 20) + 1);
    }
    lengths.retain(|&len| len <= value_len_max(cx));
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    for (round, len) in lengths.into_iter().enumerate() {
        let (writer, reader) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let tag = |word: &str| format!("{word} {round}");
        // The parts are there first, then some of them come after the long value.
        for (at, part) in PARTS.into_iter().enumerate() {
            fill(writer, &mut model, part, &tag("before"), 10 + at).await?;
        }
        fill(reader, &mut model, "k", &tag("long"), len).await?;
        all_is(writer, &model).await?;
        for part in PARTS.into_iter().skip(round % 2).step_by(2) {
            fill(reader, &mut model, part, &tag("after"), 20).await?;
        }
        all_is(writer, &model).await?;
        if round % 2 == 0 {
            writer.delete("k").await?;
            model.delete("k");
        } else {
            fill(writer, &mut model, "k", &tag("short"), 3).await?;
        }
        all_is(reader, &model).await?;
        // And they go, while the long value stays.
        fill(writer, &mut model, "k", &tag("again"), len).await?;
        for part in PARTS {
            reader.delete(part).await?;
            model.delete(part);
        }
        all_is(reader, &model).await?;
    }
    all_is(&cx.open_as("c", "p").await?, &model).await
}

/// Runs the sets at the same time, each on a task of its own.
async fn at_once(sets: Vec<(Handle, String, Vec<u8>, Atomicity)>) -> Outcome {
    let tasks = sets.into_iter().map(|(handle, key, value, atomic)| {
        tokio::spawn(async move { handle.set_with(&key, value, atomic).await })
    });
    for ended in try_join_all(tasks).await.map_err(in_task)? {
        ended?;
    }
    Ok(())
}

/// A panic in a task is the check's own.
pub(super) fn in_task(error: tokio::task::JoinError) -> Stop {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Stop::Inconclusive(format!("a task was lost: {error}")),
    }
}

async fn bm_4_2(cx: &Cx<dyn World>) -> Outcome {
    const ROUNDS: usize = 24;
    let (a, b) = cx.open_two("p").await?;
    let mut rng = cx.rng();
    let mut before = pattern("before", 30_000);
    a.set("k", before.clone()).await?;
    for round in 0..ROUNDS {
        let lengths = [rng.random_range(0..200), rng.random_range(4_000..150_000)];
        let values = lengths.map(|len| pattern(&format!("{round} {len}"), len));
        let atomic = BOTH[round / 2 % 2];
        // Two writers of one handle, and two of two.
        let other = if round % 2 == 0 { &a } else { &b };
        let set = |handle: &Handle, value: &[u8]| {
            (handle.clone(), "k".to_owned(), value.to_vec(), atomic)
        };
        let known = [before.clone(), values[0].clone(), values[1].clone()];
        let writers = at_once(vec![set(&a, &values[0]), set(other, &values[1])]);
        let reader = tokio::spawn(reads_one_of(b.clone(), known));
        writers.await?;
        reader.await.map_err(in_task)??;
        let seen = b.get("k").await?;
        before = one_of("get(\"k\") after two sets at once", seen, &values)?;
        get_is(&a, "k", Some(&before)).await?;
        list_is(&a, ["k"]).await?;
    }
    Ok(())
}

/// Reads beside the writers of a key that was there before them.
async fn reads_one_of(handle: Handle, known: [Vec<u8>; 3]) -> Outcome {
    const READS: usize = 6;
    for _ in 0..READS {
        one_of("get(\"k\") while it is set", handle.get("k").await?, &known)?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// The value, or the failure that it is none of those that were written.
fn one_of(what: &str, seen: Option<Vec<u8>>, known: &[Vec<u8>]) -> Result<Vec<u8>, Stop> {
    let shown = seen.as_deref().map_or("None".into(), show);
    seen.filter(|seen| known.contains(seen)).ok_or_else(|| {
        let known: Vec<String> = known.iter().map(|value| show(value)).collect();
        Stop::fail(what, shown, known.join(" or "))
    })
}

async fn bm_4_3(cx: &Cx<dyn World>) -> Outcome {
    const ROUNDS: usize = 16;
    const KEYS: [&str; 12] = [
        "a", "a.b", "a.c", "a.tmp", ".a.tmp", "a.tmp1", "a.part", "a.new", "a.lock", ".a", "a-",
        "tmp",
    ];
    let (a, b) = cx.open_two("p").await?;
    let mut rng = cx.rng();
    for round in 0..ROUNDS {
        let mut sets = Vec::new();
        for (at, key) in KEYS.into_iter().enumerate() {
            let len = rng.random_range(0..20_000);
            let handle = if at % 2 == 0 { &a } else { &b };
            let value = pattern(&format!("{round} {key}"), len);
            sets.push((handle.clone(), key.to_owned(), value, BOTH[round % 2]));
        }
        at_once(sets.clone()).await?;
        list_is(&a, KEYS).await?;
        for (at, (_, key, value, _)) in sets.iter().enumerate() {
            let reader = if at % 2 == 0 { &b } else { &a };
            get_is(reader, key, Some(value)).await?;
        }
    }
    Ok(())
}

async fn bm_4_5(cx: &Cx<dyn World>) -> Outcome {
    let ends = kill::kills(cx);
    kill::survives(cx, |cx| Box::pin(work::hire_careless(cx)), &ends).await
}

async fn bm_4_6(cx: &Cx<dyn World>) -> Outcome {
    let ends = kill::kills(cx);
    kill::survives(cx, |cx| Box::pin(work::hire_large(cx)), &ends).await
}

async fn bm_4_7(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire_careless(cx))).await
}
