//! A payload is passed on and never collected (BK-6). A binary of its own, so that nothing else uses memory beside it.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_file::{FileBackend, ObjectsConfig};
use larder_traits::{Backend, Metadata, ObjectContext, ObjectId};

const PIECE_LEN_BYTES: usize = 1 << 20;
const PIECES: usize = 96;

/// The most memory that this process ever had in use, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_payload_of_96_mib_takes_a_small_part_of_that() {
    let folder = tempfile::tempdir().unwrap();
    let config = ObjectsConfig::new(folder.path().join("place"));
    let handle = FileBackend::open(config).await.unwrap();
    let id = ObjectId::new(ObjectContext::new("test", Vec::new()), "large");
    let before = peak_kib();
    let pieces = stream::iter(0..PIECES).map(|n| {
        let byte = u8::try_from(n).unwrap();
        Ok(Bytes::from(vec![byte; PIECE_LEN_BYTES]))
    });
    let metadata = Metadata::new();
    handle
        .put_object(&id, &metadata, pieces.boxed())
        .await
        .unwrap();
    let (_, payload) = handle.get_object(&id).await.unwrap().unwrap();
    let check = |at: usize, piece: Bytes| async move {
        for (at, byte) in (at..).zip(&piece).step_by(997) {
            assert_eq!(usize::from(*byte), at / PIECE_LEN_BYTES);
        }
        Ok(at + piece.len())
    };
    let len = payload.try_fold(0, check).await.unwrap();
    assert_eq!(len, PIECES * PIECE_LEN_BYTES);
    let grown = peak_kib() - before;
    assert!(grown < 24 << 10, "{grown} KiB");
}
