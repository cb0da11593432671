//! What is done to a place that will be cut off.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::content::{Content, frame};
use super::guid;
use crate::blob_store::{Batch, Handle, World};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::engine::work::{Crew, Found, Registered, Registers};

/// How frames are written, and by what their writer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// One by one, in batches, and in batches with a data-sync, each in turn.
    Mixed,
    /// In batches with a data-sync only.
    DataSync,
    /// One by one, and no flush where the store says that none is needed.
    Hint,
}

struct Frames {
    handle: Handle,
    habit: Habit,
}

#[async_trait(?Send)]
impl Registers for Frames {
    fn is_lazy(&self) -> bool {
        true
    }

    async fn set(&mut self, number: u64, tag: u64) -> Outcome {
        let (name, frame) = (guid(number.into()), frame(tag));
        let how = match (self.habit, tag % 3) {
            (Habit::Hint, _) | (Habit::Mixed, 0) => return self.handle.write_buf(name, &frame),
            (Habit::DataSync, _) | (Habit::Mixed, 1) => Batch::DataSync,
            (Habit::Mixed, _) => Batch::Plain,
        };
        // Another frame of the same name first: the last one wins.
        let old = super::content::frame(tag ^ 1 << 63);
        self.handle.write_all(how, &[(name, &old), (name, &frame)])
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

async fn crew(cx: &Cx<dyn World>, habit: Habit) -> Result<Crew, Stop> {
    // A durable place is open once only; its threads share the handle.
    let handle = cx.open("p").await?;
    let hired = |(worker, name)| {
        let frames = Frames {
            handle: handle.named(name),
            habit,
        };
        Registered::new(cx.seed(), worker, Box::new(frames))
    };
    Ok((0..).zip(["a", "b", "c"]).map(hired).collect())
}

pub(super) async fn hire(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    crew(cx, Habit::Mixed).await
}
