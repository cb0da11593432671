//! CRC-32C, which values carry: third-party stores keep no checksum that they would check.

use crc_fast::{CrcAlgorithm, Digest};

/// The sum of all these bytes.
pub(crate) fn of(bytes: &[u8]) -> u32 {
    after(0, bytes)
}

/// The sum of bytes whose own is `sum` and of these behind them.
pub(crate) fn after(sum: u32, bytes: &[u8]) -> u32 {
    // The state is the sum before its last step, which turns all bits over.
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!sum));
    digest.update(bytes);
    u32::try_from(digest.finalize()).expect("it has 32 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sum_is_pinned() {
        assert_eq!(of(b"123456789"), 0xE306_9283);
        assert_eq!(of(b""), 0);
    }

    proptest! {
        #[test]
        fn a_sum_goes_on_where_it_ended(bytes in prop::collection::vec(any::<u8>(), 0..3_000), at in 0_usize..3_000) {
            let (first, rest) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(of(&bytes), crc32c::crc32c(&bytes));
            prop_assert_eq!(after(of(first), rest), of(&bytes));
        }
    }
}
