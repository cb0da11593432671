//! What a failing medium makes of commits and of their answers (ST-13), call by call.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

mod failing_vfs;

use std::sync::Arc;
use std::time::Duration;

use failing_vfs::{NoSpace, Switch};
use larder_conformance::{FaultKind, Faults};
use larder_sqlite::{SqliteConfig, SqlitePlace};
use larder_traits::stash::{CollectionId, RawRow, Rows, StashDriver, StashOp};
use larder_traits::{Antichain, Classify, ErrorKind, KvClient, Outcome};
use rusqlite::Connection;
use tempfile::TempDir;

async fn place() -> (TempDir, Arc<Switch>, SqlitePlace) {
    let folder = tempfile::tempdir().unwrap();
    let switch = Switch::of(folder.path());
    let config = SqliteConfig::new(folder.path().join("db"));
    let place = SqlitePlace::open(config).await.unwrap();
    (folder, switch, place)
}

fn one_row(id: CollectionId) -> Vec<StashOp> {
    let row = RawRow {
        key: "k".into(),
        value: "v".into(),
        time: 0,
        diff: 1,
    };
    vec![StashOp::Update {
        id,
        rows: vec![row],
    }]
}

#[tokio::test]
async fn a_lost_answer_is_told_from_a_lost_commit() {
    let (_folder, switch, place) = place().await;
    let faults: &dyn Faults = &*switch;
    let stash = place.stash();
    let id = stash.open("c").await.unwrap();
    let rows = async || stash.snapshot(id, Rows::All).await.unwrap().rows.len();
    let (mut landed, mut lost) = (0, 0);
    for nth in 1.. {
        let before = rows().await;
        faults.arm(nth, FaultKind::ErrorAfter);
        let answer = stash.commit(one_row(id)).await;
        let met = faults.disarm();
        let there = rows().await - before;
        match answer {
            Ok(()) if !met => break,
            Ok(()) => {
                assert_eq!(there, 1, "after call {nth}");
                landed += 1;
            }
            Err(e) => {
                let said = (e.kind(), e.outcome());
                assert_eq!(said, (ErrorKind::Unavailable, Outcome::NotApplied));
                assert_eq!(there, 0, "after call {nth}");
                lost += 1;
            }
        }
    }
    // The log is written and synced, and once it is, only the answer is left to be lost.
    assert!(landed > 0 && lost > 2, "{landed} landed, {lost} lost");
}

#[tokio::test]
async fn a_lost_commit_takes_the_refusals_that_it_caused_with_it() {
    let (folder, switch, place) = place().await;
    let faults: &dyn Faults = &*switch;
    let stash = place.stash();
    let blocker = Connection::open(folder.path().join("db")).unwrap();
    let mut lost = 0;
    for nth in 1.. {
        let id = stash.open(&nth.to_string()).await.unwrap();
        let upper = Antichain::from_elem(5);
        let seal = vec![StashOp::Seal { id, upper }];
        // Both in one transaction: the update is refused because of the seal.
        blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
        let free = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            blocker.execute_batch("ROLLBACK").unwrap();
            faults.arm(nth, FaultKind::ErrorAfter);
        };
        let update = stash.commit(one_row(id));
        let (sealed, updated, ()) = tokio::join!(stash.commit(seal), update, free);
        let met = faults.disarm();
        match (sealed, updated) {
            (Ok(()), Err(e)) => {
                let kinds = [ErrorKind::InvalidInput, ErrorKind::Unavailable];
                assert!(kinds.contains(&e.kind()), "{e}");
            }
            (Err(sealed), updated) => {
                assert_eq!(sealed.kind(), ErrorKind::Unavailable, "{sealed}");
                let refused = updated.err().map(|e| (e.kind(), e.outcome()));
                let as_lost = (ErrorKind::Unavailable, Outcome::NotApplied);
                assert!(refused.is_none_or(|it| it == as_lost), "{refused:?}");
                lost += u64::from(refused.is_some());
                stash.commit(one_row(id)).await.unwrap();
            }
            (Ok(()), Ok(())) => panic!("an update of sealed time"),
        }
        if !met {
            break;
        }
    }
    assert!(
        lost > 2,
        "{lost} commits were lost with what was refused in them"
    );
}

#[tokio::test]
async fn without_room_a_write_says_so_and_goes_on_when_there_is_some() {
    let (_folder, switch, place) = place().await;
    let space = NoSpace(switch);
    let kv = place.kv_client();
    kv.put("k", "old").await.unwrap();
    for room in 1..20 {
        space.arm(room, FaultKind::ErrorBefore);
        let put = kv.put("k", "new").await;
        let seen = kv.get("k").await.unwrap().unwrap();
        let short = space.disarm();
        match put {
            Ok(()) => {
                assert_eq!(seen, "new");
                assert!(!short || room > 1);
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::NoSpace);
                assert_eq!(seen, "old");
            }
        }
        kv.put("k", "old").await.unwrap();
        assert_eq!(kv.get("k").await.unwrap().unwrap(), "old");
    }
}
