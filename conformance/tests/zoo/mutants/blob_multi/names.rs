//! Names and places.

use std::sync::Arc;

use larder_traits::{ErrorKind, Fault};

use super::m;
use crate::mutants::Mutant;
use crate::reference::blob_multi::invalid;
use crate::reference::lock;

/// A key step that refuses as the reference does, then rewrites.
macro_rules! rewritten {
    ($s:ident, |$key:ident| $body:expr) => {{
        let admit = std::mem::replace(&mut $s.key, Box::new(|_| Err(invalid("unreachable"))));
        $s.key = Box::new(move |key| {
            let $key = admit(key)?;
            Ok($body)
        });
    }};
}

pub(super) fn names() -> Vec<Mutant> {
    vec![
        m(
            "bm-key-leading-slash",
            "BM-10",
            &["BM-2"],
            "a slash at the beginning of a key is dropped",
            |s| {
                rewritten!(s, |key| key.trim_start_matches('/').to_owned());
            },
        ),
        m(
            "bm-key-double-slash",
            "BM-10",
            &["BM-2"],
            "doubled slashes are one",
            |s| {
                rewritten!(s, |key| key.replace("//", "/"));
            },
        ),
        m(
            "bm-key-dot-segments",
            "BM-10",
            &["BM-2"],
            "`a/../b` is `b`",
            |s| {
                rewritten!(s, |key| {
                    let mut levels = Vec::new();
                    for level in key.split('/') {
                        match level {
                            ".." if !levels.is_empty() => drop(levels.pop()),
                            level => levels.push(level),
                        }
                    }
                    levels.join("/")
                });
            },
        ),
        m(
            "bm-key-dot-refused",
            "BM-10",
            &[],
            "the keys `.` and `..` are refused",
            |s| {
                let admit =
                    std::mem::replace(&mut s.key, Box::new(|_| Err(invalid("unreachable"))));
                s.key = Box::new(move |key| match key {
                    "." | ".." => Err(invalid("not a file name")),
                    _ => admit(key),
                });
            },
        ),
        m(
            "bm-key-trailing-dot",
            "BM-10",
            &["BM-2"],
            "dots at the end of a key are dropped",
            |s| {
                rewritten!(s, |key| match key.trim_end_matches('.') {
                    "" => key,
                    trimmed => trimmed.to_owned(),
                });
            },
        ),
        m(
            "bm-key-case",
            "BM-10",
            &["BM-2", "BM-5"],
            "keys that differ in case only are one key",
            |s| {
                rewritten!(s, |key| key.to_lowercase());
            },
        ),
        m(
            "bm-key-percent",
            "BM-10",
            &["BM-2"],
            "`%2F` in a key is a slash",
            |s| {
                rewritten!(s, |key| key.replace("%2F", "/"));
            },
        ),
        m(
            "bm-key-plus",
            "BM-10",
            &["BM-2"],
            "a plus in a key is a space",
            |s| {
                rewritten!(s, |key| key.replace('+', " "));
            },
        ),
        // Seen in opendal, issue 7721: a backslash in a name is a separator.
        m(
            "bm-key-backslash",
            "BM-10",
            &["BM-2"],
            "a backslash in a key is a slash",
            |s| {
                rewritten!(s, |key| key.replace('\\', "/"));
            },
        ),
        m(
            "bm-key-nfc",
            "BM-10",
            &["BM-2"],
            "e with a combining accent is the letter with the accent",
            |s| {
                rewritten!(s, |key| key.replace("e\u{301}", "\u{e9}"));
            },
        ),
        m(
            "bm-key-query",
            "BM-10",
            &["BM-2"],
            "a key ends at its question mark",
            |s| {
                rewritten!(s, |key| match key.split_once('?') {
                    Some((path, _)) if !path.is_empty() => path.to_owned(),
                    _ => key,
                });
            },
        ),
        m(
            "bm-key-apostrophe-refused",
            "BM-10",
            &[],
            "an apostrophe in a key is an error of the query",
            |s| {
                rewritten!(s, |key| {
                    if key.contains('\'') {
                        return Err(Fault::not_applied(ErrorKind::Internal, "syntax error").into());
                    }
                    key
                });
            },
        ),
        m(
            "bm-key-empty-accepted",
            "BM-10",
            &["C-4"],
            "the empty key is a key",
            |s| {
                let admit =
                    std::mem::replace(&mut s.key, Box::new(|_| Err(invalid("unreachable"))));
                s.key = Box::new(move |key| {
                    if key.is_empty() {
                        Ok(String::new())
                    } else {
                        admit(key)
                    }
                });
            },
        ),
        m(
            "bm-key-empty-internal",
            "BM-10",
            &["C-1"],
            "the empty key is refused with the wrong kind",
            |s| {
                let admit =
                    std::mem::replace(&mut s.key, Box::new(|_| Err(invalid("unreachable"))));
                s.key = Box::new(move |key| {
                    if key.is_empty() {
                        return Err(
                            Fault::not_applied(ErrorKind::Internal, "is a directory").into()
                        );
                    }
                    admit(key)
                });
            },
        ),
        m(
            "bm-key-suffix-bound",
            "BM-10",
            &["C-4"],
            "keys above 251 bytes are refused, since the temporary's suffix has to fit as well",
            |s| {
                let admit =
                    std::mem::replace(&mut s.key, Box::new(|_| Err(invalid("unreachable"))));
                s.key = Box::new(move |key| {
                    if (252..=255).contains(&key.len()) {
                        return Err(invalid("the name is too long"));
                    }
                    admit(key)
                });
            },
        ),
        m(
            "bm-key-cut",
            "BM-10",
            &["BM-2", "C-4"],
            "a key is cut after 255 bytes",
            |s| {
                rewritten!(s, |key| key
                    .char_indices()
                    .take_while(|(at, _)| *at < 255)
                    .map(|(_, c)| c)
                    .collect());
            },
        ),
        m(
            "bm-places-joined",
            "BM-8",
            &["BM-2"],
            "place and key are joined by a slash, so that `p` and `p/1` share keys",
            |s| {
                let root = s.world.place("");
                let prefix = format!("{}/", s.place.name);
                let below = prefix.clone();
                s.list = Box::new(move |_| {
                    let inside = |key: &String| key.strip_prefix(&below).map(str::to_owned);
                    Ok(root.list()?.iter().filter_map(inside).collect())
                });
                s.place = s.world.place("");
                rewritten!(s, |key| format!("{prefix}{key}"));
            },
        ),
        m(
            "bm-places-listed-by-prefix",
            "BM-8",
            &["BM-2"],
            "the list of `p` shows the keys of `p1` as well",
            |s| {
                let world = Arc::clone(&s.world);
                s.list = Box::new(move |place| {
                    let places = lock(&world.places);
                    let mut keys = Vec::new();
                    for (name, other) in places.iter() {
                        if let Some(rest) = name.strip_prefix(&place.name) {
                            keys.extend(other.list()?.iter().map(|key| format!("{rest}{key}")));
                        }
                    }
                    Ok(keys)
                });
            },
        ),
        m(
            "bm-key-empty-absent",
            "BM-10",
            &["C-4"],
            "the empty key is refused by set, and reads as absent",
            |s| {
                s.get = Box::new(|place, key| {
                    if key.is_empty() {
                        Ok(None)
                    } else {
                        place.get(key)
                    }
                });
                let admit =
                    std::mem::replace(&mut s.key, Box::new(|_| Err(invalid("unreachable"))));
                s.key = Box::new(move |key| {
                    if key.is_empty() {
                        Ok(String::new())
                    } else {
                        admit(key)
                    }
                });
                s.set = Box::new(|place, key, value, _| {
                    if key.is_empty() {
                        Err(invalid("the empty key"))
                    } else {
                        place.set(key, value)
                    }
                });
            },
        ),
        m(
            "bm-key-glob",
            "BM-10",
            &["BM-2", "BM-5"],
            "a star in a key is dropped",
            |s| {
                rewritten!(s, |key| match key.replace('*', "") {
                    bare if bare.is_empty() => key,
                    bare => bare,
                });
            },
        ),
    ]
}
