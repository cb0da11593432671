//! What must hold of any combinator. Each check tells how much it has run, or what went wrong.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use larder_conformance::decorate::Report;
use larder_conformance::lin::ModelName;
use larder_conformance::schedule::{Explorer, Run, step};
use larder_conformance::{FaultKind, Faults};
use larder_traits::{
    Backend, BackendError, ClientStream, GetResponse, LateLanding, Metadata, ObjectId,
};

use super::{
    Calls, Does, LEASE, Made, Make, Parts, Start, World, id, mortal, payload, perform, recover,
};

pub type Checked<T = usize> = Result<T, String>;

/// More orders than two clients should have between them.
const ORDERS_MAX: usize = 20_000;

/// A run that makes no choices of its own.
pub fn plain() -> Run {
    let mut explorer = Explorer::replay(&[]);
    explorer.next_run().expect("there is one")
}

pub fn join(run: &Run, store: &Made) {
    let store = Arc::clone(store);
    run.finish(async move { store.join().await });
}

/// What a group of clients does.
#[derive(Debug)]
pub struct Meeting<'a> {
    pub start: Start,
    pub does: &'a [Does],
    /// Whether all are on one writer, or each on one of its own.
    pub is_shared: bool,
    pub log_steps: bool,
}

impl Meeting<'_> {
    /// One run to its end, and what must hold then.
    pub fn run(&self, run: &Run, make: Make<'_>) -> Checked<()> {
        let world = World {
            log_steps: self.log_steps,
            ..World::new()
        };
        let (calls, metadata) = (Calls::default(), Metadata::new());
        let first = world.open(run, make);
        self.start.prepare(run, &first, &metadata);
        let mut stores = vec![first];
        for (client, does) in (0..).zip(self.does) {
            if client > 0 && !self.is_shared {
                stores.push(world.open(run, make));
            }
            let store = stores.last().expect("there is one");
            calls.make(run, client, store, *does, &metadata);
        }
        run.go();
        for store in &stores {
            join(run, store);
        }
        calls.last_look(run, &stores[0]);
        let judged = calls
            .explained(self.start, ModelName::Register)
            .and_then(|()| world.in_order(false))
            .and_then(|()| match calls.all_done() {
                true => Ok(()),
                false => Err("a call failed, and nothing was made to fail".into()),
            });
        judged.map_err(|why| {
            let choices = run.choices();
            format!("{self:?}\n{calls:?}choices {choices:?}\n{why}")
        })
    }

    fn explore(&self, mut explorer: Explorer, make: Make<'_>) -> Checked {
        while let Some(run) = explorer.next_run() {
            self.run(&run, make)?;
            if explorer.runs() > ORDERS_MAX {
                return Err(format!("{self:?}: more than {ORDERS_MAX} orders"));
            }
        }
        Ok(explorer.runs())
    }
}

/// TS-1, TS-3, TS-4, TS-5, TS-7: all orders in which two clients can take their steps at the tiers.
pub fn every_order(make: Make<'_>) -> Checked {
    let mut runs = 0;
    for start in Start::ALL {
        for (nth, one) in Does::ALL.into_iter().enumerate() {
            for other in Does::ALL.into_iter().skip(nth) {
                for is_shared in [true, false] {
                    let meeting = Meeting {
                        start,
                        does: &[one, other],
                        is_shared,
                        log_steps: false,
                    };
                    runs += meeting.explore(Explorer::all(), make)?;
                }
            }
        }
    }
    Ok(runs)
}

/// The same of two writers with the steps at the log, and of three clients; so many orders of each.
pub fn sampled_orders(make: Make<'_>, of_each: usize) -> Checked {
    let mut runs = 0;
    for start in Start::ALL {
        for one in Does::ALL {
            for other in Does::ALL {
                let meeting = Meeting {
                    start,
                    does: &[one, other],
                    is_shared: false,
                    log_steps: true,
                };
                runs += meeting.explore(Explorer::sample(11, of_each), make)?;
                for third in Does::ALL {
                    let meeting = Meeting {
                        start,
                        does: &[one, other, third],
                        is_shared: !matches!(third, Does::Get | Does::Look),
                        log_steps: false,
                    };
                    runs += meeting.explore(Explorer::sample(12, of_each), make)?;
                }
            }
        }
    }
    Ok(runs)
}

