//! What stores of this kind have had wrong in the field: with parts and pieces, bodies that are read on, and headers.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, stream};
use larder_conformance::model::high_volume::Row;
use larder_traits::{BackendError, ErrorKind, Fault, Metadata};

use super::m;
use crate::mutants::Mutant;
use crate::reference::high_volume::{Read, Store, collect, len_u64};
use crate::reference::lock;

pub(super) fn field() -> Vec<Mutant> {
    [uploads(), bodies(), headers(), ids(), handles()]
        .into_iter()
        .flatten()
        .collect()
}

const PART: usize = 1 << 20;

fn uploads() -> Vec<Mutant> {
    vec![
        m(
            "bk-chunk-over-part-end",
            "BK-1",
            &["BK-2"],
            "a chunk goes into the part of 1 MiB that it begins in, and what does not fit there is lost",
            |s| {
                s.collect = Box::new(|_, _, mut stream, max| {
                    async move {
                        let mut payload = BytesMut::new();
                        while let Some(piece) = stream.next().await {
                            let mut piece = piece.map_err(BackendError::Client)?;
                            piece.truncate(PART - payload.len() % PART);
                            payload.extend_from_slice(&piece);
                        }
                        let whole = stream::iter([Ok(payload.freeze())]).boxed();
                        collect(whole, max).await
                    }
                    .boxed()
                });
            },
        ),
        m(
            "bk-equal-payload-keeps-metadata",
            "BK-1",
            &["BK-2", "HV-8", "HV-9"],
            "a put of the payload that is there already is not made, and the old metadata stays",
            |s| {
                s.put = Box::new(|place, id, row| {
                    if let (Some(Row::Inline(_, old)), Row::Inline(_, new)) = (place.live(id), &row)
                        && old == *new
                    {
                        return Ok(());
                    }
                    place.write(id, row);
                    Ok(())
                });
            },
        ),
        m(
            "bk-join-waits-for-failed-stream",
            "BK-5",
            &["BK-1"],
            "an upload counts as work in the background until its stream has ended, and one that failed never ends",
            |s| {
                s.collect = Box::new(|place, _, stream, max| {
                    async move {
                        place.counter.fetch_add(1, SeqCst);
                        let ended = collect(stream, max).await;
                        if !matches!(ended, Err(BackendError::Client(_))) {
                            place.counter.fetch_sub(1, SeqCst);
                        }
                        ended
                    }
                    .boxed()
                });
                s.is_idle = |place| place.counter.load(SeqCst) == 0;
            },
        )
        .hanging(),
    ]
}

fn bodies() -> Vec<Mutant> {
    vec![
        m(
            "bk-body-of-what-is-there",
            "BK-1",
            &["BK-2", "HV-7"],
            "a body asks for each piece of 64 KiB when it is read, of whatever object is there then",
            |s| {
                let asked = Arc::new(Mutex::new(None));
                let id = Arc::clone(&asked);
                s.read = Box::new(move |place, _, id| {
                    *lock(&asked) = Some(id.clone());
                    place.access(id)
                });
                let place = Arc::clone(&s.place);
                s.stream = Box::new(move |payload, _| {
                    let (place, id) = (Arc::clone(&place), lock(&id).clone());
                    let pieces = payload.len().div_ceil(64 << 10);
                    let fetch = move |number: usize| {
                        let from = number * (64 << 10);
                        let row = id.as_ref().and_then(|id| place.live(id));
                        let there = match row {
                            Some(Row::Inline(_, payload)) => payload,
                            _ => payload.clone(),
                        };
                        let to = (from + (64 << 10)).min(there.len());
                        if from > to {
                            let why = "the object has become shorter";
                            return Err(Fault::not_applied(ErrorKind::Corrupt, why).into());
                        }
                        Ok(there.slice(from..to))
                    };
                    stream::iter(0..pieces).map(fetch).boxed()
                });
            },
        ),
        m(
            "bk-encoded-body-decoded",
            "BK-2",
            &["HV-9"],
            "the compression of an object is a header that the line itself reads, so that a body that does not unpack is an error",
            |s| {
                s.plain = Box::new(|_, read, row| match row {
                    Row::Inline(metadata, _)
                        if read == Read::Object && metadata.compression.is_some() =>
                    {
                        let why = "the body does not unpack";
                        Err(Fault::not_applied(ErrorKind::Corrupt, why).into())
                    }
                    Row::Inline(metadata, payload) => Ok(Some((metadata, payload))),
                    Row::Redirect(redirect) => {
                        Err(BackendError::UnexpectedTombstone(Box::new(redirect)))
                    }
                });
            },
        ),
    ]
}

fn stamps(s: &mut Store, change: fn(&mut Metadata)) {
    s.stamp = Box::new(move |place, _, metadata, payload: &Bytes| {
        let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
        change(&mut stored);
        Ok(stored)
    });
}

