//! File systems that are mounted for a while, and always taken away again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::sim_disk::SimDisk;

/// How long the devices are: room for stores that grow in large steps. Most of it is never written.
const DEVICE_LEN_BYTES: u64 = 512 << 20;

/// Runs a command to its end; what it said where it failed.
fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> io::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program}: {}", said.trim())))
}

/// An ext4 file system on a loop device, unmounted and detached when the value is dropped.
#[derive(Debug)]
pub(super) struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    /// Mounts the image in that file, after its journal was replayed, as after a loss of power.
    pub(super) fn new(image: &Path, folder: &Path) -> io::Result<Self> {
        // The loop device detaches itself with the unmount.
        run(
            "mount",
            &[
                "-t".as_ref(),
                "ext4".as_ref(),
                "-o".as_ref(),
                // Not every file system writes a file before a rename that replaces another by it.
                "loop,errors=remount-ro,noinit_itable,noauto_da_alloc".as_ref(),
                image.as_ref(),
                folder.as_ref(),
            ],
        )?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Writes everything back that is in the caches.
    pub(super) fn sync(&self) -> io::Result<()> {
        run("sync", &["-f".as_ref(), self.folder.as_ref()])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A store may hold a file for a moment after it was dropped.
        for _ in 0..50 {
            if run("umount", &[self.folder.as_ref()]).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Out of sight at once, and gone with the last open file.
        drop(run("umount", &["-l".as_ref(), self.folder.as_ref()]));
    }
}

/// A process that waits for the end of this one, however it ends, and unmounts what is then still mounted.
#[derive(Debug)]
pub(crate) struct Reaper(Child);

impl Reaper {
    pub(crate) fn new(folders: &[PathBuf]) -> io::Result<Self> {
        let script = "trap '' INT TERM HUP; cat; for f; do umount -l \"$f\"; done";
        let child = Command::new("sh")
            .args(["-c", script, "reaper"])
            .args(folders)
            // Its end is the end of this process.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // It looks after what was left mounted, and finds nothing most of the time.
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

/// Makes a fresh ext4 file system with a journal in that file.
pub(super) fn make(image: &Path) -> io::Result<()> {
    File::create(image)?.set_len(DEVICE_LEN_BYTES)?;
    run(
        "mke2fs",
        &[
            "-q".as_ref(),
            "-F".as_ref(),
            "-t".as_ref(),
            "ext4".as_ref(),
            "-b".as_ref(),
            "4096".as_ref(),
            "-N".as_ref(),
            "2048".as_ref(),
            "-J".as_ref(),
            "size=4".as_ref(),
            "-E".as_ref(),
            "nodiscard,lazy_itable_init=1,lazy_journal_init=1".as_ref(),
            image.as_ref(),
        ],
    )
}

/// Reads an image, leaving out what is zeros.
pub(super) fn load(image: &Path, into: &SimDisk) -> io::Result<()> {
    let file = File::open(image)?;
    let mut block = vec![0; 1 << 16];
    let zeros = block.clone();
    let mut at = 0;
    loop {
        let len = file.read_at(&mut block, at)?;
        if len == 0 {
            return into.sync();
        }
        if block[..len] != zeros[..len] {
            into.write_all_at(&block[..len], at)?;
        }
        at += u64::try_from(len).expect("a length fits 64 bits");
    }
}

/// Writes what is on the disk as an image, leaving holes where it has never been written.
pub(super) fn save(disk: &SimDisk, image: &Path) -> io::Result<()> {
    let file = File::create(image)?;
    file.set_len(disk.len())?;
    disk.for_each_chunk(|offset, bytes| file.write_all_at(bytes, offset))
}

/// The length of all devices.
pub(super) fn device_len_bytes() -> u64 {
    DEVICE_LEN_BYTES
}
