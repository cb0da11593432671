//! The test binary of a backend: every check is a test of its own.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Arguments, Completion, Failed};

use crate::check::Verdict;
use crate::engine::kill;
use crate::report::{Record, explain_failure};
use crate::run::{Options, Suite, Trial};

/// The body of [`main!`](crate::main). Listing the tests opens no store.
#[must_use]
pub fn main(package: &'static str, suites: Vec<Suite>) -> ExitCode {
    if let Some(code) = victims(|_| suites.clone()) {
        return code;
    }
    let arguments = Arguments::from_args();
    let options = match Options::from_env() {
        Ok(options) => options,
        Err(why) => {
            complain(&why);
            return ExitCode::from(3);
        }
    };
    let is_set = |name| std::env::var(name).is_ok_and(|value| value == "1");
    let strict = is_set("LARDER_STRICT");
    let stops = is_set("LARDER_FAIL_FAST");
    let failed = Arc::new(AtomicBool::new(false));
    let folder = report_folder(package);
    let trials = suites
        .iter()
        .flat_map(Suite::trials)
        .filter(|trial| options.selects(trial))
        .map(|trial| {
            let (trial, options) = (trial.clone(), options.clone());
            let (folder, failed) = (folder.clone(), Arc::clone(&failed));
            libtest_mimic::Trial::ignorable_test(trial.name(), move || {
                if stops && failed.load(Ordering::Relaxed) {
                    return Ok(Completion::ignored_with("another check has failed"));
                }
                let record = trial.run(&options);
                if let Some(folder) = &folder {
                    save(&record, folder);
                }
                let completion = completion(&trial, &record, package, strict);
                failed.fetch_or(completion.is_err(), Ordering::Relaxed);
                completion
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Has to come first in the `main` of a program that runs suites: checks that kill run the program again, as the process
/// that will be killed. [`main!`](crate::main) does this by itself.
///
/// `None` where the program was started by somebody else and goes on as usual. In a victim, `find` gives the suites of a
/// [name](Suite::named), the empty one where they have none, and what comes back is the exit code. Checks that kill are
/// ignored in programs that never called this.
pub fn victims(find: impl FnOnce(&str) -> Vec<Suite>) -> Option<ExitCode> {
    let orders = match kill::orders() {
        None => {
            kill::allow();
            return None;
        }
        Some(Ok(orders)) => orders,
        Some(Err(why)) => {
            complain(&why);
            return Some(ExitCode::from(3));
        }
    };
    let suites = find(&orders.label);
    let mut trials = suites.iter().flat_map(Suite::trials);
    let Some(trial) = trials.find(|trial| orders.is_for(trial.info())) else {
        complain("the check of these orders is not here");
        return Some(ExitCode::from(3));
    };
    let verdict = trial.obey(orders);
    kill::report(&verdict);
    Some(ExitCode::SUCCESS)
}

fn completion(
    trial: &Trial,
    record: &Record,
    package: &str,
    strict: bool,
) -> Result<Completion, Failed> {
    let replay = format!(
        "LARDER_SEED={} LARDER_CHECK={} cargo test -p {package} --test conformance",
        record.seed,
        trial.info().id
    );
    match &record.verdict {
        Verdict::Pass => Ok(Completion::Completed),
        Verdict::Fail(_) => Err(explain_failure(record, &replay).unwrap_or_default().into()),
        Verdict::Inconclusive(why) if strict => Err(format!("inconclusive: {why}").into()),
        Verdict::Inconclusive(why) => Ok(Completion::ignored_with(format!("inconclusive: {why}"))),
        Verdict::Ignored(why) => Ok(Completion::ignored_with(why)),
    }
}

/// `target/larder/conformance/<package>`, wherever this binary's target folder is.
fn report_folder(package: &str) -> Option<PathBuf> {
    let binary = std::env::current_exe().ok()?;
    let target = binary
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())?;
    Some(target.join("larder").join("conformance").join(package))
}

fn save(record: &Record, folder: &std::path::Path) {
    if let Err(e) = record.save(folder) {
        complain(&format!("the record could not be written: {e}"));
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a test binary speaks on standard error"
)]
fn complain(line: &str) {
    eprintln!("larder-conformance: {line}");
}

/// The `main` of a backend's `tests/conformance.rs` (with `harness = false`): the contracts that it offers, each with
/// the fixture that opens it.
///
/// ```text
/// larder_conformance::main!(blob_multi: Place, kv_client: Place);
/// ```
#[macro_export]
macro_rules! main {
    ($($contract:ident: $fixture:ty),+ $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            $crate::harness::main(
                env!("CARGO_PKG_NAME"),
                ::std::vec![$($crate::$contract::suite::<$fixture>()),+],
            )
        }
    };
}
