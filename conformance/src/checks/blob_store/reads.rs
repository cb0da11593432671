//! Many reads in one call, and parts of frames: BS-1, BS-2 and C-4.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_traits::{AlignedBlobBuf, BlobGuid, Classify, ErrorKind, PAGE_SIZE};
use proptest::prelude::*;

use super::content::{Content, filled, frame};
use super::guid;
use super::pace::Pace;
use super::threads::{Job, Progress, mark, marked, threads, writes};
use crate::blob_store::{Batch, Handle, World};
use crate::check::{Outcome, Stop, describe};
use crate::checks::refused;
use crate::cx::Cx;

/// What each blob holds; the others are absent.
type Holds = BTreeMap<BlobGuid, Content>;

/// Reads all of these in one call: each has its own answer, in its own place.
fn each(cx: &Cx<dyn World>, reader: &Handle, names: &[BlobGuid], holds: &Holds) -> Outcome {
    let seen = reader.read_all(names)?;
    for (at, (name, seen)) in names.iter().zip(seen).enumerate() {
        let what = format!("read_blobs of {}: the read {at}, of {name}", names.len());
        match (seen, holds.get(name)) {
            (Ok(seen), Some(expected)) => cx.eq(what, &seen, expected)?,
            (Err(e), Some(_)) => return Err(Stop::error(what, &e)),
            (result, None) => refused(&what, result, ErrorKind::NotFound)?,
        }
    }
    Ok(())
}

pub(super) async fn bs_1_3(cx: &Cx<dyn World>) -> Outcome {
    /// More than the usual depth of a queue, and 50 MiB of buffers.
    const MANY: usize = 100;
    const LISTS: [&[u128]; 8] = [
        &[],
        &[0],
        &[9],
        &[5, 3, 1, 0, 2, 4],
        &[2, 2, 2],
        &[9, 0, 9, 1, 8],
        &[0, 1, 9],
        &[5, 5, 9, 3, 5, 9],
    ];
    let (a, b) = cx.open_two("p").await?;
    let mut holds = Holds::new();
    for at in 0..5_u64 {
        a.write(guid(at.into()), at)?;
        holds.insert(guid(at.into()), Content::Frame(at));
    }
    a.write_buf(guid(5), &filled(0))?;
    holds.insert(guid(5), Content::Filled(0));
    let mut rng = cx.rng();
    // Unflushed, flushed, and then changed without a flush.
    for round in 0..3_u64 {
        for names in LISTS {
            let names: Vec<BlobGuid> = names.iter().copied().map(guid).collect();
            each(cx, &b, &names, &holds)?;
        }
        let many = (0..MANY).map(|_| guid(rng.random_range(0..10)));
        each(cx, &b, &many.collect::<Vec<_>>(), &holds)?;
        match round {
            0 => a.flush()?,
            _ => {
                a.write(guid(2), 102)?;
                a.delete(guid(3))?;
                a.write(guid(9), 109)?;
                holds.insert(guid(2), Content::Frame(102));
                holds.remove(&guid(3));
                holds.insert(guid(9), Content::Frame(109));
            }
        }
    }
    // Asking for it has not made it.
    cx.eq("list_blobs()", &b.list()?, &holds.into_keys().collect())
}

/// Ranges within a frame: around its ends, the sectors, the pages, and all of it.
const RANGES: [(usize, usize); 16] = [
    (0, PAGE_SIZE),
    (0, 0),
    (0, 1),
    (PAGE_SIZE - 1, 1),
    (PAGE_SIZE, 0),
    (PAGE_SIZE / 2, 0),
    (1, PAGE_SIZE - 1),
    (0, PAGE_SIZE - 1),
    (511, 2),
    (512, 512),
    (513, 511),
    (4_095, 2),
    (4_096, 4_096),
    (8_191, 8_194),
    (PAGE_SIZE - 4_097, 4_097),
    (PAGE_SIZE / 2 - 65_537, 131_074),
];

