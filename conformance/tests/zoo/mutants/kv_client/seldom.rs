//! Wrong for few values and few names, or after calls in a certain order. All that is common is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_traits::Clock as _;

use super::m;
use crate::mutants::Mutant;
use crate::reference::kv_client::Place;
use crate::reference::lock;

pub(super) fn seldom() -> Vec<Mutant> {
    [values(), keys(), ends()].into_iter().flatten().collect()
}

/// The number that is noted for a key, or 0.
fn noted(place: &Place, key: &[u8]) -> u64 {
    let notes = lock(&place.notes);
    let noted = notes
        .get(key)
        .and_then(|note| <[u8; 8]>::try_from(&note[..]).ok());
    noted.map_or(0, u64::from_le_bytes)
}

fn note(place: &Place, key: &[u8], number: u64) {
    let number = Bytes::copy_from_slice(&number.to_le_bytes());
    lock(&place.notes).insert(key.to_vec(), number);
}

fn values() -> Vec<Mutant> {
    vec![
        m(
            "kv-value-last-newline",
            "KV-2",
            &["KV-1"],
            "a newline at the end of a value is taken for that of the line",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let end = value.len() - usize::from(value.ends_with(b"\n"));
                    place.write(key, value.slice(..end), ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-run-of-one-byte",
            "KV-1",
            &["KV-2"],
            "a value of one byte over and over is kept as that byte and a number of 16 bits",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let is_run = value.windows(2).all(|pair| pair[0] == pair[1]);
                    let end = match is_run {
                        true => value.len() & 0xffff,
                        false => value.len(),
                    };
                    place.write(key, value.slice(..end), ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-row-fills-page",
            "KV-1",
            &["KV-2"],
            "a row that fills pages of 4 KiB to the last byte, with its header of 16 bytes, loses this byte",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let is_full = (16 + key.len() + value.len()).is_multiple_of(4096);
                    let end = value.len().saturating_sub(usize::from(is_full));
                    place.write(key, value.slice(..end), ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-sequence-of-one-byte",
            "KV-1",
            &["KV-4", "KV-7"],
            "which of a key's two slots is newer is told by a number of one byte, so that after 255 puts it does not change",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let puts = match place.read(key) {
                        Some(_) => noted(place, key),
                        None => 0,
                    };
                    if puts < 255 {
                        note(place, key, puts + 1);
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
            "kv-key-padded",
            "KV-2",
            &["KV-6", "KV-5"],
            "keys are compared as padded texts, so that spaces at the end do not count",
            |s| {
                s.key = Box::new(|key| {
                    let end = key.iter().rposition(|&byte| byte != b' ');
                    // The empty key stays apart from those of spaces only.
                    end.map_or(key, |end| &key[..=end]).to_vec()
                });
            },
        ),
        m(
            "kv-absent-since-its-end",
            "KV-7",
            &["C-2", "KV-1", "KV-3"],
            "a handle that has met the end of a value takes the key for absent until it puts it itself",
            |s| {
                let absent = Arc::new(Mutex::new(BTreeSet::<Vec<u8>>::new()));
                let forgotten = Arc::clone(&absent);
                s.read = Box::new(move |place, key| {
                    let mut absent = lock(&absent);
                    if absent.contains(key) {
                        return Ok(None);
                    }
                    let value = place.read(key);
                    if value.is_none() && lock(&place.entries).contains_key(key) {
                        absent.insert(key.to_vec());
                    }
                    Ok(value)
                });
                s.write = Box::new(move |place, key, value, ttl| {
                    lock(&forgotten).remove(key);
                    place.write(key, value, ttl);
                    Ok(())
                });
            },
        ),
    ]
}

fn ends() -> Vec<Mutant> {
    vec![
        // As in a cache server whose times above 30 days are dates.
        m(
            "kv-ttl-month-is-a-date",
            "KV-3",
            &["KV-4"],
            "a time to live above 30 days is taken for a date, in seconds since 1970",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value, ttl);
                    let date = ttl.filter(|&secs| secs > 30 * 24 * 3600).and_then(|secs| {
                        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(secs))
                    });
                    if let (Some(date), Some(entry)) = (date, lock(&place.entries).get_mut(key)) {
                        entry.expires = Some(date);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-ttl-since-it-was-made",
            "KV-4",
            &["KV-3"],
            "the time to live of a replacement begins when the key was made",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let since = place.clock.now().duration_since(SystemTime::UNIX_EPOCH);
                    let now = since.map_or(0, |since| since.as_secs());
                    let made = match place.read(key) {
                        Some(_) => noted(place, key),
                        None => now,
                    };
                    note(place, key, made);
                    place.write(key, value, ttl);
                    if let Some(entry) = lock(&place.entries).get_mut(key) {
                        let age = Duration::from_secs(now.saturating_sub(made));
                        entry.expires = entry.expires.and_then(|end| end.checked_sub(age));
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-own-last-unchanged",
            "KV-1",
            &["KV-7", "KV-4"],
            "a handle does not put the value that it has put last, whatever another one has put since",
            |s| {
                let own = Arc::new(Mutex::new(BTreeMap::new()));
                let deleted = Arc::clone(&own);
                s.write = Box::new(move |place, key, value, ttl| {
                    let latest = ttl.is_none().then(|| value.clone());
                    let before = lock(&own).insert(key.to_vec(), latest.clone());
                    let is_same = before.is_some_and(|before| before == latest && before.is_some());
                    if !is_same || place.read(key).is_none() {
                        place.write(key, value, ttl);
                    }
                    Ok(())
                });
                s.remove = Box::new(move |place, key| {
                    lock(&deleted).remove(key);
                    place.remove(key);
                    Ok(())
                });
            },
        ),
        m(
            "kv-equal-put-keeps-end",
            "KV-4",
            &["KV-3"],
            "a put of the value that is there already is not made, so that the old time to live stays",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    if place.read(key).as_ref() != Some(&value) {
                        place.write(key, value, ttl);
                    }
                    Ok(())
                });
            },
        ),
    ]
}
