//! The checks of `BlobMulti`, one file for each group of clauses.

mod bounds;
mod common;
mod concurrent;
mod deadlines;
mod deletes;
mod drops;
mod failures;
mod faults;
mod get;
mod keys;
mod landing;
mod listing;
mod methods;
mod places;
mod set;
mod slow;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_concurrent;
mod work;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::blob_multi::{Handle, World, name};
use crate::check::{Check, Outcome, Stop};
use crate::checks::pattern;
use crate::cx::{Cx, show};
use crate::model::blob_multi::Blobs;

pub(crate) static TABLES: &[&[Check<dyn World>]] = &[
    common::CHECKS,
    get::CHECKS,
    listing::CHECKS,
    set::CHECKS,
    deletes::CHECKS,
    deadlines::CHECKS,
    places::CHECKS,
    keys::CHECKS,
    failures::CHECKS,
];

/// Names of handles, for checks that open many.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// How many calls a check has in flight that is not about their number.
const IN_FLIGHT: usize = 16;

/// Fails unless a read of `key` answered `expected`.
fn read_is(
    call: &str,
    key: &str,
    observed: Option<impl AsRef<[u8]>>,
    expected: Option<&[u8]>,
) -> Outcome {
    let observed = observed.as_ref().map(AsRef::as_ref);
    if observed == expected {
        return Ok(());
    }
    let shown = |value: Option<&[u8]>| {
        value.map_or("None".into(), |value| format!("Some({})", show(value)))
    };
    let mut seen = shown(observed);
    if let (Some(observed), Some(expected)) = (observed, expected) {
        let same = observed.iter().zip(expected).take_while(|(o, e)| o == e);
        seen.push_str(&format!(", which differ from byte {} on", same.count()));
    }
    let what = format!("{call}({})", name(key));
    Err(Stop::fail(what, seen, shown(expected)))
}

/// Fails unless `handle` answers `get(key)` with `expected`.
async fn get_is(handle: &Handle, key: &str, expected: Option<&[u8]>) -> Outcome {
    read_is("get", key, handle.get(key).await?, expected)
}

/// Fails unless the keys that `handle` lists are `expected`, each once.
async fn list_is<K: Into<String>>(
    handle: &Handle,
    expected: impl IntoIterator<Item = K>,
) -> Outcome {
    let mut expected: Vec<String> = expected.into_iter().map(Into::into).collect();
    expected.sort();
    same_lines("list_keys()", &handle.list().await?, &expected)
}

/// Fails unless two sorted lists are equal, and names the lines on one side only.
fn same_lines<T: Ord + std::fmt::Debug>(what: &str, observed: &[T], expected: &[T]) -> Outcome {
    if observed == expected {
        return Ok(());
    }
    let missing = expected
        .iter()
        .find(|line| observed.binary_search(line).is_err());
    let surplus = observed
        .iter()
        .find(|line| expected.binary_search(line).is_err());
    let twice = observed
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| &pair[0]);
    let mut seen = format!("{} keys", observed.len());
    for (word, line) in [
        ("missing", missing),
        ("not expected", surplus),
        ("twice", twice),
    ] {
        if let Some(line) = line {
            seen.push_str(&format!("; {word}: {}", crate::cx::brief(line)));
        }
    }
    let expected = match expected.len() {
        0..=12 => crate::cx::brief(&expected),
        n => format!("{n} keys, each once"),
    };
    Err(Stop::fail(what, seen, expected))
}

/// Fails unless `handle` shows exactly what the model holds: the list, the lines of a prefix listing, every value.
async fn all_is(handle: &Handle, model: &Blobs) -> Outcome {
    list_is(handle, model.keys()).await?;
    let found = handle.list_prefix("").await?;
    same_lines("list_prefix(\"\")", &found, &model.list_prefix(""))?;
    values_are(handle, model, handle.some_of(model.keys())).await
}

/// Fails unless `handle` reads under each of `keys` what the model holds. Several reads are under way at once, for the
/// sake of stores at the end of a line.
async fn values_are<'a>(
    handle: &Handle,
    model: &Blobs,
    keys: impl IntoIterator<Item = &'a str>,
) -> Outcome {
    let reads = keys
        .into_iter()
        .map(|key| get_is(handle, key, model.get(key).map(|value| &value[..])));
    let reads = stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(IN_FLIGHT);
    reads.try_collect::<Vec<()>>().await.map(drop)
}

/// Sets `key` to a value that only this check and this tag lead to, in the store and in the model.
async fn fill(handle: &Handle, model: &mut Blobs, key: &str, tag: &str, len: usize) -> Outcome {
    let value = pattern(&format!("{tag} of {key}"), len);
    handle.set(key, value.clone()).await?;
    model.set(key, value.into());
    Ok(())
}

/// `len` bytes of the base alphabet.
fn long_key(len: usize) -> String {
    "abcdefghij".chars().cycle().take(len).collect()
}

/// The lengths that a check may write: up to what the backend declares and the profile allows.
fn value_len_max(cx: &Cx<dyn World>) -> usize {
    let declared = usize::try_from(cx.caps.blob_multi.value_len_bytes_max).unwrap_or(usize::MAX);
    declared.min(cx.profile.value_len_bytes_max())
}
