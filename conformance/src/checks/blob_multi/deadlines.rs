//! BM-7: deadlines.

use std::time::{Duration, Instant};

use larder_traits::{Atomicity, ErrorKind};

use super::{all_is, faults, fill, get_is, read_is, same_lines, slow};
use crate::blob_multi::{Handle, World, patient};
use crate::check::{Check, Engine, Outcome, Stop};
use crate::checks::{pattern, refused};
use crate::cx::Cx;
use crate::engine::canary::Canary;
use crate::model::blob_multi::Blobs;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BM-7.1",
        "a deadline that has passed: Timeout at once from every method, and no effect for 1 s",
    )
    .kills("effect first")
    .run(|cx| Box::pin(bm_7_1(cx))),
    Check::new(
        "BM-7.2",
        "a request that hangs, in every method: back in time, writes as Unknown",
    )
    .kills("no timer")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(slow::bm_7_2(cx))),
    Check::new("BM-7.3", "deadlines of days, decades and ages ahead")
        .kills("overflow")
        .run(|cx| Box::pin(bm_7_3(cx))),
    Check::new(
        "BM-7.4",
        "pool full, lock held, failures that are slow to repeat: back in time, without effect where so told",
    )
    .kills("waits and retries outside the timer, a call that was given up in a queue and is made all the same")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(slow::bm_7_4(cx))),
    Check::new("BM-7.5", "other failures are not of kind Timeout")
        .kills("wrong kind")
        .engines(&[Engine::Fault])
        .run(|cx| Box::pin(faults::bm_7_5(cx))),
    Check::new(
        "BM-7.6",
        "a call beside one of the same key that gets no answer has its own deadline",
    )
    .kills("calls made together under the deadline of the first")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(slow::bm_7_6(cx))),
];

/// How late a call may come back (BM-7).
const GRACE: Duration = Duration::from_millis(250);
/// How near its deadline a call may be given up: clocks that differ by so little say the same, and who knows how long the
/// server takes need not ask it.
pub(super) const CLOSE: Duration = Duration::from_millis(20);
/// How long a refused write is watched for.
pub(super) const WATCH: Duration = Duration::from_secs(1);
/// Fails if a call with a deadline that has passed took more than the grace, unless the machine was late as well.
fn prompt(canary: &Canary, call: &str, took: Duration) -> Outcome {
    late_by(
        canary,
        &format!("{call} with a deadline that has passed"),
        took,
    )
}

/// Fails if a call came back later than the grace after its deadline, unless the machine was late as well.
pub(super) fn late_by(canary: &Canary, call: &str, took: Duration) -> Outcome {
    if took <= GRACE {
        return Ok(());
    }
    if let Some(why) = canary.excuses(GRACE, took) {
        return Err(Stop::Inconclusive(format!(
            "{call}: {took:?} late, but {why}"
        )));
    }
    Err(Stop::late(
        call,
        format!("an answer {took:?} after its deadline"),
        format!("an answer within {GRACE:?} of it"),
    ))
}

async fn bm_7_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut model = Blobs::default();
    for (key, len) in [("old", 100), ("k", 70_000), ("k/x", 3)] {
        fill(&a, &mut model, key, "7.1", len).await?;
    }
    let canary = &Canary::start();
    let now = Instant::now();
    let ago = |past| now.checked_sub(past).unwrap_or(now);
    let passed = [
        now,
        ago(Duration::from_millis(1)),
        ago(Duration::from_secs(1)),
        ago(Duration::from_secs(3_600)),
    ];
    for (at, deadline) in passed.into_iter().enumerate() {
        let handle = if at % 2 == 0 { &a } else { &b };
        writes_refused(handle, canary, deadline).await?;
        reads_refused(handle, canary, deadline).await?;
    }
    // The refused calls may not arrive later either.
    let started = Instant::now();
    loop {
        all_is(&a, &model).await?;
        all_is(&b, &model).await?;
        if started.elapsed() > WATCH {
            break;
        }
        tokio::time::sleep(WATCH / 10).await;
    }
    // A refused call leaves the handle as good as it was.
    for handle in [&a, &b] {
        fill(handle, &mut model, "old", handle.name(), 50).await?;
        all_is(handle, &model).await?;
    }
    Ok(())
}

