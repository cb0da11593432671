//! What stores of this kind have had wrong in the field: with ends of values, merges, long answers and texts that look like
//! something else.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::{Clock as _, ErrorKind, Fault};
use tokio::task::yield_now;

use super::m;
use crate::mutants::Mutant;
use crate::reference::kv_client::{Entry, Place};
use crate::reference::{Due, lock};

pub(super) fn field() -> Vec<Mutant> {
    [
        values(),
        keys(),
        many(),
        ends(),
        orders(),
        steps(),
        handles(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How long a value may be to lie beside its key.
const INLINE: usize = 64 << 10;

fn values() -> Vec<Mutant> {
    vec![
        m(
            "kv-value-as-number",
            "KV-2",
            &["KV-1"],
            "a value of digits is kept as a number, without the zeros before it",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let is_digits = value.iter().all(u8::is_ascii_digit);
                    let text = std::str::from_utf8(&value).ok();
                    let number = text.and_then(|text| text.parse::<u64>().ok());
                    let kept = match number.filter(|_| is_digits) {
                        Some(number) => number.to_string().into(),
                        None => value,
                    };
                    place.write(key, kept, ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-value-null-text",
            "KV-2",
            &["KV-1", "KV-5"],
            "values travel as text, and the one of the letters `null` is taken for none",
            |s| {
                s.read = Box::new(|place, key| {
                    Ok(place.read(key).filter(|value| value != &b"null"[..]))
                });
            },
        ),
        m(
            "kv-evicts-oldest",
            "KV-1",
            &["KV-5"],
            "where there are more than 4,096 keys, each new one takes the place of the least one",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value, ttl);
                    let mut entries = lock(&place.entries);
                    if entries.len() > 4096 {
                        entries.pop_first();
                    }
                    Ok(())
                });
            },
        ),
    ]
}

/// As strings are hashed in many libraries.
fn hashed(key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| hash.wrapping_mul(31).wrapping_add(u32::from(*byte));
    key.iter().fold(0, step)
}

fn keys() -> Vec<Mutant> {
    vec![
        m(
            "kv-key-hash-only",
            "KV-2",
            &["KV-1", "KV-6"],
            "a key is found by its length and a hash of 32 bits, and is not compared",
            |s| {
                s.key = Box::new(|key| {
                    let hash = hashed(key).to_be_bytes();
                    [&key.len().to_be_bytes()[..], &hash].concat()
                });
            },
        ),
        m(
            "kv-key-sum-of-bytes",
            "KV-2",
            &["KV-1", "KV-6"],
            "a key above 32 bytes is kept by its first 32 and the sum of the others",
            |s| {
                s.key = Box::new(|key| {
                    let Some((head, rest)) = key.split_at_checked(32) else {
                        return key.to_vec();
                    };
                    let sum: u64 = rest.iter().map(|&byte| u64::from(byte)).sum();
                    [head, &rest.len().to_be_bytes(), &sum.to_be_bytes()].concat()
                });
            },
        ),
        m(
            "kv-sweep-takes-prefix",
            "KV-3",
            &["KV-6", "KV-1"],
            "a get that finds an ended value removes all keys that start with this one",
            |s| {
                s.read = Box::new(|place, key| {
                    let found = place.read(key);
                    let mut entries = lock(&place.entries);
                    if found.is_none() && entries.contains_key(key) {
                        entries.retain(|other, _| !other.starts_with(key));
                    }
                    Ok(found)
                });
            },
        ),
    ]
}

fn many() -> Vec<Mutant> {
    vec![
        m(
            "kv-many-message-limit",
            "KV-5",
            &["C-4"],
            "an answer of more than 4 MiB does not go into one message, and is an error",
            |s| {
                s.many = Box::new(|place, keys| {
                    let found = place.read_many(keys);
                    let len: usize = found.iter().flatten().map(Bytes::len).sum();
                    if len > 4 << 20 {
                        let why = "the answer is above the limit of a message";
                        return Err(Fault::not_applied(ErrorKind::NoSpace, why).into());
                    }
                    Ok(found)
                });
            },
        ),
        m(
            "kv-many-long-values-cut",
            "KV-5",
            &["KV-1"],
            "values above 64 KiB lie apart, and `get_multi` has the part that lies beside the key",
            |s| {
                s.many = Box::new(|place, keys| {
                    let cut = |value: Bytes| value.slice(..value.len().min(INLINE));
                    let found = place.read_many(keys);
                    Ok(found.into_iter().map(|it| it.map(cut)).collect())
                });
            },
        ),
        m(
            "kv-many-by-scan",
            "KV-5",
            &["KV-1"],
            "`get_multi` reads from its least key to its greatest one, and at most a thousand rows",
            |s| {
                s.many = Box::new(|place, keys| {
                    let (Some(least), Some(greatest)) = (keys.iter().min(), keys.iter().max())
                    else {
                        return Ok(Vec::new());
                    };
                    let range = least.to_vec()..=greatest.to_vec();
                    let rows = lock(&place.entries);
                    let last = rows.range(range).nth(1000).map(|(key, _)| key.clone());
                    drop(rows);
                    let is_seen = |key: &Bytes| last.as_ref().is_none_or(|last| key < last);
                    let found = keys.iter().map(|key| match is_seen(key) {
                        true => place.read(key),
                        false => None,
                    });
                    Ok(found.collect())
                });
            },
        ),
    ]
}

