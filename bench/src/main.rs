//! Larder beside its peers: `cargo xtask bench <name>`.
//!
//! A figure counts when it is a ratio measured side by side: our store and the peer do the same work on the same machine
//! in the same run and take turns round by round, and the figure is the median of the ratios of the rounds, with the
//! least and the greatest beside it. What is measured against whom is one file per table; [`harness`] is what they share.

mod checker;
mod file;
mod harness;
mod s3;
mod sqlite;
mod suite;
mod tiered;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use harness::{Bench, Result};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// The linearizability checker against other checkers.
    Checker,
    /// The frame store against holt and the raw medium.
    File,
    /// The blobs on S3 against other clients of the same server.
    S3,
    /// The stores on SQLite against the same by hand, and against embedded key-value stores.
    Sqlite,
    /// What a run of the conformance suite costs.
    Suite,
    /// The tiered store against its high-volume tier used bare.
    Tiered,
}

#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", about = "Larder beside its peers")]
struct Arguments {
    /// Which table to measure
    bench: Name,
    /// Fewer and smaller rounds of every row, within a minute
    #[arg(long)]
    quick: bool,
    /// Print what is written to the file instead of the table
    #[arg(long)]
    json: bool,
    /// The folder for the results and for the data of stores that need a disk; below `target` if it is not named
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn default_folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .unwrap_or(package)
        .join("target")
        .join("larder")
        .join("bench")
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(answer) => {
            harness::print(&answer);
            ExitCode::SUCCESS
        }
        Err(why) => {
            harness::complain(&format!("bench: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<String> {
    let (name, run): (&str, fn(&mut Bench) -> Result) = match arguments.bench {
        Name::Checker => ("checker", checker::run),
        Name::File => ("file", file::run),
        Name::S3 => ("s3", s3::run),
        Name::Sqlite => ("sqlite", sqlite::run),
        Name::Suite => ("suite", suite::run),
        Name::Tiered => ("tiered", tiered::run),
    };
    let folder = arguments.folder.clone().unwrap_or_else(default_folder);
    let mut bench = Bench::new(name, arguments.quick, &folder)?;
    run(&mut bench)?;
    let json = bench.save()?;
    Ok(if arguments.json { json } else { bench.render() })
}
