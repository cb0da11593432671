//! HV-8.4 for both contracts of objects: accesses that extend a row's life, against whatever else becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use larder_traits::{
    BackendError, Classify, Clock, ErrorKind, ExpirationPolicy, Metadata, ObjectId,
    Outcome as Effect, TestClock, TieredMetadata, TieredWrite, Tombstone,
};
use tokio::sync::Barrier;

use super::calls::{Answer, Call, Subject, make_all, object, target};
use super::objects::{far, name};
use crate::backend::Object;
use crate::check::{Outcome, Stop};
use crate::cx::{Cx, brief};
use crate::fixture;
use crate::model::high_volume::Row;

const IDLE: Duration = Duration::from_secs(1_000);

/// What happens to the row while it is read.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a check has a handful of them")]
enum Rival {
    Call(Call),
    /// Its deadline comes.
    Expiry,
}

/// One read, with the moments before and after it.
struct Reading {
    start: Instant,
    end: Instant,
    seen: Answer,
}

/// What a read can have seen of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saw {
    Old,
    New,
}

/// One round: the row as it is before, and as the rival leaves it.
struct Round {
    id: ObjectId,
    rival: Rival,
    /// The idle object. Its deadline is the one of the put.
    old: Metadata,
    payload: Bytes,
    /// The deadline that an access gives it.
    extended: SystemTime,
    new: Option<Row>,
}

impl Round {
    /// Whether metadata is that of the old object, its deadline extended or not.
    fn is_old(&self, metadata: &Metadata) -> bool {
        let mut plain = metadata.clone();
        plain.time_expires = self.old.time_expires;
        let at = metadata.time_expires;
        plain == self.old && (at == self.old.time_expires || at == Some(self.extended))
    }

    fn judge(&self, seen: &Answer) -> Result<Saw, Stop> {
        let (metadata, payload) = match seen {
            Answer::Row(Some(Row::Inline(metadata, payload)))
            | Answer::Object(Some(Object { metadata, payload })) => (metadata, Some(payload)),
            Answer::Metadata(Some(metadata)) | Answer::Head(TieredMetadata::Object(metadata)) => {
                (metadata, None)
            }
            other => {
                let found = match other {
                    Answer::Row(Some(Row::Redirect(tombstone)))
                    | Answer::Head(TieredMetadata::Tombstone(tombstone))
                    | Answer::Met(tombstone) => Some(Row::Redirect(tombstone.clone())),
                    _ => None,
                };
                return self.is_new(found == self.new, seen);
            }
        };
        if self.is_old(metadata) && payload.is_none_or(|payload| *payload == self.payload) {
            return Ok(Saw::Old);
        }
        let is_new = match &self.new {
            Some(Row::Inline(new, whole)) => {
                metadata == new && payload.is_none_or(|payload| payload == whole)
            }
            _ => false,
        };
        self.is_new(is_new, seen)
    }

    fn is_new(&self, holds: bool, seen: &Answer) -> Result<Saw, Stop> {
        if holds {
            return Ok(Saw::New);
        }
        Err(Stop::fail(
            format!("a read of an idle object during {:?}", self.rival),
            brief(seen),
            format!(
                "the old object, its deadline extended to {:?} or not, or {}",
                self.extended,
                brief(&self.new)
            ),
        ))
    }
}

fn rivals<S: Subject>() -> Vec<Rival> {
    let (mut metadata, payload) = object("new", 800);
    metadata.size = Some(800);
    let mut dying = metadata.clone();
    dying.expiration_policy = ExpirationPolicy::TimeToLive(IDLE);
    dying.time_expires = Some(far());
    let mut idle = metadata.clone();
    idle.expiration_policy = ExpirationPolicy::TimeToIdle(IDLE * 2);
    idle.time_expires = Some(far());
    let mut rivals = vec![
        Rival::Call(Call::Put(dying, payload.clone())),
        Rival::Call(Call::Delete),
        Rival::Expiry,
        Rival::Call(Call::Put(idle, payload.clone())),
    ];
    if S::IS_TIERED {
        let tombstone = Tombstone::new(target("a"), ExpirationPolicy::Manual);
        rivals.extend([
            Rival::Call(Call::Swap(None, TieredWrite::Tombstone(tombstone))),
            Rival::Call(Call::PutInline(metadata.clone(), payload.clone())),
            Rival::Call(Call::DeleteInline),
            Rival::Call(Call::Swap(None, TieredWrite::Object(metadata, payload))),
        ]);
    }
    rivals
}

/// HV-8.4.
pub(in crate::checks) async fn revived<W, S>(cx: &Cx<W>, a: &S, b: &S) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    let clock = cx.clock()?;
    let rivals = rivals::<S>();
    let rounds = cx.lin_epochs().min(1_000);
    let mut met = 0;
    for nth in 0..rounds {
        let rival = rivals[nth % rivals.len()].clone();
        let id = name(&format!("idle-{nth}"));
        // Behind the debounce in any case, and just before the deadline if that is to come.
        let pause = match rival {
            Rival::Expiry => IDLE - Duration::from_millis(1),
            Rival::Call(_) => IDLE / 2,
        };
        let (mut old, payload) = object("old", 1_500);
        old.expiration_policy = ExpirationPolicy::TimeToIdle(IDLE);
        old.time_expires = Some(clock.now() + IDLE);
        old.size = Some(1_500);
        let put = [Call::Put(old.clone(), payload.clone())];
        make_all(a, &id, &put).await?;
        clock.advance(pause);
        let new = match &rival {
            Rival::Call(call) => super::calls::row_after(&id, [call]),
            Rival::Expiry => None,
        };
        let round = Round {
            id,
            rival,
            old,
            payload,
            extended: clock.now() + IDLE,
            new,
        };
        met += usize::from(one(cx, &clock, [a, b], &round).await?);
        after(cx, &clock, [a, b], &round).await?;
    }
    if met * 5 < rounds {
        return Err(Stop::Inconclusive(format!(
            "only in {met} of {rounds} rounds was the row read while it changed"
        )));
    }
    Ok(())
}

