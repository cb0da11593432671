//! Gets: an object's file is opened once and read to its end, whatever becomes of the name meanwhile.
//!
//! # Expiry
//!
//! A deadline that an access puts off is written into the file in its place, under the lock of the file and after
//! another look at the clock. So it can only land in the version that was read: where that was replaced, the file has
//! no name any more. And whoever says that an idle object is dead has made sure under the same lock, so no access that
//! began earlier can revive it afterwards (HV-8).

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use larder_traits::{ExpirationPolicy, Fault, Metadata, PayloadStream};
use tokio::sync::oneshot;

use super::format::{
    DEADLINE_AT, Lead, Nonce, PAGE_LEN_BYTES, UNIT_LEN_BYTES, as_u64, deadline, deadline_sector,
    proven,
};
use super::name::Name;
use super::place::Place;
use super::threads::Call;
use crate::plain::{Medium, SECTOR_LEN_BYTES, corrupt, failed, lock, lost};

/// How many units are read at once.
const BATCH_UNITS: u64 = 4;

/// An object's file, open, its head read and proven.
pub(super) struct Found {
    path: PathBuf,
    file: File,
    lead: Lead,
    pub(super) id: String,
    pub(super) metadata: Metadata,
}

fn unread() -> impl FnOnce(io::Error) -> Fault {
    failed("an object could not be read")
}

/// Opens the file at `path`; `None` where there is none.
pub(super) fn open(
    medium: &Medium,
    path: PathBuf,
    call: &Call<'_>,
) -> Result<Option<Found>, Fault> {
    let Some(file) = medium.open(&path, false).map_err(unread())? else {
        return Ok(None);
    };
    let read = |into: &mut [u8], at| medium.read_at(&file, &path, into, at).map_err(unread());
    let file_len = file.metadata().map_err(unread())?.len();
    let mut head = vec![0; PAGE_LEN_BYTES];
    if file_len < as_u64(PAGE_LEN_BYTES) {
        return Err(corrupt("an object's file is cut short"));
    }
    read(&mut head, 0)?;
    let lead = Lead::of_sector(sector(&head, 0))?;
    if lead.file_len() != Some(file_len) {
        return Err(corrupt("an object's file is not as long as it says"));
    }
    let head_len = usize::try_from(lead.head_len);
    let head_len = head_len.map_err(|_e| corrupt("the head of an object's file is too long"))?;
    if head_len > PAGE_LEN_BYTES {
        head.resize(head_len, 0);
        read(&mut head[PAGE_LEN_BYTES..], as_u64(PAGE_LEN_BYTES))?;
    }
    let (id, mut metadata) = lead.body(&head)?;
    let id = String::from_utf8(id.to_vec());
    let id = id.map_err(|e| corrupt("an object's file holds no text for its id").because(e))?;
    metadata.time_expires = match deadline(&lead.nonce, sector(&head, SECTOR_LEN_BYTES)) {
        Ok(at) => at,
        // Somebody may be writing it at this moment.
        Err(_damaged) => {
            lock(&file, call)?;
            let at = read_deadline(medium, &file, &path, &lead.nonce)?;
            drop(file.unlock());
            at
        }
    };
    Ok(Some(Found {
        path,
        file,
        lead,
        id,
        metadata,
    }))
}

fn sector(head: &[u8], at: usize) -> &[u8; SECTOR_LEN_BYTES] {
    let sector = head[at..].first_chunk();
    sector.expect("a head has a page, and a page has both sectors")
}

fn read_deadline(
    medium: &Medium,
    file: &File,
    path: &Path,
    nonce: &Nonce,
) -> Result<Option<SystemTime>, Fault> {
    let mut sector = [0; SECTOR_LEN_BYTES];
    let read = medium.read_at(file, path, &mut sector, DEADLINE_AT);
    read.map_err(unread())?;
    deadline(nonce, &sector)
}

