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

/// Which file has the records is the store's affair, so the end of each is damaged in turn. A damaged end may cost what
/// stood there; it may not be read as anything else, and what is written after it has to be found again.
pub(super) async fn bs_13_2(cx: &Cx<dyn World>) -> Outcome {
    let Some(folder) = cx.world().folder("p") else {
        return Err(Stop::Ignored("needs the power folder()".into()));
    };
    let unable = |e: io::Error| Stop::Inconclusive(format!("the files of the place: {e}"));
    let a = cx.open("p").await?;
    for at in 0..BLOBS {
        a.write(guid(at.into()), at)?;
        a.flush()?;
    }
    drop(a);
    let whole = tempfile::Builder::new().prefix("larder-tail-").tempdir();
    let whole = whole.map_err(unable)?;
    release(cx, &folder, whole.path()).await.map_err(unable)?;
    let mut names = Vec::new();
    damage::files_of(whole.path(), &mut names).map_err(unable)?;
    names.retain(|name| fs::metadata(name).is_ok_and(|file| file.len() > 0));
    if names.is_empty() {
        return Err(Stop::Inconclusive("the folder has no files".into()));
    }
    names.sort();
    let mut opened = 0;
    for name in &names {
        let name = name.strip_prefix(whole.path()).expect("it was found there");
        for cut in CUTS {
            for is_garbage in [false, true] {
                restore(whole.path(), &folder).map_err(unable)?;
                spoil(&folder.join(name), cut, is_garbage).map_err(unable)?;
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

fn spoil(file: &Path, cut: usize, is_garbage: bool) -> io::Result<()> {
    let mut bytes = fs::read(file)?;
    let at = bytes.len().saturating_sub(cut);
    if is_garbage {
        for byte in &mut bytes[at..] {
            *byte ^= 0x5a;
        }
    } else {
        bytes.truncate(at);
    }
    fs::write(file, bytes)
}
