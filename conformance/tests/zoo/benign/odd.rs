//! Oddities of single methods: deletes that take their time, lists that look key by key, ends that are rounded, fences
//! that are needed, bodies that do not outlive their object.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use larder_conformance::Caps;
use larder_conformance::model::high_volume::Row;
use larder_traits::{BackendError, BlobInfo, ErrorKind, Fault, ObjectId};

use super::{Benign, SECOND, bk, bm, hv, kv, may_land_late};
use crate::reference::high_volume::Read;
use crate::reference::late::Heeds;
use crate::reference::{Due, behind, blob_multi, gap, high_volume, kv_client, late, lock};

pub(super) fn all() -> Vec<Benign> {
    [blobs(), keys(), objects()].into_iter().flatten().collect()
}

fn blobs() -> Vec<Benign> {
    /// A dropped delete goes on in the background.
    fn deletes_land_late(s: &mut blob_multi::Store) {
        s.slow_delete = Some(Box::new(|place, _, key| {
            async move {
                let (late, what) = (Arc::clone(&place), key.clone());
                let late_one = Due::new(move || behind(move || late.delete(&what)));
                tokio::task::yield_now().await;
                late_one.call_off();
                place.delete(&key)
            }
            .boxed()
        }));
    }
    const CAPS: Caps = blob_multi::CAPS;
    vec![
        // What is gone when it is asked for its length is left out.
        bm("prefix-by-many-looks", CAPS, |s| {
            s.slow_prefix = Some(Box::new(|place, prefix| {
                async move {
                    let keys = place.medium.call(|| place.list()).await;
                    let keys = keys.map_err(|trouble| trouble.before())??;
                    let keys = keys.into_iter().filter(|key| key.starts_with(&prefix));
                    let mut listed = Vec::new();
                    for (number, key) in keys.enumerate() {
                        if number % 8 == 0 {
                            gap().await;
                        }
                        let value = place.medium.call(|| place.get(&key)).await;
                        let value = value.map_err(|trouble| trouble.before())??;
                        let len = value.map(|value| high_volume::len_u64(&value));
                        listed.extend(len.map(|len| BlobInfo::new(key, len)));
                    }
                    Ok(listed)
                }
                .boxed()
            }));
        }),
        bm("finishes-deletes-that-were-dropped", CAPS, |s| {
            s.slow_delete = Some(Box::new(|place, _, key| {
                async move {
                    let deleted = Due::new(|| drop(place.delete(&key)));
                    gap().await;
                    deleted.settle();
                    Ok(())
                }
                .boxed()
            }));
        }),
        bm(
            "deletes-land-late",
            may_land_late(CAPS, None),
            deletes_land_late,
        ),
        bm(
            "deletes-land-late-within-a-second",
            may_land_late(CAPS, SECOND),
            deletes_land_late,
        ),
        // Only of the base alphabet are there keys above 255 bytes.
        bm("long-odd-keys-refused", CAPS, |s| {
            let admit = std::mem::replace(&mut s.key, Box::new(|key| Ok(key.to_owned())));
            s.key = Box::new(move |key| {
                let is_base = larder_conformance::model::blob_multi::is_base;
                if key.len() > 255 && !key.bytes().all(is_base) {
                    return Err(blob_multi::invalid("a long odd key"));
                }
                admit(key)
            });
        }),
        // Of two reasons to refuse a write it names the one that its caller can do something about.
        bm("judges-arguments-before-deadlines", CAPS, |s| {
            s.deadline = Box::new(|_, deadline, call| {
                use blob_multi::Call;
                let (key, value) = match call {
                    Call::Set(key, value) => (Some(*key), Some(*value)),
                    Call::Delete(key) => (Some(*key), None),
                    _ => (None, None),
                };
                let caps = CAPS.blob_multi;
                if key.is_some_and(|key| key.is_empty() || key.len() > caps.key_len_bytes_max) {
                    return Err(blob_multi::invalid("no such key"));
                }
                let len = value.map(high_volume::len_u64);
                if len.is_some_and(|len| len > caps.value_len_bytes_max) {
                    return Err(blob_multi::invalid("a value above the bound"));
                }
                if deadline <= Instant::now() {
                    return Err(blob_multi::too_late());
                }
                Ok(())
            });
        }),
    ]
}

