//! KV-1 and KV-2: what was put comes back, whatever its bytes.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proptest::prelude::*;

use super::{bytes, invalid};
use crate::check::{Check, Engine, Level, Outcome};
use crate::checks::{contents, pattern};
use crate::cx::Cx;
use crate::engine::model;
use crate::kv_client::{Handle, World};
use crate::model::kv_client::Entries;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "KV-1.1",
        "lengths from none to the largest, then the model's answers after each of many operations",
    )
    .kills("empty as absent")
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(kv_1_1(cx))),
    Check::new(
        "KV-1.2",
        "rows about the size of a page, and three hundred values of one key that differ little",
    )
    .kills("a row that just fits, a change that is not seen, a counter that wraps")
    .run(|cx| Box::pin(kv_1_2(cx))),
    Check::new(
        "KV-2.1",
        "keys and values of every byte, prefixes, long ones; the empty key as declared",
    )
    .kills("string keys")
    .level(Level::Declared)
    .run(|cx| Box::pin(kv_2_1(cx))),
];

const LENGTHS: [usize; 13] = [
    0, 1, 9, 4_095, 4_096, 4_097, 65_535, 65_536, 65_537, 1_048_575, 1_048_576, 1_048_577,
    8_388_608,
];

/// One call of the model run. Keys are few, so that calls meet.
#[derive(Clone, Debug)]
enum Op {
    Put {
        key: usize,
        len: usize,
    },
    /// A time to live that is never over here.
    PutForLong {
        key: usize,
        len: usize,
    },
    Delete {
        key: usize,
    },
    /// The same value once more.
    Again {
        key: usize,
    },
    /// Go on with a new handle in place of one of the two.
    Reopen,
}

const KEYS: [&[u8]; 7] = [b"a", b"a\0", b"ab", b"b", b"B", b"\xff", b"\0"];
const SHORT: [usize; 6] = [0, 0, 1, 9, 4_097, 70_000];
const LONG_SECS: u64 = 86_400;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || 0..KEYS.len();
    let len = || prop::sample::select(&SHORT[..]);
    let op = prop_oneof![
        6 => (key(), len()).prop_map(|(key, len)| Op::Put { key, len }),
        2 => (key(), len()).prop_map(|(key, len)| Op::PutForLong { key, len }),
        3 => key().prop_map(|key| Op::Delete { key }),
        1 => key().prop_map(|key| Op::Again { key }),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..model::CASE_LEN_MAX)
}

async fn kv_1_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.expect("a key in an empty place", "k", None).await?;
    let max = cx.caps.kv_client.value_len_bytes_max;
    let most = cx.profile.value_len_bytes_max().min(max);
    let mut lengths: Vec<usize> = LENGTHS.into_iter().filter(|len| *len <= most).collect();
    // Up the ladder with the bound itself on top of it, down again, and to the empty value from both sides.
    lengths.extend([most, 0, 5, 0, most]);
    lengths.extend(LENGTHS.into_iter().filter(|len| *len <= most).rev());
    for (at, len) in lengths.into_iter().enumerate() {
        let (writer, reader) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let value = pattern(&format!("rung {at}"), len);
        writer.put("k", &value).await?;
        reader
            .expect(&format!("a value of {len} bytes"), "k", Some(&value))
            .await?;
    }
    model::run(cx, ops(), |cx, list| Box::pin(side_by_side(cx, list))).await
}

async fn side_by_side(cx: &Cx<dyn World>, list: &[Op]) -> Outcome {
    // No entry of this run ends, so any moment will do.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let (mut a, b) = cx.open_two("p").await?;
    let mut model = Entries::default();
    for (at, op) in list.iter().enumerate() {
        // Writes go through one handle and are looked at through the other, in turn.
        let (writer, reader) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        match *op {
            Op::Put { key, len } => {
                let value = pattern(&format!("{at}"), len);
                writer.put(KEYS[key], &value).await?;
                model.put(KEYS[key], value.into());
            }
            Op::PutForLong { key, len } => {
                let value = pattern(&format!("{at}"), len);
                writer.put_with_ttl(KEYS[key], &value, LONG_SECS).await?;
                let put = model.put_with_ttl(KEYS[key], value.into(), LONG_SECS, now);
                put.expect("a day is a time to live");
            }
            Op::Delete { key } => {
                writer.delete(KEYS[key]).await?;
                model.delete(KEYS[key], now);
            }
            Op::Again { key } => {
                if let Some(value) = model.get(KEYS[key], now).cloned() {
                    writer.put(KEYS[key], &value).await?;
                    model.put(KEYS[key], value);
                }
            }
            Op::Reopen => {
                a = cx.open_as("a", "p").await?;
                continue;
            }
        }
        all_as_modelled(cx, reader, &model, now).await?;
    }
    all_as_modelled(cx, &a, &model, now).await
}

