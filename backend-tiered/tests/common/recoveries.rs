//! Recoveries that are interrupted, that are slow, and that run beside what their own process is at.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::FutureExt;
use larder_conformance::decorate::Call;
use larder_conformance::schedule::{Explorer, Run, step};
use larder_conformance::{FaultKind, Faults};
use larder_traits::{
    Change, ChangeId, ChangeLog, Classify, ErrorKind, Fault, LateLanding, Metadata, Step, WriterId,
};

use super::checks::{Checked, aftermath, join, plain};
use super::stopped::{LONG, MEANWHILE, Stop, answered, clock_ahead, judge};
use super::{Calls, Does, LEASE, Made, Make, Parts, Start, World};

/// A log that behaves in a way of its own.
struct Odd {
    inner: Arc<dyn ChangeLog>,
    /// A list of changes is so old when it comes.
    list_age: Duration,
    run: Option<Run>,
    swap: AfterSwap,
    /// Changes of others are struck out without a word, or not at all.
    is_silent: bool,
    /// Whether the next record of a swap is the one that is answered so.
    is_armed: Arc<AtomicBool>,
}

/// How the record of a swap ends, its effect done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterSwap {
    Panics,
    /// It and its repetitions.
    IsNeverAnswered,
}

impl std::fmt::Debug for Odd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Odd")
    }
}

