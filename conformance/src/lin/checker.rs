//! The search for an order that explains a history.
//!
//! The frame is the search of Wing and Gong ("Testing and verifying concurrent objects", 1993) over a linked list of the calls
//! not yet placed, with the memo of Lowe ("Testing for linearizability", 2017). It is iterative, so that a long history costs
//! heap and never the stack, and both budgets are tested inside. What is added keeps the search exact and makes it short:
//!
//! * **A read that fits is no branch.** It changes nothing, so if any order exists, one exists in which it comes now.
//! * **What is left for good must not be missed.** A value that only one call can bring about is never left while a call that
//!   has to see it is still to be placed.
//! * **Twins go in the order of their ends.** Of equal operations that could come next, only the one that must come first is
//!   tried; exchanging the two in any order that did otherwise gives an order that does not.
//! * **A write and all reads of its value are one step**, where every write is blind, no lifetime is running and no list waits:
//!   if the whole group can come now, some order has it now. Take an order that has it later and move the group to the front. In
//!   its old place nothing saw it but the group, and whatever follows it overwrites blindly; in front nothing stands between it
//!   and the next blind write, because every read that fits has been placed. With unique values a plain register therefore never
//!   branches at all.
//!
//! What has been placed is always everything up to some call plus a few calls after it, so a configuration is that
//! call's number and a short window of bits.

use super::entry::{Entry, OPEN, Slots, Taken, tighten};
use super::memo::Memo;
use super::models::Model;

/// What one search may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// How many operations it may place in vain.
    pub(super) steps: u64,
    pub(super) memory_bytes: usize,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The order, as positions among the entries.
    Fits(Vec<usize>),
    /// There is no order.
    Misfit,
    /// A budget ended first.
    GaveUp(String),
}

/// A finding and what it cost.
#[derive(Debug)]
pub(super) struct Searched {
    pub(super) finding: Finding,
    /// Operations placed, those taken back included.
    pub(super) steps: u64,
}

/// Searches an order of the entries taken.
pub(super) fn search<M: Model>(
    model: &M,
    entries: &[Entry<M::Op>],
    taken: &[Taken],
    budget: Budget,
) -> Searched {
    Search::new(model, entries, tighten(model, entries, taken), budget).run()
}

/// An entry, with all that the search asks of it again and again.
struct Item<'a, O> {
    call: u64,
    end: u64,
    op: &'a O,
    entry: usize,
    after: Option<usize>,
    makes: Option<usize>,
    ties: Option<usize>,
    sees_from: usize,
    sees_to: usize,
    pure: bool,
    loose: bool,
    /// Writes a value that comes only once, that no lifetime ends and that is only ever overwritten: it can go with its readers.
    groups: bool,
}

/// A configuration with several ways on.
struct Frame<S> {
    state: S,
    trail_len: usize,
    choices_from: usize,
    choices_next: usize,
    choices_to: usize,
}

