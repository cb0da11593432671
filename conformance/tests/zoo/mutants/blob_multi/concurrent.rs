//! Wrong only while several calls run at once. Each call that was begun is done in full, even if it is dropped.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::{Due, gap, lock};

pub(super) fn concurrent() -> Vec<Mutant> {
    [writes(), reads()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Lin))
        .collect()
}

/// The first half of `new` over `old`.
fn half_over(old: &Bytes, new: &Bytes) -> Bytes {
    let half = new.len() / 2;
    [&new[..half], old.get(half..).unwrap_or_default()]
        .concat()
        .into()
}

fn writes() -> Vec<Mutant> {
    vec![
        m(
            "bm-replace-gap",
            "BM-4",
            &["BM-6"],
            "a set removes the old value and then writes the new one",
            |s| {
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        place.delete(&key)?;
                        let put = Due::new(|| drop(place.set(&key, value)));
                        gap().await;
                        put.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-torn-in-place",
            "BM-4",
            &["BM-6"],
            "a set writes over the old value, one half after the other",
            |s| {
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        let old = place.get(&key)?;
                        if let Some(old) = old.filter(|old| !old.is_empty()) {
                            place.set(&key, half_over(&old, &value))?;
                        }
                        let rest = Due::new(|| drop(place.set(&key, value)));
                        gap().await;
                        rest.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-invalidates-late",
            "BM-6",
            &["C-2", "BM-4"],
            "handles keep what they read until they are told of a set, and are told after it can be seen by others",
            |s| {
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        place.set(&key, value)?;
                        let told = Due::new(|| {
                            place.counter.fetch_add(1, SeqCst);
                        });
                        gap().await;
                        told.settle();
                        Ok(())
                    }
                    .boxed()
                }));
                s.delete = Box::new(|place, key| {
                    place.delete(key)?;
                    place.counter.fetch_add(1, SeqCst);
                    Ok(())
                });
                let kept = Arc::new(Mutex::new((0, BTreeMap::<String, Option<Bytes>>::new())));
                s.slow_get = Some(Box::new(move |place, key| {
                    let kept = Arc::clone(&kept);
                    async move {
                        let mut kept = lock(&kept);
                        let version = place.counter.load(SeqCst);
                        if kept.0 != version {
                            *kept = (version, BTreeMap::new());
                        }
                        if let Some(value) = kept.1.get(&key) {
                            return Ok(value.clone());
                        }
                        let value = place.get(&key)?;
                        // Only what was read while nothing changed may be kept.
                        if place.counter.load(SeqCst) == version {
                            kept.1.insert(key, value.clone());
                        }
                        Ok(value)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-set-twice",
            "BM-6",
            &["BM-4"],
            "a set is delivered twice, the second time a little later",
            |s| {
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        place.set(&key, value.clone())?;
                        let again = Due::new(|| drop(place.set(&key, value)));
                        gap().await;
                        again.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

fn reads() -> Vec<Mutant> {
    vec![
        m(
            "bm-length-then-bytes",
            "BM-4",
            &["BM-6", "BM-1"],
            "a get asks for the length first, and then reads so many bytes of what is there by then",
            |s| {
                s.slow_get = Some(Box::new(|place, key| {
                    async move {
                        let Some(first) = place.get(&key)? else {
                            return Ok(None);
                        };
                        gap().await;
                        let value = place.get(&key)?;
                        Ok(value.map(|value| super::cut(&value, first.len())))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-shared-read",
            "BM-6",
            &["BM-4"],
            "a get that finds another one of its key on its way takes its answer",
            |s| {
                s.slow_get = Some(Box::new(|place, key| {
                    async move {
                        let running = lock(&place.notes).get(&key).cloned();
                        if let Some(value) = running {
                            return Ok(Some(value));
                        }
                        let value = place.get(&key)?;
                        if let Some(value) = &value {
                            lock(&place.notes).insert(key.clone(), value.clone());
                        }
                        let ended = Due::new(|| drop(lock(&place.notes).remove(&key)));
                        gap().await;
                        ended.settle();
                        Ok(value)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-list-by-offset",
            "BM-2",
            &["BM-6"],
            "a list goes on at the number of keys that it has seen, whatever was set or deleted before them meanwhile",
            |s| {
                s.slow_list = Some(Box::new(|place| {
                    async move {
                        let mut keys = Vec::new();
                        loop {
                            let page: Vec<_> =
                                place.list()?.into_iter().skip(keys.len()).take(4).collect();
                            if page.is_empty() {
                                return Ok(keys);
                            }
                            keys.extend(page);
                            if keys.len() < 64 {
                                gap().await;
                            }
                        }
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-list-by-cursor",
            "BM-6",
            &[],
            "a list that is declared to be one snapshot is read in pages",
            |s| {
                s.slow_list = Some(Box::new(|place| {
                    async move {
                        let mut keys: Vec<String> = Vec::new();
                        loop {
                            let after = keys.last().cloned();
                            let all = place.list()?.into_iter();
                            let page: Vec<_> = all
                                .filter(|key| after.as_ref().is_none_or(|after| key > after))
                                .take(1 + keys.len())
                                .collect();
                            if page.is_empty() {
                                return Ok(keys);
                            }
                            keys.extend(page);
                            gap().await;
                        }
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
