//! Histories: what clients asked, when, and what they were told.
//!
//! A history is the whole input of the checker, so it is a format of its own: JSON lines, one call per line, that can be saved
//! by a failing check, sent to somebody else and judged again. `docs/HISTORY.md` describes every field; this file is its parser
//! and writer, and nothing here knows how a verdict is reached.

use super::line;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Read, Write};

/// The longest line that is read; a longer one is an error, so that a wrong file cannot fill the memory.
pub const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A whole history: the state it began in and every call, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// What each key held before the first call; a key that is missing here was absent.
    pub initial: BTreeMap<String, Row>,
    /// The calls. Their order means nothing: only the stamps do.
    pub calls: Vec<Call>,
    /// The line of each call, where the history was read from a file.
    lines: Vec<usize>,
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// Who called. Only used to draw lanes: the verdict rests on the stamps.
    pub client: u32,
    /// Stamp taken before the call could have had an effect.
    pub call: u64,
    /// Stamp taken after the answer was there; `None` if no answer ever came.
    pub ret: Option<u64>,
    /// What was asked.
    pub op: Op,
    /// What was answered; `None` if that is unknown, and then the call may take effect at any time from `call` on, or never.
    pub result: Option<Answer>,
}

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Create or replace, whatever is there.
    Set {
        /// The key written.
        key: String,
        /// The value; unique values make verdicts fast and sharp.
        value: String,
        /// When it may and when it must have died, if it dies.
        ttl: Option<Ttl>,
    },
    /// Read one key.
    Get {
        /// The key read.
        key: String,
    },
    /// Remove, whatever is there.
    Delete {
        /// The key removed.
        key: String,
    },
    /// Name all present keys.
    List,
    /// Read several keys in one call.
    GetMulti {
        /// The keys, in the order of the answers.
        keys: Vec<String>,
    },
    /// Store inline data unless a redirect is there (HV-1).
    PutNonTombstone {
        /// The row's key.
        key: String,
        /// The inline payload.
        value: String,
    },
    /// Remove unless a redirect is there (HV-4).
    DeleteNonTombstone {
        /// The row's key.
        key: String,
    },
    /// Swap a row by the truth table of HV-5.
    CompareAndWrite {
        /// The row's key.
        key: String,
        /// The redirect's target that the caller expects, `None` for "no redirect".
        current: Option<String>,
        /// What shall be there.
        write: NewRow,
    },
}

/// The lifetime of one written value, in the unit of the stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ttl {
    /// The value lives at least this long after it was written.
    pub ttl: u64,
    /// It is gone no later than this after its lifetime.
    pub granularity: u64,
}

/// What a compare-and-write wants to leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewRow {
    /// A redirect to this target.
    Redirect(String),
    /// An inline object.
    Object(String),
    /// Nothing.
    Delete,
}

/// What a row holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Row {
    /// Data kept in the row itself; the only kind that registers and key-value stores know.
    Inline(String),
    /// A redirect to this target.
    Redirect(String),
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// A write was acknowledged.
    Done,
    /// What a key held, `None` for absent.
    Row(Option<Row>),
    /// The keys that a list named.
    Keys(Vec<String>),
    /// What several keys held, in the order asked.
    Values(Vec<Option<String>>),
    /// The redirect that stood in the way, `None` if there was none and the call went through.
    Blocked(Option<String>),
    /// Whether a compare-and-write succeeded.
    Swapped(bool),
}

/// Why an input is no history, or not one of the model asked for.
#[derive(Debug)]
#[non_exhaustive]
pub enum InputError {
    /// The reader failed.
    Io(io::Error),
    /// One line is wrong.
    Line {
        /// The line, counted from 1 (or the position in the history, counted from 1, if it never was a file).
        line: usize,
        /// What is wrong with it, and where it helps, what was expected.
        what: String,
    },
}

impl InputError {
    pub(super) fn at(line: usize, what: impl Into<String>) -> Self {
        Self::Line {
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(_) => f.write_str("the history could not be read"),
            Self::Line { line, what } => write!(f, "line {line}: {what}"),
        }
    }
}

impl std::error::Error for InputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Line { .. } => None,
        }
    }
}

impl From<io::Error> for InputError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Row {
    /// Data kept in the row itself.
    #[must_use]
    pub fn inline(value: impl Into<String>) -> Self {
        Self::Inline(value.into())
    }

    /// A redirect to a target.
    #[must_use]
    pub fn redirect(target: impl Into<String>) -> Self {
        Self::Redirect(target.into())
    }
}

impl Ttl {
    /// A lifetime of `ttl`, swept at most `granularity` later.
    #[must_use]
    pub const fn new(ttl: u64, granularity: u64) -> Self {
        Self { ttl, granularity }
    }
}

impl Call {
    /// A call that was answered.
    #[must_use]
    pub const fn answered(client: u32, call: u64, ret: u64, op: Op, result: Answer) -> Self {
        Self {
            client,
            call,
            ret: Some(ret),
            op,
            result: Some(result),
        }
    }

    /// A call whose outcome is unknown: it timed out, broke off or was dropped. `ret` is when the client gave up, and is only
    /// drawn, for the effect may come later.
    #[must_use]
    pub const fn unknown(client: u32, call: u64, ret: Option<u64>, op: Op) -> Self {
        Self {
            client,
            call,
            ret,
            op,
            result: None,
        }
    }

    /// The last stamp at which the call can have taken effect: `u64::MAX` if its outcome is unknown.
    pub(super) const fn end(&self) -> u64 {
        match (&self.result, self.ret) {
            (Some(_), Some(ret)) => ret,
            _ => u64::MAX,
        }
    }
}

