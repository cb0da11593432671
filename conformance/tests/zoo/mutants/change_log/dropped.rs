//! Wrong only once a call was dropped, or many wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_traits::{ErrorKind, Fault};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::yield_now;

use super::{m, with_caps};
use crate::mutants::Mutant;
use crate::reference::change_log::{CAPS, lands_late};
use crate::reference::{Due, behind, gap, lock};

pub(super) fn dropped() -> Vec<Mutant> {
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Cancel);
    let dropped = [halves(), queues()].into_iter().flatten().map(awaiting);
    dropped.chain(waiting()).collect()
}

fn halves() -> Vec<Mutant> {
    vec![
        m(
            "cl-drop-claims-half",
            "C-6",
            &["CL-5"],
            "a claim removes the changes and puts them back one by one; one that is dropped does not put them back",
            |s| {
                s.one_at_a_time = true;
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let _turn = place.turn.lock().await;
                        let taken = {
                            let book = &mut lock(&place.log).book;
                            let mut taken = Vec::new();
                            for id in book.claimable(writer, now).into_iter().take(limit) {
                                taken.extend(book.changes.remove(&id).map(|it| it.1));
                            }
                            taken
                        };
                        for change in &taken {
                            yield_now().await;
                            lock(&place.log).book.put(writer, change);
                        }
                        Ok(taken)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-drop-takes-some",
            "C-6",
            &["CL-6", "CL-5"],
            "a claim takes one change after the other, unseen by others but where it is dropped",
            |s| {
                s.one_at_a_time = true;
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let _turn = place.turn.lock().await;
                        let free = lock(&place.log).book.claimable(writer, now);
                        let mut taken = Vec::new();
                        for id in free.into_iter().take(limit) {
                            taken.extend(lock(&place.log).book.take(writer, [id], 1));
                            if taken.len() < 8 {
                                yield_now().await;
                            }
                        }
                        Ok(taken)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-drop-loses-the-old",
            "C-6",
            &["CL-1"],
            "a record removes what was there and then writes the new change; one that is dropped leaves nothing",
            |s| {
                s.one_at_a_time = true;
                s.slow_record = Some(Box::new(|place, writer, change| {
                    async move {
                        let _turn = place.turn.lock().await;
                        lock(&place.log).book.complete(writer, change.id)?;
                        yield_now().await;
                        lock(&place.log).book.record(writer, &change)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-drop-leaves-no-lease",
            "C-6",
            &["CL-4"],
            "a renewal takes the lease out and puts a longer one back; one that is dropped leaves none",
            |s| {
                s.one_at_a_time = true;
                s.slow_renew = Some(Box::new(|place, writer, until| {
                    async move {
                        let _turn = place.turn.lock().await;
                        let old = lock(&place.log).book.leases.remove(&writer);
                        yield_now().await;
                        let kept = old.map_or(until, |old| old.max(until));
                        lock(&place.log).book.renew(writer, kept);
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-drop-lands-late",
            "C-6",
            &["CL-6"],
            "a record that is dropped goes on in the background, and is declared fenced",
            lands_late,
        ),
        m(
            "cl-drop-claims-late",
            "C-6",
            &["CL-6", "CL-5"],
            "a claim that is dropped goes on in the background, and is declared fenced",
            |s| {
                s.slow_claim = Some(Box::new(|place, writer, (now, limit)| {
                    async move {
                        let late = Arc::clone(&place);
                        let left = Due::new(move || {
                            behind(move || lock(&late.log).book.claim(writer, now, limit));
                        });
                        yield_now().await;
                        left.call_off();
                        Ok(lock(&place.log).book.claim(writer, now, limit))
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

/// Who holds the turn, and who waits for it.
#[derive(Default)]
struct Queue {
    busy: bool,
    waiting: VecDeque<oneshot::Sender<()>>,
}

impl Queue {
    fn join(&mut self) -> Option<oneshot::Receiver<()>> {
        if !self.busy {
            self.busy = true;
            return None;
        }
        let (send, receive) = oneshot::channel();
        self.waiting.push_back(send);
        Some(receive)
    }

    /// Passes the turn on to the next in the queue, whether it is still there or not.
    fn pass_on(&mut self) {
        match self.waiting.pop_front() {
            Some(next) => drop(next.send(())),
            None => self.busy = false,
        }
    }
}

fn queues() -> Vec<Mutant> {
    vec![
        m(
            "cl-drop-poisons",
            "C-6",
            &[],
            "a handle of which a record was dropped is out of use",
            |s| {
                let broken = Arc::new(Mutex::new(false));
                s.slow_record = Some(Box::new(move |place, writer, change| {
                    let broken = Arc::clone(&broken);
                    async move {
                        if *lock(&broken) {
                            return Err(Fault::not_applied(ErrorKind::Internal, "broken"));
                        }
                        let breaks = Due::new(|| *lock(&broken) = true);
                        yield_now().await;
                        breaks.call_off();
                        lock(&place.log).book.record(writer, &change)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "cl-drop-keeps-a-permit",
            "C-6",
            &["C-4"],
            "a claim that is dropped keeps its permit, of which there are eight",
            |s| {
                let permits = Arc::new(Semaphore::new(8));
                s.slow_claim = Some(Box::new(move |place, writer, (now, limit)| {
                    let permits = Arc::clone(&permits);
                    async move {
                        if let Ok(permit) = permits.acquire().await {
                            permit.forget();
                        }
                        yield_now().await;
                        let taken = lock(&place.log).book.claim(writer, now, limit);
                        permits.add_permits(1);
                        Ok(taken)
                    }
                    .boxed()
                }));
            },
        )
        .hanging(),
        m(
            "cl-drop-takes-the-turn-along",
            "C-6",
            &[],
            "records pass the turn on one by one; one that was dropped while it waited takes it along",
            |s| {
                let queue = Arc::new(Mutex::new(Queue::default()));
                s.slow_record = Some(Box::new(move |place, writer, change| {
                    let queue = Arc::clone(&queue);
                    async move {
                        let waits = lock(&queue).join();
                        if let Some(turn) = waits {
                            // It cannot fail: whoever has the turn holds the queue as well.
                            drop(turn.await);
                        }
                        let next = Due::new(|| lock(&queue).pass_on());
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        let recorded = lock(&place.log).book.record(writer, &change);
                        next.settle();
                        recorded
                    }
                    .boxed()
                }));
            },
        )
        .hanging(),
    ]
}

/// Wrong where more calls come than there is room for, dropped or not.
fn waiting() -> Vec<Mutant> {
    let eight = CAPS.with_in_flight_max(Some(8));
    vec![
        with_caps(
            eight,
            "cl-in-flight-refused",
            "C-4",
            &[],
            "of calls that are more than may be in flight, those above the bound fail",
            |s| {
                let permits = Arc::new(Semaphore::new(8));
                s.slow_record = Some(Box::new(move |place, writer, change| {
                    let permits = Arc::clone(&permits);
                    async move {
                        let Ok(_permit) = permits.try_acquire() else {
                            return Err(Fault::not_applied(ErrorKind::Unavailable, "busy"));
                        };
                        gap().await;
                        lock(&place.log).book.record(writer, &change)
                    }
                    .boxed()
                }));
            },
        ),
        with_caps(
            eight,
            "cl-in-flight-twice",
            "C-4",
            &[],
            "a record takes two permits one after the other, so many at once have half of what they need",
            |s| {
                let permits = Arc::new(Semaphore::new(8));
                s.slow_record = Some(Box::new(move |place, writer, change| {
                    let permits = Arc::clone(&permits);
                    async move {
                        let _looks = permits.acquire().await;
                        gap().await;
                        let _writes = permits.acquire().await;
                        lock(&place.log).book.record(writer, &change)
                    }
                    .boxed()
                }));
            },
        )
        .hanging(),
        with_caps(
            eight,
            "cl-conflict-keeps-a-permit",
            "C-4",
            &["CL-3", "C-6"],
            "a record that is refused keeps its permit, of which there are eight",
            |s| {
                let permits = Arc::new(Semaphore::new(8));
                s.slow_record = Some(Box::new(move |place, writer, change| {
                    let permits = Arc::clone(&permits);
                    async move {
                        let permit = permits.acquire().await;
                        let recorded = lock(&place.log).book.record(writer, &change);
                        if let (Ok(permit), Err(_)) = (permit, &recorded) {
                            permit.forget();
                        }
                        recorded
                    }
                    .boxed()
                }));
            },
        )
        .hanging(),
    ]
}
