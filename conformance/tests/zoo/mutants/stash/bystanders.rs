//! Wrong only for those whose calls run beside one that is dropped. A caller that is alone may drop what it likes.

use std::sync::atomic::Ordering::SeqCst;

use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::stash::driver::StashOp;

use super::m;
use crate::mutants::Mutant;
use crate::reference::stash::{Answer, Place, Rules};
use crate::reference::{Due, gap, lock};

pub(super) fn bystanders() -> Vec<Mutant> {
    let mutants = vec![laid_down(), put_back()];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Cancel);
    mutants.into_iter().map(awaiting).collect()
}

fn commit(place: &Place, ops: &[StashOp], rules: &Rules) -> Answer<()> {
    let mut state = lock(&place.state);
    let mut next = state.clone();
    next.commit(ops, rules)?;
    *state = next;
    Ok(())
}

fn laid_down() -> Mutant {
    m(
        "st-drop-empties-the-table",
        "C-6",
        &["ST-5", "ST-14"],
        "commits lay down what they are to do on one table; one that is dropped clears it, and the others commit nothing",
        |s| {
            s.slow_commit = Some(Box::new(|place, ops, rules| {
                async move {
                    let ticket = place.counter.fetch_add(1, SeqCst);
                    lock(&place.notes).insert(ticket, ops);
                    let cleared = Due::new(|| lock(&place.notes).clear());
                    gap().await;
                    cleared.call_off();
                    let laid_down = lock(&place.notes).remove(&ticket);
                    commit(place, &laid_down.unwrap_or_default(), rules)
                }
                .boxed()
            }));
        },
    )
}

fn put_back() -> Mutant {
    m(
        "st-drop-undoes-by-old-copy",
        "C-6",
        &["ST-14", "ST-5"],
        "a commit that is dropped puts its collections back as they were when it began, whatever others did to them since",
        |s| {
            s.slow_commit = Some(Box::new(|place, ops, rules| {
                async move {
                    let before: Vec<_> = {
                        let collections = &lock(&place.state).collections;
                        let known = |op: &StashOp| collections.get_key_value(&op.id());
                        let known = ops.iter().filter_map(known);
                        known.map(|(id, it)| (*id, it.clone())).collect()
                    };
                    let put_back = Due::new(|| {
                        let collections = &mut lock(&place.state).collections;
                        for (id, was) in before {
                            // One that was discarded meanwhile does not come back.
                            if let Some(is) = collections.get_mut(&id) {
                                *is = was;
                            }
                        }
                    });
                    gap().await;
                    put_back.call_off();
                    commit(place, &ops, rules)
                }
                .boxed()
            }));
        },
    )
}
