//! [`HighVolumeBackend`]: one object per row, and every write of it under the condition that it still is what was read.
//!
//! Rows are never deleted, since servers ignore conditions on DELETE: what was removed leaves a marker. So from its first
//! write on a row always has a version, no version ever repeats, and a condition that once failed never holds again.
//! That is what makes a repeat harmless: of two deliveries of one write the second finds its condition unmet. It also
//! makes a [`fence`](HighVolumeBackend::fence): whatever changes the version keeps all earlier writes out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use larder_traits::{
    Backend, BackendError, ClientStream, ErrorKind, ExpirationPolicy, Fault, GetResponse,
    HighVolumeBackend, Metadata, ObjectId, PayloadStream, TieredGet, TieredMetadata, TieredWrite,
    Tombstone,
};

use crate::envelope::{self, Head, Parsed, State};
use crate::error::Failure;
use crate::history::{Fate, History};
use crate::key::Folder;
use crate::mark::{Mark, Nonce};
use crate::upload::{Condition, len_u64};
use crate::wire::{Sent, Wire};

/// How much of a row is read to learn what it is.
const HEAD_GUESS_BYTES: u64 = 4 << 10;

/// The rows of a place, on a store with conditional writes; on any other every call is `Unsupported`.
///
/// Reading an object and reading its metadata both count as an access that extends a `TimeToIdle` deadline (HV-8); the
/// answer shows the deadline as it is after the access. A payload is held in memory while it is written or read, up to
/// the declared bound.
#[derive(Clone, Debug)]
pub struct S3HighVolume {
    wire: Arc<Wire>,
}

/// A row as it was read.
struct Row {
    /// Holds as long as the row is what it was.
    unchanged: Condition,
    nonce: Option<Nonce>,
    history: History,
    state: State,
    /// Only where it was asked for.
    payload: Bytes,
}

/// What a write under a condition came to.
enum Swapped {
    Done,
    /// Somebody else was faster. Nothing was written.
    Lost,
}

/// What is to become of a row, and what the call answers then.
#[allow(
    clippy::large_enum_variant,
    reason = "one is made for a call and taken apart by it"
)]
enum Decision<T> {
    Answer(T),
    Write(State, Bytes, T),
}

/// Whether a read wants the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Head,
    Payload,
}

impl S3HighVolume {
    pub(crate) fn new(wire: Arc<Wire>) -> Self {
        Self { wire }
    }

    fn name_of(&self, id: &ObjectId) -> Result<String, Fault> {
        if !self.wire.has_conditions() {
            let message = "the store does not keep the conditions of writes";
            return Err(Fault::not_applied(ErrorKind::Unsupported, message));
        }
        self.wire.names.object(Folder::Rows, id)
    }

    fn check_payload(&self, len: usize) -> Result<(), Fault> {
        let max = self.wire.config.row_len_bytes_max;
        if u64::try_from(len).is_ok_and(|len| len <= max) {
            return Ok(());
        }
        let message = format!("a payload of {len} bytes, and at most {max} are allowed");
        Err(Fault::not_applied(ErrorKind::InvalidInput, message))
    }

    fn now(&self) -> SystemTime {
        self.wire.config.clock.now()
    }

    async fn call<T>(
        &self,
        sent: &Sent,
        call: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        self.wire.call(self.wire.deadline(), sent, call).await
    }

