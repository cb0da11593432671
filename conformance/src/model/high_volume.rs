//! `Backend` and `HighVolumeBackend` as one state machine: a map of rows, each of them inline or a redirect.
//!
//! Wall time comes as an argument. A row whose deadline has come is absent in every call, whether or not it has been
//! cleared away. The calls of a plain `Backend` see inline rows only, so that one model serves both contracts.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use larder_traits::{
    BackendError, ExpirationPolicy, Fault, Metadata, ObjectId, TieredMetadata, TieredWrite,
    Tombstone,
};

use crate::cx::show;

/// What lies in a row that is there.
#[derive(Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a row that is there has two states"
)]
pub enum Row {
    /// The object itself.
    Inline(Metadata, Bytes),
    /// The name of the place where the object lies.
    Redirect(Tombstone),
}

impl Row {
    /// Whether its deadline has come (HV-8).
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        match self {
            Self::Inline(metadata, _) => metadata.is_expired(now),
            Self::Redirect(tombstone) => tombstone.is_expired(now),
        }
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(metadata, payload) => {
                write!(f, "Inline({}, {})", Shown(metadata), show(payload))
            }
            Self::Redirect(tombstone) => write!(f, "Redirect({})", ShownRedirect(tombstone)),
        }
    }
}

/// The rows of one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows(BTreeMap<ObjectId, Row>);

impl Rows {
    /// The row, if there is a live one.
    #[must_use]
    pub fn row(&self, now: SystemTime, id: &ObjectId) -> Option<&Row> {
        self.0.get(id).filter(|row| !row.is_expired(now))
    }

    /// Every row that was written and not removed, dead ones included.
    pub fn rows(&self) -> impl Iterator<Item = (&ObjectId, &Row)> {
        self.0.iter()
    }

    fn redirect(&self, now: SystemTime, id: &ObjectId) -> Option<&Tombstone> {
        match self.row(now, id) {
            Some(Row::Redirect(tombstone)) => Some(tombstone),
            _ => None,
        }
    }

