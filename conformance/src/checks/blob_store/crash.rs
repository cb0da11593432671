//! BS-11 to BS-15: what a medium may do to a store, and another opener.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_traits::{BlobGuid, Caps, Durability, ErrorKind, PAGE_SIZE};

use super::content::{Content, filled, frame};
#[cfg(all(feature = "power", target_os = "linux"))]
use super::transfers::bs_15_1;
use super::{durable, failing, guid, tail, work};
use crate::blob_store::World;
use crate::check::{Check, Engine, Level, Outcome, Stop};
use crate::checks::{outlives_power, refused};
use crate::cx::Cx;
use crate::engine::{kill, power};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BS-11.1",
        "every order and subset of what was not flushed, over short workloads",
    )
    .kills("in-place tear, commit order")
    .gate(outlives_power)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(bs_11_1(cx))),
    Check::new(
        "BS-11.2",
        "a failed write, more writes, a flush, a cut: nothing lost or swapped",
    )
    .kills("broken rollback")
    .gate(outlives_power)
    .engines(&[Engine::Fault, Engine::Power])
    .run(|cx| Box::pin(bs_11_2(cx))),
    Check::new("BS-11.3", "killed, gone on with, killed again")
        .kills("log cut before data")
        .gate(durable)
        .engines(&[Engine::Kill])
        .run(|cx| Box::pin(bs_11_3(cx))),
    Check::new(
        "BS-12.1",
        "a sync fails: Unknown, then refused until reopened, and what was flushed is intact",
    )
    .kills("retried into a lie")
    .gate(durable)
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(failing::bs_12_1(cx))),
    Check::new(
        "BS-13.1",
        "flipped bytes, zeroed sectors, swapped and stale frames in the files are Corrupt",
    )
    .kills("wrong frame")
    .gate(durable)
    .run(|cx| Box::pin(bs_13_1(cx))),
    Check::new(
        "BS-13.2",
        "a manifest whose tail is cut or garbage recovers to the last whole record",
    )
    .kills("stranded records")
    .gate(durable)
    .engines(&[Engine::Power])
    .run(|cx| Box::pin(tail::bs_13_2(cx))),
    Check::new(
        "BS-13.3",
        "a byte changed before the end of any file: an open that is refused, or what else was flushed, never an empty place",
    )
    .kills("damaged = new")
    .gate(durable)
    .run(|cx| Box::pin(tail::bs_13_3(cx))),
    Check::new(
        "BS-14.1",
        "a second open in this process is refused in a second, or a second handle as declared",
    )
    .kills("no or stale lock")
    .level(Level::Declared)
    .run(|cx| Box::pin(bs_14_1(cx))),
    Check::new(
        "BS-14.2",
        "a second open in another process is refused, and works once the owner was killed",
    )
    .kills("no or stale lock")
    .level(Level::Declared)
    .engines(&[Engine::Kill])
    .gate(durable)
    .run(|cx| Box::pin(bs_14_2(cx))),
    Check::new(
        "BS-15.1",
        "short transfers, EINTR and EAGAIN at the n-th call, a flush, a cut: whole",
    )
    .kills("not resumed")
    .gate(outlives_power)
    .engines(&[Engine::Fault, Engine::Power])
    .run(|cx| Box::pin(bs_15_1(cx))),
    Check::new(
        "BS-15.2",
        "a full disk at the n-th call, then room: it goes on",
    )
    .kills("poisoned")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(failing::bs_15_2(cx))),
    Check::new(
        "BS-15.3",
        "an EIO on a read is an error, not an absent or empty blob",
    )
    .kills("NotFound, zeros")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(failing::bs_15_3(cx))),
];

/// The number of the blob that stays as it was; all others are damaged.
const INTACT: u128 = 0;