async fn all_as_modelled(
    cx: &Cx<dyn World>,
    reader: &Handle,
    model: &Entries,
    now: SystemTime,
) -> Outcome {
    for key in KEYS {
        let expected = model.get(key, now).cloned();
        let seen = reader.get(key).await?;
        cx.eq(
            format!("get(b\"{}\")", key.escape_ascii()),
            &seen,
            &expected,
        )?;
    }
    let keys: Vec<Bytes> = KEYS.into_iter().map(Bytes::from_static).collect();
    let many = reader.get_multi(&keys).await?;
    cx.eq("get_multi of all keys", &many, &model.get_multi(&keys, now))
}

async fn kv_1_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    for (at, len) in contents::lengths_about_pages(cx).enumerate() {
        // All of them under keys of one length, so that each comes to lie beside rows of its own size.
        let key = format!("row {}", at % 10);
        let value = pattern(&format!("{len}"), len);
        a.put(&key, &value).await?;
        let what = format!("a value of {len} bytes");
        b.expect(&what, &key, Some(&value)).await?;
    }
    let values = contents::successors(cx, cx.caps.kv_client.value_len_bytes_max);
    for (at, value) in values.into_iter().enumerate() {
        let (writer, reader) = if at % 3 == 0 { (&b, &a) } else { (&a, &b) };
        match at % 4 {
            0 => writer.put_with_ttl("k", &value, LONG_SECS).await?,
            _ => writer.put("k", &value).await?,
        }
        let what = format!("the value number {at} of a key");
        reader.expect(&what, "k", Some(&value)).await?;
    }
    Ok(())
}

/// Keys that some stores take for others, or for something else than bytes.
fn odd_keys(len_max: usize) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    let spelled: [&[u8]; 34] = [
        b"k",
        b"k\0",
        b"k\0\0",
        b"k\0x",
        b"\0k",
        b"\0\0",
        b"k\xff",
        b"k\xff\xff",
        b"\xff\xff",
        b"k1",
        b"k10",
        b"K1",
        b"k1/",
        b"k1/x",
        b" k1",
        b"k1 ",
        b"k1\n",
        b"k1\r\n",
        b"01",
        b"1.0",
        b"1e0",
        b"0x1",
        b"NULL",
        b"\xc3\x28",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbfk1",
        // One letter, composed and decomposed.
        b"\xc3\xa9",
        b"e\xcc\x81",
        b"\xff\xfe",
        b"k%",
        b"k_",
        b"'; --",
        b"..",
    ];
    keys.retain(|key| !spelled.contains(&&key[..]));
    keys.extend(spelled.iter().map(|key| key.to_vec()));
    keys.extend(contents::EQUAL_HASHES.map(Vec::from));
    // As long as may be, up to the kibibyte that the usual stores take, and alike in all bytes but one.
    for len in [255, 256, 1_023, 1_024] {
        if len > len_max {
            continue;
        }
        for at in [0, len / 2, len - 1] {
            let mut key = vec![b'l'; len];
            key[at] = b'L';
            keys.push(key);
        }
    }
    keys.retain(|key| key.len() <= len_max);
    keys
}

