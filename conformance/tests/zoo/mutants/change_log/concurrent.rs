//! Wrong only while several calls run at once. Each call that was begun is done in full, even if it is dropped.

use futures_util::FutureExt;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::{Due, gap, lock};

pub(super) fn concurrent() -> Vec<Mutant> {
    [claims(), writes(), lists()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Lin))
        .collect()
}

fn claims() -> Vec<Mutant> {
    vec![
        m(
            "cl-claim-looks-then-takes",
            "CL-5",
            &["CL-6"],
            "a claim looks what there is, and takes it a moment later, whoever has it by then",
            |s| {
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let free = lock(&place.log).book.claimable(writer, now);
                        gap().await;
                        Ok(lock(&place.log).book.take(writer, free, limit))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-claim-answers-with-what-it-saw",
            "CL-5",
            &["CL-6"],
            "a claim takes what is there, and answers with what it saw a moment before",
            |s| {
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let seen = {
                            let log = lock(&place.log);
                            let free = log.book.claimable(writer, now).into_iter();
                            let seen = free.filter_map(|id| log.book.changes.get(&id).cloned());
                            seen.take(limit).collect::<Vec<_>>()
                        };
                        gap().await;
                        let book = &mut lock(&place.log).book;
                        let is_there =
                            |owner, id| book.owner(id) == Some(owner) && book.is_gone(owner, now);
                        let taken: Vec<_> = seen
                            .into_iter()
                            .filter(|(owner, it)| is_there(*owner, it.id))
                            .map(|(_, change)| change)
                            .collect();
                        book.take(writer, taken.iter().map(|it| it.id), limit);
                        Ok(taken)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-claim-puts-back-what-it-saw",
            "CL-5",
            &["CL-6"],
            "a claim writes what it saw under its writer's name, and looks only whether the owner is the same",
            |s| {
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let seen = {
                            let log = lock(&place.log);
                            let free = log.book.claimable(writer, now).into_iter();
                            let seen = free.filter_map(|id| log.book.changes.get(&id).cloned());
                            seen.take(limit).collect::<Vec<_>>()
                        };
                        gap().await;
                        let book = &mut lock(&place.log).book;
                        let mut taken = Vec::new();
                        for (owner, change) in seen {
                            if book.owner(change.id) == Some(owner) && book.is_gone(owner, now) {
                                book.put(writer, &change);
                                taken.push(change);
                            }
                        }
                        Ok(taken)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-claim-misses-a-renewal",
            "CL-6",
            &["CL-5", "CL-4"],
            "a claim looks at the leases, and takes a moment later what still belongs to the same writers",
            |s| {
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let leases = lock(&place.log).book.clone();
                        gap().await;
                        let book = &mut lock(&place.log).book;
                        let free = book.claimable_if(writer, |owner| leases.is_gone(owner, now));
                        Ok(book.take(writer, free, limit))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-claim-in-steps",
            "CL-6",
            &["CL-5"],
            "a claim takes one change after the other",
            |s| {
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let mut taken = Vec::new();
                        // A claim that is dropped is as good as one with a smaller limit.
                        while taken.len() < limit {
                            let next = lock(&place.log).book.claim(writer, now, 1);
                            if next.is_empty() {
                                break;
                            }
                            taken.extend(next);
                            if taken.len() < 8 {
                                gap().await;
                            }
                        }
                        Ok(taken)
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

fn writes() -> Vec<Mutant> {
    vec![
        m(
            "cl-record-checks-then-writes",
            "CL-3",
            &["CL-6", "CL-5"],
            "a record looks whose the change is, and writes it a moment later",
            |s| {
                s.slow_record = Some(Box::new(|place, writer, change| {
                    async move {
                        lock(&place.log).book.check_owner(writer, change.id)?;
                        let put = Due::new(|| lock(&place.log).book.put(writer, &change));
                        gap().await;
                        put.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-complete-checks-then-strikes",
            "CL-3",
            &["CL-6", "CL-5", "CL-2"],
            "a complete looks whose the change is, and strikes it out a moment later",
            |s| {
                s.slow_complete = Some(Box::new(|place, writer, id| {
                    async move {
                        lock(&place.log).book.check_owner(writer, id)?;
                        let strike = Due::new(|| drop(lock(&place.log).book.changes.remove(&id)));
                        gap().await;
                        strike.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-record-removes-then-writes",
            "CL-6",
            &["CL-1"],
            "a record removes what was there, and then writes the new change",
            |s| {
                s.slow_record = Some(Box::new(|place, writer, change| {
                    async move {
                        lock(&place.log).book.complete(writer, change.id)?;
                        // What another recorded meanwhile stays.
                        let put = Due::new(|| drop(lock(&place.log).book.record(writer, &change)));
                        gap().await;
                        put.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-record-twice",
            "CL-6",
            &["CL-1", "CL-2"],
            "a record is delivered twice, the second time a little later",
            |s| {
                s.slow_record = Some(Box::new(|place, writer, change| {
                    async move {
                        lock(&place.log).book.record(writer, &change)?;
                        let again =
                            Due::new(|| drop(lock(&place.log).book.record(writer, &change)));
                        gap().await;
                        again.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-renew-reads-then-writes",
            "CL-4",
            &["CL-6", "C-2"],
            "a renewal reads the lease, and writes the longer one a moment later",
            |s| {
                s.slow_renew = Some(Box::new(|place, writer, until| {
                    async move {
                        let old = lock(&place.log).book.leases.get(&writer).copied();
                        let kept = old.map_or(until, |old| old.max(until));
                        let write = Due::new(|| {
                            lock(&place.log).book.leases.insert(writer, kept);
                        });
                        gap().await;
                        write.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

fn lists() -> Vec<Mutant> {
    vec![
        m(
            "cl-list-in-pages",
            "CL-6",
            &["CL-1"],
            "a list reads one change after the other",
            |s| {
                s.slow_list = Some(Box::new(|place, writer, ()| {
                    async move {
                        let ids: Vec<_> = {
                            let own = lock(&place.log).book.of(writer);
                            own.iter().map(|change| change.id).collect()
                        };
                        let mut listed = Vec::new();
                        for id in ids {
                            if listed.len() < 8 {
                                gap().await;
                            }
                            let log = lock(&place.log);
                            let found = log.book.changes.get(&id);
                            let own = found.filter(|(owner, _)| *owner == writer);
                            listed.extend(own.map(|(_, change)| change.clone()));
                        }
                        Ok(listed)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-list-behind",
            "CL-6",
            &["C-2", "CL-1", "CL-5"],
            "every second handle lists what it hears of a moment after others could see it",
            |s| {
                s.slow_record = Some(Box::new(|place, writer, change| {
                    async move {
                        let id = change.id;
                        {
                            let mut log = lock(&place.log);
                            let old = log.book.changes.get(&id).cloned();
                            log.book.record(writer, &change)?;
                            if let Some(old) = old {
                                log.notes.changes.insert(id, old);
                            }
                        }
                        let told = Due::new(|| drop(lock(&place.log).notes.changes.remove(&id)));
                        gap().await;
                        told.settle();
                        Ok(())
                    }
                    .boxed()
                }));
                let mut log = lock(&s.place.log);
                log.counter += 1;
                if log.counter.is_multiple_of(2) {
                    s.list = Box::new(|log, writer| {
                        let mut own = log.book.of(writer);
                        for change in &mut own {
                            if let Some((_, old)) = log.notes.changes.get(&change.id) {
                                *change = old.clone();
                            }
                        }
                        Ok(own)
                    });
                }
            },
        ),
    ]
}
