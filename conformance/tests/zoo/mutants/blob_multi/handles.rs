//! Handles and deadlines.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_traits::{ErrorKind, ExternalError, Fault};

use super::m;
use crate::mutants::Mutant;
use crate::reference::blob_multi::{Call, DeadlineStep, Place, too_late};
use crate::reference::lock;

pub(super) fn handles() -> Vec<Mutant> {
    vec![
        m(
            "bm-read-cache",
            "BM-6",
            &["C-2"],
            "a handle remembers what it read and does not look again",
            |s| {
                let cache = Arc::new(Mutex::new(BTreeMap::<String, Bytes>::new()));
                let (forget, forget_too) = (Arc::clone(&cache), Arc::clone(&cache));
                s.get = Box::new(move |place, key| {
                    if let Some(value) = lock(&cache).get(key) {
                        return Ok(Some(value.clone()));
                    }
                    let value = place.get(key)?;
                    if let Some(value) = &value {
                        lock(&cache).insert(key.to_owned(), value.clone());
                    }
                    Ok(value)
                });
                s.set = Box::new(move |place, key, value, _| {
                    lock(&forget).remove(key);
                    place.set(key, value)
                });
                s.delete = Box::new(move |place, key| {
                    lock(&forget_too).remove(key);
                    place.delete(key)
                });
            },
        ),
        m(
            "bm-negative-cache",
            "BM-6",
            &["C-2"],
            "a handle remembers that a key was absent",
            |s| {
                let absent = Arc::new(Mutex::new(BTreeMap::<String, ()>::new()));
                let forget = Arc::clone(&absent);
                s.get = Box::new(move |place, key| {
                    if lock(&absent).contains_key(key) {
                        return Ok(None);
                    }
                    let value = place.get(key)?;
                    if value.is_none() {
                        lock(&absent).insert(key.to_owned(), ());
                    }
                    Ok(value)
                });
                s.set = Box::new(move |place, key, value, _| {
                    lock(&forget).remove(key);
                    place.set(key, value)
                });
            },
        ),
        m(
            "bm-list-cache",
            "BM-6",
            &["BM-2", "C-2"],
            "a handle lists what was there when it listed first, until it writes itself",
            |s| {
                let cache = Arc::new(Mutex::new(None::<Vec<String>>));
                let (forget, forget_too) = (Arc::clone(&cache), Arc::clone(&cache));
                s.list = Box::new(move |place| {
                    let mut cache = lock(&cache);
                    match &*cache {
                        Some(keys) => Ok(keys.clone()),
                        None => Ok(cache.insert(place.list()?).clone()),
                    }
                });
                s.set = Box::new(move |place, key, value, _| {
                    *lock(&forget) = None;
                    place.set(key, value)
                });
                s.delete = Box::new(move |place, key| {
                    *lock(&forget_too) = None;
                    place.delete(key)
                });
            },
        ),
        // Seen in minio, issue 5380: which keys a list has depends on the endpoint that answers it.
        m(
            "bm-list-flaps",
            "BM-6",
            &["BM-2"],
            "lists are answered by two endpoints in turn, and one of them is a change behind",
            |s| {
                fn note(place: &Place) {
                    let keys = place.list().unwrap_or_default();
                    *lock(&place.notes) = keys.into_iter().map(|key| (key, Bytes::new())).collect();
                }
                s.list = Box::new(|place| {
                    if place.counter.fetch_add(1, Relaxed) % 2 == 0 {
                        return place.list();
                    }
                    Ok(lock(&place.notes).keys().cloned().collect())
                });
                s.set = Box::new(|place, key, value, _| {
                    note(place);
                    place.set(key, value)
                });
                s.delete = Box::new(|place, key| {
                    note(place);
                    place.delete(key)
                });
            },
        ),
        m(
            "bm-private-map",
            "C-2",
            &["BM-6"],
            "a handle loads the map when it is opened, and writes the whole map back at each change",
            |s| {
                let loaded = Arc::new(Mutex::new(lock(&s.place.blobs).clone()));
                let (writing, deleting, listing) = (
                    Arc::clone(&loaded),
                    Arc::clone(&loaded),
                    Arc::clone(&loaded),
                );
                s.get = Box::new(move |_, key| Ok(lock(&loaded).get(key).cloned()));
                s.list = Box::new(move |_| Ok(lock(&listing).keys().map(str::to_owned).collect()));
                s.set = Box::new(move |place, key, value, _| {
                    let mut map = lock(&writing);
                    map.set(key, value);
                    *lock(&place.blobs) = map.clone();
                    Ok(())
                });
                s.delete = Box::new(move |place, key| {
                    let mut map = lock(&deleting);
                    map.delete(key);
                    *lock(&place.blobs) = map.clone();
                    Ok(())
                });
            },
        ),
        m(
            "bm-write-behind",
            "C-2",
            &["BM-6"],
            "what a handle set is seen by the others once it is closed",
            |s| {
                let pending = Arc::new(Mutex::new(BTreeMap::<String, Bytes>::new()));
                let (reading, closing) = (Arc::clone(&pending), Arc::clone(&pending));
                s.get = Box::new(move |place, key| match lock(&reading).get(key) {
                    Some(value) => Ok(Some(value.clone())),
                    None => place.get(key),
                });
                s.set = Box::new(move |_, key, value, _| {
                    lock(&pending).insert(key.to_owned(), value);
                    Ok(())
                });
                s.close = Box::new(move |place| {
                    let mut blobs = lock(&place.blobs);
                    for (key, value) in std::mem::take(&mut *lock(&closing)) {
                        blobs.set(&key, value);
                    }
                });
            },
        ),
        m(
            "bm-open-truncates",
            "C-2",
            &["BM-6"],
            "opening a place empties it",
            |s| s.place.clear(),
        ),
        m(
            "bm-close-clears",
            "C-2",
            &["BM-6"],
            "closing one handle removes the place under the others",
            |s| {
                s.close = Box::new(Place::clear);
            },
        ),
        m(
            "bm-second-open-read-only",
            "C-2",
            &["BM-6"],
            "while one handle is open, the writes of another are dropped",
            |s| {
                if s.place.counter.fetch_add(1, Relaxed) > 0 {
                    s.set = Box::new(|_, _, _, _| Ok(()));
                }
                s.close = Box::new(|place| {
                    place.counter.fetch_sub(1, Relaxed);
                });
            },
        ),
        m(
            "bm-unusable-absent",
            "BM-13",
            &["C-1"],
            "where the medium cannot be used, every key reads as absent",
            |s| {
                s.excuses = |call| matches!(call, Call::Get | Call::Range);
            },
        ),
        m(
            "bm-unusable-empty",
            "BM-13",
            &["C-1"],
            "where the medium cannot be used, the list is empty",
            |s| {
                s.excuses = |call| matches!(call, Call::List | Call::Prefix);
            },
        ),
        m(
            "bm-unusable-deletes",
            "BM-13",
            &["C-1"],
            "where the medium cannot be used, a delete is Ok",
            |s| {
                s.excuses = |call| matches!(call, Call::Delete(_));
            },
        ),
        m(
            "bm-greedy-cleanup",
            "BM-8",
            &[],
            "opening a place removes what looks like temporaries beside it",
            |s| {
                let place = s.place.name.clone();
                lock(&s.world.foreign).retain(|name, _| !name.starts_with(&place));
            },
        ),
        m(
            "bm-foreign-listed",
            "BM-8",
            &["BM-2"],
            "objects that others put below the place's name are listed",
            |s| {
                let world = Arc::clone(&s.world);
                s.list = Box::new(move |place| {
                    let mut keys = place.list()?;
                    let below = format!("{}/", place.name);
                    let foreign = lock(&world.foreign);
                    keys.extend(
                        foreign
                            .keys()
                            .filter_map(|name| name.strip_prefix(&below))
                            .map(str::to_owned),
                    );
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-key-traversal",
            "BM-10",
            &["BM-8"],
            "a key that climbs out of the place is written there",
            |s| {
                let world = Arc::clone(&s.world);
                s.set = Box::new(move |place, key, value, _| {
                    if let Some(outside) = key.strip_prefix("../") {
                        let text = format!("{} bytes", value.len());
                        lock(&world.foreign).insert(outside.to_owned(), text);
                    }
                    place.set(key, value)
                });
            },
        ),
        m(
            "bm-key-absolute",
            "BM-10",
            &["BM-8"],
            "a key that begins with a slash is written at the root",
            |s| {
                let world = Arc::clone(&s.world);
                s.set = Box::new(move |place, key, value, _| {
                    if key.starts_with('/') {
                        lock(&world.foreign)
                            .insert(key.to_owned(), format!("{} bytes", value.len()));
                    }
                    place.set(key, value)
                });
            },
        ),
    ]
}

fn expired(deadline: Instant) -> bool {
    deadline <= Instant::now()
}

pub(super) fn deadlines() -> Vec<Mutant> {
    vec![
        m(
            "bm-deadline-effect-first",
            "BM-7",
            &["C-1"],
            "a call past its deadline has its effect, and answers with Timeout",
            |s| {
                s.deadline = Box::new(|place, deadline, call| {
                    if !expired(deadline) {
                        return Ok(());
                    }
                    match call {
                        Call::Set(key, value) => place.set(key, Bytes::clone(value))?,
                        Call::Delete(key) => place.delete(key)?,
                        Call::Get | Call::Range | Call::List | Call::Prefix => {}
                    }
                    Err(too_late())
                });
            },
        ),
        m(
            "bm-deadline-late-effect",
            "BM-7",
            &["C-1"],
            "a set past its deadline is queued all the same, and lands a little later",
            |s| {
                s.deadline = Box::new(|place, deadline, call| {
                    if !expired(deadline) {
                        return Ok(());
                    }
                    if let Call::Set(key, value) = call {
                        let (place, key, value) =
                            (Arc::clone(place), (*key).to_owned(), Bytes::clone(value));
                        tokio::spawn(async move {
                            tokio::time::sleep(Duration::from_millis(150)).await;
                            place.set(&key, value)
                        });
                    }
                    Err(too_late())
                });
            },
        ),
        m(
            "bm-deadline-not-for-delete",
            "BM-7",
            &[],
            "delete does not look at its deadline",
            |s| {
                s.deadline = Box::new(|_, deadline, call| match call {
                    Call::Delete(_) => Ok(()),
                    _ if expired(deadline) => Err(too_late()),
                    _ => Ok(()),
                });
            },
        ),
        m(
            "bm-deadline-not-for-reads",
            "BM-7",
            &[],
            "get and list answer after their deadline",
            |s| {
                s.deadline = Box::new(|_, deadline, call| match call {
                    Call::Get | Call::List => Ok(()),
                    _ if expired(deadline) => Err(too_late()),
                    _ => Ok(()),
                });
            },
        ),
        m(
            "bm-deadline-unknown",
            "BM-7",
            &["C-1"],
            "a call past its deadline is Unknown, although nothing was begun",
            |s| {
                s.deadline = refusing(|| Fault::unknown(ErrorKind::Timeout, "too late").into());
            },
        ),
        m(
            "bm-deadline-wrong-kind",
            "BM-7",
            &["C-1"],
            "a call past its deadline is Unavailable",
            |s| {
                s.deadline =
                    refusing(|| Fault::not_applied(ErrorKind::Unavailable, "too late").into());
            },
        ),
        m(
            "bm-deadline-far-ahead",
            "BM-7",
            &["C-3"],
            "a deadline above `i32::MAX` milliseconds wraps into the past",
            |s| {
                s.deadline = Box::new(|_, deadline, _| {
                    let left = deadline
                        .saturating_duration_since(Instant::now())
                        .as_millis();
                    if left == 0 || left > 0x7fff_ffff {
                        return Err(too_late());
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bm-deadline-not-for-provided",
            "BM-7",
            &[],
            "range reads and prefix lists do not look at their deadline",
            |s| {
                s.deadline = Box::new(|_, deadline, call| match call {
                    Call::Range | Call::Prefix => Ok(()),
                    _ if expired(deadline) => Err(too_late()),
                    _ => Ok(()),
                });
            },
        ),
    ]
}

fn refusing(error: fn() -> ExternalError) -> DeadlineStep {
    Box::new(move |_, deadline, _| {
        if expired(deadline) {
            Err(error())
        } else {
            Ok(())
        }
    })
}
