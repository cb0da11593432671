//! SQLite: our stores on one file, against the same statements written by hand on the same library with the same
//! pragmas, and against two embedded key-value stores.
//!
//! Everybody commits durably: what is acknowledged has been synced. The hand-written side has the tables that the work
//! calls for and nothing else: no checksums, no frontiers, no marks of commits, no other thread.

mod by_hand;
mod peers;

use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use larder_sqlite::{SqliteConfig, SqlitePlace, SqliteStash};
use larder_traits::frontier::Antichain;
use larder_traits::{
    HighVolumeBackend, KvClient, Metadata, ObjectContext, ObjectId, Stash, StashCollection,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::harness::{Bench, Contender, Figure, OURS, Ratio, Result, Sample, Unit, Work, median};
use by_hand::{ByHand, OnThread};
use peers::{Fjall, Redb};

const BY_HAND: &str = "rusqlite by hand";
const ON_THREAD: &str = "rusqlite on a thread of its own";
const ONE_BY_ONE: &str = "rusqlite, a commit each";
const IN_ONE: &str = "rusqlite, 64 to a commit";
const REDB: &str = "redb";
const FJALL: &str = "fjall";

/// How many callers there are where there are many.
const CALLERS: usize = 64;

pub(crate) fn run(bench: &mut Bench) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()?;
    let it = &runtime;
    stash_update(bench, it)?;
    stash_update_many(bench, it)?;
    stash_iter(bench, it)?;
    stash_iter_key(bench, it)?;
    stash_consolidate(bench, it)?;
    kv_put(bench, it)?;
    kv_get(bench, it)?;
    put_non_tombstone(bench, it)?;
    note(bench);
    Ok(())
}

/// What a reader has to know who compares the sides.
fn note(bench: &mut Bench) {
    bench.note(
        "By hand: one connection, prepared statements, no checksums, no frontiers, no order in what is read. Each call of \
         ours goes to a thread that may block on the disk and comes back, which is most of a short one: the rows against \
         a thread of its own show by how much.",
    );
    bench.note(
        "64 to a commit is what sharing commits can come to at best: one caller has all the objects, and nobody waits \
         for an answer.",
    );
    bench.note(
        "redb commits with Durability::Immediate, one transaction at a time; fjall inserts and persists with SyncData. \
         Both read on the caller's thread and block it where the disk is slow.",
    );
}

type Names = StashCollection<String, String>;

fn key(n: usize) -> String {
    format!("key {n:08}")
}

fn value(n: usize) -> String {
    format!("value {n:08} {}", "v".repeat(80))
}

fn rows(from: usize, count: usize, time: i64) -> Vec<((String, String), i64, i64)> {
    (from..from + count)
        .map(|n| ((key(n), value(n)), time, 1))
        .collect()
}

/// One of our files in a folder of its own, and its stash.
struct Ours {
    place: SqlitePlace,
    stash: SqliteStash,
    collection: Names,
    _folder: TempDir,
}

impl Ours {
    fn new(disk: &TempDir, it: &Runtime) -> Result<Self> {
        let folder = tempfile::tempdir_in(disk.path())?;
        let config = SqliteConfig::new(folder.path().join("db"));
        let place = it.block_on(SqlitePlace::open(config))?;
        let mut stash = place.stash();
        let collection = it.block_on(stash.collection("c"))?;
        Ok(Self {
            place,
            stash,
            collection,
            _folder: folder,
        })
    }

    fn with_rows(disk: &TempDir, it: &Runtime, count: usize) -> Result<Self> {
        let mut ours = Self::new(disk, it)?;
        it.block_on(ours.stash.update_many(ours.collection, rows(0, count, 1)))?;
        Ok(ours)
    }
}

fn stash_update(bench: &mut Bench, it: &Runtime) -> Result {
    let count = bench.either(200, 30);
    let disk = bench.scratch()?;
    let mut ours = Ours::new(&disk, it)?;
    let hand = ByHand::new(&disk)?;
    let on_thread = OnThread::new(&disk)?;
    let work = Work::new("stash update of one row", Unit::PerSecond)
        .with_cpu()
        .rounds(21)
        .goal(BY_HAND, 0.9);
    let (mut n, mut m, mut t) = (0, 0, 0);
    let ours = Contender::new(OURS, |_round| {
        Sample::of(count, || {
            it.block_on(async {
                for _ in 0..count {
                    n += 1;
                    let row = (key(n), value(n));
                    ours.stash.update(ours.collection, row, 1, 1).await?;
                }
                Ok(())
            })
        })
    });
    let hand = Contender::new(BY_HAND, |_round| {
        Sample::of(count, || {
            for _ in 0..count {
                m += 1;
                hand.update(&key(m), &value(m), 1, 1)?;
            }
            Ok(())
        })
    });
    let on_thread = Contender::new(ON_THREAD, |_round| {
        Sample::of(count, || {
            it.block_on(async {
                for _ in 0..count {
                    t += 1;
                    on_thread.update(key(t), value(t)).await?;
                }
                Ok(())
            })
        })
    });
    bench.compare(&work, vec![ours, hand, on_thread])?;
    Ok(())
}

