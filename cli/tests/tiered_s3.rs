//! A tiered store on a file of rows and an S3 server of this process (TS-1 to TS-7). It stands here since this package
//! is the one that knows all of them.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

// The server knows the contracts by the name of their own package, which this one sees as a part of the whole.
extern crate larder as larder_traits;

#[path = "../../backend-s3/tests/server/mod.rs"]
mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::s3::{S3Config, S3Place};
use larder::sqlite::{SqliteConfig, SqlitePlace};
use larder::tiered::{TieredConfig, TieredStorage};
use larder::{
    Backend, BackendError, ChangeLog, Classify, HighVolumeBackend, Metadata, ObjectContext,
    ObjectId, Outcome, TieredMetadata, WriterId,
};

use server::{ACCESS_KEY, BUCKET, SECRET_KEY, Server};

/// Payloads up to this are small.
const THRESHOLD_BYTES: usize = 1_000;

/// Both tiers, and writers that share them.
struct World {
    server: Server,
    rows: SqlitePlace,
    writers: Vec<TieredStorage>,
}

impl World {
    async fn open(folder: &Path, writers: usize) -> Self {
        let server = Server::start().await.unwrap();
        let rows = SqlitePlace::open(SqliteConfig::new(folder.join("rows")));
        let rows = rows.await.unwrap();
        let mut opened = Self {
            server,
            rows,
            writers: Vec::new(),
        };
        for _ in 0..writers {
            let writer = opened.writer().await;
            opened.writers.push(writer);
        }
        opened
    }

    async fn writer(&self) -> TieredStorage {
        let config = S3Config::new(BUCKET)
            .with_endpoint(self.server.endpoint())
            .with_credentials(ACCESS_KEY, SECRET_KEY)
            .with_payload_signing(false)
            .with_call_timeout(Duration::from_secs(5));
        let payloads = S3Place::open(config).await.unwrap();
        let config = TieredConfig::new(self.rows.caps(), payloads.caps())
            .with_threshold_bytes(THRESHOLD_BYTES)
            .with_grace(Duration::from_millis(50));
        let (high, log) = (self.rows.high_volume(), self.rows.change_log());
        TieredStorage::new(high, payloads.backend(), log, config).unwrap()
    }

    /// How many objects lie in the bucket.
    fn payloads(&self) -> usize {
        self.server.store.objects(BUCKET).len()
    }

    /// Each payload has its redirect, each redirect its payload, and the log is empty. How many payloads there are.
    async fn in_order(&self, keys: &[String]) -> usize {
        for writer in &self.writers {
            writer.join().await;
        }
        let high = self.rows.high_volume();
        let mut redirects = 0;
        for key in keys {
            let row = high.get_tiered_metadata(&id(key)).await.unwrap();
            redirects += usize::from(matches!(row, TieredMetadata::Tombstone(_)));
            get(&self.writers[0], key).await.unwrap();
        }
        assert_eq!(self.payloads(), redirects);
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33);
        let log = self.rows.change_log();
        let left = log.claim(WriterId::from_bytes([0xff; 16]), far, 100).await;
        assert_eq!(left.unwrap(), []);
        redirects
    }
}

fn id(key: &str) -> ObjectId {
    ObjectId::new(ObjectContext::new("test", Vec::new()), key)
}

/// The payload of a put: its number in every word.
fn payload(number: u64, words: usize) -> Bytes {
    number.to_le_bytes().repeat(words).into()
}

async fn put(store: &TieredStorage, key: &str, payload: &Bytes) -> Result<(), BackendError> {
    let pieces: Vec<_> = payload.chunks(700).map(Bytes::copy_from_slice).collect();
    let stream = stream::iter(pieces).map(Ok).boxed();
    store.put_object(&id(key), &Metadata::new(), stream).await
}

/// What is there, which is of one put and whole.
async fn get(store: &TieredStorage, key: &str) -> Result<Option<u64>, BackendError> {
    let Some((metadata, payload)) = store.get_object(&id(key)).await? else {
        return Ok(None);
    };
    let whole: Vec<Bytes> = payload.try_collect().await?;
    let whole = whole.concat();
    let number = u64::from_le_bytes(*whole.first_chunk().unwrap());
    assert!(whole == self::payload(number, whole.len() / 8), "torn");
    assert_eq!(metadata.size, u64::try_from(whole.len()).ok());
    Ok(Some(number))
}

