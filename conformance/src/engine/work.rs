//! Work that goes on until it is cut off, and what must be there afterwards.
//!
//! A worker performs operations that follow from the seed, its number and theirs, on keys of its own. So whoever knows
//! how many were acknowledged, and how many had begun, knows what may be found, without asking the one who was cut off.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures_util::future::LocalBoxFuture;

use crate::check::{Outcome, Stop};
use crate::cx::Cx;

/// How far a worker had come when it was cut off. Operations are counted from the first in the life of the place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// So many are durable by what the store declares.
    pub(crate) durable: u64,
    /// So many had begun; any of them that are not durable may be there or not.
    pub(crate) begun: u64,
}

impl Told {
    /// `done` operations are durable, and nothing else was begun.
    pub(crate) fn all(done: u64) -> Self {
        Self {
            durable: done,
            begun: done,
        }
    }
}

/// One of those who work on a place at once.
#[async_trait(?Send)]
pub(crate) trait Worker: Send {
    /// Performs operation `n`. Whether it, and all before it, are durable now by what the store declares.
    async fn perform(&mut self, n: u64) -> Result<bool, Stop>;

    /// Fails unless what is there is what may be there. The answer is how many operations count as done from now on,
    /// durably, to go on from there; what was begun may have been finished for that.
    async fn judge(&mut self, told: Told) -> Result<u64, Stop>;
}

/// Those who work on a place at once, each with the same handle or with handles of their own.
pub(crate) type Crew = Vec<Box<dyn Worker>>;

/// Opens the place and makes the crew.
pub(crate) type Hire<W> = for<'a> fn(&'a Cx<W>) -> LocalBoxFuture<'a, Result<Crew, Stop>>;

/// What a key was found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Absent,
    /// The whole value of this tag.
    Value(u64),
    /// Nothing that was ever written; in words.
    Torn(String),
}

/// What a contract offers to be worked with as keys that hold values.
#[async_trait(?Send)]
pub(crate) trait Registers: Send {
    /// Whether a change is durable only after a [`sync`](Self::sync).
    fn is_lazy(&self) -> bool {
        false
    }

    /// Whether a set that is cut off may leave anything at its own key.
    fn may_tear(&self) -> bool {
        false
    }

    /// How many of ten operations are deletes.
    fn deletes(&self) -> u64 {
        2
    }

    /// Sets a key to the value of `tag`. Where that takes several steps, it may hold the value of `tag ^ PROVISIONAL` in
    /// the meantime.
    async fn set(&mut self, key: u64, tag: u64) -> Outcome;
    async fn delete(&mut self, key: u64) -> Outcome;

    /// Whether everything before is durable now.
    async fn sync(&mut self) -> Result<bool, Stop> {
        Ok(true)
    }

    async fn get(&mut self, key: u64) -> Result<Found, Stop>;

    /// Looks at what else there is, such as a list of the keys. `present` are those that hold something.
    async fn survey(&mut self, _present: &BTreeSet<u64>) -> Outcome {
        Ok(())
    }
}

/// What a worker on registers does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Set(u64, u64),
    Delete(u64),
    Sync,
}

/// A worker on registers.
pub(crate) struct Registered {
    seed: u64,
    worker: u64,
    registers: Box<dyn Registers>,
}

/// Marks the tag of a value that another one replaces at once.
pub(crate) const PROVISIONAL: u64 = 1 << 63;

/// How many keys a worker has. Few, so that most operations replace something.
pub(crate) const KEYS: u64 = 3;

impl Registered {
    /// Keys of worker `worker` are numbers from `worker * KEYS`; tags are unique.
    pub(crate) fn hired(seed: u64, worker: u64, registers: Box<dyn Registers>) -> Box<dyn Worker> {
        Box::new(Self {
            seed,
            worker,
            registers,
        })
    }

    fn keys(&self) -> std::ops::Range<u64> {
        self.worker * KEYS..(self.worker + 1) * KEYS
    }

