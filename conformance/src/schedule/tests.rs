//! That the scheduler sees every order, each once, and can tell them again.

use std::collections::BTreeSet;

use super::*;

/// Runs tasks of so many steps each and returns the order in which they took them.
fn order(run: &Run, steps: &[usize]) -> Vec<usize> {
    let order = Arc::new(Mutex::new(Vec::new()));
    for (task, count) in steps.iter().copied().enumerate() {
        let order = Arc::clone(&order);
        run.spawn(async move {
            for nth in 0..count {
                if nth > 0 {
                    step().await;
                }
                lock(&order).push(task);
            }
        });
    }
    run.go();
    lock(&order).clone()
}

#[test]
fn every_order_is_run_once() {
    for (steps, expected) in [
        (&[1, 1][..], 2),
        (&[3, 3], 20),
        (&[5, 4], 126),
        (&[2, 2, 2], 90),
        (&[3, 2, 1, 1], 420),
    ] {
        let mut explorer = Explorer::all();
        let mut seen = BTreeSet::new();
        while let Some(run) = explorer.next_run() {
            assert!(seen.insert(order(&run, steps)), "an order was run twice");
        }
        assert_eq!((seen.len(), explorer.runs()), (expected, expected));
    }
}

#[test]
fn an_order_is_told_and_run_again() {
    let mut explorer = Explorer::sample(7, 50);
    let mut seen = BTreeSet::new();
    while let Some(run) = explorer.next_run() {
        let first = order(&run, &[4, 4, 4]);
        let mut again = Explorer::replay(&run.choices());
        let run = again.next_run().unwrap();
        assert_eq!(order(&run, &[4, 4, 4]), first);
        assert!(again.next_run().is_none());
        seen.insert(first);
    }
    assert!(seen.len() > 40, "a sample of {} orders", seen.len());
    let mut same = Explorer::sample(7, 50);
    let mut repeated = BTreeSet::new();
    while let Some(run) = same.next_run() {
        repeated.insert(order(&run, &[4, 4, 4]));
    }
    assert_eq!(repeated, seen);
}

#[test]
fn tasks_that_tasks_add_take_part_and_time_waits_for_all() {
    let mut explorer = Explorer::all();
    let mut seen = BTreeSet::new();
    while let Some(run) = explorer.next_run() {
        let clock = Arc::new(TestClock::new());
        let before = larder_traits::Clock::now(&*clock);
        run.set_clock(Arc::clone(&clock));
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let order = Arc::clone(&order);
            move || lock(&order).push(what)
        };
        let (parent, child, late) = (note("parent"), note("child"), note("late"));
        let inner = run.clone();
        run.spawn(async move {
            let sleep = inner.sleep(Duration::from_secs(3));
            inner.spawn_background(async move { child() });
            step().await;
            parent();
            sleep.await;
            late();
        });
        run.go();
        let passed = larder_traits::Clock::now(&*clock).duration_since(before);
        assert_eq!(passed.unwrap(), Duration::from_secs(3));
        seen.insert(lock(&order).clone());
    }
    let expected = [["child", "parent", "late"], ["parent", "child", "late"]];
    assert_eq!(seen, expected.map(Vec::from).into());
}

#[test]
fn a_crash_ends_all_tasks_where_they_stand() {
    let mut explorer = Explorer::all();
    let run = explorer.next_run().unwrap();
    let steps = Arc::new(Mutex::new(0));
    let (counted, inner) = (Arc::clone(&steps), run.clone());
    run.spawn(async move {
        for _ in 0..10 {
            *lock(&counted) += 1;
            step().await;
        }
        inner.spawn(async {});
    });
    assert!(!run.go_steps(4));
    run.crash();
    assert!(run.go_steps(100));
    run.spawn(async { panic!("a task after the end") });
    run.go();
    assert_eq!((*lock(&steps), run.steps()), (4, 4));
}

#[test]
#[should_panic(expected = "something decides that no choice does")]
fn chance_that_is_no_choice_is_found_out() {
    let mut explorer = Explorer::all();
    let mut runs = 0;
    while let Some(run) = explorer.next_run() {
        runs += 1;
        let steps = if runs == 1 { vec![2, 2] } else { vec![2, 2, 2] };
        order(&run, &steps);
    }
}
