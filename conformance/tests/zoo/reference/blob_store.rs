//! `BlobStore` over an ordered map of frames.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use larder_conformance::{BoxError, Caps, Env, Faults, Fixture, Suite, blob_store};
use larder_traits::{
    AlignedBlobBuf, BlobGuid, BlobStore, BlobStoreCaps, BlobStoreError, Classify as _, Durability,
    ErrorKind, Fault, FramePool, LateLanding, PAGE_SIZE,
};

use super::lock;
use super::medium::{Medium, Trouble};

pub(crate) type Answer<T> = Result<T, BlobStoreError>;
pub(crate) type Writes<'a> = [(BlobGuid, &'a AlignedBlobBuf)];
pub(crate) type Reads<'a> = [(BlobGuid, &'a mut AlignedBlobBuf)];

/// What the plain reference declares.
pub(crate) const CAPS: Caps = Caps::LEAST.with_late_landing(LateLanding::Fenced);

/// What a store declares whose flushes mean something. Its frames outlive their handles as those of the plain reference
/// do, and nobody takes the process or the power away.
pub(crate) const DURABLE: Caps = CAPS
    .with_durability(Durability::Power)
    .with_blob_store(BlobStoreCaps::LEAST.with_exclusive(true));

/// A frame without the bytes that its end repeats, so that ten thousand of them fit in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    head: Arc<[u8]>,
    fill: u8,
}

impl Packed {
    pub(crate) fn new(frame: &[u8]) -> Self {
        let fill = frame.last().copied().unwrap_or_default();
        let head = frame
            .iter()
            .rposition(|&byte| byte != fill)
            .map_or(0, |at| at + 1);
        Self {
            head: frame[..head].into(),
            fill,
        }
    }

    pub(crate) fn unpack(&self, dst: &mut [u8]) {
        let (head, rest) = dst.split_at_mut(self.head.len());
        head.copy_from_slice(&self.head);
        rest.fill(self.fill);
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.head.is_empty() && self.fill == 0
    }
}

/// What all handles of one name share.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) frames: Mutex<BTreeMap<BlobGuid, Packed>>,
    pub(crate) pool: Arc<FramePool>,
    pub(crate) handles: AtomicU64,
    pub(crate) counter: AtomicU64,
    /// A mutant's own memory.
    pub(crate) notes: Mutex<BTreeMap<BlobGuid, Packed>>,
    pub(crate) medium: Arc<Medium>,
    /// How many flushes failed. A handle from before the last one is of no more use (BS-12).
    pub(crate) failed_flushes: AtomicU64,
}

impl Place {
    fn new(medium: Arc<Medium>) -> Self {
        Self {
            medium,
            failed_flushes: AtomicU64::default(),
            frames: Mutex::default(),
            pool: FramePool::new(4),
            handles: AtomicU64::default(),
            counter: AtomicU64::default(),
            notes: Mutex::default(),
        }
    }

    pub(crate) fn read(&self, guid: BlobGuid, dst: &mut [u8]) -> Answer<()> {
        let frame = lock(&self.frames).get(&guid).cloned();
        frame
            .ok_or_else(|| BlobStoreError::not_found(guid))?
            .unpack(dst);
        Ok(())
    }

    pub(crate) fn write(&self, guid: BlobGuid, src: &[u8]) -> Answer<()> {
        lock(&self.frames).insert(guid, Packed::new(src));
        Ok(())
    }

    pub(crate) fn delete(&self, guid: BlobGuid) -> Answer<()> {
        lock(&self.frames).remove(&guid);
        Ok(())
    }

    pub(crate) fn list(&self) -> Answer<Vec<BlobGuid>> {
        Ok(lock(&self.frames).keys().copied().collect())
    }

    pub(crate) fn has(&self, guid: BlobGuid) -> Answer<bool> {
        Ok(lock(&self.frames).contains_key(&guid))
    }

    pub(crate) fn range(&self, guid: BlobGuid, offset: usize, dst: &mut [u8]) -> Answer<()> {
        let mut frame = AlignedBlobBuf::zeroed();
        self.read(guid, &mut frame)?;
        dst.copy_from_slice(&frame[offset..offset + dst.len()]);
        Ok(())
    }

