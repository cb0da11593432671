//! The one step of a change that readers can see: the row goes from what it was to what it shall be.
//!
//! An answer is certain or it is not. What follows from one that is not, by TS-6:
//!
//! * A swap that expects a redirect can only land while that very redirect is there. Payloads have names of their own,
//!   so a redirect that a row has left never comes back, and then the swap has landed or never will. Until then it may
//!   be repeated freely.
//! * A swap that expects no redirect can land whenever there is none. It is never repeated once it may have landed. If
//!   the row shows it, it has landed; otherwise nothing is certain until the row is [settled](Core::settle).
//!
//! So a redirect is in a row for one stretch of time at most, and a payload that was seen replaced can be removed.

use larder_traits::{
    BackendError, Classify, ErrorKind, ExpirationPolicy, LateLanding, ObjectId, Outcome,
    TieredMetadata, TieredWrite, Tombstone,
};

use crate::error::{is_passing, past_commit};
use crate::lease::Entry;
use crate::native::Core;

/// How a swap ended.
#[derive(Debug)]
pub(crate) enum Swapped {
    /// The row is as it was asked for, or already something newer.
    Won,
    /// The row has been written by somebody else since it was looked at: this write counts as the one before (TS-3).
    Lost,
    /// The redirect that was expected is gone and nothing is in its place. Nothing was written: look again (TS-4).
    Vanished,
    /// Nothing was written, and nothing will be.
    Refused(BackendError),
    /// It may have been written and replaced since. It does not land any more.
    Over(BackendError),
    /// It may have been written, or may yet be.
    Open(BackendError),
}

/// How a row stands to a swap that was not answered.
enum Stand {
    /// The redirect that was expected is still there.
    Expected,
    /// The redirect that was to be written is there.
    Written,
    /// Something else is there.
    Other,
    Absent,
}

fn target_of(write: &TieredWrite) -> Option<&ObjectId> {
    match write {
        TieredWrite::Tombstone(tombstone) => Some(&tombstone.target),
        TieredWrite::Object(..) | TieredWrite::Delete => None,
    }
}

fn stand(row: &TieredMetadata, expected: Option<&ObjectId>, written: Option<&ObjectId>) -> Stand {
    match row {
        TieredMetadata::NotFound => Stand::Absent,
        TieredMetadata::Object(_) => Stand::Other,
        TieredMetadata::Tombstone(there) if Some(&there.target) == written => Stand::Written,
        TieredMetadata::Tombstone(there) if Some(&there.target) == expected => Stand::Expected,
        TieredMetadata::Tombstone(_) => Stand::Other,
    }
}

impl Core {
    /// Writes over the redirect `old`, which was seen in the row.
    pub(crate) async fn displace(
        &self,
        entry: &mut Entry,
        old: &Tombstone,
        write: &TieredWrite,
    ) -> Swapped {
        let id = &entry.change.object.clone();
        // The error of an attempt that may have landed.
        let mut doubt: Option<BackendError> = None;
        let mut attempt = 1;
        loop {
            let swap = self
                .high
                .compare_and_write(id, Some(&old.target), write.clone());
            let error = match swap.await {
                Ok(true) => return Swapped::Won,
                Ok(false) => None,
                Err(e) if e.outcome() == Outcome::NotApplied => Some(e),
                Err(e) => {
                    doubt = Some(e);
                    None
                }
            };
            let last = match error {
                // The row did not change by this attempt, so there is nothing to see.
                Some(e) => e,
                None => match self.look(id).await {
                    Ok(row) => match stand(&row, Some(&old.target), target_of(write)) {
                        Stand::Written => return Swapped::Won,
                        Stand::Other => return Swapped::Lost,
                        Stand::Absent => return self.vanished(old, write, doubt),
                        Stand::Expected => unanswered(),
                    },
                    Err(e) => e,
                },
            };
            if attempt == self.config.attempts_max || !is_passing(&last) {
                return self
                    .displaced_in_doubt(entry, old, write, doubt, last)
                    .await;
            }
            self.pause(attempt).await;
            attempt += 1;
            // The pauses add up, and the change may have been claimed meanwhile.
            if let Err(fault) = entry.confirm().await {
                let claimed = fault.into();
                return self
                    .displaced_in_doubt(entry, old, write, doubt, claimed)
                    .await;
            }
        }
    }

