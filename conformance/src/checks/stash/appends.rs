//! ST-12.4 and ST-12.8: appends of every make, and those of which one collection is gone.

use std::sync::Arc;

use larder_traits::stash::{Append, StashDriver, StashDriverExt};
use larder_traits::{Classify, Outcome as Effect, StashError};

use super::{DriverError, Names, append, at, both_read, refuses, row, variant};
use crate::check::{Outcome, Stop, describe};
use crate::cx::Cx;
use crate::model::stash::{Collection, Update};
use crate::stash::{Handle, World};

type State = Collection<String, String>;

/// The rows of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    None,
    One,
    Twice,
    CancelOut,
    Zero,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Nothing,
    Upper,
    Another,
}

/// What comes behind the first item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    /// The same rows in another collection.
    Other(Expect),
    /// The same rows in the same collection.
    Same,
}

/// An item of an append: rows at `late` or after upper, and what is to be moved by so much.
#[derive(Clone, Copy, Debug)]
struct Item {
    rows: Rows,
    is_late: bool,
    expect: Expect,
    seals: bool,
    compacts: bool,
}

impl Item {
    fn all() -> impl Iterator<Item = Self> {
        const RISES: [bool; 2] = [false, true];
        let rows = [
            Rows::None,
            Rows::One,
            Rows::Twice,
            Rows::CancelOut,
            Rows::Zero,
        ];
        let expects = [Expect::Nothing, Expect::Upper, Expect::Another];
        let late = rows
            .into_iter()
            .flat_map(|rows| RISES.map(|late| (rows, late)));
        let late = late.filter(|(rows, late)| *rows != Rows::None || !late);
        late.flat_map(move |(rows, is_late)| {
            expects.into_iter().flat_map(move |expect| {
                [(false, false), (true, false), (false, true), (true, true)].map(
                    |(seals, compacts)| Self {
                        rows,
                        is_late,
                        expect,
                        seals,
                        compacts,
                    },
                )
            })
        })
    }

    /// Adds the item to the append and does the same to the model, if that is not refused.
    fn add(
        self,
        (it, c): (&mut Append, Names),
        state: &mut State,
        (upper, value): (i64, &str),
    ) -> Result<Result<(), StashError>, Stop> {
        // All collections have the same upper before each append; a second item stands behind the first one's seal.
        let time = if self.is_late { upper - 1 } else { upper + 2 };
        let one = |diff| row("k", value, time, diff);
        let rows: Vec<Update<String, String>> = match self.rows {
            Rows::None => Vec::new(),
            Rows::One => vec![one(1)],
            Rows::Twice => vec![one(1), one(2)],
            Rows::CancelOut => vec![one(1), one(-1)],
            Rows::Zero => vec![one(0)],
        };
        let expected = match self.expect {
            Expect::Nothing => None,
            Expect::Upper => Some(state.upper().clone()),
            Expect::Another => Some(at(upper - 1)),
        };
        let (seal, since) = (at(upper + 1), at(upper));
        let mut item = it.collection(c);
        if let Some(expected) = &expected {
            item.expect_upper(expected.clone());
        }
        let added = item.update(rows.clone());
        added.map_err(|e| Stop::error("encoding rows for an append", &e))?;
        if self.seals {
            item.seal(seal.clone());
        }
        if self.compacts {
            item.compact(since.clone());
        }
        let apply = || {
            if let Some(expected) = &expected {
                state.expect_upper(expected)?;
            }
            state.update_many(rows)?;
            if self.seals {
                state.seal(seal)?;
            }
            if self.compacts {
                state.compact(since)?;
            }
            Ok(())
        };
        Ok(apply())
    }
}

pub(super) async fn st_12_4(cx: &Cx<dyn World>) -> Outcome {
    const START: i64 = 5;
    let driver = cx.driver("p").await?;
    let (mut a, mut b) = cx.open_two("p").await?;
    let ids: [Names; 2] = [a.collection("c").await?, b.collection("d").await?];
    let mut states = [State::default(), State::default()];
    let mut upper = START;
    let seal = ids.map(|c| (c, at(START)));
    a.seal_batch(&seal).await?;
    for state in &mut states {
        let sealed = state.seal(at(START));
        sealed.map_err(|e| Stop::Inconclusive(format!("the model refused a seal: {e}")))?;
    }
    let thens = [
        Then::Nothing,
        Then::Other(Expect::Nothing),
        Then::Other(Expect::Another),
        Then::Same,
    ];
    let mut is_picked = cx.sample();
    let all = Item::all().flat_map(|first| thens.map(|then| (first, then)));
    for (n, (first, then)) in all.filter(|_| is_picked()).enumerate() {
        // The first of the two is now the one and now the other.
        let (one, other) = if n % 2 == 0 { (0, 1) } else { (1, 0) };
        let value = format!("{}", n % 7);
        let mut it = Append::new();
        let mut next = states.clone();
        let mut result = first.add((&mut it, ids[one]), &mut next[one], (upper, &value))?;
        let refused_first = result.is_err()
            && (first.expect == Expect::Another
                || first.expect == Expect::Nothing && first.is_late);
        let second = match then {
            Then::Nothing => None,
            Then::Other(expect) => Some((other, Item { expect, ..first })),
            Then::Same => Some((
                one,
                Item {
                    expect: Expect::Nothing,
                    ..first
                },
            )),
        };
        if let Some((at, item)) = second {
            let added = item.add((&mut it, ids[at]), &mut next[at], (upper, &value))?;
            result = result.and(added);
        }
        if result.is_err() && !refused_first && !cx.caps.stash.batch_atomic {
            // A part of it might have been applied.
            continue;
        }
        let what = format!("an append: {first:?}, then {then:?}");
        match (append(cx, &driver, it).await, &result) {
            (Ok(()), Ok(())) => states = next,
            (Err(e), Err(expected))
                if variant(&e.0) == variant(expected) && e.0.outcome() == Effect::NotApplied => {}
            (observed, _) => {
                let shown = |e: &StashError| format!("{}: {}", variant(e), describe(e));
                let observed = observed.map_or_else(|e| shown(&e.0), |()| "Ok".into());
                let expected = result.as_ref().map_or_else(variant, |()| "Ok".into());
                return Err(Stop::fail(what, observed, expected));
            }
        }
        for (c, state) in ids.into_iter().zip(&states) {
            let rows = state.iter();
            let rows = rows.map_err(|e| Stop::Inconclusive(format!("the model: {e}")))?;
            both_read(
                cx,
                &format!("rows after {what}"),
                [&mut a, &mut b],
                c,
                &rows,
            )
            .await?;
            cx.eq(
                format!("upper after {what}"),
                &b.upper(c).await?,
                state.upper(),
            )?;
            cx.eq(
                format!("since after {what}"),
                &a.since(c).await?,
                state.since(),
            )?;
        }
        if result.is_ok() {
            // All at one frontier again, and old rows at one time.
            upper += 3;
            for (c, state) in ids.into_iter().zip(&mut states) {
                let (seal, since) = (at(upper), at(upper - 1));
                b.seal(c, seal.clone()).await?;
                b.compact(c, since.clone()).await?;
                let moved = state.seal(seal).and_then(|()| state.compact(since));
                moved.map_err(|e| Stop::Inconclusive(format!("the model: {e}")))?;
            }
        }
        std::mem::swap(&mut a, &mut b);
    }
    Ok(())
}

