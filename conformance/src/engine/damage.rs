//! Files that are damaged while no handle is open: what comes of opening and using them is an answer or an error.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use proptest::prelude::Rng;

use super::work::{Hire, Told};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::fixture::{Folders, World};

/// How many operations each worker performs before the damage.
const OPERATIONS: u64 = 4;

/// Damages copies of the world's folders, each in one place, and opens and uses what is left. A panic fails the check by
/// itself, and so does a call that does not end.
pub(crate) async fn ends<W>(cx: &Cx<W>, hire: Hire<W>) -> Outcome
where
    W: World + ?Sized,
{
    let folders = cx.env().folders.given();
    if folders.is_empty() {
        let why = "needs a world in folders of Env::tempdir";
        return Err(Stop::Ignored(why.into()));
    }
    let mut crew = hire(cx).await?;
    for worker in &mut crew {
        for n in 0..OPERATIONS {
            worker.perform(n).await?;
        }
        worker
            .judge(Told {
                durable: 0,
                begun: OPERATIONS,
            })
            .await?;
    }
    drop(crew);
    cx.settle().await;
    let unable = |e: io::Error| Stop::Inconclusive(format!("the copy of a folder: {e}"));
    let scratch = tempfile::Builder::new().prefix("larder-damage-").tempdir();
    let scratch = scratch.map_err(unable)?;
    let mut rng = cx.rng();
    for case in 0..cx.profile.damages() {
        let mut copies = Vec::new();
        for (number, folder) in folders.iter().enumerate() {
            let copy = scratch.path().join(format!("{case}-{number}"));
            copy_tree(folder, &copy).map_err(unable)?;
            copies.push(copy);
        }
        let mut files = Vec::new();
        for copy in &copies {
            files_of(copy, &mut files).map_err(unable)?;
        }
        files.sort();
        if files.is_empty() {
            return Err(Stop::Inconclusive("the world has no files".into()));
        }
        let file = &files[below(&mut rng, files.len())];
        let what = damage(file, &mut rng).map_err(unable)?;
        cx.log().push(format!("damage: {what}"));
        use_it(cx, hire, &copies, scratch.path()).await?;
        for copy in copies {
            drop(fs::remove_dir_all(copy));
        }
    }
    Ok(())
}

/// What the calls answer does not matter, as long as they do.
async fn use_it<W>(cx: &Cx<W>, hire: Hire<W>, copies: &[PathBuf], links: &Path) -> Outcome
where
    W: World + ?Sized,
{
    let after = cx
        .moved(Folders::again(copies.iter().cloned(), links))
        .await?;
    let Ok(mut crew) = hire(&after).await else {
        return Ok(());
    };
    for worker in &mut crew {
        drop(worker.judge(Told::all(OPERATIONS)).await);
        drop(worker.perform(OPERATIONS).await);
    }
    Ok(())
}

pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

pub(crate) fn files_of(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files_of(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// One bit, one sector or the end of a file; in words.
fn damage(file: &Path, rng: &mut impl Rng) -> io::Result<String> {
    let mut bytes = fs::read(file)?;
    let len = bytes.len();
    let name = file.file_name().unwrap_or_default().display();
    if len == 0 {
        fs::write(file, [0xff; 100])?;
        return Ok(format!("100 bytes into {name}, which was empty"));
    }
    // Headers are where most decisions are made.
    let near = if rng.next_u64().is_multiple_of(2) {
        len.min(256)
    } else {
        len
    };
    let at = below(rng, near);
    let what = match rng.next_u64() % 4 {
        0 => {
            bytes.truncate(at);
            format!("{name} cut from {len} to {at} bytes")
        }
        1 => {
            let end = len.min(at + 512);
            bytes[at..end].fill(0);
            format!("zeros from {at} to {end} in {name}")
        }
        _ => {
            bytes[at] ^= 1 << (rng.next_u64() % 8);
            format!("a bit at {at} in {name}")
        }
    };
    fs::write(file, bytes)?;
    Ok(what)
}

fn below(rng: &mut impl Rng, len: usize) -> usize {
    let len = u64::try_from(len).expect("a length fits 64 bits");
    usize::try_from(rng.next_u64() % len).expect("it is below a length")
}
