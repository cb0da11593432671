//! ST-1: collections by their names.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use larder_traits::stash::StashDriverExt;
use larder_traits::{StashCollection, StashError, Timestamp};

use super::{Names, at, both_read, made_again, pages, races, refuses, row};
use crate::check::{Check, Engine, Outcome, Stop};
use crate::cx::Cx;
use crate::stash::{Handle, World};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "ST-1.1",
        "a fresh collection has no rows and both frontiers at the first time",
    )
    .kills("frontier at 0")
    .run(|cx| Box::pin(st_1_1(cx))),
    Check::new(
        "ST-1.2",
        "one name is one collection: on another handle, reopened, and for 8 racing creators",
    )
    .kills("re-created, duplicate")
    .run(|cx| Box::pin(st_1_2(cx))),
    Check::new(
        "ST-1.3",
        "1,000 names, odd ones and near twins among them, are as many collections",
    )
    .kills("collisions")
    .run(|cx| Box::pin(st_1_3(cx))),
    Check::new(
        "ST-1.4",
        "a collection's handle outlives the store that gave it",
    )
    .kills("bound to a connection")
    .run(|cx| Box::pin(st_1_4(cx))),
    Check::new(
        "ST-1.5",
        "a dropped collection stays gone, its name starts fresh, the list of names is exact",
    )
    .kills("rows come back")
    .run(|cx| Box::pin(st_1_5(cx))),
    Check::new(
        "ST-1.6",
        "made, dropped and made again by any handle, closed by all between: one id on all, and never again",
    )
    .kills("names remembered by a handle, ids counted anew")
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(made_again::st_1_6(cx))),
    Check::new(
        "ST-1.7",
        "of names that are patterns of each other the one that is dropped goes, and no other",
    )
    .kills("name as a pattern")
    .run(|cx| Box::pin(pages::st_1_7(cx))),
    Check::new(
        "ST-1.8",
        "of drops of one name at once one says that it dropped it, also where it is made meanwhile",
    )
    .kills("looked for, and dropped a moment later")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(races::st_1_8(cx))),
];

async fn st_1_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    // Not the first collection of the place, and one that other collections stand beside.
    let other: Names = a.collection("other").await?;
    a.update(other, ("k".into(), "v".into()), 3, 1).await?;
    a.seal(other, at(4)).await?;
    let c: Names = a.collection("c").await?;
    for handle in [&mut b, &mut a] {
        cx.eq(
            "iter of a new collection",
            &handle.iter(c).await?,
            &Vec::new(),
        )?;
        let rows = handle.iter_key(c, &"k".to_owned()).await?;
        cx.eq("iter_key in a new collection", &rows, &Vec::new())?;
        let first = at(Timestamp::MIN);
        cx.eq("since of a new collection", &handle.since(c).await?, &first)?;
        cx.eq("upper of a new collection", &handle.upper(c).await?, &first)?;
    }
    Ok(())
}

async fn st_1_2(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let mine: Names = a.collection("c").await?;
    let rows = vec![row("k", "v", 7, 1)];
    a.update_many(mine, rows.clone()).await?;
    a.seal(mine, at(5)).await?;
    let theirs: Names = b.collection("c").await?;
    cx.eq(
        "the id of one name on two handles",
        &theirs.id(),
        &mine.id(),
    )?;
    let again: Names = a.collection("c").await?;
    cx.eq("the id of one name asked twice", &again.id(), &mine.id())?;
    both_read(
        cx,
        "rows after the name was asked for again",
        [&mut a, &mut b],
        theirs,
        &rows,
    )
    .await?;
    drop((a, b));
    let (mut a, mut b) = cx.open_two("p").await?;
    let reopened: Names = b.collection("c").await?;
    cx.eq("the id after reopening", &reopened.id(), &mine.id())?;
    both_read(
        cx,
        "rows after reopening",
        [&mut a, &mut b],
        reopened,
        &rows,
    )
    .await?;
    cx.eq("upper after reopening", &a.upper(reopened).await?, &at(5))?;
    race(cx).await
}

