//! ST-1.8, ST-4.4, ST-5.6, ST-12.5 and ST-14.5: drops of the same, reads that meet a consolidation, updates that meet a
//! seal, appends that expect the same, and appends to the same.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use larder_traits::stash::{Append, StashDriver, StashDriverExt};
use larder_traits::{Classify, Outcome as Effect, StashError, Timestamp};
use tokio::sync::Barrier;

use super::handles::ended;
use super::{Names, at, row, variant};
use crate::check::{Outcome, Stop, describe};
use crate::cx::Cx;
use crate::stash::{Handle, World};

fn rounds(cx: &Cx<dyn World>) -> usize {
    cx.lin_epochs().clamp(5, 600)
}

/// How far the sealer goes in one round.
const SEALS: i64 = 3;

pub(super) async fn st_5_6(cx: &Cx<dyn World>) -> Outcome {
    let mut opener = cx.open("p").await?;
    let mut writers = vec![cx.open_as("w0", "p").await?, cx.open_as("w1", "p").await?];
    let mut sealer = cx.open_as("seals", "p").await?;
    for round in 0..rounds(cx) {
        let c: Names = opener.collection(&format!("c{round}")).await?;
        opener.seal(c, at(0)).await?;
        let upper = Arc::new(AtomicI64::new(0));
        let start = Arc::new(Barrier::new(writers.len() + 1));
        let share = || (Arc::clone(&upper), Arc::clone(&start));
        let sealing = tokio::spawn(seal(sealer, c, share(), round % 4));
        let mut writing = Vec::new();
        for (n, writer) in writers.into_iter().enumerate() {
            writing.push(tokio::spawn(write(writer, c, share(), n)));
        }
        let mut taken = BTreeSet::new();
        writers = Vec::new();
        for task in writing {
            let (writer, own) = ended(task.await)?;
            writers.push(writer);
            taken.extend(own);
        }
        let (back, seen) = ended(sealing.await)?;
        sealer = back;
        let rows = opener.iter(c).await?;
        let found: BTreeSet<_> = rows
            .iter()
            .map(|((key, _), time, _)| (key.clone(), *time))
            .collect();
        cx.eq("the rows of updates that met a seal", &found, &taken)?;
        for (upper, then) in (1..).zip(seen) {
            let now: Vec<_> = rows
                .iter()
                .filter(|(_, time, _)| *time < upper)
                .cloned()
                .collect();
            let what =
                format!("the rows before {upper}, which was sealed when they were read first");
            cx.eq(what, &now, &then)?;
        }
    }
    Ok(())
}

type Shared = (Arc<AtomicI64>, Arc<Barrier>);

type Rows = Vec<((String, String), Timestamp, i64)>;

/// Seals time after time, and says what was to be read before each of them right then.
async fn seal(
    mut handle: Handle,
    c: Names,
    (upper, start): Shared,
    pauses: usize,
) -> Result<(Handle, Vec<Rows>), Stop> {
    let mut seen = Vec::new();
    start.wait().await;
    for time in 1..=SEALS {
        for _ in 0..pauses {
            tokio::task::yield_now().await;
        }
        handle.seal(c, at(time)).await?;
        let rows = handle.iter(c).await?;
        upper.store(time, Ordering::SeqCst);
        seen.push(rows.into_iter().filter(|(_, at, _)| *at < time).collect());
    }
    Ok((handle, seen))
}

/// Writes rows at the time that is about to be sealed, and says which were taken.
async fn write(
    mut handle: Handle,
    c: Names,
    (upper, start): Shared,
    n: usize,
) -> Result<(Handle, Vec<(String, Timestamp)>), Stop> {
    const ROWS: usize = 6;
    let mut taken = Vec::new();
    start.wait().await;
    for at in 0..ROWS {
        let time = upper.load(Ordering::SeqCst);
        let key = format!("{n}.{at}");
        let written = match at % 2 {
            0 => {
                handle
                    .update(c, (key.clone(), String::new()), time, 1)
                    .await
            }
            _ => handle.update_many(c, vec![row(&key, "", time, 1)]).await,
        };
        match written {
            Ok(()) => taken.push((key, time)),
            Err(failed) => match failed.error {
                StashError::TimeBeforeUpper { .. } if failed.outcome() == Effect::NotApplied => {}
                _ => return Err(failed.into()),
            },
        }
        tokio::task::yield_now().await;
    }
    Ok((handle, taken))
}

/// How many clients append at once.
const CLIENTS: usize = 3;

