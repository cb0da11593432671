//! The medium under a reference: it does what it is told, until it is armed to fail.

use std::sync::Mutex;
use std::time::Duration;

use larder_conformance::{FaultKind, Faults};
use larder_traits::{ErrorKind, Fault};

use super::lock;

/// How long a store waits for its medium where its contract has no deadlines.
pub(crate) const PATIENCE: Duration = Duration::from_millis(300);

/// What a store knows of a call to its medium that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It was refused, and had no effect.
    Refused,
    /// It was sent, and no answer came.
    Lost,
    /// It was sent, and no answer came in time.
    Late,
}

impl Trouble {
    fn kind(self) -> ErrorKind {
        match self {
            Self::Refused | Self::Lost => ErrorKind::Unavailable,
            Self::Late => ErrorKind::Timeout,
        }
    }

    /// The error of a call that was not the one that commits.
    pub(crate) fn before(self) -> Fault {
        Fault::not_applied(self.kind(), "the medium failed before anything was done")
    }

    /// The error of the call that commits.
    pub(crate) fn at_commit(self) -> Fault {
        match self {
            Self::Refused => self.before(),
            Self::Lost | Self::Late => {
                Fault::unknown(self.kind(), "the medium did not say whether it was done")
            }
        }
    }

    /// The error of a call after the one that commits, where it cannot be passed over.
    pub(crate) fn after(self) -> Fault {
        Fault::unknown(self.kind(), "the medium failed after it was done")
    }
}

#[derive(Debug, Default)]
struct Armed {
    fault: Option<(u64, FaultKind)>,
    count: u64,
    met: bool,
}

/// One for all places of a world.
#[derive(Debug, Default)]
pub(crate) struct Medium(Mutex<Armed>);

impl Medium {
    fn next(&self) -> Option<FaultKind> {
        let mut armed = lock(&self.0);
        armed.count += 1;
        let count = armed.count;
        let (_, kind) = armed.fault.filter(|(nth, _)| *nth == count)?;
        armed.fault = None;
        armed.met = true;
        Some(kind)
    }

    /// One call, which does `effect` at once unless it fails. Where no answer comes, it never ends.
    pub(crate) async fn call<T>(&self, effect: impl FnOnce() -> T + Send) -> Result<T, Trouble> {
        match self.next() {
            None => Ok(effect()),
            Some(FaultKind::ErrorAfter) => {
                effect();
                Err(Trouble::Lost)
            }
            Some(FaultKind::Hang) => std::future::pending().await,
            Some(_) => Err(Trouble::Refused),
        }
    }

    /// One call that is given up in time.
    pub(crate) async fn timed<T>(&self, effect: impl FnOnce() -> T + Send) -> Result<T, Trouble> {
        let call = self.call(effect);
        let ended = tokio::time::timeout(PATIENCE, call).await;
        ended.unwrap_or(Err(Trouble::Late))
    }

    /// One call that is made again after a pause if its answer is lost, whatever has come meanwhile.
    pub(crate) async fn call_again<T>(
        &self,
        effect: impl Fn() -> T + Send + Sync,
    ) -> Result<T, Trouble> {
        match self.call(&effect).await {
            Err(Trouble::Lost) => {}
            ended => return ended,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        // However the second one fails, the first was sent.
        self.call(&effect).await.map_err(|_second| Trouble::Lost)
    }

    /// The same, given up in time.
    pub(crate) async fn timed_again<T>(
        &self,
        effect: impl Fn() -> T + Send + Sync,
    ) -> Result<T, Trouble> {
        let ended = tokio::time::timeout(PATIENCE, self.call_again(effect)).await;
        ended.unwrap_or(Err(Trouble::Late))
    }

    /// One call of a store that blocks.
    pub(crate) fn block<T>(&self, effect: impl FnOnce() -> T) -> Result<T, Trouble> {
        match self.next() {
            None => Ok(effect()),
            Some(FaultKind::ErrorAfter) => {
                effect();
                Err(Trouble::Lost)
            }
            Some(FaultKind::Hang) => {
                std::thread::sleep(PATIENCE);
                Err(Trouble::Late)
            }
            Some(_) => Err(Trouble::Refused),
        }
    }
}

impl Faults for Medium {
    fn arm(&self, nth: u64, kind: FaultKind) {
        *lock(&self.0) = Armed {
            fault: Some((nth, kind)),
            count: 0,
            met: false,
        };
    }

    fn disarm(&self) -> bool {
        std::mem::take(&mut *lock(&self.0)).met
    }
}
