//! Wrong only while several calls run at once. Each call that was begun is done in full, even if it is dropped.

use std::sync::atomic::Ordering::Relaxed;

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

fn writes() -> Vec<Mutant> {
    vec![
        m(
            "kv-replace-gap",
            "KV-7",
            &["KV-1", "KV-4"],
            "a put removes the old value and then writes the new one",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        place.remove(&key);
                        let put = Due::new(|| place.write(&key, value, ttl));
                        gap().await;
                        put.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "kv-put-twice",
            "KV-7",
            &["KV-1"],
            "a put is delivered twice, the second time a little later",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        place.write(&key, value.clone(), ttl);
                        let again = Due::new(|| place.write(&key, value, ttl));
                        gap().await;
                        again.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "kv-follower-behind",
            "KV-7",
            &["KV-1"],
            "every second handle reads from a follower, which hears of a put after others could see it",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        if let Some(old) = place.read(&key) {
                            lock(&place.notes).insert(key.clone(), old);
                        }
                        place.write(&key, value, ttl);
                        let told = Due::new(|| drop(lock(&place.notes).remove(&key)));
                        gap().await;
                        told.settle();
                        Ok(())
                    }
                    .boxed()
                }));
                if s.place.counter.fetch_add(1, Relaxed) % 2 == 1 {
                    s.read = Box::new(|place, key| {
                        let old = lock(&place.notes).get(key).cloned();
                        Ok(old.or_else(|| place.read(key)))
                    });
                }
            },
        ),
    ]
}

fn reads() -> Vec<Mutant> {
    vec![
        m(
            "kv-clears-away-newer",
            "KV-7",
            &["KV-4", "KV-1", "KV-3"],
            "a get that finds an expired value removes what is there a moment later",
            |s| {
                s.slow_read = Some(Box::new(|place, key| {
                    async move {
                        let found = place.read(&key);
                        let dead = found.is_none() && lock(&place.entries).contains_key(&key);
                        if dead {
                            let cleared = Due::new(|| place.remove(&key));
                            gap().await;
                            cleared.settle();
                        }
                        Ok(found)
                    }
                    .boxed()
                }));
            },
        ),
        // Seen in dragonfly, issue 6874: a read from the slow tier is shared, and outlives the end of its value.
        m(
            "kv-read-in-flight-outlives",
            "KV-3",
            &["KV-7", "KV-5"],
            "a get that finds a read of the same value on its way takes its answer, though the value has ended since",
            |s| {
                s.slow_read = Some(Box::new(|place, key| {
                    async move {
                        let running = [b"running ", &key[..]].concat();
                        let begun = lock(&place.notes).get(&running).cloned();
                        let kept = lock(&place.entries).get(&key).map(|it| it.value.clone());
                        if begun.is_some() && begun == kept {
                            return Ok(begun);
                        }
                        let found = place.read(&key);
                        if let Some(value) = &found {
                            lock(&place.notes).insert(running.clone(), value.clone());
                            let ended = Due::new(|| drop(lock(&place.notes).remove(&running)));
                            gap().await;
                            ended.settle();
                        }
                        Ok(found)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "kv-many-one-by-one",
            "KV-5",
            &["KV-7"],
            "a get_multi that is declared to be one snapshot reads key by key",
            |s| {
                s.slow_many = Some(Box::new(|place, keys| {
                    async move {
                        let mut values = Vec::with_capacity(keys.len());
                        for key in keys {
                            values.push(place.read(&key));
                            if values.len() < 8 {
                                gap().await;
                            }
                        }
                        Ok(values)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "kv-many-shared",
            "KV-5",
            &["KV-7"],
            "a get_multi that finds another one on its way takes what that one has read",
            |s| {
                s.slow_many = Some(Box::new(|place, keys| {
                    async move {
                        let name = |key: &Bytes| [b"running ", &key[..]].concat();
                        let running: Option<Vec<_>> = {
                            let notes = lock(&place.notes);
                            let found = keys.iter().map(|key| notes.get(&name(key)).cloned());
                            found.map(|value| value.map(Some)).collect()
                        };
                        if let Some(values) = running {
                            return Ok(values);
                        }
                        let values = place.read_many(&keys);
                        let mut begun = Vec::new();
                        for (key, value) in keys.iter().zip(&values) {
                            if let Some(value) = value {
                                lock(&place.notes).insert(name(key), value.clone());
                                begun.push(name(key));
                            }
                        }
                        let ended = Due::new(|| {
                            let mut notes = lock(&place.notes);
                            for name in begun {
                                notes.remove(&name);
                            }
                        });
                        gap().await;
                        ended.settle();
                        Ok(values)
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
