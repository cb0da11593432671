//! ST-12 and ST-13: batches, appends, and what a crash leaves.

use larder_traits::stash::Append;
use larder_traits::{
    Antichain, Caps, Classify, Durability, Outcome as Effect, StashError, Timestamp,
};

use super::methods::Write;
use super::operations::{Looks, Weights, lists, lists_closed, of_texts};
use super::{
    Names, append, appends, at, both_read, empty, faults, names, pages, races, refuses, row, work,
};
use crate::check::{Check, Engine, Gate, Level, Outcome, Stop};
use crate::checks::outlives_power;
use crate::cx::{Cx, brief};
use crate::engine::kill::{self, End};
use crate::engine::power;
use crate::stash::{Failed, Handle, World};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "ST-12.1",
        "a batch is its single calls in order, a collection twice and no item at all included",
    )
    .kills("re-ordered items")
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(st_12_1(cx))),
    Check::new(
        "ST-12.2",
        "a batch with a bad item: each collection old or new, and the whole batch if declared",
    )
    .kills("half collection")
    .level(Level::Declared)
    .engines(&[Engine::Sequential, Engine::Fault])
    .run(|cx| Box::pin(st_12_2(cx))),
    Check::new(
        "ST-12.3",
        "an append that expects another upper is refused as a whole; one that fits does all of it",
    )
    .kills("split transaction")
    .engines(&[Engine::Sequential, Engine::Fault])
    .run(|cx| Box::pin(st_12_3(cx))),
    Check::new(
        "ST-12.4",
        "appends of every make: equal rows in two collections, no row at all, each refused for each reason",
    )
    .kills("summed over collections, nothing to write taken for nothing to do")
    .run(|cx| Box::pin(appends::st_12_4(cx))),
    Check::new(
        "ST-12.5",
        "of appends at once that expect one upper one is taken, wherever its rows and its seal are",
    )
    .kills("compared before the commit")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(races::st_12_5(cx))),
    Check::new(
        "ST-12.6",
        "a batch and an append over hundreds of collections move each of them",
    )
    .kills("a bit for each, a bound on items")
    .run(|cx| Box::pin(pages::st_12_6(cx))),
    Check::new(
        "ST-12.7",
        "an append that expects the empty upper, or finds it, is compared like any other",
    )
    .kills("empty as NULL")
    .run(|cx| Box::pin(pages::st_12_7(cx))),
    Check::new(
        "ST-12.8",
        "a batch or an append over collections of which one is gone is refused, and leaves the others as they were",
    )
    .kills("half a batch that is told to be none")
    .run(|cx| Box::pin(appends::st_12_8(cx))),
    Check::new(
        "ST-13.1",
        "after a kill in any method, what was acknowledged is there, and nothing is half there",
    )
    .kills("half batch")
    .gate(durable)
    .engines(&[Engine::Kill])
    .run(|cx| Box::pin(st_13_1(cx))),
    Check::new(
        "ST-13.2",
        "after a loss of power at any moment, what was acknowledged is there, and nothing is half there",
    )
    .kills("sync settings")
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(st_13_2(cx))),
    Check::new(
        "ST-13.3",
        "the answer of a commit is lost, applied or not: nothing is doubled",
    )
    .kills("blind retry")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(faults::st_13_3(cx))),
    Check::new(
        "ST-13.4",
        "a kill in seal, compact and consolidate: acknowledged frontiers and rows hold",
    )
    .kills("two commits")
    .gate(durable)
    .engines(&[Engine::Kill])
    .run(|cx| Box::pin(st_13_4(cx))),
    Check::new(
        "ST-13.6",
        "a cut in seal, compact and consolidate: acknowledged frontiers and rows hold",
    )
    .kills("two commits")
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(st_13_6(cx))),
    Check::new(
        "ST-13.7",
        "a kill while collections are made, dropped and made again: a dropped one does not come back",
    )
    .kills("dropped in memory")
    .gate(durable)
    .engines(&[Engine::Kill])
    .run(|cx| Box::pin(st_13_7(cx))),
    Check::new(
        "ST-13.8",
        "a cut while collections are made, dropped and made again: a dropped one does not come back",
    )
    .kills("drop not synced")
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(st_13_8(cx))),
    Check::new(
        "ST-13.5",
        "the disk is full within a batch and freed again: it goes on",
    )
    .kills("stuck")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(faults::st_13_5(cx))),
    Check::new(
        "ST-13.9",
        "closed by all and opened again between any two operations, all that is read is the model's",
    )
    .kills("replayed twice, lost at the second open")
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(st_13_9(cx))),
];

