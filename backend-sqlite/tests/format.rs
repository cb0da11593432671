//! What is in the file is pinned: `golden/v1.sql` is the text of a file as version 1 was published.
//!
//! It must be read for ever, and what is written today must be the same, row by row.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder_sqlite::{SqliteConfig, SqlitePlace};
use larder_traits::stash::{RawRow, Rows, StashDriver, StashOp};
use larder_traits::{
    Antichain, Backend, Change, ChangeId, ChangeLog, Clock, ExpirationPolicy, HighVolumeBackend,
    KvClient, Metadata, ObjectContext, ObjectId, Scope, Step, TestClock, TieredMetadata,
    TieredWrite, Tombstone, WriterId,
};
use rusqlite::Connection;
use rusqlite::types::Value;

const GOLDEN: &str = include_str!("golden/v1.sql");

const WRITER: WriterId = WriterId::from_bytes([2; 16]);

async fn open(path: &Path, clock: &Arc<TestClock>) -> SqlitePlace {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let config = SqliteConfig::new(path).with_clock(clock);
    SqlitePlace::open(config).await.unwrap()
}

fn id(key: &str) -> ObjectId {
    let scopes = vec![Scope::new("org", "a/b")];
    ObjectId::new(ObjectContext::new("test", scopes), key)
}

fn row(key: &'static str, time: i64, diff: i64) -> RawRow {
    RawRow {
        key: key.into(),
        value: "v".into(),
        time,
        diff,
    }
}

fn metadata() -> Metadata {
    let idle = ExpirationPolicy::TimeToIdle(Duration::from_secs(1_000));
    let mut metadata = Metadata::with_policy(idle);
    metadata.content_type = Some("text/plain".to_owned());
    metadata.custom.insert("k".to_owned(), "v".to_owned());
    metadata
}

/// The change that is in the log.
fn change() -> Change {
    let mut change = Change::new(ChangeId::from_bytes([1; 16]), id("object"), Step::Swap);
    change.created = Some(id("created"));
    change
}

/// Writes a bit of everything.
async fn furnish(place: &SqlitePlace) {
    let kv = place.kv_client();
    kv.put("", "").await.unwrap();
    kv.put("key", "value").await.unwrap();
    kv.put_with_ttl("ends", "value", 1_000).await.unwrap();

    let stash = place.stash();
    let gone = stash.open("gone").await.unwrap();
    assert!(stash.discard("gone").await.unwrap());
    let id_of = stash.open("collection").await.unwrap();
    assert_ne!(gone, id_of);
    let rows = vec![
        row("a", 1, 1),
        row("a", 2, 1),
        row("b", 2, -1),
        row("b", 9, 5),
    ];
    let (upper, since) = (Antichain::from_elem(5), Antichain::from_elem(3));
    let ops = vec![
        StashOp::Update { id: id_of, rows },
        StashOp::Seal { id: id_of, upper },
        StashOp::Compact { id: id_of, since },
        StashOp::Consolidate { id: id_of },
    ];
    stash.commit(ops).await.unwrap();

    let rows = place.high_volume();
    let (object, redirect) = (id("object"), id("redirect"));
    rows.put_non_tombstone(&object, &metadata(), "payload".into())
        .await
        .unwrap();
    let to = Tombstone::new(id("target"), ExpirationPolicy::Manual);
    let write = TieredWrite::Tombstone(to);
    assert!(
        rows.compare_and_write(&redirect, None, write)
            .await
            .unwrap()
    );

    let log = place.change_log();
    log.record(WRITER, &change()).await.unwrap();
    let until = TestClock::new().now() + Duration::from_secs(60);
    log.renew(WRITER, until).await.unwrap();
}

/// All rows of all tables but the marks of commits, which are random.
fn contents(path: &Path) -> Vec<(String, Vec<Vec<Value>>)> {
    let conn = Connection::open(path).unwrap();
    let mut names = conn
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .unwrap();
    let names = names.query_map([], |row| row.get::<_, String>(0)).unwrap();
    names
        .map(Result::unwrap)
        .filter(|name| name != "larder_state" && !name.starts_with("sqlite_stat"))
        .map(|name| {
            let mut all = conn
                .prepare(&format!("SELECT * FROM {name} ORDER BY 1, 2"))
                .unwrap();
            let columns = all.column_count();
            let rows = all
                .query_map([], |row| (0..columns).map(|at| row.get(at)).collect())
                .unwrap();
            (name, rows.map(Result::unwrap).collect())
        })
        .collect()
}

#[tokio::test]
async fn a_file_of_version_1_is_read_and_written_as_it_was_published() {
    let folder = tempfile::tempdir().unwrap();
    let (golden, fresh) = (folder.path().join("golden"), folder.path().join("fresh"));
    let raw = Connection::open(&golden).unwrap();
    raw.execute_batch(GOLDEN).unwrap();
    raw.close().unwrap();
    let clock = Arc::new(TestClock::new());
    let place = open(&fresh, &clock).await;
    furnish(&place).await;
    place.close().await;
    assert_eq!(contents(&golden), contents(&fresh));

    let place = open(&golden, &clock).await;
    let kv = place.kv_client();
    assert_eq!(kv.get("").await.unwrap().unwrap(), "");
    assert_eq!(kv.get("key").await.unwrap().unwrap(), "value");
    assert_eq!(kv.get("ends").await.unwrap().unwrap(), "value");
    let stash = place.stash();
    let collection = stash.open("collection").await.unwrap();
    let found = stash.snapshot(collection, Rows::All).await.unwrap();
    assert_eq!(found.frontiers.since, Antichain::from_elem(3));
    assert_eq!(found.frontiers.upper, Antichain::from_elem(5));
    let mut rows = found.rows;
    rows.sort();
    let merged = i64::MIN;
    assert_eq!(
        rows,
        [row("a", merged, 2), row("b", merged, -1), row("b", 9, 5)]
    );
    let found = place.high_volume().get_metadata(&id("object")).await;
    let expected = metadata().stamped(clock.now(), 7).unwrap();
    assert_eq!(found.unwrap(), Some(expected));
    let (rows, redirect) = (place.high_volume(), id("redirect"));
    let found = rows.get_tiered_metadata(&redirect);
    let to = Tombstone::new(id("target"), ExpirationPolicy::Manual);
    assert_eq!(found.await.unwrap(), TieredMetadata::Tombstone(to));
    let log = place.change_log();
    assert_eq!(log.changes(WRITER).await.unwrap(), [change()]);

    clock.advance(Duration::from_secs(1_000));
    assert_eq!(kv.get("ends").await.unwrap(), None);
    let found = place.high_volume().get_metadata(&id("object")).await;
    assert_eq!(found.unwrap(), None);
}
