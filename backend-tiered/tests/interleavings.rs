//! Every order of the steps of two clients, a sample for three, and crashes and drops at every step.

mod common;

use std::sync::Arc;

use common::checks::{self, Checked};
use common::{Does, LEASE, World, backlogs, joins, perform, recoveries, shipped, stopped};
use larder_traits::Metadata;

fn held<T>(checked: Checked<T>) -> T {
    checked.unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn two_clients_in_every_order() {
    let runs = held(checks::every_order(&shipped));
    println!("two clients: {runs} orders, all of them");
}

#[test]
fn two_and_three_clients_in_a_sample_of_orders() {
    let runs = held(checks::sampled_orders(&shipped, 40));
    println!("two and three clients: {runs} orders, a sample");
}

#[test]
fn the_object_ends_between_every_two_steps() {
    let runs = held(checks::expiries(&shipped, 100));
    println!("an object that ends meanwhile: {runs} orders");
}

/// Failure: a key was read as absent after it had been overwritten with an object that does not end. Cause: a reader
/// that missed the payload of the object before, whose deadline had come meanwhile, did not look at the row again. Fix: it
/// looks again (TS-5).
#[test]
fn what_is_overwritten_in_time_does_not_end() {
    let runs = held(checks::overwritten_in_time(&shipped));
    println!(
        "a reader beside a writer, and the deadline between any two steps: {runs} orders, all of them"
    );
    assert!(runs > 1_000, "far fewer orders than there are");
}

#[test]
fn a_crash_at_every_step_and_in_every_recovery_from_it() {
    let (points, nested) = held(checks::crashes(&shipped));
    println!("{points} crash points, and {nested} in the recoveries from them");
    assert!(nested > 500, "far fewer crash points than steps");
}

#[test]
fn a_crash_while_two_clients_meet() {
    let runs = held(checks::crashed_meetings(&shipped, 100));
    println!("{runs} crashes while two clients met");
}

#[test]
fn a_call_dropped_at_every_step() {
    let drops = held(checks::drops(&shipped));
    println!("{drops} calls dropped");
}

#[test]
fn two_recoveries_at_once() {
    let runs = held(checks::two_recoveries(&shipped, 30));
    println!("{runs} pairs of recoveries");
}

/// Failure: recovery removed a payload whose redirect came late, or the put of which was acknowledged. Cause: it went by
/// a list of its own changes that was older than what had come of them since. Fix: what nobody is at any more is read a
/// second time, and one recovery at a time is at it.
#[test]
fn a_recovery_beside_the_work_of_its_own_process() {
    let runs = held(recoveries::beside_its_own_work(&shipped, 40));
    println!("{runs} writes beside two recoveries of their own process");
}

/// Failure: a payload that the row refers to was removed. Cause: a recovery that was dropped between the look at the row
/// and the removal left the rest to what a dropped upload leaves, which does not look. Fix: a change that was not begun
/// here is left in the log.
#[test]
fn a_recovery_dropped_at_every_step() {
    let drops = held(recoveries::dropped(&shipped));
    println!("{drops} recoveries dropped");
    assert!(drops > 300, "far fewer drops than steps");
}

/// Failure: an acknowledged large put had no payload. Cause: its writer was stopped, its change was claimed by a process
/// that was killed then, and claimed back by the recovery of its own process, which took it for its own from then on: the
/// log had it under the same name as before. Fix: recovery claims under a name of its own.
#[test]
fn a_writer_whose_own_process_claims_its_change_back() {
    let runs = held(recoveries::claimed_back(&shipped));
    println!(
        "{runs} writers stopped beside a recovery that is killed, which their own process takes up"
    );
    assert!(runs > 3_000, "far fewer runs than steps");
}

#[test]
fn a_slow_writer_keeps_what_it_uploads_while_others_recover() {
    held(checks::slow_writer(&shipped));
}

#[test]
fn a_live_writer_beside_a_recovery() {
    let runs = held(checks::live_recovery(&shipped, 200));
    println!("{runs} writes beside a recovery");
}

#[test]
fn a_writer_notices_that_its_lease_has_ended() {
    held(checks::lapsed_writer(&shipped));
}

/// Failure: an acknowledged large put had no payload. Cause: its writer was stopped for longer than its lease between its
/// last look at the lease and its swap, and recovery removed the payload meanwhile. Fix: recovery makes a swap of one
/// redirect for another itself, and a writer whose lease has ended by the answer to any other takes its redirect out
/// again before it answers.
#[test]
fn a_writer_stopped_at_every_step_while_others_recover() {
    let (stops, taken_out) = held(stopped::stopped_writer(&shipped));
    println!("{stops} stops, after {taken_out} of which a redirect was taken out again");
    assert!(stops > 1_000 && taken_out > 0, "far fewer stops than steps");
}

/// Failure: as above, where the clock of the writer was behind that of the process that recovered. Cause: by its own
/// clock its lease had not ended. Fix: it asks the log when less than a quarter of its lease is left.
#[test]
fn a_writer_stopped_at_every_step_while_others_with_a_clock_ahead_recover() {
    let stops = held(stopped::stopped_under_skew(&shipped));
    println!("{stops} stops under a clock ahead");
    assert!(stops > 100, "far fewer stops than steps");
}

/// Failure: a put was `NotApplied` whose object had been read. Cause: its own swaps were refused, it was stopped, and
/// recovery made the swap, which somebody overwrote before the writer looked. Fix: a writer whose change may have been
/// claimed with the swap on record says `Unknown`.
#[test]
fn a_writer_stopped_at_every_step_whose_swaps_are_refused() {
    let stops = held(stopped::stopped_and_refused(&shipped));
    println!("{stops} stops of a writer whose swaps are refused");
    assert!(stops > 300, "far fewer stops than steps");
}

#[test]
fn a_writer_stopped_with_its_clock_while_others_are_recovering() {
    let stops = held(recoveries::stopped_with_its_clock(&shipped));
    println!("{stops} stops of a writer whose clock stood still");
    assert!(stops > 50, "far fewer stops than steps");
}

/// Failure: a large put was answered `NotApplied`, and readers had found it. Cause: the log had taken its swap and did not
/// answer; recovery made the swap and struck the change out, and the next attempt brought it back, so that it looked as
/// if nobody had claimed it. Fix: an attempt without an answer counts as one that others may have known of (TS-6).
#[test]
fn a_writer_stopped_unsure_of_what_the_log_knows() {
    let stops = held(recoveries::stopped_unsure_of_its_record(&shipped));
    println!("{stops} stops of a writer that does not know what is on record");
    assert!(stops > 300, "far fewer stops than steps");
}

#[test]
fn a_writer_stopped_and_cut_off_from_the_rows() {
    let stops = held(recoveries::stopped_and_cut_off(&shipped));
    println!("{stops} stops of a writer that is cut off");
    assert!(stops > 150, "far fewer stops than steps");
}

#[test]
fn a_writer_stopped_and_killed_beside_each_step_of_a_recovery() {
    let (stops, met) = held(recoveries::killed_beside_a_recovery(&shipped));
    println!(
        "{stops} kills beside a recovery, {met} of them right between its look and its removal"
    );
    assert!(stops > 200 && met > 0, "far fewer kills than steps");
}

#[test]
fn a_writer_stopped_over_a_redirect_and_killed_when_it_goes_on() {
    let kills = held(stopped::stopped_and_killed(&shipped));
    println!("{kills} kills after a stop");
    assert!(kills > 300, "far fewer kills than steps");
}

/// Failure: a large put was refused as claimed by another, where the writer had been idle for longer than its lease.
/// Cause: a new entry counted the lapse from before its first record as one that it had slept through. Fix: an entry
/// counts from its first record on.
#[test]
fn a_lease_that_ended_between_two_changes_is_in_nobodys_way() {
    let (world, run) = (World::new(), checks::plain());
    let store = world.open(&run, &shipped);
    for _ in 0..3 {
        let store = Arc::clone(&store);
        let put = async move { perform(&store, Does::PutLarge, "v", &Metadata::new()).await };
        run.finish(put).expect("nobody else is there");
        world.clock.advance(LEASE * 3);
    }
}

#[test]
fn a_join_behind_calls_dropped_at_every_step() {
    let runs = held(joins::joined_at_every_drop(&shipped, 5));
    println!("{runs} joins behind dropped calls");
    assert!(runs > 1_000, "far fewer joins than steps");
}

#[test]
fn more_changes_than_are_claimed_at_once() {
    let changes = held(backlogs::recovered_to_the_end(
        &shipped,
        &[1, 25, 150, 1_600],
    ));
    let kinds = held(backlogs::of_each_kind(&shipped, 12));
    println!("up to {changes} changes recovered at once, and some of {kinds} kinds");
    assert!(changes > 512, "no more than two pages of claims");
}
