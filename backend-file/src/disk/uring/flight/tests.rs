//! The waiting function under a ring that does everything a kernel may do, and some things that it may not.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::slice;

use super::*;
use crate::disk::SECTOR_LEN_BYTES;

/// Enough for a range of several pieces.
const SECTORS: usize = 160;

/// How often, in a hundred, something happens.
#[derive(Debug, Clone, Copy, Default)]
struct Habits {
    /// `enter` fails with this before it has done anything.
    refuse: Option<(u32, Errno)>,
    /// `enter` waits for nothing.
    hurry: u32,
    /// A transfer is cut short, at a whole sector.
    short: u32,
    /// A request is answered with this and not carried out.
    fail: Option<(u32, Errno)>,
    /// A completion comes that nobody asked for.
    stray: u32,
    /// After so many calls `enter` fails for good.
    die_after: Option<u32>,
}

/// A ring on a plain file. It moves the bytes as late as possible: when the completion is fetched.
struct Fake {
    file: File,
    habits: Habits,
    random: u64,
    pushed: VecDeque<(Request, u64)>,
    taken: Vec<(Request, u64)>,
    completed: VecDeque<(u64, i32)>,
    enters: u32,
    most_taken: usize,
}

impl Fake {
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % u64::try_from(bound).unwrap()).unwrap()
    }

    fn happens(&mut self, in_a_hundred: u32) -> bool {
        self.below(100) < usize::try_from(in_a_hundred).unwrap()
    }

    /// Carries out one of the requests taken, any of them.
    fn work(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let at = self.below(self.taken.len());
        let (request, user_data) = self.taken.swap_remove(at);
        let habits = self.habits;
        let result = match habits.fail {
            Some((often, errno)) if self.happens(often) => -errno.raw_os_error(),
            _ => self.carry_out(&request),
        };
        if self.happens(self.habits.stray) {
            self.completed.push_back((user_data ^ (1 << 40), 4096));
        }
        self.completed.push_back((user_data, result));
    }

    #[expect(unsafe_code, reason = "this is the kernel's part")]
    fn carry_out(&mut self, request: &Request) -> i32 {
        let mut len = usize::try_from(request.len).unwrap();
        if len > SECTOR_LEN_BYTES && self.happens(self.habits.short) {
            let sectors = len / SECTOR_LEN_BYTES;
            len = SECTOR_LEN_BYTES * (1 + self.below(sectors - 1));
        }
        let moved = match request.verb {
            Verb::Read => {
                // SAFETY: the flight that made the request keeps the memory for it until it has the completion.
                let into = unsafe { slice::from_raw_parts_mut(request.address, len) };
                self.file.read_at(into, request.at).unwrap()
            }
            Verb::Write => {
                // SAFETY: as above.
                let from = unsafe { slice::from_raw_parts(request.address, len) };
                self.file.write_at(from, request.at).unwrap()
            }
            Verb::Sync => 0,
        };
        i32::try_from(moved).unwrap()
    }
}

