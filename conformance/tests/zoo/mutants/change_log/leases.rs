//! Leases that end too early or too late, or belong to something else than a writer.

use std::time::{Duration, SystemTime};

use larder_traits::{Change, Clock as _, SystemClock, WriterId};

use super::m;
use crate::mutants::Mutant;
use crate::reference::change_log::{Log, RenewStep, Store};

pub(super) fn leases() -> Vec<Mutant> {
    [renewals(), owners(), ends(), clocks()]
        .into_iter()
        .flatten()
        .collect()
}

/// A lease that is kept as something else than was asked for.
fn kept(keep: fn(SystemTime) -> SystemTime) -> RenewStep {
    Box::new(move |log, writer, until| {
        log.book.renew(writer, keep(until));
        Ok(())
    })
}

/// A claim that takes what belongs to others of whom this holds.
fn claim_if(s: &mut Store, is_gone: fn(&Log, WriterId, SystemTime) -> bool) {
    s.claim = Box::new(move |log, writer, now, limit| {
        let free = log
            .book
            .claimable_if(writer, |owner| is_gone(log, owner, now));
        Ok(log.book.take(writer, free, limit))
    });
}

fn since_epoch(time: SystemTime) -> Duration {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

fn renewals() -> Vec<Mutant> {
    vec![
        m(
            "cl-lease-shortened",
            "CL-4",
            &["C-5"],
            "a lease ends when the last renewal says",
            |s| {
                s.renew = Box::new(|log, writer, until| {
                    log.book.leases.insert(writer, until);
                    Ok(())
                });
            },
        ),
        m(
            "cl-lease-not-extended",
            "CL-4",
            &["C-5"],
            "a lease ends when the first renewal said",
            |s| {
                s.renew = Box::new(|log, writer, until| {
                    log.book.leases.entry(writer).or_insert(until);
                    Ok(())
                });
            },
        ),
        m(
            "cl-lease-stays-ended",
            "CL-4",
            &["C-5", "CL-5"],
            "a lease that a claim has found ended is not extended any more",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let ended = log.book.leases.iter().filter(|(_, until)| **until <= now);
                    log.notes.leases.extend(ended.map(|(it, at)| (*it, *at)));
                    Ok(log.book.claim(writer, now, limit))
                });
                s.renew = Box::new(|log, writer, until| {
                    if !log.notes.leases.contains_key(&writer) {
                        log.book.renew(writer, until);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "cl-lease-needs-a-change",
            "CL-4",
            &[],
            "who renews a lease before the first change gets none",
            |s| {
                s.renew = Box::new(|log, writer, until| {
                    if !log.book.of(writer).is_empty() {
                        log.book.renew(writer, until);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "cl-lease-of-everyone",
            "CL-4",
            &["CL-5"],
            "a renewal extends the leases of all writers",
            |s| {
                s.renew = Box::new(|log, writer, until| {
                    log.book.renew(writer, until);
                    for lease in log.book.leases.values_mut() {
                        *lease = until.max(*lease);
                    }
                    Ok(())
                });
            },
        ),
    ]
}

fn owners() -> Vec<Mutant> {
    vec![
        m(
            "cl-lease-ends-with-the-last",
            "CL-4",
            &[],
            "with the last change of a writer its lease is forgotten",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    log.book.complete(writer, id)?;
                    if log.book.of(writer).is_empty() {
                        log.book.leases.remove(&writer);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "cl-lease-of-each-change",
            "CL-4",
            &["CL-5"],
            "a renewal is about the changes that are there, and not about later ones",
            |s| {
                // The ids of changes that were there are kept as names of holders.
                let name = |change: &Change| WriterId::from_bytes(change.id.into_bytes());
                s.renew = Box::new(move |log, writer, until| {
                    for change in log.book.of(writer) {
                        log.notes.renew(name(&change), until);
                    }
                    Ok(())
                });
                s.claim = Box::new(move |log, writer, now, limit| {
                    let all = log.book.changes.values();
                    let others = all.filter(|(owner, _)| *owner != writer);
                    let free = others.filter(|(_, it)| log.notes.is_gone(name(it), now));
                    let free: Vec<_> = free.map(|(_, it)| it.id).collect();
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-lease-cleared-by-claim",
            "CL-4",
            &["CL-5", "C-5"],
            "a claim forgets the leases that have ended by then, also for those that ask about an earlier time",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let taken = log.book.claim(writer, now, limit);
                    log.book.leases.retain(|_, until| now < *until);
                    Ok(taken)
                });
            },
        ),
        m(
            "cl-lease-by-claim",
            "CL-5",
            &["CL-4"],
            "a claim gives its writer a lease for half a minute",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let taken = log.book.claim(writer, now, limit);
                    if let Some(until) = now.checked_add(Duration::from_secs(30)) {
                        log.book.renew(writer, until);
                    }
                    Ok(taken)
                });
            },
        ),
        m(
            "cl-lease-by-record",
            "CL-4",
            &["CL-5"],
            "who records a change without a lease gets one until the Unix epoch",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.record(writer, change)?;
                    let epoch = SystemTime::UNIX_EPOCH;
                    log.book.leases.entry(writer).or_insert(epoch);
                    Ok(())
                });
            },
        ),
    ]
}

fn ends() -> Vec<Mutant> {
    vec![
        m(
            "cl-lease-past-its-end",
            "CL-4",
            &["CL-5"],
            "a lease has not ended yet at its end",
            |s| {
                claim_if(s, |log, owner, now| {
                    let lease = log.book.leases.get(&owner);
                    lease.is_none_or(|until| *until < now)
                });
            },
        ),
        m(
            "cl-lease-rounded-down",
            "CL-4",
            &[],
            "a lease is kept in whole milliseconds, and what is finer is cut off",
            |s| {
                s.renew = kept(|until| {
                    let finer = since_epoch(until).subsec_nanos() % 1_000_000;
                    until - Duration::from_nanos(finer.into())
                });
            },
        ),
        m(
            "cl-now-rounded-up",
            "CL-4",
            &[],
            "leases are kept as they are, and the time of a claim is rounded up to milliseconds",
            |s| {
                claim_if(s, |log, owner, now| {
                    let finer = since_epoch(now).subsec_nanos() % 1_000_000;
                    let up = (1_000_000 - finer) % 1_000_000;
                    let now = now.checked_add(Duration::from_nanos(up.into()));
                    now.is_none_or(|now| log.book.is_gone(owner, now))
                });
            },
        ),
        m(
            "cl-lease-in-seconds",
            "CL-4",
            &[],
            "a lease is kept in whole seconds, in favour of its holder",
            |s| {
                s.renew = kept(|until| {
                    let finer = since_epoch(until).subsec_nanos();
                    let up = (1_000_000_000 - finer) % 1_000_000_000;
                    let kept = until.checked_add(Duration::from_nanos(up.into()));
                    kept.unwrap_or(until)
                });
            },
        ),
        m(
            "cl-now-in-seconds",
            "CL-4",
            &[],
            "the time of a claim is cut to seconds",
            |s| {
                claim_if(s, |log, owner, now| {
                    let finer = since_epoch(now).subsec_nanos();
                    log.book
                        .is_gone(owner, now - Duration::from_nanos(finer.into()))
                });
            },
        ),
        m(
            "cl-lease-in-32-bits",
            "CL-4",
            &["C-5", "C-3"],
            "the seconds of a lease are kept in 32 bits",
            |s| {
                s.renew = kept(|until| {
                    let since = since_epoch(until);
                    let kept = Duration::new(since.as_secs() & 0xffff_ffff, since.subsec_nanos());
                    SystemTime::UNIX_EPOCH + kept
                });
            },
        ),
        m(
            "cl-lease-too-far-is-none",
            "CL-4",
            &["C-5", "C-3"],
            "a lease whose end does not fit 63 bits of nanoseconds is Ok without effect",
            |s| {
                s.renew = Box::new(|log, writer, until| {
                    if i64::try_from(since_epoch(until).as_nanos()).is_ok() {
                        log.book.renew(writer, until);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "cl-before-the-epoch",
            "CL-4",
            &["C-5", "C-3"],
            "times before the Unix epoch are taken for it",
            |s| {
                s.renew = kept(|until| until.max(SystemTime::UNIX_EPOCH));
                claim_if(s, |log, owner, now| {
                    log.book.is_gone(owner, now.max(SystemTime::UNIX_EPOCH))
                });
            },
        ),
    ]
}

fn clocks() -> Vec<Mutant> {
    vec![
        m(
            "cl-own-clock",
            "C-5",
            &["CL-4", "CL-5"],
            "whether a lease has ended is told by the clock of the machine",
            |s| {
                claim_if(s, |log, owner, _| {
                    log.book.is_gone(owner, SystemClock::default().now())
                });
            },
        ),
        m(
            "cl-latest-time-heard",
            "C-5",
            &["CL-4", "CL-5"],
            "whether a lease has ended is told by the latest time that a claim has ever named",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let name = WriterId::from_bytes([0; 16]);
                    log.notes.renew(name, now);
                    let latest = log.notes.leases.get(&name).copied().unwrap_or(now);
                    Ok(log.book.claim(writer, latest, limit))
                });
            },
        ),
        m(
            "cl-renewed-in-the-past",
            "C-5",
            &["CL-4", "CL-5"],
            "a lease that ends before the latest time that a claim has named is not given",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    log.notes.renew(writer, now);
                    Ok(log.book.claim(writer, now, limit))
                });
                s.renew = Box::new(|log, writer, until| {
                    if log.notes.leases.values().all(|now| *now < until) {
                        log.book.renew(writer, until);
                    }
                    Ok(())
                });
            },
        ),
    ]
}
