//! A witness drawn for terminals: a lane per client, a bar per call from its first stamp to its last.

use super::witness::{Place, Witness, WitnessCall};
use std::fmt::{self, Write as _};

/// Wider pictures get numbers in place of texts, and a list below.
const COLUMNS_MAX: usize = 110;

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "key {key:?}, ")?,
            None => f.write_str("all keys, ")?,
        }
        if self.key.is_some() {
            write!(
                f,
                "{} at first, ",
                self.initially.as_deref().unwrap_or("absent")
            )?;
        }
        match self.left_out {
            0 => writeln!(f, "every call:")?,
            1 => writeln!(f, "without one call that does not matter here:")?,
            count => writeln!(f, "without {count} calls that do not matter here:")?,
        }
        writeln!(f)?;
        let texts: Vec<String> = self.calls.iter().map(text).collect();
        let mut picture = draw(&self.calls, &texts);
        let numbered = picture
            .lines()
            .any(|line| line.chars().count() > COLUMNS_MAX);
        if numbered {
            let numbers: Vec<String> = (1..=self.calls.len())
                .map(|number| number.to_string())
                .collect();
            picture = draw(&self.calls, &numbers);
        }
        f.write_str(&picture)?;
        if numbered {
            writeln!(f)?;
            for (number, (call, text)) in self.calls.iter().zip(&texts).enumerate() {
                writeln!(
                    f,
                    "  {:>3}  client {}, line {}: {text}",
                    number + 1,
                    call.client,
                    call.line
                )?;
            }
        }
        writeln!(f)?;
        let order = self.order();
        if order.is_empty() {
            writeln!(f, "No call fits before it.")?;
        } else {
            writeln!(f, "The longest order that fits:")?;
            for (position, call) in order.iter().enumerate() {
                writeln!(
                    f,
                    "  {:>3}. line {}: {}",
                    position + 1,
                    call.line,
                    text(call)
                )?;
            }
        }
        if let Some(call) = self.impossible() {
            writeln!(
                f,
                "The call that fits nowhere:\n       line {}, client {}: {}",
                call.line,
                call.client,
                text(call)
            )?;
        }
        Ok(())
    }
}

fn text(call: &WitnessCall) -> String {
    match call.result.as_deref() {
        None => format!("{}, unknown", call.op),
        Some("ok") => call.op.clone(),
        Some(result) => format!("{}: {result}", call.op),
    }
}

/// A bar: from and to as columns, and whether it has an end.
struct Bar<'a> {
    from: usize,
    to: Option<usize>,
    text: &'a str,
    impossible: bool,
}

fn draw(calls: &[WitnessCall], texts: &[String]) -> String {
    let (column, width) = columns(calls, texts);
    let mut lanes: Vec<(u32, Vec<Bar<'_>>)> = Vec::new();
    for (call, text) in calls.iter().zip(texts) {
        let to = call.ret.filter(|_| call.result.is_some()).map(&column);
        let bar = Bar {
            from: column(call.call),
            to,
            text,
            impossible: call.place == Place::Impossible,
        };
        // A client with several calls at once needs several lanes.
        let free = |bars: &Vec<Bar<'_>>| {
            bars.last()
                .is_none_or(|last| last.to.is_some_and(|to| to < bar.from))
        };
        match lanes
            .iter_mut()
            .find(|(client, bars)| *client == call.client && free(bars))
        {
            Some((_, bars)) => bars.push(bar),
            None => lanes.push((call.client, vec![bar])),
        }
    }
    lanes.sort_by_key(|(client, _)| *client);
    let mut picture = String::new();
    for (client, bars) in lanes {
        let mut line = format!("  client {client:<3} ");
        let begin = line.chars().count();
        for bar in bars {
            let gap = (begin + bar.from).saturating_sub(line.chars().count());
            line.extend(std::iter::repeat_n(' ', gap));
            line.push_str(&bar.draw(width));
        }
        let _infallible = writeln!(picture, "{line}");
    }
    picture
}

impl Bar<'_> {
    fn draw(&self, width: usize) -> String {
        let to = self
            .to
            .unwrap_or(width)
            .max(self.from + self.text.chars().count() + 1);
        let (fill, close) = match (self.impossible, self.to) {
            (true, _) => ('!', '|'),
            (false, Some(_)) => ('-', '|'),
            (false, None) => ('-', '>'),
        };
        let room = to.saturating_sub(self.from + 1);
        let spare = room.saturating_sub(self.text.chars().count());
        let mut bar = String::from("|");
        bar.extend(std::iter::repeat_n(fill, spare / 2));
        bar.push_str(self.text);
        bar.extend(std::iter::repeat_n(fill, spare - spare / 2));
        bar.push(close);
        bar
    }
}

/// A column for each stamp, in the order of the stamps and just far enough apart for the texts between them; and the width of all.
fn columns(calls: &[WitnessCall], texts: &[String]) -> (impl Fn(u64) -> usize + use<>, usize) {
    let ended = |call: &WitnessCall| call.ret.filter(|_| call.result.is_some());
    let mut stamps: Vec<u64> = calls
        .iter()
        .flat_map(|call| [Some(call.call), ended(call)])
        .flatten()
        .collect();
    stamps.sort_unstable();
    stamps.dedup();
    let rank = |stamps: &[u64], stamp: u64| stamps.partition_point(|other| *other < stamp);
    let mut columns = vec![0; stamps.len()];
    let mut width = 0;
    for position in 0..stamps.len() {
        let mut column = if position == 0 {
            0
        } else {
            columns[position - 1] + 2
        };
        for (call, text) in calls.iter().zip(texts) {
            let from = rank(&stamps, call.call);
            // A bar carries a dash on both sides of its text, so that its ends are seen. One that ends where it begins needs room
            // for its text all the same.
            let at_once = ended(call) == Some(call.call);
            if (ended(call) == Some(stamps[position]) || at_once) && from < position {
                column = column.max(columns[from] + text.chars().count() + 3);
            }
        }
        columns[position] = column;
        width = width.max(column + 2);
    }
    for (call, text) in calls.iter().zip(texts) {
        width = width.max(columns[rank(&stamps, call.call)] + text.chars().count() + 4);
    }
    (move |stamp| columns[rank(&stamps, stamp)], width)
}
