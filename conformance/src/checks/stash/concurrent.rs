//! C-1.4, C-6.5 and ST-9.2: calls that meet. The checks stand in the tables of their clauses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use larder_traits::{
    Antichain, Classify, Diff, ErrorKind, Outcome as Effect, StashError, Timestamp,
};
use tokio::sync::Barrier;

use super::faults::no_outcome;
use super::handles::join;
use super::{Names, at, row};
use crate::check::{Outcome, Stop};
use crate::checks::of_the_medium;
use crate::cx::Cx;
use crate::engine::cancel::dropped_after;
use crate::engine::meeting::{Harm, meetings};
use crate::stash::{Handle, World};

/// The least share of the reads that must have met a running write, in percent.
const OVERLAP_PERCENT_MIN: i64 = 20;

/// A frontier that only grows: what it has reached for certain, and what it may have reached.
#[derive(Debug, Default)]
struct Line {
    /// Acknowledged, or seen.
    reached: AtomicI64,
    /// Asked for.
    asked: AtomicI64,
}

impl Line {
    fn ask(&self, time: Timestamp) {
        self.asked.fetch_max(time, Ordering::SeqCst);
    }

    fn reach(&self, time: Timestamp) {
        self.reached.fetch_max(time, Ordering::SeqCst);
    }

    fn reached(&self) -> Timestamp {
        self.reached.load(Ordering::SeqCst)
    }

    /// Judges a read that began when `floor` was reached.
    fn judge(&self, what: &str, floor: Timestamp, seen: Timestamp) -> Outcome {
        let asked = self.asked.load(Ordering::SeqCst);
        if seen < floor || seen > asked {
            return Err(Stop::fail(
                format!("{what} while other handles seal and compact"),
                seen.to_string(),
                format!(
                    "at least {floor}, which was there before, and at most {asked}, which was asked for"
                ),
            ));
        }
        // Whoever looks from now on finds it no earlier than that.
        self.reach(seen);
        Ok(())
    }
}

/// What all tasks of the check share.
#[derive(Debug)]
struct Course {
    since: Line,
    upper: Line,
    next: AtomicI64,
    /// The writers that are not done. Readers go by it and wait for nobody, so that they do not go on alone.
    writers: AtomicI64,
    start: Barrier,
    /// Writes that were begun, and those that have ended.
    begun: AtomicI64,
    ended: AtomicI64,
    reads: AtomicI64,
    met: AtomicI64,
}

