//! What the protocols cost, where things lie, and when they end.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use common::calm;
use common::checks::Checked;
use common::{id, puts, shipped};
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_mem::{MemConfig, MemPlace};
use larder_tiered::{AuditOptions, Revision, TieredConfig, TieredStorage};
use larder_traits::{
    Backend, BackendError, Classify, ClientStream, Clock, ErrorKind, GetResponse, Metadata,
    ObjectId, ObjectListing, Outcome, TestClock,
};

fn held<T>(checked: Checked<T>) -> T {
    checked.unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn a_size_decides_where_an_object_lies() {
    held(calm::ladder(&shipped));
}

#[test]
fn every_kind_of_write_over_every_kind_of_row() {
    let cases = held(puts::over_every_row(&shipped));
    println!("{cases} writes, each over a row of its kind");
    assert!(cases > 5_000, "far fewer cases than kinds");
}

#[test]
fn a_small_put_and_a_small_get_cost_one_call_and_a_large_get_two() {
    held(calm::costs(&shipped));
}

#[test]
fn a_stream_that_breaks_leaves_the_old_object() {
    held(calm::failing_client(&shipped));
}

#[test]
fn redirect_and_payload_have_one_deadline() {
    held(calm::one_deadline(&shipped));
}

/// A storage on tokio, with what it stands on.
fn on_tokio(grace: Duration) -> (MemPlace, TieredStorage) {
    let place = MemPlace::open(MemConfig::private());
    let long = MemPlace::open(MemConfig::private());
    let config = TieredConfig::new(place.caps(), long.caps())
        .with_threshold_bytes(16)
        .with_grace(grace);
    let (high, log) = (place.high_volume(), place.change_log());
    let storage = TieredStorage::new(high, long.high_volume(), log, config);
    (long, storage.expect("the configuration is sound"))
}

fn large(value: u8) -> ClientStream {
    stream::iter([Ok(Bytes::from(vec![value; 100]))]).boxed()
}

#[tokio::test]
async fn a_replaced_payload_stays_for_the_grace_and_join_waits_for_it() {
    let grace = Duration::from_millis(300);
    let (long, storage) = on_tokio(grace);
    let (id, metadata) = (id("k"), Metadata::new());
    storage.put_object(&id, &metadata, large(1)).await.unwrap();
    let started = Instant::now();
    storage.put_object(&id, &metadata, large(2)).await.unwrap();
    assert_eq!(long.held().rows, 2);
    storage.join().await;
    assert!(started.elapsed() >= grace);
    assert_eq!(long.held().rows, 1);
}

/// Failure: each dropped caller of an upload added a task, however many there were. Cause: only removals after a swap
/// were counted against the bound. Fix: beyond it an upload stays on record for recovery as well (TS-7).
#[tokio::test]
async fn uploads_of_dropped_callers_beyond_the_bound_wait_in_the_log() {
    let (place, long) = (
        MemPlace::open(MemConfig::private()),
        MemPlace::open(MemConfig::private()),
    );
    let config = TieredConfig::new(place.caps(), long.caps())
        .with_threshold_bytes(16)
        .with_grace(Duration::ZERO)
        .with_cleanups_max(0);
    let (high, log) = (place.high_volume(), place.change_log());
    let storage = TieredStorage::new(high, long.high_volume(), log, config).unwrap();
    let (id, metadata) = (id("k"), Metadata::new());
    for value in 0..3 {
        let never = large(value).chain(stream::pending()).boxed();
        let put = storage.put_object(&id, &metadata, never);
        let dropped = tokio::time::timeout(Duration::from_millis(20), put).await;
        dropped.expect_err("a stream without an end");
    }
    storage.join().await;
    assert_eq!(place.held().changes, 3);
    let report = storage.recover().await.unwrap();
    assert_eq!((report.finished, report.kept), (3, 0));
    assert_eq!((place.held().changes, long.held().rows), (0, 0));
}

/// A step in the middle of a change panics. The caller is told, `join` ends, and recovery finds the change (TS-7).
#[tokio::test]
async fn a_panic_ends_where_it_began() {
    #[derive(Debug)]
    struct Panics(AtomicBool);

    impl Clock for Panics {
        fn now(&self) -> SystemTime {
            assert!(!self.0.load(SeqCst), "a clock that panics");
            TestClock::new().now()
        }
    }

    let clock = Arc::new(Panics(AtomicBool::new(false)));
    let high = MemPlace::open(
        MemConfig::private().with_clock(Arc::<Panics>::clone(&clock) as Arc<dyn Clock>),
    );
    let long = MemPlace::open(MemConfig::private());
    let config = TieredConfig::new(high.caps(), long.caps())
        .with_clock(Arc::new(TestClock::new()))
        .with_threshold_bytes(16)
        .with_grace(Duration::ZERO);
    let log = long.change_log();
    let storage = TieredStorage::new(high.high_volume(), long.high_volume(), log, config).unwrap();
    let (id, metadata) = (id("k"), Metadata::new());
    storage.put_object(&id, &metadata, large(1)).await.unwrap();
    // The high-volume tier reads it in the middle of every call.
    clock.0.store(true, SeqCst);
    let put = storage.put_object(&id, &metadata, large(2)).await;
    let e = put.unwrap_err();
    assert_eq!(
        (e.kind(), e.outcome()),
        (ErrorKind::Internal, Outcome::Unknown)
    );
    storage.join().await;
    clock.0.store(false, SeqCst);
    storage.recover().await.unwrap();
    storage.join().await;
    assert_eq!((long.held().rows, long.held().changes), (1, 0));
    let (_, payload) = storage.get_object(&id).await.unwrap().unwrap();
    let whole: Vec<Bytes> = payload.try_collect().await.unwrap();
    assert_eq!(whole.concat(), vec![1; 100]);
}

/// Failure: a large put panicked where its caller was polled by a runtime without timers. Cause: the pauses of a step
/// were made where it was polled. Fix: they belong to the runtime that the configuration names.
#[test]
fn a_caller_may_be_polled_by_another_runtime() {
    let timers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let storage = {
        let _entered = timers.enter();
        on_tokio(Duration::ZERO).1
    };
    let bare = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    bare.block_on(async {
        // Its stream makes it wait, and so keep its lease alive.
        let chunks = stream::iter(0..3).then(|value| async move {
            tokio::task::yield_now().await;
            Ok(Bytes::from(vec![value; 100]))
        });
        let (id, metadata) = (id("k"), Metadata::new());
        storage
            .put_object(&id, &metadata, chunks.boxed())
            .await
            .unwrap();
        let (_, payload) = storage.get_object(&id).await.unwrap().unwrap();
        let whole: Vec<Bytes> = payload.try_collect().await.unwrap();
        assert_eq!(whole.concat().len(), 300);
        storage.join().await;
    });
}

/// TS-1: of a payload that is streamed no more is read ahead of the upload than the threshold and one chunk.
#[tokio::test]
async fn a_large_payload_is_passed_on_as_it_comes() {
    /// Takes payloads and keeps nothing of them.
    #[derive(Debug, Default)]
    struct Sink {
        given: Arc<AtomicUsize>,
        ahead_max: AtomicUsize,
        taken: AtomicUsize,
    }

    #[async_trait::async_trait]
    impl Backend for Sink {
        fn name(&self) -> &'static str {
            "sink"
        }
        async fn put_object(
            &self,
            _: &ObjectId,
            _: &Metadata,
            mut stream: ClientStream,
        ) -> Result<(), BackendError> {
            while let Some(chunk) = stream.next().await {
                let len = chunk.map_err(BackendError::Client)?.len();
                // What was asked of the client and has not come through yet, this chunk included.
                let ahead = self.given.load(SeqCst) - self.taken.load(SeqCst);
                self.ahead_max.fetch_max(ahead, SeqCst);
                self.taken.fetch_add(len, SeqCst);
            }
            Ok(())
        }
        async fn get_object(&self, _: &ObjectId) -> Result<GetResponse, BackendError> {
            Ok(None)
        }
        async fn get_metadata(&self, _: &ObjectId) -> Result<Option<Metadata>, BackendError> {
            Ok(None)
        }
        async fn delete_object(&self, _: &ObjectId) -> Result<(), BackendError> {
            Ok(())
        }
        async fn join(&self) {}
    }

    const CHUNK: usize = 64 << 10;
    const THRESHOLD: usize = 1 << 20;
    let sink = Arc::new(Sink::default());
    let place = MemPlace::open(MemConfig::private());
    let config = TieredConfig::new(place.caps(), place.caps()).with_threshold_bytes(THRESHOLD);
    let (high, log) = (place.high_volume(), place.change_log());
    let storage = TieredStorage::new(high, Arc::clone(&sink), log, config).unwrap();
    let (given, chunk) = (Arc::clone(&sink.given), Bytes::from(vec![7; CHUNK]));
    let pieces = stream::iter(0..4_096).map(move |_| {
        given.fetch_add(CHUNK, SeqCst);
        Ok(chunk.clone())
    });
    let (id, metadata) = (id("k"), Metadata::new());
    let put = storage.put_object(&id, &metadata, pieces.boxed());
    put.await.unwrap();
    let ahead = sink.ahead_max.load(SeqCst);
    println!("256 MiB passed on with at most {ahead} bytes in hand");
    assert_eq!(sink.taken.load(SeqCst), 256 << 20);
    assert!(ahead <= THRESHOLD + CHUNK, "{ahead} bytes in hand");
}