async fn bs_13_1(cx: &Cx<dyn World>) -> Outcome {
    let Some(folder) = cx.world().folder("p") else {
        return Err(Stop::Ignored("needs the power folder()".into()));
    };
    let (mut a, mut b) = cx.open_two("p").await?;
    // The last one has an older frame that might come back.
    a.write(guid(6), 1_006)?;
    a.flush()?;
    for at in 0..=6_u64 {
        a.write(guid(at.into()), at)?;
    }
    a.flush()?;
    drop((a, b));

    let mut first = frame(1);
    first[0] ^= 1;
    let mut last = frame(2);
    last[PAGE_SIZE - 1] ^= 0x80;
    let mut sector = frame(3);
    sector[51_200..51_712].fill(0);
    let damages: [(u64, &[u8]); 6] = [
        (1, &first),
        (2, &last),
        (3, &sector),
        (4, &frame(5)),
        (5, &filled(0)),
        (6, &frame(1_006)),
    ];
    let found = locate(&folder, &damages.map(|(tag, _)| tag))
        .map_err(|e| Stop::Inconclusive(format!("the files of the place: {e}")))?;
    for (tag, bytes) in damages {
        let places: Vec<_> = found.iter().filter(|place| place.tag == tag).collect();
        if places.is_empty() {
            let why = "the frames do not stand in files of up to 256 MiB as they were written";
            return Err(Stop::Ignored(why.into()));
        }
        cx.log().push(format!("damage of blob {tag} in the files"));
        for place in places {
            overwrite(place, bytes)
                .map_err(|e| Stop::Inconclusive(format!("the files of the place: {e}")))?;
        }
    }

    (a, b) = cx.reopen("p", []).await?;
    for reader in [&a, &b] {
        reader.expect("beside damaged blobs", guid(INTACT), Some(0))?;
        for (tag, _) in damages {
            let result = reader.try_read(guid(tag.into())).map(drop);
            let what = format!("read_blob({}), damaged", guid(tag.into()));
            refused(&what, result, ErrorKind::Corrupt)?;
        }
    }
    let names: Vec<BlobGuid> = (0..=7).map(guid).collect();
    for (name, answer) in names.iter().zip(b.read_all(&names)?) {
        let what = format!("read_blobs with damaged ones, of it {name}");
        match answer {
            Ok(seen) if *name == guid(INTACT) => cx.eq(what, &seen, &Content::Frame(0))?,
            answer if *name == guid(7) => refused(&what, answer, ErrorKind::NotFound)?,
            answer => refused(&what, answer, ErrorKind::Corrupt)?,
        }
    }
    for (tag, _) in damages {
        // All of it: whether a part that is whole can be had from a damaged frame is the store's affair.
        let name = guid(tag.into());
        let result = a.try_read_range(name, 0, &mut vec![0; PAGE_SIZE]);
        let what = format!("read_blob_range({name}), damaged");
        refused(&what, result, ErrorKind::Corrupt)?;
    }
    // A write heals one blob, a delete takes another away, and neither hides the rest.
    a.write(guid(1), 11)?;
    a.delete(guid(2))?;
    a.flush()?;
    (a, b) = cx.reopen("p", [a, b]).await?;
    b.expect("written over a damaged blob", guid(1), Some(11))?;
    b.expect("a damaged blob that was deleted", guid(2), None)?;
    let result = a.try_read(guid(3)).map(drop);
    refused(
        "read_blob of a damaged blob, reopened",
        result,
        ErrorKind::Corrupt,
    )
}

/// Where a frame stands.
struct Found {
    tag: u64,
    file: PathBuf,
    at: usize,
}

/// Above this a file is not searched.
const FILE_LEN_BYTES_MAX: u64 = 256 << 20;

/// Every place below `folder` at which one of these frames stands.
fn locate(folder: &Path, tags: &[u64]) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let frames: Vec<_> = tags.iter().map(|tag| (*tag, frame(*tag))).collect();
    let mut folders = if folder.exists() {
        vec![folder.to_path_buf()]
    } else {
        Vec::new()
    };
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let file = entry?.path();
            let about = fs::symlink_metadata(&file)?;
            if about.is_dir() {
                folders.push(file);
                continue;
            }
            if !about.is_file() || about.len() > FILE_LEN_BYTES_MAX {
                continue;
            }
            let bytes = fs::read(&file)?;
            for at in 0..(bytes.len() + 1).saturating_sub(PAGE_SIZE) {
                let rest = &bytes[at..];
                // The tag alone first: it rules out nearly everything.
                let whose = frames
                    .iter()
                    .find(|(_, frame)| rest[..8] == frame[..8] && rest[..PAGE_SIZE] == frame[..]);
                if let Some((tag, _)) = whose {
                    let (tag, file) = (*tag, file.clone());
                    found.push(Found { tag, file, at });
                }
            }
        }
    }
    Ok(found)
}

