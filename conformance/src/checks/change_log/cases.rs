//! One call of each method, with everything around it that tells afterwards whether it took effect.

use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_traits::{Change, Fault, LateLanding, WriterId};

use super::{at, change, for_ever, spread};
use crate::change_log::{Handle, differ};
use crate::check::{Outcome, Stop};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Record,
    Complete,
    Changes,
    Renew,
    Claim,
}

impl Method {
    pub(super) const ALL: [Self; 5] = [
        Self::Record,
        Self::Complete,
        Self::Changes,
        Self::Renew,
        Self::Claim,
    ];

    /// Where the cases of this method are played: a claim takes whatever is free.
    pub(super) fn place(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Complete => "complete",
            Self::Changes => "changes",
            Self::Renew => "renew",
            Self::Claim => "claim",
        }
    }
}

/// When claims of cases are made, or the first of them.
const NOW: u64 = 1_000;

/// A call whose effect can be told from its absence.
pub(super) struct Case {
    method: Method,
    /// Whose change it is, or is going to be.
    owner: WriterId,
    /// Who claims, or tries to.
    other: WriterId,
    /// What there was before the call, in the order of the ids. Where a call is about all of them it is several, so that half
    /// of it would show.
    old: Vec<Change>,
    /// What a record writes.
    new: Change,
    /// When it claims.
    now: SystemTime,
}

/// What was seen after the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) may_be_old: bool,
    pub(super) may_be_new: bool,
}

/// What a call answered with, where that is a list.
pub(super) type Answer = Option<Vec<Change>>;

impl Case {
    /// Makes everything ready. `number` is greater for each case of a place.
    pub(super) async fn prepare(
        handle: &Handle,
        method: Method,
        number: u64,
        is_there: bool,
        late_landing: LateLanding,
    ) -> Result<Self, Stop> {
        let writer = |tag: &str| WriterId::from_bytes(spread(&format!("{method:?} {tag}"), number));
        let mut case = Self {
            method,
            owner: writer("owner"),
            other: writer("other"),
            old: Vec::new(),
            new: change(number, 3),
            now: at(NOW + number),
        };
        if is_there {
            let several = matches!(method, Method::Changes | Method::Claim);
            let numbers = [0, 100_000, 200_000]
                .into_iter()
                .take(if several { 3 } else { 1 });
            case.old = numbers.map(|beside| change(number + beside, 2)).collect();
            case.old.sort_by_key(|change| change.id);
        }
        let is_held = !matches!(method, Method::Renew | Method::Claim);
        if is_held {
            handle.renew(case.owner, for_ever()).await?;
        }
        handle.renew(case.other, for_ever()).await?;
        if method == Method::Claim && late_landing != LateLanding::Fenced {
            // The claim of an earlier case may land at any time, and takes nothing whose lease has not ended at its own.
            handle.renew(case.owner, case.now).await?;
        }
        if method == Method::Renew && is_there {
            // A lease that has ended is there, instead of none.
            handle.renew(case.owner, at(NOW - 1)).await?;
        }
        // A lease is told by what it holds.
        let held = std::slice::from_ref(&case.new);
        let held = if method == Method::Renew {
            held
        } else {
            &case.old
        };
        for change in held {
            handle.record(case.owner, change).await?;
        }
        Ok(case)
    }

    pub(super) fn call<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Result<Answer, Fault>> {
        match self.method {
            Method::Record => async {
                handle
                    .try_record(self.owner, &self.new)
                    .await
                    .map(|()| None)
            }
            .boxed(),
            Method::Complete => async {
                let completed = handle.try_complete(self.owner, self.new.id).await;
                completed.map(|()| None)
            }
            .boxed(),
            Method::Changes => async { handle.try_changes(self.owner).await.map(Some) }.boxed(),
            Method::Renew => async {
                let renewed = handle.try_renew(self.owner, for_ever()).await;
                renewed.map(|()| None)
            }
            .boxed(),
            Method::Claim => async {
                let claimed = handle.try_claim(self.other, self.now, usize::MAX).await;
                claimed.map(Some)
            }
            .boxed(),
        }
    }

    /// Fails unless an answer that came is the right one.
    pub(super) fn judge(&self, what: &str, answer: &Answer) -> Outcome {
        let Some(seen) = answer else { return Ok(()) };
        if *seen == self.old {
            return Ok(());
        }
        Err(differ(format!("{what}: the answer"), seen, &self.old))
    }

    /// Looks whether the call took effect; fails where it is neither done nor undone.
    pub(super) async fn look(&self, what: &str, handle: &Handle) -> Result<Seen, Stop> {
        if self.method == Method::Renew {
            // Who gets the change says whether there is a lease; one that was got stays got.
            handle.claim(self.other, at(NOW), usize::MAX).await?;
        }
        let old = self.old.clone();
        let mut own = handle.changes(self.owner).await?;
        let mut others = handle.changes(self.other).await?;
        if self.method == Method::Claim && own == old && others == old {
            // Two calls, between which a claim that was dropped may land, once.
            own = handle.changes(self.owner).await?;
            others = handle.changes(self.other).await?;
        }
        let new = vec![self.new.clone()];
        let state = |old: bool, new: bool| Seen {
            may_be_old: old,
            may_be_new: new,
        };
        let seen = match self.method {
            Method::Record => state(own == old, own == new),
            Method::Complete => state(own == old, own.is_empty()),
            Method::Changes => state(own == old, own == old),
            Method::Renew => state(own.is_empty() && others == new, own == new),
            Method::Claim => state(
                own == old && others.is_empty(),
                own.is_empty() && others == old,
            ),
        };
        let is_foreign = matches!(self.method, Method::Renew | Method::Claim);
        if (is_foreign || others.is_empty()) && (seen.may_be_old || seen.may_be_new) {
            return Ok(seen);
        }
        Err(Stop::fail(
            what,
            format!("{own:?} of its owner, {others:?} of another"),
            "what was there before the call, or what it leads to, whole",
        ))
    }

    /// Takes the case out of the way of those that follow.
    pub(super) async fn close(&self, handle: &Handle) -> Outcome {
        if self.method == Method::Claim {
            // What was not claimed stays with its owner.
            handle.renew(self.owner, for_ever()).await?;
        }
        Ok(())
    }
}
