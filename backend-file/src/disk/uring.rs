//! The disk on io_uring: many transfers under way at once, and the flush through the same ring.
//!
//! A call takes a ring of its own from a small stock, so that no call waits for another's completions, and puts it back
//! when everything it started has completed. All waiting is done in one function, [`Flight::settle`]. What makes that
//! hard is that the kernel goes on writing into a buffer after a wait for it has failed; so the function has no way out
//! but the last completion.
//!
//! All `unsafe` of this crate is in this file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, Probe, opcode};
use larder_traits::frame::PAGE_SIZE;
use rustix::io::Errno;

use super::engine::{Engine, RingState};
use super::positioned::{Positioned, nothing_written, past_the_end, wide};
use super::{Disk, Read, Write};
use crate::pool::Slab;

/// A range is moved in pieces of this length, side by side. Smaller ones keep a device busier, larger ones the processor
/// less. These were the best compromises for frames of 512 KiB on the machine that this was tuned on; a read gains more
/// from short pieces, since the caller looks at each while the next ones are under way.
const READ_LEN_BYTES: usize = 128 << 10;
const WRITE_LEN_BYTES: usize = 256 << 10;

/// How many pieces a call keeps under way; half as many were slower in long batches.
const DEPTH: u16 = 64;

/// How many calls can have a ring at the same time. Beyond that they use positioned calls.
const RINGS_MAX: usize = 16;

/// The kernel's own bound on registered buffers.
const REGISTERED_FRAMES_MAX: u32 = 16_384;

/// How long to leave a kernel alone that cannot take a request or a wait now.
const PAUSE: Duration = Duration::from_micros(100);

/// What a kernel is asked to do.
#[derive(Debug, Clone, Copy)]
struct Request {
    verb: Verb,
    at: u64,
    address: *mut u8,
    len: u32,
    registered: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Read,
    Write,
    Sync,
}

/// What the waiting function needs of a ring. The tests have one of their own that misbehaves on demand.
trait Queue {
    /// Puts a request where the next [`enter`](Self::enter) finds it. There is room for as many as the depth.
    fn push(&mut self, request: &Request, user_data: u64);

    /// Hands over what was pushed and waits for so many completions. It may return early for any reason.
    fn enter(&mut self, want: usize) -> io::Result<()>;

    /// The next completion that is there: its user data, and its result as a length or a negated error number.
    fn pop(&mut self) -> Option<(u64, i32)>;

    /// How many requests the kernel has not taken yet; they are the ones pushed last.
    fn untaken(&mut self) -> usize;

    /// How many buffers are registered.
    fn registered(&self) -> u32;
}

/// A queue with what has to outlast a single call on it.
#[derive(Debug)]
struct Lane<Q> {
    queue: Q,
    depth: u16,
    /// The number of requests so far; part of their user data, so that no completion is taken for another's.
    serial: u64,
    /// How many frames were registered when it was last told.
    frames_seen: u32,
    /// Why it takes no more requests. Completions of those it took still arrive.
    dead: Option<String>,
    /// It is not used again once this call is over.
    retired: bool,
}

impl<Q: Queue> Lane<Q> {
    fn new(queue: Q, depth: u16) -> Self {
        Self {
            queue,
            depth,
            serial: 0,
            frames_seen: 0,
            dead: None,
            retired: false,
        }
    }
}

/// One piece of a range or one flush, and how far it came.
struct Job<'a> {
    /// The place of its range among those of the call.
    index: usize,
    at: u64,
    memory: Memory<'a>,
    registered: Option<u32>,
    done: usize,
}

