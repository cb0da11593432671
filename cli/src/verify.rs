//! `larder verify`: the suite on the stores that the user named.

use std::fs;
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use larder::{Contract, Location, OpenOptions};
use larder_conformance::{Options, Report, Suite, catalogue, explain_failure};
use serde_json::json;

use crate::matrix::{self, Counts};
use crate::{Problem, VerifyArguments, fixture};

/// The stores that are verified when none is named: every embedded backend of this program.
const EMBEDDED: &[&str] = &["mem:"];

pub(crate) fn run(arguments: &VerifyArguments) -> Result<(), Problem> {
    let mut options = Options::new();
    options.profile = arguments.profile;
    options.only = arguments.check.as_deref().map(str::to_ascii_uppercase);
    if let Some(seed) = arguments.seed {
        options.seed = seed;
    }
    check_exists(&options)?;
    let urls: Vec<&str> = match &arguments.urls[..] {
        [] => EMBEDDED.to_vec(),
        urls => urls.iter().map(String::as_str).collect(),
    };
    let mut runs = Vec::new();
    for url in urls {
        let location = Location::parse(url).map_err(|e| Problem::Usage(e.to_string()))?;
        for suite in suites(url, &location, &arguments.contracts)? {
            runs.push((url, suite));
        }
    }
    // The suite reports panics of a store as what they are; the standard hook would print each of them as well.
    std::panic::set_hook(Box::new(|_| {}));
    let bar = progress_bar(&runs, &options, arguments.json);
    let mut done = Vec::new();
    for (url, suite) in &runs {
        bar.set_message(format!("{url} {}", suite.contract()));
        let report = suite.run(&options, |_record| bar.inc(1));
        done.push((*url, report));
    }
    bar.finish_and_clear();
    write_report(arguments, &done)?;
    print(arguments, &done)?;
    judge(&done)
}

/// A check that no contract has is a slip of the hand and not an empty run.
fn check_exists(options: &Options) -> Result<(), Problem> {
    let Some(only) = &options.only else {
        return Ok(());
    };
    if catalogue().iter().any(|it| it.id == only || it.clause == only) {
        return Ok(());
    }
    Err(Problem::Usage(format!(
        "there is no check or clause `{only}`; larder explain CLAUSE lists the checks of a clause"
    )))
}

/// The suites of the contracts that the store offers and the user wants.
fn suites(url: &str, location: &Location, wanted: &[Contract]) -> Result<Vec<Suite>, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Problem::Untested(format!("no runtime: {e}")))?;
    let store = runtime
        .block_on(location.open(&OpenOptions::new()))
        .map_err(|e| Problem::Untested(format!("`{url}` cannot be opened: {e}")))?;
    let offered = store.offers();
    if let Some(missing) = wanted.iter().find(|contract| !offered.contains(contract)) {
        return Err(Problem::Untested(format!("`{url}` does not offer {missing}")));
    }
    let contracts = offered
        .iter()
        .filter(|contract| wanted.is_empty() || wanted.contains(contract));
    Ok(contracts
        .filter_map(|contract| fixture::suite(location, *contract))
        .collect())
}

fn progress_bar(runs: &[(&str, Suite)], options: &Options, json: bool) -> ProgressBar {
    if json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let trials = runs.iter().flat_map(|(_, suite)| suite.trials());
    let count = trials.filter(|trial| options.selects(trial)).count();
    let bar = ProgressBar::new(u64::try_from(count).unwrap_or(0));
    let template = if no_color() {
        "{bar:30} {pos}/{len} {msg}"
    } else {
        "{bar:30.green} {pos}/{len} {msg}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn to_json(done: &[(&str, Report)]) -> serde_json::Value {
    let runs: Vec<_> = done
        .iter()
        .map(|(url, report)| {
            let checks: Vec<_> = report.records.iter().map(|r| r.to_json()).collect();
            json!({ "url": url, "contract": report.contract.name(), "checks": checks })
        })
        .collect();
    json!({ "schema": 1, "runs": runs })
}

fn write_report(arguments: &VerifyArguments, done: &[(&str, Report)]) -> Result<(), Problem> {
    let path = arguments.report.join("report.json");
    let text = format!("{:#}\n", to_json(done));
    fs::create_dir_all(&arguments.report)
        .and_then(|()| fs::write(&path, text))
        .map_err(|e| Problem::Untested(format!("cannot write {}: {e}", path.display())))
}

fn print(arguments: &VerifyArguments, done: &[(&str, Report)]) -> Result<(), Problem> {
    let text = if arguments.json {
        format!("{}\n", to_json(done))
    } else {
        for_people(arguments, done)
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever closed the pipe has read enough.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Problem::Untested(format!("cannot print: {e}")))
        }
        _ => Ok(()),
    }
}

fn for_people(arguments: &VerifyArguments, done: &[(&str, Report)]) -> String {
    let color = io::stdout().is_terminal() && !no_color();
    let mut text = String::new();
    for (url, report) in done {
        text.push_str(&matrix::render(url, report, color));
    }
    let reports: Vec<&Report> = done.iter().map(|(_, report)| report).collect();
    let reasons = matrix::reasons(&reports);
    if !reasons.is_empty() {
        text.push_str("\nwhat did not run, and why:\n");
        text.push_str(&reasons);
    }
    for (url, report) in done {
        for (record, _) in report.failures() {
            let replay = format!(
                "larder verify '{url}' --contract {} --check {} --seed {} --profile {}",
                report.contract,
                record.id,
                record.seed,
                arguments.profile.name()
            );
            text.push('\n');
            text.push_str(&explain_failure(record, &replay).unwrap_or_default());
            text.push('\n');
        }
    }
    let counts = Counts::of(done.iter().flat_map(|(_, report)| &report.records));
    let path = arguments.report.join("report.json");
    text.push_str(&format!("\n{}\nreport: {}\n", counts.line(), path.display()));
    text
}

/// Pending and ignored checks are told and do not count; an inconclusive one leaves the question open.
fn judge(done: &[(&str, Report)]) -> Result<(), Problem> {
    let counts = Counts::of(done.iter().flat_map(|(_, report)| &report.records));
    if counts.fail > 0 {
        return Err(Problem::Violated);
    }
    if counts.inconclusive > 0 {
        let why = format!("{} checks could not tell", counts.inconclusive);
        return Err(Problem::Untested(why));
    }
    if counts.pass == 0 {
        return Err(Problem::Untested("no check ran".into()));
    }
    Ok(())
}
