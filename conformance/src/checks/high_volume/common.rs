//! C: what is common to all contracts, asked of `HighVolumeBackend`.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{try_join, try_join_all, try_join3};
use larder_traits::{
    Durability, ErrorKind, ExpirationPolicy, Metadata, TieredMetadata, TieredWrite, Tombstone,
};
use proptest::prelude::Rng;

use super::lin;
use crate::check::{Check, Engine, Level, Outcome, Stop};
use crate::checks::backend::calls::Subject;
use crate::checks::backend::common as plain;
use crate::checks::backend::objects::{far, id_of_len, name};
use crate::checks::backend::{cancel, faults, time, work};
use crate::checks::{
    busy_neighbours, dropped_neighbours, exchange, failing_neighbours, many_handles, pattern,
    refused,
};
use crate::cx::{Cx, brief};
use crate::engine::damage;
use crate::engine::meeting::Harm;
use crate::engine::work::Crew;
use crate::high_volume::{Handle, World};
use crate::model::high_volume::Row;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "C-1.1",
        "every provoked error has a kind and an outcome that holds",
    )
    .kills("false NotApplied")
    .engines(&[Engine::Fault])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            faults::every_error(cx, &a, &b).await
        })
    }),
    Check::new(
        "C-1.2",
        "one native error before and after the commit point",
    )
    .kills("outcome from native error")
    .engines(&[Engine::Fault])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            faults::either_side(cx, &a, &b).await
        })
    }),
    Check::new("C-1.3", "error texts and conversions").level(Level::Untestable(
        "a source rule, held by the repository's own tidy check",
    )),
    failing_neighbours().run(|cx| Box::pin(lin::harmed(cx, Harm::Failure))),
    Check::new("C-2.1", "a place opened eight times at once is one place")
        .kills("truncating open, private cache")
        .run(|cx| Box::pin(c_2_1(cx))),
    Check::new(
        "C-2.2",
        "of two handles one is dropped and the other goes on",
    )
    .kills("close destroys shared state")
    .run(|cx| Box::pin(c_2_2(cx))),
    many_handles("C-2.3").run(|cx| Box::pin(c_2_3(cx))),
    busy_neighbours("C-2.4").run(|cx| Box::pin(c_2_4(cx))),
    Check::new("C-3.1", "random and extreme arguments to every method")
        .kills("panic, overflow")
        .run(|cx| Box::pin(c_3_1(cx))),
    Check::new(
        "C-3.2",
        "files with flipped bits, zeroed sectors and cut ends are opened and used",
    )
    .kills("panic, hang")
    .engines(&[Engine::Fault, Engine::Power])
    .run(|cx| Box::pin(c_3_2(cx))),
    Check::new("C-4.1", "the declared bounds, and one beyond each")
        .kills("silent cut, late check")
        .run(|cx| Box::pin(c_4_1(cx))),
    Check::new("C-4.2", "more calls at once than may be in flight all end")
        .kills("deadlock")
        .run(|cx| Box::pin(c_4_2(cx))),
    Check::new("C-5.1", "the clock goes a year ahead, and an hour back")
        .kills("hidden clock, underflow")
        .level(Level::Declared)
        .engines(&[Engine::Time])
        .gate(time::own_clock)
        .run(|cx| {
            Box::pin(async move {
                let (a, b) = cx.open_two("p").await?;
                time::ahead_and_back(cx, &a, &b).await
            })
        }),
    Check::new("C-6.1", "every method dropped at every await")
        .kills("torn value, poisoned store")
        .engines(&[Engine::Cancel])
        .run(|cx| {
            Box::pin(async move {
                let (a, b) = cx.open_two("p").await?;
                cancel::swept(cx, &a, &b).await
            })
        }),
    Check::new(
        "C-6.2",
        "more calls dropped than a pool holds, then one more",
    )
    .kills("leaked permit, lock")
    .engines(&[Engine::Cancel])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            cancel::leaks(cx, &a, &b).await
        })
    }),
    Check::new(
        "C-6.3",
        "a write that was dropped does not land after a later one",
    )
    .kills("false Fenced")
    .level(Level::Declared)
    .engines(&[Engine::Cancel])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            cancel::late(cx, &a, &b).await
        })
    }),
    Check::new(
        "C-6.4",
        "one of several waiting calls is dropped, and the others end",
    )
    .kills("lost wake-up")
    .engines(&[Engine::Cancel])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            cancel::queued(cx, &a, &b).await
        })
    }),
    dropped_neighbours().run(|cx| Box::pin(lin::harmed(cx, Harm::Drop))),
];

