//! Writing objects: one request, or parts that become an object in one step.

use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use aws_smithy_types::base64;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use larder_traits::Fault;

use crate::config::ChecksumMode;
use crate::error::Failure;
use crate::mark::{self, Mark};
use crate::thin::{Request, skip_body};
use crate::wire::{Sent, Wire};

/// When a write may take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// In any case.
    Always,
    /// Only where there is no object.
    Absent,
    /// Only where the object is this version.
    Is(String),
}

impl Wire {
    /// Makes `value` the object `name`, in however many requests; `sent` says whether it may have come about.
    ///
    /// Nothing is promised of where a failure leaves the object but what its outcome says: before the commit point it
    /// is as it was, behind it somebody has looked whether this very write is there.
    pub(crate) async fn store(
        self: &Arc<Self>,
        name: &str,
        value: Bytes,
        sent: &Sent,
    ) -> Result<(), Fault> {
        let mark = Mark::of(&value, self.nonces.next());
        let len = len_u64(&value);
        let result = if len <= self.config.part_len_bytes {
            let put = || self.put(name, value.clone(), &mark, &Condition::Always);
            self.commit(len, sent, put).await.map(drop)
        } else {
            self.store_in_parts(name, value, &mark, sent).await
        };
        match result {
            Ok(()) => Ok(()),
            Err(failure) if !sent.get() => Err(failure.not_applied()),
            Err(_) if self.is_there(name, &mark).await => Ok(()),
            Err(failure) => Err(failure.unknown()),
        }
    }

    /// One PUT; the ETag of what it made.
    pub(crate) async fn put(
        &self,
        name: &str,
        value: Bytes,
        mark: &Mark,
        condition: &Condition,
    ) -> Result<String, Failure> {
        let mut request = Request::of_object("PUT", name)
            .header("content-type", "application/octet-stream")
            .header(mark::HEADER, mark.text())
            .body(value);
        match condition {
            Condition::Always => {}
            Condition::Absent => request = request.header("if-none-match", "*"),
            Condition::Is(etag) => request = request.header("if-match", self.as_condition(etag)),
        }
        if let (ChecksumMode::WhenSupported, Some(sum)) = (self.config.checksums, mark.sum) {
            let sum = base64::encode(sum.to_be_bytes());
            request = request.header("x-amz-checksum-crc32c", sum);
        }
        let answer = self.ask(request).await?;
        let etag = answer.headers().get("etag").unwrap_or_default().to_owned();
        skip_body(answer).await?;
        // An answer of 200 with an error in it has no ETag.
        if etag.is_empty() {
            return Err(Failure::garbled("a PUT was answered without an ETag"));
        }
        Ok(etag)
    }

    async fn store_in_parts(
        self: &Arc<Self>,
        name: &str,
        value: Bytes,
        mark: &Mark,
        sent: &Sent,
    ) -> Result<(), Failure> {
        let part_len = self.config.part_len_for(len_u64(&value));
        let part_len = usize::try_from(part_len).unwrap_or(usize::MAX);
        let upload = Upload::begin(self, name, mark).await?;
        let starts = (0..value.len()).step_by(part_len).zip(1..);
        let upload_ref = &upload;
        let mut parts: Vec<CompletedPart> = stream::iter(starts)
            .map(|(at, number)| {
                let part = value.slice(at..value.len().min(at.saturating_add(part_len)));
                upload_ref.part(number, part).boxed()
            })
            .buffer_unordered(self.config.fan_out_max.get())
            .try_collect()
            .await?;
        parts.sort_by_key(CompletedPart::part_number);
        upload.complete(parts, len_u64(&value), sent).await
    }

    /// Whether the object is what the write of this mark made of it. `false` says nothing: it may have been replaced,
    /// or still be on its way.
    pub(crate) async fn is_there(&self, name: &str, mark: &Mark) -> bool {
        let head = || async {
            let answer = self.ask(Request::of_object("HEAD", name)).await?;
            Ok(Mark::of_answer(&answer))
        };
        matches!(self.repeat(0, head).await, Ok(Some(found)) if found == *mark)
    }

    /// Removes the object `name`, whether it is there or not.
    pub(crate) async fn remove(&self, name: &str, sent: &Sent) -> Result<(), Fault> {
        let delete = || async {
            match self.ask(Request::of_object("DELETE", name)).await {
                // An error under the status 200 would look like a success.
                Ok(answer) if answer.status().as_u16() != 204 => {
                    let status = answer.status();
                    Err(Failure::garbled(format!(
                        "a DELETE was answered by {status}"
                    )))
                }
                Ok(answer) => skip_body(answer).await,
                Err(failure) if failure.is("NoSuchKey") => Ok(()),
                Err(failure) => Err(failure),
            }
        };
        // Absence afterwards proves nothing: this very request may still be on its way.
        let result = self.commit(0, sent, delete).await;
        result.map_err(|failure| {
            if sent.get() {
                failure.unknown()
            } else {
                failure.not_applied()
            }
        })
    }
}

