//! Stores that are odd and right. A check that fails on one of them asks for more than the clauses do.

mod bare;
mod odd;
mod seldom;
mod strange;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use larder_conformance::{Caps, Contract, Suite};
use larder_traits::{
    BackendError, BlobMultiCaps, BlobStoreCaps, Change, ErrorKind, Fault, HighVolumeCaps, KvCaps,
    LateLanding, StashCaps,
};

use tokio::sync::Semaphore;

use crate::reference::group::as_one;
use crate::reference::medium::Trouble;
use crate::reference::{
    Due, Pace, blob_multi, blob_store, change_log, gap, high_volume, kv_client, lock, stash,
};

/// A store that is odd and right.
pub(crate) struct Benign {
    pub(crate) id: &'static str,
    pub(crate) contract: Contract,
    pub(crate) suite: Box<dyn Fn() -> Suite + Send + Sync>,
}

fn benign(
    id: &'static str,
    contract: Contract,
    suite: impl Fn() -> Suite + Send + Sync + 'static,
) -> Benign {
    Benign {
        id,
        contract,
        suite: Box::new(suite),
    }
}

fn bm(id: &'static str, caps: Caps, bend: blob_multi::Bend) -> Benign {
    benign(id, Contract::BlobMulti, move || {
        blob_multi::suite(caps, bend)
    })
}

fn st(id: &'static str, caps: Caps, bend: stash::Bend) -> Benign {
    benign(id, Contract::Stash, move || stash::suite(caps, bend))
}

fn bs(id: &'static str, caps: Caps, bend: blob_store::Bend) -> Benign {
    benign(id, Contract::BlobStore, move || {
        blob_store::suite(caps, bend)
    })
}

fn kv(id: &'static str, caps: Caps, bend: kv_client::Bend) -> Benign {
    benign(id, Contract::KvClient, move || kv_client::suite(caps, bend))
}

fn cl(id: &'static str, caps: Caps, bend: change_log::Bend) -> Benign {
    benign(id, Contract::ChangeLog, move || {
        change_log::suite(caps, bend)
    })
}

fn hv(id: &'static str, caps: Caps, bend: high_volume::Bend) -> Benign {
    benign(id, Contract::HighVolume, move || {
        high_volume::suite(caps, bend)
    })
}

fn bk(id: &'static str, caps: Caps, bend: high_volume::Bend) -> Benign {
    benign(id, Contract::Backend, move || {
        high_volume::plain_suite(caps, bend)
    })
}

/// With calls that were dropped or failed landing late, within the bound if there is one.
const fn may_land_late(caps: Caps, bound: Option<Duration>) -> Caps {
    caps.with_late_landing(LateLanding::MayLandLate(bound))
}

const SECOND: Option<Duration> = Some(Duration::from_secs(1));

/// The plain reference of each contract.
pub(crate) fn references() -> Vec<Benign> {
    vec![
        benign("reference", Contract::BlobMulti, || {
            blob_multi::suite(blob_multi::CAPS, |_| {})
        }),
        benign("reference", Contract::Stash, || {
            stash::suite(stash::CAPS, |_| {})
        }),
        benign("reference", Contract::BlobStore, || {
            blob_store::suite(blob_store::CAPS, |_| {})
        }),
        benign("reference", Contract::HighVolume, || {
            high_volume::suite(high_volume::CAPS, |_| {})
        }),
        benign("reference", Contract::Backend, || {
            high_volume::plain_suite(high_volume::CAPS, |_| {})
        }),
        benign("reference", Contract::KvClient, || {
            kv_client::suite(kv_client::CAPS, |_| {})
        }),
        benign("reference", Contract::ChangeLog, || {
            change_log::suite(change_log::CAPS, |_| {})
        }),
    ]
}

