//! Claims that take too much, too little, or give it to the wrong writer.

use std::time::SystemTime;

use larder_traits::{ChangeId, WriterId};

use super::{m, notes_recorders};
use crate::mutants::Mutant;

pub(super) fn claims() -> Vec<Mutant> {
    [limits(), whose(), answers(), after()]
        .into_iter()
        .flatten()
        .collect()
}

fn limits() -> Vec<Mutant> {
    vec![
        m(
            "cl-limit-ignored",
            "CL-5",
            &[],
            "a claim takes whatever there is",
            |s| {
                s.claim =
                    Box::new(|log, writer, now, _| Ok(log.book.claim(writer, now, usize::MAX)));
            },
        ),
        m(
            "cl-limit-one-more",
            "CL-5",
            &[],
            "a claim takes one more than its limit",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    Ok(log.book.claim(writer, now, limit.saturating_add(1)))
                });
            },
        ),
        m(
            "cl-limit-zero-is-none",
            "CL-5",
            &[],
            "a limit of zero is none",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let limit = if limit == 0 { usize::MAX } else { limit };
                    Ok(log.book.claim(writer, now, limit))
                });
            },
        ),
        m(
            "cl-limit-one-at-least",
            "CL-5",
            &[],
            "a claim looks whether it has enough after it took one",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    Ok(log.book.claim(writer, now, limit.max(1)))
                });
            },
        ),
        m(
            "cl-limit-of-what-is-seen",
            "CL-5",
            &[],
            "a claim looks at as many changes as its limit says, those of the living and its own included",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let seen: Vec<_> = log.book.changes.keys().copied().take(limit).collect();
                    let mut free = log.book.claimable(writer, now);
                    free.retain(|id| seen.contains(id));
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-limit-with-own",
            "CL-5",
            &[],
            "what a writer has already counts towards the limit",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let own = log.book.of(writer).len();
                    Ok(log.book.claim(writer, now, limit.saturating_sub(own)))
                });
            },
        ),
        m(
            "cl-limit-in-32-bits",
            "CL-5",
            &["C-3"],
            "the limit is kept in 32 bits",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    Ok(log.book.claim(writer, now, limit & 0xffff_ffff))
                });
            },
        ),
        m(
            "cl-claim-one-page",
            "CL-5",
            &[],
            "a claim takes a hundred at most, whatever its limit",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    Ok(log.book.claim(writer, now, limit.min(100)))
                });
            },
        ),
        m(
            "cl-claim-of-one-owner",
            "CL-5",
            &[],
            "a claim takes the changes of the first writer that is gone, and leaves the others for the next",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let mut free = log.book.claimable(writer, now);
                    let first = free.first().and_then(|id| log.book.owner(*id));
                    free.retain(|id| log.book.owner(*id) == first);
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-claim-all-or-nothing",
            "CL-5",
            &[],
            "a claim takes nothing where there is more than its limit",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let free = log.book.claimable(writer, now);
                    if free.len() > limit {
                        return Ok(Vec::new());
                    }
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
    ]
}

fn whose() -> Vec<Mutant> {
    vec![
        m(
            "cl-claim-own",
            "CL-5",
            &[],
            "a claim answers also with what its writer has already",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let all = log.book.changes.iter();
                    let free = all.filter(|(_, (owner, _))| {
                        *owner == writer || log.book.is_gone(*owner, now)
                    });
                    let free: Vec<_> = free.map(|(id, _)| *id).collect();
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-claim-living",
            "CL-5",
            &["CL-4"],
            "a claim does not ask for leases",
            |s| {
                s.claim = Box::new(|log, writer, _, limit| {
                    let free = log.book.claimable_if(writer, |_| true);
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-claim-living-with-the-dead",
            "CL-5",
            &["CL-4"],
            "once one lease has ended, a claim takes the changes of all",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let free = match log.book.claimable(writer, now).is_empty() {
                        true => Vec::new(),
                        false => log.book.claimable_if(writer, |_| true),
                    };
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-claim-needs-a-lease-that-ended",
            "CL-5",
            &["CL-4"],
            "what belongs to a writer that never had a lease is not claimed",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let ended = |owner: WriterId| {
                        let lease = log.book.leases.get(&owner);
                        lease.is_some_and(|until| *until <= now)
                    };
                    let free = log.book.claimable_if(writer, ended);
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-claim-by-own-lease",
            "CL-5",
            &["CL-4"],
            "a claim asks for the lease of who claims",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let free = log
                        .book
                        .claimable_if(writer, |_| log.book.is_gone(writer, now));
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-claim-needs-no-lease-of-own",
            "CL-5",
            &["CL-4"],
            "a writer without a lease of its own claims nothing",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    if log.book.is_gone(writer, now) {
                        return Ok(Vec::new());
                    }
                    Ok(log.book.claim(writer, now, limit))
                });
            },
        ),
        m(
            "cl-claim-once",
            "CL-5",
            &[],
            "what was claimed once is not claimed again",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let mut free = log.book.claimable(writer, now);
                    free.retain(|id| log.notes.owner(*id).is_none());
                    let taken = log.book.take(writer, free, limit);
                    for change in &taken {
                        log.notes.put(writer, change);
                    }
                    Ok(taken)
                });
            },
        ),
    ]
}

