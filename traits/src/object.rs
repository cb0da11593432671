//! The vocabulary of [`Backend`](crate::Backend) and [`HighVolumeBackend`](crate::HighVolumeBackend): names of
//! objects, what is known of them, and the one place where expiry is computed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Fault};

/// One level of an object's [context](ObjectContext): what it is called and which one it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Scope {
    /// The kind of level, such as `org`.
    pub name: String,
    /// The one that is meant, such as `17`.
    pub value: String,
}

impl Scope {
    /// A level and its value; both may be any text.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}

/// Whom an object belongs to: a use case and an ordered list of scopes beneath it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObjectContext {
    /// What the objects are for, such as `attachments`.
    pub use_case: String,
    /// From the widest scope to the narrowest. Order matters.
    pub scopes: Vec<Scope>,
}

impl ObjectContext {
    /// A use case and its scopes.
    #[must_use]
    pub fn new(use_case: impl Into<String>, scopes: Vec<Scope>) -> Self {
        Self {
            use_case: use_case.into(),
            scopes,
        }
    }
}

/// The name of an object: a context and a key in it.
///
/// Every part may be any text, also none. Ids whose parts shift into each other or are prefixes of each other are
/// different objects (HV-9). The text form keeps them apart: it is reversible, and two ids never share one.
///
/// ```
/// use larder_traits::{ObjectContext, ObjectId, Scope};
///
/// let id = ObjectId::new(ObjectContext::new("attachments", vec![Scope::new("org", "a/b")]), "screen shot");
/// assert_eq!(id.to_string(), "attachments;org=a%2Fb/screen%20shot");
/// assert_eq!("attachments;org=a%2Fb/screen%20shot".parse::<ObjectId>().unwrap(), id);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObjectId {
    /// Whom the object belongs to.
    pub context: ObjectContext,
    /// Its key there.
    pub key: String,
}

impl ObjectId {
    /// The object `key` in `context`.
    #[must_use]
    pub fn new(context: ObjectContext, key: impl Into<String>) -> Self {
        Self {
            context,
            key: key.into(),
        }
    }
}

/// Writes `part` with everything escaped that could be taken for a separator or that a medium might not keep.
fn escape(part: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            write!(f, "{}", char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

/// The inverse of [`escape`]; `None` for any text that `escape` does not write.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let byte = hex(*high)? * 16 + hex(*low)?;
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
                    return None;
                }
                bytes.push(byte);
                rest = tail;
            }
            (b'-' | b'_' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z', tail) => {
                bytes.push(*first);
                rest = tail;
            }
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.context.use_case, f)?;
        for scope in &self.context.scopes {
            f.write_str(";")?;
            escape(&scope.name, f)?;
            f.write_str("=")?;
            escape(&scope.value, f)?;
        }
        f.write_str("/")?;
        escape(&self.key, f)
    }
}

impl FromStr for ObjectId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        parse(text).ok_or_else(|| {
            Fault::not_applied(
                ErrorKind::InvalidInput,
                "the text is not the text form of an object id",
            )
        })
    }
}

fn parse(text: &str) -> Option<ObjectId> {
    let (context, key) = text.split_once('/')?;
    let mut levels = context.split(';');
    let use_case = unescape(levels.next()?)?;
    let scopes = levels
        .map(|level| {
            let (name, value) = level.split_once('=')?;
            Some(Scope::new(unescape(name)?, unescape(value)?))
        })
        .collect::<Option<Vec<_>>>()?;
    Some(ObjectId::new(
        ObjectContext::new(use_case, scopes),
        unescape(key)?,
    ))
}

/// When an object ceases to be there by itself (HV-8).
#[expect(
    clippy::exhaustive_enums,
    reason = "a backend that did not know a policy would keep what it must not, or lose what it must keep"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExpirationPolicy {
    /// Never.
    #[default]
    Manual,
    /// So long after it was written.
    TimeToLive(Duration),
    /// So long after it was last read or written.
    TimeToIdle(Duration),
}

