//! The resource: the two tiers, the log, and what every protocol needs of them.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{Either, select};
use larder_traits::{
    Backend, BackendError, Classify, Fault, HighVolumeBackend, ObjectId, TieredMetadata,
};

use crate::config::TieredConfig;
use crate::error::{invalid, is_passing};
use crate::lease::Journal;
use crate::revision::Revision;
use crate::runtime::Background;

/// Everything that one opened storage stands on.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) high: Arc<dyn HighVolumeBackend>,
    pub(crate) long: Arc<dyn Backend>,
    /// What this writer begins.
    pub(crate) journal: Arc<Journal>,
    /// What recovery has claimed here, as a writer of its own: see `lease.rs`.
    pub(crate) claims: Arc<Journal>,
    pub(crate) background: Background,
    pub(crate) config: TieredConfig,
}

impl Core {
    pub(crate) fn now(&self) -> SystemTime {
        self.config.clock.now()
    }

    /// Refuses ids that leave no room for the name of a payload, and those that are such names (C-4).
    pub(crate) fn check_id(&self, id: &ObjectId) -> Result<(), Fault> {
        if id.to_string().len() > self.config.id_len_bytes_max() {
            return Err(invalid("the id is longer than the tiers leave room for"));
        }
        if Revision::parse(id).is_some() {
            return Err(invalid("the id is of the form that names payloads"));
        }
        Ok(())
    }

    /// What is in the row, asked until there is an answer or the attempts are used up.
    pub(crate) async fn look(&self, id: &ObjectId) -> Result<TieredMetadata, BackendError> {
        self.insist(|| self.high.get_tiered_metadata(id)).await
    }

    /// Makes a call that may be repeated, until it goes well or there is no point in another attempt.
    pub(crate) async fn insist<T, E, F>(&self, mut call: impl FnMut() -> F) -> Result<T, E>
    where
        E: Classify,
        F: Future<Output = Result<T, E>>,
    {
        let mut attempt = 1;
        loop {
            match call().await {
                Err(e) if is_passing(&e) && attempt < self.config.attempts_max => {
                    self.pause(attempt).await;
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    /// The pause after this attempt: each twice as long as the last.
    pub(crate) async fn pause(&self, attempt: u32) {
        let times = 1_u32 << attempt.saturating_sub(1).min(10);
        self.sleep(self.config.backoff.saturating_mul(times)).await;
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        if !duration.is_zero() {
            self.config.runtime.sleep(duration).await;
        }
    }

    /// Runs `work` and keeps the lease of this writer alive meanwhile (TS-7).
    pub(crate) async fn leased<T>(&self, work: impl Future<Output = T> + Send) -> T {
        self.leased_as(&self.journal, work).await
    }

    /// As [`leased`](Self::leased), for what was claimed in a name of its own.
    pub(crate) async fn leased_as<T>(
        &self,
        journal: &Journal,
        work: impl Future<Output = T> + Send,
    ) -> T {
        let beats = async {
            loop {
                self.sleep(self.config.lease / 3).await;
                journal.beat().await;
            }
        };
        let (work, beats): (_, std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) =
            (Box::pin(work), Box::pin(beats));
        match select(work, beats).await {
            Either::Left((done, _)) => done,
            Either::Right(((), _)) => unreachable!("a heart that ends by itself"),
        }
    }
}
