//! What every engine does alike.

use std::cell::Cell;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;

use larder_traits::frame::{Frame, PAGE_SIZE};

use super::{DiskOptions, Opened, open};
use crate::disk::{Disk, Read, SECTOR_LEN_BYTES, Write};

const FRAME: u64 = PAGE_SIZE as u64;

/// Every engine that this machine may have; a test runs on all of them.
fn engines() -> Vec<DiskOptions> {
    let mut engines = Vec::new();
    for ring in [false, true] {
        for direct in [false, true] {
            engines.push(DiskOptions {
                create: true,
                direct,
                ring,
                frames: 4,
            });
        }
    }
    engines
}

fn on_each(test: impl Fn(Opened, &Path)) {
    for options in engines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let opened = open(&path, &options).unwrap();
        println!("{}", opened.engine);
        test(opened, &path);
    }
}

/// A frame that tells where it belongs.
fn frame(number: u64) -> Frame {
    let mut frame = Frame::zeroed();
    for (at, word) in frame.chunks_exact_mut(8).enumerate() {
        let at = u64::try_from(at).unwrap();
        word.copy_from_slice(&(number << 32 | at).to_le_bytes());
    }
    frame
}

fn write_all(disk: &dyn Disk, frames: &[Frame]) {
    let writes = frames.iter().zip(0_u64..);
    let mut writes = writes.map(|(frame, number)| Write {
        at: number * FRAME,
        from: frame,
        registered: None,
    });
    disk.write(&mut writes).unwrap();
}

fn read_one(disk: &dyn Disk, at: u64, into: &mut [u8]) -> Result<(), ErrorKind> {
    let mut reads = [Read {
        at,
        into,
        registered: None,
    }];
    let [outcome] = disk.read(&mut reads).try_into().unwrap();
    outcome.map_err(|error| error.kind())
}

#[test]
fn what_was_written_is_read_from_where_it_was_written() {
    on_each(|Opened { disk, .. }, _| {
        // More than the depth of a ring.
        let frames: Vec<_> = (0..70).map(frame).collect();
        disk.grow(70 * FRAME).unwrap();
        write_all(&*disk, &frames);
        disk.sync().unwrap();
        let mut back: Vec<_> = (0..70).map(|_| Frame::zeroed()).collect();
        let reads = back.iter_mut().zip(0_u64..);
        let mut reads: Vec<_> = reads
            .map(|(frame, number)| Read {
                at: number * FRAME,
                into: frame,
                registered: None,
            })
            .collect();
        assert!(disk.read(&mut reads).iter().all(Result::is_ok));
        for (back, frame) in back.iter().zip(&frames) {
            assert!(back[..] == frame[..]);
        }
        let mut sector = Frame::zeroed();
        let sector = &mut sector[..SECTOR_LEN_BYTES];
        read_one(&*disk, 3 * FRAME + 8192, sector).unwrap();
        assert!(sector == &frames[3][8192..][..SECTOR_LEN_BYTES]);
    });
}

#[test]
fn growth_is_zeros_and_reads_past_it_fail_alone() {
    on_each(|Opened { disk, .. }, path| {
        assert_eq!(disk.len_bytes(), 0);
        disk.grow(2 * FRAME).unwrap();
        disk.grow(FRAME).unwrap();
        assert_eq!(disk.len_bytes(), 2 * FRAME);
        assert_eq!(path.metadata().unwrap().len(), 2 * FRAME);
        let (mut inside, mut across) = (frame(1), frame(1));
        let at = [0, 2 * FRAME - 4096];
        let mut reads: Vec<_> = [&mut inside, &mut across]
            .into_iter()
            .zip(at)
            .map(|(into, at)| Read {
                at,
                into,
                registered: None,
            })
            .collect();
        let outcomes = disk.read(&mut reads);
        assert!(outcomes[0].is_ok());
        let error = outcomes[1].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(inside.iter().all(|&byte| byte == 0));
    });
}

#[test]
fn buffers_of_the_pool_work_on_every_engine() {
    on_each(|Opened { disk, slab, .. }, _| {
        disk.grow(8 * FRAME).unwrap();
        let mut bufs: Vec<_> = (0..8).map(|_| slab.lease_zeroed()).collect();
        for (buf, number) in bufs.iter_mut().zip(1_u64..) {
            buf.copy_from_slice(&frame(number));
        }
        let writes = bufs.iter().zip(0_u64..);
        let mut writes = writes.map(|(buf, number)| Write {
            at: number * FRAME,
            from: buf,
            registered: slab.registered_slot(buf),
        });
        disk.write(&mut writes).unwrap();
        drop(bufs);
        for number in (0..8).rev() {
            let mut buf = slab.lease_recycled();
            let registered = slab.registered_slot(&buf);
            let mut reads = [Read {
                at: number * FRAME,
                into: &mut buf,
                registered,
            }];
            disk.read(&mut reads).remove(0).unwrap();
            assert!(buf[..] == frame(number + 1)[..]);
        }
    });
}

#[test]
fn a_caller_that_unwinds_leaves_nothing_under_way() {
    on_each(|Opened { disk, .. }, _| {
        disk.grow(8 * FRAME).unwrap();
        let frames: Vec<_> = (0..8).map(frame).collect();
        let drawn = Cell::new(0_u64);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let mut writes = frames.iter().map(|frame| {
                let number = drawn.replace(drawn.get() + 1);
                if number == 4 {
                    resume_unwind(Box::new("as planned"));
                }
                Write {
                    at: number * FRAME,
                    from: frame,
                    registered: None,
                }
            });
            disk.write(&mut writes)
        }));
        unwound.unwrap_err();
        // Those that were under way have ended, and the disk goes on.
        let mut back = Frame::zeroed();
        for number in 0..4 {
            read_one(&*disk, number * FRAME, &mut back).unwrap();
            assert!(back[..] == frame(number)[..]);
        }
        write_all(&*disk, &frames);
        disk.sync().unwrap();
    });
}

#[test]
fn the_file_is_open_once() {
    on_each(|first, path| {
        let again = open(path, &DiskOptions::default()).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::ResourceBusy);
        drop(first);
        open(path, &DiskOptions::default()).unwrap();
    });
}

#[test]
fn a_missing_file_is_made_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let options = DiskOptions {
        create: false,
        ..DiskOptions::default()
    };
    let error = open(&path, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = open(folder.path(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IsADirectory);
}

#[test]
fn many_threads_share_the_rings() {
    on_each(|Opened { disk, .. }, _| {
        let frames: Vec<_> = (0..24).map(frame).collect();
        disk.grow(24 * FRAME).unwrap();
        write_all(&*disk, &frames);
        std::thread::scope(|scope| {
            for thread in 0..24 {
                let disk = Arc::clone(&disk);
                scope.spawn(move || {
                    let mut back = Frame::zeroed();
                    for round in 0..8 {
                        let number = (thread * 5 + round) % 24;
                        read_one(&*disk, number * FRAME, &mut back).unwrap();
                        assert!(back[..] == frame(number)[..]);
                    }
                });
            }
        });
    });
}

/// The kernel tells of a failed flush once. A second one would succeed, and nothing would say what is missing.
#[test]
fn no_flush_succeeds_after_one_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    // A pipe cannot be flushed.
    let path = folder.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let pipe = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let disk = crate::disk::Positioned::new(pipe, false).unwrap();
    let first = disk.sync().unwrap_err();
    let second = disk.sync().unwrap_err();
    assert!(first.raw_os_error().is_some());
    // Not the operating system's answer again, but that of a disk which remembers the first.
    assert!(second.raw_os_error().is_none());
}
