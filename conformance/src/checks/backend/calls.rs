//! Calls as values, for checks that make many of them and judge each by the model.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use larder_traits::{
    BackendError, Classify, ClientStream, ErrorKind, ExpirationPolicy, Fault, Metadata, ObjectId,
    Outcome, TieredMetadata, TieredWrite, Tombstone,
};

use super::objects::{chunks, far, len_max, name};
use crate::backend::{self, Object};
use crate::check::{self, Stop};
use crate::checks::pattern;
use crate::cx::{Cx, brief, show};
use crate::fixture;
use crate::high_volume::{self, show_head, show_write};
use crate::model::high_volume::{Row, Rows, Shown, ShownRedirect, show_time};

/// A call on one row.
#[derive(Clone)]
pub(in crate::checks) enum Call {
    PutInline(Metadata, Bytes),
    Row,
    Head,
    DeleteInline,
    Swap(Option<ObjectId>, TieredWrite),
    Put(Metadata, Bytes),
    /// A put whose payload comes in pieces, and not all of them at once.
    PutSlowly(Metadata, Bytes),
    Get,
    Metadata,
    Delete,
    Extend(ObjectId, SystemTime),
    Fence,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutInline(_, payload) => write!(f, "put_non_tombstone({})", show(payload)),
            Self::Row => f.write_str("get_tiered_object"),
            Self::Head => f.write_str("get_tiered_metadata"),
            Self::DeleteInline => f.write_str("delete_non_tombstone"),
            Self::Swap(current, write) => {
                let current = current.as_ref().map(|id| id.key.as_str());
                write!(f, "compare_and_write({current:?}, {})", show_write(write))
            }
            Self::Put(_, payload) => write!(f, "put_object({})", show(payload)),
            Self::PutSlowly(_, payload) => write!(f, "put_object({} in pieces)", show(payload)),
            Self::Get => f.write_str("get_object"),
            Self::Metadata => f.write_str("get_metadata"),
            Self::Delete => f.write_str("delete_object"),
            Self::Extend(target, at) => write!(f, "extend_expiry({target}, {})", show_time(*at)),
            Self::Fence => f.write_str("fence"),
        }
    }
}

impl Call {
    /// Whether it changes nothing, but for what an access does to an idle row.
    pub(in crate::checks) const fn is_read(&self) -> bool {
        matches!(self, Self::Row | Self::Head | Self::Get | Self::Metadata)
    }
}

/// The answer to a call.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::checks) enum Answer {
    Done,
    Unless(Option<Tombstone>),
    Row(Option<Row>),
    Head(TieredMetadata),
    Won(bool),
    Object(Option<Object>),
    Metadata(Option<Metadata>),
    /// A plain read met a redirect.
    Met(Tombstone),
    /// Refused for what was asked, before any effect.
    Invalid,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("Ok"),
            Self::Unless(None) | Self::Metadata(None) => f.write_str("None"),
            Self::Unless(Some(tombstone)) => write!(f, "Some({})", ShownRedirect(tombstone)),
            Self::Row(row) => write!(f, "{row:?}"),
            Self::Head(head) => f.write_str(&show_head(head)),
            Self::Won(won) => write!(f, "{won}"),
            Self::Object(object) => write!(f, "{object:?}"),
            Self::Metadata(Some(metadata)) => write!(f, "Some({})", Shown(metadata)),
            Self::Met(tombstone) => {
                write!(f, "UnexpectedTombstone({})", ShownRedirect(tombstone))
            }
            Self::Invalid => f.write_str("Err(InvalidInput, NotApplied)"),
        }
    }
}

/// A handle of either contract of objects.
#[async_trait]
pub(in crate::checks) trait Subject: Clone + Send + Sync + 'static {
    /// Whether its rows can be redirects.
    const IS_TIERED: bool;

    /// Its reads, the one that tells most first.
    const READS: &'static [Call];

    fn plain(&self) -> &backend::Handle;

    /// Makes the call. A redirect in the way of a plain read is an answer, and so is a refusal of the arguments.
    async fn make(&self, id: &ObjectId, call: &Call) -> Result<Answer, BackendError>;

    /// What lies in the row.
    async fn see(&self, id: &ObjectId) -> Result<Option<Row>, BackendError>;
}

