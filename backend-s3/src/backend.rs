//! [`Backend`]: one object per object, head first, streamed both ways.
//!
//! A put holds a few parts in memory and no more, and becomes visible in one step: as one PUT, or as a completed upload.
//! A get holds what has arrived and was not taken yet. It is pinned to the version that it began with, goes on where a
//! connection broke off, and ends in an error where the version is gone or its checksum is wrong.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::CompletedPart;
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, TryFutureExt, TryStreamExt, stream};
use larder_traits::{
    Backend, BackendError, ClientStream, ErrorKind, ExpirationPolicy, Fault, GetResponse, Metadata,
    ObjectId, PayloadStream,
};

use crate::config::PARTS_MAX;
use crate::download::Part;
use crate::envelope::{self, END_LEN_BYTES, Head, Parsed, State};
use crate::error::Failure;
use crate::history::History;
use crate::key::Folder;
use crate::mark::{Mark, Nonce};
use crate::sum;
use crate::upload::{Condition, Upload, len_u64};
use crate::wire::{Sent, Wire};

/// How much of an object is read to learn what is known of it.
const HEAD_GUESS_BYTES: u64 = 4 << 10;

/// After so many parts of an upload the parts become longer, so that no object has too many.
const PARTS_PER_LENGTH: u64 = PARTS_MAX / 10;

/// How many parts of a stream are on their way at a time, at most.
const STREAM_FAN_OUT_MAX: usize = 4;

/// The objects of a place.
///
/// Reading an object and reading its metadata both count as an access that extends a `TimeToIdle` deadline (HV-8); the
/// answer shows the deadline as it is after the access. That needs a store with conditional writes: elsewhere a put
/// under that policy is `Unsupported`.
#[derive(Clone, Debug)]
pub struct S3Backend {
    wire: Arc<Wire>,
}

/// An object whose head has arrived.
struct Begun {
    head: Head,
    etag: String,
    /// Where its payload begins, and how long it is.
    at: u64,
    len: u64,
    /// What has arrived behind the head.
    arrived: Bytes,
    body: ByteStream,
}

impl S3Backend {
    pub(crate) fn new(wire: Arc<Wire>) -> Self {
        Self { wire }
    }

    fn name_of(&self, id: &ObjectId) -> Result<String, Fault> {
        self.wire.names.object(Folder::Objects, id)
    }

    /// Runs a call that has no deadline of its own.
    async fn call<T>(
        &self,
        sent: &Sent,
        call: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        self.wire.call(self.wire.deadline(), sent, call).await
    }

    /// Asks for the object and reads its head.
    async fn begin(&self, name: &str) -> Result<Option<Begun>, Failure> {
        let mut tries = 0;
        loop {
            let request = self.begin_once(name).boxed();
            match self.wire.attempt(0, request).await {
                Err(failure) if self.wire.is_worth_another(&failure, &mut tries).await => {}
                result => return result,
            }
        }
    }

    async fn begin_once(&self, name: &str) -> Result<Option<Begun>, Failure> {
        let mut opened = match self.wire.open_part(name, None, None).await? {
            Part::Absent => return Ok(None),
            Part::Beyond => return Err(envelope::damaged("an object without a head")),
            Part::There(opened) => opened,
        };
        let mut arrived = BytesMut::new();
        let (head, at) = loop {
            if let Parsed::Whole(head, at) = Head::parse(&arrived)? {
                break (head, at);
            }
            match opened.body.next().await {
                Some(Ok(bytes)) => arrived.extend_from_slice(&bytes),
                Some(Err(e)) => {
                    return Err(Failure::garbled(format!("a head that broke off: {e}")));
                }
                None if len_u64(&arrived) < opened.total => {
                    return Err(Failure::garbled("a head that is too short"));
                }
                None => return Err(envelope::damaged("an object that ends within its head")),
            }
        };
        let len = envelope::payload_len(opened.total, at)?;
        let arrived = arrived.freeze().slice(at..);
        Ok(Some(Begun {
            head,
            etag: opened.etag,
            at: u64::try_from(at).expect("a length in memory fits 64 bits"),
            len,
            arrived,
            body: opened.body,
        }))
    }