    /// The row as it is stored, dead or alive.
    async fn load(&self, name: &str, want: Want) -> Result<Row, Failure> {
        let mut wanted = match want {
            Want::Head => HEAD_GUESS_BYTES,
            Want::Payload => u64::MAX,
        };
        loop {
            let Some(found) = self.wire.fetch(name, 0..wanted).await? else {
                return Ok(Row {
                    unchanged: Condition::Absent,
                    nonce: None,
                    history: History::default(),
                    state: State::Absent,
                    payload: Bytes::new(),
                });
            };
            let (etag, total) = (found.etag, found.total);
            let bytes = found.value.into_bytes();
            let (head, at) = match Head::parse(&bytes)? {
                Parsed::Whole(head, at) => (head, at),
                Parsed::Needs(more) if len_u64(&bytes) < total => {
                    // The row may be another one by then, with a longer head.
                    wanted = u64::try_from(more).unwrap_or(u64::MAX).min(total);
                    continue;
                }
                Parsed::Needs(_) => {
                    return Err(envelope::damaged("a row that ends within its head"));
                }
            };
            let payload = match want {
                Want::Head => Bytes::new(),
                Want::Payload => envelope::payload(&bytes, at)?,
            };
            let len = envelope::payload_len(total, at)?;
            let mut state = head.state;
            if let State::Object(metadata) = &mut state {
                metadata.size = Some(len);
            }
            return Ok(Row {
                unchanged: Condition::Is(etag),
                nonce: Some(head.nonce),
                history: head.history,
                state,
                payload,
            });
        }
    }

    /// Replaces the row that was read by another one.
    ///
    /// A write whose answer was lost is made again under the same condition: the row has one successor, and if it is
    /// not this write then this write never will be there.
    async fn swap(
        &self,
        name: &str,
        row: &Row,
        state: State,
        payload: &[u8],
        sent: &Sent,
    ) -> Result<Swapped, Fault> {
        let nonce = self.wire.nonces.next();
        let head = Head {
            nonce,
            history: row.history.then(row.nonce),
            state,
        };
        let whole = envelope::whole(&head, payload)?;
        let mark = Mark::of(&whole, nonce);
        let len = len_u64(&whole);
        let (mut tries, mut doubt) = (0, false);
        loop {
            // Commit point: past this line a failure may still have taken effect.
            sent.set(true);
            let put = self.wire.put(name, whole.clone(), &mark, &row.unchanged);
            let failure = match self.wire.attempt(len, put).await {
                Ok(_) => return Ok(Swapped::Done),
                Err(failure) => failure,
            };
            let is_unmet = failure.is_unmet() || failure.is("NoSuchKey");
            // Some servers lose a race with an error that says nothing. One that answers can be asked at once, while the
            // row still remembers.
            let is_odd = !failure.harmless && failure.status.is_some() && !doubt;
            doubt |= !failure.harmless;
            if is_unmet || is_odd {
                match self.fate(name, row, nonce).await {
                    Ok(Fate::Applied) => return Ok(Swapped::Done),
                    Ok(Fate::Forgotten) if is_unmet && doubt => {
                        let message =
                            "the answer to a write was lost, and the row has changed often since";
                        return Err(Fault::unknown(ErrorKind::Conflict, message));
                    }
                    Ok(fate) if is_unmet || fate == Fate::Lost => {
                        sent.set(false);
                        return Ok(Swapped::Lost);
                    }
                    Err(failure) if is_unmet => return Err(failure.unknown()),
                    // It may still be on its way.
                    Ok(_) | Err(_) => {}
                }
            }
            sent.set(doubt);
            if !self.wire.is_worth_another(&failure, &mut tries).await {
                return Err(if doubt {
                    failure.unknown()
                } else {
                    failure.not_applied()
                });
            }
        }
    }

    /// What became of a write of `row`, as the row tells that is there now.
    async fn fate(&self, name: &str, row: &Row, write: Nonce) -> Result<Fate, Failure> {
        let now = self.load(name, Want::Head).await?;
        Ok(now.nonce.map_or(Fate::Forgotten, |of_now| {
            now.history.fate(of_now, row.nonce, write)
        }))
    }

