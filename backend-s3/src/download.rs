//! Reading objects: all parts of one version, every length checked, the checksum of the whole too.

use std::ops::Range;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use crate::error::Failure;
use crate::mark::Mark;
use crate::sum;
use crate::thin::Request;
use crate::wire::Wire;

/// The last byte that a server can be asked for: most keep such numbers with a sign.
const OFFSET_MAX: u64 = i64::MAX.unsigned_abs();

/// How often a value is read in parts that is replaced meanwhile, before it is read in one answer.
const REPLACED_MAX: u32 = 2;

/// A part of an object whose bytes are still to come.
pub(crate) struct Opened {
    pub(crate) etag: String,
    /// Where in the object its bytes lie.
    pub(crate) range: Range<u64>,
    /// How long the whole object is.
    pub(crate) total: u64,
    pub(crate) mark: Option<Mark>,
    pub(crate) body: ByteStream,
    /// Whether more of the object follows in the body than what `range` says.
    goes_on: bool,
}

/// What a request for a part came to.
#[allow(
    clippy::large_enum_variant,
    reason = "one is made for a call and taken apart by it"
)]
pub(crate) enum Part {
    Absent,
    /// The object is there and ends before the part.
    Beyond,
    There(Opened),
}

/// Bytes that arrived, as they arrived where that was in one piece.
pub(crate) enum Value {
    One(Bytes),
    Many(Vec<u8>),
}

impl Value {
    pub(crate) fn into_vec(self) -> Vec<u8> {
        match self {
            Self::One(bytes) => bytes.into(),
            Self::Many(bytes) => bytes,
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.into(),
        }
    }

    fn truncate(&mut self, len: u64) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        match self {
            Self::One(bytes) => bytes.truncate(len),
            Self::Many(bytes) => bytes.truncate(len),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes,
        }
    }
}

/// What was read of an object.
pub(crate) struct Fetched {
    pub(crate) value: Value,
    /// The version that it is of; empty where nothing of the object was there to be read.
    pub(crate) etag: String,
    /// How long the whole object is, if anything of it was there to be read.
    pub(crate) total: u64,
}

impl Fetched {
    /// No bytes of an object that is there.
    fn nothing() -> Self {
        Self {
            value: Value::One(Bytes::new()),
            etag: String::new(),
            total: 0,
        }
    }
}

/// The first part of an object, arrived or on its way.
#[allow(
    clippy::large_enum_variant,
    reason = "one is made for a call and taken apart by it"
)]
enum First {
    Absent,
    Empty,
    Whole(Fetched),
    Large(Opened),
}

impl Wire {
    /// Asks for the bytes of `range`, of the version `pin` only where one is given. No range at all is the whole.
    pub(crate) async fn open_part(
        &self,
        name: &str,
        range: Option<Range<u64>>,
        pin: Option<&str>,
    ) -> Result<Part, Failure> {
        let mut request = self.config.checksums.asked(Request::of_object("GET", name));
        if let Some(range) = &range {
            request = request.header("range", header_of(range));
        }
        if let Some(pin) = pin {
            request = request.header("if-match", pin);
        }
        let answer = match self.ask(request).await {
            Ok(answer) => answer,
            Err(failure) => {
                return match failure.status {
                    Some(404) if failure.is("NoSuchKey") => Ok(Part::Absent),
                    Some(416) => Ok(Part::Beyond),
                    _ => Err(failure),
                };
            }
        };
        whole_or_part(&answer)?;
        let header = |name| answer.headers().get(name).filter(|text| !text.is_empty());
        let Some(etag) = header("etag").map(str::to_owned) else {
            return Err(Failure::garbled("an object without an ETag"));
        };
        if pin.is_some_and(|pin| pin.trim_matches('"') != etag.trim_matches('"')) {
            return Err(changed());
        }
        let len = header("content-length").and_then(|len| len.parse().ok());
        let (found, total) = match (header("content-range"), len) {
            (Some(text), _) => parse_content_range(text)
                .ok_or_else(|| Failure::garbled("a Content-Range that makes no sense"))?,
            (None, Some(len)) => (0..len, len),
            (None, None) => return Err(Failure::garbled("an object without a length")),
        };
        let wanted = range.unwrap_or(0..u64::MAX);
        let whole = found.start == 0 && found.end == total;
        let asked = found.start == wanted.start && found.end == wanted.end.min(total);
        let fits = len.is_none_or(|len| len == found.end - found.start);
        if fits && whole && wanted.start > 0 {
            return Err(Failure::no_part());
        }
        if !(fits && (asked || (whole && wanted.start == 0))) {
            return Err(Failure::garbled(
                "another part of the object than was asked for",
            ));
        }
        Ok(Part::There(Opened {
            mark: Mark::of_answer(&answer),
            etag,
            range: found,
            total,
            body: ByteStream::new(self.config.checksums.checked(answer)),
            goes_on: false,
        }))
    }

