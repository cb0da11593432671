//! [`BlobStore`] that misbehaves. Its calls block, so a call that hangs holds its thread until the switch is disarmed
//! or armed anew, and then fails as one whose answer was lost.
//!
//! A flush that was made to fail leaves the store as BS-12 has it: refusing writes and flushes for good. Open another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use larder_traits::{AlignedBlobBuf, BlobGuid, BlobStore, BlobStoreError, ErrorKind, Fault};

use super::Faulty;
use super::call::What;
use super::switch::Effect::{Read, Write};
use super::switch::{Report, Trouble};
use crate::fixture::FaultKind;

/// A batch that owns its frames.
type Batch = Vec<(BlobGuid, AlignedBlobBuf)>;

#[deny(clippy::missing_trait_methods)]
impl<S: BlobStore + 'static> BlobStore for Faulty<S> {
    fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<(), BlobStoreError> {
        let what = What::new("read_blob", Read, guid);
        self.block(what, |inner| inner.read_blob(guid, dst), nothing)
    }

    fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<(), BlobStoreError> {
        self.intact()?;
        let what = What::new("write_blob", Write, guid);
        let work = |inner: &S| inner.write_blob(guid, src);
        self.block(what, work, || {
            let src = src.clone();
            Box::new(move |inner: &S| inner.write_blob(guid, &src))
        })
    }

    fn delete_blob(&self, guid: BlobGuid) -> Result<(), BlobStoreError> {
        self.intact()?;
        let what = What::new("delete_blob", Write, guid);
        let work = move |inner: &S| inner.delete_blob(guid);
        self.block(what, work, || Box::new(work))
    }

    fn list_blobs(&self) -> Result<Vec<BlobGuid>, BlobStoreError> {
        let what = What::new("list_blobs", Read, "");
        self.block(what, BlobStore::list_blobs, nothing)
    }

    fn flush(&self) -> Result<(), BlobStoreError> {
        // Of a flush nobody ever knows how far it came, also where the store was poisoned before.
        self.intact().map_err(|e| e.into_fault().now_unknown())?;
        let what = What::new("flush", Write, "");
        let flushed = self.block(what, BlobStore::flush, || Box::new(BlobStore::flush));
        if flushed.is_err() {
            self.poisoned.store(true, Ordering::Release);
        }
        flushed.map_err(|e| e.into_fault().now_unknown().into())
    }

    fn alloc_blob_buf_zeroed(&self) -> AlignedBlobBuf {
        self.inner.alloc_blob_buf_zeroed()
    }

    fn alloc_blob_buf_uninit(&self) -> AlignedBlobBuf {
        self.inner.alloc_blob_buf_uninit()
    }

    fn write_blobs(&self, writes: &[(BlobGuid, &AlignedBlobBuf)]) -> Result<(), BlobStoreError> {
        self.intact()?;
        let what = What::new("write_blobs", Write, names(writes));
        let work = |inner: &S| inner.write_blobs(writes);
        self.block(what, work, || {
            let batch = owned(writes);
            Box::new(move |inner: &S| inner.write_blobs(&borrowed(&batch)))
        })
    }

    fn write_blobs_with_data_sync(
        &self,
        writes: &[(BlobGuid, &AlignedBlobBuf)],
    ) -> Result<(), BlobStoreError> {
        self.intact()?;
        let what = What::new("write_blobs_with_data_sync", Write, names(writes));
        let work = |inner: &S| inner.write_blobs_with_data_sync(writes);
        self.block(what, work, || {
            let batch = owned(writes);
            Box::new(move |inner: &S| inner.write_blobs_with_data_sync(&borrowed(&batch)))
        })
    }

    /// Passed on and not counted: it has no error to answer.
    fn needs_flush(&self) -> bool {
        self.poisoned.load(Ordering::Acquire) || self.inner.needs_flush()
    }

    fn has_blob(&self, guid: BlobGuid) -> Result<bool, BlobStoreError> {
        let what = What::new("has_blob", Read, guid);
        self.block(what, |inner| inner.has_blob(guid), nothing)
    }

    /// A call of its own for each blob, as the provided method has it.
    fn read_blobs(
        &self,
        reads: &mut [(BlobGuid, &mut AlignedBlobBuf)],
    ) -> Vec<Result<(), BlobStoreError>> {
        let read = |(guid, dst): &mut (BlobGuid, &mut AlignedBlobBuf)| self.read_blob(*guid, dst);
        reads.iter_mut().map(read).collect()
    }

    fn read_blob_range(
        &self,
        guid: BlobGuid,
        offset: usize,
        dst: &mut [u8],
    ) -> Result<(), BlobStoreError> {
        let what = What::new("read_blob_range", Read, guid);
        let work = |inner: &S| inner.read_blob_range(guid, offset, dst);
        self.block(what, work, nothing)
    }
}

