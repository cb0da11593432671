//! [`BlobMulti`] that misbehaves. Its deadlines hold also for calls that hang or wait (BM-7).

use std::ops::Range;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::{Atomicity, BlobInfo, BlobMulti, ExternalError};

use super::Faulty;
use super::call::What;
use super::switch::Effect::{Read, Write};

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: BlobMulti + 'static> BlobMulti for Faulty<S> {
    async fn get(&self, deadline: Instant, key: &str) -> Result<Option<Vec<u8>>, ExternalError> {
        let what = What::new("get", Read, key).by(deadline);
        let key = key.to_owned();
        self.call(what, move |inner, when| async move {
            inner.get(when.deadline(deadline), &key).await
        })
        .await
    }

    async fn list_keys(&self, deadline: Instant) -> Result<Vec<String>, ExternalError> {
        let what = What::new("list_keys", Read, "").by(deadline);
        self.call(what, move |inner, when| async move {
            inner.list_keys(when.deadline(deadline)).await
        })
        .await
    }

    async fn set(
        &self,
        deadline: Instant,
        key: &str,
        value: Bytes,
        atomic: Atomicity,
    ) -> Result<(), ExternalError> {
        let what = What::new("set", Write, key).by(deadline);
        let key = key.to_owned();
        self.call(what, move |inner, when| async move {
            let deadline = when.deadline(deadline);
            inner.set(deadline, &key, value, atomic).await
        })
        .await
    }

    async fn delete(&self, deadline: Instant, key: &str) -> Result<(), ExternalError> {
        let what = What::new("delete", Write, key).by(deadline);
        let key = key.to_owned();
        self.call(what, move |inner, when| async move {
            inner.delete(when.deadline(deadline), &key).await
        })
        .await
    }

    async fn get_bytes(
        &self,
        deadline: Instant,
        key: &str,
    ) -> Result<Option<Bytes>, ExternalError> {
        let what = What::new("get_bytes", Read, key).by(deadline);
        let key = key.to_owned();
        self.call(what, move |inner, when| async move {
            inner.get_bytes(when.deadline(deadline), &key).await
        })
        .await
    }

    async fn get_range(
        &self,
        deadline: Instant,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, ExternalError> {
        let what = What::new("get_range", Read, key).by(deadline);
        let key = key.to_owned();
        self.call(what, move |inner, when| async move {
            let deadline = when.deadline(deadline);
            inner.get_range(deadline, &key, range).await
        })
        .await
    }

    async fn list_prefix(
        &self,
        deadline: Instant,
        prefix: &str,
    ) -> Result<Vec<BlobInfo>, ExternalError> {
        let what = What::new("list_prefix", Read, prefix).by(deadline);
        let prefix = prefix.to_owned();
        self.call(what, move |inner, when| async move {
            inner.list_prefix(when.deadline(deadline), &prefix).await
        })
        .await
    }
}
