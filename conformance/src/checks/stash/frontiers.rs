//! ST-6 to ST-10: sealing, compacting, consolidating, and the time of a peek.

use larder_traits::{StashError, Timestamp};
use proptest::prelude::*;

use super::operations::{Looks, Weights, lists, of_texts};
use super::rows::filled;
use super::{Names, at, both_read, concurrent, empty, pages, refuses, row, sealed};
use crate::check::{Check, Engine, Level, Outcome, Stop};
use crate::cx::Cx;
use crate::engine::cost;
use crate::model::stash::Collection;
use crate::stash::World;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "ST-6.1",
        "a seal may stay, go ahead or close for ever, never go back; rows are not touched",
    )
    .kills("regress")
    .run(|cx| Box::pin(st_6_1(cx))),
    Check::new(
        "ST-7.1",
        "a compaction past upper or before since is refused, an equal one is not",
    )
    .kills("unchecked")
    .run(|cx| Box::pin(st_7_1(cx))),
    Check::new(
        "ST-7.2",
        "early rows show at since at once, without a consolidation",
    )
    .kills("physical only")
    .run(|cx| Box::pin(st_7_2(cx))),
    Check::new(
        "ST-7.3",
        "rows that cancel out once their times are advanced are gone",
    )
    .kills("summed before advancing")
    .run(|cx| Box::pin(st_7_3(cx))),
    Check::new(
        "ST-8.1",
        "a consolidation changes no answer, nor does a second one, in any state",
    )
    .kills("changed answers")
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(st_8_1(cx))),
    Check::new(
        "ST-8.2",
        "rows up to since are folded; with an empty since none is left",
    )
    .kills("rows kept")
    .run(|cx| Box::pin(st_8_2(cx))),
    Check::new(
        "ST-8.3",
        "what a consolidation after one change costs among few rows and many",
    )
    .kills("rewrites all")
    .level(Level::Report)
    .engines(&[Engine::Report])
    .run(|cx| Box::pin(st_8_3(cx))),
    Check::new(
        "ST-8.4",
        "consolidated again and again, with writes and compactions between or without: folded each time",
    )
    .kills("only what was written since the last time")
    .run(|cx| Box::pin(st_8_4(cx))),
    Check::new(
        "ST-8.5",
        "rows that lie far apart, and sums that leave 64 bits on their way, are folded whole",
    )
    .kills("folded in parts, overflow on the way")
    .run(|cx| Box::pin(pages::st_8_5(cx))),
    Check::new(
        "ST-8.6",
        "keys and values that part at their ends, of many lengths, stay apart when they are folded",
    )
    .kills("compared by a prefix, or without case")
    .run(|cx| Box::pin(pages::st_8_6(cx))),
    Check::new(
        "ST-9.1",
        "since and upper are the model's after each of many operations, on both handles",
    )
    .kills("cached frontier")
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(st_9_1(cx))),
    Check::new(
        "ST-9.2",
        "while others seal and compact, since and upper go ahead on every handle, and are never stale",
    )
    .kills("cached frontier, regress")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(concurrent::st_9_2(cx))),
    Check::new(
        "ST-10.1",
        "the time of a peek is the one before upper; without a sealed time there is none",
    )
    .kills("underflow")
    .run(|cx| Box::pin(st_10_1(cx))),
];

async fn st_6_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let rows = vec![
        row("k", "v", -5, 1),
        row("k", "v", 3, 1),
        row("k", "v", 9, -1),
    ];
    a.update_many(c, rows.clone()).await?;
    for upper in [
        at(Timestamp::MIN),
        at(-7),
        at(-7),
        at(3),
        at(4),
        at(100),
        at(Timestamp::MAX),
        empty(),
        empty(),
    ] {
        a.seal(c, upper.clone()).await?;
        for handle in [&mut a, &mut b] {
            cx.eq("upper after a seal", &handle.upper(c).await?, &upper)?;
            let since = handle.since(c).await?;
            cx.eq("since after a seal", &since, &at(Timestamp::MIN))?;
        }
        both_read(cx, "rows after a seal", [&mut a, &mut b], c, &rows).await?;
        let Some(upper_at) = upper.as_option().copied() else {
            continue;
        };
        let earlier = upper_at
            .checked_sub(1)
            .into_iter()
            .chain([Timestamp::MIN, -8]);
        for earlier in earlier.filter(|earlier| *earlier < upper_at) {
            let result = b.seal(c, at(earlier)).await;
            refuses!(
                "a seal that goes back",
                result,
                StashError::SealBeforeUpper { .. }
            )?;
        }
        cx.eq("upper after refusals", &a.upper(c).await?, &upper)?;
        std::mem::swap(&mut a, &mut b);
    }
    for earlier in [Timestamp::MIN, 0, Timestamp::MAX] {
        let result = a.seal(c, at(earlier)).await;
        refuses!(
            "a seal once sealed for ever",
            result,
            StashError::SealBeforeUpper { .. }
        )?;
    }
    drop((a, b));
    let mut a = cx.open("p").await?;
    cx.eq("upper after reopening", &a.upper(c).await?, &empty())?;
    cx.eq("rows after reopening", &a.iter(c).await?, &rows)
}

