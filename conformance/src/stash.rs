//! Checking [`Stash`].
//!
//! `Stash` has generic methods and is no trait object. So that checks are compiled once and not for every backend, its
//! methods are fixed here to the types that the suite stores.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_traits::{
    Antichain, AntichainRef, Classify, Data, Diff, ErrorKind, Outcome, Stash, StashCollection,
    StashDriver, StashError, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::check::{Stop, describe};
use crate::checks;
use crate::contract::Contract;
use crate::cx::{Cx, Log, brief};
use crate::fixture::{BoxError, Env, Faults, Fixture};
use crate::model::stash::Update;
use crate::run::{self, Suite};

/// Opens stores of this contract in a world.
pub trait Open: Fixture {
    /// The store; a `Box<dyn StashDriver>` is one.
    type Store: Stash + 'static;

    /// A handle on the place of that name: 1 to 20 bytes of `a-z 0-9 /`. The same name is the same place.
    fn open(&self, place: &str) -> impl Future<Output = Result<Self::Store, BoxError>> + Send;

    /// Power: another handle on the place, as a driver, for what lies beyond the trait (`append`, dropping and listing
    /// collections).
    fn driver(
        &self,
        place: &str,
    ) -> impl Future<Output = Result<Option<Arc<dyn StashDriver>>, BoxError>> + Send {
        let _ = place;
        async { Ok(None) }
    }

    /// Power: a handle on the place in the mode that fences older writers (ST-14); for stores that declare
    /// `StashCaps::exclusive`, and for no others.
    fn open_exclusive(
        &self,
        place: &str,
    ) -> impl Future<Output = Result<Option<Self::Store>, BoxError>> + Send {
        let _ = place;
        async { Ok(None) }
    }

    /// Power: a medium that runs out of space. Armed for the `nth` call with `ErrorBefore`, it has room for `nth - 1`
    /// more writes of whatever unit it counts in, and refuses all others for want of space until it is disarmed (ST-13).
    fn no_space(&self) -> Option<Arc<dyn Faults>> {
        None
    }
}

pub(crate) trait World: crate::fixture::World {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Box<dyn AnyStash>, BoxError>>;

    fn driver<'a>(
        &'a self,
        place: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn StashDriver>>, BoxError>>;

    fn open_exclusive<'a>(
        &'a self,
        place: &'a str,
    ) -> BoxFuture<'a, Result<Option<Box<dyn AnyStash>>, BoxError>>;

    fn no_space(&self) -> Option<Arc<dyn Faults>>;
}

impl<P: Open> World for P {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Box<dyn AnyStash>, BoxError>> {
        async move { Ok(Box::new(Open::open(self, place).await?) as Box<dyn AnyStash>) }.boxed()
    }

    fn driver<'a>(
        &'a self,
        place: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn StashDriver>>, BoxError>> {
        Open::driver(self, place).boxed()
    }

    fn open_exclusive<'a>(
        &'a self,
        place: &'a str,
    ) -> BoxFuture<'a, Result<Option<Box<dyn AnyStash>>, BoxError>> {
        async move {
            let store = Open::open_exclusive(self, place).await?;
            Ok(store.map(|store| Box::new(store) as Box<dyn AnyStash>))
        }
        .boxed()
    }

    fn no_space(&self) -> Option<Arc<dyn Faults>> {
        Open::no_space(self)
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
    Suite::new(Contract::Stash, checks::stash::TABLES, &factory)
}

/// What `peek_one` asks of a key.
pub(crate) trait Key: Data + Hash {}

impl<K: Data + Hash> Key for K {}

/// A key and value whose order is not that of its encoding: even numbers come first, and among equals the greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Odd(pub(crate) i32);

impl Ord for Odd {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |odd: &Self| (odd.0.rem_euclid(2), Reverse(odd.0));
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Odd {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A key in parts, some of which may be missing.
pub(crate) type Nested = Option<(i64, Option<String>)>;

/// A value as it was first written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct First {
    pub(crate) name: String,
    pub(crate) size: u32,
}

/// The same value, later: a field more, and the others in another order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Later {
    pub(crate) size: u32,
    #[serde(default)]
    pub(crate) owner: Option<String>,
    pub(crate) name: String,
}

