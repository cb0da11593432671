//! As much of HTTP/1.1 as it takes to know where a message begins and ends. Nothing here waits or sends.

use std::str;

use bytes::{Bytes, BytesMut};

use super::Answer;

/// A head that is longer is not taken for one.
pub(super) const HEAD_LEN_BYTES_MAX: usize = 64 * 1024;

/// The longest method that is taken for one.
const METHOD_LEN_BYTES_MAX: usize = 24;

/// How the body of a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked(Chunks),
    /// With the connection.
    ToEnd,
}

impl Body {
    pub(super) const NONE: Self = Self::Length(0);

    /// Whether nothing more of it can come.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks(At::End)))
    }
}

/// The head of a request, with the line and the headers as they came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) raw: Bytes,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) body: Body,
    /// The client may wait for a word before it sends the body.
    pub(super) expects: bool,
    /// The client wants the connection closed after the answer.
    pub(super) closes: bool,
    /// What follows need not be HTTP.
    pub(super) leaves: bool,
}

/// The head of an answer, with the line and the headers as they came.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) raw: Bytes,
    pub(super) status: u16,
    framing: Option<Body>,
}

/// What starts as it should but may not be complete yet.
pub(super) trait Head: Sized {
    /// Whether these first bytes can become such a head.
    fn begins(bytes: &[u8]) -> bool;

    /// The head, if these bytes up to the empty line are one.
    fn parse(bytes: &[u8]) -> Option<Self>;

    fn keep(&mut self, raw: Bytes);
}

impl Head for Request {
    fn begins(bytes: &[u8]) -> bool {
        let method = bytes.iter().take_while(|b| b.is_ascii_uppercase()).count();
        let after = match bytes.get(method) {
            None => return method <= METHOD_LEN_BYTES_MAX,
            Some(after) => *after,
        };
        if method == 0 || method > METHOD_LEN_BYTES_MAX || after != b' ' {
            return false;
        }
        match bytes.iter().position(|b| *b == b'\n') {
            Some(end) => {
                let line = &bytes[..=end];
                line.ends_with(b" HTTP/1.1\r\n") || line.ends_with(b" HTTP/1.0\r\n")
            }
            None => true,
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (line, fields) = lines(bytes)?;
        let mut words = line.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
            return None;
        }
        let fields = Fields::of(&fields)?;
        Some(Self {
            raw: Bytes::new(),
            method: method.to_owned(),
            target: target.to_owned(),
            body: fields.framing.unwrap_or(Body::NONE),
            expects: fields.expects,
            closes: fields.closes || version == "HTTP/1.0",
            leaves: fields.upgrades || method == "CONNECT",
        })
    }

    fn keep(&mut self, raw: Bytes) {
        self.raw = raw;
    }
}

impl Head for Response {
    fn begins(bytes: &[u8]) -> bool {
        let start = b"HTTP/1.";
        let len = bytes.len().min(start.len());
        bytes[..len] == start[..len]
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (line, fields) = lines(bytes)?;
        let status = line.strip_prefix("HTTP/1.")?.get(2..5)?;
        let fields = Fields::of(&fields)?;
        Some(Self {
            raw: Bytes::new(),
            status: status.parse().ok()?,
            framing: fields.framing,
        })
    }

    fn keep(&mut self, raw: Bytes) {
        self.raw = raw;
    }
}

impl Response {
    /// How the body of this answer ends, which depends on the question.
    pub(super) fn body(&self, to_head: bool) -> Body {
        if to_head || self.status < 200 || self.status == 204 || self.status == 304 {
            return Body::NONE;
        }
        self.framing.unwrap_or(Body::ToEnd)
    }

    /// The head with another length in it.
    pub(super) fn with_length(&self, len_bytes: u64) -> Bytes {
        let mut head = BytesMut::with_capacity(self.raw.len() + 20);
        for line in self.raw.split_inclusive(|b| *b == b'\n') {
            let name = line.split(|b| *b == b':').next().unwrap_or_default();
            if name.eq_ignore_ascii_case(b"content-length") {
                head.extend_from_slice(format!("Content-Length: {len_bytes}\r\n").as_bytes());
            } else {
                head.extend_from_slice(line);
            }
        }
        head.freeze()
    }
}

/// Whether an interim answer is to be followed by another.
pub(super) fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}

/// The end of the head in these bytes, behind the empty line.
pub(super) fn head_end(bytes: &[u8]) -> Option<usize> {
    let mark = b"\r\n\r\n";
    let at = bytes.windows(mark.len()).position(|window| window == mark);
    at.map(|at| at + mark.len())
}

/// First line, and the others.
fn lines(bytes: &[u8]) -> Option<(&str, Vec<&[u8]>)> {
    let mut lines = bytes
        .split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = str::from_utf8(lines.next()?).ok()?;
    Some((first, lines.filter(|line| !line.is_empty()).collect()))
}

/// What the headers say that matters here.
#[derive(Default)]
struct Fields {
    framing: Option<Body>,
    expects: bool,
    closes: bool,
    upgrades: bool,
}

