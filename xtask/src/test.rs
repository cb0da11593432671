//! `cargo xtask test`: every test of the workspace, on a Ceph too where one can be had, or those on Ceph or Garage alone;
//! and one line of counts at the end.

use crate::services::{self, Server};
use crate::{Result, answer, cargo, no_arguments, say};

/// What the lines of test binaries add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// The ignored ones, with their reasons.
    reasons: Vec<String>,
    /// What the failed ones printed, name first, each cut at [`TOLD`] lines.
    failures: Vec<String>,
}

/// As many lines of a failed test are told once more at the end.
const TOLD: usize = 40;

impl Counts {
    fn read(lines: &[String]) -> Self {
        let mut counts = Self::default();
        // Both harnesses print what failed after all tests: `---- name`, the text, and a list of the names.
        let mut told = TOLD;
        for line in lines {
            if line.starts_with("---- ") {
                told = 0;
            } else if line == "failures:" || line.starts_with("test result: ") {
                told = TOLD;
            }
            if told < TOLD {
                told += 1;
                counts.failures.push(line.clone());
            }
            if let Some(result) = line.strip_prefix("test result: ") {
                counts.passed += number_before(result, " passed");
                counts.failed += number_before(result, " failed");
                counts.ignored += number_before(result, " ignored");
            } else if let Some((test, why)) = line.split_once(" ... ignored") {
                // The standard harness writes `ignored, why`, that of the suite `ignored (why)`.
                let why = why.trim_start_matches([',', ' ', '(']);
                let why = why.strip_suffix(')').unwrap_or(why);
                let test = test.trim_end().trim_start_matches("test ");
                counts.reasons.push(format!("{test}: {why}"));
            }
        }
        counts
    }
}

/// The number that stands before `word` in `text`.
fn number_before(text: &str, word: &str) -> usize {
    let before = text.split(word).next().unwrap_or_default();
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// All tests. The bench measures and tests nothing, and its peers take longer to compile than everything else together.
const ALL: [&str; 5] = [
    "test",
    "--workspace",
    "--exclude",
    "larder-bench",
    "--no-fail-fast",
];

/// The tests that do more where there is a Ceph.
const ON_CEPH: [&str; 10] = [
    "test",
    "--package",
    "larder-s3",
    "--test",
    "ceph",
    "--test",
    "ceph_kill",
    "--test",
    "memory",
    "--no-fail-fast",
];

/// Those that do nothing where there is no Garage. Nobody has one by chance, so it is started for them alone.
const ON_GARAGE: [&str; 10] = [
    "test",
    "--package",
    "larder-s3",
    "--test",
    "garage",
    "--test",
    "garage_cluster",
    "--test",
    "garage_conditions",
    "--no-fail-fast",
];

pub(crate) fn run(rest: &[String]) -> Result {
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    let (arguments, server) = match words[..] {
        // One that the environment names is left out as well.
        ["--no-ceph"] => (&ALL[..], Some(Server::none(services::CEPH))),
        // Without one there would be nothing left to test.
        ["--only-ceph"] => (&ON_CEPH[..], Some(Server::start(services::CEPH)?)),
        ["--only-garage"] => (&ON_GARAGE[..], Some(Server::start(services::GARAGE)?)),
        _ => {
            no_arguments("test", rest)?;
            (&ALL[..], ceph())
        }
    };
    let env = server.as_ref().map(Server::env).unwrap_or_default();
    let (lines, success) = cargo::lines(arguments, &env, false)?;
    drop(server);
    let counts = Counts::read(&lines);
    if !counts.reasons.is_empty() {
        answer("\nwhat did not run, and why:");
        for reason in &counts.reasons {
            answer(&format!("  {reason}"));
        }
    }
    // Once more, where a reader of the last page sees them: they stand thousands of lines above.
    if !counts.failures.is_empty() {
        answer("\nwhat failed:");
        for line in &counts.failures {
            answer(&format!("  {line}"));
        }
    }
    let Counts {
        passed,
        failed,
        ignored,
        ..
    } = counts;
    answer(&format!(
        "\nlarder: {passed} passed, {failed} failed, {ignored} ignored"
    ));
    if success && counts.failed == 0 && counts.passed > 0 {
        return Ok(());
    }
    Err("the tests did not pass".into())
}

/// A Ceph to test with; where none can be had, that is said, and the tests that need one are counted as ignored.
fn ceph() -> Option<Server> {
    match Server::start(services::CEPH) {
        Ok(ceph) => Some(ceph),
        Err(why) => {
            say(&why);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_over_binaries_and_what_did_not_run_is_told() {
        let text = "\
test a ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
test kv::seq::KV-8.1_x          ... ignored (needs the power shutdown())
test kv::report::KV-4.9_y          ... ignored (measured: 2 rows)
test slow ... ignored, it takes an hour
test kv::seq::KV-1.1_z ... FAILED

failures:

---- kv::seq::KV-1.1_z ----
KV-1.1: one of two

failures:
    kv::seq::KV-1.1_z

test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let counts = Counts::read(&lines);
        assert_eq!((counts.passed, counts.failed, counts.ignored), (15, 2, 2));
        assert_eq!(
            counts.reasons,
            [
                "kv::seq::KV-8.1_x: needs the power shutdown()",
                "kv::report::KV-4.9_y: measured: 2 rows",
                "slow: it takes an hour"
            ]
        );
        assert_eq!(
            counts.failures,
            ["---- kv::seq::KV-1.1_z ----", "KV-1.1: one of two", ""]
        );
    }
}
