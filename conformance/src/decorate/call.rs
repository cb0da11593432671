//! How one call of any method goes through the switch.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_traits::{ErrorKind, Fault};
use tokio::time::{sleep, timeout_at};

use super::Faulty;
use super::switch::{Call, Effect, Report, Trouble, Turn};
use crate::fixture::FaultKind;

/// The time that a write gets which lands after its caller has gone.
const LATE_FOR: Duration = Duration::from_secs(60);

/// The call that is made.
pub(super) struct What {
    pub(super) method: &'static str,
    pub(super) subject: String,
    pub(super) effect: Effect,
    /// A call that has one is answered when it has passed, whatever hangs.
    pub(super) deadline: Option<Instant>,
}

impl What {
    pub(super) fn new(method: &'static str, effect: Effect, subject: impl ToString) -> Self {
        Self {
            method,
            subject: subject.to_string(),
            effect,
            deadline: None,
        }
    }

    pub(super) fn by(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The error of a call that had no effect.
    pub(super) fn refused(&self, report: Report, kind: ErrorKind, why: &'static str) -> Fault {
        match (self.effect, report) {
            (Effect::Write, Report::Vague) => Fault::unknown(kind, why),
            _ => Fault::not_applied(kind, why),
        }
    }

    /// The error of a call of which nobody knows what became. A read has no effect to be unsure of.
    pub(super) fn lost(&self, kind: ErrorKind, why: &'static str) -> Fault {
        match self.effect {
            Effect::Write => Fault::unknown(kind, why),
            Effect::Read | Effect::Stream => Fault::not_applied(kind, why),
        }
    }
}

/// The moment at which a call reaches the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Now,
    Later,
}

impl When {
    /// The deadline that the store is given.
    pub(super) fn deadline(self, asked: Instant) -> Instant {
        match self {
            Self::Now => asked,
            Self::Later => Instant::now() + LATE_FOR,
        }
    }
}

impl<S> Faulty<S> {
    pub(super) fn enter(&self, what: &What) -> Turn {
        let call = Call {
            store: self.label,
            method: what.method,
            subject: what.subject.clone(),
        };
        self.switch.enter(call, what.effect)
    }
}

impl<S: Send + Sync + 'static> Faulty<S> {
    /// One call: counted, and done by `work` unless the switch has it otherwise.
    pub(super) async fn call<T, E, W, F>(&self, what: What, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
        W: FnOnce(Arc<S>, When) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let turn = self.enter(&what);
        self.go(turn, what, work).await
    }

    /// As [`call`](Self::call), for a call that was counted already.
    pub(super) async fn go<T, E, W, F>(&self, turn: Turn, what: What, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
        W: FnOnce(Arc<S>, When) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        if !turn.delay.is_zero() && passes_before(what.deadline, sleep(turn.delay)).await {
            let why = "the deadline passed while the call was delayed";
            return Err(what.refused(turn.report, ErrorKind::Timeout, why).into());
        }
        match turn.trouble {
            None | Some(Trouble::Short(..)) => work(inner, When::Now).await,
            Some(Trouble::Kind(FaultKind::ErrorBefore)) => {
                let why = "the call was made to fail before it had an effect";
                Err(what
                    .refused(turn.report, ErrorKind::Unavailable, why)
                    .into())
            }
            Some(Trouble::Kind(FaultKind::ErrorAfter)) => {
                drop(work(inner, When::Now).await?);
                let why = "the answer was made to be lost";
                Err(what.lost(ErrorKind::Unavailable, why).into())
            }
            Some(Trouble::Kind(FaultKind::Hang)) => {
                passes_before(what.deadline, pending()).await;
                let why =
                    "the deadline passed while the call was made to hang before it had an effect";
                Err(what.refused(turn.report, ErrorKind::Timeout, why).into())
            }
            Some(Trouble::HangAfter) => {
                drop(work(inner, When::Now).await?);
                passes_before(what.deadline, pending()).await;
                let why = "the deadline passed while the answer was made to hang";
                Err(what.lost(ErrorKind::Timeout, why).into())
            }
            Some(Trouble::Late) => {
                let lost = what.lost(ErrorKind::Unavailable, "the write was made to land later");
                let late = async move { drop(work(inner, When::Later).await) };
                self.switch.keep(self.label, what.subject, Box::pin(late));
                Err(lost.into())
            }
        }
    }
}

/// Waits for `pause`, or for the deadline; whether that came first.
async fn passes_before(deadline: Option<Instant>, pause: impl Future<Output = ()> + Send) -> bool {
    match deadline {
        Some(deadline) => timeout_at(deadline.into(), pause).await.is_err(),
        None => {
            pause.await;
            false
        }
    }
}
