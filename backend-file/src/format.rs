//! The bytes of the file: superblock, snapshot roots and chunks, and the sectors of the log.
//!
//! Everything here is pure: bytes in, values out. Each header carries a magic, the version of the format, the id of the
//! store and a checksum of its own, so that a damaged header is told apart from a damaged body, and the bytes of another
//! store or of an older file are never taken for one's own. All numbers are little-endian. `docs/FILE-FORMAT.md` is the
//! same in words.

use larder_traits::blob_store::BlobGuid;
use twox_hash::{XxHash3_64, XxHash3_128};

use crate::disk::SECTOR_LEN_BYTES;

/// The version in every header.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The length of every header, including the checksum at its end.
pub(crate) const HEADER_LEN_BYTES: usize = 128;
/// Where in a header its checksum stands.
const CHECKSUM_AT: usize = 112;

const SUPERBLOCK_MAGIC: [u8; 8] = *b"LARDFILE";
const ROOT_MAGIC: [u8; 8] = *b"LARDROOT";
const CHUNK_MAGIC: [u8; 8] = *b"LARDSNAP";
const LOG_MAGIC: u16 = 0x474c;

/// What stands before the entries in each sector of a record but the first.
const PREFIX_LEN_BYTES: usize = 16;
pub(crate) const ENTRY_LEN_BYTES: usize = 40;
pub(crate) const CHUNK_ENTRY_LEN_BYTES: usize = 36;
const FIRST_SECTOR_ENTRIES: usize = (SECTOR_LEN_BYTES - HEADER_LEN_BYTES) / ENTRY_LEN_BYTES;
const SECTOR_ENTRIES: usize = (SECTOR_LEN_BYTES - PREFIX_LEN_BYTES) / ENTRY_LEN_BYTES;
/// How many chunks a root has room for.
pub(crate) const CHUNKS_MAX: usize = (SECTOR_LEN_BYTES - HEADER_LEN_BYTES) / 4;

// The numbers that the document names.
const _: () = assert!(FIRST_SECTOR_ENTRIES == 99);
const _: () = assert!(SECTOR_ENTRIES == 102);
const _: () = assert!(CHUNKS_MAX == 992);
const _: () = assert!(CHECKSUM_AT + 16 == HEADER_LEN_BYTES);

/// The hash of a frame, of a header or of a body: 128 bits.
pub(crate) type Digest = u128;

/// What makes the hashes of one store differ from those of any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

impl StoreId {
    fn seed(self) -> u64 {
        XxHash3_64::oneshot(&self.0)
    }

    /// The hash of a frame, which is another one under another name or in another slot.
    pub(crate) fn frame_digest(self, guid: BlobGuid, slot: u32, frame: &[u8]) -> Digest {
        XxHash3_128::oneshot_with_seed(self.frame_seed(guid, slot), frame)
    }

    /// The same hash for a frame that arrives bit by bit.
    pub(crate) fn frame_hasher(self, guid: BlobGuid, slot: u32) -> FrameHasher {
        FrameHasher(XxHash3_128::with_seed(self.frame_seed(guid, slot)))
    }

    fn frame_seed(self, guid: BlobGuid, slot: u32) -> u64 {
        let mut place = [0; 20];
        place[..16].copy_from_slice(guid.as_bytes());
        place[16..].copy_from_slice(&slot.to_le_bytes());
        XxHash3_64::oneshot_with_seed(self.seed(), &place)
    }
}

/// The hash of a frame of which some may be missing yet.
pub(crate) struct FrameHasher(XxHash3_128);

impl FrameHasher {
    pub(crate) fn update(&mut self, part: &[u8]) {
        self.0.write(part);
    }

    pub(crate) fn digest(&self) -> Digest {
        self.0.finish_128()
    }
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// All zeros: nothing was ever written there.
    Blank,
    /// Something else, or something damaged.
    Damaged,
    /// Undamaged, and of a version that this code does not know.
    Version(u32),
}

