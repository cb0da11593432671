//! `larder verify`: the suite on the stores that the user named.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use larder::{Contract, Location, OpenOptions};
use larder_conformance::{Options, Record, Report, Suite, catalogue, explain_failure, random_seed};

use crate::matrix::{self, Counts};
use crate::report::{Book, Environment, Run, Started};
use crate::{Problem, VerifyArguments, answer, fixture, places};

/// The stores that are verified when none is named: every embedded backend of this program. Files lie beside the report,
/// so that a failure can be replayed by its URL.
fn embedded(report: &Path) -> Result<Vec<String>, Problem> {
    let scratch = report.join("scratch");
    fs::create_dir_all(&scratch)
        .map_err(|e| Problem::Untested(format!("cannot make {}: {e}", scratch.display())))?;
    let place = |name: &str| {
        let path = scratch.join(name).display().to_string();
        path.replace('%', "%25")
            .replace('?', "%3F")
            .replace('&', "%26")
    };
    let tiers = [place("tier.db"), place("tier")].map(|path| path.replace('%', "%25"));
    Ok(vec![
        "mem:".into(),
        format!("sqlite:{}", place("verify.db")),
        format!("file:{}", place("verify")),
        format!(
            "tiered:?high_volume=sqlite:{}&long_term=file:{}",
            tiers[0], tiers[1]
        ),
    ])
}

pub(crate) fn run(arguments: &VerifyArguments) -> Result<(), Problem> {
    let started = Started::now();
    let mut options = Options::new();
    options.profile = arguments.profile;
    options.only = arguments.check.as_deref().map(str::to_ascii_uppercase);
    if let Some(seed) = arguments.seed {
        options.seed = seed;
    }
    check_exists(&options)?;
    let named = !arguments.urls.is_empty();
    let urls = if named {
        arguments.urls.clone()
    } else {
        embedded(&arguments.report)?
    };
    let mut runs = Vec::new();
    for url in &urls {
        let location = Location::parse(url).map_err(|e| Problem::Usage(e.to_string()))?;
        for suite in suites(url, &location, &arguments.contracts, named)? {
            runs.push((url.as_str(), suite));
        }
    }
    places::removed_when_interrupted()?;
    // The suite reports panics of a store as what they are; the standard hook would print each of them as well.
    std::panic::set_hook(Box::new(|_| {}));
    let bar = progress_bar(
        runs.iter().map(|(_, suite)| suite),
        &options,
        arguments.json,
    );
    let mut done = Vec::new();
    for (url, suite) in &runs {
        bar.set_message(format!("{url} {}", suite.contract()));
        done.push(Run {
            store: (*url).to_owned(),
            about: None,
            report: suite.run(&options, |_record| bar.inc(1)),
        });
    }
    bar.finish_and_clear();
    let book = Book {
        title: "Larder conformance report",
        note: None,
        runs: done,
        environment: Environment::of(&started, &options),
        profile: options.profile,
        replay,
    };
    let page = book.write(&arguments.report)?;
    answer(&if arguments.json {
        format!("{}\n", book.to_json())
    } else {
        for_people(&book, &page.display().to_string())
    })?;
    judge(book.counts())
}

fn replay(book: &Book, run: &Run, record: &Record) -> String {
    format!(
        "larder verify '{}' --contract {} --check {} --seed {} --profile {}",
        run.store,
        run.report.contract,
        record.id,
        record.seed,
        book.profile.name()
    )
}

/// A check that no contract has is a slip of the hand and not an empty run.
fn check_exists(options: &Options) -> Result<(), Problem> {
    let Some(only) = &options.only else {
        return Ok(());
    };
    if catalogue()
        .iter()
        .any(|it| it.id == only || it.clause == only)
    {
        return Ok(());
    }
    Err(Problem::Usage(format!(
        "there is no check or clause `{only}`; larder explain CLAUSE lists the checks of a clause"
    )))
}

/// The suites of the contracts that the store offers and the user wants. A store that the user did not name need not
/// offer them all.
fn suites(
    url: &str,
    location: &Location,
    wanted: &[Contract],
    named: bool,
) -> Result<Vec<Suite>, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Problem::Untested(format!("no runtime: {e}")))?;
    // Asked of a place of our own: the one that was named may hold somebody's data.
    let place = location.child(&format!("ask{:016x}", random_seed()));
    let store = runtime
        .block_on(place.open(&OpenOptions::new()))
        .map_err(|e| Problem::Untested(format!("`{url}` cannot be opened: {e}")))?;
    let offered = store.offers();
    let declared: Vec<_> = offered
        .iter()
        .map(|contract| (*contract, store.caps_of(*contract)))
        .collect();
    drop(store);
    drop(place.erase());
    let missing = wanted.iter().find(|contract| !offered.contains(contract));
    if let Some(missing) = missing.filter(|_| named) {
        return Err(Problem::Untested(format!(
            "`{url}` does not offer {missing}"
        )));
    }
    let contracts = declared
        .into_iter()
        .filter(|(contract, _)| wanted.is_empty() || wanted.contains(contract));
    Ok(contracts
        .filter_map(|(contract, caps)| fixture::suite(location, contract, caps))
        .collect())
}

/// A bar on standard error, where somebody sees it.
pub(crate) fn progress_bar<'a>(
    suites: impl Iterator<Item = &'a Suite>,
    options: &Options,
    json: bool,
) -> ProgressBar {
    if json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let trials = suites.flat_map(Suite::trials);
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

fn for_people(book: &Book, page: &str) -> String {
    let color = io::stdout().is_terminal() && !no_color();
    let mut text = String::new();
    for run in &book.runs {
        text.push_str(&matrix::render(&run.store, &run.report, color));
    }
    let reports: Vec<&Report> = book.runs.iter().map(|run| &run.report).collect();
    let reasons = matrix::reasons(&reports);
    if !reasons.is_empty() {
        text.push_str("\nwhat did not run, and why:\n");
        text.push_str(&reasons);
    }
    for run in &book.runs {
        for (record, _) in run.report.failures() {
            let replay = replay(book, run, record);
            text.push('\n');
            text.push_str(&explain_failure(record, &replay).unwrap_or_default());
            text.push('\n');
        }
    }
    text.push_str(&format!("\n{}\nreport: {page}\n", book.counts().line()));
    text
}

/// Ignored checks are told and do not count; an inconclusive one leaves the question open.
fn judge(counts: Counts) -> Result<(), Problem> {
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
