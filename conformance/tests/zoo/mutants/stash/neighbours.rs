//! Wrong only where the medium fails one of several calls that run at once. A call that is alone knows what became of it.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::Engine;
use larder_traits::stash::driver::{Frontiers, StashOp};

use super::m;
use crate::mutants::Mutant;
use crate::reference::group::{Effect, Ended};
use crate::reference::medium::{Medium, Trouble};
use crate::reference::stash::{Answer, Place, Rules, apply};
use crate::reference::{gap, lock};

pub(super) fn neighbours() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    [undone(), asked()]
        .into_iter()
        .flatten()
        .map(awaiting)
        .collect()
}

/// One transaction, which moves the version on if it is done.
fn commit(place: &Place, ops: &[StashOp], rules: &Rules) -> Answer<()> {
    let mut state = lock(&place.state);
    let mut next = state.clone();
    next.commit(ops, rules)?;
    *state = next;
    place.counter.fetch_add(1, SeqCst);
    Ok(())
}

fn undone() -> Vec<Mutant> {
    vec![m(
        "st-undo-by-old-copy",
        "C-1",
        &["ST-14", "ST-5", "ST-13"],
        "a commit that failed puts its collections back as they were when it began, whatever others did to them meanwhile",
        |s| {
            s.slow_commit = Some(Box::new(|place, ops, rules| {
                async move {
                    let before: Vec<_> = {
                        let collections = &lock(&place.state).collections;
                        let known = |op: &StashOp| collections.get_key_value(&op.id());
                        let known = ops.iter().filter_map(known);
                        known.map(|(id, it)| (*id, it.clone())).collect()
                    };
                    gap().await;
                    let commit = || commit(place, &ops, rules);
                    let ended = place.medium.timed(commit).await;
                    ended.unwrap_or_else(|trouble| {
                        let collections = &mut lock(&place.state).collections;
                        for (id, was) in before {
                            // One that was dropped meanwhile does not come back.
                            if let Some(is) = collections.get_mut(&id) {
                                *is = was;
                            }
                        }
                        Err(trouble.at_commit().into())
                    })
                }
                .boxed()
            }));
        },
    )]
}

/// In one transaction; where it failed and there are several, each of them by itself.
fn then_one_by_one(
    medium: Arc<Medium>,
    mut effects: Vec<Effect>,
) -> BoxFuture<'static, Vec<Ended>> {
    async move {
        let together = medium.timed(|| effects.iter_mut().for_each(|effect| effect()));
        let mut ended = vec![together.await; effects.len()];
        if effects.len() > 1 {
            for (ended, effect) in ended.iter_mut().zip(&mut effects) {
                if ended.is_err() {
                    *ended = medium.timed(effect).await;
                }
            }
        }
        ended
    }
    .boxed()
}

fn asked() -> Vec<Mutant> {
    vec![
        m(
            "st-group-tried-one-by-one",
            "ST-13",
            &["C-1", "ST-5", "ST-14"],
            "commits are made together; if that fails each is made by itself, though they may all be done",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, _| {
                    async move {
                        let (there, answer) = (Arc::clone(place), Arc::new(Mutex::new(Ok(()))));
                        let told = Arc::clone(&answer);
                        let rules = Rules {
                            admit: Box::new(Frontiers::admit),
                            apply: Box::new(apply),
                        };
                        let commit = move || *lock(&told) = commit(&there, &ops, &rules);
                        let group = &place.group;
                        let ended = group.join(&place.medium, then_one_by_one, commit);
                        ended.await.map_err(Trouble::at_commit)?;
                        std::mem::replace(&mut *lock(&answer), Ok(()))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-version-of-another",
            "C-1",
            &["ST-13", "ST-14", "ST-5"],
            "a commit that failed is taken for done if the version has moved on since it began, by whosever commit",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        let version = place.counter.load(SeqCst);
                        gap().await;
                        let committed = place.medium.timed(|| commit(place, &ops, rules)).await;
                        committed.unwrap_or_else(|trouble| {
                            if place.counter.load(SeqCst) == version {
                                return Err(trouble.before().into());
                            }
                            Ok(())
                        })
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
