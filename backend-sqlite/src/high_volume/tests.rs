//! What two calls make of one deadline (HV-8).

use std::sync::mpsc;

use larder_traits::{Clock, ObjectContext, TestClock};

use super::*;
use crate::SqliteConfig;

/// Failure: a read at the deadline answered "gone", and a later read had the object again. Cause: an extension had
/// judged the object alive just before the deadline and was not committed yet, so the first read saw the old deadline.
/// Fix: a row whose deadline has come is judged with the write lock held, and removed if it is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_at_the_deadline_waits_for_the_extension_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::new());
    let config = SqliteConfig::new(folder.path().join("db"));
    let config = config.with_clock(Arc::<TestClock>::clone(&clock));
    let first = SqlitePlace::open(config.clone()).await.unwrap();
    let second = SqlitePlace::open(config).await.unwrap().high_volume();
    let store = first.high_volume();
    let id = ObjectId::new(ObjectContext::new("u", Vec::new()), "k");
    let idle = Duration::from_secs(100);
    let metadata = Metadata::with_policy(ExpirationPolicy::TimeToIdle(idle));
    let put = store.put_non_tombstone(&id, &metadata, "v".into()).await;
    assert!(put.unwrap().is_none());
    clock.advance(idle - Duration::from_millis(1));

    let (judged, wait_judged) = mpsc::channel();
    let (go_on, wait_go_on) = mpsc::channel::<()>();
    let text = store.text_of(&id).unwrap();
    let extension = tokio::spawn(async move {
        let extend = move |tx: &Tx<'_>| {
            let row = find(tx.conn(), &text)?.expect("the object was put");
            let later = extend_idle(tx, &text, row.number)?;
            judged.send(()).expect("the test waits");
            wait_go_on.recv().expect("the test goes on");
            Ok::<_, Fault>(later)
        };
        first.write(Undo::Everything, extend).await
    });
    tokio::task::spawn_blocking(move || wait_judged.recv())
        .await
        .unwrap()
        .unwrap();
    clock.advance(Duration::from_millis(1));
    let reader = tokio::spawn({
        let (second, id) = (second.clone(), id.clone());
        async move { second.get_tiered_metadata(&id).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!reader.is_finished(), "nobody can know yet");
    go_on.send(()).unwrap();
    let later = extension.await.unwrap().unwrap();
    assert_eq!(later, Some(clock.now() + idle - Duration::from_millis(1)));
    let seen = reader.await.unwrap().unwrap();
    assert!(matches!(seen, TieredMetadata::Object(_)), "{seen:?}");

    clock.advance(idle);
    let seen = second.get_tiered_metadata(&id).await.unwrap();
    assert_eq!(seen, TieredMetadata::NotFound);
}
