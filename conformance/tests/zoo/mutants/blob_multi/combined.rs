//! Wrong only where two things meet that are right by themselves: a method or a parameter that is seldom tried, and
//! another call, a fault, a second handle, a long value or a drop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::{Caps, Engine};
use larder_traits::blob_multi::slice_of;
use larder_traits::{Atomicity, BlobInfo, ErrorKind, Fault};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout_at;

use super::{len_u64, m, with_caps};
use crate::mutants::Mutant;
use crate::reference::blob_multi::{Answer, CAPS, Call, Place, invalid, too_late};
use crate::reference::medium::Trouble;
use crate::reference::{Due, behind, gap, lock, stands_still};

pub(super) fn combined() -> Vec<Mutant> {
    [
        deletes(),
        failing_deletes(),
        ranges(),
        lists(),
        relaxed(),
        bounds(),
        queues(),
        handles(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is longer lies apart.
const INLINE: usize = 64 << 10;

fn deletes() -> Vec<Mutant> {
    vec![
        m(
            "bm-delete-twice",
            "BM-6",
            &["BM-5", "BM-1"],
            "a delete is delivered twice, the second time a little later",
            |s| {
                s.slow_delete = Some(Box::new(|place, _, key| {
                    async move {
                        place.delete(&key)?;
                        let again = Due::new(|| drop(place.delete(&key)));
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
            "bm-drop-of-delete-lands-late",
            "C-6",
            &["BM-12", "BM-5"],
            "a delete that is dropped goes on in the background, and is declared fenced",
            |s| {
                s.slow_delete = Some(Box::new(|place, _, key| {
                    async move {
                        let (late, what) = (Arc::clone(&place), key.clone());
                        let left = Due::new(move || behind(move || late.delete(&what)));
                        yield_now().await;
                        left.call_off();
                        place.delete(&key)
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Cancel),
        m(
            "bm-drop-of-delete-hides",
            "C-6",
            &["BM-2", "BM-6", "BM-5"],
            "a delete takes the key out of the list and then the value away; one that is dropped leaves a value that no list shows",
            |s| {
                s.list = Box::new(|place| {
                    let mut keys = place.list()?;
                    let hidden = lock(&place.notes);
                    keys.retain(|key| !hidden.contains_key(key));
                    Ok(keys)
                });
                s.prefix = Box::new(|place, prefix| {
                    let mut listed = lock(&place.blobs).list_prefix(prefix);
                    let hidden = lock(&place.notes);
                    listed.retain(|info| !hidden.contains_key(&info.key));
                    Ok(listed)
                });
                s.set = Box::new(|place, key, value, _| {
                    lock(&place.notes).remove(key);
                    place.set(key, value)
                });
                s.slow_delete = Some(Box::new(|place, _, key| {
                    async move {
                        lock(&place.notes).insert(key.clone(), Bytes::new());
                        yield_now().await;
                        place.delete(&key)?;
                        lock(&place.notes).remove(&key);
                        Ok(())
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Cancel),
    ]
}

fn failing_deletes() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "bm-delete-repeated-over-newer",
            "BM-12",
            &["BM-6", "C-6"],
            "a delete whose answer was lost is Unknown, and is sent again a little later all the same",
            |s| {
                s.slow_delete = Some(Box::new(|place, deadline, key| {
                    async move {
                        let sent = place.medium.call(|| place.delete(&key));
                        let ended = timeout_at(deadline.into(), sent).await;
                        let trouble = match ended.unwrap_or(Err(Trouble::Late)) {
                            Ok(deleted) => return deleted,
                            Err(trouble) => trouble,
                        };
                        if trouble != Trouble::Refused {
                            behind(move || place.delete(&key));
                        }
                        Err(trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        ),
        // As with a server that answers 404 to a delete of what is not there, and a client that tries again.
        m(
            "bm-delete-again-not-found",
            "BM-13",
            &["BM-5", "C-1"],
            "a delete whose answer was lost is sent again, and its not finding the key is told as an error without effect",
            |s| {
                s.slow_delete = Some(Box::new(|place, deadline, key| {
                    async move {
                        let sent = place.medium.call(|| place.delete(&key));
                        let ended = timeout_at(deadline.into(), sent).await;
                        match ended.unwrap_or(Err(Trouble::Late)) {
                            Ok(deleted) => return deleted,
                            Err(Trouble::Lost) => {}
                            Err(trouble) => return Err(trouble.at_commit().into()),
                        }
                        let again = place.medium.call(|| -> Answer<()> {
                            if place.get(&key)?.is_none() {
                                let why = "there is no such key";
                                return Err(Fault::not_applied(ErrorKind::NotFound, why).into());
                            }
                            place.delete(&key)
                        });
                        let ended = timeout_at(deadline.into(), again).await;
                        let ended = ended.unwrap_or(Err(Trouble::Late));
                        ended.unwrap_or_else(|trouble| Err(trouble.after().into()))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-delete-again-over-newer",
            "BM-6",
            &["BM-5", "BM-12", "C-1", "BM-1"],
            "a delete whose answer was lost is sent again after a pause, over what others have set meanwhile",
            |s| {
                s.slow_delete = Some(Box::new(|place, deadline, key| {
                    async move {
                        let sent = place.medium.call_again(|| place.delete(&key));
                        let ended = timeout_at(deadline.into(), sent).await;
                        let ended = ended.unwrap_or(Err(Trouble::Late));
                        ended.unwrap_or_else(|trouble| Err(trouble.at_commit().into()))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-set-again-over-newer",
            "BM-6",
            &["BM-4", "BM-12", "C-1", "BM-1"],
            "a set whose answer was lost is sent again after a pause, over what others have set meanwhile",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let sent = place.medium.call_again(|| place.set(&key, value.clone()));
                        let ended = timeout_at(deadline.into(), sent).await;
                        let ended = ended.unwrap_or(Err(Trouble::Late));
                        ended.unwrap_or_else(|trouble| Err(trouble.at_commit().into()))
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}

/// As runs of one byte, each with its length.
fn packed(value: &Bytes) -> Bytes {
    let runs = value.chunk_by(|a, b| a == b);
    let runs = runs.flat_map(|run| run.chunks(255));
    let pair = |run: &[u8]| [run[0], u8::try_from(run.len()).unwrap_or(u8::MAX)];
    runs.flat_map(pair).collect()
}

fn ranges() -> Vec<Mutant> {
    vec![
        m(
            "bm-range-length-then-bytes",
            "BM-6",
            &["BM-4", "BM-1"],
            "a range read asks for the length first, to cut the range to it, and then reads of what is there by then",
            |s| {
                s.slow_range = Some(Box::new(|place, key, range| {
                    async move {
                        let Some(first) = place.get(&key)? else {
                            return Ok(None);
                        };
                        gap().await;
                        let end = range.end.min(len_u64(&first));
                        let value = place.get(&key)?;
                        Ok(value.map(|value| slice_of(&value, range.start..end)))
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Lin),
        m(
            "bm-range-of-replaced-file",
            "BM-1",
            &["BM-3"],
            "long values lie in a file of their own, which a short one leaves there; a range read looks for the file first",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    if value.len() > INLINE {
                        lock(&place.notes).insert(key.to_owned(), value.clone());
                    }
                    place.set(key, value)
                });
                s.delete = Box::new(|place, key| {
                    lock(&place.notes).remove(key);
                    place.delete(key)
                });
                s.range = Box::new(|place, key, range| {
                    let file = lock(&place.notes).get(key).cloned();
                    let value = place.get(key)?;
                    Ok(value.map(|value| slice_of(&file.unwrap_or(value), range)))
                });
            },
        ),
        m(
            "bm-range-of-packed",
            "BM-1",
            &[],
            "values that are worth it are kept packed, and a range is one of the packed bytes",
            |s| {
                s.range = Box::new(|place, key, range| {
                    let kept = |value: Bytes| {
                        let packed = packed(&value);
                        match packed.len() < value.len() / 2 {
                            true => packed,
                            false => value,
                        }
                    };
                    let value = place.get(key)?;
                    Ok(value.map(|value| slice_of(&kept(value), range)))
                });
            },
        ),
        m(
            "bm-parts-are-keys",
            "BM-5",
            &["BM-4", "BM-10", "BM-1", "BM-6", "BM-3"],
            "the parts of a long value of `k` lie under `k/0`, `k/1` and so on, which are keys too",
            |s| {
                fn parts(value: &Bytes) -> impl Iterator<Item = (usize, Bytes)> {
                    let parts = value.chunks(INLINE).map(move |part| value.slice_ref(part));
                    parts.enumerate().filter(move |_| value.len() > INLINE)
                }
                s.set = Box::new(|place, key, value, _| {
                    for (number, part) in parts(&value) {
                        let name = format!("{key}/{number}");
                        // One that nobody has set does not show.
                        if place.get(&name)?.is_some() {
                            place.set(&name, part)?;
                        }
                    }
                    place.set(key, value)
                });
                s.delete = Box::new(|place, key| {
                    let value = place.get(key)?.unwrap_or_default();
                    for (number, _) in parts(&value) {
                        place.delete(&format!("{key}/{number}"))?;
                    }
                    place.delete(key)
                });
            },
        ),
    ]
}

/// A list goes key by key or in pages, and others come between.
const PER_KEY: Caps = CAPS.with_blob_multi(CAPS.blob_multi.with_list_snapshot(false));

type Lines = BTreeMap<String, (Vec<String>, Vec<BlobInfo>)>;

fn lists() -> Vec<Mutant> {
    vec![
        with_caps(
            PER_KEY,
            "bm-drop-of-list-keeps-position",
            "C-6",
            &["BM-2"],
            "a handle's cursor stays where a list that was dropped has left it, and the next list goes on from there",
            |s| {
                let position = Arc::new(tokio::sync::Mutex::new(None::<String>));
                s.slow_list = Some(Box::new(move |place| {
                    let position = Arc::clone(&position);
                    async move {
                        let mut position = position.lock().await;
                        let mut found = Vec::new();
                        loop {
                            let mut page = place.list()?;
                            page.retain(|key| position.as_ref().is_none_or(|last| last < key));
                            page.truncate(16);
                            *position = page.last().cloned();
                            if page.is_empty() {
                                return Ok(found);
                            }
                            found.extend(page);
                            gap().await;
                        }
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Cancel),
        m(
            "bm-prefix-fails-on-deleted",
            "BM-2",
            &["BM-6", "BM-5"],
            "a prefix list asks for the length of each key that it found, and fails where one was deleted meanwhile",
            |s| {
                s.slow_prefix = Some(Box::new(|place, prefix| {
                    async move {
                        let keys = place.list()?;
                        let keys = keys.into_iter().filter(|key| key.starts_with(&prefix));
                        let mut listed = Vec::new();
                        for (number, key) in keys.enumerate() {
                            if number % 8 == 0 {
                                gap().await;
                            }
                            let Some(value) = place.get(&key)? else {
                                let why = "there is no such key";
                                return Err(Fault::not_applied(ErrorKind::NotFound, why).into());
                            };
                            listed.push(BlobInfo::new(key, len_u64(&value)));
                        }
                        Ok(listed)
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Lin),
        // As with the time of a folder, which a write to a file that is there does not change.
        m(
            "bm-prefix-kept-until-keys-change",
            "C-2",
            &["BM-2", "BM-6", "BM-3"],
            "a handle keeps the lines of a prefix list until it writes itself, or until a key comes or goes",
            |s| {
                let kept = Arc::new(Mutex::new(Lines::new()));
                let dropped = Arc::clone(&kept);
                s.prefix = Box::new(move |place, prefix| {
                    let keys = place.list()?;
                    let lines = lock(&place.blobs).list_prefix(prefix);
                    let mut kept = lock(&kept);
                    if let Some((there, lines)) = kept.get(prefix)
                        && *there == keys
                    {
                        return Ok(lines.clone());
                    }
                    kept.insert(prefix.to_owned(), (keys, lines.clone()));
                    Ok(lines)
                });
                s.set = Box::new(move |place, key, value, _| {
                    lock(&dropped).clear();
                    place.set(key, value)
                });
            },
        ),
        m(
            "bm-list-ends-with-full-message",
            "BM-2",
            &["BM-10"],
            "a list goes into one message of 256 KiB, and what does not fit there is left out",
            |s| {
                s.list = Box::new(|place| {
                    let mut room: usize = 256 << 10;
                    let mut keys = place.list()?;
                    keys.retain(|key| {
                        let left = room.checked_sub(key.len());
                        room = left.unwrap_or(0);
                        left.is_some()
                    });
                    Ok(keys)
                });
            },
        ),
    ]
}

/// `new` over the beginning of `old`, as where a file is not cut.
fn over(old: &Bytes, new: &[u8]) -> Bytes {
    let rest = old.get(new.len()..).unwrap_or_default();
    [new, rest].concat().into()
}

fn relaxed() -> Vec<Mutant> {
    const STAGED: &str = "staged";
    vec![
        m(
            "bm-relaxed-set-seen-half",
            "BM-4",
            &["BM-6"],
            "a set that need not be atomic writes over the old value, and readers of it see what is there so far",
            |s| {
                s.slow_relaxed = Some(Box::new(|place, _, key, value| {
                    async move {
                        if let Some(old) = place.get(&key)? {
                            place.set(&key, over(&old, &value[..value.len() / 2]))?;
                        }
                        let rest = Due::new(|| drop(place.set(&key, value)));
                        gap().await;
                        rest.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Lin),
        m(
            "bm-relaxed-leftover-goes-on",
            "BM-4",
            &["C-6", "BM-3"],
            "sets that need not be atomic go through one temporary that nobody empties; what a dropped one has left ends up behind another key's shorter value",
            |s| {
                s.slow_relaxed = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let turn = timeout_at(deadline.into(), place.turn.lock()).await;
                        let Ok(_turn) = turn else {
                            return Err(too_late());
                        };
                        let left = lock(&place.notes).remove(STAGED).unwrap_or_default();
                        let half = over(&left, &value[..value.len() / 2]);
                        lock(&place.notes).insert(STAGED.to_owned(), half);
                        yield_now().await;
                        let left = lock(&place.notes).remove(STAGED).unwrap_or_default();
                        place.set(&key, over(&left, &value))
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Cancel),
        m(
            "bm-relaxed-write-behind",
            "C-2",
            &["BM-6", "BM-4", "BM-1"],
            "a set that need not be atomic is kept by the handle until its next call, and seen by others then",
            |s| {
                fn write_out(place: &Place, kept: &Mutex<BTreeMap<String, Bytes>>) {
                    for (key, value) in std::mem::take(&mut *lock(kept)) {
                        lock(&place.blobs).set(&key, value);
                    }
                }
                let kept = Arc::new(Mutex::new(BTreeMap::new()));
                let (at_call, at_close) = (Arc::clone(&kept), Arc::clone(&kept));
                s.slow_relaxed = Some(Box::new(move |_, _, key, value| {
                    lock(&kept).insert(key, value);
                    async { Ok(()) }.boxed()
                }));
                s.deadline = Box::new(move |place, deadline, _| {
                    write_out(place, &at_call);
                    if deadline <= Instant::now() {
                        return Err(too_late());
                    }
                    Ok(())
                });
                s.close = Box::new(move |place| write_out(place, &at_close));
            },
        ),
    ]
}

fn bounds() -> Vec<Mutant> {
    vec![
        m(
            "bm-value-bound-not-relaxed",
            "C-4",
            &["BM-11", "BM-4"],
            "a value above the declared bound is stored where the set need not be atomic",
            |s| {
                s.value = Box::new(|_, _, value| Ok(value));
                s.set = Box::new(|place, key, value, atomic| {
                    let is_above = len_u64(&value) > CAPS.blob_multi.value_len_bytes_max;
                    if is_above && atomic == Atomicity::RequireAtomic {
                        return Err(invalid("a value above the bound"));
                    }
                    place.set(key, value)
                });
            },
        ),
        m(
            "bm-key-bound-cut-for-delete",
            "C-4",
            &["BM-10", "BM-5"],
            "a delete cuts a key above the bound to it, and removes another key",
            |s| {
                let deletes = Arc::new(AtomicBool::new(false));
                let is_delete = Arc::clone(&deletes);
                s.deadline = Box::new(move |_, deadline, call| {
                    is_delete.store(matches!(call, Call::Delete(_)), SeqCst);
                    if deadline <= Instant::now() {
                        return Err(too_late());
                    }
                    Ok(())
                });
                let admit = std::mem::replace(&mut s.key, Box::new(|key| Ok(key.to_owned())));
                s.key = Box::new(move |key| {
                    if !deletes.load(SeqCst) {
                        return admit(key);
                    }
                    let end = key.floor_char_boundary(CAPS.blob_multi.key_len_bytes_max);
                    admit(&key[..end])
                });
            },
        ),
    ]
}

fn queues() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "bm-turn-waited-for-without-end",
            "BM-7",
            &["C-4"],
            "sets and deletes take turns, and while one waits for its turn nobody watches its deadline",
            |s| {
                async fn in_turn(
                    place: &Place,
                    deadline: Instant,
                    effect: impl FnOnce() -> Answer<()> + Send,
                ) -> Answer<()> {
                    let _turn = place.turn.lock().await;
                    if deadline <= Instant::now() {
                        return Err(too_late());
                    }
                    let ended = timeout_at(deadline.into(), place.medium.call(effect)).await;
                    let ended = ended.unwrap_or(Err(Trouble::Late));
                    ended.unwrap_or_else(|trouble| Err(trouble.at_commit().into()))
                }
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move { in_turn(&place, deadline, || place.set(&key, value)).await }
                        .boxed()
                }));
                s.slow_delete = Some(Box::new(|place, deadline, key| {
                    async move { in_turn(&place, deadline, || place.delete(&key)).await }.boxed()
                }));
            },
        ),
        m(
            "bm-queued-set-after-its-deadline",
            "BM-7",
            &["C-1", "C-6", "BM-12", "BM-13"],
            "a set that waits for its turn ends at its deadline without effect, and is made all the same when its turn comes",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let (tell, told) = oneshot::channel();
                        let begun = Arc::new(AtomicBool::new(false));
                        let has_begun = Arc::clone(&begun);
                        let work = tokio::spawn(async move {
                            let _turn = place.turn.lock().await;
                            has_begun.store(true, SeqCst);
                            let sent = place.medium.call(|| place.set(&key, value));
                            let ended = timeout_at(deadline.into(), sent).await;
                            let ended = ended.unwrap_or(Err(Trouble::Late));
                            let answer =
                                ended.unwrap_or_else(|trouble| Err(trouble.at_commit().into()));
                            let _is_gone = tell.send(answer).is_err();
                        });
                        // A call that is dropped takes its work along.
                        let aborts = Due::new(|| work.abort());
                        let ended = timeout_at(deadline.into(), told).await;
                        aborts.call_off();
                        match ended {
                            Ok(answer) => answer.unwrap_or(Err(Trouble::Lost.after().into())),
                            Err(_late) if begun.load(SeqCst) => Err(Trouble::Late.after().into()),
                            Err(_late) => Err(too_late()),
                        }
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}

fn handles() -> Vec<Mutant> {
    vec![
        m(
            "bm-close-ends-calls-of-others",
            "C-2",
            &["BM-6"],
            "handles share a connection, and closing one of them ends the sets that others have under way",
            |s| {
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        if !stands_still(&place.counter).await {
                            let why = "the connection was closed";
                            return Err(Fault::not_applied(ErrorKind::Closed, why).into());
                        }
                        place.set(&key, value)
                    }
                    .boxed()
                }));
                s.close = Box::new(|place| {
                    place.counter.fetch_add(1, SeqCst);
                });
            },
        ),
        m(
            "bm-open-clears-staged",
            "C-2",
            &["BM-6", "BM-1", "BM-4"],
            "opening a place clears away its temporaries, those of sets under way among them, and such a set takes its own for moved",
            |s| {
                lock(&s.place.notes).clear();
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        let number = place.counter.fetch_add(1, SeqCst);
                        let staged = format!("staged {number}");
                        lock(&place.notes).insert(staged.clone(), value);
                        gap().await;
                        let value = lock(&place.notes).remove(&staged);
                        value.map_or(Ok(()), |value| place.set(&key, value))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-temporary-by-handles-number",
            "C-2",
            &["BM-4", "BM-6", "BM-1"],
            "a set's temporary is named after the process and a number, which each handle counts for itself",
            |s| {
                let sets = Arc::new(AtomicU64::new(0));
                s.slow_set = Some(Box::new(move |place, _, key, value| {
                    let number = sets.fetch_add(1, SeqCst);
                    async move {
                        let staged = format!("staged {number}");
                        lock(&place.notes).insert(staged.clone(), value.clone());
                        gap().await;
                        let there = lock(&place.notes).get(&staged).cloned();
                        place.set(&key, there.unwrap_or(value))
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
