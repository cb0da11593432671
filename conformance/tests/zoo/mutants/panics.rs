//! Stores that panic where they have to answer (C-3): arithmetic and slices that trust their arguments.

use std::time::{Duration, SystemTime};

use larder_conformance::{Caps, Contract, Suite};
use larder_traits::stash::driver::{StashOp, fold};
use larder_traits::{Clock, ExpirationPolicy};

use super::Mutant;
use crate::reference::{blob_multi, change_log, high_volume, kv_client, stash};

fn p(
    id: &'static str,
    contract: Contract,
    also: &'static [&'static str],
    about: &'static str,
    suite: impl Fn() -> Suite + Send + Sync + 'static,
) -> Mutant {
    Mutant {
        id,
        contract,
        breaks: "C-3",
        also,
        about,
        awaits: None,
        hangs: false,
        panics: false,
        suite: Box::new(suite),
    }
    .panicking()
}

pub(crate) fn all() -> Vec<Mutant> {
    let mut all = stores();
    all.extend(logs());
    all
}

fn stores() -> Vec<Mutant> {
    vec![
        p(
            "bm-range-reversed-panics",
            Contract::BlobMulti,
            &["BM-1"],
            "a range that ends before it starts is sliced as it is",
            || suite_of_blobs(blob_multi::CAPS),
        ),
        p(
            "kv-ttl-overflow-panics",
            Contract::KvClient,
            &["KV-3"],
            "a time to live is added to the clock, however long it is",
            || {
                kv_client::suite(kv_client::CAPS, |s| {
                    s.write = Box::new(|place, key, value, ttl| {
                        if let Some(secs) = ttl {
                            let _end = place.clock.now() + Duration::from_secs(secs);
                        }
                        place.write(key, value, ttl);
                        Ok(())
                    });
                })
            },
        ),
        p(
            "hv-policy-overflow-panics",
            Contract::HighVolume,
            &["HV-8"],
            "the time of a policy is added to the clock, however long it is",
            || {
                high_volume::suite(high_volume::CAPS, |s| {
                    s.stamp = Box::new(|place, _, metadata, payload| {
                        let now = place.clock_now();
                        if let ExpirationPolicy::TimeToLive(time) = metadata.expiration_policy {
                            let _end = now + time;
                        }
                        Ok(metadata.stamped(now, high_volume::len_u64(payload))?)
                    });
                })
            },
        ),
        p(
            "st-sum-panics",
            Contract::Stash,
            &["ST-5", "ST-8"],
            "a consolidation takes it for granted that its sums fit",
            || {
                stash::suite(stash::CAPS, |s| {
                    s.rules.apply = Box::new(|collection, op| {
                        if let StashOp::Consolidate { .. } = op {
                            let since = collection.frontiers.since.borrow();
                            let folded = fold(collection.rows.clone(), since);
                            collection.rows = folded.expect("sums that fit");
                            return Ok(());
                        }
                        stash::apply(collection, op)
                    });
                })
            },
        ),
    ]
}

fn logs() -> Vec<Mutant> {
    let of = |bend| move || change_log::suite(change_log::CAPS, bend);
    vec![
        p(
            "cl-lease-overflow-panics",
            Contract::ChangeLog,
            &["CL-4"],
            "a moment of grace is added to a lease, however long it is",
            of(|s| {
                s.renew = Box::new(|log, writer, until| {
                    let _grace = until + Duration::from_secs(1);
                    log.book.renew(writer, until);
                    Ok(())
                });
            }),
        ),
        p(
            "cl-before-the-epoch-panics",
            Contract::ChangeLog,
            &["CL-4", "CL-5", "C-5"],
            "a claim takes it for granted that its time is after the Unix epoch",
            of(|s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let since = now.duration_since(SystemTime::UNIX_EPOCH);
                    let _since = since.expect("a time of this age");
                    Ok(log.book.claim(writer, now, limit))
                });
            }),
        ),
        p(
            "cl-limit-overflow-panics",
            Contract::ChangeLog,
            &["CL-5"],
            "a claim asks for one more than its limit, to see whether there is more",
            of(|s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let _more = limit.checked_add(1).expect("a limit within reason");
                    Ok(log.book.claim(writer, now, limit))
                });
            }),
        ),
    ]
}

fn suite_of_blobs(caps: Caps) -> Suite {
    blob_multi::suite(caps, |s| {
        s.range = Box::new(|place, key, range| {
            let Some(value) = place.get(key)? else {
                return Ok(None);
            };
            let end = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(value.len());
            Ok(Some(value.slice(end(range.start)..end(range.end))))
        });
    })
}
