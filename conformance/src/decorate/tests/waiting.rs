//! The contracts whose calls are awaited.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use larder_traits::stash::{Rows, StashOp};
use larder_traits::{
    Atomicity, Backend, BlobMulti, Change, ChangeId, ChangeLog, CollectionId, Fault,
    HighVolumeBackend, KvDriver, Metadata, StashDriver, Step, TieredGet, TieredWrite, WriterId,
};
use tokio::time::timeout;

use super::*;

const WRITER: WriterId = WriterId::from_bytes([1; 16]);
const CHANGE: ChangeId = ChangeId::from_bytes([2; 16]);

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(300)
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// One call of each method: what it is called, whether it writes, and how it ends.
type One = (&'static str, bool, BoxFuture<'static, Result<(), Fault>>);

/// The error again, without the type of its contract.
fn bare<T, E: Classify>(result: Result<T, E>) -> Result<(), Fault> {
    result.map(drop).map_err(|e| match e.outcome() {
        Outcome::NotApplied => Fault::not_applied(e.kind(), e.to_string()),
        Outcome::Unknown => Fault::unknown(e.kind(), e.to_string()),
    })
}

macro_rules! calls {
    ($store:ident; $($name:literal, $write:literal, $call:expr;)+) => {
        vec![$({
            let $store = std::sync::Arc::clone(&$store);
            let call: One = ($name, $write, async move { bare($call.await) }.boxed());
            call
        }),+]
    };
}

fn each(store: &std::sync::Arc<Faulty<Ledger>>) -> Vec<One> {
    let s = std::sync::Arc::clone(store);
    let none = Bytes::new;
    let update = || StashOp::Consolidate {
        id: CollectionId::new(3),
    };
    let change = || Change::new(CHANGE, object("o"), Step::Upload);
    calls! { s;
        "get", false, BlobMulti::get(&*s, later(), "k");
        "list_keys", false, s.list_keys(later());
        "set", true, s.set(later(), "k", none(), Atomicity::RequireAtomic);
        "delete", true, BlobMulti::delete(&*s, later(), "k");
        "get_bytes", false, s.get_bytes(later(), "k");
        "get_range", false, s.get_range(later(), "k", 0..1);
        "list_prefix", false, s.list_prefix(later(), "k");
        "put_object", true, s.put_object(&object("o"), &Metadata::default(), stream::empty().boxed());
        "get_object", false, s.get_object(&object("o"));
        "get_metadata", false, s.get_metadata(&object("o"));
        "delete_object", true, s.delete_object(&object("o"));
        "put_non_tombstone", true, s.put_non_tombstone(&object("o"), &Metadata::default(), none());
        "get_tiered_object", false, s.get_tiered_object(&object("o"));
        "get_tiered_metadata", false, s.get_tiered_metadata(&object("o"));
        "delete_non_tombstone", true, s.delete_non_tombstone(&object("o"));
        "compare_and_write", true, s.compare_and_write(&object("o"), None, TieredWrite::Delete);
        "fence", true, s.fence(&object("o"));
        "extend_expiry", true, s.extend_expiry(&object("o"), &object("p"), UNIX_EPOCH);
        "write", true, s.write(b"k", b"v", None);
        "read", false, s.read(b"k");
        "read_many", false, s.read_many(&[]);
        "remove", true, s.remove(b"k");
        "open", true, StashDriver::open(&*s, "c");
        "names", false, s.names();
        "discard", true, s.discard("c");
        "snapshot", false, StashDriver::snapshot(&*s, CollectionId::new(3), Rows::All);
        "commit", true, s.commit(vec![update()]);
        "record", true, s.record(WRITER, &change());
        "complete", true, s.complete(WRITER, CHANGE);
        "changes", false, s.changes(WRITER);
        "renew", true, s.renew(WRITER, UNIX_EPOCH);
        "claim", true, s.claim(WRITER, UNIX_EPOCH, 1);
    }
}

fn world() -> (Ledger, Switch, std::sync::Arc<Faulty<Ledger>>) {
    let (ledger, switch) = (Ledger::default(), Switch::new());
    let store = Faulty::new("it", ledger.clone(), &switch);
    (ledger, switch, std::sync::Arc::new(store))
}