/// A value that may refuse to be encoded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub(crate) enum Moody {
    Good,
    Bad,
}

impl Serialize for Moody {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Good => serializer.serialize_unit_variant("Moody", 0, "Good"),
            Self::Bad => Err(serde::ser::Error::custom("this one will not be encoded")),
        }
    }
}

/// A value of which most formats know only one way to say that it is missing.
pub(crate) type Twice = Option<Option<u8>>;

/// [`Stash`] for one pair of types.
#[async_trait]
pub(crate) trait TypedStash<K: Key, V: Data>: Send {
    async fn collection(&mut self, name: &str) -> Result<StashCollection<K, V>, StashError>;
    async fn iter(&mut self, c: StashCollection<K, V>) -> Result<Vec<Update<K, V>>, StashError>;
    async fn iter_key(
        &mut self,
        c: StashCollection<K, V>,
        key: &K,
    ) -> Result<Vec<(V, Timestamp, Diff)>, StashError>;
    async fn update_many(
        &mut self,
        c: StashCollection<K, V>,
        entries: Vec<Update<K, V>>,
    ) -> Result<(), StashError>;
    async fn update(
        &mut self,
        c: StashCollection<K, V>,
        data: (K, V),
        time: Timestamp,
        diff: Diff,
    ) -> Result<(), StashError>;
    async fn seal(
        &mut self,
        c: StashCollection<K, V>,
        upper: AntichainRef<'_, Timestamp>,
    ) -> Result<(), StashError>;
    async fn compact(
        &mut self,
        c: StashCollection<K, V>,
        since: AntichainRef<'_, Timestamp>,
    ) -> Result<(), StashError>;
    async fn consolidate(&mut self, c: StashCollection<K, V>) -> Result<(), StashError>;
    async fn since(&mut self, c: StashCollection<K, V>)
    -> Result<Antichain<Timestamp>, StashError>;
    async fn upper(&mut self, c: StashCollection<K, V>)
    -> Result<Antichain<Timestamp>, StashError>;
    async fn peek_timestamp(&mut self, c: StashCollection<K, V>) -> Result<Timestamp, StashError>;
    async fn peek(&mut self, c: StashCollection<K, V>) -> Result<Vec<(K, V, Diff)>, StashError>;
    async fn peek_one(&mut self, c: StashCollection<K, V>) -> Result<BTreeMap<K, V>, StashError>;
    async fn peek_key_one(
        &mut self,
        c: StashCollection<K, V>,
        key: &K,
    ) -> Result<Option<V>, StashError>;
    async fn seal_batch(&mut self, items: &[Item<K, V>]) -> Result<(), StashError>;
    async fn compact_batch(&mut self, items: &[Item<K, V>]) -> Result<(), StashError>;
    async fn consolidate_batch(
        &mut self,
        items: &[StashCollection<K, V>],
    ) -> Result<(), StashError>;
}

/// An item of a batch that moves frontiers.
pub(crate) type Item<K, V> = (StashCollection<K, V>, Antichain<Timestamp>);

#[async_trait]
impl<S: Stash, K: Key, V: Data> TypedStash<K, V> for S {
    async fn collection(&mut self, name: &str) -> Result<StashCollection<K, V>, StashError> {
        Stash::collection(self, name).await
    }

    async fn iter(&mut self, c: StashCollection<K, V>) -> Result<Vec<Update<K, V>>, StashError> {
        Stash::iter(self, c).await
    }

    async fn iter_key(
        &mut self,
        c: StashCollection<K, V>,
        key: &K,
    ) -> Result<Vec<(V, Timestamp, Diff)>, StashError> {
        Stash::iter_key(self, c, key).await
    }