pub(crate) fn all() -> Vec<Benign> {
    [
        blobs(),
        stashes(),
        frames(),
        objects(),
        keys(),
        logs(),
        seldom::all(),
        bare::all(),
        strange::all(),
        odd::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn blobs() -> Vec<Benign> {
    const CAPS: Caps = blob_multi::CAPS;
    vec![
        bm("lists-backwards", CAPS, |s| {
            s.list = Box::new(|place| Ok(place.list()?.into_iter().rev().collect()));
            s.prefix = Box::new(|place, prefix| {
                Ok(lock(&place.blobs)
                    .list_prefix(prefix)
                    .into_iter()
                    .rev()
                    .collect())
            });
        }),
        bm("lists-in-no-order", CAPS, |s| {
            s.list = Box::new(|place| {
                let mut keys = place.list()?;
                keys.sort_by_key(|key| {
                    key.bytes()
                        .fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)))
                });
                Ok(keys)
            });
        }),
        bm("yields", CAPS, |s| s.pace = Pace::Yield),
        bm("jitters", CAPS, |s| s.pace = Pace::Jitter),
        bm(
            "odd-keys-refused",
            CAPS.with_blob_multi(CAPS.blob_multi.with_key_len_bytes_max(255)),
            |s| {
                let admit = std::mem::replace(&mut s.key, Box::new(|key| Ok(key.to_owned())));
                s.key = Box::new(move |key| {
                    let base = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()/".contains(c);
                    if key.chars().all(base) {
                        admit(key)
                    } else {
                        Err(blob_multi::invalid("an odd key"))
                    }
                });
            },
        ),
        bm(
            "modest-bounds",
            CAPS.with_blob_multi(BlobMultiCaps::LEAST.with_value_len_bytes_max(256 << 10)),
            |_| {},
        ),
        bm(
            "list-per-key",
            CAPS.with_blob_multi(CAPS.blob_multi.with_list_snapshot(false)),
            |s| {
                s.prefix = Box::new(|place, prefix| {
                    let keys = place.list()?;
                    let found = keys.iter().filter(|key| key.starts_with(prefix));
                    let mut infos = Vec::new();
                    for key in found {
                        let len = place.get(key)?.map(|value| value.len());
                        infos.extend(len.map(|len| {
                            larder_traits::BlobInfo::new(key, len.try_into().unwrap_or(u64::MAX))
                        }));
                    }
                    Ok(infos)
                });
            },
        ),
        bm(
            "late-landing-unbounded",
            may_land_late(CAPS, None),
            blob_multi::lands_late,
        ),
        bm(
            "late-landing-bounded",
            may_land_late(CAPS, SECOND),
            blob_multi::lands_late,
        ),
        bm("late-landing-not-used", may_land_late(CAPS, None), |_| {}),
        bm("one-at-a-time", CAPS, |s| {
            s.one_at_a_time = true;
            s.pace = Pace::Jitter;
        }),
        bm("never-sure-of-a-write", CAPS, |s| {
            s.fails.stage = |trouble| Err(trouble.after().into());
            s.fails.commit = |trouble| Err(trouble.after().into());
            s.fails.tidy = |trouble| Err(trouble.after().into());
        }),
        bm("finishes-what-was-dropped", CAPS, |s| {
            s.slow_set = Some(Box::new(|place, _, key, value| {
                async move {
                    let set = Due::new(|| drop(place.set(&key, value)));
                    gap().await;
                    set.settle();
                    Ok(())
                }
                .boxed()
            }));
        }),
        bm("eight-in-flight", CAPS.with_in_flight_max(Some(8)), |s| {
            let permits = Arc::new(Semaphore::new(8));
            s.slow_set = Some(Box::new(move |place, deadline, key, value| {
                let permits = Arc::clone(&permits);
                async move {
                    let permit = tokio::time::timeout_at(deadline.into(), permits.acquire()).await;
                    let Ok(Ok(_permit)) = permit else {
                        return Err(blob_multi::too_late());
                    };
                    gap().await;
                    place.set(&key, value)
                }
                .boxed()
            }));
        }),
        // What the medium refuses it refuses to all of a group, and none of them has had an effect.
        bm("refused-in-groups", CAPS, |s| {
            s.slow_set = Some(Box::new(|place, deadline, key, value| {
                async move {
                    let there = Arc::clone(&place);
                    let set = move || drop(there.set(&key, value.clone()));
                    let ended = place.group.join(&place.medium, as_one, set);
                    let ended = tokio::time::timeout_at(deadline.into(), ended).await;
                    let ended = ended.unwrap_or(Err(Trouble::Late));
                    ended.map_err(|trouble| trouble.at_commit().into())
                }
                .boxed()
            }));
        }),
        bm("copies-per-handle", CAPS, |s| {
            // A cache that asks whether its copy is still the last one is no stale cache.
            let cache = Arc::new(Mutex::new(BTreeMap::new()));
            s.get = Box::new(move |place, key| {
                let value = place.get(key)?;
                let mut cache = lock(&cache);
                match &value {
                    Some(value) => drop(cache.insert(key.to_owned(), value.clone())),
                    None => drop(cache.remove(key)),
                }
                Ok(cache.get(key).cloned())
            });
        }),
    ]
}

