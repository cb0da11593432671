//! `Backend` on plain files: metadata and payload in one.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use larder_conformance::{BoxError, Caps, Suite, backend};
use larder_traits::GetResponse;
use larder_traits::{
    Backend, BackendError, ClientStream, ErrorKind, Fault, Metadata, ObjectId, PayloadStream,
};

use super::{Files, Flaw, World, failed};

#[derive(Debug)]
pub(crate) struct Store(Arc<Files>);

impl Store {
    fn read(&self, id: &ObjectId) -> Result<Option<(Metadata, Bytes)>, BackendError> {
        let Some(bytes) = self.0.get(id.to_string().as_bytes()).map_err(failed)? else {
            return Ok(None);
        };
        let damaged = || Fault::not_applied(ErrorKind::Corrupt, "a damaged object");
        let (len, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let (metadata, payload) = rest.split_at_checked(len).ok_or_else(damaged)?;
        let metadata = serde_json::from_slice(metadata).map_err(|_e| damaged())?;
        Ok(Some((metadata, Bytes::copy_from_slice(payload))))
    }
}

#[async_trait]
impl Backend for Store {
    fn name(&self) -> &'static str {
        "files"
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        mut stream: ClientStream,
    ) -> Result<(), BackendError> {
        let mut payload = Vec::new();
        while let Some(chunk) = stream.next().await {
            payload.extend_from_slice(&chunk.map_err(BackendError::Client)?);
        }
        let mut metadata = metadata.clone();
        metadata.size = u64::try_from(payload.len()).ok();
        let metadata = serde_json::to_vec(&metadata)
            .map_err(|e| Fault::not_applied(ErrorKind::InvalidInput, "metadata").because(e))?;
        let len = u64::try_from(metadata.len()).expect("a length fits 64 bits");
        let object = [&len.to_le_bytes()[..], &metadata, &payload].concat();
        Ok(self
            .0
            .put(id.to_string().as_bytes(), &object)
            .map_err(failed)?)
    }

    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        let found = self.read(id)?;
        Ok(found.map(|(metadata, payload)| {
            let stream: PayloadStream = stream::iter([Ok(payload)]).boxed();
            (metadata, stream)
        }))
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        Ok(self.read(id)?.map(|(metadata, _)| metadata))
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        Ok(self.0.delete(id.to_string().as_bytes()).map_err(failed)?)
    }

    async fn join(&self) {}
}

impl backend::Open for World {
    type Store = Store;

    async fn open(&self, place: &str) -> Result<Store, BoxError> {
        Ok(Store(self.place(place)?))
    }
}

pub(crate) fn suite(caps: Caps, flaw: Flaw) -> Suite {
    backend::suite_with(move |env| async move { World::new(&env, caps, flaw) })
}
