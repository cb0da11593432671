//! C: what is common to all contracts, asked of `BlobMulti`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{try_join, try_join_all, try_join3};
use larder_traits::{
    Atomicity, Classify, Clock, Durability, ErrorKind, ExternalError, Outcome as Effect,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::deadlines::CLOSE;
use super::{
    NAMES, all_is, bounds, concurrent, drops, faults, fill, get_is, landing, list_is, long_key,
    work,
};
use crate::blob_multi::{Handle, World};
use crate::check::{Check, Engine, Level, Outcome, Stop, describe};
use crate::checks::{
    busy_neighbours, dropped_neighbours, exchange, failing_neighbours, pattern, refused,
};
use crate::cx::Cx;
use crate::engine::damage;
use crate::engine::meeting::Harm;
use crate::model::blob_multi::Blobs;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "C-1.1",
        "every provoked error has a kind and an outcome, and NotApplied stays without effect",
    )
    .kills("false NotApplied")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(faults::c_1_1(cx))),
    Check::new(
        "C-1.2",
        "one native error before and after the commit point has two outcomes",
    )
    .kills("outcome from the native error")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(faults::c_1_2(cx))),
    Check::new(
        "C-1.3",
        "no decision hangs on an error's text, no blanket From",
    )
    .level(Level::Untestable(
        "a source rule, held by the repository's own tidy check",
    )),
    failing_neighbours().run(|cx| Box::pin(concurrent::harmed(cx, Harm::Failure))),
    Check::new(
        "C-2.1",
        "a place opened 8 times at once, written through each, read through all",
    )
    .kills("truncating open, private cache")
    .run(|cx| Box::pin(c_2_1(cx))),
    Check::new(
        "C-2.2",
        "of two handles one is dropped; the other works on, and a third opens",
    )
    .kills("close destroys shared state")
    .run(|cx| Box::pin(c_2_2(cx))),
    Check::new(
        "C-2.3",
        "two hundred handles, one after the other: each works, and so do those that were there before",
    )
    .kills("what a handle takes and does not give back")
    .run(|cx| Box::pin(c_2_3(cx))),
    busy_neighbours("C-2.4").run(|cx| Box::pin(c_2_4(cx))),
    Check::new("C-3.1", "random and extreme arguments to every method")
        .kills("panic, overflow")
        .run(|cx| Box::pin(c_3_1(cx))),
    Check::new("C-3.2", "garbage in answers")
        .kills("panic, hang")
        .engines(&[Engine::Fault])
        .run(|cx| Box::pin(faults::c_3_2(cx))),
    Check::new(
        "C-3.3",
        "files with flipped bits, zeroed sectors and cut ends are opened and used",
    )
    .kills("panic, hang")
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(c_3_3(cx))),
    Check::new(
        "C-4.1",
        "each bound is reached, and one more is refused with the old value intact",
    )
    .kills("silent cut, late check")
    .run(|cx| Box::pin(bounds::c_4_1(cx))),
    Check::new("C-4.2", "50 calls more than may be in flight all end")
        .kills("deadlock")
        .run(|cx| Box::pin(bounds::c_4_2(cx))),
    Check::new(
        "C-5.1",
        "wall time that jumps a year on and an hour back takes nothing away",
    )
    .kills("hidden clock, underflow")
    .level(Level::Declared)
    .engines(&[Engine::Time])
    .run(|cx| Box::pin(c_5_1(cx))),
    Check::new("C-6.1", "every method dropped at every await")
        .kills("torn value, poisoned store")
        .engines(&[Engine::Cancel])
        .run(|cx| Box::pin(drops::c_6_1(cx))),
    Check::new(
        "C-6.2",
        "twice as many dropped calls as the pool is large, then one more",
    )
    .kills("leaked permit, lock")
    .engines(&[Engine::Cancel])
    .run(|cx| Box::pin(drops::c_6_2(cx))),
    Check::new(
        "C-6.3",
        "a dropped write does not land over a later acknowledged one, if declared",
    )
    .kills("false Fenced")
    .level(Level::Declared)
    .engines(&[Engine::Cancel])
    .run(|cx| Box::pin(landing::c_6_3(cx))),
    Check::new(
        "C-6.4",
        "one of several queued calls is dropped; the others end",
    )
    .kills("lost wake-up")
    .engines(&[Engine::Cancel])
    .run(|cx| Box::pin(drops::c_6_4(cx))),
    dropped_neighbours().run(|cx| Box::pin(concurrent::harmed(cx, Harm::Drop))),
];