pub(super) async fn st_12_5(cx: &Cx<dyn World>) -> Outcome {
    let mut drivers = Vec::new();
    for _ in 0..CLIENTS {
        drivers.push(cx.driver("p").await?);
    }
    let mut opener = cx.open("p").await?;
    for round in 0..rounds(cx) {
        let c: Names = opener.collection(&format!("c{round}")).await?;
        let start = Arc::new(Barrier::new(CLIENTS));
        let mut tasks = Vec::new();
        for (n, driver) in drivers.iter().enumerate() {
            let (driver, start) = (Arc::clone(driver), Arc::clone(&start));
            // Rows at the seal, behind it, and before it; in every fourth round none.
            let time = [6, 7, 5, 9][round % 4];
            let rows = (round % 8 < 7).then_some(time);
            tasks.push(tokio::spawn(async move {
                start.wait().await;
                race(&*driver, c, n, rows).await
            }));
        }
        let mut taken = Vec::new();
        for (n, task) in tasks.into_iter().enumerate() {
            if ended(task.await)? {
                taken.push(n);
            }
        }
        let what = format!("which of {CLIENTS} appends that expect the same upper were taken");
        let [one] = taken[..] else {
            return Err(Stop::fail(what, format!("{taken:?}"), "one of them"));
        };
        let rows = opener.iter(c).await?;
        let keys: Vec<_> = rows.into_iter().map(|((key, _), ..)| key).collect();
        let expected = if round % 8 < 7 {
            vec![one.to_string()]
        } else {
            Vec::new()
        };
        cx.eq("the rows of the append that was taken", &keys, &expected)?;
        cx.eq("upper after these appends", &opener.upper(c).await?, &at(6))?;
    }
    Ok(())
}

/// Whether an append of this client to a new collection was taken; another may have come first.
async fn race(
    driver: &dyn StashDriver,
    c: Names,
    n: usize,
    rows: Option<Timestamp>,
) -> Result<bool, Stop> {
    let mut it = Append::new();
    let rows = rows.map(|time| row(&n.to_string(), "", time, 1));
    it.collection(c)
        .expect_upper(at(Timestamp::MIN))
        .update(rows)
        .map_err(|e| Stop::error("encoding rows for an append", &e))?
        .seal(at(6));
    match driver.append(it).await {
        Ok(()) => Ok(true),
        Err(e) => match e {
            StashError::UpperMismatch { .. } if e.outcome() == Effect::NotApplied => Ok(false),
            e => Err(Stop::fail(
                "an append that expects what others expect too",
                format!("{}: {}", variant(&e), describe(&e)),
                "Ok, or UpperMismatch, NotApplied",
            )),
        },
    }
}

/// ST-14.5: each client appends to all collections, and begins with another one.
pub(super) async fn st_14_5(cx: &Cx<dyn World>) -> Outcome {
    const COLLECTIONS: usize = 3;
    let mut drivers = Vec::new();
    for _ in 0..CLIENTS {
        drivers.push(cx.driver("p").await?);
    }
    let mut opener = cx.open("p").await?;
    let mut all = Vec::<Names>::new();
    for n in 0..COLLECTIONS {
        all.push(opener.collection(&format!("c{n}")).await?);
    }
    let rounds = rounds(cx).min(40);
    for round in 0..rounds {
        let start = Arc::new(Barrier::new(CLIENTS));
        let mut tasks = Vec::new();
        for (n, driver) in drivers.iter().enumerate() {
            let (driver, start) = (Arc::clone(driver), Arc::clone(&start));
            let mut order = all.clone();
            order.rotate_left(n % COLLECTIONS);
            if round % 2 == 1 && n % 2 == 1 {
                order.reverse();
            }
            tasks.push(tokio::spawn(async move {
                let mut it = Append::new();
                for c in order {
                    let rows = vec![row(&format!("{round:04} {n}"), "", 1, 1)];
                    let added = it.collection(c).update(rows).map(drop);
                    added.map_err(|e| Stop::error("encoding rows for an append", &e))?;
                }
                start.wait().await;
                let appended = driver.append(it).await;
                appended.map_err(|e| {
                    Stop::fail(
                        "an append beside others over the same collections",
                        format!("{}: {}", variant(&e), describe(&e)),
                        "Ok: that they meet fails no call",
                    )
                })
            }));
        }
        for task in tasks {
            ended(task.await)?;
        }
    }
    for c in all {
        let found = opener.iter(c).await?.len();
        cx.eq("how many rows were appended", &found, &(rounds * CLIENTS))?;
    }
    Ok(())
}