/// What is asked of each of some collections, in one call.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Rows,
    Seals,
    Compactions,
    Everything,
    SealBatch,
    CompactBatch,
    ConsolidateBatch,
}

impl Asked {
    const ALL: [Self; 7] = [
        Self::Rows,
        Self::Seals,
        Self::Compactions,
        Self::Everything,
        Self::SealBatch,
        Self::CompactBatch,
        Self::ConsolidateBatch,
    ];

    async fn call(
        self,
        cx: &Cx<dyn World>,
        driver: &Arc<dyn StashDriver>,
        handle: &mut Handle,
        all: [Names; 3],
    ) -> Result<(), DriverError> {
        let batch = match self {
            Self::SealBatch => handle.seal_batch(&all.map(|c| (c, at(15)))).await,
            Self::CompactBatch => handle.compact_batch(&all.map(|c| (c, at(5)))).await,
            Self::ConsolidateBatch => handle.consolidate_batch(&all).await,
            _ => {
                let mut it = Append::new();
                for c in all {
                    let mut item = it.collection(c);
                    if matches!(self, Self::Rows | Self::Everything) {
                        let added = item.update(vec![row("new", "v", 12, 1)]);
                        added.map_err(DriverError)?;
                    }
                    if matches!(self, Self::Seals | Self::Everything) {
                        item.seal(at(15));
                    }
                    if matches!(self, Self::Compactions | Self::Everything) {
                        item.compact(at(5));
                    }
                }
                return append(cx, driver, it).await;
            }
        };
        batch.map_err(|failed| DriverError(failed.error))
    }
}

/// ST-12.8: now the first of several collections is gone, now one between, now the last.
pub(super) async fn st_12_8(cx: &Cx<dyn World>) -> Outcome {
    let driver = cx.driver("p").await?;
    let (mut a, mut b) = cx.open_two("p").await?;
    let kept = vec![row("k", "v", 3, 1), row("k", "v", 11, 1)];
    let mut is_picked = cx.sample();
    for asked in Asked::ALL {
        for gone in (0..3).filter(|_| is_picked()) {
            let mut all = Vec::<Names>::new();
            let mut it = Append::new();
            for n in 0..3 {
                let c = a.collection(&format!("{asked:?} {gone} {n}")).await?;
                let mut item = it.collection(c);
                let added = item.update(kept.clone());
                added.map_err(|e| Stop::error("encoding rows for an append", &e))?;
                item.seal(at(10)).compact(at(2));
                all.push(c);
            }
            append(cx, &driver, it).await?;
            let dropped = driver
                .drop_collection(&format!("{asked:?} {gone} {gone}"))
                .await;
            let dropped = dropped.map_err(|e| Stop::error("drop_collection", &e))?;
            cx.eq("dropping one of three", &dropped, &true)?;
            let what = format!("{asked:?} of three in one call, of which number {gone} is gone");
            let result = asked
                .call(cx, &driver, &mut a, [all[0], all[1], all[2]])
                .await;
            // Those before it may have been applied where a batch need not be whole.
            let is_whole = cx.caps.stash.batch_atomic || gone == 0;
            if is_whole {
                refuses!(&*what, result, StashError::NoCollection { .. })?;
            } else {
                cx.require(result.is_err(), &*what, "Ok", "an error")?;
            }
            for (n, c) in all.into_iter().enumerate() {
                if n == gone || n < gone && !is_whole {
                    continue;
                }
                let what = format!("number {n} after {what}");
                both_read(cx, &what, [&mut b, &mut a], c, &kept).await?;
                cx.eq(format!("upper of {what}"), &b.upper(c).await?, &at(10))?;
                cx.eq(format!("since of {what}"), &a.since(c).await?, &at(2))?;
            }
            std::mem::swap(&mut a, &mut b);
        }
    }
    Ok(())
}
