//! Broken `Backend`s.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, stream};
use larder_conformance::model::high_volume::Row;
use larder_conformance::{Caps, Contract};
use larder_traits::{BackendError, ErrorKind, Fault, Metadata, ObjectId};

use super::Mutant;
use crate::reference::high_volume::{
    Bend, CAPS, Read, collect, invalid, len_u64, pieces, plain_suite,
};
use crate::reference::lock;

mod bystanders;
mod combined;
mod field;
mod neighbours;
mod seldom;

/// Long objects are what plain backends are for.
const LONG: Caps = CAPS.with_high_volume(CAPS.high_volume.with_payload_len_bytes_max(4 << 20));

pub(crate) fn all() -> Vec<Mutant> {
    [
        puts(),
        gets(),
        metadata(),
        deletes(),
        handles(),
        bystanders::bystanders(),
        neighbours::neighbours(),
        seldom::seldom(),
        field::field(),
        combined::combined(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn m(
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    Mutant {
        id,
        contract: Contract::Backend,
        breaks,
        also,
        about,
        awaits: None,
        hangs: false,
        panics: false,
        suite: Box::new(move || plain_suite(LONG, bend)),
    }
}

fn stored(payload: Bytes) -> Row {
    let mut metadata = Metadata::new();
    metadata.size = Some(len_u64(&payload));
    Row::Inline(metadata, payload)
}

fn puts() -> Vec<Mutant> {
    vec![
        m(
            "bk-failed-stream-stored",
            "BK-1",
            &[],
            "when the client's stream fails, what came before is stored",
            |s| {
                s.collect = Box::new(|place, id, mut stream, _| {
                    async move {
                        let mut payload = BytesMut::new();
                        while let Some(piece) = stream.next().await {
                            match piece {
                                Ok(piece) => payload.extend_from_slice(&piece),
                                Err(e) => {
                                    place.write(&id, stored(payload.freeze()));
                                    return Err(BackendError::Client(e));
                                }
                            }
                        }
                        Ok(payload.freeze())
                    }
                    .boxed()
                });
            },
        ),
        m(
            "bk-failed-stream-ends-it",
            "BK-1",
            &["BK-2"],
            "the error of the client's stream is taken for its end",
            |s| {
                s.collect = Box::new(|_, _, stream, max| {
                    collect(
                        stream
                            .take_while(|piece| std::future::ready(piece.is_ok()))
                            .boxed(),
                        max,
                    )
                    .boxed()
                });
            },
        ),
        m(
            "bk-old-removed-first",
            "BK-1",
            &[],
            "the old object is removed before the new stream is read",
            |s| {
                s.collect = Box::new(|place, id, stream, max| {
                    place.remove(&id);
                    collect(stream, max).boxed()
                });
            },
        ),
        m(
            "bk-client-error-as-own",
            "BK-1",
            &["C-1"],
            "the error of the client's stream is reported as the store's own",
            |s| {
                s.collect = Box::new(|_, _, stream, max| {
                    async move {
                        collect(stream, max).await.map_err(|e| match e {
                            BackendError::Client(e) => {
                                Fault::unknown(ErrorKind::Unavailable, "upload failed")
                                    .because(e)
                                    .into()
                            }
                            other => other,
                        })
                    }
                    .boxed()
                });
            },
        ),
        m(
            "bk-empty-chunk-ends-it",
            "BK-2",
            &["BK-1"],
            "an empty chunk is taken for the end of the stream",
            |s| {
                s.collect = Box::new(|_, _, stream, max| {
                    let full = |piece: &Result<Bytes, _>| {
                        piece.as_ref().is_ok_and(|piece| !piece.is_empty())
                    };
                    let mut ended = false;
                    let stream = stream.take_while(move |piece| {
                        ended |= piece.is_ok() && !full(piece);
                        std::future::ready(!ended)
                    });
                    collect(stream.boxed(), max).boxed()
                });
            },
        ),
        m(
            "bk-last-chunk-lost",
            "BK-2",
            &["BK-1"],
            "what is left after the last full part of 1 MiB is lost",
            |s| {
                s.fit = Box::new(|_, _, payload| {
                    let part = 1 << 20;
                    let whole = payload.len() - payload.len() % part;
                    Ok(if whole == 0 {
                        payload
                    } else {
                        payload.slice(..whole)
                    })
                });
            },
        ),
        m(
            "bk-chunk-limit",
            "BK-2",
            &["BK-1"],
            "chunks beyond the thousandth are lost",
            |s| {
                s.collect =
                    Box::new(|_, _, stream, max| collect(stream.take(1000).boxed(), max).boxed());
            },
        ),
        m(
            "bk-first-chunk-only",
            "BK-2",
            &["BK-1"],
            "of the client's stream one chunk is read",
            |s| {
                s.collect =
                    Box::new(|_, _, stream, max| collect(stream.take(1).boxed(), max).boxed());
            },
        ),
        m(
            "bk-empty-not-stored",
            "BK-2",
            &["BK-1"],
            "an object of no bytes is not stored",
            |s| {
                s.put = Box::new(|place, id, row| {
                    if !matches!(&row, Row::Inline(_, payload) if payload.is_empty()) {
                        place.write(id, row);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bk-put-keeps-metadata",
            "BK-1",
            &["BK-2"],
            "a put over an object keeps the old metadata",
            |s| {
                s.put = Box::new(|place, id, row| {
                    let row = match (place.live(id), row) {
                        (Some(Row::Inline(mut old, _)), Row::Inline(new, payload)) => {
                            old.size = new.size;
                            Row::Inline(old, payload)
                        }
                        (_, row) => row,
                    };
                    place.write(id, row);
                    Ok(())
                });
            },
        ),
        m(
            "bk-put-if-absent",
            "BK-1",
            &["BK-2"],
            "a put does not replace an object that is there",
            |s| {
                s.put = Box::new(|place, id, row| {
                    if place.live(id).is_none() {
                        place.write(id, row);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bk-own-last-unchanged",
            "BK-1",
            &["BK-2"],
            "a handle does not put the object that it has put last, whatever another one has put since",
            |s| {
                let own = Arc::new(Mutex::new(BTreeMap::new()));
                let deleted = Arc::clone(&own);
                s.put = Box::new(move |place, id, row| {
                    let before = lock(&own).insert(id.clone(), row.clone());
                    if before.as_ref() != Some(&row) || place.live(id).is_none() {
                        place.write(id, row);
                    }
                    Ok(())
                });
                s.delete = Box::new(move |place, id| {
                    lock(&deleted).remove(id);
                    place.remove(id);
                    Ok(())
                });
            },
        ),
        m(
            "bk-put-appends",
            "BK-1",
            &["BK-2"],
            "a shorter payload leaves the end of the longer one behind it",
            |s| {
                s.put = Box::new(|place, id, row| {
                    let row = match (place.live(id), row) {
                        (Some(Row::Inline(_, old)), Row::Inline(metadata, new))
                            if old.len() > new.len() =>
                        {
                            let merged = [&new[..], &old[new.len()..]].concat();
                            Row::Inline(metadata, merged.into())
                        }
                        (_, row) => row,
                    };
                    place.write(id, row);
                    Ok(())
                });
            },
        ),
        m(
            "bk-payload-bound-cut",
            "C-4",
            &["BK-2"],
            "a payload above the bound is cut to it",
            |s| {
                s.collect = Box::new(|_, _, stream, max| {
                    async move {
                        let payload = collect(stream, usize::MAX).await?;
                        Ok(payload.slice(..payload.len().min(max)))
                    }
                    .boxed()
                });
            },
        ),
        m(
            "bk-payload-bound-late",
            "C-4",
            &["BK-1"],
            "a payload above the bound is refused after the old object was removed",
            |s| {
                s.collect = Box::new(|place, id, stream, max| {
                    async move {
                        let payload = collect(stream, usize::MAX).await?;
                        if payload.len() > max {
                            place.remove(&id);
                            return Err(invalid("a payload above the bound"));
                        }
                        Ok(payload)
                    }
                    .boxed()
                });
            },
        ),
        m(
            "bk-payload-bound-unknown",
            "C-4",
            &["C-1"],
            "a payload above the bound is refused as Unknown",
            |s| {
                s.collect = Box::new(|_, _, stream, max| {
                    async move {
                        collect(stream, max).await.map_err(|e| match e {
                            BackendError::Fault(fault) => fault.now_unknown().into(),
                            other => other,
                        })
                    }
                    .boxed()
                });
            },
        ),
    ]
}

fn gets() -> Vec<Mutant> {
    vec![
        m(
            "bk-get-one-piece",
            "BK-2",
            &[],
            "a get ends after its first 64 KiB, without an error",
            |s| {
                s.stream = Box::new(|payload, medium| pieces(&payload, medium).take(1).boxed());
            },
        ),
        m(
            "bk-get-empty-absent",
            "BK-2",
            &[],
            "an object of no bytes reads as absent",
            |s| {
                s.plain = Box::new(|_, _, row| match row {
                    Row::Inline(metadata, payload) if !payload.is_empty() => {
                        Ok(Some((metadata, payload)))
                    }
                    _ => Ok(None),
                });
            },
        ),
        m(
            "bk-get-piece-twice",
            "BK-2",
            &[],
            "a get that takes several pieces sends the second one twice",
            |s| {
                s.stream = Box::new(|payload, _| {
                    let pieces: Vec<_> = payload
                        .chunks(64 << 10)
                        .map(Bytes::copy_from_slice)
                        .collect();
                    let twice = pieces.get(1).cloned();
                    let sent = pieces.into_iter().take(2).chain(twice);
                    let rest: Vec<_> = payload
                        .chunks(64 << 10)
                        .skip(2)
                        .map(Bytes::copy_from_slice)
                        .collect();
                    stream::iter(sent.chain(rest).map(Ok).collect::<Vec<_>>()).boxed()
                });
            },
        ),
        m(
            "bk-get-error-at-end",
            "BK-2",
            &[],
            "a payload of a whole number of pieces ends with an error",
            |s| {
                s.stream = Box::new(|payload, medium| {
                    let exact = !payload.is_empty() && payload.len() % (64 << 10) == 0;
                    let end: Option<BackendError> = exact
                        .then(|| Fault::not_applied(ErrorKind::Unavailable, "cut short").into());
                    pieces(&payload, medium)
                        .chain(stream::iter(end.map(Err)))
                        .boxed()
                });
            },
        ),
        m(
            "bk-get-absent-fails",
            "BK-2",
            &["C-1"],
            "an absent object is an error",
            |s| {
                // An absent row reaches the plain step as one of no bytes at the beginning of time.
                s.read = Box::new(|place, _, id| {
                    place
                        .access(id)
                        .or_else(|| Some(Row::Inline(Metadata::new(), Bytes::new())))
                });
                s.plain = Box::new(|_, _, row| match row {
                    Row::Inline(metadata, _) if metadata.size.is_none() => {
                        Err(Fault::not_applied(ErrorKind::NotFound, "no such object").into())
                    }
                    Row::Inline(metadata, payload) => Ok(Some((metadata, payload))),
                    Row::Redirect(_) => Ok(None),
                });
            },
        ),
    ]
}

fn metadata() -> Vec<Mutant> {
    vec![
        m(
            "bk-metadata-first",
            "BK-2",
            &["BK-1", "HV-9"],
            "`get_metadata` answers with the metadata of the first put",
            |s| {
                s.put = Box::new(|place, id, row| {
                    lock(&place.notes)
                        .entry(id.clone())
                        .or_insert_with(|| row.clone());
                    place.write(id, row);
                    Ok(())
                });
                s.read = Box::new(|place, read, id| match (read, place.access(id)) {
                    (Read::Metadata, Some(_)) => lock(&place.notes).get(id).cloned(),
                    (_, found) => found,
                });
            },
        ),
        m(
            "bk-size-as-told",
            "HV-9",
            &["BK-2"],
            "the size is the one that the caller gave",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    stored.size = metadata.size.or(stored.size);
                    Ok(stored)
                });
            },
        ),
        m(
            "bk-custom-lowercase",
            "HV-9",
            &["BK-2"],
            "the names of custom entries come back in lower case",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    stored.custom = std::mem::take(&mut stored.custom)
                        .into_iter()
                        .map(|(name, value)| (name.to_ascii_lowercase(), value))
                        .collect();
                    Ok(stored)
                });
            },
        ),
        m(
            "bk-text-ascii",
            "HV-9",
            &["BK-2"],
            "what is not ASCII in metadata becomes a question mark",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    let plain = |text: String| {
                        text.chars()
                            .map(|c| if c.is_ascii() { c } else { '?' })
                            .collect::<String>()
                    };
                    stored.filename = stored.filename.map(plain);
                    stored.origin = stored.origin.map(plain);
                    stored.custom = stored
                        .custom
                        .into_iter()
                        .map(|(n, v)| (n, plain(v)))
                        .collect();
                    Ok(stored)
                });
            },
        ),
        m(
            "bk-content-type-guessed",
            "HV-9",
            &["BK-2"],
            "an object without a media type gets one",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    stored
                        .content_type
                        .get_or_insert_with(|| "application/octet-stream".to_owned());
                    Ok(stored)
                });
            },
        ),
        m(
            "bk-empty-text-dropped",
            "HV-9",
            &["BK-2"],
            "empty texts in metadata come back as none",
            |s| {
                s.stamp = Box::new(|place, _, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    stored.content_type = stored.content_type.filter(|text| !text.is_empty());
                    stored.origin = stored.origin.filter(|text| !text.is_empty());
                    stored.filename = stored.filename.filter(|text| !text.is_empty());
                    Ok(stored)
                });
            },
        ),
    ]
}