/// How the payload was compressed by whoever wrote it. A label: no backend packs or unpacks anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Compression {
    /// Zstandard, RFC 8878.
    Zstd,
    /// gzip, RFC 1952.
    Gzip,
    /// LZ4 frames.
    Lz4,
}

/// What is known of an object beside its payload. It round-trips with all its fields (HV-9).
///
/// Times are kept to whole milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Metadata {
    /// When the object ceases to be there.
    pub expiration_policy: ExpirationPolicy,
    /// When it was written. Where a put leaves this out, the backend fills in its clock's time.
    pub time_created: Option<SystemTime>,
    /// The deadline: from this moment on the object is gone. Where a put leaves this out, the backend computes it from
    /// the policy; a deadline that is given is kept.
    pub time_expires: Option<SystemTime>,
    /// The media type of the payload.
    pub content_type: Option<String>,
    /// How the payload is compressed.
    pub compression: Option<Compression>,
    /// Where the object came from, such as an address.
    pub origin: Option<String>,
    /// The name that the payload had as a file.
    pub filename: Option<String>,
    /// The length of the payload in bytes. Whatever a put says here, the backend stores the truth.
    pub size: Option<u64>,
    /// Anything else.
    pub custom: BTreeMap<String, String>,
}

/// The longest that a `TimeToIdle` deadline may lag behind the accesses (HV-8).
const DEBOUNCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Metadata {
    /// Nothing known, kept for ever.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing known but when the object ceases to be there.
    #[must_use]
    pub fn with_policy(expiration_policy: ExpirationPolicy) -> Self {
        Self {
            expiration_policy,
            ..Self::default()
        }
    }

    /// What a backend stores for a put of `size` payload bytes at `now`: times filled in and cut to milliseconds, and
    /// the true size. Every backend calls this, so that the rule exists once.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a policy that ends beyond what `SystemTime` can hold, a deadline under `Manual`, and a time
    /// before 1970.
    pub fn stamped(&self, now: SystemTime, size: u64) -> Result<Self, Fault> {
        let created = to_millis(self.time_created.unwrap_or(now))?;
        let expires = deadline(self.expiration_policy, self.time_expires, now)?;
        Ok(Self {
            time_created: Some(created),
            time_expires: expires,
            size: Some(size),
            ..self.clone()
        })
    }

    /// Whether the object is gone at `now`: its deadline has come (HV-8).
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.time_expires.is_some_and(|at| at <= now)
    }

    /// The deadline that an access at `now` asks for, where it asks for another one: `TimeToIdle` only, never
    /// earlier than the present one, and no more than once in a quarter of the idle time or a day (HV-8).
    #[must_use]
    pub fn deadline_after_access(&self, now: SystemTime) -> Option<SystemTime> {
        let ExpirationPolicy::TimeToIdle(idle) = self.expiration_policy else {
            return None;
        };
        let present = self.time_expires?;
        if present <= now {
            return None;
        }
        let wanted = to_millis(now.checked_add(idle)?).ok()?;
        let gain = wanted.duration_since(present).ok()?;
        (!gain.is_zero() && gain >= (idle / 4).min(DEBOUNCE_MAX)).then_some(wanted)
    }
}

/// A redirect: the object of this name lies in another place, under `target`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tombstone {
    /// The name of the payload there.
    pub target: ObjectId,
    /// When the redirect ceases to be there.
    pub expiration_policy: ExpirationPolicy,
    /// Its deadline, with the same rule as [`Metadata::time_expires`]. This is how a redirect and its payload are
    /// given one and the same (TS-9).
    #[serde(default)]
    pub time_expires: Option<SystemTime>,
}

impl Tombstone {
    /// A redirect to `target` whose deadline, if any, is computed when it is written.
    #[must_use]
    pub fn new(target: ObjectId, expiration_policy: ExpirationPolicy) -> Self {
        Self {
            target,
            expiration_policy,
            time_expires: None,
        }
    }

