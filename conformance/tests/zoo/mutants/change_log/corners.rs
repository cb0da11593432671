//! Wrong only in a corner: after the log was opened again, for what was claimed before, past the limit of a claim, or
//! for times at an end of their range.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use larder_conformance::{Caps, Engine};
use larder_traits::{Change, ChangeId, Durability, ObjectContext, ObjectId, Step, WriterId};

use super::{m, notes_recorders, with_caps};
use crate::mutants::Mutant;
use crate::mutants::files::f;
use crate::reference::change_log::{CAPS, Log, Store};
use crate::reference::files::{self, LogFlaw};
use crate::reference::{gap, lock};

/// What a log in files declares that is about processes only.
const PROCESS: Caps = files::CAPS.with_durability(Durability::Process);

/// A log that is there again when it is opened again. Nobody takes the process or the power away.
const DURABLE: Caps = CAPS.with_durability(Durability::Power);

pub(super) fn corners() -> Vec<Mutant> {
    [opened_again(), recorded_before(), leases(), limits()]
        .into_iter()
        .flatten()
        .collect()
}

/// Does something to the log once its last handle is closed.
fn at_last_close(s: &mut Store, act: fn(&mut Log)) {
    lock(&s.place.log).counter += 1;
    s.close = Box::new(move |log| {
        log.counter -= 1;
        if log.counter == 0 {
            act(log);
        }
    });
}

/// A note that tells nothing but its id.
fn note(id: ChangeId) -> Change {
    let nothing = ObjectId::new(ObjectContext::new("", Vec::new()), "");
    Change::new(id, nothing, Step::Remove)
}

fn opened_again() -> Vec<Mutant> {
    vec![
        with_caps(
            DURABLE,
            "cl-replay-strikes-out-last",
            "CL-7",
            &["CL-1", "CL-2", "C-2"],
            "when the log is read again, all is recorded first and struck out then, also what came back after that",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    log.book.complete(writer, id)?;
                    log.notes.put(writer, &note(id));
                    Ok(())
                });
                at_last_close(s, |log| {
                    for id in std::mem::take(&mut log.notes.changes).keys() {
                        log.book.changes.remove(id);
                    }
                });
            },
        ),
        with_caps(
            DURABLE,
            "cl-replay-last-renewal",
            "CL-7",
            &["CL-4", "C-2"],
            "when the log is read again, a lease ends when the last renewal says, be that earlier",
            |s| {
                s.renew = Box::new(|log, writer, until| {
                    log.book.renew(writer, until);
                    log.notes.leases.insert(writer, until);
                    Ok(())
                });
                at_last_close(s, |log| {
                    let last = std::mem::take(&mut log.notes.leases);
                    log.book.leases.extend(last);
                });
            },
        ),
        f(
            "cl-file-idle-leases-swept",
            "CL-4",
            &["CL-7", "C-2"],
            "when the log is opened, the leases of writers that have no change are swept",
            || files::change_log(PROCESS, LogFlaw::IdleLeasesSwept),
        ),
    ]
}

