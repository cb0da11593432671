//! KV-3 and KV-4: entries that end, and what an overwrite does to the end.

use std::time::Duration;

use bytes::Bytes;
use larder_traits::{Clock, TestClock};
use proptest::prelude::*;

use super::{ends, invalid, lives};
use crate::check::{Check, Engine, Level, Outcome, Stop};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::engine::model;
use crate::kv_client::{Handle, World, show_value};
use crate::model::kv_client::{Entries, Life};
use crate::profile::Profile;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "KV-3.1",
        "an entry is alive before its time is over, also where nobody asked for long",
    )
    .kills("early death")
    .engines(&[Engine::Time])
    .run(|cx| Box::pin(ends::kv_3_1(cx))),
    Check::new(
        "KV-3.2",
        "an entry is gone for good, everywhere, once time and granularity are over",
    )
    .kills("expired shown")
    .level(Level::Declared)
    .engines(&[Engine::Time])
    .run(|cx| Box::pin(ends::kv_3_2(cx))),
    Check::new(
        "KV-3.3",
        "a time to live of 0 is refused and leaves the old value, long ones overflow nowhere",
    )
    .kills("overflow")
    .run(|cx| Box::pin(kv_3_3(cx))),
    Check::new("KV-3.4", "an entry that is read all the time ends in time")
        .kills("sliding ttl")
        .engines(&[Engine::Time])
        .run(|cx| Box::pin(ends::kv_3_4(cx))),
    Check::new(
        "KV-3.5",
        "on a test clock, the answers are the model's through random times to live and moves ahead",
    )
    .kills("early death, expired shown, sliding ttl, expired shown by one method or handle only")
    .level(Level::Declared)
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(kv_3_5(cx))),
    Check::new(
        "KV-3.6",
        "a put that failed on its way leaves no value without its end, and none with the end of another",
    )
    .kills("a value and its end written apart")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(lives::kv_3_6(cx))),
    Check::new(
        "KV-4.1",
        "a value put over an entry with an end outlives that end, or ends at its own",
    )
    .kills("old timer fires")
    .engines(&[Engine::Time])
    .run(|cx| Box::pin(ends::kv_4_1(cx))),
    Check::new(
        "KV-4.2",
        "ten thousand overwrites, with times to live, leave what the last of them wrote",
    )
    .kills("leak")
    .run(|cx| Box::pin(kv_4_2(cx))),
    Check::new(
        "KV-4.3",
        "on a test clock, an overwrite of each kind outlives the old end, or ends at its own",
    )
    .kills("old timer fires, ttl kept by a plain put, one without an end that stays")
    .run(|cx| Box::pin(kv_4_3(cx))),
    Check::new(
        "KV-4.4",
        "a value put over what a failed or dropped put left outlives the end of that one",
    )
    .kills("the timer of a put that nobody waits for any more")
    .engines(&[Engine::Cancel, Engine::Fault])
    .run(|cx| Box::pin(lives::kv_4_4(cx))),
];

const YEAR_SECS: u64 = 365 * 86_400;