async fn c_2_1(cx: &Cx<dyn World>) -> Outcome {
    let first = cx.open_as("first", "p").await?;
    let mut model = Blobs::default();
    fill(&first, &mut model, "before", "2.1", 5_000).await?;
    for round in 0..2 {
        // The first handle writes while the others open.
        let opens = try_join_all(NAMES.map(|name| cx.open_as(name, "p")));
        let writes = async {
            for at in 0..NAMES.len() {
                let key = format!("{round}/opening-{at}");
                fill(&first, &mut model, &key, "2.1", at * 900).await?;
            }
            Ok(())
        };
        let (handles, ()) = try_join(opens, writes).await?;
        for (at, handle) in handles.iter().enumerate() {
            let own = format!("{round}/{}", handle.name());
            fill(handle, &mut model, &own, "own", at * 1_000).await?;
            fill(handle, &mut model, "shared", &own, 100 + at).await?;
            // A handle that opens between two writes of others.
            all_is(&cx.open_as("between", "p").await?, &model).await?;
        }
        for handle in handles.iter().chain([&first]) {
            all_is(handle, &model).await?;
        }
        handles[7].delete(&format!("{round}/a")).await?;
        model.delete(&format!("{round}/a"));
        for handle in handles.iter().chain([&first]) {
            all_is(handle, &model).await?;
        }
    }
    Ok(())
}

async fn c_2_2(cx: &Cx<dyn World>) -> Outcome {
    let mut model = Blobs::default();
    let (a, b) = cx.open_two("p").await?;
    fill(&a, &mut model, "empty", "of a", 0).await?;
    fill(&a, &mut model, "k", "of a", 70_000).await?;
    fill(&b, &mut model, "l", "of b", 10).await?;
    drop(a);
    all_is(&b, &model).await?;
    fill(&b, &mut model, "k", "of b", 20).await?;
    fill(&b, &mut model, "new", "of b", 5_000).await?;
    b.delete("l").await?;
    model.delete("l");
    all_is(&b, &model).await?;
    let c = cx.open_as("c", "p").await?;
    all_is(&c, &model).await?;
    // Now the older one goes, and the newer one stays.
    drop(b);
    fill(&c, &mut model, "k", "of c", 4_096).await?;
    all_is(&c, &model).await?;
    if cx.caps.durability >= Durability::Process {
        drop(c);
        let d = cx.open_as("d", "p").await?;
        all_is(&d, &model).await?;
        list_is(&d, model.keys()).await?;
    }
    Ok(())
}

async fn c_2_3(cx: &Cx<dyn World>) -> Outcome {
    let first = cx.open_as("first", "p").await?;
    let mut model = Blobs::default();
    fill(&first, &mut model, "k", "of the first", 700).await?;
    for nth in 0..cx.times(200, 20) {
        let handle = cx.open_as("one of many", "p").await?;
        get_is(&handle, "k", model.get("k").map(|value| &value[..])).await?;
        // Some write, and some have done nothing at all when they go.
        if nth % 5 == 0 {
            fill(&handle, &mut model, "k", &format!("{nth}"), nth * 10).await?;
        }
        drop(handle);
        drop(cx.open_as("an idle one", "p").await?);
    }
    all_is(&first, &model).await?;
    fill(&first, &mut model, "last", "of the first", 10).await?;
    all_is(&cx.open_as("last", "p").await?, &model).await
}

