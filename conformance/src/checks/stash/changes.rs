//! ST-5: updates.

use larder_traits::{Diff, StashError, Timestamp};

use super::{Names, at, both_read, empty, pages, races, refuses, row};
use crate::check::{Check, Engine, Outcome};
use crate::cx::Cx;
use crate::model::stash::Update;
use crate::stash::World;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "ST-5.1",
        "a batch with one time that is sealed leaves nothing behind, after reopening too",
    )
    .kills("prefix applied")
    .run(|cx| Box::pin(st_5_1(cx))),
    Check::new(
        "ST-5.2",
        "every time and every diff that there is comes back",
    )
    .kills("narrow column")
    .run(|cx| Box::pin(st_5_2(cx))),
    Check::new(
        "ST-5.3",
        "an empty batch is always fine; once sealed for ever, no row is",
    )
    .kills("empty taken as least")
    .run(|cx| Box::pin(st_5_3(cx))),
    Check::new(
        "ST-5.4",
        "thousands of rows in one batch, duplicates among them",
    )
    .kills("parameter limit")
    .run(|cx| Box::pin(st_5_4(cx))),
    Check::new(
        "ST-5.5",
        "batches that cancel out, or say nothing, are taken and refused by their times like any other",
    )
    .kills("summed before it is checked")
    .run(|cx| Box::pin(st_5_5(cx))),
    Check::new(
        "ST-5.6",
        "updates that meet a seal: what is read behind it stays, what was taken is there",
    )
    .kills("time compared before the commit")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(races::st_5_6(cx))),
    Check::new(
        "ST-5.7",
        "updates of several mebibytes, of rows within their bounds, are there whole",
    )
    .kills("one packet, bound on the sum of rows")
    .run(|cx| Box::pin(pages::st_5_7(cx))),
];

async fn st_5_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let kept = vec![row("k", "v", 1, 1), row("k", "v", 10, 1)];
    a.update_many(c, kept.clone()).await?;
    a.seal(c, at(10)).await?;
    // The bad row in every position, and bad by one as well as by much.
    for position in 0..5 {
        for time in [9, 1, Timestamp::MIN] {
            let mut rows: Vec<_> = (0..5)
                .map(|n| row(&n.to_string(), "new", 10 + n, 1))
                .collect();
            rows[position].1 = time;
            let writer = if position % 2 == 0 { &mut b } else { &mut a };
            let result = writer.update_many(c, rows).await;
            refuses!(
                "a batch with a sealed time",
                result,
                StashError::TimeBeforeUpper { .. }
            )?;
            both_read(cx, "rows after a refused batch", [&mut a, &mut b], c, &kept).await?;
        }
    }
    let result = b.update(c, ("k".into(), "v".into()), 9, 1).await;
    refuses!(
        "an update with a sealed time",
        result,
        StashError::TimeBeforeUpper { .. }
    )?;
    drop((a, b));
    let (mut a, mut b) = cx.open_two("p").await?;
    both_read(cx, "rows after reopening", [&mut a, &mut b], c, &kept).await?;
    // What is refused at one time is fine at the next.
    b.update(c, ("k".into(), "v".into()), 10, 1).await?;
    let rows = vec![row("k", "v", 1, 1), row("k", "v", 10, 2)];
    both_read(cx, "a row at upper itself", [&mut a, &mut b], c, &rows).await
}

/// Rows at every boundary of time and difference; their sums fit.
pub(super) fn extremes() -> Vec<((String, String), Timestamp, Diff)> {
    let mut rows = Vec::new();
    for time in [
        Timestamp::MIN,
        Timestamp::MIN + 1,
        i64::from(i32::MIN) - 1,
        -1,
        0,
        1,
        i64::from(i32::MAX) + 1,
        Timestamp::MAX - 1,
        Timestamp::MAX,
    ] {
        for diff in [
            Diff::MIN,
            i64::from(i32::MIN) - 1,
            -1,
            1,
            i64::from(u32::MAX) + 1,
            Diff::MAX,
        ] {
            rows.push(row(&format!("{diff}"), &format!("{time}"), time, diff));
        }
    }
    rows.sort();
    rows
}

async fn st_5_2(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let rows = extremes();
    let mut written = rows.clone();
    // A diff of 0 is allowed, and is not seen.
    written.extend([Timestamp::MIN, 3, Timestamp::MAX].map(|time| row("zero", "v", time, 0)));
    a.update_many(c, written).await?;
    both_read(cx, "extreme times and diffs", [&mut a, &mut b], c, &rows).await?;
    drop(a);
    let mut a = cx.open("p").await?;
    both_read(cx, "extremes after reopening", [&mut a, &mut b], c, &rows).await?;

    let c: Names = a.collection("last").await?;
    a.seal(c, at(Timestamp::MAX)).await?;
    let result = b
        .update(c, ("k".into(), "v".into()), Timestamp::MAX - 1, 1)
        .await;
    refuses!(
        "a time before the last",
        result,
        StashError::TimeBeforeUpper { .. }
    )?;
    b.update(c, ("k".into(), "v".into()), Timestamp::MAX, 1)
        .await?;
    let rows = vec![row("k", "v", Timestamp::MAX, 1)];
    both_read(
        cx,
        "a row at the last time of all",
        [&mut a, &mut b],
        c,
        &rows,
    )
    .await
}