/// What stands on either side of a buffer that is filled.
const GUARD: u8 = 0x5e;

/// Reads a part into the middle of a longer buffer, at any alignment; nothing beside it may change.
fn part(
    cx: &Cx<dyn World>,
    reader: &Handle,
    name: BlobGuid,
    (offset, len): (usize, usize),
    expected: &[u8],
) -> Outcome {
    let before = 1 + offset % 7;
    let mut buf = vec![GUARD; before + len + 9];
    let dst = &mut buf[before..before + len];
    // What is there already has to go.
    dst.fill(!expected.get(offset).copied().unwrap_or(0));
    let what = format!("read_blob_range({name}, {offset}) of {len} bytes");
    let result = reader.try_read_range(name, offset, dst);
    result.map_err(|e| Stop::error(what.clone(), &e))?;
    let mut seen = buf[before..before + len]
        .iter()
        .zip(&expected[offset..offset + len]);
    let differs = seen.position(|(seen, expected)| seen != expected);
    if let Some(at) = differs {
        let observed = format!("other bytes from byte {at} of the range on");
        return Err(Stop::fail(what, observed, "the same bytes as read_blob"));
    }
    buf.drain(before..before + len);
    cx.require(
        buf.iter().all(|byte| *byte == GUARD),
        what,
        "bytes beside the buffer were changed",
        "the buffer alone is filled",
    )
}

pub(super) async fn bs_1_4(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut last_byte = filled(0);
    last_byte[PAGE_SIZE - 1] = 1;
    let frames = [frame(1), last_byte, filled(0), filled(0xff), frame(2)];
    let mut rng = cx.rng();
    for (name, src) in (1..).map(guid).zip(&frames) {
        // Over an older frame that was flushed, before the next flush and after it.
        a.write(name, 1_000)?;
        a.flush()?;
        a.write_buf(name, src)?;
        for _ in 0..2 {
            let random = (0..8).map(|_| {
                let offset = rng.random_range(0..=PAGE_SIZE);
                (offset, rng.random_range(0..=PAGE_SIZE - offset))
            });
            for range in RANGES.into_iter().chain(random) {
                part(cx, &b, name, range, src)?;
            }
            a.flush()?;
        }
        a.delete(name)?;
        for (offset, len) in RANGES {
            let what = format!("read_blob_range({name}, {offset}) of {len} bytes, deleted");
            let result = b.try_read_range(name, offset, &mut vec![0; len]);
            refused(&what, result, ErrorKind::NotFound)?;
        }
    }
    cx.eq("list_blobs()", &b.list()?, &Vec::new())
}

pub(super) async fn c_4_1(cx: &Cx<dyn World>) -> Outcome {
    let within = [(0, PAGE_SIZE), (PAGE_SIZE, 0), (PAGE_SIZE - 1, 1)];
    let beyond = [
        (0, PAGE_SIZE + 1),
        (1, PAGE_SIZE),
        (PAGE_SIZE, 1),
        (PAGE_SIZE + 1, 0),
        (PAGE_SIZE - 1, 2),
        (2 * PAGE_SIZE, 512),
        (usize::MAX, 0),
        (usize::MAX, 1),
        (usize::MAX - 511, 512),
        (usize::MAX - 511, PAGE_SIZE),
    ];
    let (a, b) = cx.open_two("p").await?;
    let src = frame(1);
    a.write_buf(guid(1), &src)?;
    for range in within {
        part(cx, &b, guid(1), range, &src)?;
    }
    for (offset, len) in beyond {
        // Before it is asked whether there is such a blob.
        for name in [guid(1), guid(2)] {
            let what = format!("read_blob_range({name}, {offset}) of {len} bytes, past the end");
            let result = b.try_read_range(name, offset, &mut vec![0; len]);
            refused(&what, result, ErrorKind::InvalidInput)?;
        }
    }
    b.expect("after ranges past its end", guid(1), Some(1))
}

