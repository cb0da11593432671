//! A disk in memory that does what disks do, on a seed: it forgets what was not synced, tears it, fails and lies.
//!
//! A backend that owns its file calls puts a narrow trait between itself and them, and its tests implement that trait
//! with a [`SimDisk`], which is one file or one device. What the store then did is cut off with
//! [`SimDisk::crash`] or [`SimDisk::crash_states`], and the store opened again on the disk that is left.
//!
//! ```
//! use larder_conformance::sim_disk::{SimDisk, SimDiskOptions};
//!
//! let disk = SimDisk::new(SimDiskOptions::new(7), 4_096);
//! disk.write_all_at(&[1; 1_024], 0)?;
//! disk.sync()?;
//! disk.write_all_at(&[2; 1_024], 0)?;
//! // Two sectors are not synced, so there are four disks that a loss of power may leave.
//! let states = disk.crash_states(100, 1);
//! assert!(states.is_exhaustive());
//! let torn = states.filter(|disk| {
//!     let bytes = disk.visible();
//!     bytes[0] != bytes[512]
//! });
//! assert_eq!(torn.count(), 2);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # The model
//!
//! * A read sees every write that completed before it, as through a page cache.
//! * A write is volatile until a [`sync`](SimDisk::sync) that was started after it returns `Ok`.
//! * A loss of power leaves each sector of [512 bytes](SECTOR_LEN_BYTES) as the last sync left it, or as any one of the
//!   writes since then left it, apart from all other sectors: every order and subset, torn at 512 bytes. The length is
//!   left in the same way.
//! * A sync that fails writes back any part of what it was to write and forgets the rest, as Linux does: reads go on to
//!   show some of it, and the next sync reports success.
//! * Calls that were [submitted](SimDisk::submit) together complete in a seeded order, and each takes effect as it
//!   completes. One that was not yet completed when the power went is in the air: each of its sectors may have landed.
//!
//! The same options and the same calls give the same answers and the same bytes. Threads that call at once make an
//! order of calls of their own; within it the same holds.

mod chance;
mod crash;
mod image;
mod queue;
mod state;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_stores;

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use self::crash::CrashStates;
pub use self::queue::{Call, Completion, Ticket};
use self::state::State;

/// What a disk writes as a whole or not at all.
pub const SECTOR_LEN_BYTES: u64 = image::SECTOR_LEN_BYTES;

/// What a simulated disk is like. All chances are of a thousand calls, and 0 unless they are set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SimDiskOptions {
    /// Everything that is left to chance follows from it.
    pub seed: u64,
    /// What offset and length of reads and writes must be a multiple of, else `EINVAL`, as with `O_DIRECT`. 1 asks for
    /// nothing.
    pub align_bytes: u64,
    /// How long the disk can become; more is `ENOSPC`.
    pub capacity_bytes: Option<u64>,
    /// Chance of a read or write to transfer only a part, at least one byte or one unit of `align_bytes`.
    pub short_per_mille: u16,
    /// Chance of a read or write to be interrupted before it did anything (`EINTR`).
    pub interrupted_per_mille: u16,
    /// Chance of a read, write or length change to fail (`EIO`).
    pub io_error_per_mille: u16,
    /// Chance of a write to fail for want of space (`ENOSPC`).
    pub no_space_per_mille: u16,
    /// Chance of a sync to fail.
    pub sync_error_per_mille: u16,
    /// Chance of a read to hand out one wrong bit; what is stored is right.
    pub flip_on_read_per_mille: u16,
    /// Chance of a write to store one wrong bit.
    pub flip_on_write_per_mille: u16,
    /// Chance of a write to be acknowledged and never happen.
    pub lost_write_per_mille: u16,
    /// Chance of a write to land in another place, by a whole number of sectors.
    pub misdirected_write_per_mille: u16,
}

