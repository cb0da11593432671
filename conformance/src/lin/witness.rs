//! From "no order fits" to the few calls that show it.
//!
//! Linearizability is closed under prefixes: a history that has an order still has one when it is cut off at some moment, with
//! the calls then running left open. So there is a first return at which the history stops being explainable. That
//! call is the one that fits nowhere, and an order of everything before it is the longest one. Both are found by halving.
//!
//! The rest is made small by leaving calls out, in halves, quarters and so on down to single ones (the delta debugging of Zeller
//! and Hildebrandt), and only such calls whose absence cannot make a violation: reads, and blind writes that no read left over saw.

use super::checker::{Budget, Finding, search};
use super::entry::{Entry, OPEN, Slots, Taken};
use super::history::{Answer, Call, History, Op, Row};
use super::models::Model;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// The smallest history found that no order explains.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Witness {
    /// The key that the calls touch; `None` if the whole map was judged as one.
    pub key: Option<String>,
    /// What the key held before the first call; `None` for absent, and where the whole map was judged.
    pub initially: Option<String>,
    /// The calls, by their first stamp.
    pub calls: Vec<WitnessCall>,
    /// How many calls of the same object were left out because the rest shows the violation without them.
    pub left_out: usize,
}

/// One call of a witness.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct WitnessCall {
    /// Its line in the file, or its position in the history, counted from 1.
    pub line: usize,
    /// Who called.
    pub client: u32,
    /// Its first stamp.
    pub call: u64,
    /// Its last stamp, if the client ever got one.
    #[serde(rename = "return")]
    pub ret: Option<u64>,
    /// What was asked.
    pub op: String,
    /// What was answered; `None` if unknown.
    pub result: Option<String>,
    /// Where it stands in the explanation.
    pub place: Place,
}

/// Where a call stands in the explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Place {
    /// In the longest order that fits, at this place, counted from 1.
    Order(usize),
    /// The call that fits nowhere.
    Impossible,
    /// Still running, or of unknown outcome, and not needed for the longest order.
    Open,
}

/// A witness in terms of entries.
#[derive(Debug)]
pub(super) struct Explained {
    pub(super) kept: Vec<usize>,
    pub(super) order: Vec<usize>,
    pub(super) impossible: usize,
    pub(super) steps: u64,
}

/// Making a witness small may cost this many times what the verdict may; past that it stays as small as it is.
const EFFORT: u64 = 8;

/// Explains entries that are known to have no order.
pub(super) fn explain<M: Model>(model: &M, entries: &[Entry<M::Op>], budget: Budget) -> Explained {
    let mut work = Work {
        model,
        entries,
        budget,
        steps: 0,
        effort: 0,
    };
    let everything: Vec<usize> = (0..entries.len()).collect();
    let (impossible, _) = work.first_misfit(&everything);
    let mut kept = work.up_to(&everything, impossible);
    work.minimize(&mut kept);
    let (impossible, order) = work.first_misfit(&kept);
    let kept = work.up_to(&kept, impossible);
    Explained {
        kept,
        order,
        impossible,
        steps: work.steps,
    }
}

struct Work<'a, M: Model> {
    model: &'a M,
    entries: &'a [Entry<M::Op>],
    budget: Budget,
    steps: u64,
    effort: u64,
}

