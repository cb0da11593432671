//! A filter on system calls that takes io_uring away, before or after the disk was opened.

use std::path::Path;
use std::ptr;

use larder_file::disk::{DiskOptions, open};
use libtest_mimic::Trial;

use crate::child::{self, Verdict, exercise, open_as};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        child::trial("filter::no_ring_is_made", "filter setup-eperm"),
        child::trial("filter::the_call_is_hidden", "filter setup-enosys"),
        child::trial("filter::nothing_is_registered", "filter register"),
        child::trial("filter::an_open_ring_is_cut_off", "filter enter"),
    ]
}

pub(crate) fn case(path: &Path, what: &str) -> Verdict {
    // Whether there is a ring to take away.
    match open_as(path, "ring") {
        Ok(opened) => drop(opened),
        Err(verdict) => return verdict,
    }
    let (call, errno) = match what {
        "setup-eperm" => (libc::SYS_io_uring_setup, libc::EPERM),
        "setup-enosys" => (libc::SYS_io_uring_setup, libc::ENOSYS),
        "register" => (libc::SYS_io_uring_register, libc::EPERM),
        _ => (libc::SYS_io_uring_enter, libc::EPERM),
    };
    if what == "enter" {
        return cut_off(path, call, errno);
    }
    if let Err(why) = deny(call, errno) {
        return Verdict::NotHere(why);
    }
    let opened = open(path, &DiskOptions::default()).expect("it opens all the same");
    let report = opened.engine.to_string();
    if opened.engine.is_ring() || !report.contains("seccomp") {
        return Verdict::Fail(format!("it says: {report}"));
    }
    exercise(&opened).into()
}

/// The ring is used first, so that it has memory registered and completions behind it.
fn cut_off(path: &Path, call: libc::c_long, errno: i32) -> Verdict {
    let opened = match open_as(path, "ring") {
        Ok(opened) => opened,
        Err(verdict) => return verdict,
    };
    if let Err(why) = exercise(&opened) {
        return Verdict::Fail(format!("before: {why}"));
    }
    if let Err(why) = deny(call, errno) {
        return Verdict::NotHere(why);
    }
    if let Err(why) = exercise(&opened) {
        return Verdict::Fail(why);
    }
    let report = opened.engine.to_string();
    if opened.engine.is_ring() || !report.contains("no io_uring any more") {
        return Verdict::Fail(format!("it says: {report}"));
    }
    Verdict::Pass
}

/// Has one system call fail from now on, in this thread.
#[expect(unsafe_code, reason = "the standard library has no such filters")]
fn deny(call: libc::c_long, errno: i32) -> Result<(), String> {
    let number = u32::try_from(call).expect("system calls have small numbers");
    let errno = u32::try_from(errno).expect("error numbers are positive");
    let code = |code: u32| u16::try_from(code).expect("codes have sixteen bits");
    let step = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let mut steps = [
        // The number of the call is what the record of a call begins with.
        step(code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), 0),
        libc::sock_filter {
            jf: 1,
            ..step(code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K), number)
        },
        step(
            code(libc::BPF_RET | libc::BPF_K),
            libc::SECCOMP_RET_ERRNO | errno,
        ),
        step(code(libc::BPF_RET | libc::BPF_K), libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(steps.len()).expect("four steps"),
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: this call takes numbers only.
    let promised = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if promised != 0 {
        return Err("a filter cannot be installed".to_owned());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program is read during the call only, and is as long as it says.
    let outcome = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, ptr::from_ref(&program)) };
    match outcome {
        0 => Ok(()),
        _ => Err("this kernel has no filters".to_owned()),
    }
}
