//! What is done to a place that will be cut off.

use std::collections::BTreeSet;

use async_trait::async_trait;
use larder_traits::Atomicity;

use crate::blob_multi::{Handle, World};
use crate::check::{Outcome, Stop};
use crate::cx::{Cx, brief, show};
use crate::engine::work::{Crew, Found, KEYS, Registered, Registers, found, value};

struct Blobs {
    handle: Handle,
    worker: u64,
    habit: Habit,
}

/// How blobs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Atomic,
    /// Not asking for atomic sets.
    Careless,
    /// Atomic, and of many parts.
    Large,
}

/// How often a large value has the usual one in it.
const PARTS: usize = 12;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn prefix(worker: u64) -> String {
    format!("w{worker}/")
}

fn key(number: u64) -> String {
    format!("{}k{number}", prefix(number / KEYS))
}

#[async_trait(?Send)]
impl Registers for Blobs {
    fn may_tear(&self) -> bool {
        self.habit == Habit::Careless
    }

    async fn set(&mut self, number: u64, tag: u64) -> Outcome {
        let atomicity = match self.habit {
            Habit::Atomic | Habit::Large => Atomicity::RequireAtomic,
            Habit::Careless => Atomicity::AllowNonAtomic,
        };
        let value = match self.habit {
            Habit::Large => value(tag).repeat(PARTS),
            Habit::Atomic | Habit::Careless => value(tag),
        };
        self.handle.set_with(&key(number), value, atomicity).await
    }

    async fn delete(&mut self, number: u64) -> Outcome {
        self.handle.delete(&key(number)).await
    }

    async fn get(&mut self, number: u64) -> Result<Found, Stop> {
        let bytes = self.handle.get(&key(number)).await?;
        if self.habit != Habit::Large {
            return Ok(found(bytes.as_deref()));
        }
        let Some(bytes) = bytes else {
            return Ok(Found::Absent);
        };
        let part = &bytes[..bytes.len() / PARTS];
        if part.repeat(PARTS) == bytes {
            Ok(found(Some(part)))
        } else {
            Ok(Found::Torn(show(&bytes)))
        }
    }

    async fn survey(&mut self, present: &BTreeSet<u64>) -> Outcome {
        let listed = self.handle.list().await?;
        let prefix = prefix(self.worker);
        let own: Vec<&String> = listed
            .iter()
            .filter(|key| key.starts_with(&prefix))
            .collect();
        let given: Vec<String> = present.iter().map(|number| key(*number)).collect();
        if own != given.iter().collect::<Vec<_>>() {
            let what = format!("list_keys(), of keys that start with {prefix}");
            return Err(Stop::fail(what, brief(&own), brief(&given)));
        }
        are_given(&listed)
    }
}

/// Fails unless all of these keys are ones that workers use.
pub(super) fn are_given(listed: &[String]) -> Outcome {
    let workers = u64::try_from(NAMES.len()).expect("a few");
    let given: Vec<String> = (0..workers * KEYS).map(key).collect();
    match listed.iter().find(|listed| !given.contains(listed)) {
        Some(key) => Err(Stop::fail(
            "list_keys()",
            brief(key),
            "keys that were given",
        )),
        None => Ok(()),
    }
}

async fn crew(cx: &Cx<dyn World>, habit: Habit) -> Result<Crew, Stop> {
    let mut crew = Crew::new();
    for (worker, name) in (0..).zip(NAMES) {
        let handle = cx.open_as(name, "p").await?;
        let blobs = Blobs {
            handle,
            worker,
            habit,
        };
        crew.push(Registered::hired(cx.seed(), worker, Box::new(blobs)));
    }
    Ok(crew)
}

pub(super) async fn hire(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::Atomic).await
}

/// Those who do not ask for atomic sets.
pub(super) async fn hire_careless(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::Careless).await
}

/// Those whose values are large.
pub(super) async fn hire_large(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::Large).await
}