/// A payload that comes in four pieces, each of which has to be waited for.
fn slowly(payload: &Bytes) -> ClientStream {
    let pieces = chunks(payload, payload.len().div_ceil(4), false);
    stream::iter(pieces)
        .then(|piece| async {
            tokio::task::yield_now().await;
            Ok(piece)
        })
        .boxed()
}

async fn make_plain(
    handle: &backend::Handle,
    id: &ObjectId,
    call: &Call,
) -> Result<Answer, BackendError> {
    match call {
        Call::Put(metadata, payload) => {
            let pieces = vec![payload.clone()];
            let put = handle.try_put(id, metadata, pieces).await;
            put.map(|()| Answer::Done)
        }
        Call::PutSlowly(metadata, payload) => {
            let shown = format!("{} in pieces", show(payload));
            let put = handle.try_put_stream(id, metadata, &shown, slowly(payload));
            put.await.map(|()| Answer::Done)
        }
        Call::Get => handle.try_get(id).await.map(Answer::Object),
        Call::Metadata => handle.try_metadata(id).await.map(Answer::Metadata),
        Call::Delete => handle.try_delete(id).await.map(|()| Answer::Done),
        _ => Err(Fault::not_applied(
            ErrorKind::Unsupported,
            "a plain backend has no such call, and the suite made it",
        )
        .into()),
    }
}

fn answered(call: &Call, result: Result<Answer, BackendError>) -> Result<Answer, BackendError> {
    match result {
        Err(BackendError::UnexpectedTombstone(tombstone))
            if matches!(call, Call::Get | Call::Metadata) =>
        {
            Ok(Answer::Met(*tombstone))
        }
        Err(e) if e.kind() == ErrorKind::InvalidInput && e.outcome() == Outcome::NotApplied => {
            Ok(Answer::Invalid)
        }
        other => other,
    }
}

#[async_trait]
impl Subject for backend::Handle {
    const IS_TIERED: bool = false;
    const READS: &'static [Call] = &[Call::Get, Call::Metadata];

    fn plain(&self) -> &backend::Handle {
        self
    }

    async fn make(&self, id: &ObjectId, call: &Call) -> Result<Answer, BackendError> {
        answered(call, make_plain(self, id, call).await)
    }

    async fn see(&self, id: &ObjectId) -> Result<Option<Row>, BackendError> {
        let found = self.try_get(id).await?;
        Ok(found.map(|object| Row::Inline(object.metadata, object.payload)))
    }
}

#[async_trait]
impl Subject for high_volume::Handle {
    const IS_TIERED: bool = true;
    const READS: &'static [Call] = &[Call::Row, Call::Head, Call::Get, Call::Metadata];

    fn plain(&self) -> &backend::Handle {
        self
    }

    async fn make(&self, id: &ObjectId, call: &Call) -> Result<Answer, BackendError> {
        let result = match call {
            Call::PutInline(metadata, payload) => {
                let put = self.try_put_inline(id, metadata, payload.clone()).await;
                put.map(Answer::Unless)
            }
            Call::Row => self.try_row(id).await.map(Answer::Row),
            Call::Head => self.try_head(id).await.map(Answer::Head),
            Call::DeleteInline => self.try_delete_inline(id).await.map(Answer::Unless),
            Call::Swap(current, write) => {
                let swap = self.try_swap(id, current.as_ref(), write.clone()).await;
                swap.map(Answer::Won)
            }
            Call::Extend(target, at) => self.try_extend(id, target, *at).await.map(Answer::Won),
            Call::Fence => self.try_fence(id).await.map(|()| Answer::Done),
            plain => make_plain(self, id, plain).await,
        };
        answered(call, result)
    }

    async fn see(&self, id: &ObjectId) -> Result<Option<Row>, BackendError> {
        self.try_row(id).await
    }
}