    async fn update_many(
        &mut self,
        c: StashCollection<K, V>,
        entries: Vec<Update<K, V>>,
    ) -> Result<(), StashError> {
        Stash::update_many(self, c, entries).await
    }

    async fn update(
        &mut self,
        c: StashCollection<K, V>,
        data: (K, V),
        time: Timestamp,
        diff: Diff,
    ) -> Result<(), StashError> {
        Stash::update(self, c, data, time, diff).await
    }

    async fn seal(
        &mut self,
        c: StashCollection<K, V>,
        upper: AntichainRef<'_, Timestamp>,
    ) -> Result<(), StashError> {
        Stash::seal(self, c, upper).await
    }

    async fn compact(
        &mut self,
        c: StashCollection<K, V>,
        since: AntichainRef<'_, Timestamp>,
    ) -> Result<(), StashError> {
        Stash::compact(self, c, since).await
    }

    async fn consolidate(&mut self, c: StashCollection<K, V>) -> Result<(), StashError> {
        Stash::consolidate(self, c).await
    }

    async fn since(
        &mut self,
        c: StashCollection<K, V>,
    ) -> Result<Antichain<Timestamp>, StashError> {
        Stash::since(self, c).await
    }

    async fn upper(
        &mut self,
        c: StashCollection<K, V>,
    ) -> Result<Antichain<Timestamp>, StashError> {
        Stash::upper(self, c).await
    }

    async fn peek_timestamp(&mut self, c: StashCollection<K, V>) -> Result<Timestamp, StashError> {
        Stash::peek_timestamp(self, c).await
    }

    async fn peek(&mut self, c: StashCollection<K, V>) -> Result<Vec<(K, V, Diff)>, StashError> {
        Stash::peek(self, c).await
    }

    async fn peek_one(&mut self, c: StashCollection<K, V>) -> Result<BTreeMap<K, V>, StashError> {
        Stash::peek_one(self, c).await
    }

    async fn peek_key_one(
        &mut self,
        c: StashCollection<K, V>,
        key: &K,
    ) -> Result<Option<V>, StashError> {
        Stash::peek_key_one(self, c, key).await
    }

    async fn seal_batch(&mut self, items: &[Item<K, V>]) -> Result<(), StashError> {
        Stash::seal_batch(self, items).await
    }

    async fn compact_batch(&mut self, items: &[Item<K, V>]) -> Result<(), StashError> {
        Stash::compact_batch(self, items).await
    }

    async fn consolidate_batch(
        &mut self,
        items: &[StashCollection<K, V>],
    ) -> Result<(), StashError> {
        Stash::consolidate_batch(self, items).await
    }
}

/// A store that knows this pair of types.
pub(crate) trait Types<K: Key, V: Data> {
    fn typed(&mut self) -> &mut dyn TypedStash<K, V>;
}

macro_rules! types {
    ($($key:ty, $value:ty;)+) => {
        /// [`Stash`] for every pair of types that the suite stores.
        pub(crate) trait AnyStash: Debug + Send $(+ TypedStash<$key, $value>)+ {}

        impl<S: Stash> AnyStash for S {}

        $(
            impl Types<$key, $value> for Handle {
                fn typed(&mut self) -> &mut dyn TypedStash<$key, $value> {
                    self.store.as_mut()
                }
            }
        )+
    };
}

types! {
    String, String;
    u64, Vec<u8>;
    Odd, Odd;
    Nested, i64;
    u64, First;
    u64, Later;
    u64, Moody;
    Moody, u64;
    u64, Twice;
}

impl Cx<dyn World> {
    /// A handle on the place, whose calls stand in the log under `name`.
    pub(crate) async fn open_as(&self, name: &'static str, place: &str) -> Result<Handle, Stop> {
        self.log().push(format!("{name} = open({place:?})"));
        match self.world().open(place).await {
            Ok(store) => Ok(self.handle(name, store)),
            Err(e) => Err(Stop::fail(
                format!("open({place:?})"),
                e.to_string(),
                "a store",
            )),
        }
    }

