//! The methods as values, for checks that do the same to each of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_traits::{Atomicity, BlobInfo, Classify, ErrorKind, ExternalError};

use super::{read_is, same_lines};
use crate::blob_multi::{Handle, name};
use crate::check::{Outcome, Stop};
use crate::cx::show;
use crate::model::blob_multi::Blobs;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Set(Atomicity),
    Delete,
    Get,
    GetBytes,
    GetRange,
    List,
    ListPrefix,
}

pub(super) const WRITES: [Method; 3] = [
    Method::Set(Atomicity::RequireAtomic),
    Method::Set(Atomicity::AllowNonAtomic),
    Method::Delete,
];

pub(super) const READS: [Method; 5] = [
    Method::Get,
    Method::GetBytes,
    Method::GetRange,
    Method::List,
    Method::ListPrefix,
];

/// The part that [`Method::GetRange`] reads.
const PART: std::ops::Range<u64> = 100..4_000;

/// The answer of any method.
#[derive(Debug)]
pub(super) enum Told {
    Written,
    Value(Option<Bytes>),
    Keys(Vec<String>),
    Found(Vec<BlobInfo>),
}

impl Method {
    /// Its name, made of characters that a key may have.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Set(Atomicity::RequireAtomic) => "set",
            Self::Set(Atomicity::AllowNonAtomic) => "set_non_atomic",
            Self::Delete => "delete",
            Self::Get => "get",
            Self::GetBytes => "get_bytes",
            Self::GetRange => "get_range",
            Self::List => "list_keys",
            Self::ListPrefix => "list_prefix",
        }
    }

    /// Whether a call that is interrupted may leave its own key torn (BM-4).
    pub(super) fn may_tear(self) -> bool {
        self == Self::Set(Atomicity::AllowNonAtomic)
    }

    /// What a write leaves behind, where `new` is what a set sets.
    pub(super) fn leaves(self, new: &Bytes) -> Option<Bytes> {
        (self != Self::Delete).then(|| new.clone())
    }

    pub(super) async fn call(
        self,
        handle: &Handle,
        deadline: Instant,
        key: &str,
        new: &Bytes,
    ) -> Result<Told, ExternalError> {
        match self {
            Self::Set(atomic) => {
                let set = handle.try_set(deadline, key, new.clone(), atomic).await;
                set.map(|()| Told::Written)
            }
            Self::Delete => {
                let deleted = handle.try_delete(deadline, key).await;
                deleted.map(|()| Told::Written)
            }
            Self::Get => {
                let value = handle.try_get(deadline, key).await;
                value.map(|value| Told::Value(value.map(Bytes::from)))
            }
            Self::GetBytes => handle.try_get_bytes(deadline, key).await.map(Told::Value),
            Self::GetRange => {
                let part = handle.try_get_range(deadline, key, PART).await;
                part.map(Told::Value)
            }
            Self::List => handle.try_list(deadline).await.map(Told::Keys),
            Self::ListPrefix => {
                let found = handle.try_list_prefix(deadline, key).await;
                found.map(Told::Found)
            }
        }
    }

    /// Fails unless a read answered what the model holds.
    pub(super) fn right(self, told: &Told, key: &str, model: &Blobs) -> Outcome {
        match told {
            Told::Written => Ok(()),
            Told::Value(value) => {
                let expected = match self {
                    Self::GetRange => model.get_range(key, PART),
                    _ => model.get(key).cloned(),
                };
                read_is(self.word(), key, value.as_deref(), expected.as_deref())
            }
            Told::Keys(keys) => {
                let expected: Vec<String> = model.keys().map(str::to_owned).collect();
                same_lines("list_keys()", keys, &expected)
            }
            Told::Found(found) => same_lines("list_prefix()", found, &model.list_prefix(key)),
        }
    }
}

/// How long a store may take to find its way back after a failure.
const RECOVERY: Duration = Duration::from_secs(5);

/// Makes a call until the store has recovered from what was done to it.
pub(super) async fn recovered<T, F>(what: &str, call: impl Fn() -> F) -> Result<T, Stop>
where
    F: Future<Output = Result<T, ExternalError>>,
{
    let until = Instant::now() + RECOVERY;
    loop {
        let result = call().await;
        let again = matches!(&result, Err(e)
            if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Conflict));
        if !again || Instant::now() > until {
            return result.map_err(|e| Stop::error(format!("{what}, once all is well again"), &e));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What is under `key` now that all is well again.
pub(super) async fn value_of(handle: &Handle, key: &str) -> Result<Option<Bytes>, Stop> {
    let call = format!("get({})", name(key));
    let value = recovered(&call, || handle.try_get(Handle::ample(), key)).await?;
    Ok(value.map(Bytes::from))
}

/// A key that something was done to, and what may be under it from now on.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) key: String,
    /// Empty where even a torn value is allowed.
    pub(super) allowed: Vec<Option<Bytes>>,
    /// What was done, and how it ended.
    pub(super) story: String,
}

impl Watched {
    fn must_be_there(&self) -> bool {
        !self.allowed.is_empty() && self.allowed.iter().all(Option::is_some)
    }

    /// Fails unless one of the allowed values is there.
    pub(super) async fn look(&self, handle: &Handle) -> Outcome {
        let seen = value_of(handle, &self.key).await?;
        if self.allowed.is_empty() || self.allowed.contains(&seen) {
            return Ok(());
        }
        let shown = |value: &Option<Bytes>| value.as_deref().map_or("None".into(), show);
        let allowed: Vec<String> = self.allowed.iter().map(shown).collect();
        Err(Stop::fail(
            format!("get({}) after {}", name(&self.key), self.story),
            shown(&seen),
            allowed.join(" or "),
        ))
    }
}

/// How often the watch looks.
const LOOKS: u32 = 5;

/// Looks at all keys through all handles for as long as `time`.
pub(super) async fn watch(handles: &[&Handle], keys: &[Watched], time: Duration) -> Outcome {
    for look in 0..=LOOKS {
        if look > 0 {
            tokio::time::sleep(time / LOOKS).await;
        }
        for (at, watched) in keys.iter().enumerate() {
            let look = usize::try_from(look).unwrap_or(0);
            watched.look(handles[(at + look) % handles.len()]).await?;
        }
    }
    Ok(())
}

/// Fails unless the list has what must be there, and nothing that nobody has set.
pub(super) async fn only_known_keys(handle: &Handle, watched: &[Watched]) -> Outcome {
    let listed = handle.list().await?;
    let known = |key: &String| watched.iter().any(|watched| watched.key == *key);
    if let Some(stranger) = listed.iter().find(|key| !known(key)) {
        let seen = format!("{stranger:?}");
        return Err(Stop::fail(
            "the list after all that",
            seen,
            "given keys only",
        ));
    }
    let gone = watched
        .iter()
        .find(|watched| watched.must_be_there() && !listed.contains(&watched.key));
    match gone {
        Some(gone) => Err(Stop::fail(
            "the list after all that",
            format!("no {:?}", gone.key),
            "every key that was there and was not deleted",
        )),
        None => Ok(()),
    }
}