    /// The head alone, and the length of the payload behind it.
    async fn look(&self, name: &str) -> Result<Option<(Head, u64)>, Failure> {
        let mut wanted = HEAD_GUESS_BYTES;
        loop {
            let Some(found) = self.wire.fetch(name, 0..wanted).await? else {
                return Ok(None);
            };
            match Head::parse(found.value.as_slice())? {
                Parsed::Whole(head, at) => {
                    let len = envelope::payload_len(found.total, at)?;
                    return Ok(Some((head, len)));
                }
                Parsed::Needs(more) => {
                    let more = u64::try_from(more).expect("a head is short");
                    if more > found.total {
                        return Err(envelope::damaged("an object that ends within its head"));
                    }
                    // The object may be another one by then, with a longer head.
                    wanted = more;
                }
            }
        }
    }

    /// The metadata as it is after this access; `None` for what has expired.
    async fn accessed(&self, head: Head, len: u64) -> Result<Option<Metadata>, Fault> {
        let State::Object(mut metadata) = head.state else {
            return Err(envelope::damaged("something else among the objects").not_applied());
        };
        metadata.size = Some(len);
        self.wire.access(head.nonce, metadata).await
    }

    async fn put(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Result<(), BackendError> {
        let name = self.name_of(id)?;
        let idle = matches!(metadata.expiration_policy, ExpirationPolicy::TimeToIdle(_));
        if idle && !self.wire.has_conditions() {
            let message = "an idle time needs a store with conditional writes";
            return Err(Fault::not_applied(ErrorKind::Unsupported, message).into());
        }
        let mut stamped = metadata.stamped(self.wire.config.clock.now(), 0)?;
        // It is told by the length of the object, and nobody knows it yet.
        stamped.size = None;
        let nonce = self.wire.nonces.next();
        let state = State::Object(stamped);
        let head = Head {
            nonce,
            history: History::default(),
            state,
        };
        let mut parts = Parts::new(&self.wire, &head, stream)?;
        let first = parts.next().await?.expect("there is a head at least");
        if parts.ended {
            return Ok(self.put_whole(&name, first, nonce).await?);
        }
        self.put_parts(&name, first, parts, nonce).await
    }

    async fn put_whole(&self, name: &str, whole: Bytes, nonce: Nonce) -> Result<(), Fault> {
        let sent = Sent::default();
        let mark = Mark::of(&whole, nonce);
        let put = async {
            let put = || {
                let whole = whole.clone();
                self.wire.put(name, whole, &mark, &Condition::Always)
            };
            let result = self.wire.commit(len_u64(&whole), &sent, put).await;
            self.ended(name, &mark, &sent, result.map(drop)).await
        };
        self.call(&sent, put).await
    }

    async fn put_parts(
        &self,
        name: &str,
        first: Bytes,
        parts: Parts,
        nonce: Nonce,
    ) -> Result<(), BackendError> {
        let mark = Mark::of_stream(nonce);
        let begin = async {
            let begun = Upload::begin(&self.wire, name, &mark).await;
            begun.map_err(|failure| failure.not_applied())
        };
        let upload = self.call(&Sent::default(), begin).await?;
        let upload_ref = &upload;
        let rest = stream::try_unfold(parts, |mut parts| async move {
            let part = parts.next().await?;
            Ok(part.map(|part| (part, parts)))
        });
        let fan_out = self.wire.config.fan_out_max.get().min(STREAM_FAN_OUT_MAX);
        let mut uploaded: Vec<(CompletedPart, u64)> = stream::once(std::future::ready(Ok(first)))
            .chain(rest)
            .zip(stream::iter(1..))
            .map(|(part, number)| part.map(|part| (part, number)))
            .map_ok(|(part, number)| {
                let len = len_u64(&part);
                let put = upload_ref.part(number, part);
                put.map_ok(move |part| (part, len))
                    .map_err(|e| BackendError::from(e.not_applied()))
                    .boxed()
            })
            .try_buffer_unordered(fan_out)
            .try_collect()
            .await?;
        uploaded.sort_by_key(|(part, _)| part.part_number());
        let (completed, lens): (Vec<_>, Vec<_>) = uploaded.into_iter().unzip();
        let len = lens.iter().sum();
        let sent = Sent::default();
        let complete = async {
            let result = upload.complete(completed, len, &sent).await;
            self.ended(name, &mark, &sent, result).await
        };
        Ok(self.call(&sent, complete).await?)
    }

    /// What a write came to, after a look at the object where its answer was lost.
    async fn ended(
        &self,
        name: &str,
        mark: &Mark,
        sent: &Sent,
        result: Result<(), Failure>,
    ) -> Result<(), Fault> {
        match result {
            Ok(()) => Ok(()),
            Err(failure) if !sent.get() => Err(failure.not_applied()),
            Err(_) if self.wire.is_there(name, mark).await => Ok(()),
            Err(failure) => Err(failure.unknown()),
        }
    }
}

/// The parts that a payload becomes: the head before it, its end behind it, and all but the last of a good length.
struct Parts {
    stream: ClientStream,
    /// What goes into the next part, not copied yet.
    pending: VecDeque<Bytes>,
    pending_len: u64,
    made: u64,
    part_len: u64,
    len: u64,
    len_max: u64,
    sum: u32,
    ended: bool,
}

impl Parts {
    fn new(wire: &Wire, head: &Head, stream: ClientStream) -> Result<Self, Fault> {
        let head = head.encode()?.freeze();
        Ok(Self {
            stream,
            pending_len: len_u64(&head),
            pending: VecDeque::from([head]),
            made: 0,
            part_len: wire.config.part_len_bytes,
            len: 0,
            len_max: wire.config.object_len_bytes_max,
            sum: 0,
            ended: false,
        })
    }

