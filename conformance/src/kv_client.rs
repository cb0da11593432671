//! Checking [`KvClient`].

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_traits::{KvClient, KvClientError};

use crate::check::{Stop, describe};
use crate::checks;
use crate::contract::Contract;
use crate::cx::{Cx, Log, show};
use crate::fixture::{BoxError, Env, Fixture};
use crate::run::{self, Suite};

/// Opens stores of this contract in a world.
pub trait Open: Fixture {
    /// The store, or a `Box<dyn KvDriver>`.
    type Store: KvClient + 'static;

    /// A handle on the place of that name: 1 to 20 bytes of `a-z 0-9 /`. The same name is the same place.
    fn open(&self, place: &str) -> impl Future<Output = Result<Self::Store, BoxError>> + Send;

    /// Power: shuts this one client down on its side, as a program does that ends its use of it (KV-8). Other handles
    /// on the place go on.
    ///
    /// The answer is whether it was done; the default is `false`, not offered, and checks that need it are ignored.
    fn shutdown(
        &self,
        _store: &Self::Store,
    ) -> impl Future<Output = Result<bool, BoxError>> + Send {
        async { Ok(false) }
    }

    /// Power: the bound that the clients of this world were configured with, after which a call on a silent server
    /// ends as `Timeout` (KV-8).
    fn call_bound(&self) -> Option<Duration> {
        None
    }
}

/// [`KvClient`] without its type.
///
/// Not [`KvDriver`](larder_traits::KvDriver): that would put the suite's own refusal of a time to live of 0 before the
/// one of a store that implements `KvClient` itself.
#[async_trait]
pub(crate) trait Kv: Send + Sync {
    async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), KvClientError>;
    async fn put_with_ttl(
        &self,
        key: &[u8],
        value: &[u8],
        ttl_secs: u64,
    ) -> Result<(), KvClientError>;
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError>;
    async fn get_multi(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError>;
    async fn delete(&self, key: &[u8]) -> Result<(), KvClientError>;
    fn as_any(&self) -> &dyn Any;
}