/// The object as it is after this access to it; `None` where it is absent or expired.
pub(super) fn access(
    place: &Arc<Place>,
    id: &str,
    call: &Call<'_>,
) -> Result<Option<Found>, Fault> {
    let name = Name::of(id);
    let Some(mut found) = open(&place.medium, place.path_of(&name), call)? else {
        return Ok(None);
    };
    if found.id != id {
        return Err(corrupt("an object's file holds another object"));
    }
    if found.is_dead(place, call)? {
        let (place, nonce) = (Arc::clone(place), found.lead.nonce);
        let wait = place.config.wait;
        let threads = place.threads.clone();
        threads.later(move || {
            // One that stays is removed at the next access, or by a sweep.
            drop(remove_dead(&place, &name, &nonce, &Call::nobodys(wait)));
        });
        return Ok(None);
    }
    let now = place.config.clock.now();
    if found.metadata.deadline_after_access(now).is_some() {
        // A failure leaves the deadline as it was, and the answer says so.
        if let Ok(Some(later)) = put_off(place, &found, call) {
            found.metadata.time_expires = Some(later);
        }
    }
    Ok(Some(found))
}

impl Found {
    /// Whether its deadline has come, for good.
    pub(super) fn is_dead(&mut self, place: &Place, call: &Call<'_>) -> Result<bool, Fault> {
        if !self.metadata.is_expired(place.config.clock.now()) {
            return Ok(false);
        }
        if !matches!(
            self.metadata.expiration_policy,
            ExpirationPolicy::TimeToIdle(_)
        ) {
            return Ok(true);
        }
        // An access that began before the deadline may be about to put it off.
        lock(&self.file, call)?;
        self.metadata.time_expires =
            read_deadline(&place.medium, &self.file, &self.path, &self.lead.nonce)?;
        let is_dead = self.metadata.is_expired(place.config.clock.now());
        drop(self.file.unlock());
        Ok(is_dead)
    }

    /// The payload, of this version however long the reading takes.
    pub(super) fn into_body(self, place: &Arc<Place>) -> Body {
        Body {
            place: Arc::clone(place),
            path: self.path,
            file: Some(self.file),
            lead: self.lead,
            next_unit: 0,
            ready: VecDeque::new(),
        }
    }
}

/// Puts the deadline off, if the access still asks for that by the time that nobody else can; tells to when.
fn put_off(place: &Place, found: &Found, call: &Call<'_>) -> Result<Option<SystemTime>, Fault> {
    let unwritten = || failed("a deadline could not be written");
    let (medium, path, nonce) = (&place.medium, &found.path, &found.lead.nonce);
    let Some(file) = medium.open(path, true).map_err(unwritten())? else {
        return Ok(None);
    };
    let mut first = [0; SECTOR_LEN_BYTES];
    let read = medium.read_at(&file, path, &mut first, 0);
    read.map_err(unread())?;
    if Lead::of_sector(&first)?.nonce != *nonce {
        return Ok(None);
    }
    lock(&file, call)?;
    let mut metadata = found.metadata.clone();
    metadata.time_expires = read_deadline(medium, &file, path, nonce)?;
    let Some(later) = metadata.deadline_after_access(place.config.clock.now()) else {
        // Another access was faster, or the deadline has come.
        return Ok(metadata.time_expires);
    };
    let sector = deadline_sector(nonce, Some(later))?;
    let written = medium.write_at(&file, path, &sector, DEADLINE_AT);
    written.map_err(unwritten())?;
    let synced = medium.sync_data(&file, path);
    synced.map_err(unwritten())?;
    Ok(Some(later))
}

/// Removes the file of a dead object, unless another one lies there by now; tells whether it did. It need not be made
/// durable: what is dead stays dead.
pub(super) fn remove_dead(
    place: &Place,
    name: &Name,
    nonce: &Nonce,
    call: &Call<'_>,
) -> Result<bool, Fault> {
    let Some(shard) = place.shard(name.shard)? else {
        return Ok(false);
    };
    lock(&shard.dir, call)?;
    let path = shard.path.join(&name.file);
    let Some(mut found) = open(&place.medium, path, call)? else {
        return Ok(false);
    };
    if found.lead.nonce != *nonce || !found.is_dead(place, call)? {
        return Ok(false);
    }
    let removed = place.medium.remove(&found.path);
    removed.map_err(failed("a dead object could not be removed"))
}

