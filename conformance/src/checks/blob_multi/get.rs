//! BM-1: what a read answers.

use std::ops::Range;

use bytes::Bytes;
use larder_traits::blob_multi::slice_of;
use proptest::prelude::*;

use super::{get_is, read_is, value_len_max};
use crate::blob_multi::{Handle, World, name};
use crate::check::{Check, Outcome, Stop};
use crate::checks::{contents, pattern};
use crate::cx::{Cx, show};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BM-1.1",
        "fresh, deleted and prefix names are absent, an empty value is not",
    )
    .kills("absent and empty mixed up")
    .run(|cx| Box::pin(bm_1_1(cx))),
    Check::new("BM-1.2", "every byte comes back, in every place of a value")
        .kills("text mode, C strings")
        .run(|cx| Box::pin(bm_1_2(cx))),
    Check::new(
        "BM-1.3",
        "lengths around every usual boundary, through both handles and a later one",
    )
    .kills("cut at a buffer or a part")
    .run(|cx| Box::pin(bm_1_3(cx))),
    Check::new(
        "BM-1.4",
        "ranges and reads without a copy are slices of the value, past its end too",
    )
    .kills("off by one, a range of what is kept in place of the value")
    .run(|cx| Box::pin(bm_1_4(cx))),
];

/// Fails unless every way to read `key` says that it is absent.
async fn absent(handle: &Handle, why: &str, key: &str) -> Outcome {
    let gone = |call: &str, value: Option<&[u8]>| match value {
        None => Ok(()),
        Some(value) => Err(Stop::fail(
            format!("{call}({}), {why}", name(key)),
            format!("Some({})", show(value)),
            "None",
        )),
    };
    gone("get", handle.get(key).await?.as_deref())?;
    gone("get_bytes", handle.get_bytes(key).await?.as_deref())?;
    gone("get_range", handle.get_range(key, 0..1).await?.as_deref())?;
    gone("get_range", handle.get_range(key, 0..0).await?.as_deref())
}

async fn bm_1_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    absent(&a, "in an empty place", "k1").await?;
    a.set("k1/x", "below").await?;
    a.set("k10", "behind").await?;
    for key in ["k1", "k1/", "k", "k1/x/", "k1/x/y", "k100", "K10"] {
        absent(&b, "which was never set", key).await?;
    }
    a.set("k1", "").await?;
    for handle in [&a, &b, &cx.open_as("c", "p").await?] {
        get_is(handle, "k1", Some(b"")).await?;
        let value = handle.get_bytes("k1").await?;
        read_is("get_bytes", "k1", value, Some(b""))?;
        let value = handle.get_range("k1", 0..9).await?;
        read_is("get_range 0..9 of", "k1", value, Some(b""))?;
        get_is(handle, "k10", Some(b"behind")).await?;
    }
    b.delete("k1").await?;
    absent(&a, "which was deleted", "k1").await?;
    absent(&b, "which was deleted", "k1").await?;
    absent(&cx.open_as("c", "p").await?, "which was deleted", "k1").await?;
    // A value may become empty, and an empty one may go and come again.
    a.set("k10", "").await?;
    get_is(&b, "k10", Some(b"")).await?;
    b.delete("k10").await?;
    absent(&a, "which was empty, then deleted", "k10").await?;
    b.set("k10", "").await?;
    get_is(&a, "k10", Some(b"")).await
}

async fn bm_1_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut random = vec![0; 5_000];
    cx.rng().fill_bytes(&mut random);
    let mut values = contents::odd(cx);
    values.push(random);
    for (at, value) in values.iter().enumerate() {
        a.set(&format!("v{at}"), value.to_vec()).await?;
    }
    for byte in 0..=u8::MAX {
        a.set(&format!("b{byte}"), vec![byte]).await?;
    }
    for (at, value) in values.iter().enumerate() {
        get_is(&b, &format!("v{at}"), Some(value)).await?;
        let key = format!("v{at}");
        read_is("get_bytes", &key, b.get_bytes(&key).await?, Some(value))?;
    }
    for byte in 0..=u8::MAX {
        get_is(&b, &format!("b{byte}"), Some(&[byte])).await?;
    }
    Ok(())
}

async fn bm_1_3(cx: &Cx<dyn World>) -> Outcome {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    let (a, b) = cx.open_two("p").await?;
    let mut lengths = vec![0, 1, 2];
    for boundary in [
        512,
        4 * KIB,
        8 * KIB,
        16 * KIB,
        64 * KIB,
        MIB,
        5 * MIB,
        8 * MIB,
    ] {
        lengths.extend([boundary - 1, boundary, boundary + 1]);
    }
    // Three parts of an upload in parts, for the two sizes of part that are common.
    lengths.extend([15 * MIB + 1, 24 * MIB + 1]);
    lengths.push(value_len_max(cx));
    lengths.extend(contents::lengths_about_pages(cx));
    lengths.retain(|&len| len <= value_len_max(cx));
    lengths.sort_unstable();
    lengths.dedup();
    for (at, &len) in lengths.iter().enumerate() {
        let (writer, reader) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let key = format!("k{len}");
        let value = pattern(&key, len);
        writer.set(&key, value.clone()).await?;
        get_is(reader, &key, Some(&value)).await?;
        get_is(writer, &key, Some(&value)).await?;
    }
    // Nothing that was written after a value changed it.
    let late = cx.open_as("c", "p").await?;
    for len in lengths {
        let key = format!("k{len}");
        let value = pattern(&key, len);
        let read = late.get_bytes(&key).await?;
        read_is("get_bytes", &key, read, Some(&value))?;
    }
    Ok(())
}

