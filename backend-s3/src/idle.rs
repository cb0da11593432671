//! Deadlines of idle objects that accesses have moved (HV-8).
//!
//! S3 changes nothing of an object in place, and to write a large one anew for each access is out of the question. So
//! what an access moves lies in a small object of its own, named by the number of the write that made the large one: a
//! replacement has another number and starts afresh, whoever is still extending its predecessor. It is written under
//! conditions only. It goes from no object to later and later deadlines, and from any of them to `dead`; who answers
//! that an object has expired has written that first, so that no extension that is still on its way can revive it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_traits::{ErrorKind, ExpirationPolicy, Fault, Metadata};

use crate::error::Failure;
use crate::key::Folder;
use crate::mark::{Mark, Nonce};
use crate::upload::Condition;
use crate::wire::Wire;

/// How often a deadline is looked at again that others keep moving.
const ROUNDS_MAX: u32 = 16;

/// What lies beside an idle object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// Its deadline, in milliseconds since 1970.
    To(u64),
    Dead,
}

impl Moved {
    fn encode(self) -> String {
        match self {
            Self::To(millis) => format!("1 {millis}"),
            Self::Dead => "1 dead".into(),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let text = std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.strip_prefix("1 "));
        match text {
            Some("dead") => Ok(Self::Dead),
            Some(millis) => millis.parse().map(Self::To).map_err(|_e| damaged()),
            None => Err(damaged()),
        }
    }
}

fn damaged() -> Failure {
    Failure::corrupt("the deadline of an idle object cannot be read")
}

impl Wire {
    /// The metadata of an object as it is after this access to it, with the deadline that it has then; `None` for an
    /// object that has expired.
    pub(crate) async fn access(
        &self,
        nonce: Nonce,
        mut metadata: Metadata,
    ) -> Result<Option<Metadata>, Fault> {
        let ExpirationPolicy::TimeToIdle(_) = metadata.expiration_policy else {
            let expired = metadata.is_expired(self.config.clock.now());
            return Ok((!expired).then_some(metadata));
        };
        let name = format!("{}{nonce}", self.names.folder(Folder::Idle));
        let written = metadata.time_expires;
        for _ in 0..ROUNDS_MAX {
            let found = self.moved(&name).await.map_err(|e| e.not_applied())?;
            let condition = match &found {
                None => Condition::Absent,
                Some((_, etag)) => Condition::Is(etag.clone()),
            };
            match found {
                Some((Moved::Dead, _)) => return Ok(None),
                Some((Moved::To(millis), _)) => metadata.time_expires = written.max(moment(millis)),
                None => metadata.time_expires = written,
            }
            let now = self.config.clock.now();
            if metadata.is_expired(now) {
                match self.move_to(&name, Moved::Dead, &condition).await {
                    Ok(()) => return Ok(None),
                    Err(failure) if is_lost(&failure) => continue,
                    // What fails is a read, and that it says nothing is no effect.
                    Err(failure) => return Err(failure.not_applied()),
                }
            }
            let Some(later) = metadata.deadline_after_access(now) else {
                return Ok(Some(metadata));
            };
            match self
                .move_to(&name, Moved::To(millis(later)), &condition)
                .await
            {
                Ok(()) => {
                    metadata.time_expires = Some(later);
                    return Ok(Some(metadata));
                }
                Err(failure) if is_lost(&failure) => {}
                // The deadline stays as it was, and the answer says so.
                Err(_) => return Ok(Some(metadata)),
            }
        }
        let message = "others kept moving the deadline of an object";
        Err(Fault::not_applied(ErrorKind::Unavailable, message))
    }

    async fn moved(&self, name: &str) -> Result<Option<(Moved, String)>, Failure> {
        match self.fetch(name, 0..64).await? {
            None => Ok(None),
            Some(found) => Ok(Some((Moved::parse(found.value.as_slice())?, found.etag))),
        }
    }

    /// Every state is written once at most, so a repeat can do no harm: it finds its condition unmet.
    async fn move_to(&self, name: &str, to: Moved, condition: &Condition) -> Result<(), Failure> {
        let value = Bytes::from(to.encode());
        let mark = Mark::of(&value, self.nonces.next());
        let put = || self.put(name, value.clone(), &mark, condition);
        self.repeat(0, put).await.map(drop)
    }
}

/// Somebody else was faster, or this very write was and its answer was lost.
fn is_lost(failure: &Failure) -> bool {
    failure.is_unmet() || failure.is("NoSuchKey")
}

fn moment(millis: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

fn millis(at: SystemTime) -> u64 {
    // A deadline is not before 1970, and was cut to milliseconds when it was made.
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