async fn st_7_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    a.compact(c, at(Timestamp::MIN)).await?;
    let result = a.compact(c, at(Timestamp::MIN + 1)).await;
    let what = "a compaction of what was never sealed";
    refuses!(what, result, StashError::CompactPastUpper { .. })?;
    a.seal(c, at(10)).await?;
    for since in [at(11), at(Timestamp::MAX), empty()] {
        let result = b.compact(c, since).await;
        refuses!(
            "a compaction past upper",
            result,
            StashError::CompactPastUpper { .. }
        )?;
        cx.eq(
            "since after a refusal",
            &a.since(c).await?,
            &at(Timestamp::MIN),
        )?;
    }
    for since in [4, 4, 7] {
        a.compact(c, at(since)).await?;
        cx.eq("since after a compaction", &b.since(c).await?, &at(since))?;
        for earlier in [since - 1, Timestamp::MIN] {
            let result = b.compact(c, at(earlier)).await;
            refuses!(
                "a compaction that goes back",
                result,
                StashError::CompactBeforeSince { .. }
            )?;
            cx.eq("since after a refusal", &a.since(c).await?, &at(since))?;
        }
        std::mem::swap(&mut a, &mut b);
    }
    b.compact(c, at(10)).await?;
    cx.eq("since at upper itself", &a.since(c).await?, &at(10))?;
    cx.eq("upper after compactions", &b.upper(c).await?, &at(10))?;
    b.seal(c, empty()).await?;
    a.compact(c, at(Timestamp::MAX)).await?;
    a.compact(c, empty()).await?;
    b.compact(c, empty()).await?;
    cx.eq("since, compacted for ever", &b.since(c).await?, &empty())?;
    let result = b.compact(c, at(Timestamp::MAX)).await;
    refuses!(
        "a compaction from the end back",
        result,
        StashError::CompactBeforeSince { .. }
    )?;
    drop(a);
    let mut a = cx.open("p").await?;
    cx.eq("since after reopening", &a.since(c).await?, &empty())
}

async fn st_7_2(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    a.update_many(
        c,
        vec![
            row("a", "v", 1, 1),
            row("a", "w", 3, 1),
            row("b", "v", 4, 1),
        ],
    )
    .await?;
    b.update_many(c, vec![row("b", "v", 5, 1), row("b", "v", 6, 1)])
        .await?;
    a.seal(c, at(6)).await?;
    a.compact(c, at(4)).await?;
    let expected = vec![
        row("a", "v", 4, 1),
        row("a", "w", 4, 1),
        row("b", "v", 4, 1),
        row("b", "v", 5, 1),
        row("b", "v", 6, 1),
    ];
    both_read(cx, "rows once since is 4", [&mut a, &mut b], c, &expected).await?;
    let of_key = b.iter_key(c, &"a".to_owned()).await?;
    cx.eq(
        "one key's rows once since is 4",
        &of_key,
        &vec![("v".into(), 4, 1), ("w".into(), 4, 1)],
    )?;
    a.compact(c, at(6)).await?;
    let expected = vec![
        row("a", "v", 6, 1),
        row("a", "w", 6, 1),
        row("b", "v", 6, 3),
    ];
    both_read(cx, "rows once since is 6", [&mut a, &mut b], c, &expected).await?;
    drop(a);
    let mut a = cx.open("p").await?;
    both_read(cx, "rows after reopening", [&mut a, &mut b], c, &expected).await
}