/// Whether a get may end like this where its object is replaced before the body was read to its end.
fn is_of_the_body(read: &Call, e: &BackendError) -> bool {
    let is_read = e.outcome() == Effect::NotApplied && e.kind() == ErrorKind::Unavailable;
    matches!(read, Call::Get) && is_read
}

/// The readers and the rival at once. Tells whether a read went on while the rival acted.
async fn one<W, S>(
    cx: &Cx<W>,
    clock: &Arc<TestClock>,
    pair: [&S; 2],
    round: &Round,
) -> Result<bool, Stop>
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    const READERS: usize = 3;
    let barrier = Arc::new(Barrier::new(READERS + 1));
    let is_over = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for nth in 0..READERS {
        let (handle, id) = (pair[nth % 2].clone(), round.id.clone());
        let (barrier, is_over) = (Arc::clone(&barrier), Arc::clone(&is_over));
        let begun = Arc::clone(&begun);
        tasks.push(tokio::spawn(async move {
            let mut readings = Vec::new();
            barrier.wait().await;
            let mut last = false;
            for read in S::READS.iter().cycle().skip(nth).take(60) {
                let start = Instant::now();
                begun.store(true, Ordering::SeqCst);
                let seen = match handle.make(&id, read).await {
                    // Its object may have gone under the body (BK-1.4), as long as somebody is at work on it.
                    Err(e) if !last && is_of_the_body(read, &e) => {
                        last = is_over.load(Ordering::SeqCst);
                        continue;
                    }
                    seen => seen.map_err(|e| Stop::error(format!("{read:?}"), &e))?,
                };
                tokio::task::yield_now().await;
                let end = Instant::now();
                readings.push(Reading { start, end, seen });
                if last {
                    break;
                }
                last = is_over.load(Ordering::SeqCst);
            }
            Ok::<_, Stop>(readings)
        }));
    }
    let pauses = (crate::seed::hash(round.id.key.as_bytes()) ^ cx.seed()) % 4;
    barrier.wait().await;
    // The first accesses are those that write, so the rival comes with them and not before or after.
    let start = Instant::now();
    while !begun.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    for _ in 0..pauses {
        std::hint::spin_loop();
    }
    match &round.rival {
        Rival::Call(call) => {
            let call = std::slice::from_ref(call);
            make_all(pair[1], &round.id, call).await?;
        }
        Rival::Expiry => clock.advance(Duration::from_millis(1)),
    }
    let end = Instant::now();
    is_over.store(true, Ordering::SeqCst);
    let mut readings = Vec::new();
    for task in tasks {
        let ended = task.await;
        let ended = ended.map_err(|e| Stop::fail("a read", e.to_string(), "an answer (C-3)"))?;
        readings.extend(ended?);
    }
    let met = readings
        .iter()
        .any(|reading| reading.start < end && reading.end > start);
    in_order(round, end, &readings)?;
    Ok(met)
}

/// Once the row was seen gone or replaced it stays that, and after the rival's answer it is nothing else.
fn in_order(round: &Round, rival_end: Instant, readings: &[Reading]) -> Outcome {
    let mut first_new = match round.rival {
        Rival::Call(_) => Some(rival_end),
        // An access before the deadline may have put it off.
        Rival::Expiry => None,
    };
    let mut olds = Vec::new();
    for reading in readings {
        match round.judge(&reading.seen)? {
            Saw::Old => olds.push(reading.start),
            Saw::New => {
                let end = reading.end;
                first_new = Some(first_new.map_or(end, |earlier| earlier.min(end)));
            }
        }
    }
    let revived = first_new.is_some_and(|end| olds.iter().any(|start| *start > end));
    if revived {
        return Err(Stop::fail(
            format!("reads of an idle object during {:?}", round.rival),
            "the old object, after it was gone",
            "that it stays gone (HV-8)",
        ));
    }
    Ok(())
}

/// What is left when all is over, and what is left of that when its time has come.
async fn after<W, S>(cx: &Cx<W>, clock: &Arc<TestClock>, pair: [&S; 2], round: &Round) -> Outcome
where
    W: fixture::World + ?Sized,
    S: Subject,
{
    for handle in pair {
        handle.plain().store().join().await;
    }
    let mut all = Vec::new();
    for handle in pair {
        let seen = handle.see(&round.id).await;
        all.push(seen.map_err(|e| Stop::error("a read", &e))?);
    }
    let what = format!("the row after reads of it during {:?}", round.rival);
    cx.eq(format!("{what}, through either handle"), &all[0], &all[1])?;
    if matches!(round.rival, Rival::Call(_)) {
        return cx.eq(what, &all[0], &round.new);
    }
    if let Some(found) = &all[0] {
        // It lives because an access came before the deadline, and then for as long as that access says.
        let mut put_off = round.old.clone();
        put_off.time_expires = Some(round.extended);
        let expected = Row::Inline(put_off, round.payload.clone());
        cx.eq(&what, found, &expected)?;
        let rest = round.extended.duration_since(clock.now());
        clock.advance(rest.unwrap_or_default());
        for handle in pair {
            let seen = handle.see(&round.id).await;
            let seen = seen.map_err(|e| Stop::error("a read", &e))?;
            cx.eq("an idle object at the deadline put off", &seen, &None)?;
        }
    }
    Ok(())
}
