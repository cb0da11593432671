//! Wrong only where the medium fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::{ErrorKind, Fault};

use super::m;
use crate::mutants::Mutant;
use crate::reference::lock;
use crate::reference::medium::Trouble;

pub(super) fn failing() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "kv-lost-answer-not-applied",
            "KV-8",
            &["C-1"],
            "a put whose answer was lost is said to have had no effect",
            |s| s.fails.write = |trouble| Err(trouble.before().into()),
        ),
        m(
            "kv-lost-delete-not-applied",
            "KV-8",
            &["C-1"],
            "a delete whose answer was lost is said to have had no effect",
            |s| s.fails.remove = |trouble| Err(trouble.before().into()),
        ),
        m(
            "kv-refused-is-done",
            "KV-8",
            &["C-1", "KV-1", "KV-6", "KV-7"],
            "a write that the medium refused is Ok",
            |s| {
                let done: fn(Trouble) -> _ = |trouble| match trouble {
                    Trouble::Refused => Ok(()),
                    _ => Err(trouble.at_commit().into()),
                };
                s.fails.write = done;
                s.fails.remove = done;
            },
        ),
        m(
            "kv-failed-read-absent",
            "KV-1",
            &["C-1", "KV-8", "KV-5", "KV-7"],
            "what could not be read is absent",
            |s| s.fails.read = |_| None,
        ),
        m(
            "kv-failed-read-unknown",
            "C-1",
            &["KV-8"],
            "a read that failed is Unknown",
            |s| s.fails.read = |trouble| Some(trouble.after().into()),
        ),
        m(
            "kv-failure-as-defect",
            "C-1",
            &[],
            "a put that the medium refused is told as a defect of the store",
            |s| {
                s.fails.write = |trouble| match trouble {
                    Trouble::Refused => {
                        let told = "cannot happen";
                        Err(Fault::not_applied(ErrorKind::Internal, told).into())
                    }
                    _ => Err(trouble.at_commit().into()),
                }
            },
        ),
        m(
            "kv-no-timer",
            "KV-8",
            &["C-6"],
            "nobody watches the time while the medium is silent",
            |s| s.timer = false,
        )
        .hanging(),
        m(
            "kv-silence-is-broken-line",
            "KV-8",
            &["C-1"],
            "a medium that stayed silent is reported as one that cannot be reached",
            |s| {
                s.fails.read = |_| Some(Fault::not_applied(ErrorKind::Unavailable, "gone").into());
                s.fails.stage = |_| Err(Fault::not_applied(ErrorKind::Unavailable, "gone").into());
                s.fails.write = |_| Err(Fault::unknown(ErrorKind::Unavailable, "gone").into());
                s.fails.remove = |_| Err(Fault::unknown(ErrorKind::Unavailable, "gone").into());
            },
        ),
        // Seen in d-engine, issue 381: a leader that the others cannot reach any more answers from what it has itself.
        m(
            "kv-cut-off-leader",
            "KV-7",
            &["KV-1", "KV-8", "C-1", "C-2"],
            "a handle whose put failed answers by itself from then on, until a put gets through again",
            |s| {
                let own = Arc::new(Mutex::new(None));
                let kept = Arc::clone(&own);
                s.slow_write = Some(Box::new(move |place, key, value, ttl| {
                    let kept = Arc::clone(&kept);
                    async move {
                        let write = || place.write(&key, value.clone(), ttl);
                        let written = place.medium.timed(write).await;
                        *lock(&kept) = written.err().map(|_| {
                            let entries = lock(&place.entries);
                            let values = entries
                                .iter()
                                .map(|(key, it)| (key.clone(), it.value.clone()));
                            let mut values: BTreeMap<_, _> = values.collect();
                            values.insert(key.clone(), value.clone());
                            values
                        });
                        written.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
                s.read = Box::new(move |place, key| match &*lock(&own) {
                    Some(values) => Ok(values.get(key).cloned()),
                    None => Ok(place.read(key)),
                });
            },
        ),
        m(
            "kv-half-replace",
            "C-1",
            &["KV-8", "KV-1", "KV-7"],
            "a put removes the old value and then writes the new one; if that fails it is said to have had no effect",
            |s| {
                s.one_at_a_time = true;
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        let _turn = place.turn.lock().await;
                        let removed = place.medium.timed(|| place.remove(&key)).await;
                        removed.map_err(|trouble| trouble.at_commit())?;
                        let written = place.medium.timed(|| place.write(&key, value, ttl)).await;
                        written.map_err(|trouble| match trouble {
                            Trouble::Refused => trouble.before(),
                            _ => trouble.after(),
                        })?;
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}
