//! HV-10: the calls of a plain backend on a row that is a redirect.

use std::time::Duration;

use larder_traits::{ExpirationPolicy, TieredWrite};

use super::bench::{Bench, Call};
use crate::check::{Check, Outcome};
use crate::checks::backend::objects::name;
use crate::cx::Cx;
use crate::high_volume::World;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "HV-10.1",
        "plain reads of a redirect are an error that names it, plain writes act on the row",
    )
    .kills("redirect as object")
    .run(|cx| Box::pin(hv_10_1(cx))),
    Check::new(
        "HV-10.2",
        "plain calls on a redirect see it to its last millisecond and not from its deadline on",
    )
    .kills("a dead redirect in the way of a plain call")
    .run(|cx| Box::pin(hv_10_2(cx))),
];

fn calls(bench: &Bench<'_>, variant: usize) -> Vec<Call> {
    let (metadata, payload) = bench.object(variant, 900);
    vec![
        Call::Get,
        Call::Metadata,
        Call::Put(metadata, payload),
        Call::Delete,
    ]
}

async fn hv_10_1(cx: &Cx<dyn World>) -> Outcome {
    let mut bench = Bench::new(cx).await?;
    for variant in 0..3 {
        for call in calls(&bench, variant + 1) {
            let id = bench.fresh();
            let target = name(&format!("target-{variant}"));
            let write = TieredWrite::Tombstone(bench.redirect(&target, variant));
            let redirect = Call::Swap(None, write);
            bench.ask("to begin with", &id, &redirect).await?;
            bench.judge("on a redirect", &id, &call).await?;
            // What a plain read says goes with what the tiered ones say, on the other handle too.
            for read in [Call::Get, Call::Metadata, Call::Get, Call::Metadata] {
                bench
                    .ask(&format!("after {call:?} on a redirect"), &id, &read)
                    .await?;
            }
            bench.judge("after a plain call", &id, &redirect).await?;
        }
    }
    bench.look_at_all().await
}

async fn hv_10_2(cx: &Cx<dyn World>) -> Outcome {
    cx.clock()?;
    let mut bench = Bench::new(cx).await?;
    for before in [Duration::from_millis(1), Duration::ZERO] {
        for call in calls(&bench, 0) {
            let id = bench.fresh();
            let mut tombstone = bench.redirect(&name("target"), 0);
            tombstone.expiration_policy = ExpirationPolicy::TimeToLive(Duration::from_secs(7));
            let redirect = Call::Swap(None, TieredWrite::Tombstone(tombstone));
            bench.ask("to begin with", &id, &redirect).await?;
            bench.advance_to_deadline(&id, before, Duration::ZERO);
            let state = format!("on a redirect {before:?} before its deadline");
            bench.judge(&state, &id, &call).await?;
            for read in [Call::Get, Call::Metadata] {
                bench
                    .ask(&format!("after {call:?} {state}"), &id, &read)
                    .await?;
            }
        }
    }
    Ok(())
}
