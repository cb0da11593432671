//! ST-3 and ST-4: reading rows.

use larder_traits::{Diff, StashCollection, StashError, Timestamp};
use proptest::prelude::*;

use super::operations::{Looks, Weights, lists, of_texts, side_by_side};
use super::{Names, at, both_read, empty, pages, races, refuses, row};
use crate::check::{Check, Engine, Level, Outcome, Stop};
use crate::cx::Cx;
use crate::engine::{cost, model};
use crate::stash::{Handle, Odd, World};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new("ST-3.1", "rows written in any order come sorted by key, value and time, also those not sealed")
        .kills("insertion order, unsealed hidden")
        .run(|cx| Box::pin(st_3_1(cx))),
    Check::new("ST-3.2", "equal rows are summed, zeros left out, negatives shown, times kept apart until since passes")
        .kills("merged early, never")
        .run(|cx| Box::pin(st_3_2(cx))),
    Check::new("ST-3.3", "a sum beyond 64 bits is an error, whatever the order; one that only passes through is not")
        .kills("wrap")
        .run(|cx| Box::pin(st_3_3(cx))),
    Check::new("ST-3.4", "with an empty since there is nothing to read, and that is an error")
        .kills("empty answer")
        .run(|cx| Box::pin(st_3_4(cx))),
    Check::new("ST-3.5", "more rows than any page, of keys that go over its end, are read whole, as written and consolidated")
        .kills("next page behind the last key")
        .run(|cx| Box::pin(pages::st_3_5(cx))),
    Check::new("ST-3.6", "rows that cancel out, more of them than any page, hide none of those before and behind them")
        .kills("a page of which nothing is left taken for the end")
        .run(|cx| Box::pin(pages::st_3_6(cx))),
    Check::new("ST-4.1", "iter_key is iter filtered by the key, after each of many operations")
        .kills("drifting query")
        .engines(&[Engine::Model])
        .run(|cx| Box::pin(st_4_1(cx))),
    Check::new("ST-4.2", "what one key costs among few rows and many")
        .kills("full scan")
        .level(Level::Report)
        .engines(&[Engine::Report])
        .run(|cx| Box::pin(st_4_2(cx))),
    Check::new("ST-4.3", "a key of more rows than any page, and long keys that part at their last byte, are each found whole")
        .kills("one page, index over a prefix")
        .run(|cx| Box::pin(st_4_3(cx))),
    Check::new("ST-4.4", "a key that is read while others consolidate has the same rows before, meanwhile and afterwards")
        .kills("index read before the rows, rows moved meanwhile")
        .engines(&[Engine::Lin])
        .run(|cx| Box::pin(races::st_4_4(cx))),
];

async fn st_4_2(cx: &Cx<dyn World>) -> Outcome {
    let measure = async |count: usize| {
        let mut a = cx.open(&format!("p{count}")).await?;
        let c: Names = a.collection("c").await?;
        filled(&mut a, c, count, cx.caps.stash.batch_rows_max).await?;
        let key = "k7".to_owned();
        cost::median(async || a.iter_key(c, &key).await.map(drop).map_err(Stop::from)).await
    };
    cost::compare(cx, "a key by iter_key", usize::MAX, measure).await
}

/// Puts so many rows into a collection, each of a key of its own, and seals it behind them.
pub(super) async fn filled(
    a: &mut Handle,
    c: Names,
    count: usize,
    batch_rows_max: usize,
) -> Outcome {
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(batch_rows_max.clamp(1, 10_000)) {
        let rows = some.iter().map(|n| row(&format!("k{n}"), "v", 1, 1));
        a.update_many(c, rows.collect()).await?;
    }
    a.seal(c, at(2)).await?;
    Ok(())
}