/// The ranges that readers of a rewritten frame look at: each is of whole sectors, and crosses the middle or an end.
const LOOKED_AT: [(usize, usize); 4] = [
    (PAGE_SIZE / 2 - 4_096, 8_192),
    (0, PAGE_SIZE),
    (512, PAGE_SIZE - 512),
    (PAGE_SIZE - 131_072, 131_072),
];

/// Which two blobs are rewritten.
const REWRITTEN: [u64; 2] = [1, 2];

/// One blob that is rewritten by one writer.
fn rewrites(a: &Handle, name: u64, progress: &Arc<Progress>, pace: &Arc<Pace>) -> Job {
    let (writer, progress, pace) = (a.clone(), Arc::clone(progress), Arc::clone(pace));
    Box::new(move |ended| {
        let mut src = writer.store().alloc_blob_buf_uninit();
        let mut count = 0;
        while pace.goes_on(count, ended) {
            count += 1;
            mark(&mut src, 2 * count + name % 2);
            progress.begun.store(count, Ordering::SeqCst);
            let written = writer.store().write_blob(guid(name.into()), &src);
            written.map_err(|e| Stop::error("a write beside readers", &e))?;
            progress.done.store(count, Ordering::SeqCst);
        }
        Ok(())
    })
}

/// What was read of a blob while its writer had come from `done` to `begun`.
fn judged(what: &str, name: u64, bytes: &[u8], done: u64, begun: u64) -> Outcome {
    let seen = marked(bytes).map_err(|seen| Stop::fail(what, seen, "one frame"))?;
    if seen % 2 != name % 2 {
        return Err(Stop::fail(what, "another blob", format!("blob {name}")));
    }
    let count = seen / 2;
    if count < done || count > begun {
        let expected = format!("one of write {done} to {begun}");
        return Err(Stop::fail(what, format!("write {count}"), expected));
    }
    Ok(())
}

/// Reads in every way there is but the plain one, until the writers have ended.
fn looks(b: &Handle, progress: &[Arc<Progress>; 2], pace: &Arc<Pace>) -> Job {
    let (reader, progress, pace) = (b.clone(), progress.clone(), Arc::clone(pace));
    Box::new(move |ended| {
        let mut bufs: Vec<AlignedBlobBuf> = (0..3).map(|_| filled(0xaa)).collect();
        let mut part = vec![0; PAGE_SIZE];
        let so_far = |at: usize| {
            (
                progress[at].done.load(Ordering::SeqCst),
                progress[at].begun.load(Ordering::SeqCst),
            )
        };
        for turn in 0_usize.. {
            if ended.load(Ordering::SeqCst) {
                break;
            }
            let at = turn % 2;
            let (offset, len) = LOOKED_AT[turn / 2 % LOOKED_AT.len()];
            let (done, _) = so_far(at);
            let dst = &mut part[..len];
            let name = REWRITTEN[at];
            let what = format!("read_blob_range({name}, {offset}) of {len} bytes, rewritten");
            let read = reader
                .store()
                .read_blob_range(guid(name.into()), offset, dst);
            read.map_err(|e| Stop::fail(&*what, describe(&e), "a part of one frame"))?;
            let (_, begun) = so_far(at);
            judged(&what, name, dst, done, begun)?;
            if begun > done {
                pace.met();
            }
            // The same blob twice, around the other.
            let order = [at, 1 - at, at];
            let before = order.map(so_far);
            let names = order.map(|at| guid(REWRITTEN[at].into()));
            let mut reads: Vec<_> = names.into_iter().zip(&mut bufs).collect();
            let answers = reader.store().read_blobs(&mut reads);
            for (((at, (done, _)), answer), buf) in
                order.into_iter().zip(before).zip(answers).zip(&bufs)
            {
                let what = "read_blobs of blobs that are rewritten";
                answer.map_err(|e| Stop::error(what, &e))?;
                judged(what, REWRITTEN[at], buf, done, so_far(at).1)?;
            }
        }
        Ok(())
    })
}

