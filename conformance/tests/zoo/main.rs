//! The zoo: what the suite is measured with.
//!
//! * `killed::<contract>::<id>`: a broken store. The test passes if a check of the clause that it breaks fails on it,
//!   by an answer; by a panic or a hang only where that is what is wrong with it.
//! * `benign::<contract>::<id>`: a store that is odd and right. The test passes if no check fails on it.
//! * `reference::<contract>`: the store that all the others vary. No check may fail, and none may be at a loss.
//! * `alone::<contract>::<id>`: a broken store that was made for one engine. The test passes if no check fails on it
//!   that goes without this engine. These are there with `LARDER_ZOO_ALONE=1` only, since they run every check.
//! * `lasts::<contract>`: a store in plain files that is right. The test passes if each check that kills, or cuts the power,
//!   passes on it.
//! * `score::ids`: the mutants that the committed score names are still here, and those that are replicas of defects that
//!   were seen in the field.
//!
//! With `LARDER_ZOO_SUMMARY=<file>` the run writes what it found to that file, as JSON. With `LARDER_ZOO_SEEDS=<n>` the
//! odd stores are run on so many seeds, one after the other, from `LARDER_SEED` on; each store makes its own of them.
//! With `LARDER_ZOO_PROFILE=<profile>` a broken store is killed only if it is on all of its seeds, at that profile: what is
//! seen by luck is no proof. Without it, a store that is killed on one seed will do.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_conformance::{
    Contract, Engine, Options, Profile, Record, Suite, Symptom, Trial, Verdict, explain_failure,
    harness,
};
use libtest_mimic::{Arguments, Completion, Failed};
use serde_json::json;

use benign::Benign;
use classes::Class;
use mutants::Mutant;
use reference::lock;

mod benign;
mod classes;
mod mutants;
mod reference;

/// One seed for every run, unless `LARDER_SEED` names another: the zoo asks what the suite can see, and not what it
/// sees by luck.
const SEED: u64 = 20_261_121;

/// How many seeds a mutant may survive before it counts as a survivor; and by the rule of the score, on how many it is run
/// where the machine decides who comes first.
const SEEDS: u32 = 20;

/// By the rule of the score, on how many seeds a mutant is run that is killed by calls one after the other.
const SEEDS_IN_ORDER: u32 = 3;

/// The same where it takes a process that is killed at the right moment, of which a seed has only a few.
const SEEDS_OF_KILLS: u32 = 100;

/// The ids that have to be killed. One that is gone has to leave the list by a decision, not by an accident.
const SCORE: &str = include_str!("../../mutation-score.json");

/// What has been found so far.
#[derive(Default)]
struct Found {
    /// What killed each mutant, or nothing.
    killers: BTreeMap<&'static str, Option<Killer>>,
    /// By the rule of the score, those that were not killed on all of their seeds.
    missed: BTreeMap<&'static str, Rate>,
    benign_passed: usize,
    benign_total: usize,
    /// How many times a legal oddity was run through its whole suite, and what each check took of that time.
    benign_runs: usize,
    benign_took: BTreeMap<&'static str, Duration>,
}

/// The check that killed a mutant, and on how many seeds it was run for that.
#[derive(Clone, Copy)]
struct Killer {
    check: &'static str,
    seeds: u32,
}

/// On how many seeds a mutant was killed, of those it was run on.
#[derive(Clone, Copy)]
struct Rate {
    killed: u32,
    of: u32,
}

impl Rate {
    /// Whether that is enough for the score: on all, where one in twenty may be missed at quick.
    fn is_met(self, profile: Profile) -> bool {
        let missed = self.of - self.killed;
        missed == 0 || profile == Profile::Quick && missed * 20 <= self.of
    }
}

/// The stores that a process which is to be killed may have to open.
fn named(name: &str) -> Vec<Suite> {
    let mutant = mutants::all().into_iter().find(|it| it.id == name);
    let lasting = lasting().into_iter().find(|(it, _)| *it == name);
    let suite = mutant.map(|mutant| (mutant.suite)());
    suite
        .or(lasting.map(|(_, suite)| suite))
        .into_iter()
        .collect()
}

