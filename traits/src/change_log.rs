//! [`ChangeLog`]: where a combinator of two stores writes down what it is about to do (TS-7).
//!
//! An object that spans two stores is changed in several steps, and a crash can fall between any two. Each step is
//! recorded before it is taken, so that whoever comes next can finish it or undo it. Who comes next must not disturb
//! a writer that is still alive: every change has a writer, and every writer a lease.

use std::fmt;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Fault, ObjectId};

const _: Option<&dyn ChangeLog> = None;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; 16]);

        impl $name {
            /// An id of these bytes; whoever makes one sees to it that it is unique, as a UUID is.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn into_bytes(self) -> [u8; 16] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

id! {
    /// Names one change for as long as it is in the log.
    ChangeId
}
id! {
    /// Names one writer: one opened combinator, until its process ends.
    WriterId
}

/// The step that a [`Change`] is about to take.
#[expect(
    clippy::exhaustive_enums,
    reason = "a recovery that did not know a step could not finish it"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Step {
    /// The payload `created` is being uploaded; nothing refers to it yet.
    Upload,
    /// The redirect is being swapped from `replaced` to `created`.
    Swap,
    /// The payloads that the change names, `created` or `replaced` or both, are being removed; nothing refers to them
    /// any more.
    Remove,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Change {
    /// Its name; recording another change of the same name replaces it.
    pub id: ChangeId,
    /// The object that is being changed.
    pub object: ObjectId,
    /// The step that is about to be taken.
    pub step: Step,
    /// The payload that this change brings into being, if any.
    pub created: Option<ObjectId>,
    /// The payload that this change takes away, if any.
    pub replaced: Option<ObjectId>,
}

impl Change {
    /// A change of `object` that is about to take `step`.
    #[must_use]
    pub fn new(id: ChangeId, object: ObjectId, step: Step) -> Self {
        Self {
            id,
            object,
            step,
            created: None,
            replaced: None,
        }
    }
}

/// A durable list of changes under way, each owned by a writer with a lease (TS-7).
///
/// # Durability
///
/// On `Ok` of [`record`](Self::record), [`complete`](Self::complete), [`renew`](Self::renew) and
/// [`claim`](Self::claim) their effect survives all that the stores survive which the log speaks of (CL-7). A log that
/// forgets is not a change log.
///
/// # Consistency
///
/// Linearizable, through any mix of handles and processes (CL-6).
///
/// # Errors
///
/// A [`Fault`] of any kind. After `Unknown` from `record`, `complete` or `renew`, call it again: each may be repeated.
#[async_trait]
pub trait ChangeLog: Debug + Send + Sync {
    /// Records `change` for `writer`, or replaces the change of that id (CL-1).
    ///
    /// # Errors
    ///
    /// As the trait says, and `Conflict`, `NotApplied`, where the change of that id belongs to another writer by now
    /// (CL-3): this one's lease had ended, and it must leave the change alone.
    async fn record(&self, writer: WriterId, change: &Change) -> Result<(), Fault>;

    /// Strikes out the change `id` of `writer`; `Ok` also where there is none (CL-2).
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record).
    async fn complete(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault>;

    /// The changes of `writer`, in any order, as they are at one moment (CL-3, CL-6).
    ///
    /// # Errors
    ///
    /// As the trait says; always `NotApplied`.
    async fn changes(&self, writer: WriterId) -> Result<Vec<Change>, Fault>;

    /// Gives `writer` a lease until `until`, or extends the one it has. A lease is never shortened (CL-4).
    ///
    /// It is kept to the millisecond at least, and what is finer is rounded in favour of the writer.
    ///
    /// # Errors
    ///
    /// `InvalidInput` where the log cannot keep the time, as it may be with one before 1970; else as the trait says.
    async fn renew(&self, writer: WriterId, until: SystemTime) -> Result<(), Fault>;

    /// Makes `writer` the owner of up to `limit` changes whose present owner is another with no lease or one that has
    /// ended at `now`, and returns them (CL-5). Of two that claim at once, one gets each change.
    ///
    /// # Errors
    ///
    /// As the trait says. After `Unknown`, [`changes`](Self::changes) tells what was claimed.
    async fn claim(
        &self,
        writer: WriterId,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<Change>, Fault>;
}

macro_rules! forward {
    ($($pointer:ty),+) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: ChangeLog + ?Sized> ChangeLog for $pointer {
            async fn record(&self, writer: WriterId, change: &Change) -> Result<(), Fault> {
                (**self).record(writer, change).await
            }
            async fn complete(&self, writer: WriterId, id: ChangeId) -> Result<(), Fault> {
                (**self).complete(writer, id).await
            }
            async fn changes(&self, writer: WriterId) -> Result<Vec<Change>, Fault> {
                (**self).changes(writer).await
            }
            async fn renew(&self, writer: WriterId, until: SystemTime) -> Result<(), Fault> {
                (**self).renew(writer, until).await
            }
            async fn claim(
                &self,
                writer: WriterId,
                now: SystemTime,
                limit: usize,
            ) -> Result<Vec<Change>, Fault> {
                (**self).claim(writer, now, limit).await
            }
        }
    )+};
}

forward!(Box<T>, Arc<T>, &T);
