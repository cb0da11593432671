//! The `BlobStore` trait takes an implementation written with the published signatures, through every pointer, and its
//! buffers keep what they promise (BS-10).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use larder_traits::blob_store::{BlobGuid, BlobStore, BlobStoreError};
use larder_traits::frame::{AlignedBlobBuf, FRAME_ALIGN, FramePool, PAGE_SIZE};
use larder_traits::{Classify, ErrorKind, Fault, Outcome};

/// The signatures below are written against an alias of this form, so it is part of what is tested.
type Result<T> = std::result::Result<T, BlobStoreError>;

/// All eleven methods, as published.
struct Everything {
    blobs: Mutex<BTreeMap<BlobGuid, AlignedBlobBuf>>,
    pool: Arc<FramePool>,
    calls: AtomicUsize,
}

impl Everything {
    fn new() -> Self {
        Self {
            blobs: Mutex::default(),
            pool: FramePool::new(2),
            calls: AtomicUsize::new(0),
        }
    }

    fn called(&self) {
        self.calls.fetch_add(1, Relaxed);
    }
}

impl BlobStore for Everything {
    fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<()> {
        self.called();
        let blobs = self.blobs.lock().expect("no test panics under this lock");
        let blob = blobs
            .get(&guid)
            .ok_or_else(|| BlobStoreError::not_found(guid))?;
        dst.clone_from(blob);
        Ok(())
    }

    fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<()> {
        self.called();
        let mut blobs = self.blobs.lock().expect("no test panics under this lock");
        blobs.insert(guid, src.clone());
        Ok(())
    }

    fn delete_blob(&self, guid: BlobGuid) -> Result<()> {
        self.called();
        self.blobs
            .lock()
            .expect("no test panics under this lock")
            .remove(&guid);
        Ok(())
    }

    fn list_blobs(&self) -> Result<Vec<BlobGuid>> {
        self.called();
        let blobs = self.blobs.lock().expect("no test panics under this lock");
        Ok(blobs.keys().copied().collect())
    }

    fn flush(&self) -> Result<()> {
        self.called();
        Ok(())
    }

    fn alloc_blob_buf_zeroed(&self) -> AlignedBlobBuf {
        self.called();
        self.pool.lease_zeroed()
    }

    fn alloc_blob_buf_uninit(&self) -> AlignedBlobBuf {
        self.called();
        self.pool.lease_recycled()
    }

    fn write_blobs(&self, writes: &[(BlobGuid, &AlignedBlobBuf)]) -> Result<()> {
        self.called();
        let mut blobs = self.blobs.lock().expect("no test panics under this lock");
        for (guid, src) in writes {
            blobs.insert(*guid, AlignedBlobBuf::clone(src));
        }
        Ok(())
    }

    fn write_blobs_with_data_sync(&self, writes: &[(BlobGuid, &AlignedBlobBuf)]) -> Result<()> {
        self.called();
        let mut blobs = self.blobs.lock().expect("no test panics under this lock");
        for (guid, src) in writes {
            blobs.insert(*guid, AlignedBlobBuf::clone(src));
        }
        Ok(())
    }

    fn needs_flush(&self) -> bool {
        self.called();
        false
    }

    fn has_blob(&self, guid: BlobGuid) -> Result<bool> {
        self.called();
        let blobs = self.blobs.lock().expect("no test panics under this lock");
        Ok(blobs.contains_key(&guid))
    }
}

/// The required methods alone. It refuses the write after `room` others, certainly without effect.
struct Least {
    inner: Everything,
    room: usize,
}

impl BlobStore for Least {
    fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<()> {
        self.inner.read_blob(guid, dst)
    }

    fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<()> {
        if self.inner.calls.load(Relaxed) >= self.room {
            Err(Fault::not_applied(ErrorKind::NoSpace, "there is no room"))?;
        }
        self.inner.write_blob(guid, src)
    }

    fn delete_blob(&self, guid: BlobGuid) -> Result<()> {
        self.inner.delete_blob(guid)
    }

