//! HV-6: calls that are made again, and the fence against those that come late.

use std::time::Duration;

use larder_traits::{Caps, ErrorKind, ObjectId, TieredWrite};

use super::bench::{Bench, Call};
use crate::check::{Check, Engine, Gate, Level, Outcome, Stop};
use crate::checks::backend::calls::cases;
use crate::checks::backend::cancel;
use crate::checks::backend::faults::{Trouble, troubled};
use crate::checks::backend::objects::name;
use crate::checks::refused;
use crate::cx::Cx;
use crate::fixture::FaultKind;
use crate::high_volume::{Handle, World};
use crate::model::high_volume::Row;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "HV-6.1",
        "a won call that is repeated is true again and writes nothing",
    )
    .kills("second write")
    .run(|cx| Box::pin(hv_6_1(cx))),
    Check::new(
        "HV-6.2",
        "a won call that is repeated after another call answers by the table",
    )
    .kills("late retry destroys a newer row")
    .run(|cx| Box::pin(hv_6_2(cx))),
    Check::new(
        "HV-6.3",
        "a winning call whose answer got lost is won when it is repeated",
    )
    .kills("own win taken for a conflict")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(hv_6_3(cx))),
    Check::new(
        "HV-6.4",
        "fence works where it is declared, and is Unsupported elsewhere",
    )
    .kills("an Ok without a fence, a fence that touches the row")
    .level(Level::Declared)
    .run(|cx| Box::pin(hv_6_4(cx))),
    Check::new(
        "HV-6.5",
        "a write that was dropped does not land once a fence on its row has answered, whichever handle asked for it",
    )
    .kills("a fence that only reads, of its own handle only, of some writes only")
    .gate(fences)
    .engines(&[Engine::Cancel])
    .run(|cx| {
        Box::pin(async move {
            let (a, b) = cx.open_two("p").await?;
            cancel::fenced(cx, &a, &b).await
        })
    }),
];

fn fences(caps: &Caps) -> Gate {
    if caps.high_volume.fence {
        Gate::Run
    } else {
        Gate::Ignore("does not declare a fence")
    }
}

/// A row before a call, and a call that wins on it and changes which redirect is there.
struct Win {
    before: Vec<Call>,
    call: Call,
    /// The same call with something else to write, which must not be written either.
    again: Call,
}

fn target(letter: &str) -> ObjectId {
    name(&format!("target-{letter}"))
}

fn swap(current: Option<&str>, write: TieredWrite) -> Call {
    Call::Swap(current.map(target), write)
}

fn wins(bench: &Bench<'_>, variant: usize) -> Vec<Win> {
    let point = |letter, variant| TieredWrite::Tombstone(bench.redirect(&target(letter), variant));
    let inline = |variant, len| {
        let (metadata, payload) = bench.object(variant, len);
        TieredWrite::Object(metadata, payload)
    };
    let (metadata, payload) = bench.object(variant, 600);
    let redirect = || vec![swap(None, point("a", variant))];
    let win = |before, current, write, other| Win {
        before,
        call: swap(current, write),
        again: swap(current, other),
    };
    let (new, newer) = (point("n", variant + 1), point("n", variant));
    vec![
        win(Vec::new(), None, new.clone(), newer.clone()),
        win(
            vec![Call::Put(metadata, payload)],
            None,
            new.clone(),
            newer.clone(),
        ),
        win(redirect(), Some("a"), new, newer),
        win(
            redirect(),
            Some("a"),
            inline(variant + 1, 1_000),
            inline(variant, 30),
        ),
        win(
            redirect(),
            Some("a"),
            TieredWrite::Delete,
            TieredWrite::Delete,
        ),
    ]
}

