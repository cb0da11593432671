//! Wrong only where the medium fails.

use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::Fault;

use super::m;
use crate::mutants::Mutant;
use crate::reference::lock;
use crate::reference::medium::Trouble;

/// What the native error says, wherever it came.
fn by_kind(trouble: Trouble) -> Fault {
    match trouble {
        Trouble::Refused | Trouble::Lost => trouble.before(),
        Trouble::Late => trouble.after(),
    }
}

pub(super) fn failing() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    [outcomes(), silent(), steps()]
        .into_iter()
        .flatten()
        .map(awaiting)
        .collect()
}

fn outcomes() -> Vec<Mutant> {
    vec![
        m(
            "cl-lost-record-not-applied",
            "C-1",
            &["CL-1"],
            "a record whose answer was lost is said to have had no effect",
            |s| s.fails.record = |trouble| Err(trouble.before()),
        ),
        m(
            "cl-lost-complete-not-applied",
            "C-1",
            &["CL-2"],
            "a complete whose answer was lost is said to have had no effect",
            |s| s.fails.complete = |trouble| Err(trouble.before()),
        ),
        m(
            "cl-lost-renewal-not-applied",
            "C-1",
            &["CL-4"],
            "a renewal whose answer was lost is said to have had no effect",
            |s| s.fails.renew = |trouble| Err(trouble.before()),
        ),
        m(
            "cl-lost-claim-not-applied",
            "C-1",
            &["CL-5"],
            "a claim whose answer was lost is said to have had no effect",
            |s| s.fails.claim = |trouble| Err(trouble.before()),
        ),
        m(
            "cl-outcome-of-native-error",
            "C-1",
            &[],
            "a broken line is without effect and silence is not known of, wherever in a call they come",
            |s| {
                s.fails.list = |trouble| Err(by_kind(trouble));
                s.fails.stage = |trouble| Err(by_kind(trouble));
                s.fails.record = |trouble| Err(by_kind(trouble));
                s.fails.complete = |trouble| Err(by_kind(trouble));
                s.fails.renew = |trouble| Err(by_kind(trouble));
                s.fails.claim = |trouble| Err(by_kind(trouble));
            },
        ),
        m(
            "cl-failed-list-unknown",
            "C-1",
            &["CL-6"],
            "a list that failed is Unknown",
            |s| s.fails.list = |trouble| Err(trouble.after()),
        ),
    ]
}

fn silent() -> Vec<Mutant> {
    vec![
        m(
            "cl-failed-list-empty",
            "C-1",
            &["CL-1", "CL-3", "CL-6"],
            "what could not be read is none",
            |s| s.fails.list = |_| Ok(Vec::new()),
        ),
        m(
            "cl-refused-is-done",
            "C-1",
            &["CL-1", "CL-2"],
            "a record or complete that the medium refused is Ok",
            |s| {
                let done: fn(Trouble) -> _ = |trouble| match trouble {
                    Trouble::Refused => Ok(()),
                    _ => Err(trouble.at_commit()),
                };
                s.fails.record = done;
                s.fails.complete = done;
            },
        ),
        m(
            "cl-refused-renewal-is-done",
            "C-1",
            &["CL-4"],
            "a renewal that the medium refused is Ok, since the next one will come",
            |s| {
                s.fails.renew = |trouble| match trouble {
                    Trouble::Refused => Ok(()),
                    _ => Err(trouble.at_commit()),
                };
            },
        ),
        m(
            "cl-failed-claim-empty",
            "C-1",
            &["CL-5"],
            "a claim that failed has found nothing",
            |s| s.fails.claim = |_| Ok(Vec::new()),
        ),
    ]
}

fn steps() -> Vec<Mutant> {
    vec![
        m(
            "cl-claim-retried",
            "C-1",
            &["CL-5"],
            "a claim whose answer was lost is tried again, and answers with what was left",
            |s| {
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let claim = || lock(&place.log).book.claim(writer, now, limit);
                        let mut claimed = place.medium.timed(claim).await;
                        if claimed.is_err() {
                            claimed = place.medium.timed(claim).await;
                        }
                        claimed.map_err(Trouble::at_commit)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-claim-then-reads",
            "C-1",
            &["CL-5"],
            "a claim takes the changes and then reads them; if that fails it is said to have had no effect",
            |s| {
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let claim = || lock(&place.log).book.claim(writer, now, limit);
                        let taken = place.medium.timed(claim).await;
                        let taken = taken.map_err(Trouble::at_commit)?;
                        let read = place.medium.timed(|| ()).await;
                        read.map_err(Trouble::before)?;
                        Ok(taken)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-half-record",
            "C-1",
            &["CL-1"],
            "a record removes the old change and then writes the new one; if that is refused it has had no effect",
            |s| {
                s.one_at_a_time = true;
                s.slow_record = Some(Box::new(|place, writer, change| {
                    async move {
                        let _turn = place.turn.lock().await;
                        let remove = || lock(&place.log).book.complete(writer, change.id);
                        let removed = place.medium.timed(remove).await;
                        removed.map_err(Trouble::at_commit)??;
                        let write = || lock(&place.log).book.put(writer, &change);
                        let written = place.medium.timed(write).await;
                        written.map_err(Trouble::at_commit)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-half-claim",
            "C-1",
            &["CL-5"],
            "a claim takes the changes of one writer after those of another; if a later one is refused it has had no effect",
            |s| {
                s.one_at_a_time = true;
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let _turn = place.turn.lock().await;
                        let free = lock(&place.log).book.claimable(writer, now);
                        let mut taken = Vec::new();
                        for ids in free.chunks(2) {
                            let left = limit - taken.len();
                            let take = || {
                                let ids = ids.iter().copied();
                                lock(&place.log).book.take(writer, ids, left)
                            };
                            let some = place.medium.timed(take).await;
                            taken.extend(some.map_err(Trouble::at_commit)?);
                        }
                        Ok(taken)
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