fn answers() -> Vec<Mutant> {
    vec![
        m(
            "cl-claim-without-effect",
            "CL-5",
            &["CL-3"],
            "a claim answers with what there is, and takes nothing",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    Ok(log.book.clone().claim(writer, now, limit))
                });
            },
        ),
        m(
            "cl-claim-without-answer",
            "CL-5",
            &[],
            "a claim takes what there is, and answers with what it found before the last one",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let mut taken = log.book.claim(writer, now, limit);
                    taken.pop();
                    Ok(taken)
                });
            },
        ),
        m(
            "cl-claim-answers-with-all",
            "CL-5",
            &[],
            "a claim answers with all that its writer has now",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    log.book.claim(writer, now, limit);
                    Ok(log.book.of(writer))
                });
            },
        ),
        m(
            "cl-claim-hands-out",
            "CL-5",
            &["CL-1", "CL-3"],
            "what is claimed leaves the log",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let taken = log.book.claim(writer, now, limit);
                    for change in &taken {
                        log.book.changes.remove(&change.id);
                    }
                    Ok(taken)
                });
            },
        ),
        m(
            "cl-claim-first-version",
            "CL-5",
            &[],
            "a claim answers with changes as they were recorded first",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.record(writer, change)?;
                    let first = || (writer, change.clone());
                    log.notes.changes.entry(change.id).or_insert_with(first);
                    Ok(())
                });
                s.complete = Box::new(|log, writer, id| {
                    log.book.complete(writer, id)?;
                    log.notes.changes.remove(&id);
                    Ok(())
                });
                s.claim = Box::new(|log, writer, now, limit| {
                    let taken = log.book.claim(writer, now, limit).into_iter();
                    let first = |id: ChangeId| log.notes.changes.get(&id).map(|it| it.1.clone());
                    Ok(taken.map(|it| first(it.id).unwrap_or(it)).collect())
                });
            },
        ),
        m(
            "cl-claim-puts-back-first-version",
            "CL-5",
            &["CL-1"],
            "a claim puts a change back as it was recorded first, though it answers with the last",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.record(writer, change)?;
                    let first = || (writer, change.clone());
                    log.notes.changes.entry(change.id).or_insert_with(first);
                    Ok(())
                });
                s.complete = Box::new(|log, writer, id| {
                    log.book.complete(writer, id)?;
                    log.notes.changes.remove(&id);
                    Ok(())
                });
                s.claim = Box::new(|log, writer, now, limit| {
                    let taken = log.book.claim(writer, now, limit);
                    for change in &taken {
                        if let Some((_, first)) = log.notes.changes.get(&change.id).cloned() {
                            log.book.put(writer, &first);
                        }
                    }
                    Ok(taken)
                });
            },
        ),
    ]
}

fn after() -> Vec<Mutant> {
    /// The lease of who recorded it.
    fn is_recorders_over(
        notes: &crate::reference::change_log::Book,
        leases: &crate::reference::change_log::Book,
        id: ChangeId,
        now: SystemTime,
    ) -> bool {
        let recorder = notes.owner(id);
        recorder.is_none_or(|recorder| leases.is_gone(recorder, now))
    }
    vec![
        m(
            "cl-claimed-under-the-old-lease",
            "CL-5",
            &["CL-4"],
            "what is claimed stands under the lease of who recorded it",
            |s| {
                notes_recorders(s);
                s.claim = Box::new(|log, writer, now, limit| {
                    let mut free = log.book.claimable_if(writer, |_| true);
                    free.retain(|id| is_recorders_over(&log.notes, &log.book, *id, now));
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-claimed-under-both-leases",
            "CL-5",
            &["CL-4"],
            "what is claimed is claimed again once the lease of who recorded it or that of who has it has ended",
            |s| {
                notes_recorders(s);
                s.claim = Box::new(|log, writer, now, limit| {
                    let living = log.book.claimable(writer, now);
                    let mut free = log.book.claimable_if(writer, |_| true);
                    free.retain(|id| {
                        living.contains(id) || is_recorders_over(&log.notes, &log.book, *id, now)
                    });
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-lease-goes-with-the-change",
            "CL-5",
            &["CL-4"],
            "who claims changes takes the lease of their owner over in place of an own one",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let free = log.book.claimable(writer, now);
                    for id in free.iter().take(limit) {
                        let owner = log.book.owner(*id);
                        let lease = owner.and_then(|owner| log.book.leases.get(&owner).copied());
                        if let Some(lease) = lease {
                            log.book.leases.insert(writer, lease);
                        }
                    }
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
    ]
}
