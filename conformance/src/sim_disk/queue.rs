//! Calls that are submitted together and complete in any order.

use std::io;

use super::state::State;

/// A call for [`SimDisk::submit`](super::SimDisk::submit).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Call {
    /// A read of that many bytes; they come with the completion.
    Read {
        /// From where.
        offset: u64,
        /// How many bytes.
        len: usize,
    },
    /// A write.
    Write {
        /// Where to.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// A sync of what completed before it.
    Sync,
}

/// Which call a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

/// The answer to a submitted call.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completion {
    /// Of which call.
    pub ticket: Ticket,
    /// How many bytes were transferred, 0 for a sync; or why not.
    pub result: io::Result<usize>,
    /// What was read, as long as `result` says.
    pub data: Vec<u8>,
}

impl State {
    pub(super) fn submit(&mut self, call: Call) -> Ticket {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.in_the_air.push((ticket, call));
        ticket
    }

    pub(super) fn complete(&mut self) -> Option<Completion> {
        if self.in_the_air.is_empty() {
            return None;
        }
        let at = self.chance.index(self.in_the_air.len());
        let (ticket, call) = self.in_the_air.remove(at);
        let mut read = Vec::new();
        let result = match &call {
            Call::Read { offset, len } => {
                read.resize(*len, 0);
                let result = self.read(&mut read, *offset);
                read.truncate(result.as_ref().map_or(0, |read| *read));
                result
            }
            Call::Write { offset, data } => self.write(data, *offset),
            Call::Sync => self.sync().map(|()| 0),
        };
        Some(Completion {
            ticket,
            result,
            data: read,
        })
    }
}
