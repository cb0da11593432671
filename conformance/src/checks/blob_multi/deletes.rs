//! BM-5 and BM-6: keys that go, and what one handle sees of another's work.

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::task::JoinHandle;

use super::set::in_task;
use super::{
    IN_FLIGHT, NAMES, all_is, concurrent, faults, fill, get_is, list_is, read_is, same_lines,
};
use crate::blob_multi::{Handle, World};
use crate::check::{Check, Engine, Level, Outcome};
use crate::checks::{pattern, seen_once};
use crate::cx::Cx;
use crate::model::blob_multi::Blobs;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BM-5.1",
        "delete is Ok for absent keys, twice, and takes no other key along",
    )
    .kills("error on absent, prefix delete")
    .run(|cx| Box::pin(bm_5_1(cx))),
    Check::new("BM-5.2", "1100 deletes at once leave the other keys only")
        .kills("ignored partial errors")
        .run(|cx| Box::pin(bm_5_2(cx))),
    Check::new(
        "BM-6.1",
        "calls on one key are linearizable, on one handle and on several",
    )
    .kills("re-ordering, replica lag")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(concurrent::bm_6_1(cx))),
    Check::new(
        "BM-6.2",
        "what one handle has read does not hide what another does",
    )
    .kills("stale, negative cache")
    .run(|cx| Box::pin(bm_6_2(cx))),
    Check::new(
        "BM-6.3",
        "8 writers of disjoint keys lose nothing of each other",
    )
    .kills("lost update of a shared map")
    .run(|cx| Box::pin(bm_6_3(cx))),
    Check::new(
        "BM-6.4",
        "each key's presence in lists is linearizable, the whole list where declared",
    )
    .kills("unlinearizable list")
    .level(Level::Declared)
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(concurrent::bm_6_4(cx))),
    seen_once("BM-6.5").run(|cx| Box::pin(faults::bm_6_5(cx))),
];

async fn bm_5_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    a.delete("k1").await?;
    a.delete("k1").await?;
    list_is(&b, model.keys()).await?;
    let keys = [
        "k1", "k10", "k1/x", "K1", "k", "k1/", "k1.", "x/k1", "k1/x/y", "/k1", "k1*", "*", ".k1",
    ];
    for (at, key) in keys.iter().enumerate() {
        fill(&a, &mut model, key, "5.1", at * 700).await?;
    }
    // Names of which some keys are prefixes, or that are prefixes of some, or patterns for some.
    for absent in [
        "k1/x/", "k100", "k2", "x", "x/", "/", "k1//x", "k*", ".", "k1/*", "kl", "_", "k_", "k1_",
    ] {
        b.delete(absent).await?;
        b.delete(absent).await?;
        all_is(&a, &model).await?;
    }
    // Present ones, a short one before the longer ones that start with it, and each twice.
    for (at, key) in ["k1", "*", "k1/x", "k", "k1/", "/k1"]
        .into_iter()
        .enumerate()
    {
        let (writer, reader) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        writer.delete(key).await?;
        model.delete(key);
        get_is(reader, key, None).await?;
        all_is(reader, &model).await?;
        reader.delete(key).await?;
        all_is(writer, &model).await?;
    }
    // The last but one goes of what lies below a name, and what is left has a name that some take for nobody's.
    for (at, left) in [".k", "..", "_", "-", "!", "", "k/.k", ".tmp"]
        .iter()
        .enumerate()
    {
        fill(&a, &mut model, &format!("d{at}/k1"), "goes", 30).await?;
        fill(&b, &mut model, &format!("d{at}/{left}"), "is left", 40).await?;
    }
    for at in 0..8 {
        let key = format!("d{at}/k1");
        a.delete(&key).await?;
        model.delete(&key);
        list_is(&b, model.keys()).await?;
    }
    all_is(&b, &model).await?;
    // Keys whose values are the same bytes have nothing else in common.
    let value = pattern("twins", 9_000);
    for key in ["twin1", "twin2", "twin3"] {
        a.set(key, value.clone()).await?;
        model.set(key, value.clone().into());
    }
    b.delete("twin1").await?;
    model.delete("twin1");
    all_is(&a, &model).await?;
    fill(&a, &mut model, "twin2", "no longer a twin", 9_000).await?;
    all_is(&b, &model).await
}

