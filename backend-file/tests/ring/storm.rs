//! Signals that interrupt every wait, and an engine that gives in to them.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, mem, ptr, thread};

use io_uring::{IoUring, opcode, types::Fd};
use larder_file::disk::{Disk, Read, Write};
use libtest_mimic::Trial;

use crate::child::{self, FRAME_LEN_BYTES, Verdict, frame, open_as, read, write};

const EVERY_MICROS: libc::suseconds_t = 100;
const FRAMES: u64 = 32;
const WRONG_BYTES: &str = "wrong bytes";

/// Fewer signals than this would have been no storm.
const SIGNALS_MIN: u64 = 200;

static SIGNALS: AtomicU64 = AtomicU64::new(0);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        child::trial("storm::ring", "storm ring"),
        child::trial("storm::ring_cached", "storm ring-cached"),
        child::trial("storm::positioned", "storm positioned"),
        Trial::ignorable_test("storm::an_engine_that_returns_early_is_caught", || {
            let verdict = match child::in_a_child("storm hasty", |_| {}) {
                Verdict::Fail(why) if why.contains(WRONG_BYTES) => Verdict::Pass,
                Verdict::Fail(why) => Verdict::Fail(why),
                Verdict::Pass => Verdict::Fail("the storm did it no harm".to_owned()),
                not_here @ Verdict::NotHere(_) => not_here,
            };
            verdict.into()
        }),
    ]
}

pub(crate) fn case(path: &Path, engine: &str) -> Verdict {
    // Nothing else runs yet, so every thread inherits this; those that do I/O take the signals on themselves.
    mask(libc::SIG_BLOCK);
    let opened;
    let hasty;
    let disk: &dyn Disk = if engine == "hasty" {
        // It has the same file as the others, and so skips where there is no ring.
        match open_as(path, "ring") {
            Ok(ring) => drop(ring),
            Err(verdict) => return verdict,
        }
        hasty = Hasty::open(path).expect("a ring was to be had a moment ago");
        &hasty
    } else {
        opened = match open_as(path, engine) {
            Ok(opened) => opened,
            Err(verdict) => return verdict,
        };
        &*opened.disk
    };
    disk.grow(2 * FRAMES * FRAME_LEN_BYTES)
        .expect("room for a few frames");
    let frames: Vec<_> = (0..FRAMES).map(|number| frame(number, 0)).collect();
    write(disk, 0, &frames).expect("nothing disturbs it yet");
    start();
    let outcomes = thread::scope(|scope| {
        let work = [
            scope.spawn(|| readers_part(disk, 1)),
            scope.spawn(|| readers_part(disk, 5)),
            scope.spawn(|| writers_part(disk)),
        ];
        work.map(|thread| thread.join().expect("no thread panics"))
    });
    if let Some(error) = outcomes.into_iter().find_map(Result::err) {
        return Verdict::Fail(error);
    }
    let signals = SIGNALS.load(Ordering::Relaxed);
    if signals < SIGNALS_MIN {
        return Verdict::NotHere(format!("only {signals} signals came"));
    }
    Verdict::Pass
}

/// Reads what nobody changes.
fn readers_part(disk: &dyn Disk, stride: u64) -> Result<(), String> {
    mask(libc::SIG_UNBLOCK);
    // Never freed: behind an engine that returns early the kernel may still write to it.
    let mut back = ManuallyDrop::new(frame(0, 0));
    for round in 0..150 {
        let number = round * stride % FRAMES;
        read(disk, number, &mut back).map_err(|error| format!("reading: {error}"))?;
        if back[..] != frame(number, 0)[..] {
            return Err(format!("{WRONG_BYTES} in {number}"));
        }
    }
    Ok(())
}

