//! A block device that remembers everything that was done to it: a file of a FUSE file system, under a loop device.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    Request, WriteFlags,
};

use crate::engine::fuse;
use crate::sim_disk::{SimDisk, SimDiskOptions};

/// The name of the file.
pub(super) const NAME: &str = "disk";

const INODE: INodeNo = INodeNo(2);

/// What reached the device.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Write { offset: u64, data: Vec<u8> },
    Flush,
}

/// Everything since the device was made, in order.
#[derive(Debug)]
pub(super) struct Recording {
    now: SimDisk,
    events: Mutex<Vec<Event>>,
}

impl Recording {
    /// A device with the content of `base`, all of it durable.
    pub(super) fn new(base: &SimDisk) -> Arc<Self> {
        Arc::new(Self {
            now: base.fork(),
            events: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many events there were. What is acknowledged now can rest on those and on no others.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }
}

/// Applies an event.
pub(super) fn apply(disk: &SimDisk, event: &Event) -> io::Result<()> {
    match event {
        Event::Write { offset, data } => disk.write_all_at(data, *offset),
        Event::Flush => disk.sync(),
    }
}

/// A device of so many zeros.
pub(super) fn blank(len: u64) -> SimDisk {
    SimDisk::new(SimDiskOptions::new(0), len)
}

/// The file system with the one file.
struct OneFile(Arc<Recording>);

impl OneFile {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        match inode {
            INODE => fuse::attributes(inode, FileType::RegularFile, self.0.now.len()),
            _ => fuse::attributes(inode, FileType::Directory, 0),
        }
    }
}

/// How long the kernel may remember names and attributes.
const TTL: Duration = Duration::from_secs(1);

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&TTL, &self.attributes(INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // What is written has to arrive here when it is written, and not when the cache of this file is.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        match self.0.now.read_at(&mut data, offset) {
            Ok(len) => reply.data(&data[..len]),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (Ok(len), Ok(at)) = (u32::try_from(data.len()), usize::try_from(offset)) else {
            return reply.error(Errno::EINVAL);
        };
        let end = u64::try_from(at + data.len()).unwrap_or(u64::MAX);
        if end > self.0.now.len() {
            return reply.error(Errno::ENOSPC);
        }
        // One lock over both, so that the order of the events is the order in which they took effect.
        let mut events = self.0.lock();
        let event = Event::Write {
            offset,
            data: data.to_vec(),
        };
        if apply(&self.0.now, &event).is_err() {
            return reply.error(Errno::EIO);
        }
        events.push(event);
        reply.written(len);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut events = self.0.lock();
        if apply(&self.0.now, &Event::Flush).is_err() {
            return reply.error(Errno::EIO);
        }
        events.push(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // The close of a descriptor, which writes nothing back.
        reply.ok();
    }
}

/// Shows the device as a file in that folder, until what comes back is dropped.
pub(super) fn show(
    recording: &Arc<Recording>,
    folder: &Path,
) -> io::Result<fuser::BackgroundSession> {
    fuser::spawn_mount(OneFile(Arc::clone(recording)), folder, &Config::default())
}
