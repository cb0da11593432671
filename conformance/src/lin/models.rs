//! What the objects under test are, said as state machines that the search can drive.
//!
//! A model answers one question, [`Model::apply`]: may this operation, with the answer its client got, take effect in this
//! state, and which state follows. Everything else it says is there to spare the search work, and each of those methods states
//! what must be true for the search to stay exact.
//!
//! Values are numbers by the time a model sees them. A *slot* is something a state can show and an operation can see or bring
//! about: one value of one key, or its absence.

use std::hash::Hash;

/// A sequential object.
pub(super) trait Model {
    /// One state of the object.
    type State: Clone + Eq + Hash;
    /// One operation together with its answer.
    type Op: Eq;

    /// Every operation that can change the state either is [blind](Self::blind) or does nothing but remove the slot that it
    /// [ties](Self::ties). Then an unread blind write can be taken out of any valid order without spoiling it.
    const UNCONDITIONAL: bool;

    /// As above, and a state shows one slot only. Then a write and all reads of its value can be taken as one step.
    const CLUSTERS: bool;

    /// How many slots there are.
    fn slots(&self) -> usize;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The slots that a state shows.
    fn shows(&self, state: &Self::State, slots: &mut Vec<usize>);

    /// The state after the operation, or `None` if it cannot take effect here with the answer it gave.
    fn apply(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// Whether the operation changes no state in which it fits.
    fn pure(&self, op: &Self::Op) -> bool;

    /// Whether the operation fits every state and leaves the same slot behind whatever was there.
    fn blind(&self, op: &Self::Op) -> bool;

    /// The slots that must be shown for the operation to fit.
    fn sees(&self, op: &Self::Op, slots: &mut Vec<usize>);

    /// Whether the operation changes nothing and fits states that [`sees`](Self::sees) does not tell apart.
    fn loose(&self, op: &Self::Op) -> bool;

    /// The slot that the operation leaves behind if it changes anything.
    fn makes(&self, op: &Self::Op) -> Option<usize>;

    /// The slot that this operation removes if it is there, for the one kind of operation that does nothing otherwise.
    fn ties(&self, op: &Self::Op) -> Option<usize>;

    /// The slot that is shown before and no longer after.
    fn leaves(&self, before: &Self::State, after: &Self::State) -> Option<usize>;

    /// What one state costs beside its own size.
    fn state_heap_bytes(&self) -> usize {
        0
    }
}

/// The slot, and the state, of a cell or row that holds nothing.
pub(super) const ABSENT: u32 = 0;

fn slot(id: u32) -> usize {
    usize::try_from(id).expect("the platforms supported have at least 32 bit")
}

/// One key of a register with delete, or of a key-value store with lifetimes. Its state is the number of the value.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) initial: u32,
    pub(super) slots: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CellOp {
    /// Set, or delete where the value is [`ABSENT`].
    Write(u32),
    /// A get that was told this value.
    Read(u32),
    /// A list that named the key.
    Exists,
    /// The end of a value's lifetime: a delete on the condition that the value is still there.
    Expire(u32),
}

impl Model for Cell {
    type State = u32;
    type Op = CellOp;

    const UNCONDITIONAL: bool = true;
    const CLUSTERS: bool = true;

    fn slots(&self) -> usize {
        self.slots
    }

    fn initial(&self) -> u32 {
        self.initial
    }

    fn shows(&self, state: &u32, slots: &mut Vec<usize>) {
        slots.push(slot(*state));
    }

    fn apply(&self, state: &u32, op: &CellOp) -> Option<u32> {
        match *op {
            CellOp::Write(value) => Some(value),
            CellOp::Read(value) => (value == *state).then_some(*state),
            CellOp::Exists => (*state != ABSENT).then_some(*state),
            CellOp::Expire(value) if value == *state => Some(ABSENT),
            CellOp::Expire(_) => Some(*state),
        }
    }

    fn pure(&self, op: &CellOp) -> bool {
        matches!(op, CellOp::Read(_) | CellOp::Exists)
    }

    fn blind(&self, op: &CellOp) -> bool {
        matches!(op, CellOp::Write(_))
    }

    fn sees(&self, op: &CellOp, slots: &mut Vec<usize>) {
        if let CellOp::Read(value) = op {
            slots.push(slot(*value));
        }
    }

    fn loose(&self, op: &CellOp) -> bool {
        matches!(op, CellOp::Exists)
    }

