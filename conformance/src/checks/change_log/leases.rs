//! CL-4 and CL-5: leases, and who may claim what.

use std::time::{Duration, SystemTime};

use larder_traits::{Change, ChangeId, Step, WriterId};

use super::{
    at, change, concurrent, failing, for_ever, id, meetings, object, random, spread, writer,
};
use crate::change_log::{Handle, World, differ};
use crate::check::{Check, Engine, Outcome, Stop};
use crate::checks::{ended, seen_once};
use crate::cx::Cx;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "CL-4.1",
        "a lease holds until its end and not longer, is extended by a later one and never shortened",
    )
    .kills("shortened lease, off by one, lease of another")
    .run(|cx| Box::pin(cl_4_1(cx))),
    Check::new(
        "CL-4.2",
        "a lease outlasts the changes of its writer, and comes before them",
    )
    .kills("lease forgotten with the last change")
    .run(|cx| Box::pin(cl_4_2(cx))),
    Check::new(
        "CL-4.3",
        "a lease is kept to the millisecond at least, and never ends before what was asked for",
    )
    .kills("lease cut to seconds, rounded down")
    .run(|cx| Box::pin(cl_4_3(cx))),
    Check::new(
        "CL-4.4",
        "of renewals that meet the longest holds, and a claim that meets one heeds it once it is acknowledged",
    )
    .kills("renewal that reads and then writes, leases looked at before the claim")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(meetings::cl_4_4(cx))),
    Check::new(
        "CL-4.5",
        "leases that end before, at and after the Unix epoch hold until then and not longer",
    )
    .kills("zero for none or for ever, rounded the wrong way before the epoch")
    .run(|cx| Box::pin(cl_4_5(cx))),
    Check::new(
        "CL-4.6",
        "the leases of hundreds of writers hold beside each other, each until its end",
    )
    .kills("room for so many leases")
    .run(|cx| Box::pin(cl_4_6(cx))),
    Check::new(
        "CL-4.7",
        "a change whose id has the bytes of a writer's is nothing to that writer's lease, nor this to it",
    )
    .kills("one table of changes and leases")
    .run(|cx| Box::pin(cl_4_7(cx))),
    Check::new(
        "CL-5.1",
        "a claim takes what others have no lease for, up to its limit, and answers with that",
    )
    .kills("limit ignored, own claimed, living claimed, answer without effect")
    .run(|cx| Box::pin(cl_5_1(cx))),
    Check::new(
        "CL-5.2",
        "what was claimed stands under the lease of who claimed it",
    )
    .kills("lease goes with the change, claim without an owner")
    .run(|cx| Box::pin(cl_5_2(cx))),
    Check::new(
        "CL-5.3",
        "200 operations of three writers over two handles answer as the model does",
    )
    .kills("any wrong transition")
    .engines(&[Engine::Model])
    .run(|cx| Box::pin(random::cl_5_3(cx))),
    Check::new(
        "CL-5.4",
        "of many that claim at once each gets other changes, and all are claimed",
    )
    .kills("claimed twice, look then take")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(concurrent::cl_5_4(cx))),
    Check::new(
        "CL-5.5",
        "what is claimed while its owner records is the last that was acknowledged",
    )
    .kills("owner looked at before the write, stale answer of a claim")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(concurrent::cl_5_5(cx))),
    Check::new(
        "CL-5.6",
        "claims of a few at once of more than all of them ask for: each gets as many as its limit",
    )
    .kills("chosen before it is taken, fewer than there are")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(meetings::cl_5_6(cx))),
    Check::new(
        "CL-5.7",
        "claims take the changes of hundreds of writers that are gone, as many as their limits say",
    )
    .kills("a page of writers, one writer at a time")
    .run(|cx| Box::pin(cl_5_7(cx))),
    Check::new(
        "CL-6.1",
        "each change is a register, and what is listed is one moment, with a handle for each client",
    )
    .kills("stale list, torn list")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(concurrent::cl_6_1(cx))),
    Check::new(
        "CL-6.2",
        "a claim of several changes is one moment: each list has all of them or none",
    )
    .kills("claim in steps")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(meetings::cl_6_2(cx))),
    seen_once("CL-6.3").run(|cx| Box::pin(failing::cl_6_3(cx))),
];