#[async_trait]
impl<S: KvClient + 'static> Kv for S {
    async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), KvClientError> {
        KvClient::put(self, key, value).await
    }

    async fn put_with_ttl(
        &self,
        key: &[u8],
        value: &[u8],
        ttl_secs: u64,
    ) -> Result<(), KvClientError> {
        KvClient::put_with_ttl(self, key, value, ttl_secs).await
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError> {
        KvClient::get(self, key).await
    }

    async fn get_multi(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, KvClientError> {
        KvClient::get_multi(self, keys).await
    }

    async fn delete(&self, key: &[u8]) -> Result<(), KvClientError> {
        KvClient::delete(self, key).await
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

pub(crate) trait World: crate::fixture::World {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Arc<dyn Kv>, BoxError>>;
    fn shutdown<'a>(&'a self, store: &'a dyn Kv) -> BoxFuture<'a, Result<bool, BoxError>>;
    fn call_bound(&self) -> Option<Duration>;
}

impl<P: Open> World for P {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Arc<dyn Kv>, BoxError>> {
        async move { Ok(Arc::new(Open::open(self, place).await?) as Arc<dyn Kv>) }.boxed()
    }

    fn shutdown<'a>(&'a self, store: &'a dyn Kv) -> BoxFuture<'a, Result<bool, BoxError>> {
        let store = store
            .as_any()
            .downcast_ref::<P::Store>()
            .expect("a world gets back the stores that it opened");
        Open::shutdown(self, store).boxed()
    }

    fn call_bound(&self) -> Option<Duration> {
        Open::call_bound(self)
    }
}

/// The checks of this contract on the worlds of `P`.
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
    Suite::new(Contract::KvClient, checks::kv_client::TABLES, &factory)
}

impl Cx<dyn World> {
    /// A handle on the place, whose calls stand in the log under `name`.
    pub(crate) async fn open_as(&self, name: &'static str, place: &str) -> Result<Handle, Stop> {
        self.log().push(format!("{name} = open({place:?})"));
        match self.world().open(place).await {
            Ok(store) => Ok(Handle {
                name,
                store,
                log: Arc::clone(self.log()),
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

    /// Shuts the client behind `handle` down, or says why the check cannot run.
    pub(crate) async fn shutdown(&self, handle: &Handle) -> Result<(), Stop> {
        self.log().push(format!("shutdown({})", handle.name));
        match self.world().shutdown(&*handle.store).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stop::Ignored("needs the power shutdown()".into())),
            Err(e) => Err(Stop::Inconclusive(format!("shutdown(): {e}"))),
        }
    }
}

/// A store under check: its calls are logged, and their errors are failures unless they are asked for.
#[derive(Clone)]
pub(crate) struct Handle {
    name: &'static str,
    store: Arc<dyn Kv>,
    log: Arc<Log>,
}

/// The log line's end of an answer.
fn answer<T>(result: &Result<T, KvClientError>, show: impl FnOnce(&T) -> String) -> String {
    match result {
        Ok(value) => show(value),
        Err(e) => format!("Err({})", describe(e)),
    }
}

/// An answer to a read, as failures show it.
pub(crate) fn show_value(value: Option<&Bytes>) -> String {
    value.map_or_else(|| "None".into(), |value| format!("Some({})", show(value)))
}

impl Handle {
    fn line(&self, call: &str, answer: &str) {
        self.log.push(format!("{}.{call} -> {answer}", self.name));
    }

    pub(crate) async fn try_put(&self, key: &[u8], value: &[u8]) -> Result<(), KvClientError> {
        let result = self.store.put(key, value).await;
        let call = format!("put({}, {})", show(key), show(value));
        self.line(&call, &answer(&result, |()| "Ok".into()));
        result
    }

    pub(crate) async fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), Stop> {
        let key = key.as_ref();
        let result = self.try_put(key, value.as_ref()).await;
        result.map_err(|e| Stop::error(format!("put({})", show(key)), &e))
    }

    pub(crate) async fn try_put_with_ttl(
        &self,
        key: &[u8],
        value: &[u8],
        ttl_secs: u64,
    ) -> Result<(), KvClientError> {
        let result = self.store.put_with_ttl(key, value, ttl_secs).await;
        let call = format!("put_with_ttl({}, {}, {ttl_secs})", show(key), show(value));
        self.line(&call, &answer(&result, |()| "Ok".into()));
        result
    }

    pub(crate) async fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl_secs: u64,
    ) -> Result<(), Stop> {
        let key = key.as_ref();
        let result = self.try_put_with_ttl(key, value.as_ref(), ttl_secs).await;
        result.map_err(|e| Stop::error(format!("put_with_ttl({}, {ttl_secs})", show(key)), &e))
    }

    pub(crate) async fn try_get(&self, key: &[u8]) -> Result<Option<Bytes>, KvClientError> {
        let result = self.store.get(key).await;
        let shown = answer(&result, |value| show_value(value.as_ref()));
        self.line(&format!("get({})", show(key)), &shown);
        result
    }

    pub(crate) async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Stop> {
        let key = key.as_ref();
        let result = self.try_get(key).await;
        result.map_err(|e| Stop::error(format!("get({})", show(key)), &e))
    }

    pub(crate) async fn try_get_multi(
        &self,
        keys: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, KvClientError> {
        let result = self.store.get_multi(keys).await;
        let call = match keys.len() {
            0..=8 => {
                let keys: Vec<String> = keys.iter().map(|key| show(key)).collect();
                format!("get_multi([{}])", keys.join(", "))
            }
            n => format!("get_multi({n} keys)"),
        };
        let shown = answer(&result, |values| match values.len() {
            0..=8 => {
                let values: Vec<String> = values.iter().map(|v| show_value(v.as_ref())).collect();
                format!("[{}]", values.join(", "))
            }
            n => format!("{n} answers"),
        });
        self.line(&call, &shown);
        result
    }

    pub(crate) async fn get_multi(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Stop> {
        let result = self.try_get_multi(keys).await;
        result.map_err(|e| Stop::error(format!("get_multi({} keys)", keys.len()), &e))
    }

    pub(crate) async fn try_delete(&self, key: &[u8]) -> Result<(), KvClientError> {
        let result = self.store.delete(key).await;
        let shown = answer(&result, |()| "Ok".into());
        self.line(&format!("delete({})", show(key)), &shown);
        result
    }

    pub(crate) async fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), Stop> {
        let key = key.as_ref();
        let result = self.try_delete(key).await;
        result.map_err(|e| Stop::error(format!("delete({})", show(key)), &e))
    }

    /// Fails unless `get` and `get_multi` both answer for `key` with `expected`.
    pub(crate) async fn expect(
        &self,
        what: &str,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
    ) -> Result<(), Stop> {
        let key = key.as_ref();
        let judge = |method: &str, seen: Option<&Bytes>| {
            if seen.map(|value| &value[..]) == expected {
                return Ok(());
            }
            let expected = expected.map(Bytes::copy_from_slice);
            Err(Stop::fail(
                format!("{what}: {}.{method}({})", self.name, show(key)),
                show_value(seen),
                show_value(expected.as_ref()),
            ))
        };
        judge("get", self.get(key).await?.as_ref())?;
        let many = self.get_multi(&[Bytes::copy_from_slice(key)]).await?;
        match &many[..] {
            [seen] => judge("get_multi", seen.as_ref()),
            other => Err(Stop::fail(
                format!("{what}: {}.get_multi([{}])", self.name, show(key)),
                format!("{} answers", other.len()),
                "one answer for one key",
            )),
        }
    }
}
