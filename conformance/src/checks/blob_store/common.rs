//! C: what is common to all contracts, asked of `BlobStore`.

use std::time::Duration;

use futures_util::future::{join_all, try_join};
use larder_traits::{AlignedBlobBuf, BlobGuid, Caps, Classify, ErrorKind, Outcome as Effect};
use proptest::prelude::*;

use super::content::{Content, filled, frame, own_frame};
use super::{failing, guid, reads, threads, work};
use crate::blob_store::{Batch, World};
use crate::check::{Check, Engine, Gate, Level, Outcome, Stop, describe};
use crate::checks::{busy_neighbours, exchange, failing_neighbours, many_handles};
use crate::cx::Cx;
use crate::engine::damage;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "C-1.1",
        "every provoked error has a kind and an outcome, and NotApplied stays without effect",
    )
    .kills("false NotApplied")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(failing::c_1_1(cx))),
    Check::new(
        "C-1.2",
        "one native error before and after the commit point has two outcomes",
    )
    .kills("outcome from native error")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(failing::c_1_2(cx))),
    Check::new(
        "C-1.3",
        "no error is told apart by its text or converted without an outcome",
    )
    .level(Level::Untestable(
        "a source rule, held by the repository's own tidy check",
    )),
    failing_neighbours().run(|cx| Box::pin(threads::c_1_4(cx))),
    Check::new(
        "C-2.1",
        "eight handles opened at once each see what all of them wrote",
    )
    .kills("truncating open, private cache")
    .gate(shared)
    .run(|cx| Box::pin(c_2_1(cx))),
    Check::new(
        "C-2.2",
        "a handle that is dropped takes nothing with it from the others",
    )
    .kills("close destroys shared state")
    .gate(shared)
    .run(|cx| Box::pin(c_2_2(cx))),
    many_handles("C-2.3").gate(shared).run(|cx| Box::pin(c_2_3(cx))),
    busy_neighbours("C-2.4").gate(shared).run(|cx| Box::pin(c_2_4(cx))),
    Check::new(
        "C-3.1",
        "random calls with extreme names and every kind of buffer end without a panic",
    )
    .kills("panic, overflow")
    .run(|cx| Box::pin(c_3_1(cx))),
    Check::new(
        "C-3.2",
        "files with flipped bits, zeroed sectors and cut ends are opened and used",
    )
    .kills("panic, hang")
    .engines(&[Engine::Fault, Engine::Power])
    .run(|cx| Box::pin(c_3_2(cx))),
    Check::new(
        "C-4.1",
        "ranges up to the end of a frame, and beyond it by one byte or so much that a sum overflows",
    )
    .kills("off by one, overflow, absence asked first")
    .run(|cx| Box::pin(reads::c_4_1(cx))),
    Check::new(
        "C-4.2",
        "fifty threads more than may be in flight all get their answers, and the store works on",
    )
    .kills("deadlock")
    .run(|cx| Box::pin(c_4_2(cx))),
    Check::new(
        "C-5.1",
        "a year ahead and an hour back nothing panics or is lost",
    )
    .kills("hidden clock, underflow")
    .level(Level::Declared)
    .engines(&[Engine::Time])
    .run(|cx| Box::pin(failing::c_5_1(cx))),
];

fn shared(caps: &Caps) -> Gate {
    if caps.blob_store.exclusive {
        Gate::Ignore("declares that a place is open once only (BS-14)")
    } else {
        Gate::Run
    }
}

