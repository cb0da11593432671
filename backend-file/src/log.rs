//! Appending to the log: the one place that orders what becomes durable.
//!
//! The log is a ring of sectors. Positions are counted on through every lap, so that what is in use is a difference.
//! Only one record is ever on its way: the next is written when the sync of this one has returned, and says so in its
//! `stable` mark. That is what lets recovery trust every group but the last, and what makes a damaged record that is
//! followed by another one a corruption and never a torn tail.

use larder_traits::ErrorKind;

use crate::disk::{Disk, SECTOR_LEN_BYTES, Write};
use crate::error::Failure;
use crate::format::{Change, Digest, Header, Kind, record_sectors};
use crate::scratch::Scratch;
use crate::shape::Shape;

/// A snapshot that recovery may start from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Base {
    pub(crate) seq: u64,
    pub(crate) log_pos: u64,
    /// The slots that its chunks are in.
    pub(crate) chunks: Vec<u32>,
}

/// The end of the log, as only its writer knows it.
pub(crate) struct Log {
    pub(crate) epoch: u64,
    /// The last record, and since every record is synced before the next, the last durable one.
    pub(crate) seq: u64,
    pub(crate) last: Digest,
    /// Where the next record goes.
    pub(crate) pos: u64,
    /// Whether the last record is a mark, so that all groups are known to be durable.
    pub(crate) is_marked: bool,
    /// What the two roots hold.
    pub(crate) bases: [Base; 2],
    pub(crate) newest: usize,
    /// Where records are put together.
    pub(crate) buffer: Scratch,
}

impl Log {
    /// The log of a new file.
    pub(crate) fn new(shape: &Shape) -> Self {
        Self {
            epoch: 1,
            seq: 0,
            last: 0,
            pos: 0,
            is_marked: true,
            bases: [Base::default(), Base::default()],
            newest: 0,
            buffer: Scratch::zeroed(shape.record_len_max()),
        }
    }

    /// Whether a record of so many sectors leaves everything in place that recovery may need.
    fn has_room(&self, shape: &Shape, sectors: u64) -> bool {
        let oldest = self.bases[0].log_pos.min(self.bases[1].log_pos);
        self.pos + sectors - oldest <= shape.log_sectors
    }

    /// Whether a snapshot is due once a record of so many changes is written.
    pub(crate) fn is_due_after(&self, shape: &Shape, changes: usize) -> bool {
        let used = self.pos - self.bases[self.newest].log_pos;
        used + wide(record_sectors(changes)) >= shape.checkpoint_after()
    }

    pub(crate) fn is_due(&self, shape: &Shape) -> bool {
        self.pos - self.bases[self.newest].log_pos >= shape.checkpoint_after()
    }

    /// Writes a record and makes it durable, and with it every write that returned before.
    pub(crate) fn append(
        &mut self,
        disk: &dyn Disk,
        shape: &Shape,
        kind: Kind,
        changes: &[Change],
    ) -> Result<(), Failure> {
        let sectors = record_sectors(changes.len());
        if !self.has_room(shape, wide(sectors)) {
            let message = "the log is full, since no snapshot could be written";
            return Err(Failure::new(ErrorKind::Unavailable, message));
        }
        let mut header = Header {
            kind,
            seq: self.seq + 1,
            epoch: self.epoch,
            stable: self.seq,
            entries: 0,
            previous: self.last,
            body: 0,
            digest: 0,
        };
        crate::format::encode_record(shape.id, &mut header, changes, &mut self.buffer);
        let record = &self.buffer[..sectors * SECTOR_LEN_BYTES];
        // Commit point: past this line a failure may still have taken effect.
        let written = disk.write_and_sync(&mut pieces(shape, self.pos, record));
        written.map_err(|e| Failure::of(&e, "the log could not be written or synced"))?;
        self.seq = header.seq;
        self.last = header.digest;
        self.pos += wide(sectors);
        self.is_marked = kind == Kind::Mark;
        Ok(())
    }
}

/// The one or two ranges of the ring that a record takes.
pub(crate) fn pieces<'a>(
    shape: &Shape,
    pos: u64,
    record: &'a [u8],
) -> impl Iterator<Item = Write<'a>> + use<'a> {
    let until_the_end = shape.log_sectors - pos % shape.log_sectors;
    let until_the_end = usize::try_from(until_the_end).unwrap_or(usize::MAX);
    let split = record
        .len()
        .min(until_the_end.saturating_mul(SECTOR_LEN_BYTES));
    let (first, second) = record.split_at(split);
    let piece = |at, from| Write {
        at,
        from,
        registered: None,
    };
    let pieces = [
        piece(shape.log_sector_at(pos), first),
        piece(shape.log_at, second),
    ];
    pieces.into_iter().filter(|piece| !piece.from.is_empty())
}

fn wide(sectors: usize) -> u64 {
    u64::try_from(sectors).expect("a count of sectors fits 64 bits")
}
