//! C: what is common to all contracts, asked of `Stash`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join3};
use larder_traits::stash::{Append, RawRow, StashDriver, StashDriverExt, StashOp, codec};
use larder_traits::{Clock, Diff, ErrorKind, StashCollection, StashError, Timestamp};
use proptest::prelude::*;

use super::{Names, at, both_read, concurrent, drops, empty, faults, pages, row, work};
use crate::check::{Check, Engine, Level, Outcome, Stop};
use crate::checks::{
    busy_neighbours, dropped_neighbours, exchange, failing_neighbours, many_handles, refused,
};
use crate::cx::Cx;
use crate::engine::damage;
use crate::engine::meeting::Harm;
use crate::stash::{Handle, World};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "C-1.1",
        "every error that can be provoked answers both questions, and NotApplied stays true",
    )
    .kills("false NotApplied")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(faults::c_1_1(cx))),
    Check::new(
        "C-1.2",
        "one native error before and after the commit point: the outcome follows the commit point",
    )
    .kills("outcome from native error")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(faults::c_1_2(cx))),
    Check::new(
        "C-1.3",
        "no decision by the text of an error, no blanket conversion",
    )
    .kills("outcome guessed")
    .level(Level::Untestable(
        "a source rule, held by the repository's own tidy check",
    )),
    failing_neighbours().run(|cx| Box::pin(concurrent::harmed(cx, Harm::Failure))),
    Check::new(
        "C-2.1",
        "opened 8 times at once, written through each, read through all",
    )
    .kills("truncating open, private cache")
    .run(|cx| Box::pin(c_2_1(cx))),
    Check::new(
        "C-2.2",
        "opened twice and one dropped, the other goes on, and so does a third",
    )
    .kills("close destroys shared state")
    .run(|cx| Box::pin(c_2_2(cx))),
    Check::new(
        "C-2.3",
        "what one handle exchanges, with frontiers and the number of rows as they were, the other reads",
    )
    .kills("cache by count or by frontier")
    .run(|cx| Box::pin(pages::c_2_3(cx))),
    many_handles("C-2.4").run(|cx| Box::pin(c_2_4(cx))),
    busy_neighbours("C-2.5").run(|cx| Box::pin(c_2_5(cx))),
    Check::new(
        "C-3.1",
        "random and extreme arguments to every method: an answer or an error",
    )
    .kills("panic, overflow")
    .run(|cx| Box::pin(c_3_1(cx))),
    Check::new(
        "C-3.2",
        "files with flipped bits, zeroed sectors and cut ends are opened and used",
    )
    .kills("panic, hang")
    .engines(&[Engine::Fault, Engine::Power])
    .run(|cx| Box::pin(c_3_2(cx))),
    Check::new(
        "C-4.1",
        "each bound works, one above it is refused and leaves everything as it was",
    )
    .kills("silent cut, late check")
    .run(|cx| Box::pin(c_4_1(cx))),
    Check::new("C-4.2", "50 calls more than may be in flight all end")
        .kills("deadlock")
        .run(|cx| Box::pin(c_4_2(cx))),
    Check::new(
        "C-5.1",
        "the clock a year ahead and an hour back: no panic, nothing lost",
    )
    .kills("hidden clock, underflow")
    .engines(&[Engine::Time])
    .run(|cx| Box::pin(c_5_1(cx))),
    Check::new(
        "C-6.1",
        "every method dropped at each of its awaits: nothing torn, every handle answers",
    )
    .kills("torn value, poisoned store")
    .level(Level::Declared)
    .engines(&[Engine::Cancel])
    .run(|cx| Box::pin(drops::c_6_1(cx))),
    Check::new(
        "C-6.2",
        "twice as many dropped calls as the pool is large, then one more",
    )
    .kills("leaked permit, lock")
    .engines(&[Engine::Cancel])
    .run(|cx| Box::pin(drops::c_6_2(cx))),
    Check::new(
        "C-6.3",
        "a dropped write, an acknowledged one, and time: which of them stays, as declared",
    )
    .kills("false Fenced")
    .level(Level::Declared)
    .engines(&[Engine::Cancel])
    .run(|cx| Box::pin(drops::c_6_3(cx))),
    Check::new(
        "C-6.4",
        "one of several queued calls is dropped, the others end",
    )
    .kills("lost wake-up")
    .engines(&[Engine::Cancel])
    .run(|cx| Box::pin(drops::c_6_4(cx))),
    dropped_neighbours().run(|cx| Box::pin(concurrent::harmed(cx, Harm::Drop))),
];

