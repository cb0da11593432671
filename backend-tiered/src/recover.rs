//! Finishing what a writer left that is gone, or what this one could not finish (TS-7).
//!
//! A change is claimed only when the lease of its writer has ended, and of two that recover at once one gets it. What
//! is done then follows from the step on record and from the row:
//!
//! * *Upload*: no row refers to the payload. Remove it.
//! * *Swap*: if the row refers to the new payload, the old one is to be removed. If the row has left what the swap
//!   expected, the swap does not land any more, and neither payload is referred to. Otherwise see below.
//! * *Remove*: remove.
//!
//! Whatever the log says, no payload is removed that the row refers to: a record that came late would be enough for it.
//!
//! A writer whose lease has ended may only have been stopped, right before its swap, and go on. No fence helps against
//! that: the swap has not begun. So:
//!
//! * A swap of one redirect for another is made here, on behalf of its writer. The row has not changed since the writer
//!   looked at it, so nobody else's write is in the way, and no error was answered that says it was not made
//!   ([`Entry::give_up`]). When the writer goes on, it finds its redirect there, or finds that the row has left what it
//!   expected.
//! * A swap that expects no redirect can not be made here, since the row may have been written since, and is undone:
//!   the row is settled, and the payload is removed. The writer, when it goes on, finds that its lease had ended and
//!   takes its redirect out again (see `put.rs`). Where the row cannot be settled, the change stays in the log.
//! * A swap of a redirect for an object or for nothing refers to no payload, and may come at any time.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use larder_traits::{
    BackendError, Change, ChangeId, Fault, ObjectId, Step, TieredMetadata, TieredWrite, Tombstone,
};

use crate::delete::unlink;
use crate::lease::{Entry, Journal};
use crate::native::Core;
use crate::swap::Swapped;

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
    let (journal, claims) = (&core.journal, &core.claims);
    for own in [journal, claims] {
        let left = left(core, own).await?;
        report.add(core.resolve_all(own, left).await);
    }
    loop {
        // The writer's too, lest what is under way here is claimed here.
        core.insist(|| journal.keep()).await?;
        core.insist(|| claims.hold()).await?;
        let now = core.now();
        let claim = || claims.log.claim(claims.writer, now, CLAIMED_MAX);
        let claimed = core.insist(claim).await?;
        if claimed.is_empty() {
            return Ok(report);
        }
        let adopted = claimed.into_iter();
        let adopted = adopted.filter_map(|change| Entry::adopt(core, claims, change));
        report.add(core.resolve_all(claims, adopted.collect()).await);
    }
}

/// What could not be finished in this name, or was let go of; not what is under way.
async fn left(core: &Arc<Core>, journal: &Arc<Journal>) -> Result<Vec<Entry>, Fault> {
    let changes = || journal.log.changes(journal.writer);
    let seen = core.insist(changes).await?;
    let mut left: HashMap<ChangeId, Entry> = seen
        .into_iter()
        .filter_map(|change| Some((change.id, Entry::adopt(core, journal, change)?)))
        .collect();
    if left.is_empty() {
        return Ok(Vec::new());
    }
    // Again, since one that was under way then may have come on, or to its end, before it was let go of.
    let now = core.insist(changes).await?;
    let found = now
        .into_iter()
        .filter_map(|change| Some(left.remove(&change.id)?.found(change)));
    Ok(found.collect())
}

impl RecoverReport {
    fn add(&mut self, other: Self) {
        self.finished += other.finished;
        self.kept += other.kept;
    }
}

impl Core {
    async fn resolve_all(&self, journal: &Journal, entries: Vec<Entry>) -> RecoverReport {
        let resolved = stream::iter(entries.into_iter().map(Entry::resolve))
            .buffer_unordered(self.config.recover_parallel);
        let count = |mut report: RecoverReport, is_finished: bool| {
            report.finished += usize::from(is_finished);
            report.kept += usize::from(!is_finished);
            std::future::ready(report)
        };
        let resolved = resolved.fold(RecoverReport::default(), count);
        self.leased_as(journal, resolved).await
    }
}

