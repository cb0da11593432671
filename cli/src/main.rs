//! The program `larder`: tells of a store which clauses of its contract it keeps.
//!
//! Exit codes: 0 everything held, 1 a clause was violated, 2 something could not be tested, 3 the command was wrong,
//! 130 it was interrupted.

mod check;
mod demo;
mod explain;
mod fixture;
mod matrix;
mod places;
mod report;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use larder::Contract;
use larder_conformance::Profile;
use larder_conformance::lin::ModelName;

/// Storage contracts, the backends that keep them, and the suite that proves it.
#[derive(Debug, Parser)]
#[command(name = "larder", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the conformance suite on stores, and print which clauses they keep
    Verify(VerifyArguments),
    /// Judge a recorded history of concurrent calls
    Check(CheckArguments),
    /// Run the suite on a correct store and on a broken one, and leave a report to look at
    Demo(DemoArguments),
    /// Print a clause, its checks, and the broken stores that they find
    Explain {
        /// A clause or a check, such as BM-4 or BM-4.2
        #[arg(value_name = "CLAUSE")]
        id: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArguments {
    /// The stores, such as mem: (the default)
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// Only these contracts: blob-multi, stash, blob-store, high-volume, backend, kv-client, change-log
    #[arg(long = "contract", value_name = "CONTRACT", value_parser = contract)]
    contracts: Vec<Contract>,
    /// Only this check, or the checks of this clause
    #[arg(long, value_name = "ID")]
    check: Option<String>,
    /// Repeat the run of this seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How thorough to be: quick, standard or soak
    #[arg(long, value_name = "PROFILE", default_value = "quick", value_parser = profile)]
    profile: Profile,
    /// Print the report as JSON and nothing else
    #[arg(long)]
    json: bool,
    /// The folder that report.html, report.json and junit.xml are written to
    #[arg(long, value_name = "FOLDER", default_value = "target/larder")]
    report: std::path::PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArguments {
    /// The history as JSON lines, or - for standard input
    #[arg(value_name = "FILE")]
    file: std::path::PathBuf,
    /// What it is judged against: register, kv, cas or map
    #[arg(long, value_name = "MODEL")]
    model: ModelName,
    /// How many calls may be placed in vain before the search gives up
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Print the verdict and the witness as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArguments {
    /// Repeat the run of this seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The folder that the report is written to
    #[arg(long, value_name = "FOLDER", default_value = "target/larder/demo")]
    report: std::path::PathBuf,
}

fn contract(name: &str) -> Result<Contract, String> {
    Contract::by_name(name).ok_or_else(|| {
        let known = Contract::ALL.map(Contract::name).join(", ");
        format!("it must be one of {known}")
    })
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::by_name(name).ok_or_else(|| "it must be one of quick, standard, soak".into())
}

/// Why the program ends other than well.
#[derive(Debug)]
pub(crate) enum Problem {
    /// A clause was violated; the failures are printed already.
    Violated,
    /// Something could not be tested, for this reason.
    Untested(String),
    /// The question stays open; why is printed already.
    Undecided,
    /// The command was wrong.
    Usage(String),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) if !e.use_stderr() => {
            // Help and version are answers, not errors; a closed pipe has read enough.
            drop(e.print());
            return ExitCode::SUCCESS;
        }
        Err(e) => return finish(Err(Problem::Usage(first_line(&e)))),
    };
    finish(match arguments.command {
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Explain { id } => explain::run(&id),
    })
}

/// What clap has to say, in one line.
fn first_line(e: &clap::Error) -> String {
    let text = e.to_string();
    let line = text.lines().next().unwrap_or("the command is wrong");
    let line = line.trim_start_matches("error: ");
    format!("{line} (see larder --help)")
}

/// Prints an answer.
pub(crate) fn answer(text: &str) -> Result<(), Problem> {
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever closed the pipe has read enough.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Problem::Untested(format!("cannot print: {e}")))
        }
        _ => Ok(()),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a program says on standard error why it failed"
)]
fn finish(result: Result<(), Problem>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Problem::Violated) => ExitCode::from(1),
        Err(Problem::Undecided) => ExitCode::from(2),
        Err(Problem::Untested(why)) => {
            eprintln!("larder: {why}");
            ExitCode::from(2)
        }
        Err(Problem::Usage(why)) => {
            eprintln!("larder: {why}");
            ExitCode::from(3)
        }
    }
}
