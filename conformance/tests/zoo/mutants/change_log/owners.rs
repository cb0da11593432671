//! Changes that are struck out too much or too little, and those that anyone may touch.

use larder_traits::{Change, ChangeId, ErrorKind, Fault, ObjectContext, ObjectId, Step};

use super::{half, m, notes_recorders};
use crate::mutants::Mutant;
use crate::reference::change_log::conflict;

pub(super) fn owners() -> Vec<Mutant> {
    [completes(), whose(), refusals()]
        .into_iter()
        .flatten()
        .collect()
}

fn completes() -> Vec<Mutant> {
    vec![
        m(
            "cl-complete-range",
            "CL-2",
            &[],
            "striking out a change takes all along whose ids begin as its own does",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    log.book.complete(writer, id)?;
                    let start = half(id.into_bytes());
                    let same = |it: &ChangeId| half(it.into_bytes()) == start;
                    log.book
                        .changes
                        .retain(|id, (owner, _)| *owner != writer || !same(id));
                    Ok(())
                });
            },
        ),
        m(
            "cl-complete-next",
            "CL-2",
            &[],
            "striking out a change that is not there takes the next one",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    log.book.check_owner(writer, id)?;
                    let next = log.book.changes.range(id..).next().map(|(id, _)| *id);
                    if let Some(next) = next.filter(|it| log.book.owner(*it) == Some(writer)) {
                        log.book.changes.remove(&next);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "cl-complete-object",
            "CL-2",
            &[],
            "striking out a change takes the others of its object along",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    log.book.check_owner(writer, id)?;
                    if let Some((_, done)) = log.book.changes.remove(&id) {
                        let same = |it: &Change| it.object == done.object;
                        log.book
                            .changes
                            .retain(|_, (owner, it)| *owner != writer || !same(it));
                    }
                    Ok(())
                });
            },
        ),
        m(
            "cl-complete-absent-fails",
            "CL-2",
            &[],
            "striking out what is not there is an error",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    if log.book.owner(id).is_none() {
                        return Err(Fault::not_applied(ErrorKind::NotFound, "no such change"));
                    }
                    log.book.complete(writer, id)
                });
            },
        ),
        m(
            "cl-complete-tombstone",
            "CL-2",
            &["CL-1"],
            "a change that was struck out is not taken again",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    log.book.check_owner(writer, id)?;
                    if let Some(done) = log.book.changes.remove(&id) {
                        log.notes.changes.insert(id, done);
                    }
                    Ok(())
                });
                s.record = Box::new(|log, writer, change| {
                    if log.notes.changes.contains_key(&change.id) {
                        return Ok(());
                    }
                    log.book.record(writer, change)
                });
            },
        ),
        m(
            "cl-complete-uncovers",
            "CL-2",
            &["CL-1"],
            "striking out a change uncovers what was recorded under its id before",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    let old = log.book.changes.get(&change.id).cloned();
                    log.book.record(writer, change)?;
                    if let Some(old) = old {
                        log.notes.changes.insert(change.id, old);
                    }
                    Ok(())
                });
                s.complete = Box::new(|log, writer, id| {
                    log.book.complete(writer, id)?;
                    if let Some(old) = log.notes.changes.remove(&id) {
                        log.book.changes.insert(id, old);
                    }
                    Ok(())
                });
            },
        ),
        m(
            "cl-complete-keeps-owner",
            "CL-2",
            &["CL-3"],
            "the id of a change that was struck out stays its writer's",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    log.book.check_owner(writer, id)?;
                    if let Some(done) = log.book.changes.remove(&id) {
                        log.notes.changes.insert(id, done);
                    }
                    Ok(())
                });
                s.record = Box::new(|log, writer, change| {
                    log.notes.check_owner(writer, change.id)?;
                    log.book.record(writer, change)
                });
            },
        ),
        m(
            "cl-complete-reserves",
            "CL-2",
            &["CL-3"],
            "who strikes out what is not there owns the id from then on",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    if log.book.owner(id).is_none() {
                        let nothing = ObjectId::new(ObjectContext::new("", Vec::new()), "");
                        log.notes
                            .put(writer, &Change::new(id, nothing, Step::Remove));
                    }
                    log.book.complete(writer, id)
                });
                s.record = Box::new(|log, writer, change| {
                    log.notes.check_owner(writer, change.id)?;
                    log.notes.changes.remove(&change.id);
                    log.book.record(writer, change)
                });
            },
        ),
    ]
}

