//! The disk on positioned system calls: what runs where the ring is not to be had, and what finishes a transfer that a
//! ring gave up.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use larder_traits::frame::Frame;

use super::{Disk, Read, SECTOR_LEN_BYTES, Write};

/// The file grows by at most this much at a time. Some file systems undo an allocation that a signal interrupts; small
/// pieces get done between two signals.
const GROW_STEP_LEN_BYTES: u64 = 64 << 20;

/// A file read and written at given positions, one transfer after the other.
#[derive(Debug)]
pub struct Positioned {
    file: File,
    /// Whether transfers go past the page cache, and so have to stay on whole sectors when they are resumed.
    direct: bool,
    len_bytes: AtomicU64,
    /// Held while the file grows.
    growing: Mutex<()>,
    /// Set by the first flush that fails. The kernel tells of a failure once and takes the pages for clean, so a later
    /// flush would succeed without what this one lost.
    has_lost: AtomicBool,
}

impl Positioned {
    /// The disk on an open file. An unfinished sector at its end does not count.
    ///
    /// # Errors
    ///
    /// If the system does not tell the length of the file.
    pub fn new(file: File, direct: bool) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self {
            file,
            direct,
            len_bytes: AtomicU64::new(len - len % sector_len_bytes()),
            growing: Mutex::new(()),
            has_lost: AtomicBool::new(false),
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// An error if a flush has ever failed.
    pub(super) fn check_flushes(&self) -> io::Result<()> {
        if self.has_lost.load(Ordering::Acquire) {
            return Err(io::Error::other(
                "an earlier flush failed, and what it covered may be lost",
            ));
        }
        Ok(())
    }

    /// Remembers a failed flush.
    pub(super) fn flushed(&self, outcome: io::Result<()>) -> io::Result<()> {
        if outcome.is_err() {
            self.has_lost.store(true, Ordering::Release);
        }
        outcome
    }

    /// How much of a transfer counts: direct I/O can be resumed only on a whole sector.
    pub(super) fn progress(&self, moved: usize) -> usize {
        if self.direct {
            moved - moved % SECTOR_LEN_BYTES
        } else {
            moved
        }
    }

    pub(super) fn fill(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], at + wide(done)) {
                Ok(moved) => match self.progress(moved) {
                    0 => return Err(past_the_end()),
                    moved => done += moved,
                },
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn put(&self, at: u64, from: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < from.len() {
            match self.file.write_at(&from[done..], at + wide(done)) {
                Ok(moved) => match self.progress(moved) {
                    0 => return Err(nothing_written()),
                    moved => done += moved,
                },
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives every byte from `start` to `end` room on the medium.
    fn extend(&self, start: u64, end: u64) -> io::Result<()> {
        let mut at = start;
        while at < end {
            let step = GROW_STEP_LEN_BYTES.min(end - at);
            match allocate(&self.file, at, step) {
                Ok(()) => at += step,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    return self.put_zeros(at, end);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What takes the place of an allocation on a file system that has none.
    fn put_zeros(&self, start: u64, end: u64) -> io::Result<()> {
        let zeros = Frame::zeroed();
        let mut at = start;
        while at < end {
            let step = usize::try_from(end - at).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.put(at, &zeros[..step])?;
            at += wide(step);
        }
        Ok(())
    }
}

impl Disk for Positioned {
    fn len_bytes(&self) -> u64 {
        self.len_bytes.load(Ordering::Acquire)
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        let _one_at_a_time = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.len_bytes();
        let len = len.next_multiple_of(sector_len_bytes());
        if len <= now {
            return Ok(());
        }
        if let Err(error) = self.extend(now, len) {
            // What was allocated before the medium was full would be room that nobody can use. If it cannot be given
            // back either, the next growth finds it allocated already.
            drop(self.file.set_len(now));
            return Err(error);
        }
        self.len_bytes.store(len, Ordering::Release);
        Ok(())
    }

    fn read(&self, reads: &mut [Read<'_>]) -> Vec<io::Result<()>> {
        let fill = |read: &mut Read<'_>| self.fill(read.at, read.into);
        reads.iter_mut().map(fill).collect()
    }

    fn write(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()> {
        for write in writes {
            self.put(write.at, write.from)?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.check_flushes()?;
        self.flushed(self.file.sync_data())
    }
}

/// Reserves room, and lengthens the file if it ends before it. `Unsupported` where the system or the file system cannot.
#[cfg(target_os = "linux")]
fn allocate(file: &File, at: u64, len: u64) -> io::Result<()> {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), at, len).map_err(|errno| {
        if matches!(
            errno,
            rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS
        ) {
            return ErrorKind::Unsupported.into();
        }
        errno.into()
    })
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &File, _at: u64, _len: u64) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

pub(super) fn past_the_end() -> io::Error {
    io::Error::new(
        ErrorKind::UnexpectedEof,
        "the range ends past the end of the file",
    )
}

pub(super) fn nothing_written() -> io::Error {
    io::Error::new(ErrorKind::WriteZero, "the file system took no bytes")
}

pub(super) fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits 64 bits")
}

fn sector_len_bytes() -> u64 {
    wide(SECTOR_LEN_BYTES)
}