impl History {
    /// A history that began with every key absent.
    #[must_use]
    pub const fn new(calls: Vec<Call>) -> Self {
        Self {
            initial: BTreeMap::new(),
            calls,
            lines: Vec::new(),
        }
    }

    /// The same history, begun with `key` holding `row`.
    #[must_use]
    pub fn begun_with(mut self, key: &str, row: Row) -> Self {
        self.initial.insert(key.to_owned(), row);
        self
    }

    /// Where a call stands: its line in the file it came from, else its position, counted from 1.
    #[must_use]
    pub fn line_of(&self, index: usize) -> usize {
        self.lines.get(index).copied().unwrap_or(index + 1)
    }

    /// Reads a history from JSON lines.
    ///
    /// # Errors
    ///
    /// [`InputError::Line`] with the number of the first line that is not part of a history, [`InputError::Io`] if the reader
    /// fails.
    pub fn read(mut reader: impl BufRead) -> Result<Self, InputError> {
        let mut history = Self::default();
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            let read = reader
                .by_ref()
                .take(LINE_BYTES_MAX + 1)
                .read_until(b'\n', &mut text)?;
            if read == 0 {
                break;
            }
            if u64::try_from(read).map_or(true, |bytes| bytes > LINE_BYTES_MAX) {
                return Err(InputError::at(
                    number,
                    format!("longer than {LINE_BYTES_MAX} bytes"),
                ));
            }
            let trimmed = text.trim_ascii();
            if trimmed.is_empty() {
                continue;
            }
            match line::parse(trimmed).map_err(|what| InputError::at(number, what))? {
                line::Parsed::Header(initial)
                    if history.calls.is_empty() && history.initial.is_empty() =>
                {
                    history.initial = initial;
                }
                line::Parsed::Header(_) => {
                    return Err(InputError::at(number, "the header must be the first line"));
                }
                line::Parsed::Call(call) => {
                    history.calls.push(call);
                    history.lines.push(number);
                }
            }
        }
        Ok(history)
    }

    /// Writes the history as JSON lines, a header first; what was written reads back as an equal history.
    ///
    /// # Errors
    ///
    /// Whatever the writer fails with.
    pub fn write(&self, mut writer: impl Write) -> io::Result<()> {
        writeln!(writer, "{}", line::header(&self.initial))?;
        for call in &self.calls {
            writeln!(writer, "{}", line::render(call))?;
        }
        writer.flush()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(value) => write!(f, "{}", Short(value)),
            Self::Redirect(target) => write!(f, "->{}", Short(target)),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set {
                value, ttl: None, ..
            } => write!(f, "set {}", Short(value)),
            Self::Set {
                value,
                ttl: Some(ttl),
                ..
            } => write!(f, "set {} ttl {}", Short(value), ttl.ttl),
            Self::Get { .. } => f.write_str("get"),
            Self::Delete { .. } => f.write_str("delete"),
            Self::List => f.write_str("list"),
            Self::GetMulti { keys } => write!(f, "get {} keys", keys.len()),
            Self::PutNonTombstone { value, .. } => write!(f, "put_non_tombstone {}", Short(value)),
            Self::DeleteNonTombstone { .. } => f.write_str("delete_non_tombstone"),
            Self::CompareAndWrite { current, write, .. } => {
                match current {
                    None => f.write_str("swap none => ")?,
                    Some(target) => write!(f, "swap ->{} => ", Short(target))?,
                }
                match write {
                    NewRow::Redirect(target) => write!(f, "->{}", Short(target)),
                    NewRow::Object(value) => write!(f, "{}", Short(value)),
                    NewRow::Delete => f.write_str("delete"),
                }
            }
        }
    }
}

impl Op {
    /// The operation with the key it touches, for pictures that show several keys.
    pub(super) fn with_key(&self) -> String {
        match self {
            Self::Set { key, .. }
            | Self::Get { key }
            | Self::Delete { key }
            | Self::PutNonTombstone { key, .. }
            | Self::DeleteNonTombstone { key }
            | Self::CompareAndWrite { key, .. } => {
                let text = self.to_string();
                let (verb, rest) = text.split_once(' ').unwrap_or((&text, ""));
                format!(
                    "{verb} {}{}{rest}",
                    Short(key),
                    if rest.is_empty() { "" } else { " = " }
                )
            }
            Self::GetMulti { keys } => {
                let keys: Vec<String> = keys.iter().map(|key| Short(key).to_string()).collect();
                format!("get_multi {}", keys.join(", "))
            }
            Self::List => self.to_string(),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("ok"),
            Self::Row(None) => f.write_str("absent"),
            Self::Row(Some(row)) => write!(f, "{row}"),
            Self::Keys(keys) => write_all(f, keys.iter().map(Some)),
            Self::Values(values) => write_all(f, values.iter().map(Option::as_ref)),
            Self::Blocked(None) => f.write_str("went through"),
            Self::Blocked(Some(target)) => write!(f, "blocked by ->{}", Short(target)),
            Self::Swapped(swapped) => write!(f, "{swapped}"),
        }
    }
}

fn write_all<'a>(
    f: &mut fmt::Formatter<'_>,
    items: impl Iterator<Item = Option<&'a String>>,
) -> fmt::Result {
    f.write_str("[")?;
    for (position, item) in items.enumerate() {
        if position > 0 {
            f.write_str(", ")?;
        }
        match item {
            None => f.write_str("absent")?,
            Some(item) => write!(f, "{}", Short(item))?,
        }
    }
    f.write_str("]")
}

/// Quotes a text and shortens it to what fits a lane; values carry their unique part in front.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_CHARS_MAX: usize = 24;
        match self.0.char_indices().nth(SHOWN_CHARS_MAX) {
            None => write!(f, "{:?}", self.0),
            Some((cut, _)) => write!(f, "{:?}..", &self.0[..cut]),
        }
    }
}
