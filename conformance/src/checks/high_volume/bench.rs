//! Calls as values, performed on a store and on the model side by side.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_traits::{
    BackendError, Classify, Clock, ErrorKind, ExpirationPolicy, Fault, Metadata, ObjectId, Outcome,
    SystemClock, TestClock, TieredMetadata, TieredWrite, Tombstone,
};

use crate::backend::Object;
use crate::check::{self, Stop};
use crate::checks::backend::objects::{far, name};
use crate::checks::pattern;
use crate::cx::{Cx, show};
use crate::high_volume::{Handle, World, show_head, show_write};
use crate::model::high_volume::{Row, Rows, Shown, ShownRedirect, show_time};

/// A call on one row.
#[derive(Clone)]
pub(super) enum Call {
    PutInline(Metadata, Bytes),
    Row,
    Head,
    DeleteInline,
    Swap(Option<ObjectId>, TieredWrite),
    Put(Metadata, Bytes),
    Get,
    Metadata,
    Delete,
    Extend(ObjectId, SystemTime),
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutInline(_, payload) => write!(f, "put_non_tombstone({})", show(payload)),
            Self::Row => f.write_str("get_tiered_object"),
            Self::Head => f.write_str("get_tiered_metadata"),
            Self::DeleteInline => f.write_str("delete_non_tombstone"),
            Self::Swap(current, write) => {
                let current = current.as_ref().map(|id| id.key.as_str());
                write!(f, "compare_and_write({current:?}, {})", show_write(write))
            }
            Self::Put(_, payload) => write!(f, "put_object({})", show(payload)),
            Self::Get => f.write_str("get_object"),
            Self::Metadata => f.write_str("get_metadata"),
            Self::Delete => f.write_str("delete_object"),
            Self::Extend(target, at) => write!(f, "extend_expiry({target}, {})", show_time(*at)),
        }
    }
}

/// The answer to a call.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Unless(Option<Tombstone>),
    Row(Option<Row>),
    Head(TieredMetadata),
    Won(bool),
    Object(Option<Object>),
    Metadata(Option<Metadata>),
    /// A plain read met a redirect.
    Met(Tombstone),
    /// Refused for what was asked, before any effect.
    Invalid,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("Ok"),
            Self::Unless(None) | Self::Metadata(None) => f.write_str("None"),
            Self::Unless(Some(tombstone)) => write!(f, "Some({})", ShownRedirect(tombstone)),
            Self::Row(row) => write!(f, "{row:?}"),
            Self::Head(head) => f.write_str(&show_head(head)),
            Self::Won(won) => write!(f, "{won}"),
            Self::Object(object) => write!(f, "{object:?}"),
            Self::Metadata(Some(metadata)) => write!(f, "Some({})", Shown(metadata)),
            Self::Met(tombstone) => {
                write!(f, "UnexpectedTombstone({})", ShownRedirect(tombstone))
            }
            Self::Invalid => f.write_str("Err(InvalidInput, NotApplied)"),
        }
    }
}

/// What the store answers; any error that no clause asks for is a failure.
async fn perform(handle: &Handle, id: &ObjectId, call: &Call) -> Result<Answer, Stop> {
    let result = match call.clone() {
        Call::PutInline(metadata, payload) => handle
            .try_put_inline(id, &metadata, payload)
            .await
            .map(Answer::Unless),
        Call::Row => handle.try_row(id).await.map(Answer::Row),
        Call::Head => handle.try_head(id).await.map(Answer::Head),
        Call::DeleteInline => handle.try_delete_inline(id).await.map(Answer::Unless),
        Call::Swap(current, write) => handle
            .try_swap(id, current.as_ref(), write)
            .await
            .map(Answer::Won),
        Call::Put(metadata, payload) => handle
            .try_put(id, &metadata, vec![payload])
            .await
            .map(|()| Answer::Done),
        Call::Get => handle.try_get(id).await.map(Answer::Object),
        Call::Metadata => handle.try_metadata(id).await.map(Answer::Metadata),
        Call::Delete => handle.try_delete(id).await.map(|()| Answer::Done),
        Call::Extend(target, at) => handle.try_extend(id, &target, at).await.map(Answer::Won),
    };
    match result {
        Ok(answer) => Ok(answer),
        Err(BackendError::UnexpectedTombstone(tombstone))
            if matches!(call, Call::Get | Call::Metadata) =>
        {
            Ok(Answer::Met(*tombstone))
        }
        Err(e) if e.kind() == ErrorKind::InvalidInput && e.outcome() == Outcome::NotApplied => {
            Ok(Answer::Invalid)
        }
        Err(e) => Err(Stop::error(format!("{call:?} of {id}"), &e)),
    }
}

/// What the model answers.
fn expect(rows: &mut Rows, now: SystemTime, id: &ObjectId, call: &Call) -> Answer {
    fn or_invalid<T>(result: Result<T, Fault>, answer: impl FnOnce(T) -> Answer) -> Answer {
        result.map_or(Answer::Invalid, answer)
    }
    fn or_met<T>(result: Result<T, BackendError>, answer: impl FnOnce(T) -> Answer) -> Answer {
        match result {
            Err(BackendError::UnexpectedTombstone(tombstone)) => Answer::Met(*tombstone),
            Err(_) => Answer::Invalid,
            Ok(value) => answer(value),
        }
    }
    match call.clone() {
        Call::PutInline(metadata, payload) => or_invalid(
            rows.put_non_tombstone(now, id, &metadata, payload),
            Answer::Unless,
        ),
        Call::Row => Answer::Row(rows.get_tiered_object(now, id)),
        Call::Head => Answer::Head(rows.get_tiered_metadata(now, id)),
        Call::DeleteInline => Answer::Unless(rows.delete_non_tombstone(now, id)),
        Call::Swap(current, write) => or_invalid(
            rows.compare_and_write(now, id, current.as_ref(), write),
            Answer::Won,
        ),
        Call::Put(metadata, payload) => {
            or_invalid(rows.put_object(now, id, &metadata, payload), |()| {
                Answer::Done
            })
        }
        Call::Get => or_met(rows.get_object(now, id), |found| {
            Answer::Object(found.map(|(metadata, payload)| Object { metadata, payload }))
        }),
        Call::Metadata => or_met(rows.get_metadata(now, id), Answer::Metadata),
        Call::Delete => {
            rows.delete_object(id);
            Answer::Done
        }
        Call::Extend(target, at) => {
            or_invalid(rows.extend_expiry(now, id, &target, at), Answer::Won)
        }
    }
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
