//! As logs in the field have been wrong: by a text that is not what it was once it was a line, by a cache that holds so many,
//! by a lock that is tried once, or by what is made of the log when it is read again or written anew.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use larder_conformance::{Caps, Engine};
use larder_traits::{
    Change, ChangeId, Durability, ErrorKind, Fault, ObjectContext, ObjectId, Scope, Step, WriterId,
};

use super::{edited, m, with_caps};
use crate::mutants::Mutant;
use crate::mutants::files::f;
use crate::reference::change_log::{CAPS, Log, Store};
use crate::reference::files::{self, LogFlaw};
use crate::reference::{gap, lock};

/// What a log in files declares that is about processes only.
const PROCESS: Caps = files::CAPS.with_durability(Durability::Process);

/// A log that is there again when it is opened again. Nobody takes the process or the power away.
const DURABLE: Caps = CAPS.with_durability(Durability::Power);

pub(super) fn field() -> Vec<Mutant> {
    [
        fields(),
        many(),
        opened_again(),
        rewritten(),
        meeting(),
        killed(),
        handles(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// All that a change names.
fn objects(change: &mut Change) -> Vec<&mut ObjectId> {
    let payloads = [&mut change.created, &mut change.replaced];
    let payloads = payloads.into_iter().flatten();
    [&mut change.object].into_iter().chain(payloads).collect()
}

/// A note that tells nothing but its id.
pub(super) fn note(id: ChangeId) -> Change {
    let nothing = ObjectId::new(ObjectContext::new("", Vec::new()), "");
    Change::new(id, nothing, Step::Remove)
}

fn fields() -> Vec<Mutant> {
    vec![
        m(
            "cl-key-line-ends",
            "CL-1",
            &["CL-5"],
            "a change is a line of text, in which other ends of lines are kept as newlines",
            |s| {
                s.record = edited(|change| {
                    for object in objects(change) {
                        object.key = object.key.replace("\r\n", "\n").replace('\r', "\n");
                    }
                });
            },
        ),
        m(
            "cl-scopes-eight",
            "CL-1",
            &["CL-5"],
            "there are columns for eight scopes",
            |s| {
                s.record = edited(|change| {
                    for object in objects(change) {
                        object.context.scopes.truncate(8);
                    }
                });
            },
        ),
        m(
            "cl-scopes-as-a-map",
            "CL-1",
            &["CL-5"],
            "scopes are kept in a map, and of two of one name the last is",
            |s| {
                s.record = edited(|change| {
                    for object in objects(change) {
                        let mut kept = Vec::<Scope>::new();
                        for scope in std::mem::take(&mut object.context.scopes) {
                            match kept.iter_mut().find(|it| it.name == scope.name) {
                                Some(it) => *it = scope,
                                None => kept.push(scope),
                            }
                        }
                        object.context.scopes = kept;
                    }
                });
            },
        ),
        m(
            "cl-payloads-as-a-set",
            "CL-1",
            &["CL-5"],
            "the payloads of a change are a set, and one that is created and replaced is there once",
            |s| {
                s.record = edited(|change| {
                    if change.created == change.replaced {
                        change.replaced = None;
                    }
                });
            },
        ),
        m(
            "cl-objects-by-their-keys",
            "CL-1",
            &["CL-5"],
            "objects are kept once, and found again by their keys, whatever their contexts are",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.check_owner(writer, change.id)?;
                    let same = |it: &&Change| it.object.key == change.object.key;
                    let all = log.book.changes.values().map(|(_, it)| it);
                    let known = all.filter(|it| it.id != change.id).find(same);
                    let mut kept = change.clone();
                    if let Some(known) = known {
                        kept.object = known.object.clone();
                    }
                    log.book.put(writer, &kept);
                    Ok(())
                });
            },
        ),
    ]
}