async fn c_2_4(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    fill(&a, &mut model, "stays", "2.4", 5_000).await?;
    let mut idle = cx.open_as("idle", "p").await?;
    for round in 0..cx.times(40, 6) {
        let atomic = match round % 2 {
            0 => Atomicity::RequireAtomic,
            _ => Atomicity::AllowNonAtomic,
        };
        // Now and then over what an earlier round has set.
        let [long, short, goes] =
            ["long", "short", "goes"].map(|word| format!("{word}{}", round % 4));
        fill(&b, &mut model, &goes, "2.4", 10).await?;
        let [by_a, by_b] = [70_000, 300].map(|len| Bytes::from(pattern(&format!("{round}"), len)));
        let writes = try_join3(
            a.set_with(&long, by_a.clone(), atomic),
            b.set_with(&short, by_b.clone(), atomic),
            a.delete(&goes),
        );
        let still = model.get("stays").map(|value| &value[..]);
        let reads = try_join(get_is(&b, "stays", still), a.list());
        // All of them go on meanwhile: an open or a close may have to wait for one of them.
        let others = exchange(round, idle, cx.open_as("fresh", "p"));
        let (_, ((), listed), fresh) = try_join3(writes, reads, others).await?;
        idle = fresh;
        let is_there = listed.iter().any(|key| key == "stays");
        cx.require(
            is_there,
            "list_keys()",
            format!("{listed:?}"),
            "\"stays\" among them",
        )?;
        model.set(&long, by_a);
        model.set(&short, by_b);
        model.delete(&goes);
        for (reader, key) in [(&b, &long), (&a, &short), (&idle, &long), (&idle, &goes)] {
            let expected = model.get(key).map(|value| &value[..]);
            get_is(reader, key, expected).await?;
        }
    }
    for handle in [&a, &b, &idle] {
        all_is(handle, &model).await?;
    }
    Ok(())
}

async fn c_5_1(cx: &Cx<dyn World>) -> Outcome {
    const HOUR: Duration = Duration::from_secs(3_600);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
    let clock = cx.clock()?;
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    fill(&a, &mut model, "before", "5.1", 5_000).await?;
    fill(&b, &mut model, "empty", "5.1", 0).await?;
    let start = clock.now();
    let jumps = [
        ("a_year_on", start + YEAR),
        ("an_hour_back", start + YEAR - HOUR),
        ("to_before_the_start", start - YEAR),
        ("a_century_on", start + YEAR * 100),
        ("to_the_start_of_time", std::time::UNIX_EPOCH),
        ("to_the_start", start),
    ];
    for (at, (words, to)) in jumps.into_iter().enumerate() {
        clock.set(to);
        cx.log().push(format!("-- the clock goes {words} --"));
        let (writer, reader) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        all_is(reader, &model).await?;
        // Deadlines are points of another clock: an hour ahead is ahead, and a moment ago is past.
        fill(writer, &mut model, words, "5.1", at * 700).await?;
        fill(writer, &mut model, "shared", words, 100).await?;
        if at % 2 == 1 {
            writer.delete("shared").await?;
            model.delete("shared");
        }
        let late = reader.try_get(Instant::now(), "before").await;
        refused("get with a passed deadline", late, ErrorKind::Timeout)?;
        all_is(reader, &model).await?;
        all_is(&cx.open_as("late", "p").await?, &model).await?;
    }
    Ok(())
}

/// One call with arguments that nobody would choose.
#[derive(Clone, Debug)]
enum Wild {
    Get(String),
    GetBytes(String),
    GetRange(String, u64, u64),
    List,
    ListPrefix(String),
    Set(String, usize, Atomicity),
    Delete(String),
}

fn wild_key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<String>(),
        2 => "[a-c/.]{0,6}",
        1 => "\\PC{0,40}",
        1 => Just(String::new()),
        1 => (1..70_000_usize).prop_map(long_key),
        1 => (1..400_usize).prop_map(|n| "\u{10FFFF}".repeat(n)),
        1 => (1..600_usize).prop_map(|n| "../".repeat(n)),
        1 => (1..600_usize).prop_map(|n| "%00".repeat(n)),
        1 => prop::collection::vec(any::<char>(), 0..300).prop_map(|chars| chars.into_iter().collect()),
    ]
}

