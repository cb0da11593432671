//! A small copy of the protocols, which keeps every clause as long as nothing is broken in it.
//!
//! It has no audit, no peeking beyond a whole payload in memory and no bounds but those that a check asks for. What it
//! shares with the shipped combinator is the order of steps, and that is what can be broken here, in one place each.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a panic is the answer, and nobody holds these locks when one comes"
)]

mod calls;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::{FutureExt, StreamExt, stream};
use larder_traits::{
    Backend, BackendError, Change, ChangeId, Classify, ClientStream, Clock, ErrorKind,
    ExpirationPolicy, Fault, LateLanding, Metadata, ObjectId, Outcome, Step, TieredMetadata,
    TieredWrite, Tombstone, WriterId,
};

use crate::common::{LEASE, Made, Parts};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Nothing,
    KeepsNoLog,
    LogsTheSwapAfterIt,
    TakesALostSwapForOvertaken,
    RemovesAfterATimeout,
    RepeatsASwapThatExpectsNothing,
    SettlesWithoutAFence,
    SaysNotAppliedAfterALostAnswer,
    TakesAMissForAbsence,
    GivesUpAtTheFirstMiss,
    EndsAtAnOldDeadline,
    CleansUpForEver,
    SwapsBeforeTheUpload,
    LeavesTheLosersPayload,
    RemovesTheWinnersPayload,
    LeavesTheReplacedPayload,
    RemovesBeforeTheSwap,
    IgnoresLeases,
    HasNoHeartbeat,
    ForgetsThatItsLeaseEnded,
    RecoversWithoutALook,
    RemovesWithoutALook,
    RecoversByForgettingSwaps,
    NamesPayloadsByTheirKey,
    IsOffByOne,
    HasTwoDeadlines,
    NeverFollowsThePayload,
    PutsOverRedirectsBlindly,
    DeletesOnlyTheRow,
    AsksBothTiers,
    StopsWithItsCaller,
    LeavesADroppedUpload,
    RecordsBeforeItKnowsTheSize,
    JudgesByTheChunk,
    BelievesTheSize,
    NumbersPayloadsByHandle,
    AnswersForThePayload,
    KeepsTheOldDeadline,
    DeletesForAnEmptyPut,
    LosesMetadataOverARedirect,
    InsistsAfterALostRace,
    RecoversOnePage,
    JoinsOnlyItsCallers,
    EndsAtAnEmptyPiece,
    RecoversUntilAFailure,
    TakesUpOnePageOfItsOwn,
    JoinsOnlyWhatRunsNow,
    ResolvesUnjoined,
    TakesAMissForAbsenceInMetadata,
    NeverFollowsThePayloadInMetadata,
    LosesASmallPutOverAnEndedRedirect,
    RecoversWhatIsOpenHere,
    BlamesItselfForALargeClient,
    CompletesBeforeTheRemoval,
}

static UNIQUE: AtomicU64 = AtomicU64::new(1);

fn unique() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&UNIQUE.fetch_add(1, SeqCst).to_be_bytes());
    bytes
}

struct Inner {
    parts: Parts,
    flaw: Flaw,
    writer: WriterId,
    until: Mutex<Option<SystemTime>>,
    open: Mutex<Vec<ChangeId>>,
    recorded: Mutex<Vec<ChangeId>>,
    /// The numbers of the tasks that nobody waits for but a join.
    running: Mutex<Vec<u64>>,
    uploads: AtomicU64,
}

#[derive(Clone)]
pub(crate) struct Copied(Arc<Inner>);

impl std::fmt::Debug for Copied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Copied({:?})", self.0.flaw)
    }
}

pub(crate) fn copied(flaw: Flaw) -> impl Fn(Parts) -> Made + Sync {
    move |parts| {
        Arc::new(Copied(Arc::new(Inner {
            parts,
            flaw,
            writer: WriterId::from_bytes(unique()),
            until: Mutex::default(),
            open: Mutex::default(),
            recorded: Mutex::default(),
            running: Mutex::default(),
            uploads: AtomicU64::new(0),
        })))
    }
}

