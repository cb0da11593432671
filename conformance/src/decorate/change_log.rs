//! [`ChangeLog`] that misbehaves. Its calls are listed with the change they are about, or with the writer.

use std::time::SystemTime;

use async_trait::async_trait;
use larder_traits::{Change, ChangeId, ChangeLog, Fault, WriterId};

use super::Faulty;
use super::call::What;
use super::switch::Effect::{Read, Write};

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: ChangeLog + 'static> ChangeLog for Faulty<S> {
    async fn record(&self, writer: WriterId, change: &Change) -> Result<(), Fault> {
        let what = What::new("record", Write, change.id);
        let change = change.clone();
        self.call(what, move |inner, _| async move {
            inner.record(writer, &change).await
        })
        .await
    }

    async fn complete(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
        let what = What::new("complete", Write, id);
        self.call(what, move |inner, _| async move {
            inner.complete(writer, id).await
        })
        .await
    }

    async fn changes(&self, writer: WriterId) -> Result<Vec<Change>, Fault> {
        let what = What::new("changes", Read, writer);
        self.call(
            what,
            move |inner, _| async move { inner.changes(writer).await },
        )
        .await
    }

    async fn renew(&self, writer: WriterId, until: SystemTime) -> Result<(), Fault> {
        let what = What::new("renew", Write, writer);
        self.call(what, move |inner, _| async move {
            inner.renew(writer, until).await
        })
        .await
    }

    async fn claim(
        &self,
        writer: WriterId,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<Change>, Fault> {
        let what = What::new("claim", Write, writer);
        self.call(what, move |inner, _| async move {
            inner.claim(writer, now, limit).await
        })
        .await
    }
}
