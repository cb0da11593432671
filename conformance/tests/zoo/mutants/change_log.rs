//! Broken `ChangeLog`s.

use larder_conformance::{Caps, Contract};
use larder_traits::{Change, ChangeId, ObjectId, Scope, Step, WriterId};

use super::Mutant;
use crate::reference::change_log::{Bend, CAPS, RecordStep, Store, suite};

mod bystanders;
mod claims;
mod combined;
mod concurrent;
mod corners;
mod dropped;
mod failing;
mod field;
mod handles;
mod leases;
mod neighbours;
mod owners;

pub(crate) fn all() -> Vec<Mutant> {
    [
        fields(),
        again(),
        lists(),
        names(),
        owners::owners(),
        leases::leases(),
        claims::claims(),
        handles::handles(),
        concurrent::concurrent(),
        dropped::dropped(),
        bystanders::bystanders(),
        failing::failing(),
        neighbours::neighbours(),
        corners::corners(),
        field::field(),
        combined::combined(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Notes who recorded each change last, whoever it belongs to since.
fn notes_recorders(s: &mut Store) {
    s.record = Box::new(|log, writer, change| {
        log.book.record(writer, change)?;
        log.notes.put(writer, change);
        Ok(())
    });
}

fn with_caps(
    caps: Caps,
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    Mutant {
        id,
        contract: Contract::ChangeLog,
        breaks,
        also,
        about,
        awaits: None,
        hangs: false,
        panics: false,
        suite: Box::new(move || suite(caps, bend)),
    }
}

fn m(
    id: &'static str,
    breaks: &'static str,
    also: &'static [&'static str],
    about: &'static str,
    bend: Bend,
) -> Mutant {
    with_caps(CAPS, id, breaks, also, about, bend)
}

/// A record that keeps something else than it was given.
fn edited(edit: fn(&mut Change)) -> RecordStep {
    Box::new(move |log, writer, change| {
        let mut change = change.clone();
        edit(&mut change);
        log.book.record(writer, &change)
    })
}

fn fields() -> Vec<Mutant> {
    vec![
        m(
            "cl-replaced-dropped",
            "CL-1",
            &["CL-5"],
            "what a change takes away is not kept",
            |s| s.record = edited(|change| change.replaced = None),
        ),
        m(
            "cl-one-payload",
            "CL-1",
            &["CL-5"],
            "of two payloads of a change that removes, the second is not kept",
            |s| {
                s.record = edited(|change| {
                    if change.step == Step::Remove && change.created.is_some() {
                        change.replaced = None;
                    }
                });
            },
        ),
        m(
            "cl-step-from-payloads",
            "CL-1",
            &["CL-5"],
            "the step of a change that names one payload is told from which one it is",
            |s| {
                s.record = edited(|change| match (&change.created, &change.replaced) {
                    (Some(_), None) => change.step = Step::Upload,
                    (None, Some(_)) => change.step = Step::Remove,
                    _ => {}
                });
            },
        ),
        m(
            "cl-payload-in-its-context",
            "CL-1",
            &["CL-5"],
            "of a payload the key alone is kept, as if it lay where the object does",
            |s| {
                s.record = edited(|change| {
                    let context = &change.object.context;
                    let payloads = [&mut change.created, &mut change.replaced];
                    for payload in payloads.into_iter().flatten() {
                        payload.context = context.clone();
                    }
                });
            },
        ),
        m(
            "cl-payload-that-is-object",
            "CL-1",
            &["CL-5"],
            "a payload of the object's own name is kept as none",
            |s| {
                s.record = edited(|change| {
                    let object = &change.object;
                    for payload in [&mut change.created, &mut change.replaced] {
                        payload.take_if(|payload| payload == object);
                    }
                });
            },
        ),
        m(
            "cl-payload-empty-is-none",
            "CL-1",
            &["CL-5"],
            "a payload of the empty key is kept as none",
            |s| {
                s.record = edited(|change| {
                    for payload in [&mut change.created, &mut change.replaced] {
                        payload.take_if(|payload| payload.key.is_empty());
                    }
                });
            },
        ),
        m(
            "cl-scopes-joined",
            "CL-1",
            &["CL-5"],
            "scopes are joined by separators that they may hold themselves",
            |s| {
                s.record = edited(|change| {
                    let scopes = &mut change.object.context.scopes;
                    let texts = scopes.iter().map(|it| format!("{}={}", it.name, it.value));
                    let joined = texts.collect::<Vec<_>>().join("/");
                    let parts = joined.split('/').filter(|part| !part.is_empty());
                    let pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
                    *scopes = pairs.map(|(name, value)| Scope::new(name, value)).collect();
                });
            },
        ),
        m(
            "cl-scopes-sorted",
            "CL-1",
            &["CL-5"],
            "scopes are kept by their names",
            |s| s.record = edited(|change| change.object.context.scopes.sort()),
        ),
        m(
            "cl-key-nul",
            "CL-1",
            &["CL-5"],
            "the key of an object ends at its first NUL",
            |s| {
                s.record = edited(|change| {
                    let key = &mut change.object.key;
                    key.truncate(key.find('\0').unwrap_or(key.len()));
                });
            },
        ),
        m(
            "cl-name-cut",
            "C-4",
            &["CL-1", "CL-5"],
            "the key of an object is cut after 255 characters",
            |s| {
                let cut = |id: &mut ObjectId| id.key = id.key.chars().take(255).collect();
                let record: RecordStep = Box::new(move |log, writer, change| {
                    let mut change = change.clone();
                    cut(&mut change.object);
                    log.book.record(writer, &change)
                });
                s.record = record;
            },
        ),
    ]
}

fn again() -> Vec<Mutant> {
    vec![
        m(
            "cl-again-dropped",
            "CL-1",
            &["CL-5"],
            "what is recorded again under its id is dropped",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.check_owner(writer, change.id)?;
                    let new = || (writer, change.clone());
                    log.book.changes.entry(change.id).or_insert_with(new);
                    Ok(())
                });
            },
        ),
        m(
            "cl-again-merged",
            "CL-1",
            &["CL-5"],
            "what a later change of the id does not name is left as it was",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    let mut change = change.clone();
                    if let Some((_, old)) = log.book.changes.get(&change.id) {
                        change.created = change.created.or(old.created.clone());
                        change.replaced = change.replaced.or(old.replaced.clone());
                    }
                    log.book.record(writer, &change)
                });
            },
        ),
        m(
            "cl-again-step-only",
            "CL-1",
            &["CL-5"],
            "what is recorded again is taken for the next step of the same object",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    let mut change = change.clone();
                    if let Some((_, old)) = log.book.changes.get(&change.id) {
                        change.object = old.object.clone();
                    }
                    log.book.record(writer, &change)
                });
            },
        ),
        m(
            "cl-again-listed-twice",
            "CL-1",
            &[],
            "what was there before an id was recorded again is listed as well",
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
                    log.notes.changes.remove(&id);
                    Ok(())
                });
                s.list =
                    Box::new(
                        |log, writer| Ok([log.book.of(writer), log.notes.of(writer)].concat()),
                    );
            },
        ),
        m(
            "cl-object-once",
            "CL-1",
            &["CL-5"],
            "a writer has one change of each object, and a second one replaces the first",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.check_owner(writer, change.id)?;
                    let same = |owner: WriterId, it: &Change| {
                        owner == writer && it.object == change.object
                    };
                    log.book.changes.retain(|_, (owner, it)| !same(*owner, it));
                    log.book.put(writer, change);
                    Ok(())
                });
            },
        ),
    ]
}

