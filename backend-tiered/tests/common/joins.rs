//! What is left to do where nobody waits for it any more, and who waits for that.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::decorate::Report;
use larder_conformance::lin::ModelName;
use larder_conformance::schedule::{Explorer, Run, step};
use larder_conformance::{FaultKind, Faults};
use larder_traits::{LateLanding, Metadata};

use super::checks::{Checked, plain};
use super::{Calls, Does, Make, Start, World};

/// More polls than a call takes.
const POLLS_MAX: usize = 200;

/// Enough steps for whatever goes on behind a join.
const STEPS: usize = 1_000;

/// Calls that are dropped, each after so many polls, and a join right after the last of them.
#[derive(Clone, Debug)]
struct Dropped {
    start: Start,
    calls: Vec<(Does, usize)>,
    /// How long removals wait for readers.
    grace: Duration,
    unanswered: Unanswered,
}

/// What is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unanswered {
    Nothing,
    /// The first, second, … call to a tier or to the log, which has its effect.
    Call(u64),
    /// All swaps, of which none has one. Nobody knows before the tier's bound for late writes is over.
    Swaps,
}

impl Unanswered {
    fn world(self, grace: Duration) -> World {
        let world = match self {
            Self::Swaps => World::fenceless(LateLanding::MayLandLate(Some(BOUND))),
            Self::Nothing | Self::Call(_) => World::new(),
        };
        World { grace, ..world }
    }

    fn arm(self, world: &World) {
        match self {
            Self::Nothing => {}
            Self::Call(nth) => world.switch.arm(nth, FaultKind::ErrorAfter),
            Self::Swaps => {
                world.switch.only(&["compare_and_write"]);
                world.switch.report(Report::Vague);
                world.switch.arm_all(FaultKind::ErrorBefore);
            }
        }
    }
}

/// How late a write lands at most.
const BOUND: Duration = Duration::from_secs(5);

impl Dropped {
    /// Whether all of them had come to their end before.
    fn run(&self, run: &Run, is_chosen: bool, make: Make<'_>) -> Checked<bool> {
        let world = Arc::new(self.unanswered.world(self.grace));
        let (calls, metadata) = (Calls::default(), Metadata::new());
        let store = world.open(run, make);
        self.start.prepare(run, &store, &metadata);
        self.unanswered.arm(&world);
        let polled: Vec<(BoxFuture<'static, ()>, usize)> = (0..)
            .zip(&self.calls)
            .map(|(client, (does, polls))| (calls.call(client, &store, *does, &metadata), *polls))
            .collect();
        let (theirs, joined) = (Arc::clone(&world), Arc::clone(&store));
        let is_answered = self.unanswered == Unanswered::Nothing;
        // One task, so that nothing takes a step between the last drop and the join, or the join and the look.
        let work = async move {
            let mut are_over = true;
            let rounds = polled.iter().map(|(_, polls)| *polls).max();
            let mut polled: Vec<_> = polled.into_iter().map(|it| (Some(it.0), it.1)).collect();
            for round in 0..=rounds.unwrap_or(0) {
                for (call, polls) in &mut polled {
                    if *polls == round {
                        are_over &= call.is_none();
                        drop(call.take());
                    } else if call.as_mut().is_some_and(|it| it.now_or_never().is_some()) {
                        *call = None;
                    }
                }
                if round < rounds.unwrap_or(0) {
                    step().await;
                }
            }
            joined.join().await;
            theirs.switch.forget_calls();
            // What is not known to be done may be left to recovery.
            let judged = match is_answered {
                true => theirs.in_order(false),
                false => Ok(()),
            };
            judged.map(|()| are_over)
        };
        let are_over = match is_chosen {
            false => run.finish(work),
            true => {
                let said = Arc::new(Mutex::new(None));
                let theirs = Arc::clone(&said);
                run.spawn(async move {
                    let judged = work.await;
                    *theirs.lock().unwrap() = Some(judged);
                });
                run.go();
                let judged = said.lock().unwrap().take();
                judged.unwrap_or_else(|| Err("no answer".into()))
            }
        };
        let are_over = are_over.map_err(|why| format!("after a join: {why}"))?;
        run.go_steps(STEPS);
        if world.switch.count() > 0 {
            let late = world.switch.calls();
            return Err(format!("work goes on after a join: {late:?}"));
        }
        world.switch.disarm();
        calls.last_look(run, &store);
        calls
            .explained(self.start, ModelName::Register)
            .map_err(|why| format!("{calls:?}{why}"))?;
        Ok(are_over)
    }

    fn checked(&self, run: &Run, is_chosen: bool, make: Make<'_>) -> Checked<bool> {
        self.run(run, is_chosen, make).map_err(|why| {
            let choices = run.choices();
            format!("{self:?}, choices {choices:?}\n{why}")
        })
    }
}

/// BK-5, TS-8: calls are dropped at each of their polls, one or two at once, and whoever joins then waits for what they
/// leave: nothing is left open then, and nothing goes on. Where an answer is lost the rest may be left to recovery.
pub fn joined_at_every_drop(make: Make<'_>, of_each: usize) -> Checked {
    let mut joins = 0;
    for start in Start::ALL {
        for does in Does::ALL {
            for grace in [Duration::ZERO, Duration::from_secs(10)] {
                for polls in 0..POLLS_MAX {
                    let dropped = Dropped {
                        start,
                        calls: vec![(does, polls)],
                        grace,
                        unanswered: Unanswered::Nothing,
                    };
                    let mut explorer = Explorer::sample(18, of_each);
                    while let Some(run) = explorer.next_run() {
                        dropped.checked(&run, true, make)?;
                    }
                    joins += explorer.runs() + 1;
                    if dropped.checked(&plain(), false, make)? {
                        break;
                    }
                }
            }
        }
        for one in Does::WRITES {
            for other in Does::WRITES {
                joins += two(start, [one, other], make)?;
            }
        }
        for does in Does::WRITES {
            joins += with_unanswered(start, does, make)?;
        }
    }
    Ok(joins)
}

/// Two calls, each dropped at each of its polls.
fn two(start: Start, does: [Does; 2], make: Make<'_>) -> Checked {
    let mut joins = 0;
    for first in 0..POLLS_MAX {
        let mut is_over = false;
        for second in 0..POLLS_MAX {
            let dropped = Dropped {
                start,
                calls: vec![(does[0], first), (does[1], second)],
                grace: Duration::ZERO,
                unanswered: Unanswered::Nothing,
            };
            is_over = dropped.checked(&plain(), false, make)?;
            joins += 1;
            // Where the first is dropped early, the two are never over.
            if is_over || second > first + POLLS_BETWEEN {
                break;
            }
        }
        if is_over {
            break;
        }
    }
    Ok(joins)
}

/// How much later than the first call the second one is dropped at most.
const POLLS_BETWEEN: usize = 15;

/// More polls than a call takes to its end or to its first pause.
const POLLS_UNANSWERED: usize = 30;

/// One call, dropped at each of its polls, where something is not answered.
fn with_unanswered(start: Start, does: Does, make: Make<'_>) -> Checked {
    let mut joins = 0;
    let calls = (1..=12).map(Unanswered::Call);
    for unanswered in calls.chain([Unanswered::Swaps]) {
        // One that waits before its next attempt does not come on here.
        for polls in 0..POLLS_UNANSWERED {
            let dropped = Dropped {
                start,
                calls: vec![(does, polls)],
                grace: Duration::ZERO,
                unanswered,
            };
            joins += 1;
            if dropped.checked(&plain(), false, make)? {
                break;
            }
        }
    }
    Ok(joins)
}
