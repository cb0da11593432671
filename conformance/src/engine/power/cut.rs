//! One place, worked on once and cut off many times.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use proptest::prelude::Rng;
use tempfile::TempDir;

use super::device::{self, Event, Recording, apply};
use super::mounts::{self, Mounted, Reaper};
use crate::check::{Failure, Outcome, Stop};
use crate::cx::Cx;
use crate::engine::work::{Crew, Hire, Told, Worker};
use crate::fixture::{Folders, World};
use crate::sim_disk::SimDisk;

/// How many operations each worker performs at least.
const OPERATIONS: u64 = 6;

/// How often what a worker did becomes durable at least: what replaces or removes something durable is cut off only once
/// it is becoming durable itself. Stores that are flushed take more operations for that than others.
const DURABLE: usize = 3;

/// How many operations each worker performs at most.
const OPERATIONS_MAX: u64 = 16;

pub(super) async fn survives<W>(cx: &Cx<W>, hire: Hire<W>) -> Outcome
where
    W: World + ?Sized,
{
    let stage = Stage::new().map_err(|e| Stop::Ignored(format!("no power to cut: {e}")))?;
    let taken = record(cx, hire, &stage).await?;
    let mut rng = cx.rng();
    let cuts = taken.cuts(cx.profile.power_states(), &mut rng);
    let device = stage.base.fork();
    let mut done = 0;
    for cut in cuts {
        for event in &taken.events[done..cut.at] {
            apply(&device, event).map_err(no_device)?;
        }
        done = cut.at;
        let left = device.crash(cut.seed);
        judge(cx, hire, &stage, &taken, cut, &left).await?;
    }
    Ok(())
}

fn no_device(e: io::Error) -> Stop {
    Stop::Inconclusive(format!("the recorded device: {e}"))
}

/// The folders and the empty file system.
struct Stage {
    base: &'static SimDisk,
    folder: TempDir,
    /// Unmounts what this process could not.
    _reaper: Reaper,
}

impl Stage {
    fn new() -> io::Result<Self> {
        let is_root = std::fs::metadata("/proc/self")?.uid() == 0;
        if !is_root {
            return Err(io::Error::other("only root may mount"));
        }
        for device in ["/dev/fuse", "/dev/loop-control"] {
            if !Path::new(device).exists() {
                return Err(io::Error::other(format!("no {device}")));
            }
        }
        let folder = scratch()?;
        for name in ["fuse", "record", "state", "links"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        let mounted = ["state", "record", "fuse"].map(|name| folder.path().join(name));
        Ok(Self {
            base: base()?,
            _reaper: Reaper::new(&mounted)?,
            folder,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A folder for images, in memory where the system has such a place: nobody needs them to be durable, and an unmount
/// would wait for it.
fn scratch() -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("larder-power-");
    builder
        .tempdir_in("/dev/shm")
        .or_else(|_| builder.tempdir())
}

/// A fresh file system, made once in this process.
fn base() -> io::Result<&'static SimDisk> {
    static BASE: OnceLock<Result<SimDisk, String>> = OnceLock::new();
    let made = BASE.get_or_init(|| {
        let make = || -> io::Result<SimDisk> {
            let folder = scratch()?;
            let image = folder.path().join("image");
            mounts::make(&image)?;
            let base = device::blank(mounts::device_len_bytes());
            mounts::load(&image, &base)?;
            Ok(base)
        };
        make().map_err(|e| e.to_string())
    });
    made.as_ref().map_err(|e| io::Error::other(e.clone()))
}

/// What was done, and what reached the device in the meantime.
struct Taken {
    events: Vec<Event>,
    /// The number of events when the work began, and when it was over.
    began: usize,
    ended: usize,
    marks: Vec<Mark>,
    workers: usize,
    /// The folders of the world, within the file system.
    folders: Vec<PathBuf>,
}

/// A moment in the work of one worker.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// How many events there were.
    at: usize,
    worker: usize,
    n: u64,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Began,
    /// It was acknowledged, and everything up to it is durable if so declared.
    Done(bool),
}

/// The device after so many events, less what the seed says of those that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cut {
    at: usize,
    seed: u64,
}

impl Taken {
    /// How far the worker had come.
    fn told(&self, at: usize, worker: usize) -> Told {
        let mut told = Told::default();
        let before = |mark: &&Mark| mark.at <= at && mark.worker == worker;
        for mark in self.marks.iter().filter(before) {
            match mark.what {
                What::Began => told.begun = told.begun.max(mark.n + 1),
                What::Done(true) => told.durable = told.durable.max(mark.n + 1),
                What::Done(false) => {}
            }
        }
        told
    }

