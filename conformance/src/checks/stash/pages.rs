//! What shows only beyond a page, a word or a packet, between values that begin alike, and for names that are patterns.

use std::collections::BTreeMap;

use larder_traits::stash::{Append, StashDriverExt};
use larder_traits::{Diff, StashError};

use super::{Names, append, at, both_read, empty, refuses, row};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::model::stash::Update;
use crate::stash::{Handle, World};

fn fault(e: StashError) -> Stop {
    Stop::error("a call of the driver", &e)
}

/// ST-1.7: names of which each is a pattern that some of the others fit.
pub(super) async fn st_1_7(cx: &Cx<dyn World>) -> Outcome {
    const NAMES: [&str; 22] = [
        "abc", "a_c", "a%c", "a%", "%", "_", "___", "abbc", "ac", "a*c", "a?c", "a.c", ".*", "*",
        "[ab]c", "a[b]c", "a\\_c", "a\\%", "ABC", "a_c%", "ab", "",
    ];
    let driver = cx.driver("p").await?;
    let (mut a, mut b) = cx.open_two("p").await?;
    for first in NAMES {
        let mut left = BTreeMap::new();
        for name in NAMES {
            let c: Names = a.collection(name).await?;
            b.update(c, ("k".into(), name.into()), 1, 1).await?;
            left.insert(name.to_owned(), c);
        }
        // One of them by itself, and then those before it.
        for gone in [first].into_iter().chain(NAMES).take(3) {
            let expected = left.remove(gone).is_some();
            let dropped = driver.drop_collection(gone).await.map_err(fault)?;
            cx.eq(format!("dropping {gone:?}"), &dropped, &expected)?;
            let list: Vec<_> = driver.collections().await.map_err(fault)?;
            let list: BTreeMap<_, _> = list.into_iter().collect();
            let ids = left.iter().map(|(name, c)| (name.clone(), c.id()));
            let what = format!("the list after {gone:?} was dropped");
            cx.eq(what, &list, &ids.collect())?;
        }
        for (name, c) in &left {
            let rows = vec![row("k", name, 1, 1)];
            let what = format!("the rows of {name:?}, after {first:?} was dropped");
            both_read(cx, &what, [&mut a, &mut b], *c, &rows).await?;
        }
        for name in left.keys() {
            driver.drop_collection(name).await.map_err(fault)?;
        }
    }
    Ok(())
}

/// Fails unless the handle reads these rows, and those of them that are sealed.
async fn read_whole(
    cx: &Cx<dyn World>,
    what: &str,
    handle: &mut Handle,
    c: Names,
    rows: &[Update<String, String>],
) -> Outcome {
    let seen = handle.iter(c).await?;
    cx.eq(format!("how many {what}"), &seen.len(), &rows.len())?;
    cx.require(seen == rows, what.to_owned(), "others", "as written")
}

/// ST-3.5: many rows, of keys that have several each.
pub(super) async fn st_3_5(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let at_once = cx.caps.stash.batch_rows_max.clamp(1, 400);
    let count = i64::try_from(cx.times(1_600, 300)).unwrap_or(300);
    // Keys of one row, of some, and of more than a page: wherever a page ends, a key goes over it.
    for (name, per_key) in [("some", 7), ("many", 37), ("over a page", 1_500)] {
        let c: Names = a.collection(name).await?;
        let mut rows: Vec<_> = (0..count)
            .map(|n| {
                let (key, nth) = (n / per_key, n % per_key);
                // A key's rows differ in their values, and then in their times.
                let (value, time) = if key % 2 == 0 { (nth, 1) } else { (0, 1 + nth) };
                row(&format!("{key:04}"), &format!("{value:04}"), time, 1)
            })
            .collect();
        let sorted = rows.clone();
        // Not in the order of the keys.
        let (even, odd): (Vec<_>, Vec<_>) = (0..rows.len()).partition(|n| n % 2 == 0);
        rows = even
            .into_iter()
            .chain(odd)
            .map(|n| sorted[n].clone())
            .collect();
        for some in rows.chunks(at_once) {
            a.update_many(c, some.to_vec()).await?;
        }
        read_whole(cx, &format!("rows of {name} a key"), &mut b, c, &sorted).await?;
        a.seal(c, at(count + 2)).await?;
        let peeked = b.peek(c).await?;
        let mut sums = BTreeMap::<_, Diff>::new();
        for ((key, value), _, diff) in &sorted {
            *sums.entry((key.clone(), value.clone())).or_default() += diff;
        }
        let expected: Vec<_> = sums.into_iter().map(|((k, v), n)| (k, v, n)).collect();
        let what = format!("a peek at rows of {name} a key");
        cx.require(peeked == expected, what, "others", "as written, summed")?;
        b.consolidate(c).await?;
        let what = format!("rows of {name} a key, consolidated");
        read_whole(cx, &what, &mut a, c, &sorted).await?;
    }
    Ok(())
}

