//! `ChangeLog` on plain files: all of it is one value, which is written anew with each change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use larder_conformance::{BoxError, Caps, Suite, change_log};
use larder_traits::{Change, ChangeId, ChangeLog, ErrorKind, Fault, WriterId};

use super::super::change_log::Book;
use super::super::lock;
use super::{Files, Flaw, GAP, World, failed};

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFlaw {
    /// That of the files, if any.
    Files(Flaw),
    /// Leases are known to the process only.
    LeasesInMemory,
    /// Who claimed a change is written with what comes next.
    ClaimsPending,
    /// The changes of a claim are committed one after the other.
    ClaimSplit,
    /// That a change was struck out is written with what comes next.
    CompletesPending,
    /// A renewal is not synced.
    RenewalNotSynced,
    /// A claim is not synced.
    ClaimNotSynced,
    /// The first handle forgets the leases of writers without changes.
    IdleLeasesSwept,
    /// What is recorded again is removed first.
    AgainSplit,
    /// What is renewed is removed first.
    RenewalSplit,
}

#[derive(Debug)]
pub(crate) struct Store {
    files: Arc<Files>,
    flaw: LogFlaw,
}

const KEY: &[u8] = b"log";

type Encoded = (Vec<(WriterId, Change)>, Vec<(WriterId, SystemTime)>);

impl Store {
    /// What is on the medium.
    fn load(&self) -> Result<Book, Fault> {
        let Some(bytes) = self.files.get(KEY).map_err(failed)? else {
            return Ok(Book::default());
        };
        let damaged = |e| Fault::not_applied(ErrorKind::Corrupt, "a damaged log").because(e);
        let (changes, leases): Encoded =
            serde_json::from_slice(&bytes).map_err(|e| damaged(Box::new(e)))?;
        let changes = changes.into_iter();
        Ok(Book {
            changes: changes.map(|(owner, it)| (it.id, (owner, it))).collect(),
            leases: leases.into_iter().collect(),
        })
    }

    fn save(&self, book: &Book, flaw: Flaw) -> Result<(), Fault> {
        let changes = book.changes.values().cloned().collect();
        let leases = book.leases.iter().map(|(it, at)| (*it, *at)).collect();
        let encoded: Encoded = (changes, leases);
        let refused = |e| Fault::not_applied(ErrorKind::InvalidInput, "no such time").because(e);
        let bytes = serde_json::to_vec(&encoded).map_err(|e| refused(Box::new(e)))?;
        let written = match flaw {
            Flaw::None => self.files.put(KEY, &bytes),
            flaw => self.files.put_as(flaw, KEY, &bytes),
        };
        written.map_err(failed)
    }

    /// What this process takes for true.
    fn book(&self) -> Result<Book, Fault> {
        let mut book = self.load()?;
        let known = lock(&self.files.book);
        match self.flaw {
            LogFlaw::LeasesInMemory => book.leases = known.leases.clone(),
            LogFlaw::ClaimsPending => {
                for (id, (owner, _)) in &known.changes {
                    if let Some(change) = book.changes.get_mut(id) {
                        change.0 = *owner;
                    }
                }
            }
            LogFlaw::CompletesPending => {
                book.changes.retain(|id, _| !known.changes.contains_key(id));
            }
            _ => {}
        }
        Ok(book)
    }

    fn sweep(&self) -> Result<(), Fault> {
        let _transaction = lock(&self.files.transaction);
        self.commit(|book| {
            let owners: BTreeSet<_> = book.changes.values().map(|it| it.0).collect();
            book.leases.retain(|writer, _| owners.contains(writer));
            Ok(())
        })
    }

    /// A change of what is on the medium.
    fn commit<T>(&self, effect: impl FnOnce(&mut Book) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut book = self.book()?;
        let answer = effect(&mut book)?;
        self.save(&book, Flaw::None)?;
        if self.flaw != LogFlaw::LeasesInMemory {
            lock(&self.files.book).changes.clear();
        }
        Ok(answer)
    }
}

