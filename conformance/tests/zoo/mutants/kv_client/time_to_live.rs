//! Time to live.

use bytes::Bytes;
use larder_traits::{ErrorKind, Fault};

use super::m;
use crate::mutants::Mutant;
use crate::reference::kv_client::invalid;
use crate::reference::lock;

pub(super) fn time_to_live() -> Vec<Mutant> {
    vec![
        m(
            "kv-ttl-zero-for-ever",
            "KV-3",
            &[],
            "a time to live of 0 keeps the value for ever",
            |s| {
                s.zero_ttl = || None;
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value, ttl.filter(|&secs| secs != 0));
                    Ok(())
                });
            },
        ),
        m(
            "kv-ttl-zero-at-once",
            "KV-3",
            &[],
            "a time to live of 0 writes a value that is dead at once",
            |s| {
                s.zero_ttl = || None;
            },
        ),
        m(
            "kv-ttl-zero-wrong-kind",
            "KV-3",
            &["C-1"],
            "a time to live of 0 is a failure of the server",
            |s| {
                s.zero_ttl = || Some(Fault::unknown(ErrorKind::Internal, "0 s").into());
            },
        ),
        m(
            "kv-ttl-zero-late",
            "KV-3",
            &["C-4"],
            "a time to live of 0 is refused after the old value was removed",
            |s| {
                s.zero_ttl = || None;
                s.write = Box::new(|place, key, value, ttl| {
                    if ttl == Some(0) {
                        place.remove(key);
                        return Err(invalid("a time to live of 0 s"));
                    }
                    place.write(key, value, ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-ttl-u32",
            "KV-3",
            &[],
            "the time to live is cut to 32 bits",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value, ttl.map(|secs| secs & 0xffff_ffff));
                    Ok(())
                });
            },
        ),
        m(
            "kv-ttl-millis-overflow",
            "KV-3",
            &["C-3"],
            "a time to live beyond 64 bits of milliseconds wraps around",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value, ttl.map(|secs| secs.wrapping_mul(1000) / 1000));
                    Ok(())
                });
            },
        ),
        m(
            "kv-ttl-i64",
            "KV-3",
            &["C-3"],
            "a time to live above `i64::MAX` is negative, and the value dead",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let ttl = ttl.map(|secs| if i64::try_from(secs).is_ok() { secs } else { 0 });
                    place.write(key, value, ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-ttl-max-dropped",
            "KV-3",
            &["C-1"],
            "an endless time to live is Ok, and nothing is written",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    if ttl.is_none_or(place_has_end) {
                        place.write(key, value, ttl);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-ttl-max-internal",
            "KV-3",
            &["C-1"],
            "an endless time to live is an internal error",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    if ttl.is_some_and(|secs| !place_has_end(secs)) {
                        return Err(Fault::not_applied(ErrorKind::Internal, "overflow").into());
                    }
                    place.write(key, value, ttl);
                    Ok(())
                });
            },
        ),
        m(
            "kv-ttl-never-ends",
            "KV-3",
            &[],
            "a value outlives its time to live for `get`",
            |s| {
                s.read = Box::new(|place, key| {
                    Ok(lock(&place.entries)
                        .get(key)
                        .map(|entry| entry.value.clone()))
                });
            },
        ),
        m(
            "kv-ttl-half",
            "KV-3",
            &[],
            "a value dies in the middle of its time to live",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(
                        key,
                        value,
                        ttl.map(|secs| if secs > 1 { secs / 2 } else { secs }),
                    );
                    Ok(())
                });
            },
        ),
        m(
            "kv-ttl-slides",
            "KV-3",
            &[],
            "reading a value starts its time to live anew",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let note = ttl.map(|secs| Bytes::copy_from_slice(&secs.to_le_bytes()));
                    lock(&place.notes).insert(key.to_vec(), note.unwrap_or_default());
                    place.write(key, value, ttl);
                    Ok(())
                });
                s.read = Box::new(|place, key| {
                    let Some(value) = place.read(key) else {
                        return Ok(None);
                    };
                    let note = lock(&place.notes).get(key).cloned().unwrap_or_default();
                    if let Ok(secs) = <[u8; 8]>::try_from(&note[..]) {
                        place.write(key, value.clone(), Some(u64::from_le_bytes(secs)));
                    }
                    Ok(Some(value))
                });
            },
        ),
        m(
            "kv-ttl-kept-by-put",
            "KV-4",
            &["KV-3"],
            "a plain put keeps the time to live of the value before it",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let old = lock(&place.entries)
                        .get(key)
                        .and_then(|entry| entry.expires);
                    place.write(key, value, ttl);
                    if let Some(entry) = lock(&place.entries).get_mut(key).filter(|_| ttl.is_none())
                    {
                        entry.expires = old;
                    }
                    Ok(())
                });
            },
        ),
        m(
            "kv-ttl-shortest-wins",
            "KV-4",
            &["KV-3"],
            "a longer time to live does not replace a shorter one",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    let old = lock(&place.entries)
                        .get(key)
                        .and_then(|entry| entry.expires);
                    place.write(key, value, ttl);
                    if let Some(entry) = lock(&place.entries).get_mut(key)
                        && let (Some(old), Some(new)) = (old, entry.expires)
                    {
                        entry.expires = Some(old.min(new));
                    }
                    Ok(())
                });
            },
        ),
    ]
}

/// Whether so many seconds end within the time that any medium can express.
fn place_has_end(secs: u64) -> bool {
    secs < 1 << 40
}
