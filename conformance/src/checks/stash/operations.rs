//! One language of operations for the model checks of this contract, and the judge of what a store makes of them.
//!
//! The checks weigh the operations differently and look at different answers, so that a query that is broken fails the
//! check of its own clause. Writes go through two handles in turn and are looked at through the other, or through both.

use std::fmt::Debug;
use std::mem::discriminant;

use larder_traits::{
    Antichain, Classify, Data, Diff, Outcome as Effect, StashCollection, StashError, Timestamp,
};
use proptest::prelude::*;

use crate::check::{Outcome, Stop, describe};
use crate::cx::{Cx, brief};
use crate::engine::model;
use crate::model::stash::{Collection, Stashes, Step, Update};
use crate::stash::{Failed, Handle, Key, Types, World};

use super::variant;

/// A time, or a frontier where the answer may be none.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// So far from the frontier that matters, or from 0 while that is still at the beginning.
    Near(i8),
    At(Timestamp),
    Never,
}

impl When {
    /// The frontier that is meant while the collection stands at `base`.
    fn frontier(self, base: &Antichain<Timestamp>) -> Antichain<Timestamp> {
        match self {
            Self::At(time) => Antichain::from_elem(time),
            Self::Never => Antichain::new(),
            Self::Near(by) => {
                let base = base.as_option().copied().unwrap_or(50).max(0);
                Antichain::from_elem(base.saturating_add(i64::from(by)))
            }
        }
    }

    fn time(self, base: &Antichain<Timestamp>) -> Timestamp {
        self.frontier(base).into_option().unwrap_or(Timestamp::MAX)
    }
}

/// A row by the numbers of its key and value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    key: usize,
    value: usize,
    time: When,
    diff: Diff,
}

/// One call. `to` is the number of a collection.
#[derive(Clone, Debug)]
pub(super) enum Op {
    UpdateMany {
        to: usize,
        rows: Vec<Row>,
    },
    Update {
        to: usize,
        row: Row,
    },
    Seal {
        to: usize,
        upper: When,
    },
    Compact {
        to: usize,
        since: When,
    },
    Consolidate {
        to: usize,
    },
    SealBatch(Vec<(usize, When)>),
    CompactBatch(Vec<(usize, When)>),
    ConsolidateBatch(Vec<usize>),
    /// Go on with a new handle in place of one of the two.
    Reopen,
    /// Drop both and open new ones, so many times, and only read in between.
    Close(u8),
}

/// How often each operation comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    pub(super) update: u32,
    pub(super) frontier: u32,
    pub(super) consolidate: u32,
    pub(super) batch: u32,
}

pub(super) const COLLECTIONS: [&str; 3] = ["c", "c1", "C"];
const KEYS: usize = 4;

/// What a model check looks at after each operation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looks {
    pub(super) iter: bool,
    pub(super) keys: bool,
    pub(super) frontiers: bool,
    pub(super) peeks: bool,
    /// That a consolidation changes no answer, and a second one neither.
    pub(super) consolidate: bool,
    /// All of it through both handles and in all collections, not only where something was done.
    pub(super) everywhere: bool,
}

fn near(to: std::ops::Range<i8>) -> impl Strategy<Value = When> + Clone {
    prop_oneof![
        30 => to.prop_map(When::Near),
        1 => prop::sample::select(&[Timestamp::MIN, Timestamp::MIN + 1, Timestamp::MAX][..])
            .prop_map(When::At),
    ]
}

fn frontier() -> impl Strategy<Value = When> + Clone {
    prop_oneof![40 => near(-1..4), 1 => Just(When::Never)]
}

fn row() -> impl Strategy<Value = Row> + Clone {
    let time = prop_oneof![12 => (0..6_i8).prop_map(When::Near), 1 => near(-2..1)];
    let diff = prop_oneof![
        30 => prop::sample::select(&[1, 1, 1, -1, -1, 2, 0, -3][..]),
        1 => prop::sample::select(&[Diff::MAX, Diff::MIN][..]),
    ];
    (0..KEYS, 0..3_usize, time, diff).prop_map(|(key, value, time, diff)| Row {
        key,
        value,
        time,
        diff,
    })
}

pub(super) fn lists(weights: Weights) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(weights), 1..model::CASE_LEN_MAX)
}

