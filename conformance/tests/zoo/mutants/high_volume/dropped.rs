//! Wrong only once a call was dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_conformance::model::high_volume::Row;
use larder_traits::{ErrorKind, Fault, Metadata};
use tokio::task::yield_now;

use super::m;
use crate::mutants::Mutant;
use crate::reference::medium::{PATIENCE, Trouble};
use crate::reference::{Due, behind, lock};

pub(super) fn dropped() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "hv-drop-keeps-lock",
            "C-6",
            &[],
            "the lock on the row of a put that is dropped is not released",
            |s| {
                s.slow_put = Some(Box::new(|place, id, row| {
                    async move {
                        let started = Instant::now();
                        let mark = || Row::Inline(Metadata::new(), Bytes::new());
                        let locked = || lock(&place.notes).insert(id.clone(), mark());
                        while locked().is_some() {
                            if started.elapsed() > PATIENCE {
                                return Err(Trouble::Late.before().into());
                            }
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        yield_now().await;
                        place.write(&id, row);
                        lock(&place.notes).remove(&id);
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-drop-tears-row",
            "C-6",
            &["BK-1", "HV-7"],
            "a put under a lock replaces the metadata first; one that is dropped leaves the old payload under it",
            |s| {
                s.one_at_a_time = true;
                s.slow_put = Some(Box::new(|place, id, row| {
                    async move {
                        let _turn = place.turn.lock().await;
                        if let (Some(Row::Inline(_, old)), Row::Inline(metadata, _)) =
                            (place.live(&id), &row)
                        {
                            place.write(&id, Row::Inline(metadata.clone(), old));
                        }
                        yield_now().await;
                        place.write(&id, row);
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-drop-poisons",
            "C-6",
            &[],
            "a handle on which a swap was dropped is of no more use",
            |s| {
                let broken = Arc::new(AtomicBool::new(false));
                s.slow_swap = Some(Box::new(move |place, id, current, new| {
                    let broken = Arc::clone(&broken);
                    async move {
                        if broken.load(SeqCst) {
                            let why = "a call before this one was not finished";
                            return Err(Fault::not_applied(ErrorKind::Internal, why).into());
                        }
                        let breaks = Due::new(|| broken.store(true, SeqCst));
                        yield_now().await;
                        breaks.call_off();
                        let _step = lock(&place.step);
                        Ok(place.swap(&id, current.as_ref(), new))
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-drop-lands-late",
            "C-6",
            &["HV-6", "BK-1"],
            "a put that is dropped goes on in the background, and is declared fenced",
            |s| {
                s.slow_put = Some(Box::new(|place, id, row| {
                    async move {
                        let (late, to, what) = (Arc::clone(&place), id.clone(), row.clone());
                        let left = Due::new(move || behind(move || late.write(&to, what)));
                        yield_now().await;
                        left.call_off();
                        place.write(&id, row);
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-drop-of-delete-loses-redirect",
            "C-6",
            &["HV-4", "HV-7"],
            "delete_non_tombstone takes the row out and puts a redirect back; one that is dropped does not",
            |s| {
                s.one_at_a_time = true;
                s.slow_delete_inline = Some(Box::new(|place, id| {
                    async move {
                        let _turn = place.turn.lock().await;
                        let redirect = place.redirect(&id);
                        place.remove(&id);
                        yield_now().await;
                        if let Some(redirect) = &redirect {
                            place.write(&id, Row::Redirect(redirect.clone()));
                        }
                        Ok(redirect)
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Cancel);
    mutants.into_iter().map(awaiting).collect()
}
