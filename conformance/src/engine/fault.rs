//! A medium that fails: at its first call, at its second, and so on until the fault is no longer met.

use crate::check::{Outcome, Stop};
use crate::fixture::{FaultKind, Faults};

/// More calls to the medium than one operation of a store may need.
const CALLS_MAX: u64 = 200;

/// Makes the first, the second, … call to the medium fail in turn, until `attempt` gets through without meeting the
/// fault. `attempt` performs the operation, calls `disarm`, judges what it finds, and returns what `disarm` said.
pub(crate) async fn each_call<A, F>(faults: &dyn Faults, kind: FaultKind, mut attempt: A) -> Outcome
where
    A: FnMut(u64) -> F,
    F: Future<Output = Result<bool, Stop>>,
{
    for nth in 1..=CALLS_MAX {
        faults.arm(nth, kind);
        let met = attempt(nth).await?;
        if !met && nth == 1 {
            return Err(Stop::Inconclusive("the fault was never met".into()));
        }
        if !met {
            return Ok(());
        }
    }
    Err(Stop::Inconclusive(format!(
        "the operation still made calls to its medium after {CALLS_MAX} of them"
    )))
}
