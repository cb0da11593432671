//! Holds `Stash` against the page it was taken from: an impl in that page's expanded form satisfies the trait, and so
//! does every kind of driver.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use larder_traits::frontier::{Antichain, AntichainRef};
use larder_traits::stash::{
    CollectionId, Data, Diff, Stash, StashCollection, StashDriver, StashError, Timestamp,
};

#[derive(Debug)]
struct Seed;

impl Stash for Seed {
    fn collection<'life0, 'life1, 'async_trait, K, V>(
        &'life0 mut self,
        _name: &'life1 str,
    ) -> Pin<
        Box<dyn Future<Output = Result<StashCollection<K, V>, StashError>> + Send + 'async_trait>,
    >
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(StashCollection::new(CollectionId::new(1))) })
    }

    fn iter<'life0, 'async_trait, K, V>(
        &'life0 mut self,
        _collection: StashCollection<K, V>,
    ) -> Pin<
        Box<
            dyn Future<Output = Result<Vec<((K, V), Timestamp, Diff)>, StashError>>
                + Send
                + 'async_trait,
        >,
    >
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn iter_key<'life0, 'life1, 'async_trait, K, V>(
        &'life0 mut self,
        _collection: StashCollection<K, V>,
        _key: &'life1 K,
    ) -> Pin<
        Box<
            dyn Future<Output = Result<Vec<(V, Timestamp, Diff)>, StashError>>
                + Send
                + 'async_trait,
        >,
    >
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn update_many<'life0, 'async_trait, K, V, I>(
        &'life0 mut self,
        _collection: StashCollection<K, V>,
        _entries: I,
    ) -> Pin<Box<dyn Future<Output = Result<(), StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        I: IntoIterator<Item = ((K, V), Timestamp, Diff)> + Send,
        I::IntoIter: Send,
        K: 'async_trait,
        V: 'async_trait,
        I: 'async_trait,
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }

    fn seal<'life0, 'life1, 'async_trait, K, V>(
        &'life0 mut self,
        _collection: StashCollection<K, V>,
        _upper: AntichainRef<'life1, Timestamp>,
    ) -> Pin<Box<dyn Future<Output = Result<(), StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }

    fn compact<'a, 'async_trait, K, V>(
        &'a mut self,
        _collection: StashCollection<K, V>,
        _since: AntichainRef<'a, Timestamp>,
    ) -> Pin<Box<dyn Future<Output = Result<(), StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        'a: 'async_trait,
        K: 'async_trait,
        V: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }

    fn consolidate<'a, 'async_trait, K, V>(
        &'a mut self,
        _collection: StashCollection<K, V>,
    ) -> Pin<Box<dyn Future<Output = Result<(), StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        'a: 'async_trait,
        K: 'async_trait,
        V: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }

    fn since<'life0, 'async_trait, K, V>(
        &'life0 mut self,
        _collection: StashCollection<K, V>,
    ) -> Pin<Box<dyn Future<Output = Result<Antichain<Timestamp>, StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(Antichain::from_elem(3)) })
    }

    fn upper<'life0, 'async_trait, K, V>(
        &'life0 mut self,
        _collection: StashCollection<K, V>,
    ) -> Pin<Box<dyn Future<Output = Result<Antichain<Timestamp>, StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(Antichain::new()) })
    }

    fn peek_timestamp<'life0, 'async_trait, K, V>(
        &'life0 mut self,
        _collection: StashCollection<K, V>,
    ) -> Pin<Box<dyn Future<Output = Result<Timestamp, StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(7) })
    }

    fn peek<'life0, 'async_trait, K, V>(
        &'life0 mut self,
        _collection: StashCollection<K, V>,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<(K, V, Diff)>, StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn peek_one<'life0, 'async_trait, K, V>(
        &'life0 mut self,
        _collection: StashCollection<K, V>,
    ) -> Pin<Box<dyn Future<Output = Result<BTreeMap<K, V>, StashError>> + Send + 'async_trait>>
    where
        K: Data + Hash,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(BTreeMap::new()) })
    }

    fn peek_key_one<'life0, 'life1, 'async_trait, K, V>(
        &'life0 mut self,
        _collection: StashCollection<K, V>,
        _key: &'life1 K,
    ) -> Pin<Box<dyn Future<Output = Result<Option<V>, StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(None) })
    }

    fn update<'life0, 'async_trait, K, V>(
        &'life0 mut self,
        _collection: StashCollection<K, V>,
        _data: (K, V),
        _time: Timestamp,
        _diff: Diff,
    ) -> Pin<Box<dyn Future<Output = Result<(), StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }

    fn seal_batch<'life0, 'life1, 'async_trait, K, V>(
        &'life0 mut self,
        _seals: &'life1 [(StashCollection<K, V>, Antichain<Timestamp>)],
    ) -> Pin<Box<dyn Future<Output = Result<(), StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }

    fn compact_batch<'life0, 'life1, 'async_trait, K, V>(
        &'life0 mut self,
        _compactions: &'life1 [(StashCollection<K, V>, Antichain<Timestamp>)],
    ) -> Pin<Box<dyn Future<Output = Result<(), StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }

    fn consolidate_batch<'life0, 'life1, 'async_trait, K, V>(
        &'life0 mut self,
        _collections: &'life1 [StashCollection<K, V>],
    ) -> Pin<Box<dyn Future<Output = Result<(), StashError>> + Send + 'async_trait>>
    where
        K: Data,
        V: Data,
        K: 'async_trait,
        V: 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }
}

