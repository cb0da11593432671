//! C: what is common to all contracts, asked of `ChangeLog`.

use std::time::{Duration, SystemTime};

use futures_util::future::{join_all, try_join, try_join3};
use larder_traits::{Change, ChangeId, Classify, ErrorKind, Outcome as Effect, Step, WriterId};
use proptest::prelude::*;

use super::{
    at, change, concurrent, conflict, dropped, failing, for_ever, id, leases, object, work, writer,
};
use crate::change_log::World;
use crate::check::{Check, Engine, Level, Outcome, Stop, describe};
use crate::checks::{
    busy_neighbours, dropped_neighbours, ended, exchange, failing_neighbours, many_handles,
};
use crate::cx::{Cx, brief};
use crate::engine::damage;
use crate::engine::meeting::Harm;

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
    failing_neighbours().run(|cx| Box::pin(concurrent::harmed(cx, Harm::Failure))),
    Check::new(
        "C-2.1",
        "eight handles opened at once each see what all of them recorded",
    )
    .kills("truncating open, private cache")
    .run(|cx| Box::pin(c_2_1(cx))),
    Check::new(
        "C-2.2",
        "a handle that is dropped takes nothing with it from the others",
    )
    .kills("close destroys shared state")
    .run(|cx| Box::pin(c_2_2(cx))),
    many_handles("C-2.3").run(|cx| Box::pin(c_2_3(cx))),
    busy_neighbours("C-2.4").run(|cx| Box::pin(c_2_4(cx))),
    Check::new(
        "C-3.1",
        "random and extreme arguments of every method end in an answer or a classified refusal",
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
        "objects of the longest name that a backend has are recorded whole",
    )
    .kills("silent cut")
    .run(|cx| Box::pin(c_4_1(cx))),
    Check::new(
        "C-4.2",
        "fifty calls more than may be in flight all end, and the handle works on",
    )
    .kills("deadlock")
    .run(|cx| Box::pin(c_4_2(cx))),
    Check::new(
        "C-5.1",
        "a lease ends by the times that are given, be they of the past or to come",
    )
    .kills("hidden clock")
    .run(|cx| Box::pin(c_5_1(cx))),
    Check::new("C-6.1", "every method dropped at every await")
        .kills("half a claim, poisoned store")
        .engines(&[Engine::Cancel])
        .run(|cx| Box::pin(dropped::c_6_1(cx))),
    Check::new(
        "C-6.2",
        "twice the pool's size of dropped calls, then a call",
    )
    .kills("leaked permit, lock")
    .engines(&[Engine::Cancel])
    .run(|cx| Box::pin(dropped::c_6_2(cx))),
    Check::new(
        "C-6.3",
        "a dropped call does not land after a later acknowledged one, as far as declared",
    )
    .kills("false Fenced")
    .level(Level::Declared)
    .engines(&[Engine::Cancel])
    .run(|cx| Box::pin(dropped::c_6_3(cx))),
    Check::new(
        "C-6.4",
        "one of several queued calls is dropped, the others end",
    )
    .kills("lost wake-up")
    .engines(&[Engine::Cancel])
    .run(|cx| Box::pin(dropped::c_6_4(cx))),
    dropped_neighbours().run(|cx| Box::pin(concurrent::harmed(cx, Harm::Drop))),
];

