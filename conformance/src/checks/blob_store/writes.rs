//! BS-7 to BS-9: batches, and the hint that there is something to flush.

use larder_traits::{AlignedBlobBuf, BlobGuid, Caps, Durability};
use proptest::prelude::*;

use super::content::{filled, frame, own_frame};
use super::{failing, guid, threads, work};
use crate::blob_store::{Batch, Handle, World};
use crate::check::{Check, Engine, Gate, Outcome, Stop};
use crate::checks::outlives_power;
use crate::cx::Cx;
use crate::engine::power as engine;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BS-7.1",
        "a batch is the loop over its writes: new and old names, one twice, none at all",
    )
    .kills("parallel batch")
    .run(|cx| Box::pin(bs_7_1(cx))),
    Check::new(
        "BS-7.2",
        "the i-th write of a batch fails: a prefix has landed, the same again heals",
    )
    .kills("half state")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(failing::bs_7_2(cx))),
    Check::new(
        "BS-7.3",
        "a batch of ten times the queue's depth, with each name four times in it",
    )
    .kills("ring overflow")
    .run(|cx| Box::pin(bs_7_3(cx))),
    Check::new(
        "BS-8.1",
        "data-sync and a cut: old or new, whole; with a flush between: new",
    )
    .kills("metadata forgotten")
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(bs_8_1(cx))),
    Check::new(
        "BS-8.2",
        "a write between data-sync and flush is there after a cut",
    )
    .kills("skipped flush")
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(bs_8_2(cx))),
    Check::new(
        "BS-8.3",
        "data-sync shows at once, by itself and with writes and deletes around it",
    )
    .kills("synced past the cache")
    .run(|cx| Box::pin(bs_8_3(cx))),
    Check::new("BS-9.1", "needs_flush is true after each kind of change")
        .kills("missed change")
        .gate(power)
        .run(|cx| Box::pin(bs_9_1(cx))),
    Check::new(
        "BS-9.2",
        "a cut loses nothing whenever needs_flush is false",
    )
    .kills("wrong hint")
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(bs_9_2(cx))),
    Check::new(
        "BS-9.3",
        "flushes against writes: needs_flush is never false over a volatile one",
    )
    .kills("racy hint")
    .gate(power)
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(threads::bs_9_3(cx))),
];

fn power(caps: &Caps) -> Gate {
    if caps.durability == Durability::Power {
        Gate::Run
    } else {
        Gate::Ignore(
            "declares that nothing outlives a loss of power, so that a flush may never be needed",
        )
    }
}

/// Writes the batch of these names, with tags counted from `first`, and says what each name must hold then.
fn batch(
    writer: &Handle,
    how: Batch,
    names: &[u128],
    first: u64,
) -> Result<Vec<(BlobGuid, u64)>, Stop> {
    let sources: Vec<AlignedBlobBuf> = (first..)
        .take(names.len())
        .map(|tag| {
            if tag % 2 == 0 {
                frame(tag)
            } else {
                own_frame(&**writer.store(), tag)
            }
        })
        .collect();
    let names: Vec<BlobGuid> = names.iter().copied().map(guid).collect();
    let writes: Vec<_> = names.iter().copied().zip(&sources).collect();
    writer.write_all(how, &writes)?;
    let mut holds = Vec::new();
    for (name, tag) in names.into_iter().zip(first..) {
        holds.retain(|(other, _)| *other != name);
        holds.push((name, tag));
    }
    Ok(holds)
}

async fn bs_7_1(cx: &Cx<dyn World>) -> Outcome {
    const BATCHES: [&[u128]; 8] = [
        &[],
        &[1],
        &[1, 2, 3],
        &[3, 1, 4],
        &[5, 5],
        &[6, 1, 6, 2, 6, 1],
        &[
            7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 7,
        ],
        &[1, 1, 1, 1, 1, 1, 1, 1],
    ];
    let (a, b) = cx.open_two("p").await?;
    a.write(guid(0), 1)?;
    let mut first = 1_000;
    for how in Batch::BOTH {
        for names in BATCHES {
            let holds = batch(&a, how, names, first)?;
            for (name, tag) in holds {
                b.expect(how.name(), name, Some(tag))?;
            }
            b.expect("beside a batch", guid(0), Some(1))?;
            first += 100;
        }
        let all: Vec<BlobGuid> = (0..=22).map(guid).collect();
        cx.eq("list_blobs() after batches", &b.list()?, &all)?;
        // One buffer under many names, and over a name that was just deleted.
        let same = frame(first);
        a.delete(guid(3))?;
        a.write_all(how, &[2, 3, 4].map(|at| (guid(at), &same)))?;
        drop(same);
        for at in [2, 3, 4] {
            b.expect("one buffer under many names", guid(at), Some(first))?;
        }
        for at in 1..=22 {
            b.delete(guid(at))?;
        }
        cx.eq("list_blobs() after deletes", &a.list()?, &vec![guid(0)])?;
        first += 100;
    }
    Ok(())
}

