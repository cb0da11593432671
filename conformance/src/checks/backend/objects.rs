//! Names, metadata and payloads for the checks of both contracts of objects.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_traits::{
    Caps, Compression, ExpirationPolicy, Metadata, ObjectContext, ObjectId, Scope,
};

use crate::profile::Profile;

/// An ordinary id.
pub(in crate::checks) fn name(key: &str) -> ObjectId {
    id("attachments", &[("org", "17")], key)
}

pub(in crate::checks) fn id(use_case: &str, scopes: &[(&str, &str)], key: &str) -> ObjectId {
    let scopes = scopes.iter().map(|(n, v)| Scope::new(*n, *v)).collect();
    ObjectId::new(ObjectContext::new(use_case, scopes), key)
}

/// A time that no clock of these checks comes near, in whole milliseconds: the year 2300, which neither seconds in 32
/// bits nor nanoseconds in 64 can tell.
pub(in crate::checks) fn far() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(10_413_792_000)
}

/// The longest payload that is both allowed and within what the profile writes.
pub(in crate::checks) fn len_max(caps: &Caps, profile: Profile) -> usize {
    let declared = usize::try_from(caps.high_volume.payload_len_bytes_max).unwrap_or(usize::MAX);
    declared.min(profile.value_len_bytes_max())
}

/// An id whose text form has exactly so many bytes; if `escaped`, nearly all of them stand for characters that the
/// text form escapes with three bytes each.
pub(in crate::checks) fn id_of_len(len: usize, escaped: bool) -> ObjectId {
    let room = len.saturating_sub(2);
    let key = if escaped {
        "/".repeat(room / 3) + &"k".repeat(room % 3)
    } else {
        "k".repeat(room)
    };
    id("c", &[], &key)
}

/// `payload` in pieces of `len` bytes, an empty piece between each two of them if `gaps`.
pub(in crate::checks) fn chunks(payload: &Bytes, len: usize, gaps: bool) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    if gaps {
        chunks.push(Bytes::new());
    }
    for start in (0..payload.len()).step_by(len.max(1)) {
        chunks.push(payload.slice(start..payload.len().min(start + len)));
        if gaps {
            chunks.push(Bytes::new());
        }
    }
    chunks
}

/// Metadata in which each field takes its turn at being full, empty, missing and odd. All times are given, in whole
/// milliseconds, so that what comes back must be equal but for the size.
pub(in crate::checks) fn metadata_ladder() -> Vec<Metadata> {
    let at = |millis| Some(far() - Duration::from_millis(millis));
    let text = |text: &str| Some(text.to_owned());
    let mut bare = Metadata::new();
    bare.time_created = at(1);

    let mut full = Metadata::with_policy(ExpirationPolicy::TimeToLive(Duration::from_secs(90)));
    full.time_created = at(999_999_999_999);
    full.time_expires = at(0);
    full.content_type = text("text/html; charset=\"utf-8\"");
    full.compression = Some(Compression::Zstd);
    full.origin = text("203.0.113.7");
    full.filename = text("report (final).html");
    full.size = Some(5);
    full.custom.insert("build".into(), "1234".into());
    full.custom.insert("Build".into(), "other".into());

    let mut empty =
        Metadata::with_policy(ExpirationPolicy::TimeToIdle(Duration::from_millis(1_500)));
    empty.time_created = Some(SystemTime::UNIX_EPOCH);
    empty.time_expires = at(12_345);
    (empty.content_type, empty.origin, empty.filename) = (text(""), text(""), text(""));
    empty.compression = Some(Compression::Gzip);
    empty.size = Some(0);
    empty.custom.insert(String::new(), String::new());
    empty.custom.insert("k".into(), String::new());

    let mut odd = Metadata::new();
    odd.time_created = at(86_400_000 * 365 * 60);
    odd.content_type = text(" leading and trailing ");
    odd.compression = Some(Compression::Lz4);
    odd.origin = text("a\0b\r\nc\t\"quoted\" \\ %00 = ; &");
    odd.filename = text("Zo\u{e8}/Zoe\u{300} \u{1f4be} \u{202e}.txt");
    odd.size = Some(u64::MAX);
    // Those of the fields, as they are called here and as others call them, among them.
    for key in [
        "content_type",
        "content-type",
        "Content-Type",
        "size",
        "content-length",
        "origin",
        "filename",
        "compression",
        "content-encoding",
        "expiration_policy",
        "time_created",
        "time_expires",
        "expires",
        "custom",
        "\u{fc}\u{1f4be}",
        "a=b;c",
        "x-larder-size",
    ] {
        odd.custom.insert(key.into(), format!("\u{fc} of {key}"));
    }

    let mut many = Metadata::new();
    many.time_created = at(77);
    for n in 0..60 {
        many.custom
            .insert(format!("key-{n:02}"), format!("value {n}"));
    }

    // What some take for the sign of an encoding, and bring back as something else.
    let mut spelled = Metadata::new();
    spelled.time_created = at(78);
    spelled.content_type = text("Text/Plain; Charset=UTF-8; q=\"a;b\"");
    spelled.origin = text("https://example.org/a%2Fb%20c?d=%25&e=+#f, g");
    spelled.filename = text("a\"b\"/../c%20d\\e.tar.gz");
    for (at, value) in [
        "=?UTF-8?Q?a_b=20c?=",
        "=?utf-8?B?YQ==?=",
        "a%20b%2Fc%25d%C3%A8",
        "a+b",
        "a\tb\nc\r\nd\r\n e",
        "  two  blanks  ",
        "a, b,c",
        "\"quoted\"",
        "&amp;&#232;<b>",
        "\\u00e8\\n",
        "null",
        "007",
        "utf-8''a%20b",
        "a\u{0}b",
    ]
    .into_iter()
    .enumerate()
    {
        spelled.custom.insert(format!("s{at}"), value.into());
    }
    for key in ["a_b", "a-b", "a%5Fb", "a b", "A-B"] {
        spelled.custom.insert(key.into(), format!("of {key}"));
    }
    vec![bare, full, empty, odd, many, spelled]
}

