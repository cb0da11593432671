//! [`Backend`] and [`HighVolumeBackend`]: a table of rows, and one of payloads apart from it.
//!
//! Each call that writes reads the row, decides and writes within one transaction that has had the write lock from its
//! start, so that nothing can come between the comparison and the write (HV-7). Each row has a number that no other
//! row ever had: it names the payload, and it is what an extension of a deadline compares (HV-8).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use larder_traits::stash::codec;
use larder_traits::{
    Backend, BackendError, Classify, ClientStream, ExpirationPolicy, Fault, GetResponse,
    HighVolumeBackend, Metadata, ObjectId, PayloadStream, TieredGet, TieredMetadata, TieredWrite,
    Tombstone,
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::checksum::Sum;
use crate::error::{bounded, corrupt, native};
use crate::native::SqlitePlace;
use crate::time::{millis_reached, moment};
use crate::writer::{SWEPT_MAX, Sweep, Tx, Undo};

/// The objects and redirects of a file.
///
/// Reading an object and reading its metadata both count as an access that extends a `TimeToIdle` deadline (HV-8); the
/// answer shows the deadline as it is after the access. A payload is one value of the file and is held in memory while
/// it is written or read, up to the declared bound.
#[derive(Clone, Debug)]
pub struct SqliteHighVolume(pub(crate) SqlitePlace);

impl SqliteHighVolume {
    /// The text form under which the row of `id` is stored.
    fn text_of(&self, id: &ObjectId) -> Result<String, Fault> {
        let max = self.0.config().caps.high_volume.id_len_bytes_max;
        let text = id.to_string();
        bounded("bytes of an object id's text", text.len(), max)?;
        Ok(text)
    }

    fn check_payload(&self, len: usize) -> Result<(), Fault> {
        let max = self.0.config().caps.high_volume.payload_len_bytes_max;
        bounded("bytes of a payload", len, max)
    }

    /// The row as it is after this access to it, with its payload if that is asked for.
    async fn access(
        &self,
        id: &ObjectId,
        with_payload: bool,
    ) -> Result<Option<(State, Bytes)>, Fault> {
        let id = self.text_of(id)?;
        let config = Arc::clone(self.0.config());
        let look = {
            let id = id.clone();
            move |conn: &Connection| {
                let now = config.clock.now();
                let Some(row) = find(conn, &id)? else {
                    return Ok(Seen::Absent);
                };
                if row.state.is_expired(now) {
                    return Ok(if row.state.may_be_extended() {
                        Seen::Doubtful
                    } else {
                        Seen::Absent
                    });
                }
                let payload = match &row.state {
                    State::Object(_) if with_payload => load_payload(conn, row.number)?,
                    State::Object(_) | State::Redirect(_) => Bytes::new(),
                };
                let due = match &row.state {
                    State::Object(metadata) => metadata.deadline_after_access(now).is_some(),
                    State::Redirect(_) => false,
                };
                Ok::<_, Fault>(Seen::Alive(row, payload, due))
            }
        };
        let (mut row, payload, due) = match self.0.read(look).await? {
            Seen::Absent => return Ok(None),
            Seen::Doubtful => return self.confirm(id, with_payload).await,
            Seen::Alive(row, payload, due) => (row, payload, due),
        };
        if due {
            let number = row.number;
            let extended = self
                .0
                .write(Undo::Everything, move |tx| extend_idle(tx, &id, number))
                .await;
            // A failure leaves the deadline as it was, and the answer says so.
            if let (Ok(Some(later)), State::Object(metadata)) = (extended, &mut row.state) {
                metadata.time_expires = Some(later);
            }
        }
        Ok(Some((row.state, payload)))
    }

    /// Finds out whether a row whose deadline has come is dead, and removes it if it is.
    ///
    /// An extension that began before the deadline may be on its way to its commit, and once that is done the row
    /// lives. Whoever answers "gone" must not be contradicted by a later read, so the answer is given with the write
    /// lock held: the extension came first, or finds nothing to extend.
    async fn confirm(
        &self,
        id: String,
        with_payload: bool,
    ) -> Result<Option<(State, Bytes)>, Fault> {
        let look = move |tx: &Tx<'_>| {
            let Some(row) = find(tx.conn(), &id)? else {
                return Ok(None);
            };
            if row.state.is_expired(tx.now()) {
                remove(tx.conn(), &id)?;
                return Ok(None);
            }
            let payload = match &row.state {
                State::Object(_) if with_payload => load_payload(tx.conn(), row.number)?,
                State::Object(_) | State::Redirect(_) => Bytes::new(),
            };
            Ok::<_, Fault>(Some((row.state, payload)))
        };
        // Removing what is dead is no effect that anybody could see, so the read as such was not applied.
        self.0.write(Undo::Everything, look).await.map_err(|e| {
            Fault::not_applied(e.kind(), "whether an object has expired cannot be told").because(e)
        })
    }

    async fn put(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
        keep_redirect: bool,
    ) -> Result<Option<Tombstone>, BackendError> {
        let id = self.text_of(id)?;
        self.check_payload(payload.len())?;
        let metadata = metadata.clone();
        let put = move |tx: &Tx<'_>| {
            let now = tx.now();
            let new = New::object(&metadata, payload, now)?;
            let there = if keep_redirect {
                let row = find(tx.conn(), &id)?;
                let number = row.as_ref().map(|row| row.number);
                if let Some(tombstone) = row.and_then(|row| row.state.live_redirect(now)) {
                    return Ok(Some(tombstone));
                }
                number
            } else {
                // What is overwritten unseen may be damaged.
                number_of(tx.conn(), &id)?
            };
            replace(tx, &id, there, &new)?;
            Ok(None)
        };
        self.0.write(Undo::Everything, put).await
    }

    async fn delete(
        &self,
        id: &ObjectId,
        keep_redirect: bool,
    ) -> Result<Option<Tombstone>, BackendError> {
        let id = self.text_of(id)?;
        let delete = move |tx: &Tx<'_>| {
            let live_redirect = |row: Stored| row.state.live_redirect(tx.now());
            if keep_redirect && let Some(there) = find(tx.conn(), &id)?.and_then(live_redirect) {
                return Ok(Some(there));
            }
            remove(tx.conn(), &id)?;
            Ok(None)
        };
        self.0.write(Undo::Everything, delete).await
    }
}

