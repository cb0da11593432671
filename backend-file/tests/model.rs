//! Random histories on a real file, on both engines, against a map: reads, lists, flushes, reopening, threads.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use larder_file::{FileBlobStore, FileConfig};
use larder_traits::blob_store::{BlobGuid, BlobStore};
use larder_traits::{AlignedBlobBuf, Classify, ErrorKind, Outcome};
use proptest::prelude::*;
use tempfile::tempdir;

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u64),
    PutAll(Vec<(u8, u64)>),
    Delete(u8),
    Flush,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..6_u8;
    prop_oneof![
        4 => (name.clone(), any::<u64>()).prop_map(|(name, tag)| Op::Put(name, tag)),
        2 => prop::collection::vec((name.clone(), any::<u64>()), 0..6).prop_map(Op::PutAll),
        2 => name.prop_map(Op::Delete),
        3 => Just(Op::Flush),
        1 => Just(Op::Reopen),
    ]
}

fn guid(name: u8) -> BlobGuid {
    BlobGuid::from_u128(name.into())
}

fn open(path: &Path, ring: bool) -> FileBlobStore {
    let config = FileConfig::new(path).with_ring(ring).with_pool_frames(4);
    FileBlobStore::open(config).unwrap()
}

fn fill(mut buf: AlignedBlobBuf, tag: u64) -> AlignedBlobBuf {
    for (word, at) in buf.chunks_exact_mut(8).zip(0_u64..) {
        word.copy_from_slice(&(tag ^ at.rotate_left(40)).to_le_bytes());
    }
    buf
}

/// The same as the model, read one by one and all at once.
fn compare(store: &FileBlobStore, model: &BTreeMap<u8, u64>) {
    let mut names = store.list_blobs().unwrap();
    names.sort();
    let expected: Vec<_> = model.keys().map(|name| guid(*name)).collect();
    assert_eq!(names, expected);
    let mut buffers: Vec<_> = (0..6).map(|_| store.alloc_blob_buf_uninit()).collect();
    let mut reads: Vec<_> = (0..6).map(guid).zip(&mut buffers).collect();
    let results = store.read_blobs(&mut reads);
    let mut one = AlignedBlobBuf::zeroed();
    for ((name, result), buffer) in (0..6).zip(results).zip(&buffers) {
        assert_eq!(
            store.has_blob(guid(name)).unwrap(),
            model.contains_key(&name)
        );
        match model.get(&name) {
            Some(tag) => {
                result.unwrap();
                assert!(buffer[..] == fill(AlignedBlobBuf::zeroed(), *tag)[..]);
                store.read_blob(guid(name), &mut one).unwrap();
                assert!(buffer[..] == one[..]);
                let mut part = [0; 100];
                store.read_blob_range(guid(name), 1_000, &mut part).unwrap();
                assert_eq!(part, one[1_000..1_100]);
            }
            None => assert_eq!(result.unwrap_err().kind(), ErrorKind::NotFound),
        }
    }
}

fn history(ops: &[Op], ring: bool) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("frames");
    let mut store = open(&path, ring);
    let (mut now, mut flushed) = (BTreeMap::new(), BTreeMap::new());
    for op in ops {
        match op {
            Op::Put(name, tag) => {
                let src = fill(store.alloc_blob_buf_zeroed(), *tag);
                store.write_blob(guid(*name), &src).unwrap();
                now.insert(*name, *tag);
            }
            Op::PutAll(blobs) => {
                let sources = blobs
                    .iter()
                    .map(|(_, tag)| fill(AlignedBlobBuf::zeroed(), *tag));
                let sources: Vec<_> = sources.collect();
                let names = blobs.iter().map(|(name, _)| guid(*name));
                store
                    .write_blobs(&names.zip(&sources).collect::<Vec<_>>())
                    .unwrap();
                now.extend(blobs.iter().copied());
            }
            Op::Delete(name) => {
                store.delete_blob(guid(*name)).unwrap();
                now.remove(name);
            }
            Op::Flush => {
                store.flush().unwrap();
                flushed.clone_from(&now);
                assert!(!store.needs_flush());
            }
            Op::Reopen => {
                drop(store);
                store = open(&path, ring);
                assert!(store.recovery().is_clean);
                now.clone_from(&flushed);
            }
        }
        compare(&store, &now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_history_on_the_ring_is_that_of_a_map(ops in prop::collection::vec(op(), 1..16)) {
        history(&ops, true);
    }

    #[test]
    fn a_history_on_positioned_calls_is_that_of_a_map(ops in prop::collection::vec(op(), 1..16)) {
        history(&ops, false);
    }
}

#[test]
fn a_file_written_on_one_engine_is_read_on_the_other() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("frames");
    let mut model = BTreeMap::new();
    for (round, ring) in (0_u64..).zip([true, false, true, false]) {
        let store = open(&path, ring);
        compare(&store, &model);
        for name in 0..3 {
            let tag = 100 * round + u64::from(name);
            store
                .write_blob(guid(name), &fill(store.alloc_blob_buf_zeroed(), tag))
                .unwrap();
            model.insert(name, tag);
        }
        store.flush().unwrap();
    }
}

#[test]
fn many_threads_that_each_write_and_flush_share_their_commits() {
    const THREADS: u8 = 8;
    const ROUNDS: u64 = 6;
    let folder = tempdir().unwrap();
    let path = folder.path().join("frames");
    let store = open(&path, true);
    thread::scope(|scope| {
        for name in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let src = fill(store.alloc_blob_buf_zeroed(), round);
                    store.write_blob(guid(name), &src).unwrap();
                    store.flush().unwrap();
                }
            });
        }
    });
    assert!(store.stats().commits <= u64::from(THREADS) * ROUNDS);
    // Not closed in order: the next open sees what a killed process leaves.
    let killed = folder.path().join("killed");
    std::fs::copy(&path, &killed).unwrap();
    drop(store);
    for path in [&path, &killed] {
        let store = open(path, false);
        assert_eq!(store.recovery().dropped_groups, 0);
        let mut dst = AlignedBlobBuf::zeroed();
        for name in 0..THREADS {
            store.read_blob(guid(name), &mut dst).unwrap();
            assert!(dst[..] == fill(AlignedBlobBuf::zeroed(), ROUNDS - 1)[..]);
        }
    }
}

#[test]
fn space_is_used_again_once_its_blobs_are_gone_for_good() {
    let folder = tempdir().unwrap();
    let store = open(&folder.path().join("frames"), true);
    let src = fill(store.alloc_blob_buf_zeroed(), 1);
    for _ in 0..200 {
        store.write_blob(guid(1), &src).unwrap();
        store.flush().unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.blobs, stats.slots), (1, 64), "{stats:?}");
    store.delete_blob(guid(1)).unwrap();
    store.flush().unwrap();
    assert_eq!(store.stats().free_slots, 64);
}

#[test]
fn what_is_no_store_is_refused_and_left_as_it_is() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("letter");
    let text = b"Dear store,\n".repeat(10_000);
    std::fs::write(&path, &text).unwrap();
    let refused = FileBlobStore::open(FileConfig::new(&path)).unwrap_err();
    assert_eq!(
        (refused.kind(), refused.outcome()),
        (ErrorKind::Corrupt, Outcome::NotApplied)
    );
    assert_eq!(std::fs::read(&path).unwrap(), text);

    let missing = FileConfig::new(folder.path().join("missing")).with_create(false);
    let refused = FileBlobStore::open(missing).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);

    let path = folder.path().join("frames");
    let _held = open(&path, true);
    let refused = FileBlobStore::open(FileConfig::new(&path)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
}
