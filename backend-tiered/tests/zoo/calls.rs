//! The calls of the copy: which way a put goes, and where a get looks.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_conformance::schedule::step;
use larder_traits::{
    Backend, BackendError, ClientStream, ErrorKind, Fault, GetResponse, Metadata, ObjectId, Step,
    TieredGet, TieredMetadata,
};

use super::{Copied, Flaw, Result, UNIQUE, not_applied};
use crate::common::{Combinator, LEASE, Parts, THRESHOLD_BYTES};

/// How many changes are claimed at once.
const PAGE: usize = 10;

#[async_trait]
impl Backend for Copied {
    fn name(&self) -> &'static str {
        "copy"
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Result<()> {
        if self.is(Flaw::RecordsBeforeItKnowsTheSize) {
            let change = self.begin(id, Step::Upload);
            self.record(&change).await.map_err(not_applied)?;
            self.complete(&change).await;
        }
        // The checks' payloads are short; but a slow one must reach the long-term tier as it comes.
        let mut stream = stream;
        let (mut read, mut len) = (Vec::new(), 0);
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(BackendError::Client)?;
            let chunk = piece.len();
            if chunk == 0 && self.is(Flaw::EndsAtAnEmptyPiece) {
                break;
            }
            len += chunk;
            read.push(piece);
            let is_large = match (self.0.flaw, metadata.size) {
                (Flaw::IsOffByOne, _) => len >= THRESHOLD_BYTES,
                (Flaw::JudgesByTheChunk, _) => chunk > THRESHOLD_BYTES,
                (Flaw::BelievesTheSize, Some(told)) => {
                    usize::try_from(told).is_ok_and(|told| told > THRESHOLD_BYTES)
                }
                _ => len > THRESHOLD_BYTES,
            };
            if is_large {
                let whole = stream::iter(read.into_iter().map(Ok)).chain(stream).boxed();
                return self.large(id.clone(), metadata.clone(), whole).await;
            }
        }
        self.small(id.clone(), metadata.clone(), read.concat().into())
            .await
    }

    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse> {
        let Parts {
            high, long, run, ..
        } = &self.0.parts;
        let mut last = None;
        for _ in 0..8 {
            let seen = match high.get_tiered_object(id).await? {
                TieredGet::Object(metadata, payload) => return Ok(Some((metadata, payload))),
                TieredGet::NotFound if self.is(Flaw::AsksBothTiers) => {
                    return long.get_object(id).await;
                }
                TieredGet::NotFound => return Ok(None),
                TieredGet::Tombstone(seen) => seen,
            };
            if let Some((metadata, payload)) = long.get_object(&seen.target).await? {
                if let Some(later) = metadata
                    .time_expires
                    .filter(|it| Some(*it) > seen.time_expires)
                    && !self.is(Flaw::NeverFollowsThePayload)
                {
                    drop(high.extend_expiry(id, &seen.target, later).await);
                }
                return Ok(Some((metadata, payload)));
            }
            let is_known =
                last.as_ref() == Some(&seen.target) || self.is(Flaw::EndsAtAnOldDeadline);
            let has_ended = is_known && seen.is_expired(self.now());
            if has_ended || self.is(Flaw::TakesAMissForAbsence) {
                return Ok(None);
            }
            last = Some(seen.target);
            if self.is(Flaw::GivesUpAtTheFirstMiss) {
                break;
            }
            run.sleep(Duration::from_millis(20)).await;
        }
        Err(Fault::not_applied(ErrorKind::Unavailable, "the payload is missing").into())
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>> {
        if self.is(Flaw::AnswersForThePayload)
            && let TieredMetadata::Tombstone(seen) = self.look(id).await?
        {
            let mut metadata = Metadata::with_policy(seen.expiration_policy);
            metadata.time_expires = seen.time_expires;
            return Ok(Some(metadata));
        }
        let is_direct = self.is(Flaw::TakesAMissForAbsenceInMetadata)
            || self.is(Flaw::NeverFollowsThePayloadInMetadata);
        if is_direct && let TieredMetadata::Tombstone(seen) = self.look(id).await? {
            let Parts { high, long, .. } = &self.0.parts;
            let found = long.get_metadata(&seen.target).await?;
            let later = found.as_ref().and_then(|it| it.time_expires);
            if let Some(later) = later.filter(|it| Some(*it) > seen.time_expires)
                && !self.is(Flaw::NeverFollowsThePayloadInMetadata)
            {
                drop(high.extend_expiry(id, &seen.target, later).await);
            }
            if found.is_some() || self.is(Flaw::TakesAMissForAbsenceInMetadata) {
                return Ok(found);
            }
        }
        let found = self.get_object(id).await?;
        let Some((metadata, payload)) = found else {
            return Ok(None);
        };
        let _: Vec<Bytes> = payload.try_collect().await?;
        Ok(Some(metadata))
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<()> {
        let high = &self.0.parts.high;
        if self.is(Flaw::DeletesOnlyTheRow) {
            return high.delete_object(id).await;
        }
        let Some(seen) = high.delete_non_tombstone(id).await? else {
            return Ok(());
        };
        let (this, id) = (self.clone(), id.clone());
        self.finish(async move { this.unlink(id, seen).await })
            .await
    }

    async fn join(&self) {
        let begun = UNIQUE.load(SeqCst);
        while self.is_running(begun) {
            // Whoever sleeps has to be let sleep.
            self.0.parts.run.sleep(Duration::from_millis(1)).await;
            step().await;
        }
    }
}

#[async_trait]
impl Combinator for Copied {
    async fn recover(&self) -> Result<(), Fault> {
        let Parts { log, .. } = &self.0.parts;
        let own = self.retry(|| log.changes(self.0.writer)).await?;
        let of_its_own = match self.is(Flaw::TakesUpOnePageOfItsOwn) {
            true => PAGE,
            false => own.len(),
        };
        for change in own.into_iter().take(of_its_own) {
            let is_open = self.0.open.lock().unwrap().contains(&change.id);
            if !is_open || self.is(Flaw::RecoversWhatIsOpenHere) {
                self.0.open.lock().unwrap().push(change.id);
                self.leased(self.resolve(change)).await;
            }
        }
        loop {
            self.retry(|| self.hold()).await?;
            let now = match self.is(Flaw::IgnoresLeases) {
                true => self.now() + LEASE * 1_000,
                false => self.now(),
            };
            let claimed = self.retry(|| log.claim(self.0.writer, now, PAGE)).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            let mut are_resolved = true;
            for change in claimed {
                self.0.open.lock().unwrap().push(change.id);
                are_resolved &= self.leased(self.resolve(change)).await;
            }
            let gives_up = !are_resolved && self.is(Flaw::RecoversUntilAFailure);
            if gives_up || self.is(Flaw::RecoversOnePage) {
                return Ok(());
            }
        }
    }
}
