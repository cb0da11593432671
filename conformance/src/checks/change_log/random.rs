//! CL-5.3 and CL-7.3: random operations against the model.

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
    /// Both are dropped and opened anew, so many times, and only read in between.
    Close(u8),
}

fn operations() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(operation(), 1..CASE_LEN_MAX)
}

fn operations_closed() -> impl Strategy<Value = Vec<Op>> {
    let operation = prop_oneof![7 => operation(), 1 => (1..3_u8).prop_map(Op::Close)];
    prop::collection::vec(operation, 1..CASE_LEN_MAX)
}

fn operation() -> impl Strategy<Value = Op> + Clone {
    let writer = || 0..WRITERS;
    prop_oneof![
        6 => (writer(), 0..IDS, 0..9_u64)
            .prop_map(|(writer, id, version)| Op::Record { writer, id, version }),
        3 => (writer(), 0..IDS).prop_map(|(writer, id)| Op::Complete { writer, id }),
        3 => (writer(), 0..20_u64).prop_map(|(writer, until)| Op::Renew { writer, until }),
        4 => (writer(), 0..20_u64, 0..4_usize)
            .prop_map(|(writer, now, limit)| Op::Claim { writer, now, limit }),
        1 => Just(Op::Reopen),
    ]
}

pub(super) async fn cl_5_3(cx: &Cx<dyn World>) -> Outcome {
    model::run(cx, operations(), |cx, list| case(cx, list).boxed_local()).await
}

pub(super) async fn cl_7_3(cx: &Cx<dyn World>) -> Outcome {
    let mut is_picked = cx.sample();
    for list in closed_after_each().into_iter().filter(|_| is_picked()) {
        case(&cx.fresh().await?, &list).await?;
    }
    let random = operations_closed();
    model::run(cx, random, |cx, list| case(cx, list).boxed_local()).await
}

/// Short lives whose end depends on the order of their operations, closed after each of these, or before the last and after it.
fn closed_after_each() -> Vec<Vec<Op>> {
    let record = |writer, version| Op::Record {
        writer,
        id: 0,
        version,
    };
    let complete = |writer| Op::Complete { writer, id: 0 };
    let renew = |writer, until| Op::Renew { writer, until };
    let claim = |writer, now| Op::Claim {
        writer,
        now,
        limit: 1,
    };
    let lives = [
        vec![record(0, 0), record(0, 1), record(0, 2), claim(1, 0)],
        vec![record(0, 0), complete(0), record(0, 1), complete(0)],
        vec![
            record(0, 0),
            complete(0),
            record(1, 1),
            complete(1),
            record(0, 2),
        ],
        vec![
            record(0, 0),
            claim(1, 0),
            record(1, 1),
            claim(0, 0),
            complete(0),
        ],
        vec![
            record(0, 0),
            renew(0, 10),
            renew(0, 5),
            claim(1, 7),
            claim(1, 10),
        ],
        vec![
            renew(0, 10),
            record(0, 0),
            claim(1, 7),
            complete(0),
            record(0, 1),
            claim(1, 7),
        ],
        vec![
            record(0, 0),
            renew(1, 10),
            claim(1, 0),
            claim(2, 7),
            claim(2, 10),
        ],
        vec![
            record(0, 0),
            complete(0),
            renew(0, 10),
            renew(0, 5),
            record(0, 1),
            claim(1, 7),
        ],
    ];
    let closed = |life: Vec<Op>| {
        let times = [1, 2].into_iter().cycle();
        let each = life.iter().zip(times);
        let each = each.flat_map(|(op, times)| [op.clone(), Op::Close(times)]);
        // Before its last operation alone: all that came before is read again at once.
        let (last, first) = life.split_last().expect("a life is not empty");
        let first = first.iter().cloned();
        let once = first.chain([Op::Close(1), last.clone(), Op::Close(1)]);
        [each.collect(), once.collect()]
    };
    lives.into_iter().flat_map(closed).collect()
}

async fn case(cx: &Cx<dyn World>, list: &[Op]) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let mut model = Changes::default();
    for (step, op) in list.iter().enumerate() {
        if matches!(op, Op::Reopen) {
            drop(std::mem::replace(&mut a, b));
            b = cx.open_as("again", "p").await?;
        }
        if let Op::Close(times) = op {
            for time in 1..=*times {
                cx.log().push("all handles are dropped".into());
                drop((a, b));
                (a, b) = cx.open_two("p").await?;
                // The last time, what follows looks.
                for n in (0..WRITERS).filter(|_| time < *times) {
                    let what = "opened again, and only read since";
                    b.expect(what, writer(n), &model.of(writer(n))).await?;
                }
            }
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
        Op::Reopen | Op::Close(_) => Ok(()),
    }
}
