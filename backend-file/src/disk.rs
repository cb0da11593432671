//! What the frame store asks of its medium, and nothing more: positioned reads and writes of whole sectors, and one
//! way to make them durable.
//!
//! The store above is the same for every disk: the ring, positioned system calls where the ring is not to be had, and
//! the simulated disk of the tests.

mod engine;
mod open;
mod positioned;
#[cfg(target_os = "linux")]
mod uring;

use std::io;

pub use engine::Engine;
pub use open::{DiskOptions, Opened, open};
pub use positioned::Positioned;

/// Positions, lengths and addresses are whole multiples of this, as direct I/O asks for.
pub const SECTOR_LEN_BYTES: usize = 4096;

/// One range to read.
#[derive(Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "both sides of the seam are of this crate and its tests"
)]
pub struct Read<'a> {
    /// Where in the file, in bytes.
    pub at: u64,
    /// What to fill, all of it.
    pub into: &'a mut [u8],
    /// Which registered buffer `into` lies in, if it lies in one.
    pub registered: Option<u32>,
}

/// One range to write.
#[derive(Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "both sides of the seam are of this crate and its tests"
)]
pub struct Write<'a> {
    /// Where in the file, in bytes.
    pub at: u64,
    /// What to write there, all of it.
    pub from: &'a [u8],
    /// Which registered buffer `from` lies in, if it lies in one.
    pub registered: Option<u32>,
}

/// A file or device of whole sectors.
///
/// Every call returns only when the kernel no longer touches the memory it was given, also when it fails or unwinds.
/// A transfer that the medium cuts short is resumed; a signal is not an error.
pub trait Disk: Send + Sync + 'static {
    /// The length that [`grow`](Self::grow) last reached, in bytes.
    fn len_bytes(&self) -> u64;

    /// Makes the file at least `len` bytes long, with room behind every byte: a full medium is met here and not at a
    /// later write. New bytes read as zeros.
    ///
    /// # Errors
    ///
    /// What the medium answered; the length is then what it was.
    fn grow(&self, len: u64) -> io::Result<()>;

    /// Fills every range, or tells for each why not. Past the end is `UnexpectedEof`.
    fn read(&self, reads: &mut [Read<'_>]) -> Vec<io::Result<()>>;

    /// [`read`](Self::read) that shows the caller each range as it arrives: its place among the ranges and its next bytes,
    /// from its start to its end without a gap. So the caller's work on them, a checksum for instance, is done while the
    /// rest is under way. Of a range that fails it may have been shown a part.
    fn read_and_show(
        &self,
        reads: &mut [Read<'_>],
        show: &mut dyn FnMut(usize, &[u8]),
    ) -> Vec<io::Result<()>> {
        let answers = self.read(reads);
        for (index, (answer, read)) in answers.iter().zip(reads).enumerate() {
            if answer.is_ok() {
                show(index, read.into);
            }
        }
        answers
    }

    /// Writes every range, in no particular order; durable only after a [`sync`](Self::sync).
    ///
    /// Ranges are drawn from the iterator while earlier ones are under way, so that the caller's work on the next one,
    /// a checksum for instance, costs no time of its own: the first one is under way before the second is drawn. On an
    /// error any part of any range may have been written.
    ///
    /// # Errors
    ///
    /// What the medium answered first.
    fn write(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()>;

    /// Waits until every write that returned before this call is durable, and the length that was grown to.
    ///
    /// # Errors
    ///
    /// What the medium answered. What was not yet durable may then be lost, and no later call says otherwise.
    fn sync(&self) -> io::Result<()>;

    /// [`write`](Self::write) and then [`sync`](Self::sync), which a ring can submit as one chain.
    ///
    /// # Errors
    ///
    /// Those of both.
    fn write_and_sync(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()> {
        self.write(writes)?;
        self.sync()
    }
}
