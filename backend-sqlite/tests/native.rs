//! Oddities of the medium: whose file it is, who else is at it, what is damaged in it, and what stays behind.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_sqlite::{CAPS, SqliteConfig, SqlitePlace};
use larder_traits::frontier::Antichain;
use larder_traits::stash::{
    RawRow, Rows, Stash, StashCollection, StashDriver, StashDriverExt, StashError, StashOp,
};
use larder_traits::{
    Backend, BackendError, Change, ChangeId, ChangeLog, Classify, ClientError, Clock, Durability,
    ErrorKind, ExpirationPolicy, HighVolumeBackend, KvClient, Metadata, ObjectContext, ObjectId,
    Outcome, Step, TestClock, TieredGet, TieredWrite, Tombstone, WriterId,
};
use rusqlite::Connection;
use tempfile::TempDir;

fn id(key: &str) -> ObjectId {
    ObjectId::new(ObjectContext::new("test", Vec::new()), key)
}

fn ends_after(secs: u64) -> Metadata {
    Metadata::with_policy(ExpirationPolicy::TimeToLive(Duration::from_secs(secs)))
}

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    (folder, path)
}

async fn open(path: &Path) -> SqlitePlace {
    SqlitePlace::open(SqliteConfig::new(path)).await.unwrap()
}

/// A file of one's own and the clock that its handle goes by.
async fn place() -> (TempDir, SqlitePlace, Arc<TestClock>) {
    let (folder, path) = file();
    let clock = Arc::new(TestClock::new());
    let theirs = Arc::clone(&clock) as Arc<dyn Clock>;
    let config = SqliteConfig::new(path).with_clock(theirs);
    (folder, SqlitePlace::open(config).await.unwrap(), clock)
}