const ATTEMPTS: u32 = 5;

enum End {
    Won,
    Lost,
    Vanished,
    Refused(BackendError),
    Over(BackendError),
    Open(BackendError),
}

type Result<T, E = BackendError> = std::result::Result<T, E>;

fn unknown(e: BackendError) -> BackendError {
    Fault::unknown(e.kind(), "not answered").because(e).into()
}

fn not_applied(e: impl Classify + Send + Sync + 'static) -> BackendError {
    Fault::not_applied(e.kind(), "before the swap")
        .because(e)
        .into()
}

fn refers(row: &TieredMetadata, payload: Option<&ObjectId>) -> bool {
    matches!(row, TieredMetadata::Tombstone(there) if Some(&there.target) == payload)
}

impl Copied {
    fn is(&self, flaw: Flaw) -> bool {
        self.0.flaw == flaw
    }

    fn now(&self) -> SystemTime {
        self.0.parts.clock.now()
    }

    async fn retry<T, E: Classify, F: Future<Output = Result<T, E>>>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> Result<T, E> {
        let mut attempt = 1;
        loop {
            match call().await {
                Err(e) if e.kind() == ErrorKind::Unavailable && attempt < ATTEMPTS => {
                    self.0.parts.run.sleep(Duration::from_millis(20)).await;
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    async fn hold(&self) -> Result<(), Fault> {
        let until = *self.0.until.lock().unwrap();
        if until.is_some_and(|until| until >= self.now() + LEASE / 2) {
            return Ok(());
        }
        let until = self.now() + LEASE;
        self.0.parts.log.renew(self.0.writer, until).await?;
        *self.0.until.lock().unwrap() = Some(until);
        Ok(())
    }

    async fn record(&self, change: &Change) -> Result<(), Fault> {
        if self.is(Flaw::KeepsNoLog) {
            return Ok(());
        }
        // What was recorded before may have been claimed since, if the lease has ended in between.
        let may_be_lost = {
            let until = *self.0.until.lock().unwrap();
            let is_first = !self.0.recorded.lock().unwrap().contains(&change.id);
            until.is_some_and(|until| until <= self.now()) && !is_first
        };
        self.retry(|| self.hold()).await?;
        if may_be_lost && !self.is(Flaw::ForgetsThatItsLeaseEnded) {
            let own = self
                .retry(|| self.0.parts.log.changes(self.0.writer))
                .await?;
            if !own.iter().any(|own| own.id == change.id) {
                return Err(Fault::not_applied(ErrorKind::Conflict, "claimed"));
            }
        }
        self.0.recorded.lock().unwrap().push(change.id);
        self.retry(|| self.0.parts.log.record(self.0.writer, change))
            .await
    }

    fn begin(&self, object: &ObjectId, step: Step) -> Change {
        let id = ChangeId::from_bytes(unique());
        self.0.open.lock().unwrap().push(id);
        Change::new(id, object.clone(), step)
    }

    fn leave(&self, change: &Change) {
        self.0.open.lock().unwrap().retain(|id| *id != change.id);
    }

    async fn complete(&self, change: &Change) {
        if !self.is(Flaw::KeepsNoLog) {
            drop(
                self.retry(|| self.0.parts.log.complete(self.0.writer, change.id))
                    .await,
            );
        }
        self.leave(change);
    }

    async fn leased<T>(&self, work: impl Future<Output = T> + Send) -> T {
        if self.is(Flaw::HasNoHeartbeat) {
            return work.await;
        }
        let beats: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async {
            loop {
                self.0.parts.run.sleep(LEASE / 3).await;
                drop(self.hold().await);
            }
        });
        match select(Box::pin(work), beats).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => unreachable!("beats for ever"),
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let number = UNIQUE.fetch_add(1, SeqCst);
        self.0.running.lock().unwrap().push(number);
        let inner = Arc::clone(&self.0);
        self.0.parts.run.spawn_background(async move {
            task.await;
            inner.running.lock().unwrap().retain(|it| *it != number);
        });
    }

    /// Whether something runs that a join waits for which began at `begun`.
    fn is_running(&self, begun: u64) -> bool {
        let running = self.0.running.lock().unwrap();
        let is_awaited = |number: &u64| *number < begun || !self.is(Flaw::JoinsOnlyWhatRunsNow);
        running.iter().any(is_awaited)
    }

    /// Runs `work` to its end, whoever waits for it.
    async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        if self.is(Flaw::StopsWithItsCaller) {
            return work.await;
        }
        let step = Some(work.boxed());
        let of = self.clone();
        Finishing { step, of }.await
    }

    async fn look(&self, id: &ObjectId) -> Result<TieredMetadata> {
        self.retry(|| self.0.parts.high.get_tiered_metadata(id))
            .await
    }

    async fn settle(&self, id: &ObjectId, probe: &ObjectId, patient: bool) -> bool {
        if self.is(Flaw::SettlesWithoutAFence) {
            return true;
        }
        let Parts {
            high,
            high_caps,
            run,
            ..
        } = &self.0.parts;
        match self.retry(|| high.fence(id)).await {
            Ok(()) => return true,
            Err(e) if e.kind() == ErrorKind::Unsupported => {}
            Err(_) => return false,
        }
        match high_caps.late_landing {
            LateLanding::Fenced => {
                let nothing = || {
                    let same = Tombstone::new(probe.clone(), ExpirationPolicy::Manual);
                    high.compare_and_write(id, Some(probe), TieredWrite::Tombstone(same))
                };
                self.retry(nothing).await.is_ok()
            }
            LateLanding::MayLandLate(Some(bound)) if patient => {
                run.sleep(bound).await;
                true
            }
            LateLanding::MayLandLate(_) => false,
        }
    }

    /// Swaps the row from what was `seen` in it.
    async fn swap(&self, change: &Change, seen: Option<&Tombstone>, write: &TieredWrite) -> End {
        let id = &change.object;
        let old = seen.map(|seen| &seen.target);
        let created = change.created.as_ref();
        let mut doubt: Option<BackendError> = None;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let swap = self.0.parts.high.compare_and_write(id, old, write.clone());
            let last = match swap.await {
                Ok(true) => return End::Won,
                Ok(false) if old.is_none() || self.is(Flaw::TakesALostSwapForOvertaken) => {
                    return End::Lost;
                }
                Ok(false) => None,
                Err(e) if e.outcome() == Outcome::NotApplied => Some(e),
                Err(e) if self.is(Flaw::RemovesAfterATimeout) => return End::Over(e),
                Err(e) if self.is(Flaw::SaysNotAppliedAfterALostAnswer) => {
                    return End::Refused(not_applied(e));
                }
                Err(e) => {
                    doubt = Some(e);
                    None
                }
            };
            let last = match last {
                Some(e) => e,
                None => match self.look(id).await {
                    Err(e) => e,
                    Ok(row) if refers(&row, created) => return End::Won,
                    Ok(row) if old.is_some() && !refers(&row, old) => {
                        return self.left(&row, seen, write, doubt);
                    }
                    Ok(_) => Fault::not_applied(ErrorKind::Unavailable, "not yet").into(),
                },
            };
            let blind = old.is_none() && doubt.is_some();
            let repeats = !blind || self.is(Flaw::RepeatsASwapThatExpectsNothing);
            if attempt < ATTEMPTS && repeats {
                continue;
            }
            let Some(doubt) = doubt else {
                return End::Refused(last);
            };
            let probe = created.or(old).expect("a swap has at least one of them");
            if !self.settle(id, probe, false).await {
                return End::Open(unknown(doubt));
            }
            return match self.look(id).await {
                Err(_) => End::Open(unknown(doubt)),
                Ok(row) if refers(&row, created) => End::Won,
                Ok(row) if old.is_some() && refers(&row, old) => End::Refused(not_applied(doubt)),
                Ok(row) if old.is_some() => self.left(&row, seen, write, Some(doubt)),
                Ok(TieredMetadata::Tombstone(_)) => End::Lost,
                Ok(_) => End::Over(unknown(doubt)),
            };
        }
    }

    fn left(
        &self,
        row: &TieredMetadata,
        seen: Option<&Tombstone>,
        write: &TieredWrite,
        doubt: Option<BackendError>,
    ) -> End {
        match (row, doubt) {
            (TieredMetadata::NotFound, None) => End::Vanished,
            (TieredMetadata::NotFound, Some(doubt)) => {
                let has_ended = seen.is_some_and(|seen| seen.is_expired(self.now()));
                match has_ended && !matches!(write, TieredWrite::Delete) {
                    true => End::Over(unknown(doubt)),
                    false => End::Lost,
                }
            }
            _ => End::Lost,
        }
    }

    /// Removes payloads in the background.
    fn discard(&self, mut change: Change, created: Option<ObjectId>, replaced: Option<ObjectId>) {
        let this = self.clone();
        change.step = Step::Remove;
        (change.created, change.replaced) = (created, replaced);
        self.spawn(async move {
            match this.record(&change).await {
                Err(fault) if fault.kind() != ErrorKind::Conflict => this.leave(&change),
                _ => drop(this.remove(&change).await),
            }
        });
    }

    async fn remove(&self, change: &Change) -> bool {
        if self.is(Flaw::CompletesBeforeTheRemoval) {
            self.complete(change).await;
        }
        for payload in [&change.created, &change.replaced].into_iter().flatten() {
            loop {
                let deleted = self
                    .retry(|| self.0.parts.long.delete_object(payload))
                    .await;
                if deleted.is_ok() {
                    break;
                }
                if !self.is(Flaw::CleansUpForEver) {
                    self.leave(change);
                    return false;
                }
            }
        }
        self.complete(change).await;
        true
    }

    async fn small(&self, id: ObjectId, metadata: Metadata, payload: Bytes) -> Result<()> {
        let high = Arc::clone(&self.0.parts.high);
        if self.is(Flaw::PutsOverRedirectsBlindly) {
            let stream = stream::iter([Ok(payload)]).boxed();
            return high.put_object(&id, &metadata, stream).await;
        }
        let put = high.put_non_tombstone(&id, &metadata, payload.clone());
        let Some(seen) = put.await? else {
            return Ok(());
        };
        let this = self.clone();
        self.finish(async move {
            let write = this.over_a_redirect(&metadata, &payload);
            let mut change = this.begin(&id, Step::Swap);
            change.replaced = Some(seen.target.clone());
            this.record(&change).await.map_err(not_applied)?;
            let end = this.leased(this.swap(&change, Some(&seen), &write)).await;
            let is_vanished = matches!(end, End::Vanished);
            let insists = matches!(end, End::Lost) && this.is(Flaw::InsistsAfterALostRace);
            let ended = this.ended(end, change).await;
            if insists {
                let stream = stream::iter([Ok(payload)]).boxed();
                return high.put_object(&id, &metadata, stream).await;
            }
            if !is_vanished || this.is(Flaw::LosesASmallPutOverAnEndedRedirect) {
                return ended;
            }
            high.put_non_tombstone(&id, &metadata, payload)
                .await
                .map(drop)
        })
        .await
    }

    /// What a small put writes over a redirect.
    fn over_a_redirect(&self, metadata: &Metadata, payload: &Bytes) -> TieredWrite {
        if self.is(Flaw::DeletesForAnEmptyPut) && payload.is_empty() {
            return TieredWrite::Delete;
        }
        let metadata = match self.is(Flaw::LosesMetadataOverARedirect) {
            true => Metadata::with_policy(metadata.expiration_policy),
            false => metadata.clone(),
        };
        TieredWrite::Object(metadata, payload.clone())
    }

    /// The key under which a new payload lies.
    fn name_for(&self, key: &str) -> String {
        match self.0.flaw {
            Flaw::NamesPayloadsByTheirKey => key.to_owned(),
            Flaw::NumbersPayloadsByHandle => {
                format!("{key}@{}", self.0.uploads.fetch_add(1, SeqCst))
            }
            _ => format!("{key}@{:x?}", unique()),
        }
    }

    /// What follows from the end of a swap, for the change and for the caller.
    async fn ended(&self, end: End, change: Change) -> Result<()> {
        let (created, replaced) = (change.created.clone(), change.replaced.clone());
        let replaced = replaced.filter(|_| !self.is(Flaw::LeavesTheReplacedPayload));
        match end {
            End::Won | End::Vanished => {
                match replaced.is_some() {
                    true => self.discard(change, None, replaced),
                    false => self.complete(&change).await,
                }
                Ok(())
            }
            End::Lost => {
                match self.is(Flaw::LeavesTheLosersPayload) {
                    true => self.discard(change, None, replaced),
                    false => self.discard(change, created, replaced),
                }
                Ok(())
            }
            End::Refused(e) => {
                self.discard(change, created, None);
                Err(e)
            }
            End::Over(e) => {
                self.discard(change, created, replaced);
                Err(e)
            }
            End::Open(e) => {
                let this = self.clone();
                let resolved = async move {
                    this.resolve(change).await;
                };
                match self.is(Flaw::ResolvesUnjoined) {
                    true => self.0.parts.run.spawn_background(resolved),
                    false => self.spawn(resolved),
                }
                Err(e)
            }
        }
    }

    async fn large(&self, id: ObjectId, metadata: Metadata, stream: ClientStream) -> Result<()> {
        let Parts { high, long, .. } = &self.0.parts;
        let metadata = metadata.stamped(self.now(), 0)?;
        let mut name = id.clone();
        name.key = self.name_for(&id.key);
        let mut redirect = Tombstone::new(name.clone(), metadata.expiration_policy);
        if !self.is(Flaw::HasTwoDeadlines) {
            redirect.time_expires = metadata.time_expires;
        }
        let mut change = self.begin(&id, Step::Upload);
        change.created = Some(name.clone());
        self.record(&change).await.map_err(not_applied)?;
        if self.is(Flaw::SwapsBeforeTheUpload) {
            let write = TieredWrite::Tombstone(redirect);
            high.compare_and_write(&id, None, write).await?;
            long.put_object(&name, &metadata, stream).await?;
            self.complete(&change).await;
            return Ok(());
        }
        let mut upload = Upload {
            of: (!self.is(Flaw::LeavesADroppedUpload)).then(|| self.clone()),
            change: change.clone(),
        };
        if let Err(e) = self.leased(long.put_object(&name, &metadata, stream)).await {
            return Err(match e {
                BackendError::Client(_) if !self.is(Flaw::BlamesItselfForALargeClient) => e,
                e => not_applied(e),
            });
        }
        upload.of = None;
        let this = self.clone();
        self.finish(async move { this.install(change, redirect).await })
            .await
    }

    async fn install(&self, mut change: Change, mut redirect: Tombstone) -> Result<()> {
        let created = change.created.clone();
        let row = match self.look(&change.object).await {
            Ok(row) => row,
            Err(e) => {
                self.discard(change, created, None);
                return Err(not_applied(e));
            }
        };
        let seen = match row {
            TieredMetadata::Tombstone(seen) => Some(seen),
            _ => None,
        };
        if self.is(Flaw::KeepsTheOldDeadline)
            && let Some(seen) = &seen
        {
            redirect.expiration_policy = seen.expiration_policy;
            redirect.time_expires = seen.time_expires;
        }
        change.step = Step::Swap;
        change.replaced = seen.as_ref().map(|seen| seen.target.clone());
        if self.is(Flaw::RemovesBeforeTheSwap)
            && let Some(seen) = &seen
        {
            self.0.parts.long.delete_object(&seen.target).await?;
        }
        let is_late = self.is(Flaw::LogsTheSwapAfterIt);
        if !is_late && let Err(fault) = self.record(&change).await {
            self.discard(change, created, None);
            return Err(not_applied(fault));
        }
        let write = TieredWrite::Tombstone(redirect);
        let mut end = self.leased(self.swap(&change, seen.as_ref(), &write)).await;
        if is_late {
            self.record(&change)
                .await
                .map_err(|fault| unknown(fault.into()))?;
        }
        if matches!(end, End::Vanished) {
            change.replaced = None;
            if let Err(fault) = self.record(&change).await {
                self.discard(change, created, None);
                return Err(not_applied(fault));
            }
            end = self.leased(self.swap(&change, None, &write)).await;
        }
        if self.is(Flaw::RemovesTheWinnersPayload)
            && matches!(end, End::Lost)
            && let Ok(TieredMetadata::Tombstone(winner)) = self.look(&change.object).await
        {
            change.replaced = Some(winner.target);
        }
        self.ended(end, change).await
    }

    async fn resolve(&self, mut change: Change) -> bool {
        let Parts { .. } = &self.0.parts;
        if change.step == Step::Swap {
            if self.is(Flaw::RecoversByForgettingSwaps) {
                self.complete(&change).await;
                return true;
            }
            let Some([created, replaced]) = self.unreferenced(&change).await else {
                self.leave(&change);
                return false;
            };
            change.step = Step::Remove;
            (change.created, change.replaced) = (created, replaced);
            if self.record(&change).await.is_err() {
                self.leave(&change);
                return false;
            }
        } else if !self.is(Flaw::RemovesWithoutALook) {
            let Ok(row) = self.look(&change.object).await else {
                self.leave(&change);
                return false;
            };
            if refers(&row, change.created.as_ref()) || refers(&row, change.replaced.as_ref()) {
                self.complete(&change).await;
                return true;
            }
        }
        self.remove(&change).await
    }

    async fn unreferenced(&self, change: &Change) -> Option<[Option<ObjectId>; 2]> {
        let (created, old) = (change.created.as_ref(), change.replaced.as_ref());
        if self.is(Flaw::RecoversWithoutALook) {
            return Some([created.cloned(), None]);
        }
        let row = self.look(&change.object).await.ok()?;
        if refers(&row, created) {
            return Some([None, old.cloned()]);
        }
        if old.is_some() && !refers(&row, old) {
            return Some([created.cloned(), old.cloned()]);
        }
        if !self.settle(&change.object, created.or(old)?, true).await {
            return None;
        }
        let row = self.look(&change.object).await.ok()?;
        if refers(&row, created) {
            return Some([None, old.cloned()]);
        }
        Some([
            created.cloned(),
            old.filter(|_| !refers(&row, old)).cloned(),
        ])
    }

    async fn unlink(&self, id: ObjectId, seen: Tombstone) -> Result<()> {
        let mut change = self.begin(&id, Step::Swap);
        change.replaced = Some(seen.target.clone());
        self.record(&change).await.map_err(not_applied)?;
        let swap = self.swap(&change, Some(&seen), &TieredWrite::Delete);
        let end = self.leased(swap).await;
        self.ended(end, change).await
    }
}

/// Work that goes on without its caller.
struct Finishing<T: Send + 'static> {
    step: Option<BoxFuture<'static, T>>,
    of: Copied,
}

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let step = self.step.as_mut().expect("it is polled to its end only");
        let polled = step.as_mut().poll(context);
        if polled.is_ready() {
            self.step = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        if let Some(step) = self.step.take() {
            let rest = step.map(drop);
            match self.of.is(Flaw::JoinsOnlyItsCallers) {
                true => self.of.0.parts.run.spawn_background(rest),
                false => self.of.spawn(rest),
            }
        }
    }
}

/// An upload under way; dropped with its caller it takes the payload with it.
struct Upload {
    of: Option<Copied>,
    change: Change,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(of) = self.of.take() {
            let created = self.change.created.clone();
            of.discard(self.change.clone(), created, None);
        }
    }
}