/// The same, closed by all and opened again between any two.
pub(super) fn lists_closed(weights: Weights) -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![7 => op(weights), 1 => (1..3_u8).prop_map(Op::Close)];
    prop::collection::vec(op, 1..model::CASE_LEN_MAX)
}

fn op(weights: Weights) -> impl Strategy<Value = Op> + Clone {
    let to = || 0..COLLECTIONS.len();
    let items = || prop::collection::vec((to(), frontier()), 0..4);
    prop_oneof![
        weights.update => (to(), prop::collection::vec(row(), 0..5))
            .prop_map(|(to, rows)| Op::UpdateMany { to, rows }),
        weights.update => (to(), row()).prop_map(|(to, row)| Op::Update { to, row }),
        weights.frontier => (to(), frontier()).prop_map(|(to, upper)| Op::Seal { to, upper }),
        weights.frontier => (to(), frontier()).prop_map(|(to, since)| Op::Compact { to, since }),
        weights.consolidate => to().prop_map(|to| Op::Consolidate { to }),
        weights.batch => items().prop_map(Op::SealBatch),
        weights.batch => items().prop_map(Op::CompactBatch),
        weights.batch => prop::collection::vec(to(), 0..4).prop_map(Op::ConsolidateBatch),
        1 => Just(Op::Reopen),
    ]
}

/// The two handles, the model, and how to spell keys and values.
struct Pair<'a, K: Key, V: Data> {
    cx: &'a Cx<dyn World>,
    handles: Vec<Handle>,
    ids: Vec<StashCollection<K, V>>,
    model: Stashes<K, V>,
    keys: &'a [K],
    values: &'a [V],
    looks: Looks,
}

/// Runs lists on collections of texts against the store and the model.
pub(super) async fn of_texts(
    cx: &Cx<dyn World>,
    lists: impl Strategy<Value = Vec<Op>>,
    looks: Looks,
) -> Outcome {
    model::run(cx, lists, |cx, list| {
        Box::pin(async move {
            let keys = ["k", "k1", "K", "", "absent"].map(str::to_owned);
            let values = ["", "v", "w"].map(str::to_owned);
            side_by_side(cx, list, looks, &keys, &values).await
        })
    })
    .await
}

/// Runs one list against the store and the model. `keys` has one more than the operations use: it stays absent.
pub(super) async fn side_by_side<K: Key, V: Data>(
    cx: &Cx<dyn World>,
    list: &[Op],
    looks: Looks,
    keys: &[K],
    values: &[V],
) -> Outcome
where
    Handle: Types<K, V>,
{
    let (mut a, b) = cx.open_two("p").await?;
    let mut model = Stashes::default();
    let mut ids = Vec::new();
    for name in COLLECTIONS {
        ids.push(a.collection(name).await?);
        model.open(name);
    }
    let mut pair = Pair {
        cx,
        handles: vec![a, b],
        ids,
        model,
        keys,
        values,
        looks,
    };
    for (number, op) in list.iter().enumerate() {
        let touched = pair.perform(number % 2, op).await?;
        let (readers, touched) = match looks.everywhere {
            true => (vec![0, 1], (0..COLLECTIONS.len()).collect()),
            false => (vec![1 - number % 2], touched),
        };
        for &c in &touched {
            for &reader in &readers {
                pair.look(reader, c).await?;
            }
        }
    }
    Ok(())
}

/// Fails unless the store's answer is the model's. Refusals have to be of the same variant, and without effect.
fn agree<T: PartialEq + Debug>(
    what: &str,
    observed: &Result<T, Failed>,
    expected: &Result<T, StashError>,
    also: fn(&StashError) -> bool,
) -> Outcome {
    let observed = observed.as_ref().map_err(|failed| &failed.error);
    let same = match (&observed, expected) {
        (Ok(observed), Ok(expected)) => *observed == expected,
        (Err(e), Err(expected)) => {
            (discriminant(*e) == discriminant(expected) || also(e))
                && e.kind() == expected.kind()
                && e.outcome() == Effect::NotApplied
        }
        (Err(e), Ok(_)) => also(e),
        (Ok(_), Err(_)) => false,
    };
    if same {
        return Ok(());
    }
    let observed = match observed {
        Ok(value) => brief(value),
        Err(e) => format!("{}: {}", variant(e), describe(e)),
    };
    let expected = match expected {
        Ok(value) => brief(value),
        Err(e) => format!("{}, NotApplied", variant(e)),
    };
    Err(Stop::fail(what, observed, expected))
}

