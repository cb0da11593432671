//! From keys to names of S3 objects and back: reversible, and no two keys share a name.
//!
//! A name is the prefix of the place, the folder of the contract and the escaped key. What remains after escaping is
//! `A-Z a-z 0-9 - _ . * ' ( ) ! /` without empty segments and without `.` and `..`, so no client, proxy or server has
//! a reason to normalise it, and no listing in XML a character that it cannot hold. Folders start with `!`, which no
//! segment of a prefix does, so a place and one below it never meet (BM-8).

use larder_traits::{ErrorKind, Fault, ObjectId};

use crate::error::invalid;

/// The longest name that S3 accepts.
const NAME_LEN_BYTES_MAX: usize = 1024;

/// The longest prefix, which leaves room for every key of 255 bytes of the base alphabet.
const PREFIX_LEN_BYTES_MAX: usize = 256;

/// The longest key: whatever the prefix, every key of the base alphabet has a name up to this length.
pub(crate) const KEY_LEN_BYTES_MAX: usize = 320;

// `../` is what grows most, three bytes to seven, and an empty last segment to one more.
const _: () = assert!(KEY_LEN_BYTES_MAX * 7 / 3 + 2 <= ROOM_LEN_BYTES);

/// The longest text form of an object id: whatever the prefix, every one has a name up to this length.
pub(crate) const ID_LEN_BYTES_MAX: usize = 740;

// Two segments, and `..` grows by four bytes.
const _: () = assert!(ID_LEN_BYTES_MAX + 8 <= ROOM_LEN_BYTES);

/// What a prefix, its separator and a folder leave of a name.
const ROOM_LEN_BYTES: usize = NAME_LEN_BYTES_MAX - PREFIX_LEN_BYTES_MAX - 1 - FOLDER_LEN_BYTES_MAX;

/// The folders of a place; each contract has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    /// The values of `BlobMulti`.
    Blobs,
    /// The objects of `Backend`.
    Objects,
    /// The deadlines of objects of `Backend` that accesses have moved.
    Idle,
    /// The rows of `HighVolumeBackend`.
    Rows,
    /// What `open` writes to find out what the store can do.
    Probe,
}

impl Folder {
    const fn name(self) -> &'static str {
        match self {
            Self::Blobs => "!blobs/",
            Self::Objects => "!objects/",
            Self::Idle => "!idle/",
            Self::Rows => "!rows/",
            Self::Probe => "!probe/",
        }
    }
}

/// The longest folder name.
const FOLDER_LEN_BYTES_MAX: usize = "!objects/".len();

/// The names of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// Empty, or ends in `/`.
    prefix: String,
}