impl SimDiskOptions {
    /// A disk that does nothing wrong until it is told to.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            align_bytes: 1,
            capacity_bytes: None,
            short_per_mille: 0,
            interrupted_per_mille: 0,
            io_error_per_mille: 0,
            no_space_per_mille: 0,
            sync_error_per_mille: 0,
            flip_on_read_per_mille: 0,
            flip_on_write_per_mille: 0,
            lost_write_per_mille: 0,
            misdirected_write_per_mille: 0,
        }
    }
}

/// What goes wrong with one call, when it is made to (see [`SimDisk::arm`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// `EIO`. A read, a write or a length change has no effect. A sync writes back any part of what is volatile, and
    /// what it left is never written: the next sync is `Ok`.
    Io,
    /// `ENOSPC`, without effect; from a sync, as [`Fault::Io`] (space is allocated late).
    NoSpace,
    /// `EINTR`, without effect.
    Interrupted,
    /// `EAGAIN`, without effect.
    WouldBlock,
    /// Only a part is transferred. For reads and writes.
    Short,
    /// `Ok`, with one bit that is not what was written. For reads, where the disk keeps what it has, and writes.
    BitFlip,
    /// `Ok`, and nothing is written; a sync that is lost makes nothing durable.
    Lost,
    /// `Ok`, and the write lands a number of sectors away.
    Misdirected,
    /// The power goes while the call runs. A write or length change may land in any part; every call from then on is an
    /// error, until [`SimDisk::crash`] makes a disk that runs again.
    PowerOff,
}

/// The kinds of calls that are counted (see [`SimDisk::arm`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// All of them.
    Any,
    /// [`SimDisk::read_at`].
    Read,
    /// [`SimDisk::write_at`].
    Write,
    /// [`SimDisk::sync`].
    Sync,
    /// [`SimDisk::grow`] and [`SimDisk::set_len`].
    Grow,
}

/// One file or device, simulated. See the [module](self) for what it does.
///
/// Calls take `&self`; a store with several threads shares it behind an `Arc`. [`SimDisk::fork`] makes a second disk
/// that goes its own way.
pub struct SimDisk {
    state: Mutex<State>,
}

impl SimDisk {
    /// A disk of `len` zeros, all of them durable.
    #[must_use]
    pub fn new(options: SimDiskOptions, len: u64) -> Self {
        Self::of(State::new(options, len))
    }

    /// A disk with these bytes, all of them durable.
    #[must_use]
    pub fn from_bytes(options: SimDiskOptions, bytes: &[u8]) -> Self {
        let len = image::number(bytes.len());
        let mut state = State::new(options, len);
        state.fill(bytes);
        Self::of(state)
    }

    fn of(state: State) -> Self {
        Self {
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from `offset` into `buf`; how many bytes there were, 0 at the end.
    ///
    /// # Errors
    ///
    /// What was armed or fell to chance, `EINVAL` for what is not aligned, and anything once the power is off.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.lock().read(buf, offset)
    }

    /// Writes at `offset`, and makes the disk longer where it ends before; how many bytes were written. Volatile until
    /// the next sync.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at), and `ENOSPC` past the capacity.
    pub fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        self.lock().write(data, offset)
    }

    /// As [`read_at`](Self::read_at), and goes on after a short or interrupted transfer.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at), and `UnexpectedEof` where the disk ends before the buffer does.
    pub fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buf = &mut buf[read..];
                    offset += image::number(read);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// As [`write_at`](Self::write_at), and goes on after a short or interrupted transfer.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at); any part may have been written.
    pub fn write_all_at(&self, mut data: &[u8], mut offset: u64) -> io::Result<()> {
        while !data.is_empty() {
            match self.write_at(data, offset) {
                Ok(written) => {
                    data = &data[written..];
                    offset += image::number(written);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Makes everything durable that was written before, and the length with it.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at). After an `EIO` any part of what was volatile is durable, and the rest will not be,
    /// whatever a later sync says.
    pub fn sync(&self) -> io::Result<()> {
        self.lock().sync()
    }

    /// Makes the disk at least `len` long, with zeros. Volatile until the next sync.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at), and `ENOSPC` past the capacity.
    pub fn grow(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        let len = len.max(state.len());
        state.set_len(len)
    }

    /// Makes the disk exactly `len` long: more with zeros, less by cutting. Volatile until the next sync.
    ///
    /// # Errors
    ///
    /// As [`grow`](Self::grow).
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.lock().set_len(len)
    }

    /// How long it is now.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "nobody asks whether a disk is empty"
    )]
    pub fn len(&self) -> u64 {
        self.lock().len()
    }