#[tokio::test]
async fn every_method_is_passed_on_and_noted() {
    let (ledger, switch, store) = world();
    for (name, _, call) in each(&store) {
        call.await.unwrap();
        assert_eq!(ledger.take(), [name]);
        assert_eq!(switch.calls().last().unwrap().method, name);
    }
    assert_eq!(switch.count(), 32);
    let texts: Vec<String> = switch.calls().iter().map(ToString::to_string).collect();
    for text in [
        "it.list_keys",
        "it.get k",
        "it.get_object test/o",
        "it.commit 3",
    ] {
        assert!(
            texts.iter().any(|t| t.starts_with(text)),
            "{text}: {texts:?}"
        );
    }
    Backend::join(&*store).await;
    assert_eq!(ledger.take(), ["join"]);
    assert_eq!((store.name(), switch.count()), ("ledger", 32));
    store
        .snapshot(CollectionId::new(1), Rows::Key(b"k"))
        .await
        .unwrap();
    store
        .snapshot(CollectionId::new(1), Rows::None)
        .await
        .unwrap();
    assert_eq!(ledger.take(), ["snapshot of k", "snapshot of none"]);
    switch.forget_calls();
    assert!(switch.calls().is_empty() && switch.count() == 0);
}

#[tokio::test]
async fn an_error_before_has_no_effect_and_may_say_so() {
    for report in [Report::Honest, Report::Vague] {
        let (ledger, switch, store) = world();
        switch.report(report);
        for (name, write, call) in each(&store) {
            switch.arm(1, FaultKind::ErrorBefore);
            let vague = write && report == Report::Vague;
            let outcome = if vague {
                Outcome::Unknown
            } else {
                Outcome::NotApplied
            };
            assert_eq!(
                told(call.await),
                (ErrorKind::Unavailable, outcome),
                "{name}"
            );
            assert!(ledger.take().is_empty() && switch.disarm(), "{name}");
        }
    }
}

#[tokio::test]
async fn an_error_after_has_the_effect_and_never_denies_it() {
    let (ledger, switch, store) = world();
    for (name, write, call) in each(&store) {
        switch.arm(1, FaultKind::ErrorAfter);
        let outcome = if write {
            Outcome::Unknown
        } else {
            Outcome::NotApplied
        };
        assert_eq!(
            told(call.await),
            (ErrorKind::Unavailable, outcome),
            "{name}"
        );
        assert_eq!(ledger.take(), [name]);
    }
}

#[tokio::test]
async fn a_late_write_lands_when_it_is_delivered() {
    let (ledger, switch, store) = world();
    let mut expected = Vec::new();
    for (name, write, call) in each(&store) {
        switch.late(1);
        if name == "fence" {
            continue;
        }
        if write {
            assert_eq!(told(call.await), (ErrorKind::Unavailable, Outcome::Unknown));
            expected.push(name);
        } else {
            call.await.unwrap();
        }
        assert_eq!((switch.disarm(), ledger.take().is_empty()), (write, write));
    }
    assert_eq!(switch.undelivered(), expected.len());
    assert_eq!(switch.deliver().await, expected.len());
    assert_eq!(ledger.take(), expected);
    assert_eq!(switch.deliver().await, 0);

    // The deadline was the caller's, and the write is out of its reach.
    switch.late(1);
    let set = store.set(soon(), "k", Bytes::new(), Atomicity::RequireAtomic);
    told(set.await);
    tokio::time::sleep(Duration::from_millis(310)).await;
    switch.deliver().await;
    assert_eq!(ledger.take(), ["set"]);
}

#[tokio::test]
async fn a_fence_rules_out_late_writes_to_its_row() {
    let (ledger, switch, store) = world();
    for key in ["o", "p"] {
        switch.late(1);
        told(
            store
                .compare_and_write(&object(key), None, TieredWrite::Delete)
                .await,
        );
    }
    switch.arm(1, FaultKind::ErrorBefore);
    told(store.fence(&object("o")).await);
    assert_eq!(switch.undelivered(), 2);
    store.fence(&object("o")).await.unwrap();
    assert_eq!(switch.deliver().await, 1);
    assert_eq!(ledger.take(), ["fence", "compare_and_write"]);
}

