//! BM-8 and BM-9: places apart from each other, and what lasts.

use larder_traits::{BlobInfo, Durability};

use super::{all_is, fill, list_is, work};
use crate::blob_multi::World;
use crate::check::{Check, Engine, Gate, Level, Outcome, Stop};
use crate::checks::outlives_power;
use crate::cx::Cx;
use crate::engine::kill::{self, End};
use crate::engine::power;
use crate::model::blob_multi::Blobs;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BM-8.1",
        "places p, p1 and p/1 with keys that would meet if names were joined",
    )
    .kills("prefix mixing")
    .run(|cx| Box::pin(bm_8_1(cx))),
    Check::new(
        "BM-8.2",
        "foreign objects beside the place are not seen and not touched",
    )
    .kills("greedy cleanup")
    .run(|cx| Box::pin(bm_8_2(cx))),
    Check::new(
        "BM-9.1",
        "each kind of write is there after the store was dropped or left behind",
    )
    .kills("write-behind")
    .level(Level::Declared)
    .gate(survives_process)
    .engines(&[Engine::Kill])
    .run(|cx| Box::pin(bm_9_1(cx))),
    Check::new(
        "BM-9.2",
        "a process that is killed, goes on and is killed again loses nothing acknowledged",
    )
    .kills("acknowledged loss")
    .level(Level::Declared)
    .gate(survives_process)
    .engines(&[Engine::Kill])
    .run(|cx| Box::pin(bm_9_2(cx))),
    Check::new(
        "BM-9.3",
        "power that goes off at any step takes nothing acknowledged",
    )
    .kills("missing file or directory sync")
    .level(Level::Declared)
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(bm_9_3(cx))),
];

pub(super) fn survives_process(caps: &larder_traits::Caps) -> Gate {
    match caps.durability {
        Durability::None => Gate::Ignore("the loss of the process is not declared to be survived"),
        Durability::Process | Durability::Power => Gate::Run,
    }
}

async fn bm_8_1(cx: &Cx<dyn World>) -> Outcome {
    const PLACES: [&str; 4] = ["p", "p1", "p/1", "p/1/x"];
    const NAMES: [&str; 4] = ["p", "p1", "p/1", "p/1/x"];
    const KEYS: [&str; 11] = [
        "x", "1/x", "/x", "1", "1/", "/1/x", "/1", "p/1/x", "p", "x/x", "1x",
    ];
    let mut places = Vec::new();
    for (name, place) in NAMES.into_iter().zip(PLACES) {
        places.push((cx.open_as(name, place).await?, Blobs::default()));
    }
    // An empty place stays empty while its neighbours fill.
    for at in 0..places.len() {
        for key in KEYS {
            let (handle, model) = &mut places[at];
            fill(handle, model, key, PLACES[at], 10 * at + key.len()).await?;
        }
        for (handle, model) in &places {
            all_is(handle, model).await?;
        }
    }
    for at in 0..places.len() {
        for prefix in ["1", "1/", "/", "p", "x"] {
            let (handle, model) = &places[at];
            let what = format!("list_prefix({prefix:?}) of place {:?}", PLACES[at]);
            let found: Vec<BlobInfo> = handle.list_prefix(prefix).await?;
            super::same_lines(&what, &found, &model.list_prefix(prefix))?;
        }
        // What one place deletes, all others keep.
        for key in KEYS {
            let (handle, model) = &mut places[at];
            handle.delete(key).await?;
            model.delete(key);
        }
        for (place, (_, model)) in PLACES.into_iter().zip(&places) {
            all_is(&cx.open_as("late", place).await?, model).await?;
        }
    }
    Ok(())
}

async fn bm_8_2(cx: &Cx<dyn World>) -> Outcome {
    let Some(foreign) = cx.world().foreign("p") else {
        return Err(Stop::Ignored("needs the power foreign()".into()));
    };
    let lost = |e| Stop::Inconclusive(format!("the surroundings could not be seen: {e}"));
    let mut model = Blobs::default();
    let a = cx.open_as("a", "p").await?;
    fill(&a, &mut model, "before", "8.2", 100).await?;
    foreign.plant().await.map_err(lost)?;
    let before = foreign.look().await.map_err(lost)?;
    // One handle that was there, and one that comes later and may clean up as it opens.
    let b = cx.open_as("b", "p").await?;
    for handle in [&a, &b] {
        all_is(handle, &model).await?;
        for (key, len) in [("k", 5_000), ("k/x", 0), ("before", 10), ("k", 70_000)] {
            fill(handle, &mut model, key, handle.name(), len).await?;
        }
        handle.delete("k/x").await?;
        model.delete("k/x");
        all_is(handle, &model).await?;
    }
    let keys: Vec<String> = model.keys().map(str::to_owned).collect();
    for key in keys {
        b.delete(&key).await?;
    }
    list_is(&a, Vec::<String>::new()).await?;
    drop((a, b));
    cx.settle().await;
    let after = foreign.look().await.map_err(lost)?;
    cx.eq("what lies beside the place", &after, &before)
}

async fn bm_9_1(cx: &Cx<dyn World>) -> Outcome {
    let ends = [End::Dropped(5), End::Left(5)];
    kill::survives(cx, |cx| Box::pin(work::hire(cx)), &ends).await
}

async fn bm_9_2(cx: &Cx<dyn World>) -> Outcome {
    let ends = kill::kills(cx);
    kill::survives(cx, |cx| Box::pin(work::hire(cx)), &ends).await
}

async fn bm_9_3(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire(cx))).await
}
