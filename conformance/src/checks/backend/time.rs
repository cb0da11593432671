//! Time that passes, for both contracts of objects (C-5, HV-8).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use larder_traits::{
    Caps, Clock, ClockSource, ExpirationPolicy, Metadata, ObjectId, TestClock, TieredWrite,
    Tombstone,
};

use super::calls::{Answer, Call, Subject, expect, make_all, object, target};
use super::objects::{far, name};
use crate::check::{Gate, Outcome, Stop};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::engine::time;
use crate::fixture;
use crate::model::high_volume::{Row, Rows};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);

/// C-5.1 is about backends that decide expiry themselves.
pub(in crate::checks) fn own_clock(caps: &Caps) -> Gate {
    match caps.clock {
        ClockSource::Injected => Gate::Run,
        ClockSource::Server { .. } => Gate::Ignore("declared: the server decides what has expired"),
    }
}

/// A store behind two handles on a test clock, and the model of what must be in it.
struct Timed<'a, W: ?Sized, S> {
    cx: &'a Cx<W>,
    clock: Arc<TestClock>,
    pair: [&'a S; 2],
    turn: usize,
    rows: Rows,
    made: usize,
}

impl<'a, W: fixture::World + ?Sized, S: Subject> Timed<'a, W, S> {
    fn new(cx: &'a Cx<W>, a: &'a S, b: &'a S) -> Result<Self, Stop> {
        Ok(Self {
            cx,
            clock: cx.clock()?,
            pair: [a, b],
            turn: 0,
            rows: Rows::default(),
            made: 0,
        })
    }

    fn fresh(&mut self) -> ObjectId {
        self.made += 1;
        name(&format!("timed-{}", self.made))
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.cx.log().push(format!("-- {by:?} pass --"));
    }

    fn advance_to(&self, at: SystemTime) {
        self.advance(at.duration_since(self.now()).unwrap_or_default());
    }

    /// Makes a call and compares the answer with the model's. The handles take turns.
    async fn ask(&mut self, what: &str, id: &ObjectId, call: &Call) -> Outcome {
        let made = self.pair[self.turn].make(id, call).await;
        self.turn = 1 - self.turn;
        let observed = made.map_err(|e| Stop::error(format!("{call:?} {what}"), &e))?;
        let now = self.now();
        let expected = expect(&mut self.rows, now, id, call);
        let what = format!("{call:?} {what}");
        self.cx.eq(what, &observed, &expected)
    }

    /// Reads the row in every way through both handles.
    async fn look(&mut self, what: &str, id: &ObjectId) -> Outcome {
        for turn in 0..self.pair.len() {
            for read in S::READS {
                self.turn = turn;
                self.ask(what, id, read).await?;
            }
        }
        Ok(())
    }

    /// The deadline that a row shows now.
    async fn shown(&self, id: &ObjectId) -> Result<Option<SystemTime>, Stop> {
        let seen = self.pair[0].plain().metadata(id).await?;
        Ok(seen.and_then(|metadata| metadata.time_expires))
    }

    /// The work that accesses left in the background has ended.
    async fn join(&self) {
        for handle in self.pair {
            handle.plain().store().join().await;
        }
    }
}

/// Every way of writing a row of this life, with the calls that must come before it.
fn writers<S: Subject>(
    policy: ExpirationPolicy,
    expires: Option<SystemTime>,
) -> Vec<(Vec<Call>, Call)> {
    let (mut metadata, payload) = object("mortal", 300);
    metadata.expiration_policy = policy;
    metadata.time_expires = expires;
    let mut writers = vec![(Vec::new(), Call::Put(metadata.clone(), payload.clone()))];
    if S::IS_TIERED {
        let redirect = |letter, policy, expires| {
            let mut tombstone = Tombstone::new(target(letter), policy);
            tombstone.time_expires = expires;
            TieredWrite::Tombstone(tombstone)
        };
        let write = || TieredWrite::Object(metadata.clone(), payload.clone());
        let first = |policy| vec![Call::Swap(None, redirect("a", policy, None))];
        // One that would live longer than what takes its place.
        let long = ExpirationPolicy::TimeToLive(DAY * 365 * 20);
        let a = || Some(target("a"));
        writers.extend([
            (
                Vec::new(),
                Call::PutInline(metadata.clone(), payload.clone()),
            ),
            (Vec::new(), Call::Swap(None, write())),
            (first(ExpirationPolicy::Manual), Call::Swap(a(), write())),
            (Vec::new(), Call::Swap(None, redirect("n", policy, expires))),
            (first(long), Call::Swap(a(), redirect("n", policy, expires))),
        ]);
    }
    writers
}