/// ST-3.6: rows of which nothing is left, before others or between them.
pub(super) async fn st_3_6(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let at_once = cx.caps.stash.batch_rows_max.clamp(1, 400);
    let count = cx.times(800, 150);
    for (has_first, over_times) in [(false, false), (true, false), (false, true), (true, true)] {
        let name = format!("{has_first} {over_times}");
        let c: Names = a.collection(&name).await?;
        let mut rows = Vec::new();
        let mut left = Vec::new();
        if has_first {
            rows.push(row("a", "v", 1, 1));
            left.push(row("a", "v", 5, 1));
        }
        for n in 0..count {
            // Half of them are values of one key.
            let (key, value) = if n % 2 == 0 {
                ("m".to_owned(), format!("{n:04}"))
            } else {
                (format!("m{n:04}"), "v".to_owned())
            };
            rows.push(row(&key, &value, 1, 1));
            rows.push(row(&key, &value, if over_times { 2 } else { 1 }, -1));
        }
        rows.push(row("z", "v", 3, 1));
        left.push(row("z", "v", 5, 1));
        for some in rows.chunks(at_once) {
            a.update_many(c, some.to_vec()).await?;
        }
        a.seal(c, at(10)).await?;
        a.compact(c, at(5)).await?;
        let peeked: Vec<_> = left.iter().map(|(data, ..)| data.clone()).collect();
        for state in ["as written", "consolidated"] {
            let what = format!("rows behind many that cancel out, {state}");
            both_read(cx, &what, [&mut a, &mut b], c, &left).await?;
            let seen = b.peek(c).await?;
            let seen: Vec<_> = seen.into_iter().map(|(k, v, n)| ((k, v), n)).collect();
            let expected: Vec<_> = peeked.iter().map(|data| (data.clone(), 1)).collect();
            cx.eq(format!("peek: {what}"), &seen, &expected)?;
            let seen: Vec<_> = a.peek_one(c).await?.into_iter().collect();
            cx.eq(format!("peek_one: {what}"), &seen, &peeked)?;
            let seen = b.iter_key(c, &"m".to_owned()).await?;
            cx.eq(format!("iter_key: {what}"), &seen, &Vec::new())?;
            b.consolidate(c).await?;
        }
    }
    Ok(())
}

/// ST-5.7: one update of several mebibytes, of which each row is within the bounds.
pub(super) async fn st_5_7(cx: &Cx<dyn World>) -> Outcome {
    /// What the codec may put around a text.
    const AROUND: usize = 16;
    const MIB: usize = 1 << 20;
    let (mut a, mut b) = cx.open_two("p").await?;
    let longest = cx.caps.stash.row_len_bytes_max.saturating_sub(AROUND);
    let room = cx.times(5 * MIB / 2, MIB + MIB / 8);
    for asked in [1_000, 20_000, 60_000] {
        let len = asked.min(longest);
        let count = (room / len.max(1)).min(cx.caps.stash.batch_rows_max);
        let c: Names = a.collection(&format!("of {asked}")).await?;
        let rows: Vec<_> = (0..count)
            .map(|n| {
                row(
                    &format!("{n:05}"),
                    &format!("{n:05}{}", "x".repeat(len.saturating_sub(5))),
                    1,
                    1,
                )
            })
            .collect();
        a.update_many(c, rows.clone()).await?;
        let what = format!("rows of one update, of {len} bytes each");
        read_whole(cx, &what, &mut b, c, &rows).await?;
        b.seal(c, at(2)).await?;
        a.consolidate(c).await?;
        read_whole(cx, &format!("{what}, consolidated"), &mut b, c, &rows).await?;
    }
    Ok(())
}

/// Multiplicities, in the order of their times, whose sum leaves 64 bits on its way and comes back.
pub(super) const THROUGH: [&[Diff]; 6] = [
    &[Diff::MAX, 1, -1],
    &[1, Diff::MAX, -1],
    &[Diff::MIN, -1, 1],
    &[-1, Diff::MIN, 1],
    &[Diff::MAX, Diff::MAX, Diff::MIN, Diff::MIN, 7],
    &[Diff::MIN, -1, Diff::MAX, 2],
];

/// What they come to.
pub(super) fn through(diffs: &[Diff]) -> Diff {
    let sum: i128 = diffs.iter().map(|diff| i128::from(*diff)).sum();
    Diff::try_from(sum).unwrap_or_default()
}