fn keys() -> Vec<Benign> {
    const CAPS: Caps = kv_client::CAPS;
    const BY_SECONDS: Caps =
        CAPS.with_kv_client(CAPS.kv_client.with_ttl_granularity(Duration::from_secs(1)));
    vec![
        kv("ends-on-whole-seconds", BY_SECONDS, |s| {
            s.write = Box::new(|place, key, value, ttl| {
                place.write(key, value, ttl);
                if let Some(entry) = lock(&place.entries).get_mut(key) {
                    let up = |end: SystemTime| {
                        let since = end.duration_since(SystemTime::UNIX_EPOCH).ok()?;
                        let more = u64::from(since.subsec_nanos() > 0);
                        let secs = since.as_secs().checked_add(more)?;
                        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(secs))
                    };
                    // What cannot be rounded up stays as it is.
                    entry.expires = entry.expires.map(|end| up(end).unwrap_or(end));
                }
                Ok(())
            });
        }),
        kv("deletes-land-late", may_land_late(CAPS, None), |s| {
            s.slow_remove = Some(Box::new(|place, key| {
                async move {
                    let (late, what) = (Arc::clone(&place), key.clone());
                    let late_one = Due::new(move || {
                        behind(move || {
                            let _step = lock(&late.step);
                            late.remove(&what);
                        })
                    });
                    tokio::task::yield_now().await;
                    late_one.call_off();
                    let _step = lock(&place.step);
                    place.remove(&key);
                    Ok(())
                }
                .boxed()
            }));
        }),
        kv("multi-asks-for-each-key-once", CAPS, |s| {
            s.many = Box::new(|place, keys| {
                let found: BTreeMap<_, _> = keys.iter().map(|key| (key, place.read(key))).collect();
                let found = keys.iter().map(|key| found.get(key).cloned().flatten());
                Ok(found.collect())
            });
        }),
    ]
}

fn objects() -> Vec<Benign> {
    const CAPS: Caps = high_volume::CAPS;
    vec![
        hv(
            "late-landing-until-fenced",
            may_land_late(CAPS, None),
            |s| {
                late::lands_late(s, Heeds::All, Heeds::All);
                s.fence = Box::new(|place| {
                    let _step = lock(&place.step);
                    place
                        .counter
                        .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    Ok(())
                });
            },
        ),
        // A body says so where its object is replaced or deleted before it was read to its end.
        bk("bodies-fail-with-their-object", CAPS, |s| {
            let asked = Arc::new(Mutex::new(None::<(ObjectId, Row)>));
            let seen = Arc::clone(&asked);
            s.read = Box::new(move |place, read, id| {
                let found = place.access(id)?;
                if read == Read::Object {
                    *lock(&asked) = Some((id.clone(), found.clone()));
                }
                Some(found)
            });
            let place = Arc::clone(&s.place);
            s.stream = Box::new(move |payload, _| {
                let (place, seen) = (Arc::clone(&place), lock(&seen).clone());
                let pieces: Vec<_> = payload
                    .chunks(64 << 10)
                    .map(|piece| payload.slice_ref(piece))
                    .collect();
                let fetch = move |piece: Bytes| {
                    let is_same = seen.as_ref().is_none_or(|(id, seen)| {
                        let rows = lock(&place.rows);
                        match (rows.get(id), seen) {
                            (Some(Row::Inline(_, there)), Row::Inline(_, seen)) => {
                                // The object itself, and not one that is equal.
                                there.as_ptr() == seen.as_ptr()
                            }
                            _ => false,
                        }
                    });
                    if is_same {
                        return Ok(piece);
                    }
                    let why = "the object is no longer there";
                    Err(Fault::not_applied(ErrorKind::Unavailable, why).into())
                };
                stream::iter(pieces).map(fetch).boxed()
            });
        }),
        bk("takes-its-time-between-pieces", CAPS, |s| {
            s.collect = Box::new(|_, _, mut stream, max| {
                async move {
                    // Of many thousand pieces only the first are waited for, or a put would take a minute.
                    const WAITED_FOR: usize = 40;
                    let mut payload = BytesMut::new();
                    let mut count = 0;
                    while let Some(piece) = stream.next().await {
                        payload.extend_from_slice(&piece.map_err(BackendError::Client)?);
                        if payload.len() > max {
                            return Err(high_volume::invalid("a payload above the bound"));
                        }
                        count += 1;
                        if count < WAITED_FOR {
                            gap().await;
                        }
                    }
                    Ok(payload.freeze())
                }
                .boxed()
            });
        }),
    ]
}
