//! Holds `HighVolumeBackend` against the page it was taken from: an impl in that page's expanded form satisfies the
//! trait.

use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::{
    Backend, BackendError, ClientStream, GetResponse, HighVolumeBackend, Metadata, ObjectId,
    TieredGet, TieredMetadata, TieredWrite, Tombstone,
};

type Result<T> = std::result::Result<T, BackendError>;

#[derive(Debug)]
struct Seed;

#[async_trait]
impl Backend for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }
    async fn put_object(&self, _: &ObjectId, _: &Metadata, _: ClientStream) -> Result<()> {
        Ok(())
    }
    async fn get_object(&self, _: &ObjectId) -> Result<GetResponse> {
        Ok(None)
    }
    async fn get_metadata(&self, _: &ObjectId) -> Result<Option<Metadata>> {
        Ok(None)
    }
    async fn delete_object(&self, _: &ObjectId) -> Result<()> {
        Ok(())
    }
    async fn join(&self) {}
}

impl HighVolumeBackend for Seed {
    fn put_non_tombstone<'life0, 'life1, 'life2, 'async_trait>(
        &'life0 self,
        _id: &'life1 ObjectId,
        _metadata: &'life2 Metadata,
        _payload: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Tombstone>>> + Send + 'async_trait>>
    where
        Self: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
    {
        Box::pin(async { Ok(None) })
    }

    fn get_tiered_object<'life0, 'life1, 'async_trait>(
        &'life0 self,
        _id: &'life1 ObjectId,
    ) -> Pin<Box<dyn Future<Output = Result<TieredGet>> + Send + 'async_trait>>
    where
        Self: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
    {
        Box::pin(async { Ok(TieredGet::NotFound) })
    }

    fn get_tiered_metadata<'life0, 'life1, 'async_trait>(
        &'life0 self,
        _id: &'life1 ObjectId,
    ) -> Pin<Box<dyn Future<Output = Result<TieredMetadata>> + Send + 'async_trait>>
    where
        Self: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
    {
        Box::pin(async { Ok(TieredMetadata::NotFound) })
    }

    fn delete_non_tombstone<'life0, 'life1, 'async_trait>(
        &'life0 self,
        _id: &'life1 ObjectId,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Tombstone>>> + Send + 'async_trait>>
    where
        Self: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
    {
        Box::pin(async { Ok(None) })
    }

    fn compare_and_write<'life0, 'life1, 'life2, 'async_trait>(
        &'life0 self,
        _id: &'life1 ObjectId,
        _current: Option<&'life2 ObjectId>,
        _write: TieredWrite,
    ) -> Pin<Box<dyn Future<Output = Result<bool>> + Send + 'async_trait>>
    where
        Self: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
    {
        Box::pin(async { Ok(false) })
    }
}

#[test]
fn the_expanded_form_is_a_high_volume_backend_and_so_are_pointers_to_it() {
    fn is<T: HighVolumeBackend + ?Sized>() {}
    is::<Seed>();
    is::<dyn HighVolumeBackend>();
    is::<Box<dyn HighVolumeBackend>>();
    is::<std::sync::Arc<dyn HighVolumeBackend>>();
}
