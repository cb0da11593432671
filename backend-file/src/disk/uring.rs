//! The disk on io_uring: many transfers under way at once, and the flush through the same ring.
//!
//! A call takes a ring of its own from a small stock, so that no call waits for another's completions, and puts it back
//! when everything it started has completed. What is under way is the business of [`flight`].
//!
//! All `unsafe` of this crate is in this file.

mod flight;

use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, Probe, opcode};
use larder_traits::frame::PAGE_SIZE;
use rustix::io::Errno;

use self::flight::{Flight, Job, Lane, Queue, Request, Verb};
use super::engine::{Engine, RingState};
use super::positioned::Positioned;
use super::{Disk, Read, Write};
use crate::pool::Slab;

/// How many pieces a call keeps under way; half as many were slower in long batches.
const DEPTH: u16 = 64;

/// How many calls can have a ring at the same time. Beyond that they use positioned calls.
const RINGS_MAX: usize = 16;

/// The kernel's own bound on registered buffers.
const REGISTERED_FRAMES_MAX: u32 = 16_384;

/// A ring of the kernel's.
struct Ring {
    io: IoUring,
    file: RawFd,
    registered: u32,
}

impl Ring {
    fn new(entries: u16, file: RawFd) -> io::Result<Self> {
        let build = |coop: bool| {
            let mut builder = IoUring::builder();
            // A forked child has no business in the rings of its parent.
            builder.dontfork().setup_clamp();
            if coop {
                builder.setup_coop_taskrun();
            }
            builder.build(u32::from(entries))
        };
        // Kernels before 5.19 do not know the flag, which only spares interrupts.
        let io = build(true).or_else(|error| match Errno::from_io_error(&error) {
            Some(Errno::INVAL) => build(false),
            _ => Err(error),
        })?;
        Ok(Self {
            io,
            file,
            registered: 0,
        })
    }

    /// Whether the kernel knows all that we ask.
    fn is_able(&self) -> io::Result<bool> {
        let mut probe = Probe::new();
        self.io.submitter().register_probe(&mut probe)?;
        let codes = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
        Ok(codes.iter().all(|&code| probe.is_supported(code)))
    }

    /// Adds the frames from the next slot up to `end` to those registered, as many as the limit on locked memory has room
    /// for.
    ///
    /// One frame a call: of several the kernel registers the first ones that fit, tells how many by the result, and that
    /// is not passed on to us.
    #[expect(unsafe_code, reason = "the kernel is given an address")]
    fn register(&mut self, slab: &Slab, end: u32) -> io::Result<()> {
        for frame in iovecs(slab, self.registered..end) {
            let submitter = self.io.submitter();
            // SAFETY: the frame stays where it is as long as the slab lives, whose last handle the disk drops after its
            // rings.
            unsafe { submitter.register_buffers_update(self.registered, &[frame], None) }?;
            self.registered += 1;
        }
        Ok(())
    }

    /// Has what `base` has registered.
    #[expect(unsafe_code, reason = "the kernel is given addresses")]
    fn share(&mut self, base: &Self, slab: &Slab) -> io::Result<()> {
        let submitter = self.io.submitter();
        if self.registered > 0 {
            submitter.unregister_buffers()?;
            self.registered = 0;
        }
        if submitter
            .register_buffers_clone(base.io.as_raw_fd())
            .is_err()
        {
            // Before kernel 6.12 each ring has to have its own.
            let frames = iovecs(slab, 0..base.registered);
            // SAFETY: as above, and this ring has none of the calls under way that could use them.
            unsafe { submitter.register_buffers(&frames) }?;
        }
        self.registered = base.registered;
        Ok(())
    }
}

/// Closing a ring lets its memory go at some later time; this does it now, for who opens the file again at once.
impl Drop for Ring {
    fn drop(&mut self) {
        if self.registered > 0 {
            drop(self.io.submitter().unregister_buffers());
        }
    }
}

fn iovecs(slab: &Slab, slots: Range<u32>) -> Vec<libc::iovec> {
    let addresses = slab.addresses(slots).into_iter();
    addresses
        .map(|address| libc::iovec {
            iov_base: address.cast(),
            iov_len: PAGE_SIZE,
        })
        .collect()
}

