//! What calls cost: measured and told. A machine that is busy is no defect of a store, so nothing is judged by it.

use std::time::{Duration, Instant};

use crate::check::Stop;
use crate::profile::Profile;

/// How many calls a median is taken of.
const CALLS: usize = 25;

/// The median of what such a call takes.
pub(crate) async fn median(
    mut call: impl AsyncFnMut() -> Result<(), Stop>,
) -> Result<Duration, Stop> {
    let mut took = Vec::new();
    for _ in 0..CALLS {
        let started = Instant::now();
        call().await?;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    Ok(took.get(CALLS / 2).copied().unwrap_or_default())
}

/// How many things there are among few and among many, where the cost of one should not depend on it.
pub(crate) fn few_and_many(profile: Profile, is_remote: bool) -> [usize; 2] {
    match profile {
        Profile::Quick if is_remote => [5, 50],
        Profile::Quick => [20, 1_000],
        Profile::Standard | Profile::Soak if is_remote => [20, 500],
        Profile::Standard | Profile::Soak => [100, 100_000],
    }
}

/// The end of a check that measures: it has seen nothing that speaks for the store or against it.
pub(crate) fn told(what: impl Into<String>) -> Stop {
    Stop::Ignored(format!("measured: {}", what.into()))
}

/// How the cost of `call` with few things and with many is told.
pub(crate) fn compared(call: &str, sizes: [usize; 2], took: [Duration; 2]) -> Stop {
    let [few, many] = took;
    let ratio = many.as_secs_f64() / few.as_secs_f64().max(1e-9);
    let [a_few, a_lot] = sizes;
    told(format!(
        "{call} takes {ratio:.1} times as long among {a_lot} as among {a_few}"
    ))
}
