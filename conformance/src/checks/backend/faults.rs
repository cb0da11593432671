//! Calls to a medium that fails, for both contracts of objects.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use larder_traits::{
    BackendError, Classify, ExpirationPolicy, Metadata, ObjectId, Outcome as Effect,
};

use super::calls::{Answer, Case, States, Subject, cases};
use super::objects::{chunks, len_max, name};
use crate::backend::{Handle, Object, World, client_stream};
use crate::check::{Outcome, Stop, describe};
use crate::checks::{of_the_medium, pattern};
use crate::cx::{Cx, brief};
use crate::engine::fault::each_call;
use crate::fixture::{self, FaultKind, Faults};
use crate::model::high_volume::Row;

/// How long a call may take that meets a fault, its own retries included.
const BOUND: Duration = Duration::from_secs(20);

/// How long a call that is said to have had no effect is watched.
const WATCH: Duration = Duration::from_secs(1);

/// What a call on a failing medium left, to be looked at again.
struct Left {
    id: ObjectId,
    what: String,
    states: States,
    is_certain: bool,
}

/// Which calls are made to fail, how, and what is done then.
#[derive(Clone, Copy)]
pub(in crate::checks) struct Trouble {
    pub(in crate::checks) kinds: &'static [FaultKind],
    /// Whether a call that failed is made again until it goes well, its answer then being that of a first call.
    pub(in crate::checks) again: bool,
}

