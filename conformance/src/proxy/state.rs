//! What all connections of a proxy share: what is armed, what is counted, and what is kept for later.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::connection::Twin;
use super::http::Request;
use super::{Direction, Misbehaviour};

/// The number of requests that are remembered; of more, the oldest are forgotten, so that a long run stays bounded.
const LINES_MAX: usize = 10_000;

pub(super) struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    armed: Option<Armed>,
    cut: Option<Cut>,
    only: Option<String>,
    delay: Duration,
    counts: Counts,
    lines: VecDeque<String>,
    late: VecDeque<Twin>,
}

#[derive(Debug)]
struct Armed {
    /// The request that is meant, counted from 1; 0 for every request.
    nth: u64,
    /// How many requests were counted since it was armed.
    seen: u64,
    what: Misbehaviour,
    met: bool,
}

/// `left` more bytes may pass in this direction.
#[derive(Debug)]
struct Cut {
    direction: Direction,
    left: u64,
    met: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) connections: u64,
    pub(super) raw: u64,
    pub(super) up: u64,
    pub(super) down: u64,
}

/// What one request meets.
pub(super) struct Turn {
    pub(super) what: Option<Misbehaviour>,
    pub(super) delay: Duration,
}

/// How much of a piece may pass, and whether the connection ends behind that.
pub(super) struct Pass {
    pub(super) len: usize,
    pub(super) cut: bool,
}

impl Shared {
    pub(super) fn new(upstream: SocketAddr) -> Self {
        Self {
            upstream,
            state: Mutex::default(),
        }
    }

    pub(super) fn upstream(&self) -> SocketAddr {
        self.upstream
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete when the lock is let go, also by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn arm(&self, nth: u64, what: Misbehaviour) {
        self.lock().armed = Some(Armed {
            nth,
            seen: 0,
            what,
            met: false,
        });
    }

    pub(super) fn cut_after(&self, direction: Direction, bytes: u64) {
        self.lock().cut = Some(Cut {
            direction,
            left: bytes,
            met: false,
        });
    }

    pub(super) fn disarm(&self) -> bool {
        let mut state = self.lock();
        let met = state.armed.take().is_some_and(|armed| armed.met);
        let cut = state.cut.take().is_some_and(|cut| cut.met);
        met || cut
    }

    pub(super) fn only(&self, method: Option<&str>) {
        self.lock().only = method.map(str::to_owned);
    }

    pub(super) fn delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Notes a request and says what it shall meet.
    pub(super) fn enter(&self, request: &Request) -> Turn {
        let mut state = self.lock();
        state.counts.requests += 1;
        if state.lines.len() == LINES_MAX {
            state.lines.pop_front();
        }
        state
            .lines
            .push_back(format!("{} {}", request.method, request.target));
        // One that leaves HTTP is passed on raw, and nothing could be done to it.
        let counted = !request.leaves && state.only.as_ref().is_none_or(|m| *m == request.method);
        let what = match &mut state.armed {
            Some(armed) if counted => armed.meet(),
            _ => None,
        };
        let delay = state.delay;
        Turn { what, delay }
    }

    /// Notes bytes that are about to go this way, and says how many may.
    pub(super) fn pass(&self, direction: Direction, len: usize) -> Pass {
        let mut state = self.lock();
        let mut pass = Pass { len, cut: false };
        if let Some(cut) = &mut state.cut
            && cut.direction == direction
            && !cut.met
        {
            let asked = u64::try_from(len).expect("a length in memory fits 64 bits");
            if cut.left <= asked {
                pass.len = usize::try_from(cut.left).expect("no more than what was asked for");
                pass.cut = true;
                cut.met = true;
            }
            cut.left = cut.left.saturating_sub(asked);
        }
        let passed = u64::try_from(pass.len).expect("a length in memory fits 64 bits");
        match direction {
            Direction::Up => state.counts.up += passed,
            Direction::Down => state.counts.down += passed,
        }
        pass
    }

    pub(super) fn count_connection(&self) {
        self.lock().counts.connections += 1;
    }

    pub(super) fn count_raw(&self) {
        self.lock().counts.raw += 1;
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    pub(super) fn keep(&self, twin: Twin) {
        self.lock().late.push_back(twin);
    }

    pub(super) fn next_late(&self) -> Option<Twin> {
        self.lock().late.pop_front()
    }

    pub(super) fn undelivered(&self) -> usize {
        self.lock().late.len()
    }
}

impl Armed {
    fn meet(&mut self) -> Option<Misbehaviour> {
        self.seen += 1;
        let met = self.nth == 0 || self.nth == self.seen;
        self.met |= met;
        met.then(|| self.what.clone())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Shared")
            .field("upstream", &self.upstream)
            .field("armed", &state.armed)
            .field("cut", &state.cut)
            .field("counts", &state.counts)
            .finish_non_exhaustive()
    }
}
