//! `larder check` on histories written by hand: one good and one bad of each model, and everything that is no history.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn check(history: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["check", "-"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    // A program that has refused the first line may not wait for the rest.
    drop(stdin.write_all(history.as_bytes()));
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

/// The verdict by exit code, and what stands on standard output.
fn judged(model: &str, history: &str) -> (Option<i32>, String) {
    let output = check(history, &["--model", model]);
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("the program speaks UTF-8");
    (output.status.code(), text)
}

fn holds(model: &str, history: &str) {
    let (code, text) = judged(model, history);
    assert_eq!(code, Some(0), "{model}: {text}");
    assert!(text.starts_with("linearizable: "), "{text}");
}

/// The line of the call that fits nowhere.
fn violated(model: &str, history: &str, line: &str) {
    let (code, text) = judged(model, history);
    assert_eq!(code, Some(1), "{model}: {text}");
    assert!(text.starts_with("not linearizable: "), "{text}");
    let (_, impossible) = text
        .split_once("The call that fits nowhere:\n")
        .expect("a violation has a witness");
    assert!(impossible.trim().starts_with(line), "{text}");
}

const HEADER: &str = r#"{"larder_history":1,"unit":"ns","initial":{"k":"a"}}"#;

fn history(lines: &[&str]) -> String {
    lines.join("\n") + "\n"
}

#[test]
fn a_register_shows_the_old_value_until_somebody_saw_the_new_one() {
    let write = r#"{"client":0,"call":100,"return":180,"op":"set","key":"k","value":"b"}"#;
    let new = r#"{"client":1,"call":120,"return":150,"op":"get","key":"k","result":"b"}"#;
    let old = r#"{"client":2,"call":130,"return":170,"op":"get","key":"k","result":"a"}"#;
    holds("register", &history(&[HEADER, write, new, old]));
    let too_late = r#"{"client":2,"call":160,"return":170,"op":"get","key":"k","result":"a"}"#;
    violated(
        "register",
        &history(&[HEADER, write, new, too_late]),
        "line 4, client 2",
    );
}

#[test]
fn a_deleted_register_stays_deleted_and_an_unknown_write_may_land_at_any_time() {
    let delete = r#"{"client":0,"call":1,"return":2,"op":"delete","key":"k"}"#;
    let back = r#"{"client":1,"call":3,"return":4,"op":"get","key":"k","result":"a"}"#;
    violated(
        "register",
        &history(&[HEADER, delete, back]),
        "line 3, client 1",
    );
    let unknown = r#"{"client":2,"call":0,"op":"set","key":"k","value":"c","unknown":true}"#;
    let landed = r#"{"client":1,"call":3,"return":4,"op":"get","key":"k","result":"c"}"#;
    holds("register", &history(&[HEADER, delete, unknown, landed]));
}

#[test]
fn a_value_with_a_lifetime_is_there_before_its_end_and_gone_after_it() {
    let put = r#"{"client":0,"call":0,"return":10,"op":"put","key":"s","value":"v","ttl":100,"granularity":20}"#;
    let read = |at: u64, result: &str| {
        format!(
            r#"{{"client":1,"call":{at},"return":{},"op":"get","key":"s","result":{result}}}"#,
            at + 1
        )
    };
    holds(
        "kv",
        &history(&[put, &read(99, "\"v\""), &read(131, "null")]),
    );
    // Inside the window both are right.
    holds("kv", &history(&[put, &read(105, "\"v\"")]));
    holds("kv", &history(&[put, &read(105, "null")]));
    violated(
        "kv",
        &history(&[put, &read(90, "null")]),
        "line 2, client 1",
    );
    violated(
        "kv",
        &history(&[put, &read(131, "\"v\"")]),
        "line 2, client 1",
    );
}

