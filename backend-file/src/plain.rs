//! Plain files: what the objects and the change log ask of the operating system, and what it means when it refuses.
//!
//! Everything that has to happen in a certain order for the sake of durability goes through [`Medium`], so that a test
//! can look at the order and let any single step fail.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use larder_traits::{ErrorKind, Fault};

use crate::objects::threads::Call;

/// The part of a medium that is written as a whole or not at all when the power fails.
pub(crate) const SECTOR_LEN_BYTES: usize = 512;

/// The longest pause between two attempts to get a lock.
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// The steps that change a medium or make a change durable.
#[derive(Debug)]
pub(crate) struct Medium {
    /// Whether anything is made durable at all; off for handles that declare no durability.
    pub(crate) syncs: bool,
    #[cfg(test)]
    pub(crate) watch: std::sync::Arc<watch::Watch>,
}

/// A step as a test sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    MakeDir,
    Create,
    Open,
    Read,
    Write,
    Truncate,
    SyncFile,
    Rename,
    Remove,
    SyncDir,
}

impl Medium {
    pub(crate) fn new(syncs: bool) -> Self {
        Self {
            syncs,
            #[cfg(test)]
            watch: std::sync::Arc::default(),
        }
    }

    /// Makes a folder; tells whether it was missing.
    pub(crate) fn make_dir(&self, path: &Path) -> io::Result<bool> {
        self.act(Step::MakeDir, path, || match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(e),
        })
    }

    /// Makes a file that must not be there yet.
    pub(crate) fn create_new(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        self.act(Step::Create, path, || options.open(path))
    }

    /// Opens a file to be read, and to be written if `writes`; `None` where there is none.
    pub(crate) fn open(&self, path: &Path, writes: bool) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(writes);
        self.act(Step::Open, path, || match options.open(path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        })
    }

    /// Reads all of `into`; what ends before that is `UnexpectedEof`.
    pub(crate) fn read_at(
        &self,
        file: &File,
        path: &Path,
        into: &mut [u8],
        at: u64,
    ) -> io::Result<()> {
        self.act(Step::Read, path, || file.read_exact_at(into, at))
    }

    pub(crate) fn write_at(
        &self,
        file: &File,
        path: &Path,
        from: &[u8],
        at: u64,
    ) -> io::Result<()> {
        self.act(Step::Write, path, || file.write_all_at(from, at))
    }

    pub(crate) fn truncate(&self, file: &File, path: &Path, len: u64) -> io::Result<()> {
        self.act(Step::Truncate, path, || file.set_len(len))
    }

    /// What was written to the file is durable, and its length.
    pub(crate) fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        self.sync(Step::SyncFile, path, || file.sync_all())
    }

    /// As [`sync_file`](Self::sync_file), without the times of the file.
    pub(crate) fn sync_data(&self, file: &File, path: &Path) -> io::Result<()> {
        self.sync(Step::SyncFile, path, || file.sync_data())
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act(Step::Rename, to, || fs::rename(from, to))
    }

    /// Removes a file; tells whether it was there.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<bool> {
        self.act(Step::Remove, path, || match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        })
    }

    /// What was made, renamed and removed in the folder is durable.
    pub(crate) fn sync_dir(&self, dir: &File, path: &Path) -> io::Result<()> {
        self.sync(Step::SyncDir, path, || dir.sync_all())
    }

    /// As [`sync_dir`](Self::sync_dir), for a folder that is not open.
    pub(crate) fn sync_dir_at(&self, path: &Path) -> io::Result<()> {
        self.sync_dir(&File::open(path)?, path)
    }

    fn sync(
        &self,
        step: Step,
        path: &Path,
        work: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.act(step, path, || if self.syncs { work() } else { Ok(()) })
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in a test it looks on and intervenes")]
    fn act<R>(
        &self,
        _step: Step,
        _path: &Path,
        work: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        work()
    }

    #[cfg(test)]
    fn act<R>(
        &self,
        step: Step,
        path: &Path,
        work: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.watch.act(step, path, work)
    }
}

/// The kind of a native error; nothing else in these modules decides kinds.
pub(crate) fn kind_of(e: &io::Error) -> ErrorKind {
    if matches!(e.raw_os_error(), Some(libc::EUCLEAN | libc::EBADMSG)) {
        // The file system found its own structures damaged.
        return ErrorKind::Corrupt;
    }
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::NoSpace
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::PermissionDenied
        }
        io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
        // Failed transfers, too many open files, a folder that vanished: a later call may succeed.
        _ => ErrorKind::Unavailable,
    }
}