fn stash_update_many(bench: &mut Bench, it: &Runtime) -> Result {
    const ROWS: usize = 10_000;
    let disk = bench.scratch()?;
    let work = Work::new("stash update_many, 10,000 rows", Unit::PerSecond)
        .with_cpu()
        .rounds(31)
        .goal(BY_HAND, 0.7);
    // A file of its own for each round, so that no side works on a larger table than the other.
    let ours = Contender::new(OURS, |_round| {
        let mut ours = Ours::new(&disk, it)?;
        let rows = rows(0, ROWS, 1);
        Sample::of(ROWS, || {
            Ok(it.block_on(ours.stash.update_many(ours.collection, rows))?)
        })
    });
    let hand = Contender::new(BY_HAND, |_round| {
        let mut hand = ByHand::new(&disk)?;
        let rows = rows(0, ROWS, 1);
        Sample::of(ROWS, || hand.update_many(&rows))
    });
    bench.compare(&work, vec![ours, hand])?;
    Ok(())
}

fn stash_iter(bench: &mut Bench, it: &Runtime) -> Result {
    let count = bench.either(100_000, 10_000);
    let disk = bench.scratch()?;
    let mut ours = Ours::with_rows(&disk, it, count)?;
    let mut hand = ByHand::new(&disk)?;
    hand.update_many(&rows(0, count, 1))?;
    let name = format!("stash iter, {count} rows");
    let work = Work::new(name, Unit::PerSecond)
        .with_cpu()
        .rounds(31)
        .goal(BY_HAND, 0.7);
    let ours = Contender::new(OURS, |_round| {
        Sample::of(count, || {
            let found = it.block_on(ours.stash.iter(ours.collection))?;
            expect(found.len(), count)
        })
    });
    let hand = Contender::new(BY_HAND, |_round| {
        Sample::of(count, || expect(hand.iter()?.len(), count))
    });
    bench.compare(&work, vec![ours, hand])?;
    Ok(())
}

/// What was measured has to have taken place.
fn expect(found: usize, expected: usize) -> Result {
    if found == expected {
        return Ok(());
    }
    Err(format!("{found} found, and {expected} were there").into())
}

fn stash_iter_key(bench: &mut Bench, it: &Runtime) -> Result {
    const SMALL: &str = "a collection of a hundredth";
    let (count, few) = (bench.either(100_000, 20_000), bench.either(1_000, 200));
    let calls = bench.either(1_000, 200);
    let disk = bench.scratch()?;
    let mut large = Ours::with_rows(&disk, it, count)?;
    let mut small = Ours::with_rows(&disk, it, few)?;
    let name = format!("stash iter_key among {count} rows");
    // 1.5 times the time is a ratio of two thirds.
    let work = Work::new(name, Unit::MicrosecondsEach).goal(SMALL, 1.0 / 1.5);
    let mut turn = |ours: &mut Ours, count: usize| {
        Sample::of(calls, || {
            it.block_on(async {
                for n in 0..calls {
                    let key = key(n * 7919 % count);
                    let found = ours.stash.iter_key(ours.collection, &key).await?;
                    expect(found.len(), 1)?;
                }
                Ok(())
            })
        })
    };
    let turn = &std::cell::RefCell::new(&mut turn);
    let large = Contender::new(OURS, |_round| (turn.borrow_mut())(&mut large, count));
    let small = Contender::new(SMALL, |_round| (turn.borrow_mut())(&mut small, few));
    bench.compare(&work, vec![large, small])?;
    Ok(())
}