async fn st_3_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let mut rows = Vec::new();
    for key in ["", "a", "a\0", "aa", "b", "B", "é"] {
        for value in ["", "x", "xx", "y"] {
            for time in [-300, -1, 0, 1, 200, 70_000] {
                rows.push(row(key, value, time, 1));
            }
        }
    }
    let sorted = rows.clone();
    let mut rng = cx.rng();
    for n in (1..rows.len()).rev() {
        rows.swap(n, rng.random_range(0..=n));
    }
    // In parts and through both handles, so that neither the order of calls nor that within one is the answer's.
    for (n, part) in rows.chunks(25).enumerate() {
        let writer = if n % 2 == 0 { &mut a } else { &mut b };
        writer.update_many(c, part.to_vec()).await?;
    }
    let mut sorted = sorted;
    sorted.sort();
    both_read(cx, "rows that are not sealed", [&mut a, &mut b], c, &sorted).await?;
    a.seal(c, at(1)).await?;
    both_read(
        cx,
        "rows, half of them sealed",
        [&mut a, &mut b],
        c,
        &sorted,
    )
    .await?;
    b.update(c, ("a".into(), "x".into()), Timestamp::MAX, 1)
        .await?;
    sorted.push(row("a", "x", Timestamp::MAX, 1));
    sorted.sort();
    both_read(
        cx,
        "rows up to the last time of all",
        [&mut a, &mut b],
        c,
        &sorted,
    )
    .await?;
    drop(a);
    let mut a = cx.open("p").await?;
    both_read(cx, "rows after reopening", [&mut a, &mut b], c, &sorted).await
}

async fn st_3_2(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    a.update_many(c, vec![row("gone", "v", 1, 1), row("gone", "v", 1, -1)])
        .await?;
    a.update(c, ("two".into(), "v".into()), 1, 1).await?;
    b.update(c, ("two".into(), "v".into()), 1, 1).await?;
    b.update(c, ("less".into(), "v".into()), 1, -3).await?;
    a.update(c, ("zero".into(), "v".into()), 1, 0).await?;
    a.update_many(
        c,
        vec![
            row("apart", "v", 1, 1),
            row("apart", "v", 2, 1),
            row("apart", "w", 1, 1),
        ],
    )
    .await?;
    b.update(c, ("apart".into(), "v".into()), 4, -1).await?;
    let expected = vec![
        row("apart", "v", 1, 1),
        row("apart", "v", 2, 1),
        row("apart", "v", 4, -1),
        row("apart", "w", 1, 1),
        row("less", "v", 1, -3),
        row("two", "v", 1, 2),
    ];
    both_read(cx, "sums", [&mut a, &mut b], c, &expected).await?;
    a.seal(c, at(5)).await?;
    a.consolidate(c).await?;
    both_read(
        cx,
        "sums of sealed rows, since not there yet",
        [&mut a, &mut b],
        c,
        &expected,
    )
    .await?;
    a.compact(c, at(2)).await?;
    let expected = vec![
        row("apart", "v", 2, 2),
        row("apart", "v", 4, -1),
        row("apart", "w", 2, 1),
        row("less", "v", 2, -3),
        row("two", "v", 2, 2),
    ];
    both_read(
        cx,
        "sums once since has passed some",
        [&mut a, &mut b],
        c,
        &expected,
    )
    .await?;
    b.compact(c, at(5)).await?;
    let expected = vec![
        row("apart", "v", 5, 1),
        row("apart", "w", 5, 1),
        row("less", "v", 5, -3),
        row("two", "v", 5, 2),
    ];
    both_read(
        cx,
        "sums once since has passed all",
        [&mut a, &mut b],
        c,
        &expected,
    )
    .await
}

/// A sum beyond 64 bits stays one when the store folds its rows, or refuses to.
async fn folded_beyond(a: &mut Handle, b: &mut Handle) -> Outcome {
    for (name, extreme, one) in [("folded max", Diff::MAX, 1), ("folded min", Diff::MIN, -1)] {
        let c: Names = a.collection(name).await?;
        let k = "k".to_owned();
        a.update(c, ("k".into(), "v".into()), 1, extreme).await?;
        b.update(c, ("k".into(), "v".into()), 1, one).await?;
        a.seal(c, at(2)).await?;
        a.compact(c, at(1)).await?;
        for _ in 0..2 {
            let what = "a consolidation of a sum beyond 64 bits";
            match a.consolidate(c).await {
                Ok(()) => {}
                refusal => refuses!(what, refusal, StashError::DiffOverflow)?,
            }
            for handle in [&mut *a, &mut *b] {
                let what = "a sum beyond 64 bits, after a consolidation";
                refuses!(what, handle.iter(c).await, StashError::DiffOverflow)?;
                refuses!(what, handle.iter_key(c, &k).await, StashError::DiffOverflow)?;
            }
        }
    }
    Ok(())
}

