//! ST-2: types, their encoding and their order.

use larder_traits::{Classify, ErrorKind, Outcome as Effect, StashCollection, StashError};

use super::{Names, at, refuses, row};
use crate::check::{Check, Outcome, Stop, describe};
use crate::checks::refused;
use crate::cx::{Cx, brief};
use crate::stash::{First, Later, Moody, Nested, Odd, Twice, World};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "ST-2.1",
        "rows come in the order of the decoded types: own orders, negatives, nested options",
    )
    .kills("byte order")
    .run(|cx| Box::pin(st_2_1(cx))),
    Check::new(
        "ST-2.2",
        "rows of a value's older shape are read as its newer one",
    )
    .kills("positional codec")
    .run(|cx| Box::pin(st_2_2(cx))),
    Check::new(
        "ST-2.3",
        "what does not encode, and what does not decode, is an error without effect",
    )
    .kills("panic, hang, lost values")
    .run(|cx| Box::pin(st_2_3(cx))),
    Check::new("ST-2.4", "equal rows in two collections are two rows")
        .kills("shared rows")
        .run(|cx| Box::pin(st_2_4(cx))),
];

/// Numbers whose encodings have different lengths and signs.
const NUMBERS: [i32; 14] = [
    0,
    1,
    -1,
    2,
    127,
    128,
    -128,
    200,
    255,
    256,
    -32,
    -33,
    i32::MAX,
    i32::MIN,
];

async fn st_2_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: StashCollection<Odd, Odd> = a.collection("odd").await?;
    let mut rows = Vec::new();
    for (n, key) in NUMBERS.into_iter().enumerate() {
        for value in [NUMBERS[(n * 3) % 14], NUMBERS[(n * 3 + 5) % 14]] {
            rows.push(((Odd(key), Odd(value)), 4, 1));
        }
    }
    a.update_many(c, rows.clone()).await?;
    rows.sort();
    cx.eq(
        "iter, in an order of the type's own",
        &b.iter(c).await?,
        &rows,
    )?;
    for key in NUMBERS.map(Odd) {
        let of_key = rows.iter().filter(|((of, _), ..)| *of == key);
        let of_key: Vec<_> = of_key.map(|((_, v), t, d)| (*v, *t, *d)).collect();
        cx.eq(
            format!("iter_key({key:?})"),
            &b.iter_key(c, &key).await?,
            &of_key,
        )?;
    }
    a.seal(c, at(5)).await?;
    let sealed: Vec<_> = rows.iter().map(|((k, v), _, d)| (*k, *v, *d)).collect();
    cx.eq(
        "peek, in an order of the type's own",
        &b.peek(c).await?,
        &sealed,
    )?;

    let c: StashCollection<Nested, i64> = b.collection("nested").await?;
    let text = |text: &str| Some(text.to_owned());
    let keys: [Nested; 9] = [
        Some((200, None)),
        Some((-1, text("z"))),
        None,
        Some((-1, None)),
        Some((1, text("b"))),
        Some((1, text(""))),
        Some((1, text("aa"))),
        Some((i64::MIN, text("a"))),
        Some((-200, None)),
    ];
    let mut rows = Vec::new();
    for key in keys {
        for value in [300, -300, 0, i64::MIN] {
            rows.push(((key.clone(), value), -5, 2));
        }
    }
    b.update_many(c, rows.clone()).await?;
    rows.sort();
    cx.eq("iter, keys of parts", &a.iter(c).await?, &rows)
}

async fn st_2_2(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let first: StashCollection<u64, First> = a.collection("c").await?;
    let value = |size: u32| First {
        name: format!("n{size}"),
        size,
    };
    let rows = (0..5).map(|n| ((u64::from(n), value(n * 100)), 1, 1));
    a.update_many(first, rows.collect()).await?;
    drop(a);
    let mut a = cx.open("p").await?;
    let later: StashCollection<u64, Later> = a.collection("c").await?;
    let grown = |size: u32| Later {
        size,
        owner: None,
        name: format!("n{size}"),
    };
    let rows: Vec<_> = (0..5)
        .map(|n| ((u64::from(n), grown(n * 100)), 1, 1))
        .collect();
    cx.eq("old rows as the newer shape", &b.iter(later).await?, &rows)?;
    let expected = vec![(grown(200), 1, 1)];
    cx.eq(
        "an old row found by its key",
        &a.iter_key(later, &2).await?,
        &expected,
    )?;
    // The old row is taken back by a value of the new shape: sums are formed over what is decoded.
    a.update(later, (2, grown(200)), 2, -1).await?;
    a.seal(later, at(3)).await?;
    let read = b.peek_key_one(later, &2).await?;
    cx.eq("an old row, taken back in the newer shape", &read, &None)?;
    a.compact(later, at(2)).await?;
    a.consolidate(later).await?;
    let expected = Vec::new();
    cx.eq(
        "the same, compacted",
        &b.iter_key(later, &2).await?,
        &expected,
    )
}

