//! CL-5.4, CL-5.5 and CL-6.1: calls that meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::future::join_all;
use larder_traits::{Change, Classify, ErrorKind, Fault, Outcome as Effect, Step};
use proptest::prelude::*;
use proptest::test_runner::TestRng;

use super::{at, change, for_ever, id, object, writer};
use crate::change_log::{Handle, World};
use crate::check::{Outcome, Stop, describe};
use crate::checks::of_the_medium;
use crate::cx::Cx;
use crate::engine::cancel::dropped_after;
use crate::engine::lin::{self, Driver, Performed, Plan, Wrong};
use crate::engine::meeting::{Harm, meetings};
use crate::lin::{Answer, ModelName, Op, Row};

/// Those who claim at once in CL-5.4.
const CLAIMANTS: u64 = 4;

pub(super) fn panicked(e: &tokio::task::JoinError) -> Stop {
    Stop::fail("a call", format!("a panic: {e}"), "an answer (C-3)")
}

pub(super) async fn cl_5_4(cx: &Cx<dyn World>) -> Outcome {
    const CHANGES: u64 = 24;
    let (a, b) = cx.open_two("p").await?;
    for claimant in 0..CLAIMANTS {
        a.renew(writer(1_000 + claimant), for_ever()).await?;
    }
    let rounds = (cx.lin_epochs() / 8).max(5);
    let mut shared = 0;
    for round in 0..u64::try_from(rounds).unwrap_or_default() {
        let all: Vec<Change> = (0..CHANGES)
            .map(|n| change(round * CHANGES + n, n % 5))
            .collect();
        for (n, change) in (0..).zip(&all) {
            // Of several writers, none of whom has a lease.
            a.record(writer(n % 3), change).await?;
        }
        let barrier = Arc::new(tokio::sync::Barrier::new(4));
        let tasks = (0..CLAIMANTS).map(|claimant| {
            let handle = if claimant % 2 == 0 {
                a.clone()
            } else {
                b.clone()
            };
            let barrier = Arc::clone(&barrier);
            tokio::spawn(async move {
                barrier.wait().await;
                claim_all(&handle, claimant).await
            })
        });
        let mut claimed: Vec<Change> = Vec::new();
        for (claimant, task) in (0..).zip(tasks.collect::<Vec<_>>()) {
            let mut got = task.await.map_err(|e| panicked(&e))??;
            shared += usize::from(!got.is_empty() && got.len() < all.len());
            got.sort_by_key(|change| change.id);
            let by = writer(1_000 + claimant);
            let what = format!("what claimant {claimant} was told to have");
            let reader = if claimant % 2 == 0 { &b } else { &a };
            reader.expect(&what, by, &got).await?;
            claimed.extend(got);
        }
        let what = format!("what {CLAIMANTS} claimed at once, of {CHANGES}");
        claimed.sort_by_key(|change| change.id);
        let mut expected = all;
        expected.sort_by_key(|change| change.id);
        cx.eq(what, &claimed, &expected)?;
        for claimant in 0..CLAIMANTS {
            let by = writer(1_000 + claimant);
            for change in a.changes(by).await? {
                a.complete(by, change.id).await?;
            }
        }
    }
    if shared == 0 {
        let why = "one claimant got everything, each time";
        return Err(Stop::Inconclusive(why.into()));
    }
    Ok(())
}

/// Claims a few at a time until there is nothing left.
async fn claim_all(handle: &Handle, claimant: u64) -> Result<Vec<Change>, Stop> {
    let mut all = Vec::new();
    let by = writer(1_000 + claimant);
    for limit in [1, 2, 3, 1].into_iter().cycle() {
        let some = handle.claim(by, at(0), limit).await?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
        tokio::task::yield_now().await;
    }
    Ok(all)
}

/// What one claimant was told, while one of several met a failure.
#[derive(Default)]
struct Told {
    claimed: Vec<Change>,
    /// Whether a claim may have had an effect that the claimant was not told of.
    is_unsure: bool,
}

/// Claims so many at a time, and drops each claim after so many polls if it is to be dropped.
async fn claim_some(
    handle: &Handle,
    claimant: u64,
    claims: [(usize, Option<usize>); 3],
) -> Result<Told, Stop> {
    let mut told = Told::default();
    for (limit, polls) in claims {
        let claim = handle.try_claim(writer(1_000 + claimant), at(0), limit);
        match dropped_after(polls, claim).await {
            Some(Ok(some)) => told.claimed.extend(some),
            Some(Err(e)) => {
                of_the_medium("a claim beside others", &e)?;
                told.is_unsure |= e.outcome() == Effect::Unknown;
            }
            None => told.is_unsure = true,
        }
        tokio::task::yield_now().await;
    }
    told.claimed.sort_by_key(|change| change.id);
    Ok(told)
}

