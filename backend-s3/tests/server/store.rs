//! The map behind the protocol.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use larder_traits::{Clock, SystemClock};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateBucketInput, CreateBucketOutput,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteBucketInput, DeleteBucketOutput,
    DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition, GetObjectInput, GetObjectOutput,
    HeadObjectInput, HeadObjectOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListObjectsV2Input, ListObjectsV2Output, MultipartUpload, Object, PutObjectInput,
    PutObjectOutput, StreamingBlob, Timestamp, UploadPartInput, UploadPartOutput,
};
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

/// What an encoded key keeps as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');

/// How the server differs from a correct one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quirks {
    /// Conditions of PUT are accepted and ignored.
    pub(crate) ignores_conditions: bool,
    /// `If-None-Match` of PUT is kept and `If-Match` ignored.
    pub(crate) ignores_if_match: bool,
    /// Conditions of PUT are refused as something that is not implemented.
    pub(crate) refuses_conditions: bool,
    /// The same content has the same ETag.
    pub(crate) content_etags: bool,
    /// Nobody's credentials are accepted.
    pub(crate) revoked: bool,
    /// The most keys in a page, whatever was asked for.
    pub(crate) page_keys_max: Option<usize>,
    /// How long every request waits before it looks at the map.
    pub(crate) delay: Duration,
    /// Listings end in the middle and say that they are complete.
    pub(crate) loses_keys: bool,
    /// `Range` is accepted and ignored.
    pub(crate) ignores_range: bool,
    /// A PUT whose `If-Match` does not hold is an internal error the first time that it arrives.
    pub(crate) loses_races_with_errors: bool,
    /// An answer to a request with a range is partial and does not say which part it is.
    pub(crate) hides_range: bool,
    /// A key that every page of a listing begins with, written as it is here.
    pub(crate) lists_besides: Option<&'static str>,
    /// How listings never end.
    pub(crate) lists_for_ever: Option<Endless>,
    /// A PUT with any condition is an internal error.
    pub(crate) chokes_on_conditions: bool,
}

/// How a listing goes on and on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endless {
    /// The first page comes again and again, and says each time that it goes on elsewhere.
    SamePage,
    /// There are two pages, and each says that the other one follows.
    InCircles,
    /// Behind the first page there is nothing, and each page says that more follows.
    Nothing,
}

#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) body: Bytes,
    pub(crate) etag: String,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) modified: SystemTime,
}

#[derive(Debug)]
struct Upload {
    bucket: String,
    key: String,
    metadata: HashMap<String, String>,
    initiated: SystemTime,
    parts: BTreeMap<i32, (String, Bytes)>,
}

#[derive(Debug, Default)]
struct State {
    buckets: BTreeMap<String, BTreeMap<String, Stored>>,
    uploads: BTreeMap<String, Upload>,
    versions: u64,
    quirks: Quirks,
    /// The longest part and the longest body of a single PUT so far.
    longest: usize,
    /// The checksums of bodies that were refused by an error that says nothing.
    puzzled: HashSet<u32>,
    counts: BTreeMap<&'static str, u64>,
    requests: u64,
}

/// Buckets, objects and uploads.
#[derive(Debug, Default)]
pub(crate) struct Store(Mutex<State>);

/// The same as the protocol sees it.
#[derive(Clone)]
pub(super) struct Shared(pub(super) Arc<Store>);

impl State {
    fn etag_of(&mut self, body: &[u8]) -> String {
        self.versions += 1;
        if self.quirks.content_etags {
            format!("{:08x}-{}", crc32c::crc32c(body), body.len())
        } else {
            format!("v{}", self.versions)
        }
    }

    fn bucket(&mut self, bucket: &str) -> S3Result<&mut BTreeMap<String, Stored>> {
        let found = self.buckets.get_mut(bucket);
        found.ok_or_else(|| s3_error!(NoSuchBucket))
    }

    fn object(&mut self, bucket: &str, key: &str) -> S3Result<Stored> {
        let found = self.bucket(bucket)?.get(key).cloned();
        found.ok_or_else(|| s3_error!(NoSuchKey))
    }

