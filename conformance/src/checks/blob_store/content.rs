//! Frames that tell whose they are: every sector has the number of its write in it, so that a torn frame, a foreign
//! one and a stale one each show.

use std::collections::BTreeMap;
use std::fmt;

use larder_traits::{AlignedBlobBuf, BlobStore, PAGE_SIZE};

/// What no disk tears.
const SECTOR_LEN_BYTES: usize = 512;
const WORD_LEN_BYTES: usize = 8;

/// The frame of `tag`, on plain heap.
pub(crate) fn frame(tag: u64) -> AlignedBlobBuf {
    let mut buf = AlignedBlobBuf::zeroed();
    fill(&mut buf, tag);
    buf
}

/// The frame of `tag`, in a buffer of the store's own.
pub(crate) fn own_frame(store: &dyn BlobStore, tag: u64) -> AlignedBlobBuf {
    let mut buf = store.alloc_blob_buf_uninit();
    fill(&mut buf, tag);
    buf
}

/// A frame in which every byte is `byte`.
pub(crate) fn filled(byte: u8) -> AlignedBlobBuf {
    let mut buf = AlignedBlobBuf::zeroed();
    buf.fill(byte);
    buf
}

/// Overwrites all of `buf` with the frame of `tag`.
pub(crate) fn fill(buf: &mut [u8], tag: u64) {
    for (sector, bytes) in (0_u64..).zip(buf.chunks_exact_mut(SECTOR_LEN_BYTES)) {
        for (at, word) in (0_u64..).zip(bytes.chunks_exact_mut(WORD_LEN_BYTES)) {
            word.copy_from_slice(&word_of(tag, sector, at).to_le_bytes());
        }
    }
}

/// The first word of a sector is its tag; the others follow from it and from where they stand.
fn word_of(tag: u64, sector: u64, at: u64) -> u64 {
    if at == 0 {
        tag
    } else {
        (tag ^ (sector << 32) ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The tag of one sector, if all of it is of one frame.
fn sector_tag(sector: u64, bytes: &[u8]) -> Option<u64> {
    let mut words = bytes.chunks_exact(WORD_LEN_BYTES).map(|word| {
        let word = word.try_into().expect("a chunk is as long as was asked");
        u64::from_le_bytes(word)
    });
    let tag = words.next()?;
    (1_u64..)
        .zip(words)
        .all(|(at, word)| word == word_of(tag, sector, at))
        .then_some(tag)
}

/// What a frame was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// There is no such blob.
    Absent,
    /// The whole frame of this tag.
    Frame(u64),
    /// This byte throughout.
    Filled(u8),
    /// None of these; in words.
    Mixture(String),
}

impl Content {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        if bytes.len() != PAGE_SIZE {
            return Self::Mixture(format!("{} bytes", bytes.len()));
        }
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Self::Filled(bytes[0]);
        }
        let sectors = (0_u64..).zip(bytes.chunks_exact(SECTOR_LEN_BYTES));
        let mut found: BTreeMap<Option<u64>, (u64, u64)> = BTreeMap::new();
        for (sector, bytes) in sectors {
            let (_first, count) = found
                .entry(sector_tag(sector, bytes))
                .or_insert((sector, 0));
            *count += 1;
        }
        match found.first_key_value() {
            Some((Some(tag), _)) if found.len() == 1 => Self::Frame(*tag),
            _ => Self::mixture(&found),
        }
    }

    fn mixture(found: &BTreeMap<Option<u64>, (u64, u64)>) -> Self {
        const SHOWN_MAX: usize = 6;
        let parts = found.iter().take(SHOWN_MAX).map(|(tag, (first, count))| {
            let whose = tag.map_or("of no frame".into(), |tag| format!("of frame {tag}"));
            format!("{count} sectors {whose} from sector {first} on")
        });
        Self::Mixture(parts.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("NotFound"),
            Self::Frame(tag) => write!(f, "frame {tag}"),
            Self::Filled(byte) => write!(f, "0x{byte:02x} throughout"),
            Self::Mixture(what) => write!(f, "a mixture: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_known_again_and_a_changed_one_is_not() {
        let mut buf = frame(7);
        assert_eq!(Content::of(&buf), Content::Frame(7));
        buf[PAGE_SIZE - 1] ^= 1;
        assert!(matches!(Content::of(&buf), Content::Mixture(_)));
        let other = frame(8);
        buf[PAGE_SIZE - 512..].copy_from_slice(&other[PAGE_SIZE - 512..]);
        assert!(matches!(Content::of(&buf), Content::Mixture(_)));
        // Whole sectors in the wrong order are no frame either.
        let mut moved = frame(9);
        moved.copy_within(512..1_024, 0);
        assert!(matches!(Content::of(&moved), Content::Mixture(_)));
        assert_eq!(Content::of(&filled(0)), Content::Filled(0));
    }
}