fn many() -> Vec<Mutant> {
    vec![
        m(
            "cl-limit-beyond-64-bits",
            "CL-5",
            &[],
            "a limit that does not fit a signed number is refused",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    if i64::try_from(limit).is_err() {
                        let why = "the limit is no number of the database";
                        return Err(Fault::not_applied(ErrorKind::InvalidInput, why));
                    }
                    Ok(log.book.claim(writer, now, limit))
                });
            },
        ),
        m(
            "cl-leases-of-the-last",
            "CL-4",
            &["CL-5"],
            "the log knows the leases of the 64 writers that renewed last",
            |s| {
                s.renew = Box::new(|log, writer, until| {
                    log.book.renew(writer, until);
                    // The times tell who came last.
                    log.counter += 1;
                    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(log.counter));
                    log.notes.leases.extend(at.map(|at| (writer, at)));
                    if log.notes.leases.len() > 64 {
                        let leases = log.notes.leases.iter();
                        let oldest = leases.min_by_key(|(_, at)| **at).map(|(it, _)| *it);
                        if let Some(oldest) = oldest {
                            log.notes.leases.remove(&oldest);
                            log.book.leases.remove(&oldest);
                        }
                    }
                    Ok(())
                });
            },
        ),
        m(
            "cl-claim-of-a-page-of-owners",
            "CL-5",
            &[],
            "a claim looks for the writers that are gone, sixteen at most, and takes what is theirs",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let mut owners = Vec::new();
                    let mut free = log.book.claimable(writer, now);
                    free.retain(|id| {
                        let owner = log.book.owner(*id);
                        if !owners.contains(&owner) && owners.len() < 16 {
                            owners.push(owner);
                        }
                        owners.contains(&owner)
                    });
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-list-cached-by-count",
            "C-2",
            &["CL-1", "CL-3", "CL-6"],
            "a handle keeps a list as long as the writer has as many changes as before",
            |s| {
                let kept = Mutex::new(BTreeMap::<WriterId, Vec<Change>>::new());
                s.list = Box::new(move |log, writer| {
                    let own = log.book.of(writer);
                    let mut kept = lock(&kept);
                    let list = kept.entry(writer).or_default();
                    if list.len() != own.len() {
                        *list = own;
                    }
                    Ok(list.clone())
                });
            },
        ),
    ]
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

fn opened_again() -> Vec<Mutant> {
    vec![
        with_caps(
            DURABLE,
            "cl-claims-replayed-late",
            "CL-3",
            &["CL-5", "CL-7", "C-2"],
            "when the log is read again, claims are made again under the leases as they are at its end",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    for id in log.book.claimable(writer, now).into_iter().take(limit) {
                        if let Some((owner, change)) = log.book.changes.get(&id).cloned() {
                            log.notes.put(owner, &change);
                            // It has not renewed since.
                            log.notes.leases.remove(&owner);
                        }
                    }
                    Ok(log.book.claim(writer, now, limit))
                });
                s.renew = Box::new(|log, writer, until| {
                    log.book.renew(writer, until);
                    log.notes.leases.insert(writer, until);
                    Ok(())
                });
                at_last_close(s, |log| {
                    for (id, (owner, _)) in std::mem::take(&mut log.notes.changes) {
                        if log.notes.leases.contains_key(&owner)
                            && let Some(change) = log.book.changes.get_mut(&id)
                        {
                            change.0 = owner;
                        }
                    }
                });
            },
        ),
        with_caps(
            DURABLE,
            "cl-lease-kept-in-seconds",
            "CL-4",
            &["CL-7", "C-2"],
            "the log that is read again has the leases in whole seconds",
            |s| {
                at_last_close(s, |log| {
                    for until in log.book.leases.values_mut() {
                        if let Ok(since) = until.duration_since(SystemTime::UNIX_EPOCH) {
                            let finer = Duration::from_nanos(since.subsec_nanos().into());
                            *until = until.checked_sub(finer).unwrap_or(*until);
                        }
                    }
                });
            },
        ),
        with_caps(
            DURABLE,
            "cl-replaced-not-carried-over",
            "CL-7",
            &["CL-1", "C-2"],
            "the log that is read again does not say what a change takes away",
            |s| {
                at_last_close(s, |log| {
                    let changes = log.book.changes.values_mut();
                    changes.for_each(|(_, change)| change.replaced = None);
                });
            },
        ),
        with_caps(
            DURABLE,
            "cl-replay-first-version",
            "CL-7",
            &["CL-1", "C-2"],
            "when the log is read again, what was recorded first under an id stays",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.record(writer, change)?;
                    let new = || (writer, change.clone());
                    log.notes.changes.entry(change.id).or_insert_with(new);
                    Ok(())
                });
                s.complete = Box::new(|log, writer, id| {
                    log.book.complete(writer, id)?;
                    log.notes.changes.remove(&id);
                    Ok(())
                });
                at_last_close(s, |log| {
                    for (id, (_, first)) in std::mem::take(&mut log.notes.changes) {
                        if let Some(change) = log.book.changes.get_mut(&id) {
                            change.1 = first;
                        }
                    }
                });
            },
        ),
        with_caps(
            DURABLE,
            "cl-refused-is-in-the-log",
            "CL-3",
            &["CL-7", "C-2", "C-1"],
            "a record is logged before it is asked whose the change is, and one that was refused is there when the log is read again",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    let recorded = log.book.record(writer, change);
                    if recorded.is_err() {
                        log.notes.put(writer, change);
                    } else {
                        log.notes.changes.remove(&change.id);
                    }
                    recorded
                });
                at_last_close(s, |log| {
                    let refused = std::mem::take(&mut log.notes.changes);
                    log.book.changes.extend(refused);
                });
            },
        ),
        with_caps(
            DURABLE,
            "cl-refused-complete-is-in-the-log",
            "CL-3",
            &["CL-7", "CL-2", "C-2", "C-1"],
            "a complete is logged before it is asked whose the change is, and one that was refused is made when the log is read again",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    let done = log.book.complete(writer, id);
                    if done.is_err() {
                        log.notes.put(writer, &note(id));
                    }
                    done
                });
                at_last_close(s, |log| {
                    for id in std::mem::take(&mut log.notes.changes).keys() {
                        log.book.changes.remove(id);
                    }
                });
            },
        ),
    ]
}