fn whose() -> Vec<Mutant> {
    vec![
        m(
            "cl-record-takes-over",
            "CL-3",
            &[],
            "whoever records a change owns it",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.put(writer, change);
                    Ok(())
                });
            },
        ),
        m(
            "cl-complete-anyones",
            "CL-3",
            &["CL-2"],
            "anyone may strike out a change",
            |s| {
                s.complete = Box::new(|log, _, id| {
                    log.book.changes.remove(&id);
                    Ok(())
                });
            },
        ),
        m(
            "cl-record-over-leaseless",
            "CL-3",
            &[],
            "a change whose writer has no lease is free to be recorded over",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    let owner = log.book.owner(change.id);
                    if owner.is_some_and(|owner| log.book.leases.contains_key(&owner)) {
                        log.book.check_owner(writer, change.id)?;
                    }
                    log.book.put(writer, change);
                    Ok(())
                });
            },
        ),
        m(
            "cl-complete-leaseless",
            "CL-3",
            &[],
            "a change whose writer has no lease is free to be struck out",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    let owner = log.book.owner(id);
                    if owner.is_some_and(|owner| log.book.leases.contains_key(&owner)) {
                        log.book.check_owner(writer, id)?;
                    }
                    log.book.changes.remove(&id);
                    Ok(())
                });
            },
        ),
        m(
            "cl-record-of-recorder",
            "CL-3",
            &["CL-5"],
            "who recorded a change may go on to record it after it was claimed",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    if log.notes.owner(change.id) != Some(writer) {
                        log.book.check_owner(writer, change.id)?;
                        log.notes.put(writer, change);
                    }
                    log.book.put(writer, change);
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
            "cl-renew-brings-back",
            "CL-3",
            &["CL-5"],
            "who renews a lease gets back what was claimed meanwhile",
            |s| {
                notes_recorders(s);
                s.renew = Box::new(|log, writer, until| {
                    log.book.renew(writer, until);
                    let own: Vec<_> = log.notes.of(writer).iter().map(|it| it.id).collect();
                    log.book.take(writer, own, usize::MAX);
                    Ok(())
                });
            },
        ),
        m(
            "cl-loser-barred",
            "CL-3",
            &["CL-2"],
            "who lost a change to a claim can never record its id again",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    for id in log.book.claimable(writer, now).into_iter().take(limit) {
                        if let Some(lost) = log.book.changes.get(&id) {
                            log.notes.changes.insert(id, lost.clone());
                        }
                    }
                    Ok(log.book.claim(writer, now, limit))
                });
                s.record = Box::new(|log, writer, change| {
                    if log.notes.owner(change.id) == Some(writer) {
                        return Err(conflict());
                    }
                    log.book.record(writer, change)
                });
            },
        ),
    ]
}

fn refusals() -> Vec<Mutant> {
    vec![
        m(
            "cl-record-foreign-ok",
            "CL-3",
            &[],
            "recording another's change is Ok without effect",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    // Whoever it belongs to has the last word.
                    drop(log.book.record(writer, change));
                    Ok(())
                });
            },
        ),
        m(
            "cl-complete-foreign-ok",
            "CL-3",
            &[],
            "striking out another's change is Ok without effect",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    drop(log.book.complete(writer, id));
                    Ok(())
                });
            },
        ),
        m(
            "cl-refused-applies",
            "CL-3",
            &["C-1"],
            "a record that is refused is kept for the owner all the same",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    let recorded = log.book.record(writer, change);
                    if let (Err(_), Some(owner)) = (&recorded, log.book.owner(change.id)) {
                        log.book.put(owner, change);
                    }
                    recorded
                });
            },
        ),
        m(
            "cl-refused-unknown",
            "CL-3",
            &["C-1"],
            "that a change belongs to another is found out with an unknown outcome",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.record(writer, change).map_err(Fault::now_unknown)
                });
            },
        ),
        m(
            "cl-refused-not-found",
            "CL-3",
            &[],
            "the change of another is reported as not found by who wants to strike it out",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    let none = |_| Fault::not_applied(ErrorKind::NotFound, "no such change");
                    log.book.complete(writer, id).map_err(none)
                });
            },
        ),
    ]
}
