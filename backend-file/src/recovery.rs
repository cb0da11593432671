//! Opening: a new file is laid out, and an old one is read and made sure of.
//!
//! The newest whole snapshot is the base, or the one before it, or nothing; the log is followed from there. A record
//! counts if its header and its body are undamaged and it names the digest of the record before it. Every record says
//! up to where all was durable when it was written: so much is trusted, and only what lies beyond, at most one group, is
//! compared with its frames. The log ends at the first record that does not count; if any sector of the log is of a
//! later one still, then what ended it was no crash, and the store is `Corrupt`.

use std::sync::{Arc, PoisonError};

use larder_traits::ErrorKind;

use crate::commit::SnapshotError;
use crate::disk::{Disk, Read, SECTOR_LEN_BYTES, Write};
use crate::error::{Failure, corrupt};
use crate::format;
use crate::format::{
    Blob, Change, FORMAT_VERSION, Header, Invalid, Kind, Root, Sector, StoreId, Superblock,
    chunks_digest, decode_body, decode_chunk, decode_header, decode_prefix, wide,
};
use crate::log::{Base, Log, pieces};
use crate::scratch::Scratch;
use crate::shape::{Plan, Shape, sector_len};
use crate::slots::Slots;
use crate::stats::Recovery;
use crate::store::{State, Store};

/// How much is read or written at once where nothing has to wait for it.
const RUN: usize = 8;

/// The length of the pieces in which the log is read and zeros are written.
const PIECE_LEN_BYTES: usize = 512 << 10;

const SUPERBLOCKS: [u64; 2] = [0, 1];

/// Opens the store on a disk, which is laid out with a new id if it is blank.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    plan: &Plan,
    new_id: impl FnOnce() -> StoreId,
) -> Result<Store, Failure> {
    match read_shape(&*disk)? {
        Some(shape) => Opening::new(disk, shape)?.open(plan),
        None => {
            let shape = Shape::planned(new_id(), plan);
            create(&*disk, &shape)?;
            let mut slots = Slots::new();
            slots.grow_to(shape.slots_in(disk.len_bytes()));
            let recovery = Recovery {
                is_clean: true,
                ..Recovery::default()
            };
            let (state, log) = (State::new(slots), Log::new(&shape));
            Ok(Store::new(disk, shape, plan, state, log, recovery))
        }
    }
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::of(error, "the file could not be read")
}

fn unwritable(error: &std::io::Error) -> Failure {
    Failure::of(error, "the file could not be written or synced")
}

fn read_one(disk: &dyn Disk, at: u64, into: &mut [u8]) -> std::io::Result<()> {
    let mut reads = [Read {
        at,
        into,
        registered: None,
    }];
    let answer = disk.read(&mut reads).pop();
    answer.expect("each read has an answer")
}

/// Two sectors that stand for each other, side by side. One that cannot be read counts as damaged, since the other will
/// do; what the medium said of it is told as well.
fn read_pair<T>(
    disk: &dyn Disk,
    at: u64,
    decode: impl Fn(&[u8]) -> Result<T, Invalid>,
) -> ([Result<T, Invalid>; 2], Option<std::io::Error>) {
    let mut sectors = Scratch::zeroed(2 * SECTOR_LEN_BYTES);
    let (first, second) = sectors.split_at_mut(SECTOR_LEN_BYTES);
    let mut reads = [(at, first), (at + sector_len(), second)].map(|(at, into)| Read {
        at,
        into,
        registered: None,
    });
    let mut answers = disk.read(&mut reads).into_iter();
    let mut unread = None;
    let decoded = reads.map(
        |read| match answers.next().expect("each read has an answer") {
            Ok(()) => decode(read.into),
            Err(e) => {
                unread = Some(e);
                Err(Invalid::Damaged)
            }
        },
    );
    (decoded, unread)
}

