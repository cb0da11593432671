//! The linearizability checker against the two others that a Rust project finds: the search of `todc-utils` and the
//! tester of `stateright`.
//!
//! Everybody gets the same histories of one key, in the form they want, and only the judging is timed, in CPU time of the
//! one thread that it needs. Ours makes its witness within that time, the others answer yes or no. A peer that has not answered within its budget is stopped,
//! and what it used counts as its time: such a ratio is a lower bound. Every answer that a peer does give must be ours.

mod histories;
mod peers;

use std::time::Duration;

use histories::Dice;
use larder_conformance::lin::{History, Limits, ModelName, Verdict, check};
use peers::{Budget, StaterightHistory, TodcHistory};

use crate::harness::{Bench, Contender, Figure, OURS, Ratio, Result, Sample, Unit, Work};

const TODC: &str = "todc-utils";
const STATERIGHT: &str = "stateright";

pub(crate) fn run(bench: &mut Bench) -> Result {
    let mut dice = Dice::seeded(7);
    for per_client in [125, 1000] {
        against_todc(bench, &mut dice, per_client, false)?;
        against_todc(bench, &mut dice, per_client, true)?;
    }
    against_stateright(bench, &mut dice, 16)?;
    against_stateright(bench, &mut dice, 5)?;
    growth(bench, &mut dice)
}

/// Long histories in which every outcome is known; `todc-utils` knows no others.
fn against_todc(bench: &mut Bench, dice: &mut Dice, per_client: usize, bad: bool) -> Result {
    const CLIENTS: u32 = 8;
    // Its memo keeps the whole history per configuration, hence the second limit.
    let (seconds, calls_max) = if per_client > 500 {
        (bench.either(20, 3), 60_000)
    } else {
        (bench.either(10, 1), 400_000)
    };
    let budget = Budget::new(Duration::from_secs(seconds), calls_max);
    let rounds = bench.either(15, 5);
    let mut all: Vec<(History, Option<TodcHistory>)> = Vec::new();
    for _ in 0..rounds {
        let mut operations = histories::good(dice, CLIENTS, per_client, 0);
        if bad {
            let half = operations.len() / 2;
            histories::corrupt(dice, &mut operations, half);
        }
        all.push((
            histories::ours(&operations),
            Some(peers::for_todc(&operations)),
        ));
    }
    let shape = if bad { "one corruption" } else { "good" };
    let name = format!("{CLIENTS} clients x {per_client} operations, {shape}");
    let goal = if bad { 3.0 } else { 30.0 };
    let work = Work::new(&name, Unit::MillisecondsEach)
        .rounds(rounds)
        .cold()
        .goal(TODC, goal);
    let (ours, theirs): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let mut theirs = theirs;
    let mut verdicts = Verdicts::default();
    // The search takes its history apart, so each can be judged once.
    let mut answers: Vec<Option<bool>> = vec![None; rounds];
    warm(&ours[0])?;
    bench.compare(
        &work,
        vec![
            Contender::new(OURS, |round| {
                Sample::of_computing(1, || is_linearizable(&ours[round]).map(|_| ()))
            }),
            Contender::new(TODC, |round| {
                let history = theirs[round].take().ok_or("a history is judged once")?;
                Sample::of_computing(1, || {
                    answers[round] = peers::todc(history, budget);
                    Ok(())
                })
            }),
        ],
    )?;
    for (history, answer) in ours.iter().zip(&answers) {
        verdicts.add(is_linearizable(history)?, *answer, &name)?;
    }
    verdicts.report(bench, &name, TODC, budget);
    Ok(())
}

/// Many short histories, some outcomes unknown, one in four of them corrupted.
fn against_stateright(bench: &mut Bench, dice: &mut Dice, per_client: usize) -> Result {
    const CLIENTS: u32 = 4;
    const ROUNDS: usize = 100;
    const EACH_ROUND: usize = 100;
    const UNKNOWN_PERCENT: u64 = 5;
    let budget = Budget::new(Duration::from_millis(bench.either(30, 4)), u64::MAX);
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for number in 0..ROUNDS * EACH_ROUND {
        let mut operations = histories::good(dice, CLIENTS, per_client, UNKNOWN_PERCENT);
        if number % 4 == 3 {
            let third = operations.len() / 3;
            histories::corrupt(dice, &mut operations, third);
        }
        ours.push(histories::ours(&operations));
        theirs.push(peers::for_stateright(&operations)?);
    }
    let name = format!("{CLIENTS} clients x {per_client} operations, 5 % unknown");
    let work = Work::new(&name, Unit::MicrosecondsEach)
        .rounds(ROUNDS)
        .cold()
        .goal(STATERIGHT, 100.0);
    let mut answers: Vec<Option<Option<bool>>> = vec![None; theirs.len()];
    let batch = |round: usize| round * EACH_ROUND..(round + 1) * EACH_ROUND;
    warm(&ours[0])?;
    bench.compare(
        &work,
        vec![
            Contender::new(OURS, |round| {
                Sample::of_computing(EACH_ROUND, || {
                    for history in &ours[batch(round)] {
                        is_linearizable(history)?;
                    }
                    Ok(())
                })
            }),
            Contender::new(STATERIGHT, |round| {
                Sample::of_computing(EACH_ROUND, || {
                    let judged: &[StaterightHistory] = &theirs[batch(round)];
                    for (history, answer) in judged.iter().zip(&mut answers[batch(round)]) {
                        *answer = Some(peers::stateright(history, budget));
                    }
                    Ok(())
                })
            }),
        ],
    )?;
    let mut verdicts = Verdicts::default();
    for (history, answer) in ours.iter().zip(answers) {
        if let Some(answer) = answer {
            verdicts.add(is_linearizable(history)?, answer, &name)?;
        }
    }
    verdicts.report(bench, &name, STATERIGHT, budget);
    Ok(())
}