async fn st_3_3(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    folded_beyond(&mut a, &mut b).await?;
    for (name, extreme, one) in [("max", Diff::MAX, 1), ("min", Diff::MIN, -1)] {
        let c: Names = a.collection(name).await?;
        a.update_many(c, vec![row("k", "v", 1, extreme), row("other", "v", 1, 1)])
            .await?;
        let k = "k".to_owned();
        cx.eq(
            "the extreme itself",
            &b.iter_key(c, &k).await?,
            &vec![("v".into(), 1, extreme)],
        )?;
        b.update(c, ("k".into(), "v".into()), 1, one).await?;
        for handle in [&mut a, &mut b] {
            let what = "a sum one beyond 64 bits";
            refuses!(what, handle.iter(c).await, StashError::DiffOverflow)?;
            refuses!(what, handle.iter_key(c, &k).await, StashError::DiffOverflow)?;
        }
        let other = a.iter_key(c, &"other".to_owned()).await?;
        cx.eq("another key meanwhile", &other, &vec![("v".into(), 1, 1)])?;
        // Taken back again, it fits, though a part of it did not.
        a.update(c, ("k".into(), "v".into()), 1, -one).await?;
        let rows = vec![row("k", "v", 1, extreme), row("other", "v", 1, 1)];
        both_read(cx, "the sum once it fits again", [&mut a, &mut b], c, &rows).await?;
        // Over time too: apart they fit, together they do not.
        b.update(c, ("k".into(), "v".into()), 2, extreme).await?;
        let apart = vec![("v".into(), 1, extreme), ("v".into(), 2, extreme)];
        cx.eq(
            "two extremes at two times",
            &a.iter_key(c, &k).await?,
            &apart,
        )?;
        a.seal(c, at(3)).await?;
        refuses!(
            "the sum of two extremes",
            b.peek(c).await,
            StashError::DiffOverflow
        )?;
        b.compact(c, at(2)).await?;
        refuses!(
            "two extremes, compacted",
            a.iter(c).await,
            StashError::DiffOverflow
        )?;
    }
    let c: Names = a.collection("through").await?;
    let mut rows = vec![row("k", "v", 1, Diff::MAX); 3];
    rows.extend(vec![row("k", "v", 1, Diff::MIN); 3]);
    a.update_many(c, rows).await?;
    both_read(
        cx,
        "a sum that only passes through",
        [&mut a, &mut b],
        c,
        &vec![row("k", "v", 1, -3)],
    )
    .await
}

async fn st_3_4(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    for name in ["with rows", "without rows"] {
        let c: Names = a.collection(name).await?;
        if name == "with rows" {
            a.update(c, ("k".into(), "v".into()), 1, 1).await?;
        }
        a.seal(c, empty()).await?;
        cx.require(
            a.iter(c).await.is_ok(),
            "iter, sealed for ever but not compacted",
            "an error",
            "Ok",
        )?;
        a.compact(c, empty()).await?;
        for consolidated in [false, true] {
            if consolidated {
                b.consolidate(c).await?;
            }
            for handle in [&mut a, &mut b] {
                refuses!(
                    "iter with an empty since",
                    handle.iter(c).await,
                    StashError::SinceEmpty
                )?;
                let rows = handle.iter_key(c, &"k".to_owned()).await;
                refuses!("iter_key with an empty since", rows, StashError::SinceEmpty)?;
            }
        }
    }
    Ok(())
}

async fn st_4_1(cx: &Cx<dyn World>) -> Outcome {
    const LOOKS: Looks = Looks {
        iter: false,
        keys: true,
        frontiers: false,
        peeks: false,
        consolidate: false,
        everywhere: false,
    };
    let weights = Weights {
        update: 5,
        frontier: 2,
        consolidate: 2,
        batch: 1,
    };
    of_texts(cx, lists(weights), LOOKS).await?;
    model::run(cx, lists(weights), |cx, list| {
        Box::pin(async move {
            let keys = [Odd(-1), Odd(200), Odd(2), Odd(1), Odd(0)];
            let values = [Odd(-2), Odd(3), Odd(128)];
            side_by_side(cx, list, LOOKS, &keys, &values).await
        })
    })
    .await?;
    odd_keys(cx).await
}