fn run<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a future of this test waited"),
    }
}

/// Calls every method with the arguments of the page and binds what it returns to the type on the page.
async fn call_everything<S: Stash>(stash: &mut S) -> Result<(), StashError> {
    let c: StashCollection<String, u64> = stash.collection("name").await?;
    let key = String::from("key");
    let frontier = Antichain::from_elem(5);
    let _: Vec<((String, u64), Timestamp, Diff)> = stash.iter(c).await?;
    let _: Vec<(u64, Timestamp, Diff)> = stash.iter_key(c, &key).await?;
    let () = stash.update_many(c, vec![((key.clone(), 1), 5, 1)]).await?;
    let () = stash.update_many(c, std::iter::empty()).await?;
    let () = stash.seal(c, frontier.borrow()).await?;
    let () = stash.compact(c, frontier.borrow()).await?;
    let () = stash.consolidate(c).await?;
    let _: Antichain<Timestamp> = stash.since(c).await?;
    let _: Antichain<Timestamp> = stash.upper(c).await?;
    let _: Timestamp = stash.peek_timestamp(c).await?;
    let _: Vec<(String, u64, Diff)> = stash.peek(c).await?;
    let _: BTreeMap<String, u64> = stash.peek_one(c).await?;
    let _: Option<u64> = stash.peek_key_one(c, &key).await?;
    let () = stash.update(c, (key, 1), 5, 1).await?;
    let () = stash.seal_batch(&[(c, frontier.clone())]).await?;
    let () = stash.compact_batch(&[(c, frontier)]).await?;
    let () = stash.consolidate_batch(&[c]).await?;
    Ok(())
}

#[test]
fn the_expanded_form_is_an_impl() {
    run(call_everything(&mut Seed)).unwrap();
}

#[test]
fn the_futures_may_travel() {
    fn travels<T: Send>(value: T) -> T {
        value
    }
    run(travels(call_everything(&mut Seed))).unwrap();
    let c: StashCollection<String, u64> = run(travels(Seed.collection("name"))).unwrap();
    // An iterator that is `Send` and not `Sync` is enough.
    let entries = std::cell::Cell::new(None).into_inner().into_iter();
    run(travels(Seed.update_many(c, entries))).unwrap();
}

/// The methods have the type that the page gives them, late and early lifetimes included.
#[test]
fn the_methods_are_values_of_the_published_types() {
    type Answer<'f, T> = Pin<Box<dyn Future<Output = Result<T, StashError>> + Send + 'f>>;
    type Iter = for<'s> fn(
        &'s mut Seed,
        StashCollection<u8, u8>,
    ) -> Answer<'s, Vec<((u8, u8), Timestamp, Diff)>>;
    type Compact = for<'a> fn(
        &'a mut Seed,
        StashCollection<u8, u8>,
        AntichainRef<'a, Timestamp>,
    ) -> Answer<'a, ()>;
    let iter: Iter = |stash, c| Stash::iter(stash, c);
    let compact: Compact = |stash, c, since| Stash::compact(stash, c, since);
    let c = StashCollection::new(CollectionId::new(1));
    assert_eq!(run(iter(&mut Seed, c)).unwrap(), []);
    run(compact(&mut Seed, c, AntichainRef::new())).unwrap();
}

#[test]
fn drivers_of_every_kind_are_stashes() {
    fn is_a_stash<S: Stash + ?Sized>() {}
    is_a_stash::<dyn StashDriver>();
    is_a_stash::<Box<dyn StashDriver>>();
    is_a_stash::<Arc<dyn StashDriver>>();
    is_a_stash::<&dyn StashDriver>();
    is_a_stash::<Arc<Box<dyn StashDriver>>>();
}
