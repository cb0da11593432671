//! Checking [`Backend`].

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use larder_traits::{Backend, BackendError, ClientStream, Metadata, ObjectId, PayloadStream};

use crate::check::{Stop, describe};
use crate::checks;
use crate::contract::Contract;
use crate::cx::{Cx, Log, show};
use crate::fixture::{BoxError, Env, Fixture};
use crate::model::high_volume::Shown;
use crate::run::{self, Suite};

/// Opens stores of this contract in a world.
pub trait Open: Fixture {
    /// The store, or a `Box<dyn Backend>`.
    type Store: Backend + 'static;

    /// A handle on the place of that name: 1 to 20 bytes of `a-z 0-9 /`. The same name is the same place.
    fn open(&self, place: &str) -> impl Future<Output = Result<Self::Store, BoxError>> + Send;
}

pub(crate) trait World: crate::fixture::World {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Arc<dyn Backend>, BoxError>>;
}

impl<P: Open> World for P {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Arc<dyn Backend>, BoxError>> {
        async move { Ok(Arc::new(Open::open(self, place).await?) as Arc<dyn Backend>) }.boxed()
    }
}

/// The checks of this contract on the worlds of `P`: the BK clauses, and HV-8 and HV-9 as far as they speak of objects.
#[must_use]
pub fn suite<P: Open>() -> Suite {
    suite_with(|env: Env| async move { P::new(&env).await })
}

/// The checks of this contract on worlds that `make` makes.
pub fn suite_with<P, M, F>(make: M) -> Suite
where
    P: Open,
    M: Fn(Env) -> F + Send + Sync + 'static,
    F: Future<Output = Result<P, BoxError>> + Send + 'static,
{
    let factory = run::factory(make, |world: P| Box::new(world) as Box<dyn World>);
    Suite::new(Contract::Backend, checks::backend::TABLES, &factory)
}

impl Cx<dyn World> {
    /// A handle on the place, whose calls stand in the log under `name`.
    pub(crate) async fn open_as(&self, name: &'static str, place: &str) -> Result<Handle, Stop> {
        self.log().push(format!("{name} = open({place:?})"));
        match self.world().open(place).await {
            Ok(store) => Ok(Handle::new(name, store, Arc::clone(self.log()))),
            Err(e) => Err(Stop::fail(
                format!("open({place:?})"),
                e.to_string(),
                "a store",
            )),
        }
    }

    /// Two handles on one place.
    pub(crate) async fn open_two(&self, place: &str) -> Result<(Handle, Handle), Stop> {
        Ok((
            self.open_as("a", place).await?,
            self.open_as("b", place).await?,
        ))
    }
}

/// An object as a get answered it, its payload read to the end.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) metadata: Metadata,
    pub(crate) payload: Bytes,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {})", Shown(&self.metadata), show(&self.payload))
    }
}

/// A store under check: its calls are logged, and their errors are failures unless they are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    name: &'static str,
    store: Arc<dyn Backend>,
    log: Arc<Log>,
}

/// The log line's end of an answer.
pub(crate) fn answer<T>(
    result: &Result<T, BackendError>,
    show: impl FnOnce(&T) -> String,
) -> String {
    match result {
        Ok(value) => show(value),
        Err(e) => format!("Err({})", describe(e)),
    }
}

/// A payload that is handed over in pieces.
pub(crate) fn client_stream(chunks: Vec<Bytes>) -> ClientStream {
    stream::iter(chunks.into_iter().map(Ok)).boxed()
}

/// The whole of a payload.
pub(crate) async fn collect(mut stream: PayloadStream) -> Result<Bytes, BackendError> {
    let mut payload = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        payload.extend_from_slice(&chunk?);
    }
    Ok(payload.freeze())
}

impl Handle {
    pub(crate) fn new(name: &'static str, store: Arc<dyn Backend>, log: Arc<Log>) -> Self {
        Self { name, store, log }
    }

    pub(crate) fn store(&self) -> &Arc<dyn Backend> {
        &self.store
    }

    pub(crate) fn line(&self, call: &str, answer: &str) {
        self.log.push(format!("{}.{call} -> {answer}", self.name));
    }

    /// A put of a payload in these pieces.
    pub(crate) async fn try_put(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        chunks: Vec<Bytes>,
    ) -> Result<(), BackendError> {
        let shown = match chunks.as_slice() {
            [whole] => show(whole),
            chunks => format!(
                "{} B in {} chunks",
                chunks.iter().map(Bytes::len).sum::<usize>(),
                chunks.len()
            ),
        };
        let stream = client_stream(chunks);
        self.try_put_stream(id, metadata, &shown, stream).await
    }

    /// A put of a payload that the log shows as `shown`.
    pub(crate) async fn try_put_stream(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        shown: &str,
        stream: ClientStream,
    ) -> Result<(), BackendError> {
        let call = format!("put_object({id}, {}, {shown})", Shown(metadata));
        let result = self.store.put_object(id, metadata, stream).await;
        self.line(&call, &answer(&result, |()| "Ok".into()));
        result
    }

    pub(crate) async fn put_chunks(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        chunks: Vec<Bytes>,
    ) -> Result<(), Stop> {
        let result = self.try_put(id, metadata, chunks).await;
        result.map_err(|e| Stop::error(format!("put_object({id})"), &e))
    }

    pub(crate) async fn put(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: impl Into<Bytes>,
    ) -> Result<(), Stop> {
        self.put_chunks(id, metadata, vec![payload.into()]).await
    }

    /// The object with its whole payload; an error in the stream is the error of the call.
    pub(crate) async fn try_get(&self, id: &ObjectId) -> Result<Option<Object>, BackendError> {
        let result = match self.store.get_object(id).await {
            Ok(Some((metadata, stream))) => collect(stream)
                .await
                .map(|payload| Some(Object { metadata, payload })),
            Ok(None) => Ok(None),
            Err(e) => Err(e),
        };
        let shown = answer(&result, |object| format!("{object:?}"));
        self.line(&format!("get_object({id})"), &shown);
        result
    }

    pub(crate) async fn get(&self, id: &ObjectId) -> Result<Option<Object>, Stop> {
        let result = self.try_get(id).await;
        result.map_err(|e| Stop::error(format!("get_object({id})"), &e))
    }

    pub(crate) async fn try_metadata(
        &self,
        id: &ObjectId,
    ) -> Result<Option<Metadata>, BackendError> {
        let result = self.store.get_metadata(id).await;
        let shown = answer(&result, |found| match found {
            Some(metadata) => format!("{}", Shown(metadata)),
            None => "None".into(),
        });
        self.line(&format!("get_metadata({id})"), &shown);
        result
    }

    pub(crate) async fn metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, Stop> {
        let result = self.try_metadata(id).await;
        result.map_err(|e| Stop::error(format!("get_metadata({id})"), &e))
    }

    pub(crate) async fn try_delete(&self, id: &ObjectId) -> Result<(), BackendError> {
        let result = self.store.delete_object(id).await;
        self.line(
            &format!("delete_object({id})"),
            &answer(&result, |()| "Ok".into()),
        );
        result
    }

    pub(crate) async fn delete(&self, id: &ObjectId) -> Result<(), Stop> {
        let result = self.try_delete(id).await;
        result.map_err(|e| Stop::error(format!("delete_object({id})"), &e))
    }
}
