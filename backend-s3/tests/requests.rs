//! How many requests each check makes on a server: a table, and a bound for each contract.
//!
//! This program is the server, which counts, and starts itself once more to run the checks, one after the other. So a
//! check that kills processes is counted with what those ask for.

mod real;
mod server;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use larder_conformance::{
    BoxError, Engine, Options, Profile, Suite, Verdict, backend, blob_multi, harness, high_volume,
};
use larder_traits::Durability;
use libtest_mimic::{Arguments, Completion, Trial};

use real::{Rows, World};
use server::{ACCESS_KEY, SECRET_KEY, Server};

/// How often a contract may ask at the quick profile: a little more than the greatest number that was measured.
const QUICK_REQUESTS_MAX: u64 = 26_000;

/// The server of this program, with the settings of a real one.
struct Counted;

impl real::Server for Counted {
    const NAME: &'static str = "counted";
    const VARIABLE: &'static str = "LARDER_TEST_S3_COUNTED";
    const ACCESS_KEY: &'static str = ACCESS_KEY;
    const SECRET_KEY: &'static str = SECRET_KEY;
    const DURABILITY: Durability = Durability::Power;
}

fn suites() -> Vec<Suite> {
    vec![
        blob_multi::suite::<World<Counted>>(),
        backend::suite::<World<Counted>>(),
        high_volume::suite::<Rows<Counted>>(),
    ]
}

/// Runs the checks, and tells of each that it is over.
fn run_checks() -> Result<(), BoxError> {
    let options = Options::from_env()?;
    let mut answers = std::io::stdin().lines();
    for suite in suites() {
        for trial in suite.trials().iter().filter(|it| options.selects(it)) {
            let record = trial.run(&options);
            // Where chance or time has a say, a busy machine may leave it open; where nothing has, something is wrong.
            let is_open = matches!(record.verdict, Verdict::Inconclusive(_));
            let is_plain = record.engines == [Engine::Sequential];
            if matches!(record.verdict, Verdict::Fail(_)) || is_open && is_plain {
                let why = record.verdict.reason().unwrap_or_default();
                return Err(format!("{} did not pass: {why}", record.id).into());
            }
            let mut output = std::io::stdout();
            let verdict = record.verdict.name();
            writeln!(output, "{} {} {verdict}", record.contract.name(), record.id)?;
            output.flush()?;
            answers.next().ok_or("nobody counts any more")??;
        }
    }
    Ok(())
}

/// One check, and what it asked for.
struct Count {
    contract: String,
    check: String,
    requests: u64,
}

async fn count() -> Result<Vec<Count>, BoxError> {
    let server = Server::start().await?;
    let mut checks = Command::new(std::env::current_exe()?)
        .env(<Counted as real::Server>::VARIABLE, server.endpoint())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut answer = checks.stdin.take().ok_or("it has an input")?;
    let ended = BufReader::new(checks.stdout.take().ok_or("it has an output")?).lines();
    let counting = tokio::task::spawn_blocking(move || -> Result<Vec<Count>, BoxError> {
        let (mut counts, mut before) = (Vec::new(), 0);
        for line in ended {
            let line = line?;
            let (contract, check) = line.split_once(' ').ok_or("a contract and a check")?;
            let all = server.requests();
            counts.push(Count {
                contract: contract.to_owned(),
                check: check.to_owned(),
                requests: all - before,
            });
            before = all;
            writeln!(answer)?;
        }
        Ok(counts)
    });
    let counts = counting.await??;
    if checks.wait()?.success() {
        Ok(counts)
    } else {
        Err("the checks came to no end".into())
    }
}

/// Prints the table, and fails where a contract asks too often.
fn table() -> Result<(), BoxError> {
    let bound = match Options::from_env()?.profile {
        Profile::Quick => QUICK_REQUESTS_MAX,
        _ => u64::MAX,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut counts = runtime.block_on(count())?;
    counts.sort_by_key(|it| std::cmp::Reverse(it.requests));
    let (mut table, mut too_many) = (String::new(), String::new());
    for suite in suites() {
        let contract = suite.contract().name();
        let of_contract = || counts.iter().filter(|it| it.contract == contract);
        let sum: u64 = of_contract().map(|it| it.requests).sum();
        writeln!(table, "{sum:7} {contract}")?;
        if sum > bound {
            write!(too_many, "{contract} asks {sum} times; ")?;
        }
        for count in of_contract() {
            writeln!(table, "{:7}   {}", count.requests, count.check)?;
        }
    }
    write!(std::io::stderr(), "{table}")?;
    if too_many.is_empty() {
        Ok(())
    } else {
        Err(format!("{too_many}and {bound} times would be bearable").into())
    }
}

fn main() -> ExitCode {
    if let Some(code) = harness::victims(|_| suites()) {
        return code;
    }
    if !<Counted as real::Server>::endpoints().is_empty() {
        return match run_checks() {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                drop(writeln!(std::io::stderr(), "{e}"));
                ExitCode::FAILURE
            }
        };
    }
    let arguments = Arguments::from_args();
    let is_meant = arguments.ignored || arguments.include_ignored;
    let trial = Trial::ignorable_test("no_contract_asks_too_often", move || {
        if !is_meant {
            let why = "it takes minutes: `cargo test -p larder-s3 --test requests -- --ignored`";
            return Ok(Completion::ignored_with(why));
        }
        let counted = table().map(|()| Completion::Completed);
        counted.map_err(|e| e.to_string().into())
    });
    let trial = trial.with_ignored_flag(arguments.ignored);
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}