async fn bm_5_2(cx: &Cx<dyn World>) -> Outcome {
    const COUNT: usize = 1_100;
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    for key in ["stays", "k", "k1/x"] {
        fill(&a, &mut model, key, "5.2", 100).await?;
    }
    let keys: Vec<String> = (0..COUNT).map(|n| format!("k{n:04}")).collect();
    let sets = keys.iter().map(|key| a.set(key, key.clone()));
    stream::iter(sets)
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    let mut expected: Vec<String> = keys
        .iter()
        .cloned()
        .chain(model.keys().map(str::to_owned))
        .collect();
    expected.sort();
    same_lines("list_keys() before", &b.list().await?, &expected)?;
    try_join_all(keys.iter().map(|key| b.delete(key))).await?;
    all_is(&a, &model).await?;
    all_is(&b, &model).await
}

async fn bm_6_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    let lengths = [
        Some(10),
        Some(10),
        Some(70_000),
        None,
        Some(0),
        None,
        Some(10),
        Some(3),
    ];
    for (round, len) in lengths.into_iter().enumerate() {
        let (writer, reader) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        // Both look, so that both know what there is; twice, since some caches take at the second look.
        for handle in [reader, writer, reader] {
            looks_like(handle, &model).await?;
        }
        for key in ["k", "k/x"] {
            match len {
                Some(len) => fill(writer, &mut model, key, &format!("round {round}"), len).await?,
                None => {
                    writer.delete(key).await?;
                    model.delete(key);
                }
            }
        }
        looks_like(reader, &model).await?;
        looks_like(writer, &model).await?;
    }
    Ok(())
}

/// Fails unless every method shows what the model holds under two keys.
async fn looks_like(handle: &Handle, model: &Blobs) -> Outcome {
    for key in ["k", "k/x"] {
        let expected = model.get(key);
        get_is(handle, key, expected.map(|value| &value[..])).await?;
        let value = handle.get_bytes(key).await?;
        read_is("get_bytes", key, value, expected.map(|value| &value[..]))?;
        let value = handle.get_range(key, 1..9).await?;
        let expected = model.get_range(key, 1..9);
        read_is("get_range 1..9 of", key, value, expected.as_deref())?;
    }
    list_is(handle, model.keys()).await?;
    let found = handle.list_prefix("k").await?;
    same_lines("list_prefix(\"k\")", &found, &model.list_prefix("k"))
}

async fn bm_6_3(cx: &Cx<dyn World>) -> Outcome {
    let keys_per_writer = cx.times(12, 4);
    let mut handles = Vec::new();
    for name in NAMES {
        handles.push(cx.open_as(name, "p").await?);
    }
    let mut model = Blobs::default();
    for round in 0..2 {
        let mut tasks: Vec<JoinHandle<Outcome>> = Vec::new();
        for (w, writer) in handles.iter().enumerate() {
            // First a handle for each writer, then one for all.
            let writer = if round == 0 {
                writer.clone()
            } else {
                handles[0].clone()
            };
            let prefix = format!("{}{w}/", if round == 0 { "own" } else { "one" });
            for n in 0..keys_per_writer {
                // Every fourth key goes again.
                if n % 4 != 3 {
                    model.set(&format!("{prefix}{n}"), piece(&prefix, n).into());
                }
            }
            tasks.push(tokio::spawn(async move {
                for n in 0..keys_per_writer {
                    writer
                        .set(&format!("{prefix}{n}"), piece(&prefix, n))
                        .await?;
                    if n % 4 == 3 {
                        writer.delete(&format!("{prefix}{n}")).await?;
                    }
                }
                Ok(())
            }));
        }
        for ended in try_join_all(tasks).await.map_err(in_task)? {
            ended?;
        }
        for handle in handles.iter().step_by(3) {
            all_is(handle, &model).await?;
        }
    }
    all_is(&cx.open_as("z", "p").await?, &model).await
}

fn piece(prefix: &str, n: usize) -> Vec<u8> {
    pattern(&format!("{prefix}{n}"), n * 300)
}
