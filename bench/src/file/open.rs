//! How long it takes to open a store of many blobs.
//!
//! The frames themselves are of no interest here, and would fill the disk: the places that they take are given back to
//! the file system behind the stores' backs, batch by batch. No store looks at them when it opens, but for the newest.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use holt::BlobStore as _;
use larder_file::FileBlobStore;
use larder_traits::frame::PAGE_SIZE;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use super::sides::{Holt, Ours, Side, guid};
use super::{content, open_ours};
use crate::harness::{Bench, Contender, Figure, OURS, Ratio, Result, Sample, Unit, Work};

const BATCH: usize = 256;
const HOLT_DATA: &str = "blobs.dat";

/// What frames are known by in the file, where in the frame, and where the number of their batch follows.
const MARK: &[u8] = b"a frame of the bench of open";
const MARK_AT: usize = 16;
const BATCH_AT: usize = 64;

pub(super) fn run(bench: &mut Bench) -> Result {
    let blobs = bench.either(100_000, 3_000);
    let folder = bench.scratch()?;
    let place = |name: &str| folder.path().join(name);
    let (log, snapshot, ours) = (place("holt-log"), place("holt-snapshot"), place(OURS));
    fs::create_dir(&log)?;
    // It reserves room for the whole file whenever the file grows, holes included; a file of full length does not grow.
    let len = u64::try_from((blobs + BATCH) * PAGE_SIZE)?;
    File::create(log.join(HOLT_DATA))?.set_len(len)?;
    let holt = Holt::open(&log)?;
    write_many(&holt, blobs, &log.join(HOLT_DATA))?;
    drop(holt);
    copy_without_frames(&log, &snapshot)?;
    snapshot_holt(&snapshot, blobs)?;
    let store = Ours(open_ours(&ours)?);
    write_many(&store, blobs, &ours)?;
    drop(store);

    let work = Work::new(format!("open of {blobs} blobs"), Unit::MillisecondsEach)
        .rounds(bench.either(31, 9))
        .goal("holt, log", 3.0)
        .goal("holt, snapshot", 3.0);
    let measured = vec![
        Contender::new(OURS, |_| timed(|| open_ours(&ours))),
        Contender::new("holt, log", |_| timed(|| Holt::open(&log))),
        Contender::new("holt, snapshot", |_| timed(|| Holt::open(&snapshot))),
    ];
    bench.compare(&work, measured)?;
    memory(bench, blobs, &open_ours(&ours)?)
}

/// What the store keeps in memory for its blobs, beside its pool of buffers. It is meant to be under 64 bytes each.
fn memory(bench: &mut Bench, blobs: usize, store: &FileBlobStore) -> Result {
    const BYTES_PER_BLOB_MAX: f64 = 64.0;
    let each = store.stats().index_len_bytes as f64 / blobs as f64;
    let work = format!("memory for {blobs} blobs");
    bench.figure(Figure::new(&work, OURS, each, "byte/blob"));
    let ratio = vec![BYTES_PER_BLOB_MAX / each];
    bench.ratio(Ratio::of(&work, "64 byte/blob", ratio, Some(1.0)));
    Ok(())
}

/// The time of opening alone; closing is not part of it.
fn timed<S>(open: impl FnOnce() -> Result<S>) -> Result<Sample> {
    let mut store = None;
    let sample = Sample::of(1, || {
        store = Some(open()?);
        Ok(())
    });
    drop(store);
    sample
}

fn write_many<S: Side>(store: &S, blobs: usize, data: &Path) -> Result {
    let mut frames = Vec::new();
    for place in 0..BATCH {
        let mut frame = store.frame()?;
        content(S::bytes(&mut frame), place);
        S::bytes(&mut frame)[MARK_AT..][..MARK.len()].copy_from_slice(MARK);
        frames.push(frame);
    }
    let names: Vec<usize> = (0..blobs).collect();
    for (number, batch) in names.chunks(BATCH).enumerate() {
        let number = u64::try_from(number)?;
        for frame in &mut frames {
            S::bytes(frame)[BATCH_AT..][..8].copy_from_slice(&number.to_le_bytes());
        }
        let writes: Vec<(usize, &S::Frame)> = batch.iter().copied().zip(&frames).collect();
        store.put(&writes)?;
        store.flush()?;
        give_back(data, number)?;
    }
    Ok(())
}

/// Makes holes of all frames of batches before this one. Whatever else a store keeps in its file has no mark.
fn give_back(data: &Path, batch: u64) -> Result {
    let file = OpenOptions::new().read(true).write(true).open(data)?;
    let frame_len = u64::try_from(PAGE_SIZE)?;
    let mut at = 0;
    loop {
        at = match seek(&file, SeekFrom::Data(at)) {
            Ok(found) => found.next_multiple_of(frame_len),
            Err(Errno::NXIO) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let mut head = [0; BATCH_AT + 8];
        if file.read_at(&mut head, at)? < head.len() {
            return Ok(());
        }
        let marked = head[MARK_AT..].starts_with(MARK);
        let number = u64::from_le_bytes(head[BATCH_AT..].try_into()?);
        if marked && number < batch {
            let holes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, holes, at, frame_len)?;
        }
        at += frame_len;
    }
}

/// The store without the frames.
fn copy_without_frames(from: &Path, to: &Path) -> Result {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_name() == HOLT_DATA {
            File::create(copy)?.set_len(entry.metadata()?.len())?;
        } else {
            fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}

/// Makes the store put its log into a snapshot: it does so when there is something to trim.
fn snapshot_holt(folder: &Path, blobs: usize) -> Result {
    let store = holt::FileBlobStore::open(folder)?;
    store.delete_blob(guid(blobs - 1))?;
    store.flush()?;
    let trimmed = store.vacuum()?.slots_trimmed;
    let log_len = fs::metadata(folder.join("manifest.log"))?.len();
    if trimmed == 0 || log_len > 0 {
        return Err(
            format!("holt has no snapshot: {trimmed} trimmed, {log_len} bytes of log").into(),
        );
    }
    Ok(())
}
