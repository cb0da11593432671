//! Holds `KvClient` against the page it was taken from: an impl in that page's expanded form satisfies the trait.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use larder_traits::{KvClient, KvClientError, KvDriver};

struct Seed;

impl KvClient for Seed {
    fn put<'life0, 'async_trait>(
        &'life0 self,
        _key: impl AsRef<[u8]> + Send + 'async_trait,
        _value: impl AsRef<[u8]> + Send + 'async_trait,
    ) -> Pin<Box<dyn Future<Output = Result<(), KvClientError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }

    fn put_with_ttl<'life0, 'async_trait>(
        &'life0 self,
        _key: impl AsRef<[u8]> + Send + 'async_trait,
        _value: impl AsRef<[u8]> + Send + 'async_trait,
        _ttl_secs: u64,
    ) -> Pin<Box<dyn Future<Output = Result<(), KvClientError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }

    fn get<'life0, 'async_trait>(
        &'life0 self,
        _key: impl AsRef<[u8]> + Send + 'async_trait,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, KvClientError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(None) })
    }

    fn get_multi<'life0, 'life1, 'async_trait>(
        &'life0 self,
        _keys: &'life1 [Bytes],
    ) -> Pin<
        Box<dyn Future<Output = Result<Vec<Option<Bytes>>, KvClientError>> + Send + 'async_trait>,
    >
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn delete<'life0, 'async_trait>(
        &'life0 self,
        _key: impl AsRef<[u8]> + Send + 'async_trait,
    ) -> Pin<Box<dyn Future<Output = Result<(), KvClientError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }
}

#[test]
fn the_expanded_form_is_a_kv_client_and_so_is_every_driver() {
    fn is<T: KvClient + ?Sized>() {}
    is::<Seed>();
    is::<dyn KvDriver>();
    is::<Box<dyn KvDriver>>();
    is::<std::sync::Arc<dyn KvDriver>>();
}
