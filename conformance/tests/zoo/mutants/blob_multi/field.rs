//! What stores of this kind have had wrong in the field: with paging, blocks, names in other encodings, merges and reopening.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::blob_multi::slice_of;
use larder_traits::{Atomicity, BlobInfo, ErrorKind, Fault};

use super::{len_u64, m};
use crate::mutants::Mutant;
use crate::reference::blob_multi::{Place, Store, too_late};
use crate::reference::{Due, gap, lock};

pub(super) fn field() -> Vec<Mutant> {
    [
        ranges(),
        values(),
        keys(),
        lists(),
        orders(),
        handles(),
        ends(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is cached and fetched together.
const BLOCK: u64 = 64 << 10;

/// How long a value may be to lie in the row itself.
const INLINE: usize = 64 << 10;

fn span(range: &Range<u64>, value: &Bytes) -> (u64, u64) {
    let end = range.end.min(len_u64(value));
    (range.start / BLOCK, end.saturating_sub(1) / BLOCK)
}

fn ranges() -> Vec<Mutant> {
    vec![
        // As with `bytes=a-b`, both ends of which are included, so that there is no way to ask for nothing.
        m(
            "bm-range-empty-is-whole",
            "BM-1",
            &[],
            "a range of no bytes cannot be asked for, so that the header is ignored and the whole value comes",
            |s| {
                s.range = Box::new(|place, key, range| {
                    let Some(value) = place.get(key)? else {
                        return Ok(None);
                    };
                    if range.start == range.end && range.start <= len_u64(&value) {
                        return Ok(Some(value));
                    }
                    Ok(Some(slice_of(&value, range)))
                });
            },
        ),
        m(
            "bm-range-of-empty-value-fails",
            "BM-1",
            &["BM-11"],
            "no range of an empty value can be satisfied, and that is an error",
            |s| {
                s.range = Box::new(|place, key, range| {
                    let value = place.get(key)?;
                    if value.as_ref().is_some_and(Bytes::is_empty) {
                        let why = "the range cannot be satisfied";
                        return Err(Fault::not_applied(ErrorKind::Internal, why).into());
                    }
                    Ok(value.map(|value| slice_of(&value, range)))
                });
            },
        ),
        m(
            "bm-range-middle-blocks",
            "BM-1",
            &[],
            "a range is put together of its first and its last block of 64 KiB, whatever lies between them",
            |s| {
                s.range = Box::new(|place, key, range| {
                    let Some(value) = place.get(key)? else {
                        return Ok(None);
                    };
                    let (first, last) = span(&range, &value);
                    if last < first + 2 {
                        return Ok(Some(slice_of(&value, range)));
                    }
                    let head = slice_of(&value, range.start..(first + 1) * BLOCK);
                    let tail = slice_of(&value, last * BLOCK..range.end);
                    Ok(Some([head, tail].concat().into()))
                });
            },
        ),
        m(
            "bm-range-blocks-by-length",
            "BM-6",
            &["C-2", "BM-1"],
            "a handle keeps the blocks of its range reads by key and length, and drops them at its own writes only",
            |s| {
                let blocks = Arc::new(Mutex::new(BTreeMap::<(String, u64), Bytes>::new()));
                let (dropped, deleted) = (Arc::clone(&blocks), Arc::clone(&blocks));
                s.range = Box::new(move |place, key, range| {
                    let Some(value) = place.get(key)? else {
                        return Ok(None);
                    };
                    let mut blocks = lock(&blocks);
                    let kept = blocks
                        .entry((key.to_owned(), len_u64(&value)))
                        .or_insert(value);
                    Ok(Some(slice_of(kept, range)))
                });
                s.set = Box::new(move |place, key, value, _| {
                    lock(&dropped).retain(|(kept, _), _| kept != key);
                    place.set(key, value)
                });
                s.delete = Box::new(move |place, key| {
                    lock(&deleted).retain(|(kept, _), _| kept != key);
                    place.delete(key)
                });
            },
        ),
    ]
}

fn values() -> Vec<Mutant> {
    vec![
        m(
            "bm-value-ends-the-body",
            "BM-11",
            &["BM-1", "BM-3"],
            "a value that holds the end of a chunked body ends there",
            |s| {
                s.set = Box::new(|place, key, mut value, _| {
                    const END: &[u8] = b"\r\n0\r\n\r\n";
                    let end = value.windows(END.len()).position(|it| it == END);
                    value.truncate(end.unwrap_or(value.len()));
                    place.set(key, value)
                });
            },
        ),
        m(
            "bm-value-byte-order-mark",
            "BM-11",
            &["BM-1", "BM-3"],
            "the mark of UTF-8 at the beginning of a value is taken off",
            |s| {
                s.get = Box::new(|place, key| {
                    let bare = |value: Bytes| match value.starts_with(b"\xef\xbb\xbf") {
                        true => value.slice(3..),
                        false => value,
                    };
                    Ok(place.get(key)?.map(bare))
                });
            },
        ),
        m(
            "bm-parts-in-order-of-names",
            "BM-1",
            &["BM-3", "BM-11"],
            "a long value is put together of parts of 256 KiB in the order of their names, and 10 comes before 2",
            |s| {
                s.get = Box::new(|place, key| {
                    let joined = |value: Bytes| {
                        let mut parts: Vec<_> = value
                            .chunks(256 << 10)
                            .enumerate()
                            .map(|(number, part)| (number.to_string(), part))
                            .collect();
                        parts.sort();
                        let parts: Vec<_> = parts.into_iter().map(|(_, part)| part).collect();
                        Bytes::from(parts.concat())
                    };
                    Ok(place.get(key)?.map(joined))
                });
            },
        ),
    ]
}

/// Exchanges how a handle names what it keeps. Its own names are what it lists.
fn named(s: &mut Store, name: fn(&str) -> String) {
    let admit = std::mem::replace(&mut s.key, Box::new(|key| Ok(key.to_owned())));
    s.key = Box::new(move |key| Ok(name(&admit(key)?)));
}

fn keys() -> Vec<Mutant> {
    vec![
        // As in a column of SQLite that was declared as STRING and not as TEXT.
        m(
            "bm-key-numeric-affinity",
            "BM-10",
            &["BM-2", "BM-5", "BM-6"],
            "a key of digits becomes a number, and loses the zeros before it",
            |s| {
                named(s, |key| {
                    let number = key.parse::<u64>();
                    let is_digits = key.bytes().all(|byte| byte.is_ascii_digit());
                    number.map_or(key.to_owned(), |number| match is_digits {
                        true => number.to_string(),
                        false => key.to_owned(),
                    })
                });
            },
        ),
        m(
            "bm-key-three-byte-text",
            "BM-10",
            &["BM-2", "BM-5", "BM-6"],
            "a text column of at most three bytes a character ends a key before its first one of four",
            |s| {
                named(s, |key| {
                    let end = key.find(|c: char| c.len_utf8() == 4).filter(|&at| at > 0);
                    key[..end.unwrap_or(key.len())].to_owned()
                });
            },
        ),
        m(
            "bm-key-unicode-case",
            "BM-10",
            &["BM-2", "BM-5", "BM-6"],
            "keys that differ in the case of letters outside ASCII are one key",
            |s| {
                named(s, |key| {
                    let fold = |c: char| match c.is_ascii() {
                        true => vec![c],
                        false => c.to_lowercase().collect(),
                    };
                    key.chars().flat_map(fold).collect()
                });
            },
        ),
        m(
            "bm-key-ignorable",
            "BM-10",
            &["BM-2", "BM-5", "BM-6"],
            "characters of no width do not count where keys are compared",
            |s| {
                named(s, |key| {
                    let is_ignorable = |c: &char| {
                        matches!(
                            c,
                            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}'
                        )
                    };
                    let bare: String = key.chars().filter(|c| !is_ignorable(c)).collect();
                    if bare.is_empty() {
                        key.to_owned()
                    } else {
                        bare
                    }
                });
            },
        ),
        m(
            "bm-key-device-name",
            "BM-10",
            &[],
            "a key with a part that names a device of another system is refused",
            |s| {
                let admit = std::mem::replace(&mut s.key, Box::new(|key| Ok(key.to_owned())));
                s.key = Box::new(move |key| {
                    let is_device = |part: &str| {
                        let stem = part.split('.').next().unwrap_or_default();
                        let names = ["con", "prn", "aux", "nul", "com1", "lpt1"];
                        names.contains(&stem.to_ascii_lowercase().as_str())
                    };
                    if key.split('/').any(is_device) {
                        let why = "the name of a device";
                        return Err(Fault::not_applied(ErrorKind::InvalidInput, why).into());
                    }
                    admit(key)
                });
            },
        ),
        m(
            "bm-delete-hidden-neighbours",
            "BM-5",
            &["BM-2"],
            "a delete removes the folder too where nothing is left in it but names that begin with a dot",
            |s| {
                s.delete = Box::new(|place, key| {
                    let mut blobs = lock(&place.blobs);
                    blobs.delete(key);
                    let Some((folder, _)) = key.rsplit_once('/') else {
                        return Ok(());
                    };
                    let below = |other: &&str| {
                        let rest = other.strip_prefix(folder);
                        rest.is_some_and(|rest| rest.starts_with('/'))
                    };
                    let inside: Vec<_> = blobs.keys().filter(below).map(str::to_owned).collect();
                    let is_hidden = |other: &String| other[folder.len() + 1..].starts_with('.');
                    if inside.iter().all(is_hidden) {
                        for key in inside {
                            blobs.delete(&key);
                        }
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bm-open-clears-temporaries",
            "C-2",
            &["BM-10", "BM-2", "BM-1", "BM-6"],
            "opening a place clears away keys that look like the temporaries of a set that did not end",
            |s| {
                let mut blobs = lock(&s.place.blobs);
                let is_temporary = |key: &&str| {
                    let name = key.rsplit('/').next().unwrap_or_default();
                    [".tmp", ".part", ".temp"]
                        .iter()
                        .any(|end| name.ends_with(end))
                        || name.starts_with(".tmp")
                };
                let left: Vec<_> = blobs
                    .keys()
                    .filter(is_temporary)
                    .map(str::to_owned)
                    .collect();
                for key in left {
                    blobs.delete(&key);
                }
            },
        ),
    ]
}

const PAGE: usize = 1000;

fn lists() -> Vec<Mutant> {
    vec![
        m(
            "bm-list-hidden",
            "BM-2",
            &["BM-10"],
            "keys with a part that begins with a dot are not listed, unless it is of dots only",
            |s| {
                s.list = Box::new(|place| {
                    let is_hidden = |part: &str| {
                        part.starts_with('.') && !part.bytes().all(|byte| byte == b'.')
                    };
                    let mut keys = place.list()?;
                    keys.retain(|key| !key.split('/').any(is_hidden));
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-list-depth",
            "BM-2",
            &["BM-10"],
            "keys that lie more than 32 folders deep are not listed",
            |s| {
                s.list = Box::new(|place| {
                    let mut keys = place.list()?;
                    keys.retain(|key| key.bytes().filter(|&byte| byte == b'/').count() <= 32);
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-list-later-pages-encoded",
            "BM-2",
            &["BM-10"],
            "pages come with their keys encoded for a query, and from the second one on nobody decodes them",
            |s| {
                s.list = Box::new(|place| {
                    let mut keys = place.list()?;
                    for key in keys.iter_mut().skip(PAGE) {
                        let mut encoded = String::new();
                        for c in key.chars() {
                            match c {
                                '!' | '\'' | '(' | ')' | '*' | '/' => {
                                    encoded.push_str(&format!("%{:02X}", u32::from(c)));
                                }
                                _ => encoded.push(c),
                            }
                        }
                        *key = encoded;
                    }
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-list-marker-slash",
            "BM-2",
            &["BM-10"],
            "the last key of a page is where the next one starts, without the slash at its end, so that it comes again",
            |s| {
                s.list = Box::new(|place| {
                    let mut keys = place.list()?;
                    let last = keys.get(PAGE - 1).filter(|key| key.ends_with('/')).cloned();
                    if keys.len() > PAGE
                        && let Some(last) = last
                    {
                        keys.insert(PAGE, last);
                    }
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-list-control-fails",
            "BM-10",
            &["BM-2"],
            "a key may hold a control character, and the list that it is in cannot be read then",
            |s| {
                s.list = Box::new(|place| {
                    let is_outside = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
                    let keys = place.list()?;
                    if keys.iter().any(|key| key.contains(is_outside)) {
                        let why = "the list is not well formed";
                        return Err(Fault::not_applied(ErrorKind::Internal, why).into());
                    }
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-prefix-filters-one-page",
            "BM-2",
            &[],
            "a prefix list takes those of the first thousand keys that have the prefix",
            |s| {
                s.prefix = Box::new(|place, prefix| {
                    let mut listed = lock(&place.blobs).list_prefix("");
                    listed.truncate(PAGE);
                    listed.retain(|info| info.key.starts_with(prefix));
                    Ok(listed)
                });
            },
        ),
        m(
            "bm-prefix-last-character",
            "BM-2",
            &["BM-10"],
            "a prefix list ends at the prefix with U+FFFF behind it, which is not the last character",
            |s| {
                s.prefix = Box::new(|place, prefix| {
                    let end = format!("{prefix}\u{ffff}");
                    let mut listed = lock(&place.blobs).list_prefix(prefix);
                    listed.retain(|info| info.key < end);
                    Ok(listed)
                });
            },
        ),
        m(
            "bm-prefix-size-16-bits",
            "BM-2",
            &[],
            "the length in a prefix list is kept in 16 bits",
            |s| {
                s.prefix = Box::new(|place, prefix| {
                    let listed = lock(&place.blobs).list_prefix(prefix);
                    let cut = |info: BlobInfo| BlobInfo::new(info.key, info.len_bytes & 0xffff);
                    Ok(listed.into_iter().map(cut).collect())
                });
            },
        ),
        m(
            "bm-prefix-size-not-relaxed",
            "BM-2",
            &["BM-4"],
            "a set that need not be atomic does not enter the new length into the prefix list",
            |s| {
                s.set = Box::new(|place, key, value, atomic| {
                    let old = place
                        .get(key)?
                        .filter(|_| atomic == Atomicity::AllowNonAtomic);
                    let mut notes = lock(&place.notes);
                    match old {
                        Some(old) => drop(notes.entry(key.to_owned()).or_insert(old)),
                        None => drop(notes.remove(key)),
                    }
                    place.set(key, value)
                });
                s.delete = Box::new(|place, key| {
                    lock(&place.notes).remove(key);
                    place.delete(key)
                });
                s.prefix = Box::new(|place, prefix| {
                    let listed = lock(&place.blobs).list_prefix(prefix);
                    let notes = lock(&place.notes);
                    let told = |info: BlobInfo| match notes.get(&info.key) {
                        Some(old) => BlobInfo::new(info.key, len_u64(old)),
                        None => info,
                    };
                    Ok(listed.into_iter().map(told).collect())
                });
            },
        ),
    ]
}

/// The names under which a note keeps what lies below a key.
fn under(what: &str, key: &str) -> String {
    format!("{what} {key}")
}

/// How many writes go into one segment of the log.
const SEGMENT: u64 = 128;

/// Counts a write, and says whether it fills its segment.
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
            "bm-delete-uncovers-file",
            "BM-5",
            &["BM-1", "BM-2", "BM-3"],
            "short values lie in a row and long ones in a file; a delete removes the row, and the file of a longer value is left",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    if value.len() > INLINE {
                        lock(&place.notes).insert(key.to_owned(), value.clone());
                    }
                    place.set(key, value)
                });
                s.delete = Box::new(|place, key| {
                    let is_inline = place.get(key)?.is_some_and(|value| value.len() <= INLINE);
                    let file = lock(&place.notes).remove(key);
                    match file.filter(|_| is_inline) {
                        Some(file) => place.set(key, file),
                        None => place.delete(key),
                    }
                });
            },
        ),
        m(
            "bm-merge-takes-older",
            "BM-1",
            &["BM-3", "BM-6"],
            "of two values that one segment of the log has of a key, the merge of the segment keeps the first",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    {
                        let mut notes = lock(&place.notes);
                        notes
                            .entry(key.to_owned())
                            .or_insert_with(|| value.clone());
                    }
                    place.set(key, value)?;
                    if fills(place) {
                        for (key, first) in std::mem::take(&mut *lock(&place.notes)) {
                            place.set(&key, first)?;
                        }
                    }
                    Ok(())
                });
                s.delete = Box::new(|place, key| {
                    lock(&place.notes).remove(key);
                    place.delete(key)
                });
            },
        ),
        m(
            "bm-merge-drops-tombstones",
            "BM-5",
            &["BM-1", "BM-2", "BM-6"],
            "the merge of a segment drops its tombstones, though the values that they cover lie in one before it",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    lock(&place.notes).remove(&under("dead", key));
                    place.set(key, value)?;
                    merge(place)
                });
                s.delete = Box::new(|place, key| {
                    let mut notes = lock(&place.notes);
                    if let Some(old) = notes.get(&under("old", key)).cloned()
                        && place.get(key)?.is_some()
                    {
                        notes.insert(under("dead", key), old);
                    }
                    drop(notes);
                    place.delete(key)?;
                    merge(place)
                });
            },
        ),
        m(
            "bm-intent-undone-at-open",
            "BM-12",
            &["BM-6", "C-2", "BM-1"],
            "what a set was to replace is put back when a handle is opened, if the set had no answer, whatever was set since",
            |s| {
                let left = std::mem::take(&mut *lock(&s.place.notes));
                for (key, old) in left {
                    let undone = match old.split_first() {
                        Some((_, old)) => s.place.set(&key, Bytes::copy_from_slice(old)),
                        None => s.place.delete(&key),
                    };
                    undone.expect("the model takes all that it had");
                }
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let old = place.get(&key)?;
                        let sent = place.medium.call(|| place.set(&key, value));
                        let ended = tokio::time::timeout_at(deadline.into(), sent).await;
                        let trouble = match ended {
                            Ok(Ok(done)) => return done,
                            Ok(Err(trouble)) => trouble,
                            Err(_late) => crate::reference::medium::Trouble::Late,
                        };
                        if trouble != crate::reference::medium::Trouble::Refused {
                            let old = old.map(|old| [&b"+"[..], &old].concat());
                            lock(&place.notes).insert(key, old.unwrap_or_default().into());
                        }
                        Err(trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Fault),
    ]
}

/// Where a segment is full, deleted keys whose values lie in the one before it come back.
fn merge(place: &Place) -> Result<(), larder_traits::ExternalError> {
    if !fills(place) {
        return Ok(());
    }
    let mut notes = lock(&place.notes);
    let dead: Vec<_> = notes
        .extract_if(.., |name, _| name.starts_with("dead "))
        .collect();
    for (name, old) in dead {
        let key = &name["dead ".len()..];
        place.set(key, old)?;
    }
    notes.clear();
    for key in place.list()? {
        if let Some(value) = place.get(&key)? {
            notes.insert(under("old", &key), value);
        }
    }
    Ok(())
}

fn handles() -> Vec<Mutant> {
    vec![m(
        "bm-handles-leak",
        "C-2",
        &["BM-6"],
        "of 64 connections each handle takes one when it is opened, and closing it gives none back",
        |s| {
            let opened = s.place.counter.fetch_add(1, SeqCst);
            if opened >= 64 {
                s.deadline = Box::new(|_, _, _| {
                    let why = "there are too many connections";
                    Err(Fault::not_applied(ErrorKind::Unavailable, why).into())
                });
            }
        },
    )]
}

fn ends() -> Vec<Mutant> {
    vec![
        m(
            "bm-deadline-of-the-first",
            "BM-7",
            &["C-2"],
            "a connection closes itself at the deadline of the call that opened it, and what comes later finds it closed",
            |s| {
                let closes = Arc::new(Mutex::new(None::<Instant>));
                s.deadline = Box::new(move |_, deadline, _| {
                    let now = Instant::now();
                    if deadline <= now || *lock(&closes).get_or_insert(deadline) <= now {
                        return Err(too_late());
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bm-drop-of-list-keeps-cursor",
            "C-6",
            &["C-4", "BM-2"],
            "a list that is dropped leaves its cursor open, and where eight are open there is no other",
            |s| {
                const CURSORS: usize = 8;
                let open = Arc::new(AtomicUsize::new(0));
                s.slow_list = Some(Box::new(move |place| {
                    let open = Arc::clone(&open);
                    async move {
                        if open.load(SeqCst) >= CURSORS {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            let why = "no cursor has become free";
                            return Err(Fault::not_applied(ErrorKind::Timeout, why).into());
                        }
                        open.fetch_add(1, SeqCst);
                        gap().await;
                        gap().await;
                        open.fetch_sub(1, SeqCst);
                        place.list()
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Cancel),
        m(
            "bm-joined-get-ends-with-first",
            "BM-7",
            &["BM-6", "C-1"],
            "gets of one key are made together by the first of them, and end for all when its deadline comes",
            |s| {
                let under_way = Arc::new(Mutex::new(BTreeMap::<String, Instant>::new()));
                // The call's own deadline, for the step that has none of its own.
                let asked = Arc::new(Mutex::new(Instant::now()));
                let told = Arc::clone(&asked);
                s.deadline = Box::new(move |_, deadline, _| {
                    *lock(&told) = deadline;
                    if deadline <= Instant::now() {
                        return Err(too_late());
                    }
                    Ok(())
                });
                s.slow_get = Some(Box::new(move |place, key| {
                    let mine = *lock(&asked);
                    let under_way = Arc::clone(&under_way);
                    async move {
                        let first = lock(&under_way).get(&key).copied();
                        if let Some(first) = first {
                            // It waits for the answer of the first, for as long as that one does.
                            while lock(&under_way).get(&key) == Some(&first) {
                                tokio::time::sleep(Duration::from_millis(1)).await;
                            }
                            if first <= Instant::now() {
                                return Err(too_late());
                            }
                            return place.get(&key);
                        }
                        lock(&under_way).insert(key.clone(), mine);
                        let over = Due::new(|| {
                            lock(&under_way).remove(&key);
                        });
                        let asked = place.medium.call(|| place.get(&key));
                        let ended = tokio::time::timeout_at(mine.into(), asked).await;
                        over.settle();
                        match ended {
                            Ok(Ok(found)) => found,
                            Ok(Err(trouble)) => Err(trouble.before().into()),
                            Err(_late) => Err(too_late()),
                        }
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Fault),
    ]
}
