//! A payload goes through a tiered store and is never collected (TS-1). A binary of its own, so that nothing else uses
//! memory beside it; and in this package, since it is the one that knows both tiers.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use std::fs;
use std::sync::Mutex;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::file::{FileBackend, ObjectsConfig};
use larder::sqlite::{SqliteConfig, SqlitePlace};
use larder::tiered::{TieredConfig, TieredStorage};
use larder::{Backend, Metadata, ObjectContext, ObjectId};

const THRESHOLD_BYTES: usize = 1 << 20;

const PIECE_LEN_BYTES: usize = 256 << 10;

/// One at a time: they look at the same memory.
static ALONE: Mutex<()> = Mutex::new(());

/// A line of numbers of this process, in KiB.
fn status_kib(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

/// By how much more than at its start this process grew while so much was put, and read again, in KiB.
fn grown_kib(len_bytes: usize) -> [u64; 2] {
    let _alone = ALONE.lock().unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let rows = SqlitePlace::open(SqliteConfig::new(folder.path().join("rows")));
        let rows = rows.await.unwrap();
        let payloads = FileBackend::open(ObjectsConfig::new(folder.path().join("payloads")));
        let payloads = payloads.await.unwrap();
        let config =
            TieredConfig::new(rows.caps(), payloads.caps()).with_threshold_bytes(THRESHOLD_BYTES);
        let (high, log) = (rows.high_volume(), rows.change_log());
        let storage = TieredStorage::new(high, payloads, log, config).unwrap();
        let id = ObjectId::new(ObjectContext::new("test", Vec::new()), "large");
        let pieces = stream::iter(0..len_bytes / PIECE_LEN_BYTES).map(|n| {
            let byte = u8::try_from(n % 251).unwrap();
            Ok(Bytes::from(vec![byte; PIECE_LEN_BYTES]))
        });
        // The highest so far becomes the present one.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status_kib("VmHWM:");
        let metadata = Metadata::new();
        let put = storage.put_object(&id, &metadata, pieces.boxed());
        put.await.unwrap();
        let put_kib = status_kib("VmHWM:").saturating_sub(before);
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status_kib("VmHWM:");
        let (_, payload) = storage.get_object(&id).await.unwrap().unwrap();
        let check = |at: usize, piece: Bytes| async move {
            for (at, byte) in (at..).zip(&piece).step_by(997) {
                assert_eq!(usize::from(*byte), at / PIECE_LEN_BYTES % 251);
            }
            Ok(at + piece.len())
        };
        assert_eq!(payload.try_fold(0, check).await.unwrap(), len_bytes);
        let got_kib = status_kib("VmHWM:").saturating_sub(before);
        rows.close().await;
        [put_kib, got_kib]
    })
}

#[expect(
    clippy::print_stdout,
    reason = "the figure is what the test is run for"
)]
fn takes_little(len_bytes: usize) {
    let [put_kib, got_kib] = grown_kib(len_bytes);
    let mib = len_bytes >> 20;
    println!("{mib} MiB: {put_kib} KiB more for the put, {got_kib} KiB more for the get");
    let most_kib = u64::try_from(THRESHOLD_BYTES >> 10).unwrap() + (16 << 10);
    assert!(put_kib <= most_kib, "{put_kib} KiB for a put of {mib} MiB");
    assert!(got_kib <= most_kib, "{got_kib} KiB for a get of {mib} MiB");
}

#[test]
fn a_payload_of_128_mib_takes_a_small_part_of_that() {
    takes_little(128 << 20);
}

#[test]
#[ignore = "writes 1 GiB to the disk"]
fn a_payload_of_1_gib_takes_no_more() {
    takes_little(1 << 30);
}