    fn check(
        &mut self,
        bucket: &str,
        key: &str,
        is: Option<&ETagCondition>,
        is_not: Option<&ETagCondition>,
    ) -> S3Result<()> {
        let Quirks {
            ignores_conditions,
            ignores_if_match,
            refuses_conditions,
            ..
        } = self.quirks;
        if refuses_conditions && (is.is_some() || is_not.is_some()) {
            return Err(s3_error!(NotImplemented));
        }
        if self.quirks.chokes_on_conditions && (is.is_some() || is_not.is_some()) {
            return Err(s3_error!(InternalError));
        }
        let there = self.bucket(bucket)?.get(key).map(|it| it.etag.clone());
        if !ignores_conditions {
            if is_not.is_some() && there.is_some() {
                return Err(s3_error!(PreconditionFailed));
            }
            let wanted = is.filter(|_| !ignores_if_match);
            match (wanted.and_then(ETagCondition::as_etag), there) {
                (Some(_), None) => return Err(s3_error!(NoSuchKey)),
                (Some(etag), Some(there)) if etag.value() != there => {
                    return Err(s3_error!(PreconditionFailed));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        bucket: &str,
        key: String,
        body: Bytes,
        metadata: HashMap<String, String>,
    ) -> S3Result<String> {
        let etag = self.etag_of(&body);
        let stored = Stored {
            body,
            etag: etag.clone(),
            metadata,
            modified: SystemClock::default().now(),
        };
        self.bucket(bucket)?.insert(key, stored);
        Ok(etag)
    }
}

impl Store {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn quirks(&self) -> Quirks {
        self.state().quirks.clone()
    }

    pub(crate) fn with_quirks(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut self.state().quirks);
    }

    pub(crate) fn create_bucket(&self, bucket: &str) {
        self.state().buckets.entry(bucket.into()).or_default();
    }

    pub(crate) fn remove_bucket(&self, bucket: &str) {
        self.state().buckets.remove(bucket);
    }

    /// Every object of the bucket with its name.
    pub(crate) fn objects(&self, bucket: &str) -> BTreeMap<String, Stored> {
        self.state()
            .buckets
            .get(bucket)
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn plant(&self, bucket: &str, key: &str, body: impl Into<Bytes>) {
        let put = self
            .state()
            .put(bucket, key.into(), body.into(), HashMap::new());
        put.expect("the bucket is there");
    }

    /// Changes the bytes of an object behind everybody's back.
    pub(crate) fn damage(&self, bucket: &str, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let stored = state.buckets.get_mut(bucket).and_then(|it| it.get_mut(key));
        let stored = stored.expect("the object is there");
        let mut body = stored.body.to_vec();
        change(&mut body);
        stored.body = body.into();
    }

    /// An upload that somebody began and left.
    pub(crate) fn begin_upload(&self, bucket: &str, key: &str) {
        let mut state = self.state();
        state.versions += 1;
        let id = format!("upload-{}", state.versions);
        let upload = Upload {
            bucket: bucket.into(),
            key: key.into(),
            metadata: HashMap::new(),
            initiated: SystemClock::default().now(),
            parts: BTreeMap::new(),
        };
        state.uploads.insert(id, upload);
    }

    /// How many uploads are in progress.
    pub(crate) fn uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// Makes all uploads that are in progress so much older.
    pub(crate) fn age_uploads(&self, by: Duration) {
        for upload in self.state().uploads.values_mut() {
            upload.initiated -= by;
        }
    }

    /// The longest body of a PUT or a part so far.
    pub(crate) fn longest(&self) -> usize {
        self.state().longest
    }

    /// How many PUTs were refused by an error that says nothing.
    pub(crate) fn puzzles(&self) -> usize {
        self.state().puzzled.len()
    }

    /// How many requests came, those included that were refused.
    pub(crate) fn requests(&self) -> u64 {
        self.state().requests
    }

    pub(super) fn count_request(&self) {
        self.state().requests += 1;
    }

    /// How many requests of this operation were served.
    pub(crate) fn count(&self, operation: &'static str) -> u64 {
        self.state().counts.get(operation).copied().unwrap_or(0)
    }
}

impl Shared {
    /// Waits as long as a request has to, then counts it.
    async fn begin(&self, operation: &'static str) {
        let delay = self.0.quirks().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        *self.0.state().counts.entry(operation).or_default() += 1;
    }
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let mut whole = BytesMut::new();
    if let Some(mut body) = body {
        while let Some(bytes) = body
            .try_next()
            .await
            .map_err(|_e| s3_error!(IncompleteBody))?
        {
            whole.extend_from_slice(&bytes);
        }
    }
    Ok(whole.freeze())
}

fn len_i64(len: usize) -> i64 {
    i64::try_from(len).expect("a length in memory fits")
}

#[async_trait::async_trait]
impl S3 for Shared {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        self.0.create_bucket(&req.input.bucket);
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.0.remove_bucket(&req.input.bucket);
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        self.begin("PutObject").await;
        let input = req.input;
        let body = collect(input.body).await?;
        let mut state = self.0.state();
        state.longest = state.longest.max(body.len());
        let checked = state.check(
            &input.bucket,
            &input.key,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        );
        let puzzles = state.quirks.loses_races_with_errors && input.if_match.is_some();
        if checked.is_err() && puzzles && state.puzzled.insert(crc32c::crc32c(&body)) {
            return Err(s3_error!(InternalError));
        }
        checked?;
        let metadata = input.metadata.unwrap_or_default();
        let etag = state.put(
            &input.bucket,
            input.key,
            body,
            metadata.into_iter().collect(),
        )?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.begin("GetObject").await;
        let input = req.input;
        let mut state = self.0.state();
        let ignores_range = state.quirks.ignores_range;
        let stored = state.object(&input.bucket, &input.key)?;
        let wanted = input.if_match.as_ref().and_then(ETagCondition::as_etag);
        if wanted.is_some_and(|etag| etag.value() != stored.etag) {
            return Err(s3_error!(PreconditionFailed));
        }
        let total = u64::try_from(stored.body.len()).expect("a length in memory fits");
        let range = match input.range.filter(|_| !ignores_range) {
            Some(range) => Some(range.check(total).map_err(|_e| s3_error!(InvalidRange))?),
            None => None,
        };
        let body = match &range {
            Some(range) => {
                let at = |at: u64| usize::try_from(at).expect("it is within the body");
                stored.body.slice(at(range.start)..at(range.end))
            }
            None => stored.body,
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(len_i64(body.len())),
            content_range: range
                .map(|range| format!("bytes {}-{}/{total}", range.start, range.end - 1)),
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(Timestamp::from(stored.modified)),
            metadata: Some(stored.metadata.into_iter().collect()),
            body: Some(StreamingBlob::from(Body::from(body))),
            ..Default::default()
        }))
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.begin("HeadObject").await;
        let stored = self.0.state().object(&req.input.bucket, &req.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(len_i64(stored.body.len())),
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(Timestamp::from(stored.modified)),
            metadata: Some(stored.metadata.into_iter().collect()),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.begin("DeleteObject").await;
        // Conditions of a DELETE are ignored, as they are by most servers.
        let mut state = self.0.state();
        state.bucket(&req.input.bucket)?.remove(&req.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.begin("ListObjectsV2").await;
        let input = req.input;
        let mut state = self.0.state();
        let quirks = state.quirks.clone();
        let asked = input.max_keys.and_then(|max| usize::try_from(max).ok());
        let max = asked.unwrap_or(1_000).min(1_000);
        let max = max.min(quirks.page_keys_max.unwrap_or(usize::MAX)).max(1);
        let prefix = input.prefix.unwrap_or_default();
        let mut after = input.continuation_token.or(input.start_after);
        let token = after.clone().unwrap_or_default();
        let endless = quirks.lists_for_ever;
        match endless {
            Some(Endless::SamePage) => after = None,
            Some(Endless::InCircles) => after = after.filter(|after| after != "round"),
            Some(Endless::Nothing) | None => {}
        }
        let encoded = input.encoding_type.is_some();
        let mut found = state
            .bucket(&input.bucket)?
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
        let page: Vec<_> = found.by_ref().take(max).collect();
        let truncated = found.next().is_some() && !quirks.loses_keys;
        let next = page.last().map(|(key, _)| (*key).clone());
        let (truncated, next) = match endless {
            None => (truncated, next),
            Some(Endless::InCircles) if !truncated => (true, Some("round".into())),
            Some(Endless::InCircles) => (true, next),
            // It sorts behind every name, and is another one each time.
            Some(Endless::SamePage | Endless::Nothing) => (true, Some(format!("{token}~"))),
        };
        let besides = quirks.lists_besides.map(|key| Object {
            key: Some(key.into()),
            size: Some(0),
            ..Default::default()
        });
        let page = page.into_iter().map(|(key, stored)| Object {
            key: Some(match encoded {
                true => utf8_percent_encode(key, KEPT).to_string(),
                false => key.clone(),
            }),
            size: Some(len_i64(stored.body.len())),
            e_tag: Some(ETag::Strong(stored.etag.clone())),
            last_modified: Some(Timestamp::from(stored.modified)),
            ..Default::default()
        });
        let contents: Vec<Object> = besides.into_iter().chain(page).collect();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            key_count: i32::try_from(contents.len()).ok(),
            max_keys: i32::try_from(max).ok(),
            is_truncated: Some(truncated),
            next_continuation_token: next.filter(|_| truncated),
            encoding_type: input.encoding_type,
            contents: Some(contents),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.begin("CreateMultipartUpload").await;
        let input = req.input;
        let mut state = self.0.state();
        state.bucket(&input.bucket)?;
        state.versions += 1;
        let id = format!("upload-{}", state.versions);
        let upload = Upload {
            bucket: input.bucket.clone(),
            key: input.key.clone(),
            metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            initiated: SystemClock::default().now(),
            parts: BTreeMap::new(),
        };
        state.uploads.insert(id.clone(), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        self.begin("UploadPart").await;
        let input = req.input;
        let body = collect(input.body).await?;
        let mut state = self.0.state();
        state.longest = state.longest.max(body.len());
        // What Amazon gives is a hash of the part as well: a part that is delivered twice is the same part.
        let etag = format!("{:08x}-{}", crc32c::crc32c(&body), body.len());
        let upload = state.uploads.get_mut(&input.upload_id);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        upload.parts.insert(input.part_number, (etag.clone(), body));
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.begin("CompleteMultipartUpload").await;
        let input = req.input;
        let mut state = self.0.state();
        // Conditions are ignored here, as they are by most servers.
        let upload = state.uploads.get(&input.upload_id);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        if upload.bucket != input.bucket || upload.key != input.key {
            return Err(s3_error!(NoSuchUpload));
        }
        let named = input
            .multipart_upload
            .and_then(|it| it.parts)
            .unwrap_or_default();
        if named.is_empty() {
            return Err(s3_error!(MalformedXML));
        }
        let mut body = BytesMut::new();
        let mut last = 0;
        for part in named {
            let number = part.part_number.ok_or_else(|| s3_error!(MalformedXML))?;
            if number <= last {
                return Err(s3_error!(InvalidPartOrder));
            }
            last = number;
            let there = upload.parts.get(&number);
            let (etag, bytes) = there.ok_or_else(|| s3_error!(InvalidPart))?;
            if part.e_tag.is_none_or(|named| named.value() != etag) {
                return Err(s3_error!(InvalidPart));
            }
            body.extend_from_slice(bytes);
        }
        let metadata = upload.metadata.clone();
        let etag = state.put(&input.bucket, input.key.clone(), body.freeze(), metadata)?;
        state.uploads.remove(&input.upload_id);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.begin("AbortMultipartUpload").await;
        let removed = self.0.state().uploads.remove(&req.input.upload_id);
        removed.ok_or_else(|| s3_error!(NoSuchUpload))?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.begin("ListMultipartUploads").await;
        let input = req.input;
        let mut state = self.0.state();
        state.bucket(&input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let encoded = input.encoding_type.is_some();
        let mut all: Vec<(&String, &Upload)> = state
            .uploads
            .iter()
            .filter(|(_, upload)| upload.bucket == input.bucket && upload.key.starts_with(&prefix))
            .collect();
        all.sort_by_key(|(id, upload)| (&upload.key, *id));
        let uploads = all.into_iter().map(|(id, upload)| MultipartUpload {
            key: Some(match encoded {
                true => utf8_percent_encode(&upload.key, KEPT).to_string(),
                false => upload.key.clone(),
            }),
            upload_id: Some(id.clone()),
            initiated: Some(Timestamp::from(upload.initiated)),
            ..Default::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: Some(prefix),
            is_truncated: Some(false),
            encoding_type: input.encoding_type,
            uploads: Some(uploads.collect()),
            ..Default::default()
        }))
    }
}