async fn c_2_1(cx: &Cx<dyn World>) -> Outcome {
    // Something is there already: an open that starts afresh would lose it.
    let mut first = cx.open("p").await?;
    let c: Names = first.collection("c").await?;
    first.update(c, ("first".into(), "v".into()), 1, 1).await?;
    let opened = join_all((0..8).map(|_| cx.open_as("h", "p"))).await;
    let mut handles = Vec::new();
    for (n, handle) in opened.into_iter().enumerate() {
        let mut handle = handle?;
        let mine: Names = handle.collection("c").await?;
        handle
            .update(mine, (format!("k{n}"), "v".into()), 1, 1)
            .await?;
        handles.push(handle);
    }
    let mut expected: Vec<_> = (0..8).map(|n| row(&format!("k{n}"), "v", 1, 1)).collect();
    expected.insert(0, row("first", "v", 1, 1));
    handles.push(first);
    for handle in &mut handles {
        cx.eq(
            "the rows of 8 handles and the one before",
            &handle.iter(c).await?,
            &expected,
        )?;
    }
    let moved = handles.len();
    for n in 0..moved {
        let upper = at(i64::try_from(n).unwrap_or(0));
        handles[n].seal(c, upper.clone()).await?;
        for other in &mut handles {
            cx.eq("upper on every handle", &other.upper(c).await?, &upper)?;
        }
    }
    Ok(())
}

async fn c_2_4(cx: &Cx<dyn World>) -> Outcome {
    let mut first = cx.open_as("first", "p").await?;
    let c: Names = first.collection("c").await?;
    let mut rows = Vec::new();
    for nth in 0..cx.times(130, 20) {
        let mut handle = cx.open_as("one of many", "p").await?;
        let seen = handle.iter(c).await?;
        cx.eq("the rows through one of many", &seen, &rows)?;
        // Some write.
        if nth % 5 == 0 {
            let key = format!("{nth:03}");
            handle.update(c, (key.clone(), "v".into()), 1, 1).await?;
            rows.push(row(&key, "v", 1, 1));
        }
    }
    let mut late = cx.open_as("late", "p").await?;
    for handle in [&mut first, &mut late] {
        let seen = handle.iter(c).await?;
        cx.eq("the rows after many came and went", &seen, &rows)?;
        handle.seal(c, at(2)).await?;
    }
    Ok(())
}

async fn c_2_5(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let other: Names = b.collection("other").await?;
    let mut idle = cx.open_as("idle", "p").await?;
    let mut rows = Vec::new();
    for (round, time) in (0..cx.times(40, 6)).zip(1..) {
        let key = format!("{round:03}");
        let appends = async {
            a.update(c, (key.clone(), "a".into()), time, 1).await?;
            a.seal(c, at(time)).await?;
            Ok::<_, Stop>(a.iter(c).await?)
        };
        let others = async {
            let entry = ((key.clone(), "b".into()), time, 1);
            b.update_many(other, vec![entry]).await?;
            b.seal(other, at(time + 1)).await?;
            b.compact(other, at(time)).await?;
            Ok::<_, Stop>(b.consolidate(other).await?)
        };
        // All of them go on meanwhile: an open or a close may have to wait for one of them.
        let exchange = exchange(round, idle, cx.open_as("fresh", "p"));
        let (seen, (), fresh) = try_join3(appends, others, exchange).await?;
        idle = fresh;
        rows.push(row(&key, "a", time, 1));
        cx.eq("rows while handles come and go", &seen, &rows)?;
        for handle in [&mut b, &mut idle] {
            let seen = handle.iter(c).await?;
            cx.eq("rows after handles came and went", &seen, &rows)?;
            let uppers = (handle.upper(c).await?, handle.upper(other).await?);
            let expected = (at(time), at(time + 1));
            cx.eq("frontiers after handles came and went", &uppers, &expected)?;
        }
        let count = idle.iter(other).await?.len();
        cx.eq("rows of the other collection", &count, &rows.len())?;
    }
    Ok(())
}

async fn c_2_2(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    a.update(c, ("k".into(), "a".into()), 1, 1).await?;
    drop(a);
    b.update(c, ("k".into(), "b".into()), 1, 1).await?;
    b.seal(c, at(2)).await?;
    let mut a = cx.open("p").await?;
    let rows = vec![row("k", "a", 1, 1), row("k", "b", 1, 1)];
    both_read(
        cx,
        "rows after a handle was dropped",
        [&mut a, &mut b],
        c,
        &rows,
    )
    .await?;
    drop(b);
    a.update(c, ("k".into(), "c".into()), 2, 1).await?;
    drop(a);
    let mut a = cx.open("p").await?;
    cx.eq(
        "rows after all handles were dropped",
        &a.iter(c).await?.len(),
        &3,
    )?;
    cx.eq(
        "upper after all handles were dropped",
        &a.upper(c).await?,
        &at(2),
    )
}