impl Names {
    /// The names below `prefix`, which may have `/` at either end and may be empty.
    pub(crate) fn new(prefix: &str) -> Result<Self, Fault> {
        let trimmed = prefix.strip_prefix('/').unwrap_or(prefix);
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        if trimmed.is_empty() && prefix.len() <= 1 {
            return Ok(Self {
                prefix: String::new(),
            });
        }
        let sound = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && !segment.starts_with('!')
                && segment.bytes().all(|byte| is_plain(byte) || byte == b'!')
        };
        if trimmed.len() > PREFIX_LEN_BYTES_MAX || !trimmed.split('/').all(sound) {
            return Err(invalid(
                "a prefix has segments of `A-Z a-z 0-9 - _ . * ' ( ) !`, none of which is empty, `.`, `..` or starts \
                 with `!`, and no more than 256 bytes",
            ));
        }
        Ok(Self {
            prefix: format!("{trimmed}/"),
        })
    }

    /// The start of every name in `folder`.
    pub(crate) fn folder(&self, folder: Folder) -> String {
        format!("{}{}", self.prefix, folder.name())
    }

    /// The name of a blob.
    pub(crate) fn blob(&self, key: &str) -> Result<String, Fault> {
        if key.is_empty() {
            return Err(invalid("the empty key"));
        }
        if key.len() > KEY_LEN_BYTES_MAX {
            let max = KEY_LEN_BYTES_MAX;
            let message = format!(
                "a key of {} bytes, and at most {max} are allowed",
                key.len()
            );
            return Err(Fault::not_applied(ErrorKind::InvalidInput, message));
        }
        let mut name = self.folder(Folder::Blobs);
        escape(key, &mut name);
        if name.len() > NAME_LEN_BYTES_MAX {
            return Err(invalid(
                "the key is longer than a name in S3 once it is escaped",
            ));
        }
        Ok(name)
    }

    /// The key that has this name among the blobs; `None` for names that [`Self::blob`] does not make.
    pub(crate) fn blob_key(&self, name: &str) -> Option<String> {
        let escaped = name.strip_prefix(&self.prefix)?;
        let escaped = escaped.strip_prefix(Folder::Blobs.name())?;
        let is_sound = |segment: &[u8]| {
            !matches!(segment, b"" | b"." | b"..") && segment.iter().all(|byte| is_plain(*byte))
        };
        // Nearly every key is written as it is.
        let mut segments = escaped.as_bytes().split(|byte| *byte == b'/');
        if escaped.len() <= KEY_LEN_BYTES_MAX && segments.all(is_sound) {
            return Some(escaped.to_owned());
        }
        let key = unescape(escaped)?;
        (self.blob(&key).ok()? == name).then_some(key)
    }

    /// What all names of blobs start with whose keys start with `prefix`, and maybe others do as well; `None` where
    /// `prefix` is longer than any key, so that there are no such names.
    pub(crate) fn blob_prefix(&self, prefix: &str) -> Option<String> {
        if prefix.len() > KEY_LEN_BYTES_MAX {
            return None;
        }
        let mut name = self.folder(Folder::Blobs);
        let (whole, last) = match prefix.rsplit_once('/') {
            Some((whole, last)) => (Some(whole), last),
            None => (None, prefix),
        };
        if let Some(whole) = whole {
            escape(whole, &mut name);
            name.push('/');
        }
        // A segment that is one of these alone is written differently from one that only starts so.
        if !matches!(last, "" | "." | "..") {
            escape_segment(last, &mut name);
        }
        (name.len() <= NAME_LEN_BYTES_MAX).then_some(name)
    }

    /// The name of an object or of a row.
    pub(crate) fn object(&self, folder: Folder, id: &ObjectId) -> Result<String, Fault> {
        let text = id.to_string();
        let max = ID_LEN_BYTES_MAX;
        if text.len() > max {
            let message = format!(
                "the text form of an object id has {} bytes, and at most {max} are allowed",
                text.len()
            );
            return Err(Fault::not_applied(ErrorKind::InvalidInput, message));
        }
        let mut name = self.folder(folder);
        for (at, segment) in text.split('/').enumerate() {
            if at > 0 {
                name.push('/');
            }
            match segment {
                "" | "." | ".." => escape_segment(segment, &mut name),
                // The text form is escaped already, with other characters than are safe here.
                _ => name.extend(segment.chars().map(|c| match c {
                    '%' => '!',
                    ';' => '*',
                    '=' => '\'',
                    c => c,
                })),
            }
        }
        Ok(name)
    }
}

/// Whether a byte stands for itself in a name.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*' | b'\'' | b'(' | b')')
}

/// Writes `key` segment by segment.
fn escape(key: &str, name: &mut String) {
    for (at, segment) in key.split('/').enumerate() {
        if at > 0 {
            name.push('/');
        }
        escape_segment(segment, name);
    }
}

/// `!` for an empty segment, `!!` for `!`, `!XX` for a byte that is not plain and for the dots of `.` and `..`.
fn escape_segment(segment: &str, name: &mut String) {
    let dots = matches!(segment, "." | "..");
    if segment.is_empty() {
        name.push('!');
    }
    for byte in segment.bytes() {
        match byte {
            b'!' => name.push_str("!!"),
            byte if is_plain(byte) && !dots => name.push(char::from(byte)),
            byte => {
                name.push('!');
                name.push(hex(byte >> 4));
                name.push(hex(byte & 15));
            }
        }
    }
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16)
        .expect("half a byte is a digit")
        .to_ascii_uppercase()
}

