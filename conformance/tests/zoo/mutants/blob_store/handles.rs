//! Buffers and handles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use larder_traits::{BlobGuid, BlobStoreCaps, ErrorKind, Fault, FrameHome, FramePool};

use super::{SECTOR, m, with_caps};
use crate::mutants::Mutant;
use crate::reference::blob_store::{CAPS, Packed};
use crate::reference::{blocking_gap, lock};

pub(super) fn buffers() -> Vec<Mutant> {
    vec![
        m(
            "bs-zeroed-recycled",
            "BS-10",
            &[],
            "a zeroed buffer has the bytes of its last use",
            |s| {
                s.zeroed = Box::new(|place| match place.pool.take() {
                    Some((slot, frame)) => {
                        let home = Arc::downgrade(&(Arc::clone(&place.pool) as Arc<dyn FrameHome>));
                        larder_traits::AlignedBlobBuf::leased(frame, slot, home)
                    }
                    None => place.pool.lease_zeroed(),
                });
            },
        ),
        m(
            "bs-zeroed-first-sector",
            "BS-10",
            &[],
            "of a recycled buffer the first sector alone is zeroed",
            |s| {
                s.zeroed = Box::new(|place| {
                    let mut buf = place.pool.lease_recycled();
                    buf[..SECTOR].fill(0);
                    buf
                });
            },
        ),
        m(
            "bs-foreign-buffer-refused",
            "BS-10",
            &["BS-1"],
            "a write from a buffer that is not the store's own is refused",
            |s| {
                // The pool marks its buffers in the only way it has without a look at their home: none.
                let leased = Arc::new(Mutex::new(BTreeSet::<usize>::new()));
                let (zeroed, uninit) = (Arc::clone(&leased), Arc::clone(&leased));
                let pool = FramePool::new(0);
                let other = Arc::clone(&pool);
                s.zeroed = Box::new(move |_| {
                    let buf = pool.lease_zeroed();
                    lock(&zeroed).insert(buf.as_ptr().addr());
                    buf
                });
                s.uninit = Box::new(move |_| {
                    let buf = other.lease_recycled();
                    lock(&uninit).insert(buf.as_ptr().addr());
                    buf
                });
                s.write = Box::new(move |place, guid, src| {
                    if !lock(&leased).contains(&src.as_ptr().addr()) {
                        return Err(
                            Fault::not_applied(ErrorKind::InvalidInput, "not registered").into(),
                        );
                    }
                    place.write(guid, src)
                });
            },
        ),
    ]
}