/// C-1.4 and C-6.5 of claims: what a claimant was told to have it has, and nobody else has it.
async fn claims_harmed(cx: &Cx<dyn World>, harm: Harm) -> Outcome {
    const CHANGES: u64 = 10;
    meetings(cx, "claims", harm, async |mut meeting| {
        let (a, b) = cx.open_two(&meeting.place).await?;
        for claimant in 0..=CLAIMANTS {
            a.renew(writer(1_000 + claimant), for_ever()).await?;
        }
        let mut all: Vec<Change> = (0..CHANGES).map(|n| change(n, n % 3)).collect();
        all.sort_by_key(|change| change.id);
        for (n, change) in (0..).zip(&all) {
            // Of several writers, none of whom has a lease.
            a.record(writer(n % 3), change).await?;
        }
        meeting.arm();
        let mut tasks = Vec::new();
        for claimant in 0..CLAIMANTS {
            let handle = [&a, &b][usize::from(claimant % 2 == 0)].clone();
            let claims = [2, 1, 3].map(|limit| (limit, meeting.polls()));
            tasks.push(tokio::spawn(async move {
                claim_some(&handle, claimant, claims).await
            }));
        }
        let ended = join_all(tasks).await;
        let met = meeting.disarm();
        let mut owned: Vec<Change> = Vec::new();
        for (claimant, told) in (0..).zip(ended) {
            let told = told.map_err(|e| panicked(&e))??;
            let has = b.changes(writer(1_000 + claimant)).await?;
            let lost: Vec<_> = told.claimed.iter().filter(|it| !has.contains(it)).collect();
            let what = format!("what claimant {claimant} was told to have and has not");
            cx.require(lost.is_empty(), what, format!("{lost:?}"), "nothing")?;
            let is_more = has.len() > told.claimed.len() && !told.is_unsure;
            let what = format!(
                "what claimant {claimant} has, who was told {:?}",
                told.claimed
            );
            cx.require(!is_more, what, format!("{has:?}"), "the same")?;
            owned.extend(has);
        }
        // Whoever comes next gets the rest, so that each change has one owner.
        owned.extend(
            b.claim(writer(1_000 + CLAIMANTS), at(0), usize::MAX)
                .await?,
        );
        owned.sort_by_key(|change| change.id);
        cx.eq("the changes of all owners", &owned, &all)?;
        Ok(met)
    })
    .await
}

/// How far the owner came in CL-5.5.
struct Owned {
    /// The last version that was acknowledged, and the last that was begun.
    acknowledged: u64,
    begun: u64,
    /// Whether it was refused in the end, as it must be once another has claimed the change.
    refused: bool,
    /// Whether it struck the change out.
    struck: bool,
}

pub(super) async fn cl_5_5(cx: &Cx<dyn World>) -> Outcome {
    const VERSIONS: u64 = 40;
    let (a, b) = cx.open_two("p").await?;
    let rounds = cx.lin_epochs().max(20);
    let mut rng = cx.rng();
    let (mut met, mut struck) = (0, 0);
    for round in 0..u64::try_from(rounds).unwrap_or_default() {
        let (owner, claimant) = (writer(2 * round), writer(2 * round + 1));
        a.renew(claimant, for_ever()).await?;
        a.record(owner, &change(round, 0)).await?;
        let progress = Arc::new(AtomicU64::new(0));
        let ends = round % 3 == 2;
        let last = if ends {
            rng.random_range(0..4)
        } else {
            VERSIONS
        };
        let after = rng.random_range(0..6_u64);
        let pause = rng.random_range(0..50_u32);
        let own = {
            // Through the same handle as the claim, and through the other one.
            let handle = if round % 2 == 0 { a.clone() } else { b.clone() };
            let progress = Arc::clone(&progress);
            tokio::spawn(async move { go_on(&handle, round, last, ends, &progress).await })
        };
        let claim = {
            let (handle, progress) = (b.clone(), Arc::clone(&progress));
            tokio::spawn(async move {
                let enough = after.min(last);
                while progress.load(Ordering::Relaxed) < enough {
                    tokio::task::yield_now().await;
                }
                for _ in 0..pause {
                    std::hint::spin_loop();
                }
                handle.claim(claimant, at(0), usize::MAX).await
            })
        };
        let own = own.await.map_err(|e| panicked(&e))?;
        // Whoever waits for the owner to come further than it could need not wait.
        progress.store(u64::MAX, Ordering::Relaxed);
        let claimed = claim.await.map_err(|e| panicked(&e))??;
        let own = own?;
        met += usize::from(own.refused && own.acknowledged > 0);
        struck += usize::from(own.struck);
        judge(round, &own, &claimed)?;
        for reader in [&a, &b] {
            let what = format!("round {round}, after the claim");
            reader.expect(&what, claimant, &claimed).await?;
            if own.struck {
                reader.expect(&what, owner, &[]).await?;
            }
        }
        for (by, handle) in [(claimant, &a), (owner, &b)] {
            for change in handle.changes(by).await? {
                handle.complete(by, change.id).await?;
            }
        }
    }
    if met == 0 || struck == 0 {
        let why = format!("{met} claims met an owner that was recording, {struck} came too late");
        return Err(Stop::Inconclusive(why));
    }
    Ok(())
}

