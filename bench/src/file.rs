//! The frame store against `holt`, whose contract it implements, and against the raw medium.
//!
//! Everybody works on the same disk, which is the one that holds the results, past the cache of the system. Frames are
//! random bytes. Blobs are replaced over and over, so that files have their final size and every block was written
//! before; a flush comes after every put or batch.

mod open;
mod raw;
mod sides;

use std::hint::black_box;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use larder_file::{FileBlobStore, FileConfig};
use larder_traits::frame::PAGE_SIZE;
use twox_hash::XxHash3_128;

use crate::harness::{
    Bench, Contender, Latencies, Measured, OURS, Result, Sample, Stopwatch, Unit, Work, median,
};
use sides::{Holt, Medium, Ours, Side, guid};

const HOLT: &str = "holt";
const RAW: &str = "raw";
/// The raw medium, and every byte of what was read is hashed: what a store that checks its frames can reach.
const RAW_CHECKED: &str = "raw, checked";

/// The blobs of the write benches: the largest batch.
const BLOBS: usize = 256;
const WRITERS: usize = 16;
const READERS: usize = 4;

pub(crate) fn run(bench: &mut Bench) -> Result {
    let folder = bench.scratch()?;
    let place = |name: &str| folder.path().join(name);
    for name in [RAW, HOLT] {
        std::fs::create_dir(place(name))?;
    }
    let medium = Medium::open(&place(RAW), BLOBS, BLOBS)?;
    medium.fill(content)?;
    let holt = Loaded::new(Holt::open(&place(HOLT))?)?;
    let ours = Loaded::new(Ours(open_ours(&place(OURS))?))?;
    bench.note(format!("larder's engine: {}", ours.side.0.engine()));
    let stores = Stores { medium, holt, ours };
    stores.batches(bench, 32, 1.5)?;
    stores.batches(bench, 256, 1.3)?;
    stores.single_puts(bench)?;
    stores.writers(bench)?;
    stores.readers(bench)?;
    drop((stores, folder));
    open::run(bench)
}

fn open_ours(path: &Path) -> Result<FileBlobStore> {
    // As many as are held at once, as on the raw side.
    let frames = u32::try_from(BLOBS + WRITERS)?;
    let config = FileConfig::new(path).with_create(true);
    Ok(FileBlobStore::open(config.with_pool_frames(frames))?)
}

/// Bytes that no medium can shorten, the same for every store.
fn content(frame: &mut [u8], name: usize) {
    let mut word = u64::try_from(name).expect("a position fits 64 bits") | 1 << 40;
    for bytes in frame.chunks_exact_mut(8) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    frame[..16].copy_from_slice(&guid(name));
}

/// A store and a frame for each of its blobs, in the store's own buffers as far as it has them.
struct Loaded<S: Side> {
    side: S,
    frames: Vec<S::Frame>,
}

impl<S: Side> Loaded<S> {
    /// Writes every blob twice, so that a store that writes each to a new place has all the places it needs.
    fn new(side: S) -> Result<Self> {
        let mut frames = Vec::new();
        for name in 0..BLOBS {
            let mut frame = side.frame()?;
            content(S::bytes(&mut frame), name);
            frames.push(frame);
        }
        let loaded = Self { side, frames };
        for _ in 0..2 {
            loaded.batches(BLOBS, 1)?;
        }
        Ok(loaded)
    }

    /// So many batches of so many blobs, each made durable.
    fn batches(&self, len: usize, count: usize) -> Result {
        for batch in 0..count {
            let writes: Vec<(usize, &S::Frame)> = (0..len)
                .map(|place| (batch * len + place) % BLOBS)
                .map(|name| (name, &self.frames[name]))
                .collect();
            self.side.put(&writes)?;
            self.side.flush()?;
        }
        Ok(())
    }

    fn put_and_flush(&self, name: usize) -> Result {
        self.side.put(&[(name, &self.frames[name])])?;
        self.side.flush()
    }

    fn writers(&self, each: usize) -> Result<Sample> {
        together(WRITERS, WRITERS * each * PAGE_SIZE, |writer| {
            Ok(move |latencies: &mut Latencies| {
                for put in 0..each {
                    latencies.time(|| self.put_and_flush((writer * each + put) % BLOBS))?;
                }
                Ok(())
            })
        })
    }

    fn readers(&self, each: usize, round: usize) -> Result<Sample> {
        together(READERS, READERS * each * PAGE_SIZE, |reader| {
            read_at_random(self.side.reader()?, each, round * READERS + reader)
        })
    }
}

struct Stores {
    medium: Medium,
    holt: Loaded<Holt>,
    ours: Loaded<Ours<FileBlobStore>>,
}

impl Stores {
    fn batches(&self, bench: &mut Bench, len: usize, goal: f64) -> Result {
        let count = bench.either(BLOBS / len, (64 / len).max(1));
        let bytes = len * count * PAGE_SIZE;
        let work = Work::new(format!("batch-{len}"), Unit::MegabytesPerSecond)
            .rounds(bench.either(31, 7))
            .with_cpu()
            .goal(RAW, 0.9)
            .goal(HOLT, goal);
        let contenders = vec![
            Contender::new(OURS, |_| {
                Sample::of(bytes, || self.ours.batches(len, count))
            }),
            Contender::new(RAW, |_| {
                Sample::of(bytes, || {
                    (0..count).try_for_each(|_| self.medium.put_and_flush(0..len))
                })
            }),
            Contender::new(HOLT, |_| {
                Sample::of(bytes, || self.holt.batches(len, count))
            }),
        ];
        let measured = bench.compare(&work, contenders)?;
        note_ceiling(bench, &work, &measured);
        Ok(())
    }

