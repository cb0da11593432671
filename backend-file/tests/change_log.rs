//! The change log on its file: its contract, its damages, and what is left after a process was killed.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use larder_file::{ChangeLogConfig, FileChangeLog};
use larder_traits::{
    Change, ChangeId, ChangeLog, Classify, Clock, ErrorKind, Fault, ObjectContext, ObjectId,
    Outcome, Step, TestClock, WriterId,
};
use tempfile::TempDir;

const PATH: &str = "LARDER_FILE_TEST_PATH";
const NAME: &str = "LARDER_FILE_TEST_NAME";

const SECOND: Duration = Duration::from_secs(1);

fn writer(n: u8) -> WriterId {
    WriterId::from_bytes([n; 16])
}

fn id(n: u64) -> ChangeId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    ChangeId::from_bytes(bytes)
}

fn change(n: u64, step: Step) -> Change {
    let object = |key: &str| {
        let context = ObjectContext::new("test", Vec::new());
        ObjectId::new(context, format!("{key} {n}"))
    };
    let mut change = Change::new(id(n), object("object"), step);
    change.created = Some(object("created"));
    change.replaced = (step == Step::Remove).then(|| object("replaced"));
    change
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

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Fault>, kind: ErrorKind) {
    let e = result.expect_err("this should have been refused");
    assert_eq!((e.kind(), e.outcome()), (kind, Outcome::NotApplied), "{e}");
}

#[tokio::test]
async fn changes_are_recorded_replaced_and_struck_out_for_every_handle() {
    let (folder, log) = opened().await;
    let other = open(&folder.path().join("log")).await;
    let (one, two) = (writer(1), writer(2));
    log.record(one, &change(1, Step::Upload)).await.unwrap();
    other.record(two, &change(2, Step::Upload)).await.unwrap();
    log.record(one, &change(1, Step::Swap)).await.unwrap();
    for log in [&log, &other] {
        assert_eq!(log.changes(one).await.unwrap(), [change(1, Step::Swap)]);
        assert_eq!(log.changes(two).await.unwrap(), [change(2, Step::Upload)]);
        assert_eq!(log.changes(writer(3)).await.unwrap(), []);
    }
    other.complete(one, id(1)).await.unwrap();
    other.complete(one, id(1)).await.unwrap();
    log.complete(one, id(77)).await.unwrap();
    assert_eq!(log.changes(one).await.unwrap(), []);
    drop((log, other));
    let log = open(&folder.path().join("log")).await;
    assert_eq!(log.changes(two).await.unwrap(), [change(2, Step::Upload)]);
}

#[tokio::test]
async fn a_change_of_another_writer_is_left_alone() {
    let (folder, log) = opened().await;
    let other = open(&folder.path().join("log")).await;
    log.record(writer(1), &change(1, Step::Upload))
        .await
        .unwrap();
    let theirs = other.record(writer(2), &change(1, Step::Swap)).await;
    refused(theirs, ErrorKind::Conflict);
    refused(other.complete(writer(2), id(1)).await, ErrorKind::Conflict);
    let left = log.changes(writer(1)).await.unwrap();
    assert_eq!(left, [change(1, Step::Upload)]);
}