async fn writes_refused(handle: &Handle, canary: &Canary, deadline: Instant) -> Outcome {
    for atomic in [Atomicity::RequireAtomic, Atomicity::AllowNonAtomic] {
        for (key, len) in [("old", 90), ("new", 90), ("new/large", 100_000), ("k", 0)] {
            let value = pattern("too late", len);
            let started = Instant::now();
            let result = handle.try_set(deadline, key, value, atomic).await;
            prompt(canary, "set", started.elapsed())?;
            refused("set with a passed deadline", result, ErrorKind::Timeout)?;
        }
    }
    for key in ["old", "absent", "k"] {
        let started = Instant::now();
        let result = handle.try_delete(deadline, key).await;
        prompt(canary, "delete", started.elapsed())?;
        refused("delete with a passed deadline", result, ErrorKind::Timeout)?;
    }
    Ok(())
}

async fn reads_refused(handle: &Handle, canary: &Canary, deadline: Instant) -> Outcome {
    let timeout = ErrorKind::Timeout;
    for key in ["old", "absent"] {
        let started = Instant::now();
        let result = handle.try_get(deadline, key).await;
        prompt(canary, "get", started.elapsed())?;
        refused("get with a passed deadline", result, timeout)?;
        let started = Instant::now();
        let result = handle.try_get_bytes(deadline, key).await;
        prompt(canary, "get_bytes", started.elapsed())?;
        refused("get_bytes with a passed deadline", result, timeout)?;
        let started = Instant::now();
        let result = handle.try_get_range(deadline, key, 0..10).await;
        prompt(canary, "get_range", started.elapsed())?;
        refused("get_range with a passed deadline", result, timeout)?;
    }
    let started = Instant::now();
    let result = handle.try_list(deadline).await;
    prompt(canary, "list_keys", started.elapsed())?;
    refused("list_keys with a passed deadline", result, timeout)?;
    for prefix in ["k", "nothing"] {
        let started = Instant::now();
        let result = handle.try_list_prefix(deadline, prefix).await;
        prompt(canary, "list_prefix", started.elapsed())?;
        refused("list_prefix with a passed deadline", result, timeout)?;
    }
    Ok(())
}

async fn bm_7_3(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let second = Duration::from_secs(1);
    let ahead = [
        // The largest numbers of milliseconds that 31 and 32 bits hold, and one more of each.
        Duration::from_millis(i32::MAX.unsigned_abs().into()),
        Duration::from_millis(1 << 31),
        Duration::from_millis(u32::MAX.into()),
        Duration::from_millis(1 << 32),
        // 31 bits of seconds, the billion of the clause, 64 bits of nanoseconds, and ages.
        second * i32::MAX.unsigned_abs(),
        second * 1_000_000_000,
        Duration::from_secs(1 << 32),
        Duration::from_nanos(u64::MAX),
        Duration::from_secs(1_000_000_000_000),
    ];
    for (at, ahead) in ahead.into_iter().enumerate() {
        let Some(deadline) = Instant::now().checked_add(ahead) else {
            // The platform's clock does not reach that far, so no caller can ask for it.
            continue;
        };
        let (writer, reader) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let call = format!("with a deadline {ahead:?} ahead");
        let bound = Duration::from_secs(30);
        cx.within(bound, &call, every_method(writer, reader, deadline, &call))
            .await??;
    }
    Ok(())
}

async fn every_method(writer: &Handle, reader: &Handle, deadline: Instant, call: &str) -> Outcome {
    let failed = |method: &str, e| Stop::error(format!("{method} {call}"), &e);
    for atomic in [Atomicity::RequireAtomic, Atomicity::AllowNonAtomic] {
        let set = patient(|| writer.try_set(deadline, "k", "value", atomic)).await;
        set.map_err(|e| failed("set", e))?;
        let value = patient(|| reader.try_get(deadline, "k")).await;
        let value = value.map_err(|e| failed("get", e))?;
        read_is("get", "k", value, Some(b"value"))?;
        let value = patient(|| reader.try_get_bytes(deadline, "k")).await;
        let value = value.map_err(|e| failed("get_bytes", e))?;
        read_is("get_bytes", "k", value, Some(b"value"))?;
        let value = patient(|| reader.try_get_range(deadline, "k", 1..3)).await;
        let value = value.map_err(|e| failed("get_range", e))?;
        read_is("get_range", "k", value, Some(b"al"))?;
        let keys = patient(|| reader.try_list(deadline)).await;
        let keys = keys.map_err(|e| failed("list_keys", e))?;
        same_lines("list_keys()", &keys, &["k".to_owned()])?;
        let found = patient(|| reader.try_list_prefix(deadline, "k")).await;
        let found = found.map_err(|e| failed("list_prefix", e))?;
        same_lines(
            "list_prefix(\"k\")",
            &found,
            &[larder_traits::BlobInfo::new("k", 5)],
        )?;
        let deleted = patient(|| writer.try_delete(deadline, "k")).await;
        deleted.map_err(|e| failed("delete", e))?;
        get_is(reader, "k", None).await?;
    }
    Ok(())
}
