//! `BlobStore` on plain files: frames stay in memory until they are flushed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_conformance::{BoxError, Caps, Env, Faults, Fixture, Suite, blob_store};
use larder_traits::{
    AlignedBlobBuf, BlobGuid, BlobStore, BlobStoreCaps, BlobStoreError, ErrorKind, Fault, PAGE_SIZE,
};
use tempfile::TempDir;

use super::super::lock;
use super::super::medium::Medium;
use super::{Files, Flaw, failed};

/// What is wrong with a store of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameFlaw {
    /// That of the files, if any.
    Files(Flaw),
    /// A flush hands its work over and returns.
    FlushBehind,
    /// The lock is a file that is there or not.
    StaleLock,
    /// The lock is known in this process only.
    LockOfProcess,
    /// A flush right after a data-sync writes nothing, and the data-sync did not either.
    DataSyncIsFlush,
    /// A flush after a data-sync writes nothing, whatever was written between the two.
    FlushSkipped,
    /// A frame is not looked at before it is handed out.
    Unchecked,
    /// A damaged frame reads as an absent one.
    DamageIsAbsent,
    /// A damaged frame reads as one of zeros.
    DamageIsZeros,
    /// A damaged frame is an error of the wrong kind.
    DamageIsInternal,
    /// A damaged frame is believed not to exist.
    DamagePanics,
    /// A write that fails takes back the change that was made last, which is another one's.
    TakesBackTheLast,
    /// A write that fails leaves its frame in the place of the change that was made last.
    LeavesItsFrame,
}

type Changes = BTreeMap<BlobGuid, Option<Vec<u8>>>;

#[derive(Debug)]
struct Frames {
    files: Arc<Files>,
    changes: Mutex<Changes>,
    flaw: FrameFlaw,
    medium: Arc<Medium>,
    /// The blob that was changed last.
    last: Mutex<Option<BlobGuid>>,
    /// Whether a data-sync came last.
    synced: AtomicBool,
    /// The lock, held by the kernel as long as the file is open.
    _lock: Option<File>,
    /// The lock where it is a name.
    name: Option<PathBuf>,
}

/// The places that this process has open.
static OPEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

#[derive(Debug)]
pub(crate) struct Store(Arc<Frames>);

impl Frames {
    fn change(&self, guid: BlobGuid, frame: Option<Vec<u8>>) {
        if self.flaw != FrameFlaw::FlushSkipped {
            self.synced.store(false, SeqCst);
        }
        *lock(&self.last) = Some(guid);
        lock(&self.changes).insert(guid, frame);
    }

    fn stored(&self, guid: BlobGuid) -> Result<Option<Vec<u8>>, BlobStoreError> {
        let key = guid.to_bytes();
        let damaged = match self.files.get(&key) {
            Ok(frame) => return Ok(frame),
            Err(e) if e.kind() != std::io::ErrorKind::InvalidData => {
                let message = "a frame that cannot be read";
                return Err(Fault::not_applied(ErrorKind::Unavailable, message)
                    .because(e)
                    .into());
            }
            Err(e) => e,
        };
        match self.flaw {
            FrameFlaw::Unchecked => {
                let bytes = self.files.raw(&key).map_err(failed)?;
                // Before it, its name and the length of that; after it, the checksum.
                let frame = bytes.get(8 + key.len()..).unwrap_or_default();
                let mut frame = frame.to_vec();
                frame.resize(PAGE_SIZE, 0);
                Ok(Some(frame))
            }
            FrameFlaw::DamageIsAbsent => Ok(None),
            FrameFlaw::DamageIsZeros => Ok(Some(vec![0; PAGE_SIZE])),
            FrameFlaw::DamageIsInternal => {
                Err(Fault::not_applied(ErrorKind::Internal, "a damaged frame").into())
            }
            FrameFlaw::DamagePanics => panic!("a frame that is whole: {damaged}"),
            _ => {
                let fault = Fault::not_applied(ErrorKind::Corrupt, "a damaged frame");
                Err(fault.because(damaged).into())
            }
        }
    }

    /// What a write that failed leaves behind.
    fn after_failure(&self, frame: &[u8]) {
        let last = *lock(&self.last);
        let mut changes = lock(&self.changes);
        let Some(change) = last.and_then(|last| changes.get_mut(&last)) else {
            return;
        };
        match self.flaw {
            FrameFlaw::TakesBackTheLast => drop(changes.remove(&last.expect("it was found"))),
            FrameFlaw::LeavesItsFrame => *change = Some(frame.to_vec()),
            _ => {}
        }
    }

    fn write_back(files: &Arc<Files>, changes: &Changes) -> Result<(), BlobStoreError> {
        for (guid, frame) in changes {
            let key = guid.to_bytes();
            match frame {
                Some(frame) => files.put(&key, frame).map_err(failed)?,
                None => files.delete(&key).map_err(failed)?,
            }
        }
        Ok(())
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            lock(&OPEN).retain(|open| open != name);
            // Under a lock of another kind there is no such file.
            drop(fs::remove_file(name));
        }
    }
}