#[tokio::test]
async fn a_lease_protects_until_its_end_and_is_never_shortened() {
    let (folder, log) = opened().await;
    let other = open(&folder.path().join("log")).await;
    let now = TestClock::new().now();
    let (one, two) = (writer(1), writer(2));
    for n in 0..3 {
        log.record(one, &change(n, Step::Upload)).await.unwrap();
    }
    let nano = Duration::from_nanos(1);
    log.renew(one, now + SECOND + nano).await.unwrap();
    log.renew(one, now - SECOND).await.unwrap();
    let claim = async |at: SystemTime, limit| {
        let claimed = other.claim(two, at, limit).await.unwrap();
        claimed.len()
    };
    assert_eq!(claim(now + SECOND, 9).await, 0);
    let ended = now + SECOND + nano;
    assert_eq!(claim(ended, 0).await, 0);
    assert_eq!(claim(ended, 2).await, 2);
    assert_eq!(claim(ended, 9).await, 1);
    assert_eq!(claim(ended, 9).await, 0, "they are its own now");
    assert_eq!(log.changes(one).await.unwrap(), []);
    assert_eq!(log.changes(two).await.unwrap().len(), 3);
    let late = log.record(one, &change(0, Step::Swap)).await;
    refused(late, ErrorKind::Conflict);
    // A writer without a lease, and times before there were any.
    let ancient = SystemTime::UNIX_EPOCH - SECOND * 1_000;
    let found = log.claim(writer(3), ancient, 9).await.unwrap();
    assert_eq!(found.len(), 3);
    log.renew(writer(3), ancient).await.unwrap();
    let all = other.claim(two, ancient - nano, 9).await.unwrap();
    assert_eq!(all, []);
    assert_eq!(claim(ancient, 9).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_claim_at_once_one_gets_each_change() {
    let (folder, log) = opened().await;
    let now = TestClock::new().now();
    let changes: Vec<_> = (0..60).map(|n| change(n, Step::Upload)).collect();
    let all = changes.iter().map(|change| log.record(writer(9), change));
    for result in join_all(all).await {
        result.unwrap();
    }
    let claimers = (0..6).map(|n| {
        let path = folder.path().join("log");
        tokio::spawn(async move {
            let log = open(&path).await;
            let mut mine = Vec::new();
            loop {
                let claimed = log.claim(writer(n), now, 7).await.unwrap();
                // The others have no leases, so what one has the next one takes: by its number it is seen who began.
                let fresh: Vec<_> = claimed.iter().map(|change| change.id).collect();
                if fresh.is_empty() || mine.len() > 30 {
                    return (n, mine);
                }
                log.renew(writer(n), now + SECOND).await.unwrap();
                mine.extend(fresh);
            }
        })
    });
    let mut owners = BTreeMap::new();
    for task in join_all(claimers).await {
        let (n, _) = task.unwrap();
        for change in log.changes(writer(n)).await.unwrap() {
            assert_eq!(owners.insert(change.id, n), None, "of one writer only");
        }
    }
    let unclaimed = log.changes(writer(9)).await.unwrap().len();
    assert_eq!(owners.len() + unclaimed, 60, "and none is lost");
}

#[tokio::test]
async fn a_dropped_call_is_done_or_not_and_costs_the_others_nothing() {
    let (_folder, log) = opened().await;
    for n in 0..50 {
        let change = change(n, Step::Upload);
        let dropped = tokio::time::timeout(Duration::from_micros(n * 20), async {
            log.record(writer(1), &change).await
        });
        // Some are in time.
        drop(dropped.await);
    }
    log.record(writer(1), &change(99, Step::Upload))
        .await
        .unwrap();
    let left = log.changes(writer(1)).await.unwrap();
    assert!(left.contains(&change(99, Step::Upload)));
    for found in left {
        log.complete(writer(1), found.id).await.unwrap();
    }
    assert_eq!(log.changes(writer(1)).await.unwrap(), []);
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, "of another program ".repeat(100)).unwrap();
    let before = fs::read(&path).unwrap();
    let open = FileChangeLog::open(ChangeLogConfig::new(&path)).await;
    refused(open, ErrorKind::InvalidInput);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    fs::write(&path, "").unwrap();
    let open = FileChangeLog::open(ChangeLogConfig::new(&path)).await;
    refused(open, ErrorKind::Corrupt);
    let nowhere = folder.path().join("missing/log");
    let open = FileChangeLog::open(ChangeLogConfig::new(nowhere)).await;
    refused(open, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_newer_version_is_refused() {
    let (folder, log) = opened().await;
    drop(log);
    let path = folder.path().join("log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[16] = 2;
    let sum = twox_hash::XxHash3_64::oneshot(&bytes[8..512]).to_le_bytes();
    bytes[..8].copy_from_slice(&sum);
    fs::write(&path, bytes).unwrap();
    let open = FileChangeLog::open(ChangeLogConfig::new(&path)).await;
    refused(open, ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_file_as_version_1_was_published_is_read_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, include_bytes!("golden/change-log-v1.bin")).unwrap();
    let log = open(&path).await;
    assert_eq!(
        log.changes(writer(1)).await.unwrap(),
        [change(1, Step::Remove)]
    );
    let now = SystemTime::UNIX_EPOCH + SECOND * 1_000;
    assert_eq!(log.claim(writer(2), now, 9).await.unwrap(), []);
    let claimed = log.claim(writer(2), now + SECOND, 9).await.unwrap();
    assert_eq!(claimed, [change(1, Step::Remove)]);
}

#[tokio::test]
async fn a_torn_tail_is_dropped_and_a_changed_byte_is_not() {
    let (folder, log) = opened().await;
    let path = folder.path().join("log");
    let mut lens = Vec::new();
    for n in 0..6 {
        log.record(writer(1), &change(n, Step::Remove))
            .await
            .unwrap();
        lens.push(usize::try_from(fs::metadata(&path).unwrap().len()).unwrap());
    }
    drop(log);
    let whole = fs::read(&path).unwrap();
    let count = async |bytes: &[u8]| -> Result<usize, Fault> {
        // Another name, so that nobody still has the file open.
        let path = folder.path().join("copy");
        fs::write(&path, bytes).unwrap();
        let log = FileChangeLog::open(ChangeLogConfig::new(&path)).await?;
        let changes = log.changes(writer(1)).await?;
        for (nth, change) in changes.iter().enumerate() {
            let nth = u64::try_from(nth).unwrap();
            assert_eq!(*change, self::change(nth, Step::Remove));
        }
        // It can be written to, and the next opener finds that.
        log.record(writer(1), &self::change(50, Step::Upload))
            .await?;
        drop(log);
        let log = FileChangeLog::open(ChangeLogConfig::new(&path)).await?;
        assert_eq!(log.changes(writer(1)).await?.len(), changes.len() + 1);
        Ok(changes.len())
    };
    assert_eq!(count(&whole).await.unwrap(), 6);
    let mut torn = whole[..lens[4]].to_vec();
    torn.extend(&whole[lens[4]..lens[5] - 100]);
    assert_eq!(count(&torn).await.unwrap(), 5);
    torn.truncate(lens[4]);
    torn.resize(lens[4] + 4096, 0);
    assert_eq!(count(&torn).await.unwrap(), 5);

    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let e = count(&bytes)
            .await
            .expect_err("a changed byte was not found");
        // The magic of another program is no damage.
        let kind = match at {
            8..16 => ErrorKind::InvalidInput,
            _ => ErrorKind::Corrupt,
        };
        assert_eq!(e.kind(), kind, "{at}");
    }
    // A record that never reached the medium, while those behind it did.
    let mut lost = whole.clone();
    lost[lens[1]..lens[2]].fill(0);
    assert_eq!(count(&lost).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_call_that_cannot_get_the_lock_ends_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let config = ChangeLogConfig::new(&path).with_wait(Duration::from_secs(1));
    let log = FileChangeLog::open(config).await.unwrap();
    let held = File::open(folder.path().join("log.lock")).unwrap();
    held.lock().unwrap();
    let late = log.record(writer(1), &change(1, Step::Upload)).await;
    refused(late, ErrorKind::Timeout);
    refused(log.changes(writer(1)).await, ErrorKind::Timeout);
    drop(held);
    assert_eq!(log.changes(writer(1)).await.unwrap(), []);
}

#[tokio::test]
async fn a_lock_that_was_cleared_away_or_a_log_that_was_is_noticed() {
    let (folder, log) = opened().await;
    let path = folder.path().join("log");
    log.record(writer(1), &change(1, Step::Upload))
        .await
        .unwrap();
    fs::remove_file(folder.path().join("log.lock")).unwrap();
    let other = open(&path).await;
    let held = File::open(folder.path().join("log.lock")).unwrap();
    held.lock().unwrap();
    let second = change(2, Step::Upload);
    let theirs = log.record(writer(1), &second);
    let waits = tokio::time::timeout(Duration::from_millis(100), theirs).await;
    assert!(
        waits.is_err(),
        "it must not use the lock that nobody else sees"
    );
    drop(held);
    other
        .record(writer(1), &change(3, Step::Upload))
        .await
        .unwrap();
    assert!(log.changes(writer(1)).await.unwrap().len() >= 2);

    fs::remove_file(&path).unwrap();
    let gone = log.record(writer(1), &change(4, Step::Upload)).await;
    refused(gone, ErrorKind::Corrupt);
}

#[tokio::test]
#[ignore = "the other tests run it as a process of its own"]
async fn victim() {
    let (Ok(path), Ok(name)) = (std::env::var(PATH), std::env::var(NAME)) else {
        return;
    };
    let log = open(Path::new(&path)).await;
    let own: u8 = name.parse().unwrap();
    for n in 0..u64::MAX {
        let here = n * 256 + u64::from(own);
        log.record(writer(own), &change(here, Step::Upload))
            .await
            .unwrap();
        if let Some(before) = n.checked_sub(3) {
            let before = before * 256 + u64::from(own);
            log.complete(writer(own), id(before)).await.unwrap();
        }
        writeln!(std::io::stdout(), "ack {n}").unwrap();
    }
}

fn start(path: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--ignored", "--nocapture"])
        .env(PATH, path)
        .env(NAME, name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn what_two_processes_were_told_is_there_after_both_were_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    for round in 0..3_u8 {
        let names = [round * 2 + 1, round * 2 + 2];
        let mut children = names.map(|name| start(&path, &name.to_string()));
        tokio::time::sleep(Duration::from_millis(500 + 110 * u64::from(round))).await;
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let log = open(&path).await;
        for (name, mut child) in names.into_iter().zip(children) {
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let numbers = lines.filter_map(|line| line.ok()?.strip_prefix("ack ")?.parse().ok());
            let last: u64 = numbers.last().expect("something was acknowledged");
            let found: Vec<_> = log.changes(writer(name)).await.unwrap();
            let found: Vec<_> = found.into_iter().map(|change| change.id).collect();
            let of = |n: u64| id(n * 256 + u64::from(name));
            let told = last.saturating_sub(2)..=last;
            let mut expected: Vec<_> = told.map(of).collect();
            // The pair that was under way: neither, the first, or both of it.
            let mut possible = vec![expected.clone()];
            expected.push(of(last + 1));
            possible.push(expected.clone());
            if last >= 2 {
                expected.remove(0);
                possible.push(expected);
            }
            assert!(possible.contains(&found), "{found:?} after {last}");
        }
    }
}