fn to(key: &str) -> Tombstone {
    Tombstone::new(name(key), ExpirationPolicy::Manual)
}

async fn c_2_1(cx: &Cx<dyn World>) -> Outcome {
    let first = cx.open_as("first", "p").await?;
    first
        .put(&name("before"), &Metadata::new(), "before")
        .await?;
    let write = TieredWrite::Tombstone(to("old"));
    cx.eq(
        "a redirect",
        &first.swap(&name("redirect"), None, write).await?,
        &true,
    )?;
    let eight = try_join_all(plain::EIGHT.map(|handle| cx.open_as(handle, "p"))).await?;
    let objects: Vec<_> = eight.iter().map(|handle| (**handle).clone()).collect();
    plain::shared_place(cx, &first, &objects).await?;
    // A redirect that goes from hand to hand: each must see what the one before it wrote.
    let mut current = name("old");
    for (nth, handle) in eight.iter().enumerate() {
        let next = to(&format!("by-{nth}"));
        let write = TieredWrite::Tombstone(next.clone());
        let won = handle
            .swap(&name("redirect"), Some(&current), write)
            .await?;
        cx.eq("a swap of what another handle wrote", &won, &true)?;
        current = next.target.clone();
        for reader in &eight {
            let head = reader.head(&name("redirect")).await?;
            let expected = TieredMetadata::Tombstone(next.clone());
            cx.eq("a redirect that another handle wrote", &head, &expected)?;
        }
    }
    Ok(())
}

async fn c_2_3(cx: &Cx<dyn World>) -> Outcome {
    let open = async |name| Ok(cx.open_as(name, "p").await?.plain().clone());
    plain::one_of_many(cx, open).await
}

async fn c_2_4(cx: &Cx<dyn World>) -> Outcome {
    let open = async |name| Ok(cx.open_as(name, "p").await?.plain().clone());
    plain::busy(cx, open).await?;
    let (a, b) = cx.open_two("p").await?;
    let mut idle = cx.open_as("idle", "p").await?;
    let moved = name("moved");
    let mut last = None;
    for round in 0..cx.times(40, 6) {
        let made = name(&format!("made{round}"));
        let next = to(&format!("t{round}"));
        let current = last.as_ref().map(|it: &Tombstone| it.target.clone());
        let swaps = try_join(
            a.swap(
                &moved,
                current.as_ref(),
                TieredWrite::Tombstone(next.clone()),
            ),
            b.swap(&made, None, TieredWrite::Tombstone(next.clone())),
        );
        let still = last.map(Row::Redirect);
        // All of them go on meanwhile: an open or a close may have to wait for one of them.
        let others = exchange(round, idle, cx.open_as("fresh", "p"));
        let (won, seen, fresh) = try_join3(swaps, b.row(&moved), others).await?;
        idle = fresh;
        let pointed = Some(Row::Redirect(next.clone()));
        cx.eq("swaps while handles come and go", &won, &(true, true))?;
        let is_either = seen == still || seen == pointed;
        cx.require(
            is_either,
            "a redirect while it is swapped",
            brief(&seen),
            "the old one or the new",
        )?;
        for handle in [&a, &b, &idle] {
            for id in [&moved, &made] {
                cx.eq(
                    "a redirect after handles came and went",
                    &handle.row(id).await?,
                    &pointed,
                )?;
            }
        }
        last = Some(next);
    }
    Ok(())
}

