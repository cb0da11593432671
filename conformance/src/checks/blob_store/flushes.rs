//! BS-2.7 and BS-3.4 to BS-3.5: frames that are alike, and what flushes make of what comes while they run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_traits::{AlignedBlobBuf, BlobGuid, PAGE_SIZE};
use proptest::prelude::*;

use super::content::frame;
use super::guid;
use crate::blob_store::{Batch, Handle, World};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;

/// Which of so many words comes in the place of which.
type Order = fn(usize, usize) -> usize;

/// The words of a frame, in another order.
fn shuffled(src: &[u8], word: usize, order: Order) -> AlignedBlobBuf {
    let mut out = AlignedBlobBuf::zeroed();
    let count = PAGE_SIZE / word;
    for (at, to) in out.chunks_exact_mut(word).enumerate() {
        let from = order(at, count) * word;
        to.copy_from_slice(&src[from..from + word]);
    }
    out
}

/// Frames that are like `src`, and in words how.
fn likes(src: &AlignedBlobBuf) -> Vec<(String, AlignedBlobBuf)> {
    let mut all = Vec::new();
    for word in [1, 2, 4, 8, 512, 4_096, PAGE_SIZE / 2] {
        let orders: [(&str, Order); 3] = [
            ("backwards", |at, count| count - 1 - at),
            ("each two exchanged", |at, _| at ^ 1),
            ("moved on by one", |at, count| (at + 1) % count),
        ];
        for (how, order) in orders {
            all.push((
                format!("its words of {word} bytes, {how}"),
                shuffled(src, word, order),
            ));
        }
    }
    for at in [
        0,
        511,
        4_096,
        PAGE_SIZE / 2,
        PAGE_SIZE - 4_097,
        PAGE_SIZE - 1,
    ] {
        let mut other = src.clone();
        other[at] ^= 1;
        all.push((format!("another bit in byte {at}"), other));
        let mut other = src.clone();
        let next = (at + 8) % PAGE_SIZE;
        other[at] = other[at].wrapping_add(1);
        other[next] = other[next].wrapping_sub(1);
        all.push((
            format!("one more in byte {at} and one less in byte {next}"),
            other,
        ));
    }
    all
}

fn same(what: &str, reader: &Handle, name: BlobGuid, expected: &AlignedBlobBuf) -> Outcome {
    let mut dst = AlignedBlobBuf::zeroed();
    let read = reader.store().read_blob(name, &mut dst);
    read.map_err(|e| Stop::error(format!("a read, {what}"), &e))?;
    if dst[..] == expected[..] {
        return Ok(());
    }
    let mut bytes = dst.iter().zip(expected.iter());
    let at = bytes.position(|(a, b)| a != b).unwrap_or_default();
    Err(Stop::fail(
        format!("the frame that is read, {what}"),
        format!("another byte at {at}"),
        "the frame that was written last",
    ))
}

pub(super) async fn bs_2_7(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let (name, base) = (guid(1), frame(77));
    let mut is_picked = cx.sample();
    for (n, (how, like)) in likes(&base).into_iter().enumerate() {
        if !is_picked() {
            continue;
        }
        a.write_buf(name, &base)?;
        if n % 3 == 0 {
            a.flush()?;
        }
        if n % 2 == 0 {
            b.write_buf(name, &like)?;
        } else {
            b.write_all(Batch::DataSync, &[(name, &like)])?;
        }
        same(&how, &a, name, &like)?;
        // As another blob too, and back again.
        a.write_buf(guid(2), &base)?;
        same(&how, &b, name, &like)?;
        same(&how, &b, guid(2), &base)?;
        // Each handle writes what it has written last, over what the other one has.
        a.write_buf(name, &base)?;
        same("the first again, by its writer", &b, name, &base)?;
        b.write_buf(name, &like)?;
        same("its like again, by its writer", &a, name, &like)?;
        b.write_buf(name, &base)?;
        same("the first again", &a, name, &base)?;
    }
    Ok(())
}

pub(super) async fn bs_3_4(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let mut rng = cx.rng();
    let rounds = cx.times(24, 6);
    let mut met = 0;
    for round in 0..3 * rounds {
        // A round says little whose flush had ended before there was anything else.
        if round >= rounds && 2 * met >= rounds {
            break;
        }
        let tag = u64::try_from(round).unwrap_or_default() * 10;
        // Something for the flush to do, some of it over what is there.
        for name in 0..3 {
            a.write(guid(name), tag + 1)?;
        }
        let running = a.clone();
        let begun = Arc::<AtomicBool>::default();
        let begins = Arc::clone(&begun);
        let flusher = std::thread::spawn(move || {
            begins.store(true, Ordering::SeqCst);
            running.store().flush()
        });
        while !begun.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(0..900)));
        b.write(guid(10), tag + 2)?;
        b.delete(guid(2))?;
        b.write(guid(1), tag + 3)?;
        met += usize::from(!flusher.is_finished());
        let at_once = round % 2 == 0;
        let early = if at_once { Some(b.flush()) } else { None };
        let flushed = flusher.join();
        let flushed = flushed.map_err(|_panic| Stop::fail("a flush", "a panic", "an end"))?;
        flushed.map_err(|e| Stop::error("flush() beside writes", &e))?;
        match early {
            Some(flushed) => flushed?,
            None => b.flush()?,
        }
        (a, b) = cx.reopen("p", [a, b]).await?;
        let what = "written while a flush ran, and flushed again";
        a.expect(what, guid(10), Some(tag + 2))?;
        a.expect(what, guid(2), None)?;
        b.expect(what, guid(1), Some(tag + 3))?;
        b.expect("written before both", guid(0), Some(tag + 1))?;
    }
    Ok(())
}

pub(super) async fn bs_3_5(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let count = u64::try_from(cx.times(100, 40)).unwrap_or(40);
    let name = |n: u64| guid(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    for n in 0..count {
        a.write(name(n), n)?;
        // Some flushes with little to do, and one with much.
        if n % 40 == 3 {
            a.flush()?;
        }
    }
    a.flush()?;
    let mut left: Vec<u64> = (0..count).collect();
    for round in 0..2 {
        (a, b) = cx.reopen("p", [a, b]).await?;
        let mut listed = a.list()?;
        listed.sort();
        let mut expected: Vec<_> = left.iter().map(|n| name(*n)).collect();
        expected.sort();
        cx.require(
            listed == expected,
            "the list of many blobs, opened again",
            format!("{} blobs", listed.len()),
            format!("the {} that were flushed", expected.len()),
        )?;
        for n in &left {
            b.expect("one of many, opened again", name(*n), Some(*n))?;
        }
        if round == 0 {
            for n in (0..count).step_by(9) {
                b.delete(name(n))?;
            }
            b.flush()?;
            left.retain(|n| n % 9 != 0);
        }
    }
    Ok(())
}