fn overwrite(place: &Found, bytes: &[u8]) -> io::Result<()> {
    let mut all = fs::read(&place.file)?;
    all[place.at..place.at + PAGE_SIZE].copy_from_slice(bytes);
    // In place, so that the file stays the one that others may have a link to.
    let mut file = fs::OpenOptions::new().write(true).open(&place.file)?;
    file.write_all(&all)?;
    file.sync_all()
}

fn must_be_exclusive(caps: &Caps) -> bool {
    caps.blob_store.exclusive || caps.durability != Durability::None
}

async fn bs_14_1(cx: &Cx<dyn World>) -> Outcome {
    const AT_ONCE: Duration = Duration::from_secs(1);
    let a = cx.open("p").await?;
    a.write(guid(1), 1)?;
    if !must_be_exclusive(&cx.caps) {
        let b = cx.open_as("b", "p").await?;
        b.expect("through a second handle", guid(1), Some(1))?;
        b.write(guid(2), 2)?;
        b.delete(guid(1))?;
        a.expect("deleted through a second handle", guid(1), None)?;
        a.expect("written through a second handle", guid(2), Some(2))?;
        return cx.eq(
            "list_blobs() of the first handle",
            &a.list()?,
            &vec![guid(2)],
        );
    }
    // More than once: the refused opener must not take the owner's lock away with it.
    for _ in 0..3 {
        let second = cx.try_open_as("second", "p");
        match cx.within(AT_ONCE, "a second open", second).await? {
            Ok(_) => {
                let expected = "an error: a durable or exclusive place is open once only";
                return Err(Stop::fail(
                    "a second open of one place",
                    "a store",
                    expected,
                ));
            }
            Err(e) => {
                let says_why = !e.to_string().trim().is_empty();
                cx.require(
                    says_why,
                    "the text of a refused open",
                    "nothing",
                    "the reason",
                )?;
            }
        }
        a.expect("after a refused open", guid(1), Some(1))?;
    }
    // Another place is another lock.
    let other = cx.open_as("other", "q").await?;
    other.expect("another place", guid(1), None)?;
    drop(other);
    a.write(guid(2), 2)?;
    a.flush()?;
    // Threads of this process share the one handle.
    let shared = a.named("thread");
    let by_thread = tokio::task::spawn_blocking(move || {
        shared.expect("on another thread", guid(2), Some(2))?;
        shared.write(guid(3), 3)
    });
    let by_thread = by_thread.await;
    by_thread.map_err(|e| Stop::fail("another thread", e.to_string(), "no panic"))??;
    a.flush()?;
    let (a, _b) = cx.reopen("p", [a]).await?;
    if cx.caps.durability != Durability::None {
        for at in 1..=3_u64 {
            a.expect("opened after the owner ended", guid(at.into()), Some(at))?;
        }
    }
    let second = cx.try_open_as("second", "p").await.map(drop);
    let refused = second.is_err();
    cx.require(
        refused,
        "a second open beside the new owner",
        "a store",
        "an error",
    )
}

async fn bs_11_3(cx: &Cx<dyn World>) -> Outcome {
    let ends = kill::kills(cx);
    kill::survives(cx, |cx| Box::pin(work::hire(cx)), &ends).await
}

async fn bs_14_2(cx: &Cx<dyn World>) -> Outcome {
    kill::survives_while(
        cx,
        |cx| Box::pin(work::hire(cx)),
        &[kill::End::Killed],
        |cx| Box::pin(is_refused(cx)),
    )
    .await
}

/// A second open while another process owns the place.
async fn is_refused(cx: &Cx<dyn World>) -> Outcome {
    for _ in 0..3 {
        let second = cx.try_open_as("second", "p");
        let bound = Duration::from_secs(1);
        let what = "an open while another process has the place";
        match cx.within(bound, what, second).await? {
            Ok(_) => return Err(Stop::fail(what, "a store", "an error, at once")),
            Err(e) => cx.require(
                !e.to_string().trim().is_empty(),
                "the text of a refused open",
                "nothing",
                "the reason",
            )?,
        }
    }
    Ok(())
}

async fn bs_11_1(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire_one(cx))).await
}

async fn bs_11_2(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire_failing(cx))).await
}

/// What it takes a file system of the suite's own to do.
#[cfg(not(all(feature = "power", target_os = "linux")))]
async fn bs_15_1(_: &Cx<dyn World>) -> Outcome {
    let why = "needs Linux, the feature `power` of larder-conformance, and root";
    Err(Stop::Ignored(why.into()))
}
