//! Random operations on a stash against a model of it, with the file opened again in between.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use std::collections::BTreeMap;

use larder_sqlite::{SqliteConfig, SqlitePlace};
use larder_traits::Classify;
use larder_traits::frontier::Antichain;
use larder_traits::stash::driver::fold;
use larder_traits::stash::{
    CollectionId, Frontiers, RawRow, Rows, Snapshot, StashDriver, StashError, StashOp,
};

/// A small generator, so that a run can be told by its seed (xorshift64*).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n
    }

    fn time(&mut self, around: i64) -> i64 {
        match self.below(40) {
            0 => i64::MIN,
            1 => i64::MAX,
            n => around + i64::try_from(n).unwrap() - 8,
        }
    }
}

#[derive(Clone, Default)]
struct Collection {
    frontiers: Frontiers,
    rows: Vec<RawRow>,
}

#[derive(Default)]
struct Model {
    names: BTreeMap<String, CollectionId>,
    collections: BTreeMap<CollectionId, Collection>,
}

impl Model {
    fn commit(&mut self, ops: &[StashOp]) -> Result<(), StashError> {
        let mut after = self.collections.clone();
        for op in ops {
            let id = op.id();
            let gone = StashError::NoCollection { id };
            let collection = after.get_mut(&id).ok_or(gone)?;
            collection.frontiers.admit(op)?;
            match op {
                StashOp::Update { rows, .. } => collection.rows.extend(rows.iter().cloned()),
                StashOp::Consolidate { .. } if collection.frontiers.since.is_empty() => {
                    collection.rows.clear();
                }
                _ => {}
            }
        }
        self.collections = after;
        Ok(())
    }
}

fn random_op(rng: &mut Rng, id: CollectionId, now: i64) -> StashOp {
    let frontier = |rng: &mut Rng| match rng.below(60) {
        0 => Antichain::new(),
        _ => Antichain::from_elem(rng.time(now)),
    };
    match rng.below(10) {
        0..5 => {
            let rows = (0..rng.below(6)).map(|_| RawRow {
                key: vec![b'k'; usize::try_from(rng.below(4)).unwrap()].into(),
                value: vec![b'v'; usize::try_from(rng.below(3)).unwrap() * 700].into(),
                time: rng.time(now + 12),
                diff: i64::try_from(rng.below(7)).unwrap() - 3,
            });
            let rows = rows.collect();
            StashOp::Update { id, rows }
        }
        5 => {
            let upper = frontier(rng);
            StashOp::Seal { id, upper }
        }
        6 => {
            let since = frontier(rng);
            StashOp::Compact { id, since }
        }
        7 => {
            let upper = frontier(rng);
            StashOp::ExpectUpper { id, upper }
        }
        _ => StashOp::Consolidate { id },
    }
}

/// What a reader sees of a snapshot, whatever was merged in it.
fn seen(frontiers: &Frontiers, rows: Vec<RawRow>) -> Vec<RawRow> {
    fold(rows, frontiers.since.borrow()).unwrap()
}

async fn compare(stash: &impl StashDriver, model: &Model, step: usize) {
    for (id, collection) in &model.collections {
        let Snapshot { frontiers, rows } = stash.snapshot(*id, Rows::All).await.unwrap();
        assert_eq!(frontiers, collection.frontiers, "step {step}");
        let expected = seen(&frontiers, collection.rows.clone());
        assert_eq!(seen(&frontiers, rows), expected, "step {step}");
        let of_key = stash.snapshot(*id, Rows::Key(b"kk")).await.unwrap().rows;
        let expected: Vec<_> = expected.into_iter().filter(|r| r.key == "kk").collect();
        assert_eq!(seen(&frontiers, of_key), expected, "step {step}");
    }
}

