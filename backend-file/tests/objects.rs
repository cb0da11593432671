//! Oddities of the medium: whose folder it is, who else is at it, what is damaged in it, and what stays behind.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_file::{FileBackend, OBJECTS_CAPS, ObjectsConfig};
use larder_traits::{
    Backend, BackendError, Classify, ClientError, ClientStream, Clock, Durability, ErrorKind,
    ExpirationPolicy, Fault, Metadata, ObjectContext, ObjectId, ObjectListing, Outcome, TestClock,
};
use tempfile::TempDir;
use twox_hash::{XxHash3_64, XxHash3_128};

fn id(key: &str) -> ObjectId {
    ObjectId::new(ObjectContext::new("test", Vec::new()), key)
}

fn config(folder: &TempDir) -> ObjectsConfig {
    ObjectsConfig::new(folder.path().join("place"))
}

async fn open(folder: &TempDir) -> FileBackend {
    FileBackend::open(config(folder)).await.unwrap()
}

async fn place() -> (TempDir, FileBackend) {
    let folder = tempfile::tempdir().unwrap();
    let handle = open(&folder).await;
    (folder, handle)
}

fn pieces(payload: &[u8]) -> ClientStream {
    let pieces: Vec<_> = payload.chunks(50_000).map(Bytes::copy_from_slice).collect();
    stream::iter(pieces.into_iter().map(Ok)).boxed()
}

/// Bytes that differ from place to place.
fn payload(len: usize) -> Vec<u8> {
    let words = (0..).flat_map(|nth: u64| XxHash3_64::oneshot(&nth.to_le_bytes()).to_le_bytes());
    words.take(len).collect()
}

async fn put(handle: &FileBackend, key: &str, payload: &[u8]) {
    handle
        .put_object(&id(key), &Metadata::new(), pieces(payload))
        .await
        .unwrap();
}

/// The payload, and the pieces that came before an error.
async fn try_get(
    handle: &FileBackend,
    key: &str,
) -> (Vec<Bytes>, Result<Option<Metadata>, BackendError>) {
    let mut pieces = Vec::new();
    let (metadata, mut payload) = match handle.get_object(&id(key)).await {
        Ok(Some(found)) => found,
        Ok(None) => return (pieces, Ok(None)),
        Err(e) => return (pieces, Err(e)),
    };
    while let Some(piece) = payload.next().await {
        match piece {
            Ok(piece) => pieces.push(piece),
            Err(e) => return (pieces, Err(e)),
        }
    }
    (pieces, Ok(Some(metadata)))
}

async fn get(handle: &FileBackend, key: &str) -> Option<Vec<u8>> {
    let (pieces, ended) = try_get(handle, key).await;
    ended.unwrap().map(|_metadata| pieces.concat())
}

#[track_caller]
fn refused<T: std::fmt::Debug, E: Classify>(result: Result<T, E>, kind: ErrorKind) {
    let e = result.expect_err("this should have been refused");
    assert_eq!((e.kind(), e.outcome()), (kind, Outcome::NotApplied), "{e}");
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn objects(folder: &TempDir) -> Vec<PathBuf> {
    files(&folder.path().join("place/objects"))
}

fn on_their_way(folder: &TempDir) -> Vec<PathBuf> {
    files(&folder.path().join("place/tmp"))
}

#[tokio::test]
async fn a_folder_of_others_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("place");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("letter.txt"), "dear").unwrap();
    refused(
        FileBackend::open(config(&folder)).await,
        ErrorKind::InvalidInput,
    );
    assert_eq!(files(&root), [root.join("letter.txt")]);
    let entries = fs::read_dir(&root).unwrap().count();
    assert_eq!(entries, 1, "nothing was made in it");

    let file = config(&folder).with_path(root.join("letter.txt"));
    refused(FileBackend::open(file).await, ErrorKind::InvalidInput);
    let below = config(&folder).with_path(root.join("letter.txt/place"));
    assert!(FileBackend::open(below).await.is_err());
    assert_eq!(fs::read(root.join("letter.txt")).unwrap(), b"dear");
}

