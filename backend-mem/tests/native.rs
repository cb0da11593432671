//! Oddities of the medium: how places are named and forgotten, whose clock and bounds count, what stays behind.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};
use larder_mem::{CAPS, MemConfig, MemPlace};
use larder_traits::blob_store::{BlobGuid, BlobStore};
use larder_traits::frontier::Antichain;
use larder_traits::stash::{
    RawRow, Rows, Stash, StashCollection, StashDriver, StashDriverExt, StashError, StashOp,
};
use larder_traits::{
    Atomicity, Backend, BackendError, BlobMulti, Change, ChangeId, ChangeLog, Classify,
    ClientError, Clock, ErrorKind, ExpirationPolicy, HighVolumeBackend, KvClient, Metadata,
    ObjectContext, ObjectId, ObjectListing, Outcome, Step, TestClock, TieredGet, TieredWrite,
    Tombstone, WriterId,
};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn id(key: &str) -> ObjectId {
    ObjectId::new(ObjectContext::new("test", Vec::new()), key)
}

fn ends_after(secs: u64) -> Metadata {
    Metadata::with_policy(ExpirationPolicy::TimeToLive(Duration::from_secs(secs)))
}

/// A private place and the clock that it goes by.
fn place() -> (MemPlace, Arc<TestClock>) {
    let clock = Arc::new(TestClock::new());
    let theirs = Arc::clone(&clock) as Arc<dyn Clock>;
    (
        MemPlace::open(MemConfig::private().with_clock(theirs)),
        clock,
    )
}

#[track_caller]
fn refused<T: std::fmt::Debug, E: Classify>(result: Result<T, E>, kind: ErrorKind) {
    let e = result.expect_err("this should have been refused");
    assert_eq!((e.kind(), e.outcome()), (kind, Outcome::NotApplied), "{e}");
}

#[tokio::test]
async fn a_name_is_one_place_until_its_last_handle_is_gone() {
    let open = || MemPlace::open(MemConfig::named("until the last handle"));
    let (one, two) = (open().kv_client(), open());
    one.put("k", "v").await.unwrap();
    assert_eq!(two.kv_client().get("k").await.unwrap().unwrap(), "v");

    // A clone of any handle keeps the place, whichever contract it is for.
    let last = two.stash().clone();
    drop((one, two));
    assert_eq!(open().held().kv_entries, 1);
    drop(last);
    assert_eq!(open().held().kv_entries, 0);
}

#[tokio::test]
async fn private_places_and_other_names_are_apart() {
    let places = [
        MemPlace::open(MemConfig::private()),
        MemPlace::open(MemConfig::private()),
        MemPlace::open(MemConfig::named("")),
        MemPlace::open(MemConfig::named("apart")),
        MemPlace::open(MemConfig::named("apart/1")),
    ];
    for (value, place) in places.iter().enumerate() {
        place.kv_client().put("k", value.to_string()).await.unwrap();
    }
    for (value, place) in places.iter().enumerate() {
        let found = place.kv_client().get("k").await.unwrap().unwrap();
        assert_eq!(found, value.to_string());
    }
}

#[tokio::test]
async fn clock_and_bounds_belong_to_the_handle() {
    let late = TestClock::new().now() + Duration::from_secs(3600);
    let open = |config: MemConfig, at| {
        MemPlace::open(config.with_clock(Arc::new(TestClock::at(at)))).kv_client()
    };
    let wide = open(MemConfig::named("of the handle"), TestClock::new().now());
    let narrow = MemConfig::named("of the handle").with_kv_value_len_bytes_max(2);
    assert_eq!(narrow.caps().kv_client.value_len_bytes_max, 2);
    let narrow = open(narrow, late);

    wide.put("k", "long").await.unwrap();
    refused(narrow.put("k", "long").await, ErrorKind::InvalidInput);
    assert_eq!(narrow.get("k").await.unwrap().unwrap(), "long");

    wide.put_with_ttl("t", "v", 60).await.unwrap();
    assert!(wide.get("t").await.unwrap().is_some());
    assert!(narrow.get("t").await.unwrap().is_none());
    assert!(wide.get("t").await.unwrap().is_none(), "gone is gone");
}

