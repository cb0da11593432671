//! What is stored beside a value: its checksum, and a number that no other write has.
//!
//! The checksum is what makes a truncated or a mixed-up answer an error, whatever the lengths in its headers say. The
//! number is how a write whose answer was lost recognises itself.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::http::HttpResponse;

use crate::sum;

/// The name of the metadata entry, and of the header that it is on the wire.
pub(crate) const ENTRY: &str = "larder";
pub(crate) const HEADER: &str = "x-amz-meta-larder";

/// The number of one write: 16 random bytes of the place that was opened, and a count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nonce([u8; 24]);

impl Nonce {
    pub(crate) const LEN_BYTES: usize = 24;

    pub(crate) const fn from_bytes(bytes: [u8; 24]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 24] {
        &self.0
    }

    /// The number in short. Those of one place differ by their counts, those of two by 64 random bits.
    pub(crate) fn short(&self) -> u64 {
        let (words, _) = self.0.as_chunks::<8>();
        words
            .iter()
            .fold(0, |all, word| all ^ u64::from_le_bytes(*word))
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() != 2 * Self::LEN_BYTES || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; Self::LEN_BYTES];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({self})")
    }
}

/// Makes numbers, and randomness for who wants to wait a little less or more than others.
#[derive(Debug)]
pub(crate) struct Nonces {
    random: RandomState,
    place: [u8; 16],
    next: AtomicU64,
}

impl Nonces {
    pub(crate) fn new() -> Self {
        // Its keys come from the operating system, and the hash is a keyed one: what it makes cannot be guessed.
        let random = RandomState::new();
        let mut place = [0; 16];
        place[..8].copy_from_slice(&random.hash_one("first").to_le_bytes());
        place[8..].copy_from_slice(&random.hash_one("second").to_le_bytes());
        Self {
            random,
            place,
            next: AtomicU64::new(0),
        }
    }

    pub(crate) fn next(&self) -> Nonce {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [0; Nonce::LEN_BYTES];
        bytes[..16].copy_from_slice(&self.place);
        bytes[16..].copy_from_slice(&count.to_le_bytes());
        Nonce(bytes)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        self.random.hash_one(count) % bound
    }
}

/// Checksum and number of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Unknown where an upload begins before its value has ended; such a value vouches for itself.
    pub(crate) sum: Option<u32>,
    pub(crate) nonce: Nonce,
}

impl Mark {
    pub(crate) fn of(value: &[u8], nonce: Nonce) -> Self {
        Self {
            sum: Some(sum::of(value)),
            nonce,
        }
    }

    /// The mark of a value whose end nobody knows yet.
    pub(crate) fn of_stream(nonce: Nonce) -> Self {
        Self { sum: None, nonce }
    }

    /// The metadata that says so.
    pub(crate) fn text(&self) -> String {
        let sum = self.sum.map(|sum| format!("{sum:08x}"));
        format!("1-{}-{}", sum.unwrap_or_default(), self.nonce)
    }

    /// The mark of the object that an answer is about.
    pub(crate) fn of_answer(answer: &HttpResponse) -> Option<Self> {
        Self::parse(answer.headers().get(HEADER)?)
    }

    /// The mark that metadata says; `None` for what somebody else has put there.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("1-")?;
        let (sum, nonce) = text.split_once('-')?;
        let sum = match sum {
            "" => None,
            sum => Some(u32::from_str_radix(sum, 16).ok()?),
        };
        Some(Self {
            sum,
            nonce: Nonce::parse(nonce)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back() {
        let nonces = Nonces::new();
        for mark in [
            Mark::of(b"plum", nonces.next()),
            Mark::of_stream(nonces.next()),
        ] {
            assert_eq!(Mark::parse(&mark.text()), Some(mark));
        }
        for text in [
            "",
            "1-",
            "1-0-0",
            "2-00000000-00",
            "1-zz-00",
            "1-00000000-é",
        ] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }

    #[test]
    fn no_two_numbers_are_alike() {
        let (a, b) = (Nonces::new(), Nonces::new());
        let all = [a.next(), a.next(), b.next(), b.next()];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
            assert!(
                all[at + 1..]
                    .iter()
                    .all(|other| other.short() != one.short())
            );
        }
        assert!(a.below(10) < 10);
    }
}