async fn kv_2_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let keys = odd_keys(cx.caps.kv_client.key_len_bytes_max);
    for (at, key) in keys.iter().enumerate() {
        let writer = if at % 2 == 0 { &a } else { &b };
        writer.put(key, format!("value {at}")).await?;
    }
    for (at, key) in keys.iter().enumerate() {
        let reader = if at % 2 == 0 { &b } else { &a };
        let expected = format!("value {at}");
        reader
            .expect("one of many odd keys", key, Some(expected.as_bytes()))
            .await?;
    }
    // Every third goes, and takes none of its neighbours with it.
    for key in keys.iter().step_by(3) {
        a.delete(key).await?;
    }
    let shown: Vec<Bytes> = keys.iter().map(bytes).collect();
    let many = b.get_multi(&shown).await?;
    let left = |at: usize| (!at.is_multiple_of(3)).then(|| Bytes::from(format!("value {at}")));
    let expected: Vec<_> = (0..keys.len()).map(left).collect();
    cx.eq(
        "get_multi after every third was deleted",
        &many.len(),
        &expected.len(),
    )?;
    for ((key, seen), expected) in keys.iter().zip(&many).zip(&expected) {
        let what = format!("b\"{}\" after other keys were deleted", key.escape_ascii());
        cx.eq(what, seen, expected)?;
    }
    odd_values(cx, &a, &b).await?;
    empty_key(cx, &a, &b).await
}

async fn odd_values(cx: &Cx<dyn World>, a: &Handle, b: &Handle) -> Outcome {
    for (at, value) in contents::odd(cx).into_iter().enumerate() {
        let key = format!("odd {}", at % 2);
        a.put(&key, &value).await?;
        b.expect("an odd value", &key, Some(&value)).await?;
        b.put_with_ttl(&key, &value, LONG_SECS).await?;
        a.expect("an odd value with a time to live", &key, Some(&value))
            .await?;
    }
    Ok(())
}

/// Fails unless `get_multi` answers for the empty key and for others at whatever place of the list they stand.
async fn among_others(cx: &Cx<dyn World>, reader: &Handle, empty: Option<&[u8]>) -> Outcome {
    let there: Option<&[u8]> = Some(b"the empty key");
    let lists: [&[&str]; 6] = [
        &["", "beside"],
        &["beside", ""],
        &["beside", "", "beside"],
        &["absent", "", "", "beside"],
        &["", "absent", "beside", "", "beside"],
        &["", ""],
    ];
    for list in lists {
        let keys: Vec<Bytes> = list.iter().map(bytes).collect();
        let expected = list.iter().map(|key| match *key {
            "" => empty,
            "beside" => there,
            _ => None,
        });
        let expected: Vec<_> = expected.map(|value| value.map(bytes)).collect();
        let what = format!("get_multi of {list:?}");
        cx.eq(what, &reader.get_multi(&keys).await?, &expected)?;
    }
    Ok(())
}

async fn empty_key(cx: &Cx<dyn World>, a: &Handle, b: &Handle) -> Outcome {
    a.put("beside", "the empty key").await?;
    if cx.caps.kv_client.empty_key {
        b.expect("the empty key, never put", "", None).await?;
        among_others(cx, b, None).await?;
        a.put("", "at the empty key").await?;
        b.expect("the empty key", "", Some(b"at the empty key"))
            .await?;
        among_others(cx, b, Some(b"at the empty key")).await?;
        b.put_with_ttl("", "again", LONG_SECS).await?;
        a.expect("the empty key", "", Some(b"again")).await?;
        among_others(cx, a, Some(b"again")).await?;
        a.put("", "").await?;
        among_others(cx, b, Some(b"")).await?;
        a.delete("").await?;
        b.expect("the empty key, deleted", "", None).await?;
        among_others(cx, a, None).await?;
    } else {
        invalid("put of the empty key", a.try_put(b"", b"v").await)?;
        let result = a.try_put_with_ttl(b"", b"v", LONG_SECS).await;
        invalid("put_with_ttl of the empty key", result)?;
        invalid("get of the empty key", b.try_get(b"").await)?;
        let keys = [bytes("beside"), Bytes::new()];
        invalid("get_multi with the empty key", b.try_get_multi(&keys).await)?;
        invalid("delete of the empty key", a.try_delete(b"").await)?;
    }
    b.expect(
        "a key beside the empty one",
        "beside",
        Some(b"the empty key"),
    )
    .await
}
