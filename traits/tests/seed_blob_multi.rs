//! Holds `BlobMulti` against the page it was taken from: an impl in that page's expanded form satisfies the trait.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use larder_traits::{Atomicity, BlobMulti, ExternalError};

#[derive(Debug)]
struct Seed;

impl BlobMulti for Seed {
    fn get<'life0, 'life1, 'async_trait>(
        &'life0 self,
        _deadline: Instant,
        _key: &'life1 str,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>, ExternalError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(None) })
    }

    fn list_keys<'life0, 'async_trait>(
        &'life0 self,
        _deadline: Instant,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<String>, ExternalError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn set<'life0, 'life1, 'async_trait>(
        &'life0 self,
        _deadline: Instant,
        _key: &'life1 str,
        _value: Bytes,
        _atomic: Atomicity,
    ) -> Pin<Box<dyn Future<Output = Result<(), ExternalError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }

    fn delete<'life0, 'life1, 'async_trait>(
        &'life0 self,
        _deadline: Instant,
        _key: &'life1 str,
    ) -> Pin<Box<dyn Future<Output = Result<(), ExternalError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }
}

#[test]
fn the_expanded_form_is_a_blob_multi_and_so_are_pointers_to_it() {
    fn is<T: BlobMulti + ?Sized>() {}
    is::<Seed>();
    is::<dyn BlobMulti>();
    is::<Box<dyn BlobMulti>>();
    is::<std::sync::Arc<dyn BlobMulti>>();
    is::<&dyn BlobMulti>();
}
