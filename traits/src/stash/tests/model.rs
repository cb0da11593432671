//! Random histories: the driver-based reads and the provided ones against a model of a few lines.

use proptest::prelude::*;

use super::provided::Plain;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Update(u8, i16, Timestamp, Diff),
    Seal(Option<Timestamp>),
    Compact(Option<Timestamp>),
    Consolidate,
}

fn step() -> impl Strategy<Value = Step> {
    let frontier = || proptest::option::weighted(0.97, 0..30_i64);
    prop_oneof![
        6 => (0..4_u8, -1..2_i16, 0..30_i64, -2..3_i64).prop_map(|(k, v, t, d)| Step::Update(k, v, t, d)),
        2 => frontier().prop_map(Step::Seal),
        2 => frontier().prop_map(Step::Compact),
        1 => Just(Step::Consolidate),
    ]
}

type Row = ((Reverse<u8>, i16), Timestamp);

/// Every update ever accepted, and the frontiers with the empty one as a number past all others.
#[derive(Default)]
struct Model {
    updates: Vec<(Row, Diff)>,
    since: i128,
    upper: i128,
}

fn number(frontier: Option<Timestamp>) -> i128 {
    frontier.map_or(i128::MAX, i128::from)
}

impl Model {
    fn sums<T: Ord>(&self, row: impl Fn(&Row) -> Option<T>) -> Vec<(T, Diff)> {
        let mut sums = BTreeMap::new();
        for (data, diff) in &self.updates {
            if let Some(row) = row(data) {
                *sums.entry(row).or_insert(0) += diff;
            }
        }
        sums.into_iter().filter(|(_, diff)| *diff != 0).collect()
    }

    fn advanced(&self, time: Timestamp) -> Timestamp {
        time.max(Timestamp::try_from(self.since).unwrap())
    }
}

proptest! {
    #[test]
    fn reads_are_what_the_model_says(steps in proptest::collection::vec(step(), 1..60)) {
        let driver = Arc::new(Tiny::default());
        let mut stash = Arc::clone(&driver);
        let c: StashCollection<Reverse<u8>, i16> = open(&mut stash);
        let mut plain = Plain::over(driver);
        let low = i128::from(i64::MIN);
        let mut model = Model { since: low, upper: low, ..Model::default() };
        for step in steps {
            let (done, allowed) = match step {
                Step::Update(k, v, t, d) => {
                    let allowed = i128::from(t) >= model.upper;
                    if allowed {
                        model.updates.push((((Reverse(k), v), t), d));
                    }
                    (run(stash.update(c, (Reverse(k), v), t, d)), allowed)
                }
                Step::Seal(to) => {
                    let allowed = number(to) >= model.upper;
                    if allowed {
                        model.upper = number(to);
                    }
                    (run(stash.seal(c, Antichain::from(to).borrow())), allowed)
                }
                Step::Compact(to) => {
                    let allowed = model.since <= number(to) && number(to) <= model.upper;
                    if allowed {
                        model.since = number(to);
                    }
                    (run(stash.compact(c, Antichain::from(to).borrow())), allowed)
                }
                Step::Consolidate => (run(stash.consolidate(c)), true),
            };
            prop_assert_eq!(done.is_ok(), allowed);
            compare(&mut stash, &mut plain, c, &model)?;
        }
    }
}

fn compare(
    stash: &mut Arc<Tiny>,
    plain: &mut Plain,
    c: StashCollection<Reverse<u8>, i16>,
    model: &Model,
) -> Result<(), TestCaseError> {
    if model.since == i128::MAX {
        prop_assert!(matches!(run(stash.iter(c)), Err(StashError::SinceEmpty)));
    } else {
        let all = model.sums(|(kv, t)| Some((*kv, model.advanced(*t))));
        let all: Vec<_> = all.into_iter().map(|((kv, t), d)| (kv, t, d)).collect();
        prop_assert_eq!(run(stash.iter(c)).unwrap(), all);
        let one = model.sums(|((k, v), t)| (k.0 == 1).then(|| (*v, model.advanced(*t))));
        let one: Vec<_> = one.into_iter().map(|((v, t), d)| (v, t, d)).collect();
        prop_assert_eq!(run(stash.iter_key(c, &Reverse(1))).unwrap(), one);
    }
    if model.since >= model.upper {
        prop_assert!(nothing_sealed(run(stash.peek(c))));
        prop_assert!(nothing_sealed(run(plain.peek(c))));
        return Ok(());
    }
    let sealed = model.sums(|(kv, t)| (i128::from(*t) < model.upper).then_some(*kv));
    let sealed: Vec<_> = sealed.into_iter().map(|((k, v), d)| (k, v, d)).collect();
    prop_assert_eq!(&run(stash.peek(c)).unwrap(), &sealed);
    prop_assert_eq!(&run(plain.peek(c)).unwrap(), &sealed);
    prop_assert_eq!(run(stash.peek_one(c)).ok(), run(plain.peek_one(c)).ok());
    for k in 0..4 {
        let key = Reverse(k);
        prop_assert_eq!(
            run(stash.peek_key_one(c, &key)).ok(),
            run(plain.peek_key_one(c, &key)).ok()
        );
    }
    Ok(())
}

fn nothing_sealed<T>(answer: Result<T, StashError>) -> bool {
    matches!(answer, Err(StashError::NothingSealed { .. }))
}
