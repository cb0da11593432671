//! The test binary of a backend: every check is a test of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed};

use crate::check::Verdict;
use crate::report::{Record, explain_failure};
use crate::run::{Options, Suite, Trial};

/// The body of [`main!`](crate::main). Listing the tests opens no store.
#[must_use]
pub fn main(package: &'static str, suites: Vec<Suite>) -> ExitCode {
    let arguments = Arguments::from_args();
    let options = match Options::from_env() {
        Ok(options) => options,
        Err(why) => {
            complain(&why);
            return ExitCode::from(3);
        }
    };
    let strict = std::env::var("LARDER_STRICT").is_ok_and(|value| value == "1");
    let folder = report_folder(package);
    let trials = suites
        .iter()
        .flat_map(Suite::trials)
        .filter(|trial| options.selects(trial))
        .map(|trial| {
            let (trial, options) = (trial.clone(), options.clone());
            let folder = folder.clone();
            libtest_mimic::Trial::ignorable_test(trial.name(), move || {
                let record = trial.run(&options);
                if let Some(folder) = &folder {
                    save(&record, folder);
                }
                completion(&trial, &record, package, strict)
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
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
        Verdict::Pending(engine) => Ok(Completion::ignored_with(format!(
            "pending: the {} engine is not built",
            engine.name()
        ))),
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
