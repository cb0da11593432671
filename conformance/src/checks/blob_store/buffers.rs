//! BS-10: the buffers that a store hands out.

use std::time::Duration;

use futures_util::future::join_all;
use larder_traits::{AlignedBlobBuf, FRAME_ALIGN, PAGE_SIZE};

use super::content::{Content, fill, own_frame};
use super::guid;
use crate::blob_store::{Handle, World};
use crate::check::{Check, Outcome, Stop};
use crate::cx::Cx;
use crate::profile::Profile;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BS-10.1",
        "zeroed buffers are zeroed after any use of their memory; all are aligned, whole and apart",
    )
    .kills("dirty pool")
    .run(|cx| Box::pin(bs_10_1(cx))),
    Check::new(
        "BS-10.2",
        "1,100 buffers alive, 5,000 beyond quick, freed on other threads and after the store",
    )
    .kills("blocked pool")
    .run(|cx| Box::pin(bs_10_2(cx))),
];

fn shape(cx: &Cx<dyn World>, what: &str, buf: &AlignedBlobBuf) -> Outcome {
    cx.eq(format!("length of {what}"), &buf.len(), &PAGE_SIZE)?;
    let over = buf.as_ptr().addr() % FRAME_ALIGN;
    let observed = format!("{over} bytes above a multiple of {FRAME_ALIGN}");
    cx.require(
        over == 0,
        format!("address of {what}"),
        observed,
        "a multiple",
    )
}

async fn bs_10_1(cx: &Cx<dyn World>) -> Outcome {
    const LIVE: u64 = 24;
    let a = cx.open("p").await?;
    for round in 0..6_u64 {
        let mut live: Vec<(u64, AlignedBlobBuf)> = Vec::new();
        for tag in 0..LIVE {
            let mut buf = if (tag + round) % 2 == 0 {
                let buf = a.store().alloc_blob_buf_zeroed();
                let seen = Content::of(&buf);
                cx.eq("a zeroed buffer", &seen, &Content::Filled(0))?;
                buf
            } else {
                a.store().alloc_blob_buf_uninit()
            };
            shape(cx, "a buffer", &buf)?;
            fill(&mut buf, tag);
            live.push((tag, buf));
        }
        // Used as source, as target and as the origin of a clone, and each with memory of its own.
        for (tag, buf) in &live {
            a.write_buf(guid(u128::from(tag % 4)), buf)?;
        }
        let copy = live[0].1.clone();
        shape(cx, "a clone", &copy)?;
        cx.eq("a clone", &Content::of(&copy), &Content::Frame(0))?;
        a.try_read_into(guid(1), &mut live[2].1)
            .map_err(|e| Stop::error("read_blob", &e))?;
        live[2].0 = LIVE - 3;
        for (tag, buf) in &live {
            let what = "a buffer beside others that were filled";
            cx.eq(what, &Content::of(buf), &Content::Frame(*tag))?;
        }
        // They go back in another order than they came, some of them before the rest.
        if round % 2 == 0 {
            live.reverse();
        }
        drop(live);
        drop(copy);
    }
    let all: Vec<_> = (0..LIVE)
        .map(|_| a.store().alloc_blob_buf_zeroed())
        .collect();
    for buf in &all {
        cx.eq("a zeroed buffer", &Content::of(buf), &Content::Filled(0))?;
    }
    a.expect(
        "a blob whose source was used again",
        guid(3),
        Some(LIVE - 1),
    )
}

/// How long it may take to take some thousand buffers, on a machine under load.
const BOUND: Duration = Duration::from_secs(20);
const OWN: u64 = 64;

async fn bs_10_2(cx: &Cx<dyn World>) -> Outcome {
    let count = if cx.profile == Profile::Quick {
        1_100
    } else {
        5_000
    };
    let a = cx.open("p").await?;
    a.write(guid(1), 1)?;
    let taker = a.clone();
    let taken = tokio::task::spawn_blocking(move || take(&taker, count));
    let what = format!("taking {count} buffers that all stay alive");
    let taken = cx.within(BOUND, &what, taken).await?;
    let mut live = taken.map_err(|e| Stop::fail(&what, e.to_string(), "no panic"))??;

    // Half of them go on other threads while more are taken and the store is used.
    let freed = live.split_off(live.len() / 2);
    let mut free = spread(freed);
    let taker = a.clone();
    free.push(tokio::task::spawn_blocking(move || drop(take(&taker, 100))));
    a.write_buf(guid(2), &own_frame(&**a.store(), 2))?;
    a.expect("while thousands of buffers are alive", guid(1), Some(1))?;
    ended(cx, "freeing buffers on other threads", free).await?;
    a.expect("after thousands of buffers were freed", guid(2), Some(2))?;

    // The rest outlive the store.
    let clean = own_frame(&**a.store(), 3);
    drop(a);
    for (at, buf) in (0_u64..).zip(&mut live) {
        let mark = u64::from_le_bytes(buf[..8].try_into().expect("eight bytes of a frame"));
        cx.eq("a buffer that outlived its store", &mark, &at)?;
        buf[PAGE_SIZE - 1] = 1;
    }
    cx.eq(
        "a buffer that outlived its store",
        &Content::of(&clean),
        &Content::Frame(3),
    )?;
    let copy = clean.clone();
    cx.eq("a clone of one", &Content::of(&copy), &Content::Frame(3))?;
    drop((clean, copy));
    ended(cx, "freeing buffers after the store", spread(live)).await
}

/// Takes so many buffers, and writes its number into each. They may all be memory that is in use, half a mebibyte
/// each, which is why a quick run takes no more than it does.
fn take(a: &Handle, count: u64) -> Result<Vec<AlignedBlobBuf>, Stop> {
    let mut live = Vec::new();
    for at in 0..count {
        let mut buf = if at < OWN {
            a.store().alloc_blob_buf_uninit()
        } else {
            a.store().alloc_blob_buf_zeroed()
        };
        if at >= OWN && (buf[0] != 0 || buf[PAGE_SIZE - 1] != 0) {
            return Err(Stop::fail(
                format!("zeroed buffer {at} of {count} alive"),
                format!("{} … {}", buf[0], buf[PAGE_SIZE - 1]),
                "zeros",
            ));
        }
        buf[..8].copy_from_slice(&at.to_le_bytes());
        live.push(buf);
    }
    Ok(live)
}

type Task = tokio::task::JoinHandle<()>;

/// Frees buffers on four threads.
fn spread(mut bufs: Vec<AlignedBlobBuf>) -> Vec<Task> {
    let part = bufs.len().div_ceil(4).max(1);
    let mut tasks = Vec::new();
    while !bufs.is_empty() {
        let part = bufs.split_off(bufs.len().saturating_sub(part));
        tasks.push(tokio::task::spawn_blocking(move || drop(part)));
    }
    tasks
}

async fn ended(cx: &Cx<dyn World>, what: &str, tasks: Vec<Task>) -> Outcome {
    for task in cx.within(BOUND, what, join_all(tasks)).await? {
        task.map_err(|e| Stop::fail(what, e.to_string(), "no panic"))?;
    }
    Ok(())
}
