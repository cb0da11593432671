//! ST-11: the sealed contents.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use larder_traits::{Antichain, Diff, StashError, Timestamp};
use tokio::task::JoinHandle;

use super::changes::extremes;
use super::handles::ended;
use super::operations::{Looks, Weights, lists, of_texts};
use super::pages::{THROUGH, through};
use super::{Names, at, empty, refuses, row, sealed};
use crate::check::{Check, Engine, Outcome, Stop};
use crate::cx::Cx;
use crate::stash::{Failed, Handle, World};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "ST-11.1",
        "a peek is the rows before upper, summed over time and in order, compacted or not",
    )
    .kills("unsealed shown, overflow on the way")
    .run(|cx| Box::pin(st_11_1(cx))),
    Check::new(
        "ST-11.2",
        "sealed for ever, a peek shows the rows of every time, the last one too",
    )
    .kills("bound excluded")
    .run(|cx| Box::pin(st_11_2(cx))),
    Check::new(
        "ST-11.3",
        "one value each, once each, or an error; an absent key is None",
    )
    .kills("unchecked multiplicity")
    .run(|cx| Box::pin(st_11_3(cx))),
    Check::new(
        "ST-11.4",
        "while seals move a key from value to value, each peek sees exactly one",
    )
    .kills("no snapshot")
    .run(|cx| Box::pin(st_11_4(cx))),
    Check::new(
        "ST-11.5",
        "all peeks are the model's after each of many operations",
    )
    .kills("drifting peeks")
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(st_11_5(cx))),
];

async fn st_11_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let rows = vec![
        row("b", "v", 1, 1),
        row("b", "v", 2, 1),
        row("a", "w", 2, 1),
        row("a", "v", 1, 1),
        row("a", "v", 3, -1),
        row("minus", "v", 1, -2),
        row("late", "v", 4, 1),
        row("late", "v", 5, 1),
    ];
    a.update_many(c, rows).await?;
    let peeks = [
        (
            2,
            vec![
                sealed("a", "v", 1),
                sealed("b", "v", 1),
                sealed("minus", "v", -2),
            ],
        ),
        (
            3,
            vec![
                sealed("a", "v", 1),
                sealed("a", "w", 1),
                sealed("b", "v", 2),
                sealed("minus", "v", -2),
            ],
        ),
        (
            4,
            vec![
                sealed("a", "w", 1),
                sealed("b", "v", 2),
                sealed("minus", "v", -2),
            ],
        ),
        (
            5,
            vec![
                sealed("a", "w", 1),
                sealed("b", "v", 2),
                sealed("late", "v", 1),
                sealed("minus", "v", -2),
            ],
        ),
    ];
    for (upper, expected) in peeks {
        a.seal(c, at(upper)).await?;
        cx.eq(
            format!("a peek with upper {upper}"),
            &b.peek(c).await?,
            &expected,
        )?;
        // A row at `upper` itself is not sealed yet.
        a.update(c, ("upper".into(), "v".into()), upper, 1).await?;
        cx.eq(
            format!("again, with a row at {upper}"),
            &b.peek(c).await?,
            &expected,
        )?;
        a.update(c, ("upper".into(), "v".into()), upper, -1).await?;
        a.compact(c, at(upper - 1)).await?;
        cx.eq(
            format!("again, compacted to {}", upper - 1),
            &b.peek(c).await?,
            &expected,
        )?;
        a.consolidate(c).await?;
        cx.eq("again, consolidated", &b.peek(c).await?, &expected)?;
        std::mem::swap(&mut a, &mut b);
    }
    for (n, diffs) in THROUGH.into_iter().enumerate() {
        let c: Names = a.collection(&format!("through {n}")).await?;
        for (time, diff) in (0..).zip(diffs) {
            a.update(c, ("k".into(), "v".into()), time, *diff).await?;
        }
        a.seal(c, at(10)).await?;
        let sum = through(diffs);
        let expected: Vec<_> = (sum != 0)
            .then(|| sealed("k", "v", sum))
            .into_iter()
            .collect();
        for handle in [&mut a, &mut b] {
            let what = format!("a peek that sums up {diffs:?}");
            cx.eq(what, &handle.peek(c).await?, &expected)?;
        }
    }
    Ok(())
}

