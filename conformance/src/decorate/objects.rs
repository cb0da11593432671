//! [`Backend`] and [`HighVolumeBackend`] that misbehave. Objects are listed by their text form.

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use larder_traits::{
    Backend, BackendError, ClientStream, ErrorKind, Fault, GetResponse, HighVolumeBackend,
    Metadata, ObjectId, PayloadStream, TieredGet, TieredMetadata, TieredWrite, Tombstone,
};

use super::Faulty;
use super::call::What;
use super::switch::Effect::{Read, Stream, Write};
use super::switch::{StreamEnd, Trouble, Turn};

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Backend + 'static> Backend for Faulty<S> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Result<(), BackendError> {
        let what = What::new("put_object", Write, id);
        let (id, metadata) = (id.clone(), metadata.clone());
        self.call(what, move |inner, _| async move {
            inner.put_object(&id, &metadata, stream).await
        })
        .await
    }

    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        let what = What::new("get_object", Stream, id);
        let turn = self.enter(&what);
        let short = short(&turn);
        let id = id.clone();
        let got = self
            .go(turn, what, move |inner, _| async move {
                inner.get_object(&id).await
            })
            .await?;
        Ok(got.map(|(metadata, payload)| (metadata, cut(payload, short))))
    }

    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        let what = What::new("get_metadata", Read, id);
        let id = id.clone();
        self.call(what, move |inner, _| async move {
            inner.get_metadata(&id).await
        })
        .await
    }

    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        let what = What::new("delete_object", Write, id);
        let id = id.clone();
        self.call(what, move |inner, _| async move {
            inner.delete_object(&id).await
        })
        .await
    }

    /// Passed on and not counted: it has no answer that could be wrong.
    async fn join(&self) {
        self.inner.join().await;
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: HighVolumeBackend + 'static> HighVolumeBackend for Faulty<S> {
    async fn put_non_tombstone(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<Option<Tombstone>, BackendError> {
        let what = What::new("put_non_tombstone", Write, id);
        let (id, metadata) = (id.clone(), metadata.clone());
        self.call(what, move |inner, _| async move {
            inner.put_non_tombstone(&id, &metadata, payload).await
        })
        .await
    }

    async fn get_tiered_object(&self, id: &ObjectId) -> Result<TieredGet, BackendError> {
        let what = What::new("get_tiered_object", Stream, id);
        let turn = self.enter(&what);
        let short = short(&turn);
        let id = id.clone();
        let got = self
            .go(turn, what, move |inner, _| async move {
                inner.get_tiered_object(&id).await
            })
            .await?;
        Ok(match got {
            TieredGet::Object(metadata, payload) => {
                TieredGet::Object(metadata, cut(payload, short))
            }
            other @ (TieredGet::Tombstone(_) | TieredGet::NotFound) => other,
        })
    }

    async fn get_tiered_metadata(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError> {
        let what = What::new("get_tiered_metadata", Read, id);
        let id = id.clone();
        self.call(what, move |inner, _| async move {
            inner.get_tiered_metadata(&id).await
        })
        .await
    }

    async fn delete_non_tombstone(&self, id: &ObjectId) -> Result<Option<Tombstone>, BackendError> {
        let what = What::new("delete_non_tombstone", Write, id);
        let id = id.clone();
        self.call(what, move |inner, _| async move {
            inner.delete_non_tombstone(&id).await
        })
        .await
    }

    async fn compare_and_write(
        &self,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Result<bool, BackendError> {
        let what = What::new("compare_and_write", Write, id);
        let (id, current) = (id.clone(), current.cloned());
        self.call(what, move |inner, _| async move {
            inner.compare_and_write(&id, current.as_ref(), write).await
        })
        .await
    }

    async fn fence(&self, id: &ObjectId) -> Result<(), BackendError> {
        let what = What::new("fence", Write, id);
        let (fenced, switch, label) = (id.clone(), self.switch.clone(), self.label);
        self.call(what, move |inner, _| async move {
            inner.fence(&fenced).await?;
            // The store beneath knows nothing of the writes that are kept here, and they may not land either.
            switch.rule_out(label, &fenced.to_string());
            Ok(())
        })
        .await
    }

    async fn extend_expiry(
        &self,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        let what = What::new("extend_expiry", Write, id);
        let (id, target) = (id.clone(), target.clone());
        self.call(what, move |inner, _| async move {
            inner.extend_expiry(&id, &target, at).await
        })
        .await
    }
}

/// After how many bytes the payload of this call ends, and how.
type Short = Option<(u64, StreamEnd)>;

fn short(turn: &Turn) -> Short {
    match turn.trouble {
        Some(Trouble::Short(len_bytes, end)) => Some((len_bytes, end)),
        _ => None,
    }
}

/// The payload as far as it may go.
fn cut(payload: PayloadStream, short: Short) -> PayloadStream {
    let Some((left, end)) = short else {
        return payload;
    };
    stream::unfold(Some((payload, left)), move |rest| async move {
        let (mut payload, left) = rest?;
        let mut chunk = match payload.next().await? {
            Ok(chunk) => chunk,
            Err(error) => return Some((Err(error), Some((payload, left)))),
        };
        let fits = usize::try_from(left).unwrap_or(usize::MAX);
        if chunk.len() <= fits {
            let len = u64::try_from(chunk.len()).expect("a length in memory fits 64 bits");
            return Some((Ok(chunk), Some((payload, left - len))));
        }
        if fits > 0 {
            // What is left of this chunk is still to come; the next round finds no room for what follows.
            let rest = chunk.split_off(fits);
            let rest = stream::iter([Ok(rest)]).chain(payload).boxed();
            return Some((Ok(chunk), Some((rest, 0))));
        }
        match end {
            StreamEnd::Silent => None,
            StreamEnd::Error => {
                let fault = Fault::not_applied(
                    ErrorKind::Unavailable,
                    "the payload was made to end before its end",
                );
                Some((Err(fault.into()), None))
            }
        }
    })
    .boxed()
}
