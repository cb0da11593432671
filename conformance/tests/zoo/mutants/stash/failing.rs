//! Wrong only where the medium fails.

use futures_util::FutureExt;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::lock;
use crate::reference::medium::Trouble;

pub(super) fn failing() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "st-blind-retry",
            "ST-13",
            &["C-1", "ST-5"],
            "a commit whose answer was lost is made again",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        let commit = || {
                            let mut state = lock(&place.state);
                            let mut next = state.clone();
                            next.commit(&ops, rules)?;
                            *state = next;
                            Ok(())
                        };
                        match place.medium.timed(commit).await {
                            Ok(ended) => ended,
                            Err(Trouble::Refused) => Err(Trouble::Refused.before().into()),
                            Err(Trouble::Lost | Trouble::Late) => commit(),
                        }
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-lost-commit-not-applied",
            "ST-13",
            &["C-1"],
            "a commit whose answer was lost is said to have had no effect",
            |s| s.fails.commit = |trouble| Err(trouble.before().into()),
        ),
        m(
            "st-refused-commit-is-done",
            "C-1",
            &["ST-5", "ST-13", "ST-12"],
            "a commit that the medium refused is Ok",
            |s| {
                s.fails.commit = |trouble| match trouble {
                    Trouble::Refused => Ok(()),
                    _ => Err(trouble.at_commit().into()),
                };
            },
        ),
        m(
            "st-failed-read-unknown",
            "C-1",
            &[],
            "a read that failed is Unknown",
            |s| s.fails.read = |trouble| trouble.after().into(),
        ),
        m(
            "st-batch-in-pieces",
            "ST-12",
            &["ST-13", "C-1", "ST-5"],
            "each operation of a batch is committed by itself, and the rest is left out where one fails",
            |s| {
                s.one_at_a_time = true;
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        lock(&place.state).clone().commit(&ops, rules)?;
                        for op in &ops {
                            let one = || lock(&place.state).commit(std::slice::from_ref(op), rules);
                            let ended = place.medium.timed(one).await;
                            ended.map_err(|trouble| trouble.after())??;
                        }
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}
