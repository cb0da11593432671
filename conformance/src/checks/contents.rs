//! Values that stores have been seen to get wrong, whatever the contract.

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;

use super::pattern;
use crate::cx::Cx;
use crate::fixture::World;

const PAGE: usize = 4_096;

/// What texts, numbers and marks some stores take for something else.
const SPELLED: [&[u8]; 32] = [
    b"\0",
    b"\0\0\0\0",
    b"\0in front",
    b"in the \0 middle",
    b"at the end\0",
    b"\n",
    b"\r\n",
    b"a\r\nb\nc\rd",
    b"a line\n",
    b"a line\r\n",
    b" blanks around \t",
    b"\x1a",
    b"\xff",
    b"\xc3\x28",
    b"\xEF\xBB\xBF",
    b"\xEF\xBB\xBFa mark of byte order",
    b"not \xFF\xFE text \xC3",
    b"%41+%2F&amp;\\n",
    b"null",
    b"NULL",
    b"nil",
    b"true",
    b"0",
    b"-1",
    b"007",
    b"1.0",
    b"\"quoted\"",
    b"{}",
    b"[1]",
    b"aGVsbG8=",
    b"deadbeef",
    b"data:,x",
];

/// What the formats begin with that a store may keep values in, and may take a value for that is not its own.
const BEGINNINGS: [&[u8]; 18] = [
    b"\x1f\x8b\x08\0",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"\xff\x06\0\0sNaPpY",
    b"\xfd7zXZ\0",
    b"BZh9",
    b"PK\x03\x04",
    b"\x78\x9c",
    b"\x78\x01",
    b"\x80\x04\x95",
    b"SQLite format 3\0",
    b"\x0a\x03abc",
    b"\x81\xa1a\x01",
    b"\xde\xad\xbe\xef",
    b"LOCK",
    b"PAR1",
    b"\x7fELF",
    b"HTTP/1.1 200 OK\r\n\r\n",
];

/// What ends a body, a part or a message in the formats that a value may travel in.
const ENDINGS: [&[u8]; 10] = [
    b"\r\n0\r\n\r\n",
    b"\r\n\r\n",
    b"\r\n.\r\n",
    b"\r\nEND\r\n",
    b"\r\n--boundary--\r\n",
    b"0;chunk-signature=00\r\n\r\n",
    b"]]>",
    b"</Value>",
    b"\n\\.\n",
    b"'; --",
];

/// Keys that the usual hashes of 32 bits do not tell apart (of strings by 31 and by 33, FNV-1a, CRC-32, sums), side by
/// side.
pub(crate) const EQUAL_HASHES: [&str; 18] = [
    "Aa",
    "BB",
    "AaAa",
    "AaBB",
    "BBAa",
    "BBBB",
    "Ez",
    "FY",
    "costarring",
    "liquid",
    "declinate",
    "macallums",
    "plumless",
    "buckeroo",
    "ab12",
    "ba12",
    "ab21",
    "a2b1",
];

/// Values of odd bytes and of odd shapes, none longer than two hundred thousand bytes; on a server some of them.
pub(crate) fn odd<W: World + ?Sized>(cx: &Cx<W>) -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = vec![
        (0..=u8::MAX).collect(),
        (0..=u8::MAX).rev().cycle().take(70_000).collect(),
    ];
    values.extend(SPELLED.iter().map(|value| value.to_vec()));
    for beginning in BEGINNINGS {
        let behind = |len| [beginning, &pattern("behind", len)].concat();
        values.extend([0, 1, 5_000].map(behind));
    }
    for ending in ENDINGS {
        let front = pattern("front", 300);
        values.push([&front[..], ending, &pattern("behind", 300)].concat());
    }
    // One byte over and over, on both sides of what a number of 8 or 16 bits can count, and of pages.
    for byte in [0, b' ', b'x', u8::MAX] {
        let lengths = [
            2,
            255,
            256,
            257,
            PAGE,
            2 * PAGE,
            65_535,
            65_536,
            65_537,
            131_072,
        ];
        values.extend(lengths.map(|len| vec![byte; len]));
    }
    // Holes: whole pages and less of them, at each end and within.
    let page = pattern("page", PAGE);
    for hole in [1, 511, 512, PAGE - 1, PAGE, 2 * PAGE, 3 * PAGE + 1] {
        let hole = vec![0; hole];
        values.push([&page[..], &hole].concat());
        values.push([&hole[..], &page].concat());
        values.push([&page[..], &hole, &page].concat());
        values.push([&hole[..], &page, &hole].concat());
    }
    let mut is_taken = cx.sample();
    values.retain(|_| is_taken());
    values
}

/// All lengths about which a row, with its key and what a store adds to it, comes to fill a sector or a page; on a server
/// some of them.
pub(crate) fn lengths_about_pages<W: World + ?Sized>(cx: &Cx<W>) -> impl Iterator<Item = usize> {
    const ADDED_MAX: usize = 160;
    let mut is_taken = cx.sample();
    [512, PAGE, 2 * PAGE]
        .into_iter()
        .flat_map(|full| full - ADDED_MAX..=full + 1)
        .filter(move |_| is_taken())
}

/// Values that are to be kept in one place, one over the other: more than a number of 8 bits can count, on a server
/// fewer. Most differ little from the one before: in a byte, in what follows it, in where it ends.
pub(crate) fn successors<W: World + ?Sized>(cx: &Cx<W>, len_max: usize) -> Vec<Vec<u8>> {
    let (rng, count) = (&mut cx.rng(), cx.times(300, 40));
    let len_max = len_max.min(20_000);
    let mut values: Vec<Vec<u8>> = vec![pattern("first", len_max / 2)];
    while values.len() < count {
        let at = values.len();
        let (now, before) = (&values[at - 1], &values[at.saturating_sub(2)]);
        let new = pattern(&format!("successor {at}"), len_max);
        let some = |rng: &mut TestRng, len: usize| rng.random_range(0..=len);
        let mut next = now.clone();
        match rng.random_range(0..12) {
            // One byte of it: the last, the first, any.
            0 | 1 => change(&mut next, now.len().saturating_sub(1)),
            2 => change(&mut next, 0),
            3 | 4 => change(&mut next, some(rng, now.len())),
            // Its beginning.
            5 => next.truncate(some(rng, now.len())),
            6 => next.truncate(some(rng, 9)),
            // All of it and more: something new, and itself once more.
            7 => next.extend_from_slice(&new[..some(rng, len_max - now.len())]),
            8 => next.extend_from_slice(&now[..now.len().min(len_max - now.len())]),
            // The one before it, another one of its length, one of any.
            9 => next.clone_from(before),
            10 => next = new[..now.len()].to_vec(),
            _ => next = new[..some(rng, len_max)].to_vec(),
        }
        // The empty one now and then, and then again something.
        if at.is_multiple_of(37) {
            next.clear();
        }
        values.push(next);
    }
    values
}

fn change(value: &mut [u8], at: usize) {
    let last = value.len().saturating_sub(1);
    if let Some(byte) = value.get_mut(at.min(last)) {
        *byte ^= 1;
    }
}
