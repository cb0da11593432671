//! BM-2: lists.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use larder_traits::Atomicity;
use proptest::prelude::*;

use super::{
    IN_FLIGHT, all_is, concurrent, fill, list_is, places, read_is, same_lines, values_are, work,
};
use crate::blob_multi::{Handle, World};
use crate::check::{Check, Engine, Outcome};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::engine::{kill, model};
use crate::model::blob_multi::Blobs;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BM-2.1",
        "lists and values are the model's after each of many operations",
    )
    .kills("ghosts, gaps")
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(bm_2_1(cx))),
    Check::new(
        "BM-2.2",
        "lists of 0, 999, 1000, 1001 and 2500 keys are whole, long keys among them",
    )
    .kills("pagination, a list that ends where a message is full")
    .run(|cx| Box::pin(bm_2_2(cx))),
    Check::new(
        "BM-2.3",
        "a, a/, a/b and a//b are four keys, listed as they are",
    )
    .kills("delimiter listing")
    .run(|cx| Box::pin(bm_2_3(cx))),
    Check::new("BM-2.4", "a list during churn has each untouched key once")
        .kills("cursor slips")
        .engines(&[Engine::Lin])
        .run(|cx| Box::pin(concurrent::bm_2_4(cx))),
    Check::new(
        "BM-2.5",
        "a list during large sets, and after a kill, has given keys only",
    )
    .kills("temporaries shown")
    .gate(places::survives_process)
    .engines(&[Engine::Kill])
    .run(|cx| Box::pin(bm_2_5(cx))),
    Check::new(
        "BM-2.6",
        "a prefix listing is the filtered list, each size the length of the last value",
    )
    .kills("stale size")
    .run(|cx| Box::pin(bm_2_6(cx))),
];

/// One call of the model run. Keys are few, so that calls meet; lengths cross the usual boundaries.
#[derive(Clone, Debug)]
enum Op {
    Set {
        key: usize,
        len: usize,
        atomic: Atomicity,
    },
    Delete {
        key: usize,
    },
    Range {
        key: usize,
        start: u64,
        len: u64,
    },
    Prefix {
        prefix: &'static str,
    },
    /// Go on with a new handle in place of one of the two.
    Reopen,
}

const KEYS: [&str; 7] = ["a", "a/", "a/b", "ab", "A", "b", "."];
const PREFIXES: [&str; 5] = ["", "a", "a/", "b/", "."];
const LENGTHS: [usize; 8] = [0, 1, 9, 100, 4_095, 4_096, 4_097, 70_000];

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || 0..KEYS.len();
    let atomic = prop_oneof![
        Just(Atomicity::RequireAtomic),
        Just(Atomicity::AllowNonAtomic)
    ];
    let op = prop_oneof![
        6 => (key(), prop::sample::select(&LENGTHS[..]), atomic)
            .prop_map(|(key, len, atomic)| Op::Set { key, len, atomic }),
        4 => key().prop_map(|key| Op::Delete { key }),
        1 => (key(), 0..5_000_u64, 0..5_000_u64)
            .prop_map(|(key, start, len)| Op::Range { key, start, len }),
        1 => prop::sample::select(&PREFIXES[..]).prop_map(|prefix| Op::Prefix { prefix }),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..model::CASE_LEN_MAX)
}

async fn bm_2_1(cx: &Cx<dyn World>) -> Outcome {
    model::run(cx, ops(), |cx, list| Box::pin(side_by_side(cx, list))).await
}

async fn side_by_side(cx: &Cx<dyn World>, list: &[Op]) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    for (at, op) in list.iter().enumerate() {
        // Writes go through one handle and are looked at through the other, in turn.
        let (writer, reader) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        match *op {
            Op::Set { key, len, atomic } => {
                let value = pattern(&format!("{at}"), len);
                writer.set_with(KEYS[key], value.clone(), atomic).await?;
                model.set(KEYS[key], value.into());
            }
            Op::Delete { key } => {
                writer.delete(KEYS[key]).await?;
                model.delete(KEYS[key]);
            }
            Op::Range { key, start, len } => {
                let range = start..start + len;
                let read = reader.get_range(KEYS[key], range.clone()).await?;
                let expected = model.get_range(KEYS[key], range.clone());
                let call = format!("get_range {range:?} of");
                read_is(&call, KEYS[key], read, expected.as_deref())?;
            }
            Op::Prefix { prefix } => {
                let found = reader.list_prefix(prefix).await?;
                same_lines("list_prefix()", &found, &model.list_prefix(prefix))?;
            }
            Op::Reopen if at % 2 == 0 => a = cx.open_as("a", "p").await?,
            Op::Reopen => b = cx.open_as("b", "p").await?,
        }
        let reader = if at % 2 == 0 { &b } else { &a };
        list_is(reader, model.keys()).await?;
        values_are(reader, &model, KEYS).await?;
    }
    Ok(())
}