/// Rounds of 8 creators, each of which writes at once; all rows have to be in one collection.
async fn race(cx: &Cx<dyn World>) -> Outcome {
    let mut handles = Vec::new();
    for _ in 0..8 {
        handles.push(cx.open_as("racer", "p").await?);
    }
    for round in 0..4 {
        let name = format!("race {round}");
        let creators = handles.into_iter().enumerate().map(|(n, mut handle)| {
            let name = name.clone();
            tokio::spawn(async move {
                let c: Names = handle.collection(&name).await?;
                handle
                    .update(c, (format!("{n}"), String::new()), 1, 1)
                    .await?;
                Ok::<_, Stop>((handle, c))
            })
        });
        let mut back = Vec::new();
        let mut ids = BTreeSet::new();
        for joined in join_all(creators).await {
            let (handle, c) =
                joined.map_err(|e| Stop::fail("a creator", e.to_string(), "an end"))??;
            ids.insert(c.id());
            back.push((handle, c));
        }
        cx.require(
            ids.len() == 1,
            "the ids that 8 racing creators of one name got",
            format!("{ids:?}"),
            "one id",
        )?;
        let expected: Vec<_> = (0..8).map(|n| row(&n.to_string(), "", 1, 1)).collect();
        let mut next = Vec::new();
        for (mut handle, c) in back {
            cx.eq(
                "the rows of 8 racing creators",
                &handle.iter(c).await?,
                &expected,
            )?;
            next.push(handle);
        }
        handles = next;
    }
    Ok(())
}

/// Names that a careless store takes for each other.
fn names() -> Vec<String> {
    let odd = [
        "",
        " ",
        "  ",
        ".",
        "..",
        "/",
        "//",
        "a",
        "a ",
        " a",
        "A",
        "a/",
        "/a",
        "a/b",
        "a.b",
        "a_b",
        "a-b",
        "ab",
        "a\0b",
        "a\0",
        "\0",
        "a'b",
        "a\"b",
        "a;b",
        "a%b",
        "a%25b",
        "a\\b",
        "a\nb",
        "a\tb",
        "é",
        "e\u{301}",
        "É",
        "ß",
        "ss",
        "\u{1F980}",
        "null",
        "NULL",
        "0",
        "00",
        "1",
        "-1",
        "1e0",
        "collections",
        "\u{FEFF}a",
    ];
    let mut names: Vec<String> = odd.iter().map(ToString::to_string).collect();
    for len in [63, 64, 65, 127, 128, 254, 255] {
        names.push("x".repeat(len));
        names.push(format!("{}y", "x".repeat(len - 1)));
    }
    for n in 0.. {
        if names.len() >= 1_000 {
            break;
        }
        names.push(format!("name{n}"));
    }
    names
}

async fn st_1_3(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let max = cx.caps.stash.name_len_bytes_max;
    let names: Vec<_> = names()
        .into_iter()
        .filter(|name| name.len() <= max)
        .collect();
    let mut ids = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let writer = if n % 2 == 0 { &mut a } else { &mut b };
        let c: Names = writer.collection(name).await?;
        writer
            .update(c, (name.clone(), n.to_string()), 0, 1)
            .await?;
        ids.push(c.id());
    }
    drop(a);
    let mut a = cx.open("p").await?;
    for (n, (name, id)) in names.iter().zip(&ids).enumerate() {
        let reader = if n % 2 == 0 { &mut b } else { &mut a };
        let c: Names = reader.collection(name).await?;
        cx.eq(format!("the id of {name:?}, asked again"), &c.id(), id)?;
        let expected = vec![row(name, &n.to_string(), 0, 1)];
        cx.eq(
            format!("the rows of {name:?}"),
            &reader.iter(c).await?,
            &expected,
        )?;
    }
    let distinct: BTreeSet<_> = ids.iter().collect();
    cx.eq("the number of distinct ids", &distinct.len(), &names.len())?;
    // Once more when nobody has any of them open.
    drop((a, b));
    let (mut a, mut b) = cx.open_two("p").await?;
    for (n, (name, id)) in names.iter().zip(&ids).enumerate() {
        let reader = if n % 2 == 0 { &mut a } else { &mut b };
        let c: Names = reader.collection(name).await?;
        cx.eq(format!("the id of {name:?}, reopened"), &c.id(), id)?;
    }
    let Some(driver) = cx.driver_if_any("p").await? else {
        return Ok(());
    };
    let listed = driver.collections().await;
    let mut listed = listed.map_err(|e| Stop::error("driver.collections()", &e))?;
    listed.sort();
    let mut all: Vec<_> = names.into_iter().zip(ids).collect();
    all.sort();
    cx.eq("the length of the list of names", &listed.len(), &all.len())?;
    cx.require(
        listed == all,
        "the list of names",
        "others",
        "each with its id",
    )
}

