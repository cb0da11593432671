//! `ChangeLog` over two ordered maps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::{BoxError, Caps, Env, Faults, Fixture, Suite, change_log};
use larder_traits::{Change, ChangeId, ChangeLog, ErrorKind, Fault, LateLanding, WriterId};

use super::medium::{Medium, Trouble};
use super::{Due, Pace, behind, lock};

pub(crate) type Answer<T> = Result<T, Fault>;

/// What the plain reference declares.
pub(crate) const CAPS: Caps = Caps::LEAST.with_late_landing(LateLanding::Fenced);

pub(crate) fn conflict() -> Fault {
    Fault::not_applied(ErrorKind::Conflict, "the change of another writer")
}

/// Changes with their owners, and leases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    pub(crate) changes: BTreeMap<ChangeId, (WriterId, Change)>,
    pub(crate) leases: BTreeMap<WriterId, SystemTime>,
}

impl Book {
    /// The owner of a change, if there is one.
    pub(crate) fn owner(&self, id: ChangeId) -> Option<WriterId> {
        self.changes.get(&id).map(|(owner, _)| *owner)
    }

    pub(crate) fn check_owner(&self, writer: WriterId, id: ChangeId) -> Answer<()> {
        match self.owner(id) {
            Some(owner) if owner != writer => Err(conflict()),
            _ => Ok(()),
        }
    }

    pub(crate) fn put(&mut self, writer: WriterId, change: &Change) {
        self.changes.insert(change.id, (writer, change.clone()));
    }

    pub(crate) fn record(&mut self, writer: WriterId, change: &Change) -> Answer<()> {
        self.check_owner(writer, change.id)?;
        self.put(writer, change);
        Ok(())
    }

    pub(crate) fn complete(&mut self, writer: WriterId, id: ChangeId) -> Answer<()> {
        self.check_owner(writer, id)?;
        self.changes.remove(&id);
        Ok(())
    }

    pub(crate) fn of(&self, writer: WriterId) -> Vec<Change> {
        let own = self.changes.values().filter(|(owner, _)| *owner == writer);
        own.map(|(_, change)| change.clone()).collect()
    }

    pub(crate) fn renew(&mut self, writer: WriterId, until: SystemTime) {
        let lease = self.leases.entry(writer).or_insert(until);
        *lease = until.max(*lease);
    }

    /// Whether that writer has no lease, or one that has ended.
    pub(crate) fn is_gone(&self, writer: WriterId, now: SystemTime) -> bool {
        self.leases.get(&writer).is_none_or(|until| *until <= now)
    }

    /// The changes that `writer` may claim.
    pub(crate) fn claimable(&self, writer: WriterId, now: SystemTime) -> Vec<ChangeId> {
        self.claimable_if(writer, |owner| self.is_gone(owner, now))
    }

    /// The changes of others of which this holds.
    pub(crate) fn claimable_if(
        &self,
        writer: WriterId,
        is_gone: impl Fn(WriterId) -> bool,
    ) -> Vec<ChangeId> {
        let others = self.changes.iter().filter(|(_, (it, _))| *it != writer);
        let free = others.filter(|(_, (owner, _))| is_gone(*owner));
        free.map(|(id, _)| *id).collect()
    }

    /// Makes `writer` the owner of up to so many of these.
    pub(crate) fn take(
        &mut self,
        writer: WriterId,
        ids: impl IntoIterator<Item = ChangeId>,
        limit: usize,
    ) -> Vec<Change> {
        let mut taken = Vec::new();
        for id in ids.into_iter().take(limit) {
            if let Some((owner, change)) = self.changes.get_mut(&id) {
                *owner = writer;
                taken.push(change.clone());
            }
        }
        taken
    }

    pub(crate) fn claim(&mut self, writer: WriterId, now: SystemTime, limit: usize) -> Vec<Change> {
        let free = self.claimable(writer, now);
        self.take(writer, free, limit)
    }
}

/// What all handles of one name share.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) book: Book,
    /// A mutant's own memory.
    pub(crate) notes: Book,
    /// The records that wait to be written, with their tickets, in a log that writes several together.
    pub(crate) laid: Vec<(u64, WriterId, Change)>,
    /// What became of those that were written, by their tickets.
    pub(crate) told: BTreeMap<u64, Answer<()>>,
    pub(crate) counter: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Held for each step, so that one which looks and then writes is one step for others.
    pub(crate) log: Mutex<Log>,
    pub(crate) medium: Arc<Medium>,
    /// What the calls of logs wait for that make one at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