async fn st_2_3(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: StashCollection<u64, Moody> = a.collection("values").await?;
    let kept = vec![((1, Moody::Good), 1, 1)];
    a.update_many(c, kept.clone()).await?;
    let batch = vec![
        ((2, Moody::Good), 1, 1),
        ((3, Moody::Bad), 1, 1),
        ((4, Moody::Good), 1, 1),
    ];
    let result = a.update_many(c, batch).await;
    refused(
        "update_many with a value that does not encode",
        result,
        ErrorKind::InvalidInput,
    )?;
    let result = b.update(c, (5, Moody::Bad), 1, 1).await;
    refuses!(
        "update with a value that does not encode",
        result,
        StashError::Codec(_)
    )?;
    cx.eq("the rows after these", &b.iter(c).await?, &kept)?;
    a.update(c, (2, Moody::Good), 1, 1).await?;

    let keys: StashCollection<Moody, u64> = a.collection("keys").await?;
    let batch = vec![((Moody::Good, 1), 1, 1), ((Moody::Bad, 1), 1, 1)];
    let result = a.update_many(keys, batch).await;
    refuses!(
        "update_many with a key that does not encode",
        result,
        StashError::Codec(_)
    )?;
    let result = a.iter_key(keys, &Moody::Bad).await;
    refuses!(
        "iter_key of a key that does not encode",
        result,
        StashError::Codec(_)
    )?;
    cx.eq("the rows after these", &b.iter(keys).await?, &Vec::new())?;

    let names: Names = a.collection("names").await?;
    a.update(names, ("k".into(), "v".into()), 1, 1).await?;
    a.seal(names, at(2)).await?;
    let wrong: StashCollection<u64, Vec<u8>> = StashCollection::new(names.id());
    let what = "text read as numbers";
    refuses!(what, b.iter(wrong).await, StashError::Codec(_))?;
    refuses!(what, b.peek(wrong).await, StashError::Codec(_))?;
    cx.eq(
        "the rows after that",
        &b.iter(names).await?,
        &vec![row("k", "v", 1, 1)],
    )?;
    lossy(cx).await
}

/// A value that a codec may have no way to tell from another one is refused, or comes back as it was.
async fn lossy(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let c: StashCollection<u64, Twice> = a.collection("options").await?;
    let mut kept = Vec::new();
    for (key, value) in [None, Some(None), Some(Some(7))].into_iter().enumerate() {
        let key = u64::try_from(key).unwrap_or_default();
        match a.update(c, (key, value), 1, 1).await {
            Ok(()) => kept.push(((key, value), 1, 1)),
            Err(e) if e.kind() == ErrorKind::InvalidInput && e.outcome() == Effect::NotApplied => {}
            Err(e) => {
                let what = format!("update with {}", brief(&value));
                return Err(Stop::fail(
                    what,
                    describe(&e),
                    "Ok, or InvalidInput, NotApplied",
                ));
            }
        }
    }
    cx.eq("the options that were accepted", &b.iter(c).await?, &kept)
}

async fn st_2_4(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let one: Names = a.collection("one").await?;
    let two: Names = b.collection("two").await?;
    let rows = vec![row("k", "v", 1, 1)];
    a.update_many(one, rows.clone()).await?;
    b.update_many(two, rows.clone()).await?;
    for (c, name) in [(one, "one"), (two, "two")] {
        cx.eq(format!("the rows of {name}"), &a.iter(c).await?, &rows)?;
    }
    a.update(one, ("k".into(), "v".into()), 1, -1).await?;
    a.seal(one, at(3)).await?;
    a.compact(one, at(2)).await?;
    a.consolidate(one).await?;
    cx.eq(
        "the row that was taken back",
        &b.iter(one).await?,
        &Vec::new(),
    )?;
    cx.eq(
        "its twin in the other collection",
        &b.iter(two).await?,
        &rows,
    )?;
    let found = b.iter_key(two, &"k".to_owned()).await?;
    cx.eq("its twin, by key", &found, &vec![("v".to_owned(), 1, 1)])
}