fn wild() -> impl Strategy<Value = Wild> {
    let point = || {
        prop_oneof![
            Just(0),
            Just(u64::MAX),
            Just(i64::MAX.unsigned_abs()),
            Just(u64::from(u32::MAX)),
            0..20_u64,
            any::<u64>(),
        ]
    };
    let atomic = prop_oneof![
        Just(Atomicity::RequireAtomic),
        Just(Atomicity::AllowNonAtomic)
    ];
    prop_oneof![
        2 => wild_key().prop_map(Wild::Get),
        1 => wild_key().prop_map(Wild::GetBytes),
        // Ranges of the key that is there, and of any other; half of them end before they start.
        2 => (prop_oneof![Just("k".to_owned()), wild_key()], point(), point())
            .prop_map(|(key, start, end)| Wild::GetRange(key, start, end)),
        1 => Just(Wild::List),
        1 => wild_key().prop_map(Wild::ListPrefix),
        4 => (wild_key(), prop_oneof![0..9_usize, Just(70_000)], atomic)
            .prop_map(|(key, len, atomic)| Wild::Set(key, len, atomic)),
        2 => wild_key().prop_map(Wild::Delete),
    ]
}

/// Deadlines that have passed, that pass during the call, and that lie ages ahead.
fn wild_deadline(pick: u32) -> Instant {
    let now = Instant::now();
    let ahead = match pick % 8 {
        0 => return now.checked_sub(Duration::from_secs(1)).unwrap_or(now),
        1 => Duration::ZERO,
        2 => Duration::from_micros(u64::from(pick % 500)),
        3 => Duration::from_secs(1_000_000_000),
        _ => Duration::from_secs(60),
    };
    now.checked_add(ahead).unwrap_or(now)
}

async fn c_3_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut runner = TestRunner::new_with_rng(Config::default(), cx.rng());
    let mut rng = cx.rng();
    a.set("k", "value").await?;
    for at in 0..cx.model_operations() {
        let call = wild()
            .new_tree(&mut runner)
            .map_err(|e| Stop::Inconclusive(format!("no arguments could be generated: {e}")))?
            .current();
        let handle = if at % 2 == 0 { &a } else { &b };
        let deadline = wild_deadline(rng.next_u32());
        let result = cx
            .within(
                Duration::from_secs(30),
                "a call with extreme arguments",
                perform(handle, &call, deadline),
            )
            .await?;
        if let Err(e) = result {
            let read = !matches!(call, Wild::Set(..) | Wild::Delete(_));
            classified(&call, &e, read, deadline)?;
        }
    }
    // Neither handle has come to harm.
    for (writer, reader) in [(&a, &b), (&b, &a)] {
        writer.set("k", writer.name()).await?;
        get_is(reader, "k", Some(writer.name().as_bytes())).await?;
    }
    Ok(())
}

async fn perform(handle: &Handle, call: &Wild, deadline: Instant) -> Result<(), ExternalError> {
    match call {
        Wild::Get(key) => handle.try_get(deadline, key).await.map(drop),
        Wild::GetBytes(key) => handle.try_get_bytes(deadline, key).await.map(drop),
        Wild::GetRange(key, start, end) => {
            let read = handle.try_get_range(deadline, key, *start..*end).await;
            read.map(drop)
        }
        Wild::List => handle.try_list(deadline).await.map(drop),
        Wild::ListPrefix(prefix) => handle.try_list_prefix(deadline, prefix).await.map(drop),
        Wild::Set(key, len, atomic) => {
            let value = pattern(key, *len);
            handle.try_set(deadline, key, value, *atomic).await
        }
        Wild::Delete(key) => handle.try_delete(deadline, key).await,
    }
}

/// Fails unless an error is one that arguments can lead to.
fn classified(call: &Wild, e: &ExternalError, read: bool, deadline: Instant) -> Outcome {
    let refused = e.kind() == ErrorKind::InvalidInput;
    let expected = if refused && e.outcome() != Effect::NotApplied {
        "InvalidInput comes before any effect, as NotApplied"
    } else if read && e.outcome() != Effect::NotApplied {
        "an error of a read is NotApplied"
    } else if e.kind() == ErrorKind::Timeout && Instant::now() + CLOSE < deadline {
        "Timeout only once the deadline has passed"
    } else if matches!(
        e.kind(),
        ErrorKind::Internal | ErrorKind::Corrupt | ErrorKind::Conflict
    ) {
        "an argument that cannot be served is InvalidInput"
    } else {
        return Ok(());
    };
    Err(Stop::fail(crate::cx::brief(call), describe(e), expected))
}

async fn c_3_3(cx: &Cx<dyn World>) -> Outcome {
    damage::ends(cx, |cx| Box::pin(work::hire(cx))).await
}