async fn c_2_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let (inline, redirect) = (name("inline"), name("redirect"));
    a.put(&inline, &Metadata::new(), "a").await?;
    let row = b.row(&inline).await?;
    let pointed = Some(Row::Redirect(to("t")));
    let won = a
        .swap(&redirect, None, TieredWrite::Tombstone(to("t")))
        .await?;
    cx.eq("a redirect in an absent row", &won, &true)?;
    drop(a);
    cx.eq(
        "an object of a dropped handle",
        &b.row(&inline).await?,
        &row,
    )?;
    cx.eq(
        "a redirect of a dropped handle",
        &b.row(&redirect).await?,
        &pointed,
    )?;
    b.put(&name("gone"), &Metadata::new(), "b").await?;
    let c = cx.open_as("c", "p").await?;
    cx.eq(
        "an object through a later handle",
        &c.row(&inline).await?,
        &row,
    )?;
    cx.eq(
        "a redirect through a later handle",
        &c.row(&redirect).await?,
        &pointed,
    )?;
    c.delete(&name("gone")).await?;
    drop(c);
    cx.eq(
        "a row that a dropped handle deleted",
        &b.row(&name("gone")).await?,
        &None,
    )?;
    cx.eq(
        "a redirect through the handle that stayed",
        &b.row(&redirect).await?,
        &pointed,
    )?;
    if cx.caps.durability >= Durability::Process {
        drop(b);
        let d = cx.open_as("d", "p").await?;
        cx.eq(
            "an object after all handles were dropped",
            &d.row(&inline).await?,
            &row,
        )?;
        cx.eq(
            "a redirect after all handles were dropped",
            &d.row(&redirect).await?,
            &pointed,
        )?;
        let gone = d.row(&name("gone")).await?;
        cx.eq("a deleted row after all handles were dropped", &gone, &None)?;
    }
    Ok(())
}

async fn c_3_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    plain::extremes(cx, &a, &b).await?;
    let witness = name("redirect");
    let won = a
        .swap(&witness, None, TieredWrite::Tombstone(to("t")))
        .await?;
    cx.eq("a redirect in an absent row", &won, &true)?;
    let mut rng = cx.rng();
    for nth in 0..60 {
        let (id, target) = (plain::random_id(&mut rng), plain::random_id(&mut rng));
        let metadata = plain::random_metadata(&mut rng);
        let mut tombstone = Tombstone::new(target.clone(), metadata.expiration_policy);
        tombstone.time_expires = metadata.time_expires;
        let payload = Bytes::from(pattern("extreme", nth * 31));
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(rng.next_u64() >> 1));
        let write = match nth % 3 {
            0 => TieredWrite::Object(metadata.clone(), payload.clone()),
            1 => TieredWrite::Delete,
            _ => TieredWrite::Tombstone(tombstone.clone()),
        };
        let shown = brief(&id);
        let what = |call: &str| format!("{call}({shown})");
        let put = a.try_put_inline(&id, &metadata, payload).await;
        plain::classified(&what("put_non_tombstone"), &put, false)?;
        let swap = a
            .try_swap(&id, None, TieredWrite::Tombstone(tombstone))
            .await;
        plain::classified(&what("compare_and_write"), &swap, false)?;
        plain::classified(&what("get_tiered_object"), &a.try_row(&id).await, true)?;
        plain::classified(&what("get_tiered_metadata"), &b.try_head(&id).await, true)?;
        let extend = a.try_extend(&id, &target, at.unwrap_or_else(far)).await;
        plain::classified(&what("extend_expiry"), &extend, false)?;
        plain::classified(&what("fence"), &b.try_fence(&id).await, false)?;
        let swap = a.try_swap(&id, Some(&target), write).await;
        plain::classified(&what("compare_and_write"), &swap, false)?;
        let delete = a.try_delete_inline(&id).await;
        plain::classified(&what("delete_non_tombstone"), &delete, false)?;
        let row = b.row(&witness).await?;
        cx.eq(
            "another row after extreme calls",
            &row,
            &Some(Row::Redirect(to("t"))),
        )?;
    }
    Ok(())
}

