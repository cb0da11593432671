//! The transfers that one call has under way on a ring.
//!
//! All waiting is done in one function, [`Flight::settle`]. What makes that hard is that the kernel goes on writing into a
//! buffer after a wait for it has failed; so the function has no way out but the last completion.

use std::collections::BTreeMap;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::refusal;
use crate::disk::positioned::{Positioned, nothing_written, past_the_end, wide};
use crate::disk::{Disk, Read, Write};

/// A range is moved in pieces of this length, side by side. Smaller ones keep a device busier, larger ones the processor
/// less. These were the best compromises for frames of 512 KiB on the machine that this was tuned on; a read gains more
/// from short pieces, since the caller looks at each while the next ones are under way.
const READ_LEN_BYTES: usize = 128 << 10;
const WRITE_LEN_BYTES: usize = 256 << 10;

/// How long to leave a kernel alone that cannot take a request or a wait now.
const PAUSE: Duration = Duration::from_micros(100);

/// What a kernel is asked to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) verb: Verb,
    pub(super) at: u64,
    pub(super) address: *mut u8,
    pub(super) len: u32,
    pub(super) registered: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Read,
    Write,
    Sync,
}

/// What the waiting function needs of a ring. The tests have one of their own that misbehaves on demand.
pub(super) trait Queue {
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
pub(super) struct Lane<Q> {
    pub(super) queue: Q,
    pub(super) depth: u16,
    /// The number of requests so far; part of their user data, so that no completion is taken for another's.
    pub(super) serial: u64,
    /// How many frames were registered when it was last told.
    pub(super) frames_seen: u32,
    /// Why it takes no more requests. Completions of those it took still arrive.
    pub(super) dead: Option<String>,
    /// It is not used again once this call is over.
    pub(super) retired: bool,
}

impl<Q: Queue> Lane<Q> {
    pub(super) fn new(queue: Q, depth: u16) -> Self {
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
pub(super) struct Job<'a> {
    /// The place of its range among those of the call.
    index: usize,
    at: u64,
    memory: Memory<'a>,
    registered: Option<u32>,
    done: usize,
}

pub(super) enum Memory<'a> {
    Into(&'a mut [u8]),
    From(&'a [u8]),
    /// A flush has none.
    None,
}

impl<'a> Job<'a> {
    pub(super) fn reads(index: usize, read: &'a mut Read<'_>) -> impl Iterator<Item = Self> {
        let (at, registered) = (read.at, read.registered);
        let memory = read.into.chunks_mut(READ_LEN_BYTES).map(Memory::Into);
        Self::pieces(index, at, READ_LEN_BYTES, memory, registered)
    }

    pub(super) fn writes(index: usize, write: &Write<'a>) -> impl Iterator<Item = Self> {
        let memory = write.from.chunks(WRITE_LEN_BYTES).map(Memory::From);
        Self::pieces(index, write.at, WRITE_LEN_BYTES, memory, write.registered)
    }

    /// The pieces of a range that begins at `at`, each of this length but for the last.
    fn pieces(
        index: usize,
        at: u64,
        piece_len: usize,
        memory: impl Iterator<Item = Memory<'a>>,
        registered: Option<u32>,
    ) -> impl Iterator<Item = Self> {
        let positions = (0_u64..).map(move |piece| at + piece * wide(piece_len));
        memory.zip(positions).map(move |(memory, at)| Self {
            index,
            at,
            memory,
            registered,
            done: 0,
        })
    }

    pub(super) fn sync() -> Self {
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
pub(super) struct Flight<'f, 'a, Q: Queue> {
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
    pub(super) fn new(lane: &'f mut Lane<Q>, plain: &'f Positioned) -> Self {
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

    /// One whose ranges are looked at with [`show`](Self::show).
    pub(super) fn to_be_shown(lane: &'f mut Lane<Q>, plain: &'f Positioned) -> Self {
        let mut flight = Self::new(lane, plain);
        flight.is_shown = true;
        flight
    }

    fn count(&self) -> usize {
        self.under_way.len() - self.free.len()
    }

    /// Starts a job, after waiting for a place if all are taken. The kernel hears of it at the next
    /// [`submit`](Self::submit) or [`settle`](Self::settle).
    pub(super) fn start(&mut self, job: Job<'a>) {
        let depth = usize::from(self.lane.depth);
        if self.count() == depth {
            self.settle(depth - 1);
        }
        self.push(job);
    }

    pub(super) fn start_all(&mut self, reads: &'a mut [Read<'_>]) {
        for (index, read) in reads.iter_mut().enumerate() {
            Job::reads(index, read).for_each(|job| self.start(job));
        }
    }

    /// Hands over what was started and takes in what has completed, without waiting. A refusal is met again by [`settle`](Self::settle).
    pub(super) fn submit(&mut self) {
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

    /// Waits for everything, and meanwhile shows what has arrived of each range, from its start on without a gap. `next`
    /// is where each range begins.
    pub(super) fn show(&mut self, mut next: Vec<u64>, show: &mut dyn FnMut(usize, &[u8])) {
        loop {
            let mut from = 0;
            // Only ranges of which something has arrived: there may be many, and little arrives at a time.
            while let Some((&(index, _), _)) = self.arrived.range((from, 0)..).next() {
                let at = &mut next[index];
                while let Some(piece) = self.arrived.remove(&(index, *at)) {
                    show(index, piece);
                    *at += wide(piece.len());
                }
                from = index + 1;
            }
            match self.count() {
                0 => return,
                left => self.settle(left - 1),
            }
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Waits for everything and tells what failed, by the index of the job.
    pub(super) fn end(mut self) -> Vec<(usize, io::Error)> {
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

#[cfg(test)]
mod tests;
