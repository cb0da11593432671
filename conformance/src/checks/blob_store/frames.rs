//! BS-1 to BS-5: frames, whole, and gone when they are deleted.

use larder_traits::{AlignedBlobBuf, BlobGuid, PAGE_SIZE};
use proptest::prelude::*;

use super::content::{Content, filled, frame, own_frame};
use super::{durable, flushes, guid, reads, threads, work};
use crate::blob_store::{Batch, Handle, World};
use crate::check::{Check, Engine, Gate, Outcome, Stop};
use crate::checks::outlives_power;
use crate::cx::Cx;
use crate::engine::power;
use crate::profile::Profile;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BS-1.1",
        "patterned and uniform frames fill a used buffer to its last byte, zeros included",
    )
    .kills("zero = absent, short fill, buffer kept instead of copied")
    .run(|cx| Box::pin(bs_1_1(cx))),
    Check::new(
        "BS-1.2",
        "names of all kinds, some hundreds, or 10^4 beyond quick, 128 of them at a time",
    )
    .kills("guid mapping")
    .run(|cx| Box::pin(bs_1_2(cx))),
    Check::new(
        "BS-1.3",
        "many reads in one call: in any order, one name twice, absent ones among them, none at all",
    )
    .kills("one error for all, answers out of order")
    .run(|cx| Box::pin(reads::bs_1_3(cx))),
    Check::new(
        "BS-1.4",
        "every part of a frame is what read_blob has there, and fills its buffer and no more",
    )
    .kills("offset rounded or ignored, short fill")
    .run(|cx| Box::pin(reads::bs_1_4(cx))),
    Check::new(
        "BS-2.1",
        "readers of a frame that is rewritten see one number in every sector",
    )
    .kills("torn frame")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(threads::bs_2_1(cx))),
    Check::new("BS-2.2", "each blob is a register, flushed or not")
        .kills("write-behind")
        .engines(&[Engine::Lin])
    .run(|cx| Box::pin(threads::bs_2_2(cx))),
    Check::new(
        "BS-2.3",
        "reads of one blob while others are written, deleted and flushed",
    )
    .kills("foreign bytes")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(threads::bs_2_3(cx))),
    Check::new(
        "BS-2.4",
        "unflushed writes and deletes show at once to other handles and threads, and change no other blob",
    )
    .kills("write-behind, foreign bytes in reused space")
    .run(|cx| Box::pin(bs_2_4(cx))),
    Check::new(
        "BS-2.5",
        "parts of frames, and many reads in one call, beside writers: each is of one frame, and no older than its call",
    )
    .kills("torn range, buffers mixed up")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(reads::bs_2_5(cx))),
    Check::new(
        "BS-2.6",
        "frames of zeros in part, over other frames and where deleted ones were: whole, to each byte",
    )
    .kills("zeros that are not written, the rest of an older frame")
    .run(|cx| Box::pin(bs_2_6(cx))),
    Check::new(
        "BS-2.7",
        "a frame over one that is its like: the same words in another order, one bit, the same ends",
    )
    .kills("unchanged by a sum of it")
    .run(|cx| Box::pin(flushes::bs_2_7(cx))),
    Check::new(
        "BS-2.8",
        "what was looked at before, in each way, hides no change of it or of its neighbours, in no way of changing",
    )
    .kills("read ahead or kept, and one way of writing that does not say so")
    .run(|cx| Box::pin(reads::bs_2_8(cx))),
    Check::new(
        "BS-2.9",
        "parts and many reads of a blob that is deleted and written again: of one frame, or NotFound, and no older than the call",
    )
    .kills("looked up and then read where nothing is any more")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(reads::bs_2_9(cx))),
    Check::new("BS-3.1", "writes, deletes, a flush, a power cut: all there")
        .kills("missing sync")
        .gate(outlives_power)
        .engines(&[Engine::Power])
        .run(|cx| Box::pin(bs_3_1(cx))),
    Check::new(
        "BS-3.2",
        "flushes at once against writers, and a cut: each covers what had returned before it",
    )
    .kills("shared flush")
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(bs_3_2(cx))),
    Check::new(
        "BS-3.3",
        "after a flush and the end of every handle, writes and deletes are found at the next open",
    )
    .kills("flush that does nothing, state of the handle only")
    .gate(durable)
    .run(|cx| Box::pin(bs_3_3(cx))),
    Check::new(
        "BS-3.4",
        "what is written while a flush runs is covered by the next, begun at once or after the other, and found at the next open",
    )
    .kills("flush that clears what came meanwhile, flush that is left to another")
    .gate(durable)
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(flushes::bs_3_4(cx))),
    Check::new(
        "BS-3.5",
        "more blobs than a page of names has are found at the next open, each with its frame",
    )
    .kills("one block of the index")
    .gate(durable)
    .run(|cx| Box::pin(flushes::bs_3_5(cx))),
    Check::new(
        "BS-4.1",
        "a blob never written or deleted is NotFound for a read",
    )
    .kills("Ok(zeros)")
    .run(|cx| Box::pin(bs_4_1(cx))),
    Check::new(
        "BS-5.1",
        "delete of an absent blob; deleted and written again is the new frame",
    )
    .kills("tombstone wins")
    .run(|cx| Box::pin(bs_5_1(cx))),
    Check::new(
        "BS-5.2",
        "a delete before a cut: absent if flushed, else absent or whole",
    )
    .kills("resurrection")
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(bs_5_2(cx))),
];

