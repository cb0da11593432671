//! Writers that are stopped at any of their steps while time goes on for others, and calls that are never answered.

use std::sync::Arc;
use std::time::Duration;

use larder_conformance::lin::ModelName;
use larder_conformance::schedule::Run;
use larder_conformance::{FaultKind, Faults};
use larder_traits::{Clock, Metadata, TestClock};

use super::checks::{Checked, join, may_keep, plain, worlds};
use super::{Calls, Does, LEASE, Made, Make, Parts, Start, World, recover};

/// What others do while a writer is stopped.
pub(super) const MEANWHILE: [&[Does]; 5] = [
    &[],
    &[Does::PutSmall],
    &[Does::Delete],
    &[Does::PutLarge],
    &[Does::PutLarge, Does::PutSmall],
];

/// A pause that is longer than a lease, by clocks that are the same.
pub(super) const LONG: (Duration, Duration) = (Duration::from_secs(60), Duration::ZERO);

/// A clock that is ahead of the world's by so much.
pub(super) fn clock_ahead(world: &World, ahead: Duration) -> Checked<Arc<TestClock>> {
    let clock = Arc::new(TestClock::new());
    let behind = world.clock.now().duration_since(clock.now());
    clock.advance(behind.map_err(|e| e.to_string())? + ahead);
    Ok(clock)
}

/// Lets a writer go on to its answer, and does something after each of its steps.
pub(super) fn answered(run: &Run, calls: &Calls, after_each: impl Fn()) -> Checked<()> {
    while !calls.is_answered(0) {
        if run.go_steps(1) {
            return Err("a writer that was stopped waits for what never comes".into());
        }
        after_each();
    }
    Ok(())
}

/// All processes have ended, and the next one recovers what they have left.
pub(super) fn judge(world: &World, start: Start, calls: &Calls, make: Make<'_>) -> Checked<()> {
    let run = plain();
    let store = world.recovered(&run, make)?;
    calls.last_look(&run, &store);
    calls.explained(start, ModelName::Register)?;
    world.in_order(may_keep(world))
}

/// A writer, and the process that goes on while it is stopped.
pub(super) struct Stop {
    pub(super) world: World,
    start: Start,
    pub(super) calls: Calls,
    pub(super) run: Run,
    store: Made,
    others: Run,
    other: Made,
    /// Whether the writer's call had come to its end before it was stopped.
    pub(super) is_over: bool,
    /// How many payloads there were when it was stopped.
    payloads: usize,
}

impl Stop {
    /// Stops a writer after so many steps and for so long, recovers all that it has left in a process whose clock is
    /// ahead by so much, and lets others write.
    pub(super) fn at(
        world: World,
        (start, does, then): (Start, Does, &[Does]),
        steps: usize,
        (pause, ahead): (Duration, Duration),
        make: Make<'_>,
    ) -> Checked<Self> {
        Self::begun(
            world,
            (start, does, then),
            steps,
            (pause, ahead),
            &|_| {},
            make,
        )
    }

    /// As [`at`](Self::at), with something that happens before the writer begins.
    pub(super) fn begun(
        world: World,
        (start, does, then): (Start, Does, &[Does]),
        steps: usize,
        (pause, ahead): (Duration, Duration),
        before: &dyn Fn(&World),
        make: Make<'_>,
    ) -> Checked<Self> {
        let (run, others) = (plain(), plain());
        let (calls, metadata) = (Calls::default(), Metadata::new());
        let store = world.open(&run, make);
        start.prepare(&run, &store, &metadata);
        before(&world);
        calls.make(&run, 0, &store, does, &metadata);
        let is_over = run.go_steps(steps);
        world.switch.disarm();
        let payloads = world.long.held().rows;
        world.clock.advance(pause);
        let theirs = clock_ahead(&world, ahead)?;
        let other = world.open(&others, &|parts: Parts| {
            let clock = Arc::clone(&theirs);
            match ahead.is_zero() {
                true => make(parts),
                false => make(Parts { clock, ..parts }),
            }
        });
        recover(&others, &other)?;
        calls.last_look(&others, &other);
        for (client, does) in (1..).zip(then) {
            others.finish(calls.call(client, &other, *does, &metadata));
        }
        join(&others, &other);
        calls.last_look(&others, &other);
        Ok(Self {
            world,
            start,
            calls,
            run,
            store,
            others,
            other,
            is_over,
            payloads,
        })
    }