    /// The bytes of an object that lie in `range`, cut at its end; `None` where there is no object. The checksum is
    /// verified where `range` covers the whole.
    pub(crate) async fn fetch(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<Option<Fetched>, Failure> {
        let (mut tries, mut replaced, mut in_parts) = (0, 0, true);
        loop {
            let part_len = match replaced {
                0..REPLACED_MAX if in_parts => self.config.part_len_bytes,
                // Whoever keeps replacing it cannot come between the parts of one answer.
                _ => u64::MAX,
            };
            match self.fetch_once(name, &range, part_len).await {
                Err(failure) if failure.is_no_part() && in_parts => in_parts = false,
                Err(failure) if self.is_worth_another(&failure, &mut tries).await => {
                    replaced += u32::from(failure.is_unmet());
                }
                result => return result,
            }
        }
    }

    async fn fetch_once(
        &self,
        name: &str,
        range: &Range<u64>,
        part_len: u64,
    ) -> Result<Option<Fetched>, Failure> {
        if range.end <= range.start || range.start > OFFSET_MAX {
            // Nothing of it is wanted, or nothing of it can be there, but whether it is; and S3 knows no empty range.
            let first = self.first(name, 0..1, part_len).await?;
            return Ok(match first {
                First::Absent => None,
                First::Empty | First::Whole(_) | First::Large(_) => Some(Fetched::nothing()),
            });
        }
        let opened = match self.first(name, range.clone(), part_len).await? {
            First::Absent => return Ok(None),
            First::Empty => return Ok(Some(Fetched::nothing())),
            First::Whole(fetched) => return Ok(Some(fetched)),
            First::Large(opened) => opened,
        };
        let (etag, total) = (opened.etag.clone(), opened.total);
        let end = range.end.min(opened.total);
        let whole = opened.range.start == 0 && end == opened.total;
        let mark = opened.mark.filter(|_| whole);
        let mut buffer = buffer_of(end - opened.range.start)?;
        self.fill(name, opened, end, &mut buffer).await?;
        verify(mark, &buffer)?;
        Ok(Some(Fetched {
            value: Value::Many(buffer),
            etag,
            total,
        }))
    }

    /// The first part of `range`, of `part_len` bytes at most, with its bytes where no further part is needed.
    async fn first(&self, name: &str, range: Range<u64>, part_len: u64) -> Result<First, Failure> {
        let open = self.open_first(name, range.clone(), part_len);
        let opened = match self.attempt(0, open).await? {
            Part::Absent => return Ok(First::Absent),
            Part::Beyond => return Ok(First::Empty),
            Part::There(opened) => opened,
        };
        if opened.range.end < range.end.min(opened.total) {
            return Ok(First::Large(opened));
        }
        let whole = opened.range == (0..opened.total);
        let len = opened.range.end - opened.range.start;
        let mut value = self.attempt(len, read_small(opened.body, len)).await?;
        verify(opened.mark.filter(|_| whole), value.as_slice())?;
        // A server that takes no notice of ranges gives more than was asked for.
        value.truncate(range.end.saturating_sub(opened.range.start));
        Ok(First::Whole(Fetched {
            value,
            etag: opened.etag,
            total: opened.total,
        }))
    }

    /// Asks for the first `part_len` bytes of `range`, or for what there is where the server says that not even the first
    /// byte is.
    async fn open_first(
        &self,
        name: &str,
        range: Range<u64>,
        part_len: u64,
    ) -> Result<Part, Failure> {
        let is_whole = range == (0..u64::MAX);
        // Most objects are no longer than a part, and servers have more to do where a range is asked for. Of a longer one
        // the rest would be left where it is, its connection with it, and all that the server had at hand by then.
        let as_one = is_whole && (part_len == u64::MAX || !self.expects_long());
        let wanted = range.start..range.end.min(range.start.saturating_add(part_len));
        let mut part = if as_one {
            self.open_whole(name).await?
        } else {
            self.open_part(name, Some(wanted.clone()), None).await?
        };
        if range.start == 0 && matches!(part, Part::Beyond) {
            // That should be an empty object. The refusal says nothing of its checksum, and without that an object that
            // has lost all its bytes would pass for an empty one.
            part = self.open_whole(name).await?;
        }
        if is_whole && let Part::There(opened) = &mut part {
            self.found_long(opened.total > self.config.part_len_bytes);
            if as_one && opened.range.end > wanted.end {
                opened.range.end = wanted.end;
                opened.goes_on = true;
            }
        }
        Ok(part)
    }

    /// Asks for an object without a range, so that no range can be refused.
    async fn open_whole(&self, name: &str) -> Result<Part, Failure> {
        match self.open_part(name, None, None).await? {
            Part::Beyond => Err(Failure::garbled(
                "a whole object that ends before it begins",
            )),
            part => Ok(part),
        }
    }

    /// Reads what `opened` began, and the parts behind it up to `end`, into `buffer`.
    async fn fill(
        &self,
        name: &str,
        opened: Opened,
        end: u64,
        buffer: &mut [u8],
    ) -> Result<(), Failure> {
        let part_len = self.config.part_len_bytes;
        let first_len = usize::try_from(opened.range.end - opened.range.start)
            .expect("the buffer is longer than that");
        let chunk_len = usize::try_from(part_len).unwrap_or(usize::MAX);
        let (head, tail) = buffer.split_at_mut(first_len);
        let (etag, start) = (opened.etag, opened.range.end);
        let first = self.attempt(part_len, read_into(opened.body, head, opened.goes_on));
        let fan_out = self.config.fan_out_max.get();
        let etag = etag.as_str();
        let parts = (start..end).step_by(usize::try_from(part_len).unwrap_or(usize::MAX));
        let parts: Vec<BoxFuture<'_, _>> = parts
            .zip(tail.chunks_mut(chunk_len))
            .map(|(at, chunk)| self.fetch_into(name, etag, at, chunk).boxed())
            .collect();
        let rest = stream::iter(parts)
            .buffer_unordered(fan_out)
            .try_collect::<()>();
        try_join(first, rest).await?;
        Ok(())
    }

    /// Reads the bytes from `at` on of the version `etag` until `chunk` is full.
    async fn fetch_into(
        &self,
        name: &str,
        etag: &str,
        at: u64,
        chunk: &mut [u8],
    ) -> Result<(), Failure> {
        let len = u64::try_from(chunk.len()).expect("a length in memory fits 64 bits");
        let wanted = at..at + len;
        let mut tries = 0;
        loop {
            let request = async {
                match self
                    .open_part(name, Some(wanted.clone()), Some(etag))
                    .await?
                {
                    Part::There(opened) if opened.range == wanted => {
                        read_into(opened.body, chunk, false).await
                    }
                    Part::There(_) => Err(Failure::garbled("more than was asked for")),
                    Part::Absent | Part::Beyond => Err(changed()),
                }
            };
            match self.attempt(len, request).await {
                // The object is another one by now: what was read so far is worth nothing.
                Err(failure) if failure.is_unmet() => return Err(changed()),
                Err(failure) if self.is_worth_another(&failure, &mut tries).await => {}
                result => return result,
            }
        }
    }
}

/// The object was replaced while it was read.
fn changed() -> Failure {
    Failure::unmet("the object was replaced while it was read")
}

/// An answer to a GET is the whole object, or a part and says which: one that does not would be a short value.
fn whole_or_part(answer: &HttpResponse) -> Result<(), Failure> {
    let is_part = answer.headers().contains_key("content-range");
    match answer.status().as_u16() {
        200 => Ok(()),
        206 if is_part => Ok(()),
        206 => Err(Failure::garbled("a part that does not say which it is")),
        status => Err(Failure::garbled(format!("a GET was answered by {status}"))),
    }
}

fn verify(mark: Option<Mark>, value: &[u8]) -> Result<(), Failure> {
    match mark {
        Some(Mark { sum: Some(sum), .. }) if sum != sum::of(value) => {
            Err(Failure::corrupt("the checksum of an object is wrong"))
        }
        // Whoever put it there said nothing of its sum.
        _ => Ok(()),
    }
}

/// Room for so much, if there is any: the number comes from the server.
fn buffer_of(len: u64) -> Result<Vec<u8>, Failure> {
    let len = usize::try_from(len).map_err(|_e| too_long())?;
    let mut room: Vec<u8> = Vec::new();
    room.try_reserve_exact(len).map_err(|_e| too_long())?;
    drop(room);
    Ok(vec![0; len])
}

fn too_long() -> Failure {
    let mut failure = Failure::corrupt("an object that is longer than the memory");
    failure.again = false;
    failure
}

/// The whole body, which has this length.
pub(crate) async fn read_small(mut body: ByteStream, len: u64) -> Result<Value, Failure> {
    let len = usize::try_from(len).map_err(|_e| too_long())?;
    let mut many = Vec::new();
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|e| Failure::garbled(format!("a body that broke off: {e}")))?;
        if many.is_empty() && bytes.len() == len {
            // It arrived in one piece; what is left is to see that nothing follows.
            return match body.next().await {
                None => Ok(Value::One(bytes)),
                Some(Ok(more)) if more.is_empty() => Ok(Value::One(bytes)),
                Some(Ok(_)) => Err(Failure::garbled("a body that is too long")),
                Some(Err(e)) => Err(Failure::garbled(format!("a body that broke off: {e}"))),
            };
        }
        if many.is_empty() {
            many.try_reserve_exact(len).map_err(|_e| too_long())?;
        }
        if bytes.len() > len - many.len() {
            return Err(Failure::garbled("a body that is too long"));
        }
        many.extend_from_slice(&bytes);
    }
    if many.len() < len {
        return Err(Failure::garbled("a body that is too short"));
    }
    Ok(Value::Many(many))
}