async fn bs_1_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut last_byte = filled(0);
    last_byte[PAGE_SIZE - 1] = 1;
    let mut first_byte = filled(0);
    first_byte[0] = 1;
    let mut last_half = filled(0);
    last_half[PAGE_SIZE / 2..].fill(0x5a);
    // Equal to the one before but for a part: a store that compares less than all of it takes them for the same.
    let mut other_tail = frame(7);
    other_tail[PAGE_SIZE - 512..].fill(0x77);
    let mut other_middle = other_tail.clone();
    other_middle[PAGE_SIZE / 2] ^= 1;
    let kinds = [
        frame(1),
        filled(0),
        frame(2),
        filled(0xaa),
        filled(0xff),
        filled(0),
        last_byte,
        filled(0),
        last_half,
        filled(0),
        first_byte,
        frame(7),
        other_tail,
        other_middle,
        frame(u64::MAX),
        frame(0),
        filled(0),
    ];
    // Over each other in one blob, and each in one of its own; read into buffers that hold something else.
    for (at, src) in (1_u128..).zip(&kinds) {
        for name in [guid(0), guid(at)] {
            let mut given = src.clone();
            a.write_buf(name, &given)?;
            // The caller's buffer is the caller's again.
            given.fill(0x33);
            for before in [0xaa, 0x00, 0x55] {
                let mut dst = b.store().alloc_blob_buf_uninit();
                dst.fill(before);
                whole(cx, &b, name, &mut dst, src)?;
            }
        }
    }
    a.flush()?;
    let mut dst = frame(3);
    let mut names = vec![guid(0)];
    for (at, src) in (1_u128..).zip(&kinds) {
        whole(cx, &b, guid(at), &mut dst, src)?;
        names.push(guid(at));
    }
    // A frame of zeros is a frame, for every method.
    let mut listed = b.list()?;
    listed.sort_unstable();
    names.sort_unstable();
    cx.eq("list_blobs()", &listed, &names)?;
    for name in names {
        cx.eq(format!("has_blob({name})"), &a.has(name)?, &true)?;
    }
    Ok(())
}

fn whole(
    cx: &Cx<dyn World>,
    reader: &Handle,
    name: BlobGuid,
    dst: &mut AlignedBlobBuf,
    expected: &[u8],
) -> Outcome {
    let result = reader.try_read_into(name, dst);
    result.map_err(|e| Stop::error(format!("read_blob({name})"), &e))?;
    let differs = dst
        .iter()
        .zip(expected)
        .position(|(seen, expected)| seen != expected);
    let observed = differs.map(|at| format!("{}, other from byte {at} on", Content::of(dst)));
    cx.require(
        differs.is_none(),
        format!("read_blob({name})"),
        observed.unwrap_or_default(),
        Content::of(expected).to_string(),
    )
}

/// How many blobs there are at one time: 64 MiB of frames.
const AT_ONCE: usize = 128;

