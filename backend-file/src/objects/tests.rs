//! The order of what makes an object durable, and what becomes of a call any step of which fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use larder_traits::{
    Classify, Clock, ErrorKind, ExpirationPolicy, ObjectContext, Outcome, TestClock,
};
use tempfile::TempDir;

use super::*;
use crate::plain::Step;

mod faults;

fn id(key: &str) -> ObjectId {
    ObjectId::new(ObjectContext::new("test", Vec::new()), key)
}

async fn open(path: &Path) -> FileBackend {
    FileBackend::open(ObjectsConfig::new(path)).await.unwrap()
}

async fn place() -> (TempDir, FileBackend) {
    let folder = tempfile::tempdir().unwrap();
    let handle = open(&folder.path().join("place")).await;
    (folder, handle)
}

async fn put(handle: &FileBackend, key: &str, payload: Vec<u8>) -> Result<(), BackendError> {
    let stream = stream::iter([Ok(Bytes::from(payload))]).boxed();
    let metadata = Metadata::new();
    handle.put_object(&id(key), &metadata, stream).await
}

async fn get(handle: &FileBackend, key: &str) -> Option<Vec<u8>> {
    let (_, payload) = handle.get_object(&id(key)).await.unwrap()?;
    let pieces: Vec<_> = payload.try_collect().await.unwrap();
    Some(pieces.concat())
}

/// The steps since the last look, the paths without what comes before the place.
fn steps(handle: &FileBackend) -> Vec<(Step, PathBuf)> {
    let root = &handle.place.config.path;
    let steps = handle.place.medium.watch.take().into_iter();
    let short = |path: PathBuf| {
        let short = path.strip_prefix(root).map(Path::to_owned);
        short.unwrap_or_else(|_| PathBuf::from("above"))
    };
    steps.map(|(step, path)| (step, short(path))).collect()
}

/// The folder and the path of an object below the place.
fn where_is(key: &str) -> (PathBuf, PathBuf) {
    let name = name::Name::of(&id(key).to_string());
    let folder = Path::new("objects").join(name::folder(name.shard));
    (folder.clone(), folder.join(name.file))
}

fn is_tmp(path: &Path) -> bool {
    path.starts_with("tmp") && path != Path::new("tmp")
}

