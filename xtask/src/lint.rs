//! `cargo xtask lint`: the form of the code. Warnings are errors here, and only here.

use crate::{Result, cargo, no_arguments, tidy};

/// Each feature of the facade is checked alone: together they hide what one of them lacks.
const FACADE_FEATURES: &[&str] = &["", "mem", "sqlite", "file", "s3", "tiered"];

pub(crate) fn run(rest: &[String]) -> Result {
    no_arguments("lint", rest)?;
    cargo::run(&["fmt", "--all", "--check"], &[])?;
    for member in tidy::members()? {
        let name = &member.package;
        cargo::run(
            &[
                "clippy",
                "-q",
                "-p",
                name,
                "--all-targets",
                "--",
                "-Dwarnings",
            ],
            &[],
        )?;
    }
    for features in FACADE_FEATURES {
        cargo::run(
            &[
                "clippy",
                "-q",
                "-p",
                "larder",
                "--no-default-features",
                "--features",
                features,
                "--",
                "-Dwarnings",
            ],
            &[],
        )?;
    }
    cargo::run(
        &["doc", "-q", "--workspace", "--no-deps"],
        &[("RUSTDOCFLAGS", "-Dwarnings")],
    )
}