/// ST-1.8: as many were dropped as there were, and are no more.
pub(super) async fn st_1_8(cx: &Cx<dyn World>) -> Outcome {
    const NAME: &str = "one of many drops";
    let mut drivers = Vec::new();
    for _ in 0..CLIENTS {
        drivers.push(cx.driver("p").await?);
    }
    let mut opener = cx.open("p").await?;
    let mut maker = cx.open_as("makes", "p").await?;
    for round in 0..rounds(cx).min(60) {
        let old: Names = opener.collection(NAME).await?;
        opener.update(old, ("k".into(), "v".into()), 1, 1).await?;
        // In every third round somebody makes it meanwhile.
        let is_made = round % 3 == 2;
        let start = Arc::new(Barrier::new(CLIENTS + usize::from(is_made)));
        let mut tasks = Vec::new();
        for driver in &drivers {
            let (driver, start) = (Arc::clone(driver), Arc::clone(&start));
            tasks.push(tokio::spawn(async move {
                start.wait().await;
                let dropped = driver.drop_collection(NAME).await;
                dropped.map_err(|e| Stop::error("a drop beside others of the same name", &e))
            }));
        }
        let mut ids = BTreeSet::from([old.id()]);
        if is_made {
            start.wait().await;
            let made: Names = maker.collection(NAME).await?;
            ids.insert(made.id());
        }
        let mut dropped = 0;
        for task in tasks {
            dropped += usize::from(ended(task.await)?);
        }
        let list = drivers[0].collections().await;
        let list = list.map_err(|e| Stop::error("collections()", &e))?;
        let left = list.iter().filter(|(found, _)| found == NAME).count();
        cx.require(
            dropped + left == ids.len(),
            format!(
                "{CLIENTS} drops of one name at once, of {} collections",
                ids.len()
            ),
            format!("{dropped} of them said that they dropped it, {left} are left"),
            "each collection was dropped once or is left",
        )?;
    }
    Ok(())
}

/// ST-4.4: what is read does not change, whatever is folded meanwhile.
pub(super) async fn st_4_4(cx: &Cx<dyn World>) -> Outcome {
    let mut opener = cx.open("p").await?;
    let mut folder = cx.open_as("folds", "p").await?;
    let mut readers = Vec::new();
    for name in ["a key", "a key peeked at", "all"] {
        readers.push((name, cx.open_as(name, "p").await?));
    }
    for round in 0..rounds(cx).min(80) {
        let c: Names = opener.collection(&format!("c{round}")).await?;
        // Each key has its one value once, in three rows.
        let rows = ["j", "k", "l"].into_iter().flat_map(|key| {
            [(1, 1), (2, 1), (3, -1)].map(|(time, diff)| row(key, "v", time, diff))
        });
        opener.update_many(c, rows.collect()).await?;
        opener.seal(c, at(10)).await?;
        opener.compact(c, at(5)).await?;
        let start = Arc::new(Barrier::new(readers.len() + 1));
        let at_work = Arc::new(());
        let mut tasks = Vec::new();
        for (name, handle) in readers {
            let (start, at_work) = (Arc::clone(&start), Arc::downgrade(&at_work));
            tasks.push(tokio::spawn(async move {
                start.wait().await;
                read_on((name, handle), c, &at_work).await
            }));
        }
        start.wait().await;
        for _ in 0..round % 5 {
            tokio::task::yield_now().await;
        }
        let folded = if round % 2 == 0 {
            folder.consolidate(c).await
        } else {
            folder.consolidate_batch(&[c]).await
        };
        drop(at_work);
        readers = Vec::new();
        for task in tasks {
            readers.push(ended(task.await)?);
        }
        folded?;
    }
    Ok(())
}

type Reader = (&'static str, Handle);

/// Reads again and again, and once more when nobody is at work any more.
async fn read_on((name, mut handle): Reader, c: Names, at_work: &Weak<()>) -> Result<Reader, Stop> {
    let key = "k".to_owned();
    let mut is_last = false;
    while !is_last {
        is_last = at_work.strong_count() == 0;
        let (seen, expected) = match name {
            "a key" => {
                let right = vec![("v".to_owned(), 5_i64, 1_i64)];
                let seen = handle.iter_key(c, &key).await?;
                (format!("{seen:?}"), format!("{right:?}"))
            }
            "a key peeked at" => {
                let seen = handle.peek_key_one(c, &key).await?;
                (format!("{seen:?}"), format!("{:?}", Some("v")))
            }
            _ => {
                let right = ["j", "k", "l"].map(|key| row(key, "v", 5, 1));
                let seen = handle.iter(c).await?;
                (format!("{seen:?}"), format!("{right:?}"))
            }
        };
        if seen != expected {
            let what = format!("{name}, read beside a consolidation");
            return Err(Stop::fail(what, seen, expected));
        }
        tokio::task::yield_now().await;
    }
    Ok((name, handle))
}
