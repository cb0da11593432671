//! One line of a history: the JSON object on one side, a call on the other.
//!
//! Strict on purpose: an unknown or a missing field is an error that names it, because a field passed over in silence would
//! change what the verdict means.

use super::history::{Answer, Call, NewRow, Op, Row, Ttl};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The version of the format that is written, and the only one that is read.
const VERSION: u64 = 1;

pub(super) enum Parsed {
    Header(BTreeMap<String, Row>),
    Call(Call),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    larder_history: u64,
    /// Only for readers: the checker compares stamps and never converts them.
    #[serde(default, rename = "unit")]
    _unit: Option<String>,
    #[serde(default)]
    initial: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    client: u32,
    call: u64,
    #[serde(rename = "return")]
    ret: Option<u64>,
    op: String,
    key: Option<String>,
    keys: Option<Vec<String>>,
    value: Option<String>,
    ttl: Option<u64>,
    granularity: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    current: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    write: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    #[serde(default)]
    unknown: bool,
}

/// Keeps `null` apart from a field that is not there: a read that found nothing is not a read without an answer.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

pub(super) fn parse(text: &[u8]) -> Result<Parsed, String> {
    let value: Value =
        serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(object) = &value else {
        return Err("not a JSON object".to_owned());
    };
    if object.contains_key("larder_history") {
        let header: Header = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if header.larder_history != VERSION {
            return Err(format!(
                "format version {} is not known, only {VERSION} is",
                header.larder_history
            ));
        }
        let mut initial = BTreeMap::new();
        for (key, value) in header.initial {
            if let Some(row) = row(&value)? {
                initial.insert(key, row);
            }
        }
        return Ok(Parsed::Header(initial));
    }
    // Parsed from the text a second time, because only that way a field given twice is noticed.
    let line: Line = serde_json::from_slice(text).map_err(|error| plain(&error))?;
    call(line).map(Parsed::Call)
}

/// The parser's message without its own line number, which is always 1 here and would contradict ours.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line 1") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn call(mut line: Line) -> Result<Call, String> {
    if line.ret.is_some_and(|ret| ret < line.call) {
        return Err("`return` is earlier than `call`".to_owned());
    }
    if !line.unknown && line.ret.is_none() {
        return Err(
            "no `return`; a call that never returned is marked `\"unknown\": true`".to_owned(),
        );
    }
    if line.unknown && line.result.is_some() {
        return Err("both `unknown` and `result`".to_owned());
    }
    let op = op(&mut line)?;
    let given = line.result.take();
    let result = if line.unknown {
        None
    } else {
        Some(answer(&op, given)?)
    };
    if let Some(field) = left_over(&line) {
        return Err(format!("`{}` takes no `{field}`", line.op));
    }
    Ok(Call {
        client: line.client,
        call: line.call,
        ret: line.ret,
        op,
        result,
    })
}

fn op(line: &mut Line) -> Result<Op, String> {
    let name = line.op.clone();
    let missing = |field: &str| format!("`{name}` without `{field}`");
    let mut key = || line.key.take().ok_or_else(|| missing("key"));
    Ok(match name.as_str() {
        "set" | "put" => Op::Set {
            key: key()?,
            value: line.value.take().ok_or_else(|| missing("value"))?,
            ttl: ttl(line)?,
        },
        "get" => Op::Get { key: key()? },
        "delete" => Op::Delete { key: key()? },
        "list" => Op::List,
        "get_multi" => Op::GetMulti {
            keys: line.keys.take().ok_or_else(|| missing("keys"))?,
        },
        "put_non_tombstone" => Op::PutNonTombstone {
            key: key()?,
            value: line.value.take().ok_or_else(|| missing("value"))?,
        },
        "delete_non_tombstone" => Op::DeleteNonTombstone { key: key()? },
        "compare_and_write" => Op::CompareAndWrite {
            key: key()?,
            current: match line.current.take().ok_or_else(|| missing("current"))? {
                Value::Null => None,
                Value::String(target) => Some(target),
                other => return Err(format!("`current` is a target or null, not {other}")),
            },
            write: new_row(&line.write.take().ok_or_else(|| missing("write"))?)?,
        },
        other => {
            return Err(format!(
                "no operation `{other}`; there are set, put, get, delete, list, get_multi, put_non_tombstone, \
                 delete_non_tombstone, compare_and_write"
            ));
        }
    })
}

fn ttl(line: &mut Line) -> Result<Option<Ttl>, String> {
    match (line.ttl.take(), line.granularity.take()) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err("`granularity` without `ttl`".to_owned()),
        (Some(0), _) => Err("a `ttl` of 0 is no lifetime".to_owned()),
        (Some(ttl), granularity) => Ok(Some(Ttl {
            ttl,
            granularity: granularity.unwrap_or(0),
        })),
    }
}

fn new_row(value: &Value) -> Result<NewRow, String> {
    match (value, row(value)) {
        (Value::String(text), _) if text == "delete" => Ok(NewRow::Delete),
        (Value::Object(_), Ok(Some(Row::Redirect(target)))) => Ok(NewRow::Redirect(target)),
        (Value::Object(_), Ok(Some(Row::Inline(value)))) => Ok(NewRow::Object(value)),
        _ => {
            Err("`write` is {\"redirect\": target}, {\"inline\": payload} or \"delete\"".to_owned())
        }
    }
}