#[tokio::test]
async fn every_bound_is_inclusive_and_refuses_before_any_effect() {
    let config = MemConfig::private()
        .with_blob_value_len_bytes_max(2)
        .with_kv_key_len_bytes_max(2)
        .with_payload_len_bytes_max(2)
        .with_id_len_bytes_max(8)
        .with_stash_name_len_bytes_max(2)
        .with_stash_row_len_bytes_max(2)
        .with_stash_batch_rows_max(2);
    let place = MemPlace::open(config);
    let over = ErrorKind::InvalidInput;

    let blobs = place.blob_multi();
    let set = async |key: &str, value: &'static str| {
        let atomic = Atomicity::RequireAtomic;
        blobs.set(soon(), key, value.into(), atomic).await
    };
    set("k", "22").await.unwrap();
    refused(set("k", "333").await, over);
    refused(set("", "1").await, over);
    refused(set(&"k".repeat(1025), "1").await, over);
    refused(blobs.get(soon(), "").await, over);
    assert_eq!(blobs.get(soon(), "k").await.unwrap().unwrap(), b"22");

    let kv = place.kv_client();
    kv.put("22", "").await.unwrap();
    refused(kv.put("333", "").await, over);
    refused(kv.get("333").await, over);
    refused(kv.get_multi(&["22".into(), "333".into()]).await, over);

    let rows = place.high_volume();
    let put = async |key: &str, payload: &'static str| {
        let metadata = Metadata::new();
        let payload = payload.into();
        rows.put_non_tombstone(&id(key), &metadata, payload).await
    };
    put("333", "22").await.unwrap();
    refused(put("4444", "22").await, over);
    refused(put("333", "333").await, over);
    let redirect = TieredWrite::Tombstone(Tombstone::new(id("4444"), ExpirationPolicy::Manual));
    refused(
        rows.compare_and_write(&id("333"), None, redirect).await,
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
    assert_eq!(place.held().stash_rows, 2);
}

#[tokio::test]
async fn a_deadline_in_the_past_has_no_effect() {
    let blobs = MemPlace::open(MemConfig::private()).blob_multi();
    let past = Instant::now();
    let atomic = Atomicity::AllowNonAtomic;
    refused(
        blobs.set(past, "k", "v".into(), atomic).await,
        ErrorKind::Timeout,
    );
    refused(blobs.list_keys(past).await, ErrorKind::Timeout);
    assert_eq!(blobs.get(soon(), "k").await.unwrap(), None);
}

#[tokio::test]
async fn what_has_expired_does_not_pile_up_and_does_not_come_back() {
    let (place, clock) = place();
    let (kv, rows) = (place.kv_client(), place.high_volume());
    for n in 0..1000 {
        kv.put_with_ttl("same", "v", 10).await.unwrap();
        kv.put_with_ttl(format!("{n}"), "v", 10).await.unwrap();
        let (id, metadata) = (id(&n.to_string()), ends_after(10));
        let stored = rows.put_non_tombstone(&id, &metadata, "v".into()).await;
        assert_eq!(stored.unwrap(), None);
        clock.advance(Duration::from_secs(1));
    }
    let held = place.held();
    assert!(held.kv_entries < 40 && held.rows < 40, "{held:?}");

    kv.put_with_ttl("k", "v", 10).await.unwrap();
    kv.put_with_ttl("for ever", "v", u64::MAX).await.unwrap();
    let before = clock.now();
    clock.advance(Duration::from_secs(10));
    assert_eq!(kv.get("k").await.unwrap(), None);
    clock.set(before);
    assert_eq!(kv.get("k").await.unwrap(), None);
    assert!(kv.get("for ever").await.unwrap().is_some());
}

