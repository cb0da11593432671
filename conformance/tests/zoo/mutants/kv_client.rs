//! Broken `KvClient`s.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use larder_conformance::{Caps, Contract};
use larder_traits::{ErrorKind, Fault, KvClientError};

use super::Mutant;
use crate::reference::kv_client::{Bend, CAPS, Call, admit, invalid, suite};
use crate::reference::lock;

mod bystanders;
mod combined;
mod concurrent;
mod dropped;
mod failing;
mod field;
mod many;
mod neighbours;
mod seldom;
mod time_to_live;
mod timed;

pub(crate) fn all() -> Vec<Mutant> {
    [
        values(),
        keys(),
        many::many(),
        time_to_live::time_to_live(),
        concurrent::concurrent(),
        dropped::dropped(),
        bystanders::bystanders(),
        failing::failing(),
        neighbours::neighbours(),
        seldom::seldom(),
        field::field(),
        combined::combined(),
        timed::timed(),
        writes(),
        handles(),
        bounds(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn with_caps(
    caps: Caps,
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    Mutant {
        id,
        contract: Contract::KvClient,
        breaks,
        also,
        about,
        awaits: None,
        hangs: false,
        panics: false,
        suite: Box::new(move || suite(caps, bend)),
    }
}

fn m(
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    with_caps(CAPS, id, breaks, also, about, bend)
}

fn values() -> Vec<Mutant> {
    vec![
        m(
            "kv-absent-as-empty",
            "KV-1",
            &["KV-6"],
            "an absent key reads as an empty value",
            |s| {
                s.read = Box::new(|place, key| Ok(Some(place.read(key).unwrap_or_default())));
            },
        ),
        m(
            "kv-empty-as-absent",
            "KV-1",
            &[],
            "an empty value reads as absent",
            |s| {
                s.read =
                    Box::new(|place, key| Ok(place.read(key).filter(|value| !value.is_empty())));
            },
        ),
        m(
            "kv-many-empty-as-absent",
            "KV-5",
            &["KV-1"],
            "an empty value reads as absent, in `get_multi` only",
            |s| {
                s.many = Box::new(|place, keys| {
                    let full = |value: Option<Bytes>| value.filter(|value| !value.is_empty());
                    Ok(place.read_many(keys).into_iter().map(full).collect())
                });
            },
        ),
        m(
            "kv-value-u16-length",
            "KV-1",
            &["KV-2", "C-4"],
            "the length of a value is kept in 16 bits",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value.slice(..value.len() & 0xffff), ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-value-text",
            "KV-2",
            &["KV-1"],
            "a value that is not UTF-8 is mended",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(
                        key,
                        String::from_utf8_lossy(&value).into_owned().into(),
                        ttl,
                    );
                    Ok(())
                });
            },
        ),
        m(
            "kv-value-nul",
            "KV-2",
            &["KV-1"],
            "a value ends at its first NUL",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let end = value
                        .iter()
                        .position(|&byte| byte == 0)
                        .unwrap_or(value.len());
                    place.write(key, value.slice(..end), ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-put-not-shorter",
            "KV-1",
            &["KV-4"],
            "a shorter value leaves the end of the longer one behind it",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let mut merged = value.to_vec();
                    merged.extend_from_slice(
                        place
                            .read(key)
                            .unwrap_or_default()
                            .get(value.len()..)
                            .unwrap_or_default(),
                    );
                    place.write(key, merged.into(), ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-put-once",
            "KV-1",
            &["KV-4"],
            "a second put of a key is dropped",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    if place.read(key).is_none() {
                        place.write(key, value, ttl);
                    }
                    Ok(())
                });
            },
        ),
    ]
}