    /// The next part; `None` behind the last one.
    async fn next(&mut self) -> Result<Option<Bytes>, BackendError> {
        let doublings = u32::try_from(self.made / PARTS_PER_LENGTH).unwrap_or(u32::MAX);
        let wanted = self
            .part_len
            .saturating_mul(1_u64.checked_shl(doublings).unwrap_or(1 << 63));
        // One byte more than a part is what tells that another one follows.
        while !self.ended && self.pending_len <= wanted {
            match self.stream.next().await {
                Some(chunk) => self.take(chunk.map_err(BackendError::Client)?)?,
                None => {
                    self.ended = true;
                    let end = envelope::end(self.len, self.sum);
                    self.push(Bytes::copy_from_slice(&end));
                }
            }
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        self.made += 1;
        let len = if self.ended { self.pending_len } else { wanted };
        Ok(Some(self.cut(len)))
    }

    fn take(&mut self, chunk: Bytes) -> Result<(), Fault> {
        let len = self.len.saturating_add(len_u64(&chunk));
        if len > self.len_max {
            let message = format!("a payload of more than {} bytes", self.len_max);
            return Err(Fault::not_applied(ErrorKind::InvalidInput, message));
        }
        self.len = len;
        self.sum = sum::after(self.sum, &chunk);
        self.push(chunk);
        Ok(())
    }

    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.pending_len += len_u64(&bytes);
            self.pending.push_back(bytes);
        }
    }

    /// The first `len` of the pending bytes, which are at least so many.
    fn cut(&mut self, len: u64) -> Bytes {
        self.pending_len -= len;
        let mut left = usize::try_from(len).expect("it is in memory");
        let mut part = BytesMut::with_capacity(left);
        while left > 0 {
            let mut bytes = self.pending.pop_front().expect("there are so many");
            let taken = bytes.split_to(left.min(bytes.len()));
            left -= taken.len();
            part.extend_from_slice(&taken);
            if !bytes.is_empty() {
                self.pending.push_front(bytes);
            }
        }
        part.freeze()
    }
}

/// A payload on its way to the caller.
struct Payload {
    wire: Arc<Wire>,
    name: String,
    etag: String,
    /// Where in the object the next byte lies, and where the payload ends.
    at: u64,
    end: u64,
    arrived: Bytes,
    body: Option<ByteStream>,
    len: u64,
    sum: u32,
    tries: u32,
}

