//! What is done to a place that will be cut off.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use larder_traits::BlobGuid;

use super::content::{Content, frame};
use super::guid;
use crate::blob_store::{Batch, Handle, World};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::engine::work::{Crew, Found, PROVISIONAL, Registered, Registers};
use crate::fixture::{FaultKind, Faults};

/// How frames are written, and by what their writer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// One by one, in batches, and in batches with a data-sync, each in turn.
    Mixed,
    /// In batches with a data-sync only.
    DataSync,
    /// One by one, and no flush where the store says that none is needed.
    Hint,
    /// Deleted as often as written.
    Deletes,
    /// In a batch with a data-sync, and once more after it.
    AfterDataSync,
    /// After a write that fails.
    Failing,
}

/// The blob that is written only to fail.
const ASIDE: BlobGuid = guid(u128::MAX);

struct Frames {
    handle: Handle,
    habit: Habit,
    faults: Option<Arc<dyn Faults>>,
}

#[async_trait(?Send)]
impl Registers for Frames {
    fn is_lazy(&self) -> bool {
        true
    }

    fn deletes(&self) -> u64 {
        if self.habit == Habit::Deletes { 5 } else { 2 }
    }

    async fn set(&mut self, number: u64, tag: u64) -> Outcome {
        let (name, new) = (guid(number.into()), frame(tag));
        let provisional = frame(tag ^ PROVISIONAL);
        match self.habit {
            Habit::Hint | Habit::Deletes => {}
            Habit::AfterDataSync => {
                let batch = [(name, &provisional)];
                self.handle.write_all(Batch::DataSync, &batch)?;
            }
            Habit::Failing => {
                if let Some(faults) = &self.faults {
                    // By turns at the blob that is written anyway, and at one that nobody else writes: what a failed
                    // write takes back must be its own and nothing else.
                    let failing = match tag % 2 {
                        0 => name,
                        _ => ASIDE,
                    };
                    // At each of its calls to the medium, until one write goes through.
                    for nth in 1..=4 {
                        faults.arm(nth, FaultKind::ErrorBefore);
                        // Whether it went wrong, and how, is another check's affair.
                        drop(self.handle.try_write(failing, tag ^ PROVISIONAL));
                        if !faults.disarm() {
                            break;
                        }
                    }
                }
            }
            Habit::Mixed if tag.is_multiple_of(3) => {}
            Habit::Mixed | Habit::DataSync => {
                let how = if self.habit == Habit::DataSync || tag % 3 == 1 {
                    Batch::DataSync
                } else {
                    Batch::Plain
                };
                // The same name twice: the last one wins.
                let batch = [(name, &provisional), (name, &new)];
                return self.handle.write_all(how, &batch);
            }
        }
        self.handle.write_buf(name, &new)
    }

    async fn delete(&mut self, number: u64) -> Outcome {
        self.handle.delete(guid(number.into()))
    }

    async fn sync(&mut self) -> Result<bool, Stop> {
        if self.habit == Habit::Hint && !self.handle.needs_flush() {
            return Ok(true);
        }
        self.handle.flush()?;
        Ok(true)
    }

    async fn get(&mut self, number: u64) -> Result<Found, Stop> {
        Ok(match self.handle.content(guid(number.into()))? {
            Content::Absent => Found::Absent,
            Content::Frame(tag) => Found::Value(tag),
            other => Found::Torn(other.to_string()),
        })
    }

    async fn survey(&mut self, present: &BTreeSet<u64>) -> Outcome {
        if self.habit == Habit::Failing {
            let seen = self.handle.content(ASIDE)?;
            let is_own = matches!(seen, Content::Absent)
                || matches!(seen, Content::Frame(tag) if tag & PROVISIONAL != 0);
            if !is_own {
                let what = format!("blob {ASIDE}, whose writes were made to fail");
                let expected = "absent, or a frame that was written to it";
                return Err(Stop::fail(what, seen.to_string(), expected));
            }
        }
        let listed = self.handle.list()?;
        let absent = present
            .iter()
            .find(|number| !listed.contains(&guid(u128::from(**number))));
        match absent {
            Some(number) => Err(Stop::fail(
                "list_blobs()",
                format!("without {}", guid(u128::from(*number))),
                "every blob that can be read",
            )),
            None => Ok(()),
        }
    }
}

/// The names of those who share the handle.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

async fn crew(cx: &Cx<dyn World>, habit: Habit, count: usize) -> Result<Crew, Stop> {
    // A durable place is open once only; its threads share the handle.
    let handle = cx.open("p").await?;
    let faults = if habit == Habit::Failing {
        Some(cx.faults()?)
    } else {
        None
    };
    let hired = |(worker, name)| {
        let frames = Frames {
            handle: handle.named(name),
            habit,
            faults: faults.clone(),
        };
        Registered::hired(cx.seed(), worker, Box::new(frames))
    };
    Ok((0..).zip(NAMES).take(count).map(hired).collect())
}

pub(super) async fn hire(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::Mixed, 3).await
}

/// One alone, whose operations come one after the other.
pub(super) async fn hire_one(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::Mixed, 1).await
}

/// Many, whose flushes meet.
pub(super) async fn hire_many(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::Mixed, NAMES.len()).await
}

pub(super) async fn hire_data_syncing(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::DataSync, 2).await
}

pub(super) async fn hire_after_data_sync(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::AfterDataSync, 3).await
}

pub(super) async fn hire_by_hint(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::Hint, 3).await
}

pub(super) async fn hire_deleting(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::Deletes, 2).await
}

/// One, since what is armed is met by the next call of anybody.
pub(super) async fn hire_failing(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::Failing, 1).await
}