async fn st_12_1(cx: &Cx<dyn World>) -> Outcome {
    const LOOKS: Looks = Looks {
        iter: true,
        keys: false,
        frontiers: true,
        peeks: false,
        consolidate: false,
        everywhere: true,
    };
    in_order(cx).await?;
    let weights = Weights {
        update: 2,
        frontier: 1,
        consolidate: 1,
        batch: 6,
    };
    of_texts(cx, lists(weights), LOOKS).await
}

/// Batches whose order shows: one collection twice, upwards, then the wrong way round.
async fn in_order(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let d: Names = b.collection("d").await?;
    a.seal_batch::<String, String>(&[]).await?;
    a.compact_batch::<String, String>(&[]).await?;
    a.consolidate_batch::<String, String>(&[]).await?;
    a.update_many(c, vec![row("k", "v", 1, 1), row("k", "v", 2, -1)])
        .await?;
    a.seal_batch(&[(c, at(2)), (d, at(9)), (c, at(3)), (d, empty())])
        .await?;
    cx.eq("upper, sealed twice in a batch", &b.upper(c).await?, &at(3))?;
    cx.eq(
        "upper, sealed for ever in a batch",
        &b.upper(d).await?,
        &empty(),
    )?;
    let result = b.seal_batch(&[(c, at(5)), (c, at(4))]).await;
    backwards(cx, "a batch that seals a collection backwards", result)?;
    a.compact_batch(&[(c, at(1)), (d, at(7)), (c, at(2))])
        .await?;
    cx.eq(
        "since, compacted twice in a batch",
        &b.since(c).await?,
        &at(2),
    )?;
    cx.eq("since of another item", &b.since(d).await?, &at(7))?;
    let result = b.compact_batch(&[(d, at(9)), (d, at(8))]).await;
    backwards(cx, "a batch that compacts a collection backwards", result)?;
    a.consolidate_batch(&[c, d, c]).await?;
    cx.eq(
        "rows after a batch of consolidations",
        &b.iter(c).await?,
        &Vec::new(),
    )
}

/// The second item is refused for what the first one did, so that the batch fails either way.
fn backwards(cx: &Cx<dyn World>, what: &str, result: Result<(), Failed>) -> Outcome {
    let Err(failed) = result else {
        return Err(Stop::fail(what, "Ok", "an error"));
    };
    let kind = larder_traits::ErrorKind::InvalidInput;
    cx.eq(
        format!("the kind of the error of {what}"),
        &failed.kind(),
        &kind,
    )
}

/// Which call a failing batch is made of.
#[derive(Clone, Copy, Debug)]
enum Batch {
    Seal,
    Compact,
}

async fn st_12_2(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    for batch in [Batch::Seal, Batch::Compact] {
        for bad in 0..5 {
            let mut items = Vec::new();
            for n in 0..5 {
                let c: Names = a.collection(&format!("{batch:?} {bad} {n}")).await?;
                a.update(c, ("k".into(), "v".into()), 20, 1).await?;
                a.seal(c, at(10)).await?;
                a.compact(c, at(5)).await?;
                // One step back, for the bad one.
                let back = i64::from(n == bad) * 10;
                items.push(match batch {
                    Batch::Seal => (c, at(15 - back)),
                    Batch::Compact => (c, at(8 - back)),
                });
            }
            judge_half(cx, &mut a, &mut b, batch, bad, &items).await?;
            std::mem::swap(&mut a, &mut b);
        }
    }
    let all = [
        Write::SealBatch,
        Write::CompactBatch,
        Write::ConsolidateBatch,
    ];
    faults::batches(cx, &all).await
}

