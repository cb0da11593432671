//! [`StashDriver`] that misbehaves, and a [`Stash`](larder_traits::Stash) by that.

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::stash::{Rows, Snapshot, StashOp};
use larder_traits::{CollectionId, StashDriver, StashError};

use super::Faulty;
use super::call::What;
use super::switch::Effect::{Read, Write};

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: StashDriver + 'static> StashDriver for Faulty<S> {
    async fn open(&self, name: &str) -> Result<CollectionId, StashError> {
        let what = What::new("open", Write, name);
        let name = name.to_owned();
        self.call(what, move |inner, _| async move { inner.open(&name).await })
            .await
    }

    async fn names(&self) -> Result<Vec<(String, CollectionId)>, StashError> {
        let what = What::new("names", Read, "");
        self.call(what, |inner, _| async move { inner.names().await })
            .await
    }

    async fn discard(&self, name: &str) -> Result<bool, StashError> {
        let what = What::new("discard", Write, name);
        let name = name.to_owned();
        self.call(
            what,
            move |inner, _| async move { inner.discard(&name).await },
        )
        .await
    }

    async fn snapshot(&self, id: CollectionId, rows: Rows<'_>) -> Result<Snapshot, StashError> {
        let what = What::new("snapshot", Read, id);
        let rows = Asked::of(rows);
        self.call(what, move |inner, _| async move {
            inner.snapshot(id, rows.as_rows()).await
        })
        .await
    }

    async fn commit(&self, ops: Vec<StashOp>) -> Result<(), StashError> {
        let mut ids: Vec<String> = ops.iter().map(|op| op.id().to_string()).collect();
        ids.dedup();
        let what = What::new("commit", Write, ids.join(", "));
        self.call(what, move |inner, _| async move { inner.commit(ops).await })
            .await
    }
}

/// [`Rows`] that own their key, for a call that outlives its caller.
enum Asked {
    None,
    Key(Bytes),
    All,
}

impl Asked {
    fn of(rows: Rows<'_>) -> Self {
        match rows {
            Rows::None => Self::None,
            Rows::Key(key) => Self::Key(Bytes::copy_from_slice(key)),
            Rows::All => Self::All,
        }
    }

    fn as_rows(&self) -> Rows<'_> {
        match self {
            Self::None => Rows::None,
            Self::Key(key) => Rows::Key(key),
            Self::All => Rows::All,
        }
    }
}
