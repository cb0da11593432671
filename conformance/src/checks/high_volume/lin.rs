//! HV-7 and HV-8: clients that swap, put, delete and extend the same rows at the same time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use tokio::task::JoinError;

use crate::check::{Outcome, Stop};
use crate::checks::backend::calls::{Answer, Call, Subject, cases, make_all, target, to_a};
use crate::checks::backend::lin::Rows;
use crate::checks::backend::objects::{far, name};
use crate::cx::{Cx, brief};
use crate::engine::lin::{self, Plan};
use crate::engine::meeting::Harm;
use crate::high_volume::{Handle, World};
use crate::lin::{ModelName, NewRow, Op};

/// What a client asks for; the numbers of a mix say how often.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Get,
    /// A redirect where the client expects none.
    Point,
    /// A redirect in place of one that it knows.
    Move,
    /// An object in place of a redirect that it knows.
    Resolve,
    /// Nothing in place of a redirect that it knows.
    Drop,
    /// An object where the client expects no redirect.
    Fill,
    /// Nothing where the client expects no redirect.
    Clear,
    Put,
    Delete,
    PutInline,
    DeleteInline,
}

type Mix = &'static [(u32, Kind)];

const SWAPS: Mix = &[
    (22, Kind::Get),
    (18, Kind::Point),
    (26, Kind::Move),
    (8, Kind::Resolve),
    (6, Kind::Drop),
    (4, Kind::Fill),
    (3, Kind::Clear),
    (5, Kind::Put),
    (3, Kind::Delete),
    (3, Kind::PutInline),
    (2, Kind::DeleteInline),
];

/// Most of all looks at what is there.
const LOOKS: Mix = &[
    (60, Kind::Get),
    (10, Kind::Point),
    (10, Kind::Move),
    (15, Kind::Put),
    (5, Kind::Delete),
];

/// Writes that take no notice of what is there, but for a redirect.
const WRITES: Mix = &[
    (20, Kind::Get),
    (60, Kind::PutInline),
    (10, Kind::DeleteInline),
    (5, Kind::Put),
    (5, Kind::Delete),
];

const INLINE_PUTS: Mix = &[
    (22, Kind::Get),
    (22, Kind::Point),
    (4, Kind::Move),
    (5, Kind::Resolve),
    (10, Kind::Drop),
    (30, Kind::PutInline),
    (7, Kind::DeleteInline),
];

/// The redirects of the epoch that is being written, so that clients know of one another's.
#[derive(Default)]
struct Made {
    epoch: String,
    /// The key, the target, and its writer's tag.
    targets: Vec<(String, String, String)>,
}

impl Made {
    /// The redirect that a client expects: its own last one, one of another client's, the one that was there before the
    /// epoch, or one that never was.
    fn guess(&self, rng: &mut TestRng, key: &str, tag: &str, before: Option<String>) -> String {
        let own = self
            .targets
            .iter()
            .rev()
            .find(|(k, _, t)| k == key && t == tag);
        let others: Vec<_> = self
            .targets
            .iter()
            .filter(|(k, _, t)| k == key && t != tag)
            .collect();
        let guess = match rng.random_range(0..100) {
            0..50 => own.map(|(_, target, _)| target.clone()),
            50..75 if !others.is_empty() => {
                Some(others[rng.random_range(0..others.len())].1.clone())
            }
            50..95 => before.clone(),
            _ => Some("never".into()),
        };
        guess.or(before).unwrap_or_else(|| "never".into())
    }
}

fn pick(rng: &mut TestRng, mix: Mix) -> Kind {
    let all: u32 = mix.iter().map(|(weight, _)| weight).sum();
    let mut at = rng.random_range(0..all);
    for (weight, kind) in mix {
        if at < *weight {
            return *kind;
        }
        at -= weight;
    }
    Kind::Get
}

/// The calls of one client. Every target and every value is written once in the whole run.
fn script(
    plan: &Plan,
    mix: Mix,
    rows: &Rows<Handle>,
    made: &mut Made,
    rng: &mut TestRng,
    tag: &str,
) -> Vec<Op> {
    let epoch = tag.split('.').next().unwrap_or(tag);
    if made.epoch != epoch {
        *made = Made {
            epoch: epoch.to_owned(),
            targets: Vec::new(),
        };
    }
    let mut ops = Vec::new();
    for at in 0..plan.calls {
        let key = plan.keys[rng.random_range(0..plan.keys.len())].clone();
        let kind = pick(rng, mix);
        let known = made.guess(rng, &key, tag, rows.last_seen(&key));
        let value = || format!("v{tag}.{at}");
        let target = format!("t{tag}.{at}");
        let swap = |key, current, write| Op::CompareAndWrite {
            key,
            current,
            write,
        };
        if matches!(kind, Kind::Point | Kind::Move) {
            made.targets
                .push((key.clone(), target.clone(), tag.to_owned()));
        }
        ops.push(match kind {
            Kind::Get => Op::Get { key },
            Kind::Point => swap(key, None, NewRow::Redirect(target)),
            Kind::Move => swap(key, Some(known), NewRow::Redirect(target)),
            Kind::Resolve => swap(key, Some(known), NewRow::Object(value())),
            Kind::Drop => swap(key, Some(known), NewRow::Delete),
            Kind::Fill => swap(key, None, NewRow::Object(value())),
            Kind::Clear => swap(key, None, NewRow::Delete),
            Kind::Put => Op::Set {
                key,
                value: value(),
                ttl: None,
            },
            Kind::Delete => Op::Delete { key },
            Kind::PutInline => Op::PutNonTombstone {
                key,
                value: value(),
            },
            Kind::DeleteInline => Op::DeleteNonTombstone { key },
        });
    }
    ops
}

