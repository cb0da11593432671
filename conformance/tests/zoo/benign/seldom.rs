//! Oddities that few stores have: of clients that queue, guess, page and retry, and of servers with clocks of their own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use larder_conformance::Caps;
use larder_traits::stash::driver::{Frontiers, RawRow, StashOp, fold};
use larder_traits::{
    BackendError, BlobMultiCaps, BlobStoreCaps, ClockSource, ErrorKind, Fault, KvCaps, StashCaps,
};

use super::{Benign, SECOND, bk, bm, bs, cl, hv, kv, may_land_late, st};
use crate::reference::late::Heeds;
use crate::reference::medium::{PATIENCE, Trouble};
use crate::reference::stash::Rules;
use crate::reference::{
    Due, Pace, behind, blob_multi, blob_store, change_log, gap, high_volume, kv_client, late, lock,
    stash,
};

pub(super) fn all() -> Vec<Benign> {
    [blobs(), stashes(), frames(), objects(), keys(), logs()]
        .into_iter()
        .flatten()
        .collect()
}

/// By its own clock, which nobody moves.
const fn by_server(caps: Caps) -> Caps {
    let skew = Duration::from_millis(20);
    caps.with_clock(ClockSource::Server { skew })
}

fn blobs() -> Vec<Benign> {
    const CAPS: Caps = blob_multi::CAPS;
    const PER_KEY: Caps = CAPS.with_blob_multi(CAPS.blob_multi.with_list_snapshot(false));

    vec![
        // It knows how long its server takes, and does not ask where that is too long. Failure: C-3.1 called it wrong.
        // Cause: two checks took a timeout for early which came just before its deadline, the third knew how near is
        // near enough. Fix: all of them know.
        bm("gives-up-early", CAPS, |s| {
            s.deadline = Box::new(|_, deadline, _| {
                if deadline <= Instant::now() + Duration::from_millis(5) {
                    return Err(blob_multi::too_late());
                }
                Ok(())
            });
        }),
        // Within its grace.
        bm("ends-after-its-deadline", CAPS, |s| {
            fn ends(deadline: Instant) -> tokio::time::Instant {
                let later = deadline.checked_add(Duration::from_millis(100));
                later.unwrap_or(deadline).into()
            }
            s.slow_set = Some(Box::new(|place, deadline, key, value| {
                async move {
                    let call = place.medium.call(|| place.set(&key, value));
                    match tokio::time::timeout_at(ends(deadline), call).await {
                        Ok(Ok(answer)) => answer,
                        Ok(Err(trouble)) => Err(trouble.at_commit().into()),
                        Err(_late) => Err(Trouble::Late.at_commit().into()),
                    }
                }
                .boxed()
            }));
        }),
        bm("lists-in-pages", PER_KEY, |s| {
            s.slow_list = Some(Box::new(|place| {
                async move {
                    let mut found: Vec<String> = Vec::new();
                    loop {
                        let page = place.medium.call(|| {
                            let blobs = lock(&place.blobs);
                            let last = found.last();
                            let rest = blobs
                                .keys()
                                .filter(|&key| last.is_none_or(|it| &**it < key));
                            rest.take(50).map(str::to_owned).collect::<Vec<_>>()
                        });
                        let page = page.await.map_err(|trouble| trouble.before())?;
                        if page.is_empty() {
                            return Ok(found);
                        }
                        found.extend(page);
                        gap().await;
                    }
                }
                .boxed()
            }));
        }),
        // What was dropped is done by whoever calls next, before its own call.
        bm("leaves-its-work-to-the-next", CAPS, |s| {
            fn catch_up(place: &blob_multi::Place) {
                // Held, so that nobody finds nothing left before it is done.
                let mut notes = lock(&place.notes);
                let left = std::mem::take(&mut *notes);
                let mut blobs = lock(&place.blobs);
                left.into_iter()
                    .for_each(|(key, value)| blobs.set(&key, value));
            }
            s.slow_set = Some(Box::new(|place, _, key, value| {
                async move {
                    catch_up(&place);
                    lock(&place.notes).insert(key, value);
                    gap().await;
                    catch_up(&place);
                    Ok(())
                }
                .boxed()
            }));
            s.deadline = Box::new(|place, deadline, _| {
                catch_up(place);
                if deadline <= Instant::now() {
                    return Err(blob_multi::too_late());
                }
                Ok(())
            });
            s.delete = Box::new(|place, key| {
                catch_up(place);
                place.delete(key)
            });
        }),
        // Other letters than those of the base are keys too, but for marks that combine and for controls.
        bm("some-odd-keys-refused", CAPS, |s| {
            let admit = std::mem::replace(&mut s.key, Box::new(|key| Ok(key.to_owned())));
            s.key = Box::new(move |key| {
                let is_mark = |c: char| ('\u{300}'..'\u{370}').contains(&c) || c.is_control();
                if key.contains(is_mark) {
                    return Err(blob_multi::invalid("an odd key"));
                }
                admit(key)
            });
        }),
        bm(
            "keys-up-to-300-bytes",
            CAPS.with_blob_multi(BlobMultiCaps::LEAST.with_key_len_bytes_max(300)),
            |_| {},
        ),
        // Reads wait behind one write at a time, and are many at once between them.
        bm("readers-and-one-writer", CAPS, |s| {
            s.slow_set = Some(Box::new(|place, deadline, key, value| {
                async move {
                    let turn = tokio::time::timeout_at(deadline.into(), place.turn.lock()).await;
                    let Ok(_turn) = turn else {
                        return Err(blob_multi::too_late());
                    };
                    gap().await;
                    place.set(&key, value)
                }
                .boxed()
            }));
        }),
    ]
}

