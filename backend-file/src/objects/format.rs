//! The file of an object, to the byte.
//!
//! | from | what |
//! |---|---|
//! | 0 | the first sector: magic, version, lengths, the file's own random number, digest of the head, its own digest |
//! | 512 | the sector of the deadline, the only one that is ever written again (HV-8) |
//! | 1,024 | the text form of the object's id, then its metadata, then zeros |
//! | `head_len`, a multiple of 4,096 | the payload, in units of 65,520 bytes and a digest of each |
//!
//! All numbers are little-endian. Every byte of the file is under a digest, padding included, and all digests but that
//! of the first sector are seeded with the file's random number and their place: what belongs to another file, or to
//! another place in this one, does not pass. So a changed byte is found before anything of its unit is handed out, and
//! a file cut short or grown is found by its length.
//!
//! The deadline has a sector of its own because a sector is written as a whole or not at all when the power fails.

use std::time::{Duration, SystemTime};

use larder_traits::stash::codec;
use larder_traits::{ErrorKind, Fault, Metadata};
use twox_hash::{XxHash3_64, XxHash3_128};

use crate::plain::{SECTOR_LEN_BYTES, corrupt};

const MAGIC: [u8; 8] = *b"LARDEROB";
const VERSION: u32 = 1;

/// Where the sector of the deadline begins.
pub(super) const DEADLINE_AT: u64 = 512;

/// Where the id begins, behind the two sectors.
const BODY_AT: usize = 2 * SECTOR_LEN_BYTES;

/// The head is a multiple of this, so that the units lie on pages.
pub(super) const PAGE_LEN_BYTES: usize = 4096;

const SUM_LEN_BYTES: usize = 16;

/// A unit with its digest.
pub(super) const UNIT_LEN_BYTES: usize = 64 << 10;

/// The payload in a unit; the last one may hold less.
pub(super) const UNIT_PAYLOAD_LEN_BYTES: usize = UNIT_LEN_BYTES - SUM_LEN_BYTES;

/// Where the digest of a sector stands in it.
const SECTOR_SUM_AT: usize = SECTOR_LEN_BYTES - SUM_LEN_BYTES;

const _: () = assert!(BODY_AT < PAGE_LEN_BYTES && UNIT_LEN_BYTES.is_multiple_of(PAGE_LEN_BYTES));

/// The random number of a file, which tells it from every other that an object ever had.
pub(super) type Nonce = [u8; 16];

/// A place in the file, as it enters the digests.
#[derive(Clone, Copy)]
enum Place {
    Deadline,
    Body,
    Unit(u64),
}

fn sum(nonce: &Nonce, place: Place, bytes: &[u8]) -> [u8; SUM_LEN_BYTES] {
    let mut seed = [0; 24];
    seed[..16].copy_from_slice(nonce);
    let place = match place {
        Place::Deadline => 0,
        Place::Body => 1,
        Place::Unit(nth) => nth.saturating_add(2),
    };
    seed[16..].copy_from_slice(&place.to_le_bytes());
    XxHash3_128::oneshot_with_seed(XxHash3_64::oneshot(&seed), bytes).to_le_bytes()
}

/// What the first sector says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    pub(super) nonce: Nonce,
    pub(super) head_len: u64,
    pub(super) payload_len: u64,
    id_len: u32,
    metadata_len: u32,
    body_sum: [u8; SUM_LEN_BYTES],
}

type Sector = [u8; SECTOR_LEN_BYTES];