impl Queue for Ring {
    #[expect(
        unsafe_code,
        reason = "the kernel is given an address to read or write"
    )]
    fn push(&mut self, request: &Request, user_data: u64) {
        let Request {
            at, address, len, ..
        } = *request;
        let file = Fd(self.file);
        let entry = match (request.verb, request.registered) {
            (Verb::Read, None) => opcode::Read::new(file, address, len).offset(at).build(),
            (Verb::Read, Some(slot)) => opcode::ReadFixed::new(file, address, len, slot)
                .offset(at)
                .build(),
            (Verb::Write, None) => opcode::Write::new(file, address, len).offset(at).build(),
            (Verb::Write, Some(slot)) => opcode::WriteFixed::new(file, address, len, slot)
                .offset(at)
                .build(),
            (Verb::Sync, _) => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
        };
        let entry = entry.user_data(user_data);
        // SAFETY: the memory is borrowed by the job in the flight that made the request, and the flight gives it back
        // only when the completion has come. The file outlives the ring.
        let pushed = unsafe { self.io.submission().push(&entry) };
        pushed.expect("the queue has an entry for each place of a flight");
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
        self.io.submit_and_wait(want).map(drop)
    }

    fn pop(&mut self) -> Option<(u64, i32)> {
        let entry = self.io.completion().next()?;
        Some((entry.user_data(), entry.result()))
    }

    fn untaken(&mut self) -> usize {
        self.io.submission().len()
    }

    fn registered(&self) -> u32 {
        self.registered
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("fd", &self.io.as_raw_fd())
            .field("registered", &self.registered)
            .finish_non_exhaustive()
    }
}

/// A file driven by io_uring.
///
/// The order of the fields is the order in which they go: rings, then the frames that are registered with them, then
/// the file.
#[derive(Debug)]
pub(super) struct Uring {
    stock: Mutex<Stock>,
    /// Does no I/O. The frames are registered with it, and other rings share that registration where the kernel can; so
    /// they are charged to the limit on locked memory once.
    base: Mutex<Ring>,
    state: Arc<RingState>,
    slab: Arc<Slab>,
    plain: Positioned,
}

#[derive(Debug)]
struct Stock {
    /// The last one back is the first one out, while it is still in the processor's caches.
    idle: Vec<Lane<Ring>>,
    made: usize,
}

impl Uring {
    /// The disk on an open file, or the file back and why there is no ring. Notes in the report what it has.
    pub(super) fn new(
        plain: Positioned,
        slab: &Arc<Slab>,
        engine: &mut Engine,
    ) -> Result<Self, (Positioned, String)> {
        let base = Ring::new(1, plain.file().as_raw_fd());
        let base = match base.and_then(|ring| Ok((ring.is_able()?, ring))) {
            Ok((true, ring)) => ring,
            Ok((false, _)) => return Err((plain, "the kernel's lacks operations".to_owned())),
            Err(error) => return Err((plain, refusal(&error))),
        };
        let state = Arc::new(RingState::default());
        let frames = slab.frames().min(REGISTERED_FRAMES_MAX);
        if frames == 0 {
            state.refuse("no registered frames: turned off".to_owned());
        } else if let Err(error) = base.io.submitter().register_buffers_sparse(frames) {
            state.refuse(format!("no registered frames: {}", refusal(&error)));
        }
        engine.set_ring(Arc::clone(&state));
        Ok(Self {
            stock: Mutex::new(Stock {
                idle: Vec::new(),
                made: 0,
            }),
            base: Mutex::new(base),
            state,
            slab: Arc::clone(slab),
            plain,
        })
    }