impl Entry {
    /// Brings a change to its end as its step and the row demand. Whether it came to one; if not, it stays in the log.
    pub(crate) async fn resolve(mut self) -> bool {
        match self.change.step {
            Step::Upload => self.discard_unreferenced_upload().await,
            Step::Remove => self.remove_unreferenced().await,
            Step::Swap => match self.unreferenced().await {
                None => {
                    self.leave();
                    false
                }
                Some([None, None]) => {
                    if self.may_have_been_undone().await {
                        return self.undo().await;
                    }
                    self.close().await;
                    true
                }
                Some([created, replaced]) => {
                    if self.advance(Step::Remove, created, replaced).await.is_err() {
                        self.leave();
                        return false;
                    }
                    self.remove_unreferenced().await
                }
            },
        }
    }

    /// As [`resolve`](Self::resolve), for a change that this writer has just left.
    pub(crate) fn resolve_later(self) -> BoxFuture<'static, ()> {
        // In a box, since it may end in another change, which may end in this.
        self.resolve().map(drop).boxed()
    }

    /// Whether this writer's own swap, which expected no redirect, has landed after another had claimed and undone it.
    async fn may_have_been_undone(&self) -> bool {
        let is_blind = self.change.created.is_some() && self.change.replaced.is_none();
        is_blind && self.is_own() && !self.is_unclaimed().await
    }

    /// Takes the redirect out again. Whether that is done.
    async fn undo(self) -> bool {
        let core = Arc::clone(&self.core);
        let Change {
            object, created, ..
        } = self.change.clone();
        self.leave();
        match core.look(&object).await {
            Ok(TieredMetadata::Tombstone(there)) if Some(&there.target) == created.as_ref() => {
                unlink(core, object, there).await.is_ok()
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    /// Removes what the change is to remove, in this way, unless the row refers to it: then the change has come to its
    /// end. Whether it has; where the row cannot be asked, it stays in the log.
    pub(crate) async fn unless_referenced<F>(self, remove: impl FnOnce(Self) -> F) -> bool
    where
        F: Future<Output = bool>,
    {
        match self.is_referenced().await {
            None => {
                self.leave();
                false
            }
            Some(true) => {
                self.close().await;
                true
            }
            Some(false) => remove(self).await,
        }
    }

    /// Whether the row refers to what the change is to remove; `None` where it cannot be asked.
    pub(crate) async fn is_referenced(&self) -> Option<bool> {
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
    async fn unreferenced(&mut self) -> Option<[Option<ObjectId>; 2]> {
        let row = self.core.look(&self.change.object).await.ok()?;
        if let TieredMetadata::Tombstone(seen) = &row
            && !self.is_own()
            && refers(&row, &self.change.replaced)
            && let Some(redirect) = self.redirect().await.ok()?
        {
            return self.swap_for_its_writer(seen, redirect).await;
        }
        let Change {
            object,
            created,
            replaced,
            ..
        } = &self.change;
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

    /// The redirect that the change is to swap in, made of what its payload tells; `None` where there is none or has no
    /// payload any more.
    async fn redirect(&self) -> Result<Option<Tombstone>, BackendError> {
        let Core { long, .. } = &*self.core;
        let Some(created) = &self.change.created else {
            return Ok(None);
        };
        let found = self.core.insist(|| long.get_metadata(created)).await?;
        Ok(found.map(|metadata| {
            let mut redirect = Tombstone::new(created.clone(), metadata.expiration_policy);
            redirect.time_expires = metadata.time_expires;
            redirect
        }))
    }

    /// Makes the swap of a writer that may be gone; as [`unreferenced`](Self::unreferenced).
    async fn swap_for_its_writer(
        &mut self,
        seen: &Tombstone,
        redirect: Tombstone,
    ) -> Option<[Option<ObjectId>; 2]> {
        let core = Arc::clone(&self.core);
        let Change {
            created, replaced, ..
        } = self.change.clone();
        let write = TieredWrite::Tombstone(redirect);
        match core.displace(self, seen, &write).await {
            Swapped::Won => Some([None, replaced]),
            // The row has left what was expected, by the hand of its writer or of somebody else.
            Swapped::Lost | Swapped::Vanished | Swapped::Over(_) => Some([created, replaced]),
            Swapped::Refused(_) | Swapped::Open(_) => None,
        }
    }
}

fn refers(row: &TieredMetadata, payload: &Option<ObjectId>) -> bool {
    match row {
        TieredMetadata::Tombstone(there) => Some(&there.target) == payload.as_ref(),
        TieredMetadata::Object(_) | TieredMetadata::NotFound => false,
    }
}
