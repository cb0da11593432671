//! `ChangeLog` as a state machine: changes with their owners, and leases.

use std::collections::BTreeMap;
use std::time::SystemTime;

use larder_traits::{Change, ChangeId, WriterId};

/// One log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    changes: BTreeMap<ChangeId, (WriterId, Change)>,
    /// Kept also for writers that have no changes (CL-4).
    leases: BTreeMap<WriterId, SystemTime>,
}

impl Changes {
    fn is_foreign(&self, writer: WriterId, id: ChangeId) -> bool {
        self.changes
            .get(&id)
            .is_some_and(|(owner, _)| *owner != writer)
    }

    /// CL-1, CL-3: whether it was recorded; if not, the change belongs to another writer.
    #[must_use]
    pub fn record(&mut self, writer: WriterId, change: &Change) -> bool {
        if self.is_foreign(writer, change.id) {
            return false;
        }
        self.changes.insert(change.id, (writer, change.clone()));
        true
    }

    /// CL-2, CL-3: whether it is gone; if not, the change belongs to another writer.
    #[must_use]
    pub fn complete(&mut self, writer: WriterId, id: ChangeId) -> bool {
        if self.is_foreign(writer, id) {
            return false;
        }
        self.changes.remove(&id);
        true
    }

    /// CL-3: those of one writer, in the order of their ids.
    #[must_use]
    pub fn of(&self, writer: WriterId) -> Vec<Change> {
        let own = self.changes.values().filter(|(owner, _)| *owner == writer);
        own.map(|(_, change)| change.clone()).collect()
    }

    /// CL-4: a lease is never shortened.
    pub fn renew(&mut self, writer: WriterId, until: SystemTime) {
        let lease = self.leases.entry(writer).or_insert(until);
        *lease = until.max(*lease);
    }

    /// CL-5: what `writer` may claim at `now`, in the order of the ids.
    #[must_use]
    pub fn claimable(&self, writer: WriterId, now: SystemTime) -> Vec<Change> {
        let is_over = |owner| self.leases.get(owner).is_none_or(|until| *until <= now);
        let all = self.changes.values();
        let free = all.filter(|(owner, _)| *owner != writer && is_over(owner));
        free.map(|(_, change)| change.clone()).collect()
    }

    /// CL-5: `writer` claimed these.
    pub fn claimed(&mut self, writer: WriterId, changes: &[Change]) {
        for change in changes {
            if let Some((owner, _)) = self.changes.get_mut(&change.id) {
                *owner = writer;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_traits::{ObjectContext, ObjectId, Step};

    use super::*;

    #[test]
    fn a_change_goes_to_another_writer_when_the_lease_of_its_own_has_ended() {
        let [one, two] = [1, 2].map(|n| WriterId::from_bytes([n; 16]));
        let object = ObjectId::new(ObjectContext::new("test", Vec::new()), "o");
        let change = Change::new(ChangeId::from_bytes([7; 16]), object, Step::Upload);
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let mut log = Changes::default();
        assert!(log.record(one, &change));
        log.renew(one, at(9));
        log.renew(one, at(5));
        assert!(log.claimable(two, at(8)).is_empty());
        assert!(log.claimable(one, at(9)).is_empty());
        let claimed = log.claimable(two, at(9));
        log.claimed(two, &claimed);
        assert!(!log.record(one, &change) && !log.complete(one, change.id));
        assert_eq!(log.of(two), std::slice::from_ref(&change));
        assert!(log.complete(two, change.id) && log.record(one, &change));
    }
}