    /// What a backend stores for this redirect at `now`, by the rule of [`Metadata::stamped`].
    ///
    /// # Errors
    ///
    /// As [`Metadata::stamped`].
    pub fn stamped(&self, now: SystemTime) -> Result<Self, Fault> {
        Ok(Self {
            time_expires: deadline(self.expiration_policy, self.time_expires, now)?,
            ..self.clone()
        })
    }

    /// Whether the redirect is gone at `now` (HV-8).
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.time_expires.is_some_and(|at| at <= now)
    }
}

fn deadline(
    policy: ExpirationPolicy,
    given: Option<SystemTime>,
    now: SystemTime,
) -> Result<Option<SystemTime>, Fault> {
    let invalid = |why| Fault::not_applied(ErrorKind::InvalidInput, why);
    let after = match policy {
        ExpirationPolicy::Manual if given.is_some() => {
            return Err(invalid("a deadline under a policy that knows none"));
        }
        ExpirationPolicy::Manual => return Ok(None),
        ExpirationPolicy::TimeToLive(after) | ExpirationPolicy::TimeToIdle(after) => after,
    };
    let at = match given {
        Some(at) => at,
        None => now
            .checked_add(after)
            .ok_or_else(|| invalid("the expiration policy ends beyond all time"))?,
    };
    to_millis(at).map(Some)
}

