//! The pool of frames that a store lends out: a slab that can be registered with the kernel, and heap beyond it.
//!
//! A registered frame spares the kernel the look-up of its pages at every transfer. Registration is bound to an
//! address, so the frames of the slab are made once, leave it only as a lease, and come back. When none is left, or
//! none could be registered, buffers come from the heap (BS-10), and nobody is told: it only takes a little longer.
//!
//! A ring that has frames registered keeps the slab alive, and a buffer whose slab is alive gives its frame back
//! instead of freeing it. So no registered address becomes foreign memory while a ring may still be handed it.

use std::fmt;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_traits::frame::{AlignedBlobBuf, Frame, FrameHome};

/// The slot of every frame that is not part of the slab.
const HEAP: u32 = u32::MAX;

/// The slab is made in pieces of so many frames, as they are asked for: a store that lends out few of them pays for
/// few.
const PIECE_FRAMES: u32 = 8;

/// Frames in stock. The last one back is the first one out, while it is still in the processor's caches.
struct Stock {
    slab: Vec<(u32, Frame)>,
    heap: Vec<Frame>,
    /// Where the frames of the slab are, by slot.
    addresses: Vec<usize>,
}

/// A store's frames.
pub struct Slab {
    stock: Mutex<Stock>,
    frames: u32,
    made: AtomicU32,
}

impl Slab {
    /// A slab of up to that many frames, which also keeps as many used heap frames at most.
    #[must_use]
    pub fn new(frames: u32) -> Arc<Self> {
        Arc::new(Self {
            stock: Mutex::new(Stock {
                slab: Vec::new(),
                heap: Vec::new(),
                addresses: Vec::new(),
            }),
            frames,
            made: AtomicU32::new(0),
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

    /// Which buffer of this store's slab it is, if it is one. Disks that have the slab registered take it as the number
    /// of the registered buffer.
    #[must_use]
    pub fn registered_slot(self: &Arc<Self>, buf: &AlignedBlobBuf) -> Option<u32> {
        buf.slot_in(self).filter(|&slot| slot != HEAP)
    }

    /// How many frames the slab has at most.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// How many frames of the slab there are so far.
    #[must_use]
    pub fn made(&self) -> u32 {
        self.made.load(Ordering::Acquire)
    }

    /// Where the frames of these slots are. They stay there as long as the slab lives.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "there are rings on Linux only")
    )]
    pub(crate) fn addresses(&self, slots: Range<u32>) -> Vec<*mut u8> {
        let [start, end] = [slots.start, slots.end].map(|slot| usize::try_from(slot).ok());
        let stock = self.lock();
        let found = start
            .zip(end)
            .and_then(|(start, end)| stock.addresses.get(start..end));
        let found = found.unwrap_or_default().iter();
        found
            .map(|&address| ptr::with_exposed_provenance_mut(address))
            .collect()
    }

    fn lease(self: &Arc<Self>, slot: u32, frame: Frame) -> AlignedBlobBuf {
        let home = Arc::downgrade(self);
        AlignedBlobBuf::leased(frame, slot, home)
    }

    /// A frame that was used before, or a part of the slab that is made now.
    fn pop(&self) -> Option<(u32, Frame)> {
        let mut stock = self.lock();
        if stock.slab.is_empty() {
            self.make_piece(&mut stock);
        }
        let found = stock.slab.pop();
        found.or_else(|| stock.heap.pop().map(|frame| (HEAP, frame)))
    }

    fn make_piece(&self, stock: &mut Stock) {
        let made = self.made();
        let end = self.frames.min(made.saturating_add(PIECE_FRAMES));
        for slot in made..end {
            let mut frame = Frame::zeroed();
            stock.addresses.push(frame.as_mut_ptr().expose_provenance());
            stock.slab.push((slot, frame));
        }
        self.made.store(end, Ordering::Release);
    }

    fn pop_or_heap(&self) -> (u32, Frame) {
        self.pop().unwrap_or_else(|| (HEAP, Frame::zeroed()))
    }

    /// Held for one push or pop, and while a piece of the slab is made. Nothing that happens under it can leave the
    /// stock half changed, so a poisoned lock means nothing.
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
            .field("made", &self.made)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slab_is_made_as_needed_and_heap_comes_after_it() {
        let slab = Slab::new(10);
        assert_eq!(slab.made(), 0);
        let one = slab.lease_recycled();
        assert_eq!(slab.made(), PIECE_FRAMES);
        let rest: Vec<_> = (0..11).map(|_| slab.lease_recycled()).collect();
        assert_eq!(slab.made(), 10);
        let all = || rest.iter().chain([&one]);
        let mut slots: Vec<_> = all().filter_map(|buf| slab.registered_slot(buf)).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..10).collect::<Vec<_>>());
        for buf in all() {
            if let Some(slot) = slab.registered_slot(buf) {
                let [address] = slab.addresses(slot..slot + 1).try_into().unwrap();
                assert!(std::ptr::eq(address, buf.as_ptr()));
            }
        }
        assert!(slab.addresses(5..11).is_empty());
    }

    #[test]
    fn frames_come_back_to_their_slots_and_are_zeroed_on_request() {
        let slab = Slab::new(1);
        let mut buf = slab.lease_recycled();
        buf.fill(7);
        assert_eq!(slab.registered_slot(&buf), Some(0));
        let address = buf.as_ptr();
        drop(buf);
        let buf = slab.lease_zeroed();
        assert_eq!(buf.as_ptr(), address);
        assert!(buf.iter().all(|&byte| byte == 0));
        assert_eq!(slab.registered_slot(&buf), Some(0));
        assert_eq!(Slab::new(1).registered_slot(&buf), None, "of another store");
    }

    #[test]
    fn heap_frames_are_kept_up_to_the_bound() {
        let slab = Slab::new(2);
        let bufs: Vec<_> = (0..7).map(|_| slab.lease_zeroed()).collect();
        drop(bufs);
        let stock = slab.lock();
        assert_eq!((stock.slab.len(), stock.heap.len()), (2, 2));
    }

    #[test]
    fn a_clone_comes_from_the_pool() {
        let slab = Slab::new(2);
        let mut buf = slab.lease_zeroed();
        buf.fill(9);
        let copies = [buf.clone(), buf.clone()];
        let slots = copies.each_ref().map(|copy| slab.registered_slot(copy));
        assert_eq!(slots.iter().flatten().count(), 1);
        assert!(copies.iter().all(|copy| copy[..] == buf[..]));
    }

    #[test]
    fn a_buffer_outlives_its_slab() {
        let slab = Slab::new(2);
        let mut buf = slab.lease_zeroed();
        drop(slab);
        buf.fill(3);
        assert!(buf.clone().iter().all(|&byte| byte == 3));
    }
}