    pub(crate) fn write_all(&self, writes: &Writes<'_>) -> Answer<()> {
        writes
            .iter()
            .try_for_each(|(guid, src)| self.write(*guid, src))
    }
}

type GuidStep = Box<dyn Fn(BlobGuid) -> BlobGuid + Send + Sync>;
type ReadStep = Box<dyn Fn(&Place, BlobGuid, &mut [u8]) -> Answer<()> + Send + Sync>;
type WriteStep = Box<dyn Fn(&Place, BlobGuid, &[u8]) -> Answer<()> + Send + Sync>;
type DeleteStep = Box<dyn Fn(&Place, BlobGuid) -> Answer<()> + Send + Sync>;
type ListStep = Box<dyn Fn(&Place) -> Answer<Vec<BlobGuid>> + Send + Sync>;
type FlushStep = Box<dyn Fn(&Place) -> Answer<()> + Send + Sync>;
type HasStep = Box<dyn Fn(&Place, BlobGuid) -> Answer<bool> + Send + Sync>;
type BatchStep = Box<dyn Fn(&Place, &Writes<'_>) -> Answer<()> + Send + Sync>;
type ManyStep = Box<dyn Fn(&Place, &mut Reads<'_>) -> Vec<Answer<()>> + Send + Sync>;
type RangeStep = Box<dyn Fn(&Place, BlobGuid, usize, &mut [u8]) -> Answer<()> + Send + Sync>;
type NeedsStep = Box<dyn Fn(&Place) -> bool + Send + Sync>;
type BufStep = Box<dyn Fn(&Place) -> AlignedBlobBuf + Send + Sync>;
type BeginStep = Box<dyn Fn(&Place, BlobGuid) + Send + Sync>;
type CloseStep = Box<dyn Fn(&Place) + Send + Sync>;

pub(crate) fn within(offset: usize, len: usize) -> bool {
    offset.checked_add(len).is_some_and(|end| end <= PAGE_SIZE)
}

/// What is made of a medium that fails.
#[derive(Clone, Copy)]
pub(crate) struct Fails {
    /// `None`: the read goes on as if it had filled the buffer.
    pub(crate) read: fn(Trouble, BlobGuid) -> Option<BlobStoreError>,
    /// As `read`.
    pub(crate) range: fn(Trouble) -> Option<BlobStoreError>,
    pub(crate) list: fn(Trouble) -> Answer<Vec<BlobGuid>>,
    pub(crate) has: fn(Trouble) -> Answer<bool>,
    pub(crate) stage: fn(Trouble) -> Answer<()>,
    pub(crate) write: fn(Trouble) -> Answer<()>,
    pub(crate) delete: fn(Trouble) -> Answer<()>,
    pub(crate) flush: fn(&Place, Trouble) -> Answer<()>,
}

/// The handles from before are of no more use.
pub(crate) fn flush_failed(place: &Place, trouble: Trouble) -> Answer<()> {
    place.failed_flushes.fetch_add(1, SeqCst);
    Err(trouble.after().into())
}

pub(crate) const FAILS: Fails = Fails {
    read: |trouble, _| Some(trouble.before().into()),
    range: |trouble| Some(trouble.before().into()),
    list: |trouble| Err(trouble.before().into()),
    has: |trouble| Err(trouble.before().into()),
    stage: |trouble| Err(trouble.before().into()),
    write: |trouble| Err(trouble.at_commit().into()),
    delete: |trouble| Err(trouble.at_commit().into()),
    flush: flush_failed,
};

/// One handle, as a list of steps that can be exchanged.
pub(crate) struct Store {
    pub(crate) place: Arc<Place>,
    /// Changes names.
    pub(crate) guid: GuidStep,
    pub(crate) read: ReadStep,
    /// What a write does before it asks the medium.
    pub(crate) begin: BeginStep,
    pub(crate) write: WriteStep,
    pub(crate) delete: DeleteStep,
    pub(crate) list: ListStep,
    pub(crate) flush: FlushStep,
    pub(crate) has: HasStep,
    /// `write_blobs`, where it is not the loop over `write`.
    pub(crate) batch: Option<BatchStep>,
    /// `write_blobs_with_data_sync`, where it is not `write_blobs`.
    pub(crate) synced_batch: Option<BatchStep>,
    /// `read_blobs`, where it is not the loop over `read`.
    pub(crate) many: Option<ManyStep>,
    /// `read_blob_range`, once it was asked whether the range is one.
    pub(crate) range: RangeStep,
    /// Whether a range is within a frame.
    pub(crate) within: fn(usize, usize) -> bool,
    pub(crate) needs_flush: NeedsStep,
    /// Whether batches go on after a flush that failed.
    pub(crate) batches_go_on: bool,
    pub(crate) zeroed: BufStep,
    pub(crate) uninit: BufStep,
    pub(crate) close: CloseStep,
    /// Whether a second open is refused while this one lasts.
    pub(crate) locks: bool,
    pub(crate) fails: Fails,
    /// The failed flushes that it was opened after.
    pub(crate) opened_after: u64,
}

impl Store {
    fn new(place: Arc<Place>, locks: bool) -> Self {
        Self {
            opened_after: place.failed_flushes.load(SeqCst),
            fails: FAILS,
            place,
            guid: Box::new(|guid| guid),
            read: Box::new(Place::read),
            begin: Box::new(|_, _| {}),
            write: Box::new(Place::write),
            delete: Box::new(Place::delete),
            list: Box::new(Place::list),
            flush: Box::new(|_| Ok(())),
            has: Box::new(Place::has),
            batch: None,
            synced_batch: None,
            many: None,
            range: Box::new(Place::range),
            within,
            // Nothing here is ever durable, so a flush is always due.
            needs_flush: Box::new(|_| true),
            batches_go_on: false,
            zeroed: Box::new(|place| place.pool.lease_zeroed()),
            uninit: Box::new(|place| place.pool.lease_recycled()),
            close: Box::new(|_| {}),
            locks,
        }
    }

    fn usable(&self) -> Answer<()> {
        if self.opened_after == self.place.failed_flushes.load(SeqCst) {
            return Ok(());
        }
        Err(Fault::not_applied(
            ErrorKind::Unavailable,
            "a flush failed; open the store again",
        )
        .into())
    }

    fn usable_for_batches(&self) -> Answer<()> {
        if self.batches_go_on {
            return Ok(());
        }
        self.usable()
    }

    /// A call to the medium that prepares, and the one that commits.
    fn change(
        &self,
        effect: impl FnOnce() -> Answer<()>,
        failed: fn(Trouble) -> Answer<()>,
    ) -> Answer<()> {
        self.usable()?;
        if let Err(trouble) = self.place.medium.block(|| ()) {
            (self.fails.stage)(trouble)?;
        }
        match self.place.medium.block(effect) {
            Ok(answer) => answer,
            Err(trouble) => failed(trouble),
        }
    }

    fn look<T>(
        &self,
        look: impl FnOnce() -> Answer<T>,
        failed: fn(Trouble) -> Answer<T>,
    ) -> Answer<T> {
        self.usable()?;
        self.place.medium.block(look).unwrap_or_else(failed)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        (self.close)(&self.place);
        if self.locks {
            self.place.handles.fetch_sub(1, SeqCst);
        }
    }
}

impl BlobStore for Store {
    fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Answer<()> {
        self.usable()?;
        let look = || (self.read)(&self.place, (self.guid)(guid), dst);
        match self.place.medium.block(look) {
            Ok(answer) => answer,
            Err(trouble) => (self.fails.read)(trouble, guid).map_or(Ok(()), Err),
        }
    }

    fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Answer<()> {
        (self.begin)(&self.place, (self.guid)(guid));
        let effect = || (self.write)(&self.place, (self.guid)(guid), src);
        self.change(effect, self.fails.write)
    }

    fn delete_blob(&self, guid: BlobGuid) -> Answer<()> {
        let effect = || (self.delete)(&self.place, (self.guid)(guid));
        self.change(effect, self.fails.delete)
    }

    fn list_blobs(&self) -> Answer<Vec<BlobGuid>> {
        self.look(|| (self.list)(&self.place), self.fails.list)
    }

    fn flush(&self) -> Answer<()> {
        self.usable()?;
        match self.place.medium.block(|| (self.flush)(&self.place)) {
            Ok(answer) => answer,
            Err(trouble) => (self.fails.flush)(&self.place, trouble),
        }
    }

    fn alloc_blob_buf_zeroed(&self) -> AlignedBlobBuf {
        (self.zeroed)(&self.place)
    }

    fn alloc_blob_buf_uninit(&self) -> AlignedBlobBuf {
        (self.uninit)(&self.place)
    }

    fn write_blobs(&self, writes: &Writes<'_>) -> Answer<()> {
        match &self.batch {
            Some(batch) => {
                self.usable_for_batches()?;
                batch(&self.place, writes)
            }
            None => writes.iter().enumerate().try_for_each(|(at, (guid, src))| {
                let written = self.write_blob(*guid, src);
                // What came before it stays, so the batch can no longer say that it had no effect.
                written.map_err(|e| match at {
                    0 => e,
                    _ => Fault::unknown(e.kind(), "half a batch").because(e).into(),
                })
            }),
        }
    }

    fn write_blobs_with_data_sync(&self, writes: &Writes<'_>) -> Answer<()> {
        match &self.synced_batch {
            Some(batch) => {
                self.usable_for_batches()?;
                batch(&self.place, writes)
            }
            None => self.write_blobs(writes),
        }
    }

    fn needs_flush(&self) -> bool {
        (self.needs_flush)(&self.place)
    }

    fn read_blobs(&self, reads: &mut Reads<'_>) -> Vec<Answer<()>> {
        let Some(many) = &self.many else {
            return reads
                .iter_mut()
                .map(|(guid, dst)| self.read_blob(*guid, dst))
                .collect();
        };
        let count = reads.len();
        if self.usable().is_err() {
            return (0..count).map(|_| self.usable()).collect();
        }
        match self.place.medium.block(|| many(&self.place, reads)) {
            Ok(answers) => answers,
            Err(trouble) => (0..count).map(|_| Err(trouble.before().into())).collect(),
        }
    }

    fn read_blob_range(&self, guid: BlobGuid, offset: usize, dst: &mut [u8]) -> Answer<()> {
        if !(self.within)(offset, dst.len()) {
            let why = "the range ends past the end of a frame";
            return Err(Fault::not_applied(ErrorKind::InvalidInput, why).into());
        }
        self.usable()?;
        let look = || (self.range)(&self.place, (self.guid)(guid), offset, dst);
        match self.place.medium.block(look) {
            Ok(answer) => answer,
            Err(trouble) => (self.fails.range)(trouble).map_or(Ok(()), Err),
        }
    }

    fn has_blob(&self, guid: BlobGuid) -> Answer<bool> {
        let look = || (self.has)(&self.place, (self.guid)(guid));
        self.look(look, self.fails.has)
    }
}

/// How a handle differs from the plain reference; called at each open.
pub(crate) type Bend = fn(&mut Store);

pub(crate) struct World {
    places: Mutex<BTreeMap<String, Arc<Place>>>,
    medium: Arc<Medium>,
    caps: Caps,
    bend: Bend,
}

impl World {
    fn with(caps: Caps, bend: Bend) -> Self {
        Self {
            places: Mutex::default(),
            medium: Arc::default(),
            caps,
            bend,
        }
    }
}

impl Fixture for World {
    async fn new(_env: &Env) -> Result<Self, BoxError> {
        Ok(Self::with(CAPS, |_| {}))
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    async fn settle(&self) {}

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::clone(&self.medium) as Arc<dyn Faults>)
    }
}

impl blob_store::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        let mut places = lock(&self.places);
        let place = places
            .entry(place.to_owned())
            .or_insert_with(|| Arc::new(Place::new(Arc::clone(&self.medium))));
        let mut store = Store::new(Arc::clone(place), false);
        store.locks = self.caps.blob_store.exclusive;
        (self.bend)(&mut store);
        if store.locks && store.place.handles.fetch_add(1, SeqCst) > 0 {
            let fault = Fault::not_applied(ErrorKind::Conflict, "the place is open already");
            return Err(BlobStoreError::from(fault).into());
        }
        Ok(store)
    }
}

/// The suite of this contract on stores that declare `caps` and are bent by `bend`.
pub(crate) fn suite(caps: Caps, bend: Bend) -> Suite {
    blob_store::suite_with(move |_env| async move { Ok(World::with(caps, bend)) })
}