/// Fails unless a claim by `who` at `now` answers with these and nothing else.
async fn claims(
    what: &str,
    handle: &Handle,
    who: u64,
    now: SystemTime,
    expected: &[Change],
) -> Outcome {
    let seen = handle.claim(writer(who), now, usize::MAX).await?;
    let mut expected = expected.to_vec();
    expected.sort_by_key(|change| change.id);
    if seen == expected {
        return Ok(());
    }
    let what = format!("{what}: a claim at {now:?}");
    Err(differ(what, &seen, &expected))
}

/// Whether the log keeps a lease until `end`: it may say that it cannot where that is before the Unix epoch, or two
/// centuries after it and later.
pub(super) async fn keeps(handle: &Handle, owner: WriterId, end: SystemTime) -> Result<bool, Stop> {
    const KEPT: Duration = Duration::from_secs(200 * 365 * 86_400);
    let epoch = SystemTime::UNIX_EPOCH;
    let what = format!("renew until {end:?}");
    let renewed = handle.try_renew(owner, end).await;
    ended(&what, &renewed)?;
    match renewed {
        Ok(()) => Ok(true),
        Err(_) if !(epoch..epoch + KEPT).contains(&end) => Ok(false),
        Err(e) => Err(Stop::error(what, &e)),
    }
}

/// Earlier than any lease that the suite gives.
fn early() -> SystemTime {
    SystemTime::UNIX_EPOCH - Duration::from_secs(86_400)
}

async fn cl_4_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let (held, free) = (change(1, 0), change(2, 0));
    a.record(writer(1), &held).await?;
    a.record(writer(2), &free).await?;
    a.renew(writer(1), at(5_000)).await?;
    b.renew(writer(10), for_ever()).await?;
    // Shorter ones, and those of others, change nothing.
    b.renew(writer(1), at(1_000)).await?;
    b.renew(writer(1), SystemTime::UNIX_EPOCH).await?;
    b.renew(writer(3), for_ever()).await?;
    // Whatever the time: there is no lease that could end later.
    claims("no lease", &b, 10, early(), &[free]).await?;
    for now in [0, 999, 1_000, 1_001, 4_999] {
        for handle in [&a, &b] {
            claims("within the lease", handle, 11, at(now), &[]).await?;
        }
    }
    b.renew(writer(1), at(9_000)).await?;
    let c = cx.open_as("c", "p").await?;
    for now in [5_000, 5_001, 8_999] {
        claims("within the extended lease", &a, 11, at(now), &[]).await?;
        claims("within the extended lease", &c, 11, at(now), &[]).await?;
    }
    claims("at the end of the lease", &a, 11, at(9_000), &[held]).await?;
    c.renew(writer(1), at(20_000)).await?;
    let again = change(4, 1);
    c.record(writer(1), &again).await?;
    let held = [change(1, 0)];
    claims("renewed after it had ended", &b, 12, at(19_999), &held).await?;
    let all = [again, change(1, 0), change(2, 0)];
    claims("when all leases have ended", &a, 13, for_ever(), &all).await
}

async fn cl_4_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    a.renew(writer(1), at(5_000)).await?;
    b.record(writer(1), &change(1, 0)).await?;
    claims("a lease before any change", &a, 9, at(4_999), &[]).await?;
    b.complete(writer(1), id(1)).await?;
    drop(a);
    let c = cx.open_as("c", "p").await?;
    c.record(writer(1), &change(2, 0)).await?;
    claims("its changes had all been struck out", &b, 9, at(4_999), &[]).await?;
    // A claim that takes all of a writer's changes does not take its lease.
    b.record(writer(2), &change(3, 0)).await?;
    b.renew(writer(2), at(5_000)).await?;
    let both = [change(2, 0), change(3, 0)];
    claims("at the end", &c, 9, at(5_000), &both).await?;
    c.record(writer(2), &change(4, 0)).await?;
    claims("before the end, after the claim", &b, 8, at(4_999), &both).await?;
    c.expect("still its own", writer(2), &[change(4, 0)]).await
}