    fn makes(&self, op: &CellOp) -> Option<usize> {
        match op {
            CellOp::Write(value) => Some(slot(*value)),
            CellOp::Expire(_) => Some(slot(ABSENT)),
            CellOp::Read(_) | CellOp::Exists => None,
        }
    }

    fn ties(&self, op: &CellOp) -> Option<usize> {
        match op {
            CellOp::Expire(value) => Some(slot(*value)),
            _ => None,
        }
    }

    fn leaves(&self, before: &u32, after: &u32) -> Option<usize> {
        (before != after).then(|| slot(*before))
    }
}

/// One row of a high-volume store: absent, inline data, or a redirect.
#[derive(Debug)]
pub(super) struct Cas {
    pub(super) initial: u32,
    pub(super) slots: usize,
}

/// Rows are numbers too: [`ABSENT`], odd for inline data, even for a redirect.
pub(super) const fn is_redirect(row: u32) -> bool {
    row != ABSENT && row.is_multiple_of(2)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CasOp {
    /// An unconditional put or delete (HV-10).
    Write(u32),
    /// A read of the row as it is.
    Read(u32),
    /// `put_non_tombstone`, or `delete_non_tombstone` where the row is [`ABSENT`]. The answer is the redirect in the way or
    /// [`ABSENT`] for none, and `None` where it is unknown.
    Unless { write: u32, blocked: Option<u32> },
    /// `compare_and_write`. `only` tells that nothing else in the history makes what this one writes.
    Swap {
        current: u32,
        write: u32,
        swapped: Option<bool>,
        only: bool,
    },
}

impl Cas {
    /// The truth table of HV-5: the answer, and the row afterwards.
    const fn swap(row: u32, current: u32, write: u32) -> (bool, u32) {
        let here = is_redirect(row);
        if current == ABSENT {
            return match (here, is_redirect(write)) {
                (false, _) => (true, write),
                (true, true) => (row == write, row),
                (true, false) => (false, row),
            };
        }
        if here {
            return if row == current {
                (true, write)
            } else {
                (is_redirect(write) && row == write, row)
            };
        }
        // The redirect that the caller expected is gone. Data in its place means that somebody overwrote it, and a writer of
        // data or of a delete has only lost the race; absence says that for a delete alone.
        let lost_the_race = match (row == ABSENT, is_redirect(write)) {
            (_, true) => false,
            (true, false) => write == ABSENT,
            (false, false) => true,
        };
        (lost_the_race, row)
    }
}

impl Model for Cas {
    type State = u32;
    type Op = CasOp;

    const UNCONDITIONAL: bool = false;
    const CLUSTERS: bool = false;

    fn slots(&self) -> usize {
        self.slots
    }

    fn initial(&self) -> u32 {
        self.initial
    }

    fn shows(&self, state: &u32, slots: &mut Vec<usize>) {
        slots.push(slot(*state));
    }

    fn apply(&self, state: &u32, op: &CasOp) -> Option<u32> {
        match *op {
            CasOp::Write(row) => Some(row),
            CasOp::Read(row) => (row == *state).then_some(*state),
            CasOp::Unless { write, blocked } => {
                let (in_the_way, after) = if is_redirect(*state) {
                    (*state, *state)
                } else {
                    (ABSENT, write)
                };
                blocked
                    .is_none_or(|told| told == in_the_way)
                    .then_some(after)
            }
            CasOp::Swap {
                current,
                write,
                swapped,
                ..
            } => {
                let (answer, after) = Self::swap(*state, current, write);
                swapped.is_none_or(|told| told == answer).then_some(after)
            }
        }
    }

    fn pure(&self, op: &CasOp) -> bool {
        match op {
            CasOp::Write(_) => false,
            CasOp::Read(_)
            | CasOp::Swap {
                swapped: Some(false),
                ..
            } => true,
            CasOp::Unless { blocked, .. } => blocked.is_some_and(|redirect| redirect != ABSENT),
            CasOp::Swap { .. } => false,
        }
    }

    fn blind(&self, op: &CasOp) -> bool {
        matches!(op, CasOp::Write(_))
    }

    fn sees(&self, op: &CasOp, slots: &mut Vec<usize>) {
        match *op {
            CasOp::Read(row) => slots.push(slot(row)),
            CasOp::Unless {
                blocked: Some(redirect),
                ..
            } if redirect != ABSENT => slots.push(slot(redirect)),
            // A swap between redirects also succeeds on its own target; only where nobody else can have put that there, its
            // success proves that it found what it expected.
            CasOp::Swap {
                current,
                write,
                swapped: Some(true),
                only: true,
            } if is_redirect(current) && is_redirect(write) && current != write => {
                slots.push(slot(current));
            }
            _ => {}
        }
    }

    fn loose(&self, op: &CasOp) -> bool {
        matches!(
            op,
            CasOp::Swap {
                swapped: Some(false),
                ..
            }
        )
    }

    fn makes(&self, op: &CasOp) -> Option<usize> {
        match *op {
            _ if self.pure(op) => None,
            CasOp::Write(row)
            | CasOp::Unless { write: row, .. }
            | CasOp::Swap { write: row, .. } => Some(slot(row)),
            CasOp::Read(_) => None,
        }
    }

    fn ties(&self, _op: &CasOp) -> Option<usize> {
        None
    }

    fn leaves(&self, before: &u32, after: &u32) -> Option<usize> {
        (before != after).then(|| slot(*before))
    }
}

/// All keys at once, for stores that declare their list and multi-get a snapshot. The state holds each key's slot.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) initial: Vec<u32>,
    pub(super) slots: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WholeOp {
    /// Key by its place in the state, and the slot that it holds from then on.
    Write { key: usize, slot: u32 },
    /// Some keys and the slots that they held.
    Read(Vec<(usize, u32)>),
    /// Every key, and whether it was there.
    List(Vec<bool>),
}

impl Whole {
    /// The slots below the number of keys stand for the absence of the key with that place.
    fn absent(&self, key: usize, slot_shown: u32) -> bool {
        slot(slot_shown) == key
    }
}

impl Model for Whole {
    type State = Box<[u32]>;
    type Op = WholeOp;

    const UNCONDITIONAL: bool = true;
    const CLUSTERS: bool = false;

    fn slots(&self) -> usize {
        self.slots
    }

    fn initial(&self) -> Self::State {
        self.initial.clone().into_boxed_slice()
    }

    fn shows(&self, state: &Self::State, slots: &mut Vec<usize>) {
        slots.extend(state.iter().map(|shown| slot(*shown)));
    }

    fn apply(&self, state: &Self::State, op: &WholeOp) -> Option<Self::State> {
        match op {
            WholeOp::Write { key, slot } => {
                let mut after = state.clone();
                after[*key] = *slot;
                Some(after)
            }
            WholeOp::Read(seen) => seen
                .iter()
                .all(|(key, slot)| state[*key] == *slot)
                .then(|| state.clone()),
            WholeOp::List(present) => {
                let mut keys = state.iter().zip(present).enumerate();
                keys.all(|(key, (slot, there))| self.absent(key, *slot) != *there)
                    .then(|| state.clone())
            }
        }
    }

    fn pure(&self, op: &WholeOp) -> bool {
        !self.blind(op)
    }

    fn blind(&self, op: &WholeOp) -> bool {
        matches!(op, WholeOp::Write { .. })
    }

    fn sees(&self, op: &WholeOp, slots: &mut Vec<usize>) {
        match op {
            WholeOp::Write { .. } => {}
            WholeOp::Read(seen) => slots.extend(seen.iter().map(|(_, shown)| slot(*shown))),
            WholeOp::List(present) => {
                slots.extend(
                    present
                        .iter()
                        .enumerate()
                        .filter_map(|(key, there)| (!there).then_some(key)),
                );
            }
        }
    }

    fn loose(&self, op: &WholeOp) -> bool {
        matches!(op, WholeOp::List(_))
    }

    fn makes(&self, op: &WholeOp) -> Option<usize> {
        match op {
            WholeOp::Write { slot: made, .. } => Some(slot(*made)),
            WholeOp::Read(_) | WholeOp::List(_) => None,
        }
    }

    fn ties(&self, _op: &WholeOp) -> Option<usize> {
        None
    }

    fn leaves(&self, before: &Self::State, after: &Self::State) -> Option<usize> {
        before
            .iter()
            .zip(after)
            .find_map(|(old, new)| (old != new).then(|| slot(*old)))
    }

    fn state_heap_bytes(&self) -> usize {
        self.initial.len() * size_of::<u32>()
    }
}
