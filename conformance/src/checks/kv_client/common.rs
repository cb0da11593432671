//! C: what is common to all contracts, asked of `KvClient`.

use std::time::Duration;

use futures_util::future::{join_all, try_join, try_join3};
use larder_traits::{Classify, ErrorKind, Outcome as Effect};
use proptest::prelude::*;

use super::{bytes, concurrent, dropped, ends, failing, invalid, lives, work};
use crate::check::{Check, Engine, Level, Outcome, Stop, describe};
use crate::checks::{
    busy_neighbours, dropped_neighbours, ended, exchange, failing_neighbours, many_handles, pattern,
};
use crate::cx::Cx;
use crate::engine::damage;
use crate::engine::meeting::Harm;
use crate::kv_client::World;

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
        "eight handles opened at once each see what all of them wrote",
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
        "keys and values at their bound work, one byte above it they are refused without effect",
    )
    .kills("silent cut, late check")
    .run(|cx| Box::pin(c_4_1(cx))),
    Check::new(
        "C-4.2",
        "fifty calls more than may be in flight all end, and the handle works on",
    )
    .kills("deadlock")
    .run(|cx| Box::pin(c_4_2(cx))),
    Check::new(
        "C-5.1",
        "a year ahead the entries have expired, an hour back nothing panics or is lost",
    )
    .kills("hidden clock, underflow")
    .level(Level::Declared)
    .engines(&[Engine::Time])
    .run(|cx| Box::pin(ends::c_5_1(cx))),
    Check::new("C-6.1", "every method dropped at every await")
        .kills("torn value, poisoned store")
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
        "a dropped write does not land after a later acknowledged one, as far as declared",
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
    Check::new(
        "C-6.6",
        "a put that was dropped leaves no value without its end, and none with the end of another",
    )
    .kills("a value and its end written apart")
    .engines(&[Engine::Cancel])
    .run(|cx| Box::pin(lives::c_6_6(cx))),
];

/// How many handles are opened at once.
const HANDLES: usize = 8;

async fn c_2_1(cx: &Cx<dyn World>) -> Outcome {
    let first = cx.open_as("first", "p").await?;
    first.put("before", "the others were opened").await?;
    let names = ["h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7"];
    let opened = join_all(names.iter().map(|name| cx.open_as(name, "p"))).await;
    let handles = opened.into_iter().collect::<Result<Vec<_>, Stop>>()?;
    let value = |at: usize| format!("by handle {at}");
    let writes = handles
        .iter()
        .enumerate()
        .map(|(at, handle)| handle.put(format!("k{at}"), value(at)));
    join_all(writes).await.into_iter().collect::<Outcome>()?;
    for handle in handles.iter().chain([&first]) {
        let before = &b"the others were opened"[..];
        handle
            .expect("after eight opens", "before", Some(before))
            .await?;
        for at in 0..HANDLES {
            let expected = value(at);
            let expected = Some(expected.as_bytes());
            handle
                .expect("after eight writes", format!("k{at}"), expected)
                .await?;
        }
    }
    // What a handle has shown once it must not keep for itself.
    for (at, handle) in handles.iter().enumerate() {
        let next = &handles[(at + 1) % HANDLES];
        handle
            .put(format!("k{at}"), format!("again by {at}"))
            .await?;
        let expected = format!("again by {at}");
        next.expect(
            "after an overwrite",
            format!("k{at}"),
            Some(expected.as_bytes()),
        )
        .await?;
        handle.delete(format!("k{at}")).await?;
        next.expect("after a delete", format!("k{at}"), None)
            .await?;
    }
    Ok(())
}

async fn c_2_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.put("by a", "1").await?;
    b.put("by b", "2").await?;
    drop(a);
    b.expect("after the other handle was dropped", "by a", Some(b"1"))
        .await?;
    b.put("later", "3").await?;
    b.delete("by a").await?;
    let c = cx.open_as("c", "p").await?;
    for handle in [&b, &c] {
        handle.expect("after a new open", "by a", None).await?;
        handle
            .expect("after a new open", "by b", Some(b"2"))
            .await?;
        handle
            .expect("after a new open", "later", Some(b"3"))
            .await?;
    }
    c.put("by b", "4").await?;
    drop(c);
    b.expect("after the new handle was dropped", "by b", Some(b"4"))
        .await
}