#[track_caller]
fn refused<T: std::fmt::Debug, E: Classify>(result: Result<T, E>, kind: ErrorKind) {
    let e = result.expect_err("this should have been refused");
    assert_eq!((e.kind(), e.outcome()), (kind, Outcome::NotApplied), "{e}");
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_left_as_it_is() {
    let (_folder, path) = file();
    let theirs = Connection::open(&path).unwrap();
    theirs.execute_batch("CREATE TABLE t (x)").unwrap();
    theirs.close().unwrap();
    let before = fs::read(&path).unwrap();
    refused(
        SqlitePlace::open(SqliteConfig::new(&path)).await,
        ErrorKind::InvalidInput,
    );
    assert_eq!(fs::read(&path).unwrap(), before);

    let theirs = Connection::open(&path).unwrap();
    theirs
        .execute_batch("DROP TABLE t; PRAGMA application_id = 7")
        .unwrap();
    theirs.close().unwrap();
    refused(
        SqlitePlace::open(SqliteConfig::new(&path)).await,
        ErrorKind::InvalidInput,
    );

    let text = "This is no database, and it is longer than a header is. ".repeat(99);
    fs::write(&path, &text).unwrap();
    refused(
        SqlitePlace::open(SqliteConfig::new(&path)).await,
        ErrorKind::Corrupt,
    );
    assert_eq!(fs::read(&path).unwrap(), text.as_bytes());

    fs::write(&path, "").unwrap();
    open(&path).await.kv_client().put("k", "v").await.unwrap();
    let missing = path.join("no folder").join("db");
    refused(
        SqlitePlace::open(SqliteConfig::new(missing)).await,
        ErrorKind::Unavailable,
    );
}

#[tokio::test]
async fn a_newer_version_is_refused() {
    let (_folder, path) = file();
    open(&path).await.close().await;
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("PRAGMA user_version = 2").unwrap();
    raw.close().unwrap();
    refused(
        SqlitePlace::open(SqliteConfig::new(&path)).await,
        ErrorKind::Unsupported,
    );
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("PRAGMA user_version = 0").unwrap();
    raw.close().unwrap();
    refused(
        SqlitePlace::open(SqliteConfig::new(&path)).await,
        ErrorKind::Corrupt,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_race_to_create_a_file_share_it() {
    for _ in 0..5 {
        let (_folder, path) = file();
        let racers: Vec<_> = (0..8_u8)
            .map(|n| {
                let path = path.clone();
                tokio::spawn(async move {
                    let place = open(&path).await;
                    place.kv_client().put([n], [n]).await.unwrap();
                    place.stash().open("c").await.unwrap()
                })
            })
            .collect();
        let mut ids = Vec::new();
        for racer in racers {
            ids.push(racer.await.unwrap());
        }
        assert!(ids.iter().all(|id| *id == ids[0]));
        let kv = open(&path).await.kv_client();
        for n in 0..8_u8 {
            assert_eq!(kv.get([n]).await.unwrap().unwrap()[..], [n]);
        }
    }
}

#[tokio::test]
async fn handles_see_each_other() {
    let (_folder, path) = file();
    let (a, b) = (open(&path).await, open(&path).await);
    for n in 0..50_u8 {
        a.kv_client().put("k", [n]).await.unwrap();
        assert_eq!(b.kv_client().get("k").await.unwrap().unwrap()[..], [n]);
        b.kv_client().delete("k").await.unwrap();
        assert_eq!(a.kv_client().get("k").await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_on_two_handles_do_not_starve_each_other() {
    let (_folder, path) = file();
    let (busy, other) = (open(&path).await, open(&path).await);
    let load: Vec<_> = (0..16_u8)
        .map(|n| {
            let kv = busy.kv_client();
            tokio::spawn(async move {
                for m in 0..200_u8 {
                    kv.put([n, m], "v").await.unwrap();
                }
            })
        })
        .collect();
    for n in 0..5_u8 {
        other.kv_client().put([n], "v").await.unwrap();
    }
    for task in load {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn the_end_of_the_wait_is_a_timeout_and_nothing_happened() {
    let (_folder, path) = file();
    let config = SqliteConfig::new(&path).with_wait(Duration::from_millis(100));
    let place = SqlitePlace::open(config.clone()).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let kv = place.kv_client();
    refused(kv.put("k", "v").await, ErrorKind::Timeout);
    refused(SqlitePlace::open(config.clone()).await, ErrorKind::Timeout);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert_eq!(kv.get("k").await.unwrap(), None, "reads need no lock");
    other.execute_batch("COMMIT").unwrap();
    kv.put("k", "v").await.unwrap();

    let config = config.with_wait(Duration::MAX);
    let endless = SqlitePlace::open(config).await.unwrap();
    assert!(endless.kv_client().get("k").await.unwrap().is_some());
    endless.kv_client().put("k", "w").await.unwrap();
}

#[tokio::test]
async fn an_exclusive_handle_fences_those_before_it_and_not_those_after_it() {
    let (_folder, path) = file();
    let shared = open(&path).await;
    let stash = shared.stash();
    let c = stash.open("c").await.unwrap();
    let exclusive = SqliteConfig::new(&path).with_exclusive(true);
    let first = SqlitePlace::open(exclusive.clone()).await.unwrap();
    assert!(matches!(
        stash.snapshot(c, Rows::All).await,
        Err(StashError::Fenced(_))
    ));
    refused(stash.commit(Vec::new()).await, ErrorKind::Conflict);
    refused(shared.kv_client().put("k", "v").await, ErrorKind::Conflict);
    first.stash().commit(Vec::new()).await.unwrap();
    let second = SqlitePlace::open(exclusive).await.unwrap();
    refused(first.stash().open("c").await, ErrorKind::Conflict);
    second.stash().open("c").await.unwrap();
    let later = open(&path).await;
    later.stash().open("d").await.unwrap();
    assert_eq!(second.stash().collections().await.unwrap().len(), 2);
}

#[tokio::test]
async fn settings_are_what_is_declared_and_what_the_file_is_used_with() {
    let (_folder, path) = file();
    let config = SqliteConfig::new(&path);
    assert_eq!(config.caps(), CAPS);
    assert_eq!(CAPS.durability, Durability::Power);
    let relaxed = config.with_durability(Durability::Process);
    let place = SqlitePlace::open(relaxed).await.unwrap();
    assert_eq!(place.caps().durability, Durability::Process);
    place.kv_client().put("jam", "plum").await.unwrap();
    let debug = format!("{:?}", place.kv_client());
    assert!(debug.contains("db") && !debug.contains("jam"), "{debug}");

    // Names that SQLite would take for something else.
    let old = std::env::current_dir().unwrap();
    std::env::set_current_dir(path.parent().unwrap()).unwrap();
    for name in [":memory:", "file:x?mode=memory", "ü %20?#"] {
        let place = SqlitePlace::open(SqliteConfig::new(name)).await.unwrap();
        place.kv_client().put("k", "v").await.unwrap();
        assert!(Path::new(name).exists());
    }
    // And one that no system call takes.
    refused(
        SqlitePlace::open(SqliteConfig::new("a\0b")).await,
        ErrorKind::InvalidInput,
    );
    refused(
        SqlitePlace::open(SqliteConfig::new("")).await,
        ErrorKind::InvalidInput,
    );
    std::env::set_current_dir(old).unwrap();
}

#[tokio::test]
async fn what_is_longer_than_a_bound_has_no_effect() {
    let (_folder, path) = file();
    let config = SqliteConfig::new(&path)
        .with_kv_key_len_bytes_max(2)
        .with_kv_value_len_bytes_max(2)
        .with_payload_len_bytes_max(2)
        .with_id_len_bytes_max("test/333".len())
        .with_stash_name_len_bytes_max(2)
        .with_stash_row_len_bytes_max(2)
        .with_stash_batch_rows_max(2);
    let place = SqlitePlace::open(config).await.unwrap();
    let over = ErrorKind::InvalidInput;
    let kv = place.kv_client();
    kv.put("22", "22").await.unwrap();
    refused(kv.put("22", "333").await, over);
    refused(kv.put("333", "").await, over);
    refused(kv.get("333").await, over);
    refused(kv.get_multi(&["22".into(), "333".into()]).await, over);
    refused(kv.delete("333").await, over);

    let rows = place.high_volume();
    let put = async |key: &str, payload: &'static str| {
        let metadata = Metadata::new();
        rows.put_non_tombstone(&id(key), &metadata, payload.into())
            .await
    };
    put("333", "22").await.unwrap();
    refused(put("4444", "22").await, over);
    refused(put("333", "333").await, over);
    let redirect = TieredWrite::Tombstone(Tombstone::new(id("4444"), ExpirationPolicy::Manual));
    refused(
        rows.compare_and_write(&id("333"), None, redirect).await,
        over,
    );
    let endless = stream::repeat_with(|| Ok("four".into())).boxed();
    refused(
        rows.put_object(&id("k"), &Metadata::new(), endless).await,
        over,
    );

    let stash = place.stash();
    let row = |len| RawRow {
        key: vec![b'k'; len].into(),
        value: "v".into(),
        time: 1,
        diff: 1,
    };
    refused(stash.open("333").await, over);
    let c = stash.open("22").await.unwrap();
    let update = async |rows| stash.commit(vec![StashOp::Update { id: c, rows }]).await;
    update(vec![row(1), row(2)]).await.unwrap();
    refused(update(vec![row(1), row(3)]).await, over);
    refused(update(vec![row(1), row(1), row(1)]).await, over);
    let held = place.held().await.unwrap();
    assert_eq!(
        (held.stash_rows, held.kv_entries, held.rows, held.payloads),
        (2, 1, 1, 1)
    );
}

#[tokio::test]
async fn thousands_of_keys_are_answered_in_order_and_of_one_moment() {
    let (_folder, place, _clock) = place().await;
    let kv = place.kv_client();
    for n in 0..300_u32 {
        kv.put(n.to_be_bytes(), n.to_string()).await.unwrap();
    }
    kv.put("", "").await.unwrap();
    let keys: Vec<Bytes> = (0..5_000_u32)
        .map(|n| Bytes::copy_from_slice(&(n * 7 % 600).to_be_bytes()))
        .chain([Bytes::new(), Bytes::from_static(b"\0\xff"), Bytes::new()])
        .collect();
    let values = kv.get_multi(&keys).await.unwrap();
    assert_eq!(values.len(), keys.len());
    for (n, value) in (0..5_000_u32).zip(&values) {
        let n = n * 7 % 600;
        let expected = (n < 300).then(|| Bytes::from(n.to_string()));
        assert_eq!(*value, expected);
    }
    assert_eq!(
        values[5_000..],
        [Some(Bytes::new()), None, Some(Bytes::new())]
    );
    assert!(kv.get_multi(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_has_expired_does_not_pile_up_and_lives_to_its_last_moment() {
    let (_folder, place, clock) = place().await;
    let (kv, rows) = (place.kv_client(), place.high_volume());
    for n in 0..200 {
        kv.put_with_ttl("same", "v", 10).await.unwrap();
        kv.put_with_ttl(format!("{n}"), "v", 10).await.unwrap();
        let (id, metadata) = (id(&n.to_string()), ends_after(10));
        let stored = rows.put_non_tombstone(&id, &metadata, "v".into()).await;
        assert_eq!(stored.unwrap(), None);
        clock.advance(Duration::from_secs(1));
    }
    let held = place.held().await.unwrap();
    assert!(held.kv_entries < 20 && held.rows < 20, "{held:?}");
    assert_eq!(held.rows, held.payloads);

    refused(kv.put_with_ttl("k", "v", 0).await, ErrorKind::InvalidInput);
    kv.put_with_ttl("k", "v", 10).await.unwrap();
    kv.put_with_ttl("for ever", "v", u64::MAX).await.unwrap();
    clock.advance(Duration::from_nanos(9_999_999_999));
    assert!(kv.get("k").await.unwrap().is_some());
    clock.advance(Duration::from_millis(1));
    assert_eq!(kv.get("k").await.unwrap(), None);
    assert_eq!(kv.get_multi(&["k".into()]).await.unwrap(), [None]);
    assert!(kv.get("for ever").await.unwrap().is_some());
    kv.put_with_ttl("k", "v", 10).await.unwrap();
    kv.put("k", "w").await.unwrap();
    clock.advance(Duration::from_secs(3600));
    kv.put_with_ttl("sweeps", "v", 1).await.unwrap();
    assert_eq!(kv.get("k").await.unwrap().unwrap(), "w");
}

#[tokio::test]
async fn a_put_that_fails_keeps_the_old_object() {
    let (_folder, place, _clock) = place().await;
    let rows = place.high_volume();
    let four = || stream::repeat_with(|| Ok("four".into()));
    rows.put_object(&id("k"), &Metadata::new(), four().take(2).boxed())
        .await
        .unwrap();
    let broken = stream::iter([Ok("ab".into()), Err(ClientError::new("unplugged"))]).boxed();
    let put = rows.put_object(&id("k"), &Metadata::new(), broken).await;
    assert!(matches!(put, Err(BackendError::Client(_))));
    let (metadata, payload) = rows.get_object(&id("k")).await.unwrap().unwrap();
    let chunks: Vec<_> = payload.try_collect().await.unwrap();
    assert_eq!(
        (metadata.size, chunks.concat()),
        (Some(8), b"fourfour".to_vec())
    );
    rows.delete_object(&id("k")).await.unwrap();
    rows.delete_object(&id("k")).await.unwrap();
    assert!(rows.get_object(&id("k")).await.unwrap().is_none());
    let held = place.held().await.unwrap();
    assert_eq!((held.rows, held.payloads), (0, 0));
}

#[tokio::test]
async fn an_access_extends_an_object_and_only_its_owner_extends_a_redirect() {
    let (_folder, place, clock) = place().await;
    let rows = place.high_volume();
    let idle = ExpirationPolicy::TimeToIdle(Duration::from_secs(100));
    let start = clock.now();
    let at = |secs| start + Duration::from_secs(secs);
    let (object, redirect, target) = (id("o"), id("r"), id("t"));
    let metadata = Metadata::with_policy(idle);
    rows.put_non_tombstone(&object, &metadata, "v".into())
        .await
        .unwrap();
    let write = TieredWrite::Tombstone(Tombstone::new(target.clone(), idle));
    assert!(
        rows.compare_and_write(&redirect, None, write)
            .await
            .unwrap()
    );
    rows.fence(&redirect).await.unwrap();

    clock.set(at(20));
    let metadata = rows.get_metadata(&object).await.unwrap().unwrap();
    assert_eq!(metadata.time_expires, Some(at(100)));
    clock.set(at(60));
    let metadata = rows.get_metadata(&object).await.unwrap().unwrap();
    assert_eq!(metadata.time_expires, Some(at(160)));
    let deadline = async || match rows.get_tiered_object(&redirect).await.unwrap() {
        TieredGet::Tombstone(there) => there.time_expires,
        _ => panic!("a redirect was there"),
    };
    assert_eq!(deadline().await, Some(at(100)));
    let extend = async |target, at: SystemTime| rows.extend_expiry(&redirect, target, at).await;
    assert!(!extend(&object, at(200)).await.unwrap());
    assert!(extend(&target, at(50)).await.unwrap());
    assert_eq!(deadline().await, Some(at(100)));
    assert!(extend(&target, at(200)).await.unwrap());
    assert_eq!(deadline().await, Some(at(200)));
    let plain = rows.get_object(&redirect).await;
    assert!(matches!(plain, Err(BackendError::UnexpectedTombstone(_))));
    clock.set(at(160));
    assert!(rows.get_metadata(&object).await.unwrap().is_none());
    clock.set(at(200));
    assert!(!extend(&target, at(300)).await.unwrap());
    rows.join().await;
}

/// What a row of the truth table of HV-5 starts as.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    Absent,
    Expired,
    Inline,
    Redirect(&'static str),
}

#[tokio::test]
async fn the_truth_table_holds() {
    let (_folder, place, clock) = place().await;
    let rows = place.high_volume();
    let row = id("row");
    let redirect =
        |to: &str| TieredWrite::Tombstone(Tombstone::new(id(to), ExpirationPolicy::Manual));
    let object = || TieredWrite::Object(Metadata::new(), "new".into());
    let starts = [
        Start::Absent,
        Start::Expired,
        Start::Inline,
        Start::Redirect("current"),
        Start::Redirect("new"),
        Start::Redirect("other"),
    ];
    // For each start in that order: W writes and is true, T is true and untouched, F is false and untouched.
    let table = [
        (None, redirect("new"), "WWWFTF"),
        (Some("current"), redirect("new"), "FFFWTF"),
        (Some("current"), object(), "FFTWFF"),
        (Some("current"), TieredWrite::Delete, "TTTWFF"),
        (None, object(), "WWWFFF"),
        (None, TieredWrite::Delete, "WWWFFF"),
    ];
    for (current, write, expected) in table {
        for (start, expected) in starts.into_iter().zip(expected.chars()) {
            rows.delete_object(&row).await.unwrap();
            match start {
                Start::Absent => {}
                Start::Expired => {
                    let ends = ends_after(1);
                    let put = rows.put_non_tombstone(&row, &ends, "old".into());
                    assert_eq!(put.await.unwrap(), None);
                    clock.advance(Duration::from_secs(1));
                }
                Start::Inline => {
                    let stays = Metadata::new();
                    let put = rows.put_non_tombstone(&row, &stays, "old".into());
                    assert_eq!(put.await.unwrap(), None);
                }
                Start::Redirect(to) => {
                    let put = rows.compare_and_write(&row, None, redirect(to));
                    assert!(put.await.unwrap());
                }
            }
            let seen = async || match rows.get_tiered_object(&row).await.unwrap() {
                TieredGet::NotFound => "nothing".to_owned(),
                TieredGet::Tombstone(there) => format!("redirect to {}", there.target),
                TieredGet::Object(_, payload) => {
                    let chunks: Vec<Bytes> = payload.try_collect().await.unwrap();
                    String::from_utf8(chunks.concat()).unwrap()
                }
            };
            let before = seen().await;
            let current = current.map(id);
            let done = rows
                .compare_and_write(&row, current.as_ref(), write.clone())
                .await
                .unwrap();
            let after = seen().await;
            let written = match &write {
                TieredWrite::Tombstone(there) => format!("redirect to {}", there.target),
                TieredWrite::Object(..) => "new".to_owned(),
                TieredWrite::Delete => "nothing".to_owned(),
            };
            let case = format!("{current:?}, {write:?} on {start:?}");
            assert_eq!(done, expected != 'F', "{case}");
            assert_eq!(
                after,
                if expected == 'W' { written } else { before },
                "{case}"
            );
        }
    }
    let held = place.held().await.unwrap();
    assert!(held.payloads <= held.rows, "{held:?}");
}

#[tokio::test]
async fn a_change_is_claimed_once_and_only_after_the_lease() {
    let (_folder, place, _clock) = place().await;
    let log = place.change_log();
    let [old, new, third] = [1, 2, 3].map(|n| WriterId::from_bytes([n; 16]));
    let start = TestClock::new().now();
    let until = start + Duration::from_secs(10);
    let change = Change::new(ChangeId::from_bytes([9; 16]), id("o"), Step::Upload);
    let one = std::slice::from_ref(&change);
    log.record(old, &change).await.unwrap();
    log.renew(old, until).await.unwrap();
    log.renew(old, start).await.unwrap();

    assert!(log.claim(new, start, 9).await.unwrap().is_empty());
    assert!(log.claim(new, until, 0).await.unwrap().is_empty());
    log.renew(new, until + Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(log.claim(new, until, 9).await.unwrap(), one);
    assert!(log.claim(third, until, 9).await.unwrap().is_empty());
    assert_eq!(log.changes(new).await.unwrap(), one);
    refused(log.record(old, &change).await, ErrorKind::Conflict);
    refused(log.complete(old, change.id).await, ErrorKind::Conflict);
    log.complete(new, change.id).await.unwrap();
    log.complete(new, change.id).await.unwrap();
    assert!(log.changes(new).await.unwrap().is_empty());
}

#[tokio::test]
async fn typed_rows_survive_folding_and_a_dropped_collection_does_not_come_back() {
    let (_folder, place, _clock) = place().await;
    let mut stash = place.stash();
    let c: StashCollection<String, u64> = stash.collection("c").await.unwrap();
    let row = |key: &str, value, time, diff| ((key.to_owned(), value), time, diff);
    let rows = [
        row("b", 1, 1, 1),
        row("a", 300, 2, 1),
        row("a", 300, 4, -1),
        row("b", 1, 9, 3),
    ];
    stash.update_many(c, rows).await.unwrap();
    stash
        .seal(c, Antichain::from_elem(6).borrow())
        .await
        .unwrap();
    for since in [3, 5] {
        stash
            .compact(c, Antichain::from_elem(since).borrow())
            .await
            .unwrap();
        let before = stash.iter(c).await.unwrap();
        stash.consolidate(c).await.unwrap();
        assert_eq!(stash.iter(c).await.unwrap(), before);
    }
    assert_eq!(
        stash.iter(c).await.unwrap(),
        [row("b", 1, 5, 1), row("b", 1, 9, 3)]
    );
    assert_eq!(place.held().await.unwrap().stash_rows, 2);
    assert_eq!(stash.peek(c).await.unwrap(), [("b".to_owned(), 1, 1)]);

    assert!(stash.drop_collection("c").await.unwrap());
    assert!(!stash.drop_collection("c").await.unwrap());
    let again: StashCollection<String, u64> = stash.collection("c").await.unwrap();
    assert_ne!(again, c);
    refused(stash.iter(c).await, ErrorKind::NotFound);
    assert!(stash.iter(again).await.unwrap().is_empty());
    assert_eq!(place.held().await.unwrap().stash_rows, 0);
}