impl Lead {
    fn to_sector(&self) -> Sector {
        let mut sector = [0; SECTOR_LEN_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            sector[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&self.id_len.to_le_bytes());
        put(&self.nonce);
        put(&self.head_len.to_le_bytes());
        put(&self.payload_len.to_le_bytes());
        put(&self.metadata_len.to_le_bytes());
        put(&self.body_sum);
        let sum = XxHash3_128::oneshot(&sector[..SECTOR_SUM_AT]);
        sector[SECTOR_SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        sector
    }

    /// Reads a first sector. The magic, the version and the digest stand where they are in every version.
    pub(super) fn of_sector(sector: &Sector) -> Result<Self, Fault> {
        let mut rest = &sector[..];
        if take::<8>(&mut rest) != MAGIC {
            return Err(corrupt("a file among the objects does not begin as one"));
        }
        if XxHash3_128::oneshot(&sector[..SECTOR_SUM_AT]).to_le_bytes() != sector[SECTOR_SUM_AT..] {
            return Err(corrupt("the first sector of an object's file is damaged"));
        }
        if u32::from_le_bytes(take(&mut rest)) != VERSION {
            let message = "an object was written by a newer version";
            return Err(Fault::not_applied(ErrorKind::Unsupported, message));
        }
        let id_len = u32::from_le_bytes(take(&mut rest));
        let lead = Self {
            nonce: take(&mut rest),
            head_len: u64::from_le_bytes(take(&mut rest)),
            payload_len: u64::from_le_bytes(take(&mut rest)),
            id_len,
            metadata_len: u32::from_le_bytes(take(&mut rest)),
            body_sum: take(&mut rest),
        };
        let is_sound = lead.head_len.is_multiple_of(as_u64(PAGE_LEN_BYTES))
            && as_u64(BODY_AT) + u64::from(lead.id_len) + u64::from(lead.metadata_len)
                <= lead.head_len
            && lead.file_len().is_some();
        if is_sound {
            Ok(lead)
        } else {
            Err(corrupt(
                "the lengths in an object's file contradict each other",
            ))
        }
    }

    /// How long the file is; `None` for no file that could be.
    pub(super) fn file_len(&self) -> Option<u64> {
        let sums = self.units().checked_mul(as_u64(SUM_LEN_BYTES))?;
        let all = self.head_len.checked_add(self.payload_len)?;
        all.checked_add(sums)
    }

    /// How many units the payload takes.
    pub(super) const fn units(&self) -> u64 {
        self.payload_len.div_ceil(UNIT_PAYLOAD_LEN_BYTES as u64)
    }

    /// What follows the two sectors: the id's text and the metadata, proven by their digest.
    pub(super) fn body<'a>(&self, head: &'a [u8]) -> Result<(&'a [u8], Metadata), Fault> {
        let cut = || corrupt("an object's file is cut short");
        let body = head.get(BODY_AT..).ok_or_else(cut)?;
        if sum(&self.nonce, Place::Body, body) != self.body_sum {
            return Err(corrupt("the head of an object's file is damaged"));
        }
        let (id_len, metadata_len) = (as_usize(self.id_len), as_usize(self.metadata_len));
        let (id, rest) = body.split_at_checked(id_len).ok_or_else(cut)?;
        let metadata = rest.get(..metadata_len).ok_or_else(cut)?;
        Ok((id, codec::decode(metadata)?))
    }
}

/// The head of a new file. `room` is its length, known before the payload was.
pub(super) fn head(
    nonce: Nonce,
    id: &str,
    metadata: &Metadata,
    payload_len: u64,
    room: usize,
) -> Result<Vec<u8>, Fault> {
    let encoded = codec::encode(metadata)?;
    let (id, mut head) = (id.as_bytes(), vec![0; room]);
    let end = BODY_AT + id.len() + encoded.len();
    let misfit = || Fault::not_applied(ErrorKind::Internal, "a head does not fit its room");
    if end > room {
        return Err(misfit());
    }
    head[BODY_AT..BODY_AT + id.len()].copy_from_slice(id);
    head[BODY_AT + id.len()..end].copy_from_slice(&encoded);
    let short = |len: usize| u32::try_from(len).map_err(|_too_long| misfit());
    let lead = Lead {
        nonce,
        head_len: as_u64(room),
        payload_len,
        id_len: short(id.len())?,
        metadata_len: short(encoded.len())?,
        body_sum: sum(&nonce, Place::Body, &head[BODY_AT..]),
    };
    head[..SECTOR_LEN_BYTES].copy_from_slice(&lead.to_sector());
    let deadline = deadline_sector(&nonce, metadata.time_expires)?;
    head[SECTOR_LEN_BYTES..BODY_AT].copy_from_slice(&deadline);
    Ok(head)
}

/// How long the head of a file is whose metadata will be about this long. Times and the size may take a few bytes more
/// than they do now.
pub(super) fn room(id: &str, metadata_len: usize) -> usize {
    const SLACK: usize = 128;
    (BODY_AT + id.len() + metadata_len + SLACK).next_multiple_of(PAGE_LEN_BYTES)
}

/// The sector that holds the deadline.
pub(super) fn deadline_sector(nonce: &Nonce, at: Option<SystemTime>) -> Result<Sector, Fault> {
    let mut sector = [0; SECTOR_LEN_BYTES];
    if let Some(at) = at {
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        let millis = since.map_or(None, |since| u64::try_from(since.as_millis()).ok());
        let Some(millis) = millis else {
            // What was stamped is within the range.
            let message = "a deadline is out of range";
            return Err(Fault::not_applied(ErrorKind::Internal, message));
        };
        sector[0] = 1;
        sector[8..16].copy_from_slice(&millis.to_le_bytes());
    }
    let sum = sum(nonce, Place::Deadline, &sector[..SECTOR_SUM_AT]);
    sector[SECTOR_SUM_AT..].copy_from_slice(&sum);
    Ok(sector)
}

/// The deadline in its sector. One that fails may be in the middle of being written: ask again under the file's lock.
pub(super) fn deadline(nonce: &Nonce, sector: &Sector) -> Result<Option<SystemTime>, Fault> {
    if sum(nonce, Place::Deadline, &sector[..SECTOR_SUM_AT]) != sector[SECTOR_SUM_AT..] {
        return Err(corrupt("the deadline in an object's file is damaged"));
    }
    if sector[0] == 0 {
        return Ok(None);
    }
    let mut millis = &sector[8..16];
    let millis = u64::from_le_bytes(take(&mut millis));
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis));
    at.map(Some)
        .ok_or_else(|| corrupt("the deadline in an object's file is out of range"))
}

