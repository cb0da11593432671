//! CL-5.3: random operations against the model.

use futures_util::FutureExt;
use larder_traits::{Classify, ErrorKind, Fault, Outcome as Effect};
use proptest::prelude::*;

use super::{at, change, id, writer};
use crate::change_log::{Handle, World};
use crate::check::{Outcome, Stop, describe};
use crate::cx::Cx;
use crate::engine::model::{self, CASE_LEN_MAX};
use crate::model::change_log::Changes;

const WRITERS: u64 = 3;
const IDS: u64 = 5;

#[derive(Clone, Debug)]
enum Op {
    Record {
        writer: u64,
        id: u64,
        version: u64,
    },
    Complete {
        writer: u64,
        id: u64,
    },
    Renew {
        writer: u64,
        until: u64,
    },
    Claim {
        writer: u64,
        now: u64,
        limit: usize,
    },
    /// The first handle becomes the second, which is dropped, and another is opened.
    Reopen,
}

fn operations() -> impl Strategy<Value = Vec<Op>> {
    let writer = || 0..WRITERS;
    let operation = prop_oneof![
        6 => (writer(), 0..IDS, 0..9_u64)
            .prop_map(|(writer, id, version)| Op::Record { writer, id, version }),
        3 => (writer(), 0..IDS).prop_map(|(writer, id)| Op::Complete { writer, id }),
        3 => (writer(), 0..20_u64).prop_map(|(writer, until)| Op::Renew { writer, until }),
        4 => (writer(), 0..20_u64, 0..4_usize)
            .prop_map(|(writer, now, limit)| Op::Claim { writer, now, limit }),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(operation, 1..CASE_LEN_MAX)
}

pub(super) async fn cl_5_3(cx: &Cx<dyn World>) -> Outcome {
    model::run(cx, operations(), |cx, list| case(cx, list).boxed_local()).await
}

async fn case(cx: &Cx<dyn World>, list: &[Op]) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let mut model = Changes::default();
    for (step, op) in list.iter().enumerate() {
        if matches!(op, Op::Reopen) {
            drop(std::mem::replace(&mut a, b));
            b = cx.open_as("again", "p").await?;
        }
        let (handle, reader) = if step % 2 == 0 { (&a, &b) } else { (&b, &a) };
        perform(cx, handle, op, &mut model).await?;
        for n in 0..WRITERS {
            let what = format!("after {op:?}");
            reader
                .expect(&what, writer(n), &model.of(writer(n)))
                .await?;
        }
    }
    Ok(())
}

/// Fails unless the call was taken as the model takes it, or refused as it refuses it.
fn judge(op: &Op, result: Result<(), Fault>, is_taken: bool) -> Outcome {
    let (observed, is_right) = match &result {
        Ok(()) => ("Ok".to_owned(), is_taken),
        Err(e) => {
            let is_refusal = e.kind() == ErrorKind::Conflict && e.outcome() == Effect::NotApplied;
            (describe(e), is_refusal && !is_taken)
        }
    };
    if is_right {
        return Ok(());
    }
    let expected = if is_taken {
        "Ok"
    } else {
        "Conflict, NotApplied"
    };
    Err(Stop::fail(format!("{op:?}"), observed, expected))
}

async fn perform(cx: &Cx<dyn World>, handle: &Handle, op: &Op, model: &mut Changes) -> Outcome {
    match *op {
        Op::Record {
            writer: by,
            id,
            version,
        } => {
            let change = change(id, version);
            let result = handle.try_record(writer(by), &change).await;
            judge(op, result, model.record(writer(by), &change))
        }
        Op::Complete { writer: by, id: of } => {
            let result = handle.try_complete(writer(by), id(of)).await;
            judge(op, result, model.complete(writer(by), id(of)))
        }
        Op::Renew { writer: by, until } => {
            model.renew(writer(by), at(until));
            handle.renew(writer(by), at(until)).await
        }
        Op::Claim {
            writer: by,
            now,
            limit,
        } => {
            let claimed = handle.claim(writer(by), at(now), limit).await?;
            let mut free = model.claimable(writer(by), at(now));
            let expected = limit.min(free.len());
            cx.eq(format!("{op:?}: how many"), &claimed.len(), &expected)?;
            for change in &claimed {
                let Some(found) = free.iter().position(|it| it == change) else {
                    let what = format!("{op:?}: one of the answer");
                    let free = format!("one of {free:?}, once");
                    return Err(Stop::fail(what, format!("{change:?}"), free));
                };
                free.swap_remove(found);
            }
            model.claimed(writer(by), &claimed);
            Ok(())
        }
        Op::Reopen => Ok(()),
    }
}
