//! The catalogue: a table for each contract, in the order of the clauses.
//!
//! A check's id is never used again. What a check needs beyond the contract of a store it asks of the fixture, and is
//! ignored with a reason where the fixture cannot give it.

pub(crate) mod backend;
pub(crate) mod blob_multi;
pub(crate) mod blob_store;
pub(crate) mod change_log;
pub(crate) mod contents;
pub(crate) mod high_volume;
pub(crate) mod kv_client;
pub(crate) mod stash;

use std::time::Duration;

use larder_traits::{Caps, Classify, Durability, ErrorKind, Outcome};

use crate::check::{Check, Engine, Gate, Stop, describe};

/// For checks of what outlives a loss of power.
pub(crate) fn outlives_power(caps: &Caps) -> Gate {
    match caps.durability {
        Durability::Power => Gate::Run,
        Durability::None | Durability::Process => {
            Gate::Ignore("the loss of power is not declared to be survived")
        }
    }
}

/// Fails where a medium that fails cannot be the cause of the error (C-1).
pub(crate) fn of_the_medium(what: &str, e: &dyn Classify) -> Result<(), Stop> {
    let expected = match e.kind() {
        ErrorKind::InvalidInput | ErrorKind::Unsupported => "no kind that forbids to repeat it",
        ErrorKind::NotFound => "a failure of the medium is no absence",
        ErrorKind::Closed => "nobody has shut it down",
        ErrorKind::Internal => "a failure of the medium is no defect of the store",
        _ => return Ok(()),
    };
    Err(Stop::fail(what, describe(e), expected))
}

/// C-6.5, which each contract whose calls can be dropped runs on clients of its own.
pub(crate) const fn dropped_neighbours<W: ?Sized>() -> Check<W> {
    let what = "several calls at the same time of which some are dropped: what the others are told stays true";
    Check::new("C-6.5", what)
        .kills("a leader that takes its group along, an old copy put back")
        .engines(&[Engine::Cancel, Engine::Lin])
}

/// C-1.4, which each contract runs on clients of its own.
pub(crate) const fn failing_neighbours<W: ?Sized>() -> Check<W> {
    let what =
        "one of several calls at the same time meets a failure, and each knows what became of it";
    Check::new("C-1.4", what)
        .kills("undoing a neighbour's write, asking too late what became of one's own")
        .engines(&[Engine::Fault, Engine::Lin])
}

/// C-2 of many handles, under the id that the contract has for it; each runs it on handles of its own.
pub(crate) const fn many_handles<W: ?Sized>(id: &'static str) -> Check<W> {
    let what = "a hundred handles, one after the other: each works, and so do those that were there before";
    Check::new(id, what).kills("what a handle takes and does not give back")
}

/// C-2 of handles that open and close beside calls, under the id that the contract has for it.
pub(crate) const fn busy_neighbours<W: ?Sized>(id: &'static str) -> Check<W> {
    let what =
        "calls that are under way do what they say while other handles of the place open and close";
    Check::new(id, what)
        .kills("what others have under way is cleared by an open, or ended by a close")
}

/// Some moments on, in each round others: one more handle of the place, and the end of `idle`, the one or the other first.
pub(crate) async fn exchange<H>(
    round: usize,
    idle: H,
    open: impl Future<Output = Result<H, Stop>>,
) -> Result<H, Stop> {
    const PAUSES: [usize; 5] = [1, 2, 0, 3, 6];
    for _ in 0..PAUSES[round % PAUSES.len()] {
        tokio::task::yield_now().await;
    }
    if round % 4 == 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    if round.is_multiple_of(3) {
        let fresh = open.await?;
        drop(idle);
        return Ok(fresh);
    }
    drop(idle);
    open.await
}

/// A write that takes effect once, under the id that the contract has for it.
pub(crate) const fn seen_once<W: ?Sized>(id: &'static str) -> Check<W> {
    let what = "a write whose answer was lost and whose effect was seen does not come again over a later one";
    Check::new(id, what)
        .kills("a write made again over what came meanwhile")
        .engines(&[Engine::Fault])
}

/// Fails unless a call with odd arguments ended as it may: well, or refused before any effect.
pub(crate) fn ended<T>(what: &str, result: &Result<T, impl Classify>) -> Result<(), Stop> {
    match result {
        Err(e) if e.kind() != ErrorKind::InvalidInput || e.outcome() != Outcome::NotApplied => {
            let expected = "Ok, or InvalidInput and NotApplied";
            Err(Stop::fail(what, describe(e), expected))
        }
        _ => Ok(()),
    }
}

/// Fails unless the call was refused with this kind before it had any effect.
pub(crate) fn refused<T: std::fmt::Debug>(
    what: &str,
    result: Result<T, impl Classify>,
    kind: ErrorKind,
) -> Result<(), Stop> {
    match result {
        Err(e) if e.kind() == kind && e.outcome() == Outcome::NotApplied => Ok(()),
        Err(e) => Err(Stop::fail(
            what,
            describe(&e),
            format!("{kind}, NotApplied"),
        )),
        Ok(value) => Err(Stop::fail(
            what,
            format!("Ok({})", crate::cx::brief(&value)),
            format!("{kind}, NotApplied"),
        )),
    }
}

/// `len` bytes that are those of no other `tag`: a header, then a pattern that shifts, so that a cut, a repeated or a
/// swapped part shows.
pub(crate) fn pattern(tag: &str, len: usize) -> Vec<u8> {
    let start = crate::seed::hash(tag.as_bytes()) | 1;
    let mut state = start;
    let mut value = Vec::with_capacity(len + 8);
    while value.len() < len {
        // A 64-bit LCG; the high bits are good enough to tell places apart.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(start);
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(len);
    value
}