/// What may have been escaped to `name`; who needs to know that it was escapes it again.
fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    for (at, segment) in name.split('/').enumerate() {
        if at > 0 {
            bytes.push(b'/');
        }
        let mut rest = match segment {
            "!" => &[][..],
            segment => segment.as_bytes(),
        };
        while let [first, tail @ ..] = rest {
            rest = match (first, tail) {
                (b'!', [b'!', tail @ ..]) => {
                    bytes.push(b'!');
                    tail
                }
                (b'!', [high, low, tail @ ..]) => {
                    let digit = |byte: u8| char::from(byte).to_digit(16);
                    let byte = digit(*high)? * 16 + digit(*low)?;
                    bytes.push(u8::try_from(byte).ok()?);
                    tail
                }
                (b'!', _) => return None,
                (byte, tail) => {
                    bytes.push(*byte);
                    tail
                }
            };
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use larder_traits::{Classify, ObjectContext, Scope};
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        Names::new("p/1").unwrap()
    }

    /// Keys in which the special things come together often.
    fn keys() -> impl Strategy<Value = String> {
        let parts = prop::sample::select(vec![
            "/",
            ".",
            "..",
            "!",
            "!!",
            "2E",
            "a",
            "B",
            "%",
            "é",
            "e\u{301}",
            "\0",
            "\u{1}",
            " ",
            "*",
            "'",
            "(",
            ")",
            "_",
            "~",
            "\\",
            "\n",
            "\u{10FFFF}",
        ]);
        prop_oneof![
            prop::collection::vec(parts, 1..12).prop_map(|parts| parts.concat()),
            any::<String>().prop_filter("no key is empty", |key| !key.is_empty()),
        ]
    }

    fn is_sound(name: &str) -> bool {
        name.split('/')
            .all(|segment| !matches!(segment, "" | "." | ".."))
            && name
                .bytes()
                .all(|byte| is_plain(byte) || matches!(byte, b'!' | b'/'))
    }

    proptest! {
        #[test]
        fn a_name_is_read_back_as_its_key(key in keys()) {
            let names = names();
            match names.blob(&key) {
                Ok(name) => {
                    prop_assert!(is_sound(&name), "{name}");
                    prop_assert!(name.len() <= NAME_LEN_BYTES_MAX);
                    prop_assert_eq!(names.blob_key(&name), Some(key));
                }
                Err(e) => prop_assert_eq!(e.kind(), ErrorKind::InvalidInput),
            }
        }

        #[test]
        fn two_keys_have_two_names(a in keys(), b in keys()) {
            let names = names();
            if let (Ok(one), Ok(other)) = (names.blob(&a), names.blob(&b)) {
                prop_assert_eq!(a == b, one == other);
            }
        }

        #[test]
        fn whatever_starts_with_a_prefix_has_a_name_that_does(prefix in keys(), rest in keys()) {
            let names = names();
            let starts = |name: &str| {
                let start = names.blob_prefix(&prefix);
                start.is_some_and(|start| name.starts_with(&start) && start.len() <= NAME_LEN_BYTES_MAX)
            };
            if let Ok(name) = names.blob(&format!("{prefix}{rest}")) {
                prop_assert!(starts(&name));
            }
            if let Ok(name) = names.blob(&prefix) {
                prop_assert!(starts(&name));
            }
        }

        #[test]
        fn a_name_that_means_a_key_is_its_only_name(name in "[!./a-c2EF0-]{1,12}") {
            let names = names();
            let name = format!("{}{name}", names.folder(Folder::Blobs));
            if let Some(key) = names.blob_key(&name) {
                prop_assert_eq!(names.blob(&key).unwrap(), name);
            }
        }

        #[test]
        fn two_ids_have_two_names(a in ids(), b in ids()) {
            let names = names();
            let one = names.object(Folder::Objects, &a);
            let other = names.object(Folder::Objects, &b);
            if let (Ok(one), Ok(other)) = (one, other) {
                prop_assert!(is_sound(&one), "{one}");
                prop_assert!(one.len() <= NAME_LEN_BYTES_MAX);
                prop_assert_eq!(a == b, one == other);
            }
        }
    }

    fn ids() -> impl Strategy<Value = ObjectId> {
        let part = || {
            prop_oneof![
                prop::sample::select(vec!["", ".", "..", "a", ";", "=", "a/b", "%2F", "!"])
                    .prop_map(str::to_owned),
                any::<String>(),
            ]
        };
        let scope = (part(), part()).prop_map(|(name, value)| Scope::new(name, value));
        (part(), prop::collection::vec(scope, 0..3), part())
            .prop_map(|(case, scopes, key)| ObjectId::new(ObjectContext::new(case, scopes), key))
    }

    #[test]
    fn names_are_pinned() {
        let names = names();
        let pinned = [
            ("a", "p/1/!blobs/a"),
            ("a/b", "p/1/!blobs/a/b"),
            ("/", "p/1/!blobs/!/!"),
            ("a//b/", "p/1/!blobs/a/!/b/!"),
            ("..", "p/1/!blobs/!2E!2E"),
            ("./..a/...", "p/1/!blobs/!2E/..a/..."),
            ("!a", "p/1/!blobs/!!a"),
            ("a b%", "p/1/!blobs/a!20b!25"),
            ("\u{e9}", "p/1/!blobs/!C3!A9"),
        ];
        for (key, name) in pinned {
            assert_eq!(names.blob(key).unwrap(), name);
        }
        let id: ObjectId = "a;org=17%2F/..".parse().unwrap();
        let name = names.object(Folder::Rows, &id).unwrap();
        assert_eq!(name, "p/1/!rows/a*org'17!2F/!2E!2E");
    }

    #[test]
    fn every_base_key_up_to_the_declared_length_has_a_name() {
        for prefix in ["", "p", &"x".repeat(PREFIX_LEN_BYTES_MAX)] {
            let names = Names::new(prefix).unwrap();
            let max = KEY_LEN_BYTES_MAX;
            for part in ["../", "./", "/", "!", "a", "..", "'"] {
                let key: String = part.chars().cycle().take(max).collect();
                let name = names.blob(&key).unwrap();
                assert_eq!(names.blob_key(&name), Some(key));
            }
            let over = names.blob(&"a".repeat(max + 1)).unwrap_err();
            assert_eq!(over.kind(), ErrorKind::InvalidInput);
            assert!(names.blob("").is_err());
        }
    }

    #[test]
    fn what_no_key_can_start_with_is_not_asked_for() {
        let names = Names::new(&"x".repeat(PREFIX_LEN_BYTES_MAX)).unwrap();
        for (prefix, asked) in [
            ("", true),
            ("a".repeat(KEY_LEN_BYTES_MAX).as_str(), true),
            ("a".repeat(KEY_LEN_BYTES_MAX + 1).as_str(), false),
            // Short enough, and too long once it is escaped.
            ("\u{10FFFF}".repeat(80).as_str(), false),
        ] {
            assert_eq!(names.blob_prefix(prefix).is_some(), asked, "{prefix}");
        }
    }

    #[test]
    fn a_prefix_is_sound_or_refused() {
        for prefix in ["", "/", "p", "p/", "/p/1", "A-z_0.9'(*)", "p!"] {
            Names::new(prefix).unwrap();
        }
        for prefix in [
            "//", "p//1", ".", "p/..", "!p", "p/!blobs", "a b", "%", "é", "p//",
        ] {
            assert!(Names::new(prefix).is_err(), "{prefix:?}");
        }
        assert!(Names::new(&"x".repeat(PREFIX_LEN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn places_in_one_bucket_share_no_name() {
        let mut all = BTreeSet::new();
        for place in ["", "p", "p1", "p/1", "p/1/x"] {
            let names = Names::new(place).unwrap();
            for key in ["x", "1/x", "/x", "p/1/x", "!blobs/x", "1/!blobs/x"] {
                assert!(all.insert(names.blob(key).unwrap()));
            }
        }
    }
}