/// What the model answers.
pub(in crate::checks) fn expect(
    rows: &mut Rows,
    now: SystemTime,
    id: &ObjectId,
    call: &Call,
) -> Answer {
    fn or_invalid<T>(result: Result<T, Fault>, answer: impl FnOnce(T) -> Answer) -> Answer {
        result.map_or(Answer::Invalid, answer)
    }
    fn or_met<T>(result: Result<T, BackendError>, answer: impl FnOnce(T) -> Answer) -> Answer {
        match result {
            Err(BackendError::UnexpectedTombstone(tombstone)) => Answer::Met(*tombstone),
            Err(_) => Answer::Invalid,
            Ok(value) => answer(value),
        }
    }
    match call.clone() {
        Call::PutInline(metadata, payload) => or_invalid(
            rows.put_non_tombstone(now, id, &metadata, payload),
            Answer::Unless,
        ),
        Call::Row => Answer::Row(rows.get_tiered_object(now, id)),
        Call::Head => Answer::Head(rows.get_tiered_metadata(now, id)),
        Call::DeleteInline => Answer::Unless(rows.delete_non_tombstone(now, id)),
        Call::Swap(current, write) => or_invalid(
            rows.compare_and_write(now, id, current.as_ref(), write),
            Answer::Won,
        ),
        Call::Put(metadata, payload) | Call::PutSlowly(metadata, payload) => {
            or_invalid(rows.put_object(now, id, &metadata, payload), |()| {
                Answer::Done
            })
        }
        Call::Get => or_met(rows.get_object(now, id), |found| {
            Answer::Object(found.map(|(metadata, payload)| Object { metadata, payload }))
        }),
        Call::Metadata => or_met(rows.get_metadata(now, id), Answer::Metadata),
        Call::Delete => {
            rows.delete_object(id);
            Answer::Done
        }
        Call::Extend(target, at) => {
            or_invalid(rows.extend_expiry(now, id, &target, at), Answer::Won)
        }
        Call::Fence => Answer::Done,
    }
}

/// A row as it was brought about, and a call on it.
#[derive(Clone, Debug)]
pub(in crate::checks) struct Case {
    pub(in crate::checks) before: Vec<Call>,
    pub(in crate::checks) call: Call,
}

/// What a row may hold around a call.
#[derive(Clone, Debug)]
pub(in crate::checks) struct States {
    pub(in crate::checks) old: Option<Row>,
    pub(in crate::checks) new: Option<Row>,
    /// The answer to the call that went well.
    pub(in crate::checks) answer: Answer,
}

impl States {
    /// Fails unless the row is as it was or as the call leaves it.
    pub(in crate::checks) fn either(&self, what: &str, seen: &Option<Row>) -> check::Outcome {
        if *seen == self.old || *seen == self.new {
            return Ok(());
        }
        let expected = format!("{}, or {}", brief(&self.old), brief(&self.new));
        Err(Stop::fail(what, brief(seen), expected))
    }
}

/// The row after these calls. Nothing in them depends on the time.
pub(in crate::checks) fn row_after<'a>(
    id: &ObjectId,
    calls: impl IntoIterator<Item = &'a Call>,
) -> Option<Row> {
    let mut rows = Rows::default();
    for call in calls {
        expect(&mut rows, SystemTime::UNIX_EPOCH, id, call);
    }
    rows.row(SystemTime::UNIX_EPOCH, id).cloned()
}

/// Makes calls that must all go well.
pub(in crate::checks) async fn make_all<S: Subject>(
    handle: &S,
    id: &ObjectId,
    calls: &[Call],
) -> check::Outcome {
    for call in calls {
        let made = handle.make(id, call).await;
        let answer = made.map_err(|e| Stop::error(format!("{call:?} of {id}"), &e))?;
        if answer == Answer::Invalid {
            return Err(Stop::fail(
                format!("{call:?} of {id}"),
                brief(&answer),
                "an answer",
            ));
        }
    }
    Ok(())
}

impl Case {
    pub(in crate::checks) fn states(&self, id: &ObjectId) -> States {
        let now = SystemTime::UNIX_EPOCH;
        let mut rows = Rows::default();
        for call in &self.before {
            expect(&mut rows, now, id, call);
        }
        let old = rows.row(now, id).cloned();
        let answer = expect(&mut rows, now, id, &self.call);
        let new = rows.row(now, id).cloned();
        States { old, new, answer }
    }

