//! Combinators that are broken on purpose, each in one way, and the checks that find out.

mod common;
#[path = "zoo/copy.rs"]
mod copy;

use std::panic::AssertUnwindSafe;

use common::checks::{self, Checked};
use common::recoveries::{self, silently};
use common::stopped;
use common::{Make, Parts, shipped};
use common::{backlogs, calm, joins, puts};
use copy::{Flaw, copied};

/// A check by name, with little enough work to run it on all.
type Check = (&'static str, fn(Make<'_>) -> Checked<()>);

const EVERY_ORDER: Check = ("every order", |make| checks::every_order(make).map(drop));
const SAMPLED: Check = ("sampled orders", |make| {
    checks::sampled_orders(make, 10).map(drop)
});
const CRASHES: Check = ("crashes", |make| checks::crashes(make).map(drop));
const DROPS: Check = ("drops", |make| checks::drops(make).map(drop));
const FAULTS: Check = ("faults", |make| checks::faults(make).map(drop));
const LATE: Check = ("late writes", |make| checks::late_writes(make).map(drop));
const EXPIRIES: Check = ("expiries", |make| checks::expiries(make, 20).map(drop));
const OVERWRITTEN: Check = ("overwritten in time", |make| {
    checks::overwritten_in_time(make).map(drop)
});
const SLOW_WRITER: Check = ("slow writer", |make| checks::slow_writer(make).map(drop));
const LIVE: Check = ("live recovery", |make| {
    checks::live_recovery(make, 50).map(drop)
});
const LAPSED: Check = ("lapsed writer", |make| {
    checks::lapsed_writer(make).map(drop)
});
const RECOVERIES: Check = ("two recoveries", |make| {
    checks::two_recoveries(make, 5).map(drop)
});
const CLEANUP: Check = ("stuck cleanup", |make| {
    checks::stuck_cleanup(make).map(drop)
});
const LADDER: Check = ("ladder", |make| calm::ladder(make).map(drop));
const COSTS: Check = ("costs", |make| calm::costs(make).map(drop));
const CLIENT: Check = ("failing client", |make| {
    calm::failing_client(make).map(drop)
});
const DEADLINE: Check = ("one deadline", |make| calm::one_deadline(make).map(drop));
const MISSING: Check = ("missing payload", |make| {
    calm::missing_payload(make).map(drop)
});

const PUTS: Check = ("over every row", |make| {
    puts::over_every_row(make).map(drop)
});
const BACKLOG: Check = ("backlogs", |make| {
    backlogs::recovered_to_the_end(make, &[1, 10, 11, 25, 150])?;
    backlogs::of_each_kind(make, 12).map(drop)
});
const JOINS: Check = ("joined at every drop", |make| {
    joins::joined_at_every_drop(make, 2).map(drop)
});

const ALL: [Check; 21] = [
    LIVE,
    LAPSED,
    EVERY_ORDER,
    SAMPLED,
    CRASHES,
    DROPS,
    FAULTS,
    LATE,
    EXPIRIES,
    OVERWRITTEN,
    SLOW_WRITER,
    RECOVERIES,
    CLEANUP,
    LADDER,
    COSTS,
    CLIENT,
    DEADLINE,
    MISSING,
    PUTS,
    BACKLOG,
    JOINS,
];