    /// BK-1, HV-10: whatever is in the row is replaced.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for times that contradict each other or cannot be kept (HV-8).
    pub fn put_object(
        &mut self,
        now: SystemTime,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<(), Fault> {
        let stored = metadata.stamped(now, len(&payload))?;
        self.0.insert(id.clone(), Row::Inline(stored, payload));
        Ok(())
    }

    /// BK-2, HV-10. An access: see [`touch`](Self::touch).
    ///
    /// # Errors
    ///
    /// The redirect, if the row is one.
    pub fn get_object(
        &mut self,
        now: SystemTime,
        id: &ObjectId,
    ) -> Result<Option<(Metadata, Bytes)>, BackendError> {
        match self.get_tiered_object(now, id) {
            Some(Row::Inline(metadata, payload)) => Ok(Some((metadata, payload))),
            Some(Row::Redirect(tombstone)) => {
                Err(BackendError::UnexpectedTombstone(Box::new(tombstone)))
            }
            None => Ok(None),
        }
    }

    /// BK-2, HV-10. An access: see [`touch`](Self::touch).
    ///
    /// # Errors
    ///
    /// The redirect, if the row is one.
    pub fn get_metadata(
        &mut self,
        now: SystemTime,
        id: &ObjectId,
    ) -> Result<Option<Metadata>, BackendError> {
        Ok(self.get_object(now, id)?.map(|(metadata, _)| metadata))
    }

    /// BK-3, HV-10: whatever is in the row is removed.
    pub fn delete_object(&mut self, id: &ObjectId) {
        self.0.remove(id);
    }

    /// HV-1: the live redirect that forbids it, if there is one.
    ///
    /// # Errors
    ///
    /// As [`put_object`](Self::put_object).
    pub fn put_non_tombstone(
        &mut self,
        now: SystemTime,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<Option<Tombstone>, Fault> {
        let stored = metadata.stamped(now, len(&payload))?;
        if let Some(tombstone) = self.redirect(now, id) {
            return Ok(Some(tombstone.clone()));
        }
        self.0.insert(id.clone(), Row::Inline(stored, payload));
        Ok(None)
    }

    /// HV-2. An access: see [`touch`](Self::touch).
    pub fn get_tiered_object(&mut self, now: SystemTime, id: &ObjectId) -> Option<Row> {
        let found = self.row(now, id).cloned();
        self.touch(now, id);
        found
    }

    /// HV-3. An access: see [`touch`](Self::touch).
    pub fn get_tiered_metadata(&mut self, now: SystemTime, id: &ObjectId) -> TieredMetadata {
        match self.get_tiered_object(now, id) {
            Some(Row::Inline(metadata, _)) => TieredMetadata::Object(metadata),
            Some(Row::Redirect(tombstone)) => TieredMetadata::Tombstone(tombstone),
            None => TieredMetadata::NotFound,
        }
    }

    /// HV-4: the live redirect that forbids it, if there is one.
    pub fn delete_non_tombstone(&mut self, now: SystemTime, id: &ObjectId) -> Option<Tombstone> {
        let found = self.redirect(now, id).cloned();
        if found.is_none() {
            self.0.remove(id);
        }
        found
    }

    /// HV-5.
    ///
    /// # Errors
    ///
    /// As [`put_object`](Self::put_object), whatever the row holds.
    pub fn compare_and_write(
        &mut self,
        now: SystemTime,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Result<bool, Fault> {
        let new = match write {
            TieredWrite::Tombstone(tombstone) => Some(Row::Redirect(tombstone.stamped(now)?)),
            TieredWrite::Object(metadata, payload) => {
                let stored = metadata.stamped(now, len(&payload))?;
                Some(Row::Inline(stored, payload))
            }
            TieredWrite::Delete => None,
        };
        let step = step(self.row(now, id), current, new.as_ref());
        if step == Step::Write {
            match new {
                Some(row) => drop(self.0.insert(id.clone(), row)),
                None => drop(self.0.remove(id)),
            }
        }
        Ok(step != Step::Refuse)
    }

    /// HV-8: moves the deadline of the redirect to `target`, ahead only.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a time that cannot be kept.
    pub fn extend_expiry(
        &mut self,
        now: SystemTime,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Result<bool, Fault> {
        // The policy is of no account here; any but `Manual` lets the deadline be cut as every other one is.
        let mut asked = Tombstone::new(
            target.clone(),
            ExpirationPolicy::TimeToLive(Default::default()),
        );
        asked.time_expires = Some(at);
        let at = asked.stamped(now)?.time_expires;
        if self
            .redirect(now, id)
            .is_none_or(|live| live.target != *target)
        {
            return Ok(false);
        }
        if let Some(Row::Redirect(live)) = self.0.get_mut(id)
            && live.time_expires.is_some()
        {
            live.time_expires = live.time_expires.max(at);
        }
        Ok(true)
    }

    /// An access to the row at `now`: it moves the deadline of a live inline row with `TimeToIdle` ahead, once the
    /// debounce has passed, and nothing else (HV-8). The readers call it after they have read.
    pub fn touch(&mut self, now: SystemTime, id: &ObjectId) {
        if let Some(Row::Inline(metadata, _)) = self.0.get_mut(id)
            && let Some(later) = metadata.deadline_after_access(now)
        {
            metadata.time_expires = Some(later);
        }
    }
}

/// What a cell of the table of HV-5 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// `true`, and the row is written.
    Write,
    /// `true`, and the row stays.
    Keep,
    /// `false`, and the row stays.
    Refuse,
}

fn step(row: Option<&Row>, current: Option<&ObjectId>, new: Option<&Row>) -> Step {
    match (row, current, new) {
        // A redirect to the write's own target goes before everything else.
        (Some(Row::Redirect(live)), _, Some(Row::Redirect(new))) if live.target == new.target => {
            Step::Keep
        }
        (Some(Row::Redirect(live)), Some(old), _) if live.target == *old => Step::Write,
        (Some(Row::Redirect(_)), _, _) => Step::Refuse,
        (_, None, _) => Step::Write,
        (_, Some(_), Some(Row::Redirect(_))) => Step::Refuse,
        // Nobody wrote anything newer: the caller has to look again.
        (None, Some(_), Some(Row::Inline(..))) => Step::Refuse,
        (None, Some(_), None) | (Some(Row::Inline(..)), Some(_), _) => Step::Keep,
    }
}

fn len(payload: &Bytes) -> u64 {
    u64::try_from(payload.len()).unwrap_or(u64::MAX)
}

/// A time as failures show it: milliseconds since 1970, and what is beyond them only where there is something.
pub(crate) fn show_time(at: SystemTime) -> String {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => match since.subsec_nanos() % 1_000_000 {
            0 => format!("@{}ms", since.as_millis()),
            nanos => format!("@{}ms+{nanos}ns", since.as_millis()),
        },
        Err(before) => format!("@-{}ms", before.duration().as_millis()),
    }
}

fn show_policy(policy: ExpirationPolicy) -> String {
    match policy {
        ExpirationPolicy::Manual => "Manual".into(),
        ExpirationPolicy::TimeToLive(after) => format!("TTL {after:?}"),
        ExpirationPolicy::TimeToIdle(after) => format!("TTI {after:?}"),
    }
}

/// Metadata as failures show it: in one line, and only what is set.
pub(crate) struct Shown<'a>(pub(crate) &'a Metadata);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = self.0;
        write!(f, "{{{}", show_policy(metadata.expiration_policy))?;
        if let Some(at) = metadata.time_created {
            write!(f, ", created {}", show_time(at))?;
        }
        if let Some(at) = metadata.time_expires {
            write!(f, ", expires {}", show_time(at))?;
        }
        if let Some(size) = metadata.size {
            write!(f, ", size {size}")?;
        }
        let texts = [
            ("type", &metadata.content_type),
            ("origin", &metadata.origin),
            ("filename", &metadata.filename),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                write!(f, ", {name} {text:?}")?;
            }
        }
        if let Some(compression) = metadata.compression {
            write!(f, ", {compression:?}")?;
        }
        if !metadata.custom.is_empty() {
            write!(f, ", custom {:?}", metadata.custom)?;
        }
        f.write_str("}")
    }
}