async fn st_11_2(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let rows = extremes();
    a.update_many(c, rows.clone()).await?;
    let expected = |upper: Antichain<Timestamp>| -> Vec<_> {
        let sealed = rows.iter().filter(|(_, time, _)| !upper.less_equal(time));
        sealed
            .map(|((k, v), _, diff)| (k.clone(), v.clone(), *diff))
            .collect()
    };
    for upper in [at(Timestamp::MIN + 1), at(0), at(Timestamp::MAX), empty()] {
        a.seal(c, upper.clone()).await?;
        cx.eq(
            format!("a peek with upper {upper}"),
            &b.peek(c).await?,
            &expected(upper),
        )?;
    }
    a.compact(c, at(Timestamp::MAX)).await?;
    cx.eq(
        "a peek, compacted to the last time",
        &b.peek(c).await?,
        &expected(empty()),
    )?;

    let c: Names = a.collection("one").await?;
    a.update(c, ("k".into(), "v".into()), Timestamp::MAX, 1)
        .await?;
    a.seal(c, empty()).await?;
    let one = b.peek_key_one(c, &"k".to_owned()).await?;
    cx.eq(
        "peek_key_one of a row at the last time",
        &one.as_deref(),
        &Some("v"),
    )?;
    let all = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    cx.eq(
        "peek_one of a row at the last time",
        &b.peek_one(c).await?,
        &all,
    )
}

