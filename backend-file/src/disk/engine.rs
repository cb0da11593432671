//! Which way of doing I/O a store runs on, and what kept it from a better one.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// What a store reads and writes its file with, and why not with something better.
///
/// A store takes the best engine that the machine allows and works the same on each; this is where it says which one
/// that is. `Display` gives a line for a log:
///
/// ```text
/// io_uring, O_DIRECT, 64 registered frames
/// positioned reads and writes, O_DIRECT (no io_uring: a seccomp filter refuses it)
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Engine {
    ring: Option<Arc<RingState>>,
    direct: bool,
    shortfalls: Vec<String>,
}

/// What may change about a ring while it is used.
#[derive(Debug, Default)]
pub(super) struct RingState {
    /// Why it is no longer used.
    stopped: OnceLock<String>,
    /// How many frames of the pool are registered. They are when they are first lent out.
    frames: AtomicU32,
    /// Why no more are.
    refused: OnceLock<String>,
}

#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "there are rings on Linux only")
)]
impl RingState {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// From now on there is no ring; the first reason stays.
    pub(super) fn stop(&self, why: String) {
        self.stopped.get_or_init(|| why);
    }

    pub(super) fn frames(&self) -> u32 {
        self.frames.load(Ordering::Acquire)
    }

    pub(super) fn set_frames(&self, frames: u32) {
        self.frames.store(frames, Ordering::Release);
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.get().is_some()
    }

    /// No more frames are registered; the first reason stays.
    pub(super) fn refuse(&self, why: String) {
        self.refused.get_or_init(|| why);
    }
}

impl Engine {
    pub(super) fn new() -> Self {
        Self {
            ring: None,
            direct: false,
            shortfalls: Vec::new(),
        }
    }

    pub(super) fn set_direct(&mut self) {
        self.direct = true;
    }

    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "there are rings on Linux only")
    )]
    pub(super) fn set_ring(&mut self, state: Arc<RingState>) {
        self.ring = Some(state);
    }

    pub(super) fn add_shortfall(&mut self, shortfall: String) {
        self.shortfalls.push(shortfall);
    }

    /// Whether I/O goes through io_uring; otherwise through positioned reads and writes.
    #[must_use]
    pub fn is_ring(&self) -> bool {
        self.ring.as_ref().is_some_and(|ring| !ring.is_stopped())
    }

    /// Whether I/O goes past the page cache (`O_DIRECT`).
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// How many frames of the store's pool are registered with the kernel by now. They are registered when they are
    /// first lent out.
    #[must_use]
    pub fn registered_frames(&self) -> u32 {
        self.ring.as_ref().map_or(0, |ring| ring.frames())
    }

    /// What the machine refused or the configuration turned off, a phrase each with its reason. Empty on the best
    /// engine.
    pub fn shortfalls(&self) -> impl Iterator<Item = &str> {
        let ring = self.ring.as_ref();
        let later = ring.map(|ring| [ring.stopped.get(), ring.refused.get()]);
        let later = later.into_iter().flatten().flatten();
        self.shortfalls.iter().chain(later).map(String::as_str)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ring() {
            "io_uring"
        } else {
            "positioned reads and writes"
        })?;
        f.write_str(if self.direct {
            ", O_DIRECT"
        } else {
            ", page cache"
        })?;
        let registered = self.registered_frames();
        if registered > 0 {
            write!(f, ", {registered} registered frames")?;
        }
        let shortfalls: Vec<_> = self.shortfalls().collect();
        if !shortfalls.is_empty() {
            write!(f, " ({})", shortfalls.join("; "))?;
        }
        Ok(())
    }
}