/// Times to live that some number somewhere cannot hold, or that some store takes for a date.
const LONG: [(u64, Must); 15] = [
    (30 * 86_400 + 1, Must::Live),
    (31 * 86_400, Must::Live),
    (YEAR_SECS + 86_400, Must::Live),
    (10 * YEAR_SECS, Must::Live),
    (1_000_000_000, Must::Live),
    ((1 << 31) - 1, Must::Live),
    (1 << 31, Must::LiveOrRefuse),
    ((1 << 32) - 1, Must::LiveOrRefuse),
    ((1 << 32) + 1, Must::LiveOrRefuse),
    (u64::MAX / 1_000_000_000 + 2, Must::LiveOrRefuse),
    ((1 << 63) / 1_000 + 2, Must::LiveOrRefuse),
    (u64::MAX / 1_000 + 2, Must::LiveOrRefuse),
    ((1 << 63) - 1, Must::LiveOrRefuse),
    ((1 << 63) + 1, Must::LiveOrRefuse),
    (u64::MAX, Must::LiveOrRefuse),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Must {
    Live,
    /// It may also be refused, as beyond what the medium can express.
    LiveOrRefuse,
}

async fn kv_3_3(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let zero = a.try_put_with_ttl(b"absent", b"v", 0).await;
    invalid("put_with_ttl for 0 s of an absent key", zero)?;
    b.expect("a key that was only refused", "absent", None)
        .await?;
    a.put("plain", "old").await?;
    a.put_with_ttl("ending", "old", 3_600).await?;
    for key in ["plain", "ending"] {
        for value in [&b"new"[..], b"", b"old"] {
            let zero = a.try_put_with_ttl(key.as_bytes(), value, 0).await;
            invalid("put_with_ttl for 0 s", zero)?;
            b.expect("after a refused overwrite", key, Some(b"old"))
                .await?;
        }
    }
    let mut kept = Vec::new();
    for (ttl, must) in LONG {
        // Over nothing, and over an entry that is there.
        for key in [format!("fresh {ttl}"), "plain".into()] {
            let value = format!("for {ttl} s");
            let result = a
                .try_put_with_ttl(key.as_bytes(), value.as_bytes(), ttl)
                .await;
            if must == Must::LiveOrRefuse && result.is_err() {
                invalid(&format!("put_with_ttl for {ttl} s"), result)?;
                let old: Option<&[u8]> = (key == "plain").then_some(b"old");
                b.expect("after a refused put_with_ttl", &key, old).await?;
                continue;
            }
            result.map_err(|e| Stop::error(format!("put_with_ttl for {ttl} s"), &e))?;
            let what = format!("right after put_with_ttl for {ttl} s");
            b.expect(&what, &key, Some(value.as_bytes())).await?;
            if key == "plain" {
                a.put("plain", "old").await?;
            } else if ttl > YEAR_SECS {
                kept.push((key, value));
            }
        }
    }
    // Where time can be moved: a number that was cut short may also end early instead of at once.
    let Ok(clock) = cx.clock() else { return Ok(()) };
    advance(cx, &clock, Duration::from_secs(YEAR_SECS));
    for (key, value) in kept {
        b.expect("a year later", key, Some(value.as_bytes()))
            .await?;
    }
    b.expect("an hour's entry, a year later", "ending", None)
        .await
}

fn advance(cx: &Cx<dyn World>, clock: &TestClock, by: Duration) {
    cx.log().push(format!("clock + {by:?}"));
    clock.advance(by);
}

#[derive(Clone, Debug)]
enum Op {
    Put { key: usize, len: usize },
    PutWithTtl { key: usize, len: usize, secs: u64 },
    Delete { key: usize },
    Advance { secs: u64, millis: u64 },
    Reopen,
}

const KEYS: [&[u8]; 4] = [b"k", b"k1", b"k\0", b"x"];
const SECS: [u64; 6] = [1, 2, 3, 10, 60, 3_600];

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || 0..KEYS.len();
    let len = || prop::sample::select(&[0, 1, 9, 300, 4_097, 70_000][..]);
    let secs = || prop::sample::select(&SECS[..]);
    let pause = prop::sample::select(&[0, 1, 500, 999][..]);
    let op = prop_oneof![
        2 => (key(), len()).prop_map(|(key, len)| Op::Put { key, len }),
        6 => (key(), len(), secs()).prop_map(|(key, len, secs)| Op::PutWithTtl { key, len, secs }),
        1 => key().prop_map(|key| Op::Delete { key }),
        5 => (prop_oneof![Just(0), secs()], pause)
            .prop_map(|(secs, millis)| Op::Advance { secs, millis }),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..model::CASE_LEN_MAX)
}

async fn kv_3_5(cx: &Cx<dyn World>) -> Outcome {
    cx.clock()?;
    model::run(cx, ops(), |cx, list| Box::pin(side_by_side(cx, list))).await
}

