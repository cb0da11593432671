//! ST-14: handles side by side.

use futures_util::future::join_all;
use larder_traits::{Classify, ErrorKind};
use tokio::task::JoinError;

use super::operations::{Looks, Weights, lists, of_texts};
use super::{Names, at, races, row};
use crate::check::{Check, Engine, Level, Outcome, Stop, describe};
use crate::cx::Cx;
use crate::stash::{Failed, Handle, World};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "ST-14.1",
        "many operations over two handles: all that is read is the model's, on both",
    )
    .kills("private state")
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(st_14_1(cx))),
    Check::new(
        "ST-14.2",
        "4 writers beside a consolidator and a sealer: the sums are exact",
    )
    .kills("lost rows")
    .run(|cx| Box::pin(st_14_2(cx))),
    Check::new(
        "ST-14.3",
        "4 handles write long batches to collections of their own: no call fails",
    )
    .kills("lock errors")
    .run(|cx| Box::pin(st_14_3(cx))),
    Check::new(
        "ST-14.4",
        "opened exclusive, if declared: the older writer gets Conflict and leaves nothing behind",
    )
    .kills("half-fenced")
    .level(Level::Declared)
    .run(|cx| Box::pin(st_14_4(cx))),
    Check::new(
        "ST-14.5",
        "appends at once over the same collections, each in another order: no call fails",
    )
    .kills("deadlock by the order of locks")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(races::st_14_5(cx))),
];

async fn st_14_1(cx: &Cx<dyn World>) -> Outcome {
    const LOOKS: Looks = Looks {
        iter: true,
        keys: false,
        frontiers: true,
        peeks: true,
        consolidate: false,
        everywhere: true,
    };
    let weights = Weights {
        update: 4,
        frontier: 2,
        consolidate: 1,
        batch: 1,
    };
    of_texts(cx, lists(weights), LOOKS).await
}

/// What a task of a check has come to.
pub(super) fn ended<T>(joined: Result<Result<T, Stop>, JoinError>) -> Result<T, Stop> {
    joined.map_err(|e| Stop::fail("a task of the check", e.to_string(), "an end"))?
}

/// Waits for tasks of a check; the first that failed is the check's failure.
pub(super) async fn join(tasks: Vec<tokio::task::JoinHandle<Outcome>>) -> Outcome {
    join_all(tasks).await.into_iter().try_for_each(ended)
}

const WRITERS: i64 = 4;
const WRITES: i64 = 40;