async fn st_5_3(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    a.update_many(c, Vec::new()).await?;
    cx.eq("rows after an empty batch", &b.iter(c).await?, &Vec::new())?;
    let kept = vec![row("k", "v", 5, 1)];
    a.update_many(c, kept.clone()).await?;
    a.seal(c, at(9)).await?;
    b.update_many(c, Vec::new()).await?;
    b.seal(c, empty()).await?;
    for time in [Timestamp::MIN, 0, 9, Timestamp::MAX] {
        for handle in [&mut a, &mut b] {
            let result = handle.update(c, ("k".into(), "v".into()), time, 1).await;
            refuses!(
                "an update once sealed for ever",
                result,
                StashError::TimeBeforeUpper { .. }
            )?;
        }
    }
    a.update_many(c, Vec::new()).await?;
    both_read(cx, "rows once sealed for ever", [&mut a, &mut b], c, &kept).await?;
    a.compact(c, empty()).await?;
    b.update_many(c, Vec::new()).await?;
    Ok(())
}

async fn st_5_4(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: Names = a.collection("c").await?;
    let count = cx.caps.stash.batch_rows_max.min(10_000);
    // Every tenth row is written twice.
    let number = |n: usize| if n % 10 == 9 { n - 1 } else { n };
    let name = |n: usize| format!("{:05}", number(n));
    let rows = (0..count).map(|n| row(&name(n), "v", 1, 1));
    a.update_many(c, rows.collect()).await?;
    let mut expected = Vec::new();
    for n in (0..count).filter(|n| n % 10 != 9) {
        let twice = n % 10 == 8 && n + 1 < count;
        expected.push(row(&name(n), "v", 1, if twice { 2 } else { 1 }));
    }
    both_read(cx, "thousands of rows", [&mut a, &mut b], c, &expected).await?;
    let last = count.saturating_sub(1);
    a.seal(c, at(2)).await?;
    b.consolidate(c).await?;
    cx.eq(
        "their number, consolidated",
        &a.iter(c).await?.len(),
        &expected.len(),
    )?;
    let found = a.iter_key(c, &name(last)).await?.len();
    cx.eq("the last of them by its key", &found, &1)
}

/// Batches at `time` of which nothing is to be seen once they were taken.
fn nothing_at(time: Timestamp) -> Vec<Vec<Update<String, String>>> {
    vec![
        vec![row("new", "v", time, 1), row("new", "v", time, -1)],
        vec![row("k", "v", time, 0)],
        vec![row("new", "v", time, 0), row("new", "w", time, 0)],
        vec![
            row("new", "v", time, Diff::MAX),
            row("new", "v", time, 1),
            row("new", "v", time, Diff::MIN),
        ],
        vec![
            row("k", "v", time, -1),
            row("new", "v", time, 2),
            row("k", "v", time, 1),
            row("new", "v", time, -2),
        ],
    ]
}

async fn st_5_5(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    for upper in [at(10), at(Timestamp::MAX), empty()] {
        let c: Names = a.collection(&format!("sealed to {upper}")).await?;
        let kept = vec![row("k", "v", 1, 1)];
        a.update_many(c, kept.clone()).await?;
        a.seal(c, upper.clone()).await?;
        let first = upper.as_option().copied();
        for late in [first.map_or(Timestamp::MAX, |first| first - 1), 5, 1] {
            for batch in nothing_at(late) {
                let beside = batch
                    .iter()
                    .cloned()
                    .chain(first.map(|at| row("l", "v", at, 1)));
                let beside: Vec<_> = beside.collect();
                for rows in [batch, beside] {
                    let result = b.update_many(c, rows).await;
                    let what = "a batch with sealed times that says nothing";
                    refuses!(what, result, StashError::TimeBeforeUpper { .. })?;
                }
            }
            let result = b.update(c, ("k".into(), "v".into()), late, 0).await;
            let what = "an update of nothing with a sealed time";
            refuses!(what, result, StashError::TimeBeforeUpper { .. })?;
            both_read(cx, "rows after refusals", [&mut a, &mut b], c, &kept).await?;
        }
        for batch in first.into_iter().flat_map(nothing_at) {
            b.update_many(c, batch).await?;
            let what = "rows after a batch that says nothing";
            both_read(cx, what, [&mut a, &mut b], c, &kept).await?;
        }
        cx.eq(
            "upper after batches that say nothing",
            &a.upper(c).await?,
            &upper,
        )?;
        std::mem::swap(&mut a, &mut b);
    }
    Ok(())
}