/// A multipart upload, which is aborted when it is dropped before its completion was asked for.
///
/// After that it is left to a sweep, if it did not come about: Ceph lets an abort take the parts from the object that a
/// slow completion is just making of them. What is left then is listed and has its metadata, and has lost its bytes.
pub(crate) struct Upload {
    wire: Arc<Wire>,
    name: String,
    id: String,
    /// A completion may be on its way, or done.
    completing: bool,
}

impl Upload {
    pub(crate) async fn begin(wire: &Arc<Wire>, name: &str, mark: &Mark) -> Result<Self, Failure> {
        let begin = || async {
            let request = wire
                .sdk()
                .create_multipart_upload()
                .bucket(&wire.config.bucket)
                .key(name)
                .metadata(mark::ENTRY, mark.text());
            let output = Box::pin(request.send()).await.map_err(Failure::of)?;
            let id = output.upload_id.filter(|id| !id.is_empty());
            id.ok_or_else(|| Failure::garbled("an upload without an id"))
        };
        let id = wire.repeat(0, begin).await?;
        Ok(Self {
            wire: Arc::clone(wire),
            name: name.to_owned(),
            id,
            completing: false,
        })
    }

    /// Uploads one part. Nobody sees it, so it is repeated whatever went wrong.
    pub(crate) async fn part(&self, number: i32, part: Bytes) -> Result<CompletedPart, Failure> {
        let len = len_u64(&part);
        let put = || {
            let part = part.clone();
            async move {
                let request = self
                    .wire
                    .sdk()
                    .upload_part()
                    .bucket(&self.wire.config.bucket)
                    .key(&self.name)
                    .upload_id(&self.id)
                    .part_number(number)
                    .body(ByteStream::from(part));
                let result = if self.wire.config.signs_payloads() {
                    Box::pin(request.send()).await
                } else {
                    Box::pin(request.customize().disable_payload_signing().send()).await
                };
                let etag = result.map_err(Failure::of)?.e_tag;
                let etag = etag.filter(|etag| !etag.is_empty());
                etag.ok_or_else(|| Failure::garbled("a part was answered without an ETag"))
            }
        };
        let etag = self.wire.repeat(len, put).await?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .e_tag(etag)
            .build())
    }

    /// Makes the parts an object of `len_bytes`, which takes the server the longer the longer it is.
    pub(crate) async fn complete(
        mut self,
        parts: Vec<CompletedPart>,
        len_bytes: u64,
        sent: &Sent,
    ) -> Result<(), Failure> {
        self.completing = true;
        let this = &self;
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let complete = || {
            let parts = parts.clone();
            async move {
                let request = this
                    .wire
                    .sdk()
                    .complete_multipart_upload()
                    .bucket(&this.wire.config.bucket)
                    .key(&this.name)
                    .upload_id(&this.id)
                    .multipart_upload(parts);
                let output = Box::pin(request.send()).await.map_err(|e| {
                    let mut failure = Failure::of(e);
                    // The request may have been delivered twice, and the first one found it.
                    if failure.is("NoSuchUpload") {
                        failure.harmless = false;
                        failure.again = false;
                    }
                    failure
                })?;
                let etag = output.e_tag.filter(|etag| !etag.is_empty());
                etag.ok_or_else(|| Failure::garbled("an upload was completed without an ETag"))
            }
        };
        let result = self.wire.commit(len_bytes, sent, complete).await;
        // The server has refused.
        self.completing = sent.get();
        result.map(drop)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.completing {
            return;
        }
        let wire = Arc::clone(&self.wire);
        let (name, id) = (std::mem::take(&mut self.name), std::mem::take(&mut self.id));
        self.wire.spawn(async move {
            wire.abort(&name, &id).await;
        });
    }
}

impl Wire {
    /// Gives up an upload; what cannot be given up now is left to a sweep.
    pub(crate) async fn abort(&self, name: &str, id: &str) -> bool {
        let abort = || async {
            let request = self
                .sdk()
                .abort_multipart_upload()
                .bucket(&self.config.bucket)
                .key(name)
                .upload_id(id);
            match Box::pin(request.send()).await {
                Ok(_) => Ok(()),
                Err(e) => match Failure::of(e) {
                    failure if failure.is("NoSuchUpload") => Ok(()),
                    failure => Err(failure),
                },
            }
        };
        self.repeat(0, abort).await.is_ok()
    }
}

pub(crate) fn len_u64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length in memory fits 64 bits")
}