async fn c_2_1(cx: &Cx<dyn World>) -> Outcome {
    let first = cx.open_as("first", "p").await?;
    first.write(guid(1_000), 1_000)?;
    let names = ["h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7"];
    let opened = join_all(names.iter().map(|name| cx.open_as(name, "p"))).await;
    let handles = opened.into_iter().collect::<Result<Vec<_>, Stop>>()?;
    for (handle, at) in handles.iter().zip(0_u64..) {
        handle.write(guid(at.into()), at)?;
    }
    let mut all: Vec<BlobGuid> = (0..8).map(guid).collect();
    all.push(guid(1_000));
    for handle in handles.iter().chain([&first]) {
        handle.expect("after eight opens", guid(1_000), Some(1_000))?;
        for at in 0..8 {
            handle.expect("after eight writes", guid(at.into()), Some(at))?;
        }
        cx.eq("list_blobs() of each handle", &handle.list()?, &all)?;
    }
    // What a handle has shown once it must not keep for itself.
    let others = handles.iter().cycle().skip(1);
    for ((handle, next), at) in handles.iter().zip(others).zip(0_u64..) {
        let (name, tag) = (guid(at.into()), at + 100);
        handle.write(name, tag)?;
        next.expect("after an overwrite", name, Some(tag))?;
        handle.delete(name)?;
        next.expect("after a delete", name, None)?;
    }
    Ok(())
}

async fn c_2_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.write(guid(1), 1)?;
    b.write(guid(2), 2)?;
    drop(a);
    b.expect("after the other handle was dropped", guid(1), Some(1))?;
    b.write(guid(3), 3)?;
    b.delete(guid(1))?;
    let c = cx.open_as("c", "p").await?;
    for handle in [&b, &c] {
        handle.expect("after a new open", guid(1), None)?;
        handle.expect("after a new open", guid(2), Some(2))?;
        handle.expect("after a new open", guid(3), Some(3))?;
    }
    c.write(guid(2), 4)?;
    drop(c);
    b.expect("after the new handle was dropped", guid(2), Some(4))
}

async fn c_2_3(cx: &Cx<dyn World>) -> Outcome {
    let first = cx.open_as("first", "p").await?;
    let mut last = 1;
    first.write(guid(1), last)?;
    for nth in 0..u64::try_from(cx.times(130, 20)).unwrap_or(20) {
        let handle = cx.open_as("one of many", "p").await?;
        handle.expect("through one of many", guid(1), Some(last))?;
        // Some write.
        if nth % 5 == 0 {
            last = nth + 2;
            handle.write(guid(1), last)?;
        }
    }
    let late = cx.open_as("late", "p").await?;
    for handle in [&first, &late] {
        handle.expect("after many came and went", guid(1), Some(last))?;
        handle.write(guid(1), last)?;
    }
    Ok(())
}

async fn c_2_4(cx: &Cx<dyn World>) -> Outcome {
    /// Of each kind, in a round: an open or a close may then meet one of them, wherever it falls.
    const CALLS: u64 = 12;
    let (a, b) = cx.open_two("p").await?;
    a.write(guid(1), 1)?;
    let mut idle = cx.open_as("idle", "p").await?;
    for (round, nth) in (0..cx.times(40, 6)).zip(1_u64..) {
        let [kept, gone] = [100, 200].map(|first| (first..first + CALLS).map(|it| guid(it.into())));
        for name in gone.clone() {
            b.write(name, nth)?;
        }
        let (writer, deleter) = (a.clone(), b.clone());
        let (to_write, to_delete) = (kept.clone(), gone.clone());
        let writes: threads::Job = Box::new(move |_| {
            for name in to_write {
                writer.write(name, nth)?;
                writer.expect("while handles come and go", guid(1), Some(1))?;
            }
            Ok(())
        });
        let deletes: threads::Job = Box::new(move |_| {
            for name in to_delete {
                deleter.delete(name)?;
            }
            deleter.flush()
        });
        let calls = threads::threads(cx, vec![writes, deletes], Vec::new());
        let others = exchange(round, idle, cx.open_as("fresh", "p"));
        ((), idle) = try_join(calls, others).await?;
        let what = "after handles came and went";
        for handle in [&a, &b, &idle] {
            for (kept, gone) in kept.clone().zip(gone.clone()) {
                handle.expect(what, kept, Some(nth))?;
                handle.expect(what, gone, None)?;
            }
        }
    }
    Ok(())
}