/// C-1.4 and C-6.5.
pub(super) async fn harmed(cx: &Cx<dyn World>, harm: Harm) -> Outcome {
    let plan = Plan {
        model: ModelName::Cas,
        clients: 4,
        calls: 6,
        keys: vec!["x".into(), "y".into()],
    };
    // Nobody knows a redirect from before: each place is new.
    let unseen = Rows::new(Vec::new());
    let open = async |place: String| {
        let (a, b) = cx.open_two(&place).await?;
        Ok(Arc::new(Rows::new(vec![a, b])))
    };
    let mut made = Made::default();
    lin::run_harmed(cx, &plan, harm, open, |rng, tag| {
        // Another mix in each epoch, and one for all its clients.
        let mixes = [SWAPS, LOOKS, WRITES];
        let epoch = tag.split('.').next().and_then(|epoch| epoch.parse().ok());
        let mix = mixes[epoch.unwrap_or(0_usize) % mixes.len()];
        script(&plan, mix, &unseen, &mut made, rng, tag)
    })
    .await
}

/// Each mix through one handle, and through a handle for each client.
async fn mixed(cx: &Cx<dyn World>, mix: Mix, keys: &[&str]) -> Outcome {
    let plan = Plan {
        model: ModelName::Cas,
        clients: 4,
        calls: 9,
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    for (place, is_shared) in [("shared", true), ("apart", false)] {
        let (a, b) = cx.open_two(place).await?;
        let (c, d) = cx.open_two(place).await?;
        let handles = if is_shared { vec![a] } else { vec![a, b, c, d] };
        let rows = Arc::new(Rows::new(handles));
        let known = Arc::clone(&rows);
        let mut made = Made::default();
        lin::run(cx, &plan, rows, |rng, tag| {
            script(&plan, mix, &known, &mut made, rng, tag)
        })
        .await?;
    }
    Ok(())
}

/// HV-7.1.
pub(super) async fn swaps(cx: &Cx<dyn World>) -> Outcome {
    mixed(cx, SWAPS, &["x", "y"]).await
}

/// HV-7.3.
pub(super) async fn inline_puts(cx: &Cx<dyn World>) -> Outcome {
    mixed(cx, INLINE_PUTS, &["x"]).await
}

/// HV-8.7.
pub(super) async fn extensions(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let extend = Call::Extend(target("a"), far() + Duration::from_secs(86_400));
    // Each call that puts something else in the place of a redirect.
    let mut rivals = cases::<Handle, _>(cx);
    rivals.retain(|case| {
        let states = case.states(&name("any"));
        let is_other = !matches!(case.call, Call::Extend(..));
        matches!(case.before[..], [Call::Swap(..)]) && is_other && states.old != states.new
    });
    for round in 0..cx.times(30, 3) {
        for (nth, case) in rivals.iter().enumerate() {
            let id = name(&format!("extended-{round}-{nth}"));
            make_all(&a, &id, &[to_a()]).await?;
            let by = |handle: &Handle, call: &Call| {
                let (handle, id, call) = (handle.clone(), id.clone(), call.clone());
                async move { handle.make(&id, &call).await }
            };
            let (extending, rival) = (by(&a, &extend), by(&b, &case.call));
            // Begun in either order, or on threads of their own.
            let (extended, won) = match round % 3 {
                0 => join(extending, rival).await,
                1 => {
                    let (won, extended) = join(rival, extending).await;
                    (extended, won)
                }
                _ => {
                    let ended = join(tokio::spawn(extending), tokio::spawn(rival)).await;
                    let lost = |e: JoinError| Stop::fail("a call", e.to_string(), "no panic");
                    (ended.0.map_err(lost)?, ended.1.map_err(lost)?)
                }
            };
            let what = format!("{:?} beside an extension", case.call);
            let states = case.states(&id);
            let won = won.map_err(|e| Stop::error(&*what, &e))?;
            cx.eq(&what, &won, &states.answer)?;
            let extended = extended.map_err(|e| Stop::error("an extension", &e))?;
            let is_answer = matches!(extended, Answer::Won(_));
            cx.require(is_answer, "an extension", brief(&extended), "an answer")?;
            for reader in [&a, &b] {
                let seen = reader.see(&id).await;
                let seen = seen.map_err(|e| Stop::error("a read", &e))?;
                cx.eq(format!("the row after {what}"), &seen, &states.new)?;
            }
        }
    }
    Ok(())
}
