//! [`Backend`] and [`HighVolumeBackend`]: one map from ids to objects and redirects.

use std::sync::MutexGuard;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use larder_traits::{
    Backend, BackendError, ClientStream, ExpirationPolicy, Fault, GetResponse, HighVolumeBackend,
    Metadata, ObjectId, ObjectListing, ObjectPage, PayloadStream, TieredGet, TieredMetadata,
    TieredWrite, Tombstone,
};

use crate::error::bounded;
use crate::native::{Expires, Expiring, MemPlace, lock};

/// The objects and redirects of a place.
///
/// Reading an object and reading its metadata both count as an access that extends a `TimeToIdle` deadline (HV-8); the
/// answer shows the deadline as it is after the access. Since a payload is kept whole, a put collects its stream, up
/// to the declared bound.
#[derive(Clone, Debug)]
pub struct MemHighVolume(pub(crate) MemPlace);

/// What a row holds; no row is the third state.
#[derive(Clone)]
pub(crate) enum Row {
    Object(Metadata, Bytes),
    Tombstone(Tombstone),
}

impl Row {
    fn object(metadata: &Metadata, payload: Bytes, now: SystemTime) -> Result<Self, Fault> {
        let size = u64::try_from(payload.len()).expect("a length in memory fits 64 bits");
        Ok(Self::Object(metadata.stamped(now, size)?, payload))
    }
}

impl Expires for Row {
    fn deadline(&self) -> Option<SystemTime> {
        match self {
            Self::Object(metadata, _) => metadata.time_expires,
            Self::Tombstone(tombstone) => tombstone.time_expires,
        }
    }
}

impl MemHighVolume {
    /// The rows, and the moment at which they were locked.
    fn rows(&self) -> (MutexGuard<'_, Expiring<ObjectId, Row>>, SystemTime) {
        let rows = lock(&self.0.shared.rows);
        (rows, self.0.now())
    }

    fn check_id(&self, id: &ObjectId) -> Result<(), Fault> {
        let max = self.0.config.caps.high_volume.id_len_bytes_max;
        bounded("bytes of an object id's text", id.to_string().len(), max)
    }

    fn check_payload(&self, len: usize) -> Result<(), Fault> {
        let max = self.0.config.caps.high_volume.payload_len_bytes_max;
        bounded("bytes of a payload", len, max)
    }

    /// The row as it is after this access to it.
    fn access(&self, id: &ObjectId) -> Result<Option<Row>, Fault> {
        self.check_id(id)?;
        let (mut rows, now) = self.rows();
        let Some(row) = rows.live(id, now) else {
            return Ok(None);
        };
        if let Row::Object(metadata, _) = row
            && let Some(later) = metadata.deadline_after_access(now)
        {
            metadata.time_expires = Some(later);
        }
        Ok(Some(row.clone()))
    }
}

/// A payload as one chunk, or as none if it is empty.
fn stream_of(payload: Bytes) -> PayloadStream {
    stream::iter((!payload.is_empty()).then_some(Ok(payload))).boxed()
}

fn unexpected(tombstone: Tombstone) -> BackendError {
    BackendError::UnexpectedTombstone(Box::new(tombstone))
}

#[async_trait]
impl Backend for MemHighVolume {
    fn name(&self) -> &'static str {
        "mem"
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        mut stream: ClientStream,
    ) -> Result<(), BackendError> {
        self.check_id(id)?;
        let mut payload = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(BackendError::Client)?;
            self.check_payload(payload.len().saturating_add(chunk.len()))?;
            payload.extend_from_slice(&chunk);
        }
        // No await from here on: a call that is dropped was dropped above, before any effect.
        let (mut rows, now) = self.rows();
        let row = Row::object(metadata, payload.freeze(), now)?;
        rows.put(id.clone(), row, now);
        Ok(())
    }

    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        match self.access(id)? {
            None => Ok(None),
            Some(Row::Object(metadata, payload)) => Ok(Some((metadata, stream_of(payload)))),
            Some(Row::Tombstone(tombstone)) => Err(unexpected(tombstone)),
        }
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        match self.access(id)? {
            None => Ok(None),
            Some(Row::Object(metadata, _)) => Ok(Some(metadata)),
            Some(Row::Tombstone(tombstone)) => Err(unexpected(tombstone)),
        }
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        self.check_id(id)?;
        lock(&self.0.shared.rows).remove(id);
        Ok(())
    }

    /// Nothing is ever left to the background.
    async fn join(&self) {}
}