#[tokio::test]
async fn a_put_stops_reading_at_the_bound_and_keeps_the_old_object() {
    let config = MemConfig::private().with_payload_len_bytes_max(10);
    let rows = MemPlace::open(config).high_volume();
    let endless = || stream::repeat_with(|| Ok("four".into())).boxed();
    let short = |n| endless().take(n).boxed();
    rows.put_object(&id("k"), &Metadata::new(), short(2))
        .await
        .unwrap();

    let put = rows.put_object(&id("k"), &Metadata::new(), endless()).await;
    refused(put, ErrorKind::InvalidInput);
    let broken = stream::iter([Ok("ab".into()), Err(ClientError::new("unplugged"))]).boxed();
    let put = rows.put_object(&id("k"), &Metadata::new(), broken).await;
    assert!(matches!(put, Err(BackendError::Client(_))));

    let (metadata, payload) = rows.get_object(&id("k")).await.unwrap().unwrap();
    let chunks: Vec<_> = payload.try_collect().await.unwrap();
    assert_eq!(
        (metadata.size, chunks.concat()),
        (Some(8), b"fourfour".to_vec())
    );
}

#[tokio::test]
async fn an_access_extends_an_object_and_only_its_owner_extends_a_redirect() {
    let (place, clock) = place();
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
    clock.set(at(200));
    assert!(!extend(&target, at(300)).await.unwrap());
}

