//! Broken `BlobMulti`s.

use bytes::Bytes;
use larder_conformance::{Caps, Contract};
use larder_traits::BlobInfo;
use larder_traits::blob_multi::slice_of;

use super::Mutant;
use crate::reference::blob_multi::{Bend, CAPS, invalid, suite};
use crate::reference::lock;

mod bystanders;
mod combined;
mod concurrent;
mod dropped;
mod failing;
mod field;
mod handles;
mod names;
mod neighbours;
mod seldom;
mod writes;

pub(crate) fn all() -> Vec<Mutant> {
    [
        values(),
        listing(),
        writes::writes(),
        names::names(),
        handles::handles(),
        writes::bounds(),
        handles::deadlines(),
        concurrent::concurrent(),
        dropped::dropped(),
        bystanders::bystanders(),
        failing::failing(),
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
    with_caps(CAPS, id, breaks, also, about, bend)
}

fn with_caps(
    caps: Caps,
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    Mutant {
        id,
        contract: Contract::BlobMulti,
        breaks,
        also,
        about,
        awaits: None,
        hangs: false,
        panics: false,
        suite: Box::new(move || suite(caps, bend)),
    }
}

/// The first `len` bytes of `value`, or all of it.
fn cut(value: &Bytes, len: usize) -> Bytes {
    value.slice(..len.min(value.len()))
}

fn len_u64(value: &Bytes) -> u64 {
    u64::try_from(value.len()).expect("a length in memory fits 64 bits")
}

fn values() -> Vec<Mutant> {
    vec![
        m(
            "bm-absent-as-empty",
            "BM-1",
            &["BM-5"],
            "an absent key reads as an empty value",
            |s| {
                s.get = Box::new(|place, key| Ok(Some(place.get(key)?.unwrap_or_default())));
            },
        ),
        m(
            "bm-empty-as-absent",
            "BM-1",
            &["BM-3", "BM-11"],
            "an empty value reads as absent",
            |s| {
                s.get =
                    Box::new(|place, key| Ok(place.get(key)?.filter(|value| !value.is_empty())));
            },
        ),
        m(
            "bm-c-string",
            "BM-1",
            &["BM-3", "BM-11"],
            "a value ends at its first NUL",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    let end = value.iter().position(|&byte| byte == 0);
                    place.set(key, cut(&value, end.unwrap_or(value.len())))
                });
            },
        ),
        m(
            "bm-text-mode",
            "BM-1",
            &["BM-3", "BM-11"],
            "CR LF is read back as LF",
            |s| {
                s.get = Box::new(|place, key| {
                    let Some(value) = place.get(key)? else {
                        return Ok(None);
                    };
                    let mut text = Vec::with_capacity(value.len());
                    for (at, &byte) in value.iter().enumerate() {
                        if byte != b'\r' || value.get(at + 1) != Some(&b'\n') {
                            text.push(byte);
                        }
                    }
                    Ok(Some(text.into()))
                });
            },
        ),
        m(
            "bm-cut-at-part",
            "BM-1",
            &["BM-3", "BM-11", "C-4"],
            "of a value above 8 MiB only the first part is kept",
            |s| {
                s.set = Box::new(|place, key, value, _| place.set(key, cut(&value, 8 << 20)));
            },
        ),
        m(
            "bm-cut-at-buffer",
            "BM-1",
            &["BM-3", "BM-11"],
            "what follows the last full 64 KiB is lost from long values",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    let whole = value.len() - value.len() % (64 << 10);
                    let len = if value.len() > 64 << 10 {
                        whole
                    } else {
                        value.len()
                    };
                    place.set(key, cut(&value, len))
                });
            },
        ),
        m(
            "bm-lost-full-page",
            "BM-1",
            &["BM-3", "BM-11"],
            "a value of exactly 4,096 bytes comes back empty",
            |s| {
                s.get = Box::new(|place, key| {
                    Ok(place.get(key)?.map(|value| {
                        cut(&value, if value.len() == 4096 { 0 } else { value.len() })
                    }))
                });
            },
        ),
        m(
            "bm-range-end-inclusive",
            "BM-1",
            &[],
            "a range read includes its end",
            |s| {
                s.range = Box::new(|place, key, range| {
                    let range = range.start..range.end.saturating_add(1);
                    Ok(place.get(key)?.map(|value| slice_of(&value, range)))
                });
            },
        ),
        m(
            "bm-range-past-end-absent",
            "BM-1",
            &[],
            "a range that starts past the end reads as an absent key",
            |s| {
                s.range = Box::new(|place, key, range| {
                    let value = place
                        .get(key)?
                        .filter(|value| range.start <= len_u64(value));
                    Ok(value.map(|value| slice_of(&value, range)))
                });
            },
        ),
        m(
            "bm-range-absent-as-empty",
            "BM-1",
            &[],
            "a range of an absent key reads as no bytes",
            |s| {
                s.range = Box::new(|place, key, range| {
                    Ok(Some(slice_of(&place.get(key)?.unwrap_or_default(), range)))
                });
            },
        ),
        m(
            "bm-zero-copy-stale",
            "BM-1",
            &["BM-3", "BM-6"],
            "the zero-copy get keeps answering with the first value",
            |s| {
                s.bytes = Some(Box::new(|place, key| {
                    let Some(value) = place.get(key)? else {
                        return Ok(None);
                    };
                    Ok(Some(
                        lock(&place.notes)
                            .entry(key.to_owned())
                            .or_insert(value)
                            .clone(),
                    ))
                }));
            },
        ),
        m(
            "bm-folder-as-empty",
            "BM-1",
            &["BM-5"],
            "a name below which there are keys reads as an empty value",
            |s| {
                s.get = Box::new(|place, key| {
                    let below = format!("{key}/");
                    let folder = place.list()?.iter().any(|other| other.starts_with(&below));
                    Ok(place.get(key)?.or(folder.then(Bytes::new)))
                });
            },
        ),
        m(
            "bm-range-reversed-fails",
            "BM-1",
            &["C-3"],
            "a range that ends before it starts is an error",
            |s| {
                s.range = Box::new(|place, key, range| {
                    if range.end < range.start {
                        return Err(invalid("a reversed range"));
                    }
                    Ok(place.get(key)?.map(|value| slice_of(&value, range)))
                });
            },
        ),
        m(
            "bm-range-u32",
            "BM-1",
            &[],
            "the ends of a range are cut to 32 bits",
            |s| {
                s.range = Box::new(|place, key, range| {
                    let cut = |at: u64| at & 0xffff_ffff;
                    let range = cut(range.start)..cut(range.end);
                    Ok(place.get(key)?.map(|value| slice_of(&value, range)))
                });
            },
        ),
    ]
}

