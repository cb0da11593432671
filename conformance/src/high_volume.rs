//! Checking [`HighVolumeBackend`], which is checked as a [`Backend`] also.

use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_traits::{
    Backend, BackendError, Caps, HighVolumeBackend, Metadata, ObjectId, TestClock, TieredGet,
    TieredMetadata, TieredWrite, Tombstone,
};

use crate::check::Stop;
use crate::checks;
use crate::contract::Contract;
use crate::cx::{Cx, show};
use crate::fixture::{BoxError, Env, Factory, Faults, Fixture, Probe};
use crate::model::high_volume::{Row, Shown, ShownRedirect, show_time};
use crate::run::{self, Suite};
use crate::{backend, fixture};

/// Opens stores of this contract in a world.
pub trait Open: Fixture {
    /// The store, or a `Box<dyn HighVolumeBackend>`.
    type Store: HighVolumeBackend + 'static;

    /// A handle on the place of that name: 1 to 20 bytes of `a-z 0-9 /`. The same name is the same place.
    fn open(&self, place: &str) -> impl Future<Output = Result<Self::Store, BoxError>> + Send;
}

type Opening<'a> = BoxFuture<'a, Result<Arc<dyn HighVolumeBackend>, BoxError>>;

pub(crate) trait World: fixture::World {
    fn open<'a>(&'a self, place: &'a str) -> Opening<'a>;
}

impl<P: Open> World for P {
    fn open<'a>(&'a self, place: &'a str) -> Opening<'a> {
        async move { Ok(Arc::new(Open::open(self, place).await?) as Arc<dyn HighVolumeBackend>) }
            .boxed()
    }
}

/// The same world, seen as one of plain backends.
struct Plain(Box<dyn World>);

impl fixture::World for Plain {
    fn caps(&self) -> Caps {
        self.0.caps()
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        self.0.clock()
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        self.0.settle()
    }

    fn probe(&self) -> Option<Arc<dyn Probe>> {
        self.0.probe()
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        self.0.faults()
    }

    fn is_remote(&self) -> bool {
        self.0.is_remote()
    }

    fn child(&self) -> bool {
        self.0.child()
    }
}

impl backend::World for Plain {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Arc<dyn Backend>, BoxError>> {
        async move { Ok(self.0.open(place).await? as Arc<dyn Backend>) }.boxed()
    }
}

/// The checks of this contract on the worlds of `P`, the BK clauses included.
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
    let worlds = Arc::clone(&factory);
    let plain: Factory<dyn backend::World> = Arc::new(move |env| {
        let world = worlds(env);
        async move { Ok(Box::new(Plain(world.await?)) as Box<dyn backend::World>) }.boxed()
    });
    Suite::new(Contract::HighVolume, checks::high_volume::TABLES, &factory)
        .and(checks::backend::OBJECTS, &plain)
}