async fn c_4_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    long_ids(cx, &a, &b).await?;
    plain::bounds(cx, &a, &b).await?;
    let Some(max) = plain::payload_max(cx) else {
        return Err(plain::too_much(cx));
    };
    let most = Bytes::from(pattern("most", max));
    let beyond = Bytes::from(pattern("beyond", max + 1));
    let none = Metadata::new();
    for is_swap in [false, true] {
        let how = if is_swap {
            "compare_and_write"
        } else {
            "put_non_tombstone"
        };
        let id = name(how);
        let write = async |payload: &Bytes| {
            if is_swap {
                let write = TieredWrite::Object(none.clone(), payload.clone());
                a.try_swap(&id, None, write).await.map(drop)
            } else {
                a.try_put_inline(&id, &none, payload.clone())
                    .await
                    .map(drop)
            }
        };
        let what = format!("{how} of a payload beyond the bound");
        refused(&what, write(&beyond).await, ErrorKind::InvalidInput)?;
        cx.eq(
            format!("an absent row after {what}"),
            &b.row(&id).await?,
            &None,
        )?;
        write(&most)
            .await
            .map_err(|e| crate::check::Stop::error(format!("{how} of {max} B"), &e))?;
        let old = b.row(&id).await?;
        let whole = matches!(&old, Some(Row::Inline(_, payload)) if *payload == most);
        cx.require(whole, format!("{how} of {max} B"), brief(&old), "all of it")?;
        refused(&what, write(&beyond).await, ErrorKind::InvalidInput)?;
        cx.eq(format!("a row after {what}"), &b.row(&id).await?, &old)?;
    }
    Ok(())
}

/// Names at the bound are good for rows and for targets; beyond it no row is written.
async fn long_ids(cx: &Cx<dyn World>, a: &Handle, b: &Handle) -> Outcome {
    let max = cx.caps.high_volume.id_len_bytes_max;
    for escaped in [false, true] {
        let (most, beyond) = (id_of_len(max, escaped), id_of_len(max + 1, escaped));
        b.delete(&most).await?;
        let tombstone = Tombstone::new(most.clone(), ExpirationPolicy::Manual);
        let write = TieredWrite::Tombstone(tombstone.clone());
        let won = a.swap(&most, None, write.clone()).await?;
        cx.eq("a redirect whose names are at the bound", &won, &true)?;
        let row = b.row(&most).await?;
        cx.eq(
            "a redirect whose names are at the bound",
            &row,
            &Some(Row::Redirect(tombstone)),
        )?;
        let what = "a row whose name is beyond the bound";
        let swap = a.try_swap(&beyond, None, write).await;
        refused(what, swap, ErrorKind::InvalidInput)?;
        let put = a
            .try_put_inline(&beyond, &Metadata::new(), "beyond".into())
            .await;
        refused(what, put, ErrorKind::InvalidInput)?;
        let won = b.swap(&most, Some(&most), TieredWrite::Delete).await?;
        cx.eq("a swap whose names are at the bound", &won, &true)?;
        cx.eq(
            "a row whose name is at the bound, removed",
            &a.row(&most).await?,
            &None,
        )?;
    }
    Ok(())
}

async fn c_4_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    plain::crowd(cx, &a, &b).await?;
    let calls = cx.caps.in_flight_max.unwrap_or(64) + 50;
    let handle = &a;
    let all = futures_util::future::join_all((0..calls).map(|nth| async move {
        let write = TieredWrite::Tombstone(to(&format!("target-{nth}")));
        match nth % 3 {
            0 => handle.try_swap(&name("crowd"), None, write).await.map(drop),
            1 => handle.try_row(&name("crowd")).await.map(drop),
            _ => handle.try_delete_inline(&name("crowd")).await.map(drop),
        }
    }));
    let bound = Duration::from_secs(40);
    let ended = cx
        .within(bound, format!("{calls} tiered calls at once"), all)
        .await?;
    let failed = ended.iter().filter(|result| result.is_err()).count();
    let mut wins = 0;
    for result in ended {
        plain::classified("one of many tiered calls at once", &result, false)?;
        wins += usize::from(result.is_ok());
    }
    cx.require(
        wins > 0 || failed == 0,
        format!("{calls} tiered calls at once"),
        "not one of them went through",
        "as many as may be in flight",
    )?;
    let head = b.head(&name("crowd")).await?;
    let is_redirect = matches!(head, TieredMetadata::Tombstone(_));
    cx.require(
        is_redirect,
        "the row after many swaps at once",
        brief(&head),
        "one of the redirects",
    )
}

async fn c_3_2(cx: &Cx<dyn World>) -> Outcome {
    damage::ends(cx, |cx| Box::pin(hire(cx))).await
}

async fn hire(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    let mut handles = Vec::new();
    for name in work::NAMES {
        let handle = cx.open_as(name, "p").await?;
        handles.push((*handle).clone());
    }
    Ok(work::crew(cx.seed(), handles))
}