impl BlobStore for Store {
    fn read_blob(&self, guid: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<(), BlobStoreError> {
        let frames = &self.0;
        let changed = lock(&frames.changes).get(&guid).cloned();
        let frame = match changed {
            Some(changed) => changed,
            None => frames.stored(guid)?,
        };
        let frame = frame.ok_or_else(|| BlobStoreError::not_found(guid))?;
        dst.copy_from_slice(&frame);
        Ok(())
    }

    fn write_blob(&self, guid: BlobGuid, src: &AlignedBlobBuf) -> Result<(), BlobStoreError> {
        let frames = &self.0;
        let change = || frames.change(guid, Some(src.to_vec()));
        frames.medium.block(change).map_err(|trouble| {
            frames.after_failure(src);
            trouble.at_commit().into()
        })
    }

    fn delete_blob(&self, guid: BlobGuid) -> Result<(), BlobStoreError> {
        self.0.change(guid, None);
        Ok(())
    }

    fn list_blobs(&self) -> Result<Vec<BlobGuid>, BlobStoreError> {
        let mut guids: Vec<BlobGuid> = Vec::new();
        for key in self.0.files.keys().map_err(failed)? {
            let key: [u8; 16] = key.try_into().unwrap_or_default();
            guids.push(key.into());
        }
        for (guid, frame) in lock(&self.0.changes).iter() {
            guids.retain(|listed| listed != guid);
            if frame.is_some() {
                guids.push(*guid);
            }
        }
        Ok(guids)
    }

    fn write_blobs_with_data_sync(
        &self,
        writes: &[(BlobGuid, &AlignedBlobBuf)],
    ) -> Result<(), BlobStoreError> {
        self.write_blobs(writes)?;
        let mut changes = lock(&self.0.changes);
        if self.0.flaw == FrameFlaw::FlushSkipped {
            Frames::write_back(&self.0.files, &changes)?;
            changes.clear();
        }
        self.0.synced.store(true, SeqCst);
        Ok(())
    }

    fn flush(&self) -> Result<(), BlobStoreError> {
        let frames = &self.0;
        let mut changes = lock(&frames.changes);
        match frames.flaw {
            FrameFlaw::FlushBehind => {
                let (files, taken) = (Arc::clone(&frames.files), changes.clone());
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    // Nobody waits for the answer, which is what is wrong with it.
                    drop(Frames::write_back(&files, &taken));
                });
                return Ok(());
            }
            FrameFlaw::DataSyncIsFlush | FrameFlaw::FlushSkipped
                if frames.synced.swap(false, SeqCst) =>
            {
                return Ok(());
            }
            _ => {}
        }
        Frames::write_back(&frames.files, &changes)?;
        changes.clear();
        Ok(())
    }

    fn needs_flush(&self) -> bool {
        !lock(&self.0.changes).is_empty()
    }
}

struct World {
    folder: TempDir,
    caps: Caps,
    flaw: FrameFlaw,
    medium: Arc<Medium>,
}

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self {
            folder: env.tempdir()?,
            caps: super::CAPS,
            flaw: FrameFlaw::Files(Flaw::None),
            medium: Arc::default(),
        })
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::clone(&self.medium) as Arc<dyn Faults>)
    }
}

impl blob_store::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        let refused = || Fault::not_applied(ErrorKind::Conflict, "the place is open already");
        let folder = self.folder.path().canonicalize()?;
        let folder = folder.join(place.replace('/', "~"));
        let flaw = match self.flaw {
            FrameFlaw::Files(flaw) => flaw,
            _ => Flaw::None,
        };
        let files = Files::open(folder.clone(), flaw)?;
        let name = folder.with_extension("lock");
        let mut held = None;
        match self.flaw {
            FrameFlaw::StaleLock => {
                let mut file = File::create_new(&name)?;
                file.write_all(b"held")?;
            }
            FrameFlaw::LockOfProcess => {
                let mut open = lock(&OPEN);
                if open.contains(&name) {
                    return Err(refused().into());
                }
                open.push(name.clone());
            }
            _ => {
                let file = File::create(&name)?;
                file.try_lock().map_err(|_e| refused())?;
                held = Some(file);
            }
        }
        let is_name = held.is_none();
        Ok(Store(Arc::new(Frames {
            files,
            changes: Mutex::default(),
            flaw: self.flaw,
            medium: Arc::clone(&self.medium),
            last: Mutex::default(),
            synced: AtomicBool::new(false),
            _lock: held,
            name: is_name.then_some(name),
        })))
    }

    fn folder(&self, place: &str) -> Option<PathBuf> {
        Some(self.folder.path().join(place.replace('/', "~")))
    }
}

pub(crate) fn suite(caps: Caps, flaw: FrameFlaw) -> Suite {
    let caps = caps.with_blob_store(BlobStoreCaps::LEAST.with_exclusive(true));
    blob_store::suite_with(move |env| async move {
        let folder = env.tempdir()?;
        let medium = Arc::default();
        Ok(World {
            folder,
            caps,
            flaw,
            medium,
        })
    })
}