fn row(value: &Value) -> Result<Option<Row>, String> {
    let wrong = || {
        format!(
            "a row is null, a text, {{\"inline\": text}} or {{\"redirect\": text}}, not {value}"
        )
    };
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(Row::Inline(text.clone()))),
        Value::Object(object) if object.len() == 1 => match object.iter().next() {
            Some((kind, Value::String(text))) if kind == "inline" => {
                Ok(Some(Row::Inline(text.clone())))
            }
            Some((kind, Value::String(text))) if kind == "redirect" => {
                Ok(Some(Row::Redirect(text.clone())))
            }
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn answer(op: &Op, given: Option<Value>) -> Result<Answer, String> {
    let answer = match (op, given) {
        (Op::Set { .. } | Op::Delete { .. }, None) => Some(Answer::Done),
        (Op::Set { .. } | Op::Delete { .. }, Some(_)) => {
            return Err("a write has no `result`: one that failed for certain is left out, any other is `unknown`".to_owned());
        }
        (_, None) => return Err("neither `result` nor `unknown`".to_owned()),
        (Op::Get { .. }, Some(value)) => Some(Answer::Row(row(&value)?)),
        (Op::List, Some(value)) => serde_json::from_value(value).ok().map(Answer::Keys),
        (Op::GetMulti { keys }, Some(value)) => {
            match serde_json::from_value::<Vec<Option<String>>>(value) {
                Ok(values) if values.len() != keys.len() => {
                    return Err(format!("{} keys, but {} results", keys.len(), values.len()));
                }
                Ok(values) => Some(Answer::Values(values)),
                Err(_) => None,
            }
        }
        (Op::PutNonTombstone { .. } | Op::DeleteNonTombstone { .. }, Some(value)) => {
            serde_json::from_value(value).ok().map(Answer::Blocked)
        }
        (Op::CompareAndWrite { .. }, Some(value)) => value.as_bool().map(Answer::Swapped),
    };
    let expected = match op {
        Op::List => "a list of keys",
        Op::GetMulti { .. } => "a list of texts and nulls",
        Op::CompareAndWrite { .. } => "true or false",
        _ => "the target in the way, or null",
    };
    answer.ok_or_else(|| format!("`result` should be {expected}"))
}

/// The first field that the operation did not use.
fn left_over(line: &Line) -> Option<&'static str> {
    [
        ("key", line.key.is_some()),
        ("keys", line.keys.is_some()),
        ("value", line.value.is_some()),
        ("ttl", line.ttl.is_some()),
        ("granularity", line.granularity.is_some()),
        ("current", line.current.is_some()),
        ("write", line.write.is_some()),
    ]
    .into_iter()
    .find_map(|(name, there)| there.then_some(name))
}

pub(super) fn header(initial: &BTreeMap<String, Row>) -> Value {
    let rows: Map<String, Value> = initial
        .iter()
        .map(|(key, row)| (key.clone(), row_json(row)))
        .collect();
    json!({ "larder_history": VERSION, "initial": rows })
}

pub(super) fn render(call: &Call) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("client", json!(call.client));
    put("call", json!(call.call));
    if let Some(ret) = call.ret {
        put("return", json!(ret));
    }
    let name = match &call.op {
        Op::Set { .. } => "set",
        Op::Get { .. } => "get",
        Op::Delete { .. } => "delete",
        Op::List => "list",
        Op::GetMulti { .. } => "get_multi",
        Op::PutNonTombstone { .. } => "put_non_tombstone",
        Op::DeleteNonTombstone { .. } => "delete_non_tombstone",
        Op::CompareAndWrite { .. } => "compare_and_write",
    };
    put("op", json!(name));
    match &call.op {
        Op::Set { key, value, ttl } => {
            put("key", json!(key));
            put("value", json!(value));
            if let Some(ttl) = ttl {
                put("ttl", json!(ttl.ttl));
                put("granularity", json!(ttl.granularity));
            }
        }
        Op::PutNonTombstone { key, value } => {
            put("key", json!(key));
            put("value", json!(value));
        }
        Op::Get { key } | Op::Delete { key } | Op::DeleteNonTombstone { key } => {
            put("key", json!(key));
        }
        Op::List => {}
        Op::GetMulti { keys } => {
            put("keys", json!(keys));
        }
        Op::CompareAndWrite {
            key,
            current,
            write,
        } => {
            put("key", json!(key));
            put("current", json!(current));
            put(
                "write",
                match write {
                    NewRow::Redirect(target) => json!({ "redirect": target }),
                    NewRow::Object(value) => json!({ "inline": value }),
                    NewRow::Delete => json!("delete"),
                },
            );
        }
    }
    match &call.result {
        None => {
            put("unknown", json!(true));
        }
        Some(Answer::Done) => {}
        Some(Answer::Row(row)) => {
            put("result", row.as_ref().map_or(Value::Null, row_json));
        }
        Some(Answer::Keys(keys)) => {
            put("result", json!(keys));
        }
        Some(Answer::Values(values)) => {
            put("result", json!(values));
        }
        Some(Answer::Blocked(target)) => {
            put("result", json!(target));
        }
        Some(Answer::Swapped(swapped)) => {
            put("result", json!(swapped));
        }
    }
    Value::Object(object)
}

fn row_json(row: &Row) -> Value {
    match row {
        Row::Inline(value) => json!(value),
        Row::Redirect(target) => json!({ "redirect": target }),
    }
}
