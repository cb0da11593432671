//! A medium that fails: at its first call, at its second, and so on until the fault is no longer met.

use std::time::Instant;

use proptest::prelude::*;

use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::fixture::{FaultKind, Faults, World};

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

/// Many times, each at a place of its own, since what is left without an answer at one is no part of the next: calls
/// `attempt` with the place, and with the number and the kind of the call to the medium that shall fail. It arms,
/// disarms, and returns what `disarm` said.
pub(crate) async fn at_many_places<W, A>(cx: &Cx<W>, what: &str, mut attempt: A) -> Outcome
where
    W: World + ?Sized,
    A: AsyncFnMut(String, u64, FaultKind) -> Result<bool, Stop>,
{
    /// The calls among which one is chosen, as a power of two: most often an early one.
    const NTH_LOG_MAX: u32 = 6;
    /// So many times at least, however long it takes.
    const PLACES_MIN: usize = 10;
    let until = Instant::now() + cx.patience() / 4;
    let mut rng = cx.rng();
    let mut met = 0;
    for at in 0..cx.lin_epochs() {
        let kinds = [FaultKind::ErrorBefore, FaultKind::ErrorAfter];
        let kind = kinds[rng.random_range(0..kinds.len())];
        let below = 1 << rng.random_range(1..=NTH_LOG_MAX);
        let nth = rng.random_range(1..=below);
        let place = format!("{what}/{at}");
        cx.log().push(format!("{place}: {kind:?} at call {nth}"));
        met += u64::from(attempt(place, nth, kind).await?);
        if at >= PLACES_MIN && Instant::now() > until {
            break;
        }
    }
    enough(met)
}

/// Inconclusive unless a fault was met at all.
pub(crate) fn enough(met: u64) -> Outcome {
    if met == 0 {
        return Err(Stop::Inconclusive("the fault was never met".into()));
    }
    Ok(())
}
