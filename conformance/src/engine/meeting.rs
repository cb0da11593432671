//! Calls that meet while something befalls some of them: one fails, or several are dropped.

use std::sync::Arc;
use std::time::Instant;

use larder_traits::Durability;
use proptest::prelude::*;
use proptest::test_runner::TestRng;

use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::engine::fault::enough;
use crate::fixture::{FaultKind, Faults, World};

/// What befalls some of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// One call to the medium fails.
    Failure,
    /// Calls are dropped on the way.
    Drop,
}

/// Calls that are made at the same time, at a place of their own.
pub(crate) struct Meeting {
    pub(crate) place: String,
    fault: Option<(Arc<dyn Faults>, u64, FaultKind)>,
    rng: TestRng,
}

impl Meeting {
    /// Lets one of the calls to the medium from now on fail, if that is the harm.
    pub(crate) fn arm(&self) {
        if let Some((faults, nth, kind)) = &self.fault {
            faults.arm(*nth, *kind);
        }
    }

    /// Calls to the medium go well again. Whether one failed.
    pub(crate) fn disarm(&self) -> bool {
        self.fault
            .as_ref()
            .is_some_and(|(faults, ..)| faults.disarm())
    }

    /// After how many polls the next call is dropped, if it is.
    pub(crate) fn polls(&mut self) -> Option<usize> {
        /// Most calls go well.
        const DROPPED_ONE_IN: u32 = 3;
        /// As a power of two: most often an early poll.
        const POLLS_LOG_MAX: u32 = 4;
        if self.fault.is_some() || !self.rng.random_ratio(1, DROPPED_ONE_IN) {
            return None;
        }
        let below = 1 << self.rng.random_range(0..=POLLS_LOG_MAX);
        Some(self.rng.random_range(1..=below))
    }
}

/// Holds many meetings, each at a place of its own, since what is left without an answer at one is no part of the next.
/// `hold` makes the calls and says what [`Meeting::disarm`] said.
pub(crate) async fn meetings<W, A>(cx: &Cx<W>, what: &str, harm: Harm, mut hold: A) -> Outcome
where
    W: World + ?Sized,
    A: AsyncFnMut(Meeting) -> Result<bool, Stop>,
{
    /// The calls to the medium among which one is chosen, as a power of two: most often an early one.
    const NTH_LOG_MAX: u32 = 6;
    /// So many at least, however long it takes.
    const MEETINGS_MIN: usize = 10;
    /// More places in one world are more than most worlds are made for; and one that is there for good takes room, in a file
    /// store some 36 MiB each.
    const PLACES_MAX: usize = 1_200;
    const LASTING_PLACES_MAX: usize = 400;
    let faults = match harm {
        Harm::Failure => Some(cx.faults()?),
        Harm::Drop => None,
    };
    let until = Instant::now() + cx.patience() / 4;
    let mut rng = cx.rng();
    let mut met = 0;
    let places_max = match cx.caps.durability {
        Durability::None => PLACES_MAX,
        Durability::Process | Durability::Power => LASTING_PLACES_MAX,
    };
    // Half of them are short, and in some nobody reads.
    for at in 0..(3 * cx.lin_epochs()).min(places_max) {
        let kinds = [FaultKind::ErrorBefore, FaultKind::ErrorAfter];
        let kind = kinds[rng.random_range(0..kinds.len())];
        let below = 1 << rng.random_range(1..=NTH_LOG_MAX);
        let nth = rng.random_range(1..=below);
        let meeting = Meeting {
            place: format!("{what}/{at}"),
            fault: faults.clone().map(|faults| (faults, nth, kind)),
            rng: TestRng::from_seed(
                proptest::test_runner::RngAlgorithm::ChaCha,
                &rng.random::<[u8; 32]>(),
            ),
        };
        cx.log().push(match harm {
            Harm::Failure => format!("{}: {kind:?} at call {nth}", meeting.place),
            Harm::Drop => format!("{}: calls are dropped", meeting.place),
        });
        met += u64::from(hold(meeting).await?);
        if at >= MEETINGS_MIN && Instant::now() > until {
            break;
        }
    }
    match harm {
        Harm::Failure => enough(met),
        // A store that never waits cannot be dropped on the way.
        Harm::Drop => Ok(()),
    }
}
