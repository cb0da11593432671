//! HV-7: calls on one row at once.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use larder_traits::{ExpirationPolicy, Metadata, ObjectId, TieredWrite, Tombstone};
use tokio::sync::Barrier;

use super::lin;
use crate::check::{Check, Engine, Outcome, Stop};
use crate::checks::backend::calls::{Answer, Call, Subject};
use crate::checks::backend::objects::name;
use crate::checks::seen_once;
use crate::cx::Cx;
use crate::engine::fault::{self, each_met, enough};
use crate::fixture::FaultKind;
use crate::high_volume::{Handle, World};
use crate::model::high_volume::Row;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new("HV-7.1", "swaps to unique targets among puts and deletes")
        .kills("check, then write")
        .engines(&[Engine::Lin])
        .run(|cx| Box::pin(lin::swaps(cx))),
    Check::new(
        "HV-7.2",
        "of eight who want a row at once, each for a target of its own, one wins",
    )
    .kills("both win")
    .run(|cx| Box::pin(hv_7_2(cx))),
    Check::new(
        "HV-7.3",
        "put_non_tombstone against swaps overwrites no redirect",
    )
    .kills("blind put")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(lin::inline_puts(cx))),
    seen_once("HV-7.4").run(|cx| Box::pin(hv_7_4(cx))),
];

const RIVALS: usize = 8;
const ROUNDS: usize = 40;

/// What lies in the row before the race.
#[derive(Clone, Copy, Debug)]
enum Start {
    Absent,
    Inline,
    Redirect,
}

async fn hv_7_2(cx: &Cx<dyn World>) -> Outcome {
    let mut handles = Vec::new();
    for _ in 0..RIVALS / 2 {
        let (a, b) = cx.open_two("p").await?;
        handles.extend([a, b]);
    }
    for round in 0..cx.times(ROUNDS, 6) {
        let start = [Start::Absent, Start::Inline, Start::Redirect][round % 3];
        let id = name(&format!("row-{round}"));
        let old = name(&format!("old-{round}"));
        match start {
            Start::Absent => {}
            Start::Inline => handles[0].put(&id, &Metadata::new(), "inline").await?,
            Start::Redirect => {
                let write = Tombstone::new(old.clone(), ExpirationPolicy::Manual);
                let won = handles[0]
                    .swap(&id, None, TieredWrite::Tombstone(write))
                    .await?;
                cx.eq("a redirect in an absent row", &won, &true)?;
            }
        }
        let current = matches!(start, Start::Redirect).then_some(old);
        // Every other round through one handle, since a lock of one handle need not be one of the place.
        let rivals =
            (0..RIVALS).map(|rival| handles[if round % 2 == 0 { rival } else { 0 }].clone());
        let winners = race(rivals.collect(), &id, current.as_ref()).await?;
        let what = format!("the winners of a race on a row that was {start:?}");
        cx.require(
            winners.len() == 1,
            what,
            format!("{winners:?}"),
            "one of them, since each wants another target",
        )?;
        let expected = Some(Row::Redirect(rival_redirect(winners[0])));
        cx.eq(
            "the row after a race",
            &handles[1].row(&id).await?,
            &expected,
        )?;
    }
    Ok(())
}

fn rival_redirect(rival: usize) -> Tombstone {
    Tombstone::new(name(&format!("rival-{rival}")), ExpirationPolicy::Manual)
}

/// The rivals that were told that they have won.
async fn race(
    rivals: Vec<Handle>,
    id: &ObjectId,
    current: Option<&ObjectId>,
) -> Result<Vec<usize>, Stop> {
    let barrier = Arc::new(Barrier::new(rivals.len()));
    let tasks = rivals.into_iter().enumerate().map(|(rival, handle)| {
        let (id, current) = (id.clone(), current.cloned());
        let barrier = Arc::clone(&barrier);
        tokio::spawn(async move {
            let write = TieredWrite::Tombstone(rival_redirect(rival));
            barrier.wait().await;
            handle.swap(&id, current.as_ref(), write).await
        })
    });
    let mut winners = Vec::new();
    for (rival, ended) in join_all(tasks).await.into_iter().enumerate() {
        let won = ended.map_err(|e| Stop::fail("a swap in a race", e.to_string(), "an answer"))?;
        if won? {
            winners.push(rival);
        }
    }
    Ok(winners)
}

async fn hv_7_4(cx: &Cx<dyn World>) -> Outcome {
    let faults = cx.faults()?;
    let (a, b) = cx.open_two("p").await?;
    let plain = Metadata::new();
    let patience = fault::patience(async || a.put(&name("healthy"), &plain, "1").await).await?;
    let [one, two] = ["one", "two"].map(|key| Tombstone::new(name(key), ExpirationPolicy::Manual));
    let swap =
        |current: Option<&Tombstone>, write| Call::Swap(current.map(|it| it.target.clone()), write);
    let to = |redirect: &Tombstone| TieredWrite::Tombstone(redirect.clone());
    let object = Call::PutInline(plain.clone(), Bytes::from_static(b"new"));
    // What is there before, a call, and the one that comes over it and leaves what was there before.
    let cases = [
        (
            None,
            swap(None, to(&one)),
            swap(Some(&one), TieredWrite::Delete),
        ),
        (
            Some(&two),
            swap(Some(&two), to(&one)),
            swap(Some(&one), to(&two)),
        ),
        (None, object, Call::DeleteInline),
    ];
    let mut met = 0;
    for (case, (before, first, then)) in cases.iter().enumerate() {
        met += each_met(&*faults, FaultKind::ErrorAfter, async |nth| {
            let id = name(&format!("k{case}n{nth}"));
            // What comes before the call in question is not to fail.
            faults.disarm();
            if let Some(redirect) = before {
                let won = a.swap(&id, None, to(redirect)).await?;
                cx.eq("a redirect in an absent row", &won, &true)?;
            }
            let before = before.map(|redirect| Row::Redirect(redirect.clone()));
            let call = a.make(&id, first);
            let is_seen = async || {
                b.see(&id)
                    .await
                    .is_ok_and(|row| row.is_some() && row != before)
            };
            let over = async || {
                let ended = b.make(&id, then).await;
                ended.is_ok_and(|answer| answer != Answer::Won(false))
            };
            let stays = async || {
                for handle in [&b, &a] {
                    let what = format!("{then:?} over {first:?}, whose answer {nth} was lost");
                    cx.eq(what, &handle.row(&id).await?, &before)?;
                }
                Ok(())
            };
            fault::seen_once(&*faults, nth, patience, call, is_seen, over, stays).await
        })
        .await?;
    }
    enough(met)
}
