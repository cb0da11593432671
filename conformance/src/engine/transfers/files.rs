//! The file system as the kernel sees it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use tempfile::TempDir;

use super::Wrong;
use super::tree::{Call, Node, ROOT, Tree, cut_to};
use crate::engine::fuse;
use crate::engine::power::Reaper;

/// The file system, mounted.
pub(crate) struct Medium {
    tree: Arc<Mutex<Tree>>,
    /// Unmounts it when it is dropped.
    session: Option<fuser::BackgroundSession>,
    /// Unmounts what this process could not.
    _reaper: Reaper,
    folder: TempDir,
}

/// What is on it at one time.
pub(crate) struct Saved(BTreeMap<u64, Node>);

fn lock(tree: &Mutex<Tree>) -> MutexGuard<'_, Tree> {
    tree.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Medium {
    /// An empty one.
    pub(crate) fn new(seed: u64) -> io::Result<Self> {
        if std::fs::metadata("/proc/self")?.uid() != 0 {
            return Err(io::Error::other("only root may mount"));
        }
        if !Path::new("/dev/fuse").exists() {
            return Err(io::Error::other("no /dev/fuse"));
        }
        let folder = tempfile::Builder::new()
            .prefix("larder-transfers-")
            .tempdir()?;
        let root = folder.path().join("root");
        std::fs::create_dir(&root)?;
        let tree = Arc::new(Mutex::new(Tree::new(seed)));
        let reaper = Reaper::new(std::slice::from_ref(&root))?;
        let files = Files(Arc::clone(&tree));
        let session = fuser::spawn_mount(files, &root, &Config::default())?;
        Ok(Self {
            tree,
            session: Some(session),
            _reaper: reaper,
            folder,
        })
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub(crate) fn save(&self) -> Saved {
        Saved(lock(&self.tree).save())
    }

    /// Everything is as it was. Nobody may have a file open who still means to use it.
    pub(crate) fn restore(&self, saved: &Saved) {
        lock(&self.tree).restore(&saved.0);
    }

    /// The power goes. Seed 0 keeps nothing that was not synced.
    pub(crate) fn cut(&self, seed: u64) {
        lock(&self.tree).cut(seed);
    }

    /// Lets the `nth` call from now on that can go wrong in this way do so, counted from 1; once.
    pub(crate) fn arm(&self, nth: u64, wrong: Wrong) {
        lock(&self.tree).arm(nth, wrong);
    }

    /// Calls go well again. Whether one went wrong.
    pub(crate) fn disarm(&self) -> bool {
        lock(&self.tree).disarm()
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        // Before its folder is removed.
        drop(self.session.take());
    }
}

struct Files(Arc<Mutex<Tree>>);

/// The kernel asks again each time: what is there may be another thing after a cut.
const TTL: Duration = Duration::ZERO;

fn attributes(tree: &Tree, inode: u64) -> io::Result<FileAttr> {
    let (kind, size) = match tree.node(inode)? {
        Node::File(disk) => (FileType::RegularFile, disk.len()),
        Node::Folder(_) => (FileType::Directory, 0),
    };
    Ok(fuse::attributes(INodeNo(inode), kind, size))
}

fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT,
        io::ErrorKind::AlreadyExists => Errno::EEXIST,
        io::ErrorKind::DirectoryNotEmpty => Errno::ENOTEMPTY,
        io::ErrorKind::IsADirectory => Errno::EISDIR,
        io::ErrorKind::NotADirectory => Errno::ENOTDIR,
        _ => Errno::EIO,
    }
}

/// What a call answers that goes wrong without an effect.
fn refusal(wrong: Wrong) -> Errno {
    match wrong {
        Wrong::Again => Errno::EAGAIN,
        Wrong::Interrupted | Wrong::Short => Errno::EINTR,
    }
}

fn answer(reply: ReplyEmpty, result: io::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(&e)),
    }
}