/// Fills `chunk` with the body, which has exactly that length, or with its beginning if it goes on.
async fn read_into(
    mut body: ByteStream,
    mut chunk: &mut [u8],
    goes_on: bool,
) -> Result<(), Failure> {
    while let Some(bytes) = body.next().await {
        let mut bytes =
            bytes.map_err(|e| Failure::garbled(format!("a body that broke off: {e}")))?;
        if goes_on {
            bytes.truncate(chunk.len());
        }
        let Some((filled, rest)) = chunk.split_at_mut_checked(bytes.len()) else {
            return Err(Failure::garbled("a body that is too long"));
        };
        filled.copy_from_slice(&bytes);
        chunk = rest;
        if goes_on && chunk.is_empty() {
            break;
        }
    }
    if chunk.is_empty() {
        Ok(())
    } else {
        Err(Failure::garbled("a body that is too short"))
    }
}

/// S3 counts the last byte in.
fn header_of(range: &Range<u64>) -> String {
    let last = (range.end - 1).min(OFFSET_MAX);
    format!("bytes={}-{last}", range.start)
}

/// `bytes 0-41/42` as a range and a length.
fn parse_content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = total.parse().ok()?;
    (first <= last && last < total).then(|| (first..last + 1, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_or_refused() {
        assert_eq!(parse_content_range("bytes 0-41/42"), Some((0..42, 42)));
        assert_eq!(parse_content_range("bytes 7-7/42"), Some((7..8, 42)));
        let max = format!("bytes 0-{}/{}", u64::MAX - 1, u64::MAX);
        assert_eq!(parse_content_range(&max), Some((0..u64::MAX, u64::MAX)));
        let odd = [
            "",
            "bytes */42",
            "bytes 0-42/42",
            "bytes 5-4/42",
            "bytes 0-41",
            "0-41/42",
            "bytes -1-3/4",
            "bytes 0-18446744073709551615/18446744073709551615",
        ];
        for text in odd {
            assert_eq!(parse_content_range(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_counts_its_last_byte_in() {
        assert_eq!(header_of(&(0..1)), "bytes=0-0");
        assert_eq!(header_of(&(5..u64::MAX)), format!("bytes=5-{}", i64::MAX));
    }

    #[tokio::test]
    async fn a_body_has_the_length_that_was_said() {
        let body = || ByteStream::from_static(b"plum");
        assert_eq!(read_small(body(), 4).await.unwrap().as_slice(), b"plum");
        assert!(read_small(body(), 5).await.is_err());
        assert!(read_small(body(), 3).await.is_err());
        let mut chunk = [0; 4];
        read_into(body(), &mut chunk, false).await.unwrap();
        assert_eq!(&chunk, b"plum");
        assert!(read_into(body(), &mut [0; 5], false).await.is_err());
        assert!(read_into(body(), &mut [0; 3], false).await.is_err());
        read_into(body(), &mut chunk[..3], true).await.unwrap();
        assert!(read_into(body(), &mut [0; 5], true).await.is_err());
        let far = usize::MAX.try_into().unwrap();
        assert!(buffer_of(far).is_err());
    }
}