fn deletes() -> Vec<Mutant> {
    vec![
        m(
            "bk-delete-absent-fails",
            "BK-3",
            &[],
            "deleting an absent object is an error",
            |s| {
                s.delete = Box::new(|place, id| {
                    if place.live(id).is_none() {
                        return Err(
                            Fault::not_applied(ErrorKind::NotFound, "no such object").into()
                        );
                    }
                    place.remove(id);
                    Ok(())
                });
            },
        ),
        m(
            "bk-delete-prefix",
            "BK-3",
            &["HV-9"],
            "deleting an object removes those whose keys start with its key",
            |s| {
                s.delete = Box::new(|place, id| {
                    let same = |other: &ObjectId| {
                        other.context == id.context && other.key.starts_with(&id.key)
                    };
                    lock(&place.rows).retain(|other, _| !same(other));
                    Ok(())
                });
            },
        ),
        m(
            "bk-delete-context",
            "BK-3",
            &["HV-9"],
            "deleting an object removes it in narrower contexts too",
            |s| {
                s.delete = Box::new(|place, id| {
                    let below = |other: &ObjectId| {
                        other.key == id.key
                            && other.context.use_case == id.context.use_case
                            && other.context.scopes.starts_with(&id.context.scopes)
                    };
                    lock(&place.rows).retain(|other, _| !below(other));
                    Ok(())
                });
            },
        ),
        m(
            "bk-delete-keeps-metadata",
            "BK-3",
            &["BK-2"],
            "a deleted object still has metadata",
            |s| {
                s.put = Box::new(|place, id, row| {
                    lock(&place.notes).insert(id.clone(), row.clone());
                    place.write(id, row);
                    Ok(())
                });
                s.read = Box::new(|place, read, id| match read {
                    Read::Metadata => place
                        .access(id)
                        .or_else(|| lock(&place.notes).get(id).cloned()),
                    _ => place.access(id),
                });
            },
        ),
        m(
            "bk-delete-keeps-payload",
            "BK-3",
            &[],
            "what a deleted object held stays, under a name that nobody asks for",
            |s| {
                s.delete = Box::new(|place, id| {
                    let kept = place.live(id);
                    place.remove(id);
                    if let Some(kept) = kept {
                        let mut hidden = id.clone();
                        // Longer than an id can be.
                        hidden.key = format!(
                            "{}{}",
                            "/".repeat(2_000),
                            place.counter.fetch_add(1, Relaxed)
                        );
                        place.write(&hidden, kept);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "bk-delete-empties",
            "BK-3",
            &["BK-2"],
            "a deleted object reads as one of no bytes",
            |s| {
                s.delete = Box::new(|place, id| {
                    if place.live(id).is_some() {
                        place.write(id, stored(Bytes::new()));
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
            "bk-join-never-ends",
            "BK-5",
            &[],
            "a put counts as work in the background, and nothing ever takes it off again",
            |s| {
                s.is_idle = |place| place.counter.load(Relaxed) == 0;
                s.put = Box::new(|place, id, row| {
                    place.counter.fetch_add(1, Relaxed);
                    place.write(id, row);
                    Ok(())
                });
            },
        )
        .hanging(),
        m(
            "bk-ids-joined",
            "HV-9",
            &["BK-1"],
            "the parts of an id are joined by slashes and not escaped",
            |s| {
                s.id = Box::new(|id| {
                    let scopes = id
                        .context
                        .scopes
                        .iter()
                        .map(|scope| format!("{}/{}/", scope.name, scope.value));
                    let joined = format!(
                        "{}/{}{}",
                        id.context.use_case,
                        scopes.collect::<String>(),
                        id.key
                    );
                    let mut id = id.clone();
                    id.context.use_case.clear();
                    id.context.scopes.clear();
                    id.key = joined;
                    Ok(id)
                });
            },
        ),
        m(
            "bk-read-cache",
            "C-2",
            &["BK-2", "BK-1"],
            "a handle keeps the objects that it read, whatever others put",
            |s| {
                let cache = Arc::new(Mutex::new(BTreeMap::<ObjectId, Row>::new()));
                let (putting, deleting) = (Arc::clone(&cache), Arc::clone(&cache));
                s.read = Box::new(move |place, _, id| {
                    let mut cache = lock(&cache);
                    if let Some(row) = cache.get(id) {
                        return Some(row.clone());
                    }
                    let row = place.access(id)?;
                    cache.insert(id.clone(), row.clone());
                    Some(row)
                });
                s.put = Box::new(move |place, id, row| {
                    lock(&putting).remove(id);
                    place.write(id, row);
                    Ok(())
                });
                s.delete = Box::new(move |place, id| {
                    lock(&deleting).remove(id);
                    place.remove(id);
                    Ok(())
                });
            },
        ),
        m(
            "bk-open-truncates",
            "C-2",
            &["BK-2"],
            "opening a place empties it",
            |s| lock(&s.place.rows).clear(),
        ),
    ]
}