    /// Lets the writer go on to its answer; somebody reads after each of its steps.
    pub(super) fn goes_on(&self) -> Checked<()> {
        answered(&self.run, &self.calls, || {
            self.calls.last_look(&self.others, &self.other);
        })?;
        join(&self.run, &self.store);
        self.calls.last_look(&self.others, &self.other);
        Ok(())
    }

    /// All processes end, and the next one recovers what they have left.
    pub(super) fn judge(&self, make: Make<'_>) -> Checked<()> {
        self.run.crash();
        self.others.crash();
        judge(&self.world, self.start, &self.calls, make)
    }
}

/// TS-7: a writer is stopped at each of its steps for longer than its lease, others recover and write meanwhile, and it
/// goes on. How often that was, and how often the writer took its own redirect out again.
pub fn stopped_writer(make: Make<'_>) -> Checked<(usize, usize)> {
    let (mut stops, mut taken_out) = (0, 0);
    for open in worlds() {
        for start in Start::ALL {
            for does in Does::WRITES {
                for then in MEANWHILE {
                    for steps in 0.. {
                        let told = |why: String, calls: &Calls| {
                            format!(
                                "{start:?}, {does:?} stopped after {steps} steps, meanwhile {then:?}\n{calls:?}{why}"
                            )
                        };
                        let stop = Stop::at(open(), (start, does, then), steps, LONG, make)?;
                        let gone_on = stop.goes_on();
                        let errors = stop.calls.errors();
                        let is_unsure = errors.iter().any(|e| e.starts_with("Conflict Unknown"));
                        let is_blind = does == Does::PutLarge && start != Start::Redirect;
                        // What recovery swapped in is gone again, and the writer cannot know.
                        let is_emptied = then == [Does::Delete];
                        if is_unsure && is_blind {
                            stop.calls.may_be_taken_out(0);
                            taken_out += 1;
                        }
                        gone_on
                            .and_then(|()| stop.judge(make))
                            .and_then(|()| match is_unsure && !is_blind && !is_emptied {
                                true => Err("an error that leaves the outcome open".into()),
                                false => Ok(()),
                            })
                            .map_err(|why| told(why, &stop.calls))?;
                        stops += 1;
                        if stop.is_over {
                            break;
                        }
                    }
                }
            }
        }
    }
    Ok((stops, taken_out))
}

/// TS-7: a writer that replaces one payload by another is stopped, goes on, and is killed at each step after that.
pub fn stopped_and_killed(make: Make<'_>) -> Checked {
    let mut kills = 0;
    for then in MEANWHILE {
        for steps in 0.. {
            let mut was_over = false;
            for more in 0.. {
                let what = (Start::Redirect, Does::PutLarge, then);
                let stop = Stop::at(World::new(), what, steps, LONG, make)?;
                was_over = stop.is_over;
                let has_ended = stop.run.go_steps(more);
                let mut judged = stop.judge(make);
                // An upload that lands behind the back of recovery is a matter for the audit.
                if stop.payloads < 2 && !stop.is_over {
                    judged = judged.or_else(|why| match why.starts_with("an orphan") {
                        true => Ok(()),
                        false => Err(why),
                    });
                }
                judged.map_err(|why| {
                    let calls = &stop.calls;
                    format!("stopped after {steps} steps, meanwhile {then:?}, killed after {more} more\n{calls:?}{why}")
                })?;
                kills += 1;
                if has_ended {
                    break;
                }
            }
            if was_over {
                break;
            }
        }
    }
    Ok(kills)
}