fn stashes() -> Vec<Benign> {
    fn rules() -> Rules {
        Rules {
            admit: Box::new(Frontiers::admit),
            apply: Box::new(stash::apply),
        }
    }
    fn lands_late(s: &mut stash::Driver) {
        s.slow_commit = Some(Box::new(|place, ops, rules_of_handle| {
            let late = Due::new({
                let (place, ops) = (Arc::clone(place), ops.clone());
                move || {
                    behind(move || {
                        let mut next = lock(&place.state).clone();
                        if next.commit(&ops, &rules()).is_ok() {
                            *lock(&place.state) = next;
                        }
                    });
                }
            });
            async move {
                tokio::task::yield_now().await;
                late.call_off();
                let mut state = lock(&place.state);
                let mut next = state.clone();
                next.commit(&ops, rules_of_handle)?;
                *state = next;
                Ok(())
            }
            .boxed()
        }));
    }
    const CAPS: Caps = stash::CAPS;
    const SHARED: Caps = CAPS.with_stash(CAPS.stash.with_exclusive(false));
    vec![
        // Each row in two halves, as a log of changes may keep it.
        st("rows-in-halves", CAPS, |s| {
            s.rules.apply = Box::new(|collection, op| {
                let StashOp::Update { rows, .. } = op else {
                    return stash::apply(collection, op);
                };
                for row in rows {
                    let half = row.diff / 2;
                    for diff in [half, row.diff - half] {
                        collection.rows.push(RawRow {
                            diff,
                            ..row.clone()
                        });
                    }
                }
                Ok(())
            });
        }),
        st("ids-far-apart", CAPS, |s| {
            s.open = Box::new(|place, name| {
                let mut state = lock(&place.state);
                if !state.names.contains_key(name) {
                    state.next += 1 << 40;
                }
                Ok(state.open(name))
            });
        }),
        st("folds-what-it-reads", CAPS, |s| {
            s.snapshot = Box::new(|place, id, rows| {
                let mut snapshot = lock(&place.state).snapshot(id, rows)?;
                let since = snapshot.frontiers.since.borrow();
                // A sum that does not fit is for the reader to find out.
                if let Ok(rows) = fold(snapshot.rows.clone(), since) {
                    snapshot.rows = rows;
                }
                Ok(snapshot)
            });
        }),
        // It works on what it read, and again where somebody was faster.
        st("optimistic", CAPS, |s| {
            s.slow_commit = Some(Box::new(|place, ops, rules| {
                async move {
                    loop {
                        let (read, mut next) = {
                            let state = lock(&place.state);
                            (place.counter.load(SeqCst), state.clone())
                        };
                        let done = next.commit(&ops, rules);
                        gap().await;
                        let committed = place.medium.timed(|| {
                            let mut state = lock(&place.state);
                            if place.counter.load(SeqCst) != read {
                                return None;
                            }
                            if done.is_ok() {
                                place.counter.fetch_add(1, SeqCst);
                                *state = next;
                            }
                            Some(done)
                        });
                        match committed.await {
                            Ok(Some(done)) => return done,
                            Ok(None) => {}
                            Err(trouble) => return Err(trouble.at_commit().into()),
                        }
                    }
                }
                .boxed()
            }));
            // A name is made by the same kind of commit.
            s.open = Box::new(|place, name| {
                let mut state = lock(&place.state);
                place.counter.fetch_add(1, SeqCst);
                Ok(state.open(name))
            });
            s.discard = Box::new(|place, name| {
                let mut state = lock(&place.state);
                place.counter.fetch_add(1, SeqCst);
                Ok(state.discard(name))
            });
        }),
        st(
            "narrow-bounds",
            CAPS.with_stash(
                StashCaps::LEAST
                    .with_batch_atomic(true)
                    .with_name_len_bytes_max(32)
                    .with_row_len_bytes_max(1024)
                    .with_batch_rows_max(100),
            ),
            |_| {},
        ),
        st(
            "late-landing-unbounded",
            may_land_late(SHARED, None),
            lands_late,
        ),
        st(
            "late-landing-bounded",
            may_land_late(SHARED, SECOND),
            lands_late,
        ),
        st("late-landing-not-used", may_land_late(SHARED, None), |_| {}),
    ]
}

