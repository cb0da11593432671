//! The file of a change log, to the byte.
//!
//! It consists of sectors of 512 bytes, the part of a medium that is written as a whole or not at all when the power
//! fails. The first one is the head. Behind it lie frames, each of one or more sectors. A frame is what one sync made
//! durable: it counts as a whole or not at all, and the next one is not begun before it is durable. All numbers are
//! little-endian.
//!
//! | head, from | what |
//! |---|---|
//! | 0 | digest of the rest of the sector |
//! | 8 | magic |
//! | 16 | version |
//! | 20 | number of the first frame |
//! | 28 | the file's own random number |
//!
//! | sector of a frame, from | what |
//! |---|---|
//! | 0 | digest of the rest, seeded with the file's random number and the sector's place |
//! | 8 | number of the frame |
//! | 16 | which sector of the frame, and of how many |
//! | 24 | how many bytes of its content count |
//! | 32 | content; zeros behind it |
//!
//! # A torn tail and a damaged file
//!
//! What a crash leaves of a frame that was being written is some of its sectors; the others read as zeros or lie
//! behind the end. Only the last frame can be one of those. So a sector that is neither whole nor zeros, and a frame
//! that is not whole and has another behind it, are damage, and nothing is dropped on account of them.

use larder_traits::{ErrorKind, Fault};
use twox_hash::XxHash3_64;

use crate::plain::{SECTOR_LEN_BYTES, corrupt};

const MAGIC: [u8; 8] = *b"LARDERCL";
const VERSION: u32 = 1;

/// Where the content of a sector begins.
const CONTENT_AT: usize = 32;

const CONTENT_LEN_BYTES: usize = SECTOR_LEN_BYTES - CONTENT_AT;

/// The first sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) nonce: [u8; 16],
    pub(super) first_frame: u64,
}

impl Head {
    pub(super) fn to_sector(self) -> [u8; SECTOR_LEN_BYTES] {
        let mut sector = [0; SECTOR_LEN_BYTES];
        sector[8..16].copy_from_slice(&MAGIC);
        sector[16..20].copy_from_slice(&VERSION.to_le_bytes());
        sector[20..28].copy_from_slice(&self.first_frame.to_le_bytes());
        sector[28..44].copy_from_slice(&self.nonce);
        let sum = XxHash3_64::oneshot(&sector[8..]);
        sector[..8].copy_from_slice(&sum.to_le_bytes());
        sector
    }

    /// Reads the head of a file of which these are the first bytes, all of them if it is shorter than a sector.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let Some(sector) = bytes.first_chunk::<SECTOR_LEN_BYTES>() else {
            // A log is never that short, and its name is given to it when it is whole.
            return Err(corrupt("the change log is cut short"));
        };
        if sector[8..16] != MAGIC {
            let message = "the file belongs to another program";
            return Err(Fault::not_applied(ErrorKind::InvalidInput, message));
        }
        if XxHash3_64::oneshot(&sector[8..]) != number(sector, 0) {
            return Err(corrupt("the head of the change log is damaged"));
        }
        if short(sector, 16) != VERSION {
            let message = "the change log was written by a newer version";
            return Err(Fault::not_applied(ErrorKind::Unsupported, message));
        }
        let nonce = sector[28..].first_chunk();
        Ok(Self {
            nonce: *nonce.expect("a sector is longer than that"),
            first_frame: number(sector, 20),
        })
    }

    fn sum(&self, place: u64, sector: &[u8; SECTOR_LEN_BYTES]) -> u64 {
        let mut seed = [0; 24];
        seed[..16].copy_from_slice(&self.nonce);
        seed[16..].copy_from_slice(&place.to_le_bytes());
        XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&seed), &sector[8..])
    }

    /// A frame of this content, for the sectors from `place` on; `None` if it is too long for a frame.
    pub(super) fn frame(&self, number: u64, place: u64, content: &[u8]) -> Option<Vec<u8>> {
        let count = content.len().div_ceil(CONTENT_LEN_BYTES).max(1);
        let count = u32::try_from(count).ok()?;
        let mut parts = content.chunks(CONTENT_LEN_BYTES);
        let mut frame = Vec::new();
        for nth in 0..count {
            let part = parts.next().unwrap_or_default();
            let mut sector = [0; SECTOR_LEN_BYTES];
            sector[8..16].copy_from_slice(&number.to_le_bytes());
            sector[16..20].copy_from_slice(&nth.to_le_bytes());
            sector[20..24].copy_from_slice(&count.to_le_bytes());
            let len = u32::try_from(part.len()).ok()?;
            sector[24..28].copy_from_slice(&len.to_le_bytes());
            sector[CONTENT_AT..CONTENT_AT + part.len()].copy_from_slice(part);
            let sum = self.sum(place + u64::from(nth), &sector);
            sector[..8].copy_from_slice(&sum.to_le_bytes());
            frame.extend_from_slice(&sector);
        }
        Some(frame)
    }
}