async fn c_2_1(cx: &Cx<dyn World>) -> Outcome {
    let first = cx.open_as("first", "p").await?;
    let before = change(100, 0);
    first.record(writer(100), &before).await?;
    first.renew(writer(100), for_ever()).await?;
    let names = ["h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7"];
    let opened = join_all(names.iter().map(|name| cx.open_as(name, "p"))).await;
    let handles = opened.into_iter().collect::<Result<Vec<_>, Stop>>()?;
    let records = handles.iter().zip(0..).map(|(handle, n)| async move {
        handle.renew(writer(n), for_ever()).await?;
        handle.record(writer(n), &change(n, 0)).await
    });
    join_all(records).await.into_iter().collect::<Outcome>()?;
    for handle in handles.iter().chain([&first]) {
        let what = "recorded before the eight opens";
        let before = [before.clone()];
        handle.expect(what, writer(100), &before).await?;
        for n in 0..8 {
            let own = [change(n, 0)];
            handle
                .expect("recorded by one of eight", writer(n), &own)
                .await?;
        }
    }
    // What a handle has shown once it must not keep for itself, nor the leases that it has seen.
    for (n, handle) in (0..).zip(&handles) {
        let next = handles.get(usize::try_from(n + 1).unwrap_or_default());
        let next = next.unwrap_or(&first);
        handle.record(writer(n), &change(n, 1)).await?;
        let own = [change(n, 1)];
        next.expect("recorded again", writer(n), &own).await?;
        handle.complete(writer(n), id(n)).await?;
        next.expect("struck out", writer(n), &[]).await?;
        let claimed = next.claim(writer(200), at(0), usize::MAX).await?;
        cx.eq("what the living leave to a claim", &claimed, &Vec::new())?;
    }
    Ok(())
}

async fn c_2_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.record(writer(1), &change(1, 0)).await?;
    a.renew(writer(1), at(5_000)).await?;
    b.record(writer(1), &change(2, 0)).await?;
    drop(a);
    let both = [change(1, 0), change(2, 0)];
    let what = "after the other handle was dropped";
    b.expect(what, writer(1), &both).await?;
    let c = cx.open_as("c", "p").await?;
    for handle in [&b, &c] {
        let claimed = handle.claim(writer(2), at(4_999), usize::MAX).await?;
        cx.eq("under the lease by the dropped handle", &claimed.len(), &0)?;
        handle.expect("on a new handle", writer(1), &both).await?;
    }
    c.complete(writer(1), id(1)).await?;
    c.record(writer(1), &change(3, 0)).await?;
    drop(c);
    let left = [change(2, 0), change(3, 0)];
    let what = "after the new handle was dropped";
    b.expect(what, writer(1), &left).await?;
    drop(b);
    if cx.caps.durability == larder_traits::Durability::None {
        return Ok(());
    }
    let d = cx.open_as("d", "p").await?;
    d.expect("after all were dropped", writer(1), &left).await?;
    let claimed = d.claim(writer(2), at(4_999), usize::MAX).await?;
    cx.eq(
        "under the lease, after all were dropped",
        &claimed.len(),
        &0,
    )
}

async fn c_2_3(cx: &Cx<dyn World>) -> Outcome {
    let first = cx.open_as("first", "p").await?;
    let mut own = vec![change(0, 0)];
    first.record(writer(1), &own[0]).await?;
    for nth in 1..u64::try_from(cx.times(130, 20)).unwrap_or(20) {
        let handle = cx.open_as("one of many", "p").await?;
        handle
            .expect("through one of many", writer(1), &own)
            .await?;
        // Some write.
        if nth % 5 == 0 {
            own.push(change(nth, 0));
            handle.record(writer(1), &change(nth, 0)).await?;
        }
    }
    let late = cx.open_as("late", "p").await?;
    for handle in [&first, &late] {
        let what = "after many came and went";
        handle.expect(what, writer(1), &own).await?;
        handle.record(writer(1), &own[0]).await?;
    }
    Ok(())
}

/// Times at which arithmetic goes wrong, and ordinary ones.
fn times() -> Vec<SystemTime> {
    let epoch = SystemTime::UNIX_EPOCH;
    let spans = [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_secs(1),
        Duration::from_secs(u64::from(u32::MAX)),
        Duration::from_millis(i64::MAX.unsigned_abs()),
        Duration::from_secs(i64::MAX.unsigned_abs()),
        Duration::from_secs(1 << 40),
    ];
    let mut times = vec![at(0), at(1_000), for_ever()];
    for span in spans {
        times.extend(epoch.checked_add(span));
        times.extend(epoch.checked_sub(span));
    }
    times
}