/// ST-8.5: what is folded lies far apart, and its sum leaves 64 bits on the way.
pub(super) async fn st_8_5(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let at_once = cx.caps.stash.batch_rows_max.clamp(1, 400);
    let count = i64::try_from(cx.times(1_500, 300)).unwrap_or(300);
    let c: Names = a.collection("apart").await?;
    // Every seventh row is the same one; one more is written first and last, and taken back in part.
    let of = |n: i64| match n {
        0 => row("first and last", "v", 0, 5),
        n if n == count - 1 => row("first and last", "v", 0, -2),
        n if n % 7 == 3 => row("again", "v", n % 5, 1),
        n => row(&format!("{n:05}"), "v", n % 5, 1),
    };
    let rows: Vec<_> = (0..count).map(of).collect();
    for some in rows.chunks(at_once) {
        a.update_many(c, some.to_vec()).await?;
    }
    a.seal(c, at(10)).await?;
    for since in [0, 3, 9] {
        a.compact(c, at(since)).await?;
        let mut sums = BTreeMap::<_, Diff>::new();
        for (data, time, diff) in &rows {
            *sums.entry((data.clone(), *time.max(&since))).or_default() += diff;
        }
        let expected: Vec<_> = sums.into_iter().map(|((d, t), n)| (d, t, n)).collect();
        for handle in [&mut a, &mut b] {
            handle.consolidate(c).await?;
            let what = format!("rows that lie apart, consolidated at {since}");
            read_whole(cx, &what, handle, c, &expected).await?;
        }
    }
    // Whatever the order, and be they written by one call or by several.
    for (n, diffs) in THROUGH.into_iter().enumerate() {
        for apart in [false, true] {
            let c: Names = a.collection(&format!("through {n} {apart}")).await?;
            let rows = (0..).zip(diffs);
            let rows: Vec<_> = rows
                .map(|(time, diff)| row("k", "v", time, *diff))
                .collect();
            for some in rows.chunks(if apart { 1 } else { rows.len() }) {
                b.update_many(c, some.to_vec()).await?;
            }
            a.seal(c, at(10)).await?;
            a.compact(c, at(9)).await?;
            a.consolidate(c).await?;
            let sum = through(diffs);
            let left = if sum == 0 {
                Vec::new()
            } else {
                vec![row("k", "v", 9, sum)]
            };
            let what = format!("the consolidated sum of {diffs:?}");
            both_read(cx, &what, [&mut a, &mut b], c, &left).await?;
        }
    }
    Ok(())
}

/// ST-8.6: keys and values that part late stay apart when they are folded.
pub(super) async fn st_8_6(cx: &Cx<dyn World>) -> Outcome {
    const AROUND: usize = 16;
    let (mut a, mut b) = cx.open_two("p").await?;
    let longest = cx.caps.stash.row_len_bytes_max.saturating_sub(AROUND);
    let lens = [
        8, 16, 33, 64, 128, 257, 512, 800, 1_025, 2_100, 4_100, 8_200, 33_000, longest,
    ];
    let mut is_picked = cx.sample();
    for len in lens.into_iter().filter(|len| *len <= longest.min(1 << 16)) {
        if len != longest && !is_picked() {
            continue;
        }
        let c: Names = a.collection(&format!("{len}")).await?;
        let shared = "s".repeat(len - 1);
        let mut rows = Vec::new();
        for end in ["a", "A", "b", ""] {
            let long = format!("{shared}{end}");
            rows.push(row("k", &long, 1, 1));
            rows.push(row(&long, "v", 1, 1));
        }
        // And those that begin otherwise, and go on alike.
        rows.push(row("k", &format!("a{shared}"), 1, 1));
        rows.push(row(&format!("a{shared}"), "v", 1, 1));
        rows.sort();
        for some in rows.chunks(4) {
            b.update_many(c, some.to_vec()).await?;
        }
        a.seal(c, at(3)).await?;
        a.compact(c, at(2)).await?;
        for (_, time, _) in &mut rows {
            *time = 2;
        }
        for handle in [&mut a, &mut b] {
            handle.consolidate(c).await?;
            let what = format!("rows that part at their ends, {len} bytes long, consolidated");
            read_whole(cx, &what, handle, c, &rows).await?;
        }
    }
    Ok(())
}

