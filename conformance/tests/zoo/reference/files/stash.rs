//! `Stash` on plain files: everything in one file, written anew by each commit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_trait::async_trait;
use larder_conformance::{BoxError, Caps, Env, Fixture, Suite, stash};
use larder_traits::stash::driver::{Frontiers, Rows, Snapshot, StashOp};
use larder_traits::{Antichain, CollectionId, ErrorKind, Fault, StashCaps, StashDriver, Timestamp};
use tempfile::TempDir;

use super::super::lock;
use super::super::stash::{Answer, Collection, Rules, State, apply};
use super::{Files, Flaw, GAP, failed};

mod encoding;

use encoding::{ops_from, ops_to, state_from, state_to};

/// What is wrong with a stash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowFlaw {
    /// That of the files, if any.
    Files(Flaw),
    /// Seals and compactions that come alone stay in memory until something else is committed.
    FrontiersPending,
    /// Each operation of a batch is committed by itself.
    BatchSplit,
    /// The rows of one update are committed in two halves.
    UpdateSplit,
    /// The rows that a consolidation folds are removed by one commit and put back by another.
    ConsolidationSplit,
    /// What finds the rows of a key is a file of its own, written after the rows.
    IndexLater,
    /// Operations go to a log first, and one that a killed process left is carried out, done already or not.
    LogDoneAgain,
    /// The log is removed although what it describes was not synced.
    LogCutEarly,
    /// A dropped collection is known as dropped to this process only.
    DropsInMemory,
    /// A dropped collection is removed without a sync.
    DropNotSynced,
    /// Seals and compactions that come alone are not synced.
    FrontiersNotSynced,
    /// A consolidation is not synced.
    ConsolidationNotSynced,
    /// Every other commit is synced.
    EveryOtherSynced,
    /// Collections without rows begin anew with the first handle.
    EmptyIsNew,
    /// The first handle counts ids from the greatest that is there.
    IdsFromTheGreatest,
    /// A collection is emptied by one commit, and its name removed by another.
    DropSplit,
    /// A collection gets its name by one commit, and its frontiers by another.
    CreationSplit,
    /// The first handle numbers the collections in the order of their names.
    IdsByTheNames,
    /// The first handle takes an empty frontier for one that was never moved.
    EmptyIsNotMoved,
    /// The first handle takes upper to be beyond all rows that there are.
    UpperFromTheRows,
}

const STATE: &[u8] = b"stash";
const INDEX: &[u8] = b"index";
const LOG: &[u8] = b"log";

#[derive(Debug)]
pub(crate) struct Store {
    files: Arc<Files>,
    flaw: RowFlaw,
}

fn rules() -> Rules {
    Rules {
        admit: Box::new(Frontiers::admit),
        apply: Box::new(apply),
    }
}

fn is_frontier(op: &StashOp) -> bool {
    matches!(op, StashOp::Seal { .. } | StashOp::Compact { .. })
}

impl Store {
    fn open(files: Arc<Files>, flaw: RowFlaw) -> Answer<Self> {
        let is_first = Arc::strong_count(&files) == 1;
        let store = Self { files, flaw };
        store.recover()?;
        if is_first {
            store.begin()?;
        }
        Ok(store)
    }

    /// What the first handle does.
    fn begin(&self) -> Answer<()> {
        let _turn = lock(&self.files.transaction);
        let mut state = self.stored(STATE)?;
        match self.flaw {
            RowFlaw::EmptyIsNew => {
                let collections = state.collections.values_mut();
                for collection in collections.filter(|it| it.rows.is_empty()) {
                    collection.frontiers = Frontiers::new();
                }
            }
            RowFlaw::IdsFromTheGreatest => {
                let last = state.collections.keys().next_back();
                state.next = last.map_or(0, |id| id.get() + 1);
            }
            RowFlaw::IdsByTheNames => {
                let ids: Vec<_> = state.collections.keys().copied().collect();
                let mut old = std::mem::take(&mut state.collections);
                for (id, named) in ids.into_iter().zip(state.names.values_mut()) {
                    let collection = old.remove(&*named).expect("a name has a collection");
                    state.collections.insert(id, collection);
                    *named = id;
                }
            }
            RowFlaw::EmptyIsNotMoved => {
                for Collection { frontiers, .. } in state.collections.values_mut() {
                    for frontier in [&mut frontiers.since, &mut frontiers.upper] {
                        if frontier.is_empty() {
                            *frontier = Antichain::from_elem(Timestamp::MIN);
                        }
                    }
                }
            }
            RowFlaw::UpperFromTheRows => {
                for Collection { frontiers, rows } in state.collections.values_mut() {
                    let last = rows.iter().map(|row| row.time).max();
                    let upper = last.map_or(Timestamp::MIN, |last| last.saturating_add(1));
                    let upper = Antichain::from_elem(upper);
                    if frontiers.upper < upper {
                        frontiers.upper = upper;
                    }
                }
            }
            _ => return Ok(()),
        }
        self.store(STATE, &state, Flaw::None)
    }