/// The shape of the store on the disk; `None` where the disk is blank.
fn read_shape(disk: &dyn Disk) -> Result<Option<Shape>, Failure> {
    let head_len = Shape::root_at(2);
    if disk.len_bytes() < head_len {
        return match is_blank(disk, disk.len_bytes())? {
            true => Ok(None),
            false => Err(no_store()),
        };
    }
    let (copies, unread) = read_pair(disk, Shape::superblock_at(0), Superblock::decode);
    let found = match copies {
        [Ok(a), Ok(b)] if a != b => Err(no_store()),
        [Ok(superblock), _] | [_, Ok(superblock)] => {
            Shape::of(&superblock).map(Some).ok_or_else(no_store)
        }
        [Err(Invalid::Version(version)), _] | [_, Err(Invalid::Version(version))] => {
            Err(other_version(version))
        }
        // A store that was being laid out has written nothing else yet. Any other has.
        [Err(Invalid::Blank), Err(Invalid::Blank)] => {
            let laid_out = disk.len_bytes();
            match is_blank(disk, laid_out)? {
                true => Ok(None),
                false => Err(no_store()),
            }
        }
        _ => Err(unread.map_or_else(no_store, |e| unreadable(&e))),
    };
    let shape = found?;
    if let Some(shape) = &shape
        && copies.iter().any(Result::is_err)
    {
        write_superblocks(disk, shape)?;
    }
    Ok(shape)
}

fn no_store() -> Failure {
    corrupt(
        "this is no frame store, or its first sectors are damaged",
        "",
    )
}

fn other_version(version: u32) -> Failure {
    let message = "the file has a format that this version of the store does not know";
    let detail = format!("format {version}, and this is {FORMAT_VERSION}");
    Failure::new(ErrorKind::Unsupported, message).with_detail(detail)
}

/// Whether the disk is zeros up to there.
fn is_blank(disk: &dyn Disk, end: u64) -> Result<bool, Failure> {
    let mut buffer = Scratch::zeroed(PIECE_LEN_BYTES);
    let mut at = 0;
    while at < end {
        let len = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        read_one(disk, at, &mut buffer[..len]).map_err(|e| unreadable(&e))?;
        if !format::is_blank(&buffer[..len]) {
            return Ok(false);
        }
        at += u64::try_from(len).expect("a frame's length fits 64 bits");
    }
    Ok(true)
}

/// Lays out an empty store. The superblocks come last: before them there is no store.
fn create(disk: &dyn Disk, shape: &Shape) -> Result<(), Failure> {
    let room = disk.grow(shape.slots_at);
    room.map_err(|e| Failure::of(&e, "there is no room for an empty store"))?;
    // Written once, the log costs no more than its own bytes whenever it is written again.
    let zeros = Scratch::zeroed(PIECE_LEN_BYTES);
    let mut at = 0;
    let mut writes = std::iter::from_fn(|| {
        let left = usize::try_from(shape.slots_at - at).unwrap_or(usize::MAX);
        let from = &zeros[..left.min(zeros.len())];
        let write = Write {
            at,
            from,
            registered: None,
        };
        at += u64::try_from(from.len()).expect("a frame's length fits 64 bits");
        (!from.is_empty()).then_some(write)
    });
    let laid_out = disk.write_and_sync(&mut writes);
    laid_out.map_err(|e| unwritable(&e))?;
    write_superblocks(disk, shape)
}

fn write_superblocks(disk: &dyn Disk, shape: &Shape) -> Result<(), Failure> {
    let mut sector = Scratch::zeroed(SECTOR_LEN_BYTES);
    shape.superblock().encode(&mut sector);
    let mut writes = SUPERBLOCKS.into_iter().map(|copy| Write {
        at: Shape::superblock_at(copy),
        from: &sector,
        registered: None,
    });
    disk.write_and_sync(&mut writes).map_err(|e| unwritable(&e))
}

/// A record that counts.
struct Record {
    header: Header,
    pos: u64,
    changes: Vec<Change>,
}

/// A snapshot that was read.
struct Snapshot {
    root: Root,
    blobs: Vec<Blob>,
    /// Which of the two roots it is.
    at: usize,
}

/// An old store on its way to being open.
struct Opening {
    disk: Arc<dyn Disk>,
    shape: Shape,
    log: Scratch,
    roots: [Result<Root, Invalid>; 2],
    /// What the medium said of a part of a snapshot that it could not read.
    unread: Option<std::io::Error>,
    recovery: Recovery,
}