#[async_trait]
impl ChangeLog for Store {
    async fn record(&self, writer: WriterId, change: &Change) -> Result<(), Fault> {
        let _transaction = lock(&self.files.transaction);
        if self.flaw == LogFlaw::AgainSplit {
            let is_again = self.commit(|book| {
                book.check_owner(writer, change.id)?;
                Ok(book.changes.remove(&change.id).is_some())
            })?;
            if is_again {
                std::thread::sleep(GAP);
            }
        }
        self.commit(|book| book.record(writer, change))
    }

    async fn complete(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
        let _transaction = lock(&self.files.transaction);
        if self.flaw == LogFlaw::CompletesPending {
            let done = self.book()?.changes.remove(&id);
            lock(&self.files.book)
                .changes
                .extend(done.map(|done| (id, done)));
            return Ok(());
        }
        self.commit(|book| book.complete(writer, id))
    }

    async fn changes(&self, writer: WriterId) -> Result<Vec<Change>, Fault> {
        let _transaction = lock(&self.files.transaction);
        Ok(self.book()?.of(writer))
    }

    async fn renew(&self, writer: WriterId, until: SystemTime) -> Result<(), Fault> {
        let _transaction = lock(&self.files.transaction);
        if self.flaw == LogFlaw::LeasesInMemory {
            lock(&self.files.book).renew(writer, until);
            return Ok(());
        }
        let mut book = self.book()?;
        if self.flaw == LogFlaw::RenewalSplit {
            let old = book.leases.remove(&writer);
            self.save(&book, Flaw::None)?;
            std::thread::sleep(GAP);
            book.leases.extend(old.map(|old| (writer, old)));
        }
        book.renew(writer, until);
        let flaw = match self.flaw {
            LogFlaw::RenewalNotSynced => Flaw::NothingSynced,
            _ => Flaw::None,
        };
        self.save(&book, flaw)
    }

    async fn claim(
        &self,
        writer: WriterId,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<Change>, Fault> {
        let _transaction = lock(&self.files.transaction);
        let mut book = self.book()?;
        let taken = book.claim(writer, now, limit);
        match self.flaw {
            LogFlaw::ClaimsPending => {
                for change in &taken {
                    lock(&self.files.book).put(writer, change);
                }
            }
            LogFlaw::ClaimSplit => {
                for change in &taken {
                    self.commit(|book| Ok(book.take(writer, [change.id], 1)))?;
                }
            }
            LogFlaw::ClaimNotSynced => self.save(&book, Flaw::NothingSynced)?,
            _ => self.save(&book, Flaw::None)?,
        }
        Ok(taken)
    }
}

/// A world of such logs.
struct Logs {
    world: World,
    flaw: LogFlaw,
}

impl larder_conformance::Fixture for Logs {
    async fn new(env: &larder_conformance::Env) -> Result<Self, BoxError> {
        let flaw = LogFlaw::Files(Flaw::None);
        let world = World::new(env, super::CAPS, Flaw::None)?;
        Ok(Self { world, flaw })
    }

    fn caps(&self) -> Caps {
        self.world.caps
    }

    async fn settle(&self) {
        self.world.settle().await;
    }
}

impl change_log::Open for Logs {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        let files = self.world.place(place)?;
        let is_first = Arc::strong_count(&files) == 1;
        let flaw = self.flaw;
        let store = Store { files, flaw };
        if is_first && flaw == LogFlaw::IdleLeasesSwept {
            store.sweep()?;
        }
        Ok(store)
    }
}

pub(crate) fn suite(caps: Caps, flaw: LogFlaw) -> Suite {
    let of_files = match flaw {
        LogFlaw::Files(flaw) => flaw,
        _ => Flaw::None,
    };
    change_log::suite_with(move |env| async move {
        let world = World::new(&env, caps, of_files)?;
        Ok(Logs { world, flaw })
    })
}