async fn c_3_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let mut rng = cx.rng();
    let times = [
        Timestamp::MIN,
        Timestamp::MIN + 1,
        -1,
        0,
        1,
        Timestamp::MAX - 1,
        Timestamp::MAX,
    ];
    let mut text = |len: usize| -> String {
        (0..len)
            .map(|_| char::from_u32(rng.random_range(0..0x1_2000)).unwrap_or('\0'))
            .collect()
    };
    let mut texts = vec![
        String::new(),
        "\0".into(),
        "%".into(),
        "'; --".into(),
        "\u{10FFFF}".into(),
    ];
    texts.extend((1..12).map(|n| text(n * n)));
    let mut rng = cx.rng();
    let mut pick = |n: usize| rng.random_range(0..n);
    for (n, name) in texts.iter().enumerate() {
        let (handle, other) = if n % 2 == 0 {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        let Ok(c) = handle.collection::<String, String>(name).await else {
            continue;
        };
        for _ in 0..12 {
            // Whatever is answered, the next call has to be answered too; a panic ends the check.
            let time = times[pick(times.len())];
            let key = texts[pick(texts.len())].clone();
            let diff = [Diff::MIN, -1, 0, 1, Diff::MAX][pick(5)];
            let frontier = if pick(8) == 0 {
                empty()
            } else {
                at(times[pick(times.len())])
            };
            ended(
                handle
                    .update(c, (key.clone(), name.clone()), time, diff)
                    .await,
            );
            ended(
                handle
                    .update_many(c, vec![row(&key, "v", time, diff); pick(4)])
                    .await,
            );
            match pick(4) {
                0 => ended(handle.seal(c, frontier).await),
                1 => ended(handle.compact(c, frontier).await),
                2 => ended(
                    handle
                        .seal_batch(&[(c, frontier.clone()), (c, frontier)])
                        .await,
                ),
                _ => ended(handle.compact_batch(&[(c, frontier)]).await),
            }
            ended(other.consolidate(c).await);
            read_all(other, c, &key).await;
        }
    }
    never_given(cx).await
}

/// Ids that were never given, and that the place is as usable as ever.
async fn never_given(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    for id in [0, u64::MAX, u64::MAX / 2 + 1] {
        let c: Names = StashCollection::new(larder_traits::CollectionId::new(id));
        let what = format!("a collection with the id {id}, which was never given");
        if id > u64::from(u32::MAX) {
            refused(&what, a.iter(c).await, ErrorKind::NotFound)?;
            let gone = a.update(c, (String::new(), String::new()), 0, 1).await;
            refused(&what, gone, ErrorKind::NotFound)?;
            refused(&what, b.seal(c, at(0)).await, ErrorKind::NotFound)?;
        }
        read_all(&mut a, c, "k").await;
    }
    let c: Names = a.collection("after all that").await?;
    a.update(c, ("k".into(), "v".into()), 1, 1).await?;
    both_read(
        cx,
        "rows after all that",
        [&mut a, &mut b],
        c,
        &vec![row("k", "v", 1, 1)],
    )
    .await
}

/// An answer that need not be looked at: that there is one is the point.
fn ended<T, E>(answer: Result<T, E>) {
    drop(answer);
}

async fn read_all(handle: &mut Handle, c: Names, key: &str) {
    let key = key.to_owned();
    ended(handle.iter(c).await);
    ended(handle.iter_key(c, &key).await);
    ended(handle.since(c).await);
    ended(handle.upper(c).await);
    ended(handle.peek_timestamp(c).await);
    ended(handle.peek(c).await);
    ended(handle.peek_one(c).await);
    ended(handle.peek_key_one(c, &key).await);
    ended(handle.consolidate_batch(&[c]).await);
}

/// A text whose encoding has this length, if there is one.
fn encoded_len(len: usize) -> Option<String> {
    let header = [1, 2, 3, 5];
    let texts = header.iter().filter_map(|header| len.checked_sub(*header));
    texts
        .map(|len| "x".repeat(len))
        .find(|text| codec::encode(text).is_ok_and(|bytes| bytes.len() == len))
}

