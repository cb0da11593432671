//! What the file systems of the suite's own have in common.

use std::time::UNIX_EPOCH;

use fuser::{FileAttr, FileType, INodeNo};

/// The attributes of a file or folder, of which only the length ever matters here.
pub(super) fn attributes(inode: INodeNo, kind: FileType, len: u64) -> FileAttr {
    FileAttr {
        ino: inode,
        size: len,
        blocks: len.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4_096,
        flags: 0,
    }
}
