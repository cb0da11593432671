//! `BlobStore` as a state machine: a map of frames, and apart from it what a loss of power may leave of them.
//!
//! Frames are of any type that can be cloned. A store keeps `Arc`s of bytes here, a check only their tags.

use std::collections::{BTreeMap, BTreeSet};

use larder_traits::{BlobGuid, BlobStoreError};

/// One place of blobs, as its callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames<F> {
    live: BTreeMap<BlobGuid, F>,
    needs_flush: bool,
}

impl<F> Default for Frames<F> {
    fn default() -> Self {
        Self {
            live: BTreeMap::new(),
            needs_flush: false,
        }
    }
}

impl<F> Frames<F> {
    /// BS-2, BS-4
    ///
    /// # Errors
    ///
    /// `NotFound` where there is no such blob.
    pub fn read(&self, guid: BlobGuid) -> Result<&F, BlobStoreError> {
        self.live
            .get(&guid)
            .ok_or_else(|| BlobStoreError::not_found(guid))
    }

    /// BS-2
    pub fn write(&mut self, guid: BlobGuid, frame: F) {
        self.live.insert(guid, frame);
        self.needs_flush = true;
    }

    /// BS-7: one after the other, so that the last of a name wins.
    pub fn write_all(&mut self, writes: impl IntoIterator<Item = (BlobGuid, F)>) {
        for (guid, frame) in writes {
            self.write(guid, frame);
        }
    }

    /// BS-5; whether it was there.
    pub fn delete(&mut self, guid: BlobGuid) -> bool {
        let was_there = self.live.remove(&guid).is_some();
        self.needs_flush |= was_there;
        was_there
    }

    /// BS-6, sorted.
    pub fn list(&self) -> impl Iterator<Item = BlobGuid> {
        self.live.keys().copied()
    }

    /// BS-6
    #[must_use]
    pub fn has(&self, guid: BlobGuid) -> bool {
        self.live.contains_key(&guid)
    }

    /// BS-3, as far as it shows without a crash.
    pub fn flush(&mut self) {
        self.needs_flush = false;
    }

    /// BS-9, exact: whether anything has changed after the last flush.
    #[must_use]
    pub fn needs_flush(&self) -> bool {
        self.needs_flush
    }
}

/// What a loss of power may leave of each blob (BS-3, BS-5, BS-11).
///
/// Stands beside [`Frames`] where a crash is to be judged. It remembers every frame that was written after the last
/// flush, so it is for tags and for short histories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recoverable<F> {
    flushed: BTreeMap<BlobGuid, F>,
    /// Each state of a blob after the last flush, in order; `None` for absent.
    since: BTreeMap<BlobGuid, Vec<Option<F>>>,
}

impl<F> Default for Recoverable<F> {
    fn default() -> Self {
        Self {
            flushed: BTreeMap::new(),
            since: BTreeMap::new(),
        }
    }
}

impl<F: Clone + PartialEq> Recoverable<F> {
    /// A write that has returned, or one that was running when the power went off.
    pub fn write(&mut self, guid: BlobGuid, frame: F) {
        self.since.entry(guid).or_default().push(Some(frame));
    }

    /// A delete that has returned, or one that was running when the power went off.
    pub fn delete(&mut self, guid: BlobGuid) {
        self.since.entry(guid).or_default().push(None);
    }

    /// A flush that has answered `Ok`.
    pub fn flush(&mut self) {
        for (guid, states) in std::mem::take(&mut self.since) {
            match states.into_iter().next_back().flatten() {
                Some(frame) => drop(self.flushed.insert(guid, frame)),
                None => drop(self.flushed.remove(&guid)),
            }
        }
    }

    /// Every blob of which anything may be found.
    #[must_use]
    pub fn guids(&self) -> BTreeSet<BlobGuid> {
        let since = self.since.keys();
        self.flushed.keys().chain(since).copied().collect()
    }

    /// What may be found of `guid`: the state at the last flush first, then those after it.
    #[must_use]
    pub fn states(&self, guid: BlobGuid) -> Vec<Option<F>> {
        let mut states = vec![self.flushed.get(&guid).cloned()];
        states.extend(self.since.get(&guid).into_iter().flatten().cloned());
        states
    }

    /// Whether `found` is one of them.
    #[must_use]
    pub fn allows(&self, guid: BlobGuid, found: Option<&F>) -> bool {
        let is_found = |state: &Option<F>| state.as_ref() == found;
        self.states(guid).iter().any(is_found)
    }

    /// The power was off, and this is what `choose` found of each blob: the index of one of its states, which is from
    /// now on the only one.
    pub fn crash(&mut self, mut choose: impl FnMut(BlobGuid, &[Option<F>]) -> usize) -> Frames<F> {
        let mut found = BTreeMap::new();
        for guid in self.guids() {
            let states = self.states(guid);
            let chosen = choose(guid, &states).min(states.len() - 1);
            if let Some(frame) = &states[chosen] {
                found.insert(guid, frame.clone());
            }
        }
        self.since.clear();
        self.flushed.clone_from(&found);
        Frames {
            live: found,
            needs_flush: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BlobGuid = BlobGuid::from_u128(1);
    const B: BlobGuid = BlobGuid::from_u128(2);

    #[test]
    fn power_leaves_the_flushed_frame_or_a_later_one() {
        let mut disk = Recoverable::default();
        disk.write(A, 1);
        disk.write(A, 2);
        disk.flush();
        disk.write(A, 3);
        disk.write(B, 4);
        for (found, allowed) in [(Some(1), false), (Some(2), true), (Some(3), true)] {
            assert_eq!(disk.allows(A, found.as_ref()), allowed);
        }
        assert!(!disk.allows(A, None) && disk.allows(B, None) && disk.allows(B, Some(&4)));
        disk.delete(A);
        assert!(disk.allows(A, None));
        let found = disk.crash(|_, states| states.len() - 1);
        assert!(!found.has(A) && found.has(B));
        assert!(!disk.allows(A, Some(&2)) && !disk.allows(B, None));
    }

    #[test]
    fn only_a_change_needs_a_flush() {
        let mut frames = Frames::default();
        assert!(!frames.delete(A) && !frames.needs_flush());
        frames.write_all([(A, 1), (A, 2)]);
        assert!(frames.needs_flush() && *frames.read(A).unwrap() == 2);
        frames.flush();
        assert!(!frames.needs_flush());
        assert!(frames.delete(A) && frames.needs_flush() && frames.read(A).is_err());
    }
}
