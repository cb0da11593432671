//! Wrong only for those whose calls run beside one that is dropped. A caller that is alone may drop what it likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::blob_multi::Place;
use crate::reference::group::Member;
use crate::reference::medium::Trouble;
use crate::reference::{Due, gap, lock};

pub(super) fn bystanders() -> Vec<Mutant> {
    [together(), alone()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Cancel))
        .collect()
}

/// What was begun is ended, and what was not waited for to its end is said not to have been done.
fn all_is_undone(waiting: &mut Vec<Member>) {
    for mut member in waiting.drain(..) {
        member.carry_out();
        member.tell(Err(Trouble::Refused));
    }
}

/// Takes out the notes of this kind, in the order of the calls.
fn take(notes: &mut BTreeMap<String, Bytes>, what: &str) -> Vec<Bytes> {
    let of_kind = notes.extract_if(.., |name, _| name.starts_with(what));
    of_kind.map(|(_, noted)| noted).collect()
}

/// Sets the keys that were laid down to the values that were, one to the other.
fn flush(place: &Place) {
    let mut blobs = lock(&place.blobs);
    let mut notes = lock(&place.notes);
    let (keys, values) = (take(&mut notes, "key "), take(&mut notes, "value "));
    for (key, value) in keys.into_iter().zip(values) {
        if let Ok(key) = std::str::from_utf8(&key) {
            blobs.set(key, value);
        }
    }
}

fn together() -> Vec<Mutant> {
    vec![
        m(
            "bm-dropped-leader-says-undone",
            "C-6",
            &["C-1", "BM-6"],
            "sets are made together by the first of them; where that is dropped the others are made, and said to be refused",
            |s| {
                s.slow_set = Some(Box::new(|place, deadline, key, value| {
                    async move {
                        let there = Arc::clone(&place);
                        let set = move || drop(there.set(&key, value.clone()));
                        let ended = place.group.join_led(&place.medium, all_is_undone, set);
                        let ended = tokio::time::timeout_at(deadline.into(), ended).await;
                        let ended = ended.unwrap_or(Err(Trouble::Late));
                        ended.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "bm-dropped-set-leaves-its-key",
            "C-6",
            &["BM-1", "BM-6"],
            "sets lay keys and values down apart; a dropped one takes its value back, and the next one's goes under its key",
            |s| {
                s.slow_set = Some(Box::new(|place, _, key, value| {
                    async move {
                        let ticket = place.counter.fetch_add(1, SeqCst);
                        let [at, what] =
                            ["key", "value"].map(|kind| format!("{kind} {ticket:020}"));
                        {
                            let mut notes = lock(&place.notes);
                            notes.insert(at.clone(), key.into());
                            notes.insert(what.clone(), value);
                        }
                        let taken_back = Due::new(|| {
                            let mut notes = lock(&place.notes);
                            notes.remove(&what);
                            if !notes.keys().any(|name| name.starts_with("value ")) {
                                notes.clear();
                            }
                        });
                        gap().await;
                        taken_back.call_off();
                        if lock(&place.notes).contains_key(&at) {
                            flush(&place);
                        }
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

fn alone() -> Vec<Mutant> {
    vec![m(
        "bm-drop-clears-away-newer",
        "C-6",
        &["BM-1", "BM-6"],
        "a set of a new key that is dropped deletes what it may have left, be it the value of another set",
        |s| {
            s.slow_set = Some(Box::new(|place, _, key, value| {
                async move {
                    let is_new = place.get(&key)?.is_none();
                    let cleared = Due::new(|| {
                        if is_new {
                            drop(place.delete(&key));
                        }
                    });
                    gap().await;
                    cleared.call_off();
                    place.set(&key, value)
                }
                .boxed()
            }));
        },
    )]
}
