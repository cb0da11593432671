//! Wrong only once a call was dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::stash::driver::StashOp;
use larder_traits::{ErrorKind, Fault};
use tokio::task::yield_now;

use super::m;
use crate::mutants::Mutant;
use crate::reference::medium::{PATIENCE, Trouble};
use crate::reference::stash::{Answer, Place, Rules};
use crate::reference::{Due, behind, lock};

fn commit(place: &Place, ops: &[StashOp], rules: &Rules) -> Answer<()> {
    let mut state = lock(&place.state);
    let mut next = state.clone();
    next.commit(ops, rules)?;
    *state = next;
    Ok(())
}

pub(super) fn dropped() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "st-drop-half-batch",
            "C-6",
            &["ST-5", "ST-12"],
            "an update under a lock writes its rows one by one; one that is dropped leaves the first of them",
            |s| {
                s.one_at_a_time = true;
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        // What is refused is refused before anything is done.
                        let before = lock(&place.state).clone();
                        before.clone().commit(&ops, rules)?;
                        for op in &ops {
                            let StashOp::Update { id, rows } = op else {
                                commit(place, std::slice::from_ref(op), rules)?;
                                yield_now().await;
                                continue;
                            };
                            for row in rows {
                                let rows = vec![row.clone()];
                                let one = StashOp::Update { id: *id, rows };
                                commit(place, &[one], rules)?;
                                if rows_few(rows_of(op)) {
                                    yield_now().await;
                                }
                            }
                        }
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-drop-leaves-transaction",
            "C-6",
            &["ST-14"],
            "a handle on which a commit was dropped says that its transaction is still open",
            |s| {
                let open = Arc::new(AtomicBool::new(false));
                s.slow_commit = Some(Box::new(move |place, ops, rules| {
                    let open = Arc::clone(&open);
                    async move {
                        if open.load(SeqCst) {
                            let why = "cannot start a transaction within a transaction";
                            return Err(Fault::not_applied(ErrorKind::Internal, why).into());
                        }
                        let stays = Due::new(|| open.store(true, SeqCst));
                        yield_now().await;
                        stays.call_off();
                        commit(place, &ops, rules)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-drop-keeps-lock",
            "C-6",
            &["ST-14"],
            "the lock on the place of a commit that is dropped is not released",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        let started = Instant::now();
                        while place
                            .counter
                            .compare_exchange(0, 1, SeqCst, SeqCst)
                            .is_err()
                        {
                            if started.elapsed() > PATIENCE * 20 {
                                return Err(Trouble::Late.before().into());
                            }
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        yield_now().await;
                        let ended = commit(place, &ops, rules);
                        place.counter.store(0, SeqCst);
                        ended
                    }
                    .boxed()
                }));
            },
        )
        .hanging(),
        m(
            "st-drop-lands-late",
            "C-6",
            &["ST-5", "ST-13"],
            "a commit that is dropped goes on in the background, and is declared fenced",
            |s| {
                s.slow_commit = Some(Box::new(|place, ops, rules| {
                    async move {
                        let plain = ops.iter().all(|op| matches!(op, StashOp::Update { .. }));
                        let (late, what) = (Arc::clone(place), ops.clone());
                        let left = Due::new(move || {
                            let rest = move || {
                                let mut state = lock(&late.state);
                                for op in what {
                                    if let StashOp::Update { id, rows } = op
                                        && let Some(collection) = state.collections.get_mut(&id)
                                    {
                                        collection.rows.extend(rows);
                                    }
                                }
                            };
                            if plain {
                                behind(rest);
                            }
                        });
                        yield_now().await;
                        left.call_off();
                        commit(place, &ops, rules)
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Cancel);
    mutants.into_iter().map(awaiting).collect()
}

fn rows_of(op: &StashOp) -> usize {
    match op {
        StashOp::Update { rows, .. } => rows.len(),
        _ => 0,
    }
}

/// Whether it takes no time worth speaking of to wait after each.
fn rows_few(rows: usize) -> bool {
    rows < 100
}
