//! Clients at the same time, for both contracts of objects.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use larder_traits::{
    BackendError, Classify, ErrorKind, ExpirationPolicy, Metadata, ObjectId, Outcome as Effect,
    TieredMetadata, TieredWrite, Tombstone,
};
use proptest::test_runner::TestRng;

use super::calls::{Answer, Call, Subject, object};
use super::objects::{chunks, len_max, name};
use crate::backend::{Handle, Object, World};
use crate::check::{Outcome, Stop, describe};
use crate::checks::pattern;
use crate::cx::{Cx, brief};
use crate::engine::lin::{self, Driver, Performed, Plan, Wrong, register_script};
use crate::engine::meeting::Harm;
use crate::lin::{self as history, ModelName, NewRow, Op};
use crate::model::high_volume::Row;

/// The rows of a store as the clients of an epoch use them: the text of a key or of a target is the key of its id, and
/// a value is an object whose metadata and payload both tell it.
pub(in crate::checks) struct Rows<S> {
    handles: Vec<S>,
    reads: AtomicUsize,
    wrong: Wrong,
    /// The redirect that a read has seen last in each row.
    seen: Mutex<BTreeMap<String, String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stored(value: &str) -> (Metadata, Bytes) {
    let len = crate::seed::hash(value.as_bytes()) % 3_000;
    object(value, usize::try_from(len).unwrap_or_default())
}

/// The value that the metadata names, if all else is as it was written with that value.
fn value_of(metadata: &Metadata, payload: Option<&Bytes>) -> String {
    let name = metadata.custom.get("of").cloned().unwrap_or_default();
    let (mut written, whole) = stored(&name);
    written.size = u64::try_from(whole.len()).ok();
    if *metadata == written && payload.is_none_or(|payload| *payload == whole) {
        return name;
    }
    format!(
        "torn: metadata of {name:?} with {:?} B, and {:?} B of payload",
        metadata.size,
        payload.map(Bytes::len)
    )
}

fn redirect_to(target: &str) -> Tombstone {
    Tombstone::new(name(target), ExpirationPolicy::Manual)
}

impl<S: Subject> Rows<S> {
    pub(in crate::checks) fn new(handles: Vec<S>) -> Self {
        Self {
            handles,
            reads: AtomicUsize::new(0),
            wrong: Wrong::default(),
            seen: Mutex::default(),
        }
    }

    fn call(&self, op: &Op) -> Option<(ObjectId, Call)> {
        let (key, call) = match op {
            Op::Set { key, value, .. } => {
                let (metadata, payload) = stored(value);
                (key, Call::Put(metadata, payload))
            }
            Op::Get { key } => {
                let nth = self.reads.fetch_add(1, Ordering::Relaxed);
                (key, S::READS[nth % S::READS.len()].clone())
            }
            Op::Delete { key } => (key, Call::Delete),
            Op::PutNonTombstone { key, value } => {
                let (metadata, payload) = stored(value);
                (key, Call::PutInline(metadata, payload))
            }
            Op::DeleteNonTombstone { key } => (key, Call::DeleteInline),
            Op::CompareAndWrite {
                key,
                current,
                write,
            } => {
                let write = match write {
                    NewRow::Redirect(target) => TieredWrite::Tombstone(redirect_to(target)),
                    NewRow::Object(value) => {
                        let (metadata, payload) = stored(value);
                        TieredWrite::Object(metadata, payload)
                    }
                    NewRow::Delete => TieredWrite::Delete,
                };
                (key, Call::Swap(current.as_deref().map(name), write))
            }
            _ => return None,
        };
        Some((name(key), call))
    }

    fn redirect(tombstone: &Tombstone) -> history::Row {
        let target = &tombstone.target.key;
        if *tombstone == redirect_to(target) {
            return history::Row::redirect(target.clone());
        }
        history::Row::redirect(format!("another redirect than was written: {tombstone:?}"))
    }

