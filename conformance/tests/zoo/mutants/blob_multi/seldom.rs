//! Wrong for few values and few names, or after calls in a certain order. All that is common is right.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::{ErrorKind, Fault};

use super::{cut, len_u64, m, with_caps};
use crate::mutants::Mutant;
use crate::reference::blob_multi::{CAPS, Place, invalid, too_late};
use crate::reference::{gap, lock};

pub(super) fn seldom() -> Vec<Mutant> {
    [values(), names(), orders(), times()]
        .into_iter()
        .flatten()
        .collect()
}

const PAGE: usize = 4096;

fn values() -> Vec<Mutant> {
    vec![
        m(
            "bm-unchanged-by-its-beginning",
            "BM-3",
            &["BM-1", "BM-6"],
            "a value counts as unchanged if its length and its first 4 KiB are those of the old one",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    let is_same = |old: Bytes| {
                        old.len() == value.len() && cut(&old, PAGE) == cut(&value, PAGE)
                    };
                    if place.get(key)?.is_some_and(is_same) {
                        return Ok(());
                    }
                    place.set(key, value)
                });
            },
        ),
        m(
            "bm-equal-values-go-together",
            "BM-5",
            &["BM-1", "BM-2"],
            "equal values are kept once and not counted, so that a delete takes the value from other keys too",
            |s| {
                s.delete = Box::new(|place, key| {
                    let mut blobs = lock(&place.blobs);
                    let Some(value) = blobs.get(key).cloned() else {
                        return Ok(());
                    };
                    let is_equal = |other: &&str| blobs.get(other) == Some(&value);
                    let equal: Vec<_> = blobs.keys().filter(is_equal).map(str::to_owned).collect();
                    for key in equal {
                        blobs.delete(&key);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bm-value-taken-for-packed",
            "BM-11",
            &["BM-1", "BM-3", "C-1"],
            "long values are packed if that is worth it; one that begins as a packed one does cannot be read",
            |s| {
                const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
                s.get = Box::new(|place, key| {
                    let value = place.get(key)?;
                    if value
                        .as_ref()
                        .is_some_and(|value| value.starts_with(&MAGIC))
                    {
                        let why = "the packed value is damaged";
                        return Err(Fault::not_applied(ErrorKind::Corrupt, why).into());
                    }
                    Ok(value)
                });
            },
        ),
        m(
            "bm-zero-pages-at-end",
            "BM-1",
            &["BM-3", "BM-11"],
            "pages of zeros are passed over and not written, and the file ends with the last one that was",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    let is_zero = |page: &[u8]| page.len() == PAGE && page.iter().all(|&b| b == 0);
                    let passed_over = value.chunks(PAGE).rev().take_while(|page| is_zero(page));
                    let len = value.len() - passed_over.count() * PAGE;
                    place.set(key, cut(&value, len))
                });
            },
        ),
        m(
            "bm-append-after-shrink",
            "BM-3",
            &["BM-1"],
            "a value that goes on where the old one ends is appended to the file, which a shorter value has not cut",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    let mut files = lock(&place.notes);
                    let file = files.get(key).cloned().unwrap_or_default();
                    let old = place.get(key)?.unwrap_or_default();
                    let goes_on = !old.is_empty() && value.starts_with(&old);
                    let written = match goes_on {
                        true => [&file[..], &value[old.len()..]].concat(),
                        false => [&value[..], file.get(value.len()..).unwrap_or_default()].concat(),
                    };
                    let written = Bytes::from(written);
                    files.insert(key.to_owned(), written.clone());
                    place.set(key, cut(&written, value.len()))
                });
                s.delete = Box::new(|place, key| {
                    lock(&place.notes).remove(key);
                    place.delete(key)
                });
            },
        ),
    ]
}

/// The key that has the same file as this one, which is long.
fn twin(place: &Place, key: &str) -> String {
    const END: usize = 100;
    let ends = |key: &str| {
        let bytes = key.as_bytes();
        let is_long = bytes.len() > 2 * END;
        is_long.then(|| [&bytes[..END], &bytes[bytes.len() - END..]].concat())
    };
    let own = ends(key);
    let blobs = lock(&place.blobs);
    let mut twins = blobs
        .keys()
        .filter(|other| own.is_some() && ends(other) == own);
    twins.next().unwrap_or(key).to_owned()
}

