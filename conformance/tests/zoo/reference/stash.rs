//! `Stash` over a list of rows for each collection.
//!
//! In two layers, since a stash can be wrong in two: [`Driver`] holds bytes, and [`Typed`] is the trait with its types.

use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::{BoxError, Caps, Env, Faults, Fixture, Probe, Suite, stash};
use larder_traits::stash::driver::{Frontiers, RawRow, Rows, Snapshot, StashOp};
use larder_traits::stash::driver::{check_bounds, check_name, fold};
use larder_traits::{
    CollectionId, ErrorKind, Fault, LateLanding, StashCaps, StashDriver, StashError,
};

use super::group::Group;
use super::medium::{Medium, Trouble};
use super::{Pace, lock};
use typed::{Typed, Wrong};

pub(crate) mod typed;

pub(crate) type Answer<T> = Result<T, StashError>;
type Names = Vec<(String, CollectionId)>;

/// What the plain reference declares.
pub(crate) const CAPS: Caps = Caps::LEAST
    .with_late_landing(LateLanding::Fenced)
    .with_stash(
        StashCaps::LEAST
            .with_batch_atomic(true)
            .with_exclusive(true),
    );

#[derive(Clone, Debug)]
pub(crate) struct Collection {
    pub(crate) frontiers: Frontiers,
    pub(crate) rows: Vec<RawRow>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) names: BTreeMap<String, CollectionId>,
    pub(crate) collections: BTreeMap<CollectionId, Collection>,
    pub(crate) next: u64,
}

impl State {
    pub(crate) fn open(&mut self, name: &str) -> CollectionId {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let id = CollectionId::new(self.next);
        self.next += 1;
        self.names.insert(name.to_owned(), id);
        let new = Collection {
            frontiers: Frontiers::new(),
            rows: Vec::new(),
        };
        self.collections.insert(id, new);
        id
    }

    pub(crate) fn discard(&mut self, name: &str) -> bool {
        let Some(id) = self.names.remove(name) else {
            return false;
        };
        self.collections.remove(&id).is_some()
    }

    pub(crate) fn snapshot(&self, id: CollectionId, rows: Rows<'_>) -> Answer<Snapshot> {
        let Collection {
            frontiers,
            rows: all,
        } = self
            .collections
            .get(&id)
            .ok_or(StashError::NoCollection { id })?;
        let rows = match rows {
            Rows::None => Vec::new(),
            Rows::Key(key) => all.iter().filter(|row| row.key == key).cloned().collect(),
            Rows::All => all.clone(),
        };
        Ok(Snapshot {
            frontiers: frontiers.clone(),
            rows,
        })
    }

    /// Carries the operations out, in order; the first that is refused ends it.
    pub(crate) fn commit(&mut self, ops: &[StashOp], rules: &Rules) -> Answer<()> {
        ops.iter().try_for_each(|op| {
            let id = op.id();
            let collection = self
                .collections
                .get_mut(&id)
                .ok_or(StashError::NoCollection { id })?;
            (rules.admit)(&mut collection.frontiers, op)?;
            (rules.apply)(collection, op)
        })
    }
}

/// What all handles of one name share.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) state: Mutex<State>,
    /// A mutant's own memory.
    pub(crate) notes: Mutex<BTreeMap<u64, Vec<StashOp>>>,
    pub(crate) counter: AtomicU64,
    /// How often it was opened exclusively; the handles from before are fenced.
    pub(crate) epoch: AtomicU64,
    pub(crate) medium: Arc<Medium>,
    /// What the calls of stores wait for that make one at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// What they meet in where the medium is asked for several of them together.
    pub(crate) group: Arc<Group>,
}

type AdmitStep = Box<dyn Fn(&mut Frontiers, &StashOp) -> Answer<()> + Send + Sync>;
type ApplyStep = Box<dyn Fn(&mut Collection, &StashOp) -> Answer<()> + Send + Sync>;

/// How one operation is judged and carried out.
pub(crate) struct Rules {
    pub(crate) admit: AdmitStep,
    pub(crate) apply: ApplyStep,
}

/// What an operation does beyond the frontiers.
pub(crate) fn apply(collection: &mut Collection, op: &StashOp) -> Answer<()> {
    match op {
        StashOp::Update { rows, .. } => collection.rows.extend_from_slice(rows),
        StashOp::Consolidate { .. } => {
            let since = collection.frontiers.since.borrow();
            collection.rows = fold(collection.rows.clone(), since)?;
        }
        StashOp::Seal { .. } | StashOp::Compact { .. } | StashOp::ExpectUpper { .. } => {}
    }
    Ok(())
}