#[tokio::test]
async fn a_size_decides_where_an_object_lies() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::open(folder.path(), 1).await;
    let [store] = &world.writers[..] else {
        panic!("one writer");
    };
    let empty = Bytes::new();
    put(store, "empty", &empty).await.unwrap();
    let (metadata, _) = store.get_object(&id("empty")).await.unwrap().unwrap();
    assert_eq!(metadata.size, Some(0));
    for (len, is_large) in [
        (THRESHOLD_BYTES - 1, false),
        (THRESHOLD_BYTES, false),
        (THRESHOLD_BYTES + 1, true),
        (20 * THRESHOLD_BYTES, true),
    ] {
        let whole = Bytes::from(vec![b'x'; len]);
        put(store, "k", &whole).await.unwrap();
        let (metadata, found) = store.get_object(&id("k")).await.unwrap().unwrap();
        let found: Vec<Bytes> = found.try_collect().await.unwrap();
        assert!(found.concat() == whole, "{len} bytes");
        assert_eq!(metadata.size, u64::try_from(len).ok());
        let shown = store.get_metadata(&id("k")).await.unwrap().unwrap();
        assert_eq!(shown.size, metadata.size);
        store.join().await;
        assert_eq!(world.payloads(), usize::from(is_large), "{len} bytes");
    }
    store.delete_object(&id("k")).await.unwrap();
    assert!(store.get_object(&id("k")).await.unwrap().is_none());
    store.join().await;
    assert_eq!(world.payloads(), 0);
}

/// How many keys the writers meet at.
const KEYS: u64 = 4;

fn keys() -> Vec<String> {
    (0..KEYS).map(|n| format!("k{n}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_meet_leave_no_gap_and_no_orphan() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::open(folder.path(), 3).await;
    for key in keys() {
        put(&world.writers[0], &key, &payload(1, 1)).await.unwrap();
    }
    let meeting = (0..).zip(&world.writers).map(|(lane, store)| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..60_u64 {
                let key = format!("k{}", (n + lane) % KEYS);
                let words = if (n / KEYS + lane).is_multiple_of(3) {
                    10
                } else {
                    500
                };
                put(&store, &key, &payload(n * 10 + lane, words))
                    .await
                    .unwrap();
                let read = get(&store, &format!("k{}", n % KEYS)).await.unwrap();
                assert!(read.is_some(), "a gap: nobody deletes anything");
            }
        })
    });
    let meeting: Vec<_> = meeting.collect();
    for lane in meeting {
        lane.await.unwrap();
    }
    world.in_order(&keys()).await;
    let deletes = keys();
    for key in &deletes {
        world.writers[1].delete_object(&id(key)).await.unwrap();
    }
    assert_eq!(world.in_order(&deletes).await, 0);
}

/// TS-4, TS-6, TS-7: the server of the payloads is killed in the middle of it, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_payloads_that_goes_and_comes_back_leaves_no_orphan() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::open(folder.path(), 1).await;
    let [store] = &world.writers[..] else {
        panic!("one writer");
    };
    // What each key may hold by what its puts have answered.
    let mut told: BTreeMap<String, Vec<Option<u64>>> = BTreeMap::new();
    let mut errors = 0;
    for round in 0..5_u64 {
        let puts = keys().into_iter().enumerate().map(|(lane, key)| {
            let (store, before) = (store.clone(), told.get(&key).cloned());
            tokio::spawn(async move {
                let (mut may_hold, mut errors) = (before.unwrap_or(vec![None]), 0);
                for n in 0..12 {
                    let number = (round * 100 + n) * 10 + u64::try_from(lane).unwrap();
                    let words = if n % 4 == 3 { 10 } else { 1_000 };
                    match put(&store, &key, &payload(number, words)).await {
                        Ok(()) => may_hold = vec![Some(number)],
                        Err(e) => {
                            errors += 1;
                            if e.outcome() == Outcome::Unknown {
                                may_hold.push(Some(number));
                            }
                        }
                    }
                }
                (key, may_hold, errors)
            })
        });
        let puts: Vec<_> = puts.collect();
        tokio::time::sleep(Duration::from_millis(15 + 10 * round)).await;
        world.server.kill();
        tokio::time::sleep(Duration::from_millis(40)).await;
        world.server.start_again().await.unwrap();
        for lane in puts {
            let (key, may_hold, failed) = lane.await.unwrap();
            errors += failed;
            told.insert(key, may_hold);
        }
        store.join().await;
        let report = store.recover().await.unwrap();
        assert_eq!(report.kept, 0, "{report:?}");
        for (key, may_hold) in &mut told {
            let held = get(store, key).await.unwrap();
            assert!(may_hold.contains(&held), "{key}: {held:?} of {may_hold:?}");
            *may_hold = vec![held];
        }
        world.in_order(&keys()).await;
    }
    println!("{errors} puts failed while the server was away");
}
