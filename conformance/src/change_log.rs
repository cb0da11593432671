//! Checking [`ChangeLog`].

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_traits::{Change, ChangeId, ChangeLog, Fault, WriterId};

use crate::check::{Stop, describe};
use crate::checks;
use crate::contract::Contract;
use crate::cx::{Cx, Log, brief};
use crate::fixture::{BoxError, Env, Fixture};
use crate::run::{self, Suite};

/// Opens logs in a world.
pub trait Open: Fixture {
    /// The log, or a `Box<dyn ChangeLog>`.
    type Store: ChangeLog + 'static;

    /// A handle on the place of that name: 1 to 20 bytes of `a-z 0-9 /`. The same name is the same place.
    fn open(&self, place: &str) -> impl Future<Output = Result<Self::Store, BoxError>> + Send;
}

pub(crate) trait World: crate::fixture::World {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Arc<dyn ChangeLog>, BoxError>>;
}

impl<P: Open> World for P {
    fn open<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Arc<dyn ChangeLog>, BoxError>> {
        async move { Ok(Arc::new(Open::open(self, place).await?) as Arc<dyn ChangeLog>) }.boxed()
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
    Suite::new(Contract::ChangeLog, checks::change_log::TABLES, &factory)
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
                "a log",
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

/// A log under check: its calls are listed, and their errors are failures unless they are asked for.
#[derive(Clone)]
pub(crate) struct Handle {
    name: &'static str,
    store: Arc<dyn ChangeLog>,
    log: Arc<Log>,
}

/// Changes as lists of calls show them.
fn show(changes: &[Change]) -> String {
    let names: Vec<String> = changes.iter().take(8).map(|it| it.id.to_string()).collect();
    match changes.len() {
        0..=8 => format!("[{}]", names.join(", ")),
        n => format!("{n} changes"),
    }
}

impl Handle {
    fn line<T>(&self, call: &str, result: &Result<T, Fault>, show: impl FnOnce(&T) -> String) {
        let answer = match result {
            Ok(value) => show(value),
            Err(e) => format!("Err({})", describe(e)),
        };
        self.log.push(format!("{}.{call} -> {answer}", self.name));
    }

    pub(crate) async fn try_record(&self, writer: WriterId, change: &Change) -> Result<(), Fault> {
        let result = self.store.record(writer, change).await;
        let call = format!("record({writer}, {})", brief(change));
        self.line(&call, &result, |()| "Ok".into());
        result
    }

    pub(crate) async fn record(&self, writer: WriterId, change: &Change) -> Result<(), Stop> {
        let result = self.try_record(writer, change).await;
        result.map_err(|e| Stop::error(format!("record({writer}, {})", change.id), &e))
    }

    pub(crate) async fn try_complete(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
        let result = self.store.complete(writer, id).await;
        self.line(&format!("complete({writer}, {id})"), &result, |()| {
            "Ok".into()
        });
        result
    }

    pub(crate) async fn complete(&self, writer: WriterId, id: ChangeId) -> Result<(), Stop> {
        let result = self.try_complete(writer, id).await;
        result.map_err(|e| Stop::error(format!("complete({writer}, {id})"), &e))
    }

    /// In the order of their ids: the log may answer in any.
    pub(crate) async fn try_changes(&self, writer: WriterId) -> Result<Vec<Change>, Fault> {
        let mut result = self.store.changes(writer).await;
        self.line(&format!("changes({writer})"), &result, |it| show(it));
        if let Ok(changes) = &mut result {
            changes.sort_by_key(|change| change.id);
        }
        result
    }

    pub(crate) async fn changes(&self, writer: WriterId) -> Result<Vec<Change>, Stop> {
        let result = self.try_changes(writer).await;
        result.map_err(|e| Stop::error(format!("changes({writer})"), &e))
    }

    pub(crate) async fn try_renew(&self, writer: WriterId, until: SystemTime) -> Result<(), Fault> {
        let result = self.store.renew(writer, until).await;
        let call = format!("renew({writer}, {until:?})");
        self.line(&call, &result, |()| "Ok".into());
        result
    }

    pub(crate) async fn renew(&self, writer: WriterId, until: SystemTime) -> Result<(), Stop> {
        let result = self.try_renew(writer, until).await;
        result.map_err(|e| Stop::error(format!("renew({writer}, {until:?})"), &e))
    }

    /// In the order of their ids.
    pub(crate) async fn try_claim(
        &self,
        writer: WriterId,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<Change>, Fault> {
        let mut result = self.store.claim(writer, now, limit).await;
        let call = format!("claim({writer}, {now:?}, {limit})");
        self.line(&call, &result, |it| show(it));
        if let Ok(changes) = &mut result {
            changes.sort_by_key(|change| change.id);
        }
        result
    }

    pub(crate) async fn claim(
        &self,
        writer: WriterId,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<Change>, Stop> {
        let result = self.try_claim(writer, now, limit).await;
        result.map_err(|e| Stop::error(format!("claim({writer}, {now:?}, {limit})"), &e))
    }

    /// Fails unless the changes of `writer` are these, in any order.
    pub(crate) async fn expect(
        &self,
        what: &str,
        writer: WriterId,
        expected: &[Change],
    ) -> Result<(), Stop> {
        let seen = self.changes(writer).await?;
        let mut expected = expected.to_vec();
        expected.sort_by_key(|change| change.id);
        if seen == expected {
            return Ok(());
        }
        Err(differ(
            format!("{what}: {}.changes({writer})", self.name),
            &seen,
            &expected,
        ))
    }
}

/// A failure that shows where two lists of changes part.
pub(crate) fn differ(what: String, seen: &[Change], expected: &[Change]) -> Stop {
    let only = |these: &[Change], others: &[Change]| {
        let only: Vec<_> = these.iter().filter(|it| !others.contains(it)).collect();
        format!(
            "{} changes; not in the other: {}",
            these.len(),
            brief(&only)
        )
    };
    Stop::fail(what, only(seen, expected), only(expected, seen))
}
