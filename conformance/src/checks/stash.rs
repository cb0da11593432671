//! The checks of `Stash`.

mod appends;
mod batches;
mod changes;
mod collections;
mod common;
mod concurrent;
mod data;
mod drops;
mod faults;
mod frontiers;
mod handles;
mod made_again;
mod methods;
mod names;
mod operations;
mod pages;
mod peeks;
mod races;
mod rows;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_concurrent;
mod work;

use std::fmt::Debug;
use std::sync::Arc;

use larder_traits::stash::{Append, StashDriver, StashDriverExt};
use larder_traits::{
    Antichain, Classify, Data, Diff, Outcome as Effect, StashCollection, StashError, Timestamp,
};

use crate::check::{Check, Outcome, Stop, describe};
use crate::cx::{Cx, brief};
use crate::stash::{Handle, Key, Types, World};

pub(crate) static TABLES: &[&[Check<dyn World>]] = &[
    common::CHECKS,
    collections::CHECKS,
    data::CHECKS,
    rows::CHECKS,
    changes::CHECKS,
    frontiers::CHECKS,
    peeks::CHECKS,
    batches::CHECKS,
    handles::CHECKS,
];

/// The usual types.
type Names = StashCollection<String, String>;

fn at(time: Timestamp) -> Antichain<Timestamp> {
    Antichain::from_elem(time)
}

fn empty() -> Antichain<Timestamp> {
    Antichain::new()
}

fn row(key: &str, value: &str, time: Timestamp, diff: Diff) -> ((String, String), Timestamp, Diff) {
    ((key.into(), value.into()), time, diff)
}

fn sealed(key: &str, value: &str, diff: Diff) -> (String, String, Diff) {
    (key.into(), value.into(), diff)
}

/// Fails unless the call was refused, before any effect, with an error that `is` recognises.
fn refused_as<T: Debug>(
    what: &str,
    result: Result<T, impl AsRef<StashError>>,
    name: &str,
    is: fn(&StashError) -> bool,
) -> Outcome {
    let expected = format!("{name}, NotApplied");
    match result.as_ref().map_err(AsRef::as_ref) {
        Err(e) if is(e) && e.outcome() == Effect::NotApplied => Ok(()),
        Err(e) => Err(Stop::fail(
            what,
            format!("{}: {}", variant(e), describe(e)),
            expected,
        )),
        Ok(value) => Err(Stop::fail(what, format!("Ok({})", brief(value)), expected)),
    }
}

/// `refused_as` with a pattern.
macro_rules! refuses {
    ($what:expr, $result:expr, $pattern:pat) => {
        $crate::checks::stash::refused_as($what, $result, stringify!($pattern), |e| {
            matches!(e, $pattern)
        })
    };
}
use refuses;

/// The name of an error's variant, for failures.
fn variant(e: &StashError) -> String {
    let text = format!("{e:?}");
    let end = text.find(|c: char| !c.is_ascii_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

/// Fails unless both handles read exactly these rows.
async fn both_read<K: Key, V: Data>(
    cx: &Cx<dyn World>,
    what: &str,
    handles: [&mut Handle; 2],
    c: StashCollection<K, V>,
    rows: &Vec<((K, V), Timestamp, Diff)>,
) -> Outcome
where
    Handle: Types<K, V>,
{
    for handle in handles {
        cx.eq(what, &handle.iter(c).await?, rows)?;
    }
    Ok(())
}

/// An append by the driver, in the log too.
async fn append(
    cx: &Cx<dyn World>,
    driver: &Arc<dyn StashDriver>,
    append: Append,
) -> Result<(), DriverError> {
    let call = format!("driver.append({})", brief(&append.clone().into_ops()));
    let result = driver.append(append).await;
    let answer = match &result {
        Ok(()) => "Ok".into(),
        Err(e) => format!("Err({})", describe(e)),
    };
    cx.log().push(format!("{call} -> {answer}"));
    result.map_err(DriverError)
}

/// An error of the driver, which `?` makes the check's failure.
#[derive(Debug)]
struct DriverError(StashError);

impl AsRef<StashError> for DriverError {
    fn as_ref(&self) -> &StashError {
        &self.0
    }
}

impl From<DriverError> for Stop {
    fn from(DriverError(e): DriverError) -> Self {
        Self::error("a call of the driver", &e)
    }
}