impl Fields {
    /// `None` where the headers contradict each other or are none.
    fn of(lines: &[&[u8]]) -> Option<Self> {
        let mut fields = Self::default();
        let mut length = None;
        let mut chunked = false;
        for line in lines {
            let colon = line.iter().position(|b| *b == b':')?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            // Values may be any bytes; those that matter are ASCII.
            let value = str::from_utf8(value).unwrap_or_default();
            if name.eq_ignore_ascii_case(b"content-length") {
                let len: u64 = value.parse().ok()?;
                if length.replace(len).is_some_and(|other| other != len) {
                    return None;
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                chunked = has_word(value, "chunked");
            } else if name.eq_ignore_ascii_case(b"expect") {
                fields.expects = has_word(value, "100-continue");
            } else if name.eq_ignore_ascii_case(b"connection") {
                fields.closes |= has_word(value, "close");
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                fields.upgrades = true;
            }
        }
        fields.framing = if chunked {
            Some(Body::Chunked(Chunks::new()))
        } else {
            length.map(Body::Length)
        };
        Some(fields)
    }
}

fn has_word(value: &str, word: &str) -> bool {
    value
        .split(',')
        .any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// Follows the framing of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks(At);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the length of a chunk; `None` before its first digit.
    Size(Option<u64>),
    /// Behind the length, before the end of its line.
    Extension(u64),
    /// In a chunk, with so many bytes to come.
    Data(u64),
    /// Behind a chunk, before the end of its line.
    DataEnd,
    /// At the start of a line behind the last chunk.
    Trailer,
    /// Within such a line.
    TrailerLine,
    /// Behind everything.
    End,
}

impl Chunks {
    pub(super) const fn new() -> Self {
        Self(At::Size(None))
    }

    /// How many of these bytes, at least one, are of one sort, and whether that is payload. `None` for bytes that are
    /// no chunk. Not to be asked of no bytes, nor at the end.
    pub(super) fn run(&mut self, bytes: &[u8]) -> Option<(usize, bool)> {
        if let At::Data(left) = self.0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let left = left - u64::try_from(len).expect("a length in memory fits 64 bits");
            self.0 = if left == 0 {
                At::DataEnd
            } else {
                At::Data(left)
            };
            return Some((len, true));
        }
        for (index, byte) in bytes.iter().enumerate() {
            self.0 = self.0.after(*byte)?;
            if matches!(self.0, At::Data(_) | At::End) {
                return Some((index + 1, false));
            }
        }
        Some((bytes.len(), false))
    }
}

impl At {
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size(Some(0)) | Self::Extension(0), b'\n') => Self::Trailer,
            (Self::Size(Some(size)) | Self::Extension(size), b'\n') => Self::Data(size),
            (Self::Size(Some(size)), b'\r') => Self::Size(Some(size)),
            (Self::Size(Some(size)), b';' | b' ' | b'\t') | (Self::Extension(size), _) => {
                Self::Extension(size)
            }
            (Self::Size(size), digit) => {
                let digit = char::from(digit).to_digit(16)?;
                let size = size.unwrap_or(0).checked_mul(16)?;
                Self::Size(Some(size.checked_add(u64::from(digit))?))
            }
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Size(None),
            (Self::Trailer, b'\r') => Self::Trailer,
            (Self::Trailer, b'\n') => Self::End,
            (Self::TrailerLine, b'\n') => Self::Trailer,
            (Self::Trailer | Self::TrailerLine, _) => Self::TrailerLine,
            (Self::DataEnd | Self::Data(_) | Self::End, _) => return None,
        })
    }
}

/// The bytes of an answer that the server never gave.
pub(super) fn written(answer: &Answer, to_head: bool, closes: bool) -> Bytes {
    let reason = match answer.status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        412 => "Precondition Failed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    };
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", answer.status);
    head += &format!("Content-Type: {}\r\n", answer.content_type);
    head += &format!("Content-Length: {}\r\n", answer.body.len());
    if let Some(secs) = answer.retry_after_secs {
        head += &format!("Retry-After: {secs}\r\n");
    }
    if closes {
        head += "Connection: close\r\n";
    }
    head += "\r\n";
    let mut bytes = BytesMut::from(head.as_bytes());
    if !to_head {
        bytes.extend_from_slice(&answer.body);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_become_a_request() {
        for yes in [
            "",
            "G",
            "GET ",
            "PUT /a b",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.0\r\nX",
        ] {
            assert!(Request::begins(yes.as_bytes()), "{yes:?}");
        }
        for no in [
            "get / ",
            "PING\r\n",
            "HELO me\r\n",
            "GET / HTTP/1.1\n",
            "\u{16}\u{3}",
            " ",
            "PRI * HTTP/2.0\r\n",
        ] {
            assert!(!Request::begins(no.as_bytes()), "{no:?}");
        }
    }

    #[test]
    fn headers_that_contradict_each_other_are_none() {
        let head = b"PUT / HTTP/1.1\r\nContent-Length: 3\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(Request::parse(head).unwrap().body, Body::Length(3));
        let head = b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n";
        assert!(Request::parse(head).is_none());
        let head =
            b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
        assert!(matches!(
            Request::parse(head).unwrap().body,
            Body::Chunked(_)
        ));
    }

    #[test]
    fn chunks_are_followed_however_they_are_split() {
        let body = b"5;ext=1\r\nhello\r\n0A\r\n0123456789\r\n0\r\nSum: 1\r\n\r\nGET";
        for piece in 1..body.len() {
            let (mut chunks, mut at, mut payload) = (Chunks::new(), 0, Vec::new());
            while !Body::Chunked(chunks).is_over() {
                let bytes = &body[at..(at + piece).min(body.len())];
                let (len, data) = chunks.run(bytes).unwrap();
                if data {
                    payload.extend_from_slice(&bytes[..len]);
                }
                at += len;
            }
            assert_eq!(payload, b"hello0123456789");
            assert_eq!(&body[at..], b"GET");
        }
        assert!(Chunks::new().run(b"\r\n").is_none());
        assert!(Chunks::new().run(b"12345678123456781\r\n").is_none());
    }
}