/// Keys next to each other as bytes, as prefixes, and as numbers.
async fn odd_keys(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: StashCollection<u64, Vec<u8>> = a.collection("c").await?;
    let keys = [0, 1, 127, 128, 255, 256, 65_536, u64::MAX];
    for key in keys {
        a.update(c, (key, key.to_le_bytes().to_vec()), 1, 1).await?;
    }
    for key in keys {
        let expected = vec![(key.to_le_bytes().to_vec(), 1, 1)];
        cx.eq(
            format!("iter_key({key})"),
            &b.iter_key(c, &key).await?,
            &expected,
        )?;
    }
    cx.eq(
        "iter_key of an absent key",
        &b.iter_key(c, &2).await?,
        &Vec::new(),
    )
}

async fn st_4_3(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let at_once = cx.caps.stash.batch_rows_max.clamp(1, 400);
    // One key of many values, one of many times, and one of few beside them.
    let count = i64::try_from(cx.times(1_100, 300)).unwrap_or(300);
    let values = (0..count).map(|n| row("values", &format!("{n:05}"), 1, 1));
    let times = (0..count).map(|n| row("times", "v", 1 + n, 1));
    let rows: Vec<_> = values.chain(times).chain([row("few", "v", 1, 1)]).collect();
    for some in rows.chunks(at_once) {
        a.update_many(c, some.to_vec()).await?;
    }
    let of = |key: &str| -> Vec<_> {
        let own = rows.iter().filter(|((of, _), ..)| of == key);
        own.map(|((_, value), time, diff)| (value.clone(), *time, *diff))
            .collect()
    };
    let found_whole = async |b: &mut Handle, what: &str| {
        for key in ["values", "times", "few"] {
            let seen = b.iter_key(c, &key.to_owned()).await?;
            let (count, expected) = (seen.len(), of(key));
            cx.eq(
                format!("how many rows of {key}, {what}"),
                &count,
                &expected.len(),
            )?;
            cx.eq(format!("the rows of {key}, {what}"), &seen, &expected)?;
        }
        Ok::<(), Stop>(())
    };
    found_whole(&mut b, "as written").await?;
    a.seal(c, at(count + 1)).await?;
    a.consolidate(c).await?;
    found_whole(&mut b, "consolidated").await?;
    long_keys(cx, a, b).await
}

/// ST-4.3: keys of one length that begin alike, and the beginning itself.
async fn long_keys(cx: &Cx<dyn World>, mut a: Handle, mut b: Handle) -> Outcome {
    /// What the codec may put around a text.
    const AROUND: usize = 16;
    let c: Names = a.collection("long").await?;
    let longest = cx.caps.stash.row_len_bytes_max.saturating_sub(AROUND);
    let lens = [
        8, 16, 32, 64, 128, 255, 256, 512, 900, 1_024, 2_048, 8_192, longest,
    ];
    let mut keys = Vec::new();
    for len in lens.into_iter().filter(|len| *len <= longest.min(1 << 16)) {
        for less in [1, 2] {
            let shared = "k".repeat(len - less);
            let ends = ["a", "b", "c"].map(|end| format!("{shared}{end}{}", "z".repeat(less - 1)));
            keys.extend(ends);
        }
    }
    let value = |n: usize| format!("{n}");
    let rows: Vec<_> = (0..)
        .zip(&keys)
        .map(|(n, key)| row(key, &value(n), 1, 1))
        .collect();
    // The last first, so that whatever is found first is not always the right one.
    for some in rows.rchunks(cx.caps.stash.batch_rows_max.clamp(1, 30)) {
        a.update_many(c, some.iter().rev().cloned().collect())
            .await?;
    }
    a.seal(c, at(2)).await?;
    let mut is_picked = cx.sample();
    for (n, key) in keys.iter().enumerate().filter(|_| is_picked()) {
        let what = format!("a key of {} bytes, of several that begin alike", key.len());
        let expected = vec![(value(n), 1, 1)];
        cx.eq(
            format!("iter_key of {what}"),
            &b.iter_key(c, key).await?,
            &expected,
        )?;
        let one = a.peek_key_one(c, key).await?;
        cx.eq(format!("peek_key_one of {what}"), &one, &Some(value(n)))?;
        let absent = format!("{}-", &key[..key.len() - 1]);
        let found = b.iter_key(c, &absent).await?;
        cx.eq(
            format!("iter_key of an absent one beside {what}"),
            &found,
            &Vec::new(),
        )?;
    }
    Ok(())
}
