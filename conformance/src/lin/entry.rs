//! What the search is given: one object's operations as intervals, and the shortcuts that hold before any search begins.

use super::models::Model;

/// The end of an interval that never ends: the operation may take effect at any time, or never.
pub(super) const OPEN: u64 = u64::MAX;

/// One operation on one object.
#[derive(Clone, Debug)]
pub(super) struct Entry<O> {
    /// The first stamp at which it can take effect.
    pub(super) call: u64,
    /// The last one, or [`OPEN`]. Intervals that share a stamp overlap.
    pub(super) end: u64,
    /// The call in the history that it came from.
    pub(super) source: usize,
    /// The position among the entries of the operation that has to come first, where one has: the write whose lifetime this ends.
    pub(super) after: Option<usize>,
    pub(super) op: O,
}

/// An entry taken into a search, and its end as far as that is known: a history cut off at some moment leaves open what was then
/// running.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// The position among the entries.
    pub(super) entry: usize,
    pub(super) end: u64,
}

impl Taken {
    /// The entries at some positions, each with its own end.
    pub(super) fn whole<O>(
        entries: &[Entry<O>],
        positions: impl IntoIterator<Item = usize>,
    ) -> Vec<Self> {
        positions
            .into_iter()
            .map(|entry| Self {
                entry,
                end: entries[entry].end,
            })
            .collect()
    }

    pub(super) const fn is_open(&self) -> bool {
        self.end == OPEN
    }
}

/// What is known of each slot of a model before the search.
#[derive(Debug)]
pub(super) struct Slots {
    /// How many operations can bring it about, the initial state counted as one.
    makers: Vec<u32>,
    /// The earliest end of an operation that was answered and saw it, or [`OPEN`].
    first_seen: Vec<u64>,
}

impl Slots {
    pub(super) fn of<M: Model>(model: &M, entries: &[Entry<M::Op>], taken: &[Taken]) -> Self {
        let mut found = Self {
            makers: vec![0; model.slots()],
            first_seen: vec![OPEN; model.slots()],
        };
        let mut slots = Vec::new();
        model.shows(&model.initial(), &mut slots);
        for slot in slots.drain(..) {
            found.makers[slot] += 1;
        }
        for taken in taken {
            let op = &entries[taken.entry].op;
            if let Some(slot) = model.makes(op) {
                found.makers[slot] += 1;
            }
            if !taken.is_open() {
                model.sees(op, &mut slots);
                for slot in slots.drain(..) {
                    found.first_seen[slot] = found.first_seen[slot].min(taken.end);
                }
            }
        }
        found
    }

    /// Whether the slot never comes back once it is left.
    pub(super) fn once(&self, slot: usize) -> bool {
        self.makers[slot] == 1
    }

    pub(super) fn seen(&self, slot: usize) -> bool {
        self.first_seen[slot] != OPEN
    }
}

/// Decides what can be decided of operations with an unknown outcome.
///
/// * One that changes nothing says nothing and is dropped.
/// * One that somebody saw has certainly happened, and no later than its first reader returned. (The lifetime that it began stays
///   open, for a client that repeats a call may begin it again.)
/// * A blind write that nobody saw is dropped where the model is unconditional: take it out of any valid order and the order stays
///   valid, because the operations that saw the object between it and the next write would have seen it.
///   (A list that names the key sees any value of it, so it keeps such a write alive.)
pub(super) fn tighten<M: Model>(
    model: &M,
    entries: &[Entry<M::Op>],
    taken: &[Taken],
) -> Vec<Taken> {
    if taken.iter().all(|taken| !taken.is_open()) {
        return taken.to_vec();
    }
    let slots = Slots::of(model, entries, taken);
    let mut ends = vec![OPEN; entries.len()];
    let mut begins_a_lifetime = vec![false; entries.len()];
    for taken in taken {
        ends[taken.entry] = taken.end;
        if let (true, Some(before)) = (taken.is_open(), entries[taken.entry].after) {
            begins_a_lifetime[before] = true;
        }
    }
    let last_loose = taken
        .iter()
        .filter(|taken| !taken.is_open() && model.loose(&entries[taken.entry].op))
        .map(|taken| taken.end)
        .max();
    let end_of = |position: usize| match (ends[position], model.makes(&entries[position].op)) {
        (OPEN, Some(slot)) if slots.once(slot) && slots.seen(slot) => {
            slots.first_seen[slot].max(entries[position].call)
        }
        (end, _) => end,
    };
    let mut tightened = Vec::with_capacity(taken.len());
    for &Taken {
        entry: position, ..
    } in taken
    {
        let entry = &entries[position];
        let end = end_of(position);
        let unread = M::UNCONDITIONAL
            && model.blind(&entry.op)
            && model.makes(&entry.op).is_some_and(|slot| !slots.seen(slot))
            && !begins_a_lifetime[position]
            && last_loose.is_none_or(|last| last < entry.call);
        if end == OPEN && (model.pure(&entry.op) || unread) {
            continue;
        }
        tightened.push(Taken {
            entry: position,
            end,
        });
    }
    tightened
}
