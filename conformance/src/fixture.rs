//! What the author of a backend writes: a [`Fixture`], and an `Open` for each contract offered.

use std::collections::VecDeque;
use std::error::Error;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_traits::{Caps, TestClock};
use tempfile::TempDir;

/// Any error that a fixture meets on its way; it makes a check inconclusive, never green.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What the suite gives to a new fixture.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Env {
    /// A random name that nobody else uses, of `a-z` and `0-9`. On a live store, touch nothing outside it.
    pub prefix: String,
    /// The seed of the check that asks.
    pub seed: u64,
    pub(crate) folders: Arc<Folders>,
}

impl Env {
    /// An empty folder of one's own, removed when the value is dropped.
    ///
    /// Where the suite opens a world again, in another process or after the power went, the first call gives the folder
    /// that the first call gave before, and so on. A world that keeps everything in such folders can be killed and cut
    /// off.
    ///
    /// # Errors
    ///
    /// Whatever the file system answers.
    pub fn tempdir(&self) -> io::Result<TempDir> {
        self.folders.next()
    }
}

/// The folders of one world.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    /// Where new ones are made, if not where the system makes temporary files.
    under: Option<PathBuf>,
    given: Mutex<Vec<PathBuf>>,
    /// Those of the world that is opened again, and where links to them may be made.
    again: Mutex<VecDeque<PathBuf>>,
    links: PathBuf,
}

impl Folders {
    /// New ones, made in that folder.
    #[cfg_attr(
        not(all(feature = "power", target_os = "linux")),
        expect(dead_code, reason = "only the power engine has a place of its own")
    )]
    pub(crate) fn under(folder: PathBuf) -> Self {
        Self {
            under: Some(folder),
            ..Self::default()
        }
    }

    /// Those again, in this order.
    pub(crate) fn again(folders: impl IntoIterator<Item = PathBuf>, links: &Path) -> Self {
        Self {
            again: Mutex::new(folders.into_iter().collect()),
            links: links.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn given(&self) -> Vec<PathBuf> {
        self.given
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn next(&self) -> io::Result<TempDir> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("larder-");
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = match (again.pop_front(), &self.under) {
            (Some(before), _) => {
                // A `TempDir` is always a new name; this one becomes a link, and what is dropped later is the link.
                let folder = builder.tempdir_in(&self.links)?;
                std::fs::remove_dir(folder.path())?;
                link(&before, folder.path())?;
                folder
            }
            (None, Some(under)) => builder.tempdir_in(under)?,
            (None, None) => builder.tempdir()?,
        };
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.push(folder.path().to_owned());
        Ok(folder)
    }
}

#[cfg(unix)]
fn link(to: &Path, name: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, name)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What the suite can ask beyond the contract of a store, where the author provides it (see [`Fixture::probe`]).
pub trait Probe: Send + Sync {
    /// How many rows, entries or files the place `place` holds, dead ones that were not yet cleared away included.
    fn rows(&self, place: &str) -> BoxFuture<'_, Result<u64, BoxError>>;
}

/// How a call of a store to its medium goes wrong, when it is made to (see [`Faults`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// It fails, and had no effect.
    ErrorBefore,
    /// It takes effect, and the answer is lost.
    ErrorAfter,
    /// No answer comes, and none ever will.
    Hang,
}

/// A medium that can be made to fail: a proxy before a server, a switch behind a driver (see [`Fixture::faults`]).
pub trait Faults: Send + Sync {
    /// Lets the `nth` call to the medium from now on, counted from 1, go wrong in this way; once. Replaces whatever was
    /// armed before.
    fn arm(&self, nth: u64, kind: FaultKind);

    /// Calls go well again. Whether the armed one was met.
    fn disarm(&self) -> bool;
}

/// One empty, private world in which places can be opened.
///
/// A check makes one, opens places in it, several times also, and drops it. What it needs beyond that is a *power*: a
/// method with a default. A check that lacks a power is ignored and names it.
pub trait Fixture: Sized + Send + Sync + 'static {
    /// An empty world.
    fn new(env: &Env) -> impl Future<Output = Result<Self, BoxError>> + Send;

    /// What the backend declares. Every item is checked.
    fn caps(&self) -> Caps;

    /// Power: the clock that the stores of this world were opened with (C-5).
    fn clock(&self) -> Option<Arc<TestClock>> {
        None
    }

    /// Power: waits until the background work of dropped and timed-out calls is over.
    fn settle(&self) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(Duration::from_secs(1))
    }

    /// Power: looks behind the contract.
    fn probe(&self) -> Option<Arc<dyn Probe>> {
        None
    }

    /// Power: makes the medium of this world fail.
    fn faults(&self) -> Option<Arc<dyn Faults>> {
        None
    }

    /// Whether calls of this world travel to a server, so that checks repeat what they do less often: a server shall not
    /// be asked more than a few thousand times for a contract.
    fn is_remote(&self) -> bool {
        false
    }

    /// Power: whether another process that makes a world with the same [`Env::prefix`] has the same world. A world in
    /// folders of [`Env::tempdir`] has this power without saying so.
    fn child(&self) -> bool {
        false
    }
}

/// A [`Fixture`] with its type erased, so that checks are compiled once and not for every backend.
pub(crate) trait World: Send + Sync {
    fn caps(&self) -> Caps;
    fn clock(&self) -> Option<Arc<TestClock>>;
    fn settle(&self) -> BoxFuture<'_, ()>;
    fn probe(&self) -> Option<Arc<dyn Probe>>;
    fn faults(&self) -> Option<Arc<dyn Faults>>;
    fn is_remote(&self) -> bool;
    fn child(&self) -> bool;
}

impl<P: Fixture> World for P {
    fn caps(&self) -> Caps {
        Fixture::caps(self)
    }

    fn clock(&self) -> Option<Arc<TestClock>> {
        Fixture::clock(self)
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        Fixture::settle(self).boxed()
    }

    fn probe(&self) -> Option<Arc<dyn Probe>> {
        Fixture::probe(self)
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Fixture::faults(self)
    }

    fn is_remote(&self) -> bool {
        Fixture::is_remote(self)
    }

    fn child(&self) -> bool {
        Fixture::child(self)
    }
}

/// Makes worlds of one contract, each empty and apart from all others.
pub(crate) type Factory<W> =
    Arc<dyn Fn(Env) -> BoxFuture<'static, Result<Box<W>, BoxError>> + Send + Sync>;
