//! Folders and files in memory, and the call among them that goes wrong.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;

use super::Wrong;
use crate::sim_disk::{SimDisk, SimDiskOptions};

/// The number of the folder that is mounted.
pub(super) const ROOT: u64 = 1;

/// What a transfer is cut to is a multiple of this where what was asked for is.
const PAGE_LEN: usize = 4_096;

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are a few of them, and most are files"
)]
pub(super) enum Node {
    Folder(BTreeMap<OsString, u64>),
    File(SimDisk),
}

impl Node {
    fn fork(&self) -> Self {
        match self {
            Self::Folder(names) => Self::Folder(names.clone()),
            Self::File(disk) => Self::File(disk.fork()),
        }
    }
}

/// What kind of call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// A transfer of so many bytes.
    Transfer(usize),
    Other,
}

/// Everything there is, and what is to go wrong.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    seed: u64,
    armed: Option<(u64, Wrong)>,
    met: bool,
}

impl Tree {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            nodes: [(ROOT, Node::Folder(BTreeMap::new()))].into(),
            next: ROOT + 1,
            seed,
            armed: None,
            met: false,
        }
    }

    /// The same nodes once more.
    pub(super) fn save(&self) -> BTreeMap<u64, Node> {
        let forked = self.nodes.iter().map(|(inode, node)| (*inode, node.fork()));
        forked.collect()
    }

    /// The nodes as they were. Numbers are not used again.
    pub(super) fn restore(&mut self, saved: &BTreeMap<u64, Node>) {
        let forked = saved.iter().map(|(inode, node)| (*inode, node.fork()));
        self.nodes = forked.collect();
    }

    /// The power goes: each file keeps what was synced, and of the rest what the seed says.
    pub(super) fn cut(&mut self, seed: u64) {
        for (inode, node) in &mut self.nodes {
            if let Node::File(disk) = node {
                // Another part of each file, unless nothing or all of it is kept.
                let seed = if seed < 2 { seed } else { seed ^ (inode << 32) };
                *disk = disk.crash(seed);
            }
        }
    }

    pub(super) fn arm(&mut self, nth: u64, wrong: Wrong) {
        self.armed = Some((nth, wrong));
        self.met = false;
    }

    pub(super) fn disarm(&mut self) -> bool {
        self.armed = None;
        std::mem::take(&mut self.met)
    }

    /// Whether this call goes wrong. Only those are counted that can.
    pub(super) fn step(&mut self, call: Call) -> Option<Wrong> {
        let (nth, wrong) = self.armed?;
        let can = match (wrong, call) {
            (Wrong::Interrupted, _) | (Wrong::Again, Call::Transfer(_)) => true,
            (Wrong::Short, Call::Transfer(len)) => cut_to(len, nth) < len,
            (Wrong::Short | Wrong::Again, Call::Other) => false,
        };
        if !can {
            return None;
        }
        if nth > 1 {
            self.armed = Some((nth - 1, wrong));
            return None;
        }
        self.armed = None;
        self.met = true;
        Some(wrong)
    }

    pub(super) fn node(&self, inode: u64) -> io::Result<&Node> {
        self.nodes.get(&inode).ok_or(io::ErrorKind::NotFound.into())
    }

    pub(super) fn file(&self, inode: u64) -> io::Result<&SimDisk> {
        match self.node(inode)? {
            Node::File(disk) => Ok(disk),
            Node::Folder(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn folder(&self, inode: u64) -> io::Result<&BTreeMap<OsString, u64>> {
        match self.node(inode)? {
            Node::Folder(names) => Ok(names),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn folder_mut(&mut self, inode: u64) -> io::Result<&mut BTreeMap<OsString, u64>> {
        match self.nodes.get_mut(&inode) {
            Some(Node::Folder(names)) => Ok(names),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn find(&self, parent: u64, name: &OsStr) -> io::Result<u64> {
        let found = self.folder(parent)?.get(name).copied();
        found.ok_or(io::ErrorKind::NotFound.into())
    }

    pub(super) fn make(&mut self, parent: u64, name: &OsStr, is_folder: bool) -> io::Result<u64> {
        if self.folder(parent)?.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = self.next;
        self.next += 1;
        let node = if is_folder {
            Node::Folder(BTreeMap::new())
        } else {
            Node::File(SimDisk::new(SimDiskOptions::new(self.seed ^ inode), 0))
        };
        self.nodes.insert(inode, node);
        self.folder_mut(parent)?.insert(name.to_owned(), inode);
        Ok(inode)
    }

    /// Takes a name away. A file lives on while somebody has it open, so what it holds is kept.
    pub(super) fn remove(&mut self, parent: u64, name: &OsStr) -> io::Result<()> {
        let inode = self.find(parent, name)?;
        if matches!(self.node(inode)?, Node::Folder(names) if !names.is_empty()) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.folder_mut(parent)?.remove(name);
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        (from, name): (u64, &OsStr),
        (to, new): (u64, &OsStr),
    ) -> io::Result<()> {
        let inode = self.find(from, name)?;
        self.folder(to)?;
        self.folder_mut(from)?.remove(name);
        self.folder_mut(to)?.insert(new.to_owned(), inode);
        Ok(())
    }
}

/// How much of a transfer is done: a page, half of it, or all but a page, and odd numbers of bytes where what was asked
/// for is no whole number of pages, since direct transfers are.
pub(super) fn cut_to(len: usize, nth: u64) -> usize {
    let is_odd = !len.is_multiple_of(PAGE_LEN);
    if len <= PAGE_LEN {
        return if is_odd { len.div_ceil(2) } else { len };
    }
    let most = (len - 1) / PAGE_LEN * PAGE_LEN;
    let cut = match nth % 3 {
        0 => PAGE_LEN,
        1 => (len / 2).next_multiple_of(PAGE_LEN).min(most),
        _ => most,
    };
    cut - usize::from(is_odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_cut_to_less_and_never_to_nothing() {
        for len in [2, 100, 4_095, 4_097, 8_192, 12_288, 131_072, 524_320] {
            for nth in 0..3 {
                let cut = cut_to(len, nth);
                assert!(0 < cut && cut < len, "{cut} of {len}");
                let is_whole = |len: usize| len.is_multiple_of(PAGE_LEN);
                assert_eq!(is_whole(cut), is_whole(len), "{cut} of {len}");
            }
        }
        assert_eq!((cut_to(1, 0), cut_to(4_096, 1)), (1, 4_096));
    }

    #[test]
    fn only_what_can_go_wrong_is_counted() {
        let mut tree = Tree::new(1);
        tree.arm(2, Wrong::Short);
        let calls = [
            Call::Transfer(8_192),
            Call::Other,
            Call::Transfer(4_096),
            Call::Transfer(8_192),
            Call::Transfer(8_192),
        ];
        let wrong = calls.map(|call| tree.step(call));
        assert_eq!(wrong, [None, None, None, Some(Wrong::Short), None]);
        assert!(tree.disarm() && !tree.disarm());
    }

    #[test]
    fn a_cut_takes_what_was_not_synced_and_a_restore_brings_everything_back() {
        let mut tree = Tree::new(1);
        let folder = tree.make(ROOT, OsStr::new("a"), true).unwrap();
        let file = tree.make(folder, OsStr::new("b"), false).unwrap();
        tree.file(file).unwrap().write_all_at(b"old", 0).unwrap();
        tree.file(file).unwrap().sync().unwrap();
        let saved = tree.save();
        tree.file(file).unwrap().write_all_at(b"new", 0).unwrap();
        tree.rename((folder, OsStr::new("b")), (ROOT, OsStr::new("c")))
            .unwrap();
        tree.cut(0);
        assert_eq!(tree.file(file).unwrap().visible(), b"old");
        assert_eq!(tree.find(ROOT, OsStr::new("c")).unwrap(), file);
        tree.remove(ROOT, OsStr::new("a")).unwrap();
        tree.restore(&saved);
        assert_eq!(tree.find(folder, OsStr::new("b")).unwrap(), file);
        tree.remove(ROOT, OsStr::new("a")).unwrap_err();
    }
}