async fn side_by_side(cx: &Cx<dyn World>, list: &[Op]) -> Outcome {
    let clock = cx.clock()?;
    let (mut a, b) = cx.open_two("p").await?;
    let mut model = Entries::default();
    for (at, op) in list.iter().enumerate() {
        let (writer, reader) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        match *op {
            Op::Put { key, len } => {
                let value = pattern(&format!("{at}"), len);
                writer.put(KEYS[key], &value).await?;
                model.put(KEYS[key], value.into());
            }
            Op::PutWithTtl { key, len, secs } => {
                let value = pattern(&format!("{at}"), len);
                writer.put_with_ttl(KEYS[key], &value, secs).await?;
                let put = model.put_with_ttl(KEYS[key], value.into(), secs, clock.now());
                put.expect("the times to live of this run are above 0");
            }
            Op::Delete { key } => {
                writer.delete(KEYS[key]).await?;
                model.delete(KEYS[key], clock.now());
            }
            Op::Advance { secs, millis } => {
                let by = Duration::from_secs(secs) + Duration::from_millis(millis);
                advance(cx, &clock, by);
            }
            Op::Reopen => {
                // Only one of two: what a restart of all does to an end is declared, and looked at elsewhere.
                a = cx.open_as("a", "p").await?;
                continue;
            }
        }
        lives(cx, reader, &model, &clock).await?;
    }
    lives(cx, &a, &model, &clock).await
}

/// Fails unless both reads show what may show at this moment. Within the granularity nothing is judged.
async fn lives(cx: &Cx<dyn World>, reader: &Handle, model: &Entries, clock: &TestClock) -> Outcome {
    let granularity = cx.caps.kv_client.ttl_granularity;
    let keys: Vec<Bytes> = KEYS.into_iter().map(Bytes::from_static).collect();
    let many = reader.get_multi(&keys).await?;
    cx.eq("answers of get_multi", &many.len(), &keys.len())?;
    for (key, many) in KEYS.into_iter().zip(&many) {
        let single = reader.get(key).await?;
        let expected = match model.life(key, clock.now(), granularity) {
            Life::Alive(value) => Some(value),
            Life::Gone => None,
            Life::Ending(_) => continue,
        };
        for (method, seen) in [("get", single.as_ref()), ("get_multi", many.as_ref())] {
            cx.require(
                seen == expected,
                format!("{method} of b\"{}\" at this time", key.escape_ascii()),
                show_value(seen),
                show_value(expected),
            )?;
        }
    }
    Ok(())
}

async fn kv_4_2(cx: &Cx<dyn World>) -> Outcome {
    const KEYS: usize = 5;
    let overwrites = match (cx.profile, cx.world().is_remote()) {
        (_, true) => 200,
        (Profile::Quick, false) => 2_000,
        (_, false) => 10_000,
    };
    let (a, b) = cx.open_two("p").await?;
    let none = cx.rows("p").await?;
    for at in 0..overwrites {
        let (handle, key) = (if at % 3 == 0 { &b } else { &a }, format!("k{}", at % KEYS));
        let ttl_secs = u64::try_from(at % 7).unwrap_or_default() * 1_000;
        match ttl_secs {
            0 => handle.put(&key, "plain").await?,
            _ => handle.put_with_ttl(&key, "ends", ttl_secs).await?,
        }
    }
    let left = cx.rows("p").await?.saturating_sub(none);
    // A store may keep some of them for a while, and no more of them the more there are.
    let (least, most) = (5, u64::try_from(KEYS + overwrites / 10).unwrap_or(u64::MAX));
    cx.require(
        (least..=most).contains(&left),
        format!("the rows that {overwrites} overwrites of {KEYS} keys left"),
        left.to_string(),
        format!("from {least} to {most}"),
    )
}

