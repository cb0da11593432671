//! A checksum for each row, since SQLite keeps none: a damaged row is an error and never a wrong answer (C-3).

use larder_traits::Fault;

use crate::error::corrupt;

/// The checksum of a row, over its parts and their lengths, so that bytes cannot move from one part to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum(u32);

impl Sum {
    pub(crate) fn new() -> Self {
        Self(0)
    }

    pub(crate) fn bytes(self, part: &[u8]) -> Self {
        let len = u64::try_from(part.len()).unwrap_or(u64::MAX);
        let with_len = crc32c::crc32c_append(self.0, &len.to_le_bytes());
        Self(crc32c::crc32c_append(with_len, part))
    }

    pub(crate) fn number(self, part: i64) -> Self {
        Self(crc32c::crc32c_append(self.0, &part.to_le_bytes()))
    }

    /// A number that may be missing; what is missing differs from every number.
    pub(crate) fn maybe(self, part: Option<i64>) -> Self {
        match part {
            Some(part) => self.number(1).number(part),
            None => self.number(0),
        }
    }

    /// As it is stored.
    pub(crate) fn get(self) -> i64 {
        i64::from(self.0)
    }

    /// Refuses a row whose stored checksum is another.
    pub(crate) fn check(self, stored: i64) -> Result<(), Fault> {
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

    const PINNED: i64 = 153_045_051;
}