enum Memory<'a> {
    Into(&'a mut [u8]),
    From(&'a [u8]),
    /// A flush has none.
    None,
}

impl<'a> Job<'a> {
    fn reads(index: usize, read: &'a mut Read<'_>) -> impl Iterator<Item = Self> {
        let (at, registered) = (read.at, read.registered);
        let pieces = read
            .into
            .chunks_mut(READ_LEN_BYTES)
            .zip(positions(at, READ_LEN_BYTES));
        pieces.map(move |(into, at)| Self {
            index,
            at,
            memory: Memory::Into(into),
            registered,
            done: 0,
        })
    }

    fn writes(index: usize, write: &Write<'a>) -> impl Iterator<Item = Self> {
        let (at, registered) = (write.at, write.registered);
        let pieces = write
            .from
            .chunks(WRITE_LEN_BYTES)
            .zip(positions(at, WRITE_LEN_BYTES));
        pieces.map(move |(from, at)| Self {
            index,
            at,
            memory: Memory::From(from),
            registered,
            done: 0,
        })
    }

    fn sync() -> Self {
        Self {
            index: 0,
            at: 0,
            memory: Memory::None,
            registered: None,
            done: 0,
        }
    }

    fn len(&self) -> usize {
        match &self.memory {
            Memory::Into(into) => into.len(),
            Memory::From(from) => from.len(),
            Memory::None => 0,
        }
    }

    /// The request for what is left of it.
    fn request(&mut self, registered_max: u32) -> Request {
        let len = u32::try_from(self.len() - self.done).expect("a piece is short");
        let (verb, address) = match &mut self.memory {
            Memory::Into(into) => (Verb::Read, into[self.done..].as_mut_ptr()),
            Memory::From(from) => (Verb::Write, from[self.done..].as_ptr().cast_mut()),
            Memory::None => (Verb::Sync, std::ptr::null_mut()),
        };
        let registered = self.registered.filter(|&slot| slot < registered_max);
        Request {
            verb,
            at: self.at + wide(self.done),
            address,
            len,
            registered: registered.and_then(|slot| u16::try_from(slot).ok()),
        }
    }

    /// Takes in what the kernel answered.
    fn answered(&mut self, result: i32, plain: &Positioned) -> Next {
        let Ok(moved) = usize::try_from(result) else {
            return match Errno::from_raw_os_error(-result) {
                Errno::INTR => Next::Again,
                // The request was not carried out, for reasons that are the ring's or the moment's. The plain call
                // decides; a flush that was carried out and failed is not among these.
                Errno::AGAIN | Errno::CANCELED | Errno::OPNOTSUPP | Errno::NOMEM | Errno::FAULT => {
                    Next::Plain
                }
                errno => Next::Failed(errno.into()),
            };
        };
        let left = self.len() - self.done;
        if moved > left {
            return Next::Failed(io::Error::other("the ring moved more than it was asked to"));
        }
        if moved == left {
            return Next::Done;
        }
        let moved = plain.progress(moved);
        self.done += moved;
        match (&self.memory, moved) {
            (Memory::Into(_), 0) => Next::Failed(past_the_end()),
            (_, 0) => Next::Failed(nothing_written()),
            _ => Next::Again,
        }
    }

    /// Does what is left of it without a ring.
    fn finish(&mut self, plain: &Positioned) -> io::Result<()> {
        let at = self.at + wide(self.done);
        match &mut self.memory {
            Memory::Into(into) => plain.fill(at, &mut into[self.done..]),
            Memory::From(from) => plain.put(at, &from[self.done..]),
            Memory::None => plain.sync(),
        }
    }
}

/// Where the pieces of a range begin that begins there itself.
fn positions(at: u64, piece_len: usize) -> impl Iterator<Item = u64> {
    (0_u64..).map(move |piece| at + piece * wide(piece_len))
}

/// What becomes of a job after an answer.
enum Next {
    Done,
    Again,
    Plain,
    Failed(io::Error),
}

struct UnderWay<'a> {
    user_data: u64,
    job: Job<'a>,
}

/// What one call has under way. Dropping it waits for the rest, also on unwinding.
struct Flight<'f, 'a, Q: Queue> {
    lane: &'f mut Lane<Q>,
    plain: &'f Positioned,
    /// The place in here is the low part of the user data. There are as many places as were needed at once.
    under_way: Vec<Option<UnderWay<'a>>>,
    free: Vec<u16>,
    failures: Vec<(usize, io::Error)>,
    /// Whether what was read is handed out piece by piece.
    is_shown: bool,
    /// The pieces that were read and not handed out yet.
    arrived: Arrived<'a>,
}

/// Pieces of ranges, by the place of the range and by where the piece begins in the file.
type Arrived<'a> = BTreeMap<(usize, u64), &'a [u8]>;

impl<'f, 'a, Q: Queue> Flight<'f, 'a, Q> {
    fn new(lane: &'f mut Lane<Q>, plain: &'f Positioned) -> Self {
        Self {
            lane,
            plain,
            under_way: Vec::new(),
            free: Vec::new(),
            failures: Vec::new(),
            is_shown: false,
            arrived: Arrived::new(),
        }
    }

    fn count(&self) -> usize {
        self.under_way.len() - self.free.len()
    }

    /// Starts a job, after waiting for a place if all are taken. The kernel hears of it at the next
    /// [`submit`](Self::submit) or [`settle`](Self::settle).
    fn start(&mut self, job: Job<'a>) {
        let depth = usize::from(self.lane.depth);
        if self.count() == depth {
            self.settle(depth - 1);
        }
        self.push(job);
    }

