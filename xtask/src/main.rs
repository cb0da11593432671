//! `cargo xtask`: everything that a contributor or CI has to run, one word each.

mod bench;
mod cargo;
mod lint;
mod matrix;
mod mutants;
mod services;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

/// The commands, for people who type none or a wrong one; `tidy` holds the README against them.
pub(crate) const COMMANDS: &[(&str, &str)] = &[
    (
        "test",
        "run every test, doc tests too, and on a Ceph where one can be had; --no-ceph without, --only-ceph and --only-garage just what needs one",
    ),
    (
        "services",
        "up|down ceph|garage: a real S3 server for tests; up installs Ceph where that can be done, install garage builds one",
    ),
    (
        "conformance",
        "[URL…] run the suite on stores, optimized; --all on every embedded backend, for docs/BACKENDS.md",
    ),
    (
        "mutants",
        "[--json] hold the suite against its zoo of broken stores; --profile PROFILE on all of their seeds; --source PACKAGE against changed sources",
    ),
    (
        "bench",
        "<name> [--quick] [--json] measure larder beside its peers, optimized",
    ),
    (
        "lint",
        "fmt, clippy on each member and each feature alone, docs; warnings are errors",
    ),
    (
        "tidy",
        "test the repository itself: who knows whom, file names and lengths, documents",
    ),
    (
        "report-test",
        "look at the HTML report in a headless Chromium, and keep a picture",
    ),
    ("ci", "lint, tidy, test, mutants"),
];

/// A command that did not succeed, and why, in one line.
pub(crate) type Result = std::result::Result<(), String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", &[][..]),
    };
    let result = match command {
        "test" => test::run(rest),
        "services" => services::run(rest),
        "conformance" => conformance(rest),
        "mutants" => mutants::run(rest),
        "bench" => bench::run(rest),
        "lint" => lint::run(rest),
        "tidy" => tidy::run(rest),
        "report-test" => report_test(rest),
        "ci" => ci(rest),
        _ => Err(usage(command)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("xtask: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn ci(rest: &[String]) -> Result {
    lint::run(rest)?;
    tidy::run(rest)?;
    test::run(rest)?;
    mutants::run(rest)
}

fn report_test(rest: &[String]) -> Result {
    no_arguments("report-test", rest)?;
    let test = [
        "test",
        "-p",
        "larder-cli",
        "--test",
        "report",
        "--",
        "--ignored",
    ];
    cargo::run(&test, &[])
}

fn conformance(rest: &[String]) -> Result {
    if let [first, rest @ ..] = rest
        && first == "--all"
    {
        return matrix::run(rest);
    }
    let mut arguments = vec![
        "run",
        "--release",
        "--package",
        "larder-cli",
        "--",
        "verify",
    ];
    arguments.extend(rest.iter().map(String::as_str));
    cargo::run(&arguments, &[])
}

fn usage(command: &str) -> String {
    let mut text = match command {
        "" => "name a command:".to_owned(),
        other => format!("there is no command `{other}`; there are:"),
    };
    for (name, about) in COMMANDS {
        text.push_str(&format!("\n  {name:12} {about}"));
    }
    text
}

/// Refuses arguments that a command would otherwise ignore.
pub(crate) fn no_arguments(command: &str, rest: &[String]) -> Result {
    match rest.first() {
        None => Ok(()),
        Some(argument) => Err(format!("{command} takes no argument `{argument}`")),
    }
}

/// The root of the workspace, wherever the command was typed.
pub(crate) fn root() -> PathBuf {
    let xtask = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().map_or(xtask.clone(), PathBuf::from)
}

#[expect(clippy::print_stderr, reason = "a command says what it does")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

#[expect(clippy::print_stdout, reason = "a command prints its answer")]
pub(crate) fn answer(line: &str) {
    println!("{line}");
}