/// Redirects are no objects and are not named. Expired objects are, until somebody meets them.
#[async_trait]
impl ObjectListing for MemHighVolume {
    async fn list_objects(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ObjectPage, BackendError> {
        let after = after.map(str::parse::<ObjectId>).transpose()?;
        let limit = limit.max(1);
        let (rows, _) = self.rows();
        let objects = rows.iter_after(after);
        let objects = objects.filter(|(_, row)| matches!(row, Row::Object(..)));
        let ids: Vec<ObjectId> = objects.take(limit).map(|(id, _)| id.clone()).collect();
        let next = ids.last().filter(|_| ids.len() == limit);
        let next = next.map(ToString::to_string);
        Ok(ObjectPage::new(ids, next))
    }
}

#[async_trait]
impl HighVolumeBackend for MemHighVolume {
    async fn put_non_tombstone(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<Option<Tombstone>, BackendError> {
        self.check_id(id)?;
        self.check_payload(payload.len())?;
        let (mut rows, now) = self.rows();
        let row = Row::object(metadata, payload, now)?;
        if let Some(Row::Tombstone(tombstone)) = rows.live(id, now) {
            return Ok(Some(tombstone.clone()));
        }
        rows.put(id.clone(), row, now);
        Ok(None)
    }

    async fn get_tiered_object(&self, id: &ObjectId) -> Result<TieredGet, BackendError> {
        Ok(match self.access(id)? {
            None => TieredGet::NotFound,
            Some(Row::Object(metadata, payload)) => TieredGet::Object(metadata, stream_of(payload)),
            Some(Row::Tombstone(tombstone)) => TieredGet::Tombstone(tombstone),
        })
    }

    async fn get_tiered_metadata(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError> {
        Ok(match self.access(id)? {
            None => TieredMetadata::NotFound,
            Some(Row::Object(metadata, _)) => TieredMetadata::Object(metadata),
            Some(Row::Tombstone(tombstone)) => TieredMetadata::Tombstone(tombstone),
        })
    }

    async fn delete_non_tombstone(&self, id: &ObjectId) -> Result<Option<Tombstone>, BackendError> {
        self.check_id(id)?;
        let (mut rows, now) = self.rows();
        if let Some(Row::Tombstone(tombstone)) = rows.live(id, now) {
            return Ok(Some(tombstone.clone()));
        }
        rows.remove(id);
        Ok(None)
    }

    async fn compare_and_write(
        &self,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Result<bool, BackendError> {
        self.check_id(id)?;
        current.map_or(Ok(()), |current| self.check_id(current))?;
        match &write {
            TieredWrite::Tombstone(tombstone) => self.check_id(&tombstone.target)?,
            TieredWrite::Object(_, payload) => self.check_payload(payload.len())?,
            TieredWrite::Delete => {}
        }
        let (mut rows, now) = self.rows();
        let new = match write {
            TieredWrite::Tombstone(tombstone) => Some(Row::Tombstone(tombstone.stamped(now)?)),
            TieredWrite::Object(metadata, payload) => Some(Row::object(&metadata, payload, now)?),
            TieredWrite::Delete => None,
        };
        match (rows.live(id, now), current, &new) {
            // A redirect is there: ours already, or the one that the caller saw, or somebody else's.
            (Some(Row::Tombstone(old)), _, Some(Row::Tombstone(new)))
                if old.target == new.target =>
            {
                return Ok(true);
            }
            (Some(Row::Tombstone(old)), Some(current), _) if old.target == *current => {}
            (Some(Row::Tombstone(_)), _, _) => return Ok(false),
            // None is there, and the caller saw none.
            (_, None, _) => {}
            // The caller's redirect has ended. A delete has nothing left to do; the rest must look again.
            (None, Some(_), None) => return Ok(true),
            (None, Some(_), Some(_)) => return Ok(false),
            // The caller's redirect was replaced by an object, which is newer than an object or a delete of the
            // caller's; a redirect must not hide it.
            (Some(Row::Object(..)), Some(_), Some(Row::Tombstone(_))) => return Ok(false),
            (Some(Row::Object(..)), Some(_), _) => return Ok(true),
        }
        match new {
            Some(row) => rows.put(id.clone(), row, now),
            None => rows.remove(id),
        }
        Ok(true)
    }

    /// Nothing to wait for: no call leaves anything behind that could land later.
    async fn fence(&self, id: &ObjectId) -> Result<(), BackendError> {
        Ok(self.check_id(id)?)
    }

    async fn extend_expiry(
        &self,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        self.check_id(id)?;
        self.check_id(target)?;
        let (mut rows, now) = self.rows();
        // Cut to milliseconds as every deadline is, by the one rule that there is for it.
        let mut wanted =
            Tombstone::new(target.clone(), ExpirationPolicy::TimeToLive(Duration::ZERO));
        wanted.time_expires = Some(at);
        let wanted = wanted.stamped(now)?.time_expires;
        match rows.live(id, now) {
            Some(Row::Tombstone(there)) if there.target == *target => {
                // No deadline at all is the latest one, and `None` would be the earliest of options.
                if there.time_expires.is_some() {
                    there.time_expires = there.time_expires.max(wanted);
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}