/// A writer at work.
struct AtWork(Arc<Course>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Lets the others run, most of the time: a stamp that is taken early is still one from before.
async fn pause(turn: i64) {
    if turn % 3 > 0 {
        tokio::task::yield_now().await;
    }
}

fn time_of(frontier: &Antichain<Timestamp>) -> Timestamp {
    frontier.as_option().copied().unwrap_or(Timestamp::MAX)
}

pub(super) async fn st_9_2(cx: &Cx<dyn World>) -> Outcome {
    let seals = i64::try_from(cx.lin_epochs()).unwrap_or(i64::MAX);
    let mut opener = cx.open("p").await?;
    let c: Names = opener.collection("c").await?;
    opener.seal(c, at(1)).await?;
    opener.compact(c, at(0)).await?;
    let course = Arc::new(Course {
        since: Line::default(),
        upper: Line::default(),
        next: AtomicI64::new(2),
        writers: AtomicI64::new(3),
        start: Barrier::new(5),
        begun: AtomicI64::default(),
        ended: AtomicI64::default(),
        reads: AtomicI64::default(),
        met: AtomicI64::default(),
    });
    for (line, time) in [(&course.upper, 1), (&course.since, 0)] {
        line.ask(time);
        line.reach(time);
    }
    // All handles first: a task that waits at the start for one that never comes would be a hang.
    let mut handles = Vec::new();
    for name in ["reads", "reads too", "seals", "seals too", "compacts"] {
        handles.push(cx.open_as(name, "p").await?);
    }
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    for (n, handle) in handles.into_iter().enumerate() {
        let course = Arc::clone(&course);
        match n {
            0 | 1 => readers.push(tokio::spawn(look(handle, c, course, n == 0))),
            2 | 3 => writers.push(tokio::spawn(seal(handle, c, course, seals))),
            _ => writers.push(tokio::spawn(compact(handle, c, course, seals / 2))),
        }
    }
    let written = join(writers).await;
    join(readers).await?;
    written?;
    let last = at(course.upper.asked.load(Ordering::SeqCst));
    cx.eq("upper, all being over", &opener.upper(c).await?, &last)?;
    let last = at(course.since.asked.load(Ordering::SeqCst));
    cx.eq("since, all being over", &opener.since(c).await?, &last)?;
    let (reads, met) = (&course.reads, &course.met);
    let (reads, met) = (reads.load(Ordering::SeqCst), met.load(Ordering::SeqCst));
    if reads == 0 || met * 100 < reads * OVERLAP_PERCENT_MIN {
        return Err(Stop::Inconclusive(format!(
            "only {met} of {reads} reads overlapped a write"
        )));
    }
    Ok(())
}

/// Seals to the next time again and again; another handle may be further already.
async fn seal(mut handle: Handle, c: Names, course: Arc<Course>, count: i64) -> Outcome {
    let _at_work = AtWork(Arc::clone(&course));
    course.start.wait().await;
    for turn in 0..count {
        let time = course.next.fetch_add(1, Ordering::SeqCst);
        course.begun.fetch_add(1, Ordering::SeqCst);
        course.upper.ask(time);
        pause(turn).await;
        match handle.seal(c, at(time)).await {
            Ok(()) => {}
            Err(failed) => {
                let StashError::SealBeforeUpper { .. } = failed.error else {
                    return Err(failed.into());
                };
                if course.upper.asked.load(Ordering::SeqCst) <= time {
                    return Err(failed.into());
                }
            }
        }
        // Refused or not, it is there by now.
        course.upper.reach(time);
        course.ended.fetch_add(1, Ordering::SeqCst);
        pause(turn + 1).await;
    }
    Ok(())
}

/// Compacts to one before what is sealed for certain, so that there is always something to peek at.
async fn compact(mut handle: Handle, c: Names, course: Arc<Course>, count: i64) -> Outcome {
    let _at_work = AtWork(Arc::clone(&course));
    course.start.wait().await;
    for turn in 0..count {
        let time = course.upper.reached() - 1;
        course.begun.fetch_add(1, Ordering::SeqCst);
        course.since.ask(time);
        pause(turn).await;
        handle.compact(c, at(time)).await?;
        course.since.reach(time);
        course.ended.fetch_add(1, Ordering::SeqCst);
        if turn % 4 == 0 {
            handle.consolidate(c).await?;
        }
        pause(turn + 1).await;
    }
    Ok(())
}

async fn look(mut handle: Handle, c: Names, course: Arc<Course>, since_first: bool) -> Outcome {
    let mut turn = i64::from(since_first);
    course.start.wait().await;
    while course.writers.load(Ordering::SeqCst) > 0 {
        turn += 1;
        let line = if turn % 3 == 1 {
            &course.since
        } else {
            &course.upper
        };
        let ended = course.ended.load(Ordering::SeqCst);
        let floor = line.reached();
        pause(turn / 3).await;
        let (what, seen) = match turn % 3 {
            0 => ("upper", time_of(&handle.upper(c).await?)),
            1 => ("since", time_of(&handle.since(c).await?)),
            _ => match handle.peek_timestamp(c).await {
                Ok(time) => ("the time of a peek, and one", time.saturating_add(1)),
                // Others moved the frontiers each time it looked, which it may say.
                Err(failed) if failed.kind() == ErrorKind::Unavailable => continue,
                Err(failed) => return Err(failed.into()),
            },
        };
        line.judge(what, floor, seen)?;
        let met = course.begun.load(Ordering::SeqCst) > ended;
        course.reads.fetch_add(1, Ordering::SeqCst);
        course.met.fetch_add(i64::from(met), Ordering::SeqCst);
        pause(turn).await;
    }
    Ok(())
}

/// Batches by name: what became of what writers wrote, to whom something happens on the way.
#[derive(Default)]
struct Batches {
    acked: BTreeSet<String>,
    refused: BTreeSet<String>,
    seen: BTreeSet<String>,
}

/// The batches of one writer.
const BATCHES: usize = 5;

/// The rows of a batch, of which any is there if all are.
const ROWS: usize = 3;

/// The batches that a read found.
fn whole(
    what: &str,
    rows: &[((String, String), Timestamp, Diff)],
) -> Result<BTreeSet<String>, Stop> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for ((batch, _), _, diff) in rows {
        if *diff != 1 {
            let expected = "each row once";
            return Err(Stop::fail(what, format!("{batch} {diff} times"), expected));
        }
        *counts.entry(batch).or_default() += 1;
    }
    match counts.iter().find(|(_, count)| **count != ROWS) {
        Some((batch, count)) => {
            let observed = format!("{count} rows of batch {batch}");
            Err(Stop::fail(what, observed, format!("{ROWS} rows or none")))
        }
        None => Ok(counts.into_keys().map(str::to_owned).collect()),
    }
}

