//! The order of what makes a change durable, and what becomes of a call any step of which fails.

use std::path::Path;

use larder_traits::{Classify, ErrorKind, ObjectContext, ObjectId, Outcome};
use tempfile::TempDir;

use super::*;
use crate::plain::Step;

const WRITER: WriterId = WriterId::from_bytes([9; 16]);

fn change(n: u8) -> Change {
    let context = ObjectContext::new("test", Vec::new());
    let object = ObjectId::new(context, format!("object {n}"));
    Change::new(
        ChangeId::from_bytes([n; 16]),
        object,
        larder_traits::Step::Upload,
    )
}

async fn open(path: &Path) -> FileChangeLog {
    FileChangeLog::open(ChangeLogConfig::new(path))
        .await
        .unwrap()
}

async fn opened() -> (TempDir, FileChangeLog) {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("log")).await;
    (folder, log)
}

fn steps(log: &FileChangeLog) -> Vec<Step> {
    let log = log.inner.log.lock().unwrap();
    let steps = log.medium.watch.take().into_iter();
    steps.map(|(step, _)| step).collect()
}

fn fail(log: &FileChangeLog, step: Step, errno: i32) {
    let log = log.inner.log.lock().unwrap();
    log.medium.watch.fail(step, 0, errno);
}

async fn ids(log: &FileChangeLog) -> Vec<u8> {
    let changes = log.changes(WRITER).await.unwrap();
    let ids = changes.iter().map(|it| it.id.into_bytes()[0]);
    ids.collect()
}

#[tokio::test]
async fn a_call_that_changes_something_is_written_and_synced_and_others_are_not() {
    let (_folder, log) = opened().await;
    let first = steps(&log);
    let made = [
        Step::Remove,
        Step::Create,
        Step::Write,
        Step::SyncFile,
        Step::Rename,
        Step::SyncDir,
    ];
    assert_eq!(first[..made.len()], made);
    let written = [Step::Write, Step::SyncFile];
    log.record(WRITER, &change(1)).await.unwrap();
    assert_eq!(steps(&log), written);
    log.record(WRITER, &change(1)).await.unwrap();
    assert_eq!(ids(&log).await, [1]);
    assert_eq!(steps(&log), []);
    log.renew(WRITER, SystemTime::UNIX_EPOCH).await.unwrap();
    assert_eq!(steps(&log), written);
    log.complete(WRITER, change(1).id).await.unwrap();
    assert_eq!(steps(&log), written);
    log.complete(WRITER, change(1).id).await.unwrap();
    assert_eq!(steps(&log), []);
}

#[tokio::test]
async fn calls_that_come_together_share_a_sync() {
    let (_folder, log) = opened().await;
    steps(&log);
    let changes: Vec<_> = (0..100).map(change).collect();
    let all = changes.iter().map(|change| log.record(WRITER, change));
    for result in futures_util::future::join_all(all).await {
        result.unwrap();
    }
    let steps = steps(&log);
    let syncs = steps.iter().filter(|step| **step == Step::SyncFile);
    assert!(syncs.count() < 50, "{steps:?}");
    assert_eq!(ids(&log).await.len(), 100);
}