fn keys() -> Vec<Mutant> {
    vec![
        m(
            "kv-key-nul",
            "KV-2",
            &["KV-6"],
            "a key ends at its first NUL",
            |s| {
                s.key = Box::new(|key| {
                    let end = key.iter().position(|&byte| byte == 0).unwrap_or(key.len());
                    key[..end].to_vec()
                });
            },
        ),
        m(
            "kv-key-text",
            "KV-2",
            &[],
            "keys that are not UTF-8 are mended, and so become one",
            |s| {
                s.key = Box::new(|key| String::from_utf8_lossy(key).into_owned().into_bytes());
            },
        ),
        m(
            "kv-key-text-refused",
            "KV-2",
            &[],
            "keys that are not UTF-8 are refused",
            |s| {
                let caps = CAPS.kv_client;
                s.admit = Box::new(move |_, call| {
                    std::str::from_utf8(call.key()).map_err(|_not_text| invalid("not UTF-8"))?;
                    admit(caps, call)
                });
            },
        ),
        m(
            "kv-key-high-byte",
            "KV-2",
            &[],
            "0xFF at the end of a key is dropped as the end of a range",
            |s| {
                s.key = Box::new(|key| {
                    let end = key
                        .iter()
                        .rposition(|&byte| byte != 0xff)
                        .map_or(0, |at| at + 1);
                    if end == 0 {
                        key.to_vec()
                    } else {
                        key[..end].to_vec()
                    }
                });
            },
        ),
        m(
            "kv-key-u8-length",
            "KV-2",
            &["C-4"],
            "a key is cut after 255 bytes",
            |s| {
                s.key = Box::new(|key| key[..key.len().min(255)].to_vec());
            },
        ),
        m(
            "kv-key-case",
            "KV-2",
            &[],
            "keys that differ in case only are one key",
            |s| {
                s.key = Box::new(<[u8]>::to_ascii_lowercase);
            },
        ),
        m(
            "kv-empty-key-refused",
            "KV-2",
            &[],
            "the empty key is declared to work, and refused",
            |s| {
                let caps = CAPS.kv_client.with_empty_key(false);
                s.admit = Box::new(move |_, call| admit(caps, call));
            },
        ),
        with_caps(
            CAPS.with_kv_client(CAPS.kv_client.with_empty_key(false)),
            "kv-empty-key-swallowed",
            "KV-2",
            &[],
            "the empty key is declared to be refused, and a put of it is Ok without effect",
            |s| {
                let caps = CAPS.kv_client;
                s.admit = Box::new(move |_, call| admit(caps, call));
                s.write = Box::new(|place, key, value, ttl| {
                    if !key.is_empty() {
                        place.write(key, value, ttl);
                    }
                    Ok(())
                });
            },
        ),
        with_caps(
            CAPS.with_kv_client(CAPS.kv_client.with_empty_key(false)),
            "kv-empty-key-read-absent",
            "KV-2",
            &[],
            "the empty key is refused by put, and read as absent",
            |s| {
                let caps = CAPS.kv_client;
                s.admit = Box::new(move |_, call| match call {
                    Call::Write(..) => admit(caps.with_empty_key(false), call),
                    _ => admit(caps, call),
                });
            },
        ),
    ]
}