/// Every call that tells a dead row from a live one.
fn observers<S: Subject>() -> Vec<Call> {
    let mut observers = S::READS.to_vec();
    observers.push(Call::Delete);
    if S::IS_TIERED {
        let (metadata, payload) = object("later", 30);
        let object = || TieredWrite::Object(metadata.clone(), payload.clone());
        let redirect = |letter| {
            TieredWrite::Tombstone(Tombstone::new(target(letter), ExpirationPolicy::Manual))
        };
        observers.extend([
            Call::PutInline(metadata.clone(), payload.clone()),
            Call::DeleteInline,
            Call::Swap(None, redirect("n")),
            Call::Swap(None, redirect("m")),
            Call::Swap(None, object()),
            Call::Swap(Some(target("n")), redirect("m")),
            Call::Swap(Some(target("n")), object()),
            Call::Swap(Some(target("n")), TieredWrite::Delete),
        ]);
    }
    observers
}

/// HV-8.1.
pub(in crate::checks) async fn deadlines<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    if cx.clock().is_err() {
        return real_deadlines(cx, a, b).await;
    }
    let mut timed = Timed::new(cx, a, b)?;
    let life = SECOND * 7;
    let mut is_taken = cx.sample();
    for observer in observers::<S>() {
        for (policy, given) in [
            (ExpirationPolicy::TimeToLive(life), None),
            (ExpirationPolicy::TimeToLive(life * 100), Some(life)),
            (ExpirationPolicy::TimeToIdle(life), None),
            (ExpirationPolicy::TimeToLive(Duration::ZERO), None),
            (ExpirationPolicy::TimeToIdle(Duration::ZERO), None),
            (ExpirationPolicy::TimeToLive(life), Some(Duration::ZERO)),
        ] {
            let lives = match policy {
                ExpirationPolicy::TimeToLive(of) | ExpirationPolicy::TimeToIdle(of) => {
                    given.unwrap_or(of)
                }
                ExpirationPolicy::Manual => life,
            };
            let is_idle = matches!(policy, ExpirationPolicy::TimeToIdle(_));
            for early in [MILLI, Duration::ZERO] {
                // A look at an idle object in its last millisecond would put its deadline off, and one without a
                // life has no last millisecond.
                if early > Duration::ZERO && (is_idle || lives.is_zero()) {
                    continue;
                }
                let count = writers::<S>(policy, None).len();
                for nth in 0..count {
                    if !is_taken() {
                        continue;
                    }
                    let expires = given.map(|given| timed.now() + given);
                    let (before, write) = writers::<S>(policy, expires).swap_remove(nth);
                    let id = timed.fresh();
                    for call in before.iter().chain([&write]) {
                        timed.ask("to begin with", &id, call).await?;
                    }
                    timed.advance(lives - early);
                    let what = format!("{early:?} before the end of {policy:?}, by {write:?}");
                    timed.ask(&what, &id, &observer).await?;
                    timed
                        .look(&format!("after {observer:?} {what}"), &id)
                        .await?;
                }
            }
        }
    }
    Ok(())
}

