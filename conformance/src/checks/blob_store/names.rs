//! BS-6: lists, and the question after one blob.

use larder_traits::{AlignedBlobBuf, BlobGuid, Durability};
use proptest::prelude::*;

use super::content::{frame, own_frame};
use super::{guid, threads};
use crate::blob_store::{Batch, Handle, World};
use crate::check::{Check, Engine, Level, Outcome, Stop};
use crate::cx::Cx;
use crate::engine::{cost, model};
use crate::model::blob_store::Frames;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BS-6.1",
        "list, has_blob and what can be read are the model's after each of many operations",
    )
    .kills("index drift")
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(bs_6_1(cx))),
    Check::new(
        "BS-6.2",
        "a list during churn has the untouched blobs once each",
    )
    .kills("cursor slips")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(threads::bs_6_2(cx))),
    Check::new(
        "BS-6.4",
        "hundreds of absent names, near ones and far ones, are absent beside the blobs that there are",
    )
    .kills("a filter taken at its word, names by their beginnings")
    .run(|cx| Box::pin(bs_6_4(cx))),
    Check::new("BS-6.3", "what has_blob costs beside few blobs and many")
        .kills("scan")
        .level(Level::Report)
        .engines(&[Engine::Report])
        .run(|cx| Box::pin(bs_6_3(cx))),
];

async fn bs_6_3(cx: &Cx<dyn World>) -> Outcome {
    // A frame is a page of memory.
    const BLOBS_MAX: usize = 10_000;
    let measure = async |count: usize| {
        let a = cx.open(&format!("p{count}")).await?;
        for n in 0..u64::try_from(count).unwrap_or_default() {
            a.write(guid(n.into()), n)?;
        }
        a.flush()?;
        let ask = async || {
            for n in 0..20 {
                a.has(guid(n))?;
            }
            Ok(())
        };
        cost::median(ask).await
    };
    cost::compare(cx, "has_blob", BLOBS_MAX, measure).await
}

async fn bs_6_4(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut rng = cx.rng();
    let there: Vec<u128> = (0..24).map(|_| rng.random()).collect();
    for (name, tag) in there.iter().zip(1..) {
        a.write(guid(*name), tag)?;
    }
    let mut absent: Vec<u128> = (0..cx.times(600, 100)).map(|_| rng.random()).collect();
    for name in &there {
        // Beside each, by one bit, by one byte, and from behind.
        absent.extend((0..128).step_by(3).map(|bit| name ^ (1 << bit)));
        absent.extend([name.swap_bytes(), !name, name.rotate_left(64)]);
    }
    absent.retain(|name| !there.contains(name));
    let asked = |handle: &Handle, names: &[u128], expected: bool| {
        for name in names {
            let name = guid(*name);
            cx.eq(format!("has_blob({name})"), &handle.has(name)?, &expected)?;
        }
        Ok::<(), Stop>(())
    };
    asked(&b, &absent, false)?;
    asked(&b, &there, true)?;
    a.flush()?;
    asked(&a, &absent, false)?;
    let (gone, left) = there.split_at(there.len() / 2);
    for name in gone {
        b.delete(guid(*name))?;
    }
    asked(&a, gone, false)?;
    asked(&a, left, true)?;
    b.flush()?;
    asked(&b, &absent, false)?;
    asked(&b, gone, false)
}

#[derive(Clone, Debug)]
enum Op {
    Write {
        name: usize,
        own: bool,
    },
    Delete {
        name: usize,
    },
    Batch {
        names: Vec<usize>,
        sync: bool,
    },
    Flush,
    /// Go on with a new handle, or with all of them new.
    Reopen,
}

const NAMES: [u128; 6] = [0, 1, 1 << 64, 1 << 127, u128::MAX - 1, u128::MAX];

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let name = || 0..NAMES.len();
    let batch = (prop::collection::vec(name(), 0..5), any::<bool>());
    let op = prop_oneof![
        6 => (name(), any::<bool>()).prop_map(|(name, own)| Op::Write { name, own }),
        4 => name().prop_map(|name| Op::Delete { name }),
        2 => batch.prop_map(|(names, sync)| Op::Batch { names, sync }),
        2 => Just(Op::Flush),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..model::CASE_LEN_MAX)
}

async fn bs_6_1(cx: &Cx<dyn World>) -> Outcome {
    model::run(cx, ops(), |cx, list| Box::pin(side_by_side(cx, list))).await
}

async fn side_by_side(cx: &Cx<dyn World>, list: &[Op]) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let mut model = Frames::default();
    let mut tag = 0;
    for (at, op) in list.iter().enumerate() {
        // Writes go through one handle and are looked at through the other, in turn.
        let (writer, reader) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        match op {
            Op::Write { name, own } => {
                tag += 1;
                let src = if *own {
                    own_frame(&**writer.store(), tag)
                } else {
                    frame(tag)
                };
                writer.write_buf(guid(NAMES[*name]), &src)?;
                model.write(guid(NAMES[*name]), tag);
            }
            Op::Delete { name } => {
                writer.delete(guid(NAMES[*name]))?;
                model.delete(guid(NAMES[*name]));
            }
            Op::Batch { names, sync } => {
                let how = if *sync { Batch::DataSync } else { Batch::Plain };
                let first = tag + 1;
                tag += 5;
                let sources: Vec<AlignedBlobBuf> = (first..).take(names.len()).map(frame).collect();
                let names: Vec<BlobGuid> = names.iter().map(|name| guid(NAMES[*name])).collect();
                let writes: Vec<_> = names.iter().copied().zip(&sources).collect();
                writer.write_all(how, &writes)?;
                model.write_all(names.into_iter().zip(first..));
            }
            Op::Flush => {
                writer.flush()?;
                model.flush();
            }
            Op::Reopen if cx.caps.durability != Durability::None => {
                // Without the flush it would be open what is found.
                a.flush()?;
                model.flush();
                (a, b) = cx.reopen("p", [a, b]).await?;
                as_modelled(cx, &a, &model)?;
                continue;
            }
            Op::Reopen if !cx.caps.blob_store.exclusive => {
                a = cx.open_as("a", "p").await?;
                continue;
            }
            Op::Reopen => continue,
        }
        as_modelled(cx, reader, &model)?;
    }
    as_modelled(cx, &a, &model)
}

fn as_modelled(cx: &Cx<dyn World>, reader: &Handle, model: &Frames<u64>) -> Outcome {
    let listed: Vec<BlobGuid> = model.list().collect();
    cx.eq("list_blobs()", &reader.list()?, &listed)?;
    for name in NAMES.map(guid) {
        cx.eq(
            format!("has_blob({name})"),
            &reader.has(name)?,
            &model.has(name),
        )?;
        let expected = model.read(name).ok().copied();
        reader.expect("after this operation", name, expected)?;
    }
    Ok(())
}