    fn single_puts(&self, bench: &mut Bench) -> Result {
        let puts = bench.either(32, 16);
        let work = Work::new("single durable put", Unit::MegabytesPerSecond)
            .rounds(bench.either(31, 7))
            .goal(HOLT, 4.0);
        let contenders = vec![
            Contender::new(OURS, |_| {
                one_by_one(puts, |name| self.ours.put_and_flush(name))
            }),
            Contender::new(RAW, |_| {
                one_by_one(puts, |name| self.medium.put_and_flush(name..name + 1))
            }),
            Contender::new(HOLT, |_| {
                one_by_one(puts, |name| self.holt.put_and_flush(name))
            }),
        ];
        let measured = bench.compare(&work, contenders)?;
        note_ceiling(bench, &work, &measured);
        Ok(())
    }

    /// The raw medium writes what all writers have and syncs once: the best that a group can do.
    fn writers(&self, bench: &mut Bench) -> Result {
        let each = bench.either(16, 4);
        let bytes = WRITERS * each * PAGE_SIZE;
        let work = Work::new("16 writers, each put durable", Unit::MegabytesPerSecond)
            .rounds(bench.either(21, 5))
            .goal(HOLT, 10.0);
        let contenders = vec![
            Contender::new(OURS, |_| self.ours.writers(each)),
            Contender::new(RAW, |_| {
                Sample::of(bytes, || {
                    (0..each).try_for_each(|_| self.medium.put_and_flush(0..WRITERS))
                })
            }),
            Contender::new(HOLT, |_| self.holt.writers(each)),
        ];
        let measured = bench.compare(&work, contenders)?;
        note_ceiling(bench, &work, &measured);
        Ok(())
    }

    fn readers(&self, bench: &mut Bench) -> Result {
        let each = bench.either(128, 48);
        let work = Work::new("random reads, 4 threads", Unit::MegabytesPerSecond)
            .rounds(bench.either(31, 9))
            .with_cpu()
            .goal(HOLT, 1.3);
        let raw = |round, look: fn(&[u8])| {
            together(READERS, READERS * each * PAGE_SIZE, |reader| {
                let read = self.medium.reader(look)?;
                read_at_random(read, each, round * READERS + reader)
            })
        };
        let contenders = vec![
            Contender::new(OURS, |round| self.ours.readers(each, round)),
            Contender::new(RAW, |round| raw(round, |_| ())),
            Contender::new(RAW_CHECKED, |round| {
                raw(round, |frame| {
                    black_box(XxHash3_128::oneshot(frame));
                })
            }),
            Contender::new(HOLT, |round| self.holt.readers(each, round)),
        ];
        let measured = bench.compare(&work, contenders)?;
        note_ceiling(bench, &work, &measured);
        Ok(())
    }
}

/// Nobody can be further ahead of the peer than the medium is.
fn note_ceiling(bench: &mut Bench, work: &Work, measured: &Measured) {
    let ratio = median(&measured.time_ratios(RAW, HOLT));
    bench.note(format!(
        "{}: the raw medium is {ratio:.2} times as fast as {HOLT}",
        work.name
    ));
}

fn one_by_one(puts: usize, put: impl Fn(usize) -> Result) -> Result<Sample> {
    Sample::with_latencies(puts * PAGE_SIZE, |latencies| {
        (0..puts).try_for_each(|name| latencies.time(|| put(name)))
    })
}

/// One read to begin with, then so many random ones, and each must bring what was asked for.
fn read_at_random(
    mut read: impl FnMut(usize) -> Result<[u8; 16]>,
    count: usize,
    seed: usize,
) -> Result<impl FnMut(&mut Latencies) -> Result> {
    read(seed % BLOBS)?;
    Ok(move |latencies: &mut Latencies| {
        let mut word = u64::try_from(seed)? * 0x9E37_79B9 + 1;
        for _ in 0..count {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            let name = usize::try_from(word >> 20)? % BLOBS;
            if latencies.time(|| read(name))? != guid(name) {
                return Err(format!("a read of blob {name} brought another one").into());
            }
        }
        Ok(())
    })
}

/// Threads that prepare themselves, then all start at once.
fn together<W>(
    threads: usize,
    bytes: usize,
    prepare: impl Fn(usize) -> Result<W> + Sync,
) -> Result<Sample>
where
    W: FnMut(&mut Latencies) -> Result,
{
    let start = Barrier::new(threads + 1);
    let mut latencies = Latencies::new();
    let watch = thread::scope(|scope| {
        let (start, prepare) = (&start, &prepare);
        let running: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || {
                    let prepared = prepare(number);
                    // Also where preparing failed, or the others would wait forever.
                    start.wait();
                    let mut latencies = Latencies::new();
                    prepared?(&mut latencies)?;
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(latencies)
                })
            })
            .collect();
        start.wait();
        let watch = Stopwatch::start();
        for thread in running {
            let own = thread
                .join()
                .map_err(|panic| format!("a thread panicked: {panic:?}"))??;
            latencies.add(&own)?;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(watch)
    })?;
    let mut sample = watch.stop(bytes);
    sample.latencies = Some(latencies);
    Ok(sample)
}