/// No other answer than the model's.
fn nothing_else(_: &StashError) -> bool {
    false
}

impl<K: Key, V: Data> Pair<'_, K, V>
where
    Handle: Types<K, V>,
{
    fn state(&self, c: usize) -> &Collection<K, V> {
        let id = self.model.id(COLLECTIONS[c]);
        let state = id.and_then(|id| self.model.get(id).ok());
        state.expect("every collection was opened at the start")
    }

    fn entry(&self, c: usize, row: Row) -> Update<K, V> {
        let pair = (self.keys[row.key].clone(), self.values[row.value].clone());
        (pair, row.time.time(self.state(c).upper()), row.diff)
    }

    fn apply(&mut self, c: usize, step: Step<K, V>) -> Result<(), StashError> {
        let id = self.model.open(COLLECTIONS[c]);
        self.model.apply(id, step)
    }

    /// Performs one operation on both sides; the collections that it was about.
    async fn perform(&mut self, writer: usize, op: &Op) -> Result<Vec<usize>, Stop> {
        match op {
            Op::UpdateMany { to, rows } => {
                let rows: Vec<_> = rows.iter().map(|row| self.entry(*to, *row)).collect();
                let store = &mut self.handles[writer];
                let observed = store.update_many(self.ids[*to], rows.clone()).await;
                let expected = self.apply(*to, Step::Update(rows));
                agree("update_many", &observed, &expected, nothing_else)?;
                Ok(vec![*to])
            }
            Op::Update { to, row } => {
                let (pair, time, diff) = self.entry(*to, *row);
                let store = &mut self.handles[writer];
                let observed = store.update(self.ids[*to], pair.clone(), time, diff).await;
                let expected = self.apply(*to, Step::Update(vec![(pair, time, diff)]));
                agree("update", &observed, &expected, nothing_else)?;
                Ok(vec![*to])
            }
            Op::Seal { to, upper } => {
                let upper = upper.frontier(self.state(*to).upper());
                let store = &mut self.handles[writer];
                let observed = store.seal(self.ids[*to], upper.clone()).await;
                let expected = self.apply(*to, Step::Seal(upper));
                agree("seal", &observed, &expected, nothing_else)?;
                Ok(vec![*to])
            }
            Op::Compact { to, since } => {
                let since = since.frontier(self.state(*to).since());
                let store = &mut self.handles[writer];
                let observed = store.compact(self.ids[*to], since.clone()).await;
                let expected = self.apply(*to, Step::Compact(since));
                agree("compact", &observed, &expected, nothing_else)?;
                Ok(vec![*to])
            }
            Op::Consolidate { to } => {
                self.consolidate(writer, *to).await?;
                Ok(vec![*to])
            }
            Op::Reopen => {
                let name = ["a", "b"][writer];
                self.handles[writer] = self.cx.open_as(name, "p").await?;
                Ok(Vec::new())
            }
            Op::Close(times) => {
                for time in 1..=*times {
                    self.cx.log().push("all handles are dropped".into());
                    self.handles.clear();
                    for name in ["a", "b"] {
                        self.handles.push(self.cx.open_as(name, "p").await?);
                    }
                    // The last time, whoever called looks.
                    for c in (0..COLLECTIONS.len()).filter(|_| time < *times) {
                        self.look(writer, c).await?;
                    }
                }
                Ok((0..COLLECTIONS.len()).collect())
            }
            Op::SealBatch(_) | Op::CompactBatch(_) | Op::ConsolidateBatch(_) => {
                self.batch(writer, op).await
            }
        }
    }

    /// The model's state is left as it is: a consolidation is not to be seen, be it refused or not.
    async fn consolidate(&mut self, writer: usize, c: usize) -> Outcome {
        let id = self.ids[c];
        let look = self.looks.consolidate;
        let reader = 1 - writer;
        let before = match look {
            true => Some(self.answers(reader, c).await?),
            false => None,
        };
        for time in ["once", "twice"] {
            let observed = self.handles[writer].consolidate(id).await;
            // A sum that does not fit may be noticed here, or left to the readers.
            let overflow = self.overflows(c);
            match observed {
                Err(Failed {
                    error: StashError::DiffOverflow,
                    ..
                }) if overflow => {}
                observed => observed?,
            }
            if let Some(before) = &before {
                let what = format!("iter and peek after consolidating {time}");
                self.cx.eq(what, &self.answers(reader, c).await?, before)?;
            }
            if !look {
                break;
            }
        }
        Ok(())
    }

    /// The store's own answers, errors by the names of their variants.
    async fn answers(&mut self, reader: usize, c: usize) -> Result<[String; 3], Stop> {
        fn text<T: Debug>(answer: &Result<T, Failed>) -> String {
            match answer {
                Ok(value) => format!("{value:?}"),
                Err(failed) => variant(&failed.error),
            }
        }
        let store = &mut self.handles[reader];
        Ok([
            text(&store.iter(self.ids[c]).await),
            text(&store.peek(self.ids[c]).await),
            text(&store.peek_one(self.ids[c]).await),
        ])
    }

    fn overflows(&self, c: usize) -> bool {
        matches!(self.state(c).iter(), Err(StashError::DiffOverflow))
    }

    async fn batch(&mut self, writer: usize, op: &Op) -> Result<Vec<usize>, Stop> {
        let resolve = |this: &Self, items: &[(usize, When)], upper: bool| -> Vec<_> {
            let resolved = items.iter().map(|(c, when)| {
                let state = this.state(*c);
                let base = if upper { state.upper() } else { state.since() };
                (*c, when.frontier(base))
            });
            resolved.collect()
        };
        let with_ids = |this: &Self, items: &[(usize, Antichain<Timestamp>)]| -> Vec<_> {
            let items = items.iter().map(|(c, at)| (this.ids[*c], at.clone()));
            items.collect()
        };
        let (observed, steps): (_, Vec<(usize, Step<K, V>)>) = match op {
            Op::SealBatch(items) => {
                let items = resolve(self, items, true);
                let calls = with_ids(self, &items);
                let observed = self.handles[writer].seal_batch(&calls).await;
                let steps = items.into_iter().map(|(c, at)| (c, Step::Seal(at)));
                (observed, steps.collect())
            }
            Op::CompactBatch(items) => {
                let items = resolve(self, items, false);
                let calls = with_ids(self, &items);
                let observed = self.handles[writer].compact_batch(&calls).await;
                let steps = items.into_iter().map(|(c, at)| (c, Step::Compact(at)));
                (observed, steps.collect())
            }
            Op::ConsolidateBatch(items) => {
                let calls: Vec<_> = items.iter().map(|c| self.ids[*c]).collect();
                let observed = self.handles[writer].consolidate_batch(&calls).await;
                if items.iter().any(|c| self.overflows(*c)) {
                    // Whether it is refused or not, nothing is to be seen of it.
                    return Ok(items.clone());
                }
                let steps = items.iter().map(|c| (*c, Step::Consolidate));
                (observed, steps.collect())
            }
            _ => return Ok(Vec::new()),
        };
        self.settle_batch(1 - writer, observed, steps).await
    }

    /// Finds out what became of a batch, judges it, and brings the model to where the store is.
    async fn settle_batch(
        &mut self,
        reader: usize,
        observed: Result<(), Failed>,
        steps: Vec<(usize, Step<K, V>)>,
    ) -> Result<Vec<usize>, Stop> {
        let touched: Vec<usize> = steps.iter().map(|(c, _)| *c).collect();
        let mut states = vec![self.model.clone()];
        let mut refusal = None;
        for (c, step) in steps {
            match self.apply(c, step) {
                Ok(()) => states.push(self.model.clone()),
                Err(e) => {
                    refusal = Some(e);
                    break;
                }
            }
        }
        let Some(refusal) = refusal else {
            agree("a batch", &observed, &Ok(()), nothing_else)?;
            return Ok(touched);
        };
        let whole = self.cx.caps.stash.batch_atomic || states.len() == 1;
        if whole {
            self.model = states.swap_remove(0);
            agree("a batch", &observed, &Err(refusal), nothing_else)?;
            return Ok(touched);
        }
        // Not declared whole: the items before the refused one may stand, and which of them do the frontiers tell.
        let Err(failed) = observed else {
            let what = "a batch with an item that is to be refused";
            return Err(Stop::fail(what, "Ok", variant(&refusal)));
        };
        self.cx.eq(
            "the kind of a batch's error",
            &failed.kind(),
            &refusal.kind(),
        )?;
        let mut found = Vec::new();
        for c in 0..COLLECTIONS.len() {
            let store = &mut self.handles[reader];
            let since = store.since(self.ids[c]).await?;
            found.push((since, store.upper(self.ids[c]).await?));
        }
        let frontiers = |state: &Stashes<K, V>| -> Vec<_> {
            let each = COLLECTIONS.iter().filter_map(|name| {
                let collection = state.get(state.id(name)?).ok()?;
                Some((collection.since().clone(), collection.upper().clone()))
            });
            each.collect()
        };
        let allowed = match failed.outcome() {
            Effect::NotApplied => &states[..1],
            Effect::Unknown => &states[..],
        };
        match allowed.iter().find(|state| frontiers(state) == found) {
            Some(state) => {
                self.model = state.clone();
                Ok(touched)
            }
            None => Err(Stop::fail(
                "the frontiers after a batch that failed",
                brief(&found),
                format!(
                    "one of {}",
                    brief(&allowed.iter().map(frontiers).collect::<Vec<_>>())
                ),
            )),
        }
    }

    async fn look(&mut self, reader: usize, c: usize) -> Outcome {
        let id = self.ids[c];
        if self.looks.frontiers {
            let store = &mut self.handles[reader];
            let (since, upper) = (store.since(id).await?, store.upper(id).await?);
            self.cx.eq("since", &since, self.state(c).since())?;
            self.cx.eq("upper", &upper, self.state(c).upper())?;
        }
        if self.looks.iter {
            let observed = self.handles[reader].iter(id).await;
            agree("iter", &observed, &self.state(c).iter(), nothing_else)?;
        }
        if self.looks.keys {
            self.look_at_keys(reader, c).await?;
        }
        if self.looks.peeks {
            self.look_at_peeks(reader, c).await?;
        }
        Ok(())
    }

    async fn look_at_keys(&mut self, reader: usize, c: usize) -> Outcome {
        let all = self.handles[reader].iter(self.ids[c]).await;
        for key in self.keys {
            let one = self.handles[reader].iter_key(self.ids[c], key).await;
            if let (Ok(one), Ok(all)) = (&one, &all) {
                let of_key = all.iter().filter(|((of, _), ..)| of == key);
                let of_key: Vec<_> = of_key
                    .map(|((_, value), time, diff)| (value.clone(), *time, *diff))
                    .collect();
                let what = format!("iter_key({}), against iter", brief(key));
                self.cx.eq(what, one, &of_key)?;
            }
            agree("iter_key", &one, &self.state(c).iter_key(key), nothing_else)?;
        }
        Ok(())
    }

    async fn look_at_peeks(&mut self, reader: usize, c: usize) -> Outcome {
        // With `since` empty there are two reasons to refuse, with several faults in a key also; and a peek may read
        // more rows than it answers with, and stumble over the sum of one of them.
        let also: fn(&StashError) -> bool = match self.overflows(c) {
            true => |e| matches!(e, StashError::DiffOverflow),
            false => nothing_else,
        };
        let also_empty: fn(&StashError) -> bool = match self.state(c).since().is_empty() {
            true => |e| matches!(e, StashError::SinceEmpty),
            false => also,
        };
        let id = self.ids[c];
        let store = &mut self.handles[reader];
        let timestamp = store.peek_timestamp(id).await;
        let peek = store.peek(id).await;
        let one = store.peek_one(id).await;
        agree(
            "peek_timestamp",
            &timestamp,
            &self.state(c).peek_timestamp(),
            nothing_else,
        )?;
        agree("peek", &peek, &self.state(c).peek(), also_empty)?;
        let expected = self.state(c).peek_one();
        agree_on_one("peek_one", &one, &expected, also_empty)?;
        for key in self.keys {
            let observed = self.handles[reader].peek_key_one(id, key).await;
            let expected = self.state(c).peek_key_one(key);
            agree_on_one("peek_key_one", &observed, &expected, also_empty)?;
        }
        Ok(())
    }
}

/// A key may have two values and one of them twice: which of the two is found first is left open.
fn agree_on_one<T: PartialEq + Debug>(
    what: &str,
    observed: &Result<T, Failed>,
    expected: &Result<T, StashError>,
    also: fn(&StashError) -> bool,
) -> Outcome {
    let not_one = |e: &StashError| {
        matches!(
            e,
            StashError::DuplicateKey | StashError::UnexpectedMultiplicity { .. }
        )
    };
    match (observed, expected) {
        (Err(failed), Err(e)) if not_one(&failed.error) && not_one(e) => Ok(()),
        _ => agree(what, observed, expected, also),
    }
}
