//! Opening the file: who may have it, whether the page cache is passed by, and which engine drives it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::engine::Engine;
use super::positioned::Positioned;
#[cfg(target_os = "linux")]
use super::uring::Uring;
use super::{Disk, SECTOR_LEN_BYTES};
use crate::pool::Slab;

/// What the caller wants of the disk.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "both sides of the seam are of this crate and its tests"
)]
pub struct DiskOptions {
    /// Make the file if there is none. It is empty then, and its name is durable.
    pub create: bool,
    /// Pass by the page cache, where the file system lets us.
    pub direct: bool,
    /// Use io_uring, where the machine lets us.
    pub ring: bool,
    /// How many frames the pool keeps, registered with the ring as far as the machine lets us.
    pub frames: u32,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            create: true,
            direct: true,
            ring: true,
            frames: 64,
        }
    }
}

/// An open disk and what belongs to it.
#[non_exhaustive]
pub struct Opened {
    /// The disk on the engine that `engine` tells of.
    pub disk: Arc<dyn Disk>,
    /// Where buffers for this disk come from.
    pub slab: Arc<Slab>,
    /// What the disk runs on, and why not on something better.
    pub engine: Engine,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("engine", &self.engine)
            .field("slab", &self.slab)
            .finish_non_exhaustive()
    }
}

/// Opens the file for this process alone, on the best engine that the machine allows.
///
/// # Errors
///
/// `ResourceBusy` if another opener has it, `NotFound` if it is missing and not to be made, `InvalidInput` if the path
/// is no regular file, and whatever else the system says.
pub fn open(path: &Path, options: &DiskOptions) -> io::Result<Opened> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(options.create)
        .truncate(false)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "the store lives in a regular file",
        ));
    }
    lock(&file)?;
    if options.create && metadata.len() == 0 {
        sync_name(path)?;
    }
    let mut engine = Engine::new();
    let direct = if options.direct {
        go_direct(&file)
    } else {
        Err("turned off".to_owned())
    };
    match &direct {
        Ok(()) => engine.set_direct(),
        Err(why) => engine.add_shortfall(format!("no O_DIRECT: {why}")),
    }
    let plain = Positioned::new(file, direct.is_ok())?;
    let slab = Slab::new(options.frames);
    let disk: Arc<dyn Disk> = match with_ring(plain, options.ring, &slab, &mut engine) {
        Ok(ring) => Arc::new(ring),
        Err((plain, why)) => {
            engine.add_shortfall(format!("no io_uring: {why}"));
            Arc::new(plain)
        }
    };
    Ok(Opened { disk, slab, engine })
}

#[cfg(target_os = "linux")]
fn with_ring(
    plain: Positioned,
    wanted: bool,
    slab: &Arc<Slab>,
    engine: &mut Engine,
) -> Result<Uring, (Positioned, String)> {
    if !wanted {
        return Err((plain, "turned off".to_owned()));
    }
    match rustix::fs::fstatfs(plain.file()) {
        Ok(found) if i128::from(found.f_type) == FUSE => {
            let why = "on FUSE it can go on with a short write at the wrong place";
            Err((plain, why.to_owned()))
        }
        _ => Uring::new(plain, slab, engine),
    }
}

/// What the kernel calls every file system that is a program. Where such a one takes less than it was given, the ring
/// writes the rest at the offset of the first part, and says that all is well.
#[cfg(target_os = "linux")]
const FUSE: i128 = 0x6573_5546;

#[cfg(not(target_os = "linux"))]
fn with_ring(
    plain: Positioned,
    wanted: bool,
    _slab: &Arc<Slab>,
    _engine: &mut Engine,
) -> Result<Positioned, (Positioned, String)> {
    let why = if wanted { "Linux only" } else { "turned off" };
    Err((plain, why.to_owned()))
}

/// The lock goes with the open file: it ends when the disk is dropped, or with the process.
fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => io::Error::new(
            ErrorKind::ResourceBusy,
            "the file is open elsewhere, in this process or another",
        ),
        fs::TryLockError::Error(error) => error,
    })
}

/// Makes the name of a new file durable, in the directory that a symbolic link may lead to.
fn sync_name(path: &Path) -> io::Result<()> {
    let real = path.canonicalize()?;
    match real.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Turns the page cache off for this file, or says why not.
#[cfg(target_os = "linux")]
fn go_direct(file: &File) -> Result<(), String> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    let cached = fcntl_getfl(file).map_err(|errno| format!("fcntl: {errno}"))?;
    fcntl_setfl(file, cached | OFlags::DIRECT)
        .map_err(|errno| format!("the file system refuses it ({errno})"))?;
    let outcome = try_direct(file);
    if outcome.is_err() {
        fcntl_setfl(file, cached)
            .map_err(|errno| format!("cannot be turned off again: {errno}"))?;
    }
    outcome
}

#[cfg(not(target_os = "linux"))]
fn go_direct(_file: &File) -> Result<(), String> {
    Err("Linux only".to_owned())
}

/// Some file systems take the flag and then refuse the transfers. New kernels say what they need; of others we ask a
/// read.
#[cfg(target_os = "linux")]
fn try_direct(file: &File) -> Result<(), String> {
    use std::os::unix::fs::FileExt;

    use larder_traits::frame::Frame;
    use rustix::fs::{AtFlags, StatxFlags, statx};

    if let Ok(found) = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        && StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::DIOALIGN)
    {
        let align = found.stx_dio_offset_align.max(found.stx_dio_mem_align);
        return match usize::try_from(align) {
            Ok(0) => Err("not on this file".to_owned()),
            Ok(align) if align <= SECTOR_LEN_BYTES => Ok(()),
            _ => Err(format!("it would need transfers of {align} bytes")),
        };
    }
    let mut frame = Frame::zeroed();
    match file.read_at(&mut frame[..SECTOR_LEN_BYTES], 0) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            Err(format!("a read is refused ({error})"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
