//! Hand-made histories of each model, budgets, pictures and determinism.

use super::history::{Answer, Call, History, NewRow, Op, Row};
use super::{Limits, ModelName, Place, Report, Verdict, Witness, check, check_jsonl};

fn judge(text: &str, model: ModelName) -> Report {
    check_jsonl(text.as_bytes(), model).expect("the history is well formed")
}

fn good(model: ModelName, text: &str) {
    let report = judge(text, model);
    assert!(matches!(report.verdict, Verdict::Linearizable), "{report}");
}

fn bad(model: ModelName, text: &str) -> Witness {
    match judge(text, model).verdict {
        Verdict::Violation(witness) => *witness,
        other => panic!("expected a violation, got {other:?} for\n{text}"),
    }
}

/// The line of the call that fits nowhere, and those of the order before it.
fn shown(witness: &Witness) -> (usize, Vec<usize>) {
    let impossible = witness.impossible().expect("every witness has one").line;
    (
        impossible,
        witness.order().iter().map(|call| call.line).collect(),
    )
}

// Register

#[test]
fn a_register_may_answer_old_or_new_while_a_write_runs() {
    good(
        ModelName::Register,
        r#"{"client":0,"call":0,"return":9,"op":"set","key":"k","value":"a"}
        {"client":1,"call":1,"return":2,"op":"get","key":"k","result":null}
        {"client":1,"call":3,"return":4,"op":"get","key":"k","result":"a"}"#,
    );
}

#[test]
fn a_value_seen_is_not_unseen() {
    let witness = bad(
        ModelName::Register,
        r#"{"client":0,"call":0,"return":9,"op":"set","key":"k","value":"a"}
        {"client":1,"call":1,"return":2,"op":"get","key":"k","result":"a"}
        {"client":2,"call":3,"return":4,"op":"get","key":"k","result":null}"#,
    );
    assert_eq!(shown(&witness), (3, vec![1, 2]));
}

#[test]
fn a_stale_read_after_an_acknowledged_write() {
    let witness = bad(
        ModelName::Register,
        r#"{"client":0,"call":0,"return":1,"op":"set","key":"k","value":"a"}
        {"client":0,"call":2,"return":3,"op":"set","key":"k","value":"b"}
        {"client":1,"call":3,"return":4,"op":"get","key":"k","result":"b"}
        {"client":1,"call":5,"return":6,"op":"get","key":"k","result":"a"}"#,
    );
    let (impossible, order) = shown(&witness);
    assert_eq!(impossible, 4);
    assert_eq!(
        order,
        [1, 2],
        "the read of the newer value is not needed to show it"
    );
    assert_eq!(witness.left_out, 1);
}

#[test]
fn stamps_that_are_equal_overlap() {
    good(
        ModelName::Register,
        r#"{"client":0,"call":0,"return":5,"op":"set","key":"k","value":"a"}
        {"client":1,"call":5,"return":5,"op":"get","key":"k","result":null}"#,
    );
    bad(
        ModelName::Register,
        r#"{"client":0,"call":0,"return":5,"op":"set","key":"k","value":"a"}
        {"client":1,"call":6,"return":6,"op":"get","key":"k","result":null}"#,
    );
}

#[test]
fn a_lost_update_never_shows_the_value_again() {
    bad(
        ModelName::Register,
        r#"{"client":0,"call":0,"return":2,"op":"set","key":"k","value":"a"}
        {"client":1,"call":3,"return":5,"op":"set","key":"k","value":"b"}
        {"client":0,"call":6,"return":7,"op":"get","key":"k","result":"a"}"#,
    );
}

#[test]
fn a_resurrected_delete() {
    let witness = bad(
        ModelName::Register,
        r#"{"larder_history":1,"initial":{"k":"a"}}
        {"client":0,"call":0,"return":1,"op":"delete","key":"k"}
        {"client":1,"call":2,"return":3,"op":"get","key":"k","result":"a"}"#,
    );
    assert_eq!(shown(&witness), (3, vec![2]));
    assert_eq!(witness.initially.as_deref(), Some("\"a\""));
}

#[test]
fn an_acknowledged_delete_may_follow_an_unknown_one() {
    good(
        ModelName::Register,
        r#"{"larder_history":1,"initial":{"k":"a"}}
        {"client":0,"call":0,"op":"delete","key":"k","unknown":true}
        {"client":1,"call":2,"return":3,"op":"get","key":"k","result":"a"}
        {"client":1,"call":4,"return":5,"op":"get","key":"k","result":null}
        {"client":1,"call":6,"return":7,"op":"set","key":"k","value":"b"}
        {"client":1,"call":8,"return":9,"op":"get","key":"k","result":"b"}"#,
    );
}

