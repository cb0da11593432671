//! HV-5 in passing: random calls, in which states come about that no matrix lists.

use std::time::Duration;

use larder_traits::{ExpirationPolicy, Metadata, TieredWrite, Tombstone};
use proptest::prelude::*;

use super::bench::{Bench, Call};
use crate::check::{Check, Engine, Outcome};
use crate::checks::backend::objects::{far, name};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::engine::model;
use crate::high_volume::World;

pub(super) static CHECKS: &[Check<dyn World>] = &[Check::new(
    "HV-5.3",
    "random calls of all kinds on few rows, as time goes by, answer as the model does",
)
.kills("state left behind by an earlier call, a condition judged by a stale row")
.engines(&[Engine::Model])
.run(|cx| Box::pin(hv_5_3(cx)))];

/// One step of the random run. Rows and targets are few, so that conditions hold as often as not.
#[derive(Clone, Debug)]
enum Step {
    Read {
        row: usize,
        how: u8,
    },
    PutInline {
        row: usize,
        len: usize,
        life: Life,
    },
    Put {
        row: usize,
        len: usize,
        life: Life,
    },
    DeleteInline {
        row: usize,
    },
    Delete {
        row: usize,
    },
    Point {
        row: usize,
        from: usize,
        to: usize,
        life: Life,
    },
    Resolve {
        row: usize,
        from: usize,
        len: usize,
        life: Life,
    },
    Drop {
        row: usize,
        from: usize,
    },
    Extend {
        row: usize,
        of: usize,
        secs: u64,
    },
    Advance {
        millis: u64,
    },
    Reopen,
}

/// How long what is written lives.
#[derive(Clone, Copy, Debug)]
enum Life {
    Forever,
    Seconds(u64),
    Until(u64),
}

impl Life {
    fn apply(self, bench: &Bench<'_>) -> (ExpirationPolicy, Option<std::time::SystemTime>) {
        let secs = Duration::from_secs;
        match self {
            Self::Forever => (ExpirationPolicy::Manual, None),
            Self::Seconds(_) | Self::Until(_) if !bench.is_clocked() => {
                (ExpirationPolicy::TimeToLive(secs(60)), Some(far()))
            }
            Self::Seconds(after) => (ExpirationPolicy::TimeToLive(secs(after)), None),
            Self::Until(after) => (
                ExpirationPolicy::TimeToLive(secs(60)),
                Some(bench.now() + secs(after)),
            ),
        }
    }
}

const ROWS: usize = 3;
const LENGTHS: [usize; 5] = [0, 1, 100, 1_024, 9_000];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = || 0..ROWS;
    // The last of the currents is "no redirect".
    let from = || 0..ROWS + 1;
    let len = || prop::sample::select(&LENGTHS[..]);
    let life = || {
        prop_oneof![
            3 => Just(Life::Forever),
            2 => (1..6_u64).prop_map(Life::Seconds),
            1 => (1..6_u64).prop_map(Life::Until),
        ]
    };
    let step = prop_oneof![
        2 => (row(), 0..4_u8).prop_map(|(row, how)| Step::Read { row, how }),
        3 => (row(), len(), life()).prop_map(|(row, len, life)| Step::PutInline { row, len, life }),
        2 => (row(), len(), life()).prop_map(|(row, len, life)| Step::Put { row, len, life }),
        2 => row().prop_map(|row| Step::DeleteInline { row }),
        1 => row().prop_map(|row| Step::Delete { row }),
        6 => (row(), from(), row(), life())
            .prop_map(|(row, from, to, life)| Step::Point { row, from, to, life }),
        4 => (row(), from(), len(), life())
            .prop_map(|(row, from, len, life)| Step::Resolve { row, from, len, life }),
        3 => (row(), from()).prop_map(|(row, from)| Step::Drop { row, from }),
        1 => (row(), row(), 1..9_u64).prop_map(|(row, of, secs)| Step::Extend { row, of, secs }),
        4 => prop::sample::select(&[1, 999, 1_000, 3_000, 60_000][..])
            .prop_map(|millis| Step::Advance { millis }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..model::CASE_LEN_MAX)
}

async fn hv_5_3(cx: &Cx<dyn World>) -> Outcome {
    model::run(cx, steps(), |cx, list| Box::pin(side_by_side(cx, list))).await
}

async fn side_by_side(cx: &Cx<dyn World>, list: &[Step]) -> Outcome {
    let mut bench = Bench::new(cx).await?;
    let ids: Vec<_> = (0..ROWS).map(|row| name(&format!("id-{row}"))).collect();
    for (at, step) in list.iter().enumerate() {
        match *step {
            Step::Advance { millis } => bench.advance(Duration::from_millis(millis)),
            Step::Reopen => bench.reopen().await?,
            Step::Extend { .. } if !cx.caps.high_volume.extend_expiry => {}
            _ => {
                let (row, call) = call(&bench, at, step);
                bench.ask("of the model", &ids[row], &call).await?;
            }
        }
        for id in &ids {
            bench.look("the call", id).await?;
        }
    }
    Ok(())
}

/// The call of a step, with a payload that no other step writes.
fn call(bench: &Bench<'_>, at: usize, step: &Step) -> (usize, Call) {
    let object = |len: usize, life: Life| {
        let mut metadata = Metadata::new();
        (metadata.expiration_policy, metadata.time_expires) = life.apply(bench);
        if !bench.is_clocked() {
            metadata.time_created = Some(far());
        }
        (metadata, pattern(&format!("{at}"), len).into())
    };
    let target = |index: usize| (index < ROWS).then(|| name(&format!("target-{index}")));
    match *step {
        Step::Read { row, how } => {
            let calls = [Call::Row, Call::Head, Call::Get, Call::Metadata];
            (row, calls[usize::from(how)].clone())
        }
        Step::PutInline { row, len, life } => {
            let (metadata, payload) = object(len, life);
            (row, Call::PutInline(metadata, payload))
        }
        Step::Put { row, len, life } => {
            let (metadata, payload) = object(len, life);
            (row, Call::Put(metadata, payload))
        }
        Step::DeleteInline { row } => (row, Call::DeleteInline),
        Step::Delete { row } => (row, Call::Delete),
        Step::Point {
            row,
            from,
            to,
            life,
        } => {
            let (policy, deadline) = life.apply(bench);
            let mut tombstone = Tombstone::new(name(&format!("target-{to}")), policy);
            tombstone.time_expires = deadline;
            let write = TieredWrite::Tombstone(tombstone);
            (row, Call::Swap(target(from), write))
        }
        Step::Resolve {
            row,
            from,
            len,
            life,
        } => {
            let (metadata, payload) = object(len, life);
            let write = TieredWrite::Object(metadata, payload);
            (row, Call::Swap(target(from), write))
        }
        Step::Drop { row, from } => (row, Call::Swap(target(from), TieredWrite::Delete)),
        Step::Extend { row, of, secs } => {
            let at = bench.now() + Duration::from_secs(secs);
            (row, Call::Extend(name(&format!("target-{of}")), at))
        }
        Step::Advance { .. } | Step::Reopen => (0, Call::Head),
    }
}