    fn recover(&self) -> Answer<()> {
        let _turn = lock(&self.files.transaction);
        let Some(log) = self.files.get(LOG).map_err(failed)? else {
            return Ok(());
        };
        // One that was cut off is no log.
        if let Some(ops) = ops_from(&log) {
            let mut state = self.stored(STATE)?;
            // It was refused then, if it is refused now.
            drop(state.commit(&ops, &rules()));
            self.store(STATE, &state, Flaw::None)?;
        }
        Ok(self.files.delete(LOG).map_err(failed)?)
    }

    fn stored(&self, name: &[u8]) -> Answer<State> {
        let Some(bytes) = self.files.get(name).map_err(failed)? else {
            return Ok(State::default());
        };
        let damaged = || Fault::not_applied(ErrorKind::Corrupt, "a damaged stash");
        Ok(state_from(&bytes).ok_or_else(damaged)?)
    }

    fn store(&self, name: &[u8], state: &State, flaw: Flaw) -> Answer<()> {
        let mut state = state.clone();
        if self.flaw == RowFlaw::DropsInMemory && name == STATE {
            let stored = self.stored(STATE)?;
            for name in lock(&self.files.dropped).iter() {
                let Some(id) = stored.names.get(name) else {
                    continue;
                };
                state.names.entry(name.clone()).or_insert(*id);
                let collection = stored.collections[id].clone();
                state.collections.entry(*id).or_insert(collection);
            }
        }
        let bytes = state_to(&state);
        let put = match flaw {
            Flaw::None => self.files.put(name, &bytes),
            flaw => self.files.put_as(flaw, name, &bytes),
        };
        Ok(put.map_err(failed)?)
    }

    /// What is stored, and what only this process knows.
    fn load(&self) -> Answer<State> {
        let mut state = self.stored(STATE)?;
        let pending = lock(&self.files.pending);
        state.commit(&pending, &rules())?;
        for name in lock(&self.files.dropped).iter() {
            state.discard(name);
        }
        Ok(state)
    }

    fn commit_now(&self, ops: &[StashOp]) -> Answer<()> {
        let mut state = self.load()?;
        let before = state.clone();
        state.commit(ops, &rules())?;
        match self.flaw {
            RowFlaw::FrontiersPending if ops.iter().all(is_frontier) => {
                lock(&self.files.pending).extend_from_slice(ops);
                return Ok(());
            }
            RowFlaw::BatchSplit | RowFlaw::UpdateSplit | RowFlaw::ConsolidationSplit => {
                return self.commit_split(before, ops);
            }
            RowFlaw::IndexLater => {
                self.store(STATE, &state, Flaw::None)?;
                std::thread::sleep(GAP);
                return self.index(&before, ops);
            }
            RowFlaw::LogDoneAgain | RowFlaw::LogCutEarly => {
                self.files.put(LOG, &ops_to(ops)).map_err(failed)?;
                let how = if self.flaw == RowFlaw::LogCutEarly {
                    Flaw::NothingSynced
                } else {
                    Flaw::None
                };
                self.store(STATE, &state, how)?;
                std::thread::sleep(GAP);
                return Ok(self.files.delete(LOG).map_err(failed)?);
            }
            _ => {}
        }
        self.store(STATE, &state, self.sync_of(ops))?;
        lock(&self.files.pending).clear();
        Ok(())
    }

    /// Tells the index what was done to the rows since `before`. What it missed earlier it never learns.
    fn index(&self, before: &State, ops: &[StashOp]) -> Answer<()> {
        let mut index = self.stored(INDEX)?;
        for id in ops.iter().map(StashOp::id) {
            let rows = index.collections.remove(&id).map(|it| it.rows);
            let frontiers = before.collections[&id].frontiers.clone();
            let rows = rows.unwrap_or_default();
            index.collections.insert(id, Collection { frontiers, rows });
        }
        index.commit(ops, &rules())?;
        self.store(INDEX, &index, Flaw::None)
    }

    /// How the file is written for such a commit.
    fn sync_of(&self, ops: &[StashOp]) -> Flaw {
        let folds = |op: &StashOp| matches!(op, StashOp::Consolidate { .. });
        let is_synced = match self.flaw {
            RowFlaw::FrontiersNotSynced => !ops.iter().all(is_frontier),
            RowFlaw::ConsolidationNotSynced => !ops.iter().all(folds),
            RowFlaw::EveryOtherSynced => {
                let count = self.files.commits.fetch_add(1, Relaxed);
                count.is_multiple_of(2)
            }
            _ => true,
        };
        if is_synced {
            Flaw::None
        } else {
            Flaw::NothingSynced
        }
    }