async fn c_4_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let caps = cx.caps.stash;
    let c: Names = a.collection("c").await?;
    let mut kept = vec![row("k", "v", 1, 1)];
    a.update_many(c, kept.clone()).await?;

    let room = cx.profile.value_len_bytes_max();
    if caps.name_len_bytes_max < room {
        let name = "n".repeat(caps.name_len_bytes_max);
        let long: Names = a.collection(&name).await?;
        a.update(long, ("k".into(), "v".into()), 1, 1).await?;
        let found: Names = b.collection(&name).await?;
        let what = "rows of a collection with the longest name";
        cx.eq(what, &b.iter(found).await?, &vec![row("k", "v", 1, 1)])?;
        for more in [1, 2, 1_000] {
            let name = "n".repeat(caps.name_len_bytes_max + more);
            let result = a.collection::<String, String>(&name).await;
            refused(
                "collection with a name above the bound",
                result,
                ErrorKind::InvalidInput,
            )?;
        }
        // Bytes count, not characters.
        let name = "é".repeat(caps.name_len_bytes_max / 2 + 1);
        let result = b.collection::<String, String>(&name).await;
        refused(
            "collection with a name above the bound",
            result,
            ErrorKind::InvalidInput,
        )?;
    }
    let max = caps.row_len_bytes_max;
    if let Some(longest) = encoded_len(max).filter(|_| max < room) {
        a.update(c, (longest.clone(), "v".into()), 1, 1).await?;
        a.update(c, ("k".into(), longest.clone()), 1, 1).await?;
        kept.extend([row(&longest, "v", 1, 1), row("k", &longest, 1, 1)]);
        kept.sort();
        both_read(cx, "the longest key and value", [&mut a, &mut b], c, &kept).await?;
        let found = b.iter_key(c, &longest).await?;
        cx.eq(
            "the longest key, by iter_key",
            &found,
            &vec![("v".into(), 1, 1)],
        )?;
        for more in [1, 500] {
            let longer = format!("{longest}{}", "x".repeat(more));
            for (key, value) in [(longer.as_str(), "v"), ("k", longer.as_str())] {
                let rows = vec![row("first", "v", 1, 1), row(key, value, 1, 1)];
                let result = a.update_many(c, rows).await;
                refused(
                    "update_many with a row above the bound",
                    result,
                    ErrorKind::InvalidInput,
                )?;
                both_read(cx, "rows after it was refused", [&mut a, &mut b], c, &kept).await?;
            }
        }
    }
    rows_bound(cx).await
}

async fn rows_bound(cx: &Cx<dyn World>) -> Outcome {
    const WORTH_TRYING: usize = 100_000;
    let max = cx.caps.stash.batch_rows_max;
    if max > WORTH_TRYING {
        return Ok(());
    }
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("many").await?;
    let rows = |count| vec![row("k", "v", 1, 1); count];
    a.update_many(c, rows(max)).await?;
    let sum = i64::try_from(max).unwrap_or(i64::MAX);
    let kept = vec![row("k", "v", 1, sum)];
    both_read(
        cx,
        "as many rows as a batch may have",
        [&mut a, &mut b],
        c,
        &kept,
    )
    .await?;
    let result = b.update_many(c, rows(max + 1)).await;
    refused(
        "update_many with a row too many",
        result,
        ErrorKind::InvalidInput,
    )?;
    both_read(cx, "rows after it was refused", [&mut a, &mut b], c, &kept).await?;
    let driver = cx.driver_if_any("p").await?;
    let Some(driver) = driver.filter(|_| 2 * max <= WORTH_TRYING) else {
        return Ok(());
    };
    // The bound is that of one update, and an append has several.
    let d: Names = a.collection("many beside").await?;
    let of = |items: [(Names, usize); 2]| {
        let mut it = Append::new();
        for (c, count) in items {
            let added = it.collection(c).update(rows(count)).map(drop);
            added.map_err(|e| Stop::error("encoding rows for an append", &e))?;
        }
        Ok::<_, Stop>(it)
    };
    let mut sums = [sum, 0];
    for (items, added) in [([c, d], [1, 1]), ([d, d], [0, 2])] {
        let appended = driver.append(of(items.map(|c| (c, max)))?).await;
        let what = format!("an append of two updates of {max} rows, each as many as one may have");
        appended.map_err(|e| Stop::error(what.clone(), &e))?;
        for ((c, sum), added) in [c, d].into_iter().zip(&mut sums).zip(added) {
            *sum += added * i64::try_from(max).unwrap_or(i64::MAX);
            let kept = vec![row("k", "v", 1, *sum)];
            both_read(cx, &what, [&mut a, &mut b], c, &kept).await?;
        }
    }
    if !cx.caps.stash.batch_atomic {
        return Ok(());
    }
    let appended = driver.append(of([(c, max), (d, max + 1)])?).await;
    let what = "an append whose second update has a row too many";
    refused(what, appended, ErrorKind::InvalidInput)?;
    for (c, sum) in [c, d].into_iter().zip(sums) {
        let kept = vec![row("k", "v", 1, sum)];
        both_read(cx, what, [&mut a, &mut b], c, &kept).await?;
    }
    Ok(())
}