#[test]
fn two_swaps_from_the_same_redirect_cannot_both_win() {
    let put = r#"{"larder_history":1,"initial":{"r":{"redirect":"A"}}}"#;
    let swap = |client: u32, target: &str, result: bool| {
        format!(
            r#"{{"client":{client},"call":1,"return":9,"op":"compare_and_write","key":"r","current":"A","write":{{"redirect":"{target}"}},"result":{result}}}"#
        )
    };
    holds(
        "cas",
        &history(&[put, &swap(0, "B", true), &swap(1, "C", false)]),
    );
    let (code, text) = judged(
        "cas",
        &history(&[put, &swap(0, "B", true), &swap(1, "C", true)]),
    );
    assert_eq!(code, Some(1), "{text}");
    let gone =
        r#"{"client":2,"call":10,"return":12,"op":"get","key":"r","result":{"redirect":"C"}}"#;
    violated(
        "cas",
        &history(&[put, &swap(0, "B", true), &swap(1, "C", false), gone]),
        "line 4, client 2",
    );
}

#[test]
fn a_snapshot_shows_no_mixture_that_single_keys_would_allow() {
    // One client writes x and then y; the list sees y without x.
    let x = r#"{"client":0,"call":1,"return":2,"op":"set","key":"x","value":"1"}"#;
    let y = r#"{"client":0,"call":5,"return":6,"op":"set","key":"y","value":"1"}"#;
    let mixture = r#"{"client":1,"call":0,"return":9,"op":"list","result":["y"]}"#;
    let whole = r#"{"client":1,"call":0,"return":9,"op":"list","result":["x"]}"#;
    holds("map", &history(&[x, y, whole]));
    let mixed = history(&[x, y, mixture]);
    violated("map", &mixed, "line 3, client 1");
    holds("register", &mixed);
}

#[test]
fn what_cannot_be_decided_is_exit_code_2_and_says_why() {
    let put = r#"{"client":0,"call":0,"return":10,"op":"put","key":"s","value":"v","ttl":100}"#;
    let again = r#"{"client":0,"call":20,"return":30,"op":"put","key":"s","value":"v","ttl":100}"#;
    let (code, text) = judged("kv", &history(&[put, again]));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.starts_with("inconclusive: "), "{text}");
}

#[test]
fn an_unreadable_history_is_one_line_with_its_number_and_exit_code_3() {
    let good = r#"{"client":0,"call":1,"return":2,"op":"get","key":"k","result":null}"#;
    for (bad, word) in [
        ("{", "not JSON"),
        (
            r#"{"client":0,"call":1,"return":2,"op":"get","key":"k"}"#,
            "neither `result`",
        ),
        (
            r#"{"client":0,"call":5,"return":2,"op":"get","key":"k","result":null}"#,
            "earlier",
        ),
        (
            r#"{"client":0,"call":1,"return":2,"op":"swap","key":"k"}"#,
            "no operation `swap`",
        ),
        (
            r#"{"client":0,"call":1,"return":2,"op":"delete_non_tombstone","key":"k","result":null}"#,
            "",
        ),
        (HEADER, "first line"),
    ] {
        let output = check(&history(&[good, bad]), &["--model", "register"]);
        let said = String::from_utf8(output.stderr).expect("the program speaks UTF-8");
        assert_eq!(output.status.code(), Some(3), "{bad}: {said}");
        assert_eq!(said.lines().count(), 1, "{bad}: {said}");
        assert!(
            said.contains("line 2") && said.contains(word),
            "{bad}: {said}"
        );
        assert!(output.stdout.is_empty(), "{bad}");
    }
}

#[test]
fn a_file_that_is_not_there_and_a_model_that_is_none_are_exit_code_3() {
    for arguments in [
        &["check", "no/such/history.jsonl", "--model", "register"][..],
        &["check", ".", "--model", "register"][..],
        &["check", "-", "--model", "queue"][..],
        &["check", "-"][..],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        let said = String::from_utf8(output.stderr).expect("the program speaks UTF-8");
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    }
}

#[test]
fn the_verdict_can_be_had_as_json() {
    let read = r#"{"client":1,"call":3,"return":4,"op":"get","key":"k","result":"b"}"#;
    let output = check(
        &history(&[HEADER, read]),
        &["--model", "register", "--json"],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("pure JSON");
    assert_eq!(
        (&json["model"], &json["verdict"]),
        (&"register".into(), &"violation".into())
    );
    assert_eq!(json["calls"][0]["place"], "impossible", "{json}");
}
