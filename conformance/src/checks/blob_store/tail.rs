//! BS-13: ends of files that are cut off or garbage.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use larder_traits::ErrorKind;

use super::content::{Content, frame};
use super::guid;
use crate::blob_store::{Handle, World};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::engine::damage;

/// How many blobs are there before the damage.
const BLOBS: u64 = 4;

/// How much of an end is lost.
const CUTS: [usize; 5] = [1, 7, 40, 511, 4_097];

/// Where in a file a byte is changed, in eighths of its length: nowhere near its end.
const EIGHTHS: [usize; 5] = [0, 1, 2, 3, 4];

/// A place with some flushed blobs, which nobody has open, and a copy of its files.
struct Whole {
    folder: PathBuf,
    copy: tempfile::TempDir,
    /// The files that are not empty, below either.
    names: Vec<PathBuf>,
}

impl Whole {
    async fn make(cx: &Cx<dyn World>) -> Result<Self, Stop> {
        let Some(folder) = cx.world().folder("p") else {
            return Err(Stop::Ignored("needs the power folder()".into()));
        };
        let a = cx.open("p").await?;
        for at in 0..BLOBS {
            a.write(guid(at.into()), at)?;
            a.flush()?;
        }
        drop(a);
        let copy = tempfile::Builder::new().prefix("larder-tail-").tempdir();
        let copy = copy.map_err(unable)?;
        release(cx, &folder, copy.path()).await.map_err(unable)?;
        let mut names = Vec::new();
        damage::files_of(copy.path(), &mut names).map_err(unable)?;
        names.retain(|name| fs::metadata(name).is_ok_and(|file| file.len() > 0));
        if names.is_empty() {
            return Err(Stop::Inconclusive("the folder has no files".into()));
        }
        names.sort();
        let below = |name: PathBuf| {
            let below = name.strip_prefix(copy.path());
            below.expect("it was found there").to_owned()
        };
        let names = names.into_iter().map(below).collect();
        Ok(Self {
            folder,
            copy,
            names,
        })
    }

    /// The place as it was, but for one file.
    fn spoil(&self, name: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Outcome {
        restore(self.copy.path(), &self.folder).map_err(unable)?;
        let file = self.folder.join(name);
        let mut bytes = fs::read(&file).map_err(unable)?;
        change(&mut bytes);
        fs::write(file, bytes).map_err(unable)
    }
}

fn unable(e: io::Error) -> Stop {
    Stop::Inconclusive(format!("the files of the place: {e}"))
}

/// Which file has the records is the store's affair, so the end of each is damaged in turn. A damaged end may cost what
/// stood there; it may not be read as anything else, and what is written after it has to be found again.
pub(super) async fn bs_13_2(cx: &Cx<dyn World>) -> Outcome {
    let whole = Whole::make(cx).await?;
    let mut opened = 0;
    for name in &whole.names {
        for cut in CUTS {
            for is_garbage in [false, true] {
                whole.spoil(name, |bytes| {
                    let at = bytes.len().saturating_sub(cut);
                    if is_garbage {
                        bytes[at..].iter_mut().for_each(|byte| *byte ^= 0x5a);
                    } else {
                        bytes.truncate(at);
                    }
                })?;
                let how = if is_garbage {
                    "made garbage"
                } else {
                    "cut off"
                };
                let what = format!("the last {cut} bytes of {} {how}", name.display());
                cx.log().push(what.clone());
                opened += u32::from(goes_on(cx, &what).await?);
            }
        }
    }
    if opened == 0 {
        return Err(Stop::Inconclusive("no damaged place was opened".into()));
    }
    Ok(())
}

/// What follows the damage was written by other flushes, so that this is not an end that may be given up.
pub(super) async fn bs_13_3(cx: &Cx<dyn World>) -> Outcome {
    let whole = Whole::make(cx).await?;
    for name in &whole.names {
        for eighth in EIGHTHS {
            // Not the same byte of every record.
            whole.spoil(name, |bytes| {
                let at = bytes.len() * eighth / 8 + eighth;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 0x5a;
                }
            })?;
            let what = format!("byte {eighth}/8 of {} changed", name.display());
            cx.log().push(what.clone());
            let Ok(a) = cx.try_open_as("damaged", "p").await else {
                continue;
            };
            let is_there = contents(&a, &what)?.contains(&true);
            let is_listed = !a.list()?.is_empty();
            cx.require(
                is_there || is_listed,
                what,
                "an empty place",
                "a refused open, or the blobs that are not where the byte was",
            )?;
            drop(a);
            cx.settle().await;
        }
    }
    Ok(())
}

/// Whether the place was opened; if so, it holds nothing wrong, and keeps what is written from then on.
async fn goes_on(cx: &Cx<dyn World>, what: &str) -> Result<bool, Stop> {
    let Ok(a) = cx.try_open_as("damaged", "p").await else {
        return Ok(false);
    };
    let before = contents(&a, what)?;
    a.write(guid(100), 100)?;
    a.flush()?;
    let (a, _b) = cx.reopen("p", [a]).await?;
    a.expect(&format!("{what}, written after it"), guid(100), Some(100))?;
    let after = contents(&a, what)?;
    cx.eq(format!("{what}, opened once more"), &after, &before)?;
    drop(a);
    Ok(true)
}

/// Whether each blob is there; it may be gone or damaged, but no other.
fn contents(a: &Handle, what: &str) -> Result<Vec<bool>, Stop> {
    let mut there = Vec::new();
    for at in 0..BLOBS {
        let name = guid(at.into());
        match a.try_read(name) {
            Ok(Content::Frame(tag)) if tag == at => there.push(true),
            Ok(seen) => {
                let what = format!("{what}: read_blob({name})");
                let expected = format!("{}, or an error", Content::of(&frame(at)));
                return Err(Stop::fail(what, seen.to_string(), expected));
            }
            Err(e)
                if matches!(
                    larder_traits::Classify::kind(&e),
                    ErrorKind::NotFound | ErrorKind::Corrupt
                ) =>
            {
                there.push(false);
            }
            Err(e) => return Err(Stop::error(format!("{what}: read_blob({name})"), &e)),
        }
    }
    Ok(there)
}

/// Copies the files once the handle has let go of them.
async fn release(cx: &Cx<dyn World>, folder: &Path, to: &Path) -> io::Result<()> {
    cx.settle().await;
    damage::copy_tree(folder, to)
}

fn restore(from: &Path, folder: &Path) -> io::Result<()> {
    let mut old: Vec<PathBuf> = Vec::new();
    damage::files_of(folder, &mut old)?;
    for file in old {
        fs::remove_file(file)?;
    }
    damage::copy_tree(from, folder)
}
