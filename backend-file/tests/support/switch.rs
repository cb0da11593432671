//! A disk that fails when it is told to, in front of one that does not.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use larder_conformance::{FaultKind, Faults};
use larder_file::disk::{Disk, Read, Write};

/// Which call goes wrong, and how.
#[derive(Default)]
pub(crate) struct Switch {
    armed: Mutex<Armed>,
    changed: Condvar,
}

#[derive(Default)]
struct Armed {
    fault: Option<(u64, FaultKind)>,
    met: bool,
    /// Goes up whenever the switch is turned.
    turns: u64,
}

impl Faults for Switch {
    fn arm(&self, nth: u64, kind: FaultKind) {
        self.turn(Some((nth, kind)));
    }

    fn disarm(&self) -> bool {
        self.turn(None)
    }
}

impl Switch {
    pub(crate) fn before(self: Arc<Self>, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
        Arc::new(Failing { disk, switch: self })
    }

    fn turn(&self, fault: Option<(u64, FaultKind)>) -> bool {
        let mut armed = self.armed.lock().expect("nothing panics with it");
        armed.fault = fault;
        armed.turns += 1;
        let met = std::mem::take(&mut armed.met);
        self.changed.notify_all();
        met
    }

    /// What is to go wrong with the call that is being made now.
    fn next(&self) -> Option<FaultKind> {
        let mut armed = self.armed.lock().expect("nothing panics with it");
        let (nth, kind) = armed.fault?;
        if nth > 1 {
            armed.fault = Some((nth - 1, kind));
            return None;
        }
        armed.fault = None;
        armed.met = true;
        Some(kind)
    }

    fn hang(&self) {
        let armed = self.armed.lock().expect("nothing panics with it");
        let turns = armed.turns;
        drop(
            self.changed
                .wait_while(armed, |armed| armed.turns == turns)
                .expect("nothing panics with it"),
        );
    }

    fn call(&self, error: io::ErrorKind, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.next() {
            None => return work(),
            Some(FaultKind::ErrorAfter) => work()?,
            Some(FaultKind::Hang) => self.hang(),
            Some(_) => {}
        }
        Err(error.into())
    }
}

struct Failing {
    disk: Arc<dyn Disk>,
    switch: Arc<Switch>,
}

impl Disk for Failing {
    fn len_bytes(&self) -> u64 {
        self.disk.len_bytes()
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        self.switch
            .call(io::ErrorKind::StorageFull, || self.disk.grow(len))
    }

    fn read(&self, reads: &mut [Read<'_>]) -> Vec<io::Result<()>> {
        let count = reads.len();
        let mut answers = Vec::new();
        let call = self.switch.call(io::ErrorKind::Other, || {
            answers = self.disk.read(reads);
            Ok(())
        });
        match call {
            Ok(()) => answers,
            Err(e) => (0..count).map(|_| Err(e.kind().into())).collect(),
        }
    }

    fn write(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> io::Result<()> {
        self.switch
            .call(io::ErrorKind::StorageFull, || self.disk.write(writes))
    }

    fn sync(&self) -> io::Result<()> {
        self.switch.call(io::ErrorKind::Other, || self.disk.sync())
    }
}