/// Metadata with more in it than headers and rows of some stores have room for, from one entry to many.
pub(in crate::checks) fn roomy_metadata() -> Vec<Metadata> {
    let mut all = Vec::new();
    for (count, len) in [(1, 1_500), (1, 3_000), (30, 100), (3, 3_000), (200, 40)] {
        let mut metadata = Metadata::new();
        metadata.time_created = Some(far());
        for n in 0..count {
            let value = format!("{n} ").repeat(len).chars().take(len).collect();
            metadata.custom.insert(format!("key-{n:03}"), value);
        }
        all.push(metadata);
    }
    let mut named = Metadata::new();
    named.time_created = Some(far());
    named.filename = Some("long name ".repeat(40));
    all.push(named);
    all
}

/// Ids of which each two differ, most of them barely: parts that shift into each other, prefixes, separators, case,
/// forms of one letter, escapes. Those above the declared bound are left out.
pub(in crate::checks) fn alike_ids(caps: &Caps) -> Vec<ObjectId> {
    let long = "x".repeat(150);
    let mut ids = vec![
        id("", &[], ""),
        id("", &[], "a"),
        id("a", &[], ""),
        id("a", &[], "b"),
        id("a", &[], "b/"),
        id("a", &[], "/b"),
        id("a", &[], "b/c"),
        id("a/b", &[], "c"),
        id("a", &[("b", "c")], ""),
        id("a", &[("b", "c")], "d"),
        id("a", &[("b", "c")], "dd"),
        id("a", &[("b", "c/d")], ""),
        id("a", &[("b", "")], "c/d"),
        id("a", &[("", "b=c")], "d"),
        id("a", &[("b=c", "")], "d"),
        id("a", &[("bc", "")], "d"),
        id("a", &[("", "bc")], "d"),
        id("a;b=c", &[], "d"),
        id("a", &[("b", "c"), ("d", "e")], "f"),
        id("a", &[("d", "e"), ("b", "c")], "f"),
        id("a", &[("b", "c;d=e")], "f"),
        id("a", &[("b", "c"), ("d", "e"), ("", "")], "f"),
        id("a", &[("b", "c"), ("b", "c")], "f"),
        id("a", &[("b", "c")], "f"),
        id("k", &[], "1"),
        id("k", &[], "10"),
        id("k1", &[], "0"),
        id("k", &[], "K"),
        id("K", &[], "k"),
        id("k", &[], "k"),
        id("n", &[], "\u{e8}"),
        id("n", &[], "e\u{300}"),
        id("n", &[], "%C3%A8"),
        id("n", &[], " "),
        id("n", &[], "%20"),
        id("n", &[], "+"),
        id("n", &[], "\0"),
        id("n", &[], "\n"),
        id("n", &[], "\u{1f4be}"),
        id("n", &[], "."),
        id("n", &[], ".."),
        id("n", &[], "../n/b"),
        id("n", &[], "_"),
        id("n", &[], "%"),
        id("n", &[], "*"),
        id("n", &[], "\\"),
        id("n", &[], "b."),
        id("n", &[], "b"),
        id("n", &[], &format!("{long}1")),
        id("n", &[], &format!("{long}2")),
        id("n", &[], &format!("{long}12")),
        id("n", &[], &format!("{}1", "y".repeat(380))),
        id("n", &[], &format!("{}2", "y".repeat(380))),
        // Two that the usual hash of strings does not tell apart.
        id("n", &[], "Aa"),
        id("n", &[], "BB"),
        id(&long, &[(&long, "v")], "1"),
        id(&long, &[(&long, "v")], "2"),
    ];
    ids.retain(|id| id.to_string().len() <= caps.high_volume.id_len_bytes_max);
    ids
}
