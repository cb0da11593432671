//! KV-5 and KV-6: many keys in one call, and the removal of one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use larder_traits::Durability;
use proptest::prelude::*;

use super::{bytes, concurrent};
use crate::check::{Check, Engine, Level, Outcome, Stop};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::kv_client::{Handle, World, show_value};
use crate::profile::Profile;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "KV-5.1",
        "get_multi keeps order and duplicates, with absent and expired keys among them; none for none",
    )
    .kills("set, not list")
    .run(|cx| Box::pin(kv_5_1(cx))),
    Check::new(
        "KV-5.2",
        "get_multi of 127 to 129, about 1,000 and 5,000 keys, each position judged",
    )
    .kills("batch limit, what was put first is no longer there, a scan with a limit")
    .run(|cx| Box::pin(kv_5_2(cx))),
    Check::new(
        "KV-5.3",
        "get_multi during writes: each key linearizable, all of one moment if declared",
    )
    .kills("stale batch")
    .level(Level::Declared)
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(concurrent::kv_5_3(cx))),
    Check::new(
        "KV-5.4",
        "get_multi of values that are as long as may be, more of them than go into one message",
    )
    .kills("a limit of the answer as a whole")
    .run(|cx| Box::pin(kv_5_4(cx))),
    Check::new(
        "KV-6.1",
        "delete of an absent key, twice, and beside keys that only begin alike",
    )
    .kills("range delete")
    .run(|cx| Box::pin(kv_6_1(cx))),
];