struct Search<'a, M: Model> {
    model: &'a M,
    budget: Budget,
    steps: u64,
    /// First those that must be placed, by call; from `must` on those that may be, by call.
    items: Vec<Item<'a, M::Op>>,
    must: usize,
    /// The slots that the items see, one item after the other.
    sees: Vec<usize>,
    once: Vec<bool>,
    /// The calls still to be placed, linked in both directions; `must` is head and tail.
    next: Vec<usize>,
    previous: Vec<usize>,
    placed: Vec<u64>,
    trail: Vec<usize>,
    /// By slot: how many calls that must still be placed have to see it, and how many lifetimes could still end it.
    awaited: Vec<u32>,
    tied: Vec<u32>,
    loose_left: usize,
    frames: Vec<Frame<M::State>>,
    choices: Vec<usize>,
    memo: Memo<M::State>,
    scratch_words: Vec<u64>,
    scratch_slots: Vec<usize>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(
        model: &'a M,
        entries: &'a [Entry<M::Op>],
        mut order: Vec<Taken>,
        budget: Budget,
    ) -> Self {
        order.sort_unstable_by_key(|taken| {
            (
                taken.is_open(),
                entries[taken.entry].call,
                taken.end,
                taken.entry,
            )
        });
        let must = order.partition_point(|taken| !taken.is_open());
        let slots = Slots::of(model, entries, &order);
        let mut item_of = vec![usize::MAX; entries.len()];
        for (item, taken) in order.iter().enumerate() {
            item_of[taken.entry] = item;
        }
        let mut tied = vec![0; model.slots()];
        for slot in order
            .iter()
            .filter_map(|taken| model.ties(&entries[taken.entry].op))
        {
            tied[slot] += 1;
        }
        let mut search = Self {
            model,
            budget,
            steps: 0,
            items: Vec::with_capacity(order.len()),
            must,
            sees: Vec::new(),
            once: (0..model.slots()).map(|slot| slots.once(slot)).collect(),
            next: (1..=must).chain([0]).collect(),
            previous: [must].into_iter().chain(0..must).collect(),
            placed: vec![0; order.len().div_ceil(64)],
            trail: Vec::with_capacity(order.len()),
            awaited: vec![0; model.slots()],
            tied,
            loose_left: 0,
            frames: Vec::new(),
            choices: Vec::new(),
            memo: Memo::new(),
            scratch_words: Vec::new(),
            scratch_slots: Vec::new(),
        };
        for taken in &order {
            search.add(*taken, &entries[taken.entry], &item_of);
        }
        search
    }

    fn add(&mut self, taken: Taken, entry: &'a Entry<M::Op>, item_of: &[usize]) {
        let sees_from = self.sees.len();
        let must = !taken.is_open();
        if must {
            self.model.sees(&entry.op, &mut self.sees);
            self.sees[sees_from..].sort_unstable();
            for position in sees_from..self.sees.len() {
                self.awaited[self.sees[position]] += 1;
            }
        }
        let loose = must && self.model.loose(&entry.op);
        self.loose_left += usize::from(loose);
        let makes = self.model.makes(&entry.op);
        let groups = M::CLUSTERS
            && self.model.blind(&entry.op)
            && makes.is_some_and(|slot| self.once[slot] && self.tied[slot] == 0);
        self.items.push(Item {
            call: entry.call,
            end: taken.end,
            op: &entry.op,
            entry: taken.entry,
            after: entry.after.map(|before| item_of[before]),
            makes,
            ties: self.model.ties(&entry.op),
            sees_from,
            sees_to: self.sees.len(),
            pure: self.model.pure(&entry.op),
            loose,
            groups,
        });
    }

    fn run(mut self) -> Searched {
        let mut state = self.model.initial();
        let finding = loop {
            self.settle(&state);
            while let (None, Some(after)) = (self.over_budget(), self.group(&state)) {
                state = after;
            }
            if self.next[self.must] == self.must {
                break Finding::Fits(
                    self.trail
                        .iter()
                        .map(|&item| self.items[item].entry)
                        .collect(),
                );
            }
            if let Some(why) = self.over_budget() {
                break Finding::GaveUp(why);
            }
            let choices_from = self.choices.len();
            self.choose(&state);
            // A configuration with one way on leads to one with several or to an end soon enough.
            if self.choices.len() > choices_from + 1 && !self.remember(&state) {
                self.choices.truncate(choices_from);
            }
            if self.choices.len() > choices_from {
                self.frames.push(Frame {
                    state,
                    trail_len: self.trail.len(),
                    choices_from,
                    choices_next: choices_from,
                    choices_to: self.choices.len(),
                });
            }
            match self.advance() {
                Some(after) => state = after,
                None => break Finding::Misfit,
            }
        };
        Searched {
            finding,
            steps: self.steps,
        }
    }

    /// Places everything that can come now and never matters later: reads that fit, lifetimes of values already gone.
    fn settle(&mut self, state: &M::State) {
        let mut first_end = OPEN;
        let mut item = self.next[self.must];
        while item != self.must && self.items[item].call <= first_end {
            let following = self.next[item];
            if self.idle(item, state) {
                self.place(item);
            } else {
                first_end = first_end.min(self.items[item].end);
            }
            item = following;
        }
    }

    fn idle(&self, item: usize, state: &M::State) -> bool {
        let Item { op, pure, ties, .. } = &self.items[item];
        if *pure {
            return self.model.apply(state, op).is_some();
        }
        ties.is_some_and(|slot| self.once[slot])
            && self.free(item)
            && self
                .model
                .apply(state, op)
                .is_some_and(|after| after == *state)
    }

    /// Whether what has to come before this item has come.
    fn free(&self, item: usize) -> bool {
        self.items[item]
            .after
            .is_none_or(|before| self.is_placed(before))
    }

    /// Places a write together with all reads of its value, if they can all come now.
    fn group(&mut self, state: &M::State) -> Option<M::State> {
        if !self.may_group(state) {
            return None;
        }
        let mut first_end = OPEN;
        let mut item = self.next[self.must];
        while item != self.must && self.items[item].call <= first_end {
            first_end = first_end.min(self.items[item].end);
            if let (true, Some(slot)) = (self.items[item].groups, self.items[item].makes) {
                let after = self.model.apply(state, self.items[item].op)?;
                let trail_len = self.trail.len();
                self.place(item);
                self.settle(&after);
                if self.awaited[slot] == 0 {
                    return Some(after);
                }
                self.take_back(trail_len);
            }
            item = self.next[item];
        }
        None
    }

    fn may_group(&mut self, state: &M::State) -> bool {
        if !M::CLUSTERS || self.loose_left > 0 {
            return false;
        }
        let mut slots = std::mem::take(&mut self.scratch_slots);
        self.model.shows(state, &mut slots);
        let done = slots
            .iter()
            .all(|&slot| self.tied[slot] == 0 && !(self.once[slot] && self.awaited[slot] > 0));
        slots.clear();
        self.scratch_slots = slots;
        done
    }

    /// Collects what could come next, most urgent first.
    fn choose(&mut self, state: &M::State) {
        let from = self.choices.len();
        // Where groups may go at all, each has been tried, and one that cannot go whole cannot go in part.
        let groups_are_dead = self.may_group(state);
        let mut first_end = OPEN;
        let mut item = self.next[self.must];
        while item != self.must && self.items[item].call <= first_end {
            first_end = first_end.min(self.items[item].end);
            if !(self.items[item].pure || groups_are_dead && self.items[item].groups)
                && self.fits(item, state, true)
            {
                self.choices.push(item);
            }
            item = self.next[item];
        }
        for item in self.must..self.items.len() {
            if self.items[item].call > first_end {
                break;
            }
            if !self.is_placed(item) && self.fits(item, state, false) {
                self.choices.push(item);
            }
        }
        self.choices[from..].sort_by_key(|&item| (self.items[item].end, item));
        self.drop_twins(from);
    }

    /// Whether the item could come next. One that may be left out altogether is of no use where it changes nothing.
    fn fits(&self, item: usize, state: &M::State, even_if_useless: bool) -> bool {
        if !self.free(item) {
            return false;
        }
        let Some(after) = self.model.apply(state, self.items[item].op) else {
            return false;
        };
        if after == *state {
            return even_if_useless;
        }
        let Some(left) = self.model.leaves(state, &after) else {
            return true;
        };
        let own = u32::from(
            self.sees[self.items[item].sees_from..self.items[item].sees_to].contains(&left),
        );
        !self.once[left] || self.awaited[left] <= own
    }

    /// Of equal operations keeps the first in the order of ends.
    fn drop_twins(&mut self, from: usize) {
        let mut kept = from;
        for position in from..self.choices.len() {
            let item = &self.items[self.choices[position]];
            let unique = item.makes.is_some_and(|slot| self.once[slot]) || item.after.is_some();
            let twin = |&other: &usize| {
                self.items[other].op == item.op && self.items[other].after.is_none()
            };
            if unique || !self.choices[from..kept].iter().any(twin) {
                self.choices[kept] = self.choices[position];
                kept += 1;
            }
        }
        self.choices.truncate(kept);
    }

    /// Remembers the configuration; `false` if the search has been here before.
    fn remember(&mut self, state: &M::State) -> bool {
        let base = self.next[self.must];
        // Whatever is placed was called before the first unplaced call ended.
        let window_to =
            self.items[..self.must].partition_point(|item| item.call <= self.items[base].end);
        let words = &mut self.scratch_words;
        words.clear();
        words.push(u64::try_from(base).expect("a position fits 64 bits"));
        words.extend_from_slice(&self.placed[base / 64..window_to.div_ceil(64)]);
        if self.must < self.items.len() {
            words.extend_from_slice(&self.placed[self.must / 64..]);
        }
        self.memo.insert(words, state.clone())
    }

    /// Goes back to the last configuration with a way not yet tried, and takes that way.
    fn advance(&mut self) -> Option<M::State> {
        loop {
            let frame = self.frames.last_mut()?;
            let trail_len = frame.trail_len;
            if frame.choices_next < frame.choices_to {
                let item = self.choices[frame.choices_next];
                frame.choices_next += 1;
                let after = self.model.apply(&frame.state, self.items[item].op);
                self.take_back(trail_len);
                self.place(item);
                return Some(after.expect("it was tried before it became a choice"));
            }
            self.choices.truncate(frame.choices_from);
            self.frames.pop();
        }
    }

    /// Tells which budget has ended. What is placed now is no waste, so that a long history costs no budget by its length.
    fn over_budget(&self) -> Option<String> {
        let placed = u64::try_from(self.trail.len()).unwrap_or(u64::MAX);
        if self.steps.saturating_sub(placed) > self.budget.steps {
            return Some(format!(
                "no order found and none excluded within {} steps",
                self.budget.steps
            ));
        }
        let heap = self.model.state_heap_bytes();
        let frames = self.frames.len() * (size_of::<Frame<M::State>>() + heap);
        let bytes = self.memo.bytes(heap) + frames + self.choices.len() * size_of::<usize>();
        (bytes > self.budget.memory_bytes).then(|| {
            format!(
                "no order found and none excluded within {} bytes of memory",
                self.budget.memory_bytes
            )
        })
    }

    fn is_placed(&self, item: usize) -> bool {
        self.placed[item / 64] >> (item % 64) & 1 == 1
    }

    fn place(&mut self, item: usize) {
        self.steps += 1;
        self.placed[item / 64] |= 1 << (item % 64);
        self.trail.push(item);
        if item < self.must {
            let (previous, next) = (self.previous[item], self.next[item]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
        let Item {
            sees_from,
            sees_to,
            ties,
            loose,
            ..
        } = self.items[item];
        for &slot in &self.sees[sees_from..sees_to] {
            self.awaited[slot] -= 1;
        }
        if let Some(slot) = ties {
            self.tied[slot] -= 1;
        }
        self.loose_left -= usize::from(loose);
    }

    fn take_back(&mut self, trail_len: usize) {
        while self.trail.len() > trail_len {
            let item = self.trail.pop().expect("it is longer than that");
            self.placed[item / 64] &= !(1 << (item % 64));
            if item < self.must {
                let (previous, next) = (self.previous[item], self.next[item]);
                self.next[previous] = item;
                self.previous[next] = item;
            }
            let Item {
                sees_from,
                sees_to,
                ties,
                loose,
                ..
            } = self.items[item];
            for &slot in &self.sees[sees_from..sees_to] {
                self.awaited[slot] += 1;
            }
            if let Some(slot) = ties {
                self.tied[slot] += 1;
            }
            self.loose_left += usize::from(loose);
        }
    }
}
