//! The file: what is written reads back, and what is wrong with one is said with its line.

use super::history::{Answer, Call, History, InputError, NewRow, Op, Row, Ttl};
use super::{ModelName, check_jsonl};

fn refused(text: &str, model: ModelName) -> String {
    check_jsonl(text.as_bytes(), model)
        .expect_err("the input is wrong")
        .to_string()
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_line() {
    let first = r#"{"client":0,"call":0,"return":1,"op":"get","key":"k","result":null}"#;
    for (line, said) in [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        (
            r#"{"client":0,"call":0,"return":1,"op":"fetch"}"#,
            "no operation `fetch`",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"get","result":null}"#,
            "`get` without `key`",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"get","key":"k"}"#,
            "neither `result` nor `unknown`",
        ),
        (
            r#"{"client":0,"call":0,"op":"get","key":"k","result":null}"#,
            "no `return`",
        ),
        (
            r#"{"client":0,"call":2,"return":1,"op":"get","key":"k","result":null}"#,
            "earlier than `call`",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"get","key":"k","result":7}"#,
            "a row is null",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"get","key":"k","key":"j","result":null}"#,
            "duplicate field `key`",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"get","key":"k","reslt":null}"#,
            "unknown field `reslt`",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"get","key":"k","value":"v","result":null}"#,
            "`get` takes no `value`",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"get","key":"k","result":null,"unknown":true}"#,
            "both",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"put","key":"k","value":"v","ttl":0}"#,
            "`ttl` of 0",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"set","key":"k","value":"v","ttl":1}"#,
            "a register has no `ttl`",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"set","key":"k","value":"v","result":true}"#,
            "a write has no `result`",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"get_multi","keys":["k"],"result":[]}"#,
            "1 keys, but 0 results",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"delete_non_tombstone","key":"k","result":null}"#,
            "no operation of the model",
        ),
        (
            r#"{"client":0,"call":0,"return":1,"op":"get","key":"k","result":{"redirect":"t"}}"#,
            "only the model `cas`",
        ),
        (r#"{"larder_history":1}"#, "first line"),
        (
            r#"{"client":0,"call":18446744073709551615,"op":"delete","key":"k","unknown":true}"#,
            "a stamp must be below",
        ),
    ] {
        let message = refused(&format!("{first}\n\n{line}\n"), ModelName::Register);
        assert!(
            message.starts_with("line 3: ") && message.contains(said),
            "{line}\n  said: {message}"
        );
    }
    assert!(refused(r#"{"larder_history":2}"#, ModelName::Kv).contains("version 2"));
    assert!(
        "regster"
            .parse::<ModelName>()
            .expect_err("it is misspelt")
            .contains("register, kv, cas and map")
    );
    for model in ModelName::ALL {
        assert_eq!(model.to_string().parse(), Ok(model));
    }
}

#[test]
fn a_line_without_end_is_refused_before_it_fills_the_memory() {
    let endless = std::io::BufReader::new(std::io::repeat(b' '));
    assert!(matches!(
        History::read(endless),
        Err(InputError::Line { line: 1, .. })
    ));
}

#[test]
fn a_history_survives_its_file() {
    let key = || "k\n\u{1F980}\"".to_owned();
    let history = History::new(vec![
        Call::answered(
            0,
            1,
            2,
            Op::Set {
                key: key(),
                value: String::new(),
                ttl: Some(Ttl::new(5, 6)),
            },
            Answer::Done,
        ),
        Call::answered(
            1,
            1,
            2,
            Op::Get { key: key() },
            Answer::Row(Some(Row::inline("v"))),
        ),
        Call::answered(
            1,
            3,
            4,
            Op::Get { key: key() },
            Answer::Row(Some(Row::redirect("t"))),
        ),
        Call::answered(1, 3, 4, Op::Get { key: key() }, Answer::Row(None)),
        Call::unknown(2, 3, Some(9), Op::Delete { key: key() }),
        Call::unknown(3, 3, None, Op::List),
        Call::answered(4, 3, 4, Op::List, Answer::Keys(vec![key()])),
        Call::answered(
            4,
            5,
            6,
            Op::GetMulti {
                keys: vec![key(), key()],
            },
            Answer::Values(vec![None, Some("v".to_owned())]),
        ),
        Call::answered(
            4,
            7,
            8,
            Op::PutNonTombstone {
                key: key(),
                value: "v".to_owned(),
            },
            Answer::Blocked(Some("t".to_owned())),
        ),
        Call::answered(
            4,
            9,
            9,
            Op::DeleteNonTombstone { key: key() },
            Answer::Blocked(None),
        ),
        Call::answered(
            5,
            9,
            9,
            Op::CompareAndWrite {
                key: key(),
                current: Some("t".to_owned()),
                write: NewRow::Redirect("u".to_owned()),
            },
            Answer::Swapped(true),
        ),
        Call::unknown(
            6,
            9,
            None,
            Op::CompareAndWrite {
                key: key(),
                current: None,
                write: NewRow::Object("o".to_owned()),
            },
        ),
        Call::unknown(
            7,
            9,
            None,
            Op::CompareAndWrite {
                key: key(),
                current: None,
                write: NewRow::Delete,
            },
        ),
    ])
    .begun_with("other", Row::redirect("r"));
    let mut text = Vec::new();
    history.write(&mut text).expect("memory takes any text");
    let read = History::read(text.as_slice()).expect("what was written is a history");
    assert_eq!(read.calls, history.calls);
    assert_eq!(read.initial, history.initial);
    assert_eq!(read.line_of(0), 2, "the header is line 1");
}
