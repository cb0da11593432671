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
    pub(crate) watch: watch::Watch,
}

/// A step as a test sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    MakeDir,
    Create,
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
            watch: watch::Watch::default(),
        }
    }

    /// Makes a folder; tells whether it was missing.
    pub(crate) fn make_dir(&self, path: &Path) -> io::Result<bool> {
        self.step(Step::MakeDir, path)?;
        match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Makes a file that must not be there yet.
    pub(crate) fn create_new(&self, path: &Path) -> io::Result<File> {
        self.step(Step::Create, path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).open(path)
    }

    pub(crate) fn write_at(
        &self,
        file: &File,
        path: &Path,
        from: &[u8],
        at: u64,
    ) -> io::Result<()> {
        self.step(Step::Write, path)?;
        file.write_all_at(from, at)
    }

    pub(crate) fn truncate(&self, file: &File, path: &Path, len: u64) -> io::Result<()> {
        self.step(Step::Truncate, path)?;
        file.set_len(len)
    }

    /// What was written to the file is durable, and its length.
    pub(crate) fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        self.step(Step::SyncFile, path)?;
        if self.syncs { file.sync_all() } else { Ok(()) }
    }

    /// As [`sync_file`](Self::sync_file), without the times of the file.
    pub(crate) fn sync_data(&self, file: &File, path: &Path) -> io::Result<()> {
        self.step(Step::SyncFile, path)?;
        if self.syncs { file.sync_data() } else { Ok(()) }
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Step::Rename, to)?;
        fs::rename(from, to)
    }

    /// Removes a file; tells whether it was there.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<bool> {
        self.step(Step::Remove, path)?;
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// What was made, renamed and removed in the folder is durable.
    pub(crate) fn sync_dir(&self, dir: &File, path: &Path) -> io::Result<()> {
        self.step(Step::SyncDir, path)?;
        if self.syncs { dir.sync_all() } else { Ok(()) }
    }

    /// As [`sync_dir`](Self::sync_dir), for a folder that is not open.
    pub(crate) fn sync_dir_at(&self, path: &Path) -> io::Result<()> {
        self.sync_dir(&File::open(path)?, path)
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "in a test it counts and fails"
    )]
    const fn step(&self, _step: Step, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self, step: Step, path: &Path) -> io::Result<()> {
        self.watch.step(step, path)
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

/// A thread ended that should not have, and took the answer with it.
pub(crate) fn lost() -> Fault {
    Fault::not_applied(ErrorKind::Internal, "a thread of the handle ended")
}

/// Takes the advisory lock of the open file or folder, against every other opener in this process and in others. It
/// is free again when the file is closed, however that comes about.
///
/// The locks of these modules are held for moments, so waiting is asking again; the kernel's own wait knows no deadline.
pub(crate) fn lock(file: &File, deadline: Instant) -> Result<(), Fault> {
    let mut pause = Duration::from_micros(20);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(failed("a lock could not be taken")(e)),
        }
        if deadline <= Instant::now() {
            return Err(waited());
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
    use std::sync::{Mutex, PoisonError};

    use super::Step;

    #[derive(Debug, Default)]
    pub(crate) struct Watch(Mutex<State>);

    #[derive(Debug, Default)]
    struct State {
        seen: Vec<(Step, PathBuf)>,
        /// Fails the step of this kind after so many more of it.
        failing: Option<(Step, usize, i32)>,
    }

    impl Watch {
        pub(crate) fn step(&self, step: Step, path: &Path) -> io::Result<()> {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.seen.push((step, path.to_owned()));
            match &mut state.failing {
                Some((failing, 0, errno)) if *failing == step => {
                    let errno = *errno;
                    state.failing = None;
                    Err(io::Error::from_raw_os_error(errno))
                }
                Some((failing, more, _)) if *failing == step => {
                    *more -= 1;
                    Ok(())
                }
                _ => Ok(()),
            }
        }

        /// The steps since the last call, with the paths they were made on.
        pub(crate) fn take(&self) -> Vec<(Step, PathBuf)> {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut state.seen)
        }

        /// Lets one step fail: the next of its kind, or one after so many more.
        pub(crate) fn fail(&self, step: Step, after: usize, errno: i32) {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.failing = Some((step, after, errno));
        }
    }
}
