//! Transfers that are cut short or interrupted: a file system that does less than it is asked to, as any may.
//!
//! The world is made on a FUSE file system in memory. It counts the calls that reach it, lets one of them go wrong, and
//! forgets on demand what was not synced. Names are durable at once: what is looked at here is bytes.

mod files;
mod tree;

pub(crate) use files::Medium;

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A read or write transfers a part of what was asked for.
    Short,
    /// `EINTR`, without effect.
    Interrupted,
    /// `EAGAIN` from a read or write, without effect.
    Again,
}

impl Wrong {
    pub(crate) const ALL: [Self; 3] = [Self::Short, Self::Interrupted, Self::Again];
}