#[test]
fn an_unknown_delete_happens_once() {
    bad(
        ModelName::Register,
        r#"{"larder_history":1,"initial":{"k":"a"}}
        {"client":0,"call":0,"op":"delete","key":"k","unknown":true}
        {"client":1,"call":2,"return":3,"op":"get","key":"k","result":null}
        {"client":1,"call":4,"return":5,"op":"set","key":"k","value":"b"}
        {"client":1,"call":6,"return":7,"op":"get","key":"k","result":null}"#,
    );
}

#[test]
fn an_unknown_write_lands_late_or_never_but_does_not_come_back() {
    let history = |last: &str| {
        format!(
            r#"{{"client":0,"call":0,"return":1,"op":"set","key":"k","value":"a","unknown":true}}
            {{"client":1,"call":2,"return":3,"op":"get","key":"k","result":null}}
            {{"client":1,"call":4,"return":5,"op":"set","key":"k","value":"b"}}
            {{"client":1,"call":6,"return":7,"op":"get","key":"k","result":"a"}}
            {{"client":1,"call":8,"return":9,"op":"get","key":"k","result":{last}}}"#
        )
    };
    good(ModelName::Register, &history("\"a\""));
    bad(ModelName::Register, &history("\"b\""));
    bad(ModelName::Register, &history("null"));
}

#[test]
fn a_read_of_what_nobody_wrote() {
    let witness = bad(
        ModelName::Register,
        r#"{"client":1,"call":2,"return":3,"op":"get","key":"k","result":"torn"}"#,
    );
    assert_eq!(shown(&witness), (1, vec![]));
}

#[test]
fn keys_are_judged_each_by_itself() {
    let witness = bad(
        ModelName::Register,
        r#"{"client":0,"call":0,"return":1,"op":"set","key":"fine","value":"a"}
        {"client":0,"call":2,"return":3,"op":"set","key":"lost","value":"b"}
        {"client":1,"call":4,"return":5,"op":"get","key":"fine","result":"a"}
        {"client":1,"call":6,"return":7,"op":"get","key":"lost","result":null}"#,
    );
    assert_eq!(witness.key.as_deref(), Some("lost"));
    assert_eq!(shown(&witness), (4, vec![2]));
}