impl Opening {
    fn new(disk: Arc<dyn Disk>, shape: Shape) -> Result<Self, Failure> {
        let decode = |sector: &[u8]| Root::decode(shape.id, sector);
        let (roots, unread) = read_pair(&*disk, Shape::root_at(0), decode);
        for root in &roots {
            if let Err(Invalid::Version(version)) = root {
                return Err(other_version(*version));
            }
        }
        let log = read_log(&*disk, &shape)?;
        Ok(Self {
            disk,
            shape,
            log,
            roots,
            unread,
            recovery: Recovery::default(),
        })
    }

    fn open(mut self, plan: &Plan) -> Result<Store, Failure> {
        let base = self.base();
        let mut records = self.follow(base.as_ref())?;
        self.drop_unarrived(base.as_ref(), &mut records)?;
        self.rewrite_unmarked(base.as_ref(), &records)?;

        let (seq, last, pos) = end_of(base.as_ref(), records.last());
        let mut log = Log {
            seq,
            last,
            pos,
            is_marked: records
                .last()
                .is_none_or(|record| record.header.kind == Kind::Mark),
            epoch: self.epoch(base.as_ref(), &records),
            bases: self.bases(base.as_ref(), pos),
            newest: base.as_ref().map_or(0, |base| base.at),
            ..Log::new(&self.shape)
        };
        let is_cut = self.recovery.is_tail_torn || self.recovery.dropped_groups > 0;
        self.recovery.is_clean = log.is_marked && !is_cut;
        self.recovery.replayed_groups = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let slots = self.slots(base, &records, &log)?;
        log.epoch += u64::from(!self.recovery.is_clean);
        let Self {
            disk,
            shape,
            recovery,
            ..
        } = self;
        let store = Store::new(disk, shape, plan, State::new(slots), log, recovery);
        store.settle()?;
        Ok(store)
    }

    /// The newest snapshot that is whole.
    fn base(&mut self) -> Option<Snapshot> {
        self.recovery.is_snapshot_damaged = self.roots.contains(&Err(Invalid::Damaged));
        let mut order = [0, 1];
        let seq = |at: &usize| self.roots[*at].as_ref().map_or(0, |root| root.seq);
        order.sort_by_key(|at| std::cmp::Reverse(seq(at)));
        for at in order {
            let Ok(root) = &self.roots[at] else {
                continue;
            };
            match self.read_snapshot(root) {
                Ok(Some(blobs)) => {
                    let root = root.clone();
                    return Some(Snapshot { root, blobs, at });
                }
                Ok(None) => {}
                Err(e) => self.unread = Some(e),
            }
            self.recovery.is_snapshot_damaged = true;
        }
        None
    }

    /// The blobs of a snapshot; `None` if it is damaged.
    fn read_snapshot(&self, root: &Root) -> std::io::Result<Option<Vec<Blob>>> {
        let mut blobs = Vec::new();
        let room = root.chunks.len() * crate::format::chunk_blobs_max(self.shape.frame_len);
        blobs.reserve_exact(usize::try_from(root.blobs).map_or(room, |blobs| blobs.min(room)));
        let mut sums = Vec::with_capacity(root.chunks.len());
        let count = root.chunks.len().min(RUN);
        let frame_len = self.shape.frame_len;
        let mut frames: Vec<_> = (0..count).map(|_| Scratch::zeroed(frame_len)).collect();
        for slots in root.chunks.chunks(RUN) {
            let mut reads: Vec<_> = slots
                .iter()
                .zip(&mut frames)
                .map(|(slot, frame)| Read {
                    at: self.shape.slot_at(*slot),
                    into: frame,
                    registered: None,
                })
                .collect();
            let answers = self.disk.read(&mut reads);
            for (answer, read) in answers.into_iter().zip(reads) {
                match answer {
                    // The file was cut short.
                    Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
                    answer => answer?,
                }
                let mut keep = |blob| blobs.push(blob);
                let sum = decode_chunk(self.shape.id, root.seq, sums.len(), read.into, &mut keep);
                let Ok(sum) = sum else {
                    return Ok(None);
                };
                sums.push(sum);
            }
        }
        let is_whole = chunks_digest(self.shape.id, &sums) == root.chunks_digest
            && u64::try_from(blobs.len()) == Ok(root.blobs);
        Ok(is_whole.then_some(blobs))
    }

