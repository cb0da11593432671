//! Removing payloads that nothing refers to any more (TS-7).
//!
//! It happens in the background, since nobody has to wait for it: recorded first, after the grace for readers, in a
//! bounded number of attempts. What cannot be done stays in the log.

use std::sync::Arc;

use larder_traits::{BackendError, Classify, ErrorKind, LateLanding, ObjectId, Step};

use crate::error::past_commit;
use crate::lease::Entry;
use crate::native::Core;

impl Entry {
    /// Removes these payloads, to which no row refers or will refer, in the background.
    pub(crate) async fn discard(mut self, created: Option<ObjectId>, replaced: Option<ObjectId>) {
        let core = Arc::clone(&self.core);
        if !core.is_cleanup_full() {
            let removal = async move {
                if self.record_removal(created, replaced, true).await {
                    self.remove().await;
                } else {
                    self.leave();
                }
            };
            core.background.spawn(removal);
            return;
        }
        // There is enough under way. Once it is on record, recovery will see to it.
        self.record_removal(created, replaced, true).await;
        self.leave();
    }

    /// Ends a put that was not made and says so with this error. Only where somebody may claim the change who finds the
    /// swap on record, and then makes it (see `recover.rs`), nobody knows; it becomes an error that says that.
    pub(crate) async fn give_up(mut self, error: BackendError) -> BackendError {
        if !self.may_swap() {
            // Dropped at its upload, it takes the payload with it.
            return error;
        }
        let created = self.change.created.clone();
        let is_recorded = self.advance(Step::Remove, created, None).await.is_ok();
        let unsure = "another writer may have made the swap";
        // From here on nobody makes it any more, so one look tells whether there is a payload to remove.
        if !is_recorded || !matches!(self.is_referenced().await, Some(false)) {
            self.leave();
            return past_commit(error, unsure);
        }
        let error = match self.may_be_swapped() {
            true => past_commit(error, unsure),
            false => error,
        };
        self.remove_later();
        error
    }

    /// Removes the payload of an upload that nobody finished, and of which nobody may know whether it has landed.
    /// Whether that is done; if not, it stays in the log.
    pub(crate) async fn discard_upload(self) -> bool {
        self.upload_has_landed().await;
        self.remove_upload().await
    }

    /// As [`discard_upload`](Self::discard_upload), for an upload that was recovered: the record of its swap may have
    /// been overtaken by that of the upload. Looks at the row right before, and leaves alone what it refers to.
    pub(crate) async fn discard_unreferenced_upload(self) -> bool {
        self.upload_has_landed().await;
        self.unless_referenced(Self::remove_upload).await
    }

    /// Waits until the upload has landed if it ever will. It stays on record as one for so long: a removal on record
    /// would be made at once by whoever claims it.
    async fn upload_has_landed(&self) {
        let core = &self.core;
        if let LateLanding::MayLandLate(Some(bound)) = core.config.long.late_landing {
            core.leased_as(&self.journal, core.sleep(bound)).await;
        }
    }

    async fn remove_upload(mut self) -> bool {
        let created = self.change.created.clone();
        let is_certain = !self.may_swap();
        if !self.record_removal(created, None, is_certain).await {
            self.leave();
            return false;
        }
        self.remove_now().await
    }

    /// Whether the removal may go on. With `is_certain` no row refers to these payloads or will, whoever claims the
    /// change.
    async fn record_removal(
        &mut self,
        created: Option<ObjectId>,
        replaced: Option<ObjectId>,
        is_certain: bool,
    ) -> bool {
        let recorded = self.advance(Step::Remove, created.clone(), replaced.clone());
        match recorded.await {
            Ok(()) => true,
            // Somebody else claimed the change and does the same; it does no harm to do it twice, and an upload that
            // landed behind the other one's back is met only here.
            Err(fault) if is_certain && fault.kind() == ErrorKind::Conflict => {
                self.change.step = Step::Remove;
                (self.change.created, self.change.replaced) = (created, replaced);
                true
            }
            Err(_) => false,
        }
    }

    /// Removes the payloads that the change names once their readers have had their time, and strikes it out. Whether
    /// that is done; if not, it stays in the log.
    pub(crate) async fn remove(self) -> bool {
        let (core, journal) = (Arc::clone(&self.core), Arc::clone(&self.journal));
        core.leased_as(&journal, async {
            core.sleep(core.config.grace).await;
            self.remove_now().await
        })
        .await
    }

    /// As [`remove`](Self::remove), in the background; with enough under way already, recovery will see to it.
    fn remove_later(self) {
        let core = Arc::clone(&self.core);
        if core.is_cleanup_full() {
            self.leave();
            return;
        }
        core.background.spawn(async move {
            self.remove().await;
        });
    }

    /// As [`remove`](Self::remove), for a change that was recovered: its writer may only have been stopped. Looks at the
    /// row right before, and leaves alone what it refers to.
    pub(crate) async fn remove_unreferenced(self) -> bool {
        let (core, journal) = (Arc::clone(&self.core), Arc::clone(&self.journal));
        core.leased_as(&journal, async {
            core.sleep(core.config.grace).await;
            self.unless_referenced(Self::remove_now).await
        })
        .await
    }

    /// As [`remove`](Self::remove), for payloads that no reader can have found.
    pub(crate) async fn remove_now(self) -> bool {
        let Core { long, .. } = &*self.core;
        let payloads = [self.change.created.clone(), self.change.replaced.clone()];
        for payload in payloads.into_iter().flatten() {
            let delete = || long.delete_object(&payload);
            if self.core.insist(delete).await.is_err() {
                self.leave();
                return false;
            }
        }
        self.close().await;
        true
    }
}

impl Core {
    /// Whether there are as many removals under way as there may be.
    pub(crate) fn is_cleanup_full(&self) -> bool {
        self.background.len() >= self.config.cleanups_max
    }

    /// Removes a payload to which no row refers or will refer, as a change of its own.
    pub(crate) async fn discard_payload(self: &Arc<Self>, object: &ObjectId, payload: ObjectId) {
        let entry = Entry::begin(self, object, Step::Remove, None, Some(payload)).await;
        // Where it cannot be recorded, it ends by its own deadline, which is why it was left.
        if let Ok(entry) = entry {
            entry.remove_later();
        }
    }
}
