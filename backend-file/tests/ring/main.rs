//! The disk under what a process meets in the world: signals, limits, a full medium, a filter on system calls.
//!
//! Most of it is bound to a whole process, so each such case runs in a process of its own, started from this program.
//! What this machine cannot show is reported as ignored, with the reason.

#![cfg_attr(
    not(target_os = "linux"),
    expect(unused, reason = "all of this is Linux")
)]

use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod full;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod storm;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    if let Some(code) = child::run() {
        return code;
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = [
        storm::trials(),
        limits::trials(),
        filter::trials(),
        full::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    ExitCode::SUCCESS
}