/// A payload as one chunk, or as none if it is empty.
fn stream_of(payload: Bytes) -> PayloadStream {
    stream::iter((!payload.is_empty()).then_some(Ok(payload))).boxed()
}

fn unexpected(tombstone: Tombstone) -> BackendError {
    BackendError::UnexpectedTombstone(Box::new(tombstone))
}

#[async_trait]
impl Backend for SqliteHighVolume {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        mut stream: ClientStream,
    ) -> Result<(), BackendError> {
        self.text_of(id)?;
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
        match self.access(id, true).await? {
            None => Ok(None),
            Some((State::Object(metadata), payload)) => Ok(Some((metadata, stream_of(payload)))),
            Some((State::Redirect(tombstone), _)) => Err(unexpected(tombstone)),
        }
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        match self.access(id, false).await? {
            None => Ok(None),
            Some((State::Object(metadata), _)) => Ok(Some(metadata)),
            Some((State::Redirect(tombstone), _)) => Err(unexpected(tombstone)),
        }
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        self.delete(id, false).await?;
        Ok(())
    }

    async fn join(&self) {
        self.0.settled().await;
    }
}

#[async_trait]
impl HighVolumeBackend for SqliteHighVolume {
    async fn put_non_tombstone(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<Option<Tombstone>, BackendError> {
        self.put(id, metadata, payload, true).await
    }

    async fn get_tiered_object(&self, id: &ObjectId) -> Result<TieredGet, BackendError> {
        Ok(match self.access(id, true).await? {
            None => TieredGet::NotFound,
            Some((State::Object(metadata), payload)) => {
                TieredGet::Object(metadata, stream_of(payload))
            }
            Some((State::Redirect(tombstone), _)) => TieredGet::Tombstone(tombstone),
        })
    }

    async fn get_tiered_metadata(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError> {
        Ok(match self.access(id, false).await? {
            None => TieredMetadata::NotFound,
            Some((State::Object(metadata), _)) => TieredMetadata::Object(metadata),
            Some((State::Redirect(tombstone), _)) => TieredMetadata::Tombstone(tombstone),
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
        let id = self.text_of(id)?;
        current.map(|current| self.text_of(current)).transpose()?;
        match &write {
            TieredWrite::Tombstone(tombstone) => {
                self.text_of(&tombstone.target)?;
            }
            TieredWrite::Object(_, payload) => self.check_payload(payload.len())?,
            TieredWrite::Delete => {}
        }
        let current = current.cloned();
        let swap = move |tx: &Tx<'_>| Ok(compare_and_write(tx, &id, current.as_ref(), write)?);
        self.0.write(Undo::Everything, swap).await
    }

    /// A commit of its own: whatever came before it has ended by then, in every process, and a commit that failed
    /// before it can no longer come back in a recovery, since this one lies in its place.
    async fn fence(&self, id: &ObjectId) -> Result<(), BackendError> {
        self.text_of(id)?;
        let touch = |tx: &Tx<'_>| {
            tx.touch();
            Ok(())
        };
        self.0.write(Undo::Everything, touch).await
    }

    async fn extend_expiry(
        &self,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        let id = self.text_of(id)?;
        self.text_of(target)?;
        let target = target.clone();
        let extend = move |tx: &Tx<'_>| Ok(extend_redirect(tx, &id, &target, at)?);
        self.0.write(Undo::Everything, extend).await
    }
}

/// What a row holds; no row is the third state.
enum State {
    Object(Metadata),
    Redirect(Tombstone),
}

/// A row as it is stored.
struct Stored {
    number: i64,
    state: State,
}

/// What a read found of a row.
#[expect(
    clippy::large_enum_variant,
    reason = "one is made for a read and taken apart by it"
)]
enum Seen {
    Absent,
    /// Its deadline has come, and somebody may be about to move it.
    Doubtful,
    /// With its payload, if that was asked for, and whether this access is to extend its deadline.
    Alive(Stored, Bytes, bool),
}

/// What a call is about to store, encoded: it may be refused for that, but not once something was written.
struct New {
    state: State,
    about: Vec<u8>,
    payload: Bytes,
}

impl New {
    fn object(metadata: &Metadata, payload: Bytes, now: SystemTime) -> Result<Self, Fault> {
        let size = u64::try_from(payload.len()).expect("a length in memory fits 64 bits");
        Self::of(State::Object(metadata.stamped(now, size)?), payload)
    }