/// A put, from the first step to the last. The folder of the object is made by the first one only.
fn check_put(steps: &[(Step, PathBuf)], key: &str, writes: usize, is_first: bool) {
    let (folder, file) = where_is(key);
    let mut expected = vec![Step::Create];
    expected.extend(vec![Step::Write; writes]);
    expected.push(Step::SyncFile);
    if is_first {
        expected.extend([Step::MakeDir, Step::SyncDir]);
    }
    expected.extend([Step::Rename, Step::SyncDir]);
    let order: Vec<_> = steps.iter().map(|(step, _)| *step).collect();
    assert_eq!(order, expected);
    let (before, after) = steps.split_at(writes + 2);
    assert!(before.iter().all(|(_, path)| is_tmp(path)));
    let paths: Vec<_> = after.iter().map(|(_, path)| path.clone()).collect();
    let mut expected = vec![file, folder.clone()];
    if is_first {
        expected.splice(0..0, [folder, PathBuf::from("objects")]);
    }
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn a_put_syncs_the_file_then_moves_it_then_syncs_the_folder() {
    let (folder, handle) = place().await;
    let root = folder.path().join("place");
    steps(&handle);
    put(&handle, "a", vec![1; 100]).await.unwrap();
    // The payload and the head.
    check_put(&steps(&handle), "a", 2, true);
    put(&handle, "a", Vec::new()).await.unwrap();
    check_put(&steps(&handle), "a", 1, false);
    put(&handle, "a", vec![2; 600_000]).await.unwrap();
    check_put(&steps(&handle), "a", 4, false);

    // Another handle cannot know that the folder was made durable by the first, so it does that itself, once: for all
    // folders that are there when it opens the place.
    let other = open(&root).await;
    let opening = steps(&other);
    assert!(opening.contains(&(Step::SyncDir, PathBuf::from("objects"))));
    put(&other, "a", Vec::new()).await.unwrap();
    check_put(&steps(&other), "a", 1, false);

    // The folder of "b" comes into being after both handles were opened.
    assert_ne!(where_is("a").0, where_is("b").0);
    put(&handle, "b", Vec::new()).await.unwrap();
    check_put(&steps(&handle), "b", 1, true);
    put(&other, "b", Vec::new()).await.unwrap();
    check_put(&steps(&other), "b", 1, true);
}

#[tokio::test]
async fn a_delete_syncs_the_folder_also_where_the_object_is_gone() {
    let (_folder, handle) = place().await;
    put(&handle, "a", vec![1]).await.unwrap();
    steps(&handle);
    let (folder, file) = where_is("a");
    for _ in 0..2 {
        // Whoever removed it may have died before the sync, and an `Ok` is a promise all the same.
        handle.delete_object(&id("a")).await.unwrap();
        let expected = [
            (Step::Remove, file.clone()),
            (Step::SyncDir, folder.clone()),
        ];
        assert_eq!(steps(&handle), expected);
    }
}

#[tokio::test]
async fn a_new_place_is_durable_from_its_parents_down_before_it_bears_its_mark() {
    let folder = tempfile::tempdir().unwrap();
    let handle = open(&folder.path().join("x/y/place")).await;
    let steps = steps(&handle);
    let at = |step: Step, path: &str| {
        let found = steps
            .iter()
            .position(|it| it.0 == step && it.1 == Path::new(path));
        found.unwrap_or_else(|| panic!("{step:?} of {path} in {steps:?}"))
    };
    let mark = at(Step::Rename, "LARDER-OBJECTS");
    let root_syncs: Vec<_> = (0..steps.len())
        .filter(|nth| steps[*nth] == (Step::SyncDir, PathBuf::new()))
        .collect();
    assert!(root_syncs[0] < mark && mark < root_syncs[1]);
    assert!(at(Step::MakeDir, "objects") < root_syncs[0]);
    assert!(at(Step::MakeDir, "tmp") < mark);
    // Three folders above it were made durable, each before the one in it was made.
    let above: Vec<_> = steps
        .iter()
        .take_while(|(_, path)| !path.starts_with("objects"))
        .map(|(step, _)| *step)
        .collect();
    let (make, sync) = (Step::MakeDir, Step::SyncDir);
    assert_eq!(above, [make, make, make, sync, make, sync, make, sync]);
    assert!(steps.contains(&(Step::SyncFile, steps[mark - 1].1.clone())));
}

#[tokio::test]
async fn without_durability_nothing_is_synced() {
    let folder = tempfile::tempdir().unwrap();
    let config = ObjectsConfig::new(folder.path().join("place"));
    let config = config.with_durability(larder_traits::Durability::Process);
    let handle = FileBackend::open(config).await.unwrap();
    assert!(!handle.place.medium.syncs);
    put(&handle, "a", vec![1; 10]).await.unwrap();
    assert_eq!(get(&handle, "a").await.unwrap(), [1; 10]);
}

/// A call, and how it says that it failed.
async fn call(handle: &FileBackend, is_put: bool) -> Result<(), BackendError> {
    if is_put {
        put(handle, "a", vec![2; 300_000]).await
    } else {
        handle.delete_object(&id("a")).await
    }
}

#[tokio::test]
async fn whichever_step_fails_the_answer_is_true_and_nothing_stays_behind() {
    let before = [Step::Create, Step::Write, Step::SyncFile];
    let cases = [
        (true, Step::Create, 0),
        (true, Step::Write, 0),
        (true, Step::Write, 1),
        (true, Step::Write, 2),
        (true, Step::SyncFile, 0),
        (true, Step::Rename, 0),
        (true, Step::SyncDir, 0),
        (false, Step::Remove, 0),
        (false, Step::SyncDir, 0),
    ];
    for (errno, kind) in [
        (libc::EIO, ErrorKind::Unavailable),
        (libc::ENOSPC, ErrorKind::NoSpace),
        (libc::EDQUOT, ErrorKind::NoSpace),
        (libc::EROFS, ErrorKind::PermissionDenied),
        (libc::EUCLEAN, ErrorKind::Corrupt),
    ] {
        for (is_put, step, after) in cases {
            let what = format!("{step:?} {after} fails with {errno}");
            let (folder, handle) = place().await;
            put(&handle, "a", vec![1; 10]).await.unwrap();
            handle.place.medium.watch.fail(step, after, errno);
            let e = call(&handle, is_put).await.expect_err(&what);
            assert_eq!(e.kind(), kind, "{what}");
            let harmless = before.contains(&step)
                || (step == Step::Rename
                    && matches!(kind, ErrorKind::NoSpace | ErrorKind::PermissionDenied));
            let outcome = if harmless {
                Outcome::NotApplied
            } else {
                Outcome::Unknown
            };
            assert_eq!(e.outcome(), outcome, "{what}");
            handle.join().await;
            let tmp = folder.path().join("place/tmp");
            assert_eq!(tmp.read_dir().unwrap().count(), 0, "{what}");
            let seen = get(&handle, "a").await;
            if harmless || step != Step::SyncDir {
                assert_eq!(seen.unwrap(), [1; 10], "{what}");
            }
            let again = call(&handle, is_put).await;
            if step == Step::SyncDir {
                // A sync after one that failed may say that all is well when it is not.
                let e = again.expect_err(&what);
                let answer = (e.kind(), e.outcome());
                assert_eq!(answer, (ErrorKind::Unavailable, Outcome::NotApplied));
            } else {
                again.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn an_access_puts_a_deadline_off_in_place_and_durably() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::new());
    let theirs = Arc::clone(&clock) as Arc<dyn Clock>;
    let config = ObjectsConfig::new(folder.path().join("place")).with_clock(theirs);
    let handle = FileBackend::open(config).await.unwrap();
    let idle = Duration::from_secs(1_000);
    let metadata = Metadata::with_policy(ExpirationPolicy::TimeToIdle(idle));
    let payload = || stream::iter([Ok(Bytes::from_static(b"payload"))]).boxed();
    handle
        .put_object(&id("a"), &metadata, payload())
        .await
        .unwrap();
    steps(&handle);
    let expires = async || {
        let metadata = handle.get_metadata(&id("a")).await.unwrap();
        metadata.unwrap().time_expires.unwrap()
    };
    let first = expires().await;
    assert_eq!(steps(&handle), [], "it is too early for that");
    clock.advance(idle / 2);
    let file = where_is("a").1;
    assert_eq!(expires().await, first + idle / 2);
    let expected = [(Step::Write, file.clone()), (Step::SyncFile, file)];
    assert_eq!(steps(&handle), expected);
    assert_eq!(expires().await, first + idle / 2);
    assert_eq!(steps(&handle), []);

    // One that cannot be put off is still read, with the deadline that it has.
    clock.advance(idle / 2);
    handle.place.medium.watch.fail(Step::Write, 0, libc::EIO);
    assert_eq!(expires().await, first + idle / 2);
    assert_eq!(get(&handle, "a").await.unwrap(), b"payload");
}