fn stashes() -> Vec<Benign> {
    const CAPS: Caps = stash::CAPS;
    vec![
        st("rows-backwards", CAPS, |s| {
            s.snapshot = Box::new(|place, id, rows| {
                let mut snapshot = lock(&place.state).snapshot(id, rows)?;
                snapshot.rows.reverse();
                Ok(snapshot)
            });
        }),
        st("jitters", CAPS, |s| s.pace = Pace::Jitter),
        st("yields", CAPS, |s| s.pace = Pace::Yield),
        st("one-at-a-time", CAPS, |s| {
            s.one_at_a_time = true;
            s.pace = Pace::Jitter;
        }),
        st("never-sure-of-a-write", CAPS, |s| {
            s.fails.stage = |trouble| Err(trouble.after().into());
            s.fails.commit = |trouble| Err(trouble.after().into());
        }),
        st(
            "failed-batch-keeps-its-start",
            CAPS.with_stash(CAPS.stash.with_batch_atomic(false)),
            |s| {
                s.commit = Box::new(|place, ops, rules| {
                    let mut state = lock(&place.state);
                    for (at, op) in ops.iter().enumerate() {
                        state.commit(std::slice::from_ref(op), rules).map_err(|e| {
                            use larder_traits::Classify as _;
                            // What came before it stays, so the call can no longer say that it had no effect.
                            let kind = e.kind();
                            if at == 0 {
                                e
                            } else {
                                larder_traits::Fault::unknown(kind, "half a batch")
                                    .because(e)
                                    .into()
                            }
                        })?;
                    }
                    Ok(())
                });
            },
        ),
        st(
            "not-exclusive",
            CAPS.with_stash(CAPS.stash.with_exclusive(false)),
            |_| {},
        ),
        st(
            "modest-bounds",
            CAPS.with_stash(
                StashCaps::LEAST
                    .with_batch_atomic(true)
                    .with_name_len_bytes_max(64)
                    .with_batch_rows_max(100),
            ),
            |_| {},
        ),
        st("consolidates-at-once", CAPS, |s| {
            use larder_traits::stash::driver::{StashOp, fold};
            s.rules.apply = Box::new(|collection, op| {
                stash::apply(collection, op)?;
                let since = collection.frontiers.since.borrow();
                // Unless a sum does not fit yet: that is for a reader to find out.
                if let (StashOp::Update { .. } | StashOp::Compact { .. }, Ok(rows)) =
                    (op, fold(collection.rows.clone(), since))
                {
                    collection.rows = rows;
                }
                Ok(())
            });
        }),
    ]
}

fn frames() -> Vec<Benign> {
    const CAPS: Caps = blob_store::CAPS;
    vec![
        bs("lists-backwards", CAPS, |s| {
            s.list = Box::new(|place| Ok(place.list()?.into_iter().rev().collect()));
        }),
        bs("plain-heap-buffers", CAPS, |s| {
            s.zeroed = Box::new(|_| larder_traits::AlignedBlobBuf::zeroed());
            s.uninit = Box::new(|_| larder_traits::AlignedBlobBuf::zeroed());
        }),
        bs(
            "open-once",
            CAPS.with_blob_store(BlobStoreCaps::LEAST.with_exclusive(true)),
            |_| {},
        ),
        bs("scribbles-over-failed-reads", CAPS, |s| {
            s.read = Box::new(|place, guid, dst| {
                dst.fill(0xEE);
                place.read(guid, dst)
            });
        }),
        bs("durable", blob_store::DURABLE, |_| {}),
        bs("reads-backwards", CAPS, |s| {
            s.many = Some(Box::new(|place, reads| {
                let reads = reads.iter_mut().rev();
                let mut answers: Vec<_> = reads.map(|(guid, dst)| place.read(*guid, dst)).collect();
                answers.reverse();
                answers
            }));
        }),
        bs("never-sure-of-a-write", CAPS, |s| {
            s.fails.stage = |trouble| Err(trouble.after().into());
            s.fails.write = |trouble| Err(trouble.after().into());
            s.fails.delete = |trouble| Err(trouble.after().into());
        }),
        bs("has-by-list", CAPS, |s| {
            s.has = Box::new(|place, guid| Ok(place.list()?.contains(&guid)));
        }),
    ]
}