async fn cl_4_3(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let nanos = |nanos| at(7_000) + Duration::from_nanos(nanos);
    let ends = [1, 1_300, 999_999, 1_000_000, 1_500_001, 2_000_000];
    for (n, end) in (0..).zip(ends) {
        a.record(writer(n), &change(n, 0)).await?;
        a.renew(writer(n), nanos(end)).await?;
    }
    // Up to a moment before its end nobody gets it, not even where the log counts in milliseconds.
    for (n, end) in (0..).zip(ends) {
        let before = nanos(end - 1);
        let claimed = b.claim(writer(50 + n), before, usize::MAX).await?;
        for change in &claimed {
            let index = (0..).zip(ends).find(|(n, _)| id(*n) == change.id);
            let own = index.map_or(u64::MAX, |(_, end)| end);
            cx.require(
                own < end,
                format!("a claim {} ns after a full second", end - 1),
                format!("a change whose lease ends {own} ns after it"),
                "only changes whose lease has ended",
            )?;
        }
    }
    // A millisecond later all are free, also those of the claimants, who have no lease.
    let all: Vec<Change> = (0..6).map(|n| change(n, 0)).collect();
    claims("after all leases have ended", &a, 90, at(7_003), &all).await
}

async fn cl_4_5(cx: &Cx<dyn World>) -> Outcome {
    const MILLI: i128 = 1_000_000;
    const DAY: i128 = 86_400_000 * MILLI;
    let (a, b) = cx.open_two("p").await?;
    let after = |nanos: i128| {
        let long = Duration::from_nanos(u64::try_from(nanos.unsigned_abs()).unwrap_or(u64::MAX));
        let epoch = SystemTime::UNIX_EPOCH;
        let time = if nanos < 0 {
            epoch.checked_sub(long)
        } else {
            epoch.checked_add(long)
        };
        time.ok_or_else(|| Stop::Ignored("there is no time before the Unix epoch here".into()))
    };
    let whole = [-DAY, -1_000 * MILLI, -MILLI, 0, MILLI, 1_000 * MILLI, DAY];
    let parts = [-MILLI + 1, -MILLI / 3, -1, 0, 1, MILLI / 2, MILLI - 1];
    let ends = whole
        .iter()
        .flat_map(|whole| parts.map(|part| whole + part));
    let mut is_picked = cx.sample();
    for (n, end) in (1..).zip(ends) {
        // The epoch itself everywhere.
        if end != 0 && !is_picked() {
            continue;
        }
        let (owner, own) = (writer(n), change(n, 0));
        a.record(owner, &own).await?;
        if !keeps(&a, owner, after(end)?).await? {
            a.complete(owner, own.id).await?;
            continue;
        }
        for early in [1, MILLI / 4, MILLI, DAY] {
            let what = format!("{early} ns before the end of a lease, {end} ns after the epoch");
            claims(&what, &b, 1_000, after(end - early)?, &[]).await?;
        }
        // It may be kept to the millisecond, and then ends a little later.
        let late = if end % MILLI == 0 { 0 } else { MILLI };
        let what = format!("after the end of a lease, {end} ns after the epoch");
        claims(
            &what,
            &b,
            1_000,
            after(end + late)?,
            std::slice::from_ref(&own),
        )
        .await?;
        b.complete(writer(1_000), own.id).await?;
    }
    Ok(())
}

async fn cl_4_6(cx: &Cx<dyn World>) -> Outcome {
    let count = u64::try_from(cx.times(300, 70)).unwrap_or(70);
    let (a, b) = cx.open_two("p").await?;
    let scout = 9_000;
    for n in 0..count {
        let handle = if n % 2 == 0 { &a } else { &b };
        // The first are the last to end.
        handle.renew(writer(n), at(10_000 - n)).await?;
        handle.record(writer(n), &change(n, 0)).await?;
    }
    let all: Vec<Change> = (0..count).map(|n| change(n, 0)).collect();
    for handle in [&a, &b, &cx.open_as("c", "p").await?] {
        let what = "while all of many leases hold";
        claims(what, handle, scout, at(10_000 - count), &[]).await?;
    }
    // Those of the second half are over, and some of these are renewed.
    let half = count / 2;
    for n in (half..count).step_by(3) {
        a.renew(writer(n), at(20_000)).await?;
    }
    let now = at(10_000 - half);
    let is_over = |n: &u64| *n >= half && !(n - half).is_multiple_of(3);
    let over = (0..count).filter(is_over);
    let over: Vec<Change> = over
        .map(|n| all[usize::try_from(n).unwrap_or_default()].clone())
        .collect();
    claims("once half of many leases are over", &b, scout, now, &over).await?;
    let mut left = all;
    left.retain(|change| !over.contains(change));
    claims(
        "once all of many leases are over",
        &a,
        scout,
        at(20_000),
        &left,
    )
    .await
}