impl Queue for Fake {
    fn push(&mut self, request: &Request, user_data: u64) {
        self.pushed.push_back((*request, user_data));
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
        self.enters += 1;
        if self.habits.die_after.is_some_and(|last| self.enters > last) {
            // It may have taken some of them before it died.
            return Err(Errno::PERM.into());
        }
        if let Some((often, errno)) = self.habits.refuse
            && self.happens(often)
        {
            return Err(errno.into());
        }
        // It need not take all of them at once.
        let count = self
            .below(self.pushed.len() + 1)
            .max(self.pushed.len().min(1));
        self.taken.extend(self.pushed.drain(..count));
        self.most_taken = self.most_taken.max(self.taken.len());
        if !self.happens(self.habits.hurry) {
            for _ in 0..want {
                self.work();
            }
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<(u64, i32)> {
        if self.completed.is_empty() && self.happens(30) {
            self.work();
        }
        self.completed.pop_front()
    }

    fn untaken(&mut self) -> usize {
        self.pushed.len()
    }

    fn registered(&self) -> u32 {
        0
    }
}

struct Bed {
    lane: Lane<Fake>,
    plain: Positioned,
}

fn bed(seed: u64, habits: Habits) -> Bed {
    let file = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = File::from(file);
    let same = file.try_clone().unwrap();
    let plain = Positioned::new(file, true).unwrap();
    plain.grow(wide(SECTORS * SECTOR_LEN_BYTES)).unwrap();
    let queue = Fake {
        file: same,
        habits,
        random: (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        pushed: VecDeque::new(),
        taken: Vec::new(),
        completed: VecDeque::new(),
        enters: 0,
        most_taken: 0,
    };
    let depth = u16::try_from(1 + seed % 6).unwrap();
    Bed {
        lane: Lane::new(queue, depth),
        plain,
    }
}

/// The sectors of a range, each filled with its own pattern.
fn pattern(first: usize, sectors: usize, salt: u8) -> Vec<u8> {
    let sector = |n: usize| vec![u8::try_from(n).unwrap().wrapping_mul(3) ^ salt; SECTOR_LEN_BYTES];
    (first..first + sectors).flat_map(sector).collect()
}

/// Ranges of different lengths that cover the file without overlap.
fn ranges(seed: u64) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    let (mut at, mut step) = (0, usize::try_from(seed % 7).unwrap());
    while at < SECTORS {
        step = (step * 5 + 3) % 7;
        let sectors = (step + 1).min(SECTORS - at);
        ranges.push((at, sectors));
        at += sectors;
    }
    ranges
}

fn write_and_read(bed: &mut Bed, seed: u64) {
    let salt = u8::try_from(seed % 251).unwrap();
    let ranges = ranges(seed);
    let data: Vec<_> = ranges.iter().map(|&(at, n)| pattern(at, n, salt)).collect();
    let position = |at: usize| wide(at * SECTOR_LEN_BYTES);
    let mut flight = Flight::new(&mut bed.lane, &bed.plain);
    for (index, (&(at, _), from)) in ranges.iter().zip(&data).enumerate() {
        let write = Write {
            at: position(at),
            from,
            registered: None,
        };
        Job::writes(index, &write).for_each(|job| flight.start(job));
        flight.submit();
    }
    assert!(flight.end().is_empty());
    let mut flight = Flight::new(&mut bed.lane, &bed.plain);
    flight.start(Job::sync());
    assert!(flight.end().is_empty());

    let mut back: Vec<_> = data.iter().map(|data| vec![0xEE; data.len()]).collect();
    let mut reads: Vec<_> = ranges
        .iter()
        .zip(&mut back)
        .map(|(&(at, _), into)| Read {
            at: position(at),
            into,
            registered: None,
        })
        .collect();
    let mut flight = Flight::new(&mut bed.lane, &bed.plain);
    flight.start_all(&mut reads);
    assert!(flight.end().is_empty());
    assert_eq!(back, data);
    assert!(
        bed.lane.queue.taken.is_empty(),
        "the kernel still has a request"
    );
    show(bed, salt);
}

/// Reads the whole file as two ranges, and looks at it in the way that a caller is shown it.
fn show(bed: &mut Bed, salt: u8) {
    let whole = pattern(0, SECTORS, salt);
    let (first, second) = whole.split_at(SECTOR_LEN_BYTES);
    let mut into = [vec![0xEE; first.len()], vec![0xEE; second.len()]];
    let starts = [0, wide(first.len())];
    let mut reads: Vec<_> = starts
        .into_iter()
        .zip(&mut into)
        .map(|(at, into)| Read {
            at,
            into,
            registered: None,
        })
        .collect();
    let mut shown = [Vec::new(), Vec::new()];
    let mut flight = Flight::to_be_shown(&mut bed.lane, &bed.plain);
    flight.start_all(&mut reads);
    flight.show(starts.to_vec(), &mut |index, part| {
        shown[index].extend_from_slice(part);
    });
    assert!(flight.end().is_empty());
    assert_eq!(shown, [first, second]);
    assert_eq!(into, [first, second]);
}

#[test]
fn whatever_the_ring_does_every_byte_arrives() {
    let calm = Habits::default();
    let odd = [
        calm,
        Habits { short: 60, ..calm },
        Habits { hurry: 70, ..calm },
        Habits {
            refuse: Some((60, Errno::INTR)),
            ..calm
        },
        Habits {
            refuse: Some((10, Errno::AGAIN)),
            ..calm
        },
        Habits {
            refuse: Some((10, Errno::BUSY)),
            ..calm
        },
        Habits {
            fail: Some((40, Errno::INTR)),
            short: 20,
            ..calm
        },
        Habits {
            fail: Some((40, Errno::AGAIN)),
            short: 20,
            ..calm
        },
        Habits {
            fail: Some((40, Errno::CANCELED)),
            ..calm
        },
        Habits {
            stray: 20,
            short: 20,
            hurry: 20,
            ..calm
        },
        Habits {
            die_after: Some(0),
            ..calm
        },
        Habits {
            die_after: Some(3),
            short: 30,
            hurry: 50,
            ..calm
        },
        Habits {
            die_after: Some(11),
            stray: 10,
            ..calm
        },
    ];
    for habits in odd {
        for seed in 0..12 {
            let mut bed = bed(seed, habits);
            for round in 0..2 {
                write_and_read(&mut bed, seed + round);
            }
            let lane = &bed.lane;
            assert!(lane.queue.most_taken <= usize::from(lane.depth));
            assert!(
                habits.stray < 20 || lane.retired,
                "a ring that answers for others is used again"
            );
            let is_broken = habits.stray > 0 || habits.die_after.is_some();
            assert!(
                is_broken || !lane.retired,
                "{habits:?} is no reason to give up a ring"
            );
            assert!(habits.die_after.is_none() || lane.retired, "{habits:?}");
        }
    }
}

#[test]
fn an_error_is_told_for_the_transfer_that_met_it() {
    for errno in [Errno::IO, Errno::NOSPC] {
        let habits = Habits {
            fail: Some((100, errno)),
            ..Habits::default()
        };
        let mut bed = bed(3, habits);
        let data = pattern(0, 2, 1);
        let write = Write {
            at: 0,
            from: &data,
            registered: None,
        };
        let mut flight = Flight::new(&mut bed.lane, &bed.plain);
        for index in 0..9 {
            Job::writes(index, &write).for_each(|job| flight.start(job));
        }
        let mut failures = flight.end();
        failures.sort_unstable_by_key(|(index, _)| *index);
        assert_eq!(failures.len(), 9);
        for (index, (failed, error)) in failures.iter().enumerate() {
            assert_eq!((index, Errno::from_io_error(error)), (*failed, Some(errno)));
        }
    }
}

/// A failed flush must not be asked again: the kernel tells of it once, and the next one would succeed.
#[test]
fn a_failed_flush_is_not_repeated() {
    let habits = Habits {
        fail: Some((100, Errno::IO)),
        ..Habits::default()
    };
    let mut bed = bed(0, habits);
    let mut flight = Flight::new(&mut bed.lane, &bed.plain);
    flight.start(Job::sync());
    let failures = flight.end();
    assert_eq!(failures.len(), 1);
    assert_eq!(bed.lane.serial, 1);
}

#[test]
fn the_end_of_the_file_is_an_error() {
    let mut bed = bed(0, Habits::default());
    let mut into = vec![0; 3 * SECTOR_LEN_BYTES];
    let mut read = Read {
        at: wide((SECTORS - 2) * SECTOR_LEN_BYTES),
        into: &mut into,
        registered: None,
    };
    let mut flight = Flight::new(&mut bed.lane, &bed.plain);
    Job::reads(0, &mut read).for_each(|job| flight.start(job));
    let [(0, error)] = &flight.end()[..] else {
        panic!("one failure");
    };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn unwinding_waits_too() {
    for seed in 0..20 {
        let habits = Habits {
            hurry: 60,
            refuse: Some((40, Errno::INTR)),
            ..Habits::default()
        };
        let mut bed = bed(seed, habits);
        let data = pattern(0, 4, 9);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let mut flight = Flight::new(&mut bed.lane, &bed.plain);
            let write = Write {
                at: 0,
                from: &data,
                registered: None,
            };
            for index in 0..5 {
                Job::writes(index, &write).for_each(|job| flight.start(job));
                flight.submit();
            }
            resume_unwind(Box::new("as planned"));
        }));
        unwound.unwrap_err();
        assert!(
            bed.lane.queue.taken.is_empty(),
            "the kernel still has a request"
        );
        assert!(bed.lane.queue.pushed.is_empty());
        write_and_read(&mut bed, seed);
    }
}
