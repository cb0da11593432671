//! What is done to the names of a place that will be cut off: collections are made, filled, dropped and made again.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use larder_traits::StashDriver;

use super::{Names, row};
use crate::check::Stop;
use crate::cx::{Cx, brief};
use crate::engine::work::{Crew, Told, Worker};
use crate::stash::{Handle, World};

/// A worker with two names of its own. Each is filled by one operation and dropped by the one after the next.
struct Register {
    handle: Handle,
    driver: Arc<dyn StashDriver>,
    worker: u64,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holds {
    Nothing,
    /// A collection with the row of this operation, and no other.
    Row(u64),
    /// A collection without a row: it is made and filled by two calls.
    Empty,
    Other(String),
}

impl Register {
    fn names(&self) -> [String; 2] {
        [0, 1].map(|at| format!("{} {at}", self.worker))
    }

    /// What operation `n` leaves its name standing for, and which name that is.
    fn effect(n: u64) -> (usize, Holds) {
        match n % 4 {
            0 => (0, Holds::Row(n)),
            1 => (1, Holds::Row(n)),
            2 => (0, Holds::Nothing),
            _ => (1, Holds::Nothing),
        }
    }

    fn after(done: u64, which: usize) -> Holds {
        let mut before = (0..done).rev().map(Self::effect);
        let last = before.find(|(at, _)| *at == which);
        last.map_or(Holds::Nothing, |(_, holds)| holds)
    }

    /// What the name may stand for where the operations from `durable` on may have been done or not, or half.
    fn may_be(found: &Holds, told: Told, which: usize) -> bool {
        let fits = |done| Self::after(done, which) == *found;
        let is_begun = |n: u64| {
            let (at, holds) = Self::effect(n);
            at == which && matches!(holds, Holds::Row(_))
        };
        let may_be_empty = (told.durable..told.begun).any(is_begun);
        (told.durable..=told.begun).any(fits) || (may_be_empty && *found == Holds::Empty)
    }

    async fn found(&mut self) -> Result<[Holds; 2], Stop> {
        let listed = self.driver.names().await;
        let listed = listed.map_err(|e| Stop::error("driver.names()", &e))?;
        let listed: BTreeMap<String, _> = listed.into_iter().collect();
        let mut found = [Holds::Nothing, Holds::Nothing];
        for (name, found) in self.names().into_iter().zip(&mut found) {
            if !listed.contains_key(&name) {
                continue;
            }
            let c: Names = self.handle.collection(&name).await?;
            let rows = self.handle.iter(c).await?;
            *found = match rows.as_slice() {
                [] => Holds::Empty,
                [((key, value), 1, 1)] if key == "k" => match value.parse() {
                    Ok(n) => Holds::Row(n),
                    Err(_) => Holds::Other(brief(&rows)),
                },
                _ => Holds::Other(brief(&rows)),
            };
        }
        Ok(found)
    }
}

#[async_trait(?Send)]
impl Worker for Register {
    async fn perform(&mut self, n: u64) -> Result<bool, Stop> {
        let (at, holds) = Self::effect(n);
        let name = self.names()[at].clone();
        if holds == Holds::Nothing {
            let dropped = self.driver.discard(&name).await;
            dropped.map_err(|e| Stop::error("driver.discard()", &e))?;
        } else {
            let c: Names = self.handle.collection(&name).await?;
            let (data, time, diff) = row("k", &n.to_string(), 1, 1);
            self.handle.update(c, data, time, diff).await?;
        }
        Ok(true)
    }

    async fn judge(&mut self, told: Told) -> Result<u64, Stop> {
        let found = self.found().await?;
        for (which, found) in found.iter().enumerate() {
            if !Self::may_be(found, told, which) {
                let what = format!(
                    "name {which} of a worker of whose operations {} are durable and {} had begun",
                    told.durable, told.begun
                );
                let expected = brief(&Self::after(told.durable, which));
                let expected = format!("{expected}, or what operations that had begun make of it");
                return Err(Stop::fail(what, brief(found), expected));
            }
        }
        // Going on takes a state that a number names.
        let is_after = |done: &u64| {
            let names = found.iter().enumerate();
            names
                .clone()
                .all(|(at, found)| *found == Self::after(*done, at))
        };
        if let Some(done) = (told.durable..=told.begun).rev().find(is_after) {
            return Ok(done);
        }
        for name in self.names() {
            let dropped = self.driver.discard(&name).await;
            dropped.map_err(|e| Stop::error("driver.discard()", &e))?;
        }
        let open = told.begun.saturating_sub(4)..told.begun;
        for n in open {
            self.perform(n).await?;
        }
        Ok(told.begun)
    }
}

pub(super) async fn hire(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    let mut crew = Crew::new();
    for (worker, name) in (0..).zip(["a", "b"]) {
        crew.push(Box::new(Register {
            handle: cx.open_as(name, "p").await?,
            driver: cx.driver("p").await?,
            worker,
        }));
    }
    Ok(crew)
}
