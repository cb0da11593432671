//! A medium that is full, and one that has no direct I/O: small file systems of our own.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use larder_file::disk::{DiskOptions, open};
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::child::{FRAME_LEN_BYTES, Verdict, exercise, frame, open_as, read, write};

pub(crate) fn trials() -> Vec<Trial> {
    let trial =
        |name: &str, engine: &'static str| Trial::ignorable_test(name, move || full(engine).into());
    vec![
        trial("full::ring", "ring"),
        trial("full::positioned", "positioned"),
        Trial::ignorable_test("no_direct_io", || no_direct_io().into()),
    ]
}

/// A file system in a file. It is taken down on the way out, also when the test fails.
struct Small {
    folder: TempDir,
    is_mounted: bool,
}

impl Small {
    /// A new one of that size, or why that cannot be had.
    fn new(len: u64, options: &str) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount a file system".to_owned());
        }
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let mut small = Self {
            folder,
            is_mounted: false,
        };
        let image = small.folder.path().join("image");
        let made = File::create(&image).and_then(|file| file.set_len(len));
        made.and_then(|()| fs::create_dir(small.root()))
            .map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        // The loop device of such a mount goes with it.
        let options = format!("loop,{options}");
        run(Command::new("mount")
            .args(["-o", &options])
            .args([image, small.root()]))?;
        small.is_mounted = true;
        Ok(small)
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if self.is_mounted && run(Command::new("umount").arg(self.root())).is_err() {
            // Something in it is still open; it goes as soon as that is closed.
            drop(run(Command::new("umount").arg("-l").arg(self.root())));
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}", stderr.trim()))
}

fn full(engine: &str) -> Verdict {
    let small = match Small::new(48 << 20, "noatime") {
        Ok(small) => small,
        Err(why) => return Verdict::NotHere(why),
    };
    let opened = match open_as(&small.root().join("disk"), engine) {
        Ok(opened) => opened,
        Err(verdict) => return verdict,
    };
    grow_until_full(&*opened.disk, &small.root()).into()
}

fn grow_until_full(disk: &dyn larder_file::disk::Disk, root: &Path) -> Result<(), String> {
    const FRAMES: u64 = 16;
    let told = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let room = || {
        let found = rustix::fs::statvfs(root).map_err(|error| error.to_string())?;
        Ok::<_, String>(found.f_bfree * found.f_frsize)
    };
    let len = FRAMES * FRAME_LEN_BYTES;
    disk.grow(len).map_err(|error| told("growing", error))?;
    let frames = |version| {
        let frames = (0..FRAMES).map(|number| frame(number, version));
        frames.collect::<Vec<_>>()
    };
    let written = write(disk, 0, &frames(1)).and_then(|()| disk.sync());
    written.map_err(|error| told("writing", error))?;

    let before = room()?;
    for _ in 0..3 {
        let outcome = disk.grow(1 << 30).map_err(|error| error.kind());
        if outcome != Err(ErrorKind::StorageFull) {
            return Err(format!("growing past the end of the medium: {outcome:?}"));
        }
        if disk.len_bytes() != len {
            return Err(format!("a failed growth to {}", disk.len_bytes()));
        }
    }
    let after = room()?;
    if after + (1 << 20) < before {
        return Err(format!(
            "a failed growth kept room: {before} before, {after} after"
        ));
    }

    // What the file has is its own, also when nothing else is left.
    let filler = File::create(root.join("filler")).map_err(|error| told("filler", error))?;
    let none = rustix::fs::FallocateFlags::empty();
    for step in [1 << 20, 1 << 16, 1 << 12, 1 << 10] {
        let mut at = filler
            .metadata()
            .map_err(|error| told("filler", error))?
            .len();
        while rustix::fs::fallocate(&filler, none, at, step).is_ok() {
            at += step;
        }
    }
    let new = frames(2);
    let written = write(disk, 0, &new).and_then(|()| disk.sync());
    written.map_err(|error| told("writing to a full medium", error))?;
    let mut back = frame(0, 0);
    for (number, new) in (0..).zip(&new) {
        read(disk, number, &mut back).map_err(|error| told("reading", error))?;
        if back[..] != new[..] {
            return Err(format!("wrong bytes in {number}"));
        }
    }

    // And it goes on once there is room.
    fs::remove_file(root.join("filler")).map_err(|error| told("filler", error))?;
    drop(filler);
    // What was freed can be taken again once the file system has committed that it is free.
    let synced = File::open(root).and_then(|root| Ok(rustix::fs::syncfs(root)?));
    synced.map_err(|error| told("syncing the file system", error))?;
    disk.grow(len + FRAME_LEN_BYTES)
        .map_err(|error| told("growing after room was made", error))
}

/// A file system that journals data has no direct I/O.
fn no_direct_io() -> Verdict {
    let small = match Small::new(96 << 20, "data=journal") {
        Ok(small) => small,
        Err(why) => return Verdict::NotHere(why),
    };
    let options = DiskOptions {
        frames: 4,
        ..DiskOptions::default()
    };
    let opened = open(&small.root().join("disk"), &options).expect("it opens all the same");
    let report = opened.engine.to_string();
    if opened.engine.is_direct() || !report.contains("no O_DIRECT") {
        return Verdict::Fail(format!("it says: {report}"));
    }
    exercise(&opened).into()
}