fn names() -> Vec<Mutant> {
    vec![m(
        "bm-long-key-middle",
        "BM-10",
        &["BM-2", "BM-5", "BM-6"],
        "of a key above 200 bytes the first and the last 100 make up the name of the file",
        |s| {
            s.get = Box::new(|place, key| place.get(&twin(place, key)));
            s.set = Box::new(|place, key, value, _| {
                let twin = twin(place, key);
                if twin != key {
                    place.delete(&twin)?;
                }
                place.set(key, value)
            });
            s.delete = Box::new(|place, key| place.delete(&twin(place, key)));
        },
    )]
}

fn orders() -> Vec<Mutant> {
    vec![
        m(
            "bm-version-begins-anew",
            "BM-6",
            &["C-2", "BM-1"],
            "a handle asks whether the version that it has is still there, and versions begin anew with a key that was deleted",
            |s| {
                let seen = Arc::new(Mutex::new(BTreeMap::<String, (Bytes, Bytes)>::new()));
                // Locked in one order everywhere: versions, what the handle has, values.
                s.get = Box::new(move |place, key| {
                    let versions = lock(&place.notes);
                    let Some(version) = versions.get(key) else {
                        return Ok(None);
                    };
                    let mut seen = lock(&seen);
                    if let Some((had, value)) = seen.get(key)
                        && had == version
                    {
                        return Ok(Some(value.clone()));
                    }
                    let value = place.get(key)?;
                    if let Some(value) = &value {
                        seen.insert(key.to_owned(), (version.clone(), value.clone()));
                    }
                    Ok(value)
                });
                s.set = Box::new(|place, key, value, _| {
                    let mut versions = lock(&place.notes);
                    let version = versions.entry(key.to_owned()).or_default();
                    let number = <[u8; 8]>::try_from(&version[..]).map_or(0, u64::from_le_bytes);
                    *version = Bytes::copy_from_slice(&(number + 1).to_le_bytes());
                    place.set(key, value)
                });
                s.delete = Box::new(|place, key| {
                    let mut versions = lock(&place.notes);
                    versions.remove(key);
                    place.delete(key)
                });
            },
        ),
        m(
            "bm-refused-set-is-listed",
            "C-4",
            &["BM-2", "BM-11"],
            "a set enters its key into the list before the value is found to be above the bound",
            |s| {
                const MAX: u64 = CAPS.blob_multi.value_len_bytes_max;
                s.value = Box::new(|place, key, value| {
                    if len_u64(&value) > MAX {
                        lock(&place.notes).insert(key.to_owned(), Bytes::new());
                        return Err(invalid("a value above the bound"));
                    }
                    Ok(value)
                });
                s.list = Box::new(|place| {
                    let mut keys = place.list()?;
                    keys.extend(lock(&place.notes).keys().cloned());
                    keys.sort();
                    keys.dedup();
                    Ok(keys)
                });
                s.delete = Box::new(|place, key| {
                    lock(&place.notes).remove(key);
                    place.delete(key)
                });
            },
        ),
        with_caps(
            CAPS.with_blob_multi(CAPS.blob_multi.with_list_snapshot(false)),
            "bm-list-cursor-deleted",
            "BM-2",
            &["BM-6"],
            "a list goes on behind the last key that it has seen, and ends where that was deleted meanwhile",
            |s| {
                s.slow_list = Some(Box::new(|place| {
                    async move {
                        let mut listed: Vec<String> = Vec::new();
                        loop {
                            let keys = place.list()?;
                            let from = match listed.last() {
                                None => Some(0),
                                Some(last) => keys.iter().position(|key| key == last).map(|at| at + 1),
                            };
                            let rest = from.and_then(|from| keys.get(from..)).unwrap_or_default();
                            if rest.is_empty() {
                                return Ok(listed);
                            }
                            listed.extend(rest.iter().take(4).cloned());
                            if listed.len() < 64 {
                                gap().await;
                            }
                        }
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Lin),
    ]
}

fn times() -> Vec<Mutant> {
    vec![m(
        "bm-deadline-whole-seconds",
        "BM-7",
        &[],
        "the time left is cut to whole seconds, so that with less than one left it is over",
        |s| {
            s.deadline = Box::new(|_, deadline, _| {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.as_secs() == 0 {
                    return Err(too_late());
                }
                Ok(())
            });
        },
    )]
}