async fn run(seed: u64, steps: usize) {
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        let config = SqliteConfig::new(folder.path().join("db"));
        SqlitePlace::open(config).await.unwrap()
    };
    let mut place = open().await;
    let (mut rng, mut model) = (Rng(seed), Model::default());
    let mut ever: Vec<CollectionId> = Vec::new();
    for step in 0..steps {
        let now = i64::try_from(step).unwrap() / 8;
        let stash = place.stash();
        let name = format!("c{}", rng.below(3));
        match rng.below(50) {
            0 => {
                place.close().await;
                place = open().await;
            }
            1 => place = open().await,
            2 => {
                let there = model.names.remove(&name);
                there.map(|id| model.collections.remove(&id));
                assert_eq!(stash.discard(&name).await.unwrap(), there.is_some());
            }
            3..10 => {
                let id = stash.open(&name).await.unwrap();
                match model.names.get(&name) {
                    Some(known) => assert_eq!(*known, id),
                    None => {
                        assert!(!ever.contains(&id), "an id was given twice");
                        ever.push(id);
                        model.names.insert(name, id);
                        model.collections.insert(id, Collection::default());
                    }
                }
            }
            _ => {
                let ids: Vec<_> = ever.iter().rev().take(4).copied().collect();
                if ids.is_empty() {
                    continue;
                }
                let ops: Vec<_> = (0..1 + rng.below(3))
                    .map(|_| {
                        let id = ids[usize::try_from(rng.below(ids.len() as u64)).unwrap()];
                        random_op(&mut rng, id, now)
                    })
                    .collect();
                let expected = model.commit(&ops).map_err(|e| e.to_string());
                let found = stash.commit(ops.clone()).await;
                if let Err(e) = &found {
                    assert_eq!(e.outcome(), larder_traits::Outcome::NotApplied);
                }
                let found = found.map_err(|e| e.to_string());
                assert_eq!(found, expected, "seed {seed}, step {step}, {ops:?}");
            }
        }
        if step % 5 == 0 {
            compare(&place.stash(), &model, step).await;
        }
    }
    compare(&place.stash(), &model, steps).await;
    let mut names = place.stash().names().await.unwrap();
    names.sort();
    assert_eq!(names, model.names.into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn two_thousand_random_operations_agree_with_the_model() {
    for seed in 1..=4 {
        run(seed, 600).await;
    }
}

#[tokio::test]
async fn a_consolidation_touches_what_has_changed_and_heals_an_overflow() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig::new(folder.path().join("db"));
    let place = SqlitePlace::open(config).await.unwrap();
    let stash = place.stash();
    let id = stash.open("c").await.unwrap();
    let row = |key: &str, time, diff| RawRow {
        key: key.to_owned().into(),
        value: "v".into(),
        time,
        diff,
    };
    let update = |rows| StashOp::Update { id, rows };
    let to = |at| {
        let (upper, since) = (Antichain::from_elem(at), Antichain::from_elem(at));
        [
            StashOp::Seal { id, upper },
            StashOp::Compact { id, since },
            StashOp::Consolidate { id },
        ]
    };
    let many = (0..1000).map(|n| row(&format!("{n}"), 1, 1)).collect();
    stash.commit(vec![update(many)]).await.unwrap();
    stash.commit(to(2).to_vec()).await.unwrap();
    assert_eq!(place.held().await.unwrap().stash_rows, 1000);
    let few = (0..10).flat_map(|n| [row(&format!("{n}"), 3, 1), row(&format!("{n}"), 4, -2)]);
    stash.commit(vec![update(few.collect())]).await.unwrap();
    stash.commit(to(3).to_vec()).await.unwrap();
    assert_eq!(place.held().await.unwrap().stash_rows, 1010);
    stash.commit(to(4).to_vec()).await.unwrap();
    assert_eq!(place.held().await.unwrap().stash_rows, 990);

    let over = vec![row("o", 5, i64::MAX), row("o", 5, i64::MAX), row("o", 5, 1)];
    stash.commit(vec![update(over)]).await.unwrap();
    let refused = stash.commit(to(5).to_vec()).await;
    assert!(matches!(refused, Err(StashError::DiffOverflow)));
    let opposite = vec![row("o", 5, -i64::MAX)];
    stash.commit(vec![update(opposite)]).await.unwrap();
    let refused = stash.commit(to(5).to_vec()).await;
    assert!(matches!(refused, Err(StashError::DiffOverflow)));
    stash
        .commit(vec![update(vec![row("o", 5, -1)])])
        .await
        .unwrap();
    stash.commit(to(5).to_vec()).await.unwrap();
    let rows = stash.snapshot(id, Rows::Key(b"o")).await.unwrap().rows;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].diff, i64::MAX);
}

/// Many rows go into the file by one statement, and the rest one by one.
#[tokio::test]
async fn an_update_is_there_row_by_row_however_many_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig::new(folder.path().join("db"));
    let place = SqlitePlace::open(config).await.unwrap();
    let stash = place.stash();
    for count in [0, 1, 31, 32, 33, 63, 64, 65, 100] {
        let id = stash.open(&format!("{count} rows")).await.unwrap();
        // One in eleven adds nothing, and some are there twice.
        let mut rows: Vec<_> = (0..count)
            .map(|n| RawRow {
                key: format!("{}", n % 40).into(),
                value: format!("{}", n % 50).into(),
                time: n % 3,
                diff: n % 11,
            })
            .collect();
        let update = StashOp::Update {
            id,
            rows: rows.clone(),
        };
        stash.commit(vec![update]).await.unwrap();
        let mut found = stash.snapshot(id, Rows::All).await.unwrap().rows;
        rows.retain(|row| row.diff != 0);
        rows.sort();
        found.sort();
        assert_eq!(found, rows);
    }
}