fn secs_of(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn ends() -> Vec<Mutant> {
    vec![
        m(
            "kv-ttl-wheel-round",
            "KV-3",
            &["KV-4"],
            "the ends of values hang in a wheel of 65,536 seconds, and a longer time to live begins it anew",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let round = |secs: u64| match secs {
                        // Beyond all wheels nothing hangs in one.
                        0x1_0000.. if secs < 1 << 32 => (secs & 0xffff).max(1),
                        _ => secs,
                    };
                    place.write(key, value, ttl.map(round));
                    Ok(())
                });
            },
        ),
        m(
            "kv-end-2038",
            "KV-3",
            &["KV-4"],
            "the end of a value is kept in 31 bits of seconds since 1970, and lies in the past from 2038 on",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value, ttl);
                    if let Some(entry) = lock(&place.entries).get_mut(key)
                        && let Some(end) = entry.expires
                        && i32::try_from(secs_of(end)).is_err()
                        && secs_of(end) < 1 << 33
                    {
                        entry.expires = Some(SystemTime::UNIX_EPOCH);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-end-cut-to-second",
            "KV-3",
            &["KV-4"],
            "the end of a value is cut to the second, so that it comes up to a second early",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value, ttl);
                    if let Some(entry) = lock(&place.entries).get_mut(key) {
                        entry.expires = entry.expires.and_then(|end| {
                            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(secs_of(end)))
                        });
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-empty-value-has-no-end",
            "KV-3",
            &["KV-1", "KV-4"],
            "the end of a value stands before its first byte, so that an empty one has none",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let ttl = ttl.filter(|_| !value.is_empty());
                    place.write(key, value, ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-long-value-has-no-end",
            "KV-3",
            &["KV-4"],
            "values above 64 KiB lie apart, where nothing ends",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let ttl = ttl.filter(|_| value.len() <= INLINE);
                    place.write(key, value, ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-one-end-at-a-time",
            "KV-3",
            &["KV-5"],
            "what ends at one moment is kept by this moment, so that of two keys the first one never ends",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value, ttl);
                    let mut entries = lock(&place.entries);
                    let Some(end) = entries.get(key).and_then(|entry| entry.expires) else {
                        return Ok(());
                    };
                    for (other, entry) in entries.iter_mut() {
                        if entry.expires == Some(end) && other != key {
                            entry.expires = None;
                        }
                    }
                    Ok(())
                });
            },
        ),
    ]
}

/// The end that is noted for a key, in milliseconds since 1970.
fn end_of(entry: &Entry) -> Option<Bytes> {
    let since = entry.expires?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let millis = u64::try_from(since.as_millis()).ok()?;
    Some(Bytes::copy_from_slice(&millis.to_be_bytes()))
}

fn noted_end(place: &Place, key: &[u8]) -> Option<SystemTime> {
    let notes = lock(&place.notes);
    let millis = <[u8; 8]>::try_from(&notes.get(key)?[..]).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(u64::from_be_bytes(millis)))
}

/// How many writes go into one segment of the log.
const SEGMENT: u64 = 128;

fn fills(place: &Place) -> bool {
    (place
        .counter
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        + 1)
    .is_multiple_of(SEGMENT)
}