async fn st_11_3(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let result = b.peek_one(c).await;
    refuses!(
        "peek_one with nothing sealed",
        result,
        StashError::NothingSealed { .. }
    )?;
    let result = b.peek_key_one(c, &"k".to_owned()).await;
    refuses!(
        "peek_key_one with nothing sealed",
        result,
        StashError::NothingSealed { .. }
    )?;
    // `l` moves on after the seal, and `gone` was there once.
    let rows = vec![
        row("k", "v", 1, 1),
        row("l", "w", 1, 1),
        row("l", "w", 5, -1),
        row("l", "x", 5, 1),
        row("gone", "v", 0, 1),
        row("gone", "v", 1, -1),
    ];
    a.update_many(c, rows).await?;
    a.seal(c, at(2)).await?;
    let expected = [("k", "v"), ("l", "w")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    cx.eq("peek_one", &b.peek_one(c).await?, &BTreeMap::from(expected))?;
    for (key, value) in [
        ("k", Some("v")),
        ("l", Some("w")),
        ("gone", None),
        ("absent", None),
        ("", None),
    ] {
        let one = b.peek_key_one(c, &key.to_owned()).await?;
        cx.eq(format!("peek_key_one({key:?})"), &one.as_deref(), &value)?;
    }
    let duplicates = vec![row("bad", "v", 1, 1), row("bad", "w", 1, 1)];
    let (one, of_key) = peek_bad(cx, "two values", duplicates).await?;
    refuses!("peek_one with two values", one, StashError::DuplicateKey)?;
    refuses!(
        "peek_key_one with two values",
        of_key,
        StashError::DuplicateKey
    )?;
    for diff in [2, -1, 3, Diff::MAX, Diff::MIN] {
        let rows = vec![row("bad", "v", 1, diff)];
        let (one, of_key) = peek_bad(cx, &format!("diff {diff}"), rows).await?;
        for (call, error) in [("peek_one", one.err()), ("peek_key_one", of_key.err())] {
            let observed = match error {
                Some(Failed {
                    error: StashError::UnexpectedMultiplicity { diff },
                    ..
                }) => Some(diff),
                _ => None,
            };
            let what = format!("the multiplicity that {call} refuses");
            cx.eq(what, &observed, &Some(diff))?;
        }
    }
    Ok(())
}

type Peeked = (
    Result<BTreeMap<String, String>, Failed>,
    Result<Option<String>, Failed>,
);

/// What both peeks say of the key `bad` of these rows, in a collection with another key that is as it should be.
async fn peek_bad(
    cx: &Cx<dyn World>,
    name: &str,
    rows: Vec<((String, String), Timestamp, Diff)>,
) -> Result<Peeked, Stop> {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection(name).await?;
    a.update(c, ("good".into(), "v".into()), 1, 1).await?;
    a.update_many(c, rows).await?;
    a.seal(c, at(2)).await?;
    let good = b.peek_key_one(c, &"good".to_owned()).await?;
    cx.eq(
        "peek_key_one of a key beside a bad one",
        &good.as_deref(),
        &Some("v"),
    )?;
    let one = a.peek_one(c).await;
    Ok((one, b.peek_key_one(c, &"bad".to_owned()).await))
}

/// How many times the key is moved at least, and at most, while others look.
const MOVES: i64 = 60;
const MOVES_MAX: i64 = 2_000;

/// How many times they look together, unless the moves are over before.
const PEEKS: usize = 80;

async fn st_11_4(cx: &Cx<dyn World>) -> Outcome {
    let mut a = cx.open("p").await?;
    let c: Names = a.collection("c").await?;
    a.update(c, ("k".into(), "0".into()), 0, 1).await?;
    a.seal(c, at(1)).await?;
    let at_work = Arc::new(AtomicUsize::new(0));
    let mut running = Vec::new();
    for name in ["b", "c"] {
        let reader = cx.open_as(name, "p").await?;
        running.push(tokio::spawn(watch(reader, c, Arc::downgrade(&at_work))));
    }
    // A store that moves much faster than it reads has to move on until it was read now and then.
    let is_watched = || at_work.load(Ordering::Relaxed) >= PEEKS;
    for time in 1..MOVES_MAX {
        if time > MOVES && (is_watched() || running.iter().any(JoinHandle::is_finished)) {
            break;
        }
        let rows = vec![
            row("k", &(time - 1).to_string(), time, -1),
            row("k", &time.to_string(), time, 1),
        ];
        a.update_many(c, rows).await?;
        a.seal(c, at(time + 1)).await?;
        if time % 3 == 0 {
            a.compact(c, at(time - 1)).await?;
            a.consolidate(c).await?;
        }
        tokio::task::yield_now().await;
    }
    drop(at_work);
    let last = a.peek(c).await?;
    for reader in running {
        let mut reader = ended(reader.await)?;
        cx.eq(
            "the last value, on a handle that saw many",
            &reader.peek(c).await?,
            &last,
        )?;
    }
    cx.eq("values of the key", &last.len(), &1)
}

/// Peeks as long as the values move, each time at one that is not older than the one before.
async fn watch(mut reader: Handle, c: Names, at_work: Weak<AtomicUsize>) -> Result<Handle, Stop> {
    let mut last = 0;
    while let Some(peeks) = at_work.upgrade() {
        let seen = reader.peek(c).await?;
        let [(_, value, 1)] = &seen[..] else {
            let observed = crate::cx::brief(&seen);
            return Err(Stop::fail("a peek beside a writer", observed, "one row"));
        };
        let value = value.parse().unwrap_or(-1);
        if value < last {
            let observed = format!("{value} after {last}");
            return Err(Stop::fail(
                "peeks beside a writer",
                observed,
                "no older value",
            ));
        }
        last = value;
        let one = reader.peek_key_one(c, &"k".to_owned()).await?;
        if one.is_none() {
            return Err(Stop::fail(
                "peek_key_one beside a writer",
                "None",
                "a value",
            ));
        }
        peeks.fetch_add(1, Ordering::Relaxed);
        drop(peeks);
        tokio::task::yield_now().await;
    }
    Ok(reader)
}

async fn st_11_5(cx: &Cx<dyn World>) -> Outcome {
    const LOOKS: Looks = Looks {
        iter: false,
        keys: false,
        frontiers: false,
        peeks: true,
        consolidate: false,
        everywhere: false,
    };
    let weights = Weights {
        update: 4,
        frontier: 4,
        consolidate: 2,
        batch: 1,
    };
    of_texts(cx, lists(weights), LOOKS).await
}
