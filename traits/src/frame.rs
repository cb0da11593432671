//! The memory that whole blobs are read into and written from (BS-1, BS-10).
//!
//! A [`Frame`] is one page of heap: always initialised, at an address that stays put while the `Frame` itself moves.
//! An [`AlignedBlobBuf`] owns a frame and knows where it came from. A store that keeps frames in stock, because they
//! are registered with the kernel or only because fresh memory costs page faults, is a [`FrameHome`]: it moves a frame
//! into the buffer that it leases, and the buffer's drop moves the frame back. Nothing is shared, so a pool needs no
//! `unsafe`, and a buffer that outlives its store simply frees the frame.
//!
//! The one `unsafe` operation of this crate is in this file.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The length of every frame, in bytes (BS-1).
pub const PAGE_SIZE: usize = 524_288;

/// The alignment of every frame's first byte, in bytes; what direct I/O asks for (BS-10).
pub const FRAME_ALIGN: usize = 4096;

#[repr(C, align(4096))]
struct Page([u8; PAGE_SIZE]);

// Direct I/O needs both the address and the length to be whole multiples of the alignment, and `Page` must have no
// padding: every byte of a frame is a byte of the blob.
const _: () = assert!(size_of::<Page>() == PAGE_SIZE);
const _: () = assert!(align_of::<Page>() == FRAME_ALIGN);
const _: () = assert!(PAGE_SIZE.is_multiple_of(FRAME_ALIGN));

/// [`PAGE_SIZE`] bytes of heap, aligned to [`FRAME_ALIGN`] and always initialised.
///
/// Moving a `Frame` does not move its bytes: the address is the same from creation to drop, so a store may register it
/// with the kernel. A store must not let a `Frame` be dropped or lent out again while I/O on it is in flight: every
/// call waits for its completions, also when it fails or unwinds.
pub struct Frame(Box<Page>);

impl Frame {
    /// A frame of zeros. If the machine has no memory left, the process ends as it does for any other allocation.
    #[must_use]
    pub fn zeroed() -> Self {
        Self(into_initialised(Box::new_zeroed()))
    }
}

#[expect(
    unsafe_code,
    reason = "a page is far too large to be built on the stack, and no safe constructor builds an aligned one in place"
)]
fn into_initialised(page: Box<MaybeUninit<Page>>) -> Box<Page> {
    // SAFETY: the only caller passes what `Box::new_zeroed` returned. All of its bytes are zero, and a `Page` is an
    // array of `u8` without padding (asserted above), for which every bit pattern is valid.
    unsafe { page.assume_init() }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.0
    }
}

impl DerefMut for Frame {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0.0
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").finish_non_exhaustive()
    }
}

/// Where a leased frame goes back to.
///
/// Buffers hold a home only weakly and may be dropped on any thread, at any time, also while the last other handle of
/// the home is being dropped. So both methods must return soon, must not panic, and must not wait for a buffer to come
/// back; and the home's own drop may run on a thread that dropped a buffer.
pub trait FrameHome: Send + Sync {
    /// Takes back the frame that was leased as `slot`.
    ///
    /// It is the very frame that left, since a buffer never lets its frame be exchanged. Its contents are whatever the
    /// last holder left in it.
    fn give_back(&self, slot: u32, frame: Frame);

    /// A frame with unspecified contents for a buffer that is being cloned, or `None` if the clone should use fresh
    /// heap of its own.
    fn take(&self) -> Option<(u32, Frame)> {
        None
    }
}

/// A buffer for one whole blob: [`PAGE_SIZE`] bytes, initialised, usable for direct I/O (BS-1, BS-10).
///
/// It is used as a slice. `as_ptr` and `as_mut_ptr` of that slice are aligned to [`FRAME_ALIGN`] and stay the same for
/// the buffer's life, wherever the buffer is moved. A buffer may outlive the store that handed it out, and may be
/// dropped on any thread.
///
/// ```
/// use larder_traits::frame::{AlignedBlobBuf, FRAME_ALIGN, PAGE_SIZE};
///
/// let mut buf = AlignedBlobBuf::zeroed();
/// buf[..5].copy_from_slice(b"hello");
/// assert_eq!(buf.len(), PAGE_SIZE);
/// assert!(buf.as_ptr().addr().is_multiple_of(FRAME_ALIGN));
/// ```
pub struct AlignedBlobBuf {
    /// `None` only inside `drop`.
    frame: Option<Frame>,
    slot: u32,
    /// Weak, so that a late buffer keeps its frame alive, but not the pool and the ring behind it.
    home: Option<Weak<dyn FrameHome>>,
}