/// Whether these bytes are all zeros.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    static ZEROS: [u8; SECTOR_LEN_BYTES] = [0; SECTOR_LEN_BYTES];
    let is_blank = |part: &[u8]| *part == ZEROS[..part.len()];
    bytes.chunks(SECTOR_LEN_BYTES).all(is_blank)
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("a range of N bytes is N bytes long")
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(bytes, at))
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(bytes, at))
}

fn get_u128(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(get(bytes, at))
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("what is counted in one group or chunk is far below 2^32")
}

/// A length that was read, for indexing.
pub(crate) fn wide(len: u32) -> usize {
    usize::try_from(len).expect("pointers have at least 32 bits")
}

/// The checksum over a header and what belongs to it.
fn checksum(header: &[u8], rest: &[u8], seed: u64) -> Digest {
    let mut hash = XxHash3_128::with_seed(seed);
    hash.write(&header[..CHECKSUM_AT]);
    hash.write(rest);
    hash.finish_128()
}

fn check(bytes: &[u8], magic: [u8; 8], sum: Digest) -> Result<(), Invalid> {
    if is_blank(&bytes[..HEADER_LEN_BYTES]) {
        return Err(Invalid::Blank);
    }
    if bytes[..8] != magic || get_u128(bytes, CHECKSUM_AT) != sum {
        return Err(Invalid::Damaged);
    }
    match get_u32(bytes, 8) {
        FORMAT_VERSION => Ok(()),
        other => Err(Invalid::Version(other)),
    }
}

/// What never changes: who the store is and where its parts lie. Two equal copies, in the first two sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) id: StoreId,
    pub(crate) frame_len: u32,
    pub(crate) log_at: u64,
    pub(crate) log_sectors: u64,
    pub(crate) slots_at: u64,
}

impl Superblock {
    pub(crate) fn encode(&self, sector: &mut [u8]) {
        sector.fill(0);
        put(sector, 0, SUPERBLOCK_MAGIC);
        put(sector, 8, FORMAT_VERSION.to_le_bytes());
        put(sector, 12, narrow(SECTOR_LEN_BYTES).to_le_bytes());
        put(sector, 16, self.id.0);
        put(sector, 32, self.frame_len.to_le_bytes());
        put(sector, 40, self.log_at.to_le_bytes());
        put(sector, 48, self.log_sectors.to_le_bytes());
        put(sector, 56, self.slots_at.to_le_bytes());
        let sum = checksum(sector, &[], 0);
        put(sector, CHECKSUM_AT, sum.to_le_bytes());
    }

    pub(crate) fn decode(sector: &[u8]) -> Result<Self, Invalid> {
        check(sector, SUPERBLOCK_MAGIC, checksum(sector, &[], 0))?;
        Ok(Self {
            id: StoreId(get(sector, 16)),
            frame_len: get_u32(sector, 32),
            log_at: get_u64(sector, 40),
            log_sectors: get_u64(sector, 48),
            slots_at: get_u64(sector, 56),
        })
    }
}

/// The end of a snapshot: written and made durable after all its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// The last group that the snapshot includes.
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
    /// Where the record after it begins, in sectors of the log, counted on through every lap.
    pub(crate) log_pos: u64,
    pub(crate) blobs: u64,
    /// The digest of that last group.
    pub(crate) last: Digest,
    /// Over the checksums of the chunks.
    pub(crate) chunks_digest: Digest,
    /// The slots that the chunks are in.
    pub(crate) chunks: Vec<u32>,
}