impl Cx<dyn World> {
    /// A handle on the place, whose calls stand in the log under `name`.
    pub(crate) async fn open_as(&self, name: &'static str, place: &str) -> Result<Handle, Stop> {
        self.log().push(format!("{name} = open({place:?})"));
        match self.world().open(place).await {
            Ok(store) => Ok(Handle {
                plain: backend::Handle::new(
                    name,
                    Arc::clone(&store) as Arc<dyn Backend>,
                    Arc::clone(self.log()),
                ),
                store,
            }),
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

/// A store under check: its calls are logged, and their errors are failures unless they are asked for. The plain calls
/// are those of [`backend::Handle`].
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    plain: backend::Handle,
    store: Arc<dyn HighVolumeBackend>,
}

impl Deref for Handle {
    type Target = backend::Handle;

    fn deref(&self) -> &backend::Handle {
        &self.plain
    }
}

fn show_redirect(found: &Option<Tombstone>) -> String {
    match found {
        Some(tombstone) => format!("Some({})", ShownRedirect(tombstone)),
        None => "None".into(),
    }
}

/// A row without its payload as failures show it.
pub(crate) fn show_head(found: &TieredMetadata) -> String {
    match found {
        TieredMetadata::Object(metadata) => format!("Object({})", Shown(metadata)),
        TieredMetadata::Tombstone(tombstone) => format!("Tombstone({})", ShownRedirect(tombstone)),
        TieredMetadata::NotFound => "NotFound".into(),
    }
}

/// A write as failures show it.
pub(crate) fn show_write(write: &TieredWrite) -> String {
    match write {
        TieredWrite::Tombstone(tombstone) => format!("Tombstone({})", ShownRedirect(tombstone)),
        TieredWrite::Object(metadata, payload) => {
            format!("Object({}, {})", Shown(metadata), show(payload))
        }
        TieredWrite::Delete => "Delete".into(),
    }
}

impl Handle {
    pub(crate) async fn try_put_inline(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        payload: Bytes,
    ) -> Result<Option<Tombstone>, BackendError> {
        let call = format!(
            "put_non_tombstone({id}, {}, {})",
            Shown(metadata),
            show(&payload)
        );
        let result = self.store.put_non_tombstone(id, metadata, payload).await;
        self.line(&call, &backend::answer(&result, show_redirect));
        result
    }

    /// The row with its whole payload; an error in the stream is the error of the call.
    pub(crate) async fn try_row(&self, id: &ObjectId) -> Result<Option<Row>, BackendError> {
        let result = match self.store.get_tiered_object(id).await {
            Ok(TieredGet::Object(metadata, stream)) => backend::collect(stream)
                .await
                .map(|payload| Some(Row::Inline(metadata, payload))),
            Ok(TieredGet::Tombstone(tombstone)) => Ok(Some(Row::Redirect(tombstone))),
            Ok(TieredGet::NotFound) => Ok(None),
            Err(e) => Err(e),
        };
        let shown = backend::answer(&result, |row| format!("{row:?}"));
        self.line(&format!("get_tiered_object({id})"), &shown);
        result
    }

    pub(crate) async fn row(&self, id: &ObjectId) -> Result<Option<Row>, Stop> {
        let result = self.try_row(id).await;
        result.map_err(|e| Stop::error(format!("get_tiered_object({id})"), &e))
    }

    pub(crate) async fn try_head(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError> {
        let result = self.store.get_tiered_metadata(id).await;
        let shown = backend::answer(&result, show_head);
        self.line(&format!("get_tiered_metadata({id})"), &shown);
        result
    }

    pub(crate) async fn head(&self, id: &ObjectId) -> Result<TieredMetadata, Stop> {
        let result = self.try_head(id).await;
        result.map_err(|e| Stop::error(format!("get_tiered_metadata({id})"), &e))
    }

    pub(crate) async fn try_delete_inline(
        &self,
        id: &ObjectId,
    ) -> Result<Option<Tombstone>, BackendError> {
        let result = self.store.delete_non_tombstone(id).await;
        let shown = backend::answer(&result, show_redirect);
        self.line(&format!("delete_non_tombstone({id})"), &shown);
        result
    }

    pub(crate) async fn try_swap(
        &self,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Result<bool, BackendError> {
        let current_shown = current.map_or("None".into(), |id| format!("Some({id})"));
        let call = format!(
            "compare_and_write({id}, {current_shown}, {})",
            show_write(&write)
        );
        let result = self.store.compare_and_write(id, current, write).await;
        self.line(&call, &backend::answer(&result, bool::to_string));
        result
    }

    pub(crate) async fn swap(
        &self,
        id: &ObjectId,
        current: Option<&ObjectId>,
        write: TieredWrite,
    ) -> Result<bool, Stop> {
        let result = self.try_swap(id, current, write).await;
        result.map_err(|e| Stop::error(format!("compare_and_write({id})"), &e))
    }

    pub(crate) async fn try_fence(&self, id: &ObjectId) -> Result<(), BackendError> {
        let result = self.store.fence(id).await;
        self.line(
            &format!("fence({id})"),
            &backend::answer(&result, |()| "Ok".into()),
        );
        result
    }

    pub(crate) async fn try_extend(
        &self,
        id: &ObjectId,
        target: &ObjectId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        let call = format!("extend_expiry({id}, {target}, {})", show_time(at));
        let result = self.store.extend_expiry(id, target, at).await;
        self.line(&call, &backend::answer(&result, bool::to_string));
        result
    }
}