/// TS-7: what no log knows of is found by an audit, and what is referred to, recorded, young or foreign is left alone.
#[tokio::test]
async fn an_audit_finds_what_nothing_refers_to() {
    let clock = Arc::new(TestClock::new());
    let theirs =
        || MemConfig::private().with_clock(Arc::<TestClock>::clone(&clock) as Arc<dyn Clock>);
    let (high, long) = (MemPlace::open(theirs()), MemPlace::open(theirs()));
    let open = |log: MemPlace| {
        let config = TieredConfig::new(high.caps(), long.caps())
            .with_clock(Arc::<TestClock>::clone(&clock) as Arc<dyn Clock>)
            .with_threshold_bytes(16)
            .with_grace(Duration::ZERO);
        TieredStorage::new(
            high.high_volume(),
            long.high_volume(),
            log.change_log(),
            config,
        )
        .unwrap()
    };
    let storage = open(MemPlace::open(theirs()));
    let metadata = Metadata::new();
    let day = Duration::from_secs(86_400);
    // A payload whose row was removed by somebody who knows nothing of it, long ago and just now.
    for (key, age) in [("lost", day * 2), ("young", day)] {
        storage
            .put_object(&id(key), &metadata, large(1))
            .await
            .unwrap();
        high.high_volume().delete_object(&id(key)).await.unwrap();
        clock.advance(age);
    }
    storage
        .put_object(&id("kept"), &metadata, large(2))
        .await
        .unwrap();
    clock.advance(Duration::from_secs(1));
    let foreign = long.high_volume();
    foreign
        .put_object(&id("foreign"), &metadata, large(3))
        .await
        .unwrap();

    let options = AuditOptions::default().with_min_age(day + day / 2);
    let report = storage.audit(&long.high_volume(), options).await.unwrap();
    let counts = (
        report.listed,
        report.unreferenced,
        report.foreign,
        report.young,
        report.removed,
    );
    assert_eq!(counts, (4, 1, 1, 2, 0));
    let [lost] = &report.named[..] else {
        panic!("{report:?}");
    };
    assert_eq!(Revision::parse(lost).unwrap().object, id("lost"));
    let options = AuditOptions::default()
        .with_min_age(Duration::ZERO)
        .with_remove(true);
    let report = storage.audit(&long.high_volume(), options).await.unwrap();
    let counts = (
        report.listed,
        report.unreferenced,
        report.referenced,
        report.removed,
    );
    assert_eq!(counts, (4, 2, 1, 2));
    let again = storage.audit(&long.high_volume(), options).await.unwrap();
    assert_eq!((again.listed, again.unreferenced), (2, 0));
    assert!(storage.get_object(&id("kept")).await.unwrap().is_some());
}

#[tokio::test]
async fn ids_that_name_payloads_and_unsound_configurations_are_refused() {
    let (long, storage) = on_tokio(Duration::ZERO);
    storage
        .put_object(&id("k"), &Metadata::new(), large(1))
        .await
        .unwrap();
    let listed = long.high_volume().list_objects(None, 10).await.unwrap();
    let [payload] = &listed.ids[..] else {
        panic!("{listed:?}");
    };
    let e = storage
        .get_object(payload)
        .await
        .err()
        .expect("it is refused");
    assert_eq!(
        (e.kind(), e.outcome()),
        (ErrorKind::InvalidInput, Outcome::NotApplied)
    );

    let place = MemPlace::open(MemConfig::private());
    for config in [
        TieredConfig::new(place.caps(), place.caps()).with_threshold_bytes(1 << 30),
        TieredConfig::new(place.caps(), place.caps()).with_lease(Duration::from_millis(1)),
    ] {
        let made = TieredStorage::new(
            place.high_volume(),
            place.high_volume(),
            place.change_log(),
            config,
        );
        assert_eq!(made.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