    /// A ring for one call, or nothing if there is none to be had.
    fn lane(&self) -> Option<Loan<'_>> {
        if self.state.is_stopped() {
            return None;
        }
        let mut stock = self.stock();
        let idle = stock.idle.pop();
        if idle.is_none() {
            if stock.made == RINGS_MAX {
                return None;
            }
            stock.made += 1;
        }
        drop(stock);
        let mut loan = Loan {
            disk: self,
            lane: idle,
        };
        if loan.lane.is_none() {
            loan.lane = self.new_lane();
        }
        self.catch_up(loan.lane.as_mut()?);
        Some(loan)
    }

    fn new_lane(&self) -> Option<Lane<Ring>> {
        let ring = Ring::new(DEPTH, self.plain.file().as_raw_fd()).ok()?;
        let depth = u16::try_from(ring.io.params().sq_entries()).map_or(DEPTH, |n| n.min(DEPTH));
        Some(Lane::new(ring, depth))
    }

    /// Lets the ring have the frames that were made since it was used last. What cannot be registered works all the
    /// same.
    fn catch_up(&self, lane: &mut Lane<Ring>) {
        let made = self.slab.made().min(REGISTERED_FRAMES_MAX);
        let known = self.state.frames();
        let is_all = known == made || self.state.is_refused();
        if lane.frames_seen == known && is_all {
            return;
        }
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.state.is_refused()
            && let Err(error) = base.register(&self.slab, made)
        {
            let (some, all) = (base.registered, self.slab.frames());
            let why = refusal(&error);
            self.state
                .refuse(format!("{some} of {all} frames registered: {why}"));
        }
        self.state.set_frames(base.registered);
        if lane.frames_seen != base.registered {
            lane.frames_seen = base.registered;
            // On failure it has none, and is not asked again before there are more.
            drop(lane.queue.share(&base, &self.slab));
        }
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for Uring {
    fn len_bytes(&self) -> u64 {
        self.plain.len_bytes()
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        self.plain.grow(len)
    }

    fn read(&self, reads: &mut [Read<'_>]) -> Vec<io::Result<()>> {
        let Some(mut loan) = self.lane() else {
            return self.plain.read(reads);
        };
        let count = reads.len();
        let mut flight = Flight::new(loan.lane(), &self.plain);
        flight.start_all(reads);
        each(count, flight.end())
    }

    fn read_and_show(
        &self,
        reads: &mut [Read<'_>],
        show: &mut dyn FnMut(usize, &[u8]),
    ) -> Vec<io::Result<()>> {
        let Some(mut loan) = self.lane() else {
            return self.plain.read_and_show(reads, show);
        };
        let starts: Vec<u64> = reads.iter().map(|read| read.at).collect();
        let count = reads.len();
        let mut flight = Flight::to_be_shown(loan.lane(), &self.plain);
        flight.start_all(reads);
        flight.show(starts, show);
        each(count, flight.end())
    }

    fn write(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()> {
        let Some(mut loan) = self.lane() else {
            return self.plain.write(writes);
        };
        let mut flight = Flight::new(loan.lane(), &self.plain);
        for (index, write) in writes.enumerate() {
            for job in Job::writes(index, &write) {
                flight.start(job);
            }
            flight.submit();
            if flight.has_failed() {
                break;
            }
        }
        first(flight.end())
    }

    fn sync(&self) -> io::Result<()> {
        let Some(mut loan) = self.lane() else {
            return self.plain.sync();
        };
        self.plain.check_flushes()?;
        let mut flight = Flight::new(loan.lane(), &self.plain);
        flight.start(Job::sync());
        self.plain.flushed(first(flight.end()))
    }
}

/// What became of each of so many ranges.
fn each(count: usize, failures: Vec<(usize, io::Error)>) -> Vec<io::Result<()>> {
    let mut results: Vec<_> = (0..count).map(|_| Ok(())).collect();
    for (index, error) in failures {
        results[index] = Err(error);
    }
    results
}

fn first(failures: Vec<(usize, io::Error)>) -> io::Result<()> {
    let first = failures.into_iter().next();
    first.map_or(Ok(()), |(_, error)| Err(error))
}

/// A ring taken out of the stock. It goes back when the call is over, if it is still good.
struct Loan<'d> {
    disk: &'d Uring,
    /// `None` only while it is being made, and in `drop`.
    lane: Option<Lane<Ring>>,
}

impl Loan<'_> {
    fn lane(&mut self) -> &mut Lane<Ring> {
        self.lane
            .as_mut()
            .expect("a loan is handed out with its ring")
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut lane = self.lane.take();
        if let Some(why) = lane.as_mut().and_then(|lane| lane.dead.take()) {
            let stopped = format!("no io_uring any more: {why}");
            self.disk.state.stop(stopped);
        }
        let lane = lane.filter(|lane| !lane.retired);
        let mut stock = self.disk.stock();
        match lane {
            Some(lane) => stock.idle.push(lane),
            None => stock.made -= 1,
        }
    }
}

/// Why the kernel refuses a ring, for the report.
fn refusal(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::NOSYS) if is_filtered() => "a seccomp filter hides it".to_owned(),
        Some(Errno::NOSYS) => "the kernel has none".to_owned(),
        Some(Errno::PERM | Errno::ACCESS) => {
            let switch = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            if switch.is_ok_and(|switch| switch.trim() != "0") {
                "the sysctl kernel.io_uring_disabled forbids it".to_owned()
            } else if is_filtered() {
                "a seccomp filter refuses it".to_owned()
            } else {
                format!("a security module refuses it ({error})")
            }
        }
        Some(Errno::NOMEM) => "the limit on locked memory (RLIMIT_MEMLOCK) is too low".to_owned(),
        Some(Errno::MFILE | Errno::NFILE) => "no file descriptor is left".to_owned(),
        _ => error.to_string(),
    }
}

/// Whether a seccomp filter stands between this thread and the kernel.
fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mut lines = status.lines();
    lines.any(|line| {
        line.strip_prefix("Seccomp:")
            .is_some_and(|mode| mode.trim() == "2")
    })
}