fn listing() -> Vec<Mutant> {
    vec![
        m(
            "bm-list-ghost",
            "BM-2",
            &["BM-5", "BM-6"],
            "deleted keys are still listed",
            |s| {
                s.delete = Box::new(|place, key| {
                    if place.get(key)?.is_some() {
                        lock(&place.notes).insert(key.to_owned(), Bytes::new());
                    }
                    place.delete(key)
                });
                s.list = Box::new(|place| {
                    let mut keys = place.list()?;
                    keys.extend(lock(&place.notes).keys().cloned());
                    keys.sort();
                    keys.dedup();
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-list-one-page",
            "BM-2",
            &[],
            "only the first thousand keys are listed",
            |s| {
                s.list = Box::new(|place| {
                    let mut keys = place.list()?;
                    keys.truncate(1000);
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-list-page-seam",
            "BM-2",
            &[],
            "the last key of each full page is listed on the next one too",
            |s| {
                s.list = Box::new(|place| {
                    let keys = place.list()?;
                    let pages: Vec<_> = keys.chunks(1000).collect();
                    let mut listed = Vec::new();
                    for (at, page) in pages.iter().enumerate() {
                        listed.extend(
                            at.checked_sub(1)
                                .and_then(|before| pages[before].last())
                                .cloned(),
                        );
                        listed.extend(page.iter().cloned());
                    }
                    Ok(listed)
                });
            },
        ),
        m(
            "bm-list-full-last-page",
            "BM-2",
            &[],
            "a last page that is exactly full is taken for the sign of an error and dropped",
            |s| {
                s.list = Box::new(|place| {
                    let mut keys = place.list()?;
                    if !keys.is_empty() && keys.len() % 1000 == 0 {
                        keys.truncate(keys.len() - 1000);
                    }
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-list-delimiter",
            "BM-2",
            &["BM-10"],
            "keys below a slash are listed as one folder",
            |s| {
                s.list = Box::new(|place| {
                    let fold = |key: String| match key.split_once('/') {
                        Some((folder, _)) => format!("{folder}/"),
                        None => key,
                    };
                    let mut keys: Vec<_> = place.list()?.into_iter().map(fold).collect();
                    keys.dedup();
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-list-trailing-slash",
            "BM-2",
            &["BM-10"],
            "a slash at the end of a key is not listed",
            |s| {
                s.list = Box::new(|place| {
                    Ok(place
                        .list()?
                        .iter()
                        .map(|key| key.trim_end_matches('/').to_owned())
                        .collect())
                });
            },
        ),
        m(
            "bm-list-temporary",
            "BM-2",
            &[],
            "a set that replaces a value leaves its temporary in the list",
            |s| {
                s.set = Box::new(|place, key, value, _| {
                    if place.get(key)?.is_some() {
                        lock(&place.notes).insert(format!("{key}.tmp"), Bytes::new());
                    }
                    place.set(key, value)
                });
                s.list = Box::new(|place| {
                    let mut keys = place.list()?;
                    keys.extend(lock(&place.notes).keys().cloned());
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-list-lock-file",
            "BM-2",
            &[],
            "the place's lock file is listed as a key",
            |s| {
                s.list = Box::new(|place| {
                    let mut keys = place.list()?;
                    keys.push("LOCK".to_owned());
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-list-omits-empty",
            "BM-2",
            &[],
            "keys with empty values are not listed",
            |s| {
                s.list = Box::new(|place| {
                    let blobs = lock(&place.blobs);
                    let full = |key: &&str| blobs.get(key).is_some_and(|value| !value.is_empty());
                    Ok(blobs.keys().filter(full).map(str::to_owned).collect())
                });
            },
        ),
        m(
            "bm-prefix-stale-size",
            "BM-2",
            &[],
            "the prefix list shows the length that a key had first",
            |s| {
                s.prefix = Box::new(|place, prefix| {
                    let blobs = lock(&place.blobs);
                    let mut sizes = lock(&place.notes);
                    let mut found = blobs.list_prefix(prefix);
                    for info in &mut found {
                        let value = blobs.get(&info.key).cloned().unwrap_or_default();
                        info.len_bytes = len_u64(sizes.entry(info.key.clone()).or_insert(value));
                    }
                    Ok(found)
                });
            },
        ),
        m(
            "bm-prefix-as-folder",
            "BM-2",
            &[],
            "a prefix matches whole levels of a path only",
            |s| {
                s.prefix = Box::new(|place, prefix| {
                    let folder = format!("{}/", prefix.trim_end_matches('/'));
                    let inside = |info: &BlobInfo| {
                        prefix.is_empty() || info.key == prefix || info.key.starts_with(&folder)
                    };
                    Ok(lock(&place.blobs)
                        .list_prefix(prefix)
                        .into_iter()
                        .filter(inside)
                        .collect())
                });
            },
        ),
        m(
            "bm-prefix-excludes-itself",
            "BM-2",
            &[],
            "the key that equals the prefix is missing from the prefix list",
            |s| {
                s.prefix = Box::new(|place, prefix| {
                    let mut found = lock(&place.blobs).list_prefix(prefix);
                    found.retain(|info| info.key != prefix);
                    Ok(found)
                });
            },
        ),
        m(
            "bm-prefix-any-character",
            "BM-2",
            &["BM-10"],
            "an underscore in a prefix stands for any character",
            |s| {
                s.prefix = Box::new(|place, prefix| {
                    let like = |key: &str| {
                        let mut key = key.chars();
                        prefix
                            .chars()
                            .all(|p| key.next().is_some_and(|k| p == '_' || p == k))
                    };
                    let all = lock(&place.blobs).list_prefix("");
                    Ok(all.into_iter().filter(|info| like(&info.key)).collect())
                });
            },
        ),
        m(
            "bm-prefix-empty-none",
            "BM-2",
            &[],
            "the empty prefix matches nothing",
            |s| {
                s.prefix = Box::new(|place, prefix| {
                    if prefix.is_empty() {
                        return Ok(Vec::new());
                    }
                    Ok(lock(&place.blobs).list_prefix(prefix))
                });
            },
        ),
        m(
            "bm-prefix-case",
            "BM-2",
            &["BM-10"],
            "a prefix matches in either case",
            |s| {
                s.prefix = Box::new(|place, prefix| {
                    let prefix = prefix.to_ascii_lowercase();
                    let all = lock(&place.blobs).list_prefix("");
                    let matches =
                        |info: &BlobInfo| info.key.to_ascii_lowercase().starts_with(&prefix);
                    Ok(all.into_iter().filter(matches).collect())
                });
            },
        ),
    ]
}