async fn judge_half(
    cx: &Cx<dyn World>,
    writer: &mut Handle,
    reader: &mut Handle,
    batch: Batch,
    bad: usize,
    items: &[(Names, Antichain<Timestamp>)],
) -> Outcome {
    let what = format!("{batch:?} batch with a bad item at {bad}");
    let (result, old) = match batch {
        Batch::Seal => (writer.seal_batch(items).await, at(10)),
        Batch::Compact => (writer.compact_batch(items).await, at(5)),
    };
    let Err(failed) = result else {
        return Err(Stop::fail(what, "Ok", "an error"));
    };
    cx.eq(
        what.clone(),
        &failed.kind(),
        &larder_traits::ErrorKind::InvalidInput,
    )?;
    let mut found = Vec::new();
    for (n, (c, new)) in items.iter().enumerate() {
        let (since, upper) = (reader.since(*c).await?, reader.upper(*c).await?);
        let (moved, still) = match batch {
            Batch::Seal => (upper, since == at(5)),
            Batch::Compact => (since, upper == at(10)),
        };
        let applied = moved == *new && n != bad;
        cx.require(
            still && (applied || moved == old),
            format!("{what}: the frontier of item {n}"),
            moved.to_string(),
            "the old one, or the new one of an item before the bad one",
        )?;
        let rows = vec![row("k", "v", 20, 1)];
        cx.eq(
            format!("{what}: the rows of item {n}"),
            &reader.iter(*c).await?,
            &rows,
        )?;
        found.push(applied);
    }
    let whole = cx.caps.stash.batch_atomic;
    let none = !found.contains(&true);
    let after = found[bad..].contains(&true);
    let unknown = failed.outcome() == Effect::Unknown;
    cx.require(
        none || !whole && unknown && !after,
        format!("{what}: which items were applied"),
        format!(
            "{}, the error's outcome is {:?}",
            brief(&found),
            failed.outcome()
        ),
        if whole {
            "none: batches are declared whole"
        } else {
            "none, or Unknown and some before the bad one"
        },
    )?;
    cx.require(
        !whole || !unknown,
        format!("{what}: the outcome of a refusal"),
        "Unknown",
        "NotApplied: batches are declared whole",
    )
}

async fn st_12_3(cx: &Cx<dyn World>) -> Outcome {
    let driver = cx.driver("p").await?;
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let d: Names = b.collection("d").await?;
    for (c, key) in [(c, "c"), (d, "d")] {
        a.update(c, (key.into(), "v".into()), 1, 1).await?;
        a.seal(c, at(5)).await?;
    }
    append(cx, &driver, Append::new()).await?;
    // Wrong in one of the two collections, first or last; then a bad row and a bad frontier behind good items.
    // Without whole batches only the very first comparison is known to come before any effect.
    let tries = if cx.caps.stash.batch_atomic { 5 } else { 1 };
    for wrong in 0..tries {
        let mut it = Append::new();
        let expect = |here: i32| if wrong == here { at(4) } else { at(5) };
        let time = if wrong == 2 { 4 } else { 6 };
        let upper = if wrong == 3 { at(3) } else { at(9) };
        let since = if wrong == 4 { at(10) } else { at(7) };
        let codec = |e: StashError| Stop::error("encoding rows for an append", &e);
        it.collection(c)
            .expect_upper(expect(0))
            .update([row("c", "new", 6, 1)])
            .map_err(codec)?
            .seal(at(9))
            .compact(at(7));
        it.collection(d)
            .expect_upper(expect(1))
            .update([row("d", "new", time, 1)])
            .map_err(codec)?
            .seal(upper)
            .compact(since);
        let result = append(cx, &driver, it).await;
        match wrong {
            0 | 1 => refuses!(
                "an append that expects another upper",
                result,
                StashError::UpperMismatch { .. }
            )?,
            2 => refuses!(
                "an append with a sealed time",
                result,
                StashError::TimeBeforeUpper { .. }
            )?,
            3 => refuses!(
                "an append that seals back",
                result,
                StashError::SealBeforeUpper { .. }
            )?,
            _ => refuses!(
                "an append that compacts past upper",
                result,
                StashError::CompactPastUpper { .. }
            )?,
        }
        for (c, key) in [(c, "c"), (d, "d")] {
            let rows = vec![row(key, "v", 1, 1)];
            both_read(
                cx,
                "rows after a refused append",
                [&mut a, &mut b],
                c,
                &rows,
            )
            .await?;
            cx.eq("upper after a refused append", &a.upper(c).await?, &at(5))?;
            cx.eq(
                "since after a refused append",
                &b.since(c).await?,
                &at(Timestamp::MIN),
            )?;
        }
    }
    append_whole(cx, c, d).await?;
    faults::batches(cx, &[Write::Append]).await
}