pub(super) async fn bs_2_5(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let pace = Pace::of(cx, writes(cx));
    let progress = [Arc::<Progress>::default(), Arc::default()];
    let mut src = AlignedBlobBuf::zeroed();
    for name in REWRITTEN {
        mark(&mut src, name % 2);
        a.write_buf(guid(name.into()), &src)?;
    }
    let writers = REWRITTEN.iter().zip(&progress);
    let writers = writers.map(|(name, at)| rewrites(&a, *name, at, &pace));
    let readers = [&a, &b].map(|reader| looks(reader, &progress, &pace));
    threads(cx, writers.collect(), readers.into()).await?;
    pace.enough("reads")
}

/// A way to look at a blob.
#[derive(Clone, Copy, Debug)]
enum Look {
    Whole,
    Part,
    Many,
    Names,
}

impl Look {
    const ALL: [Self; 4] = [Self::Whole, Self::Part, Self::Many, Self::Names];

    /// What is seen of `name` is what `tag` says, or nothing.
    fn at(self, cx: &Cx<dyn World>, reader: &Handle, name: BlobGuid, tag: Option<u64>) -> Outcome {
        match self {
            Self::Whole => reader.expect("after a change", name, tag),
            Self::Part => match tag {
                Some(tag) => part(cx, reader, name, (PAGE_SIZE - 9_000, 4_096), &frame(tag)),
                None => {
                    let result = reader.try_read_range(name, 512, &mut [0; 512]);
                    refused(
                        "read_blob_range of what is absent",
                        result,
                        ErrorKind::NotFound,
                    )
                }
            },
            Self::Many => {
                let holds = tag.map(|tag| (name, Content::Frame(tag)));
                each(cx, reader, &[name, name], &holds.into_iter().collect())
            }
            Self::Names => {
                let named = (reader.has(name)?, reader.list()?.contains(&name));
                let is_there = tag.is_some();
                let what = format!("whether has_blob and list_blobs have {name}");
                cx.eq(what, &named, &(is_there, is_there))
            }
        }
    }
}

/// A way to change a blob to the frame of a tag, or to nothing.
fn change(writer: &Handle, how: usize, name: BlobGuid, tag: u64) -> Result<Option<u64>, Stop> {
    let batch = |how| writer.write_all(how, &[(name, &frame(tag))]);
    match how {
        0 => writer.write(name, tag)?,
        1 => batch(Batch::Plain)?,
        2 => batch(Batch::DataSync)?,
        _ => {
            writer.delete(name)?;
            return Ok(None);
        }
    }
    Ok(Some(tag))
}

pub(super) async fn bs_2_8(cx: &Cx<dyn World>) -> Outcome {
    const WAYS: usize = 4;
    let (a, b) = cx.open_two("p").await?;
    let mut is_picked = cx.sample();
    let mut tag = 100;
    let mut turn = 0;
    for look in Look::ALL {
        for how in 0..WAYS {
            // Itself, the next and the one before it, and one that is not there yet: two of them each time.
            for near in [10, 11, 9, 12] {
                turn += 1;
                if (turn + turn / 4) % 2 == 0 || !is_picked() {
                    continue;
                }
                tag += 10;
                for at in 9..12 {
                    a.write(guid(at.into()), tag + at)?;
                }
                a.delete(guid(12))?;
                let before = Some(tag + 10);
                for reader in [&a, &b] {
                    look.at(cx, reader, guid(10), before)?;
                    look.at(cx, reader, guid(12), None)?;
                }
                let name = guid(near);
                let now = change(&a, how, name, tag + 5)?;
                let (reader, other) = if turn % 3 == 0 { (&a, &b) } else { (&b, &a) };
                // Each time another one first, before what the others leave behind.
                for at in 0..Look::ALL.len() {
                    Look::ALL[(at + turn) % Look::ALL.len()].at(cx, reader, name, now)?;
                }
                other.expect("after a change", name, now)?;
                if near != 10 {
                    b.expect("beside a change", guid(10), before)?;
                }
            }
        }
    }
    Ok(())
}