/// Recovers what a crash has left in `world`, first in a process that crashes itself after so many steps. Whether that
/// one came to its end before.
fn recover_after_crash(
    world: &World,
    calls: &Calls,
    start: Start,
    make: Make<'_>,
    steps: Option<usize>,
) -> Checked<bool> {
    let mut is_over = true;
    if let Some(steps) = steps {
        world.clock.advance(LEASE * 2);
        let run = plain();
        let store = world.open(&run, make);
        run.spawn(async move {
            drop(store.recover().await);
            store.join().await;
        });
        is_over = run.go_steps(steps);
        run.crash();
    }
    let run = plain();
    let store = world.recovered(&run, make)?;
    calls.last_look(&run, &store);
    calls.explained(start, ModelName::Register)?;
    world.in_order(false)?;
    Ok(is_over)
}

/// Lets clients begin, ends everything after so many steps, and recovers. Whether the clients, and the first recovery,
/// came to their end before.
fn crash(
    run: &Run,
    start: Start,
    does: &[Does],
    steps: usize,
    make: Make<'_>,
    in_recovery: Option<usize>,
) -> Checked<(bool, bool)> {
    let world = World::new();
    let (calls, metadata) = (Calls::default(), Metadata::new());
    let store = world.open(run, make);
    start.prepare(run, &store, &metadata);
    for (client, does) in (0..).zip(does) {
        calls.make(run, client, &store, *does, &metadata);
    }
    drop(store);
    let is_over = run.go_steps(steps);
    run.crash();
    let recovered = recover_after_crash(&world, &calls, start, make, in_recovery);
    let is_recovered = recovered.map_err(|why| {
        format!(
            "{start:?}, {does:?}, a crash after {steps} steps, in recovery after {in_recovery:?}\n{calls:?}{why}"
        )
    })?;
    Ok((is_over, is_recovered))
}

/// TS-7: everything is dropped at each await of each operation, and again at each await of the recovery from that.
pub fn crashes(make: Make<'_>) -> Checked<(usize, usize)> {
    let (mut points, mut nested) = (0, 0);
    for start in Start::ALL {
        for does in Does::WRITES {
            for steps in 0.. {
                let (is_over, _) = crash(&plain(), start, &[does], steps, make, None)?;
                points += 1;
                for in_recovery in 0.. {
                    let recovery = Some(in_recovery);
                    let (_, is_recovered) = crash(&plain(), start, &[does], steps, make, recovery)?;
                    nested += 1;
                    if is_recovered {
                        break;
                    }
                }
                if is_over {
                    break;
                }
            }
        }
    }
    Ok((points, nested))
}

/// TS-7: crashes while two clients are at work.
pub fn crashed_meetings(make: Make<'_>, of_each: usize) -> Checked {
    let mut runs = 0;
    for start in Start::ALL {
        for one in Does::WRITES {
            for other in Does::WRITES {
                let mut explorer = Explorer::sample(13, of_each);
                while let Some(run) = explorer.next_run() {
                    let steps = explorer.runs() % 32;
                    crash(&run, start, &[one, other], steps, make, None)?;
                }
                runs += explorer.runs();
            }
        }
    }
    Ok(runs)
}

/// TS-8: a call is dropped at each of its awaits, and nobody recovers anything.
pub fn drops(make: Make<'_>) -> Checked {
    let mut dropped = 0;
    for start in Start::ALL {
        for does in Does::ALL {
            for polls in 0.. {
                let (world, run) = (World::new(), plain());
                let (calls, metadata) = (Calls::default(), Metadata::new());
                let store = world.open(&run, make);
                start.prepare(&run, &store, &metadata);
                let mut call = calls.call(0, &store, does, &metadata);
                let is_over = run.finish(async move {
                    for _ in 0..polls {
                        if (&mut call).now_or_never().is_some() {
                            return true;
                        }
                        step().await;
                    }
                    drop(call);
                    false
                });
                join(&run, &store);
                calls.last_look(&run, &store);
                calls
                    .explained(start, ModelName::Register)
                    .and_then(|()| world.in_order(false))
                    .map_err(|why| {
                        format!("{start:?}, {does:?} dropped at poll {polls}\n{calls:?}{why}")
                    })?;
                dropped += 1;
                if is_over {
                    break;
                }
            }
        }
    }
    Ok(dropped)
}

