//! Wrong only where two features meet: each is right by itself, and one of them was made without the other in mind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::{Change, ChangeId, ObjectContext, WriterId};

use super::field::note;
use super::{edited, m};
use crate::mutants::Mutant;
use crate::reference::change_log::{Log, Store, conflict};
use crate::reference::{Due, behind, lock};

pub(super) fn combined() -> Vec<Mutant> {
    [
        fields(),
        repeated(),
        pages(),
        claims(),
        leases(),
        indexes(),
        dropped(),
        again(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The parts of a context, one after the other.
fn text(context: &ObjectContext) -> String {
    let scopes = context.scopes.iter();
    let scopes = scopes.flat_map(|scope| [&scope.name[..], &scope.value]);
    [&context.use_case[..]].into_iter().chain(scopes).collect()
}

fn fields() -> Vec<Mutant> {
    vec![
        m(
            "cl-contexts-by-their-text",
            "CL-1",
            &["CL-5"],
            "contexts are kept once, and found again by their parts put together with nothing between",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.check_owner(writer, change.id)?;
                    let mut kept = change.clone();
                    let wanted = text(&change.object.context);
                    let others = log.book.changes.values().map(|(_, it)| it);
                    let mut others = others.filter(|it| it.id != change.id);
                    let known = others.find(|it| text(&it.object.context) == wanted);
                    if let Some(known) = known {
                        kept.object.context = known.object.context.clone();
                    }
                    log.book.put(writer, &kept);
                    Ok(())
                });
            },
        ),
        m(
            "cl-scope-without-a-value",
            "CL-1",
            &["CL-5"],
            "a scope whose value is empty is left out",
            |s| {
                s.record = edited(|change| {
                    let scopes = &mut change.object.context.scopes;
                    scopes.retain(|scope| !scope.value.is_empty());
                });
            },
        ),
    ]
}

fn repeated() -> Vec<Mutant> {
    vec![
        m(
            "cl-complete-repeated-is-done",
            "CL-3",
            &["CL-2"],
            "who struck out a change is told that it is done whenever it asks again, also once the id is another's",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.record(writer, change)?;
                    if log.notes.owner(change.id) == Some(writer) {
                        log.notes.changes.remove(&change.id);
                    }
                    Ok(())
                });
                s.complete = Box::new(|log, writer, id| {
                    if log.notes.owner(id) == Some(writer) {
                        return Ok(());
                    }
                    log.book.complete(writer, id)?;
                    log.notes.put(writer, &note(id));
                    Ok(())
                });
            },
        ),
        m(
            "cl-record-seen-before",
            "CL-1",
            &["CL-2", "CL-5"],
            "a handle takes a record for a repeated one if it has sent the same before, whatever was recorded under the id between",
            |s| {
                let sent = Arc::new(Mutex::new(BTreeMap::<_, Vec<Change>>::new()));
                let done = Arc::clone(&sent);
                s.record = Box::new(move |log, writer, change| {
                    log.book.check_owner(writer, change.id)?;
                    let mut sent = lock(&sent);
                    let of_id = sent.entry((change.id, writer)).or_default();
                    if !of_id.contains(change) {
                        of_id.push(change.clone());
                        log.book.put(writer, change);
                    }
                    Ok(())
                });
                s.complete = Box::new(move |log, writer, id| {
                    log.book.complete(writer, id)?;
                    lock(&done).remove(&(id, writer));
                    Ok(())
                });
            },
        ),
    ]
}