#[tokio::test]
async fn a_mark_that_is_newer_damaged_or_lost_is_refused() {
    let (folder, handle) = place().await;
    put(&handle, "a", b"payload").await;
    let path = folder.path().join("place/LARDER-OBJECTS");
    let mark = fs::read(&path).unwrap();
    let mut newer = mark.clone();
    newer[8] = 2;
    let sum = XxHash3_64::oneshot(&newer[..12]).to_le_bytes();
    newer[12..].copy_from_slice(&sum);
    fs::write(&path, &newer).unwrap();
    refused(
        FileBackend::open(config(&folder)).await,
        ErrorKind::Unsupported,
    );
    for at in 0..mark.len() {
        let mut damaged = mark.clone();
        damaged[at] ^= 4;
        fs::write(&path, &damaged).unwrap();
        refused(FileBackend::open(config(&folder)).await, ErrorKind::Corrupt);
    }
    fs::write(&path, &mark[..7]).unwrap();
    refused(FileBackend::open(config(&folder)).await, ErrorKind::Corrupt);
    fs::remove_file(&path).unwrap();
    refused(FileBackend::open(config(&folder)).await, ErrorKind::Corrupt);
    fs::write(&path, &mark).unwrap();
    assert_eq!(get(&open(&folder).await, "a").await.unwrap(), b"payload");
}

#[tokio::test]
async fn a_place_that_was_half_made_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("place");
    fs::create_dir_all(root.join("objects")).unwrap();
    fs::write(root.join(".larder-objects-0123"), "half a mark").unwrap();
    let handle = open(&folder).await;
    put(&handle, "a", b"payload").await;
    assert_eq!(get(&open(&folder).await, "a").await.unwrap(), b"payload");
}

#[tokio::test]
async fn eight_openers_at_once_make_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let handles = join_all((0..8).map(|_| open(&folder))).await;
    for (nth, handle) in handles.iter().enumerate() {
        put(handle, &nth.to_string(), &[7; 10]).await;
    }
    for handle in &handles {
        for nth in 0..8 {
            assert_eq!(get(handle, &nth.to_string()).await.unwrap(), [7; 10]);
        }
    }
}

#[tokio::test]
async fn an_object_of_a_newer_version_is_refused_and_not_called_damaged() {
    let (folder, handle) = place().await;
    put(&handle, "a", b"payload").await;
    let path = objects(&folder).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let sum = XxHash3_128::oneshot(&bytes[..496]).to_le_bytes();
    bytes[496..512].copy_from_slice(&sum);
    fs::write(&path, bytes).unwrap();
    refused(
        handle.get_object(&id("a")).await.map(|_| ()),
        ErrorKind::Unsupported,
    );
}

#[tokio::test]
async fn a_file_as_version_1_was_published_is_read_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::new());
    let theirs = Arc::clone(&clock) as Arc<dyn Clock>;
    let handle = FileBackend::open(config(&folder).with_clock(theirs)).await;
    let handle = handle.unwrap();
    let id: ObjectId = "test;org=a%2Fb/object".parse().unwrap();
    handle
        .put_object(&id, &Metadata::new(), pieces(b"another"))
        .await
        .unwrap();
    let golden = include_bytes!("golden/object-v1.bin");
    fs::write(&objects(&folder)[0], golden).unwrap();
    let (metadata, payload) = handle.get_object(&id).await.unwrap().unwrap();
    let expires = clock.now() + Duration::from_secs(1_000);
    assert_eq!(metadata.time_expires, Some(expires));
    assert_eq!(metadata.custom["k"], "v");
    let payload: Vec<_> = payload.try_collect().await.unwrap();
    assert_eq!(payload.concat(), b"payload");
    // The name of the file is part of the format too.
    let path = folder.path().join("place/objects");
    assert_eq!(objects(&folder), [path.join("b8/test;org=a%2Fb~object")]);
    let long: ObjectId = format!("test/{}", "k".repeat(300)).parse().unwrap();
    handle.delete_object(&id).await.unwrap();
    handle
        .put_object(&long, &Metadata::new(), pieces(b""))
        .await
        .unwrap();
    assert_eq!(
        objects(&folder),
        [path.join("f5/+c9a3c57a40b8170de9da9f7091d9acb69bef90e44e4616e4d9bf066b8d0275b0")]
    );
    let mark = fs::read(folder.path().join("place/LARDER-OBJECTS")).unwrap();
    assert_eq!(mark[..12], *b"LARDEROF\x01\0\0\0");
}

