//! Random lists of operations against a pure model.
//!
//! `proptest` generates and shrinks the lists; this engine runs them, each in a world of its own, so that a case leaves
//! nothing behind for the next. A list that makes the store and the model disagree is made smaller as long as they
//! still do, within bounds, and the smallest is what the failure shows.
//!
//! Lists are short, so that a failure can be read. What only a long life in one place brings out, such as every
//! hundredth write going wrong, is looked for by a last run of many lists joined into one.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};

use crate::check::{Failure, Outcome, Stop};
use crate::cx::Cx;
use crate::fixture::World;

/// The bounds of shrinking: attempts, and time.
const SHRINK_ATTEMPTS_MAX: usize = 200;
const SHRINK_TIME_MAX: Duration = Duration::from_secs(20);

/// How long one list is. Long enough for a state to build up, short enough to read when it fails.
pub(crate) const CASE_LEN_MAX: usize = 60;

/// How long the joined list is at most.
const JOINED_LEN_MAX: usize = 2_000;

/// Runs lists from `strategy` until the profile's number of operations is used up.
///
/// `run` performs one list in the world of the context that it gets, side by side with its model, and stops at the
/// first disagreement.
pub(crate) async fn run<W, Op, S, F>(cx: &Cx<W>, strategy: S, run: F) -> Outcome
where
    W: World + ?Sized,
    Op: Clone + Debug,
    S: Strategy<Value = Vec<Op>>,
    F: for<'a> Fn(&'a Cx<W>, &'a [Op]) -> LocalBoxFuture<'a, Outcome>,
{
    let mut runner = TestRunner::new_with_rng(Config::default(), cx.rng());
    let mut operations = 0;
    let mut joined = Vec::new();
    while operations < cx.model_operations() {
        let mut tree = strategy
            .new_tree(&mut runner)
            .map_err(|e| Stop::Inconclusive(format!("no operations could be generated: {e}")))?;
        let list = tree.current();
        operations += list.len().max(1);
        joined.extend_from_slice(&list);
        if let Some(failure) = try_list(cx, &list, &run).await? {
            return Err(Stop::Fail(shrink(cx, &mut tree, failure, &run).await));
        }
    }
    joined.truncate(JOINED_LEN_MAX);
    match try_list(cx, &joined, &run).await? {
        None => Ok(()),
        Some(failure) => Err(Stop::Fail(cut(cx, joined, failure, &run).await)),
    }
}

/// Makes a joined list smaller: leaves out halves, quarters and so on, as long as the rest still fails.
async fn cut<W, Op, F>(
    cx: &Cx<W>,
    mut list: Vec<Op>,
    mut smallest: Box<Failure>,
    run: &F,
) -> Box<Failure>
where
    W: World + ?Sized,
    Op: Clone,
    F: for<'a> Fn(&'a Cx<W>, &'a [Op]) -> LocalBoxFuture<'a, Outcome>,
{
    let started = Instant::now();
    let mut attempts = 0;
    let mut chunk = list.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < list.len() {
            if attempts == SHRINK_ATTEMPTS_MAX || started.elapsed() > SHRINK_TIME_MAX {
                return smallest;
            }
            attempts += 1;
            let end = (at + chunk).min(list.len());
            let without = [&list[..at], &list[end..]].concat();
            match try_list(cx, &without, run).await {
                Ok(Some(failure)) => {
                    smallest = failure;
                    list = without;
                }
                Ok(None) | Err(_) => at = end,
            }
        }
        chunk /= 2;
    }
    smallest
}

async fn try_list<W, Op, F>(cx: &Cx<W>, list: &[Op], run: &F) -> Result<Option<Box<Failure>>, Stop>
where
    W: World + ?Sized,
    F: for<'a> Fn(&'a Cx<W>, &'a [Op]) -> LocalBoxFuture<'a, Outcome>,
{
    let world = cx.fresh().await?;
    match run(&world, list).await {
        Ok(()) => Ok(None),
        Err(Stop::Fail(mut failure)) => {
            failure.history = world.log().lines();
            Ok(Some(failure))
        }
        Err(other) => Err(other),
    }
}

async fn shrink<W, T, Op, F>(
    cx: &Cx<W>,
    tree: &mut T,
    mut smallest: Box<Failure>,
    run: &F,
) -> Box<Failure>
where
    W: World + ?Sized,
    T: ValueTree<Value = Vec<Op>>,
    F: for<'a> Fn(&'a Cx<W>, &'a [Op]) -> LocalBoxFuture<'a, Outcome>,
{
    let started = Instant::now();
    let mut more = tree.simplify();
    for _ in 0..SHRINK_ATTEMPTS_MAX {
        if !more || started.elapsed() > SHRINK_TIME_MAX {
            break;
        }
        more = match try_list(cx, &tree.current(), run).await {
            Ok(Some(failure)) => {
                smallest = failure;
                tree.simplify()
            }
            // It agrees, or can no longer be run: whatever was taken away is needed.
            Ok(None) | Err(_) => tree.complicate(),
        };
    }
    smallest
}