    /// Half of them right after an acknowledgement, with nothing that was not flushed; the others anywhere, with any part
    /// of it.
    fn cuts(&self, count: usize, rng: &mut impl Rng) -> Vec<Cut> {
        let mut acknowledged: Vec<usize> = self
            .marks
            .iter()
            .filter(|mark| mark.what == What::Done(true))
            .map(|mark| mark.at)
            .collect();
        acknowledged.dedup();
        let writes: Vec<usize> = (self.began..self.ended)
            .filter(|at| matches!(self.events[*at], Event::Write { .. }))
            .collect();
        let mut cuts = Vec::new();
        for number in 0..count {
            let from = if number % 2 == 0 {
                &mut acknowledged
            } else {
                &mut writes.clone()
            };
            if from.is_empty() {
                continue;
            }
            let at = below(rng, from.len());
            cuts.push(if number % 2 == 0 {
                Cut {
                    at: from.swap_remove(at),
                    seed: 0,
                }
            } else {
                Cut {
                    at: from[at] + 1,
                    seed: rng.next_u64() | 2,
                }
            });
        }
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }
}

fn below(rng: &mut impl Rng, len: usize) -> usize {
    let len = u64::try_from(len).expect("a length fits 64 bits");
    usize::try_from(rng.next_u64() % len).expect("it is below a length")
}

/// Has the place worked on, on the recorded device.
async fn record<W>(cx: &Cx<W>, hire: Hire<W>, stage: &Stage) -> Result<Taken, Stop>
where
    W: World + ?Sized,
{
    let unable = |e: io::Error| Stop::Ignored(format!("no power to cut: {e}"));
    let recording = Recording::new(stage.base);
    let session = device::show(&recording, &stage.path("fuse")).map_err(unable)?;
    let root = stage.path("record");
    let mounted = Mounted::new(&stage.path("fuse").join(device::NAME), &root).map_err(unable)?;
    let recorded = cx.moved(Folders::under(root.clone())).await?;
    let folders: Vec<PathBuf> = recorded
        .env()
        .folders
        .given()
        .into_iter()
        .filter_map(|folder| Some(folder.strip_prefix(&root).ok()?.to_owned()))
        .collect();
    if folders.is_empty() {
        let why = "needs a world in folders of Env::tempdir";
        return Err(Stop::Ignored(why.into()));
    }
    // The folder itself is the suite's affair.
    mounted.sync().map_err(no_device)?;
    let began = recording.len();
    let crew = hire(&recorded).await?;
    let workers = crew.len();
    let (crew, marks) = work(crew, &recording)?;
    let ended = recording.len();
    let events = recording.events();
    drop(crew);
    drop(recorded);
    drop(mounted);
    drop(session);
    Ok(Taken {
        events,
        began,
        ended,
        marks,
        workers,
        folders,
    })
}

/// Every worker on a thread of its own.
fn work(crew: Crew, recording: &Arc<Recording>) -> Result<(Crew, Vec<Mark>), Stop> {
    let runtime = tokio::runtime::Handle::current();
    let marks = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = crew
        .into_iter()
        .enumerate()
        .map(|(at, mut worker)| {
            let (runtime, marks, recording) =
                (runtime.clone(), Arc::clone(&marks), Arc::clone(recording));
            std::thread::spawn(move || {
                let worked = runtime.block_on(perform(worker.as_mut(), at, &marks, &recording));
                worked.map(|()| worker)
            })
        })
        .collect();
    let mut crew = Crew::new();
    for thread in threads {
        let worked = thread.join();
        crew.push(
            worked
                .map_err(|_panic| Stop::fail("the work before the cut", "a panic", "no panic"))??,
        );
    }
    let marks = marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((crew, marks))
}

async fn perform(
    worker: &mut dyn Worker,
    at: usize,
    marks: &Mutex<Vec<Mark>>,
    recording: &Recording,
) -> Outcome {
    let mark = |n, what| {
        let mark = Mark {
            at: recording.len(),
            worker: at,
            n,
            what,
        };
        marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(mark);
    };
    let mut durable = 0;
    for n in 0..OPERATIONS_MAX {
        if n >= OPERATIONS && durable >= DURABLE {
            break;
        }
        mark(n, What::Began);
        let is_durable = worker.perform(n).await?;
        mark(n, What::Done(is_durable));
        durable += usize::from(is_durable);
    }
    Ok(())
}

/// Opens the place on what is left, and looks.
async fn judge<W>(
    cx: &Cx<W>,
    hire: Hire<W>,
    stage: &Stage,
    taken: &Taken,
    cut: Cut,
    left: &SimDisk,
) -> Outcome
where
    W: World + ?Sized,
{
    let image = stage.path(&format!("image-{}-{}", cut.at, cut.seed));
    mounts::save(left, &image).map_err(no_device)?;
    let root = stage.path("state");
    let mounted = Mounted::new(&image, &root).map_err(no_device)?;
    let folders = taken.folders.iter().map(|folder| root.join(folder));
    let folders = Folders::again(folders, &stage.path("links"));
    let after = cx.moved(folders).await?;
    let judged = look(&after, hire, taken, cut).await;
    let history = after.log().lines();
    drop(after);
    drop(mounted);
    // The next one has another name, so a file that is still there does no harm.
    drop(std::fs::remove_file(&image));
    judged.map_err(|stop| match stop {
        Stop::Fail(failure) => Stop::Fail(Box::new(explain(*failure, taken, cut, history))),
        other => other,
    })
}

async fn look<W>(after: &Cx<W>, hire: Hire<W>, taken: &Taken, cut: Cut) -> Outcome
where
    W: World + ?Sized,
{
    let mut crew = hire(after).await?;
    for (at, worker) in crew.iter_mut().enumerate() {
        let done = worker.judge(taken.told(cut.at, at)).await?;
        // It has to be a place to go on in, and not only one to read.
        worker.perform(done).await?;
        let told = Told {
            durable: done,
            begun: done + 1,
        };
        worker.judge(told).await?;
    }
    Ok(())
}

fn explain(mut failure: Failure, taken: &Taken, cut: Cut, history: Vec<String>) -> Failure {
    let kept = match cut.seed {
        0 => "none of the writes since the last flush".into(),
        seed => format!("a part of the writes since the last flush (seed {seed})"),
    };
    failure.history = vec![format!(
        "the power went after event {} of {}..{}, and the device kept {kept}",
        cut.at, taken.began, taken.ended
    )];
    for worker in 0..taken.workers {
        let told = taken.told(cut.at, worker);
        failure.history.push(format!(
            "worker {worker}: {} operations durable, {} begun",
            told.durable, told.begun
        ));
    }
    failure.history.extend(history);
    failure
}