/// TS-7: the high-volume tier refuses every swap of a writer that is stopped at each of its steps, and of no others.
pub fn stopped_and_refused(make: Make<'_>) -> Checked {
    let mut stops = 0;
    let refuse = |world: &World| {
        world.switch.only(&["compare_and_write"]);
        world.switch.arm_all(FaultKind::ErrorBefore);
    };
    for start in Start::ALL {
        for does in Does::WRITES {
            for then in MEANWHILE {
                for steps in 0.. {
                    let what = (start, does, then);
                    let stop = Stop::begun(World::new(), what, steps, LONG, &refuse, make)?;
                    refuse(&stop.world);
                    let gone_on = stop.goes_on();
                    stop.world.switch.disarm();
                    gone_on.and_then(|()| stop.judge(make)).map_err(|why| {
                        let calls = &stop.calls;
                        format!("{what:?} refused, stopped after {steps} steps\n{calls:?}{why}")
                    })?;
                    stops += 1;
                    if stop.is_over {
                        break;
                    }
                }
            }
        }
    }
    Ok(stops)
}

/// TS-7: a writer is stopped for a little less than its lease, and recovered by a process whose clock is ahead.
pub fn stopped_under_skew(make: Make<'_>) -> Checked {
    let mut stops = 0;
    let skewed = (LEASE - LEASE / 10, LEASE / 5);
    for start in Start::ALL {
        for then in MEANWHILE {
            for steps in 0.. {
                let what = (start, Does::PutLarge, then);
                let stop = Stop::at(World::new(), what, steps, skewed, make)?;
                let gone_on = stop.goes_on();
                let errors = stop.calls.errors();
                if errors.iter().any(|e| e.starts_with("Conflict Unknown")) {
                    stop.calls.may_be_taken_out(0);
                }
                gone_on.and_then(|()| stop.judge(make)).map_err(|why| {
                    let calls = &stop.calls;
                    format!(
                        "{start:?}, stopped after {steps} steps, meanwhile {then:?}\n{calls:?}{why}"
                    )
                })?;
                stops += 1;
                if stop.is_over {
                    break;
                }
            }
        }
    }
    Ok(stops)
}

/// More steps than any call takes that is answered; what hangs keeps its lease alive for ever.
const STEPS_OF_A_HANG: usize = 120;

/// TS-6 to TS-8: the first, second, … write to a tier or to the log takes effect and is never answered. Others recover
/// and write beside the call that hangs, then all end, and the next process recovers.
pub fn hangs(make: Make<'_>) -> Checked {
    let mut met = 0;
    for open in worlds() {
        for start in Start::ALL {
            for does in Does::WRITES {
                for then in MEANWHILE {
                    for nth in 1.. {
                        let (world, run, others) = (open(), plain(), plain());
                        let (calls, metadata) = (Calls::default(), Metadata::new());
                        let store = world.open(&run, make);
                        start.prepare(&run, &store, &metadata);
                        world.switch.hang_after(nth);
                        calls.make(&run, 0, &store, does, &metadata);
                        run.go_steps(STEPS_OF_A_HANG);
                        let is_met = world.switch.disarm();
                        let other = world.open(&others, make);
                        let mut judged = recover(&others, &other);
                        calls.last_look(&others, &other);
                        for (client, does) in (1..).zip(then) {
                            others.finish(calls.call(client, &other, *does, &metadata));
                        }
                        calls.last_look(&others, &other);
                        others.crash();
                        run.crash();
                        judged = judged.and_then(|()| {
                            let run = plain();
                            let store = world.recovered(&run, make)?;
                            calls.last_look(&run, &store);
                            calls.explained(start, ModelName::Register)?;
                            world.in_order(may_keep(&world))
                        });
                        judged.map_err(|why| {
                            let fenceless = world.fenceless;
                            format!("fence {fenceless:?}, {start:?}, {does:?}, write {nth} never answered, then {then:?}\n{calls:?}{why}")
                        })?;
                        if !is_met {
                            break;
                        }
                        met += 1;
                    }
                }
            }
        }
    }
    Ok(met)
}