/// Writes a blob and deletes it, over and over: after step `n` it is the frame of `n`, or absent where `n` is even.
fn comes_and_goes(a: &Handle, progress: &Arc<Progress>, pace: &Arc<Pace>) -> Job {
    let (writer, progress, pace) = (a.clone(), Arc::clone(progress), Arc::clone(pace));
    Box::new(move |ended| {
        let mut src = writer.store().alloc_blob_buf_uninit();
        let mut step = 0;
        while pace.goes_on(step, ended) {
            step += 1;
            progress.begun.store(step, Ordering::SeqCst);
            let result = if step % 2 == 1 {
                mark(&mut src, step);
                writer.store().write_blob(guid(1), &src)
            } else {
                writer.store().delete_blob(guid(1))
            };
            result.map_err(|e| Stop::error("a change beside readers", &e))?;
            progress.done.store(step, Ordering::SeqCst);
        }
        Ok(())
    })
}

/// Looks at it by its parts, small ones most often since many of them meet a delete, and in lists of reads.
fn looks_for(b: &Handle, progress: &Arc<Progress>, pace: &Arc<Pace>) -> Job {
    const PARTS: [(usize, usize); 5] = [
        (0, 512),
        (PAGE_SIZE - 512, 512),
        (PAGE_SIZE / 2 - 4_096, 8_192),
        (1_024, 512),
        (512, PAGE_SIZE - 512),
    ];
    let (reader, progress, pace) = (b.clone(), Arc::clone(progress), Arc::clone(pace));
    Box::new(move |ended| {
        let mut buf = filled(0xaa);
        let mut part = vec![0xaa; PAGE_SIZE];
        for turn in 0_usize.. {
            if ended.load(Ordering::SeqCst) {
                break;
            }
            let (offset, len) = PARTS[turn % PARTS.len()];
            let dst = &mut part[..len];
            let done = progress.done.load(Ordering::SeqCst);
            let (what, seen) = if turn % 8 != 7 {
                let read = reader.store().read_blob_range(guid(1), offset, dst);
                ("read_blob_range", read.map(|()| marked(dst)))
            } else {
                let mut answers = reader.store().read_blobs(&mut [(guid(1), &mut buf)]);
                let none = || Stop::fail("read_blobs of one", "no answer", "one answer");
                let read = answers.pop().ok_or_else(none)?;
                ("read_blobs", read.map(|()| marked(&buf)))
            };
            let begun = progress.begun.load(Ordering::SeqCst);
            let what = format!("{what} of a blob that is deleted and written again");
            let (is_right, seen) = match seen {
                Ok(seen) => {
                    let seen = seen.map_err(|seen| Stop::fail(&*what, seen, "one frame"))?;
                    let is_right = seen % 2 == 1 && (done..=begun).contains(&seen);
                    (is_right, format!("what step {seen} wrote"))
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let is_right = (done..=begun).any(|step| step % 2 == 0);
                    (is_right, "NotFound".into())
                }
                Err(e) => return Err(Stop::error(what, &e)),
            };
            if !is_right {
                let expected = format!("what is there between step {done} and step {begun}");
                return Err(Stop::fail(what, seen, expected));
            }
            if begun > done {
                pace.met();
            }
            // Two steps at least: the one that was under way may have had its effect before.
            if begun > done + 1 {
                pace.passed();
            }
        }
        Ok(())
    })
}

pub(super) async fn bs_2_9(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let pace = Pace::of_many(cx, writes(cx));
    let progress = Arc::<Progress>::default();
    let writer = comes_and_goes(&a, &progress, &pace);
    let readers = [&a, &b].map(|reader| looks_for(reader, &progress, &pace));
    threads(cx, vec![writer], readers.into()).await?;
    pace.enough("reads")
}
