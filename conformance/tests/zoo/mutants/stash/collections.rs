//! Wrong where a collection is made or dropped, or read by its name or key, while something else comes in between: another
//! handle, a medium that fails, or the end of the call.

use std::sync::Arc;

use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::stash::driver::{Frontiers, Rows};
use larder_traits::{Antichain, ErrorKind, Fault};

use super::m;
use crate::mutants::Mutant;
use crate::reference::medium::Trouble;
use crate::reference::{Due, behind, gap, lock};

pub(super) fn collections() -> Vec<Mutant> {
    let awaiting = |engine| move |mutant: Mutant| mutant.awaiting(engine);
    let meeting = meeting().into_iter().map(awaiting(Engine::Lin));
    let failing = failing().into_iter().map(awaiting(Engine::Fault));
    let dropped = dropped().into_iter().map(awaiting(Engine::Cancel));
    meeting.chain(failing).chain(dropped).collect()
}

fn meeting() -> Vec<Mutant> {
    vec![
        m(
            "st-creators-race",
            "ST-1",
            &["ST-14", "C-2"],
            "who finds no collection of a name makes one a moment later, in place of what another has made meanwhile",
            |s| {
                s.slow_open = Some(Box::new(|place, name| {
                    async move {
                        let found = lock(&place.state).names.get(name).copied();
                        if let Some(found) = found {
                            return Ok(found);
                        }
                        gap().await;
                        let mut state = lock(&place.state);
                        state.names.remove(name);
                        Ok(state.open(name))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-creator-refused",
            "ST-1",
            &["ST-14"],
            "who finds no collection of a name makes one a moment later, and fails if another was faster",
            |s| {
                s.slow_open = Some(Box::new(|place, name| {
                    async move {
                        let found = lock(&place.state).names.get(name).copied();
                        if let Some(found) = found {
                            return Ok(found);
                        }
                        gap().await;
                        let mut state = lock(&place.state);
                        if state.names.contains_key(name) {
                            let why = "the name is there already";
                            return Err(Fault::not_applied(ErrorKind::Conflict, why).into());
                        }
                        Ok(state.open(name))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-two-drop-one",
            "ST-1",
            &["ST-14"],
            "a drop looks whether there is such a collection, and of two that look at once both say that they dropped it",
            |s| {
                s.slow_discard = Some(Box::new(|place, name| {
                    async move {
                        let is_there = lock(&place.state).names.contains_key(name);
                        if is_there {
                            gap().await;
                            lock(&place.state).discard(name);
                        }
                        Ok(is_there)
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

fn failing() -> Vec<Mutant> {
    vec![
        m(
            "st-failed-key-is-absent",
            "C-1",
            &["ST-4"],
            "a key whose rows could not be read has none",
            |s| {
                s.slow_snapshot = Some(Box::new(|place, id, which| {
                    async move {
                        let look = || lock(&place.state).snapshot(id, which);
                        let ended = place.medium.timed(look).await;
                        ended.unwrap_or_else(|trouble| match which {
                            Rows::Key(_) => lock(&place.state).snapshot(id, Rows::None),
                            _ => Err(trouble.before().into()),
                        })
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-failed-names-are-none",
            "C-1",
            &["ST-1"],
            "names that could not be read are none",
            |s| s.fails.names = |_| Ok(Vec::new()),
        ),
        m(
            "st-drop-retried",
            "ST-13",
            &["ST-1", "C-1"],
            "a drop whose answer was lost is made again, and says that there was no such collection",
            |s| {
                s.fails.discard = |place, name, trouble| match trouble {
                    Trouble::Refused => Err(trouble.at_commit().into()),
                    _ => Ok(lock(&place.state).discard(name)),
                };
            },
        ),
    ]
}

fn dropped() -> Vec<Mutant> {
    vec![
        m(
            "st-drop-half-made",
            "C-6",
            &["ST-1"],
            "a collection gets its name and then its frontiers; where the call is dropped between it has none, and takes no update",
            |s| {
                s.slow_open = Some(Box::new(|place, name| {
                    async move {
                        let found = lock(&place.state).names.get(name).copied();
                        if let Some(found) = found {
                            return Ok(found);
                        }
                        let half = Due::new(|| {
                            let mut state = lock(&place.state);
                            let is_new = !state.names.contains_key(name);
                            let id = state.open(name);
                            if is_new && let Some(collection) = state.collections.get_mut(&id) {
                                collection.frontiers = Frontiers {
                                    since: Antichain::new(),
                                    upper: Antichain::new(),
                                };
                            }
                        });
                        gap().await;
                        half.call_off();
                        Ok(lock(&place.state).open(name))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-drop-half-dropped",
            "C-6",
            &["ST-1"],
            "a drop removes the rows and then the name; where the call is dropped between the collection is there without its rows",
            |s| {
                s.slow_discard = Some(Box::new(|place, name| {
                    async move {
                        let half = Due::new(|| {
                            let mut state = lock(&place.state);
                            let id = state.names.get(name).copied();
                            let found = id.and_then(|id| state.collections.get_mut(&id));
                            if let Some(collection) = found {
                                collection.rows.clear();
                            }
                        });
                        gap().await;
                        half.call_off();
                        Ok(lock(&place.state).discard(name))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "st-drop-drops-late",
            "C-6",
            &["ST-1"],
            "a drop of a collection that is dropped itself goes on in the background, and is declared fenced",
            |s| {
                s.slow_discard = Some(Box::new(|place, name| {
                    async move {
                        let (late, gone) = (Arc::clone(place), name.to_owned());
                        let left = Due::new(move || {
                            behind(move || lock(&late.state).discard(&gone));
                        });
                        tokio::task::yield_now().await;
                        left.call_off();
                        Ok(lock(&place.state).discard(name))
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