#[tokio::test]
async fn each_changed_byte_of_a_small_object_is_found() {
    let (folder, handle) = place().await;
    let mut metadata =
        Metadata::with_policy(ExpirationPolicy::TimeToIdle(Duration::from_secs(1_000_000)));
    metadata.custom.insert("k".into(), "v".into());
    let whole = payload(300);
    handle
        .put_object(&id("a"), &metadata, pieces(&whole))
        .await
        .unwrap();
    let metadata = handle.get_metadata(&id("a")).await.unwrap();
    let path = objects(&folder).remove(0);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 4096 + 300 + 16);
    let file = File::options().write(true).open(&path).unwrap();
    for (at, byte) in bytes.iter().enumerate() {
        let place = u64::try_from(at).unwrap();
        for change in [0xFF, 1 << (at % 8)] {
            file.write_all_at(&[byte ^ change], place).unwrap();
            let (seen, ended) = try_get(&handle, "a").await;
            let e = ended.expect_err("a changed byte was not found");
            assert_eq!((e.kind(), seen.len()), (ErrorKind::Corrupt, 0), "{at}");
            match handle.get_metadata(&id("a")).await {
                Ok(seen) => {
                    assert!(at >= 4096, "{at}");
                    assert_eq!(seen, metadata);
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt, "{at}"),
            }
        }
        file.write_all_at(&[*byte], place).unwrap();
    }
    assert_eq!(get(&handle, "a").await.unwrap(), whole);
}

