//! Wrong only where the medium fails one of several calls that run at once. A call that is alone knows what became of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::group::{Effect, Ended, as_one};
use crate::reference::medium::{Medium, Trouble};
use crate::reference::{Due, gap, lock};

pub(super) fn neighbours() -> Vec<Mutant> {
    [groups(), undone(), seen()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Fault))
        .collect()
}

/// What became of the group is for its first member; the others were only waiting.
fn first_is_told(medium: Arc<Medium>, effects: Vec<Effect>) -> BoxFuture<'static, Vec<Ended>> {
    async move {
        let mut ended = as_one(medium, effects).await;
        ended.iter_mut().skip(1).for_each(|ended| *ended = Ok(()));
        ended
    }
    .boxed()
}

fn groups() -> Vec<Mutant> {
    vec![m(
        "kv-group-followers-are-done",
        "C-1",
        &["KV-8", "KV-1", "KV-7"],
        "puts are committed together, and all but the first are Ok whatever became of it",
        |s| {
            s.slow_write = Some(Box::new(|place, key, value, ttl| {
                async move {
                    let there = Arc::clone(&place);
                    let write = move || {
                        let _step = lock(&there.step);
                        there.write(&key, value.clone(), ttl);
                    };
                    let group = Arc::clone(&place.group);
                    let ended = group.join(&place.medium, first_is_told, write).await;
                    ended.map_err(|trouble| trouble.at_commit().into())
                }
                .boxed()
            }));
        },
    )]
}

fn undone() -> Vec<Mutant> {
    vec![
        m(
            "kv-undo-by-old-copy",
            "C-1",
            &["KV-1", "KV-7"],
            "a put that failed puts back all that was there when it began, and so undoes what others wrote meanwhile",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        let before = lock(&place.entries).clone();
                        gap().await;
                        let write = || {
                            let _step = lock(&place.step);
                            place.write(&key, value, ttl);
                        };
                        let written = place.medium.timed(write).await;
                        written.map_err(|trouble| {
                            let _step = lock(&place.step);
                            *lock(&place.entries) = before;
                            trouble.at_commit().into()
                        })
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "kv-repeat-over-newer",
            "KV-7",
            &["C-1", "KV-1"],
            "a put whose answer was lost is made again after a pause, over what others have made of it meanwhile",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        let write = || {
                            let _step = lock(&place.step);
                            place.write(&key, value.clone(), ttl);
                        };
                        let written = match place.medium.timed(write).await {
                            Err(Trouble::Lost) => {
                                tokio::time::sleep(Duration::from_millis(5)).await;
                                let again = place.medium.timed(write).await;
                                again.map_err(Trouble::after)
                            }
                            written => written.map_err(Trouble::at_commit),
                        };
                        Ok(written?)
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

fn seen() -> Vec<Mutant> {
    vec![m(
        "kv-seen-before-commit",
        "KV-7",
        &["C-1", "KV-1"],
        "a get is answered from a put that is still on its way, and may yet fail",
        |s| {
            s.one_at_a_time = true;
            s.slow_write = Some(Box::new(|place, key, value, ttl| {
                async move {
                    let _turn = place.turn.lock().await;
                    lock(&place.notes).insert(key.clone(), value.clone());
                    let ended = Due::new(|| drop(lock(&place.notes).remove(&key)));
                    let write = || {
                        let _step = lock(&place.step);
                        place.write(&key, value.clone(), ttl);
                    };
                    // What others have seen stays, if the call is dropped.
                    let kept = Due::new(write);
                    gap().await;
                    let written = place.medium.timed(write).await;
                    kept.call_off();
                    ended.settle();
                    written.map_err(|trouble| trouble.at_commit().into())
                }
                .boxed()
            }));
            s.slow_read = Some(Box::new(|place, key| {
                async move {
                    let look = || {
                        let coming = lock(&place.notes).get(&key).cloned();
                        coming.or_else(|| place.read(&key))
                    };
                    let found = place.medium.timed(look).await;
                    found.map_err(|trouble| trouble.before().into())
                }
                .boxed()
            }));
        },
    )]
}