fn pages() -> Vec<Mutant> {
    /// How many entries are read at a time.
    const PAGE: usize = 100;
    vec![
        m(
            "cl-list-page-of-struck-out",
            "CL-1",
            &["CL-2", "CL-3"],
            "a list is read in pages, struck out changes included, and one of which nothing is left is taken for the end",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.record(writer, change)?;
                    log.notes.changes.remove(&change.id);
                    Ok(())
                });
                notes_completed(s);
                s.list = Box::new(|log, writer| {
                    let own = log.book.of(writer).into_iter();
                    let own: BTreeMap<_, _> = own.map(|change| (change.id, change)).collect();
                    let struck_out = log.notes.of(writer).into_iter().map(|it| it.id);
                    let mut entries: Vec<_> = struck_out.chain(own.keys().copied()).collect();
                    entries.sort();
                    let mut found = Vec::new();
                    for page in entries.chunks(PAGE) {
                        let before = found.len();
                        found.extend(page.iter().filter_map(|id| own.get(id).cloned()));
                        if found.len() == before {
                            break;
                        }
                    }
                    Ok(found)
                });
            },
        ),
        m(
            "cl-claim-page-of-the-living",
            "CL-5",
            &[],
            "a claim reads all changes in pages, and one in which there is none to claim is taken for the end",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let free: BTreeSet<_> = log.book.claimable(writer, now).into_iter().collect();
                    let all: Vec<_> = log.book.changes.keys().copied().collect();
                    let mut found: Vec<ChangeId> = Vec::new();
                    for page in all.chunks(PAGE) {
                        let before = found.len();
                        found.extend(page.iter().filter(|id| free.contains(*id)));
                        if found.len() == before {
                            break;
                        }
                    }
                    Ok(log.book.take(writer, found, limit))
                });
            },
        ),
    ]
}

fn claims() -> Vec<Mutant> {
    vec![
        m(
            "cl-claim-one-of-each-object",
            "CL-5",
            &[],
            "a claim locks the objects of what it takes, and leaves a second change of one for the next claim",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let mut free = log.book.claimable(writer, now);
                    let mut objects = Vec::new();
                    free.retain(|id| {
                        let object = log.book.changes.get(id).map(|(_, it)| it.object.clone());
                        let is_new = !objects.contains(&object);
                        if is_new {
                            objects.push(object);
                        }
                        is_new
                    });
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-claim-needs-a-payload",
            "CL-5",
            &[],
            "a claim looks for what there is to clear away, and leaves changes that name no payload",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let mut free = log.book.claimable(writer, now);
                    free.retain(|id| {
                        let change = log.book.changes.get(id);
                        change.is_some_and(|(_, it)| it.created.is_some() || it.replaced.is_some())
                    });
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-gone-writer-barred",
            "CL-3",
            &["CL-1", "CL-4"],
            "a writer that was claimed from can record nothing until it renews its lease",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    for id in log.book.claimable(writer, now).into_iter().take(limit) {
                        let owner = log.book.owner(id);
                        log.notes.leases.extend(owner.map(|owner| (owner, now)));
                    }
                    Ok(log.book.claim(writer, now, limit))
                });
                s.record = Box::new(|log, writer, change| {
                    if log.notes.leases.contains_key(&writer) {
                        return Err(conflict());
                    }
                    log.book.record(writer, change)
                });
                s.renew = Box::new(|log, writer, until| {
                    log.notes.leases.remove(&writer);
                    log.book.renew(writer, until);
                    Ok(())
                });
            },
        ),
    ]
}

fn leases() -> Vec<Mutant> {
    vec![
        m(
            "cl-leases-by-their-ends",
            "CL-4",
            &["CL-5"],
            "leases are kept by their ends, and of two that end at one time the first is forgotten",
            |s| {
                s.renew = Box::new(|log, writer, until| {
                    log.book.renew(writer, until);
                    let end = log.book.leases.get(&writer).copied();
                    let is_kept = |it: &WriterId, at| *it == writer || Some(at) != end;
                    log.book.leases.retain(|it, at| is_kept(it, *at));
                    Ok(())
                });
            },
        ),
        m(
            "cl-no-lease-remembered",
            "C-2",
            &["CL-4", "CL-5"],
            "a handle remembers that a writer had no lease, and is not told of one that it got through another handle",
            |s| {
                let without = Arc::new(Mutex::new(BTreeSet::new()));
                let renewed = Arc::clone(&without);
                s.claim = Box::new(move |log, writer, now, limit| {
                    let mut without = lock(&without);
                    for (owner, _) in log.book.changes.values() {
                        if !log.book.leases.contains_key(owner) {
                            without.insert(*owner);
                        }
                    }
                    let is_gone = |it: WriterId| without.contains(&it) || log.book.is_gone(it, now);
                    let free = log.book.claimable_if(writer, is_gone);
                    Ok(log.book.take(writer, free, limit))
                });
                s.renew = Box::new(move |log, writer, until| {
                    lock(&renewed).remove(&writer);
                    log.book.renew(writer, until);
                    Ok(())
                });
            },
        ),
    ]
}

