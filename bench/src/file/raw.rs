//! The raw medium, driven by the simplest code that can do the work: frames in registered buffers, written through one
//! ring to a file that was allocated and written before, and one data sync. It keeps no names, no checksums and no
//! promises, so it is the ceiling for a store on the same disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use io_uring::{IoUring, opcode, squeue, types};
use larder_traits::frame::{AlignedBlobBuf, PAGE_SIZE};
use rustix::fs::OFlags;

use crate::harness::Result;

/// How many transfers are under way at most.
const DEPTH: u32 = 256;

/// A ring, its file, and the frames that it may use.
pub(super) struct Raw {
    // Dropped first: from then on the kernel knows the frames no more.
    ring: IoUring,
    file: File,
    pub(super) frames: Vec<AlignedBlobBuf>,
}

impl Raw {
    /// Opens or makes a file of so many frames, every one of them written.
    pub(super) fn open(path: &Path, len_frames: usize, frames: usize) -> Result<Self> {
        let direct = i32::try_from(OFlags::DIRECT.bits())?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(direct)
            .open(path)?;
        let ring = IoUring::new(DEPTH)?;
        let mut frames: Vec<AlignedBlobBuf> =
            (0..frames).map(|_| AlignedBlobBuf::zeroed()).collect();
        let buffers: Vec<libc::iovec> = frames
            .iter_mut()
            .map(|frame| libc::iovec {
                iov_base: frame.as_mut_ptr().cast(),
                iov_len: PAGE_SIZE,
            })
            .collect();
        register(&ring, &buffers)?;
        let mut raw = Self { ring, file, frames };
        let written = usize::try_from(raw.file.metadata()?.len())? / PAGE_SIZE;
        if written < len_frames {
            let all: Vec<usize> = (written..len_frames).collect();
            for part in all.chunks(raw.frames.len()) {
                let writes: Vec<(usize, usize)> = part.iter().copied().zip(0..).collect();
                raw.write(&writes)?;
            }
            raw.sync()?;
            raw.file.sync_all()?;
        }
        Ok(raw)
    }

    /// Writes frames, given by their position here, to slots of the file.
    pub(super) fn write(&mut self, writes: &[(usize, usize)]) -> Result {
        let fd = types::Fd(self.file.as_raw_fd());
        let entries: Vec<squeue::Entry> = writes
            .iter()
            .map(|&(slot, frame)| {
                let bytes = &self.frames[frame];
                opcode::WriteFixed::new(fd, bytes.as_ptr(), len(bytes), index(frame))
                    .offset(offset(slot))
                    .build()
            })
            .collect();
        self.run(&entries, PAGE_SIZE)
    }

    /// Reads one slot into one frame.
    pub(super) fn read(&mut self, slot: usize, frame: usize) -> Result {
        let fd = types::Fd(self.file.as_raw_fd());
        let bytes = &mut self.frames[frame];
        let entry = opcode::ReadFixed::new(fd, bytes.as_mut_ptr(), len(bytes), index(frame))
            .offset(offset(slot))
            .build();
        self.run(&[entry], PAGE_SIZE)
    }

    pub(super) fn sync(&mut self) -> Result {
        let sync = opcode::Fsync::new(types::Fd(self.file.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        self.run(&[sync], 0)
    }

    /// Submits everything, waits for everything.
    fn run(&mut self, entries: &[squeue::Entry], expected: usize) -> Result {
        for part in entries.chunks(usize::try_from(DEPTH)?) {
            for entry in part {
                push(&mut self.ring, entry)?;
            }
            let mut left = part.len();
            while left > 0 {
                match self.ring.submit_and_wait(left) {
                    Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e.into()),
                    _ => {}
                }
                for completion in self.ring.completion() {
                    left -= 1;
                    let result = completion.result();
                    if usize::try_from(result).ok() != Some(expected) {
                        // The process ends soon, and the frames live until then.
                        return Err(format!("the raw medium answered {result}").into());
                    }
                }
            }
        }
        Ok(())
    }
}

#[expect(unsafe_code, reason = "the kernel is told addresses")]
fn register(ring: &IoUring, buffers: &[libc::iovec]) -> Result {
    // SAFETY: the buffers are the frames of a `Raw`, which stay at their addresses and are dropped after its ring.
    unsafe { ring.submitter().register_buffers(buffers) }?;
    Ok(())
}

#[expect(unsafe_code, reason = "the kernel is told addresses")]
fn push(ring: &mut IoUring, entry: &squeue::Entry) -> Result {
    // SAFETY: an entry points into a frame of the `Raw` that owns this ring, or into nothing. `run` holds the `Raw`
    // exclusively until every completion has come, so nobody touches the frame meanwhile.
    unsafe { ring.submission().push(entry) }?;
    Ok(())
}

fn len(frame: &AlignedBlobBuf) -> u32 {
    u32::try_from(frame.len()).expect("a frame is short")
}

fn index(frame: usize) -> u16 {
    u16::try_from(frame).expect("a ring has few frames")
}

fn offset(slot: usize) -> u64 {
    u64::try_from(slot * PAGE_SIZE).expect("a file offset fits 64 bits")
}