impl Root {
    pub(crate) fn encode(&self, id: StoreId, sector: &mut [u8]) {
        sector.fill(0);
        put(sector, 0, ROOT_MAGIC);
        put(sector, 8, FORMAT_VERSION.to_le_bytes());
        put(sector, 12, narrow(self.chunks.len()).to_le_bytes());
        put(sector, 16, id.0);
        put(sector, 32, self.seq.to_le_bytes());
        put(sector, 40, self.epoch.to_le_bytes());
        put(sector, 48, self.log_pos.to_le_bytes());
        put(sector, 56, self.blobs.to_le_bytes());
        put(sector, 64, self.last.to_le_bytes());
        put(sector, 80, self.chunks_digest.to_le_bytes());
        for (at, slot) in self.chunks.iter().enumerate() {
            put(sector, HEADER_LEN_BYTES + 4 * at, slot.to_le_bytes());
        }
        let sum = checksum(sector, &sector[HEADER_LEN_BYTES..], id.seed());
        put(sector, CHECKSUM_AT, sum.to_le_bytes());
    }

    pub(crate) fn decode(id: StoreId, sector: &[u8]) -> Result<Self, Invalid> {
        let sum = checksum(sector, &sector[HEADER_LEN_BYTES..], id.seed());
        check(sector, ROOT_MAGIC, sum)?;
        let count = wide(get_u32(sector, 12));
        if sector[16..32] != id.0 || count > CHUNKS_MAX {
            return Err(Invalid::Damaged);
        }
        let slot_at = |at| get_u32(sector, HEADER_LEN_BYTES + 4 * at);
        Ok(Self {
            seq: get_u64(sector, 32),
            epoch: get_u64(sector, 40),
            log_pos: get_u64(sector, 48),
            blobs: get_u64(sector, 56),
            last: get_u128(sector, 64),
            chunks_digest: get_u128(sector, 80),
            chunks: (0..count).map(slot_at).collect(),
        })
    }
}

/// A blob: its name, where its frame is, and what that must hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) guid: BlobGuid,
    pub(crate) slot: u32,
    pub(crate) digest: Digest,
}

/// How many blobs a chunk of a snapshot has room for.
pub(crate) const fn chunk_blobs_max(frame_len: usize) -> usize {
    (frame_len - HEADER_LEN_BYTES) / CHUNK_ENTRY_LEN_BYTES
}

/// Writes one chunk of a snapshot and returns its checksum.
pub(crate) fn encode_chunk(
    id: StoreId,
    seq: u64,
    index: usize,
    blobs: &[Blob],
    frame: &mut [u8],
) -> Digest {
    frame.fill(0);
    put(frame, 0, CHUNK_MAGIC);
    put(frame, 8, FORMAT_VERSION.to_le_bytes());
    put(frame, 12, narrow(blobs.len()).to_le_bytes());
    put(frame, 16, id.0);
    put(frame, 32, seq.to_le_bytes());
    put(frame, 40, narrow(index).to_le_bytes());
    let entries = frame[HEADER_LEN_BYTES..].chunks_exact_mut(CHUNK_ENTRY_LEN_BYTES);
    for (blob, entry) in blobs.iter().zip(entries) {
        put(entry, 0, blob.guid.to_bytes());
        put(entry, 16, blob.digest.to_le_bytes());
        put(entry, 32, blob.slot.to_le_bytes());
    }
    let sum = checksum(frame, &frame[HEADER_LEN_BYTES..], id.seed());
    put(frame, CHECKSUM_AT, sum.to_le_bytes());
    sum
}

/// Reads one chunk of the snapshot `seq` and returns its checksum.
pub(crate) fn decode_chunk(
    id: StoreId,
    seq: u64,
    index: usize,
    frame: &[u8],
    into: &mut impl FnMut(Blob),
) -> Result<Digest, Invalid> {
    let sum = checksum(frame, &frame[HEADER_LEN_BYTES..], id.seed());
    check(frame, CHUNK_MAGIC, sum)?;
    let count = wide(get_u32(frame, 12));
    let is_it = frame[16..32] == id.0
        && get_u64(frame, 32) == seq
        && wide(get_u32(frame, 40)) == index
        && count <= chunk_blobs_max(frame.len());
    if !is_it {
        return Err(Invalid::Damaged);
    }
    let entries = frame[HEADER_LEN_BYTES..].chunks_exact(CHUNK_ENTRY_LEN_BYTES);
    for entry in entries.take(count) {
        into(Blob {
            guid: BlobGuid::from_bytes(get(entry, 0)),
            digest: get_u128(entry, 16),
            slot: get_u32(entry, 32),
        });
    }
    Ok(sum)
}