async fn c_2_3(cx: &Cx<dyn World>) -> Outcome {
    let first = cx.open_as("first", "p").await?;
    let mut last = "of the first".to_owned();
    first.put("k", &last).await?;
    for nth in 0..cx.times(130, 20) {
        let handle = cx.open_as("one of many", "p").await?;
        let what = "through one of many";
        handle.expect(what, "k", Some(last.as_bytes())).await?;
        // Some write.
        if nth % 5 == 0 {
            last = format!("{nth}");
            handle.put("k", &last).await?;
        }
    }
    let late = cx.open_as("late", "p").await?;
    for handle in [&first, &late] {
        let what = "after many came and went";
        handle.expect(what, "k", Some(last.as_bytes())).await?;
        handle.put("k", &last).await?;
    }
    Ok(())
}

async fn c_2_4(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.put("stays", "1").await?;
    let mut idle = cx.open_as("idle", "p").await?;
    for round in 0..cx.times(40, 6) {
        // Now and then over what an earlier round has put.
        let [put, lives, goes] =
            ["put", "lives", "goes"].map(|word| format!("{word}{}", round % 4));
        b.put(&goes, "here").await?;
        let value = format!("of round {round}");
        let writes = try_join3(
            a.put(&put, &value),
            b.put_with_ttl(&lives, &value, 3_600),
            a.delete(&goes),
        );
        let keys = ["stays", "never"].map(bytes);
        let reads = try_join(
            b.expect("while handles come and go", "stays", Some(b"1")),
            a.get_multi(&keys),
        );
        // All of them go on meanwhile: an open or a close may have to wait for one of them.
        let others = exchange(round, idle, cx.open_as("fresh", "p"));
        let (_, ((), many), fresh) = try_join3(writes, reads, others).await?;
        cx.eq(
            "get_multi, while handles come and go",
            &many,
            &vec![Some(bytes("1")), None],
        )?;
        idle = fresh;
        for (reader, key) in [(&b, &put), (&a, &lives), (&idle, &put), (&idle, &lives)] {
            let what = "after handles came and went";
            reader.expect(what, key, Some(value.as_bytes())).await?;
        }
        for reader in [&b, &idle] {
            let what = "deleted while handles came and went";
            reader.expect(what, &goes, None).await?;
        }
    }
    Ok(())
}

async fn c_3_1(cx: &Cx<dyn World>) -> Outcome {
    const KEY_LENGTHS: [usize; 9] = [0, 1, 2, 7, 255, 256, 1_024, 1_025, 70_000];
    const TTLS: [u64; 8] = [
        0,
        1 << 31,
        1 << 32,
        1 << 53,
        u64::MAX / 1_000_000_000 + 1,
        u64::MAX / 1_000 + 1,
        1 << 63,
        u64::MAX,
    ];
    let (a, b) = cx.open_two("p").await?;
    a.put("stays", "here").await?;
    let mut rng = cx.rng();
    for _ in 0..60 {
        let len = KEY_LENGTHS[rng.random_range(0..KEY_LENGTHS.len())];
        let key: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        let value: Vec<u8> = (0..rng.random_range(0..300))
            .map(|_| rng.random())
            .collect();
        let ttl = TTLS[rng.random_range(0..TTLS.len())];
        match rng.random_range(0..5) {
            0 => ended("put", &a.try_put(&key, &value).await)?,
            1 => ended("put_with_ttl", &a.try_put_with_ttl(&key, &value, ttl).await)?,
            2 => ended("get", &b.try_get(&key).await)?,
            3 => ended("delete", &b.try_delete(&key).await)?,
            _ => {
                let keys: Vec<_> = (0..rng.random_range(0..300)).map(|_| bytes(&key)).collect();
                ended("get_multi", &a.try_get_multi(&keys).await)?;
            }
        }
    }
    b.expect("after odd arguments to other keys", "stays", Some(b"here"))
        .await
}