fn stash_consolidate(bench: &mut Bench, it: &Runtime) -> Result {
    const FIRST: &str = "the first one, of all rows";
    let count = bench.either(100_000, 20_000);
    let changed = bench.either(100, 20);
    let rounds = bench.either(15, 3);
    let disk = bench.scratch()?;
    let name = format!("stash consolidate, {changed} changed keys of {count}");
    let step = async |ours: &mut Ours, now: i64| -> Result<Duration> {
        let to = Antichain::from_elem(now);
        ours.stash.seal(ours.collection, to.borrow()).await?;
        ours.stash.compact(ours.collection, to.borrow()).await?;
        let begun = std::time::Instant::now();
        ours.stash.consolidate(ours.collection).await?;
        Ok(begun.elapsed())
    };
    let (mut ratios, mut firsts, mut laters) = (Vec::new(), Vec::new(), Vec::new());
    crate::harness::complain(&format!("{name} ..."));
    for _ in 0..rounds {
        let mut ours = Ours::with_rows(&disk, it, count)?;
        let first = it.block_on(step(&mut ours, 2))?;
        let more = rows(count / 2, changed, 2);
        it.block_on(ours.stash.update_many(ours.collection, more))?;
        let later = it.block_on(step(&mut ours, 3))?;
        ratios.push(first.as_secs_f64() / later.as_secs_f64());
        firsts.push(first.as_secs_f64() * 1e3);
        laters.push(later.as_secs_f64() * 1e3);
    }
    bench.figure(Figure::new(&name, OURS, median(&laters), "ms"));
    bench.figure(Figure::new(&name, FIRST, median(&firsts), "ms"));
    // 0.02 of the time is a ratio of 50.
    bench.ratio(Ratio::of(&name, FIRST, ratios, Some(50.0)));
    Ok(())
}

/// 64 callers that put at the same time, each `each` times.
fn put_at_once(it: &Runtime, ours: &Ours, keys: &Range<usize>) -> Result {
    it.block_on(async {
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let kv = ours.place.kv_client();
            let keys = keys.clone().skip(caller).step_by(CALLERS);
            callers.spawn(async move {
                for n in keys {
                    kv.put(key(n), peers::value(n)).await?;
                }
                Ok::<_, larder_traits::KvClientError>(())
            });
        }
        while let Some(ended) = callers.join_next().await {
            ended??;
        }
        Ok(())
    })
}

fn kv_put(bench: &mut Bench, it: &Runtime) -> Result {
    // Everybody for about as long: whoever shares syncs gets more to do.
    let (many, few) = (bench.either(6_400, 1_280), bench.either(128, 64));
    let disk = bench.scratch()?;
    let ours = Ours::new(&disk, it)?;
    let hand = ByHand::new(&disk)?;
    let redb = Redb::new(&disk)?;
    let fjall = Fjall::new(&disk)?;
    let name = format!("kv put of 256 B, {CALLERS} concurrent");
    let work = Work::new(name, Unit::PerSecond)
        .with_cpu()
        .goal(ONE_BY_ONE, 10.0)
        .goal(REDB, 1.0)
        .goal(FJALL, 1.0);
    let next = |from: &mut usize, count: usize| {
        *from += count;
        *from - count..*from
    };
    let mut at = [0; 4];
    let [a, b, c, d] = &mut at;
    let contenders = vec![
        Contender::new(OURS, |_round| {
            let keys = next(a, many);
            Sample::of(many, || put_at_once(it, &ours, &keys))
        }),
        Contender::new(ONE_BY_ONE, |_round| {
            let keys = next(b, few);
            Sample::of(few, || {
                for n in keys {
                    hand.put(&key(n), &peers::value(n))?;
                }
                Ok(())
            })
        }),
        Contender::new(REDB, |_round| {
            let keys = next(c, few);
            Sample::of(few, || {
                at_once(CALLERS, keys, |n| redb.put(&key(n), &peers::value(n)))
            })
        }),
        Contender::new(FJALL, |_round| {
            let keys = next(d, few);
            Sample::of(few, || {
                at_once(CALLERS, keys, |n| fjall.put(&key(n), &peers::value(n)))
            })
        }),
    ];
    bench.compare(&work, contenders)?;
    Ok(())
}

/// Deals the numbers out to threads.
fn at_once(threads: usize, numbers: Range<usize>, work: impl Fn(usize) -> Result + Sync) -> Result {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let mine = numbers.clone().skip(thread).step_by(threads);
                scope.spawn(move || mine.into_iter().try_for_each(work))
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_panic| "a thread panicked")??;
        }
        Ok(())
    })
}

/// A number that looks random and is the same for everybody.
fn scattered(n: usize, below: usize) -> usize {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % below
}

