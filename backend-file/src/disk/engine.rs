//! Which way of doing I/O a store runs on, and what kept it from a better one.

use std::fmt;

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
    registered_frames: u32,
    shortfalls: Vec<String>,
}

impl Engine {
    pub(super) fn new() -> Self {
        Self {
            ring: false,
            direct: false,
            registered_frames: 0,
            shortfalls: Vec::new(),
        }
    }

    pub(super) fn set_direct(&mut self) {
        self.direct = true;
    }

    pub(super) fn set_ring(&mut self, registered_frames: u32) {
        self.ring = true;
        self.registered_frames = registered_frames;
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

    /// How many frames of the store's pool are registered with the kernel.
    #[must_use]
    pub fn registered_frames(&self) -> u32 {
        self.registered_frames
    }

    /// What the machine refused or the configuration turned off, a phrase each with its reason. Empty on the best
    /// engine.
    pub fn shortfalls(&self) -> impl Iterator<Item = &str> {
        self.shortfalls.iter().map(String::as_str)
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
        if self.registered_frames > 0 {
            write!(f, ", {} registered frames", self.registered_frames)?;
        }
        if !self.shortfalls.is_empty() {
            write!(f, " ({})", self.shortfalls.join("; "))?;
        }
        Ok(())
    }
}