impl Files {
    fn entry(reply: ReplyEntry, found: io::Result<FileAttr>) {
        match found {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(e) => reply.error(errno(&e)),
        }
    }

    /// A call on a file that transfers nothing.
    fn other(&self, work: impl FnOnce(&Tree) -> io::Result<()>) -> Result<(), Errno> {
        let mut tree = lock(&self.0);
        if let Some(wrong) = tree.step(Call::Other) {
            return Err(refusal(wrong));
        }
        work(&tree).map_err(|e| errno(&e))
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // If the kernel does not want as much it says how much, and that will do.
        if let Err(most) = config.set_max_write(1 << 20) {
            config
                .set_max_write(most)
                .map_err(|_least| io::ErrorKind::InvalidInput)?;
        }
        // Without it the kernel does direct transfers of a ring as if somebody waited for each, and then does not say
        // how far the file's position got: what io_uring resumes by itself after a short one lands in the wrong place.
        config
            .add_capabilities(fuser::InitFlags::FUSE_ASYNC_DIO)
            .map_err(|_missing| io::Error::from(io::ErrorKind::Unsupported))?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let tree = lock(&self.0);
        let found = tree.find(parent.0, name);
        Self::entry(reply, found.and_then(|inode| attributes(&tree, inode)));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&lock(&self.0), inode.0) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let tree = lock(&self.0);
        let resized = match size {
            Some(size) => tree.file(inode.0).and_then(|disk| disk.set_len(size)),
            None => Ok(()),
        };
        match resized.and_then(|()| attributes(&tree, inode.0)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let mut tree = lock(&self.0);
        let made = tree.make(parent.0, name, true);
        Self::entry(reply, made.and_then(|inode| attributes(&tree, inode)));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mut tree = lock(&self.0);
        let made = tree.make(parent.0, name, false);
        match made.and_then(|inode| attributes(&tree, inode)) {
            Ok(attributes) => reply.created(
                &TTL,
                &attributes,
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // A cache would hide which call transferred what, and outlive a cut.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, lock(&self.0).remove(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, lock(&self.0).remove(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let mut tree = lock(&self.0);
        answer(
            reply,
            tree.rename((parent.0, name), (new_parent.0, new_name)),
        );
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let tree = lock(&self.0);
        let names = match tree.folder(inode.0) {
            Ok(names) => names,
            Err(e) => return reply.error(errno(&e)),
        };
        // The two names that every folder has lead nowhere that anybody asks about.
        let own = [(OsStr::new("."), inode.0), (OsStr::new(".."), ROOT)];
        let names = names.iter().map(|(name, inode)| (name.as_os_str(), *inode));
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (name, inode)) in (1..).zip(own.into_iter().chain(names)).skip(from) {
            let kind = match tree.node(inode) {
                Ok(Node::Folder(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(inode), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut tree = lock(&self.0);
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        let read = tree
            .file(inode.0)
            .and_then(|disk| disk.read_at(&mut data, offset));
        match read {
            Ok(len) => match tree.step(Call::Transfer(len)) {
                None => reply.data(&data[..len]),
                Some(Wrong::Short) => reply.data(&data[..cut_to(len, offset / 512)]),
                Some(wrong) => reply.error(refusal(wrong)),
            },
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut tree = lock(&self.0);
        let len = match tree.step(Call::Transfer(data.len())) {
            None => data.len(),
            Some(Wrong::Short) => cut_to(data.len(), offset / 512),
            Some(wrong) => return reply.error(refusal(wrong)),
        };
        let file = tree.file(inode.0);
        match file.and_then(|disk| disk.write_all_at(&data[..len], offset)) {
            Ok(()) => reply.written(u32::try_from(len).unwrap_or(u32::MAX)),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.other(|tree| tree.file(inode.0)?.sync()) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.other(|_| Ok(())) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        match self.other(|tree| tree.file(inode.0)?.grow(offset + length)) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // The close of a descriptor, which writes nothing back.
        reply.ok();
    }
}