async fn c_4_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let bounds = cx.caps.kv_client;
    let key = pattern("a key of full length", bounds.key_len_bytes_max);
    a.put(&key, "full").await?;
    b.expect("a key at its bound", &key, Some(b"full")).await?;
    let mut over = key.clone();
    over.push(b'x');
    invalid("put of a key above the bound", a.try_put(&over, b"v").await)?;
    let result = a.try_put_with_ttl(&over, b"v", 3_600).await;
    invalid("put_with_ttl of a key above the bound", result)?;
    invalid("get of a key above the bound", a.try_get(&over).await)?;
    let keys = [bytes(&key), bytes(&over)];
    invalid(
        "get_multi with a key above the bound",
        a.try_get_multi(&keys).await,
    )?;
    invalid("delete of a key above the bound", a.try_delete(&over).await)?;
    b.expect("the key that a cut would hit", &key, Some(b"full"))
        .await?;

    let len = bounds.value_len_bytes_max;
    if len >= cx.profile.value_len_bytes_max() {
        return Err(Stop::Ignored(format!(
            "the bound of keys holds; that of values, {len} bytes, is more than this profile writes"
        )));
    }
    let full = pattern("a value of full length", len);
    a.put("full", &full).await?;
    a.put_with_ttl("ttl", &full, 3_600).await?;
    let over = pattern("one byte more", len + 1);
    for old in ["full", "ttl"] {
        invalid(
            "put of a value above the bound",
            a.try_put(old.as_bytes(), &over).await,
        )?;
        let result = a.try_put_with_ttl(old.as_bytes(), &over, 60).await;
        invalid("put_with_ttl of a value above the bound", result)?;
        b.expect("the value that was there", old, Some(&full))
            .await?;
    }
    invalid(
        "put of a value above the bound",
        b.try_put(b"new", &over).await,
    )?;
    a.expect("a key that was only ever refused", "new", None)
        .await?;
    // The end of a value is a part of what a refused put leaves alone: it comes neither sooner nor never.
    let Ok(clock) = cx.clock() else { return Ok(()) };
    let over = Duration::from_secs(600) + cx.caps.kv_client.ttl_granularity;
    let before = Duration::from_secs(3_000);
    for (by, left) in [(before, Some(&full[..])), (over, None)] {
        cx.log().push(format!("clock + {by:?}"));
        clock.advance(by);
        let what = format!("{by:?} after the refused ones");
        b.expect(&what, "full", Some(&full)).await?;
        b.expect(&what, "ttl", left).await?;
    }
    Ok(())
}

/// How many calls are put in flight where no bound on them is declared.
const IN_FLIGHT_UNDECLARED: usize = 64;
/// How many calls this check makes at most.
const CALLS_MAX: usize = 10_000;

async fn c_4_2(cx: &Cx<dyn World>) -> Outcome {
    const BOUND: Duration = Duration::from_secs(30);
    let (a, b) = cx.open_two("p").await?;
    let count = cx.caps.in_flight_max.unwrap_or(IN_FLIGHT_UNDECLARED) + 50;
    if count > CALLS_MAX {
        let why = format!("declares that more than {CALLS_MAX} calls may be in flight");
        return Err(Stop::Ignored(why));
    }
    let calls = (0..count).map(|at| {
        let a = a.clone();
        tokio::spawn(async move {
            let key = format!("k{at}");
            match at % 3 {
                0 => a.try_get(key.as_bytes()).await.map(drop),
                1 => a.try_get_multi(&[bytes(&key)]).await.map(drop),
                _ => a.try_put(key.as_bytes(), b"v").await,
            }
        })
    });
    let calls: Vec<_> = calls.collect();
    let ended = cx.within(BOUND, format!("{count} calls at once"), join_all(calls));
    for (at, call) in ended.await?.into_iter().enumerate() {
        let result = call.map_err(|e| Stop::fail("a call", e.to_string(), "no panic"))?;
        let what = format!("call {at} of {count} at once");
        let Err(e) = result else {
            if at % 3 == 2 {
                b.expect(&what, format!("k{at}"), Some(b"v")).await?;
            }
            continue;
        };
        cx.require(
            e.kind() == ErrorKind::Timeout && e.outcome() == Effect::NotApplied,
            what,
            describe(&e),
            "Ok, or Timeout and NotApplied",
        )?;
    }
    cx.within(BOUND, "a call after them", a.put("after", "v"))
        .await??;
    b.expect("a call after them", "after", Some(b"v")).await
}

async fn c_3_2(cx: &Cx<dyn World>) -> Outcome {
    damage::ends(cx, |cx| Box::pin(work::hire(cx))).await
}
