//! Fixed frames for a page cache: the [`BlobStore`] contract (BS-1 to BS-15).
//!
//! A synchronous store of whole frames under 16-byte names, meant to stand under a buffer manager that drives it from
//! many threads. What it promises is split in two on purpose: a write is visible at once and whole, and it is durable
//! only after [`BlobStore::flush`].

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::error::{Classify, ErrorKind, Fault, Outcome};
use crate::frame::{AlignedBlobBuf, PAGE_SIZE};

/// The name of a blob: 16 bytes, any 16 bytes.
///
/// All zeros and all ones are names like any other. The order is that of the bytes, which is also that of the numbers
/// given to [`BlobGuid::from_u128`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobGuid([u8; 16]);

impl BlobGuid {
    /// The name made of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The name whose bytes are `number` in big-endian order.
    #[must_use]
    pub const fn from_u128(number: u128) -> Self {
        Self(number.to_be_bytes())
    }

    /// The bytes of this name.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The bytes of this name, borrowed.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<[u8; 16]> for BlobGuid {
    fn from(bytes: [u8; 16]) -> Self {
        Self::from_bytes(bytes)
    }
}

impl From<BlobGuid> for [u8; 16] {
    fn from(guid: BlobGuid) -> Self {
        guid.to_bytes()
    }
}

impl From<u128> for BlobGuid {
    fn from(number: u128) -> Self {
        Self::from_u128(number)
    }
}

/// 32 hexadecimal digits in lower case.
impl fmt::Display for BlobGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for BlobGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobGuid({self})")
    }
}