/// Removes the dead objects of one folder; tells how many.
pub(super) fn sweep(place: &Arc<Place>, shard: u8, call: &Call<'_>) -> Result<u64, Fault> {
    let unlisted = || failed("a folder of objects could not be read");
    let entries = match fs::read_dir(place.shard_path(shard)) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(unlisted()(e)),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.map_err(unlisted())?;
        let Ok(file) = entry.file_name().into_string() else {
            continue;
        };
        if call.is_gone() {
            break;
        }
        // A damaged one is told to those who ask for it. It may be of use yet, so it stays.
        let Ok(Some(mut found)) = open(&place.medium, entry.path(), call) else {
            continue;
        };
        if found.is_dead(place, call)? {
            let name = Name { shard, file };
            let wait = Call::nobodys(place.config.wait);
            removed += u64::from(remove_dead(place, &name, &found.lead.nonce, &wait)?);
        }
    }
    Ok(removed)
}

/// A payload that is being read.
pub(super) struct Body {
    place: Arc<Place>,
    path: PathBuf,
    /// Closed as soon as all is read.
    file: Option<File>,
    lead: Lead,
    next_unit: u64,
    /// What was read and proven, and not asked for yet.
    ready: VecDeque<Bytes>,
}

impl Body {
    /// Reads and proves some more units.
    pub(super) fn read(&mut self) -> Result<(), Fault> {
        let unit_len = as_u64(UNIT_LEN_BYTES);
        let at = self.lead.head_len + self.next_unit * unit_len;
        let file_len = self.lead.file_len().unwrap_or(at);
        let len = file_len.saturating_sub(at).min(BATCH_UNITS * unit_len);
        let len = usize::try_from(len).unwrap_or(UNIT_LEN_BYTES);
        let mut units = vec![0; len];
        if let Some(file) = &self.file {
            let medium = &self.place.medium;
            let read = medium.read_at(file, &self.path, &mut units, at);
            read.map_err(unread())?;
        }
        let units = Bytes::from(units);
        for from in (0..len).step_by(UNIT_LEN_BYTES) {
            let unit = units.slice(from..len.min(from + UNIT_LEN_BYTES));
            let payload = proven(&self.lead.nonce, self.next_unit, &unit)?;
            self.ready.push_back(unit.slice(..payload));
            self.next_unit += 1;
        }
        if self.next_unit == self.lead.units() {
            self.file = None;
        }
        Ok(())
    }

    /// Whether all of it can be read at once.
    pub(super) const fn is_short(&self) -> bool {
        self.lead.units() <= BATCH_UNITS
    }

    pub(super) fn into_stream(self) -> PayloadStream {
        stream::try_unfold(self.on(), |reader| async move {
            let mut body = match reader {
                Reader::Here(body) => body,
                Reader::Away(answered) => answered.await.unwrap_or_else(|_ended| Err(lost()))?,
            };
            let piece = body.ready.pop_front();
            Ok(piece.map(|piece| (piece, body.on())))
        })
        .boxed()
    }

    /// Goes on reading before anybody asks, as soon as nothing is ready.
    fn on(mut self) -> Reader {
        if !self.ready.is_empty() || self.next_unit == self.lead.units() {
            return Reader::Here(self);
        }
        let threads = self.place.threads.clone();
        Reader::Away(threads.ahead(move || self.read().map(|()| self)))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // Where the object was removed meanwhile, closing its file gives its room back, which takes time.
        if let Some(file) = self.file.take() {
            self.place.threads.clear_away(move || drop(file));
        }
    }
}

/// A payload that waits to be asked for, or is being read.
enum Reader {
    Here(Body),
    Away(oneshot::Receiver<Result<Body, Fault>>),
}
