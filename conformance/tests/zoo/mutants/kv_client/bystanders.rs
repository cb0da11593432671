//! Wrong only for those whose calls run beside one that is dropped. A caller that is alone may drop what it likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::group::Member;
use crate::reference::kv_client::Place;
use crate::reference::{Due, gap, lock};

pub(super) fn bystanders() -> Vec<Mutant> {
    [groups(), reads()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Cancel))
        .collect()
}

/// Who no longer waits for the one that leads must have been served.
fn all_is_done(waiting: &mut Vec<Member>) {
    for member in waiting.drain(..) {
        member.tell(Ok(()));
    }
}

fn groups() -> Vec<Mutant> {
    vec![m(
        "kv-dropped-leader-says-done",
        "C-6",
        &["KV-1", "KV-7"],
        "puts are committed together by the first of them; where that is dropped the others are Ok, and nothing was done",
        |s| {
            s.slow_write = Some(Box::new(|place, key, value, ttl| {
                async move {
                    let there = Arc::clone(&place);
                    let write = move || {
                        let _step = lock(&there.step);
                        there.write(&key, value.clone(), ttl);
                    };
                    let ended = place.group.join_led(&place.medium, all_is_done, write);
                    ended.await.map_err(|trouble| trouble.at_commit().into())
                }
                .boxed()
            }));
        },
    )]
}

/// The name of a note about one call.
fn note(what: u8, ticket: u64) -> Vec<u8> {
    [&[what][..], &ticket.to_be_bytes()].concat()
}

type Notes = BTreeMap<Vec<u8>, Bytes>;

/// Takes out the notes of this kind, in the order of the calls.
fn take(notes: &mut Notes, what: u8) -> Vec<(Vec<u8>, Bytes)> {
    let of_kind = notes.extract_if(.., |name, _| name.first() == Some(&what));
    of_kind.collect()
}

/// What was read, as a note.
fn noted(found: Option<Bytes>) -> Bytes {
    let found = found.map(|value| [&b"+"[..], &value].concat());
    found.unwrap_or_default().into()
}

fn read_from(noted: &Bytes) -> Option<Bytes> {
    (!noted.is_empty()).then(|| noted.slice(1..))
}

/// Answers all that was asked, to those who wait, each in its turn.
fn answer(place: &Place) {
    let mut notes = lock(&place.notes);
    let asked = take(&mut notes, b'q');
    let waiting = take(&mut notes, b'w');
    let _step = lock(&place.step);
    for ((_, key), (mut name, _)) in asked.into_iter().zip(waiting) {
        if let Some(what) = name.first_mut() {
            *what = b'a';
        }
        notes.insert(name, noted(place.read(&key)));
    }
}

fn reads() -> Vec<Mutant> {
    vec![
        m(
            "kv-dropped-get-shifts-answers",
            "C-6",
            &["KV-1", "KV-7"],
            "gets are asked together; a dropped one takes its question back, and has its answer from the next one's",
            |s| {
                s.slow_read = Some(Box::new(|place, key| {
                    async move {
                        let ticket = place.counter.fetch_add(1, SeqCst);
                        let [asks, waits, told] = [b'q', b'w', b'a'].map(|it| note(it, ticket));
                        {
                            let mut notes = lock(&place.notes);
                            notes.insert(asks.clone(), key.clone().into());
                            notes.insert(waits.clone(), Bytes::new());
                        }
                        let taken_back = Due::new(|| {
                            let mut notes = lock(&place.notes);
                            notes.remove(&asks);
                            notes.remove(&told);
                            if !notes.keys().any(|name| name.first() == Some(&b'q')) {
                                // The last one to go puts out the light.
                                drop(take(&mut notes, b'w'));
                            }
                        });
                        gap().await;
                        gap().await;
                        taken_back.call_off();
                        if lock(&place.notes).contains_key(&waits) {
                            answer(&place);
                        }
                        let told = lock(&place.notes).remove(&told);
                        // Who was passed over asks by itself.
                        let found = told.map_or_else(|| place.read(&key), |it| read_from(&it));
                        Ok(found)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "kv-dropped-get-hands-on-the-old",
            "C-6",
            &["KV-1", "KV-7"],
            "gets of one key wait for each other; one that is dropped leaves those who wait what it had found, however old",
            |s| {
                s.slow_read = Some(Box::new(|place, key| {
                    async move {
                        let ticket = place.counter.fetch_add(1, SeqCst);
                        let looks = [&b"l"[..], &key].concat();
                        let waits = [&note(b'w', ticket)[..], &key].concat();
                        let told = [&note(b'a', ticket)[..], &key].concat();
                        let gone = Due::new(|| {
                            let mut notes = lock(&place.notes);
                            notes.remove(&waits);
                            notes.remove(&told);
                        });
                        loop {
                            {
                                let mut notes = lock(&place.notes);
                                if let Some(told) = notes.get(&told) {
                                    return Ok(read_from(told));
                                }
                                if !notes.contains_key(&looks) {
                                    notes.insert(looks.clone(), Bytes::new());
                                    break;
                                }
                                notes.insert(waits.clone(), Bytes::new());
                            }
                            gap().await;
                        }
                        gone.settle();
                        let found = place.read(&key);
                        let left = Due::new(|| {
                            let mut notes = lock(&place.notes);
                            notes.remove(&looks);
                            let is_same = |name: &[u8]| {
                                name.first() == Some(&b'w') && name.get(9..) == Some(&key[..])
                            };
                            let waiting = notes.extract_if(.., |name, _| is_same(name));
                            for (mut name, _) in waiting.collect::<Vec<_>>() {
                                if let Some(what) = name.first_mut() {
                                    *what = b'a';
                                }
                                notes.insert(name, noted(found.clone()));
                            }
                        });
                        gap().await;
                        gap().await;
                        left.call_off();
                        lock(&place.notes).remove(&looks);
                        Ok(found)
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
