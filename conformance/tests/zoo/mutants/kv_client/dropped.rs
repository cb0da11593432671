//! Wrong only once a call was dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_conformance::Engine;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::m;
use crate::mutants::Mutant;
use crate::reference::medium::{PATIENCE, Trouble};
use crate::reference::{Due, behind, lock};

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

pub(super) fn dropped() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "kv-drop-keeps-lock",
            "C-6",
            &[],
            "the lock on the key of a put that is dropped is not released",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        let name = [b"lock ", &key[..]].concat();
                        let started = Instant::now();
                        let locked = || lock(&place.notes).insert(name.clone(), Bytes::new());
                        while locked().is_some() {
                            if started.elapsed() > PATIENCE {
                                return Err(Trouble::Late.before().into());
                            }
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        yield_now().await;
                        place.write(&key, value, ttl);
                        lock(&place.notes).remove(&name);
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "kv-drop-lands-late",
            "C-6",
            &["KV-7"],
            "a put that is dropped goes on in the background, and is declared fenced",
            |s| {
                s.slow_write = Some(Box::new(|place, key, value, ttl| {
                    async move {
                        let (late, to, what) = (Arc::clone(&place), key.clone(), value.clone());
                        let left = Due::new(move || behind(move || late.write(&to, what, ttl)));
                        yield_now().await;
                        left.call_off();
                        place.write(&key, value, ttl);
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "kv-drop-takes-the-turn-along",
            "C-6",
            &[],
            "puts pass the turn on one by one; one that was dropped while it waited takes it along",
            |s| {
                let queue = Arc::new(Mutex::new(Queue::default()));
                s.slow_write = Some(Box::new(move |place, key, value, ttl| {
                    let queue = Arc::clone(&queue);
                    async move {
                        let waits = lock(&queue).join();
                        if let Some(turn) = waits {
                            // It cannot fail: whoever has the turn holds the queue as well.
                            drop(turn.await);
                        }
                        let next = Due::new(|| lock(&queue).pass_on());
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        place.write(&key, value, ttl);
                        next.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        )
        .hanging(),
        m(
            "kv-drop-of-get-clears",
            "C-6",
            &["KV-1"],
            "a get takes the value out and puts it back; one that is dropped does not put it back",
            |s| {
                s.one_at_a_time = true;
                s.slow_read = Some(Box::new(|place, key| {
                    async move {
                        let _turn = place.turn.lock().await;
                        let value = place.read(&key);
                        let entry = lock(&place.entries).remove(&key);
                        yield_now().await;
                        if let Some(entry) = entry {
                            lock(&place.entries).insert(key, entry);
                        }
                        Ok(value)
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Cancel);
    mutants.into_iter().map(awaiting).collect()
}