async fn bs_1_2(cx: &Cx<dyn World>) -> Outcome {
    let bits = || (0..128).map(|bit| 1_u128 << bit);
    // Names that differ where a mapping may not look: one bit from none and from all, in sequence, in one half only,
    // with halves or bytes the other way round.
    let mut kinds: Vec<Vec<u128>> = vec![
        [0].into_iter().chain(bits()).collect(),
        [u128::MAX]
            .into_iter()
            .chain(bits().map(|bit| !bit))
            .collect(),
        (0..64).chain((0..64).map(|n| u128::MAX / 2 - n)).collect(),
        (1..16_u128)
            .flat_map(|n| {
                let odd = n * 0x0123_4567_89ab_cdef;
                [
                    n << 64,
                    odd,
                    odd << 64,
                    (odd << 64) | odd,
                    (n << 64) | (1 << 63),
                    odd.swap_bytes(),
                ]
            })
            .collect(),
    ];
    let mut rng = cx.rng();
    let random_batches = if cx.profile == Profile::Quick { 1 } else { 75 };
    kinds.extend((0..random_batches).map(|_| (0..AT_ONCE).map(|_| rng.random()).collect()));
    let (a, b) = cx.open_two("p").await?;
    let mut tag = 0;
    for mut names in kinds {
        names.sort_unstable();
        names.dedup();
        for part in names.chunks(AT_ONCE) {
            let sorted: Vec<BlobGuid> = part.iter().copied().map(guid).collect();
            for (name, tag) in sorted.iter().zip(tag..) {
                a.write(*name, tag)?;
            }
            cx.eq("list_blobs()", &b.list()?, &sorted)?;
            for (name, tag) in sorted.iter().zip(tag..) {
                b.expect("one of many names", *name, Some(tag))?;
            }
            tag += 1_000;
            // Every other one goes first, so that a delete under a wrong name shows.
            for name in sorted.iter().step_by(2) {
                a.delete(*name)?;
            }
            let left: Vec<BlobGuid> = sorted.iter().copied().skip(1).step_by(2).collect();
            cx.eq("list_blobs() after deletes", &b.list()?, &left)?;
            for name in left {
                a.delete(name)?;
            }
        }
    }
    cx.eq("list_blobs() after all deletes", &b.list()?, &Vec::new())
}

async fn bs_2_4(cx: &Cx<dyn World>) -> Outcome {
    const BLOBS: u64 = 6;
    let (a, b) = cx.open_two("p").await?;
    let mut holds: Vec<Option<u64>> = vec![None; 6];
    let mut rng = cx.rng();
    for tag in 1..=48_u64 {
        // Space that one blob gave up is taken by another, with a flush now and then between the two.
        let at = rng.random_range(0..BLOBS);
        let hold = &mut holds[usize::try_from(at).expect("a few blobs")];
        match rng.random_range(0..4) {
            0 => {
                a.delete(guid(at.into()))?;
                *hold = None;
            }
            1 => {
                a.flush()?;
                a.write(guid(at.into()), tag)?;
                *hold = Some(tag);
            }
            _ => {
                a.write(guid(at.into()), tag)?;
                *hold = Some(tag);
            }
        }
        let (reader, expected) = (b.named("thread"), holds.clone());
        let on_a_thread = tokio::task::spawn_blocking(move || shown(&reader, &expected));
        shown(&b, &holds)?;
        let on_a_thread = on_a_thread.await;
        on_a_thread.map_err(|e| Stop::fail("a read on a thread", e.to_string(), "no panic"))??;
    }
    shown(&a, &holds)
}

/// The frame of `tag`, of which the sectors that `is_zero` names are zeros.
fn with_zeros(tag: u64, is_zero: impl Fn(usize) -> bool) -> AlignedBlobBuf {
    const SECTOR: usize = 512;
    let mut buf = frame(tag);
    for (at, sector) in buf.chunks_exact_mut(SECTOR).enumerate() {
        if is_zero(at) {
            sector.fill(0);
        }
    }
    buf
}

/// Whether the sector of that number is zeros.
type Part = fn(usize) -> bool;

/// How a place comes to be free in BS-2.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freed {
    Overwritten,
    Deleted,
    Flushed,
    Reopened,
}

async fn bs_2_6(cx: &Cx<dyn World>) -> Outcome {
    const SECTORS: usize = PAGE_SIZE / 512;
    let (mut a, mut b) = cx.open_two("p").await?;
    let parts: [(&str, Part); 9] = [
        ("the first sector", |at| at == 0),
        ("the first half", |at| at < SECTORS / 2),
        ("all but the first sector", |at| at > 0),
        ("the last half", |at| at >= SECTORS / 2),
        ("the last sector", |at| at == SECTORS - 1),
        ("all but the last sector", |at| at < SECTORS - 1),
        ("every second sector", |at| at % 2 == 0),
        ("the middle", |at| {
            (SECTORS / 4..SECTORS * 3 / 4).contains(&at)
        }),
        ("every sector", |_| true),
    ];
    let ways = [
        Freed::Overwritten,
        Freed::Deleted,
        Freed::Flushed,
        Freed::Reopened,
    ];
    let outlasts = durable(&cx.caps) == Gate::Run;
    let mut is_picked = cx.sample();
    let (mut tag, mut name, mut dst) = (0, 0, frame(3));
    for freed in ways {
        if freed == Freed::Reopened && !outlasts {
            continue;
        }
        for (what, is_zero) in parts {
            tag += 1;
            for before in [filled(7), frame(tag)] {
                if !is_picked() {
                    continue;
                }
                let old = guid(name);
                a.write_buf(old, &before)?;
                if freed == Freed::Flushed || freed == Freed::Reopened {
                    a.flush()?;
                }
                let first = if freed == Freed::Overwritten {
                    name
                } else {
                    b.delete(old)?;
                    name + 1
                };
                if freed == Freed::Flushed || freed == Freed::Reopened {
                    a.flush()?;
                }
                if freed == Freed::Reopened {
                    (a, b) = cx.reopen("p", [a, b]).await?;
                }
                let src = with_zeros(tag + 1_000, is_zero);
                cx.log().push(format!("{what} zero, {freed:?}"));
                for at in [first, first + 1] {
                    a.write_buf(guid(at), &src)?;
                    whole(cx, &b, guid(at), &mut dst, &src)?;
                }
                for at in [first, first + 1] {
                    a.delete(guid(at))?;
                }
                name += 3;
            }
        }
    }
    Ok(())
}