/// The digest of a snapshot's chunks from their checksums.
pub(crate) fn chunks_digest(id: StoreId, sums: &[Digest]) -> Digest {
    let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
    XxHash3_128::oneshot_with_seed(id.seed(), &bytes)
}

/// What a group does to one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Blob),
    Delete(BlobGuid),
}

/// Why a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A group of changes.
    Group,
    /// No change: only that all groups before it are known to be durable.
    Mark,
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
    /// The last group that was known to be durable when this one was written.
    pub(crate) stable: u64,
    pub(crate) entries: u32,
    /// The digest of the group before.
    pub(crate) previous: Digest,
    pub(crate) body: Digest,
    /// The header's own checksum, which is the digest of the group: it covers the body's.
    pub(crate) digest: Digest,
}

impl Header {
    pub(crate) fn sectors(&self) -> usize {
        record_sectors(wide(self.entries))
    }
}

/// How many sectors a record of so many entries takes.
pub(crate) const fn record_sectors(entries: usize) -> usize {
    1 + entries
        .saturating_sub(FIRST_SECTOR_ENTRIES)
        .div_ceil(SECTOR_ENTRIES)
}

/// How many entries a record of so many sectors has room for.
pub(crate) const fn record_entries_max(sectors: usize) -> usize {
    FIRST_SECTOR_ENTRIES + (sectors - 1) * SECTOR_ENTRIES
}

/// The ranges of a record in which its entries stand, in order.
fn entry_ranges(count: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..count).map(|at| {
        let start = match at.checked_sub(FIRST_SECTOR_ENTRIES) {
            None => HEADER_LEN_BYTES + at * ENTRY_LEN_BYTES,
            Some(at) => {
                let sector = 1 + at / SECTOR_ENTRIES;
                let within = at % SECTOR_ENTRIES * ENTRY_LEN_BYTES;
                sector * SECTOR_LEN_BYTES + PREFIX_LEN_BYTES + within
            }
        };
        start..start + ENTRY_LEN_BYTES
    })
}

fn body_digest(id: StoreId, count: usize, record: &[u8]) -> Digest {
    let mut hash = XxHash3_128::with_seed(id.seed());
    for range in entry_ranges(count) {
        hash.write(&record[range]);
    }
    hash.finish_128()
}

/// The short check of a sector's prefix.
fn prefix_check(id: StoreId, seq: u64, index: u16) -> u32 {
    let mut bytes = [0; 10];
    put(&mut bytes, 0, seq.to_le_bytes());
    put(&mut bytes, 8, index.to_le_bytes());
    let hash = XxHash3_64::oneshot_with_seed(id.seed(), &bytes);
    u32::try_from(hash >> 32).expect("half of 64 bits are 32 bits")
}

/// What can be told of one sector of the log by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sector {
    /// Zeros: never written.
    Blank,
    /// It belongs to the record of that sequence number, and is the `index`-th of its sectors.
    Of { seq: u64, index: u16 },
    /// Neither.
    Damaged,
}

pub(crate) fn decode_prefix(id: StoreId, sector: &[u8]) -> Sector {
    let (seq, index) = (get_u64(sector, 8), u16::from_le_bytes(get(sector, 2)));
    if u16::from_le_bytes(get(sector, 0)) == LOG_MAGIC
        && get_u32(sector, 4) == prefix_check(id, seq, index)
    {
        Sector::Of { seq, index }
    } else if is_blank(sector) {
        Sector::Blank
    } else {
        Sector::Damaged
    }
}