    /// The answer as a history says it.
    fn said(answer: &Answer) -> Option<history::Answer> {
        let inline = |metadata: &Metadata, payload: Option<&Bytes>| {
            history::Row::inline(value_of(metadata, payload))
        };
        let row = match answer {
            Answer::Done => return Some(history::Answer::Done),
            Answer::Won(won) => return Some(history::Answer::Swapped(*won)),
            Answer::Unless(found) => {
                let target = found.as_ref().map(|found| found.target.key.clone());
                return Some(history::Answer::Blocked(target));
            }
            Answer::Invalid => return None,
            Answer::Row(None)
            | Answer::Object(None)
            | Answer::Metadata(None)
            | Answer::Head(TieredMetadata::NotFound) => None,
            Answer::Row(Some(Row::Inline(metadata, payload)))
            | Answer::Object(Some(Object { metadata, payload })) => {
                Some(inline(metadata, Some(payload)))
            }
            Answer::Metadata(Some(metadata)) | Answer::Head(TieredMetadata::Object(metadata)) => {
                Some(inline(metadata, None))
            }
            Answer::Row(Some(Row::Redirect(tombstone)))
            | Answer::Head(TieredMetadata::Tombstone(tombstone))
            | Answer::Met(tombstone) => Some(Self::redirect(tombstone)),
        };
        Some(history::Answer::Row(row))
    }

    fn failed(&self, call: &Call, e: &BackendError) -> Performed {
        let is_certain = e.outcome() == Effect::NotApplied;
        let never = matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported);
        if never || call.is_read() && !is_certain {
            let expected = "an answer, or an error that this call may have";
            self.wrong
                .note(Stop::fail(format!("{call:?}"), describe(e), expected));
        }
        if is_certain || call.is_read() {
            Performed::NotApplied
        } else {
            Performed::Unknown
        }
    }

    pub(in crate::checks) fn last_seen(&self, key: &str) -> Option<String> {
        locked(&self.seen).get(key).cloned()
    }
}

#[async_trait]
impl<S: Subject> Driver for Rows<S> {
    async fn perform(&self, client: u32, op: &Op) -> Performed {
        let Some((id, call)) = self.call(op) else {
            self.wrong
                .note(Stop::Inconclusive(format!("the suite asked for {op}")));
            return Performed::NotApplied;
        };
        let client = usize::try_from(client).unwrap_or_default();
        let handle = &self.handles[client % self.handles.len()];
        let answer = match handle.make(&id, &call).await {
            Ok(answer) => answer,
            Err(e) => return self.failed(&call, &e),
        };
        let Some(said) = Self::said(&answer) else {
            self.wrong
                .note(Stop::fail(format!("{call:?}"), brief(&answer), "an answer"));
            return Performed::NotApplied;
        };
        if let history::Answer::Row(Some(history::Row::Redirect(target))) = &said {
            locked(&self.seen).insert(id.key, target.clone());
        }
        Performed::Answered(said)
    }

    fn wrong(&self) -> &Wrong {
        &self.wrong
    }
}

/// BK-1.1.
pub(super) async fn registers(cx: &Cx<dyn World>) -> Outcome {
    let plan = Plan {
        model: ModelName::Register,
        clients: 4,
        calls: 10,
        keys: vec!["x".into(), "y".into()],
    };
    for (place, is_shared) in [("shared", true), ("apart", false)] {
        let (a, b) = cx.open_two(place).await?;
        let (c, d) = cx.open_two(place).await?;
        let handles = if is_shared { vec![a] } else { vec![a, b, c, d] };
        let rows = Arc::new(Rows::new(handles));
        let script = |rng: &mut TestRng, tag: &str| register_script(&plan, rng, tag);
        lin::run(cx, &plan, rows, script).await?;
    }
    Ok(())
}

/// C-1.4 and C-6.5.
pub(super) async fn harmed(cx: &Cx<dyn World>, harm: Harm) -> Outcome {
    let plan = Plan {
        model: ModelName::Register,
        clients: 4,
        calls: 6,
        keys: vec!["x".into(), "y".into()],
    };
    let open = async |place: String| {
        let (a, b) = cx.open_two(&place).await?;
        Ok(Arc::new(Rows::new(vec![a, b])))
    };
    lin::run_harmed(cx, &plan, harm, open, |rng, tag| {
        register_script(&plan, rng, tag)
    })
    .await
}

/// What the readers of BK-1.3 have seen.
#[derive(Default)]
struct Seen {
    whole: usize,
    /// Reads that were going on while an object was replaced.
    overlapping: usize,
    failed: usize,
}

/// The fewest reads that must have gone on while an object was replaced.
const OVERLAPPING_MIN: usize = 20;

