//! CL-7: what outlasts the process and the power.

use larder_traits::{Caps, Durability};

use super::{random, work};
use crate::change_log::World;
use crate::check::{Check, Engine, Gate, Level, Outcome};
use crate::cx::Cx;
use crate::engine::kill::{self, End};
use crate::engine::power;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "CL-7.1",
        "changes and leases are there after the process was dropped, left or killed, as declared",
    )
    .kills("acked in memory, lease not stored")
    .level(Level::Declared)
    .engines(&[Engine::Kill])
    .gate(durable)
    .run(|cx| Box::pin(cl_7_1(cx))),
    Check::new(
        "CL-7.2",
        "changes and leases are there after the power went, where that is declared",
    )
    .kills("missing sync")
    .level(Level::Declared)
    .engines(&[Engine::Power])
    .gate(crate::checks::outlives_power)
    .run(|cx| Box::pin(cl_7_2(cx))),
    Check::new(
        "CL-7.3",
        "closed by all and opened again between any two operations, the log answers as the model does",
    )
    .kills("replay in another order, last renewal wins, leases swept at the open")
    .level(Level::Declared)
    .engines(&[Engine::Model])
    .gate(durable)
    .run(|cx| Box::pin(random::cl_7_3(cx))),
];

fn durable(caps: &Caps) -> Gate {
    if caps.durability == Durability::None {
        Gate::Ignore("declares that nothing outlives the process")
    } else {
        Gate::Run
    }
}

async fn cl_7_1(cx: &Cx<dyn World>) -> Outcome {
    let mut ends = vec![End::Dropped(5), End::Left(5)];
    ends.extend(kill::kills(cx));
    kill::survives(cx, |cx| Box::pin(work::hire(cx)), &ends).await
}

async fn cl_7_2(cx: &Cx<dyn World>) -> Outcome {
    power::survives(cx, |cx| Box::pin(work::hire(cx))).await
}
