//! What is done to a place that will be cut off.

use std::collections::BTreeSet;

use async_trait::async_trait;
use larder_traits::{Change, ChangeId, WriterId};

use super::{at, for_ever, id, object, writer};
use crate::change_log::{Handle, World};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::engine::work::{Crew, Found, KEYS, Registered, Registers, Told, Worker};

/// The changes of one writer, each of them a key.
struct Own {
    handle: Handle,
    number: u64,
    /// How often the lease was asked for. It is renewed now and then, though it would last.
    asked: u64,
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
        self.asked += 1;
        if self.asked % 2 == 1 {
            self.handle.renew(self.writer(), for_ever()).await?;
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

/// Two writers of a place of their own: what one of them records the other claims, all at once, and strikes out.
struct Heirs(Handle);

/// How many changes are claimed at once.
const INHERITED: u64 = 4;

/// The changes of who records, and of who claims.
type Estate = [Vec<Change>; 2];

impl Heirs {
    const OWNER: u64 = 7_000;
    const HEIR: u64 = 7_001;

    fn change(turn: u64, part: u64) -> Change {
        tagged(8_000 + part, turn * INHERITED + part)
    }

    /// What there is once `done` operations are done.
    fn after(done: u64) -> Estate {
        let (turn, at) = (done / (2 * INHERITED + 1), done % (2 * INHERITED + 1));
        let parts = |parts: std::ops::Range<u64>| {
            let mut all: Vec<_> = parts.map(|part| Self::change(turn, part)).collect();
            all.sort_by_key(|change| change.id);
            all
        };
        match at {
            0..=INHERITED => [parts(0..at), Vec::new()],
            _ => [Vec::new(), parts(at - INHERITED - 1..INHERITED)],
        }
    }
}

#[async_trait(?Send)]
impl Worker for Heirs {
    async fn perform(&mut self, n: u64) -> Result<bool, Stop> {
        let (owner, heir) = (writer(Self::OWNER), writer(Self::HEIR));
        let (turn, at_op) = (n / (2 * INHERITED + 1), n % (2 * INHERITED + 1));
        match at_op {
            0..INHERITED => {
                let change = Self::change(turn, at_op);
                self.0.record(owner, &change).await?;
            }
            INHERITED => drop(self.0.claim(heir, at(0), usize::MAX).await?),
            _ => {
                let done = Self::change(turn, at_op - INHERITED - 1);
                self.0.complete(heir, done.id).await?;
            }
        }
        Ok(true)
    }

    async fn judge(&mut self, told: Told) -> Result<u64, Stop> {
        let own = self.0.changes(writer(Self::OWNER)).await?;
        let claimed = self.0.changes(writer(Self::HEIR)).await?;
        let seen = [own, claimed];
        let mut may_be = told.durable..=told.begun;
        may_be
            .find(|done| Self::after(*done) == seen)
            .ok_or_else(|| {
                let (durable, begun) = (told.durable, told.begun);
                Stop::fail(
                    format!("two writers with {durable} operations that last, and {begun} begun"),
                    format!("{seen:?}"),
                    format!("{:?}, or what the next led to", Self::after(durable)),
                )
            })
    }
}

pub(super) async fn hire(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    let mut crew = Crew::new();
    for (worker, name) in (0..).zip(["a", "b", "c"]) {
        let own = Own {
            handle: cx.open_as(name, "p").await?,
            number: worker * KEYS,
            asked: 0,
        };
        crew.push(Registered::hired(cx.seed(), worker, Box::new(own)));
    }
    crew.push(Box::new(Heirs(cx.open_as("heirs", "q").await?)));
    Ok(crew)
}