    fn redirect(tombstone: &Tombstone, now: SystemTime) -> Result<Self, Fault> {
        Self::of(State::Redirect(tombstone.stamped(now)?), Bytes::new())
    }

    fn of(state: State, payload: Bytes) -> Result<Self, Fault> {
        Ok(Self {
            about: state.encode()?,
            state,
            payload,
        })
    }
}

impl State {
    fn expires(&self) -> Option<SystemTime> {
        match self {
            Self::Object(metadata) => metadata.time_expires,
            Self::Redirect(tombstone) => tombstone.time_expires,
        }
    }

    fn is_expired(&self, now: SystemTime) -> bool {
        match self {
            Self::Object(metadata) => metadata.is_expired(now),
            Self::Redirect(tombstone) => tombstone.is_expired(now),
        }
    }

    fn live_redirect(self, now: SystemTime) -> Option<Tombstone> {
        match self {
            Self::Redirect(tombstone) if !tombstone.is_expired(now) => Some(tombstone),
            Self::Redirect(_) | Self::Object(_) => None,
        }
    }

    fn encode(&self) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Object(metadata) => codec::encode_unproved(metadata),
            Self::Redirect(tombstone) => codec::encode_unproved(tombstone),
        }
    }

    /// By an access, or by `extend_expiry`.
    fn may_be_extended(&self) -> bool {
        match self {
            Self::Object(metadata) => {
                matches!(metadata.expiration_policy, ExpirationPolicy::TimeToIdle(_))
            }
            Self::Redirect(_) => true,
        }
    }
}

fn row_sum(id: &str, number: i64, redirect: bool, about: &[u8], expires: Option<i64>) -> Sum {
    let of_id = Sum::new().bytes(id.as_bytes()).number(number);
    of_id.number(redirect.into()).bytes(about).maybe(expires)
}

/// The row of `id`, if it is there and alive at `now`.
fn load(conn: &Connection, id: &str, now: SystemTime) -> Result<Option<Stored>, Fault> {
    Ok(find(conn, id)?.filter(|row| !row.state.is_expired(now)))
}