    pub(crate) fn handle(&self, name: &'static str, store: Box<dyn AnyStash>) -> Handle {
        Handle {
            name,
            store,
            log: Arc::clone(self.log()),
        }
    }

    pub(crate) async fn open(&self, place: &str) -> Result<Handle, Stop> {
        self.open_as("a", place).await
    }

    /// Two handles on one place.
    pub(crate) async fn open_two(&self, place: &str) -> Result<(Handle, Handle), Stop> {
        Ok((
            self.open_as("a", place).await?,
            self.open_as("b", place).await?,
        ))
    }

    /// A handle on the place as a driver, or the reason why this check cannot run.
    pub(crate) async fn driver(&self, place: &str) -> Result<Arc<dyn StashDriver>, Stop> {
        let driver = self.driver_if_any(place).await?;
        driver.ok_or_else(|| Stop::Ignored("needs the power driver()".into()))
    }

    /// A handle on the place as a driver, where the fixture offers one.
    pub(crate) async fn driver_if_any(
        &self,
        place: &str,
    ) -> Result<Option<Arc<dyn StashDriver>>, Stop> {
        let driver = self.world().driver(place).await;
        driver.map_err(|e| Stop::fail(format!("driver({place:?})"), e.to_string(), "a driver"))
    }
}

/// A call that was answered with an error. Where a check does not look at it, `?` makes it the check's failure.
#[derive(Debug)]
pub(crate) struct Failed {
    call: String,
    pub(crate) error: StashError,
}

