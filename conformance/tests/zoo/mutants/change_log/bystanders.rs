//! Wrong only for those whose calls run beside one that is dropped. A caller that is alone may drop what it likes.

use futures_util::FutureExt;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::change_log::Log;
use crate::reference::{Due, gap, lock};

pub(super) fn bystanders() -> Vec<Mutant> {
    [records(), claims()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Cancel))
        .collect()
}

/// Writes all that was laid down, and notes what becomes of each.
fn flush(log: &mut Log) {
    for (ticket, writer, change) in std::mem::take(&mut log.laid) {
        let recorded = log.book.record(writer, &change);
        log.told.insert(ticket, recorded);
    }
}

fn records() -> Vec<Mutant> {
    vec![m(
        "cl-drop-takes-back-the-last",
        "C-6",
        &["CL-1", "CL-6"],
        "records are laid down and written together; one that is dropped takes the last of them back, be it another's",
        |s| {
            s.slow_record = Some(Box::new(|place, writer, change| {
                async move {
                    let ticket = {
                        let log = &mut *lock(&place.log);
                        log.counter += 1;
                        log.laid.push((log.counter, writer, change));
                        log.counter
                    };
                    let taken_back = Due::new(|| drop(lock(&place.log).laid.pop()));
                    gap().await;
                    taken_back.call_off();
                    let log = &mut *lock(&place.log);
                    flush(log);
                    // Of what is not there any more it is not known that anything was wrong with it.
                    log.told.remove(&ticket).unwrap_or(Ok(()))
                }
                .boxed()
            }));
        },
    )]
}

fn claims() -> Vec<Mutant> {
    vec![m(
        "cl-drop-gives-back-too-much",
        "C-6",
        &["CL-5", "CL-6"],
        "a claim that is dropped gives all back that it could have had, and with it what others have claimed since",
        |s| {
            s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                async move {
                    let before: Vec<_> = {
                        let book = &lock(&place.log).book;
                        let free = book.claimable(writer, now).into_iter();
                        free.map(|id| (id, book.owner(id))).collect()
                    };
                    let given_back = Due::new(|| {
                        let book = &mut lock(&place.log).book;
                        for (id, owner) in before {
                            if let (Some((is, _)), Some(was)) = (book.changes.get_mut(&id), owner) {
                                *is = was;
                            }
                        }
                    });
                    gap().await;
                    given_back.call_off();
                    Ok(lock(&place.log).book.claim(writer, now, limit))
                }
                .boxed()
            }));
        },
    )]
}