/// The row of `id`, dead or alive. Never looks at the payload (HV-3).
fn find(conn: &Connection, id: &str) -> Result<Option<Stored>, Fault> {
    let sql = "SELECT number, redirect, about, expires, crc FROM hv_rows WHERE id = ?1";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let mut rows = statement.query(params![id]).map_err(native)?;
    let Some(row) = rows.next().map_err(native)? else {
        return Ok(None);
    };
    let number = row.get(0).map_err(native)?;
    let redirect: bool = row.get(1).map_err(native)?;
    let about: Vec<u8> = row.get(2).map_err(native)?;
    let expires: Option<i64> = row.get(3).map_err(native)?;
    let crc = row.get(4).map_err(native)?;
    row_sum(id, number, redirect, &about, expires).check(crc)?;
    // The deadline of the row counts, since an extension moves that alone.
    let expires = expires.map(moment).transpose()?;
    let state = if redirect {
        let mut tombstone: Tombstone = codec::decode(&about)?;
        tombstone.time_expires = expires;
        State::Redirect(tombstone)
    } else {
        let mut metadata: Metadata = codec::decode(&about)?;
        metadata.time_expires = expires;
        State::Object(metadata)
    };
    Ok(Some(Stored { number, state }))
}

fn load_payload(conn: &Connection, number: i64) -> Result<Bytes, Fault> {
    let sql = "SELECT payload, crc FROM hv_payloads WHERE number = ?1";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let mut rows = statement.query(params![number]).map_err(native)?;
    let row = rows.next().map_err(native)?;
    let row = row.ok_or_else(|| corrupt("an object has lost its payload"))?;
    let payload: Vec<u8> = row.get(0).map_err(native)?;
    let crc = row.get(1).map_err(native)?;
    payload_sum(number, &payload).check(crc)?;
    Ok(payload.into())
}

fn payload_sum(number: i64, payload: &[u8]) -> Sum {
    Sum::new().number(number).bytes(payload)
}

/// The number of whatever is at `id`, dead or alive, sound or damaged.
fn number_of(conn: &Connection, id: &str) -> Result<Option<i64>, Fault> {
    let sql = "SELECT number FROM hv_rows WHERE id = ?1";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let number = statement.query_row(params![id], |row| row.get(0));
    number.optional().map_err(native)
}

/// Puts `new` in the place of the row of the number `there`.
fn replace(tx: &Tx<'_>, id: &str, there: Option<i64>, new: &New) -> Result<(), Fault> {
    let conn = tx.conn();
    if let Some(old) = there {
        remove_payload(conn, old)?;
    }
    let number = tx.number();
    if let State::Object(_) = new.state {
        let sql = "INSERT INTO hv_payloads (number, payload, crc) VALUES (?1, ?2, ?3)";
        let crc = payload_sum(number, &new.payload).get();
        let mut statement = conn.prepare_cached(sql).map_err(native)?;
        let values = params![number, &new.payload[..], crc];
        statement.execute(values).map_err(native)?;
    }
    store(conn, id, number, &new.state, &new.about)?;
    if tx.is_first_sweep(Sweep::HighVolume) {
        sweep(conn, tx.now())?;
    }
    Ok(())
}

fn store(
    conn: &Connection,
    id: &str,
    number: i64,
    state: &State,
    about: &[u8],
) -> Result<(), Fault> {
    let redirect = matches!(state, State::Redirect(_));
    let expires = state.expires().map(millis_reached);
    let crc = row_sum(id, number, redirect, about, expires).get();
    let sql = "INSERT INTO hv_rows (id, number, redirect, about, expires, crc)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (id) DO UPDATE
               SET number = ?2, redirect = ?3, about = ?4, expires = ?5, crc = ?6";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let values = params![id, number, redirect, about, expires, crc];
    statement.execute(values).map_err(native)?;
    Ok(())
}

/// Stores the row of this number with another deadline.
fn restore(conn: &Connection, id: &str, number: i64, state: &State) -> Result<(), Fault> {
    store(conn, id, number, state, &state.encode()?)
}

fn remove(conn: &Connection, id: &str) -> Result<(), Fault> {
    let sql = "DELETE FROM hv_rows WHERE id = ?1 RETURNING number";
    remove_by(conn, sql, params![id])
}

/// Removes some of what has expired, the oldest first. An index knows them, so that nothing to do costs nothing.
fn sweep(conn: &Connection, now: SystemTime) -> Result<(), Fault> {
    let sql = "DELETE FROM hv_rows WHERE id IN (
                   SELECT id FROM hv_rows INDEXED BY hv_expiry
                   WHERE expires IS NOT NULL AND expires <= ?1 ORDER BY expires LIMIT ?2)
               RETURNING number";
    let limit = i64::try_from(SWEPT_MAX).unwrap_or(i64::MAX);
    remove_by(conn, sql, params![millis_reached(now), limit])
}