#[tokio::test]
async fn of_a_long_object_nothing_is_handed_out_from_the_changed_byte_on() {
    let (folder, handle) = place().await;
    let whole = payload(700_000);
    put(&handle, "a", &whole).await;
    let path = objects(&folder).remove(0);
    let bytes = fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    for at in (4096..bytes.len()).step_by(17_001).chain([bytes.len() - 1]) {
        let place = u64::try_from(at).unwrap();
        file.write_all_at(&[bytes[at] ^ 8], place).unwrap();
        let (seen, ended) = try_get(&handle, "a").await;
        let e = ended.expect_err("a changed byte was not found");
        assert_eq!(
            (e.kind(), e.outcome()),
            (ErrorKind::Corrupt, Outcome::NotApplied)
        );
        let seen = seen.concat();
        assert!(seen.len() <= at - 4096, "{} bytes before {at}", seen.len());
        assert_eq!(seen, whole[..seen.len()]);
        file.write_all_at(&[bytes[at]], place).unwrap();
    }
    // Units that changed places with each other, each whole in itself.
    for (nth, other) in [(1_usize, 2_usize), (2, 1)] {
        let from = 4096 + nth * 65_536;
        let to = u64::try_from(4096 + other * 65_536).unwrap();
        file.write_all_at(&bytes[from..from + 65_536], to).unwrap();
    }
    let (_, ended) = try_get(&handle, "a").await;
    refused(ended, ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_file_that_was_cut_short_or_grew_or_is_another_objects_is_found() {
    let (folder, handle) = place().await;
    put(&handle, "a", &payload(70_000)).await;
    let path = objects(&folder).remove(0);
    let bytes = fs::read(&path).unwrap();
    let lens = (0..bytes.len()).step_by(997).chain([bytes.len() - 1]);
    for len in lens {
        fs::write(&path, &bytes[..len]).unwrap();
        refused(handle.get_metadata(&id("a")).await, ErrorKind::Corrupt);
        let (seen, ended) = try_get(&handle, "a").await;
        refused(ended, ErrorKind::Corrupt);
        assert!(seen.is_empty());
    }
    fs::write(&path, [&bytes[..], b"x"].concat()).unwrap();
    refused(try_get(&handle, "a").await.1, ErrorKind::Corrupt);
    fs::write(&path, &bytes).unwrap();
    put(&handle, "b", b"other").await;
    let mut paths = objects(&folder);
    paths.retain(|other| *other != path);
    fs::copy(&path, &paths[0]).unwrap();
    refused(try_get(&handle, "b").await.1, ErrorKind::Corrupt);
    // A damaged object is replaced and removed like any other.
    put(&handle, "b", b"again").await;
    assert_eq!(get(&handle, "b").await.unwrap(), b"again");
    fs::write(&path, b"nothing of an object").unwrap();
    handle.delete_object(&id("a")).await.unwrap();
    assert_eq!(get(&handle, "a").await, None);
}

#[tokio::test]
async fn a_body_that_is_cut_short_while_it_is_read_ends_in_an_error() {
    let (folder, handle) = place().await;
    put(&handle, "a", &payload(2_000_000)).await;
    let (_, mut body) = handle.get_object(&id("a")).await.unwrap().unwrap();
    let first = body.next().await.unwrap().unwrap();
    assert_eq!(first, payload(first.len()));
    let file = File::options().write(true).open(&objects(&folder)[0]);
    file.unwrap().set_len(1_000_000).unwrap();
    let rest = body.try_collect::<Vec<_>>().await;
    refused(rest, ErrorKind::Corrupt);
}

#[tokio::test]
async fn what_a_killed_put_left_is_removed_and_what_is_under_way_is_not() {
    let (folder, handle) = place().await;
    let left = folder.path().join("place/tmp/left");
    fs::write(&left, b"half an object").unwrap();
    let (send, pieces) = tokio::sync::mpsc::channel(1);
    let pieces = stream::unfold(pieces, async |mut pieces| {
        let piece: Option<Bytes> = pieces.recv().await;
        piece.map(|piece| (Ok(piece), pieces))
    });
    let writer = handle.clone();
    let put = tokio::spawn(async move {
        let metadata = Metadata::new();
        writer.put_object(&id("a"), &metadata, pieces.boxed()).await
    });
    let half = Bytes::from(payload(400_000));
    send.send(half.clone()).await.unwrap();
    // Until the first half is on its way, beside what was left.
    while on_their_way(&folder).len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let other = open(&folder).await;
    assert!(!left.exists());
    assert_eq!(on_their_way(&folder).len(), 1, "it is being written");
    assert_eq!(get(&other, "a").await, None);
    send.send(Bytes::from_static(b"end")).await.unwrap();
    drop(send);
    put.await.unwrap().unwrap();
    assert_eq!(
        get(&other, "a").await.unwrap(),
        [&half[..], b"end"].concat()
    );
    assert_eq!(on_their_way(&folder), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_put_that_fails_or_is_dropped_or_too_long_leaves_nothing() {
    let (folder, handle) = place().await;
    put(&handle, "a", b"old").await;
    let half = || stream::iter([Ok(Bytes::from(payload(600_000)))]);
    let metadata = Metadata::new();

    let broken = half().chain(stream::iter([Err(ClientError::new("broken"))]));
    let failed = handle.put_object(&id("a"), &metadata, broken.boxed()).await;
    assert!(matches!(failed, Err(BackendError::Client(_))), "{failed:?}");

    let endless = half().chain(stream::pending());
    let a = id("a");
    let dropped = handle.put_object(&a, &metadata, endless.boxed());
    let dropped = tokio::time::timeout(Duration::from_millis(300), dropped).await;
    assert!(dropped.is_err());

    let small = config(&folder).with_payload_len_bytes_max(600_000);
    let small = FileBackend::open(small).await.unwrap();
    small
        .put_object(&id("b"), &metadata, half().boxed())
        .await
        .unwrap();
    let one_more = half().chain(stream::iter([Ok(Bytes::from_static(b"1"))]));
    let too_long = small
        .put_object(&id("a"), &metadata, one_more.boxed())
        .await;
    refused(too_long, ErrorKind::InvalidInput);

    let mut wordy = Metadata::new();
    wordy.custom.insert("k".into(), "v".repeat(2 << 20));
    let too_wordy = handle.put_object(&id("a"), &wordy, half().boxed()).await;
    refused(too_wordy, ErrorKind::InvalidInput);

    for handle in [&handle, &small] {
        handle.join().await;
    }
    assert_eq!(on_their_way(&folder), [] as [PathBuf; 0]);
    assert_eq!(get(&handle, "a").await.unwrap(), b"old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_of_one_object_on_several_handles_leave_one_of_their_versions() {
    let folder = tempfile::tempdir().unwrap();
    let one = config(&folder).with_threads_max(NonZeroUsize::new(2).unwrap());
    let handles = join_all((0..4).map(|_| FileBackend::open(one.clone()))).await;
    let tasks = handles.into_iter().zip(0_u8..).map(|(handle, nth)| {
        let handle = handle.unwrap();
        tokio::spawn(async move {
            for round in 0..30_usize {
                put(&handle, "a", &vec![nth; 90_000 + round]).await;
                let seen = get(&handle, "a").await.unwrap();
                assert!(seen.iter().all(|byte| *byte == seen[0]));
                assert!((90_000..90_030).contains(&seen.len()));
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(objects(&folder).len(), 1);
    assert_eq!(on_their_way(&folder), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn ids_too_long_for_a_name_are_objects_like_others() {
    let (folder, handle) = place().await;
    let longest = OBJECTS_CAPS.high_volume.id_len_bytes_max;
    let keys = [240, 249, 250, 251, 300, longest - 6]
        .map(|len| ["a", "b"].map(|end| format!("{}{end}", "k".repeat(len))));
    for key in keys.iter().flatten() {
        put(&handle, key, key.as_bytes()).await;
    }
    let other = open(&folder).await;
    for key in keys.iter().flatten() {
        assert_eq!(get(&other, key).await.unwrap(), key.as_bytes());
        assert_eq!(id(key).to_string().len(), key.len() + 5);
    }
    assert_eq!(objects(&folder).len(), 12);
    for key in keys.iter().flatten() {
        other.delete_object(&id(key)).await.unwrap();
    }
    assert_eq!(objects(&folder), [] as [PathBuf; 0]);
    let beyond = id(&"k".repeat(longest - 4));
    refused(handle.get_metadata(&beyond).await, ErrorKind::InvalidInput);
}

/// Everything that a listing names, in pages of `limit`.
async fn listed(handle: &FileBackend, limit: usize) -> Vec<ObjectId> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = handle.list_objects(after.as_deref(), limit).await.unwrap();
        assert!(page.ids.len() <= limit.max(1));
        ids.extend(page.ids);
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

#[tokio::test]
async fn a_listing_names_each_object_once_and_nothing_else() {
    let (folder, handle) = place().await;
    assert_eq!(listed(&handle, 10).await, []);
    let odd = ["", "a", "a/b", "~", "%7E", "+", "A", "\u{1f4be}"];
    let long = ["a", "b"].map(|end| format!("{}{end}", "k".repeat(900)));
    let keys = odd.iter().map(ToString::to_string).chain(long);
    let keys: Vec<_> = keys.chain((0..600).map(|n| n.to_string())).collect();
    for key in &keys {
        put(&handle, key, b"").await;
    }
    let shard = objects(&folder)[0].parent().unwrap().to_owned();
    for file in ["stranger", "a~b~c", ".hidden"] {
        fs::write(shard.join(file), b"of others").unwrap();
    }
    fs::write(folder.path().join("place/tmp/half"), b"half").unwrap();
    let mut expected: Vec<_> = keys.iter().map(|key| id(key)).collect();
    expected.sort();
    for limit in [0, 1, 7, 608, 609, 610, 1_000, usize::MAX] {
        let mut ids = listed(&handle, limit).await;
        ids.sort();
        assert_eq!(ids, expected, "in pages of {limit}");
    }
    // One that is removed between two pages is missing, and all others are there.
    let first = handle.list_objects(None, 5).await.unwrap();
    let second = handle.list_objects(first.next.as_deref(), 1).await.unwrap();
    handle.delete_object(&first.ids[4]).await.unwrap();
    handle.delete_object(&second.ids[0]).await.unwrap();
    let rest = handle.list_objects(first.next.as_deref(), 9_999).await;
    let mut ids = [&first.ids[..], &rest.unwrap().ids].concat();
    ids.sort();
    expected.retain(|id| *id != second.ids[0]);
    assert_eq!(ids, expected);
    for after in ["", "00", "00/", "zz/a~b", "00/stranger", "0/a~b", "../x~"] {
        let page = handle.list_objects(Some(after), 5).await;
        refused(page, ErrorKind::InvalidInput);
    }
}

#[tokio::test]
async fn dead_objects_are_cleared_away_when_asked_for_and_by_a_sweep() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::new());
    let theirs = Arc::clone(&clock) as Arc<dyn Clock>;
    let handle = FileBackend::open(config(&folder).with_clock(theirs)).await;
    let handle = handle.unwrap();
    let second = Duration::from_secs(1);
    let policies = [
        ExpirationPolicy::Manual,
        ExpirationPolicy::TimeToLive(second),
        ExpirationPolicy::TimeToIdle(second),
        ExpirationPolicy::TimeToLive(second * 9),
    ];
    for (nth, policy) in policies.into_iter().cycle().take(20).enumerate() {
        let metadata = Metadata::with_policy(policy);
        let key = id(&nth.to_string());
        handle
            .put_object(&key, &metadata, pieces(b"payload"))
            .await
            .unwrap();
    }
    assert_eq!(handle.sweep().await.unwrap(), 0);
    clock.advance(second);
    for key in ["1", "2"] {
        assert_eq!(get(&handle, key).await, None);
    }
    handle.join().await;
    assert_eq!(objects(&folder).len(), 18);
    assert_eq!(handle.sweep().await.unwrap(), 8);
    assert_eq!(objects(&folder).len(), 10);
    clock.advance(second * 1_000);
    assert_eq!(handle.sweep().await.unwrap(), 5);
    assert_eq!(get(&handle, "0").await.unwrap(), b"payload");
    // What died and was written anew is not what a late sweep removes.
    put(&handle, "1", b"new").await;
    assert_eq!(handle.sweep().await.unwrap(), 0);
    assert_eq!(get(&handle, "1").await.unwrap(), b"new");
}

#[tokio::test]
async fn a_call_that_cannot_get_the_lock_ends_in_time() {
    let (folder, patient) = place().await;
    put(&patient, "a", b"old").await;
    let short = config(&folder).with_wait(Duration::from_secs(1));
    let handle = FileBackend::open(short).await.unwrap();
    let shard = objects(&folder)[0].parent().unwrap().to_owned();
    let held = File::open(shard).unwrap();
    held.lock().unwrap();
    let metadata = Metadata::new();
    let late = handle.put_object(&id("a"), &metadata, pieces(b"new")).await;
    refused(late, ErrorKind::Timeout);
    refused(handle.delete_object(&id("a")).await, ErrorKind::Timeout);
    assert_eq!(
        get(&handle, "a").await.unwrap(),
        b"old",
        "a read needs no lock"
    );
    drop(held);
    put(&patient, "a", b"new").await;
    handle.join().await;
    assert_eq!(on_their_way(&folder), [] as [PathBuf; 0]);
}

#[test]
fn what_is_declared_is_what_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let caps = config(&folder)
        .with_durability(Durability::Process)
        .with_in_flight_max(NonZeroUsize::MIN)
        .with_id_len_bytes_max(700)
        .caps();
    assert_eq!(caps.durability, Durability::Process);
    assert_eq!(caps.in_flight_max, Some(1));
    assert_eq!(caps.high_volume.id_len_bytes_max, 700);
    assert_eq!(config(&folder).caps(), OBJECTS_CAPS);
}

#[tokio::test]
#[ignore = "mounts a small file system on a loop device, which only root may do"]
async fn a_full_disk_loses_nothing_and_goes_on_when_it_has_space_again() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success());
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
    let mounted = tempfile::tempdir().unwrap();
    let mount = Command::new("mount")
        .args(["-o", "loop"])
        .args([&image, mounted.path()])
        .status();
    assert!(mount.unwrap().success());
    let ended = tokio::spawn(fill(mounted.path().to_owned())).await;
    run(Command::new("umount").arg(mounted.path()));
    ended.unwrap();
}

async fn fill(mounted: PathBuf) {
    let config = ObjectsConfig::new(mounted.join("place"));
    let handle = FileBackend::open(config.clone()).await.unwrap();
    let try_put = async |key: &str, len| -> Result<(), Fault> {
        let (id, metadata) = (id(key), Metadata::new());
        match handle
            .put_object(&id, &metadata, pieces(&payload(len)))
            .await
        {
            Ok(()) => Ok(()),
            Err(BackendError::Fault(fault)) => Err(fault),
            Err(e) => panic!("{e:?}"),
        }
    };
    let mut told = Vec::new();
    let refused = loop {
        let key = told.len().to_string();
        match try_put(&key, 300_000).await {
            Ok(()) => told.push(key),
            Err(e) => break e,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused:?}");
    assert_eq!(refused.outcome(), Outcome::NotApplied);
    assert!(told.len() > 10, "{}", told.len());
    // Replacing needs room for both, and the old one stays where there is none.
    assert_eq!(
        try_put("0", 5_000_000).await.unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    handle.join().await;
    assert_eq!(files(&mounted.join("place/tmp")), [] as [PathBuf; 0]);
    for key in &told {
        assert_eq!(get(&handle, key).await.unwrap(), payload(300_000));
    }
    // Removing needs none.
    for key in &told[..told.len() / 2] {
        handle.delete_object(&id(key)).await.unwrap();
    }
    try_put("after", 600_000).await.unwrap();
    let other = FileBackend::open(config).await.unwrap();
    for (nth, key) in told.iter().enumerate() {
        let seen = get(&other, key).await;
        assert_eq!(seen.is_some(), nth >= told.len() / 2);
    }
    assert_eq!(get(&other, "after").await.unwrap(), payload(600_000));
}