/// What a [`BlobStore`] answers when it cannot do what was asked; see [`Classify`] for what it tells.
///
/// ```
/// use larder_traits::blob_store::{BlobGuid, BlobStoreError};
/// use larder_traits::{Classify, ErrorKind, Outcome};
///
/// let e = BlobStoreError::not_found(BlobGuid::from_u128(1));
/// assert_eq!((e.kind(), e.outcome()), (ErrorKind::NotFound, Outcome::NotApplied));
/// assert_eq!(e.to_string(), "there is no blob 00000000000000000000000000000001");
/// ```
#[derive(Debug, Error)]
#[error(transparent)]
pub struct BlobStoreError(#[from] Fault);

impl BlobStoreError {
    /// The answer of a read for a blob that is not there (BS-4).
    #[must_use]
    pub fn not_found(guid: BlobGuid) -> Self {
        Self(Fault::not_applied(
            ErrorKind::NotFound,
            format!("there is no blob {guid}"),
        ))
    }

    /// The fault this error was made from, for code that carries it on in an error type of its own.
    #[must_use]
    pub fn into_fault(self) -> Fault {
        self.0
    }
}

impl Classify for BlobStoreError {
    fn kind(&self) -> ErrorKind {
        self.0.kind()
    }

    fn outcome(&self) -> Outcome {
        self.0.outcome()
    }
}

/// A store of whole frames by name, with durability on demand.
///
/// Every blob is exactly one frame of [`PAGE_SIZE`] bytes. Calls block the thread that makes them, and any number of
/// threads may call at once.
///
/// An implementor writes five methods. The eight others have bodies that are correct for every store and are worth
/// replacing: buffers from a pool, native batches, an exact [`needs_flush`](Self::needs_flush), and a
/// [`has_blob`](Self::has_blob) that does not scan.
///
/// # Atomicity
///
/// A blob is replaced as a whole. No reader, crash or failure ever shows a mixture of two frames, nor the bytes of
/// another blob (BS-2, BS-11).
///
/// # Durability
///
/// Only [`flush`](Self::flush) promises durability (BS-3). What was written or deleted since the last flush may or may
/// not survive a loss of power, blob by blob and in any combination:
///
/// * a flushed blob recovers to the flushed frame or to one that was written after it, never to an older one (BS-11);
/// * a blob that was absent at the flush recovers to absent or to a frame that was written after it (BS-11);
/// * a flushed blob whose delete was not flushed recovers to itself or to absent (BS-11).
///
/// Whether the medium survives a loss of the process or of power at all is declared by the backend.
///
/// # Consistency
///
/// Once a write or delete has returned, every thread sees its effect, flushed or not (BS-2).
///
/// A durable store is open once: a second open of the same place, from this process or another, is refused at once, and
/// the threads of one process share one handle (BS-14).
///
/// # Errors
///
/// Every error tells its kind and whether the call may have had an effect (C-1). An error of the medium loses nothing
/// that was flushed, and once its cause is gone, a full disk for instance, the store goes on (BS-15). The exception is
/// a failed flush: the store then refuses further work until it is opened anew (BS-12).
///
/// # Panics
///
/// Nothing that a caller passes, that the medium answers, or that is found in a damaged file makes a method panic (C-3).
pub trait BlobStore: Send + Sync {
    /// Reads blob `guid` into `dst`, all of it (BS-1).
    ///
    /// A blob of zeros is a blob, and reads as zeros (BS-1). `dst` may come from any store.
    ///
    /// # Consistency
    ///
    /// The frame is the one last written. While a write of the same blob is running, it is the old frame or the new one
    /// and never a mixture; nothing that happens to other blobs at the same time changes it (BS-2).
    ///
    /// # Errors
    ///
    /// The outcome is always `NotApplied` (C-1). After an error the contents of `dst` are unspecified: do not use them.
    ///
    /// * `NotFound`: the blob was never written or has been deleted (BS-4). An unreadable blob is never reported so.
    /// * `Corrupt`: what is stored is not the frame that was written (BS-13). Restore it from elsewhere; reading again
    ///   will not help.
    /// * `Unavailable`: the medium did not answer the read (BS-15). A later read may succeed.
    fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<(), BlobStoreError>;

    /// Stores all of `src` as blob `guid`, new or replaced (BS-1).
    ///
    /// # Atomicity
    ///
    /// Readers see the old frame until the new one is complete, and the new one from then on (BS-2). So does a crash
    /// (BS-11), and so does a failure in the middle of the write (BS-15).
    ///
    /// # Durability
    ///
    /// None before the next [`flush`](Self::flush) that starts after this call has returned (BS-3).
    ///
    /// # Errors
    ///
    /// * `NoSpace`: the medium is full. What was flushed is intact; the store goes on once there is room (BS-15).
    /// * `Unavailable`: the medium failed, or an earlier flush did, and then the store must be opened anew (BS-12,
    ///   BS-15).
    ///
    /// With `NotApplied` the old frame is still there. With `Unknown` the blob is the old frame or the new one, whole
    /// (BS-2); writing the frame again settles it.
    fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<(), BlobStoreError>;

    /// Removes blob `guid`; if there is none, that is fine too (BS-5).
    ///
    /// # Durability
    ///
    /// None before the next [`flush`](Self::flush) that starts after this call has returned (BS-3). From that flush on
    /// the blob does not come back, whatever crashes, unless it is written again (BS-5).
    ///
    /// # Errors
    ///
    /// Those of [`write_blob`](Self::write_blob). With `NotApplied` the blob is still as it was; with `Unknown` it is
    /// there whole or gone, and deleting it again settles it (BS-5).
    fn delete_blob(&self, guid: BlobGuid) -> Result<(), BlobStoreError>;

    /// The names of all blobs, each once, in no particular order (BS-6).
    ///
    /// # Consistency
    ///
    /// A blob that is neither written for the first time nor deleted during the call is listed if and only if it exists
    /// (BS-6).
    ///
    /// # Errors
    ///
    /// The outcome is always `NotApplied` (C-1). A list that could not be completed is an error, never a shorter list
    /// (BS-6): `Unavailable` may pass, `Corrupt` will not.
    fn list_blobs(&self) -> Result<Vec<BlobGuid>, BlobStoreError>;

    /// Waits until every write and delete that returned before this call is durable (BS-3).
    ///
    /// # Durability
    ///
    /// On `Ok` those effects survive what the backend declares to survive. Flushes may run at once and share their
    /// work, but each covers all that returned before it began, and a write that races with another thread's flush is
    /// covered by the caller's own (BS-3, BS-8).
    ///
    /// # Errors
    ///
    /// The outcome is `Unknown`: any part of what was not yet flushed may be durable and any part may be lost. What an
    /// earlier flush covered is safe (BS-12, BS-15).
    ///
    /// Do not flush again and trust an `Ok`: the system may have dropped the pages it failed to write. A store
    /// therefore answers no later flush with success for data that may not be on the medium, and refuses work with
    /// `Unavailable` until it is opened anew (BS-12). Open it anew, see what is there, and write the rest again.
    fn flush(&self) -> Result<(), BlobStoreError>;

    /// A buffer of zeros that suits this store best (BS-10).
    ///
    /// It is all zeros also when its memory was used before. Thousands may live at once: a store whose pool has run dry
    /// hands out plain heap, and neither waits nor fails. A buffer may outlive the store. Any store accepts any buffer;
    /// one of its own may only be faster (BS-10).
    ///
    /// The default takes plain heap.
    fn alloc_blob_buf_zeroed(&self) -> AlignedBlobBuf {
        AlignedBlobBuf::zeroed()
    }

    /// A buffer with unspecified contents that suits this store best, for callers that overwrite all of it (BS-10).
    ///
    /// The memory is initialised all the same, so reading it is a mistake and never undefined behaviour; it may show
    /// bytes of any blob. Otherwise as [`alloc_blob_buf_zeroed`](Self::alloc_blob_buf_zeroed).
    ///
    /// The default takes plain heap, which is zeroed.
    fn alloc_blob_buf_uninit(&self) -> AlignedBlobBuf {
        AlignedBlobBuf::zeroed()
    }

    /// Stores a batch of frames; equal to [`write_blob`](Self::write_blob) for each in order (BS-7).
    ///
    /// If a name occurs twice, its last frame wins (BS-7). An empty batch is `Ok`.
    ///
    /// The default is that loop.
    ///
    /// # Atomicity
    ///
    /// Each blob by itself, as for a single write (BS-2); the batch as a whole is not atomic (BS-7).
    ///
    /// # Durability
    ///
    /// None before the next [`flush`](Self::flush), as for a single write (BS-3).
    ///
    /// # Errors
    ///
    /// Those of [`write_blob`](Self::write_blob). With `NotApplied` no frame of the batch was stored. With `Unknown`
    /// any prefix may have been; storing the whole batch again heals it (BS-7).
    fn write_blobs(&self, writes: &[(BlobGuid, &AlignedBlobBuf)]) -> Result<(), BlobStoreError> {
        for (done, (guid, src)) in writes.iter().enumerate() {
            self.write_blob(*guid, src).map_err(|e| {
                // The frames before this one are stored: the batch can no longer claim to have had no effect.
                if done == 0 {
                    e
                } else {
                    BlobStoreError(e.0.now_unknown())
                }
            })?;
        }
        Ok(())
    }

    /// Stores a batch, and makes its bytes durable on the way if that is cheap for this store (BS-8).
    ///
    /// Otherwise as [`write_blobs`](Self::write_blobs), which is what the default does.
    ///
    /// # Durability
    ///
    /// This is a hint. Only the next [`flush`](Self::flush) promises anything, and it must be called all the same; it
    /// may find less to do. A write that races in between is synced by that flush like any other (BS-8).
    ///
    /// # Errors
    ///
    /// Those of [`write_blobs`](Self::write_blobs). If it was the sync that failed, the outcome is `Unknown` and what
    /// [`flush`](Self::flush) says of failure holds (BS-12).
    fn write_blobs_with_data_sync(
        &self,
        writes: &[(BlobGuid, &AlignedBlobBuf)],
    ) -> Result<(), BlobStoreError> {
        self.write_blobs(writes)
    }

    /// Whether a [`flush`](Self::flush) might have anything to do (BS-9).
    ///
    /// `true` whenever a write, delete or change of metadata that has returned is not yet durable; `false` means that
    /// skipping the flush loses nothing. It may be `true` without need, and after a failed flush it stays so (BS-9,
    /// BS-12).
    ///
    /// The default is `true`.
    fn needs_flush(&self) -> bool {
        true
    }

    /// Whether blob `guid` exists, in agreement with [`list_blobs`](Self::list_blobs) (BS-6).
    ///
    /// `true` says nothing of whether the frame is undamaged; only reading it does.
    ///
    /// The default scans the list, so its cost grows with the store.
    ///
    /// # Errors
    ///
    /// Those of [`list_blobs`](Self::list_blobs). A question that could not be answered is an error, never `false`
    /// (BS-6).
    fn has_blob(&self, guid: BlobGuid) -> Result<bool, BlobStoreError> {
        Ok(self.list_blobs()?.contains(&guid))
    }

    /// Reads several blobs, each into its own buffer and with a result of its own, in the order asked for (BS-1).
    ///
    /// A blob may be asked for several times. An empty list is fine.
    ///
    /// The default reads one after the other; a store that can have many reads under way at once does better.
    ///
    /// # Consistency
    ///
    /// Each frame by itself is as [`read_blob`](Self::read_blob) has it; together they are no snapshot (BS-2).
    ///
    /// # Errors
    ///
    /// Those of [`read_blob`](Self::read_blob), for each blob by itself: one that is absent or damaged takes no other
    /// with it (BS-4, BS-13).
    fn read_blobs(
        &self,
        reads: &mut [(BlobGuid, &mut AlignedBlobBuf)],
    ) -> Vec<Result<(), BlobStoreError>> {
        let read = |(guid, dst): &mut (BlobGuid, &mut AlignedBlobBuf)| self.read_blob(*guid, dst);
        reads.iter_mut().map(read).collect()
    }

    /// Reads the part of blob `guid` that begins `offset` bytes into its frame and fills `dst` (BS-1).
    ///
    /// The default reads the whole frame, so a store that checks frames as a whole checks this one too.
    ///
    /// # Consistency
    ///
    /// As for [`read_blob`](Self::read_blob): all of it is from one frame (BS-2).
    ///
    /// # Errors
    ///
    /// Those of [`read_blob`](Self::read_blob), and `InvalidInput`, `NotApplied`, if the range ends past the end of a
    /// frame (C-4). That is asked first, whether or not there is such a blob.
    fn read_blob_range(
        &self,
        guid: BlobGuid,
        offset: usize,
        dst: &mut [u8],
    ) -> Result<(), BlobStoreError> {
        let end = offset.checked_add(dst.len());
        let Some(end) = end.filter(|end| *end <= PAGE_SIZE) else {
            let message = format!(
                "a range of {} bytes from {offset} on, and a frame has {PAGE_SIZE} bytes",
                dst.len()
            );
            return Err(Fault::not_applied(ErrorKind::InvalidInput, message).into());
        };
        let mut frame = self.alloc_blob_buf_uninit();
        self.read_blob(guid, &mut frame)?;
        dst.copy_from_slice(&frame[offset..end]);
        Ok(())
    }
}

// Buffer managers hold a `dyn BlobStore`; this stops compiling if the trait can no longer be one.
const _: Option<&dyn BlobStore> = None;

macro_rules! forward {
    ($pointer:ty) => {
        #[deny(
            clippy::missing_trait_methods,
            reason = "a method left out would fall back to its default and hide the inner store's own"
        )]
        impl<T: BlobStore + ?Sized> BlobStore for $pointer {
            fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<(), BlobStoreError> {
                (**self).read_blob(guid, dst)
            }

            fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<(), BlobStoreError> {
                (**self).write_blob(guid, src)
            }

            fn delete_blob(&self, guid: BlobGuid) -> Result<(), BlobStoreError> {
                (**self).delete_blob(guid)
            }

            fn list_blobs(&self) -> Result<Vec<BlobGuid>, BlobStoreError> {
                (**self).list_blobs()
            }

            fn flush(&self) -> Result<(), BlobStoreError> {
                (**self).flush()
            }

            fn alloc_blob_buf_zeroed(&self) -> AlignedBlobBuf {
                (**self).alloc_blob_buf_zeroed()
            }

            fn alloc_blob_buf_uninit(&self) -> AlignedBlobBuf {
                (**self).alloc_blob_buf_uninit()
            }

            fn write_blobs(&self, writes: &[(BlobGuid, &AlignedBlobBuf)]) -> Result<(), BlobStoreError> {
                (**self).write_blobs(writes)
            }

            fn write_blobs_with_data_sync(
                &self,
                writes: &[(BlobGuid, &AlignedBlobBuf)],
            ) -> Result<(), BlobStoreError> {
                (**self).write_blobs_with_data_sync(writes)
            }

            fn needs_flush(&self) -> bool {
                (**self).needs_flush()
            }

            fn has_blob(&self, guid: BlobGuid) -> Result<bool, BlobStoreError> {
                (**self).has_blob(guid)
            }

            fn read_blobs(
                &self,
                reads: &mut [(BlobGuid, &mut AlignedBlobBuf)],
            ) -> Vec<Result<(), BlobStoreError>> {
                (**self).read_blobs(reads)
            }

            fn read_blob_range(
                &self,
                guid: BlobGuid,
                offset: usize,
                dst: &mut [u8],
            ) -> Result<(), BlobStoreError> {
                (**self).read_blob_range(guid, offset, dst)
            }
        }
    };
}

forward!(&T);
forward!(Box<T>);
forward!(Arc<T>);
