//! Wrong only for those whose calls run beside one that is dropped. A caller that is alone may drop what it likes.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::group::Member;
use crate::reference::{Due, gap, lock};

pub(super) fn bystanders() -> Vec<Mutant> {
    [reads(), writes()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Cancel))
        .collect()
}

/// Where nobody looks any more there is nothing to be found.
fn nothing_is_found(waiting: &mut Vec<Member>) {
    for member in waiting.drain(..) {
        member.tell(Ok(()));
    }
}

fn reads() -> Vec<Mutant> {
    vec![m(
        "hv-dropped-read-finds-nothing",
        "C-6",
        &["HV-2", "HV-7"],
        "rows are read together by the first that asks; where that is dropped the others find no row",
        |s| {
            s.slow_read = Some(Box::new(|place, _, id| {
                async move {
                    let found = Arc::new(Mutex::new(None));
                    let (there, told) = (Arc::clone(&place), Arc::clone(&found));
                    let look = move || {
                        let _step = lock(&there.step);
                        *lock(&told) = there.access(&id);
                    };
                    let group = &place.group;
                    let ended = group.join_led(&place.medium, nothing_is_found, look);
                    ended.await.map_err(|trouble| trouble.before())?;
                    Ok(lock(&found).take())
                }
                .boxed()
            }));
        },
    )]
}

fn writes() -> Vec<Mutant> {
    vec![
        m(
            "hv-dropped-put-goes-last",
            "C-6",
            &["HV-1", "HV-7"],
            "a put that is dropped beside others is made when none is under way any more, over what was put since",
            |s| {
                s.slow_put_inline = Some(Box::new(|place, id, row| {
                    async move {
                        place.counter.fetch_add(1, SeqCst);
                        let ends = Due::new(|| {
                            if place.counter.fetch_sub(1, SeqCst) > 1 {
                                return;
                            }
                            let _step = lock(&place.step);
                            for (id, row) in std::mem::take(&mut *lock(&place.notes)) {
                                place.put_inline(&id, row);
                            }
                        });
                        let goes_last = Due::new(|| {
                            if place.counter.load(SeqCst) > 1 {
                                lock(&place.notes).insert(id.clone(), row.clone());
                            }
                        });
                        gap().await;
                        goes_last.call_off();
                        let put = {
                            let _step = lock(&place.step);
                            place.put_inline(&id, row)
                        };
                        ends.settle();
                        Ok(put)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-drop-of-swap-puts-back",
            "C-6",
            &["HV-5", "HV-7"],
            "a swap that is dropped puts back the row that it had found, over what others have made of it since",
            |s| {
                s.slow_swap = Some(Box::new(|place, id, current, new| {
                    async move {
                        let before = lock(&place.rows).get(&id).cloned();
                        let put_back = Due::new(|| {
                            let _step = lock(&place.step);
                            match before {
                                Some(row) => place.write(&id, row),
                                None => place.remove(&id),
                            }
                        });
                        gap().await;
                        put_back.call_off();
                        let _step = lock(&place.step);
                        Ok(place.swap(&id, current.as_ref(), new))
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
