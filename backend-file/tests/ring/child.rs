//! A case that has a process to itself, and the frames that all cases write.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, io};

use larder_file::disk::{Disk, DiskOptions, Opened, Read, Write, open};
use larder_traits::frame::{Frame, PAGE_SIZE};
use libtest_mimic::{Completion, Failed, Trial};
use tempfile::TempDir;

const CASE: &str = "LARDER_RING_CASE";
const FOLDER: &str = "LARDER_RING_FOLDER";

/// The exit code of a case that cannot be shown here.
const NOT_HERE: u8 = 77;

pub(crate) const FRAME_LEN_BYTES: u64 = 512 << 10;

const _: () = assert!(PAGE_SIZE == 512 << 10);

/// What a case comes to.
pub(crate) enum Verdict {
    Pass,
    Fail(String),
    NotHere(String),
}

impl<E: ToString> From<Result<(), E>> for Verdict {
    fn from(outcome: Result<(), E>) -> Self {
        match outcome {
            Ok(()) => Self::Pass,
            Err(error) => Self::Fail(error.to_string()),
        }
    }
}

impl From<Verdict> for Result<Completion, Failed> {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Ok(Completion::Completed),
            Verdict::Fail(why) => Err(why.into()),
            Verdict::NotHere(why) => Ok(Completion::ignored_with(why)),
        }
    }
}

/// Runs the case that this process was started for, if it was started for one.
pub(crate) fn run() -> Option<ExitCode> {
    let case = env::var(CASE).ok()?;
    let path = PathBuf::from(env::var_os(FOLDER)?).join("disk");
    let (name, argument) = case.split_once(' ').unwrap_or((&case, ""));
    let verdict = match name {
        "storm" => crate::storm::case(&path, argument),
        "file-size" => crate::limits::file_size(&path, argument),
        "locked-memory" => crate::limits::locked_memory(&path, argument),
        "filter" => crate::filter::case(&path, argument),
        _ => Verdict::Fail(format!("no case is called {case}")),
    };
    let (code, why) = match verdict {
        Verdict::Pass => (ExitCode::SUCCESS, String::new()),
        Verdict::Fail(why) => (ExitCode::FAILURE, why),
        Verdict::NotHere(why) => (ExitCode::from(NOT_HERE), why),
    };
    writeln!(io::stdout(), "{why}").expect("the parent reads to the end");
    Some(code)
}

/// A trial that is one case in a process of its own.
pub(crate) fn trial(name: &str, case: &'static str) -> Trial {
    Trial::ignorable_test(name, move || in_a_child(case, |_| {}).into())
}

/// Starts the case and waits for what it says.
pub(crate) fn in_a_child(case: &str, adjust: impl FnOnce(&mut Command)) -> Verdict {
    let folder = TempDir::new().expect("a temporary folder");
    // The child may be another user.
    let everyone = fs::Permissions::from_mode(0o777);
    fs::set_permissions(folder.path(), everyone).expect("the folder is ours");
    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    command
        .env(CASE, case)
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    adjust(&mut command);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Verdict::NotHere("the other user cannot run this program".to_owned());
        }
        Err(error) => return Verdict::Fail(format!("no child: {error}")),
    };
    let mut said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => Verdict::Pass,
        Some(code) if code == i32::from(NOT_HERE) => Verdict::NotHere(said),
        _ => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            write!(said, "\n{}: {stderr}", output.status).expect("a string takes everything");
            Verdict::Fail(said)
        }
    }
}

/// As another user, if this one may.
pub(crate) fn as_nobody(command: &mut Command) {
    if rustix::process::geteuid().is_root() {
        command.gid(65_534).uid(65_534);
    }
}

/// Opens the disk on the engine of that name: `ring` or `positioned`, and `cached` for one with the page cache.
pub(crate) fn open_as(path: &Path, engine: &str) -> Result<Opened, Verdict> {
    let options = DiskOptions {
        ring: engine.starts_with("ring"),
        direct: !engine.ends_with("cached"),
        ..DiskOptions::default()
    };
    let opened = open(path, &options).map_err(|error| Verdict::Fail(error.to_string()))?;
    let report = &opened.engine;
    if report.is_ring() != options.ring || report.is_direct() != options.direct {
        return Err(Verdict::NotHere(report.to_string()));
    }
    Ok(opened)
}

/// A frame that tells where it belongs and which version it is.
pub(crate) fn frame(number: u64, version: u64) -> Frame {
    let mut frame = Frame::zeroed();
    for (word, at) in frame.chunks_exact_mut(8).zip(0_u64..) {
        word.copy_from_slice(&(version << 48 | number << 32 | at).to_le_bytes());
    }
    frame
}

/// Writes frames to consecutive places.
pub(crate) fn write(disk: &dyn Disk, first: u64, frames: &[Frame]) -> io::Result<()> {
    let mut writes = frames.iter().zip(first..).map(|(from, number)| Write {
        at: number * FRAME_LEN_BYTES,
        from,
        registered: None,
    });
    disk.write(&mut writes)
}

/// Reads one frame over what was in the buffer.
pub(crate) fn read(disk: &dyn Disk, number: u64, into: &mut Frame) -> io::Result<()> {
    into.fill(0xEE);
    let mut reads = [Read {
        at: number * FRAME_LEN_BYTES,
        into,
        registered: None,
    }];
    let mut outcomes = disk.read(&mut reads);
    outcomes.pop().expect("an outcome for each range")
}

/// Writes, reads and grows in buffers of the pool, more of them than it has.
pub(crate) fn exercise(opened: &Opened) -> Result<(), String> {
    let Opened { disk, slab, .. } = opened;
    let count = u64::from(slab.frames()) + 8;
    disk.grow(count * FRAME_LEN_BYTES)
        .map_err(|error| format!("growing: {error}"))?;
    let mut bufs = Vec::new();
    for number in 0..count {
        let mut buf = slab.lease_recycled();
        buf.copy_from_slice(&frame(number, 1));
        bufs.push(buf);
    }
    let mut writes = bufs.iter().zip(0..).map(|(buf, number)| Write {
        at: number * FRAME_LEN_BYTES,
        from: buf,
        registered: slab.registered_slot(buf),
    });
    let written = disk.write(&mut writes).and_then(|()| disk.sync());
    written.map_err(|error| format!("writing: {error}"))?;
    for (number, buf) in (0..count).rev().zip(&mut bufs) {
        buf.fill(0xEE);
        let registered = slab.registered_slot(buf);
        let mut reads = [Read {
            at: number * FRAME_LEN_BYTES,
            into: buf,
            registered,
        }];
        let outcome = disk.read(&mut reads).remove(0);
        outcome.map_err(|error| format!("reading {number}: {error}"))?;
        if buf[..] != frame(number, 1)[..] {
            return Err(format!("wrong bytes in {number}"));
        }
    }
    Ok(())
}
