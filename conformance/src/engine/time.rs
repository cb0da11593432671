//! Time that passes: on the test clock at once, else for real and within bounds.

use std::time::{Duration, Instant};

use larder_traits::ClockSource;

use crate::check::Stop;
use crate::cx::Cx;
use crate::fixture::World;

/// The longest real wait of a check.
pub(crate) const REAL_WAIT_MAX: Duration = Duration::from_secs(5);

/// Lets `by` pass. How much more passed than that is the answer: nothing on a test clock, and on a real one what the
/// machine came late. A verdict must not rest on what lies within it.
pub(crate) async fn pass<W: World + ?Sized>(cx: &Cx<W>, by: Duration) -> Result<Duration, Stop> {
    cx.log().push(format!("-- {by:?} pass --"));
    if cx.caps.clock == ClockSource::Injected
        && let Some(clock) = cx.world().clock()
    {
        clock.advance(by);
        return Ok(Duration::ZERO);
    }
    if by > REAL_WAIT_MAX {
        return Err(Stop::Ignored(format!(
            "needs the power clock(), or {by:?} of real time"
        )));
    }
    let started = Instant::now();
    tokio::time::sleep(by).await;
    Ok(started.elapsed().saturating_sub(by))
}