fn shown(reader: &Handle, holds: &[Option<u64>]) -> Outcome {
    for (at, tag) in (0_u128..).zip(holds) {
        reader.expect("before any flush", guid(at), *tag)?;
    }
    Ok(())
}

async fn bs_3_3(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    for at in 0..6 {
        a.write(guid(at.into()), at)?;
    }
    a.flush()?;
    (a, b) = cx.reopen("p", [a, b]).await?;
    // Now over what was found: overwrites, deletes, a blob deleted and written, a new one, and a batch.
    b.write(guid(0), 100)?;
    b.delete(guid(1))?;
    b.delete(guid(2))?;
    a.write(guid(2), 102)?;
    a.write(guid(9), 109)?;
    let (last, new) = (frame(103), own_frame(&**a.store(), 110));
    a.write_all(Batch::DataSync, &[(guid(3), &last), (guid(10), &new)])?;
    a.flush()?;
    drop((last, new));
    // Twice: what is found must still be there when it was only looked at.
    for _ in 0..2 {
        (a, b) = cx.reopen("p", [a, b]).await?;
        let found = [
            (0, Some(100)),
            (1, None),
            (2, Some(102)),
            (3, Some(103)),
            (4, Some(4)),
            (5, Some(5)),
            (9, Some(109)),
            (10, Some(110)),
        ];
        for (at, tag) in found {
            b.expect("after a flush and an open", guid(at), tag)?;
        }
        let names: Vec<BlobGuid> = [0, 2, 3, 4, 5, 9, 10].into_iter().map(guid).collect();
        cx.eq("list_blobs() after a flush and an open", &a.list()?, &names)?;
    }
    Ok(())
}

async fn bs_4_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let names = [0, 1, 2, 3, 1 << 64, 1 << 127, u128::MAX].map(guid);
    for name in names {
        a.expect("in an empty place", name, None)?;
    }
    a.write(guid(2), 2)?;
    a.write_buf(guid(3), &filled(0))?;
    let absent = names
        .into_iter()
        .filter(|name| ![guid(2), guid(3)].contains(name));
    for name in absent {
        b.expect("beside blobs that are there", name, None)?;
    }
    a.flush()?;
    for name in [guid(2), guid(3)] {
        b.delete(name)?;
        a.expect("a deleted blob", name, None)?;
        b.flush()?;
        a.expect("a deleted blob after a flush", name, None)?;
        // Asking for it does not make it.
        cx.eq(format!("has_blob({name})"), &b.has(name)?, &false)?;
    }
    cx.eq("list_blobs()", &b.list()?, &Vec::new())
}

async fn bs_5_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.delete(guid(1))?;
    a.delete(guid(1))?;
    b.expect("deleted and never written", guid(1), None)?;
    let mut tag = 10;
    // With a flush after the write, after the delete, after both, after none.
    for flushes in [[false, false], [true, false], [false, true], [true, true]] {
        a.write(guid(1), tag)?;
        a.write(guid(2), tag + 1)?;
        b.expect("written after a delete", guid(1), Some(tag))?;
        if flushes[0] {
            a.flush()?;
        }
        b.delete(guid(1))?;
        b.delete(guid(1))?;
        a.expect("deleted", guid(1), None)?;
        if flushes[1] {
            b.flush()?;
        }
        a.expect("deleted", guid(1), None)?;
        a.expect("beside a deleted one", guid(2), Some(tag + 1))?;
        a.write(guid(1), tag + 2)?;
        b.expect("deleted and written again", guid(1), Some(tag + 2))?;
        a.flush()?;
        b.expect("deleted, written again and flushed", guid(1), Some(tag + 2))?;
        cx.eq("list_blobs()", &b.list()?, &vec![guid(1), guid(2)])?;
        a.delete(guid(1))?;
        tag += 10;
    }
    Ok(())
}

async fn bs_3_1(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire(cx))).await
}

async fn bs_3_2(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire_many(cx))).await
}

async fn bs_5_2(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire_deleting(cx))).await
}
