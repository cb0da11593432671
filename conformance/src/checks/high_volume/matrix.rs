//! HV-1 to HV-5: every call on every state of a row.

use std::time::Duration;

use bytes::Bytes;
use larder_traits::{ExpirationPolicy, Metadata, ObjectId, TieredWrite, Tombstone};

use super::bench::{Bench, Call};
use crate::check::{Check, Outcome, Stop};
use crate::checks::backend::objects::{len_max, name};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::high_volume::World;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new("HV-1.1", "put_non_tombstone on each state of a row")
        .kills("any wrong cell: a redirect overwritten, an object not stored")
        .run(|cx| Box::pin(living(cx, puts))),
    Check::new(
        "HV-1.2",
        "put_non_tombstone on rows alive to their last millisecond, and dead from it on",
    )
    .kills("any wrong cell: a dead redirect still in the way")
    .run(|cx| Box::pin(dying(cx, puts))),
    Check::new("HV-2.1", "get_tiered_object on each state of a row")
        .kills("any wrong cell: two states mixed up")
        .run(|cx| Box::pin(living(cx, |_, _| vec![Call::Row]))),
    Check::new(
        "HV-2.2",
        "get_tiered_object on rows alive to their last millisecond, and dead from it on",
    )
    .kills("any wrong cell: a dead row served")
    .run(|cx| Box::pin(dying(cx, |_, _| vec![Call::Row]))),
    Check::new("HV-3.1", "get_tiered_metadata on each state of a row")
        .kills("any wrong cell: two states mixed up")
        .run(|cx| Box::pin(living(cx, |_, _| vec![Call::Head]))),
    Check::new(
        "HV-3.2",
        "the metadata of a maximal row does not fetch its payload",
    )
    .kills("payload fetched")
    .run(|_| Box::pin(hv_3_2())),
    Check::new(
        "HV-3.3",
        "get_tiered_metadata on rows alive to their last millisecond, and dead from it on",
    )
    .kills("any wrong cell: a dead row served")
    .run(|cx| Box::pin(dying(cx, |_, _| vec![Call::Head]))),
    Check::new("HV-4.1", "delete_non_tombstone on each state of a row")
        .kills("any wrong cell: a redirect removed, an object left")
        .run(|cx| Box::pin(living(cx, |_, _| vec![Call::DeleteInline]))),
    Check::new(
        "HV-4.2",
        "delete_non_tombstone on rows alive to their last millisecond, and dead from it on",
    )
    .kills("any wrong cell: a dead redirect reported")
    .run(|cx| Box::pin(dying(cx, |_, _| vec![Call::DeleteInline]))),
    Check::new("HV-5.1", "each compare_and_write on each state of a row")
        .kills("any wrong cell")
        .run(|cx| Box::pin(living(cx, swaps))),
    Check::new(
        "HV-5.2",
        "each compare_and_write on rows alive to their last millisecond, and dead from it on",
    )
    .kills("any wrong cell: a swap that ignores expiry")
    .run(|cx| Box::pin(dying(cx, swaps))),
];