/// The answer of the claim follows from how far the owner came.
fn judge(round: u64, own: &Owned, claimed: &[Change]) -> Outcome {
    let what = format!("round {round}: a claim while the owner records");
    let versions = own.acknowledged..=own.begun;
    let is_right = match claimed {
        [] => own.struck || !own.refused,
        [one] => {
            !own.struck
                && versions
                    .clone()
                    .any(|version| *one == change(round, version))
        }
        _ => false,
    };
    if is_right {
        return Ok(());
    }
    let fate = match (own.struck, own.refused) {
        (true, _) => ", and struck it out",
        (false, true) => ", and was refused then",
        (false, false) => "",
    };
    Err(Stop::fail(
        what,
        format!("{claimed:?}"),
        format!("what goes with an owner that had recorded version {versions:?}{fate}"),
    ))
}

/// Records one version after the other until it is refused; in the end it may strike the change out.
async fn go_on(
    handle: &Handle,
    number: u64,
    last: u64,
    ends: bool,
    progress: &AtomicU64,
) -> Result<Owned, Stop> {
    let owner = writer(2 * number);
    let mut own = Owned {
        acknowledged: 0,
        begun: 0,
        refused: false,
        struck: false,
    };
    for version in 1..=last {
        own.begun = version;
        match handle.try_record(owner, &change(number, version)).await {
            Ok(()) => own.acknowledged = version,
            Err(e) if is_conflict(&e) => {
                own.begun = own.acknowledged;
                own.refused = true;
                return Ok(own);
            }
            Err(e) => return Err(Stop::error("record", &e)),
        }
        progress.store(version, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
    progress.store(u64::MAX, Ordering::Relaxed);
    if ends {
        match handle.try_complete(owner, id(number)).await {
            Ok(()) => own.struck = true,
            Err(e) if is_conflict(&e) => own.refused = true,
            Err(e) => return Err(Stop::error("complete", &e)),
        }
    }
    Ok(own)
}

fn is_conflict(e: &Fault) -> bool {
    e.kind() == ErrorKind::Conflict && e.outcome() == Effect::NotApplied
}

/// Whose changes the registers of CL-6.1 are.
const OWNER: u64 = 1;
const NAMES: [&str; 4] = ["c0", "c1", "c2", "c3"];

/// The clients of one place.
struct Clients {
    handles: Vec<Handle>,
    wrong: Wrong,
}

/// The number of a key, which is called after it.
fn number(key: &str) -> u64 {
    key.trim_start_matches('k').parse().unwrap_or_default()
}

/// The change that stands for a text under a key; parts of it are of various lengths, and none is another's.
fn encode(key: &str, text: &str) -> Change {
    let tail = text.bytes().map(usize::from).sum::<usize>() % 5 * 60;
    let mut change = Change::new(id(number(key)), object(text), Step::Upload);
    change.created = Some(object(format!("{text}{}", "+".repeat(tail))));
    change.replaced = (tail > 60).then(|| object(format!("-{text}")));
    change
}

impl Clients {
    /// Opens so many handles; clients share them in turn.
    async fn open(cx: &Cx<dyn World>, place: &str, handles: usize) -> Result<Arc<Self>, Stop> {
        let mut opened = Vec::new();
        for name in &NAMES[..handles] {
            opened.push(cx.open_as(name, place).await?);
        }
        Ok(Arc::new(Self {
            handles: opened,
            wrong: Wrong::default(),
        }))
    }

    fn written(&self, what: &str, result: Result<(), Fault>) -> Performed {
        match result {
            Ok(()) => Performed::Answered(Answer::Done),
            Err(e) if is_conflict(&e) => {
                self.wrong.note(Stop::error(what, &e));
                Performed::NotApplied
            }
            Err(e) if e.outcome() == Effect::Unknown => Performed::Unknown,
            Err(_) => Performed::NotApplied,
        }
    }

    /// What each of the keys holds, at one moment.
    async fn texts(&self, client: &Handle, keys: &[String]) -> Option<Vec<Option<String>>> {
        let changes = match client.try_changes(writer(OWNER)).await {
            Ok(changes) => changes,
            Err(e) if e.outcome() == Effect::Unknown => {
                let expected = "an error of a read is NotApplied (C-1)";
                self.wrong
                    .note(Stop::fail("changes", describe(&e), expected));
                return None;
            }
            Err(_) => return None,
        };
        let mut texts = Vec::new();
        for key in keys {
            let mut found = changes.iter().filter(|it| it.id == id(number(key)));
            let change = found.next();
            let text = change.map(|change| change.object.key.clone());
            let is_whole = text
                .as_ref()
                .is_none_or(|text| Some(&encode(key, text)) == change);
            if !is_whole || found.next().is_some() {
                let expected = "each change once, whole, as it was recorded";
                self.wrong
                    .note(Stop::fail("changes", format!("{changes:?}"), expected));
            }
            texts.push(text);
        }
        Some(texts)
    }
}

#[async_trait]
impl Driver for Clients {
    async fn perform(&self, client: u32, op: &Op) -> Performed {
        let at = usize::try_from(client).unwrap_or_default();
        let handle = &self.handles[at % self.handles.len()];
        match op {
            Op::Set { key, value, .. } => {
                let change = encode(key, value);
                let result = handle.try_record(writer(OWNER), &change).await;
                self.written("record", result)
            }
            Op::Delete { key } => {
                let result = handle.try_complete(writer(OWNER), id(number(key))).await;
                self.written("complete", result)
            }
            Op::Get { key } => {
                let texts = self.texts(handle, std::slice::from_ref(key)).await;
                let text = texts.map(|texts| texts.into_iter().next().flatten());
                text.map_or(Performed::NotApplied, |text| {
                    Performed::Answered(Answer::Row(text.map(Row::Inline)))
                })
            }
            Op::GetMulti { keys } => {
                let texts = self.texts(handle, keys).await;
                texts.map_or(Performed::NotApplied, |texts| {
                    Performed::Answered(Answer::Values(texts))
                })
            }
            other => {
                let why = format!("{other} is no call of this contract");
                self.wrong.note(Stop::Inconclusive(why));
                Performed::NotApplied
            }
        }
    }

    fn wrong(&self) -> &Wrong {
        &self.wrong
    }
}

/// So many reads in a hundred calls, few completions, and records.
fn script(plan: &Plan, reads: u32, rng: &mut TestRng, tag: &str) -> Vec<Op> {
    (0..plan.calls)
        .map(|at| {
            let key = plan.keys[rng.random_range(0..plan.keys.len())].clone();
            match rng.random_range(0..100) {
                dice if dice < reads => Op::GetMulti {
                    keys: plan.keys.clone(),
                },
                0..88 => Op::Set {
                    key,
                    value: format!("{tag}.{at}"),
                    ttl: None,
                },
                _ => Op::Delete { key },
            }
        })
        .collect()
}

fn plan(clients: u32, calls: usize) -> Plan {
    Plan {
        model: ModelName::Map,
        clients,
        calls,
        keys: (0..3).map(|n| format!("k{n}")).collect(),
    }
}

pub(super) async fn harmed(cx: &Cx<dyn World>, harm: Harm) -> Outcome {
    let plan = plan(4, 6);
    let open = async |place: String| Clients::open(cx, &place, 2).await;
    lin::run_harmed(cx, &plan, harm, open, |rng, tag| {
        script(&plan, 25, rng, tag)
    })
    .await?;
    claims_harmed(cx, harm).await
}

pub(super) async fn cl_6_1(cx: &Cx<dyn World>) -> Outcome {
    let plan = plan(3, 12);
    for (place, count) in [("one", 1), ("each", 3)] {
        let clients = Clients::open(cx, place, count).await?;
        lin::run(cx, &plan, clients, |rng, tag| script(&plan, 45, rng, tag)).await?;
    }
    Ok(())
}
