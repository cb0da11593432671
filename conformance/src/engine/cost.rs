//! What calls cost: measured and told. A machine that is busy is no defect of a store, so nothing is judged by it.

use std::time::{Duration, Instant};

use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::fixture::World;
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

/// Compares what `call` costs among few things and among many, `most` at the most, on which it should not depend.
/// `measure` makes a place with so many of them, and tells what one call takes there.
pub(crate) async fn compare<W: World + ?Sized>(
    cx: &Cx<W>,
    call: &str,
    most: usize,
    mut measure: impl AsyncFnMut(usize) -> Result<Duration, Stop>,
) -> Outcome {
    let is_remote = cx.world().is_remote();
    let [few, many] = match cx.profile {
        Profile::Quick if is_remote => [5, 50],
        Profile::Quick => [20, 1_000],
        Profile::Standard | Profile::Soak if is_remote => [20, 500],
        Profile::Standard | Profile::Soak => [100, 100_000],
    };
    let many = many.min(most);
    let among_few = measure(few).await?;
    let among_many = measure(many).await?;
    let ratio = among_many.as_secs_f64() / among_few.as_secs_f64().max(1e-9);
    Err(told(format!(
        "{call} takes {ratio:.1} times as long among {many} as among {few}"
    )))
}

/// The end of a check that measures: it has seen nothing that speaks for the store or against it.
pub(crate) fn told(what: impl Into<String>) -> Stop {
    Stop::Ignored(format!("measured: {}", what.into()))
}
