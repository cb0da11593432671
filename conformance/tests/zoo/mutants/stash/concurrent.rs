//! Wrong only while several calls run at once. Each call that was begun is done in full, even if it is dropped.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::CollectionId;
use larder_traits::stash::driver::{Frontiers, Rows, StashOp};

use super::m;
use crate::mutants::Mutant;
use crate::reference::{Due, gap, lock};

pub(super) fn concurrent() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "st-seal-checked-then-written",
            "ST-9",
            &["ST-6", "ST-14"],
            "a seal looks at upper first and writes a moment later, so that it can go back behind another one",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        let mut next = lock(&place.state).clone();
                        let [StashOp::Seal { id, upper }] = &ops[..] else {
                            let mut state = lock(&place.state);
                            let mut next = state.clone();
                            next.commit(&ops, rules)?;
                            *state = next;
                            return Ok(());
                        };
                        next.commit(&ops, rules)?;
                        let written = Due::new(|| {
                            if let Some(collection) = lock(&place.state).collections.get_mut(id) {
                                collection.frontiers.upper = upper.clone();
                            }
                        });
                        gap().await;
                        written.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-frontiers-told-late",
            "ST-9",
            &["ST-14", "C-2"],
            "handles keep the frontiers that they read until they are told of a change, after others could see it",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        {
                            let mut state = lock(&place.state);
                            let mut next = state.clone();
                            next.commit(&ops, rules)?;
                            *state = next;
                        }
                        let told = Due::new(|| {
                            place.counter.fetch_add(1, SeqCst);
                        });
                        gap().await;
                        told.settle();
                        Ok(())
                    }
                    .boxed()
                }));
                let discard = std::mem::replace(&mut s.discard, Box::new(|_, _| Ok(false)));
                s.discard = Box::new(move |place, name| {
                    let gone = discard(place, name);
                    place.counter.fetch_add(1, SeqCst);
                    gone
                });
                let kept = Arc::new(Mutex::new((0, BTreeMap::<CollectionId, Frontiers>::new())));
                s.slow_snapshot = Some(Box::new(move |place, id, rows| {
                    let kept = Arc::clone(&kept);
                    async move {
                        let mut kept = lock(&kept);
                        let version = place.counter.load(SeqCst);
                        if kept.0 != version {
                            *kept = (version, BTreeMap::new());
                        }
                        let state = lock(&place.state);
                        let asked = matches!(rows, Rows::None);
                        let mut snapshot = state.snapshot(id, rows)?;
                        if asked {
                            let known = kept.1.entry(id).or_insert(snapshot.frontiers);
                            snapshot.frontiers = known.clone();
                        }
                        Ok(snapshot)
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Lin);
    mutants.into_iter().map(awaiting).collect()
}