/// Writes the digests into whole units and a last one; `units` begins with the unit of this number. Each unit of it
/// has room for its digest at its end.
pub(super) fn seal(nonce: &Nonce, first: u64, units: &mut [u8]) {
    for (nth, unit) in (first..).zip(units.chunks_mut(UNIT_LEN_BYTES)) {
        let Some(at) = unit.len().checked_sub(SUM_LEN_BYTES) else {
            return;
        };
        let (payload, room) = unit.split_at_mut(at);
        room.copy_from_slice(&sum(nonce, Place::Unit(nth), payload));
    }
}

/// The room that a unit leaves for its digest.
pub(super) const NO_SUM: [u8; SUM_LEN_BYTES] = [0; SUM_LEN_BYTES];

/// How many bytes of this unit, the one of this number, are payload, proven by its digest.
pub(super) fn proven(nonce: &Nonce, nth: u64, unit: &[u8]) -> Result<usize, Fault> {
    let cut = || corrupt("an object's file is cut short");
    let len = unit.len().checked_sub(SUM_LEN_BYTES).ok_or_else(cut)?;
    let (payload, expected) = unit.split_at(len);
    if sum(nonce, Place::Unit(nth), payload) != *expected {
        return Err(corrupt("the payload in an object's file is damaged"));
    }
    Ok(len)
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (taken, behind) = rest
        .split_first_chunk::<N>()
        .expect("the fields of a sector are shorter than a sector");
    *rest = behind;
    *taken
}

/// Lengths in memory fit into 64 bits.
pub(super) fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn as_usize(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use larder_traits::{Classify, Compression, ExpirationPolicy};

    use super::*;

    const NONCE: Nonce = [5; 16];

    fn metadata() -> Metadata {
        let idle = ExpirationPolicy::TimeToIdle(Duration::from_secs(1_000));
        let mut metadata = Metadata::with_policy(idle);
        let at = |millis| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        metadata.time_created = at(1_767_225_600_000);
        metadata.time_expires = at(1_767_226_600_000);
        metadata.content_type = Some("text/plain".to_owned());
        metadata.compression = Some(Compression::Zstd);
        metadata.size = Some(7);
        metadata.custom.insert("k".to_owned(), "v".to_owned());
        metadata
    }

    #[test]
    fn what_is_written_today_is_what_version_1_was_published_as() {
        let id = "test;org=a%2Fb/object";
        let room = room(id, codec::encode(&metadata()).unwrap().len());
        let mut bytes = head(NONCE, id, &metadata(), 7, room).unwrap();
        let mut unit = b"payload".to_vec();
        unit.extend(NO_SUM);
        seal(&NONCE, 0, &mut unit);
        bytes.extend(unit);
        let golden = include_bytes!("../../tests/golden/object-v1.bin");
        assert!(bytes == golden, "the format has changed");
        let lead = Lead::of_sector(bytes.first_chunk().unwrap()).unwrap();
        assert_eq!(lead.file_len(), Some(as_u64(bytes.len())));
        let (found, decoded) = lead.body(&bytes[..room]).unwrap();
        assert_eq!((found, decoded), (id.as_bytes(), metadata()));
    }

    #[test]
    fn lengths_at_the_edges_of_units_add_up() {
        let unit = as_u64(UNIT_PAYLOAD_LEN_BYTES);
        for (payload_len, units) in [(0, 0), (1, 1), (unit, 1), (unit + 1, 2), (unit * 3, 3)] {
            let head = head(NONCE, "a/b", &metadata(), payload_len, PAGE_LEN_BYTES).unwrap();
            let lead = Lead::of_sector(head.first_chunk().unwrap()).unwrap();
            assert_eq!(lead.units(), units);
            let expected = as_u64(PAGE_LEN_BYTES) + payload_len + units * 16;
            assert_eq!(lead.file_len(), Some(expected));
        }
        let endless = head(NONCE, "a/b", &metadata(), u64::MAX - 9, PAGE_LEN_BYTES).unwrap();
        let e = Lead::of_sector(endless.first_chunk().unwrap()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_unit_passes_in_its_own_place_and_file_only() {
        let mut unit = b"payload".to_vec();
        unit.extend(NO_SUM);
        seal(&NONCE, 3, &mut unit);
        assert_eq!(proven(&NONCE, 3, &unit).unwrap(), 7);
        assert!(proven(&NONCE, 4, &unit).is_err());
        assert!(proven(&[6; 16], 3, &unit).is_err());
        assert!(proven(&NONCE, 3, &unit[1..]).is_err());
        assert!(proven(&NONCE, 3, &unit[..5]).is_err());
    }
}