async fn c_3_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    // A buffer of another store, which may have any slot number, and one that was leased before.
    let elsewhere = cx.open_as("elsewhere", "q").await?;
    let foreign = own_frame(&**elsewhere.store(), 1);
    let own = own_frame(&**a.store(), 2);
    let buffers = [foreign, own.clone(), own, frame(3), filled(0), filled(0xff)];
    let edge = [
        0,
        1,
        1 << 63,
        (1 << 64) - 1,
        1 << 64,
        1 << 127,
        u128::MAX - 1,
        u128::MAX,
    ];
    let mut rng = cx.rng();
    a.write(guid(77), 77)?;
    let mut dst = own_frame(&**elsewhere.store(), 5);
    for _ in 0..80 {
        let at = guid(edge[rng.random_range(0..edge.len())]);
        let src = &buffers[rng.random_range(0..buffers.len())];
        match rng.random_range(0..8) {
            0 | 1 => a.write_buf(at, src)?,
            2 => a.delete(at)?,
            3 => b.flush()?,
            4 => {
                let times = rng.random_range(0..40);
                let batch: Vec<(BlobGuid, &AlignedBlobBuf)> = vec![(at, src); times];
                let how = Batch::BOTH[rng.random_range(0..2)];
                b.write_all(how, &batch)?;
            }
            5 => drop((b.list()?, b.has(at)?, a.needs_flush())),
            _ => match b.try_read_into(at, &mut dst) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(Stop::error(format!("read_blob({at})"), &e));
                }
                _ => {}
            },
        }
    }
    b.expect("after odd calls on other blobs", guid(77), Some(77))
}

/// How many threads call at once where no bound is declared.
const IN_FLIGHT_UNDECLARED: usize = 64;
/// How many threads a runtime starts for blocking calls.
const THREADS_MAX: usize = 512;
const BLOBS: u64 = 8;

async fn c_4_2(cx: &Cx<dyn World>) -> Outcome {
    const BOUND: Duration = Duration::from_secs(30);
    let (a, b) = cx.open_two("p").await?;
    for at in 0..BLOBS {
        a.write(guid(at.into()), at)?;
    }
    let count = cx.caps.in_flight_max.unwrap_or(IN_FLIGHT_UNDECLARED) + 50;
    if count > THREADS_MAX {
        let why = "declares more calls in flight than this check has threads";
        return Err(Stop::Ignored(why.into()));
    }
    let calls = (0_u64..).take(count).map(|at| {
        let a = a.clone();
        tokio::task::spawn_blocking(move || {
            let name = guid((at % BLOBS).into());
            match at % 4 {
                0 => a.try_write(name, at),
                1 => a.store().flush(),
                _ => a.try_read(name).map(drop),
            }
        })
    });
    let calls: Vec<_> = calls.collect();
    let ended = cx.within(BOUND, format!("{count} calls at once"), join_all(calls));
    for (at, call) in ended.await?.into_iter().enumerate() {
        let result = call.map_err(|e| Stop::fail("a call", e.to_string(), "no panic"))?;
        let what = format!("call {at} of {count} at once");
        if let Err(e) = result {
            cx.require(
                e.kind() == ErrorKind::Timeout && e.outcome() == Effect::NotApplied,
                what,
                describe(&e),
                "Ok, or Timeout and NotApplied",
            )?;
        }
    }
    for at in 0..BLOBS {
        let seen = b.content(guid(at.into()))?;
        let is_of_this_blob = matches!(seen, Content::Frame(tag) if tag % BLOBS == at);
        let what = format!("blob {at} after {count} calls at once");
        cx.require(
            is_of_this_blob,
            what,
            seen.to_string(),
            "a whole frame of this blob",
        )?;
    }
    let after = tokio::task::spawn_blocking(move || a.write(guid(99), 99));
    let after = cx.within(BOUND, "a call after them", after).await?;
    after.map_err(|e| Stop::fail("a call", e.to_string(), "no panic"))??;
    b.expect("a call after them", guid(99), Some(99))
}

async fn c_3_2(cx: &Cx<dyn World>) -> Outcome {
    damage::ends(cx, |cx| Box::pin(work::hire(cx))).await
}
