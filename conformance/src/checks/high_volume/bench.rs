//! A store and the model side by side.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_traits::{
    Clock, ExpirationPolicy, Metadata, ObjectId, SystemClock, TestClock, Tombstone,
};

use crate::check::{self, Stop};
pub(super) use crate::checks::backend::calls::{Answer, Call};
use crate::checks::backend::calls::{Subject, expect};
use crate::checks::backend::objects::{far, name};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::high_volume::{Handle, World};
use crate::model::high_volume::{Row, Rows, show_time};

/// What the store answers; any error that no clause asks for is a failure.
async fn perform(handle: &Handle, id: &ObjectId, call: &Call) -> Result<Answer, Stop> {
    let result = handle.make(id, call).await;
    result.map_err(|e| Stop::error(format!("{call:?} of {id}"), &e))
}

/// A store behind two handles, and the model of what must be in it.
pub(super) struct Bench<'a> {
    pub(super) cx: &'a Cx<dyn World>,
    clock: Option<Arc<TestClock>>,
    handles: [Handle; 2],
    /// Which handle the next call goes through; the other one looks.
    turn: usize,
    pub(super) rows: Rows,
    made: usize,
}

impl<'a> Bench<'a> {
    pub(super) async fn new(cx: &'a Cx<dyn World>) -> Result<Self, Stop> {
        let (a, b) = cx.open_two("p").await?;
        Ok(Self {
            cx,
            clock: cx.clock().ok(),
            handles: [a, b],
            turn: 0,
            rows: Rows::default(),
            made: 0,
        })
    }

    /// An id that has not been used yet.
    pub(super) fn fresh(&mut self) -> ObjectId {
        self.made += 1;
        name(&format!("row-{}", self.made))
    }

    pub(super) fn is_clocked(&self) -> bool {
        self.clock.is_some()
    }

    /// The store's time. Without a test clock all rows are given deadlines that no clock is near.
    pub(super) fn now(&self) -> SystemTime {
        self.clock
            .as_ref()
            .map_or_else(|| SystemClock::default().now(), |clock| clock.now())
    }

    /// Lets time pass, if it can be told to.
    pub(super) fn advance(&self, by: Duration) {
        if let Some(clock) = &self.clock {
            clock.advance(by);
            let line = format!("the clock goes on by {by:?}, to {}", show_time(clock.now()));
            self.cx.log().push(line);
        }
    }

    /// Lets time pass until so long before or after the deadline of a row.
    pub(super) fn advance_to_deadline(&self, id: &ObjectId, before: Duration, after: Duration) {
        let found = self.rows.rows().find(|(other, _)| *other == id);
        let deadline = found.and_then(|(_, row)| match row {
            Row::Inline(metadata, _) => metadata.time_expires,
            Row::Redirect(tombstone) => tombstone.time_expires,
        });
        if let Some(gap) = deadline.and_then(|at| (at + after).duration_since(self.now()).ok()) {
            self.advance(gap.saturating_sub(before));
        }
    }

    /// A new handle in place of one of the two.
    pub(super) async fn reopen(&mut self) -> Result<(), Stop> {
        let name = ["a", "b"][self.turn];
        self.handles[self.turn] = self.cx.open_as(name, "p").await?;
        Ok(())
    }

    fn compare(&self, what: String, observed: &Answer, expected: &Answer) -> check::Outcome {
        self.cx.require(
            observed == expected,
            what,
            format!("{observed:?}"),
            format!("{expected:?}"),
        )
    }

    /// Performs a call and compares the answer with the model's.
    pub(super) async fn ask(&mut self, what: &str, id: &ObjectId, call: &Call) -> check::Outcome {
        let observed = perform(&self.handles[self.turn], id, call).await?;
        self.turn = 1 - self.turn;
        let now = self.now();
        let expected = expect(&mut self.rows, now, id, call);
        self.compare(format!("{call:?} {what}"), &observed, &expected)
    }

    /// Compares a row with the model's, through the handle whose turn it is.
    pub(super) async fn look(&mut self, what: &str, id: &ObjectId) -> check::Outcome {
        let handle = &self.handles[self.turn];
        for call in [Call::Row, Call::Head] {
            let observed = perform(handle, id, &call).await?;
            let now = self.now();
            let expected = expect(&mut self.rows, now, id, &call);
            let what = format!("the row after {what}, looked at through the other handle");
            self.compare(what, &observed, &expected)?;
        }
        Ok(())
    }

    /// Performs a call, compares the answer, and looks at the row through the other handle.
    pub(super) async fn judge(&mut self, what: &str, id: &ObjectId, call: &Call) -> check::Outcome {
        self.ask(what, id, call).await?;
        self.look(&format!("{call:?} {what}"), id).await
    }

    /// Looks at every row again through a handle that has seen none of it. Idle rows are left out: an answer may show
    /// their deadline as it was before the look or after it.
    pub(super) async fn look_at_all(&mut self) -> check::Outcome {
        let handle = self.cx.open_as("c", "p").await?;
        let ids: Vec<ObjectId> = self.rows.rows().map(|(id, _)| id.clone()).collect();
        for id in ids {
            let row = self.rows.row(self.now(), &id);
            if let Some(Row::Inline(metadata, _)) = row
                && matches!(metadata.expiration_policy, ExpirationPolicy::TimeToIdle(_))
            {
                continue;
            }
            let observed = perform(&handle, &id, &Call::Head).await?;
            let now = self.now();
            let expected = expect(&mut self.rows, now, &id, &Call::Head);
            let what = format!("the row {id} at the end, looked at through a new handle");
            self.compare(what, &observed, &expected)?;
        }
        Ok(())
    }

    /// Metadata for a live row; the variants differ in policy and in who gives the times.
    pub(super) fn metadata(&self, variant: usize) -> Metadata {
        let mut metadata = Metadata::new();
        let hour = Duration::from_secs(3_600);
        match variant % 3 {
            0 => metadata.content_type = Some("text/plain".into()),
            1 => metadata.expiration_policy = ExpirationPolicy::TimeToLive(hour * 24 * 365 * 50),
            _ => {
                metadata.expiration_policy = ExpirationPolicy::TimeToIdle(hour);
                metadata.time_expires = Some(far());
                metadata.filename = Some("ü.bin".into());
                metadata.custom.insert("k".into(), format!("v{variant}"));
            }
        }
        if !self.is_clocked() {
            // Only a known clock can be told what it will fill in.
            metadata.time_created = Some(far() - hour);
            if !variant.is_multiple_of(3) {
                metadata.time_expires = Some(far());
            }
        }
        metadata
    }

    /// A redirect that lives; the variants differ in policy and in who gives the deadline.
    pub(super) fn redirect(&self, target: &ObjectId, variant: usize) -> Tombstone {
        let day = Duration::from_secs(24 * 3_600);
        let policy = match variant % 3 {
            0 => ExpirationPolicy::Manual,
            1 => ExpirationPolicy::TimeToLive(day * 365 * 40),
            _ => ExpirationPolicy::TimeToIdle(day),
        };
        let mut tombstone = Tombstone::new(target.clone(), policy);
        if variant % 3 == 2 || variant % 3 == 1 && !self.is_clocked() {
            tombstone.time_expires = Some(far() + day);
        }
        tombstone
    }

    /// An inline object for a live row.
    pub(super) fn object(&self, variant: usize, len: usize) -> (Metadata, Bytes) {
        let payload = pattern(&format!("{variant}"), len);
        (self.metadata(variant), payload.into())
    }
}