    /// Several commits where there should be one. The whole has been admitted, so none of them is refused.
    fn commit_split(&self, mut state: State, ops: &[StashOp]) -> Answer<()> {
        for op in ops {
            match op {
                StashOp::Update { id, rows } if self.flaw == RowFlaw::UpdateSplit => {
                    let (first, second) = rows.split_at(rows.len() / 2);
                    for rows in [first, second] {
                        let (id, rows) = (*id, rows.to_vec());
                        state.commit(&[StashOp::Update { id, rows }], &rules())?;
                        self.store(STATE, &state, Flaw::None)?;
                        std::thread::sleep(GAP);
                    }
                    continue;
                }
                StashOp::Consolidate { id } if self.flaw == RowFlaw::ConsolidationSplit => {
                    let mut emptied = state.clone();
                    if let Some(collection) = emptied.collections.get_mut(id) {
                        collection.rows.clear();
                    }
                    self.store(STATE, &emptied, Flaw::None)?;
                    std::thread::sleep(GAP);
                }
                _ => {}
            }
            state.commit(std::slice::from_ref(op), &rules())?;
            if self.flaw == RowFlaw::BatchSplit {
                self.store(STATE, &state, Flaw::None)?;
                std::thread::sleep(GAP);
            }
        }
        self.store(STATE, &state, Flaw::None)
    }

    /// Leaves nothing of that collection but its name, for a moment.
    fn empty(&self, mut state: State, name: &str) -> Answer<()> {
        let id = state.names.get(name).copied();
        if let Some(collection) = id.and_then(|id| state.collections.get_mut(&id)) {
            collection.rows.clear();
            collection.frontiers = Frontiers::new();
        }
        self.store(STATE, &state, Flaw::None)?;
        std::thread::sleep(GAP);
        Ok(())
    }

    fn rows_of(&self, id: CollectionId, rows: Rows<'_>) -> Answer<Snapshot> {
        let mut snapshot = self.load()?.snapshot(id, rows)?;
        if let (RowFlaw::IndexLater, Rows::Key(_)) = (self.flaw, rows) {
            let indexed = self.stored(INDEX)?.snapshot(id, rows);
            snapshot.rows = indexed.map(|indexed| indexed.rows).unwrap_or_default();
        }
        Ok(snapshot)
    }
}

#[async_trait]
impl StashDriver for Store {
    async fn open(&self, name: &str) -> Answer<CollectionId> {
        let _turn = lock(&self.files.transaction);
        let mut state = self.load()?;
        if let Some(id) = state.names.get(name) {
            return Ok(*id);
        }
        let id = state.open(name);
        if self.flaw == RowFlaw::CreationSplit {
            let mut named = state.clone();
            if let Some(collection) = named.collections.get_mut(&id) {
                collection.frontiers = Frontiers {
                    since: Antichain::new(),
                    upper: Antichain::new(),
                };
            }
            self.store(STATE, &named, Flaw::None)?;
            std::thread::sleep(GAP);
        }
        self.store(STATE, &state, Flaw::None)?;
        lock(&self.files.pending).clear();
        lock(&self.files.dropped).retain(|dropped| dropped != name);
        Ok(id)
    }

    async fn names(&self) -> Answer<Vec<(String, CollectionId)>> {
        let _turn = lock(&self.files.transaction);
        let names: BTreeMap<_, _> = self.load()?.names;
        Ok(names.into_iter().collect())
    }

    async fn discard(&self, name: &str) -> Answer<bool> {
        let _turn = lock(&self.files.transaction);
        let mut state = self.load()?;
        let before = state.clone();
        if !state.discard(name) {
            return Ok(false);
        }
        if self.flaw == RowFlaw::DropSplit {
            self.empty(before, name)?;
        }
        match self.flaw {
            RowFlaw::DropsInMemory => {
                lock(&self.files.dropped).push(name.to_owned());
                return Ok(true);
            }
            RowFlaw::DropNotSynced => self.store(STATE, &state, Flaw::NothingSynced)?,
            _ => self.store(STATE, &state, Flaw::None)?,
        }
        lock(&self.files.pending).clear();
        Ok(true)
    }

    async fn snapshot(&self, id: CollectionId, rows: Rows<'_>) -> Answer<Snapshot> {
        let _turn = lock(&self.files.transaction);
        self.rows_of(id, rows)
    }

    async fn commit(&self, ops: Vec<StashOp>) -> Answer<()> {
        let _turn = lock(&self.files.transaction);
        self.commit_now(&ops)
    }
}

struct World {
    folder: TempDir,
    caps: Caps,
    flaw: RowFlaw,
}

impl World {
    fn opened(&self, place: &str) -> Result<Store, BoxError> {
        let folder: PathBuf = self.folder.path().canonicalize()?;
        let flaw = match self.flaw {
            RowFlaw::Files(flaw) => flaw,
            _ => Flaw::None,
        };
        let files = Files::open(folder.join(place.replace('/', "~")), flaw)?;
        Ok(Store::open(files, self.flaw)?)
    }
}

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self {
            folder: env.tempdir()?,
            caps: super::CAPS,
            flaw: RowFlaw::Files(Flaw::None),
        })
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl stash::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        self.opened(place)
    }

    async fn driver(&self, place: &str) -> Result<Option<Arc<dyn StashDriver>>, BoxError> {
        Ok(Some(Arc::new(self.opened(place)?)))
    }
}

pub(crate) fn suite(caps: Caps, flaw: RowFlaw) -> Suite {
    let caps = caps.with_stash(StashCaps::LEAST.with_batch_atomic(true));
    stash::suite_with(move |env| async move {
        let folder = env.tempdir()?;
        Ok(World { folder, caps, flaw })
    })
}