#[test]
fn a_list_is_judged_per_key() {
    let history = |list: &str| {
        format!(
            r#"{{"client":0,"call":0,"return":1,"op":"set","key":"a","value":"1"}}
            {{"client":0,"call":4,"return":5,"op":"set","key":"b","value":"2"}}
            {{"client":0,"call":6,"return":7,"op":"delete","key":"a"}}
            {{"client":1,"call":2,"return":8,"op":"list","result":{list}}}"#
        )
    };
    for list in [r#"["a","b"]"#, r#"["b"]"#, r#"["a"]"#, "[]"] {
        good(ModelName::Register, &history(list));
    }
    bad(ModelName::Register, &history(r#"["b","ghost"]"#));
    // One moment must do for all keys where a snapshot is declared: when b came, a was still there.
    good(ModelName::Map, &history(r#"["a","b"]"#));
    good(ModelName::Map, &history(r#"["b"]"#));
    bad(ModelName::Map, &history("[]"));
}

#[test]
fn a_list_keeps_an_unknown_write_alive() {
    good(
        ModelName::Register,
        r#"{"client":0,"call":0,"op":"set","key":"k","value":"a","unknown":true}
        {"client":1,"call":2,"return":3,"op":"list","result":["k"]}"#,
    );
    bad(
        ModelName::Register,
        r#"{"client":1,"call":2,"return":3,"op":"list","result":["k"]}
        {"client":0,"call":4,"op":"set","key":"k","value":"a","unknown":true}"#,
    );
}

// Key-value store

#[test]
fn a_value_lives_for_its_lifetime_and_dies_after_it() {
    let history = |at: u64, result: &str| {
        format!(
            r#"{{"client":0,"call":0,"return":10,"op":"put","key":"k","value":"a","ttl":100,"granularity":20}}
            {{"client":1,"call":{at},"return":{at},"op":"get","key":"k","result":{result}}}"#
        )
    };
    good(ModelName::Kv, &history(99, "\"a\""));
    bad(ModelName::Kv, &history(99, "null"));
    good(ModelName::Kv, &history(100, "null"));
    good(ModelName::Kv, &history(130, "\"a\""));
    bad(ModelName::Kv, &history(131, "\"a\""));
    good(ModelName::Kv, &history(131, "null"));
}

#[test]
fn a_dead_value_is_not_revived() {
    bad(
        ModelName::Kv,
        r#"{"client":0,"call":0,"return":10,"op":"put","key":"k","value":"a","ttl":100,"granularity":20}
        {"client":1,"call":110,"return":111,"op":"get","key":"k","result":null}
        {"client":1,"call":112,"return":113,"op":"get","key":"k","result":"a"}"#,
    );
}

#[test]
fn an_old_timer_leaves_the_newer_value_alone() {
    let history = |last: &str| {
        format!(
            r#"{{"client":0,"call":0,"return":10,"op":"put","key":"k","value":"a","ttl":100,"granularity":20}}
            {{"client":0,"call":50,"return":60,"op":"put","key":"k","value":"b"}}
            {{"client":1,"call":300,"return":301,"op":"get_multi","keys":["k","k"],"result":[{last},{last}]}}"#
        )
    };
    good(ModelName::Kv, &history("\"b\""));
    let witness = bad(ModelName::Kv, &history("null"));
    assert_eq!(shown(&witness), (3, vec![1, 2]));
}

#[test]
fn a_lifetime_of_unknown_begin_may_end_late_but_not_early() {
    good(
        ModelName::Kv,
        r#"{"client":0,"call":0,"op":"put","key":"k","value":"a","ttl":100,"granularity":20,"unknown":true}
        {"client":1,"call":500,"return":501,"op":"get","key":"k","result":"a"}
        {"client":1,"call":502,"return":503,"op":"get","key":"k","result":null}"#,
    );
    bad(
        ModelName::Kv,
        r#"{"client":0,"call":0,"op":"put","key":"k","value":"a","ttl":100,"granularity":20,"unknown":true}
        {"client":1,"call":20,"return":21,"op":"get","key":"k","result":"a"}
        {"client":1,"call":22,"return":23,"op":"get","key":"k","result":null}"#,
    );
}

#[test]
fn a_lifetime_of_a_value_written_twice_is_not_judged() {
    let report = judge(
        r#"{"client":0,"call":0,"return":1,"op":"put","key":"k","value":"a","ttl":100}
        {"client":0,"call":2,"return":3,"op":"put","key":"k","value":"a"}"#,
        ModelName::Kv,
    );
    let Verdict::Inconclusive { why } = report.verdict else {
        panic!("{report}")
    };
    assert!(
        why.contains("\"a\" has a lifetime and was written twice"),
        "{why}"
    );
}

// Compare-and-write

#[test]
fn of_two_creators_one_wins() {
    let history = |second: bool| {
        format!(
            r#"{{"client":0,"call":0,"return":9,"op":"compare_and_write","key":"k","current":null,"write":{{"redirect":"A"}},"result":true}}
            {{"client":1,"call":1,"return":8,"op":"compare_and_write","key":"k","current":null,"write":{{"redirect":"B"}},"result":{second}}}"#
        )
    };
    good(ModelName::Cas, &history(false));
    let witness = bad(ModelName::Cas, &history(true));
    assert_eq!(witness.calls.len(), 2);
}

#[test]
fn both_win_from_the_same_redirect() {
    bad(
        ModelName::Cas,
        r#"{"larder_history":1,"initial":{"k":{"redirect":"O"}}}
        {"client":0,"call":0,"return":9,"op":"compare_and_write","key":"k","current":"O","write":{"redirect":"A"},"result":true}
        {"client":1,"call":1,"return":8,"op":"compare_and_write","key":"k","current":"O","write":{"redirect":"B"},"result":true}"#,
    );
}

#[test]
fn a_blind_put_over_a_redirect() {
    bad(
        ModelName::Cas,
        r#"{"larder_history":1,"initial":{"k":{"redirect":"O"}}}
        {"client":0,"call":0,"return":1,"op":"put_non_tombstone","key":"k","value":"p","result":null}"#,
    );
    good(
        ModelName::Cas,
        r#"{"larder_history":1,"initial":{"k":{"redirect":"O"}}}
        {"client":0,"call":0,"return":1,"op":"put_non_tombstone","key":"k","value":"p","result":"O"}
        {"client":0,"call":2,"return":3,"op":"delete_non_tombstone","key":"k","result":"O"}
        {"client":0,"call":4,"return":5,"op":"put","key":"k","value":"p"}
        {"client":0,"call":6,"return":7,"op":"get","key":"k","result":{"inline":"p"}}"#,
    );
}

#[test]
fn a_retry_of_a_won_swap_succeeds_and_writes_nothing() {
    good(
        ModelName::Cas,
        r#"{"client":0,"call":0,"op":"compare_and_write","key":"k","current":null,"write":{"redirect":"A"},"unknown":true}
        {"client":1,"call":2,"return":3,"op":"compare_and_write","key":"k","current":null,"write":{"redirect":"A"},"result":true}
        {"client":1,"call":4,"return":5,"op":"compare_and_write","key":"k","current":"A","write":"delete","result":true}
        {"client":1,"call":6,"return":7,"op":"get","key":"k","result":null}"#,
    );
}

/// Every cell of the truth table: the answer that is right fits, the other one does not, and so with the row afterwards.
#[test]
fn the_truth_table_cell_by_cell() {
    let rows = [
        None,
        Some(Row::inline("i")),
        Some(Row::redirect("A")),
        Some(Row::redirect("B")),
        Some(Row::redirect("C")),
    ];
    let writes = [
        NewRow::Redirect("A".to_owned()),
        NewRow::Redirect("N".to_owned()),
        NewRow::Redirect("B".to_owned()),
        NewRow::Object("n".to_owned()),
        NewRow::Delete,
    ];
    for row in &rows {
        for current in [None, Some("A".to_owned()), Some("B".to_owned())] {
            for write in &writes {
                let op = Op::CompareAndWrite {
                    key: "k".to_owned(),
                    current: current.clone(),
                    write: write.clone(),
                };
                let state = row
                    .iter()
                    .map(|row| ("k".to_owned(), row.clone()))
                    .collect();
                let (Answer::Swapped(right), after) = super::brute::perform(&state, &op) else {
                    panic!("a swap says so")
                };
                for told in [true, false] {
                    let get = |row: Option<&Row>| {
                        Call::answered(
                            0,
                            2,
                            3,
                            Op::Get {
                                key: "k".to_owned(),
                            },
                            Answer::Row(row.cloned()),
                        )
                    };
                    for seen in rows.iter().map(Option::as_ref).chain([after.get("k")]) {
                        let swap = Call::answered(0, 0, 1, op.clone(), Answer::Swapped(told));
                        let mut history = History::new(vec![swap, get(seen)]);
                        history.initial.clone_from(&state);
                        let report = check(&history, ModelName::Cas, Limits::default())
                            .expect("it is well formed");
                        let fits = told == right && seen == after.get("k");
                        assert_eq!(
                            matches!(report.verdict, Verdict::Linearizable),
                            fits,
                            "{row:?} {op} {told} {seen:?}"
                        );
                    }
                }
            }
        }
    }
}

// The map

#[test]
fn a_snapshot_shows_one_moment() {
    let history = |result: &str| {
        format!(
            r#"{{"client":0,"call":0,"return":1,"op":"set","key":"a","value":"1"}}
            {{"client":0,"call":2,"return":3,"op":"set","key":"b","value":"2"}}
            {{"client":1,"call":0,"return":9,"op":"get_multi","keys":["a","b"],"result":{result}}}"#
        )
    };
    for result in [r#"[null,null]"#, r#"["1",null]"#, r#"["1","2"]"#] {
        good(ModelName::Map, &history(result));
        good(ModelName::Kv, &history(result));
    }
    bad(ModelName::Map, &history(r#"[null,"2"]"#));
    good(ModelName::Kv, &history(r#"[null,"2"]"#));
}

// Budgets, pictures

/// Many writes of one value at once make the search branch; a read of a value that never was makes it try everything.
fn hard(width: u32) -> History {
    let mut calls: Vec<Call> = (0..width)
        .map(|client| {
            let value = format!("v{}", client / 2);
            Call::answered(
                client,
                0,
                10,
                Op::Set {
                    key: "k".to_owned(),
                    value,
                    ttl: None,
                },
                Answer::Done,
            )
        })
        .collect();
    let get = |at: u64, value: &str| {
        Call::answered(
            width,
            at,
            at,
            Op::Get {
                key: "k".to_owned(),
            },
            Answer::Row(Some(Row::inline(value))),
        )
    };
    calls.extend((1..10).map(|at| get(at, &format!("v{}", at % 3))));
    calls.push(get(11, "never"));
    History::new(calls)
}

#[test]
fn a_spent_budget_is_no_verdict() {
    let history = hard(40);
    let steps = check(
        &history,
        ModelName::Register,
        Limits::default().with_steps(5_000),
    )
    .expect("it is well formed");
    assert!(
        matches!(&steps.verdict, Verdict::Inconclusive { why } if why.contains("5000 steps")),
        "{steps}"
    );
    assert!(
        steps.steps < 6_000,
        "the budget is tested inside the search: {}",
        steps.steps
    );
    let limits = Limits::default().with_memory_bytes(50_000);
    let memory = check(&history, ModelName::Register, limits).expect("it is well formed");
    assert!(
        matches!(&memory.verdict, Verdict::Inconclusive { why } if why.contains("50000 bytes")),
        "{memory}"
    );
}

#[test]
fn the_same_history_gives_the_same_report() {
    let history = hard(8);
    let text = |_| {
        check(&history, ModelName::Register, Limits::default())
            .expect("it is well formed")
            .to_string()
    };
    let reports: Vec<String> = (0..3).map(text).collect();
    assert!(reports[0].starts_with("not linearizable"), "{}", reports[0]);
    assert!(reports.iter().all(|report| *report == reports[0]));
}

#[test]
fn a_violation_on_one_key_outweighs_a_spent_budget_on_another() {
    let mut history = hard(40);
    history.calls.push(Call::answered(
        99,
        50,
        51,
        Op::Get {
            key: "z".to_owned(),
        },
        Answer::Row(Some(Row::inline("ghost"))),
    ));
    let report = check(
        &history,
        ModelName::Register,
        Limits::default().with_steps(5_000),
    )
    .expect("it is well formed");
    let Verdict::Violation(witness) = report.verdict else {
        panic!("{report}")
    };
    assert_eq!(witness.key.as_deref(), Some("z"));
}

#[test]
fn overlap_is_counted() {
    let report = judge(
        r#"{"client":0,"call":0,"return":5,"op":"set","key":"a","value":"1"}
        {"client":1,"call":5,"return":6,"op":"get","key":"a","result":"1"}
        {"client":1,"call":7,"return":9,"op":"set","key":"a","value":"2"}
        {"client":2,"call":7,"return":9,"op":"set","key":"b","value":"3"}
        {"client":3,"call":20,"op":"delete","key":"b","unknown":true}"#,
        ModelName::Register,
    );
    assert_eq!(
        (
            report.calls,
            report.overlapping,
            report.unknown,
            report.objects
        ),
        (5, 2, 1, 2),
        "{report}"
    );
}

#[test]
fn the_picture_has_a_lane_per_client() {
    let witness = bad(
        ModelName::Register,
        r#"{"client":0,"call":10,"return":90,"op":"set","key":"k","value":"new"}
        {"client":1,"call":20,"return":30,"op":"get","key":"k","result":"new"}
        {"client":2,"call":40,"return":50,"op":"get","key":"k","result":null}
        {"client":3,"call":45,"op":"set","key":"k","value":"later","unknown":true}"#,
    );
    assert_eq!(
        witness.to_string(),
        r#"key "k", absent at first, without one call that does not matter here:

  client 0   |-----------set "new"------------|
  client 1     |-get: "new"-|
  client 2                    |!get: absent!|

The longest order that fits:
    1. line 1: set "new"
    2. line 2: get: "new"
The call that fits nowhere:
       line 3, client 2: get: absent
"#
    );
    assert_eq!(witness.calls[2].place, Place::Impossible);
    let json = serde_json::to_value(&witness).expect("a witness is plain data");
    assert_eq!(json["calls"][1]["place"]["order"], 2);
    assert_eq!(json["calls"][2]["place"], "impossible");
}

#[test]
fn a_wide_picture_numbers_its_calls() {
    let swap = |at: u64| {
        let current = if at == 4 {
            "stray".to_owned()
        } else {
            format!("target-{at}")
        };
        let write = NewRow::Redirect(format!("target-{}", at + 1));
        let op = Op::CompareAndWrite {
            key: "k".to_owned(),
            current: Some(current),
            write,
        };
        Call::answered(7, 2 * at, 2 * at + 1, op, Answer::Swapped(true))
    };
    let history =
        History::new((0..5).map(swap).collect()).begun_with("k", Row::redirect("target-0"));
    let report = check(&history, ModelName::Cas, Limits::default()).expect("it is well formed");
    let text = report.to_string();
    assert!(
        text.contains("  client 7   |-1-| |-2-| |-3-| |-4-| |!5!|\n"),
        "{text}"
    );
    assert!(
        text.contains("    5  client 7, line 5: swap ->\"stray\" => ->\"target-5\": true\n"),
        "{text}"
    );
}
