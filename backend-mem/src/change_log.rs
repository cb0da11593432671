//! [`ChangeLog`]: one map of changes with their owners, one of leases.
//!
//! It survives what the stores of this crate survive, which is nothing beyond the process. It is no log for stores
//! that survive more.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;
use larder_traits::{Change, ChangeId, ChangeLog, Fault, WriterId};

use crate::error::claimed;
use crate::native::{MemPlace, lock};

/// The change log of a place.
#[derive(Clone, Debug)]
pub struct MemChangeLog(pub(crate) MemPlace);

#[derive(Default)]
pub(crate) struct Changes {
    changes: BTreeMap<ChangeId, (WriterId, Change)>,
    /// Kept also for writers that have no changes left: a forgotten lease would be a shortened one.
    leases: BTreeMap<WriterId, SystemTime>,
}

impl Changes {
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Refuses a writer that is not, or no longer, the owner of the change `id`.
    fn check_owner(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
        match self.changes.get(&id) {
            Some((owner, _)) if *owner != writer => Err(claimed(id)),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl ChangeLog for MemChangeLog {
    async fn record(&self, writer: WriterId, change: &Change) -> Result<(), Fault> {
        let mut log = lock(&self.0.shared.changes);
        log.check_owner(writer, change.id)?;
        log.changes.insert(change.id, (writer, change.clone()));
        Ok(())
    }

    async fn complete(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
        let mut log = lock(&self.0.shared.changes);
        log.check_owner(writer, id)?;
        log.changes.remove(&id);
        Ok(())
    }

    async fn changes(&self, writer: WriterId) -> Result<Vec<Change>, Fault> {
        let log = lock(&self.0.shared.changes);
        let own = log.changes.values().filter(|(owner, _)| *owner == writer);
        Ok(own.map(|(_, change)| change.clone()).collect())
    }

    async fn renew(&self, writer: WriterId, until: SystemTime) -> Result<(), Fault> {
        let mut log = lock(&self.0.shared.changes);
        let lease = log.leases.entry(writer).or_insert(until);
        *lease = until.max(*lease);
        Ok(())
    }

    async fn claim(
        &self,
        writer: WriterId,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<Change>, Fault> {
        let mut log = lock(&self.0.shared.changes);
        let Changes { changes, leases } = &mut *log;
        let abandoned = changes.values_mut().filter(|(owner, _)| {
            *owner != writer && leases.get(owner).is_none_or(|until| *until <= now)
        });
        Ok(abandoned
            .take(limit)
            .map(|(owner, change)| {
                *owner = writer;
                change.clone()
            })
            .collect())
    }
}