pub(super) fn handles() -> Vec<Mutant> {
    vec![
        m(
            "bs-write-behind",
            "C-2",
            &["BS-2"],
            "a write is seen by other handles after a flush",
            |s| {
                let pending = Arc::new(Mutex::new(BTreeMap::<BlobGuid, Packed>::new()));
                let (reading, flushing, listing, asking) = (
                    Arc::clone(&pending),
                    Arc::clone(&pending),
                    Arc::clone(&pending),
                    Arc::clone(&pending),
                );
                let deleting = Arc::clone(&pending);
                s.read = Box::new(move |place, guid, dst| match lock(&reading).get(&guid) {
                    Some(frame) => {
                        frame.unpack(dst);
                        Ok(())
                    }
                    None => place.read(guid, dst),
                });
                s.write = Box::new(move |_, guid, src| {
                    lock(&pending).insert(guid, Packed::new(src));
                    Ok(())
                });
                s.delete = Box::new(move |place, guid| {
                    lock(&deleting).remove(&guid);
                    place.delete(guid)
                });
                s.list = Box::new(move |place| {
                    let mut guids: BTreeSet<_> = place.list()?.into_iter().collect();
                    guids.extend(lock(&listing).keys());
                    Ok(guids.into_iter().collect())
                });
                s.has = Box::new(move |place, guid| {
                    Ok(lock(&asking).contains_key(&guid) || place.has(guid)?)
                });
                s.flush = Box::new(move |place| {
                    lock(&place.frames).extend(std::mem::take(&mut *lock(&flushing)));
                    Ok(())
                });
            },
        ),
        m(
            "bs-read-cache",
            "C-2",
            &["BS-2"],
            "a handle keeps the frames that it read, whatever others write",
            |s| {
                let cache = Arc::new(Mutex::new(BTreeMap::<BlobGuid, Packed>::new()));
                let (writing, deleting) = (Arc::clone(&cache), Arc::clone(&cache));
                s.read = Box::new(move |place, guid, dst| {
                    if let Some(frame) = lock(&cache).get(&guid) {
                        frame.unpack(dst);
                        return Ok(());
                    }
                    place.read(guid, dst)?;
                    lock(&cache).insert(guid, Packed::new(dst));
                    Ok(())
                });
                s.write = Box::new(move |place, guid, src| {
                    lock(&writing).remove(&guid);
                    place.write(guid, src)
                });
                s.delete = Box::new(move |place, guid| {
                    lock(&deleting).remove(&guid);
                    place.delete(guid)
                });
            },
        ),
        m(
            "bs-read-after-delete",
            "BS-4",
            &["BS-5", "BS-2"],
            "the cache of frames is not told of deletes",
            |s| {
                s.read = Box::new(|place, guid, dst| {
                    if let Some(frame) = lock(&place.notes).get(&guid) {
                        frame.unpack(dst);
                        return Ok(());
                    }
                    place.read(guid, dst)?;
                    lock(&place.notes).insert(guid, Packed::new(dst));
                    Ok(())
                });
                s.write = Box::new(|place, guid, src| {
                    lock(&place.notes).remove(&guid);
                    place.write(guid, src)
                });
            },
        ),
        m(
            "bs-open-truncates",
            "C-2",
            &["BS-2"],
            "opening a place empties it",
            |s| lock(&s.place.frames).clear(),
        ),
        m(
            "bs-close-clears",
            "C-2",
            &["BS-2"],
            "closing one handle removes the place under the others",
            |s| {
                s.close = Box::new(|place| lock(&place.frames).clear());
            },
        ),
        with_caps(
            CAPS.with_blob_store(BlobStoreCaps::LEAST.with_exclusive(true)),
            "bs-exclusive-not-locked",
            "BS-14",
            &["C-2"],
            "the place is declared to be open once, and opens twice",
            |s| {
                s.locks = false;
            },
        ),
        m(
            "bs-locked-undeclared",
            "BS-14",
            &["C-2"],
            "a second open is refused, and the place is not declared to be open once",
            |s| {
                s.locks = true;
            },
        ),
        with_caps(
            CAPS.with_blob_store(BlobStoreCaps::LEAST.with_exclusive(true)),
            "bs-stale-lock",
            "BS-14",
            &["C-2"],
            "a place that was closed stays locked",
            |s| {
                s.close = Box::new(|place| {
                    place.handles.fetch_add(1, SeqCst);
                });
            },
        ),
    ]
}

pub(super) fn neighbours() -> Vec<Mutant> {
    vec![
        m(
            "bs-close-ends-writes-of-others",
            "C-2",
            &["BS-2"],
            "handles share a ring, and the end of one of them cancels the writes that others have under way",
            |s| {
                s.write = Box::new(|place, guid, src| {
                    let closed = place.counter.load(SeqCst);
                    blocking_gap();
                    if place.counter.load(SeqCst) != closed {
                        let why = "the ring was closed";
                        return Err(Fault::not_applied(ErrorKind::Closed, why).into());
                    }
                    place.write(guid, src)
                });
                s.close = Box::new(|place| {
                    place.counter.fetch_add(1, SeqCst);
                });
            },
        ),
        m(
            "bs-open-brings-back-the-deleted",
            "C-2",
            &["BS-5", "BS-2"],
            "a delete strikes out its entry once the file is closed up, in the index as it was read before, which an open reads anew",
            |s| {
                s.place.counter.fetch_add(1, SeqCst);
                s.delete = Box::new(|place, guid| {
                    let opened = place.counter.load(SeqCst);
                    blocking_gap();
                    if place.counter.load(SeqCst) != opened {
                        return Ok(());
                    }
                    place.delete(guid)
                });
            },
        ),
    ]
}