async fn st_14_2(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    // With since and upper at the time of the writes, each of them is folded while others arrive.
    a.seal(c, at(100)).await?;
    a.compact(c, at(100)).await?;
    let mut tasks = Vec::new();
    for n in 0..WRITERS {
        let writer = cx.open_as("writer", "p").await?;
        tasks.push(tokio::spawn(write(writer, c, n)));
    }
    let mut folder = cx.open_as("folder", "p").await?;
    tasks.push(tokio::spawn(async move {
        for _ in 0..WRITES {
            folder.consolidate(c).await?;
            folder.consolidate_batch(&[c]).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }));
    let mut sealer = cx.open_as("sealer", "p").await?;
    tasks.push(tokio::spawn(async move {
        let beside: Names = sealer.collection("beside").await?;
        for time in 0..WRITES {
            sealer
                .seal_batch(&[(c, at(100)), (beside, at(time))])
                .await?;
            sealer.compact(c, at(100)).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }));
    join(tasks).await?;
    let mut expected: Vec<_> = (0..WRITERS)
        .map(|n| row(&format!("own {n}"), "v", 100, WRITES))
        .collect();
    expected.push(row("shared", "v", 100, WRITERS * WRITES));
    for handle in [&mut a, &mut b] {
        cx.eq(
            "the sums after all writers",
            &handle.iter(c).await?,
            &expected,
        )?;
        let beside: Names = handle.collection("beside").await?;
        cx.eq(
            "upper of what the sealer sealed",
            &handle.upper(beside).await?,
            &at(WRITES - 1),
        )?;
    }
    a.consolidate(c).await?;
    cx.eq("the sums, consolidated", &b.iter(c).await?, &expected)
}

async fn write(mut writer: Handle, c: Names, n: i64) -> Outcome {
    for _ in 0..WRITES {
        let rows = vec![
            row("shared", "v", 100, 1),
            row(&format!("own {n}"), "v", 100, 1),
        ];
        writer.update_many(c, rows).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn st_14_3(cx: &Cx<dyn World>) -> Outcome {
    const ROWS: usize = 300;
    const BATCHES: i64 = 8;
    let per_batch = ROWS.min(cx.caps.stash.batch_rows_max);
    let mut tasks = Vec::new();
    for n in 0..4 {
        let mut handle = cx.open_as("writer", "p").await?;
        tasks.push(tokio::spawn(async move {
            let c: Names = handle.collection(&format!("own {n}")).await?;
            for time in 1..=BATCHES {
                let rows = (0..per_batch).map(|k| row(&format!("{k:04}"), "v", time, 1));
                handle.update_many(c, rows.collect()).await?;
                handle.seal(c, at(time + 1)).await?;
                handle.compact(c, at(time)).await?;
                handle.consolidate(c).await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }));
    }
    join(tasks).await?;
    let mut reader = cx.open("p").await?;
    for n in 0..4 {
        let c: Names = reader.collection(&format!("own {n}")).await?;
        let expected: Vec<_> = (0..per_batch)
            .map(|k| row(&format!("{k:04}"), "v", BATCHES, BATCHES))
            .collect();
        cx.eq(
            format!("the rows of writer {n}"),
            &reader.iter(c).await?,
            &expected,
        )?;
    }
    Ok(())
}

/// A handle in exclusive mode; `None` where there is no such mode.
async fn exclusive(cx: &Cx<dyn World>, name: &'static str) -> Result<Option<Handle>, Stop> {
    cx.log().push(format!("{name} = open_exclusive(\"p\")"));
    match cx.world().open_exclusive("p").await {
        Ok(store) => Ok(store.map(|store| cx.handle(name, store))),
        Err(e) if cx.caps.stash.exclusive => Err(Stop::fail(
            "opening exclusive, as declared",
            e.to_string(),
            "a store",
        )),
        // Refused, as it should be where it is not declared.
        Err(_refused) => Ok(None),
    }
}

async fn st_14_4(cx: &Cx<dyn World>) -> Outcome {
    if !cx.caps.stash.exclusive {
        return undeclared(cx).await;
    }
    for call in 0..OLDER_CALLS {
        let Some(mut old) = exclusive(cx, "old").await? else {
            return Err(Stop::Ignored("needs the power open_exclusive()".into()));
        };
        let c: Names = old.collection(&format!("c{call}")).await?;
        let none: Names = old.collection("without rows").await?;
        let kept = vec![row("k", "v", 1, 1), row("k", "v", 6, 1)];
        old.update_many(c, kept.clone()).await?;
        old.seal(c, at(5)).await?;
        let Some(mut new) = exclusive(cx, "new").await? else {
            return Err(Stop::fail("a second exclusive open", "none", "a store"));
        };
        let result = older_call(&mut old, [c, none], call).await;
        conflict("the next call of the older writer", &result)?;
        let again = old.update(c, ("late".into(), "c".into()), 8, 1).await;
        conflict("its call after that", &again)?;
        cx.eq("the rows after both", &new.iter(c).await?, &kept)?;
        cx.eq("upper after both", &new.upper(c).await?, &at(5))?;
        let since = new.since(c).await?;
        cx.eq("since after both", &since, &at(i64::MIN))?;
        new.update(c, ("k".into(), "w".into()), 9, 1).await?;
    }
    several_writers(cx).await?;
    closed_again(cx).await
}

/// How many calls [`older_call`] knows.
const OLDER_CALLS: usize = 22;

/// A call of a writer that was replaced. Those behind the eighth change nothing. That an empty batch is `Ok` holds for
/// everybody, so it is not among them.
async fn older_call(old: &mut Handle, [c, none]: [Names; 2], call: usize) -> Result<(), Failed> {
    let key = "k".to_owned();
    match call {
        0 => {
            let rows = vec![row("late", "a", 7, 1), row("late", "b", 7, 1)];
            old.update_many(c, rows).await
        }
        1 => old.seal(c, at(6)).await,
        2 => old.compact(c, at(3)).await,
        3 => old.consolidate(c).await,
        4 => old.seal_batch(&[(c, at(6)), (c, at(7))]).await,
        5 => old.compact_batch(&[(c, at(3)), (c, at(4))]).await,
        6 => old.consolidate_batch(&[c]).await,
        7 => old.collection::<String, String>("another").await.map(drop),
        8 => old.iter(c).await.map(drop),
        9 => old.iter_key(c, &key).await.map(drop),
        10 => old.upper(c).await.map(drop),
        11 => old.since(c).await.map(drop),
        12 => old.peek(c).await.map(drop),
        13 => old.peek_one(c).await.map(drop),
        14 => old.peek_key_one(c, &key).await.map(drop),
        15 => old.peek_timestamp(c).await.map(drop),
        16 => old.seal(c, at(5)).await,
        17 => old.compact(c, at(i64::MIN)).await,
        18 => old.consolidate(none).await,
        19 => old.seal_batch(&[(c, at(5))]).await,
        20 => {
            let found = old.collection::<String, String>("without rows").await;
            found.map(drop)
        }
        _ => old.update(c, ("late".into(), "a".into()), 8, 1).await,
    }
}

/// ST-14.4: who was replaced stays replaced, also where all that came later are closed again before its next call.
async fn closed_again(cx: &Cx<dyn World>) -> Outcome {
    for newer in 1..=2 {
        let Some(mut old) = exclusive(cx, "old").await? else {
            return Err(Stop::fail("an exclusive open", "none", "a store"));
        };
        let c: Names = old.collection(&format!("closed again {newer}")).await?;
        old.update(c, ("k".into(), "old".into()), 1, 1).await?;
        let mut expected = vec![row("k", "old", 1, 1)];
        for nth in 0..newer {
            let Some(mut new) = exclusive(cx, "new").await? else {
                return Err(Stop::fail("an exclusive open", "none", "a store"));
            };
            // The last one only looks.
            if nth + 1 < newer {
                new.update(c, ("k".into(), "new".into()), 1, 1).await?;
                expected.insert(0, row("k", "new", 1, 1));
            }
            cx.eq("the rows before it", &new.iter(c).await?, &expected)?;
        }
        for time in [2, 3] {
            let what = format!("a call after {newer} newer writers, all of them closed");
            let late = old.update(c, ("late".into(), "v".into()), time, 1).await;
            conflict(&what, &late)?;
        }
        let mut reader = cx.open("p").await?;
        let what = "the rows after an older writer was refused";
        cx.eq(what, &reader.iter(c).await?, &expected)?;
    }
    Ok(())
}

/// ST-14.4: none of several older writers goes on, however long ago it was the last, and whoever was refused before.
async fn several_writers(cx: &Cx<dyn World>) -> Outcome {
    let names = ["first", "second", "third", "fourth", "fifth"];
    let mut writers = Vec::new();
    for name in names {
        let Some(mut writer) = exclusive(cx, name).await? else {
            return Err(Stop::fail("an exclusive open", "none", "a store"));
        };
        let c: Names = writer.collection("several").await?;
        writer.update(c, (name.into(), "v".into()), 1, 1).await?;
        writers.push((name, writer, c));
    }
    let mut last = writers.pop();
    for _ in 0..2 {
        for (name, older, c) in &mut writers {
            let what = format!("a call of the {name} of {} writers", names.len());
            let late = older.update(*c, ("late".into(), "v".into()), 1, 1).await;
            conflict(&what, &late)?;
        }
    }
    if let Some((_, last, c)) = &mut last {
        let mut expected = names.map(|name| row(name, "v", 1, 1)).to_vec();
        expected.sort();
        cx.eq("the rows of all writers", &last.iter(*c).await?, &expected)?;
    }
    Ok(())
}

fn conflict(what: &str, result: &Result<(), Failed>) -> Outcome {
    match result {
        Err(failed) if failed.kind() == ErrorKind::Conflict => Ok(()),
        Err(failed) => Err(Stop::fail(what, describe(failed), "conflict")),
        Ok(()) => Err(Stop::fail(what, "Ok", "conflict")),
    }
}

/// Not declared: there is no such mode, and handles share.
async fn undeclared(cx: &Cx<dyn World>) -> Outcome {
    if exclusive(cx, "exclusive").await?.is_some() {
        let what = "opening exclusive, which is not declared";
        return Err(Stop::fail(what, "a store", "none, or a refusal"));
    }
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    for time in 0..6 {
        a.update(c, ("k".into(), "a".into()), time, 1).await?;
        b.update(c, ("k".into(), "b".into()), time, 1).await?;
    }
    cx.eq(
        "the rows of two handles in turn",
        &a.iter(c).await?.len(),
        &12,
    )
}