async fn cl_4_7(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let names = [
        [0; 16],
        [0xff; 16],
        [0x80; 16],
        spread("writer or change", 1),
    ];
    for (n, bytes) in (0..).zip(names) {
        let [holder, scout] = [WriterId::from_bytes(bytes), writer(1_000)];
        let mut named = change(n, 2);
        named.id = ChangeId::from_bytes(bytes);
        // The change is the holder's own, or another's.
        for (part, owner) in (0..).zip([holder, writer(n)]) {
            let beside = change(100 + 2 * n + part, 1);
            let what = format!("{holder}, and a change whose id is the same");
            let (first, last) = (at(2_000 * part + 1_000), at(2_000 * part + 2_000));
            a.renew(writer(n), for_ever()).await?;
            a.renew(holder, first).await?;
            b.record(holder, &beside).await?;
            a.record(owner, &named).await?;
            let early = first - Duration::from_millis(1);
            cx.eq(&what, &a.claim(scout, early, 9).await?, &Vec::new())?;
            b.renew(holder, last).await?;
            let mut both = vec![beside.clone()];
            if owner == holder {
                both.push(named.clone());
            } else {
                let own = std::slice::from_ref(&named);
                a.expect(&what, owner, own).await?;
            }
            a.expect(&what, holder, &both).await?;
            a.complete(owner, named.id).await?;
            let late = last - Duration::from_millis(1);
            cx.eq(&what, &b.claim(scout, late, 9).await?, &Vec::new())?;
            let claimed = b.claim(scout, last, 9).await?;
            cx.eq(&what, &claimed, &vec![beside.clone()])?;
            b.complete(scout, beside.id).await?;
        }
    }
    Ok(())
}

async fn cl_5_7(cx: &Cx<dyn World>) -> Outcome {
    let count = u64::try_from(cx.times(260, 40)).unwrap_or(40);
    let (a, b) = cx.open_two("p").await?;
    let mut all = Vec::new();
    for n in 0..count {
        let handle = if n % 2 == 0 { &a } else { &b };
        for part in 0..=n % 3 {
            let own = change(3 * n + part, part);
            handle.record(writer(n), &own).await?;
            all.push(own);
        }
        if n % 4 == 1 {
            handle.renew(writer(n), at(100)).await?;
        }
    }
    let heir = writer(9_000);
    let mut taken = Vec::new();
    let most = all.len() * 2 / 3;
    for limit in [1, most, 3, usize::MAX, usize::MAX] {
        let left = all.len() - taken.len();
        let claimed = a.claim(heir, at(100), limit).await?;
        let what = format!("a claim of {limit}, of {left} that belong to many");
        cx.eq(what, &claimed.len(), &limit.min(left))?;
        taken.extend(claimed);
    }
    taken.sort_by_key(|change| change.id);
    all.sort_by_key(|change| change.id);
    cx.require(
        taken == all,
        "what was claimed of many",
        "others",
        "what they recorded",
    )?;
    b.expect("what was claimed of many", heir, &all).await
}

