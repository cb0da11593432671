//! ST-1.6: collections that are made, dropped and made again, by several handles and over the ends of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use larder_traits::stash::{StashDriver, StashDriverExt};
use larder_traits::{CollectionId, StashError, Timestamp};
use proptest::prelude::*;

use super::{Names, at, refuses, row};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::engine::model::{self, CASE_LEN_MAX};
use crate::stash::{Handle, World};

const NAMES: [&str; 3] = ["c", "c1", "d"];

/// How many of the collections that were dropped last are looked for.
const GONE_MAX: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    Make {
        by: usize,
        name: usize,
    },
    Drop {
        by: usize,
        name: usize,
    },
    /// All handles are dropped, and new ones opened, so many times.
    Close(u8),
}

fn operations() -> impl Strategy<Value = Vec<Op>> {
    let names = || 0..NAMES.len();
    let op = prop_oneof![
        4 => (0..2_usize, names()).prop_map(|(by, name)| Op::Make { by, name }),
        3 => (0..2_usize, names()).prop_map(|(by, name)| Op::Drop { by, name }),
        1 => (1..3_u8).prop_map(Op::Close),
    ];
    prop::collection::vec(op, 1..CASE_LEN_MAX)
}

pub(super) async fn st_1_6(cx: &Cx<dyn World>) -> Outcome {
    drop(cx.driver("p").await?);
    model::run(cx, operations(), |cx, list| Box::pin(case(cx, list))).await
}

struct Place {
    handles: Vec<Handle>,
    drivers: Vec<Arc<dyn StashDriver>>,
    /// The collections that there are, each with the number that its one row has.
    live: BTreeMap<&'static str, (Names, usize)>,
    given: BTreeSet<CollectionId>,
    gone: Vec<Names>,
}

impl Place {
    async fn open(&mut self, cx: &Cx<dyn World>) -> Outcome {
        self.handles.clear();
        self.drivers.clear();
        for name in ["a", "b"] {
            self.handles.push(cx.open_as(name, "p").await?);
            self.drivers.push(cx.driver("p").await?);
        }
        Ok(())
    }

    /// Makes what is not there, and finds what is.
    async fn make(&mut self, cx: &Cx<dyn World>, by: usize, name: usize, number: usize) -> Outcome {
        let name = NAMES[name];
        let c: Names = self.handles[by].collection(name).await?;
        if let Some((known, _)) = self.live.get(name) {
            return cx.eq(
                format!("the id of {name:?}, asked again"),
                &c.id(),
                &known.id(),
            );
        }
        cx.require(
            self.given.insert(c.id()),
            format!("the id of {name:?}, which is new"),
            format!("{} again", c.id()),
            "an id that was never given",
        )?;
        let other = &mut self.handles[1 - by];
        let what = format!("of {name:?}, which is new");
        cx.eq(
            format!("the rows {what}"),
            &other.iter(c).await?,
            &Vec::new(),
        )?;
        let first = at(Timestamp::MIN);
        cx.eq(format!("upper {what}"), &other.upper(c).await?, &first)?;
        let (key, value) = (name.to_owned(), number.to_string());
        other.update(c, (key, value), 1, 1).await?;
        self.handles[by].seal(c, at(2)).await?;
        self.live.insert(name, (c, number));
        Ok(())
    }

    async fn discard(&mut self, cx: &Cx<dyn World>, by: usize, name: usize) -> Outcome {
        let name = NAMES[name];
        let dropped = self.drivers[by].drop_collection(name).await;
        cx.log().push(format!("driver {by} dropped {name:?}"));
        let dropped = dropped.map_err(|e| Stop::error("a drop", &e))?;
        let known = self.live.remove(name);
        cx.eq(format!("dropping {name:?}"), &dropped, &known.is_some())?;
        self.gone.extend(known.map(|(c, _)| c));
        Ok(())
    }

    /// All handles find what is there, by its name and by its id, and nothing of what was dropped.
    async fn look(&mut self, cx: &Cx<dyn World>, step: usize) -> Outcome {
        let list = self.drivers[step % 2].collections().await;
        let mut list = list.map_err(|e| Stop::error("the list of names", &e))?;
        list.sort();
        let live = self.live.iter();
        let names: Vec<_> = live
            .map(|(name, (c, _))| ((*name).to_owned(), c.id()))
            .collect();
        cx.eq("the list of names", &list, &names)?;
        for (at, handle) in self.handles.iter_mut().enumerate() {
            for (name, (c, number)) in &self.live {
                // Not each time by its name: a handle may have to find out later that it is another one.
                if !(step + at).is_multiple_of(3) {
                    let found: Names = handle.collection(name).await?;
                    cx.eq(format!("the id of {name:?}"), &found.id(), &c.id())?;
                }
                let rows = vec![row(name, &number.to_string(), 1, 1)];
                cx.eq(
                    format!("the rows of {name:?}"),
                    &handle.iter(*c).await?,
                    &rows,
                )?;
            }
            for old in self.gone.iter().rev().take(GONE_MAX) {
                let what = "a call on a dropped collection";
                refuses!(
                    what,
                    handle.iter(*old).await,
                    StashError::NoCollection { .. }
                )?;
            }
        }
        Ok(())
    }
}

async fn case(cx: &Cx<dyn World>, list: &[Op]) -> Outcome {
    let mut place = Place {
        handles: Vec::new(),
        drivers: Vec::new(),
        live: BTreeMap::new(),
        given: BTreeSet::new(),
        gone: Vec::new(),
    };
    place.open(cx).await?;
    for (step, op) in list.iter().enumerate() {
        match *op {
            Op::Make { by, name } => place.make(cx, by, name, step).await?,
            Op::Drop { by, name } => place.discard(cx, by, name).await?,
            Op::Close(times) => {
                cx.log()
                    .push(format!("all handles are dropped, {times} times"));
                for _ in 0..times {
                    place.open(cx).await?;
                }
            }
        }
        // Several steps may go by before anybody looks: what is new is asked for by its maker alone.
        if step % 4 > 0 || step + 1 == list.len() {
            place.look(cx, step).await?;
        }
    }
    Ok(())
}