/// What was read of the frames of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frames {
    /// The content of each whole frame.
    pub(super) contents: Vec<Vec<u8>>,
    /// How many sectors they take.
    pub(super) sectors: u64,
    /// How many of them the last frame takes.
    pub(super) last_sectors: u64,
    /// Whether something lies behind them that a crash left.
    pub(super) is_torn: bool,
}

/// Where reading begins, and where it has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The number of the next frame.
    pub(super) frame: u64,
    /// The place of its first sector in the file.
    pub(super) place: u64,
}

struct Part<'a> {
    frame: u64,
    nth: u32,
    count: u32,
    content: &'a [u8],
}

enum Sector<'a> {
    Whole(Part<'a>),
    Zeros,
    Damaged,
}

impl Head {
    fn sector<'a>(&self, place: u64, sector: &'a [u8; SECTOR_LEN_BYTES]) -> Sector<'a> {
        if sector.iter().all(|byte| *byte == 0) {
            return Sector::Zeros;
        }
        let len = usize::try_from(short(sector, 24)).unwrap_or(usize::MAX);
        match sector[CONTENT_AT..].get(..len) {
            Some(content) if self.sum(place, sector) == number(sector, 0) => Sector::Whole(Part {
                frame: number(sector, 8),
                nth: short(sector, 16),
                count: short(sector, 20),
                content,
            }),
            _ => Sector::Damaged,
        }
    }

    /// Reads the frames from `cursor` on, of which `bytes` are all there is.
    pub(super) fn frames(&self, mut cursor: Cursor, bytes: &[u8]) -> Result<Frames, Fault> {
        let mut frames = Frames::default();
        let (sectors, cut) = bytes.as_chunks::<SECTOR_LEN_BYTES>();
        let mut rest = sectors;
        while !rest.is_empty() {
            let Some((content, count)) = self.whole(cursor, rest) else {
                self.check_torn(cursor, rest)?;
                frames.is_torn = true;
                return Ok(frames);
            };
            frames.contents.push(content);
            frames.sectors += u64::from(count);
            frames.last_sectors = u64::from(count);
            cursor.place += u64::from(count);
            cursor.frame += 1;
            rest = usize::try_from(count)
                .ok()
                .and_then(|count| rest.get(count..))
                .unwrap_or_default();
        }
        frames.is_torn = !cut.is_empty();
        Ok(frames)
    }

    /// The frame that begins here, if all of it is there.
    fn whole(&self, at: Cursor, sectors: &[[u8; SECTOR_LEN_BYTES]]) -> Option<(Vec<u8>, u32)> {
        let mut content = Vec::new();
        let mut all = None;
        for ((nth, place), sector) in (0_u32..).zip(at.place..).zip(sectors) {
            let Sector::Whole(part) = self.sector(place, sector) else {
                return None;
            };
            let count = *all.get_or_insert(part.count);
            if (part.frame, part.nth, part.count) != (at.frame, nth, count) {
                return None;
            }
            content.extend_from_slice(part.content);
            if nth + 1 == count {
                return Some((content, count));
            }
        }
        None
    }

    /// Whether a crash can have left these sectors of the frame that should begin here.
    fn check_torn(&self, at: Cursor, sectors: &[[u8; SECTOR_LEN_BYTES]]) -> Result<(), Fault> {
        for ((nth, place), sector) in (0_u32..).zip(at.place..).zip(sectors) {
            match self.sector(place, sector) {
                Sector::Zeros => {}
                Sector::Whole(part) if (part.frame, part.nth) == (at.frame, nth) => {}
                Sector::Whole(_) => {
                    return Err(corrupt("a record of the change log is missing"));
                }
                Sector::Damaged => {
                    return Err(corrupt("a record of the change log is damaged"));
                }
            }
        }
        Ok(())
    }
}

fn number(sector: &[u8; SECTOR_LEN_BYTES], at: usize) -> u64 {
    let bytes = sector[at..].first_chunk();
    u64::from_le_bytes(*bytes.expect("the fields lie within the sector"))
}

