//! The stores behind one face: the same work for each, through each one's own interface and own best buffers.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use holt::BlobStore as _;
use larder_traits::blob_store::{BlobGuid, BlobStore};
use larder_traits::frame::AlignedBlobBuf;

use super::raw::Raw;
use crate::harness::Result;

/// What the work asks of a store. Names are small numbers.
pub(super) trait Side: Sync {
    type Frame: Send + Sync;
    /// What one thread needs to read.
    type Reader<'a>: FnMut(usize) -> Result<[u8; 16]> + Send
    where
        Self: 'a;

    fn frame(&self) -> Result<Self::Frame>;
    fn bytes(frame: &mut Self::Frame) -> &mut [u8];
    /// Stores a batch; durable after [`flush`](Self::flush).
    fn put(&self, writes: &[(usize, &Self::Frame)]) -> Result;
    fn flush(&self) -> Result;
    /// Reads a blob and tells its first bytes, which are its [`stamp`].
    fn reader(&self) -> Result<Self::Reader<'_>>;
}

/// The first bytes of a blob.
pub(super) fn stamp(bytes: &[u8]) -> Result<[u8; 16]> {
    Ok(bytes.get(..16).ok_or("a frame is longer")?.try_into()?)
}

/// A name of 16 bytes that are spread, as names made by a program are.
pub(super) fn guid(name: usize) -> [u8; 16] {
    let name = u128::try_from(name).expect("a position fits 128 bits") + 1;
    name.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
        .to_be_bytes()
}

/// Any implementation of the contract.
pub(super) struct Ours<S>(pub(super) S);

impl<S: BlobStore> Side for Ours<S> {
    type Frame = AlignedBlobBuf;
    type Reader<'a>
        = Box<dyn FnMut(usize) -> Result<[u8; 16]> + Send + 'a>
    where
        Self: 'a;

    fn frame(&self) -> Result<AlignedBlobBuf> {
        Ok(self.0.alloc_blob_buf_zeroed())
    }

    fn bytes(frame: &mut AlignedBlobBuf) -> &mut [u8] {
        frame
    }

    fn put(&self, writes: &[(usize, &AlignedBlobBuf)]) -> Result {
        if let [(name, frame)] = writes {
            self.0
                .write_blob(BlobGuid::from_bytes(guid(*name)), frame)?;
            return Ok(());
        }
        let writes: Vec<_> = writes
            .iter()
            .map(|(name, frame)| (BlobGuid::from_bytes(guid(*name)), *frame))
            .collect();
        Ok(self.0.write_blobs(&writes)?)
    }

    fn flush(&self) -> Result {
        Ok(self.0.flush()?)
    }

    fn reader(&self) -> Result<Self::Reader<'_>> {
        let mut frame = self.0.alloc_blob_buf_zeroed();
        Ok(Box::new(move |name| {
            self.0
                .read_blob(BlobGuid::from_bytes(guid(name)), &mut frame)?;
            stamp(&frame)
        }))
    }
}

/// The peer.
pub(super) struct Holt(pub(super) holt::FileBlobStore);

impl Holt {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        Ok(Self(holt::FileBlobStore::open(folder)?))
    }
}

impl Side for Holt {
    type Frame = holt::AlignedBlobBuf;
    type Reader<'a> = Box<dyn FnMut(usize) -> Result<[u8; 16]> + Send + 'a>;

    fn frame(&self) -> Result<Self::Frame> {
        Ok(self.0.alloc_blob_buf_zeroed())
    }

    fn bytes(frame: &mut Self::Frame) -> &mut [u8] {
        frame.as_mut_slice()
    }

    /// A batch takes the way of its own checkpoints, where the data sync is on the same turn of the ring.
    fn put(&self, writes: &[(usize, &Self::Frame)]) -> Result {
        if let [(name, frame)] = writes {
            self.0.write_blob(guid(*name), frame)?;
            return Ok(());
        }
        let writes: Vec<_> = writes
            .iter()
            .map(|(name, frame)| (guid(*name), *frame))
            .collect();
        self.0.write_blobs_with_data_sync(&writes)?;
        Ok(())
    }

    fn flush(&self) -> Result {
        self.0.flush()?;
        Ok(())
    }

    fn reader(&self) -> Result<Self::Reader<'_>> {
        let mut frame = self.0.alloc_blob_buf_zeroed();
        Ok(Box::new(move |name| {
            self.0.read_blob(guid(name), &mut frame)?;
            stamp(frame.as_slice())
        }))
    }
}

/// The raw medium: names are slots, written in place. Its frames are numbers, and its threads have a ring each.
pub(super) struct Medium {
    path: PathBuf,
    len_frames: usize,
    raw: Mutex<Raw>,
}

impl Medium {
    pub(super) fn open(folder: &Path, len_frames: usize, frames: usize) -> Result<Self> {
        let path = folder.join("raw");
        let raw = Mutex::new(Raw::open(&path, len_frames, frames)?);
        Ok(Self {
            path,
            len_frames,
            raw,
        })
    }

    /// Fills the frames, and the slots of the same numbers.
    pub(super) fn fill(&self, content: impl Fn(&mut [u8], usize)) -> Result {
        let mut raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, frame) in raw.frames.iter_mut().enumerate() {
            content(frame, name);
        }
        drop(raw);
        self.put_and_flush(0..self.len_frames)
    }

    /// Writes these slots of the file from the frames of the same number, and syncs.
    pub(super) fn put_and_flush(&self, slots: Range<usize>) -> Result {
        let mut raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        let writes: Vec<(usize, usize)> = slots.map(|slot| (slot, slot)).collect();
        raw.write(&writes)?;
        raw.sync()
    }

    /// A reader that looks at what it has read in this way.
    pub(super) fn reader(
        &self,
        look: fn(&[u8]),
    ) -> Result<impl FnMut(usize) -> Result<[u8; 16]> + Send + use<>> {
        let mut raw = Raw::open(&self.path, self.len_frames, 1)?;
        Ok(move |slot| {
            raw.read(slot, 0)?;
            look(&raw.frames[0]);
            stamp(&raw.frames[0])
        })
    }
}
