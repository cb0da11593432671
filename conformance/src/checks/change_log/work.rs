//! What is done to a place that will be cut off.

use std::collections::BTreeSet;

use async_trait::async_trait;
use larder_traits::{Change, ChangeId, WriterId};

use super::{at, for_ever, id, object, writer};
use crate::change_log::{Handle, World};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::engine::work::{Crew, Found, KEYS, Registered, Registers};

/// The changes of one writer, each of them a key.
struct Own {
    handle: Handle,
    number: u64,
    is_leased: bool,
}

/// The change that `tag` stands for; its length follows from it.
fn tagged(key: u64, tag: u64) -> Change {
    let tail = usize::try_from(tag % 7).map_or(0, |n| n * 97);
    let mut change = Change::new(
        id(key),
        object(format!("{tag:x}.{}", "x".repeat(tail))),
        larder_traits::Step::Swap,
    );
    change.created = Some(object(format!("created {tag:x}")));
    change
}

impl Own {
    fn writer(&self) -> WriterId {
        writer(self.number)
    }

    /// A lease that is acknowledged lasts as the changes do.
    async fn lease(&mut self) -> Outcome {
        if !self.is_leased {
            self.handle.renew(self.writer(), for_ever()).await?;
            self.is_leased = true;
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl Registers for Own {
    async fn set(&mut self, key: u64, tag: u64) -> Outcome {
        self.lease().await?;
        self.handle.record(self.writer(), &tagged(key, tag)).await
    }

    async fn delete(&mut self, key: u64) -> Outcome {
        self.handle.complete(self.writer(), id(key)).await
    }

    async fn get(&mut self, key: u64) -> Result<Found, Stop> {
        let changes = self.handle.changes(self.writer()).await?;
        let mut found = changes.into_iter().filter(|change| change.id == id(key));
        let Some(change) = found.next() else {
            return Ok(Found::Absent);
        };
        let text = change.object.key.split('.').next().unwrap_or_default();
        let tag = u64::from_str_radix(text, 16).ok();
        match tag {
            Some(tag) if found.next().is_none() && tagged(key, tag) == change => {
                Ok(Found::Value(tag))
            }
            _ => Ok(Found::Torn(format!("{change:?}"))),
        }
    }

    /// The writer has these changes and no others, and whoever has one has its lease.
    async fn survey(&mut self, present: &BTreeSet<u64>) -> Outcome {
        let changes = self.handle.changes(self.writer()).await?;
        let seen: BTreeSet<ChangeId> = changes.iter().map(|change| change.id).collect();
        let expected: BTreeSet<ChangeId> = present.iter().map(|key| id(*key)).collect();
        if seen != expected || changes.len() != expected.len() {
            let (seen, expected) = (format!("{seen:?}"), format!("{expected:?}"));
            return Err(Stop::fail("the changes of a writer", seen, expected));
        }
        let scout = writer(1_000 + self.number);
        let claimed = self.handle.claim(scout, at(0), usize::MAX).await?;
        if claimed.is_empty() {
            return Ok(());
        }
        Err(Stop::fail(
            "a claim, after a lease for all changes was acknowledged before them",
            format!("{claimed:?}"),
            "nothing: the lease lasts as long",
        ))
    }
}

pub(super) async fn hire(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    let mut crew = Crew::new();
    for (worker, name) in (0..).zip(["a", "b", "c"]) {
        let own = Own {
            handle: cx.open_as(name, "p").await?,
            number: worker * KEYS,
            is_leased: false,
        };
        crew.push(Registered::hired(cx.seed(), worker, Box::new(own)));
    }
    Ok(crew)
}