#[tokio::test]
async fn a_write_that_fails_is_undone_and_the_log_goes_on() {
    let (folder, log) = opened().await;
    for (errno, kind) in [
        (libc::ENOSPC, ErrorKind::NoSpace),
        (libc::EIO, ErrorKind::Unavailable),
    ] {
        fail(&log, Step::Write, errno);
        let e = log.record(WRITER, &change(1)).await.unwrap_err();
        assert_eq!((e.kind(), e.outcome()), (kind, Outcome::NotApplied));
        assert!(ids(&log).await.is_empty());
    }
    log.record(WRITER, &change(2)).await.unwrap();
    assert_eq!(ids(&open(&folder.path().join("log")).await).await, [2]);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_promised_until_the_log_is_opened_again() {
    let (folder, log) = opened().await;
    log.record(WRITER, &change(1)).await.unwrap();
    fail(&log, Step::SyncFile, libc::EIO);
    let e = log.record(WRITER, &change(2)).await.unwrap_err();
    assert_eq!(
        (e.kind(), e.outcome()),
        (ErrorKind::Unavailable, Outcome::Unknown)
    );
    for _ in 0..2 {
        let e = log.record(WRITER, &change(3)).await.unwrap_err();
        assert_eq!(e.outcome(), Outcome::NotApplied);
        assert!(log.changes(WRITER).await.is_err());
    }
    let log = open(&folder.path().join("log")).await;
    assert_eq!(ids(&log).await, [1]);
    log.record(WRITER, &change(3)).await.unwrap();
    assert_eq!(ids(&log).await, [1, 3]);
}

/// Failure: after a loss of power a log was `Corrupt`, with all that had been acknowledged in it. Cause: a process was
/// killed between the write of a frame and its sync; the sync of the next one that read the frame failed, and the one
/// after that succeeded, as it does once the kernel has given the pages up; so frames went behind one that had never
/// reached the medium. Fix: whoever reads a last frame writes it again before the sync.
#[tokio::test]
async fn the_last_frame_of_another_is_written_again_before_it_is_trusted() {
    let (folder, log) = opened().await;
    let path = folder.path().join("log");
    let other = open(&path).await;
    other.record(WRITER, &change(1)).await.unwrap();
    other.record(WRITER, &change(2)).await.unwrap();
    let before = std::fs::read(&path).unwrap();
    steps(&log);
    fail(&log, Step::SyncFile, libc::EIO);
    log.changes(WRITER).await.unwrap_err();
    assert_eq!(ids(&log).await, [1, 2]);
    let again = [Step::Write, Step::SyncFile];
    let seen = steps(&log);
    assert_eq!(seen[..4], [again, again].concat());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    // An open does so as well.
    let opened = open(&path).await;
    assert!(steps(&opened).starts_with(&again));
}

#[tokio::test]
async fn a_log_that_grows_is_written_anew_and_says_the_same_to_all() {
    let (folder, log) = opened().await;
    let path = folder.path().join("log");
    let other = open(&path).await;
    log.record(WRITER, &change(1)).await.unwrap();
    steps(&log);
    let mut longest = 0;
    for round in 0..1_200_u32 {
        let n = 2 + u8::try_from(round % 3).unwrap();
        let log = if round % 7 == 0 { &other } else { &log };
        log.record(WRITER, &change(n)).await.unwrap();
        log.complete(WRITER, change(n).id).await.unwrap();
        longest = longest.max(std::fs::metadata(&path).unwrap().len());
    }
    let steps = steps(&log);
    let renames = steps.iter().filter(|step| **step == Step::Rename).count();
    assert!(renames > 0 && longest < 600 * 512, "{renames}, {longest}");
    // Nothing is written to the new file before it is durable in its place.
    for (nth, step) in steps.iter().enumerate() {
        if *step == Step::Rename {
            assert_eq!(
                steps[nth - 1..nth + 2],
                [Step::SyncFile, Step::Rename, Step::SyncDir]
            );
        }
    }
    for log in [&log, &other, &open(&path).await] {
        assert_eq!(ids(log).await, [1]);
    }
    assert!(!folder.path().join("log.new").exists());
}

#[tokio::test]
async fn a_log_that_cannot_be_written_anew_goes_on_as_it_is() {
    let (folder, log) = opened().await;
    let path = folder.path().join("log");
    for round in 0..700_u32 {
        if round % 50 == 0 {
            fail(&log, Step::Rename, libc::ENOSPC);
        }
        log.record(WRITER, &change(1)).await.unwrap();
        log.complete(WRITER, change(1).id).await.unwrap();
    }
    log.record(WRITER, &change(2)).await.unwrap();
    assert_eq!(ids(&log).await, [2]);
    assert_eq!(ids(&open(&path).await).await, [2]);
    assert!(!folder.path().join("log.new").exists());
}