    /// The redirect has left the row, which is empty. Whether the write was in between cannot be seen any more.
    fn vanished(
        &self,
        old: &Tombstone,
        write: &TieredWrite,
        doubt: Option<BackendError>,
    ) -> Swapped {
        let Some(doubt) = doubt else {
            return Swapped::Vanished;
        };
        // Then it was removed by somebody, after it was looked at.
        let was_deleted = !old.is_expired(self.now());
        if was_deleted || matches!(write, TieredWrite::Delete) {
            return Swapped::Lost;
        }
        Swapped::Over(past_commit(
            doubt,
            "the object ended while its swap was not answered",
        ))
    }

    async fn displaced_in_doubt(
        &self,
        entry: &mut Entry,
        old: &Tombstone,
        write: &TieredWrite,
        doubt: Option<BackendError>,
        last: BackendError,
    ) -> Swapped {
        let Some(doubt) = doubt else {
            return Swapped::Refused(last);
        };
        let id = &entry.change.object.clone();
        if self.settle(id, &old.target, false).await
            && let Ok(row) = self.look(id).await
        {
            return match stand(&row, Some(&old.target), target_of(write)) {
                Stand::Written => Swapped::Won,
                Stand::Other => Swapped::Lost,
                Stand::Absent => self.vanished(old, write, Some(doubt)),
                Stand::Expected => Swapped::Refused(crate::error::before_commit(
                    doubt,
                    "the swap did not go through",
                )),
            };
        }
        Swapped::Open(past_commit(doubt, "the swap was not answered"))
    }

    /// Writes the redirect `new` where there is none.
    pub(crate) async fn occupy(&self, entry: &mut Entry, new: &Tombstone) -> Swapped {
        let id = &entry.change.object.clone();
        let mut attempt = 1;
        let doubt = loop {
            let write = TieredWrite::Tombstone(new.clone());
            match self.high.compare_and_write(id, None, write).await {
                Ok(true) => return Swapped::Won,
                // A redirect is there that was not before.
                Ok(false) => return Swapped::Lost,
                Err(e) if e.outcome() == Outcome::Unknown => break e,
                Err(e) if attempt == self.config.attempts_max || !is_passing(&e) => {
                    return Swapped::Refused(e);
                }
                Err(_) => {}
            }
            self.pause(attempt).await;
            attempt += 1;
            if let Err(fault) = entry.confirm().await {
                return Swapped::Refused(crate::error::unlogged(fault));
            }
        };
        let is_there =
            |row: &TieredMetadata| matches!(stand(row, None, Some(&new.target)), Stand::Written);
        match self.look(id).await {
            Ok(row) if is_there(&row) => return Swapped::Won,
            _ => {}
        }
        if !self.settle(id, &new.target, false).await {
            return Swapped::Open(past_commit(doubt, "the swap was not answered"));
        }
        match self.look(id).await {
            Ok(row) if is_there(&row) => Swapped::Won,
            Ok(TieredMetadata::Tombstone(_)) => Swapped::Lost,
            Ok(_) => Swapped::Over(past_commit(doubt, "the swap was not answered")),
            Err(_) => Swapped::Open(past_commit(doubt, "the swap was not answered")),
        }
    }

    /// After `true`, no swap of this row that ended in doubt lands any more (TS-6).
    ///
    /// By a fence where the tier has one. Else by what it declares: either any acknowledged call ends the matter, which
    /// is then one that writes nothing, or the declared bound does, if the caller has the patience.
    pub(crate) async fn settle(&self, id: &ObjectId, target: &ObjectId, patient: bool) -> bool {
        match self.insist(|| self.high.fence(id)).await {
            Ok(()) => return true,
            Err(e) if e.kind() == ErrorKind::Unsupported => {}
            Err(_) => return false,
        }
        match self.config.high.late_landing {
            LateLanding::Fenced => {
                // A redirect to its own target is never written, whatever is in the row.
                let nothing = || {
                    let same = Tombstone::new(target.clone(), ExpirationPolicy::Manual);
                    let write = TieredWrite::Tombstone(same);
                    self.high.compare_and_write(id, Some(target), write)
                };
                self.insist(nothing).await.is_ok()
            }
            LateLanding::MayLandLate(Some(bound)) if patient => {
                self.sleep(bound).await;
                true
            }
            LateLanding::MayLandLate(_) => false,
        }
    }
}

/// Stands for the answer that did not come, where the row shows that another attempt is due.
fn unanswered() -> BackendError {
    larder_traits::Fault::not_applied(ErrorKind::Unavailable, "the swap did not go through").into()
}