async fn c_2_4(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let other = [change(0, 0)];
    b.record(writer(9), &other[0]).await?;
    for (number, end) in [(1, at(10_000)), (2, for_ever()), (9, for_ever())] {
        b.renew(writer(number), end).await?;
    }
    let mut own = Vec::new();
    let mut idle = cx.open_as("idle", "p").await?;
    for (round, nth) in (0..cx.times(40, 6)).zip(1_u64..) {
        let [recorded, completed] = [change(2 * nth, 0), change(2 * nth + 1, 0)];
        // In each round one whose lease has ended.
        let (gone, taken) = (writer(100 + nth), change(1_000 + nth, 0));
        b.record(writer(1), &completed).await?;
        b.record(gone, &taken).await?;
        let until = at(10_000 + nth);
        let writes = try_join3(
            a.record(writer(1), &recorded),
            b.complete(writer(1), completed.id),
            b.renew(writer(1), until),
        );
        let what = "while handles come and go";
        let reads = try_join(
            a.claim(writer(2), at(5_000), usize::MAX),
            b.expect(what, writer(9), &other),
        );
        let others = exchange(round, idle, cx.open_as("fresh", "p"));
        let (_, (claimed, ()), fresh) = try_join3(writes, reads, others).await?;
        idle = fresh;
        own.push(recorded);
        let what = "claimed while handles come and go";
        cx.require(
            claimed.contains(&taken),
            what,
            brief(&claimed),
            brief(&taken),
        )?;
        let what = "after handles came and went";
        for handle in [&a, &b, &idle] {
            handle.expect(what, writer(1), &own).await?;
            handle.expect(what, gone, &[]).await?;
        }
        let claimed = idle.claim(writer(3), at(10_000), usize::MAX).await?;
        cx.eq("under the lease of that round", &claimed, &Vec::new())?;
    }
    Ok(())
}

async fn c_3_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let stays = change(900, 0);
    a.record(writer(900), &stays).await?;
    let last = times().into_iter().max().unwrap_or_else(for_ever);
    let renewed = a.try_renew(writer(900), last).await;
    // A log that refuses it has no lease to keep, and is not asked about times as late as these.
    let latest = if renewed.is_ok() {
        for_ever()
    } else {
        at(1_000)
    };
    ended("the longest lease", &renewed)?;
    a.renew(writer(900), for_ever()).await?;
    let mut rng = cx.rng();
    let times = times();
    let lengths = [0, 1, 255, 256, 1_000, 5_000];
    for _ in 0..80 {
        let mut bytes = [0_u8; 16];
        match rng.random_range(0..3) {
            0 => {}
            1 => bytes = [0xff; 16],
            _ => bytes.fill_with(|| rng.random()),
        }
        let by = WriterId::from_bytes(bytes);
        let time = times[rng.random_range(0..times.len())];
        let handle = if rng.random() { &a } else { &b };
        match rng.random_range(0..5) {
            0 => {
                let len = lengths[rng.random_range(0..lengths.len())];
                let key: String = (0..len).map(|_| rng.random::<char>()).collect();
                let mut change = Change::new(ChangeId::from_bytes(bytes), object(key), Step::Swap);
                change.replaced = Some(object("\u{0}"));
                match handle.try_record(by, &change).await {
                    Err(e) if e.kind() == ErrorKind::Conflict => {}
                    result => ended("record", &result)?,
                }
            }
            1 => match handle.try_complete(by, ChangeId::from_bytes(bytes)).await {
                Err(e) if e.kind() == ErrorKind::Conflict => {}
                result => ended("complete", &result)?,
            },
            2 => ended("changes", &handle.try_changes(by).await)?,
            3 => ended("renew", &handle.try_renew(by, time).await)?,
            _ => {
                let limit = [0, 1, usize::MAX][rng.random_range(0..3)];
                // Not the last of all times, at which every lease has ended.
                let now = time.min(latest);
                let claimed = handle.try_claim(by, now, limit).await;
                ended("claim", &claimed)?;
            }
        }
    }
    let what = "after odd arguments to others, under the longest lease";
    b.expect(what, writer(900), &[stays]).await
}