impl Batches {
    /// Judges a read that began when `acked` had been answered and `seen` had been seen.
    fn judge(&mut self, what: &str, known: &BTreeSet<String>, found: BTreeSet<String>) -> Outcome {
        let lost: Vec<_> = known.difference(&found).collect();
        if !lost.is_empty() {
            let expected = "what was answered with Ok or seen before";
            return Err(Stop::fail(what, format!("no {lost:?}"), expected));
        }
        self.seen.extend(found);
        let refused: Vec<_> = self.seen.intersection(&self.refused).collect();
        if !refused.is_empty() {
            let expected = "nothing of what was NotApplied";
            return Err(Stop::fail(what, format!("{refused:?}"), expected));
        }
        Ok(())
    }

    fn known(&self) -> BTreeSet<String> {
        self.acked.union(&self.seen).cloned().collect()
    }
}

fn locked(batches: &Mutex<Batches>) -> MutexGuard<'_, Batches> {
    batches.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write_batches(
    mut handle: Handle,
    c: Names,
    n: usize,
    polls: [Option<usize>; BATCHES],
    (batches, start): (Arc<Mutex<Batches>>, Arc<Barrier>),
    at_work: Arc<()>,
) -> Outcome {
    start.wait().await;
    for (at, polls) in polls.into_iter().enumerate() {
        let name = format!("{n}.{at}");
        let rows = (0..ROWS).map(|value| row(&name, &value.to_string(), 0, 1));
        let update = handle.update_many(c, rows.collect());
        match dropped_after(polls, update).await {
            // It may be there by now, come later, or never come.
            None => {}
            Some(Ok(())) => drop(locked(&batches).acked.insert(name)),
            Some(Err(e)) => {
                of_the_medium(&format!("update_many of {name}"), &e)?;
                if e.outcome() == Effect::NotApplied {
                    locked(&batches).refused.insert(name);
                }
            }
        }
    }
    // Readers go by it, and it is gone as well where this was left earlier.
    drop(at_work);
    Ok(())
}

async fn read_batches(
    mut handle: Handle,
    c: Names,
    (batches, start): (Arc<Mutex<Batches>>, Arc<Barrier>),
    at_work: Weak<()>,
) -> Outcome {
    start.wait().await;
    while at_work.strong_count() > 0 {
        let known = locked(&batches).known();
        match handle.iter(c).await {
            Ok(rows) => {
                let what = "iter beside writers";
                let found = whole(what, &rows)?;
                locked(&batches).judge(what, &known, found)?;
            }
            Err(e) => no_outcome("iter beside writers", e.as_ref())?,
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

pub(super) async fn harmed(cx: &Cx<dyn World>, harm: Harm) -> Outcome {
    meetings(cx, "batches", harm, async |mut meeting| {
        let place = meeting.place.clone();
        let mut opener = cx.open(&place).await?;
        let c: Names = opener.collection("c").await?;
        let mut writers = Vec::new();
        for name in ["w0", "w1", "w2"] {
            writers.push(cx.open_as(name, &place).await?);
        }
        let reader = cx.open_as("reads", &place).await?;
        let batches = Arc::<Mutex<Batches>>::default();
        let start = Arc::new(Barrier::new(writers.len() + 1));
        let at_work = Arc::new(());
        meeting.arm();
        let share = || (Arc::clone(&batches), Arc::clone(&start));
        let reading = read_batches(reader, c, share(), Arc::downgrade(&at_work));
        let mut tasks = vec![tokio::spawn(reading)];
        for (n, writer) in writers.into_iter().enumerate() {
            let polls = [(); BATCHES].map(|()| meeting.polls());
            let writing = write_batches(writer, c, n, polls, share(), Arc::clone(&at_work));
            tasks.push(tokio::spawn(writing));
        }
        drop(at_work);
        let ended = join(tasks).await;
        let met = meeting.disarm();
        ended?;
        let what = "iter after all writers";
        let found = whole(what, &opener.iter(c).await?)?;
        let mut batches = locked(&batches);
        let known = batches.known();
        batches.judge(what, &known, found)?;
        Ok(met)
    })
    .await
}