/// Removes rows by a statement that returns their numbers, and their payloads with them.
fn remove_by(conn: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<(), Fault> {
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    let numbers = statement.query_map(values, |row| row.get::<_, i64>(0));
    let numbers: Vec<i64> = numbers.and_then(Iterator::collect).map_err(native)?;
    numbers
        .into_iter()
        .try_for_each(|number| remove_payload(conn, number))
}

/// Removes the payload of this number; a redirect has none.
fn remove_payload(conn: &Connection, number: i64) -> Result<(), Fault> {
    let sql = "DELETE FROM hv_payloads WHERE number = ?1";
    let mut statement = conn.prepare_cached(sql).map_err(native)?;
    statement.execute(params![number]).map_err(native)?;
    Ok(())
}

/// The truth table of HV-5.
fn compare_and_write(
    tx: &Tx<'_>,
    id: &str,
    current: Option<&ObjectId>,
    write: TieredWrite,
) -> Result<bool, Fault> {
    let now = tx.now();
    let new = match write {
        TieredWrite::Tombstone(tombstone) => Some(New::redirect(&tombstone, now)?),
        TieredWrite::Object(metadata, payload) => Some(New::object(&metadata, payload, now)?),
        TieredWrite::Delete => None,
    };
    let row = find(tx.conn(), id)?;
    let number = row.as_ref().map(|row| row.number);
    let there = row.map(|row| row.state).filter(|it| !it.is_expired(now));
    let new_target = match &new {
        Some(New {
            state: State::Redirect(tombstone),
            ..
        }) => Some(&tombstone.target),
        _ => None,
    };
    match (there, current) {
        // A redirect is there: ours already, or the one that the caller saw, or somebody else's.
        (Some(State::Redirect(old)), _) if Some(&old.target) == new_target => return Ok(true),
        (Some(State::Redirect(old)), Some(current)) if old.target == *current => {}
        (Some(State::Redirect(_)), _) => return Ok(false),
        // None is there, and the caller saw none.
        (None | Some(State::Object(_)), None) => {}
        // The caller's redirect has ended. A delete has nothing left to do; the rest must look again.
        (None, Some(_)) => return Ok(new.is_none()),
        // The caller's redirect was replaced by an object, which is newer than an object or a delete of the caller's;
        // a redirect must not hide it.
        (Some(State::Object(_)), Some(_)) => return Ok(new_target.is_none()),
    }
    match new {
        Some(new) => replace(tx, id, number, &new)?,
        None => remove(tx.conn(), id)?,
    }
    Ok(true)
}

/// Moves the deadline of an object that was read, unless it was replaced meanwhile or has died (HV-8). Returns the
/// deadline that it has then.
fn extend_idle(tx: &Tx<'_>, id: &str, number: i64) -> Result<Option<SystemTime>, Fault> {
    let now = tx.now();
    match load(tx.conn(), id, now)? {
        Some(Stored {
            number: same,
            state: State::Object(mut metadata),
        }) if same == number => {
            if let Some(later) = metadata.deadline_after_access(now) {
                metadata.time_expires = Some(later);
                restore(tx.conn(), id, number, &State::Object(metadata))?;
                return Ok(Some(later));
            }
            Ok(metadata.time_expires)
        }
        _ => Ok(None),
    }
}

fn extend_redirect(
    tx: &Tx<'_>,
    id: &str,
    target: &ObjectId,
    at: SystemTime,
) -> Result<bool, Fault> {
    let now = tx.now();
    // Cut to milliseconds as every deadline is, by the one rule that there is for it.
    let mut wanted = Tombstone::new(target.clone(), ExpirationPolicy::TimeToLive(Duration::ZERO));
    wanted.time_expires = Some(at);
    let wanted = wanted.stamped(now)?.time_expires;
    let Some(Stored {
        number,
        state: State::Redirect(mut there),
    }) = load(tx.conn(), id, now)?
    else {
        return Ok(false);
    };
    if there.target != *target {
        return Ok(false);
    }
    // No deadline at all is the latest one, and `None` would be the earliest of options.
    if there.time_expires.is_some() && there.time_expires < wanted {
        there.time_expires = wanted;
        restore(tx.conn(), id, number, &State::Redirect(there))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
