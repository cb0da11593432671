//! Looking for payloads that no row refers to and no log knows of.
//!
//! There should be none. What can make one is outside of what the log can know: an upload that lands after its bound,
//! a log that was lost, a long-term tier that was restored from a backup.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use larder_traits::{BackendError, ObjectId, ObjectListing, Step, TieredMetadata};

use crate::error::unlogged;
use crate::lease::Entry;
use crate::native::Core;
use crate::revision::Revision;

/// How an audit goes about it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AuditOptions {
    /// Whether what is found is removed; by default it is only reported.
    pub remove: bool,
    /// Payloads whose upload began less long ago are left alone; a day by default. It must be longer than the longest
    /// upload, since the log tells of its own writer's changes only.
    pub min_age: Duration,
    /// How many of what is found are named; 1,000 by default. All are counted.
    pub named_max: usize,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            remove: false,
            min_age: Duration::from_secs(24 * 60 * 60),
            named_max: 1_000,
        }
    }
}

impl AuditOptions {
    /// The same options, with what is found removed or only reported.
    #[must_use]
    pub const fn with_remove(mut self, remove: bool) -> Self {
        self.remove = remove;
        self
    }

    /// The same options with another age below which payloads are left alone.
    #[must_use]
    pub const fn with_min_age(mut self, min_age: Duration) -> Self {
        self.min_age = min_age;
        self
    }
}

/// What an audit found. Each payload listed is counted in exactly one of the numbers below `listed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditReport {
    /// Payloads that the long-term tier named.
    pub listed: u64,
    /// Those that a live redirect refers to.
    pub referenced: u64,
    /// Those that are too young to be judged.
    pub young: u64,
    /// Those that a change in this writer's log is about.
    pub recorded: u64,
    /// Those whose names are not of the form that this storage gives.
    pub foreign: u64,
    /// Those that nothing refers to.
    pub unreferenced: u64,
    /// Of the last, how many were removed.
    pub removed: u64,
    /// The first of the last by name.
    pub named: Vec<ObjectId>,
}

/// How many payloads are asked for at a time.
const PAGE: usize = 1_000;

pub(crate) async fn audit(
    core: &Arc<Core>,
    listing: &dyn ObjectListing,
    options: AuditOptions,
) -> Result<AuditReport, BackendError> {
    let mut recorded: HashSet<ObjectId> = HashSet::new();
    for own in [&core.journal, &core.claims] {
        let changes = core.insist(|| own.log.changes(own.writer)).await?;
        let payloads = changes
            .into_iter()
            .flat_map(|change| [change.created, change.replaced]);
        recorded.extend(payloads.flatten());
    }
    let mut report = AuditReport::default();
    let mut after: Option<String> = None;
    loop {
        let page = core.insist(|| listing.list_objects(after.as_deref(), PAGE));
        let page = page.await?;
        for payload in page.ids {
            report.listed += 1;
            judge(core, payload, &recorded, options, &mut report).await?;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(report),
        }
    }
}

async fn judge(
    core: &Arc<Core>,
    payload: ObjectId,
    recorded: &HashSet<ObjectId>,
    options: AuditOptions,
    report: &mut AuditReport,
) -> Result<(), BackendError> {
    let Some(revision) = Revision::parse(&payload) else {
        report.foreign += 1;
        return Ok(());
    };
    if recorded.contains(&payload) {
        report.recorded += 1;
        return Ok(());
    }
    let age = core.now().duration_since(revision.created);
    if age.unwrap_or_default() < options.min_age {
        report.young += 1;
        return Ok(());
    }
    // After the listing, so that the redirect of a payload that was listed is there if it ever will be.
    let row = core.look(&revision.object).await?;
    if matches!(&row, TieredMetadata::Tombstone(there) if there.target == payload) {
        report.referenced += 1;
        return Ok(());
    }
    report.unreferenced += 1;
    if report.named.len() < options.named_max {
        report.named.push(payload.clone());
    }
    if options.remove {
        let object = revision.object;
        let entry = Entry::begin(core, &object, Step::Remove, Some(payload), None).await;
        let is_removed = entry.map_err(unlogged)?.remove_now().await;
        report.removed += u64::from(is_removed);
    }
    Ok(())
}
