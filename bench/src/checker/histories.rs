//! Histories of one key: reads, writes of unique values, and deletes, by clients that overlap.

use std::collections::HashSet;

use larder_conformance::lin::{Answer, Call, History, Op, Row};

/// Numbers that look random and are the same in every run (SplitMix64).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)) % end
    }

    fn place_in(&mut self, from: usize, to: usize) -> usize {
        let span = u64::try_from(to - from).expect("a length fits 64 bits");
        from + usize::try_from(self.below(span)).expect("it is below a length")
    }
}

/// What an operation did. Absence is the value 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write(u32),
    Read(u32),
    Delete,
}

#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) client: u32,
    pub(super) call: u64,
    pub(super) ret: u64,
    pub(super) kind: Kind,
    /// The client never learned the outcome, and goes on under a new name.
    pub(super) unknown: bool,
}

/// A history that is linearizable because it was made from an order: every operation takes effect at some moment
/// between its stamps, or a good while after them, or never, if its outcome is unknown.
pub(super) fn good(
    dice: &mut Dice,
    clients: u32,
    per_client: usize,
    unknown_percent: u64,
) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut value = 0;
    let mut used = HashSet::new();
    let mut fresh = |mut stamp: u64| {
        while !used.insert(stamp) {
            stamp += 1;
        }
        stamp
    };
    for client in 0..clients {
        let mut now = dice.below(1000);
        let mut name = client;
        for _ in 0..per_client {
            let call = fresh(now + 1 + dice.below(300));
            let ret = fresh(call + 1 + dice.below(1000));
            now = ret;
            let kind = match dice.below(100) {
                0..50 => Kind::Read(0),
                50..85 => {
                    value += 1;
                    Kind::Write(value)
                }
                _ => Kind::Delete,
            };
            let unknown = dice.below(100) < unknown_percent;
            operations.push(Operation {
                client: name,
                call,
                ret,
                kind,
                unknown,
            });
            if unknown {
                name += clients;
            }
        }
    }
    take_effect(dice, &mut operations);
    operations.sort_by_key(|it| it.call);
    operations
}

/// Gives every read the value that it meets.
fn take_effect(dice: &mut Dice, operations: &mut [Operation]) {
    let mut moments = Vec::new();
    for (place, it) in operations.iter().enumerate() {
        if it.unknown && dice.below(2) == 0 {
            continue;
        }
        let late = if it.unknown { dice.below(20_000) } else { 0 };
        let moment = it.call * 16 + dice.below((it.ret - it.call) * 16) + late;
        moments.push((moment, place));
    }
    moments.sort_unstable();
    let mut state = 0;
    for (_, place) in moments {
        match &mut operations[place].kind {
            Kind::Write(value) => state = *value,
            Kind::Delete => state = 0,
            Kind::Read(value) => *value = state,
        }
    }
}

/// A stale read: one answer, no earlier than the operation `from`, becomes a value that was written a while before.
/// That may still be explicable; whoever judges decides.
pub(super) fn corrupt(dice: &mut Dice, operations: &mut [Operation], from: usize) {
    const TRIES: usize = 10_000;
    for _ in 0..TRIES {
        let place = dice.place_in(from, operations.len());
        let earlier = place.saturating_sub(dice.place_in(5, 45));
        if let (Kind::Read(seen), false, Kind::Write(stale)) = (
            operations[place].kind,
            operations[place].unknown,
            operations[earlier].kind,
        ) && stale != seen
        {
            operations[place].kind = Kind::Read(stale);
            return;
        }
    }
}

/// The history as our checker takes it.
pub(super) fn ours(operations: &[Operation]) -> History {
    let key = || "k".to_owned();
    let text = |value: u32| format!("value-{value}");
    let calls = operations.iter().map(|it| {
        let op = match it.kind {
            Kind::Write(value) => Op::Set {
                key: key(),
                value: text(value),
                ttl: None,
            },
            Kind::Read(_) => Op::Get { key: key() },
            Kind::Delete => Op::Delete { key: key() },
        };
        if it.unknown {
            return Call::unknown(it.client, it.call, Some(it.ret), op);
        }
        let answer = match it.kind {
            Kind::Read(0) => Answer::Row(None),
            Kind::Read(value) => Answer::Row(Some(Row::inline(text(value)))),
            Kind::Write(_) | Kind::Delete => Answer::Done,
        };
        Call::answered(it.client, it.call, it.ret, op, answer)
    });
    History::new(calls.collect())
}
