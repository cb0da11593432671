//! Wrong only once time passes, or jumps.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use larder_conformance::Engine;
use larder_traits::Clock as _;

use super::{m, with_caps};
use crate::mutants::Mutant;
use crate::reference::kv_client::{CAPS, Place};
use crate::reference::lock;

pub(super) fn timed() -> Vec<Mutant> {
    [ends(), timers(), jumps()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Time))
        .chain([leaks()])
        .collect()
}

/// What is over and takes up room all the same.
fn leaks() -> Mutant {
    m(
        "kv-overwrite-leaks",
        "KV-4",
        &[],
        "the row of an overwritten value that has an end stays, under a name that nobody asks for",
        |s| {
            s.write = Box::new(|place, key, value, ttl| {
                let old = lock(&place.entries).remove(key);
                if let Some(old) = old.filter(|old| old.expires.is_some()) {
                    let number = place.counter.fetch_add(1, Relaxed);
                    // Longer than a key can be.
                    let mut hidden = vec![0; 2_000];
                    hidden.extend(number.to_le_bytes());
                    lock(&place.entries).insert(hidden, old);
                }
                place.write(key, value, ttl);
                Ok(())
            });
        },
    )
}

fn secs(bytes: &Bytes) -> Option<u64> {
    <[u8; 8]>::try_from(&bytes[..]).ok().map(u64::from_le_bytes)
}

fn ends() -> Vec<Mutant> {
    vec![
        with_caps(
            CAPS.with_kv_client(CAPS.kv_client.with_ttl_granularity(Duration::from_secs(1))),
            "kv-ttl-one-tick-late",
            "KV-3",
            &["KV-4"],
            "a value is gone one granularity later than it may be",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value, ttl.map(|secs| secs.saturating_add(2)));
                    Ok(())
                });
            },
        ),
        m(
            "kv-ttl-judged-at-open",
            "KV-3",
            &["KV-4"],
            "a handle judges the end of a value for `get` by what the clock said at its last write, or when it was opened",
            |s| {
                let seen = Arc::new(Mutex::new(s.place.clock.now()));
                let last = Arc::clone(&seen);
                s.write = Box::new(move |place, key, value, ttl| {
                    *lock(&last) = place.clock.now();
                    place.write(key, value, ttl);
                    Ok(())
                });
                s.read = Box::new(move |place, key| {
                    let seen = *lock(&seen);
                    let entries = lock(&place.entries);
                    let alive = entries
                        .get(key)
                        .filter(|entry| entry.expires.is_none_or(|at| seen < at));
                    Ok(alive.map(|entry| entry.value.clone()))
                });
            },
        ),
        m(
            "kv-ttl-by-sweep",
            "KV-3",
            &["KV-4"],
            "an ended value is found until the next write comes by",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let now = place.clock.now();
                    lock(&place.entries).retain(|_, entry| entry.expires.is_none_or(|at| now < at));
                    place.write(key, value, ttl);
                    Ok(())
                });
                s.read = Box::new(|place, key| {
                    let entries = lock(&place.entries);
                    Ok(entries.get(key).map(|entry| entry.value.clone()))
                });
            },
        ),
        m(
            "kv-many-slides",
            "KV-3",
            &[],
            "reading a value with `get_multi` starts its time to live anew",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let note = ttl.map(|secs| Bytes::copy_from_slice(&secs.to_le_bytes()));
                    lock(&place.notes).insert(key.to_vec(), note.unwrap_or_default());
                    place.write(key, value, ttl);
                    Ok(())
                });
                s.many = Box::new(|place, keys| {
                    let values = place.read_many(keys);
                    for (key, value) in keys.iter().zip(&values) {
                        let note = lock(&place.notes).get(&key[..]).and_then(secs);
                        if let (Some(value), Some(secs)) = (value, note) {
                            place.write(key, value.clone(), Some(secs));
                        }
                    }
                    Ok(values)
                });
            },
        ),
    ]
}

/// Writes beside a list of timers, each of which removes its key once it fires.
fn with_timer(place: &Place, key: &[u8], value: Bytes, ttl: Option<u64>) {
    let end = ttl.and_then(|secs| place.clock.now().checked_add(Duration::from_secs(secs)));
    place.write(key, value, ttl);
    let seconds = end.and_then(|at| at.duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
    if let Some(seconds) = seconds {
        let mut name = b"timer ".to_vec();
        name.extend_from_slice(key);
        let end = Bytes::copy_from_slice(&seconds.as_secs().to_le_bytes());
        // The first timer of a key stays until it has fired.
        lock(&place.notes).entry(name).or_insert(end);
    }
}

/// Removes what the timers of `key` ask to remove.
fn fire(place: &Place, key: &[u8]) {
    let mut name = b"timer ".to_vec();
    name.extend_from_slice(key);
    let now = place
        .clock
        .now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let due = lock(&place.notes).get(&name).and_then(secs);
    if due.is_some_and(|due| due <= now) {
        lock(&place.notes).remove(&name);
        place.remove(key);
    }
}

fn timers() -> Vec<Mutant> {
    vec![m(
        "kv-old-timer-fires",
        "KV-4",
        &["KV-3"],
        "the timer of an overwritten value removes the newer one",
        |s| {
            s.write = Box::new(|place, key, value, ttl| {
                fire(place, key);
                with_timer(place, key, value, ttl);
                Ok(())
            });
            s.read = Box::new(|place, key| {
                fire(place, key);
                Ok(place.read(key))
            });
        },
    )]
}

fn jumps() -> Vec<Mutant> {
    vec![
        m(
            "kv-clock-back-loses",
            "C-5",
            &[],
            "what was written later than the clock says now is taken for damaged, and not found",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let now = place.clock.now();
                    let since = now.duration_since(std::time::SystemTime::UNIX_EPOCH);
                    let since = since.map_or(0, |since| since.as_secs());
                    let stamp = Bytes::copy_from_slice(&since.to_le_bytes());
                    lock(&place.notes).insert(key.to_vec(), stamp);
                    place.write(key, value, ttl);
                    Ok(())
                });
                s.read = Box::new(|place, key| {
                    let now = place.clock.now();
                    let now = now.duration_since(std::time::SystemTime::UNIX_EPOCH);
                    let now = now.map_or(0, |now| now.as_secs());
                    let stamp = lock(&place.notes).get(key).and_then(secs);
                    Ok(place.read(key).filter(|_| stamp.is_none_or(|at| at <= now)))
                });
            },
        ),
        m(
            "kv-idle-year-forgets",
            "C-5",
            &["KV-1", "KV-3"],
            "what has no end is forgotten once it was not asked for in half a year",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let half = Duration::from_secs(183 * 24 * 3600);
                    place.write(key, value, ttl.or(Some(half.as_secs())));
                    Ok(())
                });
            },
        ),
    ]
}