    fn step(&self, n: u64) -> Step {
        let mut bytes = self.seed.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.worker.to_le_bytes());
        bytes.extend_from_slice(&n.to_le_bytes());
        let chance = crate::seed::hash(&bytes) >> 24;
        let key = self.worker * KEYS + chance % KEYS;
        let is_sync = self.registers.is_lazy() && n % 4 == 3;
        match chance / KEYS % 10 {
            _ if is_sync => Step::Sync,
            chance if chance < self.registers.deletes() => Step::Delete(key),
            _ => Step::Set(key, self.worker << 40 | (n + 1)),
        }
    }

    /// What `key` holds after that operation, if it is about that key.
    fn effect(&self, n: u64, key: u64) -> Option<Found> {
        match self.step(n) {
            Step::Set(at, tag) if at == key => Some(Found::Value(tag)),
            Step::Delete(at) if at == key => Some(Found::Absent),
            _ => None,
        }
    }

    /// What `key` holds after the first `done` operations.
    fn after(&self, done: u64, key: u64) -> Found {
        let last = (0..done).rev().find_map(|n| self.effect(n, key));
        last.unwrap_or(Found::Absent)
    }

    fn may_be(&self, found: &Found, told: Told, key: u64) -> bool {
        let open = (told.durable..told.begun).filter_map(|n| self.effect(n, key));
        let mut may_be = vec![self.after(told.durable, key)];
        for effect in open {
            if let Found::Value(tag) = effect {
                may_be.push(Found::Value(tag ^ PROVISIONAL));
            }
            may_be.push(effect);
        }
        let may_tear = self.registers.may_tear() && may_be.len() > 1;
        may_be.contains(found) || (may_tear && matches!(found, Found::Torn(_)))
    }

    async fn set_to(&mut self, key: u64, content: &Found) -> Outcome {
        match content {
            Found::Value(tag) => self.registers.set(key, *tag).await,
            Found::Absent | Found::Torn(_) => self.registers.delete(key).await,
        }
    }
}

#[async_trait(?Send)]
impl Worker for Registered {
    async fn perform(&mut self, n: u64) -> Result<bool, Stop> {
        match self.step(n) {
            Step::Set(key, tag) => self.registers.set(key, tag).await?,
            Step::Delete(key) => self.registers.delete(key).await?,
            Step::Sync => return self.registers.sync().await,
        }
        Ok(!self.registers.is_lazy())
    }

    async fn judge(&mut self, told: Told) -> Result<u64, Stop> {
        let mut present = BTreeSet::new();
        let mut all = Vec::new();
        for key in self.keys() {
            let found = self.registers.get(key).await?;
            if !self.may_be(&found, told, key) {
                let mut may_be = vec![self.after(told.durable, key)];
                may_be.extend((told.durable..told.begun).filter_map(|n| self.effect(n, key)));
                return Err(Stop::fail(
                    format!(
                        "key {key}, of whose worker {} operations are durable and {} had begun",
                        told.durable, told.begun
                    ),
                    format!("{found:x?}"),
                    format!("one of {may_be:x?}"),
                ));
            }
            if found != Found::Absent {
                present.insert(key);
            }
            all.push((key, found));
        }
        self.registers.survey(&present).await?;
        // Where several were open, any of them may be missing; going on takes a state that a number names.
        let is_after = |done: u64| {
            all.iter()
                .all(|(key, found)| *found == self.after(done, *key))
        };
        let done = (told.durable..=told.begun)
            .rev()
            .find(|done| is_after(*done));
        let done = if let Some(done) = done {
            done
        } else {
            for (key, found) in all {
                let content = self.after(told.begun, key);
                if found != content {
                    self.set_to(key, &content).await?;
                }
            }
            told.begun
        };
        self.registers.sync().await?;
        Ok(done)
    }
}

/// The lengths of values that registers hold: within a sector and a page, around them, and of many pages.
const LENS: [usize; 8] = [24, 100, 511, 512, 4_095, 4_097, 20_000, 70_000];

/// The value of a tag: the tag first, so that what is found can be told, and a length that follows from it.
pub(crate) fn value(tag: u64) -> Vec<u8> {
    let at = usize::try_from(tag % 8).expect("it is below 8");
    let mut value = crate::checks::pattern(&tag.to_string(), LENS[at]);
    let header = tag.to_le_bytes();
    value[..header.len()].copy_from_slice(&header);
    value
}

/// What a value was found to be.
pub(crate) fn found(bytes: Option<&[u8]>) -> Found {
    let Some(bytes) = bytes else {
        return Found::Absent;
    };
    let tag = bytes.first_chunk::<8>().map(|tag| u64::from_le_bytes(*tag));
    match tag {
        Some(tag) if value(tag) == bytes => Found::Value(tag),
        _ => Found::Torn(crate::cx::show(bytes)),
    }
}