fn objects() -> Vec<Benign> {
    const CAPS: Caps = high_volume::CAPS;
    let least = CAPS.with_high_volume(
        HighVolumeCaps::LEAST
            .with_payload_len_bytes_max(2 << 20)
            .with_id_len_bytes_max(2048),
    );
    vec![
        hv("no-fence-no-extension", least, |_| {}),
        hv("jitters", CAPS, |s| s.pace = Pace::Jitter),
        hv("yields", CAPS, |s| s.pace = Pace::Yield),
        hv("one-at-a-time", CAPS, |s| {
            s.one_at_a_time = true;
            s.pace = Pace::Jitter;
        }),
        hv("never-sure-of-a-write", CAPS, |s| {
            s.fails.stage = |trouble| Err(trouble.after().into());
            s.fails.commit = |trouble| trouble.after().into();
        }),
        hv("finishes-what-was-dropped", CAPS, |s| {
            s.slow_put = Some(Box::new(|place, id, row| {
                async move {
                    let put = Due::new(|| {
                        let _step = lock(&place.step);
                        place.write(&id, row);
                    });
                    gap().await;
                    put.settle();
                    Ok(())
                }
                .boxed()
            }));
        }),
        hv(
            "modest-bounds",
            CAPS.with_high_volume(HighVolumeCaps::LEAST.with_payload_len_bytes_max(256 << 10)),
            |_| {},
        ),
        bk(
            "modest-bounds",
            CAPS.with_high_volume(HighVolumeCaps::LEAST.with_payload_len_bytes_max(256 << 10)),
            |_| {},
        ),
        hv("sweeps-at-once", CAPS, |s| {
            s.read = Box::new(|place, _, id| {
                let found = place.access(id);
                if found.is_none() {
                    place.remove(id);
                }
                found
            });
        }),
        bk("one-byte-pieces-and-empty-ones", CAPS, |s| {
            use futures_util::{StreamExt as _, stream};
            s.stream = Box::new(|payload, _| {
                let first = payload.slice(..payload.len().min(3));
                let rest = payload.slice(first.len()..);
                let bytes: Vec<_> = first.chunks(1).map(|byte| first.slice_ref(byte)).collect();
                let pieces = [
                    vec![bytes::Bytes::new()],
                    bytes,
                    vec![rest, bytes::Bytes::new()],
                ]
                .concat();
                stream::iter(pieces.into_iter().map(Ok::<_, BackendError>)).boxed()
            });
        }),
        bk("yields", CAPS, |s| s.pace = Pace::Yield),
    ]
}

fn keys() -> Vec<Benign> {
    const CAPS: Caps = kv_client::CAPS;
    vec![
        kv("jitters", CAPS, |s| s.pace = Pace::Jitter),
        kv("yields", CAPS, |s| s.pace = Pace::Yield),
        kv("one-at-a-time", CAPS, |s| {
            s.one_at_a_time = true;
            s.pace = Pace::Jitter;
        }),
        kv("never-sure-of-a-write", CAPS, |s| {
            s.fails.stage = |trouble| Err(trouble.after().into());
            s.fails.write = |trouble| Err(trouble.after().into());
            s.fails.remove = |trouble| Err(trouble.after().into());
        }),
        kv("finishes-what-was-dropped", CAPS, |s| {
            s.slow_write = Some(Box::new(|place, key, value, ttl| {
                async move {
                    let put = Due::new(|| {
                        let _step = lock(&place.step);
                        place.write(&key, value, ttl);
                    });
                    gap().await;
                    put.settle();
                    Ok(())
                }
                .boxed()
            }));
        }),
        // Of a group that failed, each says that it does not know.
        kv("never-sure-in-groups", CAPS, |s| {
            s.slow_write = Some(Box::new(|place, key, value, ttl| {
                async move {
                    let there = Arc::clone(&place);
                    let write = move || {
                        let _step = lock(&there.step);
                        there.write(&key, value.clone(), ttl);
                    };
                    let ended = place.group.join(&place.medium, as_one, write).await;
                    ended.map_err(|trouble| trouble.after().into())
                }
                .boxed()
            }));
        }),
        // The one that leads a group may be dropped: nothing is done yet, and one of those who wait leads on.
        kv("hands-over-the-lead", CAPS, |s| {
            s.slow_write = Some(Box::new(|place, key, value, ttl| {
                async move {
                    let there = Arc::clone(&place);
                    let write = move || {
                        let _step = lock(&there.step);
                        there.write(&key, value.clone(), ttl);
                    };
                    let ended = place.group.join_led(&place.medium, |_| {}, write);
                    ended.await.map_err(|trouble| trouble.at_commit().into())
                }
                .boxed()
            }));
        }),
        kv(
            "empty-key-refused",
            CAPS.with_kv_client(CAPS.kv_client.with_empty_key(false)),
            |_| {},
        ),
        kv("endless-ttl-refused", CAPS, |s| {
            s.write = Box::new(|place, key, value, ttl| {
                if ttl.is_some_and(|secs| secs > 1 << 40) {
                    return Err(kv_client::invalid("no such end"));
                }
                place.write(key, value, ttl);
                Ok(())
            });
        }),
        kv(
            "modest-bounds",
            CAPS.with_kv_client(
                KvCaps::LEAST
                    .with_key_len_bytes_max(300)
                    .with_value_len_bytes_max(256 << 10),
            ),
            |_| {},
        ),
        kv(
            "expires-at-the-end-of-its-granularity",
            CAPS.with_kv_client(CAPS.kv_client.with_ttl_granularity(Duration::from_secs(5))),
            |s| {
                s.write = Box::new(|place, key, value, ttl| {
                    place.write(key, value, ttl.map(|secs| secs.saturating_add(4)));
                    Ok(())
                });
            },
        ),
        kv(
            "multi-per-key",
            CAPS.with_kv_client(CAPS.kv_client.with_multi_snapshot(false)),
            |_| {},
        ),
    ]
}

