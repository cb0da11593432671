//! `get_multi`.

use std::collections::BTreeSet;

use larder_traits::{ErrorKind, Fault};

use super::m;
use crate::mutants::Mutant;
use crate::reference::kv_client::invalid;
use crate::reference::lock;

pub(super) fn many() -> Vec<Mutant> {
    vec![
        m(
            "kv-many-sorted",
            "KV-5",
            &[],
            "the answers come in the order of the keys",
            |s| {
                s.many = Box::new(|place, keys| {
                    let mut keys = keys.to_vec();
                    keys.sort();
                    Ok(place.read_many(&keys))
                });
            },
        ),
        m(
            "kv-many-deduplicated",
            "KV-5",
            &[],
            "a key that stands there twice is answered once",
            |s| {
                s.many = Box::new(|place, keys| {
                    let mut seen = BTreeSet::new();
                    let once: Vec<_> = keys
                        .iter()
                        .filter(|key| seen.insert(*key))
                        .cloned()
                        .collect();
                    Ok(place.read_many(&once))
                });
            },
        ),
        m(
            "kv-many-duplicate-absent",
            "KV-5",
            &[],
            "a key that stands there twice is absent the second time",
            |s| {
                s.many = Box::new(|place, keys| {
                    let mut seen = BTreeSet::new();
                    Ok(keys
                        .iter()
                        .map(|key| seen.insert(key).then(|| place.read(key)).flatten())
                        .collect())
                });
            },
        ),
        m(
            "kv-many-found-only",
            "KV-5",
            &[],
            "absent keys are left out of the answer",
            |s| {
                s.many = Box::new(|place, keys| {
                    Ok(place
                        .read_many(keys)
                        .into_iter()
                        .filter(Option::is_some)
                        .collect())
                });
            },
        ),
        m(
            "kv-many-batch-limit",
            "KV-5",
            &[],
            "keys beyond the 128th read as absent",
            |s| {
                s.many = Box::new(|place, keys| {
                    let mut values = place.read_many(keys);
                    values.iter_mut().skip(128).for_each(|value| *value = None);
                    Ok(values)
                });
            },
        ),
        m(
            "kv-many-batch-refused",
            "KV-5",
            &[],
            "more than a thousand keys are refused",
            |s| {
                s.many = Box::new(|place, keys| {
                    if keys.len() > 1000 {
                        return Err(
                            Fault::not_applied(ErrorKind::InvalidInput, "too many keys").into()
                        );
                    }
                    Ok(place.read_many(keys))
                });
            },
        ),
        m(
            "kv-many-batch-seam",
            "KV-5",
            &[],
            "of each further batch of 128 the first key is answered by the one before it",
            |s| {
                s.many = Box::new(|place, keys| {
                    let mut values = place.read_many(keys);
                    for at in (128..values.len()).step_by(128) {
                        values[at] = values[at - 1].clone();
                    }
                    Ok(values)
                });
            },
        ),
        m(
            "kv-many-empty-refused",
            "KV-5",
            &[],
            "no keys are an error",
            |s| {
                s.many = Box::new(|place, keys| {
                    if keys.is_empty() {
                        return Err(invalid("no keys"));
                    }
                    Ok(place.read_many(keys))
                });
            },
        ),
        m(
            "kv-many-shows-expired",
            "KV-5",
            &["KV-3"],
            "`get_multi` does not look at the time to live",
            |s| {
                s.many = Box::new(|place, keys| {
                    let entries = lock(&place.entries);
                    Ok(keys
                        .iter()
                        .map(|key| entries.get(&**key).map(|entry| entry.value.clone()))
                        .collect())
                });
            },
        ),
        m(
            "kv-many-stale",
            "KV-5",
            &["KV-1", "KV-7"],
            "`get_multi` reads a copy that puts alone refresh, and deletes do not",
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    lock(&place.notes).insert(key.to_vec(), value.clone());
                    place.write(key, value, ttl);
                    Ok(())
                });
                s.many = Box::new(|place, keys| {
                    let copy = lock(&place.notes);
                    Ok(keys.iter().map(|key| copy.get(&**key).cloned()).collect())
                });
            },
        ),
    ]
}