#[async_trait]
impl ChangeLog for Odd {
    async fn record(&self, writer: WriterId, change: &Change) -> Result<(), Fault> {
        self.inner.record(writer, change).await?;
        if change.step != Step::Swap || !self.is_armed.load(SeqCst) {
            return Ok(());
        }
        if self.swap == AfterSwap::Panics {
            self.is_armed.store(false, SeqCst);
            // Without the hook, which would print each of them.
            resume_unwind(Box::new("a log that panics"));
        }
        Err(Fault::unknown(ErrorKind::Unavailable, "not answered"))
    }
    async fn complete(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
        match self.inner.complete(writer, id).await {
            Err(fault) if self.is_silent && fault.kind() == ErrorKind::Conflict => Ok(()),
            completed => completed,
        }
    }
    async fn changes(&self, writer: WriterId) -> Result<Vec<Change>, Fault> {
        let seen = self.inner.changes(writer).await;
        if let Some(run) = &self.run {
            run.sleep(self.list_age).await;
        }
        seen
    }
    async fn renew(&self, writer: WriterId, until: SystemTime) -> Result<(), Fault> {
        self.inner.renew(writer, until).await
    }
    async fn claim(
        &self,
        writer: WriterId,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<Change>, Fault> {
        self.inner.claim(writer, now, limit).await
    }
}

impl Odd {
    /// One in which nothing is odd yet.
    fn over(inner: Arc<dyn ChangeLog>) -> Self {
        Self {
            inner,
            list_age: Duration::ZERO,
            run: None,
            swap: AfterSwap::Panics,
            is_silent: false,
            is_armed: Arc::default(),
        }
    }
}

pub(super) fn spawn_recovery(run: &Run, store: &Made) {
    let store = Arc::clone(store);
    run.spawn(async move {
        drop(store.recover().await);
        store.join().await;
    });
}

/// A writer that was stopped for too long, over a row without a redirect, may have taken its own redirect out again.
fn allow_undoing(calls: &Calls, start: Start, does: Does) {
    let errors = calls.errors();
    let is_unsure = errors.iter().any(|e| e.starts_with("Conflict Unknown"));
    if is_unsure && does == Does::PutLarge && start != Start::Redirect {
        calls.may_be_taken_out(0);
    }
}

/// The parts, with a log that says nothing of it when a change is struck out that belongs to another.
pub fn silently(parts: Parts) -> Parts {
    let log = Odd {
        is_silent: true,
        ..Odd::over(parts.log)
    };
    Parts {
        log: Arc::new(log),
        ..parts
    }
}

/// A writer that was stopped, and whose change was claimed by a process that was killed.
struct ClaimedBack {
    start: Start,
    does: Does,
    /// After how many steps it was stopped, and the other process was killed.
    stopped_after: usize,
    killed_after: usize,
    /// How many steps of its own recovery come before it goes on.
    recovered: usize,
}

impl ClaimedBack {
    /// Whether the writer, the killed recovery and its own had come to their ends before, and whether the call went well.
    fn run(&self, make: Make<'_>) -> Checked<[bool; 4]> {
        let (world, run, calls) = (World::new(), plain(), Calls::default());
        let store = world.open(&run, make);
        self.start.prepare(&run, &store, &Metadata::new());
        calls.make(&run, 0, &store, self.does, &Metadata::new());
        let is_over = run.go_steps(self.stopped_after);
        world.clock.advance(LONG.0);
        let dying = plain();
        let other = world.open(&dying, make);
        spawn_recovery(&dying, &other);
        drop(other);
        let is_killed_late = dying.go_steps(self.killed_after);
        dying.crash();
        world.clock.advance(LONG.0);
        let own = plain();
        spawn_recovery(&own, &store);
        let is_recovered = own.go_steps(self.recovered);
        run.go();
        // The two are one process: one may wait for the other.
        while !own.go_steps(1) || !run.go_steps(1) {}
        join(&run, &store);
        calls.last_look(&run, &store);
        allow_undoing(&calls, self.start, self.does);
        run.crash();
        judge(&world, self.start, &calls, make).map_err(|why| format!("{calls:?}{why}"))?;
        Ok([is_over, is_killed_late, is_recovered, calls.all_done()])
    }
}

/// TS-7: a writer is stopped at each of its steps for longer than its lease. Another process recovers meanwhile, and is
/// killed at each of its steps. When the lease of that one has ended too, the writer goes on after each step of a
/// recovery of its own process.
pub fn claimed_back(make: Make<'_>) -> Checked {
    let mut runs = 0;
    for start in Start::ALL {
        for does in Does::WRITES {
            for stopped_after in 0.. {
                let mut was_over = false;
                for killed_after in 0.. {
                    let (mut was_killed_late, mut is_done_alone) = (false, false);
                    for recovered in 0.. {
                        let claimed = ClaimedBack {
                            start,
                            does,
                            stopped_after,
                            killed_after,
                            recovered,
                        };
                        let [is_over, is_killed_late, is_recovered, is_done] =
                            claimed.run(make).map_err(|why| {
                                format!("{start:?}, {does:?} stopped after {stopped_after} steps, a recovery killed after {killed_after}, {recovered} steps of its own\n{why}")
                            })?;
                        is_done_alone |= recovered == 0 && is_done;
                        if killed_after == 0 && is_done_alone && !is_done {
                            return Err(format!(
                                "{start:?}, {does:?} stopped after {stopped_after} steps fails beside {recovered} steps of its own recovery"
                            ));
                        }
                        (was_over, was_killed_late) = (is_over, is_killed_late);
                        runs += 1;
                        if is_recovered {
                            break;
                        }
                    }
                    if was_killed_late {
                        break;
                    }
                }
                if was_over {
                    break;
                }
            }
        }
    }
    Ok(runs)
}

/// TS-6, TS-7: a process recovers twice at once beside a write of its own, whose swap may be late; what the log tells of
/// its changes is old when it comes.
pub fn beside_its_own_work(make: Make<'_>, of_each: usize) -> Checked {
    let mut runs = 0;
    let worlds: [fn() -> World; 2] = [World::new, || {
        World::fenceless(LateLanding::MayLandLate(None))
    }];
    for open in worlds {
        for start in Start::ALL {
            for does in Does::WRITES {
                for (is_late, list_age) in [(false, 1), (true, 1), (true, 50), (true, 1_000)] {
                    let list_age = Duration::from_millis(list_age);
                    let mut explorer = Explorer::sample(17, of_each);
                    while let Some(run) = explorer.next_run() {
                        let (world, calls) = (open(), Calls::default());
                        let metadata = Metadata::new();
                        let store = world.open(&run, &|parts: Parts| {
                            let log = Odd {
                                list_age,
                                run: Some(parts.run.clone()),
                                ..Odd::over(parts.log)
                            };
                            make(Parts {
                                log: Arc::new(log),
                                ..parts
                            })
                        });
                        start.prepare(&run, &store, &metadata);
                        if is_late {
                            world.switch.only(&["compare_and_write"]);
                            world.switch.late(1);
                        }
                        calls.make(&run, 0, &store, does, &metadata);
                        spawn_recovery(&run, &store);
                        spawn_recovery(&run, &store);
                        run.go();
                        world.switch.disarm();
                        join(&run, &store);
                        calls.last_look(&run, &store);
                        let switch = world.switch.clone();
                        run.finish(async move { switch.deliver().await });
                        calls.last_look(&run, &store);
                        aftermath(&world, &run, &store, &calls, start, make).map_err(|why| {
                            let (fenceless, choices) = (world.fenceless, run.choices());
                            format!("fence {fenceless:?}, {start:?}, {does:?}, late {is_late}, a list {list_age:?} old, choices {choices:?}\n{calls:?}{why}")
                        })?;
                    }
                    runs += explorer.runs();
                }
            }
        }
    }
    Ok(runs)
}

/// More polls than a recovery takes that never has to pause.
const POLLS_MAX: usize = 100;

/// TS-7, TS-8: a recovery is dropped at each of its awaits. What it finds is left by a crash, or by a record that came
/// late and says of a put that it still uploads.
pub fn dropped(make: Make<'_>) -> Checked {
    let mut drops = 0;
    for start in Start::ALL {
        for late in 0..4 {
            for steps in [3, 5, 6, 7, 1_000] {
                for polls in 0..POLLS_MAX {
                    let (world, run, calls) = (World::new(), plain(), Calls::default());
                    let metadata = Metadata::new();
                    let store = world.open(&run, make);
                    start.prepare(&run, &store, &metadata);
                    if late > 0 {
                        world.switch.only(&["record"]);
                        world.switch.late(late);
                    }
                    calls.make(&run, 0, &store, Does::PutLarge, &metadata);
                    run.go_steps(steps.min(60));
                    world.switch.disarm();
                    run.crash();
                    let run = plain();
                    let switch = world.switch.clone();
                    run.finish(async move { switch.deliver().await });
                    world.clock.advance(LEASE * 2);
                    let store = world.open(&run, make);
                    let recovering = Arc::clone(&store);
                    let mut recovery = async move { drop(recovering.recover().await) }.boxed();
                    let is_over = run.finish(async move {
                        for _ in 0..polls {
                            if (&mut recovery).now_or_never().is_some() {
                                return true;
                            }
                            step().await;
                        }
                        false
                    });
                    join(&run, &store);
                    calls.last_look(&run, &store);
                    run.crash();
                    judge(&world, start, &calls, make).map_err(|why| {
                        format!("{start:?}, record {late} late, a crash after {steps} steps, a recovery dropped at poll {polls}\n{calls:?}{why}")
                    })?;
                    drops += 1;
                    if is_over {
                        break;
                    }
                    if polls + 1 == POLLS_MAX {
                        return Err("a recovery without an end".into());
                    }
                }
            }
        }
    }
    Ok(drops)
}

/// TS-7: the clock of a writer stands still with it, so that it cannot notice that its lease has ended. As long as
/// whoever has claimed its change is at it, the log tells the writer.
pub fn stopped_with_its_clock(make: Make<'_>) -> Checked {
    let mut stops = 0;
    for start in Start::ALL {
        for steps in 0.. {
            let mut was_over = false;
            for recovered in 0.. {
                let (world, run, calls) = (World::new(), plain(), Calls::default());
                let metadata = Metadata::new();
                let store = world.open(&run, make);
                start.prepare(&run, &store, &metadata);
                calls.make(&run, 0, &store, Does::PutLarge, &metadata);
                was_over = run.go_steps(steps);
                let recorded = world.log.held().changes;
                let theirs = clock_ahead(&world, LONG.0)?;
                let others = plain();
                let other = world.open(&others, &|parts: Parts| {
                    let clock = Arc::clone(&theirs);
                    make(Parts { clock, ..parts })
                });
                others.set_clock(theirs);
                spawn_recovery(&others, &other);
                let is_recovered = others.go_steps(recovered);
                let is_struck_out = recorded > 0 && world.log.held().changes == 0;
                if is_struck_out {
                    break;
                }
                answered(&run, &calls, || {})?;
                others.go();
                join(&run, &store);
                calls.last_look(&others, &other);
                allow_undoing(&calls, start, Does::PutLarge);
                run.crash();
                others.crash();
                judge(&world, start, &calls, make).map_err(|why| {
                    format!("{start:?}, stopped with its clock after {steps} steps, others {recovered} steps into a recovery\n{calls:?}{why}")
                })?;
                stops += 1;
                if is_recovered {
                    break;
                }
            }
            if was_over {
                break;
            }
        }
    }
    Ok(stops)
}

/// TS-6, TS-7: the log panics when it has recorded a swap, or does not answer any more, so that the writer does not know
/// whether others know of it; and then the writer is stopped.
pub fn stopped_unsure_of_its_record(make: Make<'_>) -> Checked {
    let mut stops = 0;
    for swap in [AfterSwap::Panics, AfterSwap::IsNeverAnswered] {
        for start in Start::ALL {
            for then in MEANWHILE {
                for steps in 0.. {
                    let is_armed = Arc::new(AtomicBool::new(false));
                    let opened = AtomicBool::new(false);
                    let odd = |parts: Parts| {
                        if opened.swap(true, SeqCst) {
                            return make(parts);
                        }
                        let log = Odd {
                            swap,
                            is_armed: Arc::clone(&is_armed),
                            ..Odd::over(parts.log)
                        };
                        make(Parts {
                            log: Arc::new(log),
                            ..parts
                        })
                    };
                    let what = (start, Does::PutLarge, then);
                    let before = |_: &World| is_armed.store(true, SeqCst);
                    let stop = Stop::begun(World::new(), what, steps, LONG, &before, &odd)?;
                    let gone_on = stop.goes_on();
                    gone_on.and_then(|()| stop.judge(make)).map_err(|why| {
                        let calls = &stop.calls;
                        format!("{what:?}, {swap:?}, stopped after {steps} steps\n{calls:?}{why}")
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

/// TS-6, TS-7: a writer is stopped, and cut off from the rows when it goes on, its swap made and not answered. What it
/// finds when they are there again may have been undone meanwhile.
pub fn stopped_and_cut_off(make: Make<'_>) -> Checked {
    let mut stops = 0;
    for start in Start::ALL {
        for then in MEANWHILE {
            for steps in 0.. {
                let what = (start, Does::PutLarge, then);
                let stop = Stop::at(World::new(), what, steps, LONG, make)?;
                let Stop {
                    world, run, calls, ..
                } = &stop;
                world
                    .switch
                    .only(&["compare_and_write", "get_tiered_metadata", "fence"]);
                world.switch.arm_all(FaultKind::ErrorAfter);
                run.go_steps(1);
                answered(run, calls, || {})?;
                world.switch.disarm();
                let gone_on = stop.goes_on();
                if calls.errors().iter().any(|e| e.contains("Unknown")) {
                    calls.may_be_taken_out(0);
                }
                gone_on.and_then(|()| stop.judge(make)).map_err(|why| {
                    format!("{what:?}, stopped after {steps} steps, cut off\n{calls:?}{why}")
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

/// TS-7: a writer is stopped, goes on for one step beside each step of a recovery, and is killed then. Its redirect may
/// miss its payload only where it came after the last look of the recovery. How often it was stopped,
/// and how often that happened.
pub fn killed_beside_a_recovery(make: Make<'_>) -> Checked<(usize, usize)> {
    let (mut stops, mut met) = (0, 0);
    for start in Start::ALL {
        for steps in 0.. {
            let mut was_over = false;
            for recovered in 0.. {
                let world = World {
                    grace: Duration::from_secs(5),
                    ..World::new()
                };
                let (run, others, calls) = (plain(), plain(), Calls::default());
                let store = world.open(&run, make);
                start.prepare(&run, &store, &Metadata::new());
                calls.make(&run, 0, &store, Does::PutLarge, &Metadata::new());
                was_over = run.go_steps(steps);
                world.clock.advance(LONG.0);
                let other = world.open(&others, make);
                spawn_recovery(&others, &other);
                let is_recovered = others.go_steps(recovered);
                let before = world.switch.calls();
                run.go_steps(1);
                run.crash();
                let after = world.switch.calls();
                others.go();
                let rest = &world.switch.calls()[after.len()..];
                let is = |call: Option<&Call>, method| call.is_some_and(|it| it.method == method);
                let is_removed = before.iter().any(|call| call.method == "delete_object");
                let is_between =
                    is(before.last(), "get_tiered_metadata") && is(rest.first(), "delete_object");
                let is_late = is(after.last(), "compare_and_write")
                    && start != Start::Redirect
                    && (is_removed || is_between);
                others.crash();
                let judged = judge(&world, start, &calls, make);
                match judged {
                    Err(why) if is_late && why.contains("which is not there") => {
                        met += usize::from(is_between);
                    }
                    // An upload that lands behind the back of recovery is a matter for the audit.
                    Err(why) if is(after.last(), "put_object") && why.starts_with("an orphan") => {}
                    judged => judged.map_err(|why| {
                        format!("{start:?}, stopped after {steps} steps and killed one later, others {recovered} steps into a recovery\n{calls:?}{why}")
                    })?,
                }
                stops += 1;
                if is_recovered {
                    break;
                }
            }
            if was_over {
                break;
            }
        }
    }
    Ok((stops, met))
}

/// TS-7: an upload whose answer was lost lands when its writer is gone and another process has recovered, though in its
/// bound.
pub fn late_upload(make: Make<'_>) -> Checked {
    let late = LateLanding::MayLandLate(Some(LEASE * 10));
    let bounded = |parts: Parts| {
        make(Parts {
            long_caps: parts.long_caps.with_late_landing(late),
            ..parts
        })
    };
    let mut runs = 0;
    for start in Start::ALL {
        for more in 0..8 {
            let (world, run, calls) = (World::new(), plain(), Calls::default());
            let metadata = Metadata::new();
            let store = world.open(&run, &bounded);
            start.prepare(&run, &store, &metadata);
            world.switch.only(&["put_object"]);
            world.switch.late(1);
            calls.make(&run, 0, &store, Does::PutLarge, &metadata);
            run.go_steps(1);
            answered(&run, &calls, || {})?;
            if !world.switch.disarm() {
                return Err("nothing was late".into());
            }
            run.go_steps(more);
            drop(store);
            run.crash();
            world.clock.advance(LEASE * 2);
            let run = plain();
            let store = world.open(&run, &bounded);
            let (switch, pause) = (world.switch.clone(), run.sleep(LEASE));
            run.spawn(async move {
                pause.await;
                switch.deliver().await;
            });
            spawn_recovery(&run, &store);
            run.go();
            calls.last_look(&run, &store);
            run.crash();
            judge(&world, start, &calls, &bounded).map_err(|why| {
                format!("{start:?}, a late upload, killed after {more} more steps\n{calls:?}{why}")
            })?;
            runs += 1;
        }
    }
    Ok(runs)
}
