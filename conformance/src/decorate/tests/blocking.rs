//! [`BlobStore`], whose calls block.

use std::thread;
use std::time::Duration;

use larder_traits::{AlignedBlobBuf, BlobGuid, BlobStore, BlobStoreError};

use super::*;

const GUID: BlobGuid = BlobGuid::from_u128(1);

type One = fn(&Faulty<Ledger>) -> Result<(), BlobStoreError>;

fn frame() -> AlignedBlobBuf {
    let mut frame = AlignedBlobBuf::zeroed();
    frame[0] = 7;
    frame
}

/// One call of each method, and whether it writes.
const EACH: [(&str, bool, One); 7] = [
    ("read_blob", false, |s| s.read_blob(GUID, &mut frame())),
    ("list_blobs", false, |s| s.list_blobs().map(drop)),
    ("has_blob", false, |s| s.has_blob(GUID).map(drop)),
    ("write_blob", true, |s| s.write_blob(GUID, &frame())),
    ("delete_blob", true, |s| s.delete_blob(GUID)),
    ("write_blobs", true, |s| s.write_blobs(&[(GUID, &frame())])),
    ("write_blobs_with_data_sync", true, |s| {
        s.write_blobs_with_data_sync(&[(GUID, &frame())])
    }),
];

fn world() -> (Ledger, Switch, Faulty<Ledger>) {
    let (ledger, switch) = (Ledger::default(), Switch::new());
    let store = Faulty::new("it", ledger.clone(), &switch);
    (ledger, switch, store)
}

#[test]
fn errors_come_before_the_effect_or_after_it() {
    let (ledger, switch, store) = world();
    for (name, write, call) in EACH {
        call(&store).unwrap();
        assert_eq!(ledger.take(), [name]);
        let unknown = if write {
            Outcome::Unknown
        } else {
            Outcome::NotApplied
        };
        switch.arm(1, FaultKind::ErrorBefore);
        assert_eq!(
            told(call(&store)),
            (ErrorKind::Unavailable, Outcome::NotApplied)
        );
        assert!(ledger.take().is_empty());
        switch.arm(1, FaultKind::ErrorAfter);
        assert_eq!(told(call(&store)), (ErrorKind::Unavailable, unknown));
        assert_eq!(ledger.take(), [name]);
        switch.report(Report::Vague);
        switch.arm(1, FaultKind::ErrorBefore);
        assert_eq!(told(call(&store)), (ErrorKind::Unavailable, unknown));
        assert!(ledger.take().is_empty() && switch.disarm());
        switch.report(Report::Honest);
    }
    let texts: Vec<String> = switch.calls().iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], format!("it.read_blob {GUID}"));
}

#[tokio::test]
async fn late_writes_own_their_frames() {
    let (ledger, switch, store) = world();
    for (_, write, call) in EACH {
        switch.late(1);
        assert_eq!(call(&store).is_err(), write);
    }
    ledger.take();
    assert_eq!(switch.deliver().await, 4);
    let landed = [
        "write_blob",
        "delete_blob",
        "write_blobs",
        "write_blobs_with_data_sync",
    ];
    assert_eq!(ledger.take(), landed);
}

#[test]
fn a_call_that_hangs_holds_its_thread_until_the_switch_is_disarmed() {
    let (ledger, switch, store) = world();
    switch.arm(1, FaultKind::Hang);
    thread::scope(|scope| {
        let call = scope.spawn(|| store.write_blob(GUID, &frame()));
        thread::sleep(Duration::from_millis(50));
        assert!(!call.is_finished());
        assert!(switch.disarm());
        told(call.join().unwrap());
    });
    assert!(ledger.take().is_empty());
}

#[test]
fn a_failed_flush_is_never_healed() {
    for kind in [FaultKind::ErrorBefore, FaultKind::ErrorAfter] {
        let (ledger, switch, store) = world();
        store.flush().unwrap();
        assert!(!store.needs_flush());
        switch.arm(1, kind);
        assert_eq!(
            told(store.flush()),
            (ErrorKind::Unavailable, Outcome::Unknown)
        );
        switch.disarm();
        ledger.take();
        assert!(store.needs_flush());
        assert_eq!(
            told(store.flush()),
            (ErrorKind::Unavailable, Outcome::Unknown)
        );
        for (_, write, call) in EACH {
            assert_eq!(call(&store).is_err(), write);
        }
        assert_eq!(ledger.take(), ["read_blob", "list_blobs", "has_blob"]);
    }
}