    fn list_blobs(&self) -> Result<Vec<BlobGuid>> {
        self.inner.list_blobs()
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
}

fn least(room: usize) -> Least {
    Least {
        inner: Everything::new(),
        room,
    }
}

const A: BlobGuid = BlobGuid::from_u128(1);
const B: BlobGuid = BlobGuid::from_u128(u128::MAX);

fn filled(byte: u8) -> AlignedBlobBuf {
    let mut buf = AlignedBlobBuf::zeroed();
    buf.fill(byte);
    buf
}

/// Calls each of the eleven methods once and checks what it answers.
fn use_all<S: BlobStore + ?Sized>(store: &S) -> Result<()> {
    let (one, two) = (filled(1), filled(2));
    store.write_blob(A, &one)?;
    store.write_blobs(&[(A, &one), (B, &one)])?;
    store.write_blobs_with_data_sync(&[(B, &one), (B, &two)])?;
    assert!(store.has_blob(B)?);
    assert_eq!(store.list_blobs()?, [A, B]);
    let mut dst = store.alloc_blob_buf_uninit();
    store.read_blob(B, &mut dst)?;
    assert_eq!(
        dst[..],
        two[..],
        "of two frames for one name the last wins (BS-7)"
    );
    assert!(store.alloc_blob_buf_zeroed().iter().all(|&byte| byte == 0));
    store.delete_blob(A)?;
    store.flush()?;
    let _hint = store.needs_flush();
    Ok(())
}

#[test]
fn every_pointer_to_a_store_is_a_store_and_forwards_each_method() {
    fn is_store<T: BlobStore + ?Sized>() {}
    is_store::<dyn BlobStore>();
    is_store::<&dyn BlobStore>();
    is_store::<Box<dyn BlobStore>>();
    is_store::<Arc<dyn BlobStore>>();
    is_store::<Arc<Box<Everything>>>();

    // The store replaces every default by one call of its own, so a method that a pointer does not forward shows up
    // as another number of calls.
    let store = Arc::new(Everything::new());
    use_all::<&Everything>(&&*store).unwrap();
    assert_eq!(store.calls.swap(0, Relaxed), 11);
    use_all::<Arc<dyn BlobStore>>(&(Arc::clone(&store) as Arc<dyn BlobStore>)).unwrap();
    assert_eq!(store.calls.swap(0, Relaxed), 11);
    use_all::<Box<dyn BlobStore>>(&(Box::new(Arc::clone(&store)) as Box<dyn BlobStore>)).unwrap();
    assert_eq!(store.calls.swap(0, Relaxed), 11);
    assert!(!Arc::clone(&store).needs_flush());
}

#[test]
fn the_defaults_do_all_that_the_contract_asks() {
    let store = least(usize::MAX);
    use_all(&store).unwrap();
    assert!(
        store.needs_flush(),
        "a store that does not know must say yes (BS-9)"
    );
    assert!(!store.has_blob(A).unwrap());
    assert!(store.has_blob(B).unwrap());
    assert!(store.alloc_blob_buf_uninit().iter().all(|&byte| byte == 0));
    store.write_blobs(&[]).unwrap();
}

#[test]
fn a_batch_that_stopped_half_way_does_not_claim_to_have_done_nothing() {
    let one = filled(1);
    let batch = [(A, &one), (B, &one)];
    let error = least(0).write_blobs(&batch).unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::NoSpace, Outcome::NotApplied)
    );
    let store = least(1);
    let error = store.write_blobs_with_data_sync(&batch).unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::NoSpace, Outcome::Unknown)
    );
    assert_eq!(store.list_blobs().unwrap(), [A]);
}

#[test]
fn a_missing_blob_is_not_found_and_the_error_is_one_pointer() {
    let error = Everything::new().read_blob(A, &mut filled(0)).unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::NotFound, Outcome::NotApplied)
    );
    assert!(error.to_string().contains(&A.to_string()));
    assert_eq!(size_of::<BlobStoreError>(), size_of::<usize>());

    let source = std::io::Error::other("EIO");
    let error: BlobStoreError = Fault::unknown(ErrorKind::Unavailable, "the disk failed")
        .because(source)
        .into();
    assert_eq!(error.to_string(), "the disk failed");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(
        source.to_string(),
        "EIO",
        "the fault itself is not a link of the chain"
    );
    assert_eq!(error.into_fault().outcome(), Outcome::Unknown);
}

#[test]
fn names_are_hexadecimal_and_ordered_like_numbers_and_bytes() {
    let name = BlobGuid::from_u128(0x00ff_0000_0000_0000_0000_0000_0000_0a0b);
    assert_eq!(name.to_string(), "00ff0000000000000000000000000a0b");
    assert_eq!(
        format!("{name:?}"),
        "BlobGuid(00ff0000000000000000000000000a0b)"
    );
    assert_eq!(BlobGuid::from_bytes(name.to_bytes()), name);
    assert_eq!(<[u8; 16]>::from(name), *name.as_bytes());
    assert!(BlobGuid::from(255) < BlobGuid::from(256));
    assert!(BlobGuid::from([0; 16]) < A && A < B);
}

#[test]
fn buffers_far_beyond_the_pool_are_whole_and_aligned() {
    // 200 live frames go far past the bound of 2 and fit a small machine's memory.
    let store = Everything::new();
    let buffers: Vec<_> = (0..200).map(|_| store.alloc_blob_buf_uninit()).collect();
    for buf in &buffers {
        assert_eq!(buf.len(), PAGE_SIZE);
        assert!(buf.as_ptr().addr().is_multiple_of(FRAME_ALIGN));
    }
    drop(buffers);
    assert_eq!(
        store.pool.idle_frames(),
        2,
        "the pool keeps no more than its bound"
    );
}