/// A redirect as failures show it.
pub(crate) struct ShownRedirect<'a>(pub(crate) &'a Tombstone);

impl fmt::Display for ShownRedirect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tombstone {
            target,
            expiration_policy,
            time_expires,
            ..
        } = self.0;
        write!(f, "to {target}, {}", show_policy(*expiration_policy))?;
        match time_expires {
            Some(at) => write!(f, ", expires {}", show_time(*at)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_traits::{Clock, ObjectContext, TestClock};

    use super::*;

    fn name(key: &str) -> ObjectId {
        ObjectId::new(ObjectContext::new("u", Vec::new()), key)
    }

    fn redirect(target: &str) -> Tombstone {
        Tombstone::new(name(target), ExpirationPolicy::Manual)
    }

    /// The table of HV-5 in letters: write, keep, refuse. Rows: `current` and write. Columns: absent, inline,
    /// redirect to A.
    const TABLE: [(Option<&str>, &str, &str); 12] = [
        (None, "A", "wwk"),
        (None, "N", "wwr"),
        (None, "object", "wwr"),
        (None, "delete", "wwr"),
        (Some("A"), "A", "rrk"),
        (Some("A"), "N", "rrw"),
        (Some("A"), "object", "rkw"),
        (Some("A"), "delete", "kkw"),
        (Some("B"), "A", "rrk"),
        (Some("B"), "N", "rrr"),
        (Some("B"), "object", "rkr"),
        (Some("B"), "delete", "kkr"),
    ];

    #[test]
    fn the_swaps_are_those_of_the_table() {
        let now = TestClock::new().now();
        let old = Row::Inline(Metadata::new(), Bytes::from_static(b"old"));
        let states = [None, Some(old), Some(Row::Redirect(redirect("A")))];
        for (current, write, letters) in TABLE {
            for (state, letter) in states.iter().zip(letters.chars()) {
                let mut rows = Rows::default();
                rows.0.extend(state.clone().map(|row| (name("id"), row)));
                let before = rows.clone();
                let write = match write {
                    "object" => TieredWrite::Object(Metadata::new(), Bytes::from_static(b"new")),
                    "delete" => TieredWrite::Delete,
                    target => TieredWrite::Tombstone(redirect(target)),
                };
                let current = current.map(name);
                let won = rows
                    .compare_and_write(now, &name("id"), current.as_ref(), write.clone())
                    .unwrap();
                let cell = format!("{current:?}, {write:?} on {state:?}");
                assert_eq!(won, letter != 'r', "{cell}");
                let absent_to_absent = state.is_none() && write == TieredWrite::Delete;
                assert_eq!(rows != before, letter == 'w' && !absent_to_absent, "{cell}");
            }
        }
    }

    #[test]
    fn a_dead_row_is_absent_and_an_access_revives_nothing() {
        let now = TestClock::new().now();
        let ten = Duration::from_secs(10);
        let mut rows = Rows::default();
        let idle = Metadata::with_policy(ExpirationPolicy::TimeToIdle(ten));
        rows.put_object(now, &name("id"), &idle, Bytes::new())
            .unwrap();
        assert!(
            rows.get_object(now + ten / 2, &name("id"))
                .unwrap()
                .is_some()
        );
        assert!(rows.get_object(now + ten, &name("id")).unwrap().is_some());
        let end = now + ten * 2;
        assert_eq!(rows.get_tiered_object(end, &name("id")), None);
        let swap = TieredWrite::Object(Metadata::new(), Bytes::new());
        let old = name("A");
        assert!(
            !rows
                .compare_and_write(end, &name("id"), Some(&old), swap)
                .unwrap()
        );
        assert_eq!(
            rows.get_tiered_metadata(end, &name("id")),
            TieredMetadata::NotFound
        );
    }

    #[test]
    fn a_deadline_is_only_ever_moved_ahead() {
        let now = TestClock::new().now();
        let second = Duration::from_secs(1);
        let mut rows = Rows::default();
        let mut dying = redirect("A");
        dying.expiration_policy = ExpirationPolicy::TimeToLive(second * 10);
        rows.compare_and_write(now, &name("id"), None, TieredWrite::Tombstone(dying))
            .unwrap();
        let mut extend = |at, target| {
            rows.extend_expiry(now, &name("id"), &name(target), now + second * at)
                .unwrap()
        };
        assert!(extend(20, "A") && extend(5, "A") && !extend(30, "B"));
        let stored = rows.row(now, &name("id")).cloned();
        let Some(Row::Redirect(stored)) = stored else {
            panic!("{stored:?}")
        };
        assert_eq!(stored.time_expires, Some(now + second * 20));
    }
}
