//! The bytes of a disk, in chunks that copies share until one of them is written.

use std::sync::Arc;

/// What a disk writes as a whole or not at all.
pub(super) const SECTOR_LEN: usize = 512;
pub(super) const SECTOR_LEN_BYTES: u64 = 512;

const CHUNK_LEN: usize = 4_096;
const CHUNK_LEN_BYTES: u64 = 4_096;

type Chunk = [u8; CHUNK_LEN];
pub(super) type Sector = [u8; SECTOR_LEN];

/// A file of `len` bytes. A crash state is a copy with a few sectors changed, so copies have to be cheap.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// A chunk that was never written is `None` and reads as zeros. Bytes past `len` are zeros.
    chunks: Vec<Option<Arc<Chunk>>>,
    len: u64,
}

impl Image {
    pub(super) fn zeroed(len: u64) -> Self {
        let mut image = Self {
            chunks: Vec::new(),
            len: 0,
        };
        image.set_len(len);
        image
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Longer with zeros, or cut.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let tail = len.next_multiple_of(CHUNK_LEN_BYTES).min(self.len) - len;
            let zeros = vec![0; index(tail)];
            self.write(len, &zeros);
        }
        self.chunks
            .resize(index(len.div_ceil(CHUNK_LEN_BYTES)), None);
        self.len = len;
    }

    /// Fills `buf` from `offset`; the caller has cut both to the length.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) {
        for_chunks(offset, buf.len(), |chunk, from, range| {
            let part = &mut buf[range];
            match self.chunks.get(chunk) {
                Some(Some(chunk)) => part.copy_from_slice(&chunk[from..from + part.len()]),
                _ => part.fill(0),
            }
        });
    }

    /// Overwrites within the length.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        for_chunks(offset, data.len(), |chunk, from, range| {
            let part = &data[range];
            let chunk = self.chunks[chunk].get_or_insert_with(|| Arc::new([0; CHUNK_LEN]));
            Arc::make_mut(chunk)[from..from + part.len()].copy_from_slice(part);
        });
    }

    /// Those that were written, with their places.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let chunks = (0..).step_by(CHUNK_LEN).zip(&self.chunks);
        chunks.filter_map(|(at, chunk)| {
            let left = index(self.len - at).min(CHUNK_LEN);
            Some((at, &chunk.as_ref()?[..left]))
        })
    }

    /// FNV-1a over length and bytes, eight at a time.
    pub(super) fn hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325 ^ self.len;
        let mut add =
            |word: u64| hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        for chunk in &self.chunks {
            match chunk {
                Some(chunk) => {
                    for word in chunk.as_chunks::<8>().0 {
                        add(u64::from_le_bytes(*word));
                    }
                }
                None => (0..CHUNK_LEN / 8).for_each(|_| add(0)),
            }
        }
        hash
    }

    /// The sector of that number; what lies past the length is zeros.
    pub(super) fn sector(&self, number: u64) -> Sector {
        let mut sector = [0; SECTOR_LEN];
        let start = number * SECTOR_LEN_BYTES;
        let len = self.len.saturating_sub(start).min(SECTOR_LEN_BYTES);
        self.read(start, &mut sector[..index(len)]);
        sector
    }

    /// Replaces a sector, as far as it lies within the length.
    pub(super) fn set_sector(&mut self, number: u64, sector: &Sector) {
        let start = number * SECTOR_LEN_BYTES;
        let len = self.len.saturating_sub(start).min(SECTOR_LEN_BYTES);
        self.write(start, &sector[..index(len)]);
    }
}

/// Calls `each` with a chunk's number, the place in it, and the part of the buffer that belongs there.
fn for_chunks(offset: u64, len: usize, mut each: impl FnMut(usize, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = offset + u64::try_from(done).expect("a length fits 64 bits");
        let from = index(at % CHUNK_LEN_BYTES);
        let part = (CHUNK_LEN - from).min(len - done);
        each(index(at / CHUNK_LEN_BYTES), from, done..done + part);
        done += part;
    }
}

pub(super) fn index(number: u64) -> usize {
    usize::try_from(number).expect("a simulated disk fits into memory")
}

/// A length as a place on the disk.
pub(super) fn number(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits 64 bits")
}