/// HV-8.1 where time cannot be told to pass: fewer rows, all of them at once, and nothing is judged near a deadline.
async fn real_deadlines<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let skew = match cx.caps.clock {
        ClockSource::Injected => Duration::ZERO,
        ClockSource::Server { skew } => skew,
    };
    let life = SECOND * 2;
    let mut ids = Vec::new();
    let started = Instant::now();
    for (kind, life) in [life, Duration::ZERO].into_iter().enumerate() {
        for idle in [false, true] {
            let policy = match idle {
                false => ExpirationPolicy::TimeToLive(life),
                true => ExpirationPolicy::TimeToIdle(life),
            };
            for (nth, (before, write)) in writers::<S>(policy, None).into_iter().enumerate() {
                let id = name(&format!("real-{kind}-{idle}-{nth}"));
                make_all(a, &id, &before).await?;
                make_all(a, &id, &[write]).await?;
                ids.push((id, policy, life));
            }
        }
    }
    for (id, policy, life) in ids.iter().filter(|(_, _, life)| !life.is_zero()) {
        let seen = b.see(id).await.map_err(|e| Stop::error("a read", &e))?;
        // A machine that comes late may be right to find nothing.
        if started.elapsed() + skew < *life {
            let what = format!("a row of {policy:?} before its deadline");
            cx.eq(what, &seen.is_some(), &true)?;
        }
    }
    time::pass(cx, life + skew + Duration::from_millis(100)).await?;
    for (id, policy, _) in &ids {
        for handle in [b, a] {
            for read in S::READS {
                let seen = handle.make(id, read).await;
                let seen = seen.map_err(|e| Stop::error("a read", &e))?;
                let dead = expect(&mut Rows::default(), SystemTime::UNIX_EPOCH, id, read);
                cx.eq(
                    format!("{read:?} of a row of {policy:?} after its deadline"),
                    &seen,
                    &dead,
                )?;
            }
        }
    }
    Ok(())
}

/// HV-8.2.
pub(in crate::checks) async fn no_deadline<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    /// What was there before the row.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Before {
        Nothing,
        /// Something that was to die.
        Mortal,
        /// The same, which was deleted in time.
        Deleted,
    }
    let mut timed = Timed::new(cx, a, b)?;
    let mut ids = Vec::new();
    let mut is_taken = cx.sample();
    let lives = [
        ExpirationPolicy::Manual,
        ExpirationPolicy::TimeToLive(DAY * 365 * 100),
        ExpirationPolicy::TimeToLive(DAY * 365 * 300),
    ];
    for policy in lives {
        for there in [Before::Nothing, Before::Mortal, Before::Deleted] {
            for (before, write) in writers::<S>(policy, None) {
                if !is_taken() {
                    continue;
                }
                let id = timed.fresh();
                if there != Before::Nothing {
                    let (mut metadata, payload) = object("mortal", 10);
                    metadata.expiration_policy = ExpirationPolicy::TimeToIdle(SECOND);
                    let put = Call::Put(metadata, payload);
                    timed.ask("to begin with", &id, &put).await?;
                }
                if there == Before::Deleted {
                    timed.ask("in time", &id, &Call::Delete).await?;
                }
                for call in before.iter().chain([&write]) {
                    timed.ask("to begin with", &id, call).await?;
                }
                ids.push((id, policy, there));
            }
        }
    }
    for years in [0, 1, 9] {
        timed.advance(DAY * 365 * years);
        for (id, policy, there) in &ids {
            let what = format!("of a row of {policy:?} over {there:?}, {years} years later");
            timed.look(&what, id).await?;
        }
        timed.join().await;
    }
    Ok(())
}

/// Puts an idle object and tells its id.
async fn put_idle<W, S>(
    timed: &mut Timed<'_, W, S>,
    idle: Duration,
    expires: Option<SystemTime>,
) -> Result<ObjectId, Stop>
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let id = timed.fresh();
    let (mut metadata, payload) = object("idle", 200);
    metadata.expiration_policy = ExpirationPolicy::TimeToIdle(idle);
    metadata.time_expires = expires;
    timed
        .ask("to begin with", &id, &Call::Put(metadata, payload))
        .await?;
    Ok(id)
}

/// HV-8.3.
pub(in crate::checks) async fn idle<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let mut timed = Timed::new(cx, a, b)?;
    // The idle time, and the debounce that goes with it: a quarter, or a day.
    for (tti, debounce) in [(SECOND * 1_000, SECOND * 250), (DAY * 40, DAY)] {
        for read in S::READS {
            for (after, then) in [
                (debounce - SECOND, Then::Stays),
                (debounce + SECOND, Then::Extended(tti)),
                (debounce + SECOND, Then::Outlives),
            ] {
                let put_at = timed.now();
                let id = put_idle(&mut timed, tti, None).await?;
                timed.advance(after);
                accessed(&mut timed, &id, read, put_at + tti, then).await?;
            }
        }
    }
    never_shortened(&mut timed).await?;
    again_and_again(&mut timed).await?;
    if S::IS_TIERED {
        redirects_die(&mut timed).await?;
    }
    Ok(())
}