/// The calls of one clause, in one variant of what they write.
type Calls = fn(&Bench<'_>, usize) -> Vec<Call>;

/// The redirect that a row has, one that no row has, and one that is new.
fn target(letter: &str) -> ObjectId {
    name(&format!("target-{letter}"))
}

/// How long the payloads are: nothing, a little, and as much as may be.
fn len(cx: &Cx<dyn World>, variant: usize) -> usize {
    const MATRIX_LEN_MAX: usize = 1 << 20;
    match variant % 3 {
        0 => 0,
        1 => 1_024,
        _ => len_max(&cx.caps, cx.profile).min(MATRIX_LEN_MAX),
    }
}

fn puts(bench: &Bench<'_>, variant: usize) -> Vec<Call> {
    let (metadata, payload) = bench.object(variant, len(bench.cx, variant));
    vec![Call::PutInline(metadata, payload)]
}

fn swaps(bench: &Bench<'_>, variant: usize) -> Vec<Call> {
    let (metadata, payload) = bench.object(variant, len(bench.cx, variant));
    let writes = [
        TieredWrite::Tombstone(bench.redirect(&target("a"), variant)),
        TieredWrite::Tombstone(bench.redirect(&target("n"), variant)),
        TieredWrite::Object(metadata, payload),
        TieredWrite::Delete,
    ];
    let currents = [None, Some(target("a")), Some(target("b"))];
    let cells = currents.iter().flat_map(|current| {
        let cell = |write: &TieredWrite| Call::Swap(current.clone(), write.clone());
        writes.iter().map(cell).collect::<Vec<_>>()
    });
    cells.collect()
}

/// The three ways in which an inline row comes to be.
fn insert(variant: usize, metadata: Metadata, payload: Bytes) -> Call {
    match variant % 3 {
        0 => Call::Put(metadata, payload),
        1 => Call::PutInline(metadata, payload),
        _ => Call::Swap(None, TieredWrite::Object(metadata, payload)),
    }
}

fn point(tombstone: Tombstone) -> Call {
    Call::Swap(None, TieredWrite::Tombstone(tombstone))
}

/// The calls on rows whose deadline is far off or never comes.
async fn living(cx: &Cx<dyn World>, calls: Calls) -> Outcome {
    let mut bench = Bench::new(cx).await?;
    for variant in 0..3 {
        // What the call writes is never of the length and the policy of what is there.
        for call in calls(&bench, variant + 1) {
            let id = bench.fresh();
            bench.judge("on an absent row", &id, &call).await?;

            let id = bench.fresh();
            let (metadata, payload) = bench.object(variant, len(cx, variant));
            let set_up = insert(variant, metadata, payload);
            bench.ask("to begin with", &id, &set_up).await?;
            bench.judge("on an inline row", &id, &call).await?;

            let id = bench.fresh();
            let set_up = point(bench.redirect(&target("a"), variant));
            bench.ask("to begin with", &id, &set_up).await?;
            bench.judge("on a redirect to target-a", &id, &call).await?;
        }
    }
    bench.look_at_all().await
}

/// Where a row stands in its life when the call is made.
#[derive(Clone, Copy, Debug)]
enum Age {
    LastMillisecond,
    Deadline,
    LongAfter,
}

impl Age {
    fn name(self) -> &'static str {
        match self {
            Self::LastMillisecond => "one millisecond before its deadline",
            Self::Deadline => "at its deadline",
            Self::LongAfter => "30 days after its deadline",
        }
    }

    fn apply(self, bench: &Bench<'_>, id: &ObjectId) {
        let (before, after) = match self {
            Self::LastMillisecond => (Duration::from_millis(1), Duration::ZERO),
            Self::Deadline => (Duration::ZERO, Duration::ZERO),
            Self::LongAfter => (Duration::ZERO, Duration::from_secs(30 * 24 * 3_600)),
        };
        bench.advance_to_deadline(id, before, after);
    }
}

/// A policy and a deadline that end a row in ten seconds, in three ways of saying so.
fn short_life(
    bench: &Bench<'_>,
    variant: usize,
) -> (ExpirationPolicy, Option<std::time::SystemTime>) {
    let ten = Duration::from_secs(10);
    match variant % 3 {
        0 => (ExpirationPolicy::TimeToLive(ten), None),
        1 => (
            ExpirationPolicy::TimeToLive(ten * 10_000),
            Some(bench.now() + ten),
        ),
        _ => (ExpirationPolicy::TimeToIdle(ten), None),
    }
}

/// The calls on rows at the end of their life and after it.
async fn dying(cx: &Cx<dyn World>, calls: Calls) -> Outcome {
    cx.clock()?;
    let mut bench = Bench::new(cx).await?;
    let ages = [Age::LastMillisecond, Age::Deadline, Age::LongAfter];
    let mut is_taken = cx.sample();
    for (variant, age) in (0..3).flat_map(|variant| ages.map(|age| (variant, age))) {
        let calls = calls(&bench, variant + 1);
        let few = calls.len() == 1;
        for call in calls {
            if !(is_taken() || few) {
                continue;
            }
            // An access to an idle row at the end of its life extends it, which is for the checks of HV-8 to judge.
            if variant != 2 || !matches!(age, Age::LastMillisecond) {
                let id = bench.fresh();
                let (mut metadata, _) = bench.object(0, 0);
                (metadata.expiration_policy, metadata.time_expires) = short_life(&bench, variant);
                let payload = pattern("dying", [1_024, 0, 5_000][variant]);
                let set_up = insert(variant, metadata, payload.into());
                bench.ask("to begin with", &id, &set_up).await?;
                age.apply(&bench, &id);
                let state = format!("on an inline row {}", age.name());
                bench.judge(&state, &id, &call).await?;
            }

            let id = bench.fresh();
            let mut tombstone = bench.redirect(&target("a"), 0);
            (tombstone.expiration_policy, tombstone.time_expires) = short_life(&bench, variant);
            bench.ask("to begin with", &id, &point(tombstone)).await?;
            age.apply(&bench, &id);
            let state = format!("on a redirect to target-a {}", age.name());
            bench.judge(&state, &id, &call).await?;
        }
    }
    bench.look_at_all().await
}

async fn hv_3_2() -> Outcome {
    Err(Stop::Ignored(
        "needs a probe that counts the bytes fetched from the medium".into(),
    ))
}