/// What is in the row, asked until the medium answers: it may take a store some attempts to notice that it is back.
async fn see_soon<S: Subject>(handle: &S, id: &ObjectId, what: &str) -> Result<Option<Row>, Stop> {
    let mut tries = 0;
    loop {
        match handle.see(id).await {
            Ok(row) => return Ok(row),
            Err(e) if tries == 10 => {
                return Err(Stop::error(format!("a read after {what}"), &e));
            }
            Err(e) => not_applied(&e, "a read")?,
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn not_applied(e: &BackendError, what: &str) -> Outcome {
    if e.outcome() == Effect::NotApplied {
        return Ok(());
    }
    Err(Stop::fail(
        format!("the error of {what}"),
        describe(e),
        "NotApplied",
    ))
}

/// One attempt: the row is brought about, the `nth` call to the medium fails, and what became of it is judged. Tells
/// whether the fault was met.
async fn attempt<W, S>(
    cx: &Cx<W>,
    pair: [&S; 2],
    case: &Case,
    (faults, nth, kind): (&dyn Faults, u64, FaultKind),
    left: &mut Vec<Left>,
    trouble: Trouble,
) -> Result<bool, Stop>
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let [a, b] = pair;
    faults.disarm();
    let id = name(&format!(
        "failing-{}-{}",
        u8::from(trouble.again),
        left.len()
    ));
    case.prepare(a, &id).await?;
    let states = case.states(&id);
    let what = format!("{}, {kind:?} at the medium's call {nth}", case.what());
    faults.arm(nth, kind);
    let ended = cx.within(BOUND, &what, a.make(&id, &case.call)).await;
    let met = faults.disarm();
    let ended = ended?;
    let mut is_certain = false;
    // The handle that failed may not go its own way.
    let seen = [
        see_soon(b, &id, &what).await?,
        see_soon(a, &id, &what).await?,
    ];
    match &ended {
        Ok(answer) => {
            cx.eq(&what, answer, &states.answer)?;
            for seen in &seen {
                cx.eq(format!("the row after {what}"), seen, &states.new)?;
            }
        }
        Err(e) => {
            of_the_medium(&what, e)?;
            if case.call.is_read() {
                not_applied(e, &what)?;
            }
            is_certain = e.outcome() == Effect::NotApplied;
            let what = format!("the row after {what}, which was {}", describe(e));
            for seen in &seen {
                if is_certain {
                    cx.eq(&what, seen, &states.old)?;
                } else {
                    states.either(&what, seen)?;
                }
            }
        }
    }
    let mut states = states;
    if trouble.again && ended.is_err() {
        let answer = repeated(a, &id, case, &what).await?;
        let what = format!("{what}, made again");
        cx.eq(&what, &answer, &states.answer)?;
        let seen = see_soon(b, &id, &what).await?;
        cx.eq(format!("the row after {what}"), &seen, &states.new)?;
        states.old = states.new.clone();
        is_certain = true;
    }
    left.push(Left {
        id,
        what,
        states,
        is_certain,
    });
    Ok(met)
}

async fn repeated<S: Subject>(
    handle: &S,
    id: &ObjectId,
    case: &Case,
    what: &str,
) -> Result<Answer, Stop> {
    let mut tries = 0;
    loop {
        match handle.make(id, &case.call).await {
            Ok(answer) => return Ok(answer),
            Err(e) if tries == 10 => return Err(Stop::error(format!("{what}, made again"), &e)),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Each of `cases` on a medium whose first, second, … call fails.
pub(in crate::checks) async fn troubled<W, S>(
    cx: &Cx<W>,
    a: &S,
    b: &S,
    cases: &[Case],
    trouble: Trouble,
) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let faults = cx.faults()?;
    let left = RefCell::new(Vec::new());
    let any = Cell::new(false);
    for case in cases {
        for kind in trouble.kinds {
            let (faults, left, any) = (faults.as_ref(), &left, &any);
            let was_met = &Cell::new(false);
            let ended = each_call(faults, *kind, |nth| async move {
                // Out of its cell while the attempt runs, so that nothing is borrowed across an await.
                let mut mine = left.take();
                let how = (faults, nth, *kind);
                let met = attempt(cx, [a, b], case, how, &mut mine, trouble).await;
                left.replace(mine);
                let met = met?;
                any.set(any.get() || met);
                was_met.set(was_met.get() || met);
                Ok(met)
            })
            .await;
            match ended {
                // A call that needs no medium cannot fail with it.
                Err(Stop::Inconclusive(_)) if !was_met.get() => {}
                other => other?,
            }
        }
    }
    if !any.get() {
        return Err(Stop::Inconclusive("the fault was never met".into()));
    }
    tokio::time::sleep(WATCH).await;
    for row in left.into_inner() {
        let seen = see_soon(b, &row.id, &row.what).await?;
        let what = format!("the row {WATCH:?} after {}", row.what);
        if row.is_certain {
            cx.eq(what, &seen, &row.states.old)?;
        } else {
            row.states.either(&what, &seen)?;
        }
    }
    Ok(())
}

/// C-1.1.
pub(in crate::checks) async fn every_error<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let trouble = Trouble {
        kinds: &[FaultKind::ErrorBefore],
        again: false,
    };
    troubled(cx, a, b, &cases::<S, W>(cx), trouble).await
}

/// C-1.2.
pub(in crate::checks) async fn either_side<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let mut writes = cases::<S, W>(cx);
    writes.retain(|case| !case.call.is_read());
    for again in [false, true] {
        let trouble = Trouble {
            kinds: &[FaultKind::ErrorBefore, FaultKind::ErrorAfter],
            again,
        };
        troubled(cx, a, b, &writes, trouble).await?;
    }
    Ok(())
}

/// BK-2.2.
pub(super) async fn cut_short(cx: &Cx<dyn World>) -> Outcome {
    let faults = cx.faults()?;
    let (a, b) = cx.open_two("p").await?;
    let payload = pattern("whole", len_max(&cx.caps, cx.profile).min(3_000_017));
    let id = name("whole");
    a.put_chunks(
        &id,
        &Metadata::new(),
        chunks(&payload.into(), 65_536, false),
    )
    .await?;
    let whole = b.get(&id).await?;
    let Some(Object { metadata, .. }) = whole.clone() else {
        return Err(Stop::fail("an object that was put", "None", "the object"));
    };
    for kind in [FaultKind::ErrorBefore, FaultKind::ErrorAfter] {
        let (faults, b, id, whole) = (faults.as_ref(), &b, &id, &whole);
        each_call(faults, kind, |nth| async move {
            let what = format!("a get, {kind:?} at the medium's call {nth}");
            let got = cx.within(BOUND, &what, b.try_get(id)).await;
            let met = faults.disarm();
            match got? {
                Ok(seen) => {
                    let len = |object: &Option<Object>| object.as_ref().map(|o| o.payload.len());
                    let observed = format!("{} of {:?} B", brief(&seen), len(&seen));
                    let expected = format!("an error, or all {:?} B", len(whole));
                    cx.require(seen == *whole, what, observed, expected)?;
                }
                Err(e) => not_applied(&e, &what)?,
            }
            Ok(met)
        })
        .await?;
        let metadata = &Some(metadata.clone());
        let ended = each_call(faults, kind, |nth| async move {
            let what = format!("get_metadata, {kind:?} at the medium's call {nth}");
            let got = cx.within(BOUND, &what, b.try_metadata(id)).await;
            let met = faults.disarm();
            match got? {
                Ok(seen) => cx.eq(what, &seen, metadata)?,
                Err(e) => not_applied(&e, &what)?,
            }
            Ok(met)
        })
        .await;
        match ended {
            // Metadata may be known without asking anybody.
            Err(Stop::Inconclusive(_)) => {}
            other => other?,
        }
    }
    cx.eq("the object after all faults", &a.get(&id).await?, &whole)
}

/// BK-5.1.
pub(super) async fn join_ends(cx: &Cx<dyn World>) -> Outcome {
    let faults = cx.faults()?;
    let (a, b) = cx.open_two("p").await?;
    let bound = Duration::from_secs(15);
    let idle = Metadata::with_policy(ExpirationPolicy::TimeToIdle(Duration::from_secs(1_000)));
    let made = Cell::new(0);
    for kind in [FaultKind::ErrorBefore, FaultKind::ErrorAfter] {
        let (faults, a, b, idle, made) = (faults.as_ref(), &a, &b, &idle, &made);
        each_call(faults, kind, |nth| async move {
            faults.disarm();
            made.set(made.get() + 1);
            let id = name(&format!("joined-{}", made.get()));
            a.put(&id, idle, "payload").await?;
            if let Ok(clock) = cx.clock() {
                // Far enough for an access to have something to write behind the caller's back.
                clock.advance(Duration::from_secs(700));
            }
            faults.arm(nth, kind);
            let calls = some_calls(a, &id, idle);
            cx.within(bound, "calls on a medium that fails", calls)
                .await?;
            let what = format!("join, {kind:?} at the medium's call {nth}");
            cx.within(bound, &what, a.store().join()).await?;
            let met = faults.disarm();
            cx.within(bound, format!("{what}, the other handle"), b.store().join())
                .await?;
            Ok(met)
        })
        .await?;
    }
    a.put(&name("after"), &Metadata::new(), "after").await?;
    let there = b.get(&name("after")).await?.is_some();
    cx.eq("an object put after all joins", &there, &true)
}

/// An access, a put and a delete, whatever becomes of them.
async fn some_calls(handle: &Handle, id: &ObjectId, metadata: &Metadata) {
    drop(handle.try_get(id).await);
    let pieces = client_stream(vec!["one".into(), "two".into()]);
    drop(
        handle
            .try_put_stream(id, metadata, "two pieces", pieces)
            .await,
    );
    drop(handle.try_metadata(id).await);
    drop(handle.try_delete(id).await);
}