impl AlignedBlobBuf {
    /// A buffer of zeros on heap of its own, suitable for every store.
    #[must_use]
    pub fn zeroed() -> Self {
        Self {
            frame: Some(Frame::zeroed()),
            slot: 0,
            home: None,
        }
    }

    /// A buffer on a frame of `home`, which gets it back as `slot` when the buffer is dropped.
    #[must_use]
    pub fn leased(frame: Frame, slot: u32, home: Weak<dyn FrameHome>) -> Self {
        Self {
            frame: Some(frame),
            slot,
            home: Some(home),
        }
    }

    /// The slot this buffer is leased as, if it was leased from `home` itself; otherwise use plain I/O.
    ///
    /// A buffer from another store may have any slot number, hence the question. Homes are told apart by address,
    /// which cannot be used again as long as a buffer remembers it.
    #[must_use]
    pub fn slot_in(&self, home: &Arc<impl FrameHome>) -> Option<u32> {
        let mine = self.home.as_ref()?.as_ptr().cast::<()>();
        ptr::eq(mine, Arc::as_ptr(home).cast()).then_some(self.slot)
    }
}

impl Deref for AlignedBlobBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.frame
            .as_ref()
            .expect("a buffer gives up its frame only when it is dropped")
    }
}

impl DerefMut for AlignedBlobBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.frame
            .as_mut()
            .expect("a buffer gives up its frame only when it is dropped")
    }
}

/// A clone has the same bytes in a frame of its own, from the same home if that has one to spare, which saves the page
/// faults of fresh memory. `clone_from` allocates nothing.
impl Clone for AlignedBlobBuf {
    fn clone(&self) -> Self {
        let spare = self
            .home
            .as_ref()
            .and_then(|home| Some((home.upgrade()?.take()?, Weak::clone(home))));
        let mut copy = match spare {
            Some(((slot, frame), home)) => Self::leased(frame, slot, home),
            None => Self::zeroed(),
        };
        copy.copy_from_slice(self);
        copy
    }

    fn clone_from(&mut self, source: &Self) {
        self.copy_from_slice(source);
    }
}

impl fmt::Debug for AlignedBlobBuf {
    /// Tells where the frame belongs and nothing of what is in it: contents may be private, and are half a mebibyte.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBlobBuf")
            .field("slot", &self.home.is_some().then_some(self.slot))
            .finish_non_exhaustive()
    }
}

impl Drop for AlignedBlobBuf {
    fn drop(&mut self) {
        let home = self.home.as_ref().and_then(Weak::upgrade);
        if let (Some(frame), Some(home)) = (self.frame.take(), home) {
            home.give_back(self.slot, frame);
        }
    }
}

/// A stock of used frames, for stores without registered memory (BS-10).
///
/// A fresh frame costs its page faults, a used one at most the zeroing of it. The stock has a bound on idle frames and
/// none on leased ones: a pool that has run dry hands out fresh heap, and what comes back over the bound is freed.
/// Leasing never waits for a frame to come back and never fails.
///
/// ```
/// use larder_traits::frame::FramePool;
///
/// let pool = FramePool::new(2);
/// drop(pool.lease_zeroed());
/// assert_eq!(pool.idle_frames(), 1);
/// ```
pub struct FramePool {
    /// The last one back is the first one out, while it is still in the processor's caches.
    idle: Mutex<Vec<Frame>>,
    idle_frames_max: usize,
}