/// Lets an entry expire, by the test clock where there is one.
async fn expired(cx: &Cx<dyn World>, writer: &Handle, key: &str) -> Outcome {
    let over = Duration::from_secs(1) + cx.caps.kv_client.ttl_granularity;
    writer.put_with_ttl(key, "expired", 1).await?;
    if let Ok(clock) = cx.clock() {
        clock.advance(over);
        cx.log().push(format!("clock + {over:?}"));
        return Ok(());
    }
    // The check is about lists. A slow end is another's to judge, so this only waits for it, and long enough.
    let started = Instant::now();
    while writer.get(key).await?.is_some() {
        if started.elapsed() > over + Duration::from_secs(10) {
            return Err(Stop::Inconclusive("an entry of 1 s did not end".into()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Fails unless the answer has at each position what `expected` says.
async fn each_position(
    cx: &Cx<dyn World>,
    reader: &Handle,
    keys: &[Bytes],
    expected: impl Fn(&Bytes) -> Option<Bytes>,
) -> Outcome {
    let many = reader.get_multi(keys).await?;
    let what = format!("answers of get_multi of {} keys", keys.len());
    cx.eq(what, &many.len(), &keys.len())?;
    for (at, (key, seen)) in keys.iter().zip(&many).enumerate() {
        let expected = expected(key);
        cx.require(
            *seen == expected,
            format!(
                "get_multi of {} keys, position {at}, key b\"{}\"",
                keys.len(),
                key.escape_ascii()
            ),
            show_value(seen.as_ref()),
            show_value(expected.as_ref()),
        )?;
    }
    Ok(())
}

async fn kv_5_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let empty = b.get_multi(&[]).await?;
    cx.eq(
        "get_multi of no keys in an empty place",
        &empty,
        &Vec::new(),
    )?;
    for key in ["a", "b", "c"] {
        a.put(key, format!("value of {key}")).await?;
    }
    a.put("empty", "").await?;
    a.put("deleted", "x").await?;
    a.delete("deleted").await?;
    expired(cx, &a, "expired").await?;
    let expected = |key: &Bytes| match &key[..] {
        b"a" | b"b" | b"c" => Some(bytes([b"value of ", &key[..]].concat())),
        b"empty" => Some(Bytes::new()),
        _ => None,
    };
    let lists: [&[&str]; 8] = [
        &["a"],
        &["absent"],
        &["b", "a", "c"],
        &["c", "b", "a", "b", "c"],
        &["a", "a", "a"],
        &["absent", "a", "absent", "expired", "a", "expired"],
        &[
            "expired", "empty", "deleted", "b", "expired", "empty", "b", "deleted",
        ],
        &["deleted", "deleted"],
    ];
    for list in lists {
        let keys: Vec<Bytes> = list.iter().map(bytes).collect();
        for reader in [&b, &a] {
            each_position(cx, reader, &keys, expected).await?;
        }
    }
    let all = [
        "a", "b", "c", "empty", "deleted", "expired", "absent", "aa", "A",
    ];
    let mut rng = cx.rng();
    for _ in 0..20 {
        let len = rng.random_range(1..40);
        let keys: Vec<Bytes> = (0..len)
            .map(|_| bytes(all[rng.random_range(0..all.len())]))
            .collect();
        each_position(cx, &b, &keys, expected).await?;
    }
    let empty = b.get_multi(&[]).await?;
    cx.eq("get_multi of no keys", &empty, &Vec::new())
}

async fn kv_5_2(cx: &Cx<dyn World>) -> Outcome {
    const MOST: usize = 5_000;
    const AT_ONCE: usize = 32;
    let (a, b) = cx.open_two("p").await?;
    let mut rng = cx.rng();
    // On a quick run only some are there, since each is a write, unless that costs nothing: around the usual limits, and
    // by chance.
    let is_free = cx.caps.durability == Durability::None && !cx.world().is_remote();
    let present: BTreeSet<usize> = if cx.profile == Profile::Quick && !is_free {
        let limits = [
            0, 64, 100, 128, 256, 500, 512, 999, 1_000, 1_024, 2_048, 4_096, MOST,
        ];
        let around = limits
            .into_iter()
            .flat_map(|at| at.saturating_sub(2)..at + 2);
        let chance: Vec<usize> = (0..150).map(|_| rng.random_range(0..MOST)).collect();
        around.chain(chance).filter(|at| *at < MOST).collect()
    } else {
        (0..MOST).filter(|at| at % 7 != 3).collect()
    };
    let name = |at: usize| format!("key {:04}", MOST - at);
    let expected = |at: usize| {
        present
            .contains(&at)
            .then(|| Bytes::from(format!("value {at}")))
    };
    let there: Vec<usize> = present.iter().copied().collect();
    for part in there.chunks(AT_ONCE) {
        let puts = part
            .iter()
            .map(|at| a.put(name(*at), format!("value {at}")));
        join_all(puts).await.into_iter().collect::<Outcome>()?;
    }
    for count in [127, 128, 129, 999, 1_000, 1_001, 1_025, MOST] {
        let keys: Vec<Bytes> = (0..count).map(|at| bytes(name(at))).collect();
        let many = b.get_multi(&keys).await?;
        cx.eq(
            format!("answers of get_multi of {count} keys"),
            &many.len(),
            &count,
        )?;
        for (at, seen) in many.iter().enumerate() {
            let what = format!("get_multi of {count} keys, position {at}");
            cx.eq(what, seen, &expected(at))?;
        }
    }
    // Few, and most of what is there lies between them.
    let last = there.last().copied().unwrap_or_default();
    let apart = [0, last, MOST, last / 2, 0];
    let keys: Vec<Bytes> = apart.iter().map(|at| bytes(name(*at))).collect();
    let many = b.get_multi(&keys).await?;
    let all: Vec<_> = apart.iter().map(|at| expected(*at)).collect();
    cx.eq("get_multi of a few keys far apart", &many, &all)?;
    // As many again, but few different ones and in no order.
    let picks: Vec<usize> = (0..MOST).map(|_| there[rng.random_range(0..9)]).collect();
    let keys: Vec<Bytes> = picks.iter().map(|at| bytes(name(*at))).collect();
    let many = b.get_multi(&keys).await?;
    cx.eq("answers of get_multi with duplicates", &many.len(), &MOST)?;
    for (at, (pick, seen)) in picks.iter().zip(&many).enumerate() {
        let what = format!("get_multi of {MOST} keys with duplicates, position {at}");
        cx.eq(what, seen, &expected(*pick))?;
    }
    Ok(())
}

async fn kv_5_4(cx: &Cx<dyn World>) -> Outcome {
    // More than the usual messages hold, and not more than a small machine does.
    let total = cx.times(20 << 20, 5 << 20);
    let (a, b) = cx.open_two("p").await?;
    let longest = cx.caps.kv_client.value_len_bytes_max.min(2 << 20);
    for len in [longest, 70_000] {
        let values: Vec<Bytes> = (0..total.div_ceil(len).min(60))
            .map(|at| pattern(&format!("{at} of {len}"), len).into())
            .collect();
        let keys: Vec<Bytes> = (0..values.len()).map(|at| bytes(format!("{at}"))).collect();
        for (key, value) in keys.iter().zip(&values) {
            a.put(key, value).await?;
        }
        each_position(cx, &b, &keys, |key| {
            let at = keys.iter().position(|other| other == key)?;
            values.get(at).cloned()
        })
        .await?;
    }
    Ok(())
}

async fn kv_6_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.delete("k1").await?;
    a.delete("k1").await?;
    b.expect("an absent key, deleted", "k1", None).await?;
    let keys: [&[u8]; 14] = [
        b"k1", b"k10", b"k1\0", b"k1\0\0", b"k1/x", b"k1\xff", b"k", b"k0", b"k2", b"K1", b"\0k1",
        b"1", b"k1%", b"k_",
    ];
    for key in keys {
        a.put(key, key).await?;
    }
    // An absent key in their midst, and each of them, with a look at all the others after each.
    for absent in [&b"k11"[..], b"k1\0x", b"j", b"k%"] {
        b.delete(absent).await?;
    }
    for (at, key) in keys.iter().enumerate() {
        b.delete(key).await?;
        for (other, key) in keys.iter().enumerate() {
            let expected = (other > at).then_some(*key);
            a.expect("after a delete", key, expected).await?;
        }
        a.delete(key).await?;
    }
    // Deleted is not for ever, with or without an end.
    a.put("k1", "again").await?;
    b.expect("put after a delete", "k1", Some(b"again")).await?;
    b.delete("k1").await?;
    a.put_with_ttl("k1", "again", 3_600).await?;
    b.expect("put after a delete", "k1", Some(b"again")).await?;
    b.delete("k1").await?;
    a.expect("an entry with an end, deleted", "k1", None).await
}