fn lists() -> Vec<Mutant> {
    vec![
        m(
            "cl-list-one-page",
            "CL-1",
            &[],
            "a list is the first thousand",
            |s| {
                s.list = Box::new(|log, writer| {
                    Ok(log.book.of(writer).into_iter().take(1_000).collect())
                });
            },
        ),
        m(
            "cl-list-page-seam",
            "CL-1",
            &[],
            "a list leaves out the first change of each further page",
            |s| {
                s.list = Box::new(|log, writer| {
                    let all = log.book.of(writer).into_iter().enumerate();
                    let seam = |at: usize| at > 0 && at.is_multiple_of(250);
                    Ok(all.filter(|(at, _)| !seam(*at)).map(|it| it.1).collect())
                });
            },
        ),
        m(
            "cl-ring",
            "CL-1",
            &[],
            "the log has room for 1 024 changes, and drops the first to take another",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.record(writer, change)?;
                    if log.book.changes.len() > 1_024 {
                        log.book.changes.pop_first();
                    }
                    Ok(())
                });
            },
        ),
        m(
            "cl-list-everyones",
            "CL-3",
            &["CL-1"],
            "a list shows the changes of all writers",
            |s| {
                s.list = Box::new(|log, _| {
                    let all = log.book.changes.values();
                    Ok(all.map(|(_, change)| change.clone()).collect())
                });
            },
        ),
        m(
            "cl-list-of-recorder",
            "CL-3",
            &["CL-5"],
            "a list shows also what the writer recorded and lost to a claim",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    log.book.record(writer, change)?;
                    log.notes.put(writer, change);
                    Ok(())
                });
                s.list = Box::new(|log, writer| {
                    let mut all = log.book.of(writer);
                    let lost = |it: &Change| log.book.owner(it.id).is_some_and(|it| it != writer);
                    all.extend(log.notes.of(writer).into_iter().filter(lost));
                    Ok(all)
                });
            },
        ),
    ]
}

