//! The pool of frames that a store lends out: a slab that can be registered with the kernel, and heap beyond it.
//!
//! A registered frame spares the kernel the look-up of its pages at every transfer. Registration is bound to an
//! address, so the frames of the slab are made once, leave it only as a lease, and come back. When none is left, or
//! none could be registered, buffers come from the heap (BS-10), and nobody is told: it only takes a little longer.
//!
//! A ring that has frames registered keeps the slab alive, and a buffer whose slab is alive gives its frame back
//! instead of freeing it. So no registered address becomes foreign memory while a ring may still be handed it.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_traits::frame::{AlignedBlobBuf, Frame, FrameHome};

/// The slot of every frame that is not part of the slab.
const HEAP: u32 = u32::MAX;

/// Frames in stock. The last one back is the first one out, while it is still in the processor's caches.
struct Stock {
    slab: Vec<(u32, Frame)>,
    heap: Vec<Frame>,
}

/// A store's frames.
pub struct Slab {
    stock: Mutex<Stock>,
    frames: u32,
    /// Slots below this are registered.
    registered: AtomicU32,
}

impl Slab {
    /// A slab of that many frames, which also keeps as many used heap frames at most.
    pub fn new(frames: u32) -> Arc<Self> {
        // Lowest slots on top: they are the ones registered if not all can be.
        let slab = (0..frames).rev().map(|slot| (slot, Frame::zeroed()));
        Arc::new(Self {
            stock: Mutex::new(Stock {
                slab: slab.collect(),
                heap: Vec::new(),
            }),
            frames,
            registered: AtomicU32::new(0),
        })
    }

    /// A buffer of zeros, also when its frame was used before (BS-10).
    pub fn lease_zeroed(self: &Arc<Self>) -> AlignedBlobBuf {
        let (slot, frame) = match self.pop() {
            Some((slot, mut used)) => {
                used.fill(0);
                (slot, used)
            }
            None => (HEAP, Frame::zeroed()),
        };
        self.lease(slot, frame)
    }

    /// A buffer with unspecified but initialised contents, for callers that overwrite all of it (BS-10).
    ///
    /// In builds with debug assertions it is `0xA5` throughout, so that a caller who reads before writing is found out.
    pub fn lease_recycled(self: &Arc<Self>) -> AlignedBlobBuf {
        let (slot, mut frame) = self.pop_or_heap();
        if cfg!(debug_assertions) {
            frame.fill(0xA5);
        }
        self.lease(slot, frame)
    }

    /// Which registered buffer of this store's rings the frame is, if it is one.
    pub fn registered_slot(self: &Arc<Self>, buf: &AlignedBlobBuf) -> Option<u32> {
        let registered = self.registered.load(Ordering::Acquire);
        buf.slot_in(self).filter(|&slot| slot < registered)
    }

    /// How many frames the slab has.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Where the frames of the slab are, by slot. Taken while none is lent out, or the list ends at the first gap.
    #[cfg(target_os = "linux")]
    pub(crate) fn addresses(&self) -> Vec<libc::iovec> {
        let stock = self.lock();
        let mut slab: Vec<_> = stock.slab.iter().collect();
        slab.sort_unstable_by_key(|(slot, _)| *slot);
        let in_order = slab
            .iter()
            .zip(0..)
            .take_while(|(frame, slot)| frame.0 == *slot);
        let address = |frame: &Frame| frame.as_ptr().cast_mut().cast();
        in_order
            .map(|((_, frame), _)| libc::iovec {
                iov_base: address(frame),
                iov_len: frame.len(),
            })
            .collect()
    }

    pub(crate) fn set_registered(&self, registered: u32) {
        self.registered.store(registered, Ordering::Release);
    }

    fn lease(self: &Arc<Self>, slot: u32, frame: Frame) -> AlignedBlobBuf {
        let home = Arc::downgrade(self);
        AlignedBlobBuf::leased(frame, slot, home)
    }

    fn pop(&self) -> Option<(u32, Frame)> {
        let mut stock = self.lock();
        stock
            .slab
            .pop()
            .or_else(|| stock.heap.pop().map(|frame| (HEAP, frame)))
    }

    fn pop_or_heap(&self) -> (u32, Frame) {
        self.pop().unwrap_or_else(|| (HEAP, Frame::zeroed()))
    }

    /// Held for one push or pop. Nothing that happens under it can leave the stock half changed, so a poisoned lock
    /// means nothing.
    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FrameHome for Slab {
    fn give_back(&self, slot: u32, frame: Frame) {
        let mut stock = self.lock();
        if slot != HEAP {
            stock.slab.push((slot, frame));
        } else if stock.heap.len() < usize::try_from(self.frames).unwrap_or(usize::MAX) {
            stock.heap.push(frame);
        } else {
            // Half a mebibyte goes back to the system here; nobody else needs to wait for that.
            drop(stock);
            drop(frame);
        }
    }

    /// Never `None`: a clone on heap belongs to the pool as well, and its frame is recycled after it.
    fn take(&self) -> Option<(u32, Frame)> {
        Some(self.pop_or_heap())
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("frames", &self.frames)
            .field("registered", &self.registered)
            .finish_non_exhaustive()
    }
}
