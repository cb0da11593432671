//! CL-4.4, CL-5.6 and CL-6.2: a claim that meets a renewal, another claim or a list, and renewals that meet.

use std::sync::Arc;

use larder_traits::Change;
use tokio::sync::Barrier;

use super::concurrent::panicked;
use super::{at, change, for_ever, writer};
use crate::change_log::{Handle, World};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;

/// Who claims, and has a lease for all time.
const CLAIMANT: u64 = 1;

fn rounds(cx: &Cx<dyn World>) -> u64 {
    u64::try_from(cx.lin_epochs()).map_or(8, |rounds| rounds.max(8))
}

pub(super) async fn cl_4_4(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.renew(writer(CLAIMANT), for_ever()).await?;
    for round in 1..=rounds(cx) {
        longest_holds(cx, [&a, &b], round).await?;
        renewed_in_time(cx, [&a, &b], round).await?;
    }
    Ok(())
}

/// Renewals of one lease at once. `number` is that of a writer with one change, which is struck out in the end.
async fn longest_holds(cx: &Cx<dyn World>, [a, b]: [&Handle; 2], number: u64) -> Outcome {
    const RENEWALS: u64 = 6;
    let (owner, own) = (writer(1_000 + number), change(number, 0));
    a.record(owner, &own).await?;
    let tasks = (0..RENEWALS).map(|n| {
        let handle = if n % 2 == 0 { a.clone() } else { b.clone() };
        // The longest is now the first of them, now the last.
        let until = at(1_000 * (1 + (n + number) % RENEWALS));
        tokio::spawn(async move { handle.renew(owner, until).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.map_err(|e| panicked(&e))??;
    }
    let last = at(1_000 * RENEWALS - 1);
    let claimed = b.claim(writer(CLAIMANT), last, usize::MAX).await?;
    let what = "a claim within the longest of leases that were renewed at once";
    cx.eq(what, &claimed, &Vec::new())?;
    a.complete(owner, own.id).await
}

/// A claim, and renewals of several leases meanwhile. What an owner still has after its renewal it keeps.
async fn renewed_in_time(cx: &Cx<dyn World>, [a, b]: [&Handle; 2], round: u64) -> Outcome {
    // One after the other, they are at it for as long as the claim is.
    const OWNERS: u64 = 4;
    let numbers = (0..OWNERS).map(|n| 10_000 + OWNERS * round + n);
    let owners: Vec<_> = numbers.map(|n| (writer(n), change(n, 0))).collect();
    for (owner, own) in &owners {
        a.record(*owner, own).await?;
    }
    let claim = {
        let b = b.clone();
        tokio::spawn(async move { b.claim(writer(CLAIMANT), at(0), usize::MAX).await })
    };
    for _ in 0..round % 4 {
        tokio::task::yield_now().await;
    }
    let mut lost = Vec::new();
    for (owner, own) in &owners {
        a.renew(*owner, for_ever()).await?;
        let kept = a.changes(*owner).await?;
        if kept.is_empty() {
            lost.push(own.clone());
        }
        tokio::task::yield_now().await;
    }
    let claimed = claim.await.map_err(|e| panicked(&e))??;
    let what = "a claim that met renewals, after each of which its owner was asked for its changes";
    lost.sort_by_key(|change| change.id);
    cx.eq(what, &claimed, &lost)?;
    a.expect(what, writer(CLAIMANT), &claimed).await?;
    for (owner, own) in &owners {
        let is_lost = claimed.contains(own);
        let kept = if is_lost {
            Vec::new()
        } else {
            vec![own.clone()]
        };
        a.expect(what, *owner, &kept).await?;
        let by = if is_lost { writer(CLAIMANT) } else { *owner };
        a.complete(by, own.id).await?;
    }
    Ok(())
}

pub(super) async fn cl_6_2(cx: &Cx<dyn World>) -> Outcome {
    const CHANGES: u64 = 5;
    let (a, b) = cx.open_two("p").await?;
    let claimant = writer(CLAIMANT);
    a.renew(claimant, for_ever()).await?;
    for round in 1..=rounds(cx) {
        let owner = writer(1_000 + round);
        let mut all: Vec<Change> = (0..CHANGES).map(|n| change(10 * round + n, n)).collect();
        for change in &all {
            a.record(owner, change).await?;
        }
        all.sort_by_key(|change| change.id);
        let claim = {
            let b = b.clone();
            tokio::spawn(async move { b.claim(claimant, at(0), usize::MAX).await })
        };
        let reader = if round % 2 == 0 { &a } else { &b };
        let mut is_claimed = false;
        // A claim that panics has ended too.
        while !claim.is_finished() {
            // What has left the one is in the other, which is asked later.
            let own = reader.changes(owner).await?;
            let moved = reader.changes(claimant).await?;
            let is_whole = |seen: &[Change]| seen.is_empty() || *seen == *all;
            let is_kept = !own.is_empty() && !is_claimed;
            let is_moved = own.is_empty() && !moved.is_empty();
            cx.require(
                is_whole(&own) && is_whole(&moved) && (is_kept || is_moved),
                "two lists during a claim",
                format!(
                    "{} of {CHANGES}, then {} of who claims",
                    own.len(),
                    moved.len()
                ),
                "all of them or none: they are claimed at one moment",
            )?;
            is_claimed = !moved.is_empty();
            tokio::task::yield_now().await;
        }
        let claimed = claim.await.map_err(|e| panicked(&e))??;
        cx.eq("a claim during lists", &claimed, &all)?;
        for change in &all {
            a.complete(claimant, change.id).await?;
        }
    }
    Ok(())
}

/// Claims at once, each of a few, of which there are more than all of them may take.
pub(super) async fn cl_5_6(cx: &Cx<dyn World>) -> Outcome {
    const CLAIMANTS: u64 = 3;
    let (a, b) = cx.open_two("p").await?;
    for claimant in 0..CLAIMANTS {
        a.renew(writer(claimant), for_ever()).await?;
    }
    for round in 1..=rounds(cx).div_ceil(2) {
        let limits = [1, 1 + round % 2, 1 + round % 3];
        let asked: u64 = limits.iter().sum();
        let mut all: Vec<Change> = (0..asked).map(|n| change(10 * round + n, n)).collect();
        for (n, change) in (0..).zip(&all) {
            a.record(writer(1_000 + n % 2), change).await?;
        }
        all.sort_by_key(|change| change.id);
        let start = Arc::new(Barrier::new(limits.len()));
        let tasks = (0..).zip(limits).map(|(claimant, limit)| {
            let handle = if claimant == 1 { b.clone() } else { a.clone() };
            let start = Arc::clone(&start);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            tokio::spawn(async move {
                start.wait().await;
                let claimed = handle.claim(writer(claimant), at(0), limit).await?;
                Ok::<_, Stop>((claimant, limit, claimed))
            })
        });
        let mut claimed: Vec<Change> = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            let (claimant, limit, got) = task.await.map_err(|e| panicked(&e))??;
            let what = format!("a claim of {limit}, of {asked} that were enough for all");
            cx.eq(what, &got.len(), &limit)?;
            let what = "what it was told to have claimed";
            b.expect(what, writer(claimant), &got).await?;
            for change in &got {
                a.complete(writer(claimant), change.id).await?;
            }
            claimed.extend(got);
        }
        claimed.sort_by_key(|change| change.id);
        cx.eq("what was claimed at once", &claimed, &all)?;
    }
    Ok(())
}