fn recorded_before() -> Vec<Mutant> {
    vec![
        m(
            "cl-step-never-back",
            "CL-1",
            &["CL-5"],
            "the steps of a change go forward, and an earlier one that is recorded under its id comes too late",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    let nth = |step| match step {
                        Step::Upload => 0,
                        Step::Swap => 1,
                        Step::Remove => 2,
                    };
                    log.book.check_owner(writer, change.id)?;
                    let old = log.book.changes.get(&change.id);
                    if old.is_none_or(|(_, old)| nth(old.step) <= nth(change.step)) {
                        log.book.put(writer, change);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "cl-record-clears-the-claim",
            "CL-3",
            &["CL-1", "CL-5"],
            "a change has a recorder and a claimant, and recording it again clears the claimant, who did it",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.check_owner(writer, change.id)?;
                    let recorder = log.notes.owner(change.id).unwrap_or(writer);
                    log.notes.put(recorder, change);
                    log.book.put(recorder, change);
                    Ok(())
                });
                s.complete = Box::new(|log, writer, id| {
                    log.book.complete(writer, id)?;
                    log.notes.changes.remove(&id);
                    Ok(())
                });
            },
        ),
        m(
            "cl-claim-not-back",
            "CL-5",
            &["CL-3"],
            "who recorded a change that another claimed cannot claim it back, since it is not another's by its recorder",
            |s| {
                notes_recorders(s);
                s.claim = Box::new(|log, writer, now, limit| {
                    let mut free = log.book.claimable(writer, now);
                    free.retain(|id| log.notes.owner(*id) != Some(writer));
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-claimed-from-lives-on",
            "CL-4",
            &["CL-5"],
            "who claims a change stands in for its owner, and renews the lease of that one along with its own",
            |s| {
                // An owner that was claimed from is kept as the name of a change of its claimant.
                s.claim = Box::new(|log, writer, now, limit| {
                    for id in log.book.claimable(writer, now).into_iter().take(limit) {
                        if let Some(owner) = log.book.owner(id) {
                            let owner = ChangeId::from_bytes(owner.into_bytes());
                            log.notes.put(writer, &note(owner));
                        }
                    }
                    Ok(log.book.claim(writer, now, limit))
                });
                s.renew = Box::new(|log, writer, until| {
                    log.book.renew(writer, until);
                    for owner in log.notes.of(writer) {
                        let owner = WriterId::from_bytes(owner.id.into_bytes());
                        log.book.renew(owner, until);
                    }
                    Ok(())
                });
            },
        ),
    ]
}

fn leases() -> Vec<Mutant> {
    vec![
        m(
            "cl-lease-of-zero-is-endless",
            "CL-4",
            &["CL-5"],
            "a lease that ends at the Unix epoch is kept as zero, which stands for one without an end",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let is_endless = |owner: WriterId| {
                        log.book.leases.get(&owner) == Some(&SystemTime::UNIX_EPOCH)
                    };
                    let free = log.book.claimable_if(writer, |owner| {
                        !is_endless(owner) && log.book.is_gone(owner, now)
                    });
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-lease-rounded-from-zero",
            "CL-4",
            &[],
            "milliseconds are rounded away from the Unix epoch, in favour of the holder after it and against before it",
            |s| {
                s.renew = Box::new(|log, writer, until| {
                    let kept = match SystemTime::UNIX_EPOCH.duration_since(until) {
                        Ok(before) => {
                            let finer = before.subsec_nanos() % 1_000_000;
                            let up = (1_000_000 - finer) % 1_000_000;
                            until.checked_sub(Duration::from_nanos(up.into()))
                        }
                        Err(_) => None,
                    };
                    log.book.renew(writer, kept.unwrap_or(until));
                    Ok(())
                });
            },
        ),
    ]
}

fn limits() -> Vec<Mutant> {
    vec![
        m(
            "cl-claim-goes-on-from-the-last",
            "CL-5",
            &[],
            "a claim that was filled is gone on from by the next one, which misses what came in before that place",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let last = log.notes.changes.keys().next().copied();
                    let mut free = log.book.claimable(writer, now);
                    free.retain(|id| last.is_none_or(|last| last < *id));
                    let taken = log.book.take(writer, free, limit);
                    log.notes.changes.clear();
                    if let Some(last) = taken.last().filter(|_| taken.len() == limit) {
                        log.notes.put(writer, last);
                    }
                    Ok(taken)
                });
            },
        ),
        m(
            "cl-limit-of-each-owner",
            "CL-5",
            &[],
            "a claim takes as many as its limit says of each writer that is gone",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let mut owners = BTreeMap::<_, Vec<_>>::new();
                    for id in log.book.claimable(writer, now) {
                        owners.entry(log.book.owner(id)).or_default().push(id);
                    }
                    let free = owners.into_values();
                    let taken = free.map(|free| log.book.take(writer, free, limit));
                    Ok(taken.collect::<Vec<_>>().concat())
                });
            },
        ),
        m(
            "cl-claim-skips-what-another-took",
            "CL-5",
            &["CL-6"],
            "a claim chooses as many as its limit, and takes a moment later those that are free still, and no others",
            |s| {
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let mut chosen = lock(&place.log).book.claimable(writer, now);
                        chosen.truncate(limit);
                        gap().await;
                        let mut log = lock(&place.log);
                        let free = log.book.claimable(writer, now);
                        chosen.retain(|id| free.contains(id));
                        Ok(log.book.take(writer, chosen, limit))
                    }
                    .boxed()
                }));
            },
        )
        .awaiting(Engine::Lin),
    ]
}