/// BK-1.3.
pub(super) async fn streams(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let max = len_max(&cx.caps, cx.profile);
    let id = name("replaced");
    // Lengths on both sides of one another, so that a mixture has a wrong length or a wrong inside.
    let versions: Arc<Vec<Object>> = Arc::new(
        [
            ("one", 300_007),
            ("two", 300_007),
            ("three", 120_001),
            ("four", 500_000),
        ]
        .into_iter()
        .map(|(tag, len)| {
            let (mut metadata, _) = object(tag, 0);
            let payload = Bytes::from(pattern(tag, max.min(len)));
            metadata.size = u64::try_from(payload.len()).ok();
            Object { metadata, payload }
        })
        .collect(),
    );
    let put = async |nth: usize| {
        let version = &versions[nth % versions.len()];
        let pieces = chunks(&version.payload, 60_000, false);
        a.put_chunks(&id, &version.metadata, pieces).await
    };
    put(0).await?;
    // The number of puts begun, and of those ended.
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let until = Instant::now() + Duration::from_secs(20);
    let mut readers = Vec::new();
    let is_over = Arc::new(AtomicUsize::new(0));
    for handle in [&a, &b, &b] {
        let (handle, id) = (handle.clone(), id.clone());
        let (counts, is_over) = (Arc::clone(&counts), Arc::clone(&is_over));
        let versions = Arc::clone(&versions);
        readers.push(tokio::spawn(async move {
            let mut seen = Seen::default();
            let mut nth = 0;
            while is_over.load(Ordering::SeqCst) == 0 {
                nth += 1;
                // Every other read stays in the middle of the payload until an object was replaced.
                let stays = nth % 2 == 0;
                read_slowly(&handle, &id, (&versions, &counts), stays, &mut seen).await?;
            }
            Ok::<_, Stop>(seen)
        }));
    }
    let mut ended = Ok(());
    for nth in 1..=cx.lin_epochs().min(2_000) {
        // Not all puts at once, before the readers have come to their turn.
        tokio::time::sleep(Duration::from_micros(300)).await;
        counts[0].fetch_add(1, Ordering::SeqCst);
        ended = put(nth).await;
        counts[1].fetch_add(1, Ordering::SeqCst);
        if ended.is_err() || Instant::now() > until || readers.iter().all(|r| r.is_finished()) {
            break;
        }
        tokio::task::yield_now().await;
    }
    is_over.store(1, Ordering::SeqCst);
    ended?;
    let (mut whole, mut overlapping, mut failed) = (0, 0, 0);
    for reader in readers {
        let seen = reader
            .await
            .map_err(|e| Stop::fail("a get", e.to_string(), "an answer (C-3)"))??;
        whole += seen.whole;
        overlapping += seen.overlapping;
        failed += seen.failed;
    }
    if overlapping < OVERLAPPING_MIN {
        return Err(Stop::Inconclusive(format!(
            "of {whole} whole reads only {overlapping} went on while the object was replaced, and {failed} failed"
        )));
    }
    Ok(())
}

/// One get, its payload read with a pause before each piece.
async fn read_slowly(
    handle: &Handle,
    id: &ObjectId,
    (versions, counts): (&[Object], &[AtomicUsize; 2]),
    stays: bool,
    seen: &mut Seen,
) -> Outcome {
    let what = "a get while puts replace the object";
    let ended_before = counts[1].load(Ordering::SeqCst);
    let found = match handle.store().get_object(id).await {
        Ok(Some(found)) => found,
        Ok(None) => return Err(Stop::fail(what, "None", "the old object or the new one")),
        Err(e) => {
            seen.failed += 1;
            return failed_read(&e);
        }
    };
    let (metadata, mut stream) = found;
    let mut payload = Vec::new();
    let until = Instant::now() + Duration::from_millis(20);
    while stays && counts[1].load(Ordering::SeqCst) == ended_before && Instant::now() < until {
        tokio::task::yield_now().await;
    }
    loop {
        tokio::task::yield_now().await;
        match stream.next().await {
            Some(Ok(piece)) => payload.extend_from_slice(&piece),
            Some(Err(e)) => {
                seen.failed += 1;
                return failed_read(&e);
            }
            None => break,
        }
    }
    let observed = Object {
        metadata,
        payload: payload.into(),
    };
    if !versions.contains(&observed) {
        return Err(Stop::fail(what, brief(&observed), "one whole object"));
    }
    seen.whole += 1;
    if counts[0].load(Ordering::SeqCst) > ended_before {
        seen.overlapping += 1;
    }
    Ok(())
}

fn failed_read(e: &BackendError) -> Outcome {
    if e.outcome() == Effect::NotApplied {
        return Ok(());
    }
    Err(Stop::fail(
        "the error of a get",
        describe(e),
        "NotApplied, as of every read",
    ))
}