/// What an access does to a deadline, and how that is looked at.
#[derive(Clone, Copy)]
enum Then {
    /// Nothing: it comes too early.
    Stays,
    /// It is put off to so long after the access.
    Extended(Duration),
    /// The same, seen from behind the first deadline, where no further look can have put it off.
    Outlives,
}

/// Makes an access now, looks at the deadline that it leaves, and lets it come.
async fn accessed<W, S>(
    timed: &mut Timed<'_, W, S>,
    id: &ObjectId,
    read: &Call,
    deadline: SystemTime,
    then: Then,
) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    // An answer may show the deadline before the access or after it; what is left is looked at below.
    let seen = timed.pair[1].make(id, read).await;
    let seen = seen.map_err(|e| Stop::error(format!("{read:?} of an idle object"), &e))?;
    if is_absent(&seen) {
        return Err(Stop::fail("an idle object", "absent", "alive"));
    }
    timed.join().await;
    // Whoever reads the payload has used the object. A look at its metadata may count as well.
    let must = matches!(read, Call::Row | Call::Get);
    let wanted = match then {
        Then::Stays => deadline,
        Then::Extended(by) => timed.now() + by,
        Then::Outlives => {
            timed.advance_to(deadline + MILLI);
            let seen = timed.pair[0].see(id).await;
            let seen = seen.map_err(|e| Stop::error("a read", &e))?;
            let what = format!("an idle object past its first deadline, after {read:?}");
            let alive = seen.is_some() || !must;
            return timed.cx.require(alive, what, "absent", "alive");
        }
    };
    let what = format!("the deadline of an idle object after {read:?}");
    let shown = timed.shown(id).await?;
    if must || shown != Some(deadline) {
        timed.cx.eq(what, &shown, &Some(wanted))?;
    }
    timed.advance_to(shown.unwrap_or(wanted));
    for handle in timed.pair {
        let seen = handle
            .see(id)
            .await
            .map_err(|e| Stop::error("a read", &e))?;
        let what = format!("an idle object at its deadline, after {read:?}");
        timed.cx.eq(what, &seen, &None)?;
    }
    Ok(())
}

fn is_absent(answer: &Answer) -> bool {
    let nothing = [
        Answer::Row(None),
        Answer::Object(None),
        Answer::Metadata(None),
        Answer::Head(larder_traits::TieredMetadata::NotFound),
    ];
    nothing.contains(answer)
}

/// Each access behind the debounce extends, however many came before it and whatever lay under the id before; all of them
/// through one handle, which may remember.
async fn again_and_again<W, S>(timed: &mut Timed<'_, W, S>) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let id = put_idle(timed, DAY * 40, None).await?;
    for (nth, idle) in [DAY * 40, SECOND * 1_000, SECOND * 8, DAY * 2]
        .into_iter()
        .enumerate()
    {
        if nth > 0 {
            let (mut metadata, payload) = object("idle", 200 + nth);
            metadata.expiration_policy = ExpirationPolicy::TimeToIdle(idle);
            let put = Call::Put(metadata, payload);
            timed.ask("over an idle object", &id, &put).await?;
        }
        for access in 1..=4 {
            timed.advance((idle / 4).min(DAY) + SECOND);
            let read = if S::IS_TIERED { Call::Row } else { Call::Get };
            let seen = timed.pair[1].make(&id, &read).await;
            let seen = seen.map_err(|e| Stop::error(format!("{read:?} of an idle object"), &e))?;
            let what = format!("access {access} to an object with an idle time of {idle:?}");
            timed
                .cx
                .require(!is_absent(&seen), &what, "absent", "alive")?;
            timed.join().await;
            let wanted = timed.now() + idle;
            let shown = timed.shown(&id).await?;
            timed
                .cx
                .eq(format!("the deadline after {what}"), &shown, &Some(wanted))?;
        }
    }
    Ok(())
}