async fn cl_5_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    // Free ones of several writers, some with a lease that has ended; those of the living; the claimant's own.
    let free: Vec<Change> = (0..7).map(|n| change(n, 1)).collect();
    for (n, change) in (0..).zip(&free) {
        a.record(writer(n % 3), change).await?;
    }
    a.renew(writer(1), at(10)).await?;
    a.record(writer(3), &change(20, 0)).await?;
    a.renew(writer(3), at(5_000)).await?;
    let own = change(30, 0);
    b.record(writer(9), &own).await?;
    let nothing = b.claim(writer(9), at(100), 0).await?;
    cx.eq("a claim of none", &nothing.len(), &0)?;
    let mut all = vec![own];
    for (limit, expected) in [(1, 1), (3, 3), (100, 3), (usize::MAX, 0), (5, 0)] {
        let handle = if limit == 3 { &a } else { &b };
        let claimed = handle.claim(writer(9), at(100), limit).await?;
        let what = format!("a claim of {limit}, of those that are left");
        cx.eq(&what, &claimed.len(), &expected)?;
        for change in claimed {
            if !free.contains(&change) || all.contains(&change) {
                let observed = format!("{} of it", change.id);
                let expected = "changes that were free, as they were recorded, once each";
                return Err(Stop::fail(what, observed, expected));
            }
            all.push(change);
        }
        for reader in [&a, &b] {
            reader
                .expect("what is claimed so far", writer(9), &all)
                .await?;
        }
    }
    for n in 0..3 {
        a.expect("all claimed", writer(n), &[]).await?;
    }
    a.expect("of the living", writer(3), &[change(20, 0)])
        .await?;
    // More than any page holds, and a limit that takes more than 32 bits where there are any.
    let wide = 1_usize.checked_shl(32).unwrap_or(usize::MAX);
    for n in 0..240 {
        a.record(writer(40 + n % 2), &change(1_000 + n, 0)).await?;
    }
    for (limit, expected) in [(200, 200), (wide, 40)] {
        let claimed = b.claim(writer(9), at(100), limit).await?;
        let what = format!("a claim of {limit}, of many that are left");
        cx.eq(&what, &claimed.len(), &expected)?;
    }
    alike(cx).await
}

/// CL-5.1, of changes that have all in common but their ids and some part of what they are about.
async fn alike(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("q").await?;
    let heir = writer(9);
    a.renew(heir, for_ever()).await?;
    let parts: [fn(&mut Change, &str); 4] = [
        |_, _| {},
        |change, n| change.object = object(format!("one {n}")),
        |change, n| change.created = Some(object(format!("created {n}"))),
        |change, n| change.replaced = Some(object(format!("replaced {n}"))),
    ];
    for (round, part) in (0..).zip(parts) {
        let alike = |n: u64| {
            let mut change = Change::new(id(10 * round + n), object("one"), Step::Swap);
            change.created = Some(object("created"));
            change.replaced = Some(object("replaced"));
            part(&mut change, &n.to_string());
            change
        };
        let mut all: Vec<Change> = (0..6).map(alike).collect();
        for (n, change) in (0..).zip(&all) {
            a.record(writer(20 + n / 4), change).await?;
        }
        let mut taken = Vec::new();
        for (limit, expected) in [(4, 4), (usize::MAX, 2)] {
            let claimed = b.claim(heir, at(0), limit).await?;
            let what = format!("a claim of {limit}, of changes that are alike");
            cx.eq(what, &claimed.len(), &expected)?;
            taken.extend(claimed);
        }
        taken.sort_by_key(|change| change.id);
        all.sort_by_key(|change| change.id);
        cx.eq("what was claimed of changes that are alike", &taken, &all)?;
    }
    Ok(())
}

async fn cl_5_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let all = [change(1, 0), change(2, 0)];
    for change in &all {
        a.record(writer(1), change).await?;
    }
    a.renew(writer(1), at(1_000)).await?;
    a.renew(writer(2), at(5_000)).await?;
    claims("at its end", &b, 2, at(1_000), &all).await?;
    a.renew(writer(1), for_ever()).await?;
    claims("under the lease of the claimant", &a, 3, at(4_999), &[]).await?;
    claims("by its old owner", &a, 1, at(4_999), &[]).await?;
    // One without a lease holds a change until the next claim.
    claims("when that lease has ended", &b, 3, at(5_000), &all).await?;
    claims("by one's own", &b, 3, at(5_000), &[]).await?;
    claims("of one without a lease", &a, 1, early(), &all).await?;
    let c = cx.open_as("c", "p").await?;
    claims("back under its first lease", &c, 2, at(900_000), &[]).await?;
    c.record(writer(1), &change(1, 9)).await?;
    c.complete(writer(1), id(2)).await?;
    b.expect("the owner goes on", writer(1), &[change(1, 9)])
        .await
}