/// The log is written anew once so many changes were struck out.
const REWRITTEN: u64 = 64;

fn rewritten() -> Vec<Mutant> {
    vec![
        m(
            "cl-rewrite-forgets-claims",
            "CL-3",
            &["CL-5", "CL-1"],
            "a log that has become long is written anew, with each change under the name of who recorded it",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.record(writer, change)?;
                    log.notes.put(writer, change);
                    Ok(())
                });
                s.complete = Box::new(|log, writer, id| {
                    log.book.complete(writer, id)?;
                    log.notes.changes.remove(&id);
                    log.counter += 1;
                    if log.counter.is_multiple_of(REWRITTEN) {
                        for (id, (recorder, _)) in &log.notes.changes {
                            if let Some(change) = log.book.changes.get_mut(id) {
                                change.0 = *recorder;
                            }
                        }
                    }
                    Ok(())
                });
            },
        ),
        m(
            "cl-rewrite-forgets-leases",
            "CL-4",
            &["CL-5"],
            "a log that has become long is written anew, with the leases of those that have changes in it",
            |s| {
                s.complete = Box::new(|log, writer, id| {
                    log.book.complete(writer, id)?;
                    log.counter += 1;
                    if log.counter.is_multiple_of(REWRITTEN) {
                        let owners: Vec<_> = log.book.changes.values().map(|it| it.0).collect();
                        log.book.leases.retain(|it, _| owners.contains(it));
                    }
                    Ok(())
                });
            },
        ),
    ]
}

fn meeting() -> Vec<Mutant> {
    let mutants = vec![m(
        "cl-claim-tries-the-lock",
        "CL-5",
        &["CL-6"],
        "a claim tries to lock the log, and has found nothing if another one has it",
        |s| {
            s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                async move {
                    let Ok(_turn) = place.turn.try_lock() else {
                        return Ok(Vec::new());
                    };
                    gap().await;
                    Ok(lock(&place.log).book.claim(writer, now, limit))
                }
                .boxed()
            }));
        },
    )];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Lin);
    mutants.into_iter().map(awaiting).collect()
}

fn killed() -> Vec<Mutant> {
    vec![
        f(
            "cl-file-again-split",
            "CL-7",
            &["CL-1"],
            "what is recorded again is removed by one commit and put back by another",
            || files::change_log(PROCESS, LogFlaw::AgainSplit),
        ),
        f(
            "cl-file-renewal-split",
            "CL-7",
            &["CL-4"],
            "a lease that is renewed is removed by one commit and put back by another",
            || files::change_log(PROCESS, LogFlaw::RenewalSplit),
        ),
    ]
    .into_iter()
    .map(|mutant| mutant.awaiting(Engine::Kill))
    .collect()
}

fn handles() -> Vec<Mutant> {
    vec![m(
        "cl-handles-leak",
        "C-2",
        &["CL-1"],
        "of 64 files each handle opens one, and closing it closes none",
        |s| {
            let opened = {
                let mut log = lock(&s.place.log);
                log.counter += 1;
                log.counter
            };
            if opened >= 64 {
                s.list = Box::new(|_, _| {
                    let why = "there are too many open files";
                    Err(Fault::not_applied(ErrorKind::Unavailable, why))
                });
            }
        },
    )]
}