#[tokio::test]
async fn a_listing_names_objects_once_and_no_redirects() {
    let (place, _) = place();
    let store = place.high_volume();
    for n in 0..7 {
        let payload = stream::iter([Ok("payload".into())]).boxed();
        let (id, metadata) = (id(&format!("{n}")), Metadata::new());
        store.put_object(&id, &metadata, payload).await.unwrap();
    }
    let redirect = Tombstone::new(id("elsewhere"), ExpirationPolicy::Manual);
    let write = TieredWrite::Tombstone(redirect);
    let third = id("3");
    let swap = store.compare_and_write(&third, None, write);
    assert!(swap.await.unwrap());
    for limit in [0, 1, 2, 3, 6, 100] {
        let (mut named, mut after) = (Vec::new(), None);
        loop {
            let page = store.list_objects(after.as_deref(), limit).await.unwrap();
            assert!(page.ids.len() <= limit.max(1));
            named.extend(page.ids);
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        let expected: Vec<_> = [0, 1, 2, 4, 5, 6].map(|n| id(&format!("{n}"))).into();
        assert_eq!(named, expected, "in pages of {limit}");
    }
    let odd = store.list_objects(Some("no id"), 1).await;
    refused(odd, ErrorKind::InvalidInput);
}

#[test]
fn frames_need_a_flush_after_a_change_only() {
    let store = MemPlace::open(MemConfig::private()).blob_store();
    let guid = BlobGuid::from_u128(7);
    assert!(!store.needs_flush());
    let mut frame = store.alloc_blob_buf_zeroed();
    frame.fill(7);
    store.write_blob(guid, &frame).unwrap();
    assert!(store.needs_flush());
    store.flush().unwrap();
    assert!(!store.needs_flush());
    frame.fill(0xAA);
    store.read_blob(guid, &mut frame).unwrap();
    assert!(frame.iter().all(|byte| *byte == 7));
    store.delete_blob(guid).unwrap();
    assert!(store.needs_flush() && !store.has_blob(guid).unwrap());
    refused(store.read_blob(guid, &mut frame), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_refused_commit_undoes_all_of_it() {
    let place = MemPlace::open(MemConfig::private());
    let stash = place.stash();
    let (a, b) = (
        stash.open("a").await.unwrap(),
        stash.open("b").await.unwrap(),
    );
    let row = |time, diff| RawRow {
        key: "k".into(),
        value: "v".into(),
        time,
        diff,
    };
    let update = |id, rows| StashOp::Update { id, rows };
    let five = Antichain::from_elem(5);
    let seal = |id| StashOp::Seal {
        id,
        upper: five.clone(),
    };
    let compact = |id| StashOp::Compact {
        id,
        since: five.clone(),
    };
    let before = [
        update(a, vec![row(1, 2), row(2, -2), row(3, i64::MAX)]),
        seal(a),
    ];
    stash.commit(before.to_vec()).await.unwrap();

    let state = async || {
        let [a, b] = [
            stash.snapshot(a, Rows::All).await.unwrap(),
            stash.snapshot(b, Rows::All).await.unwrap(),
        ];
        (a.frontiers, a.rows, b.frontiers, b.rows)
    };
    let was = state().await;
    let consolidate = StashOp::Consolidate { id: a };
    let bad = [
        update(b, vec![row(0, 1)]),
        seal(b),
        compact(a),
        consolidate.clone(),
        update(a, vec![row(7, 1)]),
        update(a, vec![row(4, 1)]),
    ];
    let refusal = stash.commit(bad.to_vec()).await;
    assert!(matches!(refusal, Err(StashError::TimeBeforeUpper { .. })));
    assert_eq!(state().await, was);

    // A sum beyond 64 bits: the consolidation is refused, and undone with all that came before it.
    let overflow = [
        update(a, vec![row(8, i64::MAX), row(8, 1)]),
        compact(a),
        consolidate.clone(),
    ];
    let refusal = stash.commit(overflow.to_vec()).await;
    assert!(matches!(refusal, Err(StashError::DiffOverflow)));
    assert_eq!(state().await, was);

    stash
        .commit(vec![compact(a), consolidate.clone()])
        .await
        .unwrap();
    assert_eq!(place.held().stash_rows, 1, "+2 and -2 are gone");
    let empty = Antichain::new();
    let end = [
        StashOp::Seal {
            id: a,
            upper: empty.clone(),
        },
        StashOp::Compact {
            id: a,
            since: empty,
        },
        consolidate,
    ];
    stash.commit(end.to_vec()).await.unwrap();
    assert_eq!(place.held().stash_rows, 0);
}

#[tokio::test]
async fn typed_rows_survive_folding_and_a_dropped_collection_does_not_come_back() {
    let mut stash = MemPlace::open(MemConfig::private()).stash();
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
    assert_eq!(stash.peek(c).await.unwrap(), [("b".to_owned(), 1, 1)]);

    assert!(stash.drop_collection("c").await.unwrap());
    assert!(!stash.drop_collection("c").await.unwrap());
    let again: StashCollection<String, u64> = stash.collection("c").await.unwrap();
    assert_ne!(again, c);
    refused(stash.iter(c).await, ErrorKind::NotFound);
    assert!(stash.iter(again).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_change_is_claimed_once_and_only_after_the_lease() {
    let log = MemPlace::open(MemConfig::private()).change_log();
    let [old, new, third] = [1, 2, 3].map(|n| WriterId::from_bytes([n; 16]));
    let start = TestClock::new().now();
    let until = start + Duration::from_secs(10);
    let change = Change::new(ChangeId::from_bytes([9; 16]), id("o"), Step::Upload);
    log.record(old, &change).await.unwrap();
    log.renew(old, until).await.unwrap();
    log.renew(old, start).await.unwrap();

    assert!(log.claim(new, start, 9).await.unwrap().is_empty());
    assert!(log.claim(new, until, 0).await.unwrap().is_empty());
    log.renew(new, until + Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(log.claim(new, until, 9).await.unwrap(), from_ref(&change));
    assert!(log.claim(third, until, 9).await.unwrap().is_empty());
    assert_eq!(log.changes(new).await.unwrap(), from_ref(&change));
    refused(log.record(old, &change).await, ErrorKind::Conflict);
    refused(log.complete(old, change.id).await, ErrorKind::Conflict);
    log.complete(new, change.id).await.unwrap();
    log.complete(new, change.id).await.unwrap();
    assert!(log.changes(new).await.unwrap().is_empty());
}

#[test]
fn what_is_declared_by_default_is_what_is_configured_by_default() {
    assert_eq!(MemConfig::private().caps(), CAPS);
    assert_eq!(MemPlace::open(MemConfig::named("caps")).caps(), CAPS);
}

#[test]
fn debug_output_shows_no_contents() {
    let place = MemPlace::open(MemConfig::named("shy"));
    assert_eq!(
        format!("{:?}", place.blob_multi()),
        r#"MemBlobMulti(MemPlace { name: Some("shy"), .. })"#
    );
}
