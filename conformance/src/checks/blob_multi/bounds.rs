//! C-4: bounds, asked of `BlobMulti`. The checks stand in the table of `common`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use larder_traits::blob_multi::KEY_LEN_BYTES_MAX;
use larder_traits::{Atomicity, ErrorKind};

use super::{all_is, fill, long_key};
use crate::blob_multi::{Handle, World, name, patient};
use crate::check::Outcome;
use crate::checks::{pattern, refused};
use crate::cx::Cx;
use crate::model::blob_multi::Blobs;

pub(super) async fn c_4_1(cx: &Cx<dyn World>) -> Outcome {
    let key_len_max = cx.caps.blob_multi.key_len_bytes_max;
    cx.require(
        (255..=KEY_LEN_BYTES_MAX).contains(&key_len_max),
        "the declared length of the longest key",
        key_len_max.to_string(),
        "255 to 1024 bytes",
    )?;
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    let longest = long_key(key_len_max);
    fill(&a, &mut model, &longest, "old", 10).await?;
    fill(&b, &mut model, &longest, "new", 70_000).await?;
    all_is(&a, &model).await?;
    // One byte more, and many more, all starting with the key that is there.
    for len in [key_len_max + 1, key_len_max * 2, 100_000] {
        let key = long_key(len);
        for atomic in [Atomicity::RequireAtomic, Atomicity::AllowNonAtomic] {
            let result = patient(|| a.try_set(Handle::ample(), &key, "over", atomic)).await;
            refused(&over("set", &key), result, ErrorKind::InvalidInput)?;
        }
        let result = patient(|| b.try_delete(Handle::ample(), &key)).await;
        refused(&over("delete", &key), result, ErrorKind::InvalidInput)?;
        let result = patient(|| a.try_get(Handle::ample(), &key)).await;
        refused(&over("get", &key), result, ErrorKind::InvalidInput)?;
        let result = patient(|| b.try_get_bytes(Handle::ample(), &key)).await;
        refused(&over("get_bytes", &key), result, ErrorKind::InvalidInput)?;
        let result = patient(|| a.try_get_range(Handle::ample(), &key, 0..1)).await;
        refused(&over("get_range", &key), result, ErrorKind::InvalidInput)?;
        all_is(&b, &model).await?;
    }
    fill(&a, &mut model, "v", "old", 100).await?;
    refuses_longer_values(cx, &a).await?;
    all_is(&b, &model).await
}

/// Fails unless a value of one byte more than the declared maximum is refused, whether its key is there or not.
pub(super) async fn refuses_longer_values(cx: &Cx<dyn World>, handle: &Handle) -> Outcome {
    // Nothing of it is kept, so it may be larger than what a check writes; it still has to be made.
    const LEN_MAX: u64 = 128 << 20;
    const ONCE: u64 = 8 << 20;
    let declared = cx.caps.blob_multi.value_len_bytes_max;
    if declared >= LEN_MAX {
        return Ok(());
    }
    let len = usize::try_from(declared + 1).expect("a length below the constant above");
    let value = Bytes::from(vec![0; len]);
    // Of two of them, one is of a key that is not there, and one need not be atomic.
    let all = [
        ("v", Atomicity::RequireAtomic),
        ("new", Atomicity::AllowNonAtomic),
        ("new", Atomicity::RequireAtomic),
        ("v", Atomicity::AllowNonAtomic),
    ];
    for (key, atomic) in &all[..if declared > ONCE { 2 } else { all.len() }] {
        let set = || handle.try_set(Handle::ample(), key, value.clone(), *atomic);
        let what = format!("set({key:?}) of one byte more than the longest value");
        refused(&what, patient(set).await, ErrorKind::InvalidInput)?;
    }
    Ok(())
}

fn over(method: &str, key: &str) -> String {
    format!("{method}({}), longer than the bound", name(key))
}

pub(super) async fn c_4_2(cx: &Cx<dyn World>) -> Outcome {
    const MORE: usize = 50;
    const IN_FLIGHT_MAX: usize = 1_000;
    let in_flight = cx.caps.in_flight_max.unwrap_or(64).min(IN_FLIGHT_MAX) + MORE;
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    fill(&a, &mut model, "k", "4.2", 500).await?;
    // Refused calls give back what they have taken.
    for at in 0..in_flight * 2 {
        let late = Instant::now();
        match at % 4 {
            0 => drop(a.try_set(late, "k", "late", Atomicity::RequireAtomic).await),
            1 => drop(a.try_get(Handle::ample(), "").await),
            2 => drop(
                a.try_set(Handle::ample(), "", "v", Atomicity::RequireAtomic)
                    .await,
            ),
            _ => drop(a.try_list(late).await),
        }
    }
    // Of each kind alone, then of all kinds mixed.
    for kind in 0..5 {
        let calls = (0..in_flight).map(|at| one_of(&a, if kind == 4 { at } else { kind }, at));
        let bound = Duration::from_secs(20);
        let what = format!("{in_flight} calls at once");
        for ended in cx.within(bound, &what, join_all(calls)).await? {
            ended?;
        }
        for at in 0..in_flight {
            model.delete(&format!("n{at}"));
        }
        let keys = b.list().await?;
        for key in keys.iter().filter(|key| key.starts_with('n')) {
            b.delete(key).await?;
        }
        all_is(&b, &model).await?;
    }
    all_is(&a, &model).await
}

async fn one_of(handle: &Handle, kind: usize, at: usize) -> Outcome {
    match kind % 4 {
        0 => handle.set(&format!("n{at}"), pattern("4.2", at)).await,
        1 => handle.delete(&format!("n{at}")).await,
        2 => handle.get("k").await.map(drop),
        _ => handle.list().await.map(drop),
    }
}