/// A deadline that is later than what an access would ask for stays.
async fn never_shortened<W, S>(timed: &mut Timed<'_, W, S>) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let given = timed.now() + SECOND * 5_000;
    let id = put_idle(timed, SECOND * 1_000, Some(given)).await?;
    for _ in 0..3 {
        timed.advance(SECOND * 900);
        timed
            .look("of an idle object with a late deadline", &id)
            .await?;
        timed.join().await;
    }
    let shown = timed.shown(&id).await?;
    let what = "the deadline of an idle object that was given a late one, after accesses";
    timed.cx.eq(what, &shown, &Some(given))
}

async fn redirects_die<W, S>(timed: &mut Timed<'_, W, S>) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let id = timed.fresh();
    let redirect = Tombstone::new(target("n"), ExpirationPolicy::TimeToIdle(SECOND * 1_000));
    let point = Call::Swap(None, TieredWrite::Tombstone(redirect));
    timed.ask("to begin with", &id, &point).await?;
    for pause in [SECOND * 500, SECOND * 499, SECOND] {
        timed.advance(pause);
        timed.look("of an idle redirect", &id).await?;
        timed.join().await;
    }
    Ok(())
}

/// C-5.1.
pub(in crate::checks) async fn ahead_and_back<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let mut timed = Timed::new(cx, a, b)?;
    let hour = SECOND * 3_600;
    let mut ids = Vec::new();
    for policy in [
        ExpirationPolicy::Manual,
        ExpirationPolicy::TimeToLive(hour),
        ExpirationPolicy::TimeToIdle(hour),
        ExpirationPolicy::TimeToLive(DAY * 365 * 2),
    ] {
        for (before, write) in writers::<S>(policy, None) {
            let id = timed.fresh();
            for call in before.iter().chain([&write]) {
                timed.ask("to begin with", &id, call).await?;
            }
            ids.push(id);
        }
    }
    let mut is_taken = cx.sample();
    // The first step back comes while all of them live, and must cost none of them anything.
    for (what, to) in [
        ("an hour back", timed.now() - hour),
        ("where it was", timed.now()),
        ("half an hour ahead", timed.now() + hour / 2),
        ("a year ahead", timed.now() + DAY * 365),
        ("an hour back from there", timed.now() + DAY * 365 - hour),
    ] {
        timed.clock.set(to);
        cx.log().push(format!("-- the clock goes {what} --"));
        // An access half an hour on puts the deadline of an idle object off, and shows it as it was or as it is.
        let is_moving = what.starts_with("half");
        for id in &ids {
            let row = timed.rows.row(timed.now(), id);
            let is_idle = matches!(
                row,
                Some(Row::Inline(metadata, _))
                    if matches!(metadata.expiration_policy, ExpirationPolicy::TimeToIdle(_))
            );
            if is_taken() && !(is_moving && is_idle) {
                timed.look(&format!("with the clock {what}"), id).await?;
            }
        }
        busy(&mut timed, what).await?;
    }
    Ok(())
}

/// New rows at this time: every call answers as it should, and what is short-lived dies.
async fn busy<W, S>(timed: &mut Timed<'_, W, S>, what: &str) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let was = timed.now();
    let policy = ExpirationPolicy::TimeToLive(SECOND * 10);
    let mut ids = Vec::new();
    for (before, write) in writers::<S>(policy, None) {
        let id = timed.fresh();
        for call in before.iter().chain([&write]) {
            timed
                .ask(&format!("with the clock {what}"), &id, call)
                .await?;
        }
        timed
            .look(&format!("written with the clock {what}"), &id)
            .await?;
        ids.push(id);
    }
    let gone = timed.fresh();
    let metadata = Metadata::new();
    let mut given = metadata.clone();
    given.time_created = Some(far());
    let put = Call::Put(given, Bytes::from(pattern("gone", 9)));
    for call in [put, Call::Delete] {
        timed
            .ask(&format!("with the clock {what}"), &gone, &call)
            .await?;
    }
    timed.advance(SECOND * 10);
    for id in &ids {
        timed
            .look(&format!("at its deadline, with the clock {what}"), id)
            .await?;
    }
    timed.join().await;
    timed.clock.set(was);
    // What has died at its deadline and was looked at may be cleared away or be back, as the time is: removed, so that
    // it is neither.
    for id in &ids {
        timed.ask("at the end", id, &Call::Delete).await?;
    }
    Ok(())
}