impl Payload {
    /// The next bytes of the payload; `None` behind the last, whose checksum was right.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.at < self.end {
            let mut bytes = self.more().await?;
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            let payload = bytes.split_to(left.min(bytes.len()));
            self.arrived = bytes;
            self.at += len_u64(&payload);
            self.sum = sum::after(self.sum, &payload);
            return Ok(Some(payload));
        }
        let mut end = BytesMut::new();
        while end.len() < END_LEN_BYTES {
            let bytes = self.more().await?;
            self.at += len_u64(&bytes);
            end.extend_from_slice(&bytes);
        }
        if end[..] != envelope::end(self.len, self.sum) {
            return Err(envelope::damaged("the checksum of a payload is wrong"));
        }
        Ok(None)
    }

    /// Bytes that follow, from another connection where one broke off.
    async fn more(&mut self) -> Result<Bytes, Failure> {
        loop {
            if !self.arrived.is_empty() {
                self.tries = 0;
                return Ok(std::mem::take(&mut self.arrived));
            }
            let failure = match self.pull().await {
                Ok(bytes) => {
                    self.arrived = bytes;
                    continue;
                }
                Err(failure) => failure,
            };
            self.body = None;
            let wire = Arc::clone(&self.wire);
            if failure.is_unmet() || !wire.is_worth_another(&failure, &mut self.tries).await {
                return Err(failure);
            }
        }
    }

    async fn pull(&mut self) -> Result<Bytes, Failure> {
        let wire = Arc::clone(&self.wire);
        wire.attempt(0, async {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.open_again().await?,
            };
            let bytes = match body.next().await {
                Some(Ok(bytes)) => bytes,
                Some(Err(e)) => {
                    return Err(Failure::garbled(format!("a body that broke off: {e}")));
                }
                None => return Err(Failure::garbled("a body that is too short")),
            };
            let left = self.end + len_u64(&[0; END_LEN_BYTES]) - self.at;
            if len_u64(&bytes) > left {
                return Err(Failure::garbled("a body that is too long"));
            }
            self.body = Some(body);
            Ok(bytes)
        })
        .await
    }

    async fn open_again(&self) -> Result<ByteStream, Failure> {
        let whole = self.end + len_u64(&[0; END_LEN_BYTES]);
        let range = Some(self.at..whole);
        match self
            .wire
            .open_part(&self.name, range, Some(&self.etag))
            .await?
        {
            Part::There(opened) if opened.range == (self.at..whole) => Ok(opened.body),
            Part::There(_) => Err(Failure::garbled("another part than was asked for")),
            Part::Absent | Part::Beyond => {
                let mut gone = Failure::garbled("the object was removed while it was read");
                gone.again = false;
                Err(gone)
            }
        }
    }
}

/// The stream that a caller gets; it ends with the first error.
fn stream_of(payload: Payload) -> PayloadStream {
    stream::try_unfold(payload, |mut payload| async move {
        loop {
            match payload.next().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Ok(Some((bytes, payload))),
                Ok(None) => return Ok(None),
                Err(failure) => return Err(BackendError::from(failure.not_applied())),
            }
        }
    })
    .boxed()
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Backend for S3Backend {
    fn name(&self) -> &'static str {
        "s3"
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Result<(), BackendError> {
        self.put(id, metadata, stream).await
    }

    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        let name = self.name_of(id)?;
        let get = async {
            let begun = self.begin(&name).await;
            let Some(begun) = begun.map_err(|failure| failure.not_applied())? else {
                return Ok(None);
            };
            let found = self.accessed(begun.head, begun.len).await?;
            let payload = found.map(|metadata| {
                let payload = Payload {
                    wire: Arc::clone(&self.wire),
                    name: name.clone(),
                    etag: begun.etag,
                    at: begun.at,
                    end: begun.at + begun.len,
                    arrived: begun.arrived,
                    body: Some(begun.body),
                    len: begun.len,
                    sum: 0,
                    tries: 0,
                };
                (metadata, stream_of(payload))
            });
            Ok(payload)
        };
        Ok(self.call(&Sent::default(), get).await?)
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        let name = self.name_of(id)?;
        let look = async {
            let found = self.look(&name).await;
            match found.map_err(|failure| failure.not_applied())? {
                Some((head, len)) => self.accessed(head, len).await,
                None => Ok(None),
            }
        };
        Ok(self.call(&Sent::default(), look).await?)
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        let name = self.name_of(id)?;
        let sent = Sent::default();
        let remove = self.wire.remove(&name, &sent);
        Ok(self.call(&sent, remove).await?)
    }

    async fn join(&self) {
        self.wire.settled().await;
    }
}
