//! Sets, deletes and bounds.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use larder_traits::{Atomicity, ErrorKind, Fault};

use super::{cut, len_u64, m};
use crate::mutants::Mutant;
use crate::reference::blob_multi::{CAPS, invalid};
use crate::reference::lock;

pub(super) fn writes() -> Vec<Mutant> {
    vec![
        m(
            "bm-no-truncate",
            "BM-3",
            &["BM-1"],
            "a shorter value leaves the end of the longer one behind it",
            |s| {
                s.set =
                    Box::new(|place, key, value, _| place.set(key, over(place.get(key)?, value)));
            },
        ),
        m(
            "bm-no-truncate-non-atomic",
            "BM-3",
            &["BM-4"],
            "a shorter value leaves the end of the longer one, where atomicity was not asked for",
            |s| {
                s.set = Box::new(|place, key, value, atomic| match atomic {
                    Atomicity::AllowNonAtomic => place.set(key, over(place.get(key)?, value)),
                    Atomicity::RequireAtomic => place.set(key, value),
                });
            },
        ),
        m(
            "bm-tombstone-wins",
            "BM-3",
            &["BM-1", "BM-5", "BM-6"],
            "a key that was deleted cannot be set again",
            |s| {
                s.delete = Box::new(|place, key| {
                    lock(&place.notes).insert(key.to_owned(), Bytes::new());
                    place.delete(key)
                });
                s.set = Box::new(|place, key, value, _| {
                    if lock(&place.notes).contains_key(key) {
                        return Ok(());
                    }
                    place.set(key, value)
                });
            },
        ),
        m(
            "bm-same-length-unchanged",
            "BM-3",
            &["BM-1"],
            "a value of equal length counts as unchanged",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    if place.get(key)?.is_some_and(|old| old.len() == value.len()) {
                        return Ok(());
                    }
                    place.set(key, value)
                });
            },
        ),
        m(
            "bm-own-last-unchanged",
            "BM-3",
            &["BM-1", "BM-6"],
            "a handle does not set the value that it has set last, whatever another one has set since",
            |s| {
                let own = Arc::new(Mutex::new(BTreeMap::new()));
                let deleted = Arc::clone(&own);
                s.set = Box::new(move |place, key, value, _| {
                    let before = lock(&own).insert(key.to_owned(), value.clone());
                    if before.as_ref() == Some(&value) && place.get(key)?.is_some() {
                        return Ok(());
                    }
                    place.set(key, value)
                });
                s.delete = Box::new(move |place, key| {
                    lock(&deleted).remove(key);
                    place.delete(key)
                });
            },
        ),
        m(
            "bm-set-empty-deletes",
            "BM-3",
            &["BM-1", "BM-11"],
            "setting an empty value removes the key",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    if value.is_empty() {
                        place.delete(key)
                    } else {
                        place.set(key, value)
                    }
                });
            },
        ),
        m(
            "bm-temporary-is-a-key",
            "BM-4",
            &["BM-2", "BM-6"],
            "the temporary of `a` is the key `a.tmp`, so setting `a` loses `a.tmp`",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    place.delete(&format!("{key}.tmp"))?;
                    place.set(key, value)
                });
            },
        ),
        m(
            "bm-shared-temporary",
            "BM-4",
            &["BM-6", "BM-3"],
            "all sets go through one temporary, so that two at once mix",
            |s| {
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        // The temporary is not truncated either by the second writer that opens it.
                        let old = lock(&place.notes).remove("tmp");
                        lock(&place.notes).insert("tmp".into(), over(old, value));
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        let written = lock(&place.notes).get("tmp").cloned().unwrap_or_default();
                        place.set(&key, written)?;
                        tokio::task::yield_now().await;
                        lock(&place.notes).remove("tmp");
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-stem-temporary",
            "BM-4",
            &["BM-6"],
            "the temporary is named after the key without its extension, so that `a.b` and `a` collide",
            |s| {
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        let stem = key
                            .split_once('.')
                            .map_or(&*key, |(stem, _)| stem)
                            .to_owned();
                        lock(&place.notes).insert(stem.clone(), value);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        let written = lock(&place.notes).get(&stem).cloned().unwrap_or_default();
                        place.set(&key, written)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-lost-update",
            "BM-6",
            &["C-2"],
            "a set reads the whole map, adds its key and writes the map back",
            |s| {
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        let mut map = lock(&place.blobs).clone();
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        map.set(&key, value);
                        *lock(&place.blobs) = map;
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-delete-absent-fails",
            "BM-5",
            &[],
            "deleting an absent key is an error",
            |s| {
                s.delete = Box::new(|place, key| {
                    if place.get(key)?.is_none() {
                        return Err(Fault::not_applied(ErrorKind::NotFound, "no such key").into());
                    }
                    place.delete(key)
                });
            },
        ),
        m(
            "bm-delete-prefix",
            "BM-5",
            &["BM-2"],
            "deleting a key removes all keys that start with it",
            |s| {
                s.delete = Box::new(|place, key| {
                    let keys = place.list()?;
                    keys.iter()
                        .filter(|k| k.starts_with(key))
                        .try_for_each(|k| place.delete(k))
                });
            },
        ),
        m(
            "bm-delete-folder",
            "BM-5",
            &["BM-2"],
            "deleting a key removes what lies below it in the path",
            |s| {
                s.delete = Box::new(|place, key| {
                    let below = format!("{key}/");
                    let keys = place.list()?;
                    keys.iter()
                        .filter(|k| k.starts_with(&below))
                        .try_for_each(|k| place.delete(k))?;
                    place.delete(key)
                });
            },
        ),
        m(
            "bm-delete-case",
            "BM-5",
            &["BM-10"],
            "deleting a key removes its upper-case twin",
            |s| {
                s.delete = Box::new(|place, key| {
                    let keys = place.list()?;
                    keys.iter()
                        .filter(|k| k.eq_ignore_ascii_case(key))
                        .try_for_each(|k| place.delete(k))
                });
            },
        ),
        m(
            "bm-delete-partial-errors",
            "BM-5",
            &["BM-2"],
            "of a thousand deletes one fails, and nobody looks",
            |s| {
                s.delete = Box::new(|place, key| {
                    if place.counter.fetch_add(1, Relaxed) % 1000 == 999 {
                        return Ok(());
                    }
                    place.delete(key)
                });
            },
        ),
        m(
            "bm-delete-empties",
            "BM-5",
            &["BM-1", "BM-2"],
            "a deleted key reads as an empty value",
            |s| {
                s.delete = Box::new(|place, key| match place.get(key)? {
                    Some(_) => place.set(key, Bytes::new()),
                    None => Ok(()),
                });
            },
        ),
        m(
            "bm-delete-any-character",
            "BM-5",
            &["BM-10"],
            "an underscore in a key that is deleted stands for any character",
            |s| {
                s.delete = Box::new(|place, key| {
                    let like = |other: &String| {
                        other.chars().count() == key.chars().count()
                            && key
                                .chars()
                                .zip(other.chars())
                                .all(|(k, o)| k == '_' || k == o)
                    };
                    place
                        .list()?
                        .iter()
                        .filter(|other| like(other))
                        .try_for_each(|other| place.delete(other))
                });
            },
        ),
        m(
            "bm-no-key-below-a-key",
            "BM-10",
            &["BM-3", "BM-2"],
            "below a key that is there no other key can be set",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    let above = key.match_indices('/').map(|(at, _)| &key[..at]);
                    for above in above {
                        if place.get(above)?.is_some() {
                            return Err(
                                Fault::not_applied(ErrorKind::Internal, "not a folder").into()
                            );
                        }
                    }
                    place.set(key, value)
                });
            },
        ),
        m(
            "bm-every-64th-lost",
            "BM-3",
            &["BM-1", "BM-2", "BM-6"],
            "every 64th set is lost when the log is rolled",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    if place.counter.fetch_add(1, Relaxed) % 64 == 63 {
                        return Ok(());
                    }
                    place.set(key, value)
                });
            },
        ),
    ]
}