/// Notes of each writer what it has struck out.
fn notes_completed(s: &mut Store) {
    s.complete = Box::new(|log, writer, id| {
        let is_there = log.book.owner(id) == Some(writer);
        log.book.complete(writer, id)?;
        if is_there {
            log.notes.put(writer, &note(id));
        }
        Ok(())
    });
}

/// A record also does this to the log.
fn records(s: &mut Store, also: fn(&mut Log, WriterId, ChangeId)) {
    s.record = Box::new(move |log, writer, change| {
        log.book.record(writer, change)?;
        also(log, writer, change.id);
        Ok(())
    });
}

fn indexes() -> Vec<Mutant> {
    vec![
        m(
            "cl-ids-share-a-table",
            "CL-4",
            &["CL-1", "CL-5"],
            "leases and changes are rows of one table, and a change whose id is that of a writer takes the place of its lease",
            |s| {
                records(s, |log, _, id| {
                    let writer = WriterId::from_bytes(id.into_bytes());
                    log.book.leases.remove(&writer);
                });
                s.renew = Box::new(|log, writer, until| {
                    let id = ChangeId::from_bytes(writer.into_bytes());
                    log.book.changes.remove(&id);
                    log.book.renew(writer, until);
                    Ok(())
                });
            },
        ),
        m(
            "cl-owner-index-keeps-the-struck-out",
            "CL-3",
            &["CL-1", "CL-2"],
            "a complete leaves the id in the index of its writer, where it is found again once another one records it",
            |s| {
                records(s, |log, writer, id| {
                    if log.notes.owner(id) == Some(writer) {
                        log.notes.changes.remove(&id);
                    }
                });
                notes_completed(s);
                s.list = Box::new(|log, writer| {
                    let mut found = log.book.of(writer);
                    for left in log.notes.of(writer) {
                        let there = log.book.changes.get(&left.id);
                        let others = there.filter(|(owner, _)| *owner != writer);
                        found.extend(others.map(|(_, change)| change.clone()));
                    }
                    Ok(found)
                });
            },
        ),
    ]
}

fn dropped() -> Vec<Mutant> {
    let mutant = m(
        "cl-drop-completes-late",
        "C-6",
        &["CL-6", "CL-2"],
        "a complete that is dropped goes on in the background, and is declared fenced",
        |s| {
            s.slow_complete = Some(Box::new(|place, writer, id| {
                async move {
                    let late = Arc::clone(&place);
                    let left = Due::new(move || {
                        behind(move || lock(&late.log).book.complete(writer, id));
                    });
                    tokio::task::yield_now().await;
                    left.call_off();
                    lock(&place.log).book.complete(writer, id)
                }
                .boxed()
            }));
        },
    );
    vec![mutant.awaiting(Engine::Cancel)]
}

fn again() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "cl-record-again-after-complete",
            "CL-6",
            &["C-1", "CL-1", "CL-2"],
            "a record whose answer was lost is made again after a pause, be it struck out meanwhile",
            |s| {
                s.slow_record = Some(Box::new(|place, writer, change| {
                    async move {
                        let sent = place
                            .medium
                            .timed_again(|| lock(&place.log).book.record(writer, &change));
                        let ended = sent.await;
                        ended.unwrap_or_else(|trouble| Err(trouble.at_commit()))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-complete-again-over-record",
            "CL-6",
            &["C-1", "CL-1", "CL-2"],
            "a complete whose answer was lost is made again after a pause, be the change recorded anew meanwhile",
            |s| {
                s.slow_complete = Some(Box::new(|place, writer, id| {
                    async move {
                        let sent = place
                            .medium
                            .timed_again(|| lock(&place.log).book.complete(writer, id));
                        let ended = sent.await;
                        ended.unwrap_or_else(|trouble| Err(trouble.at_commit()))
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}