pub(crate) type RecordStep = Box<dyn Fn(&mut Log, WriterId, &Change) -> Answer<()> + Send + Sync>;
type CompleteStep = Box<dyn Fn(&mut Log, WriterId, ChangeId) -> Answer<()> + Send + Sync>;
type ListStep = Box<dyn Fn(&mut Log, WriterId) -> Answer<Vec<Change>> + Send + Sync>;
pub(crate) type RenewStep = Box<dyn Fn(&mut Log, WriterId, SystemTime) -> Answer<()> + Send + Sync>;
type ClaimStep =
    Box<dyn Fn(&mut Log, WriterId, SystemTime, usize) -> Answer<Vec<Change>> + Send + Sync>;
type CloseStep = Box<dyn Fn(&mut Log) + Send + Sync>;
/// In place of a step, for those that take several: medium and all.
type Slow<A, T> =
    Option<Box<dyn Fn(Arc<Place>, WriterId, A) -> BoxFuture<'static, Answer<T>> + Send + Sync>>;

/// What is made of a medium that fails.
#[derive(Clone, Copy)]
pub(crate) struct Fails {
    pub(crate) list: fn(Trouble) -> Answer<Vec<Change>>,
    /// The look-up before a write.
    pub(crate) stage: fn(Trouble) -> Answer<()>,
    pub(crate) record: fn(Trouble) -> Answer<()>,
    pub(crate) complete: fn(Trouble) -> Answer<()>,
    pub(crate) renew: fn(Trouble) -> Answer<()>,
    pub(crate) claim: fn(Trouble) -> Answer<Vec<Change>>,
}

pub(crate) const FAILS: Fails = Fails {
    list: |trouble| Err(trouble.before()),
    stage: |trouble| Err(trouble.before()),
    record: |trouble| Err(trouble.at_commit()),
    complete: |trouble| Err(trouble.at_commit()),
    renew: |trouble| Err(trouble.at_commit()),
    claim: |trouble| Err(trouble.at_commit()),
};

/// One handle, as a list of steps that can be exchanged.
pub(crate) struct Store {
    pub(crate) place: Arc<Place>,
    pub(crate) pace: Pace,
    pub(crate) record: RecordStep,
    pub(crate) complete: CompleteStep,
    pub(crate) list: ListStep,
    pub(crate) renew: RenewStep,
    pub(crate) claim: ClaimStep,
    pub(crate) close: CloseStep,
    pub(crate) slow_record: Slow<Change, ()>,
    pub(crate) slow_complete: Slow<ChangeId, ()>,
    pub(crate) slow_list: Slow<(), Vec<Change>>,
    pub(crate) slow_renew: Slow<SystemTime, ()>,
    pub(crate) slow_claim: Slow<(SystemTime, usize), Vec<Change>>,
    /// Whether calls wait for each other.
    pub(crate) one_at_a_time: bool,
    pub(crate) fails: Fails,
}

impl Store {
    fn new(place: Arc<Place>) -> Self {
        Self {
            place,
            pace: Pace::Ready,
            record: Box::new(|log, writer, change| log.book.record(writer, change)),
            complete: Box::new(|log, writer, id| log.book.complete(writer, id)),
            list: Box::new(|log, writer| Ok(log.book.of(writer))),
            renew: Box::new(|log, writer, until| {
                log.book.renew(writer, until);
                Ok(())
            }),
            claim: Box::new(|log, writer, now, limit| Ok(log.book.claim(writer, now, limit))),
            close: Box::new(|_| {}),
            slow_record: None,
            slow_complete: None,
            slow_list: None,
            slow_renew: None,
            slow_claim: None,
            one_at_a_time: false,
            fails: FAILS,
        }
    }