/// A native error before the commit point.
pub(crate) fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Fault {
    move |e| Fault::not_applied(kind_of(&e), what).because(e)
}

/// What is stored is not what was written.
pub(crate) fn corrupt(message: &'static str) -> Fault {
    Fault::not_applied(ErrorKind::Corrupt, message)
}

/// Its turn did not come within the wait (C-4).
pub(crate) fn waited() -> Fault {
    let message = "the call did not get its turn within the configured wait";
    Fault::not_applied(ErrorKind::Timeout, message)
}

/// Nobody is there to hear this: the call was dropped.
pub(crate) fn gone() -> Fault {
    Fault::not_applied(ErrorKind::Closed, "the call was dropped")
}

/// A thread ended that should not have, and took the answer with it.
pub(crate) fn lost() -> Fault {
    Fault::not_applied(ErrorKind::Internal, "a thread of the handle ended")
}

/// Takes the advisory lock of the open file or folder, against every other opener in this process and in others. It
/// is free again when the file is closed, however that comes about.
///
/// The locks of these modules are held for moments, so waiting is asking again; the kernel's own wait knows no deadline.
pub(crate) fn lock(file: &File, call: &Call<'_>) -> Result<(), Fault> {
    let mut pause = Duration::from_micros(20);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(failed("a lock could not be taken")(e)),
        }
        if call.deadline <= Instant::now() {
            return Err(waited());
        }
        if call.is_gone() {
            return Err(gone());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Bytes that nobody else has drawn.
pub(crate) fn unique() -> Result<[u8; 16], Fault> {
    let mut bytes = [0; 16];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match drawn {
        // Up to 256 bytes come in one piece.
        Ok(_all) => Ok(bytes),
        Err(e) => Err(failed("no random bytes were to be had")(e.into())),
    }
}

#[cfg(test)]
pub(crate) mod watch {
    //! What a test sees of the steps, and how it lets one fail.

    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use larder_conformance::{FaultKind, Faults};

    use super::Step;

    #[derive(Debug, Default)]
    pub(crate) struct Watch(Mutex<State>);

    #[derive(Debug, Default)]
    struct State {
        seen: Vec<(Step, PathBuf)>,
        failing: Option<Failing>,
        met: bool,
    }

    /// Which step fails, and how.
    #[derive(Debug)]
    struct Failing {
        /// A step of this kind, or any that the suite counts.
        step: Option<Step>,
        /// After so many more of it.
        after: u64,
        errno: i32,
        takes_effect: bool,
    }

    impl Failing {
        /// A handle refuses writes after a failed sync of a folder and has to be opened again, which the suite does
        /// not know of.
        fn is_meant(&self, step: Step) -> bool {
            self.step
                .map_or(step != Step::SyncDir, |meant| meant == step)
        }
    }

    impl Watch {
        pub(super) fn act<R>(
            &self,
            step: Step,
            path: &Path,
            work: impl FnOnce() -> io::Result<R>,
        ) -> io::Result<R> {
            let mut state = self.lock();
            state.seen.push((step, path.to_owned()));
            let failing = match &mut state.failing {
                Some(failing) if failing.is_meant(step) && failing.after == 0 => {
                    state.met = true;
                    state.failing.take()
                }
                Some(failing) if failing.is_meant(step) => {
                    failing.after -= 1;
                    None
                }
                _ => None,
            };
            drop(state);
            let Some(failing) = failing else {
                return work();
            };
            if failing.takes_effect {
                drop(work());
            }
            Err(io::Error::from_raw_os_error(failing.errno))
        }

        /// The steps that change something since the last call, with the paths they were made on.
        pub(crate) fn take(&self) -> Vec<(Step, PathBuf)> {
            let mut seen = std::mem::take(&mut self.lock().seen);
            seen.retain(|(step, _)| !matches!(step, Step::Open | Step::Read));
            seen
        }

        /// Lets one step fail, before it has an effect: the next of its kind, or one after so many more.
        pub(crate) fn fail(&self, step: Step, after: u64, errno: i32) {
            self.lock().failing = Some(Failing {
                step: Some(step),
                after,
                errno,
                takes_effect: false,
            });
        }

        fn lock(&self) -> MutexGuard<'_, State> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Faults for Watch {
        fn arm(&self, nth: u64, kind: FaultKind) {
            let mut state = self.lock();
            state.met = false;
            state.failing = Some(Failing {
                step: None,
                after: nth - 1,
                errno: libc::EIO,
                takes_effect: kind == FaultKind::ErrorAfter,
            });
        }

        fn disarm(&self) -> bool {
            let mut state = self.lock();
            state.failing = None;
            std::mem::take(&mut state.met)
        }
    }
}