/// Says that a flush is needed once a change is there, and until a flush.
pub(super) fn count_changes(s: &mut blob_store::Store) {
    s.write = Box::new(|place, guid, src| {
        // Counted once it is there: a flush that comes between would forget it.
        place.write(guid, src)?;
        place.counter.fetch_add(1, SeqCst);
        Ok(())
    });
    s.delete = Box::new(|place, guid| {
        let is_there = place.has(guid)?;
        place.delete(guid)?;
        place.counter.fetch_add(u64::from(is_there), SeqCst);
        Ok(())
    });
    s.flush = Box::new(|place| {
        place.counter.store(0, SeqCst);
        Ok(())
    });
    s.needs_flush = Box::new(|place| place.counter.load(SeqCst) > 0);
}

fn frames() -> Vec<Benign> {
    const CAPS: Caps = blob_store::CAPS;
    const DURABLE: Caps = blob_store::DURABLE;
    vec![
        bs("knows-when-to-flush", DURABLE, count_changes),
        bs(
            "knows-when-to-flush-though-not-durable",
            CAPS,
            count_changes,
        ),
        bs("batches-backwards", CAPS, |s| {
            s.batch = Some(Box::new(|place, writes| {
                let mut done = BTreeSet::new();
                for (guid, src) in writes.iter().rev() {
                    if done.insert(*guid) {
                        place.write(*guid, src)?;
                    }
                }
                Ok(())
            }));
        }),
        // A batch is one transaction: what fails of it fails whole.
        bs("batches-at-once", CAPS, |s| {
            s.batch = Some(Box::new(|place, writes| {
                let written = place.medium.block(|| place.write_all(writes));
                written.unwrap_or_else(|trouble| Err(trouble.at_commit().into()))
            }));
        }),
        bs(
            "open-once-and-not-durable",
            CAPS.with_blob_store(BlobStoreCaps::LEAST.with_exclusive(true)),
            |s| s.uninit = Box::new(|place| place.pool.lease_zeroed()),
        ),
        bs("reads-whole-frames-for-ranges", CAPS, |s| {
            s.range = Box::new(|place, guid, offset, dst| {
                let mut frame = place.pool.lease_recycled();
                place.read(guid, &mut frame)?;
                dst.copy_from_slice(&frame[offset..offset + dst.len()]);
                Ok(())
            });
        }),
    ]
}