impl AsRef<StashError> for Failed {
    fn as_ref(&self) -> &StashError {
        &self.error
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl Classify for Failed {
    fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    fn outcome(&self) -> Outcome {
        self.error.outcome()
    }
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Self {
        Self::error(failed.call, &failed.error)
    }
}

/// A store under check. Its calls are logged.
#[derive(Debug)]
pub(crate) struct Handle {
    name: &'static str,
    store: Box<dyn AnyStash>,
    log: Arc<Log>,
}

/// Rows as the log shows them: themselves where they are few.
fn show_rows<T: Debug>(rows: &[T]) -> String {
    match rows.len() {
        0..=8 => brief(&rows),
        n => format!("{n} rows, {}, …", brief(&&rows[..2])),
    }
}

fn show_items<K, V>(items: &[Item<K, V>]) -> String {
    let items: Vec<_> = items
        .iter()
        .map(|(c, frontier)| format!("#{} {frontier}", c.id()))
        .collect();
    items.join(", ")
}

impl Handle {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    fn end<T>(
        &self,
        call: String,
        result: Result<T, StashError>,
        show: impl FnOnce(&T) -> String,
    ) -> Result<T, Failed> {
        let answer = match &result {
            Ok(value) => show(value),
            Err(e) => format!("Err({})", describe(e)),
        };
        self.log.push(format!("{}.{call} -> {answer}", self.name));
        result.map_err(|error| Failed { call, error })
    }

    pub(crate) async fn collection<K: Key, V: Data>(
        &mut self,
        name: &str,
    ) -> Result<StashCollection<K, V>, Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().collection(name).await;
        let call = format!("collection({})", brief(&name));
        self.end(call, result, |c| format!("#{}", c.id()))
    }

    pub(crate) async fn iter<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
    ) -> Result<Vec<Update<K, V>>, Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().iter(c).await;
        self.end(format!("iter(#{})", c.id()), result, |rows| show_rows(rows))
    }

    pub(crate) async fn iter_key<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
        key: &K,
    ) -> Result<Vec<(V, Timestamp, Diff)>, Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().iter_key(c, key).await;
        let call = format!("iter_key(#{}, {})", c.id(), brief(key));
        self.end(call, result, |rows| show_rows(rows))
    }

    pub(crate) async fn update_many<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
        entries: Vec<Update<K, V>>,
    ) -> Result<(), Failed>
    where
        Self: Types<K, V>,
    {
        let call = format!("update_many(#{}, {})", c.id(), show_rows(&entries));
        let result = self.typed().update_many(c, entries).await;
        self.end(call, result, |()| "Ok".into())
    }

    pub(crate) async fn update<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
        data: (K, V),
        time: Timestamp,
        diff: Diff,
    ) -> Result<(), Failed>
    where
        Self: Types<K, V>,
    {
        let call = format!("update(#{}, {}, {time}, {diff})", c.id(), brief(&data));
        let result = self.typed().update(c, data, time, diff).await;
        self.end(call, result, |()| "Ok".into())
    }

    pub(crate) async fn seal<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
        upper: impl Into<Antichain<Timestamp>>,
    ) -> Result<(), Failed>
    where
        Self: Types<K, V>,
    {
        let upper = upper.into();
        let result = self.typed().seal(c, upper.borrow()).await;
        self.end(format!("seal(#{}, {upper})", c.id()), result, |()| {
            "Ok".into()
        })
    }

    pub(crate) async fn compact<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
        since: impl Into<Antichain<Timestamp>>,
    ) -> Result<(), Failed>
    where
        Self: Types<K, V>,
    {
        let since = since.into();
        let result = self.typed().compact(c, since.borrow()).await;
        self.end(format!("compact(#{}, {since})", c.id()), result, |()| {
            "Ok".into()
        })
    }

    pub(crate) async fn consolidate<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
    ) -> Result<(), Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().consolidate(c).await;
        self.end(format!("consolidate(#{})", c.id()), result, |()| {
            "Ok".into()
        })
    }

    pub(crate) async fn since<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
    ) -> Result<Antichain<Timestamp>, Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().since(c).await;
        self.end(format!("since(#{})", c.id()), result, ToString::to_string)
    }

    pub(crate) async fn upper<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
    ) -> Result<Antichain<Timestamp>, Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().upper(c).await;
        self.end(format!("upper(#{})", c.id()), result, ToString::to_string)
    }

    pub(crate) async fn peek_timestamp<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
    ) -> Result<Timestamp, Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().peek_timestamp(c).await;
        let call = format!("peek_timestamp(#{})", c.id());
        self.end(call, result, ToString::to_string)
    }

    pub(crate) async fn peek<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
    ) -> Result<Vec<(K, V, Diff)>, Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().peek(c).await;
        self.end(format!("peek(#{})", c.id()), result, |rows| show_rows(rows))
    }

    pub(crate) async fn peek_one<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
    ) -> Result<BTreeMap<K, V>, Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().peek_one(c).await;
        self.end(format!("peek_one(#{})", c.id()), result, brief)
    }

    pub(crate) async fn peek_key_one<K: Key, V: Data>(
        &mut self,
        c: StashCollection<K, V>,
        key: &K,
    ) -> Result<Option<V>, Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().peek_key_one(c, key).await;
        let call = format!("peek_key_one(#{}, {})", c.id(), brief(key));
        self.end(call, result, brief)
    }

    pub(crate) async fn seal_batch<K: Key, V: Data>(
        &mut self,
        items: &[Item<K, V>],
    ) -> Result<(), Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().seal_batch(items).await;
        let call = format!("seal_batch([{}])", show_items(items));
        self.end(call, result, |()| "Ok".into())
    }

    pub(crate) async fn compact_batch<K: Key, V: Data>(
        &mut self,
        items: &[Item<K, V>],
    ) -> Result<(), Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().compact_batch(items).await;
        let call = format!("compact_batch([{}])", show_items(items));
        self.end(call, result, |()| "Ok".into())
    }

    pub(crate) async fn consolidate_batch<K: Key, V: Data>(
        &mut self,
        items: &[StashCollection<K, V>],
    ) -> Result<(), Failed>
    where
        Self: Types<K, V>,
    {
        let result = self.typed().consolidate_batch(items).await;
        let call = format!("consolidate_batch({})", brief(&items));
        self.end(call, result, |()| "Ok".into())
    }
}