/// `value` written over `old` without cutting it.
fn over(old: Option<Bytes>, value: Bytes) -> Bytes {
    match old {
        Some(old) if old.len() > value.len() => {
            let mut merged = value.to_vec();
            merged.extend_from_slice(&old[value.len()..]);
            merged.into()
        }
        _ => value,
    }
}

pub(super) fn bounds() -> Vec<Mutant> {
    const MAX: u64 = CAPS.blob_multi.value_len_bytes_max;
    vec![
        m(
            "bm-value-cut-at-bound",
            "C-4",
            &["BM-11"],
            "a value above the bound is cut to it",
            |s| {
                s.value = Box::new(|_, _, value| {
                    Ok(cut(
                        &value,
                        usize::try_from(MAX).expect("the bound is small"),
                    ))
                });
            },
        ),
        m(
            "bm-value-late-check",
            "C-4",
            &["BM-11"],
            "a value above the bound is refused after the old one was removed",
            |s| {
                s.value = Box::new(|place, key, value| {
                    if len_u64(&value) > MAX {
                        place.delete(key)?;
                        return Err(invalid("a value above the bound"));
                    }
                    Ok(value)
                });
            },
        ),
        m(
            "bm-value-bound-excluded",
            "BM-11",
            &["C-4", "BM-1"],
            "the longest declared value is refused",
            |s| {
                s.value = Box::new(|_, _, value| {
                    if len_u64(&value) >= MAX {
                        return Err(invalid("a value at the bound"));
                    }
                    Ok(value)
                });
            },
        ),
        m(
            "bm-value-bound-ignored",
            "C-4",
            &["BM-11"],
            "a value above the declared bound is stored",
            |s| {
                s.value = Box::new(|_, _, value| Ok(value));
            },
        ),
        m(
            "bm-value-bound-unknown",
            "C-4",
            &["C-1", "BM-11"],
            "a value above the bound is refused as Unknown",
            |s| {
                s.value = Box::new(|_, _, value| {
                    if len_u64(&value) > MAX {
                        return Err(Fault::unknown(ErrorKind::InvalidInput, "too long").into());
                    }
                    Ok(value)
                });
            },
        ),
        m(
            "bm-value-bound-wrong-kind",
            "C-4",
            &["C-1", "BM-11"],
            "a value above the bound is refused as lack of space",
            |s| {
                s.value = Box::new(|_, _, value| {
                    if len_u64(&value) > MAX {
                        return Err(Fault::not_applied(ErrorKind::NoSpace, "too long").into());
                    }
                    Ok(value)
                });
            },
        ),
        m(
            "bm-key-bound-ignored",
            "C-4",
            &["BM-10"],
            "a key above 1,024 bytes is accepted",
            |s| {
                s.key = Box::new(|key| {
                    if key.is_empty() {
                        Err(invalid("the empty key"))
                    } else {
                        Ok(key.to_owned())
                    }
                });
            },
        ),
    ]
}