async fn c_4_2(cx: &Cx<dyn World>) -> Outcome {
    const MOST: usize = 1_000;
    const TIME: Duration = Duration::from_secs(30);
    let calls = cx.caps.in_flight_max.unwrap_or(0).min(MOST) + 50;
    let mut a = cx.open("p").await?;
    let c: StashCollection<u64, Vec<u8>> = a.collection("c").await?;
    // Only a driver takes several calls at once; without one there is a call for each of some handles.
    let count = match cx.world().driver("p").await {
        Ok(Some(driver)) => {
            let all = (0..calls).map(|n| tokio::spawn(one_call(Arc::clone(&driver), c.id(), n)));
            let ended = cx
                .within(TIME, "calls above the bound", join_all(all))
                .await?;
            ended
                .into_iter()
                .filter(|ended| matches!(ended, Ok(Ok(()))))
                .count()
        }
        _ => {
            let mut all = Vec::new();
            for n in 0..16_u64 {
                let mut handle = cx.open_as("h", "p").await?;
                all.push(tokio::spawn(async move {
                    handle.update(c, (n, Vec::new()), 1, 1).await
                }));
            }
            let ended = cx
                .within(TIME, "calls of 16 handles", join_all(all))
                .await?;
            ended
                .into_iter()
                .filter(|ended| matches!(ended, Ok(Ok(()))))
                .count()
        }
    };
    let found = a.iter(c).await?.len();
    cx.require(
        count > 0 && found >= count,
        "the rows of the calls that ended well",
        format!("{found} of {count}"),
        "all of them, and at least one",
    )
}

async fn one_call(
    driver: Arc<dyn StashDriver>,
    id: larder_traits::CollectionId,
    n: usize,
) -> Result<(), StashError> {
    let key = u64::try_from(n).unwrap_or(u64::MAX);
    let row = RawRow {
        key: codec::encode(&key)?.into(),
        value: codec::encode(&Vec::<u8>::new())?.into(),
        time: 1,
        diff: 1,
    };
    let rows = vec![row];
    driver.commit(vec![StashOp::Update { id, rows }]).await
}

async fn c_5_1(cx: &Cx<dyn World>) -> Outcome {
    const HOUR: Duration = Duration::from_secs(3_600);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
    let clock = cx.clock()?;
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    a.update(c, ("before".into(), "v".into()), 1_000, 1).await?;
    let mut rows = vec![row("before", "v", 1_000, 1)];
    let start = clock.now();
    let jumps = [
        ("a year on", start + YEAR),
        ("an hour back", start + YEAR - HOUR),
        ("to before the start", start - YEAR),
        ("a century on", start + YEAR * 100),
        ("to the start of time", std::time::UNIX_EPOCH),
        ("to the start", start),
    ];
    for (turn, (words, to)) in (1..).zip(jumps) {
        clock.set(to);
        cx.log().push(format!("-- the clock goes {words} --"));
        both_read(cx, words, [&mut a, &mut b], c, &rows).await?;
        // Times of rows are the caller's, and have nothing to do with this clock.
        a.update(c, (words.into(), "v".into()), 1_000, 1).await?;
        rows.push(row(words, "v", 1_000, 1));
        rows.sort();
        b.seal(c, at(turn)).await?;
        a.compact(c, at(turn - 1)).await?;
        b.consolidate(c).await?;
        let mut late = cx.open_as("late", "p").await?;
        both_read(cx, words, [&mut b, &mut late], c, &rows).await?;
        cx.eq(
            "upper after the clock was set",
            &late.upper(c).await?,
            &at(turn),
        )?;
        cx.eq(
            "since after the clock was set",
            &a.since(c).await?,
            &at(turn - 1),
        )?;
        let found: Names = late.collection("c").await?;
        cx.eq("the id after the clock was set", &found.id(), &c.id())?;
        std::mem::swap(&mut a, &mut b);
    }
    Ok(())
}

async fn c_3_2(cx: &Cx<dyn World>) -> Outcome {
    damage::ends(cx, |cx| Box::pin(work::hire(cx))).await
}
