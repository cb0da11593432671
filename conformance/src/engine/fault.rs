//! A medium that fails: at its first call, at its second, and so on until the fault is no longer met.

use std::time::{Duration, Instant};

use futures_util::future::join;

use crate::check::{Outcome, Stop};
use crate::fixture::{FaultKind, Faults};

/// More calls to the medium than one operation of a store may need.
const CALLS_MAX: u64 = 200;

/// Makes the first, the second, … call to the medium fail in turn, until `attempt` gets through without meeting the
/// fault. `attempt` performs the operation, calls `disarm`, judges what it finds, and returns what `disarm` said.
pub(crate) async fn each_call<A, F>(faults: &dyn Faults, kind: FaultKind, attempt: A) -> Outcome
where
    A: FnMut(u64) -> F,
    F: Future<Output = Result<bool, Stop>>,
{
    enough(each_met(faults, kind, attempt).await?)
}

/// As [`each_call`], for operations that may need no call to their medium; how often the fault was met.
pub(crate) async fn each_met<A, F>(
    faults: &dyn Faults,
    kind: FaultKind,
    mut attempt: A,
) -> Result<u64, Stop>
where
    A: FnMut(u64) -> F,
    F: Future<Output = Result<bool, Stop>>,
{
    for nth in 1..=CALLS_MAX {
        faults.arm(nth, kind);
        if !attempt(nth).await? {
            return Ok(nth - 1);
        }
    }
    Err(Stop::Inconclusive(format!(
        "the operation still made calls to its medium after {CALLS_MAX} of them"
    )))
}

/// Inconclusive unless a fault was met at all.
pub(crate) fn enough(met: u64) -> Outcome {
    if met == 0 {
        return Err(Stop::Inconclusive("the fault was never met".into()));
    }
    Ok(())
}

/// How long a call on a medium that is well is given to meet its fault: by the fastest of a few, since one may have been
/// held up by the machine, and who waits for too long comes behind what there was to see.
pub(crate) async fn patience(call: impl AsyncFn() -> Outcome) -> Result<Duration, Stop> {
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        call().await?;
        least = least.min(begun.elapsed());
    }
    Ok(2 * least + Duration::from_millis(2))
}

/// A write whose effect is seen takes effect no second time: `call` loses the `nth` answer of its medium, and where others
/// see its effect, one of them writes `over` it, be the call under way or not. That stays. Tells whether the fault was met.
pub(crate) async fn seen_once(
    faults: &dyn Faults,
    nth: u64,
    patience: Duration,
    call: impl Future,
    is_seen: impl AsyncFnOnce() -> bool,
    over: impl AsyncFnOnce() -> bool,
    stays: impl AsyncFnOnce() -> Outcome,
) -> Result<bool, Stop> {
    faults.arm(nth, FaultKind::ErrorAfter);
    let others = async {
        tokio::time::sleep(patience).await;
        let met = faults.disarm();
        (met, met && is_seen().await && over().await)
    };
    // How the call ends is what other checks ask.
    let (_, (met, is_over)) = join(call, others).await;
    if is_over {
        stays().await?;
    }
    Ok(met)
}
