//! How objects and rows lie in S3: a head with what is known of them, the payload, and an end that vouches for it.
//!
//! User metadata of S3 is 2 KB of ASCII, which `Metadata` need not fit; and an object of a stream has no checksum until
//! the stream has ended. So the head comes first, is read by itself where the payload is not asked for, and carries a
//! number that no other write has: two writes are never equal, so no ETag repeats.

use bytes::{BufMut, Bytes, BytesMut};
use larder_traits::stash::codec;
use larder_traits::{Fault, Metadata, Tombstone};

use crate::error::Failure;
use crate::history::History;
use crate::mark::Nonce;
use crate::sum;

const MAGIC: [u8; 4] = *b"LDRO";
const VERSION: u8 = 1;

/// Magic, version, kind, length of the history, a byte of nothing, number, length of what is known, checksum of all that
/// and of the history and what is known, which follow; all integers little-endian.
pub(crate) const HEAD_LEN_BYTES: usize = 40;

/// Length of the payload and its checksum.
pub(crate) const END_LEN_BYTES: usize = 12;

const _: () = assert!(HEAD_LEN_BYTES == 4 + 1 + 1 + 2 + Nonce::LEN_BYTES + 4 + 4);
const _: () = assert!(END_LEN_BYTES == 8 + 4);

/// More than any metadata that a caller can have meant.
pub(crate) const ABOUT_LEN_BYTES_MAX: usize = 1 << 20;

/// What a row is, or an object, which is always the second.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one is made for a call and taken apart by it"
)]
pub(crate) enum State {
    /// Nothing: what is left of a row that was removed.
    Absent,
    Object(Metadata),
    Redirect(Tombstone),
}

/// The head of an object or a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) nonce: Nonce,
    /// Empty for an object, which nobody replaces under a condition.
    pub(crate) history: History,
    pub(crate) state: State,
}

/// What the start of an object came to.
#[allow(
    clippy::large_enum_variant,
    reason = "one is made for a call and taken apart by it"
)]
pub(crate) enum Parsed {
    /// The head, and where the payload begins.
    Whole(Head, usize),
    /// So many bytes are needed.
    Needs(usize),
}

impl Head {
    /// The bytes of the head.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for metadata that is too long.
    pub(crate) fn encode(&self) -> Result<BytesMut, Fault> {
        let (kind, about) = match &self.state {
            State::Absent => (0, Vec::new()),
            State::Object(metadata) => (1, codec::encode(metadata)?),
            State::Redirect(tombstone) => (2, codec::encode(tombstone)?),
        };
        if about.len() > ABOUT_LEN_BYTES_MAX {
            return Err(crate::error::invalid("more than 1 MiB of metadata"));
        }
        let len = u32::try_from(about.len()).expect("it is within the bound");
        let mut rest = Vec::with_capacity(History::len_bytes(self.history.len()) + about.len());
        self.history.encode(&mut rest);
        rest.extend(about);
        let mut bytes = BytesMut::with_capacity(HEAD_LEN_BYTES + rest.len());
        bytes.put_slice(&MAGIC);
        bytes.put_slice(&[VERSION, kind, self.history.len(), 0]);
        bytes.put_slice(self.nonce.as_bytes());
        bytes.put_u32_le(len);
        let sum = sum::after(sum::of(&bytes), &rest);
        bytes.put_u32_le(sum);
        bytes.put_slice(&rest);
        Ok(bytes)
    }

    /// Reads a head from the start of an object.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, Failure> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_LEN_BYTES>() else {
            return Ok(Parsed::Needs(HEAD_LEN_BYTES));
        };
        let (summed, sum) = head.split_at(HEAD_LEN_BYTES - 4);
        if head[..4] != MAGIC || head[4] != VERSION {
            return Err(damaged("the head of an object is none"));
        }
        let len = number(&head[HEAD_LEN_BYTES - 8..HEAD_LEN_BYTES - 4]);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > ABOUT_LEN_BYTES_MAX {
            return Err(damaged("the head of an object is too long"));
        }
        let history_len = History::len_bytes(head[6]);
        let Some(rest) = rest.get(..history_len + len) else {
            return Ok(Parsed::Needs(HEAD_LEN_BYTES + history_len + len));
        };
        if u64::from(sum::after(sum::of(summed), rest)) != number(sum) {
            return Err(damaged("the checksum of a head is wrong"));
        }
        let (history, about) = rest.split_at(history_len);
        let at = HEAD_LEN_BYTES + rest.len();
        let unreadable = |_e| damaged("the metadata of an object cannot be read");
        let state = match head[5] {
            0 if about.is_empty() => State::Absent,
            1 => State::Object(codec::decode(about).map_err(unreadable)?),
            2 => State::Redirect(codec::decode(about).map_err(unreadable)?),
            _ => return Err(damaged("the head of an object is of no known kind")),
        };
        let nonce = summed[8..8 + Nonce::LEN_BYTES].try_into();
        let nonce = Nonce::from_bytes(nonce.expect("the length fits"));
        let head = Self {
            nonce,
            history: History::decode(history),
            state,
        };
        Ok(Parsed::Whole(head, at))
    }
}

