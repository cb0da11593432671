//! Whether the store keeps the conditions of writes. Some accept them and overwrite all the same, so nothing that a
//! server says of itself is believed: it is tried.

use bytes::Bytes;

use crate::error::Failure;
use crate::key::Folder;
use crate::mark::Mark;
use crate::upload::Condition;
use crate::wire::{Sent, Wire};

/// How a store takes the ETag in a condition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conditions {
    /// As it gives it.
    Quoted,
    /// Without the quotes that it gives it with.
    Unquoted,
}

/// How often an inconclusive trial is made again.
const TRIALS_MAX: u32 = 3;

impl Wire {
    /// How the store takes conditions; `None` where it does not.
    ///
    /// # Errors
    ///
    /// That cannot be found out now. Who opens the place has to hear of it: to take it for `None` would make every row
    /// `Unsupported` for as long as the place is open.
    pub(crate) async fn probe(&self) -> Result<Option<Conditions>, Failure> {
        let mut trials = 0;
        loop {
            trials += 1;
            let nonce = self.nonces.next();
            let name = format!("{}{nonce}", self.names.folder(Folder::Probe));
            let found = self.trial(&name).await;
            // What stays behind is small, and no reason to refuse the place.
            drop(self.remove(&name, &Sent::default()).await);
            match found {
                Err(failure) if failure.again && trials < TRIALS_MAX => {}
                found => return found,
            }
        }
    }

    async fn trial(&self, name: &str) -> Result<Option<Conditions>, Failure> {
        let first = match self.try_put(name, Condition::Absent).await? {
            Tried::Done(etag) => etag,
            // Nobody else has this name: what is there is a write whose answer was lost.
            Tried::Unmet => return Err(Failure::garbled("the name of a probe is taken")),
            Tried::Refused => return Ok(None),
        };
        if self.try_put(name, Condition::Absent).await? != Tried::Unmet {
            return Ok(None);
        }
        for form in [Conditions::Quoted, Conditions::Unquoted] {
            let is_first = match form {
                Conditions::Quoted => first.clone(),
                Conditions::Unquoted => first.trim_matches('"').to_owned(),
            };
            match self.try_put(name, Condition::Is(is_first.clone())).await? {
                Tried::Done(_) => {}
                Tried::Unmet => continue,
                Tried::Refused => return Ok(None),
            }
            // The first version is gone by now.
            let stale = self.try_put(name, Condition::Is(is_first)).await?;
            return Ok((stale == Tried::Unmet).then_some(form));
        }
        Ok(None)
    }

    async fn try_put(&self, name: &str, condition: Condition) -> Result<Tried, Failure> {
        let nonce = self.nonces.next();
        // Its content is its number, so that no two have the same ETag.
        let value = Bytes::from(nonce.to_string());
        let mark = Mark::of(&value, nonce);
        let put = || self.put(name, value.clone(), &mark, &condition);
        match self.commit(0, &Sent::default(), put).await {
            Ok(etag) => Ok(Tried::Done(etag)),
            Err(failure) if failure.is_unmet() => Ok(Tried::Unmet),
            // Such as: not implemented, or not permitted.
            Err(failure) if failure.harmless && !failure.again => Ok(Tried::Refused),
            Err(failure) => Err(failure),
        }
    }
}

/// How a write under a condition ended.
#[derive(Debug, PartialEq, Eq)]
enum Tried {
    Done(String),
    Unmet,
    Refused,
}