async fn bm_2_2(cx: &Cx<dyn World>) -> Outcome {
    const LONG: usize = 900;
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    list_is(&a, model.keys()).await?;
    cx.eq("list_prefix(\"\")", &b.list_prefix("").await?, &Vec::new())?;
    for count in [999, 1_000, 1_001, 2_500] {
        // All of these together are longer than the usual messages.
        let is_long = count == 2_500;
        let len = cx.caps.blob_multi.key_len_bytes_max.min(LONG);
        grow(&a, &mut model, count, is_long.then_some(len)).await?;
        list_is(&b, model.keys()).await?;
        // Not each time: the provided body reads every value.
        if count == 1_001 {
            let found = b.list_prefix("n").await?;
            same_lines("list_prefix(\"n\")", &found, &model.list_prefix("n"))?;
            odd_ends(&a, &b, &mut model).await?;
        }
    }
    list_is(&a, model.keys()).await?;
    // On a server, once is enough.
    if !cx.world().is_remote() {
        let found = b.list_prefix("n").await?;
        same_lines("list_prefix(\"n\")", &found, &model.list_prefix("n"))?;
    }
    list_is(&cx.open_as("c", "p").await?, model.keys()).await
}

/// Lets the last key of each page, of the usual lengths of pages, end in what a store may drop or change where it goes on
/// behind this key.
async fn odd_ends(writer: &Handle, reader: &Handle, model: &mut Blobs) -> Outcome {
    for end in ["/", "(*)!'", "/.."] {
        for page in [100, 256, 500, 1_000] {
            let Some(key) = model.keys().nth(page - 1).map(str::to_owned) else {
                continue;
            };
            let odd = format!("{key}{end}");
            writer.set(&odd, end).await?;
            writer.delete(&key).await?;
            model.set(&odd, end.into());
            model.delete(&key);
        }
        list_is(reader, model.keys()).await?;
    }
    Ok(())
}

/// Sets keys until there are `count`, of the given length if there is one; their order of setting is not their order by
/// name.
async fn grow(handle: &Handle, model: &mut Blobs, count: usize, len: Option<usize>) -> Outcome {
    let known: Vec<String> = model.keys().map(str::to_owned).collect();
    let keys: Vec<String> = (known.len()..count)
        .map(|n| {
            let number = format!("n{:04}", n.wrapping_mul(7_919) % 10_000);
            match len {
                None => number + &"/x".repeat(n % 3),
                Some(len) => {
                    let rest = "/a-long-name".chars().cycle();
                    number.chars().chain(rest).take(len).collect()
                }
            }
        })
        .collect();
    // A long key is not its own value, which would only make the check slow.
    let value = |key: &str| Bytes::copy_from_slice(&key.as_bytes()[..key.len().min(9)]);
    let sets = keys.iter().map(|key| handle.set(key, value(key)));
    stream::iter(sets)
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    for key in keys {
        model.set(&key, value(&key));
    }
    Ok(())
}

async fn bm_2_3(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    let keys = [
        "a/b",
        "a",
        "a//b",
        "a/",
        "a//",
        "/",
        "/a",
        "ab",
        "a/b/c/d/e",
        "b/c",
    ];
    for (at, key) in keys.iter().enumerate() {
        fill(&a, &mut model, key, "2.3", at).await?;
        list_is(&b, model.keys()).await?;
    }
    for prefix in [
        "a",
        "a/",
        "a//",
        "/",
        "a/b",
        "b",
        "b/",
        "c",
        "a/b/c",
        "a/b/c/d/e",
    ] {
        let found = b.list_prefix(prefix).await?;
        let what = format!("list_prefix({prefix:?})");
        same_lines(&what, &found, &model.list_prefix(prefix))?;
    }
    // The last key below a name goes, and the name does not stay behind.
    for key in ["a/b/c/d/e", "b/c", "a//b", "a//", "a"] {
        b.delete(key).await?;
        model.delete(key);
        all_is(&a, &model).await?;
    }
    Ok(())
}

async fn bm_2_6(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    let keys = [
        "k", "k1", "k10", "k1/x", "k1/y", "K1", "l", "-", "k1.", "z/k1", "_", "k_", "*",
    ];
    for (at, key) in keys.iter().enumerate() {
        fill(&a, &mut model, key, "first", at * 1_000).await?;
    }
    let prefixes = [
        "", "k", "k1", "k1/", "k1/x", "k1/xx", "K", "m", "-", "z", "1", ".", "_", "k_", "*", "k*",
    ];
    let lengths = [0, 70_000, 1, 4_096];
    for round in 0..=lengths.len() {
        let (writer, reader) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        for prefix in prefixes {
            let found = reader.list_prefix(prefix).await?;
            let what = format!("list_prefix({prefix:?})");
            same_lines(&what, &found, &model.list_prefix(prefix))?;
        }
        let Some(&len) = lengths.get(round) else {
            break;
        };
        for key in keys.iter().skip(round).step_by(2) {
            fill(writer, &mut model, key, "again", len).await?;
        }
        writer.delete(keys[round]).await?;
        model.delete(keys[round]);
    }
    // A long prefix that no key has.
    let found = b.list_prefix(&super::long_key(255)).await?;
    same_lines("list_prefix of 255 bytes", &found, &[])
}

async fn bm_2_5(cx: &Cx<dyn World>) -> Outcome {
    kill::survives_while(
        cx,
        |cx| Box::pin(work::hire_large(cx)),
        &kill::kills(cx),
        |cx| Box::pin(lists_given_keys(cx)),
    )
    .await
}

/// Lists while another process writes.
async fn lists_given_keys(cx: &Cx<dyn World>) -> Outcome {
    let handle = cx.open_as("list", "p").await?;
    for _ in 0..20 {
        work::are_given(&handle.list().await?)?;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Ok(())
}