/// The cost of an operation as histories get longer.
fn growth(bench: &mut Bench, dice: &mut Dice) -> Result {
    const CLIENTS: usize = 8;
    const LENGTHS: [usize; 4] = [1_000, 2_000, 5_000, 10_000];
    const OPERATIONS_PER_ROUND: usize = 10_000;
    let work = Work::new(
        "length of a good history, 8 clients",
        Unit::MicrosecondsEach,
    )
    .rounds(bench.either(51, 15));
    let mut contenders = Vec::new();
    for length in LENGTHS {
        let mut histories = Vec::new();
        for _ in 0..OPERATIONS_PER_ROUND / length {
            let operations = histories::good(dice, 8, length / CLIENTS, 0);
            histories.push(histories::ours(&operations));
        }
        contenders.push(Contender::new(length_name(length), move |_| {
            Sample::of_computing(OPERATIONS_PER_ROUND, || {
                for history in &histories {
                    if !is_linearizable(history)? {
                        return Err("a good history was judged bad".into());
                    }
                }
                Ok(())
            })
        }));
    }
    let measured = bench.compare(&work, contenders)?;
    let longest = length_name(LENGTHS[LENGTHS.len() - 1]);
    for length in &LENGTHS[..LENGTHS.len() - 1] {
        let shorter = length_name(*length);
        let ratios = measured.time_ratios(&longest, &shorter);
        // An operation of a long history may cost a quarter more than one of a short history: the caches grow cold.
        bench.ratio(Ratio::of(
            "cost of an operation in a history of 10000",
            &shorter,
            ratios,
            Some(0.8),
        ));
    }
    Ok(())
}

fn length_name(length: usize) -> String {
    format!("{length} operations")
}

/// The first call pays for pages and caches that later ones find ready.
fn warm(history: &History) -> Result {
    is_linearizable(history).map(drop)
}

fn is_linearizable(history: &History) -> Result<bool> {
    match check(history, ModelName::Register, Limits::default())?.verdict {
        Verdict::Linearizable => Ok(true),
        Verdict::Violation(_) => Ok(false),
        other => Err(format!("no verdict on a history: {other:?}").into()),
    }
}

/// How often ours and a peer gave the same answer.
#[derive(Debug, Default)]
struct Verdicts {
    same_good: u32,
    same_bad: u32,
    unanswered: u32,
}

impl Verdicts {
    fn add(&mut self, ours: bool, theirs: Option<bool>, work: &str) -> Result {
        match theirs {
            None => self.unanswered += 1,
            Some(theirs) if theirs != ours => {
                return Err(format!("{work}: ours says {ours}, the peer {theirs}").into());
            }
            Some(true) => self.same_good += 1,
            Some(false) => self.same_bad += 1,
        }
        Ok(())
    }

    fn report(&self, bench: &mut Bench, work: &str, peer: &str, budget: Budget) {
        let Self {
            same_good,
            same_bad,
            unanswered,
        } = self;
        for (what, count) in [
            ("same verdict, good", same_good),
            ("same verdict, bad", same_bad),
            ("no answer in time", unanswered),
        ] {
            let work = format!("{work}: {what}");
            bench.figure(Figure::new(&work, peer, f64::from(*count), "histories"));
        }
        if *unanswered > 0 {
            bench.note(format!(
                "{work}: {peer} gave no answer within {budget} on {unanswered} histories; its time up to there counts, so the ratio is a lower bound"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_says_the_same_of_small_histories() {
        let mut dice = Dice::seeded(3);
        let budget = Budget::new(Duration::from_secs(5), 100_000);
        let mut verdicts = Verdicts::default();
        for number in 0..200 {
            let mut operations = histories::good(&mut dice, 3, 5, 0);
            if number % 2 == 1 {
                histories::corrupt(&mut dice, &mut operations, 4);
            }
            let ours = is_linearizable(&histories::ours(&operations)).expect("a verdict");
            let todc = peers::todc(peers::for_todc(&operations), budget);
            verdicts.add(ours, todc, "todc-utils").expect("the same");
            let history = peers::for_stateright(&operations).expect("a sound history");
            let stateright = peers::stateright(&history, budget);
            verdicts
                .add(ours, stateright, "stateright")
                .expect("the same");
        }
        assert!(
            verdicts.same_good > 50 && verdicts.same_bad > 50,
            "{verdicts:?}"
        );
    }

    #[test]
    fn a_peer_is_stopped_at_its_budget() {
        let operations = histories::good(&mut Dice::seeded(3), 3, 5, 0);
        let budget = Budget::new(Duration::from_secs(5), 2);
        assert_eq!(peers::todc(peers::for_todc(&operations), budget), None);
    }
}
