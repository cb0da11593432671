//! Puts: a payload is written to a file outside the objects as it comes, and the whole file is moved to its place.
//!
//! # Order
//!
//! The file is durable before it is moved, the move is made under the lock of the folder that it goes to, and then the
//! folder is made durable. Until the move nobody can see anything of the put, and what is there of it is removed when
//! the put fails or is dropped, or when the folder is opened after a crash.
//!
//! # Calls that are dropped
//!
//! What is declared is [`LateLanding::Fenced`](larder_traits::LateLanding::Fenced), for this reason (C-6). With the lock
//! in hand, and before the move or the removal, a call asks whether its future is still there. If it is not, nothing
//! happens. If it is, whatever comes later and changes the object needs the same lock and so comes after, on this
//! handle, on another or in another process. A read that is made later on this handle or its clones waits until the
//! call has come to its end. A read through another handle may fall into the moment between that question and the move,
//! and still see the state before it.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use larder_traits::stash::codec;
use larder_traits::{ErrorKind, Fault, Metadata};

use super::format::{
    self, NO_SUM, Nonce, UNIT_LEN_BYTES, UNIT_PAYLOAD_LEN_BYTES, as_u64, head, room, seal,
};
use super::name::Name;
use super::place::{Place, Temp};
use super::threads::Call;
use crate::plain::{failed, gone, kind_of, lock, unique};

/// How many units are gathered before they are written.
const BATCH_UNITS: usize = 4;

/// An object on its way in.
pub(super) struct Upload {
    place: Arc<Place>,
    id: String,
    metadata: Metadata,
    nonce: Nonce,
    head_len: usize,
    /// There once the first units have been written.
    temp: Option<Temp>,
    /// Units that are not written yet, each whole one with room for its digest.
    batch: Vec<u8>,
    written_units: u64,
    payload_len: u64,
}

/// Refuses what is longer than a bound (C-4).
pub(super) fn bounded(what: &str, len: u64, max: u64) -> Result<(), Fault> {
    if len <= max {
        return Ok(());
    }
    let message = format!("{what}: {len}, and at most {max} are allowed");
    Err(Fault::not_applied(ErrorKind::InvalidInput, message))
}

impl Upload {
    /// Begins an upload, which touches nothing yet. Refuses what can be refused before the payload is known.
    pub(super) fn new(place: &Arc<Place>, id: String, metadata: &Metadata) -> Result<Self, Fault> {
        place.check_writable()?;
        let stamped = metadata.stamped(place.config.clock.now(), u64::MAX)?;
        let metadata_len = codec::encode(&stamped)?.len();
        let max = place.config.metadata_len_bytes_max;
        bounded("bytes of metadata", as_u64(metadata_len), as_u64(max))?;
        Ok(Self {
            place: Arc::clone(place),
            head_len: room(&id, metadata_len),
            id,
            metadata: metadata.clone(),
            nonce: unique()?,
            temp: None,
            batch: Vec::new(),
            written_units: 0,
            payload_len: 0,
        })
    }

    /// Makes sure that so much more may come.
    pub(super) fn admit(&mut self, len: usize) -> Result<(), Fault> {
        let max = self.place.caps().high_volume.payload_len_bytes_max;
        let len = self.payload_len.saturating_add(as_u64(len));
        bounded("bytes of a payload", len, max)?;
        self.payload_len = len;
        Ok(())
    }

    /// Takes as much of `chunk` as there is room for before something must be written.
    pub(super) fn fill(&mut self, chunk: &mut Bytes) {
        while chunk.has_remaining() && !self.is_full() {
            let in_unit = self.batch.len() % UNIT_LEN_BYTES;
            let len = chunk.len().min(UNIT_PAYLOAD_LEN_BYTES - in_unit);
            self.batch.extend_from_slice(&chunk[..len]);
            chunk.advance(len);
            if in_unit + len == UNIT_PAYLOAD_LEN_BYTES {
                self.batch.extend_from_slice(&NO_SUM);
            }
        }
    }

    /// Whether something must be written before more can be taken.
    pub(super) fn is_full(&self) -> bool {
        self.batch.len() == BATCH_UNITS * UNIT_LEN_BYTES
    }

    /// Writes what was gathered.
    pub(super) fn write(&mut self, call: &Call<'_>) -> Result<(), Fault> {
        let unwritten = || failed("an object could not be written");
        if !self.batch.len().is_multiple_of(UNIT_LEN_BYTES) {
            // The last unit, which is not a whole one.
            self.batch.extend_from_slice(&NO_SUM);
        }
        let temp = match self.temp.take() {
            Some(temp) => temp,
            None => self.place.temp(call)?,
        };
        let temp = self.temp.insert(temp);
        if !self.batch.is_empty() {
            seal(&self.nonce, self.written_units, &mut self.batch);
            let at = as_u64(self.head_len) + self.written_units * as_u64(UNIT_LEN_BYTES);
            temp.write_at(&self.batch, at).map_err(unwritten())?;
            self.written_units += as_u64(self.batch.len().div_ceil(UNIT_LEN_BYTES));
            self.batch.clear();
        }
        Ok(())
    }

    /// Writes the rest, and makes an object of it.
    pub(super) fn finish(mut self, call: &Call<'_>) -> Result<(), Fault> {
        self.write(call)?;
        let unwritten = || failed("an object could not be written");
        let place = &self.place;
        let metadata = self
            .metadata
            .stamped(place.config.clock.now(), self.payload_len)?;
        let head = head(
            self.nonce,
            &self.id,
            &metadata,
            self.payload_len,
            self.head_len,
        )?;
        let Some(mut temp) = self.temp.take() else {
            let message = "an upload has no file";
            return Err(Fault::not_applied(ErrorKind::Internal, message));
        };
        temp.write_at(&head, 0).map_err(unwritten())?;
        temp.sync().map_err(unwritten())?;
        let name = Name::of(&self.id);
        let shard = place.durable_shard(name.shard)?;
        lock(&shard.dir, call)?;
        place.check_writable()?;
        if call.is_gone() {
            return Err(gone());
        }
        // Commit point: past this line a failure may still have taken effect.
        temp.arrive(&shard.path.join(&name.file)).map_err(|e| {
            let message = "an object could not be moved to its place";
            match kind_of(&e) {
                // These are told before anything is changed; of a failed transfer nobody knows.
                kind @ (ErrorKind::NoSpace | ErrorKind::PermissionDenied) => {
                    Fault::not_applied(kind, message).because(e)
                }
                kind => Fault::unknown(kind, message).because(e),
            }
        })?;
        // Whoever comes next comes after it now, and need not wait for the sync.
        drop(shard.dir.unlock());
        drop(temp);
        place.sync(&shard)
    }
}

/// Removes an object.
pub(super) fn delete(place: &Place, id: &str, call: &Call<'_>) -> Result<(), Fault> {
    place.check_writable()?;
    let name = Name::of(id);
    let Some(shard) = place.shard(name.shard)? else {
        return Ok(());
    };
    lock(&shard.dir, call)?;
    place.check_writable()?;
    if call.is_gone() {
        return Err(gone());
    }
    // Commit point: past this line a failure may still have taken effect.
    let removed = place.medium.remove(&shard.path.join(&name.file));
    removed.map_err(|e| {
        let message = "an object could not be removed";
        Fault::unknown(kind_of(&e), message).because(e)
    })?;
    drop(shard.dir.unlock());
    // Also where it was gone already: whoever removed it may not have lived to make that durable.
    place.sync(&shard)
}

const _: () = assert!(format::UNIT_LEN_BYTES > format::NO_SUM.len());
