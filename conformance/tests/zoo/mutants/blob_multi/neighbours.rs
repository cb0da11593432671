//! Wrong only where the medium fails one of several calls that run at once. A call that is alone knows what became of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::blob_multi::{Answer, Place};
use crate::reference::group::{Effect, Ended};
use crate::reference::medium::{Medium, Trouble};
use crate::reference::{Due, gap, lock};

pub(super) fn neighbours() -> Vec<Mutant> {
    [together(), alone()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Fault))
        .collect()
}

/// What becomes of a call to the medium by the deadline.
async fn by<T>(
    deadline: Instant,
    call: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let ended = tokio::time::timeout_at(deadline.into(), call).await;
    ended.unwrap_or(Err(Trouble::Late))
}

/// Each has a call of its own; of the answers, those of the ones that failed are put behind the others.
fn failed_ones_last(medium: Arc<Medium>, effects: Vec<Effect>) -> BoxFuture<'static, Vec<Ended>> {
    async move {
        let mut ended = Vec::new();
        for effect in effects {
            ended.push(medium.timed(effect).await);
        }
        ended.sort_by_key(Result::is_err);
        ended
    }
    .boxed()
}

/// Writes what all sets have laid down, in the order in which they came.
fn flush(place: &Place) {
    let mut blobs = lock(&place.blobs);
    for (ticket, value) in std::mem::take(&mut *lock(&place.notes)) {
        if let Some((_, key)) = ticket.split_once(' ') {
            blobs.set(key, value);
        }
    }
}

fn together() -> Vec<Mutant> {
    vec![
        m(
            "bm-group-answers-mixed-up",
            "C-1",
            &["BM-13", "BM-6", "BM-1"],
            "sets are sent together, and the error of one that failed is told to the last of them",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let there = Arc::clone(&place);
                        let set = move || drop(there.set(&key, value.clone()));
                        let group = Arc::clone(&place.group);
                        let ended = group.join(&place.medium, failed_ones_last, set);
                        let ended = by(deadline, ended).await;
                        ended.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-flushed-by-neighbour",
            "C-1",
            &["BM-6", "BM-13"],
            "a set that was refused takes back what it laid down to be written, if no other set has written it since",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let ticket = place.counter.fetch_add(1, SeqCst);
                        let ticket = format!("{ticket:020} {key}");
                        lock(&place.notes).insert(ticket.clone(), value);
                        let taken_back = Due::new(|| drop(lock(&place.notes).remove(&ticket)));
                        gap().await;
                        let flushed = place.medium.call(|| flush(&place));
                        let flushed = by(deadline, flushed).await;
                        taken_back.settle();
                        flushed.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

/// The value as it was kept, or else as it lies there, and then it is kept.
fn kept(place: &Place, key: &str) -> Answer<Option<Bytes>> {
    let blobs = lock(&place.blobs);
    let mut kept = lock(&place.notes);
    if let Some(value) = kept.get(key) {
        return Ok(Some(value.clone()));
    }
    let found = blobs.get(key).cloned();
    if let Some(value) = &found {
        kept.insert(key.to_owned(), value.clone());
    }
    Ok(found)
}

fn alone() -> Vec<Mutant> {
    vec![
        m(
            "bm-kept-value-put-back",
            "BM-6",
            &["C-1", "BM-1", "BM-3"],
            "a set that failed makes gets answer what they answered before it, though another one is done meanwhile",
            |s| {
                s.get = Box::new(kept);
                s.delete = Box::new(|place, key| {
                    let mut blobs = lock(&place.blobs);
                    blobs.delete(key);
                    lock(&place.notes).remove(key);
                    Ok(())
                });
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let before = lock(&place.notes).get(&key).cloned();
                        gap().await;
                        let set = || {
                            let mut blobs = lock(&place.blobs);
                            blobs.set(&key, value.clone());
                            lock(&place.notes).insert(key.clone(), value);
                        };
                        let ended = by(deadline, place.medium.call(set)).await;
                        ended.map_err(|trouble| {
                            // Where the set may be done, what lies there is looked up again.
                            let before = before.filter(|_| trouble != Trouble::Lost);
                            let mut kept = lock(&place.notes);
                            match before {
                                Some(value) => kept.insert(key.clone(), value),
                                None => kept.remove(&key),
                            };
                            trouble.at_commit().into()
                        })
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-asks-too-late",
            "BM-13",
            &["C-1", "BM-6"],
            "a set whose answer was lost looks whether its value is there, and if others have set another one had no effect",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let medium = &place.medium;
                        let set = by(deadline, medium.call(|| place.set(&key, value.clone())));
                        match set.await {
                            Ok(set) => return set,
                            Err(Trouble::Lost) => {}
                            Err(trouble) => return Err(trouble.at_commit().into()),
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        let look = by(deadline, medium.call(|| place.get(&key)));
                        let found = look.await.map_err(Trouble::after)??;
                        if found == Some(value) {
                            return Ok(());
                        }
                        Err(Trouble::Refused.before().into())
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