/// The stores in plain files that are right.
fn lasting() -> [(&'static str, Suite); 8] {
    use reference::files::{self, CAPS, CutFlaw, Flaw, FrameFlaw, KvFlaw};
    use reference::files::{LogFlaw, RowFlaw, SlotFlaw};
    let frames = FrameFlaw::Files(Flaw::None);
    let rows = RowFlaw::Files(Flaw::None);
    [
        ("blob_multi", files::blob_multi(CAPS, Flaw::None)),
        ("blob_store", files::blob_store(CAPS, frames)),
        (
            "blob_store_with_a_log",
            files::frame_log(CAPS, CutFlaw::None),
        ),
        (
            "blob_store_with_slots",
            files::frame_slots(CAPS, SlotFlaw::None),
        ),
        ("stash", files::stash(CAPS, rows)),
        ("backend", files::backend(CAPS, Flaw::None)),
        (
            "kv_client",
            files::kv_client(CAPS, KvFlaw::Files(Flaw::None)),
        ),
        (
            "change_log",
            files::change_log(CAPS, LogFlaw::Files(Flaw::None)),
        ),
    ]
}

fn main() -> ExitCode {
    if let Some(code) = harness::victims(named) {
        return code;
    }
    for name in ["LARDER_SEED", "LARDER_ZOO_SEEDS"] {
        if variable(name).is_some() && number(name).is_none() {
            complain(&format!("{name} is no number"));
            return ExitCode::from(3);
        }
    }
    let rule = variable("LARDER_ZOO_PROFILE").map(|name| Profile::by_name(&name));
    if rule == Some(None) {
        complain("LARDER_ZOO_PROFILE: expected quick, standard or soak");
        return ExitCode::from(3);
    }
    let rule = rule.flatten();
    let mut arguments = Arguments::from_args();
    // Most of a run is waiting.
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    arguments.test_threads.get_or_insert(2 * cores);
    let found = Arc::new(Mutex::new(Found::default()));
    let mutants: Vec<_> = mutants::all().into_iter().map(Arc::new).collect();
    let mut trials = vec![libtest_mimic::Trial::test("score::ids", score_ids)];
    for benign in benign::references() {
        let name = format!("reference::{}", module(benign.contract));
        trials.push(libtest_mimic::Trial::test(name, move || {
            holds(&benign, true, &options(), |_| {})
        }));
    }
    for benign in benign::all() {
        let name = format!("benign::{}::{}", module(benign.contract), benign.id);
        let found = Arc::clone(&found);
        trials.push(libtest_mimic::Trial::test(name, move || {
            let held = holds_on_all_seeds(&benign, &found);
            let mut found = lock(&found);
            found.benign_total += 1;
            found.benign_passed += usize::from(held.is_ok());
            held
        }));
    }
    for (name, suite) in lasting() {
        // The process that is killed finds the store by its name.
        let suite = suite.named(name);
        let name = format!("lasts::{name}");
        trials.push(libtest_mimic::Trial::test(name, move || lasts(&suite)));
    }
    for mutant in &mutants {
        let name = format!("killed::{}::{}", module(mutant.contract), mutant.id);
        let (mutant, found) = (Arc::clone(mutant), Arc::clone(&found));
        trials.push(libtest_mimic::Trial::ignorable_test(name, move || {
            if let Some(why) = mutant.awaits.and_then(|engine| cannot(&mutant, engine)) {
                return Ok(Completion::ignored_with(why));
            }
            let killed = match rule {
                Some(profile) => kill_by_rule(&mutant, profile, &found),
                None => kill(&mutant),
            };
            let killer = killed.as_ref().ok().copied();
            lock(&found).killers.insert(mutant.id, killer);
            killed.map(|_| Completion::Completed)
        }));
    }
    if variable("LARDER_ZOO_ALONE").is_some() {
        for mutant in &mutants {
            let Some(engine) = mutant.awaits else {
                continue;
            };
            let name = format!("alone::{}::{}", module(mutant.contract), mutant.id);
            let mutant = Arc::clone(mutant);
            trials.push(libtest_mimic::Trial::test(name, move || {
                alone(&mutant, engine)
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(path) = variable("LARDER_ZOO_SUMMARY")
        && !arguments.list
        && let Err(e) = std::fs::write(&path, summary(&lock(&found), &mutants).to_string())
    {
        complain(&format!("the summary could not be written: {e}"));
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn module(contract: Contract) -> String {
    contract.name().replace('-', "_")
}

/// What the environment says under that name, unless it is empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn options() -> Options {
    let mut options = Options::new();
    options.profile = Profile::Quick;
    options.seed = number("LARDER_SEED").unwrap_or(SEED);
    options
}

/// The number that the environment gives under that name. `main` has looked whether it is one.
fn number(name: &str) -> Option<u64> {
    variable(name).and_then(|value| value.parse().ok())
}

/// Why the engine that it takes to see the mutant cannot run here, if it cannot: no check of its own clauses that needs
/// this engine came to a verdict.
fn cannot(mutant: &Mutant, engine: Engine) -> Option<String> {
    if engine != Engine::Power {
        return None;
    }
    let suite = (mutant.suite)();
    let is_own = |trial: &&Trial| {
        let info = trial.info();
        mutant.is_about(info.clause) && info.engines.contains(&engine)
    };
    let mut why = None;
    for trial in suite.trials().iter().filter(is_own) {
        match trial.run(&options()).verdict {
            Verdict::Ignored(reason) => why = Some(reason),
            _ => return None,
        }
    }
    why
}

/// Whether no check that kills, or cuts the power, has anything against the store.
fn lasts(suite: &Suite) -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for trial in suite.trials() {
        let engines = trial.info().engines;
        let is_strict = engines.contains(&Engine::Kill);
        if !is_strict && !engines.contains(&Engine::Power) {
            continue;
        }
        let record = trial.run(&options());
        let is_fine = match record.verdict {
            Verdict::Pass => true,
            // Not every machine can cut power.
            Verdict::Ignored(_) => !is_strict,
            _ => false,
        };
        if !is_fine {
            let told = explain_failure(&record, "run the zoo again");
            let reason = record.verdict.reason().unwrap_or_default();
            wrong.push(told.unwrap_or(format!("{}: {reason}", record.id)));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(wrong.join("\n\n").into())
}

/// A failure by which a mutant counts as killed: by an answer that the clause does not allow, or by none, or a panic, where
/// that is what is wrong with it.
fn kills(mutant: &Mutant, record: &Record) -> bool {
    let Verdict::Fail(failure) = &record.verdict else {
        return false;
    };
    let seen = match failure.symptom {
        Symptom::Answer | Symptom::Late => true,
        Symptom::Hang => mutant.hangs,
        Symptom::Panic => mutant.panics,
        _ => false,
    };
    seen && mutant.is_about(record.clause)
}

/// The check that kills the mutant. Checks of its own clauses are run first and are all that count; the others are run
/// only to tell what was seen of a mutant that survived.
///
/// A defect that shows only where calls meet need not show on the first seed; each has a few.
fn kill(mutant: &Mutant) -> Result<Killer, Failed> {
    let mut options = options();
    let seeds = match mutant.awaits {
        Some(Engine::Kill) => SEEDS_OF_KILLS,
        _ => SEEDS,
    };
    for nth in 1..seeds {
        if let Ok(check) = kill_on(mutant, &options, true, None) {
            return Ok(Killer { check, seeds: nth });
        }
        options.seed = options.seed.wrapping_add(1);
    }
    let check = kill_on(mutant, &options, false, None)?;
    Ok(Killer { check, seeds })
}

/// The same by the rule of the score: on all of its seeds.
fn kill_by_rule(mutant: &Mutant, profile: Profile, found: &Mutex<Found>) -> Result<Killer, Failed> {
    // The check that takes the least to kill it is asked first.
    let quick = kill(mutant).ok().map(|killer| killer.check);
    let mut options = options();
    options.profile = profile;
    let mut rate = Rate { killed: 0, of: 0 };
    let mut of = SEEDS_IN_ORDER;
    let mut first = None;
    let mut survived = None;
    while rate.of < of {
        rate.of += 1;
        match kill_on(mutant, &options, true, quick) {
            Ok(check) => {
                rate.killed += 1;
                first.get_or_insert(Killer {
                    check,
                    seeds: rate.of,
                });
                if !is_in_order(mutant, check) {
                    of = SEEDS;
                }
            }
            Err(told) => {
                of = SEEDS;
                survived = Some(told);
            }
        }
        options.seed = options.seed.wrapping_add(1);
    }
    if rate.killed < rate.of {
        lock(found).missed.insert(mutant.id, rate);
    }
    match (first, survived) {
        (Some(killer), _) if rate.is_met(profile) => Ok(killer),
        (_, told) => {
            let told = told.unwrap_or_else(Failed::without_message);
            let told = told.message().unwrap_or_default();
            let Rate { killed, of } = rate;
            Err(format!("killed on {killed} of {of} seeds; on another one it {told}").into())
        }
    }
}

/// Whether a check makes its calls one after the other, so that the machine has no say in what it sees.
fn is_in_order(mutant: &Mutant, check: &str) -> bool {
    let suite = (mutant.suite)();
    let info = suite
        .trials()
        .iter()
        .map(Trial::info)
        .find(|info| info.id == check);
    let in_order = |engine: &Engine| matches!(engine, Engine::Sequential | Engine::Model);
    info.is_some_and(|info| info.engines.iter().all(in_order))
}

/// The check that kills a mutant on one seed, `first` before the others.
fn kill_on(
    mutant: &Mutant,
    options: &Options,
    own_only: bool,
    first: Option<&str>,
) -> Result<&'static str, Failed> {
    let suite = (mutant.suite)();
    let rank = |trial: &Trial| match trial.info().clause {
        clause if clause == mutant.breaks => 0,
        clause if mutant.is_about(clause) => 1,
        _ => 2,
    };
    let mut trials: Vec<_> = suite.trials().iter().collect();
    trials.sort_by_key(|trial| (first != Some(trial.info().id), rank(trial)));
    trials.retain(|trial| !own_only || rank(trial) < 2);
    let mut seen = Vec::new();
    for trial in trials {
        let record = trial.run(options);
        if kills(mutant, &record) {
            return Ok(record.id);
        }
        if rank(trial) < 2 || matches!(record.verdict, Verdict::Fail(_)) {
            let reason = record.verdict.reason().unwrap_or_default();
            seen.push(format!(
                "  {} {}: {reason}",
                record.id,
                record.verdict.name()
            ));
        }
    }
    let Mutant {
        about,
        breaks,
        also,
        ..
    } = mutant;
    Err(format!(
        "survived: {about}\nbreaks {breaks}, also {also:?}; what was seen:\n{}",
        seen.join("\n")
    )
    .into())
}

/// Whether no check fails that goes without `engine`.
fn alone(mutant: &Mutant, engine: Engine) -> Result<(), Failed> {
    let suite = (mutant.suite)();
    let options = options();
    let is_partial = matches!(engine, Engine::Kill | Engine::Power);
    let others = suite
        .trials()
        .iter()
        .filter(|trial| !trial.info().engines.contains(&engine))
        // A store in plain files does no more than what its clauses are about.
        .filter(|trial| !is_partial || mutant.is_about(trial.info().clause));
    let seen: Vec<_> = others
        .map(|trial| trial.run(&options))
        .filter(|record| matches!(record.verdict, Verdict::Fail(_)))
        .map(|record| {
            let reason = record.verdict.reason().unwrap_or_default();
            format!("  {}: {reason}", record.id)
        })
        .collect();
    if seen.is_empty() {
        return Ok(());
    }
    let name = engine.name();
    Err(format!("seen without the {name} engine:\n{}", seen.join("\n")).into())
}

/// Whether no check fails, on as many seeds as the environment asks for.
fn holds_on_all_seeds(benign: &Benign, found: &Mutex<Found>) -> Result<(), Failed> {
    for run in 0..number("LARDER_ZOO_SEEDS").unwrap_or(1) {
        let mut options = options();
        let number = options.seed.wrapping_add(run);
        options.seed = seed_of(number, benign);
        let count = |record: &Record| {
            *lock(found).benign_took.entry(record.id).or_default() += record.took;
        };
        holds(benign, false, &options, count).map_err(|e| {
            let told = e.message().unwrap_or_default();
            format!("with LARDER_SEED={number}:\n{told}")
        })?;
        lock(found).benign_runs += 1;
    }
    Ok(())
}

/// A store's own seed, so that as many stores on one seed are not the same calls over and over.
fn seed_of(number: u64, benign: &Benign) -> u64 {
    let name = format!("{} {} {number}", benign.contract.name(), benign.id);
    reference::files::hash(name.as_bytes())
}

/// Whether no check fails; and, if `strict`, whether each comes to a verdict.
fn holds(
    benign: &Benign,
    strict: bool,
    options: &Options,
    progress: impl FnMut(&Record),
) -> Result<(), Failed> {
    let report = (benign.suite)().run(options, progress);
    let wrong: Vec<_> = report
        .records
        .iter()
        .filter_map(|record| match &record.verdict {
            Verdict::Fail(_) => explain_failure(record, "run the zoo again"),
            Verdict::Inconclusive(why) if strict => {
                Some(format!("{} could not tell: {why}", record.id))
            }
            _ => None,
        })
        .collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n\n").into())
    }
}

/// Whether every mutant that the score names is here. Whether it is killed is its own test.
fn score_ids() -> Result<(), Failed> {
    let score: serde_json::Value = serde_json::from_str(SCORE)?;
    let here: BTreeSet<_> = mutants::all().iter().map(|mutant| mutant.id).collect();
    let ids = score["killed"]
        .as_array()
        .ok_or("no list of ids named `killed`")?;
    let replicas = classes::REPLICAS.iter().flat_map(|(_, ids)| ids.iter());
    let gone: Vec<_> = ids
        .iter()
        .map(|id| id.as_str().unwrap_or("what is no text"))
        .chain(replicas.copied())
        .filter(|id| !here.contains(id))
        .collect();
    if gone.is_empty() {
        Ok(())
    } else {
        Err(format!("gone: {}", gone.join(", ")).into())
    }
}

fn summary(found: &Found, mutants: &[Arc<Mutant>]) -> serde_json::Value {
    let survived = |mutant: &&Arc<Mutant>| matches!(found.killers.get(mutant.id), Some(None));
    let survivors = mutants.iter().filter(survived).map(|mutant| {
        json!({
            "id": mutant.id,
            "contract": mutant.contract.name(),
            "breaks": mutant.breaks,
            "about": mutant.about,
        })
    });
    let killed = found
        .killers
        .iter()
        .filter_map(|(id, killer)| Some((*id, (*killer)?)));
    let killers: BTreeMap<_, _> = killed.clone().map(|(id, it)| (id, it.check)).collect();
    let by_luck: BTreeMap<_, _> = killed
        .filter(|(_, it)| it.seeds > 1)
        .map(|(id, it)| (id, it.seeds))
        .collect();
    let missed = found.missed.iter();
    let missed: BTreeMap<_, _> = missed
        .map(|(id, Rate { killed, of })| (id, [killed, of]))
        .collect();
    let took = found.benign_took.iter();
    let seconds: BTreeMap<_, _> = took.map(|(id, took)| (id, took.as_secs_f64())).collect();
    json!({
        "schema": 1,
        "killed": killers.len(),
        "total": found.killers.len(),
        "benign_passed": found.benign_passed,
        "benign_total": found.benign_total,
        "benign_runs": found.benign_runs,
        "benign_seconds": seconds,
        "survivors": survivors.collect::<Vec<_>>(),
        "killers": killers,
        "seeds": by_luck,
        "missed": missed,
        "classes": classes(found, mutants),
        "replicas": replicas(found),
    })
}

/// How many of each class there are in each column, how many of them were killed, and how many there are to be.
fn classes(found: &Found, mutants: &[Arc<Mutant>]) -> serde_json::Value {
    let count = |class: Class, column: usize| {
        let here = mutants.iter().filter(|mutant| {
            Class::of(mutant) == class && classes::column(mutant.contract) == column
        });
        let killed = here
            .clone()
            .filter(|mutant| matches!(found.killers.get(mutant.id), Some(Some(_))));
        json!([killed.count(), here.count(), class.goals()[column]])
    };
    let rows = classes::CLASSES.iter().map(|class| {
        let counts: Vec<_> = (0..classes::COLUMNS.len())
            .map(|column| count(*class, column))
            .collect();
        json!({"class": class.name(), "counts": counts})
    });
    json!({"columns": classes::COLUMNS, "rows": rows.collect::<Vec<_>>()})
}

/// Where each defect was seen, and whether all that have it were killed.
fn replicas(found: &Found) -> serde_json::Value {
    let replicas = classes::REPLICAS.iter().map(|(seen, ids)| {
        let are_killed = !ids.is_empty()
            && ids
                .iter()
                .all(|id| matches!(found.killers.get(id), Some(Some(_))));
        json!({"seen": seen, "killed": are_killed})
    });
    replicas.collect()
}

#[expect(
    clippy::print_stderr,
    reason = "a test binary speaks on standard error"
)]
fn complain(line: &str) {
    eprintln!("zoo: {line}");
}