/// Changes are told apart by what this makes of their ids.
fn keyed(s: &mut Store, key: fn(ChangeId) -> ChangeId) {
    s.record = Box::new(move |log, writer, change| {
        let key = key(change.id);
        log.book.check_owner(writer, key)?;
        log.book.changes.insert(key, (writer, change.clone()));
        Ok(())
    });
    s.complete = Box::new(move |log, writer, id| log.book.complete(writer, key(id)));
}

/// Writers are told apart by what this makes of them.
fn written_by(s: &mut Store, name: fn(WriterId) -> WriterId) {
    s.record = Box::new(move |log, writer, change| log.book.record(name(writer), change));
    s.complete = Box::new(move |log, writer, id| log.book.complete(name(writer), id));
    s.list = Box::new(move |log, writer| Ok(log.book.of(name(writer))));
    s.renew = Box::new(move |log, writer, until| {
        log.book.renew(name(writer), until);
        Ok(())
    });
    s.claim = Box::new(move |log, writer, now, limit| Ok(log.book.claim(name(writer), now, limit)));
}

/// The first half.
fn half(bytes: [u8; 16]) -> [u8; 16] {
    (u128::from_be_bytes(bytes) >> 64 << 64).to_be_bytes()
}

/// What a C string or a text column keeps.
fn until_nul(bytes: [u8; 16]) -> [u8; 16] {
    let mut kept = [0; 16];
    let used = bytes.iter().take_while(|byte| **byte != 0);
    for (to, byte) in kept.iter_mut().zip(used) {
        *to = *byte;
    }
    kept
}

const ZERO: [u8; 16] = [0; 16];
const LAST: [u8; 16] = [0xff; 16];

fn names() -> Vec<Mutant> {
    vec![
        m(
            "cl-id-half",
            "CL-3",
            &["CL-1", "CL-2"],
            "changes are told apart by the first half of their ids",
            |s| keyed(s, |id| ChangeId::from_bytes(half(id.into_bytes()))),
        ),
        m(
            "cl-id-nul",
            "CL-1",
            &["CL-2", "CL-3"],
            "the id of a change ends at its first zero",
            |s| keyed(s, |id| ChangeId::from_bytes(until_nul(id.into_bytes()))),
        ),
        m(
            "cl-id-signed",
            "CL-1",
            &["CL-2", "CL-3"],
            "the sign of an id is lost",
            |s| {
                keyed(s, |id| {
                    let mut bytes = id.into_bytes();
                    bytes[0] &= 0x7f;
                    ChangeId::from_bytes(bytes)
                });
            },
        ),
        m(
            "cl-id-zero-is-none",
            "CL-1",
            &["CL-5"],
            "a change whose id is all zeros is not found",
            |s| {
                s.list = Box::new(|log, writer| {
                    let mut own = log.book.of(writer);
                    own.retain(|change| change.id.into_bytes() != ZERO);
                    Ok(own)
                });
            },
        ),
        m(
            "cl-id-last-is-end",
            "CL-1",
            &["CL-5"],
            "a list ends before the last id that there can be",
            |s| {
                s.list = Box::new(|log, writer| {
                    let mut own = log.book.of(writer);
                    own.retain(|change| change.id.into_bytes() != LAST);
                    Ok(own)
                });
            },
        ),
        m(
            "cl-claim-before-last-id",
            "CL-5",
            &["CL-1"],
            "a claim ends before the last id that there can be",
            |s| {
                s.claim = Box::new(|log, writer, now, limit| {
                    let mut free = log.book.claimable(writer, now);
                    free.retain(|id| id.into_bytes() != LAST);
                    Ok(log.book.take(writer, free, limit))
                });
            },
        ),
        m(
            "cl-writer-half",
            "CL-3",
            &["CL-5"],
            "writers are told apart by the first half of their ids",
            |s| written_by(s, |it| WriterId::from_bytes(half(it.into_bytes()))),
        ),
        m(
            "cl-writer-zero-is-nobody",
            "CL-3",
            &["CL-5", "CL-4"],
            "the writer whose id is all zeros is nobody: anyone may record over its changes",
            |s| {
                s.record = Box::new(|log, writer, change| {
                    let owner = log.book.owner(change.id);
                    let is_free = owner.is_some_and(|owner| owner.into_bytes() == ZERO);
                    if !is_free {
                        log.book.check_owner(writer, change.id)?;
                    }
                    log.book.put(writer, change);
                    Ok(())
                });
            },
        ),
    ]
}
