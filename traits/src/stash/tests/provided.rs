//! The provided methods, over an implementor of nothing but the required ones.

use std::ops::Range;

use super::*;

/// Implements the required methods alone. In front of the reads with these numbers, another handle writes, seals,
/// compacts and consolidates.
#[derive(Debug)]
pub(super) struct Plain {
    driver: Arc<Tiny>,
    meddled_reads: Range<u32>,
    reads: u32,
    c: Words,
    fail_consolidate_of: Option<CollectionId>,
}

impl Plain {
    fn new(meddled_reads: Range<u32>) -> Self {
        let driver = Arc::new(Tiny::default());
        let c = open(&mut &*driver);
        let plain = Self {
            driver,
            meddled_reads,
            reads: 0,
            c,
            fail_consolidate_of: None,
        };
        plain.step();
        plain
    }

    /// Nobody meddles.
    pub(super) fn over(driver: Arc<Tiny>) -> Self {
        Self {
            driver,
            ..Self::new(0..0)
        }
    }

    /// The value goes from `n - 1` to `n` at the time `10 n`, and nothing before that time stays readable.
    fn step(&self) {
        let mut driver = &*self.driver;
        let n = match run(driver.upper(self.c)).unwrap().into_option() {
            Some(i64::MIN) => 0,
            upper => upper.unwrap() / 10 + 1,
        };
        let mut rows = vec![word("a", n, 10 * n, 1)];
        if n > 0 {
            rows.push(word("a", n - 1, 10 * n, -1));
        }
        let mut append = Append::new();
        append
            .collection(self.c)
            .update(rows)
            .unwrap()
            .seal(at(10 * n + 1))
            .compact(at(10 * n));
        run(driver.append(append)).unwrap();
        run(driver.consolidate(self.c)).unwrap();
    }

    fn meddle(&mut self) {
        if self.meddled_reads.contains(&self.reads) {
            self.step();
        }
        self.reads += 1;
    }
}

#[async_trait]
impl Stash for Plain {
    async fn collection<K: Data, V: Data>(
        &mut self,
        name: &str,
    ) -> Result<StashCollection<K, V>, StashError> {
        self.driver.collection(name).await
    }

    async fn iter<K: Data, V: Data>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Vec<((K, V), Timestamp, Diff)>, StashError> {
        self.meddle();
        self.driver.iter(collection).await
    }

    async fn iter_key<K: Data, V: Data>(
        &mut self,
        collection: StashCollection<K, V>,
        key: &K,
    ) -> Result<Vec<(V, Timestamp, Diff)>, StashError> {
        self.meddle();
        self.driver.iter_key(collection, key).await
    }

    async fn update_many<K: Data, V: Data, I>(
        &mut self,
        collection: StashCollection<K, V>,
        entries: I,
    ) -> Result<(), StashError>
    where
        I: IntoIterator<Item = ((K, V), Timestamp, Diff)> + Send,
        I::IntoIter: Send,
    {
        self.driver.update_many(collection, entries).await
    }

    async fn seal<K: Data, V: Data>(
        &mut self,
        collection: StashCollection<K, V>,
        upper: AntichainRef<'_, Timestamp>,
    ) -> Result<(), StashError> {
        self.driver.seal(collection, upper).await
    }

    async fn compact<'a, K: Data, V: Data>(
        &'a mut self,
        collection: StashCollection<K, V>,
        since: AntichainRef<'a, Timestamp>,
    ) -> Result<(), StashError> {
        self.driver.compact(collection, since).await
    }

    async fn consolidate<'a, K: Data, V: Data>(
        &'a mut self,
        collection: StashCollection<K, V>,
    ) -> Result<(), StashError> {
        if self.fail_consolidate_of == Some(collection.id()) {
            return Err(Fault::not_applied(ErrorKind::NoSpace, "full").into());
        }
        self.driver.consolidate(collection).await
    }

    async fn since<K: Data, V: Data>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Antichain<Timestamp>, StashError> {
        self.meddle();
        self.driver.since(collection).await
    }

    async fn upper<K: Data, V: Data>(
        &mut self,
        collection: StashCollection<K, V>,
    ) -> Result<Antichain<Timestamp>, StashError> {
        self.meddle();
        self.driver.upper(collection).await
    }
}

#[test]
fn provided_peeks_are_snapshots_while_others_compact() {
    for (from, reads) in (0..12).flat_map(|from| (0..12).map(move |reads| (from, reads))) {
        let meddled = from..from + reads;
        let mut stash = Plain::new(meddled.clone());
        let c = stash.c;
        let rows = run(stash.peek(c)).unwrap();
        assert!(
            matches!(rows[..], [(_, _, 1)]),
            "meddled in {meddled:?}: {rows:?}"
        );
        let mut stash = Plain::new(meddled.clone());
        let value = run(stash.peek_key_one(c, &"a".to_owned())).unwrap();
        assert!(value.is_some(), "meddled in {meddled:?}");
        let mut stash = Plain::new(meddled);
        assert_eq!(run(stash.peek_one(c)).unwrap().len(), 1);
    }
}

#[test]
fn provided_peeks_give_up_in_the_end() {
    let mut stash = Plain::new(0..u32::MAX);
    let c = stash.c;
    for e in [
        run(stash.peek(c)).map(drop).unwrap_err(),
        run(stash.peek_key_one(c, &"a".to_owned()))
            .map(drop)
            .unwrap_err(),
        run(stash.peek_timestamp(c)).map(drop).unwrap_err(),
    ] {
        assert_eq!(
            (e.kind(), e.outcome()),
            (ErrorKind::Unavailable, Outcome::NotApplied)
        );
    }
}

#[test]
fn a_provided_batch_that_fails_after_a_prefix_claims_nothing() {
    let mut stash = Plain::new(0..0);
    let [first, second]: [Words; 2] =
        ["first", "second"].map(|name| run(stash.collection(name)).unwrap());
    let seals = [(first, at(5)), (second, at(6)), (second, at(4))];
    let e = run(stash.seal_batch(&seals)).unwrap_err();
    assert_eq!(
        (e.kind(), e.outcome()),
        (ErrorKind::InvalidInput, Outcome::Unknown)
    );
    assert_eq!(run(stash.upper(first)).unwrap(), at(5));
    assert_eq!(run(stash.upper(second)).unwrap(), at(6));
    let e = run(stash.seal_batch(&seals[2..])).unwrap_err();
    assert!(matches!(e, StashError::SealBeforeUpper { .. }));
    run(stash.compact_batch(&[(first, at(4)), (second, at(5)), (first, at(5))])).unwrap();
    assert_eq!(run(stash.since(first)).unwrap(), at(5));

    stash.fail_consolidate_of = Some(second.id());
    assert_eq!(
        run(stash.consolidate_batch(&[second, first]))
            .unwrap_err()
            .outcome(),
        Outcome::NotApplied
    );
    let e = run(stash.consolidate_batch(&[first, second])).unwrap_err();
    assert_eq!(
        (e.kind(), e.outcome()),
        (ErrorKind::NoSpace, Outcome::Unknown)
    );
    run(stash.consolidate_batch::<String, i64>(&[])).unwrap();
}
