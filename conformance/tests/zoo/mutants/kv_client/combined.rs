//! Wrong only where two things meet that are right by themselves: an end and a refusal, a retry and an end, many keys and
//! a fault, two clients and a shutdown.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::{Caps, Engine};
use larder_traits::{Clock as _, ErrorKind, Fault};
use tokio::task::yield_now;

use super::{m, with_caps};
use crate::mutants::Mutant;
use crate::reference::kv_client::{CAPS, Call, Place, admit, invalid};
use crate::reference::medium::Trouble;
use crate::reference::{Due, behind, gap, lock, stands_still};

pub(super) fn combined() -> Vec<Mutant> {
    [
        deletes(),
        ends(),
        failing_ends(),
        many(),
        clients(),
        neighbours(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn deletes() -> Vec<Mutant> {
    vec![
        m(
            "kv-delete-twice",
            "KV-7",
            &["KV-6"],
            "a delete is delivered twice, the second time a little later",
            |s| {
                s.slow_remove = Some(Box::new(|place, key| {
                    async move {
                        place.remove(&key);
                        let again = Due::new(|| place.remove(&key));
                        gap().await;
                        again.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Lin),
        m(
            "kv-drop-of-delete-lands-late",
            "C-6",
            &["KV-6"],
            "a delete that is dropped goes on in the background, and is declared fenced",
            |s| {
                s.slow_remove = Some(Box::new(|place, key| {
                    async move {
                        let (late, what) = (Arc::clone(&place), key.clone());
                        let left = Due::new(move || behind(move || late.remove(&what)));
                        yield_now().await;
                        left.call_off();
                        place.remove(&key);
                        Ok(())
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Cancel),
        m(
            "kv-put-again-where-absent",
            "KV-7",
            &["C-1", "KV-6", "KV-8", "KV-1"],
            "a put whose answer was lost looks after a pause whether its key is there, and is made again where it is not",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        let write = || {
                            let _step = lock(&place.step);
                            place.write(&key, value.clone(), ttl);
                        };
                        match place.medium.timed(write).await {
                            Ok(()) => return Ok(()),
                            Err(Trouble::Lost) => {}
                            Err(trouble) => return Err(trouble.at_commit().into()),
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        let again = place.medium.timed(|| {
                            if place.read(&key).is_none() {
                                write();
                            }
                        });
                        again.await.map_err(|trouble| trouble.after().into())
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Fault),
        m(
            "kv-delete-again-over-newer",
            "KV-7",
            &["C-1", "KV-6", "KV-8", "KV-1"],
            "a delete whose answer was lost is made again after a pause, over what others have put meanwhile",
            |s| {
                s.slow_remove = Some(Box::new(|place, key| {
                    async move {
                        let sent = place.medium.timed_again(|| {
                            let _step = lock(&place.step);
                            place.remove(&key);
                        });
                        sent.await.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Fault),
    ]
}

fn ends() -> Vec<Mutant> {
    vec![
        m(
            "kv-refused-put-clears-end",
            "C-4",
            &["KV-3", "KV-4", "C-1"],
            "a put takes the end of the old value away before its own value is found to be above the bound",
            |s| {
                s.admit = Box::new(|place, call| {
                    let admitted = admit(CAPS.kv_client, call);
                    if admitted.is_err()
                        && let Call::Write(key, _) = call
                        && place.read(key).is_some()
                        && let Some(entry) = lock(&place.entries).get_mut(key)
                    {
                        entry.expires = None;
                    }
                    admitted
                });
            },
        ),
        m(
            "kv-endless-end-stays",
            "KV-4",
            &["KV-3"],
            "that a value has an endless time to live is kept as a mark of its key, which a shorter one does not take away",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let is_endless = |secs: u64| {
                        let end = place.clock.now().checked_add(Duration::from_secs(secs));
                        end.is_none()
                    };
                    let mut marks = lock(&place.notes);
                    match ttl {
                        Some(secs) if is_endless(secs) => {
                            marks.insert(key.to_vec(), Bytes::new());
                        }
                        Some(_) => {}
                        None => drop(marks.remove(key)),
                    }
                    let is_marked = marks.contains_key(key);
                    place.write(key, value, ttl.filter(|_| !is_marked));
                    Ok(())
                });
                s.remove = Box::new(|place, key| {
                    lock(&place.notes).remove(key);
                    place.remove(key);
                    Ok(())
                });
            },
        ),
    ]
}

/// The moment that lies so far ahead, as a note: in milliseconds since 1970.
fn noted(place: &Place, secs: u64) -> Option<Bytes> {
    let at = place.clock.now().checked_add(Duration::from_secs(secs))?;
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let millis = u64::try_from(since.as_millis()).ok()?;
    Some(Bytes::copy_from_slice(&millis.to_be_bytes()))
}

/// Removes the key if the moment has come that was noted for it.
fn fire(place: &Place, key: &[u8]) {
    let mut notes = lock(&place.notes);
    let millis = notes
        .get(key)
        .and_then(|at| <[u8; 8]>::try_from(&at[..]).ok());
    let Some(millis) = millis.map(u64::from_be_bytes) else {
        return;
    };
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis));
    if at.is_some_and(|at| at <= place.clock.now()) {
        notes.remove(key);
        place.remove(key);
    }
}

fn failing_ends() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "kv-retry-without-end",
            "KV-3",
            &["KV-8", "C-1"],
            "a put with a time to live that was refused is tried again as one without",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        let write = |ttl| {
                            let _step = lock(&place.step);
                            place.write(&key, value.clone(), ttl);
                        };
                        let ended = match place.medium.timed(|| write(ttl)).await {
                            Err(Trouble::Refused) => place.medium.timed(|| write(None)).await,
                            ended => ended,
                        };
                        ended.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "kv-unknown-put-leaves-timer",
            "KV-4",
            &["KV-3", "KV-8"],
            "the timer of a put that ended Unknown runs on, and removes what a plain put has written since",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        let write = || {
                            let _step = lock(&place.step);
                            place.write(&key, value, ttl);
                        };
                        let ended = place.medium.timed(write).await;
                        let timer = ttl.and_then(|secs| noted(&place, secs));
                        let mut notes = lock(&place.notes);
                        match (&ended, timer) {
                            (Ok(()), Some(_)) => drop(notes.remove(&key)),
                            (Err(Trouble::Lost | Trouble::Late), Some(timer)) => {
                                notes.insert(key.clone(), timer);
                            }
                            _ => {}
                        }
                        ended.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
                s.read = Box::new(|place, key| {
                    fire(place, key);
                    Ok(place.read(key))
                });
                s.many = Box::new(|place, keys| {
                    keys.iter().for_each(|key| fire(place, key));
                    Ok(place.read_many(keys))
                });
                s.remove = Box::new(|place, key| {
                    lock(&place.notes).remove(key);
                    place.remove(key);
                    Ok(())
                });
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}

/// Each shard is asked by itself.
const PER_KEY: Caps = CAPS.with_kv_client(CAPS.kv_client.with_multi_snapshot(false));

fn shard(key: &Bytes) -> u64 {
    let sum: u64 = key.iter().map(|&byte| u64::from(byte)).sum();
    sum % 4
}

fn many() -> Vec<Mutant> {
    vec![
        with_caps(
            PER_KEY,
            "kv-many-failed-shard-absent",
            "KV-5",
            &["KV-1", "KV-8", "C-1"],
            "`get_multi` asks each shard for its keys, and takes those of one that failed for absent if another one answered",
            |s| {
                s.slow_many = Some(Box::new(|place, keys| {
                    async move {
                        let mut found = vec![None; keys.len()];
                        let (mut answered, mut failed) = (false, None);
                        for number in 0..4 {
                            let of_shard = |at: &usize| shard(&keys[*at]) == number;
                            let places: Vec<_> = (0..keys.len()).filter(of_shard).collect();
                            if places.is_empty() {
                                continue;
                            }
                            let read = || {
                                let keys = places.iter().map(|&at| place.read(&keys[at]));
                                keys.collect::<Vec<_>>()
                            };
                            match place.medium.timed(read).await {
                                Ok(values) => {
                                    answered = true;
                                    for (&at, value) in places.iter().zip(values) {
                                        found[at] = value;
                                    }
                                }
                                Err(trouble) => failed = Some(trouble),
                            }
                        }
                        match failed.filter(|_| !answered) {
                            Some(trouble) => Err(trouble.before().into()),
                            None => Ok(found),
                        }
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Fault),
        m(
            "kv-many-empty-key-ends-it",
            "KV-5",
            &["KV-2"],
            "the empty key ends the list of keys of a `get_multi`, and those behind it are absent",
            |s| {
                s.many = Box::new(|place, keys| {
                    let end = keys.iter().position(Bytes::is_empty);
                    let asked = end.map_or(keys, |end| &keys[..=end]);
                    let mut found = place.read_many(asked);
                    found.resize(keys.len(), None);
                    Ok(found)
                });
            },
        ),
        m(
            "kv-many-key-bound-absent",
            "C-4",
            &["KV-5", "KV-2"],
            "`get_multi` answers that a key above the bound is absent",
            |s| {
                const MAX: usize = CAPS.kv_client.key_len_bytes_max;
                s.admit = Box::new(|_, call| match call {
                    Call::Read(_) => Ok(()),
                    _ => admit(CAPS.kv_client, call),
                });
                s.read = Box::new(|place, key| {
                    if key.len() > MAX {
                        return Err(invalid("a key above the bound"));
                    }
                    Ok(place.read(key))
                });
            },
        ),
        // As in the protocol of a cache whose keys must not hold a space, with a client that does not look.
        m(
            "kv-many-keys-in-a-line",
            "KV-5",
            &["KV-2"],
            "`get_multi` sends its keys in one line with spaces between them, so that a key which holds one is two, and the answers shift",
            |s| {
                s.many = Box::new(|place, keys| {
                    let line = keys.join(&b' ');
                    let words = line.split(|&byte| byte == b' ');
                    Ok(words
                        .map(|word| place.read(word))
                        .take(keys.len())
                        .collect())
                });
            },
        ),
    ]
}

fn clients() -> Vec<Mutant> {
    vec![m(
        "kv-shutdown-closes-all",
        "C-2",
        &["KV-8"],
        "the clients of a place share a line, and shutting one of them down closes it for all",
        |s| s.closed = Arc::clone(&s.place.line_closed),
    )]
}

fn neighbours() -> Vec<Mutant> {
    vec![
        m(
            "kv-close-ends-puts-of-others",
            "C-2",
            &["KV-7"],
            "clients share a line, and the end of one of them ends the puts that others have under way",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        if !stands_still(&place.counter).await {
                            let why = "the line was closed";
                            return Err(Fault::not_applied(ErrorKind::Closed, why).into());
                        }
                        place.write(&key, value, ttl);
                        Ok(())
                    }
                    .boxed()
                }));
                s.close = Box::new(|place| {
                    place.counter.fetch_add(1, SeqCst);
                });
            },
        ),
        m(
            "kv-open-clears-batch",
            "C-2",
            &["KV-7"],
            "puts wait to be sent together, and whoever opens the place begins with none that wait",
            |s| {
                lock(&s.place.notes).clear();
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        lock(&place.notes).insert(key.clone(), value);
                        gap().await;
                        if let Some(value) = lock(&place.notes).remove(&key) {
                            place.write(&key, value, ttl);
                        }
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