/// Each flaw with the clause that it breaks and the check that is to find it.
const ZOO: &[(Flaw, &str, Check)] = &[
    // Those that were seen in a system of this kind.
    (Flaw::TakesALostSwapForOvertaken, "TS-4", EXPIRIES),
    (Flaw::RemovesAfterATimeout, "TS-6", LATE),
    (Flaw::TakesAMissForAbsence, "TS-5", EVERY_ORDER),
    (Flaw::CleansUpForEver, "TS-7", CLEANUP),
    (Flaw::KeepsNoLog, "TS-7", CRASHES),
    // Others that are as near.
    (Flaw::LogsTheSwapAfterIt, "TS-7", CRASHES),
    (Flaw::RepeatsASwapThatExpectsNothing, "TS-6", LATE),
    (Flaw::SettlesWithoutAFence, "TS-6", LATE),
    (Flaw::SaysNotAppliedAfterALostAnswer, "TS-6", FAULTS),
    (Flaw::GivesUpAtTheFirstMiss, "TS-5", EVERY_ORDER),
    (Flaw::EndsAtAnOldDeadline, "TS-5", OVERWRITTEN),
    (Flaw::SwapsBeforeTheUpload, "TS-1", EVERY_ORDER),
    (Flaw::LeavesTheLosersPayload, "TS-3", EVERY_ORDER),
    (Flaw::RemovesTheWinnersPayload, "TS-3", EVERY_ORDER),
    (Flaw::LeavesTheReplacedPayload, "TS-7", EVERY_ORDER),
    (Flaw::RemovesBeforeTheSwap, "TS-7", CRASHES),
    (Flaw::IgnoresLeases, "TS-7", LIVE),
    (Flaw::HasNoHeartbeat, "TS-7", SLOW_WRITER),
    (Flaw::ForgetsThatItsLeaseEnded, "TS-7", LAPSED),
    (Flaw::RecoversWithoutALook, "TS-7", CRASHES),
    (Flaw::RemovesWithoutALook, "TS-7", LATE),
    (Flaw::RecoversByForgettingSwaps, "TS-7", CRASHES),
    (Flaw::NamesPayloadsByTheirKey, "TS-1", EVERY_ORDER),
    (Flaw::IsOffByOne, "TS-1", LADDER),
    (Flaw::HasTwoDeadlines, "TS-9", DEADLINE),
    (Flaw::NeverFollowsThePayload, "TS-9", DEADLINE),
    (Flaw::PutsOverRedirectsBlindly, "TS-7", EVERY_ORDER),
    (Flaw::DeletesOnlyTheRow, "TS-7", EVERY_ORDER),
    (Flaw::AsksBothTiers, "TS-2", COSTS),
    (Flaw::StopsWithItsCaller, "TS-8", DROPS),
    (Flaw::LeavesADroppedUpload, "TS-8", DROPS),
    (Flaw::RecordsBeforeItKnowsTheSize, "TS-1", CLIENT),
    // Those that it takes a certain object for, or something that came before.
    (Flaw::JudgesByTheChunk, "TS-1", LADDER),
    (Flaw::BelievesTheSize, "TS-1", PUTS),
    (Flaw::NumbersPayloadsByHandle, "TS-1", EVERY_ORDER),
    (Flaw::AnswersForThePayload, "BK-2", LADDER),
    (Flaw::KeepsTheOldDeadline, "TS-9", OVERWRITTEN),
    (Flaw::DeletesForAnEmptyPut, "BK-1", PUTS),
    (Flaw::LosesMetadataOverARedirect, "BK-1", PUTS),
    (Flaw::InsistsAfterALostRace, "TS-3", EVERY_ORDER),
    (Flaw::RecoversOnePage, "TS-7", BACKLOG),
    (Flaw::JoinsOnlyItsCallers, "BK-5", JOINS),
    (Flaw::EndsAtAnEmptyPiece, "BK-1", PUTS),
    (Flaw::RecoversUntilAFailure, "TS-7", BACKLOG),
    (Flaw::TakesUpOnePageOfItsOwn, "TS-7", BACKLOG),
    (Flaw::JoinsOnlyWhatRunsNow, "BK-5", JOINS),
    (Flaw::ResolvesUnjoined, "BK-5", JOINS),
    // Those where two things meet.
    (Flaw::TakesAMissForAbsenceInMetadata, "TS-5", EVERY_ORDER),
    (Flaw::NeverFollowsThePayloadInMetadata, "TS-9", DEADLINE),
    (Flaw::LosesASmallPutOverAnEndedRedirect, "TS-4", EXPIRIES),
    (Flaw::RecoversWhatIsOpenHere, "TS-7", LIVE),
    (Flaw::BlamesItselfForALargeClient, "TS-1", CLIENT),
    (Flaw::CompletesBeforeTheRemoval, "TS-7", CRASHES),
];

/// A check that can fail only is worth something if it passes what is not broken.
#[test]
fn the_copy_without_a_flaw_passes_every_check() {
    for (name, check) in ALL {
        if let Err(why) = check(&copied(Flaw::Nothing)) {
            panic!("{name}: {why}");
        }
    }
}

/// TS-7: the copy takes a writer that was stopped for one that is gone, and so shows that the checks of that can fail.
#[test]
fn a_copy_that_knows_of_no_stopped_writers_is_found() {
    let make = copied(Flaw::Nothing);
    let stopped = stopped::stopped_writer(&make);
    let why = stopped.expect_err("a payload is removed before its redirect comes");
    assert!(why.contains("which is not there"), "{why}");
    let killed = stopped::stopped_and_killed(&make);
    let why = killed.expect_err("a payload is removed before its redirect comes");
    assert!(why.contains("which is not there"), "{why}");
}

/// TS-7: a log that strikes out silently what belongs to another is as good as a writer that does not listen.
#[test]
fn a_writer_that_does_not_listen_to_its_log_is_found() {
    let silent = |parts: Parts| shipped(silently(parts));
    let why = recoveries::stopped_with_its_clock(&silent).expect_err("an acknowledged put");
    assert!(why.contains("which is not there"), "{why}");
}

/// TS-8: the copy keeps its clauses also where a write is never answered; one without a log does not.
#[test]
fn what_hangs_is_found_to_be_left_behind_without_a_log() {
    stopped::hangs(&copied(Flaw::Nothing)).unwrap_or_else(|why| panic!("{why}"));
    let why = stopped::hangs(&copied(Flaw::KeepsNoLog)).expect_err("an orphan");
    assert!(why.contains("an orphan"), "{why}");
}

/// By a wrong answer or a wrong state, and neither by a panic nor by a hang.
#[test]
fn every_flaw_is_found_by_the_check_that_is_meant_for_it() {
    let mut alive = Vec::new();
    for (flaw, clause, (name, check)) in ZOO {
        let judged = std::panic::catch_unwind(AssertUnwindSafe(|| check(&copied(*flaw))));
        match judged {
            Ok(Err(why)) => {
                let first = why.lines().last().unwrap_or_default();
                println!("{clause} {flaw:?}: killed by {name}: {first}");
            }
            Ok(Ok(())) => alive.push(format!("{flaw:?} passes {name}")),
            Err(_) => alive.push(format!("{flaw:?} makes {name} panic")),
        }
    }
    println!("{} of {} killed", ZOO.len() - alive.len(), ZOO.len());
    assert!(alive.is_empty(), "{alive:#?}");
}