async fn st_7_3(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    a.update(c, ("k".into(), "v".into()), 1, 1).await?;
    b.update(c, ("k".into(), "v".into()), 2, -1).await?;
    a.update_many(c, vec![row("l", "v", 1, 2), row("l", "v", 4, -2)])
        .await?;
    a.seal(c, at(5)).await?;
    let before = vec![
        row("k", "v", 1, 1),
        row("k", "v", 2, -1),
        row("l", "v", 1, 2),
        row("l", "v", 4, -2),
    ];
    both_read(
        cx,
        "rows that will cancel out",
        [&mut a, &mut b],
        c,
        &before,
    )
    .await?;
    b.compact(c, at(3)).await?;
    let after = vec![row("l", "v", 3, 2), row("l", "v", 4, -2)];
    both_read(cx, "rows once since is 3", [&mut a, &mut b], c, &after).await?;
    let of_key = a.iter_key(c, &"k".to_owned()).await?;
    cx.eq("a key of which nothing is left", &of_key, &Vec::new())?;
    a.consolidate(c).await?;
    both_read(cx, "the same, consolidated", [&mut a, &mut b], c, &after).await?;
    b.compact(c, at(4)).await?;
    both_read(cx, "rows once since is 4", [&mut a, &mut b], c, &Vec::new()).await
}

async fn st_8_1(cx: &Cx<dyn World>) -> Outcome {
    const LOOKS: Looks = Looks {
        iter: true,
        keys: false,
        frontiers: false,
        peeks: false,
        consolidate: true,
        everywhere: false,
    };
    // A state that shows it first, so that it does not depend on chance: rows below, at and above since, sums that
    // cancel, and a second round over what is folded already.
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let rows = (1..9).flat_map(|time| {
        [
            row("k", "v", time, 1),
            row("k", "w", time, time % 3 - 1),
            row("l", "v", time, -1),
        ]
    });
    a.update_many(c, rows.collect()).await?;
    a.seal(c, at(7)).await?;
    for since in [0, 1, 4, 6, 7] {
        a.compact(c, at(since)).await?;
        let (rows, peek) = (b.iter(c).await?, b.peek(c).await.ok());
        for _ in 0..2 {
            a.consolidate(c).await?;
            both_read(cx, "iter after a consolidation", [&mut a, &mut b], c, &rows).await?;
            cx.eq("peek after a consolidation", &b.peek(c).await.ok(), &peek)?;
        }
        b.update(c, ("k".into(), "v".into()), 7, 1).await?;
    }
    let weights = Weights {
        update: 4,
        frontier: 3,
        consolidate: 6,
        batch: 1,
    };
    of_texts(cx, lists(weights), LOOKS).await
}

async fn st_8_3(cx: &Cx<dyn World>) -> Outcome {
    let measure = async |count: usize| {
        let mut a = cx.open(&format!("p{count}")).await?;
        let c: Names = a.collection("c").await?;
        filled(&mut a, c, count, cx.caps.stash.batch_rows_max).await?;
        a.consolidate(c).await?;
        let mut time = 2;
        let change = async || {
            a.update_many(c, vec![row("k1", "v", time, 1)]).await?;
            time += 1;
            a.seal(c, at(time)).await?;
            a.compact(c, at(time)).await?;
            a.consolidate(c).await.map_err(Stop::from)
        };
        cost::median(change).await
    };
    let what = "a change of one row, and a consolidation,";
    cost::compare(cx, what, usize::MAX, measure).await
}

async fn st_8_2(cx: &Cx<dyn World>) -> Outcome {
    let mut a = cx.open("p").await?;
    let c: Names = a.collection("c").await?;
    let none = cx.rows("p").await?;
    let times = |time| row(&format!("{}", time % 2), "v", time, 1);
    a.update_many(c, (1..=100).map(times).collect()).await?;
    let written = cx.rows("p").await?;
    a.seal(c, at(101)).await?;
    a.compact(c, at(91)).await?;
    a.consolidate(c).await?;
    let folded = cx.rows("p").await?;
    // Two pairs, each at since and at some of the ten times after it.
    cx.require(
        folded.saturating_sub(none) <= 12 && folded <= written,
        "the number of rows after a consolidation",
        format!("{none} empty, {written} written, {folded} consolidated"),
        "at most 12 rows: 2 at since, 9 after it, and some slack",
    )?;
    a.seal(c, empty()).await?;
    a.compact(c, empty()).await?;
    a.consolidate(c).await?;
    let left = cx.rows("p").await?;
    cx.require(
        left <= none,
        "the number of rows consolidated at an empty since",
        format!("{none} while it was new, {left} now"),
        "no row",
    )
}