/// What follows a payload of this length and checksum.
pub(crate) fn end(len_bytes: u64, sum: u32) -> [u8; END_LEN_BYTES] {
    let mut end = [0; END_LEN_BYTES];
    end[..8].copy_from_slice(&len_bytes.to_le_bytes());
    end[8..].copy_from_slice(&sum.to_le_bytes());
    end
}

/// A head, a payload and its end in one piece.
pub(crate) fn whole(head: &Head, payload: &[u8]) -> Result<Bytes, Fault> {
    let mut bytes = head.encode()?;
    bytes.reserve(payload.len() + END_LEN_BYTES);
    bytes.put_slice(payload);
    let len = u64::try_from(payload.len()).expect("a length in memory fits 64 bits");
    bytes.put_slice(&end(len, sum::of(payload)));
    Ok(bytes.freeze())
}

/// The payload of `whole`, which begins at `at`.
pub(crate) fn payload(whole: &Bytes, at: usize) -> Result<Bytes, Failure> {
    let len = payload_len(whole.len(), at)?;
    let payload = whole.slice(at..at + len);
    let len = u64::try_from(len).expect("a length in memory fits 64 bits");
    if whole[whole.len() - END_LEN_BYTES..] != end(len, sum::of(&payload)) {
        return Err(damaged("the checksum of a payload is wrong"));
    }
    Ok(payload)
}

/// How long the payload is in an object of `total` bytes, where it begins at `at`.
pub(crate) fn payload_len<N>(total: N, at: usize) -> Result<N, Failure>
where
    N: TryFrom<usize> + Copy + std::ops::Sub<Output = N> + PartialOrd,
{
    let around = N::try_from(at + END_LEN_BYTES).ok();
    match around {
        Some(around) if around <= total => Ok(total - around),
        _ => Err(damaged("an object is shorter than its head says")),
    }
}

pub(crate) fn damaged(detail: &'static str) -> Failure {
    Failure::corrupt(detail)
}

fn number(bytes: &[u8]) -> u64 {
    let mut whole = [0; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(whole)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_traits::{ErrorKind, ExpirationPolicy, ObjectContext, ObjectId};
    use proptest::prelude::*;

    use super::*;

    fn head(state: State) -> Head {
        Head {
            nonce: Nonce::from_bytes([7; Nonce::LEN_BYTES]),
            history: History::default(),
            state,
        }
    }

    fn parse_whole(bytes: &[u8]) -> (Head, usize) {
        match Head::parse(bytes) {
            Ok(Parsed::Whole(head, at)) => (head, at),
            _ => panic!("it is no head"),
        }
    }

    #[test]
    fn every_state_is_read_back() {
        let idle = ExpirationPolicy::TimeToIdle(Duration::from_secs(5));
        let target = ObjectId::new(ObjectContext::new("a", Vec::new()), "b");
        let states = [
            State::Absent,
            State::Object(Metadata::with_policy(idle)),
            State::Redirect(Tombstone::new(target, idle)),
        ];
        for state in states {
            let mut head = head(state);
            head.history = head.history.then(None).then(Some(head.nonce));
            let bytes = whole(&head, b"plum").unwrap();
            let (found, at) = parse_whole(&bytes);
            assert_eq!(found, head);
            assert_eq!(payload(&bytes, at).unwrap(), b"plum"[..]);
            for len in 0..at {
                assert!(
                    matches!(Head::parse(&bytes[..len]), Ok(Parsed::Needs(more)) if more > len)
                );
            }
        }
    }

    #[test]
    fn the_format_is_pinned() {
        let mut head = head(State::Absent);
        head.history = History::decode(&[9; 16]);
        let bytes = whole(&head, b"jam").unwrap();
        let mut pinned = b"LDRO\x01\x00\x02\x00".to_vec();
        pinned.extend([7; 24]);
        pinned.extend([0; 4]);
        let sum = sum::after(sum::of(&pinned), &[9; 16]);
        pinned.extend(sum.to_le_bytes());
        pinned.extend([9; 16]);
        pinned.extend(b"jam\x03\0\0\0\0\0\0\0");
        pinned.extend(sum::of(b"jam").to_le_bytes());
        assert_eq!(bytes, pinned);
    }

    proptest! {
        #[test]
        fn no_bit_changes_unseen(at in 0_usize..100, bit in 0_u8..8) {
            let metadata = Metadata::with_policy(ExpirationPolicy::Manual);
            let good = whole(&head(State::Object(metadata)), b"plum").unwrap();
            let mut bad = good.to_vec();
            let at = at % bad.len();
            bad[at] ^= 1 << bit;
            let bad = Bytes::from(bad);
            let seen = match Head::parse(&bad) {
                Err(failure) => failure.kind == ErrorKind::Corrupt,
                Ok(Parsed::Needs(_)) => true,
                Ok(Parsed::Whole(_, at)) => payload(&bad, at).is_err(),
            };
            prop_assert!(seen);
        }

        #[test]
        fn noise_is_no_head(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(Parsed::Whole(..)) = Head::parse(&bytes) {
                prop_assert!(false);
            }
        }
    }
}