async fn hv_6_1(cx: &Cx<dyn World>) -> Outcome {
    let mut bench = Bench::new(cx).await?;
    for variant in 0..3 {
        for win in wins(&bench, variant) {
            let id = bench.fresh();
            for call in &win.before {
                bench.ask("to begin with", &id, call).await?;
            }
            bench.judge("for the first time", &id, &win.call).await?;
            // With the clock gone on, a second write of the same would show in the times that are filled in.
            bench.advance(Duration::from_millis(1_500));
            bench
                .judge("again, through another handle", &id, &win.call)
                .await?;
            bench.reopen().await?;
            bench.advance(Duration::from_millis(1));
            bench
                .judge("again, through a new handle", &id, &win.call)
                .await?;
            bench
                .judge("again, with something else to write", &id, &win.again)
                .await?;
        }
    }
    bench.look_at_all().await
}

async fn hv_6_2(cx: &Cx<dyn World>) -> Outcome {
    let mut bench = Bench::new(cx).await?;
    for nth in 0..wins(&bench, 0).len() {
        let (metadata, payload) = bench.object(0, 2_000);
        let point = |letter| TieredWrite::Tombstone(bench.redirect(&target(letter), 0));
        let inline = || TieredWrite::Object(metadata.clone(), payload.clone());
        let between = [
            vec![Call::Put(metadata.clone(), payload.clone())],
            vec![Call::Delete],
            vec![Call::PutInline(metadata.clone(), payload.clone())],
            vec![Call::DeleteInline],
            vec![swap(None, point("m"))],
            vec![swap(None, inline())],
            vec![swap(None, TieredWrite::Delete)],
            vec![swap(Some("n"), point("m"))],
            vec![swap(Some("n"), inline())],
            vec![swap(Some("n"), TieredWrite::Delete)],
            // Back to where the call began: there its condition holds again.
            vec![Call::Delete, swap(None, point("a"))],
        ];
        for others in between {
            let id = bench.fresh();
            let win = wins(&bench, 1).swap_remove(nth);
            for call in win.before.iter().chain([&win.call]) {
                bench.ask("to begin with", &id, call).await?;
            }
            for other in &others {
                bench
                    .judge("between a call and its repetition", &id, other)
                    .await?;
            }
            bench.advance(Duration::from_millis(1));
            let what = format!("again, after {others:?}");
            bench.judge(&what, &id, &win.call).await?;
        }
    }
    bench.look_at_all().await
}

async fn hv_6_3(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut wins = cases::<Handle, _>(cx);
    // The calls that change what redirect is there: of any other one nobody could say who has won.
    wins.retain(|case| {
        let target = |row: &Option<Row>| match row {
            Some(Row::Redirect(tombstone)) => Some(tombstone.target.clone()),
            _ => None,
        };
        let states = case.states(&name("any"));
        matches!(case.call, Call::Swap(..)) && target(&states.old) != target(&states.new)
    });
    let trouble = Trouble {
        kinds: &[FaultKind::ErrorAfter, FaultKind::ErrorBefore],
        again: true,
    };
    troubled(cx, &a, &b, &wins, trouble).await
}

async fn hv_6_4(cx: &Cx<dyn World>) -> Outcome {
    let mut bench = Bench::new(cx).await?;
    let a = cx.open_as("fencing", "p").await?;
    let (metadata, payload) = bench.object(1, 700);
    let states = [
        None,
        Some(Call::Put(metadata.clone(), payload)),
        Some(swap(
            None,
            TieredWrite::Tombstone(bench.redirect(&target("a"), 1)),
        )),
    ];
    for state in states {
        let id = bench.fresh();
        if let Some(call) = &state {
            bench.ask("to begin with", &id, call).await?;
        }
        bench.advance(Duration::from_millis(1));
        let fenced = a.try_fence(&id).await;
        if cx.caps.high_volume.fence {
            fenced.map_err(|e| Stop::error(format!("fence({id}), which is declared"), &e))?;
        } else {
            refused(
                "fence, which is not declared",
                fenced,
                ErrorKind::Unsupported,
            )?;
        }
        bench.look("fence", &id).await?;
        // A fence keeps out what came before it and nothing else.
        let write = TieredWrite::Tombstone(bench.redirect(&target("n"), 0));
        for call in [
            Call::PutInline(metadata.clone(), "after".into()),
            swap(None, write),
        ] {
            bench.judge("after a fence", &id, &call).await?;
        }
    }
    Ok(())
}
