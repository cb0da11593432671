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
    ring: bool,
    direct: bool,
    registration: Option<Arc<Registration>>,
    shortfalls: Vec<String>,
}

/// What the kernel has agreed to so far of registering the frames of the pool, which happens as they are lent out.
#[derive(Debug, Default)]
pub(super) struct Registration {
    frames: AtomicU32,
    refused: OnceLock<String>,
}

impl Registration {
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
            ring: false,
            direct: false,
            registration: None,
            shortfalls: Vec::new(),
        }
    }

    pub(super) fn set_direct(&mut self) {
        self.direct = true;
    }

    pub(super) fn set_ring(&mut self, registration: Arc<Registration>) {
        self.ring = true;
        self.registration = Some(registration);
    }

    pub(super) fn add_shortfall(&mut self, shortfall: String) {
        self.shortfalls.push(shortfall);
    }

    /// Whether I/O goes through io_uring; otherwise through positioned reads and writes.
    #[must_use]
    pub fn is_ring(&self) -> bool {
        self.ring
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
        let registration = self.registration.as_ref();
        registration.map_or(0, |registration| registration.frames())
    }

    /// What the machine refused or the configuration turned off, a phrase each with its reason. Empty on the best
    /// engine.
    pub fn shortfalls(&self) -> impl Iterator<Item = &str> {
        let registration = self.registration.as_ref();
        let refused = registration.and_then(|registration| registration.refused.get());
        self.shortfalls.iter().chain(refused).map(String::as_str)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.ring {
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