async fn kv_4_3(cx: &Cx<dyn World>) -> Outcome {
    const OLD: u64 = 100;
    let clock = cx.clock()?;
    let over = cx.caps.kv_client.ttl_granularity + Duration::from_secs(1);
    let (a, b) = cx.open_two("p").await?;
    let all = [
        "untouched",
        "put",
        "same",
        "longer",
        "shorter",
        "deleted",
        "gone",
        "twice",
    ];
    for key in all {
        a.put_with_ttl(key, "v", OLD).await?;
    }
    a.put("plain first", "v").await?;
    b.put("put", "new").await?;
    b.put("same", "v").await?;
    b.put_with_ttl("longer", "new", 10 * OLD).await?;
    b.put_with_ttl("shorter", "new", OLD / 2).await?;
    b.delete("deleted").await?;
    b.put("deleted", "new").await?;
    b.delete("gone").await?;
    b.put_with_ttl("twice", "new", OLD / 2).await?;
    a.put("twice", "newer").await?;
    b.put_with_ttl("plain first", "new", OLD / 2).await?;
    let endless = over_endless(&a, &b, OLD).await?;

    // Up to a second before the shorter ends, everything is there.
    advance(cx, &clock, Duration::from_secs(OLD / 2 - 1));
    for key in ["shorter", "plain first", "longer", "put"] {
        a.expect("before any end", key, Some(b"new")).await?;
    }
    advance(cx, &clock, over);
    for key in ["shorter", "plain first"] {
        a.expect("after its own, shorter end", key, None).await?;
    }
    for (key, value) in &endless {
        let value = value.as_ref().map(String::as_bytes);
        a.expect("after the shorter end", key, value).await?;
    }
    a.expect("a put over a shorter end", "twice", Some(b"newer"))
        .await?;

    advance(cx, &clock, Duration::from_secs(OLD / 2) + over);
    let expected: [(&str, Option<&[u8]>); 6] = [
        ("untouched", None),
        ("put", Some(b"new")),
        ("same", Some(b"v")),
        ("longer", Some(b"new")),
        ("deleted", Some(b"new")),
        ("gone", None),
    ];
    // Twice: what an old timer removes it may remove on the first look.
    for reader in [&a, &b, &a] {
        for (key, value) in expected {
            reader.expect("past the old end", key, value).await?;
        }
        reader
            .expect("past the old end", "twice", Some(b"newer"))
            .await?;
        for (key, value) in &endless {
            let value = value.as_ref().map(String::as_bytes);
            reader.expect("past the old end", key, value).await?;
        }
    }
    advance(cx, &clock, Duration::from_secs(10 * OLD) + over);
    b.expect("past the longer end", "longer", None).await?;
    b.expect("past every end", "put", Some(b"new")).await?;
    b.expect("past every end", "deleted", Some(b"new")).await
}

/// Puts for a time that never ends, or hardly ever, with others after and before them; the keys, and what they show once
/// `old` seconds are over, and half of them. A store may refuse the longest times.
async fn over_endless(
    a: &Handle,
    b: &Handle,
    old: u64,
) -> Result<Vec<(String, Option<String>)>, Stop> {
    let mut expected = Vec::new();
    for (ttl, must) in LONG.into_iter().rev().step_by(2) {
        let key = |word: &str| format!("{word} {ttl}");
        let value = format!("for {ttl} s");
        for word in ["shorter after", "plain after", "again", "longer after"] {
            let key = key(word);
            if word == "longer after" {
                a.put_with_ttl(&key, "old", old / 2).await?;
            }
            let put = a.try_put_with_ttl(key.as_bytes(), value.as_bytes(), ttl);
            let put = put.await;
            if must == Must::LiveOrRefuse && put.is_err() {
                invalid(&format!("put_with_ttl for {ttl} s"), put)?;
                // What is not there cannot be overwritten.
                continue;
            }
            put.map_err(|e| Stop::error(format!("put_with_ttl for {ttl} s"), &e))?;
            let shows = match word {
                "shorter after" => {
                    b.put_with_ttl(&key, "new", old / 2).await?;
                    None
                }
                "plain after" => {
                    b.put(&key, "new").await?;
                    Some("new".to_owned())
                }
                "again" => {
                    b.delete(&key).await?;
                    a.put_with_ttl(&key, "new", old / 2).await?;
                    None
                }
                _ => Some(value.clone()),
            };
            expected.push((key, shows));
        }
    }
    Ok(expected)
}