#[test]
fn a_recycled_buffer_is_the_same_memory_and_zeroed_when_that_was_asked_for() {
    let pool = FramePool::new(1);
    let mut buf = pool.lease_zeroed();
    buf.fill(7);
    let address = buf.as_ptr().addr();
    drop(buf);
    let buf = pool.lease_zeroed();
    assert_eq!(buf.as_ptr().addr(), address);
    assert!(buf.iter().all(|&byte| byte == 0));
    drop(buf);
    let buf = pool.lease_recycled();
    assert_eq!(buf.as_ptr().addr(), address);
    if cfg!(debug_assertions) {
        assert!(buf.iter().all(|&byte| byte == 0xA5));
        assert!(
            pool.lease_recycled().iter().all(|&byte| byte == 0xA5),
            "fresh memory too"
        );
    }
}

#[test]
fn a_clone_takes_a_spare_frame_first_and_returns_to_the_pool() {
    let pool = FramePool::new(2);
    let spare = pool.lease_zeroed();
    let address = spare.as_ptr().addr();
    let mut buf = pool.lease_zeroed();
    buf.fill(9);
    drop(spare);
    let copy = buf.clone();
    assert_eq!(copy.as_ptr().addr(), address);
    assert_eq!(copy[..], buf[..]);
    let second = copy.clone();
    assert_eq!(second[..], buf[..]);
    assert_eq!(pool.idle_frames(), 0);
    drop((copy, second));
    assert_eq!(pool.idle_frames(), 2);
}

#[test]
fn a_buffer_may_outlive_its_store_and_die_on_another_thread() {
    let store = Everything::new();
    let mut buf = store.alloc_blob_buf_zeroed();
    let pool = Arc::downgrade(&store.pool);
    drop(store);
    assert!(
        pool.upgrade().is_none(),
        "a buffer does not keep its pool alive"
    );
    thread::spawn(move || {
        buf.fill(3);
        let copy = buf.clone();
        assert_eq!(copy[..], buf[..]);
    })
    .join()
    .unwrap();
}

#[test]
fn threads_may_lease_and_free_while_the_pool_goes_away() {
    let pool = FramePool::new(4);
    thread::scope(|scope| {
        for byte in 1..=4 {
            let pool = Arc::clone(&pool);
            scope.spawn(move || {
                let mut late = Vec::new();
                for _ in 0..32 {
                    let mut buf = pool.lease_zeroed();
                    assert!(buf.iter().all(|&b| b == 0));
                    buf.fill(byte);
                    late.push(buf.clone());
                    assert!(buf.iter().all(|&b| b == byte), "two buffers share memory");
                }
                drop(pool);
                assert!(late.iter().all(|buf| buf.iter().all(|&b| b == byte)));
            });
        }
        drop(pool);
    });
}

#[test]
fn several_blobs_are_read_each_with_a_result_of_its_own() {
    let store: Box<dyn BlobStore> = Box::new(least(100));
    let [one, two, absent] = [1, 2, 3].map(BlobGuid::from_u128);
    let mut src = AlignedBlobBuf::zeroed();
    for (guid, byte) in [(one, 1), (two, 2)] {
        src.fill(byte);
        store.write_blob(guid, &src).unwrap();
    }
    let mut buffers = [(); 4].map(|()| AlignedBlobBuf::zeroed());
    let [a, b, c, d] = &mut buffers;
    let results = store.read_blobs(&mut [(two, a), (absent, b), (one, c), (two, d)]);
    let kinds = results
        .iter()
        .map(|result| result.as_ref().err().map(Classify::kind));
    let kinds: Vec<_> = kinds.collect();
    assert_eq!(kinds, [None, Some(ErrorKind::NotFound), None, None]);
    for (at, byte) in [(0, 2), (2, 1), (3, 2)] {
        assert!(buffers[at].iter().all(|&b| b == byte));
    }
    assert!(store.read_blobs(&mut []).is_empty());
}

#[test]
fn a_range_of_a_blob_is_read_and_bounded() {
    let store = least(100);
    let guid = BlobGuid::from_u128(1);
    let mut src = AlignedBlobBuf::zeroed();
    src[10..13].copy_from_slice(b"jam");
    src[PAGE_SIZE - 1] = 7;
    store.write_blob(guid, &src).unwrap();
    let mut dst = [0; 3];
    store.read_blob_range(guid, 10, &mut dst).unwrap();
    assert_eq!(&dst, b"jam");
    store
        .read_blob_range(guid, PAGE_SIZE - 1, &mut dst[..1])
        .unwrap();
    assert_eq!(dst[0], 7);
    store.read_blob_range(guid, PAGE_SIZE, &mut []).unwrap();
    for (offset, len) in [(PAGE_SIZE - 2, 3), (PAGE_SIZE, 1), (usize::MAX, 2)] {
        let e = store
            .read_blob_range(guid, offset, &mut dst[..len])
            .unwrap_err();
        assert_eq!(
            (e.kind(), e.outcome()),
            (ErrorKind::InvalidInput, Outcome::NotApplied)
        );
    }
    let absent = BlobGuid::from_u128(2);
    let e = store.read_blob_range(absent, 0, &mut dst).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}