fn objects() -> Vec<Benign> {
    fn lands_late(s: &mut high_volume::Store) {
        late::lands_late(s, Heeds::Nothing, Heeds::Nothing);
    }
    const CAPS: Caps = high_volume::CAPS;
    const UNFENCED: Caps = CAPS.with_high_volume(CAPS.high_volume.with_fence(false));
    vec![
        hv(
            "late-landing-unbounded",
            may_land_late(UNFENCED, None),
            lands_late,
        ),
        hv(
            "late-landing-bounded",
            may_land_late(UNFENCED, SECOND),
            lands_late,
        ),
        hv("late-landing-not-used", may_land_late(CAPS, None), |_| {}),
        bk(
            "late-landing-unbounded",
            may_land_late(UNFENCED, None),
            lands_late,
        ),
        bk(
            "late-landing-bounded",
            may_land_late(UNFENCED, SECOND),
            lands_late,
        ),
        hv("expires-by-the-server", by_server(CAPS), |_| {}),
        bk("expires-by-the-server", by_server(CAPS), |_| {}),
        bk("jitters", CAPS, |s| s.pace = Pace::Jitter),
        bk("one-at-a-time", CAPS, |s| {
            s.one_at_a_time = true;
            s.pace = Pace::Jitter;
        }),
        bk("never-sure-of-a-write", CAPS, |s| {
            s.fails.stage = |trouble| Err(trouble.after().into());
            s.fails.commit = |trouble| trouble.after().into();
        }),
        bk("finishes-what-was-dropped", CAPS, |s| {
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
        bk("streams-slowly", CAPS, |s| {
            s.stream = Box::new(|payload, _| {
                let pieces: Vec<_> = payload
                    .chunks(100_000)
                    .map(|piece| payload.slice_ref(piece))
                    .collect();
                let fetch = |piece| async move {
                    gap().await;
                    Ok::<Bytes, BackendError>(piece)
                };
                stream::iter(pieces).then(fetch).boxed()
            });
        }),
        hv(
            "narrow-ids",
            CAPS.with_high_volume(CAPS.high_volume.with_id_len_bytes_max(256)),
            |_| {},
        ),
        bk(
            "narrow-ids",
            CAPS.with_high_volume(CAPS.high_volume.with_id_len_bytes_max(256)),
            |_| {},
        ),
        // A delete of what is not there writes nothing, and one of what has expired sweeps it.
        hv("deletes-only-what-is-there", CAPS, |s| {
            s.delete = Box::new(|place, id| {
                if lock(&place.rows).contains_key(id) {
                    place.remove(id);
                }
                Ok(())
            });
        }),
        // Work in the background that has nothing to do with any object.
        bk("works-in-the-background-for-a-while", CAPS, |s| {
            s.is_idle = |place| place.counter.fetch_add(1, Relaxed) % 3 == 2;
        }),
    ]
}

fn keys() -> Vec<Benign> {
    fn lands_late(s: &mut kv_client::Store) {
        s.slow_write = Some(Box::new(|place, key, value, ttl| {
            let late = Due::new({
                let (place, key, value) = (Arc::clone(&place), key.clone(), value.clone());
                move || {
                    behind(move || {
                        let _step = lock(&place.step);
                        place.write(&key, value, ttl);
                    });
                }
            });
            async move {
                tokio::task::yield_now().await;
                late.call_off();
                let _step = lock(&place.step);
                place.write(&key, value, ttl);
                Ok(())
            }
            .boxed()
        }));
    }
    const CAPS: Caps = kv_client::CAPS;
    const LEAST: Caps = CAPS.with_kv_client(KvCaps::LEAST);
    const PER_KEY: Caps = CAPS.with_kv_client(CAPS.kv_client.with_multi_snapshot(false));
    vec![
        kv(
            "late-landing-unbounded",
            may_land_late(CAPS, None),
            lands_late,
        ),
        kv(
            "late-landing-bounded",
            may_land_late(CAPS, SECOND),
            lands_late,
        ),
        kv("late-landing-not-used", may_land_late(CAPS, None), |_| {}),
        kv("multi-in-parts", PER_KEY, |s| {
            s.slow_many = Some(Box::new(|place, keys| {
                async move {
                    let mut found = Vec::with_capacity(keys.len());
                    for part in keys.chunks(100) {
                        let read = place.medium.timed(|| place.read_many(part)).await;
                        found.extend(read.map_err(|trouble| trouble.before())?);
                        gap().await;
                    }
                    Ok(found)
                }
                .boxed()
            }));
        }),
        // Failure: KV-3.3 wanted lives of 2^31 s and longer. Cause: the clause wants that none overflows, and leaves it
        // to a store which of them it has no room for. Fix: from there on a refusal is right.
        kv("lives-of-a-lifetime-refused", CAPS, |s| {
            s.write = Box::new(|place, key, value, ttl| {
                if ttl.is_some_and(|secs| secs > 0x7fff_ffff) {
                    return Err(kv_client::invalid("no such end"));
                }
                place.write(key, value, ttl);
                Ok(())
            });
        }),
        kv("sweeps-at-each-write", CAPS, |s| {
            s.write = Box::new(|place, key, value, ttl| {
                place.write(key, value, ttl);
                let now = larder_traits::Clock::now(&*place.clock);
                lock(&place.entries).retain(|_, entry| entry.expires.is_none_or(|at| now < at));
                Ok(())
            });
        }),
        kv(
            "narrow-keys",
            CAPS.with_kv_client(KvCaps::LEAST.with_key_len_bytes_max(64)),
            |_| {},
        ),
        kv("expires-by-the-server", by_server(LEAST), |_| {}),
        kv("expires-by-the-server-at-once", by_server(CAPS), |_| {}),
        // What was dropped is done by whoever calls next, before its own call.
        kv("leaves-its-work-to-the-next", CAPS, |s| {
            fn catch_up(place: &kv_client::Place) {
                let left = std::mem::take(&mut *lock(&place.notes));
                left.into_iter()
                    .for_each(|(key, value)| place.write(&key, value, None));
            }
            s.slow_write = Some(Box::new(|place, key, value, ttl| {
                async move {
                    {
                        let _step = lock(&place.step);
                        catch_up(&place);
                        if ttl.is_some() {
                            place.write(&key, value, ttl);
                            return Ok(());
                        }
                        lock(&place.notes).insert(key, value);
                    }
                    gap().await;
                    let _step = lock(&place.step);
                    catch_up(&place);
                    Ok(())
                }
                .boxed()
            }));
            s.read = Box::new(|place, key| {
                catch_up(place);
                Ok(place.read(key))
            });
            s.many = Box::new(|place, keys| {
                catch_up(place);
                Ok(place.read_many(keys))
            });
            s.remove = Box::new(|place, key| {
                catch_up(place);
                place.remove(key);
                Ok(())
            });
        }),
        // A call that finds no answer within the patience of its client is asked once more where that does no harm.
        kv("reads-twice", CAPS, |s| {
            s.slow_read = Some(Box::new(|place, key| {
                async move {
                    let first =
                        tokio::time::timeout(PATIENCE / 3, place.medium.call(|| place.read(&key)));
                    if let Ok(Ok(found)) = first.await {
                        return Ok(found);
                    }
                    let again = place.medium.timed(|| place.read(&key)).await;
                    again.map_err(|trouble| trouble.before().into())
                }
                .boxed()
            }));
        }),
    ]
}

fn logs() -> Vec<Benign> {
    const CAPS: Caps = change_log::CAPS;
    vec![
        cl("late-landing-not-used", may_land_late(CAPS, None), |_| {}),
        // Failure: C-5.1 wanted a lease that ends before 1970. Cause: CL-4 lets a log refuse an end that it cannot keep,
        // and only CL-4.5 knew. Fix: a refusal of such an end is right there too. This one counts nanoseconds from the
        // epoch, in 64 bits.
        cl("ends-before-1970-or-after-2262-refused", CAPS, |s| {
            s.renew = Box::new(|log, writer, until| {
                let since = until.duration_since(SystemTime::UNIX_EPOCH);
                if !since.is_ok_and(|since| i64::try_from(since.as_nanos()).is_ok()) {
                    let why = "no such end";
                    return Err(Fault::not_applied(ErrorKind::InvalidInput, why));
                }
                log.book.renew(writer, until);
                Ok(())
            });
        }),
        cl("claims-from-the-last-id", CAPS, |s| {
            s.claim = Box::new(|log, writer, now, limit| {
                let mut free = log.book.claimable(writer, now);
                free.reverse();
                Ok(log.book.take(writer, free, limit))
            });
        }),
    ]
}