/// A call that owns all it needs, to be made later.
type Kept<S> = Box<dyn FnOnce(&S) -> Result<(), BlobStoreError> + Send>;

impl<S: BlobStore + 'static> Faulty<S> {
    fn intact(&self) -> Result<(), BlobStoreError> {
        if !self.poisoned.load(Ordering::Acquire) {
            return Ok(());
        }
        let why = "an earlier flush failed; open the store anew";
        Err(Fault::not_applied(ErrorKind::Unavailable, why).into())
    }

    /// One call on this thread: counted, and done by `work` unless the switch has it otherwise. `later` makes the same
    /// call over again for one that is to land later.
    fn block<T>(
        &self,
        what: What,
        work: impl FnOnce(&S) -> Result<T, BlobStoreError>,
        later: impl FnOnce() -> Kept<S>,
    ) -> Result<T, BlobStoreError> {
        let turn = self.enter(&what);
        if !turn.delay.is_zero() {
            thread::sleep(turn.delay);
        }
        let refused = |report: Report, why| what.refused(report, ErrorKind::Unavailable, why);
        match turn.trouble {
            None | Some(Trouble::Short(..)) => work(&self.inner),
            Some(Trouble::Kind(FaultKind::ErrorBefore)) => {
                let why = "the call was made to fail before it had an effect";
                Err(refused(turn.report, why).into())
            }
            Some(Trouble::Kind(FaultKind::ErrorAfter)) => {
                drop(work(&self.inner)?);
                let why = "the answer was made to be lost";
                Err(what.lost(ErrorKind::Unavailable, why).into())
            }
            Some(Trouble::Kind(FaultKind::Hang)) => {
                self.switch.hang(&turn);
                let why = "the call was made to hang before it had an effect";
                Err(refused(turn.report, why).into())
            }
            Some(Trouble::HangAfter) => {
                drop(work(&self.inner)?);
                self.switch.hang(&turn);
                let why = "the answer was made to hang";
                Err(what.lost(ErrorKind::Unavailable, why).into())
            }
            Some(Trouble::Late) => {
                let lost = what.lost(ErrorKind::Unavailable, "the write was made to land later");
                let (inner, kept) = (Arc::clone(&self.inner), later());
                let late = Box::pin(async move { drop(kept(&inner)) });
                self.switch.keep(self.label, what.subject, late);
                Err(lost.into())
            }
        }
    }
}

/// What is kept of a read: only writes land later.
fn nothing<S>() -> Kept<S> {
    Box::new(|_| Ok(()))
}

fn names(writes: &[(BlobGuid, &AlignedBlobBuf)]) -> String {
    let names: Vec<String> = writes.iter().map(|(guid, _)| guid.to_string()).collect();
    names.join(", ")
}

fn owned(writes: &[(BlobGuid, &AlignedBlobBuf)]) -> Batch {
    writes
        .iter()
        .map(|(guid, frame)| (*guid, AlignedBlobBuf::clone(frame)))
        .collect()
}

fn borrowed(batch: &Batch) -> Vec<(BlobGuid, &AlignedBlobBuf)> {
    batch.iter().map(|(guid, frame)| (*guid, frame)).collect()
}
