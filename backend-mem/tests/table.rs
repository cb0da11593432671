//! `compare_and_write` cell by cell: the table of HV-5, written out once more and compared with what happens.

use std::sync::Arc;
use std::time::Duration;

use larder_mem::{MemConfig, MemHighVolume, MemPlace};
use larder_traits::{
    Backend, Clock, ExpirationPolicy, HighVolumeBackend, Metadata, ObjectContext, ObjectId,
    TestClock, TieredMetadata, TieredWrite, Tombstone,
};

fn id(key: &str) -> ObjectId {
    ObjectId::new(ObjectContext::new("table", Vec::new()), key)
}

fn redirect(target: &str) -> TieredWrite {
    TieredWrite::Tombstone(Tombstone::new(id(target), ExpirationPolicy::Manual))
}

/// What the row is, in one letter for each state: nothing, an object, or a redirect by its target.
async fn state(rows: &MemHighVolume) -> String {
    match rows
        .get_tiered_metadata(&id("row"))
        .await
        .expect("memory does not fail")
    {
        TieredMetadata::NotFound => "-".into(),
        TieredMetadata::Object(metadata) => metadata.origin.expect("every object here has one"),
        TieredMetadata::Tombstone(tombstone) => tombstone.target.key,
    }
}

/// Brings the row into a state, from whatever it was in; `x` is a redirect that has expired, `y` such an object.
async fn bring_into(rows: &MemHighVolume, clock: &TestClock, wanted: &str) {
    let row = id("row");
    let brief = ExpirationPolicy::TimeToLive(Duration::from_secs(1));
    rows.delete_object(&row)
        .await
        .expect("memory does not fail");
    let write = match wanted {
        "-" => return,
        "x" => TieredWrite::Tombstone(Tombstone::new(id("A"), brief)),
        "y" => TieredWrite::Object(Metadata::with_policy(brief), "payload".into()),
        "old object" => object("old object"),
        target => redirect(target),
    };
    assert!(
        rows.compare_and_write(&row, None, write)
            .await
            .expect("memory does not fail")
    );
    if matches!(wanted, "x" | "y") {
        clock.advance(Duration::from_secs(1));
    }
}

fn object(origin: &str) -> TieredWrite {
    let mut metadata = Metadata::new();
    metadata.origin = Some(origin.into());
    TieredWrite::Object(metadata, "payload".into())
}

#[tokio::test]
async fn every_cell_of_the_table() {
    let clock = Arc::new(TestClock::new());
    let theirs = Arc::clone(&clock) as Arc<dyn Clock>;
    let rows = MemPlace::open(MemConfig::private().with_clock(theirs)).high_volume();
    // For each call: the answer and the next state from absent or expired, from an object, and from redirects to A, N
    // and Z. The call is "current -> write".
    type Cell = (bool, &'static str);
    let (o, n) = ("old object", "new object");
    let table: [(Option<&str>, TieredWrite, [Cell; 5]); 8] = [
        (
            None,
            redirect("N"),
            [
                (true, "N"),
                (true, "N"),
                (false, "A"),
                (true, "N"),
                (false, "Z"),
            ],
        ),
        (
            Some("A"),
            redirect("N"),
            [
                (false, "-"),
                (false, o),
                (true, "N"),
                (true, "N"),
                (false, "Z"),
            ],
        ),
        (
            Some("A"),
            redirect("A"),
            [
                (false, "-"),
                (false, o),
                (true, "A"),
                (false, "N"),
                (false, "Z"),
            ],
        ),
        (
            None,
            redirect("A"),
            [
                (true, "A"),
                (true, "A"),
                (true, "A"),
                (false, "N"),
                (false, "Z"),
            ],
        ),
        (
            Some("A"),
            object(n),
            [
                (false, "-"),
                (true, o),
                (true, n),
                (false, "N"),
                (false, "Z"),
            ],
        ),
        (
            Some("A"),
            TieredWrite::Delete,
            [
                (true, "-"),
                (true, o),
                (true, "-"),
                (false, "N"),
                (false, "Z"),
            ],
        ),
        (
            None,
            object(n),
            [
                (true, n),
                (true, n),
                (false, "A"),
                (false, "N"),
                (false, "Z"),
            ],
        ),
        (
            None,
            TieredWrite::Delete,
            [
                (true, "-"),
                (true, "-"),
                (false, "A"),
                (false, "N"),
                (false, "Z"),
            ],
        ),
    ];
    for (current, write, cells) in &table {
        let [absent, rest @ ..] = cells;
        let absent_or_expired = ["-", "x", "y"].map(|from| (from, absent));
        let others = [o, "A", "N", "Z"].into_iter().zip(rest);
        for (from, (answer, next)) in absent_or_expired.into_iter().chain(others) {
            bring_into(&rows, &clock, from).await;
            let current = current.map(id);
            let answered = rows
                .compare_and_write(&id("row"), current.as_ref(), write.clone())
                .await
                .unwrap();
            let cell = format!("{current:?} -> {write:?} on {from}");
            assert_eq!((answered, &*state(&rows).await), (*answer, *next), "{cell}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_creators_one_wins() {
    let rows = MemPlace::open(MemConfig::private()).high_volume();
    for _ in 0..50 {
        rows.delete_object(&id("row")).await.unwrap();
        let creators = (0..8).map(|n| {
            let rows = rows.clone();
            tokio::spawn(async move {
                let write = redirect(&n.to_string());
                rows.compare_and_write(&id("row"), None, write).await
            })
        });
        let creators: Vec<_> = creators.collect();
        let mut winners = Vec::new();
        for (n, creator) in creators.into_iter().enumerate() {
            if creator.await.unwrap().unwrap() {
                winners.push(n.to_string());
            }
        }
        assert_eq!(winners, [state(&rows).await]);
    }
}
