//! Memory for direct I/O that is no caller's: of any length, and aligned.

use std::ops::{Deref, DerefMut};

use larder_traits::frame::FRAME_ALIGN;

/// So many bytes, zeros at first, at an address that direct I/O accepts.
///
/// It is heap with some bytes to spare in front; nothing is ever added, so it stays where it is.
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Scratch {
    pub(crate) fn zeroed(len: usize) -> Self {
        let bytes = vec![0; len + FRAME_ALIGN];
        let start = bytes.as_ptr().align_offset(FRAME_ALIGN);
        Self { bytes, start, len }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_whole_and_zero() {
        for len in [1, 4096, 524_288] {
            let scratch = Scratch::zeroed(len);
            assert_eq!(scratch.len(), len);
            assert!(scratch.as_ptr().addr().is_multiple_of(FRAME_ALIGN));
            assert!(scratch.iter().all(|byte| *byte == 0));
        }
    }
}