/// Writes a record over the start of `record`; the digest in `header` and its body's are filled in. Returns how many
/// sectors it takes.
pub(crate) fn encode_record(
    id: StoreId,
    header: &mut Header,
    changes: &[Change],
    record: &mut [u8],
) -> usize {
    let sectors = record_sectors(changes.len());
    let record = &mut record[..sectors * SECTOR_LEN_BYTES];
    record.fill(0);
    for (sector, index) in record.chunks_exact_mut(SECTOR_LEN_BYTES).zip(0_u16..) {
        put(sector, 0, LOG_MAGIC.to_le_bytes());
        put(sector, 2, index.to_le_bytes());
        let check = prefix_check(id, header.seq, index);
        put(sector, 4, check.to_le_bytes());
        put(sector, 8, header.seq.to_le_bytes());
    }
    for (change, range) in changes.iter().zip(entry_ranges(changes.len())) {
        encode_change(change, &mut record[range]);
    }
    header.entries = narrow(changes.len());
    header.body = body_digest(id, changes.len(), record);
    let kind: u32 = match header.kind {
        Kind::Group => 1,
        Kind::Mark => 2,
    };
    put(record, 16, FORMAT_VERSION.to_le_bytes());
    put(record, 20, kind.to_le_bytes());
    put(record, 24, id.0);
    put(record, 40, header.epoch.to_le_bytes());
    put(record, 48, header.stable.to_le_bytes());
    put(record, 56, header.entries.to_le_bytes());
    put(record, 64, header.previous.to_le_bytes());
    put(record, 80, header.body.to_le_bytes());
    header.digest = checksum(record, &[], id.seed());
    put(record, CHECKSUM_AT, header.digest.to_le_bytes());
    sectors
}

fn encode_change(change: &Change, entry: &mut [u8]) {
    let (op, slot, guid, digest): (u32, u32, BlobGuid, Digest) = match change {
        Change::Put(blob) => (1, blob.slot, blob.guid, blob.digest),
        Change::Delete(guid) => (2, 0, *guid, 0),
    };
    put(entry, 0, op.to_le_bytes());
    put(entry, 4, slot.to_le_bytes());
    put(entry, 8, guid.to_bytes());
    put(entry, 24, digest.to_le_bytes());
}

/// The header in the first sector of a record, if it is undamaged.
pub(crate) fn decode_header(id: StoreId, sector: &[u8]) -> Result<Header, Invalid> {
    let Sector::Of { seq, index: 0 } = decode_prefix(id, sector) else {
        return Err(Invalid::Damaged);
    };
    let digest = get_u128(sector, CHECKSUM_AT);
    if digest != checksum(sector, &[], id.seed()) || sector[24..40] != id.0 {
        return Err(Invalid::Damaged);
    }
    if get_u32(sector, 16) != FORMAT_VERSION {
        return Err(Invalid::Version(get_u32(sector, 16)));
    }
    let kind = match get_u32(sector, 20) {
        1 => Kind::Group,
        2 => Kind::Mark,
        _ => return Err(Invalid::Damaged),
    };
    Ok(Header {
        kind,
        seq,
        epoch: get_u64(sector, 40),
        stable: get_u64(sector, 48),
        entries: get_u32(sector, 56),
        previous: get_u128(sector, 64),
        body: get_u128(sector, 80),
        digest,
    })
}

/// The changes of a record whose header was read; `record` is all of its sectors.
pub(crate) fn decode_body(
    id: StoreId,
    header: &Header,
    record: &[u8],
) -> Result<Vec<Change>, Invalid> {
    let count = wide(header.entries);
    if body_digest(id, count, record) != header.body {
        return Err(Invalid::Damaged);
    }
    let change = |range: std::ops::Range<usize>| {
        let entry = &record[range];
        let guid = BlobGuid::from_bytes(get(entry, 8));
        match get_u32(entry, 0) {
            1 => Ok(Change::Put(Blob {
                guid,
                slot: get_u32(entry, 4),
                digest: get_u128(entry, 24),
            })),
            2 => Ok(Change::Delete(guid)),
            _ => Err(Invalid::Damaged),
        }
    };
    entry_ranges(count).map(change).collect()
}

#[cfg(test)]
mod tests;