fn headers() -> Vec<Mutant> {
    vec![
        m(
            "bk-media-type-parameters",
            "HV-9",
            &["BK-2"],
            "of a media type the parameters behind the semicolon are left out",
            |s| {
                stamps(s, |metadata| {
                    if let Some(media) = &mut metadata.content_type
                        && let Some((bare, _)) = media.split_once(';')
                    {
                        *media = bare.trim().to_owned();
                    }
                });
            },
        ),
        m(
            "bk-filename-quotes",
            "HV-9",
            &["BK-2"],
            "a file name travels in quotes, and ends at the first one of its own",
            |s| {
                stamps(s, |metadata| {
                    if let Some(name) = &mut metadata.filename {
                        let end = name.find('"').unwrap_or(name.len());
                        name.truncate(end);
                    }
                });
            },
        ),
        m(
            "bk-filename-path",
            "HV-9",
            &["BK-2"],
            "a file name is cut to what stands behind its last slash",
            |s| {
                stamps(s, |metadata| {
                    if let Some(name) = &mut metadata.filename {
                        let from = name.rfind(['/', '\\']).map_or(0, |at| at + 1);
                        *name = name.split_off(from);
                    }
                });
            },
        ),
        m(
            "bk-custom-encoded-word",
            "HV-9",
            &["BK-2"],
            "a custom value that looks like the encoded word of a mail header comes back decoded",
            |s| {
                stamps(s, |metadata| {
                    for value in metadata.custom.values_mut() {
                        let word = value.strip_prefix("=?UTF-8?Q?");
                        let word = word.and_then(|word| word.strip_suffix("?="));
                        if let Some(word) = word {
                            *value = word.replace('_', " ");
                        }
                    }
                });
            },
        ),
        m(
            "bk-custom-names-dashes",
            "HV-9",
            &["BK-2"],
            "underscores in the names of custom entries become dashes, and entries that were two become one",
            |s| {
                stamps(s, |metadata| {
                    let custom = std::mem::take(&mut metadata.custom);
                    let dashed = custom.into_iter();
                    metadata.custom = dashed
                        .map(|(name, value)| (name.replace('_', "-"), value))
                        .collect();
                });
            },
        ),
        m(
            "bk-control-characters-dropped",
            "HV-9",
            &["BK-2"],
            "line ends and tabs in custom values become spaces, as in a header that is folded",
            |s| {
                stamps(s, |metadata| {
                    for value in metadata.custom.values_mut() {
                        *value = value.replace(['\n', '\r', '\t'], " ");
                    }
                });
            },
        ),
    ]
}

fn ids() -> Vec<Mutant> {
    vec![
        m(
            "bk-ids-dot-segments",
            "HV-9",
            &["BK-1", "BK-3"],
            "the key of an id is a path, in which `a/./b` and `a//b` are `a/b`",
            |s| {
                let admit = std::mem::replace(&mut s.id, Box::new(|id| Ok(id.clone())));
                s.id = Box::new(move |id| {
                    let mut id = admit(id)?;
                    let parts = id.key.split('/').filter(|part| !matches!(*part, "" | "."));
                    let parts: Vec<_> = parts.collect();
                    if !parts.is_empty() {
                        id.key = parts.join("/");
                    }
                    Ok(id)
                });
            },
        ),
        m(
            "bk-ids-decoded-twice",
            "HV-9",
            &["BK-1", "BK-3"],
            "the key of an id is decoded once more than it was encoded, so that `%41` is `A`",
            |s| {
                let admit = std::mem::replace(&mut s.id, Box::new(|id| Ok(id.clone())));
                s.id = Box::new(move |id| {
                    let mut id = admit(id)?;
                    for (code, plain) in [
                        ("%2F", "/"),
                        ("%2f", "/"),
                        ("%20", " "),
                        ("%41", "A"),
                        ("%25", "%"),
                    ] {
                        id.key = id.key.replace(code, plain);
                    }
                    Ok(id)
                });
            },
        ),
        m(
            "bk-ids-long-cut",
            "HV-9",
            &["BK-1", "BK-3", "C-4"],
            "the names of files have 255 bytes at most, and a longer key is cut",
            |s| {
                let admit = std::mem::replace(&mut s.id, Box::new(|id| Ok(id.clone())));
                s.id = Box::new(move |id| {
                    let mut id = admit(id)?;
                    while id.key.len() > 255 && id.key.pop().is_some() {}
                    Ok(id)
                });
            },
        ),
    ]
}

fn handles() -> Vec<Mutant> {
    vec![m(
        "bk-handles-leak",
        "C-2",
        &["BK-2"],
        "of 64 connections each handle takes one when it is opened, and closing it gives none back",
        |s| {
            let opened = s.place.counter.fetch_add(1, SeqCst);
            if opened >= 64 {
                s.id = Box::new(|_| {
                    let why = "there are too many connections";
                    Err(Fault::not_applied(ErrorKind::Unavailable, why).into())
                });
            }
        },
    )]
}