type NameStep = Box<dyn Fn(&str) -> Answer<String> + Send + Sync>;
type OpenStep = Box<dyn Fn(&Place, &str) -> Answer<CollectionId> + Send + Sync>;
type NamesStep = Box<dyn Fn(&Place) -> Answer<Names> + Send + Sync>;
type DiscardStep = Box<dyn Fn(&Place, &str) -> Answer<bool> + Send + Sync>;
type SnapshotStep = Box<dyn Fn(&Place, CollectionId, Rows<'_>) -> Answer<Snapshot> + Send + Sync>;
type CommitStep = Box<dyn Fn(&Place, &[StashOp], &Rules) -> Answer<()> + Send + Sync>;
type BoundsStep = Box<dyn Fn(&Place, Vec<StashOp>) -> Answer<Vec<StashOp>> + Send + Sync>;
type CloseStep = Box<dyn Fn(&Place) + Send + Sync>;
type SlowOpenStep = Box<
    dyn for<'a> Fn(&'a Arc<Place>, &'a str) -> BoxFuture<'a, Answer<CollectionId>> + Send + Sync,
>;
type SlowDiscardStep =
    Box<dyn for<'a> Fn(&'a Arc<Place>, &'a str) -> BoxFuture<'a, Answer<bool>> + Send + Sync>;
type SlowSnapshotStep = Box<
    dyn for<'a> Fn(&'a Arc<Place>, CollectionId, Rows<'a>) -> BoxFuture<'a, Answer<Snapshot>>
        + Send
        + Sync,
>;
type SlowCommitStep = Box<
    dyn for<'a> Fn(&'a Arc<Place>, Vec<StashOp>, &'a Rules) -> BoxFuture<'a, Answer<()>>
        + Send
        + Sync,
>;

/// What is made of a medium that fails.
#[derive(Clone, Copy)]
pub(crate) struct Fails {
    pub(crate) read: fn(Trouble) -> StashError,
    pub(crate) names: fn(Trouble) -> Answer<Names>,
    pub(crate) discard: fn(&Place, &str, Trouble) -> Answer<bool>,
    pub(crate) stage: fn(Trouble) -> Answer<()>,
    pub(crate) commit: fn(Trouble) -> Answer<()>,
}

pub(crate) const FAILS: Fails = Fails {
    read: |trouble| trouble.before().into(),
    names: |trouble| Err(trouble.before().into()),
    discard: |_, _, trouble| Err(trouble.at_commit().into()),
    stage: |trouble| Err(trouble.before().into()),
    commit: |trouble| Err(trouble.at_commit().into()),
};

/// One handle of bytes, as a list of steps that can be exchanged.
pub(crate) struct Driver {
    pub(crate) place: Arc<Place>,
    pub(crate) pace: Pace,
    pub(crate) epoch: u64,
    /// The error of a handle that was replaced; `None` where it goes on.
    pub(crate) fenced: fn() -> Option<StashError>,
    pub(crate) name: NameStep,
    pub(crate) open: OpenStep,
    pub(crate) names: NamesStep,
    pub(crate) discard: DiscardStep,
    pub(crate) snapshot: SnapshotStep,
    pub(crate) bounds: BoundsStep,
    pub(crate) commit: CommitStep,
    pub(crate) rules: Rules,
    pub(crate) close: CloseStep,
    /// In place of the steps above, for those that take several: medium, patience and all.
    pub(crate) slow_open: Option<SlowOpenStep>,
    pub(crate) slow_discard: Option<SlowDiscardStep>,
    pub(crate) slow_snapshot: Option<SlowSnapshotStep>,
    pub(crate) slow_commit: Option<SlowCommitStep>,
    /// Whether calls wait for each other.
    pub(crate) one_at_a_time: bool,
    pub(crate) fails: Fails,
    /// What the layer of types above gets wrong.
    pub(crate) wrong: Option<Wrong>,
}

impl Driver {
    fn new(place: Arc<Place>, caps: StashCaps) -> Self {
        Self {
            epoch: place.epoch.load(Relaxed),
            place,
            pace: Pace::Ready,
            fenced: || Some(Fault::not_applied(ErrorKind::Conflict, "a newer writer").into()),
            name: Box::new(move |name| check_name(name, &caps).map(|()| name.to_owned())),
            open: Box::new(|place, name| Ok(lock(&place.state).open(name))),
            names: Box::new(|place| {
                Ok(lock(&place.state)
                    .names
                    .iter()
                    .map(|(name, id)| (name.clone(), *id))
                    .collect())
            }),
            discard: Box::new(|place, name| Ok(lock(&place.state).discard(name))),
            snapshot: Box::new(|place, id, rows| lock(&place.state).snapshot(id, rows)),
            bounds: Box::new(move |_, ops| check_bounds(&ops, &caps).map(|()| ops)),
            commit: Box::new(|place, ops, rules| {
                let mut state = lock(&place.state);
                let mut next = state.clone();
                next.commit(ops, rules)?;
                *state = next;
                Ok(())
            }),
            rules: Rules {
                admit: Box::new(Frontiers::admit),
                apply: Box::new(apply),
            },
            close: Box::new(|_| {}),
            slow_open: None,
            slow_discard: None,
            slow_snapshot: None,
            slow_commit: None,
            one_at_a_time: false,
            fails: FAILS,
            wrong: None,
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

    async fn look<T: Send>(&self, look: impl FnOnce() -> Answer<T> + Send) -> Answer<T> {
        let _turn = self.turn().await;
        let ended = self.place.medium.timed(look).await;
        ended.unwrap_or_else(|trouble| Err((self.fails.read)(trouble)))
    }

    /// A transaction: begun, and then committed with all that it does.
    async fn change<T: Send>(
        &self,
        effect: impl FnOnce() -> Answer<T> + Send,
    ) -> Result<Answer<T>, Trouble> {
        let _turn = self.turn().await;
        let medium = &self.place.medium;
        if let Err(trouble) = medium.timed(|| ()).await
            && let Err(e) = (self.fails.stage)(trouble)
        {
            return Ok(Err(e));
        }
        self.pace.pause().await;
        medium.timed(effect).await
    }

    async fn enter(&self) -> Answer<()> {
        self.pace.pause().await;
        if self.epoch == self.place.epoch.load(Relaxed) {
            return Ok(());
        }
        (self.fenced)().map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        (self.close)(&self.place);
    }
}

#[async_trait]
impl StashDriver for Driver {
    async fn open(&self, name: &str) -> Answer<CollectionId> {
        self.enter().await?;
        let name = (self.name)(name)?;
        if let Some(open) = &self.slow_open {
            return open(&self.place, &name).await;
        }
        let ended = self.change(|| (self.open)(&self.place, &name)).await;
        ended.unwrap_or_else(|trouble| Err(trouble.at_commit().into()))
    }

    async fn names(&self) -> Answer<Vec<(String, CollectionId)>> {
        self.enter().await?;
        let _turn = self.turn().await;
        let ended = self.place.medium.timed(|| (self.names)(&self.place)).await;
        ended.unwrap_or_else(self.fails.names)
    }

    async fn discard(&self, name: &str) -> Answer<bool> {
        self.enter().await?;
        if let Some(discard) = &self.slow_discard {
            return discard(&self.place, name).await;
        }
        let ended = self.change(|| (self.discard)(&self.place, name)).await;
        ended.unwrap_or_else(|trouble| (self.fails.discard)(&self.place, name, trouble))
    }

    async fn snapshot(&self, id: CollectionId, rows: Rows<'_>) -> Answer<Snapshot> {
        self.enter().await?;
        if let Some(snapshot) = &self.slow_snapshot {
            return snapshot(&self.place, id, rows).await;
        }
        self.look(|| (self.snapshot)(&self.place, id, rows)).await
    }

    async fn commit(&self, ops: Vec<StashOp>) -> Answer<()> {
        self.enter().await?;
        let ops = (self.bounds)(&self.place, ops)?;
        if let Some(commit) = &self.slow_commit {
            let _turn = self.turn().await;
            return commit(&self.place, ops, &self.rules).await;
        }
        let effect = || (self.commit)(&self.place, &ops, &self.rules);
        match self.change(effect).await {
            Ok(answer) => answer,
            Err(trouble) => (self.fails.commit)(trouble),
        }
    }
}

/// The places of one world, by name.
#[derive(Debug, Default)]
struct Shared {
    places: Mutex<BTreeMap<String, Arc<Place>>>,
    medium: Arc<Medium>,
}

impl Shared {
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

impl Probe for Shared {
    fn rows(&self, place: &str) -> BoxFuture<'_, Result<u64, BoxError>> {
        let place = self.place(place);
        let rows: usize = lock(&place.state)
            .collections
            .values()
            .map(|c| c.rows.len())
            .sum();
        ready(u64::try_from(rows).map_err(BoxError::from)).boxed()
    }
}

/// How a handle differs from the plain reference; called at each open.
pub(crate) type Bend = fn(&mut Driver);

pub(crate) struct World {
    shared: Arc<Shared>,
    caps: Caps,
    bend: Bend,
}

impl World {
    fn with(caps: Caps, bend: Bend) -> Self {
        Self {
            shared: Arc::default(),
            caps,
            bend,
        }
    }

    fn opened(&self, place: &str) -> Driver {
        let mut driver = Driver::new(self.shared.place(place), self.caps.stash);
        (self.bend)(&mut driver);
        driver
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
        Some(Arc::clone(&self.shared.medium) as Arc<dyn Faults>)
    }

    fn probe(&self) -> Option<Arc<dyn Probe>> {
        Some(Arc::clone(&self.shared) as Arc<dyn Probe>)
    }
}

impl stash::Open for World {
    type Store = Typed;

    async fn open(&self, place: &str) -> Result<Typed, BoxError> {
        Ok(Typed::new(self.opened(place)))
    }

    async fn driver(&self, place: &str) -> Result<Option<Arc<dyn StashDriver>>, BoxError> {
        Ok(Some(Arc::new(self.opened(place))))
    }

    async fn open_exclusive(&self, place: &str) -> Result<Option<Typed>, BoxError> {
        if !self.caps.stash.exclusive {
            return Ok(None);
        }
        self.shared.place(place).epoch.fetch_add(1, Relaxed);
        Ok(Some(Typed::new(self.opened(place))))
    }
}

/// The suite of this contract on stores that declare `caps` and are bent by `bend`.
pub(crate) fn suite(caps: Caps, bend: Bend) -> Suite {
    stash::suite_with(move |_env| async move { Ok(World::with(caps, bend)) })
}