fn logs() -> Vec<Benign> {
    const CAPS: Caps = change_log::CAPS;
    vec![
        cl("jitters", CAPS, |s| s.pace = Pace::Jitter),
        cl("yields", CAPS, |s| s.pace = Pace::Yield),
        cl("one-at-a-time", CAPS, |s| {
            s.one_at_a_time = true;
            s.pace = Pace::Jitter;
        }),
        cl("answers-in-no-order", CAPS, |s| {
            let mix = |it: &Change| it.id.into_bytes().map(|byte| byte.wrapping_mul(0x9d));
            s.list = Box::new(move |log, writer| {
                let mut own = log.book.of(writer);
                own.sort_by_key(mix);
                Ok(own)
            });
            // What is claimed of more than the limit is in no order either.
            s.claim = Box::new(move |log, writer, now, limit| {
                let mut free = log.book.claimable(writer, now);
                free.sort_by_key(|id| id.into_bytes().map(|byte| byte.wrapping_mul(0x9d)));
                let mut taken = log.book.take(writer, free, limit);
                taken.sort_by_key(mix);
                taken.reverse();
                Ok(taken)
            });
        }),
        cl("whole-milliseconds", CAPS, |s| {
            s.renew = Box::new(|log, writer, until| {
                let kept = until.checked_add(to_millis(until));
                log.book.renew(writer, kept.unwrap_or(until));
                Ok(())
            });
            s.claim = Box::new(|log, writer, now, limit| {
                // Down to the millisecond: up to the next, and one back.
                let up = to_millis(now);
                let down = Duration::from_millis(u64::from(!up.is_zero())).saturating_sub(up);
                let now = now.checked_sub(down).unwrap_or(now);
                Ok(log.book.claim(writer, now, limit))
            });
        }),
        cl("never-sure-of-a-write", CAPS, |s| {
            s.fails.stage = |trouble| Err(trouble.after());
            s.fails.record = |trouble| Err(trouble.after());
            s.fails.complete = |trouble| Err(trouble.after());
            s.fails.renew = |trouble| Err(trouble.after());
            s.fails.claim = |trouble| Err(trouble.after());
        }),
        // Failure: C-3.1 called a log wrong that has no room for the longest lease of all. Cause: the check allowed the
        // refusal, and went on as if there were a lease. Fix: it gives another lease, and asks about no time beyond it.
        cl("endless-lease-refused", CAPS, |s| {
            s.renew = Box::new(|log, writer, until| {
                let since = until.duration_since(SystemTime::UNIX_EPOCH);
                if since.is_ok_and(|since| since.as_secs() > 1 << 40) {
                    let why = "no such end";
                    return Err(Fault::not_applied(ErrorKind::InvalidInput, why));
                }
                log.book.renew(writer, until);
                Ok(())
            });
        }),
        cl("finishes-what-was-dropped", CAPS, |s| {
            s.slow_record = Some(Box::new(|place, writer, change| {
                async move {
                    let answer = Mutex::new(Ok(()));
                    let record = Due::new(|| {
                        *lock(&answer) = lock(&place.log).book.record(writer, &change);
                    });
                    gap().await;
                    record.settle();
                    answer.into_inner().unwrap_or_else(|e| e.into_inner())
                }
                .boxed()
            }));
        }),
        cl(
            "late-landing-unbounded",
            may_land_late(CAPS, None),
            change_log::lands_late,
        ),
        cl(
            "late-landing-bounded",
            may_land_late(CAPS, SECOND),
            change_log::lands_late,
        ),
    ]
}

/// How long it is from then to the next whole millisecond.
fn to_millis(time: SystemTime) -> Duration {
    let finer = |nanos: u32| nanos % 1_000_000;
    let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => finer(1_000_000 - finer(since.subsec_nanos())),
        Err(before) => finer(before.duration().subsec_nanos()),
    };
    Duration::from_nanos(nanos.into())
}