    /// Hands a call to the disk without waiting for it, as a submission queue does.
    pub fn submit(&self, call: Call) -> Ticket {
        self.lock().submit(call)
    }

    /// Lets one of the submitted calls take effect and complete, whichever the seed picks; `None` when there is none.
    /// A sync covers what completed before it, not what was submitted before it.
    pub fn complete(&self) -> Option<Completion> {
        self.lock().complete()
    }

    /// Lets the `nth` call of that kind from now on, counted from 1, go wrong; once. Several may be armed.
    pub fn arm(&self, step: Step, nth: u64, fault: Fault) {
        self.lock().arm(step, nth, fault);
    }

    /// Forgets what is armed, sets all chances to 0, and says how many armed faults were met since they were armed.
    pub fn disarm(&self) -> u64 {
        self.lock().disarm()
    }

    /// How many calls of that kind were made. A crash at each of them in turn is
    /// `for nth in 1..=steps { disk.arm(Step::Any, nth, Fault::PowerOff); .. }`.
    #[must_use]
    pub fn steps(&self, step: Step) -> u64 {
        self.lock().steps(step)
    }

    /// Whether the power went ([`Fault::PowerOff`]).
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().is_off()
    }

    /// How many sectors are volatile, calls in the air included.
    #[must_use]
    pub fn pending_sectors(&self) -> usize {
        self.lock().volatile().sector_count()
    }

    /// Turns one bit of what is stored, behind the back of everybody: at rest, synced or not.
    ///
    /// # Panics
    ///
    /// If the disk ends before `offset`, or `bit` is not below 8.
    pub fn flip_bit(&self, offset: u64, bit: u32) {
        self.lock().flip_bit(offset, bit);
    }

    /// What reads see.
    #[must_use]
    pub fn visible(&self) -> Vec<u8> {
        self.lock().visible_bytes()
    }

    /// What a loss of power leaves where nothing volatile lands.
    #[must_use]
    pub fn durable(&self) -> Vec<u8> {
        self.lock().durable_bytes()
    }

    /// Hands out what reads see, without the parts that were never written: a place on the disk, and the bytes there.
    ///
    /// # Errors
    ///
    /// The first one of `each`.
    pub fn for_each_chunk(
        &self,
        mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.fork().lock().visible_chunks(&mut each)
    }

    /// A second disk in the same state, faults and chance included. What is done to one does not touch the other.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::of(self.lock().clone())
    }

    /// One disk that a loss of power at this moment leaves; the seed says which. It is on, nothing is volatile, nothing
    /// is armed, and no chance of a fault is left. This disk stays as it is.
    ///
    /// Seed 0 keeps nothing of what is volatile and seed 1 all of it. Other seeds pick among shapes that stores fail on:
    /// whole writes or parts of them, a prefix, all but one, only the last.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        Self::of(self.lock().crash(seed))
    }

    /// The disks that a loss of power at this moment may leave: each of them once where there are at most `limit`, else
    /// `limit` of them by [`crash`](Self::crash) with seeds that follow from `seed`.
    #[must_use]
    pub fn crash_states(&self, limit: usize, seed: u64) -> CrashStates {
        self.lock().crash_states(limit, seed)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}
