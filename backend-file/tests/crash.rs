//! What is left after the process was killed, again and again in the same file.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use larder_file::{FileBlobStore, FileConfig};
use larder_traits::blob_store::{BlobGuid, BlobStore};
use larder_traits::{AlignedBlobBuf, Classify, ErrorKind, PAGE_SIZE};
use tempfile::tempdir;

const PATH: &str = "LARDER_FILE_TEST_PATH";
const FIRST: &str = "LARDER_FILE_TEST_FIRST";
const RING: &str = "LARDER_FILE_TEST_RING";

/// How many pairs of blobs the victim writes to in turn.
const PAIRS: u64 = 5;

fn config(path: &Path, ring: bool) -> FileConfig {
    FileConfig::new(path).with_ring(ring).with_pool_frames(4)
}

/// The two blobs of a round, which are written as one batch.
fn pair(round: u64) -> [BlobGuid; 2] {
    [0, 1].map(|half| BlobGuid::from_u128((2 * (round % PAIRS) + half).into()))
}

fn fill(buf: &mut AlignedBlobBuf, round: u64) {
    for (word, at) in buf.chunks_exact_mut(8).zip(0_u64..) {
        word.copy_from_slice(&(round ^ at.rotate_left(40)).to_le_bytes());
    }
}

#[test]
#[ignore = "the other tests run it as a process of its own"]
fn victim() {
    let (Ok(path), Ok(first)) = (std::env::var(PATH), std::env::var(FIRST)) else {
        return;
    };
    let ring = std::env::var(RING).is_ok_and(|ring| ring == "true");
    let store = FileBlobStore::open(config(Path::new(&path), ring)).unwrap();
    let mut src = store.alloc_blob_buf_uninit();
    let mut out = std::io::stdout();
    for round in first.parse::<u64>().unwrap().. {
        fill(&mut src, round);
        let batch = pair(round).map(|guid| (guid, &src));
        store.write_blobs(&batch).unwrap();
        // Nobody was promised this one.
        store.write_blob(BlobGuid::from_u128(99), &src).unwrap();
        store.delete_blob(BlobGuid::from_u128(99)).unwrap();
        store.flush().unwrap();
        writeln!(out, "ack {round}").unwrap();
        out.flush().unwrap();
    }
}

fn start(path: &Path, first: u64, ring: bool) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--ignored", "--nocapture"])
        .env(PATH, path)
        .env(FIRST, first.to_string())
        .env(RING, ring.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn acknowledged(child: &mut Child) -> impl Iterator<Item = u64> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.filter_map(|line| line.ok()?.strip_prefix("ack ")?.parse().ok())
}

/// A busy machine may take a while to let go of the file of a process that it has killed.
fn open_soon(path: &Path, ring: bool) -> FileBlobStore {
    let started = Instant::now();
    loop {
        match FileBlobStore::open(config(path, ring)) {
            Err(e) if e.kind() == ErrorKind::Conflict && started.elapsed().as_secs() < 10 => {}
            other => return other.unwrap(),
        }
    }
}

/// The round that each pair is of, after all that is there was found whole.
fn rounds(path: &Path, ring: bool) -> BTreeMap<u64, u64> {
    let store = open_soon(path, ring);
    assert!(!store.recovery().is_snapshot_damaged);
    let (mut found, mut expected) = (AlignedBlobBuf::zeroed(), AlignedBlobBuf::zeroed());
    let mut rounds = BTreeMap::new();
    for at in 0..PAIRS {
        let read = pair(at).map(|guid| {
            store.read_blob(guid, &mut found).map(|()| {
                let round = u64::from_le_bytes(found[..8].try_into().unwrap());
                fill(&mut expected, round);
                assert!(found[..PAGE_SIZE] == expected[..], "a torn frame");
                round
            })
        });
        match read {
            [Ok(one), Ok(two)] => {
                assert_eq!(one, two, "half a batch");
                assert_eq!(one % PAIRS, at);
                rounds.insert(at, one);
            }
            [Err(one), Err(two)] => {
                assert_eq!([one.kind(), two.kind()], [ErrorKind::NotFound; 2]);
            }
            other => panic!("half a batch: {other:?}"),
        }
    }
    rounds
}

fn killed_again_and_again(ring: bool) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("frames");
    let mut next = 0;
    for kill in 0..6 {
        let mut child = start(&path, next, ring);
        let mut acks = acknowledged(&mut child);
        // Killed at a different moment of its round each time.
        let mut last = (0..3 + kill * 7).filter_map(|_| acks.next()).last();
        assert!(last.is_some(), "the victim did nothing");
        if kill == 0 {
            let refused = FileBlobStore::open(config(&path, ring)).unwrap_err();
            assert_eq!(
                refused.kind(),
                ErrorKind::Conflict,
                "another process has it"
            );
        }
        thread::sleep(Duration::from_micros(kill * 300));
        child.kill().unwrap();
        child.wait().unwrap();
        last = acks.last().or(last);

        // The lock went with the process, and what was acknowledged is there, or what was written after it.
        let last = last.unwrap();
        let found = rounds(&path, ring);
        for at in 0..PAIRS {
            let acked = (0..=last).rev().find(|round| round % PAIRS == at);
            let found = found.get(&at).copied();
            let may_be_newer = last + 1;
            let is_right = found == acked || (found == Some(may_be_newer));
            assert!(
                is_right,
                "kill {kill}: pair {at} is {found:?}, acknowledged {acked:?}"
            );
        }
        next = last + 2;
        // The round in the middle is written over by the next victim only if it is of the same pair; make it so.
        let store = FileBlobStore::open(config(&path, ring)).unwrap();
        let mut src = store.alloc_blob_buf_uninit();
        fill(&mut src, last + 1);
        store
            .write_blobs(&pair(last + 1).map(|guid| (guid, &src)))
            .unwrap();
        store.flush().unwrap();
    }
}

#[test]
fn a_killed_process_on_the_ring_loses_nothing_that_was_acknowledged() {
    killed_again_and_again(true);
}

#[test]
fn a_killed_process_on_positioned_calls_loses_nothing_that_was_acknowledged() {
    killed_again_and_again(false);
}