    fn start_all(&mut self, reads: &'a mut [Read<'_>]) {
        for (index, read) in reads.iter_mut().enumerate() {
            Job::reads(index, read).for_each(|job| self.start(job));
        }
    }

    /// Hands over what was started and takes in what has completed, without waiting. A refusal is met again by [`settle`](Self::settle).
    fn submit(&mut self) {
        if self.lane.dead.is_none() && self.lane.queue.untaken() > 0 {
            drop(self.lane.queue.enter(0));
        }
        self.reap();
    }

    /// Waits until at most so many jobs are under way.
    ///
    /// This is the only place where completions are awaited. It returns when they came, and for no other reason: as
    /// long as a request is with the kernel, the kernel may use its memory.
    fn settle(&mut self, under_way_max: usize) {
        loop {
            self.reap();
            let want = self.count().saturating_sub(under_way_max);
            if want == 0 {
                return;
            }
            if self.lane.dead.is_some() {
                // It takes no more calls, but completions of what it took before still arrive.
                thread::sleep(PAUSE);
                continue;
            }
            let Err(error) = self.lane.queue.enter(want) else {
                continue;
            };
            match Errno::from_io_error(&error) {
                Some(Errno::INTR) => {}
                // Short of memory, or of room for completions, which the next round makes.
                Some(Errno::AGAIN | Errno::BUSY) => thread::sleep(PAUSE),
                _ => self.withdraw(refusal(&error)),
            }
        }
    }

    fn reap(&mut self) {
        while let Some((user_data, result)) = self.lane.queue.pop() {
            self.complete(user_data, result);
        }
    }

    /// Takes in one completion.
    fn complete(&mut self, user_data: u64, result: i32) {
        let place = u16::try_from(user_data & u64::from(u16::MAX)).expect("sixteen bits");
        let found = self.under_way.get_mut(usize::from(place));
        let Some(UnderWay { mut job, .. }) =
            found.and_then(|found| found.take_if(|found| found.user_data == user_data))
        else {
            // Nobody made this request, so something is wrong with the ring; those that we made still count.
            self.lane.retired = true;
            return;
        };
        self.free.push(place);
        match job.answered(result, self.plain) {
            Next::Done => self.done(job),
            Next::Again => self.push(job),
            Next::Plain => self.finish(job),
            Next::Failed(error) => self.failures.push((job.index, error)),
        }
    }

    fn push(&mut self, mut job: Job<'a>) {
        if self.lane.dead.is_some() {
            return self.finish(job);
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.under_way.push(None);
            u16::try_from(self.under_way.len() - 1)
                .expect("there are no more places than the depth")
        });
        self.lane.serial += 1;
        let user_data = (self.lane.serial << 16) | u64::from(place);
        let request = job.request(self.lane.queue.registered());
        self.under_way[usize::from(place)] = Some(UnderWay { user_data, job });
        self.lane.queue.push(&request, user_data);
    }

    /// The ring takes no more requests: does those without it that it has not taken.
    fn withdraw(&mut self, why: String) {
        self.lane.dead = Some(why);
        self.lane.retired = true;
        let untaken = wide(self.lane.queue.untaken());
        let taken = self.lane.serial - untaken;
        for place in 0..self.under_way.len() {
            let found = &mut self.under_way[place];
            if let Some(found) = found.take_if(|found| found.user_data >> 16 > taken) {
                self.free
                    .push(u16::try_from(place).expect("places have small numbers"));
                self.finish(found.job);
            }
        }
    }

    fn done(&mut self, job: Job<'a>) {
        if self.is_shown
            && let Memory::Into(read) = job.memory
        {
            self.arrived.insert((job.index, job.at), read);
        }
    }

    /// Waits for everything, and meanwhile shows what has arrived of each range, from its start on without a gap.
    fn show(&mut self, starts: impl Iterator<Item = u64>, show: &mut dyn FnMut(usize, &[u8])) {
        let mut next: Vec<u64> = starts.collect();
        loop {
            for (index, at) in next.iter_mut().enumerate() {
                while let Some(piece) = self.arrived.remove(&(index, *at)) {
                    show(index, piece);
                    *at += wide(piece.len());
                }
            }
            match self.count() {
                0 => return,
                left => self.settle(left - 1),
            }
        }
    }

    fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Waits for everything and tells what failed, by the index of the job.
    fn end(mut self) -> Vec<(usize, io::Error)> {
        self.settle(0);
        std::mem::take(&mut self.failures)
    }

    fn finish(&mut self, mut job: Job<'a>) {
        match job.finish(self.plain) {
            Ok(()) => self.done(job),
            Err(error) => self.failures.push((job.index, error)),
        }
    }
}

impl<Q: Queue> Drop for Flight<'_, '_, Q> {
    fn drop(&mut self) {
        self.settle(0);
    }
}

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
        let mut flight = Flight::new(loan.lane(), &self.plain);
        flight.is_shown = true;
        flight.start_all(reads);
        flight.show(starts.into_iter(), show);
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

#[cfg(test)]
mod tests;