/// A depth of queue that is common.
const DEPTH_USUAL: usize = 64;
/// Above this the frames of a batch would be more memory than a check may take.
const DEPTH_MAX: usize = 256;

async fn bs_7_3(cx: &Cx<dyn World>) -> Outcome {
    const SOURCES: usize = 16;
    let depth = cx
        .caps
        .in_flight_max
        .unwrap_or(DEPTH_USUAL)
        .clamp(1, DEPTH_MAX);
    let (a, b) = cx.open_two("p").await?;
    let sources: Vec<AlignedBlobBuf> = (0_u64..).take(SOURCES).map(frame).collect();
    let count = 10 * depth;
    let names = count.div_ceil(4);
    let mut rng = cx.rng();
    let picks: Vec<usize> = (0..count).map(|_| rng.random_range(0..SOURCES)).collect();
    let name = |at: usize| guid((at % names) as u128);
    let write = |(at, pick): (usize, &usize)| (name(at), &sources[*pick]);
    let writes: Vec<_> = picks.iter().enumerate().map(write).collect();
    a.write_all(Batch::Plain, &writes)?;
    let mut last: Vec<usize> = vec![0; names];
    for (at, pick) in picks.iter().enumerate() {
        last[at % names] = *pick;
    }
    for (at, pick) in last.into_iter().enumerate() {
        let what = format!("after a batch of {count} writes");
        b.expect(&what, name(at), u64::try_from(pick).ok())?;
    }
    let all: Vec<BlobGuid> = (0..names).map(name).collect();
    cx.eq("list_blobs()", &b.list()?, &all)
}

async fn bs_8_3(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.write(guid(1), 1)?;
    a.write(guid(2), 2)?;
    let holds = batch(&a, Batch::DataSync, &[1, 3], 10)?;
    b.delete(guid(2))?;
    b.write(guid(4), 4)?;
    for (name, tag) in holds {
        b.expect("before any flush", name, Some(tag))?;
    }
    a.write(guid(3), 30)?;
    a.delete(guid(1))?;
    a.flush()?;
    let found = [(1, None), (2, None), (3, Some(30)), (4, Some(4))];
    for (at, tag) in found {
        b.expect(
            "writes and deletes between data-sync and flush",
            guid(at),
            tag,
        )?;
    }
    a.write_all(Batch::DataSync, &[(guid(1), &filled(0))])?;
    cx.eq("has_blob after data-sync of zeros", &b.has(guid(1))?, &true)?;
    cx.eq("list_blobs()", &b.list()?, &[1, 3, 4].map(guid).to_vec())
}

async fn bs_9_1(cx: &Cx<dyn World>) -> Outcome {
    let a = cx.open("p").await?;
    let needed = |what: &str| {
        let needs = a.needs_flush();
        cx.require(
            needs,
            format!("needs_flush() after {what}"),
            "false",
            "true",
        )
    };
    for round in [0, 100] {
        a.write(guid(1), round + 1)?;
        needed("a write")?;
        a.flush()?;
        a.write(guid(1), round + 2)?;
        needed("an overwrite")?;
        a.flush()?;
        for (how, name) in Batch::BOTH.into_iter().zip(2..) {
            batch(&a, how, &[name], round + 10)?;
            needed(&format!("{} of a new blob", how.name()))?;
            a.flush()?;
            batch(&a, how, &[name, 1], round + 20)?;
            needed(&format!("{} over blobs", how.name()))?;
            // A read, a list and a batch of nothing are no flush.
            a.expect("unflushed", guid(name), Some(round + 20))?;
            drop(a.list()?);
            a.write_all(how, &[])?;
            needed("a batch of nothing after a change")?;
            a.flush()?;
        }
        for name in [1, 2, 3] {
            a.delete(guid(name))?;
            needed("a delete")?;
            a.flush()?;
        }
        // Over what was flushed, and then away with it: that it was there is all that the medium knows.
        for how in [None, Some(Batch::Plain), Some(Batch::DataSync)] {
            a.write(guid(4), round + 50)?;
            a.flush()?;
            match how {
                None => a.write(guid(4), round + 51)?,
                Some(how) => drop(batch(&a, how, &[4], round + 51)?),
            }
            a.delete(guid(4))?;
            needed("a write over a flushed blob, and its delete")?;
            a.flush()?;
        }
        a.write(guid(5), round + 30)?;
        a.delete(guid(5))?;
        a.write(guid(1), round + 31)?;
        needed("a write, a delete and a write")?;
        a.flush()?;
        a.delete(guid(1))?;
        needed("a delete")?;
        a.flush()?;
    }
    Ok(())
}

async fn bs_8_1(cx: &Cx<dyn World>) -> Outcome {
    engine::survives(cx, |cx| Box::pin(work::hire_data_syncing(cx))).await
}

async fn bs_8_2(cx: &Cx<dyn World>) -> Outcome {
    engine::survives(cx, |cx| Box::pin(work::hire_after_data_sync(cx))).await
}

async fn bs_9_2(cx: &Cx<dyn World>) -> Outcome {
    engine::survives(cx, |cx| Box::pin(work::hire_by_hint(cx))).await
}