/// All parts of an append happen, in their order; the same again is refused.
async fn append_whole(cx: &Cx<dyn World>, c: Names, d: Names) -> Outcome {
    let driver = cx.driver("p").await?;
    let (mut a, mut b) = cx.open_two("p").await?;
    let codec = |e: StashError| Stop::error("encoding rows for an append", &e);
    let mut it = Append::new();
    it.collection(c)
        .expect_upper(at(5))
        .update([row("c", "new", 6, 1), row("c", "v", 6, -1)])
        .map_err(codec)?
        .seal(at(9))
        .compact(at(8));
    it.collection(d)
        .update([row("d", "new", 5, 1)])
        .map_err(codec)?;
    it.collection(d).expect_upper(at(5)).seal(at(6));
    it.collection(d)
        .expect_upper(at(6))
        .update([row("d", "more", 6, 1)])
        .map_err(codec)?;
    append(cx, &driver, it.clone()).await?;
    let rows = vec![row("c", "new", 8, 1)];
    both_read(cx, "rows after an append", [&mut a, &mut b], c, &rows).await?;
    let rows = vec![
        row("d", "more", 6, 1),
        row("d", "new", 5, 1),
        row("d", "v", 1, 1),
    ];
    both_read(
        cx,
        "rows of its second collection",
        [&mut a, &mut b],
        d,
        &rows,
    )
    .await?;
    cx.eq("upper after an append", &a.upper(c).await?, &at(9))?;
    cx.eq("since after an append", &b.since(c).await?, &at(8))?;
    cx.eq("upper of its second collection", &b.upper(d).await?, &at(6))?;
    let result = append(cx, &driver, it).await;
    refuses!(
        "the same append again",
        result,
        StashError::UpperMismatch { .. }
    )?;
    both_read(cx, "rows after the second try", [&mut a, &mut b], d, &rows).await
}

pub(super) fn durable(caps: &Caps) -> Gate {
    if caps.durability == Durability::None {
        Gate::Ignore("declares that nothing outlives the process")
    } else {
        Gate::Run
    }
}

async fn st_13_1(cx: &Cx<dyn World>) -> Outcome {
    let mut ends = vec![End::Dropped(5), End::Left(5)];
    ends.extend(kill::kills(cx));
    kill::survives(cx, |cx| Box::pin(work::hire(cx)), &ends).await
}

async fn st_13_4(cx: &Cx<dyn World>) -> Outcome {
    let ends = kill::kills(cx);
    kill::survives(cx, |cx| Box::pin(work::hire_frontiers(cx)), &ends).await
}

async fn st_13_9(cx: &Cx<dyn World>) -> Outcome {
    const LOOKS: Looks = Looks {
        iter: true,
        keys: false,
        frontiers: true,
        peeks: false,
        consolidate: false,
        everywhere: true,
    };
    let weights = Weights {
        update: 4,
        frontier: 2,
        consolidate: 2,
        batch: 1,
    };
    of_texts(cx, lists_closed(weights), LOOKS).await
}

async fn st_13_2(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire(cx))).await
}

async fn st_13_6(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire_frontiers(cx))).await
}

async fn st_13_7(cx: &Cx<dyn World>) -> Outcome {
    let mut ends = vec![End::Dropped(5), End::Left(5)];
    ends.extend(kill::kills(cx));
    kill::survives(cx, |cx| Box::pin(names::hire(cx)), &ends).await
}

async fn st_13_8(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(names::hire(cx))).await
}