/// Whether nothing comes.
async fn is_silent(call: impl Future) -> bool {
    timeout(Duration::from_millis(50), call).await.is_err()
}

#[tokio::test]
async fn a_call_that_hangs_is_never_answered() {
    let (ledger, switch, store) = world();
    switch.arm(1, FaultKind::Hang);
    assert!(is_silent(store.remove(b"k")).await);
    assert!(switch.disarm() && ledger.take().is_empty());
    switch.hang_after(2);
    store.remove(b"k").await.unwrap();
    store.read(b"k").await.unwrap();
    assert!(is_silent(store.remove(b"k")).await);
    assert_eq!(ledger.take(), ["remove", "read", "remove"]);
}

#[tokio::test]
async fn a_deadline_ends_what_hangs_and_what_waits() {
    let (ledger, switch, store) = world();
    let set = || store.set(soon(), "k", Bytes::new(), Atomicity::RequireAtomic);
    switch.arm(1, FaultKind::Hang);
    assert_eq!(told(set().await), (ErrorKind::Timeout, Outcome::NotApplied));
    assert_eq!(ledger.take(), [""; 0]);
    switch.hang_after(1);
    assert_eq!(told(set().await), (ErrorKind::Timeout, Outcome::Unknown));
    assert_eq!(ledger.take(), ["set"]);
    switch.disarm();
    switch.delay(Duration::from_secs(60));
    assert_eq!(told(set().await), (ErrorKind::Timeout, Outcome::NotApplied));
    switch.report(Report::Vague);
    assert_eq!(told(set().await), (ErrorKind::Timeout, Outcome::Unknown));
    assert_eq!(ledger.take(), [""; 0]);
    switch.delay(Duration::from_millis(20));
    let start = Instant::now();
    store.remove(b"k").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[tokio::test]
async fn the_nth_call_is_met_once_or_every_call() {
    let (_, switch, store) = world();
    let other = Faulty::new("other", Ledger::default(), &switch);
    switch.arm(3, FaultKind::ErrorBefore);
    store.remove(b"k").await.unwrap();
    other.remove(b"k").await.unwrap();
    assert!(store.remove(b"k").await.is_err());
    store.remove(b"k").await.unwrap();
    assert!(switch.disarm() && !switch.disarm());

    switch.arm(2, FaultKind::ErrorBefore);
    store.remove(b"k").await.unwrap();
    assert!(!switch.disarm());

    switch.only(&["remove"]);
    switch.arm_all(FaultKind::ErrorBefore);
    for _ in 0..3 {
        assert!(other.remove(b"k").await.is_err());
        other.read(b"k").await.unwrap();
    }
    switch.only(&[]);
    assert!(other.read(b"k").await.is_err());
}

async fn read(payload: larder_traits::PayloadStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut payload = pin!(payload);
    while let Some(chunk) = payload.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => {
                assert_eq!(error.outcome(), Outcome::NotApplied);
                assert!(payload.next().await.is_none());
                return (bytes, false);
            }
        }
    }
    (bytes, true)
}

#[tokio::test]
async fn a_short_stream_ends_where_it_was_told_to() {
    let (_, switch, store) = world();
    for end in [StreamEnd::Error, StreamEnd::Silent] {
        for len in 0..=11 {
            switch.short_stream(2, len, end);
            store.get_metadata(&object("o")).await.unwrap();
            let (_, whole) = store.get_object(&object("o")).await.unwrap().unwrap();
            assert_eq!(read(whole).await, (b"0123456789".to_vec(), true));
            let short = match store.get_tiered_object(&object("o")).await.unwrap() {
                TieredGet::Object(_, payload) => payload,
                other => panic!("{other:?}"),
            };
            let len = usize::try_from(len).unwrap().min(10);
            let complete = len == 10 || end == StreamEnd::Silent;
            let expected = b"0123456789"[..len].to_vec();
            assert_eq!(read(short).await, (expected, complete), "{len} {end:?}");
            assert!(switch.disarm());
        }
    }
}
