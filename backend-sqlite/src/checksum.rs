//! A checksum for each row, since SQLite keeps none: a damaged row is an error and never a wrong answer (C-3).

use bytes::BytesMut;
use larder_traits::Fault;

use crate::error::corrupt;

/// The checksum of a row, over its parts and their lengths, so that bytes cannot move from one part to the next.
#[derive(Clone, Debug)]
pub(crate) struct Sum<P = Gathered>(P);

/// Where the parts of a row go on their way into its checksum.
pub(crate) trait Parts {
    fn add(&mut self, part: &[u8]);
    fn sum(&self) -> u32;
}

/// A few of them at a time: a row has many short ones, and each call of the checksum has a price of its own.
#[derive(Clone, Debug)]
pub(crate) struct Gathered {
    of_before: u32,
    gathered: [u8; GATHERED_LEN_BYTES],
    len: usize,
}

const GATHERED_LEN_BYTES: usize = 192;

impl Parts for Gathered {
    #[inline]
    fn add(&mut self, part: &[u8]) {
        if let Some(room) = self.gathered[self.len..].get_mut(..part.len()) {
            room.copy_from_slice(part);
            self.len += part.len();
            return;
        }
        self.of_before = crc32c::crc32c_append(self.sum(), part);
        self.len = 0;
    }

    #[inline]
    fn sum(&self) -> u32 {
        crc32c::crc32c_append(self.of_before, &self.gathered[..self.len])
    }
}

/// All of them, for who wants to keep them.
impl Parts for &mut BytesMut {
    #[inline]
    fn add(&mut self, part: &[u8]) {
        self.extend_from_slice(part);
    }

    #[inline]
    fn sum(&self) -> u32 {
        crc32c::crc32c(self)
    }
}

impl Sum {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(Gathered {
            of_before: 0,
            gathered: [0; GATHERED_LEN_BYTES],
            len: 0,
        })
    }
}

impl<'a> Sum<&'a mut BytesMut> {
    /// The same sum, of parts that are left in `kept`, which is empty: each number in 8 bytes, all else behind its length in 8.
    #[inline]
    pub(crate) fn kept_in(kept: &'a mut BytesMut) -> Self {
        Self(kept)
    }
}

impl<P: Parts> Sum<P> {
    #[inline]
    pub(crate) fn bytes(mut self, part: &[u8]) -> Self {
        let len = u64::try_from(part.len()).unwrap_or(u64::MAX);
        self.0.add(&len.to_le_bytes());
        self.0.add(part);
        self
    }

    #[inline]
    pub(crate) fn number(mut self, part: i64) -> Self {
        self.0.add(&part.to_le_bytes());
        self
    }

    /// A number that may be missing; what is missing differs from every number.
    pub(crate) fn maybe(self, part: Option<i64>) -> Self {
        match part {
            Some(part) => self.number(1).number(part),
            None => self.number(0),
        }
    }

    /// As it is stored.
    pub(crate) fn get(&self) -> i64 {
        i64::from(self.0.sum())
    }

    /// Refuses a row whose stored checksum is another.
    pub(crate) fn check(&self, stored: i64) -> Result<(), Fault> {
        if self.get() == stored {
            return Ok(());
        }
        Err(corrupt("a row does not match its checksum"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_row_cannot_shift_into_each_other() {
        let sum = |a: &str, b: &str| Sum::new().bytes(a.as_bytes()).bytes(b.as_bytes()).get();
        assert_ne!(sum("ab", "c"), sum("a", "bc"));
        assert_ne!(
            Sum::new().maybe(None).get(),
            Sum::new().maybe(Some(0)).get()
        );
        Sum::new()
            .number(7)
            .check(Sum::new().number(7).get())
            .unwrap();
        Sum::new().number(7).check(0).unwrap_err();
        // Pinned: a checksum that is computed in another way makes every file unreadable.
        assert_eq!(sum("larder", ""), PINNED);
    }

    #[test]
    fn what_is_gathered_and_what_is_not_add_up_to_the_same() {
        let long = [7; 2 * GATHERED_LEN_BYTES];
        for first in 0..long.len() {
            for second in [0, 1, 8, GATHERED_LEN_BYTES - 8, GATHERED_LEN_BYTES, first] {
                let parts = [&long[..first], &long[..second]];
                let [a, b] = parts.map(|it| [&it.len().to_le_bytes(), it].concat());
                let whole = [&a[..], &b, &5_i64.to_le_bytes()].concat();
                let sum = Sum::new().bytes(parts[0]).bytes(parts[1]).number(5);
                assert_eq!(sum.get(), i64::from(crc32c::crc32c(&whole)));
                let mut kept = BytesMut::new();
                let sum = Sum::kept_in(&mut kept).bytes(parts[0]).bytes(parts[1]);
                assert_eq!(sum.number(5).get(), i64::from(crc32c::crc32c(&whole)));
                assert_eq!(kept, whole);
            }
        }
    }

    const PINNED: i64 = 153_045_051;
}