async fn st_8_4(cx: &Cx<dyn World>) -> Outcome {
    const KEYS: i64 = 6;
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let none = cx.rows("p").await?;
    let mut model = Collection::default();
    let mut rng = cx.rng();
    let (mut upper, mut since) = (0, 0);
    let broken = |e: StashError| Stop::Inconclusive(format!("the model refused a call: {e}"));
    for round in 0..cx.times(60, 8) {
        // What is written is taken back later, at another time, now before the rows are folded and now after.
        if round % 3 != 2 {
            let diff = if round % 3 == 0 { 1 } else { -1 };
            let time = upper + rng.random_range(0..3);
            let rows: Vec<_> = (0..KEYS)
                .map(|key| row(&key.to_string(), "v", time, diff))
                .collect();
            a.update_many(c, rows.clone()).await?;
            model.update_many(rows).map_err(broken)?;
        }
        upper += rng.random_range(0..4);
        a.seal(c, at(upper)).await?;
        model.seal(at(upper)).map_err(broken)?;
        for _ in 0..rng.random_range(1..4) {
            if rng.random_range(0..4) > 0 {
                since = rng.random_range(since..=upper);
                b.compact(c, at(since)).await?;
                model.compact(at(since)).map_err(broken)?;
            }
            match rng.random_range(0..3) {
                0 => a.consolidate_batch(&[c]).await?,
                _ => b.consolidate(c).await?,
            }
            model.consolidate().map_err(broken)?;
            let (found, most) = (cx.rows("p").await?, model.rows().len());
            cx.require(
                found.saturating_sub(none) <= u64::try_from(most).unwrap_or_default() + 1,
                format!("the number of rows consolidated at {since}, in round {round}"),
                format!("{none} while it was new, {found} now"),
                format!("at most {most} more: those up to since are folded"),
            )?;
            let rows = model.iter().map_err(broken)?;
            both_read(cx, "rows consolidated again", [&mut a, &mut b], c, &rows).await?;
        }
        std::mem::swap(&mut a, &mut b);
    }
    Ok(())
}

async fn st_9_1(cx: &Cx<dyn World>) -> Outcome {
    const LOOKS: Looks = Looks {
        iter: false,
        keys: false,
        frontiers: true,
        peeks: false,
        consolidate: false,
        everywhere: true,
    };
    let weights = Weights {
        update: 1,
        frontier: 6,
        consolidate: 1,
        batch: 2,
    };
    of_texts(cx, lists(weights), LOOKS).await
}

async fn st_10_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let nothing = "the time of a peek where since is not before upper";
    let result = b.peek_timestamp(c).await;
    refuses!(nothing, result, StashError::NothingSealed { .. })?;
    refuses!(nothing, b.peek(c).await, StashError::NothingSealed { .. })?;
    for (upper, expected) in [
        (Timestamp::MIN + 1, Timestamp::MIN),
        (-3, -4),
        (0, -1),
        (5, 4),
        (Timestamp::MAX, Timestamp::MAX - 1),
    ] {
        a.seal(c, at(upper)).await?;
        for handle in [&mut a, &mut b] {
            let observed = handle.peek_timestamp(c).await?;
            cx.eq(
                format!("the time of a peek with upper {upper}"),
                &observed,
                &expected,
            )?;
        }
    }
    a.compact(c, at(Timestamp::MAX - 1)).await?;
    let observed = b.peek_timestamp(c).await?;
    cx.eq(
        "the time of a peek, since just before upper",
        &observed,
        &(Timestamp::MAX - 1),
    )?;
    a.compact(c, at(Timestamp::MAX)).await?;
    let result = b.peek_timestamp(c).await;
    refuses!(nothing, result, StashError::NothingSealed { .. })?;
    b.seal(c, empty()).await?;
    let observed = a.peek_timestamp(c).await?;
    cx.eq(
        "the time of a peek, sealed for ever",
        &observed,
        &Timestamp::MAX,
    )?;
    b.compact(c, empty()).await?;
    let result = a.peek_timestamp(c).await;
    refuses!(
        "the time of a peek, both frontiers empty",
        result,
        StashError::NothingSealed { .. }
    )?;

    let c: Names = b.collection("other").await?;
    a.update(c, ("k".into(), "v".into()), 5, 1).await?;
    a.seal(c, at(6)).await?;
    cx.eq("a peek at 5", &b.peek(c).await?, &vec![sealed("k", "v", 1)])?;
    a.compact(c, at(6)).await?;
    let result = b.peek(c).await;
    refuses!(
        "a peek where since is upper",
        result,
        StashError::NothingSealed { .. }
    )
}