    fn sector(&self, pos: u64) -> &[u8] {
        let at = usize::try_from(pos % self.shape.log_sectors).expect("a log is far below 2^32");
        &self.log[at * SECTOR_LEN_BYTES..][..SECTOR_LEN_BYTES]
    }

    /// Follows the log from the base to its end.
    fn follow(&mut self, base: Option<&Snapshot>) -> Result<Vec<Record>, Failure> {
        let mut records: Vec<Record> = Vec::new();
        let mut buffer = Scratch::zeroed(self.shape.record_len_max());
        loop {
            let (seq, last, pos) = end_of(base, records.last());
            let header = match decode_header(self.shape.id, self.sector(pos)) {
                Ok(header) if header.seq == seq + 1 => header,
                Err(Invalid::Version(version)) => return Err(other_version(version)),
                _ => break,
            };
            let sectors = header.sectors();
            let fits = u64::try_from(sectors)
                .is_ok_and(|sectors| sectors <= self.shape.record_sectors_max());
            if header.previous != last || !fits {
                let detail = format!("record {}", header.seq);
                return Err(corrupt("the log does not hang together", detail));
            }
            let record = &mut buffer[..sectors * SECTOR_LEN_BYTES];
            for (sector, pos) in record.chunks_mut(SECTOR_LEN_BYTES).zip(pos..) {
                sector.copy_from_slice(self.sector(pos));
            }
            let Ok(changes) = decode_body(self.shape.id, &header, record) else {
                break;
            };
            records.push(Record {
                header,
                pos,
                changes,
            });
        }
        self.look_beyond(base, &records)?;
        Ok(records)
    }

    /// Makes sure that the log ends where it was found to end.
    fn look_beyond(&mut self, base: Option<&Snapshot>, records: &[Record]) -> Result<(), Failure> {
        let (seq, _, end) = end_of(base, records.last());
        let lost = |what: String| {
            let lost = || corrupt("a part of the log is missing or damaged", what);
            // With what could not be read there may be nothing missing.
            Err(self.unread.as_ref().map_or_else(lost, unreadable))
        };
        let roots = self.roots.iter().flatten();
        let newest_root = roots.map(|root| root.seq).max().unwrap_or(0);
        if newest_root > seq {
            return lost(format!("records {} to {newest_root}", seq + 1));
        }
        let is_root_damaged = self.roots.contains(&Err(Invalid::Damaged));
        if base.is_none() && records.is_empty() && is_root_damaged {
            return lost("all of it, and both snapshots".into());
        }
        for pos in 0..self.shape.log_sectors {
            match decode_prefix(self.shape.id, self.sector(pos)) {
                Sector::Of { seq: later, .. } if later > seq + 1 => {
                    return lost(format!(
                        "record {}, while there is a record {later}",
                        seq + 1
                    ));
                }
                Sector::Of { seq: next, .. } if next == seq + 1 => {
                    self.recovery.is_tail_torn = true;
                }
                _ => {}
            }
        }
        if decode_prefix(self.shape.id, self.sector(end)) == Sector::Damaged {
            self.recovery.is_tail_torn = true;
        }
        Ok(())
    }