/// The ways in which the high-volume tier can let one know what becomes of a late write.
pub(super) fn worlds() -> [fn() -> World; 4] {
    [
        World::new,
        || World::fenceless(LateLanding::Fenced),
        || World::fenceless(LateLanding::MayLandLate(Some(Duration::from_secs(5)))),
        || World::fenceless(LateLanding::MayLandLate(None)),
    ]
}

pub(super) fn may_keep(world: &World) -> bool {
    world.fenceless == Some(LateLanding::MayLandLate(None))
}

/// TS-3 to TS-8, C-1: the first, second, … call to a tier or to the log fails, before its effect or after it, until there
/// is none left to fail.
pub fn faults(make: Make<'_>) -> Checked {
    let kinds = [
        (FaultKind::ErrorBefore, Report::Honest),
        (FaultKind::ErrorBefore, Report::Vague),
        (FaultKind::ErrorAfter, Report::Honest),
    ];
    let mut met = 0;
    for open in worlds() {
        for start in Start::ALL {
            for does in Does::ALL {
                for (kind, report) in kinds {
                    for nth in 1.. {
                        let (world, run) = (open(), plain());
                        let (calls, metadata) = (Calls::default(), Metadata::new());
                        let store = world.open(&run, make);
                        start.prepare(&run, &store, &metadata);
                        world.switch.report(report);
                        world.switch.arm(nth, kind);
                        calls.make(&run, 0, &store, does, &metadata);
                        run.go();
                        join(&run, &store);
                        let is_met = world.switch.disarm();
                        let fenceless = world.fenceless;
                        aftermath(&world, &run, &store, &calls, start, make).map_err(|why| {
                            format!("fence {fenceless:?}, {start:?}, {does:?}, {kind:?} {report:?} at call {nth}\n{calls:?}{why}")
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

/// What was left by a fault: looked at, then recovered in this process and in the next, and looked at again.
pub(super) fn aftermath(
    world: &World,
    run: &Run,
    store: &Made,
    calls: &Calls,
    start: Start,
    make: Make<'_>,
) -> Checked<()> {
    calls.last_look(run, store);
    recover(run, store)?;
    run.crash();
    let run = plain();
    let store = world.recovered(&run, make)?;
    calls.last_look(&run, &store);
    calls.explained(start, ModelName::Register)?;
    world.in_order(may_keep(world))
}

/// When a late write lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lands {
    Soon,
    AfterOthers,
    Last,
}

/// The writes that the tiers and the log can be late with. An upload is none of them: one that lands after everything
/// else is beyond the log, and a matter for the audit.
const MAY_BE_LATE: &[&str] = &[
    "compare_and_write",
    "put_non_tombstone",
    "delete_non_tombstone",
    "delete_object",
    "record",
    "complete",
    "renew",
];

/// TS-6: the first, second, … write is answered `Unknown` and lands late: at once, after the writes of others, or last.
pub fn late_writes(make: Make<'_>) -> Checked {
    let mut met = 0;
    let others: [&[Does]; 5] = [
        &[],
        &[Does::PutSmall],
        &[Does::Delete],
        &[Does::PutLarge],
        &[Does::Delete, Does::PutSmall],
    ];
    for open in worlds() {
        for start in Start::ALL {
            for does in Does::WRITES {
                for then in others {
                    for lands in [Lands::Soon, Lands::AfterOthers, Lands::Last] {
                        let how = (start, does, then, lands);
                        met += late_in(open, how, make)?;
                    }
                }
            }
        }
    }
    Ok(met)
}

fn late_in(
    open: fn() -> World,
    (start, does, then, lands): (Start, Does, &[Does], Lands),
    make: Make<'_>,
) -> Checked {
    for nth in 1.. {
        let (world, run) = (open(), plain());
        match world.fenceless {
            // Nothing is late where everything later waits for it.
            Some(LateLanding::Fenced) => return Ok(0),
            Some(LateLanding::MayLandLate(Some(_))) if lands != Lands::Soon => return Ok(0),
            _ => {}
        }
        let (calls, metadata) = (Calls::default(), Metadata::new());
        let store = world.open(&run, make);
        start.prepare(&run, &store, &metadata);
        world.switch.only(MAY_BE_LATE);
        world.switch.late(nth);
        calls.make(&run, 0, &store, does, &metadata);
        run.go();
        let is_met = world.switch.disarm();
        let deliver = |run: &Run| {
            let switch = world.switch.clone();
            run.finish(async move { switch.deliver().await });
        };
        if lands == Lands::Soon {
            deliver(&run);
        }
        if world.fenceless.is_none() || may_keep(&world) {
            join(&run, &store);
        }
        let second = world.open(&run, make);
        for (client, does) in (1..).zip(then) {
            run.finish(calls.call(client, &second, *does, &metadata));
            calls.last_look(&run, &second);
        }
        join(&run, &second);
        join(&run, &store);
        if lands == Lands::AfterOthers {
            deliver(&run);
        }
        let mut judged = aftermath(&world, &run, &store, &calls, start, make);
        if lands == Lands::Last {
            let run = plain();
            deliver(&run);
            let store = world.open(&run, make);
            calls.last_look(&run, &store);
            judged = judged.and_then(|()| aftermath(&world, &run, &store, &calls, start, make));
        }
        let fenceless = world.fenceless;
        judged.map_err(|why| {
            format!("fence {fenceless:?}, {start:?}, {does:?}, write {nth} late, {lands:?}, others {then:?}\n{calls:?}{why}")
        })?;
        if !is_met {
            return Ok(nth.try_into().unwrap_or(usize::MAX) - 1);
        }
    }
    Ok(0)
}

/// TS-4, TS-9: the object that is there ends between every two steps of one client, and of two.
pub fn expiries(make: Make<'_>, of_each: usize) -> Checked {
    let mut runs = 0;
    for start in [Start::Inline, Start::Redirect] {
        for one in Does::ALL {
            runs += expiring(start, &[one], true, Explorer::all(), make)?;
            for other in Does::ALL {
                let explorer = Explorer::sample(14, of_each);
                runs += expiring(start, &[one, other], true, explorer, make)?;
            }
        }
    }
    Ok(runs)
}

/// TS-5: the same of a reader and a writer, in every order of their steps at the tiers: what was overwritten before its
/// deadline does not end with it.
pub fn overwritten_in_time(make: Make<'_>) -> Checked {
    let mut runs = 0;
    for start in [Start::Inline, Start::Redirect] {
        for does in Does::WRITES {
            let does = [Does::Get, does];
            runs += expiring(start, &does, false, Explorer::all(), make)?;
        }
    }
    Ok(runs)
}

fn expiring(
    start: Start,
    does: &[Does],
    log_steps: bool,
    mut explorer: Explorer,
    make: Make<'_>,
) -> Checked {
    let life = Duration::from_secs(10);
    while let Some(run) = explorer.next_run() {
        let world = World {
            log_steps,
            ..World::new()
        };
        let calls = Calls::begun_with_mortal();
        let store = world.open(&run, make);
        start.prepare(&run, &store, &mortal(life));
        for (client, does) in (0..).zip(does) {
            calls.make(&run, client, &store, *does, &Metadata::new());
        }
        let (clock, times) = (Arc::clone(&world.clock), calls.clone());
        run.spawn(async move {
            step().await;
            times.mortal_ends(|| clock.advance(life));
        });
        run.go();
        join(&run, &store);
        calls.last_look(&run, &store);
        // The payload of what has ended may lie there for as long as the tier likes.
        world.sweep();
        calls
            .explained(Start::Absent, ModelName::Kv)
            .and_then(|()| world.in_order(false))
            .and_then(|()| match calls.all_done() {
                true => Ok(()),
                false => Err("a call failed, and nothing was made to fail".into()),
            })
            .map_err(|why| {
                let choices = run.choices();
                format!("{start:?}, {does:?}, choices {choices:?}\n{calls:?}{why}")
            })?;
    }
    Ok(explorer.runs())
}

/// TS-7: a writer uploads for longer than its lease while another process recovers again and again.
pub fn slow_writer(make: Make<'_>) -> Checked {
    let (world, run) = (World::new(), plain());
    let (slow, other) = (world.open(&run, make), world.open(&run, make));
    let inner = run.clone();
    let pieces = stream::iter(0..5).then(move |nth| {
        let pause = inner.sleep(LEASE * 2);
        async move {
            pause.await;
            Ok(payload(&format!("{nth}"), true))
        }
    });
    let (writer, outcome) = (Arc::clone(&slow), Arc::new(Mutex::new(None)));
    let said = Arc::clone(&outcome);
    run.spawn(async move {
        let (id, metadata) = (id("k"), Metadata::new());
        let put = writer.put_object(&id, &metadata, pieces.boxed()).await;
        *said.lock().unwrap() = Some(put);
    });
    let (inner, log, put) = (run.clone(), world.log.clone(), Arc::clone(&outcome));
    let (touched, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (takes, sees) = (Arc::clone(&touched), Arc::clone(&seen));
    run.spawn(async move {
        for _ in 0..30 {
            inner.sleep(LEASE / 2).await;
            let before = log.held().changes;
            drop(other.recover().await);
            if put.lock().unwrap().is_none() && before > 0 {
                sees.fetch_add(1, SeqCst);
                takes.fetch_add(usize::from(log.held().changes == 0), SeqCst);
            }
        }
    });
    run.go();
    join(&run, &slow);
    let (touched, seen) = (touched.load(SeqCst), seen.load(SeqCst));
    if touched > 0 || seen < 10 {
        return Err(format!(
            "{seen} recoveries beside a live upload, {touched} of which took its change away"
        ));
    }
    let put = outcome.lock().unwrap().take();
    match put {
        Some(Ok(())) => {}
        other => return Err(format!("the slow put was answered {other:?}")),
    }
    let found = run.finish({
        let slow = Arc::clone(&slow);
        async move { perform(&slow, Does::Get, "", &Metadata::new()).await }
    });
    match found {
        Ok(Some(_)) => world.in_order(false).map(|()| 1),
        other => Err(format!("the slow object reads as {other:?}")),
    }
}

/// A tier in which something happens once, right after the first payload was stored.
struct Then<S> {
    inner: S,
    then: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl<S> fmt::Debug for Then<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Then")
    }
}

#[async_trait]
impl<S: Backend> Backend for Then<S> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Result<(), BackendError> {
        self.inner.put_object(id, metadata, stream).await?;
        let then = self.then.lock().unwrap().take();
        if let Some(then) = then {
            then.await;
        }
        Ok(())
    }
    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        self.inner.get_object(id).await
    }
    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        self.inner.get_metadata(id).await
    }
    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        self.inner.delete_object(id).await
    }
    async fn join(&self) {
        self.inner.join().await;
    }
}

/// TS-7: a writer's lease ends behind its back while it uploads, and another process recovers all there is. The writer
/// must notice before its swap.
pub fn lapsed_writer(make: Make<'_>) -> Checked {
    for start in Start::ALL {
        let (world, run) = (World::new(), plain());
        let (calls, metadata) = (Calls::default(), Metadata::new());
        let other = world.open(&run, make);
        start.prepare(&run, &other, &metadata);
        let (clock, reviver) = (Arc::clone(&world.clock), Arc::clone(&other));
        let then = async move {
            clock.advance(LEASE * 2);
            drop(reviver.recover().await);
            reviver.join().await;
        };
        let then = Mutex::new(Some(then.boxed()));
        let store = world.open(&run, &|mut parts: Parts| {
            let then = Mutex::new(then.lock().unwrap().take());
            let inner = parts.long;
            parts.long = Arc::new(Then { inner, then });
            make(parts)
        });
        calls.make(&run, 0, &store, Does::PutLarge, &metadata);
        run.go();
        join(&run, &store);
        calls.last_look(&run, &other);
        calls
            .explained(start, ModelName::Register)
            .and_then(|()| world.in_order(false))
            .map_err(|why| format!("{start:?}, a lease that ended unnoticed\n{calls:?}{why}"))?;
    }
    Ok(3)
}

/// TS-7: another process recovers at any moment of a live writer's work.
pub fn live_recovery(make: Make<'_>, of_each: usize) -> Checked {
    let mut runs = 0;
    let starts = Start::ALL.into_iter().flat_map(|start| {
        // The recovery of another combinator, and its own.
        [(start, false), (start, true)]
    });
    for (start, is_own) in starts {
        for does in Does::WRITES {
            let mut explorer = Explorer::sample(16, of_each);
            while let Some(run) = explorer.next_run() {
                let world = World::new();
                let (calls, metadata) = (Calls::default(), Metadata::new());
                let store = world.open(&run, make);
                let other = match is_own {
                    true => Arc::clone(&store),
                    false => world.open(&run, make),
                };
                start.prepare(&run, &store, &metadata);
                calls.make(&run, 0, &store, does, &metadata);
                run.spawn(async move {
                    drop(other.recover().await);
                });
                run.go();
                join(&run, &store);
                calls.last_look(&run, &store);
                calls
                    .explained(start, ModelName::Register)
                    .and_then(|()| world.in_order(false))
                    .and_then(|()| match calls.all_done() {
                        true => Ok(()),
                        false => Err("a recovery made a call fail".into()),
                    })
                    .map_err(|why| {
                        format!("{start:?}, {does:?} beside a recovery\n{calls:?}{why}")
                    })?;
            }
            runs += explorer.runs();
        }
    }
    Ok(runs)
}

/// TS-7: two processes recover the same crash at once.
pub fn two_recoveries(make: Make<'_>, of_each: usize) -> Checked {
    let mut runs = 0;
    for start in Start::ALL {
        for does in [Does::PutLarge, Does::Delete] {
            for steps in 0..12 {
                let mut explorer = Explorer::sample(15, of_each);
                while let Some(run) = explorer.next_run() {
                    let world = World::new();
                    let (calls, metadata) = (Calls::default(), Metadata::new());
                    let first = plain();
                    let store = world.open(&first, make);
                    start.prepare(&first, &store, &metadata);
                    calls.make(&first, 0, &store, does, &metadata);
                    drop(store);
                    first.go_steps(steps);
                    first.crash();
                    world.clock.advance(LEASE * 2);
                    for _ in 0..2 {
                        let store = world.open(&run, make);
                        run.spawn(async move {
                            drop(store.recover().await);
                            store.join().await;
                        });
                    }
                    run.go();
                    let store = world.open(&run, make);
                    calls.last_look(&run, &store);
                    calls
                        .explained(start, ModelName::Register)
                        .and_then(|()| world.in_order(false))
                        .map_err(|why| format!("{start:?}, {does:?}, a crash after {steps} steps, two recoveries\n{calls:?}{why}"))?;
                }
                runs += explorer.runs();
            }
        }
    }
    Ok(runs)
}

/// How many deletes of one payload fail before one goes well.
const FAILING: usize = 50;

/// TS-7: a payload cannot be removed for a while. The call is `Ok` all the same, the attempts are bounded, and recovery
/// removes it later.
pub fn stuck_cleanup(make: Make<'_>) -> Checked {
    let mut attempts_max = 0;
    for does in Does::WRITES {
        let (world, run) = (World::new(), plain());
        let (calls, metadata) = (Calls::default(), Metadata::new());
        let store = world.open(&run, make);
        Start::Redirect.prepare(&run, &store, &metadata);
        world.switch.only(&["delete_object"]);
        world.switch.arm_all(FaultKind::ErrorBefore);
        calls.make(&run, 0, &store, does, &metadata);
        run.go();
        if !calls.all_done() {
            return Err(format!("a failing cleanup made a call fail\n{calls:?}"));
        }
        // A loop without an end is let out after this many.
        let count = || {
            let calls = world.switch.calls();
            calls
                .iter()
                .filter(|call| call.method == "delete_object")
                .count()
        };
        while count() < FAILING && !run.go_steps(1) {}
        let attempts = count();
        if attempts >= FAILING {
            return Err(format!("{attempts} attempts at a cleanup that fails"));
        }
        attempts_max = attempts_max.max(attempts);
        join(&run, &store);
        world.switch.disarm();
        let again = Arc::clone(&store);
        run.finish(async move {
            drop(again.recover().await);
            again.join().await;
        });
        calls.last_look(&run, &store);
        calls.explained(Start::Redirect, ModelName::Register)?;
        world
            .in_order(false)
            .map_err(|why| format!("{does:?}, cleanup that failed: {why}"))?;
    }
    Ok(attempts_max)
}
