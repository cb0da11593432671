//! Finishing what a writer left that is gone, or what this one could not finish (TS-7).
//!
//! A change is claimed only when the lease of its writer has ended, and of two that recover at once one gets it. What
//! is done then follows from the step on record and from the row:
//!
//! * *Upload*: no row refers to the payload. Remove it.
//! * *Swap*: if the row refers to the new payload, the old one is to be removed. If the row has left what the swap
//!   expected, the swap does not land any more, and neither payload is referred to. Otherwise the row is settled
//!   first; where that is not possible, the change stays in the log.
//! * *Remove*: remove.
//!
//! Whatever the log says, no payload is removed that the row refers to: a record that came late would be enough for it.
//!
//! Nothing is ever written for a caller here: a write that was not acknowledged either has landed or is undone.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use larder_traits::{Change, Fault, ObjectId, Step, TieredMetadata};

use crate::lease::Entry;
use crate::native::Core;

/// What a recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoverReport {
    /// Changes that were brought to their end.
    pub finished: usize,
    /// Changes that stay in the log: a tier did not answer, or their swap may still land.
    pub kept: usize,
}

/// How many changes are claimed at a time.
const CLAIMED_MAX: usize = 256;

pub(crate) async fn recover(core: &Arc<Core>) -> Result<RecoverReport, Fault> {
    let mut report = RecoverReport::default();
    // What this writer could not finish, or has let go of; not what is under way.
    let journal = &core.journal;
    let own = core.insist(|| journal.log.changes(journal.writer)).await?;
    let left = own.into_iter().filter(|change| !journal.is_open(change.id));
    report.add(core.resolve_all(left.collect()).await);
    loop {
        core.insist(|| journal.hold()).await?;
        let now = core.now();
        let claim = || journal.log.claim(journal.writer, now, CLAIMED_MAX);
        let claimed = core.insist(claim).await?;
        if claimed.is_empty() {
            return Ok(report);
        }
        report.add(core.resolve_all(claimed).await);
    }
}

impl RecoverReport {
    fn add(&mut self, other: Self) {
        self.finished += other.finished;
        self.kept += other.kept;
    }
}

impl Core {
    async fn resolve_all(self: &Arc<Self>, changes: Vec<Change>) -> RecoverReport {
        let entries = changes.into_iter().map(|change| Entry::adopt(self, change));
        let resolved = stream::iter(entries.map(Entry::resolve))
            .buffer_unordered(self.config.recover_parallel);
        let count = |mut report: RecoverReport, is_finished: bool| {
            report.finished += usize::from(is_finished);
            report.kept += usize::from(!is_finished);
            std::future::ready(report)
        };
        self.leased(resolved.fold(RecoverReport::default(), count))
            .await
    }
}

impl Entry {
    /// Brings a change to its end as its step and the row demand. Whether it came to one; if not, it stays in the log.
    pub(crate) async fn resolve(mut self) -> bool {
        match self.change.step {
            Step::Upload | Step::Remove => match self.is_referenced().await {
                None => {
                    self.leave();
                    false
                }
                Some(true) => {
                    self.close().await;
                    true
                }
                Some(false) if self.change.step == Step::Upload => self.discard_upload().await,
                Some(false) => self.remove().await,
            },
            Step::Swap => match self.unreferenced().await {
                None => {
                    self.leave();
                    false
                }
                Some([None, None]) => {
                    self.close().await;
                    true
                }
                Some([created, replaced]) => {
                    if self.advance(Step::Remove, created, replaced).await.is_err() {
                        self.leave();
                        return false;
                    }
                    self.remove().await
                }
            },
        }
    }

    /// As [`resolve`](Self::resolve), for a change that this writer has just left.
    pub(crate) async fn resolve_later(self) {
        self.resolve().await;
    }

    /// Whether the row refers to what the change is to remove; `None` where it cannot be asked.
    async fn is_referenced(&self) -> Option<bool> {
        let Change {
            object,
            created,
            replaced,
            ..
        } = &self.change;
        let row = self.core.look(object).await.ok()?;
        Some(refers(&row, created) || refers(&row, replaced))
    }

    /// Which of the two payloads of a swap nothing refers to, now or later: the new one and the old one. `None` where
    /// that cannot be told.
    async fn unreferenced(&self) -> Option<[Option<ObjectId>; 2]> {
        let Change {
            object,
            created,
            replaced,
            ..
        } = &self.change;
        let row = self.core.look(object).await.ok()?;
        if refers(&row, created) {
            return Some([None, replaced.clone()]);
        }
        if replaced.is_some() && !refers(&row, replaced) {
            // It has left what the swap expected, and a redirect never comes back.
            return Some([created.clone(), replaced.clone()]);
        }
        let probe = created.as_ref().or(replaced.as_ref())?;
        if !self.core.settle(object, probe, true).await {
            return None;
        }
        let row = self.core.look(object).await.ok()?;
        if refers(&row, created) {
            return Some([None, replaced.clone()]);
        }
        let gone = replaced.clone().filter(|_| !refers(&row, replaced));
        Some([created.clone(), gone])
    }
}

fn refers(row: &TieredMetadata, payload: &Option<ObjectId>) -> bool {
    match row {
        TieredMetadata::Tombstone(there) => Some(&there.target) == payload.as_ref(),
        TieredMetadata::Object(_) | TieredMetadata::NotFound => false,
    }
}
