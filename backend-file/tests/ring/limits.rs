//! Limits that the system puts on a process.

use std::io::ErrorKind;
use std::path::Path;

use larder_file::disk::{DiskOptions, open};
use libtest_mimic::Trial;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::child::{self, FRAME_LEN_BYTES, Verdict, exercise, frame, open_as, read, write};

pub(crate) fn trials() -> Vec<Trial> {
    let unprivileged = || child::in_a_child("locked-memory 3145728", child::as_nobody).into();
    let none_at_all = || child::in_a_child("locked-memory 0", child::as_nobody).into();
    vec![
        child::trial("file_size::ring", "file-size ring"),
        child::trial("file_size::ring_cached", "file-size ring-cached"),
        child::trial("file_size::positioned", "file-size positioned"),
        Trial::ignorable_test("locked_memory::some_frames_are_registered", unprivileged),
        Trial::ignorable_test("locked_memory::no_frame_is_registered", none_at_all),
    ]
}

/// A limit in the middle of a frame: the write of that frame comes back short, and what is left of it fails.
pub(crate) fn file_size(path: &Path, engine: &str) -> Verdict {
    let opened = match open_as(path, engine) {
        Ok(opened) => opened,
        Err(verdict) => return verdict,
    };
    short_writes(&*opened.disk).into()
}

fn short_writes(disk: &dyn larder_file::disk::Disk) -> Result<(), String> {
    const FRAMES: u64 = 12;
    const WHOLE: u64 = 5;
    const SECTORS_LEN_BYTES: usize = 3 * 4096;
    disk.grow(FRAMES * FRAME_LEN_BYTES)
        .map_err(|error| format!("growing: {error}"))?;
    let all = |version| {
        let frames = (0..FRAMES).map(|number| frame(number, version));
        frames.collect::<Vec<_>>()
    };
    let [old, new] = [all(1), all(2)];
    write(disk, 0, &old).map_err(|error| format!("writing: {error}"))?;

    ignore_file_size_signal();
    let before = getrlimit(Resource::Fsize);
    let cut = WHOLE * FRAME_LEN_BYTES + u64::try_from(SECTORS_LEN_BYTES).expect("a small number");
    let limited = Rlimit {
        current: Some(cut),
        ..before
    };
    setrlimit(Resource::Fsize, limited).map_err(|error| error.to_string())?;
    let outcome = write(disk, 0, &new).map_err(|error| error.kind());
    setrlimit(Resource::Fsize, before).map_err(|error| error.to_string())?;
    if outcome != Err(ErrorKind::FileTooLarge) {
        return Err(format!("a write over the limit: {outcome:?}"));
    }

    let mut back = frame(0, 0);
    for (number, (old, new)) in (0..).zip(old.iter().zip(&new)) {
        read(disk, number, &mut back).map_err(|error| format!("reading: {error}"))?;
        let cut = match number {
            ..WHOLE => back.len(),
            WHOLE => SECTORS_LEN_BYTES,
            _ => 0,
        };
        if back[..cut] != new[..cut] || back[cut..] != old[cut..] {
            return Err(format!("frame {number} is not the new one up to {cut}"));
        }
    }

    // The limit is gone, and the disk is none the worse for it.
    write(disk, 0, &new).map_err(|error| format!("writing again: {error}"))?;
    disk.sync().map_err(|error| format!("flushing: {error}"))?;
    for (number, new) in (0..).zip(&new) {
        read(disk, number, &mut back).map_err(|error| format!("reading: {error}"))?;
        if back[..] != new[..] {
            return Err(format!("wrong bytes in {number} after the limit is gone"));
        }
    }
    Ok(())
}

/// Without this the limit ends the process.
#[expect(unsafe_code, reason = "the standard library has no signals")]
fn ignore_file_size_signal() {
    // SAFETY: no handler is installed.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    assert_ne!(before, libc::SIG_ERR);
}

/// As an ordinary user with that much memory to lock, less than the pool has. With none at all the kernel may refuse the
/// ring as well.
///
/// Failure: under a limit of six frames all were reported as registered, and most of them took the way of a refused
/// request each time. Cause: the kernel registers as many of a list as it can and calls that a success. Fix: one by one.
pub(crate) fn locked_memory(path: &Path, bytes: &str) -> Verdict {
    let limit = bytes.parse().expect("a number of bytes");
    let both = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    let opened = match open_as(path, "ring") {
        Ok(opened) => opened,
        Err(verdict) => return verdict,
    };
    drop(opened);
    setrlimit(Resource::Memlock, both).expect("a limit can be lowered");
    let opened = open(path, &DiskOptions::default()).expect("it opens all the same");
    if let Err(error) = exercise(&opened) {
        return Verdict::Fail(error);
    }
    let report = opened.engine.to_string();
    let registered = u64::from(opened.engine.registered_frames());
    if opened.engine.is_ring() && opened.engine.shortfalls().next().is_none() {
        return Verdict::NotHere("the limit does not bind this user".to_owned());
    }
    let is_told = report.contains("RLIMIT_MEMLOCK");
    let is_used = registered * FRAME_LEN_BYTES <= limit && (registered > 0) == (limit > 0);
    if is_told && is_used {
        Verdict::Pass
    } else {
        Verdict::Fail(format!("{registered} frames under {limit} bytes: {report}"))
    }
}