    /// The row as calls see it. What has expired counts as absent, and what somebody may be about to extend is made so
    /// before anybody is told.
    async fn live(&self, name: &str, want: Want, sent: &Sent) -> Result<Row, Fault> {
        let mut rounds = 0;
        loop {
            let mut row = self.load(name, want).await.map_err(|e| e.not_applied())?;
            let now = self.now();
            let (expired, may_be_extended) = match &row.state {
                State::Absent => return Ok(row),
                State::Object(metadata) => (
                    metadata.is_expired(now),
                    matches!(metadata.expiration_policy, ExpirationPolicy::TimeToIdle(_)),
                ),
                State::Redirect(tombstone) => (tombstone.is_expired(now), true),
            };
            if !expired {
                return Ok(row);
            }
            if !may_be_extended {
                row.state = State::Absent;
                return Ok(row);
            }
            // Removing what is dead is no effect that anybody could see, so the call as such was not applied.
            let removed = self.swap(name, &row, State::Absent, &[], sent).await;
            sent.set(false);
            removed.map_err(|e| {
                let message = "whether a row has expired cannot be told";
                Fault::not_applied(ErrorKind::Unavailable, message).because(e)
            })?;
            self.pause(&mut rounds).await?;
        }
    }

    /// Gives way to whoever was faster, for a moment that grows.
    async fn pause(&self, rounds: &mut u32) -> Result<(), Fault> {
        *rounds = rounds.saturating_add(1);
        if *rounds > 1 {
            let bound = 1_u64 << (*rounds).min(8);
            let millis = self.wire.nonces.below(bound);
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        Ok(())
    }

    /// Reads the row, decides, and writes unless the row has changed; then again.
    async fn update<T: Send>(
        &self,
        name: &str,
        want: Want,
        sent: &Sent,
        decide: impl Fn(&Row, SystemTime) -> Result<Decision<T>, Fault> + Send + Sync,
    ) -> Result<T, Fault> {
        let mut rounds = 0;
        loop {
            let row = self.live(name, want, sent).await?;
            let (state, payload, answer) = match decide(&row, self.now())? {
                Decision::Answer(answer) => return Ok(answer),
                Decision::Write(state, payload, answer) => (state, payload, answer),
            };
            match self.swap(name, &row, state, &payload, sent).await? {
                Swapped::Done => return Ok(answer),
                Swapped::Lost => self.pause(&mut rounds).await?,
            }
        }
    }

    /// The row as it is after this access to it, with its payload if that is asked for.
    async fn access(&self, id: &ObjectId, want: Want) -> Result<Row, Fault> {
        let name = self.name_of(id)?;
        let sent = Sent::default();
        let access = async {
            let mut row = self.live(&name, want, &sent).await?;
            let State::Object(metadata) = &mut row.state else {
                return Ok(row);
            };
            if let Some(later) = metadata.deadline_after_access(self.now()) {
                // A failure leaves the deadline as it was, and the answer says so.
                if let Ok(Some(at)) = self.extend_idle(&name, row.nonce, later, &sent).await {
                    metadata.time_expires = Some(at);
                }
            }
            Ok(row)
        };
        let result = self.call(&sent, access).await;
        // Nobody sees whether an extension came about that was cut off by the deadline: what failed is a read.
        result.map_err(|e| match larder_traits::Classify::kind(&e) {
            ErrorKind::Timeout => crate::error::timed_out(),
            _ => e,
        })
    }

    /// Moves the deadline of an object that was read, unless it was replaced since. Returns the deadline it has then.
    async fn extend_idle(
        &self,
        name: &str,
        nonce: Option<Nonce>,
        later: SystemTime,
        sent: &Sent,
    ) -> Result<Option<SystemTime>, Fault> {
        let row = self
            .load(name, Want::Payload)
            .await
            .map_err(|e| e.not_applied())?;
        let State::Object(metadata) = &row.state else {
            return Ok(None);
        };
        if row.nonce != nonce || metadata.is_expired(self.now()) {
            return Ok(None);
        }
        let mut metadata = metadata.clone();
        metadata.time_expires = Some(later);
        let state = State::Object(metadata);
        let swapped = self.swap(name, &row, state, &row.payload, sent).await?;
        Ok(match swapped {
            Swapped::Done => Some(later),
            Swapped::Lost => None,
        })
    }

    async fn put(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
        keep_redirect: bool,
    ) -> Result<Option<Tombstone>, BackendError> {
        let name = self.name_of(id)?;
        self.check_payload(payload.len())?;
        // Refused before anything is asked of the server.
        metadata.stamped(self.now(), len_u64(&payload))?;
        let decide = |row: &Row, now| {
            if let (State::Redirect(there), true) = (&row.state, keep_redirect) {
                return Ok(Decision::Answer(Some(there.clone())));
            }
            let state = State::Object(metadata.stamped(now, len_u64(&payload))?);
            Ok(Decision::Write(state, payload.clone(), None))
        };
        let sent = Sent::default();
        let put = self.update(&name, Want::Head, &sent, decide);
        Ok(self.call(&sent, put).await?)
    }

    async fn delete(
        &self,
        id: &ObjectId,
        keep_redirect: bool,
    ) -> Result<Option<Tombstone>, BackendError> {
        let name = self.name_of(id)?;
        let decide = |row: &Row, _| {
            Ok(match &row.state {
                State::Absent => Decision::Answer(None),
                State::Redirect(there) if keep_redirect => Decision::Answer(Some(there.clone())),
                State::Object(_) | State::Redirect(_) => {
                    Decision::Write(State::Absent, Bytes::new(), None)
                }
            })
        };
        let sent = Sent::default();
        let delete = self.update(&name, Want::Head, &sent, decide);
        Ok(self.call(&sent, delete).await?)
    }
}

/// A payload as one chunk, or as none if it is empty.
fn stream_of(payload: Bytes) -> PayloadStream {
    stream::iter((!payload.is_empty()).then_some(Ok(payload))).boxed()
}

fn unexpected(tombstone: Tombstone) -> BackendError {
    BackendError::UnexpectedTombstone(Box::new(tombstone))
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Backend for S3HighVolume {
    fn name(&self) -> &'static str {
        "s3"
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        mut stream: ClientStream,
    ) -> Result<(), BackendError> {
        self.name_of(id)?;
        let mut payload = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(BackendError::Client)?;
            self.check_payload(payload.len().saturating_add(chunk.len()))?;
            payload.extend_from_slice(&chunk);
        }
        self.put(id, metadata, payload.freeze(), false).await?;
        Ok(())
    }

    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        let row = self.access(id, Want::Payload).await?;
        match row.state {
            State::Absent => Ok(None),
            State::Object(metadata) => Ok(Some((metadata, stream_of(row.payload)))),
            State::Redirect(tombstone) => Err(unexpected(tombstone)),
        }
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        match self.access(id, Want::Head).await?.state {
            State::Absent => Ok(None),
            State::Object(metadata) => Ok(Some(metadata)),
            State::Redirect(tombstone) => Err(unexpected(tombstone)),
        }
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        self.delete(id, false).await?;
        Ok(())
    }

    async fn join(&self) {
        self.wire.settled().await;
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl HighVolumeBackend for S3HighVolume {
    async fn put_non_tombstone(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<Option<Tombstone>, BackendError> {
        self.put(id, metadata, payload, true).await
    }

    async fn get_tiered_object(&self, id: &ObjectId) -> Result<TieredGet, BackendError> {
        let row = self.access(id, Want::Payload).await?;
        Ok(match row.state {
            State::Absent => TieredGet::NotFound,
            State::Object(metadata) => TieredGet::Object(metadata, stream_of(row.payload)),
            State::Redirect(tombstone) => TieredGet::Tombstone(tombstone),
        })
    }

    async fn get_tiered_metadata(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError> {
        Ok(match self.access(id, Want::Head).await?.state {
            State::Absent => TieredMetadata::NotFound,
            State::Object(metadata) => TieredMetadata::Object(metadata),
            State::Redirect(tombstone) => TieredMetadata::Tombstone(tombstone),
        })
    }

    async fn delete_non_tombstone(&self, id: &ObjectId) -> Result<Option<Tombstone>, BackendError> {
        self.delete(id, true).await
    }

    async fn compare_and_write(
        &self,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Result<bool, BackendError> {
        let name = self.name_of(id)?;
        current.map(|current| self.name_of(current)).transpose()?;
        match &write {
            TieredWrite::Tombstone(tombstone) => {
                self.name_of(&tombstone.target)?;
            }
            TieredWrite::Object(_, payload) => self.check_payload(payload.len())?,
            TieredWrite::Delete => {}
        }
        stamped(&write, self.now())?;
        let decide = |row: &Row, now| decide(row, now, current, &write);
        let sent = Sent::default();
        let swap = self.update(&name, Want::Head, &sent, decide);
        Ok(self.call(&sent, swap).await?)
    }

    /// A new version of the row as it is: no earlier write can find the version any more that it was made for.
    async fn fence(&self, id: &ObjectId) -> Result<(), BackendError> {
        let name = self.name_of(id)?;
        let decide = |row: &Row, _| Ok(Decision::Write(row.state.clone(), row.payload.clone(), ()));
        let sent = Sent::default();
        let fence = self.update(&name, Want::Payload, &sent, decide);
        Ok(self.call(&sent, fence).await?)
    }

    async fn extend_expiry(
        &self,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        let name = self.name_of(id)?;
        self.name_of(target)?;
        // Cut to milliseconds as every deadline is, by the one rule that there is for it.
        let mut wanted =
            Tombstone::new(target.clone(), ExpirationPolicy::TimeToLive(Duration::ZERO));
        wanted.time_expires = Some(at);
        let wanted = wanted.stamped(self.now())?.time_expires;
        let decide = |row: &Row, _| {
            Ok(match &row.state {
                State::Redirect(there) if there.target == *target => {
                    // No deadline at all is the latest one, and `None` would be the earliest of options.
                    if there.time_expires.is_none() || there.time_expires >= wanted {
                        Decision::Answer(true)
                    } else {
                        let mut later = there.clone();
                        later.time_expires = wanted;
                        Decision::Write(State::Redirect(later), Bytes::new(), true)
                    }
                }
                State::Absent | State::Object(_) | State::Redirect(_) => Decision::Answer(false),
            })
        };
        let sent = Sent::default();
        let extend = self.update(&name, Want::Head, &sent, decide);
        Ok(self.call(&sent, extend).await?)
    }
}

/// What the write leaves in the row.
fn stamped(write: &TieredWrite, now: SystemTime) -> Result<(State, Bytes), Fault> {
    Ok(match write {
        TieredWrite::Tombstone(tombstone) => {
            (State::Redirect(tombstone.stamped(now)?), Bytes::new())
        }
        TieredWrite::Object(metadata, payload) => (
            State::Object(metadata.stamped(now, len_u64(payload))?),
            payload.clone(),
        ),
        TieredWrite::Delete => (State::Absent, Bytes::new()),
    })
}

/// The truth table of HV-5.
fn decide(
    row: &Row,
    now: SystemTime,
    current: Option<&ObjectId>,
    write: &TieredWrite,
) -> Result<Decision<bool>, Fault> {
    let (state, payload) = stamped(write, now)?;
    let new_target = match &state {
        State::Redirect(tombstone) => Some(&tombstone.target),
        State::Absent | State::Object(_) => None,
    };
    let removes = state == State::Absent;
    let answer = match (&row.state, current) {
        // A redirect is there: ours already, or the one that the caller saw, or somebody else's.
        (State::Redirect(old), _) if Some(&old.target) == new_target => Some(true),
        (State::Redirect(old), Some(current)) if old.target == *current => None,
        (State::Redirect(_), _) => Some(false),
        // None is there, and the caller saw none.
        (State::Absent, None) if removes => Some(true),
        (State::Absent | State::Object(_), None) => None,
        // The caller's redirect has ended. A delete has nothing left to do; the rest must look again.
        (State::Absent, Some(_)) => Some(removes),
        // The caller's redirect was replaced by an object, which is newer than an object or a delete of the caller's;
        // a redirect must not hide it.
        (State::Object(_), Some(_)) => Some(new_target.is_none()),
    };
    Ok(match answer {
        Some(answer) => Decision::Answer(answer),
        None => Decision::Write(state, payload, true),
    })
}