    /// Brings the row about.
    pub(in crate::checks) async fn prepare<S: Subject>(
        &self,
        handle: &S,
        id: &ObjectId,
    ) -> check::Outcome {
        make_all(handle, id, &self.before).await
    }

    /// A few words for failures.
    pub(in crate::checks) fn what(&self) -> String {
        match self.before.last() {
            Some(before) => format!("{:?} after {before:?}", self.call),
            None => format!("{:?} on an absent row", self.call),
        }
    }
}

/// An object without any time that a clock fills in.
pub(in crate::checks) fn object(tag: &str, len: usize) -> (Metadata, Bytes) {
    let mut metadata = Metadata::new();
    metadata.time_created = Some(far());
    metadata.custom.insert("of".into(), tag.into());
    (metadata, pattern(tag, len).into())
}

pub(in crate::checks) fn target(letter: &str) -> ObjectId {
    name(&format!("target-{letter}"))
}

fn redirect(letter: &str) -> TieredWrite {
    let mut tombstone = Tombstone::new(
        target(letter),
        ExpirationPolicy::TimeToLive(Duration::from_secs(60)),
    );
    tombstone.time_expires = Some(far());
    TieredWrite::Tombstone(tombstone)
}

/// A redirect to `a` where nothing or an object was.
pub(in crate::checks) fn to_a() -> Call {
    Call::Swap(None, redirect("a"))
}

/// Each call that a store has, on rows on which it does something.
pub(in crate::checks) fn cases<S: Subject, W: fixture::World + ?Sized>(cx: &Cx<W>) -> Vec<Case> {
    let max = len_max(&cx.caps, cx.profile);
    let (old_metadata, old) = object("old", max.min(3_000));
    let (metadata, payload) = object("new", max.min(9_001));
    let new = || TieredWrite::Object(metadata.clone(), payload.clone());
    let put = || vec![Call::Put(old_metadata.clone(), old.clone())];
    let case = |before, call| Case { before, call };
    let put_new = Call::PutSlowly(metadata.clone(), payload.clone());
    let mut cases = vec![
        case(Vec::new(), put_new.clone()),
        case(put(), put_new.clone()),
        case(put(), Call::Delete),
    ];
    cases.extend(S::READS.iter().map(|read| case(put(), read.clone())));
    if !S::IS_TIERED {
        return cases;
    }
    let put_inline = Call::PutInline(metadata.clone(), payload.clone());
    let a = || Some(target("a"));
    cases.extend([
        case(Vec::new(), put_inline.clone()),
        case(put(), put_inline.clone()),
        case(vec![to_a()], put_inline),
        case(put(), Call::DeleteInline),
        case(vec![to_a()], put_new),
        case(vec![to_a()], Call::Delete),
        case(Vec::new(), Call::Swap(None, redirect("n"))),
        case(put(), Call::Swap(None, redirect("n"))),
        case(put(), Call::Swap(None, new())),
        case(put(), Call::Swap(None, TieredWrite::Delete)),
        case(vec![to_a()], Call::Swap(a(), redirect("n"))),
        case(vec![to_a()], Call::Swap(a(), new())),
        case(vec![to_a()], Call::Swap(a(), TieredWrite::Delete)),
        // What leaves a redirect alone leaves it alone however it ends.
        case(vec![to_a()], Call::DeleteInline),
        case(vec![to_a()], Call::Swap(None, redirect("n"))),
        case(vec![to_a()], Call::Swap(None, TieredWrite::Delete)),
        case(vec![to_a()], Call::Swap(Some(target("b")), new())),
        case(put(), Call::Swap(a(), redirect("n"))),
    ]);
    cases.extend(S::READS.iter().map(|read| case(vec![to_a()], read.clone())));
    if cx.caps.high_volume.extend_expiry {
        let later = far() + Duration::from_secs(86_400);
        cases.push(case(vec![to_a()], Call::Extend(target("a"), later)));
    }
    if cx.caps.high_volume.fence {
        cases.push(case(put(), Call::Fence));
    }
    cases
}