async fn bm_1_4(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut rng = cx.rng();
    for (at, len) in [0_u64, 1, 10, 4_096, 70_001].into_iter().enumerate() {
        let key = format!("k{len}");
        let value = pattern(&key, usize::try_from(len).unwrap_or(0));
        let value = Bytes::from(value);
        let (writer, reader) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        writer.set(&key, value.clone()).await?;
        let read = reader.get_bytes(&key).await?;
        read_is("get_bytes", &key, read, Some(&value))?;
        let mut ranges = ranges_around(len);
        for _ in 0..20 {
            let start = rng.next_u64() % (len + 3);
            let end = start + rng.next_u64() % (len + 3);
            ranges.push(start..end);
        }
        for range in ranges {
            let expected = slice_of(&value, range.clone());
            let read = reader.get_range(&key, range.clone()).await?;
            let call = format!("get_range {range:?} of");
            read_is(&call, &key, read, Some(&expected))?;
        }
    }
    even_ranges(&mut rng, [&a, &b]).await?;
    for len in [300_001, (2 << 20) + 1] {
        if len <= value_len_max(cx) {
            long_ranges(&mut rng, [&a, &b], len).await?;
        }
    }
    // A range of what was replaced by something shorter, and of what is gone.
    b.set("k70001", "short").await?;
    let read = a.get_range("k70001", 3..70_001).await?;
    read_is("get_range 3..70001 of", "k70001", read, Some(b"rt"))?;
    let read = a.get_range("k70001", 5..70_001).await?;
    read_is("get_range 5..70001 of", "k70001", read, Some(b""))?;
    b.delete("k70001").await?;
    for range in ranges_around(5) {
        let read = a.get_range("k70001", range.clone()).await?;
        let call = format!("get_range {range:?} of");
        read_is(&call, "k70001", read, None)?;
    }
    Ok(())
}

/// Ranges that go over many of the blocks that a store may fetch or keep a value in: from within one to within another, and
/// from end to end.
async fn long_ranges(rng: &mut impl Rng, [a, b]: [&Handle; 2], len: usize) -> Outcome {
    const BLOCK: u64 = 64 << 10;
    let key = format!("k{len}");
    let value = Bytes::from(pattern(&key, len));
    a.set(&key, value.clone()).await?;
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    let mut ranges = vec![
        0..len,
        1..len - 1,
        BLOCK - 1..3 * BLOCK + 1,
        BLOCK..4 * BLOCK,
        len - BLOCK..len + BLOCK,
    ];
    for _ in 0..7 {
        let start = rng.next_u64() % len;
        ranges.push(start..start + rng.next_u64() % (len - start + 2));
    }
    for range in ranges {
        let expected = slice_of(&value, range.clone());
        let read = b.get_range(&key, range.clone()).await?;
        let call = format!("get_range {range:?} of");
        read_is(&call, &key, read, Some(&expected))?;
    }
    Ok(())
}

/// Ranges of values that a store may keep in fewer bytes than they have: a range counts the bytes of the value.
async fn even_ranges(rng: &mut impl Rng, [a, b]: [&Handle; 2]) -> Outcome {
    let words = b"again and again ".iter().copied().cycle();
    let values: [Vec<u8>; 4] = [
        vec![b'x'; 8_192],
        vec![0; 70_001],
        words.take(9_000).collect(),
        (0..=u8::MAX).flat_map(|byte| [byte; 20]).collect(),
    ];
    for (at, value) in values.into_iter().enumerate() {
        let (writer, reader) = if at % 2 == 0 { (a, b) } else { (b, a) };
        let key = format!("even{at}");
        let value = Bytes::from(value);
        writer.set(&key, value.clone()).await?;
        let len = u64::try_from(value.len()).unwrap_or(u64::MAX);
        let mut ranges = vec![
            0..10,
            100..4_000,
            len / 2..len / 2 + 30,
            len - 10..len + 5,
            1..len - 1,
        ];
        for _ in 0..3 {
            let start = rng.next_u64() % len;
            ranges.push(start..start + rng.next_u64() % (len - start + 2));
        }
        for range in ranges {
            let expected = slice_of(&value, range.clone());
            let read = reader.get_range(&key, range.clone()).await?;
            let call = format!("get_range {range:?} of");
            read_is(&call, &key, read, Some(&expected))?;
        }
    }
    Ok(())
}

/// The ranges that are easy to get wrong for a value of that length; some end before they start.
fn ranges_around(len: u64) -> Vec<Range<u64>> {
    let mut points = vec![
        0,
        1,
        len / 2,
        len.saturating_sub(1),
        len,
        len + 1,
        1 << 32,
        (1 << 32) + 1,
        (1 << 32) + len,
        u64::MAX - 1,
        u64::MAX,
    ];
    points.sort_unstable();
    points.dedup();
    let starts = points.iter();
    starts
        .flat_map(|&start| points.iter().map(move |&end| start..end))
        .collect()
}