fn short(sector: &[u8; SECTOR_LEN_BYTES], at: usize) -> u32 {
    let bytes = sector[at..].first_chunk();
    u32::from_le_bytes(*bytes.expect("the fields lie within the sector"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_traits::Classify;

    const HEAD: Head = Head {
        nonce: [7; 16],
        first_frame: 5,
    };

    const START: Cursor = Cursor { frame: 5, place: 1 };

    /// Three frames of one, three and two sectors.
    fn file() -> (Vec<Vec<u8>>, Vec<u8>) {
        let contents = vec![vec![1; 100], vec![2; 1_200], vec![3; 500]];
        let mut bytes = Vec::new();
        let mut at = START;
        for content in &contents {
            let frame = HEAD.frame(at.frame, at.place, content).unwrap();
            at.frame += 1;
            at.place += u64::try_from(frame.len() / SECTOR_LEN_BYTES).unwrap();
            bytes.extend(frame);
        }
        assert_eq!(bytes.len(), 6 * SECTOR_LEN_BYTES);
        (contents, bytes)
    }

    #[test]
    fn frames_come_back_and_a_head_too() {
        let (contents, bytes) = file();
        let frames = HEAD.frames(START, &bytes).unwrap();
        assert_eq!((frames.contents, frames.sectors), (contents, 6));
        assert!(!frames.is_torn);
        assert_eq!(Head::read(&HEAD.to_sector()).unwrap(), HEAD);
        let empty = HEAD.frame(5, 1, &[]).unwrap();
        let frames = HEAD.frames(START, &empty).unwrap();
        assert_eq!(frames.contents, [Vec::<u8>::new()]);
    }

    #[test]
    fn any_part_of_the_last_frame_may_be_missing_and_no_other() {
        let (contents, bytes) = file();
        // Which of the six sectors were written; the file may also end before the zeros at its end.
        for written in 0_u32..64 {
            let mut torn = bytes.clone();
            for (nth, sector) in torn.chunks_mut(SECTOR_LEN_BYTES).enumerate() {
                if written & (1 << nth) == 0 {
                    sector.fill(0);
                }
            }
            for is_cut in [false, true] {
                if is_cut {
                    let end = torn.iter().rposition(|byte| *byte != 0);
                    torn.truncate(
                        end.map_or(0, |end| end + 1)
                            .next_multiple_of(SECTOR_LEN_BYTES),
                    );
                }
                let frames = HEAD.frames(START, &torn);
                let whole = [0b1, 0b1110, 0b11_0000].map(|all| written & all == all);
                let count = whole.iter().position(|whole| !whole).unwrap_or(3);
                let behind = [0b11_1110, 0b11_0000, 0, 0][count];
                if written & behind == 0 {
                    assert_eq!(frames.unwrap().contents, contents[..count], "{written:b}");
                } else {
                    assert_eq!(
                        frames.unwrap_err().kind(),
                        ErrorKind::Corrupt,
                        "{written:b}"
                    );
                }
            }
        }
    }

    #[test]
    fn each_changed_byte_is_damage() {
        let (_, bytes) = file();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            let e = HEAD.frames(START, &bytes).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corrupt, "{at}");
        }
        let head = HEAD.to_sector();
        for at in 0..head.len() {
            let mut head = head;
            head[at] ^= 0x10;
            assert!(Head::read(&head).is_err(), "{at}");
        }
        assert!(Head::read(&head[..511]).is_err());
        assert!(Head::read(&[]).is_err());
    }

    #[test]
    fn a_file_that_ends_within_a_sector_was_torn() {
        let (contents, bytes) = file();
        let last = bytes.len() - SECTOR_LEN_BYTES;
        for len in [last, last + 1, bytes.len() - 1] {
            let frames = HEAD.frames(START, &bytes[..len]).unwrap();
            assert_eq!(frames.contents, contents[..2]);
            assert!(frames.is_torn);
        }
    }

    #[test]
    fn a_sector_of_another_place_or_file_is_damage() {
        let (_, bytes) = file();
        let mut swapped = bytes.clone();
        swapped.copy_within(SECTOR_LEN_BYTES..2 * SECTOR_LEN_BYTES, 2 * SECTOR_LEN_BYTES);
        assert!(HEAD.frames(START, &swapped).is_err());
        let other = Head {
            nonce: [8; 16],
            ..HEAD
        };
        assert!(other.frames(START, &bytes).is_err());
    }
}
