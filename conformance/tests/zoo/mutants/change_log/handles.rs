//! Wrong only with several handles, or once one is opened or closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use larder_traits::{Change, ErrorKind, Fault, WriterId};

use super::m;
use crate::mutants::Mutant;
use crate::reference::change_log::Book;
use crate::reference::{gap, lock};

pub(super) fn handles() -> Vec<Mutant> {
    [memories(), opens(), neighbours()]
        .into_iter()
        .flatten()
        .collect()
}

fn memories() -> Vec<Mutant> {
    vec![
        m(
            "cl-list-cached",
            "C-2",
            &["CL-6", "CL-1", "CL-3", "CL-5"],
            "a handle remembers what it listed until it changes something itself",
            |s| {
                let cache = Arc::new(Mutex::new(BTreeMap::<WriterId, Vec<Change>>::new()));
                let [recorded, completed, claimed] = [(); 3].map(|()| Arc::clone(&cache));
                s.list = Box::new(move |log, writer| {
                    let mut cache = lock(&cache);
                    let listed = cache.entry(writer).or_insert_with(|| log.book.of(writer));
                    Ok(listed.clone())
                });
                s.record = Box::new(move |log, writer, change| {
                    lock(&recorded).clear();
                    log.book.record(writer, change)
                });
                s.complete = Box::new(move |log, writer, id| {
                    lock(&completed).clear();
                    log.book.complete(writer, id)
                });
                s.claim = Box::new(move |log, writer, now, limit| {
                    lock(&claimed).clear();
                    Ok(log.book.claim(writer, now, limit))
                });
            },
        ),
        m(
            "cl-private-handle",
            "C-2",
            &["CL-6", "CL-1"],
            "a handle is a log of its own, which the place gets when it is closed",
            |s| {
                let own = Arc::new(Mutex::new(lock(&s.place.log).book.clone()));
                let [a, b, c, d, e] = [(); 5].map(|()| Arc::clone(&own));
                s.record = Box::new(move |_, writer, change| lock(&a).record(writer, change));
                s.complete = Box::new(move |_, writer, id| lock(&b).complete(writer, id));
                s.list = Box::new(move |_, writer| Ok(lock(&c).of(writer)));
                s.renew = Box::new(move |_, writer, until| {
                    lock(&d).renew(writer, until);
                    Ok(())
                });
                s.claim =
                    Box::new(move |_, writer, now, limit| Ok(lock(&e).claim(writer, now, limit)));
                s.close = Box::new(move |log| {
                    let Book { changes, leases } = lock(&own).clone();
                    log.book.changes.extend(changes);
                    log.book.leases.extend(leases);
                });
            },
        ),
        m(
            "cl-leases-of-a-handle",
            "C-2",
            &["CL-4", "CL-6", "CL-5"],
            "a handle knows the leases that were renewed through it",
            |s| {
                let own = Arc::new(Mutex::new(Book::default()));
                let leases = Arc::clone(&own);
                s.renew = Box::new(move |_, writer, until| {
                    lock(&own).renew(writer, until);
                    Ok(())
                });
                s.claim = Box::new(move |log, writer, now, limit| {
                    let leases = lock(&leases);
                    let free = log
                        .book
                        .claimable_if(writer, |owner| leases.is_gone(owner, now));
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-handle-trusts-itself",
            "C-2",
            &["CL-3", "CL-5", "CL-6"],
            "a handle does not ask again for the owner of what was recorded through it",
            |s| {
                let known = Arc::new(Mutex::new(BTreeSet::new()));
                s.record = Box::new(move |log, writer, change| {
                    if !lock(&known).contains(&(writer, change.id)) {
                        log.book.check_owner(writer, change.id)?;
                        lock(&known).insert((writer, change.id));
                    }
                    log.book.put(writer, change);
                    Ok(())
                });
            },
        ),
        m(
            "cl-renewed-by-handle",
            "C-2",
            &["CL-4", "CL-6"],
            "a handle leaves out a renewal that is not later than the last one that went through it, of whatever writer",
            |s| {
                let last = Arc::new(Mutex::new(None));
                s.renew = Box::new(move |log, writer, until| {
                    let mut last = lock(&last);
                    if last.is_none_or(|last| last < until) {
                        *last = Some(until);
                        log.book.renew(writer, until);
                    }
                    Ok(())
                });
            },
        ),
    ]
}

fn opens() -> Vec<Mutant> {
    vec![
        m(
            "cl-open-truncates",
            "C-2",
            &["CL-1"],
            "opening a log makes it empty",
            |s| lock(&s.place.log).book = Book::default(),
        ),
        m(
            "cl-open-forgets-leases",
            "C-2",
            &["CL-4"],
            "who opens a log takes all writers for gone",
            |s| lock(&s.place.log).book.leases.clear(),
        ),
        m(
            "cl-close-ends-leases",
            "C-2",
            &["CL-4"],
            "with a handle the leases end that were renewed through it",
            |s| {
                let own = Arc::new(Mutex::new(BTreeSet::new()));
                let renewed = Arc::clone(&own);
                s.renew = Box::new(move |log, writer, until| {
                    log.book.renew(writer, until);
                    lock(&renewed).insert(writer);
                    Ok(())
                });
                s.close = Box::new(move |log| {
                    let own = lock(&own);
                    log.book.leases.retain(|writer, _| !own.contains(writer));
                });
            },
        ),
        m(
            "cl-close-completes",
            "C-2",
            &["CL-1"],
            "with a handle the changes are struck out that were recorded through it",
            |s| {
                let own = Arc::new(Mutex::new(BTreeSet::new()));
                let recorded = Arc::clone(&own);
                s.record = Box::new(move |log, writer, change| {
                    log.book.record(writer, change)?;
                    lock(&recorded).insert(change.id);
                    Ok(())
                });
                s.close = Box::new(move |log| {
                    let own = lock(&own);
                    log.book.changes.retain(|id, _| !own.contains(id));
                });
            },
        ),
    ]
}

fn neighbours() -> Vec<Mutant> {
    vec![
        m(
            "cl-close-ends-records-of-others",
            "C-2",
            &["CL-6"],
            "handles share a connection, and the end of one of them ends the records that others have under way",
            |s| {
                s.slow_record = Some(Box::new(|place, writer, change| {
                    async move {
                        let closed = lock(&place.log).counter;
                        gap().await;
                        let mut log = lock(&place.log);
                        if log.counter != closed {
                            let why = "the connection was closed";
                            return Err(Fault::not_applied(ErrorKind::Closed, why));
                        }
                        log.book.record(writer, &change)
                    }
                    .boxed()
                }));
                s.close = Box::new(|log| log.counter += 1);
            },
        ),
        m(
            "cl-open-clears-laid",
            "C-2",
            &["CL-1", "CL-6"],
            "records wait to be written together, and whoever opens the log begins with none that wait",
            |s| {
                lock(&s.place.log).laid.clear();
                s.slow_record = Some(Box::new(|place, writer, change| {
                    async move {
                        let ticket = {
                            let mut log = lock(&place.log);
                            log.counter += 1;
                            let ticket = log.counter;
                            log.laid.push((ticket, writer, change));
                            ticket
                        };
                        gap().await;
                        let mut log = lock(&place.log);
                        let at = log.laid.iter().position(|(of, ..)| *of == ticket);
                        at.map_or(Ok(()), |at| {
                            let (_, writer, change) = log.laid.remove(at);
                            log.book.record(writer, &change)
                        })
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-close-ends-claims-of-others",
            "C-2",
            &["CL-6", "CL-5", "CL-3"],
            "a claim that is under way while a handle of the log is closed finds nothing",
            |s| {
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let closed = lock(&place.log).counter;
                        gap().await;
                        let mut log = lock(&place.log);
                        if log.counter != closed {
                            return Ok(Vec::new());
                        }
                        Ok(log.book.claim(writer, now, limit))
                    }
                    .boxed()
                }));
                s.close = Box::new(|log| log.counter += 1);
            },
        ),
    ]
}