    /// This call's turn, where calls wait for each other.
    async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if self.one_at_a_time {
            Some(self.place.turn.lock().await)
        } else {
            None
        }
    }

    /// One call to the medium, with nothing between it and others while it lasts.
    async fn ask<T: Send>(&self, effect: impl FnOnce(&mut Log) -> T + Send) -> Result<T, Trouble> {
        let place = &self.place;
        place.medium.timed(|| effect(&mut lock(&place.log))).await
    }

    async fn change<T: Send>(
        &self,
        effect: impl FnOnce(&mut Log) -> Answer<T> + Send,
        failed: fn(Trouble) -> Answer<T>,
    ) -> Answer<T> {
        self.pace.pause().await;
        let _turn = self.turn().await;
        if let Err(trouble) = self.ask(|_| ()).await {
            (self.fails.stage)(trouble)?;
        }
        self.pace.pause().await;
        self.ask(effect).await.unwrap_or_else(failed)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        (self.close)(&mut lock(&self.place.log));
    }
}

#[async_trait]
impl ChangeLog for Store {
    async fn record(&self, writer: WriterId, change: &Change) -> Answer<()> {
        if let Some(record) = &self.slow_record {
            return record(Arc::clone(&self.place), writer, change.clone()).await;
        }
        let effect = |log: &mut Log| (self.record)(log, writer, change);
        self.change(effect, self.fails.record).await
    }

    async fn complete(&self, writer: WriterId, id: ChangeId) -> Answer<()> {
        if let Some(complete) = &self.slow_complete {
            return complete(Arc::clone(&self.place), writer, id).await;
        }
        let effect = |log: &mut Log| (self.complete)(log, writer, id);
        self.change(effect, self.fails.complete).await
    }

    async fn changes(&self, writer: WriterId) -> Answer<Vec<Change>> {
        if let Some(list) = &self.slow_list {
            return list(Arc::clone(&self.place), writer, ()).await;
        }
        self.pace.pause().await;
        let _turn = self.turn().await;
        let listed = self.ask(|log| (self.list)(log, writer)).await;
        listed.unwrap_or_else(self.fails.list)
    }

    async fn renew(&self, writer: WriterId, until: SystemTime) -> Answer<()> {
        if let Some(renew) = &self.slow_renew {
            return renew(Arc::clone(&self.place), writer, until).await;
        }
        let effect = |log: &mut Log| (self.renew)(log, writer, until);
        self.change(effect, self.fails.renew).await
    }

    async fn claim(&self, writer: WriterId, now: SystemTime, limit: usize) -> Answer<Vec<Change>> {
        if let Some(claim) = &self.slow_claim {
            return claim(Arc::clone(&self.place), writer, (now, limit)).await;
        }
        let effect = |log: &mut Log| (self.claim)(log, writer, now, limit);
        self.change(effect, self.fails.claim).await
    }
}

/// How a handle differs from the plain reference; called at each open.
pub(crate) type Bend = fn(&mut Store);

/// A record that is dropped goes on in the background.
pub(crate) fn lands_late(s: &mut Store) {
    s.slow_record = Some(Box::new(|place, writer, change| {
        async move {
            let (late, what) = (Arc::clone(&place), change.clone());
            let left = Due::new(move || {
                behind(move || lock(&late.log).book.record(writer, &what));
            });
            tokio::task::yield_now().await;
            left.call_off();
            lock(&place.log).book.record(writer, &change)
        }
        .boxed()
    }));
}

/// The places of one world, by name.
pub(crate) struct World {
    places: Mutex<BTreeMap<String, Arc<Place>>>,
    medium: Arc<Medium>,
    caps: Caps,
    bend: Bend,
}

impl World {
    fn with(caps: Caps, bend: Bend) -> Self {
        Self {
            places: Mutex::default(),
            medium: Arc::default(),
            caps,
            bend,
        }
    }

    fn place(&self, name: &str) -> Arc<Place> {
        let mut places = lock(&self.places);
        let place = places.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Place {
                medium: Arc::clone(&self.medium),
                ..Place::default()
            })
        });
        Arc::clone(place)
    }
}

impl Fixture for World {
    async fn new(_env: &Env) -> Result<Self, BoxError> {
        Ok(Self::with(CAPS, |_| {}))
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    async fn settle(&self) {
        tokio::time::sleep(super::SETTLED).await;
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::clone(&self.medium) as Arc<dyn Faults>)
    }
}

impl change_log::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        let mut store = Store::new(self.place(place));
        (self.bend)(&mut store);
        Ok(store)
    }
}

/// The suite of this contract on logs that declare `caps` and are bent by `bend`.
pub(crate) fn suite(caps: Caps, bend: Bend) -> Suite {
    change_log::suite_with(move |_env| async move { Ok(World::with(caps, bend)) })
}