async fn st_1_4(cx: &Cx<dyn World>) -> Outcome {
    const fn is_copy<T: Copy>() {}
    const { is_copy::<StashCollection<String, Vec<u8>>>() };

    let mut a = cx.open("p").await?;
    // Ids that were given after and before, so that a number for each connection shows.
    let first: Names = a.collection("first").await?;
    let c: Names = a.collection("c").await?;
    a.update(c, ("k".into(), "v".into()), 1, 1).await?;
    drop(a);
    let (mut a, mut b) = cx.open_two("p").await?;
    b.update(c, ("k".into(), "w".into()), 2, 1).await?;
    let rows = vec![row("k", "v", 1, 1), row("k", "w", 2, 1)];
    both_read(
        cx,
        "rows by a handle from before",
        [&mut a, &mut b],
        c,
        &rows,
    )
    .await?;
    cx.eq(
        "rows of another collection",
        &a.iter(first).await?,
        &Vec::new(),
    )?;
    a.seal(c, at(2)).await?;
    cx.eq("upper by a handle from before", &b.upper(c).await?, &at(2))
}

async fn st_1_5(cx: &Cx<dyn World>) -> Outcome {
    let driver = cx.driver("p").await?;
    let (mut a, mut b) = cx.open_two("p").await?;
    let fault = |e: StashError| Stop::error("a call of the driver", &e);
    cx.eq(
        "the list of an empty place",
        &driver.collections().await.map_err(fault)?,
        &Vec::new(),
    )?;
    let old: Names = a.collection("c").await?;
    let near: Names = b.collection("c1").await?;
    a.update(old, ("k".into(), "v".into()), 1, 1).await?;
    a.seal(old, at(2)).await?;
    b.update(near, ("k".into(), "n".into()), 1, 1).await?;
    let dropped = driver.drop_collection("absent").await.map_err(fault)?;
    cx.eq("dropping a name that is not there", &dropped, &false)?;
    let dropped = driver.drop_collection("c").await.map_err(fault)?;
    cx.eq("dropping a collection", &dropped, &true)?;
    let dropped = driver.drop_collection("c").await.map_err(fault)?;
    cx.eq("dropping it again", &dropped, &false)?;
    cx.log().push("driver dropped \"c\"".into());
    let list = driver.collections().await.map_err(fault)?;
    cx.eq(
        "the list after a drop",
        &list,
        &vec![("c1".to_owned(), near.id())],
    )?;

    for fresh in [false, true] {
        if fresh {
            let new: Names = b.collection("c").await?;
            cx.require(
                new.id() != old.id(),
                "the id of a name that was dropped",
                format!("{} again", new.id()),
                "an id that was never given",
            )?;
            cx.eq(
                "rows of a name that was dropped",
                &a.iter(new).await?,
                &Vec::new(),
            )?;
            let first = at(Timestamp::MIN);
            cx.eq(
                "upper of a name that was dropped",
                &a.upper(new).await?,
                &first,
            )?;
            let list = driver.collections().await.map_err(fault)?;
            let both = vec![("c".to_owned(), new.id()), ("c1".to_owned(), near.id())];
            cx.eq("the list with the name back", &list, &both)?;
        }
        for handle in [&mut a, &mut b] {
            gone_for(handle, old).await?;
        }
        both_read(
            cx,
            "the rows beside",
            [&mut a, &mut b],
            near,
            &vec![row("k", "n", 1, 1)],
        )
        .await?;
    }
    Ok(())
}

/// Every kind of call is refused by the handle of a collection that was dropped.
async fn gone_for(handle: &mut Handle, old: Names) -> Outcome {
    let what = "a call on a dropped collection";
    let gone = handle.update(old, ("k".into(), "z".into()), 9, 1).await;
    refuses!(what, gone, StashError::NoCollection { .. })?;
    refuses!(
        what,
        handle.iter(old).await,
        StashError::NoCollection { .. }
    )?;
    refuses!(
        what,
        handle.upper(old).await,
        StashError::NoCollection { .. }
    )?;
    let gone = handle.seal(old, at(9)).await;
    refuses!(what, gone, StashError::NoCollection { .. })?;
    refuses!(
        what,
        handle.consolidate(old).await,
        StashError::NoCollection { .. }
    )?;
    Ok(())
}
