//! What a change log says: the changes with their owners, and the leases.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use larder_traits::{Change, ChangeId, ErrorKind, Fault, WriterId};
use serde::{Deserialize, Serialize};

/// How long an ended lease of a writer without changes is kept, in seconds: clocks of two processes differ by less.
const KEPT_SECS: i64 = 24 * 60 * 60;

/// A moment to the nanosecond: whole seconds since 1970, rounded down, and what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Moment(i64, u32);

impl From<SystemTime> for Moment {
    fn from(at: SystemTime) -> Self {
        let whole = |since: Duration| i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        match at.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Self(whole(since), since.subsec_nanos()),
            Err(before) => match before.duration() {
                before if before.subsec_nanos() == 0 => Self(-whole(before), 0),
                before => Self(
                    (-whole(before)).saturating_sub(1),
                    1_000_000_000 - before.subsec_nanos(),
                ),
            },
        }
    }
}

/// One thing that was done. What is in a log can be done again from its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "most of them are records, and none is kept for long"
)]
pub(super) enum Entry {
    /// The change is there, and the writer's.
    Record(WriterId, Change),
    /// The change is gone.
    Complete(ChangeId),
    /// The writer has a lease until then.
    Renew(WriterId, Moment),
    /// The changes are the writer's now.
    Claim(WriterId, Vec<ChangeId>),
}

#[derive(Debug, Default)]
pub(super) struct State {
    changes: BTreeMap<ChangeId, (WriterId, Change)>,
    leases: BTreeMap<WriterId, Moment>,
    /// The latest moment that a claim was made at, as far as this handle knows.
    latest: Option<Moment>,
}

impl State {
    pub(super) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Record(writer, change) => {
                self.changes.insert(change.id, (writer, change));
            }
            Entry::Complete(id) => {
                self.changes.remove(&id);
            }
            Entry::Renew(writer, until) => {
                let lease = self.leases.entry(writer).or_insert(until);
                *lease = until.max(*lease);
            }
            Entry::Claim(writer, ids) => {
                for id in ids {
                    if let Some((owner, _)) = self.changes.get_mut(&id) {
                        *owner = writer;
                    }
                }
            }
        }
    }

    /// Refuses a writer that is not, or no longer, the owner of the change `id`.
    fn check_owner(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
        match self.changes.get(&id) {
            Some((owner, _)) if *owner != writer => {
                let message = format!("the change {id} belongs to another writer");
                Err(Fault::not_applied(ErrorKind::Conflict, message))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn record(&self, writer: WriterId, change: Change) -> Result<Option<Entry>, Fault> {
        self.check_owner(writer, change.id)?;
        let is_there = self.changes.get(&change.id);
        let is_same = is_there.is_some_and(|(_, there)| *there == change);
        Ok((!is_same).then_some(Entry::Record(writer, change)))
    }

    pub(super) fn complete(&self, writer: WriterId, id: ChangeId) -> Result<Option<Entry>, Fault> {
        self.check_owner(writer, id)?;
        Ok(self
            .changes
            .contains_key(&id)
            .then_some(Entry::Complete(id)))
    }

    pub(super) fn changes_of(&self, writer: WriterId) -> Vec<Change> {
        let own = self.changes.values().filter(|(owner, _)| *owner == writer);
        own.map(|(_, change)| change.clone()).collect()
    }

    pub(super) fn renew(&self, writer: WriterId, until: Moment) -> Option<Entry> {
        let is_longer = self.leases.get(&writer).is_none_or(|lease| *lease < until);
        is_longer.then_some(Entry::Renew(writer, until))
    }

    pub(super) fn claim(
        &mut self,
        writer: WriterId,
        now: Moment,
        limit: usize,
    ) -> (Vec<Change>, Option<Entry>) {
        self.latest = self.latest.max(Some(now));
        let leases = &self.leases;
        let abandoned = self.changes.values().filter(|(owner, _)| {
            *owner != writer && leases.get(owner).is_none_or(|until| *until <= now)
        });
        let claimed: Vec<_> = abandoned
            .take(limit)
            .map(|(_, change)| change.clone())
            .collect();
        let ids: Vec<_> = claimed.iter().map(|change| change.id).collect();
        let entry = (!ids.is_empty()).then_some(Entry::Claim(writer, ids));
        (claimed, entry)
    }

    /// The shortest way to say all this. A lease that ended long ago and covers nothing is left out; else there would
    /// be one for every writer that ever was.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let is_needed = |writer: &WriterId, until: &Moment| {
            let long_ago = self.latest.map(|now| now.0.saturating_sub(KEPT_SECS));
            long_ago.is_none_or(|then| until.0 >= then)
                || self.changes.values().any(|(owner, _)| owner == writer)
        };
        let leases = self.leases.iter();
        let leases = leases
            .filter(|(writer, until)| is_needed(writer, until))
            .map(|(writer, until)| Entry::Renew(*writer, *until));
        let changes = self.changes.values();
        let changes = changes.map(|(owner, change)| Entry::Record(*owner, change.clone()));
        leases.chain(changes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_in_order_on_both_sides_of_1970() {
        let epoch = SystemTime::UNIX_EPOCH;
        let milli = Duration::from_millis(1);
        let second = Duration::from_secs(1);
        let times = [
            epoch - second * 2,
            epoch - second - milli,
            epoch - second,
            epoch - milli * 2,
            epoch - milli,
            epoch,
            epoch + milli,
            epoch + second,
        ];
        let moments = times.map(Moment::from);
        assert!(moments.is_sorted_by(|a, b| a < b), "{moments:?}");
    }

    #[test]
    fn only_a_lease_that_ended_long_ago_and_covers_nothing_is_forgotten() {
        let writer = |n| WriterId::from_bytes([n; 16]);
        let context = larder_traits::ObjectContext::new("test", Vec::new());
        let object = larder_traits::ObjectId::new(context, "object");
        let change = Change::new(
            ChangeId::from_bytes([1; 16]),
            object,
            larder_traits::Step::Upload,
        );
        let mut state = State::default();
        for n in 1..=3 {
            state.apply(Entry::Renew(writer(n), Moment(1_000, 0)));
        }
        state.apply(Entry::Renew(writer(3), Moment(1_000 + KEPT_SECS, 0)));
        state.apply(Entry::Record(writer(2), change));
        assert_eq!(state.entries().len(), 4, "no time is known");
        let (claimed, _) = state.claim(writer(2), Moment(1_001 + KEPT_SECS, 0), 10);
        assert_eq!(claimed, []);
        let entries = state.entries();
        assert_eq!(entries.len(), 3);
        assert!(!entries.contains(&Entry::Renew(writer(1), Moment(1_000, 0))));
    }
}
