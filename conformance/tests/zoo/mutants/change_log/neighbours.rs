//! Wrong only where the medium fails one of several calls that run at once. A call that is alone knows what became of it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::medium::Trouble;
use crate::reference::{gap, lock};

/// How long a log takes to do something about a failure.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) fn neighbours() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    [records(), claims()]
        .into_iter()
        .flatten()
        .map(awaiting)
        .collect()
}

fn records() -> Vec<Mutant> {
    vec![
        m(
            "cl-cuts-back-too-far",
            "C-1",
            &["CL-1", "CL-6"],
            "a record that failed cuts the log back to where it began, and with it what others have recorded since",
            |s| {
                s.slow_record = Some(Box::new(|place, writer, change| {
                    async move {
                        let before: BTreeSet<_> =
                            lock(&place.log).book.changes.keys().copied().collect();
                        gap().await;
                        let record = || lock(&place.log).book.record(writer, &change);
                        let recorded = place.medium.timed(record).await;
                        let trouble = match recorded {
                            Ok(recorded) => return recorded,
                            Err(trouble) => trouble,
                        };
                        tokio::time::sleep(PAUSE).await;
                        let book = &mut lock(&place.log).book;
                        book.changes.retain(|id, _| before.contains(id));
                        Err(trouble.at_commit())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-asks-too-late",
            "C-1",
            &["CL-1", "CL-6", "CL-5"],
            "a record whose answer was lost looks for the change, and if another has claimed it meanwhile had no effect",
            |s| {
                s.slow_record = Some(Box::new(|place, writer, change| {
                    async move {
                        let record = || lock(&place.log).book.record(writer, &change);
                        match place.medium.timed(record).await {
                            Ok(recorded) => return recorded,
                            Err(Trouble::Lost) => {}
                            Err(trouble) => return Err(trouble.at_commit()),
                        }
                        tokio::time::sleep(PAUSE).await;
                        let look = || lock(&place.log).book.of(writer).contains(&change);
                        if place.medium.timed(look).await.map_err(Trouble::after)? {
                            return Ok(());
                        }
                        Err(Trouble::Refused.before())
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

fn claims() -> Vec<Mutant> {
    vec![m(
        "cl-claim-gives-back-too-much",
        "C-1",
        &["CL-5", "CL-6"],
        "a claim that failed gives all back that it could have had, and with it what others have claimed since",
        |s| {
            s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                async move {
                    let before: Vec<_> = {
                        let book = &lock(&place.log).book;
                        let free = book.claimable(writer, now).into_iter();
                        free.map(|id| (id, book.owner(id))).collect()
                    };
                    gap().await;
                    let claim = || lock(&place.log).book.claim(writer, now, limit);
                    let claimed = place.medium.timed(claim).await;
                    let trouble = match claimed {
                        Ok(claimed) => return Ok(claimed),
                        Err(trouble) => trouble,
                    };
                    tokio::time::sleep(PAUSE).await;
                    let book = &mut lock(&place.log).book;
                    for (id, owner) in before {
                        if let (Some((is, _)), Some(was)) = (book.changes.get_mut(&id), owner) {
                            *is = was;
                        }
                    }
                    Err(trouble.at_commit())
                }
                .boxed()
            }));
        },
    )]
}