async fn c_4_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let len = cx.caps.high_volume.id_len_bytes_max;
    let name = |letter: &str| {
        let room = len.saturating_sub(object("").to_string().len());
        let each = object(letter).to_string().len() - object("").to_string().len();
        object(letter.repeat(room / each.max(1)))
    };
    let mut longest = Change::new(id(1), name("o"), Step::Remove);
    longest.created = Some(name("c"));
    longest.replaced = Some(name("\u{e9}"));
    a.record(writer(1), &longest).await?;
    let what = "names as long as an id may be";
    b.expect(what, writer(1), &[longest.clone()]).await?;
    let c = cx.open_as("c", "p").await?;
    let claimed = c.claim(writer(2), at(0), 1).await?;
    cx.eq("a claim of it", &claimed, &vec![longest])
}

/// How many calls are put in flight where no bound on them is declared.
const IN_FLIGHT_UNDECLARED: usize = 64;
/// How many calls this check makes at most, and how many that are refused.
const CALLS_MAX: usize = 10_000;
const REFUSED_MAX: usize = 200;

async fn c_4_2(cx: &Cx<dyn World>) -> Outcome {
    const BOUND: Duration = Duration::from_secs(30);
    let (a, b) = cx.open_two("p").await?;
    let count = cx.caps.in_flight_max.unwrap_or(IN_FLIGHT_UNDECLARED) + 50;
    if count > CALLS_MAX {
        let why = format!("declares that more than {CALLS_MAX} calls may be in flight");
        return Err(Stop::Ignored(why));
    }
    let numbers = 0..u64::try_from(count).unwrap_or_default();
    let calls = numbers.map(|n| {
        let a = a.clone();
        tokio::spawn(async move {
            match n % 4 {
                0 => a.try_changes(writer(n)).await.map(drop),
                1 => a.try_renew(writer(n), for_ever()).await,
                _ => a.try_record(writer(n), &change(n, 0)).await,
            }
        })
    });
    let calls: Vec<_> = calls.collect();
    let ended = cx.within(BOUND, format!("{count} calls at once"), join_all(calls));
    for (n, call) in (0..).zip(ended.await?) {
        let result = call.map_err(|e| Stop::fail("a call", e.to_string(), "no panic"))?;
        let what = format!("call {n} of {count} at once");
        match result {
            Ok(()) if n % 4 > 1 => b.expect(&what, writer(n), &[change(n, 0)]).await?,
            Ok(()) => {}
            Err(e) => cx.require(
                e.kind() == ErrorKind::Timeout && e.outcome() == Effect::NotApplied,
                what,
                describe(&e),
                "Ok, or Timeout and NotApplied",
            )?,
        }
    }
    let (by, after) = (writer(99_999), change(99_999, 0));
    let record = a.record(by, &after);
    cx.within(BOUND, "a call after them", record).await??;
    b.expect("a call after them", by, &[after]).await?;
    // A call that is refused gives back what it took.
    let others = change(99_999, 1);
    for _ in 0..count.min(REFUSED_MAX) {
        let record = a.try_record(writer(88_888), &others);
        let refused = cx.within(BOUND, "a call after many were refused", record);
        conflict("a record of another's change", refused.await?)?;
    }
    Ok(())
}

async fn c_5_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let epoch = SystemTime::UNIX_EPOCH;
    let day = Duration::from_secs(86_400);
    // In the past of any machine's clock, and in its future.
    let ends = [
        epoch - 30 * 365 * day,
        epoch + day,
        epoch + 60 * 365 * day,
        epoch + 300 * 365 * day,
    ];
    for (n, end) in (0..).zip(ends) {
        let own = change(n, 0);
        a.record(writer(n), &own).await?;
        if !leases::keeps(&a, writer(n), end).await? {
            a.complete(writer(n), own.id).await?;
            continue;
        }
        let before = b.claim(writer(50), end - day / 2, usize::MAX).await?;
        cx.eq("a claim half a day before the end", &before.len(), &0)?;
        let after = b.claim(writer(50), end, usize::MAX).await?;
        cx.eq("a claim at the end", &after, &vec![own.clone()])?;
        // Out of the way.
        b.complete(writer(50), own.id).await?;
    }
    Ok(())
}

async fn c_3_2(cx: &Cx<dyn World>) -> Outcome {
    damage::ends(cx, |cx| Box::pin(work::hire(cx))).await
}
