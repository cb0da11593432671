//! Power that goes off: a file system on a device that remembers everything, and what it may have kept at any moment.
//!
//! The work is done once, on a real ext4 file system with a journal. Each cut takes the device as it was after some
//! number of writes and flushes, drops or tears any of the writes since the last flush, mounts what is left, and opens
//! the place there.

#[cfg(all(feature = "power", target_os = "linux"))]
mod cut;
#[cfg(all(feature = "power", target_os = "linux"))]
mod device;
#[cfg(all(feature = "power", target_os = "linux"))]
mod mounts;

#[cfg(all(feature = "power", target_os = "linux"))]
pub(crate) use mounts::Reaper;

use super::work::Hire;
use crate::check::Outcome;
use crate::cx::Cx;
use crate::fixture::World;

/// Has the place worked on, cuts the power at many moments, and looks each time whether everything that was durable is
/// there and nothing is torn.
#[cfg(all(feature = "power", target_os = "linux"))]
pub(crate) async fn survives<W>(cx: &Cx<W>, hire: Hire<W>) -> Outcome
where
    W: World + ?Sized,
{
    cut::survives(cx, hire).await
}

/// The same, where there is no such device.
#[cfg(not(all(feature = "power", target_os = "linux")))]
#[expect(clippy::unused_async, reason = "with the feature it waits")]
pub(crate) async fn survives<W>(_: &Cx<W>, _: Hire<W>) -> Outcome
where
    W: World + ?Sized,
{
    use crate::check::Stop;

    let why = if cfg!(target_os = "linux") {
        "needs the feature `power` of larder-conformance, and root"
    } else {
        "needs Linux, the feature `power` of larder-conformance, and root"
    };
    Err(Stop::Ignored(why.into()))
}
