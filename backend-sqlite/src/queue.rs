//! A queue from callers that await to threads that block.
//!
//! Its length is bounded by the permits that callers take before they come here. Each entry gets a ticket, in order,
//! by which its caller can take it back as long as no thread has taken it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

struct State<T> {
    entries: VecDeque<(u64, T)>,
    last_ticket: u64,
    /// The last ticket that a thread has taken.
    last_taken: u64,
    closed: bool,
    waiting: usize,
}

impl<T> State<T> {
    fn pop(&mut self) -> Option<T> {
        let (ticket, entry) = self.entries.pop_front()?;
        self.last_taken = ticket;
        Some(entry)
    }
}

/// What came of a push.
pub(crate) enum Pushed<T> {
    /// The entry's ticket, and whether more entries wait than threads.
    Ticket { ticket: u64, short_of_hands: bool },
    /// The queue is closed.
    Closed(T),
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                last_ticket: 0,
                last_taken: 0,
                closed: false,
                waiting: 0,
            }),
            filled: Condvar::new(),
        }
    }

    pub(crate) fn push(&self, entry: T) -> Pushed<T> {
        let mut state = self.lock();
        if state.closed {
            return Pushed::Closed(entry);
        }
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        state.entries.push_back((ticket, entry));
        let short_of_hands = state.entries.len() > state.waiting;
        // A thread that is at work looks for more by itself, and waking nobody is a call to the kernel all the same.
        let anybody_waits = state.waiting > 0;
        drop(state);
        if anybody_waits {
            self.filled.notify_one();
        }
        Pushed::Ticket {
            ticket,
            short_of_hands,
        }
    }

    /// Waits until there is an entry; `false` once the queue is closed.
    pub(crate) fn wait(&self) -> bool {
        let state = self.lock();
        let state = self.wait_filled(state);
        !state.closed
    }

    /// Waits for the next entry and takes it; `None` once the queue is closed.
    pub(crate) fn wait_pop(&self) -> Option<T> {
        let state = self.lock();
        let mut state = self.wait_filled(state);
        if state.closed {
            return None;
        }
        state.pop()
    }

    /// Takes the next entry, if there is one.
    pub(crate) fn pop(&self) -> Option<T> {
        self.lock().pop()
    }

    /// The last ticket that a thread has taken.
    pub(crate) fn last_taken(&self) -> u64 {
        self.lock().last_taken
    }

    /// Takes back the entry of this ticket, unless a thread has taken it.
    pub(crate) fn take_back(&self, ticket: u64) -> Option<T> {
        let mut state = self.lock();
        let at = state.entries.binary_search_by_key(&ticket, |(t, _)| *t);
        let (_, entry) = state.entries.remove(at.ok()?)?;
        Some(entry)
    }

    /// Takes out what fits.
    pub(crate) fn take_if(&self, fits: impl Fn(&T) -> bool) -> Vec<T> {
        let mut state = self.lock();
        let (out, stay): (VecDeque<_>, _) = state.entries.drain(..).partition(|(_, it)| fits(it));
        state.entries = stay;
        let last_taken = out.back().map_or(0, |(ticket, _)| *ticket);
        state.last_taken = state.last_taken.max(last_taken);
        out.into_iter().map(|(_, entry)| entry).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().entries.is_empty()
    }

    /// Lets nothing in any more, sends the threads away, and returns what was still waiting.
    pub(crate) fn close(&self) -> Vec<T> {
        let mut state = self.lock();
        state.closed = true;
        let rest = std::mem::take(&mut state.entries);
        drop(state);
        self.filled.notify_all();
        rest.into_iter().map(|(_, entry)| entry).collect()
    }

    fn wait_filled<'a>(&self, mut state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        while state.entries.is_empty() && !state.closed {
            state.waiting += 1;
            let woken = self.filled.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state
    }

    /// Poison means nothing here: no code of others runs under the lock but the dropping of an entry.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket<T>(pushed: Pushed<T>) -> u64 {
        match pushed {
            Pushed::Ticket { ticket, .. } => ticket,
            Pushed::Closed(_) => panic!("the queue was open"),
        }
    }

    #[test]
    fn an_entry_is_taken_back_or_taken_and_never_both() {
        let queue = Queue::new();
        let tickets = ["a", "b", "c", "d"].map(|it| ticket(queue.push(it)));
        assert_eq!(queue.take_back(tickets[1]), Some("b"));
        assert_eq!(queue.take_back(tickets[1]), None);
        assert_eq!(queue.pop(), Some("a"));
        assert_eq!(queue.take_back(tickets[0]), None);
        assert_eq!(queue.last_taken(), tickets[0]);
        assert_eq!(queue.take_if(|it| *it == "d"), ["d"]);
        assert_eq!(queue.last_taken(), tickets[3]);
        assert!(!queue.is_empty());
        assert_eq!(queue.close(), ["c"]);
        assert!(!queue.wait() && queue.wait_pop().is_none());
        assert!(matches!(queue.push("e"), Pushed::Closed("e")));
    }
}