/// Writes, flushes, and reads it back.
fn writers_part(disk: &dyn Disk) -> Result<(), String> {
    mask(libc::SIG_UNBLOCK);
    let mut back = ManuallyDrop::new(frame(0, 0));
    for version in 1..=20 {
        let first = FRAMES + version % 3 * 8;
        let frames = (first..first + 8).map(|number| frame(number, version));
        let frames = ManuallyDrop::new(frames.collect::<Vec<_>>());
        let written = write(disk, first, &frames).and_then(|()| disk.sync());
        written.map_err(|error| format!("writing: {error}"))?;
        for (number, frame) in (first..).zip(frames.iter()) {
            read(disk, number, &mut back).map_err(|error| format!("reading: {error}"))?;
            if back[..] != frame[..] {
                return Err(format!("{WRONG_BYTES} in {number} as of {version}"));
            }
        }
    }
    Ok(())
}

extern "C" fn count(_signal: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Has the clock interrupt this process from now on. System calls are not restarted.
#[expect(unsafe_code, reason = "the standard library has no signals")]
#[expect(
    clippy::fn_to_numeric_cast_any,
    reason = "this is how a handler is passed"
)]
fn start() {
    // SAFETY: zeros are a valid `sigaction`: no flags, and an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = count as *const () as libc::sighandler_t;
    // SAFETY: the handler only adds to an atomic number.
    let outcome = unsafe { libc::sigaction(libc::SIGALRM, &action, ptr::null_mut()) };
    assert_eq!(outcome, 0);
    let every = libc::timeval {
        tv_sec: 0,
        tv_usec: EVERY_MICROS,
    };
    let timer = libc::itimerval {
        it_interval: every,
        it_value: every,
    };
    // SAFETY: the timer is read during the call only.
    let outcome = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) };
    assert_eq!(outcome, 0);
}

/// Blocks or lets through the signal in this thread.
#[expect(unsafe_code, reason = "the standard library has no signals")]
fn mask(how: libc::c_int) {
    // SAFETY: zeros are a valid, empty set.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set is a valid one.
    let added = unsafe { libc::sigaddset(&mut set, libc::SIGALRM) };
    // SAFETY: the set is read during the call only.
    let masked = unsafe { libc::pthread_sigmask(how, &set, ptr::null_mut()) };
    assert_eq!((added, masked), (0, 0));
}

/// An engine with the flaw that the storm is for: it takes the end of a wait for the end of the transfer.
struct Hasty {
    file: File,
    ring: Mutex<IoUring>,
}

impl Hasty {
    fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = File::options();
        let options = options.read(true).write(true);
        Ok(Self {
            file: options.custom_flags(libc::O_DIRECT).open(path)?,
            ring: Mutex::new(IoUring::new(64)?),
        })
    }

    #[expect(unsafe_code, reason = "the kernel is given an address")]
    fn hand_over(&self, entry: &io_uring::squeue::Entry) {
        let mut ring = self.ring.lock().expect("no thread panics");
        // SAFETY: the callers never free the memory.
        let pushed = unsafe { ring.submission().push(entry) };
        pushed.expect("each entry is submitted at once");
        drop(ring.submit_and_wait(1));
        ring.completion().for_each(drop);
    }
}

impl Disk for Hasty {
    fn len_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn read(&self, reads: &mut [Read<'_>]) -> Vec<io::Result<()>> {
        let file = Fd(self.file.as_raw_fd());
        let read = |read: &mut Read<'_>| {
            let len = u32::try_from(read.into.len()).expect("a frame is short");
            let entry = opcode::Read::new(file, read.into.as_mut_ptr(), len);
            self.hand_over(&entry.offset(read.at).build());
            Ok(())
        };
        reads.iter_mut().map(read).collect()
    }

    fn write(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()> {
        let file = Fd(self.file.as_raw_fd());
        for write in writes {
            let len = u32::try_from(write.from.len()).expect("a frame is short");
            let entry = opcode::Write::new(file, write.from.as_ptr(), len);
            self.hand_over(&entry.offset(write.at).build());
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