/// `at` cut to whole milliseconds, as media store it.
fn to_millis(at: SystemTime) -> Result<SystemTime, Fault> {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .and_then(|millis| u64::try_from(millis).ok())
        .and_then(|millis| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)))
        .ok_or_else(|| {
            Fault::not_applied(
                ErrorKind::InvalidInput,
                "a time before 1970, or too far ahead to be stored in milliseconds",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stash::codec;
    use crate::{Clock, TestClock};

    fn id(use_case: &str, scopes: &[(&str, &str)], key: &str) -> ObjectId {
        let scopes = scopes.iter().map(|(n, v)| Scope::new(*n, *v)).collect();
        ObjectId::new(ObjectContext::new(use_case, scopes), key)
    }

    #[test]
    fn the_text_form_is_reversible_and_keeps_shifted_parts_apart() {
        let ids = [
            id("", &[], ""),
            id("a", &[], "b"),
            id("a;b=c", &[], "d"),
            id("a", &[("b", "c")], "d"),
            id("a", &[("b", "c/d")], ""),
            id("a", &[("b", "")], "c/d"),
            id("a", &[("", "b=c")], "d"),
            id("a", &[("b", "c"), ("d", "e")], "f"),
            id("a", &[("d", "e"), ("b", "c")], "f"),
            id("ä\0%2F", &[("\n", "💾")], "../x"),
        ];
        let mut texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
        for (id, text) in ids.iter().zip(&texts) {
            assert_eq!(&text.parse::<ObjectId>().unwrap(), id, "{text}");
        }
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), ids.len());
        for bad in [
            "", "a", "a;b/c", "a/b/c", "a/%41", "a/%2f", "a/%", "a/%FF", "a/ ",
        ] {
            assert!(bad.parse::<ObjectId>().is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_id_survives_its_text_form(parts in proptest::collection::vec(".*", 2..8)) {
            let scopes = parts[2..].chunks_exact(2).map(|c| Scope::new(&*c[0], &*c[1])).collect();
            let id = ObjectId::new(ObjectContext::new(&*parts[0], scopes), &*parts[1]);
            proptest::prop_assert_eq!(id.to_string().parse::<ObjectId>().unwrap(), id);
        }

        #[test]
        fn what_is_stored_of_an_object_needs_no_proof(
            texts in proptest::collection::vec(".*", 3..9),
            present in 0_u8..=u8::MAX,
            policy in 0..3,
            length in proptest::num::u64::ANY,
            nanos in 0..1_000_000_000_u32,
        ) {
            let if_bit = |bit: u8| present & (1 << bit) != 0;
            let length_of_time = Duration::new(length, nanos);
            let policy = match policy {
                0 => ExpirationPolicy::Manual,
                1 => ExpirationPolicy::TimeToLive(length_of_time),
                _ => ExpirationPolicy::TimeToIdle(length_of_time),
            };
            let moment = SystemTime::UNIX_EPOCH + Duration::new(length >> 2, nanos);
            let text = |n: usize| if_bit(u8::try_from(n).unwrap()).then(|| texts[n].clone());
            let compressions = [None, Some(Compression::Zstd), Some(Compression::Gzip), Some(Compression::Lz4)];
            let metadata = Metadata {
                expiration_policy: policy,
                time_created: if_bit(3).then_some(moment),
                time_expires: if_bit(4).then_some(moment),
                content_type: text(0),
                compression: compressions[usize::from(present >> 6)],
                origin: text(1),
                filename: text(2),
                size: if_bit(5).then_some(length),
                custom: texts.chunks_exact(2).map(|c| (c[0].clone(), c[1].clone())).collect(),
            };
            let bytes = codec::encode_unproved(&metadata).unwrap();
            proptest::prop_assert_eq!(codec::decode::<Metadata>(&bytes).unwrap(), metadata);

            let mut tombstone = Tombstone::new(id(&texts[0], &[(&texts[1], &texts[2])], ""), policy);
            tombstone.time_expires = if_bit(3).then_some(moment);
            let bytes = codec::encode_unproved(&tombstone).unwrap();
            proptest::prop_assert_eq!(codec::decode::<Tombstone>(&bytes).unwrap(), tombstone);
        }
    }

    #[test]
    fn a_put_is_stamped_and_a_given_deadline_is_kept() {
        let now = TestClock::new().now() + Duration::from_nanos(1_234_567);
        let whole = TestClock::new().now() + Duration::from_millis(1);
        let plain = Metadata::new().stamped(now, 7).unwrap();
        assert_eq!(
            (plain.time_created, plain.time_expires, plain.size),
            (Some(whole), None, Some(7))
        );

        let ten = Duration::from_secs(10);
        let ttl = Metadata::with_policy(ExpirationPolicy::TimeToLive(ten));
        let stored = ttl.stamped(now, 0).unwrap();
        assert_eq!(stored.time_expires, Some(whole + ten));
        assert_eq!(stored.stamped(now + ten, 0).unwrap(), stored);
        assert!(!stored.is_expired(whole + ten - Duration::from_nanos(1)));
        assert!(stored.is_expired(whole + ten));

        let mut given = Metadata::new();
        given.time_expires = Some(now);
        assert!(given.stamped(now, 0).is_err());
        let endless = Metadata::with_policy(ExpirationPolicy::TimeToLive(Duration::MAX));
        assert!(endless.stamped(now, 0).is_err());
    }

    #[test]
    fn an_access_extends_an_idle_deadline_only_past_the_debounce() {
        let now = TestClock::new().now();
        let idle = Duration::from_secs(100);
        let stored = Metadata::with_policy(ExpirationPolicy::TimeToIdle(idle))
            .stamped(now, 0)
            .unwrap();
        let after = |secs| stored.deadline_after_access(now + Duration::from_secs(secs));
        assert_eq!(after(0), None);
        assert_eq!(after(24), None);
        assert_eq!(after(25), Some(now + Duration::from_secs(125)));
        assert_eq!(after(99), Some(now + Duration::from_secs(199)));
        assert_eq!(after(100), None, "the dead stay dead");
        let ttl = Metadata::with_policy(ExpirationPolicy::TimeToLive(idle))
            .stamped(now, 0)
            .unwrap();
        assert_eq!(ttl.deadline_after_access(now + idle / 2), None);
    }
}