    /// Drops the last group if its frames are not those that it speaks of.
    fn drop_unarrived(
        &mut self,
        base: Option<&Snapshot>,
        records: &mut Vec<Record>,
    ) -> Result<(), Failure> {
        let stable = self.stable(base, records);
        let first = records.partition_point(|record| record.header.seq <= stable);
        let mut frame = Scratch::zeroed(self.shape.frame_len);
        for at in first..records.len() {
            for change in &records[at].changes {
                if self.has_arrived(change, &mut frame)? {
                    continue;
                }
                if at + 1 < records.len() {
                    let detail = format!("record {} is followed by others", records[at].header.seq);
                    return Err(corrupt("the frames of an old group are damaged", detail));
                }
                self.recovery.dropped_groups = 1;
                self.recovery.dropped_changes = records[at].changes.len();
                records.truncate(at);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Up to where everything is known to be durable.
    fn stable(&self, base: Option<&Snapshot>, records: &[Record]) -> u64 {
        let base_seq = base.map_or(0, |base| base.root.seq);
        let marks = records.iter().map(|record| record.header.stable);
        let (seq, _, end) = end_of(base, records.last());
        // A record whose body did not arrive may still have a header that did.
        let torn = decode_header(self.shape.id, self.sector(end)).ok();
        let torn = torn.filter(|header| header.seq == seq + 1);
        let torn = torn.map(|header| header.stable);
        marks.chain(torn).fold(base_seq, u64::max)
    }

    fn has_arrived(&self, change: &Change, frame: &mut [u8]) -> Result<bool, Failure> {
        let Change::Put(blob) = change else {
            return Ok(true);
        };
        match read_one(&*self.disk, self.shape.slot_at(blob.slot), frame) {
            Ok(()) => {
                let digest = self.shape.id.frame_digest(blob.guid, blob.slot, frame);
                Ok(digest == blob.digest)
            }
            // The file had not become long enough yet.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(unreadable(&e)),
        }
    }

    /// Writes again whatever no later record vouches for: what was read may never have reached the medium (BS-12).
    fn rewrite_unmarked(&self, base: Option<&Snapshot>, records: &[Record]) -> Result<(), Failure> {
        let Some(last) = records.last() else {
            return match base {
                Some(base) => self.rewrite_root(base),
                None => write_superblocks(&*self.disk, &self.shape),
            };
        };
        let mut frame = Scratch::zeroed(self.shape.frame_len);
        for change in &last.changes {
            let Change::Put(blob) = change else {
                continue;
            };
            if !self.has_arrived(change, &mut frame)? {
                // It was there a moment ago, or an older mark vouches for it: reading it will say what is wrong.
                continue;
            }
            let mut write = std::iter::once(Write {
                at: self.shape.slot_at(blob.slot),
                from: &frame,
                registered: None,
            });
            self.disk.write(&mut write).map_err(|e| unwritable(&e))?;
        }
        let mut record = Scratch::zeroed(last.header.sectors() * SECTOR_LEN_BYTES);
        for (sector, pos) in record.chunks_mut(SECTOR_LEN_BYTES).zip(last.pos..) {
            sector.copy_from_slice(self.sector(pos));
        }
        let again = self
            .disk
            .write_and_sync(&mut pieces(&self.shape, last.pos, &record));
        again.map_err(|e| unwritable(&e))
    }

    /// Its chunks were durable before it was written.
    fn rewrite_root(&self, base: &Snapshot) -> Result<(), Failure> {
        let mut sector = Scratch::zeroed(SECTOR_LEN_BYTES);
        base.root.encode(self.shape.id, &mut sector);
        let mut write = std::iter::once(Write {
            at: Shape::root_at(base.at),
            from: &sector,
            registered: None,
        });
        let again = self.disk.write_and_sync(&mut write);
        again.map_err(|e| unwritable(&e))
    }

    fn epoch(&self, base: Option<&Snapshot>, records: &[Record]) -> u64 {
        let base = base.map_or(1, |base| base.root.epoch);
        let last = records.last().map_or(1, |record| record.header.epoch);
        base.max(last)
    }

    /// What the roots hold, as far as it can be used: a damaged one counts as what the other is.
    fn bases(&self, base: Option<&Snapshot>, pos: u64) -> [Base; 2] {
        let Some(base) = base else {
            return [Base::default(), Base::default()];
        };
        let used = Base {
            seq: base.root.seq,
            log_pos: base.root.log_pos,
            chunks: base.root.chunks.clone(),
        };
        let other = match &self.roots[1 - base.at] {
            Ok(root) if root.seq <= used.seq => Base {
                seq: root.seq,
                log_pos: root.log_pos,
                chunks: root.chunks.clone(),
            },
            // Before the first snapshot there was the beginning of the log.
            Err(Invalid::Blank) if pos <= self.shape.log_sectors => Base::default(),
            _ => Base {
                chunks: Vec::new(),
                ..used.clone()
            },
        };
        let mut bases = [used.clone(), other];
        if base.at == 1 {
            bases.swap(0, 1);
        }
        bases
    }

    /// The slots as the log left them.
    fn slots(
        &self,
        base: Option<Snapshot>,
        records: &[Record],
        log: &Log,
    ) -> Result<Slots, Failure> {
        let base = base.map_or_else(Vec::new, |base| base.blobs);
        let changes = || records.iter().flat_map(|record| &record.changes);
        let put = |change: &Change| match change {
            Change::Put(blob) => Some(blob.slot),
            Change::Delete(_) => None,
        };
        let highest = base.iter().map(|blob| blob.slot);
        let highest = highest.chain(changes().filter_map(put)).max();
        let mut slots = Slots::new();
        let needed = highest.map_or(0, |slot| wide(slot) + 1);
        slots.grow_to(self.shape.slots_in(self.disk.len_bytes()).max(needed));
        slots.reserve_blobs(base.len());
        let twice = |slot: u32| Err(corrupt("a slot is in use twice", format!("slot {slot}")));
        for blob in base {
            if !slots.take_this(blob.slot) || slots.bind(blob).is_some() {
                return twice(blob.slot);
            }
        }
        for change in changes() {
            let old = match change {
                Change::Put(blob) if !slots.take_this(blob.slot) => return twice(blob.slot),
                Change::Put(blob) => slots.bind(*blob),
                Change::Delete(guid) => slots.unbind(*guid),
            };
            if let Some(old) = old {
                slots.release(old);
            }
        }
        for slot in log.bases.iter().flat_map(|base| &base.chunks) {
            if !slots.take_this(*slot) {
                return twice(*slot);
            }
        }
        if self.disk.len_bytes() < self.shape.len_with(needed) {
            // Somebody cut the file short. What was there reads as damaged, and the rest is still to be had.
            let grown = self.disk.grow(self.shape.len_with(needed));
            grown
                .map_err(|e| Failure::of(&e, "the file is too short, and cannot be made longer"))?;
        }
        Ok(slots)
    }
}

fn read_log(disk: &dyn Disk, shape: &Shape) -> Result<Scratch, Failure> {
    let sectors = usize::try_from(shape.log_sectors).expect("a log is far below 2^32");
    let mut log = Scratch::zeroed(sectors * SECTOR_LEN_BYTES);
    let mut at = shape.log_at;
    let mut reads = Vec::new();
    for into in log.chunks_mut(PIECE_LEN_BYTES) {
        let next = at + u64::try_from(into.len()).expect("a length fits 64 bits");
        reads.push(Read {
            at,
            into,
            registered: None,
        });
        at = next;
    }
    for answer in disk.read(&mut reads) {
        answer.map_err(|e| Failure::of(&e, "the log could not be read"))?;
    }
    Ok(log)
}

/// The number and the digest of the last record, and where the next one begins.
fn end_of(base: Option<&Snapshot>, last: Option<&Record>) -> (u64, u128, u64) {
    match (last, base) {
        (Some(record), _) => {
            let header = &record.header;
            let sectors = u64::try_from(header.sectors()).expect("a record is short");
            (header.seq, header.digest, record.pos + sectors)
        }
        (None, Some(base)) => (base.root.seq, base.root.last, base.root.log_pos),
        (None, None) => (0, 0, 0),
    }
}

impl Store {
    /// Ends an open: sums the log up if it has grown long or a snapshot is damaged, and marks its end where that was not
    /// clean.
    fn settle(&self) -> Result<(), Failure> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if self.recovery.is_snapshot_damaged || log.is_due(&self.shape) {
            let blobs = self.lock().slots.iter().collect();
            match self.write_snapshot(&mut log, blobs) {
                Ok(()) | Err(SnapshotError::Later) => {}
                Err(SnapshotError::Stop(failure)) => return Err(failure),
            }
        }
        if self.recovery.is_clean {
            return Ok(());
        }
        // The log ends where it was found to end, whatever still lies beyond.
        log.append(&*self.disk, &self.shape, Kind::Mark, &[])
    }
}