impl FramePool {
    /// An empty pool that will keep up to `idle_frames_max` frames of [`PAGE_SIZE`] bytes. It allocates nothing yet;
    /// with a bound of 0 it keeps nothing.
    #[must_use]
    pub fn new(idle_frames_max: usize) -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::new(Vec::new()),
            idle_frames_max,
        })
    }

    /// A buffer of zeros, also when its frame was used before (BS-10).
    #[must_use]
    pub fn lease_zeroed(self: &Arc<Self>) -> AlignedBlobBuf {
        let frame = match self.pop() {
            Some(mut used) => {
                used.fill(0);
                used
            }
            None => Frame::zeroed(),
        };
        self.lease(frame)
    }

    /// A buffer with unspecified but initialised contents, for callers that overwrite all of it (BS-10).
    ///
    /// The contents may be those of any blob that went through this pool. In builds with debug assertions they are
    /// `0xA5` throughout, so that a caller who reads before writing is found out.
    #[must_use]
    pub fn lease_recycled(self: &Arc<Self>) -> AlignedBlobBuf {
        let mut frame = self.pop().unwrap_or_else(Frame::zeroed);
        if cfg!(debug_assertions) {
            frame.fill(0xA5);
        }
        self.lease(frame)
    }

    /// How many frames are in stock now.
    #[must_use]
    pub fn idle_frames(&self) -> usize {
        self.lock().len()
    }

    /// Frames here are not registered anywhere, so all of them share one slot number.
    fn lease(self: &Arc<Self>, frame: Frame) -> AlignedBlobBuf {
        let home = Arc::downgrade(self);
        AlignedBlobBuf::leased(frame, 0, home)
    }

    fn pop(&self) -> Option<Frame> {
        self.lock().pop()
    }

    /// Held for one push or pop. Nothing that happens under it can leave the stock half changed, so a poisoned lock
    /// means nothing.
    fn lock(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FrameHome for FramePool {
    fn give_back(&self, _slot: u32, frame: Frame) {
        let mut idle = self.lock();
        if idle.len() < self.idle_frames_max {
            idle.push(frame);
            return;
        }
        // Half a mebibyte goes back to the system here; nobody else needs to wait for that.
        drop(idle);
        drop(frame);
    }

    /// Never `None`: a clone on a fresh frame belongs to the pool as well, and its frame is recycled after it.
    fn take(&self) -> Option<(u32, Frame)> {
        Some((0, self.pop().unwrap_or_else(Frame::zeroed)))
    }
}

impl fmt::Debug for FramePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramePool")
            .field("idle_frames_max", &self.idle_frames_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// A home that counts what comes back and has nothing to spare.
    #[derive(Default)]
    struct Counter(AtomicU32);

    impl FrameHome for Counter {
        fn give_back(&self, slot: u32, frame: Frame) {
            assert_eq!(frame.len(), PAGE_SIZE);
            self.0.fetch_add(slot, Relaxed);
        }
    }

    fn leased_from(home: &Arc<Counter>, slot: u32) -> AlignedBlobBuf {
        let home = Arc::downgrade(home);
        AlignedBlobBuf::leased(Frame::zeroed(), slot, home)
    }

    #[test]
    fn types_are_as_small_and_as_mobile_as_promised() {
        fn travels<T: Send + Sync + 'static>() {}
        travels::<Frame>();
        travels::<AlignedBlobBuf>();
        travels::<FramePool>();
        #[cfg(target_pointer_width = "64")]
        assert_eq!(size_of::<AlignedBlobBuf>(), 32);
    }

    #[test]
    fn a_frame_is_whole_zero_and_stays_where_it_is() {
        let frame = Frame::zeroed();
        let address = frame.as_ptr();
        assert!(address.addr().is_multiple_of(FRAME_ALIGN));
        let moved = Box::new(frame);
        assert_eq!(moved.as_ptr(), address);
        assert_eq!(moved.len(), PAGE_SIZE);
        assert!(moved.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_lease_goes_back_once_and_with_its_slot() {
        let home = Arc::new(Counter::default());
        let buf = leased_from(&home, 7);
        assert_eq!(home.0.load(Relaxed), 0);
        drop(buf);
        assert_eq!(home.0.load(Relaxed), 7);
    }

    #[test]
    fn a_slot_counts_only_in_its_own_home() {
        let (home, other) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        let buf = leased_from(&home, 3);
        assert_eq!(buf.slot_in(&home), Some(3));
        assert_eq!(buf.slot_in(&other), None);
        assert_eq!(buf.slot_in(&FramePool::new(1)), None);
        assert_eq!(AlignedBlobBuf::zeroed().slot_in(&home), None);
    }

    #[test]
    fn a_lease_does_not_keep_its_home_alive() {
        let home = Arc::new(Counter::default());
        let mut buf = leased_from(&home, 3);
        let watch = Arc::downgrade(&home);
        drop(home);
        assert!(watch.upgrade().is_none());
        buf.fill(1);
        assert_eq!(buf.clone()[..], buf[..]);
    }

    #[test]
    fn a_clone_of_a_home_with_nothing_to_spare_is_plain_heap() {
        let home = Arc::new(Counter::default());
        let buf = leased_from(&home, 3);
        let copy = buf.clone();
        assert_eq!(copy.slot_in(&home), None);
        drop(copy);
        assert_eq!(
            home.0.load(Relaxed),
            0,
            "a clone on heap of its own is not the home's"
        );
    }

    #[test]
    fn debug_output_shows_no_contents() {
        let mut buf = AlignedBlobBuf::zeroed();
        buf.fill(b'x');
        assert_eq!(format!("{buf:?}"), "AlignedBlobBuf { slot: None, .. }");
        assert_eq!(format!("{:?}", Frame::zeroed()), "Frame { .. }");
    }
}