fn orders() -> Vec<Mutant> {
    vec![
        m(
            "kv-end-outlives-delete",
            "KV-4",
            &["KV-3", "KV-6"],
            "a delete leaves the end of the value in the index, and at that time a value put anew is gone",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    if ttl.is_some() || place.read(key).is_some() {
                        lock(&place.notes).remove(key);
                    }
                    place.write(key, value, ttl);
                    if let Some(end) = noted_end(place, key)
                        && let Some(entry) = lock(&place.entries).get_mut(key)
                    {
                        entry.expires = Some(end);
                    }
                    Ok(())
                });
                s.remove = Box::new(|place, key| {
                    if let Some(end) = lock(&place.entries).get(key).and_then(end_of) {
                        lock(&place.notes).insert(key.to_vec(), end);
                    }
                    place.remove(key);
                    Ok(())
                });
            },
        ),
        m(
            "kv-put-over-ended",
            "KV-4",
            &["KV-1", "KV-3", "KV-7"],
            "a plain put over a value that has ended, and was not cleared away, keeps its end",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let now = place.clock.now();
                    let old = lock(&place.entries)
                        .get(key)
                        .and_then(|entry| entry.expires);
                    place.write(key, value, ttl);
                    if ttl.is_none()
                        && old.is_some_and(|end| end <= now)
                        && let Some(entry) = lock(&place.entries).get_mut(key)
                    {
                        entry.expires = old;
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-merge-forgets-ends",
            "KV-3",
            &["KV-4"],
            "the merge of a segment of 128 writes writes the values anew, without their ends",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value, ttl);
                    if fills(place) {
                        let now = place.clock.now();
                        let mut entries = lock(&place.entries);
                        entries.retain(|_, entry| entry.expires.is_none_or(|end| now < end));
                        for entry in entries.values_mut() {
                            entry.expires = None;
                        }
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-merge-revives",
            "KV-6",
            &["KV-1", "KV-7"],
            "long values lie in files of their own; the clearing of these, after 128 writes, puts back those that were deleted since the last one",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    lock(&place.notes).remove(key);
                    place.write(key, value, ttl);
                    if fills(place) {
                        for (key, value) in std::mem::take(&mut *lock(&place.notes)) {
                            place.write(&key, value, None);
                        }
                    }
                    Ok(())
                });
                s.remove = Box::new(|place, key| {
                    let found = place.read(key).filter(|value| value.len() > 4096);
                    if let Some(value) = found {
                        lock(&place.notes).insert(key.to_vec(), value);
                    }
                    place.remove(key);
                    Ok(())
                });
            },
        ),
    ]
}

/// The two steps of a put with an end, the second of which may not come.
fn value_then_end(place: &Place, key: &[u8], value: Bytes, keeps_old: bool) -> Option<SystemTime> {
    let old = lock(&place.entries)
        .get(key)
        .and_then(|entry| entry.expires);
    place.write(key, value, None);
    if keeps_old && let Some(entry) = lock(&place.entries).get_mut(key) {
        entry.expires = old;
    }
    old
}

fn steps() -> Vec<Mutant> {
    vec![
        m(
            "kv-drop-leaves-no-end",
            "C-6",
            &["KV-3"],
            "a put with a time to live writes the value and then its end; one that is dropped between them leaves a value for ever",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        value_then_end(&place, &key, value.clone(), false);
                        if ttl.is_some() {
                            yield_now().await;
                            place.write(&key, value, ttl);
                        }
                        Ok(())
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Cancel),
        m(
            "kv-drop-leaves-old-end",
            "C-6",
            &["KV-4", "KV-3"],
            "a plain put writes the value and then takes the end away; one that is dropped between them leaves the old end",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        let old = value_then_end(&place, &key, value.clone(), true);
                        if old.is_some() {
                            yield_now().await;
                        }
                        place.write(&key, value, ttl);
                        Ok(())
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Cancel),
        m(
            "kv-end-step-fails",
            "KV-3",
            &["C-1", "KV-8"],
            "a put with a time to live writes the value and then its end; where the second step fails the value stays for ever",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        let told = value.clone();
                        let first = place.medium.timed(|| {
                            value_then_end(&place, &key, told, false);
                        });
                        first.await.map_err(|trouble| trouble.at_commit())?;
                        if ttl.is_some() {
                            let second = place.medium.timed(|| place.write(&key, value, ttl));
                            second.await.map_err(|trouble| trouble.after())?;
                        }
                        Ok(())
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Fault),
        m(
            "kv-drop-of-many-keeps-permit",
            "C-6",
            &["KV-5", "C-4"],
            "a get_multi that is dropped does not give its permit back, and of eight none is left",
            |s| {
                s.slow_many = Some(Box::new(|place, keys| {
                    async move {
                        let count = &place.counter;
                        if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= 8 {
                            let why = "no permit has become free";
                            return Err(Fault::not_applied(ErrorKind::Timeout, why).into());
                        }
                        yield_now().await;
                        let given_back = Due::new(|| {
                            count.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        });
                        let found = place.read_many(&keys);
                        given_back.settle();
                        Ok(found)
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Cancel),
    ]
}

fn handles() -> Vec<Mutant> {
    vec![m(
        "kv-handles-leak",
        "C-2",
        &["KV-1"],
        "of 64 connections each client takes one when it is opened, and its end gives none back",
        |s| {
            let opened = s
                .place
                .counter
                .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if opened >= 64 {
                s.admit = Box::new(|_, _| {
                    let why = "there are too many connections";
                    Err(Fault::not_applied(ErrorKind::Unavailable, why).into())
                });
            }
        },
    )]
}