impl<M: Model> Work<'_, M> {
    /// The place of a return among all returns.
    fn rank(&self, entry: usize) -> (u64, u64, usize) {
        (self.entries[entry].end, self.entries[entry].call, entry)
    }

    fn search(&mut self, taken: &[Taken]) -> Finding {
        let searched = search(self.model, self.entries, taken, self.budget);
        self.steps += searched.steps;
        // Even a search that ends at once had to look at everything first.
        self.effort += searched.steps + u64::try_from(taken.len()).unwrap_or(u64::MAX);
        searched.finding
    }

    /// Those of the entries that were called before `last` returned, a lifetime together with the write that began it.
    fn up_to(&self, kept: &[usize], last: usize) -> Vec<usize> {
        let end = self.entries[last].end;
        let called =
            |&entry: &usize| self.entries[self.entries[entry].after.unwrap_or(entry)].call <= end;
        kept.iter().copied().filter(called).collect()
    }

    /// Looks for an order of the history cut off at the return of `last`, with everything still running then left open.
    fn cut_at(&mut self, kept: &[usize], last: usize) -> Finding {
        let mut taken = Taken::whole(self.entries, self.up_to(kept, last));
        for running in taken
            .iter_mut()
            .filter(|taken| self.rank(taken.entry) > self.rank(last))
        {
            running.end = OPEN;
        }
        self.search(&taken)
    }

    /// The first return that no order survives, and an order of all before it.
    fn first_misfit(&mut self, kept: &[usize]) -> (usize, Vec<usize>) {
        let mut returns: Vec<usize> = kept
            .iter()
            .copied()
            .filter(|&entry| self.entries[entry].end != OPEN)
            .collect();
        returns.sort_by_key(|&entry| self.rank(entry));
        let mut order = Vec::new();
        let (mut fits, mut misfit) = (0, returns.len());
        // `fits` returns have an order, `misfit` have none. A search that gave up counts as an order: then the call found is
        // a later one, and fits nowhere all the same.
        while fits + 1 < misfit {
            let middle = fits + (misfit - fits) / 2;
            match self.cut_at(kept, returns[middle - 1]) {
                Finding::Misfit => misfit = middle,
                Finding::Fits(found) => {
                    fits = middle;
                    order = found;
                }
                Finding::GaveUp(_) => fits = middle,
            }
        }
        let last = misfit
            .checked_sub(1)
            .expect("where nothing has returned the empty order fits");
        (returns[last], order)
    }

    /// The entries that may be left out: what remains then has no order only if the whole had none.
    fn droppable(&self, kept: &[usize]) -> Vec<usize> {
        let slots = Slots::of(
            self.model,
            self.entries,
            &Taken::whole(self.entries, kept.iter().copied()),
        );
        let loose = kept
            .iter()
            .any(|&entry| self.model.loose(&self.entries[entry].op));
        let lifetimes: HashSet<usize> = kept
            .iter()
            .filter_map(|&entry| self.entries[entry].after)
            .collect();
        let unread = |position: usize| {
            let op = &self.entries[position].op;
            M::UNCONDITIONAL
                && self.model.blind(op)
                && !loose
                && self.model.makes(op).is_some_and(|slot| !slots.seen(slot))
                && !lifetimes.contains(&position)
        };
        kept.iter()
            .copied()
            .filter(|&entry| self.model.pure(&self.entries[entry].op) || unread(entry))
            .collect()
    }

    fn minimize(&mut self, kept: &mut Vec<usize>) {
        let effort_max = self
            .effort
            .saturating_add(self.budget.steps.saturating_mul(EFFORT));
        loop {
            let before = kept.len();
            let mut droppable = self.droppable(kept);
            let mut chunk = droppable.len();
            while chunk > 0 {
                let mut from = 0;
                while from < droppable.len() {
                    if self.effort > effort_max {
                        return;
                    }
                    let to = (from + chunk).min(droppable.len());
                    let left_out: HashSet<usize> = droppable[from..to].iter().copied().collect();
                    let rest: Vec<usize> = kept
                        .iter()
                        .copied()
                        .filter(|entry| !left_out.contains(entry))
                        .collect();
                    if self.search(&Taken::whole(self.entries, rest.iter().copied()))
                        == Finding::Misfit
                    {
                        *kept = rest;
                        droppable.drain(from..to);
                    } else {
                        from = to;
                    }
                }
                chunk /= 2;
            }
            if kept.len() == before {
                return;
            }
        }
    }
}

impl Witness {
    pub(super) fn of<O>(
        history: &History,
        key: Option<String>,
        entries: &[Entry<O>],
        explained: &Explained,
    ) -> Self {
        let mut places: BTreeMap<usize, Place> = BTreeMap::new();
        for &kept in &explained.kept {
            places.insert(entries[kept].source, Place::Open);
        }
        // The end of a lifetime has a place in the order as well, but it is no call.
        let mut position = 0;
        for entry in explained
            .order
            .iter()
            .map(|&entry| &entries[entry])
            .filter(|entry| entry.after.is_none())
        {
            let place = places.entry(entry.source).or_insert(Place::Open);
            if *place == Place::Open {
                position += 1;
                *place = Place::Order(position);
            }
        }
        places.insert(entries[explained.impossible].source, Place::Impossible);
        let all: HashSet<usize> = entries.iter().map(|entry| entry.source).collect();
        let mut calls: Vec<WitnessCall> = places
            .iter()
            .map(|(&source, &place)| WitnessCall::of(history, source, key.as_deref(), place))
            .collect();
        calls.sort_by_key(|call| (call.call, call.ret, call.line));
        let initially = key
            .as_deref()
            .and_then(|key| history.initial.get(key))
            .map(ToString::to_string);
        Self {
            key,
            initially,
            left_out: all.len() - calls.len(),
            calls,
        }
    }

    /// The call that fits nowhere.
    #[must_use]
    pub fn impossible(&self) -> Option<&WitnessCall> {
        self.calls
            .iter()
            .find(|call| call.place == Place::Impossible)
    }

    /// The longest order that fits, first call first.
    #[must_use]
    pub fn order(&self) -> Vec<&WitnessCall> {
        let mut order: Vec<_> = self
            .calls
            .iter()
            .filter(|call| matches!(call.place, Place::Order(_)))
            .collect();
        order.sort_by_key(|call| call.place);
        order
    }
}

impl WitnessCall {
    fn of(history: &History, source: usize, key: Option<&str>, place: Place) -> Self {
        let Call {
            client,
            call,
            ret,
            op,
            result,
        } = &history.calls[source];
        let result = result.as_ref().map(|answer| match (op, answer, key) {
            // Of a call on many keys only this key's part matters here.
            (_, Answer::Keys(named), Some(key)) if named.iter().any(|name| name == key) => {
                "named".to_owned()
            }
            (_, Answer::Keys(_), Some(_)) => "not named".to_owned(),
            (Op::GetMulti { keys }, Answer::Values(values), Some(key)) => {
                let of_key = keys.iter().zip(values).filter(|(asked, _)| *asked == key);
                let told: Vec<String> = of_key
                    .map(|(_, value)| Answer::Row(value.clone().map(Row::Inline)).to_string())
                    .collect();
                told.join(", ")
            }
            _ => answer.to_string(),
        });
        let op = match key {
            None => op.with_key(),
            Some(_) => op.to_string(),
        };
        Self {
            line: history.line_of(source),
            client: *client,
            call: *call,
            ret: *ret,
            op,
            result,
            place,
        }
    }
}