fn kv_get(bench: &mut Bench, it: &Runtime) -> Result {
    const THREADS: usize = 4;
    let (count, gets) = (bench.either(100_000, 20_000), bench.either(40_000, 8_000));
    let disk = bench.scratch()?;
    let ours = Ours::new(&disk, it)?;
    put_at_once(it, &ours, &(0..count))?;
    let redb = Redb::new(&disk)?;
    redb.put_all(0..count)?;
    let fjall = Fjall::new(&disk)?;
    fjall.put_all(0..count)?;
    let mut hand = ByHand::new(&disk)?;
    hand.put_all((0..count).map(|n| (key(n), peers::value(n))))?;
    let four = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .build()?;
    let name = format!("kv get of 256 B, {THREADS} threads, {count} keys");
    let work = Work::new(name, Unit::PerSecond)
        .with_cpu()
        .goal(REDB, 1.0 / 3.0)
        .goal(FJALL, 1.0 / 3.0);
    let contenders = vec![
        Contender::new(OURS, |_round| {
            Sample::of(gets, || {
                four.block_on(async {
                    let mut readers = JoinSet::new();
                    for reader in 0..THREADS {
                        let kv = ours.place.kv_client();
                        readers.spawn(async move {
                            for n in (reader..gets).step_by(THREADS) {
                                let n = scattered(n, count);
                                let found = kv.get(key(n)).await?;
                                expect(found.map_or(0, |it| it.len()), peers::VALUE_LEN)?;
                            }
                            Result::Ok(())
                        });
                    }
                    while let Some(ended) = readers.join_next().await {
                        ended??;
                    }
                    Ok(())
                })
            })
        }),
        Contender::new(REDB, |_round| {
            Sample::of(gets, || {
                at_once(THREADS, 0..gets, |n| {
                    let found = redb.get(&key(scattered(n, count)))?;
                    expect(found.map_or(0, |it| it.len()), peers::VALUE_LEN)
                })
            })
        }),
        Contender::new(FJALL, |_round| {
            Sample::of(gets, || {
                at_once(THREADS, 0..gets, |n| {
                    let found = fjall.get(&key(scattered(n, count)))?;
                    expect(found.map_or(0, |it| it.len()), peers::VALUE_LEN)
                })
            })
        }),
        Contender::new(BY_HAND, |_round| {
            let readers = (0..THREADS).map(|_| hand.reader().map(Mutex::new));
            let readers: Vec<_> = readers.collect::<Result<_>>()?;
            Sample::of(gets, || {
                // The numbers are dealt out as they are to threads, so each reader has one thread.
                at_once(THREADS, 0..gets, |n| {
                    let reader = readers[n % THREADS]
                        .lock()
                        .map_err(|_poison| "a thread panicked")?;
                    let found = reader.get(&key(scattered(n, count)))?;
                    expect(found.map_or(0, |it| it.len()), peers::VALUE_LEN)
                })
            })
        }),
    ];
    bench.compare(&work, contenders)?;
    Ok(())
}

fn put_non_tombstone(bench: &mut Bench, it: &Runtime) -> Result {
    const PAYLOAD: &[u8] = &[0x5A; 4096];
    let (many, few) = (bench.either(3_200, 640), bench.either(128, 64));
    let disk = bench.scratch()?;
    let ours = Ours::new(&disk, it)?;
    let hand = ByHand::new(&disk)?;
    let mut in_one = ByHand::new(&disk)?;
    let name = format!("put_non_tombstone of 4 KiB, {CALLERS} concurrent");
    let work = Work::new(name, Unit::PerSecond)
        .with_cpu()
        .goal(ONE_BY_ONE, 10.0);
    let (mut n, mut m, mut o) = (0, 0, 0);
    let ours = Contender::new(OURS, |_round| {
        n += many;
        let ids = n - many..n;
        Sample::of(many, || {
            it.block_on(async {
                let mut callers = JoinSet::new();
                for caller in 0..CALLERS {
                    let store = ours.place.high_volume();
                    let ids = ids.clone().skip(caller).step_by(CALLERS);
                    callers.spawn(async move {
                        let metadata = Metadata::new();
                        for n in ids {
                            let id = ObjectId::new(ObjectContext::new("bench", Vec::new()), key(n));
                            let put = store.put_non_tombstone(&id, &metadata, PAYLOAD.into());
                            expect(usize::from(put.await?.is_some()), 0)?;
                        }
                        Result::Ok(())
                    });
                }
                while let Some(ended) = callers.join_next().await {
                    ended??;
                }
                Ok(())
            })
        })
    });
    let hand = Contender::new(ONE_BY_ONE, |_round| {
        m += few;
        Sample::of(few, || {
            for n in m - few..m {
                hand.put_object(&key(n), PAYLOAD)?;
            }
            Ok(())
        })
    });
    let in_one = Contender::new(IN_ONE, |_round| {
        o += many;
        let ids: Vec<String> = (o - many..o).map(key).collect();
        Sample::of(many, || {
            ids.chunks(CALLERS)
                .try_for_each(|ids| in_one.put_objects(ids, PAYLOAD))
        })
    });
    bench.compare(&work, vec![ours, hand, in_one])?;
    Ok(())
}