fn writes() -> Vec<Mutant> {
    vec![
        m(
            "kv-delete-absent-fails",
            "KV-6",
            &[],
            "deleting an absent key is an error",
            |s| {
                s.remove = Box::new(|place, key| {
                    if place.read(key).is_none() {
                        return Err(Fault::not_applied(ErrorKind::NotFound, "no such key").into());
                    }
                    place.remove(key);
                    Ok(())
                });
            },
        ),
        m(
            "kv-delete-prefix",
            "KV-6",
            &[],
            "deleting a key removes all keys that start with it",
            |s| {
                s.remove = Box::new(|place, key| {
                    lock(&place.entries).retain(|other, _| !other.starts_with(key));
                    Ok(())
                });
            },
        ),
        m(
            "kv-delete-range-end",
            "KV-6",
            &[],
            "deleting a key removes its successor too, the key with a NUL behind it",
            |s| {
                s.remove = Box::new(|place, key| {
                    place.remove(key);
                    place.remove(&[key, &[0]].concat());
                    Ok(())
                });
            },
        ),
        m(
            "kv-delete-empties",
            "KV-6",
            &["KV-1"],
            "a deleted key reads as an empty value",
            |s| {
                s.remove = Box::new(|place, key| {
                    if place.read(key).is_some() {
                        place.write(key, Bytes::new(), None);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-tombstone-wins",
            "KV-1",
            &["KV-6", "KV-4"],
            "a key that was deleted cannot be put again",
            |s| {
                s.remove = Box::new(|place, key| {
                    lock(&place.notes).insert(key.to_vec(), Bytes::new());
                    place.remove(key);
                    Ok(())
                });
                s.write = Box::new(|place, key, value, ttl| {
                    if !lock(&place.notes).contains_key(key) {
                        place.write(key, value, ttl);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-delete-second-only",
            "KV-6",
            &["KV-1"],
            "a delete uncovers the value that was overwritten",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    match place.read(key) {
                        Some(old) => lock(&place.notes).insert(key.to_vec(), old),
                        None => lock(&place.notes).remove(key),
                    };
                    place.write(key, value, ttl);
                    Ok(())
                });
                s.remove = Box::new(|place, key| {
                    match lock(&place.notes).remove(key) {
                        Some(old) => place.write(key, old, None),
                        None => place.remove(key),
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-put-empty-deletes",
            "KV-1",
            &["KV-5"],
            "putting an empty value removes the key",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    if value.is_empty() {
                        place.remove(key);
                    } else {
                        place.write(key, value, ttl);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-every-64th-lost",
            "KV-1",
            &["KV-7"],
            "every 64th put is lost when the log is rolled",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    if place.counter.fetch_add(1, Relaxed) % 64 != 63 {
                        place.write(key, value, ttl);
                    }
                    Ok(())
                });
            },
        ),
    ]
}

fn handles() -> Vec<Mutant> {
    vec![
        m(
            "kv-read-cache",
            "C-2",
            &["KV-7", "KV-1"],
            "a handle remembers what it read until it writes itself",
            |s| {
                let cache = Arc::new(Mutex::new(BTreeMap::<Vec<u8>, Bytes>::new()));
                let (forget, forget_too) = (Arc::clone(&cache), Arc::clone(&cache));
                s.read = Box::new(move |place, key| {
                    let mut cache = lock(&cache);
                    if let Some(value) = cache.get(key) {
                        return Ok(Some(value.clone()));
                    }
                    let value = place.read(key);
                    if let Some(value) = &value {
                        cache.insert(key.to_vec(), value.clone());
                    }
                    Ok(value)
                });
                s.write = Box::new(move |place, key, value, ttl| {
                    lock(&forget).remove(key);
                    place.write(key, value, ttl);
                    Ok(())
                });
                s.remove = Box::new(move |place, key| {
                    lock(&forget_too).remove(key);
                    place.remove(key);
                    Ok(())
                });
            },
        ),
        m(
            "kv-write-behind",
            "C-2",
            &["KV-7", "KV-1"],
            "what a handle put is seen by the others once it is closed",
            |s| {
                let pending = Arc::new(Mutex::new(BTreeMap::<Vec<u8>, Bytes>::new()));
                let (reading, many, closing) = (
                    Arc::clone(&pending),
                    Arc::clone(&pending),
                    Arc::clone(&pending),
                );
                s.read = Box::new(move |place, key| {
                    Ok(lock(&reading).get(key).cloned().or_else(|| place.read(key)))
                });
                s.many = Box::new(move |place, keys| {
                    let pending = lock(&many);
                    Ok(keys
                        .iter()
                        .map(|key| pending.get(&**key).cloned().or_else(|| place.read(key)))
                        .collect())
                });
                s.write = Box::new(move |_, key, value, _| {
                    lock(&pending).insert(key.to_vec(), value);
                    Ok(())
                });
                s.close = Box::new(move |place| {
                    for (key, value) in std::mem::take(&mut *lock(&closing)) {
                        place.write(&key, value, None);
                    }
                });
            },
        ),
        // Seen in etcd, issue 20418: after a pause, the first read is answered without a look at what came meanwhile.
        m(
            "kv-pause-serves-old",
            "KV-7",
            &["KV-1", "C-2"],
            "a handle that was idle while others wrote answers its first get from what it had before",
            |s| {
                const PAUSE: u64 = 4;
                let seen = Mutex::new((0, BTreeMap::new()));
                s.write = Box::new(|place, key, value, ttl| {
                    place.counter.fetch_add(1, Relaxed);
                    place.write(key, value, ttl);
                    Ok(())
                });
                s.read = Box::new(move |place, key| {
                    let mut seen = lock(&seen);
                    let now = place.counter.load(Relaxed);
                    let was_idle = now >= seen.0 + PAUSE;
                    let old = seen.1.get(key).cloned();
                    let entries = lock(&place.entries);
                    let values = entries
                        .iter()
                        .map(|(key, it)| (key.clone(), it.value.clone()));
                    *seen = (now, values.collect());
                    drop(entries);
                    Ok(old.filter(|_| was_idle).or_else(|| place.read(key)))
                });
            },
        ),
        m(
            "kv-follower-lag",
            "KV-7",
            &["C-2", "KV-1"],
            "every second handle reads from a copy that is one write behind",
            |s| {
                if s.place.counter.fetch_add(1, Relaxed) % 2 == 1 {
                    s.read = Box::new(|place, key| match lock(&place.notes).get(key) {
                        Some(old) => Ok(Some(old.clone())),
                        None => Ok(place.read(key)),
                    });
                }
                s.write = Box::new(|place, key, value, ttl| {
                    if let Some(old) = place.read(key) {
                        lock(&place.notes).insert(key.to_vec(), old);
                    }
                    place.write(key, value, ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-open-truncates",
            "C-2",
            &["KV-7"],
            "opening a place empties it",
            |s| lock(&s.place.entries).clear(),
        ),
        m(
            "kv-close-clears",
            "C-2",
            &["KV-7"],
            "closing one handle removes the place under the others",
            |s| {
                s.close = Box::new(|place| lock(&place.entries).clear());
            },
        ),
        m(
            "kv-shutdown-ignored",
            "KV-8",
            &[],
            "a client that was shut down goes on",
            |s| {
                s.after_shutdown = || None;
            },
        ),
        m(
            "kv-shutdown-wrong-kind",
            "KV-8",
            &["C-1"],
            "a client that was shut down cannot reach the server",
            |s| {
                s.after_shutdown =
                    || Some(Fault::not_applied(ErrorKind::Unavailable, "no channel"));
            },
        ),
    ]
}

fn bounds() -> Vec<Mutant> {
    const KEY: usize = CAPS.kv_client.key_len_bytes_max;
    const VALUE: usize = CAPS.kv_client.value_len_bytes_max;
    vec![
        m(
            "kv-key-cut-at-bound",
            "C-4",
            &[],
            "a key above the bound is cut to it",
            |s| {
                s.admit = values_only();
                s.key = Box::new(|key| key[..key.len().min(KEY)].to_vec());
            },
        ),
        m(
            "kv-value-cut-at-bound",
            "C-4",
            &[],
            "a value above the bound is cut to it",
            |s| {
                s.admit = Box::new(|_, call| admit(CAPS.kv_client, without_value(call)));
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value.slice(..value.len().min(VALUE)), ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-value-late-check",
            "C-4",
            &["C-1"],
            "a value above the bound is refused after the old one was removed",
            |s| {
                s.admit = Box::new(|place, call| {
                    if call.value().len() > VALUE {
                        place.remove(call.key());
                    }
                    admit(CAPS.kv_client, call)
                });
            },
        ),
        m(
            "kv-value-bound-excluded",
            "C-4",
            &["KV-1"],
            "the longest declared value is refused",
            |s| {
                let caps = CAPS.kv_client.with_value_len_bytes_max(VALUE - 1);
                s.admit = Box::new(move |_, call| admit(caps, call));
            },
        ),
        m(
            "kv-key-bound-excluded",
            "C-4",
            &["KV-2"],
            "the longest declared key is refused",
            |s| {
                let caps = CAPS.kv_client.with_key_len_bytes_max(KEY - 1);
                s.admit = Box::new(move |_, call| admit(caps, call));
            },
        ),
        m(
            "kv-value-bound-unknown",
            "C-4",
            &["C-1"],
            "a value above the bound is refused as Unknown",
            |s| {
                s.admit = Box::new(|_, call| {
                    if call.value().len() > VALUE {
                        return Err(Fault::unknown(ErrorKind::InvalidInput, "too long").into());
                    }
                    admit(CAPS.kv_client, call)
                });
            },
        ),
        m(
            "kv-key-bound-wrong-kind",
            "C-4",
            &["C-1"],
            "a key above the bound breaks the connection",
            |s| {
                s.admit = Box::new(|_, call| {
                    if call.key().len() > KEY {
                        return Err(KvClientError::from(Fault::unknown(
                            ErrorKind::Unavailable,
                            "reset",
                        )));
                    }
                    admit(CAPS.kv_client, call)
                });
            },
        ),
        m(
            "kv-key-bound-read-absent",
            "C-4",
            &[],
            "a read of a key above the bound answers that it is absent",
            |s| {
                s.admit = Box::new(|_, call| match call {
                    Call::Read(_) => Ok(()),
                    _ => admit(CAPS.kv_client, call),
                });
            },
        ),
    ]
}

fn without_value(call: Call<'_>) -> Call<'_> {
    match call {
        Call::Write(key, _) => Call::Write(key, &[]),
        other => other,
    }
}

fn values_only() -> crate::reference::kv_client::AdmitStep {
    let caps = CAPS.kv_client.with_key_len_bytes_max(usize::MAX);
    Box::new(move |_, call| admit(caps, call))
}