/// ST-12.6: more collections in one call than a word has bits.
pub(super) async fn st_12_6(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let count = cx.times(270, 70);
    let mut all = Vec::<Names>::new();
    for n in 0..count {
        all.push(a.collection(&format!("c{n}")).await?);
    }
    let of = |n: usize| i64::try_from(n).unwrap_or_default() + 10;
    let seals: Vec<_> = all.iter().zip(0..).map(|(c, n)| (*c, at(of(n)))).collect();
    a.seal_batch(&seals).await?;
    let since: Vec<_> = all
        .iter()
        .zip(0..)
        .map(|(c, n)| (*c, at(of(n) - 1)))
        .collect();
    b.compact_batch(&since).await?;
    for (n, c) in all.iter().enumerate() {
        let what = format!("upper of collection {n} of {count} of one batch");
        cx.eq(what, &b.upper(*c).await?, &at(of(n)))?;
        let what = format!("since of collection {n} of {count} of one batch");
        cx.eq(what, &a.since(*c).await?, &at(of(n) - 1))?;
    }
    let Some(driver) = cx.driver_if_any("p").await? else {
        return Ok(());
    };
    let mut it = Append::new();
    for (n, c) in all.iter().enumerate().rev() {
        let mut item = it.collection(*c);
        item.expect_upper(at(of(n)));
        let rows = vec![row("k", &n.to_string(), of(n), 1)];
        let added = item.update(rows);
        added.map_err(|e| Stop::error("encoding rows for an append", &e))?;
        item.seal(at(of(n) + 1));
    }
    append(cx, &driver, it).await?;
    for (n, c) in all.iter().enumerate() {
        let what = format!("upper of collection {n} of {count} of one append");
        cx.eq(what, &a.upper(*c).await?, &at(of(n) + 1))?;
        let what = format!("the row of collection {n} of {count} of one append");
        let rows = vec![row("k", &n.to_string(), of(n), 1)];
        cx.eq(what, &b.iter(*c).await?, &rows)?;
    }
    Ok(())
}

/// ST-12.7: the empty frontier is one like the others for who compares it.
pub(super) async fn st_12_7(cx: &Cx<dyn World>) -> Outcome {
    let driver = cx.driver("p").await?;
    let (mut a, mut b) = cx.open_two("p").await?;
    let uppers = [at(i64::MIN), at(0), at(5), at(i64::MAX), empty()];
    for (n, upper) in uppers.iter().enumerate() {
        for (m, expected) in uppers.iter().enumerate() {
            for brings in [false, true] {
                let c: Names = a.collection(&format!("{n} {m} {brings}")).await?;
                b.seal(c, upper.clone()).await?;
                let mut it = Append::new();
                let mut item = it.collection(c);
                item.expect_upper(expected.clone());
                let is_open = upper.as_option().is_some();
                if brings && is_open {
                    let added = item.update(vec![row("k", "v", i64::MAX, 1)]);
                    added.map_err(|e| Stop::error("encoding rows for an append", &e))?;
                }
                item.seal(empty());
                let what = format!("an append that expects {expected} of an upper of {upper}");
                let appended = append(cx, &driver, it).await;
                let (rows, after) = if n == m {
                    appended?;
                    let rows = vec![row("k", "v", i64::MAX, 1)];
                    let brought = if brings && is_open { rows } else { Vec::new() };
                    (brought, empty())
                } else {
                    refuses!(&*what, appended, StashError::UpperMismatch { .. })?;
                    (Vec::new(), upper.clone())
                };
                both_read(cx, &what, [&mut a, &mut b], c, &rows).await?;
                cx.eq(format!("upper after {what}"), &a.upper(c).await?, &after)?;
            }
        }
    }
    Ok(())
}

/// C-2.3: what another handle does leaves as many rows as there were, and the frontiers where they are.
pub(super) async fn c_2_3(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    a.seal(c, at(5)).await?;
    a.compact(c, at(5)).await?;
    let mut rows = vec![row("k", "0", 5, 1), row("l", "0", 5, 1)];
    a.update_many(c, rows.clone()).await?;
    a.consolidate(c).await?;
    for round in 1..=cx.times(12, 4) {
        // Everything that can be read has been read by both.
        both_read(cx, "rows before", [&mut a, &mut b], c, &rows).await?;
        for key in ["k", "l"] {
            for handle in [&mut a, &mut b] {
                let own = rows.iter().filter(|((of, _), ..)| of == key);
                let own: Vec<_> = own.map(|((_, v), t, n)| (v.clone(), *t, *n)).collect();
                let seen = handle.iter_key(c, &key.to_owned()).await?;
                cx.eq(format!("the rows of {key}, in round {round}"), &seen, &own)?;
            }
        }
        let at_row = round % rows.len();
        let ((key, value), ..) = rows[at_row].clone();
        let new = match round % 3 {
            0 => row(&key, &value, 5, rows[at_row].2 + 1),
            1 => row(&key, &round.to_string(), 5, 1),
            _ => row(&key, &"x".repeat(round), 5, 2),
        };
        let ((_, new_value), _, new_diff) = new.clone();
        let gone = ((key.clone(), value), 5, -rows[at_row].2);
        a.update_many(c, vec![gone, ((key, new_value), 5, new_diff)])
            .await?;
        a.consolidate(c).await?;
        rows[at_row] = new;
        rows.sort();
        let what = format!("rows of which one was exchanged, in round {round}");
        both_read(cx, &what, [&mut b, &mut a], c, &rows).await?;
        std::mem::swap(&mut a, &mut b);
    }
    Ok(())
}
